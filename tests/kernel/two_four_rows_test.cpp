// SPDX-License-Identifier: Apache-2.0
// A few rows times 2:4 weights: the products of their values, on every tail, in their own memory.
#include <pare/kernel/two_four_rows.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "kernel/matrix_rows.hpp"
#include "support/tolerance.hpp"

namespace kernel_two_four_rows_test {
namespace {

using pare::bf16;
using pare::f16;
using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::MatrixRows;
using pare::testing::same_bits;
using pare::testing::Tolerance;
namespace kernel = pare::kernel;

template <class Arch, class S>
struct Case {
  using arch = Arch;
  using weight = S;
};
using best = pare::arch::best;
using Cases =
    testing::Types<Case<best, float>, Case<best, double>, Case<best, bf16>, Case<best, f16>,
                   Case<best, std::int8_t>, Case<pare::arch::scalar, float>,
                   Case<pare::arch::scalar, double>, Case<pare::arch::scalar, std::int8_t>>;

template <class Case>
struct TwoFourRowsTest : testing::Test {};
TYPED_TEST_SUITE(TwoFourRowsTest, Cases);

constexpr std::uint16_t legal[] = {3, 5, 6, 9, 10, 12};

/// A 2:4 weight between forbidden pages, its rows with gaps, and what it says in double.
template <class S>
struct Weight {
  std::ptrdiff_t outputs, inputs, words, value_stride, mask_stride, scales, scale_stride;
  GuardedArray<S> values;
  GuardedArray<std::uint16_t> mask;
  GuardedArray<float> scale;
  std::vector<double> dense;

  Weight(std::ptrdiff_t outputs_of, std::ptrdiff_t inputs_of, std::ptrdiff_t gap, Guard guard)
      : outputs(outputs_of),
        inputs(inputs_of),
        words((inputs_of + 15) / 16),
        value_stride((inputs_of + 63) / 64 * 32 + gap),
        mask_stride(words + gap),
        scales((inputs_of + 127) / 128),
        scale_stride(scales + gap),
        values((outputs - 1) * value_stride + (inputs_of + 63) / 64 * 32, guard),
        mask((outputs - 1) * mask_stride + words, guard),
        scale((outputs - 1) * scale_stride + scales, guard),
        dense(static_cast<std::size_t>(outputs * inputs)) {
    std::mt19937_64 random(static_cast<unsigned long>(outputs * 1000 + inputs));
    for (std::ptrdiff_t o = 0; o < outputs; ++o) {
      for (std::ptrdiff_t b = 0; b < scales; ++b)
        scale[o * scale_stride + b] = static_cast<float>(1 + random() % 100) / 1000.0f;
      for (std::ptrdiff_t v = 0; v < (inputs + 63) / 64 * 32; ++v)
        values[o * value_stride + v] = S{};
      for (std::ptrdiff_t w = 0; w < words; ++w) fill(random, o, w);
    }
  }

  void fill(std::mt19937_64& random, std::ptrdiff_t o, std::ptrdiff_t w) {
    unsigned word = 0;
    for (std::ptrdiff_t g = 0; g < 4 && 16 * w + 4 * g < inputs; ++g)
      word |= static_cast<unsigned>(legal[random() % 6]) << 4 * g;
    mask[o * mask_stride + w] = static_cast<std::uint16_t>(word);
    S* const to = &values[o * value_stride + 8 * w];
    std::ptrdiff_t next = 0;
    for (std::ptrdiff_t i = 0; i < 16; ++i) {
      if ((word >> i & 1u) == 0) continue;
      dense[static_cast<std::size_t>(o * inputs + 16 * w + i)] = value(random, o, w, to[next++]);
    }
  }

