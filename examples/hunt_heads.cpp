// SPDX-License-Identifier: Apache-2.0
// HeadHunter: which 3 of 8 attention heads make up most of what a layer adds to its tokens? Heads 0
// and 1 add nearly the same, and much of it: ranked one by one both come in; in rounds only one
// does. Prints the share of the layer's output that is missed, in rounds and at once.

#include <pare/attention/heads/hunt_heads.hpp>

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <cstdio>
#include <cstdlib>
#include <span>
#include <vector>

using pare::attention::HeadId;

int main() {
  constexpr int heads = 8;
  std::srand(4);
  std::vector<Eigen::MatrixXd> added;  // what each head adds, [tokens x dim]
  for (int h = 0; h < heads; ++h) added.push_back(Eigen::MatrixXd::Random(64, 32));
  added[1] = 0.9 * added[0] + 0.1 * added[1];
  Eigen::MatrixXd layer = Eigen::MatrixXd::Zero(64, 32);
  for (const Eigen::MatrixXd& head : added) layer += head;

  // Minus what these heads miss, each scaled as is best for the set.
  const auto objective = [&](std::span<const HeadId> set) {
    Eigen::MatrixXd parts(layer.size(), static_cast<Eigen::Index>(set.size()));
    for (std::size_t i = 0; i < set.size(); ++i)
      parts.col(static_cast<Eigen::Index>(i)) =
          added[static_cast<std::size_t>(set[i].head)].reshaped();
    const Eigen::VectorXd all = layer.reshaped();
    const Eigen::VectorXd scales = (parts.transpose() * parts).llt().solve(parts.transpose() * all);
    return -(all - parts * scales).squaredNorm() / all.squaredNorm();
  };
  std::vector<HeadId> pool;
  for (int h = 0; h < heads; ++h) pool.push_back({.layer = 0, .head = h});

  const auto rounds = pare::attention::hunt_heads(pool, objective, {.rounds = 3});
  const auto once = pare::attention::hunt_heads(pool, objective, {.per_round = 3});
  for (std::size_t i = 0; i < 3; ++i)
    std::printf("round %zu: head %td, %.3f missed; at once: head %td\n", i + 1,
                rounds.heads[i].head, -rounds.round_scores[i], once.heads[i].head);
  std::printf("missed: %.3f in rounds (%td calls), %.3f at once (%td calls)\n",
              -rounds.round_scores.back(), rounds.calls, -once.round_scores.back(), once.calls);
  return rounds.round_scores.back() > once.round_scores.back() ? 0 : 1;
}
