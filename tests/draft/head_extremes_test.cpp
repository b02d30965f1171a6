// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <sys/mman.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include <pare/draft/keyed_noise.hpp>
#include <pare/draft/low_rank_head.hpp>
#include <pare/draft/markov_head.hpp>
#include <pare/draft/stored_head.hpp>
#include <pare/draft/subset_head.hpp>

#include "draft/heads.hpp"

namespace draft_head_extremes_test {
namespace {

using pare::bf16, pare::Index, pare::TensorView;
using pare::testing::HeadRows;
using pare::testing::refusal;
using namespace pare::draft;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

template <class Case>
struct HeadExtremesTest : testing::Test {};
TYPED_TEST_SUITE(HeadExtremesTest, pare::testing::BackendsAndScalars);

/// Expects the summary of all logits, and the draws of the largest z / temperature + G.
template <class Head, class T>
void expect_answers(const auto& backend, const Head& head, const HeadRows<T>& h,
                    double temperature) {
  HeadRows<T> z(h.rows(), head.outputs());
  head.logits(backend, h, z);
  pare::testing::expect_summary(head.top_k(backend, h, 5, temperature), z, temperature);
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    std::vector<Index> positions;
    for (Index r = 0; r < h.rows(); ++r) positions.push_back(r + 40);
    const pare::GumbelNoise noise{seed};
    const auto drawn = head.sample(backend, h, positions, noise, temperature);
    for (Index r = 0; r < h.rows(); ++r) {
      double most = -infinity;
      std::int32_t best = -1;
      for (Index i = 0; i < z.cols(); ++i) {
        const double score = static_cast<double>(z(r, i)) / temperature +
                             noise.at(r + 40, static_cast<std::uint32_t>(i));
        if (score > most) most = score, best = static_cast<std::int32_t>(i);
      }
      ASSERT_EQ(drawn[static_cast<std::size_t>(r)], best) << temperature << " row " << r;
      ASSERT_EQ(keyed_sample(z.row(r), {.temperature = temperature}, noise, r + 40), best);
    }
  }
}

TYPED_TEST(HeadExtremesTest, EveryTemperatureHasItsLaw) {
  using T = typename TypeParam::scalar;
  HeadRows<T> w = pare::testing::random_matrix<HeadRows<T>>(150, 7, 3);
  const auto h = pare::testing::random_matrix<HeadRows<T>>(3, 7, 4);
  for (const bool hidden : {false, true}) {
    if (hidden) w.row(20).setConstant(static_cast<T>(-infinity));
    const HeadRows<T> rows = hidden ? HeadRows<T>(h.cwiseAbs()) : h;
    const DenseHead<T> head(w);
    for (const double temperature : {1e-5, 1e-3, 1e20, 1e37, 1e44, 1e46, 1e50, 1e300})
      expect_answers(TypeParam::backend::make(), head, rows, temperature);
  }
}

TYPED_TEST(HeadExtremesTest, LogitsNearTheEndsOfTheScalarHaveALaw) {
  using T = typename TypeParam::scalar;
  const T scale = std::is_same_v<T, float> ? T(1e18) : static_cast<T>(1e148);
  const double size = static_cast<double>(scale) * static_cast<double>(scale);
  const HeadRows<T> w = pare::testing::random_matrix<HeadRows<T>>(150, 7, 3) * scale;
  const HeadRows<T> h = pare::testing::random_matrix<HeadRows<T>>(3, 7, 4) * scale;
  for (const double temperature : {1e-5, 1e-3, 1.0, size / 10, size, 10 * size})
    // Of either sign, and all of one.
    for (const int sign : {0, 1, -1}) {
      const HeadRows<T> weight = sign == 0 ? w : HeadRows<T>(w.cwiseAbs() * T(sign));
      const HeadRows<T> rows = sign == 0 ? h : HeadRows<T>(h.cwiseAbs());
      expect_answers(TypeParam::backend::make(), DenseHead<T>(weight), rows, temperature);
    }
}

TEST(HeadExtremes, OfEqualSumsTheLowestTokenIsDrawn) {
  // Steps of float at 1e18 are larger than any noise; outputs of many runs have the same sum.
  const HeadRows<float> w = HeadRows<float>::Constant(20000, 1, 1e18f);
  expect_answers(pare::simd, DenseHead<float>(w), HeadRows<float>(HeadRows<float>::Ones(2, 1)),
                 0.9);
}

TEST(HeadExtremes, ARangeBeyondFloatIsSummed) {
  // z = -3e38, 0 and 3e38, whose difference no float holds.
  HeadRows<float> w(3, 1), h = HeadRows<float>::Constant(1, 1, 1);
  w << -3e38f, 0, 3e38f;
  const DenseHead<float> head(w);
  const auto top = head.top_k(h, 3, 2e38);
  EXPECT_NEAR(top.log_sum_exp[0], std::log(std::exp(1.5) + 1 + std::exp(-1.5)), 1e-6);
}

TEST(HeadExtremes, QuotientsBeyondDoubleAreNoLaw) {
  HeadRows<double> w(3, 1), h = HeadRows<double>::Constant(1, 1, 1);
  w << 1e304, 1.5e304, -1e300;
  const std::vector<Index> positions{3};
  for (const double sign : {1.0, -1.0}) {
    const DenseHead<double> head(
        HeadRows<double>(w * sign - HeadRows<double>::Constant(3, 1, sign < 0 ? 1e304 : 0)));
    HeadRows<double> z(1, 3);
    head.logits(h, z);
    const auto expect = [&](const auto& backend) {
      HeadSummary<double> got;
      head.reduce(
          backend, h,
          {.k = 2, .temperature = 1e-5, .noise = pare::GumbelNoise{1}, .positions = positions},
          got);
      EXPECT_EQ(got.status[0], RowStatus::NotFinite);
      EXPECT_EQ(got.id(0, 0), -1);
      EXPECT_EQ(got.drawn[0], -1);
    };
    expect(pare::reference);
    expect(pare::simd);
    std::vector<double> law(3, 7.0);
    refusal([&] { token_law(z.row(0), {.temperature = 1e-5}, law); }, "draft::token_law", "logits");
    EXPECT_EQ(law[0], 7.0);
    refusal([&] { keyed_sample(z.row(0), {.temperature = 1e-5}, {1}, 0); }, "draft::keyed_sample",
            "logits");
    EXPECT_EQ(head.argmax(h)[0], sign > 0 ? 1 : 2);  // at a temperature of 1 there is one
  }
}

TEST(HeadExtremes, BytesOfANanWeightAreNoLaw) {
  const auto w = pare::testing::random_matrix<HeadRows<float>>(100, 30, 1);
  const auto h = pare::testing::random_matrix<HeadRows<float>>(2, 30, 2);
  for (const double bad : {nan, infinity, -infinity})
    for (const Index input : {0, 29}) {
      HeadRows<float> spoilt = w;
      spoilt(70, input) = static_cast<float>(bad);
      for (const auto status : QuantizedHead(spoilt).top_k(h, 3).status)
        EXPECT_EQ(status, RowStatus::NotFinite) << bad << " at " << input;
    }
}

TEST(HeadExtremes, BytesOfDenormalWeightsAreWithinHalfAStep) {
  // In steps of the least float; of most of these sizes a 127th is none.
  const float least = std::numeric_limits<float>::denorm_min();
  for (const int size : {1, 60, 63, 64, 100, 127, 143, 190, 200, 255, 1000}) {
    HeadRows<float> w(4, 2), h = HeadRows<float>::Identity(2, 2), z(2, 4);
    w << static_cast<float>(size), 0, static_cast<float>(-size), 1, 1, static_cast<float>(size), 0,
        0;
    w *= least;
    QuantizedHead(w).logits(h, z);
    for (Index o = 0; o < 3; ++o)
      for (Index i = 0; i < 2; ++i)
        EXPECT_LE(std::abs(z(i, o) - w(o, i)),
                  least * std::ceil(static_cast<float>(size) / 127) / 2)
            << size << " output " << o;
  }
}

TEST(HeadExtremes, MoreThanTwoToThe31WeightsAreReached) {
  // 8 GiB of zeros that are nowhere, but for what is written.
  constexpr Index outputs = Index{1} << 20, inputs = 4096, bytes = outputs * inputs * 2;
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) GTEST_SKIP() << "no address space";
  auto* const w = static_cast<bf16*>(memory);
  const auto h = pare::testing::integer_matrix<HeadRows<float>>(1, inputs, 2);
  {
    w[outputs * inputs - 1] = bf16(3.0f);  // of the last output and input, in rows and in panels
    const StoredHead<bf16> stored(TensorView<const bf16, 2>{w, {outputs, inputs}, {inputs, 1}});
    HeadRows<float> values(1, 1);
    const std::vector<std::int32_t> last{outputs - 1};
    stored.values_at(h, last, values);
    EXPECT_EQ(values(0, 0), 3 * h(0, inputs - 1));
    const detail::PanelTiles<bf16> tiles{w, nullptr, outputs, inputs};
    std::array<float, 64> z;
    tiles.tile(pare::simd, outputs / 64 - 1, h.data(), inputs, 1, z.data());
    EXPECT_EQ(z[63], 3 * h(0, inputs - 1));
    EXPECT_EQ(tiles.weight(outputs - 1, inputs - 1), 3);
  }
  munmap(memory, bytes);
}

