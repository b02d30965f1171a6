// SPDX-License-Identifier: Apache-2.0
// From the rows of a block to tables of tokens: shared lists, and lists that a correction
// conditions on the token before.
#include <gtest/gtest.h>

#include <pare/draft/best_first.hpp>
#include <pare/draft/branch_correction.hpp>
#include <pare/draft/branch_lists.hpp>
#include <pare/draft/candidate_lists.hpp>
#include <pare/draft/dense_head.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "draft/draft_blocks.hpp"
#include "draft/tables.hpp"
#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace draft_branch_lists_test {
namespace {

using pare::Index;
using pare::rows_of;
using pare::TensorView;
using pare::testing::block_difference;
using pare::testing::Doubles;
using pare::testing::doubles_of;
using pare::testing::equal_bits;
using pare::testing::random_gains;
using pare::testing::random_linear;
using pare::testing::random_rows;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::testing::same_nodes;
using pare::transformer::DenseLinear;
using namespace pare::draft;

constexpr Index width = 21, inner = 13, vocabulary = 150;

template <class T>
constexpr double bound = std::is_same_v<T, double> ? 1e-13 : 1e-5;

template <class T>
DenseHead<T> random_head() {
  return DenseHead<T>(random_rows<T>(vocabulary, width, 3).view());
}

template <class T>
BranchCorrectionWeights<DenseLinear<T>> correction_weights(bool bias = true) {
  BranchCorrectionWeights<DenseLinear<T>> w{.norm = random_gains<T>(width, 11),
                                            .previous = random_linear<T>(2 * inner, width, 12),
                                            .state = random_linear<T>(2 * inner, width, 13),
                                            .down = random_linear<T>(width, inner, 14)};
  if (bias) w.bias = random_gains<T>(2 * inner, 15);
  return w;
}

template <class L>
Doubles corrected(const BranchCorrectionWeights<L>& w, const Doubles& h, const Doubles& n,
                  const Doubles& e) {
  const Doubles z = pare::testing::normed(e, w.norm, w.norm_epsilon) *
                        pare::testing::weight_of(w.previous).transpose() +
                    n * pare::testing::weight_of(w.state).transpose();
  Doubles gated(z.rows(), inner);
  for (Index r = 0; r < z.rows(); ++r)
    for (Index i = 0; i < inner; ++i) {
      const auto bias = [&](Index at) {
        return w.bias ? static_cast<double>((*w.bias)[static_cast<std::size_t>(at)]) : 0.0;
      };
      gated(r, i) = pare::testing::silu(z(r, inner + i) + bias(inner + i)) * (z(r, i) + bias(i));
    }
  return h + gated * pare::testing::weight_of(w.down).transpose();
}

template <class Case>
struct BranchTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(BranchTest, pare::testing::BackendsAndScalars);

TYPED_TEST(BranchTest, SharedListsAreTheTopOfEachRow) {
  using T = typename TypeParam::scalar;
  const auto head = random_head<T>();
  const auto rows = random_rows<T>(6, width, 5);
  CandidateLists<T> lists;
  lists.fill(this->backend(), head, rows.view(), {.ranks = 5, .temperature = 0.7});
  const auto top = head.top_k(this->backend(), rows.view(), 5, 0.7);
  const TransitionTable<double> table = lists.table(), part = lists.table(2, 3);
  ASSERT_EQ(table.tokens.extent, (std::array<Index, 3>{6, 1, 5}));
  ASSERT_EQ(part.depths(), 3);
  for (Index d = 0; d < 6; ++d)
    for (Index r = 0; r < 5; ++r) {
      EXPECT_EQ(table.token(d, 0, r), top.id(d, r));
      EXPECT_EQ(table.log_probability(d, 0, r), top.log_probability(d, r));
      EXPECT_TRUE(d < 2 || d > 4 || part.token(d - 2, 0, r) == top.id(d, r));
      EXPECT_EQ(lists.tokens()(d, r), top.id(d, r));
      EXPECT_EQ(lists.log_probabilities()(d, r), top.log_probability(d, r));
    }
  // The general table of one list for each depth, each followed by list 0, has the same trees (J2).
  pare::testing::OwnedTable<double> general(6, 1, 5);
  for (Index d = 0; d < 6; ++d)
    for (Index r = 0; r < 5; ++r) {
      general.tokens[general.at(d, 0, r)] = top.id(d, r);
      general.log_probabilities[general.at(d, 0, r)] = top.log_probability(d, r);
    }
  DraftTree shared, other;
  build_best_first(this->backend(), 7, table, shared, {.budget = 40});
  build_best_first(this->backend(), 7, general.table(), other, {.budget = 40});
  EXPECT_TRUE(same_nodes(shared, other));
  EXPECT_EQ(shared.size(), 40);
}

TEST(CandidateLists, ATreeEndsAboveARowThatIsNoLaw) {
  const auto head = random_head<float>();
  auto rows = random_rows<float>(4, width, 5);
  rows(2, 3) = std::numeric_limits<float>::quiet_NaN();
  CandidateLists<float> lists;
  lists.fill(head, rows.view());
  DraftTree tree;
  build_best_first(7, lists.table(), tree, {.budget = 60});
  Index deepest = 0;
  for (Index i = 0; i < tree.size(); ++i) deepest = std::max(deepest, tree.depth(i));
  EXPECT_EQ(deepest, 2);
  EXPECT_EQ(tree.size(), 1 + 7 + 49);
}

TEST(CandidateLists, WhatDoesNotFitIsRefused) {
  const auto head = random_head<float>();
  const auto rows = random_rows<float>(4, width, 5);
  CandidateLists<float> lists;
  lists.fill(head, rows.view(), {.ranks = 1000});
  EXPECT_EQ(lists.table().ranks(), vocabulary);
  const char* const fill = "draft::CandidateLists::fill";
  refusal([&] { lists.fill(head, rows.view(), {.ranks = 0}); }, fill, "ranks");
  refusal([&] { lists.fill(head, rows.view(), {.temperature = -1}); }, "draft::reduce",
          "temperature");
  refusal([&] { lists.fill(head, pare::columns_of(rows.view(), 0, width - 1)); }, fill, "rows");
  EXPECT_EQ(lists.table().ranks(), vocabulary);
  const char* const table = "draft::CandidateLists::table";
  refusal([&] { static_cast<void>(lists.table(-1)); }, table, "first");
  refusal([&] { static_cast<void>(lists.table(5)); }, table, "first");
  refusal([&] { static_cast<void>(lists.table(2, 3)); }, table, "depths");
  refusal([&] { static_cast<void>(lists.table(2, -1)); }, table, "depths");
}

TYPED_TEST(BranchTest, CorrectedRowsAreTheDefinition) {
  using T = typename TypeParam::scalar;
  for (const bool bias : {true, false}) {
    const auto weights = correction_weights<T>(bias);
    const BranchCorrection correct(correction_weights<T>(bias));
    const auto plain = random_rows<T>(4, width, 5), normed = random_rows<T>(4, width, 6),
               previous = random_rows<T>(9, width, 7);
    const std::vector<Index> depths{0, 1, 1, 1, 3, 2, 2, 0, 3};
    Rows<T> out(9, width);
    correct.apply(this->backend(), plain.view(), normed.view(), previous.view(), depths,
                  out.view());
    Doubles h(9, width), n(9, width);
    for (Index r = 0; r < 9; ++r) {
      h.row(r) = doubles_of(plain).row(depths[static_cast<std::size_t>(r)]);
      n.row(r) = doubles_of(normed).row(depths[static_cast<std::size_t>(r)]);
    }
    EXPECT_LE(block_difference(out, corrected(weights, h, n, doubles_of(previous))), bound<T>);
  }
}

/// As it is before training.
TEST(BranchCorrection, WithoutADownProjectionRowsStayAsTheyAre) {
  auto weights = correction_weights<float>();
  weights.down = DenseLinear<float>(width, inner);
  const BranchCorrection correct(std::move(weights));
  const auto plain = random_rows<float>(3, width, 5), e = random_rows<float>(3, width, 7);
  const std::vector<Index> depths{0, 1, 2};
  Rows<float> out(3, width);
  correct.apply(pare::simd, plain.view(), e.view(), e.view(), depths, out.view());
  EXPECT_TRUE(equal_bits(out, plain));
}

/// Rows, embeddings and all that lists are made of.
template <class T>
struct Branches {
  DenseHead<T> head = random_head<T>();
  Rows<T> plain = random_rows<T>(5, width, 5), embedding = random_rows<T>(vocabulary, width, 9);
  std::vector<T> final_norm = random_gains<T>(width, 8);
  BranchLists<T> lists;

