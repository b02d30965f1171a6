// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <unsupported/Eigen/CXX11/Tensor>
#include <vector>

#include <pare/attention/block_mask.hpp>

namespace attention_block_mask_test {
namespace {

using pare::Index;
using pare::attention::BlockMask;
using Shape = BlockMask::Shape;
using Columns = std::vector<std::int32_t>;
using Lists = std::vector<Columns>;
using DenseBool = Eigen::Tensor<bool, 4, Eigen::RowMajor>;

constexpr Index huge = std::numeric_limits<Index>::max();

/// 2 x 3 heads, 3 row blocks of 4 queries (the last of 2), 5 column blocks of 2 keys (the last 1).
constexpr Shape ragged{2, 3, 10, 9, 4, 2};

/// An arbitrary pattern that leaves some rows empty and fills others.
bool pattern(Index batch, Index head, Index row, Index column) {
  if (row == 1 && head == 2) return false;
  if (row == 2 && head == 0) return true;
  return (batch * 31 + head * 17 + row * 7 + column * 5) % 3 == 0;
}

Columns list_of(std::span<const std::int32_t> row) { return {row.begin(), row.end()}; }

template <class F>
std::string message_of(F f) {
  try {
    f();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST(BlockMask, SameMaskFromPredicateDenseListsAndRows) {
  const BlockMask asked = BlockMask::from_predicate(ragged, pattern);
  DenseBool dense(2, 3, 3, 5);
  Eigen::Tensor<std::uint8_t, 4, Eigen::RowMajor> bytes(2, 3, 3, 5);
  Lists lists;
  std::vector<Index> offsets{0};
  Columns columns;
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 3; ++h)
      for (Index m = 0; m < 3; ++m) {
        lists.emplace_back();
        for (Index n = 0; n < 5; ++n) {
          const bool keep = pattern(b, h, m, n);
          dense(b, h, m, n) = keep;
          bytes(b, h, m, n) = keep ? std::uint8_t{7} : std::uint8_t{0};
          if (keep) lists.back().push_back(static_cast<std::int32_t>(n));
        }
        columns.insert(columns.end(), lists.back().begin(), lists.back().end());
        offsets.push_back(static_cast<Index>(columns.size()));
        ASSERT_EQ(list_of(asked.row(b, h, m)), lists.back());
      }
  EXPECT_EQ(asked.selected(), static_cast<Index>(columns.size()));
  EXPECT_EQ(asked, BlockMask::from_lists(ragged, lists));
  EXPECT_EQ(asked, BlockMask::from_csr(ragged, offsets, columns));
  EXPECT_EQ(asked, BlockMask::from_dense(ragged, dense));
  EXPECT_EQ(asked, BlockMask::from_dense(ragged, bytes));
  EXPECT_EQ(asked, BlockMask::from_dense(ragged, pare::to_view(dense)));
  EXPECT_TRUE(
      std::equal(asked.offsets().begin(), asked.offsets().end(), offsets.begin(), offsets.end()));
  EXPECT_EQ(list_of(asked.columns()), columns);
}

TEST(BlockMask, ReadsADenseViewThroughItsStrides) {
  DenseBool dense(2, 3, 3, 10);
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 3; ++h)
      for (Index m = 0; m < 3; ++m)
        for (Index n = 0; n < 10; ++n)
          dense(b, h, m, n) = n % 2 == 0 ? pattern(b, h, m, n / 2) : true;
  auto every_second = pare::to_view(dense);
  every_second.extent[3] = 5;
  every_second.stride[3] = 2;
  EXPECT_EQ(BlockMask::from_dense(ragged, every_second),
            BlockMask::from_predicate(ragged, pattern));
}

TEST(BlockMask, CountsBlocksUpwards) {
  const BlockMask mask = BlockMask::causal(ragged);
  EXPECT_EQ(mask.shape(), ragged);
  EXPECT_EQ(mask.row_blocks(), 3);
  EXPECT_EQ(mask.column_blocks(), 5);
  EXPECT_EQ((Shape{.queries = 8, .row_block = 4}.row_blocks()), 2);
  EXPECT_EQ((Shape{.queries = 1, .row_block = huge}.row_blocks()), 1);
  EXPECT_EQ((Shape{.keys = huge, .column_block = huge}.column_blocks()), 1);
  EXPECT_EQ((Shape{.keys = huge, .column_block = huge - 1}.column_blocks()), 2);
}

TEST(BlockMask, OneBatchEntryOrHeadServesAll) {
  Shape shape{1, 3, 10, 9, 4, 2};
  const BlockMask one_batch = BlockMask::from_predicate(shape, pattern);
  for (Index b = 0; b < 4; ++b)
    for (Index h = 0; h < 3; ++h)
      EXPECT_EQ(list_of(one_batch.row(b, h, 2)), list_of(one_batch.row(0, h, 2)));
  shape.batch = 2;
  shape.heads = 1;
  const BlockMask one_head = BlockMask::from_predicate(shape, pattern);
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 8; ++h)
      EXPECT_EQ(list_of(one_head.row(b, h, 1)), list_of(one_head.row(b, 0, 1)));
  EXPECT_NE(list_of(one_head.row(0, 5, 1)), list_of(one_head.row(1, 5, 1)));
}

TEST(BlockMask, CausalHoldsABlockIfSomeQuerySeesSomeKey) {
  for (const Index queries : {0, 1, 5, 8, 13})
    for (const Index keys : {0, 1, 4, 8, 13, 29})
      for (const Index row_block : {1, 3, 4, 64})
        for (const Index column_block : {1, 2, 5, 64}) {
          const Shape shape{1, 1, queries, keys, row_block, column_block};
          const BlockMask mask = BlockMask::causal(shape);
          std::vector<bool> seen(static_cast<std::size_t>(mask.row_blocks() * mask.column_blocks()),
                                 false);
          for (Index i = 0; i < queries; ++i)
            for (Index j = 0; j < keys && j <= i + keys - queries; ++j)
              seen[static_cast<std::size_t>(i / row_block * mask.column_blocks() +
                                            j / column_block)] = true;
          Index selected = 0;
          for (Index m = 0; m < mask.row_blocks(); ++m) {
            Columns wanted;
            for (Index n = 0; n < mask.column_blocks(); ++n)
              if (seen[static_cast<std::size_t>(m * mask.column_blocks() + n)])
                wanted.push_back(static_cast<std::int32_t>(n));
            ASSERT_EQ(list_of(mask.row(0, 0, m)), wanted)
                << queries << ' ' << keys << ' ' << row_block << ' ' << column_block;
            selected += static_cast<Index>(wanted.size());
          }
          ASSERT_EQ(mask.selected(), selected);
          ASSERT_EQ(mask.density(true), 1.0);
        }
}

TEST(BlockMask, CausalDensityIsTheShareOfTheBlockTriangle) {
  const Shape shape{1, 2, 4 * 16, 4 * 16, 16, 16};
  // Head 0: the diagonal and the first column, 4 + 3 of 10. Head 1: everything.
  const BlockMask mask = BlockMask::from_predicate(
      shape, [](Index, Index h, Index m, Index n) { return h == 1 || m == n || n == 0; });
  EXPECT_EQ(mask.selected(), 7 + 16);
  EXPECT_DOUBLE_EQ(mask.density(true), (7 + 10) / 20.0);
  EXPECT_DOUBLE_EQ(mask.density(false), (7 + 16) / 32.0);
}

TEST(BlockMask, DensityWithoutBlocksIsOneAndOfAnEmptyMaskZero) {
  const auto none = [](Index, Index, Index, Index) { return false; };
  EXPECT_EQ(BlockMask().density(true), 1.0);
  EXPECT_EQ(BlockMask().density(false), 1.0);
  EXPECT_EQ(BlockMask::from_predicate({.queries = 5, .keys = 0}, none).density(false), 1.0);
  EXPECT_EQ(BlockMask::from_predicate(ragged, none).density(true), 0.0);
  EXPECT_EQ(BlockMask::from_predicate(ragged, none).density(false), 0.0);
}

TEST(BlockMask, EmptyShapes) {
  EXPECT_EQ(BlockMask(), BlockMask::from_csr({}, {0}, {}));
  EXPECT_EQ(BlockMask(), BlockMask::from_lists({}, {}));
  EXPECT_EQ(BlockMask(), BlockMask::causal({}));
  EXPECT_EQ(BlockMask(), BlockMask::from_dense(Shape{}, DenseBool(1, 1, 0, 0)));
  EXPECT_EQ(BlockMask::from_csr({.batch = 0, .queries = 5, .keys = 5}, {0}, {}).selected(), 0);
  // Sizes that would take for ever to loop over are no rows all the same.
  EXPECT_EQ(BlockMask::causal({.batch = huge, .heads = 0, .queries = 5, .keys = 5}).selected(), 0);
  EXPECT_EQ(
      BlockMask::causal({.heads = 0, .queries = huge, .keys = 5, .row_block = 1}).density(true),
      1.0);
  const BlockMask no_keys = BlockMask::from_lists({.queries = 300, .keys = 0}, Lists(3));
  EXPECT_EQ(no_keys.column_blocks(), 0);
  EXPECT_TRUE(no_keys.row(0, 0, 2).empty());
}

TEST(BlockMask, RefusesBadSizes) {
  for (Shape bad :
       {Shape{-1, 1, 4, 4, 2, 2}, Shape{1, -1, 4, 4, 2, 2}, Shape{1, 1, -4, 4, 2, 2},
        Shape{1, 1, 4, -4, 2, 2}, Shape{1, 1, 4, 4, 0, 2}, Shape{1, 1, 4, 4, 2, 0},
        Shape{1, 1, 4, 4, -2, 2}, Shape{1, 1, 4, 4, 2, -2}, Shape{1, 1, 4, Index{1} << 31, 2, 1},
        Shape{huge, 2, 4, 4, 2, 2}, Shape{huge / 2, 2, 4, 4, 2, 2}, Shape{1, 1, huge, 4, 1, 2}}) {
    EXPECT_THROW(BlockMask::from_csr(bad, {0}, {}), std::invalid_argument);
    EXPECT_THROW(BlockMask::from_lists(bad, {}), std::invalid_argument);
    EXPECT_THROW(BlockMask::causal(bad), std::invalid_argument);
    EXPECT_THROW(BlockMask::from_dense(bad, DenseBool(1, 1, 2, 2)), std::invalid_argument);
    EXPECT_THROW(BlockMask::from_predicate(bad, [](Index, Index, Index, Index) { return true; }),
                 std::invalid_argument);
  }
  // 2^31 - 1 column blocks are still numbered by an int32.
  EXPECT_NO_THROW(BlockMask::from_csr(
      {.queries = 0, .keys = (Index{1} << 31) - 1, .column_block = 1}, {0}, {}));
}

// One row block of each kind is enough to break: two heads, two row blocks, three column blocks.
constexpr Shape small{1, 2, 8, 12, 4, 4};

TEST(BlockMask, RefusesBadOffsets) {
  const Columns columns{0, 1, 2, 0, 2};
  EXPECT_NO_THROW(BlockMask::from_csr(small, {0, 2, 3, 3, 5}, columns));
  for (const std::vector<Index>& offsets : std::vector<std::vector<Index>>{{},
                                                                           {0},
                                                                           {0, 2, 3, 5},
                                                                           {0, 2, 3, 3, 5, 5},
                                                                           {1, 2, 3, 3, 5},
                                                                           {-1, 2, 3, 3, 5},
                                                                           {0, 3, 2, 3, 5},
                                                                           {0, 2, 3, 3, 4},
                                                                           {0, 2, 3, 3, 6},
                                                                           {0, 2, -3, 3, 5},
                                                                           {0, huge, 3, 3, 5}})
    EXPECT_THROW(BlockMask::from_csr(small, offsets, columns), std::invalid_argument);
}

TEST(BlockMask, RefusesBadColumnsFromRowsAndFromLists) {
  for (const Columns& bad : Lists{{1, 0},
                                  {1, 1},
                                  {0, 2, 1},
                                  {0, 3},
                                  {-1},
                                  {-1, 0},
                                  {std::numeric_limits<std::int32_t>::max()},
                                  {std::numeric_limits<std::int32_t>::min()}})
    for (std::size_t row = 0; row < 4; ++row) {
      Lists lists(4, Columns{0, 2});
      lists[row] = bad;
      std::vector<Index> offsets{0};
      Columns columns;
      for (const Columns& list : lists) {
        columns.insert(columns.end(), list.begin(), list.end());
        offsets.push_back(static_cast<Index>(columns.size()));
      }
      EXPECT_THROW(BlockMask::from_lists(small, lists), std::invalid_argument);
      EXPECT_THROW(BlockMask::from_csr(small, offsets, columns), std::invalid_argument);
    }
}

TEST(BlockMask, RefusesListsAndDenseMasksOfAnotherShape) {
  for (const std::size_t count : {0u, 2u, 3u, 5u, 8u})
    EXPECT_THROW(BlockMask::from_lists(small, Lists(count)), std::invalid_argument);
  EXPECT_NO_THROW(BlockMask::from_dense(small, DenseBool(1, 2, 2, 3).setConstant(true)));
  EXPECT_THROW(BlockMask::from_dense(small, DenseBool(1, 1, 2, 3).setConstant(true)),
               std::invalid_argument);
  EXPECT_THROW(BlockMask::from_dense(small, DenseBool(2, 2, 2, 3).setConstant(true)),
               std::invalid_argument);
  EXPECT_THROW(BlockMask::from_dense(small, DenseBool(1, 2, 3, 2).setConstant(true)),
               std::invalid_argument);
  EXPECT_THROW(BlockMask::from_dense(small, DenseBool(1, 2, 8, 12).setConstant(true)),
               std::invalid_argument);
}

TEST(BlockMask, RefusesANullDenseMask) {
  const pare::TensorView<const bool, 4> null{nullptr, {1, 2, 2, 3}, {12, 6, 3, 1}};
  EXPECT_THROW(BlockMask::from_dense(small, null), std::invalid_argument);
}

TEST(BlockMask, SaysWhatIsWrong) {
  EXPECT_EQ(
      message_of([] { BlockMask::from_csr(small, {0, 2, 1, 3, 3}, {0, 1, 2}); }),
      "pare::attention::BlockMask::from_csr: offsets: got 1, wanted offsets that never decrease");
  EXPECT_EQ(message_of([] { BlockMask::from_lists(small, {{0}, {2, 1}, {}, {}}); }),
            "pare::attention::BlockMask::from_lists: lists: got 1, wanted ascending column blocks, "
            "each once");
  EXPECT_EQ(message_of([] { BlockMask::from_csr(small, {0, 1, 1, 1, 1}, {3}); }),
            "pare::attention::BlockMask::from_csr: columns: got 3, wanted column blocks within the "
            "shape");
  EXPECT_EQ(message_of([] { BlockMask::from_csr(small, {0, 1}, {3}); }),
            "pare::attention::BlockMask::from_csr: offsets: got 2, wanted 5");
  EXPECT_EQ(message_of([] { BlockMask::from_dense(small, DenseBool(1, 2, 3, 2)); }),
            "pare::attention::BlockMask::from_dense: dense: got [1, 2, 3, 2], wanted [1, 2, 2, 3]");
}

// Positions are sums of three numbers, of which two may be as large as can be.
TEST(BlockMaskSizes, TakesAnyNumberOfTokens) {
  const Shape whole{1, 1, huge, huge, huge, huge};
  EXPECT_EQ(whole.row_blocks(), 1);
  EXPECT_EQ(whole.causal_columns(0), 1);
  EXPECT_EQ(BlockMask::causal(whole).density(true), 1);
  const Shape parts{1, 1, huge, huge, Index{1} << 62, Index{1} << 61};
  EXPECT_EQ(parts.causal_columns(0), 2);
  EXPECT_EQ(parts.causal_columns(1), 4);
  EXPECT_EQ(BlockMask::causal(parts).selected(), 6);
  EXPECT_EQ((Shape{1, 1, huge, 3, huge / 2 + 1, 2}.causal_columns(0)), 0);
  EXPECT_EQ((Shape{1, 1, 3, huge, 2, huge / 2 + 1}.causal_columns(1)), 2);
}

TEST(BlockMaskSizes, RefusesWhatIsNotThere) {
  EXPECT_THROW((Shape{1, 1, 4, 4, 0, 2}.row_blocks()), std::invalid_argument);
  EXPECT_THROW((Shape{1, 1, 4, 4, 2, 0}.column_blocks()), std::invalid_argument);
  EXPECT_THROW((Shape{1, 1, -4, 4, 2, 2}.row_blocks()), std::invalid_argument);
  EXPECT_THROW((Shape{1, 1, 4, -4, 2, 2}.column_blocks()), std::invalid_argument);
  EXPECT_THROW((Shape{1, 1, 4, 4, 0, 2}.causal_columns(0)), std::invalid_argument);
  for (const Index row : {Index{-1}, Index{3}, huge})
    EXPECT_THROW(ragged.causal_columns(row), std::invalid_argument);
  const BlockMask mask = BlockMask::causal(ragged);
  for (const Index bad : {Index{-1}, Index{3}, huge}) {
    EXPECT_THROW(mask.row(bad, 0, 0), std::invalid_argument);
    EXPECT_THROW(mask.row(0, bad, 0), std::invalid_argument);
    EXPECT_THROW(mask.row(0, 0, bad), std::invalid_argument);
  }
  EXPECT_THROW(BlockMask{}.row(0, 0, 0), std::invalid_argument);
  const Shape none{0, 2, 4, 4, 2, 2};
  EXPECT_THROW(BlockMask::causal(none).row(0, 0, 0), std::invalid_argument);
}

}  // namespace
}  // namespace attention_block_mask_test
