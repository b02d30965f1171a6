// SPDX-License-Identifier: Apache-2.0

/// \file
/// A step of learnable permutation scoring (LeAP): the permuted mix of a batch and its gradients,
/// bound by the bytes that pass through memory.

#include "counters.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/parallel.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/fields/field_batch.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/leap/divergence.hpp>
#include <pare/feature/leap/mix.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;
using pare::feature::DonorPolicy;
using pare::feature::Donors;
using pare::feature::FieldBatch;
using pare::feature::FieldLayout;
using pare::feature::MixGradients;
using pare::feature::Storage;

constexpr std::uint64_t seed = 7;

/// In huge pages where the system gives them, as what measures the limit.
using Buffer = pare::AlignedBuffer<float>;

/// A batch of scalar columns, and what a model would send back for it, which the gradient by x
/// takes the place of.
struct DenseStep {
  DenseStep(Index batch, Index columns, Storage order, DonorPolicy choice)
      : rows(batch),
        layout(FieldLayout::scalars(columns)),
        storage(order),
        policy(choice),
        x(size()),
        mixed(size()),
        gradient(size()),
        gates(static_cast<std::size_t>(columns)) {
    SplitMix64 random(3);
    for (std::size_t i = 0; i < size(); ++i) {
      x.data()[i] = static_cast<float>(random.unit()) - 0.5f;
      gradient.data()[i] = static_cast<float>(random.unit()) - 0.5f;
    }
    std::fill_n(mixed.data(), size(), 0.0f);
    // Near 1, so that a gradient that passes them many times stays a normal number.
    for (double& gate : gates) gate = 0.95 + 0.05 * random.unit();
  }

  std::size_t size() const { return static_cast<std::size_t>(rows * layout.dim()); }

  FieldBatch<float> batch(Buffer& m) const {
    const Index stride = storage == Storage::RowMajor ? layout.dim() : 0;
    return {m.data(), rows, &layout, storage, stride};
  }

  void run(int threads) {
    const auto backend = pare::simd.threads(threads).with(workspace);
    const Donors donors(policy, seed, step++, rows, layout);
    pare::feature::mix_forward(backend, batch(x), gates, donors, batch(mixed));
    pare::feature::mix_backward(backend, batch(x), gates, donors, batch(gradient), batch(gradient),
                                gradients);
  }

  /// A step, of which some fields are compared with the definition.
  bool is_right(int threads) {
    std::vector<float> before;
    for_checked([&](Index j, Index b) { before.push_back(batch(gradient).block(j)(b, 0)); });
    run(threads);
    const Donors donors(policy, seed, step - 1, rows, layout);
    std::vector<double> slopes(gates.size()), sizes(gates.size());
    bool right = true;
    auto next = before.begin();
    for_checked([&](Index j, Index b) {
      const auto field = static_cast<std::size_t>(j);
      const double gate = gates[field], up = *next++;
      const double here = batch(x).block(j)(b, 0), there = batch(x).block(j)(donors.donor(j, b), 0);
      right &= std::abs(batch(mixed).block(j)(b, 0) - (gate * here + (1 - gate) * there)) < 1e-6;
      right &= std::abs(batch(gradient).block(j)(b, 0) - gate * up) < 1e-6;
      slopes[field] += (here - there) * up;
      sizes[field] += std::abs((here - there) * up);
    });
    for (std::size_t j = 0; j < gates.size(); ++j)
      right &= sizes[j] == 0 || std::abs(gradients.gates[j] - slopes[j]) < 1e-5 * sizes[j];
    return right;
  }

  template <class F>
  void for_checked(const F& f) const {
    for (Index j = 0; j < layout.fields(); j += 997)
      for (Index b = 0; b < rows; ++b) f(j, b);
  }

  Index rows;
  FieldLayout layout;
  Storage storage;
  DonorPolicy policy;
  Buffer x, mixed, gradient;
  std::vector<double> gates;
  MixGradients gradients;
  pare::Workspace workspace;
  std::uint64_t step = 0;
};

