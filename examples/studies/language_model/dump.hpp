// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Writes what a text makes of a model's layers as .npy files, for other programs:
///
///     tokens.npy                       [1, tokens], as 32-bit integers
///     blk.N.q.npy, .k.npy, .v.npy      [1, heads, tokens, dim], behind the rotary embedding
///     blk.N.LINEAR.products.npy        [inputs, inputs], mean products of the inputs, in double
///     blk.N.LINEAR.inputs.npy          [tokens, inputs]
///
/// LINEAR is attn_q (whose inputs attn_k and attn_v share), attn_output, ffn_gate (shared by
/// ffn_up) and ffn_down.

#include "language_model/cache_attention.hpp"
#include "language_model/llama.hpp"
#include "language_model/watched_inputs.hpp"

#include <pare/core/check.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/io/npy.hpp>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// The inputs that a layer was given, all calls one after the other.
struct GivenInputs {
  Index columns = 0;
  std::vector<float> rows{};

  TensorView<const float, 2> view() const {
    return {rows.data(), {static_cast<Index>(rows.size()) / columns, columns}, {columns, 1}};
  }
};

/// Exact attention that first writes queries, keys and values of some layers.
inline Attention dumping_attention(const std::filesystem::path& folder,
                                   const std::vector<Index>& layers) {
  return [folder, layers](const ModelBackend& backend, const AttentionCall& call) {
    if (std::ranges::find(layers, call.layer) != layers.end()) {
      const std::string name = "blk." + std::to_string(call.layer);
      const auto write = [&](const char* what, const auto& view) {
        pare::io::write_npy(folder / (name + what), view);
      };
      write(".q.npy", call.q);
      const auto write_cache = [&]<class S>(S) {
        write(".k.npy", call.cache.template keys<S>(call.layer));
        write(".v.npy", call.cache.template values<S>(call.layer));
      };
      call.cache.scalar() == KvScalar::Float ? write_cache(float{}) : write_cache(pare::bf16{});
    }
    return exact_attention(backend, call);
  };
}

/// Has layers of a block keep their inputs; names and inputs.
inline std::vector<std::pair<std::string, std::shared_ptr<GivenInputs>>> keep_inputs(
    LlamaBlock& block, Index number) {
  std::vector<std::pair<std::string, std::shared_ptr<GivenInputs>>> kept;
  watch_inputs(block, [&](const NamedLayer& named) {
    auto given = std::make_shared<GivenInputs>(GivenInputs{(block.*named.layer).inputs()});
    kept.emplace_back(named.of_block(number), given);
    return [given](const ModelBackend&, TensorView<const float, 2> x) {
      for (Index i = 0; i < x.rows(); ++i) {
        const float* const row = x.data + i * x.stride[0];
        given->rows.insert(given->rows.end(), row, row + x.cols());
      }
    };
  });
  return kept;
}

/// Runs the model on tokens, and writes the files of some layers into a folder, which is made.
/// Linear layers of the model are then other objects of the same results.
/// \throws std::invalid_argument if there are fewer than 2 tokens, or the model has no such layer;
/// nothing is written then
template <class B>
void dump_layers(Llama& llama, const B& backend, std::span<const Token> tokens,
                 const std::vector<Index>& layers, KvScalar kv, bool with_inputs,
                 const std::filesystem::path& folder) {
  const char* const function = "language_model::dump_layers";
  pare::check(tokens.size() >= 2, function, "tokens", tokens.size(), "at least 2");
  for (const Index layer : layers)
    pare::check(layer >= 0 && layer < llama.config().blocks, function, "layers", layer,
                pare::Worded{"at least 0 and below ", llama.config().blocks});
  KvCache cache(llama.config().kv_shape(), static_cast<Index>(tokens.size()), kv);
  std::filesystem::create_directories(folder);
  std::vector<std::pair<std::string, std::shared_ptr<GivenInputs>>> kept;
  for (const Index layer : layers)
    for (auto& named : keep_inputs(llama.blocks()[static_cast<std::size_t>(layer)], layer))
      kept.push_back(std::move(named));
  std::vector<float> logits(static_cast<std::size_t>(llama.config().vocabulary));
  pare::io::write_npy(
      folder / "tokens.npy",
      TensorView<const Token, 2>{tokens.data(), {1, static_cast<Index>(tokens.size())}, {0, 1}});
  llama.forward(backend, tokens, cache, logits, dumping_attention(folder, layers));
  for (const auto& [name, given] : kept) {
    pare::factor::Covariance products(given->columns);
    products.add(backend, given->view());
    pare::io::write_npy(folder / (name + ".products.npy"), products.matrix());
    if (with_inputs) pare::io::write_npy(folder / (name + ".inputs.npy"), given->view());
  }
}

}  // namespace language_model
