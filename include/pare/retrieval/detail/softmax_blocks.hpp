// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sampled softmax and its gradients, one block of rows after the other, on threads within a block.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/kernel/softmax_rows.hpp>
#include <pare/linalg/epilogue.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/retrieval/detail/softmax_batch.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

struct SoftmaxMemory {
  AlignedBuffer<std::byte> scratch;
  Hits hits;
};

/// Three products for each block of rows: logits = users keys', then with the gradients of the
/// logits g: by users = g keys, by keys += g' users. Keys are the negatives, copied one behind the
/// other. A block holds its logits and no more; blocks follow one another and are cut by the number
/// of negatives alone, so that every sum has one order.
template <class B, class S>
class SoftmaxBlocks {
  using T = compute_t<S>;
  static constexpr Index item_rows = 8;  ///< that a worker takes at once where rows are passed

 public:
  SoftmaxBlocks(const B& backend, SoftmaxMemory& memory, const SoftmaxBatch<S>& batch,
                bool with_gradient)
      : backend_(keeping(backend, own_)),
        hits_(memory.hits),
        batch_(batch),
        with_gradient_(with_gradient),
        stride_(whole_lines(batch.count() + 1)),
        block_(std::min(rows_of_block(batch.count()), batch.rows())) {
    carve_from(memory.scratch, [this](Carver& take) { carve(take); });
    hits_.prepare(batch_);
    each(batch_.count(), [this](Index j) {
      const Index item = batch_.negative(j);
      copy_row(batch_.items, item, keys_ + j * dim());
      bias_[j] = static_cast<T>(-batch_.correction(item) / batch_.inverse_temperature);
    });
  }
  SoftmaxBlocks(const SoftmaxBlocks&) = delete;
  SoftmaxBlocks& operator=(const SoftmaxBlocks&) = delete;

  /// The mean loss.
  double loss() {
    double sum = 0;
    for (Index row = 0; row < batch_.rows(); row += block_) sum += pass(row);
    return sum / static_cast<double>(batch_.rows());
  }

  /// The mean loss, with its gradients. Those of items are written where an item takes part: first
  /// positives are added in the order of rows, then negatives in theirs.
  double gradient(TensorView<T, 2> by_users, TensorView<T, 2> by_items) {
    for (const auto& list : {batch_.positives, batch_.negatives})
      for (const Index item : list)
        for (Index c = 0; c < dim(); ++c) by_items(item, c) = T(0);
    const double factor = batch_.inverse_temperature / static_cast<double>(batch_.rows());
    double sum = 0;
    for (Index row = 0; row < batch_.rows(); row += block_) {
      sum += pass(row);
      move(row, factor, by_users, by_items);
    }
    for (Index j = 0; j < batch_.count(); ++j)
      add_row(factor, key_gradient_ + j * dim(), by_items, batch_.negative(j));
    return sum / static_cast<double>(batch_.rows());
  }

 private:
  Index dim() const { return batch_.dim(); }
  Index rows_from(Index row) const { return std::min(block_, batch_.rows() - row); }

  /// 4 MiB of logits in float, which L2 and L3 share: halves and quarters of it were no faster. Of
  /// 16,384 negatives 64 rows, for which packing the keys anew takes a tenth of the time; not
  /// fewer.
  static Index rows_of_block(Index count) {
    return std::clamp<Index>((Index{1} << 20) / count, 64, 512);
  }

  void carve(Carver& take) {
    take(keys_, batch_.count() * dim());
    take(bias_, batch_.count());
    take(users_, block_ * dim());
    take(positives_, block_ * dim());
    take(logits_, block_ * stride_);
    take(log_sums_, block_);
    take(losses_, block_);
    if (!with_gradient_) return;
    take(moved_, block_ * dim());
    take(key_gradient_, batch_.count() * dim());
  }

  template <class F>
  void each(Index rows, const F& f) const {
    parallel_for(backend_.executor, ceil_div(rows, item_rows), [&](Index item, int) {
      for (Index r = item * item_rows; r < std::min(rows, (item + 1) * item_rows); ++r) f(r);
    });
  }

  /// A step of 1 that the compiler knows makes it a copy, or a loop of vectors.
  static void copy_row(TensorView<const S, 2> from, Index row, T* to) {
    const S* const first = from.data + row * from.stride[0];
    const Index step = from.stride[1];
    if (step == 1)
      for (Index c = 0; c < from.cols(); ++c) to[c] = static_cast<T>(first[c]);
    else
      for (Index c = 0; c < from.cols(); ++c) to[c] = static_cast<T>(first[c * step]);
  }

