// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/attention/budget/attend_heads.hpp>
#include <pare/attention/budget/head_partition.hpp>
#include <pare/attention/key_value.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "attention/attend_calls.hpp"
#include "attention/backends.hpp"
#include "attention/data.hpp"
#include "support/allocations.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace attention_attend_heads_test {
namespace {

using pare::bf16;
using pare::compute_t;
using pare::Index;
using pare::TensorView;
using pare::attention::attend_heads;
using pare::attention::HeadPartition;
using pare::attention::PagedKeyValue;
using pare::testing::BackendAndScalar;
using pare::testing::refusal;
using pare::testing::Tensor;

constexpr Index sequences = 2, kv_heads = 3, group = 2, key_dim = 16, value_dim = 8, page = 16;

/// Keys and values of heads of different lengths in pages that lie in another order.
template <class S>
struct Heads {
  std::vector<Index> lengths;
  Tensor<S> q, keys, values;  // pages of keys and values: [virtual pages, 1, page, dim]
  std::vector<std::int32_t> table;
  Index most = 0;

  explicit Heads(std::vector<Index> list, Index queries = 1) : lengths(std::move(list)) {
    for (const Index n : lengths) most = std::max(most, (n + page - 1) / page);
    const Index pages = most * static_cast<Index>(lengths.size());
    q = pare::testing::normal_tensor<S>({sequences, group * kv_heads, queries, key_dim}, 1);
    keys = pare::testing::normal_tensor<S>({pages, 1, page, key_dim}, 2);
    values = pare::testing::normal_tensor<S>({pages, 1, page, value_dim}, 3);
    table.resize(static_cast<std::size_t>(pages));
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), std::mt19937(4));
  }

  Index count() const { return static_cast<Index>(lengths.size()); }
  PagedKeyValue<S> source() const {
    return {.keys = keys.view(),
            .values = values.view(),
            .table = {table.data(), {count(), most}, {most, 1}},
            .lengths = lengths};
  }
  TensorView<const Index, 2> length_table() const {
    return {lengths.data(), {sequences, kv_heads}, {kv_heads, 1}};
  }
  Tensor<compute_t<S>> output() const {
    return Tensor<compute_t<S>>({sequences, group * kv_heads, q.extent[2], value_dim},
                                pare::testing::Layout::by_head, compute_t<S>(7));
  }
  /// The tokens of a head as a tensor.
  Tensor<S> dense(const Tensor<S>& pages, Index i) const {
    Tensor<S> x({1, 1, lengths[static_cast<std::size_t>(i)], pages.extent[3]});
    for (Index t = 0; t < x.extent[2]; ++t)
      for (Index c = 0; c < x.extent[3]; ++c)
        x(0, 0, t, c) = pages(table[static_cast<std::size_t>(i * most + t / page)], 0, t % page, c);
    return x;
  }
};

const std::vector<Index> uneven{700, 33, 1, 5000, 0, 260};

template <class Case>
struct AttendHeadsTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
using Cases = testing::Types<BackendAndScalar<pare::testing::ReferenceBackend, float>,
                             BackendAndScalar<pare::testing::ThreadedBackend, double>,
                             BackendAndScalar<pare::testing::BestBackend, float>,
                             BackendAndScalar<pare::testing::BestBackend, bf16>>;
TYPED_TEST_SUITE(AttendHeadsTest, Cases);

TYPED_TEST(AttendHeadsTest, EachHeadAttendsToItsOwnTokens) {
  using S = typename TypeParam::scalar;
  for (const Index queries : {1, 3}) {
    const Heads<S> x(uneven, queries);
    auto got = x.output();
    attend_heads(this->backend(), x.q.view(), x.source(), got.writable(), {.causal = true});
    for (Index i = 0; i < x.count(); ++i) {
      const Index n = x.lengths[static_cast<std::size_t>(i)];
      const auto k = x.dense(x.keys, i), v = x.dense(x.values, i);
      for (Index h = 0; h < group; ++h) {
        const Index b = i / kv_heads, head = i % kv_heads * group + h;
        const auto wanted = pare::testing::dense_attention(
            x.q.head(b, head), k.head(0, 0), v.head(0, 0), .25,
            [&](Index row, Index j) { return j <= row + n - queries; },
            [](Index, Index, long double score) { return score; });
        for (Index row = 0; row < queries; ++row)
          for (Index c = 0; c < value_dim; ++c)
            ASSERT_NEAR(static_cast<double>(got(b, head, row, c)), wanted.out(row, c),
                        pare::testing::attention_bound<TypeParam>())
                << i << ' ' << h << ' ' << row;
      }
    }
  }
}

