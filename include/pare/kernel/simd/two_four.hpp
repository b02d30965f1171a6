// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Operations of the vector layer for 2:4 weights: which two of four stay, and the inputs that they
/// are multiplied by, side by side.
///
/// ```cpp
/// const std::uint32_t bits = two_largest<Arch>(scores);         // two in each four
/// index_kept<Arch>(words, count, indices);
/// const auto places = kept_places<Arch, float>(indices, 0);
/// const auto x = take_kept<Arch, float>(load_groups<Arch>(p), places);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd/archs.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel {
namespace detail {
PARE_ABI_BEGIN

/// Of four numbers the two largest as bits; of equal ones the first.
template <class T>
PARE_ALWAYS_INLINE std::uint32_t two_largest_of(const T* x) noexcept {
  std::uint32_t kept = 0;
  for (int i = 0; i < 4; ++i) {
    int larger = 0;
    for (int k = 0; k < 4; ++k) larger += k < i ? x[k] >= x[i] : x[k] > x[i];
    kept |= static_cast<std::uint32_t>(larger < 2) << i;
  }
  return kept;
}

template <class Arch, class V>
PARE_ALWAYS_INLINE std::uint32_t generic_two_largest(V v) noexcept {
  constexpr std::ptrdiff_t n = lanes<lane_t<V>, Arch>;
  lane_t<V> x[static_cast<std::size_t>(n)];
  store<Arch>(static_cast<lane_t<V>*>(x), v);
  std::uint32_t kept = 0;
  for (std::ptrdiff_t i = 0; i < n; i += 4)
    kept |= two_largest_of(static_cast<const lane_t<V>*>(x) + i) << i;
  return kept;
}

/// Of a group whose kept two are the bits of its number: the lower index, and the higher one
/// times 4. 0 where not two are.
inline constexpr std::uint8_t kept_indices[16] = {0, 0,  0,  4, 0,  8, 9, 0,
                                                  0, 12, 13, 0, 14, 0, 0, 0};

inline void generic_index_kept(const std::uint16_t* words, std::ptrdiff_t count,
                               std::uint8_t* indices) noexcept {
  for (std::ptrdiff_t w = 0; w < count; ++w)
    for (int half = 0; half < 2; ++half) {
      const unsigned groups = static_cast<unsigned>(words[w] >> 8 * half) & 255u;
      indices[2 * w + half] =
          static_cast<std::uint8_t>(kept_indices[groups & 15u] | kept_indices[groups >> 4] << 4);
    }
}

/// Indices of 2 bits, the first of them lowest, of as many values as a register holds.
template <class Arch, class T>
PARE_ALWAYS_INLINE unsigned generic_kept_places(const std::uint8_t* indices,
                                                std::ptrdiff_t value) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  unsigned bits = static_cast<unsigned>(indices[value / 4]) >> value % 4 * 2;
  for (std::ptrdiff_t i = 4; i < n; i += 4)
    bits |= static_cast<unsigned>(indices[value / 4 + i / 4]) << 2 * i;
  return bits;
}

template <class Arch, class T>
PARE_ALWAYS_INLINE vec<T, Arch> generic_take_kept(const T* x, unsigned places) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  T kept[static_cast<std::size_t>(n)];
  for (std::ptrdiff_t i = 0; i < n; ++i) kept[i] = x[i / 2 * 4 + (places >> 2 * i & 3u)];
  return load<Arch>(static_cast<const T*>(kept));
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Bit i: lane i is one of the two largest of its four; of equal ones the lower lanes are. Lanes
/// are a multiple of four and none is a NaN.
template <class Arch, class V>
PARE_ALWAYS_INLINE std::uint32_t two_largest(V v) noexcept {
  static_assert(lanes<detail::lane_t<V>, Arch> % 4 == 0);
  if constexpr (requires { detail::two_largest_on(Arch{}, v); })
    return detail::two_largest_on(Arch{}, v);
  else
    return detail::generic_two_largest<Arch>(v);
}

/// Writes those 8 of 16 numbers whose bits are set, in their order: two for each four bits. Of more
/// bits, which NaN have, no more than 8 are written.
template <class Arch, StorageScalar S>
PARE_ALWAYS_INLINE void compress_eight(const S* p, std::uint32_t bits, S* out) noexcept {
  if constexpr (requires { detail::compress_eight_on(Arch{}, p, bits, out); })
    detail::compress_eight_on(Arch{}, p, bits, out);
  else
    for (int i = 0; i < 8 && bits != 0; ++i, bits &= bits - 1) out[i] = p[__builtin_ctz(bits)];
}

