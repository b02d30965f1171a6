// SPDX-License-Identifier: Apache-2.0

/// \file
/// A language model of 135 million weights: one token behind 512 others, and a prompt of 512.
///
/// The model is SmolLM2-135M where its file is present (`cmake/bootstrap.sh model`), and else
/// random weights of its shape, which cost the same; llama.cpp is asked only with the file. The
/// limit of a token is reading its weights, keys and values; that of a prompt the multiply-adds of
/// its linear layers and of causal attention, or their products of bf16 pairs.
///
/// llama.cpp reads the same file, whose weights are 4 bits (`vs_llama_cpp`). Prompts are also
/// compared with it on weights as wide as ours (`vs_llama_cpp_alike`) where such a file lies
/// beside the model: its `llama-quantize --allow-requantize MODEL.Q4_1.gguf MODEL.BF16.gguf BF16`
/// writes one, and another with F32.

#include "child_memory.hpp"
#include "counters.hpp"
#include "language_model/open_model.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/workspace.hpp>
#include <pare/transformer/rotary.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace {
using namespace language_model;
using namespace pare::bench;

constexpr Index context = 512, steps = 16;

/// SmolLM2-135M's.
LlamaConfig smollm2_config() {
  LlamaConfig c;
  c.blocks = 30;
  c.dim = 576;
  c.hidden = 1536;
  c.heads = 9;
  c.kv_heads = 3;
  c.head_dim = 64;
  c.vocabulary = 49152;
  c.context = 8192;
  c.rotary = pare::transformer::rotary_frequencies(64, 100000.0);
  return c;
}

/// A layer in blocks of random bits, with scales of its own.
template <class Block>
struct RandomBlocks {
  RandomBlocks(Index rows, Index columns)
      : outputs_(rows), inputs_(columns), blocks_(static_cast<std::size_t>(rows * columns / 32)) {
    SplitMix64 random(1);
    for (Block& block : blocks_) {
      for (auto& q : block.q) q = static_cast<std::remove_reference_t<decltype(q)>>(random.next());
      block.d = {static_cast<std::uint8_t>(random.next()), 0x14};
      if constexpr (requires { block.m; }) block.m = {0, 0x98};
    }
  }

  Index inputs() const { return inputs_; }
  Index outputs() const { return outputs_; }
  void apply(const models::ModelBackend& backend, TensorView<const float, 2> x,
             TensorView<float, 2> y) const {
    pare::transformer::QuantizedLinear<Block>(blocks_, outputs_, inputs_).apply(backend, x, y);
  }

 private:
  Index outputs_, inputs_;
  std::vector<Block> blocks_;
};

template <class S>
AnyLinear random_dense(Index outputs, Index inputs,
                       const pare::transformer::DenseLinearOptions& options = {}) {
  pare::transformer::DenseLinear<S> layer(outputs, inputs, options);
  SplitMix64 random(1);
  const auto weights = layer.own_weights();
  for (Index i = 0; i < outputs * inputs; ++i)
    weights.data[i] = static_cast<S>(0.1f * (static_cast<float>(random.unit()) - 0.5f));
  return layer;
}

LlamaSource random_source(Weights weights) {
  LlamaSource source;
  source.config = smollm2_config();
  source.tied_head = true;
  source.vector = [](const std::string&, Index size) {
    return std::vector<float>(static_cast<std::size_t>(size), 1.0f);
  };
  source.linear = [weights](const std::string& name, Index outputs, Index inputs) -> AnyLinear {
    if (weights == Weights::Float) return random_dense<float>(outputs, inputs);
    if (weights == Weights::Bf16) return random_dense<pare::bf16>(outputs, inputs);
    if (weights == Weights::Bf16Pairs)
      return random_dense<pare::bf16>(outputs, inputs, {.round_inputs = true});
    if (name == "token_embd.weight") return RandomBlocks<pare::kernel::Q8_0>(outputs, inputs);
    return RandomBlocks<pare::kernel::Q4_1>(outputs, inputs);
  };
  source.embedding = [](Token token, std::span<float> row) {
    for (std::size_t i = 0; i < row.size(); ++i)
      row[i] = std::sin(static_cast<float>(i + 1) * static_cast<float>(token + 1));
  };
  return source;
}

