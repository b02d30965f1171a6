// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <Eigen/QR>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/linalg/symmetric_eigen.hpp>

#include "factor/data.hpp"
#include "support/properties.hpp"
#include "support/tolerance.hpp"

namespace linalg_symmetric_eigen_test {
namespace {

using namespace pare::linalg;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::RowMatrix;

MatrixXd symmetric(const MatrixXd& x) { return x + x.transpose(); }

/// Known values whose vectors are those of a random orthogonal matrix.
MatrixXd with_values(const VectorXd& values, std::uint64_t seed) {
  const Index n = values.size();
  const MatrixXd q = Eigen::HouseholderQR<MatrixXd>(normal_matrix(n, n, seed)).householderQ();
  return symmetric(q * values.asDiagonal() * q.transpose()) / 2;
}

/// Wilkinson's matrices W21+ behind each other, loosely joined: pairs of values that agree to all
/// digits, many times over.
MatrixXd glued_wilkinson(Index n) {
  MatrixXd a = MatrixXd::Zero(n, n);
  for (Index i = 0; i < n; ++i) a(i, i) = std::abs(static_cast<double>(i % 21) - 10);
  for (Index i = 1; i < n; ++i) a(i, i - 1) = a(i - 1, i) = i % 21 == 0 ? 1e-8 : 1;
  return a;
}

struct Case {
  std::string name;
  MatrixXd a;
};

std::vector<Case> cases(Index n) {
  const MatrixXd x = normal_matrix(n, n, 1), few = normal_matrix(n, n / 8 + 1, 2);
  const Eigen::ArrayXd places = Eigen::ArrayXd::LinSpaced(n, 0, 1);
  MatrixXd arrow = MatrixXd::Identity(n, n);
  arrow.row(n - 1).setConstant(0.5);
  arrow.col(n - 1).setConstant(0.5);
  MatrixXd blocks = MatrixXd::Zero(n, n);
  for (Index i = 0; i + 1 < n; i += 2) blocks(i, i + 1) = blocks(i + 1, i) = 1;
  return {{"of both signs", symmetric(x)},
          {"squares", x * x.transpose()},
          {"singular", few * few.transpose()},
          {"zero", MatrixXd::Zero(n, n)},
          {"identity", MatrixXd::Identity(n, n)},
          {"diagonal", places.matrix().asDiagonal()},
          {"one value", with_values(VectorXd::Constant(n, 3.0), 3)},
          {"two values", with_values((places < 0.4).select(-1.0, VectorXd::Ones(n).array()), 4)},
          {"graded", with_values((-300 * places).exp(), 5)},
          {"near each other", with_values(1 + 1e-13 * places, 6)},
          {"glued", glued_wilkinson(n)},
          {"arrow", arrow},
          {"pairs", blocks},
          {"ones", MatrixXd::Ones(n, n)},
          {"large", 1e300 * symmetric(x)},
          {"small", 1e-300 * symmetric(x)},
          {"subnormal", 1e-310 * symmetric(x)}};
}

double at_least_tiny(double x) { return std::max(x, std::numeric_limits<double>::min()); }

/// Values, residuals and orthogonality as a backward stable method leaves them: within a small
/// multiple of n u of the norm (Higham, chapter 19; Gu and Eisenstat 1995 for divide and conquer).
void expect_decomposed(const MatrixXd& a, const SymmetricEigen& eigen, Index vectors) {
  const Index n = a.rows();
  const double size = at_least_tiny(a.cwiseAbs().maxCoeff());
  const MatrixXd scaled = a / size;
  const Eigen::SelfAdjointEigenSolver<MatrixXd> wanted(scaled);
  const double norm = std::max(wanted.eigenvalues().cwiseAbs().maxCoeff(), 1.0);
  const double bound = 4 * static_cast<double>(n) * Tolerance<double>::unit_roundoff;
  ASSERT_EQ(eigen.values.size(), n);
  ASSERT_EQ(eigen.vectors.rows(), n);
  ASSERT_EQ(eigen.vectors.cols(), vectors);
  const VectorXd values = eigen.values / size;
  EXPECT_TRUE(std::is_sorted(values.begin(), values.end()));
  EXPECT_LE((values - wanted.eigenvalues()).cwiseAbs().maxCoeff(), bound * norm);
  EXPECT_LE((scaled * eigen.vectors - eigen.vectors * values.tail(vectors).asDiagonal())
                .cwiseAbs()
                .maxCoeff(),
            bound * norm);
  EXPECT_LE((eigen.vectors.transpose() * eigen.vectors - MatrixXd::Identity(vectors, vectors))
                .cwiseAbs()
                .maxCoeff(),
            bound);
}

class Blocked : public testing::Test {
 public:
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
};

TEST_F(Blocked, DecomposesEveryKindOfMatrix) {
  for (const Index n : {65, 97, 128, 200})
    for (const Case& c : cases(n)) {
      SCOPED_TRACE(c.name + ' ' + std::to_string(n));
      expect_decomposed(c.a, symmetric_eigen(pare::simd, c.a), n);
    }
}

TEST_F(Blocked, EverySizeUpToThree) {
  for (Index n = 1; n <= 200; n += n < 4 ? 1 : 13) {
    SCOPED_TRACE(n);
    const MatrixXd a = symmetric(normal_matrix(n, n, static_cast<std::uint64_t>(n)));
    expect_decomposed(a, symmetric_eigen(pare::simd, a), n);
    expect_decomposed(a, symmetric_eigen(pare::reference, a), n);
    expect_decomposed(a, symmetric_eigen(pare::simd_for<pare::arch::scalar>{}, a), n);
  }
}

TEST_F(Blocked, FewVectorsAreThoseOfTheLargestValues) {
  for (const Index n : {40, 150})
    for (const Case& c : cases(n))
      for (const Index vectors : {Index{1}, Index{7}, n - 1}) {
        SCOPED_TRACE(c.name + ' ' + std::to_string(n) + ' ' + std::to_string(vectors));
        expect_decomposed(c.a, symmetric_eigen(pare::simd, c.a, vectors), vectors);
        expect_decomposed(c.a, symmetric_eigen(pare::reference, c.a, vectors), vectors);
      }
}

TEST_F(Blocked, ReadsTheLowerHalf) {
  const MatrixXd a = symmetric(normal_matrix(130, 130, 8));
  MatrixXd lower = a;
  for (Index j = 0; j < 130; ++j)
    for (Index i = 0; i < j; ++i) lower(i, j) = std::numeric_limits<double>::quiet_NaN();
  const auto whole = symmetric_eigen(pare::simd, a), half = symmetric_eigen(pare::simd, lower);
  EXPECT_TRUE(equal_bits(whole.values, half.values));
  EXPECT_TRUE(equal_bits(whole.vectors, half.vectors));
}

TEST_F(Blocked, TheSameBitsForEveryNumberOfThreads) {
  const MatrixXd a = symmetric(normal_matrix(420, 420, 9));
  same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    const auto eigen = symmetric_eigen(backend, a);
    MatrixXd all(420, 421);
    all << eigen.values, eigen.vectors;
    return all;
  });
}