/// Whether an arch has keep_sixty_four.
template <class Arch, class S>
inline constexpr bool has_keep_sixty_four =
    requires(const S* w, std::uint16_t* words, S* values, vec<compute_t<S>, Arch>& zeros) {
      detail::keep_sixty_four_on<true, true>(Arch{}, w, w, words, values, zeros);
    };

/// Of 64 numbers the two of each four with the largest |w| factor (of weights that are not Weighed,
/// |w|), of equal ones the lower: four words of a mask and 32 values. zeros += w 0. Streaming:
/// values are at a cache line and stored past the caches. Only where an arch has it.
template <class Arch, bool Weighed, bool Streaming, class S>
PARE_ALWAYS_INLINE void keep_sixty_four(const S* w, const compute_t<S>* factors,
                                        std::uint16_t* words, S* values,
                                        vec<compute_t<S>, Arch>& zeros) noexcept {
  static_assert(has_keep_sixty_four<Arch, S>);
  detail::keep_sixty_four_on<Weighed, Streaming>(Arch{}, w, factors, words, values, zeros);
}

/// Two indices of 2 bits for each group of four inputs, those of the two bits that are set in its
/// four: the lower one in the lower bits, a byte for two groups. Of a group without two, 0.
/// \param words [count] of 16 bits, four groups each
/// \param indices [2 count], written; behind them up to 62 zeros more
template <class Arch>
PARE_ALWAYS_INLINE void index_kept(const std::uint16_t* words, std::ptrdiff_t count,
                                   std::uint8_t* indices) noexcept {
  if constexpr (requires { detail::index_kept_on(Arch{}, words, count, indices); })
    detail::index_kept_on(Arch{}, words, count, indices);
  else
    detail::generic_index_kept(words, count, indices);
}

/// The groups of four that two of each are taken from, as many as make a register: registers of
/// them where an arch permutes those, or the pointer. Of one lane, the group that it is in.
template <class Arch, ComputeScalar T>
PARE_ALWAYS_INLINE auto load_groups(const T* x) noexcept {
  if constexpr (requires { detail::load_groups_on(Arch{}, x); })
    return detail::load_groups_on(Arch{}, x);
  else
    return x;
}

/// The same groups, held in registers: g++ would load them again for each use.
template <class Groups>
PARE_ALWAYS_INLINE Groups held_groups(Groups groups) noexcept {
#if defined(__GNUC__) && defined(__x86_64__)
  if constexpr (requires { groups.low, groups.high; })
    __asm__("" : "+v"(groups.low), "+v"(groups.high));
#endif
  return groups;
}

/// Where a register of kept inputs of T is taken from: indices as index_kept writes them, of values
/// from `value` on, a multiple of the lanes.
template <class Arch, ComputeScalar T>
PARE_ALWAYS_INLINE auto kept_places(const std::uint8_t* indices, std::ptrdiff_t value) noexcept {
  constexpr const T* of = nullptr;
  if constexpr (requires { detail::kept_places_on(Arch{}, of, indices); })
    return detail::kept_places_on(Arch{}, of, indices + value / 4);
  else
    return detail::generic_kept_places<Arch, T>(indices, value);
}

/// The two of each of the groups, in a register.
template <class Arch, ComputeScalar T, class Groups, class Places>
PARE_ALWAYS_INLINE vec<T, Arch> take_kept(const Groups& groups, const Places& places) noexcept {
  if constexpr (requires { detail::take_kept_on(Arch{}, groups, places); })
    return detail::take_kept_on(Arch{}, groups, places);
  else
    return detail::generic_take_kept<Arch, T>(groups, places);
}

/// out [16] = the 8 values, widened, where `word` has a bit, two in each four, and zeros elsewhere.
template <class Arch, class S, ComputeScalar T>
PARE_ALWAYS_INLINE void expand_kept(const S* values, unsigned word, T* out) noexcept {
  if constexpr (requires { detail::expand_kept_on(Arch{}, values, word, out); }) {
    detail::expand_kept_on(Arch{}, values, word, out);
  } else {
    for (int i = 0; i < 16; ++i) out[i] = T(0);
    for (; word != 0; word &= word - 1) out[__builtin_ctz(word)] = static_cast<T>(*values++);
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
