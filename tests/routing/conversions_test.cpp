// SPDX-License-Identifier: Apache-2.0
// Dense layers as experts, oracles and routers fitted to them, adapters merged and taken away.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include <pare/routing/adapters.hpp>
#include <pare/routing/mixture.hpp>
#include <pare/routing/neuron_groups.hpp>
#include <pare/routing/oracle.hpp>

#include "support/properties.hpp"

namespace routing_conversions_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::routing::AdapterBank;
using pare::routing::add_adapter;
using pare::routing::budget_curve;
using pare::routing::co_activation_order;
using pare::routing::expert_errors;
using pare::routing::fit_ridge_router;
using pare::routing::GatedFeedForward;
using pare::routing::merge_adapters;
using pare::routing::MergedAdapter;
using pare::routing::mixture;
using pare::routing::neuron_groups;
using pare::routing::oracle_routes;
using pare::routing::permute_neurons;
using pare::routing::route;
using pare::routing::Routes;
using pare::routing::subtract_adapter;
using pare::routing::task_weights;
using pare::routing::TopHalf;
using pare::routing::TopK;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using Layer = pare::transformer::DenseLinear<double>;

/// A gated layer of 24 neurons and rows for it.
struct Dense {
  RowMatrix<double> gate = random_matrix<RowMatrix<double>>(24, 10, 1),
                    up = random_matrix<RowMatrix<double>>(24, 10, 2),
                    down = random_matrix<RowMatrix<double>>(7, 24, 3),
                    x = random_matrix<RowMatrix<double>>(40, 10, 4);

  RowMatrix<double> hidden() const {
    const RowMatrix<double> g = x * gate.transpose(), u = x * up.transpose();
    return (g.array() / (1 + (-g.array()).exp()) * u.array()).matrix();
  }
  RowMatrix<double> y() const { return hidden() * down.transpose(); }
};

TEST(NeuronGroups, AllOfThemAreTheDenseLayer) {
  const Dense d;
  const auto experts = neuron_groups(d.gate, d.up, d.down, 4);
  ASSERT_EQ(experts.size(), 4u);
  EXPECT_EQ(experts[1].gate().weights().data, d.gate.data() + 6 * 10);  // a view
  Routes<double> all;
  all.ids.resize(40, 4);
  all.weights = RowMatrix<double>::Ones(40, 4);
  for (Index j = 0; j < 4; ++j) all.ids.col(j).setConstant(3 - j);
  RowMatrix<double> y(40, 7);
  mixture(d.x, all, experts, y);
  EXPECT_LE((y - d.y()).cwiseAbs().maxCoeff(), 1e-13);
  // Routed to two groups is the dense layer without the neurons of the others.
  const auto logits = random_matrix<RowMatrix<double>>(40, 4, 9);
  const auto some = route(logits, TopHalf{});
  RowMatrix<double> masked = RowMatrix<double>::Zero(40, 24);
  for (Index r = 0; r < 40; ++r)
    for (Index j = 0; j < 2; ++j)
      masked.row(r).segment(6 * some.ids(r, j), 6) =
          2 * d.hidden().row(r).segment(6 * some.ids(r, j), 6);
  for (const auto& backend : {pare::simd.threads(1), pare::simd.threads(2)}) {
    mixture(backend, d.x, some, experts, y);
    EXPECT_LE((y - masked * d.down.transpose()).cwiseAbs().maxCoeff(), 1e-13);
  }
  mixture(pare::reference, d.x, some, experts, y);
  EXPECT_LE((y - masked * d.down.transpose()).cwiseAbs().maxCoeff(), 1e-13);
}

