// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A Llama from a GGUF file: its shape from metadata, its weights by name.
///
/// ```cpp
/// const pare::io::GgufFile file("model.gguf");
/// Llama model(gguf_source(file, linear_of(file, Weights::Stored)));  // in llama.hpp and
/// weights.hpp
/// ```
///
/// The file must outlive the model, which reads rows of the embedding from it. Rotary pairs are
/// neighbours. Files of other architectures, with stretched positions, or with tensors that the
/// model would not use (biases, experts) are refused.

#include "language_model/llama_source.hpp"

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/gguf.hpp>
#include <pare/transformer/rotary.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// \throws std::invalid_argument if there is no such tensor or it is of another shape
inline const pare::io::GgufTensor& checked_tensor(const pare::io::GgufFile& file,
                                                  const std::string& name,
                                                  const std::vector<Index>& shape) {
  constexpr const char* function = "language_model::gguf_source";
  pare::check(file.contains(name), function, "file", "no tensor " + name, "a Llama's tensors");
  const auto& tensor = file.tensor(name);
  check_tensor_shape(function, name, {tensor.shape.begin(), tensor.shape.end()}, shape);
  return tensor;
}

/// \throws std::invalid_argument if a key is missing or out of range
inline LlamaConfig gguf_config(const pare::io::GgufFile& file) {
  constexpr const char* function = "language_model::gguf_config";
  const auto architecture = file.get<std::string>("general.architecture");
  pare::check(architecture == "llama", function, "general.architecture", architecture, "llama");
  const auto scaling = file.find<std::string>("llama.rope.scaling.type").value_or("none");
  pare::check(scaling == "none", function, "llama.rope.scaling.type", scaling, "none");
  LlamaConfig c;
  c.blocks = file.get<Index>("llama.block_count");
  c.dim = file.get<Index>("llama.embedding_length");
  c.hidden = file.get<Index>("llama.feed_forward_length");
  c.heads = file.get<Index>("llama.attention.head_count");
  c.kv_heads = file.find<Index>("llama.attention.head_count_kv").value_or(c.heads);
  pare::check(c.heads >= 1, function, "llama.attention.head_count", c.heads, "at least 1");
  c.head_dim = file.find<Index>("llama.attention.key_length").value_or(c.dim / c.heads);
  const Index value_dim =
      file.find<Index>("llama.attention.value_length").value_or(Index{c.head_dim});
  pare::check(value_dim == c.head_dim, function, "llama.attention.value_length", value_dim,
              c.head_dim);
  c.vocabulary = file.tensor("token_embd.weight").rows();
  c.context = file.get<Index>("llama.context_length");
  const Index turned = file.find<Index>("llama.rope.dimension_count").value_or(Index{c.head_dim});
  check_head_dim(function, c.head_dim, turned);
  c.rotary = pare::transformer::rotary_frequencies(
      turned, file.find<double>("llama.rope.freq_base").value_or(10000));
  c.epsilon = file.get<double>("llama.attention.layer_norm_rms_epsilon");
  return c.checked();
}

/// Refuses tensors that the model would not use: what they say would be left out.
inline void check_known_tensors(const pare::io::GgufFile& file, const LlamaConfig& config,
                                bool tied_head) {
  check_blocks("language_model::gguf_source", config, file.tensors().size());
  std::vector<std::string> known = llama_tensors(config, tied_head);
  std::ranges::sort(known);
  for (const auto& tensor : file.tensors())
    pare::check(std::ranges::binary_search(known, std::string(tensor.name)),
                "language_model::gguf_source", "file", "tensor " + std::string(tensor.name),
                "only those of a Llama without biases");
}

/// \param linear makes each layer: linear_of(file, ...), or of another kind
/// \throws std::invalid_argument as gguf_config, or if a tensor is not known; the model's
///         constructor then throws if one is missing or of another shape
inline LlamaSource gguf_source(const pare::io::GgufFile& file, const MakeLinear& linear) {
  LlamaSource source;
  source.config = gguf_config(file);
  source.tied_head = !file.contains("output.weight");
  check_known_tensors(file, source.config, source.tied_head);
  checked_tensor(file, "token_embd.weight", {source.config.vocabulary, source.config.dim});
  source.vector = [&file](const std::string& name, Index size) {
    checked_tensor(file, name, {size});
    std::vector<float> values(static_cast<std::size_t>(size));
    file.read_row(name, 0, values);
    return values;
  };
  source.linear = [&file, linear](const std::string& name, Index outputs, Index inputs) {
    checked_tensor(file, name, {outputs, inputs});
    return linear(name);
  };
  source.embedding = [&file](Token token, std::span<float> row) {
    file.read_row("token_embd.weight", token, row);
  };
  return source;
}

}  // namespace language_model
