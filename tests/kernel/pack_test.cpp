// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/pack.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_pack_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::same_bits;
namespace kernel = pare::kernel;

template <class Case>
struct PackTest : testing::Test {};
TYPED_TEST_SUITE(PackTest, pare::testing::ArchsAndStorages);

/// Rows that each have guard pages of their own. They are named in any order, some of them twice,
/// none next to its neighbour in memory. Nothing follows the names either.
template <class S>
class GatheredRows {
 public:
  GatheredRows(std::ptrdiff_t count, std::ptrdiff_t length, Guard guard) : rows_(count) {
    for (std::ptrdiff_t r = 0; r < distinct; ++r) {
      owned_.push_back(std::make_unique<GuardedArray<S>>(length, guard));
      for (std::ptrdiff_t c = 0; c < length; ++c) (*owned_.back())[c] = value_at(r, c);
    }
    for (std::ptrdiff_t i = 0; i < count; ++i)
      rows_[i] = owned_[static_cast<std::size_t>((i * 7 + 3) % distinct)]->data();
  }

  const S* const* data() const { return rows_.data(); }
  S at(std::ptrdiff_t row, std::ptrdiff_t c) const { return rows_[row][c]; }

 private:
  static constexpr std::ptrdiff_t distinct = 11;

  /// Differs for every place; of 16 bits every pattern used is a normal number.
  static S value_at(std::ptrdiff_t r, std::ptrdiff_t c) {
    const std::ptrdiff_t id = r * 640 + c + 1;
    if constexpr (sizeof(S) == 2)
      return S::from_bits(static_cast<std::uint16_t>(0x1000 + id));
    else
      return static_cast<S>(id);
  }

  std::vector<std::unique_ptr<GuardedArray<S>>> owned_;
  GuardedArray<const S*> rows_;
};

/// The element made of `low` and, where elements are pairs, `high`.
template <class E, class S>
E element_of(S low, [[maybe_unused]] S high) {
  if constexpr (std::is_same_v<E, kernel::Bf16Pair>)
    return E{std::uint32_t{low.bits} | std::uint32_t{high.bits} << 16};
  else
    return static_cast<E>(low);
}

/// Counts around the widths of registers and panels of every arch.
const std::vector<std::ptrdiff_t>& counts() {
  static const std::vector<std::ptrdiff_t> all{0,  1,  2,  3,  4,  5,  7,  8,  9,  15,  16, 17,
                                               31, 32, 33, 47, 48, 63, 64, 65, 97, 127, 128};
  return all;
}

std::string size_name(std::ptrdiff_t count, std::ptrdiff_t length) {
  return std::to_string(count) + " rows of " + std::to_string(length);
}

template <class Arch, class S>
void expect_packs_left(std::ptrdiff_t count, std::ptrdiff_t depth, Guard guard) {
  using E = kernel::element_t<S, Arch>;
  const GatheredRows<S> rows(count, depth, guard);
  GuardedArray<pare::compute_t<S>> packed(count * depth, guard);
  launch(pare::simd_for<Arch>{}, kernel::PackLeft<S>{rows.data(), count, depth, packed.data()});
  const E* elements = reinterpret_cast<const E*>(packed.data());
  const std::ptrdiff_t steps = kernel::steps_of<E>(depth), each = kernel::product<E>::depth;
  for (std::ptrdiff_t i = 0; i < count; ++i)
    for (std::ptrdiff_t s = 0; s < steps; ++s) {
      const S high = s * each + 1 < depth ? rows.at(i, s * each + 1) : S{};
      ASSERT_TRUE(same_bits(elements[i * steps + s], element_of<E>(rows.at(i, s * each), high)))
          << size_name(count, depth) << " at " << i << ' ' << s;
    }
  ASSERT_TRUE(packed.surroundings_untouched()) << size_name(count, depth);
}

TYPED_TEST(PackTest, LeftOperandLiesElementAfterElement) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t count : {0, 1, 2, 6, 7, 20})
      for (const std::ptrdiff_t depth : counts())
        expect_packs_left<typename TypeParam::arch, typename TypeParam::scalar>(count, depth,
                                                                                guard);
}

template <class Arch, class S>
void expect_packs_transposed(std::ptrdiff_t count, std::ptrdiff_t depth, Guard guard) {
  using T = pare::compute_t<S>;
  using E = kernel::element_t<S, Arch>;
  constexpr std::ptrdiff_t width = kernel::tile_columns<T, Arch>, each = kernel::product<E>::depth;
  const std::ptrdiff_t padded = (count + width - 1) / width * width;
  const std::ptrdiff_t steps = kernel::steps_of<E>(depth);
  const GatheredRows<S> rows(count, depth, guard);
  GuardedArray<T> panels(depth * padded, guard);
  launch(pare::simd_for<Arch>{},
         kernel::PackTransposed<S>{
             .rows = rows.data(), .count = count, .depth = depth, .panels = panels.data()});
  const E* elements = reinterpret_cast<const E*>(panels.data());
  for (std::ptrdiff_t row = 0; row < padded; ++row)
    for (std::ptrdiff_t s = 0; s < steps; ++s) {
      const std::ptrdiff_t d = s * each;
      const S low = row < count ? rows.at(row, d) : S{};
      const S high = row < count && d + 1 < depth ? rows.at(row, d + 1) : S{};
      const std::ptrdiff_t panel = row / width, j = row % width;
      ASSERT_TRUE(
          same_bits(elements[panel * steps * width + s * width + j], element_of<E>(low, high)))
          << size_name(count, depth) << " at row " << row << " step " << s;
    }
  ASSERT_TRUE(panels.surroundings_untouched()) << size_name(count, depth);
}

