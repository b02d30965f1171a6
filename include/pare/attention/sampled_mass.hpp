// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Choosing the blocks that hold the most softmax mass of a layer, judged by a sample of its
/// queries.
///
/// ```cpp
/// const auto stats = attend(q, k, v, out, SampledMass{.share = 0.25});  // causal
/// const auto blocks = select_blocks(q, k, SampledMass{.share = 0.25}, {.causal = true});
/// attend(q, k, v, out, {.causal = true, .mask = &blocks});              // the same in two steps
/// ```
///
/// Ours; there is no paper. In a row of blocks, one of every `stride` queries attends to all keys
/// that it sees. Block (m, n) gets the mass that these queries i of row m give the keys j of column
/// block n:
///
///     A_mn = mean_i sum_j softmax_j(scale q_i.k_j).
///
/// All rows of all heads of a layer compete for one budget, a share of the blocks that they see. A
/// head whose mass lies in few blocks leaves its share to the others. The share is the density, so
/// no threshold has to be found. examples/studies/README.md holds it against published methods on a
/// language model: at a quarter of the blocks it loses a third to a half of what the next best
/// loses, at 2048 to 8192 tokens.
///
/// - Each batch entry has a budget of its own: no sequence depends on its neighbours.
/// - Of equal masses that of the earlier head is taken, then of the earlier row, then column.
/// - A row of blocks of which a sampled query meets NaN or +infinity keeps all that it sees, and
///   counts for nothing: the others share a budget as if it were not there. The mass that is
///   returned is then NaN. A query that sees nothing but -infinity adds no mass.
/// - Later queries and other heads have a say, so a row may differ from that of a shorter prompt.
///
/// Cost: 2 dim FLOPs for each pair of a sampled query and a key that it sees, which bind: 1 / (2
/// stride) of exact attention at equal dims, and 1 / stride of its exponentials. 64 sampled queries
/// of the heads of one key/value head are worked on together; where there are fewer, as in a short
/// chunk of a prompt, they cost as much as 64. Choosing takes linear time in the number of blocks.
/// Memory: two scalars for each block of a batch entry that a row may choose, and for each thread
/// some 200 scalars for each column block.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend_selected.hpp>
#include <pare/attention/detail/keep_mass.hpp>
#include <pare/attention/detail/reference_sampled.hpp>
#include <pare/attention/detail/sampled_rows.hpp>
#include <pare/attention/detail/sampled_scores.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/attention/selector.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>

#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace pare::attention {

PARE_ABI_BEGIN

/// A LayerSelector, which `attend` and `select_blocks` take. It needs causal attention, keys in
/// their order (Permuted refuses it), and at most as many queries as keys; queries are aligned to
/// the end of the keys. `calibrate` finds the share for an error.
struct SampledMass {
  /// A whole layer is selected for at once.
  static constexpr bool shares_rows = false;

  /// Queries and keys of a block, at least 1. Chosen on a language model at 2048 tokens, where
  /// blocks of 128 x 128 lose ten times as much.
  Index row_block = 64;
  Index column_block = 16;

  /// In each row block, one query of every `stride` is looked at, from the middle of the first on;
  /// 1 to row_block. The work falls with it; 1 is the true mass, at the cost of all scores.
  Index stride = 8;

  /// Share of the blocks seen that is kept, above 0, rounded to whole blocks. What is kept in any
  /// case counts, and is kept even if it is more. From 1 on, every block is kept: exact attention.
  double share = 0.25;

  /// Keeps block 0, with the first token, in every row, whatever its mass. The blocks that a row's
  /// own queries stand in are always kept.
  bool force_first = true;

  /// \throws std::invalid_argument if a block size is below 1, the stride is not in [1, row_block],
  /// the share is NaN or not above 0, there are more queries than keys, attention is not causal, or
  /// there is a key order.
  void validate(const char* function, const SelectorCall& call) const;

