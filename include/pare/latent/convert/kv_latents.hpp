// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The keys and values of an attention layer from latents: W_K and W_V of a layer with grouped or
/// plain heads become thin factors, and the narrow row in the middle is what is cached.
///
/// ```cpp
/// auto svd = separate_latents(w_k, w_v, factor::Uniform{}, {.key_rank = 96, .value_rank = 96});
/// auto care = separate_latents(w_k, w_v, factor::InputCovariance(c, 0.01),
///                              {.key_rank = 96, .value_rank = 96});
/// auto one = joint_latent(w_k, w_v, factor::InputCovariance(c, 0.01), {.rank = 192});
/// svd.cache_width();              // 192 numbers per token and layer
/// svd.key_error.weight, *care.key_error.activation;
/// ```
///
///     separate:  k = U_K (D_K x),  v = U_V (D_V x)             cached: D_K x and D_V x
///     joint:     [k; v] = U (D x)                              cached: D x, which both share
///
/// `down` D is [rank, d], `up` U is [outputs, rank], outputs being kv heads x head dim. They are
/// the factors of `factor::factorize` of W_K and W_V, or of both stacked, so that every metric is a
/// way to convert: `factor::Uniform` is weight-only SVD (Palu's), `factor::InputCovariance` CARE
/// (care.hpp). With full rank U D = W up to rounding, and attention is what it was.
///
/// Rotary embedding stays where it was: keys are made from the latent, then rotated by the
/// positions of their tokens. Scores can then not be had from the latent alone (for that see
/// transmla.hpp); what is saved is memory. A model runs the factors as a
/// `transformer::LowRankLinear` in the place of its key and value layers:
///
/// ```cpp
/// using transformer::DenseLinear;
/// const transformer::LowRankLinear<float> key(DenseLinear<float>(care.key_up()),
///                                             DenseLinear<float>(care.key_down()));  // viewed
/// ```
///
/// Sources: CARE, arXiv 2603.17946, 3.2; a joint factorization of both: TransMLA, arXiv 2502.07864,
/// and MHA2MLA, arXiv 2502.14837.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/svd.hpp>
#include <pare/latent/convert/conversion_error.hpp>
#include <pare/latent/detail/conversion_checks.hpp>

#include <optional>
#include <type_traits>

namespace pare::latent {
PARE_ABI_BEGIN

/// Keys and values from a latent each.
template <ComputeScalar T>
struct SeparateLatents {
  factor::LowRank<T> key;    ///< left is up, right is down
  factor::LowRank<T> value;  ///< the same
  ConversionError key_error, value_error;

  TensorView<const T, 2> key_up() const { return const_view(key.left); }
  TensorView<const T, 2> key_down() const { return const_view(key.right); }
  TensorView<const T, 2> value_up() const { return const_view(value.left); }
  TensorView<const T, 2> value_down() const { return const_view(value.right); }

  /// Numbers that are cached per token.
  Index cache_width() const { return key.rank() + value.rank(); }
};

/// Keys and values from one latent.
template <ComputeScalar T>
struct JointLatent {
  factor::LowRank<T> both;  ///< of [W_K; W_V]
  Index key_outputs = 0;    ///< rows of W_K
  ConversionError key_error, value_error;

  TensorView<const T, 2> key_up() const { return rows_of(const_view(both.left), 0, key_outputs); }
  TensorView<const T, 2> value_up() const {
    return rows_of(const_view(both.left), key_outputs, both.left.rows() - key_outputs);
  }
  TensorView<const T, 2> down() const { return const_view(both.right); }
  TensorView<const T, 2> key_down() const { return down(); }
  TensorView<const T, 2> value_down() const { return down(); }

  Index cache_width() const { return both.rank(); }
};

/// Options of separate_latents.
struct SeparateOptions {
  Index key_rank = 0;    ///< 1 to min(rows of W_K, d)
  Index value_rank = 0;  ///< 1 to min(rows of W_V, d)

  /// How factors are found. Exact takes all eigenvectors of [outputs, outputs], about 9 outputs^3
  /// FLOPs on one thread; Auto is faster from some hundred outputs on, and .3 % off the optimum.
  factor::Route route = factor::Route::Exact;