TEST_F(Blocked, WithoutABackendHasTheBitsOfSimd) {
  const MatrixXd a = symmetric(normal_matrix(90, 90, 9));
  for (const auto& [left_out, given] :
       {std::pair{symmetric_eigen(a), symmetric_eigen(pare::simd, a)},
        std::pair{symmetric_eigen(a, 3), symmetric_eigen(pare::simd, a, 3)}}) {
    EXPECT_TRUE(equal_bits(left_out.values, given.values));
    EXPECT_TRUE(equal_bits(left_out.vectors, given.vectors));
  }
}

/// The same bounds for what is computed in T, of a matrix as T holds it.
template <class T>
void expect_leading(const MatrixXd& a, Index vectors) {
  const RowMatrix<T> held = a.cast<T>();
  const auto eigen = leading_eigen(pare::simd, pare::const_view(held), vectors);
  const Index n = a.rows();
  const MatrixXd exact = held.template cast<double>();
  const double size = at_least_tiny(exact.cwiseAbs().maxCoeff());
  const MatrixXd scaled = exact / size, u = eigen.vectors.template cast<double>();
  const Eigen::SelfAdjointEigenSolver<MatrixXd> wanted(scaled);
  const double norm = std::max(wanted.eigenvalues().cwiseAbs().maxCoeff(), 1.0);
  const double bound = 4 * static_cast<double>(n) * Tolerance<T>::unit_roundoff;
  ASSERT_EQ(u.rows(), n);
  ASSERT_EQ(u.cols(), vectors);
  const VectorXd values = eigen.values / size;
  EXPECT_LE((values - wanted.eigenvalues().reverse()).cwiseAbs().maxCoeff(), bound * norm);
  EXPECT_LE((scaled * u - u * values.head(vectors).asDiagonal()).cwiseAbs().maxCoeff(),
            bound * norm);
  EXPECT_LE((u.transpose() * u - MatrixXd::Identity(vectors, vectors)).cwiseAbs().maxCoeff(),
            bound);
}

TEST_F(Blocked, LeadingVectorsInTheScalarOfTheMatrix) {
  for (const Index n : {40, 65, 130})
    for (const Case& c : cases(n))
      for (const Index vectors : {Index{1}, n / 3, n}) {
        SCOPED_TRACE(c.name + ' ' + std::to_string(n) + ' ' + std::to_string(vectors));
        expect_leading<double>(c.a, vectors);
        // Within the range of float.
        const double size = at_least_tiny(c.a.cwiseAbs().maxCoeff());
        for (const double scale : {1.0, 1e30, 1e-30})
          expect_leading<float>(scale * (c.a / size), vectors);
      }
}

