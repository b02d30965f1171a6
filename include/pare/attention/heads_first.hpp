// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Tensors of PyTorch's and FlashAttention's layout, [batch, tokens, heads, dim], for attention.
///
/// ```cpp
/// attend(heads_first(q), heads_first(k), heads_first(v), heads_first(out), {.causal = true});
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/tensor_view.hpp>

#include <utility>

namespace pare::attention {

/// The view [batch, heads, tokens, dim] of a tensor that lies in memory as [batch, tokens, heads,
/// dim]; nothing moves, and what attention writes to the view is in the tensor. Throws nothing.
///
/// \param x a tensor or view of rank 4 that outlives the view; a temporary that owns its elements
///          is not taken
template <class X>
requires(view_of<X>::rank == 4 && !pare::detail::OwningRvalue<X>)
view_of<X> heads_first(X&& x) {
  view_of<X> v = to_view(x);
  std::swap(v.extent[1], v.extent[2]);
  std::swap(v.stride[1], v.stride[2]);
  return v;
}

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
