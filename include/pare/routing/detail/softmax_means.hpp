// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Softmax of rows of logits in double, and its means over rows.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace pare::routing::detail {
PARE_ABI_BEGIN

/// Rows of at least one expert, of which one logit at least is finite, and none NaN or +infinity.
template <class T>
void check_logits(const char* function, const TensorView<const T, 2>& logits) {
  check_view(function, "logits", logits);
  check(logits.cols() >= 1, function, "logits", logits.extent, "at least one expert");
  for (Index r = 0; r < logits.rows(); ++r) {
    bool finite = false;
    for (Index e = 0; e < logits.cols(); ++e) {
      const auto z = static_cast<double>(logits(r, e));
      check(!is_nan(z) && z < std::numeric_limits<double>::infinity(), function, "logits",
            std::array<Index, 2>{r, e},
            "[row, expert] with a logit that is neither NaN nor +infinity");
      finite = finite || is_finite(z);
    }
    check(finite, function, "logits", Worded{"row ", r, " of -infinity"}, "a finite logit");
  }
}

/// shares = softmax(logits_row / temperature).
template <class T>
void softmax_row(const TensorView<const T, 2>& logits, Index row, double temperature,
                 std::vector<double>& shares) {
  double most = -std::numeric_limits<double>::infinity(), sum = 0;
  for (Index e = 0; e < logits.cols(); ++e)
    most = std::max(most, static_cast<double>(logits(row, e)));
  for (std::size_t e = 0; e < shares.size(); ++e) {
    shares[e] =
        std::exp((static_cast<double>(logits(row, static_cast<Index>(e))) - most) / temperature);
    sum += shares[e];
  }
  for (double& share : shares) share /= sum;
}

/// Means over rows of the softmax, and of its largest share.
struct SoftmaxMeans {
  std::vector<double> mean{};
  double largest = 0;
};

template <class T>
SoftmaxMeans softmax_means(const TensorView<const T, 2>& logits, double temperature) {
  SoftmaxMeans means{std::vector<double>(static_cast<std::size_t>(logits.cols()), 0.0), 0};
  std::vector<double> shares(means.mean.size());
  for (Index r = 0; r < logits.rows(); ++r) {
    softmax_row(logits, r, temperature, shares);
    for (std::size_t e = 0; e < shares.size(); ++e) means.mean[e] += shares[e];
    means.largest += *std::max_element(shares.begin(), shares.end());
  }
  const auto rows = static_cast<double>(std::max<Index>(logits.rows(), 1));
  for (double& mean : means.mean) mean /= rows;
  means.largest /= rows;
  return means;
}

PARE_ABI_END
}  // namespace pare::routing::detail
