// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of FastRP (fast_rp.hpp).
///
/// ```cpp
/// FastRpOptions options{.dim = 128, .weights = {0, 1, 1, 0.5}, .degree_exponent = -0.5};
/// options.progress = [](int step, int steps) { std::printf("step %d of %d\n", step, steps); };
/// auto embedding = fast_rp(adjacency, options);                // 4 steps
/// auto like_neo4j = fast_rp(adjacency, gds_defaults(128));
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace pare::graph {

/// Which degree divides a row and enters the degree power.
enum class Degree {
  Weighted,  ///< sum of the weights of a row (the paper)
  Count      ///< number of entries of a row (Neo4j GDS)
};

PARE_ABI_BEGIN

/// Options of `fast_rp`. Defaults are those of the authors' code; `gds_defaults()` gives Neo4j's.
struct FastRpOptions {
  /// Columns of the embedding, at least 1. The paper's experiments use 512.
  Index dim = 512;

  /// Weights of steps 1, 2, ...: finite, 1 to 999,999 of them. The last weight that is not 0
  /// belongs to the last step that runs. [0, 0, 1, 6.67] is the authors' choice for BlogCatalog.
  /// Graphs with long paths need more steps.
  std::vector<double> weights = {0, 0, 1, 6.67};

  /// Exponent of the degree in the starting vectors, beta: negative values damp hubs. Finite.
  double degree_exponent = 0;

  /// Scale each step's rows to unit length before they are added (not before they propagate).
  bool normalize_rows = true;

  /// Shift and scale each column of the result to mean 0 and population variance 1. A column that
  /// is constant, up to 4 epsilon of the scalar, becomes 0.
  bool standardize = true;

  /// Put the weighted steps side by side, [nodes x steps * dim], instead of adding them; what the
  /// authors' code does when it is given no weights.
  bool concatenate = false;

  /// Density of the random operator, in (0, 1]; not given: 1/sqrt(nodes) (the authors' code).
  std::optional<double> density{};

  /// See Degree. A node without edges starts from 0 if the exponent is not 0 (weighted), or from
  /// its random vector (count).
  Degree degree = Degree::Weighted;

  /// Weight of a node's own starting vector in the result, at least 0, and 0 with `concatenate`;
  /// keeps nodes without edges from being zero. Neo4j's nodeSelfInfluence.
  double self_influence = 0;

  /// Share of the dimensions that start from projected node features, in [0, 1]: floor(dim * ratio)
  /// of them, the last ones. Neo4j's propertyRatio; needs features.
  double feature_ratio = 0;

  /// Same seed, same embedding.
  std::uint64_t seed = 42;

  /// Called after each step, from the calling thread, with the step just done and their number.
  std::function<void(int step, int steps)> progress{};

  /// The number of steps that run: up to the last weight that is not 0.
  Index steps() const {
    Index last = static_cast<Index>(weights.size());
    while (last > 0 && weights[static_cast<std::size_t>(last - 1)] == 0) --last;
    return last;
  }
  /// Dimensions that start from features. \throws std::invalid_argument if dim or feature_ratio is
  /// out of range.
  Index feature_dim() const {
    check(dim >= 1 && dim < (Index{1} << 31), "graph::FastRpOptions", "dim", dim,
          "at least 1, below 2^31");
    check(is_finite(feature_ratio) && feature_ratio >= 0 && feature_ratio <= 1,
          "graph::FastRpOptions", "feature_ratio", feature_ratio, "a share in [0, 1]");
    return static_cast<Index>(std::floor(static_cast<double>(dim) * feature_ratio));
  }
  /// Columns of the result. \throws std::invalid_argument if Index cannot count them.
  Index output_columns() const {
    if (!concatenate) return dim;
    return checked_product("graph::FastRpOptions", "dim", dim, static_cast<Index>(weights.size()));
  }
};

PARE_ABI_END

/// The defaults of Neo4j's Graph Data Science for `dim` columns: weights [0, 1, 1], density 1/3,
/// degrees counted without weights, no standardisation. Its random numbers are different, so
/// vectors agree in distribution only. `dim` is not checked here.
inline FastRpOptions gds_defaults(Index dim) {
  FastRpOptions options;
  options.dim = dim;
  options.weights = {0, 1, 1};
  options.density = 1.0 / 3.0;
  options.degree = Degree::Count;
  options.standardize = false;
  return options;
}

PARE_ABI_BEGIN

/// Checks the options; messages name `function`.
/// \throws std::invalid_argument if a member is out of its range.
inline void validate(const char* function, const FastRpOptions& o) {
  check(o.dim >= 1 && o.dim < (Index{1} << 31), function, "dim", o.dim, "at least 1, below 2^31");
  check(!o.weights.empty(), function, "weights", "none", "at least one weight");
  check(o.weights.size() < 1'000'000, function, "weights", o.weights.size(),
        "fewer than a million");
  for (const double w : o.weights) check(is_finite(w), function, "weights", w, "finite weights");
  check(is_finite(o.degree_exponent), function, "degree_exponent", o.degree_exponent, "finite");
  if (o.density)
    check(is_finite(*o.density) && *o.density > 0 && *o.density <= 1, function, "density",
          *o.density, "a density in (0, 1]");
  check_enumerator(function, "degree", o.degree, Degree::Count);
  check(is_finite(o.self_influence) && o.self_influence >= 0, function, "self_influence",
        o.self_influence, "a finite weight, at least 0");
  check(is_finite(o.feature_ratio) && o.feature_ratio >= 0 && o.feature_ratio <= 1, function,
        "feature_ratio", o.feature_ratio, "a share in [0, 1]");
  check(!o.concatenate || o.self_influence == 0, function, "self_influence", o.self_influence,
        "0 when steps are concatenated");
}

PARE_ABI_END

}  // namespace pare::graph

#include <pare/core/macros_on.hpp>
