// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// One pass over the groups of a block of a 2:4 matrix between two dense ones: for each group of a
/// row the two entries and their values that lose least, all others given. And the loss of a block.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pare::kernel {

PARE_ABI_BEGIN

/// Numbers for each group of SweepTwoFour: the inverses of the six 2 x 2 parts of its Gram matrix.
inline constexpr std::ptrdiff_t group_inverses = 18;
/// The six pairs of a group of four.
inline constexpr int group_pairs[6][2] = {{0, 1}, {0, 2}, {1, 2}, {0, 3}, {1, 3}, {2, 3}};

PARE_ABI_END

/// Lowers || (W - A S B) H^(1/2) ||^2 over S [rows x columns], one group of four columns after the
/// other, rows from first to last, with G = A^T A, K = B H B^T and N = A^T W H B^T.
///
/// What a group gains from the rest is row t of E = N - G S K; only the row that is passed is ever
/// formed, from P = S K, which follows each change. So a pass takes at most 2 rows columns (rows +
/// 1.25 columns) FLOPs; if all of E followed each change, it would take rows^2 columns^2 / 2.
///
/// A group changes only where the loss, as far as T tells, falls. All strides are multiples of 16,
/// and what lies behind `columns` is 0.
template <class T>
struct SweepTwoFour {
  const T* left_gram = nullptr;  ///< G [rows x rows], symmetric
  std::ptrdiff_t left_stride = 0;
  const T* right_gram = nullptr;  ///< K [columns x stride], symmetric
  const T* inverses = nullptr;    ///< [columns / 4 x group_inverses], of K, by invert_pairs
  const T* target = nullptr;      ///< N [rows x stride]
  T* product = nullptr;           ///< P [rows x stride], changed with S
  T* gains = nullptr;             ///< [stride], scratch
  std::ptrdiff_t stride = 0;      ///< of K, N and P
  T* core = nullptr;              ///< S [rows x columns], changed
  std::ptrdiff_t core_stride = 0;
  std::uint8_t* groups = nullptr;  ///< [rows x columns / 4]: four bits each, two of them set
  std::ptrdiff_t group_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;  ///< a multiple of 4
};

/// sum_ij h_j (w_ij - v_ij)^2, terms in T, summed in double, added to `sum`.
template <class T>
struct AddWeighedSquares {
  const T* w = nullptr;  ///< [rows x columns]
  std::ptrdiff_t w_stride = 0;
  const T* v = nullptr;  ///< [rows x columns]
  std::ptrdiff_t v_stride = 0;
  const T* weights = nullptr;  ///< h [columns]
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  double* sum = nullptr;
};

namespace detail {
PARE_ABI_BEGIN

/// One block of a SweepTwoFour.
template <class Arch, class T>
class GroupSweep {
  using V = vec<T, Arch>;
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static_assert(16 % n == 0);

 public:
  explicit GroupSweep(const SweepTwoFour<T>& a) noexcept : a_(a) {}

  void run() noexcept {
    for (std::ptrdiff_t row = 0; row < a_.rows; ++row) {
      const T size = a_.left_gram[row * a_.left_stride + row];
      if (!(size > T(0))) continue;
      gains_of_row(row);
      for (std::ptrdiff_t group = 0; group < a_.columns / 4; ++group) improve(row, group, size);
    }
  }

 private:
  /// E_t = N_t - sum_u G_tu P_u.
  void gains_of_row(std::ptrdiff_t row) noexcept {
    for (std::ptrdiff_t c = 0; c < a_.stride; c += 16) {
      V sum[static_cast<std::size_t>(16 / n)];
      for (std::ptrdiff_t i = 0; i < 16 / n; ++i)
        sum[i] = load<Arch>(a_.target + row * a_.stride + c + i * n);
      const T* product = a_.product + c;
      const T* gram = a_.left_gram + row * a_.left_stride;
      for (std::ptrdiff_t u = 0; u < a_.rows; ++u, product += a_.stride) {
        const V share = broadcast<Arch>(-gram[u]);
        for (std::ptrdiff_t i = 0; i < 16 / n; ++i)
          sum[i] = multiply_add<Arch>(share, load<Arch>(product + i * n), sum[i]);
      }
      for (std::ptrdiff_t i = 0; i < 16 / n; ++i) store<Arch>(a_.gains + c + i * n, sum[i]);
    }
  }

  /// 2 x . e - size x^T K x for the four entries of a group: what the loss falls by against zeros.
  static T gain(const T* x, const T* e, const T* gram, std::ptrdiff_t stride, T size) noexcept {
    T linear = T(0), square = T(0);
    for (std::ptrdiff_t i = 0; i < 4; ++i) {
      T sum = T(0);
      for (std::ptrdiff_t k = 0; k < 4; ++k) sum += gram[i * stride + k] * x[k];
      linear += x[i] * e[i];
      square += x[i] * sum;
    }
    return 2 * linear - size * square;
  }

