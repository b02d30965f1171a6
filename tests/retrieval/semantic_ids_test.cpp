// SPDX-License-Identifier: Apache-2.0
// Ids by residual clusters: what is left at each level, encoding, decoding, items of equal ids.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/retrieval/semantic/semantic_ids.hpp>

#include "support/properties.hpp"

namespace retrieval_semantic_ids_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::RowMatrix;
using pare::retrieval::collisions;
using pare::retrieval::decode_semantic_ids;
using pare::retrieval::encode_semantic_ids;
using pare::retrieval::fit_semantic_ids;
using pare::retrieval::SemanticIds;
using pare::retrieval::with_last_digit;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;

TEST(SemanticIds, LeaveWhatTheInertiaOfEachLevelSays) {
  const auto x = random_matrix<RowMatrix<float>>(403, 6, 1);
  const auto fit = fit_semantic_ids(x, {.levels = 4, .clusters = 16, .sweeps = 6});
  ASSERT_EQ(fit.codebooks.size(), 4u);
  ASSERT_EQ(fit.ids.items(), 403);
  RowMatrix<double> left = x.cast<double>();
  double before = left.squaredNorm();
  for (std::size_t level = 0; level < 4; ++level) {
    std::vector<Index> sizes(16);
    for (Index i = 0; i < 403; ++i) {
      const std::int32_t token = fit.ids.of(i)[level];
      ASSERT_TRUE(token >= 0 && token < 16);
      ++sizes[static_cast<std::size_t>(token)];
      left.row(i) -= fit.codebooks[level].row(token).cast<double>();
    }
    for (std::size_t k = 0; k < 16; ++k) EXPECT_EQ(sizes[k], k < 3 ? 26 : 25);
    // Residuals are rounded to float: below 2, of 403 x 6 numbers.
    EXPECT_NEAR(fit.inertia[level], left.squaredNorm(), 1e-4);
    EXPECT_LE(fit.inertia[level], before);
    before = fit.inertia[level];
  }
}

TEST(SemanticIds, DecodeToTheSumOfCentroids) {
  const auto x = random_matrix<RowMatrix<float>>(200, 5, 1);
  const auto fit = fit_semantic_ids(x, {.levels = 3, .clusters = 20, .sweeps = 3});
  RowMatrix<float> decoded(200, 5);
  decode_semantic_ids(fit.codebooks, fit.ids, decoded);
  for (Index i = 0; i < 200; ++i)
    for (Index c = 0; c < 5; ++c) {
      double sum = 0;
      for (std::size_t level = 0; level < 3; ++level)
        sum += static_cast<double>(fit.codebooks[level](fit.ids.of(i)[level], c));
      ASSERT_EQ(decoded(i, c), static_cast<float>(sum));
    }
  EXPECT_NEAR(static_cast<double>((decoded - x).squaredNorm()), fit.inertia[2], 1e-4);
}

TEST(SemanticIds, LeaveNothingWhereEachItemIsACluster) {
  const auto x = random_matrix<RowMatrix<double>>(50, 3, 1);
  const auto fit = fit_semantic_ids(x, {.levels = 2, .clusters = 50});
  EXPECT_EQ(fit.inertia[0], 0);
  RowMatrix<double> decoded(50, 3);
  decode_semantic_ids(fit.codebooks, fit.ids, decoded);
  EXPECT_EQ(decoded, x);
}

TEST(SemanticIds, EncodeByTheNearestCentroidOfEachLevel) {
  const auto fit = fit_semantic_ids(random_matrix<RowMatrix<double>>(300, 4, 1),
                                    {.levels = 3, .clusters = 12, .sweeps = 4});
  const auto x = random_matrix<RowMatrix<double>>(77, 4, 2);
  SemanticIds wanted{.tokens = {}, .levels = 3};
  for (Index i = 0; i < 77; ++i) {
    RowMatrix<double> r = x.row(i);
    for (const auto& centroids : fit.codebooks) {
      Index best = 0;
      for (Index k = 1; k < 12; ++k)
        if ((r - centroids.row(k)).squaredNorm() < (r - centroids.row(best)).squaredNorm())
          best = k;
      wanted.tokens.push_back(static_cast<std::int32_t>(best));
      r -= centroids.row(best);
    }
  }
  EXPECT_EQ(encode_semantic_ids(pare::simd.threads(2), fit.codebooks, x).tokens, wanted.tokens);
  EXPECT_EQ(encode_semantic_ids(pare::reference, fit.codebooks, x).tokens, wanted.tokens);
  EXPECT_EQ(encode_semantic_ids(fit.codebooks, RowMatrix<double>(0, 4)).items(), 0);
}

