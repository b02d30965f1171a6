// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include <pare/attention/attend.hpp>
#include <pare/attention/heads/compact_heads.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace attention_heads_compact_heads_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::attention::compact_heads;
using pare::attention::CompactHeads;
using pare::attention::HeadCounts;
using pare::attention::HeadRun;
using pare::attention::rows_of_heads;
using pare::testing::random_matrix;
using pare::testing::refusal;

using List = std::vector<Index>;

struct Shape {
  Index heads, kv_heads, dim, value_dim, inputs, outputs;
};

template <class T>
struct Layer {
  Shape s;
  RowMatrix<T> wq, wk, wv, wo;
  explicit Layer(const Shape& shape)
      : s(shape),
        wq(random_matrix<RowMatrix<T>>(s.heads * s.dim, s.inputs, 1)),
        wk(random_matrix<RowMatrix<T>>(s.kv_heads * s.dim, s.inputs, 2)),
        wv(random_matrix<RowMatrix<T>>(s.kv_heads * s.value_dim, s.inputs, 3)),
        wo(random_matrix<RowMatrix<T>>(s.outputs, s.heads * s.value_dim, 4)) {}

  HeadCounts counts() const { return {s.heads, s.kv_heads}; }
  CompactHeads<T> keep(const List& kept) const {
    return compact_heads(wq, wk, wv, wo, counts(), kept);
  }
};

/// The whole layer in double, causal, with the heads that are not kept set to zero.
template <class T>
Eigen::MatrixXd masked_forward(const Layer<T>& layer, const RowMatrix<T>& x, const List& kept) {
  const Shape& s = layer.s;
  const Eigen::MatrixXd in = x.template cast<double>();
  Eigen::MatrixXd y = Eigen::MatrixXd::Zero(x.rows(), s.outputs);
  for (Index h = 0; h < s.heads; ++h) {
    if (std::ranges::find(kept, h) == kept.end()) continue;
    const Index g = h / (s.heads / s.kv_heads);
    const auto rows = [&](const RowMatrix<T>& w, Index head, Index dim) {
      return Eigen::MatrixXd(in *
                             w.middleRows(head * dim, dim).template cast<double>().transpose());
    };
    const Eigen::MatrixXd q = rows(layer.wq, h, s.dim), k = rows(layer.wk, g, s.dim),
                          v = rows(layer.wv, g, s.value_dim);
    for (Index i = 0; i < x.rows(); ++i) {
      Eigen::VectorXd weights =
          k.topRows(i + 1) * q.row(i).transpose() / std::sqrt(static_cast<double>(s.dim));
      weights = (weights.array() - weights.maxCoeff()).exp();
      const Eigen::VectorXd o = v.topRows(i + 1).transpose() * weights / weights.sum();
      y.row(i) += layer.wo.middleCols(h * s.value_dim, s.value_dim).template cast<double>() * o;
    }
  }
  return y;
}

/// What a user runs: three products, a call of attend per run, a product.
template <class B, class T>
RowMatrix<T> compact_forward(const B& backend, const CompactHeads<T>& small, const Shape& s,
                             const RowMatrix<T>& x) {
  const RowMatrix<T> q = x * small.wq.transpose(), k = x * small.wk.transpose(),
                     v = x * small.wv.transpose();
  RowMatrix<T> o(x.rows(), small.wo.cols());
  const auto heads = [&](auto& m, Index first, Index count, Index dim) {
    return TensorView<std::remove_pointer_t<decltype(m.data())>, 4>{
        m.data() + first * dim, {1, count, m.rows(), dim}, {0, dim, m.cols(), 1}};
  };
  for (const HeadRun& run : small.runs())
    pare::attention::attend(backend, heads(q, run.head, run.heads, s.dim),
                            heads(k, run.kv_head, run.kv_heads, s.dim),
                            heads(v, run.kv_head, run.kv_heads, s.value_dim),
                            heads(o, run.head, run.heads, s.value_dim), {.causal = true});
  return o * small.wo.transpose();
}

template <class P>
class CompactHeadsTest : public testing::Test {};
TYPED_TEST_SUITE(CompactHeadsTest, pare::testing::BackendsAndScalars);

