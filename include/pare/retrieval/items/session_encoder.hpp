// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// M2TRec's encoder: a session of rows of items becomes one vector, the mean of what a transformer
/// makes of them.
///
///     x <- N(x + O attend(Q x, K x, V x)),   x <- N(x + F(x))      for each block
///     s  = mean of the rows of x that are the session's
///
/// ```cpp
/// using Layer = DenseLinear<float>;
/// using Forward = Projection<Layer>;                     // or any layer of dim inputs and outputs
/// std::vector<EncoderBlock<Layer, Forward>> blocks;
/// blocks.push_back({Layer(q), Layer(k), Layer(v), Layer(o), Forward(Layer(w)),
///                   gain, bias, gain, bias});            // of the norms, [dim] each
/// const SessionEncoder encoder(dim, std::move(blocks), {.heads = 4});
/// encoder.encode(pare::simd.threads(2), rows, offsets, sessions);
/// ```
///
/// Sessions lie one behind the other, without padding: session i is rows [offsets_i,
/// offsets_{i+1}). Each item sees all of its session, none of another. A session has the same bits
/// alone and among others, wherever it stands. Norms are layer norms behind the residual, as in
/// Vaswani et al., 2017, and as torch's TransformerEncoderLayer has them by default; layers have no
/// biases but those that a layer brings itself. Without blocks, s is the mean of the rows.
///
/// Source: Shalaby et al., M2TRec, arXiv 2209.11824, of which we read the abstract and a figure's
/// caption: a transformer encoder over the session, its outputs averaged. No mask is needed, for
/// the target is what comes next. Reconstructed: all else, such as the place of norms. Ours:
/// positions, for those that want an order; the source does not speak of any.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/retrieval/items/detail/encoder_run.hpp>
#include <pare/transformer/linear.hpp>

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::retrieval {

/// Options of SessionEncoder.
struct SessionEncoderOptions {
  Index heads = 1;        ///< of attention, a divisor of dim; the source does not say how many
  double epsilon = 1e-5;  ///< added to variances, above 0: torch's default
};

PARE_ABI_BEGIN

/// A block of the encoder: attention and a feed-forward layer, each with a residual and a norm.
/// Every layer has dim inputs and dim outputs.
template <class Layer, class Forward = Layer>
requires transformer::LinearOf<Layer, transformer::linear_scalar<Layer>> &&
         transformer::LinearOf<Forward, transformer::linear_scalar<Layer>>
struct EncoderBlock {
  using scalar = transformer::linear_scalar<Layer>;

  Layer query, key, value, output;
  Forward feed_forward;                                ///< such as routing::FeedForward
  std::vector<scalar> attention_gain, attention_bias;  ///< [dim] each, of the norm behind attention
  std::vector<scalar> forward_gain, forward_bias;      ///< of the one behind feed_forward

  /// Visits the layers that it is made of.
  template <class Visit>
  void each_layer(const Visit& visit) const {
    visit(query);
    visit(key);
    visit(value);
    visit(output);
    visit(feed_forward);
  }
};

/// Vectors of sessions. It owns its blocks.
template <class Block>
class SessionEncoder {
 public:
  using scalar = typename Block::scalar;  ///< of rows and vectors

  /// \param dim       of rows and vectors, at least 1
  /// \param blocks    any number
  /// \param options   see SessionEncoderOptions
  /// \param positions [longest session, dim] what is added to a session's rows, by their place.
  ///                  Left out: nothing, and sessions may be of any length
  /// \throws std::invalid_argument if a layer or a norm does not fit dim, heads do not divide it,
  ///         or epsilon is out of its range
  explicit SessionEncoder(Index dim, std::vector<Block> blocks = {},
                          const SessionEncoderOptions& options = {},
                          std::optional<RowMatrix<scalar>> positions = {})
      : dim_(dim), blocks_(std::move(blocks)), options_(options), positions_(std::move(positions)) {
    constexpr const char* function = "retrieval::SessionEncoder";
    check(dim >= 1, function, "dim", dim, "at least 1");
    check(options.heads >= 1 && dim % options.heads == 0, function, "heads", options.heads,
          Worded{"a divisor of dim, ", dim});
    check(is_finite(options.epsilon) && options.epsilon > 0, function, "epsilon", options.epsilon,
          "a finite number above 0");
    for (const Block& block : blocks_) detail::check_encoder_block(function, block, dim);
    if (positions_)
      check_extents<2>(function, "positions", {positions_->rows(), positions_->cols()},
                       {positions_->rows(), dim});
  }

  Index dim() const { return dim_; }
  const std::vector<Block>& blocks() const { return blocks_; }
  const SessionEncoderOptions& options() const { return options_; }
  const std::optional<RowMatrix<scalar>>& positions() const { return positions_; }

  /// The vector of each session.
  ///
  /// \param backend  left out: pare::simd
  /// \param rows     [tokens, dim] items of all sessions, any strides
  /// \param offsets  [sessions + 1] where each begins: from 0 to the tokens, rising
  /// \param sessions [sessions, dim] written, rows contiguous; apart from rows, offsets and layers
  /// \throws std::invalid_argument if an extent or offsets do not fit, a session is empty or has
  ///         more items than there are positions, or sessions overlaps what is read. Nothing is
  ///         written then. No sessions: a no-op.
  ///
  /// Cost: that of layers and attention, which bind. A call of fewer than `few_rows` + 1 tokens
  /// takes as long as one of so many, for layers have other bits for a few rows. Memory, kept in
  /// the backend's workspace: seven times [tokens, dim], and what layers need. The same bits for
  /// any number of threads. A NaN reaches its session, and no other.
  template <Backend B, In<2> X, Out<2> Y>
  requires(std::is_same_v<scalar_of<X>, scalar> && std::is_same_v<scalar_of<Y>, scalar>)
  void encode(const B& backend, const X& rows, std::span<const Index> offsets, Y&& sessions) const {
    run(on_any_executor(backend), as_const(to_view(rows)), offsets, to_view(sessions));
  }

  /// \overload
  template <In<2> X, Out<2> Y>
  requires(std::is_same_v<scalar_of<X>, scalar> && std::is_same_v<scalar_of<Y>, scalar>)
  void encode(const X& rows, std::span<const Index> offsets, Y&& sessions) const {
    encode(simd, rows, offsets, sessions);
  }

  PARE_REFUSE_CONST_CALLS(encode, "retrieval::SessionEncoder::encode",
                          "after sessions: wanted nothing",
                          (INPUT, (roles::Reads<2>), "rows",
                           "[tokens, dim] of the scalar of layers"),
                          (ANY, (roles::TakesAny), "offsets", "[sessions + 1] of Index"),
                          (OUTPUT, (roles::Writes<2>), "sessions", "[sessions, dim]"))

 private:
  template <class B>
  void run(const B& backend, TensorView<const scalar, 2> rows, std::span<const Index> offsets,
           TensorView<scalar, 2> sessions) const {
    constexpr const char* function = "retrieval::SessionEncoder::encode";
    check_view(function, "rows", rows);
    check_extents<2>(function, "rows", rows.extent, {rows.rows(), dim_});
    detail::check_sessions(function, offsets, rows.rows(),
                           positions_ ? std::optional<Index>(positions_->rows()) : std::nullopt);
    check_writable(function, "sessions", sessions);
    check_extents<2>(function, "sessions", sessions.extent,
                     {static_cast<Index>(offsets.size()) - 1, dim_});
    check_contiguous_rows(function, "sessions", sessions);
    check_no_overlap(function, "sessions", sessions, "rows", rows);
    check_no_overlap(function, "sessions", sessions, "offsets", detail::list_view(offsets));
    for (const Block& block : blocks_)
      transformer::check_apart_from_layer(function, "sessions", sessions, block);
    if (sessions.rows() == 0) return;
    const auto memory = leased<detail::EncoderMemory<scalar>>(backend);
    detail::EncoderRun<B, scalar> pass(backend, offsets, dim_, options_.heads, options_.epsilon,
                                       *memory);
    pass.begin(rows, positions_ ? const_view(*positions_) : TensorView<const scalar, 2>{});
    for (const Block& block : blocks_) pass.apply(block);
    pass.pool(sessions);
  }

  Index dim_;
  std::vector<Block> blocks_;
  SessionEncoderOptions options_;
  std::optional<RowMatrix<scalar>> positions_;
};

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
