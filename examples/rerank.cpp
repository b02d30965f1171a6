// SPDX-License-Identifier: Apache-2.0
// Documents of 8 token vectors: a first stage by the product with their sum of absolute values,
// which is never below the exact score, then the exact score, the largest product with a token.
// Prints how many of 500 candidates are scored: by bounds, with the same hits and a proof, fewer
// than all.

#include <pare/retrieval/rerank.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstdio>
#include <vector>

using namespace pare::retrieval;
using pare::Index;

struct ExactScore {
  const std::vector<Eigen::MatrixXf>& documents;
  const Eigen::VectorXf& query;

  double operator()(Index id) const {
    return static_cast<double>((documents[static_cast<std::size_t>(id)] * query).maxCoeff());
  }
  // The first-stage score is one, but for rounding: without this member nothing is proved.
  double bound(const Hit& candidate) const { return candidate.score * 1.0001; }
};

int main() {
  std::srand(1);
  const Eigen::VectorXf query = Eigen::VectorXf::Random(16);
  std::vector<Eigen::MatrixXf> documents;
  std::vector<Hit> candidates;
  for (Index id = 0; id < 500; ++id) {
    // Some documents are long vectors, as those of what a text is about are.
    const float length = 1.0f / static_cast<float>(1 + id % 37);
    documents.push_back(length * Eigen::MatrixXf::Random(8, 16));
    const Eigen::VectorXf largest = documents.back().cwiseAbs().colwise().maxCoeff();
    candidates.push_back({id, static_cast<double>(largest.dot(query.cwiseAbs()))});
  }
  std::sort(candidates.begin(), candidates.end(), ranks_before);

  const ExactScore exact{documents, query};
  const auto plain = [&](Index id) { return exact(id); };
  const Reranked full = rerank(candidates, plain, {.count = 10});
  const Reranked bounded = rerank(candidates, exact, {.count = 10});
  const Reranked quick = rerank(candidates, plain, {.count = 10, .prune = 0.5, .patience = 8});
  std::printf("scored: full %d, bounded %d (the same hits: %d), pruned and ended %d\n",
              static_cast<int>(full.scored), static_cast<int>(bounded.scored),
              static_cast<int>(full.hits == bounded.hits), static_cast<int>(quick.scored));
  const bool right = full.hits == bounded.hits && bounded.proved && bounded.scored < 250 &&
                     quick.scored < 250 && !quick.proved;
  return right ? 0 : 1;
}
