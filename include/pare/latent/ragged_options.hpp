// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of RaggedCache (ragged_cache.hpp).
///
/// ```cpp
/// const RaggedCacheOptions options{.kv_heads = 4, .group = 2, .key_dim = 64, .value_dim = 64,
///                                  .pages = 256, .order = {3, 0, 1, 2}};  // groups {3, 0}, {1, 2}
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value_source.hpp>
#include <pare/core/check.hpp>

#include <cstddef>
#include <vector>

namespace pare::latent {

PARE_ABI_BEGIN

/// What a RaggedCache holds. Sizes without a valid default must be given.
struct RaggedCacheOptions {
  Index kv_heads = 0;   ///< at least 1
  Index group = 1;      ///< heads of a group, a divisor of kv_heads
  Index key_dim = 0;    ///< at least 1
  Index value_dim = 0;  ///< at least 1
  Index pages = 0;      ///< at least 1; each has room for page_size tokens of a group
  Index page_size = 16;
  Index sequences = 1;
  /// The heads in the order in which they fill groups, each once: the first `group` of them are
  /// group 0. Sorted by how much they keep, little room is lost. Empty: 0, 1, 2, ...
  std::vector<Index> order{};

  /// These options. \throws std::invalid_argument if a size is out of its range, the group is no
  /// divisor, or the order does not have each head once
  const RaggedCacheOptions& validate(const char* function) const {
    check(kv_heads >= 1 && kv_heads <= attention::most_tokens, function, "kv_heads", kv_heads,
          "from 1 to below 2^30 heads");
    check(group >= 1 && kv_heads % group == 0, function, "group", group,
          Worded{"a divisor of the ", kv_heads, " heads"});
    check(key_dim >= 1, function, "key_dim", key_dim, "at least 1");
    check(value_dim >= 1, function, "value_dim", value_dim, "at least 1");
    check(sequences >= 0 && sequences <= attention::most_tokens / (kv_heads / group), function,
          "sequences", sequences, "at least 0, with groups of all below 2^30");
    const auto heads = static_cast<std::size_t>(kv_heads);
    check(order.empty() || order.size() == heads, function, "order", order.size(), kv_heads);
    std::vector<bool> seen(order.size());
    for (const Index h : order) {
      check(h >= 0 && h < kv_heads && !seen[static_cast<std::size_t>(h)], function, "order", h,
            Worded{"each head below ", kv_heads, " once"});
      seen[static_cast<std::size_t>(h)] = true;
    }
    return *this;
  }

  /// The place of each head in the order. The options must be valid.
  std::vector<Index> slots() const {
    std::vector<Index> slots(static_cast<std::size_t>(kv_heads));
    for (std::size_t i = 0; i < slots.size(); ++i)
      slots[order.empty() ? i : static_cast<std::size_t>(order[i])] = static_cast<Index>(i);
    return slots;
  }
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
