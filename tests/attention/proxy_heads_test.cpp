// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include <pare/attention/proxy_heads.hpp>

#include "attention/proxy_data.hpp"
#include "support/backends.hpp"
#include "support/tolerance.hpp"

namespace attention_proxy_heads_test {
namespace {

using namespace pare::attention;
using pare::bf16;
using pare::f16;
using pare::Index;
using pare::testing::BackendAndScalar;
using pare::testing::BestBackend;
using pare::testing::largest_weights;
using pare::testing::last_block_masses;
using pare::testing::mean_head;
using pare::testing::ProxyInput;
using pare::testing::ReferenceBackend;
using pare::testing::ReversePool;
using pare::testing::rows_of;
using pare::testing::same_bits;
using pare::testing::ScalarBackend;
using pare::testing::ThreadedBackend;
using pare::testing::within;

using Row = std::vector<std::int32_t>;

/// Small blocks and no least budget, so that something is left to select.
ProxyHeads small_blocks(float mass) {
  return {.mass = mass, .row_block = 16, .column_block = 16, .min_budget = 0};
}

template <class Case>
struct ProxyHeadsTest : testing::Test {
  using Scalar = typename Case::scalar;

  static SelectedBlocks select(const ProxyInput<Scalar>& x, const ProxyHeads& policy,
                               const SelectOptions& options = {.causal = true}) {
    return select_blocks(Case::backend::make(), x.q.view(), x.k.view(), policy, options);
  }
};

using Cases =
    testing::Types<BackendAndScalar<ReferenceBackend, float>,
                   BackendAndScalar<ReferenceBackend, double>,
                   BackendAndScalar<ReferenceBackend, bf16>, BackendAndScalar<ScalarBackend, float>,
                   BackendAndScalar<BestBackend, float>, BackendAndScalar<BestBackend, double>,
                   BackendAndScalar<BestBackend, bf16>, BackendAndScalar<BestBackend, f16>,
                   BackendAndScalar<ThreadedBackend, float>>;
TYPED_TEST_SUITE(ProxyHeadsTest, Cases);

/// The rows of a head by brute force. Fails where scores or masses are so close that rounding
/// could tell them apart otherwise.
template <class S>
std::vector<Row> expected_rows(const ProxyInput<S>& x, const ProxyHeads& p, Index batch, Index head,
                               double scale) {
  const Index heads = x.q.extent[1] / p.groups, kv_heads = x.k.extent[1] / p.groups;
  const Index group = head / heads;
  const BlockMask::Shape shape = x.shape(p.row_block, p.column_block);
  const auto scores = largest_weights(mean_head(x.q, batch, group * heads, heads),
                                      mean_head(x.k, batch, group * kv_heads, kv_heads), shape,
                                      scale, p.stride_queries, p.stride_keys);
  auto masses = last_block_masses(
      x.q.head(batch, head), x.k.head(batch, head / (x.q.extent[1] / x.k.extent[1])), shape, scale);
  std::sort(masses.rbegin(), masses.rend());
  Index needed = 0;
  for (double sum = 0; needed < shape.column_blocks() && (p.mass >= 1 || sum < p.mass); ++needed) {
    sum += masses[static_cast<std::size_t>(needed)];
    EXPECT_GT(std::abs(sum - p.mass), 1e-5) << "a tie in the test's data";
  }
  const Index all = shape.column_blocks();
  std::vector<Row> rows;
  for (Index m = 0; m < shape.row_blocks(); ++m) {
    const Index visible = shape.causal_columns(m);
    const double share = static_cast<double>(needed) / static_cast<double>(all);
    const double wanted = p.budget == ProxyBudget::AllBlocks
                              ? static_cast<double>(needed)
                              : std::ceil(share * static_cast<double>(visible) - 1e-9);
    const double least =
        std::ceil(static_cast<double>(p.min_budget) / static_cast<double>(p.column_block));
    const auto budget = static_cast<std::size_t>(
        std::clamp(std::max(wanted, least), 1.0, static_cast<double>(visible)));
    Row rank(static_cast<std::size_t>(visible));
    std::iota(rank.begin(), rank.end(), 0);
    const double* score = scores.data() + m * all;
    std::sort(rank.begin(), rank.end(), [&](auto a, auto b) { return score[a] > score[b]; });
    const bool cut = budget < rank.size();
    EXPECT_TRUE(!cut || score[rank[budget - 1]] > score[rank[budget]] * (1 + 1e-4))
        << "a tie in the test's data";
    Row row(rank.begin(), rank.begin() + static_cast<Index>(budget));
    if (p.force_first) row.push_back(0);
    const Index position = m * p.row_block + shape.keys - shape.queries;
    for (Index n = position / p.column_block; n < visible && p.force_diagonal; ++n)
      row.push_back(static_cast<std::int32_t>(n));
    std::sort(row.begin(), row.end());
    row.erase(std::unique(row.begin(), row.end()), row.end());
    rows.push_back(row);
  }
  return rows;
}

TYPED_TEST(ProxyHeadsTest, SelectsWhatTheDefinitionSaysByBruteForce) {
  using S = typename TypeParam::scalar;
  struct Case {
    Index batch, heads, kv_heads, queries, keys, dim;
    ProxyHeads policy;
  };
  const Case cases[] = {{1, 4, 2, 200, 200, 16, small_blocks(0.8f)},
                        {2,
                         4,
                         4,
                         130,
                         130,
                         9,
                         {.groups = 2,
                          .mass = 0.6f,
                          .row_block = 32,
                          .column_block = 16,
                          .min_budget = 20,
                          .budget = ProxyBudget::AllBlocks}},
                        {1,
                         6,
                         3,
                         90,
                         250,
                         12,
                         {.groups = 3,
                          .mass = 0.7f,
                          .stride_queries = 3,
                          .stride_keys = 2,
                          .row_block = 11,
                          .column_block = 30,
                          .min_budget = 31,
                          .force_first = false}},
                        {1,
                         2,
                         1,
                         270,
                         270,
                         8,
                         {.mass = 0.5f,
                          .stride_queries = 1,
                          .row_block = 24,
                          .column_block = 48,
                          .min_budget = 0,
                          .force_diagonal = false}},
                        {1,
                         1,
                         1,
                         300,
                         300,
                         8,
                         {.mass = 0.4f,
                          .row_block = 16,
                          .column_block = 7,
                          .min_budget = 7,
                          .force_first = false,
                          .force_diagonal = false}}};
  for (const Case& c : cases) {
    const ProxyInput<S> x(c.batch, c.heads, c.kv_heads, c.queries, c.keys, c.dim, 0.7);
    const auto blocks = this->select(x, c.policy, {.causal = true, .scale = 0.5});
    EXPECT_LT(blocks.density(true), 0.9);
    for (Index b = 0; b < c.batch; ++b)
      for (Index h = 0; h < c.heads; ++h)
        ASSERT_EQ(rows_of(blocks, b, h), expected_rows(x, c.policy, b, h, 0.5))
            << c.keys << ' ' << b << ' ' << h;
  }
}

TYPED_TEST(ProxyHeadsTest, MassIsTheMeanOfWhatTheBudgetsHold) {
  using S = typename TypeParam::scalar;
  const ProxyInput<S> x(2, 4, 2, 150, 150, 16, 1.5);
  const auto blocks = this->select(x, small_blocks(0.7f), {.causal = true, .scale = 0.5});
  double wanted = 0;
  for (Index i = 0; i < 8; ++i) {
    auto masses =
        last_block_masses(x.q.head(i / 4, i % 4), x.k.head(i / 4, i % 4 / 2), blocks.shape(), 0.5);
    std::sort(masses.rbegin(), masses.rend());
    double sum = 0;
    for (std::size_t n = 0; sum < 0.7; ++n) sum += masses[n];
    wanted += sum / 8;
  }
  EXPECT_TRUE(within(blocks.mass, wanted, x.relative_bound(0.5)));
  EXPECT_GE(blocks.mass, 0.7);
  EXPECT_GE(blocks.seconds, 0);
}

TYPED_TEST(ProxyHeadsTest, MassOneKeepsEveryVisibleBlock) {
  using S = typename TypeParam::scalar;
  const ProxyInput<S> x(2, 4, 2, 90, 150, 8);
  const auto blocks = this->select(x, small_blocks(1));
  EXPECT_EQ(static_cast<const BlockMask&>(blocks), BlockMask::causal(x.shape(16, 16)));
  EXPECT_EQ(blocks.mass, 1);
  EXPECT_EQ(blocks.density(true), 1);
}

TYPED_TEST(ProxyHeadsTest, EqualHeadsKeepEqualBlocks) {
  using S = typename TypeParam::scalar;
  const ProxyInput<S> x(1, 4, 2, 200, 200, 16, 0.0);
  const auto blocks = this->select(x, small_blocks(0.7f), {.causal = true, .scale = 0.5});
  EXPECT_LT(blocks.density(true), 0.9);
  for (Index h = 1; h < 4; ++h) EXPECT_EQ(rows_of(blocks, 0, h), rows_of(blocks, 0, 0));
}

TYPED_TEST(ProxyHeadsTest, BlocksOfAMassAreAmongThoseOfALargerOne) {
  using S = typename TypeParam::scalar;
  const ProxyInput<S> x(1, 4, 2, 200, 200, 16);
  for (const auto budget : {ProxyBudget::VisibleBlocks, ProxyBudget::AllBlocks}) {
    auto policy = small_blocks(0.1f);
    policy.budget = budget;
    auto before = this->select(x, policy, {.causal = true, .scale = 0.5});
    for (const float mass : {0.3f, 0.6f, 0.9f, 0.95f, 0.999f, 1.0f}) {
      policy.mass = mass;
      const auto blocks = this->select(x, policy, {.causal = true, .scale = 0.5});
      for (Index h = 0; h < 4; ++h)
        for (Index m = 0; m < blocks.row_blocks(); ++m) {
          const auto few = before.row(0, h, m), many = blocks.row(0, h, m);
          EXPECT_TRUE(std::includes(many.begin(), many.end(), few.begin(), few.end()));
        }
      EXPECT_GE(blocks.mass, before.mass);
      before = blocks;
    }
    EXPECT_EQ(before.density(true), 1);
  }
}

TYPED_TEST(ProxyHeadsTest, EveryRowKeepsTheLeastBudget) {
  using S = typename TypeParam::scalar;
  const ProxyInput<S> x(1, 2, 1, 200, 200, 16);
  auto policy = small_blocks(0.01f);
  policy.force_first = policy.force_diagonal = false;
  for (const Index tokens : {0, 1, 16, 17, 64, 191}) {
    policy.min_budget = tokens;
    const auto blocks = this->select(x, policy);
    const auto least = static_cast<std::size_t>(std::max<Index>(1, (tokens + 15) / 16));
    for (Index h = 0; h < 2; ++h)
      for (Index m = 0; m < blocks.row_blocks(); ++m)
        EXPECT_EQ(blocks.row(0, h, m).size(), std::min<std::size_t>(least, std::size_t(m) + 1))
            << tokens << ' ' << m;
  }
}

TYPED_TEST(ProxyHeadsTest, OfEqualScoresTheEarlierBlocksAreKept) {
  using S = typename TypeParam::scalar;
  ProxyInput<S> x(1, 2, 1, 160, 160, 8);
  std::fill(x.k.list.begin(), x.k.list.end(), S(0.0f));
  auto policy = small_blocks(0.35f);
  policy.budget = ProxyBudget::AllBlocks;
  policy.force_first = policy.force_diagonal = false;
  const auto blocks = this->select(x, policy);
  // The last block is seen in half by the last queries: the four largest of ten hold
  // 4 / (9 + 17 / 32) of the mass, three less than 0.35.
  for (Index m = 0; m < 10; ++m) {
    Row wanted(static_cast<std::size_t>(std::min<Index>(4, m + 1)));
    std::iota(wanted.begin(), wanted.end(), 0);
    EXPECT_EQ(rows_of(blocks, 0, 1)[static_cast<std::size_t>(m)], wanted);
  }
}

// Of four blocks of equal weight a head needs two for half of its mass.
TYPED_TEST(ProxyHeadsTest, StopsWhereTheMassIsReachedExactly) {
  using S = typename TestFixture::Scalar;
  ProxyInput<S> x(1, 1, 1, 16, 16, 4);
  std::fill(x.q.list.begin(), x.q.list.end(), S{});
  const ProxyHeads policy{.mass = 0.5f,
                          .stride_queries = 1,
                          .row_block = 1,
                          .column_block = 4,
                          .min_budget = 0,
                          .force_first = false,
                          .force_diagonal = false};
  const auto blocks = TestFixture::select(x, policy);
  EXPECT_EQ(rows_of(blocks, 0, 0).back(), (Row{0, 1}));
}

TYPED_TEST(ProxyHeadsTest, SharedKeysActAsRepeatedOnes) {
  using S = typename TypeParam::scalar;
  const ProxyInput<S> grouped(1, 6, 2, 200, 200, 16);
  ProxyInput<S> repeated(1, 6, 6, 200, 200, 16);
  repeated.q = grouped.q;
  for (Index h = 0; h < 6; ++h)
    for (Index i = 0; i < 200; ++i)
      for (Index c = 0; c < 16; ++c) repeated.k.at(0, h, i, c) = grouped.k.view()(0, h / 3, i, c);
  for (const Index groups : {1, 2}) {
    auto policy = small_blocks(0.7f);
    policy.groups = groups;
    const auto a = this->select(grouped, policy), b = this->select(repeated, policy);
    EXPECT_LT(a.density(true), 0.9);
    EXPECT_EQ(static_cast<const BlockMask&>(a), static_cast<const BlockMask&>(b));
  }
}

TYPED_TEST(ProxyHeadsTest, LargeScoresAndNaNLeaveAValidMask) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  ProxyInput<S> x(1, 2, 2, 100, 140, 8);
  const auto sane = [&](const SelectedBlocks& blocks) {
    for (Index h = 0; h < 2; ++h)
      for (Index m = 0; m < blocks.row_blocks(); ++m) {
        const auto row = blocks.row(0, h, m);
        const Index visible = blocks.shape().causal_columns(m);
        if (row.empty() || row.front() != 0 || row.back() != visible - 1) return false;
      }
    return true;
  };
  EXPECT_TRUE(sane(this->select(x, small_blocks(0.5f), {.causal = true, .scale = 1e4})));
  EXPECT_TRUE(sane(this->select(x, small_blocks(0.5f), {.causal = true, .scale = 1e-30})));
  x.k.at(0, 1, 20, 0) = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  x.q.at(0, 0, 30, 0) = static_cast<S>(std::numeric_limits<T>::infinity());
  const auto blocks = this->select(x, small_blocks(0.5f));
  EXPECT_TRUE(sane(blocks));
  EXPECT_TRUE(std::isnan(blocks.mass));
  for (Index m = 0; m < blocks.row_blocks(); ++m)
    EXPECT_EQ(static_cast<Index>(blocks.row(0, 1, m).size()), blocks.shape().causal_columns(m))
        << "the head whose last queries see the NaN keeps all";
  EXPECT_LT(blocks.density(true), 1) << "and the other does not";
}

/// Scores of -infinity weigh nothing: neither whole blocks of them beside others nor, in a head
/// whose last queries see nothing else, all there are.
TYPED_TEST(ProxyHeadsTest, HiddenKeysCountForNothing) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  for (const Index hidden : {70, 140}) {
    ProxyInput<S> x(1, 2, 2, 100, 140, 8);
    for (Index h = 0; h < 2; ++h)
      for (Index i = 0; i < 100; ++i) x.q.at(0, h, i, 0) = static_cast<S>(T(1));
    for (Index h = 0; h < 2; ++h)
      for (Index j = 0; j < hidden; ++j)
        x.k.at(0, h, j, 0) = static_cast<S>(-std::numeric_limits<T>::infinity());
    const auto wanted = select_blocks(pare::reference, x.q.view(), x.k.view(), small_blocks(0.5f),
                                      {.causal = true});
    const auto blocks = this->select(x, small_blocks(0.5f));
    EXPECT_EQ(static_cast<const BlockMask&>(blocks), static_cast<const BlockMask&>(wanted));
    EXPECT_EQ(std::isnan(blocks.mass), hidden == 140);
    EXPECT_EQ(blocks.density(true) < 1, hidden < 140);
  }
}

