// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/low_rank_linear.hpp>
#include <pare/transformer/quantized_linear.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernel/quantized_oracle.hpp"
#include "support/allocations.hpp"
#include "support/properties.hpp"
#include "transformer/rows.hpp"

namespace transformer_linear_test {
namespace {

using pare::bf16;
using pare::f16;
using pare::Index;
using pare::kernel::Q4_0;
using pare::kernel::Q4_1;
using pare::kernel::Q8_0;
using pare::testing::equal_bits;
using pare::testing::Gapped;
using pare::testing::random_rows;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::testing::Tolerance;
using pare::testing::within;
using namespace pare::transformer;

static_assert(Linear<DenseLinear<float>> && Linear<DenseLinear<bf16>> && Linear<DenseLinear<f16>>);
static_assert(Linear<QuantizedLinear<Q8_0>> && Linear<QuantizedLinear<Q4_1>>);
static_assert(Linear<LowRankLinear<float>> && Linear<LowRankLinear<bf16>>);
static_assert(!Linear<Rows<float>>);
static_assert(!std::is_constructible_v<LowRankLinear<float>, pare::factor::LowRank<float>>);

/// A layer of W, its weight, and what it says in double: [outputs x inputs].
template <class W>
struct Layer {
  std::vector<W> stored;
  Rows<double> values;

  Layer(Index outputs, Index inputs, std::uint64_t seed = 1)
      : stored(static_cast<std::size_t>(outputs * inputs / pare::kernel::weight_inputs<W>)),
        values(outputs, inputs) {
    std::mt19937_64 random(seed);
    Index at = 0;
    for (W& w : stored)
      if constexpr (pare::kernel::WeightBlock<W>) {
        w = pare::testing::random_block<W>(random);
        w.d.high = static_cast<std::uint8_t>((w.d.high & 0x83) | 0x28);  // 1/32 to 1/16
        if constexpr (requires { w.m; })
          w.m.high = static_cast<std::uint8_t>((w.m.high & 0x83) | 0x30);
        for (int k = 0; k < 32; ++k, ++at)
          values(at / inputs, at % inputs) = pare::testing::element_of<W>(&w, k);
      } else {
        w = static_cast<W>(static_cast<float>(random() % 4001) / 2000.0f - 1.0f);
        values(at / inputs, at % inputs) = static_cast<double>(static_cast<float>(w));
        ++at;
      }
  }
  auto linear() const {
    if constexpr (pare::kernel::WeightBlock<W>)
      return QuantizedLinear<W>(std::span<const W>(stored), values.rows(), values.cols());
    else
      return DenseLinear<W>(pare::TensorView<const W, 2>{
          stored.data(), {values.rows(), values.cols()}, {values.cols(), 1}});
  }
};

template <class W>
struct LinearTest : testing::Test {};
using Weights = testing::Types<float, bf16, f16, Q8_0, Q4_0, Q4_1>;
TYPED_TEST_SUITE(LinearTest, Weights);

TYPED_TEST(LinearTest, ProductsAreThoseOfTheWeight) {
  for (const Index outputs : {1, 70})
    for (const Index inputs : {32, 576})
      for (const Index rows : {Index{1}, Index{3}, Index{16}, few_rows, few_rows + 1}) {
        const Layer<TypeParam> layer(outputs, inputs);
        const auto x = random_rows<float>(rows, inputs, 3);
        expect_products(layer.values, x, applied(layer.linear(), pare::simd, x));
        if (rows < 4) expect_products(layer.values, x, applied(layer.linear(), pare::reference, x));
      }
}

// 640 are one block of the depth of a product, more several.
TYPED_TEST(LinearTest, ManyRowsOfSeveralBlocksOfTheDepth) {
  const Layer<TypeParam> layer(21, 1120);
  const auto x = random_rows<float>(few_rows + 1, 1120, 3);
  expect_products(layer.values, x, applied(layer.linear(), pare::simd, x));
}

TYPED_TEST(LinearTest, OddExtentsOfNumbers) {
  if constexpr (!pare::kernel::WeightBlock<TypeParam>)
    for (const Index inputs : {1, 17, 33, 599})
      for (const Index rows : {Index{1}, Index{7}, few_rows + 5}) {
        const Layer<TypeParam> layer(67, inputs);
        const auto x = random_rows<float>(rows, inputs, 3);
        expect_products(layer.values, x, applied(layer.linear(), pare::simd, x));
      }
}

TYPED_TEST(LinearTest, ThreadsAndTheNumberOfRowsKeepTheBits) {
  const Layer<TypeParam> layer(203, 96);
  const auto linear = layer.linear();
  for (const Index rows : {Index{1}, Index{5}, few_rows + 2})
    pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
      return applied(linear, backend, random_rows<float>(rows, 96, 4));
    });
  // Rows among few, and among many, are those among others.
  for (const auto& [least, most] : {std::pair<Index, Index>{1, few_rows}, {few_rows + 1, 90}}) {
    const auto all = applied(linear, pare::simd, random_rows<float>(most, 96, 4));
    for (const Index rows : {least, least + 3, (least + most) / 2}) {
      const auto some = applied(linear, pare::simd, random_rows<float>(rows, 96, 4));
      for (Index r = 0; r < rows; ++r)
        for (Index o = 0; o < 203; ++o)
          ASSERT_EQ(some(r, o), all(r, o)) << rows << " of " << most << " rows, " << r << ' ' << o;
    }
  }
}

