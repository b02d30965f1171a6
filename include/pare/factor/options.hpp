// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of the factorizations.
///
/// ```cpp
/// truncated_svd(w, {.rank = 128, .accuracy = Accuracy::High, .split = Split::Both});
/// truncated_svd(w, {.rank = 256, .tolerance = 0.05});   // least rank of error 0.05, at most 256
/// elementwise_svd(w, f, {.rank = 64, .sweeps = 50, .restarts = 3});
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

namespace pare::factor {

/// A side of W [out x in] in y = W x. It is never called row or column: half of the papers write
/// Y = X W, where W is the other way round.
enum class Axis { Input, Output };

/// Which factor carries the singular values s of W in the metric. All choices have the same
/// product; those that divide by s leave out directions in which s is 0.
enum class Split {
  Natural,  ///< without a division: Left where no input is weighed, Right elsewhere (metric.hpp)
  Left,     ///< left carries s
  Both,     ///< each carries sqrt(s)
  Right,    ///< right carries s
};

/// How the dominant subspace is found; svd.hpp has the rule of Auto.
enum class Route { Auto, Randomized, Gram, Exact };

/// The random test matrix of Route::Randomized.
enum class Sketch {
  Gaussian,
  Sparse,  ///< a sparse sign embedding of projection/
};

/// How close the result comes to the best factors of the rank. Excess: metric error over the least
/// possible, minus 1.
enum class Accuracy {
  Standard,  ///< excess at most 0.003, by estimate of what another step would gain
  High,      ///< excess at most 1e-4
};

/// Which of its two possible signs each pair of singular vectors gets.
enum class Signs {
  AsFound,  ///< as the route leaves it: the same for the same input, not for nearly the same
  Fixed,    ///< the element of largest size in each row of the right factor is positive; of equal
            ///< ones the first
};

/// Options of every truncated singular value decomposition.
struct SvdOptions {
  /// Rank k in [1, min(out, in)]. With a tolerance: the largest rank allowed; left out then:
  /// min(out, in). One of both must be given.
  std::optional<Index> rank{};

  /// Relative metric error in (0, 1): the result has the least rank that reaches it. Left out:
  /// `rank` is the rank. Tolerances that rounding hides are refused. The least ones allowed are
  /// 1e-6 for factors in float and 2e-14 in double; 1e-3 and 5e-8 for sparse matrices and
  /// operators; 2e-7 with a covariance or with weights on both sides. In float, directions below
  /// 1e-6 of the largest value are 0 in splits that divide by it, so that a tolerance near the
  /// least may be missed where there are many of them; `relative_error` says what was reached.
  std::optional<double> tolerance{};

  /// Directions that a route keeps beyond the rank while it iterates, at least 0; left out: by
  /// rule.
  std::optional<Index> oversample{};

  /// Power iterations, at least 0; left out: by rule, then as many more as the accuracy needs (at
  /// most 100 in all).
  std::optional<int> steps{};

  Accuracy accuracy = Accuracy::Standard;
  Route route = Route::Auto;
  Split split = Split::Natural;
  Sketch sketch = Sketch::Sparse;
  Signs signs = Signs::AsFound;

  /// Seed of the random test matrix; the same seed gives the same bits.
  std::uint64_t seed = 0;
};

/// Solvers of the element-wise weighted problem, which has no closed form.
enum class ElementwiseMethod {
  Als,  ///< alternating least squares: rows of the left factor, then columns of the right
  Em,   ///< X <- the best rank-k approximation of P.*W + (1 - P).*X with P = F / max F
};

/// Options of the element-wise weighted problem.
struct ElementwiseOptions {
  Index rank = 0;   ///< k in [1, min(out, in)]
  int sweeps = 20;  ///< the most sweeps that run, at least 0
  ElementwiseMethod method = ElementwiseMethod::Als;

  /// Stops after a sweep that lowers the loss by no more than this share of it; at least 0, and 0
  /// stops where nothing is gained.
  double tolerance = 1e-4;

  /// Random starts besides the first, at least 0; the result with the least loss is returned. Local
  /// minima differ: half of small problems have a better one than the first start leads to. Each
  /// start takes as long as the first.
  int restarts = 0;

  /// Seed of the random starts.
  std::uint64_t seed = 0;
};

PARE_ABI_BEGIN

/// The largest rank that the options allow for W [out x in].
inline Index rank_limit(const SvdOptions& options, Index out, Index in) {
  return options.rank.value_or(std::min(out, in));
}

/// \throws std::invalid_argument if W [out x in] is empty, or a member is out of its range.
inline void validate(const char* function, const SvdOptions& o, Index out, Index in) {
  check(out >= 1 && in >= 1, function, "w", std::array<Index, 2>{out, in}, "extents of at least 1");
  if (o.tolerance)
    check(is_finite(*o.tolerance) && *o.tolerance > 0 && *o.tolerance < 1, function, "tolerance",
          *o.tolerance, "a relative error in (0, 1)");
  check(o.rank || o.tolerance, function, "rank", "none", "a rank or a tolerance");
  if (o.rank)
    check(*o.rank >= 1 && *o.rank <= std::min(out, in), function, "rank", *o.rank,
          Worded{"1 to min(out, in), ", std::min(out, in)});
  if (o.oversample) check(*o.oversample >= 0, function, "oversample", *o.oversample, "at least 0");
  if (o.steps) check(*o.steps >= 0, function, "steps", *o.steps, "at least 0");
  check_enumerator(function, "accuracy", o.accuracy, Accuracy::High);
  check_enumerator(function, "route", o.route, Route::Exact);
  check_enumerator(function, "split", o.split, Split::Right);
  check_enumerator(function, "sketch", o.sketch, Sketch::Sparse);
  check_enumerator(function, "signs", o.signs, Signs::Fixed);
}

/// Refuses a tolerance that rounding does not allow; `wanted` says which it does.
inline void check_tolerance(const char* function, std::optional<double> tolerance, double least,
                            const char* wanted) {
  if (tolerance) check(*tolerance >= least, function, "tolerance", *tolerance, wanted);
}

/// \throws std::invalid_argument if W [out x in] is empty, or a member is out of its range.
inline void validate(const char* function, const ElementwiseOptions& o, Index out, Index in) {
  check(out >= 1 && in >= 1, function, "w", std::array<Index, 2>{out, in}, "extents of at least 1");
  check(o.rank >= 1 && o.rank <= std::min(out, in), function, "rank", o.rank,
        Worded{"1 to min(out, in), ", std::min(out, in)});
  check(o.sweeps >= 0, function, "sweeps", o.sweeps, "at least 0");
  check(o.restarts >= 0, function, "restarts", o.restarts, "at least 0");
  check(is_finite(o.tolerance) && o.tolerance >= 0, function, "tolerance", o.tolerance,
        "a number of at least 0");
  check_enumerator(function, "method", o.method, ElementwiseMethod::Em);
}

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
