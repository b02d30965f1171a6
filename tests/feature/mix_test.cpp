// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <pare/feature/leap/mix.hpp>

#include "feature/batches.hpp"
#include "support/allocations.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace feature_mix_test {
namespace {

using namespace pare::testing;
using Eigen::MatrixXd;
using pare::Index;
using pare::feature::DonorPolicy;
using pare::feature::MixGradients;
using pare::feature::MixOptions;

template <class Case>
struct MixTest : testing::Test {};
TYPED_TEST_SUITE(MixTest, BackendsAndScalars);

constexpr DonorPolicy policies[] = {DonorPolicy::Shift, DonorPolicy::BaseShift,
                                    DonorPolicy::Uniform, DonorPolicy::Derangement};

/// Where x (and its gradient), mixed (and its gradient) lie.
using Places = std::array<Storage, 2>;
const std::vector<Places> places{
    {Storage::RowMajor, Storage::RowMajor},         {Storage::ColumnMajor, Storage::ColumnMajor},
    {Storage::FieldBlocked, Storage::FieldBlocked}, {Storage::FieldBlocked, Storage::RowMajor},
    {Storage::RowMajor, Storage::ColumnMajor},      {Storage::ColumnMajor, Storage::FieldBlocked}};

const FieldLayout mixed_widths({1, 3, 8, 17, 64, 256, 1, 1, 2});

/// Every element within a few roundings of the formula.
template <class T>
void expect_mixed(const MatrixXd& got, const MatrixXd& x, const Donors& donors,
                  const std::vector<double>& gates) {
  const MatrixXd wanted = mixed_by_formula(x, donors, gates), t = permuted(x, donors);
  for (Index c = 0; c < x.cols(); ++c)
    for (Index b = 0; b < x.rows(); ++b) {
      const double size = std::abs(x(b, c)) + std::abs(x(b, c) - t(b, c));
      ASSERT_TRUE(within(got(b, c), wanted(b, c), Tolerance<T>::gamma(5) * size))
          << b << ' ' << c << ' ' << got(b, c) << ' ' << wanted(b, c);
    }
}

/// Of gradients by gates and by x, and divergences, those that the formulas give.
template <class T>
void expect_gradients(const MixGradients& got, const MatrixXd* grad_x, const MatrixXd& x,
                      const MatrixXd& g, const Donors& donors, const std::vector<double>& gates,
                      const MixOptions& options) {
  const FieldLayout& layout = donors.layout();
  const MatrixXd delta = x - permuted(x, donors);
  const auto rows = static_cast<double>(x.rows());
  for (Index j = 0; j < layout.fields(); ++j) {
    const auto i = static_cast<std::size_t>(j);
    const auto d = delta.middleCols(layout.offset(j), layout.width(j));
    const auto up = g.middleCols(layout.offset(j), layout.width(j));
    const double bound = sum_bound<T>(static_cast<double>(d.size()));
    const double slope = d.cwiseProduct(up).sum();
    EXPECT_TRUE(within(got.gates[i], slope, bound * d.cwiseProduct(up).cwiseAbs().sum())) << j;
    const double squared = d.squaredNorm() / rows, absolute = d.cwiseAbs().sum() / rows;
    EXPECT_TRUE(within(got.divergence.squared[i], squared, bound * squared)) << j;
    EXPECT_TRUE(within(got.divergence.absolute[i], absolute, bound * absolute)) << j;
    if (!options.norms) continue;
    double norm = 0;
    for (Index b = 0; b < d.rows(); ++b) norm += std::sqrt(d.row(b).squaredNorm()) / rows;
    EXPECT_TRUE(within(got.divergence.norms[i], norm, bound * norm)) << j;
  }
  if (grad_x == nullptr) return;
  const Eigen::RowVectorXd gate = column_gates(layout, gates);
  for (Index j = 0; j < layout.fields(); ++j) {
    const pare::Permutation source = donors.permutation(j).inverse();
    for (Index c = layout.offset(j); c < layout.offset(j + 1); ++c)
      for (Index b = 0; b < x.rows(); ++b) {
        const double own = gate[c] * g(b, c);
        const double given =
            options.detach ? 0 : (1 - gate[c]) * g(static_cast<Index>(source[b]), c);
        ASSERT_TRUE(within((*grad_x)(b, c), own + given,
                           Tolerance<T>::gamma(4) * (std::abs(own) + std::abs(given))))
            << b << ' ' << c;
      }
  }
}

template <class T>
struct MixCase {
  OwnedBatch<T> x, mixed, grad_mixed, grad_x;
  MatrixXd exact, upstream;
  std::vector<double> gates;

