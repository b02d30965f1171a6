// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

#include <pare/attention/heads/head_contributions.hpp>
#include <pare/attention/heads/head_usage.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace attention_heads_head_usage_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::attention::head_contributions;
using pare::attention::HeadUsage;
using pare::attention::select_heads;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::Tolerance;
using pare::testing::within;

using List = std::vector<Index>;
constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

List counts_of(const HeadUsage& usage) { return {usage.counts().begin(), usage.counts().end()}; }

TEST(HeadUsageTest, CountsTheTokensOfEachHead) {
  RowMatrix<double> scores(6, 3);
  scores << 1, 2, 3, /**/ 5, 4, 3, /**/ -1, -1, -2, /**/ nan_value, 0, -infinity, /**/ nan_value,
      nan_value, nan_value, /**/ -infinity, -infinity, -infinity;
  HeadUsage usage(3);
  usage.add(scores);
  EXPECT_EQ(counts_of(usage), (List{3, 1, 1})) << "equal scores go to the first, NaN is none";
  EXPECT_EQ(usage.tokens(), 5);
  usage.add(scores.topRows(1).cast<float>().eval());
  EXPECT_EQ(counts_of(usage), (List{3, 1, 2}));
  EXPECT_EQ(usage.tokens(), 6);
  usage.add(RowMatrix<float>(0, 3));
  EXPECT_EQ(usage.tokens(), 6);
}

TEST(HeadUsageTest, SumsToTheTokensHoweverTheyAreGroupedAndLie) {
  const auto scores = random_matrix<RowMatrix<float>>(500, 7, 1);
  HeadUsage all(7), first(7), second(7);
  all.add(scores);
  first.add(scores.topRows(123));
  second.add(Eigen::MatrixXf(scores.bottomRows(377)));  // by columns
  first.merge(second);
  EXPECT_EQ(counts_of(first), counts_of(all));
  EXPECT_EQ(first.tokens(), 500);
  EXPECT_EQ(std::accumulate(all.counts().begin(), all.counts().end(), Index{0}), 500);
}

TEST(HeadUsageTest, RefusesWhatDoesNotFit) {
  HeadUsage usage(3);
  refusal([&] { usage.add(RowMatrix<float>(2, 4)); }, "attention::HeadUsage::add", "scores");
  refusal([&] { usage.add(pare::TensorView<const float, 2>{nullptr, {2, 3}, {3, 1}}); },
          "attention::HeadUsage::add", "scores");
  refusal([&] { usage.merge(HeadUsage(2)); }, "attention::HeadUsage::merge", "other");
  for (const Index heads : {Index{0}, Index{-1}, std::numeric_limits<Index>::max()})
    refusal([=] { HeadUsage{heads}; }, "attention::HeadUsage", "heads");
  EXPECT_EQ(usage.tokens(), 0);
}

TEST(SelectHeads, KeepsTheMostUsedInRisingOrder) {
  const List counts{5, 0, 9, 5, 1};
  EXPECT_EQ(select_heads(counts, {.count = 1}), (List{2}));
  EXPECT_EQ(select_heads(counts, {.count = 2}), (List{0, 2})) << "of equal ones the first";
  EXPECT_EQ(select_heads(counts, {.count = 3}), (List{0, 2, 3}));
  EXPECT_EQ(select_heads(counts, {.count = 5}), (List{0, 1, 2, 3, 4}));
  EXPECT_EQ(select_heads(counts, {.share = .45}), (List{2})) << "9 of 20 are .45";
  EXPECT_EQ(select_heads(counts, {.share = .46}), (List{0, 2}));
  EXPECT_EQ(select_heads(counts, {.share = .95}), (List{0, 2, 3}));
  EXPECT_EQ(select_heads(counts, {.share = 1}), (List{0, 2, 3, 4})) << "no head without a token";
}

TEST(SelectHeads, RefusesWhatChoosesNothing) {
  const auto refused = [](const List& counts, const pare::attention::HeadSelection& selection,
                          const char* argument) {
    refusal([&] { select_heads(counts, selection); }, "attention::select_heads", argument);
  };
  constexpr Index huge = std::numeric_limits<Index>::max();
  refused({}, {.count = 1}, "counts");
  refused({0, 0}, {.count = 1}, "counts");
  refused({3, -1}, {.count = 1}, "counts");
  refused({huge, 1}, {.count = 1}, "counts");
  refused({1, 2}, {}, "count, share");
  refused({1, 2}, {.count = 1, .share = .5}, "count, share");
  for (const Index count : {Index{0}, Index{-1}, Index{3}, huge})
    refused({1, 2}, {.count = count}, "count");
  for (const double share : {0.0, -.5, 1.1, nan_value, infinity})
    refused({1, 2}, {.share = share}, "share");
}

