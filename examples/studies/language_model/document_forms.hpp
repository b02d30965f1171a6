// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A text as it is, repeating itself, and without order: what a score of documents should tell
/// apart.

#include "language_model/retrieval_heads.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// The tokens of a text; its first half twice; and its tokens in an order drawn by lot.
inline std::vector<std::pair<std::string, std::vector<Token>>> document_forms(
    const std::vector<Token>& text) {
  const std::size_t half = text.size() / 2;
  std::vector<Token> repeated(2 * half);
  for (const std::size_t begin : {std::size_t{0}, half})
    std::copy_n(text.begin(), half, repeated.begin() + static_cast<Index>(begin));
  std::vector<Token> shuffled = text;
  detail::Draws draw(0);
  for (std::size_t i = 0; i < shuffled.size(); ++i)
    std::swap(shuffled[i], shuffled[i + draw(shuffled.size() - i)]);
  return {{"as it is", text}, {"half of it twice", repeated}, {"shuffled", shuffled}};
}

}  // namespace language_model
