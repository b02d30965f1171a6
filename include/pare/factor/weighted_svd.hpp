// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Fisher-weighted singular value decomposition (FWSVD): truncated decomposition in which outputs
/// or inputs of a layer count by their importance.
///
/// ```cpp
/// FisherDiagonal fisher(out, in);
/// for (...) fisher.add_gradient(gradient);                              // one call an example
/// auto lowrank = weighted_svd(w, fisher, {.rank = 128}, Axis::Input);   // the paper's rows
/// auto other = weighted_svd(w, importance, {.rank = 128}, Axis::Output);
/// ```
///
/// FWSVD writes Y = X W and weighs the rows of its W, which are inputs: Axis::Input here. Its D^-1
/// U S is W V here, so that no weight is divided by and weights of zero need no epsilon. Source:
/// Hsu, Hua, Chang, Lou, Shen and Jin, "Language model compression with weighted low-rank
/// factorization", ICLR 2022, section 3.

#include <pare/core/macros_off.hpp>

#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/fisher.hpp>
#include <pare/factor/svd.hpp>

#include <type_traits>

namespace pare::factor {
namespace detail {
template <class X>
using IsWeights = std::bool_constant<std::is_same_v<std::remove_cvref_t<X>, FisherDiagonal> ||
                                     WeightVector<std::remove_cvref_t<X>>>;
}  // namespace detail
PARE_ABI_BEGIN

/// min over A [out x k], B [k x in] of sum_ij weight (W - A B)_ij^2, with the weight of output i or
/// of input j.
///
/// \param backend left out: pare::simd
/// \param w       [out x in], any dense Eigen matrix of float, double, bf16 or f16
/// \param weights [out] or [in] of any storage scalar, finite, at least 0, not all 0: squares, as
///                Fisher information is
/// \param options as of factorize (svd.hpp)
/// \param axis    the side that the weights belong to
/// \return        as factorize: a LowRank, whose energies are in the weighted norm
/// \throws std::invalid_argument as factorize
///
/// Cost, memory and determinism: those of truncated_svd; the weights are applied while W is packed.
template <Backend B, In<2> W, WeightVector X>
auto weighted_svd(const B& backend, const W& w, const X& weights, const SvdOptions& options,
                  Axis axis = Axis::Input) {
  constexpr const char* function = "factor::weighted_svd";
  check_enumerator(function, "axis", axis, Axis::Output);
  const auto run = [&](const auto& metric) {
    return detail::factorize_views(function, backend, as_const(to_view(w)), metric, options);
  };
  return axis == Axis::Output ? run(OutputWeights(weights)) : run(InputWeights(weights));
}

/// \overload
template <In<2> W, WeightVector X>
auto weighted_svd(const W& w, const X& weights, const SvdOptions& options,
                  Axis axis = Axis::Input) {
  return weighted_svd(simd, w, weights, options, axis);
}

/// The same with the sums of a Fisher information for the axis: fisher.sums(axis).
/// \throws std::invalid_argument also if no example was added.
template <Backend B, In<2> W>
auto weighted_svd(const B& backend, const W& w, const FisherDiagonal& fisher,
                  const SvdOptions& options, Axis axis = Axis::Input) {
  check_enumerator("factor::weighted_svd", "axis", axis, Axis::Output);
  return weighted_svd(backend, w, fisher.sums(axis), options, axis);
}

/// \overload
template <In<2> W>
auto weighted_svd(const W& w, const FisherDiagonal& fisher, const SvdOptions& options,
                  Axis axis = Axis::Input) {
  return weighted_svd(simd, w, fisher, options, axis);
}

/// min over A, B of sum_ij output_i (W - A B)_ij^2 input_j: both sides weighed.
/// \throws std::invalid_argument as factorize
template <Backend B, In<2> W, WeightVector X, WeightVector Y>
auto weighted_svd(const B& backend, const W& w, const X& output_weights, const Y& input_weights,
                  const SvdOptions& options) {
  return detail::factorize_views("factor::weighted_svd", backend, as_const(to_view(w)),
                                 BothWeights(output_weights, input_weights), options);
}

/// \overload
template <In<2> W, WeightVector X, WeightVector Y>
auto weighted_svd(const W& w, const X& output_weights, const Y& input_weights,
                  const SvdOptions& options) {
  return weighted_svd(simd, w, output_weights, input_weights, options);
}

PARE_REFUSE_CALLS(weighted_svd, "factor::weighted_svd",
                  "after the weights: wanted SvdOptions such as {.rank = 16}, members spelt and "
                  "ordered as declared, and an Axis for weights of one side",
                  (INPUT, (roles::Reads<2>), "w", "[out, in]"),
                  (PLAIN, (roles::Takes<detail::IsWeights>), "weights",
                   "a FisherDiagonal or a vector in memory of float, double, bf16 or f16"))

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