TEST(NeuronGroups, WhatIsActiveTogetherSharesAGroup) {
  // Neuron i is active on tokens of its kind, i % 3.
  RowMatrix<double> activations = .01 * random_matrix<RowMatrix<double>>(60, 12, 5);
  for (Index t = 0; t < 60; ++t)
    for (Index i = 0; i < 12; ++i)
      if (t % 3 == i % 3) activations(t, i) += i % 2 == 0 ? 1 : -1;
  for (const std::uint64_t seed : {0u, 5u, 13u}) {
    const auto order = co_activation_order(activations, 3, {.seed = seed});
    for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(order[i] % 3, order[i / 4 * 4] % 3) << seed;
    auto sorted = order;
    std::sort(sorted.begin(), sorted.end());
    for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(sorted[i], static_cast<Index>(i));
  }
  // Six neurons of one kind for groups of four: two of them join the neurons of the other kind.
  RowMatrix<double> kinds = RowMatrix<double>::Zero(2, 8);
  for (Index i = 0; i < 8; ++i) kinds(i < 6 ? 0 : 1, i) = 1;
  EXPECT_EQ(co_activation_order(kinds, 2, {.seed = 6}),
            (std::vector<Index>{4, 5, 6, 7, 0, 1, 2, 3}));
  // The first centres are of different kinds, before any round.
  kinds = RowMatrix<double>::Zero(3, 6);
  for (Index i = 0; i < 6; ++i) kinds(i % 3, i) = 1;
  EXPECT_EQ(co_activation_order(kinds, 3, {.rounds = 0}), (std::vector<Index>{0, 3, 1, 4, 2, 5}));
  Dense d;
  const RowMatrix<double> before = d.y();
  const auto order = co_activation_order(d.hidden(), 4);
  permute_neurons(order, d.gate, d.up, d.down);
  EXPECT_LE((d.y() - before).cwiseAbs().maxCoeff(), 1e-13);
}

TEST(Oracle, ChoosesTheExpertsOfLeastErrorAndReachesTheDenseLayer) {
  const Dense d;
  const auto experts = neuron_groups(d.gate, d.up, d.down, 6);
  const RowMatrix<double> dense = d.y();
  RowMatrix<double> errors(40, 6);
  expert_errors(d.x, experts, dense, 2, errors);
  const RowMatrix<double> hidden = d.hidden();
  for (Index r = 0; r < 40; ++r)
    for (Index e = 0; e < 6; ++e) {
      double sum = 0;
      for (Index c = 0; c < 7; ++c) {
        double part = 0;
        for (Index i = 4 * e; i < 4 * e + 4; ++i) part += hidden(r, i) * d.down(c, i);
        sum += (3 * part - dense(r, c)) * (3 * part - dense(r, c));
      }
      EXPECT_NEAR(errors(r, e), sum / 7, 1e-13);
    }
  const auto best = oracle_routes(errors, TopHalf{.k = 2});
  for (Index r = 0; r < 40; ++r) {
    EXPECT_EQ(best.weights(r, 0), 3);
    EXPECT_EQ(best.weights(r, 1), 3);
    for (Index e = 0; e < 6; ++e) {
      EXPECT_LE(errors(r, best.ids(r, 0)), errors(r, e));
      EXPECT_TRUE(e == best.ids(r, 0) || errors(r, best.ids(r, 1)) <= errors(r, e)) << r;
    }
  }
  const auto curve = budget_curve(d.x, experts, dense);
  ASSERT_EQ(curve.size(), 6u);
  EXPECT_LE(curve[5], 1e-14);
  EXPECT_GT(curve[0], .1);
}

/// The definition, by loops in double: each row has the k experts of which one alone, times
/// experts / k rounded down, is nearest to dense, all times that factor.
std::vector<double> curve_by_loops(const std::vector<RowMatrix<double>>& weights,
                                   const RowMatrix<double>& x, const RowMatrix<double>& dense) {
  const std::size_t count = weights.size();
  std::vector<double> curve;
  for (std::size_t k = 1; k <= count; ++k) {
    const auto factor = static_cast<double>(count / k);
    double off = 0, size = 0;
    for (Index r = 0; r < x.rows(); ++r) {
      std::vector<std::vector<double>> parts(count);
      std::vector<std::pair<double, std::size_t>> errors(count);
      for (std::size_t e = 0; e < count; ++e) {
        double sum = 0;
        for (Index c = 0; c < dense.cols(); ++c) {
          double part = 0;
          for (Index i = 0; i < x.cols(); ++i) part += weights[e](c, i) * x(r, i);
          parts[e].push_back(part);
          sum += std::pow(factor * part - dense(r, c), 2);
        }
        errors[e] = {sum, e};
      }
      std::sort(errors.begin(), errors.end());
      for (Index c = 0; c < dense.cols(); ++c) {
        double y = 0;
        for (std::size_t j = 0; j < k; ++j)
          y += factor * parts[errors[j].second][static_cast<std::size_t>(c)];
        off += std::pow(y - dense(r, c), 2);
        size += std::pow(dense(r, c), 2);
      }
    }
    curve.push_back(std::sqrt(off / size));
  }
  return curve;
}

