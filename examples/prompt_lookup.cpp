// SPDX-License-Identifier: Apache-2.0
// Drafting from the text itself: an answer that repeats a list it was given, with one word changed.
// Prints the tokens of a round: 2.7, and the text is what decoding one by one gives.

#include <pare/draft/prompt_lookup.hpp>
#include <pare/draft/verify.hpp>

#include <cstdint>
#include <cstdio>
#include <vector>

namespace {

using Text = std::vector<std::int32_t>;

// The prompt is a list and the token 0; the answer is to be the list, with 9 in the place of 7.
const Text list{3, 1, 4, 1, 5, 7, 2, 6, 5, 3, 5, 8, 7, 2, 8, 4, 6, 2, 7, 6, 4, 3, 3, 8};

/// What the "model" says after a text: it copies, and then ends with 0.
std::int32_t next_token(const Text& text) {
  const std::size_t said = text.size() - list.size() - 1;
  if (said >= list.size()) return 0;
  return list[said] == 7 ? 9 : list[said];
}

/// The text up to a node of the tree.
Text path_to(const pare::draft::DraftTree& tree, pare::Index node, Text text) {
  Text path;
  for (; node > 0; node = tree.parent(node)) path.insert(path.begin(), tree.token(node));
  text.insert(text.end(), path.begin(), path.end());
  return text;
}

}  // namespace

int main() {
  Text plain = list, text = list;
  plain.push_back(0);
  text.push_back(0);
  for (std::size_t i = 0; i < list.size(); ++i) plain.push_back(next_token(plain));

  pare::draft::DraftTree tree;
  pare::draft::Verified round;
  int rounds = 0;
  while (text.size() < plain.size()) {
    pare::draft::prompt_lookup(text, tree, {.tokens = 6, .matches = 2});
    Text next;  // one call of a real model, for all nodes
    for (pare::Index i = 0; i < tree.size(); ++i)
      next.push_back(next_token(path_to(tree, i, text)));
    pare::draft::verify_match(tree, next, round);
    text.insert(text.end(), round.tokens.begin(), round.tokens.end());
    ++rounds;
  }
  text.resize(plain.size());

  const double tokens = double(list.size()) / rounds;
  std::printf("tokens of a round: %.1f\n", tokens);
  return text == plain && tokens > 1.5 ? 0 : 1;
}
