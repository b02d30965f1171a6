// SPDX-License-Identifier: Apache-2.0
// Beams over a trie against all paths of it, sessions, and pairs for preference.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/retrieval/semantic/child_logits.hpp>
#include <pare/retrieval/semantic/constrained_beam.hpp>
#include <pare/retrieval/semantic/preference.hpp>
#include <pare/retrieval/semantic/session_score.hpp>

#include "support/matrices.hpp"

namespace retrieval_constrained_beam_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::retrieval::Beam;
using pare::retrieval::beam_search;
using pare::retrieval::beam_step;
using pare::retrieval::BeamStep;
using pare::retrieval::child_logits;
using pare::retrieval::choose_preference;
using pare::retrieval::IdTrie;
using pare::retrieval::LiveBeams;
using pare::retrieval::session_score;
using pare::retrieval::Sessions;
using pare::testing::integer_matrix;
using pare::testing::random_matrix;
using pare::testing::refusal;

using Path = std::vector<std::int32_t>;
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

/// Some ids of 3 tokens below 5, not all of them.
std::vector<Path> some_ids(int count) {
  std::mt19937_64 random(1);
  std::set<Path> ids;
  while (static_cast<int>(ids.size()) < count) {
    Path id;
    for (int level = 0; level < 3; ++level) id.push_back(static_cast<std::int32_t>(random() % 5));
    ids.insert(id);
  }
  return {ids.begin(), ids.end()};
}

IdTrie trie_of(const std::vector<Path>& ids, Index vocabulary) {
  Path tokens;
  for (const Path& id : ids) tokens.insert(tokens.end(), id.begin(), id.end());
  return {tokens, static_cast<int>(ids[0].size()), vocabulary};
}

/// A model whose logits are a function of all tokens so far.
float logit_of(const Path& before, std::int32_t token) {
  std::uint64_t h = 1469598103934665603u;
  for (const std::int32_t t : before) h = (h ^ static_cast<std::uint64_t>(t + 1)) * 1099511628211u;
  h = (h ^ static_cast<std::uint64_t>(token + 17)) * 1099511628211u;
  return static_cast<float>(h >> 48) / 16384 - 2;
}

void write_logits(const LiveBeams& live, TensorView<float, 2> logits) {
  for (Index b = 0; b < logits.rows(); ++b) {
    const auto tokens = live.of(b);
    for (Index t = 0; t < logits.cols(); ++t)
      logits(b, t) = logit_of(Path(tokens.begin(), tokens.end()), static_cast<std::int32_t>(t));
  }
}

/// All sessions of some items with their scores, by the chain rule over ids that are prefixes.
std::map<Path, double> all_sessions(const std::vector<Path>& ids, int items, bool repeat) {
  std::map<Path, double> sessions{{{}, 0}};
  for (int item = 0; item < items; ++item)
    for (std::size_t level = 0; level < 3; ++level) {
      std::map<Path, double> longer;
      for (const auto& [path, score] : sessions) {
        const auto cut = static_cast<std::ptrdiff_t>(path.size() - level);
        const Path current(path.begin() + cut, path.end());
        std::set<Path> held;
        for (std::ptrdiff_t i = 0; i < cut; i += 3)
          held.insert(Path(path.begin() + i, path.begin() + i + 3));
        std::set<std::int32_t> may;
        for (const Path& id : ids)
          if (std::equal(current.begin(), current.end(), id.begin()) &&
              (repeat || held.count(id) == 0))
            may.insert(id[level]);
        double sum = 0;
        for (const std::int32_t token : may)
          sum += std::exp(static_cast<double>(logit_of(path, token)));
        for (const std::int32_t token : may) {
          Path next = path;
          next.push_back(token);
          longer[next] = score + static_cast<double>(logit_of(path, token)) - std::log(sum);
        }
      }
      sessions.swap(longer);
    }
  return sessions;
}

