// SPDX-License-Identifier: Apache-2.0
// Which entries 2:4 pruning keeps, by each score and a score of one's own.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include <pare/factor/structured/select_two_four.hpp>

#include "factor/data.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace factor_structured_select_two_four_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using pare::Index;
using pare::RowMatrix;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

/// Extents with a short last word, a single group, and several items of rows.
constexpr std::array<std::pair<Index, Index>, 4> shapes{{{3, 4}, {5, 20}, {37, 72}, {70, 160}}};

std::vector<double> moments(Index inputs) {
  const Eigen::VectorXd h = positive_weights(inputs, 5);
  return {h.begin(), h.end()};
}

/// The two columns of a group with the largest scores, by sorting all four.
template <class Score>
std::vector<bool> kept_by(Index inputs, const Score& score) {
  std::vector<bool> kept(static_cast<std::size_t>(inputs));
  for (Index g = 0; g < inputs; g += 4) {
    std::array<Index, 4> columns{g, g + 1, g + 2, g + 3};
    std::stable_sort(columns.begin(), columns.end(),
                     [&](Index a, Index b) { return score(a) > score(b); });
    kept[static_cast<std::size_t>(columns[0])] = kept[static_cast<std::size_t>(columns[1])] = true;
  }
  return kept;
}

/// Every entry is w's own where score(i, j) says that it stays, and 0 elsewhere.
template <class S, class Score>
void expect_kept(const TwoFour<S>& core, const RowMatrix<S>& w, const Score& score) {
  RowMatrix<S> dense(w.rows(), w.cols());
  core.to_dense(dense);
  for (Index i = 0; i < w.rows(); ++i) {
    const auto kept = kept_by(w.cols(), [&](Index j) { return score(i, j); });
    for (Index j = 0; j < w.cols(); ++j) {
      const bool stays = kept[static_cast<std::size_t>(j)];
      ASSERT_EQ(core.mask().keeps(i, j), stays) << i << ' ' << j;
      ASSERT_TRUE(same_bits(dense(i, j), stays ? w(i, j) : S{})) << i << ' ' << j;
    }
  }
}

/// Normalised norms in double (NoWag).
Eigen::VectorXd column_norms(const MatrixXd& w) {
  return (w.colwise().norm().array() + 1e-5).transpose();
}

template <class Case>
struct SelectTwoFour : ::testing::Test {
  static auto backend() { return Case::backend::make(); }
  using Scalar = typename Case::scalar;
};
TYPED_TEST_SUITE(SelectTwoFour, BackendsAndScalars);

TYPED_TEST(SelectTwoFour, KeepsTheTwoLargestOfEachFour) {
  using S = typename TestFixture::Scalar;
  for (const auto& [out, in] : shapes) {
    const auto w = random_matrix<RowMatrix<S>>(out, in, 1);
    const MatrixXd wide = values_of(w);
    const std::vector<double> h = moments(in);
    const auto weighed = [&, &wide = wide](Index i, Index j) {
      return std::abs(wide(i, j)) * std::sqrt(h[static_cast<std::size_t>(j)]);
    };
    const Eigen::VectorXd norms = column_norms(wide);
    const auto backend = TestFixture::backend();
    expect_kept(two_four(backend, w, Magnitude{}), w,
                [&](Index i, Index j) { return std::abs(wide(i, j)); });
    expect_kept(two_four(backend, w, Wanda(h)), w, weighed);
    expect_kept(two_four(backend, w, NowagP(h)), w,
                [&](Index i, Index j) { return weighed(i, j) / norms(j); });
  }
}

/// Prefers the last inputs, whatever they are.
struct Last {
  double score(Index, Index input, double) const { return static_cast<double>(input); }
};

TYPED_TEST(SelectTwoFour, TakesScoresOfOnesOwn) {
  using S = typename TestFixture::Scalar;
  const auto w = random_matrix<RowMatrix<S>>(9, 24, 2);
  expect_kept(two_four(TestFixture::backend(), w, Last{}), w,
              [](Index, Index j) { return static_cast<double>(j); });
}

TYPED_TEST(SelectTwoFour, KeepsTheLowerColumnsOfEqualOnes) {
  using S = typename TestFixture::Scalar;
  // Integers of few values: most groups hold a tie.
  RowMatrix<S> w = integer_matrix<RowMatrix<S>>(33, 96, 3);
  for (Index i = 0; i < w.size(); ++i) w.data()[i] = static_cast<S>(std::fmod(w.data()[i], S(3)));
  const std::vector<double> ones(96, 2.5);
  for (const auto& core : {two_four(TestFixture::backend(), w, Magnitude{}),
                           two_four(TestFixture::backend(), w, ones)})
    expect_kept(core, w, [&](Index i, Index j) { return std::abs(static_cast<double>(w(i, j))); });
}

