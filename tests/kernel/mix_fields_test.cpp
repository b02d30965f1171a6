// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/column_statistics.hpp>
#include <pare/kernel/mix_fields.hpp>
#include <pare/kernel/move_rows.hpp>
#include <pare/kernel/streaming.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace kernel_mix_fields_test {
namespace {

using pare::testing::Engine;
using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::Tolerance;
using pare::testing::within;
namespace kernel = pare::kernel;

template <class Case>
struct MixFieldsTest : testing::Test {
  static constexpr pare::simd_for<typename Case::arch> backend{};
};
TYPED_TEST_SUITE(MixFieldsTest, pare::testing::ArchsAndScalars);

template <class T>
void fill(GuardedArray<T>& a, std::uint64_t seed) {
  Engine random(seed);
  for (T& value : a) value = static_cast<T>(pare::testing::normal(random));
}

/// A run whose donors turn at `turn`, with what lies around it out of bounds.
template <class T>
struct Run {
  GuardedArray<T> x, first, rest, up, sources, out;
  std::ptrdiff_t size, turn;

  Run(std::ptrdiff_t n, std::ptrdiff_t at, Guard guard)
      : x(n, guard),
        first(at, guard),
        rest(n - at, guard),
        up(n, guard),
        sources(n, guard),
        out(n, guard),
        size(n),
        turn(at) {
    fill(x, 1);
    fill(first, 2);
    fill(rest, 3);
    fill(up, 4);
    fill(sources, 5);
  }

  kernel::DonorRun<T> donors() { return {first.data(), rest.data(), turn}; }
  double donor(std::ptrdiff_t i) {
    return static_cast<double>(i < turn ? first[i] : rest[i - turn]);
  }
  void expect_guards() const { EXPECT_TRUE(out.surroundings_untouched()); }
};

/// Calls test(run, streaming) for runs around the widths of registers and cache lines.
template <class T, class Test>
void for_runs(const Test& test) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t size : {1, 3, 16, 17, 40, 130, 2100})
      for (const std::ptrdiff_t turn :
           {std::ptrdiff_t{0}, std::ptrdiff_t{1}, size / 3, size - 1, size})
        for (const bool streaming : {false, true}) {
          SCOPED_TRACE(testing::Message() << size << " elements, turn " << turn);
          Run<T> run(size, turn, guard);
          test(run, streaming);
          run.expect_guards();
        }
}

TYPED_TEST(MixFieldsTest, ForwardIsItsFormula) {
  using T = typename TypeParam::scalar;
  for_runs<T>([&](Run<T>& run, bool streaming) {
    for (const T gate : {T(0), T(0.3), T(1)}) {
      launch(this->backend, kernel::MixForward<T>{run.x.data(), run.donors(), run.out.data(),
                                                  run.size, gate, T(1) - gate, streaming});
      launch(this->backend, kernel::FinishStreaming{});
      for (std::ptrdiff_t i = 0; i < run.size; ++i) {
        const auto x = static_cast<double>(run.x[i]), t = run.donor(i);
        const auto rest = static_cast<double>(T(1) - gate);
        const bool copies = gate == T(0) || gate == T(1);
        const double wanted = gate == T(0) ? t : x - rest * (x - t);
        const double bound = copies ? 0 : Tolerance<T>::gamma(3) * (std::abs(x) + std::abs(x - t));
        ASSERT_TRUE(within(static_cast<double>(run.out[i]), wanted, bound)) << i;
      }
    }
  });
}

/// What the backward pass writes at element i.
template <class T>
double gradient(Run<T>& run, std::ptrdiff_t i, T gate, bool live) {
  const auto g = static_cast<double>(gate), rest = static_cast<double>(T(1) - gate);
  return g * static_cast<double>(run.up[i]) +
         (live ? rest * static_cast<double>(run.sources[i]) : 0);
}

template <class T>
void expect_sums(Run<T>& run, const double* sums) {
  double slope = 0, squares = 0, magnitudes = 0, size = 0;
  for (std::ptrdiff_t i = 0; i < run.size; ++i) {
    const double delta = static_cast<double>(run.x[i]) - run.donor(i);
    const auto up = static_cast<double>(run.up[i]);
    slope += delta * up;
    size += std::abs(delta * up);
    squares += delta * delta;
    magnitudes += std::abs(delta);
  }
  // A difference, a product, 64 additions to a lane, two sets of up to 16 lanes.
  const double bound = Tolerance<T>::gamma(84);
  EXPECT_TRUE(within(sums[0], slope + 10, bound * size + 1e-12));
  EXPECT_TRUE(within(sums[1], squares + 20, bound * squares + 1e-12));
  EXPECT_TRUE(within(sums[2], magnitudes + 30, bound * magnitudes + 1e-12));
}

