// SPDX-License-Identifier: Apache-2.0
// The reference of the closed forms with weights on outputs, inputs and both.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include <pare/factor/reference.hpp>

#include "factor/data.hpp"

namespace factor_reference_weighted_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::to_view;

template <class M>
LowRank<double> factor_of(const MatrixXd& w, const M& metric, const SvdOptions& options) {
  return detail::reference_factorize("factor::factorize", as_const(to_view(w)), metric, options);
}

/// Weights of a problem, ones where a side is not weighed, and the reference's answer.
struct Problem {
  MatrixXd w;
  VectorXd output, input;
  bool outputs, inputs;

  LowRank<double> solve(const SvdOptions& options) const {
    if (outputs && inputs) return factor_of(w, BothWeights(output, input), options);
    if (outputs) return factor_of(w, OutputWeights(output), options);
    if (inputs) return factor_of(w, InputWeights(input), options);
    return factor_of(w, Uniform{}, options);
  }
  double objective(const MatrixXd& x) const { return weighted_objective(w, x, output, input); }
  MatrixXd weighted() const {
    return output.cwiseSqrt().asDiagonal() * w * input.cwiseSqrt().asDiagonal();
  }
  double bound() const {
    const double size = weighted().norm();
    return 2 * size * decomposition_bound(w.rows(), w.cols(), size);
  }
};

Problem problem(bool outputs, bool inputs, Index out = 18, Index in = 25) {
  Problem p{with_spectrum(out, in, power_spectrum(std::min(out, in), 0.5), 1), VectorXd::Ones(out),
            VectorXd::Ones(in), outputs, inputs};
  if (outputs) p.output = positive_weights(out, 2);
  if (inputs) p.input = positive_weights(in, 3);
  return p;
}

std::vector<Problem> problems() {
  std::vector<Problem> list;
  for (const bool outputs : {false, true})
    for (const bool inputs : {false, true}) {
      list.push_back(problem(outputs, inputs));
      list.push_back(problem(outputs, inputs, 25, 18));
    }
  return list;
}

/// Some weights of each weighed side are 0: fewer positive ones than the rank in the last case.
std::vector<Problem> problems_with_zeros() {
  std::vector<Problem> list;
  for (Problem p : problems()) {
    if (!p.outputs && !p.inputs) continue;
    if (p.outputs) p.output(3) = p.output(7) = p.output(p.output.size() - 1) = 0;
    if (p.inputs) p.input(0) = p.input(11) = 0;
    list.push_back(p);
    if (p.outputs) p.output.tail(p.output.size() - 4).setZero();
    if (p.inputs) p.input.head(p.input.size() - 4).setZero();
    list.push_back(p);
  }
  return list;
}

void expect_optimal(const Problem& p, Index k) {
  for (const Split split : {Split::Natural, Split::Left, Split::Both, Split::Right}) {
    const auto r = p.solve({.rank = k, .split = split});
    ASSERT_TRUE(r.left.allFinite() && r.right.allFinite());
    EXPECT_TRUE(within(p.objective(product(r)), tail_energy(p.weighted(), k), p.bound()))
        << p.outputs << p.inputs << " rank " << k << " split " << static_cast<int>(split);
    EXPECT_TRUE(within(r.total_energy, p.weighted().squaredNorm(), p.bound()));
    EXPECT_TRUE(within(r.total_energy - r.captured_energy, p.objective(product(r)), p.bound()));
    EXPECT_TRUE(within(r.error_bound * r.error_bound, p.objective(product(r)), p.bound()));
  }
}

TEST(ReferenceWeightedSvd, ObjectiveIsTheTailInTheMetric) {
  for (const Problem& p : problems())
    for (const Index k : {1, 5, 17, 18}) expect_optimal(p, k);
}

TEST(ReferenceWeightedSvd, ZeroWeightsStillGiveTheOptimum) {
  for (const Problem& p : problems_with_zeros())
    for (const Index k : {1, 5, 17, 18}) expect_optimal(p, k);
}

