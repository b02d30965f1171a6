// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A dense feed-forward layer as experts: its neurons in groups of one size (FactorLLM).
///
/// ```cpp
/// // gate, up [hidden, dim], down [dim, hidden]
/// const auto experts = neuron_groups(gate, up, down, 4);    // views: nothing is copied
/// const auto order = co_activation_order(activations, 4);   // [hidden], of a sample's activations
/// permute_neurons(order, gate, up, down);                   // then alike neurons share a group
/// ```
///
/// Neurons [g hidden / groups, (g + 1) hidden / groups) are group g. All groups with weights of 1
/// are the dense layer, to rounding, in any order of neurons.
///
/// Source: FactorLLM, arXiv 2408.11855, whose code takes groups by index. Ours: groups by what
/// neurons are active together, by balanced k-means of their activations over tokens.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/routing/detail/balanced_groups.hpp>
#include <pare/routing/feed_forward.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::routing {

/// Options of co_activation_order.
struct CoActivationOptions {
  Index rounds = 10;  ///< of k-means, at least 0. Ours
  /// Of the neuron that the first centre is; the others are those farthest from all before.
  std::uint64_t seed = 0;
};

namespace detail {
PARE_ABI_BEGIN

inline void check_groups(const char* function, Index groups, Index hidden) {
  check(groups >= 1 && hidden % groups == 0, function, "groups", groups,
        Worded{"a divisor of the ", hidden, " neurons"});
}

template <class S>
void check_feed_forward_weights(const char* function, const TensorView<const S, 2>& gate,
                                const TensorView<const S, 2>& up,
                                const TensorView<const S, 2>& down) {
  check_view(function, "gate", gate);
  check(gate.rows() >= 1 && gate.cols() >= 1, function, "gate", gate.extent,
        "[hidden, inputs] of at least one each");
  check_view(function, "up", up);
  check_extents(function, "up", up.extent, gate.extent);
  check_view(function, "down", down);
  check_extents<2>(function, "down", down.extent, {down.rows(), gate.rows()});
  check(down.rows() >= 1, function, "down", down.extent, "at least one output");
}

template <class S>
std::vector<GatedFeedForward<transformer::DenseLinear<S>>> neuron_groups(
    const TensorView<const S, 2>& gate, const TensorView<const S, 2>& up,
    const TensorView<const S, 2>& down, Index groups) {
  constexpr const char* function = "routing::neuron_groups";
  check_feed_forward_weights(function, gate, up, down);
  check_contiguous_rows(function, "gate", gate);
  check_contiguous_rows(function, "up", up);
  check_contiguous_rows(function, "down", down);
  check_groups(function, groups, gate.rows());
  const Index each = gate.rows() / groups;
  using Layer = transformer::DenseLinear<S>;
  std::vector<GatedFeedForward<Layer>> experts;
  experts.reserve(static_cast<std::size_t>(groups));
  for (Index g = 0; g < groups; ++g)
    experts.emplace_back(Layer(rows_of(gate, g * each, each)), Layer(rows_of(up, g * each, each)),
                         Layer(columns_of(down, g * each, each)));
  return experts;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Cuts a gated feed-forward layer into experts of equal numbers of neurons, which view its
/// weights.
///
/// \param gate,up [hidden, inputs] of float, bf16, f16 or double, rows contiguous
/// \param down    [outputs, hidden], of the same scalar, rows contiguous
/// \param groups  a divisor of hidden
/// \returns groups experts; the weights must outlive them
/// \throws std::invalid_argument if extents do not fit, rows are not contiguous, or groups do not
///         divide the neurons
///
/// Cost: none; nothing is copied.
template <In<2> G, In<2> U, In<2> D>
requires SameScalar<G, U, D>
auto neuron_groups(const G& gate, const U& up, const D& down, Index groups) {
  return detail::neuron_groups(as_const(to_view(gate)), as_const(to_view(up)),
                               as_const(to_view(down)), groups);
}

/// An order of neurons in which those that are active together stand in one group.
///
/// Neurons are columns of |activations|, scaled to length 1; groups are of equal size: pairs of a
/// neuron and a centre are taken by falling similarity as long as the group has room.
///
/// \param activations [tokens, hidden] of float or double, of a sample: silu(gate) * up, say
/// \param groups      a divisor of hidden
/// \returns [hidden]: order[i] is the neuron that stands at i
/// \throws std::invalid_argument if there is no token or neuron, a number is not finite, groups do
///         not divide the neurons, or an option is out of range
///
/// Cost: 2 rounds tokens hidden groups FLOPs in double, on one thread. Memory: a copy in double.
/// Neurons that are never active fill what room is left.
template <In<2> A>
requires ComputeScalar<scalar_of<A>>
std::vector<Index> co_activation_order(const A& activations, Index groups,
                                       const CoActivationOptions& options = {}) {
  constexpr const char* function = "routing::co_activation_order";
  const auto a = as_const(to_view(activations));
  check_view(function, "activations", a);
  check(a.rows() >= 1 && a.cols() >= 1, function, "activations", a.extent,
        "at least one token and neuron");
  detail::check_groups(function, groups, a.cols());
  check(options.rounds >= 0, function, "rounds", options.rounds, "at least 0");
  for (Index t = 0; t < a.rows(); ++t)
    for (Index i = 0; i < a.cols(); ++i)
      check(is_finite(static_cast<double>(a(t, i))), function, "activations",
            std::array<Index, 2>{t, i}, "[token, neuron] with a finite number");
  return detail::balanced_groups(a, groups, options.rounds, options.seed);
}

/// Puts the neurons of a gated feed-forward layer in another order, which leaves it the same.
///
/// \param order   [hidden], each neuron once: neuron order[i] comes to i
/// \param gate,up [hidden, inputs], any strides, written; `down` [outputs, hidden], the same
/// \throws std::invalid_argument if extents do not fit, or order is no permutation. Nothing is
///         written then.
///
/// Cost: the weights are read and written. Memory: a copy of the larger one.
template <Out<2> G, Out<2> U, Out<2> D>
requires SameScalar<G, U, D>
void permute_neurons(std::span<const Index> order, G&& gate, U&& up, D&& down) {
  constexpr const char* function = "routing::permute_neurons";
  const auto g = to_view(gate), u = to_view(up), d = to_view(down);
  detail::check_feed_forward_weights(function, as_const(g), as_const(u), as_const(d));
  check_writable(function, "gate", g);
  check_writable(function, "up", u);
  check_writable(function, "down", d);
  check_no_overlap(function, "up", u, "gate", as_const(g));
  check_no_overlap(function, "down", d, "gate", as_const(g));
  check_no_overlap(function, "down", d, "up", as_const(u));
  detail::check_order(function, order, g.rows());
  detail::permute_rows(order, g);
  detail::permute_rows(order, u);
  detail::permute_rows(order, transpose(d));
}

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
