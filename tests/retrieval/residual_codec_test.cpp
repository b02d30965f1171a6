// SPDX-License-Identifier: Apache-2.0
// Residual codecs: what is decoded, and scores without decoding.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/retrieval/residual_codec.hpp>
#include <pare/retrieval/residual_max_sim.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace retrieval_residual_codec_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::retrieval::decode;
using pare::retrieval::encode;
using pare::retrieval::fit_residual_codec;
using pare::retrieval::residual_max_sim;
using pare::retrieval::ResidualBuckets;
using pare::retrieval::ResidualCodec;
using pare::retrieval::ResidualCodecOptions;
using pare::retrieval::ResidualRows;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Tolerance;

/// Unit rows around `kinds` directions that are far apart.
RowMatrix<float> clustered(Index rows, Index dim, Index kinds, float spread) {
  RowMatrix<float> x = spread * random_matrix<RowMatrix<float>>(rows, dim, 3);
  for (Index i = 0; i < rows; ++i) {
    x(i, i % kinds) += 1;
    x.row(i).normalize();
  }
  return x;
}

RowMatrix<float> decoded(const ResidualCodec& codec, const ResidualRows& rows) {
  RowMatrix<float> out(rows.rows(), codec.dim());
  decode(codec, rows, out);
  return out;
}

TEST(ResidualCodec, KeepsEachNumberInItsBucketAndEncodesWhatItDecodesAlike) {
  const auto x = clustered(400, 21, 7, .05f);
  for (const int bits : {1, 2, 4, -4}) {
    const auto codec = fit_residual_codec(
        x, {.bits = std::abs(bits),
            .centroids = 30,
            .buckets = bits < 0 ? ResidualBuckets::LeastSquares : ResidualBuckets::Quantiles,
            .normalize = false});
    const auto rows = encode(codec, x);
    const auto restored = decoded(codec, rows);
    std::vector<double> values(codec.levels.values.begin(),
                               codec.levels.values.begin() + (1 << codec.levels.bits));
    EXPECT_TRUE(std::is_sorted(values.begin(), values.end()));
    EXPECT_TRUE(std::is_sorted(codec.bounds.begin(), codec.bounds.end()));
    for (Index i = 0; i < x.rows(); ++i) {
      const auto& c = codec.centroids.row(static_cast<Index>(rows.centroids[std::size_t(i)]));
      EXPECT_GE(c.dot(x.row(i)), (codec.centroids * x.row(i).transpose()).maxCoeff() - 1e-5f);
      for (Index d = 0; d < x.cols(); ++d) {
        // Both lie between the same two bounds.
        const auto bucket = [&](float value) {
          return std::lower_bound(codec.bounds.begin(), codec.bounds.end(), value - c(d)) -
                 codec.bounds.begin();
        };
        const float step = 1e-6f;  // c + w - c is rounded
        EXPECT_LE(bucket(restored(i, d) - step), bucket(x(i, d)));
        EXPECT_GE(bucket(restored(i, d) + step), bucket(x(i, d)));
      }
    }
    // A row that is nearest to the same centroid still.
    const auto again = encode(codec, restored);
    const auto twice = decoded(codec, again);
    int same = 0;
    for (Index i = 0; i < x.rows(); ++i)
      if (again.centroids[std::size_t(i)] == rows.centroids[std::size_t(i)]) {
        EXPECT_TRUE(twice.row(i).isApprox(restored.row(i), 1e-5f)) << bits << ' ' << i;
        ++same;
      }
    EXPECT_GT(same, 300);
  }
}

TEST(ResidualCodec, LosesLessWithMoreBitsAndKeepsLengths) {
  const auto x = clustered(600, 32, 11, .1f);
  float before = 1;
  for (const int bits : {1, 2, 4}) {
    const auto codec = fit_residual_codec(x, {.bits = bits});
    EXPECT_EQ(codec.centroids.rows(), 256);  // 2^floor(log2(16 sqrt(600))), 391.9
    const auto rows = encode(codec, x);
    EXPECT_EQ(rows.codes.size(), std::size_t(600 * 32 * bits / 8));
    const auto restored = decoded(codec, rows);
    EXPECT_LT((restored.rowwise().norm().array() - 1).abs().maxCoeff(), 1e-6f);
    const float lost = (restored - x).norm() / x.norm();
    EXPECT_LT(lost, .7f * before);
    before = lost;
  }
}

