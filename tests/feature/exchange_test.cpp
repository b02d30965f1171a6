// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include <pare/feature/leap/leap.hpp>
#include <pare/feature/leap/mix_sparse.hpp>

#include "feature/batches.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace feature_exchange_test {
namespace {

using namespace pare::testing;
using Eigen::MatrixXd;
using pare::Index;
using pare::feature::DonorPolicy;
using pare::feature::Leap;
using pare::feature::MixGradients;
using pare::feature::SparseExchange;
using pare::feature::SparseFields;
using pare::feature::SparseMix;
using Rows = std::vector<std::uint32_t>;

template <class Case>
struct ExchangeTest : testing::Test {};
TYPED_TEST_SUITE(ExchangeTest, BackendsAndScalars);

constexpr DonorPolicy policies[] = {DonorPolicy::Shift, DonorPolicy::BaseShift,
                                    DonorPolicy::Uniform, DonorPolicy::Derangement};

/// Fields of two columns with so many active rows each, whose values are all different: the row and
/// the field, plus 1.
template <class T>
SparseFields<T> numbered(const std::vector<Index>& counts, Index rows) {
  const FieldLayout layout(std::vector<Index>(counts.size(), 2));
  SparseFields<T> x(layout, rows);
  x.reserve(counts);
  Engine random(5);
  for (Index j = 0; j < layout.fields(); ++j) {
    Rows all(static_cast<std::size_t>(rows));
    std::iota(all.begin(), all.end(), 0u);
    std::shuffle(all.begin(), all.end(), random);
    all.resize(static_cast<std::size_t>(counts[static_cast<std::size_t>(j)]));
    std::sort(all.begin(), all.end());
    x.set_rows(j, all);
    for (Index i = 0; i < x.entries(j); ++i) {
      x.values(j)(i, 0) = static_cast<T>(all[static_cast<std::size_t>(i)] + 1);
      x.values(j)(i, 1) = static_cast<T>(j + 1);
    }
  }
  return x;
}

/// The batch in double.
template <class T>
MatrixXd dense(const SparseFields<T>& x) {
  OwnedBatch<T> batch(x.layout(), x.rows(), Storage::RowMajor);
  to_dense(x, batch.batch());
  return batch.get();
}

/// With closed gates each row shows its donor's values.
template <class B, class T>
MatrixXd donors_values(const B& backend, const SparseFields<T>& x, const Donors& donors,
                       SparseExchange exchange) {
  SparseMix<T> mixed;
  const std::vector<double> closed(static_cast<std::size_t>(x.layout().fields()), 0.0);
  mix_forward(backend, x, closed, donors, mixed, exchange);
  for (Index j = 0; j < x.layout().fields(); ++j) {
    const auto rows = mixed.fields().rows_of(j);
    EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end())) << j;
  }
  return dense(mixed.fields());
}

Rows active_rows(const MatrixXd& x, Index j) {
  Rows rows;
  for (Index b = 0; b < x.rows(); ++b)
    if (x(b, 2 * j) != 0) rows.push_back(static_cast<std::uint32_t>(b));
  return rows;
}

/// Every entry is in one row, with both of its columns.
void expect_permuted(const MatrixXd& x, const MatrixXd& moved, Index j) {
  std::multiset<double> before, after;
  for (Index b = 0; b < x.rows(); ++b) {
    before.insert(x(b, 2 * j));
    after.insert(moved(b, 2 * j));
    EXPECT_EQ(moved(b, 2 * j + 1), moved(b, 2 * j) == 0 ? 0 : static_cast<double>(j + 1));
  }
  EXPECT_EQ(before, after);
}

const std::vector<Index> shares_of_40 = {0, 1, 2, 3, 11, 20, 21, 35, 39, 40};

TYPED_TEST(ExchangeTest, ValuesStayAmongActiveRows) {
  using T = typename TypeParam::scalar;
  const auto x = numbered<T>(shares_of_40, 40);
  const MatrixXd before = dense(x);
  for (const DonorPolicy policy : policies) {
    const Donors donors(policy, 3, 8, 40, x.layout());
    const MatrixXd moved =
        donors_values(TypeParam::backend::make(), x, donors, SparseExchange::Values);
    for (Index j = 0; j < x.layout().fields(); ++j) {
      expect_permuted(before, moved, j);
      EXPECT_EQ(active_rows(moved, j), active_rows(before, j));
      Index own = 0;
      for (Index b = 0; b < 40; ++b) own += moved(b, 2 * j) == before(b, 2 * j) ? 1 : 0;
      const Index others = 40 - x.entries(j);
      if (policy != DonorPolicy::Uniform && x.entries(j) > 1) {
        EXPECT_EQ(own, others) << "no active row keeps its value";
      }
      if (x.entries(j) == 1) {
        EXPECT_EQ(own, 40);
      }
    }
  }
}

