// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/attention/key_value.hpp>
#include <pare/core/workspace.hpp>
#include <pare/draft/compact_cache.hpp>
#include <pare/draft/tree_attention.hpp>
#include <pare/latent/cache.hpp>
#include <pare/transformer/rotary.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "attention/attend_calls.hpp"
#include "attention/backends.hpp"
#include "attention/data.hpp"
#include "draft/tables.hpp"
#include "latent/caches.hpp"
#include "support/allocations.hpp"

namespace draft_tree_attention_test {
namespace {

using pare::Index;
using pare::attention::AttendOptions;
using pare::draft::attend_tree;
using pare::draft::DraftTree;
using pare::testing::all_same_bits;
using pare::testing::expect_attention;
using pare::testing::filled_cache;
using pare::testing::Inputs;
using pare::testing::LatentInputs;
using pare::testing::Outputs;
using pare::testing::random_tree;
using pare::testing::refused;
using pare::testing::same_outputs;
using pare::testing::Sizes;

template <class Case>
struct TreeAttentionTest : testing::Test {
  using Storage = typename Case::scalar;
  static constexpr double tolerance = pare::testing::attention_bound<Case>();
  static auto backend() { return Case::backend::make(); }
};
using Cases =
    testing::Types<pare::testing::BackendAndScalar<pare::testing::ReferenceBackend, float>,
                   pare::testing::BackendAndScalar<pare::testing::BestBackend, pare::bf16>,
                   pare::testing::BackendAndScalar<pare::testing::BestBackend, double>,
                   pare::testing::BackendAndScalar<pare::testing::ThreadedBackend, float>>;
TYPED_TEST_SUITE(TreeAttentionTest, Cases);

/// What nodes see, read off their parents.
struct TreeSees {
  const std::vector<DraftTree>& trees;
  Index keys, window = 0, sinks = 0;

