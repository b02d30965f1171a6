// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A short list that falls: larger values first, of equal ones the lower id, NaN last.

#include <pare/core/macros_off.hpp>

#include <pare/core/scalar.hpp>

#include <cstddef>

namespace pare::kernel {
PARE_ABI_BEGIN

/// Whether a value stands before another one in that order.
template <class T>
PARE_ALWAYS_INLINE bool stands_before(T a, std::ptrdiff_t a_place, T b,
                                      std::ptrdiff_t b_place) noexcept {
  if (a > b || b > a) return a > b;
  const bool a_last = is_nan(a), b_last = is_nan(b);
  return a_last == b_last ? a_place < b_place : b_last;
}

/// The k largest of some values, of equal ones the lower id first, for k > 0, in lists whose
/// elements are `step` apart: what a lane's network found is put right by it.
///
/// Each value is inserted where it belongs: O(k) per offer, and one comparison for a value that
/// stands behind all of a full list.
template <class E, class Id>
class FallingList {
 public:
  FallingList(std::ptrdiff_t k, E* best, Id* ids, std::ptrdiff_t step) noexcept
      : k_(k), best_(best), ids_(ids), step_(step) {}

  void offer(E x, Id id) noexcept {
    if (kept_ == k_ && !before(x, id, k_ - 1)) return;
    std::ptrdiff_t at = kept_ < k_ ? kept_++ : k_ - 1;
    for (; at > 0 && before(x, id, at - 1); --at) {
      best_[at * step_] = best_[(at - 1) * step_];
      ids_[at * step_] = ids_[(at - 1) * step_];
    }
    best_[at * step_] = x;
    ids_[at * step_] = id;
  }
  /// The same of one that may be in the list, which is full.
  void offer_again(E x, Id id) noexcept {
    if (!before(x, id, k_ - 1)) return;
    for (std::ptrdiff_t i = 0; i < k_; ++i)
      if (ids_[i * step_] == id) return;
    offer(x, id);
  }

 private:
  bool before(E x, Id id, std::ptrdiff_t at) const noexcept {
    return stands_before(x, id, best_[at * step_], ids_[at * step_]);
  }

  std::ptrdiff_t k_;
  E* best_;
  Id* ids_;
  std::ptrdiff_t step_;
  std::ptrdiff_t kept_ = 0;
};

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
