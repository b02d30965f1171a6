// SPDX-License-Identifier: Apache-2.0
// Searches of memory layers against all slots and against the definition; rows gathered.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

#include <pare/routing/memory/gather_values.hpp>
#include <pare/routing/memory/product_key_search.hpp>
#include <pare/routing/memory/tucker_search.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace routing_memory_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::routing::gather_values;
using pare::routing::MemoryHits;
using pare::routing::search_product_keys;
using pare::routing::search_tucker_keys;
using pare::routing::TuckerHits;
using pare::routing::TuckerKeys;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;

/// A memory of n^2 slots and queries for it.
template <class T>
struct Memory {
  Index rows, heads, n, half, rank;
  RowMatrix<T> queries, keys;

  Memory(Index r, Index h, Index keys_of_half, Index d, Index p = 1)
      : rows(r),
        heads(h),
        n(keys_of_half),
        half(d),
        rank(p),
        queries(random_matrix<RowMatrix<T>>(r, h * 2 * d, 1)),
        keys(random_matrix<RowMatrix<T>>(h * 2 * keys_of_half, d * p, 2)) {}

  TensorView<const T, 3> q() const {
    return {queries.data(), {rows, heads, 2 * half}, {heads * 2 * half, 2 * half, 1}};
  }
  TensorView<const T, 4> k() const {
    return {keys.data(), {heads, 2, n, half}, {2 * n * half, n * half, half, 1}};
  }
  TensorView<const T, 5> k5() const {
    const Index line = half * rank;
    return {keys.data(), {heads, 2, n, half, rank}, {2 * n * line, n * line, line, rank, 1}};
  }
  /// <q of a side, column p of key i>.
  double score(Index r, Index h, Index side, Index i, Index p = 0) const {
    double sum = 0;
    for (Index c = 0; c < half; ++c)
      sum += static_cast<double>(q()(r, h, side * half + c)) *
             static_cast<double>(k5()(h, side, i, c, p));
    return sum;
  }
};

/// The k largest of all n^2 sums, in double; scores that are nearly equal may change places.
template <class T>
void expect_largest(const Memory<T>& m, const MemoryHits<T>& hits, Index k, double bound) {
  for (Index r = 0; r < m.rows; ++r)
    for (Index h = 0; h < m.heads; ++h) {
      std::vector<double> all;
      for (Index i = 0; i < m.n; ++i)
        for (Index j = 0; j < m.n; ++j) all.push_back(m.score(r, h, 0, i) + m.score(r, h, 1, j));
      auto sorted = all;
      std::sort(sorted.rbegin(), sorted.rend());
      std::vector<Index> seen;
      for (Index t = 0; t < k; ++t) {
        const Index id = hits.ids(r, h * k + t);
        ASSERT_TRUE(id >= 0 && id < m.n * m.n);
        seen.push_back(id);
        const double got = static_cast<double>(hits.scores(r, h * k + t));
        EXPECT_NEAR(got, sorted[static_cast<std::size_t>(t)], bound);
        EXPECT_NEAR(got, all[static_cast<std::size_t>(id)], bound);
      }
      std::sort(seen.begin(), seen.end());
      EXPECT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end());
    }
}

// Sums of 9 products of numbers up to 1, twice: off by at most 200 u.
TEST(ProductKeys, AreTheLargestOfAllSlots) {
  const Memory<float> m(70, 2, 37, 9);
  const Memory<float> few(3, 2, 37, 9);
  const Memory<double> wide(5, 1, 20, 9);
  for (const Index k : {1, 7, 37}) {
    const double u = 200 * 0x1p-24;
    expect_largest(few, search_product_keys(few.q(), few.k(), k), k, u);
    expect_largest(m, search_product_keys(m.q(), m.k(), k), k, u);
    if (k < 37) expect_largest(m, search_product_keys(pare::reference, m.q(), m.k(), k), k, u);
    if (k < 20) expect_largest(wide, search_product_keys(wide.q(), wide.k(), k), k, 200 * 0x1p-53);
  }
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    return search_product_keys(backend, m.q(), m.k(), 7).scores;
  });
}