TYPED_TEST(ProxyHeadsTest, NothingToSelectFrom) {
  using S = typename TypeParam::scalar;
  EXPECT_EQ(this->select(ProxyInput<S>(0, 2, 1, 20, 20, 4), small_blocks(0.5f)).selected(), 0);
  EXPECT_EQ(this->select(ProxyInput<S>(1, 2, 1, 0, 20, 4), small_blocks(0.5f)).selected(), 0);
  EXPECT_EQ(this->select(ProxyInput<S>(1, 2, 1, 0, 0, 4), small_blocks(0.5f)).selected(), 0);
  EXPECT_EQ(this->select(ProxyInput<S>(1, 2, 1, 1, 1, 4), small_blocks(0.5f)).selected(), 2);
}

template <class S>
struct ProxyThreads : testing::Test {};
using Storages = testing::Types<float, bf16>;
TYPED_TEST_SUITE(ProxyThreads, Storages);

TYPED_TEST(ProxyThreads, DoNotChangeWhatIsSelected) {
  const ProxyInput<TypeParam> x(2, 6, 2, 700, 700, 16);
  auto policy = small_blocks(0.8f);
  policy.groups = 2;
  const auto select = [&](const auto& backend) {
    return select_blocks(backend, x.q.view(), x.k.view(), policy, {.causal = true});
  };
  const auto one = select(pare::simd);
  const auto check = [&one](const SelectedBlocks& other) {
    EXPECT_EQ(static_cast<const BlockMask&>(one), static_cast<const BlockMask&>(other));
    EXPECT_TRUE(same_bits(one.mass, other.mass));
  };
  check(select(pare::simd));
  for (const int n : {2, 3, 5}) check(select(pare::simd.threads(n)));
  check(select(pare::simd.on(ReversePool{4})));
  check(select_blocks(x.q.view(), x.k.view(), policy, {.causal = true}));
}

