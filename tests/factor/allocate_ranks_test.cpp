// SPDX-License-Identifier: Apache-2.0
// Ranks of layers for a budget: what is known of them, what always holds, what is refused.
#include <pare/factor/allocate_ranks.hpp>

#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace factor_allocate_ranks_test {
namespace {

using namespace pare::factor;
using pare::Index;
using pare::testing::refusal;

using Ranks = std::vector<Index>;
using Spectra = std::vector<Eigen::VectorXd>;

constexpr RankScore all_scores[] = {RankScore::NormalizedEnergy,  RankScore::AbsoluteEnergy,
                                    RankScore::EnergyShare,       RankScore::UniformShare,
                                    RankScore::CareResidualRatio, RankScore::CareCode};
constexpr DenseLayers all_dense[] = {DenseLayers::Never, DenseLayers::AtBreakEven,
                                     DenseLayers::Foreseen};

/// 1, e^(-1/constant), e^(-2/constant), ...
Eigen::VectorXd decay(Index n, double constant) {
  return (-Eigen::ArrayXd::LinSpaced(n, 0, static_cast<double>(n - 1)) / constant).exp();
}

/// Falling values over about two orders of magnitude, no two alike.
Eigen::VectorXd random_spectrum(Index n, pare::testing::Engine& random) {
  Eigen::VectorXd s(n);
  for (double& x : s) x = std::exp(1.5 * pare::testing::normal(random));
  std::sort(s.begin(), s.end(), std::greater<>());
  return s;
}

Spectra random_spectra(std::size_t count, Index n, std::uint64_t seed) {
  pare::testing::Engine random(seed);
  Spectra spectra;
  while (spectra.size() < count) spectra.push_back(random_spectrum(n, random));
  return spectra;
}

Index sum(const Ranks& ranks) { return std::accumulate(ranks.begin(), ranks.end(), Index{0}); }

double tail(const Eigen::VectorXd& s, Index rank) {
  return rank >= s.size() ? 0 : s.tail(s.size() - rank).squaredNorm();
}

// Of the page on CARE: 8 layers with s_m = exp(-m / 4), ..., exp(-m / 32), and 128 ranks from 8
// to 32.
TEST(AllocateRanks, GivesThePublishedRanks) {
  Spectra spectra;
  for (double constant = 4; constant <= 32; constant += 4) spectra.push_back(decay(64, constant));
  const auto ranks = [&](RankScore score) {
    return allocate_ranks(spectra, 128, {.min_rank = 8, .max_rank = 32}, {.score = score});
  };
  EXPECT_EQ(ranks(RankScore::CareResidualRatio), (Ranks{32, 32, 24, 8, 8, 8, 8, 8}));
  EXPECT_EQ(ranks(RankScore::CareCode), (Ranks{32, 32, 21, 11, 8, 8, 8, 8}));
  EXPECT_EQ(ranks(RankScore::NormalizedEnergy), (Ranks{8, 11, 14, 16, 18, 19, 21, 21}));
  EXPECT_EQ(allocate_ranks(spectra, 128, {.min_rank = 8, .max_rank = 32}),
            ranks(RankScore::NormalizedEnergy))
      << "the default";
  EXPECT_EQ(ranks(RankScore::UniformShare), Ranks(8, 16));
}

// The residual ratio of a geometric spectrum does not depend on the rank, which is why the layer
// that falls fastest takes all.
TEST(AllocateRanks, TheResidualRatioIsScaleFreeInTheTail) {
  const Spectra spectra = {decay(2000, 20), decay(2000, 19), decay(2000, 21)};
  EXPECT_EQ(allocate_ranks(spectra, 60, {}, {.score = RankScore::CareResidualRatio}),
            (Ranks{1, 58, 1}));
}

TEST(AllocateRanks, SpendsTheBudgetUnlessAllAreFull) {
  const Spectra spectra = random_spectra(5, 12, 1);
  for (const RankScore score : all_scores)
    for (Index budget = 10; budget <= 60; ++budget) {
      const Ranks ranks =
          allocate_ranks(spectra, budget, {.min_rank = 2, .max_rank = 9}, {.score = score});
      EXPECT_EQ(sum(ranks), std::min<Index>(budget, 45));
      for (const Index rank : ranks) {
        EXPECT_GE(rank, 2);
        EXPECT_LE(rank, 9);
      }
    }
}

TEST(AllocateRanks, EqualSpectraGetEqualRanksAndTheFirstWhatIsOver) {
  const Spectra spectra(5, decay(30, 7));
  for (const RankScore score : {RankScore::NormalizedEnergy, RankScore::AbsoluteEnergy,
                                RankScore::EnergyShare, RankScore::UniformShare})
    for (Index budget = 5; budget <= 150; ++budget) {
      const Ranks ranks = allocate_ranks(spectra, budget, {}, {.score = score});
      for (Index l = 0; l < 5; ++l)
        EXPECT_EQ(ranks[static_cast<std::size_t>(l)], budget / 5 + (l < budget % 5 ? 1 : 0));
    }
}

TEST(AllocateRanks, TiesGoToTheFirstLayer) {
  for (const double value : {0.1, 0.3, 0.7, 1.1}) {
    const Spectra flat(3, Eigen::VectorXd::Constant(100, value));
    for (const RankScore score : {RankScore::NormalizedEnergy, RankScore::AbsoluteEnergy})
      EXPECT_EQ(allocate_ranks(flat, 150, {}, {.score = score}), (Ranks{100, 49, 1}));
  }
  const Spectra zero(3, Eigen::VectorXd::Zero(8));
  for (const RankScore score :
       {RankScore::NormalizedEnergy, RankScore::AbsoluteEnergy, RankScore::EnergyShare,
        RankScore::CareResidualRatio, RankScore::CareCode})
    EXPECT_EQ(allocate_ranks(zero, 15, {}, {.score = score}), (Ranks{8, 6, 1}));
}

TEST(AllocateRanks, FollowsAPermutationOfTheLayers) {
  const Spectra spectra = random_spectra(6, 15, 2);
  const std::vector<std::size_t> order = {4, 0, 5, 2, 1, 3};
  Spectra permuted;
  for (const std::size_t l : order) permuted.push_back(spectra[l]);
  for (const RankScore score : {RankScore::NormalizedEnergy, RankScore::AbsoluteEnergy,
                                RankScore::EnergyShare, RankScore::CareResidualRatio}) {
    const Ranks ranks = allocate_ranks(spectra, 41, {}, {.score = score});
    const Ranks other = allocate_ranks(permuted, 41, {}, {.score = score});
    for (std::size_t i = 0; i < order.size(); ++i) EXPECT_EQ(other[i], ranks[order[i]]);
  }
}

TEST(AllocateRanks, CareCodeFavoursTheFirstLayers) {
  const Spectra spectra(6, decay(40, 9));
  const Ranks ranks =
      allocate_ranks(spectra, 90, {.min_rank = 2, .max_rank = 30}, {.score = RankScore::CareCode});
  EXPECT_TRUE(std::is_sorted(ranks.rbegin(), ranks.rend()));
  EXPECT_GT(ranks.front(), ranks.back());
}

// Of two layers the first weighs sqrt(2) times the second; half a layer more or less would make it
// 1.29 or 1.73 times.
TEST(AllocateRanks, CareCodeWeighsLayersByTheirPlace) {
  const auto ranks = [](double first, double second) {
    const auto spectrum = [](double share) {
      return std::vector<double>{1, std::sqrt(share), std::sqrt(1 - share)};
    };
    const std::vector<std::vector<double>> spectra{spectrum(first), spectrum(second)};
    return allocate_ranks(spectra, 3, {}, {.score = RankScore::CareCode});
  };
  EXPECT_EQ(ranks(0.5, 0.68), (Ranks{2, 1}));
  EXPECT_EQ(ranks(0.5, 0.775), (Ranks{1, 2}));
}

// Where less than 1e-12 of a layer is left, the code divides by that; the paper's ratio of the
// second layer is 1/2 there.
TEST(AllocateRanks, CareCodeBoundsTheResidualFromBelow) {
  const Spectra spectra = {Eigen::Vector3d(1, 0.3, 0.3), Eigen::Vector3d(1, 1e-8, 1e-8),
                           Eigen::Vector3d(1, 0.3, 0.2)};
  EXPECT_EQ(allocate_ranks(spectra, 5, {}, {.score = RankScore::CareCode}), (Ranks{3, 1, 1}));
  EXPECT_EQ(allocate_ranks(spectra, 6, {}, {.score = RankScore::CareCode}), (Ranks{3, 1, 2}));
  EXPECT_EQ(allocate_ranks(spectra, 5, {}, {.score = RankScore::CareResidualRatio}),
            (Ranks{1, 1, 3}));
}

TEST(AllocateRanks, NormalizedScoresDoNotSeeTheScaleOfALayer) {
  const Spectra spectra = random_spectra(6, 15, 3);
  Spectra scaled = spectra;
  double scale = 0x1p-40;
  for (Eigen::VectorXd& s : scaled) s *= (scale *= 0x1p+13);
  for (const RankScore score : all_scores) {
    const Ranks ranks = allocate_ranks(spectra, 41, {}, {.score = score});
    const Ranks other = allocate_ranks(scaled, 41, {}, {.score = score});
    if (score == RankScore::AbsoluteEnergy)
      EXPECT_EQ(other, (Ranks{1, 1, 1, 8, 15, 15})) << "the largest first";
    else
      EXPECT_EQ(other, ranks);
  }
}

/// The least of loss(ranks) over all ranks from 1 to n, of `layers` layers, that sum to the budget.
double least_loss(std::size_t layers, Index n, Index budget,
                  const std::function<double(const Ranks&)>& loss) {
  double least = std::numeric_limits<double>::infinity();
  Ranks ranks(layers, 1);
  for (;;) {
    if (sum(ranks) == budget) least = std::min(least, loss(ranks));
    std::size_t l = 0;
    while (l < layers && ++ranks[l] > n) ranks[l++] = 1;
    if (l == layers) return least;
  }
}

TEST(AllocateRanks, OfEqualCostsNoRanksLoseLess) {
  for (std::uint64_t seed = 10; seed < 20; ++seed) {
    const Spectra spectra = random_spectra(4, 5, seed);
    for (const bool normalized : {false, true}) {
      const auto loss = [&](const Ranks& ranks) {
        double lost = 0;
        for (std::size_t l = 0; l < ranks.size(); ++l)
          lost += tail(spectra[l], ranks[l]) / (normalized ? spectra[l].squaredNorm() : 1);
        return lost;
      };
      const AllocationOptions options{.score = normalized ? RankScore::NormalizedEnergy
                                                          : RankScore::AbsoluteEnergy};
      for (Index budget = 4; budget <= 20; ++budget)
        EXPECT_EQ(loss(allocate_ranks(spectra, budget, {}, options)),
                  least_loss(4, 5, budget, loss));
    }
  }
}

TEST(AllocateRanks, TakesAnyRangeOfVectors) {
  const Spectra spectra = random_spectra(3, 9, 4);
  const Ranks expected = allocate_ranks(spectra, 13);
  std::vector<std::vector<double>> lists;
  std::deque<Eigen::RowVectorXf> floats;
  for (const auto& s : spectra) {
    lists.emplace_back(s.begin(), s.end());
    floats.emplace_back(s.transpose().cast<float>());
  }
  EXPECT_EQ(allocate_ranks(lists, 13), expected);
  EXPECT_EQ(allocate_ranks(floats, 13), expected);
  EXPECT_EQ(allocate_ranks(std::vector<std::span<const double>>(lists.begin(), lists.end()), 13),
            expected);
}

// ---------------------------------------------------------------------------- shapes and costs

/// Layers of different shapes, spectra, storage, bounds and importance.
std::vector<LayerSpectrum> random_layers(std::size_t count, std::uint64_t seed) {
  pare::testing::Engine random(seed);
  const auto between = [&](Index low, Index high) {
    return low + static_cast<Index>(random() % static_cast<std::uint64_t>(high - low + 1));
  };
  std::vector<LayerSpectrum> layers;
  while (layers.size() < count) {
    LayerSpectrum layer{.out = between(4, 30), .in = between(4, 30)};
    const Index ranks = std::min(layer.out, layer.in);
    layer.singular_values = random_spectrum(between(std::min<Index>(ranks, 6), ranks), random);
    layer.total_energy = layer.singular_values.squaredNorm() * (random() % 2 == 0 ? 1.0 : 1.25);
    layer.importance = std::exp(pare::testing::normal(random));
    layer.parameter_cost = Index{1} << (random() % 3);
    layer.bounds = {.min_rank = between(1, 3), .multiple = between(1, 3)};
    if (random() % 2 == 0) layer.bounds.max_rank = between(4, ranks);
    layers.push_back(layer);
  }
  return layers;
}

Index total_cost(const std::vector<LayerSpectrum>& layers, const Ranks& ranks) {
  Index cost = 0;
  for (std::size_t l = 0; l < layers.size(); ++l) cost += layers[l].cost(ranks[l]);
  return cost;
}

/// Ranks that a layer may have, from the least; the dense matrix, 0, is the last.
Ranks allowed_ranks(const LayerSpectrum& layer, DenseLayers dense, RankScore score) {
  const Index full = std::min(layer.out, layer.in);
  const Index most = layer.bounds.max_rank.value_or(full);
  Ranks allowed;
  bool may_be_dense = false;
  for (Index rank = layer.bounds.min_rank; rank <= most; ++rank) {
    const bool is_smaller = rank * (layer.out + layer.in) < layer.out * layer.in;
    if (dense != DenseLayers::Never && !is_smaller) {
      may_be_dense = true;
      continue;
    }
    const bool is_known = score == RankScore::UniformShare || rank <= layer.singular_values.size();
    if (rank % layer.bounds.multiple == 0 && is_known) allowed.push_back(rank);
  }
  if (may_be_dense) allowed.push_back(0);
  return allowed;
}

TEST(AllocateRanksToLayers, MeetsTheBudgetAndLeavesLessThanTheCheapestStep) {
  int dense_seen = 0, tight_seen = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed)
    for (const DenseLayers dense : all_dense)
      for (const RankScore score : all_scores) {
        const auto layers = random_layers(5, seed);
        std::vector<Ranks> allowed;
        Ranks least, most;
        for (const LayerSpectrum& layer : layers) {
          allowed.push_back(allowed_ranks(layer, dense, score));
          ASSERT_FALSE(allowed.back().empty());
          least.push_back(allowed.back().front());
          most.push_back(allowed.back().back());
        }
        const Index low = total_cost(layers, least), high = total_cost(layers, most);
        for (const Index budget : {low, low + (high - low) / 4, low + (high - low) * 2 / 3,
                                   high - 1, high, high + 1000}) {
          if (budget < low) continue;
          const Ranks ranks = allocate_ranks(layers, budget, {.score = score, .dense = dense});
          const Index spent = total_cost(layers, ranks);
          EXPECT_LE(spent, budget);
          EXPECT_EQ(ranks == most, budget >= high);
          for (std::size_t l = 0; l < layers.size(); ++l) {
            const auto place = std::find(allowed[l].begin(), allowed[l].end(), ranks[l]);
            ASSERT_NE(place, allowed[l].end()) << "rank " << ranks[l];
            dense_seen += ranks[l] == 0;
            if (place + 1 == allowed[l].end()) continue;
            const Index step = layers[l].cost(place[1]) - layers[l].cost(*place);
            EXPECT_GT(spent + step, budget);
            ++tight_seen;
          }
        }
      }
  EXPECT_GT(dense_seen, 1000);
  EXPECT_GT(tight_seen, 1000);
}

