// SPDX-License-Identifier: Apache-2.0
// DoRA: norms of adapted rows against their definition in double, and the layer composed with them.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include <pare/factor/apply.hpp>
#include <pare/factor/dora.hpp>

#include "factor/data.hpp"
#include "support/allocations.hpp"
#include "support/backends.hpp"

namespace factor_dora_test {
namespace {

using namespace pare::factor;
using pare::bf16;
using pare::f16;
using pare::Index;
using pare::RowMatrix;
using pare::testing::equal_bits;
using pare::testing::normal_matrix;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::stored_in;
using pare::testing::Tolerance;

const double nan = std::numeric_limits<double>::quiet_NaN();
const double infinity = std::numeric_limits<double>::infinity();

using Wide = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;

Vector constant(Index size, double value) { return Vector::Constant(size, value); }
Vector ones(Index size) { return constant(size, 1); }

template <class M>
Wide wide(const M& m) {
  Wide result(m.rows(), m.cols());
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j)
      result(i, j) = std::is_same_v<typename M::Scalar, double>
                         ? static_cast<double>(m(i, j))
                         : static_cast<double>(static_cast<float>(m(i, j)));
  return result;
}

/// A layer [out x in] with an adapter, in the storage of M.
template <class M>
struct Layer {
  M w, a, b;
  double scale = 0.7;

  Layer(Index out, Index in, Index rank, std::uint64_t seed = 1)
      : w(random_matrix<M>(out, in, seed)),
        a(random_matrix<M>(rank, in, seed + 1)),
        b(random_matrix<M>(out, rank, seed + 2)) {}

  Wide adapted() const { return wide(w) + scale * wide(b) * wide(a); }
  Vector norms() const { return adapted().rowwise().norm(); }

  /// How far norms may be off when products are summed in T. W A^T and A A^T are sums of `in`
  /// terms, (A A^T) B^T of rank more; what is done in double adds a share of its own. The error of
  /// a square becomes that of its root: |sqrt(x) - sqrt(y)| <= |x - y| / sqrt(y).
  template <class T>
  Vector bounds() const {
    const Wide wa = wide(w).cwiseAbs(), aa = wide(a).cwiseAbs(), ba = wide(b).cwiseAbs();
    const double s = std::abs(scale), in = static_cast<double>(a.cols()),
                 rank = static_cast<double>(a.rows());
    const Vector base = wa.rowwise().squaredNorm(),
                 cross = ba.cwiseProduct(wa * aa.transpose()).rowwise().sum(),
                 gram = ba.cwiseProduct(ba * (aa * aa.transpose())).rowwise().sum();
    const double in_double = Tolerance<double>::gamma(in + rank + 8);
    const Vector square = (2 * s * Tolerance<T>::gamma(in + 1) * cross) +
                          s * s * Tolerance<T>::gamma(in + rank + 2) * gram +
                          in_double * (base + 2 * s * cross + s * s * gram);
    return square.cwiseQuotient(norms());
  }
};

template <class Got>
void expect_near(const Got& got, const Vector& wanted, const Vector& bound) {
  ASSERT_EQ(got.size(), wanted.size());
  for (Index i = 0; i < wanted.size(); ++i)
    EXPECT_PRED3(pare::testing::within, static_cast<double>(got[i]), wanted[i], bound[i]) << i;
}

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Columns = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;

template <class P>
class DoraTest : public testing::Test {
 protected:
  static auto backend() { return P::backend::make(); }

