// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <pare/attention/early_stop.hpp>

#include "attention/early_stop_data.hpp"
#include "support/allocations.hpp"
#include "support/backends.hpp"
#include "support/tolerance.hpp"

namespace attention_early_stop_test {
namespace {

using pare::bf16;
using pare::compute_t;
using pare::f16;
using pare::Index;
using pare::attention::AttendOptions;
using pare::attention::AttendStats;
using pare::attention::EarlyStop;
using pare::testing::allocations;
using pare::testing::EarlyRun;
using pare::testing::keys_read;
using pare::testing::Oracle;
using pare::testing::run_early;
using pare::testing::Sample;
using pare::testing::SampleShape;
using pare::testing::within;
using Aggregate = EarlyStop::Aggregate;
using Guide = EarlyStop::Guide;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
/// A gain that no tile of keys below comes down to, so that the engine goes through all of them.
constexpr double never = 1e-30;

/// For data of unit variance, as attention_bound derives it: f32 1e-5, and as much less for f64 as
/// its roundoff is; 16-bit storage against results from the same rounded inputs 2e-2.
template <class S>
constexpr double bound = sizeof(S) == 2   ? 2e-2
                         : sizeof(S) == 4 ? 1e-5
                                          : 1e-13;

template <class Case>
struct EarlyStopTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(EarlyStopTest, pare::testing::BackendsAndScalars);

template <class S>
double scale_of(const Sample<S>& x) {
  return 1 / std::sqrt(static_cast<double>(x.shape.key_dim));
}

template <class S>
void expect_exact(Sample<S>& x, const EarlyRun<compute_t<S>>& run, const std::string& what) {
  const SampleShape& s = x.shape;
  std::size_t row = 0;
  for (Index b = 0; b < s.batch; ++b)
    for (Index h = 0; h < s.heads; ++h) {
      const Oracle wanted = x.oracle(b, h, scale_of(x));
      for (Index i = 0; i < s.queries; ++i, ++row) {
        ASSERT_TRUE(within(run.lse[row], wanted.log_sum_exp(i), bound<S>)) << what << ' ' << i;
        for (Index c = 0; c < s.value_dim; ++c)
          ASSERT_TRUE(within(
              run.out[row * static_cast<std::size_t>(s.value_dim) + static_cast<std::size_t>(c)],
              wanted.out(i, c), bound<S>))
              << what << ' ' << i;
      }
    }
  EXPECT_EQ(run.stats.density, 1.0) << what;
  EXPECT_TRUE(std::isnan(run.stats.selected_mass));
}

TYPED_TEST(EarlyStopTest, IsExactWithoutStopping) {
  using T = typename TypeParam::scalar;
  for (const Index keys : {1, 31, 32, 33, 97})
    for (const Index queries : {Index{1}, (keys + 1) / 2, keys})
      for (const double threshold : {0.0, never}) {
        Sample<T> x({.batch = 2, .heads = 2, .queries = queries, .keys = keys});
        const EarlyStop rule{.threshold = threshold, .segment = 32, .row_tile = 7, .key_tile = 10};
        expect_exact(x, run_early(this->backend(), x, rule),
                     std::to_string(keys) + " keys, " + std::to_string(queries) + " queries");
      }
}

TYPED_TEST(EarlyStopTest, TilesOfEverySizeAreExactWithoutStopping) {
  using T = typename TypeParam::scalar;
  Sample<T> x({.heads = 2, .queries = 300, .keys = 300, .key_dim = 33, .value_dim = 17});
  for (const Index key_tile : {1, 64, 127, 128, 129, 200})
    for (const bool share : {false, true}) {
      const EarlyStop rule{.threshold = never,
                           .segment = 40,
                           .row_tile = 1 + key_tile % 50,
                           .key_tile = key_tile,
                           .share_kv_heads = share};
      expect_exact(x, run_early(this->backend(), x, rule), std::to_string(key_tile));
    }
}

TYPED_TEST(EarlyStopTest, OneSegmentIsExactForAnyThreshold) {
  using T = typename TypeParam::scalar;
  for (const Index segment : {Index{50}, Index{51}, std::numeric_limits<Index>::max()}) {
    Sample<T> x({.queries = 50, .keys = 50});
    const EarlyStop rule{.threshold = infinity, .segment = segment, .row_tile = 7};
    expect_exact(x, run_early(this->backend(), x, rule), std::to_string(segment));
  }
}

TYPED_TEST(EarlyStopTest, InfiniteThresholdReadsOneTileOfHistory) {
  using T = typename TypeParam::scalar;
  Sample<T> x({.heads = 2, .queries = 32, .keys = 32});
  const EarlyStop rule{.threshold = infinity, .segment = 8, .row_tile = 3, .key_tile = 5};
  const auto read = keys_read(this->backend(), x, rule);
  double computed = 0;
  for (std::size_t row = 0; row < 64; ++row) {
    std::size_t history = 0;
    for (std::size_t j = 0; j < 32; ++j) {
      const bool own = j <= row % 32 && j >= row % 32 / 8 * 8;
      history += !own && read[row * 32 + j] ? 1 : 0;
      EXPECT_TRUE(read[row * 32 + j] || !own) << row << ' ' << j;
      EXPECT_TRUE(!read[row * 32 + j] || j <= row % 32) << row << ' ' << j;
    }
    EXPECT_EQ(history, row % 32 < 8 ? 0u : 5u) << row;
    computed += static_cast<double>(row % 8 + 1 + history);
  }
  EXPECT_DOUBLE_EQ(run_early(this->backend(), x, rule).stats.density, computed / (32 * 33));
}

/// Rules of all kinds, for segments of 24 tokens.
std::vector<EarlyStop> assorted_rules() {
  std::vector<EarlyStop> rules;
  for (const double threshold : {0.05, 0.3})
    for (const Guide guide : {Guide::MeanKey, Guide::MeanPrefixKey, Guide::FirstKey})
      for (const bool share : {false, true}) {
        EarlyStop rule{.threshold = threshold, .segment = 24, .row_tile = 5, .key_tile = 7};
        rule.guide = guide;
        rule.share_kv_heads = share;
        rule.aggregate = share ? Aggregate::Mean : Aggregate::Max;
        rules.push_back(rule);
        rule.permute_queries = false;
        rule.aggregate = share ? Aggregate::Max : Aggregate::Mean;
        rules.push_back(rule);
      }
  return rules;
}

template <class T>
void expect_same(const EarlyRun<T>& got, const EarlyRun<T>& wanted, double tolerance) {
  EXPECT_DOUBLE_EQ(got.stats.density, wanted.stats.density);
  for (std::size_t i = 0; i < wanted.out.size(); ++i)
    ASSERT_TRUE(within(got.out[i], wanted.out[i], tolerance)) << i;
  for (std::size_t i = 0; i < wanted.lse.size(); ++i)
    ASSERT_TRUE(within(got.lse[i], wanted.lse[i], tolerance)) << i;
}

// Independent normal numbers have no near ties: a rank or a stop that rounding could turn would be
// within 1e-6 of another, of which there is one in some thousands.
TYPED_TEST(EarlyStopTest, AgreesWithTheDefinition) {
  using T = typename TypeParam::scalar;
  Sample<T> x({.batch = 2, .heads = 4, .kv_heads = 2, .queries = 77, .keys = 90, .value_dim = 3}, 3,
              2);
  const AttendOptions options{.causal = true, .scale = 0.3};
  double sparsest = 1;
  for (const EarlyStop& rule : assorted_rules()) {
    const auto wanted = run_early(pare::reference, x, rule, options);
    expect_same(run_early(this->backend(), x, rule, options), wanted, bound<T>);
    EXPECT_EQ(keys_read(this->backend(), x, rule, options),
              keys_read(pare::reference, x, rule, options));
    sparsest = std::min(sparsest, wanted.stats.density);
    EXPECT_LT(wanted.stats.density, 1);
  }
  EXPECT_LT(sparsest, 0.6);
}

/// So many segments that an item has several, which share what a worker keeps.
TYPED_TEST(EarlyStopTest, ItemsOfSeveralSegmentsAgreeWithTheDefinition) {
  using T = typename TypeParam::scalar;
  Sample<T> x({.heads = 2, .queries = 400, .keys = 400, .value_dim = 3}, 5, 2);
  const EarlyStop rule{.threshold = 0.3, .segment = 8, .row_tile = 5, .key_tile = 7};
  const auto wanted = run_early(pare::reference, x, rule);
  EXPECT_LT(wanted.stats.density, 0.9);
  expect_same(run_early(this->backend(), x, rule), wanted, bound<T>);
}

TYPED_TEST(EarlyStopTest, SequencesOfDifferentLengthsAreEachOnTheirOwn) {
  using T = typename TypeParam::scalar;
  const EarlyStop rule{.threshold = 0.2, .segment = 16, .row_tile = 6, .key_tile = 5};
  Sample<T> x({.batch = 3, .heads = 2, .queries = 20, .keys = 60}, 5, 2);
  const std::vector<Index> lengths{20, 60, 37};
  const auto got = run_early(this->backend(), x, rule, {.causal = true, .key_lengths = lengths});
  Sample<T> packed({.heads = 2, .queries = 60, .keys = 117}, 5, 2);
  for (Index b = 0, key = 0; b < 3; key += lengths[static_cast<std::size_t>(b++)])
    for (Index h = 0; h < 2; ++h) {
      for (Index i = 0; i < 20; ++i)
        for (Index c = 0; c < 16; ++c) packed.q()(0, h, 20 * b + i, c) = x.q()(b, h, i, c);
      for (Index j = 0; j < lengths[static_cast<std::size_t>(b)]; ++j) {
        for (Index c = 0; c < 16; ++c) packed.k()(0, 0, key + j, c) = x.k()(b, 0, j, c);
        for (Index c = 0; c < 5; ++c) packed.v()(0, 0, key + j, c) = x.v()(b, 0, j, c);
      }
    }
  const std::vector<Index> query_offsets{0, 20, 40, 60}, key_offsets{0, 20, 80, 117};
  const auto joined =
      run_early(this->backend(), packed, rule,
                {.causal = true, .query_offsets = query_offsets, .key_offsets = key_offsets});
  EXPECT_DOUBLE_EQ(got.stats.density, joined.stats.density);
  EXPECT_LT(got.stats.density, 0.95);
  for (std::size_t b = 0; b < 3; ++b) {
    Sample<T> one({.heads = 2, .queries = 20, .keys = lengths[b]});
    for (Index h = 0; h < 2; ++h)
      for (Index c = 0; c < 16; ++c) {
        const auto batch = static_cast<Index>(b);
        for (Index i = 0; i < 20; ++i) one.q()(0, h, i, c) = x.q()(batch, h, i, c);
        for (Index j = 0; j < lengths[b]; ++j) one.k()(0, 0, j, c) = x.k()(batch, 0, j, c);
        for (Index j = 0; c < 5 && j < lengths[b]; ++j) one.v()(0, 0, j, c) = x.v()(batch, 0, j, c);
      }
    const auto wanted = run_early(pare::reference, one, rule);
    for (std::size_t h = 0; h < 2; ++h)
      for (std::size_t e = 0; e < 100; ++e) {
        EXPECT_TRUE(within(got.out[(2 * b + h) * 100 + e], wanted.out[h * 100 + e], bound<T>));
        EXPECT_TRUE(within(joined.out[(3 * h + b) * 100 + e], wanted.out[h * 100 + e], bound<T>));
      }
  }
}

TYPED_TEST(EarlyStopTest, StopsNoLaterForAHigherThreshold) {
  using T = typename TypeParam::scalar;
  for (const Aggregate aggregate : {Aggregate::Max, Aggregate::Mean}) {
    Sample<T> x({.heads = 2, .queries = 70, .keys = 80}, 7, 2);
    std::vector<bool> before;
    double density = 2;
    for (const double threshold : {0.0, 1e-3, 0.01, 0.05, 0.1, 0.3, 1.0}) {
      const EarlyStop rule{.threshold = threshold,
                           .segment = 16,
                           .row_tile = 6,
                           .key_tile = 5,
                           .aggregate = aggregate};
      const auto read = keys_read(this->backend(), x, rule);
      for (std::size_t i = 0; i < before.size(); ++i) ASSERT_TRUE(before[i] || !read[i]) << i;
      const double now = run_early(this->backend(), x, rule).stats.density;
      EXPECT_LE(now, density);
      before = read;
      density = now;
    }
    EXPECT_LT(density, 0.5) << "the thresholds do stop something";
  }
}

TYPED_TEST(EarlyStopTest, ErrorIsAtMostTwiceTheDroppedMassTimesTheLargestValue) {
  using T = typename TypeParam::scalar;
  Sample<T> x({.heads = 2, .queries = 90, .keys = 90}, 9, 2);
  const EarlyStop rule{.threshold = 0.1, .segment = 16, .row_tile = 6, .key_tile = 5};
  const auto got = run_early(this->backend(), x, rule);
  const auto read = keys_read(this->backend(), x, rule);
  double largest = 0, worst = 0;
  for (Index j = 0; j < 90; ++j)
    for (Index c = 0; c < 5; ++c)
      largest = std::max(largest, std::abs(static_cast<double>(x.v()(0, 0, j, c))));
  for (Index h = 0; h < 2; ++h) {
    const Oracle exact = x.oracle(0, h, scale_of(x));
    for (Index i = 0; i < 90; ++i) {
      const auto row = static_cast<std::size_t>(h * 90 + i);
      double dropped = 0;
      for (Index j = 0; j <= i; ++j)
        if (!read[row * 90 + static_cast<std::size_t>(j)]) dropped += exact.p(i, j);
      worst = std::max(worst, dropped);
      EXPECT_TRUE(within(got.lse[row], exact.log_sum_exp(i) + std::log1p(-dropped), bound<T>));
      for (Index c = 0; c < 5; ++c)
        EXPECT_LE(std::abs(static_cast<double>(got.out[row * 5 + static_cast<std::size_t>(c)]) -
                           exact.out(i, c)),
                  2 * dropped * largest + bound<T>);
    }
  }
  EXPECT_GT(worst, 0.05) << "something is dropped";
}

TYPED_TEST(EarlyStopTest, ConstantValuesComeOutForAnyThreshold) {
  using T = typename TypeParam::scalar;
  Sample<T> x({.heads = 2, .queries = 100, .keys = 120}, 11, 2);
  const auto v = x.v();
  for (Index j = 0; j < 120; ++j)
    for (Index c = 0; c < 5; ++c) v(0, 0, j, c) = T(1.75);
  for (const double threshold : {0.0, never, 0.01, 0.1, 0.5, infinity}) {
    const EarlyStop rule{.threshold = threshold, .segment = 16, .row_tile = 7, .key_tile = 9};
    for (const T value : run_early(this->backend(), x, rule).out)
      ASSERT_TRUE(within(value, 1.75, bound<T>));
  }
}

TYPED_TEST(EarlyStopTest, PlantedKeysAreInTheFirstTilesAndTheRestIsSkipped) {
  using T = typename TypeParam::scalar;
  constexpr Index keys = 96, planted = 6;
  Sample<T> x({.queries = keys, .keys = keys}, 13, 0.05);
  for (Index i = 0; i < keys; ++i) x.q()(0, 0, i, 0) = 6;
  for (Index j = 0; j < keys; ++j) x.k()(0, 0, j, 0) = j % 10 == 3 && j < 10 * planted ? 6 : 0;
  const EarlyStop rule{.threshold = 0.01, .segment = 32, .row_tile = 32, .key_tile = 4};
  const auto read = keys_read(this->backend(), x, rule);
  // All planted keys are in the history of the last segment: two tiles hold them, and the next one
  // adds nothing and is the last.
  for (std::size_t row = 64; row < keys; ++row) {
    Index history = 0;
    for (std::size_t j = 0; j < 64; ++j) history += read[row * keys + j] ? 1 : 0;
    EXPECT_EQ(history, 12);
    for (std::size_t j = 0; j < planted; ++j) EXPECT_TRUE(read[row * keys + 10 * j + 3]);
  }
}

// All weights are 1: after 4 keys of its own segment, a tile of 4 keys adds half of the mass.
TYPED_TEST(EarlyStopTest, AGainOfJustTheThresholdGoesOn) {
  using T = typename TypeParam::scalar;
  constexpr Index keys = 32;
  Sample<T> x({.queries = keys, .keys = keys});
  for (Index i = 0; i < keys; ++i)
    for (Index c = 0; c < 16; ++c) x.q()(0, 0, i, c) = 0;
  const EarlyStop rule{
      .threshold = 0.5, .segment = 16, .row_tile = 1, .key_tile = 4, .permute_queries = false};
  const auto read = keys_read(this->backend(), x, rule);
  const auto history = [&](std::size_t row) {
    return std::count(read.begin() + static_cast<Index>(row * keys),
                      read.begin() + static_cast<Index>(row * keys + 16), true);
  };
  EXPECT_EQ(history(18), 8);
  EXPECT_EQ(history(19), 8) << "4 / 8 is not below the threshold, 4 / 12 is";
  EXPECT_EQ(history(20), 4);
}

TYPED_TEST(EarlyStopTest, EqualKeysAreReadInTheirOrder) {
  using T = typename TypeParam::scalar;
  Sample<T> x({.queries = 48, .keys = 48});
  for (Index j = 0; j < 48; ++j)
    for (Index c = 0; c < 16; ++c) x.k()(0, 0, j, c) = c == 0 ? T(1) : T(j % 2 == 0 ? 0.0 : -0.0);
  const EarlyStop rule{.threshold = infinity, .segment = 16, .row_tile = 5, .key_tile = 6};
  const auto read = keys_read(this->backend(), x, rule);
  for (std::size_t row = 16; row < 48; ++row)
    for (std::size_t j = 0; j < row / 16 * 16; ++j) EXPECT_EQ(read[row * 48 + j], j < 6) << row;
}

TYPED_TEST(EarlyStopTest, NanStaysInItsRow) {
  using T = typename TypeParam::scalar;
  for (const Aggregate aggregate : {Aggregate::Max, Aggregate::Mean}) {
    Sample<T> x({.queries = 48, .keys = 48}, 15, 2);
    x.q()(0, 0, 21, 2) = T(nan_value);
    const EarlyStop rule{
        .threshold = 0.05, .segment = 16, .row_tile = 4, .key_tile = 3, .aggregate = aggregate};
    const auto got = run_early(this->backend(), x, rule);
    for (std::size_t i = 0; i < 48; ++i) EXPECT_EQ(std::isnan(got.out[5 * i]), i == 21) << i;
    // Nor does it hold up the rows of its tile.
    EXPECT_DOUBLE_EQ(got.stats.density, run_early(pare::reference, x, rule).stats.density);
    EXPECT_LT(got.stats.density, 0.95);
  }
}

TYPED_TEST(EarlyStopTest, NanKeysRankLast) {
  using T = typename TypeParam::scalar;
  Sample<T> x({.queries = 40, .keys = 40}, 17);
  x.k()(0, 0, 3, 1) = T(nan_value);
  const EarlyStop rule{.threshold = infinity, .segment = 8, .row_tile = 8, .key_tile = 7};
  const auto got = run_early(this->backend(), x, rule);
  for (std::size_t i = 0; i < 40; ++i) EXPECT_EQ(std::isnan(got.out[5 * i]), i >= 3 && i < 8) << i;
}

/// Keys that a score of -infinity hides may be all that a row has seen so far, of its segment and
/// then of a tile of history: it goes on with nothing, and ends as 0 if nothing comes.
TYPED_TEST(EarlyStopTest, HiddenKeysCountForNothing) {
  using T = typename TypeParam::scalar;
  for (const Index hidden : {21, 40}) {
    Sample<T> x({.queries = 40, .keys = 40}, 18);
    for (Index i = 0; i < 40; ++i) x.q()(0, 0, i, 0) = T(1);
    for (Index j = 40 - hidden; j < 40; ++j) x.k()(0, 0, j, 0) = T(-infinity);
    for (Index j = 8; j < 11; ++j) x.k()(0, 0, j, 0) = T(-infinity);
    for (const Aggregate aggregate : {Aggregate::Max, Aggregate::Mean})
      for (const double threshold : {never, 0.3}) {
        const EarlyStop rule{.threshold = threshold,
                             .segment = 8,
                             .row_tile = 3,
                             .key_tile = 5,
                             .aggregate = aggregate};
        const auto got = run_early(this->backend(), x, rule);
        const auto wanted = run_early(pare::reference, x, rule);
        EXPECT_DOUBLE_EQ(got.stats.density, wanted.stats.density);
        for (std::size_t i = 0; i < got.out.size(); ++i)
          ASSERT_TRUE(within(got.out[i], wanted.out[i], bound<T>)) << hidden << ' ' << i;
        for (std::size_t i = 0; i < got.lse.size(); ++i)
          ASSERT_TRUE(got.lse[i] == wanted.lse[i] || within(got.lse[i], wanted.lse[i], bound<T>))
              << hidden << ' ' << i;
      }
  }
}

TYPED_TEST(EarlyStopTest, ExtremeScoresStillWeighToOne) {
  using T = typename TypeParam::scalar;
  Sample<T> x({.queries = 64, .keys = 64}, 19, 1e4);
  const auto v = x.v();
  for (Index j = 0; j < 64; ++j)
    for (Index c = 0; c < 5; ++c) v(0, 0, j, c) = T(1.75);
  for (const double threshold : {never, 0.01, infinity}) {
    const EarlyStop rule{.threshold = threshold, .segment = 16, .row_tile = 5, .key_tile = 6};
    for (const T value : run_early(this->backend(), x, rule).out)
      ASSERT_TRUE(within(value, 1.75, bound<T>));
  }
}

TYPED_TEST(EarlyStopTest, NothingToDoIsDone) {
  using T = typename TypeParam::scalar;
  for (const auto& [batch, queries] : {std::pair<Index, Index>{0, 5}, {2, 0}}) {
    Sample<T> x({.batch = batch, .queries = queries, .keys = 600});
    EXPECT_EQ(run_early(this->backend(), x, {}).stats.density, 1);
  }
}

/// Scores between 3 and 16 that 16-bit storage holds exactly, and rankings that it cannot turn:
/// keys are multiples of one vector, no two alike, and so are the queries of a segment of 32.
template <class S>
Sample<S> ladder() {
  Sample<S> x({.heads = 2, .queries = 160, .keys = 160}, 21);
  const auto write = [](pare::TensorView<S, 4> rows, Index head, Index token, double height) {
    for (Index c = 0; c < rows.extent[3]; ++c)
      rows(0, head, token, c) = S(c == 0 ? static_cast<float>(height) : 0.0f);
  };
  for (Index i = 0; i < 160; ++i) {
    write(x.k(), 0, i, static_cast<double>(96 + i * 67 % 160) / 128);
    for (Index h = 0; h < 2; ++h)
      write(x.q(), h, i, static_cast<double>(32 + (i * 7 + 5 * h) % 32) / 8);
  }
  return x;
}

template <class S>
struct EarlyStopStorageTest : testing::Test {};
using Storages = testing::Types<bf16, f16>;
TYPED_TEST_SUITE(EarlyStopStorageTest, Storages);

TYPED_TEST(EarlyStopStorageTest, AgreesWithTheDefinition) {
  Sample<TypeParam> x = ladder<TypeParam>();
  const AttendOptions options{.causal = true, .scale = 1.0};
  for (const double threshold : {0.01, 0.1, infinity})
    for (const bool share : {false, true}) {
      const EarlyStop rule{.threshold = threshold,
                           .segment = 32,
                           .row_tile = 6,
                           .key_tile = 11,
                           .share_kv_heads = share};
      const auto wanted = run_early(pare::reference, x, rule, options);
      EXPECT_LT(wanted.stats.density, 0.95);
      expect_same(run_early(pare::simd.threads(2), x, rule, options), wanted, bound<TypeParam>);
      EXPECT_EQ(keys_read(pare::simd, x, rule, options),
                keys_read(pare::reference, x, rule, options));
    }
}

TYPED_TEST(EarlyStopStorageTest, IsExactWithoutStoppingAndWritesItsOwnScalar) {
  Sample<TypeParam> x({.heads = 2, .queries = 150, .keys = 150, .key_dim = 33}, 23);
  const EarlyStop rule{.threshold = never, .segment = 32, .row_tile = 7, .key_tile = 30};
  const auto wide = run_early(pare::simd, x, rule);
  expect_exact(x, wide, "");
  std::vector<TypeParam> narrow(wide.out.size());
  const pare::TensorView<TypeParam, 4> out{narrow.data(), {1, 2, 150, 5}, {1500, 750, 5, 1}};
  pare::attention::attend(x.q(), x.k(), x.v(), out, rule);
  for (std::size_t i = 0; i < narrow.size(); ++i)
    EXPECT_TRUE(pare::testing::same_bits(narrow[i], static_cast<TypeParam>(wide.out[i]))) << i;
}

template <class T>
void expect_same_bits(const EarlyRun<T>& a, const EarlyRun<T>& b) {
  EXPECT_EQ(a.stats.density, b.stats.density);
  ASSERT_EQ(a.out.size(), b.out.size());
  for (std::size_t i = 0; i < a.out.size(); ++i)
    ASSERT_TRUE(pare::testing::same_bits(a.out[i], b.out[i])) << i;
  for (std::size_t i = 0; i < a.lse.size(); ++i)
    ASSERT_TRUE(pare::testing::same_bits(a.lse[i], b.lse[i])) << i;
}

TEST(EarlyStopThreads, BitsDependOnNeitherThreadsNorCallsNorWorkspace) {
  Sample<float> x({.heads = 6, .kv_heads = 2, .queries = 400, .keys = 410}, 25, 2);
  for (const bool share : {false, true}) {
    EarlyStop rule{.threshold = 0.2, .segment = 32, .row_tile = 10, .key_tile = 17};
    rule.share_kv_heads = share;
    const auto one = run_early(pare::simd, x, rule);
    EXPECT_LT(one.stats.density, 0.9);
    EXPECT_GT(one.stats.select_seconds, 0);
    pare::Workspace workspace;
    for (const int threads : {1, 2, 3, 7})
      for (int again = 0; again < 2; ++again)
        expect_same_bits(run_early(pare::simd.with(workspace).threads(threads), x, rule), one);
    expect_same_bits(run_early(pare::simd.on(pare::testing::ReversePool{3}), x, rule), one);
  }
}

TEST(EarlyStopWorkspace, SecondCallAllocatesNothing) {
  Sample<float> x({.heads = 2, .queries = 300, .keys = 300}, 27, 2);
  std::vector<float> memory(2 * 300 * 5);
  const pare::TensorView<float, 4> out{memory.data(), {1, 2, 300, 5}, {3000, 1500, 5, 1}};
  pare::Workspace workspace;
  const auto call = [&] {
    attend(pare::simd.with(workspace), x.q(), x.k(), x.v(), out,
           EarlyStop{.threshold = 0.03, .segment = 32});
  };
  call();
  EXPECT_FALSE(workspace.lease<pare::attention::detail::AttendMemory>()->items.empty());
  const long before = allocations.load();
  call();
  EXPECT_EQ(allocations.load(), before);
}

TEST(EarlyStopBits, UsesTheSameGroupedHeadsAsRepeatedOnes) {
  Sample<float> x({.heads = 4, .kv_heads = 2, .queries = 100, .keys = 100}, 29, 2);
  Sample<float> repeated({.heads = 4, .kv_heads = 4, .queries = 100, .keys = 100}, 29, 2);
  for (Index h = 0; h < 4; ++h)
    for (Index j = 0; j < 100; ++j) {
      for (Index c = 0; c < 16; ++c) repeated.q()(0, h, j, c) = x.q()(0, h, j, c);
      for (Index c = 0; c < 16; ++c) repeated.k()(0, h, j, c) = x.k()(0, h / 2, j, c);
      for (Index c = 0; c < 5; ++c) repeated.v()(0, h, j, c) = x.v()(0, h / 2, j, c);
    }
  const EarlyStop rule{.threshold = 0.05, .segment = 16, .row_tile = 5, .key_tile = 9};
  expect_same_bits(run_early(pare::simd, x, rule), run_early(pare::simd, repeated, rule));
}

}  // namespace
}  // namespace attention_early_stop_test
