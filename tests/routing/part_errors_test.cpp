// SPDX-License-Identifier: Apache-2.0
// Errors of experts that stand for others, against their definition: of a conversion to shared
// projections, with and without a covariance, and where there is nothing to compare.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include <pare/factor/covariance.hpp>
#include <pare/factor/structured/shared_factors.hpp>
#include <pare/routing/grouped_multiply.hpp>
#include <pare/routing/latent_experts.hpp>
#include <pare/routing/part_errors.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/structured/shared_linear.hpp>

#include "support/properties.hpp"

namespace routing_part_errors_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::factor::grouped_shared_factors;
using pare::routing::grouped_multiply;
using pare::routing::latent_experts;
using pare::routing::part_errors;
using pare::routing::RoutePlan;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::transformer::DenseLinear;
using pare::transformer::SharedLinear;
using Wide = RowMatrix<double>;
using Ids = RowMatrix<Index>;

constexpr Index inputs = 18, latent = 7, outputs = 11;

Wide wide(pare::TensorView<const double, 2> m) {
  return Eigen::Map<const Wide>(m.data, m.rows(), m.cols());
}

/// Every row to all of `experts`.
RoutePlan to_all(Index rows, Index experts) {
  Ids ids(rows, experts);
  for (Index e = 0; e < experts; ++e) ids.col(e).setConstant(e);
  return RoutePlan(ids, experts);
}

/// Six experts of which each three are near one space, and inputs that stretch along some
/// directions: the errors that are reported are those of the definition; they fall with the width,
/// to nothing where it holds all rows; a covariance of the inputs makes the outputs better.
TEST(PartErrors, AreThoseOfTheConversion) {
  std::vector<Wide> weights;
  for (std::uint64_t e = 0; e < 6; ++e)
    weights.push_back(random_matrix<Wide>(outputs, latent, 80 + e) *
                          random_matrix<Wide>(latent, inputs, 90 + e / 3) +
                      .3 * random_matrix<Wide>(outputs, inputs, 100 + e));
  Wide x = random_matrix<Wide>(200, inputs, 3);
  for (Index c = 0; c < inputs; ++c) x.col(c) *= std::pow(.75, static_cast<double>(c));
  pare::factor::Covariance covariance(inputs);
  covariance.add(x);
  const RoutePlan plan = to_all(200, 6);
  std::vector<DenseLinear<double>> dense;
  for (const auto& w : weights) dense.push_back(DenseLinear<double>::copy_of(w));
  Wide wanted(plan.routed(), outputs), parts = wanted;
  grouped_multiply(x, plan, dense, wanted);

  const auto errors_of = [&](const std::vector<pare::factor::SharedFactors<double>>& groups) {
    std::vector<SharedLinear<double>> layers;
    for (const auto& g : groups) layers.push_back(SharedLinear<double>::copy_of(g));
    grouped_multiply(x, plan, latent_experts(layers), parts);
    const auto errors = part_errors(plan, parts, wanted);
    for (std::size_t e = 0; e < 6; ++e) {
      const auto& group = groups[e / 3];
      const Wide off =
          weights[e] - wide(group.specific(static_cast<Index>(e % 3))) * wide(group.shared());
      EXPECT_NEAR(errors[e], (x * off.transpose()).norm() / (x * weights[e].transpose()).norm(),
                  1e-12);
    }
    double squares = 0;  // of all outputs, which is what a covariance makes least
    for (std::size_t e = 0; e < 6; ++e)
      squares += errors[e] * errors[e] * (x * weights[e].transpose()).squaredNorm();
    return squares;
  };
  double last = std::numeric_limits<double>::infinity();
  for (const Index width : {2, 7, 12}) {
    const double plain = errors_of(grouped_shared_factors(weights, 3, {.latent = width})),
                 aware =
                     errors_of(grouped_shared_factors(weights, 3, {.latent = width}, covariance));
    EXPECT_LT(aware, .7 * plain) << width;
    EXPECT_LT(aware, last) << width;
    last = aware;
  }
  EXPECT_LE(errors_of(grouped_shared_factors(weights, 3, {.latent = inputs}, covariance)), 1e-20);
}

TEST(PartErrors, OfWhatHasNoErrorAreDefined) {
  Ids ids(4, 1);
  ids << 0, 1, 2, 4;
  const RoutePlan plan(ids, 5);
  RowMatrix<double> parts(4, 2), wanted(4, 2);
  parts << 3e200, 4e200, 0, 0, 1, 1, 1, 1;
  wanted << 3e200, 0, 0, 0, 0, 0, 1, std::numeric_limits<double>::quiet_NaN();
  const auto errors = part_errors(plan, parts, wanted);
  EXPECT_NEAR(errors[0], 4.0 / 3, 1e-15);
  EXPECT_EQ(errors[1], 0);  // both are 0
  EXPECT_EQ(errors[2], std::numeric_limits<double>::infinity());
  EXPECT_EQ(errors[3], 0);  // no rows
  EXPECT_TRUE(std::isnan(errors[4]));
  const RowMatrix<double> few = parts.topRows(3), narrow = parts.leftCols(1);
  refusal([&] { part_errors(plan, few, wanted); }, "routing::part_errors", "parts");
  refusal([&] { part_errors(plan, parts, few); }, "routing::part_errors", "wanted");
  refusal([&] { part_errors(plan, parts, narrow); }, "routing::part_errors", "wanted");
}

}  // namespace
}  // namespace routing_part_errors_test
