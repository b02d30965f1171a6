// SPDX-License-Identifier: Apache-2.0
// Experts that are one object, the library's and the user's, in a grouped product and a mixture,
// against loops in double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <pare/routing/gates.hpp>
#include <pare/routing/grouped_multiply.hpp>
#include <pare/routing/latent_experts.hpp>
#include <pare/routing/mixture.hpp>
#include <pare/transformer/dense_linear.hpp>

#include "support/properties.hpp"

namespace routing_expert_set_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::routing::ExpertSetOf;
using pare::routing::ExpertsOf;
using pare::routing::grouped_multiply;
using pare::routing::LatentExperts;
using pare::routing::mixture;
using pare::routing::route;
using pare::routing::RoutePlan;
using pare::routing::Routes;
using pare::routing::TopK;
using pare::testing::random_matrix;
using pare::testing::refuses_and_leaves_alone;
using pare::transformer::DenseLinear;
using Wide = RowMatrix<double>;

/// Experts of one table of gains: expert e makes gains[e, i] x[i] of x. It shows its memory.
struct Gains {
  Wide gains;

  Index inputs() const { return gains.cols(); }
  Index outputs() const { return gains.cols(); }
  Index experts() const { return gains.rows(); }
  template <class Visit>
  void each_memory(const Visit& visit) const {
    visit(pare::const_view(gains));
  }
  template <class B>
  void apply(const B&, TensorView<const double, 2> x, const RoutePlan& plan,
             TensorView<double, 2> parts) const {
    EXPECT_GT(plan.routed(), 0);
    Index p = 0;
    for (Index e = 0; e < plan.experts(); ++e)
      for (const Index row : plan.rows_of(e)) {
        for (Index i = 0; i < x.cols(); ++i) parts(p, i) = gains(e, i) * x(row, i);
        ++p;
      }
  }
};

static_assert(ExpertSetOf<Gains, double> && !ExpertSetOf<Gains, float>);
static_assert(!ExpertsOf<Gains, double>);
static_assert(ExpertSetOf<LatentExperts<DenseLinear<float>>, float>);
static_assert(!ExpertSetOf<LatentExperts<DenseLinear<float>>, double>);
static_assert(!ExpertSetOf<std::vector<DenseLinear<float>>, float>);

/// Routes of 30 rows to two of the experts, some to one or none.
Routes<double> some_routes(Index experts) {
  Routes<double> routes = route(random_matrix<Wide>(30, experts, 11), TopK{.k = 2});
  routes.ids(3, 0) = -1;
  routes.ids.row(8).setConstant(-1);
  return routes;
}

/// y_r = sum_j weights_rj (W_e x_r), W_e [outputs, inputs].
Wide sums_by_loops(const std::vector<Wide>& weights, const Wide& x, const Routes<double>& routes) {
  Wide y = Wide::Zero(x.rows(), weights[0].rows());
  for (Index r = 0; r < x.rows(); ++r)
    for (Index j = 0; j < routes.ids.cols(); ++j) {
      if (routes.ids(r, j) < 0) continue;
      const Wide& w = weights[static_cast<std::size_t>(routes.ids(r, j))];
      for (Index o = 0; o < w.rows(); ++o)
        for (Index i = 0; i < w.cols(); ++i) y(r, o) += routes.weights(r, j) * w(o, i) * x(r, i);
    }
  return y;
}

template <class E>
void expect_mixture(const E& experts, const std::vector<Wide>& weights) {
  const auto x = random_matrix<Wide>(30, experts.inputs(), 12);
  const auto routes = some_routes(experts.experts());
  const Wide wanted = sums_by_loops(weights, x, routes);
  const auto expect = [&](const auto& backend) {
    Wide y = Wide::Constant(30, experts.outputs(), 9);
    mixture(backend, x, routes, experts, y);
    // Elements up to 1: sums of 10 products of three, behind sums of 6, of 53 bits.
    EXPECT_LE((y - wanted).cwiseAbs().maxCoeff(), 2 * 6 * 10 * 16 * 0x1p-53);
    EXPECT_TRUE((y.row(8).array() == 0).all());
  };
  expect(pare::reference);
  expect(pare::simd);
  expect(pare::simd.threads(2));
}

/// 4 experts in groups of 3 and 1: A_e [7, 6] behind B_g [6, 10].
struct Latent {
  std::vector<Wide> weights{};
  LatentExperts<DenseLinear<double>> experts = make(weights);

