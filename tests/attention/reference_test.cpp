// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include <pare/attention/reference.hpp>
#include <pare/core/permutation.hpp>

#include "attention/data.hpp"
#include "attention/oracle.hpp"
#include "support/tolerance.hpp"

namespace attention_reference_test {
namespace {

using pare::Index;
using pare::TensorView;
using pare::attention::BlockMask;
using pare::attention::detail::reference_attend;
using pare::attention::detail::ReferenceHead;
using pare::kernel::ScorePlace;
using pare::testing::causal_visibility;
using pare::testing::dense_attention;
using pare::testing::normal_rows;
using pare::testing::Oracle;
using pare::testing::PlainRows;
using pare::testing::same_bits;
using pare::testing::within;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();

// Scores below 50 in absolute value, sums of at most 300 products in double: each score is off by
// at most gamma(d + 1) * 50 < 2e-12, and the relative error of a weight by twice that and its own
// n + 10 roundings. 1e-11 holds for values up to 10.
constexpr double bound = 1e-11;

struct Unchanged {
  template <class T>
  T modify(T score, const ScorePlace&) const noexcept {
    return score;
  }
};

/// One head's tensors, and what the definition makes of them.
struct Head {
  PlainRows<double> q, k, v;
  PlainRows<double> out{};
  std::vector<double> lse{};

  Head(Index queries, Index keys, Index key_dim, Index value_dim, std::uint64_t seed = 1)
      : q(normal_rows<double>(queries, key_dim, seed)),
        k(normal_rows<double>(keys, key_dim, seed + 1)),
        v(normal_rows<double>(keys, value_dim, seed + 2)) {}

  template <class Modifier = Unchanged>
  void attend(const ReferenceHead& h, const Modifier& modifier = {}) {
    out = PlainRows<double>(q.rows, v.cols, nan_value);
    lse.assign(static_cast<std::size_t>(q.rows), nan_value);
    reference_attend(
        h, q.view(), k.rows, [&](Index j) { return k.list.data() + j * k.cols; },
        [&](Index j) { return v.list.data() + j * v.cols; }, modifier, out.writable(),
        TensorView<double, 1>{lse.data(), {q.rows}, {1}});
  }

  template <class Visible>
  Oracle oracle(double scale, const Visible& visible) const {
    return dense_attention(q.view(), k.view(), v.view(), scale, visible);
  }

  void expect_equals(const Oracle& wanted) const {
    for (Index i = 0; i < q.rows; ++i) {
      for (Index c = 0; c < v.cols; ++c)
        EXPECT_TRUE(within(out(i, c), wanted.out(i, c), bound))
            << i << ' ' << c << ": " << out(i, c) << " " << wanted.out(i, c);
      const double l = lse[static_cast<std::size_t>(i)];
      EXPECT_TRUE(l == wanted.log_sum_exp(i) || within(l, wanted.log_sum_exp(i), bound)) << i;
    }
  }
};

std::vector<std::uint32_t> random_order(Index n, std::uint64_t seed) {
  const auto p = pare::Permutation::random(n, seed);
  return {p.indices().begin(), p.indices().end()};
}

TEST(ReferenceAttend, CausalIsBottomRightAligned) {
  for (const auto& [queries, keys] :
       std::vector<std::array<Index, 2>>{{1, 1}, {7, 7}, {33, 33}, {1, 40}, {5, 21}, {21, 5}}) {
    Head head(queries, keys, 9, 5);
    head.attend({.scale = 0.3, .causal = true});
    head.expect_equals(head.oracle(0.3, causal_visibility(queries, keys)));
    head.attend({.scale = 0.3});
    head.expect_equals(head.oracle(0.3, [](Index, Index) { return true; }));
  }
}

TEST(ReferenceAttend, QueriesBeforeTheFirstKeyGetZeroAndMinusInfinity) {
  Head head(6, 4, 3, 2);
  head.attend({.causal = true});
  for (Index i = 0; i < 6; ++i) {
    EXPECT_EQ(head.lse[static_cast<std::size_t>(i)] == -infinity, i < 2) << i;
    for (Index c = 0; c < 2; ++c) EXPECT_EQ(same_bits(head.out(i, c), 0.0), i < 2) << i;
  }
}

TEST(ReferenceAttend, WindowAndSinks) {
  const Index queries = 20, keys = 31;
  Head head(queries, keys, 8, 3);
  for (const Index window : {1, 2, 7, 31, 1000})
    for (const Index sinks : {0, 1, 5, 40})
      for (const bool causal : {true, false}) {
        head.attend({.scale = 0.5, .causal = causal, .window = window, .sinks = sinks});
        head.expect_equals(head.oracle(0.5, [&](Index i, Index j) {
          const Index p = i + keys - queries;
          if (causal && j > p) return false;
          return j < sinks || std::abs(p - j) < window;
        }));
      }
  head.attend({.causal = true, .window = 1});
  for (Index i = 0; i < queries; ++i)
    for (Index c = 0; c < 3; ++c) EXPECT_EQ(head.out(i, c), head.v(i + keys - queries, c));
}

TEST(ReferenceAttend, EveryKeyOrderGivesTheSame) {
  Head head(40, 40, 6, 4);
  const Oracle wanted = head.oracle(1, causal_visibility(40, 40));
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    const auto order = random_order(40, seed);
    head.attend({.causal = true, .order = order});
    head.expect_equals(wanted);
  }
}

TEST(ReferenceAttend, KeysBehindTheLengthInUseAreNotThere) {
  Head whole(12, 40, 6, 4);
  const auto order = random_order(40, 3);
  Head shorter = whole;
  shorter.k.list.resize(25 * 6);
  shorter.k.rows = 25;
  shorter.v.list.resize(25 * 4);
  shorter.v.rows = 25;
  const Oracle wanted = shorter.oracle(1, causal_visibility(12, 25));
  shorter.attend({.causal = true, .order = order});  // 40 slots, of which 25 hold a key
  shorter.expect_equals(wanted);
  shorter.attend({.order = order});
  shorter.expect_equals(shorter.oracle(1, [](Index, Index) { return true; }));
}

TEST(ReferenceAttend, MaskSelectsBlocksOfSlots) {
  const Index queries = 21, keys = 34;
  Head head(queries, keys, 5, 3);
  const BlockMask::Shape shape{2, 3, queries, keys, 4, 3};
  const BlockMask mask = BlockMask::from_predicate(shape, [](Index b, Index h, Index m, Index n) {
    return m != 2 && (b + 2 * h + 3 * m + n * n) % 3 != 0;
  });
  const auto order = random_order(keys, 8);
  std::vector<Index> slot_of(static_cast<std::size_t>(keys));
  for (Index s = 0; s < keys; ++s) slot_of[order[static_cast<std::size_t>(s)]] = s;
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 3; ++h) {
      head.attend(
          {.batch = b, .head = h, .scale = 0.4, .causal = true, .order = order, .mask = &mask});
      head.expect_equals(head.oracle(0.4, [&](Index i, Index j) {
        const auto row = mask.row(b, h, i / 4);
        return j <= i + keys - queries &&
               std::count(row.begin(), row.end(), slot_of[static_cast<std::size_t>(j)] / 3) == 1;
      }));
      for (Index i = 8; i < 12; ++i) {
        EXPECT_EQ(head.lse[static_cast<std::size_t>(i)], -infinity);
        for (Index c = 0; c < 3; ++c) EXPECT_TRUE(same_bits(head.out(i, c), 0.0));
      }
    }
}

