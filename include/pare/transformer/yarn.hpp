// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// YaRN: rotary frequencies for contexts longer than a model was trained on.
///
/// ```cpp
/// const Yarn yarn{.factor = 40, .trained_context = 4096};         // DeepSeek-V3
/// const RotaryTable<float> table(yarn_frequencies(64, yarn), 163840);
/// const double m = yarn_magnitude(yarn.factor, 1);                // the scale of q.k grows by m^2
/// ```
///
/// Pairs that turn often within the trained context keep their frequency, those that turn less than
/// once have it divided by `factor`, and those between are mixed:
///
///     corr(turns) = dims ln(trained_context / (2 pi turns)) / (2 ln base)
///     low = max(floor(corr(beta_fast)), 0), high = min(ceil(corr(beta_slow)), dims - 1)
///     ramp_i = clamp((i - low) / (high - low), 0, 1), of pair i; where high <= low, low + 0.001
///     frequency_i = base^(-2i / dims) (1 - ramp_i + ramp_i / factor)
///
/// Scores are multiplied by m^2, m = 0.1 mscale ln(factor) + 1. Some models multiply cosines and
/// sines by m (`Yarn::magnitude`), others the factor of q.k by m^2 (DeepSeek); both would apply it
/// twice. Source: Peng et al., "YaRN", 2023, sections 3.2 to 3.4, with the rounding of `low` and
/// `high` as in DeepSeek-V3's inference code, which uses it only beyond the trained context. Ours:
/// a `high` below `low`, which its code would turn round.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

namespace pare::transformer {

/// Options of yarn_frequencies.
struct Yarn {
  /// The context over the trained one, finite and at least 1; 1 changes nothing. 40 in DeepSeek-V3.
  double factor = 1;

  /// Tokens that the model was trained on, at least 1. 4096 in DeepSeek-V3.
  Index trained_context = 4096;

  /// Turns within the trained context from which a pair keeps its frequency, and up to which it has
  /// all of it divided: above 0, beta_slow at most beta_fast. Of the paper and DeepSeek.
  double beta_fast = 32;
  double beta_slow = 1;

  /// Of cosines and sines, finite and above 0. 1 where scores are scaled instead, as in DeepSeek;
  /// `yarn_magnitude(factor, mscale)` elsewhere, over `yarn_magnitude(factor, mscale_all_dim)`
  /// where a checkpoint of Hugging Face has that.
  double magnitude = 1;
};

/// m = 0.1 mscale ln(factor) + 1, or 1 for a factor of at most 1.
///
/// \param factor finite, above 0
/// \param mscale finite, at least 0; 1 in the paper and DeepSeek-V3, 0.707 in DeepSeek-V2-Lite
/// \throws std::invalid_argument if one is out of its range
inline double yarn_magnitude(double factor, double mscale = 1) {
  constexpr const char* function = "transformer::yarn_magnitude";
  check(is_finite(factor) && factor > 0, function, "factor", factor, "a finite number above 0");
  check(is_finite(mscale) && mscale >= 0, function, "mscale", mscale,
        "a finite number of at least 0");
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

namespace detail {
PARE_ABI_BEGIN

inline void check_yarn(const char* function, const Yarn& yarn) {
  const auto positive = [&](const char* name, double x) {
    check(is_finite(x) && x > 0, function, name, x, "a finite number above 0");
  };
  check(is_finite(yarn.factor) && yarn.factor >= 1, function, "factor", yarn.factor,
        "a finite number of at least 1");
  check(yarn.trained_context >= 1, function, "trained_context", yarn.trained_context, "at least 1");
  positive("beta_fast", yarn.beta_fast);
  positive("beta_slow", yarn.beta_slow);
  check(yarn.beta_slow <= yarn.beta_fast, function, "beta_slow", yarn.beta_slow,
        "at most beta_fast");
  positive("magnitude", yarn.magnitude);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The frequencies of pairs i < dims / 2, as the file says, for a RotaryTable.
///
/// \param dims numbers of a row that are turned, even and at least 2
/// \param base above 1 and finite
/// \throws std::invalid_argument if one is out of its range, or an option of its own
inline RotaryFrequencies yarn_frequencies(Index dims, const Yarn& yarn, double base = 10000) {
  constexpr const char* function = "transformer::yarn_frequencies";
  check(dims >= 2 && dims % 2 == 0, function, "dims", dims, "an even number of at least 2");
  check(is_finite(base) && base > 1, function, "base", base, "a finite number above 1");
  detail::check_yarn(function, yarn);
  const auto pair_of = [&](double turns) {
    const double longest =
        static_cast<double>(yarn.trained_context) / (turns * 2 * std::numbers::pi);
    return static_cast<double>(dims) * std::log(longest) / (2 * std::log(base));
  };
  // Behind the last pair, where it changes nothing, and finite.
  const double low =
      std::clamp(std::floor(pair_of(yarn.beta_fast)), 0.0, static_cast<double>(dims));
  double high = std::min(std::ceil(pair_of(yarn.beta_slow)), static_cast<double>(dims - 1));
  if (high <= low) high = low + 0.001;
  RotaryFrequencies result = rotary_frequencies(dims, base);
  for (Index i = 0; i < dims / 2; ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    result.frequencies[static_cast<std::size_t>(i)] *= 1 - ramp + ramp / yarn.factor;
  }
  result.scale = yarn.magnitude;
  return result;
}

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
