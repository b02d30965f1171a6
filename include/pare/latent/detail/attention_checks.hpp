// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What conversions that take rotary dimensions apart ask of a layer's weights.

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/convert/attention_shape.hpp>
#include <pare/latent/detail/conversion_checks.hpp>

namespace pare::latent::detail {
PARE_ABI_BEGIN

/// \return numbers of a value head
template <StorageScalar S>
Index check_attention(const char* function, const AttentionShape& shape,
                      TensorView<const S, 2> query, TensorView<const S, 2> key,
                      TensorView<const S, 2> value) {
  shape.validate(function);
  check_weight(function, "query", query);
  check_key_value(function, key, value);
  check_extents<2>(function, "query", query.extent, {shape.heads * shape.head_dim, key.cols()});
  check_extents<2>(function, "key", key.extent, {shape.kv_heads * shape.head_dim, key.cols()});
  check(value.rows() % shape.kv_heads == 0, function, "value", value.extent,
        Worded{"rows that are a multiple of kv_heads, ", shape.kv_heads});
  return value.rows() / shape.kv_heads;
}

PARE_ABI_END
}  // namespace pare::latent::detail
