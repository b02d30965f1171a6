// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The k largest of many values in each lane of a register, by a sorting network: what is chosen
/// costs no branch, and as many rows are served at once as a register has lanes.
///
/// Values are turned into integers of the same order whose low bits hold their place, so that a
/// comparison is one minimum and one maximum. What those bits cut off is put right afterwards:
/// the largest are sorted by their values as they are, and a lane in which a value that was left
/// out might be as large as one that was taken is searched again, one value at a time. The result
/// is that of a full sort: larger first, of equal values the lower place first, NaN last.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

namespace pare::kernel {

/// The most values of a lane that are chosen, and that they are chosen from.
inline constexpr std::ptrdiff_t most_largest = 32;
inline constexpr std::ptrdiff_t most_places = 512;

namespace detail {
PARE_ABI_BEGIN

template <class T>
using key_t = std::conditional_t<std::is_same_v<T, float>, std::int32_t, std::int64_t>;

/// Values as keys: order is kept but for what the low bits cut off, and for -0, which comes in the
/// step below 0. A NaN without a sign is above all, and put right with the rest. The place, of Bits
/// bits, stands in them whatever the sign.
template <class Arch, int Bits, class T>
PARE_ALWAYS_INLINE vec<key_t<T>, Arch> key_of(vec<T, Arch> value, std::ptrdiff_t place) noexcept {
  using I = key_t<T>;
  constexpr I high = -(I{1} << Bits);  // all but the low bits
  constexpr I turned = high & std::numeric_limits<I>::max();
  const auto parts =
      [](auto bits, auto sign, auto low, auto of_high, auto of_turned)
          PARE_LAMBDA_INLINE { return ((bits & of_high) | low) ^ (sign & of_turned); };
  if constexpr (is_batch<vec<T, Arch>>) {
    using V = vec<I, Arch>;
    const V bits = xsimd::bitwise_cast<V>(value);
    return parts(bits, bits >> static_cast<int>(8 * sizeof(I) - 1), V(static_cast<I>(place)),
                 V(high), V(turned));
  } else {
    const I bits = __builtin_bit_cast(I, value);
    return parts(bits, static_cast<I>(bits < 0 ? -1 : 0), static_cast<I>(place), high, turned);
  }
}

/// Puts the larger of each pair of lanes first.
template <class Arch, int A, int B, class V, std::size_t N>
PARE_ALWAYS_INLINE void order_pair(V (&v)[N]) noexcept {
  const V smaller = minimum<Arch>(v[A], v[B]);
  v[A] = maximum<Arch>(v[A], v[B]);
  v[B] = smaller;
}

/// Batcher's odd-even merge (AFIPS 1968) of the elements First, First + Step, ... of Count.
template <class Arch, int First, int Count, int Step, class V, std::size_t N>
PARE_ALWAYS_INLINE void merge_halves(V (&v)[N]) noexcept {
  if constexpr (2 * Step < Count) {
    merge_halves<Arch, First, Count, 2 * Step>(v);
    merge_halves<Arch, First + Step, Count, 2 * Step>(v);
    [&]<int... I>(std::integer_sequence<int, I...>) PARE_LAMBDA_INLINE {
      (order_pair<Arch, First + Step + 2 * I * Step, First + 2 * Step + 2 * I * Step>(v), ...);
    }(std::make_integer_sequence<int, (Count / Step - 1) / 2>{});
  } else {
    order_pair<Arch, First, First + Step>(v);
  }
}

/// Sorts each lane, falling.
template <class Arch, int First, int Count, class V, std::size_t N>
PARE_ALWAYS_INLINE void sort_lanes(V (&v)[N]) noexcept {
  if constexpr (Count > 1) {
    sort_lanes<Arch, First, Count / 2>(v);
    sort_lanes<Arch, First + Count / 2, Count / 2>(v);
    merge_halves<Arch, First, Count, 1>(v);
  }
}

/// Sorts lanes that rise and fall once.
template <class Arch, int Distance, class V, std::size_t N>
PARE_ALWAYS_INLINE void sort_bitonic(V (&v)[N]) noexcept {
  if constexpr (Distance > 0) {
    [&]<int... I>(std::integer_sequence<int, I...>) PARE_LAMBDA_INLINE {
      (order_pair<Arch, I / Distance * 2 * Distance + I % Distance,
                  I / Distance * 2 * Distance + I % Distance + Distance>(v),
       ...);
    }(std::make_integer_sequence<int, int(N) / 2>{});
    sort_bitonic<Arch, Distance / 2>(v);
  }
}

/// The Room largest keys of each lane.
template <class Arch, class T, int Bits, int Room>
class LargestKeys {
 public:
  using I = key_t<T>;
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;

