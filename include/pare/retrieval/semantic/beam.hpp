// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Paths of a beam search over a trie: one so far, and one that is a token longer.
///
/// ```cpp
/// const std::vector<Beam> beams{{}};  // the root, from which constrained_beam.hpp goes on
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/retrieval/semantic/id_trie.hpp>

#include <cstdint>

namespace pare::retrieval {
PARE_ABI_BEGIN

/// A path so far.
struct Beam {
  double score = 0;                  ///< the sum of its log-probabilities
  IdTrie::Node node = IdTrie::root;  ///< where it stands
};

/// A path that is one token longer.
struct BeamStep {
  double score = 0;
  IdTrie::Node node = IdTrie::root;
  Index parent = 0;        ///< which beam it continues
  std::int32_t token = 0;  ///< the last of its tokens
};

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
