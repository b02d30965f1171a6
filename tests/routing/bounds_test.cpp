// SPDX-License-Identifier: Apache-2.0
// Views that no call of the area may touch: of negative extents, without memory, of more bytes than
// there are, and outputs whose elements share a place.
#include <gtest/gtest.h>

#include <cstddef>
#include <utility>
#include <vector>

#include <pare/routing/adapters.hpp>
#include <pare/routing/balance.hpp>
#include <pare/routing/expert_attention.hpp>
#include <pare/routing/latent_experts.hpp>
#include <pare/routing/mixture.hpp>
#include <pare/routing/neuron_groups.hpp>
#include <pare/routing/oracle.hpp>
#include <pare/routing/part_errors.hpp>

#include "support/properties.hpp"

namespace routing_bounds_test {
namespace {

namespace routing = pare::routing;
using pare::Index;
using pare::reference;
using pare::RowMatrix;
using pare::TensorView;
using pare::testing::random_matrix;
using pare::testing::refusal;
using Wide = RowMatrix<double>;
using Layer = pare::transformer::DenseLinear<double>;

/// call(view) is refused for its argument, whatever is wrong with the view.
template <class T = double, class Call>
void each_bad_input(const char* function, const char* argument, const Call& call) {
  const T some[4]{};
  for (const auto& view : {TensorView<const T, 2>{some, {-1, 4}, {4, 1}},
                           TensorView<const T, 2>{some, {4, -1}, {1, 1}},
                           TensorView<const T, 2>{nullptr, {4, 4}, {4, 1}},
                           TensorView<const T, 2>{some, {Index{1} << 60, 4}, {4, 1}},
                           TensorView<const T, 2>{some, {4, 4}, {Index{1} << 62, 1}}})
    refusal([&] { call(view); }, function, argument);
}

template <class Call>
void each_bad_output(const char* function, const char* argument, const Call& call) {
  double some[16]{};
  for (const auto& view :
       {TensorView<double, 2>{some, {-1, 4}, {4, 1}}, TensorView<double, 2>{some, {4, -1}, {1, 1}},
        TensorView<double, 2>{nullptr, {4, 4}, {4, 1}},
        TensorView<double, 2>{some, {Index{1} << 60, 4}, {4, 1}},
        TensorView<double, 2>{some, {4, 4}, {0, 1}}, TensorView<double, 2>{some, {4, 4}, {2, 1}}})
    refusal([&] { call(view); }, function, argument);
  for (const double each : some) EXPECT_EQ(each, 0) << function;
}

/// 4 rows of 4, four experts [4, 4], each row to all of them.
struct Square {
  Wide x = random_matrix<Wide>(4, 4, 1), y = Wide::Zero(4, 4), parts = Wide::Zero(16, 4);
  std::vector<Layer> experts = layers();
  routing::Routes<double> routes = routing::route(reference, x, routing::TopK{.k = 4});
  routing::RoutePlan plan{routes.ids, 4};

  static std::vector<Layer> layers() {
    std::vector<Layer> made;
    for (int e = 0; e < 4; ++e) made.emplace_back(4, 4);
    return made;
  }
};

TEST(RoutingBounds, PlansGatesAndProducts) {
  Square s;
  each_bad_input<Index>("routing::RoutePlan", "ids",
                        [](const auto& v) { routing::RoutePlan(v, 4); });
  each_bad_input("routing::route", "logits",
                 [](const auto& v) { routing::route(reference, v, routing::TopOne{}); });
  each_bad_input("routing::grouped_multiply", "x", [&](const auto& v) {
    grouped_multiply(reference, v, s.plan, s.experts, s.parts);
  });
  each_bad_output("routing::grouped_multiply", "parts",
                  [&](const auto& v) { grouped_multiply(reference, s.x, s.plan, s.experts, v); });
  each_bad_input("routing::combine", "parts",
                 [&](const auto& v) { combine(reference, s.plan, v, s.routes.weights, s.y); });
  each_bad_input("routing::combine", "weights",
                 [&](const auto& v) { combine(reference, s.plan, s.parts, v, s.y); });
  each_bad_output("routing::combine", "y",
                  [&](const auto& v) { combine(reference, s.plan, s.parts, s.routes.weights, v); });
  each_bad_input("routing::mixture", "x",
                 [&](const auto& v) { mixture(reference, v, s.routes, s.experts, s.y); });
  each_bad_output("routing::mixture", "y",
                  [&](const auto& v) { mixture(reference, s.x, s.routes, s.experts, v); });
  each_bad_input("routing::part_errors", "parts",
                 [&](const auto& v) { part_errors(s.plan, v, s.parts); });
  each_bad_input("routing::part_errors", "wanted",
                 [&](const auto& v) { part_errors(s.plan, s.parts, v); });
  EXPECT_TRUE((s.y.array() == 0).all() && (s.parts.array() == 0).all());
}

/// Layers whose sizes alone are looked at.
struct Vast {
  Index in, out;