TEST(Oracle, TheBudgetCurveIsThatOfItsDefinition) {
  std::vector<RowMatrix<double>> weights;
  std::vector<Layer> experts;
  RowMatrix<double> sum = RowMatrix<double>::Zero(4, 6);
  for (std::uint64_t e = 0; e < 5; ++e) {
    weights.push_back(static_cast<double>(e + 1) * random_matrix<RowMatrix<double>>(4, 6, 60 + e));
    experts.push_back(Layer::copy_of(weights.back()));
    sum += weights.back();
  }
  const auto x = random_matrix<RowMatrix<double>>(30, 6, 70);
  const RowMatrix<double> dense =
      x * sum.transpose() + .3 * random_matrix<RowMatrix<double>>(30, 4, 71);
  const auto wanted = curve_by_loops(weights, x, dense);
  const auto expect = [&](const auto& backend) {
    const auto curve = budget_curve(backend, x, experts, dense);
    ASSERT_EQ(curve.size(), wanted.size());
    for (std::size_t k = 0; k < 5; ++k) EXPECT_NEAR(curve[k], wanted[k], 1e-13) << k + 1;
  };
  expect(pare::reference);
  expect(pare::simd.threads(2));
  // Of a dense layer that is 0 there is nothing to be relative to; nor of no rows.
  const RowMatrix<double> nothing = RowMatrix<double>::Zero(30, 4), none(0, 6), no_dense(0, 4);
  EXPECT_EQ(budget_curve(x, experts, nothing), std::vector<double>(5, 0.0));
  EXPECT_EQ(budget_curve(none, experts, no_dense), std::vector<double>(5, 0.0));
}

/// Squares of float that are beyond it: the best experts are those of the same numbers, smaller.
TEST(Oracle, OrdersErrorsOfAnyScale) {
  std::vector<pare::transformer::DenseLinear<float>> experts;
  for (const std::uint64_t seed : {1U, 2U, 3U})
    experts.push_back(pare::transformer::DenseLinear<float>::copy_of(
        random_matrix<RowMatrix<float>>(4, 5, seed)));
  const auto x = random_matrix<RowMatrix<float>>(20, 5, 9),
             dense = random_matrix<RowMatrix<float>>(20, 4, 10);
  const RowMatrix<float> large_x = 0x1p100f * x, large = 0x1p100f * dense;
  EXPECT_EQ(budget_curve(large_x, experts, large), budget_curve(x, experts, dense));
}

/// Labels that are linear in the inputs are found again.
TEST(RidgeRouter, FindsALinearRule) {
  const auto x = random_matrix<RowMatrix<double>>(400, 5, 1);
  const auto rule = random_matrix<RowMatrix<double>>(3, 5, 2);
  const RowMatrix<double> logits = x * rule.transpose();
  const auto wanted = route(logits, TopK{.k = 1});
  const auto router = fit_ridge_router(x, wanted.ids, 3, {.ridge = 1e-6});
  // The normal equations hold.
  RowMatrix<double> labels = RowMatrix<double>::Zero(400, 3);
  for (Index r = 0; r < 400; ++r) labels(r, wanted.ids(r, 0)) = 1;
  const RowMatrix<double> rest =
      x.transpose() * (x * router.transpose() - labels) + 1e-6 * router.transpose();
  EXPECT_LE(rest.cwiseAbs().maxCoeff(), 1e-10);
  const auto got = route(RowMatrix<double>(x * router.transpose()), TopK{.k = 1});
  Index same = 0;
  for (Index r = 0; r < 400; ++r) same += got.ids(r, 0) == wanted.ids(r, 0) ? 1 : 0;
  EXPECT_GE(same, 340);  // by chance 133
}

/// 4 adapters of 2 splits, rank 3: inputs 8, outputs 6.
struct Adapters {
  std::vector<double> a, b;
  AdapterBank<double> bank;

