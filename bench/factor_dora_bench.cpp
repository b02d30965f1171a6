// SPDX-License-Identifier: Apache-2.0

/// \file
/// DoRA's row norms against forming the adapted weight, and the factored layer against the dense
/// one: both are worth their place only if fewer FLOPs become less time.

#include "check.hpp"
#include "child_memory.hpp"
#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/tensor_view.hpp>
#include <pare/factor/apply.hpp>
#include <pare/factor/dora.hpp>
#include <pare/linalg/multiply.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace {
using namespace pare::bench;
using pare::as_const;
using pare::Index;
using pare::to_view;
using pare::transpose;

constexpr double mebibyte = 1 << 20;

// ---------------------------------------------------------------- DoRA

constexpr Index out = 8192, in = 8192, rank = 384;
constexpr double scale = 0.5;
constexpr const char* norm_name = "factor/dora_norm/8192x8192/r384";

struct NormWork {
  RowMatrix w = uniform_matrix(out, in, 1), a = uniform_matrix(rank, in, 2),
            b = uniform_matrix(out, rank, 3);
  RowMatrix dense = RowMatrix::Zero(out, in);  ///< of the peers
  Eigen::VectorXf norms = Eigen::VectorXf::Zero(out), peer_norms = Eigen::VectorXf::Zero(out);
};

NormWork make_norm_work() {
  NormWork work;
  // Rows of an adapter that was trained: a tenth of the norms of W's.
  work.a *= 0.1f;
  work.b *= 0.1f;
  return work;
}

/// What the three sums take: W A^T, half of A A^T, and its product with B.
double norm_flops() {
  const auto m = static_cast<double>(out), n = static_cast<double>(in),
             r = static_cast<double>(rank);
  return 2 * m * n * r + n * r * r + 2 * m * r * r;
}

/// W + scale B A by Pare's own product and the norms of its rows; W is copied since it is frozen.
void dense_norms(NormWork& work, int threads) {
  const auto backend = pare::simd.threads(threads);
  over_ranges(threads, out, 64, [&](Index begin, Index end) {
    work.dense.middleRows(begin, end - begin) = work.w.middleRows(begin, end - begin);
  });
  const std::vector<float> factors(static_cast<std::size_t>(out), static_cast<float>(scale));
  pare::linalg::multiply(backend, as_const(to_view(work.b)), as_const(to_view(work.a)),
                         to_view(work.dense), {.accumulate = true, .row_scale = factors.data()});
  over_ranges(threads, out, 64, [&](Index begin, Index end) {
    work.peer_norms.segment(begin, end - begin) =
        work.dense.middleRows(begin, end - begin).rowwise().norm();
  });
}

std::vector<Formulation> eigen_norms(NormWork& work, int threads) {
  const auto norms_of = [&work](Index begin, Index rows) {
    work.peer_norms.segment(begin, rows) = work.dense.middleRows(begin, rows).rowwise().norm();
  };
  return {{"W + s (B A), rows shared out",
           [=, &work] {
             Eigen::setNbThreads(1);
             over_ranges(threads, out, 512, [&](Index begin, Index end) {
               auto dense = work.dense.middleRows(begin, end - begin);
               dense = work.w.middleRows(begin, end - begin);
               dense.noalias() +=
                   static_cast<float>(scale) * work.b.middleRows(begin, end - begin) * work.a;
               norms_of(begin, end - begin);
             });
           }},
          {"W A^T and A A^T, rows shared out", [=, &work] {
             Eigen::setNbThreads(1);
             const auto s = static_cast<float>(scale);
             const RowMatrix gram = work.a * work.a.transpose();
             over_ranges(threads, out, 512, [&](Index begin, Index end) {
               const auto w = work.w.middleRows(begin, end - begin);
               const auto b = work.b.middleRows(begin, end - begin);
               const RowMatrix u = w * work.a.transpose(), v = b * gram;
               work.peer_norms.segment(begin, end - begin) =
                   (w.rowwise().squaredNorm() + 2 * s * b.cwiseProduct(u).rowwise().sum() +
                    s * s * b.cwiseProduct(v).rowwise().sum())
                       .cwiseSqrt();
             });
           }}};
}

bool norms_are_right(const NormWork& work) {
  constexpr Index sample = 8;
  for (const Index begin : {Index{0}, out / 2 - 3, out - sample}) {
    const RowMatrix w = work.w.middleRows(begin, sample), b = work.b.middleRows(begin, sample);
    Eigen::VectorXd wanted(sample);
    pare::factor::dora_norms(pare::reference, w, work.a, b, scale, wanted);
    if (!agree(work.norms.segment(begin, sample), wanted, 1e-6)) return false;
  }
  return true;
}