/// A codec of one centroid at the origin, so that residuals are the tokens themselves.
ResidualCodec at_origin(Index dim, int bits, std::vector<float> bounds,
                        const std::vector<float>& values) {
  ResidualCodec codec{.centroids = RowMatrix<float>::Zero(1, dim),
                      .bounds = std::move(bounds),
                      .levels = {},
                      .normalize = false};
  codec.levels.bits = bits;
  std::copy(values.begin(), values.end(), codec.levels.values.begin());
  return codec;
}

/// As in ColBERT, whose torch.bucketize has right = False.
TEST(ResidualCodec, ANumberAtABoundIsInTheBucketBelow) {
  const auto codec = at_origin(7, 2, {-1, 0, 1}, {-2, -.5f, .5f, 2});
  RowMatrix<float> x(1, 7);
  x << -1, 0, 1, std::nextafter(-1.0f, 0.0f), std::nextafter(0.0f, 1.0f),
      std::nextafter(1.0f, 2.0f), -9;
  RowMatrix<float> wanted(1, 7);
  wanted << -2, -.5f, .5f, -.5f, .5f, 2, -2;
  EXPECT_EQ(decoded(codec, encode(codec, x)), wanted);
}

/// The numbers 0 to 17 around a centroid at the origin: a quantile p is 17 p.
TEST(ResidualCodec, BoundsAndValuesAreQuantiles) {
  RowMatrix<float> x(18, 1);
  for (Index i = 0; i < 18; ++i) x(i, 0) = static_cast<float>((i * 7) % 18);
  for (const int bits : {1, 2, 4}) {
    ResidualCodec codec;
    for (std::uint64_t seed = 1; seed < 200; ++seed) {  // until the token at the origin is drawn
      codec = fit_residual_codec(x, {.bits = bits, .centroids = 1, .rounds = 0, .seed = seed});
      if (codec.centroids(0, 0) == 0) break;
    }
    ASSERT_EQ(codec.centroids(0, 0), 0);
    const int buckets = 1 << bits;
    const auto share = [&](float i) { return 17 * i / static_cast<float>(buckets); };
    for (int i = 1; i < buckets; ++i)
      EXPECT_EQ(codec.bounds[std::size_t(i - 1)], share(static_cast<float>(i)));
    for (int i = 0; i < buckets; ++i) {
      EXPECT_EQ(codec.levels.values[std::size_t(i)], share(static_cast<float>(i) + .5f));
      EXPECT_EQ(codec.levels.in_bytes[std::size_t(i)],
                (255 * i * 2 + buckets - 1) / (buckets - 1) / 2);
    }
    EXPECT_EQ(codec.levels.least, codec.levels.values[0]);
  }
}

/// Tokens of zeros have no direction, and centroids without tokens none to move to.
TEST(ResidualCodec, KeepsRowsOfZerosAndCentroidsWithoutTokens) {
  const RowMatrix<float> zeros = RowMatrix<float>::Zero(3, 5);
  const auto codec = fit_residual_codec(zeros, {.centroids = 2});
  EXPECT_EQ(codec.centroids, (RowMatrix<float>::Zero(2, 5)));
  const auto rows = encode(codec, zeros);
  EXPECT_EQ(rows.scales, std::vector<float>(3, 1));
  EXPECT_EQ(decoded(codec, rows), zeros);
  const RowMatrix<float> equal = RowMatrix<float>::Constant(3, 4, 3);  // all go to the first
  EXPECT_EQ(fit_residual_codec(equal, {.centroids = 2}).centroids,
            (RowMatrix<float>::Constant(2, 4, .5f)));
}

