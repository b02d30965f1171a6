// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows of bytes in which programs exchange quantised tokens: codes, scales, rotary key.

#include <pare/core/check.hpp>
#include <pare/core/e4m3.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/detail/paged_rows.hpp>
#include <pare/latent/page_types.hpp>

#include <bit>
#include <cstddef>
#include <cstring>
#include <limits>
#include <span>

namespace pare::latent::detail {

static_assert(std::endian::native == std::endian::little,
              "pare: quantised rows are exchanged in little endian");

PARE_ABI_BEGIN

inline Index count_rows(const char* function, std::size_t size, Index row) {
  check(size % static_cast<std::size_t>(row) == 0, function, "rows", size,
        Worded{"bytes of whole rows of ", row});
  return static_cast<Index>(size) / row;
}

template <class Byte>
TensorView<Byte, 1> bytes_view(std::span<Byte> bytes) {
  return {bytes.data(), {static_cast<Index>(bytes.size())}, {1}};
}

/// Scales are control data: one that is NaN, 0 or below would spoil a tile without a word.
inline void check_scales(const char* function, std::span<const std::byte> rows, Index codes,
                         Index scales, Index row) {
  for (Index first = codes; first < static_cast<Index>(rows.size()); first += row)
    for (Index i = 0; i < scales; ++i) {
      float scale = 0;
      std::memcpy(&scale, rows.data() + first + 4 * i, sizeof(scale));
      check(is_finite(scale) && scale >= std::numeric_limits<float>::min(), function, "rows", scale,
            "scales that are normal numbers above 0");
    }
}

/// Copies parts of a row from or to bytes, one behind the other.
inline void from_packed(const std::byte* row, PageRow at, const PagedRows<e4m3>& codes,
                        const PagedRows<float>& scales, const PagedRows<bf16>& ropes) {
  const auto part = [&](auto* to, Index count) {
    const std::size_t size = static_cast<std::size_t>(count) * sizeof(*to);
    if (size > 0) std::memcpy(to, row, size);
    row += size;
  };
  part(codes.row(at), codes.width());
  part(scales.row(at), scales.width());
  part(ropes.row(at), ropes.width());
}

inline void to_packed(std::byte* row, PageRow at, const PagedRows<e4m3>& codes,
                      const PagedRows<float>& scales, const PagedRows<bf16>& ropes) {
  const auto part = [&](const auto* from, Index count) {
    const std::size_t size = static_cast<std::size_t>(count) * sizeof(*from);
    if (size > 0) std::memcpy(row, from, size);
    row += size;
  };
  part(codes.row(at), codes.width());
  part(scales.row(at), scales.width());
  part(ropes.row(at), ropes.width());
}

PARE_ABI_END
}  // namespace pare::latent::detail
