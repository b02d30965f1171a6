// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Calls of a draft block, step by step.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/attention/key_value.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/draft_block_cache.hpp>
#include <pare/draft/draft_block_config.hpp>
#include <pare/draft/draft_block_weights.hpp>
#include <pare/transformer/gates.hpp>
#include <pare/transformer/norms.hpp>
#include <pare/transformer/rotary.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::draft::detail {
PARE_ABI_BEGIN

/// Memory of a call, kept in the workspace.
struct DraftBlockMemory {
  AlignedBuffer<std::byte> context, block;
  std::vector<Index> sequences, positions, lengths;
};

/// Which rows of a block are wanted: as a head takes them, or before the last norm.
enum class DraftRows { Normed, Plain };

/// Keys and values of a layer stored in S, widened as attention asks for them.
template <class S>
struct StoredRows {
  using scalar = compute_t<S>;

  TensorView<const S, 4> keys{}, values{};  ///< [sequences, kv heads, tokens, dim]
  std::span<const Index> lengths{};         ///< [sequences]

  Index sequences() const { return keys.extent[0]; }
  Index kv_heads() const { return keys.extent[1]; }
  Index key_dim() const { return keys.extent[3]; }
  Index value_dim() const { return values.extent[3]; }
  Index length(Index sequence) const { return lengths[static_cast<std::size_t>(sequence)]; }
  void validate(const char*) const {}
  void load_key(Index sequence, Index head, Index position, scalar* to) const {
    widen(keys, sequence, head, position, to);
  }
  void load_value(Index sequence, Index head, Index position, scalar* to) const {
    widen(values, sequence, head, position, to);
  }

 private:
  static void widen(const TensorView<const S, 4>& rows, Index sequence, Index head, Index position,
                    scalar* to) {
    const S* const from = &rows(sequence, head, position, 0);
    for (Index i = 0; i < rows.extent[3]; ++i) to[i] = static_cast<scalar>(from[i]);
  }
};

/// Block: a DraftBlock. S: what the cache stores.
template <class B, class Block, class S>
class DraftBlockCall {
  using T = typename Block::scalar;
  using Layer = typename Block::Layer;
  using Matrix = TensorView<T, 2>;

 public:
  DraftBlockCall(const B& backend, const Block& block, DraftBlockCache<S>& cache)
      : backend_(keeping(backend, own_)),
        block_(block),
        c_(block.config()),
        cache_(cache),
        memory_(leased<DraftBlockMemory>(backend_)) {}

  /// Keys and values of the context in all layers; the cache has grown then. Nothing is checked.
  void append(TensorView<const T, 2> tapped, std::optional<std::span<const Index>> offsets) {
    const Index n = tapped.rows();
    if (n == 0) return;
    start_rows(n);
    for (Index s = 0, r = 0; s < cache_.sequences(); ++s)
      for (const Index end = offsets ? (*offsets)[static_cast<std::size_t>(s) + 1] : n, first = r;
           r < end; ++r)
        place(r, s, cache_.length(s) + r - first);
    for (Index first = 0; first < n; first += rows_at_once)
      append_rows(tapped, first, std::min(rows_at_once, n - first));
    for (Index r = 0; r < n; ++r) cache_.grow(memory_->sequences[static_cast<std::size_t>(r)], 1);
  }

  /// The rows of each sequence's block that are used, to out. Nothing is checked.
  void draft(TensorView<const T, 2> embeddings, Matrix out, DraftRows wanted) {
    const Index n = embeddings.rows(), tokens = n / cache_.sequences();
    start_rows(n);
    memory_->lengths.resize(static_cast<std::size_t>(cache_.sequences()));
    for (Index r = 0; r < n; ++r) place(r, r / tokens, cache_.length(r / tokens) + r % tokens);
    for (Index s = 0; s < cache_.sequences(); ++s)
      memory_->lengths[static_cast<std::size_t>(s)] = cache_.length(s) + tokens;
    carve_block(n);
    copy(embeddings, x_);
    norm(x_, layer(0).input_norm, h_);
    for (Index i = 0; i < c_.layers; ++i) {
      attend(i);
      add_norm(layer(i).mlp_norm);
      feed_forward(layer(i));
      add_norm(i + 1 < c_.layers ? layer(i + 1).input_norm : block_.weights().final_norm);
    }
    const Matrix rows = wanted == DraftRows::Normed ? h_ : x_;
    for (Index s = 0; s < cache_.sequences(); ++s)
      copy(as_const(rows_of(rows, s * tokens + (c_.draft_shift ? 0 : 1), tokens - 1)),
           rows_of(out, s * (tokens - 1), tokens - 1));
  }

 private:
  /// Rows of context that go through the layers together, so that memory does not grow with a
  /// prompt.
  static constexpr Index rows_at_once = 512;

  const Layer& layer(Index i) const { return block_.weights().layers[static_cast<std::size_t>(i)]; }

  void start_rows(Index rows) {
    memory_->sequences.resize(static_cast<std::size_t>(rows));
    memory_->positions.resize(static_cast<std::size_t>(rows));
  }
  void place(Index row, Index sequence, Index position) {
    memory_->sequences[static_cast<std::size_t>(row)] = sequence;
    memory_->positions[static_cast<std::size_t>(row)] = position;
  }

