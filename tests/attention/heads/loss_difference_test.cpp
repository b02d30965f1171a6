// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <limits>
#include <span>
#include <vector>

#include <pare/attention/heads/loss_difference.hpp>

#include "support/matrices.hpp"

namespace attention_heads_loss_difference_test {
namespace {

using pare::Index;
using pare::attention::document_score;
using pare::attention::loss_difference;
using pare::attention::top_documents;
using pare::testing::refusal;

using List = std::vector<double>;
constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double largest = std::numeric_limits<double>::max();

TEST(DocumentScore, IsTheRiseOfTheMeanLossOverTheLoss) {
  EXPECT_EQ(loss_difference(2, 3), .5);
  EXPECT_EQ(loss_difference(4, 1), -.75) << "a model may gain";
  EXPECT_EQ(loss_difference(4, 4), 0);
  EXPECT_EQ(document_score(List{1, 3}, List{2, 6}), 1) << "not the mean of 1 and 1 by token alone";
  EXPECT_EQ(document_score(List{.5, 3.5}, List{3, 3}), .5);
  EXPECT_EQ(document_score(List{2}, List{3}), .5) << "two tokens have one loss";
  EXPECT_EQ(document_score(List{-.25, 1.25}, List{1, 1}), 1) << "a loss may be rounded below 0";
}

/// proving_ground's table: a loss of 4.277 that rises by 3.367.
TEST(DocumentScore, OfAPublishedRow) { EXPECT_NEAR(loss_difference(4.277, 7.644), .787, 5e-4); }

TEST(DocumentScore, RefusesWhatHasNoScore) {
  const char* const name = "attention::document_score";
  refusal([] { document_score({}, {}); }, name, "base");
  refusal([] { document_score(List{1}, List{}); }, name, "masked");
  refusal([] { document_score(List{1}, List{1, 2}); }, name, "masked");
  refusal([] { document_score(List{0, 0}, List{1, 2}); }, name, "base");
  refusal([] { document_score(List{-1, .5}, List{1, 2}); }, name, "base");
  refusal([] { document_score(List{largest, largest}, List{1, 2}); }, name, "base");
  for (const double bad : {nan_value, infinity, -infinity}) {
    refusal([&] { document_score(List{1, bad}, List{1, 2}); }, name, "base");
    refusal([&] { document_score(List{1, 2}, List{bad, 2}); }, name, "masked");
    refusal([&] { loss_difference(bad, 1); }, "attention::loss_difference", "base");
    refusal([&] { loss_difference(1, bad); }, "attention::loss_difference", "masked");
  }
  for (const double none : {0.0, -0.0, -1.0})
    refusal([&] { loss_difference(none, 1); }, "attention::loss_difference", "base");
}

TEST(TopDocuments, KeepsAShareOfADomain) {
  const List scores{.1, .5, .5, .2, .9, 0, .3, .4, .6, .7};
  EXPECT_EQ(top_documents(scores, .2), (std::vector<Index>{4, 9}));
  EXPECT_EQ(top_documents(scores, .5), (std::vector<Index>{4, 9, 8, 1, 2}));
  EXPECT_EQ(top_documents(scores, .001), (std::vector<Index>{4}));
  EXPECT_EQ(top_documents(scores, 1).size(), scores.size());
  const char* const name = "attention::top_documents";
  refusal([] { top_documents({}, .2); }, name, "scores");
  refusal([] { top_documents(List{1, nan_value}, .2); }, name, "scores");
  for (const double share : {0.0, -1.0, 1.5, nan_value})
    refusal([&] { top_documents(scores, share); }, name, "share");
}

}  // namespace
}  // namespace attention_heads_loss_difference_test
