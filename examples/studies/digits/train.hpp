// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Trains the network: Adam with weight decay on shuffled batches.

#include "common/digits_data.hpp"
#include "digits/network.hpp"

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

namespace digits {

/// How to train; batches are of 32 images, the learning rate is Adam's usual 0.001.
struct TrainOptions {
  std::vector<Index> hidden = {256, 128};  ///< widths of the hidden layers
  int epochs = 60;
  double weight_decay = 0;  ///< a step shrinks the weights by this times the learning rate
};

/// Adam (Kingma and Ba, ICLR 2015) with its usual constants, for one matrix of parameters; the
/// decay is that of Loshchilov and Hutter, ICLR 2019, apart from the gradient.
template <class T>
class Adam {
 public:
  explicit Adam(double weight_decay) : weight_decay_(weight_decay) {}

  template <class Parameters, class Gradient>
  void step(Eigen::MatrixBase<Parameters>& parameters,
            const Eigen::MatrixBase<Gradient>& gradient) {
    if (steps_ == 0) {
      mean_.setZero(gradient.rows(), gradient.cols());
      square_.setZero(gradient.rows(), gradient.cols());
    }
    ++steps_;
    constexpr double learning_rate = 1e-3, decay1 = 0.9, decay2 = 0.999;
    const auto b1 = static_cast<T>(decay1), b2 = static_cast<T>(decay2);
    mean_ = b1 * mean_ + (1 - b1) * gradient.derived().array();
    square_ = b2 * square_ + (1 - b2) * gradient.derived().array().square();
    const auto c1 = static_cast<T>(1 - std::pow(decay1, steps_));
    const auto c2 = static_cast<T>(1 - std::pow(decay2, steps_));
    parameters.derived().array() *= static_cast<T>(1 - learning_rate * weight_decay_);
    parameters.derived().array() -= static_cast<T>(learning_rate) * (mean_ / c1) /
                                    ((square_ / c2).sqrt() + static_cast<T>(1e-8));
  }

 private:
  double weight_decay_;
  int steps_ = 0;
  Eigen::Array<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> mean_, square_;
};

/// A network trained on the digits, from weights and in an order drawn from `bits`.
template <class T>
Network<T> train(const DataSet<T>& digits, const TrainOptions& options, std::mt19937_64& bits) {
  std::vector<Index> widths = options.hidden;
  widths.insert(widths.begin(), pixels);
  widths.push_back(classes);
  Network<T> network = random_network<T>(widths, bits);
  std::vector<Adam<T>> weights(network.layers.size(), Adam<T>(options.weight_decay));
  std::vector<Adam<T>> biases(network.layers.size(), Adam<T>(0));
  constexpr std::size_t batch_size = 32;
  for (int epoch = 0; epoch < options.epochs; ++epoch) {
    const std::vector<Index> order = shuffled(digits.size(), bits);
    for (std::size_t begin = 0; begin < order.size(); begin += batch_size) {
      const DataSet<T> batch =
          select(digits, order, begin, std::min(begin + batch_size, order.size()));
      const Activations<T> activations = forward(network, batch.images);
      const std::vector<Matrix<T>> deltas = backward(network, activations, batch.labels);
      const T share = T{1} / static_cast<T>(batch.size());
      for (std::size_t l = 0; l < deltas.size(); ++l) {
        const Matrix<T> gradient = share * (deltas[l].transpose() * activations.inputs[l]);
        weights[l].step(network.layers[l].weights, gradient);
        biases[l].step(network.layers[l].bias, share * deltas[l].colwise().sum());
      }
    }
  }
  return network;
}

}  // namespace digits
