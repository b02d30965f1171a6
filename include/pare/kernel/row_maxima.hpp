// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Maxima over runs of rows: of each column the largest number of a document's rows, summed over
/// the columns. Products come tile by tile, and a tile may hold rows of many documents.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <limits>
#include <type_traits>

namespace pare::kernel {

/// Where documents lie in a table of rows, and where their scores go.
template <ComputeScalar T>
struct DocumentScores {
  const std::ptrdiff_t* offsets = nullptr;  ///< [documents + 1] of their first rows, and the end
  std::ptrdiff_t documents = 0;
  std::ptrdiff_t columns = 0;
  T* maxima = nullptr;  ///< [columns rounded up to cache lines], aligned; scratch
  T* scores = nullptr;  ///< of document d at d * stride
  std::ptrdiff_t stride = 1;
};

PARE_ABI_BEGIN

/// score_d = sum_i max_j product_ji over the rows j of document d. A score is NaN if one of its
/// products is; -infinity for a document without rows, if there are columns, and 0 without any.
/// Sums are double.
template <class Arch, class T>
class RowMaxima {
 public:
  explicit RowMaxima(const DocumentScores<T>& a) noexcept : a_(a), row_(a.offsets[0]) {
    reset();
    finish_ended();
  }

  /// Takes in the products of the next rows, `stride` apart and aligned. Columns up to the next
  /// whole register are read, and mean nothing.
  void take(const T* products, std::ptrdiff_t stride, std::ptrdiff_t rows) noexcept {
    take(rows, [=](std::ptrdiff_t r, std::ptrdiff_t column)
                   PARE_LAMBDA_INLINE { return load<Arch>(products + r * stride + column); });
  }

  /// The same of products(r, column), a register of row r of those that come next.
  template <class Products>
  void take(std::ptrdiff_t rows, const Products& products) noexcept {
    for (std::ptrdiff_t first = 0; first < rows;) {
      const std::ptrdiff_t left = a_.offsets[document_ + 1] - row_;
      const std::ptrdiff_t count = left < rows - first ? left : rows - first;
      raise(first, first + count, products);
      row_ += count;
      first += count;
      finish_ended();
    }
  }

 private:
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static constexpr T least = -std::numeric_limits<T>::infinity();

  void reset() noexcept {
    for (std::ptrdiff_t i = 0; i < a_.columns; i += n)
      store<Arch>(a_.maxima + i, broadcast<Arch>(least));
    has_nan_ = false;
  }

  template <class Products>
  void raise(std::ptrdiff_t begin, std::ptrdiff_t end, const Products& products) noexcept {
    for (std::ptrdiff_t i = 0; i < a_.columns; i += n) {
      vec<T, Arch> largest = load<Arch>(static_cast<const T*>(a_.maxima) + i);
      // No maximum shows a NaN, but a sum does; that of both infinities is looked at again.
      vec<T, Arch> sum = broadcast<Arch>(T(0));
      std::ptrdiff_t r = begin;
      for (; r + 4 <= end; r += 4) {  // so that additions overlap
        const vec<T, Arch> x[] = {products(r, i), products(r + 1, i), products(r + 2, i),
                                  products(r + 3, i)};
        sum = sum + ((x[0] + x[1]) + (x[2] + x[3]));
        largest = maximum<Arch>(
            largest, maximum<Arch>(maximum<Arch>(x[0], x[1]), maximum<Arch>(x[2], x[3])));
      }
      for (; r < end; ++r) {
        const vec<T, Arch> x = products(r, i);
        sum = sum + x;
        largest = maximum<Arch>(largest, x);
      }
      store<Arch>(a_.maxima + i, largest);
      if (any_nan(sum)) look_again(begin, end, i, products);
    }
  }

  template <class Products>
  PARE_NOINLINE void look_again(std::ptrdiff_t begin, std::ptrdiff_t end, std::ptrdiff_t column,
                                const Products& products) noexcept {
    const std::ptrdiff_t there = column + n < a_.columns ? n : a_.columns - column;
    for (std::ptrdiff_t r = begin; r < end; ++r) {
      T x[static_cast<std::size_t>(n)];
      store<Arch>(static_cast<T*>(x), products(r, column));
      for (std::ptrdiff_t c = 0; c < there; ++c) has_nan_ = has_nan_ || is_nan(x[c]);
    }
  }

  void finish_ended() noexcept {
    for (; document_ < a_.documents && a_.offsets[document_ + 1] == row_; ++document_) {
      const std::ptrdiff_t padded = (a_.columns + n - 1) / n * n;
      for (std::ptrdiff_t c = a_.columns; c < padded; ++c) a_.maxima[c] = T(0);
      a_.scores[document_ * a_.stride] =
          has_nan_ ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(sum_of(padded));
      reset();
    }
  }

  double sum_of(std::ptrdiff_t padded) const noexcept {
    vec<double, Arch> sum = broadcast<Arch>(0.0);
    for (std::ptrdiff_t c = 0; c < padded; c += n) {
      const vec<T, Arch> x = load<Arch>(static_cast<const T*>(a_.maxima) + c);
      if constexpr (std::is_same_v<T, double>) {
        sum = sum + x;
      } else {
        vec<double, Arch> parts[static_cast<std::size_t>(double_registers<Arch>)];
        widen_floats<Arch>(x, static_cast<vec<double, Arch>*>(parts));
        for (const vec<double, Arch>& part : parts) sum = sum + part;
      }
    }
    return reduce_add<Arch>(sum);
  }

  const DocumentScores<T> a_;
  std::ptrdiff_t row_, document_ = 0;
  bool has_nan_ = false;
};

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
