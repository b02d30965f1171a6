// SPDX-License-Identifier: Apache-2.0
// Experts behind layers that their groups share, against loops in double over W_e = A_e B_g.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <pare/factor/structured/shared_factors.hpp>
#include <pare/routing/latent_experts.hpp>
#include <pare/routing/latent_feed_forward.hpp>
#include <pare/transformer/structured/shared_linear.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace routing_latent_experts_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::RowMatrix;
using pare::routing::grouped_multiply;
using pare::routing::latent_experts;
using pare::routing::latent_feed_forward;
using pare::routing::LatentExperts;
using pare::routing::RoutePlan;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::transformer::DenseLinear;
using pare::transformer::SharedLinear;
using Wide = RowMatrix<double>;
using Ids = RowMatrix<Index>;

constexpr Index inputs = 18, latent = 7, outputs = 11;

template <class T>
Wide wide(pare::TensorView<const T, 2> m) {
  Wide w(m.rows(), m.cols());
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j) w(i, j) = static_cast<double>(pare::compute_t<T>(m(i, j)));
  return w;
}

/// Groups of the given numbers of experts.
template <class S>
std::vector<SharedLinear<S>> some_layers(const std::vector<Index>& sizes) {
  std::vector<SharedLinear<S>> layers;
  for (const Index size : sizes) {
    const auto seed = static_cast<std::uint64_t>(2 * layers.size());
    std::vector<Index> offsets;
    for (Index i = 0; i <= size; ++i) offsets.push_back(i * outputs);
    layers.emplace_back(
        DenseLinear<S>::copy_of(random_matrix<Wide>(size * outputs, latent, 30 + seed)),
        DenseLinear<S>::copy_of(random_matrix<Wide>(latent, inputs, 31 + seed)), offsets);
  }
  return layers;
}

/// 9 experts in groups of 4, 1, 3 and 1. Rows of three choices, some of one group, some experts
/// and the last group without rows, some choices of none.
const std::vector<Index> sizes{4, 1, 3, 1};

Ids some_ids(Index rows) {
  Ids ids(rows, 3);
  for (Index r = 0; r < rows; ++r) {
    const Index first = (r * r + r / 5) % 8;
    ids.row(r) << first, (first + 3) % 8, (first + 1) % 8;
    if (r % 4 == 1) ids(r, 1) = -1;
    if (r % 7 == 3) ids.row(r).setConstant(-1);
  }
  return ids;
}

/// What the experts make of x, in double, from (A_e B_g) as one matrix.
template <class S, class X>
Wide parts_by_loops(const std::vector<SharedLinear<S>>& layers, const X& x, const RoutePlan& plan) {
  std::vector<Wide> weights;
  for (const auto& group : layers)
    for (Index i = 0; i < group.layers(); ++i)
      weights.push_back(wide(rows_of(group.specific(), i * outputs, outputs)) *
                        wide(group.shared()));
  Wide parts(plan.routed(), outputs);
  Index p = 0;
  for (Index e = 0; e < plan.experts(); ++e)
    for (const Index row : plan.rows_of(e))
      parts.row(p++) =
          (weights[static_cast<std::size_t>(e)] * x.row(row).transpose().template cast<double>())
              .transpose();
  return parts;
}

template <class S>
void expect_parts(Index rows, double bound) {
  using T = pare::compute_t<S>;
  const auto layers = some_layers<S>(sizes);
  const auto experts = latent_experts(layers);
  const auto x = random_matrix<RowMatrix<T>>(rows, inputs, 5);
  for (const Index capacity : {Index{2}, rows}) {
    const RoutePlan plan(some_ids(rows), 9, {.capacity = capacity});
    const Wide wanted = parts_by_loops(layers, x, plan);
    RowMatrix<T> parts(plan.routed(), outputs);
    const auto expect = [&](const auto& backend) {
      parts.setConstant(std::numeric_limits<T>::quiet_NaN());
      grouped_multiply(backend, x, plan, experts, parts);
      EXPECT_LE((parts.template cast<double>() - wanted).cwiseAbs().maxCoeff(), bound) << rows;
    };
    expect(pare::reference);
    expect(pare::simd);
    expect(pare::simd.threads(2));
  }
}

// Elements up to 1: z is off by 18^2 u and up to 18; sums of 7 of them by 7 (18^2 + 7 * 18) u.
TEST(LatentExperts, AreTheProductsOfTheirFactors) {
  const double bound = 7 * 18 * 25;
  expect_parts<float>(1, bound * 0x1p-24);
  expect_parts<float>(90, bound * 0x1p-24);
  expect_parts<double>(41, bound * 0x1p-53);
  expect_parts<bf16>(41, bound * 0x1p-24);  // of the rounded factors
}

