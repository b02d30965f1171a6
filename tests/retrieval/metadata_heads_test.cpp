// SPDX-License-Identifier: Apache-2.0
// Scores by rows of items, losses of several heads and their gradients, refusals.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/retrieval/items/embedding_bag.hpp>
#include <pare/retrieval/items/metadata_heads.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace retrieval_metadata_heads_test {
namespace {

using pare::const_view;
using pare::Index;
using pare::RowMatrix;
using pare::to_view;
using pare::retrieval::ClassGradient;
using pare::retrieval::ClassHead;
using pare::retrieval::embedding_bag;
using pare::retrieval::ItemFields;
using pare::retrieval::multi_task_gradient;
using pare::retrieval::multi_task_loss;
using pare::retrieval::score_items;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::same_bits;
using pare::testing::Tolerance;

template <class T, class B>
void expect_scores(const B& backend, Index sessions, Index dim, Index width, Index items) {
  using Matrix = RowMatrix<T>;
  const auto s = random_matrix<Matrix>(sessions, dim, 1), w = random_matrix<Matrix>(width, dim, 2),
             e = random_matrix<Matrix>(items, width, 3);
  Matrix scores(sessions, items);
  score_items(backend, s, w, e, scores);
  for (Index i = 0; i < sessions; ++i)
    for (Index j = 0; j < items; ++j) {
      double wanted = 0, magnitude = 0;
      for (Index k = 0; k < width; ++k) {
        double query = 0, size = 0;
        for (Index c = 0; c < dim; ++c) {
          const double term = static_cast<double>(s(i, c)) * static_cast<double>(w(k, c));
          query += term;
          size += std::abs(term);
        }
        wanted += query * static_cast<double>(e(j, k));
        magnitude += size * std::abs(static_cast<double>(e(j, k)));
      }
      // A product of a product: roundings of both.
      const auto terms = static_cast<double>(dim + width + 2);
      ASSERT_NEAR(static_cast<double>(scores(i, j)), wanted,
                  Tolerance<T>::dot(terms, magnitude) + Tolerance<double>::dot(terms, magnitude))
          << i << ' ' << j;
    }
}

TEST(ScoreItems, AreTheProductsOfPlainLoops) {
  expect_scores<float>(pare::simd, 1, 5, 7, 100);
  expect_scores<float>(pare::simd.threads(2), 67, 33, 17, 131);
  expect_scores<double>(pare::simd, 3, 1, 1, 9);
  expect_scores<float>(pare::reference, 3, 5, 7, 9);
  expect_scores<float>(pare::simd, 0, 5, 7, 9);
  expect_scores<float>(pare::simd, 5, 5, 7, 0);
}

/// Items of the same few values at every place of a tile, the last of which training never saw.
TEST(ScoreItems, EqualMetadataAreEqualBitsAlsoOfAnItemNeverSeen) {
  for (const Index items : {100, 1537}) {
    ItemFields fields(items);
    std::vector<Index> ids, offsets{0}, single;
    for (Index i = 0; i < items; ++i) {
      for (const Index id : {5, 2}) ids.push_back(id + i % 3);
      offsets.push_back(static_cast<Index>(ids.size()));
      single.push_back(i % 3);
    }
    fields.add(8, ids, offsets);
    fields.add(3, single);
    const std::vector<RowMatrix<float>> tables{random_matrix<RowMatrix<float>>(8, 21, 1),
                                               random_matrix<RowMatrix<float>>(3, 12, 2)};
    RowMatrix<float> rows(items, 33), scores(7, items);
    embedding_bag(fields, tables, rows);
    const auto s = random_matrix<RowMatrix<float>>(7, 16, 4),
               w = random_matrix<RowMatrix<float>>(33, 16, 5);
    score_items(s, w, rows, scores);
    for (Index i = 0; i < 7; ++i)
      for (Index j = 3; j < items; ++j)
        ASSERT_TRUE(same_bits(scores(i, j), scores(i, j - 3))) << i << ' ' << j;
    EXPECT_TRUE(scores.allFinite());
    EXPECT_NE(scores(0, 0), scores(0, 1));
    // A session alone has the bits that it has among others.
    RowMatrix<float> alone(1, items);
    score_items(RowMatrix<float>(s.row(6)), w, rows, alone);
    for (Index j = 0; j < items; ++j) ASSERT_TRUE(same_bits(alone(0, j), scores(6, j))) << j;
  }
}

/// Three heads over sessions: items through a map, two of classes.
template <class T>
struct Tasks {
  using Matrix = RowMatrix<T>;
  Matrix sessions, map, items, categories, subs;
  Matrix by_sessions, by_map, by_items, by_categories, by_subs;
  std::vector<Index> next, next_category, next_sub;
  std::vector<double> losses = std::vector<double>(3, -1);
  std::vector<double> weights{1, 1, .5};