TYPED_TEST(LinearTest, AnyStridesTheSameBits) {
  const Layer<TypeParam> layer(35, 64);
  const auto linear = layer.linear();
  for (const Index rows : {Index{3}, few_rows + 1}) {
    const auto x = random_rows<float>(rows, 64, 5);
    const auto wanted = applied(linear, pare::simd, x);
    const Gapped<float> columns(x), out(wanted);
    for (Index r = 0; r < rows; ++r)
      for (Index o = 0; o < 35; ++o) out.view()(r, o) = 7;
    linear.apply(pare::simd, as_const(columns.view()), out.view());
    const auto got = out.rows();
    for (Index r = 0; r < rows; ++r)
      for (Index o = 0; o < 35; ++o) ASSERT_EQ(got(r, o), wanted(r, o)) << r << ' ' << o;
    EXPECT_TRUE(out.gaps_untouched());
  }
}

TYPED_TEST(LinearTest, AWorkspaceSparesAllAllocations) {
  const Layer<TypeParam> layer(130, 64);
  const auto linear = layer.linear();
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  for (const Index rows : {1, 16, 64}) {
    const auto x = random_rows<float>(rows, 64, 5);
    Rows<float> y(rows, 130);
    const Gapped<float> columns(x);
    const auto calls = [&] {
      linear.apply(backend, x.view(), y.view());
      linear.apply(backend, as_const(columns.view()), y.view());
    };
    calls();
    const long before = pare::testing::allocations;
    calls();
    EXPECT_EQ(pare::testing::allocations - before, 0) << rows;
  }
}

TYPED_TEST(LinearTest, WhatDoesNotFitIsRefused) {
  Layer<TypeParam> layer(8, 64);
  const auto linear = layer.linear();
  auto x = random_rows<float>(4, 64, 5), y = random_rows<float>(4, 8, 6);
  const std::string apply = pare::kernel::WeightBlock<TypeParam>
                                ? "transformer::QuantizedLinear::apply"
                                : "transformer::DenseLinear::apply";
  const auto cut = [](Rows<float>& m, Index rows, Index cols) {
    return pare::TensorView<float, 2>{&m(0, 0), {rows, cols}, {m.cols(), 1}};
  };
  const auto refused = [&](const auto& from, const auto& to, const char* argument) {
    refuses_and_leaves_alone([&] { linear.apply(pare::simd, from, to); }, apply, argument, x, y);
    refuses_and_leaves_alone([&] { linear.apply(pare::reference, from, to); }, apply, argument, x,
                             y);
  };
  refused(as_const(cut(x, 4, 32)), y.view(), "x");
  refused(as_const(x.view()), cut(y, 3, 8), "y");
  refused(as_const(x.view()), cut(y, 4, 7), "y");
  refused(as_const(x.view()), cut(x, 4, 8), "y");
  refused(as_const(x.view()), pare::TensorView<float, 2>{&y(0, 0), {4, 8}, {0, 1}}, "y");
  refused(pare::TensorView<const float, 2>{nullptr, {4, 64}, {64, 1}}, y.view(), "x");
  auto* const weight = reinterpret_cast<float*>(layer.stored.data());
  refused(as_const(x.view()), pare::TensorView<float, 2>{weight, {4, 8}, {8, 1}}, "y");
  // No rows: nothing to do, wherever they are.
  linear.apply(pare::simd, pare::TensorView<const float, 2>{nullptr, {0, 64}, {64, 1}},
               pare::TensorView<float, 2>{nullptr, {0, 8}, {8, 1}});
}