TEST(AllocateRanksToLayers, ScoresCountByCost) {
  // The second layer's directions hold 1.5 times as much, and cost twice as much.
  std::vector<LayerSpectrum> layers = {
      {.out = 20, .in = 20, .singular_values = decay(20, 8)},
      {.out = 20, .in = 20, .singular_values = std::sqrt(1.5) * decay(20, 8), .parameter_cost = 2}};
  const AllocationOptions absolute{.score = RankScore::AbsoluteEnergy};
  const Ranks ranks = allocate_ranks(layers, 40 * 12, absolute);
  EXPECT_GT(ranks[0], ranks[1]);
  layers[1].parameter_cost = 1;
  const Ranks other = allocate_ranks(layers, 40 * 12, absolute);
  EXPECT_LT(other[0], other[1]);
}

TEST(AllocateRanksToLayers, ABudgetOfBytesIsOneOfParametersTimesTheirSize) {
  auto layers = random_layers(5, 7);
  for (LayerSpectrum& layer : layers) layer.parameter_cost = 1;
  const Ranks ranks = allocate_ranks(layers, 600);
  for (LayerSpectrum& layer : layers) layer.parameter_cost = 2;
  EXPECT_EQ(allocate_ranks(layers, 1200), ranks);
  EXPECT_EQ(allocate_ranks(layers, 1201), ranks);
}

