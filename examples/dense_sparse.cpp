// SPDX-License-Identifier: Apache-2.0
// A weight as a small dense times a sparse matrix (DSFormer), beside low rank with as many numbers,
// and a layer that multiplies by it.
// Prints the relative errors on noise, about 0.49 against 0.71, and how far the layer's outputs in
// bf16 are from those of its own weight: below 1 %.

#include <pare/factor/structured/dense_sparse.hpp>
#include <pare/factor/svd.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/structured/dense_sparse_linear.hpp>

#include <Eigen/Core>

#include <cstdio>
#include <random>

using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

int main() {
  constexpr Eigen::Index outputs = 256, inputs = 64;
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  const Rows w = Rows::NullaryExpr(outputs, inputs, [&] { return normal(random); });

  // 64 x 64 numbers of atoms and 8 x 256 of codes, as many as rank 19 has (places not counted).
  const auto fit = pare::factor::dense_sparse(pare::simd.threads(2), w,
                                              {.atoms = 64, .nonzeros = 8, .sweeps = 10});
  const auto thin = pare::factor::truncated_svd(w, {.rank = 19});

  // Half the bytes, and outputs by a product with the atoms and a few look-ups each.
  const pare::transformer::DenseSparseLinear<pare::bf16> layer(fit.weight.rounded<pare::bf16>());
  const Rows x = Rows::Random(5, inputs);
  Rows y(5, outputs);
  layer.apply(x, y);
  const Rows wanted = x * fit.weight.dense().transpose();
  const float off = (y - wanted).norm() / wanted.norm();

  std::printf("error %.4f of %zu sweeps, of rank 19 %.4f; the layer is off by %.2g\n",
              fit.relative_error(), fit.losses.size() - 1, thin.relative_error(), double(off));
  return fit.relative_error() < 0.5 && thin.relative_error() > 0.7 && off < 0.01f ? 0 : 1;
}
