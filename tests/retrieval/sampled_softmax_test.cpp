// SPDX-License-Identifier: Apache-2.0
// Sampled softmax: the definition in long double, the full softmax, finite differences, hits,
// corrections, extreme and 16-bit rows, refusals.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/retrieval/objectives/sampled_softmax.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace retrieval_sampled_softmax_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::retrieval::Proposal;
using pare::retrieval::sampled_softmax;
using pare::retrieval::sampled_softmax_gradient;
using pare::retrieval::SampledItems;
using pare::retrieval::SampledSoftmaxOptions;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using Wide = RowMatrix<double>;
using List = std::vector<Index>;

/// Users that like items by number, and negatives, some of which are hits or there twice.
struct Case {
  Wide users, items;
  List positives, negatives;
  Wide by_users, by_items;

  Case(Index rows, Index count, Index table, Index dim)
      : users(random_matrix<Wide>(rows, dim, 1)),
        items(random_matrix<Wide>(table, dim, 2)),
        by_users(Wide::Constant(rows, dim, 7)),
        by_items(Wide::Constant(table, dim, 7)) {
    for (Index i = 0; i < rows; ++i) positives.push_back(i * 7 % table);
    for (Index j = 0; j < count; ++j) negatives.push_back(j * j % table);
  }
  SampledItems sampled(std::span<const double> log_q = {}) const {
    return {positives, negatives, log_q, {}};
  }
};

List all_of(Index items) {
  List all;
  for (Index i = 0; i < items; ++i) all.push_back(i);
  return all;
}

/// The mean of ln(1 + sum of e^(z - s)) over the rows, by the file's formula.
long double oracle(const Case& c, const std::optional<List>& negatives,
                   std::span<const double> log_q, const SampledSoftmaxOptions& o) {
  const auto logit = [&](Index i, Index item) {
    long double dot = 0;
    for (Index d = 0; d < c.users.cols(); ++d)
      dot += static_cast<long double>(c.users(i, d)) * static_cast<long double>(c.items(item, d));
    return dot / static_cast<long double>(o.temperature);
  };
  const List& list = negatives ? *negatives : c.positives;
  const auto m = static_cast<long double>(list.size()) - (negatives ? 0 : 1);
  const auto off = [&](Index item) {
    if (log_q.empty()) return 0.0L;
    return std::log(m) + static_cast<long double>(log_q[static_cast<std::size_t>(item)]);
  };
  long double sum = 0;
  for (Index i = 0; i < c.users.rows(); ++i) {
    const Index own = c.positives[static_cast<std::size_t>(i)];
    const long double s = logit(i, own) - (o.correct_positive ? off(own) : 0);
    long double others = 0;
    for (Index j = 0; j < static_cast<Index>(list.size()); ++j) {
      const Index item = list[static_cast<std::size_t>(j)];
      if ((!negatives && i == j) || (o.remove_hits && item == own)) continue;
      others += std::exp(logit(i, item) - off(item) - s);
    }
    sum += std::log1p(others);
  }
  return sum / static_cast<long double>(c.users.rows());
}

/// A logit of dim products of numbers below 1 is off by dim (dim + 1) u over the temperature, and a
/// sum of up to 64 exponentials in a lane by 64 u.
double bound_of(double u, Index dim, double temperature) {
  const auto d = static_cast<double>(dim);
  return (2 * d * (d + 1) / temperature + 80) * u;
}

/// Every option, with rows over several blocks of 512 and odd sizes.
TEST(SampledSoftmax, IsTheDefinitions) {
  for (const auto& [rows, count, dim] :
       std::vector<std::array<Index, 3>>{{1, 1, 1}, {9, 33, 7}, {515, 70, 5}}) {
    const Case c(rows, count, 40, dim);
    const auto proposal = Proposal::log_uniform(40);
    const RowMatrix<float> users = c.users.cast<float>(), items = c.items.cast<float>();
    for (const bool own : {false, true})
      for (const bool hits : {false, true})
        for (const double temperature : {.2, 1.0}) {
          if (own && rows < 2) continue;
          const SampledSoftmaxOptions o{
              .temperature = temperature, .remove_hits = hits, .correct_positive = hits == own};
          SampledItems sampled = c.sampled(proposal.log_probabilities());
          if (own) sampled.negatives.reset();
          const auto wanted = static_cast<double>(
              oracle(c, own ? std::nullopt : std::optional(c.negatives), sampled.log_proposal, o));
          const double wide = bound_of(1e-15, dim, temperature);
          EXPECT_NEAR(sampled_softmax(pare::reference, c.users, c.items, sampled, o), wanted, wide);
          EXPECT_NEAR(sampled_softmax(c.users, c.items, sampled, o), wanted, wide);
          EXPECT_NEAR(sampled_softmax(users, items, sampled, o), wanted,
                      bound_of(6e-8, dim, temperature));
        }
  }
}

