// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/sequence/heads_of_ssm.hpp>
#include <pare/sequence/lag_operators.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "sequence/models.hpp"
#include "support/properties.hpp"

namespace sequence_heads_of_ssm_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::testing::Model;
using pare::testing::random_model;
using pare::testing::Recurrence;
using pare::testing::sequences;
using pare::testing::Tolerance;
using pare::testing::uniform_rows;
using namespace pare::sequence;
using Matrix = RowMatrix<double>;

/// A diagonal model of distinct poles, with an input and an output of each.
Model<double> diagonal_model(const std::vector<double>& poles, Index in = 3, Index out = 2) {
  const auto n = static_cast<Index>(poles.size());
  Model<double> m = random_model<double>(n, in, out);
  m.a.setZero();
  for (Index i = 0; i < n; ++i) m.a(i, i) = poles[static_cast<std::size_t>(i)];
  return m;
}

template <class Case>
struct LagsTest : testing::Test {};
TYPED_TEST_SUITE(LagsTest, pare::testing::BackendsAndScalars);

/// L_l is C A^l B, and the recurrence is what they sum to: an impulse at token 0 is answered by it.
TYPED_TEST(LagsTest, AreTheAnswersToAnImpulse) {
  using T = typename TypeParam::scalar;
  const Model<T> m = random_model<T>(6, 2, 3);
  const RowMatrix<T> lags = lag_operators(TypeParam::backend::make(), m.a, m.b, m.c, 20);
  ASSERT_EQ(lags.rows(), 20);
  ASSERT_EQ(lags.cols(), 6);
  for (Index j = 0; j < 2; ++j) {
    RowMatrix<T> x = RowMatrix<T>::Zero(20, 2), state = RowMatrix<T>::Zero(1, 6);
    x(0, j) = 1;
    const Recurrence<T> oracle(m, x, state, 0);
    for (Index l = 0; l < 20; ++l)
      for (Index o = 0; o < 3; ++o)
        ASSERT_TRUE(pare::testing::within(
            static_cast<double>(lags(l, o * 2 + j)),
            static_cast<double>(oracle.y[static_cast<std::size_t>(l)][static_cast<std::size_t>(o)]),
            Tolerance<T>::gamma(static_cast<double>((l + 2) * 8)) *
                static_cast<double>(
                    oracle.magnitude[static_cast<std::size_t>(l)][static_cast<std::size_t>(o)])));
  }
}

/// Distinct poles span as many dimensions; a scalar A one; a Jordan block of one pole its size.
TEST(OperatorSpan, HasTheDegreeOfTheMinimalPolynomial) {
  const std::vector<double> poles{0.9, -0.7, 0.5, 0.2, -0.3};
  for (std::size_t k = 1; k <= poles.size(); ++k) {
    const auto m = diagonal_model({poles.begin(), poles.begin() + static_cast<std::ptrdiff_t>(k)});
    EXPECT_EQ(operator_span(lag_operators(m.a, m.b, m.c, 40)).dimension, static_cast<Index>(k));
  }
  auto scalar = diagonal_model({0.8, 0.8, 0.8, 0.8});
  EXPECT_EQ(operator_span(lag_operators(scalar.a, scalar.b, scalar.c, 30)).dimension, 1);
  for (Index i = 0; i + 1 < 4; ++i) scalar.a(i, i + 1) = 1;  // a Jordan block
  EXPECT_EQ(operator_span(lag_operators(scalar.a, scalar.b, scalar.c, 30)).dimension, 4);
  scalar.a(1, 2) = 0;  // two of size 2: the minimal polynomial has degree 2
  EXPECT_EQ(operator_span(lag_operators(scalar.a, scalar.b, scalar.c, 30)).dimension, 2);
  // On short sequences no more than their length.
  EXPECT_EQ(operator_span(lag_operators(scalar.a, scalar.b, scalar.c, 1)).dimension, 1);
}

/// Attention with one value map is one dimension, whatever its weights; H maps are at most H.
TEST(OperatorSpan, OfHeadsIsAtMostTheirNumber) {
  const Matrix v = uniform_rows<double>(1, 12, 1), weights = uniform_rows<double>(30, 1, 2);
  EXPECT_EQ(operator_span(Matrix(weights * v)).dimension, 1);
  const Matrix maps = uniform_rows<double>(3, 12, 3), mixed = uniform_rows<double>(30, 3, 4);
  EXPECT_EQ(operator_span(Matrix(mixed * maps)).dimension, 3);
  EXPECT_EQ(operator_span(Matrix::Zero(3, 4).eval()).dimension, 0);
}

