// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a sparse attention is judged by: how far from the exact one it is, and what is still read
/// from it.

#include "recall_text/heads.hpp"
#include "recall_text/text.hpp"

#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>

namespace recall {

/// Log-sum-exps, [batch, heads, tokens].
using RowTensor = Eigen::Tensor<float, 3, Eigen::RowMajor>;

/// One line of the table. Speed-up is against the exact engine on the same heads.
struct Score {
  std::string method;
  std::string setting;
  double density = 1;  ///< share of the causal blocks that were computed
  double mass = 1;     ///< covered attention mass, mean over rows and heads
  double error = 0;    ///< relative mean squared error, mean over heads
  double accuracy = std::numeric_limits<double>::quiet_NaN();  ///< NaN: nothing to foretell
  double seconds = 0;                                          ///< all of it
  double select_seconds = 0;  ///< of which for choosing what to compute
};

/// Mean over heads of |approximate - exact|^2 / |exact|^2, both [batch, heads, tokens, dim].
inline double relative_error(const Tensor& approximate, const Tensor& exact) {
  const Index heads = exact.dimension(0) * exact.dimension(1);
  const Index size = exact.dimension(2) * exact.dimension(3);
  double sum = 0;
  for (Index h = 0; h < heads; ++h) {
    const Eigen::Map<const Eigen::ArrayXf> a(approximate.data() + h * size, size);
    const Eigen::Map<const Eigen::ArrayXf> e(exact.data() + h * size, size);
    sum += (a - e).cast<double>().square().sum() / e.cast<double>().square().sum();
  }
  return sum / double(heads);
}

/// Mean over rows of exp(lse - exact lse): the share of the exact weights that was not left out. A
/// row that sees no key at all counts as covered.
inline double covered_mass(const RowTensor& lse, const RowTensor& exact) {
  double sum = 0;
  for (Index i = 0; i < exact.size(); ++i) {
    const bool sees_none = exact.data()[i] == -std::numeric_limits<float>::infinity();
    sum += sees_none ? 1 : std::exp(double(lse.data()[i]) - double(exact.data()[i]));
  }
  return sum / double(exact.size());
}

/// Share of the second half's words that are foretold: the word whose code has the largest product
/// with the output at i is taken for the word at i + 1. `out` is [1, heads, tokens, head_dim].
inline double next_word_accuracy(const Tensor& out, Index head, const Text& text,
                                 const Matrix& codes) {
  constexpr Index batch = 256;  // keeps the products of a batch with all codes small
  const Index n = text.size(), dim = out.dimension(3);
  const Eigen::Map<const Matrix> rows(out.data() + head * n * dim, n, dim);
  Index right = 0;
  Matrix products;
  for (Index begin = n / 2; begin < n - 1; begin += batch) {
    const Index count = std::min(batch, n - 1 - begin);
    products.noalias() = rows.middleRows(begin, count) * codes.transpose();
    for (Index i = 0; i < count; ++i) {
      Index word = 0;
      products.row(i).maxCoeff(&word);
      right += word == text.word(begin + i + 1) ? 1 : 0;
    }
  }
  const Index scored = n - 1 - n / 2;
  return double(right) / double(scored);
}

}  // namespace recall
