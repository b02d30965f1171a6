// SPDX-License-Identifier: Apache-2.0

/// \file
/// Projection of sparse input, and the random numbers that operators are made of.

#include "check.hpp"
#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/random.hpp>
#include <pare/kernel/philox.hpp>
#include <pare/projection/materialize.hpp>
#include <pare/projection/project.hpp>
#include <pare/projection/sparse_projection.hpp>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;
using SparseRows = Eigen::SparseMatrix<float, Eigen::RowMajor>;

// ---------------------------------------------------------------- sparse input

constexpr Index rows = 50'000;
constexpr Index input_dim = 200'000;
constexpr Index output_dim = 256;
constexpr Index entries_a_row = 100;
const pare::projection::SparseSignProjection omega{
    .input_dim = input_dim, .output_dim = output_dim, .nonzeros = 8, .seed = 7};

struct SparseWork {
  SparseRows x;
  RowMatrix y, peer_y;
  SparseRows operator_columns;  ///< [d, k]
  RowMatrix operator_dense;     ///< the same, dense
};

// One entry in each of `entries_a_row` equal strips of a row: sorted, distinct and cheap to make.
SparseRows make_sparse_input() {
  SplitMix64 random(3);
  constexpr Index strip = input_dim / entries_a_row;
  SparseRows x(rows, input_dim);
  x.reserve(rows * entries_a_row);
  for (Index u = 0; u < rows; ++u) {
    x.startVec(u);
    for (Index s = 0; s < entries_a_row; ++s) {
      const Index column = s * strip + static_cast<Index>(random.unit() * strip);
      x.insertBack(u, column) = static_cast<float>(2.0 * random.unit() - 1.0);
    }
  }
  x.finalize();
  return x;
}

SparseWork make_sparse_work() {
  SparseWork work;
  work.x = make_sparse_input();
  work.y = RowMatrix::Zero(rows, output_dim);
  work.peer_y = RowMatrix::Zero(rows, output_dim);
  work.operator_columns = pare::projection::materialize<float>(omega).transpose();
  work.operator_dense = work.operator_columns;
  return work;
}

double eigen_sparse_seconds(SparseWork& work, int threads) {
  Eigen::setNbThreads(1);
  constexpr Index rows_at_once = rows / 16;
  const auto over_rows = [&work, threads](const auto& multiply) {
    over_ranges(threads, rows, rows_at_once, [&](Index begin, Index end) {
      work.peer_y.middleRows(begin, end - begin) = multiply(work.x.middleRows(begin, end - begin));
    });
  };
  return peer_seconds(
      "eigen sparse t" + std::to_string(threads),
      {{"sparse X * sparse Rt",
        [&] {
          over_rows(
              [&](const auto& x) -> SparseRows { return (x * work.operator_columns).eval(); });
        }},
       {"sparse X * dense Rt",
        [&] { over_rows([&](const auto& x) { return x * work.operator_dense; }); }}},
      PeerResult::Read);
}

// |x| <= 1 and entries of the operator are +-1/sqrt(8), so a row's sum of at most 100 terms is off
// by gamma * 100 / sqrt(8) on either side.
bool sparse_is_right(const SparseWork& work) {
  const double bound =
      2.0 * gamma_bound<float>(entries_a_row + 2.0) * entries_a_row * omega.entry_scale();
  return within(work.y, work.peer_y, Eigen::MatrixXd::Constant(rows, output_dim, bound));
}

void project_sparse(benchmark::State& state, int threads) {
  SparseWork& work = workload<SparseWork>("sparse", make_sparse_work);
  const auto run = [&] {
    pare::projection::project(pare::simd.threads(threads), work.x, omega, work.y);
  };
  const double peer = eigen_sparse_seconds(work, threads);
  if (std::isnan(peer)) work.peer_y = work.x * work.operator_dense;
  run();
  if (!sparse_is_right(work)) return state.SkipWithError("result differs from Eigen's");
  const double bytes = static_cast<double>(work.x.nonZeros()) * 8.0 + 4.0 * rows * output_dim;
  LimitProbe probe(threads, {{Limit::dram_read, bytes}});
  const double own = time_between_probes(state, probe, run);
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "eigen", peer, own);
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
  large(benchmark::RegisterBenchmark("projection/sparse/50000x200000x256", project_sparse,
                                     all_threads()),
        3);
  if (all_threads() > 1)
    large(benchmark::RegisterBenchmark("projection/sparse/50000x200000x256/t1", project_sparse, 1),
          3);
  benchmark::RegisterBenchmark("projection/philox/t1", philox)
      ->UseManualTime()
      ->MinTime(0.1)
      ->Repetitions(5);
  return true;
}();

}  // namespace
