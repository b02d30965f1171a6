// SPDX-License-Identifier: Apache-2.0
// Mixtures in the shapes of papers, by a gate of a user's own, and of rounded and quantised layers,
// against loops in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include <pare/routing/combine.hpp>
#include <pare/routing/feed_forward.hpp>
#include <pare/routing/gates.hpp>
#include <pare/routing/grouped_multiply.hpp>
#include <pare/routing/mixture.hpp>
#include <pare/routing/route_plan.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/quantized_linear.hpp>

#include "support/properties.hpp"

namespace routing_mixture_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::routing::combine;
using pare::routing::expected_experts;
using pare::routing::FeedForward;
using pare::routing::grouped_multiply;
using pare::routing::mixture;
using pare::routing::route;
using pare::routing::RoutePlan;
using pare::routing::Routes;
using pare::routing::TopK;
using pare::routing::TopOne;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::transformer::DenseLinear;
using Wide = RowMatrix<double>;

/// Experts of two layers with ReLU, and rows and logits for them.
template <class T>
struct Layers {
  std::vector<Wide> up{}, down{};
  std::vector<FeedForward<DenseLinear<T>>> experts{};
  RowMatrix<T> x, logits;

  Layers(Index rows, Index count, Index dim, Index hidden)
      : x(random_matrix<RowMatrix<T>>(rows, dim, 1)),
        logits(T{3} * random_matrix<RowMatrix<T>>(rows, count, 2)) {
    for (Index e = 0; e < count; ++e) {
      const auto seed = static_cast<std::uint64_t>(10 + 2 * e);
      const auto u = random_matrix<RowMatrix<T>>(hidden, dim, seed),
                 d = random_matrix<RowMatrix<T>>(dim, hidden, seed + 1);
      experts.emplace_back(DenseLinear<T>::copy_of(u), DenseLinear<T>::copy_of(d));
      up.push_back(u.template cast<double>());
      down.push_back(d.template cast<double>());
    }
  }

  /// down relu(up x) of one expert.
  Eigen::VectorXd expert(std::size_t e, Index row) const {
    const Eigen::VectorXd in = x.row(row).transpose().template cast<double>();
    return down[e] * (up[e] * in).cwiseMax(0);
  }

  /// The experts of a row by falling logit, of equal ones the first.
  std::vector<Index> order(Index row) const {
    std::vector<Index> all;
    for (Index e = 0; e < logits.cols(); ++e) all.push_back(e);
    std::ranges::stable_sort(all,
                             [&](Index a, Index b) { return logits(row, a) > logits(row, b); });
    return all;
  }

  double exponential(Index row, Index e) const {
    return std::exp(static_cast<double>(logits(row, e)));
  }
};

/// OneRec's decoder layer: 2 of 24, softmax over the two, the residual outside.
template <class T>
void expect_one_rec(double bound) {
  const Layers<T> layers(50, 24, 12, 8);
  Wide wanted = layers.x.template cast<double>();
  for (Index r = 0; r < 50; ++r) {
    const auto order = layers.order(r);
    const double sum = layers.exponential(r, order[0]) + layers.exponential(r, order[1]);
    for (std::size_t j = 0; j < 2; ++j)
      wanted.row(r) += layers.exponential(r, order[j]) / sum *
                       layers.expert(static_cast<std::size_t>(order[j]), r).transpose();
  }
  const auto expect = [&](const auto& backend) {
    const Routes<T> routes = route(backend, layers.logits, TopK{.k = 2});
    const RoutePlan plan(routes.ids, 24);
    RowMatrix<T> parts(plan.routed(), 12), y = layers.x, without(50, 12);
    grouped_multiply(backend, layers.x, plan, layers.experts, parts);
    combine(backend, plan, parts, routes.weights, y, {.accumulate = true});
    EXPECT_LE((y.template cast<double>() - wanted).cwiseAbs().maxCoeff(), bound);
    mixture(backend, layers.x, routes, layers.experts, without);
    EXPECT_LE(((without + layers.x).template cast<double>() - wanted).cwiseAbs().maxCoeff(), bound);
  };
  expect(pare::reference);
  expect(pare::simd.threads(2));
}

// |x|, |up|, |down| <= 1: hidden values up to 12 off by 12^2 u, their sum of 8 by 8 (144 + 12 * 8)
// u, the weights and two more additions by a few of up to 100 u.
TEST(Mixture, OfTwoOfTwentyFourIsOneRecsLayer) {
  expect_one_rec<float>(2500 * 0x1p-24);
  expect_one_rec<double>(2500 * 0x1p-53);
}

/// Sigma-MoE-Tiny: 1 of 96, weighed by its share of the softmax over all.
TEST(Mixture, OfOneOfNinetySixIsSigmasLayer) {
  const Layers<float> layers(70, 96, 12, 4);
  const auto routes = route(layers.logits, TopOne{});
  RowMatrix<float> y(70, 12);
  mixture(layers.x, routes, layers.experts, y);
  for (Index r = 0; r < 70; ++r) {
    const Index first = layers.order(r)[0];
    double sum = 0;
    for (Index e = 0; e < 96; ++e) sum += layers.exponential(r, e);
    const Eigen::RowVectorXd wanted = layers.exponential(r, first) / sum *
                                      layers.expert(static_cast<std::size_t>(first), r).transpose();
    EXPECT_LE((y.row(r).cast<double>() - wanted).cwiseAbs().maxCoeff(), 1000 * 0x1p-24) << r;
  }
}

