// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/attend_finish.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_attend_finish_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::same_bits;
using pare::testing::Tolerance;
using pare::testing::within;
namespace kernel = pare::kernel;

template <class Case>
struct MergeRowsTest : testing::Test {};
TYPED_TEST_SUITE(MergeRowsTest, pare::testing::ArchsAndScalars);
template <class Case>
struct FinishRowsTest : testing::Test {};
TYPED_TEST_SUITE(FinishRowsTest, pare::testing::ArchsAndStorages);

template <class T>
constexpr T nothing = -std::numeric_limits<T>::infinity();

/// The states that `parts` parts left for the same rows; each is empty until it is set.
template <class T>
struct Parts {
  std::ptrdiff_t parts, rows, columns, stride;
  GuardedArray<T> maximum, sum, out;

  Parts(std::ptrdiff_t part_count, std::ptrdiff_t row_count, std::ptrdiff_t column_count)
      : parts(part_count),
        rows(row_count),
        columns(column_count),
        stride(kernel::padded_columns<T>(column_count)),
        maximum(parts * rows),
        sum(parts * rows),
        out(parts * rows * stride) {
    for (T& x : maximum) x = nothing<T>;
    for (T& x : sum) x = 0;
    for (T& x : out) x = 0;
  }

  T& out_at(std::ptrdiff_t part, std::ptrdiff_t row, std::ptrdiff_t c) {
    return out[(part * rows + row) * stride + c];
  }

  template <class Arch>
  void merge(std::ptrdiff_t first = 0, std::ptrdiff_t count = -1) {
    const std::ptrdiff_t at = first * rows;
    launch(pare::simd_for<Arch>{},
           kernel::MergeRows<T>{maximum.data() + at, sum.data() + at, out.data() + at * stride,
                                count < 0 ? parts : count, rows, columns, nullptr, rows});
  }

  /// Whole numbers with weights that are powers of two: every merge is exact.
  void set_exact(std::ptrdiff_t part, std::ptrdiff_t row) {
    const std::ptrdiff_t id = part * rows + row;
    maximum[id] = static_cast<T>((id * 5 + 3) % 7 - 3);
    sum[id] = static_cast<T>(id % 6 + 1);
    for (std::ptrdiff_t c = 0; c < columns; ++c)
      out_at(part, row, c) = static_cast<T>((id * 3 + c * 5) % 17 - 8);
  }

  void set_random(std::ptrdiff_t part, std::ptrdiff_t row, std::mt19937_64& random) {
    const auto unit = [&] { return static_cast<double>(random()) * 0x1p-64; };
    const std::ptrdiff_t id = part * rows + row;
    maximum[id] = static_cast<T>(40 * unit() - 20);
    sum[id] = static_cast<T>(1 + 50 * unit());
    for (std::ptrdiff_t c = 0; c < columns; ++c)
      out_at(part, row, c) = static_cast<T>(20 * unit() - 10);
  }
};

/// The first `count` rows of out and their sums and maxima are the same bits in both.
template <class T>
void expect_same_first_part(const Parts<T>& a, const Parts<T>& b) {
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    ASSERT_TRUE(same_bits(a.maximum[r], b.maximum[r])) << "row " << r;
    ASSERT_TRUE(same_bits(a.sum[r], b.sum[r])) << "row " << r;
    for (std::ptrdiff_t c = 0; c < a.columns; ++c)
      ASSERT_TRUE(same_bits(a.out[r * a.stride + c], b.out[r * b.stride + c]))
          << "row " << r << " column " << c;
  }
}

