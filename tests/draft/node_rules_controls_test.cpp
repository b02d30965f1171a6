// SPDX-License-Identifier: Apache-2.0
// Rules that are slightly wrong, as they were found in engines and papers' code: the test of laws
// must see each of them.
#include <gtest/gtest.h>

#include <pare/draft/draws.hpp>
#include <pare/draft/node_rules.hpp>
#include <pare/draft/typical.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "draft/chi_square.hpp"
#include "draft/rule_rounds.hpp"

namespace draft_node_rules_controls_test {
namespace {

using pare::Index;
using pare::draft::Coins;
using pare::draft::draw_distinct;
using pare::draft::NodeChildren;
using pare::draft::none_accepted;
using pare::draft::SpecInferRule;
using pare::testing::DrawRepeated;
using pare::testing::law_pair;
using pare::testing::LawPair;
using pare::testing::most_probable;
using pare::testing::run_rule;

constexpr double most_fit = 1e-12;
const LawPair laws = law_pair(16, 5);

TEST(NodeRulesControls, ChosenChildrenTestedAsDraws) {
  const auto top = most_probable(laws.q, 4);
  EXPECT_LT(
      run_rule(laws, SpecInferRule{}, [&](Coins&, auto& t) { t = top; }, 500'000).fit, most_fit);
}

struct WithoutNormalisingQ {
  Index accept(const NodeChildren& node, Coins& coins) const {
    for (std::size_t i = 0; i < node.tokens.size(); ++i) {
      const auto x = static_cast<std::size_t>(node.tokens[i]);
      if (coins() * node.q[x] < node.p[x]) return static_cast<Index>(i);
      pare::draft::detail::subtract(node.p, node.q);
      node.q[x] = 0;
    }
    return none_accepted;
  }
};

TEST(NodeRulesControls, DistinctDrawsWithoutNormalisingWhatIsLeftOfTheirLaw) {
  const auto draws = [&](Coins& coins, auto& tokens) { draw_distinct(laws.q, 4, coins, tokens); };
  EXPECT_LT(run_rule(laws, WithoutNormalisingQ{}, draws).fit, most_fit);
}

struct LastDrawFromAllOfP {
  Index accept(const NodeChildren& node, Coins& coins) const {
    const std::vector<double> whole(node.p.begin(), node.p.end());
    const Index place = pare::draft::SequentialRule{}.accept(node, coins);
    if (place < 0) std::copy(whole.begin(), whole.end(), node.p.begin());
    return place;
  }
};

TEST(NodeRulesControls, TheLastDrawFromTheWholeLaw) {
  const auto top = most_probable(laws.q, 4);
  EXPECT_LT(run_rule(
                laws, LastDrawFromAllOfP{}, [&](Coins&, auto& t) { t = top; }, 500'000)
                .fit,
            most_fit);
}

TEST(NodeRulesControls, RepeatedDrawsOfWhichOneIsKept) {
  const auto once = [&](Coins& coins, std::vector<std::int32_t>& tokens) {
    std::vector<std::int32_t> all;
    DrawRepeated{laws.q, 4}(coins, all);
    tokens.clear();
    for (const std::int32_t t : all)
      if (std::find(tokens.begin(), tokens.end(), t) == tokens.end()) tokens.push_back(t);
  };
  EXPECT_LT(run_rule(laws, SpecInferRule{}, once).fit, most_fit);
}

TEST(NodeRulesControls, DrawsSortedByTheirProbability) {
  const auto sorted = [&](Coins& coins, std::vector<std::int32_t>& tokens) {
    DrawRepeated{laws.q, 4}(coins, tokens);
    std::sort(tokens.begin(), tokens.end(), [](std::int32_t a, std::int32_t b) {
      return laws.q[static_cast<std::size_t>(a)] > laws.q[static_cast<std::size_t>(b)];
    });
  };
  EXPECT_LT(run_rule(laws, SpecInferRule{}, sorted, 500'000).fit, most_fit);
}

/// The draft's law in a list of its own, without the tokens that the draft leaves out, taken away
/// by place.
struct ResidualByPlace {
  Index accept(const NodeChildren& node, Coins& coins) const {
    const auto x = static_cast<std::size_t>(node.tokens[0]);
    if (coins() * node.q[x] < node.p[x]) return 0;
    std::vector<double> listed;
    for (const double q : node.q)
      if (q > 0) listed.push_back(q);
    listed.resize(node.p.size());
    pare::draft::detail::subtract(node.p, listed);
    return none_accepted;
  }
};

TEST(NodeRulesControls, TheResidualByPlaceInListsOfDifferentTokens) {
  LawPair half = laws;
  for (std::size_t i = 0; i < 16; i += 2) half.q[i] = 0;
  pare::draft::detail::normalise(half.q);
  EXPECT_LT(run_rule(half, ResidualByPlace{}, DrawRepeated{half.q, 1}, 500'000).fit, most_fit);
}

struct Typical {
  Index accept(const NodeChildren& node, Coins&) const {
    const double threshold = pare::draft::typical_threshold(node.p, {.lossy = true});
    for (std::size_t i = 0; i < node.tokens.size(); ++i)
      if (node.p[static_cast<std::size_t>(node.tokens[i])] > threshold)
        return static_cast<Index>(i);
    return none_accepted;
  }
};

TEST(NodeRulesControls, TypicalAcceptance) {
  const auto top = most_probable(laws.q, 4);
  EXPECT_LT(run_rule(laws, Typical{}, [&](Coins&, auto& t) { t = top; }, 500'000).fit, most_fit);
}

/// A coin of 101 levels, compared by <=, as one engine has it.
struct CoarseCoin {
  Index accept(const NodeChildren& node, Coins& coins) const {
    const auto x = static_cast<std::size_t>(node.tokens[0]);
    const double coin = static_cast<double>(static_cast<int>(coins() * 101)) / 100;
    if (coin * node.q[x] <= node.p[x]) return 0;
    pare::draft::detail::subtract(node.p, node.q);
    return none_accepted;
  }
};

TEST(NodeRulesControls, ACoinOfFewLevels) {
  // A token 500 times less probable than it is drawn: one coin in 101 is 0.
  const LawPair rare{{.999, .001}, {.5, .5}};
  EXPECT_LT(run_rule(rare, CoarseCoin{}, DrawRepeated{rare.q, 1}, 500'000).fit, most_fit);
}

}  // namespace
}  // namespace draft_node_rules_controls_test
