// SPDX-License-Identifier: Apache-2.0
// Plans, gates, grouped products and their sums, against loops in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <pare/routing/combine.hpp>
#include <pare/routing/feed_forward.hpp>
#include <pare/routing/gates.hpp>
#include <pare/routing/grouped_multiply.hpp>
#include <pare/transformer/dense_linear.hpp>

#include "support/properties.hpp"

namespace routing_grouped_multiply_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::routing::capacity_of;
using pare::routing::combine;
using pare::routing::FeedForward;
using pare::routing::GatedFeedForward;
using pare::routing::GateWeight;
using pare::routing::grouped_multiply;
using pare::routing::route;
using pare::routing::RoutePlan;
using pare::routing::Routes;
using pare::routing::TopBlocks;
using pare::routing::TopHalf;
using pare::routing::TopK;
using pare::routing::TopOne;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::transformer::DenseLinear;

using Ids = RowMatrix<Index>;

/// Distinct experts of each row, by a rule that leaves some experts without rows.
Ids some_ids(Index rows, Index choices, Index experts) {
  Ids ids(rows, choices);
  for (Index r = 0; r < rows; ++r)
    for (Index j = 0; j < choices; ++j) ids(r, j) = (r * r + 2 * j) % experts;
  return ids;
}

TEST(RoutePlan, SortsPairsByExpertAndRow) {
  Ids ids(5, 2);
  ids << 2, 0, 0, 2, -1, 3, 3, -1, 0, 3;
  const RoutePlan plan(ids, 5);
  const std::vector<Index> offsets{0, 3, 3, 5, 8, 8}, rows{0, 1, 4, 0, 1, 2, 3, 4};
  EXPECT_TRUE(std::ranges::equal(plan.offsets(), offsets));
  EXPECT_TRUE(std::ranges::equal(plan.rows_by_place(), rows));
  const std::vector<Index> choices{1, 0, 0, 0, 1, 1, 0, 1}, of_row_1{1, 4}, of_expert_3{2, 3, 4};
  EXPECT_TRUE(std::ranges::equal(plan.choice_by_place(), choices));
  EXPECT_TRUE(std::ranges::equal(plan.places_of(1), of_row_1));
  EXPECT_TRUE(std::ranges::equal(plan.rows_of(3), of_expert_3));
  EXPECT_EQ(plan.places_of(2).size(), 1u);
  EXPECT_EQ(plan.routed(), 8);
  EXPECT_EQ(plan.dropped(), 0);
}

TEST(RoutePlan, ACapacityDropsTheLastRows) {
  const Ids ids = some_ids(50, 3, 6);
  const RoutePlan all(ids, 6);
  RoutePlan some(ids, 6, {.capacity = 20});
  Index dropped = 0;
  for (Index e = 0; e < 6; ++e) {
    const auto rows = all.rows_of(e), kept = some.rows_of(e);
    EXPECT_EQ(kept.size(), std::min<std::size_t>(rows.size(), 20));
    EXPECT_TRUE(std::ranges::equal(kept, rows.first(kept.size())));
    dropped += static_cast<Index>(rows.size() - kept.size());
  }
  EXPECT_GT(dropped, 0);
  EXPECT_EQ(some.dropped(), dropped);
  EXPECT_EQ(some.routed() + dropped, all.routed());
  some.assign(pare::const_view(ids), 6);
  EXPECT_TRUE(std::ranges::equal(some.rows_by_place(), all.rows_by_place()));
  EXPECT_EQ(capacity_of(50, 3, 6, 1.0), 25);
  EXPECT_EQ(capacity_of(50, 3, 7, 1.25), 27);  // 26.8
  EXPECT_EQ(capacity_of(0, 3, 7, 1.25), 1);
}