  template <class L>
  static Vector norms_of(const L& layer, const DoraNormOptions& options = {}) {
    Vector norms = constant(layer.w.rows(), -1);
    dora_norms(backend(), layer.w, layer.a, layer.b, layer.scale, norms, options);
    return norms;
  }
};
TYPED_TEST_SUITE(DoraTest, pare::testing::BackendsAndScalars);

TYPED_TEST(DoraTest, NormsAreThoseOfTheAdaptedRows) {
  using T = typename TypeParam::scalar;
  const Index shapes[][3] = {{1, 1, 1},   {5, 7, 3},    {40, 300, 17},
                             {97, 70, 1}, {33, 65, 65}, {230, 513, 130}};
  for (const auto& [out, in, rank] : shapes) {
    SCOPED_TRACE(testing::Message() << out << " x " << in << ", rank " << rank);
    const Layer<Rows<T>> rows(out, in, rank);
    expect_near(this->norms_of(rows), rows.norms(), rows.template bounds<T>());
    const Layer<Columns<T>> columns(out, in, rank, 5);
    expect_near(this->norms_of(columns), columns.norms(), columns.template bounds<T>());
  }
}

TYPED_TEST(DoraTest, RelativeErrorIsThatOfTheSource) {
  using T = typename TypeParam::scalar;
  const Layer<Rows<T>> layer(64, 1000, 32);
  const Vector error = (this->norms_of(layer) - layer.norms()).cwiseQuotient(layer.norms());
  EXPECT_LE(error.cwiseAbs().maxCoeff(), (std::is_same_v<T, double> ? 1e-12 : 2e-5));
}

TYPED_TEST(DoraTest, ABaseThatIsKeptChangesNothing) {
  using T = typename TypeParam::scalar;
  const Layer<Rows<T>> layer(110, 600, 9);
  const DoraBase base = dora_base(this->backend(), layer.w);
  expect_near(base.squares, wide(layer.w).rowwise().squaredNorm(),
              Tolerance<double>::gamma(602) * wide(layer.w).rowwise().squaredNorm());
  // The definition has no use for it.
  if (TypeParam::backend::is_reference) return;
  EXPECT_TRUE(equal_bits(this->norms_of(layer, {.base = &base}), this->norms_of(layer)));
  // The base is what is used: twice the squares, and an adapter that adds next to nothing.
  const DoraBase twice{4 * base.squares};
  Layer<Rows<T>> still = layer;
  still.b.setZero();
  expect_near(this->norms_of(still, {.base = &twice}), 2 * still.norms(), 1e-6 * still.norms());
}

TYPED_TEST(DoraTest, WithoutAnAdapterTheNormsAreThoseOfW) {
  using T = typename TypeParam::scalar;
  Layer<Rows<T>> layer(50, 90, 4);
  const Vector wanted = wide(layer.w).rowwise().norm();
  const Vector bound = Tolerance<double>::gamma(100) * wanted;
  Layer<Rows<T>> zero_b = layer, zero_a = layer, zero_scale = layer;
  zero_b.b.setZero();
  zero_a.a.setZero();
  zero_scale.scale = 0;
  zero_scale.a(1, 2) = static_cast<T>(nan);
  expect_near(this->norms_of(zero_b), wanted, bound);
  expect_near(this->norms_of(zero_a), wanted, bound);
  expect_near(this->norms_of(zero_scale), wanted, bound);
  const DoraBase base = dora_base(this->backend(), layer.w);
  expect_near(this->norms_of(zero_scale, {.base = &base}), wanted, bound);
}

/// W = -s B A + tau R with |s B A| about 1: sums of float have lost such rows.
template <class M>
Layer<M> cancelling(Index out, Index in, Index rank, double tau) {
  Layer<M> layer(out, in, rank, 11);
  const Wide rest = random_matrix<Wide>(out, in, 17);
  const Wide adapter = layer.scale * wide(layer.b) * wide(layer.a);
  for (Index i = 0; i < out; ++i)
    for (Index j = 0; j < in; ++j)
      layer.w(i, j) = static_cast<typename M::Scalar>(-adapter(i, j) + tau * rest(i, j));
  return layer;
}

TYPED_TEST(DoraTest, RowsThatCancelAreExactToo) {
  using T = typename TypeParam::scalar;
  for (const double tau : {1e-1, 1e-2, 1e-3, 1e-4}) {
    SCOPED_TRACE(tau);
    const auto layer = cancelling<Rows<T>>(30, 400, 8, tau);
    const Vector wanted = layer.norms();
    // Rows that go the dense way are summed in double; the others have kept 1e-3 of their square.
    const Vector bound = tau < 2e-2 ? Vector(1e-9 * wanted) : layer.template bounds<T>();
    expect_near(this->norms_of(layer), wanted, bound);
  }
}

TYPED_TEST(DoraTest, ARowThatIsZeroHasNormZeroAndAFiniteGain) {
  using T = typename TypeParam::scalar;
  Layer<Rows<T>> layer = cancelling<Rows<T>>(6, 40, 3, 0.0);
  // Powers of two and small integers: W = -s B A without a rounding.
  layer.scale = 0.5;
  layer.a = pare::testing::integer_matrix<Rows<T>>(3, 40, 1);
  layer.b = pare::testing::integer_matrix<Rows<T>>(6, 3, 2);
  layer.w = (-0.5 * wide(layer.b) * wide(layer.a)).template cast<T>();
  layer.w.row(2).setZero();
  layer.b.row(2).setZero();
  const Vector norms = this->norms_of(layer);
  EXPECT_EQ(norms, Vector::Zero(6));
  const Vector gains = dora_gains(norms, constant(6, 3.0), dora_epsilon<T>);
  EXPECT_EQ(gains, constant(6, 3.0 / 1e-12));
}

TYPED_TEST(DoraTest, ANanReachesTheRowsThatHoldIt) {
  using T = typename TypeParam::scalar;
  const Layer<Rows<T>> good(20, 300, 5);
  const auto number = [](const Vector& norms) {
    Index count = 0;
    for (const double norm : norms) count += std::isnan(norm) ? 1 : 0;
    return count;
  };
  Layer<Rows<T>> w = good, b = good, a = good;
  w.w(3, 299) = static_cast<T>(nan);
  b.b(7, 4) = static_cast<T>(nan);
  a.a(2, 100) = static_cast<T>(nan);
  EXPECT_EQ(number(this->norms_of(good)), 0);
  EXPECT_TRUE(std::isnan(this->norms_of(w)(3)));
  EXPECT_EQ(number(this->norms_of(w)), 1);
  EXPECT_TRUE(std::isnan(this->norms_of(b)(7)));
  EXPECT_EQ(number(this->norms_of(b)), 1);
  EXPECT_EQ(number(this->norms_of(a)), 20);
  const Vector gains = dora_gains(this->norms_of(w), ones(20), 1e-12);
  EXPECT_TRUE(std::isnan(gains(3)) && gains(4) > 0);
}

TYPED_TEST(DoraTest, ProductsOutsideTheRangeOfFloatAreNoLoss) {
  using T = typename TypeParam::scalar;
  // Powers of two, so that the entries are exact.
  for (const auto& [w, a, b] : {std::array<int, 3>{100, 90, 10},
                                {-100, -100, 0},
                                {0, -90, 90},
                                {60, -30, 90},
                                {-70, 0, -70},
                                {20, 100, -80}}) {
    SCOPED_TRACE(testing::Message() << w << ' ' << a << ' ' << b);
    Layer<Rows<T>> layer(4, 50, 3);
    layer.w *= static_cast<T>(std::ldexp(1.0, w));
    layer.a *= static_cast<T>(std::ldexp(1.0, a));
    layer.b *= static_cast<T>(std::ldexp(1.0, b));
    expect_near(this->norms_of(layer), layer.norms(), 1e-5 * layer.norms());
  }
}

TYPED_TEST(DoraTest, ScalingEverythingByAPowerOfTwoScalesTheNorms) {
  using T = typename TypeParam::scalar;
  const Layer<Rows<T>> layer(25, 120, 6);
  Layer<Rows<T>> larger = layer;
  larger.w *= T(8);
  larger.b *= T(8);
  EXPECT_TRUE(equal_bits(Vector(8 * this->norms_of(layer)), this->norms_of(larger)));
}

TYPED_TEST(DoraTest, DeltaIsWhatTheGainsLeaveOfTheBaseAndTheAdapter) {
  using T = typename TypeParam::scalar;
  for (const Index tokens : {1, 20, 150}) {
    const Layer<Rows<T>> layer(70, 90, 6);
    const Rows<T> x = random_matrix<Rows<T>>(tokens, 90, 8);
    const Rows<T> base = random_matrix<Rows<T>>(tokens, 70, 9);
    const Vector gains = random_matrix<Vector>(70, 1, 10);
    const Wide adapter =
        layer.scale * (wide(x) * wide(layer.a).transpose()) * wide(layer.b).transpose();
    const Wide less_one = wide(base) * (gains.array() - 1).matrix().asDiagonal();
    const Wide wanted = less_one + adapter * gains.asDiagonal();
    const Wide terms = (wide(x).cwiseAbs() * wide(layer.a).cwiseAbs().transpose()) *
                       wide(layer.b).cwiseAbs().transpose() * gains.cwiseAbs().asDiagonal();
    // 90 and 6 terms, and six roundings of gains, scale and their products.
    const Wide bound =
        Tolerance<T>::gamma(90 + 6 + 8) * (layer.scale * terms + less_one.cwiseAbs());
    const auto check = [&](auto&& delta) {
      dora_delta(this->backend(), base, x, layer.a, layer.b, gains, layer.scale, delta);
      for (Index i = 0; i < tokens; ++i)
        for (Index j = 0; j < 70; ++j)
          EXPECT_PRED3(pare::testing::within, static_cast<double>(delta(i, j)), wanted(i, j),
                       bound(i, j));
    };
    check(Rows<T>(tokens, 70));
    check(Columns<T>(tokens, 70));
  }
}

TYPED_TEST(DoraTest, DeltaOfGainsOfOneIsTheAdapterAndOfNoAdapterTheBase) {
  using T = typename TypeParam::scalar;
  Layer<Rows<T>> layer(30, 50, 4);
  layer.scale = 0.25;  // exact, so that the order of scaling does not show
  for (const Index tokens : {3, 140}) {
    const Rows<T> x = random_matrix<Rows<T>>(tokens, 50, 8);
    const Rows<T> base = random_matrix<Rows<T>>(tokens, 30, 9);
    Rows<T> delta(tokens, 30), adapter(tokens, 30);
    dora_delta(this->backend(), base, x, layer.a, layer.b, ones(30), layer.scale, delta);
    apply(this->backend(), layer.b, layer.a, x, adapter);
    EXPECT_TRUE(equal_bits(delta, Rows<T>(T(0.25) * adapter)));
    const Rows<T> no_b = Rows<T>::Zero(30, 4);
    const Vector gains = constant(30, 1.5);
    dora_delta(this->backend(), base, x, layer.a, no_b, gains, layer.scale, delta);
    EXPECT_TRUE(equal_bits(delta, Rows<T>(T(0.5) * base)));
  }
}

TYPED_TEST(DoraTest, DeltaKeepsItsDigitsWhereGainsAreNearOne) {
  using T = typename TypeParam::scalar;
  const Rows<T> base = random_matrix<Rows<T>>(5, 8, 1), x = random_matrix<Rows<T>>(5, 6, 2);
  const Rows<T> a = Rows<T>::Zero(2, 6), b = random_matrix<Rows<T>>(8, 2, 3);
  const double step = 3e-9;
  Rows<T> delta(5, 8);
  dora_delta(this->backend(), base, x, a, b, constant(8, 1 + step), 1.0, delta);
  const double gain_less_one = (1 + step) - 1;
  for (Index i = 0; i < base.size(); ++i) {
    const double wanted = gain_less_one * static_cast<double>(base.data()[i]);
    EXPECT_PRED3(pare::testing::within, static_cast<double>(delta.data()[i]), wanted,
                 Tolerance<T>::gamma(4) * std::abs(wanted));
  }
}

TYPED_TEST(DoraTest, ForwardIsTheLayerWithTheAdaptedWeight) {
  using T = typename TypeParam::scalar;
  const Index out = 70, in = 90;
  const Layer<Rows<T>> layer(out, in, 6);
  const Vector magnitude = (random_matrix<Vector>(out, 1, 12).array() + 2).matrix();
  const Vector norms = layer.norms();
  const Wide weight = magnitude.cwiseQuotient(norms).asDiagonal() * layer.adapted();
  const Wide absolute = magnitude.cwiseQuotient(norms).asDiagonal() *
                        (wide(layer.w).cwiseAbs() +
                         layer.scale * wide(layer.b).cwiseAbs() * wide(layer.a).cwiseAbs());
  const Vector gain_error = layer.template bounds<T>().cwiseQuotient(norms);
  for (const Index tokens : {1, 7, 150}) {
    const Rows<T> x = random_matrix<Rows<T>>(tokens, in, 8);
    const Wide wanted = wide(x) * weight.transpose();
    const Wide terms = wide(x).cwiseAbs() * absolute.transpose();
    const auto check = [&](auto&& y) {
      dora_forward(this->backend(), x, layer.w, layer.a, layer.b, magnitude, layer.scale, y);
      for (Index i = 0; i < tokens; ++i)
        for (Index j = 0; j < out; ++j)
          EXPECT_PRED3(pare::testing::within, static_cast<double>(y(i, j)), wanted(i, j),
                       (Tolerance<T>::gamma(2 * 90 + 6 + 8) + 2 * gain_error(j)) * terms(i, j));
    };
    check(Rows<T>(tokens, out));
    check(Columns<T>(tokens, out));
  }
}

TYPED_TEST(DoraTest, MagnitudesThatAreTheNormsLeavePlainLora) {
  using T = typename TypeParam::scalar;
  Layer<Rows<T>> layer(40, 64, 5);
  const Rows<T> x = random_matrix<Rows<T>>(9, 64, 8), base = random_matrix<Rows<T>>(9, 40, 9);
  const Vector norms = this->norms_of(layer);
  const Vector gains = dora_gains(norms, norms, dora_epsilon<T>);
  EXPECT_EQ(gains, ones(40));
  // The same layer by its definition, with the magnitudes that make every gain 1.
  Rows<T> y(9, 40), unit(9, 40);
  dora_forward(this->backend(), x, layer.w, layer.a, layer.b, norms, layer.scale, y);
  const Wide wanted = wide(x) * layer.adapted().transpose();
  EXPECT_LE((wide(y) - wanted).norm(), 64 * Tolerance<T>::unit_roundoff * wanted.norm());
  // With every norm clamped the gain is m / epsilon.
  dora_forward(this->backend(), x, layer.w, layer.a, layer.b, constant(40, 1e6), layer.scale, unit,
               {.epsilon = 1e6});
  EXPECT_LE((wide(unit) - wanted).norm(), 64 * Tolerance<T>::unit_roundoff * wanted.norm());
}

TYPED_TEST(DoraTest, RefusesWhatDoesNotFitAndWritesNothing) {
  using T = typename TypeParam::scalar;
  const Layer<Rows<T>> l(6, 8, 3);
  const Vector untouched = constant(6, -7);
  Vector norms = untouched;
  const auto refused = [&](const char* argument, const Rows<T>& w, const Rows<T>& a,
                           const Rows<T>& b, double scale, auto&& to,
                           const DoraNormOptions& options = {}) {
    refusal([&] { dora_norms(this->backend(), w, a, b, scale, to, options); }, "factor::dora_norms",
            argument);
  };
  const DoraBase short_base{ones(5)};
  refused("w", Rows<T>(6, 0), Rows<T>(3, 0), l.b, 1, norms);
  refusal([&] { dora_base(this->backend(), Rows<T>(6, 0)); }, "factor::dora_base", "w");
  refused("a", l.w, Rows<T>(0, 8), Rows<T>(6, 0), 1, norms);
  refused("a", l.w, Rows<T>(3, 7), l.b, 1, norms);
  refused("b", l.w, l.a, Rows<T>(5, 3), 1, norms);
  refused("b", l.w, l.a, Rows<T>(6, 4), 1, norms);
  for (const double bad : {nan, infinity, -infinity}) refused("scale", l.w, l.a, l.b, bad, norms);
  refused("base", l.w, l.a, l.b, 1, norms, {.base = &short_base});
  EXPECT_TRUE(equal_bits(norms, untouched));
  Vector longer = constant(7, -7);
  refused("norms", l.w, l.a, l.b, 1, longer);
  EXPECT_EQ(longer, constant(7, -7));
  Rows<T> shared = l.w;
  using Strided = Eigen::Map<Vector, 0, Eigen::InnerStride<>>;
  refused("norms", l.w, l.a, l.b, 1, Strided(norms.data(), 6, Eigen::InnerStride<>(0)));
  refusal([&] { dora_norms(this->backend(), shared, l.a, l.b, 1, shared.col(0)); },
          "factor::dora_norms", "norms");
  EXPECT_TRUE(equal_bits(shared, l.w));
  refusal([&] { dora_gains(ones(3), ones(4), 1); }, "factor::dora_gains", "magnitude");
  for (const double bad : {0.0, -1.0, nan, infinity})
    refusal([&] { dora_gains(ones(3), ones(3), bad); }, "factor::dora_gains", "epsilon");
}

TYPED_TEST(DoraTest, ForwardAndDeltaRefuseToo) {
  using T = typename TypeParam::scalar;
  const Layer<Rows<T>> l(6, 8, 3);
  const Rows<T> x = Rows<T>::Ones(4, 8), base = Rows<T>::Ones(4, 6);
  const Rows<T> untouched = Rows<T>::Constant(4, 6, T(-7));
  const Vector m = ones(6);
  Rows<T> y = untouched;
  const auto forward = [&](const char* argument, const Rows<T>& in, const Rows<T>& a,
                           const Vector& magnitude, double scale, auto&& to,
                           const DoraForwardOptions& options = {}) {
    refusal([&] { dora_forward(this->backend(), in, l.w, a, l.b, magnitude, scale, to, options); },
            "factor::dora_forward", argument);
  };
  const DoraBase short_base{ones(5)};
  forward("x", Rows<T>::Ones(4, 7), l.a, m, 1, y);
  forward("a", x, Rows<T>(3, 9), m, 1, y);
  forward("magnitude", x, l.a, ones(5), 1, y);
  forward("scale", x, l.a, m, nan, y);
  forward("y", x, l.a, m, 1, Rows<T>(3, 6));
  forward("base", x, l.a, m, 1, y, {.base = &short_base});
  for (const double bad : {-1.0, 0.0, nan, infinity})
    forward("epsilon", x, l.a, m, 1, y, {.epsilon = bad});
  const auto delta = [&](const char* argument, const Rows<T>& from, const Rows<T>& in,
                         const Rows<T>& a, const Vector& gains, double scale, auto&& to) {
    refusal([&] { dora_delta(this->backend(), from, in, a, l.b, gains, scale, to); },
            "factor::dora_delta", argument);
  };
  delta("base_output", Rows<T>::Ones(4, 5), x, l.a, m, 1, y);
  delta("x", base, Rows<T>::Ones(4, 7), l.a, m, 1, y);
  delta("a", base, x, Rows<T>(0, 8), m, 1, y);
  delta("b", base, x, Rows<T>(2, 8), m, 1, y);
  delta("gains", base, x, l.a, ones(7), 1, y);
  delta("scale", base, x, l.a, m, infinity, y);
  if (std::is_same_v<T, float>) {
    delta("scale", base, x, l.a, m, -1e39, y);
    forward("scale", x, l.a, m, 1e300, y);
  }
  delta("delta", base, x, l.a, m, 1, Rows<T>(4, 5));
  EXPECT_TRUE(equal_bits(y, untouched));
  Rows<T> shared = base;
  delta("delta", shared, x, l.a, m, 1, shared);
  EXPECT_TRUE(equal_bits(shared, base));
}

TYPED_TEST(DoraTest, NoOutputsAndNoTokensAreNoWork) {
  using T = typename TypeParam::scalar;
  const Layer<Rows<T>> none(0, 8, 3), l(6, 8, 3);
  EXPECT_EQ(this->norms_of(none).size(), 0);
  EXPECT_EQ(dora_base(this->backend(), none.w).squares.size(), 0);
  Rows<T> y(0, 6);
  dora_forward(this->backend(), Rows<T>(0, 8), l.w, l.a, l.b, ones(6), 1, y);
  dora_delta(this->backend(), Rows<T>(0, 6), Rows<T>(0, 8), l.a, l.b, ones(6), 1, y);
  EXPECT_EQ(y.rows(), 0);
}

template <class S>
struct DoraStorage : testing::Test {};
using HalfScalars = testing::Types<Eigen::bfloat16, Eigen::half>;
TYPED_TEST_SUITE(DoraStorage, HalfScalars);

TYPED_TEST(DoraStorage, SixteenBitsAreReadAsTheyAre) {
  using S = TypeParam;
  for (const Index in : {1, 64, 513, 1100}) {
    const Layer<Rows<S>> rows(50, in, 33);
    const Layer<Columns<S>> columns(50, in, 33, 4);
    const auto check = [](const auto& layer, const auto& backend) {
      Eigen::VectorXf norms(layer.w.rows());
      dora_norms(backend, layer.w, layer.a, layer.b, layer.scale, norms);
      const Vector wanted = layer.norms();
      expect_near(norms, wanted,
                  layer.template bounds<float>() + Tolerance<float>::unit_roundoff * wanted);
      const Vector error = (norms.template cast<double>() - wanted).cwiseQuotient(wanted);
      EXPECT_LE(error.cwiseAbs().maxCoeff(), 5e-3);
      Vector squares = dora_base(backend, layer.w).squares;
      const Vector exact = wide(layer.w).rowwise().squaredNorm();
      expect_near(squares, exact, 1e-12 * exact);
    };
    check(rows, pare::simd.threads(2));
    check(columns, pare::simd);
    check(rows, pare::simd_for<pare::arch::scalar>{});
    check(rows, pare::reference);
  }
  // Below the norm of any row that bf16 layers have: rows of 4e-7 would get a gain of 0.4 by 1e-6.
  EXPECT_EQ((dora_epsilon<bf16>), 1e-12);
  EXPECT_EQ((dora_epsilon<f16>), 1e-12);
}

// Squares of the norms are subnormal numbers of float, or none.
TEST(Dora, ShortRowsHaveTheirNormsAndAGainOfOne) {
  for (const double size : {4e-7, 1e-20, 1e-21}) {
    const RowMatrix<float> w = stored_in<float>(size * normal_matrix(20, 40, 51)),
                           a = stored_in<float>(normal_matrix(3, 40, 52)),
                           b = stored_in<float>(0.3 * size * normal_matrix(20, 3, 53));
    const Vector exact = (wide(w) + 0.5 * wide(b) * wide(a)).rowwise().norm();
    Vector norms(20);
    for (const bool best : {true, false}) {
      if (best)
        dora_norms(pare::simd, w, a, b, 0.5, norms);
      else
        dora_norms(pare::simd_for<pare::arch::scalar>{}, w, a, b, 0.5, norms);
      EXPECT_LE((norms - exact).cwiseQuotient(exact).cwiseAbs().maxCoeff(), 1e-5) << size;
    }
    if (size > 1e-10) {
      EXPECT_TRUE(equal_bits(dora_gains(norms, norms, dora_epsilon<bf16>), ones(20)));
    }
  }
}

TEST(Dora, AFrozenWeightMayBeStoredShorterThanTheAdapter) {
  const Layer<Rows<float>> floats(60, 300, 12);
  const Rows<Eigen::bfloat16> w = floats.w.cast<Eigen::bfloat16>();
  Layer<Rows<float>> layer = floats;
  layer.w = w.cast<float>();
  Vector norms(60);
  dora_norms(pare::simd, w, layer.a, layer.b, layer.scale, norms);
  expect_near(norms, layer.norms(), layer.bounds<float>());
  const Rows<double> a = layer.a.cast<double>(), b = layer.b.cast<double>();
  dora_norms(pare::simd, layer.w, a, b, layer.scale, norms);
  expect_near(norms, layer.norms(), layer.bounds<double>());
  Rows<float> y(3, 60), wanted(3, 60);
  const Rows<Eigen::bfloat16> x = random_matrix<Rows<float>>(3, 300, 5).cast<Eigen::bfloat16>();
  const Rows<float> xf = x.cast<float>();
  dora_forward(x, w, layer.a, layer.b, ones(60), layer.scale, y);
  dora_forward(pare::reference, xf, layer.w, layer.a, layer.b, ones(60), layer.scale, wanted);
  EXPECT_LE((y - wanted).norm(), 1e-5 * wanted.norm());
}

TEST(Dora, OneRowThatCancelsIsComputedDenselyAmongOthers) {
  Layer<Rows<float>> layer(200, 700, 16);
  const auto lost = cancelling<Rows<float>>(200, 700, 16, 1e-3);
  layer.a = lost.a;
  layer.b = lost.b;
  layer.w.row(131) = lost.w.row(131);
  Vector norms(200);
  dora_norms(pare::simd, layer.w, layer.a, layer.b, layer.scale, norms);
  const Vector wanted = layer.norms();
  EXPECT_PRED3(pare::testing::within, norms(131), wanted(131), 1e-9 * wanted(131));
  expect_near(norms.head(131), wanted.head(131), layer.bounds<float>().head(131));
}

template <class M>
void expect_same_bits_for_all_executors(Index out, Index in, Index rank) {
  const Layer<M> layer(out, in, rank);
  const M x = random_matrix<M>(150, in, 8);
  const Vector magnitude = ones(out);
  using T = pare::compute_t<pare::scalar_of<M>>;
  struct Result {
    Vector norms;
    Rows<T> y, delta;
  };
  const auto run = [&](const auto& backend) {
    Result r{Vector(out), Rows<T>(150, out), Rows<T>(150, out)};
    dora_norms(backend, layer.w, layer.a, layer.b, layer.scale, r.norms);
    dora_forward(backend, x, layer.w, layer.a, layer.b, magnitude, layer.scale, r.y);
    dora_delta(backend, r.y, x, layer.a, layer.b, r.norms, layer.scale, r.delta);
    return r;
  };
  const Result wanted = run(pare::simd);
  const auto same = [&](const Result& r) {
    EXPECT_TRUE(equal_bits(r.norms, wanted.norms));
    EXPECT_TRUE(equal_bits(r.y, wanted.y));
    EXPECT_TRUE(equal_bits(r.delta, wanted.delta));
  };
  for (const int threads : {2, 3, 7}) same(run(pare::simd.threads(threads)));
  same(run(pare::simd.on(pare::testing::ReversePool{5})));
}

TEST(Dora, TheSameBitsForEveryExecutor) {
  expect_same_bits_for_all_executors<Rows<float>>(333, 600, 70);
  expect_same_bits_for_all_executors<Columns<float>>(101, 300, 5);
  expect_same_bits_for_all_executors<Rows<double>>(230, 290, 33);
  expect_same_bits_for_all_executors<Rows<Eigen::bfloat16>>(150, 1030, 40);
}

TEST(Dora, RowsDoNotDependOnWhichOthersThereAre) {
  const Layer<Rows<float>> layer(300, 500, 40);
  Vector all(300), some(23);
  dora_norms(pare::simd, layer.w, layer.a, layer.b, layer.scale, all);
  const Rows<float> b = layer.b.middleRows(110, 23);
  dora_norms(pare::simd, layer.w.middleRows(110, 23), layer.a, b, layer.scale, some);
  EXPECT_TRUE(equal_bits(some, Vector(all.segment(110, 23))));
}

TEST(Dora, AWorkspaceAllocatesNothingTheSecondTime) {
  const Layer<Rows<float>> layer(200, 300, 20);
  const Rows<float> x = random_matrix<Rows<float>>(150, 300, 4);
  Vector norms(200), gains = Vector::Constant(200, 1.5);
  Rows<float> delta(150, 200), y(150, 200);
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  const auto call = [&] {
    dora_norms(backend, layer.w, layer.a, layer.b, layer.scale, norms);
    dora_delta(backend, y, x, layer.a, layer.b, gains, layer.scale, delta);
    dora_forward(backend, x, layer.w, layer.a, layer.b, norms, layer.scale, y);
  };
  call();
  const long before = pare::testing::allocations.load();
  call();
  EXPECT_EQ(pare::testing::allocations.load(), before);
  const auto kept = workspace.lease<pare::factor::detail::DoraMemory>();
  EXPECT_GT(kept->workers.capacity(), 0u);
  EXPECT_LT(kept->workers.capacity(), sizeof(float) * 200 * 300)
      << "scratch as large as W would be the matrix that is not to be formed";
}

TEST(Dora, NormsGoToAnyVector) {
  const Layer<Rows<float>> layer(12, 30, 3);
  Vector wanted(12);
  dora_norms(layer.w, layer.a, layer.b, layer.scale, wanted);
  std::vector<float> standard(12);
  dora_norms(layer.w, layer.a, layer.b, layer.scale, standard);
  Wide table = Wide::Zero(3, 12);
  dora_norms(layer.w, layer.a, layer.b, layer.scale, table.row(1));
  EXPECT_TRUE(equal_bits(Vector(table.row(1)), wanted));
  EXPECT_EQ(table.row(0).norm() + table.row(2).norm(), 0);
  for (Index i = 0; i < 12; ++i)
    EXPECT_EQ(standard[static_cast<std::size_t>(i)], static_cast<float>(wanted(i)));
}

}  // namespace
}  // namespace factor_dora_test