  explicit Tasks(Index count, Index dim = 6, Index width = 5, Index item_count = 23)
      : sessions(random_matrix<Matrix>(count, dim, 1)),
        map(random_matrix<Matrix>(width, dim, 2)),
        items(random_matrix<Matrix>(item_count, width, 3)),
        categories(random_matrix<Matrix>(4, dim, 4)),
        subs(random_matrix<Matrix>(9, dim, 5)),
        by_sessions(Matrix::Ones(count, dim)),
        by_map(Matrix::Ones(width, dim)),
        by_items(Matrix::Ones(item_count, width)),
        by_categories(Matrix::Ones(4, dim)),
        by_subs(Matrix::Ones(9, dim)) {
    for (Index i = 0; i < count; ++i) {
      next.push_back(i * 7 % item_count);
      next_category.push_back(i * 5 % 4);
      next_sub.push_back(i * i % 9);
    }
  }
  std::vector<ClassHead<T>> heads() const {
    return {{.classes = const_view(items),
             .map = const_view(map),
             .targets = next,
             .weight = weights[0]},
            {.classes = const_view(categories), .targets = next_category, .weight = weights[1]},
            {.classes = const_view(subs), .targets = next_sub, .weight = weights[2]}};
  }
  std::vector<ClassGradient<T>> gradients() {
    return {{.by_classes = to_view(by_items), .by_map = to_view(by_map)},
            {.by_classes = to_view(by_categories)},
            {.by_classes = to_view(by_subs)}};
  }
  template <class B>
  double run(const B& backend) {
    return multi_task_gradient(backend, sessions, heads(), by_sessions, gradients(), losses);
  }
};

/// -ln softmax of plain loops, in double.
template <class T>
double cross_entropy(const RowMatrix<T>& queries, const RowMatrix<T>& classes,
                     const std::vector<Index>& targets) {
  double loss = 0;
  for (Index i = 0; i < queries.rows(); ++i) {
    double sum = 0, wanted = 0;
    for (Index c = 0; c < classes.rows(); ++c) {
      const double logit =
          (queries.row(i).template cast<double>()).dot(classes.row(c).template cast<double>());
      sum += std::exp(logit);
      if (c == targets[static_cast<std::size_t>(i)]) wanted = logit;
    }
    loss += std::log(sum) - wanted;
  }
  return loss / static_cast<double>(queries.rows());
}

TEST(MultiTaskLoss, IsTheSumOfCrossEntropies) {
  for (const Index count : {1, 300}) {
    Tasks<double> t(count);
    const RowMatrix<double> queries = t.sessions.lazyProduct(t.map.transpose());
    const double each[] = {cross_entropy(queries, t.items, t.next),
                           cross_entropy(t.sessions, t.categories, t.next_category),
                           cross_entropy(t.sessions, t.subs, t.next_sub)};
    const double wanted = each[0] + each[1] + .5 * each[2];
    EXPECT_NEAR(multi_task_loss(t.sessions, t.heads(), t.losses), wanted, 1e-13);
    for (std::size_t h = 0; h < 3; ++h) EXPECT_NEAR(t.losses[h], each[h], 1e-13);
    EXPECT_NEAR(multi_task_loss(pare::reference, t.sessions, t.heads()), wanted, 1e-13);
    EXPECT_NEAR(t.run(pare::simd), wanted, 1e-13);
  }
  // Of float: sums of six products of numbers below 1, and a logarithm of 23 exponentials.
  Tasks<float> f(300);
  Tasks<double> d(300);
  EXPECT_NEAR(multi_task_loss(f.sessions, f.heads()), multi_task_loss(d.sessions, d.heads()), 2e-6);
}

TEST(MultiTaskLoss, OfLogitsThatAreAllEqualIsTheLogarithmOfClasses) {
  const RowMatrix<float> sessions = RowMatrix<float>::Ones(2, 3),
                         classes(RowMatrix<float>::Zero(8, 3));
  const std::vector<Index> targets{7, 0};
  const std::vector<ClassHead<float>> heads{{.classes = const_view(classes), .targets = targets}};
  EXPECT_NEAR(multi_task_loss(sessions, heads), 2.0794415416798357, 3e-7);
}

/// Central differences, h = 1e-5: off by about h^2 and 1e-15 / h.
TEST(MultiTaskGradient, IsThatOfFiniteDifferences) {
  for (const bool fast : {true, false}) {
    Tasks<double> t(7);
    if (fast)
      t.run(pare::simd);
    else
      t.run(pare::reference);
    const auto check = [&](RowMatrix<double>& of, const RowMatrix<double>& gradient) {
      for (Index k = 0; k < of.size(); ++k) {
        double& at = of.data()[k];
        const double was = at, h = 1e-5;
        at = was + h;
        const double above = multi_task_loss(pare::reference, t.sessions, t.heads());
        at = was - h;
        const double below = multi_task_loss(pare::reference, t.sessions, t.heads());
        at = was;
        ASSERT_NEAR(gradient.data()[k], (above - below) / (2 * h), 1e-8) << k;
      }
    };
    check(t.sessions, t.by_sessions);
    check(t.map, t.by_map);
    check(t.items, t.by_items);
    check(t.categories, t.by_categories);
    check(t.subs, t.by_subs);
  }
}

/// Blocks of sessions add up to the whole: each part alone, by its share.
TEST(MultiTaskGradient, OfManySessionsIsThatOfItsParts) {
  Tasks<double> all(600);
  all.run(pare::simd);
  RowMatrix<double> by_items = RowMatrix<double>::Zero(23, 5);
  for (Index first = 0; first < 600; first += 100) {
    Tasks<double> part(100);
    part.sessions = all.sessions.middleRows(first, 100);
    for (std::size_t i = 0; i < 100; ++i) {
      part.next[i] = all.next[static_cast<std::size_t>(first) + i];
      part.next_category[i] = all.next_category[static_cast<std::size_t>(first) + i];
      part.next_sub[i] = all.next_sub[static_cast<std::size_t>(first) + i];
    }
    part.run(pare::simd);
    by_items += part.by_items / 6;
    EXPECT_LT((all.by_sessions.middleRows(first, 100) - part.by_sessions / 6).norm(), 1e-15);
  }
  EXPECT_LT((all.by_items - by_items).norm(), 1e-14);
}

TEST(MultiTaskGradient, AHeadWithoutWeightHasNoneWhateverItsLoss) {
  Tasks<double> with(7), without(7);
  with.weights = {1, 0, 0};
  with.subs(2, 2) = std::numeric_limits<double>::quiet_NaN();
  const double loss = with.run(pare::simd);
  EXPECT_EQ(with.by_categories.cwiseAbs().maxCoeff(), 0);
  EXPECT_EQ(with.by_subs.cwiseAbs().maxCoeff(), 0);
  EXPECT_TRUE(std::isnan(with.losses[2]));
  RowMatrix<double> by_sessions(7, 6);
  const double alone = multi_task_gradient(
      without.sessions, std::span<const ClassHead<double>>(without.heads()).first(1), by_sessions,
      std::span<const ClassGradient<double>>(without.gradients()).first(1));
  EXPECT_EQ(loss, alone);
  EXPECT_TRUE(pare::testing::equal_bits(with.by_sessions, by_sessions));
  EXPECT_TRUE(pare::testing::equal_bits(with.by_items, without.by_items));
}

TEST(MultiTaskGradient, SameBitsForAnyThreadsAndAllocatesNothingTheSecondTime) {
  Tasks<float> t(300, 17, 9, 700);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    t.run(backend);
    return t.by_items;
  });
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    t.run(backend);
    return t.by_sessions;
  });
  pare::Workspace workspace;
  const auto heads = t.heads();
  const auto gradients = t.gradients();
  long before = 0;
  for (int turn = 0; turn < 3; ++turn) {
    before = pare::testing::allocations;
    multi_task_gradient(pare::simd.with(workspace), t.sessions, heads, t.by_sessions, gradients,
                        t.losses);
  }
  EXPECT_EQ(pare::testing::allocations, before);
}

