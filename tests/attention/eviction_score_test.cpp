// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/attention/budget/eviction_score.hpp>
#include <pare/attention/budget/key_diff.hpp>
#include <pare/attention/budget/snap_kv.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include "attention/data.hpp"
#include "support/allocations.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace attention_eviction_score_test {
namespace {

using pare::bf16;
using pare::compute_t;
using pare::Index;
using pare::TensorView;
using pare::attention::EvictionCall;
using pare::attention::EvictionHead;
using pare::attention::EvictionScore;
using pare::attention::KeyDiff;
using pare::attention::score_tokens;
using pare::attention::SnapKV;
using pare::testing::BackendAndScalar;
using pare::testing::refusal;
using pare::testing::Tensor;

constexpr Index batch = 2, kv_heads = 3, group = 2, tokens = 300, dim = 24;
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

template <class T>
struct Scores {
  std::vector<T> list;
  Index n;

  explicit Scores(Index count = tokens)
      : list(static_cast<std::size_t>(batch * kv_heads * count), T(7)), n(count) {}
  TensorView<T, 3> view() { return {list.data(), {batch, kv_heads, n}, {kv_heads * n, n, 1}}; }
  T at(Index b, Index h, Index t) const {
    return list[static_cast<std::size_t>((b * kv_heads + h) * n + t)];
  }
};

template <class S>
struct Chunk {
  Tensor<S> q, k;

  explicit Chunk(Index queries = 40, Index n = tokens)
      : q(pare::testing::normal_tensor<S>({batch, group * kv_heads, queries, dim}, 5)),
        k(pare::testing::normal_tensor<S>({batch, kv_heads, n, dim}, 6,
                                          pare::testing::Layout::by_token)) {}

