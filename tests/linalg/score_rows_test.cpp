// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/linalg/score_rows.hpp>

#include "support/backends.hpp"
#include "support/tolerance.hpp"

namespace linalg_score_rows_test {
namespace {

using pare::bf16;
using pare::compute_t;
using pare::Index;
using pare::TensorView;
using pare::testing::BackendAndScalar;
using pare::testing::BestBackend;
using pare::testing::ReferenceBackend;
namespace linalg = pare::linalg;

template <class Case>
struct ScoreRowsTest : testing::Test {};
using Cases =
    testing::Types<BackendAndScalar<ReferenceBackend, float>, BackendAndScalar<BestBackend, float>,
                   BackendAndScalar<BestBackend, double>, BackendAndScalar<BestBackend, bf16>>;
TYPED_TEST_SUITE(ScoreRowsTest, Cases);

/// Rows with a stride. Small integers: every product and sum of them is exact, in any order.
template <class S>
struct Rows {
  Index rows, dim, stride;
  std::vector<S> values;

  Rows(Index count, Index width, int seed)
      : rows(count),
        dim(width),
        stride(width + 3),
        values(static_cast<std::size_t>(count * stride), S(1000.0f)) {
    for (Index i = 0; i < rows; ++i)
      for (Index c = 0; c < dim; ++c)
        (*this)(i, c) = S(static_cast<float>((i * 7 + c * 3 + i * c % 5 + seed) % 9 - 4));
  }
  S& operator()(Index i, Index c) { return values[static_cast<std::size_t>(i * stride + c)]; }
  double at(Index i, Index c) const {
    const S x = values[static_cast<std::size_t>(i * stride + c)];
    return static_cast<double>(static_cast<compute_t<S>>(x));
  }
  TensorView<const S, 2> view() const { return {values.data(), {rows, dim}, {stride, 1}}; }
};

constexpr double scale = 0.25;

/// The definition, once more: every score.
template <class S>
std::vector<std::vector<double>> all_scores(const Rows<S>& q, const Rows<S>& k) {
  std::vector<std::vector<double>> scores(static_cast<std::size_t>(q.rows));
  for (Index i = 0; i < q.rows; ++i)
    for (Index j = 0; j < k.rows; ++j) {
      double sum = 0;
      for (Index c = 0; c < q.dim; ++c) sum += q.at(i, c) * k.at(j, c);
      scores[static_cast<std::size_t>(i)].push_back(scale * sum);
    }
  return scores;
}

template <class Case, class S, class R>
void reduce(const Rows<S>& q, const Rows<S>& k, R& reducer) {
  linalg::score_rows(Case::backend::make(), q.view(), k.view(), static_cast<compute_t<S>>(scale),
                     reducer);
}

/// Rows around a group of the product and a tile of rows, keys around registers and a tile of keys.
template <class F>
void for_each_size(const F& f) {
  for (const Index rows : {1, 5, 47, 48, 49, 101})
    for (const Index keys : {1, 15, 127, 128, 129, 300})
      for (const Index dim : {1, 6, 33}) {
        SCOPED_TRACE(std::to_string(rows) + " rows, " + std::to_string(keys) + " keys, " +
                     std::to_string(dim));
        f(rows, keys, dim);
      }
}

TYPED_TEST(ScoreRowsTest, MaximaAndSumsAreThoseOfAllScores) {
  using S = typename TypeParam::scalar;
  for_each_size([](Index rows, Index keys, Index dim) {
    const Rows<S> q(rows, dim, 1), k(keys, dim, 2);
    linalg::RowMaxima<compute_t<S>> maxima(rows);
    linalg::RowArgmax<compute_t<S>> keys_of(rows);
    linalg::RowSums<compute_t<S>> sums(rows);
    reduce<TypeParam>(q, k, maxima);
    reduce<TypeParam>(q, k, keys_of);
    reduce<TypeParam>(q, k, sums);
    const auto scores = all_scores(q, k);
    for (Index i = 0; i < rows; ++i) {
      const auto& row = scores[static_cast<std::size_t>(i)];
      double sum = 0;
      for (const double s : row) sum += s;
      ASSERT_EQ(maxima[i], *std::max_element(row.begin(), row.end()));
      ASSERT_EQ(keys_of.maximum(i), maxima[i]);
      ASSERT_EQ(keys_of.key(i), std::max_element(row.begin(), row.end()) - row.begin());
      ASSERT_EQ(sums[i], sum);
    }
  });
}

TYPED_TEST(ScoreRowsTest, TopKIsTheFrontOfTheSortedScores) {
  using S = typename TypeParam::scalar;
  for_each_size([](Index rows, Index keys, Index dim) {
    const Rows<S> q(rows, dim, 1), k(keys, dim, 2);
    for (const Index wanted : {1, 8, 200}) {
      linalg::RowTopK<compute_t<S>> best(rows, wanted);
      reduce<TypeParam>(q, k, best);
      const auto scores = all_scores(q, k);
      for (Index i = 0; i < rows; ++i) {
        const auto& row = scores[static_cast<std::size_t>(i)];
        std::vector<Index> order(row.size());
        for (std::size_t j = 0; j < order.size(); ++j) order[j] = static_cast<Index>(j);
        std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
          return row[static_cast<std::size_t>(a)] > row[static_cast<std::size_t>(b)];
        });
        const auto got = best.of(i);
        ASSERT_EQ(static_cast<Index>(got.size()), std::min(wanted, keys));
        for (std::size_t t = 0; t < got.size(); ++t) {
          ASSERT_EQ(got[t].key(), order[t]) << i << ", rank " << t;
          ASSERT_EQ(got[t].score, row[static_cast<std::size_t>(order[t])]);
        }
      }
    }
  });
}

