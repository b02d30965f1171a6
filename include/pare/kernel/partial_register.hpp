// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The elements behind the last whole register of a row, in a register of their own: they get the
/// bits that they would get anywhere else in it.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {
PARE_ABI_BEGIN

/// The first `count` lanes from memory, widened, the others `fill`. count is below `lanes`.
template <class Arch, StorageScalar S>
PARE_ALWAYS_INLINE vec<compute_t<S>, Arch> load_first(const S* p, std::ptrdiff_t count,
                                                      compute_t<S> fill) noexcept {
  using T = compute_t<S>;
  if constexpr (requires { detail::load_first_on(Arch{}, p, count, broadcast<Arch>(fill)); }) {
    return detail::load_first_on(Arch{}, p, count, broadcast<Arch>(fill));
  } else {
    T values[static_cast<std::size_t>(lanes<T, Arch>)];
    store<Arch>(static_cast<T*>(values), broadcast<Arch>(fill));
    for (std::ptrdiff_t i = 0; i < count; ++i) values[i] = static_cast<T>(p[i]);
    return load<Arch>(static_cast<const T*>(values));
  }
}

/// Stores the first `count` lanes, narrowed. count is below `lanes`.
template <class Arch, StorageScalar O>
PARE_ALWAYS_INLINE void store_first(O* p, std::ptrdiff_t count,
                                    vec<compute_t<O>, Arch> v) noexcept {
  constexpr std::ptrdiff_t n = lanes<compute_t<O>, Arch>;
  O values[static_cast<std::size_t>(n)];
  store_narrowed<Arch>(static_cast<O*>(values), v);
  for (std::ptrdiff_t i = 0; i < count; ++i) p[i] = values[i];
}

/// Calls body(i) for the whole registers of [0, size), four in a turn (or one, of a long body),
/// then rest(i, count) for the elements behind them, if there are any.
template <std::ptrdiff_t Lanes, bool Long = false, class Body, class Rest>
PARE_ALWAYS_INLINE void for_row(std::ptrdiff_t size, const Body& body, const Rest& rest) noexcept {
  std::ptrdiff_t i = 0;
  if constexpr (!Long)
    for (; i + 4 * Lanes <= size; i += 4 * Lanes) {
      body(i);
      body(i + Lanes);
      body(i + 2 * Lanes);
      body(i + 3 * Lanes);
    }
  for (; i + Lanes <= size; i += Lanes) body(i);
  if (i < size) rest(i, size - i);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