TEST(ScoreItems, RefuseWhatDoesNotFit) {
  const RowMatrix<float> s = RowMatrix<float>::Ones(3, 4), w = RowMatrix<float>::Ones(5, 4),
                         e = RowMatrix<float>::Ones(7, 5), none(3, 0);
  RowMatrix<float> scores = RowMatrix<float>::Ones(3, 7);
  const auto refused = [&](const auto& a, const auto& b, const auto& c, auto&& to,
                           const char* argument) {
    refuses_and_leaves_alone([&] { score_items(a, b, c, to); }, "retrieval::score_items", argument,
                             scores);
  };
  refused(none, w, e, scores, "sessions");
  refused(RowMatrix<float>(s.transpose()), w, e, scores, "map");
  refused(s, RowMatrix<float>(0, 4), RowMatrix<float>(7, 0), scores, "map");
  refused(s, w, RowMatrix<float>(7, 4), scores, "items");
  refused(s, w, e, scores.leftCols(6), "scores");
  refused(Eigen::MatrixXf(s), w, e, scores, "sessions");
  refused(s, Eigen::MatrixXf(w), e, scores, "map");
  refused(s, w, Eigen::MatrixXf(e), scores, "items");
  RowMatrix<float> square = RowMatrix<float>::Ones(5, 5);
  refuses_and_leaves_alone([&] { score_items(square, square, square, square); },
                           "retrieval::score_items", "scores", square);
}

