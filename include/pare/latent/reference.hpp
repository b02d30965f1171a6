// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of latent attention, in both of its forms, in plain loops and double.
///
/// ```cpp
/// reference_expanded(config, weights, rotary_frequencies(64), hidden, out);   // [tokens, d]
/// reference_absorbed(config, weights, rotary_frequencies(64), hidden, out);   // but for rounding
/// ```
///
/// Of token t at position p_t, W the weights of weights.hpp:
///
///     c_q = RMSNorm(W_DQ x_t), q_h = W_UQ,h c_q = [q_n | q_r], q_r rotated by p_t
///     [c | k_r] = W_DKV x_t, c_t = RMSNorm(c), k_t = k_r rotated by p_t: this is what is cached
///
///     expanded: k_h = [W_UK,h c_t | k_t], v_h = W_UV,h c_t
///               o_h = sum_j softmax_j(scale q_h . k_h,j) v_h,j
///     absorbed: a_h = [W_UK,h^T q_n | q_r], u_h = sum_j softmax_j(scale a_h . [c_j | k_j]) c_j
///               o_h = W_UV,h u_h
///     y_t = W_O [o_1 ... o_H]
///
/// Norms that a model does not have, and W_DQ, are left out. Source: DeepSeek-V3's inference code.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/config.hpp>
#include <pare/latent/weights.hpp>
#include <pare/transformer/rotary.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace pare::latent {

/// Options of reference_expanded and reference_absorbed.
struct LatentReferenceOptions {
  transformer::RotaryLayout layout = transformer::RotaryLayout::Interleaved;
  /// Of each token, for its rotation; left out: token t has position t.
  std::optional<std::span<const Index>> positions{};
  bool causal = true;  ///< token t sees tokens up to t, wherever they are rotated to
};

namespace detail {
PARE_ABI_BEGIN

using Doubles = RowMatrix<double>;

template <class S>
double in_double(S x) {
  return static_cast<double>(static_cast<compute_t<S>>(x));
}

template <class S>
Doubles in_double(TensorView<const S, 2> m) {
  Doubles wide(m.rows(), m.cols());
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j) wide(i, j) = in_double(m(i, j));
  return wide;
}

/// x W^T.
template <class S>
Doubles times_weight(const Doubles& x, TensorView<const S, 2> w) {
  Doubles y = Doubles::Zero(x.rows(), w.rows());
  for (Index r = 0; r < x.rows(); ++r)
    for (Index o = 0; o < w.rows(); ++o)
      for (Index i = 0; i < w.cols(); ++i) y(r, o) += in_double(w(o, i)) * x(r, i);
  return y;
}

/// The RMS norm of the first numbers of each row, as many as there are gains.
template <class T>
void norm_rows(Doubles& x, const std::optional<std::vector<T>>& gain, double epsilon) {
  if (!gain) return;
  const auto dim = static_cast<Index>(gain->size());
  for (Index r = 0; r < x.rows(); ++r) {
    double squares = 0;
    for (Index i = 0; i < dim; ++i) squares += x(r, i) * x(r, i);
    const double root = std::sqrt(squares / static_cast<double>(dim) + epsilon);
    for (Index i = 0; i < dim; ++i)
      x(r, i) *= static_cast<double>((*gain)[static_cast<std::size_t>(i)]) / root;
  }
}

/// Turns the numbers [begin, begin + 2 pairs) of each row by the angles of its position.
template <class A>
void turn_rows(Doubles& x, Index begin, const A& angles, const LatentReferenceOptions& options) {
  const Index pairs = static_cast<Index>(angles.pairs());
  const bool interleaved = options.layout == transformer::RotaryLayout::Interleaved;
  double magnitude = 1;
  if constexpr (requires { angles.magnitude(); }) magnitude = angles.magnitude();
  for (Index r = 0; r < x.rows(); ++r)
    for (Index i = 0; i < pairs; ++i) {
      const Index p = options.positions ? (*options.positions)[static_cast<std::size_t>(r)] : r;
      const double angle = angles.angle(p, i);
      double& a = x(r, begin + (interleaved ? 2 * i : i));
      double& b = x(r, begin + (interleaved ? 2 * i + 1 : i + pairs));
      const double first = a, second = b;
      a = magnitude * (first * std::cos(angle) - second * std::sin(angle));
      b = magnitude * (second * std::cos(angle) + first * std::sin(angle));
    }
}

