// SPDX-License-Identifier: Apache-2.0
// Clusters of equal size against the greedy pass by its words, their properties, and what is
// refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/retrieval/semantic/assign_nearest.hpp>
#include <pare/retrieval/semantic/balanced_kmeans.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace retrieval_balanced_kmeans_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::retrieval::assign_balanced;
using pare::retrieval::assign_nearest;
using pare::retrieval::balanced_kmeans;
using pare::testing::integer_matrix;
using pare::testing::random_matrix;
using pare::testing::refusal;

using Assigned = std::vector<std::uint32_t>;

/// Twice the squared distance, a whole number where rows and centroids are.
template <class T>
double distance(const RowMatrix<T>& rows, Index i, const RowMatrix<T>& centroids, Index k) {
  double sum = 0;
  for (Index c = 0; c < rows.cols(); ++c) {
    const double apart = static_cast<double>(rows(i, c)) - static_cast<double>(centroids(k, c));
    sum += apart * apart;
  }
  return sum;
}

/// The pass, one row at a time: whoever is free and nearest, the first of equal ones.
template <class T>
Assigned greedy(const RowMatrix<T>& rows, const RowMatrix<T>& centroids) {
  constexpr std::uint32_t none = 1u << 31;
  Assigned assigned(static_cast<std::size_t>(rows.rows()), none);
  for (Index k = 0; k < centroids.rows(); ++k) {
    const Index size = rows.rows() / centroids.rows() + (k < rows.rows() % centroids.rows());
    std::vector<double> distances;
    for (Index i = 0; i < rows.rows(); ++i) distances.push_back(distance(rows, i, centroids, k));
    for (Index turn = 0; turn < size; ++turn) {
      std::size_t best = assigned.size();
      for (std::size_t i = 0; i < assigned.size(); ++i)
        if (assigned[i] == none && (best == assigned.size() || distances[i] < distances[best]))
          best = i;
      assigned[best] = static_cast<std::uint32_t>(k);
    }
  }
  return assigned;
}

template <class T>
void expect_greedy(Index rows, Index dim, Index clusters, std::uint64_t seed) {
  const auto x = integer_matrix<RowMatrix<T>>(rows, dim, seed);
  const auto c = integer_matrix<RowMatrix<T>>(clusters, dim, seed + 1);
  const Assigned wanted = greedy(x, c);
  EXPECT_EQ(assign_balanced(pare::simd.threads(2), x, c), wanted) << rows << ' ' << clusters;
  EXPECT_EQ(assign_balanced(pare::reference, x, c), wanted) << rows << ' ' << clusters;
}

TEST(AssignBalanced, IsTheGreedyPassTheFirstOfEqualRows) {
  expect_greedy<float>(1000, 7, 37, 1);   // two blocks of clusters, sizes of two kinds
  expect_greedy<float>(5000, 1, 3, 2);    // 17 different rows: nearly all are equal
  expect_greedy<float>(3000, 2, 100, 3);  // lists that others have emptied
  expect_greedy<float>(300, 600, 33, 4);  // two blocks of the depth
  expect_greedy<double>(700, 5, 50, 5);
  expect_greedy<float>(1, 1, 1, 6);
  expect_greedy<float>(97, 3, 97, 7);
  expect_greedy<double>(129, 9, 2, 8);
}

TEST(AssignBalanced, FindsTheNearestWhereASampleMisleads) {
  // All near rows lie where a sample of the scores is taken, so that it tells of far too many.
  RowMatrix<float> x = RowMatrix<float>::Constant(2000, 1, 9);
  for (Index i = 0; i < 2000; ++i) x(i, 0) = 9.0f + static_cast<float>(i % 7);
  std::uint64_t at = 0;
  for (int near = 0; near < 60; ++near, at = (at + 0x9e3779b9u) & 0xffffffffu)
    x(static_cast<Index>((at * 2000) >> 32), 0) = static_cast<float>(near % 5);
  const RowMatrix<float> c = integer_matrix<RowMatrix<float>>(20, 1, 3) / 8;
  EXPECT_EQ(assign_balanced(x, c), greedy(x, c));
}

