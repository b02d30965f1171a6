// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <pare/feature/leap/mix_sparse.hpp>

#include "feature/batches.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace feature_mix_sparse_test {
namespace {

using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::RowVectorXd;
using pare::Index;
using pare::feature::DonorPolicy;
using pare::feature::MixGradients;
using pare::feature::MixOptions;
using pare::feature::SparseFields;
using pare::feature::SparseMix;

template <class Case>
struct MixSparseTest : testing::Test {};
TYPED_TEST_SUITE(MixSparseTest, BackendsAndScalars);

constexpr DonorPolicy policies[] = {DonorPolicy::Shift, DonorPolicy::BaseShift,
                                    DonorPolicy::Uniform, DonorPolicy::Derangement};

const FieldLayout mixed_widths({1, 3, 8, 17, 64, 256, 1, 1, 2, 4, 1, 16, 1, 32});

/// Rows of field j that are no default: none, all, some, most, and a single one, in turn.
bool is_active(Index j, Index b, Index rows, Engine& random) {
  const double u = 0.5 + 0.5 * uniform(random);
  switch (j % 5) {
    case 0:
      return false;
    case 1:
      return true;
    case 2:
      return u < 0.15;
    case 3:
      return u < 0.6;
    default:
      return b == rows / 3;
  }
}

/// A batch that is at its defaults but for active rows, dense and sparse.
template <class T>
struct SparseCase {
  RowVectorXd defaults;
  MatrixXd exact, upstream;
  SparseFields<T> x;
  std::vector<double> gates;

  /// `turn` says which of the fields have which share of active rows.
  SparseCase(const FieldLayout& layout, Index rows, Index turn, bool zero_defaults)
      : defaults(zero_defaults ? MatrixXd::Zero(1, layout.dim())
                               : normal_batch<T>(1, layout.dim(), 7)),
        exact(defaults.replicate(rows, 1)),
        upstream(normal_batch<T>(rows, layout.dim(), 2)),
        gates(some_gates(layout.fields(), 3)) {
    const MatrixXd values = normal_batch<T>(rows, layout.dim(), 1);
    Engine random(9);
    for (Index j = 0; j < layout.fields(); ++j)
      for (Index b = 0; b < rows; ++b)
        if (is_active(j + turn, b, rows, random))
          exact.block(b, layout.offset(j), 1, layout.width(j)) =
              values.block(b, layout.offset(j), 1, layout.width(j));
    take(layout);
  }
  /// x = the entries of `exact`.
  void take(const FieldLayout& layout) {
    std::vector<T> scalars;
    for (const double value : defaults) scalars.push_back(static_cast<T>(value));
    x = to_sparse(layout, Eigen::Matrix<T, -1, -1>(exact.template cast<T>()), scalars);
  }
};

/// The entries that a dense gradient has where the mix has some.
template <class T>
SparseFields<T> entries_of(const MatrixXd& dense, const SparseFields<T>& pattern) {
  OwnedBatch<T> batch(pattern.layout(), pattern.rows(), Storage::RowMajor);
  batch.set(dense);
  SparseFields<T> entries = pattern;
  read_entries(batch.read(), entries);
  return entries;
}

/// What the dense mix of the same batch does, by its definition in double.
struct DenseMix {
  MatrixXd mixed, grad_x;
  MixGradients gradients;

