// SPDX-License-Identifier: Apache-2.0
// The recommender study: which films are kept, how they are split, and that training learns.

#include "recommender/arguments.hpp"
#include "recommender/interactions.hpp"
#include "recommender/train.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <vector>

namespace studies_recommender_test {
namespace {

using pare::Index;
using recommender::Interactions;
using recommender::Method;
using recommender::Split;

movie_lens::Data ratings(const std::vector<std::array<std::size_t, 2>>& pairs, double stars) {
  movie_lens::Data data;
  for (const auto& [user, item] : pairs) {
    data.ratings.push_back({user, item, stars, 0});
    data.user_ids.resize(std::max(data.user_ids.size(), user + 1));
    data.movies.resize(std::max(data.movies.size(), item + 1));
  }
  return data;
}

/// Films 0 and 2 have two users each, who have two films each; what hangs on is dropped in turn.
TEST(Recommender, KeepsTheCore) {
  auto data = ratings({{0, 0}, {0, 2}, {2, 0}, {2, 2}, {2, 1}, {1, 1}}, 4);
  data.ratings.push_back({1, 2, 3.5, 0});
  const Interactions liked = recommender::liked_films(data, 4, 2);
  EXPECT_EQ(liked.items, 2);
  ASSERT_EQ(liked.users(), 2);
  EXPECT_EQ(liked.of_user[0], (std::vector<Index>{0, 1}));
  EXPECT_EQ(liked.of_user[1], (std::vector<Index>{0, 1}));
  EXPECT_THROW(recommender::liked_films(data, 4, 3), std::runtime_error);
}

/// Users of two kinds, who like 15 of the 20 items of their kind.
Interactions two_kinds() {
  Interactions liked;
  liked.items = 40;
  for (Index u = 0; u < 40; ++u) {
    liked.of_user.emplace_back();
    for (Index i = 0; i < 15; ++i) liked.of_user.back().push_back(2 * ((u + i) % 20) + u % 2);
  }
  return liked;
}

TEST(Recommender, SplitsEachUsersItems) {
  const Interactions liked = two_kinds();
  const Split split = recommender::split_items(liked, 3);
  for (Index u = 0; u < liked.users(); ++u) {
    const auto train = split.train.lists().of(u), test = split.test.lists().of(u);
    const auto validation = split.validation.lists().of(u), seen = split.seen.lists().of(u);
    EXPECT_EQ(test.size(), 1u);
    EXPECT_EQ(validation.size(), 1u);
    std::vector<Index> all(train.begin(), train.end());
    all.push_back(validation.front());
    EXPECT_TRUE(std::is_permutation(all.begin(), all.end(), seen.begin(), seen.end()));
    all.push_back(test.front());
    EXPECT_TRUE(std::is_permutation(all.begin(), all.end(),
                                    liked.of_user[static_cast<std::size_t>(u)].begin(),
                                    liked.of_user[static_cast<std::size_t>(u)].end()));
  }
  EXPECT_EQ(split.train.items, recommender::split_items(liked, 3).train.items);
  EXPECT_NE(split.train.items, recommender::split_items(liked, 4).train.items);
}

/// By chance a held-out item is among the best 20 of about 27 with probability .7; items of the
/// user's kind that are not seen are 7 at the most.
TEST(Recommender, EveryMethodFindsTheKind) {
  const Split split = recommender::split_items(two_kinds(), 3);
  for (const Method method : {Method::DirectAu, Method::Bpr, Method::SampledSoftmax,
                              Method::DirectAuLightGcn, Method::BprLightGcn}) {
    const recommender::Choice choice{1e-2, recommender::is_direct_au(method) ? .5
                                           : recommender::is_bpr(method)     ? 1e-5
                                                                             : .2};
    const recommender::TrainOptions options{.dim = 8, .batch = 128, .epochs = 40};
    const auto run = recommender::train(method, choice, split, options, 1);
    EXPECT_GT(run.test.recall, .95) << static_cast<int>(method);
    EXPECT_GT(run.test.ndcg, .3) << static_cast<int>(method);
    EXPECT_EQ(run.test.ndcg, recommender::train(method, choice, split, options, 1).test.ndcg);
  }
}

/// A step along the gradient of a sum of rows that are smoothed, by differences of numbers.
TEST(Recommender, GradientsGoBackThroughTheGraph) {
  const Split split = recommender::split_items(two_kinds(), 3);
  const auto graph = recommender::detail::training_graph(split);
  EXPECT_TRUE(graph.isApprox(recommender::Graph(graph.transpose())));
  const Eigen::MatrixXf dense = graph;
  const auto smooth = [&](const recommender::Rows& x) {
    return recommender::Rows(.25f * (x + dense * (x + dense * (x + dense * x))));
  };
  recommender::Factors factors(split.users, split.items, 3, 1e-2, 1);
  const recommender::Rows users = factors.users(), items = factors.items();
  recommender::Rows numbers(users.rows() + items.rows(), 3);
  numbers << users, items;
  factors.smooth_over(graph);
  factors.make_rows(pare::simd);
  EXPECT_TRUE(factors.users().isApprox(smooth(numbers).topRows(split.users), 1e-4f));
  EXPECT_TRUE(factors.items().isApprox(smooth(numbers).bottomRows(split.items), 1e-4f));
  // The gradient of the first user's first number alone; Adam's first step is the rate by its sign.
  factors.by_users()(0, 0) = 1;
  factors.move(pare::simd, 0);
  factors.make_rows(pare::simd);
  recommender::Rows unit = recommender::Rows::Zero(numbers.rows(), 3);
  unit(0, 0) = 1;
  const recommender::Rows by_numbers = smooth(unit);
  const recommender::Rows moved = numbers - 1e-2f * (by_numbers.array() > 0).cast<float>().matrix();
  EXPECT_TRUE(factors.users().isApprox(smooth(moved).topRows(split.users), 1e-3f));
}

TEST(Recommender, ReadsItsArguments) {
  const auto parse = [](std::vector<const char*> words) {
    words.insert(words.begin(), "recommender");
    return recommender::parse_arguments(static_cast<int>(words.size()), words.data());
  };
  const auto arguments = parse({"folder", "--stars=0.5", "--seeds", "3"});
  EXPECT_EQ(arguments.folder, "folder");
  EXPECT_EQ(arguments.stars, .5);
  EXPECT_EQ(arguments.seeds, 3u);
  EXPECT_TRUE(parse({"--help"}).help);
  using Words = std::vector<const char*>;
  for (const Words& wrong : {Words{}, Words{"a", "b"}, Words{"a", "--stars", "6"},
                             Words{"a", "--core", "2"}, Words{"a", "--seeds"}})
    EXPECT_THROW(parse(wrong), recommender::UsageError);
}

}  // namespace
}  // namespace studies_recommender_test
