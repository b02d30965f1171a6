// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>

#include <pare/core/backend.hpp>
#include <pare/kernel/product_tile.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_product_tile_test {
namespace {

using pare::bf16;
using pare::f16;
using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::same_bits;
namespace arch = pare::arch;
namespace kernel = pare::kernel;

template <class Arch, class S, class T, bool Pairs = false>
struct Case {
  using arch = Arch;
  using storage = S;
  using scalar = T;
  static constexpr bool pairs = Pairs;
  static constexpr bool native = Pairs && Arch::has_bf16_dot;
  /// Scalars that an element of packed factors holds.
  static constexpr std::ptrdiff_t depth = native ? 2 : 1;
  using element = std::conditional_t<native, kernel::Bf16Pair, T>;
};

template <class C>
struct PackLinesTest : testing::Test {};
using PackCases =
    testing::Types<Case<arch::scalar, float, float>, Case<arch::scalar, double, double>,
                   Case<arch::scalar, float, double>, Case<arch::scalar, bf16, float>,
                   Case<arch::scalar, f16, double>, Case<arch::scalar, bf16, float, true>,
                   Case<arch::best, float, float>, Case<arch::best, double, double>,
                   Case<arch::best, float, double>, Case<arch::best, bf16, float>,
                   Case<arch::best, bf16, double>, Case<arch::best, f16, float>,
                   Case<arch::best, f16, double>, Case<arch::best, bf16, float, true>>;
TYPED_TEST_SUITE(PackLinesTest, PackCases);

template <class C>
struct MultiplyPanelsTest : testing::Test {};
using MultiplyCases =
    testing::Types<Case<arch::scalar, float, float>, Case<arch::scalar, double, double>,
                   Case<arch::scalar, bf16, float, true>, Case<arch::best, float, float>,
                   Case<arch::best, double, double>, Case<arch::best, bf16, float, true>>;
TYPED_TEST_SUITE(MultiplyPanelsTest, MultiplyCases);

/// How lines lie in memory: one after the other, side by side, or neither.
enum class Order { along, across, apart };

/// Small integers, of which every storage scalar holds each, and scales that keep them exact.
int value_at(std::ptrdiff_t line, std::ptrdiff_t depth) {
  return static_cast<int>((line * 37 + depth * 11) % 127) - 63;
}
double scale_at(std::ptrdiff_t i) { return i % 3 == 0 ? -2 : (i % 3 == 1 ? 0.5 : 4); }

template <class S>
S stored(int x) {
  if constexpr (pare::ComputeScalar<S>)
    return static_cast<S>(x);
  else
    return S(static_cast<float>(x));
}

/// Lines with guard pages around exactly what they span, and scales with guards of their own.
template <class S, class T>
class GuardedLines {
 public:
  GuardedLines(std::ptrdiff_t count, std::ptrdiff_t depth, Order order, bool scaled, Guard guard)
      : line_stride_(order == Order::along ? depth + 3 : (order == Order::across ? 1 : 2)),
        depth_stride_(order == Order::along ? 1 : (order == Order::across ? 1 : 2) * (count + 5)),
        count_(count),
        depth_(depth),
        scaled_(scaled),
        data_(span(), guard),
        scale_(count, guard),
        depth_scale_(depth, guard) {
    for (std::ptrdiff_t i = 0; i < count; ++i)
      for (std::ptrdiff_t d = 0; d < depth; ++d)
        data_[i * line_stride_ + d * depth_stride_] = stored<S>(value_at(i, d));
    for (std::ptrdiff_t i = 0; i < count; ++i) scale_[i] = static_cast<T>(scale_at(i));
    for (std::ptrdiff_t d = 0; d < depth; ++d) depth_scale_[d] = static_cast<T>(scale_at(d + 1));
  }

  kernel::Lines<S, T> lines() const {
    return {data_.data(),
            line_stride_,
            depth_stride_,
            count_,
            depth_,
            scaled_ ? scale_.data() : nullptr,
            scaled_ ? depth_scale_.data() : nullptr};
  }

