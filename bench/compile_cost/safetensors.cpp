// SPDX-License-Identifier: Apache-2.0
#include <pare/io/safetensors.hpp>

#include <Eigen/Core>

int main() {
  const Eigen::MatrixXf w = Eigen::MatrixXf::Ones(4, 8);
  pare::io::write_safetensors("w.safetensors", {{"w", w}});
  const pare::io::SafetensorsFile file("w.safetensors");
  return int(file.matrix<float>("w").rows());
}
