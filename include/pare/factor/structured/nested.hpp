// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Nested factorization (Maestro): two factors of which the first b units are the best of rank b,
/// for every b at once.
///
/// ```cpp
/// auto f = nested(w);                              // U sqrt(S), sqrt(S) V^T: [out x r], [r x in]
/// auto aware = nested(w, covariance, {.rank = 256});   // best for the inputs that were seen
/// const auto half = prefix_of(f, f.rank() / 2);    // a LowRank of the first units
/// const auto thin = shrink(f, 1e-3);               // without units of little importance
/// if (keeps_dense(out, in, thin.rank())) ...       // the factors would be larger than W
/// ```
///
/// A model that is trained or stored in this form can be cut to any width when it runs. Without
/// training the form is the singular value decomposition, and with a covariance of the inputs the
/// whitened one, which is nested too: Maestro's theorem says that training by ordered dropout
/// (nested_training.hpp) of a linear map ends there. Source: Horvath, Laskaridis, Rajput and Wang,
/// "Maestro: uncovering low-rank structures via trainable decomposition", ICML 2024, arXiv
/// 2308.14929; the authors' code has importance and the rule to keep a layer dense.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/covariance_svd.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/svd.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <vector>

namespace pare::factor {

/// Options of nested.
struct NestedOptions {
  std::optional<Index> rank{};  ///< units, in [1, min(out, in)]; left out: min(out, in)
};

/// What a unit's importance is.
enum class UnitImportance {
  Unit,    ///< ||U_:b|| ||V_:b||, of its own column and row
  Suffix,  ///< ||U_:b..|| ||V_:b..||, of all units from it on, which never increases
};

namespace detail {
PARE_ABI_BEGIN

inline SvdOptions nested_options(const NestedOptions& options, Index out, Index in) {
  return {.rank = options.rank.value_or(std::max<Index>(std::min(out, in), 1)),
          .accuracy = Accuracy::High,
          .route = Route::Exact,
          .split = Split::Both};
}

/// Squared norms of columns of left and rows of right, in double.
template <ComputeScalar T>
std::array<Eigen::VectorXd, 2> unit_squares(const LowRank<T>& f) {
  return {f.left.template cast<double>().colwise().squaredNorm().transpose(),
          f.right.template cast<double>().rowwise().squaredNorm()};
}

/// x_b <- sqrt(sum_{j >= b} x_j).
inline void suffix_norms(Eigen::VectorXd& x) {
  double sum = 0;
  for (Index b = x.size(); b-- > 0;) {
    sum += x(b);
    x(b) = std::sqrt(sum);
  }
}

template <ComputeScalar T>
void check_units(const char* function, const LowRank<T>& f) {
  check(f.left.cols() == f.right.rows(), function, "factors", f.left.cols(), f.right.rows());
}

/// The norm of what leaves, and a bound of it that rounding of the values does not pass.
struct DroppedNorm {
  double norm = 0, bound = 0;
};

/// sqrt(sum x^2) of numbers of at least 0 that ascend, scaled by the last: squares of small ones
/// are 0.
inline double scaled_norm(const Eigen::VectorXd& x) {
  const double largest = x.size() == 0 ? 0 : x(x.size() - 1);
  if (largest == 0) return 0;
  double sum = 0;
  for (const double s : x) sum += (s / largest) * (s / largest);
  return largest * std::sqrt(sum);
}

/// By the singular values that are not chosen: all less those that are would cancel. Values are
/// roots of eigenvalues, which a decomposition knows to a rounding of the sum of squares, as
/// `describe` has it: by the exact route in double. Infinity without values.
template <ComputeScalar T>
DroppedNorm norm_of_dropped(const LowRank<T>& f, const std::vector<Index>& units) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (f.singular_values.size() != f.left.cols()) return {infinity, infinity};
  if (static_cast<Index>(units.size()) == f.rank()) return {};
  Eigen::VectorXd all = f.singular_values, dropped = all;
  for (const Index u : units) dropped(u) = 0;
  std::sort(all.begin(), all.end());
  std::sort(dropped.begin(), dropped.end());
  const double norm = scaled_norm(dropped);
  const double roundoff = f.route == Route::Exact ? std::numeric_limits<double>::epsilon()
                                                  : double{std::numeric_limits<T>::epsilon()};
  return {norm, std::hypot(norm, 4 * std::sqrt(roundoff) * scaled_norm(all))};
}

/// The units of a list.
template <ComputeScalar T>
LowRank<T> chosen_units(const LowRank<T>& f, const std::vector<Index>& units) {
  const auto count = static_cast<Index>(units.size());
  LowRank<T> to;
  to.left.resize(f.left.rows(), count);
  to.right.resize(count, f.right.cols());
  const bool has_values = f.singular_values.size() == f.left.cols();
  to.singular_values.resize(has_values ? count : 0);
  for (Index u = 0; u < count; ++u) {
    const Index from = units[static_cast<std::size_t>(u)];
    to.left.col(u) = f.left.col(from);
    to.right.row(u) = f.right.row(from);
    if (has_values) to.singular_values(u) = f.singular_values(from);
  }
  to.total_energy = f.total_energy;
  to.captured_energy = to.singular_values.squaredNorm();
  const auto [norm, bound] = norm_of_dropped(f, units);
  to.error_bound = f.error_bound + bound;
  to.measured_error = std::hypot(f.error(), norm);  // of units that are orthogonal
  to.route = f.route;
  to.clamped_directions = f.clamped_directions;
  return to;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// W = U V^T, U = left [out x r] and V^T = right [r x in], such that the first b units are a best
/// approximation of rank b of W, for each b; each factor carries the roots of the singular values.
///
/// \param backend left out: pare::simd
/// \param w       [out x in], any dense Eigen matrix of float, double, bf16 or f16
/// \return        as truncated_svd with Split::Both and Route::Exact
/// \throws std::invalid_argument as truncated_svd
///
/// Cost, memory and determinism: those of truncated_svd by the exact route.
template <Backend B, In<2> W>
auto nested(const B& backend, const W& w, const NestedOptions& options = {}) {
  const auto view = as_const(to_view(w));
  return truncated_svd(backend, view, detail::nested_options(options, view.rows(), view.cols()));
}

/// \overload
template <In<2> W>
auto nested(const W& w, const NestedOptions& options = {}) {
  return nested(simd, w, options);
}

/// The same for the inputs of a covariance: the first b units change outputs least among all of
/// rank b, tr((W - U_b V_b^T) C (W - U_b V_b^T)^T). C may be singular: no inverse is taken, and
/// `clamped_directions` stays 0. Units beyond the rank of W C W^T have singular values of rounding
/// (some 1e-4 of the first, of float tokens) and carry what W does to inputs that were not seen, by
/// rows of V^T that may be large. Their importance is not small: leave them out by `prefix_of` and
/// the singular values, not by `shrink`.
/// \throws std::invalid_argument as covariance_svd
template <Backend B, In<2> W>
auto nested(const B& backend, const W& w, const Covariance& covariance,
            const NestedOptions& options = {}) {
  const auto view = as_const(to_view(w));
  return covariance_svd(backend, view, covariance,
                        detail::nested_options(options, view.rows(), view.cols()));
}

/// \overload
template <In<2> W>
auto nested(const W& w, const Covariance& covariance, const NestedOptions& options = {}) {
  return nested(simd, w, covariance, options);
}

/// The units of a width: ceil(p r).
/// \throws std::invalid_argument unless rank is at least 1 and p in (0, 1]
inline Index units_of_width(Index rank, double p) {
  constexpr const char* function = "factor::units_of_width";
  check(rank >= 1, function, "rank", rank, "at least 1");
  check(p > 0 && p <= 1, function, "p", p, "a share in (0, 1]");
  const double units = std::ceil(static_cast<double>(rank) * p);
  return units < static_cast<double>(rank) ? static_cast<Index>(units) : rank;
}

/// The first `units` units, copied. None: factors of rank 0, whose product is 0. Its error is that
/// of all units and the singular values that leave, not a difference of energies, which would be
/// rounding where little leaves; those values are known to some 6e-8 of ||W||, and `error_bound`
/// is no lower where a unit leaves (1.4e-3 of float by another route than the exact one). Of
/// factors without singular values, as those of NestedTraining, `error_bound` and error() are
/// infinite.
/// \throws std::invalid_argument unless units is in [0, rank]
template <ComputeScalar T>
LowRank<T> prefix_of(const LowRank<T>& factors, Index units) {
  constexpr const char* function = "factor::prefix_of";
  detail::check_units(function, factors);
  check(units >= 0 && units <= factors.rank(), function, "units", units,
        Worded{"0 to the rank, ", factors.rank()});
  std::vector<Index> first(static_cast<std::size_t>(units));
  for (Index u = 0; u < units; ++u) first[static_cast<std::size_t>(u)] = u;
  return detail::chosen_units(factors, first);
}

/// The importance of each unit, [rank].
/// \throws std::invalid_argument if the factors do not fit each other, or kind is no enumerator
template <ComputeScalar T>
Eigen::VectorXd importance_of_units(const LowRank<T>& factors,
                                    UnitImportance kind = UnitImportance::Unit) {
  constexpr const char* function = "factor::importance_of_units";
  detail::check_units(function, factors);
  check_enumerator(function, "kind", kind, UnitImportance::Suffix);
  auto [left, right] = detail::unit_squares(factors);
  if (kind == UnitImportance::Suffix) {
    detail::suffix_norms(left);
    detail::suffix_norms(right);
    return left.cwiseProduct(right);
  }
  return left.cwiseSqrt().cwiseProduct(right.cwiseSqrt());
}

/// Without the units whose importance is below a threshold; the others keep their order and bits.
/// Errors are those of prefix_of.
///
/// \param threshold at least 0; the authors' code has 1e-5 for weights that were trained
/// \throws std::invalid_argument as importance_of_units, or if threshold is negative or not finite
template <ComputeScalar T>
LowRank<T> shrink(const LowRank<T>& factors, double threshold,
                  UnitImportance kind = UnitImportance::Unit) {
  check(is_finite(threshold) && threshold >= 0, "factor::shrink", "threshold", threshold,
        "a finite number of at least 0");
  const Eigen::VectorXd importance = importance_of_units(factors, kind);
  std::vector<Index> kept;
  for (Index u = 0; u < factors.rank(); ++u)
    if (!(importance(u) < threshold)) kept.push_back(u);
  return detail::chosen_units(factors, kept);
}

/// Whether a dense weight is smaller than its factors: (out + in) rank > out in.
/// \throws std::invalid_argument if an extent is below 1, or rank below 0
inline bool keeps_dense(Index out, Index in, Index rank) {
  constexpr const char* function = "factor::keeps_dense";
  check(out >= 1, function, "out", out, "at least 1");
  check(in >= 1, function, "in", in, "at least 1");
  check(rank >= 0, function, "rank", rank, "at least 0");
  return checked_product(function, "rank", checked_sum(function, "out", out, in), rank) >
         checked_product(function, "out", out, in);
}

PARE_REFUSE_CALLS(nested, "factor::nested",
                  "after w: wanted a Covariance or none, and NestedOptions such as {.rank = 16}",
                  (INPUT, (roles::Reads<2>), "w", "[out, in]"))

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
