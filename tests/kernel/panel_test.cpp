// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/panel.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_panel_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::same_bits;
namespace kernel = pare::kernel;

template <class Case>
struct PanelTest : testing::Test {};
TYPED_TEST_SUITE(PanelTest, pare::testing::ArchsAndScalars);

/// How a matrix lies in memory; `place` counts elements.
struct Layout {
  std::ptrdiff_t rows, columns, row_stride, column_stride;

  std::ptrdiff_t place(std::ptrdiff_t r, std::ptrdiff_t c) const {
    return r * row_stride + c * column_stride;
  }
  std::ptrdiff_t size() const {
    return rows == 0 || columns == 0 ? 0 : place(rows - 1, columns - 1) + 1;
  }
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(columns) + " strides " +
           std::to_string(row_stride) + ", " + std::to_string(column_stride);
  }
};

/// Every way a matrix is stored, for row counts up to a full panel and column counts with tails.
template <class T>
std::vector<Layout> layouts() {
  constexpr std::ptrdiff_t full = kernel::panel_rows<T>;
  std::vector<Layout> all;
  for (const std::ptrdiff_t rows : {std::ptrdiff_t{1}, std::ptrdiff_t{2}, std::ptrdiff_t{3},
                                    full / 2, full / 2 + 1, full - 1, full})
    for (const std::ptrdiff_t columns : {0, 1, 2, 3, 7, 8, 15, 16, 17, 33, 50}) {
      all.push_back({rows, columns, columns + 0, 1});          // row-major
      all.push_back({rows, columns, columns + 5, 1});          // row-major, outer stride
      all.push_back({rows, columns, 1, rows});                 // column-major
      all.push_back({rows, columns, 1, rows + 3});             // column-major, outer stride
      all.push_back({rows, columns, 2, 2 * rows + 1});         // both strided
      all.push_back({rows, columns, 3 * columns + 2, 3});      // both strided, rows outside
      if (columns == 1) all.push_back({rows, columns, 1, 1});  // a contiguous vector
    }
  return all;
}

template <class T>
T value_at(std::ptrdiff_t r, std::ptrdiff_t c) {
  return static_cast<T>(r * 1000 + c + 1);
}

template <class Arch, class Source, class T>
void expect_packs(const Layout& x, Guard guard) {
  constexpr std::ptrdiff_t full = kernel::panel_rows<T>;
  GuardedArray<Source> source(x.size(), guard);
  GuardedArray<T> panel(x.columns * full, guard);
  for (std::ptrdiff_t r = 0; r < x.rows; ++r)
    for (std::ptrdiff_t c = 0; c < x.columns; ++c)
      source[x.place(r, c)] = Source(value_at<T>(r, c));
  launch(pare::simd_for<Arch>{},
         kernel::PackPanel<Source, T>{source.data(), x.row_stride, x.column_stride, x.rows,
                                      x.columns, panel.data()});
  for (std::ptrdiff_t c = 0; c < x.columns; ++c)
    for (std::ptrdiff_t r = 0; r < full; ++r) {
      const T wanted = r < x.rows ? static_cast<T>(source[x.place(r, c)]) : T(0);
      ASSERT_TRUE(same_bits(panel[c * full + r], wanted)) << x.name() << " at " << r << ' ' << c;
    }
  ASSERT_TRUE(panel.surroundings_untouched()) << x.name();
}

TYPED_TEST(PanelTest, PacksEveryLayout) {
  using T = typename TypeParam::scalar;
  for (const Guard guard : {Guard::before, Guard::after})
    for (const Layout& x : layouts<T>()) expect_packs<typename TypeParam::arch, T, T>(x, guard);
}

TYPED_TEST(PanelTest, PacksEveryLayoutOf16BitStorage) {
  if constexpr (std::is_same_v<typename TypeParam::scalar, float>) {
    for (const Layout& x : layouts<float>()) {
      expect_packs<typename TypeParam::arch, pare::bf16, float>(x, Guard::after);
      expect_packs<typename TypeParam::arch, pare::f16, float>(x, Guard::after);
    }
  } else {
    static_assert(std::is_same_v<pare::compute_t<pare::bf16>, float>, "nothing packs to double");
  }
}