/// log sum e^s of the first `end` scores.
double log_sum_exp(const std::vector<double>& scores, Index end) {
  double largest = -std::numeric_limits<double>::infinity(), sum = 0;
  for (Index j = 0; j < end; ++j) largest = std::max(largest, scores[static_cast<std::size_t>(j)]);
  for (Index j = 0; j < end; ++j) sum += std::exp(scores[static_cast<std::size_t>(j)] - largest);
  return end > 0 ? largest + std::log(sum) : largest;
}

TYPED_TEST(ScoreRowsTest, SoftmaxOfLimitedRowsIsThatOfTheKeysTheySee) {
  using S = typename TypeParam::scalar;
  using T = compute_t<S>;
  for_each_size([](Index rows, Index keys, Index dim) {
    const Rows<S> q(rows, dim, 1), k(keys, dim, 2);
    std::vector<Index> ends;
    for (Index i = 0; i < rows; ++i) ends.push_back(std::min(keys, i * 3));
    linalg::OnlineSoftmax<T> all(rows), some(rows);
    linalg::LimitRows limited(ends, some);
    reduce<TypeParam>(q, k, all);
    reduce<TypeParam>(q, k, limited);
    const auto scores = all_scores(q, k);
    // Exponents are rounded as products of scores of at most 4 dim, weights within 8 u of their
    // own, a tile's sum as often as it has terms; the sum is at least 1, so the logarithm adds no
    // error.
    using Error = pare::testing::Tolerance<T>;
    const double bound =
        Error::unit_roundoff * (8.0 + 3 * 4.0 * static_cast<double>(dim)) + Error::gamma(128.0 + 2);
    for (Index i = 0; i < rows; ++i) {
      const auto& row = scores[static_cast<std::size_t>(i)];
      const Index end = ends[static_cast<std::size_t>(i)];
      ASSERT_NEAR(all.log_sum_exp(i), log_sum_exp(row, keys), bound) << i;
      if (end == 0)
        ASSERT_EQ(some.log_sum_exp(i), -std::numeric_limits<double>::infinity()) << i;
      else
        ASSERT_NEAR(some.log_sum_exp(i), log_sum_exp(row, end), bound) << i;
    }
  });
}

