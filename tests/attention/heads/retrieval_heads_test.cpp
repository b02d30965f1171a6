// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <pare/attention/heads/most_attended.hpp>
#include <pare/attention/heads/retrieval_heads.hpp>

#include "attention/heads.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace attention_heads_retrieval_heads_test {
namespace {

using pare::compute_t;
using pare::Index;
using pare::TensorView;
using pare::attention::CopiedPassage;
using pare::attention::most_attended;
using pare::attention::RetrievalScores;
using pare::testing::Heads;
using pare::testing::refusal;

using Keys = std::vector<Index>;
using Tokens = std::vector<std::int32_t>;

/// Whole numbers from -2 to 2: scores are exact in every scalar, and many are equal.
template <class S>
Heads<S> whole_heads(Index batch, Index heads, Index tokens, Index dim, unsigned seed) {
  Heads<S> x(batch, heads, tokens, dim);
  std::mt19937_64 random(seed);
  for (S& value : x.list)
    value = static_cast<S>(static_cast<compute_t<S>>(static_cast<int>(random() % 5) - 2));
  return x;
}

/// The definition, score by score.
template <class S>
Keys definition(const Heads<S>& q, const Heads<S>& k) {
  Keys keys;
  for (Index b = 0; b < q.batch; ++b)
    for (Index h = 0; h < q.heads; ++h)
      for (Index i = 0; i < q.tokens; ++i) {
        const auto row = q.head(b, h);
        const auto of = k.head(b, h / (q.heads / k.heads));
        Index best = -1;
        long double most = -std::numeric_limits<long double>::infinity();
        for (Index j = 0; j <= i + k.tokens - q.tokens; ++j) {
          long double score = 0;
          for (Index c = 0; c < q.dim; ++c)
            score += static_cast<long double>(static_cast<compute_t<S>>(row(i, c))) *
                     static_cast<long double>(static_cast<compute_t<S>>(of(j, c)));
          if (score > most) {
            most = score;
            best = j;
          }
        }
        keys.push_back(best);
      }
  return keys;
}

template <class P>
class MostAttended : public testing::Test {};
TYPED_TEST_SUITE(MostAttended, pare::testing::BackendsAndScalars);

struct Case {
  Index batch, heads, kv_heads, queries, keys, dim;
};
constexpr Case cases[] = {{1, 1, 1, 1, 1, 1},    {2, 3, 1, 8, 129, 5},   {1, 6, 3, 90, 90, 7},
                          {1, 4, 4, 1, 300, 16}, {1, 9, 3, 100, 131, 6}, {1, 2, 1, 3, 8300, 9}};

TYPED_TEST(MostAttended, IsTheFirstOfTheLargestScores) {
  using T = typename TypeParam::scalar;
  for (const Case& c : cases) {
    const auto q = whole_heads<T>(c.batch, c.heads, c.queries, c.dim, 1);
    const auto k = whole_heads<T>(c.batch, c.kv_heads, c.keys, c.dim, 2);
    EXPECT_EQ(most_attended(TypeParam::backend::make(), q.view(), k.view()), definition(q, k))
        << c.heads << " heads, " << c.queries << " x " << c.keys;
  }
}

/// A NaN is in the rows that see it, and in no other.
TYPED_TEST(MostAttended, ARowWithANaNHasNoKey) {
  using T = typename TypeParam::scalar;
  auto q = whole_heads<T>(1, 4, 30, 6, 3), k = whole_heads<T>(1, 2, 40, 6, 4);
  const Keys before = most_attended(TypeParam::backend::make(), q.view(), k.view());
  k(0, 1, 25, 2) = std::numeric_limits<T>::quiet_NaN();
  q(0, 0, 7, 0) = std::numeric_limits<T>::quiet_NaN();
  const Keys after = most_attended(TypeParam::backend::make(), q.view(), k.view());
  for (Index h = 0; h < 4; ++h)
    for (Index i = 0; i < 30; ++i) {
      const auto at = static_cast<std::size_t>(h * 30 + i);
      const bool hit = h == 0 ? i == 7 : h >= 2 && i + 10 >= 25;
      EXPECT_EQ(after[at], hit ? -1 : before[at]) << h << ' ' << i;
    }
}

TYPED_TEST(MostAttended, NothingAboveMinusInfinityIsNoKey) {
  using T = typename TypeParam::scalar;
  Heads<T> q(1, 1, 2, 1, T(1)), k(1, 1, 3, 1, -std::numeric_limits<T>::infinity());
  EXPECT_EQ(most_attended(TypeParam::backend::make(), q.view(), k.view()), (Keys{-1, -1}));
  k(0, 0, 2, 0) = std::numeric_limits<T>::max();
  EXPECT_EQ(most_attended(TypeParam::backend::make(), q.view(), k.view()), (Keys{-1, 2}));
}

TEST(MostAttendedOf16Bits, IsThatOfTheDefinition) {
  const auto check = []<class S>(S) {
    const auto q = whole_heads<S>(1, 6, 12, 33, 5);
    const auto k = whole_heads<S>(1, 2, 200, 33, 6);
    EXPECT_EQ(most_attended(q.view(), k.view()), definition(q, k));
  };
  check(pare::bf16{});
  check(pare::f16{});
}

TEST(MostAttendedOfViews, AnyStrideAndAnyThreadsSameKeys) {
  const auto q = whole_heads<float>(1, 3, 20, 8, 7), k = whole_heads<float>(1, 1, 9000, 8, 8);
  const Keys wanted = definition(q, k);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    const Keys keys = most_attended(backend, q.view(), k.view());
    EXPECT_EQ(keys, wanted);
    return keys;
  });
  // Tokens first in memory, with gaps that hold NaN.
  std::vector<float> memory(20 * 3 * 11, std::numeric_limits<float>::quiet_NaN());
  const TensorView<float, 4> other{memory.data(), {1, 3, 20, 8}, {0, 11, 33, 1}};
  for (Index h = 0; h < 3; ++h)
    for (Index i = 0; i < 20; ++i)
      for (Index c = 0; c < 8; ++c) other(0, h, i, c) = q.head(0, h)(i, c);
  EXPECT_EQ(most_attended(other, k.view()), wanted);
}

