// SPDX-License-Identifier: Apache-2.0
// Value residual of SATFormer: what a layer writes to its cache is its values plus a gated share of
// those of the first layer. Prints the largest difference to the formula: about 1e-7.

#include <pare/attention/value_residual.hpp>

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>

int main() {
  constexpr Eigen::Index tokens = 100, heads = 3, dim = 64, model_dim = 576;
  std::mt19937 bits(1);
  std::normal_distribution<float> normal;
  const auto draw = [&](auto& x) {
    std::generate_n(x.data(), x.size(), [&] { return normal(bits); });
  };
  Eigen::Tensor<float, 3, Eigen::RowMajor> hidden(1, tokens, model_dim);
  Eigen::Tensor<float, 4, Eigen::RowMajor> v(1, heads, tokens, dim), v_first(1, heads, tokens, dim);
  Eigen::Tensor<float, 4, Eigen::RowMajor> cache(1, heads, tokens, dim);
  Eigen::MatrixXf w_alpha(heads, model_dim);
  draw(hidden);
  draw(v);
  draw(v_first);
  draw(w_alpha);
  w_alpha /= std::sqrt(float(model_dim));

  pare::attention::value_residual(hidden, w_alpha, v, v_first, cache,
                                  {.gate = pare::attention::ResidualGate::Sigmoid});

  double off = 0;
  for (Eigen::Index t = 0; t < tokens; ++t)
    for (Eigen::Index h = 0; h < heads; ++h) {
      double z = 0;
      for (Eigen::Index j = 0; j < model_dim; ++j)
        z += double(w_alpha(h, j)) * double(hidden(0, t, j));
      const double alpha = 1 / (1 + std::exp(-z));
      for (Eigen::Index c = 0; c < dim; ++c) {
        const double wanted = double(v(0, h, t, c)) + alpha * double(v_first(0, h, t, c));
        off = std::max(off, std::abs(double(cache(0, h, t, c)) - wanted));
      }
    }
  std::printf("largest difference to the formula: %.2g\n", off);
  return off < 1e-5 ? 0 : 1;
}
