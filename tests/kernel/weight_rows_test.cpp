// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <random>
#include <tuple>
#include <type_traits>
#include <vector>

#include <pare/kernel/pack_weights.hpp>
#include <pare/kernel/weight_rows.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "kernel/matrix_rows.hpp"
#include "kernel/quantized_oracle.hpp"
#include "support/tolerance.hpp"

namespace kernel_weight_rows_test {
namespace {

using pare::bf16;
using pare::f16;
using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::same_bits;
using pare::testing::Tolerance;
namespace kernel = pare::kernel;
using Rows = pare::testing::MatrixRows<float>;

template <class Arch, class W>
struct Case {
  using arch = Arch;
  using weight = W;
};
using best = pare::arch::best;
using Cases =
    testing::Types<Case<best, float>, Case<best, bf16>, Case<best, f16>, Case<best, kernel::Q8_0>,
                   Case<best, kernel::Q4_0>, Case<best, kernel::Q4_1>,
                   Case<pare::arch::scalar, float>, Case<pare::arch::scalar, kernel::Q8_0>,
                   Case<pare::arch::scalar, kernel::Q4_1>>;

template <class Case>
struct WeightRowsTest : testing::Test {};
TYPED_TEST_SUITE(WeightRowsTest, Cases);

/// A weight between forbidden pages, its lines `gap` elements apart, and what it says in double.
template <class W>
struct Weight {
  std::ptrdiff_t outputs, inputs, stride;
  GuardedArray<W> stored;
  std::vector<double> values;

  Weight(std::ptrdiff_t outputs_of, std::ptrdiff_t inputs_of, std::ptrdiff_t gap, Guard guard)
      : outputs(outputs_of),
        inputs(inputs_of),
        stride(inputs_of / kernel::weight_inputs<W> + gap),
        stored((outputs_of - 1) * stride + inputs_of / kernel::weight_inputs<W>, guard),
        values(static_cast<std::size_t>(outputs_of * inputs_of)) {
    std::mt19937_64 random(static_cast<unsigned long>(outputs * 1000 + inputs));
    for (std::ptrdiff_t o = 0; o < outputs; ++o)
      for (std::ptrdiff_t i = 0; i < inputs; i += kernel::weight_inputs<W>)
        fill(random, stored[o * stride + i / kernel::weight_inputs<W>],
             values.data() + o * inputs + i);
  }

