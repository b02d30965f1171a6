// SPDX-License-Identifier: Apache-2.0
// Few queries over many keys, which are cut into parts and merged.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <pare/attention/attend.hpp>

#include "attention/attend_calls.hpp"
#include "attention/backends.hpp"
#include "attention/data.hpp"
#include "support/tolerance.hpp"

namespace attention_attend_decode_test {
namespace {

using pare::compute_t;
using pare::Index;
using pare::attention::BlockMask;
using pare::attention::KeyOrder;
using pare::testing::attended;
using pare::testing::change;
using pare::testing::Coins;
using pare::testing::expect_attention;
using pare::testing::Inputs;
using pare::testing::Outputs;
using pare::testing::random_orders;
using pare::testing::Sees;
using pare::testing::Sizes;

template <class Case>
struct AttendDecodeTest : testing::Test {
  using Storage = typename Case::scalar;
  using Compute = compute_t<Storage>;
  static constexpr double tolerance = pare::testing::attention_bound<Case>();
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(AttendDecodeTest, pare::testing::AttendBackends);

// Keys are cut below 17 queries, into parts of 256 to 2048.
TYPED_TEST(AttendDecodeTest, PartsMergeToTheWhole) {
  for (const auto& [queries, keys] : std::vector<std::pair<Index, Index>>{{1, 1000},
                                                                          {1, 1024},
                                                                          {3, 1500},
                                                                          {1, 2048},
                                                                          {1, 2049},
                                                                          {1, 4097},
                                                                          {2, 4096},
                                                                          {5, 6000},
                                                                          {16, 2500},
                                                                          {17, 2500}}) {
    const Inputs<typename TestFixture::Storage> x(Sizes{1, 4, 2, queries, keys, 8, 5});
    for (const bool causal : {true, false})
      expect_attention(x, attended(this->backend(), x, {.causal = causal}), this->tolerance,
                       Sees{queries, keys, causal});
  }
}

// More heads than an item has rows, and than it has bits for them.
TYPED_TEST(AttendDecodeTest, PartsOfManyHeads) {
  for (const Index heads : {65, 130, 200}) {
    const Inputs<typename TestFixture::Storage> x(Sizes{1, heads, 1, 1, 1100, 8, 5});
    expect_attention(x, attended(this->backend(), x, {.causal = true}), this->tolerance,
                     Sees{1, 1100, true});
  }
}

TYPED_TEST(AttendDecodeTest, ASequenceOfABatchHasTheBitsItHasAlone) {
  using S = typename TestFixture::Storage;
  const Sizes all{3, 20, 2, 2, 1300, 8, 5}, one{1, 20, 2, 2, 1300, 8, 5};
  const Inputs<S> x(all);
  const Outputs<S> together = attended(this->backend(), x, {.causal = true});
  for (Index b = 0; b < all.batch; ++b) {
    Inputs<S> alone(one);
    for (const auto& [to, from] : {std::pair{&alone.q, &x.q}, {&alone.k, &x.k}, {&alone.v, &x.v}})
      std::copy_n(from->list.begin() + b * from->stride[0], from->stride[0], to->list.begin());
    const Outputs<S> y = attended(this->backend(), alone, {.causal = true});
    EXPECT_TRUE(std::equal(y.out.list.begin(), y.out.list.end(),
                           together.out.list.begin() + b * together.out.stride[0]))
        << b;
  }
}

TYPED_TEST(AttendDecodeTest, PartsThatARowDoesNotSee) {
  const Inputs<typename TestFixture::Storage> x(Sizes{2, 2, 1, 3, 4500, 8, 5});
  const std::vector<Index> lengths{4400, 2}, one{2047, 0};
  expect_attention(x, attended(this->backend(), x, {.causal = true, .window = 100}),
                   this->tolerance, Sees{3, 4500, true, 100});
  expect_attention(x, attended(this->backend(), x, {.causal = true, .window = 100, .sinks = 4}),
                   this->tolerance, Sees{3, 4500, true, 100, 4});
  for (const std::vector<Index>& n : {lengths, one})
    expect_attention(x, attended(this->backend(), x, {.causal = true, .key_lengths = n}),
                     this->tolerance, Sees{3, 4500, true, 0, 0, n});
}

TYPED_TEST(AttendDecodeTest, OrdersAndMasksOverParts) {
  const Sizes sizes{1, 4, 2, 3, 4500, 8, 5};
  const Inputs<typename TestFixture::Storage> x(sizes);
  const KeyOrder order({1, 2, 4500}, random_orders(2, 4500, 5));
  expect_attention(x, attended(this->backend(), x, {.causal = true, .order = &order}),
                   this->tolerance, Sees{3, 4500, true});
  const std::vector<Index> lengths{1000};
  expect_attention(
      x, attended(this->backend(), x, {.causal = true, .order = &order, .key_lengths = lengths}),
      this->tolerance, Sees{3, 4500, true, 0, 0, lengths});
  // A block of 100 straddles the first cut; block rows of 2 make two items of each part.
  const Coins coins{3, 40};
  const BlockMask mask = BlockMask::from_predicate({1, 4, 3, 4500, 2, 100}, coins);
  expect_attention(x, attended(this->backend(), x, {.mask = &mask}), this->tolerance,
                   [&](Index b, Index h, Index i, Index j) { return coins(b, h, i / 2, j / 100); });
  // A head that selects one part only, and one that selects nothing.
  const BlockMask few = BlockMask::from_predicate(
      {1, 4, 3, 4500, 2, 100}, [](Index, Index h, Index, Index c) { return h < 3 && c / 20 == h; });
  expect_attention(x, attended(this->backend(), x, {.mask = &few}), this->tolerance,
                   [&](Index, Index h, Index, Index j) { return h < 3 && j / 2000 == h; });
}

TYPED_TEST(AttendDecodeTest, PartsOfVeryUnequalWeight) {
  using S = typename TestFixture::Storage;
  using T = typename TestFixture::Compute;
  // Integers: scores are exact. The largest, 8 * 12 * 2 / sqrt(8) < 70 above the others, moves
  // through the parts.
  for (const Index heavy : {0, 2047, 2048, 4499}) {
    Inputs<S> x(Sizes{1, 1, 1, 1, 4500, 8, 5});
    change(x.q, [](T) { return T(2); });
    change(x.k, [](T k) { return std::round(k); });
    for (Index c = 0; c < 8; ++c) x.k(0, 0, heavy, c) = static_cast<S>(T(12));
    expect_attention(x, attended(this->backend(), x, {.causal = true}), this->tolerance,
                     Sees{1, 4500, true});
  }
}

TYPED_TEST(AttendDecodeTest, ConstantValuesGiveTheConstant) {
  using T = typename TestFixture::Compute;
  Inputs<typename TestFixture::Storage> x(Sizes{1, 2, 1, 2, 5000, 8, 5});
  change(x.v, [](T) { return T(3); });
  // Sums of the same weights, above and below, with 5000 roundings at most.
  const double rounding = 2 * pare::testing::Tolerance<T>::gamma(5010) * 3;
  for (const T out : attended(this->backend(), x).out.list)
    ASSERT_LE(std::abs(out - T(3)), rounding);
}

// Of a query that is not a number nothing can be told, whichever parts it sees.
TYPED_TEST(AttendDecodeTest, ANaNInOnePartIsNotLost) {
  using S = typename TestFixture::Storage;
  using T = typename TestFixture::Compute;
  const auto nan = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  const auto expect_nan = [](const Outputs<S>& y, const char* what) {
    for (const T out : y.out.list) EXPECT_TRUE(std::isnan(out)) << what;
    for (const T lse : y.lse.list) EXPECT_TRUE(std::isnan(lse)) << what;
  };
  Inputs<S> query(Sizes{1, 1, 1, 1, 4500, 8, 5});
  query.q(0, 0, 0, 2) = nan;
  expect_nan(attended(this->backend(), query), "query");
  expect_nan(attended(this->backend(), query, {.causal = true, .window = 100}), "query, window");
  for (const Index at : {0, 2048, 4499}) {
    Inputs<S> key(Sizes{1, 1, 1, 1, 4500, 8, 5});
    key.k(0, 0, at, 2) = nan;
    expect_nan(attended(this->backend(), key), "key");
  }
}

}  // namespace
}  // namespace attention_attend_decode_test
