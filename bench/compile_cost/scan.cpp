// SPDX-License-Identifier: Apache-2.0
#include <pare/sequence/scan.hpp>

#include <vector>

int main() {
  std::vector<float> x(64), a(1), b(16), h(64 * 16), y(64);
  const auto view = [](std::vector<float>& of, pare::Index heads, pare::Index width) {
    return pare::TensorView<float, 4>{of.data(), {1, 1, heads, width}, {0, 0, width, 1}};
  };
  pare::sequence::scan(view(x, 1, 64), view(a, 1, 1), view(b, 1, 16), view(b, 1, 16),
                       pare::TensorView<float, 4>{h.data(), {1, 1, 16, 64}, {0, 0, 64, 1}},
                       view(y, 1, 64));
}