constexpr Shape shapes[] = {{4, 4, 8, 8, 20, 13}, {6, 2, 5, 7, 11, 11}, {5, 1, 4, 4, 9, 9}};

TYPED_TEST(CompactHeadsTest, ComputeWhatTheWholeLayerDoesWithTheOthersAtZero) {
  using T = typename TypeParam::scalar;
  for (const Shape& s : shapes) {
    const Layer<T> layer(s);
    const auto x = random_matrix<RowMatrix<T>>(17, s.inputs, 5);
    for (const List& kept : {List{0}, List{1, 3}, List{3, 0, 4}, List{0, 1, 2, 3, 4}}) {
      if (std::ranges::max(kept) >= s.heads) continue;
      const CompactHeads<T> small = layer.keep(kept);
      const Eigen::MatrixXd got =
          compact_forward(TypeParam::backend::make(), small, s, x).template cast<double>();
      const Eigen::MatrixXd wanted = masked_forward(layer, x, kept);
      EXPECT_LE((got - wanted).norm(),
                (std::is_same_v<T, float> ? 1e-5 : 1e-12) * (1 + wanted.norm()))
          << s.heads << " heads, kept " << kept.size();
    }
  }
}

TEST(CompactHeadsOf, AllHeadsAreTheLayerBitForBit) {
  for (const Shape& s : shapes) {
    const Layer<float> layer(s);
    List all;
    for (Index h = s.heads; h-- > 0;) all.push_back(h);  // in whatever order
    const auto same = layer.keep(all);
    EXPECT_EQ(same.wq, layer.wq);
    EXPECT_EQ(same.wk, layer.wk);
    EXPECT_EQ(same.wv, layer.wv);
    EXPECT_EQ(same.wo, layer.wo);
    EXPECT_EQ(same.runs(), (std::vector<HeadRun>{{0, s.heads, 0, s.kv_heads}}));
  }
}

TEST(CompactHeadsOf, AKeyValueHeadGoesWithTheLastOfItsQueryHeads) {
  const Layer<float> layer({6, 2, 5, 7, 11, 10});
  const auto one_of_each = layer.keep({5, 0});
  EXPECT_EQ(one_of_each.heads, (List{0, 5}));
  EXPECT_EQ(one_of_each.kv_heads, (List{0, 1}));
  EXPECT_EQ(one_of_each.kv_of, (List{0, 1}));
  EXPECT_EQ(one_of_each.wk, layer.wk) << "both are read";
  const auto second = layer.keep({3, 5});
  EXPECT_EQ(second.kv_heads, (List{1}));
  EXPECT_EQ(second.kv_of, (List{0, 0}));
  EXPECT_EQ(second.wk, layer.wk.bottomRows(5));
  EXPECT_EQ(second.wv, layer.wv.bottomRows(7));
  EXPECT_EQ(second.wq.topRows(5), layer.wq.middleRows(15, 5));
  EXPECT_EQ(second.wo.rightCols(7), layer.wo.rightCols(7));
  // Rows of queries, of keys, of values; columns of the output.
  EXPECT_EQ(one_of_each.parameters(), 2 * 5 * 11 + 2 * 5 * 11 + 2 * 7 * 11 + 10 * 2 * 7);
  EXPECT_EQ(second.parameters(), 2 * 5 * 11 + 1 * 5 * 11 + 1 * 7 * 11 + 10 * 2 * 7);
}

TEST(CompactHeadsOf, RunsNameNeighboursOfEqualGroups) {
  const Layer<float> layer({12, 4, 2, 2, 3, 3});
  EXPECT_EQ(layer.keep({0, 3, 4, 7, 8, 9}).runs(),
            (std::vector<HeadRun>{{0, 1, 0, 1}, {1, 4, 1, 2}, {5, 1, 3, 1}}));
  EXPECT_EQ(layer.keep({1, 2, 10, 11}).runs(), (std::vector<HeadRun>{{0, 4, 0, 2}}))
      << "key/value heads 1 and 2 are gone";
  EXPECT_EQ(layer.keep({1}).runs(), (std::vector<HeadRun>{{0, 1, 0, 1}}));
}

