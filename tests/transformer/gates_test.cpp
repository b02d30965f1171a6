// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/transformer/gates.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

#include "support/allocations.hpp"
#include "support/properties.hpp"
#include "transformer/rows.hpp"

namespace transformer_gates_test {
namespace {

using pare::Index;
using pare::testing::equal_bits;
using pare::testing::expect_stored;
using pare::testing::Gapped;
using pare::testing::random_rows;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::testing::Tolerance;
using namespace pare::transformer;

template <class Case>
struct GatesTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(GatesTest, pare::testing::RowCases);

long double silu(long double x) { return x / (1 + std::exp(-x)); }
long double gelu(long double x) { return x / 2 * std::erfc(-x / std::sqrt(2.0L)); }
long double tanh_argument(long double x) {
  return std::sqrt(8 / std::acos(-1.0L)) * (x + 0.044715L * x * x * x);
}

/// y is exact(gate) up within `roundings(gate)` and one for the product. The definition in double
/// loses what its argument does, which for erfc, of 2 roundings, is 2 x^2.
template <class A, class Case, class Exact, class Roundings>
void expect_gated(const Exact& exact, const Roundings& roundings) {
  using S = typename Case::scalar;
  using T = pare::compute_t<S>;
  constexpr double u = Tolerance<T>::unit_roundoff;
  for (const Index dim : {1, 7, 16, 100, 577}) {
    const auto gate = random_rows<S>(3, dim, 1, 8), up = random_rows<S>(3, dim, 2, 3);
    Rows<S> y(3, dim), alone(3, dim);
    activate_gated(Case::backend::make(), gate.view(), up.view(), y.view(), A{});
    activate(Case::backend::make(), gate.view(), alone.view(), A{});
    for (Index i = 0; i < 3; ++i)
      for (Index j = 0; j < dim; ++j) {
        const long double x = gate.at(i, j), wanted = exact(x);
        double allowed = roundings(static_cast<double>(x)) * u;
        if (Case::backend::is_reference)
          allowed +=
              (4 + 2 * std::pow(static_cast<double>(x), 2.0)) * Tolerance<double>::unit_roundoff;
        const double size = std::abs(static_cast<double>(wanted));
        expect_stored(alone(i, j), wanted, allowed * size, i, j);
        const long double product = wanted * up.at(i, j);
        expect_stored(y(i, j), product, (allowed + u) * std::abs(static_cast<double>(product)), i,
                      j);
      }
  }
}

TYPED_TEST(GatesTest, SiluGatesRows) {
  expect_gated<Silu, TypeParam>(silu, [](double) { return 8.0; });
}

TYPED_TEST(GatesTest, GeluGatesRows) {
  expect_gated<Gelu, TypeParam>(gelu, [](double) { return 16.0; });
}

TYPED_TEST(GatesTest, GeluTanhGatesRows) {
  expect_gated<GeluTanh, TypeParam>(
      [](long double x) { return x / (1 + std::exp(-tanh_argument(x))); },
      [](double x) { return 10 + 6 * std::abs(static_cast<double>(tanh_argument(x))); });
}

TYPED_TEST(GatesTest, ReluGatesRows) {
  expect_gated<Relu, TypeParam>([](long double x) { return x > 0 ? x : 0; },
                                [](double) { return 0.0; });
}

struct Square {
  static double exact(double x) { return x * x; }
  template <class Arch, class V>
  static V apply(V x) noexcept {
    return x * x;
  }
};

TYPED_TEST(GatesTest, AFunctionOfYourOwnIsOne) {
  expect_gated<Square, TypeParam>([](long double x) { return x * x; }, [](double) { return 1.0; });
}

TYPED_TEST(GatesTest, LimitsAreKeptAndANanStaysInItsElement) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const T odd[] = {-infinity, infinity, std::numeric_limits<T>::quiet_NaN(), T(-0.0), T(-200)};
  for (Index place = 0; place < 40; ++place) {
    Rows<S> x(1, 40, [](Index, Index j) { return T(j) / T(7) - T(2); });
    Rows<S> before(1, 40), y(1, 40);
    activate(this->backend(), x.view(), before.view(), Silu{});
    for (const T value : odd) {
      x(0, place) = static_cast<S>(value);
      activate(this->backend(), x.view(), y.view(), Silu{});
      const T got = static_cast<T>(y(0, place));
      if (value == infinity)
        EXPECT_EQ(got, infinity);
      else if (std::isnan(value))
        EXPECT_TRUE(std::isnan(got));
      else
        EXPECT_TRUE(std::signbit(got) && std::abs(static_cast<double>(got)) < 3e-85)
            << "silu(" << value << ") is " << got;
      for (Index j = 0; j < 40; ++j)
        ASSERT_TRUE(j == place || pare::testing::same_bits(y(0, j), before(0, j))) << j;
    }
  }
}

TYPED_TEST(GatesTest, AnyStrideAndPlaceHasTheSameBits) {
  using S = typename TypeParam::scalar;
  const auto gate = random_rows<S>(70, 300, 1, 5), up = random_rows<S>(70, 300, 2);
  Rows<S> wanted(70, 300);
  activate_gated(this->backend(), gate.view(), up.view(), wanted.view(), Silu{});
  pare::testing::any_stride_same_bits(gate, [&](const auto& view) {
    Rows<S> y(70, 300);
    activate_gated(this->backend(), view, up.view(), y.view(), Silu{});
    return y;
  });
  auto in_gate = gate, in_up = up;
  activate_gated(this->backend(), as_const(in_gate.view()), up.view(), in_gate.view(), Silu{});
  activate_gated(this->backend(), gate.view(), as_const(in_up.view()), in_up.view(), Silu{});
  EXPECT_TRUE(equal_bits(in_gate, wanted) && equal_bits(in_up, wanted));
  // All by columns, and one of them by rows.
  const Gapped<S> first(gate), second(gate), times(up);
  activate_gated(this->backend(), as_const(first.view()), times.view(), first.view(), Silu{});
  activate_gated(this->backend(), as_const(second.view()), up.view(), second.view(), Silu{});
  EXPECT_TRUE(equal_bits(first.rows(), wanted) && equal_bits(second.rows(), wanted));
  EXPECT_TRUE(first.gaps_untouched() && second.gaps_untouched());
}

TEST(Gates, AnyThreadsHaveTheSameBits) {
  const auto gate = random_rows<float>(301, 200, 1, 5), up = random_rows<float>(301, 200, 2);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    Rows<float> y(301, 200);
    activate_gated(backend, gate.view(), up.view(), y.view(), Silu{});
    return y;
  });
}

