// SPDX-License-Identifier: Apache-2.0

#include "language_model/attention_table.hpp"
#include "io/memory.hpp"
#include "language_model/gguf_source.hpp"
#include "language_model/weights.hpp"
#include "studies/llama_reference.hpp"

#include <pare/attention/attend_selected.hpp>
#include <pare/attention/block_mask.hpp>
#include <pare/attention/sliding_window.hpp>
#include <pare/core/backend.hpp>
#include <pare/io/gguf.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace studies_attention_table_test {
namespace {

using namespace language_model;
using pare::attention::BlockMask;
using pare::testing::TinyLlama;

constexpr Index heads = 4, tokens = 37, dim = 8, block = 8, blocks = 5;

std::vector<float> random_numbers(Index count, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  std::vector<float> numbers(static_cast<std::size_t>(count));
  for (float& x : numbers) x = 1.5f * normal(bits);
  return numbers;
}

/// Queries of four heads and keys of two, and the weights of their softmax in double.
struct Layer {
  std::vector<float> q_numbers = random_numbers(heads * tokens * dim, 1),
                     k_numbers = random_numbers(heads / 2 * tokens * dim, 2);
  TensorView<const float, 4> q{q_numbers.data(), {1, heads, tokens, dim}, {0, tokens* dim, dim, 1}};
  TensorView<const float, 4> k{
      k_numbers.data(), {1, heads / 2, tokens, dim}, {0, tokens* dim, dim, 1}};
  pare::Workspace workspace;
  ModelBackend backend = on_any_executor(pare::simd.with(workspace));

  std::vector<double> weights(Index head, Index query) const {
    std::vector<double> row;
    double sum = 0;
    for (Index j = 0; j <= query; ++j) {
      double score = 0;
      for (Index i = 0; i < dim; ++i)
        score += static_cast<double>(q(0, head, query, i)) *
                 static_cast<double>(k(0, head / 2, j, i)) / std::sqrt(8.0);
      row.push_back(std::exp(score));
      sum += row.back();
    }
    for (double& weight : row) weight /= sum;
    return row;
  }

  /// Of blocks, summed over the queries of each row of blocks.
  std::vector<double> masses() const {
    std::vector<double> all(static_cast<std::size_t>(heads * blocks * blocks));
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < tokens; ++i) {
        const std::vector<double> row = weights(h, i);
        for (std::size_t j = 0; j < row.size(); ++j)
          all[static_cast<std::size_t>((h * blocks + i / block) * blocks) + j / block] += row[j];
      }
    return all;
  }
};

/// Scores, below 16 by size, are sums of 9 products and a scale; so weights are off by at most 2 x
/// 16 x 11 roundings, relative, and what sums to 8 by that.
constexpr double tolerance = 8 * 2 * 16 * 11 * 0x1p-24;

void expect_near(const std::vector<double>& got, const std::vector<double>& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], tolerance) << i;
}

TEST(BlockMasses, AreSumsOfTheSoftmax) {
  const Layer layer;
  expect_near(BlockMasses(layer.backend, layer.q, layer.k, block).exact(), layer.masses());
}

/// Block 0, the diagonal and some others.
BlockMask some_blocks() {
  return BlockMask::from_predicate({1, heads, tokens, tokens, block, block},
                                   [](Index, Index h, Index m, Index n) {
                                     return n == 0 || n == m || (n < m && (h + m + n) % 3 == 0);
                                   });
}

LayerCall masked(const BlockMask& mask) {
  return [&mask](const ModelBackend& backend, auto q, auto k, auto v, auto out, auto options) {
    options.mask = &mask;
    return pare::attention::attend(backend, q, k, v, out, options);
  };
}

TEST(BlockMasses, OfAMethodAreThoseThatItReads) {
  const Layer layer;
  const BlockMask mask = some_blocks();
  std::vector<double> wanted = layer.masses();
  for (Index h = 0; h < heads; ++h)
    for (Index m = 0; m < blocks; ++m) {
      const auto row = mask.row(0, h, m);
      for (std::int32_t n = 0; n < blocks; ++n)
        if (std::ranges::find(row, n) == row.end())
          wanted[static_cast<std::size_t>((h * blocks + m) * blocks + n)] = 0;
    }
  expect_near(BlockMasses(layer.backend, layer.q, layer.k, block).kept_by(masked(mask)), wanted);
}

