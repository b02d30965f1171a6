// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// TransMLA: the weights of latent attention (MLA) for a layer with grouped heads, its rotary
/// embedding kept in one shared key.
///
/// ```cpp
/// factor::Covariance inputs(d);
/// for (...) inputs.add(x);                                       // what the layer is given
/// auto mla = to_mla(w_q, w_k, w_v, inputs, {.heads = 32, .kv_heads = 8, .head_dim = 128},
///                   {.rank = 448});
/// const transformer::RotaryTable<float> table(
///     mla.rope_frequencies(transformer::rotary_frequencies(128)), 4096);
/// const LatentConfig config = mla.config();           // its softmax_scale is 1 / sqrt(head_dim)
/// using Linear = transformer::DenseLinear<float>;     // a view of a matrix
/// LatentWeights<float> weights{.query = Linear(mla.query),           // wq of DeepSeek's
///                              .latent_down = Linear(mla.down),      // wkv_a
///                              .up = {config, Linear(mla.up)},       // wkv_b
///                              .output = Linear(w_o)};
/// const LatentAttention<float> layer(config, std::move(weights), table, mla.shape.layout);
/// ```
///
/// 1. *Merge*: all key heads are one row of kv_heads head_dim numbers; a query head reads its own.
/// 2. *RoRoPE*: at each rotary frequency the numbers of all heads, real and imaginary alike, are
///    turned to the principal axes of their second moment, damped by 0.01 of its mean variance. A
///    turn of what has one frequency commutes with the rotation: no score changes.
/// 3. *Partial RoPE*: the first `rope_heads` heads, which now hold most of the keys' energy, keep
///    their rotation. The others are treated as if all tokens had one position. This is what
///    changes scores, unless rope_heads = kv_heads.
/// 4. *Balance*: keys without rotation are divided by (mean norm of their numbers) / (balance x
///    that of values), so that neither takes all of the latent.
/// 5. *Joint PCA* of them and the values over the inputs: the latent.
///
/// `fold` > 1 takes so many neighbouring frequencies for one, and `collapse` c keeps every c-th of
/// them, so that the rotary key has rotary / c numbers; scores are then not kept even before step
/// 3. The scale of scores stays 1 / sqrt(head_dim), whatever `rope` is: what
/// latent_softmax_scale(head_dim, rope) says is wrong here. Latents have no norm. With rope_heads =
/// kv_heads, fold = 1 and full rank attention is what it was.
///
/// Source: TransMLA, arXiv 2502.07864, and its code, fxmeng/TransMLA; the paper's text was not at
/// hand. Ours: numbers of a head that are not rotated join the latent; the balance is over all
/// values, where the code leaves out the first; latents of queries and biases are left out.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/svd.hpp>
#include <pare/latent/config.hpp>
#include <pare/latent/convert/attention_shape.hpp>
#include <pare/latent/convert/conversion_error.hpp>
#include <pare/latent/detail/attention_checks.hpp>
#include <pare/latent/detail/merged_keys.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

namespace pare::latent {
PARE_ABI_BEGIN

/// Weights of latent attention without norms: content d_n = head_dim, rope d_r, latent d_c.
template <ComputeScalar T>
struct MlaWeights {
  RowMatrix<T> query;  ///< [heads (head_dim + rope), d]: per head content rows, then rope rows
  RowMatrix<T> down;   ///< [rank + rope, d]: latent rows, then the shared rotary key
  RowMatrix<T> up;     ///< [heads (head_dim + value dim), rank]: per head key rows, then value rows

  /// The layer that was converted. Its layout is also that of the rotary key.
  AttentionShape shape;

  /// Of the layer's frequencies that of each pair of the rotary key, [rope / 2].
  std::vector<Index> rope_pairs;

  /// Of what the latent replaces: keys without rotation, and values. What it costs that keys lose
  /// their rotation is not counted.
  ConversionError key_error, value_error;

  Index rope() const { return 2 * static_cast<Index>(rope_pairs.size()); }
  Index rank() const { return down.rows() - rope(); }
  Index cache_width() const { return down.rows(); }

  /// What a LatentAttention of these weights is made with.
  /// \throws std::invalid_argument if members do not fit each other
  LatentConfig config() const {
    check(shape.heads >= 1, "latent::MlaWeights::config", "shape", shape.heads, "heads");
    const LatentConfig config{.width = down.cols(),
                              .heads = shape.heads,
                              .nope = shape.head_dim,
                              .rope = rope(),
                              .value = up.rows() / shape.heads - shape.head_dim,
                              .latent = rank(),
                              .softmax_scale = latent_softmax_scale(shape.head_dim, 0)};
    config.validate("latent::MlaWeights::config");
    return config;
  }

