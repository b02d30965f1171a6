// SPDX-License-Identifier: Apache-2.0
// A service that gets one sparse row at a time, features hashed to a million columns, keeps its
// random operator in memory and finds the nearest of two thousand rows by 256 numbers each.
// Prints how many of 200 rows that lost a third of their features are found: 200, or one less.

#include <pare/core/workspace.hpp>
#include <pare/projection/prepared_projection.hpp>
#include <pare/projection/project.hpp>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <cstdio>
#include <random>
#include <vector>

using Row = Eigen::SparseMatrix<float, Eigen::RowMajor>;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int columns = 1 << 20;

/// A row of ones at some columns.
Row row_of(const std::vector<int>& features) {
  Row row(1, columns);
  for (const int feature : features) row.coeffRef(0, feature) = 1;
  row.makeCompressed();
  return row;
}

int main() {
  const pare::projection::SparseSignProjection omega{
      .input_dim = columns, .output_dim = 256, .nonzeros = 8, .seed = 7};
  // 20 bytes a column: all of them. With fewer bytes the first columns are kept, the others drawn.
  const pare::projection::PreparedProjection prepared(pare::simd.threads(2), omega,
                                                      {.bytes = 32 << 20});
  pare::Workspace workspace;  // of one thread; another thread takes one of its own
  const auto project_into = [&](const Row& row, auto&& out) {
    pare::projection::project(pare::simd.with(workspace), row, prepared, out);
  };

  std::mt19937 random(1);
  std::vector<std::vector<int>> documents(2000, std::vector<int>(60));
  Matrix index(2000, 256);
  for (std::size_t i = 0; i < documents.size(); ++i) {
    for (int& feature : documents[i]) feature = static_cast<int>(random() % columns);
    project_into(row_of(documents[i]), index.row(static_cast<Eigen::Index>(i)));
  }

  int found = 0;
  for (std::size_t asked = 0; asked < documents.size(); asked += 10) {
    std::vector<int> part = documents[asked];
    part.resize(40);
    Matrix query(1, 256);
    project_into(row_of(part), query);
    Eigen::Index best = 0;
    (index * query.transpose()).col(0).maxCoeff(&best);
    found += best == static_cast<Eigen::Index>(asked) ? 1 : 0;
  }
  std::printf("found %d of 200, with %ld columns in %ld MiB\n", found,
              static_cast<long>(prepared.columns()), static_cast<long>(prepared.bytes() >> 20));
  return found >= 199 && prepared.columns() == columns ? 0 : 1;
}