  void improve(std::ptrdiff_t row, std::ptrdiff_t group, T size) noexcept {
    const std::ptrdiff_t first = 4 * group;
    T* const core = a_.core + row * a_.core_stride + first;
    const T* const gram = a_.right_gram + first * a_.stride + first;
    T e[4];
    for (std::ptrdiff_t i = 0; i < 4; ++i) {
      T sum = T(0);
      for (std::ptrdiff_t k = 0; k < 4; ++k) sum += gram[i * a_.stride + k] * core[k];
      e[i] = a_.gains[first + i] + size * sum;
    }
    T best = T(-1);
    int at = 0;
    const T* const inverses = a_.inverses + group * group_inverses;
    for (int pair = 0; pair < 6; ++pair) {
      const T p = e[group_pairs[pair][0]], q = e[group_pairs[pair][1]];
      const T* const inverse = inverses + 3 * pair;
      const T square = inverse[0] * p * p + 2 * inverse[1] * p * q + inverse[2] * q * q;
      if (square > best) {
        best = square;
        at = pair;
      }
    }
    const T p = e[group_pairs[at][0]], q = e[group_pairs[at][1]];
    const T* const inverse = inverses + 3 * at;
    T found[4] = {};
    found[group_pairs[at][0]] = (inverse[0] * p + inverse[1] * q) / size;
    found[group_pairs[at][1]] = (inverse[1] * p + inverse[2] * q) / size;
    if (!(gain(found, e, gram, a_.stride, size) > gain(core, e, gram, a_.stride, size))) return;
    a_.groups[row * a_.group_stride + group] =
        static_cast<std::uint8_t>(1u << group_pairs[at][0] | 1u << group_pairs[at][1]);
    change(row, first, found, core, size);
  }

  /// S_t: += d, P_t: += d K, E_t: -= G_tt d K.
  void change(std::ptrdiff_t row, std::ptrdiff_t first, const T* found, T* core, T size) noexcept {
    V step[4];
    for (std::ptrdiff_t k = 0; k < 4; ++k) {
      step[k] = broadcast<Arch>(found[k] - core[k]);
      core[k] = found[k];
    }
    const T* const gram = a_.right_gram + first * a_.stride;
    T* const product = a_.product + row * a_.stride;
    const V negative = broadcast<Arch>(-size);
    for (std::ptrdiff_t c = 0; c < a_.stride; c += n) {
      V sum = step[0] * load<Arch>(gram + c);
      for (std::ptrdiff_t k = 1; k < 4; ++k)
        sum = multiply_add<Arch>(step[k], load<Arch>(gram + k * a_.stride + c), sum);
      store<Arch>(product + c, load<Arch>(static_cast<const T*>(product) + c) + sum);
      store<Arch>(
          a_.gains + c,
          multiply_add<Arch>(negative, sum, load<Arch>(static_cast<const T*>(a_.gains) + c)));
    }
  }

  const SweepTwoFour<T>& a_;
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The inverses of a group: of the pairs of its Gram matrix [4 x 4], as (i, i), (i, k), (k, k). To
/// each diagonal `ridge` of the larger one is added, so that equal rows of B do no harm; zeros
/// where both are 0.
template <class T>
void invert_pairs(const T* gram, std::ptrdiff_t stride, T ridge, T* inverses) noexcept {
  for (int pair = 0; pair < 6; ++pair, inverses += 3) {
    const int i = group_pairs[pair][0], k = group_pairs[pair][1];
    const T larger =
        gram[i * stride + i] > gram[k * stride + k] ? gram[i * stride + i] : gram[k * stride + k];
    const double a = static_cast<double>(gram[i * stride + i] + ridge * larger);
    const double b = static_cast<double>(gram[i * stride + k]);
    const double c = static_cast<double>(gram[k * stride + k] + ridge * larger);
    const double determinant = a * c - b * b;
    const bool regular = determinant > 0;
    inverses[0] = regular ? static_cast<T>(c / determinant) : T(0);
    inverses[1] = regular ? static_cast<T>(-b / determinant) : T(0);
    inverses[2] = regular ? static_cast<T>(a / determinant) : T(0);
  }
}

template <class Arch, class T>
void run_kernel(Arch, const SweepTwoFour<T>& a) noexcept {
  detail::GroupSweep<Arch, T>(a).run();
}

template <class Arch, class T>
void run_kernel(Arch, const AddWeighedSquares<T>& a) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr std::ptrdiff_t wide = std::is_same_v<T, double> ? 1 : n / lanes<double, Arch>;
  vec<double, Arch> sum[static_cast<std::size_t>(wide)];
  for (std::ptrdiff_t i = 0; i < wide; ++i) sum[i] = broadcast<Arch>(0.0);
  double rest = 0;
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    const T* const w = a.w + r * a.w_stride;
    const T* const v = a.v + r * a.v_stride;
    std::ptrdiff_t c = 0;
    for (; c + n <= a.columns; c += n) {
      const V difference = load<Arch>(w + c) - load<Arch>(v + c);
      const V square = difference * difference * load<Arch>(a.weights + c);
      if constexpr (std::is_same_v<T, double>) {
        sum[0] = sum[0] + square;
      } else {
        vec<double, Arch> part[static_cast<std::size_t>(wide)];
        widen_floats<Arch>(square, static_cast<vec<double, Arch>*>(part));
        for (std::ptrdiff_t i = 0; i < wide; ++i) sum[i] = sum[i] + part[i];
      }
    }
    for (; c < a.columns; ++c) {
      const T difference = w[c] - v[c];
      rest += static_cast<double>(difference * difference * a.weights[c]);
    }
  }
  for (std::ptrdiff_t i = 0; i < wide; ++i) rest += reduce_add<Arch>(sum[i]);
  *a.sum += rest;
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
