// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Products of a table of bytes with queries that are rounded to bytes: the definition, and what
/// lists those that reach a threshold.

#include <pare/core/backend.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/int8_dots.hpp>
#include <pare/linalg/int8_rows.hpp>
#include <pare/retrieval/detail/int8_queries.hpp>
#include <pare/retrieval/detail/top_k_run.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

using Int8TopK = TopKCall<linalg::Int8View, TensorView<const float, 2>, float>;

inline void reference_top_k_dot(const Int8TopK& c) {
  const linalg::Int8Rows queries = linalg::quantize_rows(reference, c.queries);
  const linalg::Int8View view = queries;
  reference_top_k(c, c.table.rows(), c.queries.rows(),
                  [&](Index i, Index j) { return reference_int8_score(view, i, c.table, j); });
}

template <class B>
class Int8Dots {
 public:
  using T = float;
  struct Room {
    std::int32_t *products = nullptr, *widened = nullptr;
  };

  Int8Dots(const B& backend, const Int8TopK& call) : backend_(backend), c_(call) {}

  Index rows() const { return c_.table.rows(); }
  Index queries() const { return c_.queries.rows(); }

  void pack(AlignedBuffer<std::byte>& memory) {
    packed_.pack(backend_, c_.queries,
                 are_few() ? kernel::Int8Order::Depth : kernel::Int8Order::Lanes, memory);
  }

  void carve(Room& room, Carver& take) const {
    if (are_few()) return;
    take(room.products, kernel::padded_columns<float>(queries()) * kernel::max_dot_rows);
    take(room.widened, kernel::int8_row_words(c_.table.dim()) * kernel::max_dot_rows);
  }

  void list(Index row, Index count, const Room& room, const kernel::DotLists<float>& lists) const {
    const kernel::Int8Operands operands = packed_.with(c_.table, row);
    const auto first = static_cast<std::uint32_t>(row);
    if (are_few())
      launch(backend_, kernel::SelectFewInt8Dots{operands, count, first, lists});
    else
      launch(backend_,
             kernel::SelectInt8Dots{operands, count, first, room.products, room.widened, lists});
  }

 private:
  bool are_few() const { return queries() <= few_queries; }

  const B& backend_;
  const Int8TopK& c_;
  Int8Queries packed_;
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