TEST(LatentExperts, KeepTheirBits) {
  const auto layers = some_layers<float>(sizes);
  const auto experts = latent_experts(layers);
  EXPECT_EQ(experts.shared()[2].weights().data, layers[2].shared().data);  // views
  const auto x = random_matrix<RowMatrix<float>>(60, inputs, 5);
  const RoutePlan plan(some_ids(60), 9);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    RowMatrix<float> parts(plan.routed(), outputs);
    grouped_multiply(backend, x, plan, experts, parts);
    return parts;
  });
  pare::testing::any_stride_same_bits(x, [&](const auto& view) {
    Eigen::MatrixXf parts(plan.routed(), outputs);
    grouped_multiply(view, plan, experts, parts);
    return parts;
  });
  pare::Workspace workspace;
  RowMatrix<float> parts(plan.routed(), outputs);
  grouped_multiply(pare::simd.with(workspace), x, plan, experts, parts);
  const long before = pare::testing::allocations;
  grouped_multiply(pare::simd.with(workspace), x, plan, experts, parts);
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

/// A layer that counts the rows it is given.
struct Counting {
  DenseLinear<float> layer;
  std::atomic<Index>* rows;

  Index inputs() const { return layer.inputs(); }
  Index outputs() const { return layer.outputs(); }
  template <class B>
  void apply(const B& backend, pare::TensorView<const float, 2> x,
             pare::TensorView<float, 2> y) const {
    *rows += x.rows();
    layer.apply(backend, x, y);
  }
};

TEST(LatentExperts, ARowGoesThroughAGroupOnce) {
  std::atomic<Index> shared_rows = 0, specific_rows = 0;
  std::vector<Counting> shared, specific;
  for (int g = 0; g < 2; ++g) shared.push_back({DenseLinear<float>(latent, inputs), &shared_rows});
  for (int e = 0; e < 6; ++e)
    specific.push_back({DenseLinear<float>(outputs, latent), &specific_rows});
  const LatentExperts<Counting> experts(std::move(shared), std::move(specific), {0, 4, 6});
  Ids ids(4, 3);
  ids << 0, 3, 1, /* one group */ 5, 2, 0, /* both */ -1, 4, -1, 4, 3, 5;
  const RoutePlan plan(ids, 6);
  RowMatrix<float> parts(plan.routed(), outputs);
  grouped_multiply(random_matrix<RowMatrix<float>>(4, inputs, 1), plan, experts, parts);
  EXPECT_EQ(shared_rows, 1 + 2 + 1 + 2);
  EXPECT_EQ(specific_rows, 10);
}

/// Groups of the given numbers of weights [height, width], each group behind `rank` rows.
std::vector<pare::factor::SharedFactors<double>> some_factors(const std::vector<Index>& groups,
                                                              Index height, Index rank,
                                                              Index width) {
  std::vector<pare::factor::SharedFactors<double>> factors;
  for (const Index size : groups) {
    const auto seed = 50 + 2 * (factors.size() + 10 * static_cast<std::uint64_t>(rank));
    auto& group = factors.emplace_back();
    group.factors.left = random_matrix<Wide>(size * height, rank, seed);
    group.factors.right = random_matrix<Wide>(rank, width, seed + 1);
    for (Index i = 0; i <= size; ++i) group.offsets.push_back(i * height);
  }
  return factors;
}

/// Gate and up of latent widths of their own, against the formula in double.
TEST(LatentFeedForward, IsItsFormula) {
  std::vector<Wide> downs;
  for (std::uint64_t e = 0; e < 4; ++e) downs.push_back(random_matrix<Wide>(outputs, 9, 70 + e));
  const auto g = some_factors({2, 2}, 9, 5, inputs), u = some_factors({2, 2}, 9, 8, inputs);
  const auto experts = latent_feed_forward<double>(g, u, downs);
  EXPECT_EQ(experts.latent(), 13);
  const auto x = random_matrix<Wide>(20, inputs, 2);
  Ids ids(20, 2);
  for (Index r = 0; r < 20; ++r) ids.row(r) << r % 4, (r + 1 + r / 7) % 4;
  const RoutePlan plan(ids, 4);
  Wide parts(plan.routed(), outputs);
  const auto expect = [&](const auto& backend) {
    grouped_multiply(backend, x, plan, experts, parts);
    Index p = 0;
    for (Index e = 0; e < 4; ++e) {
      const auto group = static_cast<std::size_t>(e / 2);
      const Wide gate = wide(g[group].specific(e % 2)) * wide(g[group].shared()),
                 up = wide(u[group].specific(e % 2)) * wide(u[group].shared());
      for (const Index row : plan.rows_of(e)) {
        const Eigen::ArrayXd a = gate * x.row(row).transpose(), b = up * x.row(row).transpose();
        const Eigen::VectorXd wanted =
            downs[static_cast<std::size_t>(e)] * (a / (1 + (-a).exp()) * b).matrix();
        EXPECT_LE((parts.row(p++).transpose() - wanted).cwiseAbs().maxCoeff(), 1e-12);
      }
    }
  };
  expect(pare::reference);
  expect(pare::simd.threads(2));
  constexpr const char* function = "routing::latent_feed_forward";
  const auto refused = [&](const auto& a, const auto& b, const auto& d, const char* argument) {
    refusal([&] { latent_feed_forward<double>(a, b, d); }, function, argument);
  };
  refused(std::vector<pare::factor::SharedFactors<double>>{}, u, downs, "gates");
  refused(g, some_factors({4}, 9, 8, inputs), downs, "ups");
  refused(g, some_factors({2, 2}, 8, 8, inputs), downs, "ups");
  refused(g, some_factors({2, 2}, 9, 8, inputs - 1), downs, "ups");
  refused(g, u, std::vector<Wide>(downs.begin(), downs.end() - 1), "downs");
  // Offsets that are hostile: nothing behind the factors is read.
  for (const auto& offsets :
       std::vector<std::vector<Index>>{{},
                                       {0},
                                       {0, 9},
                                       {0, 9, 27},
                                       {0, 27, 18},
                                       {0, -9, 18},
                                       {9, 9, 18},
                                       {-9, 9, 18},
                                       {0, 9, std::numeric_limits<Index>::max()},
                                       {std::numeric_limits<Index>::min(), 9, 18}}) {
    auto bad_g = g, bad_u = u;
    bad_g[1].offsets = bad_u[1].offsets = offsets;
    refused(bad_g, u, downs, "gates");
    refused(g, bad_u, downs, "ups");
    refused(bad_g, bad_u, downs, "gates");
  }
  auto bad_g = g, bad_u = u;
  bad_g[0].factors.right.resize(4, inputs);
  refused(bad_g, u, downs, "gates");
  bad_u[1].factors.left.resize(17, 8);
  refused(g, bad_u, downs, "ups");
  auto tall = downs;
  tall[3].resize(outputs, 8);
  refusal([&] { latent_feed_forward<double>(g, u, tall); }, "routing::GatedFeedForward", "down");
  for (const Index first : {-1, 3})
    refusal(
        [&] {
          pare::routing::ColumnsOfInput<DenseLinear<double>>(DenseLinear<double>(2, 4), first, 6);
        },
        "routing::ColumnsOfInput", "first");
}