TEST(BlockMasses, OverlapCountsTheBlocksOfTheOracle) {
  const Layer layer;
  const BlockMask mask = some_blocks();
  const std::vector<double> masses = layer.masses();
  const double density = mask.density(true);
  double oracle = 0, found = 0, kept = 0;
  for (Index h = 0; h < heads; ++h)
    for (Index m = 0; m < blocks; ++m) {
      const auto row = mask.row(0, h, m);
      const double* const mass = masses.data() + (h * blocks + m) * blocks;
      for (const std::int32_t n : row) kept += mass[n];
      std::set<std::pair<double, Index>> best;
      for (Index n = 0; n <= m; ++n) best.insert({-mass[n], n});
      auto next = best.begin();
      for (Index i = 0; i < std::max<Index>(1, std::lround(density * double(m + 1))); ++i, ++next) {
        ++oracle;
        found += std::ranges::find(row, next->second) != row.end() ? 1 : 0;
      }
    }
  const Overlap overlap = BlockMasses(layer.backend, layer.q, layer.k, block).overlap(masked(mask));
  EXPECT_LT(found, oracle) << "else this tells nothing";
  EXPECT_EQ(overlap.oracle_blocks, oracle);
  EXPECT_NEAR(overlap.found, found, oracle * tolerance);
  EXPECT_EQ(overlap.rows, heads * tokens);
  EXPECT_NEAR(overlap.kept, kept, heads * tokens * tolerance);
}

TEST(BlockMasses, ExactAttentionReadsAllOfTheOracle) {
  const Layer layer;
  const Overlap overlap = BlockMasses(layer.backend, layer.q, layer.k, block).overlap(exact_call());
  EXPECT_EQ(overlap.share(), 1);
  EXPECT_NEAR(overlap.mass(), 1, tolerance);
}

std::vector<JudgedText> two_texts() {
  std::mt19937 bits(5);
  std::vector<JudgedText> texts = {{"one", std::vector<Token>(70), 210},
                                   {"two", std::vector<Token>(41), 120}};
  for (JudgedText& text : texts)
    for (Token& token : text.tokens) token = static_cast<Token>(bits() % TinyLlama::vocabulary);
  return texts;
}

std::vector<JudgedRow> judged_rows(const std::vector<SparseAttention>& methods) {
  const TinyLlama tiny{8};
  const Memory memory{tiny.file().file()};
  const pare::io::GgufFile file{memory.bytes()};
  const Llama model{gguf_source(file, linear_of(file, Weights::Float))};
  std::vector<JudgedRow> rows;
  for (const JudgedText& text : two_texts())
    judge_text(
        model, pare::simd, text, 40, KvScalar::Float, methods,
        [](const std::string& method, double share) {
          EXPECT_FALSE(method.empty());
          EXPECT_LE(share, 1);
        },
        [&](JudgedRow row) { rows.push_back(std::move(row)); });
  return rows;
}

TEST(AttentionTable, HoldsMethodsAgainstExactAttention) {
  const pare::attention::SlidingWindow window{.row_block = 8, .column_block = 8, .window = 8};
  const std::vector<JudgedRow> rows =
      judged_rows({{{"all", 1}, {exact_call(), exact_call()}},
                   {{"window", .5}, {call_of(window), call_of(window)}}});
  ASSERT_EQ(rows.size(), 6u);
  EXPECT_EQ(rows[0].text, "one");
  EXPECT_EQ(rows[0].method.name, "exact");
  EXPECT_EQ(rows[0].losses.size(), 68u) << "the first tokens of two windows are not judged";
  EXPECT_FALSE(rows[0].overlap);
  EXPECT_EQ(rows[0].bytes, 210 * 68.0 / 70);
  EXPECT_GE(rows[0].attention.count(), 0) << "masks are looked at outside of it";
  EXPECT_GE(rows[0].all, rows[0].attention);
  EXPECT_EQ(rows[1].change().value, 0);
  EXPECT_EQ(rows[1].change().error, 0);
  EXPECT_NEAR(rows[1].overlap->mass(), 1, 1e-5);
  EXPECT_EQ(rows[2].exact, rows[0].losses);
  EXPECT_NE(rows[2].losses, rows[0].losses);
  EXPECT_NE(rows[2].change().value, 0);
  // Of 1 + 2 + 3 + 4 + 5 blocks of 40 tokens the own, the one before it and the first; of 30
  // tokens all but one of ten.
  EXPECT_NEAR(rows[2].report.density(), (12 / 15.0 + 9 / 10.0) / 2, 1e-12);
  EXPECT_LT(rows[2].overlap->mass(), 1);
  EXPECT_GT(rows[2].overlap->mass(), 0);
}

