// SPDX-License-Identifier: Apache-2.0

/// \file
/// Conversion of grouped heads to latents, of a layer of a language model of 135 million weights
/// and of one of a billion: weight-only SVD, CARE and TransMLA.
///
/// Torch's ways are that of the paper's code and faster ones; they do not say what was lost, which
/// ours do. The limit is the products that each asks for, without that error, and nine cubes of
/// outputs for the eigenvectors, at the peak of multiply-adds in double. Eigenvectors, on one
/// thread, come nowhere near it.

#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/factor/covariance.hpp>
#include <pare/factor/metric.hpp>
#include <pare/latent/convert/care.hpp>
#include <pare/latent/convert/kv_latents.hpp>
#include <pare/latent/convert/mha2mla.hpp>
#include <pare/latent/convert/rotary_pairs.hpp>
#include <pare/latent/convert/transmla.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::latent;
using pare::Index;

struct Sizes {
  const char* name;
  Index heads, kv_heads, head_dim, width, rank;

  Index outputs() const { return kv_heads * head_dim; }
  AttentionShape shape() const {
    return {.heads = heads, .kv_heads = kv_heads, .head_dim = head_dim};
  }
};

/// Random weights, and inputs whose features shrink as i^-1/2.
struct ConvertWork {
  explicit ConvertWork(const Sizes& s)
      : query(uniform_matrix(s.heads * s.head_dim, s.width, 1)),
        key(uniform_matrix(s.outputs(), s.width, 2)),
        value(uniform_matrix(s.outputs(), s.width, 3)),
        inputs(s.width) {
    RowMatrix x = uniform_matrix(2 * s.width, s.width, 4);
    for (Index i = 0; i < s.width; ++i) x.col(i) /= std::sqrt(static_cast<float>(i + 1));
    inputs.add(x);
  }

  RowMatrix query, key, value;
  pare::factor::Covariance inputs;
};

ConvertWork& convert_work(const Sizes& sizes) {
  return *workload<std::unique_ptr<ConvertWork>>(std::string("latent convert ") + sizes.name, [&] {
    return std::make_unique<ConvertWork>(sizes);
  });
}

/// The least ||(W - up down) R|| / ||W R|| that a rank allows, R R^T = c: the tail of the
/// eigenvalues of W c W^T.
double least_error(const RowMatrix& w, const Eigen::MatrixXd& c, Index rank) {
  const Eigen::MatrixXd wide = w.cast<double>();
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(wide * c * wide.transpose(),
                                                              Eigen::EigenvaluesOnly);
  const Eigen::VectorXd& values = solver.eigenvalues();  // ascending
  return std::sqrt(values.head(values.size() - rank).sum() / values.sum());
}

/// The same of factors.
double error_of(const RowMatrix& w, const RowMatrix& up, const RowMatrix& down,
                const Eigen::MatrixXd& c) {
  const Eigen::MatrixXd wide = w.cast<double>();
  const Eigen::MatrixXd off = wide - up.cast<double>() * down.cast<double>();
  return std::sqrt((off * c).cwiseProduct(off).sum() / (wide * c).cwiseProduct(wide).sum());
}

/// Whether keys lose no more than must be lost. CARE's damping is not in what is measured.
bool is_best(const RowMatrix& w, const pare::factor::LowRank<float>& latents,
             const Eigen::MatrixXd& c, double slack) {
  const double least = least_error(w, c, latents.rank());
  return std::abs(error_of(w, latents.left, latents.right, c) / least - 1) <= slack;
}

/// Whether queries and keys have the scores that they had where all tokens have one position: with
/// full rank a sum of content and rotary part, of each head W_Q^T W_K.
bool keeps_scores(const ConvertWork& work, const Sizes& s) {
  const Index rank = 2 * s.outputs() - s.head_dim;
  const auto mla =
      to_mla(pare::simd, work.query, work.key, work.value, work.inputs, s.shape(), {.rank = rank});
  const Index each = 2 * s.head_dim, h = s.heads - 1, kv = s.kv_heads - 1;
  const RowMatrix query = mla.query.middleRows(h * each, each);
  const RowMatrix content = mla.up.middleRows(h * each, s.head_dim) * mla.down.topRows(rank);
  const RowMatrix got = query.topRows(s.head_dim).transpose() * content +
                        query.bottomRows(s.head_dim).transpose() * mla.down.bottomRows(s.head_dim);
  const RowMatrix wanted = work.query.middleRows(h * s.head_dim, s.head_dim).transpose() *
                           work.key.middleRows(kv * s.head_dim, s.head_dim);
  return (got - wanted).norm() <= 1e-5f * wanted.norm();
}

double torch_seconds(const std::string& way, const Sizes& s, int threads) {
  std::vector<std::string> arguments{way, std::to_string(threads)};
  for (const Index size : {s.heads, s.kv_heads, s.head_dim, s.width, s.rank})
    arguments.push_back(std::to_string(size));
  return python_peer_seconds("latent_convert_torch.py", arguments);
}

/// Work of so many flops of products, and the eigenvectors of `outputs`, beside torch's ways.
template <class Work>
void time_conversion(benchmark::State& state, const Sizes& sizes, double products, double outputs,
                     int threads, const std::vector<std::string>& ways, const Work& work) {
  const double flops = products + 9 * outputs * outputs * outputs;
  LimitProbe probe(threads, {{Limit::fma_f64, flops}});
  const double own = time_between_probes(state, probe, work);
  set_of_limit(state, probe.seconds(), own);
  for (const std::string& way : ways)
    set_vs(state, "torch_" + way, torch_seconds(way, sizes, threads), own);
  set_threads(state, threads);
}

