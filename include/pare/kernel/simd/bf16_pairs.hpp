// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Pairs of bf16 in the vector layer, held as lanes of 32 bits, and their products: for an arch
/// that has_bf16_dot.
///
/// ```cpp
/// sum = multiply_add_pairs<Arch>(load_pairs<Arch>(row, next_row), pairs, sum);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd/archs.hpp>

#include <cstddef>

namespace pare::kernel {
PARE_ABI_BEGIN

/// c + a0 * b0 + a1 * b1 in each lane, for pairs of bf16 held as 32 bits. Rounds as the instruction
/// does (subnormals count as 0); only where the arch has_bf16_dot.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> multiply_add_pairs(vec<float, Arch> a, vec<float, Arch> b,
                                                       vec<float, Arch> c) noexcept {
  static_assert(Arch::has_bf16_dot, "pare: this arch has no bf16 products");
  if constexpr (requires { detail::multiply_add_pairs_on(Arch{}, a, b, c); })
    return detail::multiply_add_pairs_on(Arch{}, a, b, c);
  else
    return a + b + c;
}

/// Pairs (a_i, b_i) of two rows of bf16, held as 32 bits; only where the arch has_bf16_dot.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> load_pairs(const bf16* a, const bf16* b) noexcept {
  static_assert(Arch::has_bf16_dot, "pare: this arch has no bf16 products");
  if constexpr (requires { detail::load_pairs_on(Arch{}, a, b); })
    return detail::load_pairs_on(Arch{}, a, b);
  else
    return broadcast<Arch>(static_cast<float>(*a) + static_cast<float>(*b));
}

/// The same for two registers of columns.
template <class Arch>
PARE_ALWAYS_INLINE void load_pairs(const bf16* a, const bf16* b, vec<float, Arch>& first,
                                   vec<float, Arch>& second) noexcept {
  if constexpr (requires { detail::load_pairs_on(Arch{}, a, b, first, second); }) {
    detail::load_pairs_on(Arch{}, a, b, first, second);
  } else {
    first = load_pairs<Arch>(a, b);
    second = load_pairs<Arch>(a + lanes<float, Arch>, b + lanes<float, Arch>);
  }
}

/// The same of rows in registers, as load_first_words leaves them.
template <class Arch>
PARE_ALWAYS_INLINE void pair_words(vec<float, Arch> a, vec<float, Arch> b, vec<float, Arch>& first,
                                   vec<float, Arch>& second) noexcept {
  static_assert(Arch::has_bf16_dot, "pare: this arch has no bf16 products");
  if constexpr (requires { detail::pair_words_on(Arch{}, a, b, first, second); })
    detail::pair_words_on(Arch{}, a, b, first, second);
  else
    first = second = a + b;
}

/// The first `count` bf16 from memory, up to two of them in a lane, and zeros behind them; only
/// where the arch has_bf16_dot.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> load_first_words(const bf16* p, std::ptrdiff_t count) noexcept {
  static_assert(Arch::has_bf16_dot, "pare: this arch has no bf16 products");
  if constexpr (requires { detail::load_first_words_on(Arch{}, p, count); })
    return detail::load_first_words_on(Arch{}, p, count);
  else
    return broadcast<Arch>(count > 0 ? static_cast<float>(*p) : 0.0f);
}

/// Rounds two registers to bf16 as store_rounded of one does, stores them one behind the other, and
/// returns the pairs that were stored. Only where the arch has_bf16_dot.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> store_rounded(bf16* p, vec<float, Arch> first,
                                                  vec<float, Arch> second) noexcept {
  static_assert(Arch::has_bf16_dot, "pare: this arch has no bf16 products");
  if constexpr (requires { detail::store_rounded_on(Arch{}, p, first, second); })
    return detail::store_rounded_on(Arch{}, p, first, second);
  else
    return first + second;
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
