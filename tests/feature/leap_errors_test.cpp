// SPDX-License-Identifier: Apache-2.0
// What LeAP's layer refuses, and that a refused call changes nothing.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <string>
#include <vector>

#include <pare/feature/leap/leap.hpp>

#include "feature/batches.hpp"
#include "feature/leap_cases.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace feature_leap_errors_test {
namespace {

using namespace pare::testing;
using namespace pare::testing::leap_cases;
using Eigen::MatrixXd;
using pare::Index;
using pare::feature::DonorPolicy;
using pare::feature::EvalMode;
using pare::feature::FieldBatch;
using pare::feature::Leap;
using pare::feature::LeapOptions;
using pare::feature::Penalty;
using pare::feature::SparseExchange;
using pare::feature::SparseFields;
using pare::feature::SparseMix;
using pare::optim::GateKind;
using pare::testing::leap_cases::nan;  // not the function

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
    const std::vector<double> before = as_list(o.leap.thetas());
    const Index steps = o.leap.steps();
    refusal([&] { o.leap.step_gates(); }, "feature::Leap::step_gates", "gradients");
    refusal([&] { o.leap.theta_gradients(); }, "feature::Leap::step_gates", "gradients");
    EXPECT_EQ(as_list(o.leap.thetas()), before);
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
}  // namespace feature_leap_errors_test
