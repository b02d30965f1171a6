// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

#include <pare/kernel/norm_rows.hpp>
#include <pare/kernel/rotate_rows.hpp>
#include <pare/kernel/softmax_rows.hpp>
#include <pare/kernel/turn_row.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

// What the kernels compute, the tests of pare/transformer say; here are their ends: rows that lie
// between forbidden pages, at every tail.

namespace kernel_transformer_rows_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::same_bits;
namespace kernel = pare::kernel;

template <class Case>
struct TransformerRowsTest : testing::Test {};
TYPED_TEST_SUITE(TransformerRowsTest, pare::testing::ArchsAndStorages);

constexpr std::ptrdiff_t column_counts[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 130};
constexpr std::ptrdiff_t rows = 2, gap = 3;

template <class S>
S value_at(std::ptrdiff_t i) {
  return static_cast<S>(static_cast<pare::compute_t<S>>((i * 31) % 17 - 8) / pare::compute_t<S>(4));
}

/// Rows with gaps, at either end of which lies a page that may not be touched.
template <class S>
struct GuardedRows : GuardedArray<S> {
  std::ptrdiff_t columns, stride;

  GuardedRows(std::ptrdiff_t count, Guard guard)
      : GuardedArray<S>((rows - 1) * (count + gap) + count, guard),
        columns(count),
        stride(count + gap) {}
  void fill() {
    for (std::ptrdiff_t r = 0; r < rows; ++r)
      for (std::ptrdiff_t c = 0; c < columns; ++c) (*this)[r * stride + c] = value_at<S>(r + c);
  }
  bool gaps_untouched() const {
    for (std::ptrdiff_t c = columns; c < stride; ++c)
      if (!this->untouched(c)) return false;
    return this->surroundings_untouched();
  }
};

/// run(from, to) is called with rows apart and with the same rows, and must do the same.
template <class S, class Run>
void expect_within_rows(const Run& run) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t columns : column_counts) {
      GuardedRows<S> x(columns, guard), y(columns, guard);
      x.fill();
      run(x, y, guard);
      EXPECT_TRUE(x.gaps_untouched() && y.gaps_untouched()) << columns;
      run(x, x, guard);
      for (std::ptrdiff_t r = 0; r < rows; ++r)
        for (std::ptrdiff_t c = 0; c < columns; ++c)
          ASSERT_TRUE(same_bits(x[r * x.stride + c], y[r * y.stride + c])) << columns << ' ' << c;
      EXPECT_TRUE(x.gaps_untouched()) << columns;
    }
}

TYPED_TEST(TransformerRowsTest, NormsStayWithinTheirRows) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  const auto fill = [](GuardedArray<T>& v) {
    for (std::ptrdiff_t i = 0; i < v.size(); ++i) v[i] = T(1) + static_cast<T>(i % 3);
  };
  // Once in the range of squares, once beyond it.
  for (const double epsilon : {1e-5, 0.0})
    expect_within_rows<S>([&](const GuardedRows<S>& x, GuardedRows<S>& y, Guard guard) {
      GuardedArray<T> gain(x.columns, guard);
      fill(gain);
      kernel::RmsNormRows<S> a;
      a.x = x.data(), a.x_stride = x.stride, a.out = y.data(), a.out_stride = y.stride;
      a.gain = gain.data(), a.rows = rows, a.columns = x.columns, a.epsilon = epsilon;
      run_kernel(typename TypeParam::arch{}, a);
    });
  expect_within_rows<S>([&](const GuardedRows<S>& x, GuardedRows<S>& y, Guard guard) {
    GuardedArray<T> gain(x.columns, guard), bias(x.columns, guard);
    fill(gain);
    fill(bias);
    kernel::LayerNormRows<S> a;
    a.x = x.data(), a.x_stride = x.stride, a.out = y.data(), a.out_stride = y.stride;
    a.gain = gain.data(), a.bias = bias.data(), a.rows = rows, a.columns = x.columns;
    a.epsilon = 1e-5;
    run_kernel(typename TypeParam::arch{}, a);
  });
}

TYPED_TEST(TransformerRowsTest, AResidualStaysWithinItsRows) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t columns : column_counts) {
      GuardedRows<S> x(columns, guard), delta(columns, guard);
      x.fill();
      delta.fill();
      const std::vector<T> gain(static_cast<std::size_t>(columns), T(1));
      run_kernel(
          typename TypeParam::arch{},
          kernel::RmsNormRows<S>{x.data(), x.stride, delta.data(), delta.stride, x.data(), x.stride,
                                 delta.data(), delta.stride, gain.data(), rows, columns, 1e-5});
      for (std::ptrdiff_t r = 0; r < rows; ++r)
        for (std::ptrdiff_t c = 0; c < columns; ++c)
          ASSERT_EQ(static_cast<T>(x[r * x.stride + c]), 2 * static_cast<T>(value_at<S>(r + c)));
      EXPECT_TRUE(x.gaps_untouched() && delta.gaps_untouched()) << columns;
    }
}

