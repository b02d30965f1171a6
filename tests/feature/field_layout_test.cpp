// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <pare/feature/fields/field_batch.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/fields/sparse_fields.hpp>

#include "support/matrices.hpp"

namespace feature_field_layout_test {
namespace {

using pare::Index;
using pare::feature::FieldBatch;
using pare::feature::FieldLayout;
using pare::feature::Storage;
using pare::testing::refusal;

const std::vector<Index> widths{1, 3, 64, 8};

TEST(FieldLayout, OffsetsAreTheSumsOfTheWidthsBefore) {
  const FieldLayout layout(widths);
  EXPECT_EQ(layout.fields(), 4);
  EXPECT_EQ(layout.dim(), 76);
  const std::vector<Index> wanted{0, 1, 4, 68, 76};
  ASSERT_EQ(layout.offsets().size(), wanted.size());
  for (Index j = 0; j < 4; ++j) {
    EXPECT_EQ(layout.offset(j), wanted[static_cast<std::size_t>(j)]);
    EXPECT_EQ(layout.width(j), widths[static_cast<std::size_t>(j)]);
    EXPECT_EQ(layout.group(j), j);
  }
  EXPECT_EQ(layout.offset(4), 76);
  EXPECT_EQ(layout, FieldLayout::from_offsets(wanted, 76));
  EXPECT_EQ(FieldLayout({1, 1, 1}), FieldLayout::scalars(3));
  EXPECT_EQ(FieldLayout({8, 8}), FieldLayout::uniform(2, 8));
  EXPECT_NE(FieldLayout({8, 8}), FieldLayout({8, 7}));
}

TEST(FieldLayout, GroupsAreKept) {
  const FieldLayout layout(widths, std::vector<Index>{2, 0, 2, 3});
  EXPECT_EQ(layout.group(0), 2);
  EXPECT_EQ(layout.group(1), 0);
  EXPECT_EQ(layout.group(2), 2);
  EXPECT_NE(layout, FieldLayout(widths));
}

TEST(FieldLayout, WithoutFieldsItIsEmpty) {
  const FieldLayout layout;
  EXPECT_EQ(layout.fields(), 0);
  EXPECT_EQ(layout.dim(), 0);
  EXPECT_TRUE(layout.offsets().empty());
  EXPECT_EQ(layout, FieldLayout());
  EXPECT_NE(layout, FieldLayout({1}));
}

TEST(FieldLayout, BadLayoutsAreRefused) {
  const std::string name = "feature::FieldLayout", offsets = name + "::from_offsets";
  refusal([] { FieldLayout(std::vector<Index>{}); }, name, "widths");
  refusal([] { FieldLayout({1, 0, 2}); }, name, "widths");
  refusal([] { FieldLayout({1, -1}); }, name, "widths");
  refusal([] { FieldLayout({std::numeric_limits<Index>::max(), 1}); }, name, "widths");
  refusal([] { FieldLayout::scalars(0); }, name, "fields");
  refusal([] { FieldLayout::scalars(Index{1} << 62); }, name, "fields");
  refusal([] { FieldLayout::uniform(2, 0); }, name, "widths");
  refusal([] { FieldLayout(widths, std::vector<Index>{0, 1, 2}); }, name, "groups");
  refusal([] { FieldLayout(widths, std::vector<Index>{0, 1, 2, 4}); }, name, "groups");
  refusal([] { FieldLayout(widths, std::vector<Index>{0, 1, 2, -1}); }, name, "groups");
  const auto from = [](std::vector<Index> list, Index dim) {
    return [list, dim] { FieldLayout::from_offsets(list, dim); };
  };
  refusal(from({}, 0), offsets, "offsets");
  refusal(from({0}, 0), offsets, "offsets");
  refusal(from({1, 3}, 3), offsets, "offsets");
  refusal(from({0, 2, 2, 3}, 3), offsets, "offsets");
  refusal(from({0, 3, 2, 4}, 4), offsets, "offsets");
  refusal(from({0, 2, 3}, 4), offsets, "offsets");
}

/// Element (b, c) holds 100 b + c.
template <class M>
M numbered(Index rows, Index cols) {
  M m(rows, cols);
  for (Index b = 0; b < rows; ++b)
    for (Index c = 0; c < cols; ++c) m(b, c) = static_cast<float>(100 * b + c);
  return m;
}

template <class Batch>
void expect_numbered(const Batch& batch) {
  const FieldLayout& layout = *batch.layout;
  for (Index j = 0; j < layout.fields(); ++j) {
    const auto block = batch.block(j);
    ASSERT_EQ(block.rows(), batch.rows);
    ASSERT_EQ(block.cols(), layout.width(j));
    for (Index b = 0; b < block.rows(); ++b)
      for (Index c = 0; c < block.cols(); ++c)
        ASSERT_EQ(block(b, c), static_cast<float>(100 * b + layout.offset(j) + c));
  }
}

using RowMajorMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

TEST(FieldBatch, ViewsMatricesOfEitherOrderAndBlocksOfThem) {
  const FieldLayout layout({1, 3, 2});
  const auto rows = numbered<RowMajorMatrix>(5, 6);
  const auto columns = numbered<Eigen::MatrixXf>(5, 6);
  EXPECT_EQ(field_batch(layout, rows).storage, Storage::RowMajor);
  EXPECT_EQ(field_batch(layout, columns).storage, Storage::ColumnMajor);
  expect_numbered(field_batch(layout, rows));
  expect_numbered(field_batch(layout, columns));
  const auto wide = numbered<Eigen::MatrixXf>(7, 8);
  expect_numbered(field_batch(layout, wide.topLeftCorner(5, 6)));
  const auto taller = numbered<RowMajorMatrix>(7, 8);
  expect_numbered(field_batch(layout, taller.topLeftCorner(5, 6)));
  const FieldLayout single({1});
  expect_numbered(field_batch(single, numbered<Eigen::MatrixXf>(5, 1)));
  expect_numbered(field_batch(single, rows.leftCols(1)));
  expect_numbered(field_batch(layout, rows.topRows(1)));
  static_assert(std::is_same_v<decltype(field_batch(layout, rows)), FieldBatch<const float>>);
}

TEST(FieldBatch, CopiesFromAnyStorageToAnyOther) {
  const FieldLayout layout({1, 3, 2});
  const auto rows = numbered<RowMajorMatrix>(5, 6);
  std::vector<float> blocked(30);
  const auto batch = field_blocked(layout, blocked, 5);
  copy_batch<float>(field_batch(layout, rows), batch);
  expect_numbered(batch);
  EXPECT_EQ(blocked[0], 0);
  EXPECT_EQ(blocked[5], 1) << "the second field's block begins with its first row";
  EXPECT_EQ(blocked[6], 2);
  EXPECT_EQ(blocked[8], 101);
  Eigen::MatrixXf columns(5, 6);
  copy_batch<float>(batch, field_batch(layout, columns));
  EXPECT_EQ(columns, rows);
}

TEST(FieldLayout, WhatIsNoFieldIsRefused) {
  for (const FieldLayout& layout : {FieldLayout(), FieldLayout({1, 3, 2})}) {
    EXPECT_EQ(layout.offset(layout.fields()), layout.dim());
    refusal([&] { layout.offset(layout.fields() + 1); }, "feature::FieldLayout::offset", "j");
    refusal([&] { layout.offset(-1); }, "feature::FieldLayout::offset", "j");
    for (const Index j : {Index{-1}, layout.fields()}) {
      refusal([&] { layout.width(j); }, "feature::FieldLayout::width", "j");
      refusal([&] { layout.group(j); }, "feature::FieldLayout::group", "j");
    }
  }
}

/// Batches made by hand: no data, rows below 0 or beyond memory, a storage that is none.
TEST(FieldBatch, WhatIsNoBatchIsRefused) {
  const FieldLayout layout({1, 3, 2});
  std::vector<float> buffer(30), other(30, 7);
  const FieldBatch<float> good{buffer.data(), 5, &layout, Storage::FieldBlocked, 0};
  const FieldBatch<float> to{other.data(), 5, &layout, Storage::FieldBlocked, 0};
  const auto refused = [&](const auto& spoil) {
    FieldBatch<float> bad = good, same_rows = to;
    spoil(bad);
    same_rows.rows = bad.rows;
    refusal([&] { copy_batch<float>(bad, same_rows); }, "feature::copy_batch", "from");
    refusal([&] { to_sparse(layout, bad); }, "feature::to_sparse", "x");
  };
  refused([](auto& b) { b.data = nullptr; });
  refused([](auto& b) { b.rows = -1; });
  refused([](auto& b) { b.rows = std::numeric_limits<Index>::max() / 3; });
  refused([](auto& b) { b.storage = static_cast<Storage>(3); });
  refused([](auto& b) {
    b.storage = Storage::ColumnMajor;
    b.stride = std::numeric_limits<Index>::max() / 2;
  });
  EXPECT_EQ(other, std::vector<float>(30, 7));
  refusal([&] { field_batch(layout, pare::TensorView<float, 2>{nullptr, {5, 6}, {6, 1}}); },
          "feature::field_batch", "matrix");
}

TEST(FieldBatch, BadBatchesAreRefused) {
  const FieldLayout layout({1, 3, 2});
  Eigen::MatrixXf wrong(5, 7);
  std::vector<float> buffer(30);
  refusal([&] { field_batch(layout, wrong); }, "feature::field_batch", "matrix");
  refusal(
      [&] {
        Eigen::MatrixXf m(10, 12);
        using Steps = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
        field_batch(layout, Eigen::Map<Eigen::MatrixXf, 0, Steps>(m.data(), 5, 6, Steps(20, 2)));
      },
      "feature::field_batch", "matrix");
  refusal([&] { field_blocked(layout, buffer, 6); }, "feature::field_blocked", "buffer");
  refusal([&] { field_blocked(layout, buffer, -1); }, "feature::field_blocked", "rows");
  const auto batch = field_blocked(layout, buffer, 5);
  refusal([&] { copy_batch<float>(batch, batch); }, "feature::copy_batch", "to");
  std::vector<float> other(24);
  refusal([&] { copy_batch<float>(batch, field_blocked(layout, other, 4)); }, "feature::copy_batch",
          "to");
  std::vector<float> target(40, 7);
  const auto overlapping = [&](Storage storage, Index stride) {
    const FieldBatch<float> to{target.data(), 5, &layout, storage, stride};
    refusal([&] { copy_batch<float>(batch, to); }, "feature::copy_batch", "to");
  };
  overlapping(Storage::RowMajor, 5);
  overlapping(Storage::RowMajor, 0);
  overlapping(Storage::ColumnMajor, 4);
  EXPECT_EQ(target, std::vector<float>(40, 7));
  const FieldLayout same_width({3, 3});
  std::vector<float> third(30);
  refusal([&] { copy_batch<float>(batch, field_blocked(same_width, third, 5)); },
          "feature::copy_batch", "to");
}

}  // namespace
}  // namespace feature_field_layout_test