TEST(HeadExtremes, AnyAlignmentOfAScalarHasTheSameBits) {
  const Index outputs = 70, inputs = 33;
  const auto w = pare::testing::random_matrix<HeadRows<float>>(outputs, inputs, 1);
  const auto h = pare::testing::random_matrix<HeadRows<float>>(3, inputs, 2);
  HeadRows<float> wanted(3, outputs), dense(3, outputs);
  StoredHead<float>(pare::as_const(pare::to_view(w))).logits(h, wanted);
  DenseHead<float>(w).logits(h, dense);
  for (const std::size_t offset : {1u, 3u, 7u}) {
    std::vector<float> a(offset + std::size_t(w.size())), b(offset + std::size_t(h.size())),
        c(offset + std::size_t(wanted.size()));
    std::copy_n(w.data(), w.size(), a.data() + offset);
    std::copy_n(h.data(), h.size(), b.data() + offset);
    const TensorView<const float, 2> weight{a.data() + offset, {outputs, inputs}, {inputs, 1}};
    const TensorView<const float, 2> hidden{b.data() + offset, {3, inputs}, {inputs, 1}};
    const TensorView<float, 2> z{c.data() + offset, {3, outputs}, {outputs, 1}};
    StoredHead<float>(weight).logits(hidden, z);
    for (Index r = 0; r < 3; ++r)
      for (Index o = 0; o < outputs; ++o) ASSERT_EQ(z(r, o), wanted(r, o));
    DenseHead<float>(weight).logits(hidden, z);
    for (Index r = 0; r < 3; ++r)
      for (Index o = 0; o < outputs; ++o) ASSERT_EQ(z(r, o), dense(r, o));
  }
}