TEST(AllocateRanksToLayers, UniformKeepsTheSameShareOfParameters) {
  const auto layers = [] {
    std::vector<LayerSpectrum> shapes = {{.out = 64, .in = 64}, {.out = 100, .in = 30}};
    shapes.push_back({.out = 17, .in = 400, .importance = 100, .parameter_cost = 2});
    return shapes;
  }();
  for (const double share : {0.2, 0.35, 0.5, 0.8, 0.95}) {
    Ranks expected;
    for (const LayerSpectrum& layer : layers)
      expected.push_back(
          static_cast<Index>(share * static_cast<double>(layer.cost(0)) / double(layer.cost(1))));
    EXPECT_EQ(
        allocate_ranks(layers, total_cost(layers, expected), {.score = RankScore::UniformShare}),
        expected)
        << share;
  }
}

TEST(AllocateRanksToLayers, EnergyIsTheLeastLossThatAllLayersShare) {
  std::vector<LayerSpectrum> layers = random_layers(5, 9);
  for (LayerSpectrum& layer : layers) {
    layer.out = layer.in = 60;  // far from the dense matrix
    layer.bounds = {};
    layer.total_energy.reset();
  }
  for (const double lost : {0.6, 0.3, 0.1, 0.03}) {
    Ranks expected;
    for (const LayerSpectrum& layer : layers) {
      const Eigen::VectorXd& s = layer.singular_values;
      Index rank = 1;
      while (layer.importance * tail(s, rank) > lost * s.squaredNorm()) ++rank;
      expected.push_back(rank);
    }
    const Index budget = total_cost(layers, expected);
    EXPECT_EQ(allocate_ranks(layers, budget, {.score = RankScore::EnergyShare}), expected) << lost;
  }
}

