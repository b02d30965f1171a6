// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Layers of the same inputs as one shared factor and one factor of each: W_i ~ A_i B, as MoLE has
/// it for the experts of a mixture.
///
/// ```cpp
/// auto shared = shared_factors(weights, {.latent = 64});           // a list of [out_i x in]
/// auto aware = shared_factors(weights, {.latent = 64}, covariance);
/// auto groups = grouped_shared_factors(experts, 4, {.latent = 64}); // groups of 4 experts, or
/// auto known = grouped_shared_factors(experts, 4, {.latent = 64}, covariance);
/// shared.specific(2);                                              // A_2 [out_2 x latent]
/// shared.shared();                                                 // B [latent x in]
/// ```
///
/// B and A_i minimise sum_i ||W_i - A_i B||_F^2: the truncated SVD of all W_i, one above the other.
/// The squared error is the sum of the squares of the singular values behind `latent`, and 0 if
/// and only if the rows of all weights span at most `latent` dimensions. With a covariance C of
/// the inputs they minimise sum_i tr((W_i - A_i B) C (W_i - A_i B)^T). If `rank` is given, each W_i
/// is replaced by its own best approximation of that rank first, as the paper's first phase does;
/// errors are then those beside the replaced weights.
///
/// Source: MoLE, "Mixture of Latent Experts", arXiv 2503.23100. Its algorithm is not public: the
/// stacked form is ours, by the theorem of Eckart and Young, and so are the covariance and weights
/// of unequal height, such as the query, key and value of one layer.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/covariance_svd.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/svd.hpp>
#include <pare/linalg/multiply.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <ranges>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::factor {

/// Options of shared_factors.
struct SharedFactorOptions {
  Index latent = 0;             ///< rows of B, from 1 to min(in, the outputs of all weights)
  std::optional<Index> rank{};  ///< each weight's own in the first phase; left out: no such phase
  SvdOptions svd{};             ///< how to get there, without a rank and a tolerance
};

PARE_ABI_BEGIN

/// W_i ~ specific(i) shared(), all specific factors one above the other in `factors.left`.
template <ComputeScalar T>
struct SharedFactors {
  using scalar = T;

  LowRank<T> factors;          ///< of the stacked weights: left [sum of out_i x latent]
  std::vector<Index> offsets;  ///< [weights + 1] A_i has the rows offsets[i] to offsets[i + 1] - 1

  Index weights() const { return static_cast<Index>(offsets.size()) - 1; }
  Index latent() const { return factors.rank(); }
  /// B [latent x in].
  TensorView<const T, 2> shared() const { return const_view(factors.right); }
  /// A_i [out_i x latent].
  /// \throws std::invalid_argument if there is no such weight
  TensorView<const T, 2> specific(Index i) const {
    check(i >= 0 && i < weights(), "factor::SharedFactors::specific", "i", i,
          Worded{"a number below ", weights()});
    const auto at = static_cast<std::size_t>(i);
    return rows_of(const_view(factors.left), offsets[at], offsets[at + 1] - offsets[at]);
  }
};

PARE_ABI_END

/// Weights in a list, such as a std::vector of matrices of Eigen's or of views.
template <class L>
concept WeightList =
    std::ranges::random_access_range<const L> && std::ranges::sized_range<const L> &&
    In<std::ranges::range_value_t<L>, 2> && !In<L, 2> && !In<L, 1>;