/// Every item once and no correction, or that of a uniform proposal, by which each is expected
/// once.
TEST(SampledSoftmax, OfAllItemsIsTheFullSoftmax) {
  Case c(20, 1, 30, 6);
  c.negatives = all_of(30);
  double wanted = 0;
  for (Index i = 0; i < 20; ++i) {
    double sum = 0;
    for (Index k = 0; k < 30; ++k) sum += std::exp(c.items.row(k).dot(c.users.row(i)));
    wanted +=
        std::log(sum) - c.items.row(c.positives[static_cast<std::size_t>(i)]).dot(c.users.row(i));
  }
  wanted /= 20;
  const auto uniform = Proposal::uniform(30);
  EXPECT_NEAR(sampled_softmax(c.users, c.items, c.sampled()), wanted, 1e-14);
  EXPECT_NEAR(sampled_softmax(c.users, c.items, c.sampled(uniform.log_probabilities())), wanted,
              1e-14);
}

/// Of 2^16 draws the sum is off by about 1 / 2^8 of itself, whatever they are drawn by.
TEST(SampledSoftmax, NearsTheFullSoftmaxAsNegativesGrow) {
  Case c(20, 1, 30, 6);
  c.negatives = all_of(30);
  const double full = sampled_softmax(c.users, c.items, c.sampled());
  const std::vector<double> weights(30, 1.0);
  for (const auto& proposal : {Proposal::log_uniform(30), Proposal::of(weights)}) {
    List drawn(1 << 16);
    proposal.draw(drawn, {.seed = 3});
    EXPECT_NEAR(
        sampled_softmax(c.users, c.items, {c.positives, drawn, proposal.log_probabilities(), {}}),
        full, .02);
  }
}

/// Central differences of the reference's loss, h = 1e-5: off by about h^2 and 1e-15 / h.
TEST(SampledSoftmax, GradientsAreThoseOfFiniteDifferences) {
  const auto proposal = Proposal::log_uniform(12);
  for (const bool own : {false, true}) {
    Case c(9, 15, 12, 4);
    SampledItems sampled = c.sampled(proposal.log_probabilities());
    if (own) sampled.negatives.reset();
    const SampledSoftmaxOptions o{.temperature = .5, .correct_positive = own};
    Wide by_users(9, 4), by_items(12, 4);
    sampled_softmax_gradient(c.users, c.items, sampled, c.by_users, c.by_items, o);
    sampled_softmax_gradient(pare::reference, c.users, c.items, sampled, by_users, by_items, o);
    EXPECT_LT((by_users - c.by_users).norm(), 1e-14);
    EXPECT_LT((by_items - c.by_items).norm(), 1e-14);
    const auto agree = [&](Wide& of, const Wide& gradient) {
      for (Index k = 0; k < of.size(); ++k) {
        const double at = of.data()[k], h = 1e-5;
        const auto loss = [&](double x) {
          of.data()[k] = x;
          return sampled_softmax(pare::reference, c.users, c.items, sampled, o);
        };
        const double above = loss(at + h), below = loss(at - h);
        of.data()[k] = at;
        EXPECT_NEAR(gradient.data()[k], (above - below) / (2 * h), 1e-8);
      }
    };
    agree(c.users, c.by_users);
    agree(c.items, c.by_items);
  }
}

/// Two blocks of rows, in float: against the reference in double. Shares are off by bound_of, and
/// a gradient is a mean of at most two rows of numbers below 1; by an item of a sum over all rows.
TEST(SampledSoftmax, GradientsOfManyRowsAreTheReferences) {
  Case c(601, 70, 40, 5);
  const RowMatrix<float> users = c.users.cast<float>(), items = c.items.cast<float>();
  RowMatrix<float> by_users(601, 5), by_items(40, 5);
  const double loss =
      sampled_softmax_gradient(users, items, c.sampled(), by_users, by_items, {.temperature = .3});
  EXPECT_NEAR(loss,
              sampled_softmax_gradient(pare::reference, c.users, c.items, c.sampled(), c.by_users,
                                       c.by_items, {.temperature = .3}),
              bound_of(6e-8, 5, .3));
  const double bound = 2 / .3 * bound_of(6e-8, 5, .3);
  EXPECT_LT((by_users.cast<double>() - c.by_users).cwiseAbs().maxCoeff(), bound / 601);
  EXPECT_LT((by_items.cast<double>() - c.by_items).cwiseAbs().maxCoeff(), bound);
}

