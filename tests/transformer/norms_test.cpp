// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/transformer/norms.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

#include "support/allocations.hpp"
#include "support/properties.hpp"
#include "transformer/rows.hpp"

namespace transformer_norms_test {
namespace {

using pare::Index;
using pare::testing::equal_bits;
using pare::testing::expect_stored;
using pare::testing::Gapped;
using pare::testing::random_gains;
using pare::testing::random_rows;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::testing::Tolerance;
using namespace pare::transformer;

template <class Case>
struct NormsTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(NormsTest, pare::testing::RowCases);

constexpr Index dims[] = {1, 2, 3, 15, 16, 17, 63, 64, 100, 576, 577, 5000};

/// The definition in long double. Without a bias the mean counts as 0.
template <class S>
struct Oracle {
  using T = pare::compute_t<S>;
  const Rows<S>& x;
  const std::vector<T>& gain;
  const std::vector<T>* bias;
  long double epsilon;

  /// y_ij and what y_ij would be without gain and bias.
  std::array<long double, 2> operator()(Index i, Index j) const {
    const auto n = static_cast<long double>(x.cols());
    // From the first number of the row on, so that no digits go to what all have in common.
    const long double from = bias != nullptr ? x.at(i, 0) : 0;
    long double mean = 0, squares = 0;
    for (Index k = 0; k < x.cols(); ++k) mean += bias != nullptr ? (x.at(i, k) - from) / n : 0;
    for (Index k = 0; k < x.cols(); ++k) squares += std::pow(x.at(i, k) - from - mean, 2.0L) / n;
    const long double t = (x.at(i, j) - from - mean) / std::sqrt(squares + epsilon);
    const auto at = static_cast<std::size_t>(j);
    return {t * static_cast<long double>(gain[at]) +
                (bias != nullptr ? static_cast<long double>((*bias)[at]) : 0),
            t};
  }
};

/// A sum is at most 64 terms to a lane, 6 halvings and a conversion, and the root halves its error;
/// a root, a cast and two products follow: 40 u of the result. The variance costs as much, and the
/// mean is off by 72 u of the mean magnitude, here at most twice the deviation.
template <class S>
void expect_normed(const Rows<S>& x, const std::vector<pare::compute_t<S>>& gain,
                   const std::vector<pare::compute_t<S>>* bias, const Rows<S>& y, double epsilon,
                   double conditioning = 1) {
  using T = pare::compute_t<S>;
  const Oracle<S> oracle{x, gain, bias, static_cast<long double>(epsilon)};
  constexpr double u = Tolerance<T>::unit_roundoff;
  for (Index i = 0; i < x.rows(); ++i)
    for (Index j = 0; j < x.cols(); j += 1 + x.cols() / 100) {
      const auto [wanted, t] = oracle(i, j);
      const double g = std::abs(static_cast<double>(gain[static_cast<std::size_t>(j)]));
      double bound = 42 * u * std::abs(static_cast<double>(t)) * g;
      if (bias != nullptr)
        bound += u * (150 * conditioning * g +
                      2 * std::abs(static_cast<double>((*bias)[static_cast<std::size_t>(j)])));
      expect_stored(y(i, j), wanted, bound, i, j);
    }
}

TYPED_TEST(NormsTest, RmsNormIsTheDefinition) {
  using S = typename TypeParam::scalar;
  for (const Index dim : dims)
    for (const double size : {1.0, 1e-3, 300.0}) {
      const auto x = random_rows<S>(3, dim, 1, size);
      const auto gain = random_gains<pare::compute_t<S>>(dim, 2);
      Rows<S> y(3, dim);
      rms_norm(this->backend(), x.view(), gain, y.view(), {.epsilon = 1e-6});
      expect_normed<S>(x, gain, nullptr, y, 1e-6);
    }
}

TYPED_TEST(NormsTest, LayerNormIsTheDefinition) {
  using S = typename TypeParam::scalar;
  for (const Index dim : dims)
    for (const double size : {1.0, 300.0}) {
      const auto x = random_rows<S>(3, dim, 3, size);
      const auto gain = random_gains<pare::compute_t<S>>(dim, 4);
      const auto bias = random_gains<pare::compute_t<S>>(dim, 5);
      Rows<S> y(3, dim);
      layer_norm(this->backend(), x.view(), gain, bias, y.view());
      // The deviation of one number is 0, and epsilon all that is left of the divisor.
      expect_normed<S>(x, gain, &bias, y, 1e-5, dim < 3 ? 1e4 : 1);
    }
}

TYPED_TEST(NormsTest, RowsFarFromZeroKeepTheirDigits) {
  using S = typename TypeParam::scalar;
  if (!pare::ComputeScalar<S>) return;
  // The definition has no correction: what it sums in must hold both.
  const bool wide = std::is_same_v<S, double>;
  const double far = !wide ? 1e5 : TypeParam::backend::is_reference ? 10 : 1e10;
  const auto noise = random_rows<S>(2, 4096, 6);
  const Rows<S> x(2, 4096,
                  [&](Index i, Index j) { return far + 3 * static_cast<double>(noise.at(i, j)); });
  const auto gain = random_gains<pare::compute_t<S>>(4096, 4);
  const auto bias = random_gains<pare::compute_t<S>>(4096, 5);
  Rows<S> y(2, 4096);
  layer_norm(this->backend(), x.view(), gain, bias, y.view());
  expect_normed<S>(x, gain, &bias, y, 1e-5);
}

TYPED_TEST(NormsTest, NoScaleOfARowOverflowsOrVanishes) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  if (!pare::ComputeScalar<S>) return;
  const auto base = random_rows<S>(1, 100, 7);
  const auto gain = random_gains<T>(100, 8);
  const std::vector<T> zeros(100);
  for (const int exponent : {-1000, -600, -145, -100, -70, -40, 40, 63, 64, 100, 126, 500, 1020}) {
    if (std::is_same_v<S, float> && (exponent < -145 || exponent > 126)) continue;
    const Rows<S> x(1, 100, [&](Index i, Index j) {
      return static_cast<T>(std::ldexp(base.at(i, j), exponent));
    });
    Rows<S> y(1, 100);
    for (const double epsilon : {0.0, 1e-5}) {
      rms_norm(this->backend(), x.view(), gain, y.view(), {.epsilon = epsilon});
      expect_normed<S>(x, gain, nullptr, y, epsilon);
      layer_norm(this->backend(), x.view(), gain, zeros, y.view(), {.epsilon = epsilon});
      expect_normed<S>(x, gain, &zeros, y, epsilon);
    }
  }
}

TYPED_TEST(NormsTest, WhatIsNotFiniteStaysInItsRow) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  const auto plain = random_rows<S>(4, 100, 9);
  auto x = plain;
  x(1, 70) = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  x(2, 98) = static_cast<S>(-std::numeric_limits<T>::infinity());
  const auto gain = random_gains<T>(100, 8), bias = random_gains<T>(100, 9);
  Rows<S> y(4, 100), z(4, 100), finite(4, 100);
  rms_norm(this->backend(), x.view(), gain, y.view());
  layer_norm(this->backend(), x.view(), gain, bias, z.view());
  for (Index j = 0; j < 100; ++j) {
    EXPECT_TRUE(std::isnan(y.at(1, j)) && std::isnan(z.at(1, j)) && std::isnan(z.at(2, j))) << j;
    EXPECT_TRUE(j == 98 ? std::isnan(y.at(2, j)) : y.at(2, j) == 0) << j;
  }
  rms_norm(this->backend(), plain.view(), gain, finite.view());
  for (const Index i : {0, 3})
    for (Index j = 0; j < 100; ++j)
      EXPECT_TRUE(pare::testing::same_bits(y(i, j), finite(i, j))) << i << ' ' << j;
}