  static Matrix matrix(T* data, Index rows, Index cols) { return {data, {rows, cols}, {cols, 1}}; }
  static void copy(TensorView<const T, 2> from, Matrix to) {
    for (Index r = 0; r < from.rows(); ++r)
      for (Index j = 0; j < from.cols(); ++j) to(r, j) = from(r, j);
  }
  /// Rows [sequences x tokens, heads x dim] as [sequences, heads, tokens, dim].
  TensorView<T, 4> heads_of(Matrix m, Index sequences) const {
    const Index tokens = m.rows() / sequences;
    return {m.data,
            {sequences, m.cols() / c_.head_dim, tokens, c_.head_dim},
            {tokens * m.cols(), c_.head_dim, m.cols(), 1}};
  }

  void norm(Matrix x, const std::vector<T>& gain, Matrix y) const {
    transformer::rms_norm(backend_, x, gain, y, {.epsilon = c_.norm_epsilon});
  }
  /// x += delta, h = its norm.
  void add_norm(const std::vector<T>& gain) const {
    transformer::add_rms_norm(backend_, x_, delta_, gain, h_, {.epsilon = c_.norm_epsilon});
  }
  /// Each head normed, then rotated by the positions of rows from `first` on.
  void turn(Matrix m, const std::vector<T>& gain, Index first) const {
    const Matrix heads = matrix(m.data, m.rows() * (m.cols() / c_.head_dim), c_.head_dim);
    norm(heads, gain, heads);
    const auto positions =
        std::span<const Index>(memory_->positions)
            .subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(m.rows()));
    transformer::rotate(backend_, heads_of(m, 1), block_.table(),
                        {.layout = transformer::RotaryLayout::HalfSplit, .positions = positions});
  }

  /// Keys and values that layer i makes of rows, which are those from `first` on, to the cache.
  void store(Index i, TensorView<const T, 2> rows, Index first, Matrix k, Matrix v) {
    layer(i).key.apply(backend_, rows, k);
    layer(i).value.apply(backend_, rows, v);
    turn(k, layer(i).key_norm, first);
    cache_.write(i, memory_->sequences.data() + first, memory_->positions.data() + first,
                 as_const(k), as_const(v));
  }

  void append_rows(TensorView<const T, 2> tapped, Index first, Index rows) {
    T *context = nullptr, *k = nullptr, *v = nullptr;
    carve_from(memory_->context, [&](Carver& take) {
      take(context, rows * c_.width);
      for (T** of_key : {&k, &v}) take(*of_key, rows * c_.key_width());
    });
    const Matrix made = matrix(context, rows, c_.width);
    block_.weights().context.apply(backend_, rows_of(tapped, first, rows), made);
    norm(made, block_.weights().context_norm, made);
    for (Index i = 0; i < c_.layers; ++i)
      store(i, as_const(made), first, matrix(k, rows, c_.key_width()),
            matrix(v, rows, c_.key_width()));
  }

  void carve_block(Index rows) {
    const auto room = [rows](Carver& take, Matrix& m, Index cols) {
      take(m.data, rows * cols);
      m.extent = {rows, cols};
      m.stride = {cols, 1};
    };
    carve_from(memory_->block, [&](Carver& take) {
      for (Matrix* m : {&x_, &h_, &delta_}) room(take, *m, c_.width);
      for (Matrix* m : {&q_, &attended_}) room(take, *m, c_.query_width());
      for (Matrix* m : {&k_, &v_}) room(take, *m, c_.key_width());
      for (Matrix* m : {&gate_, &up_}) room(take, *m, c_.hidden);
    });
  }

  /// delta = W_o attention(q, [context; block]) of h. Row i of a block is its sequence's query at
  /// length + i: causality alone hides the rows behind it.
  void attend(Index i) {
    const Layer& w = layer(i);
    w.query.apply(backend_, as_const(h_), q_);
    turn(q_, w.query_norm, 0);
    store(i, as_const(h_), 0, k_, v_);
    if constexpr (std::is_same_v<S, T>)
      attend_to(attention::DenseKeyValue<T>{
          cache_.keys(i), cache_.values(i), attention::TokenList(memory_->lengths), {}});
    else
      attend_to(StoredRows<S>{cache_.keys(i), cache_.values(i), memory_->lengths});
    w.output.apply(backend_, as_const(attended_), delta_);
  }

  template <class Source>
  void attend_to(const Source& source) {
    attention::attend(backend_, as_const(heads_of(q_, cache_.sequences())), source,
                      heads_of(attended_, cache_.sequences()), {.causal = true});
  }

  /// delta = W_down (silu(W_gate h) * W_up h).
  void feed_forward(const Layer& w) {
    w.gate.apply(backend_, as_const(h_), gate_);
    w.up.apply(backend_, as_const(h_), up_);
    transformer::activate_gated(backend_, gate_, up_, gate_, transformer::Silu{});
    w.down.apply(backend_, as_const(gate_), delta_);
  }

  Workspace own_;
  const B backend_;
  const Block& block_;
  const DraftBlockConfig& c_;
  DraftBlockCache<S>& cache_;
  const Lease<DraftBlockMemory> memory_;
  Matrix x_{}, h_{}, delta_{}, q_{}, attended_{}, k_{}, v_{}, gate_{}, up_{};
};

PARE_ABI_END
}  // namespace pare::draft::detail

#include <pare/core/macros_on.hpp>