TEST(ReferenceWeightedSvd, AnOutputWithoutWeightIsProjected) {
  Problem p = problem(true, false);
  p.output(7) = 0;
  const auto r = p.solve({.rank = 6});
  const MatrixXd wanted = p.w.row(7) * r.right.transpose() * r.right;
  EXPECT_GT(wanted.norm(), 0.1 * p.w.row(7).norm());
  EXPECT_TRUE(
      within((product(r).row(7) - wanted).norm(), 0, decomposition_bound(18, 25, p.w.norm())));
}

TEST(ReferenceWeightedSvd, NoOtherFactorsDoBetter) {
  for (const Problem& p : problems()) {
    const Index k = 4;
    const auto r = p.solve({.rank = k});
    const double best = p.objective(product(r));
    EXPECT_LE(best, p.objective(product(factor_of(p.w, Uniform{}, {.rank = k}))) + p.bound());
    for (std::uint64_t seed = 0; seed < 500; ++seed) {
      // Neighbours of the optimum, and for each a projection onto a random subspace.
      const MatrixXd left = r.left + 1e-3 * normal_matrix(p.w.rows(), k, 100 + seed);
      const MatrixXd right = r.right + 1e-3 * normal_matrix(k, p.w.cols(), 700 + seed);
      EXPECT_LE(best, p.objective(left * right));
      const MatrixXd q = orthonormal(p.w.cols(), k, 1300 + seed);
      EXPECT_LE(best, p.objective(p.w * q * q.transpose()));
    }
  }
}

TEST(ReferenceWeightedSvd, EqualWeightsAreThePlainDecomposition) {
  const Problem p = problem(false, false);
  const MatrixXd plain = product(p.solve({.rank = 5}));
  for (const double c : {1e-6, 1.0, 7.0, 1e9}) {
    const VectorXd output = VectorXd::Constant(18, c), input = VectorXd::Constant(25, c);
    const double bound = 1e3 * decomposition_bound(18, 25, p.w.norm());  // gap 5^-.5 - 6^-.5 > 1e-3
    for (const auto& r : {factor_of(p.w, OutputWeights(output), {.rank = 5}),
                          factor_of(p.w, InputWeights(input), {.rank = 5}),
                          factor_of(p.w, BothWeights(output, input), {.rank = 5})})
      EXPECT_TRUE(within((product(r) - plain).norm(), 0, bound)) << c;
  }
}

TEST(ReferenceWeightedSvd, ScalingTheWeightsScalesOnlyTheEnergies) {
  for (const Problem& p : problems()) {
    Problem scaled = p;
    if (p.outputs) scaled.output *= 1024;
    if (p.inputs) scaled.input *= 1024;
    const double factor = (p.outputs ? 1024.0 : 1) * (p.inputs ? 1024.0 : 1);
    const auto r = p.solve({.rank = 6}), s = scaled.solve({.rank = 6});
    // Powers of 4 do not even change the rounding. With both sides the right factor has the root of
    // the output weights in it.
    const double moved = p.outputs && p.inputs ? 32 : 1;
    EXPECT_TRUE(equal_bits(r.left, RowMatrix<double>(moved * s.left)));
    EXPECT_TRUE(equal_bits(RowMatrix<double>(moved * r.right), s.right));
    EXPECT_TRUE(within(s.total_energy, factor * r.total_energy, 0));
    EXPECT_TRUE(within(s.captured_energy, factor * r.captured_energy, 0));
  }
}

TEST(ReferenceWeightedSvd, FullRankIsExact) {
  for (const Problem& p : problems()) {
    const auto r = p.solve({.rank = 18});
    // D and R are undone: errors grow by the ratio of the largest to the least root weight.
    const double condition = std::sqrt(p.output.maxCoeff() / p.output.minCoeff() *
                                       p.input.maxCoeff() / p.input.minCoeff());
    EXPECT_TRUE(
        within((product(r) - p.w).norm(), 0, condition * decomposition_bound(18, 25, p.w.norm())));
  }
}

