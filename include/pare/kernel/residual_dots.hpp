// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// MaxSim of rows that are stored as a centroid and a residual of few bits, which are never written
/// out to memory: a product is that of the centroid, looked up, plus that of the residual.
///
/// Where bytes are multiplied in fours, a row's residuals become bytes of a tile in L1, and queries
/// bytes with a scale each: a quarter of the instructions of float. Elsewhere they become floats.
///
/// Codes of a row lie in planes: with p bytes a row, bits [b k, b (k + 1)) of byte i, b bits a
/// code, are the code of dimension k p + i. A plane is then a shift, a mask and a look-up.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gemm.hpp>
#include <pare/kernel/max_dots.hpp>
#include <pare/kernel/row_maxima.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace pare::kernel {

/// What codes stand for.
struct ResidualLevels {
  int bits = 4;                             ///< 1, 2 or 4
  std::array<float, 16> values{};           ///< of 2^bits codes
  std::array<std::uint8_t, 16> in_bytes{};  ///< (value - least) / step, rounded
  float least = 0;
  float step = 0;

  PARE_ALWAYS_INLINE std::ptrdiff_t planes() const noexcept { return 8 / bits; }
};

/// Queries for ScoreResiduals. Cost: a pass over them, number by number.
struct PackResidualQueries {
  const float* const* queries = nullptr;  ///< [columns] rows of dim numbers
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t dim = 0;
  std::ptrdiff_t depth = 0;  ///< planes times bytes of a row
  ResidualLevels levels{};
  float* panels = nullptr;   ///< [(columns + 64) x depth], written
  float* factors = nullptr;  ///< [padded columns], written: what sums of products are multiplied by
  float* offsets = nullptr;  ///< [padded columns], written: what is added to them
};

/// table[c][i] = <q_i, centroid c> + offset i. Cost: 2 count columns dim FLOPs, which bind.
struct MultiplyCentroids {
  const float* packed = nullptr;  ///< queries by PackTransposed, PanelWidth::Lanes
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t dim = 0;
  const float* centroids = nullptr;  ///< [count x dim]
  std::ptrdiff_t count = 0;
  const float* offsets = nullptr;
  float* table = nullptr;  ///< [count x padded columns], aligned, written
};

/// score_d = sum_i max_j (<q_i, centroid of row j> + <q_i, residual of row j>) scale_j, as MaxDots.
///
/// Cost: 2 rows columns depth operations, of bytes 4 of which take the time of one of float; then
/// 4 bytes a row and column of the table are read from L2.
struct ScoreResiduals {
  const float* panels = nullptr;
  const float* factors = nullptr;
  const float* table = nullptr;
  std::ptrdiff_t depth = 0;
  ResidualLevels levels{};
  const std::uint8_t* codes = nullptr;  ///< of row 0
  std::ptrdiff_t row_bytes = 0;
  const std::uint32_t* centroids = nullptr;  ///< of each row
  const float* scales = nullptr;             ///< of each row
  float* products = nullptr;                 ///< [max_dot_rows x padded columns], aligned; scratch
  float* decoded = nullptr;                  ///< [max_dot_rows x depth], scratch
  DocumentScores<float> documents{};
};

namespace detail {
PARE_ABI_BEGIN

/// What residuals are multiplied as.
template <class Arch>
using residual_element = std::conditional_t<multiplies_bytes<Arch>, ByteQuad, float>;

/// Writes one query into its lane of the panels, factor and offset beside it.
template <class Arch>
void pack_residual_query(const PackResidualQueries& a, std::ptrdiff_t query) noexcept {
  using E = residual_element<Arch>;
  constexpr std::ptrdiff_t n = lanes<float, Arch>, width = lane_columns<float, Arch>;
  const std::ptrdiff_t begin = query / width * width, steps = steps_of<E>(a.depth);
  const std::ptrdiff_t left = (a.columns - begin + n - 1) / n * n;
  const std::ptrdiff_t panel_width = left < width ? left : width;
  const float* const q = a.queries[query];
  float largest = 0;
  bool finite = true;
  for (std::ptrdiff_t c = 0; c < a.dim; ++c) {
    finite = finite && std::isfinite(q[c]);
    const float size = q[c] < 0 ? -q[c] : q[c];
    largest = size > largest ? size : largest;
  }
  // In double, in which the inverse of every float is finite.
  const double unit = finite && largest > 0 ? 127 / static_cast<double>(largest) : 0;
  float* const lane = a.panels + begin * steps + (query - begin);
  if constexpr (multiplies_bytes<Arch>) {
    std::int32_t sum = 0;
    for (std::ptrdiff_t s = 0; s < steps; ++s) {
      std::uint32_t quad = 0;
      for (std::ptrdiff_t i = 0; i < 4; ++i) {
        const std::ptrdiff_t c = 4 * s + i;
        const double x = c < a.dim && finite ? static_cast<double>(q[c]) * unit : 0;
        const auto byte = static_cast<std::int32_t>(x + (x < 0 ? -0.5 : 0.5));
        sum += byte;
        quad |= (static_cast<std::uint32_t>(byte) & 0xff) << (8 * i);
      }
      reinterpret_cast<ByteQuad*>(lane)[s * panel_width] = ByteQuad{quad};
    }
    const float scale = finite ? largest / 127 : std::numeric_limits<float>::quiet_NaN();
    a.factors[query] = scale * a.levels.step;
    a.offsets[query] = scale * a.levels.least * static_cast<float>(sum);
  } else {
    for (std::ptrdiff_t c = 0; c < a.depth; ++c)
      lane[c * panel_width] = c < a.dim && finite ? q[c] : 0;
    a.factors[query] = finite ? 1 : std::numeric_limits<float>::quiet_NaN();
    a.offsets[query] = 0;
  }
}

/// The numbers of one plane of a row.
template <class Arch>
void widen_plane(const ResidualLevels& levels, const std::uint8_t* codes, std::ptrdiff_t bytes,
                 int shift, int mask, float* out) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>, most = 64;
  for (std::ptrdiff_t begin = 0; begin < bytes; begin += most) {
    std::uint8_t places[most];
    const std::ptrdiff_t count = bytes - begin < most ? bytes - begin : most;
    for (std::ptrdiff_t i = 0; i < count; ++i)
      places[i] = static_cast<std::uint8_t>((codes[begin + i] >> shift) & mask);
    std::ptrdiff_t i = 0;
    for (; i + n <= count; i += n)
      store<Arch>(out + begin + i, look_up<Arch>(levels.values.data(),
                                                 static_cast<const std::uint8_t*>(places) + i));
    for (; i < count; ++i) out[begin + i] = levels.values[places[i]];
  }
}

