// SPDX-License-Identifier: Apache-2.0
// Retrieval heads: of four heads one looks up what stood behind the same token before, which is how
// a model copies. Prints each head's retrieval score over 20 texts: nearly 1 for that head, nearly
// 0 for the others.

#include <pare/attention/heads/retrieval_heads.hpp>

#include <unsupported/Eigen/CXX11/Tensor>

#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

using pare::Index;
using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;  // [1, heads, tokens, dim]

int main() {
  constexpr Index heads = 4, dim = 64, vocabulary = 5000, tokens = 400, begin = 100, size = 8;
  std::mt19937 bits(3);
  std::normal_distribution<float> normal;
  std::vector<float> embedding(vocabulary * dim);
  for (float& x : embedding) x = normal(bits);

  pare::attention::RetrievalScores scores(1, heads);
  for (int sample = 0; sample < 20; ++sample) {
    std::vector<std::int32_t> text(tokens + size);
    for (auto& token : text) token = static_cast<std::int32_t>(bits() % vocabulary);
    // The last token before the answer is the one before the passage; the answer is the passage.
    for (Index i = -1; i < size; ++i) text[tokens + i] = text[begin + i];

    // Queries of the answer stand at the tokens before it; keys are all up to the last of them.
    const Index keys = tokens + size - 1;
    Tensor q(1, heads, size, dim), k(1, heads, keys, dim);
    for (Index h = 0; h < heads; ++h)
      for (Index c = 0; c < dim; ++c) {
        for (Index i = 0; i < size; ++i) q(0, h, i, c) = embedding[text[tokens + i - 1] * dim + c];
        for (Index j = 0; j < keys; ++j)  // head 2: the token before; the others: noise
          k(0, h, j, c) = h == 2 && j > 0 ? embedding[text[j - 1] * dim + c] : normal(bits);
      }
    const std::vector<std::int32_t> answer(text.end() - size, text.end());
    text.resize(static_cast<std::size_t>(keys));
    scores.add(0, q, k, {.tokens = text, .begin = begin, .size = size, .answer = answer});
  }

  const std::vector<double> all = scores.scores();
  const auto best = pare::attention::top_heads(all, heads, 0.25);
  for (Index h = 0; h < heads; ++h)
    std::printf("head %td: retrieval score %.2f\n", h, all[static_cast<std::size_t>(h)]);
  return best.front().head == 2 && all[2] > 0.9 && all[0] < 0.2 ? 0 : 1;
}
