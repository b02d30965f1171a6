// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A Llama from a folder of Hugging Face: `config.json` and one `model.safetensors`.
///
/// ```cpp
/// const pare::io::SafetensorsFile file(folder / "model.safetensors");
/// const LlamaConfig config = read_llama_config(folder / "config.json");
/// Llama model(safetensors_source(file, config, dense_linear(file)));           // in llama.hpp
/// ```
///
/// The file must outlive the model, which reads rows of the embedding from it. Rotary pairs are the
/// halves of a head. Other architectures, stretched positions, and tensors that the model would not
/// use (biases, experts) are refused.

#include "language_model/llama_source.hpp"

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/safetensors.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/rotary.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace language_model {

/// \throws std::invalid_argument if the text is not that of a Llama's config.json
inline LlamaConfig parse_llama_config(const std::string& text) {
  constexpr const char* function = "language_model::parse_llama_config";
  const auto json = nlohmann::json::parse(text, nullptr, false);
  pare::check(json.is_object(), function, "text", "no JSON object", "a config.json");
  const auto number = [&]<class T>(const char* key, std::optional<T> otherwise) {
    const auto value = json.value(key, nlohmann::json());
    if (value.is_null() && otherwise) return *otherwise;
    // Of sizes no fraction is cut off, and none that does not fit is converted.
    constexpr bool whole = std::is_same_v<T, Index>;
    pare::check(whole ? value.is_number_integer() : value.is_number(), function, key, value.dump(),
                whole ? "a whole number" : "a number");
    return value.template get<T>();
  };
  const auto size = [&](const char* key, std::optional<Index> otherwise = std::nullopt) {
    return number(key, otherwise);
  };
  const auto type = json.value("model_type", nlohmann::json()).dump();
  pare::check(type == "\"llama\"", function, "model_type", type, "llama");
  for (const char* key : {"rope_scaling", "attention_bias", "mlp_bias"}) {
    const auto value = json.value(key, nlohmann::json());
    pare::check(value.is_null() || value == false, function, key, value.dump(), "none");
  }
  LlamaConfig c;
  c.blocks = size("num_hidden_layers");
  c.dim = size("hidden_size");
  c.hidden = size("intermediate_size");
  c.heads = size("num_attention_heads");
  c.kv_heads = size("num_key_value_heads", c.heads);
  pare::check(c.heads >= 1, function, "num_attention_heads", c.heads, "at least 1");
  c.head_dim = size("head_dim", c.dim / c.heads);
  c.vocabulary = size("vocab_size");
  c.context = size("max_position_embeddings");
  check_head_dim(function, c.head_dim, c.head_dim);
  c.rotary = pare::transformer::rotary_frequencies(c.head_dim,
                                                   number("rope_theta", std::optional(10000.0)));
  c.layout = pare::transformer::RotaryLayout::HalfSplit;
  c.epsilon = number("rms_norm_eps", std::optional(1e-6));
  return c.checked();
}

/// \throws std::invalid_argument if the file cannot be read, and as above
inline LlamaConfig read_llama_config(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  pare::check(stream.good(), "language_model::read_llama_config", "path", path.string(),
              "a file that can be read");
  return parse_llama_config({std::istreambuf_iterator<char>(stream), {}});
}

/// The name that a tensor of a GGUF file has there.
inline std::string huggingface_name(const std::string& name) {
  constexpr std::pair<const char*, const char*> parts[] = {
      {"attn_norm", "input_layernorm"},    {"ffn_norm", "post_attention_layernorm"},
      {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
      {"attn_v", "self_attn.v_proj"},      {"attn_output", "self_attn.o_proj"},
      {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
      {"ffn_down", "mlp.down_proj"},       {"token_embd.weight", "model.embed_tokens.weight"},
      {"output.weight", "lm_head.weight"}, {"output_norm.weight", "model.norm.weight"},
  };
  const bool of_block = name.starts_with("blk.");
  const std::size_t dot = of_block ? name.find('.', 4) : 0;
  const std::string part = of_block ? name.substr(dot + 1, name.rfind('.') - dot - 1) : name;
  for (const auto& [from, to] : parts)
    if (part == from)
      return of_block ? "model.layers." + name.substr(4, dot - 4) + "." + to + ".weight" : to;
  return name;
}

/// \param linear makes each layer of a matrix of that name in the file
/// \throws std::invalid_argument if a tensor is not known; the model's constructor then throws if
///         one is missing or of another shape
inline LlamaSource safetensors_source(const pare::io::SafetensorsFile& file,
                                      const LlamaConfig& config, const MakeLinear& linear) {
  static constexpr const char* function = "language_model::safetensors_source";
  LlamaSource source{.config = config, .tied_head = !file.contains("lm_head.weight")};
  check_blocks(function, config, file.tensors().size());
  std::vector<std::string> known = llama_tensors(config, source.tied_head);
  for (std::string& name : known) name = huggingface_name(name);
  for (const auto& tensor : file.tensors())
    pare::check(std::ranges::find(known, tensor.name) != known.end() ||
                    tensor.name.ends_with("rotary_emb.inv_freq"),  // as computed from rope_theta
                function, "file", "tensor " + tensor.name, "only those of a Llama without biases");
  const auto checked = [&file](const std::string& name, const std::vector<Index>& shape) {
    const std::string there = huggingface_name(name);
    pare::check(file.contains(there), function, "file", "no tensor " + there, "a Llama's tensors");
    check_tensor_shape(function, there, file.tensor(there).shape, shape);
    return there;
  };
  checked("token_embd.weight", {config.vocabulary, config.dim});
  source.vector = [&file, checked](const std::string& name, Index size) {
    const std::string there = checked(name, {size});
    std::vector<float> values(static_cast<std::size_t>(size));
    file.read_rows(there, 0, TensorView<float, 2>{values.data(), {size, 1}, {1, 1}});
    return values;
  };
  source.linear = [linear, checked](const std::string& name, Index outputs, Index inputs) {
    return linear(checked(name, {outputs, inputs}));
  };
  source.embedding = [&file, dim = config.dim](Token token, std::span<float> row) {
    file.read_rows("model.embed_tokens.weight", token,
                   TensorView<float, 2>{row.data(), {1, dim}, {dim, 1}});
  };
  return source;
}

/// Weights in float.
inline MakeLinear dense_linear(const pare::io::SafetensorsFile& file) {
  return [&file](const std::string& name) {
    const Index rows = file.tensor(name).shape[0], columns = file.tensor(name).shape[1];
    pare::transformer::DenseLinear<float> layer(rows, columns);
    file.read_rows(name, 0, layer.own_weights());
    return layer;
  };
}

}  // namespace language_model
