// SPDX-License-Identifier: Apache-2.0
// A layer with grouped heads that TransMLA has converted, run as latent attention over a cache.
#include <pare/core/matrix.hpp>
#include <pare/latent/attention_layer.hpp>
#include <pare/latent/cache.hpp>
#include <pare/latent/convert/transmla.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "factor/data.hpp"
#include "latent/attention_oracle.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace latent_transmla_layer_test {
namespace {

using namespace pare::latent;
using namespace pare::testing;
using Eigen::MatrixXd;
using pare::Index;
using pare::RowMatrix;
using pare::transformer::DenseLinear;
using pare::transformer::RotaryLayout;

/// A layer of 4 query and 2 key heads of 8, and what it is given.
struct Layer {
  AttentionShape shape;
  MatrixXd query = normal_matrix(32, 30, 1), key = normal_matrix(16, 30, 2),
           value = normal_matrix(16, 30, 3), output = normal_matrix(30, 32, 4),
           x = correlated_inputs(90, 30, 5);

  explicit Layer(std::optional<Index> rotary = {}, RotaryLayout layout = RotaryLayout::Interleaved)
      : shape{.heads = 4, .kv_heads = 2, .head_dim = 8, .rotary = rotary, .layout = layout} {}

  MlaWeights<double> converted(Index rank) const {
    pare::factor::Covariance inputs(30, pare::factor::CovarianceProducts::Double);
    inputs.add(x);
    return to_mla(query, key, value, inputs, shape, {.rank = rank, .rope_heads = 2});
  }
};

/// Nothing is lost: all heads keep their rotation, and the latent has the rank of the values.
TEST(TransMlaLayer, OfFullRankIsTheLayerThatWasConverted) {
  for (const RotaryLayout layout : {RotaryLayout::Interleaved, RotaryLayout::HalfSplit})
    for (const std::optional<Index> rotary : {std::optional<Index>{}, std::optional<Index>{4}}) {
      const Layer from(rotary, layout);
      const auto mla = from.converted(2 * (8 - rotary.value_or(8)) + 16);
      const LatentConfig config = mla.config();
      LatentWeights<double> weights{.query = DenseLinear<double>(mla.query),
                                    .latent_down = DenseLinear<double>(mla.down),
                                    .up = {config, DenseLinear<double>(mla.up)},
                                    .output = DenseLinear<double>::copy_of(from.output)};
      const pare::transformer::RotaryTable<double> table(
          mla.rope_frequencies(pare::transformer::rotary_frequencies(rotary.value_or(8))), 32);
      const LatentAttention<double> layer(config, std::move(weights), table, mla.shape.layout);
      LatentCache<double> cache(
          {.latent = config.latent, .rope = config.rope, .pages = 4, .page_size = 5});
      const RowMatrix<double> tokens = from.x.topRows(11);
      RowMatrix<double> out(11, 30);
      layer.forward(tokens.topRows(8), cache, out.topRows(8), {.form = LatentForm::Expanded});
      for (Index t = 8; t < 11; ++t)  // absorbed
        layer.forward(tokens.middleRows(t, 1), cache, out.middleRows(t, 1));

      const AttentionOracle oracle{.heads = 4,
                                   .kv_heads = 2,
                                   .head_dim = 8,
                                   .rotary = rotary,
                                   .halves = layout == RotaryLayout::HalfSplit};
      const MatrixXd wanted = oracle.outputs(from.x.topRows(11) * from.query.transpose(),
                                             from.x.topRows(11) * from.key.transpose(),
                                             from.x.topRows(11) * from.value.transpose()) *
                              from.output.transpose();
      EXPECT_LT((out - wanted).norm(), 1e-11 * wanted.norm())
          << int(layout) << ' ' << rotary.value_or(8);
    }
}

TEST(TransMlaLayer, ConfigHasTheSizesOfTheWeightsAndTheScaleOfTheLayer) {
  const Layer from({}, RotaryLayout::HalfSplit);
  const auto mla = from.converted(12);
  const LatentConfig c = mla.config();
  EXPECT_EQ(c.width, 30);
  EXPECT_EQ(c.heads, 4);
  EXPECT_EQ(c.nope, 8);
  EXPECT_EQ(c.rope, 16);
  EXPECT_EQ(c.value, 8);
  EXPECT_EQ(c.latent, 12);
  EXPECT_FALSE(c.query_latent);
  EXPECT_DOUBLE_EQ(c.softmax_scale, 1 / std::sqrt(8.0));  // not of 8 + 16 numbers
  EXPECT_EQ(mla.shape.layout, RotaryLayout::HalfSplit);
  refusal([] { MlaWeights<double>{}.config(); }, "latent::MlaWeights::config", "shape");
}

}  // namespace
}  // namespace latent_transmla_layer_test