TYPED_TEST(MixFieldsTest, BackwardAddsItsSumsAndWritesTheGradient) {
  using T = typename TypeParam::scalar;
  for_runs<T>([&](Run<T>& run, bool streaming) {
    for (const T gate : {T(0), T(0.3), T(1)})
      for (const bool live : {false, true}) {
        double sums[3] = {10, 20, 30};
        launch(this->backend,
               kernel::MixBackward<T>{run.x.data(), run.donors(), run.up.data(),
                                      live ? run.sources.data() : nullptr, run.out.data(), run.size,
                                      gate, T(1) - gate, streaming, sums});
        launch(this->backend, kernel::FinishStreaming{});
        expect_sums(run, sums);
        for (std::ptrdiff_t i = 0; i < run.size; ++i) {
          const double wanted = gradient(run, i, gate, live);
          const double bound =
              Tolerance<T>::gamma(3) * (std::abs(gradient(run, i, gate, false)) + std::abs(wanted));
          ASSERT_TRUE(within(static_cast<double>(run.out[i]), wanted, bound)) << i;
        }
      }
  });
}

TYPED_TEST(MixFieldsTest, WithoutAGradientOnlySums) {
  using T = typename TypeParam::scalar;
  for_runs<T>([&](Run<T>& run, bool) {
    double sums[3] = {10, 20, 30};
    launch(this->backend, kernel::MixBackward<T>{run.x.data(), run.donors(), run.up.data(), nullptr,
                                                 nullptr, run.size, T(0.3), T(0.7), false, sums});
    expect_sums(run, sums);
  });
}

TYPED_TEST(MixFieldsTest, AGateOfOneOrZeroMultipliesNothing) {
  using T = typename TypeParam::scalar;
  Run<T> run(40, 13, Guard::after);
  const T infinity = std::numeric_limits<T>::infinity();
  for (T& value : run.x) value = infinity;
  for (T& value : run.first) value = -infinity;
  for (T& value : run.rest) value = -infinity;
  for (const bool open : {true, false}) {
    launch(this->backend, kernel::MixForward<T>{run.x.data(), run.donors(), run.out.data(),
                                                run.size, open ? T(1) : T(0), open ? T(0) : T(1)});
    for (const T value : run.out) EXPECT_EQ(value, open ? infinity : -infinity);
  }
}

TYPED_TEST(MixFieldsTest, DistancesOfRowsAndElements) {
  using T = typename TypeParam::scalar;
  for (const std::ptrdiff_t rows : {1, 5, 33})
    for (const std::ptrdiff_t columns : {1, 3, 16, 65}) {
      const std::ptrdiff_t size = rows * columns;
      GuardedArray<T> x(size), donor(size);
      GuardedArray<double> squares(size);
      fill(x, 1);
      fill(donor, 2);
      for (double& square : squares) square = 2;
      double sum = 7, wanted = 7;
      launch(this->backend,
             kernel::AddRowDistances<T>{x.data(), donor.data(), rows, columns, &sum});
      launch(this->backend,
             kernel::AddSquaredDifferences<T>{x.data(), donor.data(), size, squares.data()});
      for (std::ptrdiff_t b = 0; b < rows; ++b) {
        double row = 0;
        for (std::ptrdiff_t i = b * columns; i < (b + 1) * columns; ++i) {
          const auto delta = static_cast<double>(x[i] - donor[i]);
          row += delta * delta;
          ASSERT_TRUE(within(squares[i], 2 + delta * delta,
                             Tolerance<double>::gamma(2) * (2 + delta * delta)));
        }
        wanted += std::sqrt(row);
      }
      EXPECT_TRUE(within(sum, wanted, Tolerance<double>::gamma(200) * wanted));
    }
}