TEST(RoutePlan, RefusesIdsThatNameNoExpert) {
  Ids ids = some_ids(4, 2, 5);
  RoutePlan plan(ids, 5);
  const auto refused = [&](const char* argument, Index experts, Index capacity = 1) {
    refusal([&] { plan.assign(pare::const_view(ids), experts, {.capacity = capacity}); },
            "routing::RoutePlan", argument);
    EXPECT_EQ(plan.experts(), 5);
    EXPECT_EQ(plan.routed(), 8);
  };
  refused("experts", 0);
  refused("experts", -3);
  refused("experts", Index{1} << 62);
  refused("capacity", 5, 0);
  for (const Index id : {Index{5}, Index{-2}, ids(3, 0)}) {
    const Index before = std::exchange(ids(3, 1), id);
    refused("ids", 5);
    ids(3, 1) = before;
  }
  const pare::TensorView<const Index, 2> endless{nullptr, {Index{1} << 62, 0}, {1, 1}};
  refusal([&] { plan.assign(endless, 5); }, "routing::RoutePlan", "ids");
  refusal([&] { plan.rows_of(5); }, "routing::RoutePlan::rows_of", "expert");
  refusal([&] { plan.places_of(-1); }, "routing::RoutePlan::places_of", "row");
  refusal([] { capacity_of(1, 1, 1, std::nan("")); }, "routing::capacity_of", "factor");
  refusal([] { capacity_of(1, 1, 0, 1); }, "routing::capacity_of", "experts");
  refusal([] { capacity_of(1, 1, 1, 1e300); }, "routing::capacity_of", "factor");
}

RowMatrix<double> some_logits() {
  RowMatrix<double> logits(3, 4);
  const double none = -std::numeric_limits<double>::infinity();
  logits << 1, 3, 3, 0, -1, none, 2, 2.5, none, none, none, none;
  return logits;
}

TEST(Gates, ChooseTheLargestLogitsAndWeighThem) {
  const auto logits = some_logits();
  const auto expect = [&](const auto& gate, const std::vector<Index>& ids,
                          const std::vector<double>& weights) {
    const Routes<double> r = route(logits, gate);
    ASSERT_EQ(r.ids.size(), static_cast<Index>(ids.size()));
    for (std::size_t i = 0; i < ids.size(); ++i) {
      EXPECT_EQ(r.ids.data()[i], ids[i]) << i;
      EXPECT_NEAR(r.weights.data()[i], weights[i], 1e-15) << i;
    }
  };
  const double e1 = std::exp(-2.0), e3 = std::exp(-3.0), sum = 2 + e1 + e3;
  const double second = 1 + std::exp(-.5) + std::exp(-3.5);
  expect(TopOne{}, {1, 3, 0}, {1 / sum, 1 / second, .25});
  expect(TopOne{.weight = GateWeight::Sigmoid}, {1, 3, 0},
         {1 / (1 + std::exp(-3.0)), 1 / (1 + std::exp(-2.5)), 0});
  expect(TopOne{.weight = GateWeight::One}, {1, 3, 0}, {1, 1, 1});
  const double half = 1 / (1 + std::exp(-.5));
  expect(TopK{.k = 2}, {1, 2, 3, 2, 0, 1}, {.5, .5, half, 1 - half, .5, .5});
  expect(TopK{.k = 2, .renormalize = false}, {1, 2, 3, 2, 0, 1},
         {1 / sum, 1 / sum, 1 / second, std::exp(-.5) / second, .25, .25});
  expect(TopHalf{}, {1, 2, 3, 2, 0, 1}, {2, 2, 2, 2, 2, 2});
  expect(TopHalf{.k = 3}, {1, 2, 0, 3, 2, 0, 0, 1, 2}, {1, 1, 1, 1, 1, 1, 1, 1, 1});
  expect(TopBlocks{}, {1, 2, 3, 2, 0, 1}, {1, 1, 1, 1, 1, 1});
  expect(TopBlocks{.k = 1, .twice_sigmoid = true}, {1, 3, 0},
         {2 / (1 + std::exp(-3.0)), 2 / (1 + std::exp(-2.5)), 0});
}

