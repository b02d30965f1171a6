// SPDX-License-Identifier: Apache-2.0
// Heads as experts behind one expander, against loops in double; what is left of a pruned layer.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include <pare/attention/heads/compact_heads.hpp>
#include <pare/attention/heads/head_usage.hpp>
#include <pare/routing/expert_attention.hpp>
#include <pare/routing/feed_forward.hpp>
#include <pare/routing/gates.hpp>
#include <pare/transformer/dense_linear.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace routing_expert_attention_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::routing::expert_attention;
using pare::routing::FeedForward;
using pare::routing::GateWeight;
using pare::routing::pool_sequences;
using pare::routing::route;
using pare::routing::RoutePlan;
using pare::routing::Routes;
using pare::routing::routes_of_tokens;
using pare::routing::TopK;
using pare::routing::TopOne;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::transformer::DenseLinear;
using Wide = RowMatrix<double>;

constexpr Index heads = 5, dim = 6, hidden = 9, outputs = 7;

/// An expander with GELU, and what it is made of.
template <class T>
struct Expander {
  using Layer = FeedForward<DenseLinear<T>, pare::transformer::Gelu>;

  RowMatrix<T> up = random_matrix<RowMatrix<T>>(hidden, dim, 1),
               down = random_matrix<RowMatrix<T>>(outputs, hidden, 2);
  Layer layer{DenseLinear<T>(up), DenseLinear<T>(down)};

  Eigen::RowVectorXd apply(const Eigen::RowVectorXd& a) const {
    Eigen::RowVectorXd middle = a * up.template cast<double>().transpose();
    for (Index i = 0; i < hidden; ++i) middle(i) *= .5 * (1 + std::erf(middle(i) / std::sqrt(2.0)));
    return middle * down.template cast<double>().transpose();
  }
};

template <class T>
void expect_formula(Index tokens, double bound) {
  const Expander<T> expander;
  const auto attended = random_matrix<RowMatrix<T>>(tokens, heads * dim, 3);
  const auto logits = random_matrix<RowMatrix<T>>(tokens, heads, 4);
  for (const Index k : {1, 2}) {
    Routes<T> routes = route(logits, TopK{.k = k, .renormalize = false});
    if (k == 2) routes.ids(0, 1) = -1;
    if (k == 1 && tokens > 3) routes.ids(3, 0) = -1;
    Wide wanted = Wide::Zero(tokens, outputs);
    for (Index t = 0; t < tokens; ++t)
      for (Index j = 0; j < k; ++j)
        if (const Index h = routes.ids(t, j); h >= 0)
          wanted.row(t) +=
              static_cast<double>(routes.weights(t, j)) *
              expander.apply(attended.row(t).segment(h * dim, dim).template cast<double>());
    const auto expect = [&](const auto& backend) {
      RowMatrix<T> y = RowMatrix<T>::Constant(tokens, outputs, 9);
      expert_attention(backend, attended, routes, expander.layer, y);
      EXPECT_LE((y.template cast<double>() - wanted).cwiseAbs().maxCoeff(), bound) << k;
    };
    expect(pare::reference);
    expect(pare::simd);
    expect(pare::simd.threads(2));
  }
}

// Elements up to 1: hidden values up to 6 off by 6^2 u and some of GELU's, sums of 9 of them.
TEST(ExpertAttention, IsTheExpanderOfTheChosenHead) {
  expect_formula<float>(1, 9 * 100 * 0x1p-24);
  expect_formula<float>(70, 9 * 100 * 0x1p-24);
  expect_formula<double>(41, 9 * 100 * 0x1p-53);
}

/// A NaN where a token's head attends to it is in that token's row of y; elsewhere it is not read.
TEST(ExpertAttention, ANaNStaysInTheTokensThatChoseItsHead) {
  const Expander<float> expander;
  auto attended = random_matrix<RowMatrix<float>>(12, heads * dim, 3);
  const auto routes = route(random_matrix<RowMatrix<float>>(12, heads, 4), TopK{.k = 2});
  const auto expect = [&](const auto& backend) {
    RowMatrix<float> whole(12, outputs), y(12, outputs);
    expert_attention(backend, attended, routes, expander.layer, whole);
    for (Index h = 0; h < heads; ++h) {
      auto part = attended;
      part(5, h * dim + 2) = std::numeric_limits<float>::quiet_NaN();
      expert_attention(backend, part, routes, expander.layer, y);
      const bool chosen = routes.ids(5, 0) == h || routes.ids(5, 1) == h;
      for (Index t = 0; t < 12; ++t)
        for (Index c = 0; c < outputs; ++c)
          if (t == 5 && chosen)
            EXPECT_TRUE(std::isnan(y(t, c))) << h;
          else
            EXPECT_EQ(y(t, c), whole(t, c)) << h << " " << t;
    }
  };
  expect(pare::reference);
  expect(pare::simd);
}

/// An expander that may not be called.
struct Never {
  Index in, out;

  Index inputs() const { return in; }
  Index outputs() const { return out; }
  template <class B>
  void apply(const B&, pare::TensorView<const float, 2>, pare::TensorView<float, 2>) const {
    ADD_FAILURE() << "called";
  }
};

