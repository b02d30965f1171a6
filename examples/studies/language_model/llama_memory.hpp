// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a pass of tokens through a model needs beside its weights.
///
/// ```cpp
/// const auto memory = pare::leased<LlamaMemory>(backend);
/// const Activations a = activations(config, tokens, 512, memory->activations);
/// ```

#include "language_model/llama_source.hpp"

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scratch.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>

namespace language_model {

/// How tokens go through a model: all members left out, one behind the other through all blocks.
struct Pass {
  std::optional<Index> blocks{};       ///< only the first ones
  std::span<const Index> positions{};  ///< of each token, for its rotation
  /// Only blocks from this one on, from what those before it made, [tokens, dim]. Keys and values
  /// of those before it are the ones that stand in the cache behind its last token.
  Index first = 0;
  std::span<const float> given{};
  std::span<float> made{};  ///< [tokens, dim] written with what the blocks make, before the norm
};

/// Refuses a pass that a model cannot make of so many tokens.
inline void check_pass(const Pass& pass, const LlamaConfig& config, Index tokens) {
  constexpr const char* function = "language_model::Llama::states";
  const Index blocks = pass.blocks.value_or(config.blocks);
  pare::check(blocks >= 0 && blocks <= config.blocks, function, "blocks", blocks,
              pare::Worded{"0 to ", config.blocks});
  pare::check(pass.first >= 0 && pass.first <= blocks, function, "first", pass.first,
              pare::Worded{"0 to ", blocks});
  const Index size = tokens * config.dim;
  pare::check(static_cast<Index>(pass.given.size()) == (pass.first > 0 ? size : 0), function,
              "given", pass.given.size(), pass.first > 0 ? size : 0);
  pare::check(pass.made.empty() || static_cast<Index>(pass.made.size()) == size, function, "made",
              pass.made.size(), size);
  pare::check(pass.positions.empty() || static_cast<Index>(pass.positions.size()) == tokens,
              function, "positions", pass.positions.size(), tokens);
  for (const Index position : pass.positions)
    pare::check(position >= 0 && position < config.context, function, "positions", position,
                pare::Worded{"0 to below the context, ", config.context});
}

struct LlamaMemory {
  pare::AlignedBuffer<std::byte> activations, logits;
};

struct Activations {
  float *x, *q, *attended;               // of all tokens: [dim], [heads x head dim] twice
  float *h, *delta, *k, *v, *gate, *up;  // of at_once of them
};

/// Room for the activations of tokens, `at_once` of which go through a layer together.
inline Activations activations(const LlamaConfig& c, Index tokens, Index at_once,
                               pare::AlignedBuffer<std::byte>& memory) {
  const Index rows = std::min(tokens, at_once);
  Activations a{};
  pare::carve_from(memory, [&](pare::Carver& take) {
    take(a.x, tokens * c.dim);
    for (float** of_all : {&a.q, &a.attended}) take(*of_all, tokens * c.heads * c.head_dim);
    for (float** of_dim : {&a.h, &a.delta}) take(*of_dim, rows * c.dim);
    for (float** of_key : {&a.k, &a.v}) take(*of_key, rows * c.kv_heads * c.head_dim);
    for (float** of_hidden : {&a.gate, &a.up}) take(*of_hidden, rows * c.hidden);
  });
  return a;
}

}  // namespace language_model
