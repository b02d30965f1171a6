// SPDX-License-Identifier: Apache-2.0
// Keys by product quantisation, against counts and distances taken one by one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <pare/attention/attend_key_lists.hpp>
#include <pare/attention/product_keys.hpp>

#include "attention/attend_calls.hpp"
#include "attention/data.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"

namespace attention_product_keys_test {
namespace {

using pare::Index;
using pare::attention::encode;
using pare::attention::KeyLists;
using pare::attention::product_key_bytes;
using pare::attention::ProductCodebook;
using pare::attention::ProductCodes;
using pare::attention::ProductKeyOptions;
using pare::attention::select_keys;
using pare::attention::train_codebook;
using pare::testing::Inputs;
using pare::testing::Outputs;
using pare::testing::refusal;
using pare::testing::ReversePool;
using pare::testing::Sizes;
using pare::testing::Tensor;

/// Small whole numbers, of which sums are exact in any order.
template <class T>
std::vector<T> whole_numbers(Index size, std::uint64_t seed, int most = 9) {
  std::mt19937_64 random(seed);
  std::vector<T> x(static_cast<std::size_t>(size));
  for (T& value : x)
    value = static_cast<T>(static_cast<int>(random() % unsigned(2 * most + 1)) - most);
  return x;
}

template <class T>
ProductCodebook<T> whole_book(Index heads, Index subspaces, Index width) {
  return ProductCodebook<T>::from_words({heads, subspaces, width},
                                        whole_numbers<T>(heads * subspaces * 16 * width, 3));
}

/// Codes below `most`, few enough that many agree.
ProductCodes random_codes(const std::array<Index, 4>& extent, std::uint64_t seed, unsigned most) {
  std::mt19937_64 random(seed);
  ProductCodes x{extent, {}};
  x.codes.resize(static_cast<std::size_t>(extent[0] * extent[1] * extent[2] * extent[3]));
  for (std::uint8_t& code : x.codes) code = static_cast<std::uint8_t>(random() % most);
  return x;
}

/// Expects each row to hold `wanted` keys, none of which agrees less than one that is left out, or
/// as often and comes before it.
void expect_best(const KeyLists& lists, const ProductCodes& q, const ProductCodes& k,
                 Index wanted) {
  const Index group = q.extent[1] / k.extent[1], m = q.extent[3];
  for (Index b = 0; b < q.extent[0]; ++b)
    for (Index h = 0; h < q.extent[1]; ++h)
      for (Index i = 0; i < q.extent[2]; ++i) {
        const auto row = lists.row(b, h, i);
        const Index visible = lists.shape().listable(i);
        ASSERT_EQ(static_cast<Index>(row.size()), std::min(wanted, visible));
        const auto rank = [&](Index j) {
          Index equal = 0;
          for (Index s = 0; s < m; ++s)
            equal += q.of(b, h)[i * m + s] == k.of(b, h / group)[j * m + s] ? 1 : 0;
          return std::pair{equal, j};
        };
        auto least = std::pair{m + 1, Index{0}}, best_left = std::pair{Index{-1}, Index{0}};
        for (Index j = 0; j < visible; ++j)
          if (std::binary_search(row.begin(), row.end(), j))
            least = std::min(least, rank(j));
          else
            best_left = std::max(best_left, rank(j));
        EXPECT_GT(least, best_left) << b << ' ' << h << ' ' << i;
      }
}

template <class Case>
struct ProductKeys : testing::Test {
  using Scalar = typename Case::scalar;
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(ProductKeys, pare::testing::BackendsAndScalars);

TYPED_TEST(ProductKeys, CodesAreTheNearestWords) {
  using T = typename TestFixture::Scalar;
  for (const auto& [subspaces, width, tokens] :
       std::vector<std::array<Index, 3>>{{8, 8, 37}, {1, 5, 16}, {3, 1, 50}, {10, 4, 1}}) {
    Tensor<T> x({2, 4, tokens, subspaces * width}, pare::testing::Layout::by_token);
    x.list = whole_numbers<T>(static_cast<Index>(x.list.size()), 8);
    const auto book = whole_book<T>(2, subspaces, width);
    const ProductCodes codes = encode(this->backend(), x.view(), book);
    ASSERT_EQ(codes.extent, (std::array<Index, 4>{2, 4, tokens, subspaces}));
    for (Index b = 0; b < 2; ++b)
      for (Index h = 0; h < 4; ++h)
        for (Index i = 0; i < tokens; ++i)
          for (Index s = 0; s < subspaces; ++s) {
            std::vector<T> distance(16, T(0));
            for (Index w = 0; w < 16; ++w)
              for (Index c = 0; c < width; ++c)
                distance[static_cast<std::size_t>(w)] +=
                    std::abs(x(b, h, i, s * width + c) - book.of(h / 2)[(s * 16 + w) * width + c]);
            const auto nearest = std::min_element(distance.begin(), distance.end());
            ASSERT_EQ(Index{codes.of(b, h)[i * subspaces + s]}, nearest - distance.begin());
          }
  }
}

TYPED_TEST(ProductKeys, ARowWithANaNHasTheCodeZero) {
  using T = typename TestFixture::Scalar;
  Tensor<T> x({1, 1, 20, 8});
  x(0, 0, 4, 2) = std::numeric_limits<T>::quiet_NaN();
  x(0, 0, 5, 2) = std::numeric_limits<T>::infinity();
  const ProductCodes codes = encode(this->backend(), x.view(), whole_book<T>(1, 2, 4));
  EXPECT_EQ(codes.of(0, 0)[8], 0);
  EXPECT_EQ(codes.of(0, 0)[10], 0);
}

TYPED_TEST(ProductKeys, ListsAreThoseThatAgreeMost) {
  for (const auto& [m, most] : std::vector<std::pair<Index, unsigned>>{
           {1, 2}, {2, 3}, {3, 2}, {7, 4}, {8, 4}, {16, 3}, {31, 2}, {255, 16}})
    for (const bool causal : {false, true}) {
      const Index keys = m == 255 ? 70 : 130, queries = causal ? keys - 9 : 20;
      const ProductCodes q = random_codes({1, 2, queries, m}, 1, most);
      const ProductCodes k = random_codes({1, 1, keys, m}, 2, most);
      for (const Index wanted : {1, 5, 64, 129}) {
        KeyLists lists;
        select_keys(this->backend(), q, k, {.keys = wanted, .causal = causal}, lists);
        expect_best(lists, q, k, wanted);
      }
    }
}

TYPED_TEST(ProductKeys, ManyKeysAndHeads) {
  const ProductCodes q = random_codes({2, 4, 130, 8}, 1, 16);
  const ProductCodes k = random_codes({2, 2, 1100, 8}, 2, 16);
  KeyLists lists, wanted;
  select_keys(this->backend(), q, k, {}, lists);
  select_keys(pare::reference, q, k, {}, wanted);
  EXPECT_EQ(lists, wanted);
  EXPECT_EQ(lists.row(1, 3, 129).size(), 138u) << "an eighth of 1100, rounded up";
}

/// The published code leaves the slots of such rows at 0, so that key 0 counts many times.
TYPED_TEST(ProductKeys, RowsOfFewKeysListEachOnce) {
  const ProductCodes q = random_codes({1, 1, 40, 8}, 1, 4), k = random_codes({1, 1, 40, 8}, 2, 4);
  KeyLists lists;
  select_keys(this->backend(), q, k, {.keys = 16}, lists);
  for (Index i = 0; i < 16; ++i) {
    const auto row = lists.row(0, 0, i);
    ASSERT_EQ(static_cast<Index>(row.size()), i + 1);
    for (Index j = 0; j <= i; ++j) EXPECT_EQ(row[static_cast<std::size_t>(j)], j);
  }
  // What lists are is checked where they come in.
  EXPECT_EQ(lists,
            KeyLists::from_csr(lists.shape(), {lists.offsets().begin(), lists.offsets().end()},
                               {lists.keys().begin(), lists.keys().end()}));
}

TYPED_TEST(ProductKeys, AllKeysAreDenseAttention) {
  using T = typename TestFixture::Scalar;
  const Sizes z{1, 4, 2, 60, 60, 16, 16};
  const Inputs<T> x(z);
  const auto book = train_codebook(this->backend(), x.q.view(), x.k.view(), {.rounds = 2});
  const KeyLists lists = select_keys(this->backend(), x.q.view(), x.k.view(), book, {.keys = 1000});
  Outputs<T> y(z);
  attend(this->backend(), x.q.view(), x.k.view(), x.v.view(), y.out.writable(), lists,
         {.causal = true, .lse = y.lse_view()});
  EXPECT_LE(
      pare::testing::difference(y, pare::testing::attended(pare::reference, x, {.causal = true})),
      1e-5);
}

TYPED_TEST(ProductKeys, OfEqualKeysAnyWillDo) {
  using T = typename TestFixture::Scalar;
  Inputs<T> x(Sizes{1, 1, 1, 50, 50, 16, 16});
  for (Tensor<T>* t : {&x.q, &x.k, &x.v})
    for (Index i = 0; i < 50; ++i)
      for (Index c = 0; c < 16; ++c) (*t)(0, 0, i, c) = (*t)(0, 0, 0, c);
  const auto book = train_codebook(this->backend(), x.q.view(), x.k.view());
  const KeyLists lists = select_keys(this->backend(), x.q.view(), x.k.view(), book, {.keys = 6});
  Outputs<T> y(x.sizes);
  attend(this->backend(), x.q.view(), x.k.view(), x.v.view(), y.out.writable(), lists);
  for (Index i = 0; i < 50; ++i)
    for (Index c = 0; c < 16; ++c) EXPECT_NEAR(y.out(0, 0, i, c), x.v(0, 0, 0, c), 1e-6);
}

TEST(ProductCodebooks, FindClustersThatAreApart) {
  // 16 points in each sub-space, 100 apart, around which rows lie within 1.
  Tensor<float> x({1, 1, 400, 8});
  std::mt19937_64 random(4);
  for (Index i = 0; i < 400; ++i)
    for (Index c = 0; c < 8; ++c)
      x(0, 0, i, c) =
          100.0f * float((i * (c < 4 ? 1 : 7)) % 16) + float(random() % 2001) / 1000 - 1;
  const auto book = train_codebook(x.view(), x.view(), {.width = 4});
  const ProductCodes codes = encode(x.view(), book);
  for (Index i = 0; i < 400; ++i)
    for (Index s = 0; s < 2; ++s) {
      const float* word = book.of(0) + (s * 16 + codes.of(0, 0)[i * 2 + s]) * 4;
      for (Index c = 0; c < 4; ++c) EXPECT_LE(std::abs(x(0, 0, i, s * 4 + c) - word[c]), 2.0f);
    }
}

TEST(ProductCodebooks, RoundsLessenTheDistance) {
  const Inputs<float> x(Sizes{1, 2, 1, 300, 300, 16, 16});
  const auto distance = [&](Index rounds) {
    const auto book = train_codebook(x.q.view(), x.k.view(), {.rounds = rounds});
    double sum = 0;
    for (Index h = 0; h < 2; ++h) {
      const ProductCodes codes = encode(x.q.view(), book);
      for (Index i = 0; i < 300; ++i)
        for (Index c = 0; c < 16; ++c)
          sum += std::abs(
              double(x.q(0, h, i, c)) -
              double(book.of(0)[(c / 8 * 16 + codes.of(0, h)[i * 2 + c / 8]) * 8 + c % 8]));
    }
    return sum;
  };
  EXPECT_LT(distance(10), 0.97 * distance(0));
}

TEST(ProductCodebooks, AreTheSameOnAnyThreadsAndBackends) {
  Inputs<float> x(Sizes{2, 4, 2, 100, 120, 16, 16});
  x.q(0, 0, 3, 3) = std::numeric_limits<float>::quiet_NaN();  // left out
  const auto words = [](const auto& book) {
    return std::vector<float>(book.words().begin(), book.words().end());
  };
  const auto one = words(train_codebook(pare::simd, x.q.view(), x.k.view()));
  EXPECT_EQ(one, words(train_codebook(pare::simd.threads(3), x.q.view(), x.k.view())));
  EXPECT_EQ(one, words(train_codebook(pare::simd.on(ReversePool{3}), x.q.view(), x.k.view())));
  EXPECT_EQ(one, words(train_codebook(pare::reference, x.q.view(), x.k.view())));
  EXPECT_NE(one, words(train_codebook(x.q.view(), x.k.view(), {.seed = 1})));
}

TEST(ProductCodebooks, CountTheirBytes) {
  const auto book = whole_book<float>(2, 8, 8);
  const ProductCodes q = random_codes({1, 4, 64, 8}, 1, 16), k = random_codes({1, 2, 64, 8}, 2, 16);
  KeyLists lists;
  select_keys(q, k, {.keys = 8}, lists);  // on pare::simd
  const auto bytes = product_key_bytes(book, q, k, lists);
  EXPECT_EQ(bytes.codebook, 2 * 8 * 16 * 8 * 4);
  EXPECT_EQ(bytes.codes, 6 * 64 * 8);
  EXPECT_EQ(bytes.lists, lists.bytes());
  EXPECT_EQ(bytes.scores, 4 * (36 + 56 * 8) * 4);
  EXPECT_EQ(bytes.dense_map, 4 * 64 * 64 * 4);
}

TEST(ProductKeysCalls, RefuseWhatDoesNotFit) {
  const Inputs<float> x(Sizes{1, 4, 2, 20, 20, 16, 16});
  const auto trains = [&](const auto& q, const pare::attention::CodebookOptions& options,
                          const std::string& argument) {
    refusal([&] { train_codebook(q.view(), x.k.view(), options); }, "attention::train_codebook",
            argument);
  };
  trains(x.q, {.width = 0}, "width");
  trains(x.q, {.width = 5}, "width");
  trains(x.q, {.rounds = -1}, "rounds");
  trains(x.q, {.samples = 15}, "samples");
  trains(Tensor<float>({2, 4, 20, 16}), {}, "q");
  trains(Tensor<float>({1, 3, 20, 16}), {}, "q");
  trains(Tensor<float>({1, 4, 20, 8}), {}, "q");
  const Tensor<float> few({1, 1, 7, 16});
  refusal([&] { train_codebook(few.view(), few.view()); }, "attention::train_codebook", "q, k");

  using Book = ProductCodebook<float>;
  const auto made = [](const Book::Shape& shape, std::vector<float> words,
                       const std::string& argument) {
    refusal([&] { Book::from_words(shape, words); }, "attention::ProductCodebook::from_words",
            argument);
  };
  made({0, 1, 8}, {}, "shape");
  made({1, 1, 0}, {}, "shape");
  made({1, 0, 8}, {}, "subspaces");
  made({1, 256, 8}, {}, "subspaces");
  made({Index{1} << 40, 8, Index{1} << 40}, {}, "words");
  made({1, 1, 1}, std::vector<float>(15), "words");
  made({1, 1, 1}, std::vector<float>(16, std::numeric_limits<float>::infinity()), "words");

  const auto book = whole_book<float>(2, 2, 8);
  refusal([&] { encode(Tensor<float>({1, 2, 3, 8}).view(), book); }, "attention::encode", "x");
  refusal([&] { encode(Tensor<float>({1, 3, 3, 16}).view(), book); }, "attention::encode", "x");
  refusal([&] { encode(x.q.view(), Book{}); }, "attention::encode", "x");

  // Views that have no tokens may have any other extents.
  constexpr Index many = Index{1} << 40;
  const pare::TensorView<const float, 4> none{x.q.list.data(), {1, many, 0, 16}, {0, 0, 0, 1}};
  EXPECT_TRUE(encode(none, book).codes.empty());
  auto more = none;
  more.extent[0] = many;
  refusal([&] { encode(more, book); }, "attention::encode", "x");
  auto no_keys = none, some = none;
  no_keys.extent[1] = some.extent[1] = Index{1} << 53;
  some.extent[2] = 20;
  refusal([&] { train_codebook(some, no_keys); }, "attention::train_codebook", "k");

  const ProductCodes q = random_codes({1, 4, 20, 2}, 1, 16), k = random_codes({1, 2, 20, 2}, 2, 16);
  KeyLists lists;
  select_keys(pare::simd, q, k, {.keys = 3}, lists);
  const KeyLists before = lists;
  const auto selects = [&](const ProductCodes& queries, const ProductCodes& keys,
                           const ProductKeyOptions& options, const std::string& argument) {
    refusal([&] { select_keys(pare::simd, queries, keys, options, lists); },
            "attention::select_keys", argument);
    EXPECT_EQ(lists, before);
  };
  selects(q, k, {.keys = 0}, "keys");
  selects(q, k, {.keys = -1}, "keys");
  selects(random_codes({2, 4, 20, 2}, 1, 16), k, {}, "q");
  selects(random_codes({1, 3, 20, 2}, 1, 16), k, {}, "q");
  selects(random_codes({1, 4, 20, 3}, 1, 16), k, {}, "q");
  selects(random_codes({1, 4, 20, 2}, 1, 17), k, {}, "q");
  selects(q, random_codes({1, 2, 20, 2}, 2, 256), {}, "k");
  selects(q, {{1, 2, 20, 2}, {}}, {}, "k");
  selects({{1, 2, 20, 0}, {}}, {{1, 2, 20, 0}, {}}, {}, "q");
  selects({{1, -2, 20, 2}, {}}, k, {}, "q");
}

}  // namespace
}  // namespace attention_product_keys_test