  bool operator()(Index b, Index, Index i, Index j) const {
    const DraftTree& tree = trees[static_cast<std::size_t>(b)];
    const Index past = keys - tree.size();
    Index position = j;
    if (j >= past) {
      Index v = i;
      while (v >= 0 && v != j - past) v = tree.parent(v);
      if (v < 0) return false;
      position = past + tree.depth(v);
    }
    return window == 0 || j < sinks || past + tree.depth(i) - position < window;
  }
};

template <class B, class S>
Outputs<S> attended(const B& backend, const Inputs<S>& x, std::span<const DraftTree> trees,
                    AttendOptions options = {}) {
  Outputs<S> y(x.sizes);
  options.lse = y.lse_view();
  const pare::attention::DenseKeyValue<S> source{x.k.view(), x.v.view(), {}, {}};
  attend_tree(backend, x.q.view(), source, y.out.writable(), trees, options);
  return y;
}

// Pasts of 62, 126 and 254: the root and one more node end a tile of keys.
TYPED_TEST(TreeAttentionTest, NodesSeeThePastTheirAncestorsAndThemselves) {
  std::mt19937 random(1);
  for (const Index nodes : {1, 2, 5, 16, 63, 64, 65, 130})
    for (const Index past : {0, 1, 62, 100, 126, 254, 300}) {
      const Inputs<typename TestFixture::Storage> x(Sizes{2, 4, 2, nodes, past + nodes, 16, 8},
                                                    static_cast<std::uint64_t>(nodes + past));
      const std::vector<DraftTree> trees{random_tree(nodes, random, 400),
                                         random_tree(nodes, random, 400)};
      expect_attention(x, attended(this->backend(), x, trees), this->tolerance,
                       TreeSees{trees, past + nodes});
    }
}

TYPED_TEST(TreeAttentionTest, AWindowCountsPositionsNotRows) {
  std::mt19937 random(2);
  for (const Index window : {1, 2, 7, 150, 1000})
    for (const Index sinks : {0, 9}) {
      const Inputs<typename TestFixture::Storage> x(Sizes{2, 2, 1, 40, 340, 16, 8});
      const std::vector<DraftTree> trees{random_tree(40, random, 400),
                                         random_tree(40, random, 400)};
      expect_attention(x, attended(this->backend(), x, trees, {.window = window, .sinks = sinks}),
                       this->tolerance, TreeSees{trees, 340, window, sinks});
    }
}

/// The path to a node, the root first.
std::vector<Index> nodes_to(const DraftTree& tree, Index node) {
  std::vector<Index> path;
  for (; node >= 0; node = tree.parent(node)) path.insert(path.begin(), node);
  return path;
}

// Each side is within the bound of the exact result.
TYPED_TEST(TreeAttentionTest, IsCausalAttentionOfEachPathAlsoWithRotation) {
  using S = typename TestFixture::Storage;
  using T = pare::compute_t<S>;
  std::mt19937 random(3);
  constexpr Index past = 70, nodes = 20, dim = 16;
  const DraftTree tree = random_tree(nodes, random, 300);
  Inputs<S> x(Sizes{1, 1, 1, nodes, past + nodes, dim, 8});
  const Inputs<S> raw = x;
  const auto frequencies = pare::transformer::rotary_frequencies(dim);
  const pare::transformer::RotaryTable<T> angles(frequencies, past + nodes);
  const auto turn = [&](S* row, Index position) {
    const pare::TensorView<S, 4> one{row, {1, 1, 1, dim}, {dim, dim, dim, 1}};
    pare::transformer::rotate(pare::reference, one, angles, {.first_position = position});
  };
  for (Index j = 0; j < past + nodes; ++j)
    turn(&x.k(0, 0, j, 0), j < past ? j : tree.position(j - past, past));
  for (Index i = 0; i < nodes; ++i) turn(&x.q(0, 0, i, 0), tree.position(i, past));
  const Outputs<S> all = attended(this->backend(), x, std::span(&tree, 1));
  for (Index node = 0; node < nodes; ++node) {
    const auto path = nodes_to(tree, node);
    const auto depth = static_cast<Index>(path.size());
    Inputs<S> one(Sizes{1, 1, 1, depth, past + depth, dim, 8});
    for (Index j = 0; j < past + depth; ++j) {
      const Index from = j < past ? j : past + path[static_cast<std::size_t>(j - past)];
      for (Index c = 0; c < dim; ++c) one.k(0, 0, j, c) = raw.k(0, 0, from, c);
      for (Index c = 0; c < 8; ++c) one.v(0, 0, j, c) = raw.v(0, 0, from, c);
      turn(&one.k(0, 0, j, 0), j);
    }
    for (Index i = 0; i < depth; ++i) {
      for (Index c = 0; c < dim; ++c)
        one.q(0, 0, i, c) = raw.q(0, 0, path[static_cast<std::size_t>(i)], c);
      turn(&one.q(0, 0, i, 0), past + i);
    }
    const Outputs<S> causal = pare::testing::attended(this->backend(), one, {.causal = true});
    for (Index c = 0; c < 8; ++c)
      EXPECT_NEAR(static_cast<double>(all.out(0, 0, node, c)),
                  static_cast<double>(causal.out(0, 0, depth - 1, c)), 2 * this->tolerance);
  }
}

TYPED_TEST(TreeAttentionTest, TheKeyOfANodeReachesThoseBelowItAlone) {
  using S = typename TestFixture::Storage;
  std::mt19937 random(4);
  for (const Index nodes : {6, 40, 90})
    for (const Index past : {3, 200}) {
      const Inputs<S> x(Sizes{1, 2, 1, nodes, past + nodes, 16, 8});
      const DraftTree tree = random_tree(nodes, random, 300);
      const Outputs<S> clean = attended(this->backend(), x, std::span(&tree, 1));
      for (Index bad = 0; bad < nodes; bad += 5) {
        Inputs<S> y = x;
        for (Index c = 0; c < 16; ++c)
          y.k(0, 0, past + bad, c) = static_cast<S>(std::numeric_limits<float>::quiet_NaN());
        const Outputs<S> got = attended(this->backend(), y, std::span(&tree, 1));
        for (Index i = 0; i < nodes; ++i)
          for (Index h = 0; h < 2; ++h)
            for (Index c = 0; c < 8; ++c) {
              const auto value = static_cast<double>(got.out(0, h, i, c));
              if (tree.sees(i, bad))
                EXPECT_TRUE(std::isnan(value));
              else
                EXPECT_EQ(value, static_cast<double>(clean.out(0, h, i, c)));
            }
      }
    }
}

TYPED_TEST(TreeAttentionTest, ABatchHasTheBitsOfItsSequences) {
  using S = typename TestFixture::Storage;
  std::mt19937 random(5);
  const Inputs<S> x(Sizes{4, 2, 1, 30, 230, 16, 8});
  std::vector<DraftTree> trees;
  for (int i = 0; i < 4; ++i) trees.push_back(random_tree(30, random, 300));
  const Outputs<S> all = attended(this->backend(), x, trees);
  for (Index b = 0; b < 4; ++b) {
    Inputs<S> one(Sizes{1, 2, 1, 30, 230, 16, 8});
    const auto take = [&](auto& to, const auto& from) {
      for (Index h = 0; h < to.extent[1]; ++h)
        for (Index t = 0; t < to.extent[2]; ++t)
          for (Index c = 0; c < to.extent[3]; ++c) to(0, h, t, c) = from(b, h, t, c);
    };
    take(one.q, x.q);
    take(one.k, x.k);
    take(one.v, x.v);
    const Outputs<S> single =
        attended(this->backend(), one, std::span(&trees[static_cast<std::size_t>(b)], 1));
    for (Index h = 0; h < 2; ++h)
      for (Index i = 0; i < 30; ++i)
        for (Index c = 0; c < 8; ++c)
          ASSERT_EQ(static_cast<double>(single.out(0, h, i, c)),
                    static_cast<double>(all.out(b, h, i, c)));
  }
}

TYPED_TEST(TreeAttentionTest, AChainIsCausalAttention) {
  using S = typename TestFixture::Storage;
  DraftTree chain;
  chain.start(1, 50);
  for (Index i = 0; i < 49; ++i) chain.add(i, 1);
  const Inputs<S> x(Sizes{1, 2, 1, 50, 250, 16, 8});
  const Outputs<S> tree = attended(this->backend(), x, std::span(&chain, 1));
  const Outputs<S> causal = pare::testing::attended(this->backend(), x, {.causal = true});
  EXPECT_LE(pare::testing::difference(tree, causal), 2 * this->tolerance);
}

TYPED_TEST(TreeAttentionTest, LatentCachesBeforeAndAfterARound) {
  using S = typename TestFixture::Storage;
  std::mt19937 random(6);
  constexpr Index past = 60, nodes = 24;
  const LatentInputs<S> x(1, 3, nodes, past + nodes, 16, 8);
  auto cache = filled_cache<pare::latent::LatentCache<S>>(x, {past + nodes}, 8);
  const std::vector<DraftTree> trees{random_tree(nodes, random, 300)};
  Outputs<S> y(x.sizes);
  const double scale = 1 / std::sqrt(24.0);  // the oracle's
  AttendOptions options{.scale = scale, .lse = y.lse_view()};
  attend_tree(this->backend(), x.q.view(), cache, y.out.writable(), trees[0], options);
  expect_attention(x, y, this->tolerance, TreeSees{trees, past + nodes});
  // The last query over the compacted cache sees the past and the accepted path.
  const auto path = nodes_to(trees[0], nodes - 1);
  pare::draft::compact(cache, 0, past, path);
  Outputs<S> after(Sizes{1, 3, 1, 1, past, 24, 16});
  const auto q = x.q.view();
  const pare::TensorView<const S, 4> last{&q(0, 0, nodes - 1, 0), {1, 3, 1, 24}, q.stride};
  pare::attention::attend(this->backend(), last, cache, after.out.writable(),
                          {.causal = true, .scale = scale});
  for (Index h = 0; h < 3; ++h)
    for (Index c = 0; c < 16; ++c)
      EXPECT_NEAR(static_cast<double>(after.out(0, h, 0, c)),
                  static_cast<double>(y.out(0, h, nodes - 1, c)), 2 * this->tolerance);
}

TEST(TreeAttention, PagesAndTensorsAndAnyThreads) {
  std::mt19937 random(7);
  const Inputs<float> x(Sizes{1, 4, 2, 64, 364, 32, 32});
  const DraftTree tree = random_tree(64, random, 300);
  Outputs<float> a(x.sizes), b(x.sizes);
  attend_tree(pare::simd, x.q.view(), x.k.view(), x.v.view(), a.out.writable(), tree,
              {.lse = a.lse_view()});
  for (const int threads : {1, 2, 3, 4, 7}) {
    attend_tree(pare::simd.threads(threads), x.q.view(), x.k.view(), x.v.view(), b.out.writable(),
                tree, {.lse = b.lse_view()});
    EXPECT_TRUE(same_outputs(a, b)) << threads;
  }
  // A backend may be left out, of tensors and of sources with lists of trees.
  attend_tree(x.q.view(), x.k.view(), x.v.view(), b.out.writable(), tree, {.lse = b.lse_view()});
  EXPECT_TRUE(same_outputs(a, b));
  const pare::attention::DenseKeyValue<float> source{x.k.view(), x.v.view(), {}, {}};
  attend_tree(x.q.view(), source, b.out.writable(), std::span<const DraftTree>(&tree, 1),
              {.lse = b.lse_view()});
  EXPECT_TRUE(same_outputs(a, b));
}

TEST(TreeAttention, TheSecondCallAllocatesNothing) {
  std::mt19937 random(8);
  const Inputs<float> x(Sizes{1, 4, 2, 64, 364, 32, 32});
  const DraftTree tree = random_tree(64, random, 300);
  Outputs<float> y(x.sizes);
  pare::Workspace workspace;
  const auto call = [&] {
    attend_tree(pare::simd.with(workspace), x.q.view(), x.k.view(), x.v.view(), y.out.writable(),
                tree);
  };
  call();
  const long before = pare::testing::allocations.load();
  call();
  EXPECT_EQ(pare::testing::allocations.load(), before);
}

TEST(TreeAttention, WhatDoesNotFitIsRefusedAndTheOutputIsLeft) {
  std::mt19937 random(9);
  const Inputs<float> x(Sizes{2, 2, 1, 6, 16, 8, 8});
  const DraftTree tree = random_tree(6, random, 50), larger = random_tree(7, random, 50);
  const DraftTree empty;
  Outputs<float> y(x.sizes);
  const auto before = y.out.list;
  const pare::attention::DenseKeyValue<float> source{x.k.view(), x.v.view(), {}, {}};
  const auto refuse = [&](const char* word, std::vector<DraftTree> trees,
                          const AttendOptions& options = {}) {
    const std::string text = refused([&] {
      attend_tree(pare::simd, x.q.view(), source, y.out.writable(),
                  std::span<const DraftTree>(trees), options);
    });
    EXPECT_NE(text.find("draft::attend_tree: " + std::string(word)), std::string::npos) << text;
    EXPECT_TRUE(all_same_bits(y.out.list, before));
  };
  refuse("trees", {tree});
  refuse("trees", {tree, larger});
  refuse("trees", {tree, empty});
  refuse("causal", {tree, tree}, {.causal = false});
  refuse("window", {tree, tree}, {.window = 0});
  refuse("window_left", {tree, tree}, {.window_left = 3});
  refuse("window_left", {tree, tree}, {.window_right = 3});
  refuse("query_offset", {tree, tree}, {.query_offset = 3});
  const std::vector<Index> offsets{0, 6};
  refuse("query_offset", {tree, tree}, {.query_offsets = offsets});
  const pare::attention::BlockMask mask = pare::attention::BlockMask::causal({1, 1, 6, 16, 8, 8});
  refuse("mask", {tree, tree}, {.mask = &mask});
  const Inputs<float> few(Sizes{1, 1, 1, 6, 5, 8, 8});
  EXPECT_NE(refused([&] {
              attend_tree(pare::simd, few.q.view(), few.k.view(), few.v.view(), y.out.writable(),
                          tree);
            }).find("keys"),
            std::string::npos);
  EXPECT_NE(refused([&] {
              attend_tree(pare::simd, x.q.view(), x.k.view(), x.v.view(), y.out.writable(), tree,
                          {.key_offsets = offsets});
            }).find("key_offsets"),
            std::string::npos);
}

}  // namespace
}  // namespace draft_tree_attention_test