TYPED_TEST(NormsTest, AZeroRowIsZero) {
  using S = typename TypeParam::scalar;
  const Rows<S> x(1, 40);
  Rows<S> y = random_rows<S>(1, 40, 1);
  rms_norm(this->backend(), x.view(), random_gains<pare::compute_t<S>>(40, 1), y.view());
  for (Index j = 0; j < 40; ++j) EXPECT_EQ(y.at(0, j), 0);
}

/// Adding and norming in one call has the bits of the two.
TYPED_TEST(NormsTest, AResidualIsAddedFirst) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  for (const Index dim : {5, 64, 577}) {
    const auto x = random_rows<S>(3, dim, 1), delta = random_rows<S>(3, dim, 2);
    const auto gain = random_gains<T>(dim, 3), bias = random_gains<T>(dim, 4);
    const Rows<S> sum(3, dim, [&](Index i, Index j) {
      return static_cast<T>(x(i, j)) + static_cast<T>(delta(i, j));
    });
    Rows<S> wanted(3, dim), y(3, dim);
    auto added = x;
    rms_norm(this->backend(), sum.view(), gain, wanted.view());
    add_rms_norm(this->backend(), added.view(), delta.view(), gain, y.view());
    EXPECT_TRUE(equal_bits(added, sum)) << dim;
    EXPECT_TRUE(equal_bits(y, wanted)) << dim;
    auto in_place = delta;
    added = x;
    layer_norm(this->backend(), sum.view(), gain, bias, wanted.view());
    add_layer_norm(this->backend(), added.view(), as_const(in_place.view()), gain, bias,
                   in_place.view());
    EXPECT_TRUE(equal_bits(added, sum)) << dim;
    EXPECT_TRUE(equal_bits(in_place, wanted)) << dim;
  }
}

TYPED_TEST(NormsTest, AnyStrideAndPlaceHasTheSameBits) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  const auto x = random_rows<S>(70, 300, 1), delta = random_rows<S>(70, 300, 2);
  const auto gain = random_gains<T>(300, 3), bias = random_gains<T>(300, 4);
  Rows<S> wanted(70, 300), sum = x;
  add_layer_norm(this->backend(), sum.view(), delta.view(), gain, bias, wanted.view());
  pare::testing::any_stride_same_bits(x, [&](const auto& view) {
    Rows<S> y(70, 300);
    rms_norm(this->backend(), view, gain, y.view());
    return y;
  });
  const Gapped<S> columns(x), more(delta);
  add_layer_norm(this->backend(), columns.view(), as_const(more.view()), gain, bias, more.view());
  EXPECT_TRUE(equal_bits(columns.rows(), sum) && equal_bits(more.rows(), wanted));
  layer_norm(this->backend(), as_const(columns.view()), gain, bias, columns.view());
  EXPECT_TRUE(equal_bits(columns.rows(), wanted));
  EXPECT_TRUE(columns.gaps_untouched() && more.gaps_untouched());
}