TEST(AttentionTable, PoolsTextsTokenByToken) {
  const std::vector<JudgedRow> rows = judged_rows({{{"all", 1}, {exact_call(), exact_call()}}});
  const std::vector<JudgedRow> all = pooled(rows, "both");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].text, "both");
  EXPECT_EQ(all[1].method.name, "all");
  EXPECT_EQ(all[1].losses.size(), 68u + 39);
  EXPECT_EQ(all[1].tokens, 70 + 41);
  EXPECT_EQ(all[1].bytes, rows[1].bytes + rows[3].bytes);
  EXPECT_EQ(all[1].overlap->rows, rows[1].overlap->rows + rows[3].overlap->rows);
  EXPECT_EQ(all[1].report.calls, rows[1].report.calls + rows[3].report.calls);
}

TEST(AttentionTable, LinesStandBelowTheirHeading) {
  JudgedRow row{.text = "a text", .method = {"s2o", .25}, .losses = {1, 3}, .exact = {1, 2}};
  row.report = {.density_sum = .5, .select_seconds = .5, .calls = 2};
  row.attention = Seconds(2);
  row.all = Seconds(4);
  row.tokens = 3;
  row.bytes = 8;
  row.overlap = Overlap{4, 3, 10, 9};
  std::ostringstream os;
  print_heading(os);
  const std::size_t width = os.str().size();
  print_row(os, row);
  EXPECT_EQ(os.str().substr(width),
            "a text               s2o           0.25   0.250   2.000 +- 1.000     7.39     0.721  "
            "+0.5000 +- 0.5000      1.5     0.50      4.0        1   0.750  0.900\n");
  EXPECT_EQ(os.str().size(), 2 * width);
  row.overlap.reset();
  row.text = "a text whose name is longer than its column";
  std::ostringstream exact;
  print_row(exact, row);
  EXPECT_EQ(exact.str().size(), width - 15);
}

TEST(AttentionTable, ThePlotHasALineForEachMethodAndALevelForExact) {
  const auto row = [](const std::string& name, double density, double loss) {
    JudgedRow made{.method = {name, density}, .losses = {loss, loss + 2}, .exact = {1, 1}};
    made.report = {.density_sum = density, .calls = 1};
    if (name != "exact") made.overlap = Overlap{};
    return made;
  };
  const std::vector<JudgedRow> rows = {row("exact", 1, 0), row("s2o", .5, 1), row("pbs", .5, 2),
                                       row("s2o", .25, 3)};
  const plot::Plot picture = perplexity_plot(rows, 512);
  ASSERT_EQ(picture.series.size(), 2u);
  EXPECT_EQ(picture.series[0].name, "s2o");
  ASSERT_EQ(picture.series[0].points.size(), 2u);
  EXPECT_EQ(picture.series[0].points[0].x, .25);
  EXPECT_EQ(picture.series[0].points[0].y, std::exp(4));
  EXPECT_EQ(picture.series[0].points[1].x, .5);
  EXPECT_EQ(picture.series[0].points[1].error, std::exp(2));  // changes 0 and 2: 1 +- 1
  EXPECT_EQ(picture.series[1].name, "pbs");
  ASSERT_EQ(picture.levels.size(), 1u);
  EXPECT_EQ(picture.levels[0].y, std::exp(1));
  EXPECT_NE(picture.title.find("512 tokens"), std::string::npos);
}

}  // namespace
}  // namespace studies_attention_table_test