TEST(ExpertAttention, WithoutPairsIsZero) {
  const RowMatrix<float> attended = RowMatrix<float>::Ones(4, 3 * 2), none(0, 3 * 2);
  const Never expander{2, outputs};
  Routes<float> routes{RowMatrix<Index>::Constant(4, 2, -1), RowMatrix<float>::Ones(4, 2)};
  RowMatrix<float> y = RowMatrix<float>::Ones(4, outputs), empty(0, outputs);
  expert_attention(attended, routes, expander, y);  // no head for any token
  EXPECT_TRUE((y.array() == 0).all());
  routes = {RowMatrix<Index>(4, 0), RowMatrix<float>(4, 0)};  // no choices
  y.setOnes();
  expert_attention(pare::reference, attended, routes, expander, y);
  EXPECT_TRUE((y.array() == 0).all());
  expert_attention(none, {RowMatrix<Index>(0, 2), RowMatrix<float>(0, 2)}, expander, empty);
  // No tokens and no sequences.
  RowMatrix<float> pooled = RowMatrix<float>::Ones(2, 6), no_sequences(0, 6);
  pool_sequences(none, std::vector<Index>{0, 0, 0}, pooled);
  EXPECT_TRUE((pooled.array() == 0).all());
  pool_sequences(none, std::vector<Index>{0}, no_sequences);
  EXPECT_EQ(routes_of_tokens(Routes<float>{RowMatrix<Index>(0, 2), RowMatrix<float>(0, 2)},
                             std::vector<Index>{0})
                .ids.rows(),
            0);
}

TEST(ExpertAttention, KeepsItsBits) {
  const Expander<float> expander;
  const auto attended = random_matrix<RowMatrix<float>>(40, heads * dim, 3);
  const auto routes = route(random_matrix<RowMatrix<float>>(40, heads, 4), TopOne{});
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    RowMatrix<float> y(40, outputs);
    expert_attention(backend, attended, routes, expander.layer, y);
    return y;
  });
  pare::testing::any_stride_same_bits(attended, [&](const auto& view) {
    RowMatrix<float> y(40, outputs);
    expert_attention(view, routes, expander.layer, y);
    return y;
  });
  pare::Workspace workspace;
  RowMatrix<float> y(40, outputs);
  expert_attention(pare::simd.with(workspace), attended, routes, expander.layer, y);
  const long before = pare::testing::allocations;
  expert_attention(pare::simd.with(workspace), attended, routes, expander.layer, y);
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

/// The gate routes as HeadUsage counts, ties to the lower head. Each sequence is of one token, so
/// that a head attends to its value. Where all tokens go to the head that is kept, the layer that
/// is left computes what the whole one did.
TEST(ExpertAttention, OfTheHeadThatIsLeftIsThePrunedLayer) {
  const Expander<double> expander;
  const auto x = random_matrix<Wide>(30, 11, 1), wv = random_matrix<Wide>(heads * dim, 11, 2);
  Wide logits = random_matrix<Wide>(30, heads, 5);
  logits.col(2).array() += .4;
  logits.row(4).setZero();
  const auto routes = route(logits, TopOne{.weight = GateWeight::One});
  const RoutePlan plan(routes.ids, heads);
  pare::attention::HeadUsage usage(heads);
  usage.add(logits);
  for (Index h = 0; h < heads; ++h)
    EXPECT_EQ(usage.counts()[static_cast<std::size_t>(h)],
              static_cast<Index>(plan.rows_of(h).size()));
  EXPECT_EQ(usage.tokens(), plan.routed());
  EXPECT_EQ(routes.ids(4, 0), 0);

  const std::vector<Index> kept = pare::attention::select_heads(usage.counts(), {.count = 1});
  ASSERT_EQ(kept, std::vector<Index>{2});
  const Wide small = pare::attention::rows_of_heads(wv, kept, dim);
  const Wide whole = x * wv.transpose(), left = x * small.transpose();
  Wide y(30, outputs), pruned(30, outputs);
  expander.layer.apply(pare::simd, pare::const_view(left), pare::to_view(pruned));
  expert_attention(whole, routes, expander.layer, y);
  Index same = 0;
  for (const Index row : plan.rows_of(2)) {
    EXPECT_LE((y.row(row) - pruned.row(row)).cwiseAbs().maxCoeff(), 1e-12) << row;
    ++same;
  }
  EXPECT_GT(same, 8);
  EXPECT_GT((y.row(4) - pruned.row(4)).norm(), .01);
}