TEST(AssignBalanced, TakesThePartsOfSixteenBitRows) {
  const auto x = integer_matrix<RowMatrix<float>>(200, 5, 1);
  const auto c = integer_matrix<RowMatrix<float>>(9, 5, 2);
  RowMatrix<bf16> narrow(200, 5);
  for (Index i = 0; i < x.size(); ++i) narrow.data()[i] = static_cast<bf16>(x.data()[i]);
  EXPECT_EQ(assign_balanced(narrow, c), greedy(x, c));
  EXPECT_EQ(assign_nearest(narrow, c), assign_nearest(x, c));
}

/// Rows about some places, which float tells apart.
template <class T>
RowMatrix<T> about_places(Index rows, Index dim, Index places) {
  RowMatrix<T> x = random_matrix<RowMatrix<T>>(rows, dim, 1);
  const auto at = random_matrix<RowMatrix<T>>(places, dim, 2);
  for (Index i = 0; i < rows; ++i) x.row(i) = T(0.3) * x.row(i) + T(2) * at.row(i % places);
  return x;
}

TEST(BalancedKMeans, FollowsTheReference) {
  const auto x = about_places<double>(403, 6, 10);
  const auto wanted = balanced_kmeans(pare::reference, x, {.clusters = 10, .seed = 3});
  const auto got = balanced_kmeans(pare::simd.threads(2), x, {.clusters = 10, .seed = 3});
  EXPECT_EQ(got.assigned, wanted.assigned);
  EXPECT_EQ(got.sweeps, wanted.sweeps);
  EXPECT_EQ(got.settled, wanted.settled);
  // Sums of 41 numbers below 3 and of 403 squares below 9 a dimension, in double.
  EXPECT_LT((got.centroids - wanted.centroids).cwiseAbs().maxCoeff(), 1e-13);
  EXPECT_NEAR(got.inertia, wanted.inertia, 1e-10);
}

template <class T>
void expect_properties(const RowMatrix<T>& x, const pare::retrieval::BalancedKMeansOptions& how) {
  const auto got = balanced_kmeans(pare::simd, x, how);
  ASSERT_EQ(got.centroids.rows(), how.clusters);
  ASSERT_EQ(static_cast<Index>(got.assigned.size()), x.rows());
  std::vector<Index> sizes(static_cast<std::size_t>(how.clusters));
  RowMatrix<double> sums = RowMatrix<double>::Zero(how.clusters, x.cols());
  double inertia = 0;
  for (Index i = 0; i < x.rows(); ++i) {
    const std::uint32_t k = got.assigned[static_cast<std::size_t>(i)];
    ASSERT_LT(k, how.clusters);
    ++sizes[k];
    sums.row(k) += x.row(i).template cast<double>();
    inertia += distance(x, i, got.centroids, k);
  }
  for (Index k = 0; k < how.clusters; ++k) {
    const Index size = sizes[static_cast<std::size_t>(k)];
    EXPECT_EQ(size, x.rows() / how.clusters + (k < x.rows() % how.clusters ? 1 : 0));
    for (Index c = 0; c < x.cols(); ++c)
      EXPECT_NEAR(static_cast<double>(got.centroids(k, c)), sums(k, c) / static_cast<double>(size),
                  4e-7);  // below 3, rounded to float
  }
  EXPECT_NEAR(got.inertia, inertia, 1e-12 * (inertia + 1));
  EXPECT_GE(got.sweeps, 1);
  EXPECT_LE(got.sweeps, how.sweeps);
}