/// Counts how often work is handed to it.
struct CountingExecutor {
  std::shared_ptr<int> runs = std::make_shared<int>(0);

  int concurrency() const { return 2; }
  template <class F>
  void run(int n, const F& f) const {
    ++*runs;
    for (int i = 0; i < n; ++i) f(i);
  }
};

TEST(ProxyHeadsWork, NothingIsComputedWhereEveryBlockIsKept) {
  const ProxyInput<float> x(1, 4, 4, 200, 200, 16);
  const auto runs = [&](const ProxyHeads& policy) {
    const CountingExecutor executor;
    const auto blocks =
        select_blocks(pare::simd.on(executor), x.q.view(), x.k.view(), policy, {.causal = true});
    EXPECT_TRUE(*executor.runs > 0 ||
                static_cast<const BlockMask&>(blocks) ==
                    BlockMask::causal(x.shape(policy.row_block, policy.column_block)));
    return *executor.runs;
  };
  EXPECT_EQ(runs({}), 0) << "2048 tokens are all";
  EXPECT_EQ(runs(small_blocks(1)), 0);
  auto policy = small_blocks(0.9f);
  EXPECT_GT(runs(policy), 0);
  policy.min_budget = 193;  // 13 blocks of 13
  EXPECT_EQ(runs(policy), 0);
  policy.min_budget = std::numeric_limits<Index>::max();
  EXPECT_EQ(runs(policy), 0);
  policy.min_budget = 192;
  EXPECT_GT(runs(policy), 0);
}

}  // namespace
}  // namespace attention_proxy_heads_test