TEST(AllocateRanksToLayers, ImportanceMultipliesErrors) {
  std::vector<LayerSpectrum> layers(3, {.out = 40, .in = 40, .singular_values = decay(40, 9)});
  layers[2].importance = 8;
  layers[1].importance = 0;
  for (const RankScore score : {RankScore::NormalizedEnergy, RankScore::AbsoluteEnergy}) {
    const Ranks ranks = allocate_ranks(layers, 80 * 21, {.score = score});
    EXPECT_EQ(ranks[1], 1) << "while others gain anything";
    // s^2 falls by e in 4.5 directions, so by 8 in 9.36.
    EXPECT_EQ(ranks, (Ranks{5, 1, 15}));
  }
}

TEST(AllocateRanksToLayers, TheTotalEnergyCountsWhatIsNotListed) {
  const Eigen::VectorXd s = decay(12, 6);
  std::vector<LayerSpectrum> layers(2, {.out = 40, .in = 40, .singular_values = s});
  EXPECT_EQ(allocate_ranks(layers, 80 * 12), (Ranks{6, 6}));
  layers[0].total_energy = 8 * s.squaredNorm();
  // 1/8 of the first's share a direction: s^2 falls by 8 in 6.24.
  EXPECT_EQ(allocate_ranks(layers, 80 * 12), (Ranks{3, 9}));
  layers[0].total_energy = 1e6 * s.squaredNorm();
  EXPECT_EQ(allocate_ranks(layers, 80 * 15), (Ranks{3, 12})) << "no rank beyond what is listed";
}

