// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <pare/feature/fields/sparse_fields.hpp>

#include "feature/batches.hpp"
#include "support/matrices.hpp"

namespace feature_sparse_fields_test {
namespace {

using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::RowVectorXd;
using pare::Index;
using pare::feature::SparseFields;
using pare::feature::to_sparse;

template <class T>
struct SparseFieldsTest : testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(SparseFieldsTest, Scalars);

constexpr Index rows = 41;
const FieldLayout layout({1, 3, 8, 64, 1});

template <class T>
RowVectorXd some_defaults() {
  return normal_batch<T>(1, layout.dim(), 11);
}

template <class T>
std::vector<T> scalars_of(const RowVectorXd& v) {
  std::vector<T> scalars;
  for (const double x : v) scalars.push_back(static_cast<T>(x));
  return scalars;
}

/// Defaults but for every third row or so of each field: there all, or only the last, scalars are
/// others. The last field has no such row.
template <class T>
MatrixXd mostly(const RowVectorXd& defaults) {
  const MatrixXd values = normal_batch<T>(rows, layout.dim(), 12);
  MatrixXd m = defaults.replicate(rows, 1);
  Engine random(13);
  for (Index j = 0; j + 1 < layout.fields(); ++j)
    for (Index b = 0; b < rows; ++b) {
      const std::uint64_t draw = random() % 6;
      if (draw == 0)
        m.block(b, layout.offset(j), 1, layout.width(j)) =
            values.block(b, layout.offset(j), 1, layout.width(j));
      if (draw == 1) m(b, layout.offset(j + 1) - 1) = values(b, layout.offset(j));
    }
  return m;
}

/// Rows, values and defaults are those of a dense matrix, NaN being no default.
template <class T>
void expect_entries_of(const SparseFields<T>& sparse, const MatrixXd& dense,
                       const RowVectorXd& defaults) {
  ASSERT_EQ(sparse.layout(), layout);
  ASSERT_EQ(sparse.rows(), dense.rows());
  Index entries = 0;
  for (Index j = 0; j < layout.fields(); ++j) {
    std::vector<std::uint32_t> active;
    const auto own = dense.middleCols(layout.offset(j), layout.width(j));
    for (Index b = 0; b < dense.rows(); ++b)
      if (own.row(b) != defaults.segment(layout.offset(j), layout.width(j)))
        active.push_back(static_cast<std::uint32_t>(b));
    const auto got = sparse.rows_of(j);
    ASSERT_EQ(std::vector<std::uint32_t>(got.begin(), got.end()), active) << j;
    ASSERT_EQ(sparse.entries(j), static_cast<Index>(active.size()));
    entries += sparse.entries(j);
    ASSERT_EQ(sparse.values(j).rows(), sparse.entries(j));
    ASSERT_EQ(sparse.values(j).cols(), layout.width(j));
    for (Index i = 0; i < sparse.entries(j); ++i)
      for (Index c = 0; c < layout.width(j); ++c) {
        const T wanted = static_cast<T>(own(active[static_cast<std::size_t>(i)], c));
        EXPECT_TRUE(same_bits(sparse.values(j)(i, c), wanted)) << j << ' ' << i << ' ' << c;
      }
  }
  EXPECT_EQ(sparse.entries(), entries);
  ASSERT_EQ(static_cast<Index>(sparse.defaults().size()), defaults.size());
  for (Index c = 0; c < defaults.size(); ++c)
    EXPECT_EQ(static_cast<double>(sparse.defaults()[static_cast<std::size_t>(c)]), defaults[c]);
}

TYPED_TEST(SparseFieldsTest, RowsOfADenseBatchThatDifferFromTheDefaultsAreKept) {
  for (const RowVectorXd& defaults :
       {RowVectorXd(RowVectorXd::Zero(layout.dim())), some_defaults<TypeParam>()})
    for (const Storage storage : storages) {
      OwnedBatch<TypeParam> x(layout, rows, storage);
      const MatrixXd exact = mostly<TypeParam>(defaults);
      x.set(exact);
      const auto sparse = to_sparse(layout, x.batch(), scalars_of<TypeParam>(defaults));
      expect_entries_of(sparse, exact, defaults);
      EXPECT_EQ(sparse.entries(4), 0);
      EXPECT_GT(sparse.entries(3), 0);
      EXPECT_LT(sparse.entries(3), rows);
    }
}

TYPED_TEST(SparseFieldsTest, WithoutDefaultsTheyAreZeroAndMatricesAreTakenAsTheyAre) {
  const RowVectorXd zero = RowVectorXd::Zero(layout.dim());
  const MatrixXd exact = mostly<TypeParam>(zero);
  const Eigen::Matrix<TypeParam, -1, -1> columns = exact.cast<TypeParam>();
  const Eigen::Matrix<TypeParam, -1, -1, Eigen::RowMajor> lines = exact.cast<TypeParam>();
  expect_entries_of(to_sparse(layout, columns), exact, zero);
  expect_entries_of(to_sparse(layout, lines), exact, zero);
}

TYPED_TEST(SparseFieldsTest, ANanIsKeptWhereverItStands) {
  const RowVectorXd defaults = some_defaults<TypeParam>();
  MatrixXd exact = defaults.replicate(rows, 1);
  exact(7, layout.offset(0)) = std::numeric_limits<double>::quiet_NaN();
  exact(9, layout.offset(2) + 5) = std::numeric_limits<double>::quiet_NaN();
  for (const Storage storage : storages) {
    OwnedBatch<TypeParam> x(layout, rows, storage), back(layout, rows, storage);
    x.set(exact);
    const auto sparse = to_sparse(layout, x.batch(), scalars_of<TypeParam>(defaults));
    ASSERT_EQ(sparse.entries(), 2);
    ASSERT_EQ(sparse.rows_of(0).size(), 1u);
    ASSERT_EQ(sparse.rows_of(2).size(), 1u);
    EXPECT_EQ(sparse.rows_of(0)[0], 7u);
    EXPECT_EQ(sparse.rows_of(2)[0], 9u);
    EXPECT_TRUE(std::isnan(sparse.values(0)(0, 0)));
    EXPECT_TRUE(std::isnan(sparse.values(2)(0, 5)));
    EXPECT_EQ(static_cast<double>(sparse.values(2)(0, 4)), defaults[layout.offset(2) + 4]);
    to_dense(sparse, back.batch());
    EXPECT_EQ(back.get().array().isNaN().count(), 2);
    EXPECT_TRUE(std::isnan(back.get()(9, layout.offset(2) + 5)));
  }
}

TYPED_TEST(SparseFieldsTest, ThereAndBackAgainIsTheSameBatch) {
  for (const Storage from : storages)
    for (const Storage to : storages) {
      const RowVectorXd defaults = some_defaults<TypeParam>();
      const MatrixXd exact = mostly<TypeParam>(defaults);
      OwnedBatch<TypeParam> x(layout, rows, from), back(layout, rows, to);
      x.set(exact);
      to_dense(to_sparse(layout, x.batch(), scalars_of<TypeParam>(defaults)), back.batch());
      EXPECT_EQ(back.get(), exact);
      EXPECT_EQ(back.untouched(), back.gaps());
    }
}

TYPED_TEST(SparseFieldsTest, EveryRowOrNoneMayBeAnEntry) {
  const RowVectorXd zero = RowVectorXd::Zero(layout.dim());
  const MatrixXd full = normal_batch<TypeParam>(rows, layout.dim(), 1);
  OwnedBatch<TypeParam> x(layout, rows, Storage::RowMajor);
  x.set(full);
  const auto all = to_sparse(layout, x.batch());
  expect_entries_of(all, full, zero);
  EXPECT_EQ(all.entries(), rows * layout.fields());
  x.set(MatrixXd::Zero(rows, layout.dim()));
  EXPECT_EQ(to_sparse(layout, x.batch()).entries(), 0);
  OwnedBatch<TypeParam> none(layout, 0, Storage::FieldBlocked);
  const auto empty = to_sparse(layout, none.batch());
  EXPECT_EQ(empty.rows(), 0);
  EXPECT_EQ(empty.entries(), 0);
}

/// Entries in no order, some twice, with places of no use between the lines. Values are small
/// integers, whose sums are exact.
template <class T, int Order, class I>
void expect_taken_from_eigen(Index gap) {
  constexpr bool by_rows = Order == Eigen::RowMajor;
  const auto value = [](Engine& random) { return static_cast<double>(1 + random() % 8); };
  const auto raw = by_rows ? ragged_sparse<T, I>(rows, layout.dim(), 3, gap, value, 30)
                           : ragged_sparse<T, I>(layout.dim(), rows, 3, gap, value, 5);
  // Lines that are read as columns make the transpose.
  const Eigen::Map<const Eigen::SparseMatrix<T, Order, I>> map(
      rows, layout.dim(), static_cast<Index>(raw.values.size()), raw.outer.data(), raw.inner.data(),
      raw.values.data(), raw.lengths.empty() ? nullptr : raw.lengths.data());
  ASSERT_EQ(map.isCompressed(), gap == 0);
  const MatrixXd dense = raw.dense();
  expect_entries_of(to_sparse(layout, map), by_rows ? dense : MatrixXd(dense.transpose()),
                    RowVectorXd::Zero(layout.dim()));
}

TYPED_TEST(SparseFieldsTest, EigensSparseMatricesAreTakenInBothOrdersWithDuplicatesAdded) {
  for (const Index gap : {0, 2}) {
    expect_taken_from_eigen<TypeParam, Eigen::RowMajor, std::int32_t>(gap);
    expect_taken_from_eigen<TypeParam, Eigen::ColMajor, std::int32_t>(gap);
    expect_taken_from_eigen<TypeParam, Eigen::RowMajor, std::int64_t>(gap);
    expect_taken_from_eigen<TypeParam, Eigen::ColMajor, std::int64_t>(gap);
  }
}

/// A stored 0 says that the row is there: an embedding that has shrunk to 0 keeps its gradient.
TYPED_TEST(SparseFieldsTest, AStoredZeroIsAnEntry) {
  Eigen::SparseMatrix<TypeParam, Eigen::RowMajor> x(rows, layout.dim());
  x.insert(5, layout.offset(1) + 2) = TypeParam(0);
  x.insert(5, layout.offset(3)) = TypeParam(4);
  const auto sparse = to_sparse(layout, x);
  EXPECT_EQ(sparse.entries(), 2);
  ASSERT_EQ(sparse.entries(1), 1);
  EXPECT_EQ(sparse.rows_of(1)[0], 5u);
  EXPECT_EQ(sparse.values(1)(0, 2), TypeParam(0));
  EXPECT_EQ(sparse.values(3)(0, 0), TypeParam(4));
  EXPECT_EQ(sparse.values(3)(0, 63), TypeParam(0));
}

TYPED_TEST(SparseFieldsTest, EntriesAreWrittenAndReadAndTheOtherRowsStay) {
  const RowVectorXd zero = RowVectorXd::Zero(layout.dim());
  const MatrixXd exact = mostly<TypeParam>(zero);
  for (const Storage storage : storages) {
    OwnedBatch<TypeParam> x(layout, rows, storage), other(layout, rows, storage);
    x.set(exact);
    const auto sparse = to_sparse(layout, x.batch());
    MatrixXd wanted = normal_batch<TypeParam>(rows, layout.dim(), 5);
    const MatrixXd before = wanted;
    other.set(before);
    auto read = sparse;
    read_entries(other.read(), read);
    write_entries(sparse, other.batch());
    EXPECT_TRUE(read.same_pattern(sparse));
    for (Index j = 0; j < layout.fields(); ++j)
      for (Index i = 0; i < sparse.entries(j); ++i) {
        const Index b = sparse.rows_of(j)[static_cast<std::size_t>(i)];
        for (Index c = 0; c < layout.width(j); ++c) {
          const Index column = layout.offset(j) + c;
          EXPECT_EQ(static_cast<double>(read.values(j)(i, c)), before(b, column));
          wanted(b, column) = exact(b, column);
        }
      }
    EXPECT_EQ(other.get(), wanted);
    EXPECT_NE(wanted, before);
    EXPECT_EQ(other.untouched(), other.gaps());
  }
}

TEST(SparseFields, BatchesAreFilledFieldByFieldAndAgain) {
  const FieldLayout pair({2, 1});
  SparseFields<double> x(pair, 6);
  EXPECT_EQ(x.entries(), 0);
  EXPECT_EQ(x.capacity(0), 0);
  EXPECT_EQ(x.defaults().size(), 3u);
  EXPECT_EQ(x.defaults()[2], 0);
  x.defaults()[2] = 9;
  x.reserve({4, 2});
  EXPECT_EQ(x.capacity(0), 4);
  EXPECT_EQ(x.capacity(1), 2);
  EXPECT_EQ(x.entries(), 0);
  x.set_rows(1, std::vector<std::uint32_t>{0, 5});
  x.values(1)(0, 0) = 3;
  x.values(1)(1, 0) = 4;
  x.set_rows(0, std::vector<std::uint32_t>{1, 2, 4});
  for (Index i = 0; i < 3; ++i)
    for (Index c = 0; c < 2; ++c) x.values(0)(i, c) = static_cast<double>(10 * i + c);
  MatrixXd wanted(6, 3), got(6, 3);
  wanted << 0, 0, 3, 0, 1, 9, 10, 11, 9, 0, 0, 9, 20, 21, 9, 0, 0, 4;
  to_dense(x, field_batch(pair, got));
  EXPECT_EQ(got, wanted);
  // Fewer rows keep the first values; a new reservation forgets them all, and keeps defaults.
  x.set_rows(0, std::vector<std::uint32_t>{3});
  EXPECT_EQ(x.entries(0), 1);
  EXPECT_EQ(x.entries(), 3);
  EXPECT_EQ(x.values(0)(0, 1), 1);
  x.reserve({0, 6});
  EXPECT_EQ(x.entries(), 0);
  EXPECT_EQ(x.defaults()[2], 9);
}

TEST(SparseFields, PatternsAreTheSameWhereRowsLayoutAndEntriesAre) {
  const FieldLayout pair({2, 1});
  const std::vector<std::uint32_t> some{1, 4};
  const auto make = [&](const FieldLayout& of, Index count, std::vector<std::uint32_t> first,
                        std::vector<Index> room) {
    SparseFields<float> x(of, count);
    x.reserve(room);
    x.set_rows(0, first);
    for (Index i = 0; i < x.entries(0); ++i)
      for (Index c = 0; c < of.width(0); ++c) x.values(0)(i, c) = 1;
    return x;
  };
  const auto x = make(pair, 6, some, {2, 0});
  EXPECT_TRUE(x.same_pattern(x));
  EXPECT_TRUE(x.same_pattern(make(pair, 6, some, {5, 3}))) << "room does not count";
  EXPECT_FALSE(x.same_pattern(make(pair, 7, some, {2, 0})));
  EXPECT_FALSE(x.same_pattern(make(pair, 6, {1, 3}, {2, 0})));
  EXPECT_FALSE(x.same_pattern(make(pair, 6, {1}, {2, 0})));
  EXPECT_FALSE(x.same_pattern(make(pair, 6, {1, 4, 5}, {3, 0})));
  EXPECT_FALSE(x.same_pattern(make(FieldLayout({1, 2}), 6, some, {2, 0})));
  EXPECT_FALSE(x.same_pattern(make(FieldLayout({2, 1}, {0, 0}), 6, some, {2, 0})));
  SparseFields<float> other(FieldLayout({1}), 3);
  auto shifted = make(pair, 6, some, {4, 2});
  shifted.defaults()[1] = 5;
  other.assume_pattern(shifted);
  EXPECT_TRUE(other.same_pattern(x));
  EXPECT_EQ(other.capacity(0), 4);
  EXPECT_EQ(other.defaults()[1], 5);
  EXPECT_EQ(other.values(0).rows(), 2);
}

/// A batch with an entry each, and what it is as a dense one.
SparseFields<double> small_batch() {
  SparseFields<double> x(FieldLayout({2, 1}), 6);
  x.reserve({2, 3});
  x.set_rows(0, std::vector<std::uint32_t>{4});
  x.set_rows(1, std::vector<std::uint32_t>{1, 2});
  x.values(0)(0, 0) = x.values(0)(0, 1) = x.values(1)(0, 0) = x.values(1)(1, 0) = 2;
  return x;
}

MatrixXd dense_of(const SparseFields<double>& x) {
  MatrixXd m(x.rows(), x.layout().dim());
  to_dense(x, field_batch(x.layout(), m));
  return m;
}

TEST(SparseFields, RowsThatAreNotAFieldsAreRefusedAndNothingChanges) {
  SparseFields<double> x = small_batch();
  const SparseFields<double> before = x;
  const auto expect = [&](Index j, const std::vector<std::uint32_t>& list, const char* argument) {
    refusal([&] { x.set_rows(j, list); }, "feature::SparseFields::set_rows", argument);
    EXPECT_TRUE(x.same_pattern(before));
    EXPECT_EQ(dense_of(x), dense_of(before));
  };
  expect(-1, {0}, "j");
  expect(2, {0}, "j");
  expect(0, {0, 1, 2}, "rows");
  expect(0, {6}, "rows");
  expect(0, {0, 6}, "rows");
  expect(0, {0xffffffffu}, "rows");
  expect(1, {2, 1}, "rows");
  expect(1, {0, 3, 3}, "rows");
}

TEST(SparseFields, RoomThatNoFieldHasIsRefusedAndNothingChanges) {
  SparseFields<double> x = small_batch();
  const SparseFields<double> before = x;
  const std::vector<std::vector<Index>> bad{{}, {1}, {1, 1, 1}, {-1, 1}, {7, 1}, {1, 7}};
  for (const auto& capacities : bad) {
    refusal([&] { x.reserve(capacities); }, "feature::SparseFields::reserve", "capacities");
    EXPECT_TRUE(x.same_pattern(before));
    EXPECT_EQ(x.capacity(0), 2);
    EXPECT_EQ(x.capacity(1), 3);
    EXPECT_EQ(dense_of(x), dense_of(before));
  }
}

TEST(SparseFields, BatchesWithoutFieldsOrWithBadRowsAreRefused) {
  refusal([] { SparseFields<float>(FieldLayout(), 3); }, "feature::SparseFields", "layout");
  refusal([] { SparseFields<float>(FieldLayout({Index{1} << 62}), 3); }, "feature::SparseFields",
          "layout");
  refusal([] { SparseFields<float>(FieldLayout({1}), -1); }, "feature::SparseFields", "rows");
  refusal([] { SparseFields<float>(FieldLayout({1}), Index{1} << 32); }, "feature::SparseFields",
          "rows");
  EXPECT_EQ(SparseFields<float>(FieldLayout({1}), 0).entries(), 0);
}

TEST(SparseFields, WhatIsNoFieldIsRefused) {
  SparseFields<float> empty, some(FieldLayout({1, 3}), 5);
  for (SparseFields<float>* x : {&empty, &some})
    for (const Index j : {Index{-1}, x->layout().fields()}) {
      refusal([&] { x->entries(j); }, "feature::SparseFields::entries", "j");
      refusal([&] { x->capacity(j); }, "feature::SparseFields::capacity", "j");
      refusal([&] { x->rows_of(j); }, "feature::SparseFields::rows_of", "j");
      refusal([&] { x->values(j); }, "feature::SparseFields::values", "j");
      refusal([&] { std::as_const(*x).values(j); }, "feature::SparseFields::values", "j");
    }
  EXPECT_EQ(empty.entries(), 0);
}

TEST(SparseFields, ConversionsRefuseOtherShapes) {
  const MatrixXd x = MatrixXd::Ones(4, 3), wide = MatrixXd::Ones(4, 4);
  const FieldLayout pair({2, 1});
  refusal([&] { to_sparse(pair, wide); }, "feature::to_sparse", "x");
  for (const std::size_t count : {1u, 2u, 4u})
    refusal([&] { to_sparse(pair, x, std::vector<double>(count, 1.0)); }, "feature::to_sparse",
            "defaults");
  const FieldLayout other({1, 2});
  refusal([&] { to_sparse(pair, field_batch(other, x)); }, "feature::to_sparse", "x");
  refusal([&] { to_sparse(pair, Eigen::SparseMatrix<double>(4, 2)); }, "feature::to_sparse", "x");
  refusal([&] { to_sparse(pair, Eigen::SparseMatrix<float, Eigen::RowMajor>(4, 4)); },
          "feature::to_sparse", "x");
}

TEST(SparseFields, DamagedStorageIsRefused) {
  const auto sound = ragged_sparse<float>(5, 3, 3, 0, [](Engine& r) { return uniform(r); });
  const FieldLayout pair({2, 1});
  EXPECT_EQ(to_sparse(pair, sound.map()).rows(), 5);
  auto beyond = sound, below = sound, falling = sound;
  beyond.inner.back() = 3;
  below.inner.back() = -1;
  falling.outer[3] = falling.outer[2] - 1;
  for (const auto& bad : {beyond, below, falling})
    refusal([&] { to_sparse(pair, bad.map()); }, "feature::to_sparse", "x");
}

TEST(SparseFields, DenseBatchesOfOtherShapesAreRefusedAndNothingIsWritten) {
  SparseFields<double> x = small_batch();
  const SparseFields<double> before = x;
  const FieldLayout other({1, 2}), grouped({2, 1}, {0, 0});
  MatrixXd dense = MatrixXd::Constant(6, 3, 7), few = MatrixXd::Constant(5, 3, 7);
  const auto expect = [&](const FieldBatch<double>& bad) {
    refusal([&] { write_entries(x, bad); }, "feature::write_entries", "dense");
    refusal([&] { to_dense(x, bad); }, "feature::to_dense", "dense");
    refusal([&] { read_entries(FieldBatch<const double>(bad), x); }, "feature::read_entries",
            "dense");
    EXPECT_EQ(dense_of(x), dense_of(before));
  };
  expect(field_batch(other, dense));
  expect(field_batch(grouped, dense));
  expect(field_batch(x.layout(), few));
  expect(FieldBatch<double>{});
  // Rows that overlap can be read, not written.
  const FieldBatch<double> overlapping{dense.data(), 6, &x.layout(),
                                       pare::feature::Storage::RowMajor, 2};
  refusal([&] { write_entries(x, overlapping); }, "feature::write_entries", "dense");
  refusal([&] { to_dense(x, overlapping); }, "feature::to_dense", "dense");
  EXPECT_NO_THROW(read_entries(FieldBatch<const double>(overlapping), x));
  EXPECT_TRUE((dense.array() == 7).all());
  EXPECT_TRUE((few.array() == 7).all());
}

}  // namespace
}  // namespace feature_sparse_fields_test