  Adapters() {
    const auto fill = [](std::vector<double>& to, Index size, std::uint64_t seed) {
      const auto m = random_matrix<RowMatrix<double>>(1, size, seed);
      to.assign(m.data(), m.data() + size);
    };
    fill(a, 4 * 2 * 4 * 3, 1);
    fill(b, 4 * 3 * 2 * 3, 2);
    bank.a = {a.data(), {4, 2, 4, 3}, {24, 12, 3, 1}};
    bank.b = {b.data(), {4, 3, 2, 3}, {18, 6, 3, 1}};
  }

  /// [outputs, inputs], by the formula.
  RowMatrix<double> change(const RowMatrix<double>& w, double scale) const {
    RowMatrix<double> abar = RowMatrix<double>::Zero(8, 3), bbar = RowMatrix<double>::Zero(3, 6);
    for (Index e = 0; e < 4; ++e)
      for (Index q = 0; q < 2; ++q)
        for (Index k = 0; k < 3; ++k) {
          for (Index i = 0; i < 4; ++i) abar(4 * q + i, k) += w(q, e) * bank.a(e, q, i, k);
          for (Index o = 0; o < 3; ++o) bbar(k, 3 * q + o) += w(q, e) * bank.b(e, k, q, o);
        }
    return scale * (abar * bbar).transpose();
  }
};

TEST(Adapters, MergeByTheWeightsOfATask) {
  const Adapters x;
  const auto logits = random_matrix<RowMatrix<double>>(2, 4, 5);
  const RowMatrix<double> w = task_weights(logits);
  for (Index q = 0; q < 2; ++q) {
    EXPECT_NEAR(w.row(q).sum(), 1, 1e-14);
    EXPECT_NEAR(w(q, 1) / w(q, 0), (1 + std::exp(-logits(q, 0))) / (1 + std::exp(-logits(q, 1))),
                1e-14);
  }
  const auto merged = merge_adapters(x.bank, w, {.alpha = 6});
  EXPECT_LE((merged.left * merged.right - x.change(w, 2)).cwiseAbs().maxCoeff(), 1e-13);
  RowMatrix<double> weight = random_matrix<RowMatrix<double>>(6, 8, 7);
  const RowMatrix<double> before = weight;
  add_adapter(merged, weight);
  EXPECT_LE((weight - before - x.change(w, 2)).cwiseAbs().maxCoeff(), 1e-13);
  subtract_adapter(pare::reference, merged, weight);
  EXPECT_LE((weight - before).cwiseAbs().maxCoeff(), 1e-14);
}

/// MHR-mu: the average of all adapters is the merge of a task whose logits are alike.
TEST(Adapters, UniformWeightsAreTheAverage) {
  const Adapters x;
  const RowMatrix<double> w = task_weights(RowMatrix<double>::Zero(2, 4).eval());
  const RowMatrix<double> quarter = RowMatrix<double>::Constant(2, 4, .25);
  EXPECT_TRUE(w == quarter);
  const auto merged = merge_adapters(x.bank, w);
  EXPECT_LE((merged.left * merged.right - x.change(quarter, 1.0 / 3)).cwiseAbs().maxCoeff(), 1e-14);
}

/// Equal weights of both splits are Poly: one split of twice the width.
TEST(Adapters, EqualSplitsAreOne) {
  const Adapters x;
  RowMatrix<double> w = random_matrix<RowMatrix<double>>(2, 4, 3);
  w.row(1) = w.row(0);
  AdapterBank<double> one;
  one.a = {x.a.data(), {4, 1, 8, 3}, {24, 24, 3, 1}};
  one.b = {x.b.data(), {4, 3, 1, 6}, {18, 6, 6, 1}};
  const auto both = merge_adapters(x.bank, w), poly = merge_adapters(one, w.topRows(1).eval());
  EXPECT_TRUE(both.left == poly.left);
  EXPECT_TRUE(both.right == poly.right);
}