// ------------------------------------------------------------------------------- dense layers

TEST(AllocateRanksToLayers, StaysDenseWhereFactorsAreNoSmaller) {
  // Break-even at rank 5: 5 (10 + 10) = 10 10.
  std::vector<LayerSpectrum> layer = {{.out = 10, .in = 10, .singular_values = decay(10, 5)}};
  EXPECT_EQ(allocate_ranks(layer, 80), Ranks{4});
  EXPECT_EQ(allocate_ranks(layer, 99), Ranks{4});
  EXPECT_EQ(allocate_ranks(layer, 100), Ranks{0});
  EXPECT_EQ(allocate_ranks(layer, 100, {.dense = DenseLayers::Never}), Ranks{5});
  EXPECT_EQ(allocate_ranks(layer, 1000, {.dense = DenseLayers::Never}), Ranks{10});
  layer[0].bounds = {.max_rank = 4};
  EXPECT_EQ(allocate_ranks(layer, 1000), Ranks{4}) << "the dense matrix is above the bound";
  layer[0].bounds = {.max_rank = 5};
  EXPECT_EQ(allocate_ranks(layer, 1000), Ranks{0}) << "5 is allowed, and dense costs no more";
  layer[0].bounds = {.min_rank = 5};
  EXPECT_EQ(allocate_ranks(layer, 100), Ranks{0}) << "from the start";
  layer[0].bounds = {.multiple = 8};
  EXPECT_EQ(allocate_ranks(layer, 100), Ranks{0}) << "no multiple is smaller";
  layer[0].singular_values.resize(0);
  EXPECT_EQ(allocate_ranks(layer, 100), Ranks{0}) << "reads no spectra";
  layer[0].singular_values = decay(10, 5);
  layer[0].out = 11;
  layer[0].bounds = {};
  EXPECT_EQ(allocate_ranks(layer, 109), Ranks{5}) << "5 * 21 < 110";
  EXPECT_EQ(allocate_ranks(layer, 110), Ranks{0});
}