  template <class B, class C>
  TransitionTable<double> table(const B& backend, const C& correct, const BranchListOptions& o) {
    lists.fill(
        backend, correct, head, plain.view(), final_norm, rows_of(embedding.view(), 3, 1),
        [&](std::int32_t token, std::span<T> row) {
          for (Index j = 0; j < width; ++j) row[static_cast<std::size_t>(j)] = embedding(token, j);
        },
        o);
    return lists.table();
  }
};

/// Each list is the top of the one row that is corrected for its token, and leads where its tokens
/// are among those followed.
TYPED_TEST(BranchTest, ListsAreConditionedOnTheTokenBefore) {
  using T = typename TypeParam::scalar;
  const auto weights = correction_weights<T>();
  const BranchCorrection correct(correction_weights<T>());
  Branches<T> x;
  const auto table = x.table(this->backend(), correct, {.previous = 6, .ranks = 9});
  ASSERT_EQ(table.tokens.extent, (std::array<Index, 3>{5, 6, 9}));
  table.validate("f");
  const Doubles h = doubles_of(x.plain);
  const Doubles n = pare::testing::normed(h, x.final_norm, 1e-6);
  Rows<T> n_rows(5, width, [&](Index i, Index j) { return n(i, j); });
  const auto followed = x.head.top_k(pare::reference, n_rows.view(), 6);
  Index followable = 0;
  for (Index d = 0; d < 5; ++d)
    for (Index m = 0; m < (d == 0 ? 1 : 6); ++m) {
      const Index before = d == 0 ? 3 : followed.id(d - 1, m);
      const Doubles row = pare::testing::normed(
          corrected(weights, h.row(d), n.row(d), doubles_of(x.embedding).row(before)), x.final_norm,
          1e-6);
      Rows<T> one(1, width, [&](Index, Index j) { return row(0, j); });
      const auto top = x.head.top_k(pare::reference, one.view(), 9);
      for (Index r = 0; r < 9; ++r) {
        ASSERT_EQ(table.token(d, m, r), top.id(0, r)) << d << ' ' << m << ' ' << r;
        ASSERT_NEAR(table.log_probability(d, m, r), top.log_probability(0, r), 30 * bound<T>);
        std::int32_t next = -1;
        if (d < 4)
          for (Index i = 0; i < 6; ++i)
            if (followed.id(d, i) == top.id(0, r)) next = static_cast<std::int32_t>(i);
        ASSERT_EQ(table.next(d, m, r), next);
        followable += next >= 0;
      }
    }
  EXPECT_GT(followable, 0);
}

/// A correction of zero conditions nothing: with all tokens followed, trees are those of shared
/// lists.
TEST(BranchLists, WithoutACorrectionTreesAreThoseOfSharedLists) {
  auto weights = correction_weights<double>();
  weights.down = DenseLinear<double>(width, inner);
  const BranchCorrection correct(std::move(weights));
  Branches<double> x;
  const auto table = x.table(pare::simd, correct, {.previous = 8, .ranks = 8, .temperature = 0.9});
  Rows<double> normed(5, width);
  pare::transformer::rms_norm(x.plain.view(), x.final_norm, normed.view(), {.epsilon = 1e-6});
  CandidateLists<double> shared;
  shared.fill(x.head, normed.view(), {.ranks = 8, .temperature = 0.9});
  DraftTree a, b;
  build_best_first(3, table, a, {.budget = 90});
  build_best_first(3, shared.table(), b, {.budget = 90});
  EXPECT_TRUE(same_nodes(a, b));
}

TEST(BranchLists, OneDepthAndARowThatIsNoLaw) {
  const BranchCorrection correct(correction_weights<float>());
  Branches<float> x;
  x.plain = random_rows<float>(1, width, 5);
  EXPECT_EQ(x.table(pare::simd, correct, {.ranks = 4}).tokens.extent,
            (std::array<Index, 3>{1, 1, 4}));
  x.plain = random_rows<float>(4, width, 5);
  x.plain(1, 0) = std::numeric_limits<float>::quiet_NaN();
  const auto table = x.table(pare::simd, correct, {.previous = 6, .ranks = 6});
  DraftTree tree;
  build_best_first(3, table, tree, {.budget = 60});
  Index deepest = 0;
  for (Index i = 0; i < tree.size(); ++i) deepest = std::max(deepest, tree.depth(i));
  EXPECT_EQ(deepest, 1);
}

TEST(BranchLists, AnyThreadsAndTheSecondCallAllocatesNothing) {
  const BranchCorrection correct(correction_weights<float>());
  Branches<float> x;
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    const auto table = x.table(backend, correct, {});
    std::vector<double> all;
    for (Index d = 0; d < 5; ++d)
      for (Index m = 0; m < table.rows(); ++m)
        for (Index r = 0; r < table.ranks(); ++r) {
          all.push_back(static_cast<double>(table.log_probabilities(d, m, r)));
          all.push_back(table.tokens(d, m, r));
        }
    return all;
  });
  pare::Workspace workspace;
  x.table(pare::simd.with(workspace), correct, {});
  const long before = pare::testing::allocations;
  x.table(pare::simd.with(workspace), correct, {});
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

