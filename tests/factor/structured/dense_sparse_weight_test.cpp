// SPDX-License-Identifier: Apache-2.0
// The storage of dense times sparse weights, and their training straight through.
#include <gtest/gtest.h>

#include <pare/factor/structured/dense_sparse_weight.hpp>
#include <pare/factor/structured/straight_through.hpp>
#include <pare/optim/adam.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace factor_structured_dense_sparse_weight_test {
namespace {

using namespace pare::factor;
using pare::bf16;
using pare::Index;
using pare::RowMatrix;
using pare::testing::random_matrix;
using pare::testing::refusal;

struct Parts {
  DenseSparseShape shape;
  RowMatrix<float> dictionary, values;
  std::vector<std::int32_t> places;

  DenseSparse<float> weight() const {
    return {shape, as_const(pare::to_view(dictionary)), std::span<const std::int32_t>(places),
            as_const(pare::to_view(values))};
  }
};

/// Values and places that differ from each other.
Parts parts_of(const DenseSparseShape& shape) {
  Parts p{
      shape,
      random_matrix<RowMatrix<float>>(shape.outputs / shape.block * shape.atoms, shape.inputs, 1),
      random_matrix<RowMatrix<float>>(shape.outputs, shape.nonzeros, 2),
      {}};
  for (Index o = 0; o < shape.outputs; ++o)
    for (Index k = 0; k < shape.nonzeros; ++k)
      p.places.push_back(static_cast<std::int32_t>(k * (shape.atoms / shape.nonzeros) +
                                                   o % (shape.atoms / shape.nonzeros)));
  return p;
}

// Blocks of 21 outputs end within a group of 16; 300 atoms have places of 16 bits.
TEST(DenseSparseWeight, KeepsItsParts) {
  for (const Index atoms : {12, 256, 300}) {
    const Parts p = parts_of({42, 5, 21, atoms, 4});
    const auto w = p.weight();
    EXPECT_EQ(w.places_are_small(), atoms <= 256);
    EXPECT_EQ(w.blocks(), 2);
    EXPECT_EQ(w.bytes(), 2 * atoms * 5 * 4 + 2 * 32 * 4 * (4 + (atoms <= 256 ? 1 : 2)));
    const auto half = w.rounded<bf16>();
    const auto dense = w.copy().dense();
    for (Index o = 0; o < 42; ++o) {
      Eigen::RowVectorXd wanted = Eigen::RowVectorXd::Zero(5);
      for (Index k = 0; k < 4; ++k) {
        const Index place = p.places[static_cast<std::size_t>(4 * o + k)];
        EXPECT_EQ(w.place(o, k), place);
        EXPECT_EQ(w.value(o, k), p.values(o, k));
        EXPECT_EQ(half.place(o, k), place);
        EXPECT_EQ(half.value(o, k).bits, bf16(p.values(o, k)).bits);
        wanted += static_cast<double>(p.values(o, k)) *
                  p.dictionary.row(o / 21 * atoms + place).cast<double>();
      }
      EXPECT_LT((dense.row(o).cast<double>() - wanted).norm(), 1e-6) << o;
    }
  }
}

TEST(DenseSparseWeight, WhatIsMovedFromHasNoOutputs) {
  auto from = parts_of({42, 5, 21, 300, 4}).weight();
  const auto wanted = from.dense();
  const auto to = std::move(from);
  EXPECT_EQ(to.dense(), wanted);
  const auto expect_empty = [](const DenseSparse<float>& w) {
    EXPECT_EQ(w.outputs() + w.inputs() + w.block() + w.blocks() + w.atoms() + w.nonzeros(), 0);
    EXPECT_EQ(w.bytes(), 0);
    EXPECT_TRUE(w.dictionary().data == nullptr && w.small_places().data == nullptr);
    EXPECT_EQ(w.dictionary().rows() + w.stored_values().extent[0] + w.wide_places().extent[0], 0);
    EXPECT_EQ(w.extents()(0) + w.extents()(4), 0);
    EXPECT_EQ(w.dense().size(), 0);
    EXPECT_EQ(w.copy().outputs() + w.rounded<bf16>().outputs(), 0);
    w.visit_block(0, [](const float* values, const auto* places) {
      EXPECT_TRUE(values == nullptr && places == nullptr);
    });
  };
  expect_empty(from);  // NOLINT(bugprone-use-after-move): so it is
  expect_empty(DenseSparse<float>());
  from = to.copy();
  EXPECT_EQ(from.dense(), wanted);
}

TEST(DenseSparseWeight, FaultyPartsAreRefused) {
  const char* const function = "factor::DenseSparse";
  const DenseSparseShape good{6, 5, 3, 4, 2};
  const auto shaped = [&](const DenseSparseShape& shape, const char* argument) {
    refusal([&] { DenseSparse<float>{shape}; }, function, argument);
  };
  shaped({0, 5, 3, 4, 2}, "outputs");
  shaped({6, 0, 3, 4, 2}, "inputs");
  shaped({6, 5, 4, 4, 2}, "block");
  shaped({6, 5, 3, 0, 2}, "atoms");
  shaped({6, 5, 3, 65537, 2}, "atoms");
  shaped({6, 5, 3, 4, 5}, "nonzeros");
  shaped({6, 5, 3, 4, 0}, "nonzeros");
  shaped({6, Index{1} << 61, 3, 4, 2}, "inputs");
  const auto placed = [&](Index entry, std::int32_t place) {
    Parts p = parts_of(good);
    p.places[static_cast<std::size_t>(entry)] = place;
    refusal([&] { p.weight(); }, function, "places");
  };
  placed(3, 4);
  placed(3, -1);
  placed(11, 0);  // below the one before it
  placed(1, parts_of(good).places[0]);
  Parts p = parts_of(good);
  p.places.pop_back();
  refusal([&] { p.weight(); }, function, "places");
  p = parts_of(good);
  p.values.resize(6, 3);
  refusal([&] { p.weight(); }, function, "values");
  p = parts_of(good);
  p.dictionary.resize(7, 5);
  refusal([&] { p.weight(); }, function, "dictionary");
}

TEST(StraightThroughFactorizer, GradientsMoveTheLatentWeightAndItIsProjected) {
  const auto w = random_matrix<RowMatrix<double>>(24, 10, 3);
  const auto target = random_matrix<RowMatrix<double>>(24, 10, 4);
  StraightThroughFactorizer<double> f(
      w, {.factors = {.atoms = 8, .nonzeros = 3}, .every = 2, .adam = {.learning_rate = 0.02}});
  EXPECT_EQ(f.latent(), w);
  RowMatrix<double> moved = w;
  pare::optim::Adam<double> adam(240, {.learning_rate = 0.02});
  const auto loss = [&] { return (f.weight().dense() - target).squaredNorm(); };
  const double before = loss();
  for (int step = 1; step <= 200; ++step) {
    const RowMatrix<double> projected = f.weight().dense(), gradient = projected - target;
    adam.step(std::span<double>(moved.data(), 240), std::span<const double>(gradient.data(), 240));
    EXPECT_EQ(f.step(pare::simd, gradient), step % 2 == 0);
    ASSERT_EQ(f.latent(), moved);
    EXPECT_EQ(f.weight().dense() == projected, step % 2 == 1) << step;
  }
  EXPECT_EQ(f.steps(), 200);
  EXPECT_LT(loss(), 0.5 * before);
}

TEST(StraightThroughFactorizer, WhatDoesNotFitIsRefused) {
  const auto w = random_matrix<RowMatrix<double>>(8, 6, 5);
  using F = StraightThroughFactorizer<double>;
  const char* const function = "factor::StraightThroughFactorizer";
  const DenseSparseOptions factors{.atoms = 4, .nonzeros = 2};
  refusal([&] { F(w, {.factors = factors, .every = 0}); }, function, "every");
  refusal([&] { F(w, {.factors = factors, .sweeps = -1}); }, function, "sweeps");
  refusal([&] { F(w, {.factors = factors, .adam = {.learning_rate = 0}}); }, function,
          "learning_rate");
  F f(w, {.factors = factors});
  RowMatrix<double> gradient = w;
  gradient(2, 3) = std::numeric_limits<double>::infinity();
  const char* const step = "factor::StraightThroughFactorizer::step";
  refusal([&] { f.step(pare::simd, gradient); }, step, "gradient");
  refusal([&] { f.step(pare::simd, RowMatrix<double>(w.topRows(7))); }, step, "gradient");
  EXPECT_EQ(f.latent(), w);
  EXPECT_EQ(f.steps(), 0);
  const RowMatrix<float> small = w.cast<float>();
  StraightThroughFactorizer<float> narrow(small, {.factors = factors});
  const RowMatrix<double> beyond_float = RowMatrix<double>::Constant(8, 6, 1e300);
  refusal([&] { narrow.step(pare::simd, beyond_float); }, step, "gradient");
  EXPECT_EQ(narrow.latent(), small);
  EXPECT_EQ(narrow.steps(), 0);
}

}  // namespace
}  // namespace factor_structured_dense_sparse_weight_test
