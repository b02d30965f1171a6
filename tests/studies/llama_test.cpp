// SPDX-License-Identifier: Apache-2.0

#include "language_model/llama.hpp"
#include "io/memory.hpp"
#include "io/temporary_folder.hpp"
#include "language_model/gguf_source.hpp"
#include "language_model/weights.hpp"
#include "studies/llama_reference.hpp"
#include "studies/opened_llama.hpp"
#include "support/allocations.hpp"

#include <pare/attention/attend_selected.hpp>
#include <pare/attention/sliding_window.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/gguf.hpp>
#include <pare/transformer/linear.hpp>

#if __has_include(<nlohmann/json.hpp>)
#include "language_model/safetensors_source.hpp"
#endif

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace studies_llama_test {
namespace {

using namespace language_model;
using pare::testing::RoundedRow;
using pare::testing::TinyLlama;

using Logits = std::vector<float>;

std::vector<Token> some_tokens(std::size_t count) {
  std::mt19937 bits(5);
  std::vector<Token> tokens(count);
  for (Token& token : tokens) token = static_cast<Token>(bits() % TinyLlama::vocabulary);
  return tokens;
}

using Opened = pare::testing::OpenedLlama;

template <class B>
Logits last_logits(const B& backend, const Llama& model, std::span<const Token> tokens,
                   KvCache& cache, const Attention& attention = exact_attention) {
  Logits logits(static_cast<std::size_t>(model.config().vocabulary));
  model.forward(backend, tokens, cache, logits, attention);
  return logits;
}

std::vector<Logits> all_logits(const Llama& model, std::span<const Token> tokens, KvCache& cache) {
  std::vector<Logits> all;
  model.forward(pare::simd, tokens, cache, [&](Index first, TensorView<const float, 2> block) {
    EXPECT_EQ(first, static_cast<Index>(all.size()));
    for (Index i = 0; i < block.rows(); ++i)
      all.emplace_back(&block(i, 0), &block(i, 0) + block.cols());
  });
  return all;
}

void expect_within(const Logits& got, const RoundedRow& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(static_cast<double>(got[i]), wanted[i].x, wanted[i].tolerance()) << "logit " << i;
}

/// The message of the refusal; the cache must be as before.
template <class Call>
std::string refused(const Call& call, const KvCache& cache) {
  const Index before = cache.length();
  const std::string message = refusal(call);
  EXPECT_EQ(cache.length(), before);
  return message;
}

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(Llama, LogitsOfAPromptAreThoseOfTheDefinition) {
  for (const bool tied : {true, false}) {
    const TinyLlama tiny(1, tied);
    const Opened opened(tiny);
    const std::vector<Token> tokens = some_tokens(64);
    const std::vector<RoundedRow> wanted = tiny.logits(tokens);
    EXPECT_LT(wanted.back().back().tolerance(), 1e-3);  // a tolerance that tells something
    for (const std::size_t n : {1u, 2u, 17u, 64u}) {
      const auto prompt = std::span(tokens).first(n);
      KvCache cache = opened.cache();
      const std::vector<Logits> got = all_logits(opened.model, prompt, cache);
      ASSERT_EQ(got.size(), n);
      for (std::size_t t = 0; t < n; ++t) expect_within(got[t], wanted[t]);
      EXPECT_EQ(cache.length(), static_cast<Index>(n));
      KvCache again = opened.cache();
      expect_within(last_logits(pare::simd, opened.model, prompt, again), wanted[n - 1]);
    }
  }
}

TEST(Llama, APromptOfSeveralRowBlocksIsThatOfTheDefinition) {
  const TinyLlama tiny(2);
  const Opened opened(tiny);
  const std::vector<Token> tokens = some_tokens(530);
  KvCache cache = opened.cache();
  const std::vector<Logits> got = all_logits(opened.model, tokens, cache);
  const std::vector<RoundedRow> wanted = tiny.logits(tokens);
  for (const std::size_t t : {0u, 63u, 64u, 511u, 512u, 529u}) expect_within(got[t], wanted[t]);
}

TEST(Llama, OneTokenAtATimeAndInPartsIsAsAtOnce) {
  const TinyLlama tiny(3);
  const Opened opened(tiny);
  const std::vector<Token> tokens = some_tokens(80);
  const std::vector<RoundedRow> wanted = tiny.logits(tokens);
  KvCache cache = opened.cache();
  for (std::size_t t = 0; t < tokens.size(); ++t)
    expect_within(last_logits(pare::simd, opened.model, {&tokens[t], 1}, cache), wanted[t]);
  cache.reset();
  for (const auto& [first, count] : {std::pair{0, 33}, std::pair{33, 40}, std::pair{73, 7}}) {
    const auto part = std::span(tokens).subspan(std::size_t(first), std::size_t(count));
    const Logits got = last_logits(pare::simd, opened.model, part, cache);
    expect_within(got, wanted[static_cast<std::size_t>(first + count - 1)]);
  }
}

TEST(Llama, TheSameBitsOnAnyNumberOfThreads) {
  const Opened opened(TinyLlama(4));
  const std::vector<Token> tokens = some_tokens(65);
  const auto run = [&](const auto& backend) {
    KvCache cache = opened.cache();
    const Logits prompt = last_logits(backend, opened.model, std::span(tokens).first(64), cache);
    return std::pair{prompt, last_logits(backend, opened.model, {&tokens[64], 1}, cache)};
  };
  EXPECT_EQ(run(pare::simd), run(pare::simd.threads(3)));
}

TEST(Llama, ATruncatedCacheForgets) {
  const Opened opened(TinyLlama(5));
  const std::vector<Token> tokens = some_tokens(40);
  const auto head = std::span(tokens).first(10), tail = std::span(tokens).subspan(10, 10);
  KvCache cache = opened.cache();
  last_logits(pare::simd, opened.model, head, cache);
  const Logits wanted = last_logits(pare::simd, opened.model, tail, cache);
  last_logits(pare::simd, opened.model, std::span(tokens).subspan(20), cache);
  cache.truncate(10);
  EXPECT_EQ(last_logits(pare::simd, opened.model, tail, cache), wanted);
  EXPECT_SAYS(refused([&] { cache.truncate(21); }, cache), "tokens: got 21, wanted at most 20");
}

TEST(Llama, ACacheInBf16RoundsQueriesKeysValuesAndWeights) {
  const TinyLlama tiny(6);
  const Opened opened(tiny);
  const std::vector<Token> tokens = some_tokens(17);
  const std::vector<RoundedRow> wanted = tiny.logits(tokens, true);
  KvCache cache = opened.cache(KvScalar::Bf16), exact = opened.cache();
  expect_within(last_logits(pare::simd, opened.model, std::span(tokens).first(16), cache),
                wanted[15]);
  const Logits decoded = last_logits(pare::simd, opened.model, {&tokens[16], 1}, cache);
  EXPECT_LT(wanted[16][0].tolerance(), .5);
  expect_within(decoded, wanted[16]);
  EXPECT_NE(decoded, last_logits(pare::simd, opened.model, tokens, exact));
}

/// Rows of a head as checkpoints of Hugging Face have them: first numbers of pairs, then second.
std::vector<float> half_split_rows(const TinyLlama::Tensor& t) {
  std::vector<float> result;
  constexpr Index dim = TinyLlama::head_dim;
  for (Index row = 0; row < t.shape[0]; ++row) {
    const Index at = row % dim, pair = at % (dim / 2), half = at / (dim / 2);
    const auto from = t.values.begin() + (row - at + 2 * pair + half) * t.shape[1];
    result.insert(result.end(), from, from + t.shape[1]);
  }
  return result;
}

TinyLlama with_half_split_rows(TinyLlama tiny) {
  for (auto& [name, tensor] : tiny.tensors)
    if (name.ends_with("attn_q.weight") || name.ends_with("attn_k.weight"))
      tensor.values = half_split_rows(tensor);
  return tiny;
}

TEST(Llama, PairsOfHalvesAreThoseOfNeighboursWithOtherRows) {
  const TinyLlama tiny(7);
  const TinyLlama turned = with_half_split_rows(tiny);
  const Memory memory(turned.file().file());
  const pare::io::GgufFile file(memory.bytes());
  LlamaSource source = gguf_source(file, linear_of(file, Weights::Float));
  source.config.layout = pare::transformer::RotaryLayout::HalfSplit;
  const Llama model(source);
  const std::vector<Token> tokens = some_tokens(17);
  KvCache cache(model.config().kv_shape(), 17);
  expect_within(last_logits(pare::simd, model, tokens, cache), tiny.logits(tokens).back());
}

TEST(Llama, RowsOfAPromptAreRoundedWhereBf16PairsAreWanted) {
  const TinyLlama tiny(21);
  const Memory memory(tiny.file().file());
  const pare::io::GgufFile file(memory.bytes());
  const std::string name = "blk.0.ffn_up.weight";
  const std::vector<float>& weights = tiny.tensors.at(name).values;
  constexpr Index inputs = TinyLlama::dim;
  std::mt19937 bits(22);
  for (const Index rows : {pare::transformer::few_rows, pare::transformer::few_rows + 1}) {
    for (const Weights form : {Weights::Bf16, Weights::Bf16Pairs}) {
      const AnyLinear layer = linear_of(file, form)(name);
      pare::RowMatrix<float> x(rows, inputs), y(rows, layer.outputs());
      for (Index i = 0; i < x.size(); ++i)
        x.data()[i] = static_cast<float>(bits()) / 0x1p31f - 1.0f;
      layer.apply(pare::on_any_executor(pare::simd), pare::as_const(pare::to_view(x)),
                  pare::to_view(y));
      const bool rounds = form == Weights::Bf16Pairs && rows > pare::transformer::few_rows;
      for (Index r = 0; r < rows; ++r)
        for (Index o = 0; o < y.cols(); ++o) {
          double sum = 0, size = 0;
          for (Index i = 0; i < inputs; ++i) {
            const double taken = rounds ? static_cast<float>(pare::bf16(x(r, i))) : x(r, i);
            const auto weight =
                static_cast<float>(pare::bf16(weights[static_cast<std::size_t>(o * inputs + i)]));
            sum += taken * static_cast<double>(weight);
            size += std::abs(taken * static_cast<double>(weight));
          }
          // 48 roundings of a sum of at most `size`; to round x would move it by 2^-9 of a term.
          ASSERT_NEAR(static_cast<double>(y(r, o)), sum, size * inputs * 0x1p-24);
        }
    }
  }
}

#if __has_include(<nlohmann/json.hpp>)
/// The file of a folder of Hugging Face.
std::string safetensors_of(const TinyLlama& tiny) {
  std::vector<pare::io::NamedTensor> tensors;
  for (const auto& [name, tensor] : tiny.tensors)
    tensors.emplace_back(huggingface_name(name), "F32", tensor.shape,
                         std::as_bytes(std::span(tensor.values)));
  std::ostringstream stream;
  pare::io::write_safetensors(stream, tensors);
  return stream.str();
}

const char* const tiny_config = R"({"model_type": "llama", "num_hidden_layers": 2,
  "hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1,
  "vocab_size": 101, "max_position_embeddings": 640, "rope_theta": 10000, "rope_scaling": null,
  "rms_norm_eps": 1e-05, "attention_bias": false, "tie_word_embeddings": false})";

