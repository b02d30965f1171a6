// SPDX-License-Identifier: Apache-2.0
// A draft tree of a block drafter's lists, verified by keyed noise at temperature 0.8: the tokens
// are those of sampling one by one. Prints the tokens of a round: about 1.8.

#include <pare/draft/best_first.hpp>
#include <pare/draft/keyed_noise.hpp>
#include <pare/draft/verify.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

namespace {

constexpr int vocabulary = 32, depths = 4, ranks = 6;
using Text = std::vector<std::int32_t>;
using Row = Eigen::RowVectorXf;

/// The "model": logits by the last token.
Row logits_after(std::int32_t token) {
  Row z(vocabulary);
  for (int i = 0; i < vocabulary; ++i) z(i) = 3 * std::sin(float(7 * token + 3 * i * i));
  return z;
}

/// The drafter: at each depth the likeliest tokens after the best one of the depth before.
void draft(std::int32_t token, Eigen::MatrixXi& tokens, Eigen::MatrixXf& logs) {
  for (int d = 0; d < depths; ++d) {
    Row z = logits_after(token);
    const float sum = std::log(z.array().exp().sum());
    for (int r = 0; r < ranks; ++r) {
      Eigen::Index best = 0;
      logs(d, r) = z.maxCoeff(&best) - sum;
      tokens(d, r) = int(best);
      z(best) = -100;
    }
    token = tokens(d, 0);
  }
}

}  // namespace

int main() {
  const pare::draft::Sampling sampling{.temperature = 0.8};
  const pare::GumbelNoise key{.seed = 3};
  Text plain{1}, text{1};
  while (plain.size() < 400)
    plain.push_back(pare::draft::keyed_sample(logits_after(plain.back()), sampling, key,
                                              pare::Index(plain.size())));

  pare::draft::DraftTree tree;
  pare::draft::Verified round;
  Eigen::MatrixXi tokens(depths, ranks);
  Eigen::MatrixXf logs(depths, ranks);
  int rounds = 0;
  for (; text.size() < plain.size(); ++rounds) {
    draft(text.back(), tokens, logs);
    build_best_first(text.back(), pare::draft::shared_lists(tokens, logs), tree, {.budget = 16});
    const pare::Index past = pare::Index(text.size()) - 1;  // tokens before the root
    Text next;  // one call of a real model, whose attention is draft::attend_tree
    for (pare::Index i = 0; i < tree.size(); ++i)
      next.push_back(pare::draft::keyed_sample(logits_after(tree.token(i)), sampling, key,
                                               tree.position(i, past) + 1));
    verify_match(tree, next, round);
    text.insert(text.end(), round.tokens.begin(), round.tokens.end());
  }
  text.resize(plain.size());

  const double per_round = double(plain.size()) / rounds;
  std::printf("tokens of a round: %.2f\n", per_round);
  return text == plain && per_round > 1.5 ? 0 : 1;
}
