// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Linear state-space models for tests, and their recurrence in long double.

#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/matrices.hpp"

namespace pare::testing {

template <class T>
RowMatrix<T> uniform_rows(Index rows, Index cols, std::uint64_t seed, double size = 1) {
  Engine random(seed);
  RowMatrix<T> m(rows, cols);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<T>(size * uniform(random));
  return m;
}

/// [batch, tokens, width] of rows that lie one behind the other.
template <class T>
TensorView<T, 3> sequences(RowMatrix<T>& m, Index batch) {
  const Index tokens = m.rows() / batch;
  return {m.data(), {batch, tokens, m.cols()}, {tokens * m.cols(), m.cols(), 1}};
}

template <class T>
struct Model {
  RowMatrix<T> a, b, c;
};

/// Rows of |A| that add up to `decay`, so that states stay near inputs.
template <class T>
Model<T> random_model(Index states, Index in, Index out, double decay = 0.9) {
  Model<T> m{uniform_rows<T>(states, states, 1), uniform_rows<T>(states, in, 2),
             uniform_rows<T>(out, states, 3)};
  for (Index n = 0; n < states; ++n)
    m.a.row(n) *= static_cast<T>(decay) / m.a.row(n).cwiseAbs().sum();
  return m;
}

/// y and the last state by the recurrence in long double, with what the sums have without signs.
template <class T>
struct Recurrence {
  std::vector<std::vector<long double>> y, magnitude;
  std::vector<long double> h, size;

  Recurrence(const Model<T>& m, const RowMatrix<T>& x, const RowMatrix<T>& state, Index sequence) {
    const Index states = m.a.rows(), tokens = x.rows() / state.rows();
    for (Index n = 0; n < states; ++n) {
      h.push_back(state(sequence, n));
      size.push_back(std::abs(h.back()));
    }
    for (Index t = 0; t < tokens; ++t) {
      std::vector<long double> next(h.size()), grown(h.size());
      for (Index n = 0; n < states; ++n) {
        const auto at = static_cast<std::size_t>(n);
        for (Index k = 0; k < states; ++k) {
          next[at] += static_cast<long double>(m.a(n, k)) * h[static_cast<std::size_t>(k)];
          grown[at] +=
              std::abs(static_cast<long double>(m.a(n, k))) * size[static_cast<std::size_t>(k)];
        }
        for (Index j = 0; j < m.b.cols(); ++j) {
          const auto term = static_cast<long double>(m.b(n, j)) *
                            static_cast<long double>(x(sequence * tokens + t, j));
          next[at] += term;
          grown[at] += std::abs(term);
        }
      }
      h = next;
      size = grown;
      y.emplace_back(static_cast<std::size_t>(m.c.rows()));
      magnitude.emplace_back(y.back().size());
      for (Index o = 0; o < m.c.rows(); ++o)
        for (Index n = 0; n < states; ++n) {
          const auto at = static_cast<std::size_t>(n), row = static_cast<std::size_t>(o);
          y.back()[row] += static_cast<long double>(m.c(o, n)) * h[at];
          magnitude.back()[row] += std::abs(static_cast<long double>(m.c(o, n))) * size[at];
        }
    }
  }
};

}  // namespace pare::testing
