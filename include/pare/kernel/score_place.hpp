// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Where a score stands.

#include <pare/core/macros_off.hpp>

#include <cstdint>

namespace pare::kernel {

/// The place of one score in its batch: query `query` of `head` against the key at position `key`.
struct ScorePlace {
  std::int64_t batch = 0;           ///< or sequence, in a packed batch
  std::int64_t head = 0;            ///< query head
  std::int64_t query = 0;           ///< token of the sequence's queries
  std::int64_t query_position = 0;  ///< the same, counted as keys are: query + keys - queries
  std::int64_t key = 0;             ///< original position of the key, whatever the key order
};

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