void expect_valid(const IdTrie& trie, const Sessions& found, std::map<Path, double> all) {
  const auto length = static_cast<std::size_t>(found.items * found.levels);
  ASSERT_EQ(found.tokens.size(), found.scores.size() * length);
  for (Index s = 0; s < found.size(); ++s) {
    const auto from = found.tokens.begin() + s * static_cast<Index>(length);
    const Path path(from, from + static_cast<Index>(length));
    const auto of = all.find(path);
    ASSERT_TRUE(of != all.end()) << s;  // a valid path that did not come before
    const double score = found.scores[static_cast<std::size_t>(s)];
    // Sums of at most 9 logarithms below 4, in double.
    EXPECT_NEAR(score, of->second, 1e-13);
    if (s > 0) {
      EXPECT_LE(score, found.scores[static_cast<std::size_t>(s - 1)]);
    }
    all.erase(of);
    for (Index item = 0; item < found.items; ++item)
      EXPECT_EQ(trie.find(Path(path.begin() + 3 * item, path.begin() + 3 * item + 3)),
                found.leaf(s, item));
  }
}

TEST(BeamSearch, OfAsManyBeamsAsPathsFindsAll) {
  const std::vector<Path> ids = some_ids(30);
  const IdTrie trie = trie_of(ids, 5);
  const auto all = all_sessions(ids, 1, true);
  const Sessions found = beam_search(trie, write_logits, {.width = 30});
  ASSERT_EQ(found.size(), 30);
  expect_valid(trie, found, all);
  double mass = 0;
  for (const double score : found.scores) mass += std::exp(score);
  EXPECT_NEAR(mass, 1, 1e-13);
}

TEST(BeamSearch, OfSessionsIsExhaustiveWithRepetitionAndWithout) {
  const std::vector<Path> ids = some_ids(6);
  const IdTrie trie = trie_of(ids, 5);
  for (const bool repeat : {true, false}) {
    const auto all = all_sessions(ids, 3, repeat);
    ASSERT_EQ(all.size(), repeat ? 216u : 120u);
    const Sessions found =
        beam_search(trie, write_logits, {.width = 500, .items = 3, .repeat = repeat});
    ASSERT_EQ(found.size(), static_cast<Index>(all.size()));
    expect_valid(trie, found, all);
  }
  // All items once: the last one is forced.
  const Sessions all_items =
      beam_search(trie, write_logits, {.width = 4, .items = 6, .repeat = false});
  ASSERT_EQ(all_items.size(), 4);
  for (Index s = 0; s < 4; ++s) {
    std::set<IdTrie::Node> leaves;
    for (Index item = 0; item < 6; ++item) leaves.insert(all_items.leaf(s, item));
    EXPECT_EQ(leaves.size(), 6u);
  }
}

TEST(BeamSearch, OfFewBeamsKeepsTheBestOfEachStep) {
  const std::vector<Path> ids = some_ids(40);
  const IdTrie trie = trie_of(ids, 5);
  for (const Index width : {1, 2, 7}) {
    const Sessions found = beam_search(trie, write_logits, {.width = width, .items = 2});
    ASSERT_EQ(found.size(), width);
    expect_valid(trie, found, all_sessions(ids, 2, true));
    // The search by its words, over tokens of all lengths.
    std::vector<std::pair<double, Path>> beams{{0, {}}};
    for (int step = 0; step < 6; ++step) {
      std::vector<std::pair<double, Path>> longer;
      for (const auto& [score, path] : beams) {
        const Path current(path.end() - step % 3, path.end());
        const auto may = trie.tokens(*trie.find(current));
        double sum = 0;
        for (const std::int32_t t : may) sum += std::exp(static_cast<double>(logit_of(path, t)));
        for (const std::int32_t t : may) {
          longer.emplace_back(score + static_cast<double>(logit_of(path, t)) - std::log(sum), path);
          longer.back().second.push_back(t);
        }
      }
      std::stable_sort(longer.begin(), longer.end(),
                       [](const auto& a, const auto& b) { return a.first > b.first; });
      longer.resize(std::min(longer.size(), static_cast<std::size_t>(width)));
      beams.swap(longer);
    }
    for (std::size_t s = 0; s < beams.size(); ++s)
      EXPECT_TRUE(std::equal(beams[s].second.begin(), beams[s].second.end(),
                             found.tokens.begin() + static_cast<std::ptrdiff_t>(6 * s)));
  }
}