  /// Of key(0), ..., key(count - 1), registers made by key_of.
  template <class Key>
  PARE_TILE_INLINE void find(std::ptrdiff_t count, const Key& key) noexcept {
    store<Arch>(static_cast<I*>(left_out_), broadcast<Arch>(least));
    all_ = count <= Room;
    if (count >= 8 * Room)
      find_among_many(count, key);
    else
      for (std::ptrdiff_t begin = 0; begin < count; begin += Room) {
        V v[Room];
        load_keys(v, count, begin, 1, key);
        sort_lanes<Arch, 0, Room>(v);
        if (begin > 0) {
          keep_larger(v, sorted_);
          sort_bitonic<Arch, Room / 2>(v);
        }
        store_all(v, sorted_);
      }
  }

  /// The places of slot `slot`, of all lanes and of one.
  PARE_ALWAYS_INLINE vec<I, Arch> places(std::ptrdiff_t slot) const noexcept {
    return load<Arch>(static_cast<const I*>(sorted_) + slot * n) & broadcast<Arch>(low);
  }
  PARE_ALWAYS_INLINE std::ptrdiff_t place(std::ptrdiff_t slot, std::ptrdiff_t lane) const noexcept {
    return static_cast<std::ptrdiff_t>(sorted_[slot * n + lane] & low);
  }
  /// Whether the k largest values of a lane are among those found. Two values that make one sum, or
  /// 0 and -0, may stand in steps that touch.
  PARE_ALWAYS_INLINE bool holds(std::ptrdiff_t k, std::ptrdiff_t lane) const noexcept {
    return all_ || (left_out_[lane] >> Bits) + 1 < (sorted_[(k - 1) * n + lane] >> Bits);
  }

 private:
  using V = vec<I, Arch>;
  using Each = std::make_integer_sequence<int, Room>;

  /// The larger of two; `dropped` is the largest of what was left out.
  PARE_ALWAYS_INLINE static V take_larger(const V& a, const V& b, V& dropped) noexcept {
    dropped = maximum<Arch>(dropped, minimum<Arch>(a, b));
    return maximum<Arch>(a, b);
  }

  /// Few of the largest keys come from one block, whose keys are taken from all over. So each block
  /// is sorted in quarters and merged to its larger half, and the halves of two blocks are merged
  /// to one, which is taken into what is known. A lane that wanted more of a block is known by what
  /// was left out.
  template <class Key>
  PARE_TILE_INLINE void find_among_many(std::ptrdiff_t count, const Key& key) noexcept {
    alignas(64) I block[static_cast<std::size_t>(Room / 2 * n)];
    const std::ptrdiff_t blocks = (count + Room - 1) / Room;
    for (std::ptrdiff_t s = 0; s < Room; ++s) store<Arch>(sorted_ + s * n, broadcast<Arch>(least));
    for (std::ptrdiff_t b = 0; b < blocks; ++b) {
      V half[Room / 2];
      larger_half(half, count, b, blocks, key);
      if (b % 2 == 0 && b + 1 < blocks) {
        store_all(half, block);
        continue;
      }
      if (b % 2 == 1) {
        keep_larger(half, block);
        sort_bitonic<Arch, Room / 4>(half);
      }
      take_half(half);
    }
  }

  /// The larger half of a block, as far as it lies in the larger halves of its halves, sorted.
  template <class Key>
  PARE_TILE_INLINE void larger_half(V (&half)[Room / 2], std::ptrdiff_t count, std::ptrdiff_t begin,
                                    std::ptrdiff_t step, const Key& key) noexcept {
    V v[Room];
    load_keys(v, count, begin, step, key);
    [&]<int... Q>(std::integer_sequence<int, Q...>) PARE_LAMBDA_INLINE {
      (sort_lanes<Arch, Q * Room / 4, Room / 4>(v), ...);
    }(std::make_integer_sequence<int, 4>{});
    V first[Room / 4], second[Room / 4];
    V dropped = load<Arch>(static_cast<const I*>(left_out_));
    [&]<int... R>(std::integer_sequence<int, R...>) PARE_LAMBDA_INLINE {
      constexpr int q = Room / 4;
      ((first[R] = take_larger(v[R], v[2 * q - 1 - R], dropped)), ...);
      ((second[R] = take_larger(v[2 * q + R], v[4 * q - 1 - R], dropped)), ...);
      sort_bitonic<Arch, q / 2>(first);
      sort_bitonic<Arch, q / 2>(second);
      ((half[R] = first[R], half[2 * q - 1 - R] = second[R]), ...);
    }(std::make_integer_sequence<int, Room / 4>{});
    store<Arch>(static_cast<I*>(left_out_), dropped);
    sort_bitonic<Arch, Room / 4>(half);
  }

