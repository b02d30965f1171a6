// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The row of logits that a gate chooses by, and where its choices go.
///
/// ```cpp
/// template <class Row>
/// void select(const Row& row) const {            // of a gate of your own, see gates.hpp
///   row.take_largest();                          // ids of the largest logits
///   row.weigh([](double logit) { return std::max(logit, 0.0); });
/// }
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

namespace pare::routing {
namespace detail {
PARE_ABI_BEGIN

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// Half of the experts, rounded down, at least 1.
inline Index half_of(Index experts) { return experts < 2 ? 1 : experts / 2; }

inline void check_choices(const char* function, Index k, Index experts) {
  check(k >= 1 && k <= experts, function, "k", k, Worded{"1 to the experts, ", experts});
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// One row of [rows, experts], and its rows of ids and weights, [rows, choices].
template <ComputeScalar T>
class GateRow {
 public:
  GateRow(TensorView<const T, 2> logits, Index row, RowMatrix<Index>& ids, RowMatrix<T>& weights)
      : logits_(&logits(row, 0)),
        stride_(logits.stride[1]),
        experts_(logits.cols()),
        choices_(ids.cols()),
        ids_(&ids(row, 0)),
        weights_(&weights(row, 0)) {}

  Index experts() const { return experts_; }
  Index choices() const { return choices_; }
  T logit(Index expert) const { return logits_[expert * stride_]; }

  /// Chooses an expert, from 0 to below experts(), each at most once, or -1 for none.
  void set(Index choice, Index id, double weight) const {
    ids_[choice] = id;
    weights_[choice] = static_cast<T>(weight);
  }

  /// The experts of the largest logits, by falling logit, of equal ones the lower id first.
  void take_largest() const {
    if (choices_ > few_choices) return take_sorted();
    for (Index j = 0; j < choices_; ++j) {
      Index best = -1;
      for (Index e = 0; e < experts_; ++e)
        if (follows(e, j) && (best < 0 || logit(e) > logit(best))) best = e;
      ids_[j] = best;
    }
  }

  /// weight = f(logit), for the experts that were taken.
  template <class F>
  void weigh(const F& f) const {
    for (Index j = 0; j < choices_; ++j)
      weights_[j] = static_cast<T>(f(static_cast<double>(logit(ids_[j]))));
  }

  /// e^(logit - max) / the sum of that over all experts. Without a finite logit all are alike.
  void weigh_by_softmax() const {
    const double most = largest();
    double sum = 0;
    for (Index e = 0; e < experts_; ++e) sum += share(logit(e), most);
    weigh([&](double x) { return share(x, most) / sum; });
  }

  /// The same, over the experts that were taken.
  void weigh_by_softmax_of_chosen() const {
    const double most = largest();
    double sum = 0;
    for (Index j = 0; j < choices_; ++j) sum += share(logit(ids_[j]), most);
    weigh([&](double x) { return share(x, most) / sum; });
  }

 private:
  static constexpr Index few_choices = 8;

  /// The largest was taken first.
  double largest() const { return static_cast<double>(logit(ids_[0])); }
  static double share(double x, double most) { return x == most ? 1 : std::exp(x - most); }

  /// Whether an expert stands behind those that were taken for the choices before.
  bool follows(Index expert, Index choice) const {
    if (choice == 0) return true;
    const Index last = ids_[choice - 1];
    return logit(expert) < logit(last) || (logit(expert) == logit(last) && expert > last);
  }

  void take_sorted() const {
    std::vector<Index> all(static_cast<std::size_t>(experts_));
    std::iota(all.begin(), all.end(), Index{0});
    std::partial_sort(all.begin(), all.begin() + choices_, all.end(), [&](Index a, Index b) {
      return logit(a) > logit(b) || (logit(a) == logit(b) && a < b);
    });
    std::copy_n(all.begin(), choices_, ids_);
  }

  const T* logits_;
  Index stride_, experts_, choices_;
  Index* ids_;
  T* weights_;
};

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
