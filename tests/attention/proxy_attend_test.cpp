// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <pare/attention/proxy_heads.hpp>

#include "attention/proxy_data.hpp"
#include "support/backends.hpp"
#include "support/tolerance.hpp"

namespace attention_proxy_attend_test {
namespace {

using namespace pare::attention;
using pare::bf16;
using pare::Index;
using pare::TensorView;
using pare::testing::alike_heads;
using pare::testing::BackendAndScalar;
using pare::testing::BestBackend;
using pare::testing::dense_attention;
using pare::testing::ProxyInput;
using pare::testing::ReferenceBackend;
using pare::testing::Tokens;
using pare::testing::within;

static_assert(LayerSelector<ProxyHeads> && !HeadSelector<ProxyHeads>);

constexpr ProxyHeads half{.mass = 0.5f, .row_block = 16, .column_block = 32, .min_budget = 0};

/// q, k, v, and room for an output and its log-sum-exp.
template <class S>
struct AttendInput : ProxyInput<S> {
  using T = pare::compute_t<S>;
  static constexpr Index value_dim = 5;

  Tokens<S> v;
  Tokens<T> out;
  std::vector<T> lse;

  AttendInput(Index batch, Index heads, Index kv_heads, Index queries, Index keys, Index dim)
      : ProxyInput<S>(batch, heads, kv_heads, queries, keys, dim),
        v(alike_heads<S>(batch, kv_heads, keys, value_dim, 1, 9)),
        out(batch, heads, queries, value_dim),
        lse(static_cast<std::size_t>(batch * heads * queries), T(7)) {
    std::fill(out.list.begin(), out.list.end(), T(7));
  }

