// SPDX-License-Identifier: Apache-2.0

/// \file
/// A step of learnable permutation scoring (LeAP) on fields that are at their default in 99% of the
/// rows, on sparse storage, beside the same step on the dense batch.

#include "counters.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/aligned_buffer.hpp>
#include <pare/feature/leap/mix.hpp>
#include <pare/feature/leap/mix_sparse.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::feature;
using pare::Index;

constexpr std::uint64_t seed = 7;

/// Scalars to embeddings of 64, 7.25 columns a field on average.
FieldLayout heterogeneous_layout(Index fields) {
  constexpr Index cycle[] = {1, 1, 8, 1, 2, 1, 64, 1, 4, 1, 16, 1, 2, 1, 8, 4};
  std::vector<Index> widths;
  for (Index j = 0; j < fields; ++j) widths.push_back(cycle[j % 16]);
  return FieldLayout(widths);
}

SparseFields<float> random_fields(const FieldLayout& layout, Index rows, double active) {
  SplitMix64 random(5);
  SparseFields<float> x(layout, rows);
  std::vector<std::vector<std::uint32_t>> entries;
  std::vector<Index> counts;
  for (Index j = 0; j < layout.fields(); ++j) {
    entries.emplace_back();
    for (Index b = 0; b < rows; ++b)
      if (random.unit() < active) entries.back().push_back(static_cast<std::uint32_t>(b));
    counts.push_back(static_cast<Index>(entries.back().size()));
  }
  x.reserve(counts);
  for (Index j = 0; j < layout.fields(); ++j) {
    x.set_rows(j, entries[static_cast<std::size_t>(j)]);
    const auto values = x.values(j);
    for (Index i = 0; i < values.rows() * values.cols(); ++i)
      values.data[i] = static_cast<float>(random.unit()) - 0.5f;
  }
  return x;
}

/// Gradients take the place of those by the mix, so that three dense batches are enough.
struct SparseStep {
  SparseStep(Index rows, Index fields, double active)
      : layout(heterogeneous_layout(fields)),
        x(random_fields(layout, rows, active)),
        gates(static_cast<std::size_t>(fields)) {
    SplitMix64 random(3);
    for (double& gate : gates) gate = 0.95 + 0.05 * random.unit();
    mix_forward(x, gates, donors(), mixed);
    gradient = mixed.fields();
    for (Index j = 0; j < fields; ++j) {
      const auto values = gradient.values(j);
      for (Index i = 0; i < values.rows() * values.cols(); ++i)
        values.data[i] = static_cast<float>(random.unit()) - 0.5f;
    }
  }

  Donors donors() const { return {DonorPolicy::Shift, seed, 0, x.rows(), layout}; }

  void run(int threads) {
    const auto backend = pare::simd.threads(threads);
    const Donors drawn = donors();
    mix_forward(backend, x, gates, drawn, mixed);
    mix_backward(backend, x, gates, drawn, mixed, gradient, grad_x, gradients);
  }

  /// Bytes of entries that the step reads and writes: values and row numbers.
  double bytes() const {
    double entries = 0;
    for (Index j = 0; j < layout.fields(); ++j)
      entries += static_cast<double>(layout.width(j)) *
                 static_cast<double>(3 * x.entries(j) + 2 * mixed.fields().entries(j));
    return 4 * entries;
  }

  FieldLayout layout;
  SparseFields<float> x, gradient, grad_x;
  SparseMix<float> mixed;
  std::vector<double> gates;
  MixGradients gradients;
};

/// The same batch with its defaults.
struct DenseCopy {
  explicit DenseCopy(const SparseStep& step) : layout(step.layout), rows(step.x.rows()) {
    for (auto* buffer : {&x, &mixed, &gradient})
      std::fill_n(buffer->resize(static_cast<std::size_t>(rows * layout.dim())),
                  rows * layout.dim(), 0.0f);
    to_dense(step.x, batch(x));
    write_entries(step.gradient, batch(gradient));
  }

  FieldBatch<float> batch(pare::AlignedBuffer<float>& buffer) const {
    return {buffer.data(), rows, &layout, Storage::FieldBlocked, 0};
  }

  void run(const SparseStep& step, int threads) {
    const auto backend = pare::simd.threads(threads).with(workspace);
    const Donors drawn = step.donors();
    mix_forward(backend, batch(x), step.gates, drawn, batch(mixed));
    mix_backward(backend, batch(x), step.gates, drawn, batch(gradient), batch(gradient), gradients);
  }

  FieldLayout layout;
  Index rows;
  pare::AlignedBuffer<float> x, mixed, gradient;
  MixGradients gradients;
  pare::Workspace workspace;
};

struct BothSteps {
  BothSteps(Index rows, Index fields, double active)
      : sparse(rows, fields, active), dense(sparse) {}

  /// Gradients by gates of both, while the dense batch still has the gradient by the mix.
  bool agree(int threads) {
    sparse.run(threads);
    dense.run(sparse, threads);
    for (Index j = 0; j < sparse.layout.fields(); ++j) {
      const auto i = static_cast<std::size_t>(j);
      const auto moved = static_cast<double>(sparse.layout.width(j) * sparse.gradient.entries(j));
      // Of displacements and gradients below 1 / 2, by Cauchy and Schwarz.
      const double size = std::sqrt(sparse.gradients.divergence.squared[i] *
                                    static_cast<double>(sparse.x.rows()) * moved);
      if (std::abs(sparse.gradients.gates[i] - dense.gradients.gates[i]) > 1e-5 * size)
        return false;
    }
    return true;
  }

  SparseStep sparse;
  DenseCopy dense;
};

void leap_step_sparse(benchmark::State& state, int threads) {
  BothSteps& work =
      workload<BothSteps>("sparse leap step", [] { return BothSteps(4096, 12000, 0.01); });
  static const bool right = work.agree(threads);
  if (!right) return state.SkipWithError("result differs from that of the dense batch");
  const double own = time_alone(state, [&] { work.sparse.run(threads); });
  std::vector<double> dense;
  for (int i = 0; i < 3; ++i)
    dense.push_back(seconds([&] { work.dense.run(work.sparse, threads); }));
  state.counters["of_dense"] = own / median(std::move(dense));
  state.counters["GB/s"] = work.sparse.bytes() / own * 1e-9;
  state.counters["columns"] = static_cast<double>(work.sparse.layout.dim());
  set_threads(state, threads);
}

const bool registered = [] {
  for (const int threads : {all_threads(), 1}) {
    const std::string name = std::string("feature/leap_step_sparse/4096x12000/nondefault_1") +
                             (threads == 1 && all_threads() > 1 ? "/t1" : "");
    large(benchmark::RegisterBenchmark(
              name.c_str(), [=](benchmark::State& state) { leap_step_sparse(state, threads); }),
          5);
    if (all_threads() == 1) break;
  }
  return true;
}();

}  // namespace
