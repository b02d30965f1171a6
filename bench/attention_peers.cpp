// SPDX-License-Identifier: Apache-2.0
#include "attention_peers.hpp"

#include "openblas.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "timing.hpp"

#include <pare/core/aligned_buffer.hpp>
#include <pare/kernel/simd.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>

namespace pare::bench {
namespace {

using Arch = arch::best;
using Vector = kernel::vec<float, Arch>;
constexpr Index width = kernel::lanes<float, Arch>;
constexpr float lowest = -std::numeric_limits<float>::infinity();
constexpr double log2_e = 1.4426950408889634;

// ---------------------------------------------------------------- the flash loop over OpenBLAS

template <class V>
V exp2_of(V x) {
  if constexpr (std::is_arithmetic_v<V>)
    return std::exp2(x);
  else
    return xsimd::exp2(x);
}

// Folding halves: each step is one instruction where `kernel::reduce_max` takes a lane at a time.
float largest_lane(Vector v) {
  alignas(64) std::array<float, static_cast<std::size_t>(width)> lane;
  kernel::store<Arch>(lane.data(), v);
  for (std::size_t half = lane.size() / 2; half > 0; half /= 2)
    for (std::size_t i = 0; i < half; ++i) lane[i] = std::max(lane[i], lane[i + half]);
  return lane[0];
}

// What a worker holds of one row block: scores of a tile, sums of values, running maxima and sums.
struct FlashState {
  explicit FlashState(FlashTile tile, Index dim)
      : scores(static_cast<std::size_t>(tile.rows * (tile.keys + width))),
        values(static_cast<std::size_t>(tile.rows * dim)),
        maxima(static_cast<std::size_t>(tile.rows)),
        sums(static_cast<std::size_t>(tile.rows)) {}