DenseStep& dense_step(Index rows, Index columns, Storage storage, DonorPolicy policy) {
  const std::string name = "leap step " + std::to_string(rows) + "x" + std::to_string(columns) +
                           (storage == Storage::RowMajor ? " by rows" : "") +
                           std::to_string(static_cast<int>(policy));
  return workload<DenseStep>(name, [&] { return DenseStep(rows, columns, storage, policy); });
}

/// The step as Eigen's users would write it, a column at a time, on as many threads.
class EigenStep {
 public:
  explicit EigenStep(const DenseStep& step) : step_(step) {
    for (auto* copy : {&x_, &mixed_, &gradient_}) copy->resize(step.size());
    std::copy_n(step.x.data(), step.size(), x_.data());
    std::copy_n(step.gradient.data(), step.size(), gradient_.data());
    std::fill_n(mixed_.data(), step.size(), 0.0f);
    slopes_.resize(step.gates.size());
  }

  void run(int threads) {
    const Donors donors(step_.policy, seed, 0, step_.rows, step_.layout);
    const auto all = pare::simd.threads(threads);
    const auto for_columns = [&](const auto& f) {
      pare::parallel_for(all.executor, step_.layout.fields(), [&](Index j, int) { f(j); });
    };
    if (donors.cyclic()) {
      for_columns([&](Index j) { forward_shifted(j, donors.shift(j)); });
      for_columns([&](Index j) { backward_shifted(j, donors.shift(j)); });
    } else {
      for_columns([&](Index j) { forward_gathered(j, donors); });
      for_columns([&](Index j) { backward_gathered(j, donors); });
    }
  }

 private:
  using Contiguous = Eigen::Map<Eigen::ArrayXf>;
  using Strided = Eigen::Map<Eigen::ArrayXf, 0, Eigen::InnerStride<>>;

  float gate_of(Index j) const {
    return static_cast<float>(step_.gates[static_cast<std::size_t>(j)]);
  }
  Contiguous column(Buffer& m, Index j) const { return {m.data() + j * step_.rows, step_.rows}; }
  Strided column_of_rows(Buffer& m, Index j) const {
    return {m.data() + j, step_.rows, Eigen::InnerStride<>(step_.layout.dim())};
  }
  const std::vector<std::uint32_t>& order(const Donors& donors, Index j) const {
    thread_local std::vector<std::uint32_t> list;
    list.resize(static_cast<std::size_t>(step_.rows));
    donors.fill(j, list);
    return list;
  }

  void forward_shifted(Index j, Index shift) {
    const Contiguous x = column(x_, j);
    Contiguous mixed = column(mixed_, j);
    const float gate = gate_of(j);
    const Index n = step_.rows - shift;
    mixed.head(n) = gate * x.head(n) + (1 - gate) * x.tail(n);
    mixed.tail(shift) = gate * x.tail(shift) + (1 - gate) * x.head(shift);
  }
  void backward_shifted(Index j, Index shift) {
    const Contiguous x = column(x_, j);
    Contiguous g = column(gradient_, j);
    const Index n = step_.rows - shift;
    slopes_[static_cast<std::size_t>(j)] = ((x.head(n) - x.tail(n)) * g.head(n)).sum() +
                                           ((x.tail(shift) - x.head(shift)) * g.tail(shift)).sum();
    g *= gate_of(j);
  }
  void forward_gathered(Index j, const Donors& donors) {
    const Strided x = column_of_rows(x_, j);
    const float gate = gate_of(j);
    column_of_rows(mixed_, j) = gate * x + (1 - gate) * x(order(donors, j));
  }
  void backward_gathered(Index j, const Donors& donors) {
    const Strided x = column_of_rows(x_, j);
    Strided g = column_of_rows(gradient_, j);
    slopes_[static_cast<std::size_t>(j)] = ((x - x(order(donors, j))) * g).sum();
    g *= gate_of(j);
  }

  const DenseStep& step_;
  Buffer x_, mixed_, gradient_;
  std::vector<float> slopes_;
};