  /// Frequencies for a RotaryTable of the rotary key.
  /// \param of_layer at least those that the layer has
  /// \throws std::invalid_argument if it has fewer
  transformer::RotaryFrequencies rope_frequencies(
      const transformer::RotaryFrequencies& of_layer) const {
    transformer::RotaryFrequencies kept{.frequencies = {}, .scale = of_layer.scale};
    for (const Index pair : rope_pairs) {
      check(pair < of_layer.pairs(), "latent::MlaWeights::rope_frequencies", "of_layer",
            of_layer.pairs(), Worded{"more than ", pair, " frequencies"});
      kept.frequencies.push_back(of_layer.frequencies[static_cast<std::size_t>(pair)]);
    }
    return kept;
  }
};

/// Options of to_mla.
struct TransMlaOptions {
  Index rank = 0;         ///< d_c, 1 to min(kv heads (head_dim + value dim) - rope, d)
  Index rope_heads = 1;   ///< merged heads that keep their rotation, 1 to kv_heads
  Index fold = 1;         ///< frequencies that are taken for one; divides the pairs of a head
  Index collapse = 1;     ///< of so many frequencies one is kept; divides fold
  double balance = 1;     ///< of values against keys in the latent; above 0
  double damping = 0.01;  ///< of RoRoPE's second moments; at least 0
  factor::Route route = factor::Route::Exact;
};

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

/// One conversion, whose arguments are checked; all in double.
template <Backend B>
class TransMla {
 public:
  TransMla(const B& backend, const AttentionShape& shape, const TransMlaOptions& options,
           Index value_dim, RowMatrix<double> query, RowMatrix<double> key, RowMatrix<double> value,
           RowMatrix<double> inputs)
      : backend_(backend),
        shape_(shape),
        options_(options),
        value_dim_(value_dim),
        query_(std::move(query)),
        key_(std::move(key)),
        value_(std::move(value)),
        inputs_(std::move(inputs)) {}

  template <class T>
  MlaWeights<T> run() {
    const RowMatrix<double> moment = times(times(key_, inputs_), key_.transpose());
    keys_ = KeyTurner(shape_, {options_.rope_heads, options_.fold, options_.collapse}, moment,
                      options_.damping)
                .run();
    const RowMatrix<double> turned = times(keys_.turn, key_);
    const Index rope = 2 * static_cast<Index>(keys_.rope_pairs.size());
    const Index content = turned.rows() - rope;
    const RowMatrix<double> rest = turned.bottomRows(content);
    const double ratio = balance_ratio(rest);
    RowMatrix<double> both(content + value_.rows(), turned.cols());
    both.topRows(content) = rest / ratio;
    both.bottomRows(value_.rows()) = value_;
    const auto factors = factor::factorize(backend_, both, factor::InputCovariance(inputs_),
                                           {.rank = options_.rank, .route = options_.route});
    const RowMatrix<double> key_up = factors.left.topRows(content) * ratio;
    const RowMatrix<double> value_up = factors.left.bottomRows(value_.rows());
    MlaWeights<T> mla;
    mla.shape = shape_;
    mla.rope_pairs = keys_.rope_pairs;
    mla.key_error = error(rest, key_up, factors.right);
    mla.value_error = error(value_, value_up, factors.right);
    mla.down.resize(options_.rank + rope, turned.cols());
    mla.down.topRows(options_.rank) = factors.right.template cast<T>();
    mla.down.bottomRows(rope) = turned.topRows(rope).template cast<T>();
    mla.up = up_of_heads(key_up, value_up).template cast<T>();
    mla.query = queries(rope).template cast<T>();
    return mla;
  }

 private:
  RowMatrix<double> times(const RowMatrix<double>& a, const RowMatrix<double>& b) const {
    RowMatrix<double> c(a.rows(), b.cols());
    linalg::multiply(backend_, const_view(a), const_view(b), to_view(c));
    return c;
  }

  ConversionError error(const RowMatrix<double>& w, const RowMatrix<double>& up,
                        const RowMatrix<double>& down) const {
    if (w.rows() == 0) return {0, 0};
    return measured_error(backend_, w, times(up, down), inputs_);
  }

  /// Mean over outputs of their root mean squares.
  double mean_size(const RowMatrix<double>& w) const {
    const RowMatrix<double> product = times(w, inputs_);
    double sum = 0;
    for (Index i = 0; i < w.rows(); ++i)
      sum += std::sqrt(std::max(product.row(i).dot(w.row(i)), 0.0));
    return w.rows() > 0 ? sum / static_cast<double>(w.rows()) : 0.0;
  }

  double balance_ratio(const RowMatrix<double>& rest) const {
    const double keys = mean_size(rest), values = mean_size(value_);
    return keys > 0 && values > 0 ? keys / (values * options_.balance) : 1.0;
  }

  /// Columns of the turn that a query head reads.
  auto columns_of_head(Index head) const {
    return keys_.turn.middleCols(head / shape_.group() * shape_.head_dim, shape_.head_dim);
  }

  RowMatrix<double> up_of_heads(const RowMatrix<double>& key_up,
                                const RowMatrix<double>& value_up) const {
    const Index each = shape_.head_dim + value_dim_, content = key_up.rows();
    RowMatrix<double> up(shape_.heads * each, options_.rank);
    for (Index h = 0; h < shape_.heads; ++h) {
      const RowMatrix<double> read = columns_of_head(h).bottomRows(content).transpose();
      up.middleRows(h * each, shape_.head_dim) = times(read, key_up);
      up.middleRows(h * each + shape_.head_dim, value_dim_) =
          value_up.middleRows(h / shape_.group() * value_dim_, value_dim_);
    }
    return up;
  }

