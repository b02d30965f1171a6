// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Batches as ranges of rows, and the alternation of model steps and gate steps over them.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/permutation.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/importance/detail/permuted_passes.hpp>
#include <pare/feature/leap/leap.hpp>
#include <pare/feature/model/model.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::feature::detail {
PARE_ABI_BEGIN

/// Rows in random order with their labels.
template <class T>
struct LabelledRows {
  TensorView<const T, 2> x;
  std::span<const T> labels;

  Index rows() const { return x.rows(); }
  LabelledRows range(Index begin, Index count) const {
    return {row_range(x, begin, count),
            labels.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count))};
  }
};

/// Ranges of `batch` rows, epoch after epoch: each epoch begins at another row below `batch`, so
/// that ranges differ, visits them in another order, and leaves out what is short of a range.
template <class T>
class BatchCycle {
 public:
  BatchCycle(LabelledRows<T> rows, Index batch, std::uint64_t seed, std::uint64_t stream)
      : rows_(rows), batch_(std::min(batch, rows.rows())), seed_(seed), stream_(stream) {}

  /// Batches of a whole epoch at most.
  Index batches() const { return rows_.rows() / batch_; }

  LabelledRows<T> next() {
    if (visited_ == order_.size()) begin_epoch();
    const auto place = static_cast<Index>(order_[visited_++]);
    return rows_.range(offset_ + place * batch_, batch_);
  }

  /// Whether the next batch is the first of an epoch.
  bool at_end() const { return visited_ == order_.size(); }

 private:
  void begin_epoch() {
    const std::uint64_t stream = stream_ << 32 | epoch_++;
    const Index spare = std::min(batch_ - 1, rows_.rows() - batch_);
    const PhiloxCounter words = philox({static_cast<std::uint32_t>(stream),
                                        static_cast<std::uint32_t>(stream >> 32), 0, 0x62617463u},
                                       PhiloxKey(seed_));
    offset_ = static_cast<Index>(scale_to_range(words[0], static_cast<std::uint32_t>(spare) + 1));
    order_ = Permutation::random((rows_.rows() - offset_) / batch_, seed_, stream);
    visited_ = 0;
  }

  LabelledRows<T> rows_;
  Index batch_;
  std::uint64_t seed_, stream_, epoch_ = 0;
  Index offset_ = 0;
  Permutation order_;
  Index visited_ = 0;
};

/// Memory in the storage order of x, without gaps.
template <class T>
TensorView<T, 2> like(TensorView<const T, 2> x, AlignedBuffer<T>& buffer) {
  T* data = buffer.resize(static_cast<std::size_t>(x.rows() * x.cols()));
  const bool by_rows = x.stride[1] == 1;
  return {data, x.extent, {by_rows ? x.cols() : 1, by_rows ? 1 : x.rows()}};
}

/// A batch through the mix and the model, and back.
template <class B, class M>
class MixedModel {
 public:
  using T = typename M::scalar;

  MixedModel(const B& backend, M& model, Leap<T>& leap)
      : backend_(backend), model_(model), leap_(leap) {}

  /// One step of the model's optimiser; returns the loss before it.
  double step_model(const LabelledRows<T>& batch) {
    const double loss = forward(batch);
    model_.backward(gradients_);
    model_.step();
    return loss;
  }

  /// One step of the gates; returns the loss before it.
  double step_gates(const LabelledRows<T>& batch) {
    const double loss = forward(batch);
    const TensorView<T, 2> gradient = like(batch.x, gradient_);
    model_.input_gradient(gradients_, gradient);
    leap_.backward_gates(backend_, gradient);
    leap_.step_gates();
    return loss;
  }

  /// Logits of rows as Leap::evaluate shows them.
  void evaluate(const LabelledRows<T>& rows, std::span<T> logits) {
    const TensorView<T, 2> mixed = like(rows.x, mixed_);
    leap_.evaluate(backend_, rows.x, mixed);
    model_.forward(as_const(mixed), logits);
  }

 private:
  double forward(const LabelledRows<T>& batch) {
    const TensorView<T, 2> mixed = like(batch.x, mixed_);
    leap_.forward(backend_, batch.x, mixed);
    logits_.resize(batch.labels.size());
    gradients_.resize(batch.labels.size());
    model_.forward(as_const(mixed), logits_);
    return logistic_gradient<T>(logits_, batch.labels, gradients_);
  }

  const B& backend_;
  M& model_;
  Leap<T>& leap_;
  std::vector<T> logits_, gradients_;
  AlignedBuffer<T> mixed_, gradient_;
};

PARE_ABI_END
}  // namespace pare::feature::detail
