// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SVD>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include <pare/draft/compare_heads.hpp>
#include <pare/draft/low_rank_from_dense.hpp>
#include <pare/draft/subset_head.hpp>
#include <pare/factor/covariance.hpp>

#include "draft/heads.hpp"

namespace draft_low_rank_from_dense_test {
namespace {

using pare::Index;
using pare::testing::HeadRows;
using pare::testing::refusal;
using namespace pare::draft;

/// Rows with a falling spectrum around a large mean.
HeadRows<double> weight(Index tokens, Index d) {
  HeadRows<double> w = pare::testing::random_matrix<HeadRows<double>>(tokens, d, 1);
  for (Index i = 0; i < d; ++i) w.col(i) *= std::pow(0.8, static_cast<double>(i));
  const HeadRows<double> mean = pare::testing::random_matrix<HeadRows<double>>(1, d, 2) * 5;
  return w.rowwise() + mean.row(0);
}

/// Logits less their mean over tokens.
HeadRows<double> centred_logits(const auto& head, const HeadRows<double>& h) {
  HeadRows<double> z(h.rows(), head.outputs());
  head.logits(h, z);
  return z.colwise() - z.rowwise().mean();
}

TEST(LowRankFromDense, ErrsByNoMoreThanTheNextSingularValue) {  // S3
  const Index tokens = 200, d = 24;
  const auto w = weight(tokens, d);
  const auto h = pare::testing::random_matrix<HeadRows<double>>(20, d, 3);
  const Eigen::MatrixXd less_mean = w.rowwise() - w.colwise().mean();
  const Eigen::VectorXd sigma = Eigen::BDCSVD<Eigen::MatrixXd>(less_mean).singularValues();
  const DenseHead<double> dense(w);
  const auto z = centred_logits(dense, h);
  for (const Index rank : {1, 6, 12, 24}) {
    const auto fit =
        low_rank_head_of<double>(w, {.rank = rank, .accuracy = pare::factor::Accuracy::High});
    const auto z_r = centred_logits(fit.head, h);
    const double next = rank < d ? sigma(rank) : 0;
    for (Index r = 0; r < h.rows(); ++r)
      EXPECT_LE((z.row(r) - z_r.row(r)).norm(), (next * (1 + 1e-3) + 1e-10) * h.row(r).norm())
          << rank;
    const double tail = sigma.tail(d - rank).norm() / sigma.norm();
    EXPECT_NEAR(fit.relative_error, tail, 1e-3 * tail + 1e-7);
  }
}

TEST(LowRankFromDense, TheMetricIsHeeded) {
  const Index tokens = 300, d = 24;
  const auto w = weight(tokens, d);
  // Hidden states in a few directions that the spectrum of W does not favour.
  HeadRows<double> h = pare::testing::random_matrix<HeadRows<double>>(200, d, 3);
  for (Index i = 0; i < d; ++i) h.col(i) *= std::pow(0.6, static_cast<double>(d - i));
  const DenseHead<double> dense(w);
  const auto z = centred_logits(dense, h);
  const Eigen::MatrixXd c = h.transpose() * h;
  const auto error = [&](const auto& fit) {
    return (centred_logits(fit.head, h) - z).squaredNorm();
  };
  const double plain = error(low_rank_head_of<double>(w, {.rank = 4}));
  const double aware =
      error(low_rank_head_of<double>(w, pare::factor::InputCovariance(c), {.rank = 4}));
  EXPECT_LT(aware, 0.5 * plain);
  // Only the first ten tokens count.
  Eigen::VectorXd tokens_weight = Eigen::VectorXd::Constant(tokens, 1e-6);
  tokens_weight.head(10).setOnes();
  const auto first = [&](const auto& fit) {
    HeadRows<double> a(h.rows(), tokens), b(h.rows(), tokens);
    fit.head.logits(h, a);
    dense.logits(h, b);
    const HeadRows<double> shift = h * w.colwise().mean().transpose();
    return (a - b).leftCols(10).colwise().operator+(shift.col(0)).squaredNorm();
  };
  const double weighted =
      first(low_rank_head_of<double>(w, pare::factor::OutputWeights(tokens_weight), {.rank = 10}));
  EXPECT_LT(weighted, 0.01 * first(low_rank_head_of<double>(w, {.rank = 10})));
}

TEST(LowRankFromDense, ACovarianceIsTheMetricOfItsMatrix) {
  const auto w = weight(60, 9);
  pare::factor::Covariance covariance(9);
  refusal([&] { low_rank_head_of<float>(w, covariance, {.rank = 4}); },
          "factor::Covariance::matrix", "count");
  covariance.add(pare::testing::random_matrix<HeadRows<double>>(30, 9, 3));
  HeadRows<double> z(60, 60), wanted(60, 60);
  const auto logits_of = [&](const auto& fit, HeadRows<double>& to) { fit.head.logits(w, to); };
  const pare::RowMatrix<double> c = covariance.matrix();
  logits_of(low_rank_head_of<double>(w, pare::factor::InputCovariance(c), {.rank = 4}), wanted);
  logits_of(low_rank_head_of<double>(w, covariance, {.rank = 4}), z);
  EXPECT_TRUE(z == wanted);
  logits_of(low_rank_head_of<double>(pare::simd.threads(2), w, covariance, {.rank = 4}), z);
  EXPECT_TRUE(z == wanted);
  const pare::factor::InputCovariance damped(covariance, 0.01);
  EXPECT_EQ(damped.input_covariance().ridge,
            pare::factor::InputCovariance(c, 0.01).input_covariance().ridge);
}

TEST(LowRankFromDense, RefusesWhatFactorizeDoes) {
  const auto w = weight(20, 5);
  refusal([&] { low_rank_head_of<float>(w.topRows(1), {.rank = 1}); }, "draft::low_rank_head_of",
          "w");
  refusal([&] { low_rank_head_of<float>(w, {.rank = 6}); }, "factor::factorize", "rank");
  refusal([&] { low_rank_head_of<float>(w, {}); }, "factor::factorize", "rank");
}

TEST(CompareHeads, IsWhatTheLawsSay) {
  const Index tokens = 40, d = 6;
  const auto w = pare::testing::random_matrix<HeadRows<double>>(tokens, d, 1);
  const auto v =
      HeadRows<double>(w + 0.3 * pare::testing::random_matrix<HeadRows<double>>(tokens, d, 2));
  const auto h = pare::testing::random_matrix<HeadRows<double>>(9, d, 3);
  const DenseHead<double> exact(w), draft(v);
  const auto law = [&](const HeadRows<double>& weights, Index r, double t) {
    const Eigen::ArrayXd e = (weights * h.row(r).transpose() / t).array().exp();
    return Eigen::ArrayXd(e / e.sum());
  };
  for (const double t : {0.5, 1.0}) {
    double top = 0, overlap = 0, divergence = 0;
    for (Index r = 0; r < 9; ++r) {
      const Eigen::ArrayXd p = law(w, r, t), q = law(v, r, t);
      Index a = 0, b = 0;
      p.maxCoeff(&a), q.maxCoeff(&b);
      top += a == b ? 1.0 / 9 : 0;
      overlap += p.min(q).sum() / 9;
      divergence += (p * (p / q).log()).sum() / 9;
    }
    const auto got = compare_heads(draft, exact, h, t);
    EXPECT_NEAR(got.top_1, top, 1e-12);
    EXPECT_NEAR(got.overlap, overlap, 1e-12);
    EXPECT_NEAR(got.divergence, divergence, 1e-12);
  }
  const auto same = compare_heads(exact, exact, h);
  EXPECT_EQ(same.top_1, 1);
  EXPECT_NEAR(same.overlap, 1, 1e-12);
  const std::vector<std::int32_t> ids{0, 5, 9, 39};
  const auto some = compare_heads(subset_of<double>(w, ids), exact, h);
  double overlap = 0;
  for (Index r = 0; r < 9; ++r) {
    const auto p = law(w, r, 1);
    for (const auto id : ids) overlap += p(id) / 9;  // q is p over its mass, nowhere below p
  }
  EXPECT_NEAR(some.overlap, overlap, 1e-12);
  EXPECT_EQ(some.divergence, std::numeric_limits<double>::infinity());
}

TEST(CompareHeads, RefusesWhatDoesNotFit) {
  const DenseHead<float> exact(40, 6), narrow(40, 5), few(39, 6);
  const HeadRows<float> h = HeadRows<float>::Ones(2, 6);
  constexpr const char* function = "draft::compare_heads";
  refusal([&] { compare_heads(narrow, exact, h); }, function, "draft");
  refusal([&] { compare_heads(few, exact, h); }, function, "draft");
  refusal([&] { compare_heads(exact, exact, h.leftCols(5)); }, function, "hidden");
  refusal([&] { compare_heads(exact, exact, h.topRows(0)); }, function, "hidden");
  refusal([&] { compare_heads(exact, exact, h, 0); }, function, "temperature");
  HeadRows<float> bad = h;
  bad(1, 1) = std::numeric_limits<float>::quiet_NaN();
  refusal([&] { compare_heads(exact, exact, bad); }, function, "hidden");
}

}  // namespace
}  // namespace draft_low_rank_from_dense_test
