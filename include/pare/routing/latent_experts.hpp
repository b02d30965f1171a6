// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Experts behind layers that groups of them share (MoLE): y_e(x) = specific_e(shared_g(x)), where
/// expert e is of group g, and a row goes through shared_g once however many experts of g it has.
///
/// ```cpp
/// // weights: one matrix [outputs x inputs] for each expert; groups of 8 share B_g
/// auto groups = grouped_shared_factors(weights, 8, {.latent = 64}, covariance);
/// std::vector<transformer::SharedLinear<bf16>> layers;
/// for (const auto& g : groups) layers.push_back(transformer::SharedLinear<bf16>::copy_of(g));
/// const auto experts = latent_experts(layers);              // views them
/// grouped_multiply(x, plan, experts, parts);                // A_e (B_g x), B_g x once
/// mixture(x, routes, experts, y);                           // or at once: plan, parts, their sum
/// const auto errors = part_errors(plan, parts, dense_parts);  // part_errors.hpp, by expert
/// ```
///
/// Gated feed-forward experts with shared factors of gate and up are latent_feed_forward.hpp.
///
/// Source: MoLE, "Mixture of Latent Experts", arXiv 2503.23100, whose algorithm is not public: that
/// a group's projection is applied once is in its abstract, how rows are grouped is ours.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/routing/grouped_multiply.hpp>
#include <pare/routing/route_plan.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/structured/shared_linear.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace pare::routing {
namespace detail {
PARE_ABI_BEGIN

/// Which rows go to which group, and what the groups make of them to which expert.
template <class T>
struct LatentMemory {
  std::vector<Index> group_at;  ///< of each place of the call's plan
  std::vector<Index> ids;       ///< [rows, choices] the groups of each row, each once, then -1
  RoutePlan groups;
  std::vector<Index> latent_rows;  ///< the place of `groups` of each place of the call's plan
  AlignedBuffer<T> latent;

  /// Rows to groups, to each once: places of a row rise by expert, so those of a group are
  /// neighbours, and the groups of a row rise as well.
  void plan_steps(const RoutePlan& plan, std::span<const Index> offsets) {
    const auto count = static_cast<Index>(offsets.size()) - 1;
    group_at.resize(static_cast<std::size_t>(plan.routed()));
    for (Index g = 0; g < count; ++g)
      std::fill(group_at.begin() + first_place(plan, offsets, g),
                group_at.begin() + first_place(plan, offsets, g + 1), g);
    ids.assign(static_cast<std::size_t>(plan.rows() * plan.choices()), -1);
    for (Index r = 0; r < plan.rows(); ++r)
      each_place(plan, r, [&](Index p, Index nth) {
        ids[static_cast<std::size_t>(r * plan.choices() + nth)] = group_of(p);
      });
    groups.assign({ids.data(), {plan.rows(), plan.choices()}, {plan.choices(), 1}}, count);
    latent_rows.resize(group_at.size());
    for (Index r = 0; r < plan.rows(); ++r)
      each_place(plan, r, [&, places = groups.places_of(r)](Index p, Index nth) {
        latent_rows[static_cast<std::size_t>(p)] = places[static_cast<std::size_t>(nth)];
      });
  }

 private:
  Index group_of(Index place) const { return group_at[static_cast<std::size_t>(place)]; }
  static Index first_place(const RoutePlan& plan, std::span<const Index> offsets, Index group) {
    return plan.offsets()[static_cast<std::size_t>(offsets[static_cast<std::size_t>(group)])];
  }
  /// visit(place, nth) of a row's places, `nth` of its groups.
  template <class Visit>
  void each_place(const RoutePlan& plan, Index row, const Visit& visit) const {
    Index nth = -1, last = -1;
    for (const Index p : plan.places_of(row)) {
      if (group_of(p) != last) {
        last = group_of(p);
        ++nth;
      }
      visit(p, nth);
    }
  }
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Layers `shared`, one per group, and `specific`, one per expert, by group: an `ExpertSetOf`. Both
/// are a `transformer::LinearOf` rows of one scalar; what is specific need not be linear.
template <class Shared, class Specific = Shared>
requires transformer::LinearOf<Shared, transformer::linear_scalar<Shared>> &&
         transformer::LinearOf<Specific, transformer::linear_scalar<Shared>>
class LatentExperts {
 public:
  using scalar = transformer::linear_scalar<Shared>;  ///< of x and parts

  /// \param shared   [groups] of one shape, [latent, inputs]
  /// \param specific [experts] of one shape, [outputs, latent]
  /// \param offsets  [groups + 1] group g has the experts offsets[g] to offsets[g + 1] - 1: from 0
  ///                 to all, increasing
  /// \throws std::invalid_argument if there is no group, or they do not fit each other
  LatentExperts(std::vector<Shared> shared, std::vector<Specific> specific,
                std::vector<Index> offsets)
      : shared_(std::move(shared)), specific_(std::move(specific)), offsets_(std::move(offsets)) {
    constexpr const char* function = "routing::LatentExperts";
    check(!shared_.empty(), function, "shared", shared_.size(), "at least one layer");
    check(offsets_.size() == shared_.size() + 1, function, "offsets", offsets_.size(),
          Worded{"one more than the shared layers, ", groups()});
    check_offsets(function, "offsets", offsets_, static_cast<Index>(specific_.size()), "experts");
    for (std::size_t g = 0; g < shared_.size(); ++g) {
      check(offsets_[g + 1] > offsets_[g], function, "offsets", offsets_[g + 1],
            "at least one expert per group");
      check_shape(function, "shared", shared_[g], shared_[0].outputs(), shared_[0].inputs());
    }
    for (const Specific& layer : specific_)
      check_shape(function, "specific", layer, specific_[0].outputs(), shared_[0].outputs());
  }

