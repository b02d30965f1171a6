// SPDX-License-Identifier: Apache-2.0
// The numbers of a result, and what options refuse.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include <pare/factor/low_rank.hpp>
#include <pare/factor/options.hpp>

#include "support/matrices.hpp"

namespace factor_low_rank_test {
namespace {

using namespace pare::factor;
using pare::Index;
using pare::testing::refusal;

template <class T>
LowRank<T> zeros(Index out, Index rank, Index in) {
  LowRank<T> r;
  r.left.setZero(out, rank);
  r.right.setZero(rank, in);
  return r;
}

template <class T>
struct LowRankTest : testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(LowRankTest, Scalars);

TYPED_TEST(LowRankTest, CountsParametersAndWhatTheySave) {
  const auto r = zeros<TypeParam>(6, 2, 12);
  EXPECT_EQ(r.rank(), 2);
  EXPECT_EQ(r.parameters(), 2 * 18);
  EXPECT_EQ(r.parameter_saving(), 0.5);
  EXPECT_EQ(r.flop_saving(), 0.5);
  EXPECT_TRUE(r.compresses());
}

TYPED_TEST(LowRankTest, GrowsAtAndBeyondTheBreakEvenRank) {
  const auto even = zeros<TypeParam>(8, 4, 8);
  EXPECT_EQ(even.parameter_saving(), 0.0);
  EXPECT_FALSE(even.compresses());
  const auto larger = zeros<TypeParam>(8, 6, 8);
  EXPECT_EQ(larger.parameter_saving(), -0.5);
  EXPECT_FALSE(larger.compresses());
}

TYPED_TEST(LowRankTest, ErrorIsTheRootOfWhatIsNotCaptured) {
  LowRank<TypeParam> r;
  r.total_energy = 25;
  r.captured_energy = 16;
  EXPECT_EQ(r.error(), 3);
  EXPECT_EQ(r.relative_error(), 0.6);
  r.captured_energy = std::nextafter(25.0, 26.0);
  EXPECT_EQ(r.error(), 0) << "rounding beyond the total";
  r.captured_energy = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(r.error())) << "an energy that is no number";
  r.total_energy = 0;
  EXPECT_EQ(r.relative_error(), 0) << "a zero matrix";
}

TYPED_TEST(LowRankTest, AnEmptyResultSavesNothing) {
  const LowRank<TypeParam> r;
  EXPECT_EQ(r.rank(), 0);
  EXPECT_EQ(r.parameters(), 0);
  EXPECT_EQ(r.parameter_saving(), 0);
  EXPECT_FALSE(r.compresses());
  EXPECT_EQ(r.error(), 0);
  EXPECT_EQ(r.relative_error(), 0);
}

TEST(SvdOptionsTest, RankLimit) {
  EXPECT_EQ(rank_limit({.rank = 3}, 7, 5), 3);
  EXPECT_EQ(rank_limit({.tolerance = 0.1}, 7, 5), 5);
  EXPECT_EQ(rank_limit({.tolerance = 0.1}, 4, 5), 4);
}

TEST(SvdOptionsTest, RefusesWhatIsOutOfRange) {
  const auto refused = [](const SvdOptions& o, const char* argument, Index out = 7, Index in = 5) {
    refusal([&] { validate("factor::f", o, out, in); }, "factor::f", argument);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  refused({.rank = 0}, "rank");
  refused({.rank = -1}, "rank");
  refused({.rank = 6}, "rank");
  refused({.rank = 6}, "rank", 5, 7);
  refused({.rank = -1, .tolerance = 0.1}, "rank");
  refused({.rank = 6, .tolerance = 0.1}, "rank");
  refused({.rank = 0, .tolerance = 0.1}, "rank");
  refused({}, "rank");
  for (const double tolerance : {-0.1, 0.0, 1.0, 2.0, nan, infinity}) {
    refused({.tolerance = tolerance}, "tolerance");
    refused({.rank = 1, .tolerance = tolerance}, "tolerance");
  }
  refused({.rank = 1, .oversample = -1}, "oversample");
  refused({.rank = 1, .steps = -1}, "steps");
  refused({.rank = 1}, "w", 0, 5);
  refused({.rank = 1}, "w", 7, 0);
  for (const SvdOptions& o : {SvdOptions{.rank = 5}, SvdOptions{.rank = 1, .steps = 0},
                              SvdOptions{.tolerance = 0.5}, SvdOptions{.rank = 2, .oversample = 0}})
    EXPECT_NO_THROW(validate("factor::f", o, 7, 5));
}

TEST(ElementwiseOptionsTest, RefusesWhatIsOutOfRange) {
  const auto refused = [](const ElementwiseOptions& o, const char* argument, Index out = 7) {
    refusal([&] { validate("factor::f", o, out, 5); }, "factor::f", argument);
  };
  refused({.rank = 0}, "rank");
  refused({.rank = 6}, "rank");
  refused({.rank = 1, .sweeps = -1}, "sweeps");
  refused({.rank = 1, .restarts = -1}, "restarts");
  for (const int none : {-1, 2}) refused({.rank = 1, .method = ElementwiseMethod(none)}, "method");
  refused({.rank = 1, .tolerance = -1}, "tolerance");
  refused({.rank = 1, .tolerance = std::numeric_limits<double>::quiet_NaN()}, "tolerance");
  refused({.rank = 1}, "w", 0);
  EXPECT_NO_THROW(validate("factor::f", ElementwiseOptions{.rank = 5, .sweeps = 0}, 7, 5));
}

}  // namespace
}  // namespace factor_low_rank_test