TEST(Llama, AFolderOfHuggingFaceIsReadWithItsNamesAndHalves) {
  const TinyLlama tiny(14, false);
  const Memory memory(safetensors_of(with_half_split_rows(tiny)));
  const pare::io::SafetensorsFile file(memory.bytes());
  const Llama model(safetensors_source(file, parse_llama_config(tiny_config), dense_linear(file)));
  const std::vector<Token> tokens = some_tokens(9);
  KvCache cache(model.config().kv_shape(), 9);
  expect_within(last_logits(pare::simd, model, tokens, cache), tiny.logits(tokens).back());
}

TEST(Llama, RefusesFoldersByTheNameOfWhatIsWrong) {
  const auto config_with = [](const std::string& from, const std::string& to) {
    std::string text = tiny_config;
    text.replace(text.find(from), from.size(), to);
    return refusal([&] { parse_llama_config(text); });
  };
  EXPECT_EQ(config_with("", ""), "(accepted)");
  EXPECT_SAYS(config_with("{", ""), "text: got no JSON object");
  EXPECT_SAYS(config_with("llama", "qwen2"), "model_type: got \"qwen2\"");
  EXPECT_SAYS(config_with("null", R"({"type": "yarn"})"), "rope_scaling: got {\"type\":\"yarn\"}");
  EXPECT_SAYS(config_with("_bias\": false", "_bias\": true"), "attention_bias: got true");
  EXPECT_SAYS(config_with("48", "\"48\""), "hidden_size: got \"48\", wanted a whole number");
  EXPECT_SAYS(config_with("48", "48.5"), "hidden_size: got 48.5, wanted a whole number");
  EXPECT_SAYS(config_with("48", "1e300"), "hidden_size: got 1e+300, wanted a whole number");
  EXPECT_SAYS(config_with("48", "206158430208"), "head_dim: got 68719476736, wanted 1 to 2^16");
  EXPECT_SAYS(config_with("10000", "1e999"), "text: got no JSON object");
  EXPECT_SAYS(config_with("heads\": 3", "heads\": -3"), "num_attention_heads: got -3");
  EXPECT_SAYS(config_with("hidden_size", "size"), "hidden_size: got null, wanted a whole number");
  const auto file_of = [](const TinyLlama& tiny) {
    const Memory memory(safetensors_of(tiny));
    const pare::io::SafetensorsFile file(memory.bytes());
    return refusal([&] {
      Llama(safetensors_source(file, parse_llama_config(tiny_config), dense_linear(file)));
    });
  };
  {
    const Memory memory(safetensors_of(TinyLlama(15)));
    const pare::io::SafetensorsFile file(memory.bytes());
    LlamaConfig deep = parse_llama_config(tiny_config);
    deep.blocks = Index{1} << 30;  // of whose tensors there would be 2^30 names, nine times
    EXPECT_SAYS(refusal([&] { safetensors_source(file, deep, dense_linear(file)); }),
                "blocks: got 1073741824, wanted at most 2");
  }
  TinyLlama tiny(15);
  EXPECT_EQ(file_of(tiny), "(accepted)");
  tiny.tensors.at("blk.1.ffn_down.weight").shape = {96, 48};
  EXPECT_SAYS(file_of(tiny), "model.layers.1.mlp.down_proj.weight: got [96, 48], wanted [48, 96]");
  tiny.tensors.erase("blk.1.ffn_down.weight");
  EXPECT_SAYS(file_of(tiny), "no tensor model.layers.1.mlp.down_proj.weight");
  tiny.tensors["model.layers.0.self_attn.q_proj.bias"] = {{48}, std::vector<float>(48)};
  EXPECT_SAYS(file_of(tiny), "tensor model.layers.0.self_attn.q_proj.bias");
}
#endif

