// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sparse random projection, sparse times dense and FastRP at the sizes the library promises
/// figures for; each against Eigen or scipy and against the machine.

#include "check.hpp"
#include "child_memory.hpp"
#include "child_process.hpp"
#include "counters.hpp"
#include "graphs.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/tensor_view.hpp>
#include <pare/graph/fast_rp.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/spmm.hpp>
#include <pare/projection/materialize.hpp>
#include <pare/projection/project.hpp>
#include <pare/projection/sparse_projection.hpp>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;
using SparseRows = Eigen::SparseMatrix<float, Eigen::RowMajor>;

// ---------------------------------------------------------------- dense input

constexpr Index dense_rows = 10'000;
constexpr Index dense_input = 10'000;
constexpr Index dense_output = 1024;
constexpr Index rows_at_once = 625;  ///< sixteen ranges: long enough for Eigen, enough to share
constexpr double dense_data_bytes =
    sizeof(float) * static_cast<double>(dense_rows) * (dense_input + dense_output);
constexpr double dense_buffer_bytes = 64.0 * (1 << 20);

const pare::projection::SparseProjection independent_entries{
    .input_dim = dense_input,
    .output_dim = dense_output,
    .density = 1.0 / std::sqrt(static_cast<double>(dense_input)),
    .seed = 7};
const pare::projection::SparseSignProjection sparse_signs{
    .input_dim = dense_input, .output_dim = dense_output, .nonzeros = 8, .seed = 7};

struct DenseWork {
  RowMatrix x, y, peer_y;
  Eigen::MatrixXf peer_columns;
  SparseRows operator_rows;     ///< [k, d], what X * operator_rows^T needs
  SparseRows operator_columns;  ///< [d, k], its transpose stored by rows
};

template <class R>
DenseWork make_dense_work(const R& omega) {
  DenseWork work;
  work.x = uniform_matrix(dense_rows, dense_input, 1);
  work.y = RowMatrix::Zero(dense_rows, dense_output);
  work.peer_y = RowMatrix::Zero(dense_rows, dense_output);
  work.peer_columns = Eigen::MatrixXf::Zero(dense_rows, dense_output);
  work.operator_rows = pare::projection::materialize<float>(omega);
  work.operator_columns = work.operator_rows.transpose();
  return work;
}

// Every way in which Eigen spells the product, rows shared out over the same threads.
double eigen_dense_seconds(const std::string& name, DenseWork& work, int threads) {
  Eigen::setNbThreads(1);
  const auto over_rows = [&work, threads](const auto& multiply) {
    over_ranges(threads, dense_rows, rows_at_once, [&](Index begin, Index end) {
      multiply(work.x.middleRows(begin, end - begin), begin, end - begin);
    });
  };
  return peer_seconds(
      "eigen " + name + " t" + std::to_string(threads),
      {{"X * R.transpose(), row-major Y",
        [&] {
          over_rows([&](const auto& x, Index begin, Index rows) {
            work.peer_y.middleRows(begin, rows).noalias() = x * work.operator_rows.transpose();
          });
        }},
       {"X * Rt, row-major Y",
        [&] {
          over_rows([&](const auto& x, Index begin, Index rows) {
            work.peer_y.middleRows(begin, rows).noalias() = x * work.operator_columns;
          });
        }},
       {"X * R.transpose(), column-major Y",
        [&] {
          over_rows([&](const auto& x, Index begin, Index rows) {
            work.peer_columns.middleRows(begin, rows).noalias() =
                x * work.operator_rows.transpose();
          });
        }},
       {"Y.transpose() = R * X.transpose()", [&] {
          over_rows([&](const auto& x, Index begin, Index rows) {
            work.peer_y.middleRows(begin, rows).transpose().noalias() =
                work.operator_rows * x.transpose();
          });
        }}});
}