TEST(MostAttendedOfViews, NothingOfNothing) {
  EXPECT_TRUE(
      most_attended(Heads<float>(0, 2, 3, 4).view(), Heads<float>(0, 1, 5, 4).view()).empty());
  EXPECT_TRUE(
      most_attended(Heads<float>(1, 2, 0, 4).view(), Heads<float>(1, 1, 5, 4).view()).empty());
  EXPECT_TRUE(
      most_attended(Heads<float>(1, 0, 3, 4).view(), Heads<float>(1, 1, 5, 4).view()).empty());
  EXPECT_TRUE(
      most_attended(Heads<float>(1, 2, 0, 4).view(), Heads<float>(1, 1, 0, 4).view()).empty());
}

TEST(MostAttendedOfViews, RefusesWhatDoesNotFit) {
  const auto refused = [](TensorView<const float, 4> q, TensorView<const float, 4> k,
                          const char* argument) {
    refusal([&] { most_attended(pare::reference, q, k); }, "attention::most_attended", argument);
  };
  const Heads<float> q(1, 4, 6, 8), k(1, 2, 9, 8);
  const auto with = [](TensorView<const float, 4> x, std::size_t d, Index extent) {
    x.extent[d] = extent;
    return x;
  };
  refused(q.view(), Heads<float>(2, 2, 9, 8).view(), "k");
  refused(q.view(), Heads<float>(1, 2, 9, 7).view(), "k");
  refused(q.view(), Heads<float>(1, 3, 9, 8).view(), "q");
  refused(q.view(), Heads<float>(1, 0, 9, 8).view(), "q");
  refused(q.view(), Heads<float>(1, 2, 5, 8).view(), "q");
  refused(with(q.view(), 3, 0), with(k.view(), 3, 0), "q");
  refused(with(q.view(), 2, -1), k.view(), "q");
  refused(q.view(), with(k.view(), 1, -2), "k");
  refused(q.view(), {nullptr, {1, 2, 9, 8}, {144, 72, 8, 1}}, "k");
  refused({q.list.data(), {1, 4, 6, 4}, {0, 48, 8, 2}}, with(k.view(), 3, 4), "q");
  refused(with(q.view(), 3, 4), {k.list.data(), {1, 2, 9, 4}, {0, 72, 8, 2}}, "k");
  constexpr Index huge = Index{1} << 40;  // of one row, read again and again
  refused({q.list.data(), {1, huge, 6, 8}, {0, 0, 8, 1}},
          {k.list.data(), {1, 1, huge, 8}, {0, 0, 0, 1}}, "k");
}

// ------------------------------------------------------------------ retrieval scores

/// Eight keys, each of which one query likes: e_j.
struct Copying {
  Heads<float> q{1, 2, 3, 8}, k{1, 1, 8, 8};
  Tokens tokens{5, 6, 7, 5, 9, 9, 1, 2};
  Tokens answer{6, 7, 5};
  Copying() {
    for (Index j = 0; j < 8; ++j) k(0, 0, j, j) = 1;
  }
  /// Queries of a head look at these keys.
  void look(Index head, const Keys& keys) {
    for (Index i = 0; i < 3; ++i)
      for (Index c = 0; c < 8; ++c)
        q(0, head, i, c) = keys[static_cast<std::size_t>(i)] == c ? 1.f : 0.f;
  }
  CopiedPassage passage() const { return {tokens, 0, 4, answer}; }
};

