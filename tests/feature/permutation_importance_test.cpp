// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <pare/feature/importance/permutation_importance.hpp>
#include <pare/feature/model/factorization_machine.hpp>
#include <pare/feature/model/logistic.hpp>
#include <pare/feature/model/mlp.hpp>

#include "feature/model_checks.hpp"

namespace feature_permutation_importance_test {
namespace {

using namespace pare::testing;
using namespace pare::feature;
using pare::Index;
using pare::TensorView;

std::vector<int> coin_labels(Index rows, std::uint64_t seed) {
  Engine random(seed);
  std::vector<int> labels{0, 1};
  while (static_cast<Index>(labels.size()) < rows) labels.push_back(static_cast<int>(random() % 2));
  return labels;
}

template <class T>
TensorView<const T, 2> view(const Rows<T>& x) {
  return pare::as_const(pare::to_view(x));
}

/// P3: with a linear model and the squared error, permuting field j costs 2 w_j' Cov_j w_j on
/// average.
TEST(PermutationImportance, OfALinearModelIsTwiceTheVarianceItCarries) {
  constexpr Index rows = 4000, repeats = 30;
  Rows<double> x = normal_rows<double>(rows, 5, 1);
  x.col(1) += 0.7 * x.col(0);
  x.col(3) *= 2;
  const Eigen::VectorXd w = (Eigen::VectorXd(5) << 1, -0.5, 0, 0.3, 2).finished();
  const Eigen::VectorXd y = x * w + normal_rows<double>(rows, 1, 2);
  const auto score = [&](TensorView<const double, 2> permuted) {
    double sum = 0;
    for (Index b = 0; b < rows; ++b) {
      double error = y(b);
      for (Index i = 0; i < 5; ++i) error -= permuted(b, i) * w(i);
      sum -= error * error;
    }
    return sum / rows;
  };
  const FieldLayout layout({1, 1, 1, 2});
  const auto importance = permutation_importance(layout, x, score, {.repeats = repeats});
  const Rows<double> centred = x.rowwise() - x.colwise().mean();
  const Eigen::MatrixXd covariance = centred.transpose() * centred / rows;
  const Eigen::VectorXd carried = (Eigen::VectorXd(4) << covariance(0, 0), covariance(1, 1) / 4, 0,
                                   w.tail(2).dot(covariance.bottomRightCorner(2, 2) * w.tail(2)))
                                      .finished();
  // Given the rows, the mean over permutations is 2 w' Cov w + 2 Cov(w x_j, rest): the rest is y
  // without field j less the other fields, that is noise, of which the sample covariance is not 0.
  Eigen::VectorXd bound = 3 * importance.std / std::sqrt(static_cast<double>(repeats));
  for (Index j = 0; j < 4; ++j) {
    bound(j) += 2 * 3 * std::sqrt(carried(j) / rows) + 1e-12;
    EXPECT_NEAR(importance.mean(j), 2 * carried(j), bound(j)) << j;
  }
  EXPECT_EQ(importance.mean(2), 0.0);
  EXPECT_EQ(importance.std(2), 0.0);
  EXPECT_GT(importance.std(0), 0.0);
  EXPECT_EQ(importance.ranking().order.back(), 2);
  EXPECT_EQ(importance.baseline, score(view(x)));
  for (Index j = 0; j < 4; ++j)
    EXPECT_NEAR(importance.mean(j), importance.repeats.row(j).mean(), 1e-12);
}

/// T15, the other side: what LeAP avoids.
TEST(PermutationImportance, CallsOnceAFieldAndRepeat) {
  for (const Index fields : {10, 200}) {
    const Rows<float> x = normal_rows<float>(3, fields, 1);
    Index calls = 0;
    const auto importance =
        permutation_importance(FieldLayout::scalars(fields), x,
                               [&](auto) { return static_cast<double>(++calls); }, {.repeats = 3});
    EXPECT_EQ(calls, 1 + 3 * fields);
    EXPECT_EQ(importance.row_passes, 3 * calls);
  }
}

TEST(PermutationImportance, PermutesOneFieldAtATimeAndAllItsColumnsAlike) {
  constexpr Index rows = 40;
  Rows<float> x(rows, 6);
  for (Index b = 0; b < rows; ++b)
    for (Index i = 0; i < 6; ++i) x(b, i) = static_cast<float>(100 * b + i);
  const FieldLayout layout({1, 3, 2});
  Index call = 0, moved = 0;
  permutation_importance(
      layout, x,
      [&](TensorView<const float, 2> now) {
        const Index field = call == 0 ? -1 : (call - 1) / 2;
        ++call;
        std::vector<int> taken(rows, 0);
        for (Index b = 0; b < rows; ++b)
          for (Index i = 0; i < 6; ++i) {
            const bool in_field =
                field >= 0 && i >= layout.offset(field) && i < layout.offset(field + 1);
            if (!in_field) {
              EXPECT_EQ(now(b, i), x(b, i));
            } else {
              const Index first = layout.offset(field);
              EXPECT_EQ(now(b, i) - now(b, first), static_cast<float>(i - first));
              if (i == first) ++taken[static_cast<std::size_t>(now(b, i)) / 100];
              if (i == first && now(b, i) != x(b, i)) ++moved;
            }
          }
        for (const int times : taken) EXPECT_EQ(times, field >= 0 ? 1 : 0);
        return 0.0;
      },
      {.repeats = 2});
  // 6 permutations leave about one row each in place.
  EXPECT_GE(moved, 6 * rows - 40);
}

template <class M>
void expect_passes_agree(M& model, const FieldLayout& layout, double bound) {
  using T = typename M::scalar;
  constexpr Index rows = 301;
  scatter_parameters(model, 3);
  const Rows<T> x = normal_rows<T>(rows, layout.dim(), 4);
  const Eigen::Matrix<T, -1, -1> columns = x;
  const std::vector<int> labels = coin_labels(rows, 5);
  PermutationOptions options{.repeats = 3, .seed = 9, .block_rows = 64};
  const auto run = [&](PermutationPasses passes, const auto& rows_of_x) {
    options.passes = passes;
    return permutation_importance(model, layout, rows_of_x, labels, options, LogisticScore{});
  };
  const auto full = run(PermutationPasses::Full, x);
  for (const auto& other :
       {run(PermutationPasses::Blocked, x), run(PermutationPasses::Full, columns),
        run(PermutationPasses::Blocked, columns)}) {
    EXPECT_TRUE(equal_bits(full.repeats, other.repeats));
    EXPECT_EQ(full.row_passes, other.row_passes);
  }
  for (const auto& increment :
       {run(PermutationPasses::Incremental, x), run(PermutationPasses::Incremental, columns)})
    EXPECT_LE((increment.repeats - full.repeats).cwiseAbs().maxCoeff(), bound);
  const auto called = permutation_importance(
      layout, x,
      [&](TensorView<const T, 2> rows_now) {
        std::vector<T> logits(rows);
        model.forward(rows_now, logits);
        return -logistic_loss(labels, logits);
      },
      options);
  EXPECT_LE((called.repeats - full.repeats).cwiseAbs().maxCoeff(), bound);
  EXPECT_GT(full.mean.cwiseAbs().maxCoeff(), 100 * bound);
}

TEST(PermutationImportance, AllWaysOfPassingAgree) {
  // 70 fields are more than Blocked takes at a time.
  const FieldLayout layout = FieldLayout::scalars(70);
  const FieldLayout wide({1, 5, 3, 1, 8});
  Mlp<double> mlp(70, {.hidden = {6, 3}}), narrow(18, {.hidden = {7}});
  Logistic<double> logistic(70);
  FactorizationMachine<double> machine(18, {.factors = 3});
  Mlp<float> single(70, {.hidden = {6}});
  expect_passes_agree(mlp, layout, 1e-11);
  expect_passes_agree(narrow, wide, 1e-11);
  expect_passes_agree(logistic, layout, 1e-11);
  expect_passes_agree(machine, wide, 1e-11);
  expect_passes_agree(single, layout, 1e-4);
}

TEST(PermutationImportance, AFieldThatTheModelIgnoresScoresExactlyZero) {
  Mlp<float> model(9, {.hidden = {4}});
  scatter_parameters(model, 1);
  for (Index h = 0; h < 5; ++h) model.first_weights()(3, h) = 0;
  const Rows<float> x = normal_rows<float>(100, 9, 2);
  for (const auto passes :
       {PermutationPasses::Full, PermutationPasses::Blocked, PermutationPasses::Incremental}) {
    const auto importance = permutation_importance(model, FieldLayout::scalars(9), x,
                                                   coin_labels(100, 3), {.passes = passes});
    for (Index r = 0; r < 5; ++r) EXPECT_EQ(importance.repeats(3, r), 0.0);
  }
}

/// The next repeats of a seed are others, those of another seed too; the same are the same.
TEST(PermutationImportance, IsAFunctionOfTheSeed) {
  Logistic<double> model(4);
  scatter_parameters(model, 1);
  const Rows<double> x = normal_rows<double>(60, 4, 2);
  const auto run = [&](std::uint64_t seed) {
    return permutation_importance(model, FieldLayout::scalars(4), x, coin_labels(60, 3),
                                  {.repeats = 2, .seed = seed}, LogisticScore{})
        .repeats;
  };
  EXPECT_TRUE(equal_bits(run(1), run(1)));
  EXPECT_FALSE(equal_bits(run(1), run(2)));
  EXPECT_NE(run(1)(0, 0), run(1)(0, 1));
}

/// Counts the passes that ran on two threads, and those that no backend was handed to.
struct Listening : Logistic<float> {
  using Logistic<float>::Logistic;
  int on_two_threads = 0, on_none = 0;