TEST(SampledSoftmax, LeavesOutHitsAndRowsOfOneName) {
  Case c(3, 1, 6, 4);
  c.positives = {0, 1, 2};
  const auto loss = [&](const List& negatives, const List& names = {}, bool remove = true) {
    return sampled_softmax(c.users, c.items, {c.positives, negatives, {}, names},
                           {.remove_hits = remove});
  };
  c.users.row(1) = c.users.row(2) = c.users.row(0);
  c.positives = {0, 0, 0};
  EXPECT_EQ(loss({0, 0}), 0);  // nothing is left
  EXPECT_NEAR(loss({0}, {}, false), std::log(2.0), 1e-15);
  EXPECT_EQ(loss({0, 4, 0}), loss({4}));
  EXPECT_EQ(loss({4, 5}, {0, 1, 2, 3, 4, 0}), loss({4}));
  // Of a batch: rows of one positive are no negatives of each other.
  EXPECT_EQ(sampled_softmax(c.users, c.items, {.positives = c.positives}), 0);
  EXPECT_NEAR(sampled_softmax(c.users, c.items, {.positives = c.positives}, {.remove_hits = false}),
              std::log(3.0), 1e-15);
}

TEST(SampledSoftmax, WritesRowsOfItemsThatTakePart) {
  Case c(2, 1, 6, 3);
  c.positives = {1, 1};
  c.negatives = {4};
  Wide kept = c.by_items;
  sampled_softmax_gradient(c.users, c.items, c.sampled(), c.by_users, c.by_items);
  sampled_softmax_gradient(c.users, c.items, c.sampled(), c.by_users, kept, {.clear = false});
  for (const Index row : {0, 2, 3, 5}) {
    EXPECT_TRUE(c.by_items.row(row).isZero(0));
    EXPECT_TRUE((kept.row(row).array() == 7).all());
  }
  EXPECT_TRUE(kept.row(1) == c.by_items.row(1) && kept.row(4) == c.by_items.row(4));
  // Logits of a row move together: the gradients of its items cancel.
  EXPECT_LT((kept.row(1) + kept.row(4)).norm(), 1e-15);
}

TEST(SampledSoftmax, LogitsOfAnySizeHaveTheirLoss) {
  const auto expect = [](const auto& backend, auto zero) {
    using T = decltype(zero);
    RowMatrix<T> users(2, 1), items(2, 1), by_users(2, 1), by_items(2, 1);
    users << T(1e15), T(-1e15);
    items << T(1e15), T(-1e15);
    const List positives{0, 0}, negatives{1};
    const double loss = sampled_softmax_gradient(
        backend, users, items, {positives, negatives, {}, {}}, by_users, by_items);
    EXPECT_NEAR(loss / 1e30, 1, 1e-6);  // 0 of the first row, 2e30 of the second
    EXPECT_EQ(by_users(0, 0), 0);
    EXPECT_EQ(by_users(1, 0), T(-1e15));
    EXPECT_EQ(by_items(0, 0), T(5e14));
    EXPECT_EQ(by_items(1, 0), T(-5e14));
  };
  expect(pare::simd, 0.0f);
  expect(pare::simd, 0.0);
  expect(pare::reference, 0.0);
}

TEST(SampledSoftmax, NaNMakesItsRowAndItsNegativesNaN) {
  Case c(3, 1, 6, 2);
  c.positives = {0, 1, 2};
  c.negatives = {4};
  c.users(1, 0) = std::nan("");
  const auto expect = [&](const auto& backend) {
    EXPECT_TRUE(std::isnan(
        sampled_softmax_gradient(backend, c.users, c.items, c.sampled(), c.by_users, c.by_items)));
    for (const Index row : {0, 2}) EXPECT_TRUE(c.by_users.row(row).allFinite());
    EXPECT_TRUE(c.by_users.row(1).array().isNaN().all());
    for (const Index row : {0, 2, 3, 5}) EXPECT_TRUE(c.by_items.row(row).allFinite());
    for (const Index row : {1, 4}) EXPECT_TRUE(c.by_items.row(row).array().isNaN().all());
  };
  expect(pare::simd);
  expect(pare::reference);
}

