// SPDX-License-Identifier: Apache-2.0
// Two users, six items: recall and NDCG at 2, items of training left out of the ranking. User 0
// finds one of two, first; user 1 finds its only one second. Prints the means: 0.75 and 0.62.

#include <pare/retrieval/metrics.hpp>

#include <Eigen/Core>

#include <cstdio>
#include <vector>

int main() {
  using namespace pare::retrieval;
  using pare::Index;
  Eigen::MatrixXf scores(2, 6);
  scores << 9, 8, 1, 2, 3, 4,  // user 0 has seen 0, and ranks 1, 5, ...
      1, 2, 3, 4, 5, 6;        // user 1 has seen 5, and ranks 4, 3, ...
  const std::vector<Index> relevant_offsets{0, 2, 3}, relevant{1, 2, 3};
  const std::vector<Index> seen_offsets{0, 1, 2}, seen{0, 5};

  const MeanMetrics mean =
      evaluate_rankings(scores, {relevant_offsets, relevant}, {seen_offsets, seen}, 2);
  std::printf("recall@2 %.2f, ndcg@2 %.2f of %d users\n", mean.metrics.recall, mean.metrics.ndcg,
              static_cast<int>(mean.judged));
  const bool right = mean.metrics.recall == 0.75 && mean.metrics.ndcg > 0.62 &&
                     mean.metrics.ndcg < 0.63 && mean.judged == 2;
  return right ? 0 : 1;
}
