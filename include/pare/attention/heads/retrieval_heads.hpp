// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Wu's retrieval score: how often a head attends most to the very token that the model is to copy.
///
/// ```cpp
/// RetrievalScores scores(layers, heads);
/// for (const Sample& s : samples)       // a text, a passage of it, and the passage once more
///   for (Index layer = 0; layer < layers; ++layer)
///     scores.add(layer, s.q[layer], s.k[layer],            // queries of the answer; all keys
///                {.tokens = s.tokens, .begin = 40, .size = 8, .answer = s.answer});
/// const auto found = top_heads(scores.scores(), heads, 0.05);
/// ```
///
///     score(head) = mean over samples of
///                   (share of the answer's tokens t with key(t) in the passage and token[key(t)] =
///                   t)
///
/// where key(t) is the key that the query before t attends to most (most_attended.hpp). Heads of a
/// high score look up what is copied: without them (made uniform) a model stops copying.
///
/// Source: Wu et al., "Retrieval head mechanistically explains long-context factuality", arXiv
/// 2404.15574, by a summary of it; Hua et al., arXiv 2505.07293, who keep the best 5 % over 800
/// samples. Ours: the answer is given, not generated, so each sample counts all of its tokens.

#include <pare/core/macros_off.hpp>

#include <pare/attention/heads/head_id.hpp>
#include <pare/attention/heads/most_attended.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::attention {

/// A passage of a text, and the tokens that are to be copied from it.
struct CopiedPassage {
  std::span<const std::int32_t> tokens{};  ///< [keys] the text, as far as there are keys
  Index begin = 0;                         ///< where the passage begins
  Index size = 0;                          ///< its tokens, at least 1
  std::span<const std::int32_t> answer{};  ///< [queries] the token that each query foretells
};

namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* retrieval_name = "attention::RetrievalScores::add";

inline void check_passage(const CopiedPassage& passage, Index queries, Index keys) {
  const auto tokens = static_cast<Index>(passage.tokens.size());
  check(tokens == keys, retrieval_name, "tokens", tokens, Worded{"one for each key, ", keys});
  check(passage.size >= 1 && passage.size <= tokens, retrieval_name, "size", passage.size,
        Worded{"1 to the ", tokens, " tokens of the text"});
  check(passage.begin >= 0 && passage.begin <= tokens - passage.size, retrieval_name, "begin",
        passage.begin,
        Worded{"0 to ", tokens - passage.size, ", so that the passage is in the text"});
  check(queries >= 1, retrieval_name, "q", queries, "at least one query");
  check(static_cast<Index>(passage.answer.size()) == queries, retrieval_name, "answer",
        passage.answer.size(), Worded{"one token for each query, ", queries});
}

