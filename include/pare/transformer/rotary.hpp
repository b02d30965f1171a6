// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rotary embedding (RoPE): pairs of the numbers of a head turned by angles that grow with the
/// position, so that the product of a query and a key depends on their distance alone.
///
///     (a, b) -> (a cos t - b sin t, b cos t + a sin t), t the angle of the pair at the position
///
/// ```cpp
/// const RotaryTable<float> table(rotary_frequencies(64), 8192);        // once
/// rotate(q, table);                                                    // token t has position t
/// rotate(k, table, {.layout = RotaryLayout::HalfSplit, .first_position = cached});
/// rotate(pare::simd.threads(4), q, table, {.positions = list});        // one of each token
/// const pare::TensorView<float, 4> x{data, {1, heads, tokens, dim}, {0, dim, heads * dim, 1}};
/// rotate(x, table);  // data [tokens, heads, dim]
/// ```
///
/// Tensors are [batch, heads, tokens, dim] of float, double, bf16 or f16, with any strides but a
/// contiguous last dimension, and are changed in place. 2 pairs numbers of a row are turned, the
/// first; those behind them stay. rotary_table.hpp says where angles come from.
///
/// Which numbers are a pair is the model's: GGUF files of Llama have neighbours, checkpoints of
/// Hugging Face the two halves. Source: Su et al., "RoFormer", 2021, section 3.2.2 (neighbours);
/// the halves are those of GPT-NeoX (Black et al., 2022).

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/rotate_rows.hpp>
#include <pare/transformer/detail/row_checks.hpp>
#include <pare/transformer/reference.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <algorithm>
#include <optional>
#include <span>
#include <type_traits>

namespace pare::transformer {

/// Which numbers of a row are pair i.
enum class RotaryLayout {
  Interleaved,  ///< x_2i and x_2i+1
  HalfSplit,    ///< x_i and x_i+pairs
};

/// Options of rotate.
struct RotaryOptions {
  RotaryLayout layout = RotaryLayout::Interleaved;

  /// Token t has position first_position + t; at least 0.
  Index first_position = 0;

