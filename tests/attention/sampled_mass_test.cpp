// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <pare/attention/calibrate.hpp>
#include <pare/attention/permuted.hpp>
#include <pare/attention/sampled_mass.hpp>

#include "attention/data.hpp"
#include "attention/sampled_data.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace attention_sampled_mass_test {
namespace {

using namespace pare::attention;
using pare::Index;
using pare::testing::Chosen;
using pare::testing::chosen_blocks;
using pare::testing::columns_of;
using pare::testing::is_forced;
using pare::testing::Layout;
using pare::testing::refusal;
using pare::testing::same_bits;
using pare::testing::seen_blocks;
using pare::testing::Tensor;
using pare::testing::wanted_blocks;
using pare::testing::within;

using Block = pare::testing::SampledBlock;
template <class T>
using Input = pare::testing::SampledInput<T>;

constexpr double scale = pare::testing::sampled_scale;
constexpr SelectOptions causal{.causal = true, .scale = scale};

template <class T>
constexpr T nan_value = std::numeric_limits<T>::quiet_NaN();
template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();

/// The products of a score add up, by size, to at most |q| |k|, and no row of up to 9 normal
/// numbers here is longer than 6. A weight is off by twice the error of a score, and by a rounding
/// for each key in sums.
template <class T>
double relative_bound(Index dim, Index keys) {
  return 2 * pare::testing::Tolerance<T>::scaled_sum(static_cast<double>(dim), 36) +
         pare::testing::Tolerance<T>::gamma(static_cast<double>(keys + 20));
}

struct Case {
  Index batch, heads, kv_heads, queries, keys, dim;
  SampledMass selector;
};
const Case cases[] = {
    {1, 4, 2, 150, 150, 8, {.row_block = 16, .column_block = 8, .stride = 4, .share = 0.4}},
    {2, 3, 3, 131, 131, 9, {.row_block = 16, .column_block = 5, .stride = 5, .share = 0.3}},
    {1, 6, 2, 40, 150, 7, {.row_block = 12, .column_block = 16, .stride = 12, .share = 0.5}},
    {1, 2, 1, 41, 97, 8, {.row_block = 8, .column_block = 7, .stride = 1, .share = 0.35}},
    {1, 1, 1, 1, 150, 8, {.row_block = 64, .column_block = 16, .stride = 8, .share = 0.6}},
    {1, 2, 2, 3, 149, 8, {.row_block = 2, .column_block = 16, .stride = 2, .share = 0.4}},
    {1, 1, 1, 300, 300, 8, {.row_block = 100, .column_block = 1, .stride = 1, .share = 0.7}},
    {1, 2, 1, 100, 700, 8, {.row_block = 20, .column_block = 140, .stride = 3, .share = 0.6}},
    {1,
     3,
     1,
     200,
     210,
     8,
     {.row_block = 10, .column_block = 20, .stride = 10, .share = 0.2, .force_first = false}},
};

template <class P>
class Sampled : public testing::Test {
 protected:
  using Scalar = typename P::scalar;
  static auto backend() { return P::backend::make(); }
};
TYPED_TEST_SUITE(Sampled, pare::testing::BackendsAndScalars);

TYPED_TEST(Sampled, KeepsTheHeaviestBlocksByBruteForce) {
  using T = typename TestFixture::Scalar;
  for (const Case& c : cases) {
    const Input<T> x(c.batch, c.heads, c.kv_heads, c.queries, c.keys, c.dim);
    const SelectedBlocks got = x.select(this->backend(), c.selector);
    const double bound = relative_bound<T>(c.dim, c.keys);
    double mass = 0;
    for (Index b = 0; b < c.batch; ++b) {
      const auto [chosen, kept] = wanted_blocks(x, c.selector, b, 2 * bound);
      EXPECT_EQ(chosen_blocks(got, b), chosen) << c.queries << ' ' << c.keys << ' ' << b;
      mass += kept / static_cast<double>(c.batch * c.heads * got.row_blocks());
    }
    EXPECT_TRUE(within(got.mass, mass, bound)) << c.queries << ' ' << c.keys;
    EXPECT_LT(got.density(true), 0.95);
  }
}

TYPED_TEST(Sampled, LargerSharesKeepTheBlocksOfSmallerOnes) {
  using T = typename TestFixture::Scalar;
  const Input<T> x(1, 3, 1, 150, 150, 8);
  SampledMass selector{.row_block = 16, .column_block = 8, .stride = 4, .share = 0.25};
  SelectedBlocks before = x.select(this->backend(), selector);
  for (const double share : {0.4, 0.7, 0.95, 1.0}) {
    selector.share = share;
    const SelectedBlocks blocks = x.select(this->backend(), selector);
    EXPECT_TRUE(std::ranges::includes(chosen_blocks(blocks, 0), chosen_blocks(before, 0)));
    EXPECT_TRUE(within(blocks.density(true), share, 0.5 / 300));
    EXPECT_GT(blocks.mass, before.mass);
    before = blocks;
  }
  EXPECT_EQ(before.mass, 1);
}

TYPED_TEST(Sampled, TinySharesLeaveWhatIsAlwaysKept) {
  using T = typename TestFixture::Scalar;
  const Input<T> x(1, 2, 1, 100, 120, 8);
  for (const bool first : {true, false}) {
    const SelectedBlocks blocks =
        x.select(this->backend(),
                 {.row_block = 16, .column_block = 8, .share = 1e-300, .force_first = first});
    for (Index h = 0; h < 2; ++h)
      for (Index m = 0; m < blocks.row_blocks(); ++m) {
        std::vector<Index> wanted;
        if (first) wanted.push_back(0);
        for (Index n = (m * 16 + 20) / 8; n < blocks.shape().causal_columns(m); ++n)
          wanted.push_back(n);
        EXPECT_EQ(columns_of(blocks, h, m), wanted);
      }
  }
}

TYPED_TEST(Sampled, AFullShareIsExact) {
  using T = typename TestFixture::Scalar;
  const Input<T> x(1, 2, 1, 40, 50, 8);
  Tensor<T> out({1, 2, 40, 8}), exact({1, 2, 40, 8});
  const auto stats = attend(this->backend(), x.q.view(), x.k.view(), x.k.view(), out.writable(),
                            SampledMass{.share = 1});
  attend(this->backend(), x.q.view(), x.k.view(), x.k.view(), exact.writable(), {.causal = true});
  EXPECT_TRUE(pare::testing::all_same_bits(out.list, exact.list));
  EXPECT_EQ(stats.density, 1);
  EXPECT_EQ(stats.selected_mass, 1);
  EXPECT_EQ(x.select(this->backend(), {.share = infinity<double>}).density(true), 1);
}

TYPED_TEST(Sampled, OneCallAttendsUnderTheMask) {
  using T = typename TestFixture::Scalar;
  const Input<T> x(1, 4, 2, 70, 90, 8);
  const SampledMass selector{.row_block = 16, .column_block = 8, .share = 0.5};
  Tensor<T> out({1, 4, 70, 8}), wanted({1, 4, 70, 8});
  const auto stats = attend(this->backend(), x.q.view(), x.k.view(), x.k.view(), out.writable(),
                            selector, {.scale = scale});
  const SelectedBlocks blocks = x.select(this->backend(), selector);
  attend(this->backend(), x.q.view(), x.k.view(), x.k.view(), wanted.writable(),
         {.causal = true, .scale = scale, .mask = &blocks});
  EXPECT_TRUE(pare::testing::all_same_bits(out.list, wanted.list));
  EXPECT_TRUE(same_bits(stats.selected_mass, blocks.mass));
  EXPECT_EQ(stats.density, blocks.density(true));
}

template <class T>
void copy_head(const Tensor<T>& from, Index head, Tensor<T>& to, Index at) {
  for (Index i = 0; i < from.extent[2]; ++i)
    for (Index c = 0; c < from.extent[3]; ++c) to(0, at, i, c) = from(0, head, i, c);
}

TYPED_TEST(Sampled, PermutedHeadsKeepTheirBlocks) {
  using T = typename TestFixture::Scalar;
  const Input<T> x(1, 4, 2, 120, 120, 8);
  Input<T> y = x;
  constexpr Index from[] = {3, 2, 0, 1};
  for (Index h = 0; h < 4; ++h) copy_head(x.q, from[h], y.q, h);
  for (Index h = 0; h < 2; ++h) copy_head(x.k, 1 - h, y.k, h);
  const SampledMass selector{.row_block = 16, .column_block = 8, .stride = 4, .share = 0.4};
  const SelectedBlocks a = x.select(this->backend(), selector),
                       b = y.select(this->backend(), selector);
  for (Index h = 0; h < 4; ++h)
    for (Index m = 0; m < a.row_blocks(); ++m)
      EXPECT_EQ(columns_of(b, h, m), columns_of(a, from[h], m));
  EXPECT_TRUE(within(a.mass, b.mass, 1e-12));
}

TYPED_TEST(Sampled, SharedKeysActAsRepeatedOnes) {
  using T = typename TestFixture::Scalar;
  const Input<T> grouped(1, 4, 2, 90, 90, 8);
  Input<T> repeated(1, 4, 4, 90, 90, 8);
  for (Index h = 0; h < 4; ++h) copy_head(grouped.k, h / 2, repeated.k, h);
  const SampledMass selector{.row_block = 16, .column_block = 8, .stride = 4, .share = 0.4};
  const SelectedBlocks a = grouped.select(this->backend(), selector),
                       b = repeated.select(this->backend(), selector);
  EXPECT_EQ(static_cast<const BlockMask&>(a), static_cast<const BlockMask&>(b));
  EXPECT_TRUE(same_bits(a.mass, b.mass));
}

/// A sequence does not depend on those beside it, how sharp they may be.
TYPED_TEST(Sampled, BatchEntriesHaveBudgetsOfTheirOwn) {
  using T = typename TestFixture::Scalar;
  Input<T> both(2, 2, 1, 100, 100, 8);
  for (Index h = 0; h < 2; ++h)
    for (Index i = 0; i < 100; ++i)
      for (Index c = 0; c < 8; ++c) both.q(1, h, i, c) *= T(3);
  const SampledMass selector{.row_block = 16, .column_block = 8, .stride = 4, .share = 0.4};
  const SelectedBlocks blocks = both.select(this->backend(), selector);
  double mass = 0;
  for (Index b = 0; b < 2; ++b) {
    Input<T> one(1, 2, 1, 100, 100, 8);
    one.q.list.assign(both.q.list.begin() + b * 1600, both.q.list.begin() + (b + 1) * 1600);
    one.k.list.assign(both.k.list.begin() + b * 800, both.k.list.begin() + (b + 1) * 800);
    const SelectedBlocks alone = one.select(this->backend(), selector);
    EXPECT_EQ(chosen_blocks(blocks, b), chosen_blocks(alone, 0));
    mass += alone.mass / 2;
  }
  EXPECT_TRUE(within(blocks.mass, mass, 1e-12));
}

/// Scores of zero give the blocks of a row equal masses, and those of earlier rows larger ones.
TYPED_TEST(Sampled, OfEqualMassesTheEarlierHeadComesFirst) {
  using T = typename TestFixture::Scalar;
  Input<T> x(1, 2, 2, 32, 32, 4);
  std::ranges::fill(x.q.list, T(0));
  // A head has 8 rows that see 1 to 8 blocks, 36, of which 15 are always kept. Rows 2 to 7 may
  // choose from 1 to 6, and row 2's weigh most.
  const auto columns = [&](double share, Index head, Index row) {
    return columns_of(
        x.select(this->backend(), {.row_block = 4, .column_block = 4, .stride = 2, .share = share}),
        head, row);
  };
  using List = std::vector<Index>;
  EXPECT_EQ(columns(31 / 72.0, 0, 2), (List{0, 1, 2}));
  EXPECT_EQ(columns(31 / 72.0, 1, 2), (List{0, 2}));
  EXPECT_EQ(columns(33 / 72.0, 1, 2), (List{0, 1, 2}));
  EXPECT_EQ(columns(33 / 72.0, 0, 3), (List{0, 1, 3}));
  EXPECT_EQ(columns(35 / 72.0, 0, 3), (List{0, 1, 2, 3}));
  EXPECT_EQ(columns(35 / 72.0, 1, 3), (List{0, 1, 3}));
}

/// A NaN or infinite score keeps all of its row, and the others choose as if it were not there.
TYPED_TEST(Sampled, ANanKeepsAllOfItsRowAlone) {
  using T = typename TestFixture::Scalar;
  const SampledMass selector{.row_block = 16, .column_block = 8, .stride = 4, .share = 0.4};
  const Input<T> clean(1, 2, 1, 150, 150, 8);
  const auto expect_alone = [&](const Input<T>& x,
                                const std::vector<std::pair<Index, Index>>& bad) {
    const SelectedBlocks blocks = x.select(this->backend(), selector);
    std::vector<Block> others;
    for (const Block& b : seen_blocks(clean, selector, 0))
      if (std::ranges::find(bad, std::pair{b.head, b.row}) == bad.end()) others.push_back(b);
    const auto forced = std::ranges::count_if(
        others, [&](const Block& b) { return is_forced(clean, selector, b); });
    const auto count = std::max<Index>(std::lround(0.4 * double(others.size())), forced);
    Index chosen = 0;
    double least = 1, most = 0;
    for (const Block& b : others) {
      const auto row = columns_of(blocks, b.head, b.row);
      const bool kept = std::ranges::binary_search(row, b.column);
      chosen += kept ? 1 : 0;
      if (is_forced(clean, selector, b))
        EXPECT_TRUE(kept);
      else
        kept ? least = std::min(least, b.mass) : most = std::max(most, b.mass);
    }
    EXPECT_EQ(chosen, count);
    EXPECT_GT(least, most);
    for (const auto& [h, m] : bad)
      EXPECT_EQ(Index(blocks.row(0, h, m).size()), blocks.shape().causal_columns(m));
    EXPECT_TRUE(std::isnan(blocks.mass));
  };
  Input<T> x = clean;
  x.q(0, 0, 70, 1) = nan_value<T>;  // row 4, the second sample
  expect_alone(x, {{0, 4}});
  x.q(0, 1, 149, 1) = infinity<T>;  // not looked at: row 9 has samples 146 alone
  expect_alone(x, {{0, 4}});
  x.q(0, 1, 146, 0) = x.q(0, 1, 146, 1) = infinity<T>;
  expect_alone(x, {{0, 4}, {1, 9}});
  x = clean;
  x.k(0, 0, 139, 3) = nan_value<T>;  // seen from row 8 on, whose samples are 130, 134, 138, 142
  expect_alone(x, {{0, 8}, {0, 9}, {1, 8}, {1, 9}});
}

TYPED_TEST(Sampled, NothingButNanKeepsEverything) {
  using T = typename TestFixture::Scalar;
  Input<T> x(1, 2, 1, 50, 50, 8);
  std::ranges::fill(x.k.list, nan_value<T>);
  const SelectedBlocks blocks = x.select(this->backend(), {.row_block = 16, .column_block = 8});
  EXPECT_EQ(blocks.density(true), 1);
  EXPECT_TRUE(std::isnan(blocks.mass));
}

/// Scores of -infinity weigh nothing, even where a query sees nothing else.
TYPED_TEST(Sampled, HiddenKeysCountForNothing) {
  using T = typename TestFixture::Scalar;
  for (const Index hidden : {70, 150}) {
    Input<T> x(1, 2, 1, 150, 150, 8);
    for (Index h = 0; h < 2; ++h)
      for (Index i = 0; i < 150; ++i) x.q(0, h, i, 0) = 1;
    for (Index j = 0; j < hidden; ++j) x.k(0, 0, j, 0) = -infinity<T>;
    const SampledMass selector{.row_block = 16, .column_block = 8, .stride = 4, .share = 0.4};
    const SelectedBlocks wanted = x.select(pare::reference, selector);
    const SelectedBlocks blocks = x.select(this->backend(), selector);
    EXPECT_EQ(static_cast<const BlockMask&>(blocks), static_cast<const BlockMask&>(wanted));
    EXPECT_TRUE(within(blocks.mass, wanted.mass, 1e-4));
    EXPECT_EQ(blocks.mass > 0, hidden == 70);
  }
}

TYPED_TEST(Sampled, TakesExtremeScores) {
  using T = typename TestFixture::Scalar;
  const Input<T> x(1, 2, 1, 100, 100, 8);
  const SampledMass selector{.row_block = 16, .column_block = 8, .share = 0.7};
  for (const double extreme : {1e30, 1e-30}) {
    const SelectedBlocks blocks = select_blocks(this->backend(), x.q.view(), x.k.view(), selector,
                                                {.causal = true, .scale = extreme});
    EXPECT_TRUE(within(blocks.density(true), 0.7, 0.01));
    EXPECT_GT(blocks.mass, extreme > 1 ? 0.99 : 0.7);
    EXPECT_LE(blocks.mass, 1 + 1e-5);
  }
}

TYPED_TEST(Sampled, TakesBlocksOfAnySize) {
  using T = typename TestFixture::Scalar;
  const Input<T> x(1, 2, 1, 40, 50, 8);
  constexpr Index huge = std::numeric_limits<Index>::max(), large = Index{1} << 62;
  const auto got = [&](Index rows, Index columns, Index stride) {
    const SelectedBlocks blocks =
        x.select(this->backend(),
                 {.row_block = rows, .column_block = columns, .stride = stride, .share = 0.6});
    return std::pair{chosen_blocks(blocks, 0), blocks.mass};
  };
  for (const Index block : {huge, large}) {
    EXPECT_EQ(got(block, 16, 8), got(40, 16, 8));
    EXPECT_EQ(got(block, 16, block), got(78, 16, 78)) << "the last query is looked at";
    EXPECT_EQ(got(16, block, 8).first, got(16, 50, 8).first);
    EXPECT_EQ(got(block, block, block).first, got(40, 50, 40).first);
  }
}

TYPED_TEST(Sampled, NothingToSelectFrom) {
  using T = typename TestFixture::Scalar;
  const auto count = [&](const Input<T>& x) { return x.select(this->backend(), {}).selected(); };
  EXPECT_EQ(count(Input<T>(0, 2, 1, 20, 20, 4)), 0);
  EXPECT_EQ(count(Input<T>(1, 2, 1, 0, 20, 4)), 0);
  EXPECT_EQ(count(Input<T>(1, 2, 1, 0, 0, 4)), 0);
  EXPECT_EQ(count(Input<T>(1, 2, 1, 1, 1, 4)), 2);
}

TYPED_TEST(Sampled, CalibratesItsShareForAnError) {
  using T = typename TestFixture::Scalar;
  const Input<T> x(1, 2, 1, 128, 128, 8);
  const SampledMass selector{.row_block = 16, .column_block = 8, .stride = 4};
  const auto attended = calibrate(this->backend(), x.q.view(), x.k.view(), x.k.view(), selector,
                                  {.error = 0.05, .tolerance = 0.2});
  EXPECT_LE(attended.error, 0.05);
  EXPECT_LT(attended.density, 0.95);
  EXPECT_EQ(attended.policy.share, attended.threshold);
  EXPECT_EQ(attended.policy.column_block, 8);
  const auto dense =
      calibrate(this->backend(), x.q.view(), x.k.view(), x.k.view(), selector, {.density = 0.5});
  EXPECT_TRUE(dense.density <= 0.5 && dense.density > 0.48);
}

TEST(SampledMass, RefusesWhatDoesNotFit) {
  const Input<float> x(1, 2, 1, 64, 64, 4), few(1, 2, 1, 64, 60, 4);
  Tensor<float> out({1, 2, 64, 4}, Layout::by_head, 7);
  const auto refuses = [&](const SampledMass& selector, const std::string& argument) {
    refusal(
        [&] { select_blocks(pare::reference, x.q.view(), x.k.view(), selector, {.causal = true}); },
        "attention::select_blocks", argument);
    refusal(
        [&] {
          attend(pare::reference, x.q.view(), x.k.view(), x.k.view(), out.writable(), selector);
        },
        "attention::attend", argument);
  };
  refuses({.row_block = 0}, "row_block");
  refuses({.row_block = -64}, "row_block");
  refuses({.column_block = 0}, "column_block");
  refuses({.column_block = -16}, "column_block");
  refuses({.stride = 0}, "stride");
  refuses({.stride = -8}, "stride");
  refuses({.stride = 65}, "stride");
  refuses({.share = 0}, "share");
  refuses({.share = -0.25}, "share");
  refuses({.share = nan_value<double>}, "share");
  refusal([&] { few.select(pare::reference, {}); }, "attention::select_blocks", "queries");
  refusal([&] { select_blocks(pare::reference, x.q.view(), x.k.view(), SampledMass{}); },
          "attention::select_blocks", "causal");
  const auto order = KeyOrder::identity({1, 1, 64});
  refusal(
      [&] { select_blocks(pare::reference, x.q.view(), x.k.view(), order, SampledMass{}, causal); },
      "attention::select_blocks", "order");
  refusal(
      [&] {
        attend(pare::reference, x.q.view(), x.k.view(), x.k.view(), out.writable(),
               Permuted{SampledMass{}});
      },
      "attention::attend", "order");
  EXPECT_TRUE(std::ranges::all_of(out.list, [](float value) { return value == 7; }));
}

template <class S>
struct SampledStorage : testing::Test {};
using Storages = testing::Types<float, double, pare::bf16, pare::f16>;
TYPED_TEST_SUITE(SampledStorage, Storages);

/// 16-bit numbers are taken as they are: what differs from the definition is rounding in float.
TYPED_TEST(SampledStorage, KeepsTheBlocksOfTheDefinition) {
  using T = pare::compute_t<TypeParam>;
  for (const Case& c : cases) {
    const Input<TypeParam> x(c.batch, c.heads, c.kv_heads, c.queries, c.keys, c.dim);
    const SelectedBlocks wanted = x.select(pare::reference, c.selector);
    const SelectedBlocks got = x.select(pare::simd, c.selector);
    EXPECT_EQ(static_cast<const BlockMask&>(got), static_cast<const BlockMask&>(wanted))
        << c.queries << ' ' << c.keys;
    EXPECT_TRUE(within(got.mass, wanted.mass, relative_bound<T>(c.dim, c.keys)));
  }
}

TYPED_TEST(SampledStorage, NeitherThreadsNorLayoutChangeABit) {
  const SampledMass selector{.row_block = 16, .column_block = 8, .stride = 2, .share = 0.3};
  const Input<TypeParam> x(2, 6, 2, 500, 520, 16), apart(2, 6, 2, 500, 520, 16, Layout::apart),
      by_token(2, 6, 2, 500, 520, 16, Layout::by_token);
  const SelectedBlocks one = x.select(pare::simd, selector);
  const auto check = [&one](const SelectedBlocks& other) {
    EXPECT_EQ(static_cast<const BlockMask&>(one), static_cast<const BlockMask&>(other));
    EXPECT_TRUE(same_bits(one.mass, other.mass));
  };
  for (const int threads : {2, 3, 7}) check(x.select(pare::simd.threads(threads), selector));
  check(x.select(pare::simd.on(pare::testing::ReversePool{4}), selector));
  check(apart.select(pare::simd, selector));
  check(by_token.select(pare::simd, selector));
}

}  // namespace
}  // namespace attention_sampled_mass_test
