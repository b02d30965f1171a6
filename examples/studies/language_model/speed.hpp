// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Tokens per second of a model.

#include "language_model/kv_cache.hpp"
#include "language_model/llama.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>
#include <vector>

namespace language_model {

/// The least seconds of three calls.
template <class Progress, class Call>
double best_of_three(Progress&& progress, const Call& call) {
  using Clock = std::chrono::steady_clock;
  double best = std::numeric_limits<double>::infinity();
  for (int run = 0; run < 3; ++run) {
    const auto start = Clock::now();
    call();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
    progress((run + 1) / 3.0);
  }
  return best;
}

struct Speed {
  double prompt = 0, decode = 0;  ///< tokens per second
};

/// Of a prompt of so many tokens at once, and of tokens one by one behind it.
template <class B, class C, class Progress>
Speed speed_of(const Llama& llama, const B& backend, C& cache, Index at_once, Index tokens,
               Progress&& progress) {
  std::vector<Token> prompt(static_cast<std::size_t>(at_once));
  for (std::size_t i = 0; i < prompt.size(); ++i)  // any will do
    prompt[i] = static_cast<Token>(i * 7919 % static_cast<std::size_t>(llama.config().vocabulary));
  std::vector<float> logits(static_cast<std::size_t>(llama.config().vocabulary));
  const double together = best_of_three(progress, [&] {
    cache.reset();
    llama.forward(backend, prompt, cache, logits);
  });
  const double one_by_one = best_of_three(progress, [&] {
    cache.truncate(at_once);
    for (Index i = 0; i < tokens; ++i) {
      const Token next = prompt[static_cast<std::size_t>(i % at_once)];
      llama.forward(backend, {&next, 1}, cache, logits);
    }
  });
  return {static_cast<double>(at_once) / together, static_cast<double>(tokens) / one_by_one};
}

/// Of 32 tokens, one by one behind 64.
template <class B, class Progress>
double decode_speed(const Llama& llama, const B& backend, KvScalar kv, Progress&& progress) {
  KvCache cache(llama.config().kv_shape(), 96, kv);
  return speed_of(llama, backend, cache, 64, 32, progress).decode;
}

}  // namespace language_model
