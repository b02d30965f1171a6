// SPDX-License-Identifier: Apache-2.0

#include "language_model/sparse_attention.hpp"
#include "language_model/arguments.hpp"
#include "studies/llama_reference.hpp"
#include "studies/opened_llama.hpp"

#include <pare/attention/block_mask.hpp>
#include <pare/core/backend.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace studies_sparse_attention_test {
namespace {

using namespace language_model;
using pare::testing::TinyLlama;

struct Sampled {
  TinyLlama tiny{8};
  pare::testing::OpenedLlama opened{tiny};
  Llama& model = opened.model;
  std::vector<Token> sample = std::vector<Token>(TinyLlama::context);

  Sampled() {
    std::mt19937 bits(5);
    for (Token& token : sample) token = static_cast<Token>(bits() % TinyLlama::vocabulary);
  }
  std::vector<SparseAttention> find(const std::vector<SparseName>& names) const {
    return sparse_attentions(model, pare::simd, sample, names, [](double) {});
  }
  /// Of the first layer, which sees of the sample what thresholds were found on; later ones see
  /// what sparse attention made of it.
  double density_of(const SparseAttention& method) const {
    AttentionReport report;
    KvCache cache(model.config().kv_shape(), TinyLlama::context);
    std::vector<float> logits(static_cast<std::size_t>(model.config().vocabulary));
    const Attention attention = attention_of(method);
    model.forward(pare::simd, sample, cache, logits,
                  [&](const ModelBackend& backend, const AttentionCall& call) {
                    const auto stats = attention(backend, call);
                    if (call.layer == 0) report.add(stats);
                    return stats;
                  });
    EXPECT_EQ(report.calls, 1);
    return report.density();
  }
};

TEST(SparseAttention, EveryMethodIsFoundAtItsDensity) {
  const Sampled sampled;
  std::vector<SparseName> names;
  for (const double density : {0.9, 0.8})
    for (const std::string_view name : sparse_names) names.push_back({std::string(name), density});
  for (const SparseAttention& method : sampled.find(names)) {
    ASSERT_EQ(method.layers.size(), static_cast<std::size_t>(TinyLlama::blocks));
    // 5 rows of blocks have 15 for each of 3 heads, of which 12 are the least that proxies keep. A
    // window of a block more has 3 of 15 more, and shares of 45 are rounded.
    const double density = sampled.density_of(method);
    EXPECT_LE(density, method.wanted.density + 0.51 / 45) << method.wanted.name;
    EXPECT_GT(density, method.wanted.density - 3.0 / 15) << method.wanted.name;
  }
}

TEST(SparseAttention, UnknownNamesAreRefused) {
  const Sampled sampled;
  EXPECT_THROW(sampled.find({{"exact", 0.5}}), std::invalid_argument);
}

TEST(SparseAttention, AWindowIsTheLongestThatTheDensityAllows) {
  const auto density_of = [](Index tokens, Index window) {
    const pare::attention::BlockMask::Shape shape{1, 1, tokens, tokens, 128, 128};
    return pare::attention::BlockMask::from_predicate(
               shape,
               [&](Index, Index, Index m, Index n) {
                 return n <= m && (n == 0 || (n + 1) * 128 - 1 > m * 128 - window);
               })
        .density(true);
  };
  for (const Index tokens : {640, 2048, 5000})
    for (const double density : {0.1, 0.25, 0.5, 0.8, 1.0}) {
      const Index window = language_model::detail::window_of(density, tokens).window;
      EXPECT_EQ(window % 128, 1) << "one more would reach into a block more";
      const double reached = density_of(tokens, window);
      EXPECT_TRUE(window == 1 || reached <= density) << tokens;
      EXPECT_TRUE(reached == 1 || density_of(tokens, window + 128) > density) << tokens;
    }
}

}  // namespace
}  // namespace studies_sparse_attention_test
