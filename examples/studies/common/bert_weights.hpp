// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The shape of a BERT encoder and its weights, from a folder of Hugging Face: `config.json` and
/// one `model.safetensors`.
///
/// ```cpp
/// const pare::io::SafetensorsFile file(folder / "model.safetensors");
/// const Bert model(file, read_bert_config(folder / "config.json"));  // in bert.hpp
/// ```
///
/// Other activations, relative positions and tensors that the encoder would not use are refused;
/// what stands beside it, such as a pooler or a head, is left alone.

#include "common/any_linear.hpp"

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/safetensors.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace encoder {

using models::AnyLinear;
using models::ModelBackend;
using pare::Index;
using pare::TensorView;

struct BertConfig {
  Index blocks = 0, dim = 0, hidden = 0, heads = 0;
  Index vocabulary = 0, positions = 0, types = 0;
  double epsilon = 1e-12;

  /// \throws std::invalid_argument if a member is out of its range
  const BertConfig& checked() const {
    constexpr const char* function = "encoder::BertConfig";
    const auto positive = [&](const char* name, Index value) {
      pare::check(value >= 1 && value <= Index{1} << 30, function, name, value, "1 to 2^30");
    };
    positive("blocks", blocks);
    positive("dim", dim);
    positive("hidden", hidden);
    positive("heads", heads);
    positive("vocabulary", vocabulary);
    positive("positions", positions);
    positive("types", types);
    pare::check(dim % heads == 0, function, "heads", heads,
                pare::Worded{"a divisor of the ", dim, " numbers of a token"});
    return *this;
  }
};

/// \throws std::invalid_argument if the text is not that of a BERT's config.json
inline BertConfig parse_bert_config(const std::string& text) {
  constexpr const char* function = "encoder::parse_bert_config";
  const auto json = nlohmann::json::parse(text, nullptr, false);
  pare::check(json.is_object(), function, "text", "no JSON object", "a config.json");
  const auto value = [&](const char* key) { return json.value(key, nlohmann::json()); };
  const auto expect = [&](const char* key, const char* wanted, bool needed) {
    const auto got = value(key);
    pare::check(got == wanted || (got.is_null() && !needed), function, key, got.dump(), wanted);
  };
  expect("model_type", "bert", true);
  expect("hidden_act", "gelu", true);
  expect("position_embedding_type", "absolute", false);
  const auto is_decoder = value("is_decoder");
  pare::check(is_decoder.is_null() || is_decoder == false, function, "is_decoder",
              is_decoder.dump(), "none");
  const auto number = [&]<class T>(const char* key, T& to) {
    const auto got = value(key);
    // Of sizes no fraction is cut off, and none that does not fit is converted.
    constexpr bool whole = std::is_same_v<T, Index>;
    pare::check(whole ? got.is_number_integer() : got.is_number(), function, key, got.dump(),
                whole ? "a whole number" : "a number");
    got.get_to(to);
  };
  BertConfig c;
  number("num_hidden_layers", c.blocks);
  number("hidden_size", c.dim);
  number("intermediate_size", c.hidden);
  number("num_attention_heads", c.heads);
  number("vocab_size", c.vocabulary);
  number("max_position_embeddings", c.positions);
  number("type_vocab_size", c.types);
  number("layer_norm_eps", c.epsilon);
  return c.checked();
}

/// \throws std::invalid_argument if the file cannot be read, and as above
inline BertConfig read_bert_config(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  pare::check(stream.good(), "encoder::read_bert_config", "path", path.string(),
              "a file that can be read");
  return parse_bert_config({std::istreambuf_iterator<char>(stream), {}});
}

/// A linear layer with a bias: y = x W^T + bias.
struct BiasedLinear {
  std::string weight;  ///< its name in the file
  AnyLinear linear;
  std::vector<float> bias;
};

struct LayerNorm {
  std::vector<float> gain, bias;
};

/// Reads tensors by name, and refuses those that are missing or of another shape.
class BertWeights {
 public:
  explicit BertWeights(const pare::io::SafetensorsFile& file)
      : file_(file), prefix_(file.contains("bert." + word_embedding) ? "bert." : "") {}

  static inline const std::string word_embedding = "embeddings.word_embeddings.weight";

  /// \throws std::invalid_argument if there is none of that name and shape
  std::string checked(const std::string& name, const std::vector<Index>& shape) {
    std::string there = prefix_ + name;
    pare::check(file_.contains(there), function, "file", "no tensor " + there, "a BERT's tensors");
    pare::check(file_.tensor(there).shape == shape, function, there.c_str(),
                text(file_.tensor(there).shape), text(shape));
    used_.push_back(there);
    return there;
  }

  /// All numbers of a tensor.
  std::vector<float> numbers(const std::string& name, const std::vector<Index>& shape) {
    const std::string there = checked(name, shape);
    const Index rows = shape.front(), columns = shape.size() == 1 ? 1 : shape.back();
    std::vector<float> values(static_cast<std::size_t>(rows * columns));
    file_.read_rows(there, 0, TensorView<float, 2>{values.data(), {rows, columns}, {columns, 1}});
    return values;
  }

  BiasedLinear linear(const std::string& name, Index outputs, Index inputs) {
    const std::string weight = checked(name + ".weight", {outputs, inputs});
    pare::transformer::DenseLinear<float> layer(outputs, inputs);
    file_.read_rows(weight, 0, layer.own_weights());
    return {weight, std::move(layer), numbers(name + ".bias", {outputs})};
  }

  LayerNorm norm(const std::string& name, Index dim) {
    return {numbers(name + ".weight", {dim}), numbers(name + ".bias", {dim})};
  }

  /// \throws std::invalid_argument if the encoder has a tensor that was not read
  void check_all_used() const {
    for (const auto& tensor : file_.tensors()) {
      const bool inside = tensor.name.starts_with(prefix_ + "embeddings.") ||
                          tensor.name.starts_with(prefix_ + "encoder.");
      pare::check(!inside || std::ranges::find(used_, tensor.name) != used_.end() ||
                      tensor.name.ends_with(".position_ids"),  // 0, 1, ...
                  function, "file", "tensor " + tensor.name, "only those of a BERT");
    }
  }

 private:
  static constexpr const char* function = "encoder::Bert";

  static std::string text(const std::vector<Index>& shape) {
    std::string list = "[";
    for (const Index n : shape) list += (list == "[" ? "" : ", ") + std::to_string(n);
    return list + "]";
  }

  const pare::io::SafetensorsFile& file_;
  std::string prefix_;
  std::vector<std::string> used_{};
};

}  // namespace encoder
