// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include <pare/projection/materialize.hpp>
#include <pare/projection/nonzeros.hpp>
#include <pare/projection/project.hpp>

#include "support/matrices.hpp"

namespace projection_materialize_test {
namespace {

using pare::Index;
using pare::projection::materialize;
using pare::projection::materialize_block;
using pare::projection::pseudo_inverse;
using pare::projection::SparseProjection;
using pare::projection::SparseSignProjection;
using pare::testing::refusal;

/// Products of three matrices with norms up to ||R||^2 ||R^+||: rounding of order u times the
/// dimensions times the condition of R, which stays below 100 for these well-shaped operators (and
/// is checked).
template <class R>
void expect_penrose(const R& r) {
  const Eigen::MatrixXd a = materialize<double>(r).toDense();
  const Eigen::MatrixXd p = pseudo_inverse<double>(r);
  ASSERT_EQ(p.rows(), r.input_dim);
  ASSERT_EQ(p.cols(), r.output_dim);
  const double scale = a.norm() * p.norm();
  ASSERT_LT(scale, 1000);
  const double bound = pare::testing::Tolerance<double>::gamma(
                           10.0 * static_cast<double>(r.input_dim + r.output_dim)) *
                       scale;
  EXPECT_LE((a * p * a - a).norm(), bound * a.norm());
  EXPECT_LE((p * a * p - p).norm(), bound * p.norm());
  EXPECT_LE((a * p - (a * p).transpose()).norm(), bound);
  EXPECT_LE((p * a - (p * a).transpose()).norm(), bound);
}

TEST(PseudoInverse, MeetsPenrosesConditions) {
  expect_penrose(pare::projection::achlioptas(60, 20, 1));
  expect_penrose(pare::projection::achlioptas(20, 60, 2));
  expect_penrose(SparseProjection{.input_dim = 33, .output_dim = 9, .density = 1.0, .seed = 3});
  expect_penrose(SparseSignProjection{.input_dim = 50, .output_dim = 24, .nonzeros = 4, .seed = 4});
  // Rank deficient: some rows and columns are zero.
  expect_penrose(SparseProjection{.input_dim = 30, .output_dim = 20, .density = 0.03, .seed = 5});
}

TEST(PseudoInverse, OfAnOperatorOfZerosIsZero) {
  const SparseProjection r{.input_dim = 5, .output_dim = 3, .density = 1e-12, .seed = 5};
  EXPECT_EQ(pseudo_inverse<float>(r), Eigen::MatrixXf::Zero(5, 3));
}

TEST(PseudoInverse, UndoesTheProjectionInTheRowSpace) {
  const SparseProjection r = pare::projection::achlioptas(80, 25, 6);
  const Eigen::MatrixXd a = materialize<double>(r).toDense();
  const Eigen::MatrixXd x = pare::testing::random_matrix<Eigen::MatrixXd>(7, 25, 1) * a;
  Eigen::MatrixXd y(7, 25);
  project(x, r, y);
  const Eigen::MatrixXd back = y * pseudo_inverse<double>(r).transpose();
  EXPECT_LE((back - x).norm(), pare::testing::Tolerance<double>::gamma(100000) * x.norm());
}

TEST(Materialize, RefusesOperatorsOutOfRange) {
  const std::string function = "projection::materialize", block = function + "_block";
  for (const Index dim : {Index{0}, Index{-3}}) {
    refusal([&] { materialize<float>(SparseProjection{dim, 4, {}, 0}); }, function, "input_dim");
    refusal([&] { materialize<float>(SparseSignProjection{4, dim, 1, 0}); }, function,
            "output_dim");
  }
  refusal([&] { materialize<float>(SparseProjection{Index{1} << 31, 4, 1e-9, 0}); }, block,
          "columns");
  refusal([&] { materialize<float>(SparseProjection{1 << 20, 1 << 20, 0.5, 0}); }, block,
          "columns");
  refusal([] { pseudo_inverse<float>(SparseProjection{4, 4, 2.0, 0}); },
          "projection::pseudo_inverse", "density");
}

TEST(Materialize, BlockIsThatPartOfTheWhole) {
  const auto expect_blocks = [](const auto& r) {
    const Eigen::MatrixXd whole = materialize<double>(r).toDense();
    for (const Index first_row : {Index{0}, Index{1}, Index{63}, Index{64}, Index{70}})
      for (const Index rows : {Index{0}, Index{1}, Index{60}, r.output_dim - first_row})
        for (const Index first_column : {Index{0}, Index{1}, Index{29}})
          for (const Index columns : {Index{0}, Index{1}, r.input_dim - first_column}) {
            const Eigen::MatrixXd block =
                materialize_block<double>(r, first_row, rows, first_column, columns);
            ASSERT_EQ(block, whole.block(first_row, first_column, rows, columns))
                << first_row << ' ' << rows << ' ' << first_column << ' ' << columns;
          }
  };
  expect_blocks(pare::projection::achlioptas(30, 130, 3));
  expect_blocks(SparseSignProjection{30, 130, 9, 3});
}

TEST(Materialize, RefusesBlocksOutside) {
  const SparseProjection r = pare::projection::achlioptas(30, 130, 3);
  const Index most = std::numeric_limits<Index>::max();
  const auto expect_refused = [&](Index first, Index count, bool of_rows) {
    refusal(
        [&] {
          of_rows ? materialize_block<float>(r, first, count, 0, 1)
                  : materialize_block<float>(r, 0, 1, first, count);
        },
        "projection::materialize_block", of_rows ? "rows" : "columns");
  };
  for (const bool of_rows : {true, false}) {
    const Index size = of_rows ? 130 : 30;
    for (const auto& [first, count] : {std::pair<Index, Index>{-1, 5},
                                       {0, -1},
                                       {0, size + 1},
                                       {size, 1},
                                       {size + 1, 0},
                                       {1, most},
                                       {most, 1},
                                       {most, most}})
      expect_refused(first, count, of_rows);
  }
}

template <class B, class R>
Eigen::MatrixXd visited(const B& backend, const R& r, Index first, Index last) {
  Eigen::MatrixXd dense = Eigen::MatrixXd::Zero(r.output_dim, r.input_dim);
  Index column_before = -1, row_before = -1;
  const pare::projection::Nonzeros nonzeros(r);
  nonzeros.visit(backend, first, last, [&](Index column, Index row, bool negative) {
    EXPECT_TRUE(column > column_before || (column == column_before && row > row_before));
    column_before = column;
    row_before = row;
    dense(row, column) += negative ? -r.entry_scale() : r.entry_scale();
  });
  return dense;
}

template <class R>
void expect_nonzeros(const R& r) {
  const Eigen::MatrixXd wanted = materialize<double>(r).toDense();
  EXPECT_EQ(visited(pare::simd, r, 0, r.input_dim), wanted);
  EXPECT_EQ(visited(pare::reference, r, 0, r.input_dim), wanted);
  Eigen::MatrixXd part = wanted;
  part.leftCols(3).setZero();
  part.rightCols(r.input_dim - 7).setZero();
  EXPECT_EQ(visited(pare::simd, r, 3, 7), part);
  EXPECT_EQ(visited(pare::reference, r, 3, 7), part);
  EXPECT_EQ(visited(pare::simd, r, 5, 5).norm(), 0);
}

TEST(Nonzeros, AreThoseOfTheMatrix) {
  expect_nonzeros(SparseProjection{.input_dim = 90, .output_dim = 70, .density = 0.2, .seed = 3});
  expect_nonzeros(
      SparseSignProjection{.input_dim = 50, .output_dim = 24, .nonzeros = 4, .seed = 4});
}

TEST(Nonzeros, RefuseAnOperatorOutOfRange) {
  refusal([] { pare::projection::Nonzeros(SparseProjection{.input_dim = 0, .output_dim = 3}); },
          "projection::Nonzeros", "input_dim");
}

template <class B>
void expect_signs(const B& backend) {
  const SparseProjection r{.input_dim = 33, .output_dim = 21, .density = 0.3, .seed = 6};
  const auto x = pare::testing::integer_matrix<Eigen::MatrixXf>(9, 33, 7);
  const Eigen::MatrixXd signs = materialize<double>(r).toDense() / r.entry_scale();
  const Eigen::MatrixXd wanted =
      0.25 *
      (x.cast<double>() * signs.unaryExpr([](double s) { return std::round(s); }).transpose());
  Eigen::MatrixXf y = Eigen::MatrixXf::Constant(9, 21, 5.0f);
  pare::projection::project_signs(backend, x, r, 0.25, y);
  EXPECT_EQ(y.cast<double>(), wanted);
  Eigen::MatrixXf narrow(9, 20), before = narrow.setConstant(4);
  refusal([&] { pare::projection::project_signs(backend, x, r, 0.25, narrow); },
          "projection::project_signs", "y");
  EXPECT_EQ(narrow, before);
}

// Sums of small integers times a power of two are exact.
TEST(ProjectSigns, HasTheCallersValueForEveryNonzero) {
  expect_signs(pare::reference);
  expect_signs(pare::simd.threads(2));
}

}  // namespace
}  // namespace projection_materialize_test
