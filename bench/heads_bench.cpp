// SPDX-License-Identifier: Apache-2.0

/// \file
/// Heads as switches: attention with modes and blends beside plain attention in turns, uniform
/// heads against copying as many bytes, differential attention and value residuals against the
/// machine; and all against torch.
///
/// `of_attend` is the time over that of `attend` on the same tensors, below 1 is faster.

#include "attention_data.hpp"
#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/attention/attend.hpp>
#include <pare/attention/differential.hpp>
#include <pare/attention/heads/head_modes.hpp>
#include <pare/attention/heads/soft_identity.hpp>
#include <pare/attention/value_residual.hpp>
#include <pare/core/aligned_buffer.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;
using pare::attention::attend;
using pare::attention::HeadMode;
using pare::attention::HeadModes;
using pare::attention::SoftIdentity;

constexpr Index heads = 8;
const double largest_value = std::sqrt(3.0);

std::string threads_suffix(int threads) { return threads == 1 ? "/t1" : ""; }

/// Median seconds of two works that run in turns, `own` in the timed loop.
template <class Own, class Other>
std::pair<double, double> time_in_turns(benchmark::State& state, LimitProbe& probe, const Own& own,
                                        const Other& other) {
  std::vector<double> times, others;
  probe.sample();
  for (auto _ : state) {
    others.push_back(seconds(other));
    times.push_back(seconds(own));
    state.SetIterationTime(times.back());
  }
  probe.sample();
  return {median(std::move(times)), median(std::move(others))};
}

struct HeadsWork {
  explicit HeadsWork(const AttentionShape& shape) : data(shape) {}

  template <class... Policy>
  void run(int threads, const Policy&... policy) {
    attend(pare::simd.threads(threads).with(workspace), data.q(), data.k(), data.v(), data.out(),
           policy..., {.causal = true});
  }

  AttentionData<float> data;
  pare::Workspace workspace;
};

HeadsWork& heads_work(const AttentionShape& s) {
  return workload<HeadsWork>("heads q" + std::to_string(s.queries) + " n" + std::to_string(s.keys) +
                                 " d" + std::to_string(s.dim),
                             [&] { return HeadsWork(s); });
}

double peer(const std::string& what, int threads, const AttentionShape& s) {
  return python_peer_seconds("heads_torch.py",
                             {what, std::to_string(threads), std::to_string(s.heads),
                              std::to_string(s.keys), std::to_string(s.dim)});
}

// ---------------------------------------------------------------- modes that are all normal

void normal_modes(benchmark::State& state, const AttentionShape& s, int threads) {
  HeadsWork& work = heads_work(s);
  const std::vector<HeadMode> modes(static_cast<std::size_t>(s.heads), HeadMode::Normal);
  work.run(threads, HeadModes{modes});
  if (!(worst_error(work.data.q(), work.data.k(), work.data.v(), work.data.out(), every_key) <=
        attention_tolerance<float>(largest_value)))
    return state.SkipWithError("result differs from the definition");
  LimitProbe none(1, {});
  const auto [own, plain] = time_in_turns(
      state, none, [&] { work.run(threads, HeadModes{modes}); }, [&] { work.run(threads); });
  state.counters["of_attend"] = own / plain;
  set_threads(state, threads);
}

// ---------------------------------------------------------------- uniform heads

/// `seen`: values that the last row has the mean of.
bool means_are_right(const AttentionData<float>& data, Index seen) {
  const auto v = data.v();
  const auto out = data.out();
  const Index last = v.extent[2] - 1;
  for (const Index h : {Index{0}, v.extent[1] - 1})
    for (Index c = 0; c < v.extent[3]; ++c) {
      double sum = 0;
      for (Index j = last + 1 - seen; j <= last; ++j) sum += static_cast<double>(v(0, h, j, c));
      const double mean = sum / static_cast<double>(seen);
      if (!(std::abs(static_cast<double>(out(0, h, out.extent[2] - 1, c)) - mean) < 1e-6))
        return false;
    }
  return true;
}