TYPED_TEST(SelectTwoFour, GivesTheSameBitsForAnyStride) {
  using S = typename TestFixture::Scalar;
  const auto w = random_matrix<RowMatrix<S>>(21, 40, 4);
  any_stride_same_bits(w, [&](const auto& view) {
    RowMatrix<S> dense(21, 40);
    two_four(TestFixture::backend(), view, NowagP(moments(40))).to_dense(dense);
    return dense;
  });
}

TEST(SelectTwoFourOnThreads, GivesTheSameBits) {
  const auto w = random_matrix<RowMatrix<float>>(301, 64, 4);
  same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    RowMatrix<float> dense(301, 64);
    two_four(backend, w, NowagP(moments(64))).to_dense(dense);
    return dense;
  });
}

/// From 8 MiB on a result is written past the caches: each row is as it is of fewer rows.
TEST(SelectTwoFourOfManyBytes, IsThatOfItsRows) {
  const Index out = 1031, in = 4092;
  const auto w = random_matrix<RowMatrix<float>>(out, in, 4);
  const auto all = two_four(w, Magnitude{});
  EXPECT_GE(all.bytes(), pare::kernel::streamed_bytes);
  for (Index begin = 0; begin < out; begin += 500) {
    const Index rows = std::min<Index>(500, out - begin);
    const auto part = two_four(RowMatrix<float>(w.middleRows(begin, rows)), Magnitude{});
    EXPECT_LT(part.bytes(), pare::kernel::streamed_bytes);
    for (Index i = 0; i < rows; ++i) {
      EXPECT_EQ(std::memcmp(&part.values()(i, 0), &all.values()(begin + i, 0),
                            sizeof(float) * static_cast<std::size_t>(all.row_values())),
                0);
      for (Index word = 0; word < all.mask().row_words(); ++word)
        ASSERT_EQ(part.mask().words()(i, word), all.mask().words()(begin + i, word));
    }
  }
}

TEST(SelectTwoFourOfSixteenBits, KeepsValuesOfTheWeight) {
  const auto w = stored_in<pare::bf16>(random_matrix<MatrixXd>(19, 52, 5));
  const std::vector<double> h = moments(52);
  for (const auto& core : {two_four(w, h), two_four(pare::reference, w, h)})
    expect_kept(core, w, [&](Index i, Index j) {
      return std::abs(static_cast<double>(static_cast<float>(w(i, j)))) *
             std::sqrt(h[static_cast<std::size_t>(j)]);
    });
}

TEST(SelectTwoFourMemory, IsUsedAgain) {
  const auto w = random_matrix<RowMatrix<float>>(16, 32, 6);
  auto core = two_four(w, Magnitude{});
  const float* const memory = core.values().data;
  core = two_four(w, Wanda(moments(32)), std::move(core));
  EXPECT_EQ(core.values().data, memory);
  const auto anew = two_four(w, Wanda(moments(32)));
  EXPECT_TRUE(core.mask() == anew.mask());
  core = two_four(random_matrix<RowMatrix<float>>(8, 32, 6), Magnitude{}, std::move(core));
  EXPECT_EQ(core.outputs(), 8);
  core = two_four(random_matrix<RowMatrix<float>>(8, 36, 6), Magnitude{}, std::move(core));
  EXPECT_EQ(core.inputs(), 36);
}

/// A refused call has taken the memory; what is left is a matrix of no weights.
TEST(SelectTwoFourMemory, OfAMatrixThatWasMovedFromIsNewMemory) {
  const auto w = random_matrix<RowMatrix<float>>(8, 32, 6);
  RowMatrix<float> bad = w;
  bad(3, 5) = std::numeric_limits<float>::quiet_NaN();
  auto core = two_four(w, Magnitude{});
  EXPECT_THROW(two_four(bad, Magnitude{}, std::move(core)), std::invalid_argument);
  core = two_four(w, Magnitude{}, std::move(core));  // NOLINT(bugprone-use-after-move): so it is
  EXPECT_TRUE(core.mask() == two_four(w, Magnitude{}).mask());
}

/// Scores of any scale choose the same, and weights near the ends of float are kept as others are.
TEST(SelectTwoFourScale, DoesNotCount) {
  const auto w = random_matrix<RowMatrix<float>>(20, 32, 7);
  const std::vector<double> h = moments(32);
  for (const double scale : {1e-200, 0x1p-40, 1e200}) {
    std::vector<double> scaled = h;
    for (double& x : scaled) x *= scale;
    EXPECT_TRUE(two_four(w, Wanda(scaled)).mask() == two_four(w, Wanda(h)).mask()) << scale;
  }
  const RowMatrix<float> huge = 0x1p120f * w;
  EXPECT_TRUE(two_four(huge, NowagP(h)).mask() ==
              two_four(pare::reference, huge, NowagP(h)).mask());
}

/// Factors of an input beyond what the scalar of w holds.
struct Factors {
  std::vector<double> of;
  template <class B, class W>
  std::vector<double> input_factors(const B&, const W&) const {
    return of;
  }
};