  Index inputs() const { return in; }
  Index outputs() const { return out; }
  template <class B>
  void apply(const B&, TensorView<const double, 2>, TensorView<double, 2>) const {
    ADD_FAILURE() << "called";
  }
};

/// Memory between steps of more bytes than there are.
TEST(RoutingBounds, WhatLiesBetweenTheSteps) {
  constexpr Index vast = Index{1} << 57;
  const Square s;
  const routing::LatentExperts<Vast> experts(
      {{4, vast}, {4, vast}}, {{vast, 2}, {vast, 2}, {vast, 2}, {vast, 2}}, {0, 2, 4});
  Wide parts = Wide::Zero(16, 2), y = Wide::Zero(4, 2);
  refusal([&] { grouped_multiply(s.x, s.plan, experts, parts); }, "routing::LatentExperts::apply",
          "x");
  refusal([&] { mixture(s.x, s.routes, experts, y); }, "routing::LatentExperts::apply", "x");
  EXPECT_TRUE((y.array() == 0).all() && (parts.array() == 0).all());
  refusal(
      [&] { routing::routes_of_tokens(s.routes, std::vector<Index>{0, 0, 0, 0, Index{1} << 60}); },
      "routing::routes_of_tokens", "offsets");
}

TEST(RoutingBounds, BalanceAndAttention) {
  Square s;
  each_bad_input("routing::load_balance", "logits",
                 [&](const auto& v) { routing::load_balance(v, s.plan); });
  each_bad_output("routing::load_balance_gradient", "gradient",
                  [&](const auto& v) { routing::load_balance_gradient(s.x, s.plan, v); });
  each_bad_input("routing::top_one_balance", "logits",
                 [](const auto& v) { routing::top_one_balance(v); });
  each_bad_output("routing::top_one_balance_gradient", "gradient",
                  [&](const auto& v) { routing::top_one_balance_gradient(s.x, v); });
  const std::vector<Index> offsets{0, 1, 2, 3, 4};
  each_bad_output("routing::pool_sequences", "pooled",
                  [&](const auto& v) { routing::pool_sequences(s.x, offsets, v); });
  each_bad_input("routing::pool_sequences", "x",
                 [&](const auto& v) { routing::pool_sequences(v, offsets, s.y); });
  const routing::Routes<double> first{RowMatrix<Index>::Zero(4, 1), Wide::Ones(4, 1)};
  each_bad_input("routing::expert_attention", "attended",
                 [&](const auto& v) { expert_attention(reference, v, first, s.experts[0], s.y); });
  each_bad_output("routing::expert_attention", "y",
                  [&](const auto& v) { expert_attention(reference, s.x, first, s.experts[0], v); });
}

TEST(RoutingBounds, ConversionsOfDenseLayers) {
  Square s;
  each_bad_input("routing::expert_errors", "x", [&](const auto& v) {
    routing::expert_errors(reference, v, s.experts, s.x, 2, s.y);
  });
  each_bad_input("routing::expert_errors", "dense", [&](const auto& v) {
    routing::expert_errors(reference, s.x, s.experts, v, 2, s.y);
  });
  each_bad_output("routing::expert_errors", "errors", [&](const auto& v) {
    routing::expert_errors(reference, s.x, s.experts, s.x, 2, v);
  });
  each_bad_input("routing::budget_curve", "x",
                 [&](const auto& v) { routing::budget_curve(reference, v, s.experts, s.x); });
  each_bad_input("routing::budget_curve", "dense",
                 [&](const auto& v) { routing::budget_curve(reference, s.x, s.experts, v); });
  each_bad_input("routing::oracle_routes", "errors",
                 [](const auto& v) { routing::oracle_routes(v, routing::TopHalf{}); });
  each_bad_input("routing::fit_ridge_router", "x",
                 [&](const auto& v) { routing::fit_ridge_router(reference, v, s.routes.ids, 4); });
  const char* const groups = "routing::neuron_groups";
  each_bad_input(groups, "gate", [&](const auto& v) { routing::neuron_groups(v, s.x, s.x, 2); });
  each_bad_input(groups, "up", [&](const auto& v) { routing::neuron_groups(s.x, v, s.x, 2); });
  each_bad_input(groups, "down", [&](const auto& v) { routing::neuron_groups(s.x, s.x, v, 2); });
  each_bad_input("routing::co_activation_order", "activations",
                 [](const auto& v) { routing::co_activation_order(v, 2); });
  const std::vector<Index> order{3, 2, 1, 0};
  Wide g = Wide::Zero(4, 4), u = g, d = g;
  const char* const permute = "routing::permute_neurons";
  each_bad_output(permute, "gate",
                  [&](const auto& v) { routing::permute_neurons(order, v, u, d); });
  each_bad_output(permute, "up", [&](const auto& v) { routing::permute_neurons(order, g, v, d); });
  each_bad_output(permute, "down",
                  [&](const auto& v) { routing::permute_neurons(order, g, u, v); });
  each_bad_input("routing::task_weights", "logits",
                 [](const auto& v) { routing::task_weights(v); });
  const routing::MergedAdapter<double> adapter{Wide::Zero(4, 2), Wide::Zero(2, 4)};
  each_bad_output("routing::add_adapter", "weight",
                  [&](const auto& v) { routing::add_adapter(reference, adapter, v); });
  each_bad_output("routing::subtract_adapter", "weight",
                  [&](const auto& v) { routing::subtract_adapter(reference, adapter, v); });
}

}  // namespace
}  // namespace routing_bounds_test