  static LatentExperts<DenseLinear<double>> make(std::vector<Wide>& weights) {
    std::vector<DenseLinear<double>> shared, specific;
    const std::vector<Index> offsets{0, 3, 4};
    for (std::uint64_t g = 0; g < 2; ++g) {
      const auto b = random_matrix<Wide>(6, 10, 20 + g);
      shared.push_back(DenseLinear<double>::copy_of(b));
      for (Index e = offsets[g]; e < offsets[g + 1]; ++e) {
        const auto a = random_matrix<Wide>(7, 6, static_cast<std::uint64_t>(30 + e));
        specific.push_back(DenseLinear<double>::copy_of(a));
        weights.emplace_back(a * b);
      }
    }
    return {std::move(shared), std::move(specific), offsets};
  }
};

TEST(ExpertSets, AMixtureOfLatentExpertsIsTheirSum) {
  const Latent latent;
  expect_mixture(latent.experts, latent.weights);
}

TEST(ExpertSets, ASetOfTheUsersIsTakenAsItIs) {
  const Gains set{random_matrix<Wide>(5, 8, 1)};
  std::vector<Wide> weights;
  for (Index e = 0; e < 5; ++e) weights.emplace_back(set.gains.row(e).asDiagonal());
  expect_mixture(set, weights);
  const auto x = random_matrix<Wide>(30, 8, 12);
  const RoutePlan plan(some_routes(5).ids, 5);
  Wide parts(plan.routed(), 8);
  grouped_multiply(pare::simd.threads(2), x, plan, set, parts);
  Index p = 0;
  for (Index e = 0; e < 5; ++e)
    for (const Index row : plan.rows_of(e)) {
      for (Index i = 0; i < 8; ++i) ASSERT_EQ(parts(p, i), set.gains(e, i) * x(row, i)) << p;
      ++p;
    }
  // Without pairs it is not called, which it would notice.
  const Routes<double> none{RowMatrix<Index>::Constant(30, 2, -1), Wide::Ones(30, 2)};
  Wide y = Wide::Ones(30, 8);
  mixture(x, none, set, y);
  EXPECT_TRUE((y.array() == 0).all());
}

/// `Gains` is of equal inputs and outputs; it is refused before it is asked.
TEST(ExpertSets, WhatDoesNotFitIsRefused) {
  Gains set{random_matrix<Wide>(5, 8, 1)};
  const Wide x = random_matrix<Wide>(30, 8, 12), few = x.topRows(29), narrow = x.leftCols(7);
  const auto routes = some_routes(5);
  const RoutePlan plan(routes.ids, 5), other(routes.ids, 6);
  Wide y = Wide::Zero(30, 8), parts = Wide::Zero(plan.routed(), 8), thin(30, 7),
       short_parts(plan.routed() - 1, 8), thin_parts(plan.routed(), 7);
  const auto refused = [&](const Wide& from, auto&& to, const char* argument) {
    refuses_and_leaves_alone([&] { mixture(from, routes, set, to); }, "routing::mixture", argument,
                             y, set.gains);
  };
  refused(few, y, "routes");
  refused(narrow, y, "experts");
  refused(x, thin, "y");
  refused(x, TensorView<double, 2>{set.gains.data(), {30, 8}, {8, 1}}, "y");
  const auto refused_parts = [&](const Wide& from, const RoutePlan& by, auto&& to,
                                 const char* argument) {
    refuses_and_leaves_alone([&] { grouped_multiply(from, by, set, to); },
                             "routing::grouped_multiply", argument, parts, set.gains);
  };
  refused_parts(few, plan, parts, "x");
  refused_parts(narrow, plan, parts, "experts");
  refused_parts(x, other, parts, "experts");
  refused_parts(x, plan, short_parts, "parts");
  refused_parts(x, plan, thin_parts, "experts");
  refused_parts(x, plan, TensorView<double, 2>{set.gains.data(), {plan.routed(), 8}, {8, 1}},
                "parts");
  set.gains.resize(0, 8);
  refused(x, y, "experts");
  // The members of a set of the library's check themselves.
  const Latent latent;
  const RoutePlan fours(some_routes(4).ids, 4);
  Wide of_seven = Wide::Zero(fours.routed(), 7);
  const auto rows = random_matrix<Wide>(30, 9, 2);
  refuses_and_leaves_alone(
      [&] {
        latent.experts.apply(pare::simd, pare::const_view(rows), fours, pare::to_view(of_seven));
      },
      "routing::LatentExperts::apply", "experts", of_seven);
  for (const auto layer :
       {latent.experts.shared()[1].weights(), latent.experts.specific()[3].weights()}) {
    const TensorView<double, 2> on{const_cast<double*>(layer.data), {30, 7}, {7, 1}};
    const auto ten = random_matrix<Wide>(30, 10, 2);
    refuses_and_leaves_alone([&] { mixture(ten, some_routes(4), latent.experts, on); },
                             "routing::mixture", "y");
  }
}

}  // namespace
}  // namespace routing_expert_set_test
