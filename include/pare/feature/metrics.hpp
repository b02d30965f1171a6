// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Measures of models and of rankings of features: AUC, log loss, rank correlations, AUKC.
///
/// ```cpp
/// double auc = roc_auc(labels, logits);          // labels 0 or 1, any score that rises with 1
/// double loss = logistic_loss(labels, logits);   // of logits; log_loss takes probabilities
/// double area = aukc(kept, auc_of_kept);         // AUC over the number of features kept
/// double tau = kendall_tau(importance_a, importance_b);
/// ```
///
/// All of them work in double on one thread; lists are Eigen vectors, std::vector or std::span of
/// any arithmetic type.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/feature/detail/number_list.hpp>
#include <pare/feature/detail/ranks.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace pare::feature {
PARE_ABI_BEGIN

/// Area under the ROC curve: the share of pairs (a row of label 1, a row of label 0) that the
/// scores put in the right order; equal scores count one half.
///
/// \param labels [n] 0 or 1, at least one of each
/// \param scores [n] finite; higher means 1
/// \return        in [0, 1], exact up to one division
/// \throws std::invalid_argument if sizes differ, a label is another, a class is missing, or a
///         score is not finite
/// Cost: n log n.
template <NumberList Y, NumberList S>
double roc_auc(const Y& labels, const S& scores) {
  constexpr const char* function = "feature::roc_auc";
  const std::vector<int> y = detail::binary_labels<int>(function, labels);
  const std::vector<double> s = detail::finite_numbers(function, "scores", scores);
  detail::check_size(function, "scores", s.size(), y.size());
  const auto ones = static_cast<std::uint64_t>(std::count(y.begin(), y.end(), 1));
  const std::uint64_t zeros = y.size() - ones;
  check(ones > 0 && zeros > 0, function, "labels",
        std::to_string(ones) + " ones of " + std::to_string(y.size()), "both classes");
  std::uint64_t zeros_below = 0, twice_ordered = 0;
  detail::for_each_tie(s, [&](const std::size_t* begin, const std::size_t* end) {
    std::uint64_t tied_ones = 0;
    for (const std::size_t* i = begin; i != end; ++i) tied_ones += y[*i] == 1 ? 1 : 0;
    const std::uint64_t tied_zeros = static_cast<std::uint64_t>(end - begin) - tied_ones;
    twice_ordered += tied_ones * (2 * zeros_below + tied_zeros);
    zeros_below += tied_zeros;
  });
  return static_cast<double>(twice_ordered) / 2 /
         (static_cast<double>(ones) * static_cast<double>(zeros));
}

/// Mean negative log-likelihood of labels: -1/n sum (y log p + (1 - y) log(1 - p)), with p clipped
/// to [epsilon, 1 - epsilon], epsilon = 2^-52, as scikit-learn does.
///
/// \param labels        [n] 0 or 1, at least one
/// \param probabilities [n] of label 1, in [0, 1]
/// \throws std::invalid_argument if sizes differ or a number is out of its range
template <NumberList Y, NumberList P>
double log_loss(const Y& labels, const P& probabilities) {
  constexpr const char* function = "feature::log_loss";
  const std::vector<int> y = detail::binary_labels<int>(function, labels);
  const auto p =
      detail::numbers_of<double>(function, "probabilities", probabilities, "a number in [0, 1]",
                                 [](double x) { return x >= 0 && x <= 1; });
  detail::check_size(function, "probabilities", p.size(), y.size());
  check(!y.empty(), function, "labels", "no label", "at least one");
  constexpr double epsilon = std::numeric_limits<double>::epsilon();
  double sum = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double clipped = std::clamp(p[i], epsilon, 1 - epsilon);
    sum -= y[i] == 1 ? std::log(clipped) : std::log1p(-clipped);
  }
  return sum / static_cast<double>(y.size());
}

/// log_loss of sigmoid(logits), without clipping: 1/n sum log(1 + exp(z)) - y z.
///
/// \param labels [n] 0 or 1, at least one
/// \param logits [n] finite
/// \throws std::invalid_argument if sizes differ or a number is out of its range
template <NumberList Y, NumberList Z>
double logistic_loss(const Y& labels, const Z& logits) {
  constexpr const char* function = "feature::logistic_loss";
  const std::vector<int> y = detail::binary_labels<int>(function, labels);
  const std::vector<double> z = detail::finite_numbers(function, "logits", logits);
  detail::check_size(function, "logits", z.size(), y.size());
  check(!y.empty(), function, "labels", "no label", "at least one");
  double sum = 0;
  for (std::size_t i = 0; i < y.size(); ++i)
    sum += std::max(z[i], 0.0) - z[i] * y[i] + std::log1p(std::exp(-std::abs(z[i])));
  return sum / static_cast<double>(y.size());
}