/// Rows of 16 bits are those that they widen to.
template <class S>
void expect_widened() {
  const RowMatrix<S> users = random_matrix<RowMatrix<S>>(9, 5, 1);
  const RowMatrix<S> items = random_matrix<RowMatrix<S>>(12, 5, 2);
  RowMatrix<float> u(9, 5), v(12, 5);
  for (Index k = 0; k < u.size(); ++k) u.data()[k] = static_cast<float>(users.data()[k]);
  for (Index k = 0; k < v.size(); ++k) v.data()[k] = static_cast<float>(items.data()[k]);
  const Case c(9, 15, 12, 5);
  RowMatrix<float> a(21, 5), b(21, 5);
  EXPECT_EQ(sampled_softmax_gradient(users, items, c.sampled(), a.topRows(9), a.bottomRows(12)),
            sampled_softmax_gradient(u, v, c.sampled(), b.topRows(9), b.bottomRows(12)));
  EXPECT_TRUE(a == b);
  EXPECT_NEAR(sampled_softmax(pare::reference, users, items, c.sampled()),
              sampled_softmax(users, items, c.sampled()), bound_of(6e-8, 5, 1));
}
TEST(SampledSoftmax, RowsOf16BitsAreWidened) {
  expect_widened<pare::bf16>();
  expect_widened<pare::f16>();
}

TEST(SampledSoftmax, SameBitsForAnyThreadsAndStride) {
  const Case c(601, 70, 40, 5);
  const RowMatrix<float> users = c.users.cast<float>(), items = c.items.cast<float>();
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    RowMatrix<float> both(641, 5);
    sampled_softmax_gradient(backend, users, items, c.sampled(), both.topRows(601),
                             both.bottomRows(40));
    return both;
  });
  pare::testing::any_stride_same_bits(users, [&](const auto& view) {
    Eigen::MatrixXf both(641, 5);
    sampled_softmax_gradient(view, items, c.sampled(), both.topRows(601), both.bottomRows(40));
    return both;
  });
  pare::testing::any_stride_same_bits(
      items, [&](const auto& view) { return sampled_softmax(users, view, c.sampled()); });
}