  /// to(row, :) += factor from.
  static void add_row(double factor, const T* from, TensorView<T, 2> to, Index row) {
    const auto by = static_cast<T>(factor);
    T* const first = to.data + row * to.stride[0];
    const Index step = to.stride[1];
    if (step == 1)
      for (Index c = 0; c < to.cols(); ++c) first[c] += by * from[c];
    else
      for (Index c = 0; c < to.cols(); ++c) first[c * step] += by * from[c];
  }

  TensorView<T, 2> block_of(T* data, Index rows) const { return {data, {rows, dim()}, {dim(), 1}}; }

  /// Of a block: logits turn into shares of the softmax, and losses are added.
  double pass(Index row) {
    const Index rows = rows_from(row), count = batch_.count();
    each(rows, [&](Index r) { prepare(row + r, r); });
    const TensorView<T, 2> logits{logits_, {rows, count}, {stride_, 1}};
    const auto keys = transpose(as_const(TensorView<T, 2>{keys_, {count, dim()}, {dim(), 1}}));
    const auto users = as_const(block_of(users_, rows));
    if (batch_.log_proposal.empty())
      linalg::multiply(backend_, users, keys, logits);
    else
      linalg::multiply(backend_, users, keys, logits, {}, linalg::AddBias<T>{bias_});
    each(rows, [&](Index r) { finish(row + r, r); });
    double sum = 0;
    for (Index r = 0; r < rows; ++r) sum += losses_[r];
    return sum;
  }

  /// The row's own vectors, and its positive's logit behind the others.
  void prepare(Index row, Index r) const {
    const Index item = batch_.positive(row);
    T* const user = users_ + r * dim();
    T* const positive = positives_ + r * dim();
    copy_row(batch_.users, row, user);
    copy_row(batch_.items, item, positive);
    double dot = 0;
    for (Index c = 0; c < dim(); ++c)
      dot += static_cast<double>(user[c]) * static_cast<double>(positive[c]);
    if (batch_.correct_positive) dot -= batch_.correction(item) / batch_.inverse_temperature;
    logits_[r * stride_ + batch_.count()] = static_cast<T>(dot);
  }

  void finish(Index row, Index r) const {
    T* const logits = logits_ + r * stride_;
    const Index count = batch_.count();
    hits_.each(batch_, row, [&](Index j) { logits[j] = -std::numeric_limits<T>::infinity(); });
    const double own = static_cast<double>(logits[count]) * batch_.inverse_temperature;
    kernel::SoftmaxRows<T, false> softmax{logits,  stride_, with_gradient_ ? logits : nullptr,
                                          stride_, 1,       count + 1};
    softmax.inverse_temperature = batch_.inverse_temperature;
    softmax.log_sums = log_sums_ + r;
    launch(backend_, softmax);
    losses_[r] = log_sums_[r] - own;
  }

  /// Both gradients of a block. That by a positive's logit, its share less 1, is e^-loss - 1.
  void move(Index row, double factor, TensorView<T, 2> by_users, TensorView<T, 2> by_items) {
    const Index rows = rows_from(row), count = batch_.count();
    const TensorView<const T, 2> shares{logits_, {rows, count}, {stride_, 1}};
    const TensorView<const T, 2> keys{keys_, {count, dim()}, {dim(), 1}};
    linalg::multiply(backend_, shares, keys, block_of(moved_, rows));
    linalg::multiply(backend_, transpose(shares), as_const(block_of(users_, rows)),
                     block_of(key_gradient_, count), {.accumulate = row > 0});
    each(rows, [&](Index r) {
      const double own = std::expm1(-losses_[r]);
      for (Index c = 0; c < dim(); ++c)
        by_users(row + r, c) =
            static_cast<T>(factor * (static_cast<double>(moved_[r * dim() + c]) +
                                     own * static_cast<double>(positives_[r * dim() + c])));
    });
    for (Index r = 0; r < rows; ++r)
      add_row(factor * std::expm1(-losses_[r]), users_ + r * dim(), by_items,
              batch_.positive(row + r));
  }

  Workspace own_;
  const B backend_;
  Hits& hits_;
  const SoftmaxBatch<S>& batch_;
  bool with_gradient_;
  Index stride_, block_;
  T* keys_ = nullptr;           ///< [count x dim]
  T* bias_ = nullptr;           ///< [count] minus the correction times the temperature
  T* users_ = nullptr;          ///< [block x dim]
  T* positives_ = nullptr;      ///< [block x dim]
  T* logits_ = nullptr;         ///< [block x stride] the positive's behind the negatives'
  double* log_sums_ = nullptr;  ///< [block]
  double* losses_ = nullptr;    ///< [block]
  T* moved_ = nullptr;          ///< [block x dim] shares times keys
  T* key_gradient_ = nullptr;   ///< [count x dim]
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