  TensorView<T, 3> lse_view() {
    const auto& e = this->q.extent;
    return {lse.data(), {e[0], e[1], e[2]}, {e[1] * e[2], e[2], 1}};
  }
  template <class B>
  AttendStats attend(const B& backend, const ProxyHeads& policy,
                     AttendOptions options = {.causal = true}) {
    options.lse = lse_view();
    return pare::attention::attend(backend, this->q.view(), this->k.view(), v.view(), out.view(),
                                   policy, options);
  }
};

template <class Case>
struct ProxyAttend : testing::Test {};
using Cases =
    testing::Types<BackendAndScalar<ReferenceBackend, float>, BackendAndScalar<BestBackend, float>,
                   BackendAndScalar<BestBackend, double>, BackendAndScalar<BestBackend, bf16>>;
TYPED_TEST_SUITE(ProxyAttend, Cases);

TYPED_TEST(ProxyAttend, IsAttentionOverTheBlocksSelected) {
  using S = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  AttendInput<S> x(2, 4, 2, 120, 150, 9);
  auto y = x;
  const auto stats = x.attend(backend, half, {.causal = true, .scale = 0.5});
  const auto blocks = select_blocks(backend, x.q.view(), x.k.view(), half,
                                    SelectOptions{.causal = true, .scale = 0.5});
  attend(backend, y.q.view(), y.k.view(), y.v.view(), y.out.view(),
         {.causal = true, .scale = 0.5, .mask = &blocks, .lse = y.lse_view()});
  EXPECT_EQ(x.out.list, y.out.list);
  EXPECT_EQ(x.lse, y.lse);
  EXPECT_EQ(stats.density, blocks.density(true));
  EXPECT_LT(stats.density, 0.9);
  EXPECT_EQ(stats.selected_mass, blocks.mass);
  EXPECT_GT(stats.select_seconds, 0);
  // And against brute force: values are below 4, and weights of bf16 are off by 2^-9 of themselves,
  // above and below the line; float sums 150 terms.
  const double bound = sizeof(S) == 2 ? 2 * 4 * std::ldexp(1.0, -9) : 1e-5;
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 4; ++h) {
      const auto o = dense_attention(
          x.q.head(b, h), x.k.head(b, h / 2), x.v.head(b, h / 2), 0.5, [&](Index i, Index j) {
            const auto row = blocks.row(b, h, i / 16);
            return j <= i + 30 && std::binary_search(row.begin(), row.end(), j / 32);
          });
      for (Index i = 0; i < 120; ++i)
        for (Index c = 0; c < 5; ++c)
          ASSERT_TRUE(within(static_cast<double>(x.out.at(b, h, i, c)), o.out(i, c), bound));
    }
}

TYPED_TEST(ProxyAttend, MassOneIsExact) {
  using S = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  AttendInput<S> x(1, 4, 2, 100, 140, 9);
  auto y = x;
  auto policy = half;
  policy.mass = 1;
  const auto stats = x.attend(backend, policy);
  attend(backend, y.q.view(), y.k.view(), y.v.view(), y.out.view(),
         {.causal = true, .lse = y.lse_view()});
  EXPECT_EQ(x.out.list, y.out.list);
  EXPECT_EQ(x.lse, y.lse);
  EXPECT_EQ(stats.density, 1);
  EXPECT_EQ(stats.selected_mass, 1);
  auto z = x;
  EXPECT_EQ(z.attend(backend, ProxyHeads{}).density, 1) << "shorter than the least budget";
  EXPECT_EQ(z.out.list, y.out.list);
}

TYPED_TEST(ProxyAttend, ConstantValuesComeOutAsTheyAre) {
  using S = typename TypeParam::scalar;
  AttendInput<S> x(1, 2, 1, 130, 130, 9);
  for (Index i = 0; i < 130; ++i)
    for (Index c = 0; c < 5; ++c) x.v.at(0, 0, i, c) = static_cast<S>(0.5f);
  auto policy = half;
  policy.force_first = policy.force_diagonal = false;
  x.attend(TypeParam::backend::make(), policy);
  for (Index h = 0; h < 2; ++h)
    for (Index i = 0; i < 130; ++i) {
      // A row whose own block is not kept may see nothing.
      if (static_cast<double>(x.lse_view()(0, h, i)) < -1e30) {
        EXPECT_EQ(x.out.at(0, h, i, 2), 0);
        continue;
      }
      EXPECT_TRUE(within(static_cast<double>(x.out.at(0, h, i, 2)), 0.5, 1e-5));
    }
}

/// A selector of one's own, of heads: the diagonal, and the first block if the head is even.
struct OwnHeads : SelectorHooks {
  Index row_block = 16, column_block = 32;
  bool all = false;
  template <class B, class S>
  double select(const B&, const SelectorHead<S>& head, BlockLists& keep) const {
    for (Index m = 0; m < keep.rows(); ++m) {
      keep.add(m, head.position(m * row_block) / column_block);
      if (head.head % 2 == 0) keep.add(m, 0);
    }
    return 0.25;
  }
  bool keeps_all(const SelectorCall& call) const { return all && call.causal; }
  void validate(const char* function, const SelectorCall& call) const {
    pare::check(call.causal, function, "causal", "false", "true");
  }
};

TYPED_TEST(ProxyAttend, TakesAnySelector) {
  using S = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  AttendInput<S> x(1, 4, 2, 70, 100, 9), y = x, z = x;
  const OwnHeads own;
  const auto call = [&](AttendInput<S>& to, const auto&... rest) {
    return attend(backend, to.q.view(), to.k.view(), to.v.view(), to.out.view(), rest...);
  };
  const AttendStats stats = call(x, own);
  const auto blocks = select_blocks(backend, x.q.view(), x.k.view(), own, {.causal = true});
  call(y, AttendOptions{.causal = true, .mask = &blocks});
  EXPECT_EQ(x.out.list, y.out.list);
  EXPECT_EQ(stats.density, blocks.density(true));
  EXPECT_LT(stats.density, 0.9);
  EXPECT_EQ(stats.selected_mass, 0.25);
  OwnHeads all = own;
  all.all = true;
  EXPECT_EQ(call(x, all).selected_mass, 1);
  call(z, AttendOptions{.causal = true});
  EXPECT_EQ(x.out.list, z.out.list);
  std::fill(x.out.list.begin(), x.out.list.end(), 7);
  const auto untouched = x.out.list;
  OwnHeads wide = own;
  wide.row_block = 0;
  EXPECT_THROW(call(x, wide), std::invalid_argument);
  EXPECT_THROW(call(x, own, AttendOptions{.causal = false}), std::invalid_argument) << "validate";
  EXPECT_THROW(call(x, own, AttendOptions{.causal = true, .mask = &blocks}), std::invalid_argument);
  EXPECT_THROW(call(x, own, AttendOptions{.causal = true, .window = 8}), std::invalid_argument);
  EXPECT_EQ(x.out.list, untouched);
}

TEST(ProxyAttendThreads, DoNotChangeTheBits) {
  AttendInput<float> one(1, 4, 2, 300, 300, 16);
  const AttendStats stats = one.attend(pare::simd, half);
  for (const int n : {2, 3}) {
    AttendInput<float> other(1, 4, 2, 300, 300, 16);
    const AttendStats others = other.attend(pare::simd.threads(n), half);
    EXPECT_EQ(one.out.list, other.out.list);
    EXPECT_EQ(one.lse, other.lse);
    EXPECT_EQ(stats.density, others.density);
    EXPECT_EQ(stats.selected_mass, others.selected_mass);
  }
}

TEST(ProxyAttendCalls, LeaveOutTheBackendAndAreCausalThen) {
  AttendInput<float> x(1, 2, 1, 100, 100, 8), y = x;
  attend(x.q.view(), x.k.view(), x.v.view(), x.out.view(), half);
  pare::Workspace workspace;
  y.attend(pare::simd.with(workspace), half, {.causal = true});
  EXPECT_EQ(x.out.list, y.out.list);
  attend(pare::simd, x.q.view(), x.k.view(), x.v.view(), x.out.view(), half);
  EXPECT_EQ(x.out.list, y.out.list);
  attend(x.q.view(), x.k.view(), x.v.view(), x.out.view(), half, {.causal = true});
  EXPECT_EQ(x.out.list, y.out.list);
}

TEST(ProxyAttendCalls, AreCausalWhateverElseIsSaid) {
  AttendInput<float> said(1, 4, 2, 40, 40, 8), left_out(1, 4, 2, 40, 40, 8);
  said.attend(pare::simd, half, {.causal = true, .scale = 0.5});
  left_out.attend(pare::simd, half, {.scale = 0.5});
  EXPECT_EQ(left_out.out.list, said.out.list);
}

TEST(ProxyAttendCalls, NoQueriesAreANoOp) {
  AttendInput<float> x(1, 2, 1, 0, 40, 8);
  const AttendStats stats = x.attend(pare::simd, half);
  EXPECT_EQ(stats.density, 1);
  AttendInput<float> y(0, 2, 1, 40, 40, 8);
  EXPECT_EQ(y.attend(pare::reference, half).density, 1);
}

/// The message of the std::invalid_argument that `call` throws; empty if it throws none.
std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return {};
}