TYPED_TEST(MixFieldsTest, GathersRowsByIndexAndInOrder) {
  using T = typename TypeParam::scalar;
  for (const std::ptrdiff_t columns : {1, 2, 3, 4, 7, 8, 16, 50}) {
    constexpr std::ptrdiff_t rows = 9;
    const std::ptrdiff_t from_stride = columns + 2, to_stride = columns + 1;
    GuardedArray<T> from((rows - 1) * from_stride + columns);
    fill(from, 1);
    const std::vector<std::uint32_t> index{4, 0, 8, 8, 1};
    const auto expect = [&](const std::uint32_t* rows_of, std::ptrdiff_t first) {
      GuardedArray<T> to(4 * to_stride + columns);
      launch(this->backend, kernel::GatherRows<T>{from.data(), from_stride, rows_of, first, 5,
                                                  columns, to.data(), to_stride});
      for (std::ptrdiff_t b = 0; b < 5; ++b)
        for (std::ptrdiff_t c = 0; c < columns; ++c) {
          const auto row = rows_of != nullptr ? static_cast<std::ptrdiff_t>(rows_of[b]) : first + b;
          ASSERT_EQ(to[b * to_stride + c], from[row * from_stride + c]) << columns;
        }
      for (std::ptrdiff_t b = 0; b < 4; ++b) EXPECT_TRUE(to.untouched(b * to_stride + columns));
      EXPECT_TRUE(to.surroundings_untouched());
    };
    expect(index.data(), 0);
    expect(nullptr, 3);
  }
}

TYPED_TEST(MixFieldsTest, TurnsColumnsAndTurnsThemBack) {
  using T = typename TypeParam::scalar;
  for (const std::ptrdiff_t rows : {1, 8, 15, 16, 17, 50})
    for (const std::ptrdiff_t columns : {1, 5, 16, 23, 32, 48})
      for (const bool streaming : {false, true}) {
        const std::ptrdiff_t gap = streaming ? 0 : 3, by_rows = columns + gap,
                             by_columns = rows + 2;
        GuardedArray<T> from((rows - 1) * by_rows + columns), back(from.size());
        GuardedArray<T> to((columns - 1) * by_columns + rows);
        fill(from, 1);
        launch(this->backend, kernel::ColumnsFromRows<T>{from.data(), by_rows, rows, columns,
                                                         to.data(), by_columns});
        for (std::ptrdiff_t b = 0; b < rows; ++b)
          for (std::ptrdiff_t c = 0; c < columns; ++c)
            ASSERT_EQ(to[c * by_columns + b], from[b * by_rows + c]);
        for (std::ptrdiff_t c = 0; c + 1 < columns; ++c)
          EXPECT_TRUE(to.untouched(c * by_columns + rows));
        launch(this->backend, kernel::RowsFromColumns<T>{to.data(), by_columns, rows, columns,
                                                         back.data(), by_rows, streaming});
        launch(this->backend, kernel::FinishStreaming{});
        for (std::ptrdiff_t b = 0; b < rows; ++b) {
          for (std::ptrdiff_t c = 0; c < columns; ++c)
            ASSERT_EQ(back[b * by_rows + c], from[b * by_rows + c]);
          if (b + 1 < rows && gap > 0) {
            EXPECT_TRUE(back.untouched(b * by_rows + columns));
          }
        }
        EXPECT_TRUE(to.surroundings_untouched() && back.surroundings_untouched());
      }
}

TYPED_TEST(MixFieldsTest, MomentsOfColumnsAboutTheirFirstRow) {
  using T = typename TypeParam::scalar;
  constexpr std::ptrdiff_t columns = 3;
  for (const std::ptrdiff_t rows : {0, 1, 7, 8, 30}) {
    GuardedArray<T> x(rows * columns);
    fill(x, 1);
    double sums[columns] = {1, 2, 3}, squares[columns] = {4, 5, 6};
    launch(this->backend,
           kernel::ColumnMoments<T>{x.data(), columns, 1, rows, columns, sums, squares});
    for (std::ptrdiff_t c = 0; c < columns; ++c) {
      double sum = 0, square = 0, size = 0;
      for (std::ptrdiff_t b = 0; b < rows; ++b) {
        const double delta = static_cast<double>(x[b * columns + c]) - static_cast<double>(x[c]);
        sum += delta;
        size += std::abs(delta);
        square += delta * delta;
      }
      const double bound = Tolerance<double>::gamma(40);
      EXPECT_TRUE(within(sums[c], static_cast<double>(1 + c) + sum, bound * (size + 3)));
      EXPECT_TRUE(within(squares[c], static_cast<double>(4 + c) + square, bound * (square + 6)));
    }
  }
}

}  // namespace
}  // namespace kernel_mix_fields_test