  RowMatrix<double> queries(Index rope) const {
    const Index dim = shape_.head_dim, each = dim + rope;
    RowMatrix<double> all(shape_.heads * each, query_.cols());
    for (Index h = 0; h < shape_.heads; ++h) {
      const RowMatrix<double> head = query_.middleRows(h * dim, dim);
      const RowMatrix<double> read = columns_of_head(h).topRows(rope);
      all.middleRows(h * each, dim) = head;
      all.middleRows(h * each + dim, rope) = times(read, head);
    }
    return all;
  }

  const B& backend_;
  const AttentionShape& shape_;
  const TransMlaOptions& options_;
  Index value_dim_;
  RowMatrix<double> query_, key_, value_, inputs_;
  TurnedKeys keys_;
};

inline void check_transmla(const char* function, const AttentionShape& shape,
                           const TransMlaOptions& o, Index value_rows, Index width) {
  check(o.rope_heads >= 1 && o.rope_heads <= shape.kv_heads, function, "rope_heads", o.rope_heads,
        Worded{"1 to kv_heads, ", shape.kv_heads});
  check(o.fold >= 1 && shape.pairs() % o.fold == 0, function, "fold", o.fold,
        Worded{"a divisor of the pairs of a head, ", shape.pairs()});
  check(o.collapse >= 1 && o.fold % o.collapse == 0, function, "collapse", o.collapse,
        Worded{"a divisor of fold, ", o.fold});
  const Index rope = 2 * o.rope_heads * (shape.pairs() / o.collapse);
  check_rank(function, "rank", o.rank, shape.kv_heads * shape.head_dim - rope + value_rows, width);
  check(is_finite(o.balance) && o.balance > 0, function, "balance", o.balance,
        "a finite number above 0");
  check(is_finite(o.damping) && o.damping >= 0, function, "damping", o.damping,
        "a finite share of at least 0");
  check_enumerator(function, "route", o.route, factor::Route::Exact);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The weights of latent attention that come closest to a layer's.
///
/// \param backend left out: pare::simd
/// \param query   W_Q [heads head_dim, d], any storage scalar and order
/// \param key     W_K [kv_heads head_dim, d], of the same scalar
/// \param value   W_V [kv_heads value dim, d], the same
/// \param inputs  the second moment of what the three are given; at least one token
/// \param shape   heads, and which numbers of them are rotated
/// \param options rank and what keeps its rotation
/// \return        MlaWeights of compute_t of the scalar
/// \throws std::invalid_argument if the shape or an option is out of its range, a weight is not of
///         the shape or not finite, no token was added, or inputs are of another width or not
///         finite
///
/// Cost: with n = kv_heads head_dim, 2 n d (n + d) FLOPs for second moments, and factor::factorize
/// of [n - rope + values, d]; all in double. Memory: some ten matrices of the size of W_Q.
template <Backend B, In<2> Q, In<2> K, In<2> V>
requires SameScalar<Q, K, V>
auto to_mla(const B& backend, const Q& query, const K& key, const V& value,
            const factor::Covariance& inputs, const AttentionShape& shape,
            const TransMlaOptions& options) {
  constexpr const char* function = "latent::to_mla";
  const auto q = as_const(to_view(query)), k = as_const(to_view(key)), v = as_const(to_view(value));
  const Index value_dim = detail::check_attention(function, shape, q, k, v);
  detail::check_transmla(function, shape, options, v.rows(), k.cols());
  check(inputs.count() > 0, function, "inputs", inputs.count(), "a token that was added");
  RowMatrix<double> c = inputs.matrix();
  detail::check_moment(function, "inputs", const_view(c), k.cols());
  return detail::TransMla<B>(backend, shape, options, value_dim, detail::doubles_of(q),
                             detail::doubles_of(k), detail::doubles_of(v), std::move(c))
      .template run<compute_t<scalar_of<Q>>>();
}

/// \overload
template <In<2> Q, In<2> K, In<2> V>
requires SameScalar<Q, K, V>
auto to_mla(const Q& query, const K& key, const V& value, const factor::Covariance& inputs,
            const AttentionShape& shape, const TransMlaOptions& options) {
  return to_mla(simd, query, key, value, inputs, shape, options);
}

PARE_REFUSE_CALLS(to_mla, "latent::to_mla",
                  "after value: wanted a factor::Covariance, an AttentionShape and TransMlaOptions "
                  "such as {.rank = 448}, members spelt and ordered as declared",
                  (INPUT, (roles::Reads<2>), "query", "[heads x head_dim, inputs]"),
                  (INPUT, (roles::ReadsSame<2>), "key", "[kv_heads x head_dim, inputs]"),
                  (INPUT, (roles::ReadsSame<2>), "value", "[kv_heads x value dim, inputs]"))

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
