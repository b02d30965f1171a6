// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Draft blocks with random weights, and the definition of one in double: all of the context at
/// once, no cache, plain sums.

#include <pare/core/tensor_view.hpp>
#include <pare/draft/draft_block.hpp>
#include <pare/draft/draft_block_config.hpp>
#include <pare/draft/draft_block_weights.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernel/quantized_oracle.hpp"
#include "latent/layers.hpp"
#include "transformer/rows.hpp"

namespace pare::testing {

using Doubles = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Sizes of which none is a multiple of a register but those that must be even; two query heads for
/// each key head.
inline draft::DraftBlockConfig small_block_config() {
  return {.width = 37,
          .tapped_width = 51,
          .layers = 3,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 10,
          .hidden = 45,
          .block = 7};
}

/// Weights whose projections are make(outputs, inputs, seed).
template <class L, class Make>
draft::DraftBlockWeights<L> random_block_weights(const draft::DraftBlockConfig& c,
                                                 const Make& make) {
  using T = transformer::linear_scalar<L>;
  std::uint64_t seed = 100;
  const auto linear = [&](Index outputs, Index inputs) { return make(outputs, inputs, ++seed); };
  const auto gains = [&](Index size) { return random_gains<T>(size, ++seed); };
  draft::DraftBlockWeights<L> weights{.context = linear(c.width, c.tapped_width),
                                      .context_norm = gains(c.width),
                                      .final_norm = gains(c.width)};
  for (Index i = 0; i < c.layers; ++i)
    weights.layers.push_back({.input_norm = gains(c.width),
                              .query = linear(c.query_width(), c.width),
                              .key = linear(c.key_width(), c.width),
                              .value = linear(c.key_width(), c.width),
                              .query_norm = gains(c.head_dim),
                              .key_norm = gains(c.head_dim),
                              .output = linear(c.width, c.query_width()),
                              .mlp_norm = gains(c.width),
                              .gate = linear(c.hidden, c.width),
                              .up = linear(c.hidden, c.width),
                              .down = linear(c.width, c.hidden)});
  return weights;
}

template <class S>
draft::DraftBlockWeights<transformer::DenseLinear<S>> random_block_weights(
    const draft::DraftBlockConfig& c) {
  return random_block_weights<transformer::DenseLinear<S>>(c, random_linear<S>);
}

/// The numbers of a layer's weight.
template <class L>
Doubles weight_of(const L& layer) {
  Doubles w(layer.outputs(), layer.inputs());
  for (Index o = 0; o < w.rows(); ++o)
    for (Index i = 0; i < w.cols(); ++i)
      if constexpr (requires { layer.blocks(); })
        w(o, i) =
            element_of<typename L::weight>(&layer.blocks()(o, i / 32), static_cast<int>(i % 32));
      else
        w(o, i) =
            static_cast<double>(static_cast<compute_t<typename L::weight>>(layer.weights()(o, i)));
  return w;
}

template <class X>
Doubles doubles_of(const X& x) {
  Doubles m(x.rows(), x.cols());
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j) m(i, j) = static_cast<double>(x(i, j));
  return m;
}

template <class T>
Doubles normed(const Doubles& x, const std::vector<T>& gain, double epsilon) {
  Doubles y = x;
  for (Index r = 0; r < x.rows(); ++r) {
    double squares = 0;
    for (Index j = 0; j < x.cols(); ++j) squares += x(r, j) * x(r, j);
    for (Index j = 0; j < x.cols(); ++j)
      y(r, j) = x(r, j) / std::sqrt(squares / static_cast<double>(x.cols()) + epsilon) *
                static_cast<double>(gain[static_cast<std::size_t>(j)]);
  }
  return y;
}

inline double silu(double x) { return x / (1 + std::exp(-x)); }

/// What a block does otherwise or wrong, for tests that must see it.
struct BlockFaults {
  double (*stored)(double) = [](double x) { return x; };  ///< what a cache makes of a number
  bool stale_length = false;  ///< layers after the first take layer 0's length, grown by the block
  bool block_positions = false;  ///< a block's positions start at 0
};

