// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of ProxyAttn.
///
/// ```cpp
/// ProxyHeads policy{.groups = 4, .mass = 0.9f};
/// policy.budget = ProxyBudget::AllBlocks;  // the paper's formula as it stands
/// attend(q, k, v, out, policy);             // in proxy_heads.hpp
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/attention/selector.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>

#include <span>

namespace pare::attention {

/// The blocks that the share b_h / T of a head refers to.
enum class ProxyBudget {
  VisibleBlocks,  ///< of the blocks that the row can see, rounded up; not the paper's
  AllBlocks       ///< of all T blocks, for every row: the paper's formula as it stands
};

/// Options of ProxyAttn: a LayerSelector, which `attend` and `select_blocks` take.
struct ProxyHeads {
  /// A whole layer is selected for at once.
  static constexpr bool shares_rows = false;

  /// The heads are split into this many groups of consecutive heads; it divides the key/value
  /// heads. The paper uses 1 for Llama-3.1-8B, about 4 for Qwen2.5-7B-1M.
  Index groups = 1;

  /// Share of the attention mass of its last queries that a head keeps, gamma, in (0, 1]. The paper
  /// uses 0.95 for quality, 0.9 for speed. 1 is exact attention, and nothing is selected.
  float mass = 0.95f;

  /// In each row block, one query of every `stride_queries`, the first, is scored; 1 to row_block.
  /// The paper has one stride of 4; the cost that it reports tells that it is on this side.
  Index stride_queries = 4;

  /// In each column block, one key of every `stride_keys`, the first, is scored; 1 to column_block.
  /// At 1 no key can be missed. Not in the paper.
  Index stride_keys = 1;

  /// Queries and keys of a block, at least 1. The paper does not give them.
  Index row_block = 128;
  Index column_block = 128;

  /// The least number of keys that every row keeps, in tokens, rounded up to blocks; at least 0. As
  /// in the paper. Sequences of no more keys than this are exact.
  Index min_budget = 2048;

  /// How a head's budget becomes that of a row.
  ProxyBudget budget = ProxyBudget::VisibleBlocks;

  /// Every row keeps block 0, beyond its budget if need be. Not in the paper; similar methods do
  /// so.
  bool force_first = true;

  /// Every row keeps the blocks that its own queries stand in. Not in the paper; similar methods do
  /// so.
  bool force_diagonal = true;

  /// \throws std::invalid_argument if a member is out of its range, groups do not divide the
  /// key/value heads, there are more queries than keys, attention is not causal, or there is a key
  /// order.
  void validate(const char* function, const SelectorCall& call) const;

  /// Whether every row keeps all that it sees: at mass 1, or with no more keys than min_budget.
  bool keeps_all(const SelectorCall& call) const;

  /// Adds the blocks of every row of every head; defined in proxy_heads.hpp.
  template <class B, StorageScalar S>
  PARE_ALWAYS_INLINE double select_layer(const B& backend, const SelectorLayer<S>& layer,
                                         std::span<BlockLists> keep) const;
};

namespace detail {
PARE_ABI_BEGIN

inline void check_proxy(const char* function, const ProxyHeads& p, const SelectorCall& call) {
  check(p.groups >= 1 && call.kv_heads % p.groups == 0, function, "groups", p.groups,
        "at least 1, and a divisor of the key/value heads");
  check(is_finite(static_cast<double>(p.mass)) && p.mass > 0 && p.mass <= 1, function, "mass",
        p.mass, "a share in (0, 1]");
  check(p.stride_queries >= 1 && p.stride_queries <= p.row_block, function, "stride_queries",
        p.stride_queries, "1 to row_block");
  check(p.stride_keys >= 1 && p.stride_keys <= p.column_block, function, "stride_keys",
        p.stride_keys, "1 to column_block");
  check(p.min_budget >= 0, function, "min_budget", p.min_budget, "0 or a number of tokens");
  check_enumerator(function, "budget", p.budget, ProxyBudget::AllBlocks);
  check(call.causal, function, "causal", "false", "true with ProxyHeads");
  check(!call.ordered, function, "order", "a key order", "none with ProxyHeads");
  check(call.queries <= call.keys, function, "q", call.queries, "no more queries than keys");
}

/// Column blocks that every row keeps at least, if it sees them.
inline Index least_blocks(const ProxyHeads& p) { return ceil_div(p.min_budget, p.column_block); }

PARE_ABI_END
}  // namespace detail

inline void ProxyHeads::validate(const char* function, const SelectorCall& call) const {
  detail::check_proxy(function, *this, call);
}

inline bool ProxyHeads::keeps_all(const SelectorCall& call) const {
  return mass >= 1 || detail::least_blocks(*this) >= ceil_div(call.keys, column_block);
}

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