TEST(DenseLinear, OwnsOrViews) {
  const auto w = random_rows<float>(5, 7, 1);
  DenseLinear<bf16> owned(5, 7);
  for (Index i = 0; i < 35; ++i)
    ASSERT_EQ(static_cast<float>(owned.weights()(i / 7, i % 7)), 0) << "zeros until written";
  for (Index i = 0; i < 35; ++i) owned.own_weights()(i / 7, i % 7) = bf16(w(i / 7, i % 7));
  const DenseLinear<bf16> moved = std::move(owned);
  const auto x = random_rows<float>(2, 7, 2);
  const auto y = applied(moved, pare::simd, x);
  Rows<double> values(5, 7);
  for (Index i = 0; i < 35; ++i)
    values(i / 7, i % 7) = static_cast<double>(static_cast<float>(bf16(w(i / 7, i % 7))));
  expect_products(values, x, y);
  DenseLinear<float> viewed(w.view());
  refusal([&] { viewed.own_weights(); }, "transformer::DenseLinear::own_weights", "weights");
  // Nobody steps along one input.
  const DenseLinear<float> column(pare::TensorView<const float, 2>{&w(0, 0), {5, 1}, {7, 3}});
  const auto one = random_rows<float>(2, 1, 3);
  const auto products = applied(column, pare::simd, one);
  for (Index i = 0; i < 10; ++i) EXPECT_EQ(products(i / 5, i % 5), one(i / 5, 0) * w(i % 5, 0));
  constexpr const char* function = "transformer::DenseLinear";
  refusal([&] { DenseLinear<float>(pare::TensorView<const float, 2>{&w(0, 0), {5, 3}, {7, 2}}); },
          function, "weights");
  refusal([&] { DenseLinear<float>(pare::TensorView<const float, 2>{&w(0, 0), {0, 7}, {7, 1}}); },
          function, "weights");
  refusal([&] { DenseLinear<float>(0, 7); }, function, "outputs");
  refusal([&] { DenseLinear<float>(5, -1); }, function, "inputs");
  constexpr Index large = Index{1} << 31;  // the product fits, its bytes do not
  refusal([&] { DenseLinear<float>(large, large); }, function, "outputs");
}

