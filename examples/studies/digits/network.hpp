// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A multi-layer perceptron: forward, and backward with the gradient of each example kept apart.

#include "common/digits_data.hpp"

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <random>
#include <utility>
#include <vector>

namespace digits {

/// y = W x + b for a column x; for examples as rows, Y = X W^T + b.
template <class T>
struct Layer {
  Matrix<T> weights;                         ///< [out x in]
  Eigen::Matrix<T, 1, Eigen::Dynamic> bias;  ///< [out]
};

/// Layers with ReLU between them; the last one gives the logits of the classes.
template <class T>
struct Network {
  std::vector<Layer<T>> layers;
};

/// A number in [0, 1) on the grid of 2^-53.
inline double uniform(std::mt19937_64& bits) { return static_cast<double>(bits() >> 11) * 0x1p-53; }

/// A network of layers widths[i] -> widths[i + 1]: weights uniform of variance 2 / in (He et al.,
/// ICCV 2015), biases 0.
template <class T>
Network<T> random_network(const std::vector<Index>& widths, std::mt19937_64& bits) {
  Network<T> network;
  for (std::size_t l = 0; l + 1 < widths.size(); ++l) {
    const double bound = std::sqrt(6.0 / static_cast<double>(widths[l]));
    Layer<T> layer;
    layer.bias.setZero(widths[l + 1]);
    layer.weights = Matrix<T>::NullaryExpr(widths[l + 1], widths[l], [&](Index, Index) {
      return static_cast<T>(bound * (2 * uniform(bits) - 1));
    });
    network.layers.push_back(std::move(layer));
  }
  return network;
}

/// What a pass forward leaves behind.
template <class T>
struct Activations {
  std::vector<Matrix<T>> inputs;  ///< of each layer, [examples x in]
  Matrix<T> logits;               ///< [examples x classes]
};

template <class T>
Activations<T> forward(const Network<T>& network, const Matrix<T>& images) {
  Activations<T> activations;
  activations.logits = images;
  for (const Layer<T>& layer : network.layers) {
    const bool hidden = !activations.inputs.empty();
    activations.inputs.push_back(hidden ? Matrix<T>(activations.logits.cwiseMax(T{0}))
                                        : std::move(activations.logits));
    activations.logits.noalias() = activations.inputs.back() * layer.weights.transpose();
    activations.logits.rowwise() += layer.bias;
  }
  return activations;
}

/// Softmax of each row, stable for any finite logits.
template <class T>
Matrix<T> probabilities(const Matrix<T>& logits) {
  Matrix<T> p = logits.colwise() - logits.rowwise().maxCoeff();
  p = p.array().exp();
  p.array().colwise() /= p.rowwise().sum().array().eval();
  return p;
}

/// How well logits foretell labels.
struct Score {
  double accuracy = 0;  ///< share of the examples whose label has the highest logit
  double loss = 0;      ///< mean cross-entropy, nats
};

template <class T>
Score score(const Matrix<T>& logits, const std::vector<int>& labels) {
  Score sum;
  for (Index e = 0; e < logits.rows(); ++e) {
    const Eigen::RowVectorXd row = logits.row(e).template cast<double>();
    const int label = labels[static_cast<std::size_t>(e)];
    Index best = 0;
    const double highest = row.maxCoeff(&best);
    sum.accuracy += best == label ? 1 : 0;
    sum.loss += highest + std::log((row.array() - highest).exp().sum()) - row[label];
  }
  const auto examples = static_cast<double>(logits.rows());
  return {sum.accuracy / examples, sum.loss / examples};
}

template <class T>
Score score(const Network<T>& network, const DataSet<T>& digits) {
  return score(forward(network, digits.images).logits, digits.labels);
}

/// The gradient of each example's own cross-entropy with respect to the outputs of each layer,
/// [examples x out]. That with respect to the weights is, for example e and layer l, the outer
/// product deltas[l].row(e)^T inputs[l].row(e); it need not be formed.
template <class T>
std::vector<Matrix<T>> backward(const Network<T>& network, const Activations<T>& activations,
                                const std::vector<int>& labels) {
  std::vector<Matrix<T>> deltas(network.layers.size());
  deltas.back() = probabilities(activations.logits);
  for (Index e = 0; e < activations.logits.rows(); ++e)
    deltas.back()(e, labels[static_cast<std::size_t>(e)]) -= T{1};
  for (std::size_t l = deltas.size() - 1; l > 0; --l) {
    deltas[l - 1].noalias() = deltas[l] * network.layers[l].weights;
    deltas[l - 1].array() *= (activations.inputs[l].array() > T{0}).template cast<T>();
  }
  return deltas;
}

}  // namespace digits
