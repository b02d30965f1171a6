// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Softmax of rows that lie whole in memory, its logarithm, and log-sum-exp.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/math.hpp>
#include <pare/kernel/partial_register.hpp>

#include <cstddef>
#include <limits>

namespace pare::kernel {

/// out_ij = e^(s (x_ij - max_j x_ij)) / sum_j of the same, s = inverse_temperature; or the
/// logarithm of that. A row of which all is -infinity is 0 (-infinity). out may be x.
///
/// Exponentials are taken once for float and double, and kept in out until the sum is known; of
/// 16-bit storage they are taken twice, so that nothing is rounded twice. Weights below 2^-126
/// (2^-1022) of the largest are 0. Sums are in T, at most 64 registers, then in double.
/// Cost: the exponentials bind, some 15 operations for each register.
template <StorageScalar S, bool Log>
struct SoftmaxRows {
  const S* x = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t x_stride = 0;
  S* out = nullptr;  ///< [rows x columns]; null: log_sums alone are wanted
  std::ptrdiff_t out_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  double inverse_temperature = 1;
  double* log_sums = nullptr;  ///< [rows] log sum_j e^(s x_ij) of each row; null: not wanted
};

/// out_i = log sum_j e^(s x_ij); -infinity where all x_ij are.
template <StorageScalar S>
struct LogSumExpRows {
  const S* x = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t x_stride = 0;
  compute_t<S>* out = nullptr;  ///< [rows]
  std::ptrdiff_t out_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  double inverse_temperature = 1;
};

namespace detail {
PARE_ABI_BEGIN

/// What a row is moved by: its largest; of one that holds a NaN, any number. 0 for -infinity, so
/// that x less it is -infinity.
template <class Arch, class S>
PARE_ALWAYS_INLINE compute_t<S> shift_of_row(const S* x, std::ptrdiff_t columns) noexcept {
  using T = compute_t<S>;
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr T lowest = -std::numeric_limits<T>::infinity();
  V best[4];
  for (V& b : best) b = broadcast<Arch>(lowest);
  std::ptrdiff_t i = 0;
  for (; i + 4 * n <= columns; i += 4 * n) {
    best[0] = maximum<Arch>(load_widened<Arch>(x + i), best[0]);
    best[1] = maximum<Arch>(load_widened<Arch>(x + i + n), best[1]);
    best[2] = maximum<Arch>(load_widened<Arch>(x + i + 2 * n), best[2]);
    best[3] = maximum<Arch>(load_widened<Arch>(x + i + 3 * n), best[3]);
  }
  for (; i + n <= columns; i += n) best[0] = maximum<Arch>(load_widened<Arch>(x + i), best[0]);
  if (i < columns) best[1] = maximum<Arch>(load_first<Arch>(x + i, columns - i, lowest), best[1]);
  const T largest = reduce_max<Arch>(
      maximum<Arch>(maximum<Arch>(best[0], best[1]), maximum<Arch>(best[2], best[3])));
  return largest == lowest ? T(0) : largest;
}

/// 2^(scale (x - largest)) of a row, summed; kept in `out` where that is not null.
template <class Arch, class S, class T>
PARE_ALWAYS_INLINE double sum_of_powers(const S* x, std::ptrdiff_t columns, T largest, T scale,
                                        T* out) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>, run = 4 * 64 * n;
  const V top = broadcast<Arch>(largest), times = broadcast<Arch>(scale);
  const V zero = broadcast<Arch>(T(0));
  const auto power = [&](std::ptrdiff_t at) PARE_LAMBDA_INLINE {
    const V e = exp2<Arch>((load_widened<Arch>(x + at) - top) * times);
    if (out != nullptr) store<Arch>(out + at, e);
    return e;
  };
  double total = 0;
  std::ptrdiff_t i = 0;
  while (i + n <= columns) {
    V a = zero, b = zero, c = zero, d = zero;
    const std::ptrdiff_t stop = i + run < columns ? i + run : columns;
    for (; i + 4 * n <= stop; i += 4 * n) {
      a = a + power(i);
      b = b + power(i + n);
      c = c + power(i + 2 * n);
      d = d + power(i + 3 * n);
    }
    for (; i + n <= stop; i += n) a = a + power(i);
    total += static_cast<double>(reduce_add<Arch>((a + b) + (c + d)));
  }
  if (i < columns) {
    constexpr T lowest = -std::numeric_limits<T>::infinity();
    const V e = exp2<Arch>((load_first<Arch>(x + i, columns - i, lowest) - top) * times);
    if (out != nullptr) store_first<Arch>(out + i, columns - i, e);
    total += static_cast<double>(reduce_add<Arch>(e));
  }
  return total;
}

/// out = f(x) over a row.
template <class Arch, class S, class F>
PARE_ALWAYS_INLINE void map_row(const S* x, S* out, std::ptrdiff_t columns, const F& f) noexcept {
  using T = compute_t<S>;
  for_row<lanes<T, Arch>, !ComputeScalar<S>>(
      columns,
      [&](std::ptrdiff_t i)
          PARE_LAMBDA_INLINE { store_narrowed<Arch>(out + i, f(load_widened<Arch>(x + i))); },
      [&](std::ptrdiff_t i, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
        store_first<Arch>(out + i, count, f(load_first<Arch>(x + i, count, T(0))));
      });
}

template <class Arch, bool Log, class S>
PARE_ALWAYS_INLINE void softmax_row(const S* x, S* out, std::ptrdiff_t columns,
                                    double inverse_temperature, double* log_sum_of_row) noexcept {
  using T = compute_t<S>;
  using V = vec<T, Arch>;
  constexpr bool keeps = !Log && ComputeScalar<S>;
  const auto scale = static_cast<T>(inverse_temperature * Exp<double>::log2_e);
  const T largest = shift_of_row<Arch>(x, columns);
  T* kept = nullptr;
  if constexpr (keeps) kept = out;
  const double sum = sum_of_powers<Arch>(x, columns, largest, scale, kept);
  if (log_sum_of_row != nullptr)
    *log_sum_of_row = static_cast<double>(largest) * inverse_temperature + __builtin_log(sum);
  if (out == nullptr) return;
  const V top = broadcast<Arch>(largest);
  if constexpr (Log) {
    // Of a sum of 0 minus infinity is wanted, which the numbers themselves are.
    const auto log_sum = sum == 0 ? T(0) : static_cast<T>(__builtin_log(sum));
    const V times = broadcast<Arch>(static_cast<T>(inverse_temperature));
    map_row<Arch>(x, out, columns, [&](V v) PARE_LAMBDA_INLINE {
      return (v - top) * times - broadcast<Arch>(log_sum);
    });
  } else {
    const V share = broadcast<Arch>(sum == 0 ? T(0) : static_cast<T>(1 / sum));
    if constexpr (keeps) {
      map_row<Arch>(static_cast<const S*>(out), out, columns,
                    [&](V e) PARE_LAMBDA_INLINE { return e * share; });
    } else {
      const V times = broadcast<Arch>(scale);
      map_row<Arch>(x, out, columns,
                    [&](V v) PARE_LAMBDA_INLINE { return exp2<Arch>((v - top) * times) * share; });
    }
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S, bool Log>
void run_kernel(Arch, const SoftmaxRows<S, Log>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.rows; ++r)
    detail::softmax_row<Arch, Log>(
        a.x + r * a.x_stride, a.out != nullptr ? a.out + r * a.out_stride : nullptr, a.columns,
        a.inverse_temperature, a.log_sums != nullptr ? a.log_sums + r : nullptr);
}

template <class Arch, class S>
void run_kernel(Arch, const LogSumExpRows<S>& a) noexcept {
  using T = compute_t<S>;
  const auto scale = static_cast<T>(a.inverse_temperature * detail::Exp<double>::log2_e);
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    const S* const x = a.x + r * a.x_stride;
    const T largest = detail::shift_of_row<Arch>(x, a.columns);
    const double sum =
        detail::sum_of_powers<Arch>(x, a.columns, largest, scale, static_cast<T*>(nullptr));
    a.out[r * a.out_stride] =
        static_cast<T>(static_cast<double>(largest) * a.inverse_temperature + __builtin_log(sum));
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
