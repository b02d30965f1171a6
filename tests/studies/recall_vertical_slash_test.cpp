// SPDX-License-Identifier: Apache-2.0

#include "recall/vertical_slash.hpp"

#include "recall_text/heads.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace studies_recall_vertical_slash_test {
namespace {

using recall::Index;
using recall::Tensor;
using recall::VerticalSlash;

static_assert(pare::attention::BlockSelector<VerticalSlash>);

constexpr Index tokens = 40, block = 4;

/// One head whose logits are what `logit(i, j)` says: queries are unit vectors, keys the columns.
template <class F>
pare::attention::SelectedBlocks select(const F& logit, const VerticalSlash& selector) {
  Tensor q(1, 1, tokens, tokens), k(1, 1, tokens, tokens);
  q.setZero();
  for (Index i = 0; i < tokens; ++i) {
    q(0, 0, i, i) = 1;
    for (Index j = 0; j < tokens; ++j) k(0, 0, j, i) = logit(i, j);
  }
  return pare::attention::select_blocks(pare::reference, q, k, selector,
                                        {.causal = true, .scale = 1});
}

std::vector<std::int32_t> row(const pare::attention::SelectedBlocks& blocks, Index m) {
  const auto columns = blocks.row(0, 0, m);
  return {columns.begin(), columns.end()};
}

TEST(RecallVerticalSlash, KeepsTheColumnThatTheLastQueriesAttendTo) {
  const auto blocks = select([](Index, Index j) { return j == 14 ? 20.f : 0.f; },
                             {.row_block = block, .column_block = block, .share = 0.1});
  for (Index m = 0; m < tokens / block; ++m) {
    const std::vector<std::int32_t> columns = row(blocks, m);
    const auto has = [&](Index n) {
      return std::find(columns.begin(), columns.end(), n) != columns.end();
    };
    EXPECT_TRUE(has(0) && has(m)) << m;
    EXPECT_EQ(has(3), m >= 3) << m;
    for (const std::int32_t n : columns) EXPECT_LE(n, m);
  }
}

TEST(RecallVerticalSlash, KeepsTheDiagonalThatTheLastQueriesAttendTo) {
  const auto blocks = select([](Index i, Index j) { return i - j == 22 ? 20.f : 0.f; },
                             {.row_block = block, .column_block = block, .share = 0.1});
  // 22 tokens back is 5 blocks back; the columns that this touches are all different.
  for (Index m = 5; m < tokens / block; ++m) {
    const std::vector<std::int32_t> columns = row(blocks, m);
    EXPECT_TRUE(std::find(columns.begin(), columns.end(), m - 5) != columns.end()) << m;
  }
  EXPECT_LT(blocks.density(true), 0.6);
}

TEST(RecallVerticalSlash, KeysToComeDoNotCount) {
  const VerticalSlash selector{.row_block = block, .column_block = block, .share = 0.1};
  const auto column = [](Index i, Index j) { return j == (i < 39 ? 14 : 30) ? 20.f : 0.f; };
  const auto future = [&](Index i, Index j) { return j > i ? 50.f : column(i, j); };
  EXPECT_EQ(row(select(column, selector), 9), (std::vector<std::int32_t>{0, 3, 9}));
  EXPECT_EQ(row(select(future, selector), 9), row(select(column, selector), 9));
}

TEST(RecallVerticalSlash, AnswersForLogitsOfAnySize) {
  const auto blocks = select([](Index, Index j) { return j == 14 ? 1e4f : -1e4f; },
                             {.row_block = block, .column_block = block, .share = 0.1});
  EXPECT_EQ(row(blocks, 9).size(), row(blocks, 8).size());
  EXPECT_GE(row(blocks, 9).size(), 3u);
}

TEST(RecallVerticalSlash, AShareOfOneKeepsAll) {
  const auto blocks = select([](Index i, Index j) { return float(i * j % 7); },
                             {.row_block = block, .column_block = block, .share = 1});
  EXPECT_EQ(blocks.selected(), 10 * 11 / 2);
  EXPECT_DOUBLE_EQ(blocks.density(true), 1);
}

TEST(RecallVerticalSlash, WhatMakesNoSenseIsRefused) {
  const auto flat = [](Index, Index) { return 0.f; };
  EXPECT_THROW(select(flat, {.share = 0}), std::invalid_argument);
  EXPECT_THROW(select(flat, {.share = 1.5}), std::invalid_argument);
  EXPECT_THROW(select(flat, {.share = std::nan("")}), std::invalid_argument);
  EXPECT_THROW(select(flat, {.row_block = 64}), std::invalid_argument);
  Tensor q(1, 1, 2, 8), k(1, 1, 3, 8);
  q.setZero();
  k.setZero();
  EXPECT_THROW(pare::attention::select_blocks(q, k, VerticalSlash{}), std::invalid_argument);
}

}  // namespace
}  // namespace studies_recall_vertical_slash_test