  template <class T>
  DenseMix(const SparseCase<T>& c, const Donors& donors, const MixOptions& options)
      : mixed(c.exact), grad_x(c.exact) {
    OwnedBatch<T> x(c.x.layout(), c.x.rows(), Storage::FieldBlocked);
    to_dense(c.x, x.batch());
    const MatrixXd exact = x.get();
    mix_forward(pare::reference, exact, c.gates, donors, mixed);
    mix_backward(pare::reference, exact, c.gates, donors, c.upstream, grad_x, gradients, options);
  }
};

/// The rows of the mix are those that are active or have an active donor.
template <class T>
void expect_rows(const SparseFields<T>& mixed, const SparseFields<T>& x, const Donors& donors) {
  for (Index j = 0; j < x.layout().fields(); ++j) {
    std::vector<char> active(static_cast<std::size_t>(x.rows()), 0);
    for (const std::uint32_t b : x.rows_of(j)) active[b] = 1;
    const pare::Permutation donor = donors.permutation(j);
    std::vector<std::uint32_t> wanted;
    for (Index b = 0; b < x.rows(); ++b)
      if (active[static_cast<std::size_t>(b)] || active[donor[b]])
        wanted.push_back(static_cast<std::uint32_t>(b));
    const auto got = mixed.rows_of(j);
    ASSERT_EQ(std::vector<std::uint32_t>(got.begin(), got.end()), wanted) << j;
  }
}

/// Written into the dense batch, the entries make it the dense mix: the roundings of both sides.
template <class T>
void expect_mixed(const SparseFields<T>& mixed, const SparseCase<T>& c, const Donors& donors,
                  const DenseMix& dense) {
  OwnedBatch<T> in_place(c.x.layout(), c.x.rows(), Storage::RowMajor);
  to_dense(c.x, in_place.batch());
  write_entries(mixed, in_place.batch());
  const MatrixXd got = in_place.get(), t = permuted(c.exact, donors);
  for (Index b = 0; b < got.rows(); ++b)
    for (Index i = 0; i < got.cols(); ++i) {
      const double size = std::abs(c.exact(b, i)) + std::abs(c.exact(b, i) - t(b, i));
      const double bound = Tolerance<T>::gamma(5) + Tolerance<double>::gamma(5);
      ASSERT_TRUE(within(got(b, i), dense.mixed(b, i), bound * size)) << b << ' ' << i;
    }
  OwnedBatch<T> alone(c.x.layout(), c.x.rows(), Storage::ColumnMajor);
  to_dense(mixed, alone.batch());
  ASSERT_EQ(alone.get(), got) << "the defaults are those of x";
}

/// Sums over all rows, of which those at the default add nothing.
template <class T>
void expect_sums(const MixGradients& got, const SparseCase<T>& c, const Donors& donors,
                 const DenseMix& dense, const MixOptions& options) {
  const FieldLayout& layout = c.x.layout();
  const MatrixXd delta = c.exact - permuted(c.exact, donors);
  const auto rows = static_cast<double>(c.x.rows());
  ASSERT_EQ(got.gates.size(), static_cast<std::size_t>(layout.fields()));
  ASSERT_EQ(got.divergence.norms.size(), dense.gradients.divergence.norms.size());
  for (Index j = 0; j < layout.fields(); ++j) {
    const auto i = static_cast<std::size_t>(j);
    const auto d = delta.middleCols(layout.offset(j), layout.width(j));
    const auto up = c.upstream.middleCols(layout.offset(j), layout.width(j));
    const auto terms = static_cast<double>(d.size());
    const double bound = sum_bound<T>(terms) + sum_bound<double>(terms);
    const double slopes = d.cwiseProduct(up).cwiseAbs().sum();
    const auto& wanted = dense.gradients;
    EXPECT_TRUE(within(got.gates[i], wanted.gates[i], bound * slopes)) << j;
    EXPECT_TRUE(within(got.divergence.squared[i], wanted.divergence.squared[i],
                       bound * d.squaredNorm() / rows))
        << j;
    EXPECT_TRUE(within(got.divergence.absolute[i], wanted.divergence.absolute[i],
                       bound * d.cwiseAbs().sum() / rows))
        << j;
    if (options.norms) {
      EXPECT_TRUE(within(got.divergence.norms[i], wanted.divergence.norms[i],
                         bound * d.rowwise().norm().sum() / rows))
          << j;
    }
    // Nothing moved: nothing is left of roundings.
    if (c.x.entries(j) == 0) {
      EXPECT_EQ(got.gates[i], 0) << j;
      EXPECT_EQ(got.divergence.squared[i], 0) << j;
      EXPECT_EQ(got.divergence.absolute[i], 0) << j;
    }
  }
}

/// At active rows the gradient by x is the dense one.
template <class T>
void expect_gradient_by_x(const SparseFields<T>& got, const SparseCase<T>& c, const Donors& donors,
                          const DenseMix& dense, const MixOptions& options) {
  ASSERT_TRUE(got.same_pattern(c.x));
  for (const T value : got.defaults()) ASSERT_EQ(value, T(0));
  const FieldLayout& layout = c.x.layout();
  for (Index j = 0; j < layout.fields(); ++j) {
    const pare::Permutation source = donors.permutation(j).inverse();
    const double gate = c.gates[static_cast<std::size_t>(j)];
    for (Index i = 0; i < got.entries(j); ++i) {
      const Index b = got.rows_of(j)[static_cast<std::size_t>(i)];
      for (Index k = 0; k < layout.width(j); ++k) {
        const Index column = layout.offset(j) + k;
        const double own = gate * std::abs(c.upstream(b, column));
        const double given =
            options.detach
                ? 0
                : (1 - gate) * std::abs(c.upstream(static_cast<Index>(source[b]), column));
        const double bound = Tolerance<T>::gamma(4) + Tolerance<double>::gamma(4);
        ASSERT_TRUE(within(got.values(j)(i, k), dense.grad_x(b, column), bound * (own + given)))
            << j << ' ' << i << ' ' << k;
      }
    }
  }
}

template <class P>
void expect_the_dense_mix(const SparseCase<typename P::scalar>& c, const Donors& donors,
                          const MixOptions& options) {
  using T = typename P::scalar;
  const auto backend = P::backend::make();
  const DenseMix dense(c, donors, options);
  SparseMix<T> mixed;
  mix_forward(backend, c.x, c.gates, donors, mixed);
  expect_rows(mixed.fields(), c.x, donors);
  expect_mixed(mixed.fields(), c, donors, dense);
  const SparseFields<T> grad_mixed = entries_of(c.upstream, mixed.fields());
  SparseFields<T> grad_x;
  MixGradients gradients, of_gates;
  mix_backward(backend, c.x, c.gates, donors, mixed, grad_mixed, grad_x, gradients, options);
  expect_sums(gradients, c, donors, dense, options);
  expect_gradient_by_x(grad_x, c, donors, dense, options);
  mix_backward_gates(backend, c.x, c.gates, donors, mixed, grad_mixed, of_gates, options);
  expect_sums(of_gates, c, donors, dense, options);
}

/// T16, with every share of active rows under gates of 0, of 1 and between.
TYPED_TEST(MixSparseTest, BothPassesAreThoseOfTheDenseMixUnderEveryPolicy) {
  for (Index turn = 0; turn < 5; ++turn)
    for (const bool zero : {true, false}) {
      const SparseCase<typename TypeParam::scalar> c(mixed_widths, 37, turn, zero);
      for (const DonorPolicy policy : policies) {
        const Donors donors(policy, 4, 5, 37, mixed_widths);
        SCOPED_TRACE(testing::Message() << "policy " << static_cast<int>(policy) << ", turn "
                                        << turn << (zero ? ", zeros" : ", other defaults"));
        expect_the_dense_mix<TypeParam>(c, donors, {.norms = true});
        expect_the_dense_mix<TypeParam>(c, donors, {.detach = false});
      }
    }
}

/// Runs of more scalars than are gathered at a time, and rows of more than that.
TYPED_TEST(MixSparseTest, LongAndWideFields) {
  using Case = SparseCase<typename TypeParam::scalar>;
  const FieldLayout narrow({1, 1, 1, 1, 3}), wide({1500, 1024, 700, 1, 1100});
  for (const DonorPolicy policy : policies)
    for (Index turn = 0; turn < 2; ++turn) {
      expect_the_dense_mix<TypeParam>(Case(narrow, 2500, turn, false),
                                      Donors(policy, 4, 5, 2500, narrow),
                                      {.detach = false, .norms = true});
      expect_the_dense_mix<TypeParam>(Case(wide, 6, turn, false), Donors(policy, 4, 5, 6, wide),
                                      {.detach = false, .norms = true});
    }
}

/// Shifts turn before, at, and after every entry; a shift of 0 moves nothing.
TYPED_TEST(MixSparseTest, EveryShiftOfFewRows) {
  const FieldLayout layout({1, 2, 1, 3, 1});
  for (const Index rows : {2, 3, 17}) {
    const SparseCase<typename TypeParam::scalar> c(layout, rows, 0, false);
    for (Index shift = 0; shift < rows; ++shift)
      expect_the_dense_mix<TypeParam>(
          c, Donors::from_shifts(rows, layout, std::vector<Index>(5, shift)),
          {.detach = false, .norms = true});
  }
}

TYPED_TEST(MixSparseTest, WithoutAnyEntryThereIsNothingToDo) {
  using T = typename TypeParam::scalar;
  const FieldLayout layout({1, 3, 8});
  SparseFields<T> x(layout, 9), grad_x;
  for (T& value : x.defaults()) value = T(3);
  const std::vector<double> gates{0.5, 0, 1};
  for (const DonorPolicy policy : policies) {
    const Donors donors(policy, 1, 2, 9, layout);
    SparseMix<T> mixed;
    mix_forward(TypeParam::backend::make(), x, gates, donors, mixed);
    EXPECT_TRUE(mixed.fields().same_pattern(x));
    EXPECT_EQ(mixed.fields().defaults()[11], T(3));
    MixGradients gradients;
    mix_backward(TypeParam::backend::make(), x, gates, donors, mixed, mixed.fields(), grad_x,
                 gradients, {.detach = false, .norms = true});
    EXPECT_EQ(grad_x.entries(), 0);
    const std::vector<double> zeros(3, 0.0);
    EXPECT_EQ(gradients.gates, zeros);
    EXPECT_EQ(gradients.divergence.squared, zeros);
    EXPECT_EQ(gradients.divergence.absolute, zeros);
    EXPECT_EQ(gradients.divergence.norms, zeros);
  }
}

/// T1: gates of exactly 1 and 0 copy, infinities and NaN too.
TYPED_TEST(MixSparseTest, GatesOfOneAndZeroCopyBitForBit) {
  using T = typename TypeParam::scalar;
  SparseCase<T> c(mixed_widths, 37, 1, false);
  for (Index column = 0; column < c.exact.cols(); ++column) {
    c.exact(column % 37, column) = std::numeric_limits<double>::infinity();
    c.exact((column + 1) % 37, column) = std::numeric_limits<double>::quiet_NaN();
    c.exact((column + 2) % 37, column) = static_cast<double>(std::numeric_limits<T>::denorm_min());
  }
  c.take(mixed_widths);
  for (const DonorPolicy policy : policies) {
    const Donors donors(policy, 4, 5, 37, mixed_widths);
    for (const double gate : {1.0, 0.0}) {
      SparseMix<T> mixed;
      mix_forward(TypeParam::backend::make(), c.x, std::vector<double>(14, gate), donors, mixed);
      OwnedBatch<T> got(mixed_widths, 37, Storage::RowMajor);
      to_dense(mixed.fields(), got.batch());
      const MatrixXd wanted = gate == 1 ? c.exact : permuted(c.exact, donors);
      const Eigen::Matrix<T, -1, -1> a = got.get().template cast<T>(), b = wanted.cast<T>();
      EXPECT_TRUE(equal_bits(a, b));
    }
  }
}

/// A closed gate passes nothing of an infinite gradient on, and an open one nothing to donors:
/// neither multiplies it by 0.
TYPED_TEST(MixSparseTest, GatesOfOneAndZeroMultiplyNoInfiniteGradient) {
  using T = typename TypeParam::scalar;
  SparseCase<T> c(mixed_widths, 37, 1, false);
  c.take(mixed_widths);
  const Donors donors(DonorPolicy::BaseShift, 4, 5, 37, mixed_widths);
  for (const double gate : {1.0, 0.0})
    for (const bool detach : {true, false}) {
      SCOPED_TRACE(gate);
      const std::vector<double> gates(14, gate);
      SparseMix<T> mixed;
      mix_forward(TypeParam::backend::make(), c.x, gates, donors, mixed);
      SparseFields<T> upstream = mixed.fields(), grad_x;
      for (Index j = 0; j < 14; ++j)
        for (Index i = 0; i < upstream.entries(j) * mixed_widths.width(j); ++i)
          upstream.values(j).data[i] = std::numeric_limits<T>::infinity();
      MixGradients gradients;
      mix_backward(TypeParam::backend::make(), c.x, gates, donors, mixed, upstream, grad_x,
                   gradients, {.detach = detach});
      const double wanted = gate == 0 && detach ? 0 : std::numeric_limits<double>::infinity();
      ASSERT_EQ(grad_x.entries(), c.x.entries());
      for (Index j = 0; j < 14; ++j)
        for (Index i = 0; i < grad_x.entries(j) * mixed_widths.width(j); ++i)
          ASSERT_EQ(static_cast<double>(grad_x.values(j).data[i]), wanted) << j;
    }
}

/// A NaN reaches its row and the row it is given to, and the sums of its field.
TYPED_TEST(MixSparseTest, ANanStaysWithItsRowAndItsReceiver) {
  using T = typename TypeParam::scalar;
  const FieldLayout layout({1, 3, 1, 1, 1});
  SparseCase<T> c(layout, 37, 2, false);
  const SparseCase<T> clean = c;
  c.exact(5, 2) = std::numeric_limits<double>::quiet_NaN();
  c.take(layout);
  c.gates.assign(5, 0.9);
  for (const DonorPolicy policy : {DonorPolicy::BaseShift, DonorPolicy::Derangement}) {
    const Donors donors(policy, 1, 1, 37, layout);
    SparseMix<T> mixed;
    mix_forward(TypeParam::backend::make(), c.x, c.gates, donors, mixed);
    OwnedBatch<T> dense(layout, 37, Storage::RowMajor);
    to_dense(mixed.fields(), dense.batch());
    const MatrixXd got = dense.get();
    for (Index b = 0; b < 37; ++b)
      for (Index i = 0; i < layout.dim(); ++i)
        EXPECT_EQ(std::isnan(got(b, i)), i == 2 && (b == 5 || b == donors.source_of(1, 5)));
    MixGradients gradients;
    SparseFields<T> grad_x;
    mix_backward(TypeParam::backend::make(), c.x, c.gates, donors, mixed,
                 entries_of(c.upstream, mixed.fields()), grad_x, gradients,
                 {.detach = false, .norms = true});
    for (Index j = 0; j < layout.fields(); ++j) {
      const auto i = static_cast<std::size_t>(j);
      EXPECT_EQ(std::isnan(gradients.gates[i]), j == 1);
      EXPECT_EQ(std::isnan(gradients.divergence.squared[i]), j == 1);
      EXPECT_EQ(std::isnan(gradients.divergence.absolute[i]), j == 1);
      EXPECT_EQ(std::isnan(gradients.divergence.norms[i]), j == 1);
      for (Index k = 0; k < grad_x.entries(j); ++k)
        EXPECT_TRUE(std::isfinite(grad_x.values(j)(k, 0))) << "x does not enter it";
    }
  }
}

template <class T>
void expect_equal_bits(const SparseFields<T>& a, const SparseFields<T>& b) {
  ASSERT_TRUE(a.same_pattern(b));
  for (Index j = 0; j < a.layout().fields(); ++j)
    for (Index i = 0; i < a.entries(j); ++i)
      for (Index c = 0; c < a.layout().width(j); ++c)
        ASSERT_TRUE(same_bits(a.values(j)(i, c), b.values(j)(i, c))) << j << ' ' << i;
  for (std::size_t c = 0; c < a.defaults().size(); ++c)
    ASSERT_TRUE(same_bits(a.defaults()[c], b.defaults()[c]));
}

void expect_equal_sums(const MixGradients& a, const MixGradients& b) {
  EXPECT_EQ(a.gates, b.gates);
  EXPECT_EQ(a.divergence.squared, b.divergence.squared);
  EXPECT_EQ(a.divergence.absolute, b.divergence.absolute);
  EXPECT_EQ(a.divergence.norms, b.divergence.norms);
}

/// What both passes make of a case.
template <class T>
struct Passes {
  SparseFields<T> mixed, grad_x;
  MixGradients gradients;