TEST_F(Blocked, AFunctionThatWantsNoneOrTooManyIsRefused) {
  for (const Index n : {40, 90}) {
    const RowMatrix<float> a = symmetric(normal_matrix(n, n, 3)).cast<float>();
    for (const Index wanted : {Index{0}, Index{-1}, n + 1})
      EXPECT_THROW(
          leading_eigen(pare::simd, pare::const_view(a), [=](const VectorXd&) { return wanted; }),
          std::invalid_argument)
          << n << ' ' << wanted;
  }
}

TEST_F(Blocked, HowManyVectorsMayDependOnTheValues) {
  for (const Index n : {50, 140}) {
    const RowMatrix<float> a = with_values(VectorXd::LinSpaced(n, 8, 1), 11).cast<float>();
    VectorXd seen;
    const auto eigen = leading_eigen(pare::simd, pare::const_view(a), [&](const VectorXd& values) {
      seen = values;
      return (values.array() > 4.5).count();
    });
    EXPECT_EQ(eigen.vectors.cols(), n / 2);
    EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end(), std::greater<>()));
    EXPECT_LE((seen - eigen.values).cwiseAbs().maxCoeff(), 1e-6);
  }
}

TEST_F(Blocked, FloatHasTheSameBitsForEveryNumberOfThreads) {
  const RowMatrix<float> a = symmetric(normal_matrix(700, 700, 9)).cast<float>();
  same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    return leading_eigen(backend, pare::const_view(a), Index{300}).vectors;
  });
}

TEST_F(Blocked, RefusesWhatIsNoMatrix) {
  const auto message = [](auto&& call) {
    try {
      call();
    } catch (const std::invalid_argument& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  const MatrixXd a = MatrixXd::Identity(70, 70);
  EXPECT_EQ(message([&] { symmetric_eigen(pare::simd, MatrixXd(3, 4)); }),
            "pare::linalg::symmetric_eigen: a: got [3, 4], wanted a square matrix of at least one "
            "row");
  EXPECT_EQ(message([&] { symmetric_eigen(pare::simd, MatrixXd(0, 0)); }),
            "pare::linalg::symmetric_eigen: a: got [0, 0], wanted a square matrix of at least one "
            "row");
  EXPECT_EQ(message([&] { symmetric_eigen(MatrixXd(3, 2)); }),
            "pare::linalg::symmetric_eigen: a: got [3, 2], wanted a square matrix of at least one "
            "row");
  const RowMatrix<float> wide(3, 4), square = RowMatrix<float>::Identity(70, 70);
  EXPECT_EQ(message([&] { leading_eigen(pare::simd, pare::const_view(wide), Index{1}); }),
            "pare::linalg::leading_eigen: a: got [3, 4], wanted a square matrix of at least one "
            "row");
  for (const Index vectors : {0, -1, 71})
    EXPECT_EQ(message([&] { leading_eigen(pare::simd, pare::const_view(square), vectors); }),
              "pare::linalg::leading_eigen: vectors: got " + std::to_string(vectors) +
                  ", wanted a number in [1, 70]");
  for (const Index vectors : {0, -1, 71})
    EXPECT_EQ(message([&] { symmetric_eigen(pare::simd, a, vectors); }),
              "pare::linalg::symmetric_eigen: vectors: got " + std::to_string(vectors) +
                  ", wanted a number in [1, 70]");
}

TEST(SymmetricEigen, HasTheBitsOfEigensSolverAndReadsTheLowerHalf) {
  for (const Index n : {1, 2, 3, 17, 48, 49, 120}) {
    MatrixXd x(n, n / 2 + 1);
    std::mt19937 bits(static_cast<std::mt19937::result_type>(n));
    for (double& value : x.reshaped()) value = std::normal_distribution<>()(bits);
    MatrixXd a = n == 17 ? MatrixXd::Zero(n, n) : MatrixXd(1e200 * x * x.transpose());
    const Eigen::SelfAdjointEigenSolver<MatrixXd> wanted(a);
    for (Index j = 0; j < n; ++j)
      for (Index i = 0; i < j; ++i) a(i, j) = 7;
    const auto eigen = symmetric_eigen(pare::reference, a);
    EXPECT_TRUE(equal_bits(eigen.values, wanted.eigenvalues())) << n;
    EXPECT_TRUE(equal_bits(eigen.vectors, wanted.eigenvectors())) << n;
    EXPECT_TRUE(equal_bits(eigen.leading<double>(1), RowMatrix<double>(eigen.vectors.col(n - 1))));
    EXPECT_EQ(eigen.leading_values(1)[0], std::max(0.0, eigen.values[n - 1]));
  }
}

}  // namespace
}  // namespace linalg_symmetric_eigen_test