TYPED_TEST(TransformerRowsTest, SoftmaxStaysWithinItsRows) {
  using S = typename TypeParam::scalar;
  expect_within_rows<S>([](const GuardedRows<S>& x, GuardedRows<S>& y, Guard) {
    run_kernel(typename TypeParam::arch{},
               kernel::SoftmaxRows<S, false>{x.data(), x.stride, y.data(), y.stride, rows,
                                             x.columns, 0.5});
  });
  expect_within_rows<S>([](const GuardedRows<S>& x, GuardedRows<S>& y, Guard) {
    run_kernel(
        typename TypeParam::arch{},
        kernel::SoftmaxRows<S, true>{x.data(), x.stride, y.data(), y.stride, rows, x.columns, 0.5});
  });
}

/// Turns by 90 degrees, which are exact: (a, b) -> (-b, a).
template <class S, class Arch, bool Interleaved>
void expect_quarter_turns() {
  using T = pare::compute_t<S>;
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t pairs : column_counts)
      for (const std::ptrdiff_t rest : {0, 3}) {
        GuardedRows<S> x(2 * pairs + rest, guard);
        x.fill();
        GuardedArray<T> table(2 * pairs, guard);
        for (std::ptrdiff_t i = 0; i < pairs; ++i) {
          table[i] = T(0);
          table[pairs + i] = T(1);
        }
        const std::ptrdiff_t positions[] = {6, 6};
        run_kernel(Arch{}, kernel::RotateRows<S, Interleaved>{
                               x.data(), 0, x.stride, 1, rows, pairs, table.data(), 6,
                               static_cast<const std::ptrdiff_t*>(positions), 0});
        for (std::ptrdiff_t r = 0; r < rows; ++r)
          for (std::ptrdiff_t c = 0; c < x.columns; ++c) {
            const bool second = Interleaved ? c % 2 == 1 : c >= pairs;
            const std::ptrdiff_t step = Interleaved ? 1 : pairs;
            const T other = static_cast<T>(value_at<S>(r + (second ? c - step : c + step)));
            const T wanted = c >= 2 * pairs ? static_cast<T>(value_at<S>(r + c))
                             : second       ? other
                                            : -other;
            ASSERT_EQ(static_cast<T>(x[r * x.stride + c]), wanted) << pairs << ' ' << c;
          }
        EXPECT_TRUE(x.gaps_untouched()) << pairs;
      }
}

TYPED_TEST(TransformerRowsTest, RotationStaysWithinItsRows) {
  expect_quarter_turns<typename TypeParam::scalar, typename TypeParam::arch, true>();
  expect_quarter_turns<typename TypeParam::scalar, typename TypeParam::arch, false>();
}

/// Pairs turned from one table of angles to another, of a size of its own, beside complex numbers.
template <class S, class Arch, bool Interleaved>
void expect_turned() {
  using T = pare::compute_t<S>;
  for (const std::ptrdiff_t pairs : {1, 7, 15, 16, 17, 32, 50}) {
    const auto size = static_cast<std::size_t>(2 * pairs);
    std::vector<T> from(size), to(size);
    std::vector<S> x(size + 1, S(7));
    for (std::ptrdiff_t i = 0; i < pairs; ++i) {
      const auto before = std::polar(1.3, 0.3 * static_cast<double>(i) + 0.1),
                 after = std::polar(1.3, 0.7 * static_cast<double>(i) - 2);
      const auto at = static_cast<std::size_t>(i), sine = static_cast<std::size_t>(i + pairs);
      from[at] = static_cast<T>(before.real());
      from[sine] = static_cast<T>(before.imag());
      to[at] = static_cast<T>(after.real());
      to[sine] = static_cast<T>(after.imag());
      x[2 * at] = static_cast<S>(value_at<S>(2 * i));
      x[2 * at + 1] = static_cast<S>(value_at<S>(2 * i + 1));
    }
    const std::vector<S> old = x;
    run_kernel(Arch{},
               kernel::TurnRow<S, Interleaved>{x.data(), x.data(), from.data(), to.data(), pairs});
    EXPECT_EQ(static_cast<T>(x.back()), T(7));
    for (std::ptrdiff_t i = 0; i < pairs; ++i) {
      const auto a = static_cast<std::size_t>(Interleaved ? 2 * i : i);
      const auto b = static_cast<std::size_t>(Interleaved ? 2 * i + 1 : i + pairs);
      const auto number = [](const std::vector<S>& list, std::size_t at) {
        return static_cast<double>(static_cast<T>(list[at]));
      };
      const std::complex<double> was(number(old, a), number(old, b));
      const auto wanted = was * std::polar(1.0, 0.4 * static_cast<double>(i) - 2.1);
      // A rounding to S, those of the angles' numbers to T, and of angles up to 35.
      constexpr double last =
          sizeof(S) == 2 ? (std::is_same_v<S, pare::bf16> ? 0x1p-8 : 0x1p-11) : 0;
      constexpr double unit = last + 8 * double{std::numeric_limits<T>::epsilon()} + 0x1p-46;
      EXPECT_NEAR(number(x, a), wanted.real(), unit * std::abs(was)) << pairs << ' ' << i;
      EXPECT_NEAR(number(x, b), wanted.imag(), unit * std::abs(was)) << pairs << ' ' << i;
    }
  }
}

TYPED_TEST(TransformerRowsTest, AKeyIsTurnedByTheDifferenceOfItsAngles) {
  using S = typename TypeParam::scalar;
  expect_turned<S, typename TypeParam::arch, true>();
  expect_turned<S, typename TypeParam::arch, false>();
}

}  // namespace
}  // namespace kernel_transformer_rows_test
