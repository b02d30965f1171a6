// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Mean squares of a layer's inputs, by which the structured methods weigh errors.
///
/// ```cpp
/// const SecondMoments given(mean_squares);       // [inputs], of any vector
/// const SecondMoments counted(covariance);       // its diagonal: a Covariance of inputs
/// const auto core = two_four(w, Wanda(given));
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/metric.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace pare::factor {
PARE_ABI_BEGIN

/// h_j = mean of x_j^2 of input j. A number that is not finite or not above 0 says nothing, and
/// becomes the mean of those that do, as in the code of NoWag and ARMOR.
class SecondMoments {
 public:
  /// \param h [inputs] of any storage scalar, copied; of any scale, since only ratios count
  /// \throws std::invalid_argument if no number of it is finite and above 0.
  template <WeightVector X>
  explicit SecondMoments(const X& h) {
    const auto from = as_const(to_vector_view(h));
    check_view(function, "second_moments", from);
    values_.resize(static_cast<std::size_t>(from.extent[0]));
    for (Index i = 0; i < from.extent[0]; ++i)
      values_[static_cast<std::size_t>(i)] =
          static_cast<double>(static_cast<compute_t<scalar_of<X>>>(from(i)));
    replace_invalid();
  }

  /// The diagonal of C.
  /// \throws std::invalid_argument as above, or if no token was added
  explicit SecondMoments(const Covariance& covariance) : values_(covariance.diagonal()) {
    replace_invalid();
  }

  Index size() const { return static_cast<Index>(values_.size()); }
  std::span<const double> values() const { return values_; }
  double operator[](Index input) const { return values_[static_cast<std::size_t>(input)]; }

  /// How many numbers were replaced.
  Index replaced() const { return replaced_; }

  /// h_j / max h: in (0, 1], whatever the scale of h.
  std::vector<double> relative() const {
    double largest = 0;
    for (const double h : values_) largest = h > largest ? h : largest;
    std::vector<double> shares(values_);
    for (double& h : shares) h /= largest;
    return shares;
  }

 private:
  static constexpr const char* function = "factor::SecondMoments";
  static bool is_valid(double h) { return is_finite(h) && h > 0; }

  void replace_invalid() {
    Index valid = 0;
    for (const double h : values_) valid += is_valid(h) ? 1 : 0;
    check(valid > 0, function, "second_moments", "no number that is finite and above 0",
          "at least one");
    double mean = 0;
    for (const double h : values_)
      if (is_valid(h)) mean += h / static_cast<double>(valid);
    for (double& h : values_)
      if (!is_valid(h)) h = mean;
    replaced_ = size() - valid;
  }

  std::vector<double> values_;
  Index replaced_ = 0;
};

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN
/// Refuses moments of another number of inputs.
inline void check_moments(const char* function, const SecondMoments& h, Index inputs) {
  check_extents<1>(function, "second_moments", {h.size()}, {inputs});
}
PARE_ABI_END
}  // namespace detail
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