void svd(benchmark::State& state, const Sizes& s, int threads) {
  const ConvertWork& work = convert_work(s);
  const auto convert = [&] {
    return separate_latents(pare::simd.threads(threads), work.key, work.value,
                            pare::factor::Uniform{}, {.key_rank = s.rank, .value_rank = s.rank});
  };
  if (!is_best(work.key, convert().key, Eigen::MatrixXd::Identity(s.width, s.width), 1e-4))
    return state.SkipWithError("keys lose more than they must");
  const auto n = static_cast<double>(s.outputs()), d = static_cast<double>(s.width),
             r = static_cast<double>(s.rank);
  time_conversion(state, s, 2 * (n * n * d + 2 * n * r * d), std::cbrt(2.0) * n, threads,
                  {"svd", "gram"}, convert);
}

void care(benchmark::State& state, const Sizes& s, int threads) {
  const ConvertWork& work = convert_work(s);
  const auto convert = [&] {
    return care_latents(pare::simd.threads(threads), work.key, work.value, work.inputs,
                        {.key_rank = s.rank, .value_rank = s.rank});
  };
  if (!is_best(work.key, convert().key, work.inputs.matrix(), 1e-2))
    return state.SkipWithError("keys lose more than they must");
  const auto n = static_cast<double>(s.outputs()), d = static_cast<double>(s.width),
             r = static_cast<double>(s.rank);
  time_conversion(state, s, 2 * (2 * n * d * d + n * n * d + 2 * n * r * d), std::cbrt(2.0) * n,
                  threads, {"root", "cholesky", "outputs"}, convert);
}

void transmla(benchmark::State& state, const Sizes& s, int threads) {
  const ConvertWork& work = convert_work(s);
  if (!keeps_scores(work, s)) return state.SkipWithError("scores are not kept at full rank");
  const auto n = static_cast<double>(s.outputs()), d = static_cast<double>(s.width),
             both = 2 * n - static_cast<double>(s.head_dim), r = static_cast<double>(s.rank);
  // Second moments of keys, of balanced keys and values, and W_Q by the turn.
  const double products = 2 * (n + both) * d * (d + n) + 4 * both * r * d;
  time_conversion(state, s, products, both, threads, {"transmla"}, [&] {
    to_mla(pare::simd.threads(threads), work.query, work.key, work.value, work.inputs, s.shape(),
           {.rank = s.rank});
  });
}

/// Numbers of a head that keep their rotation: pairs 0, 4, 8, ... of 32.
constexpr Index kept_pairs = 8;

/// The rows of W_K whose numbers lose their rotation, and W_V: what one latent replaces.
RowMatrix unrotated_rows(const ConvertWork& work, const Sizes& s) {
  const Index step = s.head_dim / 2 / kept_pairs, content = s.head_dim - 2 * kept_pairs;
  RowMatrix rows(s.kv_heads * content + s.outputs(), s.width);
  Index at = 0;
  for (Index r = 0; r < s.outputs(); ++r)
    if (r % s.head_dim / 2 % step != 0) rows.row(at++) = work.key.row(r);
  rows.bottomRows(s.outputs()) = work.value;
  return rows;
}

void mha2mla(benchmark::State& state, const Sizes& s, int threads) {
  const ConvertWork& work = convert_work(s);
  const auto convert = [&] {
    return to_partial_rope(pare::simd.threads(threads), work.query, work.key, work.value,
                           pare::factor::Uniform{}, s.shape(), uniform_pairs(s.shape(), kept_pairs),
                           {.rank = s.rank});
  };
  const auto mla = convert();
  const RowMatrix rows = unrotated_rows(work, s);
  pare::factor::LowRank<float> latent;
  latent.left.resize(rows.rows(), s.rank);
  latent.left << mla.key_up, mla.value_up;
  latent.right = mla.down;
  if (!is_best(rows, latent, Eigen::MatrixXd::Identity(s.width, s.width), 1e-4))
    return state.SkipWithError("keys and values lose more than they must");
  const auto n = static_cast<double>(rows.rows()), d = static_cast<double>(s.width),
             r = static_cast<double>(s.rank);
  time_conversion(state, s, n * n * d + 2 * n * r * d, n, threads, {"mha2mla", "mha2mla_gram"},
                  convert);
}

void add(const Sizes& sizes) {
  struct Kind {
    const char* name;
    void (*run)(benchmark::State&, const Sizes&, int);
  };
  for (const Kind kind :
       {Kind{"svd", svd}, Kind{"care", care}, Kind{"transmla", transmla}, Kind{"mha2mla", mha2mla}})
    for (const int threads : {1, all_threads()}) {
      const std::string name = std::string("latent/convert/") + kind.name + "/" + sizes.name +
                               "/r" + std::to_string(sizes.rank) +
                               (threads > 1 ? "/threads_all" : "");
      large(benchmark::RegisterBenchmark(
                name.c_str(), [=](benchmark::State& state) { kind.run(state, sizes, threads); }),
            1);
      if (all_threads() == 1) break;
    }
}

const bool registered = [] {
  add({"h9_kv3_d64", 9, 3, 64, 576, 96});
  add({"h32_kv8_d64", 32, 8, 64, 2048, 256});
  return true;
}();

}  // namespace
