// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sampling by keyed noise (Gumbel-max): the token is a function of the logits, a seed and the
/// position, and so the same however the logits came to be.
///
///     y = argmax_i z_i / T + G(seed, position, i),   G = -log(-log u)
///
/// ```cpp
/// const std::int32_t token = keyed_sample(logits, {.temperature = 0.8}, {.seed = 3}, position);
/// ```
///
/// Over seeds, y has the law e^(z_i / T) / sum (Gumbel 1954; Maddison et al., "A* sampling", 2014).
/// Draft trees that are verified with it (verify.hpp) give exactly the tokens that sampling one by
/// one gives with the same seed, whatever the tree: nodes of one depth share their noise, and at
/// most one of them is used.
///
/// G is that of core/gumbel.hpp, on every backend; `sample` of a head (head.hpp) draws by the same.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/gumbel.hpp>
#include <pare/core/random.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/sampling.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace pare::draft {

/// What coins are a function of, beside the position.
struct CoinKey {
  std::uint64_t seed = 0;
};

PARE_ABI_BEGIN

/// Uniform numbers in [0, 1), one after the other: a function of (seed, position) and their count.
/// A position is that of the first token which the round may commit, so that rounds share no coin.
class Coins {
 public:
  explicit Coins(CoinKey key, Index position) : key_(key.seed), position_(position) {}

  double operator()() {
    const auto p = static_cast<std::uint64_t>(position_);
    // "COIN": apart from Gumbel noise of the same seed and position.
    const PhiloxCounter w = philox(
        {count_++, static_cast<std::uint32_t>(p), static_cast<std::uint32_t>(p >> 32), 0x434f494eu},
        key_);
    return to_unit_double(w[0], w[1]);
  }

 private:
  PhiloxKey key_;
  Index position_;
  std::uint32_t count_ = 0;
};

/// The token that keyed noise chooses.
///
/// \param backend  left out: pare::simd; the token does not depend on it
/// \param logits   [vocabulary], any stride
/// \param sampling as sampling.hpp says; below its least temperature, the largest logit
/// \param position of the token that is chosen; any number
/// \returns the token; of equal sums the lowest
/// \throws std::invalid_argument as token_law
///
/// Cost: a Philox for two tokens and two logarithms for each that top-k, top-p and min-p leave.
/// Memory: with one of these, 12 bytes for each token, kept in the backend's workspace; else none.
template <Backend B, LogitRow Z>
std::int32_t keyed_sample(const B& backend, const Z& logits, const Sampling& sampling,
                          GumbelNoise noise, Index position) {
  constexpr const char* function = "draft::keyed_sample";
  using T = compute_t<scalar_of<Z>>;
  const auto z = as_const(to_vector_view(logits));
  validate(function, sampling);
  check_view(function, "logits", z);
  std::int32_t best = detail::checked_argmax(function, z, sampling.temperature);
  if (sampling.temperature < least_temperature) return best;
  const bool cut = sampling.top_k || sampling.top_p || sampling.min_p;
  const auto law = leased<std::vector<double>>(backend);
  if (cut) {
    law->resize(static_cast<std::size_t>(z.extent[0]));
    detail::law_of(z, best, sampling, *law, *leased<std::vector<std::int32_t>>(backend));
  }
  double most = -std::numeric_limits<double>::infinity();
  for (Index i = 0; i < z.extent[0]; ++i) {
    if (cut && !((*law)[static_cast<std::size_t>(i)] > 0)) continue;
    const double scaled = static_cast<double>(static_cast<T>(z(i))) / sampling.temperature;
    // No G is above 36.8, which is 53 log 2: far logits need none.
    if (scaled + 37 <= most) continue;
    const double sum = scaled + noise.at(position, static_cast<std::uint32_t>(i));
    if (sum > most) {
      most = sum;
      best = static_cast<std::int32_t>(i);
    }
  }
  return best;
}
/// \overload
template <LogitRow Z>
std::int32_t keyed_sample(const Z& logits, const Sampling& sampling, GumbelNoise noise,
                          Index position) {
  return keyed_sample(simd, logits, sampling, noise, position);
}

PARE_REFUSE_CALLS(keyed_sample, "draft::keyed_sample",
                  "wanted logits, Sampling, members spelt and ordered as declared, GumbelNoise and "
                  "a position",
                  (PLAIN, (roles::Takes<detail::IsLogitRow>), "logits",
                   "[vocabulary] of float, double, bf16 or f16 in memory: one row, as a range, a "
                   "vector or row of Eigen's, or a view of rank 1"),
                  (ANY, (roles::TakesAny), "sampling", "Sampling"),
                  (ANY, (roles::TakesAny), "noise", "GumbelNoise"),
                  (ANY, (roles::TakesAny), "position", "a number"))

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