struct Wrong {
  const char* argument;
  ProxyHeads policy;
};

const std::vector<Wrong>& wrong_policies() {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  static const std::vector<Wrong> list = {{"groups", {.groups = 0}},
                                          {"groups", {.groups = -1}},
                                          {"groups", {.groups = 3}},
                                          {"groups", {.groups = 4}},
                                          {"mass", {.mass = 0}},
                                          {"mass", {.mass = -0.5f}},
                                          {"mass", {.mass = 1.01f}},
                                          {"mass", {.mass = nan}},
                                          {"mass", {.mass = infinity}},
                                          {"stride_queries", {.stride_queries = 0}},
                                          {"stride_queries", {.stride_queries = 129}},
                                          {"stride_queries", {.stride_queries = -4}},
                                          {"stride_keys", {.stride_keys = 0}},
                                          {"stride_keys", {.stride_keys = 17, .column_block = 16}},
                                          {"row_block", {.row_block = 0}},
                                          {"row_block", {.row_block = -128}},
                                          {"column_block", {.column_block = 0}},
                                          {"column_block", {.column_block = -1}},
                                          {"min_budget", {.min_budget = -1}},
                                          {"budget", {.budget = static_cast<ProxyBudget>(2)}}};
  return list;
}

/// 4 heads, 2 key/value heads, 40 queries and keys.
template <class B>
void expect_refused(const B& backend) {
  AttendInput<float> x(1, 4, 2, 40, 40, 8);
  const auto untouched = x.out.list;
  const auto lse = x.lse;
  const auto attends = [&](const std::string& argument, const ProxyHeads& policy,
                           const AttendOptions& options = {.causal = true}) {
    const std::string message = refusal([&] { x.attend(backend, policy, options); });
    EXPECT_NE(message.find("attention::attend: " + argument), std::string::npos)
        << argument << ": " << message;
    EXPECT_EQ(x.out.list, untouched);
    EXPECT_EQ(x.lse, lse);
  };
  const auto selects = [&](const std::string& argument, const ProxyHeads& policy,
                           const SelectOptions& options = {.causal = true}) {
    const std::string message =
        refusal([&] { select_blocks(backend, x.q.view(), x.k.view(), policy, options); });
    EXPECT_NE(message.find("attention::select_blocks: " + argument), std::string::npos)
        << argument << ": " << message;
  };
  for (const Wrong& wrong : wrong_policies()) {
    attends(wrong.argument, wrong.policy);
    selects(wrong.argument, wrong.policy);
  }
  for (const double scale : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(),
                             std::numeric_limits<double>::infinity()}) {
    attends("scale", half, {.causal = true, .scale = scale});
    selects("scale", half, {.causal = true, .scale = scale});
  }
  selects("causal", half, {.causal = false});
  selects("causal", half, {});
  attends("causal", half, {.causal = false});
  const BlockMask mask = BlockMask::causal(x.shape(16, 16));
  const KeyOrder order = KeyOrder::identity({1, 1, 40});
  const std::vector<Index> lengths{40}, offsets{0, 40};
  attends("mask, order", half, {.causal = true, .mask = &mask});
  attends("mask, order", half, {.causal = true, .order = &order});
  attends("window", half, {.causal = true, .window = 8});
  attends("window", half, {.causal = true, .window = -1});
  attends("key_lengths", half, {.causal = true, .key_lengths = lengths});
  attends("key_lengths", half, {.causal = true, .query_offsets = offsets, .key_offsets = offsets});
}