/// Gates of a user's own: the nearest expert (that of gates.hpp), and all experts of a logit above
/// 0, two at most, weighed by the logit.
struct Nearest {
  Index choices(Index) const { return 1; }
  void validate(const char*, Index) const {}
  template <class Row>
  void select(const Row& row) const {
    row.take_largest();
    row.weigh([](double) { return 1.0; });
  }
};

struct Positive {
  Index choices(Index experts) const { return std::min<Index>(experts, 2); }
  void validate(const char* function, Index experts) const {
    pare::check(experts < 64, function, "logits", experts, "fewer than 64 experts");
  }
  template <class Row>
  void select(const Row& row) const {
    Index choice = 0;
    for (Index e = 0; e < row.experts() && choice < row.choices(); ++e)
      if (row.logit(e) > 0) row.set(choice++, e, static_cast<double>(row.logit(e)));
    for (; choice < row.choices(); ++choice) row.set(choice, -1, 0);
  }
};
static_assert(pare::routing::Gate<Nearest> && pare::routing::Gate<Positive>);

TEST(Mixture, TakesAGateOfTheUsersOwn) {
  Layers<float> layers(60, 6, 12, 4);
  layers.logits.row(7).setConstant(-1);  // no expert
  RowMatrix<float> nearest(60, 12), positive(60, 12);
  mixture(layers.x, route(layers.logits, Nearest{}), layers.experts, nearest);
  mixture(pare::simd.threads(2), layers.x, route(layers.logits, Positive{}), layers.experts,
          positive);
  for (Index r = 0; r < 60; ++r) {
    const auto first = static_cast<std::size_t>(layers.order(r)[0]);
    const Eigen::RowVectorXd one = layers.expert(first, r).transpose();
    EXPECT_LE((nearest.row(r).cast<double>() - one).cwiseAbs().maxCoeff(), 1000 * 0x1p-24) << r;
    Eigen::RowVectorXd sum = Eigen::RowVectorXd::Zero(12);
    int taken = 0;
    for (Index e = 0; e < 6 && taken < 2; ++e)
      if (layers.logits(r, e) > 0) {
        sum += static_cast<double>(layers.logits(r, e)) *
               layers.expert(static_cast<std::size_t>(e), r).transpose();
        ++taken;
      }
    EXPECT_LE((positive.row(r).cast<double>() - sum).cwiseAbs().maxCoeff(), 6000 * 0x1p-24) << r;
  }
  EXPECT_TRUE((positive.row(7).array() == 0).all());
  refusal([&] { route(RowMatrix<float>::Zero(2, 64).eval(), Positive{}); }, "routing::route",
          "logits");
}

/// Rows of `experts` by the rule r % 5 of four, so that each has some and the plan some without.
RoutePlan plan_of(Index rows) {
  RowMatrix<Index> ids(rows, 1);
  for (Index r = 0; r < rows; ++r) ids(r, 0) = r % 5 - 1;
  return RoutePlan(ids, 4);
}

/// Parts against products in double of weights[e], each element within bound(sum_i |w_i x_i|), and
/// with the bits of the expert's own call for its rows.
template <class L, class Bound>
void expect_parts(const std::vector<L>& experts, const std::vector<Wide>& weights, Index rows,
                  const Bound& bound) {
  const auto x = random_matrix<RowMatrix<float>>(rows, weights[0].cols(), 6);
  const RoutePlan plan = plan_of(rows);
  RowMatrix<float> parts(plan.routed(), weights[0].rows());
  grouped_multiply(pare::simd.threads(2), x, plan, experts, parts);
  Index first = 0;
  for (Index e = 0; e < 4; ++e) {
    const auto of_expert = plan.rows_of(e);
    const auto count = static_cast<Index>(of_expert.size());
    RowMatrix<float> own(count, x.cols()), alone(count, parts.cols());
    for (Index i = 0; i < count; ++i) own.row(i) = x.row(of_expert[static_cast<std::size_t>(i)]);
    experts[static_cast<std::size_t>(e)].apply(own, alone);
    EXPECT_TRUE(parts.middleRows(first, count) == alone) << e;
    const Wide& w = weights[static_cast<std::size_t>(e)];
    const Wide wanted = own.cast<double>() * w.transpose(),
               size = own.cast<double>().cwiseAbs() * w.cwiseAbs().transpose();
    for (Index i = 0; i < count; ++i)
      for (Index o = 0; o < parts.cols(); ++o)
        EXPECT_LE(std::abs(static_cast<double>(parts(first + i, o)) - wanted(i, o)),
                  bound(size(i, o)))
            << e << ' ' << i << ' ' << o;
    first += count;
  }
}