  /// Whether the share is 1 or more.
  bool keeps_all(const SelectorCall&) const { return share >= 1; }

  /// Adds the blocks of every row of every head. Returns the share of the sampled queries' mass
  /// that was kept, mean over rows and heads: of stride 1 the true mass, otherwise an estimate, and
  /// a little high, since the sample chose. Rows and heads are shared among threads; the bits are
  /// the same for any number of them.
  template <class B, StorageScalar S>
  PARE_ALWAYS_INLINE double select_layer(const B& backend, const SelectorLayer<S>& layer,
                                         std::span<BlockLists> keep) const;
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

inline void check_sampled(const char* function, const SampledMass& s, const SelectorCall& call) {
  check_grid(function, {call.queries, call.keys, s.row_block, s.column_block, 0});
  check(s.stride >= 1 && s.stride <= s.row_block, function, "stride", s.stride, "1 to row_block");
  check(!is_nan(s.share) && s.share > 0, function, "share", s.share,
        "above 0; from 1 on all is kept");
  check(call.causal, function, "causal", "false", "true with SampledMass");
  check(!call.ordered, function, "order", "a key order", "none with SampledMass");
}

/// The heads of a batch entry; returns the sum over rows of the mass kept.
template <KernelBackend B, class S>
double keep_sampled_entry(const B& backend, const SelectorLayer<S>& layer, Index batch,
                          std::vector<AlignedBuffer<std::byte>>& memory, const SampledRows& rows,
                          double share, std::span<BlockLists> keep) {
  SampledMasses<compute_t<S>> masses(rows, layer.q.extent[1]);
  sampled_masses(backend, layer, batch, memory, masses);
  return keep_sampled(masses, share, keep);
}

/// The same by the definition.
template <class S>
double keep_sampled_entry(const Reference&, const SelectorLayer<S>& layer, Index batch,
                          std::vector<AlignedBuffer<std::byte>>&, const SampledRows& rows,
                          double share, std::span<BlockLists> keep) {
  std::vector<std::vector<std::vector<double>>> masses(keep.size());
  for (std::size_t h = 0; h < keep.size(); ++h)
    for (Index m = 0; m < rows.grid.rows(); ++m)
      masses[h].push_back(
          reference_sampled_masses(layer.of(batch, static_cast<Index>(h)), rows, m));
  return reference_keep_sampled(masses, rows, share, keep);
}

template <class B, class S>
double select_sampled(const B& backend, const SelectorLayer<S>& layer, const SampledMass& options,
                      std::span<BlockLists> keep) {
  const SelectorCall call = layer.call();
  const SampledRows rows{{call.queries, call.keys, options.row_block, options.column_block, 0},
                         options.stride,
                         options.force_first};
  if (keeps_all(options, call)) {
    for (BlockLists& head : keep) keep_all(rows.grid, MassRule{}, head);
    return 1;
  }
  std::vector<AlignedBuffer<std::byte>> memory;
  if constexpr (KernelBackend<B>)
    memory.resize(static_cast<std::size_t>(
        worker_count(backend.executor, std::numeric_limits<Index>::max())));
  double kept = 0;
  for (Index b = 0; b < call.batch; ++b)
    kept += keep_sampled_entry(backend, layer, b, memory, rows, options.share,
                               keep.subspan(static_cast<std::size_t>(b * call.heads),
                                            static_cast<std::size_t>(call.heads)));
  return kept / (static_cast<double>(keep.size()) * static_cast<double>(rows.grid.rows()));
}

PARE_ABI_END
}  // namespace detail

inline void SampledMass::validate(const char* function, const SelectorCall& call) const {
  detail::check_sampled(function, *this, call);
}

template <class B, StorageScalar S>
PARE_ALWAYS_INLINE double SampledMass::select_layer(const B& backend, const SelectorLayer<S>& layer,
                                                    std::span<BlockLists> keep) const {
  return detail::select_sampled(backend, layer, *this, keep);
}

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
