// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How far experts are from others that they stand for, on the rows that a router gives them.
///
///     error_e = ||parts_e - wanted_e||_F / ||wanted_e||_F over the places of expert e
///
/// ```cpp
/// grouped_multiply(x, plan, dense, wanted);          // the experts as they were
/// grouped_multiply(x, plan, latent, parts);          // of low rank, quantised, ...
/// const auto errors = part_errors(plan, parts, wanted);   // [experts]
/// ```
///
/// A plan that sends each row to all experts judges them on all rows.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/routing/route_plan.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace pare::routing {
namespace detail {
PARE_ABI_BEGIN

/// ||a - b|| / ||b|| over all elements; each square is of a number up to 2.
template <class T>
double relative_error(TensorView<const T, 2> a, TensorView<const T, 2> b) {
  double most = 0;
  for (Index r = 0; r < a.rows(); ++r)
    for (Index c = 0; c < a.cols(); ++c) {
      const double x = std::abs(static_cast<double>(a(r, c))),
                   y = std::abs(static_cast<double>(b(r, c)));
      if (!is_finite(x) || !is_finite(y)) return std::numeric_limits<double>::quiet_NaN();
      most = std::max({most, x, y});
    }
  if (most == 0) return 0;
  double off = 0, size = 0;
  for (Index r = 0; r < a.rows(); ++r)
    for (Index c = 0; c < a.cols(); ++c) {
      const double x = static_cast<double>(a(r, c)) / most, y = static_cast<double>(b(r, c)) / most;
      off += (x - y) * (x - y);
      size += y * y;
    }
  if (size == 0) return std::numeric_limits<double>::infinity();
  return std::sqrt(off / size);
}

template <class T>
std::vector<double> part_errors(const RoutePlan& plan, TensorView<const T, 2> parts,
                                TensorView<const T, 2> wanted) {
  constexpr const char* function = "routing::part_errors";
  check_view(function, "parts", parts);
  check_extents<2>(function, "parts", parts.extent, {plan.routed(), parts.cols()});
  check_view(function, "wanted", wanted);
  check_extents<2>(function, "wanted", wanted.extent, {plan.routed(), parts.cols()});
  std::vector<double> errors;
  for (Index e = 0; e < plan.experts(); ++e) {
    const Index first = plan.offsets()[static_cast<std::size_t>(e)],
                count = plan.offsets()[static_cast<std::size_t>(e) + 1] - first;
    errors.push_back(relative_error(rows_of(parts, first, count), rows_of(wanted, first, count)));
  }
  return errors;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The relative error of each expert's parts.
///
/// \param plan   the plan of both
/// \param parts  [plan.routed(), columns] of float or double, any strides
/// \param wanted the same
/// \returns [experts]: 0 without rows or where both are 0; infinity where only `wanted` is 0; NaN
///          where an element of an expert is NaN or infinite
/// \throws std::invalid_argument if an extent does not fit
///
/// Cost: both are read twice, on the calling thread. Sums are double, of numbers that are scaled by
/// the largest, so that no square overflows.
template <In<2> P, In<2> W>
requires ComputeScalar<scalar_of<P>> && SameScalar<P, W>
std::vector<double> part_errors(const RoutePlan& plan, const P& parts, const W& wanted) {
  return detail::part_errors(plan, as_const(to_view(parts)), as_const(to_view(wanted)));
}

PARE_REFUSE_CALLS(part_errors, "routing::part_errors", "after wanted: wanted nothing",
                  (PLAIN, (roles::Takes<detail::IsPlan>), "plan", "a RoutePlan"),
                  (INPUT, (roles::ReadsCompute<2>), "parts", "[plan.routed(), columns]"),
                  (INPUT, (roles::ReadsSame<2>), "wanted", "[plan.routed(), columns]"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