/// Singular values and both factors, against the matrix itself: far apart, and at any scale.
TEST(OperatorSpan, IsTheDecomposition) {
  for (const double scale : {1.0, 1e-200, 1e200}) {
    Matrix u = uniform_rows<double>(30, 5, 1), w = uniform_rows<double>(5, 20, 2);
    for (Index k = 0; k < 5; ++k) w.row(k) *= scale * std::pow(1e-3, static_cast<double>(k));
    const Matrix m = u * w;
    const auto span = operator_span(m);
    ASSERT_EQ(span.dimension, 5);
    const double largest = span.singular_values[0];
    EXPECT_LT((span.coordinates * span.basis - m).cwiseAbs().maxCoeff(), 1e-14 * largest);
    EXPECT_LT((span.basis * span.basis.transpose() - Matrix::Identity(5, 5)).cwiseAbs().maxCoeff(),
              1e-14);
    for (Index k = 0; k < 5; ++k) {
      EXPECT_TRUE(k == 0 || span.singular_values[k] <= span.singular_values[k - 1]);
      for (Index j = 0; j < k; ++j)
        EXPECT_LT(
            std::abs((span.coordinates.col(k) / largest).dot(span.coordinates.col(j) / largest)),
            1e-14);
    }
  }
}

/// The claim in both directions: k heads are the recurrence to rounding, and the best k - 1 leave
/// the k-th singular value, which the error of their outputs for impulses shows too.
TEST(HeadsOfSsm, AsManyAsDimensionsAndNoFewer) {
  for (const std::vector<double>& poles :
       {std::vector<double>{0.9}, {0.9, -0.6}, {0.95, 0.5, -0.4}, {0.9, -0.7, 0.5, 0.2, -0.3}}) {
    const Index n = 60, k = static_cast<Index>(poles.size());
    const auto m = diagonal_model(poles);
    const Matrix lags = lag_operators(m.a, m.b, m.c, n);
    const auto all = heads_of_lags(lags, 2);
    ASSERT_EQ(all.heads(), k);
    Matrix x = uniform_rows<double>(n, 3, 9), y(n, 2), wanted(n, 2), state = Matrix::Zero(1, k);
    apply_heads(all, sequences(x, 1), sequences(y, 1));
    const Recurrence<double> recurrence(m, x, state, 0);
    for (Index t = 0; t < n; ++t)
      for (Index o = 0; o < 2; ++o)
        wanted(t, o) = static_cast<double>(
            recurrence.y[static_cast<std::size_t>(t)][static_cast<std::size_t>(o)]);
    EXPECT_LT((y - wanted).cwiseAbs().maxCoeff(), 1e-13 * lags.norm());
    const auto span = operator_span(lags);
    EXPECT_LT((all.weights * all.values - lags).norm(), 1e-14 * lags.norm());
    if (k == 1) continue;
    const auto fewer = heads_of_lags(lags, 2, {.heads = k - 1});
    const double last = span.singular_values[k - 1];
    EXPECT_NEAR((fewer.weights * fewer.values - lags).norm(), last, 1e-13 * lags.norm());
    EXPECT_NEAR(fewer.residual, last, 1e-13 * lags.norm());
    EXPECT_EQ(operator_span(fewer.values).dimension, k - 1);
    double squares = 0;
    for (Index j = 0; j < 3; ++j) {
      Matrix impulse = Matrix::Zero(n, 3), answer(n, 2);
      impulse(0, j) = 1;
      apply_heads(fewer, sequences(impulse, 1), sequences(answer, 1));
      for (Index l = 0; l < n; ++l)
        for (Index o = 0; o < 2; ++o) squares += std::pow(answer(l, o) - lags(l, o * 3 + j), 2);
    }
    EXPECT_NEAR(std::sqrt(squares), last, 1e-13 * lags.norm());
  }
}

template <class Case>
struct ApplyHeadsTest : testing::Test {};
TYPED_TEST_SUITE(ApplyHeadsTest, pare::testing::BackendsAndScalars);

/// Two sums one in the other, of in and of heads * (i + 1) terms.
TYPED_TEST(ApplyHeadsTest, IsTheDefinition) {
  using T = typename TypeParam::scalar;
  for (const Index tokens : {Index{1}, Index{40}, Index{300}}) {
    const Index in = 3, out = 5, count = 2;
    const ToeplitzHeads<T> heads{uniform_rows<T>(310, count, 1),
                                 uniform_rows<T>(count, out * in, 2), out, in};
    RowMatrix<T> x = uniform_rows<T>(2 * tokens, in, 3), y(2 * tokens, out);
    apply_heads(TypeParam::backend::make(), heads, sequences(x, 2), sequences(y, 2));
    for (Index s = 0; s < 2; ++s)
      for (Index i = 0; i < tokens; i += 1 + tokens / 11)
        for (Index o = 0; o < out; ++o) {
          long double wanted = 0, magnitude = 0;
          for (Index h = 0; h < count; ++h)
            for (Index j = 0; j <= i; ++j)
              for (Index k = 0; k < in; ++k) {
                const auto term = static_cast<long double>(heads.weights(i - j, h)) *
                                  static_cast<long double>(heads.values(h, o * in + k)) *
                                  static_cast<long double>(x(s * tokens + j, k));
                wanted += term;
                magnitude += std::abs(term);
              }
          ASSERT_TRUE(pare::testing::within(
              static_cast<double>(y(s * tokens + i, o)), static_cast<double>(wanted),
              Tolerance<T>::gamma(static_cast<double>(in + count * (tokens + 256) + 2)) *
                  static_cast<double>(magnitude)))
              << s << ' ' << i << ' ' << o << " of " << tokens;
        }
  }
}