TEST(Llama, ATokenAllocatesNothing) {
  const TinyLlama tiny(8);
  const Memory memory(tiny.file().file());
  const pare::io::GgufFile file(memory.bytes());
  LlamaSource source = gguf_source(file, linear_of(file, Weights::Float));
  // Reading a row of a file is not the model's work.
  const std::vector<float>& embedding = tiny.tensors.at("token_embd.weight").values;
  source.embedding = [&](Token token, std::span<float> row) {
    std::copy_n(embedding.begin() + token * TinyLlama::dim, row.size(), row.begin());
  };
  const Llama model(source);
  const std::vector<Token> tokens = some_tokens(20);
  for (const KvScalar scalar : {KvScalar::Float, KvScalar::Bf16}) {
    pare::Workspace workspace;
    const auto backend = pare::simd.with(workspace);
    KvCache cache(model.config().kv_shape(), 32, scalar);
    Logits logits(TinyLlama::vocabulary);
    const Attention exact = exact_attention;
    model.forward(backend, std::span(tokens).first(4), cache, logits, exact);
    model.forward(backend, {&tokens[4], 1}, cache, logits, exact);
    const long before = pare::testing::allocations;
    for (std::size_t t = 5; t < tokens.size(); ++t)
      model.forward(backend, {&tokens[t], 1}, cache, logits, exact);
    EXPECT_EQ(pare::testing::allocations - before, 0);
  }
}

