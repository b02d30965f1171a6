// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How well vectors tell the classes apart: a ridge classifier trained on a few nodes, and F1.

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

namespace graph {

using Vectors = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Nodes to learn from and nodes to be judged on.
struct Split {
  std::vector<int> train, test;
};

/// Splits nodes at random, the same for the same seed everywhere. Throws std::invalid_argument if
/// either part would be empty.
inline Split split_nodes(std::vector<int> nodes, double train_fraction, std::uint64_t seed) {
  std::mt19937_64 bits(seed);
  for (std::size_t i = nodes.size(); i > 1; --i)
    std::swap(nodes[i - 1], nodes[static_cast<std::size_t>(bits() % i)]);
  const auto train = std::llround(train_fraction * static_cast<double>(nodes.size()));
  if (train < 1 || train >= static_cast<long long>(nodes.size()))
    throw std::invalid_argument("split_nodes: too few labelled nodes to train and to test");
  return {{nodes.begin(), nodes.begin() + train}, {nodes.begin() + train, nodes.end()}};
}

/// F1 over all decisions, and averaged over classes.
struct F1 {
  double micro = 0, macro = 0;
};

/// F1 = 2 TP / (2 TP + FP + FN), each node having one true and one predicted class. Micro adds the
/// counts over classes, which makes it the accuracy; macro is the mean over the classes that occur
/// in either list. Classes are 0 to classes - 1, the lists equally long and not empty.
inline F1 f1_score(const std::vector<int>& truth, const std::vector<int>& predicted, int classes) {
  const auto size = static_cast<std::size_t>(classes);
  std::vector<double> hits(size), occurrences(size);
  double all_hits = 0, sum = 0, occurring = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const auto t = static_cast<std::size_t>(truth[i]), p = static_cast<std::size_t>(predicted[i]);
    occurrences[t] += 1;
    occurrences[p] += 1;
    if (t != p) continue;
    hits[t] += 1;
    all_hits += 1;
  }
  for (std::size_t c = 0; c < size; ++c) {
    if (occurrences[c] == 0) continue;
    sum += 2 * hits[c] / occurrences[c];
    occurring += 1;
  }
  return {all_hits / static_cast<double>(truth.size()), sum / occurring};
}

namespace detail {

/// Rows `nodes[begin, end)` of x with a column of ones behind.
template <class Scalar>
Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic> gather_rows(const Vectors& x,
                                                                  const std::vector<int>& nodes,
                                                                  std::size_t begin,
                                                                  std::size_t end) {
  Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic> rows(static_cast<Eigen::Index>(end - begin),
                                                             x.cols() + 1);
  for (std::size_t i = begin; i < end; ++i)
    rows.row(static_cast<Eigen::Index>(i - begin)) << x.row(nodes[i]).template cast<Scalar>(),
        Scalar{1};
  return rows;
}

inline constexpr std::size_t rows_at_once = 2048;

}  // namespace detail

/// Least squares against one-hot classes with penalty lambda |W|^2 (none on the intercept):
/// W = (X^T X + lambda I)^-1 X^T Y, [dim + 1 x classes], solved in double by Cholesky.
/// Cost: O(train * dim^2 + dim^3).
inline Eigen::MatrixXd train_ridge(const Vectors& x, const std::vector<int>& label, int classes,
                                   const std::vector<int>& train, double lambda) {
  const Eigen::Index size = x.cols() + 1;
  Eigen::MatrixXd gram = Eigen::MatrixXd::Zero(size, size);
  Eigen::MatrixXd moments = Eigen::MatrixXd::Zero(size, classes);
  for (std::size_t begin = 0; begin < train.size(); begin += detail::rows_at_once) {
    const std::size_t end = std::min(begin + detail::rows_at_once, train.size());
    const Eigen::MatrixXd rows = detail::gather_rows<double>(x, train, begin, end);
    gram.selfadjointView<Eigen::Lower>().rankUpdate(rows.transpose());
    for (std::size_t i = begin; i < end; ++i)
      moments.col(label[static_cast<std::size_t>(train[i])]) +=
          rows.row(static_cast<Eigen::Index>(i - begin)).transpose();
  }
  gram.diagonal().head(x.cols()).array() += lambda;
  return gram.selfadjointView<Eigen::Lower>().llt().solve(moments);
}

/// The class of highest score for each of the nodes.
inline std::vector<int> predict(const Vectors& x, const Eigen::MatrixXd& weights,
                                const std::vector<int>& nodes) {
  const Eigen::MatrixXf w = weights.cast<float>();
  std::vector<int> predicted;
  predicted.reserve(nodes.size());
  for (std::size_t begin = 0; begin < nodes.size(); begin += detail::rows_at_once) {
    const std::size_t end = std::min(begin + detail::rows_at_once, nodes.size());
    const Eigen::MatrixXf scores = detail::gather_rows<float>(x, nodes, begin, end) * w;
    for (Eigen::Index i = 0; i < scores.rows(); ++i) {
      Eigen::Index best = 0;
      scores.row(i).maxCoeff(&best);
      predicted.push_back(static_cast<int>(best));
    }
  }
  return predicted;
}

/// The entries of `label` at the nodes.
inline std::vector<int> labels_of(const std::vector<int>& label, const std::vector<int>& nodes) {
  std::vector<int> result;
  result.reserve(nodes.size());
  for (const int u : nodes) result.push_back(label[static_cast<std::size_t>(u)]);
  return result;
}

/// F1 on the test nodes of a ridge classifier on the vectors, trained on the train nodes.
/// The default penalty is meant for columns of unit variance: it does no harm where train nodes
/// abound and helps where they are fewer than the columns.
inline F1 classify(const Vectors& x, const std::vector<int>& label, int classes, const Split& split,
                   double lambda = 100) {
  const Eigen::MatrixXd weights = train_ridge(x, label, classes, split.train, lambda);
  return f1_score(labels_of(label, split.test), predict(x, weights, split.test), classes);
}

}  // namespace graph
