// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Text behind a prompt, token by token.

#include "language_model/open_model.hpp"
#include "language_model/sampler.hpp"
#include "language_model/stream_decoder.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace language_model {

/// The prompt as a question in the form that SmolLM2-Instruct was trained on. What the user wrote
/// cannot end its part: it is encoded without special tokens.
/// \throws std::runtime_error if the vocabulary has no such form
inline std::vector<Token> chat_prompt(const Tokenizer& tokenizer, std::string_view question) {
  if (!tokenizer.find_special("<|im_start|>") || !tokenizer.find_special("<|im_end|>"))
    throw std::runtime_error("the model has no tokens <|im_start|> and <|im_end|>: give --raw");
  std::vector<Token> tokens = tokenizer.encode(
      "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
      "<|im_end|>\n<|im_start|>user\n",
      true);
  for (const Token id : tokenizer.encode(question)) tokens.push_back(id);
  for (const Token id : tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n", true))
    tokens.push_back(id);
  return tokens;
}

/// How long a generation took.
struct GenerationTimes {
  Index prompt_tokens = 0, tokens = 0;  ///< tokens behind the first, which the prompt gives
  double prompt_seconds = 0, seconds = 0;
};

/// Room for a prompt and what is drawn behind it.
/// \throws std::invalid_argument if the prompt is empty or the model's context too short for both
inline Index generation_room(const Llama& llama, const std::vector<Token>& prompt, Index most) {
  const auto given = static_cast<Index>(prompt.size());
  const Index room = llama.config().context - given;
  pare::check(given >= 1, "language_model::generate", "prompt", "no tokens", "at least one");
  pare::check(most <= room, "language_model::generate", "tokens", most,
              pare::Worded{"at most ", room, ", which the context has behind the prompt"});
  return given + most;
}

/// Draws at most `most` tokens behind the prompt, until a control token, and gives their text to
/// take(text) as its characters become whole.
/// \param cache empty, of generation_room: a KvCache, or an AttendingCache
template <class B, class C>
GenerationTimes generate_in(C& cache, const OpenModel& model, const B& backend,
                            const std::vector<Token>& prompt, Index most,
                            const SamplerOptions& sampling,
                            const std::function<void(const std::string&)>& take) {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const Llama& llama = model.llama;
  const auto given = static_cast<Index>(prompt.size());
  Sampler sampler(sampling);
  StreamDecoder stream(model.tokenizer);
  std::vector<float> logits(static_cast<std::size_t>(llama.config().vocabulary));
  GenerationTimes times{.prompt_tokens = given};
  const auto start = Clock::now();
  llama.forward(backend, prompt, cache, logits);
  times.prompt_seconds = seconds_since(start);
  const auto first = Clock::now();
  for (Index drawn = 0; drawn < most; ++drawn) {
    // The noise belongs to the place in the text.
    const Token next = sampler.sample(logits, static_cast<std::uint64_t>(given + drawn));
    if (model.tokenizer.is_control(next)) break;
    take(stream.push(next));
    if (drawn + 1 == most) break;
    llama.forward(backend, {&next, 1}, cache, logits);
    ++times.tokens;
  }
  take(stream.finish());
  times.seconds = seconds_since(first);
  return times;
}

/// The same with keys and values in a cache of its own.
/// \throws std::invalid_argument as generation_room
template <class B>
GenerationTimes generate(const OpenModel& model, const B& backend, const std::vector<Token>& prompt,
                         Index most, const SamplerOptions& sampling, KvScalar kv,
                         const std::function<void(const std::string&)>& take) {
  KvCache cache(model.llama.config().kv_shape(), generation_room(model.llama, prompt, most), kv);
  return generate_in(cache, model, backend, prompt, most, sampling, take);
}

}  // namespace language_model