  double value(std::mt19937_64& random, std::ptrdiff_t o, std::ptrdiff_t w, S& to) {
    const auto number = static_cast<std::ptrdiff_t>(random() % 255) - 127;
    if constexpr (std::is_same_v<S, std::int8_t>) {
      to = static_cast<S>(number);
      return static_cast<double>(number) * static_cast<double>(scale[o * scale_stride + w / 8]);
    } else {
      to = static_cast<S>(static_cast<float>(number) / 127.0f);
      return static_cast<double>(static_cast<pare::compute_t<S>>(to));
    }
  }
};

template <class Arch, class S, class T>
void multiply(const Weight<S>& w, const MatrixRows<T>& x, MatrixRows<T>& y, bool from_cache) {
  kernel::MultiplyTwoFourRows<S> a;
  a.values = w.values.data();
  a.value_stride = w.value_stride;
  a.mask = w.mask.data();
  a.mask_stride = w.mask_stride;
  if (std::is_same_v<S, std::int8_t>) a.scales = w.scale.data();
  a.scale_stride = w.scale_stride;
  a.x = x.values.data();
  a.x_stride = x.stride;
  a.y = y.values.data();
  a.y_stride = y.stride;
  a.rows = x.rows;
  a.inputs = w.inputs;
  a.outputs = w.outputs;
  a.from_cache = from_cache;
  run_kernel(Arch{}, a);
}

/// A weight of 8 bits is one more rounding than a number.
template <class S, class T>
void expect_products(const Weight<S>& w, const MatrixRows<T>& x, const MatrixRows<T>& y) {
  for (std::ptrdiff_t r = 0; r < x.rows; ++r)
    for (std::ptrdiff_t o = 0; o < w.outputs; ++o) {
      double wanted = 0, magnitude = 0;
      for (std::ptrdiff_t i = 0; i < w.inputs; ++i) {
        const double term = static_cast<double>(x.values[r * x.stride + i]) *
                            w.dense[static_cast<std::size_t>(o * w.inputs + i)];
        wanted += term;
        magnitude += std::abs(term);
      }
      // In double the oracle rounds as often as the kernel.
      const double bound = 2 * Tolerance<T>::dot(static_cast<double>(w.inputs) + 1, magnitude);
      ASSERT_TRUE(
          pare::testing::within(static_cast<double>(y.values[r * y.stride + o]), wanted, bound))
          << "row " << r << " of " << x.rows << ", output " << o << " of " << w.outputs << ", "
          << w.inputs << " inputs: got " << y.values[r * y.stride + o] << ", wanted " << wanted;
    }
}

TYPED_TEST(TwoFourRowsTest, ProductsAreThoseOfTheDenseWeight) {
  using S = typename TypeParam::weight;
  using T = typename kernel::MultiplyTwoFourRows<S>::T;
  int count = 0;
  // 64 are a step, 128 a scale, 8192 what one row of x is multiplied by at once (of double half).
  for (const std::ptrdiff_t inputs : {4, 12, 16, 60, 64, 68, 128, 132, 576, 1084, 8260})
    for (const std::ptrdiff_t outputs : {1, 3, 4, 5, 16, 17, 35})
      for (const std::ptrdiff_t rows : {1, 2, 3, 4, 5, 6, 16}) {
        ++count;
        if (inputs > 200 && (outputs % 5 != 0 || rows > 3)) continue;
        if (inputs > 2000 && (outputs > 5 || rows == 2)) continue;
        const Guard guard = count % 2 == 0 ? Guard::before : Guard::after;
        const Weight<S> w(outputs, inputs, outputs % 3, guard);
        MatrixRows<T> x(rows, inputs, guard), y(rows, outputs, guard);
        x.fill();
        multiply<typename TypeParam::arch>(w, x, y, count % 3 == 0);
        expect_products(w, x, y);
        ASSERT_TRUE(x.gaps_untouched() && y.gaps_untouched()) << inputs << ' ' << outputs;
      }
}

TYPED_TEST(TwoFourRowsTest, ARowHasTheSameBitsAmongAnyNumberAndFromAnywhere) {
  using S = typename TypeParam::weight;
  using T = typename kernel::MultiplyTwoFourRows<S>::T;
  using Arch = typename TypeParam::arch;
  const std::ptrdiff_t outputs = 21;
  for (const std::ptrdiff_t inputs : {1084, 8260}) {
    const Weight<S> w(outputs, inputs, 0, Guard::after);
    const std::ptrdiff_t most = inputs > 2000 ? 5 : 20;
    MatrixRows<T> x(most, inputs, Guard::after), y(most, outputs, Guard::after);
    x.fill();
    multiply<Arch>(w, x, y, false);
    for (std::ptrdiff_t count = 1; count <= most; ++count) {
      MatrixRows<T> few(count, inputs, Guard::after), got(count, outputs, Guard::after);
      few.fill();
      multiply<Arch>(w, few, got, count % 2 == 1);
      for (std::ptrdiff_t r = 0; r < count; ++r)
        for (std::ptrdiff_t o = 0; o < outputs; ++o)
          ASSERT_TRUE(same_bits(got.values[r * got.stride + o], y.values[r * y.stride + o]))
              << count << " rows, row " << r << ", output " << o;
    }
  }
}

TYPED_TEST(TwoFourRowsTest, ANaNReachesTheOutputsOfItsRowThatKeepIt) {
  using S = typename TypeParam::weight;
  using T = typename kernel::MultiplyTwoFourRows<S>::T;
  for (const std::ptrdiff_t at : {std::ptrdiff_t{40}, std::ptrdiff_t{69}}) {
    const Weight<S> w(17, 76, 0, Guard::after);
    MatrixRows<T> x(6, 76, Guard::after), y(6, 17, Guard::after);
    x.fill();
    x.values[2 * x.stride + at] = std::numeric_limits<T>::quiet_NaN();
    multiply<typename TypeParam::arch>(w, x, y, false);
    for (std::ptrdiff_t r = 0; r < 6; ++r)
      for (std::ptrdiff_t o = 0; o < 17; ++o) {
        const bool kept = (w.mask[o * w.mask_stride + at / 16] >> (at % 16) & 1) != 0;
        EXPECT_EQ(std::isnan(y.values[r * y.stride + o]), r == 2 && kept) << r << ' ' << o;
      }
  }
}

TYPED_TEST(TwoFourRowsTest, IndicesAreThoseOfTheTwoBits) {
  using Arch = typename TypeParam::arch;
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t count : {1, 15, 16, 17, 31, 32, 33, 70}) {
      GuardedArray<std::uint16_t> words(count, guard);
      GuardedArray<std::uint8_t> indices((2 * count + 63) / 64 * 64, guard);
      std::mt19937_64 random(static_cast<unsigned long>(count));
      for (std::ptrdiff_t w = 0; w < count; ++w) {
        unsigned word = 0;
        for (unsigned g = 0; g < 16; g += 4)
          word |= (random() % 7 == 0 ? 0u : legal[random() % 6]) << g;
        words[w] = static_cast<std::uint16_t>(word);
      }
      kernel::index_kept<Arch>(words.data(), count, indices.data());
      for (std::ptrdiff_t w = 0; w < count; ++w)
        for (int g = 0; g < 4; ++g) {
          const unsigned bits = words[w] >> 4 * g & 15u, got = indices[2 * w + g / 2] >> g % 2 * 4;
          if (bits == 0)
            EXPECT_EQ(got & 15u, 0u);
          else
            EXPECT_EQ(1u << (got & 3u) | 1u << (got >> 2 & 3u), bits) << w << ' ' << g;
        }
      EXPECT_TRUE(indices.surroundings_untouched());
    }
}

}  // namespace
}  // namespace kernel_two_four_rows_test
