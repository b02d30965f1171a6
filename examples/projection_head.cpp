// SPDX-License-Identifier: Apache-2.0
// A projection head of a multi-vector retriever: token vectors of 48 through a wider block with a
// residual and a gated one to rows of 16 of length 1, and what of it a loop over its formula gives.
// Prints the largest difference between the two, below 1e-5, and how far lengths are from 1.

#include <pare/retrieval/projection.hpp>
#include <pare/retrieval/projection_head.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdio>

using pare::transformer::Gelu;
using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Layer = pare::transformer::DenseLinear<float>;
using namespace pare::retrieval;

/// The formula, in double.
Eigen::MatrixXd head_by_loops(const Rows& tokens, const Rows& up, const Rows& residual,
                              const Rows& gate, const Rows& value) {
  const Eigen::MatrixXd x = tokens.cast<double>();
  const auto product = [](const Eigen::MatrixXd& rows, const Rows& w) {
    return Eigen::MatrixXd(rows * w.cast<double>().transpose());
  };
  const auto gelu = [](double z) { return z / 2 * std::erfc(-z / std::sqrt(2.0)); };
  const Eigen::MatrixXd wide = product(x, up).unaryExpr(gelu) + product(x, residual);
  const auto sigmoid = [](double z) { return 1 / (1 + std::exp(-z)); };
  const Eigen::MatrixXd z =
      product(wide, gate).unaryExpr(sigmoid).cwiseProduct(product(wide, value));
  return z.rowwise().normalized();
}

int main() {
  constexpr Eigen::Index tokens = 200, inputs = 48, between = 96, outputs = 16;
  const Rows x = Rows::Random(tokens, inputs);
  const Rows up = Rows::Random(between, inputs) / 4, residual = Rows::Random(between, inputs) / 4;
  const Rows gate = Rows::Random(outputs, between) / 4, value = Rows::Random(outputs, between) / 4;

  const auto head = projection_head(Projection<Layer, Gelu, Layer>(Layer(up), Layer(residual)),
                                    GatedProjection<Layer>(Layer(gate), Layer(value)));
  Rows y(tokens, outputs);
  head.apply(pare::simd.threads(2), x, y);

  const Eigen::MatrixXd wanted = head_by_loops(x, up, residual, gate, value);
  const double error = (y.cast<double>() - wanted).cwiseAbs().maxCoeff();
  const double length = (y.rowwise().norm().array() - 1).abs().maxCoeff();
  std::printf("largest difference %.1e, lengths off by %.1e\n", error, length);
  return error < 1e-5 && length < 1e-6 ? 0 : 1;
}