  /// Takes Room / 2 sorted keys into those that are known.
  PARE_TILE_INLINE void take_half(const V (&half)[Room / 2]) noexcept {
    V v[Room];
    V dropped = load<Arch>(static_cast<const I*>(left_out_));
    [&]<int... R>(std::integer_sequence<int, R...>) PARE_LAMBDA_INLINE {
      ((v[R] = load<Arch>(static_cast<const I*>(sorted_) + R * n)), ...);
      ((v[Room / 2 + R] =
            take_larger(load<Arch>(static_cast<const I*>(sorted_) + (Room / 2 + R) * n),
                        half[Room / 2 - 1 - R], dropped)),
       ...);
    }(std::make_integer_sequence<int, Room / 2>{});
    store<Arch>(static_cast<I*>(left_out_), dropped);
    sort_bitonic<Arch, Room / 2>(v);
    store_all(v, sorted_);
  }

  template <class Key>
  PARE_ALWAYS_INLINE static void load_keys(V (&v)[Room], std::ptrdiff_t count, std::ptrdiff_t first,
                                           std::ptrdiff_t step, const Key& key) noexcept {
    [&]<int... R>(std::integer_sequence<int, R...>) PARE_LAMBDA_INLINE {
      if (first + (Room - 1) * step < count)
        ((v[R] = key(first + R * step)), ...);
      else
        ((v[R] = first + R * step < count ? key(first + R * step) : broadcast<Arch>(least)), ...);
    }(Each{});
  }

  template <std::size_t N>
  PARE_ALWAYS_INLINE static void store_all(const V (&v)[N], I* to) noexcept {
    [&]<int... R>(std::integer_sequence<int, R...>) PARE_LAMBDA_INLINE {
      (store<Arch>(to + R * n, v[R]), ...);
    }(std::make_integer_sequence<int, int(N)>{});
  }

  /// The larger of v, falling, and of `other`, falling: v rises and falls once then.
  template <std::size_t N>
  PARE_ALWAYS_INLINE void keep_larger(V (&v)[N], const I* other) noexcept {
    V dropped = load<Arch>(static_cast<const I*>(left_out_));
    [&]<int... R>(std::integer_sequence<int, R...>) PARE_LAMBDA_INLINE {
      ((v[R] = take_larger(v[R], load<Arch>(other + (int(N) - 1 - R) * n), dropped)), ...);
    }(std::make_integer_sequence<int, int(N)>{});
    store<Arch>(static_cast<I*>(left_out_), dropped);
  }

  static constexpr I least = std::numeric_limits<I>::min();
  static constexpr I low = (I{1} << Bits) - 1;

  bool all_ = false;
  alignas(64) I sorted_[static_cast<std::size_t>(Room * n)];  ///< [Room x n]
  alignas(64) I left_out_[static_cast<std::size_t>(n)];       ///< the largest of each lane
};

/// Bit l: lane l falls strictly over `count` registers, `stride` apart, and has no NaN. Of one
/// register: has no NaN.
template <class Arch, class T>
PARE_ALWAYS_INLINE std::uint32_t falling_lanes(const T* values, std::ptrdiff_t count,
                                               std::ptrdiff_t stride) noexcept {
  using V = vec<T, Arch>;
  const V first = load<Arch>(values);
  V last = first;
  auto falls = first == last;
  for (std::ptrdiff_t s = 1; s < count; ++s) {
    const V next = load<Arch>(values + s * stride);
    falls = falls & (last > next);
    last = next;
  }
  if constexpr (is_batch<V>)
    return nonzero_lanes<Arch>(xsimd::select(falls, V(T(1)), V(T(0))));
  else
    return falls ? 1 : 0;
}

/// f(std::integral_constant<int, Room>) for the least room that holds k.
template <class F>
PARE_ALWAYS_INLINE void with_room(std::ptrdiff_t k, const F& f) noexcept {
  if (k <= 8)
    f(std::integral_constant<int, 8>{});
  else if (k <= 16)
    f(std::integral_constant<int, 16>{});
  else
    f(std::integral_constant<int, 32>{});
}

PARE_ABI_END
}  // namespace detail
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