struct Model {
  Model(Weights weights, KvScalar kv)
      : file(models::find(models::smollm2)),
        open(file ? std::make_unique<OpenModel>(*file, weights) : nullptr),
        random(file ? nullptr : std::make_unique<Llama>(random_source(weights))),
        llama(open ? open->llama : *random),
        cache(llama.config().kv_shape(), context + steps, kv),
        logits(static_cast<std::size_t>(llama.config().vocabulary)),
        prompt(static_cast<std::size_t>(context)) {
    for (std::size_t i = 0; i < prompt.size(); ++i)
      prompt[i] = static_cast<Token>(i * 7919 % logits.size());
  }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  template <class B>
  void read_prompt(const B& backend) {
    cache.reset();
    llama.forward(backend.with(workspace), prompt, cache, logits);
  }
  template <class B>
  void decode(const B& backend) {
    cache.truncate(context);
    for (std::size_t i = 0; i < static_cast<std::size_t>(steps); ++i)
      llama.forward(backend.with(workspace), std::span(prompt).subspan(i, 1), cache, logits);
  }

  std::optional<std::filesystem::path> file;
  std::unique_ptr<OpenModel> open;
  std::unique_ptr<Llama> random;
  const Llama& llama;
  KvCache cache;
  std::vector<float> logits;
  std::vector<Token> prompt;
  pare::Workspace workspace;
};

/// Of the linear layers of the blocks, and of the head.
struct WeightCounts {
  double blocks, head;
};
WeightCounts count_weights(const LlamaConfig& c) {
  const Index attention = c.dim * c.head_dim * 2 * (c.heads + c.kv_heads);
  return {static_cast<double>(c.blocks * (attention + 3 * c.dim * c.hidden)),
          static_cast<double>(c.vocabulary * c.dim)};
}

double bytes_of(const WeightCounts& n, Weights weights) {
  if (weights == Weights::Float) return 4 * (n.blocks + n.head);
  if (weights != Weights::Stored) return 2 * (n.blocks + n.head);
  return n.blocks * sizeof(pare::kernel::Q4_1) / 32 + n.head * sizeof(pare::kernel::Q8_0) / 32;
}

/// What is read for the tokens behind the prompt.
double decode_bytes(const Model& model, Weights weights) {
  const LlamaConfig& c = model.llama.config();
  const double element = model.cache.scalar() == KvScalar::Float ? 4 : 2;
  const double of_token = 2 * element * static_cast<double>(c.blocks * c.kv_heads * c.head_dim);
  const double tokens = static_cast<double>(context) + (static_cast<double>(steps) + 1) / 2;
  return static_cast<double>(steps) * (bytes_of(count_weights(c), weights) + tokens * of_token);
}

/// Flops of the prompt: its last token alone goes through the head.
double prompt_flops(const LlamaConfig& c) {
  const WeightCounts n = count_weights(c);
  const double tokens = static_cast<double>(context);
  const double pairs = tokens * (tokens + 1) / 2;
  const double attention = 4 * pairs * static_cast<double>(c.blocks * c.heads * c.head_dim);
  return 2 * tokens * n.blocks + 2 * n.head + attention;
}

/// Seconds of the same work by llama.cpp, on a file and as many threads.
double llama_cpp_seconds(const std::filesystem::path& file, const char* work, int threads) {
  return python_peer_seconds("language_model_llama_cpp.py",
                             {work, file.string(), std::to_string(threads), std::to_string(context),
                              std::to_string(steps)});
}

/// The model with weights as wide as these, if somebody made it.
std::optional<std::filesystem::path> file_alike(const std::filesystem::path& file,
                                                Weights weights) {
  if (weights == Weights::Stored) return std::nullopt;
  std::filesystem::path alike = file;
  alike.replace_extension();  // .gguf, and then the form
  alike.replace_extension(weights == Weights::Float ? ".F32.gguf" : ".BF16.gguf");
  return std::filesystem::exists(alike) ? std::optional(alike) : std::nullopt;
}

/// Of a prompt: products of pairs where the processor has them.
Demand prompt_demand(const LlamaConfig& config, Weights weights) {
  const bool pairs = weights == Weights::Bf16Pairs && pare::arch::best::has_bf16_dot;
  return {pairs ? Limit::dot_bf16 : Limit::fma_f32, prompt_flops(config)};
}

