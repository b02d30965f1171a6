// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The shape of a Llama-style model, and where its weights come from.
///
/// ```cpp
/// LlamaConfig config = gguf_config(file);
/// config.context = 2048;                    // less memory for angles
/// ```

#include "common/any_linear.hpp"
#include "language_model/kv_cache.hpp"

#include <pare/core/check.hpp>
#include <pare/transformer/rotary.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace language_model {

using models::AnyLinear;
using models::ModelBackend;
using Token = std::int32_t;

struct LlamaConfig {
  Index blocks = 0, dim = 0, hidden = 0;
  Index heads = 0, kv_heads = 0, head_dim = 0;
  Index vocabulary = 0, context = 0;
  pare::transformer::RotaryFrequencies rotary{};
  pare::transformer::RotaryLayout layout = pare::transformer::RotaryLayout::Interleaved;
  double epsilon = 1e-5;

  KvShape kv_shape() const { return {blocks, kv_heads, head_dim}; }

  /// \throws std::invalid_argument if a member is out of its range
  const LlamaConfig& checked() const {
    constexpr const char* function = "language_model::LlamaConfig";
    const auto positive = [&](const char* name, Index value) {
      pare::check(value >= 1 && value <= Index{1} << 30, function, name, value, "1 to 2^30");
    };
    positive("blocks", blocks);
    positive("dim", dim);
    positive("hidden", hidden);
    positive("heads", heads);
    positive("kv_heads", kv_heads);
    positive("head_dim", head_dim);
    positive("vocabulary", vocabulary);
    positive("context", context);
    pare::check(heads % kv_heads == 0, function, "kv_heads", kv_heads,
                pare::Worded{"a divisor of the ", heads, " heads"});
    pare::check(rotary.pairs() >= 1 && rotary.pairs() <= head_dim / 2, function, "rotary",
                rotary.pairs(), pare::Worded{"1 to ", head_dim / 2, " pairs"});
    return *this;
  }
};

/// Where weights come from, by their names in GGUF files; each refuses what is not of the shape.
struct LlamaSource {
  LlamaConfig config{};
  std::function<std::vector<float>(const std::string& name, Index size)> vector{};
  std::function<AnyLinear(const std::string& name, Index outputs, Index inputs)> linear{};
  std::function<void(Token token, std::span<float> row)> embedding{};  ///< may be called later
  bool tied_head = false;  ///< the head is the embedding, token_embd.weight
};

/// Makes a layer of the matrix of that name in a file, whose shape was checked.
using MakeLinear = std::function<AnyLinear(const std::string& name)>;

/// \throws std::invalid_argument if the extents of a tensor are not those wanted
inline void check_tensor_shape(const char* function, const std::string& name,
                               const std::vector<Index>& got, const std::vector<Index>& wanted) {
  const auto text = [](const std::vector<Index>& extents) {
    std::string list = "[";
    for (const Index n : extents) list += (list == "[" ? "" : ", ") + std::to_string(n);
    return list + "]";
  };
  pare::check(got == wanted, function, name.c_str(), text(got), text(wanted));
}

/// Refuses heads that are wider than any, before memory is taken for their angles.
inline void check_head_dim(const char* function, Index head_dim, Index turned) {
  constexpr Index most = 1 << 16;
  pare::check(head_dim >= 1 && head_dim <= most, function, "head_dim", head_dim, "1 to 2^16");
  pare::check(turned <= head_dim, function, "rotary", turned,
              pare::Worded{"at most ", head_dim, ", the numbers of a head"});
}

/// Refuses more blocks than a file can have, before memory is taken for their names.
inline void check_blocks(const char* function, const LlamaConfig& config, std::size_t tensors) {
  pare::check(config.blocks <= static_cast<Index>(tensors), function, "blocks", config.blocks,
              pare::Worded{"at most ", static_cast<Index>(tensors), ", the tensors of the file"});
}

/// All names that a source is asked for.
inline std::vector<std::string> llama_tensors(const LlamaConfig& config, bool tied_head) {
  std::vector<std::string> names{"token_embd.weight", "output_norm.weight"};
  if (!tied_head) names.push_back("output.weight");
  for (Index i = 0; i < config.blocks; ++i)
    for (const char* part : {"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm",
                             "ffn_gate", "ffn_up", "ffn_down"})
      names.push_back("blk." + std::to_string(i) + "." + part + ".weight");
  return names;
}

}  // namespace language_model