// |x| <= 1, so a sum along row j of the operator is off by at most gamma ||R_j||_1, and two of them
// by twice that.
Eigen::RowVectorXd dense_bound(const SparseRows& rows) {
  Eigen::RowVectorXd bound(rows.rows());
  for (Index j = 0; j < rows.rows(); ++j) {
    const auto row = rows.row(static_cast<int>(j));
    bound(j) = 2.0 * gamma_bound<float>(static_cast<double>(row.nonZeros()) + 2.0) *
               static_cast<double>(row.cwiseAbs().sum());
  }
  return bound;
}

template <class R>
bool dense_is_right(const R& omega, const DenseWork& work) {
  constexpr Index sample = 16;
  const Eigen::RowVectorXd bound = dense_bound(work.operator_rows);
  for (const Index begin : {Index{0}, dense_rows / 2 - 5, dense_rows - sample}) {
    const RowMatrix x = work.x.middleRows(begin, sample);
    RowMatrix wanted(sample, dense_output);
    pare::projection::project(pare::reference, x, omega, wanted);
    if (!within(work.y.middleRows(begin, sample), wanted, bound.replicate(sample, 1))) return false;
  }
  RowMatrix eigen(dense_rows, dense_output);
  over_ranges(all_threads(), dense_rows, rows_at_once, [&](Index begin, Index end) {
    eigen.middleRows(begin, end - begin).noalias() =
        work.x.middleRows(begin, end - begin) * work.operator_columns;
  });
  return within(work.y, eigen, bound.replicate(dense_rows, 1));
}

template <class R>
void project_dense(benchmark::State& state, const std::string& name, const R& omega, int threads) {
  const double peak = peak_bytes_in_child(name);
  DenseWork& work = workload<DenseWork>(name, [&] { return make_dense_work(omega); });
  const auto run = [&] {
    pare::projection::project(pare::simd.threads(threads), work.x, omega, work.y);
  };
  run();
  if (!dense_is_right(omega, work)) return state.SkipWithError("result differs from the reference");
  const double gathered = static_cast<double>(work.operator_rows.nonZeros()) * dense_rows * 4.0;
  LimitProbe probe(threads, {{Limit::dram_read, dense_data_bytes}, {Limit::l2_read, gathered}});
  const double own = time_between_probes(state, probe, run);
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "eigen", eigen_dense_seconds(name, work, threads), own);
  if (threads == all_threads()) set_peak(state, peak, dense_data_bytes + dense_buffer_bytes);
  if constexpr (std::is_same_v<R, pare::projection::SparseProjection>) {
    const double sklearn = python_peer_seconds(
        "sparse_projection_sklearn.py",
        {std::to_string(dense_rows), std::to_string(dense_input), std::to_string(dense_output)});
    if (!std::isnan(sklearn)) set_vs(state, "sklearn", sklearn, own);
  }
}

// At density 1 R is a dense matrix, and the product of X with it the work.
void project_rademacher(benchmark::State& state, int threads) {
  constexpr Index rows = 4096, input = 8192;
  const pare::projection::SparseProjection omega{
      .input_dim = input, .output_dim = dense_output, .density = 1.0, .seed = 7};
  struct Work {
    RowMatrix x = uniform_matrix(rows, input, 1), y = RowMatrix::Zero(rows, dense_output),
              product = y, operator_columns;
  };
  Work& work = workload<Work>("rademacher", [&] {
    Work made;
    made.operator_columns = pare::projection::materialize<float>(omega).toDense().transpose();
    return made;
  });
  const auto backend = pare::simd.threads(threads);
  const auto run = [&] { pare::projection::project(backend, work.x, omega, work.y); };
  const auto multiply = [&] {
    pare::linalg::multiply(backend, pare::as_const(pare::to_view(work.x)),
                           pare::as_const(pare::to_view(work.operator_columns)),
                           pare::to_view(work.product));
  };
  run();
  multiply();
  const double bound = 2.0 * gamma_bound<float>(input + 2.0) * input * omega.entry_scale();
  if (!within(work.y, work.product, Eigen::MatrixXd::Constant(rows, dense_output, bound)))
    return state.SkipWithError("result differs from the product with R");
  LimitProbe probe(threads, {{Limit::fma_f32, 2.0 * rows * input * dense_output}});
  const double own = time_between_probes(state, probe, run);
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "product", usual_seconds(multiply), own);
  set_threads(state, threads);
}

