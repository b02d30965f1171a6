// SPDX-License-Identifier: Apache-2.0
// Linear layers of 2:4 weights: the products of the dense weight, whoever runs them.
#include <pare/transformer/structured/two_four_linear.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/properties.hpp"
#include "transformer/rows.hpp"

namespace transformer_structured_two_four_linear_test {
namespace {

using pare::bf16;
using pare::f16;
using pare::Index;
using pare::TensorView;
using pare::factor::TwoFour;
using pare::factor::TwoFourMask;
using pare::testing::Gapped;
using pare::testing::random_rows;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::transformer::few_rows;
using pare::transformer::Linear;
using pare::transformer::LinearOf;
using pare::transformer::TwoFourLinear;
using pare::transformer::TwoFourLinearOptions;

static_assert(Linear<TwoFourLinear<float>> && Linear<TwoFourLinear<bf16>>);
static_assert(Linear<TwoFourLinear<f16>> && Linear<TwoFourLinear<std::int8_t>>);
static_assert(LinearOf<TwoFourLinear<double>, double> && !Linear<TwoFourLinear<double>>);

/// A 2:4 weight, and what it says in double.
template <class S>
struct Weight {
  TwoFour<S> stored;
  Rows<double> dense;

  Weight(Index outputs, Index inputs) : dense(outputs, inputs) {
    std::mt19937_64 random(static_cast<unsigned long>(outputs + inputs));
    TwoFourMask mask(outputs, inputs);
    constexpr unsigned legal[] = {3, 5, 6, 9, 10, 12};
    for (Index o = 0; o < outputs; ++o)
      for (Index g = 0; g < inputs / 4; ++g) mask.set_group(o, g, legal[random() % 6]);
    const auto w = random_rows<double>(outputs, inputs, 2);
    stored = TwoFour<S>::from(w.view(), mask);
    stored.to_dense(dense.view());
  }
  TwoFourLinear<S> linear(const TwoFourLinearOptions& options = {}) const {
    return TwoFourLinear<S>(stored.copy(), options);
  }
};

template <class S>
struct TwoFourLinearTest : testing::Test {};
using Storages = testing::Types<float, double, bf16, std::int8_t>;
TYPED_TEST_SUITE(TwoFourLinearTest, Storages);

// 640 are one block of the depth of a product, more several.
TYPED_TEST(TwoFourLinearTest, ProductsAreThoseOfTheDenseWeight) {
  using T = typename TwoFourLinear<TypeParam>::scalar;
  for (const auto& [outputs, inputs] :
       {std::pair<Index, Index>{1, 4}, {70, 64}, {67, 580}, {21, 1132}})
    for (const Index rows : {Index{1}, Index{7}, few_rows, few_rows + 1}) {
      const Weight<TypeParam> weight(outputs, inputs);
      const auto layer = weight.linear();
      const auto x = random_rows<T>(rows, inputs, 3);
      expect_products(weight.dense, x, applied(layer, pare::simd, x), 2);
      if (rows < 4) expect_products(weight.dense, x, applied(layer, pare::reference, x), 2);
    }
}

TYPED_TEST(TwoFourLinearTest, ThreadsAndTheNumberOfRowsKeepTheBits) {
  using T = typename TwoFourLinear<TypeParam>::scalar;
  const auto layer = Weight<TypeParam>(203, 100).linear();
  for (const Index rows : {Index{1}, Index{5}, few_rows + 2})
    pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
      return applied(layer, backend, random_rows<T>(rows, 100, 4));
    });
  for (const auto& [least, most] : {std::pair<Index, Index>{1, few_rows}, {few_rows + 1, 90}}) {
    const auto all = applied(layer, pare::simd, random_rows<T>(most, 100, 4));
    for (const Index rows : {least, least + 3, (least + most) / 2}) {
      const auto some = applied(layer, pare::simd, random_rows<T>(rows, 100, 4));
      for (Index r = 0; r < rows; ++r)
        for (Index o = 0; o < 203; ++o)
          ASSERT_EQ(some(r, o), all(r, o)) << rows << " of " << most << " rows, " << r << ' ' << o;
    }
  }
}