TEST(BalancedKMeans, MakesClustersOfEqualSizeAndTheirMeans) {
  expect_properties(about_places<float>(500, 9, 7), {.clusters = 7});
  expect_properties(about_places<float>(1003, 4, 40), {.clusters = 50, .sweeps = 3});
  expect_properties(random_matrix<RowMatrix<float>>(200, 1, 4), {.clusters = 1});
  expect_properties(about_places<double>(90, 600, 3), {.clusters = 3, .seed = 9});
  // Some end in a sweep that is not the best.
  for (const int sweeps : {2, 3, 4, 5, 6})
    expect_properties(random_matrix<RowMatrix<float>>(600, 3, 1),
                      {.clusters = 40, .sweeps = sweeps});
}

TEST(BalancedKMeans, KeepsTheBestSweepAndSettlesWhereClustersAreApart) {
  const auto x = random_matrix<RowMatrix<float>>(600, 3, 1);
  double least = std::numeric_limits<double>::infinity();
  for (const int sweeps : {1, 2, 3, 5, 9, 20}) {
    const auto got = balanced_kmeans(x, {.clusters = 40, .sweeps = sweeps});
    EXPECT_LE(got.inertia, least) << sweeps;
    least = got.inertia;
  }
  // As many rows about each place as a cluster takes: it finds them all from a good start.
  const auto apart = about_places<float>(400, 8, 4);
  bool found = false;
  for (const unsigned seed : {1u, 2u, 3u, 4u, 5u, 6u}) {
    const auto got = balanced_kmeans(apart, {.clusters = 4, .seed = seed});
    bool all = got.settled;
    for (std::size_t i = 0; i < 400; ++i) all = all && got.assigned[i] == got.assigned[i % 4];
    found = found || all;
  }
  EXPECT_TRUE(found);
}

TEST(BalancedKMeans, HasNoInertiaWhereEachRowIsACluster) {
  for (const Index rows : {1, 33, 100}) {
    const auto x = random_matrix<RowMatrix<float>>(rows, 5, 3);
    const auto got = balanced_kmeans(x, {.clusters = rows});
    EXPECT_EQ(got.inertia, 0);
    EXPECT_TRUE(got.settled);
    for (Index i = 0; i < rows; ++i)
      EXPECT_EQ(got.centroids.row(got.assigned[static_cast<std::size_t>(i)]), x.row(i));
  }
}

TEST(BalancedKMeans, DrawsItsStartByTheSeed) {
  const auto x = random_matrix<RowMatrix<float>>(300, 4, 1);
  const auto one = balanced_kmeans(x, {.clusters = 20, .sweeps = 1, .seed = 1});
  EXPECT_EQ(balanced_kmeans(x, {.clusters = 20, .sweeps = 1, .seed = 1}).assigned, one.assigned);
  EXPECT_NE(balanced_kmeans(x, {.clusters = 20, .sweeps = 1, .seed = 2}).assigned, one.assigned);
}

TEST(BalancedKMeans, HasTheSameBitsForAnyThreadsAndStrides) {
  const auto x = random_matrix<RowMatrix<float>>(2100, 5, 1);
  const pare::retrieval::BalancedKMeansOptions how{.clusters = 70, .sweeps = 3};
  pare::testing::same_bits_for_any_threads(
      pare::simd, [&](const auto& backend) { return balanced_kmeans(backend, x, how).centroids; });
  pare::testing::same_bits_for_any_threads(
      pare::simd, [&](const auto& backend) { return balanced_kmeans(backend, x, how).assigned; });
  RowMatrix<float> wide = RowMatrix<float>::Constant(2100, 8, std::nanf(""));
  wide.leftCols(5) = x;
  EXPECT_EQ(balanced_kmeans(wide.leftCols(5), how).assigned, balanced_kmeans(x, how).assigned);
}

TEST(BalancedKMeans, KeepsItsMemory) {
  const auto x = random_matrix<RowMatrix<float>>(900, 5, 1);
  const auto c = random_matrix<RowMatrix<float>>(40, 5, 2);
  pare::Workspace workspace;
  const auto backend = pare::simd.threads(PARE_HAS_OPENMP ? 2 : 1).with(workspace);
  long first = 0;
  for (int turn = 0; turn < 3; ++turn) {
    first = pare::testing::allocations;
    assign_balanced(backend, x, c);
  }
  EXPECT_EQ(pare::testing::allocations, first + 1);  // what is returned
}