template <class R>
void dense_in_child(const R& omega) {
  const RowMatrix x = uniform_matrix(dense_rows, dense_input, 1);
  RowMatrix y(dense_rows, dense_output);
  pare::projection::project(pare::simd.threads(all_threads()), x, omega, y);
}

// ---------------------------------------------------------------- graphs

constexpr int graph_nodes = 1'000'000;
constexpr std::int64_t graph_edges = 10'000'000;
constexpr Index graph_columns = 256;
constexpr std::uint64_t graph_seed = 11;

struct SpmmWork {
  Graph graph;
  RowMatrix dense, out, peer_out;
};

SpmmWork make_spmm_work() {
  SpmmWork work;
  work.graph = power_law_graph(graph_nodes, graph_edges, graph_seed);
  work.dense = uniform_matrix(graph_nodes, graph_columns, 2);
  work.out = RowMatrix::Zero(graph_nodes, graph_columns);
  work.peer_out = RowMatrix::Zero(graph_nodes, graph_columns);
  return work;
}

double eigen_spmm_seconds(SpmmWork& work, int threads) {
  return peer_seconds("eigen spmm t" + std::to_string(threads),
                      {{"A * B, Eigen's own threads",
                        [&] {
                          Eigen::setNbThreads(threads);
                          work.peer_out.noalias() = work.graph * work.dense;
                        }},
                       {"A.middleRows() * B, rows shared out",
                        [&] {
                          Eigen::setNbThreads(1);
                          over_ranges(threads, graph_nodes, 4096, [&](Index begin, Index end) {
                            work.peer_out.middleRows(begin, end - begin).noalias() =
                                work.graph.middleRows(begin, end - begin) * work.dense;
                          });
                        }}},
                      PeerResult::Read);
}

// |dense| <= 1 and all weights are 1: two sums over a row's entries differ by at most
// 2 gamma(entries) entries.
bool spmm_is_right(const SpmmWork& work) {
  Eigen::VectorXd bound(graph_nodes);
  for (Index u = 0; u < graph_nodes; ++u) {
    const double entries = work.graph.outerIndexPtr()[u + 1] - work.graph.outerIndexPtr()[u];
    bound(u) = 2.0 * gamma_bound<float>(entries + 1.0) * entries;
  }
  return within(work.out, work.peer_out, bound.replicate(1, graph_columns));
}

void spmm(benchmark::State& state, int threads) {
  SpmmWork& work = workload<SpmmWork>("spmm", make_spmm_work);
  const auto run = [&] {
    pare::linalg::spmm(pare::simd.threads(threads), work.graph, work.dense, work.out);
  };
  const double peer = eigen_spmm_seconds(work, threads);
  if (std::isnan(peer)) work.peer_out.noalias() = work.graph * work.dense;
  work.out.setZero();
  run();
  if (!spmm_is_right(work)) return state.SkipWithError("result differs from Eigen's");
  LimitProbe probe(threads, {{Limit::dram_read, gather_bytes(work.graph, graph_columns)}});
  const double own = time_between_probes(state, probe, run);
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "eigen", peer, own);
}

// Few columns, as propagated features and class scores have: the rows that are gathered are two
// lines each, and the peers are scipy and torch.
constexpr int narrow_nodes = 200'000;
constexpr std::int64_t narrow_edges = 2'000'000;
constexpr Index narrow_columns = 32;

