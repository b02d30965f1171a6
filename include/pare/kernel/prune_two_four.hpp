// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A block of columns of SparseGPT: of each four weights of a row two go, and what each of them did
/// is made up for by the weights behind it.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace pare::kernel {

PARE_ABI_BEGIN

/// The most columns of a block of PruneTwoFour.
inline constexpr std::ptrdiff_t most_pruned_columns = 256;

PARE_ABI_END

/// For each row: of each four columns the two with the smallest |w_i| / u_ii go, of equal ones the
/// higher. One that goes has the error e = w_i / u_ii, and w_j -= e u_ij for all j > i of the
/// block.
///
/// Cost: 2 columns FLOPs for each weight that goes and lies in the block, a chain in a row: an
/// error waits for the one before. Everything but the weights stays in L2.
template <class T>
struct PruneTwoFour {
  const T* weights = nullptr;  ///< [rows x columns]
  std::ptrdiff_t weight_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;  ///< a multiple of 4, at most most_pruned_columns
  /// [columns x upper_stride], zeros left of the diagonal and behind column `columns`
  const T* upper = nullptr;
  std::ptrdiff_t upper_stride = 0;  ///< columns, rounded up to a multiple of 16
  const T* inverse = nullptr;       ///< [columns] 1 / u_ii
  std::uint16_t* words = nullptr;   ///< [rows x ceil(columns / 16)], written
  std::ptrdiff_t word_stride = 0;
  T* values = nullptr;  ///< [rows x 8 ceil(columns / 16)], written; zeros behind the last
  std::ptrdiff_t value_stride = 0;
  T* errors = nullptr;  ///< [rows x columns], written: -e, 0 where a weight stays
  std::ptrdiff_t error_stride = 0;
};

namespace detail {
PARE_ABI_BEGIN

/// One row of a PruneTwoFour.
template <class Arch, class T>
class PrunedRow {
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static_assert(16 % n == 0);

 public:
  PrunedRow(const PruneTwoFour<T>& a, std::ptrdiff_t row) noexcept
      : a_(a), errors_(a.errors + row * a.error_stride) {
    const T* const w = a.weights + row * a.weight_stride;
    std::fill(std::copy(w, w + a.columns, w_), w_ + a.upper_stride, T(0));
  }

  void prune(std::uint16_t* words, T* values) noexcept {
    for (std::ptrdiff_t begin = 0; begin < a_.columns; begin += 16) {
      const std::ptrdiff_t end = std::min<std::ptrdiff_t>(begin + 16, a_.columns);
      std::uint32_t bits = 0;
      for (std::ptrdiff_t i = begin; i < end; i += 4) bits |= prune_group(i) << (i - begin);
      *words++ = static_cast<std::uint16_t>(bits);
      std::ptrdiff_t kept = 0;
      for (; bits != 0; bits &= bits - 1) values[kept++] = w_[begin + __builtin_ctz(bits)];
      for (; kept < 8; ++kept) values[kept] = T(0);
      values += 8;
    }
  }

 private:
  std::uint32_t prune_group(std::ptrdiff_t first) noexcept {
    T score[4];
    for (std::ptrdiff_t k = 0; k < 4; ++k) {
      const T share = w_[first + k] * a_.inverse[first + k];
      score[k] = share < T(0) ? -share : share > T(0) ? share : T(0);  // of NaN 0: two stay
    }
    const std::uint32_t bits = two_largest_of(static_cast<const T*>(score));
    for (std::ptrdiff_t k = 0; k < 4; ++k) {
      const bool stays = (bits >> k & 1u) != 0;
      errors_[first + k] = stays ? T(0) : remove(first + k);
    }
    return bits;
  }

  /// Makes up for a weight that goes; returns -e.
  T remove(std::ptrdiff_t i) noexcept {
    const T error = -(w_[i] * a_.inverse[i]);
    const vec<T, Arch> share = broadcast<Arch>(error);
    const T* const upper = a_.upper + i * a_.upper_stride;
    for (std::ptrdiff_t j = i / n * n; j < a_.upper_stride; j += n)
      store<Arch>(w_ + j, multiply_add<Arch>(share, load<Arch>(upper + j),
                                             load<Arch>(static_cast<const T*>(w_) + j)));
    return error;
  }

  const PruneTwoFour<T>& a_;
  T* errors_;
  alignas(64) T w_[most_pruned_columns];
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const PruneTwoFour<T>& a) noexcept {
  for (std::ptrdiff_t row = 0; row < a.rows; ++row)
    detail::PrunedRow<Arch, T>(a, row).prune(a.words + row * a.word_stride,
                                             a.values + row * a.value_stride);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