/// Rows of lengths near both ends of float: levels, scales and what is decoded are numbers.
TEST(ResidualCodec, OfTheLargestAndSmallestNumbersIsFinite) {
  const float largest = std::numeric_limits<float>::max();
  for (const float size : {largest, 1e30f, 1e-30f, 1e-44f}) {
    RowMatrix<float> x = RowMatrix<float>::Zero(40, 6);
    for (Index i = 0; i < 40; ++i) x(i, i % 6) = (i % 4 < 2 ? size : -size);
    x.row(7).setZero();
    for (const ResidualBuckets buckets :
         {ResidualBuckets::Quantiles, ResidualBuckets::LeastSquares}) {
      const auto codec = fit_residual_codec(x, {.centroids = 3, .buckets = buckets});
      EXPECT_TRUE(std::isfinite(codec.levels.step));
      EXPECT_TRUE(decoded(codec, encode(codec, x)).allFinite()) << size;
    }
  }
  auto codec = at_origin(2, 1, {0}, {0, 1e-42f});
  codec.normalize = true;
  const RowMatrix<float> x = RowMatrix<float>::Ones(1, 2);
  EXPECT_TRUE(decoded(codec, encode(codec, x)).allFinite());
}

/// Of a normal distribution the least squared errors are .3634, .1175 and .009497 times the
/// variance: Max, "Quantizing for minimum distortion", 1960, table I. Those of 40,000 numbers are
/// off by some 1 %.
TEST(ResidualCodec, BucketsByLeastSquaresAreThoseOfMax) {
  std::mt19937_64 random(5);
  const auto uniform = [&] { return (static_cast<double>(random() >> 11) + .5) / 0x1p53; };
  RowMatrix<float> x(40000, 1);
  for (Index i = 0; i < x.rows(); ++i)
    x(i, 0) =
        static_cast<float>(std::sqrt(-2 * std::log(uniform())) * std::cos(2 * M_PI * uniform()));
  const double squares = x.cast<double>().squaredNorm();
  const auto error = [&](int bits, ResidualBuckets buckets) {
    const auto codec = fit_residual_codec(
        x, {.bits = bits, .centroids = 1, .buckets = buckets, .normalize = false});
    EXPECT_TRUE(std::is_sorted(codec.bounds.begin(), codec.bounds.end()));
    return (decoded(codec, encode(codec, x)) - x).cast<double>().squaredNorm() / squares;
  };
  EXPECT_NEAR(error(1, ResidualBuckets::LeastSquares) / .3634, 1, .03);
  EXPECT_NEAR(error(2, ResidualBuckets::LeastSquares) / .1175, 1, .03);
  EXPECT_NEAR(error(4, ResidualBuckets::LeastSquares) / .009497, 1, .05);
  EXPECT_GT(error(4, ResidualBuckets::Quantiles), .015);
}

TEST(ResidualCodec, BucketsByLeastSquaresOfFewNumbersAreTheirMeans) {
  RowMatrix<float> x(5, 1);
  x << 0, 1, 10, 11, 15;
  const auto codec = fit_residual_codec(x, {.bits = 1,
                                            .centroids = 1,
                                            .rounds = 0,
                                            .buckets = ResidualBuckets::LeastSquares,
                                            .normalize = false});
  RowMatrix<float> wanted(5, 1);
  wanted << .5f, .5f, 12, 12, 12;
  EXPECT_TRUE(decoded(codec, encode(codec, x)).isApprox(wanted, 1e-6f));
  // Fewer numbers than buckets, all of them equal.
  const RowMatrix<float> equal = RowMatrix<float>::Constant(3, 2, .5f);
  const auto of_equal =
      fit_residual_codec(equal, {.buckets = ResidualBuckets::LeastSquares, .normalize = false});
  EXPECT_TRUE(decoded(of_equal, encode(of_equal, equal)).isApprox(equal, 1e-6f));
}

