// SPDX-License-Identifier: Apache-2.0

/// \file
/// Linear recurrences: the scan of a prompt, of one token and of models with decays for each state,
/// a dense transition, and heads made of a state-space model.
///
/// `of_limit` is of what takes longest of the work that no form can do without: of a scan two
/// multiply-adds for each token, state and value, its inputs read and outputs written, and the
/// state moved once. The recurrence itself has a product more; `of_recurrence` is the share of the
/// multiplier's peak that its three operations are. `of_read` is what is read, per dram_read.

#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/aligned_buffer.hpp>
#include <pare/sequence/dense_scan.hpp>
#include <pare/sequence/heads_of_ssm.hpp>
#include <pare/sequence/scan.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::sequence;
using pare::bf16;
using pare::Index;

template <class S>
std::string scalar_name() {
  return std::is_same_v<S, bf16> ? "bf16" : "f32";
}

double torch_seconds(const std::string& work, const std::string& ways, const std::string& scalar,
                     int threads, std::initializer_list<Index> sizes) {
  std::vector<std::string> arguments{work, ways, scalar, std::to_string(threads)};
  for (const Index size : sizes) arguments.push_back(std::to_string(size));
  return python_peer_seconds("sequence_torch.py", arguments);
}

template <class S>
struct Numbers {
  Numbers(Index count, double low, double high, std::uint64_t seed)
      : size(count), data(memory.resize(static_cast<std::size_t>(count))) {
    SplitMix64 random(seed);
    for (Index i = 0; i < size; ++i)
      data[i] = static_cast<S>(static_cast<float>(low + (high - low) * random.unit()));
  }
  pare::TensorView<S, 4> tensor(std::array<Index, 4> e) const {
    return {data, e, {e[1] * e[2] * e[3], e[2] * e[3], e[3], 1}};
  }
  double bytes() const { return static_cast<double>(size) * sizeof(S); }

  pare::AlignedBuffer<S> memory;
  Index size;
  S* data;
};

struct ScanShape {
  const char* name;
  Index batch, tokens, heads, groups, states, dim;
  bool per_state;

  Index values() const { return batch * tokens * heads * dim; }
  Index decays() const { return batch * tokens * heads * (per_state ? states : 1); }
  Index keys() const { return batch * tokens * groups * states; }
  Index kept() const { return batch * heads * states * dim; }
};

/// S are the tokens, H the state.
template <class S, class H>
struct ScanData {
  explicit ScanData(const ScanShape& s)
      : shape(s),
        x(s.values(), -1, 1, 1),
        b(s.keys(), -1, 1, 2),
        c(s.keys(), -1, 1, 3),
        y(s.values(), 0, 0, 4),
        a(s.decays(), 0.5, 1, 5),
        state(s.kept(), -1, 1, 6) {}

  template <class B>
  void run(const B& backend) {
    scan(backend, x.tensor({shape.batch, shape.tokens, shape.heads, shape.dim}),
         a.tensor({shape.batch, shape.tokens, shape.heads, shape.per_state ? shape.states : 1}),
         b.tensor({shape.batch, shape.tokens, shape.groups, shape.states}),
         c.tensor({shape.batch, shape.tokens, shape.groups, shape.states}),
         state.tensor({shape.batch, shape.heads, shape.states, shape.dim}),
         y.tensor({shape.batch, shape.tokens, shape.heads, shape.dim}));
  }

  /// One value by the formula in double: the last of the last head.
  bool is_right() {
    const Index i = shape.batch - 1, g = shape.heads - 1, p = shape.dim - 1,
                group = shape.groups - 1;
    std::vector<double> h;
    const auto at = [](const auto& list, Index k) {
      return static_cast<double>(static_cast<float>(list.data[k]));
    };
    for (Index n = 0; n < shape.states; ++n)
      h.push_back(at(state, ((i * shape.heads + g) * shape.states + n) * shape.dim + p));
    double last = 0, size = 0;
    for (Index t = 0; t < shape.tokens; ++t) {
      last = size = 0;
      for (Index n = 0; n < shape.states; ++n) {
        const Index token = i * shape.tokens + t;
        const Index key = (token * shape.groups + group) * shape.states + n;
        double& kept = h[static_cast<std::size_t>(n)];
        kept = at(a, (token * shape.heads + g) * (shape.per_state ? shape.states : 1) +
                         (shape.per_state ? n : 0)) *
                   kept +
               at(b, key) * at(x, (token * shape.heads + g) * shape.dim + p);
        last += at(c, key) * kept;
        size += std::abs(at(c, key) * kept);
      }
    }
    run(pare::simd);
    const double u = std::is_same_v<S, bf16> ? 0x1p-7 : 0x1p-18;
    return std::abs(at(y, y.size - 1) - last) <= u * (size + 1);
  }

  ScanShape shape;
  Numbers<S> x, b, c, y;
  Numbers<float> a;
  Numbers<H> state;
  pare::Workspace workspace;
};

