// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Logits of the tokens that may follow, and of no others: a head reads the rows of a trie's
/// children, where all rows would cost as much as the vocabulary.
///
/// ```cpp
/// const std::vector<float> logits = child_logits(pare::simd, trie, beams, hidden, head);
/// const auto steps = beam_step(trie, beams, std::span(logits), 128);  // constrained_beam.hpp
/// ```
///
///     logit of child i of beam b = <hidden_b, head_t>,   t = the i-th token of IdTrie::tokens
///
/// Behind the first tokens of three, children are few: of 8192 clusters and as many items, one. No
/// paper; it is the head of OneRec's decoder under a beam search that is constrained.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/dot_gathered.hpp>
#include <pare/retrieval/semantic/beam.hpp>
#include <pare/retrieval/semantic/detail/beam_candidates.hpp>
#include <pare/retrieval/semantic/id_trie.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::retrieval {
namespace detail {
PARE_ABI_BEGIN

template <class B, class S>
std::vector<compute_t<S>> child_logits(const B& backend, const IdTrie& trie,
                                       std::span<const Beam> beams,
                                       TensorView<const compute_t<S>, 2> hidden,
                                       TensorView<const S, 2> head) {
  using T = compute_t<S>;
  constexpr const char* function = "retrieval::child_logits";
  check_beams(function, "beams", trie, beams);
  check_view(function, "hidden", hidden);
  check_view(function, "head", head);
  check(head.cols() >= 1 && head.rows() == trie.vocabulary(), function, "head", head.extent,
        Worded{"a row of at least one number for each of ", trie.vocabulary(), " tokens"});
  check_extents<2>(function, "hidden", hidden.extent,
                   {static_cast<Index>(beams.size()), head.cols()});
  check_contiguous_rows(function, "hidden", hidden);
  check_contiguous_rows(function, "head", head);
  std::vector<Index> begins{0};
  for (const Beam& beam : beams) begins.push_back(begins.back() + trie.children(beam.node).count);
  std::vector<std::ptrdiff_t> rows;
  for (const Beam& beam : beams)
    for (const std::int32_t token : trie.tokens(beam.node)) rows.push_back(token);
  std::vector<T> logits(rows.size());
  const auto of = [&](Index b, int) {
    const Index begin = begins[static_cast<std::size_t>(b)];
    const Index count = begins[static_cast<std::size_t>(b) + 1] - begin;
    if constexpr (KernelBackend<B>)
      launch(backend, kernel::DotGathered<S>{head.data, head.stride[0], rows.data() + begin, count,
                                             &hidden(b, 0), head.cols(), logits.data() + begin});
    else
      for (Index i = begin; i < begin + count; ++i) {
        double sum = 0;
        for (Index c = 0; c < head.cols(); ++c)
          sum += static_cast<double>(hidden(b, c)) *
                 static_cast<double>(static_cast<T>(head(rows[static_cast<std::size_t>(i)], c)));
        logits[static_cast<std::size_t>(i)] = static_cast<T>(sum);
      }
  };
  if constexpr (KernelBackend<B>)
    parallel_for(backend.executor, static_cast<Index>(beams.size()), of);
  else
    for (Index b = 0; b < static_cast<Index>(beams.size()); ++b) of(b, 0);
  return logits;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Logits of the children of beams, back to back.
///
/// \param backend left out: pare::simd
/// \param trie    of the items
/// \param beams   whose nodes have children
/// \param hidden  [beams, dim] of float (double for double), rows contiguous
/// \param head    [vocabulary, dim] of float, double, bf16 or f16, rows contiguous
/// \return        [children of all beams] in the order of IdTrie::tokens
/// \throws std::invalid_argument if an extent does not fit, dim is 0, rows are not contiguous, or a
///         node is a leaf or none of the trie
///
/// Cost: one read of a row for each child, which binds. The same bits for any number of threads.
template <Backend B, In<2> H, In<2> W>
requires std::is_same_v<scalar_of<H>, compute_t<scalar_of<W>>>
std::vector<scalar_of<H>> child_logits(const B& backend, const IdTrie& trie,
                                       std::span<const Beam> beams, const H& hidden,
                                       const W& head) {
  return detail::child_logits(on_any_executor(backend), trie, beams, as_const(to_view(hidden)),
                              as_const(to_view(head)));
}

/// \overload
template <In<2> H, In<2> W>
requires std::is_same_v<scalar_of<H>, compute_t<scalar_of<W>>>
std::vector<scalar_of<H>> child_logits(const IdTrie& trie, std::span<const Beam> beams,
                                       const H& hidden, const W& head) {
  return child_logits(simd, trie, beams, hidden, head);
}

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
