// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Scores of the entries of a weight, of which 2:4 pruning keeps the two largest of each four.
///
/// ```cpp
/// auto a = two_four(w, Magnitude{});
/// auto b = two_four(w, Wanda(covariance));        // or of a vector of mean squares
/// auto c = two_four(w, NowagP(mean_squares));
/// struct Mine {                                   // any score of an entry
///   double score(pare::Index output, pare::Index input, double w) const;
/// };
/// auto d = two_four(w, Mine{});
/// ```
///
/// | score | of w_ij | source |
/// |---|---|---|
/// | `Magnitude` | abs(w_ij) | Mishra et al., arXiv 2104.08378 |
/// | `Wanda` | abs(w_ij) sqrt(h_j) | Sun, Liu, Bair and Kolter, arXiv 2306.11695, eq. 1 |
/// | `NowagP` | abs(w_ij) sqrt(h_j) / (r1_j r2_i) | Liu et al., arXiv 2504.14569, and its code |
///
/// h_j is the mean square of input j, r1_j = ||column j|| + 1e-5, and r2_i = ||row i of W / r1|| +
/// 1e-5, which is the same for all of a group and is not computed. The paper of NoWag was not read
/// itself; its normalisation is known from the code of ARMOR.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/detail/weight_norms.hpp>
#include <pare/factor/structured/second_moments.hpp>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <utility>
#include <vector>

namespace pare::factor {

/// abs(w_ij) times a factor of the input: `input_factors(backend, w)` returns them for
/// w [outputs, inputs], finite and of at least 0, or none where all are 1. Their scale does not
/// count. It runs in registers.
template <class P>
concept InputScore = requires(const P& p, TensorView<const float, 2> w) {
  { p.input_factors(simd, w) } -> std::same_as<std::vector<double>>;
};

/// Any score of an entry: `score(output, input, w)`, a number, no NaN. Several threads call it at
/// the same time.
template <class P>
concept EntryScore = requires(const P& p, Index output, Index input, double w) {
  { p.score(output, input, w) } -> std::convertible_to<double>;
};

/// What `two_four` chooses by.
template <class P>
concept TwoFourScore = InputScore<P> || EntryScore<P>;

PARE_ABI_BEGIN

/// abs(w_ij).
struct Magnitude {
  template <Backend B, StorageScalar S>
  std::vector<double> input_factors(const B&, TensorView<const S, 2>) const {
    return {};
  }
};

/// abs(w_ij) sqrt(h_j).
class Wanda {
 public:
  explicit Wanda(SecondMoments h) : h_(std::move(h)) {}
  template <class X>
  requires std::constructible_from<SecondMoments, const X&>
  explicit Wanda(const X& h) : h_(h) {}

  /// \throws std::invalid_argument if there are not as many moments as inputs.
  template <Backend B, StorageScalar S>
  std::vector<double> input_factors(const B&, TensorView<const S, 2> w) const {
    detail::check_moments("factor::two_four", h_, w.cols());
    std::vector<double> factors = h_.relative();
    for (double& f : factors) f = std::sqrt(f);
    return factors;
  }

 private:
  SecondMoments h_;
};

/// abs(w_ij) sqrt(h_j) / r1_j: Wanda's score of the normalised weight. One more pass over W.
class NowagP {
 public:
  explicit NowagP(SecondMoments h) : h_(std::move(h)) {}
  template <class X>
  requires std::constructible_from<SecondMoments, const X&>
  explicit NowagP(const X& h) : h_(h) {}

  /// \throws std::invalid_argument if there are not as many moments as inputs, or a number of W is
  ///         not finite.
  template <Backend B, StorageScalar S>
  std::vector<double> input_factors(const B& backend, TensorView<const S, 2> w) const {
    constexpr const char* function = "factor::two_four";
    detail::check_moments(function, h_, w.cols());
    const std::vector<double> norms = detail::column_norms(function, backend, w);
    std::vector<double> factors = h_.relative();
    for (std::size_t j = 0; j < factors.size(); ++j)
      factors[j] = std::sqrt(factors[j]) / (norms[j] + detail::norm_epsilon);
    return factors;
  }

 private:
  SecondMoments h_;
};

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
