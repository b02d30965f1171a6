// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Random words that are a function of (seed, step, stream, purpose) and their place alone: draws
/// of a training loop that no backend and no thread can change.
///
/// ```cpp
/// WordStream words(step_key(seed, step, field, RandomPurpose::Values));
/// const std::uint32_t donor = words.below(rows);  // uniform in [0, rows)
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/random.hpp>

#include <cstddef>
#include <cstdint>

namespace pare {

/// Keeps draws of different kinds apart.
enum class RandomPurpose : std::uint32_t {
  Shifts = 0x53484946u,
  Base = 0x42415345u,
  Permutation = 0x5045524du,
  GateNoise = 0x47415445u,
  Values = 0x56414c55u,
  Presence = 0x50524553u,
};

PARE_ABI_BEGIN

/// Four words of (seed, step, stream, purpose).
constexpr PhiloxCounter step_words(std::uint64_t seed, std::uint64_t step, std::uint32_t stream,
                                   RandomPurpose purpose) noexcept {
  return philox({static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(step >> 32), stream,
                 static_cast<std::uint32_t>(purpose)},
                PhiloxKey(seed));
}

/// The key that those four words give.
constexpr PhiloxKey step_key(std::uint64_t seed, std::uint64_t step, std::uint32_t stream,
                             RandomPurpose purpose) noexcept {
  const PhiloxCounter words = step_words(seed, step, stream, purpose);
  return PhiloxKey(words[0], words[1]);
}

/// Words 0, 1, 2, ... under a key.
class WordStream {
 public:
  explicit WordStream(PhiloxKey key) : key_(key) {}

  /// The next word, scaled to [0, n).
  std::uint32_t below(std::uint32_t n) {
    if (used_ == 4) {
      block_ = philox({count_++, 0, 0, 0}, key_);
      used_ = 0;
    }
    return scale_to_range(block_[used_++], n);
  }

 private:
  PhiloxKey key_;
  PhiloxCounter block_{};
  std::uint32_t count_ = 0;
  std::size_t used_ = 4;
};

PARE_ABI_END
}  // namespace pare

#include <pare/core/macros_on.hpp>
