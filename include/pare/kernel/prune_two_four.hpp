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

/// For each row of W and s = D R, D = W - What, of the columns in front: with U = R^-1 of a group
/// of four columns, their weights are w + s U. The two of them with the smallest |w_i| / u_ii go,
/// of equal ones the higher; one that goes has the error e = w_i / u_ii, and w_j -= e u_ij for the
/// others behind it. Then D of the group is known, and s += D R for all columns behind it.
///
/// As many rows as a register has lanes are pruned together, each in a lane of its own, turned so
/// that a column is a register. Cost: columns FLOPs for each weight, which bind: four multiply-adds
/// for a load and a store. Weights and sums are loaded and turned once.
template <class T>
struct PruneTwoFour {
  T* weights = nullptr;  ///< [rows x columns] W; D takes its place
  std::ptrdiff_t weight_stride = 0;
  const T* sums = nullptr;  ///< [rows x columns] s
  std::ptrdiff_t sum_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;  ///< a multiple of 4, at most most_pruned_columns
  const T* upper = nullptr;    ///< [columns x upper_stride] R, the upper triangle
  std::ptrdiff_t upper_stride = 0;
  const T* inverses = nullptr;     ///< [columns x 4] U of each group, the upper triangle
  std::uint16_t* words = nullptr;  ///< [rows x ceil(columns / 16)], written
  std::ptrdiff_t word_stride = 0;
  T* values = nullptr;  ///< [rows x 8 ceil(columns / 16)], written; zeros behind the last
  std::ptrdiff_t value_stride = 0;
};

namespace detail {
PARE_ABI_BEGIN

template <class V, class Condition>
PARE_ALWAYS_INLINE V pruned_choice(Condition condition, V yes, V no) noexcept {
  if constexpr (is_batch<V>)
    return xsimd::select(condition, yes, no);
  else
    return condition ? yes : no;
}

/// Rows of a PruneTwoFour, one in each lane.
template <class Arch, class T>
class PrunedRows {
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static_assert(16 % n == 0);
  using V = vec<T, Arch>;

 public:
  PrunedRows(const PruneTwoFour<T>& a, std::ptrdiff_t row) noexcept
      : a_(a), row_(row), rows_(a.rows - row < n ? a.rows - row : n) {
    turn(a.weights, a.weight_stride, w_);
    turn(a.sums, a.sum_stride, s_);
  }

  void prune() noexcept {
    for (std::ptrdiff_t begin = 0; begin < a_.columns; begin += 16) {
      const std::ptrdiff_t end = std::min<std::ptrdiff_t>(begin + 16, a_.columns);
      V word = broadcast<Arch>(T(0));
      for (std::ptrdiff_t i = begin; i < end; i += 4)
        word = word + broadcast<Arch>(static_cast<T>(1 << (i - begin))) * prune_group(i);
      store<Arch>(static_cast<T*>(words_), word);
      if (end - begin == 16)
        keep_word(begin);
      else
        keep_last(begin, end);
    }
  }

 private:
  void turn(const T* from, std::ptrdiff_t stride, T* to) noexcept {
    std::ptrdiff_t j = 0;
    for (; j + n <= a_.columns; j += n) {
      V square[static_cast<std::size_t>(n)];
      for (std::ptrdiff_t o = 0; o < n; ++o)
        square[o] = o < rows_ ? load<Arch>(from + (row_ + o) * stride + j) : broadcast<Arch>(T(0));
      transpose_block<Arch>(square);
      for (std::ptrdiff_t i = 0; i < n; ++i) store<Arch>(to + (j + i) * n, square[i]);
    }
    for (; j < a_.columns; ++j)
      for (std::ptrdiff_t o = 0; o < n; ++o)
        to[j * n + o] = o < rows_ ? from[(row_ + o) * stride + j] : T(0);
  }

  V at(const T* turned, std::ptrdiff_t column) const noexcept {
    return load<Arch>(turned + column * n);
  }

