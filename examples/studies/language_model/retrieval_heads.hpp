// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Finds the heads that look up what is to be copied.
///
/// ```cpp
/// const auto scores = retrieval_scores(model, backend, prompts, progress);  // [layers x heads]
/// const std::vector<LayerHead> best = pare::attention::top_heads(scores, 9, 0.05);
/// ```
///
/// A prompt lists passages by keys, and then asks for some of them by key. A head's score is the
/// share of the tokens of the last answer, foretold each from the one before it, for which the head
/// attends most to the same token within the passage. Sources: Wu et al., "Retrieval head
/// mechanistically explains long-context factuality", arXiv 2404.15574 (the score); Hua et al.,
/// arXiv 2505.07293 (the prompts). Ours: prompts in plain lines of words that are single tokens.

#include "language_model/cache_attention.hpp"
#include "language_model/head_masks.hpp"
#include "language_model/llama.hpp"
#include "language_model/tokenizer.hpp"

#include <pare/attention/heads/retrieval_heads.hpp>
#include <pare/core/random.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// Tokens that end with an answer, which stands in a passage before.
struct RetrievalPrompt {
  std::vector<Token> tokens;
  Index passage = 0, size = 0;  ///< where the passage begins, and how many tokens are answered

  /// The query from which token i of the answer is foretold.
  Index query(Index i) const { return static_cast<Index>(tokens.size()) - size + i - 1; }
  /// What RetrievalScores wants to know of it.
  pare::attention::CopiedPassage copied() const {
    const std::span<const Token> all(tokens);
    return {.tokens = all.first(all.size() - 1),
            .begin = passage,
            .size = size,
            .answer = all.last(static_cast<std::size_t>(size))};
  }
};

namespace detail {

/// The tokens of a vocabulary that are a blank and a word of 4 to 9 small letters.
inline std::vector<Token> plain_words(const Tokenizer& tokenizer) {
  std::vector<Token> words;
  for (Token id = 0; id < static_cast<Token>(tokenizer.size()); ++id) {
    if (tokenizer.is_control(id)) continue;
    const std::string text = tokenizer.decode({&id, 1});
    const bool is_word =
        text.size() >= 5 && text.size() <= 10 && text.front() == ' ' &&
        std::all_of(text.begin() + 1, text.end(), [](char c) { return c >= 'a' && c <= 'z'; });
    if (is_word) words.push_back(id);
  }
  return words;
}

/// Draws one after the other.
class Draws {
 public:
  explicit Draws(std::uint64_t seed, std::uint32_t stream = 0) : key_(seed), stream_(stream) {}
  /// Below `count`.
  std::size_t operator()(std::size_t count) {
    const auto words = pare::philox({drawn_++, stream_, 0, 0x48454144u}, key_);
    return pare::scale_to_range(words[0], static_cast<std::uint32_t>(count));
  }

 private:
  pare::PhiloxKey key_;
  std::uint32_t stream_, drawn_ = 0;
};

}  // namespace detail

/// 12 passages of 8 words by keys of 8 letters, two solved questions and a third with its answer.
/// \param stream another number makes another prompt
/// \throws std::invalid_argument if the vocabulary has no words
inline RetrievalPrompt retrieval_prompt(const Tokenizer& tokenizer, std::uint64_t seed,
                                        std::uint32_t stream) {
  constexpr std::size_t pairs = 12, letters = 8, words = 8;
  const std::vector<Token> vocabulary = detail::plain_words(tokenizer);
  pare::check(!vocabulary.empty(), "language_model::retrieval_prompt", "tokenizer", "no words",
              "tokens that are words");
  detail::Draws draw(seed, stream);
  RetrievalPrompt prompt;
  std::vector<std::vector<Token>> keys, passages;
  std::vector<Index> begins;
  const auto append = [&](const std::vector<Token>& tokens) {
    prompt.tokens.insert(prompt.tokens.end(), tokens.begin(), tokens.end());
  };
  append(tokenizer.encode("Each key has a passage.\n\n"));
  for (std::size_t pair = 0; pair < pairs; ++pair) {
    std::string key;
    for (std::size_t i = 0; i < letters; ++i) key += static_cast<char>('a' + draw(26));
    keys.push_back(tokenizer.encode(key + ":"));
    auto& passage = passages.emplace_back();
    for (std::size_t i = 0; i < words; ++i) passage.push_back(vocabulary[draw(vocabulary.size())]);
    append(keys.back());
    begins.push_back(static_cast<Index>(prompt.tokens.size()));
    append(passage);
    append(tokenizer.encode("\n"));
  }
  std::vector<std::size_t> order(pairs);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = 0; i < 3; ++i) {  // the asked: three of the pairs
    std::swap(order[i], order[i + draw(pairs - i)]);
    append(tokenizer.encode("\nThe passage of the key "));
    append(keys[order[i]]);
    append(passages[order[i]]);
  }
  prompt.passage = begins[order[2]];
  prompt.size = words;
  return prompt;
}

/// The retrieval score of each head, [layers x heads], in [0, 1].
/// \throws std::invalid_argument as Llama::forward
template <class B, class Progress>
std::vector<double> retrieval_scores(const Llama& llama, const B& backend,
                                     const std::vector<RetrievalPrompt>& prompts,
                                     Progress&& progress) {
  const LlamaConfig& config = llama.config();
  pare::attention::RetrievalScores scores(config.blocks, config.heads);
  std::vector<float> logits(static_cast<std::size_t>(config.vocabulary));
  Index done = 0;
  for (const RetrievalPrompt& prompt : prompts) {
    const Attention watching = [&](const ModelBackend& on, const AttentionCall& call) {
      auto q = call.q;  // of the queries that foretell the answer
      q.data += prompt.query(0) * q.stride[2];
      q.extent[2] = prompt.size;
      auto keys = call.cache.keys<float>(call.layer);
      keys.extent[2] = prompt.query(prompt.size);
      scores.add(on, call.layer, q, keys, prompt.copied());
      return exact_attention(on, call);
    };
    KvCache cache(config.kv_shape(), static_cast<Index>(prompt.tokens.size()));
    llama.forward(backend, prompt.tokens, cache, logits, watching);
    progress(static_cast<double>(++done) / static_cast<double>(prompts.size()));
  }
  return scores.scores();
}

/// As many heads drawn from those that are not given.
inline std::vector<LayerHead> other_heads(const std::vector<LayerHead>& given, Index layers,
                                          Index heads, std::uint64_t seed) {
  std::vector<LayerHead> others;
  for (Index layer = 0; layer < layers; ++layer)
    for (Index head = 0; head < heads; ++head)
      if (std::ranges::find(given, LayerHead{layer, head}) == given.end())
        others.push_back({layer, head});
  detail::Draws draw(seed);
  const std::size_t count = std::min(given.size(), others.size());
  for (std::size_t i = 0; i < count; ++i) std::swap(others[i], others[i + draw(others.size() - i)]);
  others.resize(count);
  return others;
}

}  // namespace language_model
