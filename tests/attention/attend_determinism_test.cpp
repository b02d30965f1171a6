// SPDX-License-Identifier: Apache-2.0
// The same bits whoever computes them: threads, pools, repeated calls, used workspaces, and
// prefixes of the same sequence.
#include <gtest/gtest.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include <pare/attention/attend.hpp>

#include "attention/attend_calls.hpp"
#include "attention/backends.hpp"
#include "attention/data.hpp"
#include "support/tolerance.hpp"

namespace attention_attend_determinism_test {
namespace {

using pare::Index;
using pare::Workspace;
using pare::attention::AttendOptions;
using pare::attention::BlockMask;
using pare::attention::KeyOrder;
using pare::attention::detail::AttendMemory;
using pare::testing::attended;
using pare::testing::Coins;
using pare::testing::Inputs;
using pare::testing::Outputs;
using pare::testing::random_orders;
using pare::testing::ReversePool;
using pare::testing::same_bits;
using pare::testing::Sizes;
using pare::testing::Tensor;

template <class S>
struct AttendDeterminismTest : testing::Test {
  using Storage = S;
};
using Storages = testing::Types<float, pare::bf16>;
TYPED_TEST_SUITE(AttendDeterminismTest, Storages);

/// Calls of every kind: many items, items of unequal cost, parts that are merged.
struct Kinds {
  Sizes sizes{2, 6, 2, 210, 260, 8, 5};
  Sizes few{1, 6, 2, 3, 4500, 8, 5};
  KeyOrder order{{1, 2, 260}, random_orders(2, 260, 1)};
  KeyOrder order_of_heads{{2, 6, 260}, random_orders(12, 260, 2)};
  BlockMask mask = BlockMask::from_predicate({2, 6, 210, 260, 32, 20}, Coins{1, 40});
  BlockMask mask_of_few = BlockMask::from_predicate({1, 6, 3, 4500, 1, 100}, Coins{2, 40});
  std::vector<Index> lengths{30, 260};