void uniform_modes(benchmark::State& state, const AttentionShape& s, int threads) {
  HeadsWork& work = heads_work(s);
  const std::vector<HeadMode> modes(static_cast<std::size_t>(s.heads), HeadMode::Uniform);
  work.run(threads, HeadModes{modes});
  if (!means_are_right(work.data, s.keys))
    return state.SkipWithError("result differs from the mean");
  const double bytes =
      static_cast<double>(s.dim * (s.kv_heads * s.keys + s.heads * s.queries)) * sizeof(float);
  LimitProbe probe(threads, {{Limit::copy, bytes}});
  const double own =
      time_between_probes(state, probe, [&] { work.run(threads, HeadModes{modes}); });
  set_of_limit(state, probe.seconds(), own);
  if (s.queries == s.keys) set_vs(state, "torch", peer("uniform", threads, s), own);
  state.counters["GB/s"] = bytes / own * 1e-9;
  set_threads(state, threads);
}

/// Each value is read again when it leaves, from cache: the limit counts it once.
void uniform_window(benchmark::State& state, const AttentionShape& s, int threads) {
  constexpr Index window = 1024;
  HeadsWork& work = heads_work(s);
  const std::vector<HeadMode> modes(static_cast<std::size_t>(s.heads), HeadMode::Uniform);
  const auto run = [&] {
    attend(pare::simd.threads(threads).with(work.workspace), work.data.q(), work.data.k(),
           work.data.v(), work.data.out(), HeadModes{modes}, {.causal = true, .window = window});
  };
  run();
  if (!means_are_right(work.data, window))
    return state.SkipWithError("result differs from the mean");
  const double bytes =
      static_cast<double>(s.dim * (s.kv_heads * s.keys + s.heads * s.queries)) * sizeof(float);
  LimitProbe probe(threads, {{Limit::copy, bytes}});
  const double own = time_between_probes(state, probe, run);
  set_of_limit(state, probe.seconds(), own);
  state.counters["GB/s"] = bytes / own * 1e-9;
  set_threads(state, threads);
}

// ---------------------------------------------------------------- blends with the own value

void soft_identity(benchmark::State& state, const AttentionShape& s, int threads) {
  HeadsWork& work = heads_work(s);
  const std::vector<float> all(static_cast<std::size_t>(s.heads), 1.0f), half(all.size(), 0.5f);
  work.run(threads, SoftIdentity{all});
  if (work.data.out()(0, 1, s.queries / 2, 3) !=
      work.data.v()(0, 1, s.queries / 2 + s.keys - s.queries, 3))
    return state.SkipWithError("a share of 1 is not the value");
  LimitProbe none(1, {});
  const auto [own, plain] = time_in_turns(
      state, none, [&] { work.run(threads, SoftIdentity{half}); }, [&] { work.run(threads); });
  state.counters["of_attend"] = own / plain;
  if (s.queries == s.keys) set_vs(state, "torch", peer("soft_identity", threads, s), own);
  set_threads(state, threads);
}

// ---------------------------------------------------------------- differential attention

constexpr double lambda = 0.5, lambda_init = 0.8;

/// Two maps of key dim d over values of dim 2 d, and one map of both 2 d.
struct DifferentialWork {
  explicit DifferentialWork(const AttentionShape& s)
      : first(s, 1), second(s, 11), wide({s.heads, s.kv_heads, s.queries, s.keys, 2 * s.dim}, 21) {}

  void run(int threads) {
    pare::attention::differential(pare::simd.threads(threads).with(workspace), first.q(), first.k(),
                                  second.q(), second.k(), wide.v(), wide.out(),
                                  {.lambda = lambda, .lambda_init = lambda_init});
  }
  void run_one_map(int threads) {
    attend(pare::simd.threads(threads).with(workspace), wide.q(), wide.k(), wide.v(), wide.out());
  }

