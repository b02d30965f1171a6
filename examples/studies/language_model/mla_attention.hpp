// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A model whose blocks attend by latent attention, their weights converted by TransMLA.
///
/// ```cpp
/// const BlocksRestored restored(model);
/// const MlaAttention mla(model, backend, file, inputs, {.rank = 128});
/// model.forward(backend, prompt, cache, logits, mla.attention());
/// ```
///
/// In the absorbed form: heads share one row [latent | rotary key] per token, whose latent is the
/// value too. For whole texts: calls of one token, and caches that hold some, attend exactly.

#include "language_model/latent_layers.hpp"

#include <pare/attention/attend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/io/gguf.hpp>
#include <pare/latent/convert/transmla.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/transformer/rotary.hpp>

#include <cmath>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace language_model {

class MlaAttention {
 public:
  /// Watches what the key layers of the model are given, in place of which it puts others.
  /// \throws std::invalid_argument as to_mla; layers are as they were then
  template <class B>
  MlaAttention(Llama& llama, const B& backend, const pare::io::GgufFile& file,
               const std::vector<pare::factor::Covariance>& inputs,
               const pare::latent::TransMlaOptions& options)
      : state_(std::make_shared<State>(llama.config())) {
    const ModelBackend on = on_any_executor(backend);
    const LlamaConfig& c = llama.config();
    const pare::latent::AttentionShape shape{.heads = c.heads,
                                             .kv_heads = c.kv_heads,
                                             .head_dim = c.head_dim,
                                             .rotary = 2 * c.rotary.pairs(),
                                             .layout = c.layout};
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const std::string name = "blk." + std::to_string(i) + ".attn_";
      const auto weight = [&](const char* of) {
        return detail::read_weight(file, name + of + ".weight");
      };
      const auto mla = pare::latent::to_mla(on, weight("q"), weight("k"), weight("v"), inputs[i],
                                            shape, options);
      layers_.cached += mla.cache_width();
      layers_.key_error += *mla.key_error.activation / static_cast<double>(inputs.size());
      layers_.value_error += *mla.value_error.activation / static_cast<double>(inputs.size());
      state_->tables.emplace_back(mla.rope_frequencies(c.rotary), c.context);
      state_->weights.push_back(mla);
    }
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      LlamaBlock& block = llama.blocks()[i];
      block.key = models::WatchedLinear(
          block.key, [state = state_, i](const ModelBackend&, TensorView<const float, 2> x) {
            std::vector<float>& rows = state->given[i];
            for (Index t = 0; t < x.rows(); ++t)
              rows.insert(rows.end(), &x(t, 0), &x(t, 0) + x.cols());
          });
    }
  }

  const ConvertedLayers& layers() const { return layers_; }

  Attention attention() const {
    return [state = state_](const ModelBackend& on, const AttentionCall& call) {
      return state->attend(on, call);
    };
  }

 private:
  struct State {
    explicit State(const LlamaConfig& c) : config(c), given(static_cast<std::size_t>(c.blocks)) {}

    /// x W^T.
    static pare::RowMatrix<float> rows_of(const ModelBackend& on, TensorView<const float, 2> x,
                                          TensorView<const float, 2> w) {
      pare::RowMatrix<float> y(x.rows(), w.rows());
      pare::linalg::multiply(on, x, transpose(w), pare::to_view(y));
      return y;
    }

    /// Heads of rows, of which the numbers from `begin` on are turned.
    void rotate(const ModelBackend& on, pare::RowMatrix<float>& rows, Index heads, Index begin,
                const pare::transformer::RotaryTable<float>& table) const {
      const Index each = rows.cols() / heads;
      const TensorView<float, 4> turned{
          rows.data() + begin, {1, heads, rows.rows(), each - begin}, {0, each, rows.cols(), 1}};
      pare::transformer::rotate(on, turned, table, {.layout = config.layout});
    }

    pare::attention::AttendStats attend(const ModelBackend& on, const AttentionCall& call) {
      const auto at = static_cast<std::size_t>(call.layer);
      const auto& mla = weights[at];
      const Index n = call.q.extent[2], dim = config.head_dim, rank = mla.rank();
      const Index rope = mla.rope(), width = rank + rope, heads = config.heads;
      pare::check(call.cache.length() == n, "language_model::MlaAttention", "cache",
                  call.cache.length(), n);
      const TensorView<const float, 2> x{given[at].data(), {n, config.dim}, {config.dim, 1}};
      pare::RowMatrix<float> row = rows_of(on, x, pare::const_view(mla.down));
      pare::RowMatrix<float> q = rows_of(on, x, pare::const_view(mla.query));
      given[at].clear();
      rotate(on, row, 1, rank, tables[at]);
      rotate(on, q, heads, dim, tables[at]);
      pare::RowMatrix<float> absorbed(n, heads * width), latents(n, heads * rank);
      const auto up = pare::const_view(mla.up);
      for (Index h = 0; h < heads; ++h) {
        const auto of_head = columns_of(pare::const_view(q), h * (dim + rope), dim + rope);
        pare::linalg::multiply(on, columns_of(of_head, 0, dim), pare::rows_of(up, h * 2 * dim, dim),
                               columns_of(pare::to_view(absorbed), h * width, rank));
        absorbed.middleCols(h * width + rank, rope) = q.middleCols(h * (dim + rope) + dim, rope);
      }
      const auto heads_of = [&](float* data, Index count, Index each, Index stride) {
        return TensorView<float, 4>{data, {1, count, n, each}, {0, each, stride, 1}};
      };
      const auto stats = pare::attention::attend(
          on, as_const(heads_of(absorbed.data(), heads, width, heads * width)),
          as_const(heads_of(row.data(), 1, width, width)),
          as_const(heads_of(row.data(), 1, rank, width)),
          heads_of(latents.data(), heads, rank, heads * rank),
          {.causal = true, .scale = 1 / std::sqrt(static_cast<double>(dim))});
      for (Index h = 0; h < heads; ++h)
        pare::linalg::multiply(
            on, columns_of(pare::const_view(latents), h * rank, rank),
            transpose(pare::rows_of(up, h * 2 * dim + dim, dim)),
            TensorView<float, 2>{&call.out(0, h, 0, 0), {n, dim}, {call.out.stride[2], 1}});
      return stats;
    }

    LlamaConfig config;
    std::vector<pare::latent::MlaWeights<float>> weights;
    std::vector<pare::transformer::RotaryTable<float>> tables;
    std::vector<std::vector<float>> given;  ///< of each block, rows of its inputs
  };

  std::shared_ptr<State> state_;
  ConvertedLayers layers_;
};

}  // namespace language_model
