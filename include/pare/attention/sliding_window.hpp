// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Choosing the blocks of a sliding window and of the first tokens.
///
/// ```cpp
/// const SlidingWindow recent{.window = 4096, .sinks = 4};
/// const auto blocks = select_blocks(q, k, recent, {.causal = true});
/// attend(q, k, v, out, {.causal = true, .mask = &blocks});
/// ```
///
/// Xiao et al., "Efficient Streaming Language Models with Attention Sinks" (StreamingLLM, arXiv
/// 2309.17453): a query sees recent tokens and a few first ones. A block is selected if it holds a
/// visible key, so some keys outside the window come with it. AttendOptions::window and
/// AttendOptions::sinks hide those too, and need no mask. As a mask, the window combines with other
/// selections.

#include <pare/core/macros_off.hpp>

#include <pare/attention/select_blocks.hpp>
#include <pare/attention/selector.hpp>
#include <pare/core/check.hpp>

#include <algorithm>
#include <limits>

namespace pare::attention {

PARE_ABI_BEGIN

/// A BlockSelector that looks at positions alone. A query at p sees the keys in (p - window, p]
/// (without causality those with |p - j| < window), and the keys below `sinks`.
struct SlidingWindow {
  Index row_block = 128;     ///< queries of a block, at least 1
  Index column_block = 128;  ///< keys of a block, at least 1

  /// Tokens, 1 to 2^31 - 1. The default is ours; StreamingLLM takes what fits the cache.
  Index window = 1024;

  /// First tokens that stay visible, at least 0; StreamingLLM's default.
  Index sinks = 4;

  /// Choosing takes little time: one thread does all rows of a head.
  static constexpr bool shares_rows = false;

  /// \throws std::invalid_argument if a block size, the window or sinks are out of range, or there
  /// is a key order, which would scatter the window.
  void validate(const char* function, const SelectorCall& call) const;

  /// Whether the window holds all keys.
  bool keeps_all(const SelectorCall& call) const { return call.keys <= window; }

  /// Adds the blocks of every row and returns NaN, since no attention is looked at. Cost: one step
  /// for each block chosen.
  template <class B, StorageScalar S>
  PARE_ALWAYS_INLINE double select(const B& backend, const SelectorHead<S>& head,
                                   BlockLists& blocks) const;
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

inline void check_window(const char* function, const SlidingWindow& options) {
  check(options.row_block >= 1, function, "row_block", options.row_block, "at least 1");
  check(options.column_block >= 1, function, "column_block", options.column_block, "at least 1");
  check(options.window >= 1 && options.window <= std::numeric_limits<std::int32_t>::max(), function,
        "window", options.window, "a number of tokens from 1 to 2^31 - 1");
  check(options.sinks >= 0, function, "sinks", options.sinks, "at least 0");
}

/// Adds the blocks that hold a key in [begin, end) to row m.
inline void add_keys(Index m, Index begin, Index end, Index column_block, BlockLists& blocks) {
  if (begin >= end) return;
  for (Index n = begin / column_block; n <= (end - 1) / column_block; ++n) blocks.add(m, n);
}

template <class S>
void select_window(const SelectorHead<S>& head, const SlidingWindow& options, BlockLists& blocks) {
  const Index keys = head.k.rows();
  for (Index m = 0; m < blocks.rows(); ++m) {
    const Index first = head.position(m * options.row_block);
    const Index last = head.position(std::min((m + 1) * options.row_block, head.q.rows()) - 1);
    const Index end = std::min(keys, head.causal ? last + 1 : last + options.window);
    add_keys(m, std::max(Index{0}, first - options.window + 1), end, options.column_block, blocks);
    add_keys(m, 0, std::min(options.sinks, head.causal ? end : keys), options.column_block, blocks);
  }
}

/// The same by the definition, key by key.
template <class S>
void reference_select_window(const SelectorHead<S>& head, const SlidingWindow& options,
                             BlockLists& blocks) {
  for (Index i = 0; i < head.q.rows(); ++i)
    for (Index j = 0; j < head.k.rows(); ++j) {
      const Index p = head.position(i);
      if (head.causal && j > p) continue;
      if (j < options.sinks || (p - j < options.window && j - p < options.window))
        blocks.add(i / options.row_block, j / options.column_block);
    }
}

PARE_ABI_END
}  // namespace detail

inline void SlidingWindow::validate(const char* function, const SelectorCall& call) const {
  detail::check_window(function, *this);
  check(!call.ordered, function, "order", "a key order", "none for a sliding window");
}

template <class B, StorageScalar S>
PARE_ALWAYS_INLINE double SlidingWindow::select(const B&, const SelectorHead<S>& head,
                                                BlockLists& blocks) const {
  if constexpr (KernelBackend<B>)
    detail::select_window(head, *this, blocks);
  else
    detail::reference_select_window(head, *this, blocks);
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
