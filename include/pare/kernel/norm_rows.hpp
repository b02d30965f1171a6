// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// RMS norm and layer norm of rows, with or without a residual that is added first.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/partial_register.hpp>

#include <cstddef>
#include <limits>

namespace pare::kernel {

/// out_ij = x_ij / sqrt(mean_j x_ij^2 + epsilon) gain_j. With a delta, sum = x + delta is stored
/// first, rounded to S, and takes the place of x. out may be x or delta, sum may be x.
///
/// Squares are summed in T, at most 64 to a lane before the sum goes to double. Where they leave
/// the range in which that is exact enough, the row is read once more, scaled by a power of 2.
/// Cost: the row is read twice and written once, out of L1; that binds.
template <StorageScalar S>
struct RmsNormRows {
  using T = compute_t<S>;

  const S* x = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t x_stride = 0;
  const S* delta = nullptr;  ///< [rows x columns], or null
  std::ptrdiff_t delta_stride = 0;
  S* sum = nullptr;  ///< [rows x columns], null without delta
  std::ptrdiff_t sum_stride = 0;
  S* out = nullptr;  ///< [rows x columns]
  std::ptrdiff_t out_stride = 0;
  const T* gain = nullptr;  ///< [columns]
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  double epsilon = 0;
};

/// out_ij = (x_ij - m_i) / sqrt(v_i + epsilon) gain_j + bias_j, m_i and v_i the mean and the
/// variance of row i. All else as RmsNormRows; the row is read three times.
template <StorageScalar S>
struct LayerNormRows {
  using T = compute_t<S>;

