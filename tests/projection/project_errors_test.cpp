// SPDX-License-Identifier: Apache-2.0
// What project, sketch and spmm refuse: the message names function and argument, and not a bit of
// the output changes.
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <pare/linalg/spmm.hpp>
#include <pare/projection/project.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"

namespace projection_project_errors_test {
namespace {

using pare::Index;
using pare::linalg::spmm;
using pare::projection::project;
using pare::projection::sketch;
using pare::projection::SparseProjection;
using pare::projection::SparseSignProjection;
using pare::testing::RawSparse;
using pare::testing::refusal;
using pare::testing::sparse_of;

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;

template <class Case>
struct ProjectErrorsTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(ProjectErrorsTest, pare::testing::BackendsAndScalars);

/// An output of known bits, which must be the same after each refusal.
template <class T>
struct Sentinel {
  Rows<T> matrix;
  Rows<T> before;

  Sentinel(Index rows, Index cols)
      : matrix(pare::testing::random_matrix<Rows<T>>(rows, cols, 31)), before(matrix) {}

  void expect_refused(const std::function<void()>& call, const std::string& function,
                      const std::string& argument) const {
    refusal(call, function, argument);
    EXPECT_TRUE(pare::testing::equal_bits(matrix, before)) << function << ' ' << argument;
  }
};

const std::string project_name = "projection::project";
const std::string sketch_name = "projection::sketch";
const std::string spmm_name = "linalg::spmm";

TYPED_TEST(ProjectErrorsTest, OperatorsOutOfRange) {
  using T = typename TypeParam::scalar;
  const auto backend = this->backend();
  Sentinel<T> y(5, 8);
  const Rows<T> x = Rows<T>::Ones(5, 10), a = Rows<T>::Ones(10, 5);
  const Eigen::SparseMatrix<T, Eigen::RowMajor> s(5, 10);
  Sentinel<T> b(8, 5);
  const auto expect_bad = [&](const auto& r, const std::string& argument) {
    y.expect_refused([&] { project(backend, x, r, y.matrix); }, project_name, argument);
    y.expect_refused([&] { project(backend, s, r, y.matrix); }, project_name, argument);
    b.expect_refused([&] { sketch(backend, r, a, b.matrix); }, sketch_name, argument);
    b.expect_refused(
        [&] { sketch(backend, r, Eigen::SparseMatrix<T, Eigen::ColMajor>(10, 5), b.matrix); },
        sketch_name, argument);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  for (const double density : {0.0, -0.5, 1.0000001, 3.0, nan, inf, -inf})
    expect_bad(SparseProjection{10, 8, density, 0}, "density");
  for (const Index dim : {Index{0}, Index{-1}, std::numeric_limits<Index>::min()}) {
    expect_bad(SparseProjection{dim, 8, {}, 0}, "input_dim");
    expect_bad(SparseProjection{10, dim, {}, 0}, "output_dim");
    expect_bad(SparseSignProjection{dim, 8, 2, 0}, "input_dim");
    expect_bad(SparseSignProjection{10, dim, 2, 0}, "output_dim");
    expect_bad(SparseSignProjection{10, 8, dim, 0}, "nonzeros");
  }
  expect_bad(SparseSignProjection{10, 8, 9, 0}, "nonzeros");
  expect_bad(SparseProjection{10, Index{1} << 31, {}, 0}, "output_dim");
  expect_bad(SparseSignProjection{10, Index{1} << 31, 2, 0}, "output_dim");
}

TYPED_TEST(ProjectErrorsTest, ShapesThatDoNotFit) {
  using T = typename TypeParam::scalar;
  const auto backend = this->backend();
  const SparseProjection r{10, 8, {}, 0};
  for (const auto& [rows, cols] :
       {std::pair<Index, Index>{4, 8}, {6, 8}, {5, 7}, {5, 9}, {8, 5}, {0, 8}}) {
    Sentinel<T> y(rows, cols);
    y.expect_refused([&] { project(backend, Rows<T>::Ones(5, 10).eval(), r, y.matrix); },
                     project_name, "y");
    y.expect_refused(
        [&] { project(backend, Eigen::SparseMatrix<T, Eigen::RowMajor>(5, 10), r, y.matrix); },
        project_name, "y");
    y.expect_refused(
        [&] { project(backend, Eigen::SparseMatrix<T, Eigen::ColMajor>(5, 10), r, y.matrix); },
        project_name, "y");
  }
  Sentinel<T> y(5, 8), b(8, 5);
  for (const Index cols : {0, 9, 11}) {
    y.expect_refused([&] { project(backend, Rows<T>::Ones(5, cols).eval(), r, y.matrix); },
                     project_name, "x");
    y.expect_refused(
        [&] { project(backend, Eigen::SparseMatrix<T, Eigen::RowMajor>(5, cols), r, y.matrix); },
        project_name, "x");
    b.expect_refused([&] { sketch(backend, r, Rows<T>::Ones(cols, 5).eval(), b.matrix); },
                     sketch_name, "a");
  }
  b.expect_refused([&] { sketch(backend, r, Rows<T>::Ones(10, 4).eval(), b.matrix); }, sketch_name,
                   "out");
}

TYPED_TEST(ProjectErrorsTest, OutputsThatCannotBeWritten) {
  using T = typename TypeParam::scalar;
  const auto backend = this->backend();
  const SparseProjection r{10, 8, {}, 0};
  const Rows<T> x = Rows<T>::Ones(5, 10);
  Sentinel<T> memory(20, 20);
  T* data = memory.matrix.data();
  Eigen::Map<Rows<T>, 0, Strides> one_row(data, 5, 8, Strides(0, 1));
  Eigen::Map<Rows<T>, 0, Strides> one_column(data, 5, 8, Strides(8, 0));
  memory.expect_refused([&] { project(backend, x, r, one_row); }, project_name, "y");
  memory.expect_refused([&] { project(backend, x, r, one_column); }, project_name, "y");
  // Overlap: the last element of x is the first of y.
  const Eigen::Map<const Rows<T>> overlapping(data, 5, 10);
  Eigen::Map<Rows<T>> y(data + 49, 5, 8);
  memory.expect_refused([&] { project(backend, overlapping, r, y); }, project_name, "y");
  Eigen::Map<Rows<T>> inside(data, 5, 8);
  memory.expect_refused([&] { project(backend, overlapping, r, inside); }, project_name, "y");
  Eigen::Map<Rows<T>> beside(data + 50, 5, 8);
  project(backend, overlapping, r, beside);
  EXPECT_FALSE(pare::testing::equal_bits(memory.matrix, memory.before)) << "neighbours are fine";
}

/// Faults of compressed storage that a map can carry.
template <class T, class I>
std::vector<RawSparse<T, I>> malformed() {
  RawSparse<T, I> good;
  good.rows = 5;
  good.cols = 10;
  good.outer = {0, 1, 3, 3, 4, 6};
  good.inner = {0, 2, 9, 4, 5, 6};
  good.values = {1, 2, 3, 4, 5, 6};
  std::vector<RawSparse<T, I>> bad;
  const auto add = [&](auto change) {
    bad.push_back(good);
    change(bad.back());
  };
  add([](auto& s) { s.inner[5] = 10; });
  add([](auto& s) { s.inner[0] = -1; });
  add([](auto& s) { s.inner[2] = std::numeric_limits<I>::max(); });
  add([](auto& s) { s.inner[2] = std::numeric_limits<I>::min(); });
  add([](auto& s) { s.outer[2] = 0; });
  add([](auto& s) { s.outer[0] = -1; });
  add([](auto& s) { s.outer[4] = 2; });
  add([](auto& s) { s.lengths = {1, -2, 0, 1, 2}; });
  add([](auto& s) { s.lengths = {1, 3, 0, 1, 2}; });
  return bad;
}

template <class T, class I, class Backend>
void expect_malformed_refused(const Backend& backend) {
  using Columns = Eigen::Map<const Eigen::SparseMatrix<T, Eigen::ColMajor, I>>;
  const Rows<T> dense = Rows<T>::Ones(10, 8);
  Sentinel<T> y(5, 8), b(8, 5), wide(10, 8);
  for (const auto& s : malformed<T, I>()) {
    y.expect_refused([&] { project(backend, s.map(), SparseProjection{10, 8, {}, 0}, y.matrix); },
                     project_name, "x");
    y.expect_refused([&] { spmm(backend, s.map(), dense, y.matrix); }, spmm_name, "a");
    const Columns columns(10, 5, 6, s.outer.data(), s.inner.data(), s.values.data(),
                          s.lengths.empty() ? nullptr : s.lengths.data());
    b.expect_refused([&] { sketch(backend, SparseProjection{10, 8, {}, 0}, columns, b.matrix); },
                     sketch_name, "x");
    wide.expect_refused(
        [&] { project(backend, columns, SparseProjection{5, 8, {}, 0}, wide.matrix); },
        project_name, "x");
  }
}

TYPED_TEST(ProjectErrorsTest, MalformedSparseStorage) {
  using T = typename TypeParam::scalar;
  expect_malformed_refused<T, std::int32_t>(this->backend());
  expect_malformed_refused<T, std::int64_t>(this->backend());
}

TYPED_TEST(ProjectErrorsTest, SpmmShapesStridesAndOverlap) {
  using T = typename TypeParam::scalar;
  const auto backend = this->backend();
  const Eigen::SparseMatrix<T, Eigen::RowMajor> a(5, 10);
  const Rows<T> b = Rows<T>::Ones(10, 8);
  Sentinel<T> c(5, 8);
  c.expect_refused([&] { spmm(backend, a, Rows<T>::Ones(9, 8).eval(), c.matrix); }, spmm_name, "b");
  c.expect_refused([&] { spmm(backend, a, Rows<T>::Ones(10, 7).eval(), c.matrix); }, spmm_name,
                   "c");
  Sentinel<T> tall(6, 8);
  tall.expect_refused([&] { spmm(backend, a, b, tall.matrix); }, spmm_name, "c");
  using Columns = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;
  c.expect_refused([&] { spmm(backend, a, Columns(b), c.matrix); }, spmm_name, "b");
  Columns by_columns = Columns::Constant(5, 8, T(3));
  refusal([&] { spmm(backend, a, b, by_columns); }, spmm_name, "c");
  EXPECT_TRUE((by_columns.array() == T(3)).all());
  Sentinel<T> memory(20, 20);
  Eigen::Map<Rows<T>, 0, Strides> one_row(memory.matrix.data(), 5, 8, Strides(0, 1));
  memory.expect_refused([&] { spmm(backend, a, b, one_row); }, spmm_name, "c");
  const Eigen::Map<const Rows<T>> input(memory.matrix.data(), 10, 8);
  Eigen::Map<Rows<T>> output(memory.matrix.data() + 79, 5, 8);
  memory.expect_refused([&] { spmm(backend, a, input, output); }, spmm_name, "c");
}

/// Calls f(name, memory) for the values, indices and offsets of `s`, as a matrix [rows x 8] that
/// begins at each.
template <class T, class F>
void for_each_array(RawSparse<T, std::int64_t>& s, Index rows, const F& f) {
  const auto view = [&](void* memory) {
    return pare::TensorView<T, 2>{static_cast<T*>(memory), {rows, 8}, {8, 1}};
  };
  f("values", view(s.values.data()));
  f("indices", view(s.inner.data()));
  f("offsets", view(s.outer.data()));
  f("lengths", view(s.lengths.data()));
}

/// Arrays long enough to be written over, of which a 5 x 10 matrix takes a few.
template <class T>
RawSparse<T, std::int64_t> roomy_sparse() {
  RawSparse<T, std::int64_t> s;
  s.rows = 5;
  s.cols = 10;
  s.outer = {0, 2, 3, 3, 4, 6};
  s.lengths = {1, 1, 0, 1, 2};
  s.inner = {0, 2, 9, 4, 5, 6};
  s.values = {1, 2, 3, 4, 5, 6};
  s.outer.resize(90);
  s.lengths.resize(90);
  s.inner.resize(90);
  s.values.resize(90);
  return s;
}

TYPED_TEST(ProjectErrorsTest, OutputsOverTheArraysOfASparseMatrix) {
  using T = typename TypeParam::scalar;
  using I = std::int64_t;
  const auto backend = this->backend();
  auto s = roomy_sparse<T>();
  const auto before = s;
  using ByColumns = Eigen::Map<const Eigen::SparseMatrix<T, Eigen::ColMajor, I>>;
  const auto columns = [&] {
    return ByColumns(10, 5, 6, s.outer.data(), s.inner.data(), s.values.data(), s.lengths.data());
  };
  const SparseProjection r{10, 8, {}, 0};
  const Rows<T> dense = Rows<T>::Ones(10, 8);
  for_each_array(s, 5, [&](const char* array, auto y) {
    SCOPED_TRACE(array);
    refusal([&] { project(backend, s.map(), r, y); }, project_name, "y");
    refusal([&] { spmm(backend, s.map(), dense, y); }, spmm_name, "c");
    refusal([&] { sketch(backend, r, columns(), transpose(y)); }, sketch_name, "y");
  });
  for_each_array(s, 10, [&](const char* array, auto y) {
    SCOPED_TRACE(array);
    const SparseProjection by_lines{5, 8, {}, 0};
    refusal([&] { project(backend, columns(), by_lines, y); }, project_name, "y");
    refusal([&] { sketch(backend, by_lines, s.map(), transpose(y)); }, sketch_name, "y");
  });
  EXPECT_TRUE(s.values == before.values && s.inner == before.inner && s.outer == before.outer &&
              s.lengths == before.lengths);
}

TYPED_TEST(ProjectErrorsTest, ViewsThatAreNone) {
  using T = typename TypeParam::scalar;
  using View = pare::TensorView<T, 2>;
  const auto backend = this->backend();
  const SparseProjection r{10, 8, {}, 0};
  Rows<T> x = Rows<T>::Ones(5, 10), a = x.transpose(), b = Rows<T>::Ones(10, 8);
  const auto s = sparse_of<Eigen::SparseMatrix<T, Eigen::RowMajor>>(x.template cast<double>());
  Sentinel<T> y(5, 8), out(8, 5);
  const View null_x{nullptr, {5, 10}, {10, 1}}, null_a{nullptr, {10, 5}, {5, 1}};
  const View null_b{nullptr, {10, 8}, {8, 1}};
  y.expect_refused([&] { project(backend, null_x, r, y.matrix); }, project_name, "x");
  y.expect_refused([&] { spmm(backend, s, null_b, y.matrix); }, spmm_name, "b");
  out.expect_refused([&] { sketch(backend, r, null_a, out.matrix); }, sketch_name, "a");
  const View null_y{nullptr, {5, 8}, {8, 1}}, null_out{nullptr, {8, 5}, {5, 1}};
  refusal([&] { project(backend, x, r, null_y); }, project_name, "y");
  refusal([&] { project(backend, s, r, null_y); }, project_name, "y");
  refusal([&] { spmm(backend, s, b, null_y); }, spmm_name, "c");
  refusal([&] { sketch(backend, r, a, null_out); }, sketch_name, "out");
  // Rows that overlap by one element, and extents below 0.
  Rows<T> memory = Rows<T>::Ones(40, 8);
  const View rows_overlap{memory.data(), {5, 8}, {7, 1}};
  refusal([&] { project(backend, x, r, rows_overlap); }, project_name, "y");
  refusal([&] { project(backend, s, r, rows_overlap); }, project_name, "y");
  refusal([&] { spmm(backend, s, b, rows_overlap); }, spmm_name, "c");
  const View negative_x{x.data(), {-5, 10}, {10, 1}}, negative_y{memory.data(), {-5, 8}, {8, 1}};
  refusal([&] { project(backend, negative_x, r, negative_y); }, project_name, "x");
  refusal([&] { sketch(backend, r, transpose(negative_x), transpose(negative_y)); }, sketch_name,
          "a");
  const View negative_b{b.data(), {10, -8}, {8, 1}}, negative_c{memory.data(), {5, -8}, {8, 1}};
  refusal([&] { spmm(backend, s, negative_b, negative_c); }, spmm_name, "b");
  EXPECT_TRUE((memory.array() == T(1)).all());
}

TYPED_TEST(ProjectErrorsTest, SparseMatricesWithoutArrays) {
  using T = typename TypeParam::scalar;
  using Map = Eigen::Map<const Eigen::SparseMatrix<T, Eigen::RowMajor>>;
  const auto backend = this->backend();
  const SparseProjection r{10, 8, {}, 0};
  const std::vector<int> offsets{0, 1, 1, 1, 1, 2}, indices{3, 4};
  const std::vector<T> values{1, 2};
  Sentinel<T> y(5, 8);
  const Rows<T> dense = Rows<T>::Ones(10, 8);
  for (const Map& s : {Map(5, 10, 2, nullptr, indices.data(), values.data()),
                       Map(5, 10, 2, offsets.data(), nullptr, values.data()),
                       Map(5, 10, 2, offsets.data(), indices.data(), nullptr)}) {
    y.expect_refused([&] { project(backend, s, r, y.matrix); }, project_name, "x");
    y.expect_refused([&] { spmm(backend, s, dense, y.matrix); }, spmm_name, "a");
  }
}

// A temporary matrix would take the result with it; a temporary view does not.
template <class Y>
concept TakesOutput = requires(const Rows<float>& x, const SparseProjection& r,
                               const Eigen::SparseMatrix<float, Eigen::RowMajor>& s, Y&& y) {
  project(x, r, std::forward<Y>(y));
  project(s, r, std::forward<Y>(y));
  sketch(r, x, std::forward<Y>(y));
  sketch(r, s, std::forward<Y>(y));
  spmm(s, x, std::forward<Y>(y));
};
static_assert(!TakesOutput<Rows<float>> && TakesOutput<Rows<float>&> &&
              TakesOutput<Eigen::Map<Rows<float>>>);

TEST(ProjectErrors, ThreadsBelowOne) {
  for (const int n : {0, -1})
    refusal([&] { static_cast<void>(pare::simd.threads(n)); }, "Simd::threads", "n");
}

TEST(ProjectErrors, MessagesSayWhatWasGotAndWanted) {
  Rows<float> y(5, 7);
  const std::string message =
      refusal([&] { project(Rows<float>::Ones(5, 10).eval(), SparseProjection{10, 8, {}, 0}, y); },
              project_name, "y");
  EXPECT_EQ(message, "pare::projection::project: y: got [5, 7], wanted [5, 8]");
  const Rows<float> narrow = Rows<float>::Ones(3, 5);
  const SparseProjection r{10, 8, {}, 0};
  const auto sparse = sparse_of<Eigen::SparseMatrix<float, Eigen::RowMajor>>(narrow.cast<double>());
  EXPECT_EQ(refusal([&] { project(narrow, r, y); }, project_name, "x"),
            "pare::projection::project: x: got [3, 5], wanted [3, 10]");
  EXPECT_EQ(refusal([&] { project(sparse, r, y); }, project_name, "x"),
            "pare::projection::project: x: got [3, 5], wanted [3, 10]");
  EXPECT_EQ(refusal([&] { spmm(sparse, narrow, y); }, spmm_name, "b"),
            "pare::linalg::spmm: b: got [3, 5], wanted [5, 5]");
}

}  // namespace
}  // namespace projection_project_errors_test
