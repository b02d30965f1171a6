// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Layers of latent attention with random weights, and single rows of their output in double.

#include "latent_data.hpp"
#include "linear_data.hpp"

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/latent/attention_layer.hpp>
#include <pare/latent/cache.hpp>
#include <pare/latent/config.hpp>
#include <pare/latent/weights.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace pare::bench {

/// DeepSeek-V2-Lite's.
inline latent::LatentConfig v2_lite_config() {
  return {.width = 2048,
          .heads = 16,
          .nope = 128,
          .rope = 64,
          .value = 128,
          .latent = 512,
          .softmax_scale = latent::latent_softmax_scale(128, 64)};
}

/// Of a language model of 135 million weights, its 9 heads of 64 from a latent of 192.
inline latent::LatentConfig small_model_config() {
  return {.width = 576,
          .heads = 9,
          .nope = 64,
          .rope = 32,
          .value = 64,
          .latent = 192,
          .softmax_scale = latent::latent_softmax_scale(64, 32)};
}

/// Of all projections.
inline double weight_count(const latent::LatentConfig& c) {
  return static_cast<double>(c.width * (c.heads * (c.head_dim() + c.value) + c.row_dim()) +
                             c.heads * (c.nope + c.value) * c.latent);
}

template <class S>
latent::LatentWeights<S> random_latent_weights(const latent::LatentConfig& c) {
  return {.query = random_linear<S>(c.heads * c.head_dim(), c.width, 1),
          .latent_down = random_linear<S>(c.row_dim(), c.width, 2),
          .latent_norm = std::vector<float>(static_cast<std::size_t>(c.latent), 1.0f),
          .up = {c, random_linear<S>(c.heads * (c.nope + c.value), c.latent, 3)},
          .output = random_linear<S>(c.width, c.heads * c.value, 4)};
}

/// Copies of a layer with weights and a cache of S, `cached` random rows in each cache, and new
/// hidden states. Calls go round among the copies.
template <class S>
struct LatentLayerWork {
  LatentLayerWork(const latent::LatentConfig& sizes, Index cached_tokens, Index new_tokens,
                  std::size_t copies)
      : config(sizes),
        cached(cached_tokens),
        table(transformer::rotary_frequencies(sizes.rope), cached + new_tokens),
        rows(static_cast<std::size_t>(cached * sizes.row_dim())),
        hidden(uniform_matrix(new_tokens, sizes.width, 5)),
        out(RowMatrix::Zero(new_tokens, sizes.width)) {
    fill_uniform(rows.data(), cached * config.row_dim(), 6);
    for (std::size_t copy = 0; copy < copies; ++copy) {
      layers.emplace_back(config, random_latent_weights<S>(config), table);
      caches.emplace_back(latent::LatentCacheOptions{
          .latent = config.latent, .rope = config.rope, .pages = (cached + new_tokens) / 64 + 1});
      if (cached > 0) caches.back().append(0, cached_rows());
    }
  }
  LatentLayerWork(const LatentLayerWork&) = delete;
  LatentLayerWork& operator=(const LatentLayerWork&) = delete;

  TensorView<const S, 2> cached_rows() const {
    return {rows.data(), {cached, config.row_dim()}, {config.row_dim(), 1}};
  }

  /// The new tokens through the next copy, whose cache is as before afterwards.
  void run(int threads, const latent::LatentForwardOptions& options = {}) {
    const std::size_t copy = next++ % layers.size();
    layers[copy].forward(simd.threads(threads).with(workspace), hidden, caches[copy], out, options);
    caches[copy].truncate(0, cached);
  }

  latent::LatentConfig config;
  Index cached;
  transformer::RotaryTable<float> table;
  AlignedBuffer<S> rows;
  RowMatrix hidden, out;
  std::vector<latent::LatentAttention<S>> layers;
  std::vector<latent::LatentCache<S>> caches;
  Workspace workspace;
  std::size_t next = 0;
};