TYPED_TEST(ExchangeTest, PresenceMovesAsManyEntriesAsCanMove) {
  using T = typename TypeParam::scalar;
  const auto x = numbered<T>(shares_of_40, 40);
  const MatrixXd before = dense(x);
  for (const DonorPolicy policy : policies) {
    const Donors donors(policy, 3, 8, 40, x.layout());
    const MatrixXd moved =
        donors_values(TypeParam::backend::make(), x, donors, SparseExchange::Presence);
    for (Index j = 0; j < x.layout().fields(); ++j) {
      expect_permuted(before, moved, j);
      const Index moving = std::min(x.entries(j), 40 - x.entries(j));
      Index lost = 0, gained = 0, kept = 0;
      for (Index b = 0; b < 40; ++b) {
        const double was = before(b, 2 * j), is = moved(b, 2 * j);
        lost += was != 0 && is == 0;
        gained += was == 0 && is != 0;
        kept += was == is;
      }
      EXPECT_EQ(lost, moving);
      EXPECT_EQ(gained, moving);
      EXPECT_EQ(kept, 40 - 2 * moving) << "an entry that does not move keeps its row";
    }
  }
}

TYPED_TEST(ExchangeTest, DrawsAreThoseOfTheReference) {
  using T = typename TypeParam::scalar;
  // Few and many rows are sorted in different ways.
  const auto x = numbered<T>({0, 1, 2, 5, 100, 1500, 1501, 2999, 3000}, 3000);
  for (const DonorPolicy policy : policies)
    for (const auto exchange :
         {SparseExchange::Rows, SparseExchange::Values, SparseExchange::Presence}) {
      const Donors donors(policy, 3, 8, 3000, x.layout());
      EXPECT_EQ(donors_values(TypeParam::backend::make(), x, donors, exchange),
                donors_values(pare::reference, x, donors, exchange));
    }
}

/// What the mix and its gradients are, given what each row's donor holds.
template <class T>
struct Definition {
  MatrixXd mixed, grad_x;
  std::vector<double> slopes, sizes, squares;

  Definition(const MatrixXd& x, const MatrixXd& other, const MatrixXd& up,
             const std::vector<double>& gates, bool live)
      : mixed(x), grad_x(MatrixXd::Zero(x.rows(), x.cols())) {
    for (std::size_t j = 0; j < gates.size(); ++j) {
      double slope = 0, size = 0, square = 0;
      for (Index c = 2 * static_cast<Index>(j); c < 2 * static_cast<Index>(j) + 2; ++c)
        for (Index b = 0; b < x.rows(); ++b) {
          const double delta = x(b, c) - other(b, c);
          mixed(b, c) = x(b, c) - (1 - gates[j]) * delta;
          slope += delta * up(b, c);
          size += std::abs(delta * up(b, c));
          square += delta * delta;
          grad_x(b, c) += gates[j] * up(b, c);
          if (live) grad_x(source(x, other, b, c), c) += (1 - gates[j]) * up(b, c);
        }
      slopes.push_back(slope);
      sizes.push_back(size);
      squares.push_back(square / static_cast<double>(x.rows()));
    }
  }
  /// The row that holds what row b shows; rows at the default get a gradient nobody reads.
  static Index source(const MatrixXd& x, const MatrixXd& other, Index b, Index c) {
    const Index first = c / 2 * 2;
    for (Index a = 0; a < x.rows(); ++a)
      if (x(a, first) == other(b, first)) return a;
    return b;
  }
};