  /// Prunes a group; returns the bits of what stays.
  V prune_group(std::ptrdiff_t first) noexcept {
    const T* const inverse = a_.inverses + 4 * first;
    const V zero = broadcast<Arch>(T(0));
    V w[4], size[4];
    for (std::ptrdiff_t k = 0; k < 4; ++k) {
      w[k] = at(w_, first + k);
      for (std::ptrdiff_t l = 0; l <= k; ++l)
        w[k] = multiply_add<Arch>(at(s_, first + l), broadcast<Arch>(inverse[4 * l + k]), w[k]);
      const V error = w[k] / broadcast<Arch>(inverse[5 * k]);
      const V positive = pruned_choice(error < zero, zero - error, error);
      size[k] = pruned_choice(positive > zero, positive, zero);  // of NaN 0: two stay
    }
    V bits = zero, change[4];
    for (std::ptrdiff_t k = 0; k < 4; ++k) {
      V larger = zero;
      for (std::ptrdiff_t l = 0; l < 4; ++l)
        if (l < k)
          larger = larger + pruned_choice(size[l] < size[k], zero, broadcast<Arch>(T(1)));
        else
          larger = larger + pruned_choice(size[l] > size[k], broadcast<Arch>(T(1)), zero);
      const auto stays = larger < broadcast<Arch>(T(2));
      bits = bits + pruned_choice(stays, broadcast<Arch>(static_cast<T>(1 << k)), zero);
      const V error = pruned_choice(stays, zero, zero - w[k] / broadcast<Arch>(inverse[5 * k]));
      for (std::ptrdiff_t l = k + 1; l < 4; ++l)
        w[l] = multiply_add<Arch>(error, broadcast<Arch>(inverse[4 * k + l]), w[l]);
      w[k] = pruned_choice(stays, w[k], zero);
      change[k] = at(w_, first + k) - w[k];
      store<Arch>(w_ + (first + k) * n, change[k]);
      store<Arch>(s_ + (first + k) * n, w[k]);
    }
    pass_on(first, change);
    return bits;
  }

  void pass_on(std::ptrdiff_t first, const V (&change)[4]) noexcept {
    const T* const upper = a_.upper + first * a_.upper_stride;
    const std::ptrdiff_t stride = a_.upper_stride;
    for (std::ptrdiff_t j = first + 4; j < a_.columns; ++j) {
      V s = at(s_, j);
      s = multiply_add<Arch>(change[0], broadcast<Arch>(upper[j]), s);
      s = multiply_add<Arch>(change[1], broadcast<Arch>(upper[stride + j]), s);
      s = multiply_add<Arch>(change[2], broadcast<Arch>(upper[2 * stride + j]), s);
      s = multiply_add<Arch>(change[3], broadcast<Arch>(upper[3 * stride + j]), s);
      store<Arch>(s_ + j * n, s);
    }
  }

  /// Writes what stays of 16 columns, and D.
  void keep_word(std::ptrdiff_t begin) noexcept {
    alignas(64) T kept[static_cast<std::size_t>(16 * n)];
    for (std::ptrdiff_t j = 0; j < 16; j += n) {
      V stays[static_cast<std::size_t>(n)], change[static_cast<std::size_t>(n)];
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        stays[i] = at(s_, begin + j + i);
        change[i] = at(w_, begin + j + i);
      }
      transpose_block<Arch>(stays);
      transpose_block<Arch>(change);
      for (std::ptrdiff_t o = 0; o < n; ++o) store<Arch>(kept + 16 * o + j, stays[o]);
      for (std::ptrdiff_t o = 0; o < rows_; ++o) store<Arch>(weights_at(begin + j, o), change[o]);
    }
    for (std::ptrdiff_t o = 0; o < rows_; ++o)
      compress_eight<Arch>(static_cast<const T*>(kept) + 16 * o, write_word(begin, o),
                           values_at(begin, o));
  }

  /// The same of fewer.
  void keep_last(std::ptrdiff_t begin, std::ptrdiff_t end) noexcept {
    for (std::ptrdiff_t o = 0; o < rows_; ++o) {
      std::uint32_t bits = write_word(begin, o);
      T* const values = values_at(begin, o);
      for (std::ptrdiff_t i = 0; i < 8; ++i, bits &= bits - 1)
        values[i] = bits != 0 ? s_[(begin + __builtin_ctz(bits)) * n + o] : T(0);
      for (std::ptrdiff_t j = begin; j < end; ++j) *weights_at(j, o) = w_[j * n + o];
    }
  }

  std::uint32_t write_word(std::ptrdiff_t begin, std::ptrdiff_t o) noexcept {
    const auto bits = static_cast<std::uint32_t>(words_[o]);
    a_.words[(row_ + o) * a_.word_stride + begin / 16] = static_cast<std::uint16_t>(bits);
    return bits;
  }
  T* values_at(std::ptrdiff_t begin, std::ptrdiff_t o) const noexcept {
    return a_.values + (row_ + o) * a_.value_stride + begin / 2;
  }
  T* weights_at(std::ptrdiff_t column, std::ptrdiff_t o) const noexcept {
    return a_.weights + (row_ + o) * a_.weight_stride + column;
  }

  const PruneTwoFour<T>& a_;
  std::ptrdiff_t row_, rows_;
  // Turned: a column is a register. W, then D; s, then What.
  alignas(64) T w_[most_pruned_columns * n], s_[most_pruned_columns * n];
  alignas(64) T words_[static_cast<std::size_t>(n)];  ///< of 16 columns, whole numbers
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const PruneTwoFour<T>& a) noexcept {
  for (std::ptrdiff_t row = 0; row < a.rows; row += lanes<T, Arch>)
    detail::PrunedRows<Arch, T>(a, row).prune();
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