TEST(ProxyErrors, PolicyAndOptions) {
  expect_refused(pare::simd);
  expect_refused(pare::reference);
}

TEST(ProxyErrors, GroupsDivideTheKeyValueHeads) {
  const ProxyInput<float> x(1, 12, 6, 40, 40, 8);
  for (const Index groups : {1, 2, 3, 6})
    EXPECT_EQ(refusal([&] {
                select_blocks(x.q.view(), x.k.view(), ProxyHeads{.groups = groups},
                              {.causal = true});
              }),
              "");
  for (const Index groups : {4, 5, 12})
    EXPECT_NE(refusal([&] {
                select_blocks(x.q.view(), x.k.view(), ProxyHeads{.groups = groups},
                              {.causal = true});
              }),
              "");
}

TEST(ProxyErrors, Tensors) {
  const auto both = [](const std::string& argument, AttendInput<float> x,
                       const ProxyHeads& policy = half) {
    const auto untouched = x.out.list;
    const std::string selecting =
        refusal([&] { select_blocks(x.q.view(), x.k.view(), policy, {.causal = true}); });
    EXPECT_NE(selecting.find(argument), std::string::npos) << argument << ": " << selecting;
    const std::string attending = refusal([&] { x.attend(pare::simd, policy); });
    EXPECT_NE(attending.find(argument), std::string::npos) << argument << ": " << attending;
    EXPECT_EQ(x.out.list, untouched);
  };
  both("q: ", AttendInput<float>(1, 2, 1, 41, 40, 8));
  both("q: ", AttendInput<float>(1, 3, 2, 40, 40, 8));
  AttendInput<float> dim(1, 2, 1, 40, 40, 8);
  dim.k = Tokens<float>(1, 1, 40, 9);
  both("q: ", dim);
  AttendInput<float> batch(2, 2, 1, 40, 40, 8);
  batch.k = Tokens<float>(1, 1, 40, 8);
  both("q: ", batch);
  both("k: ", AttendInput<float>(1, 2, 1, 40, 40, 0));
}

TEST(ProxyErrors, OutputIsCheckedBeforeItIsWritten) {
  AttendInput<float> x(1, 2, 1, 40, 40, 8);
  const auto q = x.q.list;
  EXPECT_NE(refusal([&] {
              attend(x.q.view(), x.k.view(), x.v.view(),
                     TensorView<float, 4>{x.q.list.data(), {1, 2, 40, 5}, {400, 200, 5, 1}}, half);
            }),
            "");
  EXPECT_EQ(x.q.list, q);
  const auto out = x.out.list;
  x.v = Tokens<float>(1, 1, 39, 5);
  EXPECT_NE(refusal([&] { x.attend(pare::simd, half); }), "");
  EXPECT_EQ(x.out.list, out);
}

}  // namespace
}  // namespace attention_proxy_attend_test