TEST(Norms, AnyThreadsHaveTheSameBits) {
  const auto x = random_rows<float>(301, 200, 1);
  const auto gain = random_gains<float>(200, 3);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    Rows<float> y(301, 200);
    rms_norm(backend, x.view(), gain, y.view());
    return y;
  });
  const Gapped<float> columns(x);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    Rows<float> y(301, 200);
    layer_norm(backend, columns.view(), gain, gain, y.view());
    return y;
  });
}

TEST(Norms, EigenObjectsGoIn) {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(6, 40);
  const Eigen::RowVectorXf gain = Eigen::RowVectorXf::Constant(40, 2);
  Eigen::MatrixXf y(6, 40);
  rms_norm(x, gain, y, {.epsilon = 0});
  for (Index i = 0; i < 6; ++i)
    EXPECT_NEAR(y.row(i).squaredNorm(), 160.0f, 160 * 1e-5)
        << i;  // 40 times the square of the gain
}

TEST(Norms, AStepAllocatesNothing) {
  auto x = random_rows<float>(1, 576, 1), y = random_rows<float>(1, 576, 2);
  const auto gain = random_gains<float>(576, 3);
  const auto step = [&] {
    rms_norm(x.view(), gain, y.view());
    add_rms_norm(x.view(), y.view(), gain, y.view());
  };
  step();
  const long before = pare::testing::allocations;
  step();
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

TYPED_TEST(NormsTest, WhatDoesNotFitIsRefused) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  const auto b = this->backend();
  Rows<S> x = random_rows<S>(4, 8, 1), y = random_rows<S>(4, 8, 2), delta = random_rows<S>(4, 8, 3);
  std::vector<T> gain(8, T(1)), bias(8), shorter(7);
  const pare::TensorView<T, 1> strided{gain.data(), {4}, {2}};
  const auto refused = [&](const auto& call, const char* function, const char* argument) {
    refuses_and_leaves_alone(call, function, argument, x, y, gain);
  };
  constexpr const char* rms = "transformer::rms_norm";
  constexpr const char* add = "transformer::add_layer_norm";
  const auto cut = [](const Rows<S>& m, Index from, Index cols) {
    return pare::TensorView<S, 2>{const_cast<S*>(&m(0, from)), {m.rows(), cols}, {m.cols(), 1}};
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double epsilon : {-1e-9, nan, std::numeric_limits<double>::infinity()})
    refused([&] { rms_norm(b, x.view(), gain, y.view(), {.epsilon = epsilon}); }, rms, "epsilon");
  refused([&] { rms_norm(b, x.view(), shorter, y.view()); }, rms, "gain");
  refused([&] { rms_norm(b, cut(x, 0, 4), strided, cut(y, 0, 4)); }, rms, "gain");
  refused([&] { rms_norm(b, x.view(), gain, cut(y, 0, 7)); }, rms, "y");
  refused([&] { rms_norm(b, cut(x, 0, 7), shorter, cut(x, 1, 7)); }, rms, "y");
  refused([&] { rms_norm(b, cut(x, 0, 0), std::vector<T>{}, cut(y, 0, 0)); }, rms, "x");
  refused(
      [&] { rms_norm(b, pare::TensorView<const S, 2>{nullptr, {4, 8}, {8, 1}}, gain, y.view()); },
      rms, "x");
  refused([&] { rms_norm(b, x.view(), gain, pare::TensorView<S, 2>{&y(0, 0), {4, 8}, {0, 1}}); },
          rms, "y");
  if constexpr (std::is_same_v<S, T>)
    refused(
        [&] {
          rms_norm(b, cut(x, 0, 4), pare::TensorView<const T, 1>{&y(1, 0), {4}, {1}}, cut(y, 0, 4));
        },
        rms, "y");
  refused([&] { layer_norm(b, x.view(), gain, shorter, y.view()); }, "transformer::layer_norm",
          "bias");
  refused([&] { add_layer_norm(b, x.view(), x.view(), gain, bias, y.view()); }, add, "x");
  refused([&] { add_layer_norm(b, x.view(), delta.view(), gain, bias, x.view()); }, add, "y");
  refused([&] { add_layer_norm(b, x.view(), cut(delta, 0, 7), gain, bias, y.view()); }, add,
          "delta");
  // No rows: nothing to do, wherever they are.
  rms_norm(b, pare::TensorView<const S, 2>{nullptr, {0, 8}, {8, 1}}, gain,
           pare::TensorView<S, 2>{nullptr, {0, 8}, {8, 1}});
}

}  // namespace
}  // namespace transformer_norms_test