TEST(RetrievalScoresTest, CountTheRightTokenWithinThePassage) {
  Copying sample;
  RetrievalScores scores(2, 2);
  sample.look(0, {1, 2, 3});
  sample.look(1, {1, 1, 0});  // the second is another token; 5 stands in the passage twice
  scores.add(0, sample.q.view(), sample.k.view(), sample.passage());
  sample.look(0, {1, 2, 4});  // the last is outside, and another token
  sample.look(1, {4, 5, 6});
  scores.add(pare::simd.threads(2), 1, sample.q.view(), sample.k.view(), sample.passage());
  EXPECT_EQ(scores.scores(), (std::vector<double>{1, 2.0 / 3, 2.0 / 3, 0}));
  // The right token outside of the passage does not count.
  sample.tokens = {5, 6, 7, 5, 6, 7, 5, 2};
  sample.look(0, {4, 5, 3});
  sample.look(1, {1, 2, 3});
  scores.add(pare::reference, 1, sample.q.view(), sample.k.view(), sample.passage());
  EXPECT_EQ(scores.samples(0), 1);
  EXPECT_EQ(scores.samples(1), 2);
  EXPECT_EQ(scores.scores(), (std::vector<double>{1, 2.0 / 3, .5, .5}));
}

TEST(RetrievalScoresTest, ANaNFindsNothing) {
  Copying sample;
  sample.look(0, {1, 2, 3});
  sample.look(1, {1, 2, 3});
  sample.q(0, 1, 1, 0) = std::numeric_limits<float>::quiet_NaN();
  RetrievalScores scores(1, 2);
  scores.add(0, sample.q.view(), sample.k.view(), sample.passage());
  EXPECT_EQ(scores.scores(), (std::vector<double>{1, 2.0 / 3}));
}

TEST(RetrievalScoresTest, PartsMerge) {
  Copying sample;
  sample.look(0, {1, 2, 3});
  sample.look(1, {1, 7, 7});
  RetrievalScores all(1, 2), first(1, 2), second(1, 2);
  for (RetrievalScores* to : {&all, &first})
    to->add(0, sample.q.view(), sample.k.view(), sample.passage());
  sample.look(0, {1, 7, 7});
  for (RetrievalScores* to : {&all, &second})
    to->add(0, sample.q.view(), sample.k.view(), sample.passage());
  first.merge(second);
  EXPECT_EQ(first.scores(), all.scores());
  EXPECT_EQ(first.samples(0), 2);
  const RetrievalScores other(1, 3), deeper(2, 2);
  refusal([&] { first.merge(other); }, "attention::RetrievalScores::merge", "other");
  refusal([&] { first.merge(deeper); }, "attention::RetrievalScores::merge", "other");
}

TEST(RetrievalScoresTest, RefusesWhatDoesNotFitAndAddsNothing) {
  const Copying sample;
  RetrievalScores scores(2, 2);
  scores.add(0, sample.q.view(), sample.k.view(), sample.passage());
  const auto q = sample.q.view(), k = sample.k.view();
  const auto refused = [&](Index layer, TensorView<const float, 4> queries,
                           const CopiedPassage& passage, const char* argument) {
    refusal([&] { scores.add(pare::reference, layer, queries, k, passage); },
            "attention::RetrievalScores::add", argument);
  };
  const auto with = [&](auto change) {
    CopiedPassage passage = sample.passage();
    change(passage);
    return passage;
  };
  refused(-1, q, sample.passage(), "layer");
  refused(2, q, sample.passage(), "layer");
  refused(0, Heads<float>(2, 2, 3, 8).view(), sample.passage(), "k");
  refused(0, Heads<float>(1, 3, 3, 8).view(), sample.passage(), "q");
  refused(0, Heads<float>(1, 2, 9, 8).view(), sample.passage(), "q");
  refused(0, Heads<float>(1, 2, 0, 8).view(), sample.passage(), "q");
  refused(0, q, with([](auto& p) { p.tokens = p.tokens.first(7); }), "tokens");
  refused(0, q, with([](auto& p) { p.answer = p.answer.first(2); }), "answer");
  constexpr Index huge = std::numeric_limits<Index>::max();
  for (const Index size : {Index{0}, Index{-1}, Index{9}, huge})
    refused(0, q, with([=](auto& p) { p.size = size; }), "size");
  for (const Index begin : {Index{-1}, Index{5}, huge, std::numeric_limits<Index>::min()})
    refused(0, q, with([=](auto& p) { p.begin = begin; }), "begin");
  const Heads<float> two(2, 2, 3, 8), two_keys(2, 1, 8, 8);
  refusal([&] { scores.add(0, two.view(), two_keys.view(), sample.passage()); },
          "attention::RetrievalScores::add", "q");
  EXPECT_EQ(scores.samples(0), 1);
  refusal([&] { static_cast<void>(scores.scores()); }, "attention::RetrievalScores::scores",
          "samples");
  refusal([&] { static_cast<void>(scores.samples(2)); }, "attention::RetrievalScores::samples",
          "layer");
  refusal([] { RetrievalScores(0, 1); }, "attention::RetrievalScores", "layers");
  refusal([] { RetrievalScores(1, -1); }, "attention::RetrievalScores", "heads");
  refusal([=] { RetrievalScores(huge, 3); }, "attention::RetrievalScores", "heads");
}

}  // namespace
}  // namespace attention_heads_retrieval_heads_test
