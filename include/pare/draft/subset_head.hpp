// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A head for some of the tokens of a vocabulary: the most frequent ones (FR-Spec, VocabTrim), or
/// the reduced draft vocabulary that an EAGLE-3 checkpoint comes with.
///
/// ```cpp
/// const auto head = subset_of<pare::bf16>(lm_head, frequent);  // rows gathered once: [32768, d]
/// const auto top = head.top_k(hidden, 8);                      // tokens of the whole vocabulary
///
/// DenseHead<pare::bf16> reduced(draft_head);                   // [32000, d], of EAGLE-3
/// const SubsetHead eagle(std::move(reduced), ids_of_offsets(d2t, vocabulary), vocabulary);
/// ```
///
/// Answers are tokens of the whole vocabulary, with noise of those; only their ids are mapped,
/// after the best are found, never logits. Probabilities are those among the subset, as a drafter's
/// law; a token outside has probability 0, and `values_at` gives -infinity for it. `logits` are
/// [rows, outputs], those of `ids()`.
///
/// Sources: Zhao et al., "FR-Spec", arXiv 2502.14856; Li et al., EAGLE-3, whose table `d2t` holds
/// offsets: target token = i + d2t[i]. FR-Spec's script may store ids twice or in any order; here
/// they rise, and the loader sorts. Ours: the special tokens that must stay, such as that of the
/// end, are the caller's; `contains` asks.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/dense_head.hpp>
#include <pare/draft/head.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace pare::draft {
namespace detail {
PARE_ABI_BEGIN

inline void check_tokens(const char* function, std::span<const std::int32_t> ids,
                         Index vocabulary) {
  check(!ids.empty(), function, "ids", "none", "at least one token");
  std::int32_t before = -1;
  for (const std::int32_t id : ids) {
    check(id >= 0 && id < vocabulary, function, "ids", id, Worded{"0 to below ", vocabulary});
    check(id > before, function, "ids", id, Worded{"rising ids, above ", before});
    before = id;
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The tokens that a table of offsets stands for: i + d2t[i], as EAGLE-3 stores them.
/// \param vocabulary of the target
/// \throws std::invalid_argument if they do not rise or leave the vocabulary: the table is broken,
///         or holds ids instead of offsets, most of which leave it (the overload with t2d sees all
///         that do not); or the vocabulary is not from 1 to 2^31 - 1 tokens
inline std::vector<std::int32_t> ids_of_offsets(std::span<const std::int64_t> d2t,
                                                Index vocabulary) {
  constexpr const char* function = "draft::ids_of_offsets";
  constexpr Index most = std::numeric_limits<std::int32_t>::max();
  check(vocabulary >= 1 && vocabulary <= most, function, "vocabulary", vocabulary,
        Worded{"1 to ", most, " tokens"});
  std::vector<std::int32_t> ids;
  ids.reserve(d2t.size());
  std::int64_t before = -1;
  for (std::size_t i = 0; i < d2t.size(); ++i) {
    check(d2t[i] >= 0 && d2t[i] < vocabulary - static_cast<Index>(i), function, "d2t", d2t[i],
          Worded{"offsets that stay below ", vocabulary, " tokens (ids are no offsets)"});
    const std::int64_t id = static_cast<std::int64_t>(i) + d2t[i];
    check(id > before, function, "d2t", d2t[i], "offsets of rising tokens");
    before = id;
    ids.push_back(static_cast<std::int32_t>(id));
  }
  check(!ids.empty(), function, "d2t", "none", "at least one offset");
  return ids;
}

/// The same, checked against EAGLE-3's mask `t2d` of the tokens that are in the draft vocabulary.
/// \throws std::invalid_argument also if t2d marks other tokens
inline std::vector<std::int32_t> ids_of_offsets(std::span<const std::int64_t> d2t,
                                                std::span<const bool> t2d) {
  constexpr const char* function = "draft::ids_of_offsets";
  auto ids = ids_of_offsets(d2t, static_cast<Index>(t2d.size()));
  const auto marked = std::count(t2d.begin(), t2d.end(), true);
  check(marked == static_cast<Index>(ids.size()), function, "t2d", marked,
        Worded{"as many tokens as d2t has, ", static_cast<Index>(ids.size())});
  for (const std::int32_t id : ids)
    check(t2d[static_cast<std::size_t>(id)], function, "t2d", id, "the tokens of d2t");
  return ids;
}

/// Another head, whose outputs are the tokens `ids`. It can be moved; copied if that head can.
template <class Head>
class SubsetHead : public HeadCalls<SubsetHead<Head>, typename Head::scalar> {
 public:
  using T = typename Head::scalar;

  /// \param head       one output for each id; a head of all its tokens
  /// \param ids        rising
  /// \param vocabulary tokens of the target
  /// \throws std::invalid_argument if ids do not rise, one is outside the vocabulary, their number
  ///         is not that of the outputs, or head is a subset itself
  SubsetHead(Head head, std::vector<std::int32_t> ids, Index vocabulary)
      : head_(std::move(head)), ids_(std::move(ids)), vocabulary_(vocabulary) {
    detail::check_tokens("draft::SubsetHead", ids_, vocabulary);
    check(static_cast<Index>(ids_.size()) == head_.outputs(), "draft::SubsetHead", "ids",
          ids_.size(), Worded{"one for each of ", head_.outputs(), " outputs"});
    check(head_.ids().empty(), "draft::SubsetHead", "head", "a subset", "a head of all its tokens");
  }

  Index inputs() const { return head_.inputs(); }
  Index outputs() const { return head_.outputs(); }
  Index vocabulary() const { return vocabulary_; }
  std::span<const std::int32_t> ids() const { return ids_; }
  Index bytes() const { return head_.bytes(); }
  bool contains(std::int32_t token) const {
    return std::binary_search(ids_.begin(), ids_.end(), token);
  }

  decltype(auto) tiles() const { return head_.tiles(); }

  template <class V>
  requires requires(const Head& head, const V& y) { head.check_viewed("", "", y); }
  void check_viewed(const char* function, const char* output, const V& y) const {
    head_.check_viewed(function, output, y);
  }

  template <class B>
  TensorView<const T, 2> latents(const B& backend, TensorView<const T, 2> hidden,
                                 AlignedBuffer<std::byte>& buffer) const {
    return head_.latents(backend, hidden, buffer);
  }

  void reference_logits(TensorView<const T, 2> hidden, Index row, std::vector<double>& z) const {
    head_.reference_logits(hidden, row, z);
  }

 private:
  Head head_;
  std::vector<std::int32_t> ids_;
  Index vocabulary_;
};

/// The head of some rows of a dense one, gathered once into panels of S.
///
/// \param w   [vocabulary, inputs], any strides
/// \param ids rising rows of w
/// \throws std::invalid_argument if ids do not rise or one is no row of w; w is empty
template <kernel::HeadElement S, In<2> W>
SubsetHead<PanelHead<S>> subset_of(const W& w, std::span<const std::int32_t> ids) {
  constexpr const char* function = "draft::subset_of";
  const auto rows = as_const(to_view(w));
  check_view(function, "w", rows);
  detail::check_tokens(function, ids, rows.rows());
  PanelHead<S> head(static_cast<Index>(ids.size()), rows.cols());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    auto one = rows;
    one.data = &rows(ids[i], 0);
    one.extent[0] = 1;
    head.set_rows(static_cast<Index>(i), one);
  }
  return {std::move(head), {ids.begin(), ids.end()}, rows.rows()};
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