TEST(MultiTaskLoss, RefusesWhatDoesNotFit) {
  const auto refused = [](const char* argument, const auto& spoil) {
    Tasks<float> t(4);
    auto heads = t.heads();
    auto gradients = t.gradients();
    spoil(t, heads, gradients);
    refuses_and_leaves_alone([&] { multi_task_loss(t.sessions, heads, t.losses); },
                             "retrieval::multi_task_loss", argument, t.losses);
    refuses_and_leaves_alone(
        [&] { multi_task_gradient(t.sessions, heads, t.by_sessions, gradients, t.losses); },
        "retrieval::multi_task_gradient", argument, t.losses, t.by_sessions, t.by_map, t.by_items);
  };
  refused("heads", [](auto&, auto& heads, auto&) { heads.clear(); });
  refused("sessions", [](auto& t, auto&, auto&) { t.sessions.resize(0, 6); });
  refused("sessions", [](auto& t, auto&, auto&) { t.sessions.resize(4, 0); });
  refused("map", [](auto& t, auto&, auto&) { t.sessions = RowMatrix<float>::Ones(4, 5); });
  refused("classes", [](auto&, auto& heads, auto&) { heads[0].map.reset(); });
  refused("classes", [](auto&, auto& heads, auto&) { heads[1].classes.extent[0] = 0; });
  for (const double bad : {-1., std::nan(""), std::numeric_limits<double>::infinity()})
    refused("weight", [bad](auto&, auto& heads, auto&) { heads[2].weight = bad; });
  refused("targets", [](auto& t, auto&, auto&) { t.next_category[3] = 4; });
  refused("targets", [](auto& t, auto&, auto&) { t.next[0] = -1; });
  refused("targets", [](auto& t, auto& heads, auto&) {
    heads[1].targets = std::span<const Index>(t.next_category).first(3);
  });
  refused("losses", [](auto& t, auto&, auto&) { t.losses.pop_back(); });
}

TEST(MultiTaskGradient, RefusesOutputsThatDoNotFit) {
  const auto refused = [](const char* argument, const auto& spoil) {
    Tasks<float> t(4, 6, 6);
    const auto heads = t.heads();
    auto gradients = t.gradients();
    spoil(t, gradients);
    refuses_and_leaves_alone(
        [&] { multi_task_gradient(t.sessions, heads, t.by_sessions, gradients, t.losses); },
        "retrieval::multi_task_gradient", argument, t.losses, t.by_sessions, t.by_map, t.by_items,
        t.items);
  };
  refused("by_sessions", [](auto& t, auto&) { t.by_sessions.resize(4, 5); });
  refused("by_heads", [](auto&, auto& gradients) { gradients.pop_back(); });
  refused("by_map", [](auto&, auto& gradients) { gradients[0].by_map.reset(); });
  refused("by_map", [](auto& t, auto& gradients) { gradients[1].by_map = to_view(t.by_map); });
  refused("by_map", [](auto&, auto& gradients) { --gradients[0].by_map->extent[0]; });
  refused("by_classes", [](auto&, auto& gradients) { --gradients[2].by_classes.extent[0]; });
  refused("by_classes",
          [](auto& t, auto& gradients) { gradients[0].by_classes = to_view(t.items); });
  refused("by_classes", [](auto& t, auto& gradients) {
    gradients[1].by_classes = rows_of(to_view(t.by_subs), 0, 4);
    gradients[2].by_classes = to_view(t.by_subs);
  });
  refused("by_map", [](auto& t, auto& gradients) {
    gradients[0].by_map = rows_of(to_view(t.by_items), 0, 6);
  });
}

}  // namespace
}  // namespace retrieval_metadata_heads_test