/// Codes, centroids and scales of any numbers, with which no k-means has to do.
struct Stored {
  ResidualCodec codec;
  ResidualRows rows;
  RowMatrix<float> queries;
  std::vector<Index> offsets{0, 0, 1, 14, 14, 40, 900, 1203, 1203};

  Stored(Index dim, int bits, Index query_tokens) {
    const auto x = clustered(1203, dim, std::min<Index>(dim, 5), .2f);
    codec = fit_residual_codec(x, {.bits = bits, .centroids = 40, .rounds = 1});
    rows = encode(codec, x);
    queries = random_matrix<RowMatrix<float>>(query_tokens, dim, 5);
  }
};

/// The bound that residual_max_sim.hpp states, of the largest product of each query token, and that
/// of float sums.
double bound_of(const Stored& s, Index begin, Index end) {
  double bound = 0;
  const auto restored = decoded(s.codec, s.rows);
  for (Index i = 0; i < s.queries.rows(); ++i) {
    const auto q = s.queries.row(i).cast<double>();
    double off = 0;
    for (Index j = begin; j < end; ++j) {
      const auto scale = static_cast<double>(s.rows.scales[std::size_t(j)]);
      const auto c = s.codec.centroids.row(Index{s.rows.centroids[std::size_t(j)]}).cast<double>();
      const auto residual = restored.row(j).cast<double>() / scale - c;
      const double steps =
          q.cwiseAbs().maxCoeff() / 254 * residual.cwiseAbs().sum() +
          static_cast<double>(s.codec.levels.step) / 2 * q.cwiseAbs().sum() * (1 + 1.0 / 127);
      const double size = c.cwiseAbs().dot(q.cwiseAbs()) + residual.cwiseAbs().dot(q.cwiseAbs()) +
                          std::abs(static_cast<double>(s.codec.levels.least)) * q.cwiseAbs().sum();
      off = std::max(off, scale * (1.01 * steps + Tolerance<float>::gamma(300) * size));
    }
    bound += off;
  }
  return bound;
}

TEST(ResidualMaxSim, IsThatOfDecodedRows) {
  for (const auto& shape : {std::array<int, 3>{128, 4, 32},
                            {96, 2, 5},
                            {33, 1, 17},
                            {128, 1, 40},
                            {64, 4, 3},
                            {7, 4, 1},
                            {256, 2, 16}}) {
    const int dim = shape[0], bits = shape[1], tokens = shape[2];
    const Stored s(dim, bits, tokens);
    const auto definition =
        pare::retrieval::max_sim(pare::reference, s.queries, decoded(s.codec, s.rows), s.offsets);
    const auto expect = [&](const auto& backend, double slack) {
      const auto scores = residual_max_sim(backend, s.queries, s.codec, s.rows, s.offsets);
      for (std::size_t d = 0; d < scores.size(); ++d)
        if (s.offsets[d] == s.offsets[d + 1])
          EXPECT_EQ(scores[d], -std::numeric_limits<float>::infinity());
        else
          EXPECT_NEAR(scores[d], definition[d],
                      slack * bound_of(s, s.offsets[d], s.offsets[d + 1]) + 1e-5 * double(tokens))
              << dim << ' ' << bits << ' ' << tokens << ' ' << d;
    };
    expect(pare::reference, 0);
    expect(pare::simd, 1);
    if (dim == 33) expect(pare::simd_for<pare::arch::scalar>{}, 0);
  }
}