  const S* x = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t x_stride = 0;
  const S* delta = nullptr;  ///< [rows x columns], or null
  std::ptrdiff_t delta_stride = 0;
  S* sum = nullptr;  ///< [rows x columns], null without delta
  std::ptrdiff_t sum_stride = 0;
  S* out = nullptr;  ///< [rows x columns]
  std::ptrdiff_t out_stride = 0;
  const T* gain = nullptr;  ///< [columns]
  const T* bias = nullptr;  ///< [columns]
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  double epsilon = 0;
};

namespace detail {
PARE_ABI_BEGIN

/// The range of a mean of squares in which none that counts has overflowed or vanished: of the
/// squares below 2^-149 (2^-1074) what is lost is below the last bit.
template <class T>
struct SquareRange;
template <>
struct SquareRange<float> {
  static constexpr double lowest = 0x1p-100, highest = 0x1p126;
};
template <>
struct SquareRange<double> {
  static constexpr double lowest = 0x1p-960, highest = 0x1p1000;
};

/// Adds add(i, sum) over a row, which has four sums in T of at most 64 registers, then in double.
/// `tail(i)` is a term of what lies behind the last register.
template <class Arch, class T, class Add, class Tail>
PARE_ALWAYS_INLINE double sum_row(std::ptrdiff_t columns, const Add& add,
                                  const Tail& tail) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>, run = 4 * 64 * n;
  const V zero = broadcast<Arch>(T(0));
  double total = 0;
  std::ptrdiff_t i = 0;
  while (i + n <= columns) {
    V a = zero, b = zero, c = zero, d = zero;
    const std::ptrdiff_t stop = i + run < columns ? i + run : columns;
    for (; i + 4 * n <= stop; i += 4 * n) {
      a = add(i, a);
      b = add(i + n, b);
      c = add(i + 2 * n, c);
      d = add(i + 3 * n, d);
    }
    for (; i + n <= stop; i += n) a = add(i, a);
    total += static_cast<double>(reduce_add<Arch>((a + b) + (c + d)));
  }
  T rest = T(0);
  for (; i < columns; ++i) rest += tail(i);
  return total + static_cast<double>(rest);
}

/// The largest power of 2 whose square is at most the largest square of a row or epsilon, or one
/// near it: 1 over it, the row has squares near 1. 1 if there is nothing finite to go by.
template <class S>
double row_scale(const S* x, std::ptrdiff_t columns, double epsilon) noexcept {
  double largest = __builtin_sqrt(epsilon);
  for (std::ptrdiff_t i = 0; i < columns; ++i) {
    const double v = __builtin_fabs(static_cast<double>(static_cast<compute_t<S>>(x[i])));
    largest = v > largest ? v : largest;
  }
  if (!(largest > 0 && largest <= std::numeric_limits<double>::max())) return 1;
  // Its inverse is a number too.
  int exponent = __builtin_ilogb(largest);
  exponent = exponent > 1000 ? 1000 : exponent < -1000 ? -1000 : exponent;
  return __builtin_ldexp(1.0, exponent);
}

/// What a row is multiplied by: first, in double where T has no such number, then `root`.
struct RowFactors {
  double shift = 0;  ///< subtracted first
  double scale = 1;  ///< a power of 2
  double root = 0;   ///< behind `scale`
};

/// 1 / sqrt(mean of (x - shift)^2 + epsilon) in double, of a row that T has no squares of. A row
/// that holds a NaN or an infinity gets what the definition gives: NaN, or 1 / infinity.
template <class S>
PARE_NOINLINE RowFactors far_factors(const S* x, std::ptrdiff_t columns, double epsilon,
                                     bool centred) noexcept {
  const double over = 1 / row_scale(x, columns, epsilon);
  const auto value = [&](std::ptrdiff_t i) {
    return static_cast<double>(static_cast<compute_t<S>>(x[i])) * over;
  };
  const auto count = static_cast<double>(columns);
  double mean = 0, squares = 0;
  if (centred)
    for (std::ptrdiff_t i = 0; i < columns; ++i) mean += value(i) / count;
  for (std::ptrdiff_t i = 0; i < columns; ++i) squares += (value(i) - mean) * (value(i) - mean);
  return {mean, over, 1 / __builtin_sqrt(squares / count + epsilon * over * over)};
}

/// Writes a row by far_factors, in double.
template <class S, class T>
PARE_NOINLINE void write_far_row(const S* x, S* out, std::ptrdiff_t columns, const T* gain,
                                 const T* bias, const RowFactors& f) noexcept {
  for (std::ptrdiff_t i = 0; i < columns; ++i) {
    const auto value = static_cast<double>(static_cast<T>(x[i]));
    const double y = (value * f.scale - f.shift) * f.root * static_cast<double>(gain[i]);
    const auto narrow = static_cast<T>(bias == nullptr ? y : y + static_cast<double>(bias[i]));
    out[i] = static_cast<S>(narrow);
  }
}

template <class T>
bool in_range(double mean_square, double epsilon) noexcept {
  return mean_square + epsilon >= SquareRange<T>::lowest && mean_square <= SquareRange<T>::highest;
}

/// sum = x + delta of row r, where there is a delta; returns where the row now is.
template <class Arch, class S, class Arguments>
PARE_ALWAYS_INLINE const S* added_row(const Arguments& a, std::ptrdiff_t r) noexcept {
  using T = compute_t<S>;
  const S* const x = a.x + r * a.x_stride;
  if (a.delta == nullptr) return x;
  const S* const delta = a.delta + r * a.delta_stride;
  S* const sum = a.sum + r * a.sum_stride;
  for_row<lanes<T, Arch>>(
      a.columns,
      [&](std::ptrdiff_t i) PARE_LAMBDA_INLINE {
        store_narrowed<Arch>(sum + i, load_widened<Arch>(x + i) + load_widened<Arch>(delta + i));
      },
      [&](std::ptrdiff_t i, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
        store_first<Arch>(
            sum + i, count,
            load_first<Arch>(x + i, count, T(0)) + load_first<Arch>(delta + i, count, T(0)));
      });
  return sum;
}

template <class Arch, class S>
PARE_ALWAYS_INLINE void rms_norm_row(const RmsNormRows<S>& a, const S* x, S* out) noexcept {
  using T = compute_t<S>;
  using V = vec<T, Arch>;
  // Divided before the sum is known, which the root then waits for alone.
  const double per = 1 / static_cast<double>(a.columns);
  const double squares = sum_row<Arch, T>(
      a.columns,
      [&](std::ptrdiff_t i, V sum) PARE_LAMBDA_INLINE {
        const V v = load_widened<Arch>(x + i);
        return multiply_add<Arch>(v, v, sum);
      },
      [&](std::ptrdiff_t i) { return static_cast<T>(x[i]) * static_cast<T>(x[i]); });
  const double mean = squares * per;
  if (!in_range<T>(mean, a.epsilon))
    return write_far_row<S, T>(x, out, a.columns, a.gain, nullptr,
                               far_factors(x, a.columns, a.epsilon, false));
  const T root = 1 / square_root(static_cast<T>(mean + a.epsilon));
  for_row<lanes<T, Arch>>(
      a.columns,
      [&](std::ptrdiff_t i) PARE_LAMBDA_INLINE {
        store_narrowed<Arch>(
            out + i, load_widened<Arch>(x + i) * broadcast<Arch>(root) * load<Arch>(a.gain + i));
      },
      [&](std::ptrdiff_t i, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
        store_first<Arch>(out + i, count,
                          load_first<Arch>(x + i, count, T(0)) * broadcast<Arch>(root) *
                              load_first<Arch>(a.gain + i, count, T(0)));
      });
}

struct Moments {
  double sum = 0;
  double squares = 0;
};

/// Sums of x - m and of its squares, as sum_row has them.
template <class Arch, class S>
PARE_ALWAYS_INLINE Moments moments_about(const S* x, std::ptrdiff_t columns,
                                         compute_t<S> m) noexcept {
  using T = compute_t<S>;
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>, run = 4 * 64 * n;
  const V mean = broadcast<Arch>(m), zero = broadcast<Arch>(T(0));
  Moments total;
  std::ptrdiff_t i = 0;
  while (i + n <= columns) {
    V sum[] = {zero, zero, zero, zero}, squares[] = {zero, zero, zero, zero};
    const std::ptrdiff_t stop = i + run < columns ? i + run : columns;
    const auto add = [&](std::ptrdiff_t at, int which) PARE_LAMBDA_INLINE {
      const V v = load_widened<Arch>(x + at) - mean;
      sum[which] = sum[which] + v;
      squares[which] = multiply_add<Arch>(v, v, squares[which]);
    };
    for (; i + 4 * n <= stop; i += 4 * n) {
      add(i, 0);
      add(i + n, 1);
      add(i + 2 * n, 2);
      add(i + 3 * n, 3);
    }
    for (; i + n <= stop; i += n) add(i, 0);
    total.sum += static_cast<double>(reduce_add<Arch>((sum[0] + sum[1]) + (sum[2] + sum[3])));
    total.squares += static_cast<double>(
        reduce_add<Arch>((squares[0] + squares[1]) + (squares[2] + squares[3])));
  }
  for (; i < columns; ++i) {
    const double v = static_cast<double>(static_cast<T>(x[i]) - m);
    total.sum += v;
    total.squares += v * v;
  }
  return total;
}

/// The variance is that about m, the mean rounded to T, less the square of what m is off by, which
/// is taken from the values too: so that a mean far above the deviation costs no digits of either.
template <class Arch, class S>
PARE_ALWAYS_INLINE void layer_norm_row(const LayerNormRows<S>& a, const S* x, S* out) noexcept {
  using T = compute_t<S>;
  using V = vec<T, Arch>;
  const double per = 1 / static_cast<double>(a.columns);
  const double total = sum_row<Arch, T>(
      a.columns,
      [&](std::ptrdiff_t i, V sum) PARE_LAMBDA_INLINE { return sum + load_widened<Arch>(x + i); },
      [&](std::ptrdiff_t i) { return static_cast<T>(x[i]); });
  const auto m = static_cast<T>(total * per);
  const V mean = broadcast<Arch>(m);
  const Moments about = moments_about<Arch>(x, a.columns, m);
  const double off = about.sum * per, square = about.squares * per;
  if (!in_range<T>(square, a.epsilon))
    return write_far_row<S, T>(x, out, a.columns, a.gain, a.bias,
                               far_factors(x, a.columns, a.epsilon, true));
  const double variance = square - off * off;
  const T root = 1 / square_root(static_cast<T>((variance > 0 ? variance : 0) + a.epsilon));
  const V scale = broadcast<Arch>(root);
  const V shift = broadcast<Arch>(static_cast<T>(-off) * root);
  const auto normed = [&](V v, V gain, V bias) PARE_LAMBDA_INLINE {
    return multiply_add<Arch>(multiply_add<Arch>(v - mean, scale, shift), gain, bias);
  };
  for_row<lanes<T, Arch>>(
      a.columns,
      [&](std::ptrdiff_t i) PARE_LAMBDA_INLINE {
        store_narrowed<Arch>(out + i, normed(load_widened<Arch>(x + i), load<Arch>(a.gain + i),
                                             load<Arch>(a.bias + i)));
      },
      [&](std::ptrdiff_t i, std::ptrdiff_t rest) PARE_LAMBDA_INLINE {
        store_first<Arch>(
            out + i, rest,
            normed(load_first<Arch>(x + i, rest, T(0)), load_first<Arch>(a.gain + i, rest, T(0)),
                   load_first<Arch>(a.bias + i, rest, T(0))));
      });
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const RmsNormRows<S>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.rows; ++r)
    detail::rms_norm_row<Arch>(a, detail::added_row<Arch, S>(a, r), a.out + r * a.out_stride);
}

template <class Arch, class S>
void run_kernel(Arch, const LayerNormRows<S>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.rows; ++r)
    detail::layer_norm_row<Arch>(a, detail::added_row<Arch, S>(a, r), a.out + r * a.out_stride);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
