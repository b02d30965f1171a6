// SPDX-License-Identifier: Apache-2.0
// A block selector of one's own: the diagonal, and every fourth block before it (strided
// attention).
// Prints the share of the causal blocks that is computed: 52 of 136, 0.3824.

#include <pare/attention/attend.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/attention/selector.hpp>

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>

namespace {

using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;  // [batch, heads, tokens, dim]

Tensor random_tensor(Eigen::Index heads, Eigen::Index tokens, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  Tensor tensor(1, heads, tokens, 64);
  std::generate_n(tensor.data(), tensor.size(), [&] { return normal(bits); });
  return tensor;
}

struct Strided : pare::attention::SelectorHooks {
  pare::Index row_block = 64, column_block = 64, stride = 4;

  template <class B, class S>
  double select(const B&, const pare::attention::SelectorHead<S>& head,
                pare::attention::BlockLists& keep) const {
    for (pare::Index row = 0; row < keep.rows(); ++row) {
      const pare::Index diagonal = head.position(row * row_block) / column_block;
      for (pare::Index column = 0; column < diagonal; column += stride) keep.add(row, column);
      keep.add(row, diagonal);
    }
    return NAN;  // no estimate of the mass kept
  }
};

}  // namespace

int main() {
  const Tensor q = random_tensor(2, 1024, 1), k = random_tensor(2, 1024, 2);
  const Tensor v = random_tensor(2, 1024, 3);
  Tensor out(1, 2, 1024, 64);

  const auto blocks = pare::attention::select_blocks(q, k, Strided{}, {.causal = true});
  const auto stats = pare::attention::attend(q, k, v, out, {.causal = true, .mask = &blocks});

  std::printf("computed share of the causal blocks: %.4f\n", stats.density);
  return std::abs(stats.density - 52.0 / 136) < 1e-9 ? 0 : 1;
}
