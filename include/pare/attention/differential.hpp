// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Differential attention: the difference of two softmax maps over one set of values, normed.
///
///     O_h = RMSNorm((softmax(c Q1 K1^T) - lambda softmax(c Q2 K2^T)) V) (1 - lambda_init)
///
/// ```cpp
/// const auto [lambda, lambda_init] = differential_lambda(lq1, lk1, lq2, lk2, layer);
/// differential(q1, k1, q2, k2, v, out, {.lambda = lambda, .lambda_init = lambda_init});
/// differential(pare::simd.threads(4), q1, k1, q2, k2, v, out,
///              {.lambda = 0.3, .norm = std::nullopt, .attend = {.causal = true}});
/// ```
///
/// q1 and q2 are [batch, heads, queries, key dim], k1 and k2 [batch, kv heads, keys, key dim], v
/// [batch, kv heads, keys, value dim], out [batch, heads, queries, value dim], as `attend` has
/// them; value dim may be any, such as twice the key dim. Both maps see the same keys and have the
/// same c.
///
/// Both maps run in one pass: a tile of values is read once, and the rows of both maps pass over
/// it, each with a softmax of its own. No map and no row of a map leaves the caches. A row that
/// sees no key is 0. A NaN in a query or key of either map makes the rows that see it NaN. A NaN or
/// infinity in v may also reach rows that do not see it, as in `attend`. A difference that is no
/// number of what is computed in, as of values of 1e30 with a lambda of 1e20, makes its row NaN
/// where it is normed.
///
/// Source: scDFM's PAD-Transformer (AI4Science-WestlakeU/scDFM, src/models/origin/blocks.py), which
/// has key heads of full width, no mask and lambda shared by all heads; after Ye et al.,
/// "Differential Transformer", 2024, whose heads of half the width are a choice of projections.
/// Theirs: epsilon 1e-5 and lambda_init. Ours: masks, grouped heads, rows without the norm.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/attention/detail/differential_engine.hpp>
#include <pare/attention/detail/reference_differential.hpp>
#include <pare/attention/detail/reference_row.hpp>
#include <pare/attention/options.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace pare::attention {

/// The RMS norm of a row of differential attention.
struct DifferentialNorm {
  /// Learned, [value dim], finite, also times 1 - lambda_init. Left out: 1.
  std::optional<std::span<const float>> scale{};
  double epsilon = 1e-5;  ///< finite, at least 0; theirs
};

/// Options of `differential`.
struct DifferentialOptions {
  /// Weight of the second map, finite. It has no default: see differential_lambda.
  std::optional<double> lambda{};
  /// Normed rows are multiplied by 1 - lambda_init. Needed with a norm, finite.
  std::optional<double> lambda_init{};
  /// std::nullopt: rows are the difference itself, neither normed nor multiplied.
  std::optional<DifferentialNorm> norm = DifferentialNorm{};
  /// Of both maps, not causal unless told; without order, mask, sink_logits and lse.
  AttendOptions attend{};
};

/// What differential_lambda returns.
struct DifferentialLambda {
  double lambda = 0, lambda_init = 0;
};

namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* differential_name = "attention::differential";

/// (1 - lambda_init) scale, by which element c of a normed row is multiplied.
inline double norm_gain(const DifferentialOptions& o, Index c) {
  const double scale =
      o.norm->scale ? static_cast<double>((*o.norm->scale)[static_cast<std::size_t>(c)]) : 1;
  return (1 - *o.lambda_init) * scale;
}

/// T is what the call computes in: factors must be numbers there.
template <class T>
void check_differential_options(const DifferentialOptions& o, Index value_dim) {
  const char* const f = differential_name;
  const auto fits = [](double x) {
    return is_finite(x) && std::abs(x) <= static_cast<double>(std::numeric_limits<T>::max());
  };
  constexpr const char* wanted = "a finite number of what is computed in";
  check(o.lambda.has_value(), f, "lambda", "nothing", "a finite number: it has no default");
  check(fits(o.lambda.value_or(0)), f, "lambda", o.lambda.value_or(0), wanted);
  if (o.norm) {
    check(o.lambda_init.has_value(), f, "lambda_init", "nothing",
          "a finite number, by which normed rows are scaled (or no norm)");
    check(fits(o.lambda_init.value_or(0)), f, "lambda_init", o.lambda_init.value_or(0), wanted);
    check(fits(o.norm->epsilon) && o.norm->epsilon >= 0, f, "epsilon", o.norm->epsilon,
          "a finite number of at least 0");
    check(!o.norm->scale || static_cast<Index>(o.norm->scale->size()) == value_dim, f, "norm.scale",
          o.norm->scale ? o.norm->scale->size() : 0, Worded{"the value dim, ", value_dim});
    for (Index c = 0; o.norm->scale && c < value_dim; ++c)
      check(fits(norm_gain(o, c)), f, "norm.scale", norm_gain(o, c),
            "scales that times 1 - lambda_init are finite numbers of what is computed in");
  }
  const AttendOptions& a = o.attend;
  check(a.order == nullptr && a.mask == nullptr, f, "order, mask", "an order or a mask", "neither");
  check(!a.sink_logits, f, "sink_logits", "logits", "none");
  check(!a.lse.wanted(), f, "lse", "a view", "none: two maps have no common one");
}

