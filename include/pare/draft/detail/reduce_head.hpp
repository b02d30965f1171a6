// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The driver of heads: panels of logits, each taken in while it is in the first-level cache. Work
/// is cut into runs of panels by the head's size alone, and merged in their order, so that bits do
/// not depend on the number of threads.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/head_summary.hpp>
#include <pare/kernel/reduce_logits.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace pare::draft::detail {
PARE_ABI_BEGIN

/// Rows that share a tile of logits: 4 KiB of them.
inline constexpr Index head_tile_rows = 16;
/// Runs of panels that a head is cut into, if it has as many panels.
inline constexpr Index most_runs = 64;

/// What calls of heads work in.
struct HeadMemory {
  AlignedBuffer<std::byte> states;
  AlignedBuffer<std::byte> latents;
};

/// Calls use(panel, first row, rows, tile) for each panel of a run and each 16 rows.
template <class B, class Tiles, class T, class Use>
void over_panels(const B& backend, const Tiles& tiles, TensorView<const T, 2> x, Index panel,
                 Index end, const Use& use) {
  alignas(64) T logits[static_cast<std::size_t>(head_tile_rows * Tiles::width)];
  for (; panel < end; ++panel)
    for (Index r = 0; r < x.rows(); r += head_tile_rows) {
      const Index rows = std::min(head_tile_rows, x.rows() - r);
      tiles.tile(backend, panel, &x(r, 0), x.stride[0], rows, static_cast<T*>(logits));
      use(panel, r, rows, static_cast<T*>(logits));
    }
}

/// Panels of a run.
inline Index run_panels(Index panels) { return ceil_div(panels, most_runs); }

/// y = the logits of x, [rows, outputs], any strides.
template <class B, class Tiles, class T>
void write_logits(const B& backend, const Tiles& tiles, TensorView<const T, 2> x,
                  TensorView<T, 2> y) {
  const Index panels = ceil_div(tiles.outputs, Tiles::width), each = run_panels(panels);
  parallel_for(backend.executor, ceil_div(panels, each), [&](Index run, int) {
    over_panels(backend, tiles, x, run * each, std::min(panels, (run + 1) * each),
                [&](Index panel, Index row, Index rows, const T* logits) {
                  const Index first = panel * Tiles::width;
                  const Index count = std::min(Tiles::width, tiles.outputs - first);
                  for (Index r = 0; r < rows; ++r)
                    for (Index o = 0; o < count; ++o)
                      y(row + r, first + o) = logits[r * Tiles::width + o];
                });
  });
}

/// The states of all runs and rows, and their merging.
template <class B, class Tiles>
class HeadReduction {
 public:
  using T = typename Tiles::T;

  HeadReduction(const B& backend, const Tiles& tiles, const std::int32_t* ids, Index rows,
                const HeadRequest& request, AlignedBuffer<std::byte>& memory)
      : backend_(backend),
        tiles_(tiles),
        ids_(ids),
        request_(request),
        rows_(rows),
        panels_(ceil_div(tiles.outputs, Tiles::width)),
        each_(run_panels(panels_)),
        runs_(ceil_div(panels_, each_)),
        draws_(request.noise && request.temperature >= least_temperature),
        // A greedy draw is the first of the best.
        k_(std::min(std::max(request.k, Index{request.noise && !draws_ ? 1 : 0}), tiles.outputs)),
        run_k_(std::min(k_, each_ * Tiles::width)) {
    carve_from(memory, [&](Carver& take) {
      take(states_, runs_ * rows);
      take(top_, runs_ * rows * run_k_);
      take(top_ids_, runs_ * rows * run_k_);
      take(entries_, runs_ * run_k_);
      take(floors_, runs_ * rows);
      take(floor_, rows);
    });
  }

  void run(TensorView<const T, 2> x, HeadSummary<T>& out) {
    std::fill_n(floor_, rows_, -std::numeric_limits<T>::infinity());
    parallel_for(backend_.executor, runs_, [&](Index run, int) { reduce_run(x, run, out); });
    for (Index r = 0; r < rows_; ++r) merge_row(r, out);
  }

 private:
  struct Entry {
    T value;
    std::int32_t id;
    friend bool operator<(const Entry& a, const Entry& b) {
      return a.value > b.value || (a.value == b.value && a.id < b.id);
    }
  };

  void reduce_run(TensorView<const T, 2> x, Index run, const HeadSummary<T>& out) const {
    std::fill_n(states_ + run * rows_, rows_, kernel::LogitState<T>{});
    for (Index r = 0; r < rows_; ++r)
      floors_[run * rows_ + r] = std::atomic_ref(floor_[r]).load(std::memory_order_relaxed);
    const Index begin = run * each_, end = std::min(panels_, begin + each_);
    over_panels(backend_, tiles_, x, begin, end, [&](Index panel, Index r, Index rows, T* logits) {
      kernel::ReduceLogits<T> a;
      const Index first = panel * Tiles::width, row = run * rows_ + r;
      a.logits = logits;
      a.rows = rows;
      a.count = std::min(Tiles::width, tiles_.outputs - first);
      a.first = static_cast<std::int32_t>(first);
      a.ids = ids_ == nullptr ? nullptr : ids_ + first;
      a.temperature = out.temperature;
      a.states = states_ + row;
      a.top = top_ + row * run_k_;
      a.top_ids = top_ids_ + row * run_k_;
      a.k = run_k_;
      a.floors = floors_ + row;
      if (draws_) {
        a.positions = request_.positions.data() + r;
        a.seed = request_.noise->seed;
      }
      launch(backend_, a);
    });
    for (Index r = 0; r < rows_; ++r) raise_floor(run, r);
  }

