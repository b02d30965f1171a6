// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Prunes the attention heads of an encoder (SHRP): how much each is used, and blocks of a few.
///
/// ```cpp
/// const auto usage = head_usage(bert, file, [&] { bert.forward(backend, batch, out); });
/// const BlocksRestored restored(bert);
/// prune_heads(bert, file, heads_by("most used", 6, usage));  // 6 heads of each block
/// ```

#include "common/bert.hpp"
#include "common/blocks_restored.hpp"
#include "common/watched_linear.hpp"

#include <pare/attention/heads/compact_heads.hpp>
#include <pare/attention/heads/head_contributions.hpp>
#include <pare/attention/heads/head_usage.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/permutation.hpp>
#include <pare/io/safetensors.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace encoder {

using pare::attention::HeadUsage;

/// Of each block, which heads add most to how many tokens, over what run() has the model do.
template <class Run>
std::vector<HeadUsage> head_usage(Bert& bert, const pare::io::SafetensorsFile& file,
                                  const Run& run) {
  std::vector<HeadUsage> usage(bert.blocks().size(), HeadUsage(bert.config().heads));
  const models::BlocksRestored restored(bert);
  for (std::size_t i = 0; i < usage.size(); ++i) {
    BiasedLinear& output = bert.blocks()[i].output;
    output.linear = models::WatchedLinear(
        output.linear, [&of = usage[i], wo = file.read_matrix<float>(output.weight)](
                           const ModelBackend& on, TensorView<const float, 2> attended) {
          pare::RowMatrix<float> lengths(attended.rows(), of.heads());
          pare::attention::head_contributions(on, attended, wo, lengths);
          of.add(lengths);
        });
  }
  run();
  return usage;
}

/// Of each block `count` heads: the most or the least used, or those that a seed draws.
inline std::vector<std::vector<Index>> heads_by(const std::string& rule, Index count,
                                                const std::vector<HeadUsage>& usage) {
  std::vector<std::vector<Index>> kept;
  for (std::size_t block = 0; block < usage.size(); ++block) {
    std::vector<Index> counts(usage[block].counts().begin(), usage[block].counts().end());
    if (rule == "least used")
      for (Index& c : counts) c = usage[block].tokens() - c;
    if (rule.starts_with("draw ")) {
      const auto drawn =
          pare::Permutation::random(usage[block].heads(), std::stoull(rule.substr(5)), block);
      for (std::size_t h = 0; h < counts.size(); ++h)
        counts[h] = static_cast<Index>(drawn[static_cast<Index>(h)]) + 1;
    }
    kept.push_back(pare::attention::select_heads(counts, {.count = count}));
  }
  return kept;
}

/// Leaves some heads of each block, whose weights are those of the file. kept [blocks].
inline void prune_heads(Bert& bert, const pare::io::SafetensorsFile& file,
                        const std::vector<std::vector<Index>>& kept) {
  const Index heads = bert.config().heads, dim = bert.config().dim / heads;
  const auto put = [](BiasedLinear& layer, const pare::RowMatrix<float>& weight) {
    layer.linear = pare::transformer::DenseLinear<float>::copy_of(weight);
  };
  for (std::size_t i = 0; i < kept.size(); ++i) {
    BertBlock& b = bert.blocks()[i];
    const auto weight = [&](const BiasedLinear& l) { return file.read_matrix<float>(l.weight); };
    const auto small = pare::attention::compact_heads(
        weight(b.query), weight(b.key), weight(b.value), weight(b.output), {heads, heads}, kept[i]);
    put(b.query, small.wq);
    put(b.key, small.wk);
    put(b.value, small.wv);
    put(b.output, small.wo);
    for (BiasedLinear* layer : {&b.query, &b.key, &b.value}) {
      const auto bias = pare::attention::rows_of_heads(
          TensorView<const float, 2>{layer->bias.data(), {heads * dim, 1}, {1, 1}}, small.heads,
          dim);
      layer->bias.assign(bias.data(), bias.data() + bias.size());
    }
  }
}

}  // namespace encoder