  AlignedBuffer<float> scores, values, maxima, sums;
};

// Scores of a row become weights 2^(score - maximum); returns their sum. `padded` is a multiple of
// the register width, and what lies beyond the keys that count is -inf.
float weigh_row(float* row, Index padded, float maximum) {
  const Vector shift = kernel::broadcast<Arch>(maximum);
  Vector sum[4];
  for (Vector& s : sum) s = kernel::broadcast<Arch>(0.0f);
  Index j = 0;
  for (; j + 4 * width <= padded; j += 4 * width)
    for (Index u = 0; u < 4; ++u) {
      const Vector weight = exp2_of(kernel::load<Arch>(row + j + u * width) - shift);
      kernel::store<Arch>(row + j + u * width, weight);
      sum[u] += weight;
    }
  for (; j < padded; j += width) {
    const Vector weight = exp2_of(kernel::load<Arch>(row + j) - shift);
    kernel::store<Arch>(row + j, weight);
    sum[0] += weight;
  }
  return kernel::reduce_add<Arch>((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

float row_maximum(const float* row, Index padded, float start) {
  Vector largest[4];
  for (Vector& l : largest) l = kernel::broadcast<Arch>(start);
  Index j = 0;
  for (; j + 4 * width <= padded; j += 4 * width)
    for (Index u = 0; u < 4; ++u)
      largest[u] = kernel::maximum<Arch>(largest[u], kernel::load<Arch>(row + j + u * width));
  for (; j < padded; j += width)
    largest[0] = kernel::maximum<Arch>(largest[0], kernel::load<Arch>(row + j));
  return largest_lane(kernel::maximum<Arch>(kernel::maximum<Arch>(largest[0], largest[1]),
                                            kernel::maximum<Arch>(largest[2], largest[3])));
}

void scale_row(float* row, Index n, float factor) {
  for (Index j = 0; j < n; ++j) row[j] *= factor;
}

// One tile's softmax: `visible(i)` keys of the tile count for row i.
template <class Visible>
void update_rows(FlashState& state, Index rows, Index keys, Index stride, Index dim,
                 const Visible& visible) {
  const Index padded = (keys + width - 1) / width * width;
  for (Index i = 0; i < rows; ++i) {
    float* row = state.scores.data() + i * stride;
    std::fill(row + visible(i), row + padded, lowest);
    float& maximum = state.maxima.data()[i];
    float& sum = state.sums.data()[i];
    const float larger = row_maximum(row, padded, maximum);
    if (larger != maximum) {
      const float factor = std::exp2(maximum - larger);
      scale_row(state.values.data() + i * dim, dim, factor);
      sum *= factor;
      maximum = larger;
    }
    sum += weigh_row(row, padded, maximum);
  }
}

template <class Keep>
void flash_row_block(const OpenBlas& blas, const DenseHeads& a, FlashTile tile, Index head,
                     Index first, const Keep& keep, FlashState& state) {
  const Index rows = std::min(tile.rows, a.tokens - first), dim = a.dim;
  const Index stride = tile.keys + width;
  const auto narrow = [](Index n) { return static_cast<int>(n); };
  const float* q = a.q + (head * a.tokens + first) * dim;
  std::fill_n(state.values.data(), rows * dim, 0.0f);
  std::fill_n(state.maxima.data(), rows, std::numeric_limits<float>::lowest());
  std::fill_n(state.sums.data(), rows, 0.0f);
  const auto factor = static_cast<float>(log2_e / std::sqrt(static_cast<double>(dim)));
  for (Index key = 0; key < first + rows; key += tile.keys) {
    if (!keep(head, first / tile.rows, key / tile.keys)) continue;
    const Index keys = std::min(tile.keys, first + rows - key);
    const float* k = a.k + (head * a.tokens + key) * dim;
    const float* v = a.v + (head * a.tokens + key) * dim;
    blas.multiply_transposed(narrow(rows), narrow(keys), narrow(dim), factor, q, narrow(dim), k,
                             narrow(dim), 0.0f, state.scores.data(), narrow(stride));
    update_rows(state, rows, keys, stride, dim,
                [&](Index i) { return std::clamp(first + i + 1 - key, Index{0}, keys); });
    blas.multiply(narrow(rows), narrow(dim), narrow(keys), 1.0f, state.scores.data(),
                  narrow(stride), v, narrow(dim), 1.0f, state.values.data(), narrow(dim));
  }
  for (Index i = 0; i < rows; ++i) {
    const float inverse = 1.0f / state.sums.data()[i];
    float* out = a.out + (head * a.tokens + first + i) * dim;
    for (Index c = 0; c < dim; ++c) out[c] = state.values.data()[i * dim + c] * inverse;
  }
}

template <class Keep>
void flash(const DenseHeads& a, FlashTile tile, int threads, const Keep& keep) {
  const OpenBlas& blas = *OpenBlas::installed();
  const Index blocks = (a.tokens + tile.rows - 1) / tile.rows;
  std::vector<FlashState> states;
  for (int t = 0; t < threads; ++t) states.emplace_back(tile, a.dim);
  parallel_for(DefaultExecutor{threads}, blocks * a.heads, [&](Index item, int worker) {
    flash_row_block(blas, a, tile, item / blocks, (blocks - 1 - item % blocks) * tile.rows, keep,
                    states[static_cast<std::size_t>(worker)]);
  });
}

// ---------------------------------------------------------------- Eigen

using ConstRows = Eigen::Map<const RowMatrix>;
using Rows = Eigen::Map<RowMatrix>;

// Softmax of causal scores in place: row i sees the first `seen + i` keys.
void causal_softmax(RowMatrix& scores, Index seen) {
  for (Index i = 0; i < scores.rows(); ++i) {
    auto row = scores.row(i).head(seen + i).array();
    row = (row - row.maxCoeff()).exp();
    row /= row.sum();
    scores.row(i).tail(scores.cols() - seen - i).setZero();
  }
}

void eigen_rows(const DenseHeads& a, Index head, Index first, Index rows) {
  const Index keys = first + rows, at = head * a.tokens * a.dim;
  const ConstRows q(a.q + at + first * a.dim, rows, a.dim);
  const ConstRows k(a.k + at, keys, a.dim), v(a.v + at, keys, a.dim);
  RowMatrix scores = (q * k.transpose()) * (1.0f / std::sqrt(static_cast<float>(a.dim)));
  causal_softmax(scores, first + 1);
  Rows(a.out + at + first * a.dim, rows, a.dim).noalias() = scores * v;
}

constexpr Index largest_whole = 8192;  ///< beyond it the scores of a head take over 256 MiB

std::string shape_of(const DenseHeads& a, int threads) {
  return "attention h" + std::to_string(a.heads) + " n" + std::to_string(a.tokens) + " d" +
         std::to_string(a.dim) + " t" + std::to_string(threads);
}

}  // namespace

const std::vector<FlashTile>& flash_tiles() {
  static const std::vector<FlashTile> tiles{{64, 128},  {64, 256},  {128, 128},
                                            {128, 256}, {192, 256}, {256, 512}};
  return tiles;
}

void openblas_flash(const DenseHeads& a, FlashTile tile, int threads) {
  flash(a, tile, threads, [](Index, Index, Index) { return true; });
}

void openblas_flash(const DenseHeads& a, FlashTile tile, int threads, const KeepTile& keep) {
  flash(a, tile, threads, keep);
}

void eigen_whole(const DenseHeads& a, int threads) {
  Eigen::setNbThreads(1);
  parallel_for(DefaultExecutor{threads}, a.heads,
               [&](Index head, int) { eigen_rows(a, head, 0, a.tokens); });
}

void eigen_by_rows(const DenseHeads& a, Index rows, int threads) {
  Eigen::setNbThreads(1);
  const Index blocks = (a.tokens + rows - 1) / rows;
  parallel_for(DefaultExecutor{threads}, blocks * a.heads, [&](Index item, int) {
    const Index first = (blocks - 1 - item % blocks) * rows;
    eigen_rows(a, item / blocks, first, std::min(rows, a.tokens - first));
  });
}

double openblas_attention_seconds(const DenseHeads& a, int threads) {
  if (OpenBlas::installed() == nullptr) return std::numeric_limits<double>::quiet_NaN();
  std::vector<Formulation> formulations;
  for (const FlashTile tile : flash_tiles())
    formulations.push_back(
        {"flash tile " + std::to_string(tile.rows) + "x" + std::to_string(tile.keys),
         [a, tile, threads] { openblas_flash(a, tile, threads); }});
  return peer_seconds("openblas " + shape_of(a, threads), formulations, PeerResult::Read);
}

double eigen_attention_seconds(const DenseHeads& a, int threads) {
  std::vector<Formulation> formulations;
  for (const Index rows : {64, 128})
    formulations.push_back({std::to_string(rows) + " rows at a time",
                            [a, rows, threads] { eigen_by_rows(a, rows, threads); }});
  if (a.tokens <= largest_whole)
    formulations.push_back({"all scores at once", [a, threads] { eigen_whole(a, threads); }});
  return peer_seconds("eigen " + shape_of(a, threads), formulations, PeerResult::Read);
}

}  // namespace pare::bench