TEST(ProductKeys, OfEqualSumsTakeTheLowerSlot) {
  Memory<double> m(1, 1, 4, 1);
  m.queries.setOnes();
  m.keys.col(0) << 1, 2, 2, 0, 5, 4, 5, 5;
  const auto hits = search_product_keys(m.q(), m.k(), 4);
  const RowMatrix<Index> wanted = (RowMatrix<Index>(1, 4) << 4, 6, 7, 8).finished();
  EXPECT_TRUE(hits.ids == wanted);
  EXPECT_TRUE((hits.scores.array() == 7).all());
}

/// Whole numbers, whose sums have no rounding: both ways must have the same bits, with many equal
/// scores, zeros of both signs, infinities and a key that is NaN.
template <class T>
void expect_reference(Index n, std::initializer_list<Index> some_k, int largest, Index rows = 67) {
  Memory<T> m(rows, 2, n, 3);
  m.queries = (m.queries * T(largest)).array().round();
  m.keys = (m.keys * T(largest)).array().round();
  if (rows > 6) {
    m.queries.row(5).setZero();
    m.queries.row(6) = -m.queries.row(5);
  }
  m.keys.row(3).setConstant(std::numeric_limits<T>::quiet_NaN());
  m.keys.row(n + 2).setConstant(T(-0.0));
  m.keys(n + 4, 1) = std::numeric_limits<T>::infinity();
  for (const Index k : some_k) {
    const auto wanted = search_product_keys(pare::reference, m.q(), m.k(), k);
    const auto hits = search_product_keys(m.q(), m.k(), k);
    EXPECT_TRUE(hits.ids == wanted.ids) << n << ' ' << k;
    for (Index i = 0; i < hits.scores.size(); ++i)
      EXPECT_TRUE(hits.scores.data()[i] == wanted.scores.data()[i] ||
                  (pare::is_nan(hits.scores.data()[i]) && pare::is_nan(wanted.scores.data()[i])));
  }
}

TEST(ProductKeys, OfWholeNumbersHaveTheBitsOfTheDefinition) {
  expect_reference<float>(5, {1, 4, 5}, 2);
  expect_reference<float>(33, {8, 32, 33}, 3);       // of 33 hits no network
  expect_reference<float>(360, {1, 9, 32}, 3);       // scores that are nearly all equal
  expect_reference<float>(360, {16, 32}, 1000);      // few of them
  expect_reference<float>(1100, {2, 32}, 400);       // three parts of the keys
  expect_reference<float>(360, {1, 16, 32}, 30, 2);  // two rows, which are searched by themselves
  expect_reference<float>(1100, {16}, 3, 4);
  expect_reference<float>(5, {5}, 2, 1);
  expect_reference<double>(77, {3, 8}, 1000);
  expect_reference<double>(530, {31}, 30000);
}

// Keys that come by falling score stand in one another's way where blocks keep their larger half.
TEST(ProductKeys, MayLieSideBySide) {
  Memory<float> m(3, 1, 360, 2);
  m.queries.setOnes();
  for (Index i = 0; i < 720; ++i)
    m.keys.row(i).setConstant(i % 12 == 5 ? 500.0f + float(i) : float(i));
  const auto wanted = search_product_keys(pare::reference, m.q(), m.k(), 32);
  EXPECT_TRUE(search_product_keys(m.q(), m.k(), 32).ids == wanted.ids);
}

