// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <pare/core/permutation.hpp>

namespace core_permutation_test {
namespace {

using pare::Index;
using pare::Permutation;
using List = std::vector<std::uint32_t>;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

List list_of(const Permutation& p) { return {p.indices().begin(), p.indices().end()}; }

std::vector<float> ramp(Index n) {
  std::vector<float> x(static_cast<std::size_t>(n));
  std::iota(x.begin(), x.end(), 1.0f);
  return x;
}

std::vector<float> gathered(const Permutation& p, const std::vector<float>& x) {
  std::vector<float> y(x.size(), -1.0f);
  p.gather(x, y);
  return y;
}

template <class F>
std::string message_of(F f) {
  try {
    f();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

constexpr Index sizes[] = {0, 1, 2, 3, 17, 256, 1000};

TEST(Permutation, TakesEveryListThatIsABijection) {
  List list{0, 1, 2, 3, 4};
  do {
    const Permutation p(list);
    ASSERT_EQ(p.size(), 5);
    ASSERT_EQ(list_of(p), list);
    for (Index i = 0; i < 5; ++i) {
      ASSERT_EQ(p[i], list[static_cast<std::size_t>(i)]);
      ASSERT_EQ(p.data()[i], list[static_cast<std::size_t>(i)]);
    }
  } while (std::next_permutation(list.begin(), list.end()));
}

TEST(Permutation, RefusesEveryListThatIsNone) {
  // All 4^3 lists over {0, 1, 2, 3}: just the 3! orders of {0, 1, 2} pass.
  int passed = 0;
  for (std::uint32_t code = 0; code < 64; ++code) {
    const List list{code % 4, code / 4 % 4, code / 16};
    List sorted = list;
    std::sort(sorted.begin(), sorted.end());
    if (sorted == List{0, 1, 2}) {
      EXPECT_NO_THROW(Permutation{list});
      ++passed;
    } else {
      EXPECT_THROW(Permutation{list}, std::invalid_argument) << code;
    }
  }
  EXPECT_EQ(passed, 6);
  EXPECT_THROW(Permutation(List{0xffffffffu}), std::invalid_argument);
  EXPECT_THROW(Permutation(List{1}), std::invalid_argument);
}

TEST(Permutation, SaysWhichIndexIsWrong) {
  EXPECT_EQ(message_of([] { Permutation(List{0, 7, 1}); }),
            "pare::Permutation: indices: got 7, wanted indices below the length");
  EXPECT_EQ(message_of([] { Permutation(List{0, 2, 2}); }),
            "pare::Permutation: indices: got 2, wanted every index once");
}

TEST(Permutation, RefusesSizesOutsideItsIndexType) {
  EXPECT_THROW(Permutation::identity(-1), std::invalid_argument);
  EXPECT_THROW(Permutation::identity(Index{1} << 32), std::invalid_argument);
  EXPECT_THROW(Permutation::random(-1, 1), std::invalid_argument);
  EXPECT_THROW(Permutation::random(Index{1} << 32, 1), std::invalid_argument);
}

TEST(Permutation, AnIndexOutsideIsRefused) {
  const Permutation none, three = Permutation::identity(3);
  for (const Index i : {Index{-1}, Index{3}, Index{1} << 40, std::numeric_limits<Index>::min()})
    EXPECT_EQ(message_of([&] { static_cast<void>(three[i]); }),
              "pare::Permutation::operator[]: i: got " + std::to_string(i) + ", wanted below 3");
  EXPECT_THROW(static_cast<void>(none[0]), std::invalid_argument);
  RowMajor x = RowMajor::Ones(5, 2), y = RowMajor::Ones(3, 2);
  EXPECT_EQ(message_of([&] { three.gather_rows(x, y); }),
            "pare::Permutation::gather_rows: in: got [5, 2], wanted [3, 2]");
}

TEST(Permutation, EmptyAndSingle) {
  EXPECT_EQ(Permutation().size(), 0);
  EXPECT_EQ(Permutation(), Permutation(List{}));
  EXPECT_EQ(Permutation(), Permutation::identity(0));
  EXPECT_EQ(Permutation(), Permutation::random(0, 5));
  EXPECT_EQ(Permutation::identity(1), Permutation::random(1, 5));
  EXPECT_EQ(Permutation().inverse(), Permutation());
  EXPECT_EQ(pare::compose(Permutation(), Permutation()), Permutation());
  EXPECT_TRUE(Permutation().is_segment_local(1));
  const std::vector<float> none;
  std::vector<float> out;
  EXPECT_NO_THROW(Permutation().gather(none, out));
  EXPECT_NO_THROW(Permutation().scatter(none, out));
  EXPECT_EQ(gathered(Permutation::identity(1), {4.0f}), std::vector<float>{4.0f});
  RowMajor rows(0, 3), moved(0, 3);
  EXPECT_NO_THROW(Permutation().gather_rows(rows, moved));
}

TEST(Permutation, InverseUndoesFromBothSides) {
  for (const Index n : sizes) {
    const Permutation p = Permutation::random(n, 11), q = p.inverse();
    for (Index i = 0; i < n; ++i) ASSERT_EQ(q[p[i]], i);
    EXPECT_EQ(compose(p, q), Permutation::identity(n));
    EXPECT_EQ(compose(q, p), Permutation::identity(n));
    EXPECT_EQ(q.inverse(), p);
  }
}

TEST(Permutation, ComposeIsPAfterQ) {
  const Permutation p(List{1, 2, 0, 3}), q(List{3, 0, 1, 2});
  EXPECT_EQ(list_of(compose(p, q)), (List{3, 1, 2, 0}));
  EXPECT_EQ(list_of(compose(q, p)), (List{0, 1, 3, 2}));
}

TEST(Permutation, ComposeIsAssociativeWithIdentityAndAntitoneInverse) {
  for (const Index n : sizes) {
    const Permutation p = Permutation::random(n, 1), q = Permutation::random(n, 2),
                      r = Permutation::random(n, 3), id = Permutation::identity(n);
    EXPECT_EQ(compose(compose(p, q), r), compose(p, compose(q, r)));
    EXPECT_EQ(compose(p, id), p);
    EXPECT_EQ(compose(id, p), p);
    EXPECT_EQ(compose(p, q).inverse(), compose(q.inverse(), p.inverse()));
  }
  EXPECT_THROW(compose(Permutation::identity(3), Permutation::identity(4)), std::invalid_argument);
}

TEST(Permutation, GatherReadsAndScatterWritesThroughP) {
  const Permutation p(List{2, 0, 3, 1});
  const std::vector<float> x{10, 11, 12, 13};
  EXPECT_EQ(gathered(p, x), (std::vector<float>{12, 10, 13, 11}));
  std::vector<float> y(4);
  p.scatter(x, y);
  EXPECT_EQ(y, (std::vector<float>{11, 13, 10, 12}));
}

TEST(Permutation, GatheringWithACompositionIsGatheringTwice) {
  for (const Index n : sizes) {
    const Permutation p = Permutation::random(n, 4), q = Permutation::random(n, 5);
    const std::vector<float> x = ramp(n);
    EXPECT_EQ(gathered(compose(p, q), x), gathered(q, gathered(p, x)));
  }
}

TEST(Permutation, GatherAndScatterUndoEachOther) {
  for (const Index n : sizes) {
    const Permutation p = Permutation::random(n, 6);
    const std::vector<float> x = ramp(n);
    std::vector<float> moved(x.size()), back(x.size());
    p.gather(x, moved);
    p.scatter(moved, back);
    EXPECT_EQ(back, x);
    p.scatter(x, moved);
    EXPECT_EQ(moved, gathered(p.inverse(), x));
    p.gather(moved, back);
    EXPECT_EQ(back, x);
  }
}

TEST(Permutation, MovesRowsOfEitherStorageOrderAndAnyStride) {
  const Permutation p = Permutation::random(5, 7);
  const RowMajor x = RowMajor::Random(5, 3);
  Eigen::MatrixXf y(5, 3);
  p.gather_rows(x, y);
  for (Index i = 0; i < 5; ++i) EXPECT_EQ(y.row(i), x.row(p[i]));

  float buffer[200];
  std::fill(std::begin(buffer), std::end(buffer), 77.0f);
  using Strided = Eigen::Map<Eigen::MatrixXf, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
  p.scatter_rows(y, Strided(buffer, 5, 3, {20, 3}));
  EXPECT_EQ(Strided(buffer, 5, 3, {20, 3}), x);
  EXPECT_EQ(std::count(std::begin(buffer), std::end(buffer), 77.0f), 200 - 15);

  RowMajor wide = RowMajor::Constant(9, 8, 5.0f);
  p.gather_rows(x.leftCols(2), wide.block(2, 3, 5, 2));
  EXPECT_EQ(wide.block(2, 3, 5, 2), y.leftCols(2));
  EXPECT_EQ((wide.array() == 5.0f).count(), 72 - 10);
}

TEST(Permutation, MovesSixteenBitScalarsOfEigens) {
  const Permutation p(List{1, 2, 0});
  const std::vector<Eigen::bfloat16> x{Eigen::bfloat16(1.0f), Eigen::bfloat16(2.0f),
                                       Eigen::bfloat16(3.0f)};
  std::vector<Eigen::bfloat16> y(3);
  p.gather(x, y);
  EXPECT_EQ(static_cast<float>(y[0]), 2.0f);
  EXPECT_EQ(static_cast<float>(y[1]), 3.0f);
  EXPECT_EQ(static_cast<float>(y[2]), 1.0f);
}

TEST(Permutation, MovesStridedViews) {
  const Permutation p(List{2, 0, 1});
  float in[] = {1, 0, 2, 0, 3, 0}, out[] = {9, 9, 9, 9, 9, 9, 9};
  p.gather(pare::TensorView<const float, 1>{in, {3}, {2}},
           pare::TensorView<float, 1>{out + 6, {3}, {-3}});
  EXPECT_EQ(std::vector<float>(out, out + 7), (std::vector<float>{2, 9, 9, 1, 9, 9, 3}));
}

TEST(Permutation, RefusesWrongSizesBeforeWriting) {
  const Permutation p = Permutation::identity(3);
  const std::vector<float> three{1, 2, 3}, four{1, 2, 3, 4};
  std::vector<float> out(3, -1.0f), longer(4, -1.0f);
  EXPECT_EQ(message_of([&] { p.gather(four, out); }),
            "pare::Permutation::gather: in: got [4], wanted [3]");
  EXPECT_EQ(message_of([&] { p.scatter(three, longer); }),
            "pare::Permutation::scatter: out: got [4], wanted [3]");
  EXPECT_EQ(out, std::vector<float>(3, -1.0f));
  EXPECT_EQ(longer, std::vector<float>(4, -1.0f));

  const RowMajor x = RowMajor::Zero(4, 2), y = RowMajor::Zero(3, 2);
  RowMajor rows = RowMajor::Ones(3, 2), narrow = RowMajor::Ones(3, 1);
  EXPECT_THROW(p.gather_rows(x, rows), std::invalid_argument);
  EXPECT_THROW(p.gather_rows(y, narrow), std::invalid_argument);
  EXPECT_THROW(p.scatter_rows(x, rows), std::invalid_argument);
  EXPECT_THROW(p.scatter_rows(y, narrow), std::invalid_argument);
  EXPECT_EQ(rows, RowMajor::Ones(3, 2));
  EXPECT_EQ(narrow, RowMajor::Ones(3, 1));
}

TEST(Permutation, RefusesOverlapBeforeWriting) {
  const Permutation p(List{1, 0});
  std::vector<float> x{1, 2, 3};
  using View = pare::TensorView<float, 1>;
  const View low{x.data(), {2}, {1}}, high{x.data() + 1, {2}, {1}};
  EXPECT_THROW(p.gather(low, low), std::invalid_argument);
  EXPECT_THROW(p.scatter(low, low), std::invalid_argument);
  EXPECT_THROW(p.gather(low, high), std::invalid_argument);
  EXPECT_THROW(p.scatter(high, low), std::invalid_argument);
  EXPECT_EQ(x, (std::vector<float>{1, 2, 3}));

  RowMajor m = RowMajor::Ones(2, 2);
  EXPECT_THROW(p.gather_rows(m, m), std::invalid_argument);
  EXPECT_THROW(p.scatter_rows(m, m), std::invalid_argument);
}

TEST(Permutation, RefusesAnOutputWithOnePlaceForAllElements) {
  const Permutation p(List{1, 0});
  const std::vector<float> x{1, 2};
  float one = 9;
  EXPECT_THROW(p.gather(x, pare::TensorView<float, 1>{&one, {2}, {0}}), std::invalid_argument);
  EXPECT_THROW(p.scatter(x, pare::TensorView<float, 1>{&one, {2}, {0}}), std::invalid_argument);
  const RowMajor m = RowMajor::Zero(2, 1);
  const pare::TensorView<float, 2> flat{&one, {2, 1}, {0, 1}};
  EXPECT_THROW(p.gather_rows(m, flat), std::invalid_argument);
  EXPECT_THROW(p.scatter_rows(m, flat), std::invalid_argument);
  EXPECT_EQ(one, 9.0f);
}

TEST(Permutation, SegmentLocal) {
  const Permutation p(List{1, 0, 3, 2, 4});  // swaps inside pairs, the last segment is short
  EXPECT_TRUE(p.is_segment_local(2));
  EXPECT_TRUE(p.is_segment_local(4));
  EXPECT_TRUE(p.is_segment_local(5));
  EXPECT_TRUE(p.is_segment_local(100));
  EXPECT_FALSE(p.is_segment_local(1));
  EXPECT_FALSE(p.is_segment_local(3));
  EXPECT_TRUE(Permutation::identity(7).is_segment_local(1));
  EXPECT_THROW(p.is_segment_local(0), std::invalid_argument);
  EXPECT_THROW(p.is_segment_local(-2), std::invalid_argument);
}

TEST(Permutation, RandomIsABijectionAndAFunctionOfItsArguments) {
  for (const Index n : sizes) {
    const Permutation p = Permutation::random(n, 99, 3);
    EXPECT_NO_THROW(Permutation{list_of(p)});
    EXPECT_EQ(p, Permutation::random(n, 99, 3));
  }
  const Permutation p = Permutation::random(1000, 99, 3);
  EXPECT_NE(p, Permutation::random(1000, 98, 3));
  EXPECT_NE(p, Permutation::random(1000, 99, 4));
  EXPECT_NE(p, Permutation::random(1000, 99 + (std::uint64_t{1} << 32), 3));
  EXPECT_NE(p, Permutation::random(1000, 99, 3 + (std::uint64_t{1} << 32)));
}

TEST(Permutation, RandomIsFisherYatesWithWideProducts) {
  // The definition in 128-bit arithmetic: i from the end swaps with floor(u64 * (i + 1) / 2^64).
  __extension__ using Wide = unsigned __int128;
  constexpr std::uint64_t seed = 0x0123456789abcdef, stream = 0xfedcba9876543210;
  constexpr Index n = Index{1} << 19;  // some 30 of the products carry out of their low half
  std::vector<std::uint32_t> list(n);
  std::iota(list.begin(), list.end(), 0u);
  for (std::uint32_t i = n - 1; i > 0; --i) {
    const auto w = pare::philox({i, 0x76543210u, 0xfedcba98u, 0x5045524du}, pare::PhiloxKey(seed));
    const Wide u = (Wide{w[0]} << 32) | w[1];
    std::swap(list[i], list[static_cast<std::size_t>((u * (i + 1)) >> 64)]);
  }
  EXPECT_EQ(list_of(Permutation::random(n, seed, stream)), list);
}

/// Chi-square of the counts of all 24 orders of four elements.
template <class Draw>
double chi_square_of_orders(int draws, Draw draw) {
  std::map<List, int> count;
  for (int s = 0; s < draws; ++s) ++count[list_of(draw(static_cast<std::uint64_t>(s)))];
  const double expected = draws / 24.0;
  double chi2 = (24 - static_cast<double>(count.size())) * expected;
  for (const auto& [order, c] : count) chi2 += (c - expected) * (c - expected) / expected;
  return chi2;
}

// Quantiles of the chi-square law with 23 degrees of freedom: 0.1% is 7.53, 99.9% is 49.73.
TEST(Permutation, RandomIsUniformOverSeeds) {
  const double chi2 = chi_square_of_orders(24000, [](auto s) { return Permutation::random(4, s); });
  EXPECT_GT(chi2, 7.53);
  EXPECT_LT(chi2, 49.73);
}

TEST(Permutation, RandomIsUniformOverStreams) {
  const double chi2 =
      chi_square_of_orders(24000, [](auto s) { return Permutation::random(4, 12345, s); });
  EXPECT_GT(chi2, 7.53);
  EXPECT_LT(chi2, 49.73);
}

}  // namespace
}  // namespace core_permutation_test
