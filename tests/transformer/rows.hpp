// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows of any storage scalar, and the cases that tests of them run over.

#include <gtest/gtest.h>

#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace pare::testing {

#if defined(PARE_TEST_EVERY_BACKEND)
using RowCases = ::testing::Types<
    BackendAndScalar<ReferenceBackend, float>, BackendAndScalar<ReferenceBackend, double>,
    BackendAndScalar<ReferenceBackend, bf16>, BackendAndScalar<ScalarBackend, float>,
    BackendAndScalar<ScalarBackend, f16>, BackendAndScalar<BestBackend, float>,
    BackendAndScalar<BestBackend, double>, BackendAndScalar<BestBackend, bf16>,
    BackendAndScalar<BestBackend, f16>, BackendAndScalar<ThreadedBackend, double>>;
#else
using RowCases =
    ::testing::Types<BackendAndScalar<ReferenceBackend, float>,
                     BackendAndScalar<ReferenceBackend, double>,
                     BackendAndScalar<BestBackend, float>, BackendAndScalar<BestBackend, bf16>,
                     BackendAndScalar<ThreadedBackend, double>>;
#endif

/// A matrix by rows, of any storage scalar.
template <class S>
class Rows {
 public:
  using Scalar = S;

  Rows(Index rows, Index cols)
      : rows_(rows), cols_(cols), values_(static_cast<std::size_t>(rows * cols)) {}
  template <class F>
  Rows(Index rows, Index cols, const F& value_at) : Rows(rows, cols) {
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < cols; ++j)
        (*this)(i, j) = static_cast<S>(static_cast<compute_t<S>>(value_at(i, j)));
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  S& operator()(Index i, Index j) { return values_[static_cast<std::size_t>(i * cols_ + j)]; }
  const S& operator()(Index i, Index j) const {
    return values_[static_cast<std::size_t>(i * cols_ + j)];
  }
  long double at(Index i, Index j) const {
    return static_cast<long double>(static_cast<compute_t<S>>((*this)(i, j)));
  }
  TensorView<S, 2> view() { return {values_.data(), {rows_, cols_}, {cols_, 1}}; }
  TensorView<const S, 2> view() const { return {values_.data(), {rows_, cols_}, {cols_, 1}}; }

 private:
  Index rows_, cols_;
  std::vector<S> values_;
};

/// Uniform in [-1, 1) times `size`, the same for the same seed.
template <class S>
Rows<S> random_rows(Index rows, Index cols, std::uint64_t seed, double size = 1) {
  Engine random(seed);
  return Rows<S>(rows, cols, [&](Index, Index) { return size * uniform(random); });
}

/// What a layer makes of rows.
template <class L, class B, class T>
Rows<T> applied(const L& layer, const B& backend, const Rows<T>& x) {
  Rows<T> y(x.rows(), layer.outputs());
  layer.apply(backend, x.view(), y.view());
  return y;
}

/// y = x W^T, to `share` times what a dot product is off by with one more rounding, that of a
/// weight. 2 where the oracle, in double, is no better than T.
template <class T>
void expect_products(const Rows<double>& w, const Rows<T>& x, const Rows<T>& y, double share = 1) {
  for (Index r = 0; r < x.rows(); ++r)
    for (Index o = 0; o < w.rows(); ++o) {
      double wanted = 0, magnitude = 0;
      for (Index i = 0; i < w.cols(); ++i) {
        wanted += w(o, i) * static_cast<double>(x(r, i));
        magnitude += std::abs(w(o, i) * static_cast<double>(x(r, i)));
      }
      const double bound = share * Tolerance<T>::dot(static_cast<double>(w.cols()) + 1, magnitude);
      ASSERT_TRUE(within(static_cast<double>(y(r, o)), wanted, bound))
          << "row " << r << " of " << x.rows() << ", output " << o << " of " << w.rows() << ", "
          << w.cols() << " inputs: got " << y(r, o) << ", wanted " << wanted;
    }
}

/// Numbers in [0.5, 1.5).
template <class T>
std::vector<T> random_gains(Index size, std::uint64_t seed) {
  Engine random(seed);
  std::vector<T> gains(static_cast<std::size_t>(size));
  for (T& g : gains) g = static_cast<T>(1 + uniform(random) / 2);
  return gains;
}

/// The rounding of storage: of bf16 2^-8 less a bit, of f16 2^-11; none beyond that of T itself.
template <class S>
constexpr double storage_roundoff = std::is_same_v<S, bf16>  ? 0x1p-8
                                    : std::is_same_v<S, f16> ? 0x1p-11
                                                             : 0.0;
/// The step of its subnormal numbers, or where the arch has none the least normal one.
template <class S>
constexpr double storage_step = std::is_same_v<S, bf16>    ? 0x1p-126
                                : std::is_same_v<S, f16>   ? 0x1p-24
                                : std::is_same_v<S, float> ? 0x1p-149
                                                           : 0x1p-1074;

/// |got - wanted| within `bound`, in numbers and the rounding of storage.
template <class S>
void expect_stored(S got, long double wanted, double bound, Index i, Index j) {
  const auto value = static_cast<long double>(static_cast<compute_t<S>>(got));
  const double allowed = bound + storage_step<S> +
                         storage_roundoff<S> * (static_cast<double>(std::abs(wanted)) + bound);
  ASSERT_TRUE(std::abs(value - wanted) <= allowed)
      << "row " << i << ", " << j << ": got " << static_cast<double>(value) << ", wanted "
      << static_cast<double>(wanted) << " within " << allowed;
}

/// The same numbers, by columns and with gaps of NaN.
template <class S>
class Gapped {
 public:
  explicit Gapped(const Rows<S>& m)
      : memory_(static_cast<std::size_t>((m.rows() + 3) * (m.cols() + 2)),
                static_cast<S>(std::numeric_limits<float>::quiet_NaN())),
        view_{memory_.data(), {m.rows(), m.cols()}, {1, m.rows() + 3}} {
    for (Index i = 0; i < m.rows(); ++i)
      for (Index j = 0; j < m.cols(); ++j) view_(i, j) = m(i, j);
  }
  Gapped(const Gapped&) = delete;
  TensorView<S, 2> view() const { return view_; }
  /// The numbers by rows.
  Rows<S> rows() const {
    Rows<S> m(view_.rows(), view_.cols());
    for (Index i = 0; i < m.rows(); ++i)
      for (Index j = 0; j < m.cols(); ++j) m(i, j) = view_(i, j);
    return m;
  }
  bool gaps_untouched() const {
    for (std::size_t k = 0; k < memory_.size(); ++k) {
      const auto place = static_cast<Index>(k);
      if (place % view_.stride[1] < view_.rows() && place / view_.stride[1] < view_.cols())
        continue;
      if (!std::isnan(static_cast<compute_t<S>>(memory_[k]))) return false;
    }
    return true;
  }

 private:
  std::vector<S> memory_;
  TensorView<S, 2> view_;
};

}  // namespace pare::testing
