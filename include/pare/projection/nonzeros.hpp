// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The nonzeros of a random operator, column by column: for methods that use R otherwise than in a
/// product, as FastRP does for its starting vectors.
///
/// ```cpp
/// const Nonzeros nonzeros(SparseProjection{.input_dim = 1000, .output_dim = 64, .seed = 7});
/// nonzeros.visit(pare::simd, 0, 10, [&](pare::Index column, pare::Index row, bool negative) {
///   sum[row] += negative ? -x[column] : x[column];
/// });
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/projection/detail/sampler.hpp>
#include <pare/projection/reference.hpp>
#include <pare/projection/sparse_projection.hpp>

#include <utility>

namespace pare::projection {
PARE_ABI_BEGIN

/// The nonzeros of R, which are drawn as they are visited and never stored. Memory: the tables of
/// one binomial distribution, some hundred bytes.
template <RandomOperator R>
class Nonzeros {
 public:
  /// \throws std::invalid_argument if a member of r is out of range.
  explicit Nonzeros(const R& r) : operator_((validate("projection::Nonzeros", r), r)) {}

  /// Calls visit(column, row, negative) for each nonzero of columns [first, last), which are not
  /// checked: columns ascending, then rows. The value is `entry_scale()` of the operator, negative
  /// or not. Every backend visits the same ones. Cost: one block of random numbers for 64 rows of a
  /// column, and one for four nonzeros.
  template <Backend B, class Visit>
  void visit(const B& backend, Index first, Index last, const Visit& visit) const {
    if constexpr (KernelBackend<B>)
      detail::visit_columns(sampler_, backend, first, last, 0, operator_.output_dim, visit);
    else
      for (Index column = first; column < last; ++column)
        detail::reference_column(operator_, column,
                                 [&](Index row, int sign) { visit(column, row, sign < 0); });
  }

 private:
  R operator_;
  decltype(detail::make_sampler(std::declval<const R&>())) sampler_ =
      detail::make_sampler(operator_);
};

PARE_ABI_END
}  // namespace pare::projection

#include <pare/core/macros_on.hpp>
