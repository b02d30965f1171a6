// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A matrix factorisation: a row of numbers for each user and each item, which Adam moves.

#include <pare/core/matrix.hpp>
#include <pare/optim/adam.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace recommender {

using pare::Index;
using Rows = pare::RowMatrix<float>;

/// Rows of users, then of items, and the gradient of a step.
class Factors {
 public:
  /// Starts at normal numbers of Xavier's variance, 2 / (rows + dim) of each table.
  Factors(Index users, Index items, Index dim, double learning_rate, std::uint64_t seed)
      : users_(users),
        items_(items),
        dim_(dim),
        parameters_(static_cast<std::size_t>((users + items) * dim)),
        gradients_(parameters_.size()),
        adam_((users + items) * dim, {.learning_rate = learning_rate}) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const bool of_user = static_cast<Index>(i) < users * dim;
      const auto rows = static_cast<double>(of_user ? users : items);
      parameters_[i] =
          static_cast<float>(normal(random) * std::sqrt(2 / (rows + static_cast<double>(dim))));
    }
  }

  Index dim() const { return dim_; }
  Eigen::Map<Rows> users() { return {parameters_.data(), users_, dim_}; }
  Eigen::Map<Rows> items() { return {parameters_.data() + users_ * dim_, items_, dim_}; }
  /// What a step adds its gradients to; 0 at first and behind each move.
  Eigen::Map<Rows> by_users() { return {gradients_.data(), users_, dim_}; }
  Eigen::Map<Rows> by_items() { return {gradients_.data() + users_ * dim_, items_, dim_}; }

  /// A step of Adam. Decay adds to the gradient of every number, as torch's Adam does.
  void move(double weight_decay) {
    const auto decay = static_cast<float>(weight_decay);
    if (decay > 0)
      for (std::size_t i = 0; i < gradients_.size(); ++i) gradients_[i] += decay * parameters_[i];
    adam_.step(parameters_, gradients_);
    std::fill(gradients_.begin(), gradients_.end(), 0.0f);
  }

 private:
  Index users_, items_, dim_;
  std::vector<float> parameters_, gradients_;
  pare::optim::Adam<float> adam_;
};

}  // namespace recommender
