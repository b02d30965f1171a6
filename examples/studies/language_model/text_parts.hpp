// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Judges a model on parts of texts, again and again as it is changed.
///
/// ```cpp
/// TextParts parts({text_part(model, "a.txt", 8192, {})});
/// const auto row = [](const std::string& text, const Mean& loss, const Mean& change) { ... };
/// parts.judge(model.llama, backend, 2048, KvScalar::Float, exact_attention, "exact", row);
/// model.llama.blocks()[3].down = ...;
/// parts.judge(model.llama, backend, 2048, KvScalar::Float, exact_attention, "changed", row);
/// ```

#include "common/progress.hpp"
#include "language_model/open_model.hpp"
#include "language_model/perplexity.hpp"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// The first tokens of a text.
/// \throws std::runtime_error if it has fewer than two: there is nothing to foretell
inline std::vector<Token> tokens_of(const OpenModel& model, const std::string& path, Index most) {
  std::vector<Token> tokens = model.tokenizer.encode(read_text(path));
  tokens.resize(std::min(tokens.size(), static_cast<std::size_t>(most)));
  if (tokens.size() < 2)
    throw std::runtime_error(path + ": got " + std::to_string(tokens.size()) +
                             " tokens, wanted at least 2");
  return tokens;
}

struct TextPart {
  std::string path;
  std::vector<Token> tokens;
  std::size_t skipped = 0;  ///< first losses, which are not judged
};

/// The first `repeat` tokens of a text and the same again, of which the second time is judged;
/// without `repeat`, its first `most` tokens.
/// \throws std::runtime_error if there are fewer tokens than are repeated
inline TextPart text_part(const OpenModel& model, const std::string& path, Index most,
                          std::optional<Index> repeat) {
  TextPart part{path, tokens_of(model, path, repeat.value_or(most))};
  if (!repeat) return part;
  const std::size_t once = part.tokens.size();
  if (once != static_cast<std::size_t>(*repeat))
    throw std::runtime_error(path + ": has " + std::to_string(once) + " tokens, not the " +
                             std::to_string(*repeat) + " to repeat");
  part.tokens.resize(2 * once);
  std::copy_n(part.tokens.begin(), once, part.tokens.begin() + static_cast<Index>(once));
  part.skipped = once - 1;  // loss i is of token i + 1
  return part;
}

/// Without the losses of tokens that are not judged.
inline std::vector<double> judged_losses(std::vector<double> losses, const TextPart& part) {
  losses.erase(losses.begin(), losses.begin() + static_cast<Index>(part.skipped));
  return losses;
}

/// The losses of the tokens that are judged, with a progress line of that name.
template <class B>
std::vector<double> part_losses(const Llama& llama, const B& backend, const TextPart& part,
                                Index window, KvScalar kv, const Attention& attention,
                                const std::string& name) {
  command_line::Progress progress(part.path + ", " + name);
  return judged_losses(token_losses(llama, backend, part.tokens, window, kv, attention, progress),
                       part);
}

class TextParts {
 public:
  explicit TextParts(std::vector<TextPart> parts) : parts_(std::move(parts)) {}

  /// Calls row(text, loss, change) for each text and, if there are several, for "all": the mean
  /// loss, and the mean of what each loss changed since the first call. losses_of(part) are those
  /// that are judged.
  template <class LossesOf, class Row>
  void judge(const LossesOf& losses_of, const Row& row) {
    std::vector<double> all, all_changes;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const std::vector<double> losses = losses_of(parts_[i]);
      if (first_.size() == i) first_.push_back(losses);
      std::vector<double> changes(losses.size());
      std::ranges::transform(losses, first_[i], changes.begin(), std::minus<>());
      row(parts_[i].path, mean_of(losses), mean_of(changes));
      all.insert(all.end(), losses.begin(), losses.end());
      all_changes.insert(all_changes.end(), changes.begin(), changes.end());
    }
    if (parts_.size() > 1) row("all", mean_of(all), mean_of(all_changes));
  }
  /// \overload
  /// With keys and values in a cache.
  template <class B, class Row>
  void judge(const Llama& llama, const B& backend, Index window, KvScalar kv,
             const Attention& attention, const std::string& name, const Row& row) {
    judge(
        [&](const TextPart& part) {
          return part_losses(llama, backend, part, window, kv, attention, name);
        },
        row);
  }

 private:
  std::vector<TextPart> parts_;
  std::vector<std::vector<double>> first_;  ///< losses of the first call
};

}  // namespace language_model