TEST(ResidualMaxSim, RoundsQueriesToTheNearestByte) {
  ResidualCodec codec{.centroids = RowMatrix<float>::Zero(1, 7), .bounds = {0}, .levels = {}};
  codec.levels.bits = 1;
  codec.levels.values = {-1, 1};
  codec.levels.in_bytes = {0, 255};
  codec.levels.least = -1;
  codec.levels.step = 2 / 255.0f;
  const ResidualRows rows{{0}, {1, 1, 1, 1}, {1}};  // planes of four bytes: dimensions 0 to 3 are 1
  RowMatrix<float> query = RowMatrix<float>::Constant(1, 7, .6f);
  query(0, 0) = 127;
  query.rightCols(3).setZero();
  // 127 + 3 * .6 as they are; half a step each is 1.5 off at most.
  EXPECT_NEAR(residual_max_sim(query, codec, rows, std::vector<Index>{0, 1})[0], 128.8, 1.501);
  query.block(0, 1, 1, 3).setConstant(-.6f);
  EXPECT_NEAR(residual_max_sim(query, codec, rows, std::vector<Index>{0, 1})[0], 125.2, 1.501);
  // 127 over the largest number of such a query is beyond float; steps are some 1e-4 of a number.
  query *= 1e-38f / 127;
  EXPECT_NEAR(residual_max_sim(query, codec, rows, std::vector<Index>{0, 1})[0],
              125.2 / 127 * 1e-38, 2e-40);
}

TEST(ResidualMaxSim, HasTheSameBitsForAnyThreadsAndAllocatesNothingTheSecondTime) {
  const Stored s(33, 2, 17);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    return residual_max_sim(backend, s.queries, s.codec, s.rows, s.offsets);
  });
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    return encode(backend, s.codec, decoded(s.codec, s.rows)).codes;
  });
  pare::Workspace workspace;
  std::vector<float> scores(s.offsets.size() - 1);
  long before = 0;
  for (int turn = 0; turn < 3; ++turn) {
    before = pare::testing::allocations;
    residual_max_sim(pare::simd.threads(PARE_HAS_OPENMP ? 2 : 1).with(workspace), s.queries,
                     s.codec, s.rows, s.offsets, scores);
  }
  EXPECT_EQ(pare::testing::allocations, before);
}

TEST(ResidualMaxSim, OfAQueryWithoutNumbersIsNaN) {
  Stored s(33, 4, 3);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    s.queries(1, 4) = bad;
    const auto expect = [&](const auto& backend) {
      const auto scores = residual_max_sim(backend, s.queries, s.codec, s.rows, s.offsets);
      for (std::size_t d = 0; d < scores.size(); ++d)
        EXPECT_EQ(pare::is_nan(scores[d]), s.offsets[d] != s.offsets[d + 1]);
    };
    expect(pare::reference);
    expect(pare::simd);
  }
  s.queries.setZero();
  for (const float score :
       residual_max_sim(s.queries, s.codec, s.rows, std::vector<Index>{0, 1203}))
    EXPECT_EQ(score, 0);
}

