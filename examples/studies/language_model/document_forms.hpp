// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A text as it is, repeating itself, and without order: what a score of documents should tell
/// apart.

#include "language_model/retrieval_heads.hpp"

#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// The tokens of a text; its first half twice; and its tokens in an order drawn by lot.
inline std::vector<std::pair<std::string, std::vector<Token>>> document_forms(
    const std::vector<Token>& text) {
  std::vector<Token> repeated(text.begin(), text.begin() + static_cast<Index>(text.size() / 2));
  repeated.insert(repeated.end(), repeated.begin(), repeated.end());
  std::vector<Token> shuffled = text;
  detail::Draws draw(0);
  for (std::size_t i = 0; i < shuffled.size(); ++i)
    std::swap(shuffled[i], shuffled[i + draw(shuffled.size() - i)]);
  return {{"as it is", text}, {"half of it twice", repeated}, {"shuffled", shuffled}};
}

}  // namespace language_model
