// SPDX-License-Identifier: Apache-2.0
// Attention over key lists, against the oracle that knows which keys a row lists.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <pare/attention/attend_key_lists.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/tensor_view.hpp>

#include "attention/attend_calls.hpp"
#include "attention/backends.hpp"
#include "attention/data.hpp"
#include "attention/sources.hpp"
#include "support/allocations.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace attention_attend_key_lists_test {
namespace {

using pare::Index;
using pare::attention::attend;
using pare::attention::AttendOptions;
using pare::attention::AttendStats;
using pare::attention::BlockMask;
using pare::attention::ClampScores;
using pare::attention::Exact;
using pare::attention::KeyLists;
using pare::attention::KeyOrder;
using pare::testing::allocations;
using pare::testing::attention_bound;
using pare::testing::Coins;
using pare::testing::expect_attention;
using pare::testing::Inputs;
using pare::testing::Int8Rows;
using pare::testing::Layout;
using pare::testing::Outputs;
using pare::testing::Pages;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::ReversePool;
using pare::testing::same_outputs;
using pare::testing::Sees;
using pare::testing::Sizes;
using pare::testing::Tensor;

KeyLists tossed(const KeyLists::Shape& shape, unsigned percent, std::uint64_t seed = 5) {
  return KeyLists::from_predicate(shape, Coins{seed, percent});
}

template <class B, class S, class M = Exact>
Outputs<S> listed(const B& backend, const Inputs<S>& x, const KeyLists& lists,
                  AttendOptions options = {}, const M& modifier = {}) {
  Outputs<S> y(x.sizes);
  options.lse = y.lse_view();
  y.stats = attend(backend, x.q.view(), x.k.view(), x.v.view(), y.out.writable(), lists, modifier,
                   options);
  return y;
}

/// What a query lists and sees; `group` 1 where the lists are of query heads.
pare::testing::Visibility listed_and(const KeyLists& lists, const Sees& sees, Index group) {
  return [&lists, sees, group](Index b, Index h, Index i, Index j) {
    const auto row = lists.row(b, h / group, i);
    return sees(b, h, i, j) && std::find(row.begin(), row.end(), j) != row.end();
  };
}

template <class Case>
struct Listed : testing::Test {
  using Scalar = typename Case::scalar;
  static auto backend() { return Case::backend::make(); }
  static constexpr double bound = attention_bound<Case>();

