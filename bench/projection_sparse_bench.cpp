// SPDX-License-Identifier: Apache-2.0

/// \file
/// Projection of sparse input, and the random numbers that operators are made of.

#include "check.hpp"
#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/random.hpp>
#include <pare/core/workspace.hpp>
#include <pare/kernel/philox.hpp>
#include <pare/projection/materialize.hpp>
#include <pare/projection/prepared_projection.hpp>
#include <pare/projection/project.hpp>
#include <pare/projection/sparse_projection.hpp>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;
using SparseRows = Eigen::SparseMatrix<float, Eigen::RowMajor>;

// ---------------------------------------------------------------- sparse input

constexpr Index output_dim = 256;
constexpr Index entries_a_row = 100;

pare::projection::SparseSignProjection signs_of(Index input_dim) {
  return {.input_dim = input_dim, .output_dim = output_dim, .nonzeros = 8, .seed = 7};
}
pare::projection::SparseProjection very_sparse_of(Index input_dim) {
  return pare::projection::very_sparse(input_dim, output_dim, 7);
}

// One entry in each of `entries_a_row` equal strips of a row: sorted, distinct and cheap to make.
SparseRows make_sparse_input(Index rows, Index input_dim) {
  SplitMix64 random(3);
  const Index strip = input_dim / entries_a_row;
  SparseRows x(rows, input_dim);
  x.reserve(rows * entries_a_row);
  for (Index u = 0; u < rows; ++u) {
    x.startVec(u);
    for (Index s = 0; s < entries_a_row; ++s) {
      const Index column =
          s * strip + static_cast<Index>(random.unit() * static_cast<double>(strip));
      x.insertBack(u, column) = static_cast<float>(2.0 * random.unit() - 1.0);
    }
  }
  x.finalize();
  return x;
}

struct SparseWork {
  SparseRows x;
  RowMatrix y, peer_y;
  SparseRows operator_columns;  ///< [d, k]
};

template <class R>
SparseWork make_sparse_work(Index rows, const R& omega) {
  SparseWork work;
  work.x = make_sparse_input(rows, omega.input_dim);
  work.y = RowMatrix::Zero(rows, output_dim);
  work.peer_y = RowMatrix::Zero(rows, output_dim);
  work.operator_columns = pare::projection::materialize<float>(omega).transpose();
  return work;
}

double eigen_sparse_seconds(SparseWork& work, const std::string& name, int threads) {
  Eigen::setNbThreads(1);
  const Index rows = work.x.rows(), rows_at_once = rows / 16;
  const auto over_rows = [&](const auto& multiply) {
    over_ranges(threads, rows, rows_at_once, [&](Index begin, Index end) {
      work.peer_y.middleRows(begin, end - begin) = multiply(work.x.middleRows(begin, end - begin));
    });
  };
  const RowMatrix dense = work.operator_columns;
  return peer_seconds(
      "eigen " + name + " t" + std::to_string(threads),
      {{"sparse X * sparse Rt",
        [&] {
          over_rows(
              [&](const auto& x) -> SparseRows { return (x * work.operator_columns).eval(); });
        }},
       {"sparse X * dense Rt", [&] { over_rows([&](const auto& x) { return x * dense; }); }}},
      PeerResult::Read);
}

// |x| <= 1 and entries of the operator are +-entry_scale, so a row's sum of at most 100 terms is
// off by gamma * 100 of them on either side.
template <class R>
bool sparse_is_right(const SparseWork& work, const R& omega) {
  const double bound =
      2.0 * gamma_bound<float>(entries_a_row + 2.0) * entries_a_row * omega.entry_scale();
  return within(work.y, work.peer_y, Eigen::MatrixXd::Constant(work.y.rows(), output_dim, bound));
}

template <class R>
void project_sparse(benchmark::State& state, const std::string& name, Index rows, const R& omega,
                    int threads) {
  SparseWork& work = workload<SparseWork>(name, [&] { return make_sparse_work(rows, omega); });
  const auto run = [&] {
    pare::projection::project(pare::simd.threads(threads), work.x, omega, work.y);
  };
  const double peer = eigen_sparse_seconds(work, name, threads);
  if (std::isnan(peer)) work.peer_y = RowMatrix(work.x * work.operator_columns);
  run();
  if (!sparse_is_right(work, omega)) return state.SkipWithError("result differs from Eigen's");
  const auto entries = static_cast<double>(work.x.nonZeros());
  const double bytes = entries * 8.0 + 4.0 * static_cast<double>(rows) * output_dim;
  // What the entries of X meet in R: one addition each.
  const double nonzeros = static_cast<double>(work.operator_columns.nonZeros());
  const double additions = entries * nonzeros / static_cast<double>(omega.input_dim);
  LimitProbe probe(threads, {{Limit::dram_read, bytes}, {Limit::l1_add, additions}});
  const double own = time_between_probes(state, probe, run);
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "eigen", peer, own);
  const double scipy = python_peer_seconds(
      "sparse_projection_scipy.py",
      {std::to_string(rows), std::to_string(omega.input_dim), std::to_string(output_dim),
       std::to_string(entries_a_row), std::to_string(work.operator_columns.nonZeros())});
  if (!std::isnan(scipy)) set_vs(state, "scipy", scipy, own);
  set_threads(state, threads);
}

// ---------------------------------------------------------------- one sparse row

template <class R>
bool row_is_right(const SparseRows& x, const RowMatrix& y, const R& omega) {
  RowMatrix wanted(1, output_dim);
  pare::projection::project(pare::reference, x, omega, wanted);
  const double bound =
      2.0 * gamma_bound<float>(entries_a_row + 2.0) * entries_a_row * omega.entry_scale();
  return within(y, wanted, Eigen::MatrixXd::Constant(1, output_dim, bound));
}