  /// The k-th best of a run is a floor for the runs that begin later: what is below it is not among
  /// the k best of all. Which runs those are is left to chance, but not what is merged in the end.
  void raise_floor(Index run, Index r) const {
    if (k_ == 0 || states_[run * rows_ + r].kept < k_) return;
    const T worst = top_[(run * rows_ + r) * run_k_];
    const std::atomic_ref<T> floor(floor_[r]);
    T known = floor.load(std::memory_order_relaxed);
    while (known < worst && !floor.compare_exchange_weak(known, worst, std::memory_order_relaxed)) {
    }
  }

  void merge_row(Index r, HeadSummary<T>& out) const {
    constexpr double lowest = -std::numeric_limits<double>::infinity();
    const auto row = static_cast<std::size_t>(r);
    const double t = out.temperature;
    kernel::LogitState<double> all;
    Index entries = 0;
    for (Index run = 0; run < runs_; ++run) {
      const Index at = run * rows_ + r;
      const kernel::LogitState<T>& state = states_[at];
      const auto maximum = static_cast<double>(state.maximum);
      const double largest = std::max(all.maximum, maximum);
      // Where nothing was seen the sum is 0, or NaN.
      all.sum =
          (all.maximum == lowest ? all.sum : all.sum * std::exp((all.maximum - largest) / t)) +
          (maximum == lowest ? state.sum : state.sum * std::exp((maximum - largest) / t));
      all.maximum = largest;
      if (state.best > all.best) {
        all.best = state.best;
        all.drawn = state.drawn;
      }
      for (Index i = 0; i < state.kept; ++i)
        entries_[entries++] = {top_[at * run_k_ + i], top_ids_[at * run_k_ + i]};
    }
    const RowStatus status = !is_finite(all.sum)           ? RowStatus::NotFinite
                             : all.maximum == lowest       ? RowStatus::NoMass
                             : !is_finite(all.maximum / t) ? RowStatus::NotFinite
                                                           : RowStatus::Sound;
    out.status[row] = status;
    if (status != RowStatus::Sound) return write_none(r, status, out);
    out.maximum[row] = all.maximum;
    out.log_sum_exp[row] = all.maximum / t + std::log(all.sum);
    std::partial_sort(entries_, entries_ + k_, entries_ + entries);
    for (Index i = 0; i < out.k; ++i) {
      out.values[static_cast<std::size_t>(r * out.k + i)] = entries_[i].value;
      out.ids[static_cast<std::size_t>(r * out.k + i)] = entries_[i].id;
    }
    if (request_.noise) out.drawn[row] = draws_ ? all.drawn : entries_[0].id;
  }

  void write_none(Index r, RowStatus status, HeadSummary<T>& out) const {
    const auto row = static_cast<std::size_t>(r);
    const double none = status == RowStatus::NoMass ? -std::numeric_limits<double>::infinity()
                                                    : std::numeric_limits<double>::quiet_NaN();
    out.maximum[row] = out.log_sum_exp[row] = none;
    for (Index i = 0; i < out.k; ++i) {
      out.values[static_cast<std::size_t>(r * out.k + i)] = static_cast<T>(none);
      out.ids[static_cast<std::size_t>(r * out.k + i)] = -1;
    }
    if (request_.noise) out.drawn[row] = -1;
  }

  const B& backend_;
  const Tiles& tiles_;
  const std::int32_t* ids_;
  const HeadRequest& request_;
  Index rows_, panels_, each_, runs_;
  bool draws_;
  Index k_, run_k_;
  kernel::LogitState<T>* states_ = nullptr;
  T* top_ = nullptr;
  std::int32_t* top_ids_ = nullptr;
  Entry* entries_ = nullptr;
  T* floors_ = nullptr;  ///< as each run found it
  T* floor_ = nullptr;
};

/// Gives a summary its sizes.
template <class T>
void size_summary(Index rows, Index outputs, const HeadRequest& request, HeadSummary<T>& out) {
  out.rows = rows;
  out.k = std::min(request.k, outputs);
  out.temperature = request.temperature < least_temperature ? 1.0 : request.temperature;
  const auto n = static_cast<std::size_t>(rows), kept = static_cast<std::size_t>(rows * out.k);
  out.values.resize(kept);
  out.ids.resize(kept);
  out.log_sum_exp.resize(n);
  out.maximum.resize(n);
  out.status.resize(n);
  out.drawn.resize(request.noise ? n : 0);
}

/// values(r, j) = the logit of row r for output wanted[r * columns + j], -infinity where that is
/// negative; each has the bits of its panel.
template <class B, class Tiles, class T>
void write_values(const B& backend, const Tiles& tiles, TensorView<const T, 2> x,
                  std::span<const Index> wanted, TensorView<T, 2> values) {
  parallel_for(backend.executor, values.rows() * values.cols(), [&](Index item, int) {
    const Index r = item / values.cols(), output = wanted[static_cast<std::size_t>(item)];
    alignas(64) T logits[static_cast<std::size_t>(Tiles::width)];
    if (output >= 0)
      tiles.tile(backend, output / Tiles::width, &x(r, 0), x.stride[0], 1, static_cast<T*>(logits));
    values(r, item % values.cols()) =
        output >= 0 ? logits[output % Tiles::width] : -std::numeric_limits<T>::infinity();
  });
}

PARE_ABI_END
}  // namespace pare::draft::detail

#include <pare/core/macros_on.hpp>
