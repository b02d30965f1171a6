// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Random projections whose entries are computed, not stored: R is [output_dim x input_dim], and
/// entry (i, j) is a function of (seed, i, j) in integers alone.
///
/// Every family is scaled so that E||R x||^2 = ||x||^2. The same description gives the same R on
/// every backend, arch, compiler and number of threads. Any part of R can be computed without the
/// parts before it.
///
/// ```cpp
/// SparseProjection sparse{.input_dim = d, .output_dim = k, .seed = 7};   // density 1/sqrt(d)
/// SparseProjection third = achlioptas(d, k, 7);                          // density 1/3
/// SparseSignProjection sign{.input_dim = d, .output_dim = k, .nonzeros = 8, .seed = 7};
/// project(x, sign, y);                                                   // project.hpp: [n x k]
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <cmath>
#include <concepts>
#include <cstdint>
#include <optional>

namespace pare::projection {

PARE_ABI_BEGIN

/// Independent entries: +-1/sqrt(density * output_dim) with probability density/2 each, else 0.
///
/// - density 1/3: Achlioptas, "Database-friendly random projections" (2003);
/// - density 1/sqrt(input_dim), the default: Li, Hastie, Church, "Very sparse random projections"
///   (KDD'06);
/// - density 1: Rademacher.
///
/// Variance: Var||Rx||^2 = (2||x||^4 + (1/density - 3) sum x_i^4) / output_dim. Very sparse
/// operators are thus a poor choice for vectors with few large elements, such as one-hot vectors;
/// use SparseSignProjection there.
///
/// The sampler is our own. The rows of each column are cut into blocks of 64. Philox words of
/// (block, column) give the number of nonzeros, by inversion of the binomial distribution, then
/// their places, by Floyd's algorithm, and their signs.
struct SparseProjection {
  Index input_dim = 0;              ///< columns of R; at least 1
  Index output_dim = 0;             ///< rows of R, in [1, 2^31); may exceed input_dim
  std::optional<double> density{};  ///< in (0, 1]; none: 1/sqrt(input_dim) (Li et al.)
  std::uint64_t seed = 0;           ///< the same seed gives the same R

  /// density or its default; 0 where there is no input.
  double effective_density() const {
    if (density) return *density;
    return input_dim > 0 ? 1.0 / std::sqrt(static_cast<double>(input_dim)) : 0.0;
  }
  /// The magnitude of a nonzero entry; 0 where there can be none.
  double entry_scale() const {
    const double nonzeros = expected_column_nonzeros();
    return nonzeros > 0 ? 1.0 / std::sqrt(nonzeros) : 0.0;
  }
  /// The mean number of nonzeros in a column.
  double expected_column_nonzeros() const {
    return effective_density() * static_cast<double>(output_dim);
  }
};

/// A fixed number of nonzeros in each column, +-1/sqrt(nonzeros) at distinct rows: the sparse
/// Johnson-Lindenstrauss transform (SJLT, OSNAP), also called sparse sign embedding.
///
/// The rows are cut into `nonzeros` groups as equal as can be, and each group holds one nonzero of
/// the column, uniformly placed (block construction of Kane and Nelson). nonzeros = 1 is
/// CountSketch. A one-hot vector keeps its norm exactly; Var||Sx||^2 = 2 (||x||^4 - sum x_i^4) /
/// output_dim for equal groups, whatever `nonzeros` is.
struct SparseSignProjection {
  Index input_dim = 0;     ///< columns of S; at least 1
  Index output_dim = 0;    ///< rows of S, in [1, 2^31)
  Index nonzeros = 8;      ///< per column, in [1, output_dim]; 8 is the usual choice for embeddings
  std::uint64_t seed = 0;  ///< the same seed gives the same S

  /// The magnitude of a nonzero entry; 0 where there is none.
  double entry_scale() const {
    return nonzeros > 0 ? 1.0 / std::sqrt(static_cast<double>(nonzeros)) : 0.0;
  }
  /// The number of nonzeros in a column.
  double expected_column_nonzeros() const { return static_cast<double>(nonzeros); }
};

PARE_ABI_END

/// R of Achlioptas, density 1/3. Its members are checked where it is used.
inline SparseProjection achlioptas(Index input_dim, Index output_dim, std::uint64_t seed = 0) {
  return {.input_dim = input_dim, .output_dim = output_dim, .density = 1.0 / 3.0, .seed = seed};
}

/// R of Li, Hastie and Church, density 1/sqrt(input_dim). Its members are checked where it is used.
inline SparseProjection very_sparse(Index input_dim, Index output_dim, std::uint64_t seed = 0) {
  return {.input_dim = input_dim, .output_dim = output_dim, .density = {}, .seed = seed};
}

namespace detail {
PARE_ABI_BEGIN

template <class R>
void check_dims(const char* function, const R& r) {
  check(r.input_dim >= 1, function, "input_dim", r.input_dim, "at least 1");
  check(r.output_dim >= 1 && r.output_dim < (Index{1} << 31), function, "output_dim", r.output_dim,
        "at least 1 and below 2^31");
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Checks the members; messages name `function`.
/// \throws std::invalid_argument if a member is out of its range.
inline void validate(const char* function, const SparseProjection& r) {
  detail::check_dims(function, r);
  const double p = r.effective_density();
  check(is_finite(p) && p > 0 && p <= 1, function, "density", p, "a density in (0, 1]");
}

/// Checks the members; messages name `function`.
/// \throws std::invalid_argument if a member is out of its range.
inline void validate(const char* function, const SparseSignProjection& r) {
  detail::check_dims(function, r);
  check(r.nonzeros >= 1 && r.nonzeros <= r.output_dim, function, "nonzeros", r.nonzeros,
        Worded{"at least 1 and at most output_dim, ", r.output_dim});
}

PARE_ABI_END

/// A random operator described by a few numbers: the two structs above. `project` and the others
/// generate the entries of these two only.
template <class R>
concept RandomOperator = requires(const R& r) {
  { r.input_dim } -> std::convertible_to<Index>;
  { r.output_dim } -> std::convertible_to<Index>;
  { r.entry_scale() } -> std::convertible_to<double>;
  { r.expected_column_nonzeros() } -> std::convertible_to<double>;
  validate("", r);
};

}  // namespace pare::projection

#include <pare/core/macros_on.hpp>
