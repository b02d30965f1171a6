// SPDX-License-Identifier: Apache-2.0

/// \file
/// Whole layers of latent attention: a prompt, whose latents are expanded to keys and values of all
/// heads, and one token behind a context, whose queries absorb W_UK.
///
/// A prompt is compared with its parts, timed alone in the same run: the products with weights, and
/// `attend` on keys and values that lie there expanded (`vs_parts`); and with the same `attend`
/// beside products that take no longer than the peak of multiply-adds says (`vs_gemm_limit`). The
/// limit of a token is reading the weights, and then the slower of reading the cache and of
/// multiplying by it; both from memory: calls go round among copies of the layer of 128 MiB.

#include "counters.hpp"
#include "latent_layer_data.hpp"
#include "peer.hpp"
#include "workload.hpp"

#include <pare/attention/attend.hpp>
#include <pare/linalg/multiply.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace {
using namespace pare::bench;
using pare::bf16;
using pare::Index;
using pare::TensorView;
using pare::latent::LatentConfig;

struct Layer {
  const char* name;
  LatentConfig config;
};

template <class S>
LatentLayerWork<S>& layer_work(const Layer& layer, Index cached, Index tokens) {
  const double bytes = weight_count(layer.config) * sizeof(S);
  const auto copies = tokens > 1 ? 1 : 1 + static_cast<std::size_t>((128 << 20) / bytes);
  return *workload<std::unique_ptr<LatentLayerWork<S>>>(
      "latent layer " + scalar_name<S>() + layer.name + std::to_string(cached + tokens),
      [&] { return std::make_unique<LatentLayerWork<S>>(layer.config, cached, tokens, copies); });
}

/// Of some rows. Floats as attention is promised to be; of bf16, queries, rows, keys, values and
/// weights of the softmax are each rounded to 8 bits, off by up to 2^-9 of themselves.
template <class S>
bool is_right(const LatentLayerWork<S>& work) {
  const LatentLayerOracle<S> oracle(work);
  const Index last = work.out.rows() - 1;
  for (const Index token : {Index{0}, last / 3, last})
    if (!(oracle.error(token) <= (std::is_same_v<S, bf16> ? 5 * 0x1p-9 : 1e-5))) return false;
  return true;
}

template <class S>
double torch_seconds(const LatentConfig& c, Index cached, Index tokens, int threads) {
  std::vector<std::string> arguments{"layer", scalar_name<S>(), std::to_string(threads)};
  for (const Index size : {c.heads, c.nope, c.rope, c.value, c.latent, cached, c.width, tokens})
    arguments.push_back(std::to_string(size));
  return python_peer_seconds("latent_torch.py", arguments);
}

/// What a prompt consists of, each apart.
template <class S>
class PromptParts {
 public:
  explicit PromptParts(const LatentLayerWork<S>& work)
      : work_(work),
        config_(work.config),
        latents_(size(config_.latent)),
        q_(size(config_.heads * config_.head_dim())),
        k_(size(config_.heads * config_.head_dim())),
        v_(size(config_.heads * config_.value)),
        queries_(tokens(), config_.heads * config_.head_dim()),
        rows_(tokens(), config_.row_dim()),
        expanded_(tokens(), config_.heads * (config_.nope + config_.value)),
        outputs_(uniform_matrix(tokens(), config_.heads * config_.value, 7)),
        out_(tokens(), config_.width) {
    fill_uniform(latents_.data(), tokens() * config_.latent, 8);
    fill_uniform(q_.data(), tokens() * config_.heads * config_.head_dim(), 9);
    fill_uniform(k_.data(), tokens() * config_.heads * config_.head_dim(), 10);
    fill_uniform(v_.data(), tokens() * config_.heads * config_.value, 11);
  }

  void multiply(int threads) {
    const auto backend = pare::simd.threads(threads).with(workspace_);
    const auto& weights = work_.layers[0].weights();
    weights.query.apply(backend, pare::const_view(work_.hidden), pare::to_view(queries_));
    weights.latent_down.apply(backend, pare::const_view(work_.hidden), pare::to_view(rows_));
    pare::linalg::multiply(
        backend,
        TensorView<const S, 2>{latents_.data(), {tokens(), config_.latent}, {config_.latent, 1}},
        pare::transpose(weights.up.all()), pare::to_view(expanded_));
    weights.output.apply(backend, pare::const_view(outputs_), pare::to_view(out_));
  }

  void attend(int threads) {
    const auto heads = [&](auto* data, Index dim) {
      const Index n = tokens(), h = config_.heads;
      return TensorView<std::remove_pointer_t<decltype(data)>, 4>{
          data, {1, h, n, dim}, {n * h * dim, n * dim, dim, 1}};
    };
    const auto of = [&](const pare::AlignedBuffer<S>& buffer, Index dim) {
      return heads(static_cast<const S*>(buffer.data()), dim);
    };
    pare::attention::attend(pare::simd.threads(threads).with(workspace_),
                            of(q_, config_.head_dim()), of(k_, config_.head_dim()),
                            of(v_, config_.value), heads(outputs_.data(), config_.value),
                            {.causal = true, .scale = config_.softmax_scale});
  }