// ------------------------------------------------------------------ contributions

template <class P>
class Contributions : public testing::Test {};
TYPED_TEST_SUITE(Contributions, pare::testing::BackendsAndScalars);

TYPED_TEST(Contributions, AreTheLengthsOfWhatHeadsAdd) {
  using T = typename TypeParam::scalar;
  constexpr Index tokens = 300, heads = 3, dim = 9, outputs = 14;  // tokens: two blocks
  const auto attended = random_matrix<RowMatrix<T>>(tokens, heads * dim, 2);
  const auto wo = random_matrix<RowMatrix<T>>(outputs, heads * dim, 3);
  RowMatrix<T> lengths(tokens, heads);
  head_contributions(TypeParam::backend::make(), attended, wo, lengths);
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h) {
      long double squares = 0, magnitude = 0;
      for (Index o = 0; o < outputs; ++o) {
        long double sum = 0, size = 0;
        for (Index c = h * dim; c < (h + 1) * dim; ++c) {
          const long double product = static_cast<long double>(attended(t, c)) * wo(o, c);
          sum += product;
          size += std::abs(product);
        }
        squares += sum * sum;
        magnitude += size * size;
      }
      // |length - exact| <= the length of the errors of dim-term products; then the cast.
      const double bound = Tolerance<T>::dot(dim, static_cast<double>(std::sqrt(magnitude))) +
                           Tolerance<T>::gamma(2) * static_cast<double>(std::sqrt(squares));
      ASSERT_TRUE(within(static_cast<double>(lengths(t, h)),
                         static_cast<double>(std::sqrt(squares)), bound))
          << t << ' ' << h;
    }
}

TYPED_TEST(Contributions, ANaNStaysInItsTokenAndHead) {
  using T = typename TypeParam::scalar;
  auto attended = random_matrix<RowMatrix<T>>(5, 4, 2);
  const auto wo = random_matrix<RowMatrix<T>>(3, 4, 3);
  attended(2, 1) = std::numeric_limits<T>::quiet_NaN();
  RowMatrix<T> lengths(5, 2);
  head_contributions(TypeParam::backend::make(), attended, wo, lengths);
  for (Index t = 0; t < 5; ++t)
    for (Index h = 0; h < 2; ++h) EXPECT_EQ(std::isnan(lengths(t, h)), t == 2 && h == 0);
}

TEST(ContributionsOfViews, AnyStrideAndAnyThreadsSameBits) {
  const auto attended = random_matrix<RowMatrix<float>>(290, 12, 4);
  const auto wo = random_matrix<RowMatrix<float>>(21, 12, 5);
  const auto of = [&](const auto& backend, const auto& x) {
    RowMatrix<float> lengths(290, 3);
    head_contributions(backend, x, wo, lengths);
    return lengths;
  };
  pare::testing::same_bits_for_any_threads(
      pare::simd, [&](const auto& backend) { return of(backend, attended); });
  pare::testing::any_stride_same_bits(attended,
                                      [&](const auto& view) { return of(pare::simd, view); });
}

TEST(ContributionsOfViews, RefusesWhatDoesNotFitAndLeavesTheLengths) {
  RowMatrix<float> attended(5, 12), wo(7, 12), lengths(5, 3), none(5, 0);
  attended.setOnes();
  wo.setOnes();
  lengths.setConstant(-1);
  const auto refused = [&](const auto& a, const auto& w, auto&& to, const char* argument) {
    pare::testing::refuses_and_leaves_alone([&] { head_contributions(pare::reference, a, w, to); },
                                            "attention::head_contributions", argument, lengths);
  };
  refused(RowMatrix<float>(4, 12), wo, lengths, "lengths");
  refused(RowMatrix<float>(5, 13), wo, lengths, "attended");
  refused(RowMatrix<float>(5, 0), RowMatrix<float>(7, 0), lengths, "attended");
  refused(attended, RowMatrix<float>(7, 11), lengths, "wo");
  refused(attended, wo, none, "lengths");
  refused(attended, wo, pare::columns_of(pare::to_view(attended), 0, 3), "lengths");
  refused(attended, wo, pare::rows_of(pare::columns_of(pare::to_view(wo), 2, 3), 1, 5), "lengths");
  refused(attended, wo, pare::TensorView<float, 2>{lengths.data(), {5, 3}, {0, 1}}, "lengths");
  constexpr Index huge = Index{1} << 60;
  refused(attended, pare::TensorView<const float, 2>{wo.data(), {huge, 12}, {0, 1}}, lengths, "wo");
  head_contributions(attended, RowMatrix<float>(0, 12), lengths);  // nothing is added
  EXPECT_TRUE((lengths.array() == 0).all());
}

}  // namespace
}  // namespace attention_heads_head_usage_test
