// SPDX-License-Identifier: Apache-2.0
// What the factorizations refuse, and the message that they refuse it with.
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include <pare/factor/covariance_svd.hpp>
#include <pare/factor/weighted_svd.hpp>

#include "factor/data.hpp"
#include "support/backends.hpp"

namespace factor_svd_errors_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

void expect_wanted(const std::string& message, const std::string& wanted) {
  EXPECT_NE(message.find(wanted), std::string::npos) << message;
}

template <class Case>
class SvdErrors : public ::testing::Test {
 public:
  using Scalar = typename Case::scalar;
  using Rows = RowMatrix<Scalar>;
  static auto backend() { return Case::backend::make(); }

  static Rows matrix(Index out = 6, Index in = 4) {
    return stored_in<Scalar>(normal_matrix(out, in, 1));
  }
  static std::string refused(const Rows& w, const SvdOptions& options, const char* argument) {
    return refusal([&] { truncated_svd(backend(), w, options); }, "factor::truncated_svd",
                   argument);
  }
  template <class M>
  static std::string refused_metric(const M& metric, const char* argument) {
    return refusal([&] { factorize(backend(), matrix(), metric, {.rank = 2}); },
                   "factor::factorize", argument);
  }
};
TYPED_TEST_SUITE(SvdErrors, SolverCases);

TYPED_TEST(SvdErrors, RanksOutOfRange) {
  for (const Index rank : {-1, 0, 5, 1000000})
    expect_wanted(this->refused(this->matrix(), {.rank = rank}, "rank"), "1 to min(out, in)");
  for (const Index rank : {-1, 0, 5})
    this->refused(this->matrix(), {.rank = rank, .tolerance = 0.5}, "rank");
  EXPECT_NO_THROW(truncated_svd(this->backend(), this->matrix(), {.rank = 4}));
}

TYPED_TEST(SvdErrors, OptionsOutOfRange) {
  for (const double tolerance : {-0.1, 0.0, 1.0, 2.0, nan, infinity})
    this->refused(this->matrix(), {.rank = 2, .tolerance = tolerance}, "tolerance");
  this->refused(this->matrix(), {.rank = 2, .oversample = -1}, "oversample");
  this->refused(this->matrix(), {.rank = 2, .steps = -1}, "steps");
  for (const int none : {-1, 9}) {
    this->refused(this->matrix(), {.rank = 2, .accuracy = Accuracy(none)}, "accuracy");
    this->refused(this->matrix(), {.rank = 2, .route = Route(none)}, "route");
    this->refused(this->matrix(), {.rank = 2, .split = Split(none)}, "split");
    this->refused(this->matrix(), {.rank = 2, .sketch = Sketch(none)}, "sketch");
    this->refused(this->matrix(), {.rank = 2, .signs = Signs(none)}, "signs");
  }
}

TYPED_TEST(SvdErrors, EmptyMatrices) {
  for (const auto& [out, in] : {std::pair<Index, Index>{0, 4}, {4, 0}, {0, 0}})
    for (const double tolerance : {0.0, 0.5})
      expect_wanted(this->refused(typename TestFixture::Rows(out, in),
                                  {.rank = 1, .tolerance = tolerance}, "w"),
                    "extents of at least 1");
}

TYPED_TEST(SvdErrors, MatricesThatAreNotFinite) {
  using T = typename TypeParam::scalar;
  for (const double bad : {nan, infinity, -infinity})
    for (const Index place : {0, 11, 23})
      for (const Route route : {Route::Auto, Route::Randomized, Route::Gram, Route::Exact}) {
        auto w = this->matrix();
        w(place % 6, place / 6) = static_cast<T>(bad);
        const SvdOptions options{.rank = 2, .route = route};
        expect_wanted(this->refused(w, options, "w"), "finite elements");
        const VectorXd weights = VectorXd::Ones(4);
        refusal([&] { weighted_svd(this->backend(), w, weights, options); }, "factor::weighted_svd",
                "w");
        const MatrixXd c = MatrixXd::Identity(4, 4);
        refusal([&] { factorize(this->backend(), w, InputCovariance(c), options); },
                "factor::factorize", "w");
      }
}

// Squares beyond double: of the matrix, or of it in the metric.
TYPED_TEST(SvdErrors, EnergiesThatAreNotFinite) {
  using T = typename TypeParam::scalar;
  const VectorXd weights = VectorXd::Constant(4, 1e300);
  RowMatrix<T> w = RowMatrix<T>::Constant(6, 4, T(1e10));
  expect_wanted(refusal([&] { weighted_svd(this->backend(), w, weights, {.rank = 2}); },
                        "factor::weighted_svd", "w"),
                "finite");
  if (std::is_same_v<T, double>) {
    w.setConstant(static_cast<T>(1e200));
    expect_wanted(this->refused(w, {.rank = 2}, "w"), "finite");
    const MatrixXd c = MatrixXd::Identity(4, 4);
    refusal([&] { factorize(this->backend(), w, InputCovariance(c), {.rank = 2}); },
            "factor::factorize", "w");
  }
}

