// SPDX-License-Identifier: Apache-2.0
// The mask of 2:4 weights and their storage: what is kept, round trips, foreign masks, refusals.
#include <pare/factor/structured/two_four.hpp>

#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace factor_structured_two_four_test {
namespace {

using namespace pare::factor;
using pare::bf16;
using pare::f16;
using pare::Index;
using pare::TensorView;
using pare::testing::same_bits;

using Dense = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Kept = Eigen::Matrix<bool, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Words = Eigen::Matrix<std::uint16_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr Index widths[] = {4, 12, 16, 20, 128, 140, 260};

/// `call` throws std::invalid_argument with a message that begins and goes on with these.
void refused(const std::function<void()>& call, const std::string& function,
             const std::string& argument, const std::string& rest) {
  const std::string message = pare::testing::refusal(call, function, argument);
  EXPECT_NE(message.find(rest), std::string::npos) << message;
}

/// Two random entries of each group.
Kept random_kept(Index rows, Index cols, std::uint64_t seed) {
  pare::testing::Engine random(seed);
  Kept kept = Kept::Constant(rows, cols, false);
  for (Index o = 0; o < rows; ++o)
    for (Index i = 0; i < cols; i += 4) {
      const auto first = static_cast<Index>(random() % 4);
      const auto second = (first + 1 + static_cast<Index>(random() % 3)) % 4;
      kept(o, i + first) = kept(o, i + second) = true;
    }
  return kept;
}

Dense pruned(const Dense& w, const Kept& kept) {
  return kept.select(w, Dense::Zero(w.rows(), w.cols()));
}

TEST(TwoFourMask, KeepsWhatItWasMadeOfInAnyForm) {
  for (const Index cols : widths) {
    const Kept kept = random_kept(5, cols, 1);
    const TwoFourMask mask = TwoFourMask::of_kept(kept);
    ASSERT_EQ(mask.outputs(), 5);
    ASSERT_EQ(mask.inputs(), cols);
    ASSERT_EQ(mask.row_words(), (cols + 15) / 16);
    for (Index o = 0; o < 5; ++o)
      for (Index i = 0; i < cols; ++i) {
        ASSERT_EQ(mask.keeps(o, i), kept(o, i)) << o << ' ' << i;
        ASSERT_EQ((mask.group_bits(o, i / 4) >> (i % 4) & 1u) != 0, kept(o, i));
        ASSERT_EQ((mask.words()(o, i / 16) >> (i % 16) & 1) != 0, kept(o, i));
      }
    const Eigen::Matrix<std::uint8_t, -1, -1> bytes = kept.cast<std::uint8_t>() * 200;
    EXPECT_EQ(TwoFourMask::of_kept(bytes), mask);
    EXPECT_EQ(TwoFourMask::from_words(mask.words(), cols), mask);
    const Dense w = Dense::Constant(5, cols, -0.5f);
    EXPECT_EQ(TwoFourMask::of_nonzeros(pruned(w, kept)), mask);
    TwoFourMask built(5, cols);
    for (Index o = 0; o < 5; ++o)
      for (Index g = 0; g < cols / 4; ++g) built.set_group(o, g, mask.group_bits(o, g));
    EXPECT_EQ(built, mask);
  }
}

TEST(TwoFourMask, GroupsOfFewerThanTwoKeepTheirFirstZeros) {
  Dense w = Dense::Zero(1, 12);
  w(0, 3) = 1;
  w(0, 5) = std::numeric_limits<float>::quiet_NaN();
  w(0, 7) = -1;
  const auto mask = TwoFourMask::of_nonzeros(w);
  EXPECT_EQ(mask.words()(0, 0), 0b0011'1010'1001);
  EXPECT_EQ(TwoFourMask(1, 12).words()(0, 0), 0b0011'0011'0011);
}

TEST(TwoFourMask, KnowsTheSixMasksOfAGroup) {
  int count = 0;
  for (unsigned bits = 0; bits < 40; ++bits) {
    const bool wanted = bits < 16 && __builtin_popcount(bits) == 2;
    EXPECT_EQ(TwoFourMask::is_two_of_four(bits), wanted) << bits;
    count += wanted ? 1 : 0;
  }
  EXPECT_EQ(count, 6);
}

TEST(TwoFourMask, RefusesGroupsByRowAndColumn) {
  const auto mask = TwoFourMask::of_kept(random_kept(3, 20, 2));
  const auto words_refused = [&](Index o, Index w, unsigned flip, const char* rest) {
    Words words = Eigen::Map<const Words>(mask.words().data, 3, 2);
    words(o, w) = static_cast<std::uint16_t>(words(o, w) ^ flip);
    refused([&] { TwoFourMask::from_words(words, 20); }, "factor::TwoFourMask::from_words", "words",
            rest);
  };
  words_refused(2, 0, 0x0400u, "row 2, columns 8 to 11, wanted 2 of each 4");
  words_refused(1, 1, 0x0001u, "row 1, columns 16 to 19");
  words_refused(0, 1, 0x0030u, "row 0, columns 20 to 23, wanted none behind column 19");
  Dense w = Dense::Zero(2, 8);
  w.row(1) << 0, 1, 0, 1, 2, 0, 3, 4;
  refused([&] { TwoFourMask::of_nonzeros(w); }, "factor::TwoFourMask::of_nonzeros", "weights",
          "3 kept at row 1, columns 4 to 7");
  Kept kept = random_kept(2, 8, 3);
  kept.row(0).tail(4).setConstant(false);
  refused([&] { TwoFourMask::of_kept(kept); }, "factor::TwoFourMask::of_kept", "kept",
          "0 kept at row 0, columns 4 to 7");
}

TEST(TwoFourMask, RefusesSizesAndIndices) {
  const char* const made = "factor::TwoFourMask";
  refused([] { TwoFourMask(0, 8); }, made, "outputs", "got 0, wanted at least 1");
  refused([] { TwoFourMask(1, 6); }, made, "inputs", "got 6, wanted a multiple of 4");
  refused([] { TwoFourMask(1, 0); }, made, "inputs", "got 0");
  refused([] { TwoFourMask(-1, 4); }, made, "outputs", "got -1");
  refused([] { TwoFourMask(Index{1} << 61, Index{1} << 61); }, made, "outputs", "fits 63 bits");
  const char* const from_words = "factor::TwoFourMask::from_words";
  const Words words = Words::Constant(2, 2, 0x3333);
  refused([&] { TwoFourMask::from_words(words, 48); }, from_words, "words",
          "got [2, 2], wanted [2, 3]");
  const TensorView<const std::uint16_t, 2> null{nullptr, {1, 1}, {1, 1}};
  refused([&] { TwoFourMask::from_words(null, 16); }, from_words, "words", "a null pointer");
  const char* const set_group = "factor::TwoFourMask::set_group";
  TwoFourMask mask(2, 8);
  refused([&] { mask.set_group(2, 0, 3); }, set_group, "output", "got 2");
  refused([&] { mask.set_group(0, 2, 3); }, set_group, "group_index", "got 2");
  refused([&] { mask.set_group(0, 0, 7); }, set_group, "bits", "got 7, wanted two bits of four");
  refused([&] { mask.set_group(0, 0, 0x33); }, set_group, "bits", "got 51");
  EXPECT_EQ(mask, TwoFourMask(2, 8));
}

template <class S>
class TwoFourOf : public ::testing::Test {};
using Storages = ::testing::Types<float, double, bf16, f16>;
TYPED_TEST_SUITE(TwoFourOf, Storages);

TYPED_TEST(TwoFourOf, HoldsTheRoundedEntriesThatAreKept) {
  using S = TypeParam;
  using T = pare::compute_t<S>;
  using Matrix = Eigen::Matrix<T, -1, -1>;
  for (const Index cols : widths) {
    const auto w = pare::testing::random_matrix<Matrix>(3, cols, 4);
    const Kept kept = random_kept(3, cols, 5);
    const auto small = TwoFour<S>::from(w, TwoFourMask::of_kept(kept));
    EXPECT_EQ(small.bytes(), 3 * ((cols + 63) / 64 * 32 * Index{sizeof(S)} + (cols + 15) / 16 * 2));
    Matrix dense = Matrix::Constant(3, cols, T(7));
    small.to_dense(dense);
    for (Index o = 0; o < 3; ++o) {
      Index next = 0;
      for (Index i = 0; i < cols; ++i) {
        const T wanted = kept(o, i) ? static_cast<T>(S(w(o, i))) : T(0);
        ASSERT_TRUE(same_bits(dense(o, i), wanted)) << o << ' ' << i;
        if (kept(o, i)) {
          ASSERT_TRUE(same_bits(small.values()(o, next++), S(w(o, i))));
        }
      }
      ASSERT_EQ(next, cols / 2);
      for (; next < small.row_values(); ++next)
        ASSERT_TRUE(same_bits(small.values()(o, next), S{}));
    }
    // What is 2:4 already says its mask itself, and comes back.
    const auto again = TwoFour<S>::from(dense);
    EXPECT_EQ(again.mask(), small.mask());
    Matrix twice(3, cols);
    again.to_dense(twice);
    EXPECT_EQ(twice, dense);
    Matrix copied(3, cols);
    small.copy().to_dense(copied);
    EXPECT_EQ(copied, dense);
  }
}

TEST(TwoFour, EightBitsAreOffByHalfAStep) {
  for (const Index cols : widths) {
    Dense w = pare::testing::random_matrix<Dense>(4, cols, 6);
    w.row(1) *= 1e-30f;
    w.row(2) *= 1e30f;
    w.row(3).setZero();
    const Kept kept = random_kept(4, cols, 7);
    w = pruned(w, kept);
    const auto tiny = TwoFour<std::int8_t>::from(w, TwoFourMask::of_kept(kept));
    EXPECT_EQ(tiny.bytes(),
              4 * ((cols + 63) / 64 * 32 + (cols + 15) / 16 * 2 + (cols + 127) / 128 * 4));
    Dense dense(4, cols), copied(4, cols);
    tiny.to_dense(dense);
    tiny.copy().to_dense(copied);
    EXPECT_EQ(copied, dense);
    for (Index o = 0; o < 4; ++o)
      for (Index b = 0; b < tiny.row_scales(); ++b) {
        const Index begin = b * 128, count = std::min<Index>(128, cols - begin);
        const auto block = w.row(o).segment(begin, count);
        const double most = static_cast<double>(block.cwiseAbs().maxCoeff());
        const auto got = dense.row(o).segment(begin, count);
        // Half a step; d, the quotient and the entry are rounded, each by at most 2^-24 of `most`.
        const double bound = most / 127 / 2 + 4 * most * 0x1p-24;
        EXPECT_LE(static_cast<double>((got - block).cwiseAbs().maxCoeff()), bound);
        EXPECT_LE(std::abs(static_cast<double>(got.cwiseAbs().maxCoeff()) - most), most * 0x1p-23);
        if (most == 0) {
          EXPECT_EQ(tiny.scales()(o, b), 0);
        }
      }
  }
}

TEST(TwoFour, EightBitsOfSubnormalsStayWithinTheirRange) {
  const Dense w = Dense::Constant(1, 4, std::numeric_limits<float>::denorm_min() * 190);
  const auto tiny = TwoFour<std::int8_t>::from(w, TwoFourMask(1, 4));
  EXPECT_EQ(tiny.values()(0, 0), 127);  // of a scale of one denorm_min
  const Dense least = Dense::Constant(1, 4, std::numeric_limits<float>::denorm_min());
  EXPECT_EQ(TwoFour<std::int8_t>::from(least, TwoFourMask(1, 4)).values()(0, 0), 0);
}

TEST(TwoFour, OnlyWhatIsKeptIsLookedAt) {
  Dense w = Dense::Constant(1, 4, std::numeric_limits<float>::quiet_NaN());
  w(0, 0) = 1;
  w(0, 1) = 2;
  Dense dense(1, 4);
  TwoFour<std::int8_t>::from(w, TwoFourMask(1, 4)).to_dense(dense);
  EXPECT_TRUE(same_bits(dense(0, 2), 0.0f));
  w(0, 1) = std::numeric_limits<float>::quiet_NaN();
  TwoFour<float>::from(w, TwoFourMask(1, 4)).to_dense(dense);
  EXPECT_TRUE(pare::is_nan(dense(0, 1)));
  EXPECT_EQ(dense(0, 3), 0);
}

TEST(TwoFour, WhatIsMovedFromIsOfNoWeights) {
  auto from = TwoFour<float>::from(Dense::Ones(3, 8).eval(), TwoFourMask(3, 8));
  const auto to = std::move(from);
  EXPECT_EQ(to.outputs(), 3);
  EXPECT_EQ(from.copy().outputs(), 0);  // NOLINT(bugprone-use-after-move): promised
  TwoFourMask mask(3, 8);
  const TwoFourMask kept = std::move(mask);
  EXPECT_EQ(kept, to.mask());
  refused([&] { TwoFour<float>{mask}; },  // NOLINT(bugprone-use-after-move): promised
          "factor::TwoFour", "mask", "of no weights");
}

TEST(TwoFour, RefusesWhatDoesNotFit) {
  const char* const from = "factor::TwoFour::from";
  Dense w = Dense::Ones(2, 8);
  refused([&] { TwoFour<float>::from(w, TwoFourMask(2, 12)); }, from, "weights",
          "got [2, 8], wanted [2, 12]");
  refused([] { TwoFour<float>(TwoFourMask{}); }, "factor::TwoFour", "mask", "of no weights");
  w(1, 5) = std::numeric_limits<float>::infinity();
  refused([&] { TwoFour<std::int8_t>::from(w, TwoFourMask(2, 8)); }, from, "weights",
          "got inf at row 1, column 5, wanted finite");
  refused([&] { TwoFour<float>::from(w); }, "factor::TwoFourMask::of_nonzeros", "weights",
          "4 kept at row 0, columns 0 to 3");
  auto small = TwoFour<float>::from(w, TwoFourMask(2, 8));
  Dense dense = Dense::Constant(2, 4, 3);
  const char* const to_dense = "factor::TwoFour::to_dense";
  refused([&] { small.to_dense(dense); }, to_dense, "out", "got [2, 4], wanted [2, 8]");
  EXPECT_EQ(dense, Dense::Constant(2, 4, 3));
  const TensorView<float, 2> own{small.own_values().data, {2, 8}, {8, 1}};
  refused([&] { small.to_dense(own); }, to_dense, "out", "got memory that overlaps an input");
  EXPECT_EQ(small.values()(0, 0), 1);
  // Mask and scales are read while `out` is written.
  auto tiny = TwoFour<std::int8_t>::from(Dense::Ones(2, 8).eval(), TwoFourMask(2, 8));
  const TensorView<float, 2> scales{tiny.own_scales().data, {2, 8}, {8, 1}};
  refused([&] { tiny.to_dense(scales); }, to_dense, "out", "got memory that overlaps an input");
  auto* words = const_cast<std::uint16_t*>(small.mask().words().data);
  const TensorView<pare::bf16, 2> mask{reinterpret_cast<pare::bf16*>(words), {2, 8}, {8, 1}};
  refused([&] { small.to_dense(mask); }, to_dense, "out", "got memory that overlaps an input");
}

}  // namespace
}  // namespace factor_structured_two_four_test