/// Queries and keys of one map, as they must be beside the other's.
template <class S>
void check_map(const char* q_name, const char* k_name, const TensorView<const S, 4>& q,
               const TensorView<const S, 4>& k, const TensorView<const S, 4>& other_q,
               const TensorView<const S, 4>& other_k) {
  check_view(differential_name, q_name, q);
  check_view(differential_name, k_name, k);
  check_extents<4>(differential_name, q_name, q.extent, other_q.extent);
  check_extents<4>(differential_name, k_name, k.extent, other_k.extent);
  check_contiguous_rows(differential_name, q_name, q);
  check_contiguous_rows(differential_name, k_name, k);
}

/// The gains of a row, or nothing without a norm.
inline std::vector<double> norm_gains(const DifferentialOptions& o, Index value_dim) {
  std::vector<double> gains;
  for (Index c = 0; o.norm && c < value_dim; ++c) gains.push_back(norm_gain(o, c));
  return gains;
}

template <class B, class C>
void run_differential(const B& backend, const C& first, const C& second,
                      const DifferentialOptions& options, Index key_slots) {
  using T = typename C::T;
  const auto memory = leased<DifferentialMemory>(backend);
  const Index columns = first.problem.value_dim;
  RowDifference<T> difference{*options.lambda, 0, nullptr};
  if (options.norm) {
    T* const gain = make_room<T>(memory->gain, columns);
    for (Index c = 0; c < columns; ++c) gain[c] = static_cast<T>(norm_gain(options, c));
    difference.gain = gain;
    difference.epsilon = options.norm->epsilon;
  }
  DifferentialRun<B, C>(backend, first, second, *memory, difference).run(key_slots);
}

template <class B, class S, class O>
void differential_checked(const B& backend, TensorView<const S, 4> q1, TensorView<const S, 4> k1,
                          TensorView<const S, 4> q2, TensorView<const S, 4> k2,
                          TensorView<const S, 4> v, TensorView<O, 4> out,
                          const DifferentialOptions& options) {
  const char* const f = differential_name;
  check_map("q1", "k1", q1, k1, q1, k1);
  check_map("q2", "k2", q2, k2, q1, k1);
  const AttendOptions& o = options.attend;
  check(o.key_offsets.has_value() == o.query_offsets.has_value(), f, "query_offsets, key_offsets",
        "one of them", "both or neither");
  check_differential_options<compute_t<S>>(options, v.extent[3]);
  const DenseKeyValue<S> keys1{k1, v, o.key_lengths, o.key_offsets};
  const DenseKeyValue<S> keys2{k2, v, o.key_lengths, o.key_offsets};
  keys1.validate(f);
  const Exact exact;
  Problem problem = checked_problem(f, q1, keys1, out, exact, o, k1.extent[2]);
  check_outputs(f, q1, keys1, out, exact, o);
  check_outputs(f, q2, keys2, out, exact, o);
  if (options.norm && options.norm->scale)
    check_no_overlap(f, "out", out, "norm.scale", list_view(options.norm->scale));
  if (q1.extent[0] == 0 || q1.extent[1] == 0 || q1.extent[2] == 0) return;
  problem.maps = 2;
  const Call<S, O, DenseKeyValue<S>, Exact> first{problem, q1, keys1, out, exact, o};
  const Call<S, O, DenseKeyValue<S>, Exact> second{problem, q2, keys2, out, exact, o};
  if constexpr (KernelBackend<B>)
    run_differential(on_any_executor(backend), first, second, options, k1.extent[2]);
  else
    reference_differential(first, second, *options.lambda, options.norm ? options.norm->epsilon : 0,
                           norm_gains(options, v.extent[3]));
}

