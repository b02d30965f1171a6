// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What ProxyAttn can be told.
///
/// ```cpp
/// ProxyHeads policy{.groups = 4, .mass = 0.9f};
/// policy.budget = ProxyBudget::AllBlocks;  // the paper's formula as it stands
/// attend(q, k, v, out, policy);             // in proxy_heads.hpp
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

namespace pare::attention {

/// What the share b_h / T of a head is a share of.
enum class ProxyBudget {
  VisibleBlocks,  ///< of the blocks that the row can see, rounded up; not the paper's
  AllBlocks       ///< of all T blocks, for every row: the paper's formula as it stands
};

/// Options of ProxyAttn, and the policy that `attend` and `select_blocks` take.
struct ProxyHeads {
  /// Groups that the heads are split into, consecutive ones; divides the key/value heads. The paper
  /// uses 1 for Llama-3.1-8B, about 4 for Qwen2.5-7B-1M.
  Index groups = 1;

  /// Share of the attention mass of its last queries that a head keeps, gamma, in (0, 1]. The paper
  /// uses 0.95 for quality, 0.9 for speed. 1 is exact attention, and nothing is selected.
  float mass = 0.95f;

  /// Of each row block the first of every `stride_queries` queries is scored, 1 to row_block. The
  /// paper has one stride of 4; that it is on this side follows from the cost it reports.
  Index stride_queries = 4;

  /// Of each column block the first of every `stride_keys` keys is scored, 1 to column_block. At 1
  /// no key can be missed. Not the paper's.
  Index stride_keys = 1;

  /// Queries and keys of a block, at least 1. Not given by the paper.
  Index row_block = 128;
  Index column_block = 128;

  /// Keys that every row keeps at least, in tokens, rounded up to blocks; at least 0. The paper's.
  /// Sequences of no more keys are exact.
  Index min_budget = 2048;

  /// How a head's budget becomes that of a row.
  ProxyBudget budget = ProxyBudget::VisibleBlocks;

  /// Every row keeps block 0, on top of its budget if need be. Not the paper's; its peers do so.
  bool force_first = true;

  /// Every row keeps the blocks that its own queries stand in. Not the paper's; its peers do so.
  bool force_diagonal = true;
};

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