  double query(Index b, Index h, Index i, Index c) const { return wide(q(b, h, i, c)); }
  double key(Index b, Index h, Index t, Index c) const { return wide(k(b, h, t, c)); }
  static double wide(S x) { return static_cast<double>(static_cast<compute_t<S>>(x)); }
};

/// The formula of snap_kv.hpp for one head.
template <class S>
std::vector<double> snap_oracle(const Chunk<S>& x, Index b, Index h, Index window, Index pool,
                                double scale) {
  const Index n = x.k.extent[2], queries = x.q.extent[2];
  std::vector<double> mean(static_cast<std::size_t>(n));
  for (Index i = queries - window; i < queries; ++i) {
    std::vector<double> e;
    double sum = 0;
    for (Index t = 0; t < n; ++t) {
      double best = -1e300;
      for (Index g = 0; g < group; ++g) {
        double dot = 0;
        for (Index c = 0; c < dim; ++c) dot += x.query(b, group * h + g, i, c) * x.key(b, h, t, c);
        best = std::max(best, scale * dot);
      }
      e.push_back(std::exp(best));
      sum += e.back();
    }
    for (std::size_t t = 0; t < e.size(); ++t) mean[t] += e[t] / sum / static_cast<double>(window);
  }
  std::vector<double> pooled;
  for (Index t = 0; t < n; ++t)
    pooled.push_back(*std::max_element(mean.begin() + std::max<Index>(0, t - pool / 2),
                                       mean.begin() + std::min(n, t + pool / 2 + 1)));
  return pooled;
}

template <class S>
double diff_oracle(const Chunk<S>& x, Index b, Index h, Index t) {
  std::vector<double> anchor(dim);
  const auto length = [&](Index u) {
    double sum = 0;
    for (Index c = 0; c < dim; ++c) sum += x.key(b, h, u, c) * x.key(b, h, u, c);
    return std::sqrt(sum);
  };
  for (Index u = 0; u < x.k.extent[2]; ++u)
    for (Index c = 0; c < dim; ++c)
      anchor[static_cast<std::size_t>(c)] += x.key(b, h, u, c) / length(u);
  double dot = 0, squares = 0;
  for (Index c = 0; c < dim; ++c) {
    dot += anchor[static_cast<std::size_t>(c)] * x.key(b, h, t, c);
    squares += anchor[static_cast<std::size_t>(c)] * anchor[static_cast<std::size_t>(c)];
  }
  return -dot / length(t) / std::sqrt(squares);
}

template <class Case>
struct EvictionScoreTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
using Cases = testing::Types<BackendAndScalar<pare::testing::ReferenceBackend, float>,
                             BackendAndScalar<pare::testing::BestBackend, float>,
                             BackendAndScalar<pare::testing::ThreadedBackend, double>,
                             BackendAndScalar<pare::testing::BestBackend, bf16>>;
TYPED_TEST_SUITE(EvictionScoreTest, Cases);

// A weight is e^l / sum: l is off by u sqrt(dim / 6) rms of 1 (attention_bound), 5e-7 in all with
// the exponential and the sums, of a weight below 1.
TYPED_TEST(EvictionScoreTest, SnapKVIsTheMeanAttentionOfTheLastQueriesPooled) {
  using S = typename TypeParam::scalar;
  const Chunk<S> x;
  for (const SnapKV& policy : {SnapKV{}, SnapKV{.short_window = 5, .pool = 1},
                               SnapKV{.window = 40, .short_chunk = 300, .pool = 3}}) {
    Scores<compute_t<S>> got;
    score_tokens(this->backend(), x.q.view(), x.k.view(), got.view(), policy, {.scale = 0.3});
    const Index window = policy.window_of(tokens);
    EXPECT_EQ(window, policy.short_chunk == 300 ? 40 : policy.short_window);
    for (Index b = 0; b < batch; ++b)
      for (Index h = 0; h < kv_heads; ++h) {
        const auto wanted = snap_oracle(x, b, h, window, policy.pool, 0.3);
        for (Index t = 0; t < tokens; ++t)
          ASSERT_NEAR(static_cast<double>(got.at(b, h, t)), wanted[static_cast<std::size_t>(t)],
                      5e-6 * wanted[static_cast<std::size_t>(t)])
              << b << ' ' << h << ' ' << t;
      }
  }
}

// Sums of dim products of unit vectors: gamma(dim + 4); the anchor's sums of 300 directions in T,
// of which 256 go to double together, and its length of some sqrt(300): gamma(256) 300 / 17 < 3e-4
// at the worst, rms 256^-1/2 of that: 2e-5.
TYPED_TEST(EvictionScoreTest, KeyDiffIsTheCosineWithTheMeanDirection) {
  using S = typename TypeParam::scalar;
  const Chunk<S> x;
  Scores<compute_t<S>> got;
  score_tokens(this->backend(), x.k.view(), got.view(), KeyDiff{});
  const double bound = std::is_same_v<S, double> ? 1e-13 : 2e-5;
  for (Index b = 0; b < batch; ++b)
    for (Index h = 0; h < kv_heads; ++h)
      for (Index t = 0; t < tokens; ++t)
        ASSERT_NEAR(static_cast<double>(got.at(b, h, t)), diff_oracle(x, b, h, t), bound)
            << b << ' ' << h << ' ' << t;
}

TYPED_TEST(EvictionScoreTest, KeyDiffOfKeysOfAnySizeIsThatOfTheirDirections) {
  using S = typename TypeParam::scalar;
  Chunk<S> x;
  Scores<compute_t<S>> plain, got;
  score_tokens(this->backend(), x.k.view(), plain.view(), KeyDiff{});
  for (Index c = 0; c < dim; ++c) {
    x.k(0, 1, 9, c) = static_cast<S>(static_cast<compute_t<S>>(x.k(0, 1, 9, c)) * 0x1p100f);
    x.k(0, 1, 70, c) = static_cast<S>(static_cast<compute_t<S>>(x.k(0, 1, 70, c)) * 0x1p-90f);
  }
  score_tokens(this->backend(), x.k.view(), got.view(), KeyDiff{});
  for (Index t = 0; t < tokens; ++t)
    EXPECT_NEAR(static_cast<double>(got.at(0, 1, t)), static_cast<double>(plain.at(0, 1, t)), 2e-5);
}

TYPED_TEST(EvictionScoreTest, ZerosPointNowhereAndNaNStaysWithItsKey) {
  using S = typename TypeParam::scalar;
  Chunk<S> x;
  for (Index c = 0; c < dim; ++c) {
    x.k(1, 0, 4, c) = S(0);
    for (Index t = 0; t < tokens; ++t) x.k(1, 2, t, c) = S(0);
  }
  x.k(1, 1, 8, 3) = static_cast<S>(static_cast<float>(nan));
  Scores<compute_t<S>> diff, snap;
  score_tokens(this->backend(), x.k.view(), diff.view(), KeyDiff{});
  score_tokens(this->backend(), x.q.view(), x.k.view(), snap.view(), SnapKV{.pool = 1});
  EXPECT_EQ(diff.at(1, 0, 4), 0);
  EXPECT_TRUE(std::isnan(diff.at(1, 1, 8)));
  EXPECT_EQ(snap.at(1, 1, 8), 0);
  for (Index t = 0; t < tokens; ++t) {
    EXPECT_EQ(diff.at(1, 2, t), 0);
    EXPECT_NEAR(static_cast<double>(snap.at(1, 2, t)), 1.0 / tokens, 1e-6 / tokens);
    if (t == 8) continue;
    EXPECT_TRUE(std::isfinite(diff.at(1, 1, t)));
    EXPECT_GT(snap.at(1, 1, t), 0);
  }
}

struct Recent {
  static constexpr bool reads_queries = false;
  void validate(const char*, const EvictionCall&) const {}
  template <class B, class S>
  void score(const B&, const EvictionHead<S>& head, std::span<compute_t<S>> scores) const {
    for (Index t = 0; t < head.k.rows(); ++t)
      scores[static_cast<std::size_t>(t)] = static_cast<compute_t<S>>(t);
  }
};

TEST(EvictionScore, AUsersOwnPolicyWorks) {
  static_assert(EvictionScore<Recent> && EvictionScore<SnapKV> && EvictionScore<KeyDiff>);
  const Chunk<float> x;
  Scores<float> got;
  score_tokens(x.k.view(), got.view(), Recent{});
  EXPECT_EQ(got.at(1, 2, 17), 17);
}

TEST(EvictionScore, ThreadsAndLayoutsChangeNoBit) {
  const Chunk<float> x;
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    Scores<float> snap, diff;
    score_tokens(backend, x.q.view(), x.k.view(), snap.view(), SnapKV{});
    score_tokens(backend, x.k.view(), diff.view(), KeyDiff{});
    snap.list.insert(snap.list.end(), diff.list.begin(), diff.list.end());
    return snap.list;
  });
}

