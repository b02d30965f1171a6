// SPDX-License-Identifier: Apache-2.0
// A mixture of 8 experts becomes one of latent experts (MoLE): groups of 4 share a projection,
// which is applied once per row and group. Prints the relative error of each expert's outputs,
// without and with the covariance of the inputs, the worst of both, and how much of the weights is
// left: some .08, .05 and .57.

#include <pare/core/matrix.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/structured/shared_factors.hpp>
#include <pare/routing/gates.hpp>
#include <pare/routing/latent_experts.hpp>
#include <pare/routing/part_errors.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/structured/shared_linear.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

using namespace pare::routing;
using Matrix = pare::RowMatrix<float>;
using Factors = std::vector<pare::factor::SharedFactors<float>>;
using Shared = pare::transformer::SharedLinear<float>;

constexpr int num_experts = 8, per_group = 4, d_in = 96, d_out = 64, d_latent = 40, num_rows = 300;

/// The largest error of an expert on the rows that the plan gives it.
double worst_error(const Factors& factors, const Matrix& x, const RoutePlan& plan,
                   const Matrix& wanted) {
  std::vector<Shared> layers;
  for (const auto& f : factors) layers.emplace_back(f);
  Matrix parts(plan.routed(), d_out);
  grouped_multiply(pare::simd.threads(2), x, plan, latent_experts(layers), parts);
  double worst = 0;
  for (const double error : part_errors(plan, parts, wanted)) {
    std::printf(" %.3f", error);
    worst = std::max(worst, error);
  }
  std::printf("\n");
  return worst;
}

int main() {
  std::srand(3);
  Matrix x = Matrix::Random(num_rows, d_in);
  for (int c = 0; c < d_in; ++c) x.col(c) *= std::pow(0.97f, float(c));
  std::vector<Matrix> weights;
  std::vector<pare::transformer::DenseLinear<float>> dense;
  for (int g = 0; g < num_experts / per_group; ++g) {
    const Matrix common = Matrix::Random(d_latent, d_in);
    for (int e = 0; e < per_group; ++e)
      weights.push_back(Matrix::Random(d_out, d_latent) * common / 4 +
                        0.1f * Matrix::Random(d_out, d_in));
  }
  for (const Matrix& w : weights) dense.emplace_back(w);

  const RoutePlan plan(route(Matrix::Random(num_rows, num_experts).eval(), TopK{.k = 2}).ids,
                       num_experts);
  Matrix wanted(plan.routed(), d_out);
  grouped_multiply(x, plan, dense, wanted);

  pare::factor::Covariance covariance(d_in);
  covariance.add(x);
  const auto plain = pare::factor::grouped_shared_factors(weights, per_group, {.latent = d_latent});
  const auto aware =
      pare::factor::grouped_shared_factors(weights, per_group, {.latent = d_latent}, covariance);
  const double without = worst_error(plain, x, plan, wanted),
               with = worst_error(aware, x, plan, wanted);
  const double kept =
      double(d_latent) * (d_in + per_group * d_out) / double(per_group * d_in * d_out);
  std::printf("with the covariance %.3f, without %.3f; %.2f of the weights\n", with, without, kept);
  return with < without && with < 0.15 && kept < 0.6 ? 0 : 1;
}