  double multiply_flops() const {
    return 2 * static_cast<double>(tokens()) * weight_count(config_);
  }
  double attend_flops() const {
    const auto n = static_cast<double>(tokens());
    return n * (n + 1) * static_cast<double>(config_.heads * (config_.head_dim() + config_.value));
  }

 private:
  Index tokens() const { return work_.hidden.rows(); }
  std::size_t size(Index row) const { return static_cast<std::size_t>(tokens() * row); }

  const LatentLayerWork<S>& work_;
  const LatentConfig& config_;
  pare::AlignedBuffer<S> latents_, q_, k_, v_;
  RowMatrix queries_, rows_, expanded_, outputs_, out_;
  pare::Workspace workspace_;
};

template <class S>
void prefill(benchmark::State& state, const Layer& layer, Index tokens, int threads) {
  auto& work = layer_work<S>(layer, 0, tokens);
  const pare::latent::LatentForwardOptions options{.form = pare::latent::LatentForm::Expanded};
  work.run(threads, options);
  if (!is_right(work)) return state.SkipWithError("result differs from the definition");
  PromptParts<S> parts(work);
  parts.multiply(threads);
  parts.attend(threads);
  LimitProbe products(threads, {{Limit::fma_f32, parts.multiply_flops()}});
  const Limit of_pairs = std::is_same_v<S, bf16> ? Limit::dot_bf16 : Limit::fma_f32;
  std::vector<double> times, multiply, attend;
  for (auto _ : state) {  // side by side: the machine drifts by more than what is asked for
    products.sample();
    times.push_back(seconds([&] { work.run(threads, options); }));
    multiply.push_back(seconds([&] { parts.multiply(threads); }));
    attend.push_back(seconds([&] { parts.attend(threads); }));
    state.SetIterationTime(times.back());
  }
  const double own = median(times), attended = median(attend);
  set_of_limit(state, products.seconds() + parts.attend_flops() / cached(of_pairs, threads), own);
  set_vs(state, "parts", median(multiply) + attended, own);
  set_vs(state, "gemm_limit", products.seconds() + attended, own);
  set_vs(state, "torch", torch_seconds<S>(layer.config, 0, tokens, threads), own);
  set_threads(state, threads);
}

template <class S>
void decode(benchmark::State& state, const Layer& layer, Index cached, int threads) {
  auto& work = layer_work<S>(layer, cached, 1);
  work.run(threads);
  if (!is_right(work)) return state.SkipWithError("result differs from the definition");
  const LatentConfig& c = layer.config;
  const auto calls = static_cast<double>(work.layers.size());
  const double weights = weight_count(c);
  const auto row_count = static_cast<double>(cached * c.row_dim());
  const double pairs = static_cast<double>(c.heads * cached * (c.row_dim() + c.latent));
  LimitProbe projections(threads, {{Limit::dram_read, weights * sizeof(S) * calls},
                                   {Limit::fma_f32, 2 * weights * calls}});
  LimitProbe attention(threads, {{Limit::dram_read, row_count * sizeof(S) * calls},
                                 {Limit::fma_f32, 2 * pairs * calls}});
  attention.sample();
  const double own = time_between_probes(state, projections, [&] {
    for (std::size_t copy = 0; copy < work.layers.size(); ++copy) work.run(threads);
  });
  attention.sample();
  set_of_limit(state, projections.seconds() + attention.seconds(), own);
  set_vs(state, "torch", torch_seconds<S>(c, cached, 1, threads) * calls, own);
  state.counters["us_a_call"] = own / calls * 1e6;
  set_threads(state, threads);
}

template <class S>
void add(const Layer& layer, const std::vector<Index>& prompts, Index context) {
  const auto add_row = [](const std::string& name, int threads, const auto& run) {
    large(benchmark::RegisterBenchmark((name + (threads > 1 ? "/threads_all" : "")).c_str(), run),
          3);
  };
  const std::string middle = scalar_name<S>() + "/" + layer.name;
  for (const int threads : {1, all_threads()}) {
    for (const Index tokens : prompts)
      add_row("latent/prefill/" + middle + "/" + std::to_string(tokens), threads,
              [=](benchmark::State& state) { prefill<S>(state, layer, tokens, threads); });
    add_row("latent/layer/decode/" + middle + "/t" + std::to_string(context), threads,
            [=](benchmark::State& state) { decode<S>(state, layer, context, threads); });
    if (all_threads() == 1) break;
  }
}

const bool registered = [] {
  const Layer v2_lite{"v2_lite", v2_lite_config()}, small{"h9_d192_32", small_model_config()};
  add<float>(v2_lite, {512, 2048}, 4096);
  add<bf16>(v2_lite, {512, 2048}, 4096);
  add<float>(small, {512}, 512);
  add<bf16>(small, {512}, 512);
  return true;
}();

}  // namespace
