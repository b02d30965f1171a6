// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <vector>

#include <pare/attention/order_keys.hpp>

#include "attention/heads.hpp"
#include "attention/oracle.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"
#include "support/tolerance.hpp"

namespace attention_order_keys_test {
namespace {

using pare::Index;
using pare::TensorView;
using pare::attention::ImportanceOver;
using pare::attention::KeyOrder;
using pare::attention::order_keys;
using pare::attention::OrderOptions;
using pare::testing::dense_attention;
using pare::testing::Heads;
using pare::testing::normal_heads;
using pare::testing::Oracle;
using pare::testing::refusal;
using pare::testing::Tolerance;

constexpr auto complete = ImportanceOver::CompleteSegments;
constexpr auto visible = ImportanceOver::VisibleKeys;

/// Mean weight of every key under the last queries, by brute force.
template <class T>
std::vector<double> importance_of(TensorView<const T, 2> q, TensorView<const T, 2> k, double scale,
                                  const OrderOptions& options) {
  const Index n = k.rows(), last = std::min(options.queries, q.rows());
  const Index scored = n / options.segment * options.segment;
  const Oracle o = dense_attention(q, k, k, scale, [&](Index i, Index j) {
    return options.importance == visible ? j <= i + n - q.rows() : j < scored;
  });
  std::vector<double> importance(static_cast<std::size_t>(n), 0.0);
  for (Index i = q.rows() - last; i < q.rows(); ++i)
    for (Index j = 0; j < n; ++j) importance[static_cast<std::size_t>(j)] += o.p(i, j);
  return importance;
}

/// Of the weights of one key: a dot product of `dim` terms is off by gamma, which the exponential
/// turns into a relative error, in the weight and in the sum it is divided by.
template <class T>
double relative_error(Index dim, Index keys, double largest_logit) {
  return 4 * Tolerance<T>::gamma(static_cast<double>(dim + keys) + 64) * (largest_logit + 1);
}

/// Slots keep their segment, the tail its places, and importance never rises inside a segment.
void expect_ordered(std::span<const std::uint32_t> order, const std::vector<double>& importance,
                    Index segment, double relative) {
  const auto keys = static_cast<Index>(order.size());
  for (Index t = 0; t < keys; ++t) {
    const auto at = static_cast<std::size_t>(t);
    ASSERT_EQ(order[at] / segment, t / segment) << t;
    if (keys <= segment || t >= keys / segment * segment) {
      ASSERT_EQ(order[at], t);
    } else if (t % segment != 0) {
      const double before = importance[order[at - 1]], here = importance[order[at]];
      ASSERT_GE(before, here * (1 - relative)) << t;
    }
  }
}

template <class P>
class OrderKeys : public testing::Test {
 protected:
  using Scalar = typename P::scalar;
  static auto backend() { return P::backend::make(); }
};
TYPED_TEST_SUITE(OrderKeys, pare::testing::BackendsAndScalars);

TYPED_TEST(OrderKeys, SortsTheKeysOfEachCompleteSegment) {
  using T = typename TestFixture::Scalar;
  for (const Index n : {1, 7, 8, 15, 16, 17, 31, 32, 33, 35, 133, 300})
    for (const auto which : {complete, visible}) {
      const OrderOptions options{.segment = 16, .queries = 10, .importance = which, .scale = 0.5};
      const auto q = normal_heads<T>(2, 2, n, 13, 1), k = normal_heads<T>(2, 2, n, 13, 2);
      const KeyOrder order = order_keys(this->backend(), q.view(), k.view(), options);
      EXPECT_EQ(order.shape(), (KeyOrder::Shape{2, 2, n}));
      for (Index b = 0; b < 2; ++b)
        for (Index h = 0; h < 2; ++h)
          expect_ordered(order.of(b, h), importance_of(q.head(b, h), k.head(b, h), 0.5, options),
                         16, relative_error<T>(13, n, 13));
    }
}

TYPED_TEST(OrderKeys, TakesFewerQueriesThanKeys) {
  using T = typename TestFixture::Scalar;
  for (const Index queries : {1, 5, 9, 40})
    for (const auto which : {complete, visible}) {
      const OrderOptions options{.segment = 20, .queries = 8, .importance = which};
      const auto q = normal_heads<T>(1, 1, queries, 16, 3), k = normal_heads<T>(1, 1, 90, 16, 4);
      const KeyOrder order = order_keys(this->backend(), q.view(), k.view(), options);
      expect_ordered(order.of(0, 0), importance_of(q.head(0, 0), k.head(0, 0), 0.25, options), 20,
                     relative_error<T>(16, 90, 13));
    }
}

TYPED_TEST(OrderKeys, EqualKeysStayInPlace) {
  using T = typename TestFixture::Scalar;
  const auto q = normal_heads<T>(1, 1, 64, 8, 5);
  auto k = normal_heads<T>(1, 1, 64, 8, 6);
  for (Index j = 16; j < 32; ++j)
    for (Index c = 0; c < 8; ++c) k(0, 0, j, c) = static_cast<T>(c);
  const KeyOrder order = order_keys(this->backend(), q.view(), k.view(), {.segment = 16});
  for (std::uint32_t j = 16; j < 32; ++j) EXPECT_EQ(order.of(0, 0)[j], j);
  EXPECT_NE(order, KeyOrder::identity(order.shape()));
}

TYPED_TEST(OrderKeys, PutsAHeavyKeyOfEachSegmentFirst) {
  using T = typename TestFixture::Scalar;
  Heads<T> q(1, 1, 96, 8, T(1));
  auto k = normal_heads<T>(1, 1, 96, 8, 7);
  for (Index g = 0; g < 6; ++g)
    for (Index c = 0; c < 8; ++c) k(0, 0, g * 16 + 2 * g + 3, c) = 4;
  const KeyOrder order = order_keys(this->backend(), q.view(), k.view(), {.segment = 16});
  for (Index g = 0; g < 6; ++g)
    EXPECT_EQ(order.of(0, 0)[static_cast<std::size_t>(g * 16)], g * 16 + 2 * g + 3);
}

TYPED_TEST(OrderKeys, AveragesTheQueriesOfAGroup) {
  using T = typename TestFixture::Scalar;
  const auto q = normal_heads<T>(2, 6, 50, 8, 8), k = normal_heads<T>(2, 2, 50, 8, 9);
  Heads<T> mean(2, 2, 50, 8);
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 2; ++h)
      for (Index i = 0; i < 50; ++i)
        for (Index c = 0; c < 8; ++c) {
          T sum = 0;
          for (Index r = 0; r < 3; ++r) sum += q.head(b, 3 * h + r)(i, c);
          mean(b, h, i, c) = sum / 3;
        }
  const OrderOptions options{.segment = 10, .queries = 20, .share_kv_heads = true};
  const KeyOrder order = order_keys(this->backend(), q.view(), k.view(), options);
  EXPECT_EQ(order.shape(), (KeyOrder::Shape{2, 2, 50}));
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 2; ++h)
      expect_ordered(order.of(b, h),
                     importance_of(mean.head(b, h), k.head(b, h), std::sqrt(1.0 / 8), options), 10,
                     relative_error<T>(8, 50, 10));
}

