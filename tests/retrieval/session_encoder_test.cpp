// SPDX-License-Identifier: Apache-2.0
// Sessions through a transformer against plain loops in double, alone and among others, refusals.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/retrieval/items/session_encoder.hpp>
#include <pare/retrieval/projection.hpp>
#include <pare/routing/feed_forward.hpp>
#include <pare/transformer/dense_linear.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace retrieval_session_encoder_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::retrieval::EncoderBlock;
using pare::retrieval::SessionEncoder;
using pare::retrieval::SessionEncoderOptions;
using pare::testing::equal_bits;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::transformer::DenseLinear;
using Wide = RowMatrix<double>;

/// Weights of a block, in double.
struct Weights {
  Wide query, key, value, output, up, down;
  std::vector<double> gain, bias, forward_gain, forward_bias;

  Weights(Index dim, unsigned seed)
      : query(random_matrix<Wide>(dim, dim, seed)),
        key(random_matrix<Wide>(dim, dim, seed + 1)),
        value(random_matrix<Wide>(dim, dim, seed + 2)),
        output(random_matrix<Wide>(dim, dim, seed + 3)),
        up(random_matrix<Wide>(2 * dim, dim, seed + 4)),
        down(random_matrix<Wide>(dim, 2 * dim, seed + 5)) {
    for (Index c = 0; c < dim; ++c) {
      gain.push_back(1 + .01 * static_cast<double>(c));
      bias.push_back(.02 * static_cast<double>(c));
      forward_gain.push_back(1 - .01 * static_cast<double>(c));
      forward_bias.push_back(-.02 * static_cast<double>(c));
    }
  }
};

template <class T>
using Block = EncoderBlock<DenseLinear<T>,
                           pare::routing::FeedForward<DenseLinear<T>, pare::transformer::Relu>>;

template <class T>
Block<T> block_of(const Weights& w) {
  using Layer = DenseLinear<T>;
  const auto list = [](const std::vector<double>& from) {
    return std::vector<T>(from.begin(), from.end());
  };
  return {Layer::copy_of(w.query),
          Layer::copy_of(w.key),
          Layer::copy_of(w.value),
          Layer::copy_of(w.output),
          {Layer::copy_of(w.up), Layer::copy_of(w.down)},
          list(w.gain),
          list(w.bias),
          list(w.forward_gain),
          list(w.forward_bias)};
}

template <class T>
SessionEncoder<Block<T>> encoder_of(Index dim, Index blocks, Index heads,
                                    std::optional<RowMatrix<T>> positions = {}) {
  std::vector<Block<T>> list;
  for (Index b = 0; b < blocks; ++b)
    list.push_back(block_of<T>(Weights(dim, static_cast<unsigned>(10 * b + 1))));
  return SessionEncoder<Block<T>>(dim, std::move(list), {.heads = heads}, std::move(positions));
}

/// y = x w^T.
Wide times(const Wide& x, const Wide& w) {
  Wide y = Wide::Zero(x.rows(), w.rows());
  for (Index r = 0; r < x.rows(); ++r)
    for (Index o = 0; o < w.rows(); ++o)
      for (Index c = 0; c < x.cols(); ++c) y(r, o) += x(r, c) * w(o, c);
  return y;
}

Wide normed(const Wide& x, const std::vector<double>& gain, const std::vector<double>& bias) {
  Wide y(x.rows(), x.cols());
  for (Index r = 0; r < x.rows(); ++r) {
    const double mean = x.row(r).mean(), variance = (x.row(r).array() - mean).square().mean();
    for (Index c = 0; c < x.cols(); ++c) {
      const auto at = static_cast<std::size_t>(c);
      y(r, c) = (x(r, c) - mean) / std::sqrt(variance + 1e-5) * gain[at] + bias[at];
    }
  }
  return y;
}

Wide attended(const Wide& q, const Wide& k, const Wide& v, Index heads) {
  const Index dim = q.cols() / heads;
  Wide out = Wide::Zero(q.rows(), q.cols());
  for (Index h = 0; h < heads; ++h)
    for (Index i = 0; i < q.rows(); ++i) {
      double sum = 0;
      for (Index j = 0; j < k.rows(); ++j) {
        double score = 0;
        for (Index c = h * dim; c < (h + 1) * dim; ++c) score += q(i, c) * k(j, c);
        const double weight = std::exp(score / std::sqrt(static_cast<double>(dim)));
        sum += weight;
        for (Index c = h * dim; c < (h + 1) * dim; ++c) out(i, c) += weight * v(j, c);
      }
      for (Index c = h * dim; c < (h + 1) * dim; ++c) out(i, c) /= sum;
    }
  return out;
}

