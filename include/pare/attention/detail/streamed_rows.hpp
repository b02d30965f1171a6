// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which outputs are written past the caches.

#include <pare/core/tensor_view.hpp>
#include <pare/kernel/streaming.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Whether rows of out may go past the caches: they are large, and each begins a line.
template <class O>
bool streams_rows(const TensorView<O, 4>& out) {
  constexpr Index size{sizeof(O)};
  bool lines = reinterpret_cast<std::uintptr_t>(out.data) % 64 == 0;
  for (std::size_t d = 0; d < 3; ++d)
    lines = lines && (out.extent[d] == 1 || out.stride[d] * size % 64 == 0);
  return lines && out.extent[0] * out.extent[1] * out.extent[2] * out.extent[3] * size >=
                      kernel::streamed_bytes;
}

PARE_ABI_END
}  // namespace pare::attention::detail