TEST(BranchLists, WithoutABackendHaveTheBitsOfSimd) {
  const BranchCorrection correct(correction_weights<float>());
  Branches<float> x, y;
  const auto given = x.table(pare::simd, correct, {});
  y.lists.fill(correct, y.head, y.plain.view(), y.final_norm, rows_of(y.embedding.view(), 3, 1),
               [&](std::int32_t token, std::span<float> row) {
                 for (Index j = 0; j < width; ++j)
                   row[static_cast<std::size_t>(j)] = y.embedding(token, j);
               });
  const auto left_out = y.lists.table();
  ASSERT_EQ(left_out.tokens.extent, given.tokens.extent);
  for (Index d = 0; d < 5; ++d)
    for (Index r = 0; r < given.ranks(); ++r)
      EXPECT_EQ(left_out.log_probability(d, 0, r), given.log_probability(d, 0, r));
  const std::vector<Index> depths{0, 4};
  Rows<float> a(2, width), b(2, width);
  const auto two = rows_of(x.embedding.view(), 0, 2);
  correct.apply(pare::simd, x.plain.view(), x.plain.view(), two, depths, a.view());
  correct.apply(x.plain.view(), x.plain.view(), two, depths, b.view());
  EXPECT_TRUE(pare::testing::equal_bits(a, b));
}