TEST(Gates, AStepAllocatesNothing) {
  auto gate = random_rows<float>(1, 1536, 1), up = random_rows<float>(1, 1536, 2);
  const Eigen::MatrixXf columns = Eigen::MatrixXf::Random(200, 300);
  Eigen::MatrixXf y(200, 300);
  const auto step = [&] {
    activate_gated(as_const(gate.view()), up.view(), gate.view(), Silu{});
    activate(columns, y, Gelu{});
  };
  step();
  const long before = pare::testing::allocations;
  step();
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

TYPED_TEST(GatesTest, WhatDoesNotFitIsRefused) {
  using S = typename TypeParam::scalar;
  const auto b = this->backend();
  Rows<S> x = random_rows<S>(4, 8, 1), up = random_rows<S>(4, 8, 2), y = random_rows<S>(4, 8, 3);
  const auto refused = [&](const auto& call, const char* function, const char* argument) {
    refuses_and_leaves_alone(call, function, argument, x, up, y);
  };
  const auto cut = [](Rows<S>& m, Index from, Index cols) {
    return pare::TensorView<S, 2>{&m(0, from), {m.rows(), cols}, {m.cols(), 1}};
  };
  constexpr const char* plain = "transformer::activate";
  constexpr const char* gated = "transformer::activate_gated";
  const pare::TensorView<S, 2> null{nullptr, {4, 8}, {8, 1}};
  refused([&] { activate(b, x.view(), cut(y, 0, 7), Silu{}); }, plain, "y");
  refused([&] { activate(b, cut(x, 0, 7), cut(x, 1, 7), Silu{}); }, plain, "y");
  refused([&] { activate(b, cut(x, 0, 0), cut(y, 0, 0), Silu{}); }, plain, "x");
  refused([&] { activate(b, null, y.view(), Silu{}); }, plain, "x");
  refused([&] { activate(b, x.view(), null, Silu{}); }, plain, "y");
  refused([&] { activate_gated(b, x.view(), cut(up, 0, 7), y.view(), Silu{}); }, gated, "up");
  refused([&] { activate_gated(b, x.view(), null, y.view(), Silu{}); }, gated, "up");
  refused([&] { activate_gated(b, x.view(), up.view(), cut(y, 0, 7), Silu{}); }, gated, "y");
  refused([&] { activate_gated(b, cut(x, 0, 7), cut(up, 0, 7), cut(up, 1, 7), Silu{}); }, gated,
          "y");
  refused([&] { activate_gated(b, cut(x, 0, 7), cut(up, 0, 7), cut(x, 1, 7), Silu{}); }, gated,
          "y");
  const pare::TensorView<S, 2> twice{&y(0, 0), {4, 8}, {4, 1}};
  refused([&] { activate_gated(b, x.view(), up.view(), twice, Silu{}); }, gated, "y");
  activate(b, pare::TensorView<S, 2>{nullptr, {0, 8}, {8, 1}},
           pare::TensorView<S, 2>{nullptr, {0, 8}, {8, 1}}, Gelu{});
}

}  // namespace
}  // namespace transformer_gates_test