/// Queries [tokens, H (d_n + d_r)] and rows of the cache [tokens, d_c + d_r], both rotated.
struct LatentRows {
  Doubles queries, cached;
};

template <class S, class A, class T>
LatentRows reference_rows(const LatentConfig& config,
                          const LatentWeights<S, transformer::DenseLinear<S>>& weights,
                          const A& angles, TensorView<const T, 2> hidden,
                          const LatentReferenceOptions& options) {
  const Doubles x = in_double(hidden);
  Doubles inputs = x;
  if (weights.query_down) {
    inputs = times_weight(x, weights.query_down->weights());
    norm_rows(inputs, weights.query_norm, config.norm_epsilon);
  }
  LatentRows rows{times_weight(inputs, weights.query.weights()),
                  times_weight(x, weights.latent_down.weights())};
  norm_rows(rows.cached, weights.latent_norm, config.norm_epsilon);
  if (config.rope == 0) return rows;
  turn_rows(rows.cached, config.latent, angles, options);
  for (Index h = 0; h < config.heads; ++h)
    turn_rows(rows.queries, h * config.head_dim() + config.nope, angles, options);
  return rows;
}

/// out_i = sum_j softmax_j(scale q_i . k_j) v_j, of one head.
template <class = void>  // compiled where it is called
void reference_head(const Doubles& q, const Doubles& k, const Doubles& v, double scale, bool causal,
                    Eigen::Ref<Doubles, 0, Eigen::OuterStride<>> out) {
  for (Index i = 0; i < q.rows(); ++i) {
    const Index seen = causal ? i + 1 : k.rows();
    std::vector<double> weight(static_cast<std::size_t>(seen));
    double most = -std::numeric_limits<double>::infinity(), sum = 0;
    for (Index j = 0; j < seen; ++j) {
      double score = 0;
      for (Index d = 0; d < q.cols(); ++d) score += q(i, d) * k(j, d);
      weight[static_cast<std::size_t>(j)] = scale * score;
      most = std::max(most, scale * score);
    }
    for (double& w : weight) sum += w = std::exp(w - most);
    for (Index d = 0; d < v.cols(); ++d) {
      out(i, d) = 0;
      for (Index j = 0; j < seen; ++j)
        out(i, d) += weight[static_cast<std::size_t>(j)] / sum * v(j, d);
    }
  }
}

template <class S, class A, class T>
void check_reference(const char* function, const LatentConfig& config,
                     const LatentWeights<S, transformer::DenseLinear<S>>& weights, const A& angles,
                     TensorView<const T, 2> hidden, TensorView<T, 2> out,
                     const LatentReferenceOptions& options) {
  weights.validate(function, config);
  check(config.rope == 2 * static_cast<Index>(angles.pairs()), function, "angles",
        static_cast<Index>(angles.pairs()), Worded{"", config.rope / 2, " pairs"});
  check_enumerator(function, "layout", options.layout, transformer::RotaryLayout::HalfSplit);
  check_view(function, "hidden", hidden);
  check_extents<2>(function, "hidden", hidden.extent, {hidden.rows(), config.width});
  check_writable(function, "out", out);
  check_extents<2>(function, "out", out.extent, hidden.extent);
  check_no_overlap(function, "out", out, "hidden", hidden);
  check(!options.positions || static_cast<Index>(options.positions->size()) == hidden.rows(),
        function, "positions", options.positions ? options.positions->size() : 0,
        Worded{"", hidden.rows(), " positions"});
}

