// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sparse times dense, row by row, and the row operations that follow it in graph propagation.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>

namespace pare::kernel {

/// out[u - first] = row_scale[u - first] * sum over entries e of row u of values[e] *
/// dense[inner[e]], for rows [first, last). `dense` and `out` are row-major and do not overlap.
///
/// A row's sum is kept in registers, 8 or 16 at a time, and runs over the entries in stored order,
/// so the result does not depend on how rows are shared out. Cost: 2 * columns FLOPs and columns *
/// sizeof(T) gathered bytes an entry; the gather binds (DRAM when `dense` is larger than the
/// caches), which is why the rows of entries to come are prefetched.
template <ComputeScalar T, class I>
struct SpmmRows {
  const I* outer = nullptr;          ///< offsets of rows
  const I* line_nonzeros = nullptr;  ///< entries of each row; null: up to the next offset
  const I* inner = nullptr;
  const T* values = nullptr;     ///< null: all entries are 1
  const T* row_scale = nullptr;  ///< [last - first]; null: all are 1
  const T* dense = nullptr;
  std::ptrdiff_t dense_stride = 0;
  T* out = nullptr;  ///< row `first`
  std::ptrdiff_t out_stride = 0;
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t first = 0;
  std::ptrdiff_t last = 0;
};

/// sum[u] += weight * x[u] / ||x[u]||_2 (or weight * x[u]; or = instead of +=) for `rows` rows of
/// row-major matrices; a row of zeros adds nothing. The norm is summed in T, register-wise; squares
/// may leave T's range, as may weight / ||x[u]||; a row whose norm is below T's smallest normal
/// number keeps its length.
template <ComputeScalar T>
struct AddRows {
  const T* x = nullptr;
  std::ptrdiff_t x_stride = 0;
  T* sum = nullptr;
  std::ptrdiff_t sum_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  T weight = 1;
  bool normalize = false;
  bool assign = false;
};

namespace detail {
PARE_ABI_BEGIN

/// What is fetched ahead of the row being added: 8 KiB of rows, 16 at least. Measured on Zen 5 with
/// 32 columns: half and twice as much take 15 and 8 % longer. Into L2, not L1: L1 has too few fill
/// buffers for as many lines as it takes to cover DRAM's latency, and waits for them.
inline constexpr std::ptrdiff_t spmm_prefetch_bytes = 8192;
inline constexpr std::ptrdiff_t spmm_prefetch_entries = 16;
inline constexpr std::ptrdiff_t cache_line_bytes = 64;

/// `Registers` registers of one output row, from column `c` on, the last of which ends with column
/// `end_column`: it may overlap the one before. Registers: the sums, one broadcast value; the
/// gathered row is a memory operand.
template <class Arch, std::ptrdiff_t Registers, class T, class I>
PARE_ALWAYS_INLINE void spmm_columns(const SpmmRows<T, I>& a, std::ptrdiff_t begin,
                                     std::ptrdiff_t end, std::ptrdiff_t ahead_end, std::ptrdiff_t c,
                                     std::ptrdiff_t end_column, T scale, T* out) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr std::ptrdiff_t bytes = Registers * n * static_cast<std::ptrdiff_t>(sizeof(T));
  constexpr std::ptrdiff_t whole = spmm_prefetch_bytes / bytes;
  constexpr std::ptrdiff_t entries_ahead =
      whole > spmm_prefetch_entries ? whole : spmm_prefetch_entries;
  const auto place = [&](std::ptrdiff_t i) PARE_LAMBDA_INLINE {
    return i + 1 < Registers ? c + i * n : end_column - n;
  };
  vec<T, Arch> sum[static_cast<std::size_t>(Registers)];
  for (std::ptrdiff_t i = 0; i < Registers; ++i) sum[i] = broadcast<Arch>(T(0));
  for (std::ptrdiff_t e = begin; e < end; ++e) {
    if (e + entries_ahead < ahead_end) {
      const char* ahead = reinterpret_cast<const char*>(
          a.dense + static_cast<std::ptrdiff_t>(a.inner[e + entries_ahead]) * a.dense_stride + c);
      for (std::ptrdiff_t byte = 0; byte < bytes; byte += cache_line_bytes)
        prefetch<2>(ahead + byte);
    }
    const T* row = a.dense + static_cast<std::ptrdiff_t>(a.inner[e]) * a.dense_stride;
    if (a.values != nullptr) {
      const vec<T, Arch> value = broadcast<Arch>(a.values[e]);
      for (std::ptrdiff_t i = 0; i < Registers; ++i)
        sum[i] = multiply_add<Arch>(value, load<Arch>(row + place(i)), sum[i]);
    } else {
      for (std::ptrdiff_t i = 0; i < Registers; ++i) sum[i] = sum[i] + load<Arch>(row + place(i));
    }
  }
  for (std::ptrdiff_t i = 0; i < Registers; ++i)
    store<Arch>(out + place(i), broadcast<Arch>(scale) * sum[i]);
}

/// Registers of sums at once. With AVX-512 a row of up to 256 floats is read in one piece, and its
/// page found once: 8 % faster than in two.
template <class Arch>
inline constexpr std::ptrdiff_t spmm_registers = Arch::registers >= 32 ? 16 : 8;

/// Columns [c, a.columns), fewer than spmm_registers of them and together with those before c at
/// least one, in one pass over the entries.
template <class Arch, std::ptrdiff_t Registers, class T, class I>
PARE_ALWAYS_INLINE void spmm_last_columns(const SpmmRows<T, I>& a, std::ptrdiff_t begin,
                                          std::ptrdiff_t end, std::ptrdiff_t ahead_end,
                                          std::ptrdiff_t c, T scale, T* out) noexcept {
  if constexpr (Registers > 1)
    if (a.columns - c <= (Registers - 1) * lanes<T, Arch>)
      return spmm_last_columns<Arch, Registers - 1>(a, begin, end, ahead_end, c, scale, out);
  spmm_columns<Arch, Registers>(a, begin, end, ahead_end, c, a.columns, scale, out);
}

template <class Arch, class T, class I>
PARE_ALWAYS_INLINE void spmm_row(const SpmmRows<T, I>& a, std::ptrdiff_t u,
                                 std::ptrdiff_t ahead_end) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t begin = static_cast<std::ptrdiff_t>(a.outer[u]);
  const std::ptrdiff_t end = a.line_nonzeros != nullptr
                                 ? begin + static_cast<std::ptrdiff_t>(a.line_nonzeros[u])
                                 : static_cast<std::ptrdiff_t>(a.outer[u + 1]);
  const T scale = a.row_scale != nullptr ? a.row_scale[u - a.first] : T(1);
  T* out = a.out + (u - a.first) * a.out_stride;
  if (a.columns < n) {
    for (std::ptrdiff_t c = 0; c < a.columns; ++c)
      spmm_columns<arch::scalar, 1>(a, begin, end, begin, c, c + 1, scale, out);
    return;
  }
  std::ptrdiff_t c = 0;
  constexpr std::ptrdiff_t registers = spmm_registers<Arch>;
  for (; c + registers * n <= a.columns; c += registers * n)
    spmm_columns<Arch, registers>(a, begin, end, ahead_end, c, c + registers * n, scale, out);
  if (c < a.columns) spmm_last_columns<Arch, registers>(a, begin, end, ahead_end, c, scale, out);
}