  MixCase(const FieldLayout& layout, Index rows, const Places& place, Index gap = 3)
      : x(layout, rows, place[0], gap),
        mixed(layout, rows, place[1], gap),
        grad_mixed(layout, rows, place[1], gap),
        grad_x(layout, rows, place[0], gap),
        exact(normal_batch<T>(rows, layout.dim(), 1)),
        upstream(normal_batch<T>(rows, layout.dim(), 2)),
        gates(some_gates(layout.fields(), 3)) {
    x.set(exact);
    grad_mixed.set(upstream);
  }
};

template <class P>
void expect_both_passes(const FieldLayout& layout, Index rows, DonorPolicy policy,
                        const Places& place, const MixOptions& options, Index gap = 3) {
  using T = typename P::scalar;
  const auto backend = P::backend::make();
  MixCase<T> c(layout, rows, place, gap);
  const Donors donors(policy, 4, 5, rows, layout);
  SCOPED_TRACE(testing::Message() << "policy " << static_cast<int>(policy) << ", storages "
                                  << static_cast<int>(place[0]) << static_cast<int>(place[1]));
  mix_forward(backend, c.x.batch(), c.gates, donors, c.mixed.batch());
  expect_mixed<T>(c.mixed.get(), c.exact, donors, c.gates);
  EXPECT_EQ(c.mixed.untouched(), c.mixed.gaps());
  MixGradients gradients, of_gates;
  mix_backward(backend, c.x.batch(), c.gates, donors, c.grad_mixed.batch(), c.grad_x.batch(),
               gradients, options);
  const MatrixXd grad_x = c.grad_x.get();
  expect_gradients<T>(gradients, &grad_x, c.exact, c.upstream, donors, c.gates, options);
  EXPECT_EQ(c.grad_x.untouched(), c.grad_x.gaps());
  mix_backward_gates(backend, c.x.batch(), c.gates, donors, c.grad_mixed.batch(), of_gates,
                     options);
  expect_gradients<T>(of_gates, nullptr, c.exact, c.upstream, donors, c.gates, options);
}

TYPED_TEST(MixTest, BothPassesAreTheFormulasInEveryStorageUnderEveryPolicy) {
  for (const Places& place : places)
    for (const DonorPolicy policy : policies)
      expect_both_passes<TypeParam>(mixed_widths, 37, policy, place, {.norms = true});
}

TYPED_TEST(MixTest, LiveDonorsReceiveTheirShareOfTheGradient) {
  for (const Places& place : places)
    for (const DonorPolicy policy : policies)
      expect_both_passes<TypeParam>(mixed_widths, 37, policy, place, {.detach = false});
}

TYPED_TEST(MixTest, SingleFieldsFewRowsAndManyScalars) {
  for (const Places& place : places) {
    expect_both_passes<TypeParam>(FieldLayout({1}), 2, DonorPolicy::Shift, place, {});
    expect_both_passes<TypeParam>(FieldLayout({1}), 45, DonorPolicy::Uniform, place, {}, 0);
    expect_both_passes<TypeParam>(FieldLayout({256}), 3, DonorPolicy::BaseShift, place,
                                  {.norms = true});
    expect_both_passes<TypeParam>(FieldLayout::scalars(150), 21, DonorPolicy::Shift, place, {});
    expect_both_passes<TypeParam>(FieldLayout::uniform(41, 5), 19, DonorPolicy::Derangement, place,
                                  {.detach = false, .norms = true});
  }
}

/// 1000 scalars and one field so wide that its rows are shared out; so large that it is streamed.
TYPED_TEST(MixTest, LargeBatches) {
  std::vector<Index> widths(1000, 1);
  widths.push_back(1112);
  const FieldLayout layout(widths);
  const auto expect = [&](Storage storage, DonorPolicy policy, const MixOptions& options) {
    expect_both_passes<TypeParam>(layout, 1040, policy, {storage, storage}, options, 0);
  };
  expect(Storage::RowMajor, DonorPolicy::Shift, {.norms = true});
  expect(Storage::ColumnMajor, DonorPolicy::BaseShift, {});
  expect(Storage::FieldBlocked, DonorPolicy::Shift, {});
  expect(Storage::FieldBlocked, DonorPolicy::Shift, {.detach = false, .norms = true});
}

template <class T>
bool same_matrix(const MatrixXd& a, const MatrixXd& b) {
  return equal_bits(Eigen::Matrix<T, -1, -1>(a.cast<T>()), Eigen::Matrix<T, -1, -1>(b.cast<T>()));
}

/// A gradient by x in the place of the one by the mix has the same bits.
template <class P>
void expect_in_place(const FieldLayout& layout, Index rows, DonorPolicy policy, Storage storage,
                     Index gap) {
  MixCase<typename P::scalar> c(layout, rows, {storage, storage}, gap);
  const Donors donors(policy, 4, 5, rows, layout);
  MixGradients apart, in_place;
  const auto backend = P::backend::make();
  mix_backward(backend, c.x.batch(), c.gates, donors, c.grad_mixed.batch(), c.grad_x.batch(), apart,
               {.norms = true});
  mix_backward(backend, c.x.batch(), c.gates, donors, c.grad_mixed.batch(), c.grad_mixed.batch(),
               in_place, {.norms = true});
  EXPECT_TRUE(same_matrix<typename P::scalar>(c.grad_x.get(), c.grad_mixed.get()));
  EXPECT_EQ(c.grad_mixed.untouched(), c.grad_mixed.gaps());
  EXPECT_EQ(apart.gates, in_place.gates);
  EXPECT_EQ(apart.divergence.squared, in_place.divergence.squared);
  EXPECT_EQ(apart.divergence.absolute, in_place.divergence.absolute);
  EXPECT_EQ(apart.divergence.norms, in_place.divergence.norms);
}

TYPED_TEST(MixTest, TheGradientMayTakeThePlaceOfTheOneByTheMix) {
  for (const Storage storage : storages) {
    for (const DonorPolicy policy : policies)
      expect_in_place<TypeParam>(mixed_widths, 37, policy, storage, 3);
    expect_in_place<TypeParam>(FieldLayout::scalars(2100), 1040, DonorPolicy::Shift, storage, 0);
  }
}

/// Shifts that turn in the first, in the last and within any register, in runs of every length.
TYPED_TEST(MixTest, EveryShiftOfShortColumns) {
  using T = typename TypeParam::scalar;
  const FieldLayout layout({1, 2});
  for (const Index rows : {2, 5, 16, 17, 33, 50}) {
    MixCase<T> c(layout, rows, {Storage::FieldBlocked, Storage::FieldBlocked});
    for (Index shift = 0; shift < rows; ++shift) {
      const std::vector<Index> shifts{shift, rows - 1 - shift};
      const Donors donors = Donors::from_shifts(rows, layout, shifts);
      mix_forward(TypeParam::backend::make(), c.x.batch(), c.gates, donors, c.mixed.batch());
      expect_mixed<T>(c.mixed.get(), c.exact, donors, c.gates);
      MixGradients gradients;
      mix_backward(TypeParam::backend::make(), c.x.batch(), c.gates, donors, c.grad_mixed.batch(),
                   c.grad_x.batch(), gradients);
      const MatrixXd grad_x = c.grad_x.get();
      expect_gradients<T>(gradients, &grad_x, c.exact, c.upstream, donors, c.gates, {});
    }
  }
}

/// Numbers that arithmetic is not kind to.
template <class T>
MatrixXd awkward_batch(Index rows, Index cols) {
  MatrixXd m = normal_batch<T>(rows, cols, 8);
  for (Index c = 0; c < cols; ++c) {
    m(c % rows, c) = -0.0;
    m((c + 1) % rows, c) = static_cast<double>(std::numeric_limits<T>::denorm_min());
    m((c + 2) % rows, c) = static_cast<double>(std::numeric_limits<T>::max());
  }
  return m;
}

/// T1.
TYPED_TEST(MixTest, WithoutAPermutationTheBitsStayForEveryGate) {
  using T = typename TypeParam::scalar;
  const std::vector<Index> shifts(static_cast<std::size_t>(mixed_widths.fields()), 0);
  const Donors donors = Donors::from_shifts(37, mixed_widths, shifts);
  const MatrixXd exact = awkward_batch<T>(37, mixed_widths.dim());
  for (const Storage storage : storages) {
    OwnedBatch<T> x(mixed_widths, 37, storage), mixed(mixed_widths, 37, storage);
    x.set(exact);
    mix_forward(TypeParam::backend::make(), x.batch(), some_gates(9, 3), donors, mixed.batch());
    EXPECT_TRUE(same_matrix<T>(mixed.get(), exact));
    mix_forward(TypeParam::backend::make(), x.batch(), std::vector<double>(9, 0.993307), donors,
                mixed.batch());
    EXPECT_TRUE(same_matrix<T>(mixed.get(), exact));
  }
}

/// T1, and gates of exactly 1 and 0 copy infinities and NaN too.
TYPED_TEST(MixTest, GatesOfOneAndZeroCopyBitForBit) {
  using T = typename TypeParam::scalar;
  MatrixXd exact = awkward_batch<T>(37, mixed_widths.dim());
  for (Index c = 0; c < exact.cols(); ++c) {
    exact((c + 3) % 37, c) = std::numeric_limits<double>::infinity();
    exact((c + 4) % 37, c) = std::numeric_limits<double>::quiet_NaN();
  }
  for (const Storage storage : storages)
    for (const DonorPolicy policy : policies) {
      const Donors donors(policy, 4, 5, 37, mixed_widths);
      OwnedBatch<T> x(mixed_widths, 37, storage), mixed(mixed_widths, 37, storage);
      x.set(exact);
      const auto backend = TypeParam::backend::make();
      mix_forward(backend, x.batch(), std::vector<double>(9, 1.0), donors, mixed.batch());
      EXPECT_TRUE(same_matrix<T>(mixed.get(), exact));
      mix_forward(backend, x.batch(), std::vector<double>(9, 0.0), donors, mixed.batch());
      EXPECT_TRUE(same_matrix<T>(mixed.get(), permuted(exact, donors)));
      // The gradient by x: all of G at 1, nothing (but the sources' share) at 0.
      MixGradients gradients;
      mix_backward(backend, x.batch(), std::vector<double>(9, 1.0), donors, x.batch(),
                   mixed.batch(), gradients, {.detach = false});
      EXPECT_TRUE(same_matrix<T>(mixed.get(), exact));
      mix_backward(backend, x.batch(), std::vector<double>(9, 0.0), donors, x.batch(),
                   mixed.batch(), gradients);
      EXPECT_TRUE(same_matrix<T>(mixed.get(), MatrixXd::Zero(37, exact.cols())));
    }
}

/// T2: s_j is the slope in g_j of sum_i a_i x'_i^2 / 2, whose differences in g are exact.
TYPED_TEST(MixTest, GateGradientsAreTheSlopesOfTheLoss) {
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  const MatrixXd weights = normal_batch<T>(37, mixed_widths.dim(), 5);
  MixCase<T> c(mixed_widths, 37, places[0]);
  for (double& gate : c.gates) gate = 0.1 + 0.8 * gate;
  const Donors donors(DonorPolicy::Uniform, 4, 5, 37, mixed_widths);
  mix_forward(backend, c.x.batch(), c.gates, donors, c.mixed.batch());
  c.grad_mixed.set(weights.cwiseProduct(c.mixed.get()));
  MixGradients gradients;
  mix_backward_gates(backend, c.x.batch(), c.gates, donors, c.grad_mixed.batch(), gradients);
  const auto loss = [&](const std::vector<double>& gates) {
    return 0.5 * weights.cwiseProduct(mixed_by_formula(c.exact, donors, gates).cwiseAbs2()).sum();
  };
  const double size = loss(c.gates) + weights.cwiseAbs().sum();
  for (std::size_t j = 0; j < c.gates.size(); ++j) {
    std::vector<double> more = c.gates, less = c.gates;
    more[j] += 0.05;
    less[j] -= 0.05;
    const double slope = (loss(more) - loss(less)) / 0.1;
    EXPECT_NEAR(gradients.gates[j], slope, (sizeof(T) == 4 ? 1e-5 : 1e-9) * size) << j;
  }
}

/// T2: and the gradient by x with live donors is the slope in x.
TEST(Mix, LiveGradientsAreTheSlopesInX) {
  const FieldLayout layout({1, 3, 2});
  const Donors donors(DonorPolicy::BaseShift, 4, 5, 9, layout);
  const std::vector<double> gates{0.7, 0.2, 0.9};
  MatrixXd x = normal_batch<double>(9, 6, 1), mixed(9, 6), grad_x(9, 6);
  const MatrixXd weights = normal_batch<double>(9, 6, 2);
  mix_forward(x, gates, donors, mixed);
  MixGradients gradients;
  mix_backward(x, gates, donors, weights.cwiseProduct(mixed).eval(), grad_x, gradients,
               {.detach = false});
  const auto loss = [&] {
    return 0.5 * weights.cwiseProduct(mixed_by_formula(x, donors, gates).cwiseAbs2()).sum();
  };
  for (Index b = 0; b < 9; ++b)
    for (Index c = 0; c < 6; ++c) {
      const double at = x(b, c);
      x(b, c) = at + 0.125;
      const double more = loss();
      x(b, c) = at - 0.125;
      const double slope = (more - loss()) / 0.25;
      x(b, c) = at;
      EXPECT_NEAR(grad_x(b, c), slope, 1e-9);
    }
}

/// T4, P1: over all shifts the gate's gradient is B / (B - 1) times the centred first-order score.
TYPED_TEST(MixTest, TheMeanOverAllShiftsIsTheTaylorScore) {
  using T = typename TypeParam::scalar;
  constexpr Index rows = 29;
  const FieldLayout layout({1, 8, 20});
  MixCase<T> c(layout, rows, places[0]);
  std::vector<double> mean(3, 0.0);
  for (Index r = 1; r < rows; ++r) {
    MixGradients gradients;
    mix_backward_gates(TypeParam::backend::make(), c.x.batch(), c.gates,
                       Donors::from_shifts(rows, layout, std::vector<Index>(3, r)),
                       c.grad_mixed.batch(), gradients);
    for (std::size_t j = 0; j < 3; ++j) mean[j] += gradients.gates[j] / (rows - 1.0);
  }
  const MatrixXd centred = c.exact.rowwise() - c.exact.colwise().mean();
  const MatrixXd terms = centred.cwiseProduct(c.upstream) * (rows / (rows - 1.0));
  for (Index j = 0; j < 3; ++j) {
    const auto of_field = terms.middleCols(layout.offset(j), layout.width(j));
    EXPECT_NEAR(mean[static_cast<std::size_t>(j)], of_field.sum(),
                1e-5 * of_field.cwiseAbs().sum());
  }
}

/// T5: the closed divergence is what all shifts give on average, and what permutations tend to.
TYPED_TEST(MixTest, TheClosedDivergenceIsTheMeanOverDonors) {
  using T = typename TypeParam::scalar;
  constexpr Index rows = 31;
  const FieldLayout layout({1, 5, 33, 1});
  const auto backend = TypeParam::backend::make();
  for (const Storage storage : storages) {
    OwnedBatch<T> x(layout, rows, storage);
    // A far mean, where variances from plain sums of squares would cancel.
    const MatrixXd exact = normal_batch<T>(rows, layout.dim(), 6).array() + 300;
    x.set(exact);
    const auto shifts = divergence_closed(backend, layout, x.batch(), DonorPolicy::Shift);
    const auto uniform = divergence_closed(backend, layout, x.batch(), DonorPolicy::Uniform);
    std::vector<double> mean(4, 0.0), sum(4, 0.0), squares(4, 0.0);
    const auto squared = [&](const Donors& donors) {
      MixGradients gradients;
      mix_backward_gates(backend, x.batch(), std::vector<double>(4, 0.5), donors, x.batch(),
                         gradients);
      return gradients.divergence.squared;
    };
    for (Index r = 1; r < rows; ++r) {
      const auto q = squared(Donors::from_shifts(rows, layout, std::vector<Index>(4, r)));
      for (std::size_t j = 0; j < 4; ++j) mean[j] += q[j] / (rows - 1.0);
    }
    constexpr int draws = 300;
    for (int i = 0; i < draws; ++i) {
      const auto q =
          squared(Donors(DonorPolicy::Uniform, 2, static_cast<std::uint64_t>(i), rows, layout));
      for (std::size_t j = 0; j < 4; ++j) {
        sum[j] += q[j];
        squares[j] += q[j] * q[j];
      }
    }
    for (std::size_t j = 0; j < 4; ++j) {
      EXPECT_NEAR(shifts[j], mean[j], 1e-6 * mean[j]) << j;
      EXPECT_NEAR(shifts[j] / uniform[j], rows / (rows - 1.0), 1e-12);
      const double average = sum[j] / draws;
      const double deviation = std::sqrt((squares[j] / draws - average * average) / draws);
      EXPECT_NEAR(uniform[j], average, 3 * deviation) << j;
    }
  }
}

/// Nodes and weights of Gauss and Legendre on [0, 1] with 8 nodes.
constexpr double nodes[] = {0.019855071751231884, 0.101666761293186630, 0.237233795041835507,
                            0.408282678752175098, 0.591717321247824902, 0.762766204958164493,
                            0.898333238706813370, 0.980144928248768116};
constexpr double node_weights[] = {0.050614268145188130, 0.111190517226687235, 0.156853322938943644,
                                   0.181341891689180991, 0.181341891689180991, 0.156853322938943644,
                                   0.111190517226687235, 0.050614268145188130};

/// T6, P2: permutation importance is the path integral of the gate's gradient; together the gates'
/// integrals are the loss of permuting everything.
TYPED_TEST(MixTest, PathIntegralsOfGateGradientsArePermutationImportance) {
  using T = typename TypeParam::scalar;
  constexpr Index rows = 64;
  const FieldLayout layout({1, 3, 2});
  const auto backend = TypeParam::backend::make();
  MixCase<T> c(layout, rows, places[0]);
  const Donors donors(DonorPolicy::Uniform, 3, 1, rows, layout);
  // Small weights: eight nodes do for a smooth loss.
  const Eigen::VectorXd w = 0.3 * normal_batch<double>(6, 1, 9).col(0);
  const Eigen::VectorXd y = (c.exact * w).array().tanh();
  const auto loss = [&](const MatrixXd& x) {
    return ((x * w).array().tanh() - y.array()).square().sum() / rows;
  };
  const auto slopes = [&](const std::vector<double>& gates) {
    mix_forward(backend, c.x.batch(), gates, donors, c.mixed.batch());
    const Eigen::ArrayXd out = (c.mixed.get() * w).array().tanh();
    const Eigen::VectorXd outer = 2.0 / rows * (out - y.array()) * (1 - out.square());
    c.grad_mixed.set(outer * w.transpose());
    MixGradients gradients;
    mix_backward_gates(backend, c.x.batch(), gates, donors, c.grad_mixed.batch(), gradients);
    return gradients.gates;
  };
  const double whole = loss(c.exact);
  double together = 0;
  for (std::size_t j = 0; j < 3; ++j) {
    double alone = 0;
    for (std::size_t k = 0; k < 8; ++k) {
      std::vector<double> gates(3, 1.0);
      gates[j] = nodes[k];
      alone -= node_weights[k] * slopes(gates)[j];
      together -= node_weights[k] * slopes(std::vector<double>(3, nodes[k]))[j];
    }
    std::vector<double> closed(3, 1.0);
    closed[j] = 0;
    const double importance = loss(mixed_by_formula(c.exact, donors, closed)) - whole;
    EXPECT_NEAR(alone, importance, 1e-3 * importance) << j;
    EXPECT_GT(importance, 1e-3);
  }
  EXPECT_NEAR(together, loss(permuted(c.exact, donors)) - whole, 1e-3 * together);
}

TYPED_TEST(MixTest, AFieldThatDoesNotVaryHasSumsOfExactlyZero) {
  using T = typename TypeParam::scalar;
  const FieldLayout layout({1, 4, 20});
  MixCase<T> c(layout, 33, places[2]);
  c.exact.middleCols(1, 4).rowwise() = Eigen::RowVector4d(0.1f, -3, 0, 1e10f);
  c.x.set(c.exact);
  MixGradients gradients;
  mix_backward_gates(TypeParam::backend::make(), c.x.batch(), c.gates,
                     Donors(DonorPolicy::Shift, 1, 1, 33, layout), c.grad_mixed.batch(), gradients,
                     {.norms = true});
  EXPECT_EQ(gradients.gates[1], 0);
  EXPECT_EQ(gradients.divergence.squared[1], 0);
  EXPECT_EQ(gradients.divergence.absolute[1], 0);
  EXPECT_EQ(gradients.divergence.norms[1], 0);
  EXPECT_NE(gradients.divergence.squared[0], 0);
  // Of four columns; means in double are off by at most 33 u.
  const double off = Tolerance<double>::gamma(33) * 1e10;
  const auto closed =
      divergence_closed(TypeParam::backend::make(), layout, c.x.batch(), DonorPolicy::Uniform);
  EXPECT_LE(closed[1], 2 * 4 * off * off);
}

/// A NaN reaches its row and the row it is given to, and the sums of its field.
TYPED_TEST(MixTest, ANanStaysWithItsRowAndItsReceiver) {
  using T = typename TypeParam::scalar;
  const FieldLayout layout({1, 3, 1});
  for (const Storage storage : storages) {
    MixCase<T> c(layout, 37, {storage, storage});
    c.exact(5, 2) = std::numeric_limits<double>::quiet_NaN();
    c.x.set(c.exact);
    const std::vector<double> gates{0.9, 0.9, 0.9};
    const Donors donors(DonorPolicy::BaseShift, 1, 1, 37, layout);
    mix_forward(TypeParam::backend::make(), c.x.batch(), gates, donors, c.mixed.batch());
    const MatrixXd mixed = c.mixed.get();
    for (Index b = 0; b < 37; ++b)
      for (Index col = 0; col < 5; ++col)
        EXPECT_EQ(std::isnan(mixed(b, col)), col == 2 && (b == 5 || b == donors.source_of(1, 5)));
    MixGradients gradients;
    mix_backward(TypeParam::backend::make(), c.x.batch(), gates, donors, c.grad_mixed.batch(),
                 c.grad_x.batch(), gradients);
    EXPECT_FALSE(c.grad_x.get().hasNaN()) << "x does not enter the gradient by x";
    for (std::size_t j = 0; j < 3; ++j) {
      EXPECT_EQ(std::isnan(gradients.gates[j]), j == 1);
      EXPECT_EQ(std::isnan(gradients.divergence.squared[j]), j == 1);
      EXPECT_EQ(std::isnan(gradients.divergence.absolute[j]), j == 1);
    }
  }
}

template <class T, class B>
std::pair<MatrixXd, MixGradients> passes(const B& backend, MixCase<T>& c, const Donors& donors) {
  MixGradients gradients;
  mix_backward(backend, c.x.batch(), c.gates, donors, c.grad_mixed.batch(), c.grad_x.batch(),
               gradients, {.detach = false, .norms = true});
  mix_forward(backend, c.x.batch(), c.gates, donors, c.mixed.batch());
  MatrixXd both(c.exact.rows(), 2 * c.exact.cols());
  both << c.mixed.get(), c.grad_x.get();
  return {both, gradients};
}

TEST(Mix, BitsDoNotDependOnThreads) {
  std::vector<Index> widths(300, 1);
  widths.insert(widths.end(), {700, 3, 64});
  const FieldLayout layout(widths);
  for (const Storage storage : storages)
    for (const DonorPolicy policy : policies) {
      MixCase<float> c(layout, 501, {storage, storage});
      const Donors donors(policy, 4, 5, 501, layout);
      const auto one = passes(pare::simd, c, donors);
      const auto check = [&](const auto& other) {
        EXPECT_TRUE(equal_bits(one.first, other.first));
        EXPECT_EQ(one.second.gates, other.second.gates);
        EXPECT_EQ(one.second.divergence.squared, other.second.divergence.squared);
        EXPECT_EQ(one.second.divergence.absolute, other.second.divergence.absolute);
        EXPECT_EQ(one.second.divergence.norms, other.second.divergence.norms);
      };
      check(passes(pare::simd.threads(2), c, donors));
      check(passes(pare::simd.threads(5), c, donors));
      check(passes(pare::simd.on(ReversePool{3}), c, donors));
    }
}

/// T18: relabelling fields relabels what is learned of them.
TEST(Mix, FieldsInAnotherOrderHaveTheSameGradients) {
  constexpr Index rows = 40;
  const MatrixXd x = normal_batch<double>(rows, 12, 1), g = normal_batch<double>(rows, 12, 2);
  const FieldLayout layout({3, 4, 5}), turned({5, 3, 4});
  MatrixXd turned_x(rows, 12), turned_g(rows, 12);
  turned_x << x.rightCols(5), x.leftCols(7);
  turned_g << g.rightCols(5), g.leftCols(7);
  MixGradients a, b;
  const std::vector<double> gates{0.1, 0.5, 0.9}, turned_gates{0.9, 0.1, 0.5};
  const std::vector<Index> shifts{3, 17, 9}, turned_shifts{9, 3, 17};
  mix_backward_gates(x, gates, Donors::from_shifts(rows, layout, shifts), g, a);
  mix_backward_gates(turned_x, turned_gates, Donors::from_shifts(rows, turned, turned_shifts),
                     turned_g, b);
  for (std::size_t j = 0; j < 3; ++j) {
    EXPECT_NEAR(a.gates[j], b.gates[(j + 1) % 3], 1e-12);
    EXPECT_NEAR(a.divergence.squared[j], b.divergence.squared[(j + 1) % 3], 1e-12);
  }
}

TEST(Mix, TakesEigensMatricesAndAWorkspace) {
  const FieldLayout layout({2, 1, 3});
  const Donors donors(DonorPolicy::Shift, 1, 1, 10, layout);
  const std::vector<double> gates{0.5, 0.25, 0.75};
  const Eigen::MatrixXf x = normal_batch<float>(10, 6, 1).cast<float>();
  Eigen::Matrix<float, -1, -1, Eigen::RowMajor> mixed(12, 9);
  mixed.setZero();
  pare::Workspace workspace;
  mix_forward(pare::simd.with(workspace), x, gates, donors, mixed.topLeftCorner(10, 6));
  expect_mixed<float>(mixed.topLeftCorner(10, 6).cast<double>(), x.cast<double>(), donors, gates);
  EXPECT_TRUE(mixed.bottomRows(2).isZero() && mixed.rightCols(3).isZero());
  MixGradients gradients, again;
  mix_backward_gates(pare::simd.with(workspace), x, gates, donors, x, gradients);
  mix_backward_gates(x, gates, donors, x, again);
  EXPECT_EQ(gradients.gates, again.gates);
}

TEST(Mix, AllocatesNothingTheSecondTimeInAWorkspace) {
  const FieldLayout layout({2, 1, 3});
  const Donors donors(DonorPolicy::Uniform, 1, 1, 90, layout);
  const std::vector<double> gates{0.5, 0.25, 0.75};
  const Eigen::MatrixXf x = normal_batch<float>(90, 6, 1).cast<float>();
  Eigen::MatrixXf mixed(90, 6), gradient(90, 6);
  MixGradients gradients;
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  const auto call = [&] {
    mix_forward(backend, x, gates, donors, mixed);
    mix_backward(backend, x, gates, donors, mixed, gradient, gradients, {.detach = false});
    mix_backward_gates(backend, x, gates, donors, mixed, gradients);
  };
  call();
  const long before = pare::testing::allocations.load();
  call();
  EXPECT_EQ(pare::testing::allocations.load(), before);
}

}  // namespace
}  // namespace feature_mix_test