TEST(Gates, ManyChoicesAreThoseOfASort) {
  const auto logits = random_matrix<RowMatrix<float>>(70, 40, 3);
  const auto all = route(logits, TopK{.k = 40});
  for (const Index k : {1, 8, 9, 39}) {
    const auto some = route(logits, TopK{.k = k});
    for (Index r = 0; r < 70; ++r)
      for (Index j = 0; j < k; ++j) ASSERT_EQ(some.ids(r, j), all.ids(r, j)) << k;
  }
  for (Index r = 0; r < 70; ++r)
    for (Index j = 1; j < 40; ++j)
      EXPECT_GE(logits(r, all.ids(r, j - 1)), logits(r, all.ids(r, j)));
  // Of equal ones the lower id.
  const auto tied = route(RowMatrix<float>::Zero(2, 40).eval(), TopK{.k = 12});
  for (Index j = 0; j < 12; ++j) EXPECT_EQ(tied.ids(1, j), j);
  pare::testing::any_stride_same_bits(logits,
                                      [](const auto& x) { return route(x, TopK{.k = 5}).weights; });
  pare::testing::same_bits_for_any_threads(
      pare::simd, [&](const auto& backend) { return route(backend, logits, TopOne{}).weights; });
  EXPECT_TRUE(route(pare::reference, logits, TopK{.k = 5}).weights ==
              route(logits, TopK{.k = 5}).weights);
}

TEST(Gates, RefuseWhatHasNoOrder) {
  auto logits = some_logits();
  Routes<double> routes = route(logits, TopOne{});
  const auto refused = [&](const char* argument, const auto& gate) {
    refuses_and_leaves_alone([&] { route(logits, gate, routes); }, "routing::route", argument,
                             routes.ids, routes.weights);
  };
  for (const Index k : {0, -1, 5}) {
    refused("k", TopK{.k = k});
    refused("k", TopHalf{.k = k});
    refused("k", TopBlocks{.k = k});
  }
  refused("weight", TopOne{.weight = static_cast<GateWeight>(7)});
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    logits(1, 2) = bad;
    refused("logits", TopOne{});
  }
  for (const Index k : {1, 4}) {  // of another size, and of the same
    routes.weights = some_logits();
    routes.ids.resize(3, 4);
    refuses_and_leaves_alone([&] { route(routes.weights, TopK{.k = k}, routes); }, "routing::route",
                             "routes", routes.weights);
  }
  logits.resize(3, 0);
  refused("logits", TopOne{});
}

template <class T>
std::vector<DenseLinear<T>> dense_experts(Index count, Index outputs, Index inputs) {
  std::vector<DenseLinear<T>> experts;
  for (Index e = 0; e < count; ++e)
    experts.push_back(DenseLinear<T>::copy_of(
        random_matrix<RowMatrix<T>>(outputs, inputs, static_cast<std::uint64_t>(90 + e))));
  return experts;
}

/// Parts by loops, in double.
template <class T>
RowMatrix<double> parts_by_loops(const RowMatrix<T>& x, const RoutePlan& plan,
                                 const std::vector<DenseLinear<T>>& experts) {
  RowMatrix<double> parts(plan.routed(), experts[0].outputs());
  Index p = 0;
  for (Index e = 0; e < plan.experts(); ++e)
    for (const Index row : plan.rows_of(e)) {
      const auto w = experts[static_cast<std::size_t>(e)].weights();
      for (Index o = 0; o < parts.cols(); ++o) {
        double sum = 0;
        for (Index i = 0; i < x.cols(); ++i)
          sum += static_cast<double>(w(o, i)) * static_cast<double>(x(row, i));
        parts(p, o) = sum;
      }
      ++p;
    }
  return parts;
}