/// A user's reducer with all that one may have: it keeps the scores of the tiles that it sees.
template <class T>
struct Keep {
  Index keys, seen_from;
  std::vector<T> scores;  ///< [tiles of keys, rows, tile_keys]
  Index rows;
  std::vector<int> visits;

  Keep(Index row_count, Index key_count, Index first)
      : keys(key_count),
        seen_from(first),
        scores(static_cast<std::size_t>((key_count + 127) / 128 * row_count * 128)),
        rows(row_count),
        visits(static_cast<std::size_t>(row_count * key_count)) {}

  bool sees(Index, Index, Index key, Index count) const { return key + count > seen_from; }
  T* room(Index row, Index key) {
    return scores.data() + (key / 128 * rows + row) * pare::kernel::tile_keys;
  }
  void add(const auto&, const linalg::TileOfScores<T>& tile) {
    EXPECT_EQ(tile.scores, room(tile.row, tile.key));
    for (Index r = 0; r < tile.rows; ++r)
      for (Index j = 0; j < tile.keys; ++j)
        ++visits[static_cast<std::size_t>((tile.row + r) * keys + tile.key + j)];
  }
};

TEST(ScoreRows, GivesEachScoreOnceAndWritesItWhereTheReducerKeepsIt) {
  const Index rows = 101, keys = 300, first = 130;
  const Rows<float> q(rows, 6, 1), k(keys, 6, 2);
  Keep<float> keep(rows, keys, first);
  linalg::score_rows(pare::simd, q.view(), k.view(), float(scale), keep);
  const auto scores = all_scores(q, k);
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < keys; ++j) {
      const bool seen = j >= 128;  // the first tile ends before `first`
      ASSERT_EQ(keep.visits[static_cast<std::size_t>(i * keys + j)], seen ? 1 : 0);
      if (seen) {
        ASSERT_EQ(keep.room(i, j)[j % 128],
                  scores[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)]);
      }
    }
}

/// Numbers whose products are rounded.
template <class S>
void make_uneven(Rows<S>& m) {
  for (Index i = 0; i < m.rows; ++i)
    for (Index c = 0; c < m.dim; ++c)
      m(i, c) = S(std::sin(static_cast<float>(i) * 12.9f + static_cast<float>(c) * 78.2f));
}

TYPED_TEST(ScoreRowsTest, ARowHasTheSameBitsWhateverRowsComeWithIt) {
  using S = typename TypeParam::scalar;
  using T = compute_t<S>;
  Rows<S> q(77, 33, 1), k(200, 33, 2);
  make_uneven(q);
  make_uneven(k);
  linalg::OnlineSoftmax<T> together(q.rows);
  reduce<TypeParam>(q, k, together);
  for (const Index i : {0, 47, 48, 76}) {
    linalg::OnlineSoftmax<T> alone(1);
    linalg::score_rows(TypeParam::backend::make(),
                       TensorView<const S, 2>{&q(i, 0), {1, q.dim}, {q.stride, 1}}, k.view(),
                       static_cast<T>(scale), alone);
    EXPECT_EQ(alone.maximum(0), together.maximum(i));
    EXPECT_EQ(alone.sum(0), together.sum(i));
  }
}

/// Those are used where they lie, the others are packed.
TYPED_TEST(ScoreRowsTest, RowsThatFollowOneAnotherHaveTheBitsOfThoseApart) {
  using S = typename TypeParam::scalar;
  using T = compute_t<S>;
  Rows<S> q(77, 33, 1), k(200, 33, 2);
  make_uneven(q);
  make_uneven(k);
  std::vector<S> compact;
  for (Index i = 0; i < q.rows; ++i) compact.insert(compact.end(), &q(i, 0), &q(i, 0) + q.dim);
  linalg::OnlineSoftmax<T> apart(q.rows), close(q.rows);
  reduce<TypeParam>(q, k, apart);
  linalg::score_rows(TypeParam::backend::make(),
                     TensorView<const S, 2>{compact.data(), {q.rows, q.dim}, {q.dim, 1}}, k.view(),
                     static_cast<T>(scale), close);
  for (Index i = 0; i < q.rows; ++i) {
    EXPECT_EQ(close.maximum(i), apart.maximum(i));
    EXPECT_EQ(close.sum(i), apart.sum(i));
  }
}