TEST(HeadExtremes, ARowMayBeReadManyTimes) {
  const auto w = pare::testing::random_matrix<HeadRows<float>>(70, 8, 1);
  const auto h = pare::testing::random_matrix<HeadRows<float>>(1, 8, 2);
  const DenseHead<float> head(w);
  const TensorView<const float, 2> many{h.data(), {20, 8}, {0, 1}};
  const auto one = head.top_k(h, 3), all = head.top_k(many, 3);
  for (Index r = 0; r < 20; ++r) EXPECT_EQ(all.id(r, 2), one.id(0, 2));
}

TEST(HeadExtremes, ViewsThatAreNoneAreRefusedBeforeMemoryIsTaken) {
  using View = TensorView<const float, 2>;
  const Index big = Index{1} << 28;
  const HeadRows<float> w = pare::testing::random_matrix<HeadRows<float>>(10, 4, 1);
  const std::vector<std::int32_t> ids{1, 2};
  for (const View& none : {View{nullptr, {big, big}, {big, 1}}, View{w.data(), {-3, 4}, {4, 1}},
                           View{w.data(), {3, -4}, {4, 1}}, View{nullptr, {3, 4}, {4, 1}},
                           View{w.data(), {Index{1} << 31, Index{1} << 40}, {0, 0}},
                           View{w.data(), {Index{1} << 62, 4}, {4, 1}}}) {
    refusal([&] { DenseHead<float>{none}; }, "draft::PanelHead", "w");
    refusal([&] { QuantizedHead{none}; }, "draft::PanelHead", "w");
    refusal([&] { LowRankHead<float>(none, w); }, "draft::LowRankHead", "down");
    refusal([&] { LowRankHead<float>(w, none); }, "draft::LowRankHead", "up");
    refusal([&] { MarkovHead<float>(none, w, w, w); }, "draft::MarkovHead", "down");
    refusal([&] { MarkovHead<float>(w, none, w, w); }, "draft::MarkovHead", "up");
    refusal([&] { MarkovHead<float>(w, w, none, w); }, "draft::MarkovHead", "first");
    refusal([&] { MarkovHead<float>(w, w, w, none); }, "draft::MarkovHead", "second");
    refusal([&] { StoredHead<float>{none}; }, "draft::StoredHead", "weight");
    refusal([&] { subset_of<float>(none, ids); }, "draft::subset_of", "w");
    DenseHead<float> head(10, 4);
    refusal([&] { head.set_rows(0, none); }, "draft::PanelHead::set_rows", "rows");
    HeadSummary<float> out;
    out.rows = 77;
    refusal([&] { head.reduce(pare::simd, none, {.k = 1}, out); }, "draft::reduce", "hidden");
    EXPECT_EQ(out.rows, 77);
    HeadRows<float> z(3, 10);
    refusal([&] { head.logits(none, z); }, "draft::logits", "hidden");
    refusal([&] { head.values_at(none, {}, z); }, "draft::values_at", "hidden");
  }
  // Extents that fit, and no memory for what is made of them.
  const DenseHead<float> head(10, 4);
  HeadSummary<float> out;
  out.rows = 77;
  const View many{w.data(), {Index{1} << 58, 4}, {0, 1}};
  refusal([&] { head.reduce(pare::simd, many, {.k = 10}, out); }, "draft::reduce", "hidden");
  EXPECT_EQ(out.rows, 77);
}

