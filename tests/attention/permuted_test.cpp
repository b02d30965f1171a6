// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include <pare/attention/permuted.hpp>
#include <pare/attention/sliding_window.hpp>

#include "attention/heads.hpp"
#include "attention/oracle.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace attention_permuted_test {
namespace {

using pare::Index;
using pare::attention::Antidiagonal;
using pare::attention::attend;
using pare::attention::AttendOptions;
using pare::attention::AttendStats;
using pare::attention::BlockLists;
using pare::attention::KeyOrder;
using pare::attention::MeanPool;
using pare::attention::order_keys;
using pare::attention::Permuted;
using pare::attention::select_blocks;
using pare::attention::SelectorCall;
using pare::attention::SelectorHead;
using pare::attention::SelectorHooks;
using pare::testing::Heads;
using pare::testing::normal_heads;
using pare::testing::refusal;
using pare::testing::same_bits;
using pare::testing::Tolerance;
using pare::testing::within;

/// Sparse at sizes of a test.
template <class Selector>
Permuted<Selector> small(const Selector& selector) {
  return {.selector = selector,
          .segment = 32,
          .queries = 16,
          .dense_below = 0,
          .dense_below_queries = 0,
          .dense_above = 1};
}

const MeanPool means{.row_block = 16, .column_block = 16, .mass = 0.6f};
const Antidiagonal diagonals{.row_block = 16, .column_block = 16, .stride = 4, .mass = 0.6f};

Permuted<MeanPool> small() { return small(means); }

template <class T>
struct Problem {
  Heads<T> q, k, v, out;
  Problem(Index queries, Index keys)
      : q(normal_heads<T>(2, 4, queries, 12, 51)),
        k(normal_heads<T>(2, 2, keys, 12, 52)),
        v(normal_heads<T>(2, 2, keys, 6, 53)),
        out(2, 4, queries, 6, T(7)) {}