  std::vector<AttendOptions> dense() const {
    return {{},
            {.causal = true},
            {.causal = true, .window = 50, .sinks = 5},
            {.causal = true, .order = &order},
            {.causal = true, .order = &order_of_heads, .mask = &mask},
            {.causal = true, .mask = &mask, .key_lengths = lengths}};
  }
  std::vector<AttendOptions> decode() const {
    return {{.causal = true}, {.causal = true, .window = 3000}, {.mask = &mask_of_few}};
  }
};

TYPED_TEST(AttendDeterminismTest, AnyThreadsAndPoolsGiveTheSameBits) {
  using S = typename TestFixture::Storage;
  const Kinds kinds;
  const auto expect_same = [](const Inputs<S>& x, const AttendOptions& options) {
    const Outputs<S> wanted = attended(pare::simd, x, options);
    EXPECT_TRUE(same_outputs(attended(pare::simd, x, options), wanted)) << "again";
    for (const int n : {1, 2, 3, 8})
      EXPECT_TRUE(same_outputs(attended(pare::simd.threads(n), x, options), wanted)) << n;
    for (const int n : {1, 5})
      EXPECT_TRUE(same_outputs(attended(pare::simd.on(ReversePool{n}), x, options), wanted)) << n;
  };
  const Inputs<S> x(kinds.sizes), few(kinds.few);
  for (const AttendOptions& options : kinds.dense()) expect_same(x, options);
  for (const AttendOptions& options : kinds.decode()) expect_same(few, options);
}

// Many merges of many rows on several threads: each has a scratch of its own.
TEST(AttendDeterminism, MergesOnManyThreadsDoNotMeet) {
  const Inputs<float> x(Sizes{1, 1, 1, 2050, 2050, 2, 256});
  const Index sequences = 48, queries = 16;
  // Every sequence has the same keys and values, and queries of its own.
  const auto of_all = [&](const Tensor<float>& t, Index step) {
    return pare::TensorView<const float, 4>{t.list.data(),
                                            {sequences, 1, step > 0 ? queries : 2050, t.extent[3]},
                                            {step, 0, t.extent[3], 1}};
  };
  const auto q = of_all(x.q, 2 * 41), k = of_all(x.k, 0), v = of_all(x.v, 0);
  Tensor<float> wanted({sequences, 1, queries, 256}), got = wanted;
  pare::attention::attend(pare::simd, q, k, v, wanted.writable());
  for (int again = 0; again < 5; ++again) {
    std::fill(got.list.begin(), got.list.end(), -7.0f);  // a row left out must show
    pare::attention::attend(pare::simd.threads(4), q, k, v, got.writable());
    EXPECT_TRUE(pare::testing::all_same_bits(got.list, wanted.list)) << again;
  }
}

// In this pool the last worker does all there is to do: the scratch of the others stays empty.
TEST(AttendDeterminism, AWorkerUsesNoScratchButItsOwn) {
  const Inputs<float> x(Sizes{4, 1, 1, 2, 4100, 8, 5});
  Workspace workspace;
  attended(pare::simd.on(ReversePool{3}).with(workspace), x);
  const auto kept = workspace.lease<AttendMemory>();
  ASSERT_EQ(kept->workers.size(), 3u);
  EXPECT_GE(kept->merges.size(), 3u);
  EXPECT_EQ(kept->workers[0].capacity(), 0u);
  EXPECT_EQ(kept->workers[1].capacity(), 0u);
  EXPECT_GT(kept->workers[2].capacity(), 0u);
}

TYPED_TEST(AttendDeterminismTest, AUsedWorkspaceLeavesTheResult) {
  using S = typename TestFixture::Storage;
  const Kinds kinds;
  const Inputs<S> x(kinds.sizes), few(kinds.few);
  const Inputs<double> other(Sizes{1, 2, 1, 17, 33, 40, 70});
  Workspace workspace;
  const auto kept = pare::simd.with(workspace);
  const auto expect_same = [&](const Inputs<S>& inputs, const AttendOptions& options) {
    const Outputs<S> wanted = attended(pare::simd, inputs, options);
    EXPECT_TRUE(same_outputs(attended(kept.threads(3), inputs, options), wanted));
    attended(kept, other);
    EXPECT_TRUE(same_outputs(attended(kept, inputs, options), wanted));
  };
  for (const AttendOptions& options : kinds.dense()) expect_same(x, options);
  for (const AttendOptions& options : kinds.decode()) expect_same(few, options);
}

/// The first `count` tokens.
template <class S>
Tensor<S> first_tokens(const Tensor<S>& t, Index count) {
  Tensor<S> cut({t.extent[0], t.extent[1], count, t.extent[3]});
  for (Index b = 0; b < t.extent[0]; ++b)
    for (Index h = 0; h < t.extent[1]; ++h)
      for (Index i = 0; i < count; ++i)
        for (Index c = 0; c < t.extent[3]; ++c) cut(b, h, i, c) = t(b, h, i, c);
  return cut;
}

template <class S>
void expect_prefix(const Outputs<S>& whole, const Outputs<S>& prefix) {
  for (Index h = 0; h < prefix.out.extent[1]; ++h)
    for (Index i = 0; i < prefix.out.extent[2]; ++i) {
      ASSERT_TRUE(same_bits(whole.lse(0, h, i, 0), prefix.lse(0, h, i, 0))) << h << ' ' << i;
      for (Index c = 0; c < prefix.out.extent[3]; ++c)
        ASSERT_TRUE(same_bits(whole.out(0, h, i, c), prefix.out(0, h, i, c))) << h << ' ' << i;
    }
}

// Dense attention without a window. The whole has items of 288 rows, the prefixes of 96. Only the
// few rows of an item of 12 or less are multiplied in another way, so no prefix leaves such a rest;
// and where the others multiply pairs of bf16, those of up to 16 queries, which do not.
TYPED_TEST(AttendDeterminismTest, ARowDoesNotDependOnRowsAfterIt) {
  using S = typename TestFixture::Storage;
  const Sizes sizes{1, 32, 4, 300, 300, 8, 5};
  const Inputs<S> x(sizes);
  const Outputs<S> causal = attended(pare::simd, x, {.causal = true}),
                   all = attended(pare::simd, x);
  constexpr bool pairs = std::is_same_v<S, pare::bf16> && pare::arch::best::has_bf16_dot;
  for (const Index n : {2, 5, 16, 17, 64, 127, 128, 129, 290}) {
    if (pairs && n <= 16) continue;
    Inputs<S> cut = x;
    cut.sizes.queries = n;
    cut.q = first_tokens(x.q, n);
    expect_prefix(all, attended(pare::simd, cut));
    cut.sizes.keys = n;
    cut.k = first_tokens(x.k, n);
    cut.v = first_tokens(x.v, n);
    expect_prefix(causal, attended(pare::simd, cut, {.causal = true}));
  }
}

}  // namespace
}  // namespace attention_attend_determinism_test