/// A user's own layer.
struct Doubled {
  AnyLinear layer;

  Index inputs() const { return layer.inputs(); }
  Index outputs() const { return layer.outputs(); }
  void apply(const ModelBackend& backend, TensorView<const float, 2> x,
             TensorView<float, 2> y) const {
    layer.apply(backend, x, y);
    for (Index i = 0; i < y.rows() * y.cols(); ++i) y.data[i] *= 2;
  }
};

TEST(Llama, ALayerIsReplacedByAnyOther) {
  Opened opened(TinyLlama(9));
  const std::vector<Token> tokens = some_tokens(5);
  KvCache cache = opened.cache();
  Logits wanted = last_logits(pare::simd, opened.model, tokens, cache);
  for (float& logit : wanted) logit *= 2;
  opened.model.head() = Doubled{opened.model.head()};
  cache.reset();
  EXPECT_EQ(last_logits(pare::simd, opened.model, tokens, cache), wanted);
}

TEST(Llama, APolicyIsAskedForSeveralTokensAndNotForOne) {
  const TinyLlama tiny(10);
  const Opened opened(tiny);
  const std::vector<Token> tokens = some_tokens(18);
  KvCache cache = opened.cache();
  std::vector<Index> layers;
  const Attention policy = [&](const ModelBackend& backend, const AttentionCall& call) {
    layers.push_back(call.layer);
    return exact_attention(backend, call);
  };
  last_logits(pare::simd, opened.model, std::span(tokens).first(17), cache, policy);
  const Logits got = last_logits(pare::simd, opened.model, {&tokens[17], 1}, cache, policy);
  EXPECT_EQ(layers, (std::vector<Index>{0, 1}));
  expect_within(got, tiny.logits(tokens).back());
}