TYPED_TEST(SvdErrors, WeightsThatAreNone) {
  for (const double bad : {-1.0, -1e-300, nan, infinity}) {
    VectorXd output = VectorXd::Ones(6), input = VectorXd::Ones(4);
    output(5) = input(0) = bad;
    const VectorXd good = VectorXd::Ones(6);
    this->refused_metric(OutputWeights(output), "output_weights");
    this->refused_metric(InputWeights(input), "input_weights");
    this->refused_metric(BothWeights(good, input), "input_weights");
    refusal(
        [&] { weighted_svd(this->backend(), this->matrix(), output, {.rank = 2}, Axis::Output); },
        "factor::weighted_svd", "output_weights");
    refusal([&] { weighted_svd(this->backend(), this->matrix(), input, {.rank = 2}); },
            "factor::weighted_svd", "input_weights");
    refusal([&] { weighted_svd(this->backend(), this->matrix(), output, input, {.rank = 2}); },
            "factor::weighted_svd", "output_weights");
  }
  FisherDiagonal fisher(6, 4);
  fisher.add_gradient(this->matrix());
  for (const int none : {-1, 2}) {
    const SvdOptions options{.rank = 2};
    const VectorXd six = VectorXd::Ones(6);
    refusal([&] { weighted_svd(this->backend(), this->matrix(), six, options, Axis(none)); },
            "factor::weighted_svd", "axis");
    refusal([&] { weighted_svd(this->backend(), this->matrix(), fisher, options, Axis(none)); },
            "factor::weighted_svd", "axis");
  }
  expect_wanted(this->refused_metric(OutputWeights(VectorXd::Zero(6)), "output_weights"),
                "a weight above 0");
  this->refused_metric(InputWeights(VectorXd::Zero(4)), "input_weights");
}

TYPED_TEST(SvdErrors, WeightsOfAnotherLength) {
  expect_wanted(this->refused_metric(OutputWeights(VectorXd::Ones(4)), "output_weights"), "[6]");
  this->refused_metric(InputWeights(VectorXd::Ones(6)), "input_weights");
  // The axis decides which length is wanted.
  const VectorXd six = VectorXd::Ones(6);
  EXPECT_NO_THROW(weighted_svd(this->backend(), this->matrix(), six, {.rank = 2}, Axis::Output));
  refusal([&] { weighted_svd(this->backend(), this->matrix(), six, {.rank = 2}); },
          "factor::weighted_svd", "input_weights");
}

TYPED_TEST(SvdErrors, CovariancesThatAreNone) {
  const MatrixXd one = MatrixXd::Identity(4, 4);
  const auto refused = [](const MatrixXd& c) {
    return TestFixture::refused_metric(InputCovariance(c), "input_covariance");
  };
  const MatrixXd other = MatrixXd::Identity(6, 6), wide = MatrixXd::Zero(4, 5),
                 zero = MatrixXd::Zero(4, 4);
  refused(other);
  refused(wide);
  refused(zero);
  for (const double bad : {nan, infinity}) {
    MatrixXd c = one;
    c(2, 1) = c(1, 2) = bad;
    expect_wanted(refused(c), "finite");
  }
  MatrixXd c = one;
  c(2, 1) = 1e-4;
  expect_wanted(refused(c), "a symmetric matrix");
  c = one;
  c(3, 3) = -0.1;
  expect_wanted(refused(c), "a diagonal of at least 0");
  c = one;
  c(2, 1) = c(1, 2) = 1.01;  // an eigenvalue of -0.01
  expect_wanted(refused(c), "no eigenvalue below -1e-6 of the largest");
  c(2, 1) = c(1, 2) = 1 + 1e-7;  // rounding
  EXPECT_NO_THROW(factorize(this->backend(), this->matrix(), InputCovariance(c), {.rank = 2}));
  for (const double damping : {-0.01, nan, infinity})
    this->refused_metric(InputCovariance(one, damping), "damping");
}

TYPED_TEST(SvdErrors, AccumulatorsWithoutData) {
  const FisherDiagonal fisher(6, 4);
  EXPECT_THROW(weighted_svd(this->backend(), this->matrix(), fisher, {.rank = 2}),
               std::invalid_argument);
  const Covariance covariance(4);
  refusal([&] { covariance_svd(this->backend(), this->matrix(), covariance, {.rank = 2}); },
          "factor::Covariance::matrix", "count");
}

