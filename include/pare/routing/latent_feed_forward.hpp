// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Gated feed-forward experts whose gate and up projections share factors by group (MoLE).
///
///     z_gate = B_gate,g x,   z_up = B_up,g x                      once per row and group
///     y_e    = D_e (A(A_gate,e z_gate) * (A_up,e z_up))           of each expert e of group g
///
/// ```cpp
/// auto gates = grouped_shared_factors(gate_weights, 8, {.latent = 64}, covariance);
/// auto ups = grouped_shared_factors(up_weights, 8, {.latent = 64}, covariance);
/// const auto experts = latent_feed_forward<bf16>(gates, ups, down_weights);  // copies
/// mixture(x, routes, experts, y);                     // or grouped_multiply: latent_experts.hpp
/// ```
///
/// Source: MoLE, arXiv 2503.23100, whose algorithm is not public. Reconstructed: that the down
/// projection is not factored. A reproduction that is public has no router and one down projection
/// for all; it is not followed.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/shared_factors.hpp>
#include <pare/routing/feed_forward.hpp>
#include <pare/routing/latent_experts.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/linear.hpp>

#include <array>
#include <cstddef>
#include <ranges>
#include <utility>
#include <vector>

namespace pare::routing {
PARE_ABI_BEGIN

/// A layer that sees some columns of its input: y = layer(x[:, first, first + layer.inputs())).
template <class L>
requires transformer::LinearOf<L, transformer::linear_scalar<L>>
class ColumnsOfInput {
 public:
  using scalar = transformer::linear_scalar<L>;  ///< of x and y

  /// \param first  the first column that the layer sees
  /// \param inputs how many columns x has
  /// \throws std::invalid_argument if the layer's do not lie among them
  ColumnsOfInput(L layer, Index first, Index inputs)
      : layer_(std::move(layer)), first_(first), inputs_(inputs) {
    check(first >= 0 && inputs >= layer_.inputs() && first <= inputs - layer_.inputs(),
          "routing::ColumnsOfInput", "first", std::array<Index, 2>{first, inputs},
          Worded{"[first, inputs] with room for the inputs of the layer, ", layer_.inputs()});
  }

  Index inputs() const { return inputs_; }
  Index outputs() const { return layer_.outputs(); }
  Index first() const { return first_; }
  const L& layer() const { return layer_; }
  /// Visits the layer that it is made of.
  template <class Visit>
  void each_layer(const Visit& visit) const {
    visit(layer_);
  }

  /// \param x [rows, inputs], any strides
  /// \param y [rows, outputs], the same; apart from x and the layer
  /// \throws std::invalid_argument if an extent does not fit or y overlaps what is read. Nothing is
  ///         written then. Cost and memory: those of the layer.
  template <Backend B>
  void apply(const B& backend, TensorView<const scalar, 2> x, TensorView<scalar, 2> y) const {
    constexpr const char* function = "routing::ColumnsOfInput::apply";
    transformer::check_linear(function, inputs(), outputs(), x, y);
    transformer::check_apart_from_layer(function, "y", y, layer_);
    layer_.apply(backend, columns_of(x, first_, layer_.inputs()), y);
  }