TEST(BranchCorrection, WhatDoesNotFitIsRefused) {
  const auto bad_weights = [](const char* argument, const auto& change) {
    auto w = correction_weights<float>();
    change(w);
    refusal([&] { const BranchCorrection c(std::move(w)); }, "draft::BranchCorrection", argument);
  };
  bad_weights("previous", [](auto& w) { w.previous = DenseLinear<float>(2 * inner, width - 1); });
  bad_weights("state", [](auto& w) { w.state = DenseLinear<float>(2 * inner - 1, width); });
  bad_weights("norm", [](auto& w) { w.norm.pop_back(); });
  bad_weights("bias", [](auto& w) { w.bias->pop_back(); });
  bad_weights("norm_epsilon", [](auto& w) { w.norm_epsilon = -1; });

  auto weights = correction_weights<float>();
  const auto inside = weights.down.own_weights();
  const BranchCorrection correct(std::move(weights));
  auto h = random_rows<float>(4, width, 5), e = random_rows<float>(3, width, 7);
  Rows<float> out(3, width);
  const std::vector<Index> depths{0, 1, 3}, far{0, 1, 4}, negative{0, -1, 3}, few{0, 1};
  using View = TensorView<const float, 2>;
  const auto refuse = [&](const char* argument, View plain, View normed, View previous,
                          const std::vector<Index>& list, TensorView<float, 2> y) {
    refuses_and_leaves_alone([&] { correct.apply(pare::simd, plain, normed, previous, list, y); },
                             "draft::BranchCorrection::apply", argument, out);
  };
  const View hv = pare::as_const(h.view()), ev = pare::as_const(e.view());
  refuse("plain", pare::columns_of(hv, 0, width - 1), hv, ev, depths, out.view());
  refuse("normed", hv, rows_of(hv, 0, 3), ev, depths, out.view());
  refuse("previous", hv, hv, pare::columns_of(ev, 0, width - 1), depths, out.view());
  refuse("depths", hv, hv, ev, few, out.view());
  refuse("depths", hv, hv, ev, far, out.view());
  refuse("depths", hv, hv, ev, negative, out.view());
  refuse("out", hv, hv, ev, depths, rows_of(out.view(), 0, 2));
  refuse("out", hv, hv, ev, depths, e.view());
  auto other = random_rows<float>(4, width, 6);
  const View nv = pare::as_const(other.view());
  refuse("out", hv, nv, ev, depths, rows_of(h.view(), 0, 3));
  refuse("out", hv, nv, ev, depths, rows_of(other.view(), 0, 3));
  std::vector<Index> places(40, 0);  // of which the first is also the output's one number
  refuses_and_leaves_alone(
      [&] {
        correct.apply(
            pare::simd, hv, nv, rows_of(ev, 0, 1), std::span<const Index>(places.data(), 1),
            TensorView<float, 2>{reinterpret_cast<float*>(places.data()), {1, width}, {width, 1}});
      },
      "draft::BranchCorrection::apply", "out", places);
  refuse("out", hv, hv, ev, depths, {inside.data, {3, width}, {width, 1}});
  refuse("out", hv, hv, ev, depths, {out.view().data, {3, width}, {0, 1}});
}