  /// What element `step` of a line is packed as; zero outside.
  template <class C>
  typename C::element wanted(std::ptrdiff_t line, std::ptrdiff_t step) const {
    if constexpr (C::native)
      return {bits(line, 2 * step) | bits(line, 2 * step + 1) << 16};
    else if (line >= count_ || step >= depth_)
      return 0;
    else
      return static_cast<T>(value_at(line, step) *
                            (scaled_ ? scale_at(line) * scale_at(step + 1) : 1.0));
  }

 private:
  std::ptrdiff_t span() const {
    if (count_ == 0 || depth_ == 0) return 0;
    return (count_ - 1) * line_stride_ + (depth_ - 1) * depth_stride_ + 1;
  }
  std::uint32_t bits(std::ptrdiff_t line, std::ptrdiff_t d) const {
    if (line >= count_ || d >= depth_) return 0;
    return bf16(static_cast<float>(value_at(line, d))).bits;
  }

  std::ptrdiff_t line_stride_, depth_stride_, count_, depth_;
  bool scaled_;
  GuardedArray<S> data_;
  GuardedArray<T> scale_, depth_scale_;
};

std::string size_name(std::ptrdiff_t count, std::ptrdiff_t depth, Order order) {
  return std::to_string(count) + " lines of " + std::to_string(depth) + ", order " +
         std::to_string(static_cast<int>(order));
}

/// f(count, depth, order, scaled, guard) around the widths of registers and panels of every arch.
template <class F>
void for_each_case(bool pairs, const F& f) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const Order order : {Order::along, Order::across, Order::apart})
      for (const bool scaled : {false, true})
        for (const std::ptrdiff_t count : {0, 1, 2, 4, 7, 8, 9, 15, 16, 17, 33, 64, 65, 97})
          for (const std::ptrdiff_t depth : {0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 32, 33})
            if (!scaled || !pairs) f(count, depth, order, scaled, guard);
}

template <class C>
void expect_packs_left(std::ptrdiff_t count, std::ptrdiff_t depth, Order order, bool scaled,
                       Guard guard) {
  using S = typename C::storage;
  using T = typename C::scalar;
  using E = typename C::element;
  const GuardedLines<S, T> x(count, depth, order, scaled, guard);
  GuardedArray<T> packed(count * depth, guard);
  launch(pare::simd_for<typename C::arch>{},
         kernel::PackLeftLines<S, T, C::pairs>{x.lines(), packed.data()});
  const E* elements = reinterpret_cast<const E*>(packed.data());
  const std::ptrdiff_t steps = (depth + C::depth - 1) / C::depth;
  for (std::ptrdiff_t i = 0; i < count; ++i)
    for (std::ptrdiff_t s = 0; s < steps; ++s)
      ASSERT_TRUE(same_bits(elements[i * steps + s], x.template wanted<C>(i, s)))
          << size_name(count, depth, order) << " at " << i << ' ' << s;
  for (std::ptrdiff_t i = count * steps; i < packed.size(); ++i)
    ASSERT_TRUE(packed.untouched(i)) << size_name(count, depth, order);
  ASSERT_TRUE(packed.surroundings_untouched()) << size_name(count, depth, order);
}

TYPED_TEST(PackLinesTest, LeftLinesLieElementAfterElement) {
  for_each_case(TypeParam::pairs, expect_packs_left<TypeParam>);
}

