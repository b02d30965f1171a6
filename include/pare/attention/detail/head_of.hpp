// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// One head of a tensor of heads.

#include <pare/core/tensor_view.hpp>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// A head of x [batch, heads, tokens, dim], as [tokens, dim].
template <class T>
TensorView<T, 2> head_of(TensorView<T, 4> x, Index batch, Index head) {
  return {x.data + batch * x.stride[0] + head * x.stride[1],
          {x.extent[2], x.extent[3]},
          {x.stride[2], x.stride[3]}};
}

PARE_ABI_END
}  // namespace pare::attention::detail