  Index inputs() const { return shared_.front().inputs(); }
  Index latent() const { return shared_.front().outputs(); }
  Index outputs() const { return specific_.front().outputs(); }
  Index groups() const { return static_cast<Index>(shared_.size()); }
  Index experts() const { return static_cast<Index>(specific_.size()); }
  std::span<const Shared> shared() const { return shared_; }
  std::span<const Specific> specific() const { return specific_; }
  const std::vector<Index>& offsets() const { return offsets_; }
  /// Visits the layers that they are made of.
  template <class Visit>
  void each_layer(const Visit& visit) const {
    for (const Shared& layer : shared_) visit(layer);
    for (const Specific& layer : specific_) visit(layer);
  }

  /// Applies each row's experts to it, and the layer of a group once to each row that has experts
  /// of the group: what `grouped_multiply` and `mixture` call.
  ///
  /// \param x     [rows, inputs], any strides
  /// \param plan  of those rows, over as many experts
  /// \param parts [plan.routed(), outputs], any strides, written; apart from x and the layers. Row
  ///              p belongs to place p
  /// \throws std::invalid_argument if an extent does not fit, or parts overlaps what is read.
  ///         Nothing is written then. No pairs: a no-op.
  ///
  /// Cost: for each pair of a row and a group inputs latent products, for each of a row and an
  /// expert latent outputs, beside inputs outputs of an expert that is dense; of few rows, reading
  /// the layers of the groups and experts that were chosen binds. Memory, kept in the backend's
  /// workspace: a plan of groups, two indices per pair, [pairs of rows and groups, latent], and
  /// once per worker the rows of one group or expert. The same bits for any number of threads, if
  /// the layers keep them.
  template <Backend B>
  void apply(const B& backend, TensorView<const scalar, 2> x, const RoutePlan& plan,
             TensorView<scalar, 2> parts) const {
    constexpr const char* function = "routing::LatentExperts::apply";
    detail::check_grouped(function, x, plan, *this, parts);
    checked_count(function, "x", checked_product(function, "x", plan.routed(), latent()),
                  sizeof(scalar));
    if (plan.routed() == 0) return;
    const auto memory = leased<detail::LatentMemory<scalar>>(backend);
    memory->plan_steps(plan, offsets_);
    const RoutePlan& to_groups = memory->groups;
    const TensorView<scalar, 2> z = matrix_in(memory->latent, to_groups.routed(), latent());
    detail::run_grouped(backend, x, {to_groups.offsets(), to_groups.rows_by_place()}, shared(), z);
    detail::run_grouped(backend, as_const(z), {plan.offsets(), memory->latent_rows}, specific(),
                        parts);
  }

 private:
  template <class L>
  static void check_shape(const char* function, const char* argument, const L& layer, Index outputs,
                          Index inputs) {
    check(layer.inputs() == inputs, function, argument, layer.inputs(),
          Worded{"layers of as many inputs, ", inputs});
    check(layer.outputs() == outputs, function, argument, layer.outputs(),
          Worded{"layers of as many outputs, ", outputs});
  }

  std::vector<Shared> shared_;
  std::vector<Specific> specific_;
  std::vector<Index> offsets_;
};

/// The experts of layers that share a factor, a group each: A_e (B_g x), viewed.
///
/// \param layers  [groups], of one number of inputs and latent width, all A_e of one height; they
///                outlive the experts, and stay where they are
/// \param options of the layers that view B_g and A_e
/// \throws std::invalid_argument as LatentExperts, or if an option is for another scalar
template <StorageScalar S>
LatentExperts<transformer::DenseLinear<S>> latent_experts(
    const std::vector<transformer::SharedLinear<S>>& layers,
    const transformer::DenseLinearOptions& options = {}) {
  using Layer = transformer::DenseLinear<S>;
  std::vector<Layer> shared, specific;
  std::vector<Index> offsets{0};
  for (const auto& group : layers) {
    shared.emplace_back(group.shared(), options);
    for (std::size_t i = 0; i + 1 < group.offsets().size(); ++i)
      specific.emplace_back(rows_of(group.specific(), group.offsets()[i],
                                    group.offsets()[i + 1] - group.offsets()[i]),
                            options);
    offsets.push_back(static_cast<Index>(specific.size()));
  }
  return {std::move(shared), std::move(specific), std::move(offsets)};
}
/// A temporary's factors would be gone: name it first.
template <StorageScalar S>
LatentExperts<transformer::DenseLinear<S>> latent_experts(
    const std::vector<transformer::SharedLinear<S>>&& layers,
    const transformer::DenseLinearOptions& options = {}) = delete;

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