TEST(AttendHeads, ThreadsAndPartitionsChangeNoBit) {
  const Heads<float> x(uneven);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    auto y = x.output();
    attend_heads(backend, x.q.view(), x.source(), y.writable());
    return y.list;
  });
  auto first = x.output();
  attend_heads(x.q.view(), x.source(), first.writable());
  for (const int threads : {1, 2, 5}) {
    const HeadPartition partition(x.length_table(),
                                  {.heads = group * kv_heads, .threads = threads});
    auto y = x.output();
    attend_heads(pare::simd.threads(2), x.q.view(), x.source(), y.writable(), partition);
    EXPECT_TRUE(pare::testing::all_same_bits(y.list, first.list)) << threads;
  }
}

// Heads are cut by their own length: a head has the bits that `attend` gives it alone.
TEST(AttendHeads, OtherHeadsChangeNoBit) {
  const Heads<float> x(uneven);
  auto all = x.output();
  attend_heads(x.q.view(), x.source(), all.writable());
  for (Index i = 0; i < x.count(); ++i) {
    const auto k = x.dense(x.keys, i), v = x.dense(x.values, i);
    Tensor<float> q({1, group, 1, key_dim}), y({1, group, 1, value_dim});
    for (Index h = 0; h < group; ++h)
      for (Index c = 0; c < key_dim; ++c)
        q(0, h, 0, c) = x.q(i / kv_heads, i % kv_heads * group + h, 0, c);
    pare::attention::attend(q.view(), k.view(), v.view(), y.writable());
    for (Index h = 0; h < group; ++h)
      for (Index c = 0; c < value_dim; ++c)
        EXPECT_EQ(y(0, h, 0, c), all(i / kv_heads, i % kv_heads * group + h, 0, c)) << i;
  }
}

TEST(HeadPartition, NoThreadHasMuchMoreThanTheMean) {
  std::vector<Index> lengths;
  for (Index i = 0; i < 8; ++i) lengths.push_back(1000 + 1700 * i);
  const TensorView<const Index, 2> table{lengths.data(), {1, 8}, {8, 1}};
  const double all =
      4.0 * static_cast<double>(std::accumulate(lengths.begin(), lengths.end(), Index{0}));
  for (const int threads : {1, 2, 4, 8}) {
    const HeadPartition partition(table, {.heads = 32, .threads = threads});
    double sum = 0, most = 0;
    for (int t = 0; t < threads; ++t) {
      sum += partition.work(t);
      most = std::max(most, partition.work(t));
    }
    EXPECT_EQ(sum, all);
    EXPECT_DOUBLE_EQ(partition.imbalance(), most * threads / all);
    EXPECT_LE(partition.imbalance(), 1.1) << threads;
  }
  EXPECT_EQ(HeadPartition(TensorView<const Index, 2>{}, {}).imbalance(), 1);
}

TEST(AttendHeads, TheSecondCallAllocatesNothing) {
  const Heads<float> x(uneven);
  auto y = x.output();
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  const auto source = x.source();
  attend_heads(backend, x.q.view(), source, y.writable());
  const long before = pare::testing::allocations;
  attend_heads(backend, x.q.view(), source, y.writable());
  EXPECT_EQ(pare::testing::allocations, before);
}