TEST(ResidualCodec, RefusesWhatDoesNotFit) {
  const auto x = clustered(9, 6, 3, .1f);
  const auto fit = [&](const RowMatrix<float>& tokens, const ResidualCodecOptions& options,
                       const char* argument) {
    refusal([&] { fit_residual_codec(tokens, options); }, "retrieval::fit_residual_codec",
            argument);
  };
  fit(x, {.bits = 3}, "bits");
  fit(x, {.centroids = 10}, "centroids");
  fit(x, {.centroids = 0}, "centroids");
  fit(x, {.rounds = -1}, "rounds");
  fit(x, {.buckets = static_cast<ResidualBuckets>(2)}, "buckets");
  fit(RowMatrix<float>(0, 6), {}, "tokens");
  fit(RowMatrix<float>(9, 0), {}, "tokens");
  fit(RowMatrix<float>::Zero(1, 65536), {}, "tokens");
  auto nan = x;
  nan(8, 5) = std::nanf("");
  fit(nan, {}, "tokens");
  // Residuals that would not fit any memory; nothing looks at as many numbers before.
  const TensorView<const float, 2> many{x.data(), {Index{1} << 59, 6}, {0, 1}};
  refusal([&] { fit_residual_codec(many); }, "retrieval::fit_residual_codec", "tokens");
  const auto codec = fit_residual_codec(x, {.centroids = 3});
  refusal([&] { encode(codec, nan); }, "retrieval::encode", "tokens");
  refusal([&] { encode(codec, RowMatrix<float>::Ones(2, 5).eval()); }, "retrieval::encode",
          "tokens");
  refusal([&] { encode(ResidualCodec{}, x); }, "retrieval::encode", "codec");
  refusal([&] { encode(codec, many); }, "retrieval::encode", "tokens");
  // Codecs that something else has changed.
  const auto changed = [&](const auto& change) {
    ResidualCodec other = codec;
    change(other);
    refusal([&] { encode(other, x); }, "retrieval::encode", "codec");
    RowMatrix<float> to = RowMatrix<float>::Ones(9, 6);
    refuses_and_leaves_alone([&] { decode(other, encode(codec, x), to); }, "retrieval::decode",
                             "codec", to);
  };
  changed([](ResidualCodec& c) { c.levels.bits = 3; });
  changed([](ResidualCodec& c) { c.levels.bits = 2; });
  changed([](ResidualCodec& c) { c.bounds.push_back(9); });
  changed([](ResidualCodec& c) { c.centroids.resize(3, 0); });
  const auto rows = encode(codec, x);
  RowMatrix<float> out = RowMatrix<float>::Ones(9, 5);
  const auto refuse = [&](const ResidualRows& wrong, auto&& to, const char* argument) {
    refuses_and_leaves_alone([&] { decode(codec, wrong, to); }, "retrieval::decode", argument, out);
  };
  refuse(rows, out, "tokens");
  out = RowMatrix<float>::Ones(9, 6);
  auto wrong = rows;
  wrong.centroids[8] = 3;
  refuse(wrong, out, "rows");
  wrong = rows;
  wrong.codes.pop_back();
  refuse(wrong, out, "rows");
  wrong = rows;
  wrong.scales.pop_back();
  refuse(wrong, out, "rows");
  std::vector<float> scores(2, 7.0f);
  const auto score = [&](const auto& queries, const ResidualRows& some,
                         const std::vector<Index>& offsets, const TensorView<float, 1>& to,
                         const char* argument) {
    refuses_and_leaves_alone(
        [&] { residual_max_sim(pare::reference, queries, codec, some, offsets, to); },
        "retrieval::residual_max_sim", argument, scores);
  };
  const TensorView<float, 1> two{scores.data(), {2}, {1}};
  score(x, wrong, {0, 4, 9}, two, "rows");
  score(x, rows, {0, 4, 8}, two, "offsets");
  score(x, rows, {0, 5, 4, 9}, two, "offsets");
  score(x, rows, {0, 9}, two, "scores");
  score(RowMatrix<float>::Ones(2, 5).eval(), rows, {0, 4, 9}, two, "queries");
  score(Eigen::MatrixXf(x), rows, {0, 4, 9}, two, "queries");
  score(TensorView<const float, 2>{scores.data(), {1, 6}, {1, 1}}, rows, {0, 4, 9}, two, "scores");
  score(TensorView<const float, 2>{x.data(), {Index{1} << 56, 6}, {0, 1}}, rows, {0, 4, 9}, two,
        "queries");
  // Over each of the lists of the rows.
  auto roomy = rows;
  roomy.codes.reserve(4096);
  const auto over = [&](const void* list, Index count) {
    return TensorView<float, 1>{reinterpret_cast<float*>(const_cast<void*>(list)), {count}, {1}};
  };
  for (const void* list : {static_cast<const void*>(roomy.centroids.data()),
                           static_cast<const void*>(roomy.codes.data()),
                           static_cast<const void*>(roomy.scales.data())})
    refuses_and_leaves_alone(
        [&] {
          residual_max_sim(pare::reference, x, codec, roomy, std::vector<Index>{0, 4, 9},
                           over(list, 2));
        },
        "retrieval::residual_max_sim", "scores", roomy.centroids, roomy.codes, roomy.scales);
  const TensorView<float, 2> over_codes{
      reinterpret_cast<float*>(roomy.codes.data()), {9, 6}, {6, 1}};
  refuses_and_leaves_alone([&] { decode(codec, roomy, over_codes); }, "retrieval::decode", "tokens",
                           roomy.codes);
}

}  // namespace
}  // namespace retrieval_residual_codec_test
