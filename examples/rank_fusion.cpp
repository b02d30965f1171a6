// SPDX-License-Identifier: Apache-2.0
// Two rankings of the same documents become one. A query of a rare term trusts its keywords more
// than one of a frequent term, so another document comes first: prints 7 and 3.

#include <pare/retrieval/rank_fusion.hpp>

#include <cstdio>
#include <vector>

int main() {
  using namespace pare::retrieval;
  const std::vector<Hit> nearest{{3, 0.50}, {7, 0.51}, {5, 0.90}};  // squared distances
  const std::vector<pare::Index> keyword{7, 5, 3};

  // Of 10000 documents, 2 or 5000 hold the query's only term. 5 is too far away as a vector.
  const FusionWeights rare = adaptive_weights(std::vector<pare::Index>{2}, 10000);
  const FusionWeights frequent = adaptive_weights(std::vector<pare::Index>{5000}, 10000);
  const auto by_rare = fuse_adaptive(nearest, keyword, 2, rare);
  const auto by_frequent = fuse_adaptive(nearest, keyword, 2, frequent);
  std::printf("keywords weigh %.3f: %d first; %.3f: %d first\n", rare.keyword,
              static_cast<int>(by_rare[0].id), frequent.keyword,
              static_cast<int>(by_frequent[0].id));

  // Plain reciprocal rank fusion, of any number of lists.
  const std::vector<pare::Index> vectors{3, 7, 5};
  const auto fused = fuse_ranks({{vectors}, {keyword}}, 3);
  return by_rare[0].id == 7 && by_frequent[0].id == 3 && fused.size() == 3 ? 0 : 1;
}
