// SPDX-License-Identifier: Apache-2.0
// Rows of bf16 times a weight of bf16 in pairs, against plain loops in double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>

#include <pare/core/backend.hpp>
#include <pare/core/scalar.hpp>
#include <pare/kernel/weight_pairs.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_weight_pairs_test {
namespace {

using pare::bf16;
using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::Tolerance;
using pare::testing::within;
namespace kernel = pare::kernel;

template <class Arch>
struct WeightPairsTest : testing::Test {};
TYPED_TEST_SUITE(WeightPairsTest, pare::testing::Archs);

double value_at(std::ptrdiff_t i, std::ptrdiff_t j) {
  return static_cast<double>((i * 31 + j * 17) % 101 - 50) / 50;
}

/// Rows of `size` numbers, `gap` apart; the first begins, or the last ends, at a page.
struct Rows {
  std::ptrdiff_t stride;
  GuardedArray<bf16> values;

  Rows(std::ptrdiff_t rows, std::ptrdiff_t size, std::ptrdiff_t gap, Guard guard)
      : stride(size + gap), values((rows - 1) * stride + size, guard) {
    for (std::ptrdiff_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<bf16>(static_cast<float>(value_at(i / stride, i % stride)));
  }
  double at(std::ptrdiff_t i, std::ptrdiff_t j) const {
    return static_cast<double>(static_cast<float>(values[i * stride + j]));
  }
  const kernel::Bf16Pair* pairs() const {
    return reinterpret_cast<const kernel::Bf16Pair*>(values.data());
  }
};

/// y of `outputs` columns, and one more behind each row.
template <class Arch>
void multiply(const Rows& w, const Rows& x, std::ptrdiff_t rows, std::ptrdiff_t inputs,
              std::ptrdiff_t outputs, float* y) {
  kernel::MultiplyWeightPairs a;
  a.weights = w.pairs();
  a.weight_stride = w.stride / 2;
  a.x = x.pairs();
  a.x_stride = x.stride / 2;
  a.y = y;
  a.y_stride = outputs + 1;
  a.rows = rows;
  a.inputs = inputs / 2;
  a.outputs = outputs;
  launch(pare::simd_for<Arch>{}, a);
}

template <class Arch>
void expect_products(std::ptrdiff_t rows, std::ptrdiff_t inputs, std::ptrdiff_t outputs,
                     Guard guard) {
  const Rows w(outputs, inputs, rows % 2 * 2, guard), x(rows, inputs, 4, guard);
  GuardedArray<float> y(rows * (outputs + 1), guard);
  multiply<Arch>(w, x, rows, inputs, outputs, y.data());
  for (std::ptrdiff_t r = 0; r < rows; ++r) {
    for (std::ptrdiff_t o = 0; o < outputs; ++o) {
      double wanted = 0, magnitude = 0;
      for (std::ptrdiff_t i = 0; i < inputs; ++i) {
        wanted += x.at(r, i) * w.at(o, i);
        magnitude += std::abs(x.at(r, i) * w.at(o, i));
      }
      ASSERT_TRUE(within(static_cast<double>(y[r * (outputs + 1) + o]), wanted,
                         Tolerance<float>::dot(static_cast<double>(inputs), magnitude)))
          << rows << ' ' << inputs << ' ' << outputs << ' ' << r << ' ' << o;
    }
    EXPECT_TRUE(y.untouched(r * (outputs + 1) + outputs)) << "what lies between rows";
  }
  EXPECT_TRUE(y.surroundings_untouched());
}

// Rows that are streamed and that stay in L1, in one group and several; outputs of less than a tile
// and of several panels; inputs of one block, several, and of parts.
TYPED_TEST(WeightPairsTest, AreTheProductsOfPlainLoops) {
  if constexpr (!TypeParam::has_bf16_dot)
    GTEST_SKIP() << "no products of pairs";
  else
    for (const Guard guard : {Guard::before, Guard::after})
      for (const std::ptrdiff_t rows : {1, 2, 3, 5, 7, 8, 11, 37})
        for (const std::ptrdiff_t inputs : {64, 704, 1984})
          for (const std::ptrdiff_t outputs : {1, 3, 4, 5, 70})
            expect_products<TypeParam>(rows, inputs, outputs, guard);
}

TYPED_TEST(WeightPairsTest, OfNoInputsAreZero) {
  if constexpr (!TypeParam::has_bf16_dot)
    GTEST_SKIP() << "no products of pairs";
  else
    for (const std::ptrdiff_t rows : {1, 7, 8, 40}) {
      const Rows none(1, 0, 0, Guard::after);
      GuardedArray<float> y(rows * 6);
      multiply<TypeParam>(none, none, rows, 0, 5, y.data());
      for (std::ptrdiff_t i = 0; i < y.size(); ++i)
        EXPECT_TRUE(i % 6 == 5 ? y.untouched(i) : y[i] == 0.0f) << rows << ' ' << i;
    }
}

}  // namespace
}  // namespace kernel_weight_pairs_test