template <class S, class H>
void run_scan(benchmark::State& state, const ScanShape& shape, int threads) {
  auto& data = workload<ScanData<S, H>>(
      std::string("scan ") + shape.name + scalar_name<S>() + scalar_name<H>(),
      [&] { return ScanData<S, H>(shape); });
  if (!data.is_right()) return state.SkipWithError("result differs from the formula");
  const double pairs = static_cast<double>(shape.values()) * static_cast<double>(shape.states);
  const int calls = static_cast<int>(std::max(1.0, 4e7 / pairs));
  const double read = data.x.bytes() + data.a.bytes() + 2 * data.b.bytes() + data.state.bytes();
  const double moved = read + data.y.bytes() + data.state.bytes();
  // What is read again within a row of calls is in a cache, which binds no one here.
  const bool far = moved > (40 << 20);
  std::vector<Demand> demands{{Limit::fma_f32, 4 * pairs * calls}};
  if (far && shape.per_state && shape.dim == 1)
    demands.push_back({Limit::dram_read, read * calls});
  else if (far)
    demands.push_back({Limit::copy, moved * calls});
  else
    demands.push_back({Limit::l2_read, read * calls});
  LimitProbe probe(threads, demands);
  const double own = time_calls(state, probe, data, threads, calls);
  set_of_limit(state, probe.seconds(), own);
  state.counters["of_recurrence"] = 6 * pairs * calls / cached(Limit::fma_f32, threads) / own;
  if (far) state.counters["of_read"] = read * calls / cached(Limit::dram_read, threads) / own;
  const auto torch = [&](const char* ways) {
    return torch_seconds("scan", ways, scalar_name<S>(), threads,
                         {shape.batch, shape.tokens, shape.heads, shape.groups, shape.states,
                          shape.dim, shape.per_state ? 1 : 0}) *
           calls;
  };
  set_vs(state, "torch_loop", torch("loop"), own);
  if (!shape.per_state && shape.tokens % 64 == 0)
    set_vs(state, "torch_chunks", torch("products"), own);
  state.counters["us_a_call"] = own / calls * 1e6;
  set_threads(state, threads);
}

/// A model whose rows of |A| add up to 0.9.
struct DenseData {
  DenseData(Index batch, Index tokens, Index states, Index in, Index out)
      : a(uniform_matrix(states, states, 1)),
        b(uniform_matrix(states, in, 2)),
        c(uniform_matrix(out, states, 3)),
        x(uniform_matrix(batch * tokens, in, 4)),
        y(RowMatrix::Zero(batch * tokens, out)),
        state(RowMatrix::Zero(batch, states)) {
    for (Index n = 0; n < states; ++n) a.row(n) *= 0.9f / a.row(n).cwiseAbs().sum();
  }
  template <class B>
  void run(const B& backend) {
    const Index batch = state.rows(), tokens = x.rows() / batch;
    state.setZero();
    dense_scan(backend, a, b, c,
               pare::TensorView<const float, 3>{
                   x.data(), {batch, tokens, x.cols()}, {tokens * x.cols(), x.cols(), 1}},
               state,
               pare::TensorView<float, 3>{
                   y.data(), {batch, tokens, y.cols()}, {tokens * y.cols(), y.cols(), 1}});
  }
  /// The last token of the first sequence.
  bool is_right() {
    run(pare::simd);
    Eigen::VectorXd h = Eigen::VectorXd::Zero(a.rows());
    const Eigen::MatrixXd wide = a.cast<double>(), in = b.cast<double>();
    const Index tokens = x.rows() / state.rows();
    for (Index t = 0; t < tokens; ++t) h = wide * h + in * x.row(t).transpose().cast<double>();
    const Eigen::VectorXd wanted = c.cast<double>() * h;
    return (y.row(tokens - 1).transpose().cast<double>() - wanted).norm() <
           1e-4 * (1 + wanted.norm());
  }

  RowMatrix a, b, c, x, y, state;
  pare::Workspace workspace;
};

void run_dense(benchmark::State& state, Index batch, Index tokens, Index states, int threads) {
  auto& data =
      workload<DenseData>("dense " + std::to_string(batch) + "x" + std::to_string(tokens) + "x" +
                              std::to_string(states),
                          [&] { return DenseData(batch, tokens, states, states, states); });
  if (!data.is_right()) return state.SkipWithError("result differs from the recurrence");
  const double macs =
      static_cast<double>(batch * tokens) * 3.0 * static_cast<double>(states * states);
  const int calls = static_cast<int>(std::max(1.0, 4e7 / macs));
  LimitProbe probe(threads, {{Limit::fma_f32, 2 * macs * calls}});
  const double own = time_calls(state, probe, data, threads, calls);
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "torch_loop",
         torch_seconds("dense", "loop", "f32", threads, {batch, tokens, states, states, states}) *
             calls,
         own);
  state.counters["us_a_call"] = own / calls * 1e6;
  set_threads(state, threads);
}