TEST(DenseLinear, OfDoubleIsDouble) {
  static_assert(!Linear<DenseLinear<double>>);
  const auto w = random_rows<double>(21, 67, 1);
  const DenseLinear<double> layer(w.view());
  const auto check = [&](const Rows<double>& x, const Rows<double>& y) {
    for (Index r = 0; r < x.rows(); ++r)
      for (Index o = 0; o < w.rows(); ++o) {
        long double wanted = 0, magnitude = 0;
        for (Index i = 0; i < w.cols(); ++i) {
          wanted += w.at(o, i) * x.at(r, i);
          magnitude += std::abs(w.at(o, i) * x.at(r, i));
        }
        const double bound = Tolerance<double>::dot(67, static_cast<double>(magnitude));
        ASSERT_TRUE(within(y(r, o), static_cast<double>(wanted), bound)) << r << ' ' << o;
      }
  };
  for (const Index rows : {Index{1}, few_rows + 1}) {
    const auto x = random_rows<double>(rows, 67, 2);
    Rows<double> y(rows, 21);
    layer.apply(pare::reference, x.view(), y.view());
    check(x, y);
    layer.apply(pare::simd.threads(2), x.view(), y.view());
    check(x, y);
    const Gapped<double> columns(x), out(y);
    layer.apply(pare::simd, as_const(columns.view()), out.view());
    check(x, out.rows());
  }
  DenseLinear<double> owned(2, 3);
  owned.own_weights()(1, 2) = 5;
  EXPECT_EQ(owned.weights()(1, 2), 5);
  refusal([&] { layer.apply(pare::simd, w.view(), Rows<double>(21, 20).view()); },
          "transformer::DenseLinear::apply", "y");
}

// The oracle rounds x itself; bits of the conversion, and subnormals, are kernel/simd_test.cpp's.
TEST(DenseLinear, RoundsManyRowsWhereAskedTo) {
  for (const Index inputs : {64, 577}) {
    const Layer<bf16> layer(70, inputs);
    const DenseLinear<bf16> rounding(layer.linear().weights(), {.round_inputs = true});
    pare::Workspace workspace;
    const auto backend = pare::simd.with(workspace);
    for (const Index rows : {Index{3}, few_rows + 4}) {
      const auto x = random_rows<float>(rows, inputs, 3);
      Rows<float> seen(rows, inputs, [&](Index r, Index i) {
        return rows > few_rows ? static_cast<float>(bf16(x(r, i))) : x(r, i);
      });
      auto y = applied(rounding, backend, x);
      expect_products(layer.values, seen, y);
      const long before = pare::testing::allocations;
      rounding.apply(backend, x.view(), y.view());
      EXPECT_EQ(pare::testing::allocations - before, 0);
      pare::testing::same_bits_for_any_threads(
          pare::simd, [&](const auto& on) { return applied(rounding, on, x); });
    }
  }
  refusal([&] { DenseLinear<float>(3, 4, {.round_inputs = true}); }, "transformer::DenseLinear",
          "round_inputs");
}

// Of 64 inputs few rows are rounded where pairs are fast; of 577 they are multiplied as they are.
TEST(DenseLinear, RoundsFewRowsWhereAskedTo) {
  for (const Index inputs : {128, 577}) {
    const Layer<bf16> layer(70, inputs);
    const DenseLinear<bf16> rounding(layer.linear().weights(), {.round_few_rows = true});
    const bool pairs = pare::linalg::multiplies_weight_pairs(pare::simd, layer.linear().weights());
    EXPECT_FALSE(pairs && inputs == 577);
    for (const Index rows : {Index{1}, few_rows, few_rows + 4}) {
      const auto x = random_rows<float>(rows, inputs, 3);
      Rows<float> seen(rows, inputs, [&](Index r, Index i) {
        return pairs && rows <= few_rows ? static_cast<float>(bf16(x(r, i))) : x(r, i);
      });
      expect_products(layer.values, seen, applied(rounding, pare::simd, x));
      pare::testing::same_bits_for_any_threads(
          pare::simd, [&](const auto& on) { return applied(rounding, on, x); });
    }
  }
  refusal([&] { DenseLinear<float>(3, 4, {.round_few_rows = true}); }, "transformer::DenseLinear",
          "round_few_rows");
}

TEST(QuantizedLinear, RefusesOtherNumbersOfBlocks) {
  const std::vector<Q4_1> blocks(12);
  const std::span<const Q4_1> all(blocks);
  constexpr const char* function = "transformer::QuantizedLinear";
  refusal([&] { QuantizedLinear<Q4_1>(all, 4, 95); }, function, "inputs");
  refusal([&] { QuantizedLinear<Q4_1>(all, 4, 0); }, function, "inputs");
  refusal([&] { QuantizedLinear<Q4_1>(all, 0, 96); }, function, "outputs");
  refusal([&] { QuantizedLinear<Q4_1>(all, 4, 64); }, function, "blocks");
  refusal([&] { QuantizedLinear<Q4_1>(all.first(11), 4, 96); }, function, "blocks");
}

