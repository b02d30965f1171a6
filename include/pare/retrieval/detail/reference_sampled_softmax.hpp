// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sampled softmax and its gradients by their definition, in double.

#include <pare/core/tensor_view.hpp>
#include <pare/retrieval/detail/softmax_batch.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// The logit of a user with an item, less `correction`.
template <class S>
double reference_logit(const SoftmaxBatch<S>& batch, Index user, Index item, double correction) {
  double dot = 0;
  for (Index c = 0; c < batch.dim(); ++c) dot += batch.user(user, c) * batch.item(item, c);
  return dot * batch.inverse_temperature - correction;
}

/// Turns logits, the positive's last, into d loss / d logits, and returns the loss.
inline double reference_row_loss(std::vector<double>& z) {
  const double largest = *std::max_element(z.begin(), z.end()), positive = z.back();
  double sum = 0;
  for (const double x : z) sum += std::exp(x - largest);
  for (double& x : z) x = std::exp(x - largest) / sum;
  z.back() -= 1;
  return largest + std::log(sum) - positive;
}

/// A row's logits: negatives, of which hits are -infinity, then the positive.
template <class S>
void reference_logits(const SoftmaxBatch<S>& batch, Index row, std::vector<double>& z) {
  z.clear();
  for (Index j = 0; j < batch.count(); ++j) {
    const Index item = batch.negative(j);
    z.push_back(batch.is_hit(row, j) ? -std::numeric_limits<double>::infinity()
                                     : reference_logit(batch, row, item, batch.correction(item)));
  }
  const Index item = batch.positive(row);
  z.push_back(
      reference_logit(batch, row, item, batch.correct_positive ? batch.correction(item) : 0));
}

/// The mean loss.
template <class S>
double reference_sampled_softmax(const SoftmaxBatch<S>& batch) {
  std::vector<double> z;
  double loss = 0;
  for (Index i = 0; i < batch.rows(); ++i) {
    reference_logits(batch, i, z);
    loss += reference_row_loss(z);
  }
  return loss / static_cast<double>(batch.rows());
}

/// The mean loss, with its gradients. Those of items are written where an item takes part.
template <class S, class T>
double reference_sampled_softmax_gradient(const SoftmaxBatch<S>& batch, TensorView<T, 2> by_users,
                                          TensorView<T, 2> by_items) {
  const auto dim = static_cast<std::size_t>(batch.dim());
  std::vector<double> z, by_user(dim), of_items(static_cast<std::size_t>(batch.items.rows()) * dim);
  double loss = 0;
  const double factor = batch.inverse_temperature / static_cast<double>(batch.rows());
  for (Index i = 0; i < batch.rows(); ++i) {
    reference_logits(batch, i, z);
    loss += reference_row_loss(z);
    std::fill(by_user.begin(), by_user.end(), 0.0);
    for (Index j = 0; j <= batch.count(); ++j) {
      const Index item = j < batch.count() ? batch.negative(j) : batch.positive(i);
      const double g = z[static_cast<std::size_t>(j)] * factor;
      if (j < batch.count() && batch.is_hit(i, j)) continue;
      for (std::size_t c = 0; c < dim; ++c) {
        const auto column = static_cast<Index>(c);
        by_user[c] += g * batch.item(item, column);
        of_items[static_cast<std::size_t>(item) * dim + c] += g * batch.user(i, column);
      }
    }
    for (std::size_t c = 0; c < dim; ++c)
      by_users(i, static_cast<Index>(c)) = static_cast<T>(by_user[c]);
  }
  for (const auto& list : {batch.positives, batch.negatives})
    for (const Index item : list)
      for (Index c = 0; c < batch.dim(); ++c)
        by_items(item, c) = static_cast<T>(
            of_items[static_cast<std::size_t>(item) * dim + static_cast<std::size_t>(c)]);
  return loss / static_cast<double>(batch.rows());
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