  template <class B, class P>
  AttendStats run(const B& backend, const Permuted<P>& policy, const AttendOptions& options) {
    return attend(backend, q.view(), k.view(), v.view(), out.writable(), policy, options);
  }
  template <class B>
  Heads<T> exact(const B& backend) const {
    Heads<T> result(2, 4, out.tokens, 6);
    attend(backend, q.view(), k.view(), v.view(), result.writable(), {.causal = true});
    return result;
  }
};

template <class T>
void expect_same(const Heads<T>& got, const Heads<T>& wanted) {
  for (std::size_t i = 0; i < got.list.size(); ++i)
    ASSERT_TRUE(same_bits(got.list[i], wanted.list[i])) << i;
}

template <class P>
class PermutedAttention : public testing::Test {
 protected:
  using Scalar = typename P::scalar;
  static auto backend() { return P::backend::make(); }
};
TYPED_TEST_SUITE(PermutedAttention, pare::testing::BackendsAndScalars);

template <class B, class T, class Selector>
void expect_three_steps(const B& backend, Problem<T> p, bool share, const Selector& selector) {
  Permuted<Selector> policy = small(selector);
  policy.share_kv_heads = share;
  const AttendStats stats = p.run(backend, policy, {.causal = true, .scale = 0.4});
  const KeyOrder order =
      order_keys(backend, p.q.view(), p.k.view(),
                 {.segment = 32, .queries = 16, .share_kv_heads = share, .scale = 0.4});
  EXPECT_EQ(order.shape().heads, share ? 2 : 4);
  Selector with_segment = selector;
  if constexpr (requires { with_segment.segment = 32; }) with_segment.segment = 32;
  const auto blocks = select_blocks(backend, p.q.view(), p.k.view(), order, with_segment,
                                    {.causal = true, .scale = 0.4});
  Heads<T> wanted(2, 4, p.q.tokens, 6);
  attend(backend, p.q.view(), p.k.view(), p.v.view(), wanted.writable(),
         {.causal = true, .scale = 0.4, .order = &order, .mask = &blocks});
  expect_same(p.out, wanted);
  EXPECT_EQ(stats.density, blocks.density(true));
  EXPECT_LT(stats.density, 1);
  EXPECT_EQ(stats.selected_mass, blocks.mass);
  EXPECT_GE(stats.selected_mass, 0.6 - 1e-5);
  EXPECT_GT(stats.select_seconds, 0);
}

/// A selector of one's own, without a segment: the block where most of the largest keys are.
struct LargestKeys : SelectorHooks {
  Index row_block = 16, column_block = 16;
  template <class B, class S>
  double select(const B&, const SelectorHead<S>& head, BlockLists& keep) const {
    for (Index m = 0; m < keep.rows(); ++m) {
      const Index last = head.position(std::min((m + 1) * row_block, head.q.rows()) - 1);
      for (Index n = 0; n <= last / 32 * 2 + 1 && n < keep.columns(); ++n)
        if (n >= last / 32 * 2 || head.key(n * column_block)[0] > S(0)) keep.add(m, n);
    }
    return 0.75;
  }
  bool keeps_all(const SelectorCall& call) const { return call.keys == 299; }
  void validate(const char* function, const SelectorCall& call) const {
    pare::check(call.ordered && call.causal && call.heads == 4, function, "call", "another",
                "this");
  }
};

TYPED_TEST(PermutedAttention, IsOrderSelectionAndAttention) {
  using T = typename TestFixture::Scalar;
  for (const bool share : {true, false})
    for (const Index queries : {300, 70}) {
      const Problem<T> p(queries, 300);
      expect_three_steps(this->backend(), p, share, means);
      expect_three_steps(this->backend(), p, share, diagonals);
      expect_three_steps(this->backend(), p, share, LargestKeys{});
    }
}

TYPED_TEST(PermutedAttention, TellsAndAsksASelectorOfTheUser) {
  using T = typename TestFixture::Scalar;
  Problem<T> p(299, 299);
  EXPECT_EQ(p.run(this->backend(), small(LargestKeys{}), {.causal = true}).density, 1);
  expect_same(p.out, p.exact(this->backend()));
  pare::attention::SlidingWindow window;
  EXPECT_THROW(p.run(this->backend(), Permuted{window}, {.causal = true}), std::invalid_argument)
      << "an order, though the call would be exact";
  Permuted<MeanPool> policy = small();
  policy.selector.segment = 64;
  refusal([&] { p.run(this->backend(), policy, {.causal = true}); }, "attention::attend",
          "selector.segment");
  policy.selector.segment = 32;
  EXPECT_LT(p.run(this->backend(), policy, {.causal = true}).density, 1);
}

static_assert(std::is_same_v<decltype(Permuted{}), Permuted<MeanPool>>);
static_assert(std::is_same_v<decltype(Permuted{diagonals}), Permuted<Antidiagonal>>);
static_assert(std::is_same_v<decltype(Permuted{LargestKeys{}, 512}), Permuted<LargestKeys>>);
#if __cpp_deduction_guides >= 201907L
static_assert(std::is_same_v<decltype(Permuted{.selector = diagonals, .segment = 512}),
                             Permuted<Antidiagonal>>);
static_assert(std::is_same_v<decltype(Permuted{.segment = 512}), Permuted<MeanPool>>);
#endif

/// The weights of the blocks that are kept add up to 1.
TYPED_TEST(PermutedAttention, LeavesConstantValuesAsTheyAre) {
  using T = typename TestFixture::Scalar;
  Problem<T> p(133, 300);
  std::ranges::fill(p.v.list, T(3));
  p.run(this->backend(), small(), {.causal = true});
  for (const T x : p.out.list)
    EXPECT_TRUE(within(static_cast<double>(x), 3, Tolerance<T>::scaled_sum(2 * 300, 3)));
}

TYPED_TEST(PermutedAttention, IsExactWhereSkippingCannotPay) {
  using T = typename TestFixture::Scalar;
  std::vector<Permuted<MeanPool>> policies(6, small());
  policies[0].selector.mass = 1;
  policies[1].selector.head_masses = {1, 1, 2, std::numeric_limits<float>::infinity()};
  policies[2].segment = 304;
  policies[3].dense_below = 301;
  policies[4].dense_below_queries = 301;
  policies[5] = Permuted{};
  for (const Permuted<MeanPool>& policy : policies) {
    Problem<T> p(300, 300);
    const AttendStats stats = p.run(this->backend(), policy, {.causal = true});
    expect_same(p.out, p.exact(this->backend()));
    EXPECT_EQ(stats.density, 1);
    EXPECT_EQ(stats.selected_mass, 1);
    EXPECT_EQ(stats.select_seconds, 0);
  }
  Problem<T> p(300, 300);
  Permuted<MeanPool> dense = small();
  dense.dense_above = 0;
  const AttendStats stats = p.run(this->backend(), dense, {.causal = true});
  expect_same(p.out, p.exact(this->backend()));
  EXPECT_EQ(stats.density, 1);
  EXPECT_GT(stats.select_seconds, 0) << "time spent on finding that out";
}

/// Two heads of a group that look for opposite keys, one of each kind in every 16: the mean of
/// their queries looks for neither.
template <class T>
struct OppositeHeads {
  Heads<T> q = normal_heads<T>(1, 2, 256, 8, 57), k = normal_heads<T>(1, 1, 256, 8, 58);
  Heads<T> v = normal_heads<T>(1, 1, 256, 8, 59), out{1, 2, 256, 8};

