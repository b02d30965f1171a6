// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Panels: a few rows of a matrix, stored so that one register holds one column of them.
///
/// Element (r, c) of a panel is at `c * panel_rows<T> + r`. A kernel that works on all rows of a
/// panel at once then needs no gather, whichever way the matrix was stored.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {

/// Rows of a panel: 128 bytes of them, two registers of AVX-512, two cache lines.
template <class T>
inline constexpr std::ptrdiff_t panel_rows = static_cast<std::ptrdiff_t>(128 / sizeof(T));

/// Copies rows x columns elements of a strided matrix into a panel, widening 16-bit storage. Rows
/// past `rows` are filled with zeros. Cost: each element read once and written once.
template <StorageScalar Source, ComputeScalar T>
struct PackPanel {
  const Source* source = nullptr;
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t column_stride = 0;
  std::ptrdiff_t rows = 0;  ///< at most panel_rows<T>
  std::ptrdiff_t columns = 0;
  T* panel = nullptr;  ///< [columns * panel_rows<T>]
};

/// Writes a panel to a strided matrix: out = scale * (panel), or scale * (out + panel) to add.
template <ComputeScalar T>
struct UnpackPanel {
  const T* panel = nullptr;  ///< [columns * panel_rows<T>]
  std::ptrdiff_t rows = 0;   ///< at most panel_rows<T>; rows past it are not written
  std::ptrdiff_t columns = 0;
  T* out = nullptr;
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t column_stride = 0;
  T scale = 1;
  bool add = false;
  /// Write past the caches: for an `out` larger than them. It is then aligned to 64 bytes, its rows
  /// too, and its columns are contiguous.
  bool stream = false;
};

namespace detail {
PARE_ABI_BEGIN

template <class Source>
compute_t<Source> widen(Source value) noexcept {
  return static_cast<compute_t<Source>>(value);
}

/// Columns [from, columns), element by element: any strides, and the tails of the fast forms.
template <class Source, class T>
void pack_elements(const PackPanel<Source, T>& a, std::ptrdiff_t from) noexcept {
  for (std::ptrdiff_t c = from; c < a.columns; ++c) {
    T* column = a.panel + c * panel_rows<T>;
    const Source* source = a.source + c * a.column_stride;
    for (std::ptrdiff_t r = 0; r < a.rows; ++r) column[r] = widen(source[r * a.row_stride]);
    for (std::ptrdiff_t r = a.rows; r < panel_rows<T>; ++r) column[r] = T(0);
  }
}

/// Bytes ahead of what is packed that are fetched from each row. The hardware does not follow as
/// many rows at once; farther ahead, lines are evicted before their turn.
inline constexpr std::ptrdiff_t pack_prefetch_bytes = 768;

/// Rows are contiguous: square blocks are transposed in registers.
template <class Arch, class Source, class T>
void pack_transposed(const PackPanel<Source, T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t whole = a.columns / n * n;
  const auto row_bytes = a.row_stride * static_cast<std::ptrdiff_t>(sizeof(Source));
  for (std::ptrdiff_t r = 0; r < panel_rows<T>; r += n) {
    for (std::ptrdiff_t c = 0; c < whole; c += n) {
      vec<T, Arch> block[static_cast<std::size_t>(n)];
      const Source* source = a.source + (r < a.rows ? r : 0) * a.row_stride + c;
      for (std::ptrdiff_t i = 0; i < n; ++i)
        prefetch<2>(source, i * row_bytes + pack_prefetch_bytes);
      for (std::ptrdiff_t i = 0; i < n; ++i)
        block[i] =
            r + i < a.rows ? load_widened<Arch>(source + i * a.row_stride) : broadcast<Arch>(T(0));
      transpose_block<Arch>(block);
      for (std::ptrdiff_t i = 0; i < n; ++i)
        store<Arch>(a.panel + (c + i) * panel_rows<T> + r, block[i]);
    }
  }
  pack_elements(a, whole);
}

/// Columns are contiguous: they are copied.
template <class Arch, class Source, class T>
void pack_copied(const PackPanel<Source, T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  for (std::ptrdiff_t c = 0; c < a.columns; ++c)
    for (std::ptrdiff_t r = 0; r < panel_rows<T>; r += n)
      store<Arch>(a.panel + c * panel_rows<T> + r,
                  load_widened<Arch>(a.source + c * a.column_stride + r));
}

template <class T>
T finished(const UnpackPanel<T>& a, T sum, const T& out) noexcept {
  return a.scale * (a.add ? out + sum : sum);
}

template <class T>
void unpack_elements(const UnpackPanel<T>& a, std::ptrdiff_t from) noexcept {
  for (std::ptrdiff_t c = from; c < a.columns; ++c)
    for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
      T& out = a.out[r * a.row_stride + c * a.column_stride];
      out = finished(a, a.panel[c * panel_rows<T> + r], out);
    }
}

template <class Arch, class T>
PARE_ALWAYS_INLINE void finish_at(const UnpackPanel<T>& a, vec<T, Arch> sum, T* out) noexcept {
  if (a.add) sum = load<Arch>(static_cast<const T*>(out)) + sum;
  if (a.stream)
    store_streaming<Arch>(out, broadcast<Arch>(a.scale) * sum);
  else
    store<Arch>(out, broadcast<Arch>(a.scale) * sum);
}

template <class Arch, class T>
void unpack_transposed(const UnpackPanel<T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t whole = a.columns / n * n;
  for (std::ptrdiff_t r = 0; r < a.rows; r += n) {
    for (std::ptrdiff_t c = 0; c < whole; c += n) {
      vec<T, Arch> block[static_cast<std::size_t>(n)];
      for (std::ptrdiff_t i = 0; i < n; ++i)
        block[i] = load<Arch>(a.panel + (c + i) * panel_rows<T> + r);
      transpose_block<Arch>(block);
      for (std::ptrdiff_t i = 0; i < n && r + i < a.rows; ++i)
        finish_at<Arch>(a, block[i], a.out + (r + i) * a.row_stride + c);
    }
  }
  unpack_elements(a, whole);
}

template <class Arch, class T>
void unpack_copied(const UnpackPanel<T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  for (std::ptrdiff_t c = 0; c < a.columns; ++c)
    for (std::ptrdiff_t r = 0; r < panel_rows<T>; r += n)
      finish_at<Arch>(a, load<Arch>(a.panel + c * panel_rows<T> + r),
                      a.out + c * a.column_stride + r);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class Source, class T>
void run_kernel(Arch, const PackPanel<Source, T>& a) noexcept {
  if (a.column_stride == 1 && a.rows > 1)
    detail::pack_transposed<Arch>(a);
  else if (a.row_stride == 1 && a.rows == panel_rows<T>)
    detail::pack_copied<Arch>(a);
  else
    detail::pack_elements(a, 0);
}

template <class Arch, class T>
void run_kernel(Arch, const UnpackPanel<T>& a) noexcept {
  if (a.column_stride == 1 && a.rows > 1)
    detail::unpack_transposed<Arch>(a);
  else if (a.row_stride == 1 && a.rows == panel_rows<T>)
    detail::unpack_copied<Arch>(a);
  else
    detail::unpack_elements(a, 0);
  if (a.stream) streaming_fence<Arch>();
}
PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
