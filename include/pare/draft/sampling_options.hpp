// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How a law is made of a row of logits: temperature, top-k, top-p, min-p.
///
/// ```cpp
/// const Sampling sampling{.temperature = 0.8, .top_k = 40, .top_p = 0.95};
/// ```
///
/// Steps are taken in this order, each on the law that the one before leaves:
///
/// 1. temperature: p_i ~ e^(z_i / T). T below 1e-5, 0 too: all of the law is on the largest logit.
/// 2. top_k: the k largest logits stay.
/// 3. top_p: from the most probable token on, those stay before which the sum of probabilities is
///    at most top_p. The first always stays.
/// 4. min_p: tokens stay whose probability is at least min_p times the largest one.
///
/// This is the order of Hugging Face's generate; EAGLE takes top-p before top-k, llama.cpp the
/// temperature last. Of equal logits the lower token comes first, so that exactly k stay
/// (Hugging Face keeps all that equal the k-th). A logit of -infinity has probability 0.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <optional>

namespace pare::draft {

/// How a law is made of logits.
struct Sampling {
  double temperature = 1;         ///< finite, at least 0; below 1e-5: the largest logit
  std::optional<Index> top_k{};   ///< at least 1; more than there are: all. Left out: all
  std::optional<double> top_p{};  ///< in (0, 1]; left out: 1
  std::optional<double> min_p{};  ///< in [0, 1]; left out: 0
};

/// Below it a temperature means the largest logit.
inline constexpr double least_temperature = 1e-5;

PARE_ABI_BEGIN

/// \throws std::invalid_argument if an option is out of its range; `function` is named
inline void validate(const char* function, const Sampling& s) {
  check(is_finite(s.temperature) && s.temperature >= 0, function, "temperature", s.temperature,
        "a finite number of at least 0");
  check(!s.top_k || *s.top_k >= 1, function, "top_k", s.top_k.value_or(1), "at least 1");
  check(!s.top_p || (*s.top_p > 0 && *s.top_p <= 1), function, "top_p", s.top_p.value_or(1),
        "above 0 and at most 1");
  check(!s.min_p || (*s.min_p >= 0 && *s.min_p <= 1), function, "min_p", s.min_p.value_or(0),
        "from 0 to 1");
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
