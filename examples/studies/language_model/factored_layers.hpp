// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Replaces the linear layers of a model's blocks by factors of low rank.
///
/// ```cpp
/// const InputProducts inputs = input_products(model, backend, sample, 2048, progress);
/// const std::vector<LlamaBlock> whole = model.blocks();
/// factor_layers(model, backend, file, {.metric = SvdMetric::Covariance, .share = 0.8}, inputs,
///               progress);
/// model.blocks() = whole;  // as they were
/// ```
///
/// A layer [m, n] gets the rank floor(share m n / (m + n)), 1 to min(m, n): its factors then have
/// that share of its parameters. The head stays as it is.

#include "common/blocks_restored.hpp"
#include "common/factored_linear.hpp"
#include "language_model/llama.hpp"
#include "language_model/svd_arguments.hpp"
#include "language_model/watched_inputs.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/factor/covariance_svd.hpp>
#include <pare/factor/elementwise.hpp>
#include <pare/factor/weighted_svd.hpp>
#include <pare/io/gguf.hpp>
#include <pare/io/npy.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

using models::BlocksRestored;
using models::InputProducts;

/// Runs the windows of a text one after the other, for what its layers are given.
/// \param progress is given the share that is done
/// \throws std::invalid_argument as Llama::forward
template <class B, class Progress>
void run_sample(const Llama& llama, const B& backend, std::span<const Token> sample, Index window,
                Progress&& progress) {
  KvCache cache(llama.config().kv_shape(), window);
  std::vector<float> logits(static_cast<std::size_t>(llama.config().vocabulary));
  const auto most = static_cast<std::size_t>(window);
  for (std::size_t begin = 0; begin < sample.size(); begin += most) {
    cache.reset();
    const auto part = sample.subspan(begin, std::min(most, sample.size() - begin));
    llama.forward(backend, part, cache, logits);
    progress(static_cast<double>(begin + part.size()) / static_cast<double>(sample.size()));
  }
}

/// The mean products E[x x^T] of the inputs x of all layers over a text, whose windows are run one
/// after the other; summed while the model runs, so that no inputs are kept.
/// \param progress is given the share that is done
/// \throws std::invalid_argument as Llama::forward
template <class B, class Progress>
InputProducts input_products(Llama& llama, const B& backend, std::span<const Token> sample,
                             Index window, Progress&& progress) {
  return models::input_products(llama, block_layers, layer_of,
                                [&] { run_sample(llama, backend, sample, window, progress); });
}

/// How layers are factored.
struct Factoring {
  SvdMetric metric = SvdMetric::Plain;
  double share = 1;
  bool bf16 = false;                  ///< factors are rounded to it
  std::filesystem::path gradients{};  ///< for Elementwise; read with read_squares
};

namespace detail {

inline pare::RowMatrix<float> read_weight(const pare::io::GgufFile& file, const std::string& name) {
  const auto& tensor = file.tensor(name);
  pare::RowMatrix<float> weight(tensor.rows(), tensor.cols());
  file.read_rows(name, 0, pare::to_view(weight));
  return weight;
}

/// \param inputs of the layer; null where the metric needs none
inline pare::factor::LowRank<float> factors_of(const ModelBackend& backend,
                                               const pare::RowMatrix<float>& weight, Index rank,
                                               SvdMetric metric,
                                               const pare::factor::Covariance* inputs,
                                               const std::filesystem::path& squares) {
  using namespace pare::factor;
  const SvdOptions options{.rank = rank};
  switch (metric) {
    case SvdMetric::Inputs:
      return weighted_svd(backend, weight, Eigen::VectorXd(inputs->matrix().diagonal()), options);
    case SvdMetric::Covariance:
      return covariance_svd(backend, weight, *inputs, options);
    case SvdMetric::Elementwise:
      return elementwise_svd(backend, weight, pare::io::read_npy_matrix<float>(squares),
                             {.rank = rank, .sweeps = 4})
          .factors;
    case SvdMetric::Plain:
      break;
  }
  return truncated_svd(backend, weight, options);
}

}  // namespace detail

/// The file that has the mean squares of the gradient of each weight of a layer, [outputs, inputs].
/// \throws std::runtime_error if there is none
inline std::filesystem::path squares_file(const std::filesystem::path& folder,
                                          const NamedLayer& layer, Index block) {
  std::filesystem::path file = folder / (layer.of_block(block) + ".squares.npy");
  if (!std::filesystem::is_regular_file(file))
    throw std::runtime_error(file.string() + ": there is no such file");
  return file;
}

/// Factors the weights of a file and puts them in place of the layers of all blocks.
///
/// \param file     of the model: weights are read from it, not from the layers in place
/// \param inputs   of input_products; may be empty for Plain and Elementwise
/// \param progress is given the share that is done
/// \return         the parameters that the factors have
/// \throws std::invalid_argument as the factorizations do, and std::runtime_error if a file of
///         gradients is missing; layers are as they were then
template <class B, class Progress>
Index factor_layers(Llama& llama, const B& backend, const pare::io::GgufFile& file,
                    const Factoring& how, const InputProducts& inputs, Progress&& progress) {
  const ModelBackend on = on_any_executor(backend);
  std::vector<LlamaBlock> blocks = llama.blocks();
  const bool elementwise = how.metric == SvdMetric::Elementwise;
  if (elementwise)
    for (std::size_t i = 0; i < blocks.size(); ++i)
      for (const NamedLayer& named : block_layers)
        squares_file(how.gradients, named, static_cast<Index>(i));
  Index parameters = 0;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    for (const NamedLayer& named : block_layers) {
      const auto number = static_cast<Index>(i);
      const auto weight = detail::read_weight(file, named.of_block(number) + ".weight");
      const auto factors = detail::factors_of(
          on, weight, models::rank_of_share(how.share, weight.rows(), weight.cols()), how.metric,
          inputs.empty() ? nullptr : &inputs[i][named.inputs],
          elementwise ? squares_file(how.gradients, named, number) : std::filesystem::path());
      AnyLinear& layer = blocks[i].*named.layer;
      if (how.bf16)
        layer = models::low_rank_layer<pare::bf16>(factors);
      else
        layer = models::low_rank_layer<float>(factors);
      parameters += factors.parameters();
    }
    progress(static_cast<double>(i + 1) / static_cast<double>(blocks.size()));
  }
  llama.blocks() = std::move(blocks);
  return parameters;
}

/// The parameters of the linear layers of all blocks, as they are unfactored.
inline Index layer_parameters(Llama& llama) {
  Index parameters = 0;
  for (const LlamaBlock& block : llama.blocks())
    for (const NamedLayer& named : block_layers)
      parameters += (block.*named.layer).inputs() * (block.*named.layer).outputs();
  return parameters;
}

}  // namespace language_model
