// SPDX-License-Identifier: Apache-2.0
// Shared factors against singular values of the stacked weights in double, and the layer of them.
#include <gtest/gtest.h>

#include <pare/factor/covariance.hpp>
#include <pare/factor/structured/shared_factors.hpp>
#include <pare/transformer/structured/shared_linear.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "decompositions.hpp"
#include "factor/data.hpp"
#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace factor_structured_shared_factors_test {
namespace {

using namespace pare::factor;
using pare::bf16;
using pare::Index;
using pare::RowMatrix;
using pare::testing::decomposition_bound;
using pare::testing::normal_matrix;
using pare::testing::refusal;
using pare::testing::stored_in;
using pare::testing::tail_energy;
using pare::testing::values_of;
using pare::transformer::few_rows;
using pare::transformer::Linear;
using pare::transformer::LinearOf;
using pare::transformer::SharedLinear;
using Wide = Eigen::MatrixXd;

static_assert(Linear<SharedLinear<float>> && Linear<SharedLinear<bf16>>);
static_assert(LinearOf<SharedLinear<double>, double>);

constexpr Index in = 24;

/// Weights of 10, 7 and 13 outputs, of a falling spectrum together.
std::vector<RowMatrix<double>> weights() {
  const Wide all = pare::testing::with_spectrum(30, in, pare::testing::power_spectrum(in, 0.5), 1);
  return {all.topRows(10), all.middleRows(10, 7), all.bottomRows(13)};
}

Wide stacked(const std::vector<RowMatrix<double>>& list) {
  Index rows = 0;
  for (const auto& w : list) rows += w.rows();
  Wide all(rows, list.front().cols());
  rows = 0;
  for (const auto& w : list) {
    all.middleRows(rows, w.rows()) = w;
    rows += w.rows();
  }
  return all;
}

template <class T>
Wide matrix_of(pare::TensorView<const T, 2> m) {
  return values_of(Eigen::Map<const RowMatrix<T>>(m.data, m.rows(), m.cols()));
}

/// sum_i ||W_i - A_i B||_F^2.
template <class T>
double squared_error(const std::vector<RowMatrix<double>>& list, const SharedFactors<T>& found) {
  double sum = 0;
  for (std::size_t i = 0; i < list.size(); ++i)
    sum += (list[i] - matrix_of(found.specific(static_cast<Index>(i))) * matrix_of(found.shared()))
               .squaredNorm();
  return sum;
}

TEST(SharedFactors, HaveTheLeastError) {
  const auto list = weights();
  const Wide all = stacked(list);
  double last = all.squaredNorm();
  for (const Index latent : {1, 5, 12, 24}) {
    const double least = tail_energy(all, latent);
    for (const int on : {0, 1}) {
      const auto found = on == 0 ? shared_factors(pare::reference, list, {.latent = latent})
                                 : shared_factors(list, {.latent = latent});
      EXPECT_EQ(found.weights(), 3);
      EXPECT_EQ(found.latent(), latent);
      const double error = squared_error(list, found);
      const double rounding = decomposition_bound(30, in, all.norm());
      EXPECT_LE(std::sqrt(error), std::sqrt(least) + rounding) << latent;
      EXPECT_GE(std::sqrt(error), std::sqrt(least) - rounding) << latent;
      EXPECT_LE(error, last + rounding);  // the wider the better
    }
    last = least;
  }
}

TEST(SharedFactors, AreExactWhereTheRowsSpanNoMore) {
  // Three weights with rows in the same 6 dimensions; the same weight twice; one weight.
  const Wide basis = normal_matrix(6, in, 2);
  std::vector<RowMatrix<double>> list;
  for (const Index out : {9, 4, 11})
    list.emplace_back(normal_matrix(out, 6, 10 + static_cast<std::uint64_t>(out)) * basis);
  const auto exact = [](const std::vector<RowMatrix<double>>& of, Index latent) {
    const Wide all = stacked(of);
    return std::sqrt(squared_error(of, shared_factors(of, {.latent = latent}))) <=
           decomposition_bound(all.rows(), in, all.norm());
  };
  EXPECT_TRUE(exact(list, 6));
  EXPECT_FALSE(exact(list, 5));
  EXPECT_TRUE(exact({list[1], list[1]}, 4));
  EXPECT_TRUE(exact({weights()[1]}, 7));
}

TEST(SharedFactors, OfFloatAndHalvesAreThoseOfDoubleRounded) {
  const auto list = weights();
  std::vector<RowMatrix<float>> floats;
  std::vector<RowMatrix<bf16>> halves;
  for (const auto& w : list) {
    floats.push_back(stored_in<float>(w));
    halves.push_back(stored_in<bf16>(w));
  }
  const double least = std::sqrt(tail_energy(stacked(list), 12)), size = stacked(list).norm();
  EXPECT_NEAR(std::sqrt(squared_error(list, shared_factors(floats, {.latent = 12}))), least,
              1e-4 * size);
  // Rounding the weights moves them by up to 2^-8 of themselves in bf16.
  EXPECT_NEAR(std::sqrt(squared_error(list, shared_factors(halves, {.latent = 12}))), least,
              0x1p-8 * size);
}

TEST(SharedFactors, OfACovarianceHaveTheLeastErrorOfOutputs) {
  const auto list = weights();
  const Wide x = pare::testing::correlated_inputs(300, in, 6);
  Covariance covariance(in);
  covariance.add(x);
  const auto found = shared_factors(list, {.latent = 8}, covariance);
  const Wide product = matrix_of(pare::const_view(found.factors.left)) * matrix_of(found.shared());
  const Wide outputs = stacked(list) * x.transpose();
  const double error = ((stacked(list) - product) * x.transpose()).norm();
  const double least = std::sqrt(tail_energy(outputs, 8));
  EXPECT_LE(error, (1 + 1e-6) * least);
  EXPECT_GE(error, (1 - 1e-6) * least);
  const auto plain = shared_factors(list, {.latent = 8});
  const Wide other = matrix_of(pare::const_view(plain.factors.left)) * matrix_of(plain.shared());
  EXPECT_GT(((stacked(list) - other) * x.transpose()).norm(), 1.5 * least);
}

TEST(SharedFactors, TakeEachWeightsOwnRankFirst) {
  const auto list = weights();
  std::vector<RowMatrix<double>> reduced;
  for (const auto& w : list) {
    const Eigen::JacobiSVD<Wide> svd(w, Eigen::ComputeThinU | Eigen::ComputeThinV);
    reduced.emplace_back(svd.matrixU().leftCols(4) * svd.singularValues().head(4).asDiagonal() *
                         svd.matrixV().leftCols(4).transpose());
  }
  const auto found = shared_factors(list, {.latent = 9, .rank = 4});
  const double least = std::sqrt(tail_energy(stacked(reduced), 9));
  EXPECT_NEAR(std::sqrt(squared_error(reduced, found)), least, 1e-9);
  EXPECT_NEAR(found.factors.error(), least, 1e-9);
}

TEST(SharedFactors, OfGroupsAreThoseOfEach) {
  std::vector<RowMatrix<double>> list = weights();
  list.push_back(list[0] + list[0]);
  const auto groups = grouped_shared_factors(list, 2, {.latent = 5});
  ASSERT_EQ(groups.size(), 2U);
  for (std::size_t g = 0; g < 2; ++g) {
    const std::vector<RowMatrix<double>> own{list[2 * g], list[2 * g + 1]};
    const auto wanted = shared_factors(own, {.latent = 5});
    EXPECT_EQ(groups[g].factors.left, wanted.factors.left);
    EXPECT_EQ(groups[g].factors.right, wanted.factors.right);
    EXPECT_EQ(groups[g].offsets, wanted.offsets);
  }
  Covariance covariance(in);
  covariance.add(pare::testing::correlated_inputs(300, in, 6));
  const auto known = grouped_shared_factors(list, 2, {.latent = 5}, covariance);
  const std::vector<RowMatrix<double>> last{list[2], list[3]};
  const auto wanted = shared_factors(last, {.latent = 5}, covariance);
  EXPECT_EQ(known[1].factors.left, wanted.factors.left);
  EXPECT_NE(known[1].factors.right, groups[1].factors.right);
}

TEST(SharedFactors, WhatDoesNotFitIsRefused) {
  constexpr const char* function = "factor::shared_factors";
  const auto list = weights();
  const auto refused = [&](const std::vector<RowMatrix<double>>& of,
                           const SharedFactorOptions& options, const char* argument) {
    refusal([&] { shared_factors(of, options); }, function, argument);
  };
  refused({}, {.latent = 2}, "weights");
  refused({list[0], RowMatrix<double>(0, in)}, {.latent = 2}, "weights");
  refused({list[0], list[1].leftCols(5)}, {.latent = 2}, "weights");
  for (const Index latent : {0, -1, 25}) refused(list, {.latent = latent}, "latent");
  for (const Index rank : {0, 8}) refused(list, {.latent = 2, .rank = rank}, "rank");
  refused(list, {.latent = 2, .svd = {.rank = 2}}, "svd.rank");
  refused(list, {.latent = 2, .svd = {.tolerance = 0.1}}, "svd.tolerance");
  refusal([&] { shared_factors(list, {.latent = 2}, Covariance(in)); },
          "factor::Covariance::matrix", "count");
  constexpr const char* grouped = "factor::grouped_shared_factors";
  for (const Index group : {0, 2, 4})
    refusal([&] { grouped_shared_factors(list, group, {.latent = 2}); }, grouped, "group");
  refusal([&] { grouped_shared_factors(std::vector<RowMatrix<float>>{}, 1, {.latent = 2}); },
          grouped, "weights");
  const auto found = shared_factors(list, {.latent = 2});
  for (const Index i : {-1, 3})
    refusal([&] { found.specific(i); }, "factor::SharedFactors::specific", "i");
}

/// y of the layer in double.
template <class S, class X>
Wide wanted_of(const SharedLinear<S>& layer, const X& x) {
  return values_of(x) * matrix_of(layer.shared()).transpose() *
         matrix_of(layer.specific()).transpose();
}

template <class S>
void check_layer(double bound) {
  using T = pare::compute_t<S>;
  std::vector<RowMatrix<T>> list;
  for (const auto& w : weights()) list.push_back(stored_in<T>(w));
  const auto factors = shared_factors(list, {.latent = 9});
  const auto layer = SharedLinear<S>::copy_of(factors);
  EXPECT_EQ(layer.layers(), 3);
  EXPECT_EQ(layer.outputs(), 30);
  for (const Index rows : {Index{1}, Index{5}, few_rows + 1}) {
    const auto x = stored_in<T>(normal_matrix(rows, in, 3));
    const Wide wanted = wanted_of(layer, x);
    RowMatrix<T> y(rows, 30), latent(rows, 9);
    layer.apply(x, y);
    EXPECT_LE((values_of(y) - wanted).norm(), bound * wanted.norm()) << rows;
    Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> columns(rows, 30);
    layer.apply(pare::simd.threads(2), x, columns);
    EXPECT_LE((values_of(columns) - wanted).norm(), bound * wanted.norm()) << rows;
    layer.apply(pare::reference, x, columns);
    EXPECT_LE((values_of(columns) - wanted).norm(), bound * wanted.norm()) << rows;
    // The shared factor once, and those that are wanted behind it.
    layer.project(x, latent);
    RowMatrix<T> second(rows, 7);
    layer.apply_specific(1, latent, second);
    EXPECT_LE((values_of(second) - wanted.middleCols(10, 7)).norm(), bound * wanted.norm());
    pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
      RowMatrix<T> own(rows, 30);
      layer.apply(backend, x, own);
      return own;
    });
  }
}