  /// X^T X [d, d] by which activation errors are reported; left out: the metric's covariance.
  std::optional<TensorView<const double, 2>> inputs{};
};

/// Options of joint_latent.
struct JointOptions {
  Index rank = 0;  ///< 1 to min(rows of W_K and of W_V, d)
  factor::Route route = factor::Route::Exact;
  std::optional<TensorView<const double, 2>> inputs{};
};

PARE_ABI_END
namespace detail {

template <class X>
using IsMetric = std::bool_constant<factor::Metric<std::remove_cvref_t<X>>>;

PARE_ABI_BEGIN

/// Checks what is common to conversions, and returns what activation errors are reported by.
template <factor::Metric M>
std::optional<RowMatrix<double>> checked_inputs(
    const char* function, const M& metric, factor::Route route,
    const std::optional<TensorView<const double, 2>>& inputs, Index width) {
  check_enumerator(function, "route", route, factor::Route::Exact);
  check_metric_moment(function, metric, width);
  if (inputs) {
    check_moment(function, "inputs", *inputs, width);
    return doubles_of(*inputs);
  }
  const auto covariance = metric.input_covariance();
  if (covariance.empty()) return std::nullopt;
  return doubles_of(covariance.matrix);
}

template <class T, StorageScalar S>
RowMatrix<T> stacked(TensorView<const S, 2> top, TensorView<const S, 2> bottom) {
  RowMatrix<T> both(top.rows() + bottom.rows(), top.cols());
  for (Index i = 0; i < both.rows(); ++i)
    for (Index j = 0; j < both.cols(); ++j)
      both(i, j) = static_cast<T>(i < top.rows() ? top(i, j) : bottom(i - top.rows(), j));
  return both;
}

template <class B, StorageScalar S, factor::Metric M>
auto separate_views(const char* function, const B& backend, TensorView<const S, 2> key,
                    TensorView<const S, 2> value, const M& metric, const SeparateOptions& options) {
  check_key_value(function, key, value);
  check_rank(function, "key_rank", options.key_rank, key.rows(), key.cols());
  check_rank(function, "value_rank", options.value_rank, value.rows(), value.cols());
  const auto inputs = checked_inputs(function, metric, options.route, options.inputs, key.cols());
  SeparateLatents<compute_t<S>> latents;
  latents.key =
      factor::factorize(backend, key, metric, {.rank = options.key_rank, .route = options.route});
  latents.value = factor::factorize(backend, value, metric,
                                    {.rank = options.value_rank, .route = options.route});
  latents.key_error = error_of_factors(backend, key, latents.key_up(), latents.key_down(), inputs);
  latents.value_error =
      error_of_factors(backend, value, latents.value_up(), latents.value_down(), inputs);
  return latents;
}

template <class B, StorageScalar S, factor::Metric M>
auto joint_views(const char* function, const B& backend, TensorView<const S, 2> key,
                 TensorView<const S, 2> value, const M& metric, const JointOptions& options) {
  check_key_value(function, key, value);
  const Index rows = checked_sum(function, "value", key.rows(), value.rows());
  check_rank(function, "rank", options.rank, rows, key.cols());
  const auto inputs = checked_inputs(function, metric, options.route, options.inputs, key.cols());
  JointLatent<compute_t<S>> latent;
  latent.both = factor::factorize(backend, stacked<compute_t<S>>(key, value), metric,
                                  {.rank = options.rank, .route = options.route});
  latent.key_outputs = key.rows();
  latent.key_error = error_of_factors(backend, key, latent.key_up(), latent.down(), inputs);
  latent.value_error = error_of_factors(backend, value, latent.value_up(), latent.down(), inputs);
  return latent;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Keys and values from a latent each: W_K ~ up down of rank key_rank, W_V of rank value_rank.
///
/// \param backend left out: pare::simd
/// \param key     W_K [outputs, d], rows of heads one after the other; any storage scalar and order
/// \param value   W_V [outputs, d], of the same scalar; its outputs may be others
/// \param metric  what errors are weighed with (factor/metric.hpp)
/// \param options ranks
/// \return        SeparateLatents of compute_t of the scalar
/// \throws std::invalid_argument if a weight is empty or not finite, the widths differ, a rank is
///         out of its range, a covariance is not [d, d], finite, symmetric and positive
///         semi-definite, or as factor::factorize
///
/// Cost and memory: those of factor::factorize, and of conversion_error where inputs are known. The
/// same bits for any number of threads.
template <Backend B, In<2> K, In<2> V, factor::Metric M>
requires SameScalar<K, V>
auto separate_latents(const B& backend, const K& key, const V& value, const M& metric,
                      const SeparateOptions& options) {
  return detail::separate_views("latent::separate_latents", backend, as_const(to_view(key)),
                                as_const(to_view(value)), metric, options);
}

/// \overload
template <In<2> K, In<2> V, factor::Metric M>
requires SameScalar<K, V>
auto separate_latents(const K& key, const V& value, const M& metric,
                      const SeparateOptions& options) {
  return separate_latents(simd, key, value, metric, options);
}

/// Keys and values from one latent: [W_K; W_V] ~ up down.
///
/// Parameters, errors, cost and memory as separate_latents, of both matrices stacked; a metric's
/// output weights are of keys, then values. Keys and values weigh as they are: where one has much
/// larger outputs the latent is mostly its (transmla.hpp balances them).
/// \return JointLatent of compute_t of the scalar
template <Backend B, In<2> K, In<2> V, factor::Metric M>
requires SameScalar<K, V>
auto joint_latent(const B& backend, const K& key, const V& value, const M& metric,
                  const JointOptions& options) {
  return detail::joint_views("latent::joint_latent", backend, as_const(to_view(key)),
                             as_const(to_view(value)), metric, options);
}

/// \overload
template <In<2> K, In<2> V, factor::Metric M>
requires SameScalar<K, V>
auto joint_latent(const K& key, const V& value, const M& metric, const JointOptions& options) {
  return joint_latent(simd, key, value, metric, options);
}

PARE_REFUSE_CALLS(separate_latents, "latent::separate_latents",
                  "after metric: wanted SeparateOptions such as {.key_rank = 64, .value_rank = "
                  "64}, members spelt and ordered as declared",
                  (INPUT, (roles::Reads<2>), "key", "[outputs, inputs]"),
                  (INPUT, (roles::ReadsSame<2>), "value", "[outputs, inputs]"),
                  (PLAIN, (roles::Takes<detail::IsMetric>), "metric",
                   "a Metric such as factor::Uniform (factor/metric.hpp)"))
PARE_REFUSE_CALLS(joint_latent, "latent::joint_latent",
                  "after metric: wanted JointOptions such as {.rank = 128}, members spelt and "
                  "ordered as declared",
                  (INPUT, (roles::Reads<2>), "key", "[outputs, inputs]"),
                  (INPUT, (roles::ReadsSame<2>), "value", "[outputs, inputs]"),
                  (PLAIN, (roles::Takes<detail::IsMetric>), "metric",
                   "a Metric such as factor::Uniform (factor/metric.hpp)"))

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
