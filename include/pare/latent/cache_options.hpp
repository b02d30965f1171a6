// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of the caches of latent-KV attention.
///
/// ```cpp
/// const LatentCacheOptions options{.latent = 512, .rope = 64, .pages = 1024, .page_size = 64};
/// LatentCache<bf16> cache(options);
/// LatentCache<bf16, RopePlace::Apart> apart(options);
/// const bool stored_as_rotated = cache.rope_state() == RopeState::Rotated;  // true, the default
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>

#include <type_traits>

namespace pare::latent {

/// Where the rotary key of a token lies.
enum class RopePlace {
  InRow,  ///< behind its latent: keys and values are read where they lie
  Apart,  ///< in pages of its own: latents are contiguous, keys are put together when read
};

/// Whether the rotary keys of a cache are rotated by their positions.
enum class RopeState { Rotated, Unrotated };

/// What a cache of S takes: S, or what S is computed in, which is then rounded.
template <class X, class S>
concept CacheScalar = std::is_same_v<X, S> || std::is_same_v<X, compute_t<S>>;

PARE_ABI_BEGIN

/// What a LatentCache holds. The three that have no valid default must be given.
struct LatentCacheOptions {
  Index latent = 0;      ///< d_c, at least 1
  Index rope = 0;        ///< d_r, even; 0: there are no rotary keys
  Index pages = 0;       ///< at least 1
  Index page_size = 64;  ///< tokens of a page, at least 1
  Index sequences = 1;   ///< empty ones to begin with; `add` and `fork` make more
  RopeState rope_state = RopeState::Rotated;

  /// These options. \throws std::invalid_argument if a size of a row is out of its range
  const LatentCacheOptions& validate(const char* function) const {
    check(latent >= 1, function, "latent", latent, "at least 1");
    check(rope >= 0 && rope % 2 == 0, function, "rope", rope, "an even number of at least 0");
    check_enumerator(function, "rope_state", rope_state, RopeState::Unrotated);
    checked_sum(function, "latent", latent, rope);
    return *this;
  }
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