namespace detail {
template <class X>
using IsWeightList = std::bool_constant<WeightList<std::remove_cvref_t<X>>>;

PARE_ABI_BEGIN

template <WeightList L>
using shared_scalar = compute_t<scalar_of<std::ranges::range_value_t<L>>>;

inline SvdOptions svd_of_rank(SvdOptions options, Index rank) {
  options.rank = rank;
  return options;
}

/// Where the weights lie one above the other.
template <class L>
std::vector<Index> checked_offsets(const char* function, const L& weights,
                                   const SharedFactorOptions& options) {
  const auto [latent, rank, svd] = options;
  check(!svd.rank, function, "svd.rank", svd.rank.value_or(0), "none: latent is the rank");
  check(!svd.tolerance, function, "svd.tolerance", svd.tolerance.value_or(0), "none");
  check(std::ranges::size(weights) >= 1, function, "weights", std::ranges::size(weights),
        "at least one");
  const Index in = as_const(to_view(*std::ranges::begin(weights))).cols();
  std::vector<Index> offsets{0};
  for (const auto& weight : weights) {
    const auto view = as_const(to_view(weight));
    check_view(function, "weights", view);
    check(view.rows() >= 1 && in >= 1, function, "weights", view.extent,
          "at least one output and one input each");
    check_extents<2>(function, "weights", view.extent, {view.rows(), in});
    offsets.push_back(checked_sum(function, "weights", offsets.back(), view.rows()));
    if (rank)
      check(*rank >= 1 && *rank <= std::min(view.rows(), in), function, "rank", *rank,
            Worded{"from 1 to ", std::min(view.rows(), in), ", the sides of each weight"});
  }
  checked_count(function, "weights", checked_product(function, "weights", offsets.back(), in),
                sizeof(double));
  const Index most = std::min(offsets.back(), in);
  check(latent >= 1 && latent <= most, function, "latent", latent, Worded{"from 1 to ", most});
  return offsets;
}

/// All weights one above the other, each by factorize(weight, rank) first if a rank is given.
template <class B, class L, class Factorize>
RowMatrix<shared_scalar<L>> stacked(const B& backend, const L& weights,
                                    const std::vector<Index>& offsets, std::optional<Index> rank,
                                    const Factorize& factorize) {
  using T = shared_scalar<L>;
  const auto first = as_const(to_view(*std::ranges::begin(weights)));
  RowMatrix<T> all(offsets.back(), first.cols());
  auto at = offsets.begin();
  for (const auto& weight : weights) {
    const auto view = as_const(to_view(weight));
    const Index begin = *at++;
    if (rank) {
      const LowRank<T> own = factorize(view, *rank);
      linalg::multiply(backend, const_view(own.left), const_view(own.right),
                       rows_of(to_view(all), begin, view.rows()));
      continue;
    }
    for (Index o = 0; o < view.rows(); ++o)
      for (Index i = 0; i < view.cols(); ++i) all(begin + o, i) = static_cast<T>(view(o, i));
  }
  return all;
}

template <class B, class L, class Factorize>
SharedFactors<shared_scalar<L>> share(const char* function, const B& backend, const L& weights,
                                      const SharedFactorOptions& options,
                                      const Factorize& factorize) {
  std::vector<Index> offsets = checked_offsets(function, weights, options);
  const auto all = stacked(backend, weights, offsets, options.rank, factorize);
  return {factorize(const_view(all), options.latent), std::move(offsets)};
}

/// share(list of views) of each `group` weights.
template <class L, class Share>
std::vector<SharedFactors<shared_scalar<L>>> share_groups(const L& weights, Index group,
                                                          const Share& share) {
  constexpr const char* function = "factor::grouped_shared_factors";
  const auto count = static_cast<Index>(std::ranges::size(weights));
  check(count >= 1, function, "weights", count, "at least one");
  check(group >= 1 && count % group == 0, function, "group", group,
        Worded{"a divisor of ", count, ", the number of weights"});
  using Scalar = scalar_of<std::ranges::range_value_t<L>>;
  std::vector<SharedFactors<shared_scalar<L>>> groups;
  auto next = std::ranges::begin(weights);
  for (Index begin = 0; begin < count; begin += group) {
    std::vector<TensorView<const Scalar, 2>> own;
    for (Index i = 0; i < group; ++i) own.push_back(as_const(to_view(*next++)));
    groups.push_back(share(own));
  }
  return groups;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The best A_i and B of a latent width.
///
/// \param backend left out: pare::simd
/// \param weights a list of [out_i x in], any storage scalar, at least one
/// \param options the width, and how to get there
/// \return        factors in compute_t of their scalar; `factors` has the energies and errors of
///                the stacked weights
/// \throws std::invalid_argument if there is no weight, one is empty or of another number of
///         inputs, latent is not in [1, min(in, sum of out_i)], rank not in [1, min(out_i, in)] of
///         each, or as truncated_svd, of which `function` is named then
///
/// Cost: that of truncated_svd of [sum of out_i x in], and of each weight if `rank` is given.
/// Memory: a copy of all weights, and that of truncated_svd. The same bits for every executor.
template <Backend B, WeightList L>
SharedFactors<detail::shared_scalar<L>> shared_factors(const B& backend, const L& weights,
                                                       const SharedFactorOptions& options) {
  return detail::share("factor::shared_factors", backend, weights, options,
                       [&](auto w, Index rank) {
                         return truncated_svd(backend, w, detail::svd_of_rank(options.svd, rank));
                       });
}

/// \overload
template <WeightList L>
SharedFactors<detail::shared_scalar<L>> shared_factors(const L& weights,
                                                       const SharedFactorOptions& options) {
  return shared_factors(simd, weights, options);
}

/// The same where errors are those of the outputs over the inputs that the layers see.
/// \param covariance C [in x in] of the inputs; at least one token was added
/// \throws std::invalid_argument as above, and as covariance_svd
///
/// Cost and memory: those of covariance_svd instead.
template <Backend B, WeightList L>
SharedFactors<detail::shared_scalar<L>> shared_factors(const B& backend, const L& weights,
                                                       const SharedFactorOptions& options,
                                                       const Covariance& covariance) {
  return detail::share(
      "factor::shared_factors", backend, weights, options, [&](auto w, Index rank) {
        return covariance_svd(backend, w, covariance, detail::svd_of_rank(options.svd, rank));
      });
}

/// \overload
template <WeightList L>
SharedFactors<detail::shared_scalar<L>> shared_factors(const L& weights,
                                                       const SharedFactorOptions& options,
                                                       const Covariance& covariance) {
  return shared_factors(simd, weights, options, covariance);
}

/// The same of groups of `group` weights each, in their order: MoLE's experts.
///
/// \param group how many weights have a B together; it divides their number
/// \return      as many results as there are groups
/// \throws std::invalid_argument as shared_factors, if there is no weight, or group is below 1 or
///         does not divide the number of weights
template <Backend B, WeightList L>
std::vector<SharedFactors<detail::shared_scalar<L>>> grouped_shared_factors(
    const B& backend, const L& weights, Index group, const SharedFactorOptions& options) {
  return detail::share_groups(
      weights, group, [&](const auto& own) { return shared_factors(backend, own, options); });
}

/// \overload
template <WeightList L>
std::vector<SharedFactors<detail::shared_scalar<L>>> grouped_shared_factors(
    const L& weights, Index group, const SharedFactorOptions& options) {
  return grouped_shared_factors(simd, weights, group, options);
}

/// The same where errors are those of the outputs over the inputs that the layers see.
/// \param covariance C [in x in] of the inputs of all weights: a mixture's experts are judged on
///                   all of its rows, not on those that a router gives each
/// \throws std::invalid_argument as above, and as covariance_svd
///
/// Memory: each factorization copies C, [in x in] in double, and frees it: one copy at a time.
template <Backend B, WeightList L>
std::vector<SharedFactors<detail::shared_scalar<L>>> grouped_shared_factors(
    const B& backend, const L& weights, Index group, const SharedFactorOptions& options,
    const Covariance& covariance) {
  return detail::share_groups(weights, group, [&](const auto& own) {
    return shared_factors(backend, own, options, covariance);
  });
}

/// \overload
template <WeightList L>
std::vector<SharedFactors<detail::shared_scalar<L>>> grouped_shared_factors(
    const L& weights, Index group, const SharedFactorOptions& options,
    const Covariance& covariance) {
  return grouped_shared_factors(simd, weights, group, options, covariance);
}

PARE_REFUSE_CALLS(
    shared_factors, "factor::shared_factors",
    "after weights: wanted SharedFactorOptions such as {.latent = 64}, and nothing or "
    "a Covariance behind them",
    (PLAIN, (roles::Takes<detail::IsWeightList>), "weights",
     "a list of matrices [out, in], such as a std::vector of Eigen's"))
PARE_REFUSE_CALLS(grouped_shared_factors, "factor::grouped_shared_factors",
                  "after weights: wanted the size of a group, SharedFactorOptions such as "
                  "{.latent = 64}, and nothing or a Covariance behind them",
                  (PLAIN, (roles::Takes<detail::IsWeightList>), "weights",
                   "a list of matrices [out, in], such as a std::vector of Eigen's"))

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