TYPED_TEST(SvdErrors, AccumulatorsOfAnotherLayer) {
  FisherDiagonal fisher(4, 6);
  fisher.add_gradient(this->matrix(4, 6));
  refusal([&] { weighted_svd(this->backend(), this->matrix(), fisher, {.rank = 2}); },
          "factor::weighted_svd", "input_weights");
  Covariance covariance(6);
  covariance.add(this->matrix(9, 6));
  refusal([&] { covariance_svd(this->backend(), this->matrix(), covariance, {.rank = 2}); },
          "factor::covariance_svd", "input_covariance");
}

TYPED_TEST(SvdErrors, NamesTheFunctionThatWasCalled) {
  const VectorXd six = VectorXd::Ones(6), four = VectorXd::Ones(4);
  const auto w = this->matrix();
  const auto backend = this->backend();
  const SvdOptions options{.rank = 9};
  refusal([&] { factorize(backend, w, Uniform{}, options); }, "factor::factorize", "rank");
  refusal([&] { weighted_svd(backend, w, four, options); }, "factor::weighted_svd", "rank");
  refusal([&] { weighted_svd(backend, w, six, four, options); }, "factor::weighted_svd", "rank");
  Covariance covariance(4);
  covariance.add(w);
  refusal([&] { covariance_svd(backend, w, covariance, options); }, "factor::covariance_svd",
          "rank");
}

TYPED_TEST(SvdErrors, SparseMatricesThatAreNone) {
  using T = typename TypeParam::scalar;
  const auto refused = [](const RawSparse<T>& raw, const SvdOptions& options,
                          const char* argument) {
    return refusal([&] { truncated_svd(TestFixture::backend(), raw.map(), options); },
                   "factor::truncated_svd", argument);
  };
  const RawSparse<T> good{3, 4, {0, 2, 2, 3}, {}, {3, 0, 1}, {1, 2, 3}};
  EXPECT_NO_THROW(truncated_svd(this->backend(), good.map(), {.rank = 2}));
  for (const std::int32_t index : {-1, 4, 1000}) {
    RawSparse<T> raw = good;
    raw.inner[1] = index;
    expect_wanted(refused(raw, {.rank = 2}, "w"), "indices within the matrix");
    const Eigen::Map<const Eigen::SparseMatrix<T>> columns(4, 3, 3, raw.outer.data(),
                                                           raw.inner.data(), raw.values.data());
    refusal([&] { truncated_svd(this->backend(), columns, {.rank = 2}); }, "factor::truncated_svd",
            "w");
  }
  RawSparse<T> raw = good;
  raw.outer = {0, 2, 1, 3};
  expect_wanted(refused(raw, {.rank = 2}, "w"), "line offsets that never decrease");
  for (const double bad : {nan, infinity}) {
    raw = good;
    raw.values[2] = static_cast<T>(bad);
    expect_wanted(refused(raw, {.rank = 2}, "w"), "finite elements");
  }
  for (const Index rank : {0, 4}) refused(good, {.rank = rank}, "rank");
  const Eigen::SparseMatrix<T, Eigen::RowMajor> empty(0, 4);
  refusal([&] { truncated_svd(this->backend(), empty, {.rank = 1}); }, "factor::truncated_svd",
          "w");
}

TYPED_TEST(SvdErrors, OperatorsThatAreNone) {
  using T = typename TypeParam::scalar;
  const auto refused = [](const RowMatrix<T>& w, const SvdOptions& options, const char* argument) {
    return refusal([&] { truncated_svd(TestFixture::backend(), PlainMatrix<T>{w}, options); },
                   "factor::truncated_svd", argument);
  };
  for (const double bad : {nan, infinity}) {
    auto w = this->matrix();
    w(5, 3) = static_cast<T>(bad);
    expect_wanted(refused(w, {.rank = 2}, "w"), "finite elements");
  }
  refused(this->matrix(), {.rank = 0}, "rank");
  refused(this->matrix(), {.rank = 5}, "rank");
  refused(this->matrix(), {.rank = 2, .steps = -1}, "steps");
  refused(RowMatrix<T>(0, 4), {.rank = 1}, "w");
}

TYPED_TEST(SvdErrors, RoutesThatNeedTheElements) {
  using T = typename TypeParam::scalar;
  if (TypeParam::backend::is_reference) return;  // takes no route
  const PlainMatrix<T> users{this->matrix()};
  const auto sparse = sparse_of<Eigen::SparseMatrix<T, Eigen::RowMajor>>(values_of(this->matrix()));
  for (const Route route : {Route::Gram, Route::Exact}) {
    const SvdOptions options{.rank = 2, .route = route};
    expect_wanted(refusal([&] { truncated_svd(this->backend(), users, options); },
                          "factor::truncated_svd", "route"),
                  "Auto or Randomized");
    refusal([&] { truncated_svd(this->backend(), sparse, options); }, "factor::truncated_svd",
            "route");
  }
}

}  // namespace
}  // namespace factor_svd_errors_test
