// SPDX-License-Identifier: Apache-2.0
// Draft trees whose branches know the token before them (TreeFlash). The "model" is a table of
// logits by the last token. The drafter knows how likely tokens are at each depth; a correction
// adds what the token before says. Prints the tokens of a round with lists that all nodes of a
// depth share, and with a list behind each token: 2.0 and 2.9.

#include <pare/draft/best_first.hpp>
#include <pare/draft/branch_lists.hpp>
#include <pare/draft/candidate_lists.hpp>
#include <pare/draft/dense_head.hpp>
#include <pare/draft/verify.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/norms.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <span>
#include <vector>

using namespace pare::draft;
using pare::Index;
using Linear = pare::transformer::DenseLinear<float>;
using Rows = pare::RowMatrix<float>;

int main() {
  constexpr Index tokens = 32, depths = 6;  // a token's embedding is a row of the identity
  std::mt19937 bits(1);
  std::normal_distribution<float> normal(0, 1.2f);
  const Rows table = Rows::NullaryExpr(tokens, tokens, [&] { return normal(bits); });
  const Rows weights = table.array().exp();
  const Rows law = weights.array().colwise() / weights.rowwise().sum().array();

  // u is the table's row of the token before, whose embedding RMSNorm makes sqrt(tokens) times as
  // long; silu(g) is 10 for all of them, which `down` takes back.
  const Rows one = Rows::Identity(tokens, tokens), zero = Rows::Zero(2 * tokens, tokens);
  Rows previous = zero;
  previous.topRows(tokens) = table.transpose() / std::sqrt(float(tokens));
  const std::vector<float> gain(tokens, 1.0f);
  std::vector<float> bias(2 * tokens, 0.0f);
  std::fill(bias.begin() + tokens, bias.end(), 10.0f);
  const BranchCorrection correct(
      BranchCorrectionWeights<Linear>{.norm = gain,
                                      .previous = Linear(previous),
                                      .state = Linear(zero),
                                      .bias = bias,
                                      .down = Linear::copy_of(Rows(one / 10))});
  const DenseHead<float> head(Rows(4 * one));
  const auto embed = [&](std::int32_t token, std::span<float> row) {
    for (Index i = 0; i < tokens; ++i) row[std::size_t(i)] = one(token, i);
  };

  double per_round[2] = {0, 0};
  CandidateLists<float> shared;
  BranchLists<float> branches;
  DraftTree tree;
  Verified round;
  Rows states(depths, tokens), rows(depths, tokens), logits;
  for (const bool conditioned : {false, true})
    for (std::int32_t anchor = 0; anchor < tokens; ++anchor) {
      // Of a real drafter: DraftBlock::draft_plain. Here: where a chain is after so many tokens.
      rows.row(0) = law.row(anchor);
      for (Index d = 1; d < depths; ++d) rows.row(d) = rows.row(d - 1) * law;
      states = rows.array().log();
      pare::transformer::rms_norm(states, gain, rows);
      shared.fill(head, rows, {.ranks = 8});
      branches.fill(correct, head, states, gain, one.row(anchor), embed, {.ranks = 8});
      build_best_first(anchor, conditioned ? branches.table() : shared.table(), tree,
                       {.budget = 8});
      logits.resize(tree.size(), tokens);
      for (Index i = 0; i < tree.size(); ++i) logits.row(i) = table.row(tree.token(i));
      verify_greedy(tree, logits, round);
      per_round[conditioned] += double(round.tokens.size()) / double(tokens);
    }
  std::printf("tokens of a round: %.2f, %.2f\n", per_round[0], per_round[1]);
  return per_round[1] > per_round[0] + 0.5 ? 0 : 1;
}