template <class Arch, class T>
PARE_ALWAYS_INLINE T sum_of_squares(const T* x, std::ptrdiff_t columns) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  vec<T, Arch> sum = broadcast<Arch>(T(0));
  std::ptrdiff_t c = 0;
  for (; c + n <= columns; c += n) {
    const vec<T, Arch> v = load<Arch>(x + c);
    sum = multiply_add<Arch>(v, v, sum);
  }
  T total = reduce_add<Arch>(sum);
  for (; c < columns; ++c) total += x[c] * x[c];
  return total;
}

/// ||x||_2 when its square is too small or too large for T.
template <class T>
PARE_NOINLINE T scaled_norm(const T* x, std::ptrdiff_t columns) noexcept {
  T largest = 0;
  for (std::ptrdiff_t c = 0; c < columns; ++c) {
    const T magnitude = x[c] < T(0) ? -x[c] : x[c];
    largest = magnitude > largest ? magnitude : largest;
  }
  if (!(largest > T(0)) || largest > std::numeric_limits<T>::max()) return largest;
  T squares = 0;
  for (std::ptrdiff_t c = 0; c < columns; ++c) squares += (x[c] / largest) * (x[c] / largest);
  return largest * square_root(squares);
}

template <class Arch, class T>
PARE_ALWAYS_INLINE T row_norm(const T* x, std::ptrdiff_t columns) noexcept {
  using Limits = std::numeric_limits<T>;
  const T squares = sum_of_squares<Arch>(x, columns);
  // Above the lower bound, squares that vanished are below the rounding of their sum.
  const bool in_range = squares > Limits::min() / Limits::epsilon() && squares <= Limits::max();
  return in_range ? square_root(squares) : scaled_norm(x, columns);
}