  template <class B>
  Passes(const B& backend, const SparseCase<T>& c, const Donors& donors, SparseMix<T>& mix) {
    mix_forward(backend, c.x, c.gates, donors, mix);
    mixed = mix.fields();
    mix_backward(backend, c.x, c.gates, donors, mix, entries_of(c.upstream, mixed), grad_x,
                 gradients, {.detach = false, .norms = true});
  }
  void expect_equal(const Passes& other) const {
    expect_equal_bits(mixed, other.mixed);
    expect_equal_bits(grad_x, other.grad_x);
    expect_equal_sums(gradients, other.gradients);
  }
};

/// Memory that has held larger, smaller and other batches makes the same of the next one.
TYPED_TEST(MixSparseTest, AMixMayBeUsedAgain) {
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  SparseMix<T> again;
  const FieldLayout small({2, 1, 5});
  for (const DonorPolicy policy : policies)
    for (Index turn = 0; turn < 5; ++turn) {
      const bool other = turn == 2;
      const FieldLayout& layout = other ? small : mixed_widths;
      const Index rows = turn == 3 ? 50 : 37;
      const SparseCase<T> c(layout, rows, turn, turn == 1);
      const Donors donors(policy, 4, 5, rows, layout);
      SparseMix<T> fresh;
      Passes<T>(backend, c, donors, again).expect_equal(Passes<T>(backend, c, donors, fresh));
    }
}

TEST(MixSparse, BitsDoNotDependOnThreads) {
  std::vector<Index> widths(300, 1);
  widths.insert(widths.end(), {700, 3, 64, 20});
  const FieldLayout layout(widths);
  for (const DonorPolicy policy : policies) {
    const SparseCase<float> c(layout, 501, 0, false);
    const Donors donors(policy, 4, 5, 501, layout);
    SparseMix<float> mix;
    const Passes<float> one(pare::simd, c, donors, mix);
    one.expect_equal({pare::simd.threads(2), c, donors, mix});
    one.expect_equal({pare::simd.threads(5), c, donors, mix});
    one.expect_equal({pare::simd.on(ReversePool{3}), c, donors, mix});
  }
}

TEST(MixSparse, WithoutABackendItIsTheFastOne) {
  const SparseCase<float> c(mixed_widths, 37, 0, false);
  const Donors donors(DonorPolicy::BaseShift, 4, 5, 37, mixed_widths);
  SparseMix<float> mixed, other;
  mix_forward(c.x, c.gates, donors, mixed);
  mix_forward(pare::simd, c.x, c.gates, donors, other);
  expect_equal_bits(mixed.fields(), other.fields());
  const auto grad_mixed = entries_of(c.upstream, mixed.fields());
  SparseFields<float> a, b;
  MixGradients of_a, of_b, alone;
  mix_backward(c.x, c.gates, donors, mixed, grad_mixed, a, of_a);
  mix_backward(pare::simd, c.x, c.gates, donors, mixed, grad_mixed, b, of_b);
  mix_backward_gates(c.x, c.gates, donors, mixed, grad_mixed, alone);
  expect_equal_bits(a, b);
  expect_equal_sums(of_a, of_b);
  expect_equal_sums(of_a, alone);
}

/// The sum over the rows at the default of what the dense gradient by x has there.
TYPED_TEST(MixSparseTest, TheGradientByTheDefaultsIsTheSumOverTheRowsAtThem) {
  using T = typename TypeParam::scalar;
  for (Index turn = 0; turn < 5; ++turn) {
    const SparseCase<T> c(mixed_widths, 37, turn, false);
    const Donors donors(DonorPolicy::Uniform, 4, 5, 37, mixed_widths);
    const DenseMix dense(c, donors, {});
    SparseMix<T> mixed;
    mix_forward(TypeParam::backend::make(), c.x, c.gates, donors, mixed);
    const RowVectorXd sums = c.upstream.colwise().sum();
    const std::vector<double> got =
        default_gradient(c.x, c.gates, std::vector<double>(sums.begin(), sums.end()),
                         entries_of(c.upstream, mixed.fields()));
    ASSERT_EQ(got.size(), static_cast<std::size_t>(mixed_widths.dim()));
    for (Index j = 0; j < mixed_widths.fields(); ++j)
      for (Index column = mixed_widths.offset(j); column < mixed_widths.offset(j + 1); ++column) {
        double wanted = dense.grad_x.col(column).sum();
        for (const std::uint32_t b : c.x.rows_of(j)) wanted -= dense.grad_x(b, column);
        // Two sums of 37 rows each, less some of them: 74 additions, the gate, and so again here.
        const double size = c.upstream.col(column).cwiseAbs().sum();
        EXPECT_TRUE(within(got[static_cast<std::size_t>(column)], wanted,
                           Tolerance<double>::gamma(2 * (2 * 37 + 2)) * 2 * size))
            << j << ' ' << column;
      }
  }
}

/// A batch, its mix and the operands of the way back, of which a test spoils one.
struct Operands {
  FieldLayout layout{1, 3, 2};
  SparseFields<double> x{layout, 10};
  std::vector<double> gates{0.2, 0.5, 0.9};
  Donors donors{DonorPolicy::Shift, 1, 2, 10, layout};
  SparseMix<double> mixed;
  SparseFields<double> grad_mixed, grad_x{FieldLayout({1}), 4};
  MixGradients gradients{{-5}, {}};

