// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// DoRA: a low-rank adapter in which each row of the weight has a magnitude of its own, m_o. With W
/// [out x in], A [rank x in], B [out x rank] and a scale s, the layer's weight is
///
///     row o: g_o (W + s B A)_o,   g_o = m_o / max(||(W + s B A)_o||, epsilon)
///
/// ```cpp
/// const DoraBase base = dora_base(w);                        // once: W is frozen
/// dora_norms(w, a, b, s, norms, {.base = &base});            // whenever A or B has changed
/// const auto gains = dora_gains(norms, magnitude, dora_epsilon<float>);
/// dora_delta(base_output, x, a, b, gains, s, delta);         // what the adapter adds
/// dora_forward(x, w, a, b, magnitude, s, y);                 // or all of it
/// ```
///
/// B A [out x in] is never formed. The norm of a row follows from three sums in double:
///
///     norm^2 = base + 2 s cross + s^2 gram
///     base = sum_j W_j^2,  cross = B (W A^T)^T,  gram = B (A A^T) B^T
///
/// Where the three cancel to less than 1e-3 of base + s^2 gram, or W A^T or A A^T leave the range
/// of float, the row is computed from its elements in double, at rank * in operations per row. A
/// few such rows cost next to nothing, but a matrix full of them takes tens of times longer.
///
/// Source: Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024; the factored norm
/// and the stable form: Zelenin and Zhuravlyova, "Scaling DoRA", arXiv 2603.22276. The recomputed
/// rows are our addition.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/factor/detail/dora_compose.hpp>
#include <pare/factor/detail/dora_norms.hpp>
#include <pare/factor/detail/low_rank_product.hpp>
#include <pare/factor/detail/reference_dora.hpp>
#include <pare/factor/metric.hpp>

#include <Eigen/Core>

#include <cmath>
#include <optional>
#include <type_traits>