TEST(Llama, AnySelectorOfBlocksMayAttend) {
  using pare::attention::SlidingWindow;
  const TinyLlama tiny(17);
  const Opened opened(tiny);
  const std::vector<Token> tokens = some_tokens(40);
  KvCache cache = opened.cache(), rounded = opened.cache(KvScalar::Bf16);
  const auto with = [&](Index window, KvCache& into, AttentionReport& report) {
    into.reset();
    const SlidingWindow policy{.row_block = 8, .column_block = 8, .window = window, .sinks = 1};
    return last_logits(pare::simd, opened.model, tokens, into, attention_by(policy, report));
  };
  AttentionReport all, some;
  expect_within(with(40, cache, all), tiny.logits(tokens).back());
  expect_within(with(40, rounded, all), tiny.logits(tokens, true).back());
  EXPECT_EQ(all.calls, 4);
  EXPECT_EQ(all.density(), 1);
  with(8, cache, some);
  EXPECT_EQ(some.calls, 2);
  // Of 1 + 2 + 3 + 4 + 5 blocks: the own, the one before it, and the first.
  EXPECT_DOUBLE_EQ(some.density(), (1 + 2 + 3 + 3 + 3) / 15.0);
}

TEST(Llama, APolicyThatRefusesLeavesTheCacheAsItWas) {
  const Opened opened(TinyLlama(11));
  const std::vector<Token> tokens = some_tokens(8);
  KvCache cache = opened.cache();
  last_logits(pare::simd, opened.model, tokens, cache);
  const Attention refuses = [](const ModelBackend&, const AttentionCall&) {
    pare::invalid_argument("not today");
    return pare::attention::AttendStats{};
  };
  EXPECT_EQ(refused([&] { last_logits(pare::simd, opened.model, tokens, cache, refuses); }, cache),
            "not today");
}

TEST(Llama, RefusesTokensAndCachesThatDoNotFit) {
  const Opened opened(TinyLlama(12));
  KvCache cache = opened.cache();
  const auto message = [&](const std::vector<Token>& tokens, KvCache& into) {
    return refused([&] { last_logits(pare::simd, opened.model, tokens, into); }, into);
  };
  EXPECT_SAYS(message({}, cache), "tokens: got 0, wanted at least 1");
  EXPECT_SAYS(message({3, 101}, cache), "tokens: got 101, wanted tokens from 0 to below 101");
  EXPECT_SAYS(message({-1}, cache), "tokens: got -1");
  KvCache small(opened.model.config().kv_shape(), 3), other({2, 1, 8}, 20);
  last_logits(pare::simd, opened.model, some_tokens(2), small);
  EXPECT_SAYS(message(some_tokens(2), small), "tokens: got 2, wanted at most 1, what is left");
  EXPECT_SAYS(message({1}, other), "cache: got [2, 1, 8], wanted [2, 1, 16]");
  KvCache large(opened.model.config().kv_shape(), 1000);
  EXPECT_SAYS(message(some_tokens(641), large), "tokens: got 641, wanted at most 640");
  Logits few(100);
  EXPECT_SAYS(refused([&] { opened.model.forward(pare::simd, some_tokens(2), cache, few); }, cache),
              "logits: got 100, wanted 101");
  EXPECT_SAYS(refusal([] { KvCache({2, 0, 8}, 20); }), "shape: got [2, 0, 8]");
  EXPECT_SAYS(refusal([] { KvCache({2, 1, 8}, 0); }), "capacity: got 0");
}