TEST(BeamSearch, TellsTheModelWhichBeamsWereKept) {
  const IdTrie trie = trie_of(some_ids(40), 5);
  std::vector<Path> before{{}};
  beam_search(trie,
              [&](const LiveBeams& live, TensorView<float, 2> logits) {
                ASSERT_EQ(live.parents.size(), live.beams.size());
                ASSERT_EQ(logits.rows(), static_cast<Index>(live.beams.size()));
                std::vector<Path> now;
                for (Index b = 0; b < logits.rows(); ++b) {
                  const auto tokens = live.of(b);
                  now.emplace_back(tokens.begin(), tokens.end());
                  const Path& parent =
                      before[static_cast<std::size_t>(live.parents[std::size_t(b)])];
                  EXPECT_TRUE(std::equal(parent.begin(), parent.end(), tokens.begin()));
                  const Path current(tokens.end() - live.steps % 3, tokens.end());
                  EXPECT_EQ(trie.find(current), live.beams[static_cast<std::size_t>(b)].node);
                }
                before = now;
                write_logits(live, logits);
              },
              {.width = 6, .items = 2});
  EXPECT_EQ(before[0].size(), 5u);
}

TEST(BeamStepTest, OrdersEqualScoresByParentThenToken) {
  const IdTrie trie = trie_of({{0, 1}, {0, 3}, {2, 0}, {2, 4}}, 5);
  const std::vector<Beam> parents{{0, *trie.find(Path{2})}, {0, *trie.find(Path{0})}};
  const RowMatrix<float> logits = RowMatrix<float>::Constant(2, 5, 3);
  const auto steps = beam_step(trie, parents, logits, 3);
  ASSERT_EQ(steps.size(), 3u);
  const std::vector<std::pair<Index, std::int32_t>> wanted{{0, 0}, {0, 4}, {1, 1}};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(steps[i].parent, wanted[i].first);
    EXPECT_EQ(steps[i].token, wanted[i].second);
    EXPECT_EQ(steps[i].node,
              trie.child(parents[std::size_t(steps[i].parent)].node, steps[i].token));
    EXPECT_DOUBLE_EQ(steps[i].score, -std::log(2.0));
  }
  // Logits of the children alone.
  const std::vector<float> listed(4, -7);
  const auto same = beam_step(trie, parents, std::span<const float>(listed), 3);
  ASSERT_EQ(same.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(same[i].node, steps[i].node);
}

TEST(BeamStepTest, KeepsTheBestOfMoreThanItHolds) {
  Path tokens;
  for (std::int32_t t = 0; t < 9000; ++t) tokens.push_back(t);
  const IdTrie trie(tokens, 1, 9000);
  const std::vector<Beam> parents{{}, {}};
  RowMatrix<double> logits = random_matrix<RowMatrix<double>>(2, 9000, 1);
  for (Index t = 0; t < 9000; t += 3) logits(1, t) = logits(0, t);
  for (const Index width : {1, 10, 3000, 100000}) {
    std::vector<BeamStep> all;
    for (Index p = 0; p < 2; ++p) {
      double sum = 0;
      for (Index t = 0; t < 9000; ++t) sum += std::exp(logits(p, t));
      for (Index t = 0; t < 9000; ++t)
        all.push_back({logits(p, t) - std::log(sum), 0, p, static_cast<std::int32_t>(t)});
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const BeamStep& a, const BeamStep& b) { return a.score > b.score; });
    const auto steps = beam_step(trie, parents, logits, width);
    ASSERT_EQ(steps.size(), static_cast<std::size_t>(std::min<Index>(width, 18000)));
    for (std::size_t i = 0; i < steps.size(); ++i) {
      ASSERT_NEAR(steps[i].score, all[i].score, 1e-12);
      ASSERT_EQ(steps[i].parent, all[i].parent) << i;
      ASSERT_EQ(steps[i].token, all[i].token) << i;
    }
  }
}