TEST(HeadExtremes, NothingThatAHeadReadsIsWritten) {
  std::vector<float> memory(400, 1.0f);
  const TensorView<const float, 2> w{memory.data(), {20, 10}, {10, 1}};
  const TensorView<float, 2> z{memory.data() + 190, {2, 20}, {20, 1}};
  const StoredHead<float> head(w);
  const HeadRows<float> h = HeadRows<float>::Ones(2, 10);
  const std::vector<std::int32_t> tokens(40, 0), ids = [] {
    std::vector<std::int32_t> all(20);
    for (std::size_t i = 0; i < 20; ++i) all[i] = static_cast<std::int32_t>(i);
    return all;
  }();
  const auto each = [&](const auto& any) {
    for (const auto refuse : {true, false}) {
      const TensorView<float, 2> to{refuse ? z.data : z.data + 10, z.extent, z.stride};
      if (refuse) {
        pare::testing::refuses_and_leaves_alone([&] { any.logits(h, to); }, "draft::logits", "y",
                                                memory);
        pare::testing::refuses_and_leaves_alone([&] { any.values_at(h, tokens, to); },
                                                "draft::values_at", "values", memory);
      } else {
        any.logits(h, to);
        EXPECT_EQ(to(1, 19), 10);
        EXPECT_EQ(memory[199], 1);
        std::fill(memory.begin(), memory.end(), 1.0f);
      }
    }
  };
  each(head);
  each(SubsetHead<StoredHead<float>>(head, ids, 20));
}

TEST(HeadExtremes, AnswersAreApartFromWhatTheyAreOf) {
  const HeadRows<float> down = pare::testing::integer_matrix<HeadRows<float>>(3, 8, 1);
  const HeadRows<float> up = pare::testing::integer_matrix<HeadRows<float>>(20, 3, 2);
  const HeadRows<float> first = pare::testing::integer_matrix<HeadRows<float>>(20, 2, 3);
  const MarkovHead<float> head(down, up, first, first);
  const DenseHead<float> dense(20, 8);
  HeadSummary<float> out;
  const HeadRows<float> h = HeadRows<float>::Zero(3, 8);
  const std::vector<Index> positions{1, 2, 3};
  head.after(std::vector<std::int32_t>{1, 2, 3})
      .reduce(pare::simd, h, {.k = 1, .noise = pare::GumbelNoise{1}, .positions = positions}, out);
  const auto refused = [&](const auto& any, const auto& hidden) {
    pare::testing::refuses_and_leaves_alone([&] { any.reduce(pare::simd, hidden, {.k = 9}, out); },
                                            "draft::reduce", "out", out.ids, out.values, out.drawn);
  };
  refused(head.after(out.ids), h);
  refused(head.after(out.drawn), h);
  out.values.assign(24, 0.0f);
  refused(dense, TensorView<const float, 2>{out.values.data(), {3, 8}, {8, 1}});
}

}  // namespace
}  // namespace draft_head_extremes_test