template <class C>
void expect_packs_right(std::ptrdiff_t count, std::ptrdiff_t depth, Order order, bool scaled,
                        Guard guard) {
  using S = typename C::storage;
  using T = typename C::scalar;
  using E = typename C::element;
  constexpr std::ptrdiff_t n = kernel::lanes<T, typename C::arch>;
  constexpr std::ptrdiff_t full = kernel::tile_columns<T, typename C::arch>;
  const GuardedLines<S, T> x(count, depth, order, scaled, guard);
  const std::ptrdiff_t padded = (count + n - 1) / n * n;
  const std::ptrdiff_t steps = (depth + C::depth - 1) / C::depth;
  GuardedArray<T> panels(depth * padded, guard);
  launch(pare::simd_for<typename C::arch>{},
         kernel::PackRightLines<S, T, C::pairs>{x.lines(), panels.data()});
  const E* elements = reinterpret_cast<const E*>(panels.data());
  for (std::ptrdiff_t line = 0; line < padded; ++line)
    for (std::ptrdiff_t s = 0; s < steps; ++s) {
      const std::ptrdiff_t first = line / full * full, width = std::min(full, padded - first);
      ASSERT_TRUE(same_bits(elements[first * steps + s * width + line - first],
                            x.template wanted<C>(line, s)))
          << size_name(count, depth, order) << " at " << line << ' ' << s;
    }
  for (std::ptrdiff_t i = padded * steps; i < panels.size(); ++i)
    ASSERT_TRUE(panels.untouched(i)) << size_name(count, depth, order);
  ASSERT_TRUE(panels.surroundings_untouched()) << size_name(count, depth, order);
}

TYPED_TEST(PackLinesTest, RightLinesLieInPanelsFilledUpToWholeRegisters) {
  for_each_case(TypeParam::pairs, expect_packs_right<TypeParam>);
}

int left_at(std::ptrdiff_t row, std::ptrdiff_t depth) {
  return static_cast<int>((row * 5 + depth * 3) % 11) - 5;
}
int right_at(std::ptrdiff_t depth, std::ptrdiff_t column) {
  return static_cast<int>((depth * 7 + column * 2) % 13) - 6;
}
int start_at(std::ptrdiff_t row, std::ptrdiff_t column) {
  return static_cast<int>(row * 10 + column % 9) - 12;
}

/// The element of scalars low and, where there are two, high.
template <class C>
typename C::element element_of(int low, [[maybe_unused]] int high) {
  if constexpr (C::native)
    return {std::uint32_t{bf16(static_cast<float>(low)).bits} |
            std::uint32_t{bf16(static_cast<float>(high)).bits} << 16};
  else
    return static_cast<typename C::element>(low);
}

/// Factors packed as their documentation says, the left one with room between its rows where
/// nothing is added to, and C with room between its rows.
template <class C>
void expect_product(std::ptrdiff_t rows, std::ptrdiff_t columns, std::ptrdiff_t depth,
                    bool accumulate, Guard guard) {
  using T = typename C::scalar;
  using E = typename C::element;
  constexpr std::ptrdiff_t n = kernel::lanes<T, typename C::arch>;
  constexpr std::ptrdiff_t full = kernel::tile_columns<T, typename C::arch>;
  const std::ptrdiff_t steps = (depth + C::depth - 1) / C::depth, stride = columns + 3;
  const std::ptrdiff_t padded = (columns + n - 1) / n * n;
  const std::ptrdiff_t left_stride = steps + (accumulate ? 0 : 2);
  GuardedArray<T> left((rows - 1) * left_stride + steps, guard), panels(steps * padded, guard);
  GuardedArray<T> c((rows - 1) * stride + columns, guard);
  const auto at = [depth](int x, std::ptrdiff_t d) { return d < depth ? x : 0; };
  for (std::ptrdiff_t i = 0; i < rows; ++i)
    for (std::ptrdiff_t s = 0; s < steps; ++s) {
      const std::ptrdiff_t d = s * C::depth;
      reinterpret_cast<E*>(left.data())[i * left_stride + s] =
          element_of<C>(left_at(i, d), at(left_at(i, d + 1), d + 1));
    }
  for (std::ptrdiff_t j = 0; j < padded; ++j)
    for (std::ptrdiff_t s = 0; s < steps; ++s) {
      const std::ptrdiff_t first = j / full * full, width = std::min(full, padded - first);
      const std::ptrdiff_t d = s * C::depth;
      reinterpret_cast<E*>(panels.data())[first * steps + s * width + j - first] =
          element_of<C>(right_at(d, j), at(right_at(d + 1, j), d + 1));
    }
  if (accumulate)
    for (std::ptrdiff_t i = 0; i < rows; ++i)
      for (std::ptrdiff_t j = 0; j < columns; ++j)
        c[i * stride + j] = static_cast<T>(start_at(i, j));

  launch(pare::simd_for<typename C::arch>{},
         kernel::MultiplyPanels<T, C::pairs>{left.data(), panels.data(), rows, columns, depth,
                                             c.data(), stride, accumulate, 0,
                                             accumulate ? 0 : left_stride});
  for (std::ptrdiff_t i = 0; i < rows; ++i)
    for (std::ptrdiff_t j = 0; j < stride && i * stride + j < c.size(); ++j) {
      if (j >= columns) {
        ASSERT_TRUE(c.untouched(i * stride + j)) << "row " << i << " place " << j;
        continue;
      }
      int wanted = accumulate ? start_at(i, j) : 0;
      for (std::ptrdiff_t d = 0; d < depth; ++d) wanted += left_at(i, d) * right_at(d, j);
      ASSERT_EQ(c[i * stride + j], static_cast<T>(wanted))
          << rows << " x " << columns << " x " << depth << " at " << i << ' ' << j;
    }
  ASSERT_TRUE(c.surroundings_untouched()) << rows << " x " << columns << " x " << depth;
}