TYPED_TEST(MergeRowsTest, IsItsFormula) {
  using T = typename TypeParam::scalar;
  std::mt19937_64 random(8);
  for (const std::ptrdiff_t parts : {1, 2, 3, 7})
    for (const std::ptrdiff_t columns : {1, 5, 8, 16, 17, 64, 100}) {
      const std::ptrdiff_t rows = 5;
      Parts<T> x(parts, rows, columns);
      for (std::ptrdiff_t p = 0; p < parts; ++p)
        for (std::ptrdiff_t r = 0; r < rows; ++r)
          if (r != 2 || p % 2 == 1) x.set_random(p, r, random);
      Parts<T> merged(parts, rows, columns);
      std::copy(x.maximum.begin(), x.maximum.end(), merged.maximum.begin());
      std::copy(x.sum.begin(), x.sum.end(), merged.sum.begin());
      std::copy(x.out.begin(), x.out.end(), merged.out.begin());
      merged.template merge<typename TypeParam::arch>();
      // Each further part costs a weight (a difference of up to 40, and the power's 3 u), a product
      // and an addition.
      const double u = Tolerance<T>::unit_roundoff, steps = static_cast<double>(parts);
      const double share = std::expm1(steps * 40 * u) + Tolerance<T>::gamma(5 * steps);
      for (std::ptrdiff_t r = 0; r < rows; ++r) {
        T largest = nothing<T>;
        for (std::ptrdiff_t p = 0; p < parts; ++p)
          largest = std::max(largest, x.maximum[p * rows + r]);
        ASSERT_EQ(merged.maximum[r], largest);
        const auto expect = [&](double got, const auto& part_value) {
          double wanted = 0, magnitude = 0;
          for (std::ptrdiff_t p = 0; p < parts; ++p) {
            if (x.sum[p * rows + r] == T(0)) continue;
            const double term =
                part_value(p) * std::exp2(static_cast<double>(x.maximum[p * rows + r]) -
                                          static_cast<double>(largest));
            wanted += term;
            magnitude += std::abs(term);
          }
          // As much again for the sum on this side.
          ASSERT_TRUE(within(got, wanted, 2 * share * magnitude)) << "row " << r;
        };
        expect(static_cast<double>(merged.sum[r]),
               [&](std::ptrdiff_t p) { return static_cast<double>(x.sum[p * rows + r]); });
        for (std::ptrdiff_t c = 0; c < columns; ++c)
          expect(static_cast<double>(merged.out_at(0, r, c)),
                 [&](std::ptrdiff_t p) { return static_cast<double>(x.out_at(p, r, c)); });
      }
      ASSERT_TRUE(merged.out.surroundings_untouched());
    }
}

TYPED_TEST(MergeRowsTest, IsAssociativeWhereverPartsAreEmpty) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  // Every choice of empty ones among four parts.
  for (unsigned filled = 0; filled < 16; ++filled) {
    const auto make = [&](Parts<T>& x) {
      for (std::ptrdiff_t p = 0; p < 4; ++p)
        for (std::ptrdiff_t r = 0; r < x.rows; ++r)
          if ((filled >> p) & 1u) x.set_exact(p, r);
    };
    Parts<T> at_once(4, 3, 21), one_by_one(4, 3, 21), from_behind(4, 3, 21);
    make(at_once);
    at_once.template merge<Arch>();
    make(one_by_one);
    for (std::ptrdiff_t parts = 2; parts <= 4; ++parts) {
      // A prefix that is merged already is a part; the next one is brought beside it.
      one_by_one.template merge<Arch>(0, 2);
      if (parts == 4) break;
      for (std::ptrdiff_t r = 0; r < 3; ++r) {
        one_by_one.maximum[3 + r] = one_by_one.maximum[parts * 3 + r];
        one_by_one.sum[3 + r] = one_by_one.sum[parts * 3 + r];
        for (std::ptrdiff_t c = 0; c < 21; ++c)
          one_by_one.out_at(1, r, c) = one_by_one.out_at(parts, r, c);
      }
    }
    make(from_behind);
    for (std::ptrdiff_t first = 2; first >= 0; --first) from_behind.template merge<Arch>(first, 2);
    expect_same_first_part(at_once, one_by_one);
    expect_same_first_part(at_once, from_behind);
    if (filled == 0) {
      for (std::ptrdiff_t r = 0; r < 3; ++r) {
        EXPECT_EQ(at_once.maximum[r], nothing<T>);
        EXPECT_EQ(at_once.sum[r], T(0));
        for (std::ptrdiff_t c = 0; c < 21; ++c) EXPECT_EQ(at_once.out_at(0, r, c), T(0));
      }
    }
  }
}