void dora_norm(benchmark::State& state, int threads) {
  const double peak = peak_bytes_in_child(norm_name);
  NormWork& work = workload<NormWork>("dora norm", make_norm_work);
  pare::Workspace workspace;
  const auto run = [&] {
    pare::factor::dora_norms(pare::simd.threads(threads).with(workspace), work.w, work.a, work.b,
                             scale, work.norms);
  };
  run();
  if (!norms_are_right(work)) return state.SkipWithError("result differs from the reference");
  dense_norms(work, threads);
  if (!agree(work.peer_norms, work.norms, 1e-5))
    return state.SkipWithError("the dense norms differ");
  LimitProbe probe(threads, {{Limit::fma_f32, norm_flops()}});
  const double own = time_between_probes(state, probe, run);
  set_of_limit(state, probe.seconds(), own);
  const std::string t = " t" + std::to_string(threads);
  set_vs(state, "dense",
         peer_seconds("dense dora norm" + t,
                      {{"W + s B A by linalg::multiply", [&] { dense_norms(work, threads); }}}),
         own);
  set_vs(state, "eigen", peer_seconds("eigen dora norm" + t, eigen_norms(work, threads)), own);
  // W, A, B; what [out x rank] and [rank x rank] take; and the rest of a process.
  const double inputs = sizeof(float) * (static_cast<double>(out) * in + rank * (in + out));
  if (threads == all_threads())
    set_peak(state, peak, inputs + sizeof(float) * rank * (out + rank) + 8 * mebibyte);
  set_threads(state, threads);
}

void dora_norm_in_child() {
  const RowMatrix w = uniform_matrix(out, in, 1), a = uniform_matrix(rank, in, 2),
                  b = uniform_matrix(out, rank, 3);
  Eigen::VectorXf norms(out);
  pare::factor::dora_norms(pare::simd.threads(all_threads()), w, a, b, scale, norms);
  benchmark::DoNotOptimize(norms.data());
}

// ---------------------------------------------------------------- the factored layer

constexpr Index side = 4096, layer_rank = 512, tokens = 512;

struct ApplyWork {
  RowMatrix w = uniform_matrix(side, side, 1), left = uniform_matrix(side, layer_rank, 2),
            right = uniform_matrix(layer_rank, side, 3), x = uniform_matrix(tokens, side, 4);
  RowMatrix y = RowMatrix::Zero(tokens, side), dense_y = RowMatrix::Zero(tokens, side);
};

double apply_flops() { return 2.0 * tokens * layer_rank * (side + side); }

bool apply_is_right(const ApplyWork& work) {
  const RowMatrix x = work.x.topRows(8);
  RowMatrix wanted(8, side);
  pare::factor::apply(pare::reference, work.left, work.right, x, wanted);
  return agree(work.y.topRows(8), wanted, 1e-5);
}

void apply_layer(benchmark::State& state, int threads) {
  ApplyWork& work = workload<ApplyWork>("apply", [] { return ApplyWork(); });
  pare::Workspace workspace;
  const auto backend = pare::simd.threads(threads).with(workspace);
  const auto run = [&] { pare::factor::apply(backend, work.left, work.right, work.x, work.y); };
  run();
  if (!apply_is_right(work)) return state.SkipWithError("result differs from the reference");
  LimitProbe probe(threads, {{Limit::fma_f32, apply_flops()}});
  const double own = time_between_probes(state, probe, run);
  set_of_limit(state, probe.seconds(), own);
  const std::string t = " t" + std::to_string(threads);
  const double dense = peer_seconds("dense layer" + t, {{"X W^T by linalg::multiply", [&] {
                                                           pare::linalg::multiply(
                                                               backend, as_const(to_view(work.x)),
                                                               transpose(as_const(to_view(work.w))),
                                                               to_view(work.dense_y));
                                                         }}});
  set_vs(state, "dense", dense, own);
  const double flop_ratio = 2.0 * tokens * side * side / apply_flops();
  state.counters["of_flop_saving"] = dense / own / flop_ratio;
  const auto eigen_rows = [&](const auto& multiply) {
    Eigen::setNbThreads(1);
    over_ranges(threads, tokens, std::max<Index>(32, tokens / (2 * threads)),
                [&](Index begin, Index end) { multiply(begin, end - begin); });
  };
  set_vs(state, "eigen",
         peer_seconds("eigen factored layer" + t,
                      {{"(X right^T) left^T, rows shared out",
                        [&] {
                          eigen_rows([&](Index begin, Index rows) {
                            const RowMatrix middle =
                                work.x.middleRows(begin, rows) * work.right.transpose();
                            work.dense_y.middleRows(begin, rows).noalias() =
                                middle * work.left.transpose();
                          });
                        }}}),
         own);
  set_vs(state, "eigen_dense",
         peer_seconds("eigen dense layer" + t,
                      {{"X W^T, rows shared out",
                        [&] {
                          eigen_rows([&](Index begin, Index rows) {
                            work.dense_y.middleRows(begin, rows).noalias() =
                                work.x.middleRows(begin, rows) * work.w.transpose();
                          });
                        }}}),
         own);
  set_threads(state, threads);
}

const bool registered = [] {
  register_memory_task(norm_name, dora_norm_in_child);
  const auto add = [](const std::string& name, auto function, int calls) {
    for (const int threads : {all_threads(), 1}) {
      const std::string full = threads == all_threads() ? name : name + "/t1";
      large(benchmark::RegisterBenchmark(
                full.c_str(),
                [function, threads](benchmark::State& state) { function(state, threads); }),
            calls);
      if (all_threads() == 1) break;
    }
  };
  add(norm_name, dora_norm, 3);
  add("factor/apply/4096x4096/r512/n512", apply_layer, 10);
  return true;
}();

}  // namespace