// Keys as PEER-pytorch's checkpoints hold them, [heads, n, 2, half], are a view.
TEST(ProductKeys, MayLieWithTheirHalvesInnermost) {
  const Memory<float> m(9, 3, 20, 7);
  std::vector<float> stored(static_cast<std::size_t>(m.keys.size()));
  const Index n = m.n, half = m.half;
  for (Index h = 0; h < m.heads; ++h)
    for (Index i = 0; i < n; ++i)
      for (Index side = 0; side < 2; ++side)
        for (Index c = 0; c < half; ++c)
          stored[static_cast<std::size_t>(((h * n + i) * 2 + side) * half + c)] =
              m.k()(h, side, i, c);
  const TensorView<const float, 4> view{
      stored.data(), {m.heads, 2, n, half}, {2 * n * half, half, 2 * half, 1}};
  for (const Index rows : {9, 2}) {
    const TensorView<const float, 3> q{m.q().data, {rows, m.heads, 2 * half}, m.q().stride};
    const auto wanted = search_product_keys(q, m.k(), 5), got = search_product_keys(q, view, 5);
    EXPECT_TRUE(got.ids == wanted.ids);
    EXPECT_TRUE(got.scores == wanted.scores);
  }
}

/// Runs workers one after the other, and keeps the most that were asked for.
struct Counted {
  int* most;

  int concurrency() const { return 4; }
  template <class F>
  void run(int workers, const F& work) const {
    *most = std::max(*most, workers);
    for (int w = 0; w < workers; ++w) work(w);
  }
};

// Two parts of the keys, of which the last has fewer than k, and all of its are among the best.
TEST(ProductKeys, OfFewRowsAreSearchedByAllWorkers) {
  Memory<float> m(2, 1, 1030, 2);
  m.queries.setOnes();
  for (Index i = 0; i < 2 * 1030; ++i) m.keys.row(i).setConstant(float(i % 1030));
  const auto wanted = search_product_keys(pare::reference, m.q(), m.k(), 16);
  int most = 0;
  EXPECT_TRUE(search_product_keys(pare::simd.on(Counted{&most}), m.q(), m.k(), 16).ids ==
              wanted.ids);
  EXPECT_EQ(most, 4);
  const Memory<float> any(3, 1, 1100, 5);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    return search_product_keys(backend, any.q(), any.k(), 9).scores;
  });
}

template <class T>
void expect_no_hits() {
  const Memory<T> m(1, 2, 37, 9);
  const TensorView<const T, 3> none{nullptr, {0, 2, 18}, {36, 18, 1}};
  const auto expect = [&](const auto& backend) {
    for (const Index k : {1, 7, 37}) {  // by itself, by a network, by a heap
      const auto hits = search_product_keys(backend, none, m.k(), k);
      EXPECT_TRUE(hits.ids.rows() == 0 && hits.ids.cols() == 2 * k);
      EXPECT_TRUE(hits.scores.rows() == 0 && hits.scores.cols() == 2 * k);
    }
  };
  expect(pare::simd);
  expect(pare::simd.threads(2));
  expect(pare::reference);
}

TEST(ProductKeys, OfNoRowsFindNothing) {
  expect_no_hits<float>();
  expect_no_hits<double>();
}

/// Tucker keys whose cores and directions are ones.
struct Ones {
  std::vector<double> ones = std::vector<double>(8, 1.0);

  TuckerKeys<double> with(const Memory<double>& m) const {
    return {m.k5(),
            {ones.data(), {2, 2, 2}, {4, 2, 1}},
            {ones.data(), {2}, {1}},
            {ones.data(), {2}, {1}}};
  }
};

TEST(TuckerKeys, OfNoRowsFindNothing) {
  const Memory<double> m(1, 2, 11, 6, 2);
  const Ones ones;
  TuckerHits<double> hits{RowMatrix<Index>::Zero(3, 3), RowMatrix<double>::Zero(3, 3)};
  const TensorView<const double, 3> none{nullptr, {0, 2, 12}, {24, 12, 1}};
  const auto expect = [&](const auto& backend) {
    search_tucker_keys(backend, none, ones.with(m), 4, hits);
    EXPECT_TRUE(hits.ids.rows() == 0 && hits.ids.cols() == 8);
    EXPECT_TRUE(hits.scores.rows() == 0 && hits.scores.cols() == 16);
  };
  expect(pare::simd);
  expect(pare::reference);
}

