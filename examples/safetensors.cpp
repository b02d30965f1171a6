// SPDX-License-Identifier: Apache-2.0
// Writes the factors of a layer to a .safetensors file and maps them into memory again.
// Prints the largest difference between what was written and what is read: 0.

#include <pare/io/safetensors.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

int main() {
  const Eigen::MatrixXf left = Eigen::MatrixXf::Random(48, 8);
  const Eigen::MatrixXf right = Eigen::MatrixXf::Random(8, 32);
  const auto path = std::filesystem::temp_directory_path() / "pare_example.safetensors";
  pare::io::write_safetensors(path, {{"left", left}, {"right", right}});

  float difference = 0;
  {
    const pare::io::SafetensorsFile file(path);
    const auto read = file.matrix<float>("left");  // a view of the mapped file
    for (Eigen::Index i = 0; i < left.rows(); ++i)
      for (Eigen::Index j = 0; j < left.cols(); ++j)
        difference = std::max(difference, std::abs(read(i, j) - left(i, j)));
  }
  std::filesystem::remove(path);
  std::printf("largest difference: %g\n", double(difference));
  return difference == 0 ? 0 : 1;
}
