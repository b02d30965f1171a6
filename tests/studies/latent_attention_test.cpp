// SPDX-License-Identifier: Apache-2.0

/// \file
/// Attention of one block over a cache of latents, against its expanded form in double.

#include "language_model/made_keys_attention.hpp"
#include "language_model/mla_attention.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/metric.hpp>
#include <pare/latent/cache.hpp>
#include <pare/latent/convert/kv_latents.hpp>
#include <pare/latent/convert/mha2mla.hpp>
#include <pare/latent/convert/transmla.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/rotary.hpp>

#include <gtest/gtest.h>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <memory>
#include <random>
#include <vector>

namespace studies_latent_attention_test {
namespace {

using namespace language_model;
using pare::RowMatrix;
using pare::transformer::RotaryLayout;
using Doubles = RowMatrix<double>;

constexpr Index heads = 6, kv_heads = 2, head_dim = 8, dim = 40, tokens = 140;

RowMatrix<float> random_matrix(Index rows, Index cols, unsigned seed, double size) {
  std::mt19937 bits(seed);
  std::normal_distribution<double> normal(0, size);
  RowMatrix<float> m(rows, cols);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<float>(normal(bits));
  return m;
}
Doubles wide(const RowMatrix<float>& m) { return m.cast<double>(); }
Doubles wide(TensorView<const float, 2> m) { return wide(pare::row_matrix<float>(m)); }

/// A block of random weights, and what it is given.
struct Block {
  explicit Block(RotaryLayout layout) {
    config = {.blocks = 1,
              .dim = dim,
              .hidden = 8,
              .heads = heads,
              .kv_heads = kv_heads,
              .head_dim = head_dim,
              .vocabulary = 8,
              .context = tokens,
              .rotary = pare::transformer::rotary_frequencies(head_dim),
              .layout = layout};
    inputs.add(x);
  }

  LlamaConfig config;
  const RowMatrix<float> query = random_matrix(heads * head_dim, dim, 1, .3);
  const RowMatrix<float> key = random_matrix(kv_heads * head_dim, dim, 2, .3);
  const RowMatrix<float> value = random_matrix(kv_heads * head_dim, dim, 3, .2);
  const RowMatrix<float> x = random_matrix(tokens, dim, 4, 1);
  pare::factor::Covariance inputs{dim};
};

/// Turns the pairs of numbers [begin, begin + 2 pairs) of a row.
void turn(Doubles& rows, Index t, Index begin, const std::vector<double>& frequencies,
          RotaryLayout layout) {
  const auto pairs = static_cast<Index>(frequencies.size());
  for (Index i = 0; i < pairs; ++i) {
    const bool neighbours = layout == RotaryLayout::Interleaved;
    const Index one = begin + (neighbours ? 2 * i : i), two = one + (neighbours ? 1 : pairs);
    const double angle = static_cast<double>(t) * frequencies[static_cast<std::size_t>(i)];
    const double a = rows(t, one), b = rows(t, two);
    rows(t, one) = std::cos(angle) * a - std::sin(angle) * b;
    rows(t, two) = std::sin(angle) * a + std::cos(angle) * b;
  }
}

/// Queries, keys and values of each query head, [tokens, heads x each], in which keys and queries
/// are turned.
struct Expanded {
  Doubles q, k, v;
  double largest_score = 0, largest_value = 0;