TEST(CompactHeadsOf, AnyStorageAndStride) {
  const Layer<float> layer({6, 2, 5, 7, 11, 10});
  const auto wanted = layer.keep({1, 4});
  const Eigen::MatrixXf wq = layer.wq, wk = layer.wk, wv = layer.wv, wo = layer.wo;  // by columns
  const List kept{1, 4};
  const auto by_columns = compact_heads(wq, wk, wv, wo, {6, 2}, kept);
  EXPECT_EQ(by_columns.wq, wanted.wq);
  EXPECT_EQ(by_columns.wo, wanted.wo);
  const auto halves = [](const auto& m) {
    RowMatrix<pare::bf16> half(m.rows(), m.cols());
    for (Index i = 0; i < m.rows(); ++i)
      for (Index j = 0; j < m.cols(); ++j) half(i, j) = pare::bf16(m(i, j));
    return half;
  };
  const auto bf16 = compact_heads(halves(wq), halves(wk), halves(wv), halves(wo), {6, 2}, kept);
  const auto expected = halves(wanted.wo);
  for (Index i = 0; i < expected.rows(); ++i)
    for (Index j = 0; j < expected.cols(); ++j)
      EXPECT_EQ(bf16.wo(i, j).bits, expected(i, j).bits) << i << ' ' << j;
}

TEST(RowsOfHeads, ArePartsOfABias) {
  Eigen::VectorXf bias(6);
  bias << 1, 2, 3, 4, 5, 6;
  const auto kept = rows_of_heads(bias, std::array<Index, 2>{2, 0}, 2);
  ASSERT_EQ(kept.rows(), 4);
  ASSERT_EQ(kept.cols(), 1);
  EXPECT_EQ(kept(0, 0), 1);
  EXPECT_EQ(kept(3, 0), 6);
  const char* const name = "attention::rows_of_heads";
  const List one{0}, none{}, beyond{3}, twice{1, 1}, negative{-1};
  for (const Index dim : {0, -2, 4})
    refusal([&] { rows_of_heads(bias, one, dim); }, name, "head_dim");
  for (const List& heads : {none, beyond, twice, negative})
    refusal([&] { rows_of_heads(bias, heads, 2); }, name, "heads");
}

TEST(CompactHeadsOf, RefusesWhatDoesNotFit) {
  const Layer<float> layer({6, 2, 5, 7, 11, 10});
  const List kept{0};
  const auto refused = [&](const RowMatrix<float>& wq, const RowMatrix<float>& wk,
                           const RowMatrix<float>& wv, const RowMatrix<float>& wo,
                           const HeadCounts& counts, const List& heads, const char* argument) {
    refusal([&] { compact_heads(wq, wk, wv, wo, counts, heads); }, "attention::compact_heads",
            argument);
  };
  const auto& [s, wq, wk, wv, wo] = layer;
  const HeadCounts counts = layer.counts();
  refused(wq.topRows(29), wk, wv, wo, counts, kept, "wq");
  refused(wq.topRows(0), wk, wv, wo, counts, kept, "wq");
  refused(wq, wk.topRows(9), wv, wo, counts, kept, "wk");
  refused(wq, wk.leftCols(10), wv, wo, counts, kept, "wk");
  refused(wq, wk, wv.topRows(13), wo, counts, kept, "wv");
  refused(wq, wk, wv.topRows(0), wo, counts, kept, "wv");
  refused(wq, wk, wv.leftCols(10), wo, counts, kept, "wv");
  refused(wq, wk, wv, wo.leftCols(41), counts, kept, "wo");
  for (const Index heads : {0, -6, 5}) refused(wq, wk, wv, wo, {heads, 2}, kept, "heads");
  for (const Index heads : {0, -2}) refused(wq, wk, wv, wo, {6, heads}, kept, "kv_heads");
  for (const List& heads : {List{}, List{6}, List{-1}, List{0, 2, 0}})
    refused(wq, wk, wv, wo, counts, heads, "kept");
  const TensorView<const float, 2> null{nullptr, {30, 11}, {11, 1}};
  refusal([&] { compact_heads(null, layer.wk, layer.wv, layer.wo, counts, kept); },
          "attention::compact_heads", "wq");
}

}  // namespace
}  // namespace attention_heads_compact_heads_test