TYPED_TEST(ExchangeTest, MixAndGradientsFollowTheDonors) {
  using T = typename TypeParam::scalar;
  const auto x = numbered<T>(shares_of_40, 40);
  const MatrixXd before = dense(x), up = normal_batch<T>(40, x.layout().dim(), 2);
  const std::vector<double> gates = some_gates(x.layout().fields(), 3);
  for (const auto exchange : {SparseExchange::Values, SparseExchange::Presence})
    for (const bool live : {false, true}) {
      const Donors donors(DonorPolicy::Derangement, 3, 8, 40, x.layout());
      const MatrixXd other = donors_values(TypeParam::backend::make(), x, donors, exchange);
      const Definition<T> wanted(before, other, up, gates, live);
      SparseMix<T> mixed;
      mix_forward(TypeParam::backend::make(), x, gates, donors, mixed, exchange);
      SparseFields<T> grad = mixed.fields(), grad_x;
      OwnedBatch<T> dense_up(x.layout(), 40, Storage::RowMajor);
      dense_up.set(up);
      read_entries(dense_up.read(), grad);
      MixGradients gradients;
      mix_backward(TypeParam::backend::make(), x, gates, donors, mixed, grad, grad_x, gradients,
                   {.detach = !live});
      const MatrixXd got = dense(mixed.fields()), got_grad = dense(grad_x);
      const double rounding = 16 * std::numeric_limits<T>::epsilon();
      EXPECT_LE((got - wanted.mixed).cwiseAbs().maxCoeff(), 40 * rounding);
      for (Index j = 0; j < x.layout().fields(); ++j) {
        const auto i = static_cast<std::size_t>(j);
        EXPECT_NEAR(gradients.gates[i], wanted.slopes[i], rounding * wanted.sizes[i]);
        EXPECT_NEAR(gradients.divergence.squared[i], wanted.squares[i],
                    rounding * wanted.squares[i]);
        for (const std::uint32_t b : x.rows_of(j))
          for (Index c = 2 * j; c < 2 * j + 2; ++c)
            EXPECT_NEAR(got_grad(b, c), wanted.grad_x(b, c), 8 * rounding) << j << ' ' << b;
      }
    }
}

/// How often each state of two active rows among five and so on comes up.
template <class Key>
double chi_squared(const std::map<Key, int>& seen, std::size_t kinds, int draws) {
  EXPECT_EQ(seen.size(), kinds);
  const double expected = static_cast<double>(draws) / static_cast<double>(kinds);
  double sum = 0;
  for (const auto& [key, count] : seen) sum += (count - expected) * (count - expected) / expected;
  return sum;
}

TEST(Exchange, EveryStateIsEquallyLikely) {
  constexpr int draws = 20000;
  const auto states = [&](Index active, Index rows, DonorPolicy policy, SparseExchange exchange) {
    const auto x = numbered<double>({active}, rows);
    std::map<std::vector<double>, int> seen;
    for (int step = 0; step < draws; ++step) {
      const Donors donors(policy, 1, static_cast<std::uint64_t>(step), rows, x.layout());
      const MatrixXd moved = donors_values(pare::simd, x, donors, exchange);
      ++seen[std::vector<double>(moved.data(), moved.data() + rows)];
    }
    return seen;
  };
  // 99.9th percentiles.
  const auto presence = SparseExchange::Presence, values = SparseExchange::Values;
  EXPECT_LT(chi_squared(states(2, 7, DonorPolicy::Shift, presence), 20, draws), 43.8)
      << "10 pairs of rows, in 2 orders";
  EXPECT_LT(chi_squared(states(5, 7, DonorPolicy::Uniform, presence), 20, draws), 43.8)
      << "10 pairs of entries, in 2 orders";
  EXPECT_LT(chi_squared(states(3, 7, DonorPolicy::Uniform, values), 6, draws), 20.5);
  EXPECT_LT(chi_squared(states(4, 7, DonorPolicy::Derangement, values), 6, draws), 20.5);
  EXPECT_LT(chi_squared(states(4, 7, DonorPolicy::BaseShift, values), 6, draws), 20.5);
  EXPECT_LT(chi_squared(states(3, 7, DonorPolicy::Shift, values), 2, draws), 10.8);
}

TEST(Exchange, IsAFunctionOfSeedStepAndGroup) {
  const auto x = numbered<float>({30, 30, 30}, 200);
  const auto moved = [&](std::uint64_t seed, std::uint64_t step, SparseExchange exchange,
                         const auto& backend) {
    return donors_values(backend, x, Donors(DonorPolicy::Uniform, seed, step, 200, x.layout()),
                         exchange);
  };
  for (const auto exchange : {SparseExchange::Values, SparseExchange::Presence}) {
    const MatrixXd first = moved(1, 2, exchange, pare::simd);
    EXPECT_EQ(first, moved(1, 2, exchange, pare::simd.threads(3)));
    EXPECT_NE(first, moved(2, 2, exchange, pare::simd));
    EXPECT_NE(first, moved(1, 3, exchange, pare::simd));
  }
}