TYPED_TEST(ScoreRowsTest, TheKeyOfTheMaximumIsFoundInAnyTile) {
  using S = typename TypeParam::scalar;
  for (const Index key : {0, 127, 128, 257, 299}) {
    Rows<S> q(50, 6, 1), k(300, 6, 2);
    for (Index i = 0; i < q.rows; ++i) q(i, 0) = S(4.0f);
    k(key, 0) = S(100.0f);  // 400 and at most 80 off; others are at most 96
    linalg::RowArgmax<compute_t<S>> best(q.rows);
    reduce<TypeParam>(q, k, best);
    for (Index i = 0; i < q.rows; ++i) EXPECT_EQ(best.key(i), key) << i;
  }
}

TYPED_TEST(ScoreRowsTest, ANaNStaysInItsRow) {
  using S = typename TypeParam::scalar;
  using T = compute_t<S>;
  Rows<S> q(50, 6, 1), k(140, 6, 2);
  q(49, 2) = S(std::numeric_limits<float>::quiet_NaN());
  linalg::RowMaxima<T> maxima(q.rows);
  linalg::OnlineSoftmax<T> softmax(q.rows);
  linalg::RowTopK<T> best(q.rows, 3);
  linalg::RowArgmax<T> argmax(q.rows);
  reduce<TypeParam>(q, k, maxima);
  reduce<TypeParam>(q, k, softmax);
  reduce<TypeParam>(q, k, argmax);
  reduce<TypeParam>(q, k, best);
  for (Index i = 0; i < q.rows; ++i) {
    EXPECT_EQ(std::isnan(maxima[i]), i == 49) << i;
    EXPECT_EQ(std::isnan(softmax.log_sum_exp(i)), i == 49) << i;
    EXPECT_EQ(argmax.key(i) < 0, i == 49) << i;
  }
  EXPECT_EQ(best.of(49).front().key(), 0);
}

TYPED_TEST(ScoreRowsTest, WithoutRowsOrKeysThereIsNoTile) {
  using S = typename TypeParam::scalar;
  linalg::OnlineSoftmax<compute_t<S>> softmax(3);
  reduce<TypeParam>(Rows<S>(3, 4, 1), Rows<S>(0, 4, 2), softmax);
  reduce<TypeParam>(Rows<S>(0, 4, 1), Rows<S>(5, 4, 2), softmax);
  EXPECT_EQ(softmax.log_sum_exp(2), -std::numeric_limits<double>::infinity());
}

TEST(ScoreRows, RefusesWhatDoesNotFit) {
  const Rows<float> q(3, 4, 1), other(5, 6, 2);
  linalg::RowSums<float> sums(3);
  const auto message = [&](TensorView<const float, 2> a, TensorView<const float, 2> b) {
    try {
      linalg::score_rows(pare::reference, a, b, 1.0f, sums);
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message(q.view(), other.view()).find("pare::linalg::score_rows: k: got"), 0u);
  EXPECT_EQ(message({q.values.data(), {3, 0}, {4, 1}}, {q.values.data(), {3, 0}, {4, 1}})
                .find("pare::linalg::score_rows: q: got"),
            0u);
  EXPECT_EQ(message({q.values.data(), {3, 2}, {4, 2}}, {q.values.data(), {3, 2}, {4, 1}})
                .find("pare::linalg::score_rows: q: got"),
            0u);
  EXPECT_EQ(sums[0], 0);
  EXPECT_THROW(linalg::RowTopK<float>(3, 0), std::invalid_argument);
}

}  // namespace
}  // namespace linalg_score_rows_test
