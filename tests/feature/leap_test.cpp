// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
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
using pare::feature::FieldStatus;
using pare::feature::Leap;
using pare::feature::LeapOptions;
using pare::feature::MixGradients;
using pare::feature::Penalty;
using pare::feature::Ranking;
using pare::feature::SparseFields;
using pare::feature::SparseMix;
using pare::optim::Gate;
using pare::optim::GateKind;
using pare::optim::GateOptions;
using pare::testing::leap_cases::nan;  // not the function

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
  EXPECT_EQ(as_list(third.thetas()), as_list(still.thetas()));
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
      const std::vector<double> thetas = as_list(leap.thetas());
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
      EXPECT_EQ(as_list(leap.sampled_gates()), gates);
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
  EXPECT_EQ(as_list(leap.thetas()), std::vector<double>(5, 1.0));
  leap.set_thetas(some_thetas);
  EXPECT_EQ(as_list(leap.thetas()), some_thetas);
  for (std::size_t j = 0; j < 5; ++j)
    EXPECT_NEAR(leap.gates()[j], sigma(5 * some_thetas[j]), Tolerance<double>::gamma(8));
  for (const std::vector<double>& bad :
       {std::vector<double>{}, std::vector<double>(4, 0.0), std::vector<double>(6, 0.0),
        std::vector<double>{0, 0, nan, 0, 0}, std::vector<double>{0, 0, 0, 0, -infinity}}) {
    refusal([&] { leap.set_thetas(bad); }, "feature::Leap::set_thetas", "thetas");
    EXPECT_EQ(as_list(leap.thetas()), some_thetas);
  }
}

/// Every step counts alike.
TEST(Leap, MeanThetasAreTheMeanOverTheSteps) {
  const MatrixXd x = normal_batch<double>(rows, widths.dim(), 1);
  const MatrixXd upstream = normal_batch<double>(rows, widths.dim(), 2);
  Leap<double> leap(widths, {.alpha_per_field = 1, .learning_rate = 0.1});
  EXPECT_EQ(leap.mean_thetas(), as_list(leap.thetas()));
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
  EXPECT_NE(leap.mean_thetas(), as_list(leap.thetas()));
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

}  // namespace
}  // namespace feature_leap_test