  /// The last row of every head, which sees all keys, against the definition.
  bool is_right() {
    run(1);
    const Index last = first.shape().queries - 1, columns = wide.shape().dim;
    double worst = 0;
    for (Index h = 0; h < first.shape().heads; ++h) {
      const Eigen::VectorXd row =
          attention_row(first.q(), first.k(), wide.v(), h, last, every_of_head) -
          lambda * attention_row(second.q(), second.k(), wide.v(), h, last, every_of_head);
      const double root = std::sqrt(row.squaredNorm() / static_cast<double>(columns) + 1e-5);
      for (Index c = 0; c < columns; ++c)
        worst = std::max(worst, std::abs(static_cast<double>(wide.out()(0, h, last, c)) -
                                         row(c) / root * (1 - lambda_init)));
    }
    return worst <= 1e-4;
  }

  static constexpr auto every_of_head = [](Index) { return true; };

  AttentionData<float> first, second, wide;
  pare::Workspace workspace;
};

// What two maps cost: 2 d for the scores and 4 d for the values of each, for each pair. A form that
// stores all scores of a row could do with two thirds of it.
void differential_rows(benchmark::State& state, const AttentionShape& s, int threads) {
  DifferentialWork& work =
      workload<DifferentialWork>("differential q" + std::to_string(s.queries) + " n" +
                                     std::to_string(s.keys) + " d" + std::to_string(s.dim),
                                 [&] { return DifferentialWork(s); });
  if (!work.is_right()) return state.SkipWithError("result differs from the definition");
  const double flops = 12.0 * static_cast<double>(s.heads * s.dim) *
                       static_cast<double>(s.queries) * static_cast<double>(s.keys);
  const double bytes = 4.0 * static_cast<double>(s.kv_heads * s.keys * s.dim) * sizeof(float);
  LimitProbe probe(threads, {{Limit::fma_f32, flops}, {Limit::dram_read, bytes}});
  const auto [own, one_map] =
      time_in_turns(state, probe, [&] { work.run(threads); }, [&] { work.run_one_map(threads); });
  set_of_limit(state, probe.seconds(), own);
  state.counters["of_attend"] = own / one_map;
  if (s.queries == s.keys) set_vs(state, "torch", peer("differential", threads, s), own);
  state.counters["GFLOP/s"] = flops / own * 1e-9;
  set_threads(state, threads);
}

// ---------------------------------------------------------------- value residual

struct ResidualShape {
  Index tokens, kv_heads, dim, model_dim;
};

/// Values and outputs [1, tokens, kv heads, dim] in memory, as a layer's product writes them.
struct ResidualWork {
  explicit ResidualWork(const ResidualShape& s)
      : shape(s),
        hidden(uniform_matrix(s.tokens, s.model_dim, 1)),
        weights(uniform_matrix(s.kv_heads, s.model_dim, 2) /
                std::sqrt(static_cast<float>(s.model_dim))),
        v(uniform_matrix(s.tokens, s.kv_heads * s.dim, 3)),
        first(uniform_matrix(s.tokens, s.kv_heads * s.dim, 4)),
        out(static_cast<std::size_t>(v.size())) {
    std::fill_n(out.data(), v.size(), 0.0f);
  }

  template <class T>
  pare::TensorView<T, 4> rows(T* data) const {
    const Index all = shape.kv_heads * shape.dim;
    return {data,
            {1, shape.kv_heads, shape.tokens, shape.dim},
            {shape.tokens * all, shape.dim, all, 1}};
  }
  void run(int threads) {
    const pare::TensorView<const float, 3> x{
        hidden.data(), {1, shape.tokens, shape.model_dim}, {hidden.size(), shape.model_dim, 1}};
    pare::attention::value_residual(pare::simd.threads(threads).with(workspace), x, weights,
                                    rows<const float>(v.data()), rows<const float>(first.data()),
                                    rows(out.data()));
  }
  bool is_right() {
    run(1);
    double worst = 0;
    for (const Index t : {Index{0}, shape.tokens / 2, shape.tokens - 1})
      for (Index h = 0; h < shape.kv_heads; ++h) {
        const double z = hidden.row(t).cast<double>().dot(weights.row(h).cast<double>());
        for (Index c = h * shape.dim; c < (h + 1) * shape.dim; ++c)
          worst = std::max(
              worst, std::abs(static_cast<double>(v(t, c)) +
                              std::max(z, 0.0) * static_cast<double>(first(t, c)) -
                              static_cast<double>(
                                  rows(out.data()).data[t * shape.kv_heads * shape.dim + c])));
      }
    return worst <= 1e-5;
  }

