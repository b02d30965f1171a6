// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention of a block over a cache of latents of which keys are made when they are read.
///
/// ```cpp
/// const MadeKeysAttention attention(config, block.query, latents, table);
/// LatentCache<float> cache({.latent = attention.latent(), .pages = 32});
/// attention.attend(backend, h, cache, out);   // the next tokens
/// ```
///
///     row = D h                      cached: [c_k | c_v], or one c that both share
///     k_t = R(t) U_K c_k,t           of all tokens again in each call
///     out_h = U_V,h sum_t p_t c_v,t  values are never made
///
/// The rotation R(t) stands between U_K and the query and turns all numbers of a head, so that no
/// query that is independent of t absorbs U_K (TransMLA and MHA2MLA keep the rotation apart for
/// that: mla_attention.hpp). What makes keys costs kv_heads head_dim r multiply-adds for each
/// cached token, once for all heads; to turn the query back instead, pair by pair, would cost heads
/// head_dim r. Values have no rotation: U_V is absorbed.
///
/// Memory: keys of one block, tokens x kv_heads x head_dim floats, in the backend's workspace: what
/// is kept for each block are the latents alone.

#include "common/any_linear.hpp"
#include "common/factored_linear.hpp"
#include "language_model/head_views.hpp"
#include "language_model/llama_source.hpp"

#include <pare/attention/attend.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/workspace.hpp>
#include <pare/latent/cache.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/rotary.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

namespace language_model {

using RotaryTable = pare::transformer::RotaryTable<float>;

/// Keys in memory, and the latents of values in a cache, which all key heads share: a
/// KeyValueSource of one sequence.
template <class S>
struct KeysBesideLatents {
  using scalar = float;

  TensorView<const float, 4> keys{};  ///< [1, kv heads, tokens, dim]
  const pare::latent::LatentCache<S>& cache;
  Index first = 0, rank = 0;  ///< the numbers of a row that are of values

  Index sequences() const { return 1; }
  Index kv_heads() const { return keys.extent[1]; }
  Index key_dim() const { return keys.extent[3]; }
  Index value_dim() const { return rank; }
  Index length(Index) const { return keys.extent[2]; }
  void validate(const char* function) const { cache.validate(function); }
  const float* key(Index, Index head, Index position) const { return &keys(0, head, position, 0); }
  const float* value(Index, Index, Index position) const
  requires std::is_same_v<S, float>
  {
    return cache.value(0, 0, position) + first;
  }
  void load_value(Index, Index, Index position, float* out) const
  requires(!std::is_same_v<S, float>)
  {
    const S* const row = cache.value(0, 0, position) + first;
    std::transform(row, row + rank, out, [](S number) { return static_cast<float>(number); });
  }
};

class MadeKeysAttention {
 public:
  /// \param query   of the block
  /// \param latents SeparateLatents or JointLatent
  /// \param table   of the model's rotation
  template <class Latents>
  MadeKeysAttention(const LlamaConfig& config, AnyLinear query, const Latents& latents,
                    std::shared_ptr<const RotaryTable> table)
      : heads_(config.heads),
        kv_heads_(config.kv_heads),
        layout_(config.layout),
        query_(std::move(query)),
        key_up_(pare::row_matrix<float>(latents.key_up())),
        value_up_(pare::row_matrix<float>(latents.value_up())),
        down_(down_of(latents)),
        table_(std::move(table)) {}

  Index latent() const { return down_.outputs(); }
  Index rope() const { return 0; }

  /// Appends the rows of h [tokens, dim] and attends from them to all that are cached.
  template <class S>
  void attend(const ModelBackend& on, TensorView<const float, 2> h,
              pare::latent::LatentCache<S>& cache, TensorView<float, 2> out) const {
    const Index n = h.rows(), first = cache.length(0), rank = value_up_.cols();
    float *latents, *queries, *made, *sums;
    const auto memory = pare::leased<pare::AlignedBuffer<std::byte>>(on);
    pare::carve_from(*memory, [&](pare::Carver& take) {
      take(latents, n * latent());
      take(queries, n * query_.outputs());
      take(made, (first + n) * key_up_.rows());
      take(sums, n * heads_ * rank);
    });
    const auto rows = matrix(latents, n, latent());
    down_.apply(on, h, rows);
    cache.append(on, 0, as_const(rows));
    const auto q = matrix(queries, n, query_.outputs());
    query_.apply(on, h, q);
    pare::transformer::rotate(on, heads_of(q, heads_), *table_,
                              {.layout = layout_, .first_position = first});
    const auto keys = matrix(made, first + n, key_up_.rows());
    make_keys(on, cache, keys);
    const KeysBesideLatents<S> source{as_const(heads_of(keys, kv_heads_)), cache, latent() - rank,
                                      rank};
    const auto u = matrix(sums, n, heads_ * rank);
    pare::attention::attend(on, as_const(heads_of(q, heads_)), source, heads_of(u, heads_),
                            {.causal = true});
    const Index dim = out.cols() / heads_;
    for (Index head = 0; head < heads_; ++head)
      pare::linalg::multiply(on, as_const(columns_of(u, head * rank, rank)),
                             transpose(pare::rows_of(pare::const_view(value_up_),
                                                     head / (heads_ / kv_heads_) * dim, dim)),
                             columns_of(out, head * dim, dim));
  }

 private:
  /// Rows of keys, then of values unless both are made of the same.
  template <class Latents>
  static pare::transformer::DenseLinear<float> down_of(const Latents& latents) {
    const auto keys = pare::row_matrix<float>(latents.key_down());
    if (keys.rows() == latents.cache_width()) return models::dense_layer<float>(keys);
    pare::RowMatrix<float> both(latents.cache_width(), keys.cols());
    both << keys, pare::row_matrix<float>(latents.value_down());
    return models::dense_layer<float>(both);
  }

  template <class S>
  void make_keys(const ModelBackend& on, const pare::latent::LatentCache<S>& cache,
                 TensorView<float, 2> keys) const {
    const Index page = cache.table().page_size();
    for (Index first = 0; first < keys.rows(); first += page) {
      const Index count = std::min(page, keys.rows() - first);
      const TensorView<const S, 2> latents{
          cache.value(0, 0, first), {count, key_up_.cols()}, {cache.value_stride(), 1}};
      pare::linalg::multiply(on, latents, transpose(pare::const_view(key_up_)),
                             pare::rows_of(keys, first, count));
    }
    pare::transformer::rotate(on, heads_of(keys, kv_heads_), *table_, {.layout = layout_});
  }

  Index heads_, kv_heads_;
  pare::transformer::RotaryLayout layout_;
  AnyLinear query_;
  pare::RowMatrix<float> key_up_, value_up_;  // [kv heads x head dim, rank]
  pare::transformer::DenseLinear<float> down_;
  std::shared_ptr<const RotaryTable> table_;
};

}  // namespace language_model