namespace pare::factor {

PARE_ABI_BEGIN

/// What the norms need of a frozen W alone.
struct DoraBase {
  Eigen::VectorXd squares;  ///< [out] squared norms of the rows
};

PARE_ABI_END

/// Options of dora_norms.
struct DoraNormOptions {
  /// dora_base of this W; null: summed in the same pass, which costs next to nothing.
  const DoraBase* base = nullptr;
};

/// Options of dora_forward.
struct DoraForwardOptions {
  /// Lower bound of the norms that m is divided by, above 0; left out: dora_epsilon of W's scalar.
  std::optional<double> epsilon{};
  const DoraBase* base = nullptr;  ///< as of DoraNormOptions
};

/// A lower bound of norms that only prevents a division by 0: the one that DoRA's implementations
/// use in float. Theirs for 16-bit weights, 1e-6, would scale rows shorter than that. Norms are
/// never rounded to 16 bits here.
template <StorageScalar S>
inline constexpr double dora_epsilon = 1e-12;

/// A vector that is written: of Eigen's, or a range, of float or double.
template <class V>
concept NormVector = WeightVector<std::remove_reference_t<V>> && ComputeScalar<scalar_of<V>> &&
                     !std::is_const_v<pare::detail::element_of<std::remove_reference_t<V>>>;

/// Y holds what a layer W with an adapter A is summed in.
template <class X, class W, class A, class Y>
concept LayerOutputOf =
    std::is_same_v<scalar_of<Y>,
                   linalg::product_t<linalg::product_t<scalar_of<X>, scalar_of<W>>, scalar_of<A>>>;

namespace detail {

template <class X>
using IsWeightVector = std::bool_constant<WeightVector<std::remove_cvref_t<X>>>;
template <class X>
using IsNorms = std::bool_constant<NormVector<X>>;

PARE_ABI_BEGIN

inline void check_scale(const char* function, double scale) {
  check(is_finite(scale), function, "scale", scale, "a finite number");
}

inline void check_epsilon(const char* function, double epsilon) {
  check(is_finite(epsilon) && epsilon > 0, function, "epsilon", epsilon, "a number above 0");
}

/// A layer's weight and its adapter, with strides as products want them.
template <class S, class U>
struct DoraLayer {
  TensorView<const S, 2> w;
  TensorView<const U, 2> a, b;
  double scale;
};

template <class S, class U>
DoraLayer<S, U> checked_layer(const char* function, TensorView<const S, 2> w,
                              TensorView<const U, 2> a, TensorView<const U, 2> b, double scale,
                              const DoraBase* base) {
  check(w.cols() >= 1, function, "w", w.extent, "at least 1 input");
  check(a.rows() >= 1, function, "a", a.extent, "a rank of at least 1");
  check_extents<2>(function, "a", a.extent, {a.rows(), w.cols()});
  check_extents<2>(function, "b", b.extent, {w.rows(), a.rows()});
  check_scale(function, scale);
  if (base != nullptr)
    check_extents<1>(function, "base", {static_cast<Index>(base->squares.size())}, {w.rows()});
  return {linalg::checked_lines(function, "w", w), linalg::checked_lines(function, "a", a),
          linalg::checked_lines(function, "b", b), scale};
}

/// norm(row, value) for every row.
template <class B, class S, class U, class Norm>
void each_dora_norm(const B& backend, const DoraLayer<S, U>& layer, const DoraBase* base,
                    const Norm& norm) {
  const auto& [w, a, b, scale] = layer;
  Eigen::VectorXd values;
  if (w.rows() == 0) return;
  if constexpr (KernelBackend<B>) {
    if (scale != 0) {
      const double* squares = base != nullptr ? base->squares.data() : nullptr;
      return DoraNorms<B, S, U>(backend, w, a, b, scale, squares).run(norm);
    }
    if (base == nullptr) {
      values.resize(w.rows());
      row_squares(backend, w, values.data());
    }
    values = (base != nullptr ? base->squares : values).cwiseSqrt().eval();
  } else {
    values = scale != 0 ? reference_dora_norms(w, a, b, scale)
                        : Eigen::VectorXd(reference_matrix(w).rowwise().norm());
  }
  for (Index i = 0; i < values.size(); ++i) norm(i, values(i));
}

/// g of one row; a NaN stays one.
inline double dora_gain(double magnitude, double norm, double epsilon) {
  return magnitude / (norm < epsilon ? epsilon : norm);
}

template <class S>
double value_of(S x) {
  return static_cast<double>(static_cast<compute_t<S>>(x));
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// base_o = sum_j W_oj^2: what norms keep of a frozen W.
///
/// \param backend left out: pare::simd
/// \param w       [out x in], any storage scalar
/// \return        [out] sums in double
/// \throws std::invalid_argument if in is 0, or W is contiguous neither by rows nor by columns.
///
/// Cost: W is read once, which binds.
template <Backend B, In<2> W>
DoraBase dora_base(const B& backend, const W& w) {
  constexpr const char* function = "factor::dora_base";
  const auto view = linalg::checked_lines(function, "w", as_const(to_view(w)));
  check(view.cols() >= 1, function, "w", view.extent, "at least 1 input");
  if constexpr (KernelBackend<B>) {
    DoraBase base{Eigen::VectorXd(view.rows())};
    if (view.rows() > 0) detail::row_squares(on_any_executor(backend), view, base.squares.data());
    return base;
  } else {
    return {detail::reference_matrix(view).rowwise().squaredNorm()};
  }
}

/// \overload
template <In<2> W>
DoraBase dora_base(const W& w) {
  return dora_base(simd, w);
}

/// norm_o = ||(W + scale B A)_o||, never forming B A.
///
/// \param backend left out: pare::simd
/// \param w       [out x in], any storage scalar
/// \param a       [rank x in], any storage scalar; rank at least 1
/// \param b       [out x rank], of the same scalar
/// \param scale   finite; 0: the norms of W, whatever A and B hold
/// \param norms   [out], float or double, written
/// \throws std::invalid_argument if shapes do not fit, the rank or in is 0, scale is not finite, a
///         matrix is contiguous neither by rows nor by columns, or norms overlap an input. Nothing
///         is written then.
///
/// A NaN or infinity in a row of W or B reaches the norm of that row, one in A those of all rows.
/// Products are summed in float (double where an input is double), so a norm is off by a few
/// hundred roundings of float at most where its sums nearly cancel, by few elsewhere; bf16 factors
/// of a bf16 W are multiplied as they are.
///
/// Cost: 2 out in rank + in rank^2 + 2 out rank^2 FLOPs, which bind; W is read once. Memory,
/// kept in the backend's workspace: rank (in + rank) scalars, and for each worker a block of 192
/// rows of a few times the rank. The same bits for every executor.
template <Backend B, In<2> W, In<2> A, In<2> L, NormVector N>
requires SameScalar<A, L>
void dora_norms(const B& backend, const W& w, const A& a, const L& b, double scale, N&& norms,
                const DoraNormOptions& options = {}) {
  constexpr const char* function = "factor::dora_norms";
  const auto layer = detail::checked_layer(function, as_const(to_view(w)), as_const(to_view(a)),
                                           as_const(to_view(b)), scale, options.base);
  const auto to = to_vector_view(norms);
  check_extents<1>(function, "norms", to.extent, {layer.w.rows()});
  check_writable(function, "norms", to);
  check_no_overlap(function, "norms", to, "w", layer.w);
  check_no_overlap(function, "norms", to, "a", layer.a);
  check_no_overlap(function, "norms", to, "b", layer.b);
  if (options.base != nullptr)
    check_no_overlap(function, "norms", to, "base",
                     as_const(to_vector_view(options.base->squares)));
  detail::each_dora_norm(
      on_any_executor(backend), layer, options.base,
      [&](Index row, double norm) { to(row) = static_cast<scalar_of<N>>(norm); });
}

/// \overload
template <In<2> W, In<2> A, In<2> L, NormVector N>
requires SameScalar<A, L>
void dora_norms(const W& w, const A& a, const L& b, double scale, N&& norms,
                const DoraNormOptions& options = {}) {
  dora_norms(simd, w, a, b, scale, norms, options);
}

/// g_o = m_o / max(norm_o, epsilon); NaN where one of them is.
///
/// \param norms     [out]
/// \param magnitude [out]
/// \param epsilon   above 0: dora_epsilon<scalar of W>
/// \throws std::invalid_argument if lengths differ, or epsilon is not a number above 0.
template <WeightVector N, WeightVector M>
Eigen::VectorXd dora_gains(const N& norms, const M& magnitude, double epsilon) {
  constexpr const char* function = "factor::dora_gains";
  const auto n = as_const(to_vector_view(norms));
  const auto m = as_const(to_vector_view(magnitude));
  check_view(function, "norms", n);
  check_view(function, "magnitude", m);
  check_extents<1>(function, "magnitude", m.extent, n.extent);
  detail::check_epsilon(function, epsilon);
  Eigen::VectorXd gains(n.extent[0]);
  for (Index i = 0; i < gains.size(); ++i)
    gains(i) = detail::dora_gain(detail::value_of(m(i)), detail::value_of(n(i)), epsilon);
  return gains;
}

/// What the adapter adds to the layer's output: (g - 1) .* base_output + g .* (scale X A^T B^T).
///
/// The form g .* (base_output + ...) - base_output loses all digits where g is near 1; this one has
/// no such difference.
///
/// \param backend     left out: pare::simd
/// \param base_output [tokens x out] X W^T without a bias, any storage scalar
/// \param x           [tokens x in], any storage scalar
/// \param a           [rank x in], any storage scalar; rank at least 1
/// \param b           [out x rank], of the same scalar
/// \param gains       [out] of dora_gains; keep them in double, or g - 1 loses digits
/// \param scale       finite in delta's scalar
/// \param delta       [tokens x out], written: double where x or a is, else float
/// \throws std::invalid_argument if shapes do not fit, the rank or in is 0, scale is not finite, a
///         matrix is contiguous neither by rows nor by columns, or delta overlaps an input. Nothing
///         is written then. No tokens: a no-op.
///
/// Cost: 2 tokens rank (in + out) FLOPs, which bind; base_output is read once. Memory:
/// that of apply, and 2 out scalars. The same bits for every executor.
template <Backend B, In<2> O, In<2> X, In<2> A, In<2> L, WeightVector G, Out<2> D>
requires SameScalar<A, L> && ProductOf<X, scalar_of<A>, D>
void dora_delta(const B& backend, const O& base_output, const X& x, const A& a, const L& b,
                const G& gains, double scale, D&& delta) {
  detail::dora_delta_views(backend, as_const(to_view(base_output)), as_const(to_view(x)),
                           as_const(to_view(a)), as_const(to_view(b)),
                           as_const(to_vector_view(gains)), scale, to_view(delta));
}

/// \overload
template <In<2> O, In<2> X, In<2> A, In<2> L, WeightVector G, Out<2> D>
requires SameScalar<A, L> && ProductOf<X, scalar_of<A>, D>
void dora_delta(const O& base_output, const X& x, const A& a, const L& b, const G& gains,
                double scale, D&& delta) {
  dora_delta(simd, base_output, x, a, b, gains, scale, delta);
}

/// The whole layer: Y = g .* (X W^T + scale X A^T B^T), norms and gains included.
///
/// \param backend   left out: pare::simd
/// \param x         [tokens x in], any storage scalar
/// \param w         [out x in], any storage scalar
/// \param a         [rank x in], any storage scalar; rank at least 1
/// \param b         [out x rank], of the same scalar
/// \param magnitude [out]
/// \param scale     finite in y's scalar
/// \param y         [tokens x out], written: double where x, w or a is, else float
/// \throws std::invalid_argument as dora_norms; if y overlaps an input; if epsilon is not a
///         finite number above 0. Nothing is written then. No tokens: a no-op.
///
/// Cost: that of dora_norms, and 2 tokens (in out + rank (in + out)) FLOPs. While W, A, B and m
/// stay as they are, dora_delta with kept gains spares the norms. Memory: that of dora_norms,
/// tokens rank and 3 out scalars. The same bits for every executor.
template <Backend B, In<2> X, In<2> W, In<2> A, In<2> L, WeightVector M, Out<2> Y>
requires SameScalar<A, L> && LayerOutputOf<X, W, A, Y>
void dora_forward(const B& backend, const X& x, const W& w, const A& a, const L& b,
                  const M& magnitude, double scale, Y&& y, const DoraForwardOptions& options = {}) {
  constexpr const char* function = "factor::dora_forward";
  const auto layer = detail::checked_layer(function, as_const(to_view(w)), as_const(to_view(a)),
                                           as_const(to_view(b)), scale, options.base);
  const auto m = as_const(to_vector_view(magnitude));
  check_extents<1>(function, "magnitude", m.extent, {layer.w.rows()});
  const double epsilon = options.epsilon.value_or(dora_epsilon<scalar_of<W>>);
  detail::check_epsilon(function, epsilon);
  detail::check_scale_in<scalar_of<Y>>(function, scale);
  const auto to = to_view(y);
  const auto from = detail::checked_input(function, as_const(to_view(x)), layer.w.cols());
  detail::check_output(function, "y", to, from, layer.a, layer.b);
  check_no_overlap(function, "y", to, "w", layer.w);
  check_no_overlap(function, "y", to, "magnitude", m);
  if (options.base != nullptr)
    check_no_overlap(function, "y", to, "base", as_const(to_vector_view(options.base->squares)));
  if (to.rows() == 0 || to.cols() == 0) return;
  const auto kept = leased<Eigen::VectorXd>(backend);
  Eigen::VectorXd& gains = *kept;
  gains.resize(layer.w.rows());
  detail::each_dora_norm(on_any_executor(backend), layer, options.base,
                         [&](Index row, double norm) {
                           gains(row) = detail::dora_gain(detail::value_of(m(row)), norm, epsilon);
                         });
  detail::dora_layer(on_any_executor(backend), from, layer.w, layer.a, layer.b, gains, scale,
                     linalg::checked_lines(function, "y", to));
}

/// \overload
template <In<2> X, In<2> W, In<2> A, In<2> L, WeightVector M, Out<2> Y>
requires SameScalar<A, L> && LayerOutputOf<X, W, A, Y>
void dora_forward(const X& x, const W& w, const A& a, const L& b, const M& magnitude, double scale,
                  Y&& y, const DoraForwardOptions& options = {}) {
  dora_forward(simd, x, w, a, b, magnitude, scale, y, options);
}

PARE_REFUSE_CALLS(dora_base, "factor::dora_base", "after w: wanted nothing",
                  (INPUT, (roles::Reads<2>), "w", "[out, in]"))
PARE_REFUSE_CALLS(dora_norms, "factor::dora_norms",
                  "after norms: wanted DoraNormOptions, members spelt and ordered as declared",
                  (INPUT, (roles::Reads<2>), "w", "[out, in]"),
                  (INPUT, (roles::Reads<2>), "a", "[rank, in]"),
                  (INPUT, (roles::Reads<2>), "b", "[out, rank], of the scalar of a"),
                  (ANY, (roles::TakesAny), "scale", "a number"),
                  (PLAIN, (roles::Takes<detail::IsNorms>), "norms",
                   "a vector to write to, [out], of float or double"))
PARE_REFUSE_CALLS(
    dora_forward, "factor::dora_forward",
    "after y: wanted DoraForwardOptions, members spelt and ordered as declared",
    (INPUT, (roles::Reads<2>), "x", "[tokens, in]"), (INPUT, (roles::Reads<2>), "w", "[out, in]"),
    (INPUT, (roles::Reads<2>), "a", "[rank, in]"), (INPUT, (roles::Reads<2>), "b", "[out, rank]"),
    (PLAIN, (roles::Takes<detail::IsWeightVector>), "magnitude", "a vector in memory, [out]"),
    (ANY, (roles::TakesAny), "scale", "a number"),
    (OUTPUT, (roles::WritesTogether<2>), "y", "[tokens, out]"))

PARE_REFUSE_CALLS(dora_delta, "factor::dora_delta",
                  "after scale: wanted delta, [tokens, out], of the scalar that x and a are "
                  "computed in",
                  (INPUT, (roles::Reads<2>), "base_output", "[tokens, out]"),
                  (INPUT, (roles::Reads<2>), "x", "[tokens, in]"),
                  (INPUT, (roles::Reads<2>), "a", "[rank, in]"),
                  (INPUT, (roles::Reads<2>), "b", "[out, rank]"),
                  (PLAIN, (roles::Takes<detail::IsWeightVector>), "gains",
                   "a vector in memory, [out]"),
                  (ANY, (roles::TakesAny), "scale", "a number"))

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