  ResidualShape shape;
  RowMatrix hidden, weights, v, first;
  pare::AlignedBuffer<float> out;
  pare::Workspace workspace;
};

void residual_rows(benchmark::State& state, const ResidualShape& s, int threads) {
  ResidualWork& work = workload<ResidualWork>(
      "value residual t" + std::to_string(s.tokens) + " m" + std::to_string(s.model_dim),
      [&] { return ResidualWork(s); });
  if (!work.is_right()) return state.SkipWithError("result differs from the definition");
  const auto values = static_cast<double>(s.tokens * s.kv_heads * s.dim) * sizeof(float);
  const double read = static_cast<double>(s.tokens * s.model_dim) * sizeof(float) + 2 * values;
  LimitProbe probe(
      threads, {{Limit::dram_read, read},
                {Limit::copy, read + values},
                {Limit::fma_f32, 2.0 * static_cast<double>(s.tokens * s.kv_heads * s.model_dim)}});
  const double own = time_between_probes(state, probe, [&] { work.run(threads); });
  set_of_limit(state, probe.seconds(), own);
  set_vs(
      state, "torch",
      python_peer_seconds("heads_torch.py", {"value_residual", std::to_string(threads),
                                             std::to_string(s.kv_heads), std::to_string(s.tokens),
                                             std::to_string(s.dim), std::to_string(s.model_dim)}),
      own);
  state.counters["GB/s"] = (read + values) / own * 1e-9;
  set_threads(state, threads);
}

const bool registered = [] {
  const auto add = [](const std::string& name, auto function, auto s, int calls) {
    for (const int threads : {1, all_threads()}) {
      large(benchmark::RegisterBenchmark(
                ("heads/" + name + threads_suffix(threads)).c_str(),
                [=](benchmark::State& state) { function(state, s, threads); }),
            calls);
      if (all_threads() == 1) break;
    }
  };
  const auto whole = [](Index tokens, Index dim) {
    return AttentionShape::prefill(heads, tokens, dim);
  };
  const AttentionShape one_row{heads, heads, 1, 8192, 64};
  add("modes/normal/d64/n4096", normal_modes, whole(4096, 64), 3);
  add("modes/normal/d64/n100", normal_modes, whole(100, 64), 200);
  add("modes/normal/d64/q1_n8192", normal_modes, one_row, 50);
  add("modes/uniform/d64/n16384", uniform_modes, whole(16384, 64), 20);
  add("modes/uniform/d128/n16384", uniform_modes, whole(16384, 128), 10);
  add("modes/uniform/d64/n16384/w1024", uniform_window, whole(16384, 64), 10);
  add("modes/uniform/d64/n100", uniform_modes, whole(100, 64), 500);
  add("modes/uniform/d64/q1_n8192", uniform_modes, one_row, 50);
  add("soft_identity/d64/n4096", soft_identity, whole(4096, 64), 3);
  add("soft_identity/d64/n100", soft_identity, whole(100, 64), 200);
  add("soft_identity/d64/q1_n8192", soft_identity, one_row, 50);
  add("differential/d64", differential_rows, whole(2048, 64), 3);
  add("differential/d128", differential_rows, whole(2048, 128), 2);
  add("differential/d64/n100", differential_rows, whole(100, 64), 100);
  add("differential/d64/q1_n8192", differential_rows, one_row, 20);
  add("value_residual/m4096/n4096", residual_rows, ResidualShape{4096, 8, 128, 4096}, 10);
  add("value_residual/m576/n512", residual_rows, ResidualShape{512, 3, 64, 576}, 200);
  add("value_residual/m4096/n1", residual_rows, ResidualShape{1, 8, 128, 4096}, 500);
  return true;
}();

}  // namespace