TEST(SharedLinear, IsAllLayersSideBySide) {
  check_layer<float>(1e-5);
  check_layer<double>(1e-13);
  check_layer<bf16>(1e-5);  // of the rounded factors
}

TEST(SharedLinear, ViewsFactorsAndAllocatesNothingWithAWorkspace) {
  std::vector<RowMatrix<float>> list;
  for (const auto& w : weights()) list.push_back(stored_in<float>(w));
  const auto factors = shared_factors(list, {.latent = 9});
  const SharedLinear<float> layer(factors);
  EXPECT_EQ(layer.shared().data, factors.factors.right.data());
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  for (const Index rows : {1, 64}) {
    const auto x = stored_in<float>(normal_matrix(rows, in, 3));
    RowMatrix<float> y(rows, 30);
    layer.apply(backend, x, y);
    const long before = pare::testing::allocations;
    layer.apply(backend, x, y);
    EXPECT_EQ(pare::testing::allocations - before, 0) << rows;
  }
}

TEST(SharedLinear, WhatDoesNotFitIsRefused) {
  using pare::transformer::DenseLinear;
  constexpr const char* function = "transformer::SharedLinear";
  const auto refused = [&](Index outputs, Index latent, std::vector<Index> offsets,
                           const char* argument) {
    refusal(
        [&] {
          SharedLinear<float>(DenseLinear<float>(outputs, 9), DenseLinear<float>(latent, in),
                              std::move(offsets));
        },
        function, argument);
  };
  refused(30, 8, {0, 30}, "specific");
  refused(30, 9, {}, "offsets");
  refused(30, 9, {0, 29}, "offsets");
  refused(30, 9, {1, 30}, "offsets");
  refused(30, 9, {0, 20, 10, 30}, "offsets");
  refused(30, 9, {0, 10, 10, 30}, "offsets");
  SharedLinear<float> layer(DenseLinear<float>(30, 9), DenseLinear<float>(9, in), {0, 30});
  RowMatrix<float> x = RowMatrix<float>::Ones(3, in), y = RowMatrix<float>::Ones(3, 30);
  constexpr const char* apply = "transformer::SharedLinear::apply";
  const auto leaves = [&](const auto& from, auto& to, const char* argument) {
    pare::testing::refuses_and_leaves_alone([&] { layer.apply(pare::simd, from, to); }, apply,
                                            argument, to);
  };
  RowMatrix<float> narrow(3, in - 1), less(2, 30);
  leaves(narrow, y, "x");
  leaves(x, less, "y");
  for (const auto& factor : {layer.shared(), layer.specific()}) {
    const pare::TensorView<float, 2> inside{const_cast<float*>(factor.data), {3, 30}, {30, 1}};
    refusal([&] { layer.apply(pare::simd, pare::const_view(x), inside); }, apply, "y");
  }
  RowMatrix<float> latent(3, 9);
  for (const Index i : {-1, 1})
    refusal([&] { layer.apply_specific(i, latent, y); },
            "transformer::SharedLinear::apply_specific", "i");
}

}  // namespace
}  // namespace factor_structured_shared_factors_test