TYPED_TEST(MergeRowsTest, EmptyPartsChangeNoBit) {
  using T = typename TypeParam::scalar;
  for (std::ptrdiff_t filled = 0; filled < 3; ++filled) {
    std::mt19937_64 random(9), again(9);
    Parts<T> x(3, 4, 19), alone(1, 4, 19);
    for (std::ptrdiff_t r = 0; r < 4; ++r) {
      x.set_random(filled, r, random);
      alone.set_random(0, r, again);
    }
    x.template merge<typename TypeParam::arch>();
    expect_same_first_part(x, alone);
  }
}

TYPED_TEST(MergeRowsTest, ANanPartMakesItsRowNan) {
  using T = typename TypeParam::scalar;
  constexpr T nan = std::numeric_limits<T>::quiet_NaN();
  // A row whose first scores were NaN has found no maximum.
  for (const T maximum : {T(2), nothing<T>})
    for (std::ptrdiff_t part = 0; part < 3; ++part)
      for (const bool others : {false, true}) {
        Parts<T> x(3, 2, 9), clean(3, 2, 9);
        for (std::ptrdiff_t p = 0; p < 3; ++p)
          for (std::ptrdiff_t r = 0; r < 2; ++r)
            if (others || r == 1) {
              x.set_exact(p, r);
              clean.set_exact(p, r);
            }
        x.maximum[part * 2] = maximum;
        x.sum[part * 2] = nan;
        for (std::ptrdiff_t c = 0; c < 9; ++c) x.out_at(part, 0, c) = nan;
        x.template merge<typename TypeParam::arch>();
        clean.template merge<typename TypeParam::arch>();
        EXPECT_TRUE(std::isnan(x.sum[0])) << "part " << part << " others " << others;
        EXPECT_EQ(x.sum[1], clean.sum[1]);
        for (std::ptrdiff_t c = 0; c < 9; ++c) {
          EXPECT_TRUE(std::isnan(x.out_at(0, 0, c))) << "part " << part << " others " << others;
          EXPECT_EQ(x.out_at(0, 1, c), clean.out_at(0, 1, c));
        }
      }
}

/// u of a storage scalar, by its bits of significand.
template <class O>
double narrowing() {
  if constexpr (std::is_same_v<O, pare::bf16>)
    return 0x1p-8;
  else if constexpr (std::is_same_v<O, pare::f16>)
    return 0x1p-11;
  else
    return Tolerance<O>::unit_roundoff;
}

/// Rows to finish, of which every third saw no key; each is written to memory of its own.
template <class O>
struct Finished {
  using T = pare::compute_t<O>;
  std::ptrdiff_t rows, columns, stride;
  GuardedArray<T> maximum, sum, state, lse;
  GuardedArray<O> out;
  std::vector<O*> out_rows;
  std::vector<T*> lse_rows;

  Finished(std::ptrdiff_t row_count, std::ptrdiff_t column_count, Guard guard)
      : rows(row_count),
        columns(column_count),
        stride(kernel::padded_columns<T>(column_count)),
        maximum(rows, guard),
        sum(rows, guard),
        state(rows * stride, guard),
        lse(2 * rows - 1, guard),
        out(rows * (columns + 3) - 3, guard) {
    std::mt19937_64 random(10);
    const auto unit = [&] { return static_cast<double>(random()) * 0x1p-64; };
    for (std::ptrdiff_t r = 0; r < rows; ++r) {
      maximum[r] = empty(r) ? nothing<T> : static_cast<T>(100 * unit() - 50);
      sum[r] = empty(r) ? T(0) : static_cast<T>(1 + 1000 * unit());
      for (std::ptrdiff_t c = 0; c < stride; ++c)
        state[r * stride + c] =
            empty(r) || c >= columns ? T(0) : static_cast<T>(sum[r] * (4 * unit() - 2));
      // Rows lie in reverse, with a gap between them.
      out_rows.push_back(out.data() + (rows - 1 - r) * (columns + 3));
      lse_rows.push_back(lse.data() + 2 * (rows - 1 - r));
    }
  }

  static bool empty(std::ptrdiff_t r) { return r % 3 == 1; }

  template <class Arch>
  void run(bool with_lse) {
    launch(pare::simd_for<Arch>{},
           kernel::FinishRows<T, O>{maximum.data(), sum.data(), state.data(), rows, columns,
                                    out_rows.data(), with_lse ? lse_rows.data() : nullptr});
  }
};

