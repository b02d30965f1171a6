// SPDX-License-Identifier: Apache-2.0
// A causal draft block (JetSpec) with random weights in bf16: two rounds, a tree of what the second
// one drafts. A model's weights are views of its file:
// DenseLinear<bf16>(file.matrix<bf16>("fc.weight")). Prints the tree's nodes, 16, and the largest
// difference between the rows of the second round and those of one round over the whole context:
// below 1e-5.

#include <pare/core/matrix.hpp>
#include <pare/draft/best_first.hpp>
#include <pare/draft/candidate_lists.hpp>
#include <pare/draft/dense_head.hpp>
#include <pare/draft/draft_block.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <cmath>
#include <cstdio>
#include <utility>
#include <vector>

using namespace pare::draft;
using pare::bf16;
using pare::Index;
using Linear = pare::transformer::DenseLinear<bf16>;
using Rows = pare::RowMatrix<float>;

Linear random_linear(Index outputs, Index inputs) {
  const Rows values = Rows::Random(outputs, inputs) * std::sqrt(3.0f / static_cast<float>(inputs));
  return Linear::copy_of(values);
}

int main() {
  // The target has 12 layers of width 64; the block hears what comes out of 1, 5 and 9.
  const std::vector<Index> taps = tapped_layers(12, 3);
  const DraftBlockConfig config{.width = 64,
                                .tapped_width = static_cast<Index>(taps.size()) * 64,
                                .layers = 3,
                                .heads = 4,
                                .kv_heads = 2,
                                .head_dim = 16,
                                .hidden = 160,
                                .block = 8};
  const std::vector<float> d_ones(64, 1.0f), head_ones(16, 1.0f);
  DraftBlockWeights<Linear> weights{.context = random_linear(64, config.tapped_width),
                                    .context_norm = d_ones,
                                    .final_norm = d_ones};
  for (Index i = 0; i < config.layers; ++i)
    weights.layers.push_back({d_ones, random_linear(64, 64), random_linear(32, 64),
                              random_linear(32, 64), head_ones, head_ones, random_linear(64, 64),
                              d_ones, random_linear(160, 64), random_linear(160, 64),
                              random_linear(64, 160)});
  const pare::transformer::RotaryTable<float> table(pare::transformer::rotary_frequencies(16), 200);
  const DraftBlock block(config, std::move(weights), table);

  // The target's own embedding and head; the last token stands for MASK.
  constexpr int vocabulary = 500, anchor = 7;
  const Rows embedding = Rows::Random(vocabulary, 64);
  const DenseHead<bf16> head(embedding);
  Rows inputs = embedding.bottomRows(1).replicate(config.block, 1);
  inputs.row(0) = embedding.row(anchor);

  // 40 tokens of a prompt, then a round in which the target accepted 3.
  const Rows states = Rows::Random(43, config.tapped_width);
  pare::Workspace workspace;
  const auto backend = pare::simd.threads(2).with(workspace);
  DraftBlockCache<float> cache(config, {.tokens = 150}), other(config, {.tokens = 150});
  Rows rows(config.block - 1, 64), at_once(config.block - 1, 64);
  block.forward(backend, states.topRows(40), inputs, cache, rows);
  block.forward(backend, states.bottomRows(3), inputs, cache, rows);
  block.forward(backend, states, inputs, other, at_once);

  CandidateLists<float> lists;
  DraftTree tree;
  lists.fill(backend, head, rows, {.ranks = 7});
  build_best_first(backend, anchor, lists.table(), tree, {.budget = 16});
  const float difference = (rows - at_once).cwiseAbs().maxCoeff();
  std::printf("%td nodes, largest difference %.1e\n", tree.size(), double(difference));
  return tree.size() == 16 && difference < 1e-5f ? 0 : 1;
}
