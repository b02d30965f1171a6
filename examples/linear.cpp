// SPDX-License-Identifier: Apache-2.0
// Linear layers of a model: one function over the concept runs with dense weights, with blocks of 4
// bits as .gguf files have them, and with two thin factors.
// Prints how far the layers of 4 bits and of rank 48 are from the dense one: below 10 % and 1e-5.

#include <pare/factor/svd.hpp>
#include <pare/kernel/quantized.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/gates.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/low_rank_linear.hpp>
#include <pare/transformer/quantized_linear.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

using namespace pare::transformer;
using pare::kernel::Q4_1;
using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Half of a feed-forward block, y = silu(x W^T), for whatever models `Linear`.
template <Linear L>
Rows feed(const L& layer, const Rows& x, pare::Workspace& workspace) {
  Rows y(x.rows(), layer.outputs());
  const auto backend = pare::simd.threads(2).with(workspace);  // nothing is allocated from then on
  layer.apply(backend, pare::as_const(pare::to_view(x)), pare::to_view(y));
  activate(backend, y, y, Silu{});
  return y;
}

/// w in blocks of 32 weights of 4 bits with a scale and an offset each.
std::vector<Q4_1> quantised(const Rows& w) {
  std::vector<Q4_1> blocks(static_cast<std::size_t>(w.size() / 32));
  const float* x = w.data();
  for (Q4_1& block : blocks) {
    const Eigen::Map<const Eigen::ArrayXf> values(x, 32);
    const float least = values.minCoeff(), step = (values.maxCoeff() - least) / 15;
    const std::uint16_t d = pare::f16(step).bits, m = pare::f16(least).bits;
    block.d = {static_cast<std::uint8_t>(d & 255), static_cast<std::uint8_t>(d >> 8)};
    block.m = {static_cast<std::uint8_t>(m & 255), static_cast<std::uint8_t>(m >> 8)};
    const auto level = [&](int i) { return std::lround((x[i] - least) / step); };
    for (int i = 0; i < 16; ++i)
      block.q[i] = static_cast<std::uint8_t>(level(i) | level(i + 16) << 4);
    x += 32;
  }
  return blocks;
}

int main() {
  constexpr Eigen::Index outputs = 192, inputs = 96, rank = 48;
  const Rows w = Rows::Random(outputs, rank) * Rows::Random(rank, inputs) / 8;
  const Rows x = Rows::Random(5, inputs);
  pare::Workspace workspace;

  const DenseLinear<float> dense(w);
  const std::vector<Q4_1> blocks = quantised(w);
  const QuantizedLinear<Q4_1> small(blocks, outputs, inputs);
  const auto factors = pare::factor::truncated_svd(w, {.rank = rank});
  const LowRankLinear<float> thin(factors);

  const Rows wanted = feed(dense, x, workspace);
  const float of_small = (feed(small, x, workspace) - wanted).norm() / wanted.norm();
  const float of_thin = (feed(thin, x, workspace) - wanted).norm() / wanted.norm();
  std::printf("4 bits: %.2g, rank %td: %.2g\n", double(of_small), rank, double(of_thin));
  return of_small < 0.1f && of_thin < 1e-5f ? 0 : 1;
}
