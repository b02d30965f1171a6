// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Of each four consecutive numbers of a row the two of the largest |w| f, with the mask that says
/// which: the choice of every score of 2:4 sparsity that is a factor of an input.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>
#include <pare/kernel/streaming.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel {

/// Words of a mask and the values that they keep. The score is |w| f, rounded once; of equal ones
/// the lower column is kept. NaN counts as nothing in particular: `marks` tells of it.
///
/// Cost: reads W once and writes half of it, which binds where 64 numbers are pruned at once
/// (floats on AVX-512); elsewhere about 25 instructions for 16 floats.
template <class S>
struct SelectTwoFour {
  const S* weights = nullptr;  ///< [rows x inputs], rows contiguous
  std::ptrdiff_t weight_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t inputs = 0;              ///< a multiple of 4
  const compute_t<S>* factors = nullptr;  ///< [inputs] of at least 0; null: all 1
  std::uint16_t* words = nullptr;         ///< [rows x ceil(inputs / 16)], written
  std::ptrdiff_t word_stride = 0;
  S* values = nullptr;  ///< [rows x 8 ceil(inputs / 16)], written; zeros behind the last; or null
  std::ptrdiff_t value_stride = 0;
  compute_t<S>* marks = nullptr;  ///< [rows], written: 0, or NaN where a number is not finite
  /// Values at cache lines are stored past the caches where an arch can; FinishStreaming follows
  bool streaming = false;
};

namespace detail {
PARE_ABI_BEGIN

/// One row of a SelectTwoFour.
template <class Arch, class S>
class TwoFourRow {
  using T = compute_t<S>;
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static constexpr bool in_registers = n % 4 == 0 && n <= 16;
  using V = vec<T, Arch>;

 public:
  TwoFourRow(const SelectTwoFour<S>& a, std::ptrdiff_t row) noexcept
      : a_(a), w_(a.weights + row * a.weight_stride), row_(row) {}

  void select() noexcept {
    std::uint16_t* const words = a_.words + row_ * a_.word_stride;
    S* const values = a_.values == nullptr ? nullptr : a_.values + row_ * a_.value_stride;
    const std::ptrdiff_t whole = a_.inputs / 16;
    V zeros = broadcast<Arch>(T(0));
    std::ptrdiff_t word = 0;
    if constexpr (has_keep_sixty_four<Arch, S>)
      if (values != nullptr) word = keep_lines(words, values, zeros);
    for (; word < whole; ++word) {
      const std::uint32_t bits = word_at(16 * word, zeros);
      words[word] = static_cast<std::uint16_t>(bits);
      if (values != nullptr) compress_eight<Arch>(w_ + 16 * word, bits, values + 8 * word);
    }
    T mark = reduce_add<Arch>(zeros);
    if (16 * whole < a_.inputs) {
      const std::uint32_t bits = last_word(16 * whole, mark);
      words[whole] = static_cast<std::uint16_t>(bits);
      if (values != nullptr) last_values(16 * whole, bits, values + 8 * whole);
    }
    a_.marks[row_] = mark;
  }

 private:
  /// Four words at a time; returns how many there were.
  std::ptrdiff_t keep_lines(std::uint16_t* words, S* values, V& zeros) const noexcept {
    const bool streams = a_.streaming && at_line(values);
    if (a_.factors == nullptr)
      return streams ? keep_lines<false, true>(words, values, zeros)
                     : keep_lines<false, false>(words, values, zeros);
    return streams ? keep_lines<true, true>(words, values, zeros)
                   : keep_lines<true, false>(words, values, zeros);
  }

  template <bool Weighed, bool Streaming>
  std::ptrdiff_t keep_lines(std::uint16_t* words, S* values, V& zeros) const noexcept {
    const std::ptrdiff_t count = a_.inputs / 64 * 4;
    for (std::ptrdiff_t word = 0; word < count; word += 4)
      keep_sixty_four<Arch, Weighed, Streaming>(w_ + 16 * word,
                                                Weighed ? a_.factors + 16 * word : nullptr,
                                                words + word, values + 8 * word, zeros);
    return count;
  }

  std::uint32_t word_at(std::ptrdiff_t input, V& zeros) const noexcept {
    if constexpr (in_registers) {
      std::uint32_t bits = 0;
      for (std::ptrdiff_t i = 0; i < 16; i += n) {
        const V w = load_widened<Arch>(w_ + input + i);
        zeros = multiply_add<Arch>(w, broadcast<Arch>(T(0)), zeros);
        V score = maximum<Arch>(w, broadcast<Arch>(T(0)) - w);
        if (a_.factors != nullptr) score = score * load<Arch>(a_.factors + input + i);
        bits |= two_largest<Arch>(score) << i;
      }
      return bits;
    } else {
      T mark = T(0);
      const std::uint32_t bits = groups(input, 16, mark);
      zeros = zeros + broadcast<Arch>(mark);
      return bits;
    }
  }

  std::uint32_t groups(std::ptrdiff_t input, std::ptrdiff_t count, T& mark) const noexcept {
    std::uint32_t bits = 0;
    for (std::ptrdiff_t g = 0; g < count; g += 4) {
      T score[4];
      for (std::ptrdiff_t i = 0; i < 4; ++i) {
        const T w = static_cast<T>(w_[input + g + i]);
        mark += w * T(0);
        score[i] = w < T(0) ? -w : w;
        if (a_.factors != nullptr) score[i] *= a_.factors[input + g + i];
      }
      bits |= two_largest_of(static_cast<const T*>(score)) << g;
    }
    return bits;
  }

  std::uint32_t last_word(std::ptrdiff_t input, T& mark) const noexcept {
    return groups(input, a_.inputs - input, mark);
  }

  void last_values(std::ptrdiff_t input, std::uint32_t bits, S* values) const noexcept {
    for (std::ptrdiff_t i = 0; i < 8; ++i, bits &= bits - 1)
      values[i] = bits != 0 ? w_[input + __builtin_ctz(bits)] : S{};
  }

  const SelectTwoFour<S>& a_;
  const S* w_;
  std::ptrdiff_t row_;
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const SelectTwoFour<S>& a) noexcept {
  for (std::ptrdiff_t row = 0; row < a.rows; ++row) detail::TwoFourRow<Arch, S>(a, row).select();
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