TEST(ApplyHeads, AnyThreadsHaveTheSameBits) {
  const ToeplitzHeads<float> heads{uniform_rows<float>(520, 3, 1), uniform_rows<float>(3, 20, 2), 5,
                                   4};
  RowMatrix<float> x = uniform_rows<float>(520, 4, 3);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    RowMatrix<float> y(520, 5);
    apply_heads(backend, heads, sequences(x, 1), sequences(y, 1));
    return y;
  });
}

TEST(HeadsOfSsm, WhatDoesNotFitIsRefused) {
  const auto refused = [](const auto& call, const char* function, const char* argument) {
    pare::testing::refusal(call, function, argument);
  };
  const Model<double> m = random_model<double>(4, 2, 3);
  const Matrix none(0, 0), wide(4, 5);
  constexpr const char* lag = "sequence::lag_operators";
  refused([&] { lag_operators(m.a, m.b, m.c, 0); }, lag, "n");
  refused([&] { lag_operators(m.a, m.b, m.c, std::numeric_limits<Index>::max() / 8); }, lag, "n");
  refused([&] { lag_operators(none, m.b, m.c, 3); }, lag, "a");
  refused([&] { lag_operators(wide, m.b, m.c, 3); }, lag, "a");
  refused([&] { lag_operators(m.a, m.c, m.c, 3); }, lag, "b");
  refused([&] { lag_operators(m.a, m.b, m.b, 3); }, lag, "c");
  // Powers that overflow, by either path; few enough of them are numbers.
  const Matrix unstable = m.a * 1e3;
  refused([&] { lag_operators(unstable, m.b, m.c, 2000); }, lag, "a");
  refused([&] { lag_operators(pare::reference, unstable, m.b, m.c, 2000); }, lag, "a");
  EXPECT_TRUE(lag_operators(unstable, m.b, m.c, 20).allFinite());
  constexpr const char* span = "sequence::operator_span";
  Matrix bad = Matrix::Zero(2, 3);
  refused([&] { operator_span(none); }, span, "operators");
  refused([&] { operator_span(bad, {.tolerance = 1.0}); }, span, "tolerance");
  refused([&] { operator_span(bad, {.tolerance = -0.1}); }, span, "tolerance");
  bad(1, 2) = std::numeric_limits<double>::quiet_NaN();
  refused([&] { operator_span(bad); }, span, "operators");
  refused([&] { operator_span(Matrix::Constant(4, 4, 1e308).eval()); }, span, "operators");
  constexpr const char* of = "sequence::heads_of_lags";
  const Matrix lags = lag_operators(m.a, m.b, m.c, 9);
  refused([&] { heads_of_lags(lags, 0); }, of, "outputs");
  refused([&] { heads_of_lags(lags, 4); }, of, "outputs");
  refused([&] { heads_of_lags(lags, 3, {.heads = 5}); }, of, "heads");
  refused([&] { heads_of_lags(lags, 3, {.heads = 0}); }, of, "heads");
  refused([&] { heads_of_lags(Matrix::Zero(4, 6).eval(), 3); }, of, "lags");
  const pare::RowMatrix<float> large = pare::RowMatrix<float>::Constant(4, 6, 3e38f);
  refused([&] { heads_of_lags(large, 3); }, of, "lags");
}

TEST(ApplyHeads, WhatDoesNotFitIsRefused) {
  constexpr const char* f = "sequence::apply_heads";
  ToeplitzHeads<double> heads{uniform_rows<double>(9, 2, 1), uniform_rows<double>(2, 6, 2), 3, 2};
  Matrix x = uniform_rows<double>(9, 2, 3), y = uniform_rows<double>(9, 3, 4);
  const auto refused = [&](const auto& of, Matrix& from, Matrix& to, const char* argument) {
    pare::testing::refuses_and_leaves_alone(
        [&] { apply_heads(pare::reference, of, sequences(from, 1), sequences(to, 1)); }, f,
        argument, y);
  };
  Matrix longer = uniform_rows<double>(10, 2, 3), out(10, 3), narrow(9, 1);
  refused(ToeplitzHeads<double>{}, x, y, "heads");
  auto wrong = heads;
  wrong.outputs = 2;
  refused(wrong, x, y, "heads");
  wrong = heads;
  wrong.weights = Matrix(9, 3);
  refused(wrong, x, y, "heads");
  refused(heads, narrow, y, "x");
  refused(heads, longer, out, "x");
  refused(heads, x, narrow, "y");
  Matrix shared = uniform_rows<double>(9, 3, 5);
  const pare::TensorView<const double, 3> inside{shared.data(), {1, 9, 2}, {27, 3, 1}};
  pare::testing::refuses_and_leaves_alone(
      [&] { apply_heads(pare::reference, heads, inside, sequences(shared, 1)); }, f, "y", shared);
}

}  // namespace
}  // namespace sequence_heads_of_ssm_test