  Operands() {
    x = batch(10, {6, 2, 1});
    mix_forward(x, gates, donors, mixed);
    grad_mixed = mixed.fields();
    grad_x.reserve({1});
    grad_x.set_rows(0, std::vector<std::uint32_t>{2});
    grad_x.values(0)(0, 0) = 7;
  }
  /// The first so many rows of each field, all 1.
  SparseFields<double> batch(Index rows, const std::vector<std::uint32_t>& entries) const {
    SparseFields<double> made(layout, rows);
    made.reserve({rows, rows, rows});
    for (Index j = 0; j < 3; ++j) {
      std::vector<std::uint32_t> list(entries[static_cast<std::size_t>(j)]);
      for (std::uint32_t i = 0; i < list.size(); ++i) list[i] = i;
      made.set_rows(j, list);
      std::fill_n(made.values(j).data, made.entries(j) * layout.width(j), 1.0);
    }
    return made;
  }
};

template <class B>
struct MixSparseErrors : testing::Test {
  static void forward(Operands& o, const std::string& argument) {
    const SparseFields<double> before = o.mixed.fields();
    refusal([&] { mix_forward(B::make(), o.x, o.gates, o.donors, o.mixed); },
            "feature::mix_forward", argument);
    expect_equal_bits(o.mixed.fields(), before);
  }
  static void backward(Operands& o, const std::string& argument) {
    const SparseFields<double> before = o.mixed.fields();
    refusal(
        [&] {
          mix_backward(B::make(), o.x, o.gates, o.donors, o.mixed, o.grad_mixed, o.grad_x,
                       o.gradients, {.norms = true});
        },
        "feature::mix_backward", argument);
    refusal(
        [&] {
          mix_backward_gates(B::make(), o.x, o.gates, o.donors, o.mixed, o.grad_mixed, o.gradients);
        },
        "feature::mix_backward", argument);
    expect_equal_bits(o.mixed.fields(), before);
    expect_equal_bits(o.grad_x, Operands().grad_x);
    EXPECT_EQ(o.gradients.gates, std::vector<double>{-5});
  }
};
using Backends = testing::Types<ReferenceBackend, BestBackend>;
TYPED_TEST_SUITE(MixSparseErrors, Backends);

TYPED_TEST(MixSparseErrors, DonorsOfOtherRowsOrAnotherLayout) {
  for (const Donors& bad :
       {Donors(DonorPolicy::Shift, 1, 2, 11, Operands().layout),
        Donors(DonorPolicy::Shift, 1, 2, 10, FieldLayout({3, 1, 2})),
        Donors(DonorPolicy::Uniform, 1, 2, 10, FieldLayout({1, 3, 2}, {0, 0, 2}))}) {
    Operands o;
    o.donors = bad;
    this->forward(o, "x");
    this->backward(o, "x");
  }
}

TYPED_TEST(MixSparseErrors, GatesOutsideOfTheirRange) {
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

/// Also of one with so many entries that the mix has room for all rows of both.
TYPED_TEST(MixSparseErrors, TheMixOfAnotherBatch) {
  for (const std::vector<std::uint32_t>& entries :
       {std::vector<std::uint32_t>{6, 2, 2}, {6, 0, 1}, {5, 2, 1}, {10, 2, 1}}) {
    Operands o;
    o.x = o.batch(10, entries);
    this->backward(o, "mixed");
  }
  Operands o;
  o.mixed = {};
  this->backward(o, "mixed");
  o = {};
  const SparseFields<double> other = o.batch(11, {6, 2, 1});
  mix_forward(other, o.gates, Donors(DonorPolicy::Shift, 1, 2, 11, o.layout), o.mixed);
  this->backward(o, "mixed");
}

TYPED_TEST(MixSparseErrors, GradientsAtOtherEntries) {
  Operands o;
  o.grad_mixed = o.x;
  this->backward(o, "grad_mixed");
  o.grad_mixed = {};
  this->backward(o, "grad_mixed");
  // As many entries, of which the last field's, that of row 0 and the row it is given to, are
  // others, or of more rows, or of another layout.
  const SparseFields<double> mixed = o.mixed.fields();
  o.grad_mixed = mixed;
  o.grad_mixed.set_rows(2, std::vector<std::uint32_t>{1, 2});
  this->backward(o, "grad_mixed");
  for (const auto& [layout, rows] :
       {std::pair{o.layout, Index{11}}, std::pair{FieldLayout({1, 2, 3}), Index{10}}}) {
    o.grad_mixed = SparseFields<double>(layout, rows);
    o.grad_mixed.reserve({10, 10, 10});
    for (Index j = 0; j < 3; ++j) o.grad_mixed.set_rows(j, mixed.rows_of(j));
    this->backward(o, "grad_mixed");
  }
}

TYPED_TEST(MixSparseErrors, OutputsThatAreInputs) {
  Operands o;
  const SparseFields<double> x = o.x, grad_mixed = o.grad_mixed, mixed = o.mixed.fields();
  const auto backend = TypeParam::make();
  refusal([&] { mix_forward(backend, o.mixed.fields(), o.gates, o.donors, o.mixed); },
          "feature::mix_forward", "mixed");
  expect_equal_bits(o.mixed.fields(), mixed);
  refusal(
      [&] {
        mix_backward(backend, o.x, o.gates, o.donors, o.mixed, o.grad_mixed, o.x, o.gradients);
      },
      "feature::mix_backward", "grad_x");
  refusal(
      [&] {
        mix_backward(backend, o.x, o.gates, o.donors, o.mixed, o.grad_mixed, o.grad_mixed,
                     o.gradients);
      },
      "feature::mix_backward", "grad_x");
  expect_equal_bits(o.x, x);
  expect_equal_bits(o.grad_mixed, grad_mixed);
  EXPECT_EQ(o.gradients.gates, std::vector<double>{-5});
}

TEST(MixSparse, TheGradientByTheDefaultsRefusesOtherShapes) {
  const Operands o;
  const std::vector<double> sums(6, 0.0);
  const auto expect = [&](const std::vector<double>& gates, const std::vector<double>& column_sums,
                          const SparseFields<double>& grad_mixed, const char* argument) {
    refusal([&] { default_gradient(o.x, gates, column_sums, grad_mixed); },
            "feature::default_gradient", argument);
  };
  expect(o.gates, std::vector<double>(5, 0.0), o.grad_mixed, "column_sums");
  expect(o.gates, sums, o.batch(11, {6, 2, 1}), "grad_mixed");
  expect(o.gates, sums, SparseFields<double>(FieldLayout({1, 2, 3}), 10), "grad_mixed");
  expect({0.5, 0.5}, sums, o.grad_mixed, "gates");
  expect({0.5, 2, 0.5}, sums, o.grad_mixed, "gates");
}

}  // namespace
}  // namespace feature_mix_sparse_test