/// One session by plain loops.
Wide plain_session(Wide x, Index blocks, Index heads) {
  for (Index b = 0; b < blocks; ++b) {
    const Weights w(x.cols(), static_cast<unsigned>(10 * b + 1));
    const Wide mixed = attended(times(x, w.query), times(x, w.key), times(x, w.value), heads);
    x = normed(x + times(mixed, w.output), w.gain, w.bias);
    x = normed(x + times(times(x, w.up).cwiseMax(0), w.down), w.forward_gain, w.forward_bias);
  }
  return x.colwise().mean();
}

/// Sessions of 1 to 70 items: less and more than layers take as few rows.
std::vector<Index> some_offsets() { return {0, 1, 4, 74, 75, 91}; }

template <class T, class B>
void expect_sessions(const B& backend, Index dim, Index blocks, Index heads, double bound) {
  const std::vector<Index> offsets = some_offsets();
  const auto rows = random_matrix<RowMatrix<T>>(offsets.back(), dim, 5);
  const auto encoder = encoder_of<T>(dim, blocks, heads);
  RowMatrix<T> sessions(5, dim);
  encoder.encode(backend, rows, offsets, sessions);
  for (std::size_t s = 0; s < 5; ++s) {
    const Wide wanted = plain_session(
        rows.middleRows(offsets[s], offsets[s + 1] - offsets[s]).template cast<double>(), blocks,
        heads);
    for (Index c = 0; c < dim; ++c)
      ASSERT_NEAR(static_cast<double>(sessions(static_cast<Index>(s), c)), wanted(0, c), bound)
          << s << ' ' << c;
  }
}

/// In double, sums of up to 2 dim products of numbers below 10: some 1e-13. Float is 5e8 times as
/// coarse.
TEST(SessionEncoder, IsTheTransformerOfPlainLoopsAndItsMean) {
  expect_sessions<double>(pare::simd, 8, 2, 2, 1e-11);
  expect_sessions<double>(pare::reference, 6, 1, 3, 1e-11);
  expect_sessions<float>(pare::simd.threads(2), 12, 1, 2, 1e-4);
  expect_sessions<float>(pare::simd, 5, 0, 1, 1e-6);
  expect_sessions<float>(pare::reference, 5, 0, 1, 1e-6);
}

/// Ragged sessions need no padding: alone, first or last of a batch, a session has its bits.
template <class T>
void expect_same_alone(Index dim, Index heads) {
  const std::vector<Index> offsets = some_offsets();
  const auto rows = random_matrix<RowMatrix<T>>(offsets.back(), dim, 5);
  const auto encoder = encoder_of<T>(dim, 2, heads);
  RowMatrix<T> together(5, dim);
  encoder.encode(rows, offsets, together);
  for (std::size_t s = 0; s < 5; ++s) {
    const Index length = offsets[s + 1] - offsets[s];
    const RowMatrix<T> own = rows.middleRows(offsets[s], length);
    RowMatrix<T> alone(1, dim);
    encoder.encode(own, std::vector<Index>{0, length}, alone);
    EXPECT_TRUE(equal_bits(alone, RowMatrix<T>(together.row(static_cast<Index>(s))))) << s;
  }
}

TEST(SessionEncoder, ASessionHasTheSameBitsAloneAndAmongOthers) {
  expect_same_alone<float>(32, 4);
  expect_same_alone<float>(33, 1);
  expect_same_alone<double>(12, 2);
}

TEST(SessionEncoder, ItemsInAnotherOrderAreTheSameSessionUnlessThereArePositions) {
  const auto rows = random_matrix<Wide>(9, 8, 5), places = random_matrix<Wide>(9, 8, 6);
  const Wide turned = rows.colwise().reverse();
  const std::vector<Index> offsets{0, 9};
  const auto without = encoder_of<double>(8, 1, 2), with = encoder_of<double>(8, 1, 2, places);
  Wide a(1, 8), b(1, 8);
  without.encode(rows, offsets, a);
  without.encode(turned, offsets, b);
  EXPECT_LT((a - b).norm(), 1e-13);
  with.encode(turned, offsets, b);
  EXPECT_GT((a - b).norm(), 1e-3);
  with.encode(rows, offsets, a);
  EXPECT_GT((a - b).norm(), 1e-3);
  // Of two sessions each begins with the first position.
  Wide moved(15, 8), sessions(2, 8), added(1, 8);
  moved.topRows(6) = rows.topRows(6);
  moved.bottomRows(9) = rows;
  with.encode(moved, std::vector<Index>{0, 6, 15}, sessions);
  without.encode(Wide(rows + places), offsets, added);
  EXPECT_LT((sessions.row(1) - added).norm(), 1e-13);
}

