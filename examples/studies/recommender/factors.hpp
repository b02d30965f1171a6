// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A matrix factorisation: a row of numbers for each user and each item, which Adam moves. Rows are
/// the numbers themselves, or those smoothed over the graph of users and items (LightGCN).

#include <pare/core/matrix.hpp>
#include <pare/graph/light_gcn.hpp>
#include <pare/optim/adam.hpp>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <vector>

namespace recommender {

using pare::Index;
using Rows = pare::RowMatrix<float>;
using Graph = Eigen::SparseMatrix<float, Eigen::RowMajor>;

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

  /// Smooths rows over a symmetric matrix of users and items from now on.
  void smooth_over(const Graph& graph) { graph_ = graph; }

  /// Makes the rows of the numbers as they are now. To be called behind each move.
  template <class B>
  void make_rows(const B& backend) {
    if (graph_) rows_ = pare::graph::light_gcn(backend, *graph_, all(parameters_));
  }

  Index dim() const { return dim_; }
  Eigen::Map<Rows> users() { return {data(), users_, dim_}; }
  Eigen::Map<Rows> items() { return {data() + users_ * dim_, items_, dim_}; }
  /// What a step adds its gradients to; 0 at first and behind each move.
  Eigen::Map<Rows> by_users() { return {gradients_.data(), users_, dim_}; }
  Eigen::Map<Rows> by_items() { return {gradients_.data() + users_ * dim_, items_, dim_}; }

  /// A step of Adam. Decay adds to the gradient of every number, as torch's Adam does. Smoothing is
  /// linear and its matrix symmetric: gradients go back through it as rows came.
  template <class B>
  void move(const B& backend, double weight_decay) {
    if (graph_) {
      const Rows by_numbers = pare::graph::light_gcn(backend, *graph_, all(gradients_));
      all(gradients_) = by_numbers;
    }
    const auto decay = static_cast<float>(weight_decay);
    if (decay > 0)
      for (std::size_t i = 0; i < gradients_.size(); ++i) gradients_[i] += decay * parameters_[i];
    adam_.step(parameters_, gradients_);
    std::fill(gradients_.begin(), gradients_.end(), 0.0f);
  }

 private:
  Eigen::Map<Rows> all(std::vector<float>& numbers) {
    return {numbers.data(), users_ + items_, dim_};
  }
  float* data() { return graph_ ? rows_.data() : parameters_.data(); }

  Index users_, items_, dim_;
  std::vector<float> parameters_, gradients_;
  std::optional<Graph> graph_;
  Rows rows_;  ///< smoothed
  pare::optim::Adam<float> adam_;
};

}  // namespace recommender
