// SPDX-License-Identifier: Apache-2.0
// Fields that are 0 in most rows: only what is not is stored, and LeAP's mix visits nothing else.
// Prints the largest difference to the mix of the dense batch: about 1e-10.

#include <pare/feature/fields/sparse_fields.hpp>
#include <pare/feature/leap/mix.hpp>
#include <pare/feature/leap/mix_sparse.hpp>

#include <Eigen/Core>

#include <cstdio>
#include <random>
#include <vector>

int main() {
  const pare::feature::FieldLayout layout({1, 1, 8, 4});  // two flags, two embeddings
  std::mt19937 bits(7);
  std::uniform_real_distribution<float> uniform(0, 1);
  const Eigen::MatrixXf x = Eigen::MatrixXf::NullaryExpr(500, layout.dim(), [&] {
    const float value = uniform(bits);
    return value < 0.02f ? value : 0.0f;
  });
  const auto sparse = pare::feature::to_sparse(layout, x);
  const std::vector<double> gates{0.25, 0.5, 0.75, 1};
  const pare::feature::Donors donors(pare::feature::DonorPolicy::BaseShift, 7, 0, 500, layout);

  std::vector<float> a(std::size_t(500 * layout.dim())), b = a;  // field after field
  const auto mixed = pare::feature::field_blocked(layout, a, 500);
  pare::feature::mix_forward(x, gates, donors, mixed);
  pare::feature::SparseMix<float> sparse_mixed;
  pare::feature::mix_forward(sparse, gates, donors, sparse_mixed);
  pare::feature::to_dense(sparse_mixed.fields(), pare::feature::field_blocked(layout, b, 500));

  const Eigen::Map<const Eigen::VectorXf> dense(a.data(), Eigen::Index(a.size()));
  const float largest =
      (dense - Eigen::Map<const Eigen::VectorXf>(b.data(), dense.size())).cwiseAbs().maxCoeff();
  std::printf("%td of 2000 are stored; largest difference to the dense mix: %g\n", sparse.entries(),
              double(largest));
  return largest < 1e-6f ? 0 : 1;
}
