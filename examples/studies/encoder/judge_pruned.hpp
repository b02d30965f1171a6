// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The table of an encoder with fewer heads: kept by usage, the least used, and drawn by lot.

#include "common/mean.hpp"
#include "common/open_encoder.hpp"
#include "encoder/pruned_heads.hpp"

#include <pare/core/matrix.hpp>

#include <cstddef>
#include <cstdio>
#include <vector>

namespace encoder {

/// Prints the usage of each block's heads, and the mean cosine to the vectors of the whole model.
template <class B>
void judge_pruned(OpenEncoder& model, const B& backend, const std::vector<Index>& kept_heads,
                  const std::vector<std::vector<Token>>& sample,
                  const std::vector<std::vector<Token>>& sentences) {
  const auto nothing = [](auto&&...) {};
  const auto usage = head_usage(model.bert, model.file, [&] {
    for_each_batch(model.bert, backend, sample, nothing, nothing);
  });
  for (std::size_t block = 0; block < usage.size(); ++block) {
    std::printf("block %zu, tokens by head:", block);
    for (const Index count : usage[block].counts()) std::printf(" %td", count);
    std::puts("");
  }
  const auto exact = sentence_vectors(model.bert, backend, sentences, nothing);
  std::printf("%zu sentences\n%-12s %6s %22s\n", sentences.size(), "heads", "kept", "mean cosine");
  for (const char* const rule : {"most used", "least used", "draw 1", "draw 2", "draw 3"})
    for (const Index count : kept_heads) {
      const models::BlocksRestored restored(model.bert);
      prune_heads(model.bert, model.file, heads_by(rule, count, usage));
      const auto vectors = sentence_vectors(model.bert, backend, sentences, nothing);
      const models::Mean mean = models::mean_of(cosines_of(vectors, exact));
      std::printf("%-12s %6td %12.4f +- %.4f\n", rule, count, mean.value, mean.error);
      std::fflush(stdout);
    }
}

}  // namespace encoder
