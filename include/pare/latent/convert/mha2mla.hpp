// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// MHA2MLA: each key head keeps the rotation of a few of its pairs; the rest of the keys, and the
/// values, come from one latent.
///
/// ```cpp
/// const AttentionShape shape{.heads = 32, .kv_heads = 8, .head_dim = 128};
/// const auto norms = pair_norm_scores(q, k, shape);               // of tokens, before rotation
/// auto mla = to_partial_rope(w_q, w_k, w_v, factor::Uniform{}, shape,
///                            strongest_pairs(norms, 16), {.rank = 256});
/// mla.query, mla.rope_key, mla.down, mla.key_up, mla.value_up;
/// ```
///
///     score = content of q . K_U (D x) + rotated q' . rotated k',   k' = W_rope x of its key head
///
/// Pairs without rotation are treated as if all tokens had one position, which changes scores. Any
/// list of pairs will do; those of the paper are `high_pairs`, `low_pairs`, `uniform_pairs` and
/// `strongest_pairs` (2-norm). The latent is a factorization of the content rows of W_K and of W_V
/// stacked, in any metric; `factor::Uniform` is the paper's joint SVD. A token's cache row is rank
/// + kv_heads rope numbers: rotary keys are not shared, so that a LatentAttention, whose heads
/// share one, does not run these weights. The scale stays 1 / sqrt(head_dim). All pairs and full
/// rank: attention is what it was.
///
/// Source: MHA2MLA, arXiv 2502.14837, and its code, JT-Ushio/MHA2MLA; the paper's text was not at
/// hand. Ours: any metric. Left out: the ways that factor keys and values apart, or one of them.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/metric.hpp>
#include <pare/latent/convert/attention_shape.hpp>
#include <pare/latent/convert/conversion_error.hpp>
#include <pare/latent/convert/kv_latents.hpp>
#include <pare/latent/convert/rotary_pairs.hpp>
#include <pare/latent/detail/attention_checks.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

namespace pare::latent {
PARE_ABI_BEGIN

/// Weights of attention whose keys have rotary parts of their own and a shared latent.
template <ComputeScalar T>
struct PartialRopeWeights {
  RowMatrix<T> query;     ///< [heads head_dim, d]: per head content rows, then rope rows
  RowMatrix<T> rope_key;  ///< [kv_heads rope, d]
  RowMatrix<T> down;      ///< [rank, d]
  RowMatrix<T> key_up;    ///< [kv_heads (head_dim - rope), rank]; no rows if all pairs are kept
  RowMatrix<T> value_up;  ///< [kv_heads value dim, rank]
  RotaryPairs pairs;      ///< frequencies of each key head's rotary part, in order

  /// Of what the latent replaces: content of keys, and values.
  ConversionError key_error, value_error;

  Index rank() const { return down.rows(); }
  Index cache_width() const { return down.rows() + rope_key.rows(); }
};

/// Options of to_partial_rope.
struct PartialRopeOptions {
  Index rank = 0;  ///< 1 to min(kv_heads (head_dim - rope + value dim), d)
  factor::Route route = factor::Route::Exact;