void run_model(benchmark::State& state, Weights weights, KvScalar kv, bool decodes, int threads) {
  Model& model = *workload<std::unique_ptr<Model>>(
      "language_model " + std::to_string(static_cast<int>(weights)),
      [&] { return std::make_unique<Model>(weights, kv); });
  const auto backend = pare::simd.threads(threads);
  const auto call = [&] { decodes ? model.decode(backend) : model.read_prompt(backend); };
  model.read_prompt(backend);
  call();
  if (!std::ranges::all_of(model.logits, [](float x) { return std::isfinite(x); })) {
    state.SkipWithError("logits that are no numbers");
    return;
  }
  LimitProbe probe(threads, {decodes ? Demand{Limit::dram_read, decode_bytes(model, weights)}
                                     : prompt_demand(model.llama.config(), weights)});
  const double own = time_between_probes(state, probe, call);
  set_of_limit(state, probe.seconds(), own);
  const Index tokens = decodes ? steps : context;
  state.counters["tokens_a_second"] = static_cast<double>(tokens) / own;
  if (!model.file) return;
  const char* const work = decodes ? "decode" : "prefill";
  set_vs(state, "llama_cpp", llama_cpp_seconds(*model.file, work, threads), own);
  if (const auto alike = decodes ? std::nullopt : file_alike(*model.file, weights))
    set_vs(state, "llama_cpp_alike", llama_cpp_seconds(*alike, work, threads), own);
}

std::string load_name(Weights weights) {
  const char* const of_weights[] = {"q4_1", "f32", "bf16", "bf16_pairs"};
  return std::string("language_model/load/") + of_weights[static_cast<std::size_t>(weights)];
}

/// From the file's name to the first token, the file in the system's cache; and the peak memory of
/// that, a prompt of 512 and 16 tokens behind it.
void run_load(benchmark::State& state, Weights weights, KvScalar kv) {
  Index cached_bytes = 0;
  const auto call = [&] {
    Model model(weights, kv);
    model.llama.forward(pare::simd.threads(all_threads()).with(model.workspace),
                        std::span(model.prompt).first(5), model.cache, model.logits);
    const KvShape shape = model.cache.shape();
    cached_bytes = 2 * shape.layers * shape.kv_heads * shape.head_dim * (context + steps) *
                   (kv == KvScalar::Float ? 4 : 2);
  };
  call();
  state.counters["seconds"] = time_alone(state, call);
  set_peak(state, peak_bytes_in_child(load_name(weights)),
           bytes_of(count_weights(smollm2_config()), weights) + static_cast<double>(cached_bytes) +
               32.0 * (1 << 20));
}

void add_load(Weights weights, KvScalar kv) {
  if (!models::find(models::smollm2)) return;
  register_memory_task(load_name(weights), [weights, kv] {
    Model model(weights, kv);
    const auto backend = pare::simd.threads(all_threads());
    model.read_prompt(backend);
    model.decode(backend);
  });
  large(benchmark::RegisterBenchmark(load_name(weights).c_str(), run_load, weights, kv), 1);
}

void add(const std::string& name, Weights weights, KvScalar kv, bool decodes) {
  for (const int threads : {1, all_threads()}) {
    const std::string full = "language_model/" + name + (threads == 1 ? "/t1" : "");
    large(benchmark::RegisterBenchmark(full.c_str(), run_model, weights, kv, decodes, threads), 3);
    if (all_threads() == 1) break;
  }
}

const bool registered = [] {
  add_load(Weights::Stored, KvScalar::Bf16);
  add_load(Weights::Bf16, KvScalar::Bf16);
  add_load(Weights::Float, KvScalar::Float);
  add("decode/bf16/ctx512", Weights::Bf16, KvScalar::Bf16, true);
  add("prefill/bf16/512", Weights::Bf16, KvScalar::Bf16, false);
  add("prefill/bf16_pairs/512", Weights::Bf16Pairs, KvScalar::Bf16, false);
  add("decode/q4_1/ctx512", Weights::Stored, KvScalar::Bf16, true);
  add("prefill/q4_1/512", Weights::Stored, KvScalar::Bf16, false);
  add("decode/f32/ctx512", Weights::Float, KvScalar::Float, true);
  add("prefill/f32/512", Weights::Float, KvScalar::Float, false);
  return true;
}();

}  // namespace
