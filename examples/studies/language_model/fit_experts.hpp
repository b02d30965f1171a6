// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What is fitted to the inputs of a feed-forward layer that becomes experts: which neurons form a
/// group, and a router.

#include "language_model/expert_arguments.hpp"
#include "language_model/routed_feed_forward.hpp"

#include <pare/core/matrix.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/routing/gates.hpp>
#include <pare/routing/neuron_groups.hpp>
#include <pare/routing/oracle.hpp>
#include <pare/transformer/gates.hpp>

namespace language_model {

/// Puts neurons that are active together on the inputs side by side.
inline void group_by_activity(const ModelBackend& backend, FeedForwardWeights& weights,
                              const pare::RowMatrix<float>& inputs, Index groups) {
  pare::RowMatrix<float> gate(inputs.rows(), weights.gate.rows()), up(gate.rows(), gate.cols());
  pare::linalg::multiply(backend, pare::const_view(inputs),
                         transpose(pare::const_view(weights.gate)), pare::to_view(gate));
  pare::linalg::multiply(backend, pare::const_view(inputs), transpose(pare::const_view(weights.up)),
                         pare::to_view(up));
  pare::transformer::activate_gated(backend, gate, up, gate, pare::transformer::Silu{});
  pare::routing::permute_neurons(pare::routing::co_activation_order(gate, groups), weights.gate,
                                 weights.up, weights.down);
}

/// A linear router that foretells the oracle's choice on the inputs.
inline pare::RowMatrix<float> ridge_router(const ModelBackend& backend,
                                           const RoutedFeedForward& layer, ExpertShare share,
                                           const pare::RowMatrix<float>& inputs) {
  pare::RowMatrix<float> scores(inputs.rows(), share.groups);
  layer.score_by_errors(backend, pare::const_view(inputs), scores);
  const auto best = route(backend, scores, pare::routing::TopBlocks{.k = share.used});
  return pare::routing::fit_ridge_router(backend, inputs, best.ids, share.groups, {.ridge = 10});
}

}  // namespace language_model