TEST(ReferenceWeightedSvd, PermutingOutputsPermutesTheLeftFactor) {
  const Problem p = problem(true, false);
  Eigen::PermutationMatrix<Eigen::Dynamic> order(18);
  for (int i = 0; i < 18; ++i) order.indices()(i) = (i * 5 + 2) % 18;
  Problem q = p;
  q.w = order * p.w;
  q.output = order * p.output;
  const auto r = p.solve({.rank = 5}), s = q.solve({.rank = 5});
  const MatrixXd projector = r.right.transpose() * r.right;
  const double bound = 1e3 * decomposition_bound(18, 25, 1);
  EXPECT_TRUE(within((s.right.transpose() * s.right - projector).norm(), 0, bound));
  EXPECT_TRUE(within((product(s) - order * product(r)).norm(), 0, bound * p.w.norm()));
}

TEST(ReferenceWeightedSvd, SidesAreTransposesOfEachOther) {
  const Problem p = problem(true, false);
  const MatrixXd t = p.w.transpose();
  const auto r = p.solve({.rank = 5});
  const auto s = factor_of(t, InputWeights(p.output), {.rank = 5});
  EXPECT_TRUE(within((product(r) - product(s).transpose()).norm(), 0,
                     1e3 * decomposition_bound(18, 25, p.w.norm())));
}

TEST(ReferenceWeightedSvd, RankOneElementWeightsAreBothWeights) {
  const Problem p = problem(true, true);
  const auto r = p.solve({.rank = 3});
  EXPECT_TRUE(within(elementwise_objective(p.w, product(r), p.output * p.input.transpose()),
                     tail_energy(p.weighted(), 3), p.bound()));
}

/// A metric of a user, in few lines: outputs that count twice.
struct EvenOutputsTwice : Uniform {
  explicit EvenOutputsTwice(Index out) : weights(static_cast<std::size_t>(out), 1.0) {
    for (std::size_t i = 0; i < weights.size(); i += 2) weights[i] = 2;
  }
  std::span<const double> output_weights() const { return weights; }
  std::vector<double> weights;
};

TEST(ReferenceWeightedSvd, TakesAUsersMetric) {
  const Problem p = problem(false, false);
  const EvenOutputsTwice metric(18);
  const auto wanted = factor_of(p.w, OutputWeights(metric.weights), {.rank = 4});
  EXPECT_TRUE(equal_bits(factor_of(p.w, metric, {.rank = 4}).left, wanted.left));
}

TEST(ReferenceWeightedSvd, ToleranceIsInTheMetric) {
  Problem p = problem(true, false);
  p.output.setZero();
  p.output(4) = 1;
  const auto r = p.solve({.tolerance = 1e-6});
  EXPECT_EQ(r.rank(), 1) << "one output has weight";
  EXPECT_GT((p.w - product(r)).norm(), 0.5 * p.w.norm());
}

TEST(ReferenceWeightedSvd, RefusesBadWeights) {
  const MatrixXd w = normal_matrix(5, 4, 9);
  const auto refused = [&](const auto& metric, const char* argument) {
    refusal([&] { factor_of(w, metric, {.rank = 2}); }, "factor::factorize", argument);
  };
  for (const double bad :
       {-1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    VectorXd output = VectorXd::Ones(5), input = VectorXd::Ones(4);
    output(4) = input(0) = bad;
    refused(OutputWeights(output), "output_weights");
    refused(InputWeights(input), "input_weights");
    refused(BothWeights(VectorXd(VectorXd::Ones(5)), input), "input_weights");
  }
  refused(OutputWeights(VectorXd::Zero(5)), "output_weights");
  refused(InputWeights(VectorXd::Zero(4)), "input_weights");
  refused(OutputWeights(VectorXd::Ones(4)), "output_weights");
  refused(InputWeights(VectorXd::Ones(5)), "input_weights");
}

}  // namespace
}  // namespace factor_reference_weighted_test