TEST(LowRankLinear, IsTheProductOfItsFactors) {
  const Index outputs = 70, inputs = 65, rank = 19;
  const Layer<float> left(outputs, rank, 1), right(rank, inputs, 2);
  const LowRankLinear<float> layer(left.linear(), right.linear());
  EXPECT_EQ(layer.rank(), rank);
  for (const Index rows : {Index{1}, Index{16}, few_rows + 1}) {
    const auto x = random_rows<float>(rows, inputs, 3);
    Rows<double> middle(rows, rank);
    const auto check = [&](const Rows<float>& y) {
      for (Index r = 0; r < rows; ++r)
        for (Index o = 0; o < outputs; ++o) {
          double wanted = 0, magnitude = 0;
          for (Index k = 0; k < rank; ++k) {
            double sum = 0, size = 0;
            for (Index i = 0; i < inputs; ++i) {
              const double term = right.values(k, i) * static_cast<double>(x(r, i));
              sum += term;
              size += std::abs(term);
            }
            wanted += left.values(o, k) * sum;
            magnitude += std::abs(left.values(o, k)) * size;
          }
          const double bound =
              Tolerance<float>::dot(static_cast<double>(inputs + rank) + 1, magnitude);
          ASSERT_TRUE(within(static_cast<double>(y(r, o)), wanted, bound)) << r << ' ' << o;
        }
    };
    check(applied(layer, pare::simd, x));
    check(applied(layer, pare::reference, x));
    pare::testing::same_bits_for_any_threads(
        pare::simd, [&](const auto& backend) { return applied(layer, backend, x); });
    Rows<float> y(rows, outputs);
    const Gapped<float> columns(x), out(y);
    layer.apply(pare::simd, as_const(columns.view()), out.view());
    check(out.rows());
    // Neither rows nor columns contiguous.
    std::vector<float> wide(static_cast<std::size_t>(2 * rows * outputs));
    const pare::TensorView<float, 2> spread{wide.data(), {rows, outputs}, {2 * outputs, 2}};
    layer.apply(pare::simd, x.view(), spread);
    check(Rows<float>(rows, outputs, [&](Index r, Index o) { return spread(r, o); }));
  }
  constexpr const char* apply = "transformer::LowRankLinear::apply";
  auto x = random_rows<float>(2, inputs, 3), y = random_rows<float>(2, outputs, 4);
  refuses_and_leaves_alone(
      [&] { layer.apply(pare::simd, x.view(), random_rows<float>(2, 3, 1).view()); }, apply, "y");
  refuses_and_leaves_alone([&] { layer.apply(pare::simd, as_const(y.view()), y.view()); }, apply,
                           "x", y);
  for (const auto* factor : {&left, &right}) {
    const pare::TensorView<float, 2> inside{
        const_cast<float*>(factor->stored.data()), {2, outputs}, {outputs, 1}};
    refuses_and_leaves_alone([&] { layer.apply(pare::simd, as_const(x.view()), inside); }, apply,
                             "y", factor->stored);
  }
  refusal([&] { LowRankLinear<float>(left.linear(), left.linear()); }, "transformer::LowRankLinear",
          "left");
}

TEST(LowRankLinear, AllocatesNothingWithAWorkspace) {
  const Layer<bf16> left(70, 20, 1), right(20, 64, 2);
  const LowRankLinear<bf16> layer(left.linear(), right.linear());
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  for (const Index rows : {1, 64}) {
    const auto x = random_rows<float>(rows, 64, 3);
    Rows<float> y(rows, 70);
    layer.apply(backend, x.view(), y.view());
    const long before = pare::testing::allocations;
    layer.apply(backend, x.view(), y.view());
    EXPECT_EQ(pare::testing::allocations - before, 0) << rows;
  }
}

}  // namespace
}  // namespace transformer_linear_test
