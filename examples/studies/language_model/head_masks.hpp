// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention in which some heads attend to all keys alike, or to none (AttentionInfluence's masks).
///
/// ```cpp
/// const Attention masked = masked_attention(read_heads("heads.txt", model.config()),
///                                           HeadMode::Uniform, model.config());
/// ```
///
/// Source: Hua et al., "AttentionInfluence", arXiv 2505.07293: the loss of a model without its
/// retrieval heads, against its own, tells what a text asks of them.

#include "language_model/cache_attention.hpp"
#include "language_model/head_arguments.hpp"
#include "language_model/llama_source.hpp"

#include <pare/attention/heads/head_id.hpp>
#include <pare/attention/score_modifier.hpp>
#include <pare/core/check.hpp>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

using LayerHead = pare::attention::HeadId;

/// The heads of a file with a line "layer head" for each, both from 0.
/// \throws std::runtime_error if the file cannot be read, a line is another, or there is no such
///         head
inline std::vector<LayerHead> read_heads(const std::string& path, const LlamaConfig& config) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be opened for reading");
  const std::string wanted = ", wanted a layer below " + std::to_string(config.blocks) +
                             " and a head below " + std::to_string(config.heads);
  std::vector<LayerHead> heads;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    LayerHead at;
    std::string rest;
    if (!(words >> at.layer >> at.head) || words >> rest || at.layer < 0 ||
        at.layer >= config.blocks || at.head < 0 || at.head >= config.heads)
      throw std::runtime_error(
          std::string(path).append(": got the line '").append(line).append("'").append(wanted));
    heads.push_back(at);
  }
  if (heads.empty()) throw std::runtime_error(path + ": has no heads");
  return heads;
}

/// Writes such a file.
/// \throws std::runtime_error if that fails
inline void write_heads(const std::string& path, const std::vector<LayerHead>& heads) {
  std::ofstream file(path);
  for (const auto [layer, head] : heads) file << layer << ' ' << head << '\n';
  file.close();
  if (!file) throw std::runtime_error(path + ": writing failed");
}

/// The scores of a head that attends uniformly are equal; one that is 0 sees no key.
struct MaskedScores {
  const HeadMode* modes = nullptr;  ///< [heads]

  template <class T>
  T modify(T score, const pare::attention::ScorePlace& at) const noexcept {
    const HeadMode mode = modes[at.head];
    return mode == HeadMode::Exact     ? score
           : mode == HeadMode::Uniform ? T(0)
                                       : -std::numeric_limits<T>::infinity();
  }
};

/// Exact but for some heads. For caches in float.
/// \throws std::invalid_argument if there is no such head
inline Attention masked_attention(const std::vector<LayerHead>& masked, HeadMode mode,
                                  const LlamaConfig& config) {
  std::vector<std::vector<HeadMode>> modes(
      static_cast<std::size_t>(config.blocks),
      std::vector<HeadMode>(static_cast<std::size_t>(config.heads), HeadMode::Exact));
  for (const auto [layer, head] : masked) {
    pare::check(layer >= 0 && layer < config.blocks && head >= 0 && head < config.heads,
                "language_model::masked_attention", "masked", head, "a head of the model");
    modes[static_cast<std::size_t>(layer)][static_cast<std::size_t>(head)] = mode;
  }
  return [modes = std::move(modes)](const ModelBackend& backend, const AttentionCall& call) {
    const auto& of_layer = modes[static_cast<std::size_t>(call.layer)];
    const auto is_exact = [](HeadMode m) { return m == HeadMode::Exact; };
    if (std::ranges::all_of(of_layer, is_exact)) return exact_attention(backend, call);
    return pare::attention::attend(backend, call.q, call.cache.paged<float>(call.layer), call.out,
                                   MaskedScores{of_layer.data()}, {.causal = true});
  };
}

}  // namespace language_model
