// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include <pare/attention/antidiagonal.hpp>
#include <pare/attention/attend.hpp>
#include <pare/attention/order_keys.hpp>

#include "attention/heads.hpp"
#include "attention/oracle.hpp"
#include "support/backends.hpp"
#include "support/tolerance.hpp"

namespace attention_antidiagonal_test {
namespace {

using pare::Index;
using pare::attention::Antidiagonal;
using pare::attention::attend;
using pare::attention::BlockMask;
using pare::attention::KeyOrder;
using pare::attention::order_keys;
using pare::attention::select_blocks;
using pare::attention::SelectedBlocks;
using pare::testing::Heads;
using pare::testing::normal_heads;
using pare::testing::Tolerance;
using pare::testing::within;

template <class T>
constexpr T nan_value = std::numeric_limits<T>::quiet_NaN();

struct Case {
  Index queries, keys, row_block, column_block, stride, segment;
};
constexpr Case cases[] = {
    {1, 1, 8, 8, 4, 0},       {7, 7, 8, 8, 4, 0},      {16, 16, 8, 8, 4, 16},
    {17, 17, 8, 8, 4, 16},    {35, 35, 8, 8, 2, 16},   {150, 150, 8, 8, 1, 0},
    {150, 150, 8, 8, 8, 0},   {150, 150, 8, 8, 4, 16}, {150, 150, 16, 4, 4, 16},
    {150, 150, 4, 16, 2, 32}, {150, 150, 12, 6, 3, 0}, {40, 150, 8, 8, 4, 16},
    {41, 150, 8, 8, 4, 0},    {1, 150, 8, 8, 4, 16},   {3, 149, 16, 8, 8, 24},
    {300, 700, 8, 8, 2, 32},  {400, 400, 8, 8, 1, 16}, {520, 520, 256, 256, 1, 256},
};

template <class T>
struct Problem {
  Case c;
  Heads<T> q, k;
  KeyOrder order;
  explicit Problem(const Case& size)
      : c(size),
        q(normal_heads<T>(1, 2, size.queries, 12, 41)),
        k(normal_heads<T>(1, 1, size.keys, 12, 42)),
        order(
            size.segment > 0
                ? order_keys(
                      pare::reference, q.view(), k.view(),
                      {.segment = size.segment, .queries = 8, .share_kv_heads = true, .scale = 0.9})
                : KeyOrder::identity({1, 1, size.keys})) {}