/// Area under the AUC-versus-k curve by the trapezoidal rule, scaled so that an AUC of 0.5
/// everywhere is 0 and of 1 everywhere is 1:
/// sum_i (k_{i+1} - k_i) (a_i + a_{i+1} - 1) / (k_n - k_1).
///
/// RECONSTRUCTED: ERASE (KDD 2024, arXiv 2403.12660) uses a figure of this name and intent; its own
/// equation was not available, so these numbers may not compare with the ones published there.
///
/// \param kept [n] numbers of features kept, rising, at least two, over a range that is finite
/// \param aucs [n] the AUC of a model trained with each, in [0, 1]
/// \throws std::invalid_argument if sizes differ, there are fewer than 2, kept does not rise or its
///         range is not finite, or an AUC is not in [0, 1]
template <NumberList K, NumberList A>
double aukc(const K& kept, const A& aucs) {
  constexpr const char* function = "feature::aukc";
  const std::vector<double> k = detail::finite_numbers(function, "kept", kept);
  const auto a = detail::numbers_of<double>(function, "aucs", aucs, "a number in [0, 1]",
                                            [](double x) { return x >= 0 && x <= 1; });
  check(k.size() >= 2, function, "kept", k.size(), "at least 2 points");
  detail::check_size(function, "aucs", a.size(), k.size());
  check(is_finite(k.back() - k.front()), function, "kept", k.back(), "a range that is finite");
  double area = 0;
  for (std::size_t i = 0; i + 1 < k.size(); ++i) {
    check(k[i] < k[i + 1], function, "kept", k[i + 1], "rising numbers");
    area += (k[i + 1] - k[i]) * (a[i] + a[i + 1] - 1);
  }
  return area / (k.back() - k.front());
}

/// Kendall's tau-b of two rankings: concordant minus discordant pairs over the geometric mean of
/// the pairs that are not tied in a and in b.
///
/// \param a [n] finite, not all equal
/// \param b [n] the same
/// \return   in [-1, 1]
/// \throws std::invalid_argument if sizes differ, a number is not finite, or all numbers of a list
///         are equal
/// Cost: n log n. Source: Knight, "A computer method for calculating Kendall's tau with ungrouped
/// data", JASA 61 (1966).
template <NumberList A, NumberList B>
double kendall_tau(const A& a, const B& b) {
  constexpr const char* function = "feature::kendall_tau";
  const auto [x, y] = detail::paired_numbers(function, a, b);
  const std::vector<std::size_t> order = detail::order_of(x, y);
  const std::uint64_t pairs = detail::pairs_of(x.size());
  const std::uint64_t tied_x = detail::tied_pairs(x), tied_y = detail::tied_pairs(y);
  const std::uint64_t tied_both = detail::tied_pairs(x, y, order);
  std::vector<double> by_x(x.size());
  for (std::size_t i = 0; i < order.size(); ++i) by_x[i] = y[order[i]];
  const auto discordant = static_cast<double>(detail::count_inversions(by_x));
  const double untied = static_cast<double>(pairs - tied_x) - static_cast<double>(tied_y) +
                        static_cast<double>(tied_both);
  return (untied - 2 * discordant) /
         std::sqrt(static_cast<double>(pairs - tied_x) * static_cast<double>(pairs - tied_y));
}

/// Spearman's rho: the correlation of ranks, equal numbers sharing the mean of theirs.
///
/// \param a [n] finite, not all equal
/// \param b [n] the same
/// \return   in [-1, 1]
/// \throws std::invalid_argument if sizes differ, a number is not finite, or all numbers of a list
///         are equal
/// Cost: n log n.
template <NumberList A, NumberList B>
double spearman(const A& a, const B& b) {
  const auto [x, y] = detail::paired_numbers("feature::spearman", a, b);
  const std::vector<double> rank_x = detail::mean_ranks(x), rank_y = detail::mean_ranks(y);
  const double mean = static_cast<double>(x.size() + 1) / 2;
  double xy = 0, xx = 0, yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double dx = rank_x[i] - mean, dy = rank_y[i] - mean;
    xy += dx * dy;
    xx += dx * dx;
    yy += dy * dy;
  }
  return xy / std::sqrt(xx * yy);
}

PARE_REFUSE_CALLS(roc_auc, "feature::roc_auc", "after scores: wanted nothing",
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "labels",
                   "a vector in memory of numbers, which std::vector<bool> is not"),
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "scores",
                   "a vector in memory of numbers, which std::vector<bool> is not"))
PARE_REFUSE_CALLS(log_loss, "feature::log_loss", "after probabilities: wanted nothing",
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "labels",
                   "a vector in memory of numbers, which std::vector<bool> is not"),
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "probabilities",
                   "a vector in memory of numbers, which std::vector<bool> is not"))
PARE_REFUSE_CALLS(logistic_loss, "feature::logistic_loss", "after logits: wanted nothing",
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "labels",
                   "a vector in memory of numbers, which std::vector<bool> is not"),
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "logits",
                   "a vector in memory of numbers, which std::vector<bool> is not"))
PARE_REFUSE_CALLS(aukc, "feature::aukc", "after aucs: wanted nothing",
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "kept",
                   "a vector in memory of numbers, which std::vector<bool> is not"),
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "aucs",
                   "a vector in memory of numbers, which std::vector<bool> is not"))
PARE_REFUSE_CALLS(kendall_tau, "feature::kendall_tau", "after b: wanted nothing",
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "a",
                   "a vector in memory of numbers, which std::vector<bool> is not"),
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "b",
                   "a vector in memory of numbers, which std::vector<bool> is not"))
PARE_REFUSE_CALLS(spearman, "feature::spearman", "after b: wanted nothing",
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "a",
                   "a vector in memory of numbers, which std::vector<bool> is not"),
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "b",
                   "a vector in memory of numbers, which std::vector<bool> is not"))

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