TEST(EvictionScore, TheSecondCallAllocatesNothing) {
  const Chunk<float> x;
  Scores<float> got;
  pare::Workspace workspace;
  const auto call = [&] {
    score_tokens(pare::simd.with(workspace), x.q.view(), x.k.view(), got.view(), SnapKV{});
    score_tokens(pare::simd.with(workspace), x.k.view(), got.view(), KeyDiff{});
  };
  call();
  const long before = pare::testing::allocations;
  call();
  EXPECT_EQ(pare::testing::allocations, before);
}

TEST(EvictionScore, WhatDoesNotFitIsRefusedAndWritesNothing) {
  const Chunk<float> x;
  Scores<float> y;
  const std::vector<float> before = y.list;
  constexpr const char* name = "attention::score_tokens";
  const auto q = x.q.view(), k = x.k.view();
  const auto policy = [&](const char* argument, const SnapKV& bad) {
    refusal([&] { score_tokens(q, k, y.view(), bad); }, name, argument);
  };
  policy("window", {.window = 0});
  policy("short_window", {.short_window = 0});
  policy("short_chunk", {.short_chunk = -1});
  policy("pool", {.pool = 4});
  policy("pool", {.pool = 0});
  policy("q", {.short_window = 41});
  const auto with = [&](TensorView<const float, 4> queries, TensorView<const float, 4> keys,
                        TensorView<float, 3> scores, const char* argument) {
    refusal([&] { score_tokens(queries, keys, scores, SnapKV{}); }, name, argument);
  };
  for (const double scale : {0.0, -1.0, nan, 1e39, 1e-39})
    refusal([&] { score_tokens(q, k, y.view(), SnapKV{}, {.scale = scale}); }, name, "scale");
  auto bad = q;
  bad.extent[1] = 5;
  with(bad, k, y.view(), "q");
  bad = q;
  bad.extent[0] = 1;
  with(bad, k, y.view(), "q");
  bad = q;
  bad.extent[3] = dim - 1;
  with(bad, k, y.view(), "q");
  bad = q;
  bad.stride[3] = 2;
  with(bad, k, y.view(), "q");
  bad = k;
  bad.extent[3] = 0;
  with(q, bad, y.view(), "k");
  bad = k;
  bad.data = nullptr;
  with(q, bad, y.view(), "k");
  bad = k;
  bad.extent[2] = 20;
  with(q, bad, y.view(), "q");
  auto out = y.view();
  out.extent[2] = tokens - 1;
  with(q, k, out, "scores");
  out = y.view();
  out.stride[1] = 0;
  with(q, k, out, "scores");
  out = y.view();
  out.data = const_cast<float*>(x.k.list.data());
  with(q, k, out, "scores");
  EXPECT_TRUE(pare::testing::all_same_bits(y.list, before));
}

TEST(EvictionScore, NothingToScoreIsNoError) {
  const Chunk<float> x;
  auto k = x.k.view();
  k.extent[2] = 0;
  Scores<float> y(0);
  EXPECT_NO_THROW(score_tokens(k, y.view(), KeyDiff{}));
}

}  // namespace
}  // namespace attention_eviction_score_test
