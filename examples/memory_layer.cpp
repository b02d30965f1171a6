// SPDX-License-Identifier: Apache-2.0
// A memory layer of 128 x 128 slots: product keys find 16 of them for each row, whose values are
// added up by a softmax. Prints how many of a row's hits are among the best of all slots: 16.

#include <pare/routing/memory/gather_values.hpp>
#include <pare/routing/memory/product_key_search.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstdio>
#include <vector>

int main() {
  using namespace pare::routing;
  using Matrix = pare::RowMatrix<float>;
  constexpr pare::Index rows = 32, n = 128, half = 24, k = 16, dim = 64;
  std::srand(1);
  const Matrix queries = Matrix::Random(rows, 2 * half), keys = Matrix::Random(2 * n, half);
  const Matrix values = Matrix::Random(n * n, dim);

  const pare::TensorView<const float, 3> q{
      queries.data(), {rows, 1, 2 * half}, {2 * half, 2 * half, 1}};
  const pare::TensorView<const float, 4> t{
      keys.data(), {1, 2, n, half}, {2 * n * half, n * half, half, 1}};
  const MemoryHits<float> hits = search_product_keys(q, t, k);
  Matrix weights = (hits.scores.colwise() - hits.scores.col(0)).array().exp();
  weights.array().colwise() /= weights.rowwise().sum().array();
  Matrix out(rows, dim);
  gather_values(values, hits.ids, weights, out);

  // All slots of the last row.
  const Eigen::VectorXf s = keys.topRows(n) * queries.row(rows - 1).head(half).transpose();
  const Eigen::VectorXf u = keys.bottomRows(n) * queries.row(rows - 1).tail(half).transpose();
  std::vector<float> all;
  for (pare::Index i = 0; i < n; ++i)
    for (pare::Index j = 0; j < n; ++j) all.push_back(s[i] + u[j]);
  std::vector<float> sorted = all;
  std::sort(sorted.rbegin(), sorted.rend());
  long found = 0;
  for (pare::Index h = 0; h < k; ++h)
    found += all[static_cast<std::size_t>(hits.ids(rows - 1, h))] >= sorted[k - 1] - 1e-5f;
  std::printf("hits among the best %ld slots: %ld\n", long(k), found);
  return found == k && out.allFinite() ? 0 : 1;
}