template <class Arch, class T>
void expect_unpacks(const Layout& y, T scale, bool add, Guard guard) {
  constexpr std::ptrdiff_t full = kernel::panel_rows<T>;
  GuardedArray<T> panel(y.columns * full, guard), out(y.size(), guard);
  std::vector<bool> inside(static_cast<std::size_t>(y.size()), false);
  for (std::ptrdiff_t i = 0; i < panel.size(); ++i) panel[i] = T(-12345);
  for (std::ptrdiff_t r = 0; r < y.rows; ++r)
    for (std::ptrdiff_t c = 0; c < y.columns; ++c) {
      panel[c * full + r] = value_at<T>(r, c);
      inside[static_cast<std::size_t>(y.place(r, c))] = true;
      if (add) out[y.place(r, c)] = static_cast<T>(7 * r - c);
    }
  launch(pare::simd_for<Arch>{}, kernel::UnpackPanel<T>{panel.data(), y.rows, y.columns, out.data(),
                                                        y.row_stride, y.column_stride, scale, add});
  for (std::ptrdiff_t r = 0; r < y.rows; ++r)
    for (std::ptrdiff_t c = 0; c < y.columns; ++c) {
      const T old = add ? static_cast<T>(7 * r - c) : T(0);
      ASSERT_EQ(out[y.place(r, c)], scale * (old + value_at<T>(r, c)))
          << y.name() << " at " << r << ' ' << c;
    }
  for (std::ptrdiff_t i = 0; i < y.size(); ++i)
    ASSERT_TRUE(inside[static_cast<std::size_t>(i)] || out.untouched(i))
        << y.name() << " wrote element " << i;
  ASSERT_TRUE(out.surroundings_untouched()) << y.name();
}

TYPED_TEST(PanelTest, UnpacksEveryLayoutAndNothingElse) {
  using T = typename TypeParam::scalar;
  for (const Guard guard : {Guard::before, Guard::after})
    for (const Layout& y : layouts<T>()) {
      expect_unpacks<typename TypeParam::arch, T>(y, T(1), false, guard);
      expect_unpacks<typename TypeParam::arch, T>(y, T(0.5), true, guard);
      expect_unpacks<typename TypeParam::arch, T>(y, T(-4), false, guard);
      expect_unpacks<typename TypeParam::arch, T>(y, T(1), true, guard);
    }
}

TYPED_TEST(PanelTest, UnpackWithoutAddDoesNotReadTheOutput) {
  using T = typename TypeParam::scalar;
  constexpr std::ptrdiff_t full = kernel::panel_rows<T>;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  std::vector<T> panel(static_cast<std::size_t>(9 * full), T(2)), out(panel.size(), nan);
  launch(pare::simd_for<typename TypeParam::arch>{},
         kernel::UnpackPanel<T>{panel.data(), full, 9, out.data(), 9, 1, T(3), false});
  for (const T value : out) ASSERT_EQ(value, T(6));
}

TYPED_TEST(PanelTest, StreamingUnpackWritesTheSameAndNothingElse) {
  using T = typename TypeParam::scalar;
  constexpr std::ptrdiff_t full = kernel::panel_rows<T>, columns = 37;
  constexpr std::ptrdiff_t stride = 3 * 64 / static_cast<std::ptrdiff_t>(sizeof(T)) + full;
  for (const bool add : {false, true})
    for (const std::ptrdiff_t rows : {full, full - 3}) {
      GuardedArray<T> panel(columns * full), out(full * stride, Guard::before);
      for (std::ptrdiff_t i = 0; i < panel.size(); ++i) panel[i] = static_cast<T>(i % 997);
      const auto old = [=](std::ptrdiff_t at) { return static_cast<T>(add ? at % 89 : 0); };
      for (std::ptrdiff_t r = 0; add && r < rows; ++r)
        for (std::ptrdiff_t c = 0; c < columns; ++c) out[r * stride + c] = old(r * stride + c);
      launch(pare::simd_for<typename TypeParam::arch>{},
             kernel::UnpackPanel<T>{.panel = panel.data(),
                                    .rows = rows,
                                    .columns = columns,
                                    .out = out.data(),
                                    .row_stride = stride,
                                    .column_stride = 1,
                                    .scale = T(2),
                                    .add = add,
                                    .stream = true});
      for (std::ptrdiff_t r = 0; r < full; ++r)
        for (std::ptrdiff_t c = 0; c < stride; ++c) {
          const std::ptrdiff_t at = r * stride + c;
          if (r < rows && c < columns)
            ASSERT_EQ(out[at], T(2) * (old(at) + panel[c * full + r])) << r << ' ' << c;
          else
            ASSERT_TRUE(out.untouched(at)) << r << ' ' << c;
        }
      ASSERT_TRUE(out.surroundings_untouched());
    }
}

}  // namespace
}  // namespace kernel_panel_test
