// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Projection heads: blocks one after the other, and rows of length 1, as max_sim wants them.
///
///     y = z / sqrt(|z|^2 + 1e-24),    z = block_n(... block_1(x))
///
/// ```cpp
/// using Layer = DenseLinear<float>;
/// const auto head = projection_head(
///     Projection<Layer, Identity, Layer>(Layer(up), Layer(residual)),  // 384 -> 768
///     Projection<Layer>(Layer(down)));                                 // 768 -> 128
/// head.apply(pare::simd.threads(2).with(workspace), tokens, y);        // rows of length 1
/// head.project(tokens, y);                                             // z
/// ```
///
/// A block is a Projection, a GatedProjection, a layer, or whatever models `LinearOf`, which asks
/// for extents and `apply`.
///
/// Source: ColBERT's and pylate's heads; Clavie et al., arXiv 2510.12327 (projection.hpp). torch
/// divides by max(|z|, 1e-12), which differs for rows about as short as 1e-12 only.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/retrieval/projection.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/linear_calls.hpp>
#include <pare/transformer/norms.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::retrieval {
namespace detail {
PARE_ABI_BEGIN

/// Rows that pass all blocks before the next do, so that what stands between blocks takes no more
/// memory than theirs; many against the packing of weights, which takes as long as some twenty.
inline constexpr Index head_rows = 2048;

/// Rows between blocks: a block reads one and writes the other.
template <class T>
struct HeadMemory {
  std::array<AlignedBuffer<T>, 2> between;
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Blocks in a row.
template <class First, class... More>
requires transformer::LinearOf<First, transformer::linear_scalar<First>> &&
         (transformer::LinearOf<More, transformer::linear_scalar<First>> && ...)
class ProjectionHead : public transformer::LinearCalls<ProjectionHead<First, More...>,
                                                       transformer::linear_scalar<First>> {
 public:
  using scalar = transformer::linear_scalar<First>;  ///< of x and y

  /// \throws std::invalid_argument if a block does not have the outputs of the one before it as
  ///         inputs, or 2048 rows of its outputs do not fit 63 bits
  explicit ProjectionHead(First first, More... more)
      : blocks_(std::move(first), std::move(more)...),
        gain_(checked_size(outputs()),
              static_cast<scalar>(1 / std::sqrt(static_cast<double>(outputs())))) {
    Index wanted = inputs();
    each_layer([&](const auto& block) {
      check(block.inputs() == wanted, "retrieval::ProjectionHead", "blocks", block.inputs(),
            Worded{"inputs as many as the block before it has outputs, ", wanted});
      wanted = block.outputs();
      checked_size(wanted);
    });
  }

  static constexpr std::size_t blocks = 1 + sizeof...(More);
  Index inputs() const { return std::get<0>(blocks_).inputs(); }
  Index outputs() const { return std::get<blocks - 1>(blocks_).outputs(); }
  /// Visits the blocks in order.
  template <class Visit>
  void each_layer(const Visit& visit) const {
    std::apply([&](const auto&... block) { (visit(block), ...); }, blocks_);
  }
  /// Visits its other memory.
  template <class Visit>
  void each_memory(const Visit& visit) const {
    visit(to_view(gain_));
  }

  using transformer::LinearCalls<ProjectionHead<First, More...>, scalar>::apply;
  /// Rows of length 1.
  ///
  /// \param backend left out: pare::simd
  /// \param x [rows, inputs], any strides
  /// \param y [rows, outputs], the same; apart from x and the blocks
  /// \throws std::invalid_argument if an extent does not fit or y overlaps what is read. Nothing is
  ///         written then. No rows: a no-op.
  ///
  /// A row of zeros stays one; a NaN makes its row NaN, if blocks keep it there.
  ///
  /// Cost: that of the blocks, and a pass over y. Memory, kept in the backend's workspace: at most
  /// 2048 rows behind each of two blocks, and what blocks need for as many. Same bits for any
  /// number of threads; of up to `few_rows` rows, and of more, each row has the same whatever their
  /// number.
  template <Backend B>
  void apply(const B& backend, TensorView<const scalar, 2> x, TensorView<scalar, 2> y) const {
    run("retrieval::ProjectionHead::apply", backend, x, y);
    if (y.rows() > 0)
      transformer::rms_norm(backend, as_const(y), gain_, y,
                            {.epsilon = 1e-24 / static_cast<double>(outputs())});
  }

  /// The same before rows are divided by their length.
  template <Backend B, In<2> X, Out<2> Y>
  requires(std::is_same_v<scalar_of<X>, scalar> && std::is_same_v<scalar_of<Y>, scalar>)
  void project(const B& backend, const X& x, Y&& y) const {
    run("retrieval::ProjectionHead::project", backend, as_const(to_view(x)), to_view(y));
  }
  /// \overload
  template <In<2> X, Out<2> Y>
  requires(std::is_same_v<scalar_of<X>, scalar> && std::is_same_v<scalar_of<Y>, scalar>)
  void project(const X& x, Y&& y) const {
    project(simd, x, y);
  }

  PARE_REFUSE_CONST_CALLS(project, "retrieval::ProjectionHead::project",
                          "wanted x and y of the scalar of the blocks, and nothing behind y",
                          (INPUT, (roles::Reads<2>), "x", "[rows, inputs]"),
                          (OUTPUT, (roles::Writes<2>), "y", "[rows, outputs]"))

 private:
  /// Outputs of a block, of which head_rows rows are kept. Blocks of your own may have any number.
  static std::size_t checked_size(Index outputs) {
    constexpr const char* function = "retrieval::ProjectionHead";
    checked_count(function, "blocks",
                  checked_product(function, "blocks", outputs, detail::head_rows), sizeof(scalar));
    return static_cast<std::size_t>(outputs);
  }

  template <class B>
  void run(const char* function, const B& backend, TensorView<const scalar, 2> x,
           TensorView<scalar, 2> y) const {
    transformer::check_linear(function, inputs(), outputs(), x, y);
    transformer::check_apart_from_layer(function, "y", y, *this);
    if (y.rows() == 0) return;
    const auto memory = leased<detail::HeadMemory<scalar>>(backend);
    // Parts of one size: of few rows the bits of layers are others.
    const Index parts = ceil_div(y.rows(), detail::head_rows);
    for (Index part = 0; part < parts; ++part) {
      const Index begin = y.rows() * part / parts, rows = y.rows() * (part + 1) / parts - begin;
      pass<0>(backend, rows_of(x, begin, rows), rows_of(y, begin, rows), *memory);
    }
  }

  template <std::size_t I, class B>
  void pass(const B& backend, TensorView<const scalar, 2> x, TensorView<scalar, 2> y,
            detail::HeadMemory<scalar>& memory) const {
    const auto& block = std::get<I>(blocks_);
    if constexpr (I + 1 == blocks) {
      block.apply(backend, x, y);
    } else {
      const TensorView<scalar, 2> z = matrix_in(memory.between[I % 2], x.rows(), block.outputs());
      block.apply(backend, x, z);
      pass<I + 1>(backend, as_const(z), y, memory);
    }
  }

  std::tuple<First, More...> blocks_;
  std::vector<scalar> gain_;  ///< of an RMS norm that divides by the length
};

/// A head of these blocks, which it owns.
template <class First, class... More>
ProjectionHead<First, More...> projection_head(First first, More... more) {
  return ProjectionHead<First, More...>(std::move(first), std::move(more)...);
}

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
