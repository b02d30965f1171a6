// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The gradients whose squares average to the Fisher information, for each choice of labels.

#include "common/digits_data.hpp"
#include "digits/network.hpp"

#include <Eigen/Core>

#include <cstddef>
#include <random>
#include <utility>
#include <vector>

namespace digits {

/// Whose labels the gradients are taken for.
enum class Fisher {
  True,      ///< every class, as likely as the network holds it: the Fisher information itself
  Sampled,   ///< one class an example, drawn as likely: the true one but for noise
  Empirical  ///< the labels of the data, as FWSVD's authors do: another quantity, often called so
};

inline const char* name(Fisher fisher) {
  return fisher == Fisher::True ? "true" : fisher == Fisher::Sampled ? "sampled" : "empirical";
}

/// What is wanted of the Fisher information.
struct FisherOptions {
  std::vector<Fisher> kinds = {Fisher::True, Fisher::Empirical};

  /// Ours: share of the mean that is added to each element before errors are weighed one by one.
  /// With 0 a weight that hardly any image uses is free to grow without end.
  double floor = 1e-3;
};

/// A label for each example, drawn from what the network holds likely.
template <class T>
std::vector<int> sample_labels(const Matrix<T>& logits, std::mt19937_64& bits) {
  const Matrix<double> p = probabilities(Matrix<double>(logits.template cast<double>()));
  std::vector<int> labels;
  for (Index e = 0; e < p.rows(); ++e) {
    double left = uniform(bits);
    Index label = 0;
    while (label + 1 < p.cols() && left >= p(e, label)) left -= p(e, label++);
    labels.push_back(static_cast<int>(label));
  }
  return labels;
}

/// Passes backward, each as backward() gives it; the mean of the squared gradients of all examples
/// in all passes is the Fisher information. For the true one there is a pass for each of the C
/// classes, its gradients multiplied by the root of C times the class's probability, since
///   E_c[g_c^2] = sum_c p_c g_c^2 = 1 / C sum_c (sqrt(C p_c) g_c)^2.
template <class T>
std::vector<std::vector<Matrix<T>>> fisher_gradients(const Network<T>& network,
                                                     const Activations<T>& activations,
                                                     const std::vector<int>& labels, Fisher fisher,
                                                     std::mt19937_64& bits) {
  if (fisher == Fisher::Empirical) return {backward(network, activations, labels)};
  if (fisher == Fisher::Sampled)
    return {backward(network, activations, sample_labels(activations.logits, bits))};
  const auto count = static_cast<T>(activations.logits.cols());
  const Matrix<T> roots = (count * probabilities(activations.logits)).cwiseSqrt();
  std::vector<std::vector<Matrix<T>>> passes;
  for (Index c = 0; c < roots.cols(); ++c) {
    const std::vector<int> all_c(labels.size(), static_cast<int>(c));
    passes.push_back(backward(network, activations, all_c));
    for (Matrix<T>& delta : passes.back()) delta.array().colwise() *= roots.col(c).array();
  }
  return passes;
}

}  // namespace digits
