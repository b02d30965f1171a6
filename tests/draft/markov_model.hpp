// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>

#include <pare/core/random.hpp>
#include <pare/draft/best_first.hpp>
#include <pare/draft/transition_table.hpp>
#include <pare/draft/tree.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

namespace pare::testing {

/// A language model whose logits are a function of the last two tokens.
struct MarkovModel {
  std::int32_t vocabulary;
  unsigned seed;

  using Text = std::vector<std::int32_t>;
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  std::vector<float> logits(const Text& text) const {
    const auto n = text.size();
    const auto last = static_cast<std::uint32_t>(text[n - 1]);
    const auto before = n > 1 ? static_cast<std::uint32_t>(text[n - 2]) : 99u;
    std::vector<float> z(static_cast<std::size_t>(vocabulary));
    for (std::size_t i = 0; i < z.size(); ++i) {
      const auto w =
          philox({static_cast<std::uint32_t>(i), last, before, 1}, PhiloxKey(std::uint64_t{seed}));
      z[i] = static_cast<float>(4 * to_unit_double(w[0], w[1]));
    }
    return z;
  }

  std::int32_t greedy(const Text& text) const {
    const auto z = logits(text);
    return static_cast<std::int32_t>(std::max_element(z.begin(), z.end()) - z.begin());
  }

  /// A row for each node: the logits after the text and the path to it. The root is the text's
  /// last token.
  Matrix tree_logits(const Text& text, const draft::DraftTree& tree) const {
    Matrix rows(tree.size(), vocabulary);
    for (Index i = 0; i < tree.size(); ++i) {
      Text path;
      for (Index v = i; v > 0; v = tree.parent(v)) path.insert(path.begin(), tree.token(v));
      path.insert(path.begin(), text.begin(), text.end());
      const auto z = logits(path);
      std::copy(z.begin(), z.end(), rows.data() + i * vocabulary);
    }
    return rows;
  }

  /// The same tree with another token at its root.
  draft::DraftTree rooted(const draft::DraftTree& tree, std::int32_t root) const {
    draft::DraftTree same;
    same.start(root, tree.size());
    for (Index i = 1; i < tree.size(); ++i) same.add(tree.parent(i), tree.token(i));
    return same;
  }

  /// A chain of which no token is what greedy decoding takes.
  draft::DraftTree wrong_chain(Text text, Index tokens) const {
    draft::DraftTree tree;
    tree.start(text.back(), tokens + 1);
    for (Index i = 0; i < tokens; ++i) {
      const std::int32_t token = (greedy(text) + 1) % vocabulary;
      tree.add(i, token);
      text.push_back(token);
    }
    return tree;
  }
};

/// A best-first tree of the model's own laws with noise on their logits: lists for each of the
/// likeliest tokens, all by the noisy model.
inline draft::DraftTree drafted_tree(const MarkovModel& model, const MarkovModel::Text& text,
                                     Index nodes, double noise, std::mt19937& random) {
  // Best first by hand: each candidate's row is made when its parent is taken.
  draft::DraftTree tree;
  tree.start(text.back(), nodes);
  std::normal_distribution<double> normal(0, noise);
  struct Open {
    Index parent;
    std::int32_t token;
    double score, log_probability;
  };
  std::vector<Open> open;
  const auto expand = [&](Index v) {
    MarkovModel::Text path;
    for (Index u = v; u > 0; u = tree.parent(u)) path.insert(path.begin(), tree.token(u));
    path.insert(path.begin(), text.begin(), text.end());
    const auto z = model.logits(path);
    std::vector<double> noisy(z.begin(), z.end());
    double sum = 0;
    for (double& x : noisy) sum += std::exp(x += normal(random));
    for (std::size_t i = 0; i < z.size(); ++i) {
      const double log_probability = std::min(0.0, noisy[i] - std::log(sum));
      open.push_back({v, static_cast<std::int32_t>(i), tree.log_probability(v) + log_probability,
                      log_probability});
    }
  };
  expand(0);
  while (tree.size() < nodes) {
    const auto best = std::max_element(
        open.begin(), open.end(), [](const Open& a, const Open& b) { return a.score < b.score; });
    const Open taken = *best;
    open.erase(best);
    expand(tree.add(taken.parent, taken.token, taken.log_probability));
  }
  return tree;
}

}  // namespace pare::testing
