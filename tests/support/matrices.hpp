// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Test data: dense and sparse matrices from a portable generator, and sparse storage written by
/// hand, which may hold duplicates, gaps, or faults.

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/tolerance.hpp"

namespace pare::testing {

using Engine = std::mt19937_64;

inline double uniform(Engine& random) { return static_cast<double>(random()) * 0x1p-63 - 1; }

/// Normal numbers by Box and Muller; the standard's distributions differ between libraries.
inline double normal(Engine& random) {
#if defined(__AVX__)
  // Below -O2 g++ leaves the upper halves of registers as kernels had them; the SSE instructions of
  // libm's log then wait for them, six times as long as it takes.
  __builtin_ia32_vzeroupper();
#endif
  const double u = (static_cast<double>(random() >> 11) + 1) * 0x1p-53;
  const double v = static_cast<double>(random() >> 11) * 0x1p-53;
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * 3.14159265358979323846 * v);
}

template <class M>
M random_matrix(std::ptrdiff_t rows, std::ptrdiff_t cols, std::uint64_t seed) {
  Engine random(seed);
  M m(rows, cols);
  for (std::ptrdiff_t i = 0; i < rows; ++i)
    for (std::ptrdiff_t j = 0; j < cols; ++j)
      m(i, j) = static_cast<typename M::Scalar>(static_cast<float>(uniform(random)));
  return m;
}

/// Integers in [-8, 8]: exact in every storage scalar, and so is any sum of up to 2^20 of them.
template <class M>
M integer_matrix(std::ptrdiff_t rows, std::ptrdiff_t cols, std::uint64_t seed) {
  Engine random(seed);
  M m(rows, cols);
  for (std::ptrdiff_t i = 0; i < rows; ++i)
    for (std::ptrdiff_t j = 0; j < cols; ++j)
      m(i, j) = static_cast<typename M::Scalar>(static_cast<float>(random() % 17) - 8.0f);
  return m;
}

template <class M>
bool equal_bits(const M& a, const M& b) {
  if (a.rows() != b.rows() || a.cols() != b.cols()) return false;
  for (std::ptrdiff_t i = 0; i < a.rows(); ++i)
    for (std::ptrdiff_t j = 0; j < a.cols(); ++j)
      if (!same_bits(a(i, j), b(i, j))) return false;
  return true;
}

/// Compressed rows as plain arrays.
template <class T, class I = std::int32_t>
struct RawSparse {
  std::ptrdiff_t rows = 0, cols = 0;
  std::vector<I> outer{0}, lengths, inner;
  std::vector<T> values;

  using Map = Eigen::Map<const Eigen::SparseMatrix<T, Eigen::RowMajor, I>>;

  Map map() const {
    return Map(rows, cols, static_cast<std::ptrdiff_t>(values.size()), outer.data(), inner.data(),
               values.data(), lengths.empty() ? nullptr : lengths.data());
  }

  Eigen::MatrixXd dense() const {
    Eigen::MatrixXd m = Eigen::MatrixXd::Zero(rows, cols);
    for (std::size_t u = 0; u < static_cast<std::size_t>(rows); ++u) {
      const I end = lengths.empty() ? outer[u + 1] : outer[u] + lengths[u];
      for (I e = outer[u]; e < end; ++e) {
        const auto at = static_cast<std::size_t>(e);
        m(static_cast<std::ptrdiff_t>(u), inner[at]) += static_cast<double>(values[at]);
      }
    }
    return m;
  }
};

/// Rows of 0, 1, ... entries in no order and with duplicates; `gap` unused places after each row.
template <class T, class I = std::int32_t>
RawSparse<T, I> ragged_sparse(std::ptrdiff_t rows, std::ptrdiff_t cols, std::uint64_t seed,
                              std::ptrdiff_t gap, const std::function<double(Engine&)>& value,
                              std::ptrdiff_t longest = 9) {
  Engine random(seed);
  RawSparse<T, I> s;
  s.rows = rows;
  s.cols = cols;
  for (std::ptrdiff_t u = 0; u < rows; ++u) {
    const std::ptrdiff_t length = u % (longest + 1);
    for (std::ptrdiff_t e = 0; e < length + gap; ++e) {
      const auto column = static_cast<I>(random() % static_cast<std::uint64_t>(cols));
      s.inner.push_back(e >= length ? static_cast<I>(-1) : column);
      s.values.push_back(e >= length ? std::numeric_limits<T>::quiet_NaN()
                                     : static_cast<T>(value(random)));
    }
    // The second entry repeats the first.
    if (length > 1) {
      const std::size_t begin = static_cast<std::size_t>(s.outer.back());
      s.inner[begin + 1] = s.inner[begin];
    }
    if (gap > 0) s.lengths.push_back(static_cast<I>(length));
    s.outer.push_back(static_cast<I>(s.inner.size()));
  }
  return s;
}

/// An undirected weighted graph, about `degree` neighbours a node, with self loops at each seventh.
inline Eigen::MatrixXd random_graph(std::ptrdiff_t nodes, double degree, bool weighted,
                                    std::uint64_t seed) {
  Engine random(seed);
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(nodes, nodes);
  for (std::ptrdiff_t u = 0; u < nodes; ++u)
    for (std::ptrdiff_t v = u; v < nodes; ++v) {
      const bool edge = uniform(random) < 2 * degree / static_cast<double>(nodes) - 1;
      const double weight = weighted ? static_cast<double>(1 + random() % 16) / 4 : 1;
      if ((u != v && edge) || (u == v && u % 7 == 0)) a(u, v) = a(v, u) = weight;
    }
  return a;
}

template <class S>
S sparse_of(const Eigen::MatrixXd& dense) {
  S s = dense.cast<typename S::Scalar>().sparseView();
  s.makeCompressed();
  return s;
}

/// Runs `call`, which must throw std::invalid_argument whose message names both, and returns the
/// message.
inline std::string refusal(const std::function<void()>& call, const std::string& function,
                           const std::string& argument) {
  try {
    call();
  } catch (const std::invalid_argument& e) {
    const std::string message = e.what();
    EXPECT_EQ(message.rfind("pare::" + function + ": " + argument, 0), 0u) << message;
    EXPECT_NE(message.find(": got "), std::string::npos) << message;
    EXPECT_NE(message.find(", wanted "), std::string::npos) << message;
    return message;
  } catch (const std::exception& e) {
    ADD_FAILURE() << function << ' ' << argument << ": another exception: " << e.what();
    return "";
  }
  ADD_FAILURE() << function << " accepted a bad " << argument;
  return "";
}

}  // namespace pare::testing