  /// Instead: the position of each token, [tokens], for all of the batch, or [batch * tokens],
  /// batch entry by batch entry. The list must outlive the call.
  std::optional<std::span<const Index>> positions{};
};

namespace detail {

template <class X>
struct RotaryScalar {
  using type = void;
};
template <class T>
struct RotaryScalar<RotaryTable<T>> {
  using type = T;
};
/// The role of a table, of what is computed in.
struct TakesTable {
  static constexpr bool counts = false;
  template <class A, class S>
  static consteval roles::Wrong wrong() {
    using T = typename RotaryScalar<std::remove_cvref_t<A>>::type;
    if constexpr (std::is_void_v<typename S::first>)
      return std::is_void_v<T> ? roles::no_memory : roles::right;
    else
      return std::is_same_v<T, compute_t<typename S::first>> ? roles::right : roles::no_memory;
  }
};

PARE_ABI_BEGIN

inline constexpr const char* rotate_name = "transformer::rotate";

inline void check_positions(const RotaryOptions& options, Index batch, Index tokens, Index first,
                            Index count) {
  const Worded wanted{"positions of the table, below ", first + count};
  if (options.positions) {
    const auto size = static_cast<Index>(options.positions->size());
    check(size == tokens || size == checked_product(rotate_name, "x", batch, tokens), rotate_name,
          "positions", size, Worded{"", tokens, " positions, or as many for each of the batch"});
    check(options.first_position == 0, rotate_name, "first_position", options.first_position,
          "0 where there is a list of positions");
    for (const Index p : *options.positions)
      check(p >= first && p - first < count, rotate_name, "positions", p, wanted);
  } else if (batch > 0 && tokens > 0) {
    const Index p = options.first_position;
    check(p >= first && p - first < count && tokens <= count - (p - first), rotate_name,
          "first_position", p, wanted);
  }
}

template <class S, class T>
void check_rotate(TensorView<S, 4> x, const RotaryTable<T>& table, const RotaryOptions& options) {
  check_writable(rotate_name, "x", x);
  check(x.stride[3] == 1 || x.extent[3] == 1, rotate_name, "x", x.stride,
        "a contiguous last dimension");
  check(table.pairs() <= x.extent[3] / 2, rotate_name, "x", x.extent,
        Worded{"a last dimension of at least ", 2 * table.pairs()});
  check_enumerator(rotate_name, "layout", options.layout, RotaryLayout::HalfSplit);
  check(options.first_position >= 0, rotate_name, "first_position", options.first_position,
        "at least 0");
  check_positions(options, x.extent[0], x.extent[2], table.first(), table.count());
  if (options.positions)
    check_no_overlap(rotate_name, "x", x, "positions", to_vector_view(*options.positions));
}

/// The positions of a batch entry, or null.
inline const Index* positions_of(const RotaryOptions& options, Index entry, Index tokens) {
  if (!options.positions) return nullptr;
  const auto& list = *options.positions;
  return list.data() + (static_cast<Index>(list.size()) == tokens ? 0 : entry * tokens);
}

template <class S, class T>
void reference_rotate_all(TensorView<S, 4> x, const RotaryTable<T>& table,
                          const RotaryOptions& options) {
  const Index pairs = table.pairs();
  const bool interleaved = options.layout == RotaryLayout::Interleaved;
  for (Index b = 0; b < x.extent[0]; ++b)
    for (Index h = 0; h < x.extent[1]; ++h)
      for (Index t = 0; t < x.extent[2]; ++t) {
        const Index* list = positions_of(options, b, x.extent[2]);
        const Index p = list != nullptr ? list[t] : options.first_position + t;
        for (Index i = 0; i < pairs; ++i)
          reference_rotate(
              x(b, h, t, interleaved ? 2 * i : i), x(b, h, t, interleaved ? 2 * i + 1 : i + pairs),
              static_cast<double>(table.cosine(p, i)), static_cast<double>(table.sine(p, i)));
      }
}

/// Blocks of tokens with all their heads, of about 256 KiB of float.
template <bool Interleaved, class B, class S, class T>
void rotate_on(const B& backend, TensorView<S, 4> x, const RotaryTable<T>& table,
               const RotaryOptions& options) {
  const Index tokens = x.extent[2];
  const Index row = std::max<Index>(1, x.extent[1]) * x.extent[3];
  const Index block = std::max<Index>(1, (Index{1} << 16) / row);
  const Index blocks = ceil_div(tokens, block);
  const auto run = [&](Index item, int) {
    const Index entry = item / blocks, begin = item % blocks * block;
    const Index* list = positions_of(options, entry, tokens);
    launch(backend, kernel::RotateRows<S, Interleaved>{
                        .x = x.data + entry * x.stride[0] + begin * x.stride[2],
                        .head_stride = x.stride[1],
                        .token_stride = x.stride[2],
                        .heads = x.extent[1],
                        .tokens = std::min(block, tokens - begin),
                        .pairs = table.pairs(),
                        .table = table.data(),
                        .origin = table.first(),
                        .positions = list != nullptr ? list + begin : nullptr,
                        .first = options.first_position + begin});
  };
  if (x.extent[0] * blocks == 1) return run(0, 0);
  parallel_for(backend.executor, x.extent[0] * blocks, run);
}

template <class B, class S, class T>
void rotate_view(const B& backend, TensorView<S, 4> x, const RotaryTable<T>& table,
                 const RotaryOptions& options) {
  check_rotate(x, table, options);
  if (x.extent[0] == 0 || x.extent[1] == 0 || x.extent[2] == 0) return;
  if constexpr (!KernelBackend<B>)
    reference_rotate_all(x, table, options);
  else if (options.layout == RotaryLayout::Interleaved)
    rotate_on<true>(on_any_executor(backend), x, table, options);
  else
    rotate_on<false>(on_any_executor(backend), x, table, options);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Turns the first 2 pairs numbers of every row of x by the angles of its token's position.
///
/// \param backend left out: pare::simd
/// \param x       [batch, heads, tokens, dim], dim at least 2 pairs; changed in place
/// \param table   of what x is computed in; has every position
/// \throws std::invalid_argument if x is too narrow, its last dimension not contiguous, two of its
///         indices name one element, a position is negative or none of the table's, the list has
///         another length or lies in x, or there is a list and a first position. Nothing is written
///         then. No batch, head or token: a no-op.
///
/// Cost: x is read and written once, which binds. Memory: none. The same bits for any number of
/// threads. A NaN or infinity stays in its pair.
template <Backend B, Out<4> X>
void rotate(const B& backend, X&& x, const RotaryTable<compute_t<scalar_of<X>>>& table,
            const RotaryOptions& options = {}) {
  detail::rotate_view(backend, to_view(x), table, options);
}

/// \overload
template <Out<4> X>
void rotate(X&& x, const RotaryTable<compute_t<scalar_of<X>>>& table,
            const RotaryOptions& options = {}) {
  rotate(simd, x, table, options);
}

PARE_REFUSE_CALLS(rotate, "transformer::rotate",
                  "after the table: wanted RotaryOptions, members spelt and ordered as declared",
                  (OUTPUT, (detail::Changes<4>), "x", "[batch, heads, tokens, dim]"),
                  (PLAIN, (detail::TakesTable), "table", "a RotaryTable of what x is computed in"))

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
