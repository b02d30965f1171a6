// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Scores of the keys that rows list (listed_window.hpp).

#include <pare/core/macros_off.hpp>

#include <pare/kernel/direct_product.hpp>
#include <pare/kernel/listed_window.hpp>
#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

namespace pare::kernel {

/// The scores <q_r, k_j> of the entries of each group. What is written behind the entries of a
/// group is meant to be written again by the next.
template <ComputeScalar T>
struct ScoreListed {
  ListedWindow<T> window{};
  ListedFetch fetch{};
  const T* queries = nullptr;  ///< [rows x window.columns]
  T* scores = nullptr;         ///< of all rows
};

namespace detail {
PARE_ABI_BEGIN

/// Whether a query of so many registers stays in registers, beside a sum for each of the keys that
/// are scored together; else it is loaded again for each key.
template <class Arch>
inline constexpr bool holds_query(std::size_t registers, std::size_t keys) noexcept {
  return registers > 0 && registers + keys < static_cast<std::size_t>(Arch::registers);
}

/// Scores of a register of entries, a register of sums for each. Those behind the group are of
/// others, whose places hold what they may.
template <class Arch, std::size_t Held, class T>
PARE_TILE_INLINE void score_entries(const T* data, std::ptrdiff_t columns,
                                    const std::uint16_t* places, const T* query,
                                    const vec<T, Arch> (&held)[Held == 0 ? 1 : Held],
                                    T* scores) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr auto keys = std::make_index_sequence<static_cast<std::size_t>(n)>{};
  V sums[static_cast<std::size_t>(n)];
  constexpr auto together = static_cast<std::size_t>(places_together);
  std::uint64_t words[(static_cast<std::size_t>(n) + together - 1) / together];
  for (std::size_t w = 0; w < std::size(words); ++w) words[w] = load_places(places + w * together);
  const auto key_at = [&](std::size_t i) PARE_LAMBDA_INLINE {
    return data + place_of(words[i / together], i % together) * columns;
  };
  const auto each = [&]<std::size_t... I>(const auto& f, std::index_sequence<I...>)
                        PARE_LAMBDA_INLINE { (f(I), ...); };
  if constexpr (Held > 0) {
    each(
        [&](std::size_t i) PARE_LAMBDA_INLINE {
          const T* const key = key_at(i);
          sums[i] = load<Arch>(key) * held[0];
          [&]<std::size_t... R>(std::index_sequence<R...>) PARE_LAMBDA_INLINE {
            ((sums[i] = multiply_add<Arch>(load<Arch>(key + static_cast<std::ptrdiff_t>(R + 1) * n),
                                           held[R + 1], sums[i])),
             ...);
          }(std::make_index_sequence<Held - 1>{});
        },
        keys);
  } else {
    for (V& sum : sums) sum = broadcast<Arch>(T(0));
    for (std::ptrdiff_t c = 0; c < columns; c += n) {
      const V q = load<Arch>(query + c);
      each(
          [&](std::size_t i) PARE_LAMBDA_INLINE {
            sums[i] = multiply_add<Arch>(load<Arch>(key_at(i) + c), q, sums[i]);
          },
          keys);
    }
  }
  store<Arch>(scores, sum_lanes_of_each<Arch>(sums));
}

/// Scores of all groups, by whole registers of entries.
template <class Arch, std::size_t Held, class T>
void score_groups(const ScoreListed<T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static_assert(listed_group % n == 0);
  const ListedWindow<T> window = a.window;  // in registers
  constexpr auto known = static_cast<std::ptrdiff_t>(Held) * n;
  const std::ptrdiff_t columns = Held > 0 ? known : window.columns;
  ListedAhead<T> ahead(window, a.fetch, a.scores);
  for (std::ptrdiff_t g = 0; g < window.count; ++g) {
    ahead.advance(g);
    const ListedGroup group = window.groups[g];
    const T* const query = a.queries + group.row * columns;
    vec<T, Arch> held[Held == 0 ? 1 : Held];
    for (std::size_t i = 0; i < Held; ++i)
      held[i] = load<Arch>(query + static_cast<std::ptrdiff_t>(i) * n);
    for (std::ptrdiff_t j = 0; j < (n == listed_group ? 1 : group.count); j += n)
      score_entries<Arch, Held>(window.data, columns, window.places + group.entry + j, query, held,
                                a.scores + group.entry + j);
  }
}

/// The same with as many registers of the query held as there are, of some numbers.
template <class Arch, std::size_t Held, std::size_t... More, class T>
PARE_TILE_INLINE void score_groups_as(const ScoreListed<T>& a,
                                      std::index_sequence<Held, More...>) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  if constexpr (holds_query<Arch>(Held, static_cast<std::size_t>(n)))
    if (a.window.columns == static_cast<std::ptrdiff_t>(Held) * n)
      return score_groups<Arch, Held>(a);
  if constexpr (sizeof...(More) > 0)
    score_groups_as<Arch>(a, std::index_sequence<More...>{});
  else
    score_groups<Arch, 0>(a);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const ScoreListed<T>& a) noexcept {
  detail::score_groups_as<Arch>(a, std::index_sequence<2, 4, 8>{});
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
