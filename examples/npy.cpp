// SPDX-License-Identifier: Apache-2.0
// Writes a matrix to a file that NumPy loads, and reads it back.
// Prints the largest difference between the two: 0.

#include <pare/io/npy.hpp>

#include <Eigen/Core>

#include <cstdio>
#include <filesystem>

int main() {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(100, 16);
  const auto path = std::filesystem::temp_directory_path() / "pare_example.npy";
  pare::io::write_npy(path, x);  // in Python: numpy.load("pare_example.npy")

  const Eigen::MatrixXf read = pare::io::read_npy_matrix<float>(path);

  std::filesystem::remove(path);
  const float difference = (x - read).cwiseAbs().maxCoeff();
  std::printf("largest difference: %g\n", double(difference));
  return difference == 0 ? 0 : 1;
}