TYPED_TEST(OrderKeys, OrdersForEachQueryHead) {
  using T = typename TestFixture::Scalar;
  const auto q = normal_heads<T>(1, 4, 40, 8, 10), k = normal_heads<T>(1, 2, 40, 8, 11);
  const OrderOptions options{.segment = 10};
  const KeyOrder order = order_keys(this->backend(), q.view(), k.view(), options);
  EXPECT_EQ(order.shape(), (KeyOrder::Shape{1, 4, 40}));
  for (Index h = 0; h < 4; ++h)
    expect_ordered(order.of(0, h),
                   importance_of(q.head(0, h), k.head(0, h / 2), std::sqrt(1.0 / 8), options), 10,
                   relative_error<T>(8, 40, 10));
}

TYPED_TEST(OrderKeys, ANanKeepsItsHeadInOrderAndNoOther) {
  using T = typename TestFixture::Scalar;
  const auto q = normal_heads<T>(1, 2, 64, 8, 12);
  auto k = normal_heads<T>(1, 2, 64, 8, 13);
  const KeyOrder before = order_keys(this->backend(), q.view(), k.view(), {.segment = 16});
  k(0, 0, 30, 3) = std::numeric_limits<T>::quiet_NaN();
  const KeyOrder order = order_keys(this->backend(), q.view(), k.view(), {.segment = 16});
  for (std::uint32_t j = 0; j < 64; ++j) {
    EXPECT_EQ(order.of(0, 0)[j], j);
    EXPECT_EQ(order.of(0, 1)[j], before.of(0, 1)[j]);
  }
}

