// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Replaces weights of the network by their factors and says what that costs.

#include "common/digits_data.hpp"
#include "digits/network.hpp"
#include "digits/score_table.hpp"

#include <pare/factor/apply.hpp>
#include <pare/factor/low_rank.hpp>

#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace digits {

using Factors = pare::factor::LowRank<float>;

/// A way to factor the weights of a layer.
struct Method {
  std::string name;
  std::function<Factors(std::size_t layer, const Matrix<float>& weights, Index rank)> factorize;
};

/// Logits of the network with factors in place of the weights of its first layers.
inline Matrix<float> forward(const Network<float>& network, const std::vector<Factors>& factors,
                             Matrix<float> images) {
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    const Layer<float>& layer = network.layers[l];
    Matrix<float> y(images.rows(), layer.weights.rows());
    if (l < factors.size())
      pare::factor::apply(factors[l], images, y);
    else
      y.noalias() = images * layer.weights.transpose();
    y.rowwise() += layer.bias;
    if (l + 1 < network.layers.size()) y = y.cwiseMax(0.0f);
    images = std::move(y);
  }
  return images;
}

/// Factors all layers but the last, whose few outputs leave nothing to save, and scores the network
/// on images that it has not seen.
inline Compressed compress(const Network<float>& network, const Method& method, Index rank,
                           const DataSet<float>& unseen) {
  std::vector<Factors> factors;
  double lost = 0, total = 0, parameters = 0, replaced = 0;
  for (std::size_t l = 0; l + 1 < network.layers.size(); ++l) {
    const Matrix<float>& weights = network.layers[l].weights;
    const Factors& f = factors.emplace_back(method.factorize(l, weights, rank));
    lost += (weights - f.left * f.right).squaredNorm();
    total += weights.squaredNorm();
    parameters += static_cast<double>(f.parameters());
    replaced += static_cast<double>(weights.size());
  }
  return {score(forward(network, factors, unseen.images), unseen.labels), std::sqrt(lost / total),
          parameters / replaced};
}

}  // namespace digits