template <class Arch, class T>
PARE_ALWAYS_INLINE void add_scaled(const T* x, T scale, T* sum, std::ptrdiff_t columns,
                                   bool assign) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const vec<T, Arch> s = broadcast<Arch>(scale);
  std::ptrdiff_t c = 0;
  for (; c + n <= columns; c += n) {
    const vec<T, Arch> old =
        assign ? broadcast<Arch>(T(0)) : load<Arch>(static_cast<const T*>(sum) + c);
    store<Arch>(sum + c, multiply_add<Arch>(s, load<Arch>(x + c), old));
  }
  for (; c < columns; ++c) sum[c] = scale * x[c] + (assign ? T(0) : sum[c]);
}

/// As add_scaled, where weight / norm is too small or too large for T.
template <class T>
PARE_NOINLINE void add_unit(const T* x, T weight, T norm, T* sum, std::ptrdiff_t columns,
                            bool assign) noexcept {
  for (std::ptrdiff_t c = 0; c < columns; ++c)
    sum[c] = weight * (x[c] / norm) + (assign ? T(0) : sum[c]);
}

/// One row of AddRows that is normalised.
template <class Arch, class T>
PARE_ALWAYS_INLINE void add_normalized(const T* x, T weight, T* sum, std::ptrdiff_t columns,
                                       bool assign) noexcept {
  using Limits = std::numeric_limits<T>;
  const T norm = row_norm<Arch>(x, columns);
  if (!(norm >= Limits::min())) return add_scaled<Arch>(x, weight, sum, columns, assign);
  const T scale = weight / norm, magnitude = scale < T(0) ? -scale : scale;
  const bool in_range = magnitude >= Limits::min() && magnitude <= Limits::max();
  if (in_range || weight == T(0) || norm > Limits::max())
    add_scaled<Arch>(x, scale, sum, columns, assign);
  else
    add_unit(x, weight, norm, sum, columns, assign);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T, class I>
void run_kernel(Arch, const SpmmRows<T, I>& a) noexcept {
  // Reading ahead past a row's end is only right when rows follow each other without gaps.
  const bool gapless = a.line_nonzeros == nullptr;
  const std::ptrdiff_t last_entry = gapless ? static_cast<std::ptrdiff_t>(a.outer[a.last]) : 0;
  for (std::ptrdiff_t u = a.first; u < a.last; ++u) detail::spmm_row<Arch>(a, u, last_entry);
}

template <class Arch, class T>
void run_kernel(Arch, const AddRows<T>& a) noexcept {
  for (std::ptrdiff_t u = 0; u < a.rows; ++u) {
    const T* x = a.x + u * a.x_stride;
    T* sum = a.sum + u * a.sum_stride;
    if (a.normalize)
      detail::add_normalized<Arch>(x, a.weight, sum, a.columns, a.assign);
    else
      detail::add_scaled<Arch>(x, a.weight, sum, a.columns, a.assign);
  }
}
PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
