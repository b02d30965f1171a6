// SPDX-License-Identifier: Apache-2.0
// LeAP's layer against its formulas: passes, gradients of theta, penalty, Adam's step, temperature.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <pare/feature/leap/leap.hpp>

#include "feature/batches.hpp"
#include "feature/leap_cases.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace feature_leap_test {
namespace {

using namespace pare::testing;
using namespace pare::testing::leap_cases;
using Eigen::MatrixXd;
using pare::Index;
using pare::feature::DonorPolicy;
using pare::feature::Leap;
using pare::feature::LeapOptions;
using pare::feature::MixGradients;
using pare::feature::Penalty;
using pare::feature::SparseFields;
using pare::feature::SparseMix;
using pare::optim::GateOptions;

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

template <class Case>
struct LeapTest : testing::Test {};
TYPED_TEST_SUITE(LeapTest, BackendsAndScalars);

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
      const std::vector<double> gates = as_list(leap.sampled_gates());
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
  EXPECT_EQ(as_list(got.sampled_gates()), as_list(wanted.sampled_gates()));
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
    const std::vector<double> thetas = as_list(leap.thetas());
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
    b.set_thetas(turn(as_list(a.thetas())));
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
  b.set_thetas(turn(as_list(a.thetas())));
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

}  // namespace
}  // namespace feature_leap_test