struct HeadsData {
  HeadsData(Index tokens, Index heads, Index dim)
      : of{uniform_matrix(tokens, heads, 1), uniform_matrix(heads, dim * dim, 2), dim, dim},
        x(uniform_matrix(tokens, dim, 3)),
        y(RowMatrix::Zero(tokens, dim)) {}
  template <class B>
  void run(const B& backend) {
    apply_heads(
        backend, of,
        pare::TensorView<const float, 3>{x.data(), {1, x.rows(), x.cols()}, {0, x.cols(), 1}},
        pare::TensorView<float, 3>{y.data(), {1, y.rows(), y.cols()}, {0, y.cols(), 1}});
  }
  /// The last token by a sum over all.
  bool is_right() {
    run(pare::simd);
    const Index dim = x.cols(), last = x.rows() - 1;
    Eigen::VectorXd wanted = Eigen::VectorXd::Zero(dim), size = wanted;
    for (Index h = 0; h < of.heads(); ++h) {
      const Eigen::MatrixXd map =
          Eigen::Map<const RowMatrix>(of.values.data() + h * dim * dim, dim, dim).cast<double>();
      for (Index j = 0; j <= last; ++j) {
        const Eigen::VectorXd term =
            of.weights(last - j, h) * (map * x.row(j).transpose().cast<double>());
        wanted += term;
        size += term.cwiseAbs();
      }
    }
    return ((y.row(last).transpose().cast<double>() - wanted).cwiseAbs().array() <=
            1e-4 * size.array())
        .all();
  }

  ToeplitzHeads<float> of;
  RowMatrix x, y;
  pare::Workspace workspace;
};

void run_heads(benchmark::State& state, Index tokens, Index heads, Index dim, int threads) {
  auto& data = workload<HeadsData>("heads " + std::to_string(tokens) + "x" + std::to_string(heads),
                                   [&] { return HeadsData(tokens, heads, dim); });
  if (!data.is_right()) return state.SkipWithError("result differs from the definition");
  const auto n = static_cast<double>(tokens);
  const double macs =
      static_cast<double>(heads * dim) * (n * static_cast<double>(dim) + n * (n + 1) / 2);
  const int calls = static_cast<int>(std::max(1.0, 4e7 / macs));
  LimitProbe probe(threads, {{Limit::fma_f32, 2 * macs * calls}});
  const double own = time_calls(state, probe, data, threads, calls);
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "torch",
         torch_seconds("heads", "products", "f32", threads, {tokens, heads, dim, dim}) * calls,
         own);
  state.counters["us_a_call"] = own / calls * 1e6;
  set_threads(state, threads);
}

template <class Run>
void add(const std::string& name, int threads, const Run& run) {
  large(benchmark::RegisterBenchmark(
            (name + (threads == 1 ? "/t1" : "")).c_str(),
            [run, threads](benchmark::State& state) { run(state, threads); }),
        5);
}

template <class S, class H>
void add_scan(const ScanShape& shape, int threads) {
  add(std::string("sequence/scan/") + shape.name, threads,
      [shape](benchmark::State& state, int team) { run_scan<S, H>(state, shape, team); });
}

const bool registered = [] {
  for (const int threads : {1, all_threads()}) {
    // Mamba-2 of 130M parameters has 24 heads of 64 and 128 states that all heads share.
    add_scan<float, float>({"prompt/n64", 1, 1024, 24, 1, 64, 64, false}, threads);
    add_scan<bf16, float>({"prompt/bf16/n128", 1, 1024, 24, 1, 128, 64, false}, threads);
    // Gated linear attention: keys of its own for each head, a decay for each of their elements.
    add_scan<float, float>({"prompt/gated/n64", 1, 512, 24, 24, 64, 64, true}, threads);
    add_scan<float, float>({"one_token/n64/batch256", 256, 1, 24, 1, 64, 64, false}, threads);
    add_scan<bf16, bf16>({"one_token/bf16/n64/batch256", 256, 1, 24, 1, 64, 64, false}, threads);
    add_scan<float, float>({"one_token/n64/batch1", 1, 1, 24, 1, 64, 64, false}, threads);
    // Mamba: channels of one value, decays for each state.
    add_scan<float, float>({"channels/n64", 1, 512, 1536, 1, 64, 1, true}, threads);
    add_scan<float, float>({"channels/n16", 1, 1024, 1536, 1, 16, 1, true}, threads);
    add_scan<float, float>({"odd/n19", 2, 77, 3, 3, 19, 37, true}, threads);
    add("sequence/scan/dense/n64", threads,
        [](benchmark::State& state, int team) { run_dense(state, 1, 4096, 64, team); });
    add("sequence/scan/dense/n16/batch64", threads,
        [](benchmark::State& state, int team) { run_dense(state, 64, 256, 16, team); });
    add("sequence/heads/k8/n2048", threads,
        [](benchmark::State& state, int team) { run_heads(state, 2048, 8, 64, team); });
    add("sequence/heads/k4/n100", threads,
        [](benchmark::State& state, int team) { run_heads(state, 100, 4, 64, team); });
    if (all_threads() == 1) break;
  }
  return true;
}();
}  // namespace