TEST(GatherValues, OfNoRowsWritesNothing) {
  const RowMatrix<float> values = RowMatrix<float>::Ones(5, 4), weights(0, 3);
  const RowMatrix<Index> ids(0, 3);
  RowMatrix<float> out(0, 4);
  gather_values(values, ids, weights, out);
  gather_values(pare::reference, values, ids, weights, out);
  refusal([&] { gather_values(values, RowMatrix<Index>(1, 3), weights, out); },
          "routing::gather_values", "weights");
}

TEST(ProductKeys, NaNGivesSlotsInRange) {
  Memory<float> m(3, 1, 20, 9);
  m.queries(1, 2) = std::nanf("");
  const auto before = search_product_keys(Memory<float>(3, 1, 20, 9).q(), m.k(), 5);
  const auto hits = search_product_keys(m.q(), m.k(), 5);
  for (Index t = 0; t < 5; ++t) {
    EXPECT_TRUE(hits.ids(1, t) >= 0 && hits.ids(1, t) < 400);
    EXPECT_EQ(hits.ids(0, t), before.ids(0, t));
    EXPECT_EQ(hits.ids(2, t), before.ids(2, t));
  }
}

/// The rule of the header, of scores in double: the k best of each half, then of the pairs of
/// places whose numbers, counted from 1, have a product of at most k.
struct Ranked {
  double score;
  Index id;

  friend bool operator<(const Ranked& a, const Ranked& b) {
    if (pare::is_nan(a.score) != pare::is_nan(b.score)) return pare::is_nan(b.score);
    return a.score > b.score || (!(a.score < b.score) && a.id < b.id);
  }
};

template <class T>
void expect_by_rule(const Memory<T>& m) {
  for (Index k = 1; k <= 32; ++k) {
    const auto hits = search_product_keys(m.q(), m.k(), k);
    for (Index r = 0; r < m.rows; ++r) {
      std::vector<Ranked> half[2], pairs;
      for (const Index side : {0, 1}) {
        for (Index i = 0; i < m.n; ++i)
          half[static_cast<std::size_t>(side)].push_back(
              {static_cast<double>(static_cast<T>(m.score(r, 0, side, i))), i});
        std::sort(half[static_cast<std::size_t>(side)].begin(),
                  half[static_cast<std::size_t>(side)].end());
      }
      for (Index a = 1; a <= k; ++a)
        for (Index b = 1; a * b <= k; ++b) {
          const Ranked &first = half[0][static_cast<std::size_t>(a - 1)],
                       &second = half[1][static_cast<std::size_t>(b - 1)];
          pairs.push_back({first.score + second.score, first.id * m.n + second.id});
        }
      std::sort(pairs.begin(), pairs.end());
      for (Index t = 0; t < k; ++t) {
        const Ranked& wanted = pairs[static_cast<std::size_t>(t)];
        const auto got = static_cast<double>(hits.scores(r, t));
        ASSERT_TRUE(hits.ids(r, t) == wanted.id &&
                    (got == wanted.score || (pare::is_nan(got) && pare::is_nan(wanted.score))))
            << m.rows << " rows, " << k << ": row " << r << ", hit " << t;
      }
    }
  }
}