TEST(ReferenceAttend, MoreBlocksCoverMore) {
  Head head(30, 30, 5, 3);
  const BlockMask::Shape shape{1, 1, 30, 30, 4, 4};
  const auto few = BlockMask::from_predicate(
      shape, [](Index, Index, Index m, Index n) { return (m + n) % 3 == 0; });
  const auto more = BlockMask::from_predicate(
      shape, [](Index, Index, Index m, Index n) { return (m + n) % 3 != 1; });
  head.attend({.mask = &few});
  const std::vector<double> small = head.lse;
  head.attend({.mask = &more});
  const std::vector<double> large = head.lse;
  head.attend({});
  for (std::size_t i = 0; i < small.size(); ++i) {
    EXPECT_LT(small[i], large[i]);
    EXPECT_LT(large[i], head.lse[i]);
  }
}

struct Recorder {
  std::vector<ScorePlace>* places;
  template <class T>
  T modify(T score, const ScorePlace& place) const noexcept {
    places->push_back(place);
    return place.key % 3 == 1 ? T(-std::numeric_limits<T>::infinity())
                              : score / T(2) + T(place.query_position - place.key);
  }
};

TEST(ReferenceAttend, ModifierSeesScaledScoresAndPlaces) {
  const Index queries = 9, keys = 14;
  Head head(queries, keys, 4, 3);
  const auto order = random_order(keys, 4);
  std::vector<ScorePlace> places;
  head.attend({.batch = 3, .head = 5, .scale = 0.7, .causal = true, .order = order},
              Recorder{&places});
  const Oracle wanted =
      dense_attention(head.q.view(), head.k.view(), head.v.view(), 0.7,
                      causal_visibility(queries, keys), [&](Index i, Index j, long double s) {
                        if (j % 3 == 1) return -std::numeric_limits<long double>::infinity();
                        return s / 2 + static_cast<long double>(i + keys - queries - j);
                      });
  head.expect_equals(wanted);
  ASSERT_FALSE(places.empty());
  for (const ScorePlace& place : places) {
    EXPECT_EQ(place.batch, 3);
    EXPECT_EQ(place.head, 5);
    EXPECT_EQ(place.query_position, place.query + keys - queries);
    EXPECT_LE(place.key, place.query_position);
  }
}

