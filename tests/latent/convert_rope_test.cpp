// SPDX-License-Identifier: Apache-2.0
// Conversions that take rotary dimensions apart: TransMLA and MHA2MLA.
#include <pare/latent/convert/mha2mla.hpp>
#include <pare/latent/convert/rotary_pairs.hpp>
#include <pare/latent/convert/transmla.hpp>

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "factor/data.hpp"
#include "latent/attention_oracle.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"

namespace latent_convert_rope_test {
namespace {

using namespace pare::latent;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::factor::Covariance;
using pare::factor::InputCovariance;
using pare::factor::Uniform;
using pare::transformer::rotary_frequencies;
using pare::transformer::RotaryLayout;

template <class T>
constexpr double exact_bound = std::is_same_v<T, float> ? 1e-4 : 1e-12;

/// A layer of 4 query and 2 key heads of 8, and values of 5.
struct Layer {
  AttentionShape shape{.heads = 4, .kv_heads = 2, .head_dim = 8};
  MatrixXd query = normal_matrix(32, 30, 1), key = normal_matrix(16, 30, 2),
           value = normal_matrix(10, 30, 3), x = correlated_inputs(90, 30, 4);

  Covariance inputs() const {
    Covariance sum(30, pare::factor::CovarianceProducts::Double);
    sum.add(x);
    return sum;
  }
  MatrixXd tokens() const { return x.topRows(6); }
  MatrixXd q() const { return tokens() * query.transpose(); }
  MatrixXd k() const { return tokens() * key.transpose(); }
  AttentionOracle oracle(Index stride = 7) const {
    return {.heads = 4,
            .kv_heads = 2,
            .head_dim = 8,
            .rotary = shape.rotary,
            .halves = shape.layout == RotaryLayout::HalfSplit,
            .stride = stride};
  }
};

std::vector<Layer> layers() {
  std::vector<Layer> list(4);
  list[1].shape.layout = list[3].shape.layout = RotaryLayout::HalfSplit;
  list[2].shape.rotary = list[3].shape.rotary = 4;
  return list;
}

/// Token t stands at 3 + stride t; a row's pairs are turned by their frequencies.
MatrixXd turned(MatrixXd rows, const std::vector<double>& frequencies, bool halves, Index stride) {
  const auto pairs = static_cast<Index>(frequencies.size());
  for (Index t = 0; t < rows.rows(); ++t)
    for (Index i = 0; i < pairs; ++i) {
      const Index re = halves ? i : 2 * i, im = halves ? i + pairs : 2 * i + 1;
      const double angle =
          static_cast<double>(3 + stride * t) * frequencies[static_cast<std::size_t>(i)];
      const double a = rows(t, re), b = rows(t, im);
      rows(t, re) = a * std::cos(angle) - b * std::sin(angle);
      rows(t, im) = b * std::cos(angle) + a * std::sin(angle);
    }
  return rows;
}

template <class T>
std::vector<double> frequencies_of(const MlaWeights<T>& mla, const AttentionShape& shape) {
  return mla.rope_frequencies(rotary_frequencies(2 * shape.pairs())).frequencies;
}

/// Scores of a head by the definition of latent attention, in the expanded form.
template <class T>
MatrixXd mla_scores(const Layer& layer, const MlaWeights<T>& mla, Index head, Index stride) {
  const bool halves = layer.shape.layout == RotaryLayout::HalfSplit;
  const Index rope = mla.rope(), each = 8 + rope;
  const auto f = frequencies_of(mla, layer.shape);
  const MatrixXd latent = layer.tokens() * values_of(mla.down).topRows(mla.rank()).transpose();
  const MatrixXd rope_key = layer.tokens() * values_of(mla.down).bottomRows(rope).transpose();
  const MatrixXd q =
      layer.tokens() * values_of(mla.query).middleRows(head * each, each).transpose();
  const MatrixXd content = latent * values_of(mla.up).middleRows(head * 13, 8).transpose();
  return q.leftCols(8) * content.transpose() + turned(q.rightCols(rope), f, halves, stride) *
                                                   turned(rope_key, f, halves, stride).transpose();
}

template <class T>
MatrixXd mla_values(const Layer& layer, const MlaWeights<T>& mla, Index head) {
  const MatrixXd latent = layer.tokens() * values_of(mla.down).topRows(mla.rank()).transpose();
  return latent * values_of(mla.up).middleRows(head * 13 + 8, 5).transpose();
}

template <class Case>
class ConvertRope : public ::testing::Test {
 public:
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
  using Scalar = typename Case::scalar;
  static auto backend() { return Case::backend::make(); }
  static auto mla(const Layer& l, const TransMlaOptions& options) {
    return to_mla(backend(), stored_in<Scalar>(l.query), stored_in<Scalar>(l.key),
                  stored_in<Scalar>(l.value), l.inputs(), l.shape, options);
  }
  template <class M>
  static auto partial(const Layer& l, const M& metric, const RotaryPairs& pairs, Index rank) {
    return to_partial_rope(backend(), stored_in<Scalar>(l.query), stored_in<Scalar>(l.key),
                           stored_in<Scalar>(l.value), metric, l.shape, pairs, {.rank = rank});
  }
  static constexpr double bound = exact_bound<Scalar>;
};
TYPED_TEST_SUITE(ConvertRope, SolverCases);

TYPED_TEST(ConvertRope, TransMlaOfFullRankWithAllRotationsIsTheLayer) {
  for (const Layer& layer : layers()) {
    const Index rotated = 2 * layer.shape.pairs();
    const auto mla = this->mla(layer, {.rank = 2 * (8 - rotated) + 10, .rope_heads = 2});
    EXPECT_EQ(mla.rope(), 2 * rotated);
    EXPECT_EQ(mla.cache_width(), 26);
    for (Index h = 0; h < 4; ++h) {
      const MatrixXd wanted = layer.oracle().scores(layer.q(), layer.k(), h);
      EXPECT_LE((mla_scores(layer, mla, h, 7) - wanted).norm(), this->bound * wanted.norm()) << h;
      const MatrixXd v = layer.tokens() * layer.value.middleRows(h / 2 * 5, 5).transpose();
      EXPECT_LE((mla_values(layer, mla, h) - v).norm(), this->bound * v.norm());
    }
    EXPECT_LE(*mla.key_error.activation, 1e-6);
    EXPECT_LE(*mla.value_error.activation, 1e-6);
  }
}

TYPED_TEST(ConvertRope, TransMlaOfFullRankIsTheLayerWhereTokensShareAPosition) {
  for (const Layer& layer : layers())
    for (const auto& [fold, collapse] : {std::pair<Index, Index>{1, 1}, {2, 1}, {2, 2}, {4, 2}}) {
      if (layer.shape.pairs() % fold != 0) continue;
      const Index rope = 2 * layer.shape.pairs() / collapse;
      const auto mla = this->mla(layer, {.rank = 26 - rope, .fold = fold, .collapse = collapse});
      EXPECT_EQ(mla.rope(), rope);
      for (std::size_t i = 0; i < mla.rope_pairs.size(); ++i)
        EXPECT_EQ(mla.rope_pairs[i], static_cast<Index>(i) * collapse) << "every c-th frequency";
      for (Index h = 0; h < 4; ++h) {
        const MatrixXd wanted = layer.oracle(0).scores(layer.q(), layer.k(), h);
        EXPECT_LE((mla_scores(layer, mla, h, 0) - wanted).norm(), this->bound * wanted.norm());
      }
    }
}

/// Scores of a head where at each frequency the first principal component over key heads is
/// rotated, the other not, by complex numbers: each head's pair is one, and a turn of heads real.
MatrixXd partial_scores(const Layer& layer, Index head) {
  const MatrixXd keys = layer.x * layer.key.transpose(), q = layer.q(), k = layer.k();
  MatrixXd scores = MatrixXd::Zero(6, 6);
  for (Index i = 0; i < 4; ++i) {
    const auto at = [&](Index h, Index part) { return 8 * h + layer.shape.channel(i, part); };
    Eigen::Matrix2d m = Eigen::Matrix2d::Zero();
    for (Index t = 0; t < keys.rows(); ++t)
      for (Index part = 0; part < 2; ++part)
        for (Index a = 0; a < 2; ++a)
          for (Index b = 0; b < 2; ++b) m(a, b) += keys(t, at(a, part)) * keys(t, at(b, part));
    const Eigen::Matrix2d u = Eigen::SelfAdjointEigenSolver<Eigen::Matrix2d>(m).eigenvectors();
    for (Index component = 0; component < 2; ++component)
      for (Index t = 0; t < 6; ++t)
        for (Index s = 0; s < 6; ++s) {
          const double angle = component == 1 ? 7.0 * static_cast<double>(t - s) *
                                                    std::pow(10000.0, -static_cast<double>(i) / 4)
                                              : 0;
          const double qa = q(t, at(head, 0)), qb = q(t, at(head, 1));
          for (Index g = 0; g < 2; ++g) {
            const double ka = k(s, at(g, 0)), kb = k(s, at(g, 1));
            scores(t, s) +=
                u(head / 2, component) * u(g, component) *
                (std::cos(angle) * (qa * ka + qb * kb) + std::sin(angle) * (qa * kb - qb * ka));
          }
        }
  }
  return scores;
}

TYPED_TEST(ConvertRope, TransMlaKeepsTheRotationOfPrincipalComponentsOnly) {
  const Layer layer = layers()[1];
  const auto mla = this->mla(layer, {.rank = 18});
  for (Index h = 0; h < 4; ++h) {
    const MatrixXd wanted = partial_scores(layer, h);
    EXPECT_LE((mla_scores(layer, mla, h, 7) - wanted).norm(), 10 * this->bound * wanted.norm());
    const MatrixXd exact = layer.oracle().scores(layer.q(), layer.k(), h);
    EXPECT_GT((wanted - exact).norm(), 0.1 * exact.norm());
  }
  // The rotary key holds more energy than any head of the layer did, and at least half.
  const MatrixXd rope_key = layer.x * values_of(mla.down).bottomRows(8).transpose();
  const MatrixXd keys = layer.x * layer.key.transpose();
  EXPECT_GT(rope_key.norm(), keys.leftCols(8).norm());
  EXPECT_GT(rope_key.norm(), keys.rightCols(8).norm());
}

TYPED_TEST(ConvertRope, TransMlaLosesTheTailOfTheValuesWhereTheLatentHasNoKeys) {
  const Layer layer;
  const VectorXd s = jacobi_values(layer.x * layer.value.transpose());
  for (const Index rank : {1, 4, 9}) {
    const auto mla = this->mla(layer, {.rank = rank, .rope_heads = 2});
    EXPECT_NEAR(*mla.value_error.activation, s.tail(10 - rank).norm() / s.norm(), this->bound);
    EXPECT_EQ(mla.key_error.weight, 0);
  }
}

TYPED_TEST(ConvertRope, TransMlaBalancesKeysAgainstValues) {
  Layer layer;
  const auto mla = this->mla(layer, {.rank = 6});
  const auto for_values = this->mla(layer, {.rank = 6, .balance = 0.01});
  const auto for_keys = this->mla(layer, {.rank = 6, .balance = 100});
  EXPECT_LT(*for_values.value_error.activation, *mla.value_error.activation);
  EXPECT_LT(*for_keys.key_error.activation, *mla.key_error.activation);
  // Larger keys change nothing of it.
  layer.key *= 1024;
  const auto scaled = this->mla(layer, {.rank = 6});
  EXPECT_NEAR(*scaled.value_error.activation, *mla.value_error.activation, this->bound);
  EXPECT_NEAR(*scaled.key_error.activation, *mla.key_error.activation, this->bound);
}

TYPED_TEST(ConvertRope, MoreRankLosesLess) {
  const Layer layer;
  double before = 2;
  for (const Index rank : {2, 6, 10, 14, 18}) {
    const auto mla = this->mla(layer, {.rank = rank});
    const double error = std::hypot(*mla.key_error.activation, *mla.value_error.activation);
    EXPECT_LT(error, before);
    before = error;
  }
  EXPECT_LE(before, this->bound * 10);
}

TYPED_TEST(ConvertRope, Mha2MlaOfFullRankRotatesThePairsThatAreKept) {
  for (const Layer& layer : layers()) {
    const Index count = layer.shape.pairs();
    RotaryPairs own = {{1, 0}, {0, 1}};
    if (count > 2) own = {{3, 1}, {0, 2}};
    for (const RotaryPairs& pairs :
         {high_pairs(layer.shape, count), low_pairs(layer.shape, 1), own}) {
      const Index rope = 2 * static_cast<Index>(pairs[0].size()), content = 8 - rope;
      const auto weights = this->partial(layer, Uniform{}, pairs, 2 * content + 10);
      EXPECT_EQ(weights.cache_width(), 2 * content + 10 + 2 * rope);
      const bool halves = layer.shape.layout == RotaryLayout::HalfSplit;
      const auto all = rotary_frequencies(2 * count).frequencies;
      for (Index h = 0; h < 4; ++h) {
        const Index g = h / 2;
        std::vector<double> f;
        for (const Index pair : pairs[static_cast<std::size_t>(g)])
          f.push_back(all[static_cast<std::size_t>(pair)]);
        const MatrixXd x = layer.tokens(), latent = x * values_of(weights.down).transpose();
        const MatrixXd q = x * values_of(weights.query).middleRows(8 * h, 8).transpose();
        const MatrixXd got =
            q.leftCols(content) *
                (latent * values_of(weights.key_up).middleRows(g * content, content).transpose())
                    .transpose() +
            turned(q.rightCols(rope), f, halves, 7) *
                turned(x * values_of(weights.rope_key).middleRows(g * rope, rope).transpose(), f,
                       halves, 7)
                    .transpose();
        // The definition: frequencies of the other pairs are 0.
        std::vector<double> kept(static_cast<std::size_t>(count), 0.0);
        for (const Index pair : pairs[static_cast<std::size_t>(g)])
          kept[static_cast<std::size_t>(pair)] = all[static_cast<std::size_t>(pair)];
        const MatrixXd wanted = turned(layer.q().middleCols(8 * h, 8), kept, halves, 7) *
                                turned(layer.k().middleCols(8 * g, 8), kept, halves, 7).transpose();
        EXPECT_LE((got - wanted).norm(), this->bound * wanted.norm()) << h;
        const MatrixXd v = x * layer.value.middleRows(g * 5, 5).transpose();
        EXPECT_LE(
            (latent * values_of(weights.value_up).middleRows(g * 5, 5).transpose() - v).norm(),
            this->bound * v.norm());
      }
    }
    // With all pairs the layer's own scores: checked above, since none is 0 then.
  }
}

TYPED_TEST(ConvertRope, Mha2MlaFactorsContentAndValuesStackedInAnyMetric) {
  const Layer layer;
  const RotaryPairs pairs = high_pairs(layer.shape, 1);
  const MatrixXd c = layer.x.transpose() * layer.x;
  MatrixXd both(22, 30);  // content: numbers 2 to 7 of both heads
  both << layer.key.middleRows(2, 6), layer.key.middleRows(10, 6), layer.value;
  for (const Index rank : {3, 11}) {
    const auto plain = this->partial(layer, Uniform{}, pairs, rank);
    const auto aware = this->partial(layer, InputCovariance(c), pairs, rank);
    const auto off = [&](const auto& w) {
      MatrixXd up(22, rank);
      up << values_of(w.key_up), values_of(w.value_up);
      return MatrixXd(both - up * values_of(w.down));
    };
    const VectorXd s = jacobi_values(both), t = jacobi_values(layer.x * both.transpose());
    EXPECT_NEAR(off(plain).norm(), s.tail(22 - rank).norm(), this->bound * s.norm());
    EXPECT_NEAR((layer.x * off(aware).transpose()).norm(), t.tail(22 - rank).norm(),
                this->bound * t.norm());
    EXPECT_NEAR(*aware.value_error.activation,
                (layer.x * off(aware).bottomRows(10).transpose()).norm() /
                    (layer.x * layer.value.transpose()).norm(),
                this->bound);
    EXPECT_FALSE(plain.key_error.activation.has_value());
  }
}

TEST(RotaryPairs, AreThoseThatTheirNamesSay) {
  const AttentionShape shape{.heads = 2, .kv_heads = 2, .head_dim = 16};
  EXPECT_EQ(high_pairs(shape, 3), RotaryPairs(2, {0, 1, 2}));
  EXPECT_EQ(low_pairs(shape, 3), RotaryPairs(2, {5, 6, 7}));
  EXPECT_EQ(uniform_pairs(shape, 4), RotaryPairs(2, {0, 2, 4, 6}));
  EXPECT_EQ(uniform_pairs(shape, 4, 1), RotaryPairs(2, {1, 3, 5, 7}));
  MatrixXd scores(2, 4);
  scores << 1, 5, 5, 2, 9, 0, 9, 9;
  EXPECT_EQ(strongest_pairs(scores, 2), (RotaryPairs{{1, 2}, {0, 2}}));
  EXPECT_EQ(strongest_pairs(scores, 3), (RotaryPairs{{1, 2, 3}, {0, 2, 3}}));
}

TEST(RotaryPairs, ScoreByMeanNormsOfKeysAndTheirQueries) {
  for (const Layer& layer : layers()) {
    const MatrixXd q = layer.q(), k = layer.k();
    const auto scores = pair_norm_scores(q, k, layer.shape);
    ASSERT_EQ(scores.cols(), layer.shape.pairs());
    for (Index g = 0; g < 2; ++g)
      for (Index i = 0; i < scores.cols(); ++i) {
        const bool halves = layer.shape.layout == RotaryLayout::HalfSplit;
        const Index re = halves ? i : 2 * i, im = halves ? i + layer.shape.pairs() : 2 * i + 1;
        double wanted = 0, keys = 0;
        for (Index t = 0; t < 6; ++t) {
          keys += std::hypot(k(t, 8 * g + re), k(t, 8 * g + im)) / 6;
          for (const Index h : {2 * g, 2 * g + 1})
            wanted += std::hypot(q(t, 8 * h + re), q(t, 8 * h + im)) / 6;
        }
        EXPECT_NEAR(scores(g, i), wanted * keys, 1e-12 * wanted * keys);
      }
    const MatrixXd turned_q = layer.oracle().rotated(q), turned_k = layer.oracle().rotated(k);
    EXPECT_LE((pair_norm_scores(turned_q, turned_k, layer.shape) - scores).norm(),
              1e-12 * scores.norm())
        << "rotation changes no norm";
  }
}

TEST(ConvertRopeRefuses, ShapesThatDoNotFit) {
  const Layer layer;
  const auto refused = [&](const AttentionShape& shape, const char* argument) {
    refusal(
        [&] {
          to_mla(pare::reference, layer.query, layer.key, layer.value, layer.inputs(), shape,
                 {.rank = 4});
        },
        "latent::to_mla", argument);
    refusal(
        [&] {
          to_partial_rope(pare::reference, layer.query, layer.key, layer.value, Uniform{}, shape,
                          {{0}, {0}}, {.rank = 4});
        },
        "latent::to_partial_rope", argument);
  };
  refused({.heads = 4, .kv_heads = 0, .head_dim = 8}, "kv_heads");
  refused({.heads = 0, .kv_heads = 2, .head_dim = 8}, "heads");
  refused({.heads = 5, .kv_heads = 2, .head_dim = 8}, "heads");
  refused({.heads = 4, .kv_heads = 2, .head_dim = 0}, "head_dim");
  refused({.heads = 4, .kv_heads = 2, .head_dim = 7}, "rotary");
  for (const Index rotary : {0, 3, 10})
    refused({.heads = 4, .kv_heads = 2, .head_dim = 8, .rotary = rotary}, "rotary");
  refused({.heads = 4, .kv_heads = 2, .head_dim = 8, .layout = RotaryLayout(5)}, "layout");
  refused({.heads = 6, .kv_heads = 2, .head_dim = 8}, "query");
  refused({.heads = 4, .kv_heads = 4, .head_dim = 8}, "key");
}

TEST(ConvertRopeRefuses, WeightsInputsAndOptionsOfTransMla) {
  const Layer layer;
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const auto options = [&](const TransMlaOptions& o, const char* argument) {
    refusal(
        [&] {
          to_mla(pare::reference, layer.query, layer.key, layer.value, layer.inputs(), layer.shape,
                 o);
        },
        "latent::to_mla", argument);
  };
  options({.rank = 0}, "rank");
  options({.rank = 19}, "rank");  // 16 - 8 + 10 = 18
  options({.rank = 11, .rope_heads = 2}, "rank");
  options({.rank = 4, .rope_heads = 0}, "rope_heads");
  options({.rank = 4, .rope_heads = 3}, "rope_heads");
  options({.rank = 4, .fold = 0}, "fold");
  options({.rank = 4, .fold = 3}, "fold");
  options({.rank = 4, .fold = 2, .collapse = 0}, "collapse");
  options({.rank = 4, .fold = 2, .collapse = 4}, "collapse");
  options({.rank = 4, .balance = 0}, "balance");
  options({.rank = 4, .balance = nan}, "balance");
  options({.rank = 4, .damping = -1}, "damping");
  options({.rank = 4, .route = pare::factor::Route(9)}, "route");
  const auto weights = [&](const MatrixXd& q, const MatrixXd& k, const MatrixXd& v,
                           const Covariance& c, const char* argument) {
    refusal([&] { to_mla(pare::reference, q, k, v, c, layer.shape, {.rank = 4}); },
            "latent::to_mla", argument);
  };
  const auto poisoned = [&](MatrixXd m) {
    m(1, 1) = nan;
    return m;
  };
  const Covariance c = layer.inputs();
  weights(poisoned(layer.query), layer.key, layer.value, c, "query");
  weights(layer.query, poisoned(layer.key), layer.value, c, "key");
  weights(layer.query, layer.key, poisoned(layer.value), c, "value");
  weights(layer.query.leftCols(29), layer.key, layer.value, c, "query");
  weights(layer.query, layer.key, layer.value.topRows(9), c, "value");
  weights(layer.query, layer.key, layer.value.leftCols(29), c, "value");
  weights(layer.query, layer.key, layer.value, Covariance(30), "inputs");
  Covariance narrow(29), bad(30);
  narrow.add(MatrixXd(layer.x.leftCols(29)));
  bad.add(poisoned(layer.x));
  weights(layer.query, layer.key, layer.value, narrow, "inputs");
  weights(layer.query, layer.key, layer.value, bad, "inputs");
  const auto mla =
      to_mla(pare::reference, layer.query, layer.key, layer.value, c, layer.shape, {.rank = 4});
  refusal([&] { mla.rope_frequencies(rotary_frequencies(6)); },
          "latent::MlaWeights::rope_frequencies", "of_layer");
}

TEST(ConvertRopeRefuses, PairsThatAreNone) {
  const Layer layer;
  const auto pairs = [&](const RotaryPairs& p, Index rank, const char* argument) {
    refusal(
        [&] {
          to_partial_rope(pare::reference, layer.query, layer.key, layer.value, Uniform{},
                          layer.shape, p, {.rank = rank});
        },
        "latent::to_partial_rope", argument);
  };
  pairs({}, 4, "pairs");
  pairs({{0}}, 4, "pairs");
  pairs({{}, {}}, 4, "pairs");
  pairs({{0, 1}, {0}}, 4, "pairs");
  pairs({{0}, {4}}, 4, "pairs");
  pairs({{0}, {-1}}, 4, "pairs");
  pairs({{0, 1}, {2, 2}}, 4, "pairs");
  pairs({{0}, {0}}, 0, "rank");
  pairs({{0}, {0}}, 23, "rank");
  for (const Index count : {0, 5}) {
    refusal([&] { high_pairs(layer.shape, count); }, "latent::stepped_pairs", "count");
    refusal([&] { low_pairs(layer.shape, count); }, "latent::stepped_pairs", "count");
    refusal([&] { uniform_pairs(layer.shape, count); }, "latent::stepped_pairs", "count");
    refusal([&] { strongest_pairs(MatrixXd(MatrixXd::Ones(2, 4)), count); },
            "latent::strongest_pairs", "count");
  }
  refusal([&] { uniform_pairs(layer.shape, 2, 2); }, "latent::stepped_pairs", "first");
  refusal([&] { uniform_pairs(layer.shape, 2, -1); }, "latent::stepped_pairs", "first");
  refusal([&] { stepped_pairs(layer.shape, 2, 0, 0); }, "latent::stepped_pairs", "step");
  const AttentionShape huge{.heads = 1, .kv_heads = 1, .head_dim = Index{1} << 62};
  refusal([&] { stepped_pairs(huge, Index{1} << 40, 0, Index{1} << 40); }, "latent::stepped_pairs",
          "first");
  refusal([&] { strongest_pairs(MatrixXd(0, 4), 1); }, "latent::strongest_pairs", "scores");
  const MatrixXd nans = MatrixXd::Constant(2, 4, std::numeric_limits<double>::quiet_NaN());
  refusal([&] { strongest_pairs(nans, 1); }, "latent::strongest_pairs", "scores");
  const MatrixXd q = layer.q(), k = layer.k();
  refusal([&] { pair_norm_scores(MatrixXd(q.leftCols(31)), k, layer.shape); },
          "latent::pair_norm_scores", "q");
  refusal([&] { pair_norm_scores(q, MatrixXd(k.topRows(5)), layer.shape); },
          "latent::pair_norm_scores", "k");
  refusal([&] { pair_norm_scores(MatrixXd(0, 32), MatrixXd(0, 16), layer.shape); },
          "latent::pair_norm_scores", "q");
}

}  // namespace
}  // namespace latent_convert_rope_test
