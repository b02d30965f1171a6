// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <locale>
#include <stdexcept>
#include <string>
#include <vector>

#include <pare/core/check.hpp>

namespace core_check_test {
namespace {

using pare::Index;
constexpr Index largest = std::numeric_limits<Index>::max();

/// The message of the std::invalid_argument that f throws; fails if it throws none.
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

TEST(Check, PassesInSilence) {
  EXPECT_NO_THROW(pare::check(true, "f", "x", 1, 2));
  EXPECT_NO_THROW(pare::check_extents<2>("f", "x", {3, 4}, {3, 4}));
  EXPECT_NO_THROW(pare::check_extents<0>("f", "x", {}, {}));
}

TEST(Check, NamesFunctionArgumentGotAndWanted) {
  EXPECT_EQ(
      message_of([] { pare::check(false, "projection::project", "k", -3, "a size above 0"); }),
      "pare::projection::project: k: got -3, wanted a size above 0");
  EXPECT_EQ(message_of([] { pare::check(false, "f", "mode", std::string("left"), 'r'); }),
            "pare::f: mode: got left, wanted r");
}

TEST(Check, OffsetsGoFromNothingToAllRows) {
  using List = std::vector<Index>;
  for (const List& good : {List{0}, List{0, 0}, List{0, 2, 2, 5}})
    EXPECT_NO_THROW(pare::check_offsets("f", "o", good, good.back()));
  const auto said = [](const List& list, Index rows) {
    return message_of([&] { pare::check_offsets("f", "o", list, rows); });
  };
  EXPECT_EQ(said({}, 0), "pare::f: o: got 0, wanted at least 1 offset");
  EXPECT_EQ(said({1, 5}, 5), "pare::f: o: got 1, wanted 0 as the first offset");
  EXPECT_EQ(said({0, 4, 3, 5}, 5), "pare::f: o: got 3, wanted offsets that never decrease");
  EXPECT_EQ(said({0, 4}, 5), "pare::f: o: got 4, wanted the tokens, 5, as the last offset");
  const std::vector<Index> list{0, 4};
  EXPECT_EQ(message_of([&] { pare::check_offsets("f", "o", list, 5, "experts"); }),
            "pare::f: o: got 4, wanted the experts, 5, as the last offset");
}

TEST(Check, PrintsExtentLists) {
  EXPECT_EQ(message_of([] { pare::check_extents<2>("f", "y", {3, 4}, {3, 8}); }),
            "pare::f: y: got [3, 4], wanted [3, 8]");
  EXPECT_EQ(message_of([] { pare::check_extents<1>("f", "y", {0}, {-7}); }),
            "pare::f: y: got [0], wanted [-7]");
  EXPECT_EQ(message_of([] {
              pare::check(false, "f", "y", std::array<Index, 4>{1, 2, 3, 4}, "rank 4, contiguous");
            }),
            "pare::f: y: got [1, 2, 3, 4], wanted rank 4, contiguous");
}

TEST(Check, AnyOneExtentThatDiffersIsRefused) {
  for (std::size_t d = 0; d < 3; ++d) {
    std::array<Index, 3> got{2, 3, 4};
    ++got[d];
    EXPECT_THROW(pare::check_extents<3>("f", "y", got, {2, 3, 4}), std::invalid_argument) << d;
  }
}

TEST(Check, PrintsFloatsThatDifferOnlyInTheLastBit) {
  const double one = 1.0, above = std::nextafter(1.0, 2.0);
  const std::string text = message_of([&] { pare::check(false, "f", "x", above, one); });
  EXPECT_EQ(text, "pare::f: x: got 1.0000000000000002, wanted 1");
}

struct Grouped : std::numpunct<char> {
  char do_thousands_sep() const override { return ','; }
  std::string do_grouping() const override { return "\3"; }
};

TEST(Check, MessageIsTheSameInEveryLocale) {
  const std::locale before = std::locale::global(std::locale(std::locale(), new Grouped));
  const std::string text = message_of([] { pare::check_extents<1>("f", "y", {12345}, {67890}); });
  std::locale::global(before);
  EXPECT_EQ(text, "pare::f: y: got [12345], wanted [67890]");
}

TEST(CheckedProduct, IsExactUpToTheLargestIndex) {
  EXPECT_EQ(pare::checked_product("f", "n", 0, largest), 0);
  EXPECT_EQ(pare::checked_product("f", "n", largest, 0), 0);
  EXPECT_EQ(pare::checked_product("f", "n", 1, largest), largest);
  EXPECT_EQ(pare::checked_product("f", "n", largest, 1), largest);
  EXPECT_EQ(pare::checked_product("f", "n", 6, 7), 42);
  // 2^63 - 1 = 7 * 7 * 73 * 127 * 337 * 92737 * 649657.
  EXPECT_EQ(pare::checked_product("f", "n", 7, largest / 7), largest);
  EXPECT_EQ(pare::checked_product("f", "n", largest / 7, 7), largest);
}

TEST(CheckedProduct, RefusesTheFirstProductThatDoesNotFit) {
  constexpr Index half = Index{1} << 31, quarter = Index{1} << 32;
  EXPECT_THROW(pare::checked_product("f", "n", half, quarter), std::invalid_argument);
  EXPECT_THROW(pare::checked_product("f", "n", 7, largest / 7 + 1), std::invalid_argument);
  EXPECT_THROW(pare::checked_product("f", "n", largest, 2), std::invalid_argument);
  EXPECT_THROW(pare::checked_product("f", "n", largest, largest), std::invalid_argument);
  EXPECT_EQ(
      message_of([] { pare::checked_product("f", "n", quarter, quarter); }),
      "pare::f: n: got [4294967296, 4294967296], wanted a product of sizes that fits 63 bits");
  EXPECT_THROW(pare::checked_product("f", "n", -1, 5), std::invalid_argument);
  EXPECT_THROW(pare::checked_product("f", "n", 5, std::numeric_limits<Index>::min()),
               std::invalid_argument);
}

TEST(IsFinite, FollowsTheExponentBits) {
  constexpr std::uint64_t exponent = 0x7ff0'0000'0000'0000u, sign = 0x8000'0000'0000'0000u;
  for (const std::uint64_t s : {std::uint64_t{0}, sign}) {
    for (const std::uint64_t mantissa :
         {0x0ull, 0x1ull, 0x8'0000'0000'0000ull, 0xf'ffff'ffff'ffffull})
      EXPECT_FALSE(pare::is_finite(std::bit_cast<double>(s | exponent | mantissa)));
    for (std::uint64_t e = 0; e < 0x7ff; ++e)
      for (const std::uint64_t mantissa : {0x0ull, 0x1ull, 0xf'ffff'ffff'ffffull})
        ASSERT_TRUE(pare::is_finite(std::bit_cast<double>(s | (e << 52) | mantissa))) << e;
  }
}

TEST(IsFinite, AcceptsFloats) {
  EXPECT_TRUE(pare::is_finite(std::numeric_limits<float>::max()));
  EXPECT_TRUE(pare::is_finite(std::numeric_limits<float>::denorm_min()));
  EXPECT_FALSE(pare::is_finite(std::numeric_limits<float>::infinity()));
  EXPECT_FALSE(pare::is_finite(-std::numeric_limits<float>::infinity()));
  EXPECT_FALSE(pare::is_finite(std::numeric_limits<float>::quiet_NaN()));
}

}  // namespace
}  // namespace core_check_test