TYPED_TEST(TwoFourLinearTest, AnyStridesTheSameBitsWithoutAllocations) {
  using T = typename TwoFourLinear<TypeParam>::scalar;
  const auto layer = Weight<TypeParam>(35, 68).linear();
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  for (const Index rows : {Index{3}, few_rows + 1}) {
    const auto x = random_rows<T>(rows, 68, 5);
    const auto wanted = applied(layer, backend, x);
    const Gapped<T> columns(x), out(wanted);
    for (Index r = 0; r < rows; ++r)
      for (Index o = 0; o < 35; ++o) out.view()(r, o) = 7;
    layer.apply(backend, as_const(columns.view()), out.view());
    const long before = pare::testing::allocations;
    layer.apply(backend, as_const(columns.view()), out.view());
    EXPECT_EQ(pare::testing::allocations - before, 0);
    const auto got = out.rows();
    for (Index r = 0; r < rows; ++r)
      for (Index o = 0; o < 35; ++o) ASSERT_EQ(got(r, o), wanted(r, o)) << r << ' ' << o;
    EXPECT_TRUE(out.gaps_untouched());
  }
}

// The oracle rounds x itself.
TEST(TwoFourLinear, RoundsManyRowsWhereAskedTo) {
  for (const Index inputs : {64, 580, 1132}) {
    const Weight<bf16> weight(70, inputs);
    const auto rounding = weight.linear({.round_inputs = true});
    for (const Index rows : {Index{3}, few_rows + 4}) {
      const auto x = random_rows<float>(rows, inputs, 3);
      const Rows<float> seen(rows, inputs, [&](Index r, Index i) {
        return rows > few_rows ? static_cast<float>(bf16(x(r, i))) : x(r, i);
      });
      expect_products(weight.dense, seen, applied(rounding, pare::simd, x), 2);
    }
  }
  refusal([] { TwoFourLinear<float>(Weight<float>(3, 4).stored.copy(), {.round_inputs = true}); },
          "transformer::TwoFourLinear", "round_inputs");
}

TEST(TwoFourLinear, RefusesWhatDoesNotFit) {
  refusal([] { TwoFourLinear<float>(TwoFour<float>()); }, "transformer::TwoFourLinear", "two_four");
  const auto layer = Weight<float>(8, 64).linear();
  auto x = random_rows<float>(4, 64, 5), y = random_rows<float>(4, 8, 6);
  const auto cut = [](Rows<float>& m, Index rows, Index cols) {
    return TensorView<float, 2>{&m(0, 0), {rows, cols}, {m.cols(), 1}};
  };
  const auto refused = [&](const auto& from, const auto& to, const char* argument) {
    constexpr const char* apply = "transformer::TwoFourLinear::apply";
    refuses_and_leaves_alone([&] { layer.apply(pare::simd, from, to); }, apply, argument, x, y);
    refuses_and_leaves_alone([&] { layer.apply(pare::reference, from, to); }, apply, argument, x,
                             y);
  };
  refused(as_const(cut(x, 4, 32)), y.view(), "x");
  refused(as_const(x.view()), cut(y, 3, 8), "y");
  refused(as_const(x.view()), cut(x, 4, 8), "y");
  refused(TensorView<const float, 2>{nullptr, {4, 64}, {64, 1}}, y.view(), "x");
  auto* const values = const_cast<float*>(layer.weights().data);
  refused(as_const(x.view()), TensorView<float, 2>{values, {4, 8}, {8, 1}}, "y");
  const void* const words = layer.two_four().mask().words().data;
  auto* const mask = static_cast<float*>(const_cast<void*>(words));
  refused(as_const(x.view()), TensorView<float, 2>{mask, {4, 8}, {8, 1}}, "y");
  // No rows: nothing to do, wherever they are.
  layer.apply(pare::simd, TensorView<const float, 2>{nullptr, {0, 64}, {64, 1}},
              TensorView<float, 2>{nullptr, {0, 8}, {8, 1}});
}

}  // namespace
}  // namespace transformer_structured_two_four_linear_test
