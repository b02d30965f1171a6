// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The ways to factor a layer's weights: every call into Pare but that of the factored layer.

#include "common/digits_data.hpp"
#include "digits/compress.hpp"
#include "digits/gradients.hpp"
#include "digits/network.hpp"

#include <pare/factor/covariance.hpp>
#include <pare/factor/covariance_svd.hpp>
#include <pare/factor/elementwise.hpp>
#include <pare/factor/fisher.hpp>
#include <pare/factor/options.hpp>
#include <pare/factor/svd.hpp>
#include <pare/factor/weighted_svd.hpp>

#include <cstddef>
#include <random>
#include <string>
#include <vector>

namespace digits {

namespace factor = pare::factor;

/// Of the weights of each layer, from what its inputs and the gradients by its outputs are.
template <class T>
std::vector<factor::FisherDiagonal> fisher_information(const Network<T>& network,
                                                       const Activations<T>& activations,
                                                       const std::vector<int>& labels, Fisher kind,
                                                       std::mt19937_64& bits) {
  std::vector<factor::FisherDiagonal> fisher;
  for (const auto& layer : network.layers)
    fisher.emplace_back(layer.weights.rows(), layer.weights.cols(), factor::FisherTerms::Elements);
  for (const auto& deltas : fisher_gradients(network, activations, labels, kind, bits))
    for (std::size_t l = 0; l < fisher.size(); ++l)
      fisher[l].add_tokens(deltas[l], activations.inputs[l]);
  return fisher;
}

/// Of the inputs of each layer.
template <class T>
std::vector<factor::Covariance> covariances(const Activations<T>& activations) {
  std::vector<factor::Covariance> result;
  for (const auto& inputs : activations.inputs) result.emplace_back(inputs.cols()).add(inputs);
  return result;
}

/// All methods; what they need to know of the network is gathered over the images seen. A method of
/// your own is one more `add`.
inline std::vector<Method> make_methods(const Network<float>& network, const DataSet<float>& seen,
                                        const FisherOptions& options, std::mt19937_64& bits) {
  using Weights = Matrix<float>;
  std::vector<Method> methods;
  const auto add = [&](const std::string& name, const auto& factorize) {
    methods.push_back({name, factorize});
  };
  const Activations<float> activations = forward(network, seen.images);

  add("SVD", [](std::size_t, const Weights& w, Index rank) {
    return factor::truncated_svd(w, {.rank = rank});
  });
  for (const Fisher kind : options.kinds) {
    const auto fisher = fisher_information(network, activations, seen.labels, kind, bits);
    const std::string with = std::string(", ") + name(kind) + " Fisher";
    add("FWSVD input" + with, [fisher](std::size_t l, const Weights& w, Index rank) {
      return factor::weighted_svd(w, fisher[l], {.rank = rank}, factor::Axis::Input);
    });
    add("FWSVD output" + with, [fisher](std::size_t l, const Weights& w, Index rank) {
      return factor::weighted_svd(w, fisher[l], {.rank = rank}, factor::Axis::Output);
    });
    const double floor = options.floor;
    add("elements" + with, [fisher, floor](std::size_t l, const Weights& w, Index rank) {
      auto elements = fisher[l].elements();
      elements.array() += floor * elements.mean();
      return factor::elementwise_svd(w, elements, {.rank = rank}).factors;
    });
  }
  const auto inputs = covariances(activations);
  add("covariance", [inputs](std::size_t l, const Weights& w, Index rank) {
    return factor::covariance_svd(w, inputs[l], {.rank = rank});
  });
  return methods;
}

}  // namespace digits