  OppositeHeads() {
    for (Heads<T>* x : {&q, &k})
      for (T& scalar : x->list) scalar *= T(0.25);
    for (Index i = 0; i < 256; ++i) {
      q(0, 0, i, 0) = 4;
      q(0, 1, i, 0) = -4;
      k(0, 0, i, 0) = i % 16 == 5 ? T(4) : i % 16 == 11 ? T(-4) : T(0);
    }
  }

  /// The least mean mass covered of a head.
  template <class B>
  double covered(const B& backend, const Permuted<MeanPool>& policy, double& density) {
    std::vector<T> exact(512), sparse(512);
    const auto view = [](std::vector<T>& list) {
      return pare::TensorView<T, 3>{list.data(), {1, 2, 256}, {512, 256, 1}};
    };
    attend(backend, q.view(), k.view(), v.view(), out.writable(),
           {.causal = true, .lse = view(exact)});
    density = attend(backend, q.view(), k.view(), v.view(), out.writable(), policy,
                     {.causal = true, .lse = view(sparse)})
                  .density;
    double heads[2] = {0, 0};
    for (std::size_t i = 0; i < 512; ++i)
      heads[i / 256] += std::exp(static_cast<double>(sparse[i] - exact[i])) / 256;
    return std::min(heads[0], heads[1]);
  }
};

TYPED_TEST(PermutedAttention, HeadsOfAGroupThatLookElsewhereKeepTheirMass) {
  using T = typename TestFixture::Scalar;
  OppositeHeads<T> p;
  Permuted<MeanPool> policy = small();
  policy.segment = 64;
  double density = 0, shared_density = 0;
  EXPECT_GT(p.covered(this->backend(), policy, density), 0.93);
  policy.share_kv_heads = true;
  EXPECT_LT(p.covered(this->backend(), policy, shared_density), 0.9);
  EXPECT_LT(density, shared_density);
}

/// A whole mass for one head only: that head is exact up to rounding, the order is still there.
TYPED_TEST(PermutedAttention, TakesAMassForEachHead) {
  using T = typename TestFixture::Scalar;
  Problem<T> p(300, 300);
  Permuted<MeanPool> policy = small();
  policy.selector.head_masses = {1, 0.3f, 0.3f, 1};
  p.run(this->backend(), policy, {.causal = true});
  const Heads<T> exact = p.exact(this->backend());
  for (const Index h : {0, 1, 2, 3}) {
    double worst = 0;
    for (Index i = 0; i < 300; ++i)
      for (Index c = 0; c < 6; ++c)
        worst = std::max(worst, std::abs(static_cast<double>(p.out.head(1, h)(i, c)) -
                                         static_cast<double>(exact.head(1, h)(i, c))));
    if (h == 0 || h == 3) {
      EXPECT_LE(worst, 8 * Tolerance<T>::scaled_sum(340, 5));
    } else {
      EXPECT_GT(worst, 0.05);
    }
  }
}

TYPED_TEST(PermutedAttention, IsCausalIfOptionsAreLeftOut) {
  using T = typename TestFixture::Scalar;
  Problem<T> p(100, 100), same(100, 100);
  attend(this->backend(), p.q.view(), p.k.view(), p.v.view(), p.out.writable(), small());
  same.run(this->backend(), small(), {.causal = true});
  expect_same(p.out, same.out);
}

// No braces mean a policy: they are the default options of exact attention.
TYPED_TEST(PermutedAttention, IsNotWhatEmptyBracesMean) {
  using T = typename TestFixture::Scalar;
  Problem<T> p(20, 30), same(20, 30);
  attend(this->backend(), p.q.view(), p.k.view(), p.v.view(), p.out.writable(), {});
  attend(this->backend(), same.q.view(), same.k.view(), same.v.view(), same.out.writable(),
         AttendOptions{});
  expect_same(p.out, same.out);
}

TYPED_TEST(PermutedAttention, TakesNothing) {
  using T = typename TestFixture::Scalar;
  Problem<T> none(0, 300);
  EXPECT_NO_THROW(none.run(this->backend(), small(), {.causal = true}));
}

TYPED_TEST(PermutedAttention, RefusesBeforeItWrites) {
  using T = typename TestFixture::Scalar;
  const auto refuses = [&](const auto& change, const AttendOptions& options) {
    Problem<T> p(96, 96);
    for (const Index dense_below : {Index{0}, Index{1000}}) {
      Permuted<MeanPool> policy = small();
      policy.dense_below = dense_below;
      change(policy);
      EXPECT_THROW(p.run(this->backend(), policy, options), std::invalid_argument);
    }
    for (const T x : p.out.list) ASSERT_EQ(x, T(7));
  };
  const AttendOptions causal{.causal = true};
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  refuses([](auto& p) { p.selector.row_block = 0; }, causal);
  refuses([](auto& p) { p.segment = 0; }, causal);
  refuses([](auto& p) { p.segment = -32; }, causal);
  refuses([](auto& p) { p.segment = 24; }, causal);
  refuses([](auto& p) { p.selector.mass = 0; }, causal);
  refuses([](auto& p) { p.selector.mass = nan; }, causal);
  refuses([](auto& p) { p.selector.head_masses = {0.5f, 0.5f}; }, causal);
  refuses([](auto& p) { p.selector.head_masses = {0.5f, 0.5f, nan, 0.5f}; }, causal);
  refuses([](auto& p) { p.queries = 0; }, causal);
  refuses([](auto& p) { p.dense_above = nan; }, causal);
  for (const Index stride : {0, 3, 32}) {
    Permuted<Antidiagonal> policy = small(diagonals);
    policy.selector.stride = stride;
    for (policy.dense_below = 0; policy.dense_below <= 1000; policy.dense_below += 1000)
      EXPECT_THROW(Problem<T>(96, 96).run(this->backend(), policy, causal), std::invalid_argument);
  }
  const auto nothing = [](auto&) {};
  const KeyOrder order = KeyOrder::identity({1, 1, 96});
  const auto mask = pare::attention::BlockMask::causal({1, 1, 96, 96, 16, 16});
  const std::vector<Index> lengths{96, 96}, offsets{0, 96};
  refuses(nothing, {.causal = false});
  refuses(nothing, {.causal = true, .scale = 0.0});
  refuses(nothing, {.causal = true, .window = 8});
  refuses(nothing, {.causal = true, .order = &order});
  refuses(nothing, {.causal = true, .mask = &mask});
  refuses(nothing, {.causal = true, .key_lengths = lengths});
  refuses(nothing, {.causal = true, .query_offsets = offsets, .key_offsets = offsets});
  Problem<T> longer(97, 96);
  EXPECT_THROW(longer.run(this->backend(), small(), causal), std::invalid_argument);
  Problem<T> short_out(96, 96);
  short_out.out = Heads<T>(2, 4, 95, 6, T(7));
  EXPECT_THROW(short_out.run(this->backend(), small(), causal), std::invalid_argument);
  for (const T x : short_out.out.list) ASSERT_EQ(x, T(7));
}

/// What cannot be read is refused by orders, selectors and policies alike.
TEST(PermutedViews, ThatCannotBeReadAreRefused) {
  const Heads<float> q = normal_heads<float>(1, 2, 96, 8, 60);
  Heads<float> out(1, 2, 96, 8, 7);
  constexpr Index huge = std::numeric_limits<Index>::max();
  for (int fault = 0; fault < 4; ++fault) {
    pare::TensorView<const float, 4> bad = q.view();
    if (fault == 0) bad.data = nullptr;
    if (fault == 1) bad.extent[0] = -1;
    if (fault == 2) bad.extent[2] = -96;
    if (fault == 3) bad.stride[2] = huge;
    const auto good = q.view();
    const auto refuses = [&](const auto& call) {
      EXPECT_THROW(call(bad, good), std::invalid_argument) << fault;
      EXPECT_THROW(call(good, bad), std::invalid_argument) << fault;
    };
    refuses([](const auto& a, const auto& b) { order_keys(a, b, {.segment = 32}); });
    refuses([](const auto& a, const auto& b) { order_keys(pare::reference, a, b); });
    refuses(
        [](const auto& a, const auto& b) { select_blocks(a, b, MeanPool{}, {.causal = true}); });
    refuses([](const auto& a, const auto& b) {
      select_blocks(a, b, Antidiagonal{}, {.causal = true});
    });
    refuses([&](const auto& a, const auto& b) { attend(a, b, good, out.writable(), small()); });
    EXPECT_THROW(attend(good, good, bad, out.writable(), small()), std::invalid_argument);
  }
  for (const float x : out.list) ASSERT_EQ(x, 7.0f);
}

TEST(PermutedViews, OutputsOverInputsOrEachOtherAreRefused) {
  Heads<float> q = normal_heads<float>(1, 2, 96, 8, 61), k = normal_heads<float>(1, 2, 96, 8, 62),
               v = normal_heads<float>(1, 2, 96, 8, 63), out(1, 2, 96, 8, 7);
  const Heads<float> before[] = {q, k, v, out};
  const auto refuses = [&](pare::TensorView<float, 4> to, float* lse) {
    AttendOptions options{.causal = true};
    if (lse != nullptr) options.lse = pare::TensorView<float, 3>{lse, {1, 2, 96}, {192, 96, 1}};
    EXPECT_THROW(attend(q.view(), k.view(), v.view(), to, small(), options), std::invalid_argument);
  };
  for (Heads<float>* input : {&q, &k, &v}) {
    refuses(input->writable(), nullptr);
    refuses(out.writable(), input->list.data() + 5);
  }
  refuses(out.writable(), out.list.data());
  pare::TensorView<float, 4> overlapping = out.writable();
  overlapping.stride[2] = 1;
  refuses(overlapping, nullptr);
  EXPECT_EQ(q.list, before[0].list);
  EXPECT_EQ(k.list, before[1].list);
  EXPECT_EQ(v.list, before[2].list);
  EXPECT_EQ(out.list, before[3].list);
}

TEST(PermutedThreads, DoNotChangeABit) {
  Problem<float> one(500, 500);
  one.run(pare::simd, small(), {.causal = true});
  for (const int threads : {2, 3, 7}) {
    Problem<float> many(500, 500);
    many.run(pare::simd.threads(threads), small(), {.causal = true});
    expect_same(many.out, one.out);
  }
}

TEST(PermutedOptions, ReachTheCall) {
  Problem<float> p(200, 200);
  pare::Workspace workspace;
  std::vector<float> lse(2 * 4 * 200, 9.0f);
  const pare::TensorView<float, 3> view{lse.data(), {2, 4, 200}, {800, 200, 1}};
  p.run(pare::simd.with(workspace), small(), {.causal = true, .lse = view});
  EXPECT_FALSE(workspace.lease<pare::attention::detail::AttendMemory>()->items.empty());
  for (const float x : lse) EXPECT_NE(x, 9.0f);
  Problem<float> by_default(200, 200);
  const AttendStats stats = attend(by_default.q.view(), by_default.k.view(), by_default.v.view(),
                                   by_default.out.writable(), small());
  EXPECT_LT(stats.density, 1);
  expect_same(by_default.out, p.out);
  attend(by_default.q.view(), by_default.k.view(), by_default.v.view(), by_default.out.writable(),
         small(), {.causal = true});
  expect_same(by_default.out, p.out);
}

TEST(PermutedStorage, SixteenBitsGoThrough) {
  const auto q = normal_heads<pare::bf16>(1, 2, 200, 16, 54),
             k = normal_heads<pare::bf16>(1, 2, 200, 16, 55);
  Heads<float> out(1, 2, 200, 16);
  Heads<pare::bf16> rounded(1, 2, 200, 16);
  const AttendStats stats = attend(q.view(), k.view(), k.view(), out.writable(), small());
  attend(q.view(), k.view(), k.view(), rounded.writable(), small());
  EXPECT_LT(stats.density, 1);
  for (std::size_t i = 0; i < out.list.size(); ++i)
    EXPECT_EQ(static_cast<float>(rounded.list[i]),
              static_cast<float>(static_cast<pare::bf16>(out.list[i])));
}

}  // namespace
}  // namespace attention_permuted_test