TEST(AllocateRanksToLayers, ForeseesThatADenseMatrixLosesNothing) {
  // A direction of the flat layer holds 0.1 of it for 20; the dense matrix gives the nine behind
  // the first for 80. The second direction of the other layer holds 0.117 of that, the third 0.016.
  std::vector<LayerSpectrum> layers = {
      {.out = 10, .in = 10, .singular_values = Eigen::VectorXd::Ones(10)},
      {.out = 10, .in = 10, .singular_values = decay(10, 1)}};
  const auto ranks = [&](Index budget, DenseLayers dense) {
    return allocate_ranks(layers, budget, {.dense = dense});
  };
  EXPECT_EQ(ranks(120, DenseLayers::AtBreakEven), (Ranks{4, 2}));
  EXPECT_EQ(ranks(120, DenseLayers::Foreseen), (Ranks{0, 1}));
  EXPECT_EQ(ranks(119, DenseLayers::Foreseen), (Ranks{3, 2})) << "dense does not fit";
  EXPECT_EQ(ranks(140, DenseLayers::AtBreakEven), (Ranks{0, 2}));
}

/// [budget]: the least loss of all ranks within it, by dynamic programming over layers.
std::vector<double> least_losses(const std::vector<LayerSpectrum>& layers, Index budget) {
  const double infinity = std::numeric_limits<double>::infinity();
  std::vector<double> least(static_cast<std::size_t>(budget) + 1, 0.0);
  for (const LayerSpectrum& layer : layers) {
    std::vector<double> next(least.size(), infinity);
    const Eigen::VectorXd& s = layer.singular_values;
    for (const Index rank :
         allowed_ranks(layer, DenseLayers::Foreseen, RankScore::AbsoluteEnergy)) {
      const auto cost = static_cast<std::size_t>(layer.cost(rank));
      const double lost = rank == 0 ? 0 : *layer.total_energy - s.head(rank).squaredNorm();
      for (std::size_t b = cost; b < next.size(); ++b)
        next[b] = std::min(next[b], least[b - cost] + layer.importance * lost);
    }
    least = next;
  }
  return least;
}

double loss_of(const std::vector<LayerSpectrum>& layers, const Ranks& ranks) {
  double lost = 0;
  for (std::size_t l = 0; l < layers.size(); ++l)
    if (ranks[l] > 0)
      lost += layers[l].importance *
              (*layers[l].total_energy - layers[l].singular_values.head(ranks[l]).squaredNorm());
  return lost;
}

/// Budgets at which the curve has a corner from below: where a line touches it there alone.
std::vector<std::size_t> corners(const std::vector<double>& curve) {
  std::vector<std::size_t> hull;
  for (std::size_t b = 0; b < curve.size(); ++b) {
    if (!std::isfinite(curve[b]) || (b > 0 && curve[b] == curve[b - 1])) continue;
    const auto slope = [&](std::size_t from, std::size_t to) {
      return (curve[to] - curve[from]) / static_cast<double>(to - from);
    };
    while (hull.size() >= 2 && slope(hull[hull.size() - 2], hull.back()) >= slope(hull.back(), b))
      hull.pop_back();
    hull.push_back(b);
  }
  return hull;
}

