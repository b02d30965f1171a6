// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Philox4x32-10 for many counters at once; the same bits as pare::philox, one at a time.

#include <pare/core/macros_off.hpp>

#include <pare/core/random.hpp>
#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel {

/// Replaces counters by their random words, in place: four arrays [count], one for each of the four
/// words, each word in the low half of a 64-bit lane. Arrays do not overlap.
///
/// Cost for one counter: 20 multiplications of 32 x 32 bits, nothing read or written beyond the
/// arrays. Bound by the multiplier (one register of products a cycle).
struct PhiloxWords {
  std::uint64_t* c0 = nullptr;
  std::uint64_t* c1 = nullptr;
  std::uint64_t* c2 = nullptr;
  std::uint64_t* c3 = nullptr;
  std::ptrdiff_t count = 0;
  std::uint32_t key0 = 0;
  std::uint32_t key1 = 0;
};

namespace detail {
PARE_ABI_BEGIN

/// Ten rounds on a register of counters. High halves fill with left-overs of the products, which
/// the next multiplication ignores; only the end masks them.
template <class Arch, class V>
PARE_ALWAYS_INLINE void philox_rounds(V& c0, V& c1, V& c2, V& c3, PhiloxKey key) noexcept {
  using P = PhiloxConstants;
  const V m0 = broadcast<Arch>(std::uint64_t{P::multiplier0});
  const V m1 = broadcast<Arch>(std::uint64_t{P::multiplier1});
  for (int round = 0; round < P::rounds; ++round) {
    const V p0 = multiply_low_words<Arch>(c0, m0);
    const V p1 = multiply_low_words<Arch>(c2, m1);
    c0 = high_words<Arch>(p1) ^ c1 ^ broadcast<Arch>(std::uint64_t{key.k0});
    c2 = high_words<Arch>(p0) ^ c3 ^ broadcast<Arch>(std::uint64_t{key.k1});
    c1 = p1;
    c3 = p0;
    key.k0 += P::weyl0;
    key.k1 += P::weyl1;
  }
  const V low = broadcast<Arch>(std::uint64_t{0xffffffffu});
  c0 = c0 & low;
  c1 = c1 & low;
  c2 = c2 & low;
  c3 = c3 & low;
}

template <class Arch>
PARE_ALWAYS_INLINE void philox_at(const PhiloxWords& a, std::ptrdiff_t i) noexcept {
  auto c0 = load<Arch>(static_cast<const std::uint64_t*>(a.c0 + i));
  auto c1 = load<Arch>(static_cast<const std::uint64_t*>(a.c1 + i));
  auto c2 = load<Arch>(static_cast<const std::uint64_t*>(a.c2 + i));
  auto c3 = load<Arch>(static_cast<const std::uint64_t*>(a.c3 + i));
  philox_rounds<Arch>(c0, c1, c2, c3, PhiloxKey(a.key0, a.key1));
  store<Arch>(a.c0 + i, c0);
  store<Arch>(a.c1 + i, c1);
  store<Arch>(a.c2 + i, c2);
  store<Arch>(a.c3 + i, c3);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch>
void run_kernel(Arch, const PhiloxWords& a) noexcept {
  constexpr std::ptrdiff_t step = lanes<std::uint64_t, Arch>;
  std::ptrdiff_t i = 0;
  for (; i + step <= a.count; i += step) detail::philox_at<Arch>(a, i);
  for (; i < a.count; ++i) detail::philox_at<arch::scalar>(a, i);
}
PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