// |x|, |w| <= 1: a sum of n products is off by at most n^2 u, u = 2^-24 or 2^-53.
template <class T>
void expect_parts(Index rows, Index choices, Index count, double bound) {
  const auto experts = dense_experts<T>(count, 21, 30);
  const auto x = random_matrix<RowMatrix<T>>(rows, 30, 7);
  const RoutePlan plan(some_ids(rows, choices, count), count);
  const auto wanted = parts_by_loops(x, plan, experts);
  RowMatrix<T> parts(plan.routed(), 21);
  const auto expect = [&](const auto& backend) {
    parts.setConstant(std::numeric_limits<T>::quiet_NaN());
    grouped_multiply(backend, x, plan, experts, parts);
    EXPECT_LE((parts.template cast<double>() - wanted).cwiseAbs().maxCoeff(), bound)
        << rows << " rows of " << choices;
  };
  expect(pare::reference);
  expect(pare::simd);
  expect(pare::simd.threads(2));
}

TEST(GroupedMultiply, EqualsALoopOverExperts) {
  const double u = 900 * 0x1p-24, v = 900 * 0x1p-53;
  expect_parts<float>(1, 1, 3, u);    // one expert on all threads
  expect_parts<float>(40, 2, 9, u);   // experts that have no row, and small ones
  expect_parts<float>(200, 1, 3, u);  // more than few_rows of one expert
  expect_parts<double>(40, 3, 16, v);
}

TEST(GroupedMultiply, OfNoRowsDoesNothing) {
  const auto experts = dense_experts<float>(4, 21, 30);
  const RoutePlan none(Ids(0, 2), 4), unrouted(Ids::Constant(3, 2, -1).eval(), 4);
  RowMatrix<float> parts(0, 21), y = RowMatrix<float>::Ones(3, 21);
  const RowMatrix<float> weights = RowMatrix<float>::Ones(3, 2), no_weights(0, 2);
  grouped_multiply(RowMatrix<float>(0, 30), none, experts, parts);
  combine(none, parts, no_weights, parts);
  grouped_multiply(random_matrix<RowMatrix<float>>(3, 30, 1), unrouted, experts, parts);
  combine(unrouted, parts, weights, y, {.accumulate = true});
  EXPECT_TRUE((y.array() == 1).all());
  combine(unrouted, parts, weights, y);
  EXPECT_TRUE((y.array() == 0).all());
}

/// Rows have the bits of their expert's own call, in any order and on any threads.
TEST(GroupedMultiply, ARowHasTheBitsOfItsExpert) {
  const auto experts = dense_experts<float>(7, 40, 33);
  const auto x = random_matrix<RowMatrix<float>>(60, 33, 8);
  const RoutePlan plan(some_ids(60, 2, 7), 7);
  RowMatrix<float> parts(plan.routed(), 40), alone(1, 40);
  grouped_multiply(x, plan, experts, parts);
  for (Index p = 0; p < plan.routed(); ++p) {
    const auto place = static_cast<std::size_t>(p);
    const auto e = std::ranges::upper_bound(plan.offsets(), p) - plan.offsets().begin() - 1;
    const RowMatrix<float> row = x.row(plan.rows_by_place()[place]);
    experts[static_cast<std::size_t>(e)].apply(row, alone);
    ASSERT_TRUE((parts.row(p).array() == alone.row(0).array()).all()) << p;
  }
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    RowMatrix<float> y(plan.routed(), 40);
    grouped_multiply(backend, x, plan, experts, y);
    return y;
  });
  pare::testing::any_stride_same_bits(x, [&](const auto& view) {
    Eigen::MatrixXf y(plan.routed(), 40);
    grouped_multiply(view, plan, experts, y);
    return y;
  });
}

