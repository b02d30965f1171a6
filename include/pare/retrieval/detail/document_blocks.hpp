// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Documents cut into items of work by their tokens.

#include <pare/core/check.hpp>

#include <algorithm>
#include <span>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// Item i has the documents that begin in tokens [i block, (i + 1) block), whatever the threads.
class DocumentBlocks {
 public:
  explicit DocumentBlocks(std::span<const Index> offsets) : offsets_(offsets) {}

  Index documents() const { return static_cast<Index>(offsets_.size()) - 1; }
  Index items() const { return documents() == 0 ? 0 : offsets_.back() / block + 1; }
  /// The first document of an item; of `items()` the end.
  Index begin(Index item) const {
    return std::lower_bound(offsets_.begin(), offsets_.end() - 1, item * block,
                            [](Index offset, Index token) { return offset < token; }) -
           offsets_.begin();
  }

 private:
  /// 512 KiB of tokens of 128 floats: the last tiles of an item are smaller, at most 4 of some 85.
  static constexpr Index block = 1024;

  std::span<const Index> offsets_;
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