// Whole numbers, which no sum rounds. Two rows are searched by themselves, nine by networks.
template <class T>
void expect_nan_last(Index rows) {
  constexpr T nan = std::numeric_limits<T>::quiet_NaN(), inf = std::numeric_limits<T>::infinity();
  Memory<T> m(rows, 1, 33, 3);
  m.queries = (m.queries * T(9)).array().round();
  m.keys = (m.keys * T(9)).array().round();
  const RowMatrix<T> queries = m.queries, keys = m.keys;
  for (const T value : {nan, -nan})
    for (const Index at : {0, 1, 16, 32, 33, 48, 65}) {
      m.keys(at, at % 3) = value;
      expect_by_rule(m);
      m.keys = keys;
    }
  for (Index at = 0; at < 6; ++at) {
    m.queries(1, at) = nan;
    expect_by_rule(m);
    m.queries = queries;
  }
  // Sums of infinities of both signs, and some of one: scores that are infinite, and that become
  // so.
  for (const T value : {inf, std::numeric_limits<T>::max()})
    for (const Index at : {4, 7, 20, 32}) {
      m.keys(at, 0) = value;
      m.keys(33 + at, 0) = -value;
      expect_by_rule(m);
    }
}

TEST(ProductKeys, NaNStandsLastWhereverItIs) {
  expect_nan_last<float>(2);
  expect_nan_last<float>(9);
  expect_nan_last<double>(9);
}

/// The method's own selection, in double.
void expect_tucker(const Memory<double>& m, const TuckerKeys<double>& keys, Index k,
                   const TuckerHits<double>& hits) {
  const Index cores = keys.cores.extent[0];
  const auto best = [&](Index r, Index h, Index side,
                        const TensorView<const double, 1>& direction) {
    std::vector<double> along;
    for (Index i = 0; i < m.n; ++i) {
      along.push_back(0);
      for (Index p = 0; p < m.rank; ++p) along.back() += direction(p) * m.score(r, h, side, i, p);
    }
    std::vector<Index> order(static_cast<std::size_t>(m.n));
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
      return along[static_cast<std::size_t>(a)] > along[static_cast<std::size_t>(b)];
    });
    order.resize(static_cast<std::size_t>(k));
    return order;
  };
  for (Index r = 0; r < m.rows; ++r)
    for (Index h = 0; h < m.heads; ++h) {
      std::vector<std::pair<double, Index>> pairs;
      const auto by_core = [&](Index c, Index i, Index j) {
        double sum = 0;
        for (Index p = 0; p < m.rank; ++p)
          for (Index s = 0; s < m.rank; ++s)
            sum += m.score(r, h, 0, i, p) * keys.cores(c, p, s) * m.score(r, h, 1, j, s);
        return sum;
      };
      for (const Index i : best(r, h, 0, keys.u))
        for (const Index j : best(r, h, 1, keys.v)) {
          double sum = 0;
          for (Index c = 0; c < cores; ++c) sum += by_core(c, i, j);
          pairs.emplace_back(-sum, i * m.n + j);
        }
      std::sort(pairs.begin(), pairs.end());
      for (Index t = 0; t < k; ++t) {
        const Index id = hits.ids(r, h * k + t);
        EXPECT_EQ(id, pairs[static_cast<std::size_t>(t)].second);
        for (Index c = 0; c < cores; ++c)
          EXPECT_NEAR(hits.scores(r, (h * k + t) * cores + c), by_core(c, id / m.n, id % m.n),
                      1e-12);
      }
    }
}

TEST(TuckerKeys, ArePreselectedAndCombinedByCores) {
  const Memory<double> m(300, 2, 11, 6, 2);
  const auto cores = random_matrix<RowMatrix<double>>(2, 4, 7);
  const std::vector<double> u{.8, -.6}, v{.6, .8};
  const TuckerKeys<double> keys{
      m.k5(), {cores.data(), {2, 2, 2}, {4, 2, 1}}, {u.data(), {2}, {1}}, {v.data(), {2}, {1}}};
  const auto hits = search_tucker_keys(m.q(), keys, 4);
  expect_tucker(m, keys, 4, hits);
  expect_tucker(m, keys, 4, search_tucker_keys(pare::reference, m.q(), keys, 4));
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    return search_tucker_keys(backend, m.q(), keys, 4).scores;
  });
  // The sign of both directions changes what is found.
  const std::vector<double> minus_u{-.8, .6}, minus_v{-.6, -.8};
  TuckerKeys<double> other = keys;
  other.u.data = minus_u.data();
  other.v.data = minus_v.data();
  EXPECT_FALSE(search_tucker_keys(m.q(), other, 4).ids == hits.ids);
}

