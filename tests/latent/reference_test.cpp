// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/latent/reference.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "latent/layers.hpp"
#include "support/properties.hpp"

namespace latent_reference_test {
namespace {

using pare::Index;
using pare::TensorView;
using pare::testing::random_latent_weights;
using pare::testing::random_rows;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::testing::small_latent_config;
using pare::transformer::DenseLinear;
using pare::transformer::rotary_frequencies;
using pare::transformer::RotaryFrequencies;
using pare::transformer::RotaryLayout;
using namespace pare::latent;

RotaryFrequencies angles_of(const LatentConfig& c) {
  return c.rope == 0 ? RotaryFrequencies{} : rotary_frequencies(c.rope);
}

double largest_difference(const Rows<double>& a, const Rows<double>& b) {
  double most = 0, size = 0;
  for (Index i = 0; i < a.rows(); ++i)
    for (Index j = 0; j < a.cols(); ++j) {
      most = std::max(most, std::abs(a(i, j) - b(i, j)));
      if (std::isnan(a(i, j) - b(i, j))) return std::numeric_limits<double>::infinity();
      size = std::max(size, std::abs(b(i, j)));
    }
  return most / size;
}

std::vector<LatentConfig> configs() {
  std::vector<LatentConfig> all{small_latent_config()};
  const auto add = [&](auto change) {
    all.push_back(small_latent_config());
    change(all.back());
  };
  add([](LatentConfig& c) { c.query_latent.reset(); });
  add([](LatentConfig& c) { c.rope = 0; });
  add([](LatentConfig& c) { c.heads = 1; });
  add([](LatentConfig& c) { c.nope = c.value = c.latent = 1; });
  add([](LatentConfig& c) { c.heads = 7, c.value = 30, c.latent = 5, c.softmax_scale = 2; });
  return all;
}

TEST(LatentReference, AbsorbedIsExpanded) {
  for (const LatentConfig& c : configs())
    for (const Index tokens : {1, 9})
      for (const RotaryLayout layout : {RotaryLayout::Interleaved, RotaryLayout::HalfSplit})
        for (const bool causal : {true, false}) {
          const auto weights = random_latent_weights<double>(c);
          const auto hidden = random_rows<double>(tokens, c.width, 9);
          const std::vector<Index> positions{5, 3, 0, 9, 1, 2, 8, 7, 100};
          LatentReferenceOptions options{.layout = layout, .causal = causal};
          if (tokens == 9) options.positions = positions;
          Rows<double> expanded(tokens, c.width), absorbed(tokens, c.width);
          reference_expanded(c, weights, angles_of(c), hidden.view(), expanded.view(), options);
          reference_absorbed(c, weights, angles_of(c), hidden.view(), absorbed.view(), options);
          EXPECT_LT(largest_difference(absorbed, expanded), 1e-12);
        }
}

TEST(LatentReference, TheScaleOfTheAbsorbedRowIsAnother) {
  LatentConfig c = small_latent_config();
  const auto weights = random_latent_weights<double>(c);
  const auto hidden = random_rows<double>(9, c.width, 9, 4);
  Rows<double> right(9, c.width), wrong(9, c.width);
  reference_expanded(c, weights, angles_of(c), hidden.view(), right.view());
  c.softmax_scale = 1 / std::sqrt(static_cast<double>(c.row_dim()));
  reference_absorbed(c, weights, angles_of(c), hidden.view(), wrong.view());
  EXPECT_GT(largest_difference(wrong, right), 1e-3);
}

/// Identity blocks W_UK,h and W_UV,h of a latent as wide as all heads: the latent is the keys, and
/// plain attention of each head over them the result.
TEST(LatentReference, IdentityBlocksAreMultiHeadAttention) {
  const Index heads = 3, dim = 5, tokens = 8, width = 15;
  const LatentConfig c{.width = width,
                       .heads = heads,
                       .nope = dim,
                       .rope = 0,
                       .value = dim,
                       .latent = heads * dim,
                       .softmax_scale = 0.7};
  auto weights = random_latent_weights<double>(c);
  weights.latent_norm.reset();
  DenseLinear<double> identity(heads * 2 * dim, heads * dim), copy(width, width);
  for (Index h = 0; h < heads; ++h)
    for (Index i = 0; i < 2 * dim; ++i)
      identity.own_weights()(h * 2 * dim + i, h * dim + i % dim) = 1;
  for (Index i = 0; i < width; ++i) copy.own_weights()(i, i) = 1;
  weights.up = {c, std::move(identity)};
  weights.output = std::move(copy);
  const auto hidden = random_rows<double>(tokens, width, 9);
  Rows<double> q(tokens, width), k(tokens, width), out(tokens, width), absorbed(tokens, width);
  weights.query.apply(pare::reference, hidden.view(), q.view());
  weights.latent_down.apply(pare::reference, hidden.view(), k.view());
  reference_expanded(c, weights, RotaryFrequencies{}, hidden.view(), out.view());
  reference_absorbed(c, weights, RotaryFrequencies{}, hidden.view(), absorbed.view());
  EXPECT_LT(largest_difference(absorbed, out), 1e-12);
  for (Index h = 0; h < heads; ++h)
    for (Index i = 0; i < tokens; ++i) {
      std::vector<double> weight;
      double sum = 0;
      for (Index j = 0; j <= i; ++j) {
        double score = 0;
        for (Index d = h * dim; d < (h + 1) * dim; ++d) score += q(i, d) * k(j, d);
        weight.push_back(std::exp(0.7 * score));
        sum += weight.back();
      }
      for (Index d = h * dim; d < (h + 1) * dim; ++d) {
        double wanted = 0;
        for (Index j = 0; j <= i; ++j)
          wanted += weight[static_cast<std::size_t>(j)] / sum * k(j, d);
        EXPECT_NEAR(out(i, d), wanted, 1e-13);
      }
    }
}

TEST(LatentReference, WhatDoesNotFitIsRefused) {
  const LatentConfig c = small_latent_config();
  const auto weights = random_latent_weights<double>(c);
  const auto angles = angles_of(c);
  auto hidden = random_rows<double>(4, c.width, 9);
  Rows<double> out(4, c.width), narrow(4, c.width - 1);
  const auto refused = [&](const auto& call, const char* argument) {
    refuses_and_leaves_alone(call, "latent::reference_expanded", argument, out, narrow, hidden);
  };
  const auto from = as_const(hidden.view());
  refused([&] { reference_expanded(c, weights, rotary_frequencies(8), from, out.view()); },
          "angles");
  refused([&] { reference_expanded(c, weights, angles, as_const(narrow.view()), out.view()); },
          "hidden");
  refused([&] { reference_expanded(c, weights, angles, from, narrow.view()); }, "out");
  refused([&] { reference_expanded(c, weights, angles, from, hidden.view()); }, "out");
  const std::vector<Index> three{1, 2, 3};
  refused([&] { reference_expanded(c, weights, angles, from, out.view(), {.positions = three}); },
          "positions");
  refused(
      [&] {
        reference_expanded(c, weights, angles, from, out.view(), {.layout = RotaryLayout{2}});
      },
      "layout");
  LatentConfig other = c;
  other.latent += 1;
  refused([&] { reference_expanded(other, weights, angles, from, out.view()); }, "latent_down");
}

}  // namespace
}  // namespace latent_reference_test