TEST(AllocateRanksToLayers, IsBestAtTheCornersOfWhatCanBeLost) {
  std::size_t seen = 0;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const auto layers = random_layers(4, seed);
    double size = 0;
    for (const LayerSpectrum& layer : layers) size += layer.importance * *layer.total_energy;
    // Both losses are sums of the same at most 30 squares a layer, in another order.
    const double bound = 2 * pare::testing::Tolerance<double>::gamma(40) * size;
    const auto least = least_losses(layers, 8000);
    for (const std::size_t budget : corners(least)) {
      const Ranks ranks =
          allocate_ranks(layers, static_cast<Index>(budget),
                         {.score = RankScore::AbsoluteEnergy, .dense = DenseLayers::Foreseen});
      EXPECT_NEAR(loss_of(layers, ranks), least[budget], bound) << seed << ", budget " << budget;
      ++seen;
    }
  }
  EXPECT_GT(seen, 200u);
}

// ------------------------------------------------------------------------------- bad arguments

void layers_refused(const std::vector<LayerSpectrum>& layers, Index budget,
                    const std::string& argument, const AllocationOptions& options = {}) {
  refusal([&] { allocate_ranks(layers, budget, options); }, "factor::allocate_ranks", argument);
}

TEST(AllocateRanksToLayers, RefusesWhatIsOutOfRange) {
  const LayerSpectrum good{.out = 8, .in = 6, .singular_values = decay(6, 2)};
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const auto refused = [&](const std::function<void(LayerSpectrum&)>& spoil,
                           const std::string& member) {
    std::vector<LayerSpectrum> layers = {good, good};
    spoil(layers[1]);
    layers_refused(layers, 1000, "layers[1]" + member);
  };
  refused([](auto& layer) { layer.out = 0; }, ": got [0, 6]");
  refused([](auto& layer) { layer.in = -1; }, ": got [8, -1]");
  refused([](auto& layer) { layer.parameter_cost = 0; }, ".parameter_cost");
  for (const double value : {-1.0, nan, infinity}) {
    refused([=](auto& layer) { layer.importance = value; }, ".importance");
    refused([=](auto& layer) { layer.total_energy = value; }, ".total_energy");
    refused([=](auto& layer) { layer.singular_values(5) = value; }, ".singular_values");
  }
  refused([](auto& layer) { layer.singular_values(3) = 1; }, ".singular_values");
  refused([](auto& layer) { layer.singular_values *= 1e200; }, ".singular_values");
  refused([](auto& layer) { layer.singular_values *= 1e-155; }, ".singular_values");
  refused([](auto& layer) { layer.singular_values *= 1e-300; }, ".singular_values");
  refused([](auto& layer) { layer.singular_values.resize(0); }, ".singular_values");
  refused([](auto& layer) { layer.singular_values = decay(7, 2); }, ".singular_values");
  refused([](auto& layer) { layer.total_energy = 0.99 * layer.singular_values.squaredNorm(); },
          ".total_energy");
  refused([](auto& layer) { layer.bounds.min_rank = 0; }, ".bounds.min_rank");
  refused([](auto& layer) { layer.bounds.min_rank = 7; }, ".bounds.min_rank");
  refused([](auto& layer) { layer.bounds = {.min_rank = 3, .max_rank = 2}; }, ".bounds.min_rank");
  refused([](auto& layer) { layer.bounds.max_rank = -1; }, ".bounds.max_rank");
  refused([](auto& layer) { layer.bounds.max_rank = 0; }, ".bounds.max_rank");
  refused([](auto& layer) { layer.total_energy = 0; }, ".total_energy");
  refused([](auto& layer) { layer.bounds.max_rank = 7; }, ".bounds.max_rank");
  refused([](auto& layer) { layer.bounds.multiple = 0; }, ".bounds.multiple");
  refused([](auto& layer) { layer.bounds = {.max_rank = 2, .multiple = 3}; }, ".bounds");
  layers_refused({}, 10, "layers");
  for (const int none : {-1, 17}) {
    layers_refused({good}, 1000, "score", {.score = RankScore(none)});
    layers_refused({good}, 1000, "dense", {.dense = DenseLayers(none)});
  }
  LayerSpectrum important = good;
  important.importance = 1e308;
  important.singular_values *= 1e3;
  layers_refused({good, important}, 1000, "importance", {.score = RankScore::AbsoluteEnergy});
  important.singular_values *= 0;
  EXPECT_EQ(allocate_ranks(std::vector{good, important}, 14 * 6, {.dense = DenseLayers::Never}),
            (Ranks{5, 1}))
      << "a layer of zeros";
}