template <class S>
void expect_gathered(double bound) {
  using T = pare::compute_t<S>;
  const Index slots = 50, dim = 205, rows = 19, hits = 11;
  const auto from = random_matrix<RowMatrix<T>>(slots, dim, 1);
  RowMatrix<S> values(slots, dim);
  for (Index i = 0; i < slots; ++i)
    for (Index c = 0; c < dim; ++c) values(i, c) = static_cast<S>(from(i, c));
  const auto weights = random_matrix<RowMatrix<T>>(rows, hits, 2);
  RowMatrix<Index> ids(rows, hits);
  for (Index r = 0; r < rows; ++r)
    for (Index j = 0; j < hits; ++j) ids(r, j) = (r * 7 + j * j) % slots;  // some repeat
  RowMatrix<double> wanted = RowMatrix<double>::Zero(rows, dim);
  for (Index r = 0; r < rows; ++r)
    for (Index j = 0; j < hits; ++j)
      for (Index c = 0; c < dim; ++c)
        wanted(r, c) += static_cast<double>(weights(r, j)) *
                        static_cast<double>(static_cast<T>(values(ids(r, j), c)));
  const auto expect = [&](const auto& backend) {
    RowMatrix<T> out(rows, dim);
    gather_values(backend, values, ids, weights, out);
    EXPECT_LE((out.template cast<double>() - wanted).cwiseAbs().maxCoeff(), bound);
    return out;
  };
  expect(pare::reference);
  const RowMatrix<T> out = expect(pare::simd);
  EXPECT_TRUE((expect(pare::simd.threads(2)).array() == out.array()).all());
}

// 11 products of numbers up to 1: off by at most 66 u.
TEST(GatherValues, AddsUpRowsOfATable) {
  expect_gathered<float>(66 * 0x1p-24);
  expect_gathered<double>(66 * 0x1p-53);
  expect_gathered<bf16>(66 * 0x1p-24);
  RowMatrix<float> out = RowMatrix<float>::Ones(3, 4);
  gather_values(RowMatrix<float>::Ones(5, 4).eval(), RowMatrix<Index>(3, 0), RowMatrix<float>(3, 0),
                out);
  EXPECT_TRUE((out.array() == 0).all());
}

TEST(GatherValues, KeepsNaNWhereItIsAddedUp) {
  RowMatrix<float> values = random_matrix<RowMatrix<float>>(9, 45, 1);
  const auto weights = random_matrix<RowMatrix<float>>(4, 3, 2);
  RowMatrix<Index> ids(4, 3);
  ids << 0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 4, 0;
  const auto run = [&](const auto& backend, const RowMatrix<float>& with) {
    RowMatrix<float> out(4, 45);
    gather_values(backend, values, ids, with, out);
    return out;
  };
  const auto expect = [&](const auto& backend) {
    const RowMatrix<float> before = run(backend, weights);
    values(4, 7) = values(4, 44) = std::nanf("");
    RowMatrix<float> some = weights;
    some(1, 1) = 0;              // of a row with NaN
    some(2, 0) = std::nanf("");  // reaches all of its row
    const RowMatrix<float> out = run(backend, some);
    values(4, 7) = values(4, 44) = 0.5f;
    for (Index r = 0; r < 4; ++r)
      for (Index c = 0; c < 45; ++c) {
        const bool nan = r == 2 || ((r == 1 || r == 3) && (c == 7 || c == 44));
        EXPECT_EQ(pare::is_nan(out(r, c)), nan) << r << ' ' << c;
        EXPECT_TRUE(r != 0 || out(r, c) == before(r, c));
      }
  };
  expect(pare::reference);
  expect(pare::simd);
}

