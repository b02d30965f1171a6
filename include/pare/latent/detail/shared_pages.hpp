// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Pages that are free, or shared by so many.

#include <pare/attention/key_value_source.hpp>
#include <pare/core/check.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace pare::latent::detail {
PARE_ABI_BEGIN

/// The pages, if both sizes are in their ranges.
inline Index checked_pages(const char* function, Index pages, Index page_size) {
  check(pages >= 1 && pages <= std::numeric_limits<std::int32_t>::max(), function, "pages", pages,
        "from 1 to below 2^31 pages");
  check(page_size >= 1 && page_size <= attention::most_tokens, function, "page_size", page_size,
        "from 1 to below 2^30 tokens");
  return pages;
}

/// Counts who shares each page. The free page that comes next is the one given back last.
class SharedPages {
 public:
  explicit SharedPages(Index pages) : sharers_(static_cast<std::size_t>(pages)) {
    free_.reserve(sharers_.size());
    for (Index i = pages; i-- > 0;) free_.push_back(static_cast<std::int32_t>(i));
  }

  Index size() const { return static_cast<Index>(sharers_.size()); }
  Index free() const { return static_cast<Index>(free_.size()); }
  Index sharers(Index page) const { return sharers_[static_cast<std::size_t>(page)]; }

  /// A free page, of which there is one; its taker is the only one to have it.
  std::int32_t take() {
    const std::int32_t page = free_.back();
    free_.pop_back();
    share(page);
    return page;
  }
  void share(std::int32_t page) { ++sharers_[static_cast<std::size_t>(page)]; }
  void give_back(std::int32_t page) {
    if (--sharers_[static_cast<std::size_t>(page)] == 0) free_.push_back(page);
  }
  /// A page of its own for a sharer; the caller makes the copy.
  std::int32_t exchange(std::int32_t page) {
    const std::int32_t own = take();
    give_back(page);
    return own;
  }

 private:
  std::vector<std::int32_t> sharers_;  ///< of each page
  std::vector<std::int32_t> free_;
};

PARE_ABI_END
}  // namespace pare::latent::detail