  static void fill(std::mt19937_64& random, W& to, double* values) {
    if constexpr (kernel::WeightBlock<W>) {
      to = pare::testing::random_block<W>(random);
      to.d.high = static_cast<std::uint8_t>((to.d.high & 0x83) | 0x28);  // 1/32 to 1/16
      if constexpr (requires { to.m; })
        to.m.high = static_cast<std::uint8_t>((to.m.high & 0x83) | 0x30);
      for (int k = 0; k < 32; ++k) values[k] = pare::testing::element_of<W>(&to, k);
    } else {
      to = static_cast<W>(static_cast<float>(random() % 4001) / 2000.0f - 1.0f);
      values[0] = static_cast<double>(static_cast<float>(to));
    }
  }
};

template <class Arch, class W>
void multiply(const Weight<W>& w, Rows& x, Rows& y) {
  kernel::MultiplyWeightRows<W> a;
  a.weights = w.stored.data();
  a.weight_stride = w.stride;
  a.x = x.values.data();
  a.x_stride = x.stride;
  a.y = y.values.data();
  a.y_stride = y.stride;
  a.rows = x.rows;
  a.inputs = w.inputs;
  a.outputs = w.outputs;
  run_kernel(Arch{}, a);
}

/// A weight of a block is one more rounding than a number.
template <class W>
void expect_products(const Weight<W>& w, const Rows& x, const Rows& y) {
  for (std::ptrdiff_t r = 0; r < x.rows; ++r)
    for (std::ptrdiff_t o = 0; o < w.outputs; ++o) {
      double wanted = 0, magnitude = 0;
      for (std::ptrdiff_t i = 0; i < w.inputs; ++i) {
        const double term = static_cast<double>(x.values[r * x.stride + i]) *
                            w.values[static_cast<std::size_t>(o * w.inputs + i)];
        wanted += term;
        magnitude += std::abs(term);
      }
      const double bound = Tolerance<float>::dot(static_cast<double>(w.inputs) + 1, magnitude);
      ASSERT_TRUE(
          pare::testing::within(static_cast<double>(y.values[r * y.stride + o]), wanted, bound))
          << "row " << r << " of " << x.rows << ", output " << o << " of " << w.outputs << ", "
          << w.inputs << " inputs: got " << y.values[r * y.stride + o] << ", wanted " << wanted;
    }
}

template <class W>
std::vector<std::ptrdiff_t> input_counts() {
  if constexpr (kernel::WeightBlock<W>)
    return {32, 64, 96, 576, 768, 2048, 2080};  // 24 steps fill a buffer, 64 the scales
  else
    return {1, 3, 16, 31, 32, 33, 47, 63, 577, 1059};
}

TYPED_TEST(WeightRowsTest, ProductsAreThoseOfTheValues) {
  using W = typename TypeParam::weight;
  int count = 0;
  for (const std::ptrdiff_t inputs : input_counts<W>())
    for (const std::ptrdiff_t outputs : {1, 2, 3, 4, 5, 15, 16, 17, 35})
      for (const std::ptrdiff_t rows : {1, 2, 3, 4, 5, 16, 20, 33}) {
        if (inputs > 100 && outputs % 5 != 0 && rows % 4 != 1) continue;
        const Guard guard = ++count % 2 == 0 ? Guard::before : Guard::after;
        const Weight<W> w(outputs, inputs, outputs % 3, guard);
        Rows x(rows, inputs, guard), y(rows, outputs, guard);
        x.fill();
        multiply<typename TypeParam::arch>(w, x, y);
        expect_products(w, x, y);
        ASSERT_TRUE(x.gaps_untouched() && y.gaps_untouched()) << inputs << ' ' << outputs;
      }
}

TYPED_TEST(WeightRowsTest, ARowHasTheSameBitsAmongAnyNumber) {
  using W = typename TypeParam::weight;
  using Arch = typename TypeParam::arch;
  const std::ptrdiff_t inputs = kernel::WeightBlock<W> ? 2080 : 1059, outputs = 21;
  const Weight<W> w(outputs, inputs, 0, Guard::after);
  Rows x(33, inputs, Guard::after), y(33, outputs, Guard::after);
  x.fill();
  multiply<Arch>(w, x, y);
  for (std::ptrdiff_t count = 1; count <= 20; ++count) {
    Rows few(count, inputs, Guard::after), got(count, outputs, Guard::after);
    few.fill();
    multiply<Arch>(w, few, got);
    for (std::ptrdiff_t r = 0; r < count; ++r)
      for (std::ptrdiff_t o = 0; o < outputs; ++o)
        ASSERT_TRUE(same_bits(got.values[r * got.stride + o], y.values[r * y.stride + o]))
            << count << " rows, row " << r << ", output " << o;
  }
}

TYPED_TEST(WeightRowsTest, AnInfinityStaysInItsRow) {
  using W = typename TypeParam::weight;
  const Weight<W> w(17, 64, 0, Guard::after);
  Rows x(6, 64, Guard::after), y(6, 17, Guard::after);
  x.fill();
  x.values[2 * x.stride + 40] = std::numeric_limits<float>::quiet_NaN();
  multiply<typename TypeParam::arch>(w, x, y);
  for (std::ptrdiff_t r = 0; r < 6; ++r)
    for (std::ptrdiff_t o = 0; o < 17; ++o)
      EXPECT_EQ(std::isnan(y.values[r * y.stride + o]), r == 2) << r << ' ' << o;
}

template <class Case>
struct PackWeightsTest : testing::Test {};
using BlockCases =
    testing::Types<Case<best, kernel::Q8_0>, Case<best, kernel::Q4_0>, Case<best, kernel::Q4_1>,
                   Case<pare::arch::scalar, kernel::Q8_0>, Case<pare::arch::scalar, kernel::Q4_1>>;
TYPED_TEST_SUITE(PackWeightsTest, BlockCases);

TYPED_TEST(PackWeightsTest, PanelsAreThoseOfTheValues) {
  using W = typename TypeParam::weight;
  using Arch = typename TypeParam::arch;
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t inputs : {32, 96})
      for (const std::ptrdiff_t outputs : {1, 2, 15, 16, 17, 64, 65}) {
        const Weight<W> w(outputs, inputs, 1, guard);
        std::vector<float> values(w.values.size());
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(w.values[i]);
        constexpr std::ptrdiff_t n = kernel::lanes<float, Arch>;
        const std::ptrdiff_t size = (outputs + n - 1) / n * n * inputs;
        GuardedArray<float> got(size, guard), wanted(size, guard);
        run_kernel(Arch{},
                   kernel::PackWeights<W>{w.stored.data(), w.stride, outputs, inputs, got.data()});
        run_kernel(Arch{}, kernel::PackRightLines<float, float, false>{
                               {values.data(), inputs, 1, outputs, inputs, nullptr, nullptr},
                               wanted.data()});
        for (std::ptrdiff_t i = 0; i < size; ++i)
          ASSERT_EQ(got[i], wanted[i]) << outputs << ' ' << inputs << ' ' << i;
        ASSERT_TRUE(got.surroundings_untouched());
      }
}

}  // namespace
}  // namespace kernel_weight_rows_test
