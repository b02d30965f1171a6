// SPDX-License-Identifier: Apache-2.0
// Items as three tokens each and one that tells equal ids apart, and a search that can only write
// ids that items have. The model here scores tokens by how near they bring the sum of centroids to
// a wish. Prints the item that is found: 42.

#include <pare/core/matrix.hpp>
#include <pare/retrieval/semantic/constrained_beam.hpp>
#include <pare/retrieval/semantic/semantic_ids.hpp>

#include <cstddef>
#include <cstdio>
#include <cstdlib>

int main() {
  using namespace pare::retrieval;
  using Matrix = pare::RowMatrix<float>;
  constexpr pare::Index items = 1000, dim = 24, clusters = 40;
  std::srand(1);
  // Items of 10 kinds.
  const Matrix kinds = Matrix::Random(10, dim);
  Matrix rows = .7f * Matrix::Random(items, dim);
  for (pare::Index i = 0; i < items; ++i) rows.row(i) += kinds.row(i % 10);

  const auto fit =
      fit_semantic_ids(pare::simd.threads(2), rows, {.levels = 3, .clusters = clusters});
  const SemanticIds ids = with_last_digit(fit.ids);
  const IdTrie trie(ids, items);
  std::printf("left of each item: %.2f, %.2f, %.2f\n", fit.inertia[0] / items,
              fit.inertia[1] / items, fit.inertia[2] / items);

  // A wish: what the tokens of item 42 stand for. The logit of a token is less the farther it
  // leaves the wish.
  Matrix decoded(items, dim);
  decode_semantic_ids(fit.codebooks, fit.ids, decoded);
  const auto next = [&](const LiveBeams& live, pare::TensorView<float, 2> logits) {
    for (pare::Index b = 0; b < logits.rows(); ++b) {
      Matrix left = decoded.row(42);
      const auto tokens = live.of(b);
      for (std::size_t level = 0; level < tokens.size() && level < 3; ++level)
        left -= fit.codebooks[level].row(tokens[level]);
      for (pare::Index t = 0; t < logits.cols(); ++t)
        logits(b, t) = tokens.size() < 3 && t < clusters
                           ? -4 * (left - fit.codebooks[tokens.size()].row(t)).squaredNorm()
                           : 0;  // the last digit: none is preferred
    }
  };
  const Sessions found = beam_search(trie, next, {.width = 16});
  const pare::Index best = trie.items(found.leaf(0, 0))[0];
  std::printf("%ld, whose tokens are %d %d %d %d\n", static_cast<long>(best), found.tokens[0],
              found.tokens[1], found.tokens[2], found.tokens[3]);
  return best == 42 && fit.inertia[2] < fit.inertia[0] ? 0 : 1;
}
