// SPDX-License-Identifier: Apache-2.0
#include <pare/io/safetensors.hpp>

#include <Eigen/Core>
#include <cstddef>
#include <cstdio>
#include <span>
#include <sstream>
#include <string>

int main() {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(4, 32);
  std::ostringstream os;
  pare::io::write_safetensors(os, {{"x", x}});
  const std::string text = os.str();
  const pare::io::SafetensorsFile file(std::as_bytes(std::span(text.data(), text.size())));
  const bool same = file.read_matrix<float>("x") == x;
  std::printf("%zu bytes of .safetensors: %s\n", text.size(), same ? "the same" : "different");
  return same ? 0 : 1;
}