TEST(Exchange, GroupsWithTheSameRowsMoveTogether) {
  const FieldLayout grouped({2, 2}, {0, 0});
  SparseFields<float> x(grouped, 50);
  x.reserve({10, 10});
  const Rows rows = {1, 4, 9, 11, 20, 21, 22, 30, 41, 49};
  for (Index j = 0; j < 2; ++j) {
    x.set_rows(j, rows);
    for (Index i = 0; i < 10; ++i)
      x.values(j)(i, 0) = x.values(j)(i, 1) = static_cast<float>(i + 1);
  }
  for (const auto exchange : {SparseExchange::Values, SparseExchange::Presence})
    for (const DonorPolicy policy : policies) {
      const MatrixXd moved =
          donors_values(pare::simd, x, Donors(policy, 1, 2, 50, grouped), exchange);
      EXPECT_EQ(moved.leftCols(2), moved.rightCols(2));
    }
}

TEST(Exchange, ShiftsOfTheCallersMayKeepValues) {
  const auto x = numbered<float>({5, 5}, 20);
  const std::vector<Index> shifts = {0, 1};
  const Donors donors = Donors::from_shifts(20, x.layout(), shifts);
  const MatrixXd before = dense(x),
                 moved = donors_values(pare::simd, x, donors, SparseExchange::Values);
  EXPECT_EQ(moved.leftCols(2), before.leftCols(2));
  EXPECT_NE(moved.rightCols(2), before.rightCols(2));
}

TEST(Exchange, LeapRefusesDenseBatchesUnlessAllRowsExchange) {
  const MatrixXd x = MatrixXd::Ones(4, 3);
  MatrixXd mixed = x;
  for (const auto exchange : {SparseExchange::Values, SparseExchange::Presence}) {
    Leap<double> leap(FieldLayout::scalars(3), {.exchange = exchange});
    refusal([&] { leap.forward(x, mixed); }, "feature::Leap::forward", "x");
    refusal([&] { leap.evaluate(x, mixed); }, "feature::Leap::evaluate", "x");
  }
}

/// Labels that depend on whether field 0 is there at all, and on the value of field 1 where it is;
/// both fields have columns (presence, value).
struct RareTable {
  static constexpr Index rows = 512;
  FieldLayout layout{std::vector<Index>{2, 2}};
  Eigen::VectorXd weights{{2.0, 0.0, 0.0, 2.0}};
  SparseFields<double> x{layout, rows};
  Eigen::VectorXd target;

  explicit RareTable(std::uint64_t seed) {
    Engine random(seed);
    std::vector<Rows> active(2);
    for (Index b = 0; b < rows; ++b)
      for (Rows& list : active)
        if (0.5 + 0.5 * uniform(random) < 0.2) list.push_back(static_cast<std::uint32_t>(b));
    x.reserve({static_cast<Index>(active[0].size()), static_cast<Index>(active[1].size())});
    for (Index j = 0; j < 2; ++j) {
      x.set_rows(j, active[static_cast<std::size_t>(j)]);
      for (Index i = 0; i < x.entries(j); ++i) {
        x.values(j)(i, 0) = 1;
        x.values(j)(i, 1) = normal(random);
      }
    }
    target = dense(x) * weights;
  }
};

/// The gates after training beside a model that knows the truth.
std::vector<double> gates_of_rare(SparseExchange exchange) {
  Leap<double> leap(FieldLayout(std::vector<Index>{2, 2}),
                    {.alpha_per_field = 0.01, .exchange = exchange, .learning_rate = 0.02});
  for (std::uint64_t step = 0; step < 300; ++step) {
    const RareTable table(100 + step);
    SparseMix<double> mixed;
    leap.forward(table.x, mixed);
    const Eigen::VectorXd error = dense(mixed.fields()) * table.weights - table.target;
    OwnedBatch<double> up(table.layout, RareTable::rows, Storage::RowMajor);
    up.set(error * table.weights.transpose() / static_cast<double>(RareTable::rows));
    SparseFields<double> grad = mixed.fields();
    read_entries(up.read(), grad);
    leap.backward_gates(table.x, mixed, grad);
    leap.step_gates();
  }
  return leap.gates();
}

TEST(Exchange, TellsPresenceFromValue) {
  const auto rows = gates_of_rare(SparseExchange::Rows),
             values = gates_of_rare(SparseExchange::Values),
             presence = gates_of_rare(SparseExchange::Presence);
  EXPECT_GT(rows[0], 0.9);
  EXPECT_GT(rows[1], 0.9);
  EXPECT_LT(values[0], 0.1) << "its value says nothing";
  EXPECT_GT(values[1], 0.9);
  EXPECT_GT(presence[0], 0.9);
  EXPECT_GT(presence[1], 0.9);
}

}  // namespace
}  // namespace feature_exchange_test