/// Rows of the whole block: [b, d], before the last norm.
template <class L>
Doubles plain_block_oracle(const draft::DraftBlockConfig& c, const draft::DraftBlockWeights<L>& w,
                           const Doubles& tapped, const Doubles& embeddings, double base,
                           const BlockFaults& faults = {}) {
  const Index n = tapped.rows(), b = embeddings.rows();
  const double eps = c.norm_epsilon;
  // Each head normed and turned: pair i is numbers i and i + dim / 2.
  const auto turned = [&](const Doubles& x, const auto& gain, Index first) {
    Doubles y = x;
    for (Index r = 0; r < x.rows(); ++r)
      for (Index h = 0; h < x.cols() / c.head_dim; ++h) {
        const Doubles head = normed(x.block(r, h * c.head_dim, 1, c.head_dim), gain, eps);
        Index position = first + r;
        if (faults.block_positions && position >= n) position -= n;
        for (Index i = 0; i < c.head_dim / 2; ++i) {
          const double angle =
              static_cast<double>(position) *
              std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim));
          const double first_of = head(0, i), second = head(0, i + c.head_dim / 2);
          y(r, h * c.head_dim + i) = first_of * std::cos(angle) - second * std::sin(angle);
          y(r, h * c.head_dim + i + c.head_dim / 2) =
              second * std::cos(angle) + first_of * std::sin(angle);
        }
      }
    return y;
  };
  const Doubles context = normed(tapped * weight_of(w.context).transpose(), w.context_norm, eps);
  Doubles x = embeddings;
  for (std::size_t layer = 0; layer < w.layers.size(); ++layer) {
    const auto& l = w.layers[layer];
    const Doubles h = normed(x, l.input_norm, eps);
    Doubles rows(n + b, c.width);
    rows << context, h;
    const Doubles q = turned(h * weight_of(l.query).transpose(), l.query_norm, n);
    const Doubles k =
        turned(rows * weight_of(l.key).transpose(), l.key_norm, 0).unaryExpr(faults.stored);
    const Doubles v = (rows * weight_of(l.value).transpose()).unaryExpr(faults.stored);
    Doubles attended = Doubles::Zero(b, c.query_width());
    for (Index i = 0; i < b; ++i)
      for (Index head = 0; head < c.heads; ++head) {
        const Index from = head * c.head_dim, of = head / (c.heads / c.kv_heads) * c.head_dim;
        const Index cached = faults.stale_length && layer > 0 ? n + b : 0;
        const Index seen = std::min(n + b, cached + n + i + 1);
        std::vector<double> e(static_cast<std::size_t>(seen));
        double most = -1e300, sum = 0;
        for (Index j = 0; j < seen; ++j) {
          double score = 0;
          for (Index t = 0; t < c.head_dim; ++t) score += q(i, from + t) * k(j, of + t);
          e[static_cast<std::size_t>(j)] = score / std::sqrt(static_cast<double>(c.head_dim));
          most = std::max(most, e[static_cast<std::size_t>(j)]);
        }
        for (double& s : e) sum += s = std::exp(s - most);
        for (Index j = 0; j < seen; ++j)
          for (Index t = 0; t < c.head_dim; ++t)
            attended(i, from + t) += e[static_cast<std::size_t>(j)] / sum * v(j, of + t);
      }
    x += attended * weight_of(l.output).transpose();
    const Doubles m = normed(x, l.mlp_norm, eps);
    Doubles gate = m * weight_of(l.gate).transpose();
    gate = gate.unaryExpr(&silu).cwiseProduct(m * weight_of(l.up).transpose());
    x += gate * weight_of(l.down).transpose();
  }
  return x;
}

/// The rows that are used, as the head takes them: [b - 1, d].
template <class L>
Doubles block_oracle(const draft::DraftBlockConfig& c, const draft::DraftBlockWeights<L>& w,
                     const Doubles& tapped, const Doubles& embeddings, double base,
                     const BlockFaults& faults = {}) {
  const Doubles x = normed(plain_block_oracle(c, w, tapped, embeddings, base, faults), w.final_norm,
                           c.norm_epsilon);
  return x.middleRows(c.draft_shift ? 0 : 1, x.rows() - 1);
}

/// The largest difference, relative to the largest wanted number; infinity for a NaN.
template <class X>
double block_difference(const X& got, const Doubles& wanted) {
  double most = 0;
  for (Index i = 0; i < wanted.rows(); ++i)
    for (Index j = 0; j < wanted.cols(); ++j) {
      const double d = std::abs(static_cast<double>(got(i, j)) - wanted(i, j));
      most = std::isfinite(d) ? std::max(most, d) : std::numeric_limits<double>::infinity();
    }
  return most / wanted.cwiseAbs().maxCoeff();
}

}  // namespace pare::testing