TEST(AssignNearest, FindsTheNearestTheFirstOfEqualOnes) {
  const auto check = [](auto scalar, Index rows, Index dim, Index clusters) {
    using T = decltype(scalar);
    const auto x = integer_matrix<RowMatrix<T>>(rows, dim, 1);
    const auto c = integer_matrix<RowMatrix<T>>(clusters, dim, 2);
    Assigned wanted;
    for (Index i = 0; i < rows; ++i) {
      Index best = 0;
      for (Index k = 1; k < clusters; ++k)
        if (distance(x, i, c, k) < distance(x, i, c, best)) best = k;
      wanted.push_back(static_cast<std::uint32_t>(best));
    }
    EXPECT_EQ(assign_nearest(pare::reference, x, c), wanted);
    EXPECT_EQ(assign_nearest(pare::simd, x, c), wanted);
    EXPECT_EQ(assign_nearest(pare::simd.threads(3), x, c), wanted);
  };
  check(1.0f, 700, 2, 300);  // many that are equally near
  check(1.0f, 241, 9, 128);
  check(1.0f, 1, 1, 1);
  check(1.0, 100, 3, 131);
  EXPECT_TRUE(
      assign_nearest(RowMatrix<float>(0, 3), integer_matrix<RowMatrix<float>>(2, 3, 1)).empty());
}

TEST(BalancedKMeans, RefusesWhatDoesNotFit) {
  const char* const fit = "retrieval::balanced_kmeans";
  const auto x = random_matrix<RowMatrix<float>>(9, 4, 1);
  refusal([&] { balanced_kmeans(x, {.clusters = 0}); }, fit, "clusters");
  refusal([&] { balanced_kmeans(x, {.clusters = 10}); }, fit, "clusters");
  refusal([&] { balanced_kmeans(x, {.clusters = 2, .sweeps = 0}); }, fit, "sweeps");
  refusal([&] { balanced_kmeans(RowMatrix<float>(0, 4), {.clusters = 1}); }, fit, "clusters");
  refusal([&] { balanced_kmeans(RowMatrix<float>(9, 0), {.clusters = 1}); }, fit, "rows");
  refusal([&] { balanced_kmeans(Eigen::MatrixXf(x), {.clusters = 1}); }, fit, "rows");
  refusal(
      [&] {
        balanced_kmeans(TensorView<const float, 2>{x.data(), {Index{1} << 31, 4}, {0, 1}},
                        {.clusters = 1});
      },
      fit, "rows");
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), 1e19f}) {
    RowMatrix<float> y = x;
    y(7, 2) = bad;
    refusal([&] { balanced_kmeans(y, {.clusters = 2}); }, fit, "rows: got row 7");
    refusal([&] { assign_balanced(pare::reference, y, x); }, "retrieval::assign_balanced",
            "rows: got row 7");
    refusal([&] { assign_nearest(x, y); }, "retrieval::assign_nearest", "centroids: got row 7");
    refusal([&] { assign_nearest(y, x); }, "retrieval::assign_nearest", "rows: got row 7");
  }
  const RowMatrix<float> ten = random_matrix<RowMatrix<float>>(10, 4, 1), other = ten.leftCols(3);
  refusal([&] { assign_balanced(x, ten); }, "retrieval::assign_balanced", "centroids");
  refusal([&] { assign_balanced(x, RowMatrix<float>(0, 4)); }, "retrieval::assign_balanced",
          "centroids");
  refusal([&] { assign_balanced(x, other); }, "retrieval::assign_balanced", "centroids");
  refusal([&] { assign_nearest(x, other); }, "retrieval::assign_nearest", "centroids");
  refusal([&] { assign_nearest(x, RowMatrix<float>(0, 4)); }, "retrieval::assign_nearest",
          "centroids");
}

}  // namespace
}  // namespace retrieval_balanced_kmeans_test
