// SPDX-License-Identifier: Apache-2.0
// Documents of late interaction in 4 bits a dimension, as ColBERTv2 keeps them: 72 bytes a token of
// 128 floats. Scores them without decoding. Prints the document that the query was taken from: 17.

#include <pare/core/matrix.hpp>
#include <pare/retrieval/residual_codec.hpp>
#include <pare/retrieval/residual_max_sim.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main() {
  using namespace pare::retrieval;
  using Matrix = pare::RowMatrix<float>;
  constexpr pare::Index documents = 40, length = 50, dim = 128;
  std::srand(1);
  // Tokens about 30 subjects.
  const Matrix subjects = Matrix::Random(30, dim);
  Matrix tokens = .5f * Matrix::Random(documents * length, dim);
  for (pare::Index i = 0; i < tokens.rows(); ++i)
    tokens.row(i) = (tokens.row(i) + subjects.row((i * 7 + i / length) % 30)).normalized();
  std::vector<pare::Index> offsets;
  for (pare::Index d = 0; d <= documents; ++d) offsets.push_back(d * length);
  const Matrix query = tokens.middleRows(17 * length + 9, 8);

  const ResidualCodec codec = fit_residual_codec(tokens, {.bits = 4, .centroids = 64});
  const ResidualRows rows = encode(codec, tokens);
  const std::vector<float> scores = residual_max_sim(query, codec, rows, offsets);
  const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
  std::printf("%ld\n", static_cast<long>(best));
  // Of 8 tokens that are in the document, each decoded to within some hundredths.
  return best == 17 && scores[17] > 7.8f && scores[17] < 8.01f ? 0 : 1;
}