TEST(SessionEncoder, SameBitsForAnyThreadsAndAllocatesNothingTheSecondTime) {
  const std::vector<Index> offsets = some_offsets();
  const auto rows = random_matrix<RowMatrix<float>>(offsets.back(), 16, 5);
  const auto encoder = encoder_of<float>(16, 2, 2);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    RowMatrix<float> sessions(5, 16);
    encoder.encode(backend, rows, offsets, sessions);
    return sessions;
  });
  pare::testing::any_stride_same_bits(rows, [&](const auto& view) {
    RowMatrix<float> sessions(5, 16);
    encoder.encode(view, offsets, sessions);
    return sessions;
  });
  pare::Workspace workspace;
  RowMatrix<float> sessions(5, 16);
  long before = 0;
  for (int turn = 0; turn < 3; ++turn) {
    before = pare::testing::allocations;
    encoder.encode(pare::simd.with(workspace), rows, offsets, sessions);
  }
  EXPECT_EQ(pare::testing::allocations, before);
}

TEST(SessionEncoder, NaNStaysInItsSession) {
  const std::vector<Index> offsets = some_offsets();
  auto rows = random_matrix<RowMatrix<float>>(offsets.back(), 16, 5);
  rows(80, 3) = std::numeric_limits<float>::quiet_NaN();
  RowMatrix<float> sessions(5, 16), clean(5, 16);
  const auto encoder = encoder_of<float>(16, 1, 2);
  encoder.encode(rows, offsets, sessions);
  for (Index s = 0; s < 5; ++s)
    for (Index c = 0; c < 16; ++c) EXPECT_EQ(pare::is_nan(sessions(s, c)), s == 4) << s << ' ' << c;
}

TEST(SessionEncoder, RefusesSessionsThatDoNotFit) {
  const auto rows = random_matrix<RowMatrix<float>>(9, 8, 5);
  RowMatrix<float> sessions = RowMatrix<float>::Ones(2, 8);
  const auto encoder = encoder_of<float>(8, 1, 2, RowMatrix<float>(RowMatrix<float>::Ones(6, 8)));
  const auto refused = [&](const auto& x, const std::vector<Index>& offsets, auto&& to,
                           const char* argument) {
    refuses_and_leaves_alone([&] { encoder.encode(x, offsets, to); },
                             "retrieval::SessionEncoder::encode", argument, sessions);
  };
  refused(rows.leftCols(7), {0, 4, 9}, sessions, "rows");
  refused(rows, {}, sessions, "offsets");
  refused(rows, {0, 4, 8}, sessions, "offsets");
  refused(rows, {1, 4, 9}, sessions, "offsets");
  refused(rows, {0, 4, 4, 9}, sessions, "offsets");
  refused(rows, {0, 0, 4, 9}, sessions, "offsets");
  refused(rows, {0, 7, 9}, sessions, "offsets");  // more than there are positions
  refused(rows, {0, 4, 9}, sessions.leftCols(7), "sessions");
  refused(rows, {0, 4, 9}, sessions.topRows(1), "sessions");
  Eigen::MatrixXf by_columns(2, 8);
  refused(rows, {0, 4, 9}, by_columns, "sessions");
  RowMatrix<float> square = random_matrix<RowMatrix<float>>(9, 8, 5);
  refuses_and_leaves_alone(
      [&] { encoder.encode(square, std::vector<Index>{0, 4, 9}, square.topRows(2)); },
      "retrieval::SessionEncoder::encode", "sessions", square);
  encoder.encode(rows.topRows(0), std::vector<Index>{0}, sessions.topRows(0));
}

TEST(SessionEncoder, RefusesBlocksThatDoNotFit) {
  const auto make = [](Index dim, const SessionEncoderOptions& options,
                       std::optional<RowMatrix<float>> positions, const auto& spoil) {
    std::vector<Block<float>> blocks;
    blocks.push_back(block_of<float>(Weights(8, 1)));
    spoil(blocks[0]);
    return SessionEncoder<Block<float>>(dim, std::move(blocks), options, std::move(positions));
  };
  const auto leave = [](Block<float>&) {};
  const char* const f = "retrieval::SessionEncoder";
  refusal([&] { make(0, {}, {}, leave); }, f, "dim");
  refusal([&] { make(7, {}, {}, leave); }, f, "blocks");
  refusal([&] { make(8, {.heads = 3}, {}, leave); }, f, "heads");
  refusal([&] { make(8, {.heads = 0}, {}, leave); }, f, "heads");
  for (const double bad : {0., -1., std::nan(""), std::numeric_limits<double>::infinity()})
    refusal([&] { make(8, {.epsilon = bad}, {}, leave); }, f, "epsilon");
  refusal([&] { make(8, {}, RowMatrix<float>(3, 7), leave); }, f, "positions");
  refusal([&] { make(8, {}, {}, [](Block<float>& b) { b.forward_bias.pop_back(); }); }, f,
          "blocks");
  refusal([&] { make(8, {}, {}, [](Block<float>& b) { b.value = DenseLinear<float>(8, 9); }); }, f,
          "blocks");
}

}  // namespace
}  // namespace retrieval_session_encoder_test
