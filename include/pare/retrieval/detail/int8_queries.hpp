// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Queries of float for rows of bytes: rounded to bytes themselves, and packed.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/kernel/int8_dots.hpp>
#include <pare/kernel/int8_elements.hpp>
#include <pare/kernel/int8_rows.hpp>
#include <pare/linalg/int8_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// The score of a row and a query, in the roundings of float that kernel/int8_dots.hpp names.
inline float reference_int8_score(const linalg::Int8View& queries, Index i,
                                  const linalg::Int8View& rows, Index j) {
  std::int64_t sum = 0;
  for (Index c = 0; c < rows.dim(); ++c)
    sum += std::int64_t{queries.codes(i, c)} * std::int64_t{rows.codes(j, c)};
  return static_cast<float>(sum) * queries.scales[static_cast<std::size_t>(i)] *
         rows.scales[static_cast<std::size_t>(j)];
}

inline void check_int8_queries(const char* function, TensorView<const float, 2> queries,
                               Index dim) {
  check_view(function, "queries", queries);
  check(queries.cols() == dim, function, "queries", queries.extent,
        Worded{"the dim of the rows of bytes, ", dim});
  check_contiguous_rows(function, "queries", queries);
  // What queries are packed into, and their products with the rows of a tile.
  const Index columns = checked_sum(function, "queries", queries.rows(), 64);
  const Index most = std::max(kernel::int8_row_words(dim), kernel::max_dot_rows + 1);
  checked_count(function, "queries", checked_product(function, "queries", columns, most),
                2 * sizeof(float));
}

/// Queries rounded to bytes and packed, in the memory of a call.
class Int8Queries {
 public:
  template <class B>
  void pack(const B& backend, TensorView<const float, 2> queries, kernel::Int8Order order,
            AlignedBuffer<std::byte>& memory) {
    const Index count = count_ = queries.rows(), dim = queries.cols();
    const Index columns = kernel::padded_columns<float>(count);
    std::int8_t* codes = nullptr;
    carve_from(memory, [&](Carver& take) {
      take(codes, count * dim);
      take(packed_, (count + 64) * kernel::int8_row_words(dim));
      take(offsets_, columns);
      take(factors_, columns);
    });
    std::fill_n(factors_, columns, 0.0f);
    launch(backend, kernel::QuantizeInt8Rows<float>{queries.data, queries.stride[0], codes, dim,
                                                    factors_, count, dim});
    launch(backend, kernel::PackInt8Queries{codes, count, dim, packed_, offsets_, order});
  }

  /// With the rows of a table from `row` on.
  kernel::Int8Operands with(const linalg::Int8View& table, Index row) const {
    return {packed_,
            offsets_,
            factors_,
            count_,
            table.dim(),
            table.codes.data + row * table.codes.stride[0],
            table.codes.stride[0],
            table.scales.data() + row};
  }

 private:
  std::int32_t *packed_ = nullptr, *offsets_ = nullptr;
  float* factors_ = nullptr;
  Index count_ = 0;
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
