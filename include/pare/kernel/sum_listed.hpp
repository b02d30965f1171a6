// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Weighted sums of the values that rows list (listed_window.hpp).

#include <pare/core/macros_off.hpp>

#include <pare/kernel/listed_window.hpp>
#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace pare::kernel {

/// out_r += sum over the entries of each group of weight_j v_j.
template <ComputeScalar T>
struct SumListed {
  ListedWindow<T> window{};
  ListedFetch fetch{};
  const T* weights = nullptr;  ///< of all rows
  T* out = nullptr;            ///< [rows x window.columns]
};

namespace detail {
PARE_ABI_BEGIN

/// Sums of a column that run side by side, since a product waits for the one before it.
inline constexpr std::size_t listed_sums(std::size_t registers) noexcept {
  return registers <= 2 ? 4 : registers <= 4 ? 2 : 1;
}

/// `Registers` registers of out from column c on, with the entries of a group.
template <class Arch, bool Whole, std::size_t Registers, class T>
PARE_TILE_INLINE void sum_group_columns(const ListedWindow<T>& window, const ListedGroup& group,
                                        const T* weights, std::ptrdiff_t c, T* out) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr std::size_t side = listed_sums(Registers);
  constexpr auto registers = std::make_index_sequence<Registers>{};
  V sums[side * Registers];
  for (V& sum : sums) sum = broadcast<Arch>(T(0));
  const T* const data = window.data + c;
  const std::uint16_t* const places = window.places + group.entry;
  const auto add = [&]<std::size_t... R>(std::size_t s, const V& weight, std::ptrdiff_t place,
                                         std::index_sequence<R...>) PARE_LAMBDA_INLINE {
    const T* const value = data + place * window.columns;
    ((sums[s * Registers + R] = multiply_add<Arch>(
          load<Arch>(value + static_cast<std::ptrdiff_t>(R) * n), weight, sums[s * Registers + R])),
     ...);
  };
  if constexpr (Whole) {
    [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
      constexpr auto width = static_cast<std::size_t>(n);
      constexpr auto together = static_cast<std::size_t>(places_together);
      const V all[] = {load<Arch>(weights + I / width * width)...};
      const std::uint64_t words[] = {load_places(places + I / together * together)...};
      (add(I % side, spread_lane<Arch, I % width>(all[I], weights + I / width * width),
           place_of(words[I], I % together), registers),
       ...);
    }(std::make_index_sequence<static_cast<std::size_t>(listed_group)>{});
  } else {
    std::ptrdiff_t j = 0;
    for (; j + places_together <= group.count; j += places_together)
      [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
        const std::uint64_t word = load_places(places + j);
        (add(I % side, broadcast<Arch>(weights[j + static_cast<std::ptrdiff_t>(I)]),
             place_of(word, I), registers),
         ...);
      }(std::make_index_sequence<static_cast<std::size_t>(places_together)>{});
    for (; j < group.count; ++j)
      add(std::size_t{0}, broadcast<Arch>(weights[j]), places[j], registers);
  }
  [&]<std::size_t... R>(std::index_sequence<R...>) PARE_LAMBDA_INLINE {
    const auto total = [&](std::size_t r) PARE_LAMBDA_INLINE {
      if constexpr (side == 4)
        return (sums[r] + sums[Registers + r]) +
               (sums[2 * Registers + r] + sums[3 * Registers + r]);
      else if constexpr (side == 2)
        return sums[r] + sums[Registers + r];
      else
        return sums[r];
    };
    T* const at = out + c;
    (store<Arch>(
         at + static_cast<std::ptrdiff_t>(R) * n,
         load<Arch>(static_cast<const T*>(at) + static_cast<std::ptrdiff_t>(R) * n) + total(R)),
     ...);
  }(registers);
}

/// The columns from c on, at most `Registers` registers of them.
template <class Arch, bool Whole, std::size_t Registers, class T>
PARE_TILE_INLINE void sum_last_columns(const ListedWindow<T>& window, const ListedGroup& group,
                                       const T* weights, std::ptrdiff_t c, T* out) noexcept {
  if constexpr (Registers > 0) {
    if (window.columns - c == static_cast<std::ptrdiff_t>(Registers) * lanes<T, Arch>)
      return sum_group_columns<Arch, Whole, Registers>(window, group, weights, c, out);
    sum_last_columns<Arch, Whole, Registers - 1>(window, group, weights, c, out);
  }
}

/// All columns, with the entries of a group, which is whole or not.
template <class Arch, bool Whole, class T>
PARE_TILE_INLINE void sum_group(const ListedWindow<T>& window, const ListedGroup& group,
                                const T* weights, T* out) noexcept {
  constexpr std::size_t most = Arch::registers >= 32 ? 8 : 4;
  constexpr std::ptrdiff_t width = static_cast<std::ptrdiff_t>(most) * lanes<T, Arch>;
  std::ptrdiff_t c = 0;
  for (; c + width <= window.columns; c += width)
    sum_group_columns<Arch, Whole, most>(window, group, weights, c, out);
  sum_last_columns<Arch, Whole, most - 1>(window, group, weights, c, out);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const SumListed<T>& a) noexcept {
  const ListedWindow<T> window = a.window;  // in registers
  detail::ListedAhead<T> ahead(window, a.fetch, a.weights);
  for (std::ptrdiff_t g = 0; g < window.count; ++g) {
    ahead.advance(g);
    const ListedGroup group = window.groups[g];
    const T* const weights = a.weights + group.entry;
    T* const out = a.out + group.row * window.columns;
    if (group.count == listed_group)
      detail::sum_group<Arch, true>(window, group, weights, out);
    else
      detail::sum_group<Arch, false>(window, group, weights, out);
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
