// SPDX-License-Identifier: Apache-2.0
// Truncated decompositions whose Gram matrix is decomposed as a whole, and tolerances that grow a
// rank, on spectra that are hard for either.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include <pare/factor/svd.hpp>

#include "factor/data.hpp"
#include "support/backends.hpp"

namespace factor_svd_decomposed_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::ArrayXd;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;

constexpr Index out = 150, in = 190;
constexpr double standard_excess = 0.003;

struct Spectrum {
  std::string name;
  VectorXd values;
};

std::vector<Spectrum> spectra() {
  const ArrayXd places = ArrayXd::LinSpaced(out, 0, out - 1);
  VectorXd clusters = VectorXd::Ones(out), deficient = power_spectrum(out, 0.5), cliff = clusters;
  clusters.segment(30, 60).setConstant(0.5);
  clusters.tail(60).setConstant(0.25);
  deficient.tail(100).setZero();
  cliff.tail(130).setConstant(1e-4);
  return {{"slow", power_spectrum(out, 0.1)},
          {"usual", power_spectrum(out, 0.6)},
          {"fast", power_spectrum(out, 2)},
          {"clusters", clusters},
          {"equal", VectorXd::Ones(out)},
          {"of few ranks", deficient},
          {"cliff", cliff},
          {"graded", VectorXd((-0.1 * places).exp())}};
}

template <class Case>
class SvdDecomposed : public ::testing::Test {
 public:
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
  using Scalar = typename Case::scalar;
  static LowRank<Scalar> solve(const MatrixXd& w, const SvdOptions& options) {
    return truncated_svd(Case::backend::make(), stored_in<Scalar>(w), options);
  }
  static MatrixXd held(const MatrixXd& w) { return values_of(stored_in<Scalar>(w)); }
};
TYPED_TEST_SUITE(SvdDecomposed, SolverCases);

double tail(const VectorXd& s, Index k) { return s.tail(s.size() - k).norm(); }

TYPED_TEST(SvdDecomposed, ErrorsAreWithinTheExcess) {
  using T = typename TypeParam::scalar;
  if (TypeParam::backend::is_reference) return;  // has no routes, and is slow at this size
  for (const Spectrum& spectrum : spectra())
    for (const double scale : {1.0, 1e15, 1e-15}) {
      const MatrixXd w = this->held(scale * with_spectrum(out, in, spectrum.values, 3));
      const VectorXd s = jacobi_values(w);
      for (const Index k : {30, 75, 140}) {
        SCOPED_TRACE(testing::Message() << spectrum.name << ' ' << scale << ' ' << k);
        const auto r = this->solve(w, {.rank = k});
        ASSERT_EQ(r.rank(), k);
        const double error = (w - product(r)).norm();
        const double slack = rounding_bound(r) + projection_bound<T>(out + in, k, s.norm());
        EXPECT_LE(error, (1 + standard_excess) * tail(s, k) + slack);
        EXPECT_GE(r.error_bound, error * (1 - 1e-6));
        // Values are known to a few roundings of the largest, in float of its square.
        const double unit = std::is_same_v<T, float> ? 3e-4 : 1e-7;
        EXPECT_LE((r.singular_values - s.head(k)).cwiseAbs().maxCoeff(),
                  unit * s[0] + standard_excess * s[0]);
        const auto again = this->solve(w, {.rank = k, .accuracy = Accuracy::High});
        EXPECT_LE((w - product(again)).norm(), (1 + 1e-4) * tail(s, k) + slack);
      }
    }
}

TYPED_TEST(SvdDecomposed, TolerancesAreMetByTheLeastRank) {
  if (TypeParam::backend::is_reference) return;
  for (const Spectrum& spectrum : spectra()) {
    const MatrixXd w = this->held(with_spectrum(out, in, spectrum.values, 5));
    const VectorXd s = jacobi_values(w);
    for (const Route route : {Route::Auto, Route::Gram, Route::Randomized})
      for (const double tolerance : {0.8, 0.4, 0.1, 0.01}) {
        SCOPED_TRACE(testing::Message()
                     << spectrum.name << ' ' << static_cast<int>(route) << ' ' << tolerance);
        const auto r = this->solve(w, {.tolerance = tolerance, .route = route});
        const double slack = 2 * rounding_bound(r);
        EXPECT_LE((w - product(r)).norm(), tolerance * s.norm() + slack);
        EXPECT_GT((1 + standard_excess) * tail(s, r.rank() - 1) + slack, tolerance * s.norm());
      }
  }
}

}  // namespace
}  // namespace factor_svd_decomposed_test
