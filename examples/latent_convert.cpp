// SPDX-License-Identifier: Apache-2.0
// Keys and values of an attention layer from latents of a quarter of their width: by CARE, which
// knows the inputs, and by the SVD of the weights alone. The layer runs them as two thin layers.
// Prints the error of the keys by CARE over that by SVD: below 0.5.

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/workspace.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/metric.hpp>
#include <pare/latent/convert/care.hpp>
#include <pare/latent/convert/kv_latents.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/low_rank_linear.hpp>

#include <Eigen/Core>

#include <cstdio>

using pare::transformer::DenseLinear;
using pare::transformer::LowRankLinear;

int main() {
  // W_K and W_V of 3 heads of 16, over tokens of 96 numbers that nearly lie in a subspace.
  const pare::RowMatrix<float> key = pare::RowMatrix<float>::Random(48, 96),
                               value = pare::RowMatrix<float>::Random(48, 96);
  const Eigen::MatrixXf tokens =
      Eigen::MatrixXf::Random(2000, 12) * Eigen::MatrixXf::Random(12, 96) +
      0.1f * Eigen::MatrixXf::Random(2000, 96);
  pare::factor::Covariance inputs(96);
  inputs.add(tokens);  // as often as batches come
  const auto c = inputs.matrix();

  const auto care =
      pare::latent::care_latents(key, value, inputs, {.key_rank = 12, .value_rank = 12});
  const auto plain = pare::latent::separate_latents(
      key, value, pare::factor::Uniform{},
      {.key_rank = 12, .value_rank = 12, .inputs = pare::const_view(c)});

  // A cache holds `latents`; keys are made from them and then rotated.
  const DenseLinear<float> down(care.key_down()), up(care.key_up());
  const Eigen::MatrixXf x = tokens.topRows(4);
  pare::RowMatrix<float> latents(4, 12), keys(4, 48), at_once(4, 48);
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  down.apply(backend, x, latents);
  up.apply(backend, latents, keys);
  const LowRankLinear<float> layer(care.key);  // both, where nothing is cached
  layer.apply(backend, x, at_once);

  const double ratio = *care.key_error.activation / *plain.key_error.activation;
  std::printf("%td numbers per token in the place of 96; error of keys over that of SVD: %.3f\n",
              care.cache_width(), ratio);
  const bool same = (keys - at_once).norm() <= 1e-5f * keys.norm();
  return ratio < 0.5 && same && care.cache_width() == 24 ? 0 : 1;
}
