// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Keys and values of the tokens that a model has seen, layer by layer, in float or bf16.
///
/// ```cpp
/// KvCache cache({.layers = 30, .kv_heads = 3, .head_dim = 64}, 2048, KvScalar::Bf16);
/// model.forward(backend, prompt, cache, logits);  // appends the prompt
/// cache.truncate(100);                            // forgets all but the first 100 tokens
/// ```
///
/// A layer's memory is [pages, page, kv heads, dim]. Pages are handed out in order, so the same
/// memory is also a tensor of all tokens, which policies that take no KeyValueSource read without a
/// copy.

#include <pare/attention/key_value.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/compact_cache.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <span>
#include <type_traits>
#include <vector>

namespace language_model {

using pare::Index;
using pare::TensorView;

enum class KvScalar { Float, Bf16 };

struct KvShape {
  Index layers = 0, kv_heads = 0, head_dim = 0;

  bool operator==(const KvShape&) const = default;
  std::array<Index, 3> extents() const { return {layers, kv_heads, head_dim}; }
};

class KvCache {
 public:
  static constexpr Index page = 64;  ///< tokens

  /// \param capacity tokens, at most; their memory is taken now, and touched when they come
  /// \throws std::invalid_argument if a size is below 1 or the memory's size does not fit
  KvCache(const KvShape& shape, Index capacity, KvScalar scalar = KvScalar::Float)
      : shape_(shape), scalar_(scalar) {
    constexpr const char* function = "language_model::KvCache";
    pare::check(shape.layers >= 1 && shape.kv_heads >= 1 && shape.head_dim >= 1, function, "shape",
                shape.extents(), "at least 1 layer, head and number of a head");
    pare::check(capacity >= 1 && capacity <= pare::attention::most_tokens - page, function,
                "capacity", capacity, "1 to 2^30 - 65 tokens");
    pages_ = pare::ceil_div(capacity, page);
    capacity_ = capacity;
    const Index row = pare::checked_product(function, "shape", shape.kv_heads, shape.head_dim);
    layer_size_ = pare::checked_product(function, "capacity", pages_ * page, row);
    const Index size = pare::checked_product(function, "capacity", layer_size_, 2 * shape.layers);
    pare::checked_count(function, "capacity", size, scalar_bytes());
    memory_.resize(static_cast<std::size_t>(size) * scalar_bytes());
    table_.resize(static_cast<std::size_t>(pages_));
    std::iota(table_.begin(), table_.end(), 0);
  }

  const KvShape& shape() const { return shape_; }
  KvScalar scalar() const { return scalar_; }
  Index capacity() const { return capacity_; }
  Index length() const { return length_[0]; }

  /// Makes room for tokens behind the others, whose rows are then written layer by layer. A row
  /// that is not written is what it was before `truncate`.
  /// \throws std::invalid_argument if there is no room
  void append(Index tokens) {
    pare::check(tokens >= 0 && tokens <= capacity_ - length(), "language_model::KvCache::append",
                "tokens", tokens,
                pare::Worded{"at most ", capacity_ - length(), ", the room left"});
    length_[0] += tokens;
  }
  /// Forgets all but the first tokens.
  /// \throws std::invalid_argument if there are fewer
  void truncate(Index tokens) {
    pare::check(tokens >= 0 && tokens <= length(), "language_model::KvCache::truncate", "tokens",
                tokens, pare::Worded{"at most ", length(), ", the tokens there are"});
    length_[0] = tokens;
  }
  void reset() { length_[0] = 0; }

  /// Of the tokens from `first` on, keeps those that are listed, side by side.
  /// \param kept ascending, from 0, the token `first`, the first of the list
  /// \throws std::invalid_argument if they are not tokens of the cache, as draft::row_moves
  void keep(Index first, std::span<const Index> kept) {
    std::vector<pare::draft::RowMove> moves;
    pare::draft::row_moves(first, length() - first, kept, moves);
    const std::size_t bytes = static_cast<std::size_t>(row()) * scalar_bytes();
    for (const pare::draft::RowMove move : moves)
      for (Index part = 0; part < 2 * shape_.layers; ++part) {
        std::byte* const rows =
            memory_.data() + static_cast<std::size_t>(part * layer_size_) * scalar_bytes();
        std::memcpy(rows + static_cast<std::size_t>(move.to) * bytes,
                    rows + static_cast<std::size_t>(move.from) * bytes, bytes);
      }
    length_[0] = first + static_cast<Index>(kept.size());
  }

  /// Writes keys and values [tokens, kv heads x dim] of a layer, from a position on.
  template <class B>
  void write(const B& backend, Index layer, Index position, TensorView<const float, 2> keys,
             TensorView<const float, 2> values) {
    pare::parallel_for(backend.executor, keys.rows(), [&](Index t, int) {
      if (scalar_ == KvScalar::Float) {
        write_row<float>(2 * layer, position + t, &keys(t, 0));
        write_row<float>(2 * layer + 1, position + t, &values(t, 0));
      } else {
        write_row<pare::bf16>(2 * layer, position + t, &keys(t, 0));
        write_row<pare::bf16>(2 * layer + 1, position + t, &values(t, 0));
      }
    });
  }

  /// S is what scalar() says, here and below.
  template <class S>
  pare::attention::PagedKeyValue<S> paged(Index layer) const {
    const Index pages = pare::ceil_div(length(), page);
    return {.keys = pages_of<S>(2 * layer),
            .values = pages_of<S>(2 * layer + 1),
            .table = {table_.data(), {1, pages}, {pages, 1}},
            .lengths = length_};
  }
  /// [1, kv heads, tokens, dim]
  template <class S>
  TensorView<const S, 4> keys(Index layer) const {
    return all_of<S>(2 * layer);
  }
  template <class S>
  TensorView<const S, 4> values(Index layer) const {
    return all_of<S>(2 * layer + 1);
  }

 private:
  std::size_t scalar_bytes() const {
    return scalar_ == KvScalar::Float ? sizeof(float) : sizeof(pare::bf16);
  }
  Index row() const { return shape_.kv_heads * shape_.head_dim; }

  template <class S>
  const S* part(Index i) const {
    return reinterpret_cast<const S*>(memory_.data()) + i * layer_size_;
  }
  template <class S>
  void write_row(Index i, Index position, const float* from) {
    S* to = reinterpret_cast<S*>(memory_.data()) + i * layer_size_ + position * row();
    for (Index c = 0; c < row(); ++c) to[c] = static_cast<S>(from[c]);
  }
  template <class S>
  TensorView<const S, 4> pages_of(Index i) const {
    return {part<S>(i),
            {pages_, shape_.kv_heads, page, shape_.head_dim},
            {page * row(), shape_.head_dim, row(), 1}};
  }
  template <class S>
  TensorView<const S, 4> all_of(Index i) const {
    return {part<S>(i),
            {1, shape_.kv_heads, length(), shape_.head_dim},
            {0, shape_.head_dim, row(), 1}};
  }

  KvShape shape_;
  KvScalar scalar_;
  Index capacity_ = 0, pages_ = 0, layer_size_ = 0;
  pare::AlignedBuffer<std::byte> memory_;  // [layers][keys, values][pages, page, kv heads, dim]
  std::vector<std::int32_t> table_;
  std::vector<Index> length_ = {0};
};

}  // namespace language_model
