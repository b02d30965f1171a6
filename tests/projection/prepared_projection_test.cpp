// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <pare/projection/prepared_projection.hpp>
#include <pare/projection/project.hpp>

#include "support/allocations.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace projection_prepared_projection_test {
namespace {

using pare::Index;
using pare::Workspace;
using pare::projection::PreparedProjection;
using pare::projection::project;
using pare::projection::SparseProjection;
using pare::projection::SparseSignProjection;
using pare::testing::allocations;
using pare::testing::equal_bits;
using pare::testing::ragged_sparse;
using pare::testing::random_matrix;
using pare::testing::sparse_of;

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class Case>
struct PreparedTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(PreparedTest, pare::testing::BackendsAndScalars);

/// Every form of X, with all columns kept, some and none: what `project` gives with the operator.
template <class T, class Backend, class R>
void expect_same_bits(const Backend& backend, const R& r) {
  for (const Index bytes : {Index{0}, Index{3} << 14, Index{1} << 30}) {
    const PreparedProjection prepared(backend, r, {.bytes = bytes});
    const auto expect = [&](const auto& x, const char* what) {
      Rows<T> wanted(x.rows(), r.output_dim), y = Rows<T>::Constant(x.rows(), r.output_dim, T(9));
      project(backend, x, r, wanted);
      project(backend, x, prepared, y);
      EXPECT_TRUE(equal_bits(y, wanted)) << what << ", " << prepared.columns() << " columns";
    };
    const auto raw = ragged_sparse<T>(30, r.input_dim, 5, 2, pare::testing::uniform, 20);
    expect(raw.map(), "sparse rows");
    expect(sparse_of<Eigen::SparseMatrix<T, Eigen::ColMajor>>(raw.dense()), "sparse columns");
    expect(Eigen::SparseMatrix<T, Eigen::RowMajor>(0, r.input_dim), "no row");
    for (const Index rows : {0, 1, 16, 17})
      expect(random_matrix<Rows<T>>(rows, r.input_dim, 3), "dense rows");
    expect(
        Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>(random_matrix<Rows<T>>(3, r.input_dim, 3)),
        "dense columns");
  }
}

TYPED_TEST(PreparedTest, TheBitsOfTheOperatorItself) {
  using T = typename TypeParam::scalar;
  expect_same_bits<T>(this->backend(), SparseProjection{3500, 70, 0.1, 1});
  expect_same_bits<T>(this->backend(), SparseSignProjection{2100, 40, 5, 2});
  expect_same_bits<T>(this->backend(), SparseSignProjection{9, 40000, 11, 2});
  expect_same_bits<T>(this->backend(), SparseProjection{1, 1, 1.0, 3});
}

TEST(Prepared, SixteenBitRows) {
  const SparseProjection r{.input_dim = 1500, .output_dim = 33, .density = 0.2, .seed = 3};
  const PreparedProjection prepared(r);
  const auto x = random_matrix<Rows<float>>(4, 1500, 3).template cast<Eigen::bfloat16>().eval();
  Rows<float> wanted(4, 33), y(4, 33);
  project(x, r, wanted);
  project(x, prepared, y);
  EXPECT_TRUE(equal_bits(y, wanted));
}

TEST(Prepared, KeepsWhatFits) {
  const SparseSignProjection r{.input_dim = 100'000, .output_dim = 256, .nonzeros = 8, .seed = 1};
  EXPECT_EQ(PreparedProjection(r, {.bytes = 0}).columns(), 0);
  EXPECT_EQ(PreparedProjection(r, {.bytes = 0}).bytes(), 0);
  Index before = -1;
  for (const Index bytes : {Index{20'000}, Index{30'000}, Index{1'000'000}, Index{1'900'000}}) {
    const PreparedProjection prepared(pare::simd.threads(2), r, {.bytes = bytes});
    EXPECT_LE(prepared.bytes(), bytes);
    EXPECT_GE(prepared.bytes(), bytes - 3 * 1024 * 20 / 2) << "a list of columns less, at most";
    EXPECT_GT(prepared.columns(), before);
    before = prepared.columns();
  }
  EXPECT_EQ(PreparedProjection(r).columns(), 100'000);
  EXPECT_EQ(PreparedProjection(pare::reference, r).columns(), 0);
  EXPECT_EQ(PreparedProjection(r).random_operator().nonzeros, 8);
  // Eight lists take 64225 bytes on average, and their places 544: an estimate alone would go over.
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const SparseProjection random{50'000, 64, 0.03, seed};
    const PreparedProjection prepared(random, {.bytes = 64'500});
    EXPECT_LE(prepared.bytes(), 64'500);
    EXPECT_GE(prepared.columns(), 7 * 1024);
  }
}

// Hashed features behind the columns that are kept, in no order.
TEST(Prepared, AnyWidth) {
  constexpr auto widest = std::numeric_limits<std::int64_t>::max();
  const SparseProjection r{.input_dim = widest, .output_dim = 64, .density = 0.25, .seed = 9};
  const PreparedProjection prepared(r, {.bytes = 1 << 17});
  ASSERT_GE(prepared.columns(), 1024);
  const std::vector<std::int64_t> outer{0, 5}, inner{widest - 1, 0, std::int64_t{1} << 40, 5, 7};
  const std::vector<float> values{0.1f, 0.2f, -0.3f, 0.4f, 0.5f};
  const Eigen::Map<const Eigen::SparseMatrix<float, Eigen::RowMajor, std::int64_t>> x(
      1, widest, 5, outer.data(), inner.data(), values.data());
  Rows<float> wanted(1, 64), y(1, 64);
  project(x, r, wanted);
  project(x, prepared, y);
  EXPECT_TRUE(equal_bits(y, wanted));
}

TEST(Prepared, SameBitsForEveryExecutor) {
  const SparseProjection r = pare::projection::achlioptas(3000, 130, 9);
  const auto x = ragged_sparse<float>(200, 3000, 5, 0, pare::testing::uniform, 40);
  const PreparedProjection prepared(pare::simd.threads(3), r, {.bytes = 1 << 18});
  ASSERT_GT(prepared.columns(), 0);
  ASSERT_LT(prepared.columns(), 3000);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    Rows<float> out(200, 130);
    project(backend, x.map(), prepared, out);
    return out;
  });
}

TEST(Prepared, SeveralThreadsProjectAtOnce) {
  const SparseProjection r = pare::projection::achlioptas(3000, 130, 9);
  const PreparedProjection prepared(r, {.bytes = 1 << 18});
  const auto x = ragged_sparse<float>(40, 3000, 5, 0, pare::testing::uniform, 40);
  Rows<float> wanted(40, 130);
  project(x.map(), r, wanted);
  std::vector<Rows<float>> y(3, Rows<float>(40, 130));
  std::vector<std::thread> threads;
  for (auto& out : y) threads.emplace_back([&] { project(x.map(), prepared, out); });
  for (auto& thread : threads) thread.join();
  for (const auto& out : y) EXPECT_TRUE(equal_bits(out, wanted));
}

TEST(Prepared, TheSecondCallAllocatesNothing) {
  const SparseProjection r = pare::projection::achlioptas(3000, 130, 9);
  const PreparedProjection prepared(r, {.bytes = 1 << 18});
  const auto x = ragged_sparse<float>(40, 3000, 5, 0, pare::testing::uniform, 40);
  const Rows<float> dense = random_matrix<Rows<float>>(2, 3000, 1);
  Rows<float> y(40, 130), dense_y(2, 130);
  Workspace workspace;
  const auto call = [&] {
    project(pare::simd.with(workspace), x.map(), prepared, y);
    project(pare::simd.with(workspace), dense, prepared, dense_y);
  };
  call();
  const long before = allocations.load();
  call();
  EXPECT_EQ(allocations.load(), before);
}

template <class Call>
void expect_refused(const Call& call, const std::string& argument) {
  try {
    call();
    FAIL() << "no exception for " << argument;
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find(argument), std::string::npos) << error.what();
  }
}

TEST(Prepared, RefusesWhatDoesNotFit) {
  const SparseProjection r = pare::projection::achlioptas(30, 13, 9);
  expect_refused([&] { PreparedProjection(r, {.bytes = -1}); }, "bytes");
  expect_refused([&] { PreparedProjection(SparseProjection{30, 0, 0.5, 1}); }, "output_dim");
  expect_refused([&] { PreparedProjection(SparseProjection{30, 5, 1.5, 1}); }, "density");
  const PreparedProjection prepared(r);
  Rows<float> y = Rows<float>::Constant(4, 13, 7.0f), narrow = Rows<float>::Constant(4, 12, 7.0f);
  const Rows<float> x = Rows<float>::Ones(4, 30), wide = Rows<float>::Ones(4, 31);
  const auto sparse = ragged_sparse<float>(4, 30, 5, 0, pare::testing::uniform);
  auto outside = sparse;
  outside.inner.back() = 30;
  expect_refused([&] { project(wide, prepared, y); }, "x");
  expect_refused([&] { project(x, prepared, narrow); }, "y");
  expect_refused([&] { project(sparse.map(), prepared, narrow); }, "y");
  expect_refused([&] { project(outside.map(), prepared, y); }, "x");
  EXPECT_TRUE((y.array() == 7.0f).all() && (narrow.array() == 7.0f).all());
}

}  // namespace
}  // namespace projection_prepared_projection_test