TEST(LatentExperts, WhatDoesNotFitIsRefused) {
  constexpr const char* function = "routing::LatentExperts";
  const auto refused = [&](const std::vector<std::pair<Index, Index>>& shared,
                           const std::vector<std::pair<Index, Index>>& specific,
                           const std::vector<Index>& offsets, const char* argument) {
    std::vector<DenseLinear<float>> a, b;
    for (const auto& [rows, cols] : shared) a.emplace_back(rows, cols);
    for (const auto& [rows, cols] : specific) b.emplace_back(rows, cols);
    refusal([&] { LatentExperts<DenseLinear<float>>(std::move(a), std::move(b), offsets); },
            function, argument);
  };
  refused({}, {}, {0}, "shared");
  refused({{2, 6}, {3, 6}}, {{5, 2}, {5, 2}}, {0, 1, 2}, "shared");
  refused({{2, 6}, {2, 5}}, {{5, 2}, {5, 2}}, {0, 1, 2}, "shared");
  refused({{2, 6}}, {{5, 2}, {4, 2}}, {0, 2}, "specific");
  refused({{2, 6}}, {{5, 2}, {5, 3}}, {0, 2}, "specific");
  for (const auto& offsets : std::vector<std::vector<Index>>{
           {}, {0, 2}, {0, 1, 3}, {1, 1, 2}, {0, 0, 2}, {0, 3, 2}, {0, 1, 1, 2}})
    refused({{2, 6}, {2, 6}}, {{5, 2}, {5, 2}}, offsets, "offsets");

  const auto layers = some_layers<float>(sizes);
  const auto experts = latent_experts(layers);
  auto x = random_matrix<RowMatrix<float>>(10, inputs, 1);
  const RoutePlan plan(some_ids(10), 9), other(some_ids(10), 10);
  RowMatrix<float> parts = RowMatrix<float>::Zero(plan.routed(), outputs);
  const auto leaves = [&](const auto& from, const RoutePlan& by, auto&& to, const char* argument) {
    refuses_and_leaves_alone([&] { grouped_multiply(from, by, experts, to); },
                             "routing::grouped_multiply", argument, parts);
  };
  const RowMatrix<float> few = x.topRows(9), narrow = x.leftCols(5);
  RowMatrix<float> less(plan.routed() - 1, outputs), thin(plan.routed(), outputs - 1);
  leaves(few, plan, parts, "x");
  leaves(narrow, plan, parts, "experts");
  leaves(x, other, parts, "experts");
  leaves(x, plan, less, "parts");
  leaves(x, plan, thin, "experts");
  for (const float* memory :
       {layers[0].shared().data, layers[2].specific().data, std::as_const(x).data()}) {
    const pare::TensorView<float, 2> on{
        const_cast<float*>(memory), {plan.routed(), outputs}, {outputs, 1}};
    leaves(x, plan, on, "parts");
  }
  // No rows, and rows without experts.
  RowMatrix<float> none(0, outputs);
  grouped_multiply(RowMatrix<float>(0, inputs), RoutePlan(Ids(0, 3), 9), experts, none);
  grouped_multiply(x, RoutePlan(Ids::Constant(10, 2, -1).eval(), 9), experts, none);
}

}  // namespace
}  // namespace routing_latent_experts_test