TEST(AttendHeads, WhatDoesNotFitIsRefusedAndWritesNothing) {
  const Heads<float> x(uneven);
  auto y = x.output();
  const auto before = y.list;
  constexpr const char* name = "attention::attend_heads";
  const auto refused = [&](const char* argument, const pare::attention::AttendOptions& options) {
    refusal([&] { attend_heads(x.q.view(), x.source(), y.writable(), options); }, name, argument);
  };
  const std::vector<float> sinks(6);
  const std::vector<Index> offsets{0, 1, 2};
  std::vector<float> lse(12);
  refused("window", {.window = 4});
  refused("window", {.window_right = 4});
  refused("query_offsets", {.query_offsets = offsets});
  refused("query_offsets, key_offsets, key_lengths", {.key_lengths = offsets});
  refused("sink_logits", {.sink_logits = sinks});
  refused("lse", {.lse = TensorView<float, 3>{lse.data(), {2, 6, 1}, {6, 1, 1}}});
  refused("scale", {.scale = -1});
  const auto with = [&](TensorView<const float, 4> q, TensorView<float, 4> out,
                        const PagedKeyValue<float>& source, const char* argument) {
    refusal([&] { attend_heads(q, source, out); }, name, argument);
  };
  auto q = x.q.view();
  q.extent[1] = 5;
  with(q, y.writable(), x.source(), "q");
  q = x.q.view();
  q.extent[0] = 4;
  with(q, y.writable(), x.source(), "source");
  q = x.q.view();
  q.stride[0] = 5;
  with(q, y.writable(), x.source(), "q");
  q = x.q.view();
  q.extent[3] = 8;
  with(q, y.writable(), x.source(), "q");
  auto out = y.writable();
  out.extent[3] = 4;
  with(x.q.view(), out, x.source(), "out");
  out = y.writable();
  out.data = const_cast<float*>(x.keys.list.data());
  with(x.q.view(), out, x.source(), "out");
  auto source = x.source();
  const std::vector<std::int32_t> wrong(x.table.size(), 1 << 20);
  source.table.data = wrong.data();
  with(x.q.view(), y.writable(), source, "table");
  const auto partition = [&](const std::vector<Index>& lengths,
                             const pare::attention::PartitionOptions& options,
                             Index of_sequence = kv_heads) {
    const HeadPartition other(
        TensorView<const Index, 2>{
            lengths.data(), {x.count() / of_sequence, of_sequence}, {of_sequence, 1}},
        options);
    refusal([&] { attend_heads(pare::simd, x.q.view(), x.source(), y.writable(), other); }, name,
            "partition");
  };
  partition({700, 33, 1, 5000, 0, 261}, {.heads = 6});
  for (const Index others : {1, 2, 6}) partition(uneven, {.heads = 6}, others);
  partition(uneven, {.heads = 3});
  partition(uneven, {.heads = 6, .queries = 2});
  partition(uneven, {.heads = 6, .causal = true});
  EXPECT_TRUE(pare::testing::all_same_bits(y.list, before));
}

// A call refuses a partition of other lengths.
TEST(HeadPartition, TakesLengthsOfEigenByColumns) {
  const Heads<float> x(uneven);
  const TensorView<const Index, 2> table = x.length_table();
  Eigen::Array<Index, Eigen::Dynamic, Eigen::Dynamic> lengths(table.rows(), table.cols());
  for (Index s = 0; s < table.rows(); ++s)
    for (Index h = 0; h < table.cols(); ++h) lengths(s, h) = table(s, h);
  auto y = x.output(), wanted = x.output();
  attend_heads(x.q.view(), x.source(), wanted.writable());
  attend_heads(pare::simd, x.q.view(), x.source(), y.writable(),
               HeadPartition(lengths, {.heads = group * kv_heads}));
  EXPECT_TRUE(pare::testing::all_same_bits(y.list, wanted.list));
}

TEST(HeadPartition, WhatDoesNotFitIsRefused) {
  constexpr const char* name = "attention::HeadPartition";
  const std::vector<Index> lengths{1, 2};
  const TensorView<const Index, 2> table{lengths.data(), {1, 2}, {2, 1}};
  const auto refused = [&](const char* argument, const pare::attention::PartitionOptions& options) {
    refusal([&] { HeadPartition{table, options}; }, name, argument);
  };
  refused("heads", {.heads = 3});
  refused("heads", {.heads = -2});
  refused("queries", {.heads = 2, .queries = -1});
  refused("threads", {.heads = 2, .threads = 0});
  for (const Index bad : {Index{-1}, Index{1} << 30}) {
    const TensorView<const Index, 2> view{&bad, {1, 1}, {1, 1}};
    refusal([&] { HeadPartition{view, {.heads = 1}}; }, name, "lengths");
  }
  const HeadPartition two{table, {.heads = 2, .threads = 2}};
  for (const int bad : {-1, 2})
    refusal([&] { two.work(bad); }, "attention::HeadPartition::work", "thread");
}

}  // namespace
}  // namespace attention_attend_heads_test
