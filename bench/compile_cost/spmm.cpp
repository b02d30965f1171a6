// SPDX-License-Identifier: Apache-2.0
#include <pare/linalg/spmm.hpp>

#include <Eigen/SparseCore>

int main() {
  Eigen::SparseMatrix<float, Eigen::RowMajor> a(10, 10);
  a.insert(0, 1) = 1;
  const Eigen::MatrixXf x = Eigen::MatrixXf::Ones(10, 4);
  Eigen::MatrixXf y(10, 4);
  pare::linalg::spmm(a, x, y);
}