template <class O>
void expect_quotients(const Finished<O>& x) {
  using T = pare::compute_t<O>;
  for (std::ptrdiff_t r = 0; r < x.rows; ++r)
    for (std::ptrdiff_t c = 0; c < x.columns; ++c) {
      const O got = x.out_rows[static_cast<std::size_t>(r)][c];
      if (x.empty(r)) {
        ASSERT_TRUE(same_bits(got, O(0))) << "row " << r << " column " << c;
        continue;
      }
      const double wanted = static_cast<double>(x.state[r * x.stride + c]) / x.sum[r];
      // A reciprocal, a product, the quotient on this side, then the cast; below the normal
      // numbers of a half its steps stay 2^-24.
      const double share = (1 + Tolerance<T>::gamma(3)) * (1 + narrowing<O>()) - 1;
      const double step = std::is_same_v<O, pare::f16> ? 0x1p-25 : 0;
      ASSERT_TRUE(
          within(static_cast<double>(static_cast<T>(got)), wanted, share * std::abs(wanted) + step))
          << "row " << r << " column " << c << " of " << x.columns;
    }
  for (std::ptrdiff_t i = 0; i < x.out.size(); ++i)
    ASSERT_TRUE(i % (x.columns + 3) < x.columns || x.out.untouched(i))
        << "place " << i << " of rows of " << x.columns;
  ASSERT_TRUE(x.out.surroundings_untouched());
}

TYPED_TEST(FinishRowsTest, DividesEveryTailAndEmptyRowsAreZero) {
  using O = typename TypeParam::scalar;
  for (const Guard guard : {Guard::before, Guard::after})
    for (std::ptrdiff_t columns = 1; columns <= 70; ++columns) {
      Finished<O> x(7, columns, guard);
      x.template run<typename TypeParam::arch>(false);
      expect_quotients(x);
      for (std::ptrdiff_t i = 0; i < x.lse.size(); ++i) ASSERT_TRUE(x.lse.untouched(i));
    }
}

TYPED_TEST(FinishRowsTest, LogSumExpIsNaturalAndOfEmptyRowsMinusInfinity) {
  using O = typename TypeParam::scalar;
  using T = pare::compute_t<O>;
  Finished<O> x(10, 12, Guard::after);
  x.template run<typename TypeParam::arch>(true);
  expect_quotients(x);
  for (std::ptrdiff_t r = 0; r < x.rows; ++r) {
    const T got = *x.lse_rows[static_cast<std::size_t>(r)];
    if (x.empty(r)) {
      EXPECT_EQ(got, nothing<T>) << "row " << r;
      continue;
    }
    const long double m = x.maximum[r], logarithm = std::log2(static_cast<long double>(x.sum[r]));
    // The logarithm to 2 u, an addition, ln(2) rounded, a product.
    EXPECT_TRUE(within(static_cast<double>(got),
                       static_cast<double>((m + logarithm) * std::log(2.0L)),
                       Tolerance<T>::gamma(5) * static_cast<double>(std::abs(m) + logarithm)))
        << "row " << r;
  }
  for (std::ptrdiff_t i = 1; i < x.lse.size(); i += 2) EXPECT_TRUE(x.lse.untouched(i));
}

TYPED_TEST(FinishRowsTest, NanStaysInItsRow) {
  using O = typename TypeParam::scalar;
  using T = pare::compute_t<O>;
  Finished<O> x(6, 11, Guard::after);
  x.sum[2] = std::numeric_limits<T>::quiet_NaN();
  x.template run<typename TypeParam::arch>(true);
  for (std::ptrdiff_t r = 0; r < x.rows; ++r) {
    EXPECT_EQ(std::isnan(*x.lse_rows[static_cast<std::size_t>(r)]), r == 2) << "row " << r;
    for (std::ptrdiff_t c = 0; c < x.columns; ++c)
      EXPECT_EQ(std::isnan(static_cast<T>(x.out_rows[static_cast<std::size_t>(r)][c])), r == 2)
          << "row " << r << " column " << c;
  }
}

}  // namespace
}  // namespace kernel_attend_finish_test
