// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A text to judge a model on: its first tokens, or those twice.

#include "common/progress.hpp"
#include "language_model/open_model.hpp"
#include "language_model/perplexity.hpp"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace language_model {

/// The first tokens of a text.
inline std::vector<Token> tokens_of(const OpenModel& model, const std::string& path, Index most) {
  std::vector<Token> tokens = model.tokenizer.encode(read_text(path));
  tokens.resize(std::min(tokens.size(), static_cast<std::size_t>(most)));
  return tokens;
}

struct JudgedText {
  std::string path;
  std::vector<Token> tokens;
  std::size_t skipped = 0;  ///< first losses, which are not judged
};

/// A text that is its first `repeat` tokens and the same again, of which the second time is judged;
/// without `repeat`, its first `most` tokens.
/// \throws std::runtime_error if there are fewer tokens than are repeated
inline JudgedText judged_text(const OpenModel& model, const std::string& path, Index most,
                              std::optional<Index> repeat) {
  JudgedText text{path, tokens_of(model, path, repeat.value_or(most))};
  if (!repeat) return text;
  const std::size_t once = text.tokens.size();
  if (once != static_cast<std::size_t>(*repeat))
    throw std::runtime_error(path + ": has " + std::to_string(once) + " tokens, not the " +
                             std::to_string(*repeat) + " to repeat");
  text.tokens.resize(2 * once);
  std::copy_n(text.tokens.begin(), once, text.tokens.begin() + static_cast<Index>(once));
  text.skipped = once - 1;  // loss i is of token i + 1
  return text;
}

/// The losses of the tokens that are judged, with a progress line of that name.
template <class B>
std::vector<double> judged_losses(const Llama& llama, const B& backend, const JudgedText& text,
                                  Index window, KvScalar kv, const Attention& attention,
                                  const std::string& name) {
  command_line::Progress progress(text.path + ", " + name);
  std::vector<double> losses =
      token_losses(llama, backend, text.tokens, window, kv, attention, progress);
  losses.erase(losses.begin(), losses.begin() + static_cast<Index>(text.skipped));
  return losses;
}

/// The mean of what each loss changed against another way of judging the same tokens.
inline Mean mean_change(const std::vector<double>& losses, const std::vector<double>& exact) {
  std::vector<double> changes(losses.size());
  std::ranges::transform(losses, exact, changes.begin(), std::minus<>());
  return mean_of(changes);
}

}  // namespace language_model