TEST(BranchLists, WhatDoesNotFitIsRefusedAndTheTableStays) {
  const BranchCorrection correct(correction_weights<float>());
  Branches<float> x;
  x.table(pare::simd, correct, {.previous = 2, .ranks = 3});
  const auto nothing = [](std::int32_t, std::span<float>) {};
  const auto refuse = [&](const char* argument, TensorView<const float, 2> plain,
                          TensorView<const float, 2> anchor, const std::vector<float>& norm,
                          const BranchListOptions& options = {}) {
    refusal(
        [&] { x.lists.fill(pare::simd, correct, x.head, plain, norm, anchor, nothing, options); },
        "draft::BranchLists::fill", argument);
    EXPECT_EQ(x.lists.table().tokens.extent, (std::array<Index, 3>{5, 2, 3}));
  };
  const auto p = pare::as_const(x.plain.view()), e = pare::as_const(x.embedding.view());
  const auto anchor = rows_of(e, 0, 1);
  const std::vector<float> short_norm(width - 1, 1.0f);
  refuse("plain", rows_of(p, 0, 0), anchor, x.final_norm);
  refuse("plain", pare::columns_of(p, 0, width - 1), anchor, x.final_norm);
  refuse("plain", {nullptr, p.extent, p.stride}, anchor, x.final_norm);
  refuse("anchor", p, {nullptr, {1, width}, {width, 1}}, x.final_norm);
  refuse("anchor", p, rows_of(e, 0, 2), x.final_norm);
  refuse("anchor", p, pare::columns_of(anchor, 0, width - 1), x.final_norm);
  refuse("final_norm", p, anchor, short_norm);
  refuse("previous", p, anchor, x.final_norm, {.previous = 0});
  refuse("ranks", p, anchor, x.final_norm, {.ranks = 0});
  refuse("temperature", p, anchor, x.final_norm, {.temperature = -1});
  refuse("norm_epsilon", p, anchor, x.final_norm, {.norm_epsilon = -1});
  const DenseHead<float> narrow(random_rows<float>(9, width - 1, 3).view());
  refusal([&] { x.lists.fill(pare::simd, correct, narrow, p, x.final_norm, anchor, nothing); },
          "draft::BranchLists::fill", "head");
}

}  // namespace
}  // namespace draft_branch_lists_test
