// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows of bytes with a scale each: a quarter of the memory of float rows.
///
///     x_ri ~ scale_r code_ri,   scale_r = max_i |x_ri| / 127,   code_ri = round(x_ri / scale_r)
///
/// ```cpp
/// const Int8Rows rows = quantize_rows(pare::simd.threads(2), x);
/// retrieval::top_k_dot(rows, queries, 100);        // the products of bytes, exact
/// dequantize_rows(rows, restored);                 // [rows, dim] of float
/// const Int8View mapped{{codes, {n, dim}, {dim, 1}}, {scales, n}};  // of a file, say
/// ```
///
/// Symmetric: 0 stays 0, and codes are -127 to 127. Halves are rounded to even. A number of the row
/// is off by at most half its scale. A row of zeros, or of numbers so small (below 1.5e-36) that
/// the scale would be subnormal, has scale 0 and codes 0. A row with a NaN or an infinity has codes
/// 0 and a scale that is NaN, so that whatever it is multiplied with is NaN.
///
/// No paper: the symmetric form that quantized indices and layers share.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/kernel/int8_rows.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::linalg {

/// Rows of bytes in memory of any kind. A code of -128, which no rounding gives, counts as it is.
struct Int8View {
  using scalar = float;  ///< what rows stand for

  TensorView<const std::int8_t, 2> codes{};  ///< [rows, dim], rows contiguous
  std::span<const float> scales{};           ///< [rows]

  PARE_ALWAYS_INLINE Index rows() const { return codes.extent[0]; }
  PARE_ALWAYS_INLINE Index dim() const { return codes.extent[1]; }
};

PARE_ABI_BEGIN

/// Rows of bytes with their memory.
struct Int8Rows {
  using scalar = float;

  RowMatrix<std::int8_t> codes;  ///< [rows, dim]
  std::vector<float> scales;     ///< [rows]

  Index rows() const { return codes.rows(); }
  Index dim() const { return codes.cols(); }
  operator Int8View() const { return {to_view(codes), scales}; }
};

/// What can be taken as rows of bytes.
template <class X>
concept Int8RowsIn = std::is_convertible_v<const X&, Int8View>;

/// Throws unless rows are whole: `name` of `function`, codes in memory and a scale for each row.
inline void check_int8_rows(const char* function, const char* name, const Int8View& rows) {
  check_view(function, name, rows.codes);
  check(rows.dim() >= 1, function, name, rows.codes.extent, "a dim of at least 1");
  check(rows.dim() <= kernel::most_int8_dim, function, name, rows.codes.extent,
        Worded{"a dim of at most ", kernel::most_int8_dim});
  check_contiguous_rows(function, name, rows.codes);
  check(static_cast<Index>(rows.scales.size()) == rows.rows(), function, name, rows.scales.size(),
        Worded{"a scale for each of ", rows.rows(), " rows"});
}

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

template <class S>
concept Int8Source = StorageScalar<S> && std::is_same_v<compute_t<S>, float>;

template <class X>
struct IsInt8Source : std::false_type {};
template <class X>
requires In<std::remove_cvref_t<X>, 2>
struct IsInt8Source<X> : std::bool_constant<Int8Source<scalar_of<X>>> {};

template <class X>
using IsInt8Rows = std::bool_constant<Int8RowsIn<std::remove_cvref_t<X>>>;

/// The definition, in the roundings of float that it names.
template <class S>
void reference_quantize_rows(TensorView<const S, 2> x, std::int8_t* codes, float* scales) {
  for (Index r = 0; r < x.rows(); ++r, codes += x.cols()) {
    float largest = 0;
    bool finite = true;
    for (Index c = 0; c < x.cols(); ++c) {
      finite = finite && is_finite(static_cast<double>(static_cast<float>(x(r, c))));
      largest = std::max(largest, std::abs(static_cast<float>(x(r, c))));
    }
    scales[r] = finite ? kernel::int8_scale(largest) : std::numeric_limits<float>::quiet_NaN();
    for (Index c = 0; c < x.cols(); ++c)
      codes[c] =
          scales[r] > 0
              ? static_cast<std::int8_t>(std::nearbyint(static_cast<float>(x(r, c)) / scales[r]))
              : std::int8_t{0};
  }
}

