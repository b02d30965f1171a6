// SPDX-License-Identifier: Apache-2.0
// Exact nearest neighbours: 20,000 unit rows, and queries that are some of them, blurred. Prints
// how many of 50 queries find the row that they were made from: 50.

#include <pare/core/matrix.hpp>
#include <pare/retrieval/top_k_dot.hpp>

#include <Eigen/Core>

#include <cstdio>
#include <cstdlib>

int main() {
  using Matrix = pare::RowMatrix<float>;
  std::srand(1);
  Matrix table = Matrix::Random(20000, 96);
  table.rowwise().normalize();
  Matrix queries = .05f * Matrix::Random(50, 96);
  for (pare::Index i = 0; i < 50; ++i) queries.row(i) += table.row(397 * i);

  const pare::retrieval::DotHits<float> hits =
      pare::retrieval::top_k_dot(pare::simd.threads(2), table, queries, 10);
  int found = 0;
  for (pare::Index i = 0; i < 50; ++i) found += hits.ids(i, 0) == 397 * i ? 1 : 0;
  std::printf("%d\n", found);
  return found == 50 ? 0 : 1;
}