  Antidiagonal selector() const {
    return {.row_block = c.row_block,
            .column_block = c.column_block,
            .stride = c.stride,
            .segment = c.segment};
  }
  template <class B>
  SelectedBlocks select(const B& backend, const Antidiagonal& selector) const {
    if (c.segment == 0)
      return select_blocks(backend, q.view(), k.view(), selector, {.causal = true, .scale = 0.9});
    return select_blocks(backend, q.view(), k.view(), order, selector,
                         {.causal = true, .scale = 0.9});
  }
};

template <class P>
class Diagonals : public testing::Test {
 protected:
  using Scalar = typename P::scalar;
  static auto backend() { return P::backend::make(); }
};
TYPED_TEST_SUITE(Diagonals, pare::testing::BackendsAndScalars);

TYPED_TEST(Diagonals, KeepTheBlocksOfTheDefinition) {
  using T = typename TestFixture::Scalar;
  for (const Case& c : cases)
    for (const float mass : {0.3f, 0.9f}) {
      const Problem<T> p(c);
      Antidiagonal selector = p.selector();
      selector.mass = mass;
      const SelectedBlocks wanted = p.select(pare::reference, selector);
      const SelectedBlocks got = p.select(this->backend(), selector);
      EXPECT_EQ(static_cast<const BlockMask&>(got), static_cast<const BlockMask&>(wanted))
          << c.queries << ' ' << c.keys << ' ' << c.stride << ' ' << c.segment << ' ' << mass;
      // A weight is off by the error of its logit, whose terms are below 40 in sum, and by that of
      // the sums it goes through.
      EXPECT_TRUE(within(got.mass, wanted.mass,
                         2 * Tolerance<T>::scaled_sum(static_cast<double>(12 * c.stride), 40) +
                             Tolerance<T>::gamma(static_cast<double>(2 * c.keys))));
    }
}

/// At a stride of 1 the scores are the attention mass itself, so what is returned can be checked.
TYPED_TEST(Diagonals, OfStrideOneTellTheMassKept) {
  using T = typename TestFixture::Scalar;
  const Problem<T> p({90, 90, 8, 8, 1, 0});
  const SelectedBlocks blocks = p.select(this->backend(), p.selector());
  double mean = 0;
  for (Index h = 0; h < 2; ++h) {
    const auto o = pare::testing::dense_attention(p.q.head(0, h), p.k.head(0, 0), p.k.head(0, 0),
                                                  0.9, pare::testing::causal_visibility(90, 90));
    for (Index m = 0; m < blocks.row_blocks(); ++m) {
      const Index begin = 8 * m, end = std::min<Index>(begin + 8, 90);
      for (const std::int32_t n : blocks.row(0, h, m))
        for (Index i = begin; i < end; ++i)
          for (Index j = 8 * n; j < std::min<Index>(8 * n + 8, 90); ++j)
            mean += o.p(i, j) / static_cast<double>((end - begin) * blocks.row_blocks() * 2);
    }
  }
  EXPECT_TRUE(within(blocks.mass, mean, Tolerance<T>::scaled_sum(200, 20)));
  EXPECT_GE(blocks.mass, 0.9 - 1e-5);
  EXPECT_LT(blocks.density(true), 1);
}

TYPED_TEST(Diagonals, CountTheForcedBlocks) {
  using T = typename TestFixture::Scalar;
  const Problem<T> p({150, 150, 8, 8, 4, 0});
  Antidiagonal selector = p.selector();
  selector.mass = 1e-3f;
  const SelectedBlocks blocks = p.select(this->backend(), selector);
  for (Index h = 0; h < 2; ++h)
    for (Index m = 0; m < blocks.row_blocks(); ++m) {
      const auto row = blocks.row(0, h, m);
      ASSERT_EQ(static_cast<Index>(row.size()), m == 0 ? 1 : 2);
      EXPECT_EQ(row.front(), 0);
      EXPECT_EQ(row.back(), m);
    }
}

TYPED_TEST(Diagonals, MoreMassKeepsAllOfTheBlocksOfLess) {
  using T = typename TestFixture::Scalar;
  for (const Index segment : {0, 16}) {
    const Problem<T> p({150, 150, 8, 8, 4, segment});
    Antidiagonal selector = p.selector();
    selector.mass = 0.05f;
    SelectedBlocks before = p.select(this->backend(), selector);
    for (const float mass : {0.4f, 0.7f, 0.9f, 1.0f}) {
      selector.mass = mass;
      const SelectedBlocks blocks = p.select(this->backend(), selector);
      EXPECT_GT(blocks.selected(), before.selected());
      for (Index h = 0; h < 2; ++h)
        for (Index m = 0; m < blocks.row_blocks(); ++m)
          EXPECT_TRUE(std::ranges::includes(blocks.row(0, h, m), before.row(0, h, m)));
      before = blocks;
    }
    EXPECT_EQ(before.density(true), 1);
    EXPECT_EQ(before.mass, 1);
  }
}

/// Own segments and the first token are in, later segments never.
TYPED_TEST(Diagonals, KeepTheOwnSegmentAndNothingLater) {
  using T = typename TestFixture::Scalar;
  for (const Case& c : cases) {
    if (c.segment == 0) continue;
    const Problem<T> p(c);
    const SelectedBlocks blocks = p.select(this->backend(), p.selector());
    const auto order = p.order.of(0, 0);
    const Index first = (std::ranges::find(order, 0u) - order.begin()) / c.column_block;
    for (Index m = 0; m < blocks.row_blocks(); ++m) {
      const Index low = m * c.row_block + c.keys - c.queries;
      const Index high = std::min((m + 1) * c.row_block, c.queries) - 1 + c.keys - c.queries;
      const auto row = blocks.row(0, 1, m);
      const auto has = [&](Index n) {
        return std::ranges::binary_search(row, static_cast<std::int32_t>(n));
      };
      EXPECT_TRUE(has(first));
      for (Index n = 0; n < blocks.column_blocks(); ++n) {
        const Index segment = n * c.column_block / c.segment;
        EXPECT_TRUE(segment < low / c.segment || segment > high / c.segment || has(n));
        EXPECT_FALSE(segment > high / c.segment && has(n));
      }
    }
  }
}

/// Scores of -infinity hide their cells and tell nothing of the others, even where they fill a
/// whole tile of 128 cells, and beside the zeros behind the last query.
TYPED_TEST(Diagonals, HiddenKeysCountForNothing) {
  using T = typename TestFixture::Scalar;
  for (const Case& c : {Case{300, 300, 8, 8, 1, 0}, Case{301, 301, 8, 8, 2, 0},
                        Case{150, 302, 16, 8, 4, 16}, Case{299, 299, 8, 8, 8, 0}}) {
    Problem<T> p(c);
    for (Index h = 0; h < 2; ++h)
      for (Index i = 0; i < c.queries; ++i) p.q(0, h, i, 0) = 1;
    for (Index j = 0; j < 140; ++j) p.k(0, 0, j, 0) = -std::numeric_limits<T>::infinity();
    const Antidiagonal selector = p.selector();
    const SelectedBlocks wanted = p.select(pare::reference, selector);
    const SelectedBlocks blocks = p.select(this->backend(), selector);
    EXPECT_EQ(static_cast<const BlockMask&>(blocks), static_cast<const BlockMask&>(wanted))
        << c.queries << ' ' << c.stride;
    EXPECT_LT(blocks.density(true), 0.95);
    EXPECT_TRUE(within(blocks.mass, wanted.mass, 1e-4));
  }
}

TYPED_TEST(Diagonals, ANanKeepsAllAndStaysWithItsHead) {
  using T = typename TestFixture::Scalar;
  Problem<T> p({150, 150, 8, 8, 4, 0});
  const SelectedBlocks before = p.select(this->backend(), p.selector());
  p.q(0, 0, 70, 1) = nan_value<T>;
  const SelectedBlocks blocks = p.select(this->backend(), p.selector());
  for (Index h = 0; h < 2; ++h)
    for (Index m = 0; m < blocks.row_blocks(); ++m) {
      if (h == 0 && m == 70 / 8) {
        EXPECT_EQ(static_cast<Index>(blocks.row(0, h, m).size()), m + 1);
      } else {
        EXPECT_TRUE(std::ranges::equal(blocks.row(0, h, m), before.row(0, h, m))) << h << ' ' << m;
      }
    }
}

TYPED_TEST(Diagonals, TakeExtremeScores) {
  using T = typename TestFixture::Scalar;
  Problem<T> p({150, 150, 8, 8, 4, 16});
  for (T& x : p.q.list) x *= T(1e3);
  const SelectedBlocks blocks = p.select(this->backend(), p.selector());
  EXPECT_GE(blocks.mass, 0.9 - 1e-5);
  EXPECT_LE(blocks.mass, 1 + 1e-5);
}

TYPED_TEST(Diagonals, RefuseWhatDoesNotFit) {
  using T = typename TestFixture::Scalar;
  const Heads<T> q(1, 2, 64, 4), k(1, 2, 64, 4), few(1, 2, 60, 4);
  const auto call = [&](const Antidiagonal& selector) {
    select_blocks(this->backend(), q.view(), k.view(), selector, {.causal = true});
  };
  EXPECT_NO_THROW(call({}));
  EXPECT_THROW(call({.row_block = 0}), std::invalid_argument);
  EXPECT_THROW(call({.column_block = -8}), std::invalid_argument);
  EXPECT_THROW(call({.stride = 0}), std::invalid_argument);
  EXPECT_THROW(call({.stride = -8}), std::invalid_argument);
  EXPECT_THROW(call({.stride = 256}), std::invalid_argument);
  EXPECT_THROW(call({.stride = 3}), std::invalid_argument);
  EXPECT_THROW(call({.row_block = 8, .stride = 16}), std::invalid_argument);
  EXPECT_THROW(call({.segment = -128}), std::invalid_argument);
  EXPECT_THROW(call({.segment = 64}), std::invalid_argument);
  EXPECT_THROW(call({.mass = 0.0f}), std::invalid_argument);
  EXPECT_THROW(call({.mass = nan_value<float>}), std::invalid_argument);
  EXPECT_THROW(call({.head_masses = {0.5f}}), std::invalid_argument);
  EXPECT_THROW(
      select_blocks(this->backend(), q.view(), few.view(), Antidiagonal{}, {.causal = true}),
      std::invalid_argument);
  EXPECT_THROW(
      select_blocks(this->backend(), q.view(), k.view(), Antidiagonal{}, {.causal = false}),
      std::invalid_argument);
}

TYPED_TEST(Diagonals, TakeBlocksAndCellsOfAnySize) {
  using T = typename TestFixture::Scalar;
  const auto q = normal_heads<T>(1, 2, 40, 8, 70), k = normal_heads<T>(1, 2, 50, 8, 71);
  constexpr Index huge = std::numeric_limits<Index>::max(), large = Index{1} << 62;
  const auto lists = [&](const Antidiagonal& selector) {
    const auto blocks =
        select_blocks(this->backend(), q.view(), k.view(), selector, {.causal = true});
    std::vector<std::int32_t> columns(blocks.columns().begin(), blocks.columns().end());
    return std::pair{columns, blocks.mass};
  };
  const auto got = [&](Index rows, Index columns, Index stride, Index segment = 0) {
    return lists({rows, columns, stride, 0.5f, {}, segment});
  };
  EXPECT_EQ(got(large, 16, 8), got(40, 16, 8));
  EXPECT_EQ(got(16, large, 8), got(16, 56, 8));
  EXPECT_EQ(got(16, large, 16, large), got(16, 64, 16, 64));
  for (const Index block : {huge, large})
    for (const Index stride : {block, block / (block == huge ? 7 : 4), Index{1}})
      EXPECT_EQ(got(block, block, stride).first, (std::vector<std::int32_t>{0, 0}));
}

// Forced blocks count: of four equal scores they are half already.
TYPED_TEST(Diagonals, StopWhereTheMassIsReachedExactly) {
  using T = typename TestFixture::Scalar;
  const Heads<T> q(1, 1, 16, 4), k(1, 1, 16, 4);
  const auto blocks = select_blocks(
      this->backend(), q.view(), k.view(),
      Antidiagonal{.row_block = 4, .column_block = 4, .stride = 4, .mass = 0.5f}, {.causal = true});
  const auto columns = blocks.row(0, 0, 3);
  EXPECT_EQ(std::vector<std::int32_t>(columns.begin(), columns.end()),
            (std::vector<std::int32_t>{0, 3}));
}

// Cells of more rows than there are queries: what is missing is zero.
TYPED_TEST(Diagonals, TakeCellsLargerThanTheQueries) {
  using T = typename TestFixture::Scalar;
  const auto q = normal_heads<T>(1, 1, 5, 8, 72), k = normal_heads<T>(1, 1, 90, 8, 73);
  for (const Index stride : {8, 16}) {
    const Antidiagonal selector{16, 16, stride, 0.4f, {}, 0, false};
    const auto few = select_blocks(this->backend(), q.view(), k.view(), selector, {.causal = true});
    const auto wanted =
        select_blocks(pare::reference, q.view(), k.view(), selector, {.causal = true});
    EXPECT_EQ(static_cast<const BlockMask&>(few), static_cast<const BlockMask&>(wanted));
    EXPECT_LT(few.selected(), 6);
  }
}

TEST(DiagonalsThreads, DoNotChangeABit) {
  for (const Index heads : {1, 4}) {
    const auto q = normal_heads<float>(1, heads, 900, 16, 43),
               k = normal_heads<float>(1, heads, 900, 16, 44);
    const KeyOrder order = order_keys(q.view(), k.view(), {.segment = 32});
    const Antidiagonal selector{
        .row_block = 8, .column_block = 8, .stride = 2, .mass = 0.5f, .segment = 32};
    const auto one = select_blocks(q.view(), k.view(), order, selector, {.causal = true});
    for (const int threads : {2, 3, 7}) {
      const auto many = select_blocks(pare::simd.threads(threads), q.view(), k.view(), order,
                                      selector, {.causal = true});
      EXPECT_EQ(static_cast<const BlockMask&>(many), static_cast<const BlockMask&>(one));
      EXPECT_TRUE(pare::testing::same_bits(many.mass, one.mass));
    }
  }
}

template <class S>
class DiagonalsStorage : public testing::Test {};
using Storages = testing::Types<pare::bf16, pare::f16>;
TYPED_TEST_SUITE(DiagonalsStorage, Storages);

TYPED_TEST(DiagonalsStorage, KeepTheBlocksOfTheDefinition) {
  for (const Case& c : cases) {
    const Problem<TypeParam> p(c);
    const SelectedBlocks wanted = p.select(pare::reference, p.selector());
    const SelectedBlocks got = p.select(pare::simd, p.selector());
    EXPECT_EQ(static_cast<const BlockMask&>(got), static_cast<const BlockMask&>(wanted))
        << c.queries << ' ' << c.keys << ' ' << c.stride << ' ' << c.segment;
  }
}

}  // namespace
}  // namespace attention_antidiagonal_test