TEST(AllocateRanksToLayers, RefusesWhatNoRankIsLeftFor) {
  LayerSpectrum layer{.out = 8, .in = 8, .singular_values = decay(2, 2)};
  layer.bounds = {.min_rank = 3, .max_rank = 3};
  layers_refused({layer}, 1000, "layers[0].bounds");
  EXPECT_EQ(allocate_ranks(std::vector{layer}, 1000, {.score = RankScore::UniformShare}), Ranks{3})
      << "reads no spectra";
  layer.bounds = {.min_rank = 3};
  EXPECT_EQ(allocate_ranks(std::vector{layer}, 1000), Ranks{0});
  layers_refused({layer}, 1000, "layers[0].bounds", {.dense = DenseLayers::Never});
}

TEST(AllocateRanksToLayers, RefusesABudgetBelowTheLeastRanks) {
  const LayerSpectrum layer{.out = 8, .in = 6, .singular_values = decay(6, 2)};
  layers_refused({layer, layer}, 27, "budget: got 27, wanted 28 or more");
  layers_refused({layer}, -1, "budget");
  layers_refused({layer}, std::numeric_limits<Index>::min(), "budget");
  EXPECT_EQ(allocate_ranks(std::vector{layer, layer}, 28), (Ranks{1, 1}));
}

TEST(AllocateRanksToLayers, RefusesSizesThatDoNotFit) {
  const Index most = std::numeric_limits<Index>::max();
  const auto layer = [](Index out, Index in, Index cost) {
    return LayerSpectrum{
        .out = out, .in = in, .singular_values = decay(2, 2), .parameter_cost = cost};
  };
  layers_refused({layer(Index{1} << 32, Index{1} << 32, 1)}, most, "layers[0]");
  layers_refused({layer(1 << 20, 1 << 20, Index{1} << 24)}, most, "layers[0]");
  layers_refused({layer(1 << 20, 1 << 20, Index{1} << 22)}, most, "layers[0]");
  LayerSpectrum large = layer(1 << 20, 1 << 20, Index{1} << 21);
  EXPECT_EQ(allocate_ranks(std::vector{large}, most), Ranks{0});
  large.bounds = {.min_rank = 1 << 20};
  layers_refused({large, large, large, large}, most, "layers: got");
  large.bounds = {.multiple = most};
  EXPECT_EQ(allocate_ranks(std::vector{large}, most), Ranks{0});
}

TEST(AllocateRanks, RefusesWhatIsOutOfRange) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto refused = [](const Spectra& spectra, Index budget, const RankBounds& bounds,
                          const std::string& argument) {
    refusal([&] { allocate_ranks(spectra, budget, bounds); }, "factor::allocate_ranks", argument);
  };
  const Spectra good(2, decay(6, 2));
  refused({}, 10, {}, "spectra");
  refused({good[0], Eigen::VectorXd()}, 10, {}, "spectra[1]: got 0");
  refused({good[0], Eigen::VectorXd::LinSpaced(4, 1, 2)}, 10, {}, "spectra[1]");
  refused({good[0], Eigen::VectorXd::Constant(4, nan)}, 10, {}, "spectra[1]");
  refused({Eigen::VectorXd::Constant(4, -1)}, 10, {}, "spectra[0]");
  refused({Eigen::VectorXd::Constant(4, 1e160)}, 10, {}, "spectra[0]");
  refused({Eigen::VectorXd::Constant(4, 1e-160)}, 10, {}, "spectra[0]");
  refusal([&] { allocate_ranks(good, 10, {}, {.score = RankScore(17)}); }, "factor::allocate_ranks",
          "score");
  refused(good, 1, {}, "budget");
  refused(good, 9, {.min_rank = 5}, "budget: got 9, wanted 10 or more");
  refused(good, 10, {.min_rank = 0}, "spectra[0]: min_rank");
  refused(good, 10, {.min_rank = 3, .max_rank = 2}, "spectra[0]: min_rank");
  refused(good, 10, {.max_rank = 7}, "spectra[0]: max_rank");
  refused(good, 10, {.max_rank = -2}, "spectra[0]: max_rank");
  refused(good, 10, {.multiple = 0}, "spectra[0]: multiple");
  refused(good, 10, {.min_rank = 4, .max_rank = 5, .multiple = 3}, "spectra[0]: bounds");
  EXPECT_EQ(allocate_ranks(good, 1000), (Ranks{6, 6}));
}

}  // namespace
}  // namespace factor_allocate_ranks_test