TEST(SemanticIds, HaveTheSameBitsForAnyThreadsAndOfSixteenBits) {
  const auto x = random_matrix<RowMatrix<float>>(500, 3, 1);
  const pare::retrieval::SemanticIdOptions how{.levels = 2, .clusters = 10, .sweeps = 3};
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    return fit_semantic_ids(backend, x, how).ids.tokens;
  });
  RowMatrix<bf16> narrow(500, 3);
  RowMatrix<float> widened(500, 3);
  for (Index i = 0; i < x.size(); ++i) {
    narrow.data()[i] = static_cast<bf16>(x.data()[i]);
    widened.data()[i] = static_cast<float>(narrow.data()[i]);
  }
  const auto fit = fit_semantic_ids(narrow, how);
  EXPECT_EQ(fit.ids.tokens, fit_semantic_ids(widened, how).ids.tokens);
  EXPECT_EQ(encode_semantic_ids(fit.codebooks, narrow).tokens,
            encode_semantic_ids(fit.codebooks, widened).tokens);
  EXPECT_NE(fit_semantic_ids(x, {.levels = 2, .clusters = 10, .sweeps = 3, .seed = 5}).ids.tokens,
            fit_semantic_ids(x, how).ids.tokens);
}

TEST(SemanticIds, ListItemsOfEqualTokensAndTellThemApart) {
  const SemanticIds ids{{3, 1, 0, 0, 3, 1, 2, 2, 0, 0, 3, 1, 1, 3}, 2};
  const std::vector<std::vector<Index>> wanted{{0, 2, 5}, {1, 4}};
  EXPECT_EQ(collisions(ids), wanted);
  const SemanticIds longer = with_last_digit(ids);
  EXPECT_EQ(longer.levels, 3);
  EXPECT_EQ(longer.tokens, (std::vector<std::int32_t>{3, 1, 0, 0, 0, 0, 3, 1, 1, 2, 2,
                                                      0, 0, 0, 1, 3, 1, 2, 1, 3, 0}));
  EXPECT_TRUE(collisions(longer).empty());
  EXPECT_TRUE(collisions(SemanticIds{{}, 2}).empty());
  EXPECT_EQ(with_last_digit(SemanticIds{{}, 2}).items(), 0);
}

TEST(SemanticIds, RefuseWhatDoesNotFit) {
  const auto x = random_matrix<RowMatrix<float>>(9, 4, 1);
  const char* const fit = "retrieval::fit_semantic_ids";
  refusal([&] { fit_semantic_ids(x, {.levels = 0, .clusters = 2}); }, fit, "levels");
  refusal([&] { fit_semantic_ids(x, {.clusters = 0}); }, fit, "clusters");
  refusal([&] { fit_semantic_ids(x, {.clusters = 10}); }, fit, "clusters");
  refusal([&] { fit_semantic_ids(x, {.clusters = 2, .sweeps = 0}); }, fit, "sweeps");
  RowMatrix<float> y = x;
  y(4, 1) = std::nanf("");
  refusal([&] { fit_semantic_ids(y, {.clusters = 2}); }, fit, "rows: got row 4");
  const auto good = fit_semantic_ids(x, {.levels = 2, .clusters = 3});
  const char* const encode = "retrieval::encode_semantic_ids";
  refusal([&] { encode_semantic_ids(good.codebooks, y); }, encode, "rows: got row 4");
  refusal([&] { encode_semantic_ids(good.codebooks, RowMatrix<float>(2, 3)); }, encode, "rows");
  refusal([&] { encode_semantic_ids(std::vector<RowMatrix<float>>{}, x); }, encode, "codebooks");
  auto books = good.codebooks;
  books[1].resize(3, 5);
  books[1].setZero();
  refusal([&] { encode_semantic_ids(books, x); }, encode, "codebooks");
  books[1].resize(0, 4);
  refusal([&] { encode_semantic_ids(books, x); }, encode, "codebooks");
  books[1] = RowMatrix<float>::Constant(1, 4, std::nanf(""));
  refusal([&] { encode_semantic_ids(books, x); }, encode, "codebooks");
  const char* const decode = "retrieval::decode_semantic_ids";
  RowMatrix<float> out = RowMatrix<float>::Constant(9, 4, 7), few = out.topRows(8);
  const auto refuse = [&](const SemanticIds& ids, const char* argument) {
    refuses_and_leaves_alone([&] { decode_semantic_ids(good.codebooks, ids, out); }, decode,
                             argument, out);
  };
  SemanticIds ids = good.ids;
  ids.tokens[3] = 3;
  refuse(ids, "ids");
  ids.tokens[3] = -1;
  refuse(ids, "tokens");
  ids.tokens.pop_back();
  refuse(ids, "tokens");
  refuse(SemanticIds{good.ids.tokens, 0}, "levels");
  refuse(SemanticIds{good.ids.tokens, 1}, "ids");
  refuses_and_leaves_alone([&] { decode_semantic_ids(good.codebooks, good.ids, few); }, decode,
                           "rows", few);
  auto own = good.codebooks;
  refuses_and_leaves_alone(
      [&] { decode_semantic_ids(own, SemanticIds{{0, 0, 1, 1, 2, 2}, 2}, own[1]); }, decode, "rows",
      own[1]);
  refusal([&] { collisions(SemanticIds{{1, 2, 3}, 2}); }, "retrieval::collisions", "tokens");
  refusal([&] { collisions(SemanticIds{{1}, 0}); }, "retrieval::collisions", "levels");
}

}  // namespace
}  // namespace retrieval_semantic_ids_test