TYPED_TEST(PackTest, TransposedOperandLiesInPanelsFilledUpWithZeros) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t count : counts())
      for (const std::ptrdiff_t depth : {1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 64, 65, 128})
        expect_packs_transposed<typename TypeParam::arch, typename TypeParam::scalar>(count, depth,
                                                                                      guard);
}

/// The widths of panels by their definition: as few as may be, the registers dealt out in turn.
std::vector<std::ptrdiff_t> dealt_widths(std::ptrdiff_t registers, std::ptrdiff_t most) {
  std::size_t panels = 0;
  while (static_cast<std::ptrdiff_t>(panels) * most < registers) ++panels;
  std::vector<std::ptrdiff_t> widths(panels, 0);
  for (std::ptrdiff_t i = 0; i < registers; ++i) ++widths[static_cast<std::size_t>(i) % panels];
  return widths;
}

template <class Arch, class S>
void expect_packs_rows(std::ptrdiff_t count, std::ptrdiff_t columns, Guard guard) {
  using T = pare::compute_t<S>;
  using E = kernel::element_t<S, Arch>;
  constexpr std::ptrdiff_t n = kernel::lanes<T, Arch>, each = kernel::product<E>::depth;
  const std::ptrdiff_t steps = kernel::steps_of<E>(count);
  const GatheredRows<S> rows(count, columns, guard);
  GuardedArray<T> panels((count + 1) * kernel::padded_columns<T>(columns), guard);
  launch(pare::simd_for<Arch>{},
         kernel::PackRows<S>{
             .rows = rows.data(), .count = count, .columns = columns, .panels = panels.data()});
  const E* panel = reinterpret_cast<const E*>(panels.data());
  std::ptrdiff_t first = 0;
  for (const std::ptrdiff_t registers :
       dealt_widths((columns + n - 1) / n, kernel::tile_registers<Arch>)) {
    const std::ptrdiff_t width = registers * n;
    for (std::ptrdiff_t s = 0; s < steps; ++s)
      for (std::ptrdiff_t j = 0; j < width; ++j) {
        const std::ptrdiff_t c = first + j, row = s * each;
        const S low = c < columns ? rows.at(row, c) : S{};
        const S high = c < columns && row + 1 < count ? rows.at(row + 1, c) : S{};
        ASSERT_TRUE(same_bits(panel[s * width + j], element_of<E>(low, high)))
            << size_name(count, columns) << " at step " << s << " column " << c;
      }
    panel += steps * width;
    first += width;
  }
  ASSERT_TRUE(panels.surroundings_untouched()) << size_name(count, columns);
}

TYPED_TEST(PackTest, RowsLieInPanelsFilledUpWithZeros) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t count : {0, 1, 2, 3, 8, 9, 10, 31, 127, 128})
      for (const std::ptrdiff_t columns :
           {1, 3, 8, 15, 16, 17, 31, 33, 47, 48, 64, 65, 79, 80, 96, 128, 129, 144, 256, 257})
        expect_packs_rows<typename TypeParam::arch, typename TypeParam::scalar>(count, columns,
                                                                                guard);
}

TEST(PanelSplitTest, PanelsAreFewAndEven) {
  for (const int most : {1, 2, 3, 4})
    for (int registers = 0; registers <= 70; ++registers) {
      const kernel::PanelSplit split{registers, most};
      const std::vector<std::ptrdiff_t> wanted = dealt_widths(registers, most);
      ASSERT_EQ(split.panels(), static_cast<int>(wanted.size())) << registers << " by " << most;
      for (int p = 0; p < split.panels(); ++p) {
        ASSERT_EQ(split.width(p), wanted[static_cast<std::size_t>(p)])
            << "panel " << p << " of " << registers << " by " << most;
        ASSERT_TRUE(split.width(p) > 1 || most <= 2 || registers == 1) << registers;
      }
    }
}

TEST(PaddedColumnsTest, RoundsUpToTheWidestRegister) {
  for (std::ptrdiff_t columns = 0; columns <= 130; ++columns) {
    std::ptrdiff_t floats = 0, doubles = 0;
    while (floats < columns) floats += 16;
    while (doubles < columns) doubles += 8;
    ASSERT_EQ(kernel::padded_columns<float>(columns), floats);
    ASSERT_EQ(kernel::padded_columns<double>(columns), doubles);
  }
}

}  // namespace
}  // namespace kernel_pack_test