  static void expect(const Sizes& z, const KeyLists& lists, AttendOptions options = {},
                     Sees sees = {}) {
    const Inputs<Scalar> x(z, 1, Layout::by_token);
    sees.queries = z.queries;
    sees.keys = z.keys;
    sees.causal = options.causal.value_or(false);
    const Index group = lists.shape().heads == z.kv_heads ? z.heads / z.kv_heads : 1;
    expect_attention(x, listed(backend(), x, lists, options), bound,
                     listed_and(lists, sees, group));
  }
};
// Weights are not rounded, so that what holds for floats holds for 16-bit storage.
using Cases =
    testing::Types<pare::testing::BackendAndScalar<pare::testing::ReferenceBackend, float>,
                   pare::testing::BackendAndScalar<pare::testing::BestBackend, float>,
                   pare::testing::BackendAndScalar<pare::testing::ThreadedBackend, double>>;
TYPED_TEST_SUITE(Listed, Cases);

TYPED_TEST(Listed, RowsAreTheSoftmaxOfWhatTheyList) {
  // Heads of registers that are held, one too many, not whole, and of a scalar; lists of none to
  // all.
  for (const auto& [key_dim, value_dim] : std::vector<std::pair<Index, Index>>{
           {64, 64}, {128, 40}, {32, 144}, {80, 7}, {1, 3}, {17, 128}, {70, 1}})
    this->expect({1, 2, 1, 37, 150, key_dim, value_dim}, tossed({1, 2, 37, 150}, 40));
  for (const unsigned percent : {0u, 2u, 100u})
    this->expect({2, 1, 1, 20, 300, 16, 16}, tossed({2, 1, 20, 300}, percent));
  for (const Index keys : {1, 7, 15, 16, 17, 31, 33})
    this->expect({1, 1, 1, 5, keys, 24, 8}, tossed({1, 1, 5, keys}, 70));
}

TYPED_TEST(Listed, ManyRowsPassOverSeveralBlocks) {
  this->expect({1, 1, 1, 300, 700, 16, 16}, tossed({1, 1, 300, 700}, 20));
  this->expect({1, 4, 2, 1, 3000, 16, 16}, tossed({1, 4, 1, 3000}, 3));
}

TYPED_TEST(Listed, HeadsShareListsAndKeys) {
  const Sizes z{2, 6, 2, 21, 90, 24, 16};
  this->expect(z, tossed({2, 6, 21, 90}, 30));
  this->expect(z, tossed({2, 2, 21, 90}, 30));
  this->expect(z, tossed({1, 1, 21, 90}, 30));
}

TYPED_TEST(Listed, OptionsHideWhatIsListed) {
  const Sizes z{2, 2, 1, 40, 70, 24, 16};
  const KeyLists lists = tossed({2, 2, 40, 70}, 50);
  this->expect(z, lists, {.causal = true});
  this->expect(z, lists, {.causal = true, .window = 9}, {.window = 9});
  this->expect(z, lists, {.window = 9, .sinks = 5}, {.window = 9, .sinks = 5});
  const std::vector<Index> lengths{70, 33};
  this->expect(z, lists, {.causal = true, .key_lengths = lengths}, {.lengths = {70, 33}});
}

TYPED_TEST(Listed, AllKeysAreDenseAttention) {
  using S = typename TestFixture::Scalar;
  const Sizes z{1, 4, 2, 50, 60, 24, 16};
  const Inputs<S> x(z);
  const std::vector<float> sinks{0.5f, -1.0f, -std::numeric_limits<float>::infinity(), 2.0f};
  const AttendOptions options{.causal = true, .scale = 0.3, .sink_logits = sinks};
  const KeyLists all = tossed({1, 1, 50, 60}, 100);
  const auto dense = pare::testing::attended(this->backend(), x, options);
  EXPECT_LE(pare::testing::difference(listed(this->backend(), x, all, options), dense),
            2 * this->bound);
  EXPECT_EQ(listed(this->backend(), x, all, options).stats.density, 1);
}

TYPED_TEST(Listed, ModifiersSeeTheirPlace) {
  using S = typename TestFixture::Scalar;
  const Sizes z{2, 4, 2, 30, 50, 24, 16};
  const Inputs<S> x(z);
  const KeyLists lists = tossed({2, 4, 30, 50}, 50);
  const auto bias = pare::testing::normal_tensor<S>({2, 4, 30, 50}, 9);
  const auto biased =
      listed(this->backend(), x, lists, {.causal = true}, pare::attention::bias_of(bias.view()));
  const auto seen = listed_and(lists, {.queries = 30, .keys = 50, .causal = true}, 1);
  expect_attention(x, biased, this->bound, seen,
                   [&](Index b, Index h, Index i, Index j, long double score) {
                     return score + static_cast<long double>(bias(b, h, i, j));
                   });
  const auto clamped = listed(this->backend(), x, lists, {.causal = true}, ClampScores{-0.25, 0.5});
  expect_attention(x, clamped, this->bound, seen,
                   [](Index, Index, Index, Index, long double score) {
                     return std::clamp(score, -0.25L, 0.5L);
                   });
}

TYPED_TEST(Listed, CountsThePairs) {
  using S = typename TestFixture::Scalar;
  const Inputs<S> x(Sizes{1, 1, 1, 4, 4, 8, 8});
  const auto lists = KeyLists::from_lists({1, 1, 4, 4}, {{0, 3}, {1}, {}, {0, 1, 2, 3}});
  EXPECT_EQ(listed(this->backend(), x, lists).stats.density, 7.0 / 16);
  EXPECT_EQ(listed(this->backend(), x, lists, {.causal = true}).stats.density, 6.0 / 10);
  EXPECT_EQ(listed(this->backend(), x, lists, {.causal = true, .window = 2}).stats.density,
            4.0 / 7);
}

TYPED_TEST(Listed, NaNsReachTheRowsThatListThem) {
  using S = typename TestFixture::Scalar;
  Inputs<S> x(Sizes{1, 1, 1, 3, 40, 24, 16});
  const auto nan = std::numeric_limits<S>::quiet_NaN();
  x.k(0, 0, 7, 3) = nan;
  x.v(0, 0, 9, 2) = nan;
  const auto lists = KeyLists::from_lists({1, 1, 3, 40}, {{1, 7, 30}, {2, 9}, {6, 8, 10}});
  const auto y = listed(this->backend(), x, lists);
  for (Index c = 0; c < 16; ++c) {
    EXPECT_TRUE(std::isnan(y.out(0, 0, 0, c)));
    EXPECT_EQ(std::isnan(y.out(0, 0, 1, c)), c == 2);
    EXPECT_FALSE(std::isnan(y.out(0, 0, 2, c)));
  }
}

TYPED_TEST(Listed, LargeScoresKeepTheirDifferences) {
  using S = typename TestFixture::Scalar;
  for (const double scale : {1e30, 1e-30}) {
    const Inputs<S> x(Sizes{1, 1, 1, 9, 60, 24, 16});
    const KeyLists lists = tossed({1, 1, 9, 60}, 40);
    const auto wanted = listed(pare::reference, x, lists, {.scale = scale});
    const auto got = listed(this->backend(), x, lists, {.scale = scale});
    for (std::size_t i = 0; i < got.out.list.size(); ++i)
      EXPECT_LE(std::abs(static_cast<double>(got.out.list[i] - wanted.out.list[i])), this->bound);
  }
}

template <class S>
struct ListedStorage : testing::Test {};
using Storages = testing::Types<pare::bf16, pare::f16>;
TYPED_TEST_SUITE(ListedStorage, Storages);

TYPED_TEST(ListedStorage, SixteenBitsAreTakenAsTheyAre) {
  const Sizes z{1, 2, 1, 33, 120, 72, 24};
  const Inputs<TypeParam> x(z, 2, Layout::apart);
  const KeyLists lists = tossed({1, 2, 33, 120}, 40);
  expect_attention(x, listed(pare::simd, x, lists, {.causal = true}), 1e-5,
                   listed_and(lists, {.queries = 33, .keys = 120, .causal = true}, 1));
}

TEST(ListedSources, HaveTheBitsOfATensor) {
  const Sizes z{2, 4, 2, 19, 90, 24, 16};
  Inputs<float> x(z);
  const KeyLists lists = tossed({2, 4, 19, 90}, 30);
  const Pages<float> pages(x, {90, 90}, 16, Layout::by_head);
  const Int8Rows rows(x);  // rounds what x has
  const auto from = [&](const auto& source) {
    Outputs<float> y(z);
    y.stats = attend(pare::simd, x.q.view(), source, y.out.writable(), lists,
                     AttendOptions{.causal = true, .lse = y.lse_view()});
    return y;
  };
  const Pages<float> rounded(x, {90, 90}, 16, Layout::by_head);
  const auto tensor = listed(pare::simd, x, lists, {.causal = true});
  EXPECT_TRUE(same_outputs(from(rounded.source()), tensor));
  EXPECT_TRUE(same_outputs(from(rows), tensor));
  EXPECT_FALSE(same_outputs(from(pages.source()), tensor)) << "before they were rounded";
}

TEST(ListedSources, ShorterSequencesListWhatTheyHave) {
  const Sizes z{2, 2, 2, 5, 60, 24, 16};
  const Inputs<float> x(z);
  const KeyLists lists = tossed({2, 2, 5, 60}, 50);
  const Pages<float> pages(x, {60, 31}, 16, Layout::by_token);
  Outputs<float> y(z);
  y.stats = attend(pare::simd, x.q.view(), pages.source(), y.out.writable(), lists,
                   AttendOptions{.causal = true, .lse = y.lse_view()});
  expect_attention(
      x, y, 1e-5,
      listed_and(lists, {.queries = 5, .keys = 60, .causal = true, .lengths = {60, 31}}, 1));
}

TEST(ListedCalls, HaveTheSameBitsForAnyThreadsAndStrides) {
  const Sizes z{2, 4, 2, 150, 200, 40, 24};
  const KeyLists lists = tossed({2, 4, 150, 200}, 30);
  const Inputs<float> x(z);
  const auto one = listed(pare::simd, x, lists, {.causal = true});
  for (const int threads : {2, 3, 7})
    EXPECT_TRUE(same_outputs(one, listed(pare::simd.threads(threads), x, lists, {.causal = true})));
  EXPECT_TRUE(same_outputs(one, listed(pare::simd.on(ReversePool{4}), x, lists, {.causal = true})));
  for (const Layout layout : {Layout::by_token, Layout::apart})
    EXPECT_TRUE(same_outputs(
        one, listed(pare::simd, Inputs<float>(z, 1, layout), lists, {.causal = true})));
}

/// Rows that lie one behind the other on cache lines are gathered where they are.
void expect_bits_wherever_rows_begin(const KeyLists& lists, Index keys) {
  constexpr Index heads = 2, key_dim = 32, value_dim = 16;
  const Index queries = lists.shape().queries;
  std::vector<float> q(static_cast<std::size_t>(heads * queries * key_dim));
  pare::AlignedBuffer<float> k(static_cast<std::size_t>(heads * keys * key_dim + 1));
  pare::AlignedBuffer<float> v(static_cast<std::size_t>(heads * keys * value_dim + 1));
  const auto fill = [](float* x, Index size, Index step) {
    for (Index i = 0; i < size; ++i) x[i] = static_cast<float>((i * step) % 1021) / 510 - 1;
  };
  const auto from = [&](Index moved) {
    fill(q.data(), heads * queries * key_dim, 7);
    fill(k.data() + moved, heads * keys * key_dim, 13);
    fill(v.data() + moved, heads * keys * value_dim, 31);
    std::vector<float> out(static_cast<std::size_t>(heads * queries * value_dim));
    const auto view = [=](auto* data, Index rows, Index dim) {
      return pare::TensorView<std::remove_pointer_t<decltype(data)>, 4>{
          data, {1, heads, rows, dim}, {heads * rows * dim, rows * dim, dim, 1}};
    };
    attend(pare::simd, view(static_cast<const float*>(q.data()), queries, key_dim),
           view(static_cast<const float*>(k.data() + moved), keys, key_dim),
           view(static_cast<const float*>(v.data() + moved), keys, value_dim),
           view(out.data(), queries, value_dim), lists);
    return out;
  };
  const std::vector<float> aligned = from(0);
  EXPECT_TRUE(aligned == from(1));
  const auto row = lists.row(0, 1, queries - 1);
  ASSERT_FALSE(row.empty());
  std::vector<double> sum(value_dim, 0.0);
  double mass = 0;
  const auto at = [](const float* x, Index rows, Index i, Index dim) {
    return x + (rows + i) * dim;
  };
  for (const Index j : row) {
    double score = 0;
    for (Index c = 0; c < key_dim; ++c)
      score += double{at(q.data(), queries, queries - 1, key_dim)[c]} *
               double{at(k.data() + 1, keys, j, key_dim)[c]};
    const double weight = std::exp(score / std::sqrt(double{key_dim}));
    mass += weight;
    for (std::size_t c = 0; c < sum.size(); ++c)
      sum[c] += weight * double{at(v.data() + 1, keys, j, value_dim)[c]};
  }
  for (std::size_t c = 0; c < sum.size(); ++c)
    EXPECT_NEAR(aligned[aligned.size() - sum.size() + c], sum[c] / mass, 1e-5);
}

TEST(ListedCalls, HaveTheSameBitsWhereverRowsBegin) {
  expect_bits_wherever_rows_begin(tossed({1, 2, 150, 1100}, 20), 1100);
}

TEST(ListedCalls, ListKeysBehindThoseThatPlacesTellApart) {
  const Index keys = 65536 + 700;
  expect_bits_wherever_rows_begin(
      KeyLists::from_lists({1, 2, 1, keys}, {{3, 500, 65535, 65536, 65600, 66200},
                                             {0, 64, 700, 65536 + 64, 65536 + 699}}),
      keys);
}

TEST(ListedCalls, TheSecondAllocatesNothing) {
  const Sizes z{1, 2, 1, 60, 200, 24, 16};
  const Inputs<float> x(z);
  const KeyLists lists = tossed({1, 2, 60, 200}, 30);
  pare::Workspace workspace;
  Outputs<float> y(z);
  const auto call = [&] {
    attend(pare::simd.with(workspace), x.q.view(), x.k.view(), x.v.view(), y.out.writable(), lists);
  };
  call();
  const long before = allocations.load();
  call();
  EXPECT_EQ(allocations.load(), before);
}

TEST(ListedCalls, WithoutQueriesDoNothing) {
  for (const Sizes& z : {Sizes{0, 2, 1, 4, 6, 8, 8}, Sizes{1, 2, 1, 0, 6, 8, 8}}) {
    const Inputs<float> x(z);
    const KeyLists lists = tossed({z.batch, 2, z.queries, 6}, 50);
    EXPECT_EQ(listed(pare::simd, x, lists).stats.density, 1);
    EXPECT_EQ(listed(pare::reference, x, lists).stats.density, 1);
  }
  const Inputs<float> x(Sizes{1, 2, 1, 3, 0, 8, 8});
  const auto y = listed(pare::simd, x, tossed({1, 2, 3, 0}, 50));
  for (const float value : y.out.list) EXPECT_EQ(value, 0);
}

TEST(ListedCalls, RefuseWhatDoesNotFit) {
  const Sizes z{2, 4, 2, 6, 10, 8, 8};
  Inputs<float> x(z);
  Outputs<float> y(z);
  const auto refuses = [&](const KeyLists& lists, const std::string& argument,
                           const AttendOptions& options = {}) {
    refuses_and_leaves_alone(
        [&] {
          attend(pare::simd, x.q.view(), x.k.view(), x.v.view(), y.out.writable(), lists, options);
        },
        "attention::attend", argument, y.out.list);
  };
  const KeyLists right = tossed({2, 4, 6, 10}, 50);
  refuses(tossed({3, 4, 6, 10}, 50), "lists");
  refuses(tossed({2, 3, 6, 10}, 50), "lists");
  refuses(tossed({2, 4, 5, 10}, 50), "lists");
  refuses(tossed({2, 4, 6, 11}, 50), "lists");
  refuses({}, "lists");
  const BlockMask mask = BlockMask::causal({.queries = 6, .keys = 10});
  refuses(right, "mask, order", {.mask = &mask});
  const KeyOrder order = KeyOrder::identity({1, 1, 10});
  refuses(right, "mask, order", {.order = &order});
  const std::vector<Index> offsets{0, 6};
  refuses(right, "query_offsets, key_offsets", {.query_offsets = offsets});
  refuses(right, "scale", {.scale = 0.0});
  refuses(right, "window", {.window = 0});
  const auto clamp = [&](double least, double most) {
    refuses_and_leaves_alone(
        [&] {
          attend(pare::reference, x.q.view(), x.k.view(), x.v.view(), y.out.writable(), right,
                 ClampScores{least, most});
        },
        "attention::attend", "least, most", y.out.list);
  };
  clamp(1, 0);
  clamp(-std::numeric_limits<double>::infinity(), 0);
  clamp(0, std::numeric_limits<double>::quiet_NaN());
  refuses_and_leaves_alone(
      [&] { attend(x.q.view(), x.k.view(), x.v.view(), x.q.writable(), right); },
      "attention::attend", "out", x.q.list);
  const auto overlaps = [&](const void* list) {
    auto* const data = static_cast<float*>(const_cast<void*>(list));
    const pare::TensorView<float, 4> out{data, {2, 4, 6, 8}, {192, 48, 8, 1}};
    const pare::TensorView<float, 3> lse{data, {2, 4, 6}, {24, 6, 1}};
    refuses_and_leaves_alone([&] { attend(x.q.view(), x.k.view(), x.v.view(), out, right); },
                             "attention::attend", "out", y.out.list);
    refuses_and_leaves_alone(
        [&] { attend(x.q.view(), x.k.view(), x.v.view(), y.out.writable(), right, {.lse = lse}); },
        "attention::attend", "lse", y.out.list);
  };
  overlaps(right.keys().data());
  overlaps(right.offsets().data());
  const Pages<float> pages(x, {10, 10}, 4, Layout::by_head);
  const std::vector<Index> lengths{1, 1};
  refuses_and_leaves_alone(
      [&] {
        attend(pare::simd, x.q.view(), pages.source(), y.out.writable(), right,
               AttendOptions{.key_lengths = lengths});
      },
      "attention::attend", "key_lengths", y.out.list);
}

}  // namespace
}  // namespace attention_attend_key_lists_test