TEST(ExpertAttention, OfASequenceHasOneHead) {
  const Wide x = random_matrix<Wide>(9, 4, 7);
  const std::vector<Index> offsets{0, 3, 3, 8, 9};
  Wide pooled(4, 4);
  pool_sequences(x, offsets, pooled);
  EXPECT_LE((pooled.row(0) - x.topRows(3).colwise().mean()).norm(), 1e-15);
  EXPECT_TRUE((pooled.row(1).array() == 0).all());
  EXPECT_LE((pooled.row(2) - x.middleRows(3, 5).colwise().mean()).norm(), 1e-15);
  EXPECT_TRUE(pooled.row(3) == x.row(8));
  pare::testing::any_stride_same_bits(x, [&](const auto& view) {
    Eigen::MatrixXd means(4, 4);
    pool_sequences(view, offsets, means);
    return means;
  });
  Routes<double> routes = route(random_matrix<Wide>(4, heads, 8), TopOne{});
  const auto tokens = routes_of_tokens(routes, offsets);
  ASSERT_EQ(tokens.ids.rows(), 9);
  for (Index s = 0; s < 4; ++s)
    for (Index t = offsets[static_cast<std::size_t>(s)];
         t < offsets[static_cast<std::size_t>(s) + 1]; ++t) {
      EXPECT_EQ(tokens.ids(t, 0), routes.ids(s, 0));
      EXPECT_EQ(tokens.weights(t, 0), routes.weights(s, 0));
    }
  Wide other(3, 4), on_x = x;
  const auto refused = [&](const std::vector<Index>& o, auto&& to, const char* argument) {
    refuses_and_leaves_alone([&] { pool_sequences(x, o, to); }, "routing::pool_sequences", argument,
                             pooled);
  };
  for (const auto& o :
       std::vector<std::vector<Index>>{{}, {1, 3, 3, 8, 9}, {0, 3, 2, 8, 9}, {0, 3, 3, 8, 10}})
    refused(o, pooled, "offsets");
  refused(offsets, other, "pooled");
  refusal([&] { pool_sequences(on_x, std::vector<Index>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, on_x); },
          "routing::pool_sequences", "pooled");
  // pooled on the offsets, whose elements are as large.
  std::vector<Index> own = offsets;
  void* const memory = own.data();
  const Wide narrow = x.leftCols(1);
  refusal(
      [&] {
        pool_sequences(narrow, own,
                       pare::TensorView<double, 2>{static_cast<double*>(memory), {4, 1}, {1, 1}});
      },
      "routing::pool_sequences", "pooled");
  EXPECT_EQ(own, offsets);
  for (const auto& o : std::vector<std::vector<Index>>{{}, {0, 3, 3, 8}, {0, 3, 2, 8, 9}})
    refusal([&] { routes_of_tokens(routes, o); }, "routing::routes_of_tokens", "offsets");
  routes.weights.resize(3, 1);
  refusal([&] { routes_of_tokens(routes, offsets); }, "routing::routes_of_tokens", "routes");
}

TEST(ExpertAttention, RefusesWhatDoesNotFit) {
  Expander<float> expander;
  auto attended = random_matrix<RowMatrix<float>>(10, heads * dim, 3);
  auto routes = route(random_matrix<RowMatrix<float>>(10, heads, 4), TopOne{});
  RowMatrix<float> y = RowMatrix<float>::Zero(10, outputs);
  const auto refused = [&](const auto& from, auto&& to, const char* argument,
                           const char* function = "routing::expert_attention") {
    refuses_and_leaves_alone([&] { expert_attention(from, routes, expander.layer, to); }, function,
                             argument, y);
  };
  const RowMatrix<float> few = attended.topRows(9), odd = attended.leftCols(dim + 1), none(10, 0);
  RowMatrix<float> wide(10, outputs + 1);
  refused(few, y, "routes");
  refused(odd, y, "attended");
  refused(none, y, "attended");
  refused(attended, wide, "y");
  for (float* memory : {attended.data(), routes.weights.data(), expander.down.data()})
    refused(attended, pare::TensorView<float, 2>{memory, {10, outputs}, {outputs, 1}}, "y");
  void* const memory = routes.ids.data();
  refused(attended,
          pare::TensorView<float, 2>{static_cast<float*>(memory), {10, outputs}, {outputs, 1}},
          "y");
  for (const Index id : {heads, Index{-2}, std::numeric_limits<Index>::max()}) {
    routes.ids(3, 0) = id;
    refused(attended, y, "ids", "routing::RoutePlan");
  }
  routes.ids(3, 0) = 0;
  // No inputs; heads so wide that what the tokens attend to has no size.
  constexpr Index vast = Index{1} << 58;
  const float one = 1;
  const pare::TensorView<const float, 2> wide_heads{&one, {10, vast}, {0, 0}};
  refuses_and_leaves_alone([&] { expert_attention(attended, routes, Never{0, outputs}, y); },
                           "routing::expert_attention", "expander", y);
  const Routes<float> first{RowMatrix<Index>::Zero(10, 1), RowMatrix<float>::Ones(10, 1)};
  refuses_and_leaves_alone([&] { expert_attention(wide_heads, first, Never{vast, outputs}, y); },
                           "routing::expert_attention", "routes", y);
  routes.weights(3, 0) = std::numeric_limits<float>::quiet_NaN();
  refused(attended, y, "weights", "routing::combine");
  routes.weights.resize(10, 2);
  refused(attended, y, "routes");
}

}  // namespace
}  // namespace routing_expert_attention_test