/// Rows of x to codes without gaps, and scales.
template <class B, class S>
void quantize_rows(const B& backend, TensorView<const S, 2> x, std::int8_t* codes, float* scales) {
  if constexpr (KernelBackend<B>) {
    constexpr Index block = 256;
    parallel_for(backend.executor, ceil_div(x.rows(), block), [&](Index item, int) {
      const Index first = item * block;
      launch(backend, kernel::QuantizeInt8Rows<S>{
                          x.data + first * x.stride[0], x.stride[0], codes + first * x.cols(),
                          x.cols(), scales + first, std::min(block, x.rows() - first), x.cols()});
    });
  } else {
    reference_quantize_rows(x, codes, scales);
  }
}

template <class S>
void check_quantized(const char* function, const char* name, TensorView<const S, 2> x) {
  check_view(function, name, x);
  check(x.cols() >= 1 && x.cols() <= kernel::most_int8_dim, function, name, x.extent,
        Worded{"a dim of 1 to ", kernel::most_int8_dim});
  check_contiguous_rows(function, name, x);
  checked_count(function, name, checked_product(function, name, x.rows(), x.cols()), 1);
}

inline void dequantize_rows(const Int8View& rows, TensorView<float, 2> out) {
  constexpr const char* function = "linalg::dequantize_rows";
  check_int8_rows(function, "rows", rows);
  check_writable(function, "out", out);
  check_extents<2>(function, "out", out.extent, {rows.rows(), rows.dim()});
  check_no_overlap(function, "out", out, "rows", rows.codes);
  check_no_overlap(function, "out", out, "rows", to_view(rows.scales));
  for (Index r = 0; r < rows.rows(); ++r)
    for (Index c = 0; c < rows.dim(); ++c)
      out(r, c) = rows.scales[static_cast<std::size_t>(r)] * static_cast<float>(rows.codes(r, c));
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Rounds rows to bytes.
///
/// \param backend left out: pare::simd
/// \param x       [rows, dim] of float, bf16 or f16, rows contiguous, dim up to 65535
/// \param rows    made as large as needed, memory kept; apart from x
/// \throws std::invalid_argument if dim is 0 or too large, rows are not contiguous, or x lies in
///         rows. Nothing is written then.
///
/// Cost: one read of x and one write of a quarter of it (of float); a division for each register
/// binds in cache. The same bits for any number of threads, any arch and the reference.
template <Backend B, In<2> X>
requires detail::Int8Source<scalar_of<X>>
void quantize_rows(const B& backend, const X& x, Int8Rows& rows) {
  const auto from = as_const(to_view(x));
  detail::check_quantized("linalg::quantize_rows", "x", from);
  check_no_overlap("linalg::quantize_rows", "rows", to_view(rows.codes), "x", from);
  check_no_overlap("linalg::quantize_rows", "rows", to_view(rows.scales), "x", from);
  rows.codes.resize(from.rows(), from.cols());
  rows.scales.resize(static_cast<std::size_t>(from.rows()));
  detail::quantize_rows(on_any_executor(backend), from, rows.codes.data(), rows.scales.data());
}

/// The same, returned.
template <Backend B, In<2> X>
requires detail::Int8Source<scalar_of<X>>
Int8Rows quantize_rows(const B& backend, const X& x) {
  Int8Rows rows;
  quantize_rows(backend, x, rows);
  return rows;
}

/// \overload
template <In<2> X>
requires detail::Int8Source<scalar_of<X>>
Int8Rows quantize_rows(const X& x) {
  return quantize_rows(simd, x);
}

/// Writes rows of bytes out: scale times code.
///
/// \param rows Int8Rows, or an Int8View
/// \param out  [rows, dim] of float, written; apart from rows
/// \throws std::invalid_argument if rows are not whole, an extent does not fit, or out overlaps
///         rows. Nothing is written then.
///
/// Cost: one write of out, on the calling thread.
template <Int8RowsIn R, Out<2> O>
requires std::is_same_v<scalar_of<O>, float>
void dequantize_rows(const R& rows, O&& out) {
  detail::dequantize_rows(rows, to_view(out));
}

PARE_REFUSE_CALLS(quantize_rows, "linalg::quantize_rows", "after x: wanted Int8Rows, or nothing",
                  (PLAIN, (roles::Takes<detail::IsInt8Source>), "x",
                   "[rows, dim] of float, bf16 or f16"))
PARE_REFUSE_CALLS(dequantize_rows, "linalg::dequantize_rows", "after out: wanted nothing",
                  (PLAIN, (roles::Takes<detail::IsInt8Rows>), "rows", "Int8Rows or an Int8View"),
                  (OUTPUT, (roles::Writes<2>), "out", "[rows, dim] of float"))

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