std::string refused_file(const std::string& bytes) {
  return refusal([&] { Opened opened(bytes); });
}

TEST(Llama, RefusesFilesByTheNameOfWhatIsWrong) {
  const TinyLlama tiny(13);
  EXPECT_SAYS(refused_file(tiny.file("blk.1.ffn_up.weight").file()),
              "no tensor blk.1.ffn_up.weight");
  EXPECT_SAYS(refused_file(tiny.file("output_norm.weight").file()), "no tensor output_norm.weight");
  EXPECT_SAYS(refused_file(tiny.file("token_embd.weight").file()), "token_embd.weight");
  TinyLlama turned = tiny;
  turned.tensors.at("blk.0.attn_k.weight").shape = {48, 16};
  EXPECT_SAYS(refused_file(turned.file().file()),
              "blk.0.attn_k.weight: got [48, 16], wanted [16, 48]");
  TinyLlama biased = tiny;
  biased.tensors["blk.0.attn_q.bias"] = {{48}, std::vector<float>(48)};
  EXPECT_SAYS(refused_file(biased.file().file()), "tensor blk.0.attn_q.bias");
  const std::string whole = tiny.file().file();
  EXPECT_SAYS(refused_file(whole.substr(0, whole.size() - 1)), "pare::io::GgufFile");
}

TEST(Llama, RefusesFilesOfOtherModels) {
  const auto with = [](const char* architecture, const char* scaling, std::uint32_t heads,
                       std::uint64_t head_dim = 0, std::uint64_t blocks = 8) {
    pare::testing::GgufWriter writer;
    writer.add("general.architecture", architecture);
    writer.add("llama.rope.scaling.type", scaling);
    for (const char* key :
         {"llama.context_length", "llama.embedding_length", "llama.feed_forward_length"})
      writer.add(key, std::uint32_t{8});
    writer.add("llama.block_count", blocks);
    writer.add("llama.rope.dimension_count", head_dim == 0 ? std::uint64_t{8} : head_dim);
    if (head_dim != 0) {
      writer.add("llama.attention.key_length", head_dim);
      writer.add("llama.attention.value_length", head_dim);
    }
    writer.add("llama.attention.head_count", heads);
    writer.add("llama.attention.head_count_kv", std::uint32_t{2});
    writer.add("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    writer.tensor("token_embd.weight", pare::io::GgufType::F32, {2, 8}, std::string(64, '\0'));
    return refused_file(writer.file());
  };
  EXPECT_SAYS(with("gpt2", "none", 4), "general.architecture: got gpt2, wanted llama");
  EXPECT_SAYS(with("llama", "yarn", 4), "llama.rope.scaling.type: got yarn");
  EXPECT_SAYS(with("llama", "none", 0), "llama.attention.head_count: got 0");
  EXPECT_SAYS(with("llama", "none", 3, 2), "kv_heads: got 2, wanted a divisor of the 3 heads");
  EXPECT_SAYS(with("llama", "none", 4), "rotary: got 8, wanted at most 2, the numbers of a head");
  // Refused before memory is taken for them.
  EXPECT_SAYS(with("llama", "none", 4, std::uint64_t{1} << 40),
              "head_dim: got 1099511627776, wanted 1 to 2^16");
  EXPECT_SAYS(with("llama", "none", 4, 2, 1 << 30), "blocks: got 1073741824, wanted at most 1");
}

}  // namespace
}  // namespace studies_llama_test