/// How many tokens of the answer a head finds: keys [queries] are those that it attends to most.
inline Index retrieved(std::span<const Index> keys, const CopiedPassage& passage) {
  Index found = 0;
  for (std::size_t i = 0; i < keys.size(); ++i)
    found += keys[i] >= passage.begin && keys[i] < passage.begin + passage.size &&
             passage.tokens[static_cast<std::size_t>(keys[i])] == passage.answer[i];
  return found;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Sums retrieval scores over samples, layer by layer.
class RetrievalScores {
 public:
  /// \throws std::invalid_argument if layers or heads are below 1, or their product overflows
  RetrievalScores(Index layers, Index heads) : heads_(heads) {
    constexpr const char* function = "attention::RetrievalScores";
    check(layers >= 1, function, "layers", layers, "at least 1");
    check(heads >= 1, function, "heads", heads, "at least 1");
    const Index all = checked_product(function, "heads", layers, heads);
    checked_count(function, "heads", all, sizeof(double));
    sums_.resize(static_cast<std::size_t>(all));
    samples_.resize(static_cast<std::size_t>(layers));
  }

  Index layers() const { return static_cast<Index>(samples_.size()); }
  Index heads() const { return heads_; }
  /// Samples that a layer has met. \throws std::invalid_argument if there is no such layer
  Index samples(Index layer) const {
    check_layer("attention::RetrievalScores::samples", layer);
    return samples_[static_cast<std::size_t>(layer)];
  }

  /// Adds what a layer does with one sample.
  ///
  /// \param backend left out: pare::simd
  /// \param layer   from 0
  /// \param q       [1, heads, answer's tokens, key dim]: query i is the one that foretells token i
  ///                of the answer, and stands at position i + keys - queries
  /// \param k       [1, kv heads, keys, key dim]: keys up to the last query's position
  /// \param passage where the text has what is copied; a token that stands twice in the passage
  ///                counts at either place
  /// \throws std::invalid_argument as most_attended, or if there is no such layer, the batch is not
  ///         1, q has other heads, or the passage does not fit: nothing is added then
  ///
  /// Cost, memory, threads: as most_attended. A row that meets a NaN finds nothing.
  template <Backend B, In<4> Q, In<4> K>
  requires SameScalar<Q, K>
  PARE_ALWAYS_INLINE void add(const B& backend, Index layer, const Q& q, const K& k,
                              const CopiedPassage& passage) {
    add_view(on_any_executor(backend), layer, as_const(to_view(q)), as_const(to_view(k)), passage);
  }

  /// \overload
  template <In<4> Q, In<4> K>
  requires SameScalar<Q, K>
  PARE_ALWAYS_INLINE void add(Index layer, const Q& q, const K& k, const CopiedPassage& passage) {
    add(simd, layer, q, k, passage);
  }

  PARE_REFUSE_CALLS(add, "attention::RetrievalScores::add", "after k: wanted a CopiedPassage",
                    (ANY, (roles::TakesAny), "layer", "a number"),
                    (INPUT, (roles::Reads<4>), "q", "[1, heads, answer's tokens, key dim]"),
                    (INPUT, (roles::ReadsSame<4>), "k", "[1, kv heads, keys, key dim]"))

  /// Adds the samples of another accumulator.
  /// \throws std::invalid_argument if its layers or heads are others
  void merge(const RetrievalScores& other) {
    check(other.layers() == layers() && other.heads_ == heads_, "attention::RetrievalScores::merge",
          "other", std::array<Index, 2>{other.layers(), other.heads_},
          Worded{"as many layers and heads, of which a layer has ", heads_});
    for (std::size_t i = 0; i < sums_.size(); ++i) sums_[i] += other.sums_[i];
    for (std::size_t i = 0; i < samples_.size(); ++i) samples_[i] += other.samples_[i];
  }

  /// [layers x heads], each in [0, 1]: the mean over the samples of its layer.
  /// \throws std::invalid_argument if a layer has met no sample
  std::vector<double> scores() const {
    std::vector<double> means = sums_;
    for (std::size_t i = 0; i < means.size(); ++i) {
      const Index samples = samples_[i / static_cast<std::size_t>(heads_)];
      check(samples >= 1, "attention::RetrievalScores::scores", "samples", samples,
            "at least one of each layer");
      means[i] /= static_cast<double>(samples);
    }
    return means;
  }

 private:
  void check_layer(const char* function, Index layer) const {
    check(layer >= 0 && layer < layers(), function, "layer", layer,
          Worded{"0 to below ", layers()});
  }

  template <Backend B, StorageScalar S>
  void add_view(const B& backend, Index layer, TensorView<const S, 4> q, TensorView<const S, 4> k,
                const CopiedPassage& passage) {
    check_layer(detail::retrieval_name, layer);
    const Index rows = detail::checked_rows(detail::retrieval_name, q, k);
    check(q.extent[0] == 1, detail::retrieval_name, "q", q.extent, "a batch of 1");
    check(q.extent[1] == heads_, detail::retrieval_name, "q", q.extent,
          Worded{"", heads_, " heads"});
    const Index queries = q.extent[2];
    detail::check_passage(passage, queries, k.extent[2]);
    const std::vector<Index> keys = detail::most_attended(backend, q, k, rows);
    for (Index head = 0; head < heads_; ++head)
      sums_[static_cast<std::size_t>(layer * heads_ + head)] +=
          static_cast<double>(
              detail::retrieved(std::span(keys).subspan(static_cast<std::size_t>(head * queries),
                                                        static_cast<std::size_t>(queries)),
                                passage)) /
          static_cast<double>(queries);
    ++samples_[static_cast<std::size_t>(layer)];
  }

  Index heads_;
  std::vector<double> sums_;    ///< [layers x heads]
  std::vector<Index> samples_;  ///< [layers]
};

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