template <class T>
void expect_sums(double bound) {
  const RoutePlan plan(some_ids(40, 3, 11), 11, {.capacity = 12});
  EXPECT_GT(plan.dropped(), 0);
  const auto parts = random_matrix<RowMatrix<T>>(plan.routed(), 37, 1);
  const auto weights = random_matrix<RowMatrix<T>>(40, 3, 2);
  const auto start = random_matrix<RowMatrix<T>>(40, 37, 3);
  for (const bool accumulate : {false, true}) {
    RowMatrix<double> wanted = RowMatrix<double>::Zero(40, 37);
    if (accumulate) wanted = start.template cast<double>();
    for (Index p = 0; p < plan.routed(); ++p) {
      const auto place = static_cast<std::size_t>(p);
      const Index r = plan.rows_by_place()[place];
      wanted.row(r) += static_cast<double>(weights(r, plan.choice_by_place()[place])) *
                       parts.row(p).template cast<double>();
    }
    const auto expect = [&](const auto& backend) {
      RowMatrix<T> y = start;
      Eigen::Matrix<T, -1, -1> by_columns = start;
      combine(backend, plan, parts, weights, y, {.accumulate = accumulate});
      combine(backend, plan, parts, weights, by_columns, {.accumulate = accumulate});
      EXPECT_LE((y.template cast<double>() - wanted).cwiseAbs().maxCoeff(), bound);
      EXPECT_TRUE((y.array() == by_columns.array()).all());
    };
    expect(pare::reference);
    expect(pare::simd);
    expect(pare::simd.threads(2));
  }
}

// Three products of numbers up to 1, and one more: 4 roundings of sums up to 4.
TEST(Combine, AddsPartsByAscendingExpert) {
  expect_sums<float>(16 * 0x1p-24);
  expect_sums<double>(16 * 0x1p-53);
}

TEST(FeedForwards, AreTheirFormulas) {
  const auto gate = random_matrix<RowMatrix<double>>(20, 6, 1),
             up = random_matrix<RowMatrix<double>>(20, 6, 2),
             down = random_matrix<RowMatrix<double>>(5, 20, 3),
             x = random_matrix<RowMatrix<double>>(9, 6, 4);
  const RowMatrix<double> g = x * gate.transpose(), u = x * up.transpose();
  const RowMatrix<double> silu = (g.array() / (1 + (-g.array()).exp()) * u.array()).matrix();
  using Layer = DenseLinear<double>;
  const GatedFeedForward<Layer> gated(Layer::copy_of(gate), Layer::copy_of(up),
                                      Layer::copy_of(down));
  const std::vector<double> up_bias(20, .25), down_bias(5, -1);
  const FeedForward<Layer> plain(Layer::copy_of(up), Layer::copy_of(down), up_bias, down_bias);
  const RowMatrix<double> relu = (u.array() + .25).max(0).matrix();
  RowMatrix<double> y(9, 5);
  const auto expect = [&](const auto& layer, const RowMatrix<double>& wanted) {
    layer.apply(pare::simd, pare::const_view(x), pare::to_view(y));
    EXPECT_LE((y - wanted).cwiseAbs().maxCoeff(), 1e-13);
    layer.apply(pare::reference, pare::const_view(x), pare::to_view(y));
    EXPECT_LE((y - wanted).cwiseAbs().maxCoeff(), 1e-13);
  };
  expect(gated, silu * down.transpose());
  expect(plain, ((relu * down.transpose()).array() - 1).matrix());
  // Down of another kind than gate and up.
  using Mixed = GatedFeedForward<Layer, pare::transformer::Silu, FeedForward<Layer>>;
  const auto first = random_matrix<RowMatrix<double>>(7, 20, 5),
             second = random_matrix<RowMatrix<double>>(5, 7, 6);
  const RowMatrix<double> middle = (silu * first.transpose()).cwiseMax(0);
  expect(Mixed(Layer::copy_of(gate), Layer::copy_of(up),
               FeedForward<Layer>(Layer::copy_of(first), Layer::copy_of(second))),
         middle * second.transpose());
  static_assert(pare::transformer::LinearOf<GatedFeedForward<Layer>, double>);
  static_assert(pare::transformer::Linear<FeedForward<DenseLinear<float>>>);
  refusal(
      [&] {
        GatedFeedForward<Layer>(Layer::copy_of(gate), Layer::copy_of(down), Layer::copy_of(down));
      },
      "routing::GatedFeedForward", "up");
  refusal(
      [&] {
        GatedFeedForward<Layer>(Layer::copy_of(gate), Layer::copy_of(up), Layer::copy_of(up));
      },
      "routing::GatedFeedForward", "down");
  refusal([&] { FeedForward<Layer>(Layer::copy_of(up), Layer::copy_of(down), down_bias); },
          "routing::FeedForward", "up_bias");
  refusal([&] { FeedForward<Layer>(Layer::copy_of(up), Layer::copy_of(down), {}, up_bias); },
          "routing::FeedForward", "down_bias");
  RowMatrix<double> room = x;
  const pare::TensorView<double, 2> inside{room.data(), {9, 5}, {6, 1}};
  refusal([&] { plain.apply(pare::simd, pare::const_view(room), inside); },
          "routing::FeedForward::apply", "y");
  const auto weights = gated.down().weights();
  const pare::TensorView<double, 2> on_weights{const_cast<double*>(weights.data), {9, 5}, {5, 1}};
  refusal([&] { gated.apply(pare::simd, pare::const_view(x), on_weights); },
          "routing::GatedFeedForward::apply", "y");
}

