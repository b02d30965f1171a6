// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows that a kernel will be given next, fetched into L2 while it works on what it has: where the
/// multiplier or L2 binds, memory would be idle, and then bind alone.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {

/// Rows of a matrix, of which only addresses are used.
struct RowsAhead {
  const void* first = nullptr;
  std::ptrdiff_t rows = 0;    ///< 0: nothing is fetched
  std::ptrdiff_t bytes = 0;   ///< of a row
  std::ptrdiff_t stride = 0;  ///< bytes from one row to the next
};

PARE_ABI_BEGIN

/// Asks for some lines of RowsAhead at each of so many turns, for all of them in the end.
class FetchAhead {
 public:
  FetchAhead(const RowsAhead& ahead, std::ptrdiff_t turns) noexcept
      : row_(static_cast<const char*>(ahead.first)),
        rows_(turns > 0 ? ahead.rows : 0),
        bytes_(ahead.bytes),
        stride_(ahead.stride),
        each_(rows_ > 0 ? (rows_ * ((bytes_ + line - 1) / line) + turns - 1) / turns : 0) {}

  PARE_ALWAYS_INLINE void turn() noexcept {
    for (std::ptrdiff_t i = 0; i < each_ && rows_ > 0; ++i) {
      prefetch<2>(row_ + byte_);
      byte_ += line;
      if (byte_ < bytes_) continue;
      byte_ = 0;
      row_ += stride_;
      --rows_;
    }
  }

 private:
  static constexpr std::ptrdiff_t line = 64;

  const char* row_;
  std::ptrdiff_t rows_, bytes_, stride_, each_, byte_ = 0;
};

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