double row_seconds(const SparseRows& x, Index input_dim) {
  RowMatrix y(1, output_dim);
  pare::Workspace workspace;
  return usual_seconds([&] {
           for (int i = 0; i < 100; ++i)
             pare::projection::project(pare::simd.with(workspace), x, very_sparse_of(input_dim), y);
         }) /
         100;
}

/// The width of X costs nothing: `vs_2^17` is the time of the row of 2^17 columns over this one's.
void sparse_row(benchmark::State& state, int log_width) {
  const Index input_dim = Index{1} << log_width;
  const auto omega = very_sparse_of(input_dim);
  const SparseRows x = make_sparse_input(1, input_dim), narrow = make_sparse_input(1, 1 << 17);
  RowMatrix y(1, output_dim);
  pare::Workspace workspace;
  const auto run = [&] { pare::projection::project(pare::simd.with(workspace), x, omega, y); };
  run();
  if (!row_is_right(x, y, omega)) return state.SkipWithError("result differs from the reference");
  const double own = time_alone(state, run);
  set_vs(state, "2^17", row_seconds(narrow, 1 << 17), own);
  set_threads(state, 1);
}

/// The same row with its operator kept: `vs_drawn` is the time without.
void prepared_row(benchmark::State& state) {
  constexpr Index input_dim = 1 << 17;
  const auto omega = very_sparse_of(input_dim);
  const pare::projection::PreparedProjection prepared(omega, {.bytes = 16 << 20});
  const SparseRows x = make_sparse_input(1, input_dim);
  RowMatrix y(1, output_dim);
  pare::Workspace workspace;
  const auto run = [&] { pare::projection::project(pare::simd.with(workspace), x, prepared, y); };
  run();
  if (prepared.columns() != input_dim || !row_is_right(x, y, omega))
    return state.SkipWithError("result differs from the reference");
  const double own = time_alone(state, run);
  set_vs(state, "drawn", row_seconds(x, input_dim), own);
  state.counters["kept_MiB"] = static_cast<double>(prepared.bytes()) / (1 << 20);
  set_threads(state, 1);
}

// ---------------------------------------------------------------- Philox

constexpr std::size_t counters = 512;  ///< four arrays of 4 KiB: all in the first-level cache

struct PhiloxArrays {
  std::array<std::array<std::uint64_t, counters>, 4> words{};

  pare::kernel::PhiloxWords view(pare::PhiloxKey key) {
    return {words[0].data(), words[1].data(), words[2].data(), words[3].data(),
            counters,        key.k0,          key.k1};
  }
};

bool philox_is_right(pare::PhiloxKey key) {
  PhiloxArrays arrays;
  for (std::size_t i = 0; i < counters; ++i) arrays.words[0][i] = i;
  pare::kernel::run_kernel(pare::arch::best{}, arrays.view(key));
  for (std::size_t i = 0; i < counters; ++i) {
    const pare::PhiloxCounter wanted = pare::philox({static_cast<std::uint32_t>(i), 0, 0, 0}, key);
    for (std::size_t w = 0; w < 4; ++w)
      if (arrays.words[w][i] != wanted[w]) return false;
  }
  return true;
}

double scalar_philox_seconds(pare::PhiloxKey key) {
  pare::PhiloxCounter c{};
  std::vector<double> times;
  for (int burst = 0; burst < 9; ++burst)
    times.push_back(seconds([&] {
      for (std::size_t i = 0; i < counters; ++i) {
        c = pare::philox({static_cast<std::uint32_t>(i), c[1], 0, 0}, key);
        benchmark::DoNotOptimize(c);
      }
    }));
  return median(std::move(times));
}

void philox(benchmark::State& state) {
  const pare::PhiloxKey key(42u);
  if (!philox_is_right(key)) return state.SkipWithError("words differ from pare::philox");
  PhiloxArrays arrays;
  double total = 0.0;
  for (auto _ : state) {
    const double time = seconds([&] {
      pare::kernel::run_kernel(pare::arch::best{}, arrays.view(key));
      benchmark::ClobberMemory();
    });
    total += time;
    state.SetIterationTime(time);
  }
  const double own = total / static_cast<double>(state.iterations());
  state.counters["Gwords/s"] = 4.0 * counters / own * 1e-9;
  set_vs(state, "scalar", scalar_philox_seconds(key), own);
}

const bool registered = [] {
  const auto add = [](const std::string& name, Index rows, const auto& omega) {
    for (const int threads : {all_threads(), 1}) {
      large(benchmark::RegisterBenchmark((threads == all_threads() ? name : name + "/t1").c_str(),
                                         [name, rows, omega, threads](benchmark::State& state) {
                                           project_sparse(state, name, rows, omega, threads);
                                         }),
            3);
      if (all_threads() == 1) break;
    }
  };
  add("projection/sparse/50000x200000x256", 50'000, signs_of(200'000));
  add("projection/sparse/20000x200000", 20'000, very_sparse_of(200'000));
  const auto add_row = [](const std::string& name, const auto& function) {
    large(benchmark::RegisterBenchmark(("projection/sparse_row/" + name).c_str(), function), 500)
        ->Unit(benchmark::kMicrosecond);
  };
  for (const int log_width : {17, 27})
    add_row("2^" + std::to_string(log_width),
            [log_width](benchmark::State& state) { sparse_row(state, log_width); });
  add_row("prepared/2^17", prepared_row);
  benchmark::RegisterBenchmark("projection/philox/t1", philox)
      ->UseManualTime()
      ->MinTime(0.1)
      ->Repetitions(5);
  return true;
}();

}  // namespace