TEST(GroupedMultiply, RefusesWhatDoesNotFit) {
  const auto experts = dense_experts<float>(5, 8, 6);
  const auto x = random_matrix<RowMatrix<float>>(10, 6, 1);
  const RoutePlan plan(some_ids(10, 2, 5), 5);
  RowMatrix<float> parts = RowMatrix<float>::Zero(plan.routed(), 8), y(10, 8);
  const auto refused = [&](const auto& rows, const RoutePlan& by, const auto& layers, auto&& out,
                           const char* argument) {
    refuses_and_leaves_alone([&] { grouped_multiply(rows, by, layers, out); },
                             "routing::grouped_multiply", argument, parts);
  };
  const RowMatrix<float> few = x.topRows(9), narrow = x.leftCols(5);
  refused(few, plan, experts, parts, "x");
  refused(narrow, plan, experts, parts, "experts");
  refused(x, RoutePlan(some_ids(10, 2, 4), 4), experts, parts, "experts");
  refused(x, plan, dense_experts<float>(5, 7, 6), parts, "experts");
  refused(x, plan, experts, y, "parts");
  RowMatrix<float> room(40, 8);
  const pare::TensorView<float, 2> over{room.data(), {20, 8}, {8, 1}};
  const pare::TensorView<const float, 2> inside{room.data() + 5, {10, 6}, {6, 1}};
  refused(inside, plan, experts, over, "parts");
  auto own = dense_experts<float>(5, 8, 6);
  const auto memory = own[4].own_weights();
  const pare::TensorView<float, 2> on_weights{memory.data, {20, 8}, {8, 1}};
  refusal([&] { grouped_multiply(x, plan, own, on_weights); }, "routing::grouped_multiply",
          "parts");
  const auto refused_sum = [&](const auto& from, const RowMatrix<float>& weights, auto&& out,
                               const char* argument) {
    refuses_and_leaves_alone([&] { combine(plan, from, weights, out); }, "routing::combine",
                             argument, y);
  };
  y.setZero();
  RowMatrix<float> weights = RowMatrix<float>::Ones(10, 2);
  refused_sum(few, weights, y, "parts");
  refused_sum(Eigen::MatrixXf(parts), weights, y, "parts");
  refused_sum(parts, few, y, "weights");
  refused_sum(parts, weights, parts, "y");
  const RowMatrix<float> two = parts.leftCols(2);
  refuses_and_leaves_alone([&] { combine(plan, two, weights, weights); }, "routing::combine", "y",
                           weights);
  weights(9, 1) = std::numeric_limits<float>::infinity();
  refused_sum(parts, weights, y, "weights");
}

}  // namespace
}  // namespace routing_grouped_multiply_test
