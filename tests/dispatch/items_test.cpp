// SPDX-License-Identifier: Apache-2.0
#include <pare/dispatch.hpp>
#include <pare/retrieval/items/embedding_bag.hpp>
#include <pare/retrieval/items/metadata_heads.hpp>
#include <pare/retrieval/items/session_encoder.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <vector>

namespace dispatch_items_test {
namespace {

using pare::Index;
namespace retrieval = pare::retrieval;

template <class S>
pare::RowMatrix<S> eighths(Index rows, Index cols, Index step) {
  pare::RowMatrix<S> m(rows, cols);
  for (Index i = 0; i < m.size(); ++i)
    m.data()[i] = static_cast<S>(static_cast<float>(i * step % 17 - 8) / 8);
  return m;
}

retrieval::ItemFields some_fields() {
  retrieval::ItemFields fields(40);
  std::vector<Index> ids, offsets{0}, single;
  for (Index i = 0; i < 40; ++i) {
    for (Index n = 0; n < i % 4; ++n) ids.push_back((i * 7 + n) % 9);
    offsets.push_back(static_cast<Index>(ids.size()));
    single.push_back(i % 5);
  }
  fields.add(9, ids, offsets);
  fields.add(5, single);
  return fields;
}

template <class S>
void expect_bags_agree(double tolerance) {
  using T = pare::compute_t<S>;
  const retrieval::ItemFields fields = some_fields();
  const std::vector<pare::RowMatrix<S>> tables{eighths<S>(9, 37, 5), eighths<S>(5, 3, 7)};
  const auto both = [&](const auto& backend) {
    pare::RowMatrix<T> rows(40, 40);
    std::vector<pare::RowMatrix<T>> by{eighths<T>(9, 37, 1), eighths<T>(5, 3, 1)};
    retrieval::embedding_bag(backend, fields, tables, rows);
    retrieval::embedding_bag_gradient(backend, fields, rows, by);
    rows.topLeftCorner(9, 37) += by[0];
    return rows;
  };
  const auto wanted = both(pare::reference);
  EXPECT_LT((both(pare::dispatched) - wanted).norm(), tolerance);
  EXPECT_EQ(both(pare::dispatched.threads(3)), both(pare::dispatched));
}

TEST(DispatchItems, BagsAreThoseOfTheReference) {
  expect_bags_agree<float>(1e-5);
  expect_bags_agree<double>(1e-13);
  expect_bags_agree<pare::bf16>(1e-5);
  expect_bags_agree<pare::f16>(1e-5);
}

template <class T>
void expect_sessions_agree(double tolerance) {
  using Layer = pare::transformer::DenseLinear<T>;
  const std::vector<T> gain(16, T(1)), bias(16, T(0.5));
  std::vector<retrieval::EncoderBlock<Layer>> blocks;
  const auto layer = [](Index step) { return Layer::copy_of(eighths<T>(16, 16, step)); };
  blocks.push_back({layer(3), layer(5), layer(7), layer(11), layer(13), gain, bias, gain, bias});
  const retrieval::SessionEncoder encoder(16, std::move(blocks), {.heads = 2});
  const auto rows = eighths<T>(60, 16, 5), map = eighths<T>(12, 16, 3),
             items = eighths<T>(33, 12, 7);
  const std::vector<Index> offsets{0, 3, 60}, targets{5, 7};
  const auto all = [&](const auto& backend) {
    pare::RowMatrix<T> sessions(2, 16), scores(2, 33), by_sessions(2, 16), by_items(33, 12),
        by_map(12, 16);
    encoder.encode(backend, rows, offsets, sessions);
    retrieval::score_items(backend, sessions, map, items, scores);
    const std::vector<retrieval::ClassHead<T>> heads{
        {.classes = pare::const_view(items), .map = pare::const_view(map), .targets = targets}};
    const std::vector<retrieval::ClassGradient<T>> by{
        {.by_classes = pare::to_view(by_items), .by_map = pare::to_view(by_map)}};
    scores(0, 0) +=
        static_cast<T>(retrieval::multi_task_gradient(backend, sessions, heads, by_sessions, by));
    scores.leftCols(16) += by_sessions;
    return scores;
  };
  EXPECT_LT((all(pare::dispatched) - all(pare::reference)).norm(), tolerance);
  EXPECT_EQ(all(pare::dispatched.threads(3)), all(pare::dispatched));
}

TEST(DispatchItems, SessionsAreThoseOfTheReference) {
  expect_sessions_agree<float>(1e-3);
  expect_sessions_agree<double>(1e-10);
}

}  // namespace
}  // namespace dispatch_items_test