/// What the definition gives for the new tokens of a LatentLayerWork, in double and the absorbed
/// form.
template <class S>
class LatentLayerOracle {
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

 public:
  explicit LatentLayerOracle(const LatentLayerWork<S>& work)
      : work_(work), config_(work.config), rows_(work.cached + work.hidden.rows(), row_dim()) {
    const Matrix made =
        hidden() * matrix(work.layers[0].weights().latent_down.weights()).transpose();
    for (Index t = 0; t < rows_.rows(); ++t)
      if (t < work.cached)
        for (Index i = 0; i < row_dim(); ++i) rows_(t, i) = number(work.cached_rows()(t, i));
      else
        rows_.row(t) = cached_row(made.row(t - work.cached), t);
  }

  /// |got - wanted| / |wanted| of the row of a new token.
  double error(Index token) const {
    const auto& weights = work_.layers[0].weights();
    const Eigen::VectorXd query = matrix(weights.query.weights()) * hidden().row(token).transpose();
    const Matrix up = matrix(weights.up.all());
    const Index position = work_.cached + token, each = config_.nope + config_.value;
    Eigen::VectorXd outputs(config_.heads * config_.value);
    for (Index h = 0; h < config_.heads; ++h) {
      const Eigen::VectorXd q = query.segment(h * config_.head_dim(), config_.head_dim());
      Eigen::VectorXd absorbed(row_dim());
      absorbed.head(config_.latent) =
          up.middleRows(h * each, config_.nope).transpose() * q.head(config_.nope);
      absorbed.tail(config_.rope) = turned(q.tail(config_.rope), position);
      Eigen::VectorXd p = config_.softmax_scale * (rows_.topRows(position + 1) * absorbed);
      p = (p.array() - p.maxCoeff()).exp();
      const Eigen::VectorXd mean =
          rows_.topRows(position + 1).leftCols(config_.latent).transpose() * p / p.sum();
      outputs.segment(h * config_.value, config_.value) =
          up.middleRows(h * each + config_.nope, config_.value) * mean;
    }
    const Eigen::VectorXd wanted = matrix(weights.output.weights()) * outputs;
    const Eigen::VectorXd got = work_.out.row(token).transpose().template cast<double>();
    return (got - wanted).norm() / wanted.norm();
  }

 private:
  static double number(S x) { return static_cast<double>(static_cast<float>(x)); }
  static Matrix matrix(TensorView<const S, 2> w) {
    Matrix m(w.rows(), w.cols());
    for (Index i = 0; i < m.rows(); ++i)
      for (Index j = 0; j < m.cols(); ++j) m(i, j) = number(w(i, j));
    return m;
  }
  Matrix hidden() const { return work_.hidden.template cast<double>(); }
  Index row_dim() const { return config_.row_dim(); }

  /// Neighbours are a pair.
  Eigen::VectorXd turned(Eigen::VectorXd x, Index position) const {
    for (Index i = 0; i < x.size(); i += 2) {
      const double angle =
          static_cast<double>(position) *
          std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(x.size()));
      const double a = x[i], b = x[i + 1];
      x[i] = a * std::cos(angle) - b * std::sin(angle);
      x[i + 1] = b * std::cos(angle) + a * std::sin(angle);
    }
    return x;
  }

  Eigen::RowVectorXd cached_row(const Eigen::RowVectorXd& made, Index position) const {
    Eigen::RowVectorXd row(row_dim());
    const auto latent = made.head(config_.latent);
    row.head(config_.latent) =
        latent / std::sqrt(latent.squaredNorm() / static_cast<double>(config_.latent) +
                           config_.norm_epsilon);
    row.tail(config_.rope) = turned(made.tail(config_.rope).transpose(), position).transpose();
    return row;
  }

  const LatentLayerWork<S>& work_;
  const latent::LatentConfig& config_;
  Matrix rows_;
};

}  // namespace pare::bench