TEST(BeamStepTest, TakesNoTokenWithoutProbability) {
  const IdTrie trie = trie_of({{0}, {1}, {2}, {4}}, 5);
  const std::vector<Beam> parents{{-1, 0}, {-2, 0}, {-3, 0}, {-4, 0}};
  RowMatrix<float> logits(4, 5);
  logits << 1, nan, -infinity, 7, 1,         // two of one half each: token 3 may not follow
      infinity, 5, infinity, infinity, nan,  // two that share all
      nan, -infinity, nan, 9, nan,           // none
      1e30f, 0, 0, 0, 0;                     // one with nearly all; others underflow to a score
  const auto steps = beam_step(trie, parents, logits, 100);
  ASSERT_EQ(steps.size(), 8u);
  EXPECT_DOUBLE_EQ(steps[0].score, -1 - std::log(2.0));
  EXPECT_DOUBLE_EQ(steps[1].score, -1 - std::log(2.0));
  EXPECT_DOUBLE_EQ(steps[2].score, -2 - std::log(2.0));
  EXPECT_EQ(steps[3].token, 2);
  EXPECT_DOUBLE_EQ(steps[4].score, -4);
  EXPECT_LT(steps[5].score, -1e29);
  for (const BeamStep& step : steps) EXPECT_NE(step.parent, 2);
  EXPECT_TRUE(beam_step(trie, std::vector<Beam>{}, RowMatrix<float>(0, 5), 3).empty());
  const Sessions none = beam_search(
      trie, [](const LiveBeams&, TensorView<float, 2> to) { std::fill_n(to.data, 5, nan); });
  EXPECT_EQ(none.size(), 0);
  EXPECT_TRUE(none.tokens.empty());
}

/// Whole numbers, whose sums are exact: products with the rows of the children alone.
template <class S>
void expect_child_logits(const IdTrie& trie, const std::vector<Beam>& beams) {
  using T = pare::compute_t<S>;
  const auto hidden = integer_matrix<RowMatrix<T>>(static_cast<Index>(beams.size()), 19, 1);
  const auto wide = integer_matrix<RowMatrix<T>>(5, 19, 2);
  RowMatrix<S> head(5, 19);
  for (Index i = 0; i < head.size(); ++i) head.data()[i] = static_cast<S>(wide.data()[i]);
  std::vector<T> wanted;
  for (std::size_t b = 0; b < beams.size(); ++b)
    for (const std::int32_t token : trie.tokens(beams[b].node))
      wanted.push_back(hidden.row(static_cast<Index>(b)).dot(wide.row(token)));
  EXPECT_EQ(child_logits(pare::simd, trie, beams, hidden, head), wanted);
  EXPECT_EQ(child_logits(pare::simd.threads(2), trie, beams, hidden, head), wanted);
  EXPECT_EQ(child_logits(pare::reference, trie, beams, hidden, head), wanted);
}

TEST(ChildLogits, AreTheProductsWithTheRowsOfChildren) {
  const IdTrie trie = trie_of(some_ids(40), 5);
  std::vector<Beam> beams;
  for (IdTrie::Node node = 0; !trie.is_leaf(node); ++node) beams.push_back({0, node});
  expect_child_logits<float>(trie, beams);
  expect_child_logits<double>(trie, beams);
  expect_child_logits<pare::bf16>(trie, beams);
  // A step by them is that by all logits.
  const auto hidden = random_matrix<RowMatrix<float>>(static_cast<Index>(beams.size()), 7, 1),
             head = random_matrix<RowMatrix<float>>(5, 7, 2);
  RowMatrix<float> logits(hidden.rows(), 5);
  for (Index b = 0; b < logits.rows(); ++b)
    for (Index t = 0; t < 5; ++t) logits(b, t) = hidden.row(b).dot(head.row(t));
  const auto wanted = beam_step(trie, beams, logits, 9);
  const std::vector<float> listed = child_logits(trie, beams, hidden, head);
  const auto steps = beam_step(trie, beams, std::span<const float>(listed), 9);
  ASSERT_EQ(steps.size(), wanted.size());
  for (std::size_t i = 0; i < steps.size(); ++i) EXPECT_EQ(steps[i].node, wanted[i].node);
  const char* const function = "retrieval::child_logits";
  const std::vector<Beam> leaf{{0, *trie.find(some_ids(40)[0])}}, root{{}};
  const RowMatrix<float> one = hidden.topRows(1), few = head.topRows(4);
  refusal([&] { child_logits(trie, leaf, one, head); }, function, "beams");
  refusal([&] { child_logits(trie, root, hidden, head); }, function, "hidden");
  refusal([&] { child_logits(trie, root, one, few); }, function, "head");
  refusal([&] { child_logits(trie, root, one.leftCols(6), head); }, function, "hidden");
  refusal([&] { child_logits(trie, root, one.leftCols(0), head.leftCols(0)); }, function, "head");
  refusal([&] { child_logits(trie, root, one, Eigen::MatrixXf(head)); }, function, "head");
}