struct NarrowWork {
  Graph graph = power_law_graph(narrow_nodes, narrow_edges, graph_seed);
  RowMatrix dense = uniform_matrix(narrow_nodes, narrow_columns, 2),
            out = RowMatrix::Zero(narrow_nodes, narrow_columns), reference = out;
  std::shared_ptr<TemporaryFolder> folder = std::make_shared<TemporaryFolder>();
};

void spmm_narrow(benchmark::State& state, int threads) {
  NarrowWork& work = workload<NarrowWork>("spmm narrow", [] {
    NarrowWork made;
    write_graph(made.folder->file("graph"), made.graph);
    pare::linalg::spmm(pare::reference, made.graph, made.dense, made.reference);
    return made;
  });
  const auto run = [&] {
    pare::linalg::spmm(pare::simd.threads(threads), work.graph, work.dense, work.out);
  };
  run();
  if (!agree(work.out, work.reference, 1e-5))
    return state.SkipWithError("result differs from the reference");
  LimitProbe probe(threads, {{Limit::dram_read, gather_bytes(work.graph, narrow_columns)}});
  const double own = time_between_probes(state, probe, run);
  set_of_limit(state, probe.seconds(), own);
  for (const std::string library : {"scipy", "torch"}) {
    const double peer = python_peer_seconds(
        "spmm_peers.py",
        {library, library == "scipy" ? "1" : std::to_string(threads), work.folder->path(),
         std::to_string(narrow_nodes), std::to_string(narrow_columns)});
    if (!std::isnan(peer)) set_vs(state, library, peer, own);
  }
  set_threads(state, threads);
}

// ---------------------------------------------------------------- FastRP

const pare::graph::FastRpOptions fast_rp_options{
    .dim = graph_columns, .weights = {0, 0, 1, 7.81f}, .seed = 7};

constexpr int sampled_rows = 1000;

struct FastRpWork {
  Graph graph;
  double scipy_seconds = 0.0;
  RowMatrix scipy_rows;  ///< every (n / sampled_rows)-th row of scipy's embedding; empty without it
};

// scipy is handed the same operator, so its embedding is ours up to rounding; drawing the operator
// is then not in its time.
FastRpWork make_fast_rp_work() {
  FastRpWork work{power_law_graph(graph_nodes, graph_edges, graph_seed), 0.0, {}};
  const TemporaryFolder folder;
  write_graph(folder.file("graph"), work.graph);
  const SparseRows omega = pare::projection::materialize<float>(pare::projection::SparseProjection{
      .input_dim = graph_nodes,
      .output_dim = graph_columns,
      .density = 1.0 / std::sqrt(static_cast<double>(graph_nodes)),
      .seed = fast_rp_options.seed});
  write_graph(folder.file("operator"), omega);
  work.scipy_seconds = python_peer_seconds(
      "fast_rp_scipy.py",
      {folder.path(), std::to_string(graph_nodes), std::to_string(graph_columns),
       std::to_string(sampled_rows), "0,0,1,7.81", "0"},
      PeerResult::Read);
  std::ifstream rows(folder.file("rows"), std::ios::binary);
  if (rows) {
    work.scipy_rows.resize(sampled_rows, graph_columns);
    rows.read(reinterpret_cast<char*>(work.scipy_rows.data()),
              work.scipy_rows.size() * static_cast<std::streamsize>(sizeof(float)));
  }
  return work;
}

// Rounding errors of a sum of m terms grow like sqrt(m) u (Higham and Mary, SIAM J. Sci. Comput.
// 2019; factor 5 for all sums at once); the longest row decides, once a step, for both sides.
double fast_rp_tolerance(const Graph& graph) {
  int longest = 0;
  for (Index u = 0; u < graph.rows(); ++u)
    longest = std::max(longest, graph.outerIndexPtr()[u + 1] - graph.outerIndexPtr()[u]);
  const double step = 5.0 * std::sqrt(static_cast<double>(longest)) * 0x1p-24;
  return 2.0 * static_cast<double>(fast_rp_options.weights.size()) * step;
}