  /// Causal attention by the definition.
  Doubles attended() {
    const Index each = q.cols() / heads, of_value = v.cols() / heads;
    Doubles out = Doubles::Zero(tokens, v.cols());
    largest_value = v.cwiseAbs().maxCoeff();
    for (Index h = 0; h < heads; ++h)
      for (Index t = 0; t < tokens; ++t) {
        const Eigen::VectorXd scores = k.block(0, h * each, t + 1, each) *
                                       q.row(t).segment(h * each, each).transpose() /
                                       std::sqrt(double{head_dim});
        largest_score = std::max(largest_score, scores.cwiseAbs().maxCoeff());
        const Eigen::ArrayXd weights = (scores.array() - scores.maxCoeff()).exp();
        out.row(t).segment(h * of_value, of_value) =
            (weights / weights.sum()).matrix().transpose() *
            v.block(0, h * of_value, t + 1, of_value);
      }
    return out;
  }
  /// Keys, queries and sums are products of at most dim + 2 head_dim x kv_heads numbers one after
  /// the other, whose roundings move a score by at most so many units of the sizes that it is
  /// summed of, which are within 4 times the largest score here; a score moves the mean of values
  /// by as much of them. Rounding to bf16 is 2^16 times as coarse, but happens once on either side.
  double tolerance(bool bf16) const {
    const double unit = bf16 ? 4 * 0x1p-9 : (dim + 2 * head_dim * kv_heads) * 0x1p-24;
    return unit * (1 + 4 * largest_score) * largest_value;
  }
};

/// Columns of a matrix of key heads once for each query head.
Doubles for_heads(const Doubles& of_groups) {
  const Index each = of_groups.cols() / kv_heads;
  Doubles all(of_groups.rows(), heads * each);
  for (Index h = 0; h < heads; ++h)
    all.middleCols(h * each, each) = of_groups.middleCols(h / (heads / kv_heads) * each, each);
  return all;
}

template <class Latents>
Expanded expanded_of(const Block& b, const Latents& latents) {
  const Doubles x = wide(b.x);
  Expanded e;
  e.q = x * wide(b.query).transpose();
  Doubles k = x * (wide(latents.key_up()) * wide(latents.key_down())).transpose();
  e.v = for_heads(x * (wide(latents.value_up()) * wide(latents.value_down())).transpose());
  for (Index t = 0; t < tokens; ++t) {
    for (Index h = 0; h < heads; ++h)
      turn(e.q, t, h * head_dim, b.config.rotary.frequencies, b.config.layout);
    for (Index g = 0; g < kv_heads; ++g)
      turn(k, t, g * head_dim, b.config.rotary.frequencies, b.config.layout);
  }
  e.k = for_heads(k);
  return e;
}

Expanded expanded_of(const Block& b, const pare::latent::MlaWeights<float>& w) {
  const Doubles x = wide(b.x), row = x * wide(w.down).transpose(), up = wide(w.up);
  const Index rope = w.rope(), each = head_dim + rope;
  const auto frequencies = w.rope_frequencies(b.config.rotary).frequencies;
  Expanded e{x * wide(w.query).transpose(), Doubles(tokens, heads * each),
             Doubles(tokens, heads * head_dim)};
  for (Index h = 0; h < heads; ++h) {
    e.k.middleCols(h * each, head_dim) =
        row.leftCols(w.rank()) * up.middleRows(h * 2 * head_dim, head_dim).transpose();
    e.k.middleCols(h * each + head_dim, rope) = row.rightCols(rope);
    e.v.middleCols(h * head_dim, head_dim) =
        row.leftCols(w.rank()) * up.middleRows(h * 2 * head_dim + head_dim, head_dim).transpose();
    for (Index t = 0; t < tokens; ++t)
      for (Doubles* of : {&e.q, &e.k})
        turn(*of, t, h * each + head_dim, frequencies, b.config.layout);
  }
  return e;
}

Expanded expanded_of(const Block& b, const pare::latent::PartialRopeWeights<float>& w) {
  const Doubles x = wide(b.x), c = x * wide(w.down).transpose();
  const Doubles content = c * wide(w.key_up).transpose(), rotary = x * wide(w.rope_key).transpose();
  const Index rope = w.rope_key.rows() / kv_heads, rest = head_dim - rope;
  Expanded e{x * wide(w.query).transpose(), Doubles(tokens, heads * head_dim),
             for_heads(c * wide(w.value_up).transpose())};
  for (Index h = 0; h < heads; ++h) {
    const Index g = h / (heads / kv_heads);
    e.k.middleCols(h * head_dim, rest) = content.middleCols(g * rest, rest);
    e.k.middleCols(h * head_dim + rest, rope) = rotary.middleCols(g * rope, rope);
    std::vector<double> frequencies;
    for (const Index pair : w.pairs[static_cast<std::size_t>(g)])
      frequencies.push_back(b.config.rotary.frequencies[static_cast<std::size_t>(pair)]);
    for (Index t = 0; t < tokens; ++t)
      for (Doubles* of : {&e.q, &e.k})
        turn(*of, t, h * head_dim + rest, frequencies, b.config.layout);
  }
  return e;
}

/// Some tokens at once, beyond a page, then one by one and some again.
template <class S, class A>
RowMatrix<float> attended_in_cache(const A& attention, const Block& block, int threads = 1) {
  pare::latent::LatentCache<S> cache(
      {.latent = attention.latent(), .rope = attention.rope(), .pages = 10, .page_size = 16});
  const auto backend = on_any_executor(pare::simd.threads(threads));
  RowMatrix<float> out = RowMatrix<float>::Constant(tokens, heads * head_dim, 1e9f);
  for (Index first = 0; first < tokens;) {
    const Index count = std::min<Index>(first == 0 ? 70 : first < 80 ? 1 : 33, tokens - first);
    attention.attend(backend, pare::rows_of(pare::const_view(block.x), first, count), cache,
                     pare::rows_of(pare::to_view(out), first, count));
    first += count;
    EXPECT_EQ(cache.length(0), first);
  }
  return out;
}

template <class A>
void expect_attends_as(Expanded expanded, const A& attention, const Block& block) {
  const Doubles wanted = expanded.attended();
  const auto off = [&](const RowMatrix<float>& out) {
    return (wide(out) - wanted).cwiseAbs().maxCoeff();
  };
  const RowMatrix<float> exact = attended_in_cache<float>(attention, block);
  EXPECT_LE(off(exact), expanded.tolerance(false));
  EXPECT_LE(off(attended_in_cache<pare::bf16>(attention, block)), expanded.tolerance(true));
  EXPECT_EQ(attended_in_cache<float>(attention, block, 3), exact) << "other bits on three threads";
}

class LatentBlockAttention : public ::testing::TestWithParam<RotaryLayout> {
 protected:
  Block block{GetParam()};
  std::shared_ptr<const RotaryTable> table_of(const auto& frequencies) const {
    return std::make_shared<RotaryTable>(frequencies, tokens);
  }
  MadeKeysAttention made_keys(const auto& latents) const {
    return {block.config, models::dense_layer<float>(block.query), latents,
            table_of(block.config.rotary)};
  }
  pare::latent::AttentionShape shape() const { return attention_shape(block.config); }
};

TEST_P(LatentBlockAttention, WithALatentOfKeysAndOneOfValuesIsThatOfTheFactors) {
  const auto latents = pare::latent::separate_latents(
      block.key, block.value, pare::factor::Uniform{}, {.key_rank = 5, .value_rank = 7});
  const auto attention = made_keys(latents);
  EXPECT_EQ(attention.latent(), 12);
  expect_attends_as(expanded_of(block, latents), attention, block);
}

TEST_P(LatentBlockAttention, WithOneLatentIsThatOfTheFactors) {
  const auto latents =
      pare::latent::joint_latent(block.key, block.value, pare::factor::Uniform{}, {.rank = 11});
  const auto attention = made_keys(latents);
  EXPECT_EQ(attention.latent(), 11);
  expect_attends_as(expanded_of(block, latents), attention, block);
}

TEST_P(LatentBlockAttention, OfTransMlaIsItsExpandedForm) {
  for (const Index fold : {1, 2}) {
    const auto mla = pare::latent::to_mla(block.query, block.key, block.value, block.inputs,
                                          shape(), {.rank = 13, .fold = fold});
    const MlaAttention attention(block.config, mla,
                                 table_of(mla.rope_frequencies(block.config.rotary)));
    EXPECT_EQ(attention.latent(), 13);
    EXPECT_EQ(attention.rope(), head_dim);
    expect_attends_as(expanded_of(block, mla), attention, block);
  }
}

TEST_P(LatentBlockAttention, OfMha2MlaIsItsExpandedForm) {
  const pare::latent::RotaryPairs pairs{{0, 3}, {1, 2}};  // other frequencies in each head
  const auto mla = pare::latent::to_partial_rope(
      block.query, block.key, block.value, pare::factor::Uniform{}, shape(), pairs, {.rank = 13});
  const MlaAttention attention(block.config, mla,
                               table_of(MlaAttention::frequencies_of(mla, block.config.rotary)));
  EXPECT_EQ(attention.latent(), 13);
  EXPECT_EQ(attention.rope(), kv_heads * 4);
  expect_attends_as(expanded_of(block, mla), attention, block);
}

INSTANTIATE_TEST_SUITE_P(AllLayouts, LatentBlockAttention,
                         ::testing::Values(RotaryLayout::Interleaved, RotaryLayout::HalfSplit));

}  // namespace
}  // namespace studies_latent_attention_test