inline double vectors_exp(const char* name, std::span<const float> a, std::span<const float> b) {
  check(a.size() == b.size(), "attention::differential_lambda", name, a.size(), b.size());
  const double sum = reference_dot(a.data(), b.data(), static_cast<Index>(a.size()));
  const double e = std::exp(sum);
  check(is_finite(e), "attention::differential_lambda", name, sum,
        "vectors whose product has a finite exponential");
  return e;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// lambda = e^<lq1, lk1> - e^<lq2, lk2> + lambda_init with lambda_init = 0.8 - 0.6 e^(-0.3 layer).
///
/// \param lq1, lk1, lq2, lk2 the learned vectors of a layer, pairs of one length
/// \param layer  counted from 0
/// \throws std::invalid_argument if lengths differ, the layer is negative, or an exponential is not
///         finite
inline DifferentialLambda differential_lambda(std::span<const float> lq1,
                                              std::span<const float> lk1,
                                              std::span<const float> lq2,
                                              std::span<const float> lk2, Index layer) {
  check(layer >= 0, "attention::differential_lambda", "layer", layer, "at least 0");
  const double init = 0.8 - 0.6 * std::exp(-0.3 * static_cast<double>(layer));
  const double first = detail::vectors_exp("lq1, lk1", lq1, lk1);
  const double second = detail::vectors_exp("lq2, lk2", lq2, lk2);
  return {first - second + init, init};
}

/// Differential attention: out_i = RMSNorm(sum_j (p1_ij - lambda p2_ij) v_j) (1 - lambda_init).
///
/// \param backend  where and how; left out: pare::simd
/// \param q1, q2   [batch, heads, queries, key dim], queries of the two maps
/// \param k1, k2   [batch, kv heads, keys, key dim]
/// \param v        [batch, kv heads, keys, value dim]
/// \param out      [batch, heads, queries, value dim], written; must not overlap an input
/// \param options  lambda, norm, and what `attend` is told of both maps
/// \throws std::invalid_argument if shapes, strides or options do not fit, lambda is missing or not
///         finite, a scale times 1 - lambda_init is not, an option of `attend` is given that is not
///         honoured, or out overlaps an input. Nothing is written then. No queries: a no-op.
///
/// Cost: 4 (key dim + value dim) FLOPs for each visible (query, key) pair; the multiplier binds.
/// With value dim 2 d that is 1.5 times the FLOPs of one map of key and value dim 2 d. Memory:
/// twice that of `attend`. The same bits for any number of threads.
template <Backend B, In<4> Q1, In<4> K1, In<4> Q2, In<4> K2, In<4> V, Out<4> O>
requires AttendScalars<Q1, K1, V, O> && SameScalar<Q1, Q2, K2>
void differential(const B& backend, const Q1& q1, const K1& k1, const Q2& q2, const K2& k2,
                  const V& v, O&& out, const DifferentialOptions& options) {
  detail::differential_checked(backend, as_const(to_view(q1)), as_const(to_view(k1)),
                               as_const(to_view(q2)), as_const(to_view(k2)), as_const(to_view(v)),
                               to_view(out), options);
}

/// \overload
template <In<4> Q1, In<4> K1, In<4> Q2, In<4> K2, In<4> V, Out<4> O>
requires AttendScalars<Q1, K1, V, O> && SameScalar<Q1, Q2, K2>
void differential(const Q1& q1, const K1& k1, const Q2& q2, const K2& k2, const V& v, O&& out,
                  const DifferentialOptions& options) {
  differential(simd, q1, k1, q2, k2, v, out, options);
}

PARE_REFUSE_CALLS(differential, "attention::differential",
                  "after out: wanted DifferentialOptions, members spelt and ordered as declared",
                  (INPUT, (roles::Reads<4>), "q1", "[batch, heads, queries, key dim]"),
                  (INPUT, (roles::ReadsSame<4>), "k1", "[batch, kv heads, keys, key dim]"),
                  (INPUT, (roles::ReadsSame<4>), "q2", "[batch, heads, queries, key dim]"),
                  (INPUT, (roles::ReadsSame<4>), "k2", "[batch, kv heads, keys, key dim]"),
                  (INPUT, (roles::ReadsSame<4>), "v", "[batch, kv heads, keys, value dim]"),
                  (OUTPUT, (roles::WritesEither<4>), "out", "[batch, heads, queries, value dim]"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
