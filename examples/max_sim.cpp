// SPDX-License-Identifier: Apache-2.0
// Late interaction: a query of three tokens and four documents of 1 to 40 tokens, one of which has
// the query's tokens among its own. Prints that document's number and its score: 2 3.000.

#include <pare/core/matrix.hpp>
#include <pare/retrieval/max_sim.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main() {
  using Matrix = pare::RowMatrix<float>;
  std::srand(1);
  Matrix query = Matrix::Random(3, 128), tokens = Matrix::Random(72, 128);
  query.rowwise().normalize();
  tokens.rowwise().normalize();
  const std::vector<pare::Index> offsets{0, 30, 31, 71, 72};  // where documents begin, and the end
  for (pare::Index i = 0; i < 3; ++i) tokens.row(40 + 9 * i) = query.row(i);

  const std::vector<float> scores = pare::retrieval::max_sim(query, tokens, offsets);
  const auto best = std::max_element(scores.begin(), scores.end());
  std::printf("%ld %.3f\n", static_cast<long>(best - scores.begin()), static_cast<double>(*best));
  return best - scores.begin() == 2 && std::abs(*best - 3) < 1e-5f ? 0 : 1;
}