TYPED_TEST(OrderKeys, TakesTensorsOfAnyStrideAndNothing) {
  using T = typename TestFixture::Scalar;
  // [batch, tokens, heads, dim] in memory.
  const auto q = normal_heads<T>(1, 40, 2, 8, 14), k = normal_heads<T>(1, 40, 2, 8, 15);
  Heads<T> dense_q(1, 2, 40, 8), dense_k(1, 2, 40, 8);
  for (Index h = 0; h < 2; ++h)
    for (Index i = 0; i < 40; ++i)
      for (Index c = 0; c < 8; ++c) {
        dense_q(0, h, i, c) = q.head(0, i)(h, c);
        dense_k(0, h, i, c) = k.head(0, i)(h, c);
      }
  const auto exchanged = [](const Heads<T>& x) {
    return TensorView<const T, 4>{x.list.data(), {1, 2, 40, 8}, {640, 8, 16, 1}};
  };
  EXPECT_EQ(order_keys(this->backend(), exchanged(q), exchanged(k), {.segment = 10}),
            order_keys(this->backend(), dense_q.view(), dense_k.view(), {.segment = 10}));
  const Heads<T> no_batch(0, 2, 40, 8), no_tokens(1, 2, 0, 8);
  EXPECT_EQ(order_keys(this->backend(), no_batch.view(), no_batch.view()).shape(),
            (KeyOrder::Shape{0, 2, 40}));
  const Heads<T> no_heads(1, 0, 40, 8);
  for (const bool share : {false, true})
    EXPECT_EQ(
        order_keys(this->backend(), no_heads.view(), dense_k.view(), {.share_kv_heads = share}),
        KeyOrder::identity({1, 0, 40}));
  EXPECT_EQ(order_keys(this->backend(), no_tokens.view(), no_tokens.view()).shape(),
            (KeyOrder::Shape{1, 2, 0}));
  EXPECT_EQ(order_keys(this->backend(), no_tokens.view(), dense_k.view(), {.segment = 10}),
            KeyOrder::identity({1, 2, 40}));
}

TYPED_TEST(OrderKeys, RefusesWhatDoesNotFit) {
  using T = typename TestFixture::Scalar;
  const Heads<T> q(1, 2, 40, 8), k(1, 2, 40, 8), three(1, 3, 40, 8), wide(1, 2, 40, 9);
  const auto call = [&](const Heads<T>& a, const Heads<T>& b, const OrderOptions& options) {
    order_keys(this->backend(), a.view(), b.view(), options);
  };
  EXPECT_THROW(call(q, k, {.segment = 0}), std::invalid_argument);
  EXPECT_THROW(call(q, k, {.segment = -256}), std::invalid_argument);
  EXPECT_THROW(call(q, k, {.queries = 0}), std::invalid_argument);
  EXPECT_THROW(call(q, k, {.scale = 0.0}), std::invalid_argument);
  EXPECT_THROW(call(q, k, {.scale = std::numeric_limits<double>::quiet_NaN()}),
               std::invalid_argument);
  for (const int number : {-1, 2, 77})
    refusal([&] { call(q, k, {.importance = static_cast<ImportanceOver>(number)}); },
            "attention::order_keys", "importance");
  EXPECT_THROW(call(three, k, {}), std::invalid_argument);
  EXPECT_THROW(call(q, wide, {}), std::invalid_argument);
}

// A total order: stable, and NaN of either sign behind everything.
TEST(RankScores, PutsNanLastAndEqualsInPlace) {
  const auto ranked = [](auto scores) {
    std::vector<std::uint32_t> rank(scores.size());
    using T = typename decltype(scores)::value_type;
    pare::linalg::rank_scores<T>(scores, rank);
    return rank;
  };
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const std::vector<std::uint32_t> wanted{8, 2, 4, 5, 6, 0, 7, 1, 3};
  EXPECT_EQ(ranked(std::vector<float>{-1, nan, 2, -nan, 2, 0.0f, -0.0f, -infinity, infinity}),
            wanted);
  EXPECT_EQ(ranked(std::vector<double>{-1, nan, 2, -nan, 2, 0.0, -0.0, -infinity, infinity}),
            wanted);
}

// More keys than one range of the fast path, and orders over several threads.
TEST(OrderKeysRanges, DoNotChangeTheOrder) {
  const auto q = normal_heads<double>(1, 4, 300, 8, 16),
             k = normal_heads<double>(1, 2, 4500, 8, 17);
  for (const auto which : {complete, visible}) {
    const OrderOptions options{.segment = 64, .importance = which};
    const KeyOrder wanted = order_keys(pare::reference, q.view(), k.view(), options);
    EXPECT_EQ(order_keys(pare::simd, q.view(), k.view(), options), wanted);
    EXPECT_EQ(order_keys(q.view(), k.view(), options), wanted);
  }
}

// More voting queries than are scored at a time: every one of them counts, and each once.
TYPED_TEST(OrderKeys, CountsTheVotesOfManyQueries) {
  using T = typename TestFixture::Scalar;
  const auto q = normal_heads<T>(1, 2, 300, 8, 24), k = normal_heads<T>(1, 1, 320, 8, 25);
  for (const auto which : {complete, visible}) {
    const OrderOptions options{.segment = 64, .queries = 290, .importance = which, .scale = 1.0};
    const KeyOrder order = order_keys(this->backend(), q.view(), k.view(), options);
    for (Index h = 0; h < 2; ++h)
      expect_ordered(order.of(0, h), importance_of(q.head(0, h), k.head(0, 0), 1.0, options), 64,
                     relative_error<T>(8, 320 + 290, 20));
  }
}