  /// X^T X [d, d] by which activation errors are reported; left out: the metric's covariance.
  std::optional<TensorView<const double, 2>> inputs{};
};

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

/// Numbers of a head: first those without rotation in their order, then the kept pairs in the
/// layer's layout.
inline std::vector<Index> channels_apart(const AttentionShape& shape,
                                         const std::vector<Index>& pairs) {
  const auto count = static_cast<Index>(pairs.size());
  std::vector<Index> rope(static_cast<std::size_t>(2 * count)), all;
  for (Index i = 0; i < count; ++i)
    for (Index part = 0; part < 2; ++part)
      rope[static_cast<std::size_t>(AttentionShape::pair_channel(shape.layout, i, part, count))] =
          shape.channel(pairs[static_cast<std::size_t>(i)], part);
  for (Index c = 0; c < shape.head_dim; ++c)
    if (std::find(rope.begin(), rope.end(), c) == rope.end()) all.push_back(c);
  all.insert(all.end(), rope.begin(), rope.end());
  return all;
}

/// Rows [begin, begin + count) of each head, in the order of channels_apart of its key head.
template <class T, StorageScalar S>
RowMatrix<T> rows_apart(TensorView<const S, 2> w, Index heads, const AttentionShape& shape,
                        const RotaryPairs& pairs, Index begin, Index count) {
  RowMatrix<T> rows(heads * count, w.cols());
  for (Index h = 0; h < heads; ++h) {
    const auto order =
        channels_apart(shape, pairs[static_cast<std::size_t>(h / (heads / shape.kv_heads))]);
    for (Index r = 0; r < count; ++r)
      for (Index j = 0; j < w.cols(); ++j)
        rows(h * count + r, j) =
            static_cast<T>(w(h * shape.head_dim + order[static_cast<std::size_t>(begin + r)], j));
  }
  return rows;
}

template <class B, StorageScalar S, factor::Metric M>
auto partial_rope(const B& backend, const AttentionShape& shape, TensorView<const S, 2> query,
                  TensorView<const S, 2> key, TensorView<const S, 2> value, const M& metric,
                  const RotaryPairs& pairs, const PartialRopeOptions& options) {
  constexpr const char* function = "latent::to_partial_rope";
  using T = compute_t<S>;
  check_attention(function, shape, query, key, value);
  check_pairs(function, shape, pairs);
  const Index rope = 2 * static_cast<Index>(pairs.front().size());
  const Index content = shape.head_dim - rope;
  check_rank(function, "rank", options.rank, shape.kv_heads * content + value.rows(), key.cols());
  const auto inputs = checked_inputs(function, metric, options.route, options.inputs, key.cols());
  PartialRopeWeights<T> weights;
  weights.pairs = pairs;
  weights.query = rows_apart<T>(query, shape.heads, shape, pairs, 0, shape.head_dim);
  weights.rope_key = rows_apart<T>(key, shape.kv_heads, shape, pairs, content, rope);
  const RowMatrix<T> rest = rows_apart<T>(key, shape.kv_heads, shape, pairs, 0, content);
  const RowMatrix<T> values = row_matrix<T>(value);
  auto factors = factor::factorize(backend, stacked<T>(const_view(rest), const_view(values)),
                                   metric, {.rank = options.rank, .route = options.route});
  weights.key_up = factors.left.topRows(rest.rows());
  weights.value_up = factors.left.bottomRows(values.rows());
  weights.down = std::move(factors.right);
  const auto error = [&](const RowMatrix<T>& w, const RowMatrix<T>& up) {
    if (w.rows() == 0) return ConversionError{};
    return error_of_factors(backend, const_view(w), const_view(up), const_view(weights.down),
                            inputs);
  };
  weights.key_error = error(rest, weights.key_up);
  weights.value_error = error(values, weights.value_up);
  return weights;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Weights with the rotary parts of keys apart, and one latent of the rest and the values.
///
/// \param backend left out: pare::simd
/// \param query   W_Q [heads head_dim, d], any storage scalar and order
/// \param key     W_K [kv_heads head_dim, d], of the same scalar
/// \param value   W_V [kv_heads value dim, d], the same
/// \param metric  what errors are weighed with; output weights are of content rows, then values
/// \param shape   heads, and which numbers of them are rotated
/// \param pairs   of each key head as many, at least one, none twice
/// \param options rank
/// \return        PartialRopeWeights of compute_t of the scalar
/// \throws std::invalid_argument if the shape, a pair or an option is out of its range, a weight is
///         not of the shape or not finite, or as separate_latents
///
/// Cost and memory: those of factor::factorize of [kv_heads (head_dim - rope) + values, d].
template <Backend B, In<2> Q, In<2> K, In<2> V, factor::Metric M>
requires SameScalar<Q, K, V>
auto to_partial_rope(const B& backend, const Q& query, const K& key, const V& value,
                     const M& metric, const AttentionShape& shape, const RotaryPairs& pairs,
                     const PartialRopeOptions& options) {
  return detail::partial_rope(backend, shape, as_const(to_view(query)), as_const(to_view(key)),
                              as_const(to_view(value)), metric, pairs, options);
}

/// \overload
template <In<2> Q, In<2> K, In<2> V, factor::Metric M>
requires SameScalar<Q, K, V>
auto to_partial_rope(const Q& query, const K& key, const V& value, const M& metric,
                     const AttentionShape& shape, const RotaryPairs& pairs,
                     const PartialRopeOptions& options) {
  return to_partial_rope(simd, query, key, value, metric, shape, pairs, options);
}

PARE_REFUSE_CALLS(to_partial_rope, "latent::to_partial_rope",
                  "after metric: wanted an AttentionShape, RotaryPairs and PartialRopeOptions such "
                  "as {.rank = 256}, members spelt and ordered as declared",
                  (INPUT, (roles::Reads<2>), "query", "[heads x head_dim, inputs]"),
                  (INPUT, (roles::ReadsSame<2>), "key", "[kv_heads x head_dim, inputs]"),
                  (INPUT, (roles::ReadsSame<2>), "value", "[kv_heads x value dim, inputs]"),
                  (PLAIN, (roles::Takes<detail::IsMetric>), "metric",
                   "a Metric such as factor::Uniform (factor/metric.hpp)"))

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