TEST(SelectTwoFourScale, OfFactorsOfOnesOwnDoesNotCount) {
  const auto w = random_matrix<RowMatrix<float>>(20, 32, 7);
  Factors factors{moments(32)};
  const auto wanted = two_four(w, factors).mask();
  for (double& f : factors.of) f *= 0x1p200;
  EXPECT_TRUE(two_four(w, factors).mask() == wanted);
  EXPECT_TRUE(two_four(pare::reference, w, factors).mask() == wanted);
}

/// Norms of the size of the 1e-5 that is added to them, and one of 0.
TEST(SelectTwoFourScale, OfSmallWeightsCountsWithNowag) {
  RowMatrix<double> w = 1e-5 * random_matrix<RowMatrix<double>>(6, 32, 7);
  for (Index j = 1; j < 32; j += 2) w.col(j) *= 0.2;
  w.col(4).setZero();
  const std::vector<double> h = moments(32);
  const Eigen::VectorXd norms = column_norms(w);
  for (const auto& core : {two_four(w, NowagP(h)), two_four(pare::reference, w, NowagP(h))})
    expect_kept(core, w, [&](Index i, Index j) {
      return std::abs(w(i, j)) * std::sqrt(h[static_cast<std::size_t>(j)]) / norms(j);
    });
}

TEST(SelectTwoFourMoments, ThatSayNothingCountAsTheMean) {
  const auto w = random_matrix<RowMatrix<double>>(6, 8, 8);
  const std::vector<double> given{1, nan, 4, 0, -3, infinity, 1, 2};
  const std::vector<double> meant{1, 2, 4, 2, 2, 2, 1, 2};
  EXPECT_EQ(SecondMoments(given).replaced(), 4);
  EXPECT_TRUE(two_four(w, given).mask() == two_four(w, meant).mask());
  for (std::size_t j = 0; j < 8; ++j)
    EXPECT_EQ(SecondMoments(given)[static_cast<Index>(j)], meant[j]);
}

TEST(SelectTwoFourMoments, AreTheDiagonalOfACovariance) {
  Covariance covariance(8);
  covariance.add(random_matrix<RowMatrix<float>>(30, 8, 9));
  const auto c = covariance.matrix();
  for (Index j = 0; j < 8; ++j) EXPECT_EQ(SecondMoments(covariance)[j], c(j, j));
  const auto w = random_matrix<RowMatrix<float>>(6, 8, 8);
  const Eigen::VectorXd h = c.diagonal();
  EXPECT_TRUE(two_four(w, covariance).mask() == two_four(w, h).mask());
}

struct Nothing {
  double score(Index, Index, double) const { return nan; }
};

template <class Call>
void expect_refused(const Call& call, const char* text) {
  try {
    call();
    FAIL() << "not refused: " << text;
  } catch (const std::invalid_argument& refused) {
    EXPECT_NE(std::string(refused.what()).find(text), std::string::npos) << refused.what();
  }
}

TEST(SelectTwoFourRefuses, WhatDoesNotFit) {
  const auto w = random_matrix<RowMatrix<float>>(6, 8, 8);
  const std::vector<double> h = moments(8);
  const auto call = [](const auto& weight, const auto& score) {
    return [&] { two_four(weight, score); };
  };
  expect_refused(call(random_matrix<RowMatrix<float>>(6, 10, 8), Magnitude{}), "w: got [6, 10]");
  expect_refused(call(RowMatrix<float>(0, 8), Magnitude{}), "w: got [0, 8]");
  expect_refused(call(w, moments(12)), "second_moments: got [12], wanted [8]");
  expect_refused(call(w, NowagP(moments(4))), "second_moments: got [4], wanted [8]");
  expect_refused(call(w, std::vector<double>{0, nan, -1, infinity}),
                 "second_moments: got no number");
  expect_refused([] { two_four(RowMatrix<float>(2, 4), Covariance(4)); }, "count: got 0");
  expect_refused(call(w, Nothing{}), "score: got nan");
}

TEST(SelectTwoFourRefuses, NumbersThatAreNotFinite) {
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), -static_cast<float>(infinity)})
    for (const Index column : {2, 17, 33}) {
      auto w = random_matrix<RowMatrix<float>>(40, 36, 8);
      const Index row = column == 33 ? 39 : 20;
      w(row, column) = value;
      const std::string place =
          "at row " + std::to_string(row) + ", column " + std::to_string(column);
      expect_refused([&] { two_four(w, Magnitude{}); }, place.c_str());
      expect_refused([&] { two_four(w, NowagP(moments(36))); }, place.c_str());
      expect_refused([&] { two_four(pare::reference, w, Magnitude{}); }, place.c_str());
      expect_refused([&] { two_four(w, Last{}); }, place.c_str());
    }
}

}  // namespace
}  // namespace factor_structured_select_two_four_test
