// SPDX-License-Identifier: Apache-2.0
#include "factor_data.hpp"

#include "timing.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pare::bench {
namespace {
using Eigen::Index;

/// One orthogonal map of vectors of a length; a few rounds mix every coordinate with every other.
class Mixing {
 public:
  Mixing(Index size, std::uint64_t seed) {
    SplitMix64 random(seed);
    for (Round& round : rounds_) {
      round.order.resize(static_cast<std::size_t>(size));
      std::iota(round.order.begin(), round.order.end(), Index{0});
      for (std::size_t i = round.order.size(); i > 1; --i)
        std::swap(round.order[i - 1], round.order[random.next() % i]);
      for (Index i = 0; i < size; ++i) round.signs.push_back(random.next() & 1 ? 1.0f : -1.0f);
    }
  }

  void apply(std::vector<float>& x) const {
    std::vector<float> y(x.size());
    for (const Round& round : rounds_) {
      for (std::size_t i = 0; i < x.size(); ++i)
        y[i] = round.signs[i] * x[static_cast<std::size_t>(round.order[i])];
      for (std::size_t begin = 0; begin + block <= y.size(); begin += block) hadamard(&y[begin]);
      x.swap(y);
    }
  }

 private:
  static constexpr std::size_t block = 64;
  struct Round {
    std::vector<Index> order;
    std::vector<float> signs;
  };

  static void hadamard(float* x) {
    for (std::size_t half = 1; half < block; half *= 2)
      for (std::size_t i = 0; i < block; i += 2 * half)
        for (std::size_t j = i; j < i + half; ++j) {
          const float a = x[j], b = x[j + half];
          x[j] = a + b;
          x[j + half] = a - b;
        }
    for (std::size_t i = 0; i < block; ++i) x[i] *= 0.125f;
  }

  Round rounds_[4];
};

/// Maps every row of m.
void mix_rows(RowMatrix& m, const Mixing& mixing) {
  over_ranges(all_threads(), m.rows(), 16, [&](Index begin, Index end) {
    std::vector<float> row(static_cast<std::size_t>(m.cols()));
    for (Index i = begin; i < end; ++i) {
      std::copy_n(m.row(i).data(), m.cols(), row.data());
      mixing.apply(row);
      std::copy_n(row.data(), m.cols(), m.row(i).data());
    }
  });
}

}  // namespace

RowMatrix matrix_with_singular_values(Index rows, Index cols, const std::vector<double>& values,
                                      std::uint64_t seed) {
  RowMatrix m = RowMatrix::Zero(rows, cols);
  for (std::size_t i = 0; i < values.size(); ++i)
    m(static_cast<Index>(i), static_cast<Index>(i)) = static_cast<float>(values[i]);
  mix_rows(m, Mixing(cols, seed));
  RowMatrix transposed = m.transpose();
  mix_rows(transposed, Mixing(rows, seed + 1));
  return transposed.transpose();
}

std::vector<double> power_law_values(Index count, double decay) {
  std::vector<double> values;
  for (Index i = 1; i <= count; ++i) values.push_back(std::pow(static_cast<double>(i), -decay));
  return values;
}

double residual_norm(const RowMatrix& w, const RowMatrix& a, const RowMatrix& b) {
  constexpr Index rows = 64;
  std::vector<double> sums(static_cast<std::size_t>((w.rows() + rows - 1) / rows));
  Eigen::setNbThreads(1);
  over_ranges(all_threads(), w.rows(), rows, [&](Index begin, Index end) {
    const RowMatrix rest = w.middleRows(begin, end - begin) - a.middleRows(begin, end - begin) * b;
    sums[static_cast<std::size_t>(begin / rows)] = rest.cast<double>().squaredNorm();
  });
  return std::sqrt(std::accumulate(sums.begin(), sums.end(), 0.0));
}

}  // namespace pare::bench