// A term is off by 2^-9 of itself where x is rounded, and by 128 u where 128 are added up in float.
TEST(GroupedMultiply, TakesRowsThatAreRoundedFewOrMany) {
  std::vector<DenseLinear<pare::bf16>> experts;
  std::vector<Wide> weights;
  for (std::uint64_t e = 0; e < 4; ++e) {
    experts.push_back(
        DenseLinear<pare::bf16>::copy_of(random_matrix<RowMatrix<float>>(24, 128, 40 + e),
                                         {.round_inputs = true, .round_few_rows = true}));
    const auto w = experts.back().weights();
    weights.emplace_back(24, 128);
    for (Index o = 0; o < 24; ++o)
      for (Index i = 0; i < 128; ++i)
        weights.back()(o, i) = static_cast<double>(static_cast<float>(w(o, i)));
  }
  const auto bound = [](double size) { return (0x1p-9 + 200 * 0x1p-24) * size; };
  expect_parts(experts, weights, 55, bound);   // 11 each
  expect_parts(experts, weights, 200, bound);  // 40 each, more than few_rows
}

TEST(GroupedMultiply, TakesQuantisedLayers) {
  using pare::kernel::Q8_0;
  using Layer = pare::transformer::QuantizedLinear<Q8_0>;
  std::vector<std::vector<Q8_0>> blocks;
  std::vector<Layer> experts;
  std::vector<Wide> weights;
  for (Index e = 0; e < 4; ++e) {
    blocks.emplace_back(24 * 2);
    weights.emplace_back(24, 64);
    for (Index b = 0; b < 48; ++b) {
      Q8_0& block = blocks.back()[static_cast<std::size_t>(b)];
      const float d = static_cast<float>(1 + (b + e) % 3) / 256;
      const auto bits = std::bit_cast<std::uint16_t>(static_cast<pare::f16>(d));
      block.d = {static_cast<std::uint8_t>(bits & 255), static_cast<std::uint8_t>(bits >> 8)};
      for (Index i = 0; i < 32; ++i) {
        const Index q = (37 * i + 11 * b + 5 * e) % 255 - 127;
        block.q[i] = static_cast<std::int8_t>(q);
        weights.back()(b / 2, b % 2 * 32 + i) = static_cast<double>(d) * static_cast<double>(q);
      }
    }
  }
  for (const auto& own : blocks) experts.emplace_back(std::span<const Q8_0>(own), 24, 64);
  const auto bound = [](double size) { return 100 * 0x1p-24 * size; };
  expect_parts(experts, weights, 55, bound);
  expect_parts(experts, weights, 200, bound);
}

/// A layer's k is a number of the call: Sigma's low layers start with more experts and end with
/// one, which is top-1, weights and all.
TEST(Gates, SharesOfTheSoftmaxOverAllReachTopOneAsKFalls) {
  const Layers<double> layers(40, 96, 4, 2);
  const auto one = route(layers.logits, TopOne{});
  for (const Index k : {8, 3, 1}) {
    const auto some = route(layers.logits, TopK{.k = k, .renormalize = false});
    EXPECT_TRUE(some.ids.leftCols(1) == one.ids) << k;
    EXPECT_TRUE(some.weights.leftCols(1) == one.weights) << k;
  }
  EXPECT_TRUE((route(layers.logits, TopK{.k = 1}).weights.array() == 1).all());
}

/// The mean over all ways in which rows can choose, 2 of 4 experts each and 1 of 3.
TEST(ExpectedExperts, IsTheMeanOverAllChoices) {
  const std::vector<unsigned> pairs{3, 5, 6, 9, 10, 12}, ones{1, 2, 4};
  const auto mean = [](const std::vector<unsigned>& choices) {
    double sum = 0;
    for (const unsigned a : choices)
      for (const unsigned b : choices)
        for (const unsigned c : choices) sum += __builtin_popcount(a | b | c);
    return sum / std::pow(static_cast<double>(choices.size()), 3);
  };
  EXPECT_NEAR(expected_experts(3, 2, 4), mean(pairs), 1e-14);
  EXPECT_NEAR(expected_experts(3, 1, 3), mean(ones), 1e-14);
  // Sigma's figures.
  EXPECT_NEAR(expected_experts(8, 1, 96), 7.7, .05);
  EXPECT_NEAR(expected_experts(32, 1, 96), 27.3, .05);
  EXPECT_NEAR(expected_experts(96, 1, 96), 60.9, .05);
  EXPECT_NEAR(expected_experts(256, 1, 96), 89.4, .05);
  EXPECT_EQ(expected_experts(0, 2, 4), 0);
  EXPECT_EQ(expected_experts(1, 4, 4), 4);
  EXPECT_NEAR(expected_experts(1, 1, Index{1} << 62), 1, 1e-15);
  EXPECT_EQ(expected_experts(std::numeric_limits<Index>::max(), 1, 96), 96);
  constexpr const char* function = "routing::expected_experts";
  refusal([] { expected_experts(-1, 1, 4); }, function, "rows");
  refusal([] { expected_experts(1, 1, 0); }, function, "experts");
  for (const Index choices : {0, 5})
    refusal([&] { expected_experts(1, choices, 4); }, function, "choices");
}

}  // namespace
}  // namespace routing_mixture_test
