// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include <pare/draft/dense_head.hpp>
#include <pare/draft/low_rank_head.hpp>

#include "draft/heads.hpp"
#include "support/allocations.hpp"

namespace draft_head_test {
namespace {

using pare::bf16, pare::Index;
using pare::testing::HeadRows;
using namespace pare::draft;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

static_assert(DraftHead<DenseHead<float>> && DraftHead<DenseHead<double>> &&
              DraftHead<DenseHead<bf16>> && DraftHead<QuantizedHead> &&
              DraftHead<LowRankHead<bf16>>);

template <class Case>
struct HeadTest : testing::Test {};
TYPED_TEST_SUITE(HeadTest, pare::testing::BackendsAndScalars);

/// |sum of n products, in any order, less the exact one| over the sum of sizes.
template <class T>
double order_bound(Index n) {
  return 2 * static_cast<double>(n) * std::numeric_limits<T>::epsilon();
}

std::vector<Index> positions_of(Index rows) {
  std::vector<Index> positions(static_cast<std::size_t>(rows));
  for (std::size_t r = 0; r < positions.size(); ++r)
    positions[r] = static_cast<Index>(1000 + r / 2);
  return positions;
}

TYPED_TEST(HeadTest, LogitsAreTheProduct) {
  using T = typename TypeParam::scalar;
  for (const Index outputs : {1, 31, 64, 65, 130})
    for (const Index inputs : {1, 15, 16, 130, 255})
      for (const Index rows : {1, 2, 6, 7, 17}) {
        const auto w = pare::testing::random_matrix<HeadRows<T>>(outputs, inputs, 1);
        const auto h = pare::testing::random_matrix<HeadRows<T>>(rows, inputs, 2);
        HeadRows<T> z = HeadRows<T>::Constant(rows, outputs, T(7));
        const DenseHead<T> head(w);
        head.logits(TypeParam::backend::make(), h, z);
        const Eigen::MatrixXd wanted =
            h.template cast<double>() * w.template cast<double>().transpose();
        const Eigen::MatrixXd sizes =
            h.template cast<double>().cwiseAbs() * w.template cast<double>().cwiseAbs().transpose();
        for (Index r = 0; r < rows; ++r)
          for (Index o = 0; o < outputs; ++o)
            ASSERT_NEAR(static_cast<double>(z(r, o)), wanted(r, o),
                        order_bound<T>(inputs) * sizes(r, o));
      }
}

TYPED_TEST(HeadTest, SummariesAreThoseOfAllLogits) {
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  for (const Index outputs : {1, 63, 64, 65, 700, 5000})
    for (const Index k : {1, 8, 70, 5001}) {
      const auto w = pare::testing::integer_matrix<HeadRows<T>>(outputs, 20, 3);  // many ties
      const auto h = pare::testing::integer_matrix<HeadRows<T>>(3, 20, 4);
      const DenseHead<T> head(w);
      HeadRows<T> z(3, outputs);
      head.logits(backend, h, z);
      for (const double temperature : {0.7, 1.0, 13.0}) {
        const auto top = head.top_k(backend, h, k, temperature);
        ASSERT_EQ(top.k, std::min(k, outputs));
        pare::testing::expect_summary(top, z, temperature);
      }
    }
}

TYPED_TEST(HeadTest, DrawsAreTheLargestNoisyLogit) {
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  const Index rows = 12, outputs = 1000;
  const auto w = pare::testing::random_matrix<HeadRows<T>>(outputs, 20, 3);
  const auto h = pare::testing::random_matrix<HeadRows<T>>(rows, 20, 4);
  const DenseHead<T> head(w);
  HeadRows<T> z(rows, outputs);
  head.logits(backend, h, z);
  const auto positions = positions_of(rows);
  for (const double temperature : {0.01, 0.3, 1.0, 40.0})
    for (const std::uint64_t seed : {1u, 2u, 3u}) {
      const pare::GumbelNoise noise{seed};
      const auto drawn = head.sample(backend, h, positions, noise, temperature);
      for (Index r = 0; r < rows; ++r) {
        std::int32_t best = -1;
        double most = -infinity;
        for (Index i = 0; i < outputs; ++i) {
          const double score =
              static_cast<double>(z(r, i)) / temperature +
              noise.at(positions[static_cast<std::size_t>(r)], static_cast<std::uint32_t>(i));
          if (score > most) most = score, best = static_cast<std::int32_t>(i);
        }
        EXPECT_EQ(drawn[static_cast<std::size_t>(r)], best) << temperature << " row " << r;
      }
    }
  EXPECT_EQ(head.sample(backend, h, positions, {1}, 0.0), head.argmax(backend, h));
  EXPECT_EQ(head.sample(backend, h, positions, {1}, 1e-6), head.argmax(backend, h));
}

TYPED_TEST(HeadTest, ValuesAreThoseOfAllLogits) {
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  const auto w = pare::testing::random_matrix<HeadRows<T>>(130, 40, 3);
  const auto h = pare::testing::random_matrix<HeadRows<T>>(2, 40, 4);
  const DenseHead<T> head(w);
  HeadRows<T> z(2, 130), values(2, 3);
  head.logits(backend, h, z);
  const std::vector<std::int32_t> tokens{0, 129, 64, 63, 5, 5};
  head.values_at(backend, h, tokens, values);
  for (Index r = 0; r < 2; ++r)
    for (Index j = 0; j < 3; ++j)
      EXPECT_EQ(values(r, j), z(r, tokens[static_cast<std::size_t>(3 * r + j)]));
}

TYPED_TEST(HeadTest, MinusInfinityIsAllowedAndWithoutMass) {
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  HeadRows<T> w = pare::testing::random_matrix<HeadRows<T>>(200, 3, 3);
  HeadRows<T> h = HeadRows<T>::Ones(2, 3);
  for (Index o = 0; o < 200; ++o)
    if (o % 3 != 1) w(o, 0) = static_cast<T>(-infinity);
  const DenseHead<T> head(w);
  HeadRows<T> z(2, 200);
  head.logits(backend, h, z);
  const auto top = head.top_k(backend, h, 200);
  pare::testing::expect_summary(top, z, 1);
  const std::vector<Index> positions{1, 2};
  for (const auto token : head.sample(backend, h, positions, {5}, 100)) EXPECT_EQ(token % 3, 1);

  for (Index o = 0; o < 200; ++o) w(o, 0) = static_cast<T>(-infinity);
  HeadSummary<T> none;
  const DenseHead<T> empty(w);
  empty.reduce(backend, h, {.k = 2, .noise = pare::GumbelNoise{1}, .positions = positions}, none);
  EXPECT_EQ(none.status[0], RowStatus::NoMass);
  EXPECT_EQ(none.id(0, 1), -1);
  EXPECT_EQ(none.drawn[1], -1);
  EXPECT_EQ(none.log_sum_exp[0], -infinity);
}

TYPED_TEST(HeadTest, NanAndInfinityStayInTheirRow) {
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  const auto w = pare::testing::random_matrix<HeadRows<T>>(200, 5, 3);
  const auto sound = pare::testing::random_matrix<HeadRows<T>>(3, 5, 4);
  const DenseHead<T> head(w);
  const auto wanted = head.top_k(backend, sound, 4);
  for (const double bad : {nan, infinity}) {
    HeadRows<T> h = sound;
    h(1, 2) = static_cast<T>(bad);
    const auto top = head.top_k(backend, h, 4);
    EXPECT_EQ(top.status[1], RowStatus::NotFinite);
    EXPECT_EQ(top.id(1, 0), -1);
    EXPECT_TRUE(std::isnan(top.log_sum_exp[1]));
    for (const Index r : {0, 2})
      for (Index i = 0; i < 4; ++i) {
        EXPECT_EQ(top.status[static_cast<std::size_t>(r)], RowStatus::Sound);
        EXPECT_EQ(top.id(r, i), wanted.id(r, i));
        EXPECT_EQ(top.value(r, i), wanted.value(r, i));
      }
  }
  // One NaN among the weights, in any place of a panel, reaches every row, for each reads it.
  for (const Index output : {0, 17, 63, 64, 199}) {
    HeadRows<T> spoilt = w;
    spoilt(output, 1) = static_cast<T>(nan);
    const auto top = DenseHead<T>(spoilt).top_k(backend, sound, 300);
    for (const auto status : top.status) EXPECT_EQ(status, RowStatus::NotFinite) << output;
  }
}

TYPED_TEST(HeadTest, OfEqualLogitsTheLowestTokenIsFirst) {
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  const Index outputs = 20000;
  const DenseHead<T> zero(outputs, 3);
  HeadRows<T> h = HeadRows<T>::Ones(1, 3);
  const auto top = zero.top_k(backend, h, 5);
  for (Index i = 0; i < 5; ++i) EXPECT_EQ(top.id(0, i), i);
  // -0 and 0 are equal.
  HeadRows<T> w = HeadRows<T>::Zero(100, 3);
  w.row(70).setConstant(T(-0.0));
  const auto signs = DenseHead<T>(w).top_k(backend, h, 100);
  for (Index i = 0; i < 100; ++i) EXPECT_EQ(signs.id(0, i), i);
}

TYPED_TEST(HeadTest, LowRankWithTheIdentityIsTheDenseHead) {  // S1
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  const Index d = 70;
  const auto w = pare::testing::random_matrix<HeadRows<T>>(300, d, 3);
  const auto h = pare::testing::random_matrix<HeadRows<T>>(4, d, 4);
  HeadRows<T> dense(4, 300), thin(4, 300);
  DenseHead<T>(w).logits(backend, h, dense);
  LowRankHead<T>(HeadRows<T>(HeadRows<T>::Identity(d, d)), w).logits(backend, h, thin);
  EXPECT_TRUE(pare::testing::equal_bits(dense, thin));
}

TYPED_TEST(HeadTest, LowRankOfFullRankIsTheDenseHead) {  // S2
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  const Index d = 24;
  const auto w = pare::testing::random_matrix<HeadRows<T>>(300, d, 3);
  const auto h = pare::testing::random_matrix<HeadRows<T>>(4, d, 4);
  // An orthogonal matrix (Householder's) is its own inverse.
  Eigen::VectorXd v = pare::testing::random_matrix<Eigen::MatrixXd>(d, 1, 5).col(0);
  const Eigen::MatrixXd down =
      Eigen::MatrixXd::Identity(d, d) - 2 / v.squaredNorm() * v * v.transpose();
  const HeadRows<T> up = (w.template cast<double>() * down).template cast<T>();
  HeadRows<T> dense(4, 300), thin(4, 300);
  DenseHead<T>(w).logits(backend, h, dense);
  LowRankHead<T>(HeadRows<T>(down.template cast<T>()), up).logits(backend, h, thin);
  for (Index r = 0; r < 4; ++r)
    for (Index o = 0; o < 300; ++o)
      EXPECT_NEAR(dense(r, o), thin(r, o),
                  1e-4 * static_cast<double>(w.row(o).norm() * h.row(r).norm()));
}

TYPED_TEST(HeadTest, AConstantRowChangesNoProbability) {  // S6
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  const HeadRows<T> w = pare::testing::random_matrix<HeadRows<T>>(300, 10, 3);
  const HeadRows<T> moved =
      w.rowwise() + pare::testing::random_matrix<HeadRows<T>>(1, 10, 8).row(0);
  const auto h = pare::testing::random_matrix<HeadRows<T>>(4, 10, 4);
  const auto a = DenseHead<T>(w).top_k(backend, h, 9), b = DenseHead<T>(moved).top_k(backend, h, 9);
  EXPECT_EQ(a.ids, b.ids);
  for (Index r = 0; r < 4; ++r)
    for (Index i = 0; i < 9; ++i)
      EXPECT_NEAR(a.log_probability(r, i), b.log_probability(r, i), 1e-5);
}

/// A row's answer, in bytes.
template <class T>
std::vector<unsigned char> row_bytes(const HeadSummary<T>& s, Index r) {
  std::vector<unsigned char> bytes;
  const auto add = [&](const auto& x) {
    const auto more = pare::testing::bytes_of(x);
    bytes.insert(bytes.end(), more.begin(), more.end());
  };
  const auto row = static_cast<std::size_t>(r);
  for (Index i = 0; i < s.k; ++i) add(s.value(r, i)), add(s.id(r, i));
  add(s.log_sum_exp[row]), add(s.maximum[row]), add(s.drawn[row]), add(s.status[row]);
  return bytes;
}

template <class Head>
void expect_rows_as_singles() {
  using T = typename Head::scalar;
  const Index outputs = 700, inputs = 300;
  const auto h = pare::testing::random_matrix<HeadRows<T>>(17, inputs, 4);
  const Head head = [&] {
    if constexpr (requires { typename Head::weight; } &&
                  !std::is_same_v<Head, PanelHead<typename Head::weight>>)
      return Head(pare::testing::random_matrix<HeadRows<T>>(40, inputs, 1),
                  pare::testing::random_matrix<HeadRows<T>>(outputs, 40, 2));
    else
      return Head(pare::testing::random_matrix<HeadRows<T>>(outputs, inputs, 1));
  }();
  const auto positions = positions_of(17);
  const std::span<const Index> all(positions);
  HeadSummary<T> one;
  std::vector<std::vector<unsigned char>> singles;
  for (Index r = 0; r < 17; ++r) {
    head.reduce(
        pare::simd, h.middleRows(r, 1),
        {.k = 5, .noise = pare::GumbelNoise{3}, .positions = all.subspan(std::size_t(r), 1)}, one);
    singles.push_back(row_bytes(one, 0));
  }
  for (Index rows = 1; rows <= 17; ++rows)
    for (const int threads : {1, 2, 3, 4, 7}) {
      HeadSummary<T> many;
      head.reduce(pare::simd.threads(threads), h.topRows(rows),
                  {.k = 5,
                   .noise = pare::GumbelNoise{3},
                   .positions = all.first(static_cast<std::size_t>(rows))},
                  many);
      for (Index r = 0; r < rows; ++r)
        ASSERT_TRUE(row_bytes(many, r) == singles[static_cast<std::size_t>(r)])
            << "row " << r << " of " << rows << " on " << threads;
    }
}

TEST(HeadBits, RowsAreThoseOfSinglesOnAnyThreads) {  // S4, S5, F3
  expect_rows_as_singles<DenseHead<float>>();
  expect_rows_as_singles<DenseHead<double>>();
  expect_rows_as_singles<DenseHead<bf16>>();
  expect_rows_as_singles<DenseHead<pare::f16>>();
  expect_rows_as_singles<QuantizedHead>();
  expect_rows_as_singles<LowRankHead<float>>();
  expect_rows_as_singles<LowRankHead<bf16>>();
}

TEST(HeadBits, AnyStridesHaveTheSameBits) {
  const auto w = pare::testing::random_matrix<HeadRows<float>>(100, 30, 1);
  const auto h = pare::testing::random_matrix<HeadRows<float>>(3, 30, 2);
  const LowRankHead<float> head(pare::testing::random_matrix<HeadRows<float>>(8, 30, 1),
                                pare::testing::random_matrix<HeadRows<float>>(100, 8, 3));
  const DenseHead<float> dense(w);
  pare::testing::any_stride_same_bits(h, [&](const auto& view) {
    HeadRows<float> z(3, 100);
    dense.logits(view, z);
    return z;
  });
  pare::testing::any_stride_same_bits(h, [&](const auto& view) {
    HeadRows<float> z(3, 100);
    head.logits(view, z);
    return z;
  });
  pare::testing::any_stride_same_bits(w, [&](const auto& view) {
    HeadRows<float> z(3, 100);
    DenseHead<float>(view).logits(h, z);
    return z;
  });
}

TEST(HeadBits, StorageRoundsTheWeightAndNothingElse) {
  const auto w = pare::testing::random_matrix<HeadRows<float>>(100, 30, 1);
  const auto h = pare::testing::random_matrix<HeadRows<float>>(3, 30, 2);
  const HeadRows<float> rounded = w.unaryExpr([](float x) { return static_cast<float>(bf16(x)); });
  HeadRows<float> a(3, 100), b(3, 100);
  DenseHead<bf16>(w).logits(h, a);
  DenseHead<float>(rounded).logits(h, b);
  EXPECT_TRUE(pare::testing::equal_bits(a, b));
}

TEST(HeadBits, BytesAreWithinHalfAStep) {
  const auto w = pare::testing::random_matrix<HeadRows<float>>(100, 30, 1);
  const auto h = pare::testing::random_matrix<HeadRows<float>>(3, 30, 2);
  HeadRows<float> a(3, 100), b(3, 100);
  const QuantizedHead bytes(w);
  bytes.logits(h, a);
  DenseHead<float>(w).logits(h, b);
  for (Index r = 0; r < 3; ++r)
    for (Index o = 0; o < 100; ++o) {
      const float step = w.row(o).cwiseAbs().maxCoeff() / 127;
      EXPECT_NEAR(a(r, o), b(r, o), step * h.row(r).cwiseAbs().sum() * 0.501f);
    }
  // A row of zeros has a scale of 0.
  HeadRows<float> z(3, 5);
  QuantizedHead(HeadRows<float>(HeadRows<float>::Zero(5, 30))).logits(h, z);
  EXPECT_EQ(z, HeadRows<float>(HeadRows<float>::Zero(3, 5)));
}

TEST(HeadMemory, TheSecondCallAllocatesNothing) {
  const LowRankHead<bf16> head(pare::testing::random_matrix<HeadRows<float>>(16, 40, 1),
                               pare::testing::random_matrix<HeadRows<float>>(500, 16, 3));
  const auto h = pare::testing::random_matrix<HeadRows<float>>(3, 40, 2);
  const std::vector<Index> positions{1, 2, 3};
  pare::Workspace workspace;
  HeadSummary<float> out;
  const auto call = [&] {
    head.reduce(pare::simd.with(workspace), h,
                {.k = 8, .noise = pare::GumbelNoise{1}, .positions = positions}, out);
  };
  call();
  const long before = pare::testing::allocations;
  call();
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

TEST(HeadRefusals, NameWhatIsWrongAndWriteNothing) {
  using pare::testing::refuses_and_leaves_alone;
  const DenseHead<float> head(pare::testing::random_matrix<HeadRows<float>>(100, 30, 1));
  const HeadRows<float> h = pare::testing::random_matrix<HeadRows<float>>(3, 30, 2),
                        other = h.leftCols(29);
  HeadRows<float> z = HeadRows<float>::Zero(3, 100), narrow = HeadRows<float>::Zero(3, 99);
  HeadSummary<float> out;
  const auto reduce = [&](const auto& hidden, const HeadRequest& request) {
    return [&, request] { head.reduce(pare::simd, hidden, request, out); };
  };
  const std::vector<Index> two{1, 2};
  refuses_and_leaves_alone(reduce(other, {.k = 1}), "draft::reduce", "hidden", out.ids);
  refuses_and_leaves_alone(reduce(h, {.k = -1}), "draft::reduce", "k", out.ids);
  for (const double bad : {-1.0, nan, infinity})
    refuses_and_leaves_alone(reduce(h, {.k = 1, .temperature = bad}), "draft::reduce",
                             "temperature", out.ids);
  refuses_and_leaves_alone(reduce(h, {.noise = pare::GumbelNoise{}, .positions = two}),
                           "draft::reduce", "positions", out.ids);
  refuses_and_leaves_alone(reduce(h, {.positions = two}), "draft::reduce", "positions", out.ids);
  refuses_and_leaves_alone([&] { head.top_k(h, 0); }, "draft::top_k", "k");
  refuses_and_leaves_alone([&] { head.logits(h, narrow); }, "draft::logits", "y", narrow);
  refuses_and_leaves_alone([&] { head.logits(other, z); }, "draft::logits", "hidden", z);
  refuses_and_leaves_alone([&] { head.logits(z.leftCols(30), z); }, "draft::logits", "y", z);
  for (const std::int32_t token : {-1, 100}) {
    const std::vector<std::int32_t> tokens{0, 1, token};
    refuses_and_leaves_alone([&] { head.values_at(h, tokens, z.leftCols(1)); }, "draft::values_at",
                             "tokens", z);
  }
  const std::vector<std::int32_t> few{0, 1};
  refuses_and_leaves_alone([&] { head.values_at(h, few, z.leftCols(1)); }, "draft::values_at",
                           "tokens", z);
  using pare::testing::refusal;
  refusal([] { DenseHead<float>(0, 3); }, "draft::PanelHead", "outputs");
  refusal([] { DenseHead<float>(3, 0); }, "draft::PanelHead", "inputs");
  refusal([] { DenseHead<float>(Index{1} << 31, 3); }, "draft::PanelHead", "outputs");
  refusal([] { DenseHead<float>(1 << 30, Index{1} << 40); }, "draft::PanelHead", "outputs");
  DenseHead<float> own(10, 30);
  refusal([&] { own.set_rows(8, h); }, "draft::PanelHead::set_rows", "first");
  refusal([&] { own.set_rows(-1, h); }, "draft::PanelHead::set_rows", "first");
  refusal([&] { own.set_rows(0, other); }, "draft::PanelHead::set_rows", "rows");
  refusal([&] { LowRankHead<float>(h, z); }, "draft::LowRankHead", "up");
}

TEST(HeadRefusals, NoRowsAreANoOp) {
  const DenseHead<float> head(100, 30);
  const HeadRows<float> none(0, 30);
  HeadRows<float> z(0, 100);
  head.logits(none, z);
  EXPECT_EQ(head.top_k(none, 3).rows, 0);
  EXPECT_EQ(head.argmax(none).size(), 0u);
  head.values_at(none, std::span<const std::int32_t>(), z);
}

}  // namespace
}  // namespace draft_head_test