TYPED_TEST(MultiplyPanelsTest, IsTheProductInEverySize) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const bool accumulate : {false, true})
      for (const std::ptrdiff_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 20})
        for (const std::ptrdiff_t columns :
             {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 49, 63, 64, 65, 130})
          for (const std::ptrdiff_t depth : {0, 1, 2, 3, 17, 33})
            expect_product<TypeParam>(rows, columns, depth, accumulate, guard);
}

TYPED_TEST(MultiplyPanelsTest, NothingToMultiplyWritesNothing) {
  using T = typename TypeParam::scalar;
  GuardedArray<T> c(4);
  for (const bool rows : {false, true})
    launch(pare::simd_for<typename TypeParam::arch>{},
           kernel::MultiplyPanels<T, TypeParam::pairs>{
               .rows = rows ? 2 : 0, .columns = rows ? 0 : 2, .c = c.data(), .c_stride = 2});
  for (std::ptrdiff_t i = 0; i < c.size(); ++i) EXPECT_TRUE(c.untouched(i));
}

// The first steps of panels that were packed deeper, with rows fetched ahead.
TYPED_TEST(MultiplyPanelsTest, PartOfDeeperPanels) {
  using T = typename TypeParam::scalar;
  if constexpr (!TypeParam::pairs) {
    constexpr std::ptrdiff_t rows = 13, columns = 75, depth = 7;
    const pare::simd_for<typename TypeParam::arch> backend{};
    GuardedArray<T> left(rows * depth), right(depth * columns), panels(depth * 128);
    for (std::ptrdiff_t i = 0; i < left.size(); ++i) left[i] = static_cast<T>(i % 11 - 5);
    for (std::ptrdiff_t i = 0; i < right.size(); ++i) right[i] = static_cast<T>(i % 13 - 6);
    launch(backend,
           kernel::PackRightLines<T, T, false>{
               {right.data(), 1, columns, columns, depth, nullptr, nullptr}, panels.data()});
    for (const std::ptrdiff_t used : {1, 3, 7}) {
      GuardedArray<T> c(rows * columns);
      launch(backend, kernel::MultiplyPanels<T, false>{left.data(),
                                                       panels.data(),
                                                       rows,
                                                       columns,
                                                       used,
                                                       c.data(),
                                                       columns,
                                                       false,
                                                       0,
                                                       depth,
                                                       {left.data(), rows, 1000, 1 << 20},
                                                       depth});
      for (std::ptrdiff_t i = 0; i < rows; ++i)
        for (std::ptrdiff_t j = 0; j < columns; ++j) {
          T wanted = 0;
          for (std::ptrdiff_t p = 0; p < used; ++p)
            wanted += left[i * depth + p] * right[p * columns + j];
          ASSERT_EQ(c[i * columns + j], wanted) << i << ' ' << j << " of depth " << used;
        }
      ASSERT_TRUE(c.surroundings_untouched());
    }
  }
}

}  // namespace
}  // namespace kernel_product_tile_test
