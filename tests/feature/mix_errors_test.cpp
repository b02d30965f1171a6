// SPDX-License-Identifier: Apache-2.0
// What the mix refuses, on every backend, and that nothing is written then.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <limits>
#include <span>
#include <string>
#include <vector>

#include <pare/feature/leap/mix.hpp>

#include "feature/batches.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace feature_mix_errors_test {
namespace {

using namespace pare::testing;
using Eigen::MatrixXd;
using pare::Index;
using pare::feature::DonorPolicy;
using pare::feature::MixGradients;
using pare::feature::MixOptions;

const FieldLayout layout({1, 3, 2});
constexpr Index rows = 10;

/// Operands of both passes, of which a test spoils one.
struct Operands {
  MatrixXd x = normal_batch<double>(rows, 6, 1), upstream = normal_batch<double>(rows, 6, 2);
  MatrixXd out = MatrixXd::Constant(rows, 6, 7);
  std::vector<double> gates{0.2, 0.5, 0.9};
  Donors donors{DonorPolicy::Shift, 1, 2, rows, layout};
  MixGradients gradients{{-5}, {}};
};

template <class B>
struct MixErrors : testing::Test {
  static void forward(Operands& o, const std::string& argument) {
    refuses_and_leaves_alone([&] { mix_forward(B::make(), o.x, o.gates, o.donors, o.out); },
                             "feature::mix_forward", argument, o.out);
  }
  static void backward(Operands& o, const std::string& argument, const MixOptions& options = {}) {
    refuses_and_leaves_alone(
        [&] {
          mix_backward(B::make(), o.x, o.gates, o.donors, o.upstream, o.out, o.gradients, options);
        },
        "feature::mix_backward", argument, o.out, o.gradients.gates);
  }
};
using Backends = testing::Types<ReferenceBackend, BestBackend>;
TYPED_TEST_SUITE(MixErrors, Backends);

TYPED_TEST(MixErrors, OperandsOfOtherShapes) {
  Operands o;
  o.x = MatrixXd::Zero(rows, 5);
  this->forward(o, "x");
  this->backward(o, "x");
  o.x = MatrixXd::Zero(rows - 1, 6);
  this->forward(o, "x");
  this->backward(o, "x");
  o = {};
  o.out = MatrixXd::Zero(rows + 1, 6);
  this->forward(o, "mixed");
  this->backward(o, "grad_x");
  o.out = MatrixXd::Zero(rows, 7);
  this->forward(o, "mixed");
  this->backward(o, "grad_x");
  o = {};
  o.upstream = MatrixXd::Zero(rows, 7);
  this->backward(o, "grad_mixed");
  o.upstream = MatrixXd::Zero(2 * rows, 6);
  this->backward(o, "grad_mixed");
}

TYPED_TEST(MixErrors, GatesOutsideOfTheirRange) {
  for (const double bad : {-1e-9, 1 + 1e-9, std::numeric_limits<double>::quiet_NaN(),
                           std::numeric_limits<double>::infinity()}) {
    Operands o;
    o.gates[1] = bad;
    this->forward(o, "gates");
    this->backward(o, "gates");
  }
  for (const std::size_t count : {0u, 2u, 4u}) {
    Operands o;
    o.gates.assign(count, 0.5);
    this->forward(o, "gates");
    this->backward(o, "gates");
  }
}

/// Memory that is read through the first view and written through the second.
template <class B>
void expect_overlap_refused(const MatrixXd& memory, const pare::TensorView<const double, 2>& read,
                            const pare::TensorView<double, 2>& written) {
  const MatrixXd before = memory, other = normal_batch<double>(rows, 6, 3);
  const Donors donors(DonorPolicy::BaseShift, 1, 2, rows, layout);
  const std::vector<double> gates{0.2, 0.5, 0.9};
  MixGradients gradients;
  refusal([&] { mix_forward(B::make(), read, gates, donors, written); }, "feature::mix_forward",
          "mixed");
  refusal([&] { mix_backward(B::make(), read, gates, donors, other, written, gradients); },
          "feature::mix_backward", "grad_x");
  // In part the place of grad_mixed, which it may be as a whole.
  if (read.data != written.data)
    refusal([&] { mix_backward(B::make(), other, gates, donors, read, written, gradients); },
            "feature::mix_backward", "grad_x");
  refusal(
      [&] {
        mix_backward(B::make(), other, gates, donors, read, written, gradients, {.detach = false});
      },
      "feature::mix_backward", "grad_x");
  EXPECT_EQ(memory, before);
}

TYPED_TEST(MixErrors, OutputsThatOverlapInputs) {
  MatrixXd memory = normal_batch<double>(2 * rows, 6, 4);
  const auto at = [&](Index row) {
    return pare::TensorView<double, 2>{&memory(row, 0), {rows, 6}, {1, 2 * rows}};
  };
  expect_overlap_refused<TypeParam>(memory, pare::as_const(at(0)), at(0));
  expect_overlap_refused<TypeParam>(memory, pare::as_const(at(0)), at(rows - 1));
}

TYPED_TEST(MixErrors, BatchesThatOverlapThemselvesOrHaveNoContiguousSide) {
  std::vector<double> memory(1000, 3);
  const auto strided = [&](Index row, Index column) {
    return pare::TensorView<double, 2>{memory.data(), {rows, 6}, {row, column}};
  };
  Operands o;
  const auto expect = [&](const pare::TensorView<double, 2>& batch) {
    refusal([&] { mix_forward(TypeParam::make(), o.x, o.gates, o.donors, batch); },
            "feature::mix_forward", "mixed");
    refusal(
        [&] {
          mix_backward(TypeParam::make(), o.x, o.gates, o.donors, o.upstream, batch, o.gradients);
        },
        "feature::mix_backward", "grad_x");
  };
  expect(strided(5, 1));
  expect(strided(1, 9));
  expect(strided(12, 2));
  EXPECT_EQ(memory, std::vector<double>(1000, 3));
}

/// A view without data, or over the gates.
TYPED_TEST(MixErrors, ViewsOfNothingAndOutputsOverTheGates) {
  const pare::TensorView<double, 2> nothing{nullptr, {rows, 6}, {6, 1}};
  Operands o;
  const auto run = [&](const auto& x, const auto& upstream, const auto& out,
                       const std::vector<double>& gates) {
    mix_backward(TypeParam::make(), x, gates, o.donors, upstream, out, o.gradients);
  };
  const auto in = pare::as_const(pare::to_view(o.x)),
             up = pare::as_const(pare::to_view(o.upstream));
  const auto out = pare::to_view(o.out);
  const std::string forward = "feature::mix_forward", backward = "feature::mix_backward";
  refusal([&] { mix_forward(TypeParam::make(), nothing, o.gates, o.donors, out); }, forward, "x");
  refusal([&] { mix_forward(TypeParam::make(), in, o.gates, o.donors, nothing); }, forward,
          "mixed");
  refusal([&] { run(nothing, up, out, o.gates); }, backward, "x");
  refusal([&] { run(in, nothing, out, o.gates); }, backward, "grad_mixed");
  refusal([&] { run(in, up, nothing, o.gates); }, backward, "grad_x");
  const MatrixXd before = o.out = MatrixXd::Constant(rows, 6, 0.5);
  const std::span<const double> inside(o.out.data() + 8, 3);
  refusal([&] { mix_forward(TypeParam::make(), in, inside, o.donors, out); }, forward, "mixed");
  refusal([&] { mix_backward(TypeParam::make(), in, inside, o.donors, up, out, o.gradients); },
          backward, "grad_x");
  EXPECT_EQ(o.out, before);
}

TEST(MixErrors, BatchesOfAnotherLayout) {
  Operands o;
  const FieldLayout other({2, 2, 2});
  std::vector<double> memory(60, 3);
  refusal([&] { mix_forward(o.x, o.gates, o.donors, field_blocked(other, memory, rows)); },
          "feature::mix_forward", "mixed");
  refusal([&] { mix_forward(o.x, o.gates, o.donors, pare::feature::FieldBatch<double>{}); },
          "feature::mix_forward", "mixed");
  EXPECT_EQ(memory, std::vector<double>(60, 3));
}

}  // namespace
}  // namespace feature_mix_errors_test