TEST(SessionScore, IsThatOfTheSearch) {
  const IdTrie trie = trie_of(some_ids(20), 5);
  const Sessions found = beam_search(trie, write_logits, {.width = 9, .items = 2});
  for (Index s = 0; s < found.size(); ++s) {
    const Path tokens(found.tokens.begin() + 6 * s, found.tokens.begin() + 6 * s + 6);
    RowMatrix<float> logits(6, 5);
    for (Index t = 0; t < 6; ++t)
      for (std::int32_t v = 0; v < 5; ++v)
        logits(t, v) = logit_of(Path(tokens.begin(), tokens.begin() + t), v);
    EXPECT_EQ(session_score(trie, tokens, logits), found.scores[static_cast<std::size_t>(s)]);
    logits(2, tokens[2]) = nan;
    EXPECT_EQ(session_score(trie, tokens, logits), -std::numeric_limits<double>::infinity());
  }
}

TEST(ChoosePreference, TakesTheBestAndTheWorst) {
  const std::vector<double> rewards{.3, .9, .1, .9, .1};
  const auto pair = choose_preference(rewards);
  ASSERT_TRUE(pair.has_value());
  EXPECT_EQ(pair->winner, 1u);
  EXPECT_EQ(pair->loser, 2u);
  EXPECT_FALSE(choose_preference(std::vector<double>{2, 2, 2}).has_value());
  EXPECT_FALSE(choose_preference(std::vector<double>{5}).has_value());
}

TEST(ConstrainedBeam, RefusesWhatDoesNotFit) {
  const IdTrie trie = trie_of({{0, 1}, {0, 3}, {2, 0}}, 5);
  const char* const step = "retrieval::beam_step";
  const RowMatrix<float> logits = RowMatrix<float>::Zero(1, 5),
                         narrow = RowMatrix<float>::Zero(1, 4), two = RowMatrix<float>::Zero(2, 5);
  const std::vector<Beam> root{{}};
  refusal([&] { beam_step(trie, root, logits, 0); }, step, "width");
  refusal([&] { beam_step(trie, root, narrow, 1); }, step, "logits");
  refusal([&] { beam_step(trie, root, two, 1); }, step, "logits");
  refusal([&] { beam_step(trie, root, std::span<const float>(narrow.data(), 3), 1); }, step,
          "logits");
  for (const IdTrie::Node node : {-1, 6, 99, *trie.find(Path{0, 1})})
    refusal([&] { beam_step(trie, std::vector<Beam>{{0, node}}, logits, 1); }, step, "parents");
  for (const double score : {std::nan(""), HUGE_VAL, -HUGE_VAL})
    refusal([&] { beam_step(trie, std::vector<Beam>{{score, 0}}, logits, 1); }, step, "parents");
  const char* const search = "retrieval::beam_search";
  refusal([&] { beam_search(trie, write_logits, {.width = 0}); }, search, "width");
  refusal([&] { beam_search(trie, write_logits, {.items = 0}); }, search, "items");
  refusal([&] { beam_search(trie, write_logits, {.items = 4, .repeat = false}); }, search, "items");
  refusal([&] { beam_search(trie, write_logits, {.width = Index{1} << 62}); }, search, "width");
  const char* const score = "retrieval::session_score";
  refusal([&] { session_score(trie, Path{0, 1}, logits); }, score, "logits");
  refusal([&] { session_score(trie, Path{0, 2}, two); }, score, "tokens: got item 0");
  refusal([&] { session_score(trie, Path{0}, logits); }, score, "tokens");
  refusal([&] { session_score(trie, Path{0, -1}, two); }, score, "tokens");
  const char* const choose = "retrieval::choose_preference";
  refusal([&] { choose_preference({}); }, choose, "rewards");
  for (const double bad : {std::nan(""), HUGE_VAL})
    refusal([&] { choose_preference(std::vector<double>{1, bad, 2}); }, choose, "rewards");
}

}  // namespace
}  // namespace retrieval_constrained_beam_test
