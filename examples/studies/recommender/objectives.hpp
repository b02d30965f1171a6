// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A step of training by each objective: gradients of a batch of pairs, added to those of the rows.

#include "recommender/factors.hpp"
#include "recommender/interactions.hpp"

#include <pare/retrieval/objectives/direct_au.hpp>
#include <pare/retrieval/objectives/pairwise.hpp>
#include <pare/retrieval/objectives/proposal.hpp>
#include <pare/retrieval/objectives/sampled_softmax.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace recommender {

/// Pairs of a step: user b likes item b.
struct Batch {
  std::vector<Index> users, items;

  Index size() const { return static_cast<Index>(users.size()); }
};

inline void gather(Eigen::Map<Rows> table, std::span<const Index> ids, Rows& rows) {
  rows.resize(static_cast<Index>(ids.size()), table.cols());
  for (std::size_t b = 0; b < ids.size(); ++b) rows.row(static_cast<Index>(b)) = table.row(ids[b]);
}

inline void scatter(const Rows& rows, std::span<const Index> ids, Eigen::Map<Rows> table) {
  for (std::size_t b = 0; b < ids.size(); ++b) table.row(ids[b]) += rows.row(static_cast<Index>(b));
}

/// DirectAU: no negatives.
struct ByDirectAu {
  double gamma = 1;
  Rows users, items, by_users, by_items;

  template <class B>
  void add_gradients(const B& backend, const Batch& batch, const Split&, Factors& factors) {
    if (batch.size() < 2) return;
    gather(factors.users(), batch.users, users);
    gather(factors.items(), batch.items, items);
    by_users.resizeLike(users);
    by_items.resizeLike(items);
    pare::retrieval::direct_au(backend, users, items, by_users, by_items, {.gamma = gamma});
    scatter(by_users, batch.users, factors.by_users());
    scatter(by_items, batch.items, factors.by_items());
  }
};

/// BPR: a random item for each pair that its user has not in training.
struct ByBpr {
  std::mt19937_64 random;
  std::vector<double> positive, negative, by_positive, by_negative;

  explicit ByBpr(std::uint64_t seed) : random(seed) {}

  Index draw(std::span<const Index> known, Index items) {
    for (;;) {
      const auto item = static_cast<Index>(random() % static_cast<std::uint64_t>(items));
      if (!std::binary_search(known.begin(), known.end(), item)) return item;
    }
  }

  template <class B>
  void add_gradients(const B&, const Batch& batch, const Split& split, Factors& factors) {
    const auto users = factors.users(), items = factors.items();
    std::vector<Index> drawn;
    positive.clear();
    negative.clear();
    for (std::size_t b = 0; b < batch.users.size(); ++b) {
      const auto user = users.row(batch.users[b]);
      drawn.push_back(draw(split.train.lists().of(batch.users[b]), split.items));
      positive.push_back(static_cast<double>(user.dot(items.row(batch.items[b]))));
      negative.push_back(static_cast<double>(user.dot(items.row(drawn.back()))));
    }
    by_positive.resize(positive.size());
    by_negative.resize(positive.size());
    pare::retrieval::bpr(positive, negative, by_positive, by_negative);
    auto by_users = factors.by_users(), by_items = factors.by_items();
    for (std::size_t b = 0; b < batch.users.size(); ++b) {
      const auto p = static_cast<float>(by_positive[b]), n = static_cast<float>(by_negative[b]);
      const auto user = users.row(batch.users[b]);
      by_users.row(batch.users[b]) += p * items.row(batch.items[b]) + n * items.row(drawn[b]);
      by_items.row(batch.items[b]) += p * user;
      by_items.row(drawn[b]) += n * user;
    }
  }
};

/// Sampled softmax of cosines, against items drawn uniformly that all pairs of a step share.
struct BySampledSoftmax {
  double temperature = 0.1;
  std::uint64_t seed = 0, step = 0;
  pare::retrieval::Proposal proposal;
  std::vector<Index> negatives;
  Rows users, items, by_users, by_items;

  BySampledSoftmax(double tau, Index all_items, Index drawn, std::uint64_t of_seed)
      : temperature(tau),
        seed(of_seed),
        proposal(pare::retrieval::Proposal::uniform(all_items)),
        negatives(static_cast<std::size_t>(drawn)) {}

  /// The gradient by x of one by x / |x|.
  static void through_norm(const Eigen::Ref<const Eigen::RowVectorXf>& x,
                           Eigen::Ref<Eigen::RowVectorXf> gradient) {
    const float norm = std::max(x.norm(), 1e-12f);
    gradient = (gradient - x * (x.dot(gradient) / (norm * norm))).eval() / norm;
  }

  template <class B>
  void add_gradients(const B& backend, const Batch& batch, const Split&, Factors& factors) {
    proposal.draw(negatives, {.seed = seed, .step = step++});
    gather(factors.users(), batch.users, users);
    items = factors.items().rowwise().normalized();
    const Rows raw = users;
    users = raw.rowwise().normalized();
    by_users.resizeLike(users);
    by_items.resizeLike(items);
    pare::retrieval::sampled_softmax_gradient(
        backend, users, items, {batch.items, negatives, proposal.log_probabilities(), {}}, by_users,
        by_items, {.temperature = temperature});
    for (Index b = 0; b < raw.rows(); ++b) through_norm(raw.row(b), by_users.row(b));
    scatter(by_users, batch.users, factors.by_users());
    for (Index i = 0; i < items.rows(); ++i) through_norm(factors.items().row(i), by_items.row(i));
    factors.by_items() += by_items;
  }
};

}  // namespace recommender
