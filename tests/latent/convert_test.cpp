// SPDX-License-Identifier: Apache-2.0
// Keys and values from latents: weight-only SVD, CARE, and the ranks of layers.
#include <pare/latent/convert/care.hpp>
#include <pare/latent/convert/kv_latents.hpp>

#include <gtest/gtest.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/SVD>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "factor/data.hpp"
#include "latent/attention_oracle.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"

namespace latent_convert_test {
namespace {

using namespace pare::latent;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::factor::Covariance;
using pare::factor::InputCovariance;
using pare::factor::RankScore;
using pare::factor::Uniform;

/// The page's bounds where factors of full rank take a weight's place.
template <class T>
constexpr double exact_bound = std::is_same_v<T, float> ? 1e-4 : 1e-10;

/// A layer of 2 key and value heads of 6, and the inputs that it sees.
struct Layer {
  MatrixXd key, value, x;

  explicit Layer(Index tokens = 80, Index outputs = 12, Index width = 20)
      : key(with_spectrum(outputs, width, power_spectrum(std::min(outputs, width), 0.6), 1)),
        value(with_spectrum(outputs, width, power_spectrum(std::min(outputs, width), 0.3), 5)),
        x(correlated_inputs(tokens, width, 3)) {}

  MatrixXd c() const { return x.transpose() * x / static_cast<double>(x.rows()); }
  Covariance covariance() const {
    Covariance sum(x.cols(), pare::factor::CovarianceProducts::Double);
    sum.add(x);
    return sum;
  }
};

template <class A, class B>
MatrixXd product(const A& up, const B& down) {
  MatrixXd p = MatrixXd::Zero(up.rows(), down.cols());
  for (Index i = 0; i < p.rows(); ++i)
    for (Index j = 0; j < p.cols(); ++j)
      for (Index k = 0; k < up.cols(); ++k)
        p(i, j) += static_cast<double>(up(i, k)) * static_cast<double>(down(k, j));
  return p;
}

/// ||(W - P) X^T|| / ||W X^T||.
double activation_error(const MatrixXd& w, const MatrixXd& p, const MatrixXd& x) {
  return (x * (w - p).transpose()).norm() / (x * w.transpose()).norm();
}

/// sqrt(sum of the squares of the singular values behind the first r over all of them).
double tail_share(const MatrixXd& outputs, Index r) {
  const VectorXd s = jacobi_values(outputs);
  return s.tail(s.size() - r).norm() / s.norm();
}

template <class Case>
class Convert : public ::testing::Test {
 public:
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
  using Scalar = typename Case::scalar;
  static auto backend() { return Case::backend::make(); }
  template <class M>
  static auto separate(const Layer& l, const M& metric, Index k, Index v) {
    return separate_latents(backend(), stored_in<Scalar>(l.key), stored_in<Scalar>(l.value), metric,
                            {.key_rank = k, .value_rank = v});
  }
  template <class M>
  static auto joint(const Layer& l, const M& metric, Index rank) {
    return joint_latent(backend(), stored_in<Scalar>(l.key), stored_in<Scalar>(l.value), metric,
                        {.rank = rank});
  }
  static auto care(const Layer& l, Index k, Index v, double damping = 0.01) {
    return care_latents(backend(), stored_in<Scalar>(l.key), stored_in<Scalar>(l.value),
                        l.covariance(), {.key_rank = k, .value_rank = v}, damping);
  }
};
TYPED_TEST_SUITE(Convert, SolverCases);

TYPED_TEST(Convert, FullRankReproducesTheWeights) {
  constexpr double bound = exact_bound<typename TypeParam::scalar>;
  for (const Layer& layer : {Layer(80), Layer(80, 24, 20), Layer(5)}) {
    const Index full = std::min(layer.key.rows(), layer.key.cols());
    const MatrixXd c = layer.c();
    const auto expect_exact = [&](const auto& latents) {
      EXPECT_LE((product(latents.key_up(), latents.key_down()) - layer.key).norm(),
                bound * layer.key.norm());
      EXPECT_LE((product(latents.value_up(), latents.value_down()) - layer.value).norm(),
                bound * layer.value.norm());
      EXPECT_LE(latents.key_error.weight, bound);
      EXPECT_LE(latents.value_error.weight, bound);
    };
    expect_exact(this->separate(layer, Uniform{}, full, full));
    expect_exact(this->joint(layer, Uniform{}, std::min<Index>(2 * layer.key.rows(), 20)));
    expect_exact(this->care(layer, full, full));
    expect_exact(this->joint(layer, InputCovariance(c, 0.01), std::min<Index>(2 * full, 20)));
  }
}

TYPED_TEST(Convert, FullRankLeavesAttentionAsItIs) {
  using T = typename TypeParam::scalar;
  const Layer layer;
  const AttentionOracle attention{.heads = 4, .kv_heads = 2, .head_dim = 6};
  const MatrixXd query = normal_matrix(24, 20, 9), x = layer.x.topRows(7);
  const MatrixXd wanted = attention.outputs(x * query.transpose(), x * layer.key.transpose(),
                                            x * layer.value.transpose());
  const auto expect_same = [&](const auto& latents) {
    const MatrixXd got = attention.outputs(
        x * query.transpose(), x * product(latents.key_up(), latents.key_down()).transpose(),
        x * product(latents.value_up(), latents.value_down()).transpose());
    EXPECT_LE((got - wanted).norm(), 10 * exact_bound<T> * wanted.norm());
  };
  expect_same(this->care(layer, 12, 12));
  expect_same(this->joint(layer, Uniform{}, 20));
}

TYPED_TEST(Convert, WeightsOfEitherOrderGiveTheSame) {
  const Layer layer;
  const auto by_rows = this->separate(layer, Uniform{}, 4, 5);
  using T = typename TypeParam::scalar;
  const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> key = layer.key.template cast<T>(),
                                                         value = layer.value.template cast<T>();
  const auto by_columns =
      separate_latents(this->backend(), key, value, Uniform{}, {.key_rank = 4, .value_rank = 5});
  EXPECT_LE((product(by_rows.key_up(), by_rows.key_down()) -
             product(by_columns.key_up(), by_columns.key_down()))
                .norm(),
            exact_bound<T> * layer.key.norm());
  EXPECT_EQ(by_columns.cache_width(), 9);
  EXPECT_EQ(by_columns.value_down().rows(), 5);
  EXPECT_EQ(by_columns.value_down().cols(), 20);
}

TYPED_TEST(Convert, IdentityCovarianceIsWeightOnlySvd) {
  const Layer layer;
  const MatrixXd identity = MatrixXd::Identity(20, 20);
  const auto plain = this->separate(layer, Uniform{}, 5, 7);
  const auto aware = this->separate(layer, InputCovariance(identity, 0.01), 5, 7);
  constexpr double bound = exact_bound<typename TypeParam::scalar>;
  EXPECT_LE((product(plain.key_up(), plain.key_down()) - product(aware.key_up(), aware.key_down()))
                .norm(),
            bound * layer.key.norm());
  // ... which is that of the definition.
  const Eigen::JacobiSVD<MatrixXd> svd(layer.value, Eigen::ComputeThinU | Eigen::ComputeThinV);
  const MatrixXd wanted = svd.matrixU().leftCols(7) * svd.singularValues().head(7).asDiagonal() *
                          svd.matrixV().leftCols(7).transpose();
  EXPECT_LE((product(plain.value_up(), plain.value_down()) - wanted).norm(),
            bound * layer.value.norm());
  EXPECT_FALSE(plain.key_error.activation.has_value());
}

TYPED_TEST(Convert, OutputPcaIsTheRootFormAndCholeskyWhitening) {
  using T = typename TypeParam::scalar;
  const Layer layer;
  for (const double damping : {0.0, 0.01})
    for (const Index rank : {1, 4, 11}) {
      const auto latents = this->care(layer, rank, rank, damping);
      const MatrixXd got = product(latents.key_up(), latents.key_down());
      const auto root = reference_care(layer.key, layer.c(), rank, damping);
      EXPECT_LE((got - product(root.left, root.right)).norm(), exact_bound<T> * layer.key.norm());
      MatrixXd c = layer.c();
      c.diagonal().array() += damping * layer.c().diagonal().mean();
      const MatrixXd l = c.llt().matrixL();
      const Eigen::JacobiSVD<MatrixXd> svd(layer.key * l,
                                           Eigen::ComputeThinU | Eigen::ComputeThinV);
      const MatrixXd whitened = svd.matrixU().leftCols(rank) *
                                svd.singularValues().head(rank).asDiagonal() *
                                svd.matrixV().leftCols(rank).transpose() * l.inverse();
      EXPECT_LE((got - whitened).norm(), exact_bound<T> * layer.key.norm());
      EXPECT_LE((root.singular_values.head(rank) - svd.singularValues().head(rank)).norm(),
                1e-9 * svd.singularValues().norm());
    }
}

TYPED_TEST(Convert, ActivationErrorIsTheTailAndNeverAboveThatOfWeightOnlySvd) {
  const Layer layer;
  const MatrixXd c = layer.c();
  constexpr double bound = exact_bound<typename TypeParam::scalar>;
  double before = 1;
  for (Index rank = 1; rank <= 12; ++rank) {
    const auto aware = this->care(layer, rank, rank, 0);
    const auto plain =
        separate_latents(this->backend(), stored_in<typename TypeParam::scalar>(layer.key),
                         stored_in<typename TypeParam::scalar>(layer.value), Uniform{},
                         {.key_rank = rank, .value_rank = rank, .inputs = pare::to_view(c)});
    const double error = *aware.key_error.activation;
    EXPECT_NEAR(error, tail_share(layer.key * layer.x.transpose(), rank), bound);
    EXPECT_NEAR(error,
                activation_error(layer.key, product(aware.key_up(), aware.key_down()), layer.x),
                bound);
    EXPECT_NEAR(
        *plain.value_error.activation,
        activation_error(layer.value, product(plain.value_up(), plain.value_down()), layer.x),
        bound);
    EXPECT_LE(error, *plain.key_error.activation + bound);
    EXPECT_LE(*aware.value_error.activation, *plain.value_error.activation + bound);
    EXPECT_LE(plain.key_error.weight, aware.key_error.weight + bound);
    EXPECT_LE(error, before + bound);
    before = error;
    EXPECT_NEAR(plain.key_error.weight, tail_share(layer.key, rank), bound);
  }
}

TYPED_TEST(Convert, LatentsAreUncorrelatedAndFall) {
  using T = typename TypeParam::scalar;
  const Layer layer;
  const auto latents = this->care(layer, 6, 6, 0);
  const MatrixXd down = values_of(latents.key.right), moment = down * layer.c() * down.transpose();
  const VectorXd variances = latents.key.singular_values.head(6).cwiseAbs2();
  EXPECT_LE((moment - MatrixXd(variances.asDiagonal())).norm(), exact_bound<T> * moment.norm());
  for (Index k = 1; k < 6; ++k) EXPECT_LE(variances[k], variances[k - 1]);
}

TYPED_TEST(Convert, AJointLatentIsThatOfBothStacked) {
  using T = typename TypeParam::scalar;
  const Layer layer;
  const auto latent = this->joint(layer, Uniform{}, 8);
  MatrixXd both(24, 20);
  both << layer.key, layer.value;
  MatrixXd got(24, 20);
  got << product(latent.key_up(), latent.key_down()),
      product(latent.value_up(), latent.value_down());
  EXPECT_NEAR((both - got).norm() / both.norm(), tail_share(both, 8), exact_bound<T>);
  EXPECT_EQ(latent.cache_width(), 8);
  EXPECT_EQ(latent.key_up().rows(), 12);
  EXPECT_EQ(latent.down().rows(), 8);
  EXPECT_NEAR(latent.value_error.weight,
              (layer.value - got.bottomRows(12)).norm() / layer.value.norm(), exact_bound<T>);
}

TYPED_TEST(Convert, ASingularCovarianceNeedsNoDamping) {
  using T = typename TypeParam::scalar;
  const Layer layer(4);  // tokens
  const auto latents = this->care(layer, 4, 4, 0);
  EXPECT_LE(*latents.key_error.activation, std::sqrt(exact_bound<T>)) << "4 tokens span it";
  EXPECT_GT(latents.key_error.weight, 0.1);
  refusal([&] { reference_care(layer.key, layer.c(), 4, 0); }, "latent::reference_care", "c");
  EXPECT_EQ(reference_care(layer.key, layer.c(), 4).rank(), 4);
}

TEST(ConvertBits, AreTheSameForAnyNumberOfThreads) {
  const Layer layer;
  const auto one =
      care_latents(layer.key, layer.value, layer.covariance(), {.key_rank = 5, .value_rank = 6});
  const auto many = care_latents(pare::simd.threads(4), layer.key, layer.value, layer.covariance(),
                                 {.key_rank = 5, .value_rank = 6});
  EXPECT_TRUE(equal_bits(one.key.left, many.key.left));
  EXPECT_TRUE(equal_bits(one.value.right, many.value.right));
  EXPECT_EQ(one.key_error.activation, many.key_error.activation);
}

/// 1, e^(-1/constant), e^(-2/constant), ...
VectorXd decay(Index n, double constant) {
  return (-Eigen::ArrayXd::LinSpaced(n, 0, static_cast<double>(n - 1)) / constant).exp();
}

std::vector<VectorXd> published_spectra() {
  std::vector<VectorXd> spectra;
  for (double constant = 4; constant <= 32; constant += 4) spectra.push_back(decay(64, constant));
  return spectra;
}

TEST(AdjustedRanks, AreThePublishedOnes) {
  const auto ranks = [](RankScore score) {
    return adjusted_ranks(published_spectra(),
                          {.budget = 128, .min_rank = 8, .max_rank = 32, .score = score});
  };
  EXPECT_EQ(ranks(RankScore::CareResidualRatio), (std::vector<Index>{32, 32, 24, 8, 8, 8, 8, 8}));
  EXPECT_EQ(ranks(RankScore::CareCode), (std::vector<Index>{32, 32, 21, 11, 8, 8, 8, 8}));
  EXPECT_EQ(ranks(RankScore::NormalizedEnergy),
            (std::vector<Index>{8, 11, 14, 16, 18, 19, 21, 21}));
  EXPECT_EQ(adjusted_ranks(published_spectra(), {.budget = 128}),
            ranks(RankScore::NormalizedEnergy))
      << "half and twice the mean of 16, by energy, are the defaults";
}

TEST(AdjustedRanks, SpendTheBudgetBetweenTheBounds) {
  for (const RankScore score : {RankScore::NormalizedEnergy, RankScore::AbsoluteEnergy,
                                RankScore::CareResidualRatio, RankScore::CareCode})
    for (const Index budget : {24, 100, 101, 320}) {
      const auto ranks = adjusted_ranks(
          published_spectra(), {.budget = budget, .min_rank = 3, .max_rank = 40, .score = score});
      EXPECT_EQ(std::accumulate(ranks.begin(), ranks.end(), Index{0}), budget);
      EXPECT_GE(*std::ranges::min_element(ranks), 3);
      EXPECT_LE(*std::ranges::max_element(ranks), 40);
    }
  const auto by_eight = adjusted_ranks(published_spectra(), {.budget = 128, .multiple = 8});
  for (const Index rank : by_eight) EXPECT_EQ(rank % 8, 0);
}

TEST(AdjustedRanks, OfEqualSpectraAreEqualFollowPermutationsAndIgnoreScale) {
  const std::vector<VectorXd> equal(5, decay(30, 7));
  for (const Index rank : adjusted_ranks(equal, {.budget = 52})) {
    EXPECT_GE(rank, 10);
    EXPECT_LE(rank, 11);
  }
  auto spectra = published_spectra();
  const auto ranks = adjusted_ranks(spectra, {.budget = 128});
  std::ranges::reverse(spectra);
  for (std::size_t l = 0; l < spectra.size(); ++l) spectra[l] *= 1 + 100 * static_cast<double>(l);
  auto other = adjusted_ranks(spectra, {.budget = 128});
  std::ranges::reverse(other);
  // At equal scores the first layer takes the rank: the order may move one.
  for (std::size_t l = 0; l < ranks.size(); ++l) EXPECT_LE(std::abs(ranks[l] - other[l]), 1) << l;
}

TEST(AdjustedRanks, OfNoLayersOrBudgetsThatDoNotFitAreRefused) {
  const auto spectra = published_spectra();
  const auto refused = [&](const AdjustedRankOptions& options, const char* argument) {
    refusal([&] { adjusted_ranks(spectra, options); }, "latent::adjusted_ranks", argument);
  };
  refusal([] { adjusted_ranks(std::vector<VectorXd>{}, {.budget = 1}); }, "latent::adjusted_ranks",
          "spectra");
  refusal([] { adjusted_ranks(std::vector<VectorXd>(2), {.budget = 2}); }, "latent::adjusted_ranks",
          "spectra");
  refused({}, "budget");
  refused({.budget = 7}, "budget");
  refused({.budget = 23, .min_rank = 3}, "budget");
  refused({.budget = 321, .min_rank = 3, .max_rank = 40}, "budget");
  refused({.budget = std::numeric_limits<Index>::max()}, "budget");
  refused({.budget = 128, .max_rank = 65}, "max_rank");
  refused({.budget = 128, .max_rank = 0}, "max_rank");
  refused({.budget = 128, .min_rank = 0}, "min_rank");
  refused({.budget = 128, .min_rank = 33, .max_rank = 32}, "min_rank");
  refused({.budget = 128, .multiple = 0}, "multiple");
  EXPECT_THROW(adjusted_ranks(spectra, {.budget = 128, .score = static_cast<RankScore>(9)}),
               std::invalid_argument);
  auto rising = spectra;
  rising[3].reverseInPlace();
  EXPECT_THROW(adjusted_ranks(rising, {.budget = 128}), std::invalid_argument);
}

TEST(ConvertRefuses, RanksWeightsAndCovariancesThatDoNotFit) {
  const Layer layer;
  const MatrixXd c = layer.c();
  const auto separate = [&](const MatrixXd& k, const MatrixXd& v, const MatrixXd& m, Index kr,
                            Index vr, const char* argument) {
    refusal(
        [&] {
          separate_latents(pare::reference, k, v, InputCovariance(m),
                           {.key_rank = kr, .value_rank = vr});
        },
        "latent::separate_latents", argument);
  };
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  separate(layer.key, layer.value, c, 0, 3, "key_rank");
  separate(layer.key, layer.value, c, 13, 3, "key_rank");
  separate(layer.key, layer.value, c, 3, -1, "value_rank");
  separate(layer.key, layer.value, c, 3, 13, "value_rank");
  separate(layer.key, layer.value.leftCols(19), c, 3, 3, "value");
  separate(MatrixXd(0, 20), layer.value, c, 3, 3, "key");
  separate(layer.key, MatrixXd(12, 0), c, 3, 3, "value");
  MatrixXd bad = layer.key;
  bad(3, 4) = nan;
  separate(bad, layer.value, c, 3, 3, "key");
  separate(layer.key, bad, c, 3, 3, "value");
  separate(layer.key, layer.value, c.leftCols(19), 3, 3, "metric");
  separate(layer.key, layer.value, c.topLeftCorner(19, 19), 3, 3, "metric");
  MatrixXd odd = c;
  odd(2, 3) += 0.1 * std::sqrt(c(2, 2) * c(3, 3));
  separate(layer.key, layer.value, odd, 3, 3, "metric");
  odd = c;
  odd(0, 1) = odd(1, 0) = nan;
  separate(layer.key, layer.value, odd, 3, 3, "metric");
  odd = c;
  odd(5, 5) = -1;
  separate(layer.key, layer.value, odd, 3, 3, "metric");
  separate(layer.key, layer.value, MatrixXd::Zero(20, 20), 3, 3, "metric");
  odd = MatrixXd::Identity(20, 20);
  odd(0, 1) = odd(1, 0) = 2;  // an eigenvalue of -1
  EXPECT_THROW(separate_latents(pare::reference, layer.key, layer.value, InputCovariance(odd),
                                {.key_rank = 3, .value_rank = 3}),
               std::invalid_argument);
  refusal(
      [&] {
        separate_latents(pare::reference, layer.key, layer.value, Uniform{},
                         {.key_rank = 3, .value_rank = 3, .route = pare::factor::Route(7)});
      },
      "latent::separate_latents", "route");
  const MatrixXd small = c.topLeftCorner(19, 19);
  refusal(
      [&] {
        separate_latents(pare::reference, layer.key, layer.value, Uniform{},
                         {.key_rank = 3, .value_rank = 3, .inputs = pare::to_view(small)});
      },
      "latent::separate_latents", "inputs");
}

TEST(ConvertRefuses, JointRanksAndWhatCareIsGiven) {
  const Layer layer;
  for (const Index rank : {0, 21})
    refusal(
        [&] { joint_latent(pare::reference, layer.key, layer.value, Uniform{}, {.rank = rank}); },
        "latent::joint_latent", "rank");
  const auto care = [&](const Covariance& inputs, double damping, const char* argument) {
    refusal(
        [&] {
          care_latents(pare::reference, layer.key, layer.value, inputs,
                       {.key_rank = 3, .value_rank = 3}, damping);
        },
        "latent::care_latents", argument);
  };
  care(Covariance(20), 0.01, "inputs");
  care(layer.covariance(), -0.01, "damping");
  care(layer.covariance(), std::numeric_limits<double>::infinity(), "damping");
  Covariance narrow(19), poisoned(20);
  narrow.add(MatrixXd(layer.x.leftCols(19)));
  care(narrow, 0.01, "metric");
  MatrixXd x = layer.x;
  x(2, 2) = std::numeric_limits<double>::quiet_NaN();
  poisoned.add(x);
  care(poisoned, 0.01, "metric");
  const MatrixXd c = layer.c();
  const auto root = [&](const MatrixXd& m, Index rank, double damping, const char* argument) {
    refusal([&] { reference_care(layer.key, m, rank, damping); }, "latent::reference_care",
            argument);
  };
  root(c, 0, 0.01, "rank");
  root(c, 13, 0.01, "rank");
  root(c, 3, -1, "damping");
  root(MatrixXd(c.leftCols(4)), 3, 0.01, "c");
  const auto error = [&](const MatrixXd& up, const MatrixXd& down, const char* argument) {
    refusal([&] { conversion_error(pare::reference, layer.key, up, down, c); },
            "latent::conversion_error", argument);
  };
  error(MatrixXd::Zero(11, 3), MatrixXd::Zero(3, 20), "up");
  error(MatrixXd::Zero(12, 3), MatrixXd::Zero(4, 20), "down");
  error(MatrixXd::Zero(12, 3), MatrixXd::Zero(3, 19), "down");
}

}  // namespace
}  // namespace latent_convert_test
