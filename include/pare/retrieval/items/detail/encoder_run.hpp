// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sessions through the blocks of an encoder, all at once.

#include <pare/attention/attend.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/mean_bags.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/norms.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

inline TensorView<const Index, 1> list_view(std::span<const Index> list) {
  return {list.data(), {static_cast<Index>(list.size())}, {1}};
}

template <class Block>
void check_encoder_block(const char* function, const Block& block, Index dim) {
  block.each_layer([&](const auto& layer) {
    check(layer.inputs() == dim && layer.outputs() == dim, function, "blocks",
          std::array<Index, 2>{layer.outputs(), layer.inputs()}, std::array<Index, 2>{dim, dim});
  });
  for (const auto* norm :
       {&block.attention_gain, &block.attention_bias, &block.forward_gain, &block.forward_bias})
    check(static_cast<Index>(norm->size()) == dim, function, "blocks", norm->size(),
          Worded{"gains and biases of dim, ", dim});
}

/// Offsets rise, and no session is longer than there are positions.
inline void check_sessions(const char* function, std::span<const Index> offsets, Index tokens,
                           const std::optional<Index>& longest) {
  check_offsets(function, "offsets", offsets, tokens);
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    const Index length = offsets[i] - offsets[i - 1];
    check(length >= 1, function, "offsets", length, "sessions of at least 1 item");
    check(!longest || length <= *longest, function, "offsets", length,
          Worded{"sessions of at most the positions, ", longest.value_or(0)});
  }
}

template <class T>
struct EncoderMemory {
  AlignedBuffer<T> rows, next, query, key, value, attended, change;
};

/// One pass of all sessions. Layers get at least `few_rows` + 1 rows, zeros behind the sessions:
/// of fewer they have other bits, and a session would have others alone than in a batch.
template <class B, class T>
class EncoderRun {
 public:
  EncoderRun(const B& backend, std::span<const Index> offsets, Index dim, Index heads,
             double epsilon, EncoderMemory<T>& memory)
      : backend_(backend),
        offsets_(offsets),
        tokens_(offsets.back()),
        heads_(heads),
        epsilon_(epsilon),
        memory_(memory) {
    constexpr const char* function = "retrieval::SessionEncoder::encode";
    const Index all = std::max(tokens_, transformer::few_rows + 1);
    checked_count(function, "rows", checked_product(function, "rows", all, dim), sizeof(T));
    for (auto [view, buffer] : {std::pair{&x_, &memory.rows},
                                {&y_, &memory.next},
                                {&query_, &memory.query},
                                {&key_, &memory.key},
                                {&value_, &memory.value},
                                {&attended_, &memory.attended},
                                {&change_, &memory.change}})
      *view = matrix_in(*buffer, all, dim);
  }

  /// Copies the rows, adds positions if there are any.
  void begin(TensorView<const T, 2> rows, TensorView<const T, 2> positions) {
    for (std::size_t s = 0; s + 1 < offsets_.size(); ++s)
      for (Index t = offsets_[s]; t < offsets_[s + 1]; ++t)
        for (Index c = 0; c < x_.cols(); ++c)
          x_(t, c) =
              positions.data != nullptr ? rows(t, c) + positions(t - offsets_[s], c) : rows(t, c);
    const Index size = (x_.rows() - tokens_) * x_.cols();
    if (size == 0) return;
    std::fill_n(&x_(tokens_, 0), size, T(0));
    std::fill_n(&attended_(tokens_, 0), size, T(0));
  }

  template <class Block>
  void apply(const Block& block) {
    block.query.apply(backend_, as_const(x_), query_);
    block.key.apply(backend_, as_const(x_), key_);
    block.value.apply(backend_, as_const(x_), value_);
    attention::attend(backend_, as_const(heads_of(query_)), as_const(heads_of(key_)),
                      as_const(heads_of(value_)), heads_of(attended_),
                      {.causal = false, .query_offsets = offsets_, .key_offsets = offsets_});
    block.output.apply(backend_, as_const(attended_), change_);
    add_norm(block.attention_gain, block.attention_bias);
    block.feed_forward.apply(backend_, as_const(x_), change_);
    add_norm(block.forward_gain, block.forward_bias);
  }

  /// The mean of each session's rows.
  void pool(TensorView<T, 2> sessions) const {
    if constexpr (KernelBackend<B>) {
      constexpr Index block = 16;
      parallel_for(backend_.executor, ceil_div(sessions.rows(), block), [&](Index part, int) {
        const Index begin = part * block, count = std::min(block, sessions.rows() - begin);
        launch(backend_, kernel::MeanBags<T>{.table = x_.data,
                                             .stride = x_.stride[0],
                                             .places = tokens_,
                                             .offsets = offsets_.data() + begin,
                                             .bags = count,
                                             .out = &sessions(begin, 0),
                                             .out_stride = sessions.stride[0],
                                             .columns = x_.cols()});
      });
    } else {
      for (Index s = 0; s < sessions.rows(); ++s)
        for (Index c = 0; c < x_.cols(); ++c) {
          const Index first = offsets_[static_cast<std::size_t>(s)],
                      end = offsets_[static_cast<std::size_t>(s) + 1];
          double sum = 0;
          for (Index t = first; t < end; ++t) sum += static_cast<double>(x_(t, c));
          sessions(s, c) = static_cast<T>(sum / static_cast<double>(end - first));
        }
    }
  }

 private:
  /// [1, heads, tokens, dim / heads] of rows.
  TensorView<T, 4> heads_of(const TensorView<T, 2>& rows) const {
    const Index dim = rows.cols() / heads_;
    return {rows.data, {1, heads_, tokens_, dim}, {tokens_ * rows.cols(), dim, rows.cols(), 1}};
  }

  /// x <- N(x + change): the norm is written to y, which changes places with x.
  void add_norm(const std::vector<T>& gain, const std::vector<T>& bias) {
    transformer::add_layer_norm(backend_, x_, as_const(change_), gain, bias, y_,
                                {.epsilon = epsilon_});
    std::swap(x_, y_);
  }

  const B& backend_;
  std::span<const Index> offsets_;
  Index tokens_, heads_;
  double epsilon_;
  EncoderMemory<T>& memory_;
  TensorView<T, 2> x_, y_, query_, key_, value_, attended_, change_;
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
