// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <pare/feature/leap/leap.hpp>

#include "feature/batches.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace feature_leap_test {
namespace {

using namespace pare::testing;
using Eigen::MatrixXd;
using pare::Index;
using pare::feature::DonorPolicy;
using pare::feature::EvalMode;
using pare::feature::FieldBatch;
using pare::feature::FieldStatus;
using pare::feature::Leap;
using pare::feature::LeapOptions;
using pare::feature::MixGradients;
using pare::feature::Penalty;
using pare::feature::Ranking;
using pare::feature::SparseExchange;
using pare::feature::SparseFields;
using pare::feature::SparseMix;
using pare::optim::Gate;
using pare::optim::GateKind;
using pare::optim::GateOptions;

template <class Case>
struct LeapTest : testing::Test {};
TYPED_TEST_SUITE(LeapTest, BackendsAndScalars);

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr Penalty penalties[] = {Penalty::Uniform, Penalty::SqrtWidth, Penalty::Rms,
                                 Penalty::L2,      Penalty::L1,        Penalty::Squared};
constexpr GateKind kinds[] = {GateKind::Sigmoid, GateKind::GumbelSigmoid, GateKind::HardConcrete,
                              GateKind::Stg, GateKind::StraightThrough};

const FieldLayout widths({1, 3, 8, 17, 1});
constexpr Index rows = 37;
const std::vector<double> some_thetas{-0.4, 0.3, 0.05, -0.1, 0.5};

double sigma(double t) { return 1 / (1 + std::exp(-t)); }

/// Of g (1 - g) on two sides, each with an exponential, two roundings and a difference that cancels
/// where g is near 1.
double slope_bound(double gate) { return Tolerance<double>::gamma(12) / (1 - gate); }

/// Of lambda on two sides: a ratio of roots of sums of positive terms, at most all of the batch.
template <class T>
double weight_bound() {
  return 2 * sum_bound<T>(static_cast<double>(rows * widths.dim())) + Tolerance<double>::gamma(16);
}

std::vector<double> values_of(std::span<const double> v) { return {v.begin(), v.end()}; }

std::vector<double> donors_of(const Donors& donors) {
  std::vector<double> all;
  for (Index j = 0; j < donors.layout().fields(); ++j)
    for (Index b = 0; b < donors.rows(); ++b)
      all.push_back(static_cast<double>(donors.donor(j, b)));
  return all;
}

template <class T>
Eigen::Matrix<T, -1, -1> as(const MatrixXd& m) {
  return m.cast<T>();
}

/// q_j by its definition.
std::vector<double> divergences_by_formula(Penalty penalty, const MatrixXd& x,
                                           const Donors& donors) {
  const MatrixXd delta = x - permuted(x, donors);
  const FieldLayout& layout = donors.layout();
  const auto count = static_cast<double>(x.rows());
  std::vector<double> q;
  for (Index j = 0; j < layout.fields(); ++j) {
    const auto d = delta.middleCols(layout.offset(j), layout.width(j));
    switch (penalty) {
      case Penalty::Uniform:
        q.push_back(1);
        break;
      case Penalty::SqrtWidth:
        q.push_back(std::sqrt(static_cast<double>(layout.width(j))));
        break;
      case Penalty::Rms:
        q.push_back(std::sqrt(d.squaredNorm() / count));
        break;
      case Penalty::L2:
        q.push_back(d.rowwise().norm().sum() / count);
        break;
      case Penalty::L1:
        q.push_back(d.cwiseAbs().sum() / count);
        break;
      case Penalty::Squared:
        q.push_back(d.squaredNorm() / count);
        break;
    }
  }
  return q;
}

/// lambda_j = max(floor, q_j / mean q), the mean over numbers.
std::vector<double> weights_by_formula(const std::vector<double>& q, double floor = 0) {
  double sum = 0, count = 0;
  for (const double value : q)
    if (std::isfinite(value)) {
      sum += value;
      ++count;
    }
  std::vector<double> weights;
  for (const double value : q)
    weights.push_back(std::isfinite(value) ? std::max(floor, value / (sum / count)) : 0);
  return weights;
}

/// A forward and a backward pass under the loss sum_i w_i x'_i^2 / 2.
template <class T, class B>
void quadratic_passes(const B& backend, Leap<T>& leap, const OwnedBatch<T>& x,
                      const MatrixXd& weights) {
  OwnedBatch<T> mixed(leap.layout(), x.batch().rows, x.batch().storage),
      upstream(leap.layout(), x.batch().rows, x.batch().storage);
  leap.forward(backend, x.batch(), mixed.batch());
  upstream.set(weights.cwiseProduct(mixed.get()));
  leap.backward_gates(backend, upstream.batch());
}

/// The passes of the layer are those of the mix, under the donors of the draw and sigma(5 theta).
TYPED_TEST(LeapTest, PassesAreThoseOfTheMixUnderItsGatesAndDonors) {
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  const auto exact = as<T>(normal_batch<T>(rows, widths.dim(), 1));
  const auto upstream = as<T>(normal_batch<T>(rows, widths.dim(), 2));
  for (const bool detach : {true, false}) {
    Leap<T> leap(widths, {.penalty = Penalty::L2, .detach = detach, .seed = 6});
    auto mixed = exact, grad_x = exact, wanted = exact, wanted_grad = exact;
    EXPECT_TRUE(leap.sampled_gates().empty());
    for (std::uint64_t step = 0; step < 3; ++step) {
      const Donors donors(DonorPolicy::BaseShift, 6, step, rows, widths);
      leap.forward(backend, exact, mixed);
      EXPECT_EQ(donors_of(leap.donors()), donors_of(donors));
      const std::vector<double> gates = values_of(leap.sampled_gates());
      ASSERT_EQ(gates.size(), 5u);
      for (const double gate : gates)
        EXPECT_TRUE(within(gate, sigma(5), Tolerance<double>::gamma(4)));
      mix_forward(backend, exact, gates, donors, wanted);
      EXPECT_TRUE(equal_bits(mixed, wanted));
      leap.backward(backend, upstream, grad_x);
      MixGradients gradients;
      mix_backward(backend, exact, gates, donors, upstream, wanted_grad, gradients,
                   {.detach = detach, .norms = true});
      EXPECT_TRUE(equal_bits(grad_x, wanted_grad));
      EXPECT_EQ(leap.gradients().gates, gradients.gates);
      EXPECT_EQ(leap.gradients().divergence.squared, gradients.divergence.squared);
      EXPECT_EQ(leap.gradients().divergence.norms, gradients.divergence.norms);
      leap.backward_gates(backend, upstream);
      EXPECT_EQ(leap.gradients().gates.size(), 5u);
    }
    EXPECT_EQ(leap.steps(), 0);
  }
}

/// T2 for theta: the slope of sum_i w_i x'_i^2 / 2 + (alpha / F) sum_j lambda_j g_j, lambda being a
/// constant, by differences of the fourth order.
TYPED_TEST(LeapTest, ThetaGradientsAreTheSlopesOfLossAndPenalty) {
  using T = typename TypeParam::scalar;
  const MatrixXd exact = normal_batch<T>(rows, widths.dim(), 1);
  const MatrixXd w = normal_batch<T>(rows, widths.dim(), 5) / 8;
  OwnedBatch<T> x(widths, rows, Storage::RowMajor);
  x.set(exact);
  for (const Penalty penalty : penalties)
    for (const double floor : {0.0, 1.3}) {
      constexpr double alpha = 40;
      Leap<T> leap(widths,
                   {.alpha_per_field = alpha / 5, .penalty = penalty, .penalty_floor = floor});
      leap.set_thetas(some_thetas);
      quadratic_passes(TypeParam::backend::make(), leap, x, w);
      const std::vector<double> got = leap.theta_gradients();
      const std::vector<double> lambda =
          weights_by_formula(divergences_by_formula(penalty, exact, leap.donors()), floor);
      const auto loss = [&](std::size_t j, double by) {
        std::vector<double> gates;
        double charged = 0;
        for (std::size_t k = 0; k < 5; ++k) {
          gates.push_back(sigma(5 * (some_thetas[k] + (k == j ? by : 0))));
          charged += alpha / 5 * lambda[k] * gates[k];
        }
        const MatrixXd mixed = mixed_by_formula(exact, leap.donors(), gates);
        return 0.5 * w.cwiseProduct(mixed.cwiseAbs2()).sum() + charged;
      };
      const double size = loss(0, 0) + w.cwiseAbs().sum();
      constexpr double h = 1e-3;
      for (std::size_t j = 0; j < 5; ++j) {
        const double slope =
            (8 * (loss(j, h) - loss(j, -h)) - (loss(j, 2 * h) - loss(j, -2 * h))) / (12 * h);
        EXPECT_NEAR(got[j], slope, (sizeof(T) == 4 ? 1e-5 : 1e-9) * size)
            << static_cast<int>(penalty) << ' ' << j;
        EXPECT_TRUE(within(leap.penalty_weights()[j], lambda[j], weight_bound<T>() * lambda[j]));
      }
    }
}

/// Two layers with the same thetas after the same passes: gradients but for the order of sums, the
/// terms of which are `slopes`.
template <class T>
void expect_same_but_for_order(Leap<T>& got, Leap<T>& wanted, const MatrixXd& slopes) {
  EXPECT_EQ(donors_of(got.donors()), donors_of(wanted.donors()));
  EXPECT_EQ(values_of(got.sampled_gates()), values_of(wanted.sampled_gates()));
  const std::vector<double> a = got.theta_gradients(), b = wanted.theta_gradients();
  for (Index j = 0; j < widths.fields(); ++j) {
    const auto i = static_cast<std::size_t>(j);
    const double gate = wanted.sampled_gates()[i], slope = 5 * gate * (1 - gate);
    const auto own = slopes.middleCols(widths.offset(j), widths.width(j));
    const double bound = 2 * sum_bound<T>(static_cast<double>(own.size()));
    const double lambda = wanted.penalty_weights()[i], off = weight_bound<T>() * lambda;
    const double share = wanted.options().alpha_per_field;
    EXPECT_TRUE(within(got.penalty_weights()[i], lambda, off)) << j;
    EXPECT_TRUE(within(a[i], b[i], slope * (bound * own.cwiseAbs().sum() + share * off))) << j;
  }
}

TYPED_TEST(LeapTest, EveryStorageAndSparseBatchesLearnTheSame) {
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  MatrixXd exact = normal_batch<T>(rows, widths.dim(), 1);
  for (Index j = 1; j < widths.fields(); ++j)
    for (Index b = 0; b < rows; ++b)
      if ((b + j) % 3 != 0) exact.block(b, widths.offset(j), 1, widths.width(j)).setZero();
  const MatrixXd upstream = normal_batch<T>(rows, widths.dim(), 2);
  const LeapOptions options{.alpha_per_field = 0.6, .learning_rate = 0.05, .min_active = 2};
  Leap<T> dense(widths, options), blocked(widths, options), sparse(widths, options);
  OwnedBatch<T> x(widths, rows, Storage::RowMajor), g(widths, rows, Storage::RowMajor),
      mixed(widths, rows, Storage::RowMajor), x_blocked(widths, rows, Storage::FieldBlocked),
      g_blocked(widths, rows, Storage::FieldBlocked),
      mixed_blocked(widths, rows, Storage::FieldBlocked);
  x.set(exact);
  x_blocked.set(exact);
  g.set(upstream);
  g_blocked.set(upstream);
  const SparseFields<T> entries = to_sparse(widths, x.batch());
  SparseMix<T> mixed_entries;
  for (int step = 0; step < 3; ++step) {
    dense.forward(backend, x.batch(), mixed.batch());
    dense.backward_gates(backend, g.batch());
    blocked.forward(backend, x_blocked.batch(), mixed_blocked.batch());
    blocked.backward_gates(backend, g_blocked.batch());
    sparse.forward(backend, entries, mixed_entries);
    SparseFields<T> upstream_entries = mixed_entries.fields(), grad_x;
    read_entries(g.read(), upstream_entries);
    if (step == 1)
      sparse.backward(backend, entries, mixed_entries, upstream_entries, grad_x);
    else
      sparse.backward_gates(backend, entries, mixed_entries, upstream_entries);
    EXPECT_EQ(grad_x.entries(), step == 1 ? entries.entries() : 0);
    const MatrixXd slopes = (exact - permuted(exact, dense.donors())).cwiseProduct(upstream);
    expect_same_but_for_order(blocked, dense, slopes);
    expect_same_but_for_order(sparse, dense, slopes);
    dense.step_gates();
    for (Leap<T>* other : {&blocked, &sparse}) {
      other->step_gates();
      EXPECT_EQ(other->ranking().status, dense.ranking().status);
      for (Index j = 0; j < 5; ++j) EXPECT_EQ(other->active_batches(j), dense.active_batches(j));
      other->set_thetas(dense.thetas());
    }
  }
}

/// With an upstream gradient of 0 there is the penalty alone.
TEST(Leap, ThePenaltyGrowsOverTheWarmUp) {
  const auto x = normal_batch<double>(rows, widths.dim(), 1);
  const MatrixXd none = MatrixXd::Zero(rows, widths.dim());
  Leap<double> leap(widths, {.alpha_per_field = 0.4, .learning_rate = 0.01, .warmup_steps = 4});
  MatrixXd mixed = x;
  for (int step = 0; step < 7; ++step) {
    leap.forward(x, mixed);
    leap.backward_gates(none);
    const std::vector<double> got = leap.theta_gradients();
    const std::vector<double> lambda =
        weights_by_formula(divergences_by_formula(Penalty::Rms, x, leap.donors()));
    const double share = std::min(step, 4) / 4.0;
    for (std::size_t j = 0; j < 5; ++j) {
      const double gate = sigma(5 * leap.thetas()[j]);
      const double wanted = share * 2 / 5 * lambda[j] * 5 * gate * (1 - gate);
      EXPECT_TRUE(within(got[j], wanted, (weight_bound<double>() + slope_bound(gate)) * wanted))
          << step << ' ' << j;
      EXPECT_EQ(got[j] == 0, step == 0);
    }
    leap.step_gates();
    EXPECT_EQ(leap.steps(), step + 1);
  }
}

TEST(Leap, AStepIsThatOfAdam) {
  OwnedBatch<double> x(widths, rows, Storage::RowMajor);
  x.set(normal_batch<double>(rows, widths.dim(), 1));
  const MatrixXd w = normal_batch<double>(rows, widths.dim(), 5) / 8;
  Leap<double> leap(widths, {.learning_rate = 0.03});
  std::vector<double> thetas(5, 1.0), mean(5, 0.0), square(5, 0.0), size(5, 0.0), off(5, 0.0);
  for (int t = 1; t <= 3; ++t) {
    quadratic_passes(pare::simd, leap, x, w);
    const std::vector<double> g = leap.theta_gradients();
    leap.step_gates();
    for (std::size_t j = 0; j < 5; ++j) {
      mean[j] = 0.9 * mean[j] + 0.1 * g[j];
      size[j] = 0.9 * size[j] + 0.1 * std::abs(g[j]);
      square[j] = 0.999 * square[j] + 0.001 * g[j] * g[j];
      const double scale =
          0.03 / (1 - std::pow(0.9, t)) / (std::sqrt(square[j] / (1 - std::pow(0.999, t))) + 1e-8);
      thetas[j] -= scale * mean[j];
      // 1 - 0.999 and 1 - 0.999^t cancel a thousandfold, on either side.
      off[j] += Tolerance<double>::gamma(4000) * scale * size[j] + Tolerance<double>::gamma(4);
      EXPECT_TRUE(within(leap.thetas()[j], thetas[j], off[j])) << t << ' ' << j;
      // The size of the first step is the rate, whatever that of the gradient.
      if (t == 1) {
        EXPECT_NEAR(std::abs(leap.thetas()[j] - 1), 0.03, off[j] + 0.03 * 1e-8 / std::abs(g[j]));
      }
    }
  }
}

TEST(Leap, TheTemperatureFollowsItsSchedule) {
  GateOptions gate;
  gate.temperature = {.start = 2, .end = 32, .steps = 4};
  gate.theta0 = 0.25;
  Leap<double> leap(widths, {.gate = gate, .learning_rate = 1e-3});
  OwnedBatch<double> x(widths, rows, Storage::FieldBlocked);
  x.set(normal_batch<double>(rows, widths.dim(), 1));
  for (const double temperature : {2.0, 4.0, 8.0, 16.0, 32.0, 32.0}) {
    const std::vector<double> thetas = values_of(leap.thetas());
    EXPECT_NEAR(thetas[0], 0.25, 6e-3);
    quadratic_passes(pare::simd, leap, x, x.get());
    for (std::size_t j = 0; j < 5; ++j) {
      const double wanted = sigma(temperature * thetas[j]);
      const double bound = Tolerance<double>::gamma(8) * (1 + temperature);
      EXPECT_TRUE(within(leap.sampled_gates()[j], wanted, bound));
      EXPECT_TRUE(within(leap.gates()[j], wanted, bound));
    }
    leap.step_gates();
  }
}

/// A batch in which field `still` is at its default in every row.
MatrixXd batch_without(Index still, std::uint64_t seed) {
  MatrixXd x = normal_batch<double>(rows, widths.dim(), seed);
  if (still >= 0) x.middleCols(widths.offset(still), widths.width(still)).setConstant(0.75);
  return x;
}

/// T13, dense.
TEST(Leap, AFieldAtItsDefaultInTheWholeBatchHasAGradientOfExactlyZero) {
  const MatrixXd upstream = normal_batch<double>(rows, widths.dim(), 2);
  for (const Penalty penalty : {Penalty::Rms, Penalty::L2, Penalty::L1, Penalty::Squared})
    for (const bool lazy : {true, false}) {
      Leap<double> leap(widths, {.penalty = penalty, .learning_rate = 0.1, .lazy = lazy});
      MatrixXd mixed(rows, widths.dim());
      const auto step = [&](const MatrixXd& x) {
        leap.forward(x, mixed);
        leap.backward_gates(upstream);
        const std::vector<double> gradients = leap.theta_gradients();
        leap.step_gates();
        return gradients;
      };
      // A momentum that would carry the gate on.
      EXPECT_NE(step(batch_without(-1, 1))[2], 0);
      for (int repeat = 0; repeat < 3; ++repeat) {
        const std::vector<double> before = values_of(leap.thetas());
        const std::vector<double> gradients = step(batch_without(2, 3));
        EXPECT_EQ(gradients[2], 0);
        EXPECT_EQ(leap.penalty_weights()[2], 0);
        EXPECT_EQ(same_bits(leap.thetas()[2], before[2]), lazy);
        for (const std::size_t j : {0u, 1u, 3u, 4u}) {
          EXPECT_NE(gradients[j], 0);
          EXPECT_NE(leap.thetas()[j], before[j]);
        }
      }
      EXPECT_EQ(leap.active_batches(2), 1);
      EXPECT_EQ(leap.active_batches(1), 4);
    }
}

/// T13, sparse: no entry at all.
TEST(Leap, AFieldWithoutEntriesHasAGradientOfExactlyZero) {
  Leap<float> leap(widths, {.learning_rate = 0.1, .lazy = true});
  SparseMix<float> mixed;
  const auto step = [&](const MatrixXd& exact) {
    const std::vector<float> defaults(static_cast<std::size_t>(widths.dim()), 0.75f);
    const auto x = to_sparse(widths, as<float>(exact), defaults);
    leap.forward(x, mixed);
    leap.backward_gates(x, mixed, mixed.fields());
    const std::vector<double> gradients = leap.theta_gradients();
    leap.step_gates();
    return gradients;
  };
  EXPECT_NE(step(batch_without(-1, 1))[3], 0);
  const double before = leap.thetas()[3];
  EXPECT_EQ(step(batch_without(3, 2))[3], 0);
  EXPECT_TRUE(same_bits(leap.thetas()[3], before));
  EXPECT_EQ(leap.active_batches(3), 1);
}

/// A floor, and penalties that look at no data, charge such a field too.
TEST(Leap, AFloorChargesFieldsThatNeverMove) {
  const MatrixXd x = batch_without(2, 1), upstream = normal_batch<double>(rows, widths.dim(), 2);
  for (const LeapOptions& options :
       {LeapOptions{.alpha_per_field = 0.2, .penalty_floor = 0.5},
        LeapOptions{.alpha_per_field = 0.2, .penalty = Penalty::Uniform}}) {
    Leap<double> leap(widths, options);
    MatrixXd mixed = x;
    leap.forward(x, mixed);
    leap.backward_gates(upstream);
    const double lambda = options.penalty == Penalty::Uniform ? 1 : 0.5;
    const double wanted = lambda / 5 * 5 * sigma(5) * (1 - sigma(5));
    EXPECT_TRUE(within(leap.theta_gradients()[2], wanted, slope_bound(sigma(5)) * wanted));
  }
}

/// T14.
TEST(Leap, AConstantColumnIsInactiveAndLast) {
  const FieldLayout layout({2, 1, 1});
  MatrixXd x = normal_batch<double>(rows, 4, 1);
  x.col(2).setConstant(3);
  const MatrixXd none = MatrixXd::Zero(rows, 4);
  Leap<double> leap(layout, {.alpha_per_field = 1.0 / 3, .learning_rate = 0.05, .min_active = 3});
  MatrixXd mixed = x;
  for (int step = 0; step < 40; ++step) {
    leap.forward(x, mixed);
    leap.backward_gates(none);
    leap.step_gates();
  }
  // It keeps a gate near 1 while all others, which cost and give nothing, close.
  EXPECT_EQ(leap.thetas()[1], 1);
  EXPECT_LT(leap.gates()[0], 0.1);
  EXPECT_LT(leap.gates()[2], 0.1);
  const auto ranking = leap.ranking();
  EXPECT_EQ(ranking.status[1], FieldStatus::Inactive);
  EXPECT_EQ(ranking.status[0], FieldStatus::Ok);
  EXPECT_EQ(ranking.status[2], FieldStatus::Ok);
  EXPECT_EQ(ranking.order.back(), 1);
  EXPECT_EQ(ranking.scores[1], 0);
  EXPECT_EQ(ranking.scores[0], leap.gates()[0]);
  EXPECT_TRUE(above(ranking).empty());
  EXPECT_EQ(leap.mean_displacement(1), 0);
}

TEST(Leap, EvidenceCountsTheStepsThatSaidSomething) {
  Leap<double> leap(widths, {.min_active = 3});
  MatrixXd mixed(rows, widths.dim());
  const MatrixXd upstream = normal_batch<double>(rows, widths.dim(), 2);
  for (Index j = 0; j < 5; ++j) EXPECT_EQ(leap.mean_displacement(j), 0);
  EXPECT_EQ(leap.ranking().status, std::vector<FieldStatus>(5, FieldStatus::Inactive));
  std::vector<double> displacement(5, 0.0);
  for (const Index still : {-1, 1, 4, 1}) {
    const MatrixXd x = batch_without(still, static_cast<std::uint64_t>(still + 8));
    leap.forward(x, mixed);
    leap.backward_gates(upstream);
    // Passes count nothing, steps do.
    leap.backward_gates(upstream);
    leap.step_gates();
    const auto q = divergences_by_formula(Penalty::Rms, x, leap.donors());
    for (std::size_t j = 0; j < 5; ++j) displacement[j] += q[j] / 4;
  }
  const std::vector<Index> active{4, 2, 4, 4, 3};
  const auto ranking = leap.ranking();
  for (Index j = 0; j < 5; ++j) {
    const auto i = static_cast<std::size_t>(j);
    EXPECT_EQ(leap.active_batches(j), active[i]);
    EXPECT_EQ(leap.nonfinite_batches(j), 0);
    EXPECT_TRUE(within(leap.mean_displacement(j), displacement[i],
                       weight_bound<double>() * displacement[i]));
    EXPECT_EQ(ranking.status[i], j == 1 ? FieldStatus::Undetermined : FieldStatus::Ok);
    EXPECT_EQ(ranking.scores[i], leap.gates()[i]) << "undetermined fields keep their score";
  }
}

/// Of x or of the upstream gradient; the penalty is shared out among the fields with numbers.
TEST(Leap, ANanInOneFieldDoesNotTouchTheOthersGates) {
  const MatrixXd x = normal_batch<double>(rows, widths.dim(), 1);
  const MatrixXd upstream = normal_batch<double>(rows, widths.dim(), 2);
  for (const double bad : {nan, infinity})
    for (const bool in_x : {true, false})
      for (const Penalty penalty : penalties) {
        MatrixXd bad_x = x, bad_upstream = upstream, mixed = x;
        (in_x ? bad_x : bad_upstream)(4, widths.offset(2) + 3) = bad;
        Leap<double> leap(widths,
                          {.alpha_per_field = 0.8, .penalty = penalty, .learning_rate = 0.1});
        leap.set_thetas(some_thetas);
        leap.forward(bad_x, mixed);
        leap.backward_gates(bad_upstream);
        const std::vector<double> got = leap.theta_gradients();
        std::vector<double> q = divergences_by_formula(penalty, x, leap.donors());
        if (in_x && penalty != Penalty::Uniform && penalty != Penalty::SqrtWidth) q[2] = nan;
        const std::vector<double> lambda = weights_by_formula(q);
        leap.step_gates();
        const MatrixXd slopes = (x - permuted(x, leap.donors())).cwiseProduct(upstream);
        for (Index j = 0; j < 5; ++j) {
          const auto i = static_cast<std::size_t>(j);
          EXPECT_EQ(leap.nonfinite_batches(j), j == 2 ? 1 : 0);
          EXPECT_EQ(leap.active_batches(j), j == 2 ? 0 : 1);
          EXPECT_TRUE(std::isfinite(leap.mean_displacement(j)));
          EXPECT_EQ(leap.thetas()[i] == some_thetas[i], j == 2);
          if (j == 2) {
            EXPECT_EQ(got[i], 0);
            continue;
          }
          const double gate = sigma(5 * some_thetas[i]);
          const auto own = slopes.middleCols(widths.offset(j), widths.width(j));
          const double sum = own.cwiseAbs().sum(), charge = 4 * lambda[i] / 5;
          const double bound = 2 * sum_bound<double>(static_cast<double>(own.size())) * sum +
                               weight_bound<double>() * charge + slope_bound(gate) * (sum + charge);
          const double slope = 5 * gate * (1 - gate);
          EXPECT_TRUE(within(got[i], slope * (own.sum() + charge), slope * bound)) << j;
          EXPECT_EQ(leap.ranking().status[i], FieldStatus::Undetermined);
        }
        EXPECT_EQ(leap.ranking().status[2], FieldStatus::Inactive);
      }
}

/// A lazy gate rests in such a batch, momentum and all.
TEST(Leap, ANanLeavesALazyGateWhereItIs) {
  MatrixXd x = normal_batch<double>(rows, widths.dim(), 1), mixed = x;
  Leap<double> leap(widths, {.learning_rate = 0.1, .lazy = true});
  leap.forward(x, mixed);
  leap.backward_gates(x);
  leap.step_gates();
  const double before = leap.thetas()[2];
  EXPECT_NE(before, 1);
  x(3, widths.offset(2)) = nan;
  leap.forward(x, mixed);
  leap.backward_gates(normal_batch<double>(rows, widths.dim(), 2));
  leap.step_gates();
  EXPECT_TRUE(same_bits(leap.thetas()[2], before));
  EXPECT_EQ(leap.nonfinite_batches(2), 1);
  EXPECT_EQ(leap.active_batches(2), 1);
}

/// T18. Donors are those of groups, so fields of one group have the same ones in any order. (Gate
/// noise belongs to the number of a field; with it only expectations are the same.)
TEST(Leap, FieldsInAnotherOrderLearnTheSame) {
  const FieldLayout layout({3, 4, 5}, {0, 0, 0}), turned({5, 3, 4}, {0, 0, 0});
  const MatrixXd x = normal_batch<double>(rows, 12, 1), g = normal_batch<double>(rows, 12, 2);
  MatrixXd turned_x(rows, 12), turned_g(rows, 12), mixed(rows, 12);
  turned_x << x.rightCols(5), x.leftCols(7);
  turned_g << g.rightCols(5), g.leftCols(7);
  const LeapOptions options{.alpha_per_field = 4.0 / 3, .learning_rate = 0.05, .min_active = 2};
  Leap<double> a(layout, options), b(turned, options);
  const auto turn = [](const std::vector<double>& v) {
    return std::vector<double>{v[2], v[0], v[1]};
  };
  a.set_thetas(std::vector<double>{0.1, -0.2, 0.3});
  for (int step = 0; step < 3; ++step) {
    b.set_thetas(turn(values_of(a.thetas())));
    a.forward(x, mixed);
    a.backward_gates(g);
    b.forward(turned_x, mixed);
    b.backward_gates(turned_g);
    const std::vector<double> wanted = turn(a.theta_gradients()), got = b.theta_gradients();
    const MatrixXd slopes = (turned_x - permuted(turned_x, b.donors())).cwiseProduct(turned_g);
    for (Index j = 0; j < 3; ++j) {
      const auto i = static_cast<std::size_t>(j);
      const auto own = slopes.middleCols(turned.offset(j), turned.width(j));
      const double gate = b.sampled_gates()[i], lambda = b.penalty_weights()[i];
      const double bound = 2 * sum_bound<double>(static_cast<double>(own.size()));
      const double charge = weight_bound<double>() * 4 / 3 * lambda;
      EXPECT_TRUE(within(got[i], wanted[i],
                         5 * gate * (1 - gate) * (bound * own.cwiseAbs().sum() + charge)))
          << j;
    }
    a.step_gates();
    b.step_gates();
  }
  b.set_thetas(turn(values_of(a.thetas())));
  EXPECT_EQ(b.gates(), turn(a.gates()));
  EXPECT_EQ(b.ranking().scores, turn(a.ranking().scores));
  EXPECT_EQ(b.ranking().status, a.ranking().status);
  for (std::size_t place = 0; place < 3; ++place)
    EXPECT_EQ(b.ranking().order[place], (a.ranking().order[place] + 1) % 3);
}

TEST(Leap, PolarizationIsTheMeanDistanceFromTheMeanGate) {
  Leap<float> leap(FieldLayout::scalars(4));
  constexpr double bound = Tolerance<double>::gamma(16);
  EXPECT_NEAR(leap.polarization(), 0, bound);
  leap.set_thetas(std::vector<double>{9, -9, 9, -9});
  // Arguments of the logistic function stop at 30.
  EXPECT_NEAR(leap.polarization(), sigma(30) - 0.5, bound);
  // Gates 1/2, 4/5, 1/5 and 1/2: the mean is 1/2, the distances are 0, .3, .3 and 0.
  leap.set_thetas(std::vector<double>{0, std::log(4.0) / 5, -std::log(4.0) / 5, 0});
  EXPECT_NEAR(leap.polarization(), 0.15, bound);
  // 4/5 and 1/5 three times: the mean is 0.35, the distances are .45 and .15 three times.
  leap.set_thetas(std::vector<double>{std::log(4.0) / 5, -std::log(4.0) / 5, -std::log(4.0) / 5,
                                      -std::log(4.0) / 5});
  EXPECT_NEAR(leap.polarization(), 0.225, bound);
}

/// Row b of every column holds b, so a mix tells its donors.
MatrixXd row_numbers() {
  return Eigen::VectorXd::LinSpaced(rows, 0, rows - 1).replicate(1, widths.dim());
}

/// The donors of a field that a mix with its gate used: the same for all its columns, all rows once
/// and none its own.
std::vector<Index> donors_in(const MatrixXd& mixed, Index j, double gate) {
  std::vector<Index> donors;
  for (Index b = 0; b < rows; ++b) {
    const double first = (mixed(b, widths.offset(j)) - gate * static_cast<double>(b)) / (1 - gate);
    const auto donor = static_cast<Index>(std::lround(first));
    donors.push_back(donor);
    EXPECT_NE(donor, b);
    for (Index c = widths.offset(j); c < widths.offset(j + 1); ++c)
      EXPECT_NEAR(mixed(b, c),
                  gate * static_cast<double>(b) + (1 - gate) * static_cast<double>(donor),
                  Tolerance<double>::gamma(8) * 2 * rows);
  }
  std::vector<Index> sorted = donors, all(static_cast<std::size_t>(rows));
  std::sort(sorted.begin(), sorted.end());
  std::iota(all.begin(), all.end(), Index{0});
  EXPECT_EQ(sorted, all);
  return donors;
}

TEST(Leap, EvaluationShufflesByTheGatesWithoutNoise) {
  const MatrixXd x = row_numbers();
  for (const GateKind kind : kinds) {
    GateOptions gate;
    gate.kind = kind;
    Leap<double> leap(widths, {.gate = gate});
    leap.set_thetas(std::vector<double>{-0.1, 0.2, 0.05, -0.3, 0.1});
    MatrixXd mixed = x, again = x;
    leap.evaluate(x, mixed);
    leap.evaluate(x, again);
    for (Index j = 0; j < 5; ++j) {
      const double of_field = leap.gates()[static_cast<std::size_t>(j)];
      EXPECT_NE(donors_in(mixed, j, of_field), donors_in(again, j, of_field)) << "a new draw";
    }
  }
}

TEST(Leap, HardEvaluationKeepsOpenFieldsAndPermutesTheOthers) {
  const MatrixXd x = row_numbers();
  Leap<double> leap(widths, {.eval_mode = EvalMode::Hard});
  leap.set_thetas(some_thetas);
  MatrixXd mixed = x;
  leap.evaluate(x, mixed);
  for (Index j = 0; j < 5; ++j)
    if (some_thetas[static_cast<std::size_t>(j)] > 0) {
      EXPECT_EQ(mixed.middleCols(widths.offset(j), widths.width(j)),
                x.middleCols(widths.offset(j), widths.width(j)));
    } else {
      donors_in(mixed, j, 0);
    }
  // A gate of exactly 1/2 does not keep its field.
  leap.set_thetas(std::vector<double>(5, 0.0));
  leap.evaluate(x, mixed);
  donors_in(mixed, 0, 0);
}

TEST(Leap, EvaluationThatIsOffPassesTheBatchOn) {
  MatrixXd x = normal_batch<double>(rows, widths.dim(), 1), mixed = x;
  x(3, 3) = nan;
  x(4, 4) = infinity;
  Leap<double> leap(widths, {.eval_mode = EvalMode::Off});
  leap.set_thetas(some_thetas);
  mixed.setZero();
  leap.evaluate(x, mixed);
  EXPECT_TRUE(equal_bits(mixed, x));
}

TEST(Leap, EvaluationOfSparseBatchesIsThatOfDenseOnes) {
  MatrixXd x = normal_batch<double>(rows, widths.dim(), 1);
  x.topRows(rows / 2).leftCols(4).setZero();
  const SparseFields<double> entries = to_sparse(widths, x);
  for (const EvalMode mode : {EvalMode::Shuffle, EvalMode::Hard, EvalMode::Off}) {
    Leap<double> dense(widths, {.eval_mode = mode}), sparse(widths, {.eval_mode = mode});
    for (Leap<double>* leap : {&dense, &sparse}) leap->set_thetas(some_thetas);
    OwnedBatch<double> mixed(widths, rows, Storage::RowMajor), got(widths, rows, Storage::RowMajor);
    SparseMix<double> mixed_entries;
    for (int call = 0; call < 2; ++call) {
      dense.evaluate(x, mixed.batch());
      sparse.evaluate(entries, mixed_entries);
      to_dense(mixed_entries.fields(), got.batch());
      EXPECT_LE((got.get() - mixed.get()).cwiseAbs().maxCoeff(), 1e-14);
    }
    EXPECT_EQ(got.get() == x, mode == EvalMode::Off);
  }
}

/// Thetas after some steps, with something done after each forward pass.
template <class T, class B, class F>
std::vector<double> trained(const B& backend, const FieldLayout& layout, const LeapOptions& options,
                            Storage storage, const F& between) {
  Leap<T> leap(layout, options);
  OwnedBatch<T> x(layout, 60, storage), mixed(layout, 60, storage), upstream(layout, 60, storage);
  const MatrixXd w = normal_batch<T>(60, layout.dim(), 5);
  for (std::uint64_t step = 0; step < 5; ++step) {
    x.set(normal_batch<T>(60, layout.dim(), step));
    leap.forward(backend, x.batch(), mixed.batch());
    between(leap);
    upstream.set(w.cwiseProduct(mixed.get()));
    if (step % 2 == 0)
      leap.backward_gates(backend, upstream.batch());
    else
      leap.backward(backend, upstream.batch(), upstream.batch());
    leap.step_gates();
  }
  return values_of(leap.thetas());
}

TEST(Leap, EvaluationLeavesTrainingAsItIs) {
  const auto nothing = [](Leap<double>&) {};
  const auto evaluate = [](Leap<double>& leap) {
    const MatrixXd x = normal_batch<double>(11, widths.dim(), 8);
    MatrixXd mixed = x;
    leap.evaluate(x, mixed);
  };
  const LeapOptions options{.learning_rate = 0.1};
  EXPECT_EQ(trained<double>(pare::simd, widths, options, Storage::RowMajor, nothing),
            trained<double>(pare::simd, widths, options, Storage::RowMajor, evaluate));
}

TEST(Leap, BitsDoNotDependOnThreads) {
  std::vector<Index> many(300, 1);
  many.insert(many.end(), {700, 3, 64});
  const FieldLayout layout(many);
  const auto nothing = [](Leap<float>&) {};
  GateOptions noisy;
  noisy.kind = GateKind::GumbelSigmoid;
  for (const Storage storage : storages)
    for (const DonorPolicy policy : {DonorPolicy::BaseShift, DonorPolicy::Uniform}) {
      const LeapOptions options{
          .penalty = Penalty::L2, .gate = noisy, .donors = policy, .learning_rate = 0.1};
      const auto run = [&](const auto& backend) {
        return trained<float>(backend, layout, options, storage, nothing);
      };
      const std::vector<double> one = run(pare::simd);
      for (int threads = 2; threads <= 4; ++threads)
        EXPECT_EQ(run(pare::simd.threads(threads)), one);
      EXPECT_EQ(run(pare::simd.on(ReversePool{3})), one);
      LeapOptions other = options;
      other.seed = 1;
      EXPECT_NE(trained<float>(pare::simd, layout, other, storage, nothing), one);
    }
}

/// The first object is gone before the second goes on.
TEST(Leap, MayMoveBetweenItsPasses) {
  const MatrixXd x = normal_batch<double>(rows, widths.dim(), 1);
  const MatrixXd upstream = normal_batch<double>(rows, widths.dim(), 2);
  Leap<double> still(widths, {.seed = 4});
  auto first = std::make_unique<Leap<double>>(widths, LeapOptions{.seed = 4});
  MatrixXd mixed = x, grad_x = x, wanted = x;
  still.forward(x, mixed);
  first->forward(field_batch(first->layout(), x), mixed);
  Leap<double> second(std::move(*first));
  first.reset();
  second.backward(upstream, grad_x);
  still.backward(upstream, wanted);
  EXPECT_EQ(grad_x, wanted);
  EXPECT_EQ(second.gradients().gates, still.gradients().gates);
  Leap<double> third(FieldLayout({1}));
  third = std::move(second);
  third.step_gates();
  still.step_gates();
  EXPECT_EQ(values_of(third.thetas()), values_of(still.thetas()));
}

/// Every kind of gate: value and slope of its noise, and the slope of what is charged.
TEST(Leap, EveryKindOfGateTrains) {
  const MatrixXd x = normal_batch<double>(rows, widths.dim(), 1);
  const MatrixXd upstream = normal_batch<double>(rows, widths.dim(), 2);
  for (const GateKind kind : kinds) {
    GateOptions gate;
    gate.kind = kind;
    gate.theta0 = 0.2;
    Leap<double> leap(widths,
                      {.alpha_per_field = 0.6, .gate = gate, .learning_rate = 0.1, .seed = 9});
    MatrixXd mixed = x;
    for (std::uint64_t step = 0; step < 4; ++step) {
      const std::vector<double> thetas = values_of(leap.thetas());
      leap.forward(x, mixed);
      std::vector<double> gates;
      leap.backward_gates(upstream);
      const std::vector<double> got = leap.theta_gradients();
      for (std::size_t j = 0; j < 5; ++j) {
        const double noise = gate_noise(kind, 9, step, static_cast<Index>(j));
        const Gate drawn = sampled_gate(gate, 5, thetas[j], noise);
        gates.push_back(drawn.value);
        const double of_loss = drawn.slope * leap.gradients().gates[j];
        const double of_penalty =
            expected_gate(gate, 5, thetas[j]).slope * 3 / 5 * leap.penalty_weights()[j];
        EXPECT_TRUE(within(got[j], of_loss + of_penalty,
                           Tolerance<double>::gamma(8) * (std::abs(of_loss) + of_penalty)));
        EXPECT_EQ(leap.gates()[j], gate_score(gate, 5, thetas[j]));
      }
      EXPECT_EQ(values_of(leap.sampled_gates()), gates);
      const MatrixXd by_formula = mixed_by_formula(x, leap.donors(), gates);
      EXPECT_LE((mixed - by_formula).cwiseAbs().maxCoeff(),
                Tolerance<double>::gamma(8) * 3 * x.cwiseAbs().maxCoeff());
      leap.step_gates();
      for (std::size_t j = 0; j < 5; ++j) {
        EXPECT_TRUE(std::isfinite(leap.thetas()[j]));
        EXPECT_NE(leap.thetas()[j], thetas[j]);
      }
    }
  }
}

TEST(Leap, EveryDonorPolicyAndNumberOfRowsDrawsAnew) {
  for (const DonorPolicy policy : {DonorPolicy::Shift, DonorPolicy::BaseShift, DonorPolicy::Uniform,
                                   DonorPolicy::Derangement}) {
    Leap<float> leap(widths, {.donors = policy, .seed = 3});
    std::uint64_t step = 0;
    for (const Index count : {10, 10, 12, 2, 10}) {
      const auto x = as<float>(normal_batch<float>(count, widths.dim(), 1));
      auto mixed = x;
      leap.forward(x, mixed);
      EXPECT_EQ(leap.donors().rows(), count);
      EXPECT_EQ(donors_of(leap.donors()), donors_of(Donors(policy, 3, step++, count, widths)));
    }
  }
}

/// The loss wants the first field as it is and does not see the second.
TEST(Leap, AGateClosesWhereItsFieldDoesNotHelp) {
  const FieldLayout layout({1, 4});
  Leap<double> leap(layout, {.alpha_per_field = 0.1, .learning_rate = 0.02, .min_active = 100});
  for (std::uint64_t step = 0; step < 300; ++step) {
    const MatrixXd x = normal_batch<double>(64, 5, step);
    MatrixXd mixed = x, upstream = MatrixXd::Zero(64, 5);
    leap.forward(x, mixed);
    upstream.col(0) = 2.0 / 64 * (mixed.col(0) - x.col(0));
    leap.backward_gates(upstream);
    leap.step_gates();
  }
  EXPECT_GT(leap.gates()[0], 0.9);
  EXPECT_LT(leap.gates()[1], 0.1);
  EXPECT_EQ(above(leap.ranking()), std::vector<Index>{0});
  EXPECT_GT(leap.polarization(), 0.4);
}

TEST(Leap, ThetasMayBeSetAndAreChecked) {
  Leap<double> leap(widths);
  EXPECT_EQ(values_of(leap.thetas()), std::vector<double>(5, 1.0));
  leap.set_thetas(some_thetas);
  EXPECT_EQ(values_of(leap.thetas()), some_thetas);
  for (std::size_t j = 0; j < 5; ++j)
    EXPECT_NEAR(leap.gates()[j], sigma(5 * some_thetas[j]), Tolerance<double>::gamma(8));
  for (const std::vector<double>& bad :
       {std::vector<double>{}, std::vector<double>(4, 0.0), std::vector<double>(6, 0.0),
        std::vector<double>{0, 0, nan, 0, 0}, std::vector<double>{0, 0, 0, 0, -infinity}}) {
    refusal([&] { leap.set_thetas(bad); }, "feature::Leap::set_thetas", "thetas");
    EXPECT_EQ(values_of(leap.thetas()), some_thetas);
  }
}

TEST(LeapErrors, OptionsOutOfTheirRange) {
  const auto expect = [](const std::string& argument, const auto& spoil) {
    LeapOptions options;
    spoil(options);
    refusal([&] { Leap<float>(widths, options); }, "feature::Leap", argument);
  };
  for (const double bad : {-1e-9, nan, infinity}) {
    expect("alpha_per_field", [&](LeapOptions& o) { o.alpha_per_field = bad; });
    expect("penalty_floor", [&](LeapOptions& o) { o.penalty_floor = bad; });
  }
  for (const double bad : {0.0, -1.0, nan, infinity}) {
    expect("learning_rate", [&](LeapOptions& o) { o.learning_rate = bad; });
    expect("gate.temperature.start", [&](LeapOptions& o) { o.gate.temperature.start = bad; });
    expect("gate.temperature.end", [&](LeapOptions& o) { o.gate.temperature.end = bad; });
    expect("gate.relaxation", [&](LeapOptions& o) { o.gate.relaxation = bad; });
    expect("gate.deviation", [&](LeapOptions& o) { o.gate.deviation = bad; });
  }
  expect("gate.temperature.steps", [](LeapOptions& o) { o.gate.temperature.steps = -1; });
  expect("gate.theta0", [](LeapOptions& o) { o.gate.theta0 = nan; });
  expect("gate.low", [](LeapOptions& o) { o.gate.low = 0; });
  expect("gate.high", [](LeapOptions& o) { o.gate.high = 1; });
  expect("warmup_steps", [](LeapOptions& o) { o.warmup_steps = -1; });
  expect("min_active", [](LeapOptions& o) { o.min_active = -1; });
  refusal([] { Leap<float>{FieldLayout()}; }, "feature::Leap", "layout");
  EXPECT_NO_THROW(Leap<float>(widths, {.alpha_per_field = 0, .min_active = 0}));
}

/// A layer, its batches, and the same as entries.
struct Operands {
  MatrixXd x = normal_batch<double>(rows, widths.dim(), 1);
  MatrixXd upstream = normal_batch<double>(rows, widths.dim(), 2);
  MatrixXd mixed = MatrixXd::Constant(rows, widths.dim(), 7), grad_x = mixed;
  SparseFields<double> entries = to_sparse(widths, x), grad_entries;
  SparseMix<double> mixed_entries;
  Leap<double> leap{widths};
};

TEST(LeapErrors, FieldsThatAreNoneAndDonorsBeforeAForwardPass) {
  Leap<float> leap(widths);
  refusal([&] { leap.donors(); }, "feature::Leap::donors", "donors");
  for (const Index j : {-1, 5}) {
    refusal([&] { leap.active_batches(j); }, "feature::Leap", "j");
    refusal([&] { leap.nonfinite_batches(j); }, "feature::Leap", "j");
  }
  EXPECT_EQ(leap.mean_displacement(4), 0);
}

TEST(LeapErrors, EnumeratorsThatAreNone) {
  const auto expect = [](const std::string& argument, const auto& spoil) {
    LeapOptions options;
    spoil(options);
    refusal([&] { Leap<float>(widths, options); }, "feature::Leap", argument);
  };
  for (const int bad : {-1, 6}) {
    expect("penalty", [&](LeapOptions& o) { o.penalty = static_cast<Penalty>(bad); });
    expect("policy", [&](LeapOptions& o) { o.donors = static_cast<DonorPolicy>(bad); });
    expect("exchange", [&](LeapOptions& o) { o.exchange = static_cast<SparseExchange>(bad); });
    expect("eval_mode", [&](LeapOptions& o) { o.eval_mode = static_cast<EvalMode>(bad); });
    expect("gate.kind", [&](LeapOptions& o) { o.gate.kind = static_cast<GateKind>(bad); });
  }
}

/// The backward pass reads x again: a temporary would be gone by then.
template <class X>
constexpr bool takes = requires(Leap<double>& leap, X&& x, MatrixXd& mixed) {
  leap.forward(std::forward<X>(x), mixed);
};
template <class X>
constexpr bool takes_with_backend = requires(Leap<double>& leap, X&& x, MatrixXd& mixed) {
  leap.forward(pare::simd, std::forward<X>(x), mixed);
};
static_assert(takes<MatrixXd&> && takes<const MatrixXd&> && takes_with_backend<MatrixXd&>);
static_assert(!takes<MatrixXd> && !takes<const MatrixXd> && !takes_with_backend<MatrixXd>);
static_assert(takes<Eigen::Map<MatrixXd>> && takes<pare::TensorView<const double, 2>>);
static_assert(takes<Eigen::Block<MatrixXd>> && takes_with_backend<Eigen::Block<MatrixXd>>);
static_assert(takes<FieldBatch<double>>);

/// Every step counts alike.
TEST(Leap, MeanThetasAreTheMeanOverTheSteps) {
  const MatrixXd x = normal_batch<double>(rows, widths.dim(), 1);
  const MatrixXd upstream = normal_batch<double>(rows, widths.dim(), 2);
  Leap<double> leap(widths, {.alpha_per_field = 1, .learning_rate = 0.1});
  EXPECT_EQ(leap.mean_thetas(), values_of(leap.thetas()));
  MatrixXd mixed = x;
  std::vector<double> sums(5);
  for (int step = 1; step <= 6; ++step) {
    leap.forward(x, mixed);
    leap.backward_gates(upstream);
    leap.step_gates();
    for (std::size_t j = 0; j < 5; ++j) {
      sums[j] += leap.thetas()[j];
      EXPECT_NEAR(leap.mean_thetas()[j], sums[j] / step, 1e-14);
    }
  }
  EXPECT_NE(leap.mean_thetas(), values_of(leap.thetas()));
}

/// The order is that of the steps behind which a gate was open, whatever theta does once it closed.
TEST(Leap, FieldsAreRankedByHowLongTheirGatesWereOpen) {
  const FieldLayout layout = FieldLayout::scalars(4);
  MatrixXd x = normal_batch<double>(rows, 4, 1);
  x.col(3).setConstant(1);  // Inactive
  Leap<double> leap(layout, {.alpha_per_field = 0, .learning_rate = 0.3});
  MatrixXd mixed(rows, 4), slopes = MatrixXd::Zero(rows, 4);
  std::vector<Index> open(4);
  // thetas behind each step; field 0 closes last, field 1 falls deeper than field 2.
  const std::vector<std::vector<double>> thetas{
      {1, 1, 1, 1}, {1, .1, .1, 1}, {1, -5, -.1, 1}, {.1, -5, -.1, 1}, {-9, -.1, -.1, 1}};
  for (const auto& theta : thetas) {
    leap.set_thetas(theta);
    leap.forward(x, mixed);
    leap.backward_gates(slopes);  // without slope or penalty theta stays
    leap.step_gates();
    for (std::size_t j = 0; j < 4; ++j) open[j] += theta[j] > 0 ? 1 : 0;
  }
  for (Index j = 0; j < 4; ++j) EXPECT_EQ(leap.open_steps(j), open[static_cast<std::size_t>(j)]);
  const Ranking ranking = leap.ranking_by_time_open();
  EXPECT_EQ(ranking.order, (std::vector<Index>{0, 2, 1, 3}));
  EXPECT_EQ(ranking.scores, leap.ranking().scores);
  EXPECT_EQ(ranking.status, leap.ranking().status);
  EXPECT_EQ(ranking.status[3], FieldStatus::Inactive);
  EXPECT_LT(leap.mean_thetas()[0], leap.mean_thetas()[2]);
}

/// Squares that overflow say nothing of a field, though the gradient of its gate is a number.
TEST(Leap, FieldsWhoseSquaresOverflowLearnNothing) {
  const FieldLayout layout = FieldLayout::scalars(2);
  Eigen::MatrixXf x = normal_batch<float>(rows, 2, 1).cast<float>(), mixed = x;
  x.col(1) *= 1e25f;
  Eigen::MatrixXf upstream = normal_batch<float>(rows, 2, 2).cast<float>();
  upstream.col(1) *= 1e-25f;
  Leap<float> leap(layout, {.learning_rate = 0.1});
  leap.forward(x, mixed);
  leap.backward_gates(upstream);
  ASSERT_TRUE(std::isfinite(leap.gradients().gates[1]));
  EXPECT_EQ(leap.theta_gradients()[1], 0);
  leap.step_gates();
  EXPECT_EQ(leap.nonfinite_batches(1), 1);
  EXPECT_EQ(leap.nonfinite_batches(0), 0);
  EXPECT_EQ(leap.thetas()[1], 1);
  EXPECT_NE(leap.thetas()[0], 1);
}

TEST(LeapErrors, BackwardPassesWithoutAForwardPass) {
  Operands o;
  refusal([&] { o.leap.backward(o.upstream, o.grad_x); }, "feature::Leap::backward", "x");
  refusal([&] { o.leap.backward_gates(o.upstream); }, "feature::Leap::backward_gates", "x");
  refusal([&] { o.leap.backward(o.entries, o.mixed_entries, o.entries, o.grad_entries); },
          "feature::Leap::backward", "x");
  refusal([&] { o.leap.backward_gates(o.entries, o.mixed_entries, o.entries); },
          "feature::Leap::backward_gates", "x");
  EXPECT_TRUE((o.grad_x.array() == 7).all());
  // One of the other kind does not do, and neither does one before it.
  o.leap.forward(o.x, o.mixed);
  o.leap.forward(o.entries, o.mixed_entries);
  refusal([&] { o.leap.backward_gates(o.upstream); }, "feature::Leap::backward_gates", "x");
  o.leap.backward_gates(o.entries, o.mixed_entries, o.mixed_entries.fields());
  o.leap.step_gates();
  SparseMix<double> other;
  o.leap.forward(o.x, o.mixed);
  refusal([&] { o.leap.backward_gates(o.entries, other, o.entries); }, "feature::mix_backward",
          "mixed");
  refusal([&] { o.leap.step_gates(); }, "feature::Leap::step_gates", "gradients");
}

TEST(LeapErrors, StepsWithoutABackwardPass) {
  Operands o;
  const auto expect_none = [&] {
    const std::vector<double> before = values_of(o.leap.thetas());
    const Index steps = o.leap.steps();
    refusal([&] { o.leap.step_gates(); }, "feature::Leap::step_gates", "gradients");
    refusal([&] { o.leap.theta_gradients(); }, "feature::Leap::step_gates", "gradients");
    EXPECT_EQ(values_of(o.leap.thetas()), before);
    EXPECT_EQ(o.leap.steps(), steps);
  };
  expect_none();
  o.leap.forward(o.x, o.mixed);
  expect_none();
  o.leap.backward(o.upstream, o.grad_x);
  o.leap.step_gates();
  expect_none();
  o.leap.backward_gates(o.upstream);
  o.leap.forward(o.x, o.mixed);
  expect_none();
  o.leap.backward_gates(o.upstream);
  o.leap.forward(o.entries, o.mixed_entries);
  expect_none();
  EXPECT_EQ(o.leap.steps(), 1);
}

TEST(LeapErrors, RefusedForwardPassesLeaveTheLastOneAsItWas) {
  Operands o, clean;
  const MatrixXd one = MatrixXd::Ones(1, widths.dim()), narrow = MatrixXd::Ones(rows, 4);
  MatrixXd to = one, few = MatrixXd::Zero(rows - 1, widths.dim()), slim = narrow;
  const pare::TensorView<double, 2> folded{o.mixed.data(), {rows, widths.dim()}, {1, rows - 1}};
  const SparseFields<double> single(widths, 1), other(FieldLayout({30}), rows);
  SparseMix<double> twice;
  mix_forward(o.entries, std::vector<double>(5, 1.0),
              Donors(DonorPolicy::Shift, 1, 1, rows, widths), twice);
  for (Leap<double>* leap : {&o.leap, &clean.leap}) leap->forward(o.x, clean.mixed);
  const std::string forward = "feature::Leap::forward", evaluate = "feature::Leap::evaluate";
  refusal([&] { o.leap.forward(one, to); }, forward, "x");
  refusal([&] { o.leap.forward(narrow, slim); }, forward, "x");
  refusal([&] { o.leap.forward(o.x, few); }, forward, "mixed");
  refusal([&] { o.leap.forward(o.x, slim); }, forward, "mixed");
  refusal([&] { o.leap.forward(o.x, o.x); }, forward, "mixed");
  refusal([&] { o.leap.forward(o.x, folded); }, forward, "mixed");
  refusal([&] { o.leap.forward(folded, clean.mixed); }, forward, "x");
  refusal([&] { o.leap.evaluate(one, to); }, evaluate, "x");
  refusal([&] { o.leap.evaluate(narrow, slim); }, evaluate, "x");
  refusal([&] { o.leap.evaluate(o.x, few); }, evaluate, "mixed");
  refusal([&] { o.leap.evaluate(o.x, o.x); }, evaluate, "mixed");
  refusal([&] { o.leap.forward(single, twice); }, forward, "x");
  refusal([&] { o.leap.forward(other, twice); }, forward, "x");
  refusal([&] { o.leap.forward(twice.fields(), twice); }, forward, "mixed");
  refusal([&] { o.leap.evaluate(single, twice); }, evaluate, "x");
  refusal([&] { o.leap.evaluate(other, twice); }, evaluate, "x");
  refusal([&] { o.leap.evaluate(twice.fields(), twice); }, evaluate, "mixed");
  EXPECT_TRUE((o.mixed.array() == 7).all());
  EXPECT_EQ(donors_of(o.leap.donors()), donors_of(clean.leap.donors()));
  for (Operands* each : {&o, &clean}) {
    each->leap.backward(each->upstream, each->grad_x);
    each->leap.step_gates();
    each->leap.forward(each->x, each->mixed);
  }
  EXPECT_EQ(o.grad_x, clean.grad_x);
  EXPECT_EQ(o.mixed, clean.mixed) << "no draw was used up";
}

TEST(LeapErrors, RefusedBackwardPassesChangeNothing) {
  Operands o;
  o.leap.forward(o.x, o.mixed);
  o.leap.backward_gates(o.upstream);
  const std::vector<double> before = o.leap.theta_gradients();
  MatrixXd few = MatrixXd::Zero(rows - 1, widths.dim()), narrow = MatrixXd::Zero(rows, 4);
  refusal([&] { o.leap.backward(narrow, o.grad_x); }, "feature::Leap::backward", "grad_mixed");
  refusal([&] { o.leap.backward(o.upstream, narrow); }, "feature::Leap::backward", "grad_x");
  refusal([&] { o.leap.backward(few, o.grad_x); }, "feature::mix_backward", "grad_mixed");
  refusal([&] { o.leap.backward(o.upstream, few); }, "feature::mix_backward", "grad_x");
  refusal([&] { o.leap.backward(o.upstream, o.x); }, "feature::mix_backward", "grad_x");
  refusal([&] { o.leap.backward_gates(few); }, "feature::mix_backward", "grad_mixed");
  refusal([&] { o.leap.backward_gates(narrow); }, "feature::Leap::backward_gates", "grad_mixed");
  EXPECT_TRUE((o.grad_x.array() == 7).all());
  EXPECT_TRUE(few.isZero() && narrow.isZero());
  EXPECT_EQ(o.leap.theta_gradients(), before);
}

}  // namespace
}  // namespace feature_leap_test
