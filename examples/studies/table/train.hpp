// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A training loop of one's own, with LeAP in it or without: what it takes to plug the layer in.

#include "table/data_table.hpp"
#include "table/embedded_model.hpp"

#include <pare/core/tensor_view.hpp>
#include <pare/feature/leap/leap.hpp>
#include <pare/feature/metrics.hpp>
#include <pare/feature/model/model.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace table {

struct TrainOptions {
  Index epochs = 60;
  Index batch = 128;
  std::uint64_t seed = 0;  ///< of the order of rows
};

/// Batches of rows in random order, epoch after epoch.
class Batches {
 public:
  Batches(std::vector<Index> rows, Index batch, std::uint64_t seed)
      : rows_(std::move(rows)),
        batch_(std::min(static_cast<std::size_t>(batch), rows_.size())),
        bits_(seed) {}

  /// Whole batches of an epoch.
  Index count() const { return static_cast<Index>(rows_.size() / batch_); }

  std::span<const Index> next() {
    if (at_ + batch_ > order_.size()) {
      order_ = rows_;
      for (std::size_t i = order_.size(); i > 1; --i)
        std::swap(order_[i - 1], order_[static_cast<std::size_t>(bits_() % i)]);
      at_ = 0;
    }
    at_ += batch_;
    return {order_.data() + at_ - batch_, batch_};
  }

 private:
  std::vector<Index> rows_, order_;
  std::size_t batch_, at_ = 0;
  std::mt19937_64 bits_;
};

/// Passes of a model over batches of a table, with gates in front of its network if there are any.
class Training {
 public:
  Training(EmbeddedModel& model, pare::feature::Leap<float>* gates)
      : model_(model), gates_(gates) {}

  /// One step of network and embeddings.
  void step(std::span<const Index> rows) {
    forward(rows);
    auto& network = model_.network();
    network.backward(slopes_);
    if (model_.has_embeddings()) {
      input_gradient();
      if (gates_ != nullptr) gates_->backward(gradient_, gradient_);
      model_.step_embeddings(rows, gradient_);
    }
    network.step();
  }

  /// One step of the gates.
  void step_gates(std::span<const Index> rows) {
    forward(rows);
    input_gradient();
    gates_->backward_gates(gradient_);
    gates_->step_gates();
  }

 private:
  void forward(std::span<const Index> rows) {
    x_ = model_.inputs(rows);
    const auto labels = model_.labels(rows);
    if (gates_ != nullptr) {
      mixed_.resize(x_.rows(), x_.cols());
      gates_->forward(x_, mixed_);
    }
    logits_.resize(labels.size());
    slopes_.resize(labels.size());
    const Rows& seen = gates_ != nullptr ? mixed_ : x_;
    model_.network().forward(pare::as_const(pare::to_view(seen)), logits_);
    pare::feature::logistic_gradient<float>(logits_, labels, slopes_);
  }

  void input_gradient() {
    gradient_.resize(x_.rows(), x_.cols());
    model_.network().input_gradient(slopes_, pare::to_view(gradient_));
  }

  EmbeddedModel& model_;
  pare::feature::Leap<float>* gates_;
  Rows x_, mixed_, gradient_;
  std::vector<float> logits_, slopes_;
};

/// Trains network and embeddings.
inline void train(EmbeddedModel& model, const std::vector<Index>& rows,
                  const TrainOptions& options) {
  Training training(model, nullptr);
  Batches batches(rows, options.batch, options.seed);
  for (Index step = 0; step < options.epochs * batches.count(); ++step)
    training.step(batches.next());
}

/// Trains network and embeddings on some rows and, in turn, the gates on others.
inline void train_with_gates(EmbeddedModel& model, pare::feature::Leap<float>& gates,
                             const std::vector<Index>& rows, const std::vector<Index>& holdout,
                             const TrainOptions& options) {
  Training training(model, &gates);
  constexpr Index gate_batch = 512;  // the more held-out rows a step sees, the less of it is noise
  Batches batches(rows, options.batch, options.seed),
      held_out(holdout, std::max(options.batch, gate_batch), ~options.seed);
  for (Index step = 0; step < options.epochs * batches.count(); ++step) {
    training.step(batches.next());
    training.step_gates(held_out.next());
  }
}

/// Area under the ROC curve on some rows.
inline double auc_of(EmbeddedModel& model, const std::vector<Index>& rows) {
  const Rows x = model.inputs(rows);
  std::vector<float> logits(rows.size());
  model.network().forward(pare::as_const(pare::to_view(x)), logits);
  return pare::feature::roc_auc(model.labels(rows), logits);
}

}  // namespace table
