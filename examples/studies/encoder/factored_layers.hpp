// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Replaces the linear layers of an encoder by factors of low rank.
///
/// ```cpp
/// const InputProducts inputs = input_products(bert, [&] { bert.forward(backend, batch, out); });
/// const std::vector<BertBlock> whole = bert.blocks();
/// factor_layers(bert, backend, file, SvdMetric::Covariance, 0.5, inputs, progress);
/// bert.blocks() = whole;  // as they were
/// ```
///
/// A layer [m, n] gets the rank floor(share m n / (m + n)): its factors then have at most that
/// share of its parameters. Biases, norms and embeddings stay as they are.

#include "common/bert.hpp"
#include "common/blocks_restored.hpp"
#include "common/factored_linear.hpp"
#include "common/input_products.hpp"
#include "encoder/arguments.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/factor/covariance_svd.hpp>
#include <pare/factor/weighted_svd.hpp>
#include <pare/io/safetensors.hpp>

#include <Eigen/Core>

#include <cstddef>
#include <utility>
#include <vector>

namespace encoder {

/// A linear layer of a block; layers of the same `inputs` are given the same rows.
struct BlockLayer {
  BiasedLinear BertBlock::* layer;
  std::size_t inputs;
};
inline constexpr BlockLayer block_layers[] = {
    {&BertBlock::query, 0},  {&BertBlock::key, 0}, {&BertBlock::value, 0},
    {&BertBlock::output, 1}, {&BertBlock::up, 2},  {&BertBlock::down, 3},
};

using models::BlocksRestored;
using models::InputProducts;

/// The mean products E[x x^T] of the inputs x of all layers over what run() has the model do.
template <class Run>
InputProducts input_products(Bert& bert, const Run& run) {
  return models::input_products(
      bert, block_layers,
      [](BertBlock& block, const BlockLayer& part) -> AnyLinear& {
        return (block.*part.layer).linear;
      },
      run);
}

namespace detail {

/// \param inputs of the layer; null for Plain
inline pare::factor::LowRank<float> factors_of(const ModelBackend& backend,
                                               const pare::RowMatrix<float>& weight, Index rank,
                                               SvdMetric metric,
                                               const pare::factor::Covariance* inputs) {
  using namespace pare::factor;
  const SvdOptions options{.rank = rank, .accuracy = Accuracy::High};
  switch (metric) {
    case SvdMetric::Inputs:
      return weighted_svd(backend, weight, Eigen::VectorXd(inputs->matrix().diagonal()), options);
    case SvdMetric::Covariance:
      return covariance_svd(backend, weight, *inputs, options);
    case SvdMetric::Plain:
      break;
  }
  return truncated_svd(backend, weight, options);
}

}  // namespace detail

/// Factors the weights of a file and puts them in place of the layers of all blocks.
///
/// \param file     of the model: weights are read from it, not from the layers in place
/// \param inputs   of input_products; may be empty for Plain
/// \param progress is given the share that is done
/// \return         the share of parameters that the factors have
/// \throws std::invalid_argument as the factorizations do; layers are as they were then
template <class B, class Progress>
double factor_layers(Bert& bert, const B& backend, const pare::io::SafetensorsFile& file,
                     SvdMetric metric, double share, const InputProducts& inputs,
                     Progress&& progress) {
  const ModelBackend on = on_any_executor(backend);
  std::vector<BertBlock> blocks = bert.blocks();
  Index kept = 0, whole = 0;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    for (const BlockLayer& part : block_layers) {
      BiasedLinear& layer = blocks[i].*part.layer;
      const auto weight = file.read_matrix<float>(layer.weight);
      const auto factors =
          detail::factors_of(on, weight, models::rank_of_share(share, weight.rows(), weight.cols()),
                             metric, inputs.empty() ? nullptr : &inputs[i][part.inputs]);
      layer.linear = models::low_rank_layer<float>(factors);
      kept += factors.parameters();
      whole += weight.size();
    }
    progress(static_cast<double>(i + 1) / static_cast<double>(blocks.size()));
  }
  bert.blocks() = std::move(blocks);
  return static_cast<double>(kept) / static_cast<double>(whole);
}

}  // namespace encoder
