// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include <pare/kernel/head_panels.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"

namespace kernel_head_panels_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
namespace kernel = pare::kernel;

template <class Arch, class W>
struct Case {
  using arch = Arch;
  using weight = W;
};
template <class Arch>
using CasesOf = testing::Types<Case<Arch, float>, Case<Arch, double>, Case<Arch, pare::bf16>,
                               Case<Arch, pare::f16>, Case<Arch, std::int8_t>>;

template <class Case>
struct HeadPanelsTest : testing::Test {};
using BestCases = CasesOf<pare::arch::best>;
TYPED_TEST_SUITE(HeadPanelsTest, BestCases);
template <class Case>
struct HeadPanelsPlainTest : HeadPanelsTest<Case> {};
using PlainCases =
    testing::Types<Case<pare::arch::scalar, float>, Case<pare::arch::scalar, std::int8_t>>;

template <class W>
W weight_of(std::mt19937_64& random) {
  if constexpr (std::is_same_v<W, std::int8_t>)
    return static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
  else
    return static_cast<W>(
        static_cast<kernel::head_t<W>>(static_cast<double>(random() % 4001) / 2000 - 1));
}

/// A panel and rows between forbidden pages, x with gaps, and what the product is in double.
template <class W>
struct Product {
  using T = kernel::head_t<W>;
  static constexpr std::ptrdiff_t width = kernel::head_panel_outputs<T>;

  std::ptrdiff_t rows, inputs, stride;
  GuardedArray<W> panel;
  GuardedArray<T> scale, x, y;

  Product(std::ptrdiff_t rows_of, std::ptrdiff_t inputs_of, Guard guard)
      : rows(rows_of),
        inputs(inputs_of),
        stride(inputs_of + 3),
        panel(inputs_of * width, guard),
        scale(width, guard),
        x((rows_of - 1) * stride + inputs_of, guard),
        y(rows_of * width, guard) {
    std::mt19937_64 random(static_cast<unsigned long>(rows * 1000 + inputs));
    for (W& w : panel) w = weight_of<W>(random);
    for (T& s : scale) s = static_cast<T>(static_cast<double>(random() % 100 + 1) / 64);
    for (std::ptrdiff_t r = 0; r < rows; ++r)
      for (std::ptrdiff_t i = 0; i < inputs; ++i)
        x[r * stride + i] = static_cast<T>(static_cast<double>(random() % 4001) / 2000 - 1);
  }

  template <class Arch>
  void run(bool scaled, std::ptrdiff_t row, std::ptrdiff_t count, T* to) const {
    kernel::MultiplyHeadPanel<W> a;
    a.panel = panel.data();
    a.scale = scaled ? scale.data() : nullptr;
    a.x = x.data() + row * stride;
    a.x_stride = stride;
    a.y = to;
    a.rows = count;
    a.inputs = inputs;
    run_kernel(Arch{}, a);
  }

  void expect_product(bool scaled) const {
    for (std::ptrdiff_t r = 0; r < rows; ++r)
      for (std::ptrdiff_t o = 0; o < width; ++o) {
        double sum = 0, sizes = 0;
        for (std::ptrdiff_t i = 0; i < inputs; ++i) {
          const auto w = static_cast<double>(static_cast<T>(panel[i * width + o]));
          sum += w * static_cast<double>(x[r * stride + i]);
          sizes += std::abs(w * static_cast<double>(x[r * stride + i]));
        }
        const double s = scaled ? static_cast<double>(scale[o]) : 1;
        // A sum of `inputs` products, each rounded, and the scale.
        ASSERT_NEAR(static_cast<double>(y[r * width + o]), s * sum,
                    static_cast<double>(inputs + 2) * std::numeric_limits<T>::epsilon() * s * sizes)
            << "row " << r << " of " << rows << ", output " << o << ", inputs " << inputs;
      }
  }
};

template <class TypeParam>
void expect_products() {
  using P = Product<typename TypeParam::weight>;
  for (const std::ptrdiff_t inputs : {1, 2, 15, 127, 128, 129, 300})
    for (const std::ptrdiff_t rows : {1, 2, 3, 5, 6, 7, 12, 13, 16})
      for (const bool scaled : {false, true})
        for (const Guard guard : {Guard::before, Guard::after}) {
          P p(rows, inputs, guard);
          p.template run<typename TypeParam::arch>(scaled, 0, rows, p.y.data());
          p.expect_product(scaled);
          ASSERT_TRUE(p.y.surroundings_untouched());
          // The bits of single rows.
          GuardedArray<typename P::T> one(P::width);
          for (std::ptrdiff_t r = 0; r < rows; ++r) {
            p.template run<typename TypeParam::arch>(scaled, r, 1, one.data());
            for (std::ptrdiff_t o = 0; o < P::width; ++o)
              ASSERT_EQ(one[o], p.y[r * P::width + o]) << "row " << r << " of " << rows;
          }
        }
}

TYPED_TEST(HeadPanelsTest, AreTheProductAndRowsThoseOfSingles) { expect_products<TypeParam>(); }

TYPED_TEST_SUITE(HeadPanelsPlainTest, PlainCases);
TYPED_TEST(HeadPanelsPlainTest, AreTheProductAndRowsThoseOfSingles) {
  expect_products<TypeParam>();
}

TYPED_TEST(HeadPanelsTest, WithoutInputsAreZero) {
  using P = Product<typename TypeParam::weight>;
  P p(2, 1, Guard::after);
  p.inputs = 0;
  p.template run<typename TypeParam::arch>(true, 0, 2, p.y.data());
  for (const auto y : p.y) EXPECT_EQ(y, 0);
}

TYPED_TEST(HeadPanelsTest, ANanStaysInItsRowAndItsOutput) {
  using W = typename TypeParam::weight;
  using P = Product<W>;
  P p(7, 140, Guard::after);
  const auto nan = std::numeric_limits<typename P::T>::quiet_NaN();
  p.x[4 * p.stride + 133] = nan;
  if constexpr (!std::is_same_v<W, std::int8_t>) p.panel[70 * P::width + 9] = static_cast<W>(nan);
  p.template run<typename TypeParam::arch>(false, 0, 7, p.y.data());
  for (std::ptrdiff_t r = 0; r < 7; ++r)
    for (std::ptrdiff_t o = 0; o < P::width; ++o)
      EXPECT_EQ(std::isnan(static_cast<double>(p.y[r * P::width + o])),
                r == 4 || (o == 9 && !std::is_same_v<W, std::int8_t>));
}

}  // namespace
}  // namespace kernel_head_panels_test