bool fast_rp_is_right_when_small() {
  const Graph graph = power_law_graph(2'000, 20'000, graph_seed);
  pare::graph::FastRpOptions options = fast_rp_options;
  options.dim = 33;
  const RowMatrix wanted = pare::graph::fast_rp(pare::reference, graph, options);
  const RowMatrix got = pare::graph::fast_rp(pare::simd.threads(2), graph, options);
  return agree(got, wanted, fast_rp_tolerance(graph));
}

void fast_rp(benchmark::State& state) {
  const int threads = all_threads();
  const double peak = peak_bytes_in_child("projection/fast_rp");
  FastRpWork& work = workload<FastRpWork>("fast_rp", make_fast_rp_work);
  RowMatrix embedding;
  const auto run = [&] {
    embedding = pare::graph::fast_rp(pare::simd.threads(threads), work.graph, fast_rp_options);
  };
  run();
  if (!fast_rp_is_right_when_small())
    return state.SkipWithError("result differs from the reference");
  RowMatrix rows(sampled_rows, graph_columns);
  for (Index i = 0; i < sampled_rows; ++i)
    rows.row(i) = embedding.row(i * (graph_nodes / sampled_rows));
  if (work.scipy_rows.size() != 0 && !agree(rows, work.scipy_rows, fast_rp_tolerance(work.graph)))
    return state.SkipWithError("result differs from scipy's");
  // The first two of four steps have few nonzeros, and are read as lists of them.
  const double hops = static_cast<double>(fast_rp_options.weights.size());
  const double gathered = gather_bytes(work.graph, graph_columns);
  LimitProbe probe(threads, {{Limit::dram_read, (hops - 2) * gathered}});
  const double own = time_between_probes(state, probe, run);
  set_of_limit(state, probe.seconds(), own);
  state.counters["of_dense_steps"] = hops / (hops - 2) * probe.seconds() / own;
  if (work.scipy_rows.size() != 0) set_vs(state, "scipy", work.scipy_seconds, own);
  set_peak(state, peak, bytes_of(work.graph) + 3.0 * sizeof(float) * graph_nodes * graph_columns);
  state.counters["edges/s"] = static_cast<double>(work.graph.nonZeros()) / own;
}

void fast_rp_in_child() {
  const Graph graph = power_law_graph(graph_nodes, graph_edges, graph_seed);
  const RowMatrix embedding =
      pare::graph::fast_rp(pare::simd.threads(all_threads()), graph, fast_rp_options);
  benchmark::DoNotOptimize(embedding.data());
}

// ---------------------------------------------------------------- registration

template <class Function>
void add(const std::string& name, Function function, int calls) {
  const auto with_threads = [function](int threads) {
    return [function, threads](benchmark::State& state) { function(state, threads); };
  };
  large(benchmark::RegisterBenchmark(name.c_str(), with_threads(all_threads())), calls);
  if (all_threads() > 1)
    large(benchmark::RegisterBenchmark((name + "/t1").c_str(), with_threads(1)), calls);
}

template <class R>
void add_dense(const std::string& family, const R& omega) {
  const std::string name = "projection/" + family;
  register_memory_task(name, [omega] { dense_in_child(omega); });
  add(
      name + "/10000x10000x1024",
      [name, omega](benchmark::State& state, int threads) {
        project_dense(state, name, omega, threads);
      },
      5);
}

const bool registered = [] {
  add_dense("dense", independent_entries);
  add_dense("sjlt", sparse_signs);
  add("projection/rademacher/4096x8192x1024", project_rademacher, 1);
  add("projection/spmm/powerlaw_200K_2M/32", spmm_narrow, 10);
  add("projection/spmm/powerlaw_1M_10M/256", spmm, 1);
  register_memory_task("projection/fast_rp", fast_rp_in_child);
  large(benchmark::RegisterBenchmark("projection/fast_rp/powerlaw_1M_10M/256", fast_rp), 1);
  return true;
}();

}  // namespace