template <class T>
void store_rows(const Doubles& from, TensorView<T, 2> out) {
  for (Index i = 0; i < out.rows(); ++i)
    for (Index j = 0; j < out.cols(); ++j) out(i, j) = static_cast<T>(from(i, j));
}

/// The columns of a head.
inline auto of_head(Doubles& x, Index head, Index dim) { return x.middleCols(head * dim, dim); }

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// A layer over the tokens of one sequence, keys and values of each head made of the latents.
///
/// \param config  sizes
/// \param weights dense ones, of any storage scalar
/// \param angles  a RotaryAngles of d_r / 2 pairs; RotaryFrequencies{} where d_r = 0
/// \param hidden  [tokens, d]
/// \param out     [tokens, d], apart from hidden; sums are in double
/// \throws std::invalid_argument if the config is not valid, a shape does not fit, or out overlaps
///         hidden. Nothing is written then. No tokens: a no-op.
///
/// Cost: slow; memory: all rows of all heads, in double.
template <StorageScalar S, class A, ComputeScalar T>
void reference_expanded(const LatentConfig& config, const LatentWeights<S>& weights,
                        const A& angles, TensorView<const T, 2> hidden, TensorView<T, 2> out,
                        const LatentReferenceOptions& options = {}) {
  detail::check_reference("latent::reference_expanded", config, weights, angles, hidden, out,
                          options);
  detail::LatentRows rows = detail::reference_rows(config, weights, angles, hidden, options);
  const detail::Doubles latents = rows.cached.leftCols(config.latent);
  detail::Doubles heads(hidden.rows(), config.heads * config.value);
  for (Index h = 0; h < config.heads; ++h) {
    detail::Doubles keys(hidden.rows(), config.head_dim());
    keys.leftCols(config.nope) = detail::times_weight(latents, weights.up.key(h));
    keys.rightCols(config.rope) = rows.cached.rightCols(config.rope);
    detail::reference_head(detail::of_head(rows.queries, h, config.head_dim()), keys,
                           detail::times_weight(latents, weights.up.value(h)), config.softmax_scale,
                           options.causal, detail::of_head(heads, h, config.value));
  }
  detail::store_rows(detail::times_weight(heads, weights.output.weights()), out);
}

/// The same layer, with W_UK taken to the query and W_UV to the output: attention reads the rows of
/// the cache. All else as reference_expanded.
template <StorageScalar S, class A, ComputeScalar T>
void reference_absorbed(const LatentConfig& config, const LatentWeights<S>& weights,
                        const A& angles, TensorView<const T, 2> hidden, TensorView<T, 2> out,
                        const LatentReferenceOptions& options = {}) {
  detail::check_reference("latent::reference_absorbed", config, weights, angles, hidden, out,
                          options);
  detail::LatentRows rows = detail::reference_rows(config, weights, angles, hidden, options);
  const detail::Doubles latents = rows.cached.leftCols(config.latent);
  detail::Doubles heads(hidden.rows(), config.heads * config.value);
  for (Index h = 0; h < config.heads; ++h) {
    const detail::Doubles q = detail::of_head(rows.queries, h, config.head_dim());
    detail::Doubles absorbed(hidden.rows(), config.row_dim());
    absorbed.leftCols(config.latent) =
        detail::times_weight(q.leftCols(config.nope), transpose(weights.up.key(h)));
    absorbed.rightCols(config.rope) = q.rightCols(config.rope);
    detail::Doubles outputs(hidden.rows(), config.latent);
    detail::reference_head(absorbed, rows.cached, latents, config.softmax_scale, options.causal,
                           outputs);
    detail::of_head(heads, h, config.value) = detail::times_weight(outputs, weights.up.value(h));
  }
  detail::store_rows(detail::times_weight(heads, weights.output.weights()), out);
}

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