TEST(Conversions, RefuseWhatDoesNotFit) {
  Dense d;
  const auto groups = [&](const auto& gate, const auto& up, const auto& down, Index count,
                          const char* argument) {
    refusal([&] { neuron_groups(gate, up, down, count); }, "routing::neuron_groups", argument);
  };
  groups(d.gate, d.up, d.down, 5, "groups");
  groups(d.gate, d.up, d.down, 0, "groups");
  groups(d.gate, d.down, d.down, 4, "up");
  groups(d.gate, d.up, d.up, 4, "down");
  groups(Eigen::MatrixXd(d.gate), d.up, d.down, 4, "gate");
  const auto order = [&](const std::vector<Index>& o) {
    refuses_and_leaves_alone([&] { permute_neurons(o, d.gate, d.up, d.down); },
                             "routing::permute_neurons", "order", d.gate, d.up, d.down);
  };
  std::vector<Index> o(24);
  std::iota(o.begin(), o.end(), Index{0});
  refuses_and_leaves_alone([&] { permute_neurons(o, d.gate, d.gate, d.down); },
                           "routing::permute_neurons", "up", d.gate, d.down);
  o[3] = 4;
  order(o);
  o[3] = 24;
  order(o);
  o.pop_back();
  order(o);
  RowMatrix<double> activations = d.hidden();
  refusal([&] { co_activation_order(activations, 5); }, "routing::co_activation_order", "groups");
  refusal([&] { co_activation_order(activations, 4, {.rounds = -1}); },
          "routing::co_activation_order", "rounds");
  activations(1, 1) = std::nan("");
  refusal([&] { co_activation_order(activations, 4); }, "routing::co_activation_order",
          "activations");
  const auto experts = neuron_groups(d.gate, d.up, d.down, 4);
  RowMatrix<double> errors = RowMatrix<double>::Zero(40, 4), dense = d.y();
  const auto oracle = [&](const auto& x, const auto& y, Index k, const char* argument) {
    refuses_and_leaves_alone([&] { expert_errors(x, experts, y, k, errors); },
                             "routing::expert_errors", argument, errors);
  };
  oracle(d.gate, dense, 2, "dense");
  oracle(d.x, d.x, 2, "dense");
  oracle(d.x, dense, 0, "k");
  oracle(d.x, dense, 5, "k");
  refusal([&] { expert_errors(d.x, experts, dense, 2, dense); }, "routing::expert_errors",
          "errors");
  RowMatrix<Index> ids = RowMatrix<Index>::Zero(40, 1);
  const auto ridge = [&](const auto& x, double r, const char* argument) {
    refusal([&] { fit_ridge_router(x, ids, 4, {.ridge = r}); }, "routing::fit_ridge_router",
            argument);
  };
  for (const double r : {0.0, -1.0, std::nan("")}) ridge(d.x, r, "ridge");
  ridge(d.gate, 1, "ids");
  ids(5, 0) = 4;
  ridge(d.x, 1, "ids");
  d.x(2, 2) = 1e200;  // whose square is beyond double
  ids(5, 0) = 3;
  ridge(d.x, 1, "x");
  d.x(2, 2) = std::numeric_limits<double>::infinity();
  ridge(d.x, 1, "x");
  refusal([&] { fit_ridge_router(d.x, ids, Index{1} << 58); }, "routing::fit_ridge_router",
          "experts");
}

TEST(Mixture, RefusesWhatDoesNotFit) {
  Dense d;
  auto experts = neuron_groups(d.gate, d.up, d.down, 4);
  RowMatrix<double> logits = random_matrix<RowMatrix<double>>(40, 4, 9),
                    y = RowMatrix<double>::Zero(40, 7);
  Routes<double> routes = route(logits, TopHalf{});
  const auto refused = [&](const auto& x, const auto& layers, auto&& out, const char* argument,
                           const char* function = "routing::mixture") {
    refuses_and_leaves_alone([&] { mixture(x, routes, layers, out); }, function, argument, y);
  };
  const RowMatrix<double> few = d.x.topRows(39), narrow = d.x.leftCols(9);
  RowMatrix<double> wide(40, 8);
  refused(few, experts, y, "routes");
  refused(narrow, experts, y, "experts");
  refused(d.x, experts, wide, "y");
  refused(d.x, std::vector<GatedFeedForward<Layer>>{}, y, "experts");
  const pare::TensorView<double, 2> on_x{d.x.data(), {40, 7}, {10, 1}};
  refused(d.x, experts, on_x, "y");
  const pare::TensorView<double, 2> on_weights{routes.weights.data(), {40, 7}, {2, 1}};
  refused(d.x, experts, on_weights, "y");
  void* const ids = routes.ids.data();
  const pare::TensorView<double, 2> on_ids{static_cast<double*>(ids), {40, 2}, {2, 1}};
  std::vector<Layer> of_two;
  for (Index e = 0; e < 4; ++e) of_two.emplace_back(2, 10);
  refused(d.x, of_two, on_ids, "y");
  // The last expert's columns of the weight that the experts view.
  const pare::TensorView<double, 2> on_down{d.down.data() + 18, {40, 7}, {24, 1}};
  refused(d.x, experts, on_down, "y");
  const Index before = std::exchange(routes.ids(3, 1), Index{4});
  refused(d.x, experts, y, "ids", "routing::RoutePlan");
  routes.ids(3, 1) = before;
  routes.weights(3, 1) = std::nan("");
  refused(d.x, experts, y, "weights", "routing::combine");
  refusal([&] { budget_curve(few, experts, y); }, "routing::budget_curve", "dense");
  refusal([&] { budget_curve(d.x, std::vector<GatedFeedForward<Layer>>{}, y); },
          "routing::budget_curve", "experts");
  logits(1, 1) = std::nan("");
  refusal([&] { oracle_routes(logits, TopHalf{}); }, "routing::route", "logits");
}