TEST(Memories, AllocateNothingTheSecondTime) {
  const auto values = random_matrix<RowMatrix<float>>(360000, 1, 1);
  for (const auto& [rows, threads] : {std::pair<Index, int>{70, 1}, {70, 2}, {1, 1}, {1, 2}}) {
    const Memory<float> m(rows, 2, 600, 9);
    pare::Workspace workspace;
    MemoryHits<float> hits;
    RowMatrix<float> out(rows, 1);
    const auto backend = pare::simd.threads(PARE_HAS_OPENMP ? threads : 1).with(workspace);
    long before = 0;
    for (int turn = 0; turn < 3; ++turn) {
      before = pare::testing::allocations;
      search_product_keys(backend, m.q(), m.k(), 32, hits);
      gather_values(backend, values, hits.ids, hits.scores, out);
    }
    EXPECT_EQ(pare::testing::allocations, before) << rows << ' ' << threads;
  }
}

TEST(TuckerKeys, AllocateNothingTheSecondTime) {
  const Memory<double> m(300, 2, 11, 6, 2);
  const Ones ones;
  for (const int threads : {1, 2}) {
    pare::Workspace workspace;
    TuckerHits<double> hits;
    const auto backend = pare::simd.threads(PARE_HAS_OPENMP ? threads : 1).with(workspace);
    long before = 0;
    for (int turn = 0; turn < 3; ++turn) {
      before = pare::testing::allocations;
      search_tucker_keys(backend, m.q(), ones.with(m), 4, hits);
    }
    EXPECT_EQ(pare::testing::allocations, before) << threads;
  }
}

/// A view of what lies in a matrix of another scalar.
template <class T, class M>
TensorView<const T, 3> inside(const M& m, Index rows, Index heads, Index numbers) {
  return {
      reinterpret_cast<const T*>(m.data()), {rows, heads, numbers}, {heads * numbers, numbers, 1}};
}

TEST(Memories, RefuseHitsThatLieInWhatIsRead) {
  const Memory<float> m(3, 2, 10, 4);
  const Memory<double> t(3, 1, 10, 4, 2);
  const Ones ones;
  const auto keys = ones.with(t);
  const auto expect = [&](auto hits, const char* argument, const auto& search) {
    hits.ids = RowMatrix<Index>::Constant(20, 16, 5);
    hits.scores.setConstant(20, 16, 3);
    refuses_and_leaves_alone([&] { search(hits); },
                             std::is_same_v<decltype(hits), MemoryHits<float>>
                                 ? "routing::search_product_keys"
                                 : "routing::search_tucker_keys",
                             argument, hits.ids, hits.scores);
  };
  const auto product = [&](const char* argument, const auto& search) {
    expect(MemoryHits<float>{}, argument, search);
  };
  const auto tucker = [&](const char* argument, const auto& search) {
    expect(TuckerHits<double>{}, argument, search);
  };
  product("hits.scores", [&](auto& hits) {
    search_product_keys(pare::simd, inside<float>(hits.scores, 3, 2, 8), m.k(), 2, hits);
  });
  product("hits.ids", [&](auto& hits) {
    search_product_keys(pare::simd, inside<float>(hits.ids, 3, 2, 8), m.k(), 2, hits);
  });
  const auto with_keys = [&](const float* data, auto& hits) {
    auto k = m.k();
    k.data = data;
    search_product_keys(pare::simd, m.q(), k, 2, hits);
  };
  product("hits.scores", [&](auto& hits) { with_keys(hits.scores.data(), hits); });
  product("hits.ids",
          [&](auto& hits) { with_keys(reinterpret_cast<const float*>(hits.ids.data()), hits); });
  tucker("hits.scores", [&](auto& hits) {
    search_tucker_keys(pare::simd, inside<double>(hits.scores, 3, 1, 8), keys, 2, hits);
  });
  tucker("hits.ids", [&](auto& hits) {
    search_tucker_keys(pare::simd, inside<double>(hits.ids, 3, 1, 8), keys, 2, hits);
  });
  for (const int which : {0, 1, 2, 3})
    tucker("hits.scores", [&](auto& hits) {
      auto wrong = keys;
      (which == 0   ? wrong.keys.data
       : which == 1 ? wrong.cores.data
       : which == 2 ? wrong.u.data
                    : wrong.v.data) = hits.scores.data();
      search_tucker_keys(pare::simd, t.q(), wrong, 2, hits);
    });
}

