// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Causal attention with grouped heads and rotary embedding, as it is defined, in double.

#include <pare/core/check.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <optional>

namespace pare::testing {

/// Turns the first `dims` numbers of a head by its position, pairs of neighbours, or of halves.
inline void rotate_head(Eigen::Ref<Eigen::RowVectorXd> head, Index dims, Index position,
                        bool halves) {
  for (Index i = 0; i < dims / 2; ++i) {
    const Index re = halves ? i : 2 * i, im = halves ? i + dims / 2 : 2 * i + 1;
    const double angle = static_cast<double>(position) *
                         std::pow(10000.0, -2 * static_cast<double>(i) / static_cast<double>(dims));
    const double a = head[re], b = head[im];
    head[re] = a * std::cos(angle) - b * std::sin(angle);
    head[im] = b * std::cos(angle) + a * std::sin(angle);
  }
}

/// Rows are tokens, heads lie one after the other.
struct AttentionOracle {
  Index heads, kv_heads, head_dim;
  std::optional<Index> rotary{};  ///< left out: head_dim
  bool halves = false;
  Index stride = 1;  ///< between the positions of two tokens; 0: all have one position

  Eigen::MatrixXd rotated(Eigen::MatrixXd rows) const {
    for (Index t = 0; t < rows.rows(); ++t)
      for (Index h = 0; h < rows.cols() / head_dim; ++h) {
        Eigen::RowVectorXd head = rows.row(t).segment(h * head_dim, head_dim);
        rotate_head(head, rotary.value_or(head_dim), 3 + stride * t, halves);
        rows.row(t).segment(h * head_dim, head_dim) = head;
      }
    return rows;
  }

  /// q_h(t) . k_g(s) of a head, for all t and s.
  Eigen::MatrixXd scores(const Eigen::MatrixXd& q, const Eigen::MatrixXd& k, Index head) const {
    const Index group = head / (heads / kv_heads);
    return rotated(q).middleCols(head * head_dim, head_dim) *
           rotated(k).middleCols(group * head_dim, head_dim).transpose();
  }

  Eigen::MatrixXd outputs(const Eigen::MatrixXd& q, const Eigen::MatrixXd& k,
                          const Eigen::MatrixXd& v) const {
    Eigen::MatrixXd out = Eigen::MatrixXd::Zero(q.rows(), heads * head_dim);
    for (Index h = 0; h < heads; ++h) {
      const Eigen::MatrixXd s = scores(q, k, h) / std::sqrt(static_cast<double>(head_dim));
      const Index group = h / (heads / kv_heads);
      for (Index t = 0; t < q.rows(); ++t) {
        const double largest = s.row(t).head(t + 1).maxCoeff();
        double sum = 0;
        for (Index j = 0; j <= t; ++j) {
          const double p = std::exp(s(t, j) - largest);
          sum += p;
          out.row(t).segment(h * head_dim, head_dim) +=
              p * v.row(j).segment(group * head_dim, head_dim);
        }
        out.row(t).segment(h * head_dim, head_dim) /= sum;
      }
    }
    return out;
  }
};

}  // namespace pare::testing
