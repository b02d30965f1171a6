// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A feed-forward layer of which each token uses some groups of neurons.
///
/// ```cpp
/// block.routed = RoutedFeedForward(std::move(weights), {4, 2}, Router::Oracle, {}, false);
/// ```

#include "common/any_linear.hpp"
#include "language_model/expert_arguments.hpp"

#include <pare/core/matrix.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/routing/mixture.hpp>
#include <pare/routing/neuron_groups.hpp>
#include <pare/routing/oracle.hpp>

#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace language_model {

using models::ModelBackend;

struct FeedForwardWeights {
  pare::RowMatrix<float> gate, up, down;
};

class RoutedFeedForward {
 public:
  /// \param router [groups, dim], of Router::Ridge
  RoutedFeedForward(FeedForwardWeights weights, ExpertShare share, Router by,
                    pare::RowMatrix<float> router, bool scaled)
      : weights_(std::make_shared<const FeedForwardWeights>(std::move(weights))),
        groups_(pare::routing::neuron_groups(weights_->gate, weights_->up, weights_->down,
                                             share.groups)),
        router_(std::move(router)),
        share_(share),
        by_(by),
        scaled_(scaled) {}

  Index inputs() const { return weights_->gate.cols(); }
  Index outputs() const { return weights_->down.rows(); }

  void apply(const ModelBackend& backend, TensorView<const float, 2> x,
             TensorView<float, 2> y) const {
    pare::RowMatrix<float> logits(x.rows(), share_.groups);
    if (by_ == Router::Oracle)
      score_by_errors(backend, x, logits);
    else if (by_ == Router::Ridge)
      pare::linalg::multiply(backend, x, transpose(pare::const_view(router_)),
                             pare::to_view(logits));
    else
      score_by_chance(x, logits);
    auto routes = route(backend, logits, pare::routing::TopBlocks{.k = share_.used});
    if (scaled_)
      routes.weights.setConstant(static_cast<float>(share_.groups) /
                                 static_cast<float>(share_.used));
    mixture(backend, x, routes, groups_, y);
  }

  /// The negative errors of each group, as they would be weighed.
  void score_by_errors(const ModelBackend& backend, TensorView<const float, 2> x,
                       pare::RowMatrix<float>& logits) const {
    const auto whole =
        pare::routing::neuron_groups(weights_->gate, weights_->up, weights_->down, 1);
    pare::RowMatrix<float> dense(x.rows(), outputs());
    whole[0].apply(backend, x, pare::to_view(dense));
    pare::routing::expert_errors(backend, x, groups_, dense, scaled_ ? share_.used : share_.groups,
                                 logits);
    logits = -logits;
  }

 private:
  /// A function of the token alone, so that texts have one result.
  static void score_by_chance(TensorView<const float, 2> x, pare::RowMatrix<float>& logits) {
    for (Index r = 0; r < x.rows(); ++r) {
      std::uint64_t bits = 0;
      for (Index c = 0; c < x.cols(); ++c) {
        std::uint32_t word = 0;
        std::memcpy(&word, &x(r, c), sizeof(word));
        bits = (bits ^ word) * 0x9e3779b97f4a7c15u + 1;
      }
      for (Index g = 0; g < logits.cols(); ++g) {
        bits = (bits ^ bits >> 29) * 0xbf58476d1ce4e5b9u + 1;
        logits(r, g) = static_cast<float>(bits >> 40);
      }
    }
  }

  std::shared_ptr<const FeedForwardWeights> weights_;
  std::vector<pare::routing::GatedFeedForward<pare::transformer::DenseLinear<float>>> groups_;
  pare::RowMatrix<float> router_;
  ExpertShare share_;
  Router by_;
  bool scaled_;
};

}  // namespace language_model