  template <pare::KernelBackend B>
  void forward(const B& backend, TensorView<const float, 2> x, std::span<float> logits) {
    on_two_threads += backend.executor.concurrency() == 2;
    Logistic<float>::forward(backend, x, logits);
  }
  void forward(TensorView<const float, 2> x, std::span<float> logits) {
    ++on_none;
    Logistic<float>::forward(x, logits);
  }
};

TEST(PermutationImportance, HandsItsBackendToTheModel) {
  const Rows<float> x = normal_rows<float>(40, 3, 1);
  const std::vector<float> labels = [] {
    std::vector<float> list(40, 0.0f);
    for (std::size_t i = 0; i < 40; i += 3) list[i] = 1;
    return list;
  }();
  const FieldLayout layout({1, 1, 1});
  const PermutationOptions options{.repeats = 2, .passes = PermutationPasses::Full};
  Listening model(3);
  scatter_parameters(model, 2);
  const auto threaded =
      permutation_importance(pare::simd.threads(2), model, layout, x, labels, options);
  EXPECT_EQ(model.on_two_threads, 7);
  EXPECT_EQ(model.on_none, 0);
  const auto alone = permutation_importance(model, layout, x, labels, options);
  EXPECT_EQ(model.on_two_threads, 7);
  EXPECT_EQ(threaded.repeats, alone.repeats);
}

TEST(PermutationImportance, RefusesBadInput) {
  const std::string name = "feature::permutation_importance";
  const FieldLayout layout = FieldLayout::scalars(3);
  const Rows<float> x = normal_rows<float>(4, 3, 1);
  const auto none = [](auto) { return 0.0; };
  refusal([&] { permutation_importance(FieldLayout(), x, none); }, name, "layout");
  refusal([&] { permutation_importance(FieldLayout::scalars(4), x, none); }, name, "x");
  refusal([&] { permutation_importance(layout, x.topRows(1), none); }, name, "x");
  refusal([&] { permutation_importance(layout, x, none, {.repeats = 0}); }, name, "repeats");
  Logistic<float> model(3), other(4);
  const std::vector<int> labels{0, 1, 1, 0};
  refusal([&] { permutation_importance(other, layout, x, labels); }, name, "model");
  refusal([&] { permutation_importance(model, layout, x, std::vector<int>{0, 1}); }, name,
          "labels");
  refusal([&] { permutation_importance(model, layout, x, std::vector<int>{0, 1, 2, 0}); }, name,
          "labels");
  refusal([&] { permutation_importance(model, layout, x, labels, {.block_rows = 0}); }, name,
          "block_rows");
  for (const auto passes : {PermutationPasses::Full, PermutationPasses::Blocked})
    for (const Index repeats : {Index{1} << 59, std::numeric_limits<Index>::max()})
      refusal(
          [&] {
            permutation_importance(model, layout, x, labels,
                                   {.repeats = repeats, .passes = passes, .block_rows = 2});
          },
          name, "repeats");
  for (const int bad : {-1, 3})
    refusal(
        [&] {
          permutation_importance(model, layout, x, labels,
                                 {.passes = static_cast<PermutationPasses>(bad)});
        },
        name, "passes");
}

}  // namespace
}  // namespace feature_permutation_importance_test