TEST(Memories, RefuseWhatDoesNotFit) {
  const Memory<float> m(3, 2, 10, 4);
  const auto product = [&](const auto& q, const auto& k, Index hits, const char* argument) {
    refusal([&] { search_product_keys(q, k, hits); }, "routing::search_product_keys", argument);
  };
  product(m.q(), m.k(), 0, "k");
  product(m.q(), m.k(), 11, "k");
  auto keys = m.k();
  keys.extent[1] = 1;
  product(m.q(), keys, 2, "keys");
  keys.extent[1] = 2;
  keys.extent[2] = 0;
  product(m.q(), keys, 1, "keys");
  auto queries = m.q();
  queries.extent[2] = 7;
  product(queries, m.k(), 2, "queries");
  const Memory<double> t(3, 1, 10, 4, 2);
  const Ones ones;
  const auto& u = ones.ones;
  const TuckerKeys<double> right = ones.with(t);
  const auto tucker = [&](const TuckerKeys<double>& wrong, Index k, const char* argument) {
    refusal([&] { search_tucker_keys(t.q(), wrong, k); }, "routing::search_tucker_keys", argument);
  };
  tucker(right, 11, "k");
  auto wrong = right;
  wrong.u.extent[0] = 1;
  tucker(wrong, 2, "u");
  wrong = right;
  wrong.cores.extent[2] = 1;
  tucker(wrong, 2, "cores");
  wrong = right;
  wrong.keys.extent[1] = 1;
  tucker(wrong, 2, "keys");
  wrong = right;
  wrong.v.extent[0] = 3;
  tucker(wrong, 2, "v");
  refusal([&] { search_tucker_keys(Memory<double>(3, 1, 10, 5, 2).q(), right, 2); },
          "routing::search_tucker_keys", "queries");
  const Index n = Index{1} << 29;  // whose scores no memory holds
  wrong = {{u.data(), {1, 2, n, 4, n}, {0, 0, 0, 0, 0}},
           {u.data(), {1, n, n}, {0, 0, 0}},
           {u.data(), {n}, {0}},
           {u.data(), {n}, {0}}};
  tucker(wrong, 2, "keys");
  wrong = right;
  wrong.keys = {u.data(), {1, 2, Index{1} << 31, 4, 2}, {0, 0, 0, 0, 0}};
  tucker(wrong, Index{1} << 30, "k");  // pairs
  wrong.keys = {u.data(), {1, 2, Index{1} << 32, 4, 2}, {0, 0, 0, 0, 0}};
  tucker(wrong, 2, "keys");  // slots
  RowMatrix<float> values = RowMatrix<float>::Ones(5, 4), weights = RowMatrix<float>::Ones(3, 2),
                   out = RowMatrix<float>::Zero(3, 4);
  RowMatrix<Index> ids = RowMatrix<Index>::Zero(3, 2);
  const auto gather = [&](const auto& table, const auto& w, auto&& to, const char* argument) {
    refuses_and_leaves_alone([&] { gather_values(table, ids, w, to); }, "routing::gather_values",
                             argument, out);
  };
  for (const Index bad : {Index{5}, Index{-1}}) {
    ids(2, 1) = bad;
    gather(values, weights, out, "ids");
  }
  ids(2, 1) = 4;
  gather(Eigen::MatrixXf(values), weights, out, "values");
  gather(values, out, out, "weights");
  gather(values, weights, values, "out");
  gather(out, weights, out, "out");
}

}  // namespace
}  // namespace routing_memory_test
