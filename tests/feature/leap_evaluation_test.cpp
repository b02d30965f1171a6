// SPDX-License-Identifier: Apache-2.0
// Evaluation by LeAP's gates: which fields are permuted, dense and sparse, and training beside it.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

#include <pare/feature/leap/leap.hpp>

#include "feature/batches.hpp"
#include "feature/leap_cases.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace feature_leap_evaluation_test {
namespace {

using namespace pare::testing;
using namespace pare::testing::leap_cases;
using Eigen::MatrixXd;
using pare::Index;
using pare::feature::EvalMode;
using pare::feature::Leap;
using pare::feature::LeapOptions;
using pare::feature::SparseFields;
using pare::feature::SparseMix;
using pare::optim::GateKind;
using pare::optim::GateOptions;
using pare::testing::leap_cases::nan;  // not the function

/// Row b of every column holds b, so a mix tells its donors.
MatrixXd row_numbers() {
  return Eigen::VectorXd::LinSpaced(rows, 0, rows - 1).replicate(1, widths.dim());
}

/// The donors of a field that a mix with its gate used: the same for all its columns, all rows once
/// and none its own.
std::vector<Index> donors_in(const MatrixXd& mixed, Index j, double gate) {
  std::vector<Index> donors;
  for (Index b = 0; b < rows; ++b) {
    const double first = (mixed(b, widths.offset(j)) - gate * static_cast<double>(b)) / (1 - gate);
    const auto donor = static_cast<Index>(std::lround(first));
    donors.push_back(donor);
    EXPECT_NE(donor, b);
    for (Index c = widths.offset(j); c < widths.offset(j + 1); ++c)
      EXPECT_NEAR(mixed(b, c),
                  gate * static_cast<double>(b) + (1 - gate) * static_cast<double>(donor),
                  Tolerance<double>::gamma(8) * 2 * rows);
  }
  std::vector<Index> sorted = donors, all(static_cast<std::size_t>(rows));
  std::sort(sorted.begin(), sorted.end());
  std::iota(all.begin(), all.end(), Index{0});
  EXPECT_EQ(sorted, all);
  return donors;
}

TEST(Leap, EvaluationShufflesByTheGatesWithoutNoise) {
  const MatrixXd x = row_numbers();
  for (const GateKind kind : kinds) {
    GateOptions gate;
    gate.kind = kind;
    Leap<double> leap(widths, {.gate = gate});
    leap.set_thetas(std::vector<double>{-0.1, 0.2, 0.05, -0.3, 0.1});
    MatrixXd mixed = x, again = x;
    leap.evaluate(x, mixed);
    leap.evaluate(x, again);
    for (Index j = 0; j < 5; ++j) {
      const double of_field = leap.gates()[static_cast<std::size_t>(j)];
      EXPECT_NE(donors_in(mixed, j, of_field), donors_in(again, j, of_field)) << "a new draw";
    }
  }
}

TEST(Leap, HardEvaluationKeepsOpenFieldsAndPermutesTheOthers) {
  const MatrixXd x = row_numbers();
  Leap<double> leap(widths, {.eval_mode = EvalMode::Hard});
  leap.set_thetas(some_thetas);
  MatrixXd mixed = x;
  leap.evaluate(x, mixed);
  for (Index j = 0; j < 5; ++j)
    if (some_thetas[static_cast<std::size_t>(j)] > 0) {
      EXPECT_EQ(mixed.middleCols(widths.offset(j), widths.width(j)),
                x.middleCols(widths.offset(j), widths.width(j)));
    } else {
      donors_in(mixed, j, 0);
    }
  // A gate of exactly 1/2 does not keep its field.
  leap.set_thetas(std::vector<double>(5, 0.0));
  leap.evaluate(x, mixed);
  donors_in(mixed, 0, 0);
}

TEST(Leap, EvaluationThatIsOffPassesTheBatchOn) {
  MatrixXd x = normal_batch<double>(rows, widths.dim(), 1), mixed = x;
  x(3, 3) = nan;
  x(4, 4) = infinity;
  Leap<double> leap(widths, {.eval_mode = EvalMode::Off});
  leap.set_thetas(some_thetas);
  mixed.setZero();
  leap.evaluate(x, mixed);
  EXPECT_TRUE(equal_bits(mixed, x));
}

TEST(Leap, EvaluationOfSparseBatchesIsThatOfDenseOnes) {
  MatrixXd x = normal_batch<double>(rows, widths.dim(), 1);
  x.topRows(rows / 2).leftCols(4).setZero();
  const SparseFields<double> entries = to_sparse(widths, x);
  for (const EvalMode mode : {EvalMode::Shuffle, EvalMode::Hard, EvalMode::Off}) {
    Leap<double> dense(widths, {.eval_mode = mode}), sparse(widths, {.eval_mode = mode});
    for (Leap<double>* leap : {&dense, &sparse}) leap->set_thetas(some_thetas);
    OwnedBatch<double> mixed(widths, rows, Storage::RowMajor), got(widths, rows, Storage::RowMajor);
    SparseMix<double> mixed_entries;
    for (int call = 0; call < 2; ++call) {
      dense.evaluate(x, mixed.batch());
      sparse.evaluate(entries, mixed_entries);
      to_dense(mixed_entries.fields(), got.batch());
      EXPECT_LE((got.get() - mixed.get()).cwiseAbs().maxCoeff(), 1e-14);
    }
    EXPECT_EQ(got.get() == x, mode == EvalMode::Off);
  }
}

TEST(Leap, EvaluationLeavesTrainingAsItIs) {
  const auto nothing = [](Leap<double>&) {};
  const auto evaluate = [](Leap<double>& leap) {
    const MatrixXd x = normal_batch<double>(11, widths.dim(), 8);
    MatrixXd mixed = x;
    leap.evaluate(x, mixed);
  };
  const LeapOptions options{.learning_rate = 0.1};
  EXPECT_EQ(trained<double>(pare::simd, widths, options, Storage::RowMajor, nothing),
            trained<double>(pare::simd, widths, options, Storage::RowMajor, evaluate));
}

}  // namespace
}  // namespace feature_leap_evaluation_test