// A NaN that no maximum shows, since all other scores of its tile are -infinity.
TEST(OrderKeysRanges, ANanAmongInfinitiesKeepsItsHeadInOrder) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  auto q = normal_heads<float>(1, 1, 300, 8, 26), k = normal_heads<float>(1, 1, 300, 8, 27);
  for (Index i = 0; i < 300; ++i) q(0, 0, i, 0) = 1;
  for (Index j = 0; j < 128; ++j) k(0, 0, j, 0) = -infinity;
  k(0, 0, 5, 3) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(order_keys(pare::simd, q.view(), k.view(), {.segment = 16}),
            KeyOrder::identity({1, 1, 300}));
}

// A score of -infinity hides its key: a whole tile of them, as the keys of a padded prompt have,
// weighs nothing and says nothing about the others. 300 visible keys are ranked as ever.
TEST(OrderKeysRanges, TilesOfHiddenKeysCountForNothing) {
  auto q = normal_heads<double>(1, 2, 200, 8, 28), k = normal_heads<double>(1, 2, 600, 8, 29);
  for (Index i = 0; i < 200; ++i) q(0, 0, i, 0) = q(0, 1, i, 0) = 1;
  for (Index j = 0; j < 300; ++j) k(0, 0, j, 0) = -std::numeric_limits<double>::infinity();
  for (Index j = 0; j < 600; ++j) k(0, 1, j, 0) = -std::numeric_limits<double>::infinity();
  for (const auto which : {complete, visible}) {
    const OrderOptions options{.segment = 64, .importance = which};
    const KeyOrder wanted = order_keys(pare::reference, q.view(), k.view(), options);
    EXPECT_EQ(order_keys(pare::simd, q.view(), k.view(), options), wanted);
    EXPECT_NE(wanted.of(0, 0)[330], 330u);
    EXPECT_EQ(wanted.of(0, 0)[3], 3u);
    for (std::uint32_t j = 0; j < 600; ++j) ASSERT_EQ(wanted.of(0, 1)[j], j);
  }
}

TEST(OrderKeysRanges, DoNotDependOnThreads) {
  const auto q = normal_heads<float>(1, 3, 200, 16, 18),
             k = normal_heads<float>(1, 3, 5000, 16, 19);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    const KeyOrder order = order_keys(backend, q.view(), k.view());
    std::vector<std::uint32_t> all;
    for (pare::Index head = 0; head < 3; ++head)
      all.insert(all.end(), order.of(0, head).begin(), order.of(0, head).end());
    return all;
  });
}

template <class S>
class OrderKeysStorage : public testing::Test {};
using Storages = testing::Types<pare::bf16, pare::f16>;
TYPED_TEST_SUITE(OrderKeysStorage, Storages);

TYPED_TEST(OrderKeysStorage, SortsWhatIsStored) {
  const auto q = normal_heads<TypeParam>(1, 1, 130, 15, 20);
  const auto k = normal_heads<TypeParam>(1, 1, 130, 15, 21);
  const OrderOptions options{.segment = 32, .queries = 16, .scale = 0.25};
  const KeyOrder order = order_keys(pare::simd, q.view(), k.view(), options);
  expect_ordered(order.of(0, 0), importance_of(q.head(0, 0), k.head(0, 0), 0.25, options), 32,
                 relative_error<float>(15, 130, 10));
}

TYPED_TEST(OrderKeysStorage, AveragesAGroup) {
  const auto q = normal_heads<TypeParam>(1, 4, 64, 16, 22);
  auto k = normal_heads<TypeParam>(1, 2, 64, 16, 23);
  const auto value = [](double x) { return static_cast<TypeParam>(static_cast<float>(x)); };
  for (Index g = 0; g < 4; ++g)
    for (Index c = 0; c < 16; ++c) {
      double sum = 0;
      for (Index i = 0; i < 64; ++i)
        sum += static_cast<double>(static_cast<float>(q.head(0, 2)(i, c)) +
                                   static_cast<float>(q.head(0, 3)(i, c)));
      k(0, 1, 16 * g + 5, c) = value(sum);  // what the group of heads 2 and 3 looks for
    }
  const KeyOrder order =
      order_keys(pare::simd, q.view(), k.view(), {.segment = 16, .share_kv_heads = true});
  for (std::uint32_t g = 0; g < 4; ++g) EXPECT_EQ(order.of(0, 1)[16 * g], 16 * g + 5);
}

}  // namespace
}  // namespace attention_order_keys_test
