// SPDX-License-Identifier: Apache-2.0
// The bound of truncated_svd: Eigen's decompositions that it calls, and nothing else.

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/Eigenvalues>

int main() {
  const Eigen::MatrixXd w = Eigen::MatrixXd::Identity(8, 8);
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(w);
  const Eigen::LLT<Eigen::MatrixXd> cholesky(w);
  Eigen::MatrixXd inverse = eigen.eigenvectors();
  cholesky.solveInPlace(inverse);
  return int(inverse(0, 0));
}