TEST(SampledSoftmax, TheSecondCallAllocatesNothing) {
  Case c(60, 30, 20, 8);
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  sampled_softmax_gradient(backend, c.users, c.items, c.sampled(), c.by_users, c.by_items);
  const long before = pare::testing::allocations;
  sampled_softmax_gradient(backend, c.users, c.items, c.sampled(), c.by_users, c.by_items);
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

TEST(SampledSoftmax, RefusesWhatDoesNotFit) {
  Case c(4, 3, 6, 2);
  const char* const f = "retrieval::sampled_softmax_gradient";
  const std::vector<double> log_q(6, -1.0);
  const auto refused = [&](const Wide& users, const Wide& items, const SampledItems& sampled,
                           const SampledSoftmaxOptions& o, const char* argument) {
    refuses_and_leaves_alone(
        [&] { sampled_softmax_gradient(users, items, sampled, c.by_users, c.by_items, o); }, f,
        argument, c.by_users, c.by_items);
    refusal([&] { sampled_softmax(users, items, sampled, o); }, "retrieval::sampled_softmax",
            argument);
  };
  const auto wrong = [&](const SampledItems& sampled, const char* argument) {
    refused(c.users, c.items, sampled, {}, argument);
  };
  for (const double bad : {0.0, -1.0, 1e31, std::nan("")})
    refused(c.users, c.items, c.sampled(), {.temperature = bad}, "temperature");
  refused(Wide(0, 2), c.items, c.sampled(), {}, "users");
  refused(Wide(4, 0), Wide(6, 0), c.sampled(), {}, "users");
  refused(c.users, c.items.leftCols(1), c.sampled(), {}, "items");
  refused(c.users.topRows(1), c.items, {.positives = std::span(c.positives).first(1)}, {}, "users");
  const List none, few{1, 2}, low{0, 1, -1, 2}, high{0, 1, 6, 2};
  const std::vector<double> short_q(5), infinite(6, std::log(0.0));
  wrong({few, c.negatives, {}, {}}, "positives");
  wrong({low, c.negatives, {}, {}}, "positives");
  wrong({high, c.negatives, {}, {}}, "positives");
  wrong({c.positives, none, {}, {}}, "negatives");
  wrong({c.positives, low, {}, {}}, "negatives");
  wrong({c.positives, high, {}, {}}, "negatives");
  wrong(c.sampled(short_q), "log_proposal");
  wrong(c.sampled(infinite), "log_proposal");
  wrong({c.positives, c.negatives, {}, few}, "names");
  std::vector<double> some = log_q;
  some[0] = std::nan("");
  const List zero{0, 0, 0, 0}, five{5};
  refused(c.users, c.items, {zero, five, some, {}}, {.correct_positive = true}, "log_proposal");
  EXPECT_NO_THROW(sampled_softmax(c.users, c.items, {zero, five, some, {}}));
}

TEST(SampledSoftmax, RefusesGradientsThatDoNotFit) {
  Case c(4, 3, 6, 2);
  const char* const f = "retrieval::sampled_softmax_gradient";
  const auto wrong = [&](auto&& by_users, auto&& by_items, const char* argument) {
    refuses_and_leaves_alone(
        [&] { sampled_softmax_gradient(c.users, c.items, c.sampled(), by_users, by_items); }, f,
        argument, c.by_users, c.by_items, c.users, c.items);
  };
  Wide small(3, 2);
  wrong(small, c.by_items, "user_gradient");
  wrong(c.by_users, small, "item_gradient");
  wrong(c.users, c.by_items, "user_gradient");
  wrong(c.by_users, c.items, "item_gradient");
  wrong(c.by_items.topRows(4), c.by_items, "user_gradient");
}

/// A gradient of zeros that is also a list of ids 0, or of chances of 1.
TEST(SampledSoftmax, RefusesGradientsOverItsLists) {
  Case c(4, 3, 4, 2);
  Wide over = Wide::Zero(4, 2);
  const auto ids = [&](std::size_t count) {
    return std::span(reinterpret_cast<const Index*>(over.data()), count);
  };
  const List positives(4, 1), negatives(3, 2);
  const std::vector<SampledItems> lists{
      {ids(4), negatives, {}, {}},
      {positives, ids(3), {}, {}},
      {positives, negatives, std::span<const double>(over.data(), 4), {}},
      {positives, negatives, {}, ids(4)}};
  for (const SampledItems& sampled : lists) {
    const char* const f = "retrieval::sampled_softmax_gradient";
    refuses_and_leaves_alone(
        [&] { sampled_softmax_gradient(c.users, c.items, sampled, over, c.by_items); }, f,
        "user_gradient", over, c.by_items);
    refuses_and_leaves_alone(
        [&] { sampled_softmax_gradient(c.users, c.items, sampled, c.by_users, over); }, f,
        "item_gradient", over, c.by_users);
  }
}

TEST(Proposal, DrawsByItsProbabilities) {
  const std::vector<double> weights{0, 1, 0, 3, 0};
  const auto of = Proposal::of(weights);
  EXPECT_NEAR(of.log_probabilities()[3], std::log(.75), 1e-15);
  EXPECT_EQ(of.log_probabilities()[4], -std::numeric_limits<double>::infinity());
  const auto zipf = Proposal::log_uniform(3);
  for (const double i : {0.0, 1.0, 2.0})
    EXPECT_NEAR(zipf.log_probabilities()[static_cast<std::size_t>(i)],
                std::log(std::log((i + 2) / (i + 1)) / std::log(4.0)), 1e-15);
  EXPECT_NEAR(Proposal::uniform(8).log_probabilities()[7], -std::log(8.0), 1e-15);
  for (const auto* proposal : {&of, &zipf}) {
    constexpr Index draws = 1 << 16;
    List drawn(draws);
    proposal->draw(drawn, {.seed = 5, .step = 2});
    std::vector<double> counts(static_cast<std::size_t>(proposal->items()));
    for (const Index i : drawn) counts[static_cast<std::size_t>(i)] += 1;
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const double q = std::exp(proposal->log_probabilities()[i]);
      EXPECT_NEAR(counts[i], q * draws, 5 * std::sqrt(q * (1 - q) * draws)) << i;
    }
  }
}

/// A draw is a function of seed, step and place.
TEST(Proposal, DrawsTheSameAgain) {
  const auto proposal = Proposal::uniform(1000);
  List a(40), b(20), c(40), d(40);
  proposal.draw(a, {.seed = 1, .step = 9});
  proposal.draw(b, {.seed = 1, .step = 9});
  EXPECT_TRUE(std::equal(b.begin(), b.end(), a.begin()));
  proposal.draw(c, {.seed = 1, .step = 10});
  proposal.draw(d, {.seed = 2, .step = 9});
  EXPECT_NE(a, c);
  EXPECT_NE(a, d);
}

TEST(Proposal, RefusesWhatIsNoDistribution) {
  refusal([] { Proposal::uniform(0); }, "retrieval::Proposal::uniform", "items");
  refusal([] { Proposal::log_uniform(-1); }, "retrieval::Proposal::log_uniform", "items");
  for (const std::vector<double>& bad :
       {std::vector<double>{}, {0, 0}, {1, -1}, {1, std::nan("")}, {1e308, 1e308}})
    refusal([&] { Proposal::of(bad); }, "retrieval::Proposal::of", "weights");
}

}  // namespace
}  // namespace retrieval_sampled_softmax_test