/// Once a process for each kind of step: it is slow where rows are contiguous.
double eigen_seconds(const DenseStep& step, int threads) {
  static std::map<std::tuple<Storage, DonorPolicy, int>, double> known;
  const auto [entry, is_new] = known.try_emplace({step.storage, step.policy, threads}, 0.0);
  if (is_new) {
    EigenStep eigen(step);
    eigen.run(threads);
    std::vector<double> times;
    for (int i = 0; i < 3; ++i) times.push_back(seconds([&] { eigen.run(threads); }));
    entry->second = median(std::move(times));
  }
  return entry->second;
}

/// The same step where each field is contiguous.
double blocked_seconds(Index rows, Index columns, DonorPolicy policy, int threads) {
  DenseStep& work = dense_step(rows, columns, Storage::FieldBlocked, policy);
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) times.push_back(seconds([&] { work.run(threads); }));
  return median(std::move(times));
}

// X and G are read, the mixed batch and the gradient by X written: what no step can do without. The
// gradients by the gates need X once more, which `of_traffic` counts.
void leap_step(benchmark::State& state, Storage storage, DonorPolicy policy, int threads) {
  constexpr Index rows = 4096, columns = 12000;
  DenseStep& work = dense_step(rows, columns, storage, policy);
  if (!work.is_right(threads)) return state.SkipWithError("result differs from the definition");
  constexpr double batch_bytes = 4.0 * rows * columns;
  LimitProbe probe(threads, {{Limit::copy, 4 * batch_bytes}});
  const double own = time_between_probes(state, probe, [&] { work.run(threads); });
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "eigen", eigen_seconds(work, threads), own);
  state.counters["of_traffic"] = 1.25 * probe.seconds() / own;
  if (storage == Storage::RowMajor)
    state.counters["over_blocked"] = own / blocked_seconds(rows, columns, policy, threads);
  state.counters["GB/s"] = 5 * batch_bytes / own * 1e-9;
  set_threads(state, threads);
}

void growth(benchmark::State& state, Index rows, Index columns) {
  DenseStep& work = dense_step(rows, columns, Storage::FieldBlocked, DonorPolicy::Shift);
  time_alone(state, [&] { work.run(all_threads()); });
  set_threads(state, all_threads());
}

const bool registered = [] {
  const auto add = [](const std::string& name, Storage storage, DonorPolicy policy, int threads) {
    large(benchmark::RegisterBenchmark(
              name.c_str(),
              [=](benchmark::State& state) { leap_step(state, storage, policy, threads); }),
          5);
  };
  const std::string size = "/4096x12000";
  add("feature/leap_step" + size, Storage::FieldBlocked, DonorPolicy::Shift, all_threads());
  add("feature/leap_step" + size + "/t1", Storage::FieldBlocked, DonorPolicy::Shift, 1);
  for (const int threads : {all_threads(), 1}) {
    const std::string end = size + (threads == 1 && all_threads() > 1 ? "/t1" : "");
    add("feature/leap_step_rowmajor" + end, Storage::RowMajor, DonorPolicy::Shift, threads);
    add("feature/leap_step_rowmajor_uniform" + end, Storage::RowMajor, DonorPolicy::Uniform,
        threads);
    if (all_threads() == 1) break;
  }
  const auto fit = [](const char* name, const auto& run) {
    auto* rows = benchmark::RegisterBenchmark(name, run)
                     ->UseManualTime()
                     ->Iterations(5)
                     ->Repetitions(3)
                     ->Unit(benchmark::kMillisecond)
                     ->Complexity(benchmark::oN);
    for (const std::int64_t n : {1500, 3000, 6000, 12000}) rows->Arg(n);
  };
  fit("feature/growth/leap_columns", [](benchmark::State& state) {
    growth(state, 4096, state.range(0));
    state.SetComplexityN(state.range(0));
  });
  fit("feature/growth/leap_rows", [](benchmark::State& state) {
    growth(state, state.range(0), 4096);
    state.SetComplexityN(state.range(0));
  });
  return true;
}();

}  // namespace