 private:
  L layer_;
  Index first_, inputs_;
};

/// An expert of latent_feed_forward: [z_gate, z_up] to y.
template <StorageScalar S, transformer::Activation A = transformer::Silu>
using LatentFeedForward =
    GatedFeedForward<ColumnsOfInput<transformer::DenseLinear<S>>, A, transformer::DenseLinear<S>>;

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

/// B_gate above B_up.
template <StorageScalar S, class T>
transformer::DenseLinear<S> both_projections(TensorView<const T, 2> gate, TensorView<const T, 2> up,
                                             const transformer::DenseLinearOptions& options) {
  transformer::DenseLinear<S> both(gate.rows() + up.rows(), gate.cols(), options);
  const TensorView<S, 2> to = both.own_weights();
  for (Index r = 0; r < to.rows(); ++r)
    for (Index c = 0; c < to.cols(); ++c)
      to(r, c) = static_cast<S>(
          static_cast<compute_t<S>>(r < gate.rows() ? gate(r, c) : up(r - gate.rows(), c)));
  return both;
}

/// Offsets are those of the rows of the specific factors, and both factors of one latent width.
template <class T>
void check_shared_factors(const char* function, const char* argument,
                          const factor::SharedFactors<T>& group) {
  const auto &left = group.factors.left, &right = group.factors.right;
  check(left.cols() == right.rows(), function, argument, left.cols(),
        Worded{"specific factors of the latent width of the shared one, ", right.rows()});
  check_offsets(function, argument, group.offsets, left.rows(), "rows of the specific factors");
}

/// Gate and up in the same groups, and a down projection for each expert.
template <class T>
void check_latent_layers(const char* function, const std::vector<factor::SharedFactors<T>>& gates,
                         const std::vector<factor::SharedFactors<T>>& ups, std::size_t downs) {
  check(!gates.empty(), function, "gates", gates.size(), "at least one group");
  check(ups.size() == gates.size(), function, "ups", ups.size(),
        Worded{"the groups of gates, ", static_cast<Index>(gates.size())});
  Index experts = 0;
  for (std::size_t g = 0; g < gates.size(); ++g) {
    check_shared_factors(function, "gates", gates[g]);
    check_shared_factors(function, "ups", ups[g]);
    check(ups[g].offsets == gates[g].offsets, function, "ups", ups[g].weights(),
          Worded{"weights as high as those of gates, ", gates[g].weights()});
    check(ups[g].shared().cols() == gates[g].shared().cols(), function, "ups",
          ups[g].shared().cols(), Worded{"the inputs of gates, ", gates[g].shared().cols()});
    experts += gates[g].weights();
  }
  check(static_cast<Index>(downs) == experts, function, "downs", downs,
        Worded{"one for each of the experts, ", experts});
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Experts of shared factors, in memory of their own.
///
/// \tparam S       what factors and weights are rounded to
/// \param gates    [groups], of one latent width, all weights of one height
/// \param ups      the same groups, of a latent width of their own
/// \param downs    a list of [outputs, hidden], one for each expert, any storage scalar
/// \param options  of all layers
/// \throws std::invalid_argument if there is no group, a group's offsets are not those of its rows,
///         or factors and weights do not fit each other
///
/// Memory: a copy of all of them.
template <StorageScalar S, transformer::Activation A = transformer::Silu, ComputeScalar T,
          factor::WeightList D>
LatentExperts<transformer::DenseLinear<S>, LatentFeedForward<S, A>> latent_feed_forward(
    const std::vector<factor::SharedFactors<T>>& gates,
    const std::vector<factor::SharedFactors<T>>& ups, const D& downs,
    const transformer::DenseLinearOptions& options = {}) {
  using Layer = transformer::DenseLinear<S>;
  constexpr const char* function = "routing::latent_feed_forward";
  detail::check_latent_layers(function, gates, ups, std::ranges::size(downs));
  std::vector<Layer> shared;
  std::vector<LatentFeedForward<S, A>> specific;
  std::vector<Index> offsets{0};
  auto down = std::ranges::begin(downs);
  for (std::size_t g = 0; g < gates.size(); ++g) {
    const Index first = gates[g].latent(), both = first + ups[g].latent();
    shared.push_back(detail::both_projections<S>(gates[g].shared(), ups[g].shared(), options));
    for (Index i = 0; i < gates[g].weights(); ++i)
      specific.emplace_back(
          ColumnsOfInput<Layer>(Layer::copy_of(gates[g].specific(i), options), 0, both),
          ColumnsOfInput<Layer>(Layer::copy_of(ups[g].specific(i), options), first, both),
          Layer::copy_of(*down++, options));
    offsets.push_back(static_cast<Index>(specific.size()));
  }
  return {std::move(shared), std::move(specific), std::move(offsets)};
}

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
