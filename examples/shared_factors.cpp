// SPDX-License-Identifier: Apache-2.0
// Experts of the same inputs share a factor (MoLE): W_i ~ A_i B, B applied once for all of them.
// Prints the relative error of the weights, the share of the numbers that is kept, and how far the
// layer is from the product of its factors: about .05, .46 and 1e-7.

#include <pare/core/matrix.hpp>
#include <pare/factor/structured/shared_factors.hpp>
#include <pare/transformer/structured/shared_linear.hpp>

#include <Eigen/Core>

#include <cstdio>
#include <vector>

int main() {
  using Matrix = pare::RowMatrix<float>;
  constexpr int experts = 4, in = 96, out = 64, latent = 32;
  const Matrix common = Matrix::Random(latent, in);
  std::vector<Matrix> weights;
  for (int i = 0; i < experts; ++i)  // rows near one space of 32 dimensions
    weights.push_back(Matrix::Random(out, latent) * common / 4 + 0.05f * Matrix::Random(out, in));

  const auto factors = pare::factor::shared_factors(weights, {.latent = latent});
  const pare::transformer::SharedLinear<float> layer(factors);
  const float kept = float(factors.factors.parameters()) / float(experts * out * in);

  const Matrix x = Matrix::Random(10, in);
  Matrix z(10, latent), y(10, out);
  layer.project(x, z);            // once for all experts
  layer.apply_specific(2, z, y);  // and those that a router chooses
  const Matrix wanted =
      x * (factors.factors.left.middleRows(2 * out, out) * factors.factors.right).transpose();
  const float off = (y - wanted).norm() / wanted.norm();
  std::printf("error %.3f, kept %.2f, off by %.2g\n", factors.factors.relative_error(),
              double(kept), double(off));
  return factors.factors.relative_error() < 0.1 && kept < 0.5f && off < 1e-5f ? 0 : 1;
}