TEST(ReferenceAttend, ConstantValuesComeOutUnderAnyMask) {
  Head head(33, 33, 6, 4);
  std::fill(head.v.list.begin(), head.v.list.end(), -2.5);
  const BlockMask mask = BlockMask::from_predicate(
      {1, 1, 33, 33, 5, 3}, [](Index, Index, Index m, Index n) { return n == 0 || n % 4 == m; });
  head.attend({.causal = true, .mask = &mask});
  for (const double x : head.out.list) EXPECT_TRUE(within(x, -2.5, bound));
}

TEST(ReferenceAttend, ExtremeScoresTiesAndTinyNumbersStayFinite) {
  for (const double size : {0.0, 5e-324, 1e-300, 100.0, 1e4}) {
    Head head(17, 17, 4, 2);
    for (double& x : head.q.list) x *= size;
    head.attend({.causal = true});
    for (const double x : head.out.list) EXPECT_TRUE(std::isfinite(x));
    for (const double x : head.lse) EXPECT_TRUE(std::isfinite(x));
  }
  Head equal(1, 8, 4, 2);
  std::fill(equal.k.list.begin(), equal.k.list.end(), 3.0);
  equal.attend({});
  for (Index c = 0; c < 2; ++c) {
    double mean = 0;
    for (Index j = 0; j < 8; ++j) mean += equal.v(j, c) / 8;
    EXPECT_TRUE(within(equal.out(0, c), mean, bound));
  }
}

TEST(ReferenceAttend, NanStaysInTheRowsThatSeeIt) {
  Head head(20, 20, 4, 2);
  const auto expect_from = [&](Index first_nan, std::optional<Index> only) {
    head.attend({.causal = true});
    for (Index i = 0; i < 20; ++i) {
      const bool wanted = only ? i == *only : i >= first_nan;
      EXPECT_EQ(std::isnan(head.out(i, 0)), wanted) << i;
      EXPECT_EQ(std::isnan(head.lse[static_cast<std::size_t>(i)]), wanted) << i;
    }
  };
  head.k(12, 1) = nan_value;  // a key: the queries at or behind it
  expect_from(12, {});
  head = Head(20, 20, 4, 2);
  head.q(7, 0) = nan_value;  // a query: its own row
  expect_from(0, 7);
  head = Head(20, 20, 4, 2);
  head.q(0, 0) = nan_value;  // a row that holds nothing but NaN
  expect_from(0, 0);
  head = Head(20, 20, 4, 2);
  std::fill(head.q.list.begin(), head.q.list.end(), 1.0);
  head.k(12, 1) = infinity;  // a score of +inf
  expect_from(12, {});
}

TEST(ReferenceAttend, ValuesThatARowDoesNotSeeNeverReachIt) {
  Head head(20, 20, 4, 2);
  for (Index c = 0; c < 2; ++c) head.v(12, c) = nan_value;
  head.attend({.causal = true});
  for (Index i = 0; i < 20; ++i) EXPECT_EQ(std::isnan(head.out(i, 1)), i >= 12) << i;
}

TEST(ReferenceAttend, WritesEveryScalar) {
  const Head head(9, 9, 4, 3);
  const auto run = [&]<class T>(T) {
    PlainRows<T> q(9, 4), k(9, 4), v(9, 3), out(9, 3);
    const auto narrow = [](const PlainRows<double>& from, PlainRows<T>& to) {
      for (std::size_t i = 0; i < from.list.size(); ++i)
        to.list[i] = static_cast<T>(static_cast<pare::compute_t<T>>(from.list[i]));
    };
    narrow(head.q, q);
    narrow(head.k, k);
    narrow(head.v, v);
    reference_attend(
        {.scale = 0.5, .causal = true}, q.view(), Index{9},
        [&](Index j) { return k.list.data() + j * 4; },
        [&](Index j) { return v.list.data() + j * 3; }, Unchanged{}, out.writable(),
        TensorView<float, 1>{});
    const Oracle wanted =
        dense_attention(q.view(), k.view(), v.view(), 0.5, causal_visibility(9, 9));
    // The cast at the end: half a unit in the last place of values below 4.
    const double unit = sizeof(T) == 8 ? 1e-11 : sizeof(T) == 4 ? 4 * 0x1p-24 : 4 * 0x1p-9;
    for (Index i = 0; i < 9; ++i)
      for (Index c = 0; c < 3; ++c)
        EXPECT_TRUE(within(static_cast<double>(static_cast<pare::compute_t<T>>(out(i, c))),
                           wanted.out(i, c), unit));
  };
  run(double{});
  run(float{});
  run(pare::bf16{});
  run(pare::f16{});
}

TEST(ReferenceAttend, NothingToDo) {
  Head none(0, 5, 4, 3), no_keys(5, 0, 4, 3);
  none.attend({.causal = true});
  no_keys.attend({});
  for (const double x : no_keys.out.list) EXPECT_TRUE(same_bits(x, 0.0));
  for (const double x : no_keys.lse) EXPECT_EQ(x, -infinity);
}

}  // namespace
}  // namespace attention_reference_test