/// Layers that show their weights: nothing may be written over them.
TEST(Oracle, ErrorsLieApartFromTheExperts) {
  std::vector<Layer> experts;
  for (Index e = 0; e < 2; ++e) experts.emplace_back(2, 10);
  const auto memory = experts[1].own_weights();
  const pare::TensorView<double, 2> on_weights{memory.data, {2, 2}, {2, 1}};
  const RowMatrix<double> x = RowMatrix<double>::Ones(2, 10), dense = RowMatrix<double>::Ones(2, 2);
  refusal([&] { expert_errors(x, experts, dense, 1, on_weights); }, "routing::expert_errors",
          "errors");
}

TEST(Adapters, RefuseWhatDoesNotFit) {
  const Adapters x;
  RowMatrix<double> w = RowMatrix<double>::Ones(2, 4), weight = RowMatrix<double>::Zero(6, 8);
  AdapterBank<double> other = x.bank;
  other.b.extent[1] = 2;
  refusal([&] { merge_adapters(other, w); }, "routing::merge_adapters", "bank.b");
  const double one = 1;
  const Index wide = Index{1} << 31;
  const AdapterBank<double> endless{{&one, {1, 1, wide, wide}, {0, 0, 0, 0}},
                                    {&one, {1, wide, 1, 1}, {0, 0, 0, 0}}};
  refusal([&] { merge_adapters(endless, RowMatrix<double>::Ones(1, 1).eval()); },
          "routing::merge_adapters", "bank.a");
  other.a.extent[3] = 0;
  refusal([&] { merge_adapters(other, w); }, "routing::merge_adapters", "bank.a");
  refusal([&] { merge_adapters(x.bank, RowMatrix<double>(w.topRows(1))); },
          "routing::merge_adapters", "weights");
  refusal([&] { merge_adapters(x.bank, w, {.alpha = std::nan("")}); }, "routing::merge_adapters",
          "alpha");
  MergedAdapter<double> merged = merge_adapters(x.bank, w);
  RowMatrix<double> narrow(6, 7);
  refusal([&] { add_adapter(merged, narrow); }, "routing::add_adapter", "weight");
  refusal([&] { subtract_adapter(merged, narrow); }, "routing::subtract_adapter", "weight");
  merged.left.resize(6, 2);
  refuses_and_leaves_alone([&] { add_adapter(merged, weight); }, "routing::add_adapter", "adapter",
                           weight);
  w(1, 2) = std::numeric_limits<double>::infinity();
  refusal([&] { merge_adapters(x.bank, w); }, "routing::merge_adapters", "weights");
  refusal([&] { task_weights(w); }, "routing::task_weights", "logits");
  refusal([&] { task_weights(RowMatrix<double>(2, 0)); }, "routing::task_weights", "logits");
  refusal([&] { task_weights(RowMatrix<double>::Constant(1, 2, -1e4).eval()); },
          "routing::task_weights", "logits");
}

}  // namespace
}  // namespace routing_conversions_test
