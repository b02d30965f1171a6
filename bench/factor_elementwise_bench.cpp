// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sweeps of alternating least squares with a weight for each element, on layers and ranks of a
/// small language model that keeps 90 or 50 % of its parameters: beside a matrix and a
/// decomposition a line, as Eigen has them, and beside what those take at the peak of fused
/// multiply-adds.

#include "counters.hpp"
#include "factor_data.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/factor/elementwise.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;
using pare::factor::ElementwiseOptions;

struct Shape {
  Index rows, cols, rank;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(cols) + "/r" + std::to_string(rank);
  }
};

/// Weights of rank one, rows over one and columns over two orders of magnitude, each times the mean
/// of four squares of normal numbers: somewhat more uneven than the mean squares of 64 gradients.
struct ElementwiseWork {
  explicit ElementwiseWork(const Shape& shape)
      : w(matrix_with_singular_values(shape.rows, shape.cols,
                                      power_law_values(std::min(shape.rows, shape.cols), 0.4), 5)),
        f(shape.rows, shape.cols) {
    SplitMix64 random(3);
    Eigen::VectorXf rows(shape.rows), cols(shape.cols);
    for (float& x : rows) x = static_cast<float>(std::exp(3 * random.unit()));
    for (float& x : cols) x = static_cast<float>(std::exp(5 * random.unit()));
    // Two of -2 log(u) make four squares.
    const auto squares = [&] { return -std::log((1 - random.unit()) * (1 - random.unit())) / 2; };
    for (Index i = 0; i < f.rows(); ++i)
      for (Index j = 0; j < f.cols(); ++j)
        f(i, j) = rows[i] * cols[j] * static_cast<float>(squares());
  }

  RowMatrix w, f;
};

/// The lines of one factor, each by a weighted Gram matrix and its decomposition: the seconds of
/// all from those of `some`.
double seconds_of_lines(const RowMatrix& f, Index rank) {
  const Index some = std::min<Index>(f.rows(), 24);
  const Eigen::MatrixXf v = uniform_matrix(rank, f.cols(), 7);
  Eigen::MatrixXf weighted(rank, f.cols()), gram(rank, rank);
  Eigen::VectorXf step = Eigen::VectorXf::Ones(rank);
  Eigen::LLT<Eigen::MatrixXf> cholesky(rank);
  Eigen::setNbThreads(1);
  const double taken = seconds([&] {
    for (Index i = 0; i < some; ++i) {
      weighted = v * f.row(i).cwiseSqrt().asDiagonal();
      gram.setZero();
      gram.selfadjointView<Eigen::Lower>().rankUpdate(weighted);
      cholesky.compute(gram);
      cholesky.solveInPlace(step);
      benchmark::DoNotOptimize(step.data());
    }
  });
  return taken * static_cast<double>(f.rows()) / static_cast<double>(some);
}

double flops_of_lines(const Shape& s) {
  const auto out = static_cast<double>(s.rows), in = static_cast<double>(s.cols),
             k = static_cast<double>(s.rank);
  return 2 * out * in * k * k + (out + in) * k * k * k / 3;
}

void sweep(benchmark::State& state, const Shape& shape, int threads) {
  const ElementwiseWork& work = workload<ElementwiseWork>("elementwise " + shape.name(),
                                                          [&] { return ElementwiseWork(shape); });
  constexpr int sweeps = 4;
  const auto backend = pare::simd.threads(threads);
  // Sweeps that go on from factors: neither start nor end is timed.
  const auto run = [&](const auto& from, int count) {
    const ElementwiseOptions options{.rank = shape.rank, .sweeps = count, .tolerance = 0};
    return pare::factor::elementwise_svd(backend, work.w, work.f, from.left, from.right, options);
  };
  const ElementwiseOptions none{.rank = shape.rank, .sweeps = 0};
  const auto start = pare::factor::elementwise_svd(backend, work.w, work.f, none).factors;
  const auto r = run(start, sweeps);
  const double loss =
      pare::factor::elementwise_loss(backend, work.w, work.f, r.factors.left, r.factors.right);
  if (!(r.losses.back() < 0.99 * r.losses.front() && std::abs(loss / r.losses.back() - 1) < 1e-4))
    return state.SkipWithError("the loss is not what the result says, or does not fall");
  LimitProbe probe(threads, {{Limit::fma_f32, flops_of_lines(shape)}});
  const RowMatrix turned = work.f.transpose();
  std::vector<double> own, lines;
  for (auto _ : state) {
    probe.sample();
    const double without = seconds([&] { run(start, 0); });
    own.push_back((seconds([&] { run(start, sweeps); }) - without) / sweeps);
    lines.push_back(seconds_of_lines(work.f, shape.rank) + seconds_of_lines(turned, shape.rank));
    state.SetIterationTime(own.back());
  }
  state.counters["loss_fell_to"] = r.losses.back() / r.losses.front();
  // Eigen's lines are those of one thread.
  if (threads == 1) set_vs(state, "eigen_lines", median(lines), median(own));
  set_vs(state, "lines_at_peak", probe.seconds(), median(own));
  set_threads(state, threads);
}

const bool registered = [] {
  for (const Shape& shape :
       {Shape{576, 576, 259}, Shape{576, 576, 144}, Shape{1536, 576, 377}, Shape{1536, 576, 209}})
    for (const int threads : {all_threads(), 1})
      large(benchmark::RegisterBenchmark(
                ("factor/elementwise_sweep/" + shape.name() + (threads == 1 ? "/t1" : "")).c_str(),
                [=](benchmark::State& state) { sweep(state, shape, threads); }),
            1);
  return true;
}();

}  // namespace
