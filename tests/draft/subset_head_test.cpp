// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include <pare/draft/low_rank_head.hpp>
#include <pare/draft/markov_head.hpp>
#include <pare/draft/stored_head.hpp>
#include <pare/draft/subset_head.hpp>

#include "draft/heads.hpp"

namespace draft_subset_head_test {
namespace {

using pare::bf16, pare::Index;
using pare::kernel::Q4_0, pare::kernel::Q4_1, pare::kernel::Q8_0;
using pare::testing::HeadRows;
using pare::testing::refusal;
using namespace pare::draft;

static_assert(DraftHead<SubsetHead<DenseHead<float>>> && DraftHead<StoredHead<bf16>> &&
              DraftHead<StoredHead<Q8_0>> && DraftHead<MarkovHead<bf16>::After> &&
              DraftHead<SubsetHead<StoredHead<Q4_1>>>);

constexpr float infinity = std::numeric_limits<float>::infinity();

std::vector<std::int32_t> every_third(Index tokens) {
  std::vector<std::int32_t> ids;
  for (std::int32_t i = 1; i < tokens; i += 3) ids.push_back(i);
  return ids;
}

template <class Backend>
struct SubsetHeadTest : testing::Test {};
using Backends = testing::Types<pare::testing::ReferenceBackend, pare::testing::BestBackend,
                                pare::testing::ThreadedBackend>;
TYPED_TEST_SUITE(SubsetHeadTest, Backends);

TYPED_TEST(SubsetHeadTest, AnswersAreThoseOfMaskedLogits) {  // S7
  const auto backend = TypeParam::make();
  const Index tokens = 15000;
  const auto w = pare::testing::integer_matrix<HeadRows<float>>(tokens, 20, 1);
  const auto h = pare::testing::integer_matrix<HeadRows<float>>(3, 20, 2);
  const auto ids = every_third(tokens);
  const auto head = subset_of<float>(w, ids);
  HeadRows<float> all(3, tokens), masked = HeadRows<float>::Constant(3, tokens, -infinity);
  DenseHead<float>(w).logits(backend, h, all);
  for (const auto id : ids) masked.col(id) = all.col(id);
  const auto top = head.top_k(backend, h, 50, 3.0);
  pare::testing::expect_summary(top, masked, 3.0);
  const std::vector<Index> positions{5, 6, 7};
  const pare::GumbelNoise noise{4};
  const auto drawn = head.sample(backend, h, positions, noise, 30.0);
  for (Index r = 0; r < 3; ++r) {
    double most = -infinity;
    std::int32_t best = -1;
    for (const auto id : ids) {
      const double score =
          static_cast<double>(masked(r, id)) / 30.0 +
          noise.at(positions[static_cast<std::size_t>(r)], static_cast<std::uint32_t>(id));
      if (score > most) most = score, best = id;
    }
    EXPECT_EQ(drawn[static_cast<std::size_t>(r)], best);
  }
  HeadRows<float> values(3, 2);
  const std::vector<std::int32_t> wanted{0, 1, 4, 5, 2, 14998};
  head.values_at(backend, h, wanted, values);
  for (Index r = 0; r < 3; ++r)
    for (Index j = 0; j < 2; ++j)
      EXPECT_EQ(values(r, j), masked(r, wanted[static_cast<std::size_t>(2 * r + j)]));
  EXPECT_TRUE(head.contains(4));
  EXPECT_FALSE(head.contains(5));
}

TYPED_TEST(SubsetHeadTest, MarkovIsTheSumOfBothTerms) {
  const auto backend = TypeParam::make();
  const Index tokens = 300, d = 20, rank = 6, markov = 5;
  const auto down = pare::testing::integer_matrix<HeadRows<float>>(rank, d, 1);
  const auto up = pare::testing::integer_matrix<HeadRows<float>>(tokens, rank, 2);
  const auto first = pare::testing::integer_matrix<HeadRows<float>>(tokens, markov, 3);
  const auto second = pare::testing::integer_matrix<HeadRows<float>>(tokens, markov, 4);
  const auto h = pare::testing::integer_matrix<HeadRows<float>>(3, d, 5);
  const std::vector<std::int32_t> last{7, 299, 0};
  const MarkovHead<float> head(down, up, first, second);
  HeadRows<float> z(3, tokens), embedded(3, markov);
  head.after(last).logits(backend, h, z);
  for (Index r = 0; r < 3; ++r) embedded.row(r) = first.row(last[static_cast<std::size_t>(r)]);
  // Integers: exact in any order.
  const HeadRows<float> wanted =
      (h * down.transpose()) * up.transpose() + embedded * second.transpose();
  EXPECT_EQ(z, wanted);
  pare::testing::expect_summary(head.after(last).top_k(backend, h, 9, 100.0), z, 100.0);
}

template <class W>
void expect_stored() {
  const Index tokens = 200, d = 64;
  const auto dense = pare::testing::random_matrix<HeadRows<float>>(tokens, d, 1);
  std::vector<W> stored(static_cast<std::size_t>(tokens * d / pare::kernel::weight_inputs<W>));
  HeadRows<float> values = dense;
  for (std::size_t i = 0; i < stored.size(); ++i) {
    float* const at = values.data() + static_cast<Index>(i) * pare::kernel::weight_inputs<W>;
    if constexpr (pare::kernel::WeightBlock<W>) {
      for (std::size_t j = 0; j < sizeof(stored[i].q); ++j)
        stored[i].q[j] =
            static_cast<std::remove_cvref_t<decltype(stored[i].q[j])>>(37 * i + 11 * j);
      stored[i].d = {static_cast<std::uint8_t>(i), 0x2c};
      if constexpr (requires { stored[i].m; }) stored[i].m = {0, 0xb8};
      dequantize(stored[i], at);
    } else {
      stored[i] = W(*at);
      *at = static_cast<float>(stored[i]);
    }
  }
  const auto head = [&] {
    if constexpr (pare::kernel::WeightBlock<W>)
      return StoredHead<W>(std::span<const W>(stored), tokens, d);
    else
      return StoredHead<W>(pare::TensorView<const W, 2>{stored.data(), {tokens, d}, {d, 1}});
  }();
  const auto h = pare::testing::random_matrix<HeadRows<float>>(19, d, 5);
  HeadRows<float> z(19, tokens), one(1, tokens), reference(19, tokens);
  head.logits(pare::simd.threads(3), h, z);
  head.logits(pare::reference, h, reference);
  for (Index r = 0; r < 19; ++r) {
    const Eigen::VectorXd wanted = values.cast<double>() * h.row(r).cast<double>().transpose();
    const Eigen::VectorXd sizes =
        values.cast<double>().cwiseAbs() * h.row(r).cast<double>().cwiseAbs().transpose();
    for (Index o = 0; o < tokens; ++o) {
      ASSERT_NEAR(z(r, o), wanted(o), 2 * 64 * 0x1p-23 * sizes(o));
      ASSERT_NEAR(reference(r, o), wanted(o), 0x1p-22 * sizes(o));
    }
    head.logits(h.row(r), one);
    ASSERT_TRUE(pare::testing::equal_bits(one, HeadRows<float>(z.row(r))));
  }
  pare::testing::expect_summary(head.top_k(h, 8), z, 1);
}

TEST(StoredHead, IsThatOfTheWidenedWeight) {
  expect_stored<float>();
  expect_stored<bf16>();
  expect_stored<pare::f16>();
  expect_stored<Q8_0>();
  expect_stored<Q4_0>();
  expect_stored<Q4_1>();
}

TEST(HeadBits, LatentsMayBeMoved) {
  const LowRankHead<float> head(pare::testing::integer_matrix<HeadRows<float>>(6, 20, 1),
                                pare::testing::integer_matrix<HeadRows<float>>(100, 6, 2));
  const auto h = pare::testing::integer_matrix<HeadRows<float>>(2, 20, 3);
  HeadRows<float> u(2, 6), z(2, 100), moved(2, 100);
  head.latents_of(pare::simd, h, u);
  head.logits(h, z);
  head.up().logits(u, moved);
  EXPECT_EQ(z, moved);
}

TEST(SubsetHead, OffsetsAreThoseOfEagle) {
  const std::vector<std::int64_t> d2t{0, 0, 1, 5, 5};
  const std::vector<std::int32_t> wanted{0, 1, 3, 8, 9};
  EXPECT_EQ(ids_of_offsets(d2t, 10), wanted);
  const std::array<bool, 10> t2d{true, true, false, true, false, false, false, false, true, true};
  EXPECT_EQ(ids_of_offsets(d2t, std::span<const bool>(t2d)), wanted);
}

TEST(SubsetHead, RefusesBrokenTables) {
  constexpr const char* offsets = "draft::ids_of_offsets";
  using Offsets = std::vector<std::int64_t>;
  for (const Offsets& d2t : {Offsets{0, 5, 4, 2}, Offsets{-1, 0}, Offsets{0, 0, 3, 20},
                             Offsets{0, 2, 4, 6, 8}, Offsets{}})
    refusal([&] { ids_of_offsets(d2t, 10); }, offsets, "d2t");
  for (const Index tokens : {Index{0}, Index{-3}, Index{1} << 31, Index{1} << 40})
    refusal([&] { ids_of_offsets(Offsets{std::int64_t{1} << 33}, tokens); }, offsets, "vocabulary");
  std::array<bool, 10> t2d{true, true};
  refusal([&] { ids_of_offsets(Offsets{0, 0, 0}, std::span<const bool>(t2d)); }, offsets, "t2d");
  refusal([&] { ids_of_offsets(Offsets{0, 1}, std::span<const bool>(t2d)); }, offsets, "t2d");
  const auto w = pare::testing::random_matrix<HeadRows<float>>(10, 4, 1);
  using Ids = std::vector<std::int32_t>;
  for (const Ids& ids : {Ids{1, 1}, Ids{2, 1}, Ids{-1, 2}, Ids{1, 10}, Ids{}}) {
    refusal([&] { subset_of<float>(w, ids); }, "draft::subset_of", "ids");
    refusal([&] { SubsetHead(DenseHead<float>(w.topRows(2)), ids, 10); }, "draft::SubsetHead",
            "ids");
  }
  refusal([&] { SubsetHead(DenseHead<float>(w.topRows(2)), Ids{1, 2, 3}, 10); },
          "draft::SubsetHead", "ids");
  refusal([&] { SubsetHead(subset_of<float>(w, Ids{1, 2}), Ids{1, 2}, 10); }, "draft::SubsetHead",
          "head");
}

TEST(MarkovHead, RefusesWhatDoesNotFit) {
  const HeadRows<float> down(3, 8), up(20, 3), first(20, 2), second(20, 2), thin(20, 0), few(19, 2);
  constexpr const char* made = "draft::MarkovHead";
  refusal([&] { MarkovHead<float>(down, few, first, second); }, made, "up");
  refusal([&] { MarkovHead<float>(down, up, few, second); }, made, "first");
  refusal([&] { MarkovHead<float>(down, up, thin, thin); }, made, "first");
  refusal([&] { MarkovHead<float>(down, up, first, few); }, made, "second");
  const MarkovHead<float> head(down, up, first, second);
  const std::vector<std::int32_t> last{1, 2}, bad{1, 20};
  refusal([&] { head.after(bad); }, "draft::MarkovHead::after", "last");
  HeadSummary<float> out;
  out.ids = {77};
  const HeadRows<float> h = HeadRows<float>::Zero(3, 8);
  pare::testing::refuses_and_leaves_alone(
      [&] { head.after(last).reduce(pare::simd, h, {.k = 1}, out); }, "draft::MarkovHead::after",
      "last", out.ids);
}

TEST(StoredHead, RefusesWhatDoesNotFit) {
  const std::vector<Q8_0> blocks(6);
  constexpr const char* function = "draft::StoredHead";
  refusal([&] { StoredHead<Q8_0>(blocks, 0, 64); }, function, "outputs");
  refusal([&] { StoredHead<Q8_0>(blocks, 3, 65); }, function, "inputs");
  refusal([&] { StoredHead<Q8_0>(blocks, 2, 64); }, function, "blocks");
  const HeadRows<float> w(4, 6);
  refusal([&] { StoredHead<float>(transpose(pare::as_const(pare::to_view(w)))); }, function,
          "weight");
  refusal([&] { StoredHead<float>(pare::TensorView<const float, 2>{w.data(), {0, 6}, {6, 1}}); },
          function, "weight");
}

}  // namespace
}  // namespace draft_subset_head_test
