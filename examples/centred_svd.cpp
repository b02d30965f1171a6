// SPDX-License-Identifier: Apache-2.0
// Principal components of handwritten digits, 1797 images of 64 pixels.
// Prints the share of the variance that two components explain: 0.285, as scikit-learn has it.

#include <pare/factor/centred_svd.hpp>

#include <Eigen/Core>

#include <cstdio>
#include <fstream>

int main(int argc, char** argv) {
  Eigen::MatrixXd images(1797, 64);
  std::ifstream file(argc > 1 ? argv[1] : "examples/data/digits/digits.csv");
  for (Eigen::Index i = 0; i < images.rows(); ++i) {
    char comma = 0;
    int label = 0;
    for (Eigen::Index j = 0; j < images.cols(); ++j) file >> images(i, j) >> comma;
    file >> label;
  }
  if (!file) return 2;

  const auto pca = pare::factor::centred_svd(images, {.rank = 2});

  const double share = pca.factors.captured_energy / pca.factors.total_energy;
  std::printf("share of the variance that two components explain: %.4f\n", share);
  return share > 0.2849 && share < 0.2852 ? 0 : 1;
}
