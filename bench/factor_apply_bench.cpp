// SPDX-License-Identifier: Apache-2.0

/// \file
/// Two factors in place of a layer, from one token on, at the sizes of layers: against Eigen's
/// L (R x), on one thread, and torch's, and the larger of reading both factors from memory and
/// multiplying by them; factors that stay in a cache are read faster than that.

#include "counters.hpp"
#include "model_layers.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/factor/apply.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;

struct Layer {
  Index out, in, rank;
  std::string name() const { return std::to_string(out) + "x" + std::to_string(in); }
};

template <class S>
struct Factors {
  explicit Factors(const Layer& layer)
      : left(uniform_matrix(layer.out, layer.rank, 1)),
        right(uniform_matrix(layer.rank, layer.in, 2)),
        stored_left(left.template cast<S>()),
        stored_right(right.template cast<S>()) {
    left = stored_left.template cast<float>();
    right = stored_right.template cast<float>();
  }

  RowMatrix left, right;
  pare::RowMatrix<S> stored_left, stored_right;
};

template <class S>
const char* storage() {
  return std::is_same_v<S, float> ? "f32" : "bf16";
}

/// Tokens are rows of X: of the factors' scalar, as torch has them, or floats with factors of bf16,
/// whose products are then those of floats. The product in the middle is always float, and so are
/// the products with the left factor.
template <class S, class X>
void apply_factors(benchmark::State& state, const Layer& layer, Index tokens, int threads) {
  const Factors<S>& f =
      *workload<std::unique_ptr<Factors<S>>>(std::string("apply ") + storage<S>() + layer.name(),
                                             [&] { return std::make_unique<Factors<S>>(layer); });
  Eigen::setNbThreads(1);
  const pare::RowMatrix<X> stored_x = uniform_matrix(tokens, layer.in, 3).template cast<X>();
  const RowMatrix x = stored_x.template cast<float>();
  RowMatrix y(tokens, layer.out);
  const auto backend = pare::simd.threads(threads);
  pare::Workspace workspace;
  const auto run = [&] {
    pare::factor::apply(backend.with(workspace), f.stored_left, f.stored_right, stored_x, y);
  };
  run();
  const RowMatrix wanted = (x * f.right.transpose()) * f.left.transpose();
  if (!((y - wanted).norm() < 1e-5f * wanted.norm()))
    return state.SkipWithError("not the product of Eigen's");
  const auto numbers = static_cast<double>(layer.rank * (layer.in + layer.out));
  const double bytes = numbers * static_cast<double>(sizeof(S)),
               flops = 2 * static_cast<double>(layer.rank * tokens);
  constexpr bool pairs = std::is_same_v<S, pare::bf16> && std::is_same_v<X, pare::bf16>;
  LimitProbe probe(threads, {{Limit::dram_read, bytes}});
  LimitProbe first(
      threads, {{pairs ? Limit::dot_bf16 : Limit::fma_f32, flops * static_cast<double>(layer.in)}});
  LimitProbe second(threads, {{Limit::fma_f32, flops * static_cast<double>(layer.out)}});
  first.sample();
  second.sample();
  const double own = time_between_probes(state, probe, run);
  first.sample();
  second.sample();
  set_of_limit(state, std::max(probe.seconds(), first.seconds() + second.seconds()), own);
  if (std::is_same_v<S, float> && threads == 1) {
    RowMatrix middle(tokens, layer.rank), out(tokens, layer.out);
    set_vs(state, "eigen",
           peer_seconds("apply eigen " + layer.name() + std::to_string(tokens),
                        {{"L (R x)",
                          [&] {
                            middle.noalias() = x * f.right.transpose();
                            out.noalias() = middle * f.left.transpose();
                            benchmark::DoNotOptimize(out.data());
                          }}}),
           own);
  }
  if (std::is_same_v<S, X>)
    set_vs(
        state, "torch",
        python_peer_seconds("apply_torch.py", {storage<S>(), std::to_string(threads),
                                               std::to_string(layer.out), std::to_string(layer.in),
                                               std::to_string(layer.rank), std::to_string(tokens)}),
        own);
  set_threads(state, threads);
  set_model(state, layer.out, layer.in);
}

template <class S, class X = S>
void add(const Layer& layer) {
  for (const Index tokens : {1, 2, 4, 8, 16, 64, 512})
    for (const int threads : {1, all_threads()}) {
      const std::string name = std::string("factor/apply/") + storage<S>() +
                               (std::is_same_v<S, X> ? "/" : "_f32_rows/") + layer.name() +
                               "/rows_" + std::to_string(tokens) + (threads == 1 ? "/t1" : "");
      benchmark::RegisterBenchmark(
          name.c_str(),
          [=](benchmark::State& state) { apply_factors<S, X>(state, layer, tokens, threads); })
          ->UseManualTime()
          ->Iterations(tokens < 64 ? 200 : 20)
          ->Unit(benchmark::kMicrosecond);
      if (all_threads() == 1) break;
    }
}

const bool registered = [] {
  for (const Layer& layer : {Layer{384, 1536, 96}, Layer{768, 3072, 192}, Layer{4096, 4096, 512}}) {
    add<float>(layer);
    add<pare::bf16>(layer);
    add<pare::bf16, float>(layer);
  }
  return true;
}();

}  // namespace
