// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <functional>
#include <limits>
#include <string>

#include <pare/graph/fast_rp.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace graph_fast_rp_errors_test {
namespace {

using pare::Index;
using pare::graph::fast_rp;
using pare::graph::FastRpOptions;
using pare::testing::refusal;

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Graph = Eigen::SparseMatrix<T, Eigen::RowMajor>;
using Strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;

template <class Case>
struct FastRpErrorsTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(FastRpErrorsTest, pare::testing::BackendsAndScalars);

/// clang 14 captures no structured bindings.
struct Shape {
  Index rows, cols;
};

const std::string name = "graph::fast_rp";
constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double infinite = std::numeric_limits<double>::infinity();

template <class T>
Graph<T> ring(Index n) {
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(n, n);
  for (Index u = 0; u < n; ++u) a(u, (u + 1) % n) = a((u + 1) % n, u) = 1;
  return pare::testing::sparse_of<Graph<T>>(a);
}

FastRpOptions small_options() {
  FastRpOptions o;
  o.dim = 8;
  o.progress = [](int, int) { ADD_FAILURE() << "work began"; };
  return o;
}

/// Known bits that must be the same after the refusal.
template <class T, class Call>
void expect_refused(Index rows, Index cols, const std::string& argument, const Call& call) {
  Rows<T> out = pare::testing::random_matrix<Rows<T>>(rows, cols, 3);
  pare::testing::refuses_and_leaves_alone([&] { call(out); }, name, argument, out);
}

TYPED_TEST(FastRpErrorsTest, OptionsOutOfRange) {
  using T = typename TypeParam::scalar;
  const auto backend = this->backend();
  const auto expect_bad = [&](const std::string& argument,
                              const std::function<void(FastRpOptions&)>& change) {
    FastRpOptions o = small_options();
    change(o);
    expect_refused<T>(6, 8, argument, [&](auto& out) { fast_rp(backend, ring<T>(6), out, o); });
    refusal([&] { fast_rp(backend, ring<T>(6), o); }, name, argument);
  };
  for (const Index dim : {Index{0}, Index{-1}, std::numeric_limits<Index>::min(), Index{1} << 31,
                          std::numeric_limits<Index>::max()})
    expect_bad("dim", [=](auto& o) { o.dim = dim; });
  expect_bad("weights", [](auto& o) { o.weights.clear(); });
  expect_bad("weights", [](auto& o) { o.weights.assign(1'000'000, 0.0); });
  for (const double bad : {nan_value, infinite, -infinite}) {
    expect_bad("weights", [=](auto& o) { o.weights = {1, bad}; });
    expect_bad("degree_exponent", [=](auto& o) { o.degree_exponent = bad; });
    expect_bad("density", [=](auto& o) { o.density = bad; });
    expect_bad("self_influence", [=](auto& o) { o.self_influence = bad; });
    expect_bad("feature_ratio", [=](auto& o) { o.feature_ratio = bad; });
  }
  for (const double density : {0.0, -0.1, 1.01})
    expect_bad("density", [=](auto& o) { o.density = density; });
  expect_bad("self_influence", [](auto& o) { o.self_influence = -0.1; });
  for (const double ratio : {-0.1, 1.01})
    expect_bad("feature_ratio", [=](auto& o) { o.feature_ratio = ratio; });
  for (const int degree : {-1, 2, 99})
    expect_bad("degree", [=](auto& o) { o.degree = static_cast<pare::graph::Degree>(degree); });
  expect_bad("self_influence", [](auto& o) {
    o.concatenate = true;
    o.self_influence = 1;
  });
}

TYPED_TEST(FastRpErrorsTest, FeaturesThatAreMissingOrDoNotFit) {
  using T = typename TypeParam::scalar;
  const auto backend = this->backend();
  FastRpOptions o = small_options();
  o.feature_ratio = 0.5;
  expect_refused<T>(6, 8, "features", [&](auto& out) { fast_rp(backend, ring<T>(6), out, o); });
  refusal([&] { fast_rp(backend, ring<T>(6), o); }, name, "features");
  for (const Shape s : {Shape{5, 3}, Shape{7, 3}, Shape{6, 0}, Shape{0, 3}})
    expect_refused<T>(6, 8, "features", [&](auto& out) {
      fast_rp(backend, ring<T>(6), Rows<T>::Ones(s.rows, s.cols).eval(), out, o);
    });
  Rows<T> memory = Rows<T>::Ones(20, 8);
  const Rows<T> before = memory;
  const Eigen::Map<const Rows<T>> features(memory.data(), 6, 8);
  Eigen::Map<Rows<T>> out(memory.data() + 40, 6, 8);
  refusal([&] { fast_rp(backend, ring<T>(6), features, out, o); }, name, "out");
  EXPECT_TRUE(pare::testing::equal_bits(memory, before));
}

TYPED_TEST(FastRpErrorsTest, OutputsThatDoNotFit) {
  using T = typename TypeParam::scalar;
  const auto backend = this->backend();
  FastRpOptions o = small_options();
  for (const auto& [rows, cols] : {std::pair<Index, Index>{5, 8}, {7, 8}, {6, 7}, {6, 9}, {0, 8}})
    expect_refused<T>(rows, cols, "out", [&](auto& out) { fast_rp(backend, ring<T>(6), out, o); });
  o.concatenate = true;
  expect_refused<T>(6, 8, "out", [&](auto& out) { fast_rp(backend, ring<T>(6), out, o); });
  o.concatenate = false;
  Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> by_columns(6, 8);
  by_columns.setConstant(T(3));
  refusal([&] { fast_rp(backend, ring<T>(6), by_columns, o); }, name, "out");
  EXPECT_TRUE((by_columns.array() == T(3)).all());
  Rows<T> one = Rows<T>::Constant(1, 8, T(3));
  Eigen::Map<Rows<T>, 0, Strides> stacked(one.data(), 6, 8, Strides(0, 1));
  refusal([&] { fast_rp(backend, ring<T>(6), stacked, o); }, name, "out");
  EXPECT_TRUE((one.array() == T(3)).all());
}

TYPED_TEST(FastRpErrorsTest, GraphsThatAreNone) {
  using T = typename TypeParam::scalar;
  const auto backend = this->backend();
  const FastRpOptions o = small_options();
  for (const Shape s : {Shape{6, 5}, Shape{5, 6}, Shape{0, 6}}) {
    expect_refused<T>(s.rows, 8, "adjacency",
                      [&](auto& out) { fast_rp(backend, Graph<T>(s.rows, s.cols), out, o); });
    // Lines of a column-major matrix are its columns; either may be what out has rows for.
    for (const Index rows : {s.rows, s.cols})
      expect_refused<T>(rows, 8, "adjacency", [&](auto& out) {
        fast_rp(backend, Eigen::SparseMatrix<T, Eigen::ColMajor>(s.rows, s.cols), out, o);
      });
  }
  for (const double weight : {-1.0, -1e-30, nan_value, infinite, -infinite})
    for (const Index at : {0, 5, 11}) {
      Graph<T> a = ring<T>(6);
      a.valuePtr()[at] = static_cast<T>(weight);
      expect_refused<T>(6, 8, "adjacency", [&](auto& out) { fast_rp(backend, a, out, o); });
      const Eigen::SparseMatrix<T, Eigen::ColMajor> columns = a;
      expect_refused<T>(6, 8, "adjacency", [&](auto& out) { fast_rp(backend, columns, out, o); });
    }
}

TYPED_TEST(FastRpErrorsTest, MalformedStorage) {
  using T = typename TypeParam::scalar;
  const auto backend = this->backend();
  const FastRpOptions o = small_options();
  pare::testing::RawSparse<T> good;
  good.rows = good.cols = 3;
  good.outer = {0, 1, 3, 4};
  good.inner = {1, 0, 2, 1};
  good.values = {1, 1, 1, 1};
  const auto expect_bad = [&](const auto& change) {
    auto bad = good;
    change(bad);
    expect_refused<T>(3, 8, "adjacency", [&](auto& out) { fast_rp(backend, bad.map(), out, o); });
    const Eigen::Map<const Eigen::SparseMatrix<T, Eigen::ColMajor>> columns(
        3, 3, 4, bad.outer.data(), bad.inner.data(), bad.values.data(),
        bad.lengths.empty() ? nullptr : bad.lengths.data());
    expect_refused<T>(3, 8, "adjacency", [&](auto& out) { fast_rp(backend, columns, out, o); });
  };
  expect_bad([](auto& s) { s.inner[3] = 3; });
  expect_bad([](auto& s) { s.inner[0] = -1; });
  expect_bad([](auto& s) { s.outer[1] = 4; });
  expect_bad([](auto& s) { s.outer[0] = -1; });
  expect_bad([](auto& s) { s.lengths = {1, -1, 1}; });
  expect_bad([](auto& s) { s.lengths = {2, 2, 1}; });
}

TYPED_TEST(FastRpErrorsTest, OutputsOverTheGraphAndViewsThatAreNone) {
  using T = typename TypeParam::scalar;
  using View = pare::TensorView<T, 2>;
  const auto backend = this->backend();
  FastRpOptions o = small_options();
  pare::testing::RawSparse<T, std::int64_t> s;
  s.rows = s.cols = 3;
  s.outer = {0, 1, 3, 4};
  s.inner = {1, 0, 2, 1};
  s.values = {1, 1, 1, 1};
  s.outer.resize(40);
  s.inner.resize(40);
  s.values.resize(40);
  const auto before = s;
  using ByColumns = Eigen::Map<const Eigen::SparseMatrix<T, Eigen::ColMajor, std::int64_t>>;
  const ByColumns columns(3, 3, 4, s.outer.data(), s.inner.data(), s.values.data());
  for (void* array : {static_cast<void*>(s.values.data()), static_cast<void*>(s.inner.data()),
                      static_cast<void*>(s.outer.data())}) {
    const View out{static_cast<T*>(array), {3, 8}, {8, 1}};
    refusal([&] { fast_rp(backend, s.map(), out, o); }, name, "out");
    refusal([&] { fast_rp(backend, columns, out, o); }, name, "out");
  }
  EXPECT_TRUE(s.values == before.values && s.inner == before.inner && s.outer == before.outer);
  o.feature_ratio = 0.5;
  const View no_features{nullptr, {3, 2}, {2, 1}}, negative{s.values.data(), {3, -2}, {2, 1}};
  for (const View& features : {no_features, negative})
    expect_refused<T>(3, 8, "features",
                      [&](auto& out) { fast_rp(backend, s.map(), features, out, o); });
  const View no_out{nullptr, {3, 8}, {8, 1}};
  refusal([&] { fast_rp(backend, s.map(), no_out, small_options()); }, name, "out");
}

TEST(FastRpErrors, OptionsAskedForWhatTheyCannotTell) {
  FastRpOptions o;
  o.dim = std::numeric_limits<Index>::max();
  o.concatenate = true;
  refusal([&] { static_cast<void>(o.output_columns()); }, "graph::FastRpOptions", "dim");
  refusal([&] { static_cast<void>(o.feature_dim()); }, "graph::FastRpOptions", "dim");
  o.dim = 8;
  for (const double ratio : {nan_value, infinite, -0.5, 1e300}) {
    o.feature_ratio = ratio;
    refusal([&] { static_cast<void>(o.feature_dim()); }, "graph::FastRpOptions", "feature_ratio");
  }
}

// What no common factor brings into the range of the scalar.
TYPED_TEST(FastRpErrorsTest, ResultsBeyondTheScalar) {
  using T = typename TypeParam::scalar;
  const auto backend = this->backend();
  constexpr bool narrow = std::is_same_v<T, float>;
  Graph<T> star(6, 6);
  for (Index u = 1; u < 6; ++u) star.insert(0, u) = star.insert(u, 0) = T(64);
  star.makeCompressed();
  const auto expect_bad = [&](const std::string& argument, const Graph<T>& graph,
                              const std::function<void(FastRpOptions&)>& change) {
    FastRpOptions o = small_options();
    change(o);
    expect_refused<T>(6, 8, argument, [&](auto& out) { fast_rp(backend, graph, out, o); });
  };
  for (const double sign : {-1.0, 1.0})
    for (const bool normalize : {false, true})  // 5^exponent apart
      expect_bad("degree_exponent", star, [=](auto& o) {
        o.degree_exponent = sign * (narrow ? 100 : 1000);
        o.normalize_rows = normalize;
      });
  for (const auto degree : {pare::graph::Degree::Weighted, pare::graph::Degree::Count})
    for (const double sign : {-1.0, 1.0})
      expect_bad("degree_exponent", star, [=](auto& o) {
        o.degree_exponent = sign * 1e308;
        o.degree = degree;
        o.normalize_rows = o.standardize = false;
      });
  expect_bad("weights", star, [=](auto& o) {
    o.degree_exponent = narrow ? 20 : 170;
    o.normalize_rows = o.standardize = false;
  });
  for (const bool normalize : {false, true})
    expect_bad("weights", star, [=](auto& o) {
      o.weights = {narrow ? 3e38 : 1.7e308, narrow ? 3e38 : 1.7e308};
      o.normalize_rows = normalize;
      o.standardize = false;
      if (!normalize) o.density = 1.0 / 512;  // entries of 8
    });
  // Counted degrees: the weights of the edges stay.
  for (T& w : star.coeffs()) w = static_cast<T>(narrow ? 1e30 : 1e300);
  expect_bad("weights", star, [=](auto& o) {
    o.degree = pare::graph::Degree::Count;
    o.normalize_rows = o.standardize = false;
  });
  star.valuePtr()[0] = T(1);
  star.valuePtr()[5] = static_cast<T>(narrow ? 1e-30 : 1e-300);
  expect_bad("adjacency", star, [=](auto& o) { o.degree = pare::graph::Degree::Count; });
}

TEST(FastRpErrors, SizesWhoseProductOverflows) {
  FastRpOptions o = small_options();
  o.dim = (Index{1} << 31) - 1;
  o.weights.assign(900'000, 1.0);
  o.concatenate = true;
  const Graph<float> huge(1 << 20, 1 << 20);
  Rows<float> out(1, 1);
  refusal([&] { fast_rp(huge, o); }, name, "dim");
  refusal([&] { fast_rp(pare::simd, huge, out, o); }, name, "dim");
}

}  // namespace
}  // namespace graph_fast_rp_errors_test