/// Rows from `row` on as elements, `depth` scalars each.
template <class Arch>
void decode_residuals(const ScoreResiduals& a, std::ptrdiff_t row, std::ptrdiff_t count) noexcept {
  const int bits = a.levels.bits, mask = (1 << bits) - 1;
  const std::uint8_t* codes = a.codes + row * a.row_bytes;
  if constexpr (multiplies_bytes<Arch>) {
    look_up_planes<Arch>(codes, count, a.row_bytes, bits, a.levels.in_bytes.data(),
                         reinterpret_cast<std::uint8_t*>(a.decoded));
  } else {
    float* out = a.decoded;
    for (std::ptrdiff_t r = 0; r < count; ++r, codes += a.row_bytes)
      for (int shift = 0; shift < 8; shift += bits, out += a.row_bytes)
        widen_plane<Arch>(a.levels, codes, a.row_bytes, shift, mask, out);
  }
}

/// The product of row r of a tile, which begins at row `row`, from the sum of its residual's.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> whole_product(const ScoreResiduals& a, std::ptrdiff_t row,
                                                  std::ptrdiff_t stride, std::ptrdiff_t r,
                                                  std::ptrdiff_t column) noexcept {
  using T = typename product<residual_element<Arch>>::sum;
  const float* const at = a.products + r * stride + column;
  vec<float, Arch> sum;
  if constexpr (std::is_same_v<T, float>)
    sum = load<Arch>(at);
  else
    sum = to_floats<Arch>(load<Arch>(reinterpret_cast<const T*>(at)));
  const float* const centroid =
      a.table + static_cast<std::ptrdiff_t>(a.centroids[row + r]) * stride + column;
  return multiply_add<Arch>(sum, load<Arch>(a.factors + column), load<Arch>(centroid)) *
         broadcast<Arch>(a.scales[row + r]);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch>
void run_kernel(Arch, const PackResidualQueries& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  const std::ptrdiff_t written = (a.columns + n - 1) / n * n * a.depth;
  for (std::ptrdiff_t i = 0; i < written; ++i) a.panels[i] = 0;
  for (std::ptrdiff_t i = 0; i < padded_columns<float>(a.columns); ++i)
    a.factors[i] = a.offsets[i] = 0;
  for (std::ptrdiff_t i = 0; i < a.columns; ++i) detail::pack_residual_query<Arch>(a, i);
}

template <class Arch>
void run_kernel(Arch, const MultiplyCentroids& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  const std::ptrdiff_t stride = padded_columns<float>(a.columns);
  for (std::ptrdiff_t c = 0; c < a.count;) {
    const std::ptrdiff_t count = detail::max_dot_group(a.count - c);
    detail::multiply_by_queries<Arch>(count, a.centroids + c * a.dim, a.dim, a.packed, a.columns,
                                      a.dim, a.table + c * stride, stride, {});
    for (std::ptrdiff_t r = 0; r < count; ++r)
      for (std::ptrdiff_t i = 0; i < a.columns; i += n) {
        float* const out = a.table + (c + r) * stride + i;
        store<Arch>(out, load<Arch>(static_cast<const float*>(out)) + load<Arch>(a.offsets + i));
      }
    c += count;
  }
}

template <class Arch>
void run_kernel(Arch, const ScoreResiduals& a) noexcept {
  using E = detail::residual_element<Arch>;
  using T = typename product<E>::sum;
  const DocumentScores<float>& d = a.documents;
  const std::ptrdiff_t stride = padded_columns<float>(d.columns);
  RowMaxima<Arch, float> maxima(d);
  const std::ptrdiff_t end = d.offsets[d.documents], steps = steps_of<E>(a.depth);
  for (std::ptrdiff_t row = d.offsets[0]; row < end;) {
    const std::ptrdiff_t count = detail::max_dot_group(end - row);
    detail::decode_residuals<Arch>(a, row, count);
    detail::multiply_by_queries<Arch>(count, reinterpret_cast<const E*>(a.decoded), steps,
                                      reinterpret_cast<const E*>(a.panels), d.columns, a.depth,
                                      reinterpret_cast<T*>(a.products), stride, {});
    maxima.take(count,
                [&a, row, stride](std::ptrdiff_t r, std::ptrdiff_t column) PARE_LAMBDA_INLINE {
                  return detail::whole_product<Arch>(a, row, stride, r, column);
                });
    row += count;
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
