// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A run of cached rows as the keys and values of all heads: latents times W_UK and W_UV.

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value_source.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/narrow_rows.hpp>
#include <pare/latent/config.hpp>
#include <pare/latent/up_weights.hpp>
#include <pare/linalg/multiply.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

namespace pare::latent::detail {
PARE_ABI_BEGIN

/// Rows that a worker copies or rounds at once: about 64 KiB of float.
inline Index rows_at_once(Index cols) { return std::max<Index>(1, (Index{1} << 14) / cols); }

/// body(begin, end) for blocks of rows, on the backend's threads if it has some.
template <class B, class Body>
void for_row_blocks(const B& backend, Index rows, Index cols, const Body& body) {
  const Index block = rows_at_once(cols);
  const auto run = [&](Index item, int) { body(item * block, std::min(rows, (item + 1) * block)); };
  if constexpr (KernelBackend<B>)
    parallel_for(backend.executor, ceil_div(rows, block), run);
  else
    for (Index item = 0; item < ceil_div(rows, block); ++item) run(item, 0);
}

/// `from`, without gaps, in C: itself, or rounded into the buffer.
template <class C, class B, class T>
TensorView<const C, 2> stored_as(const B& backend, TensorView<const T, 2> from,
                                 AlignedBuffer<C>& buffer) {
  if constexpr (std::is_same_v<C, T>) {
    return from;
  } else {
    const TensorView<C, 2> to = matrix_in(buffer, from.rows(), from.cols());
    for_row_blocks(backend, from.rows(), from.cols(), [&](Index begin, Index end) {
      if constexpr (KernelBackend<B>)
        launch(backend, kernel::NarrowRows<C>{&from(begin, 0), from.stride[0], &to(begin, 0),
                                              to.stride[0], end - begin, from.cols()});
      else
        for (Index r = begin; r < end; ++r)
          for (Index i = 0; i < from.cols(); ++i) to(r, i) = static_cast<C>(from(r, i));
    });
    return as_const(to);
  }
}

/// Keys and values of all heads for a run of tokens of one sequence. What heads have of a key is
/// theirs, the rotary rest one for all: it is not copied, keys are put together as they are read.
template <StorageScalar C>
struct ExpandedKeys {
  using scalar = C;

  TensorView<const C, 2> heads{};  ///< [tokens, H (d_n + d_v)]
  TensorView<const C, 2> rope{};   ///< [tokens, d_r]
  Index count = 0;                 ///< H
  Index nope = 0;
  Index values = 0;

  Index sequences() const { return 1; }
  Index kv_heads() const { return count; }
  Index key_dim() const { return nope + rope.cols(); }
  Index value_dim() const { return values; }
  Index length(Index) const { return heads.rows(); }
  void validate(const char*) const {}

  PARE_ALWAYS_INLINE void load_key(Index, Index head, Index position, C* out) const {
    std::copy_n(rope.data + position * rope.stride[0], rope.cols(),
                std::copy_n(row(head, position), nope, out));
  }
  PARE_ALWAYS_INLINE const C* value(Index, Index head, Index position) const {
    return row(head, position) + nope;
  }

 private:
  PARE_ALWAYS_INLINE const C* row(Index head, Index position) const {
    return heads.data + position * heads.stride[0] + head * (nope + values);
  }
};

/// Where a run is expanded: kept between calls.
template <class T, class C>
struct ExpansionMemory {
  AlignedBuffer<C> latents, ropes, rounded, loaded;
  AlignedBuffer<T> heads;
};

/// Copies rows [begin, end) of a run that begins at `first`: latents, and the rotary numbers behind
/// those of keys.
template <class Source, class C>
void gather_rows(const Source& source, Index sequence, Index first, Index begin, Index end, C* room,
                 TensorView<C, 2> latents, TensorView<C, 2> ropes) {
  for (Index i = begin; i < end; ++i) {
    const C* row = room;
    if constexpr (attention::LoadsKeys<Source>)
      source.load_key(sequence, 0, first + i, room);
    else
      row = source.key(sequence, 0, first + i);
    std::copy_n(row, latents.cols(), latents.data + i * latents.stride[0]);
    std::copy_n(row + latents.cols(), ropes.cols(), ropes.data + i * ropes.stride[0]);
  }
}

/// The keys and values of tokens [first, end) of a sequence, in memory that lives as long as
/// `memory` is left alone. Rows are those of `source`, [latent | rotary key].
///
/// Cost: 2 (end - first) H (d_n + d_v) d_c FLOPs.
template <class B, class S, class Source, class T, class C>
ExpandedKeys<C> expand_keys(const B& backend, const UpWeights<S>& up, const Source& source,
                            Index sequence, Index first, Index end, ExpansionMemory<T, C>& memory) {
  const Index tokens = end - first, row = source.key_dim(), rope = row - up.latent();
  const TensorView<C, 2> latents = matrix_in(memory.latents, tokens, up.latent());
  const TensorView<C, 2> ropes = matrix_in(memory.ropes, tokens, rope);
  const Index block = rows_at_once(row);
  const Index rows_loaded = attention::LoadsKeys<Source> ? ceil_div(tokens, block) : 0;
  C* const room = memory.loaded.resize(static_cast<std::size_t>(rows_loaded * row));
  for_row_blocks(backend, tokens, row, [&](Index from, Index to) {
    C* const own = rows_loaded > 0 ? room + from / block * row : nullptr;
    gather_rows(source, sequence, first, from, to, own, latents, ropes);
  });
  const TensorView<T, 2> heads = matrix_in(memory.heads, tokens, up.all().rows());
  linalg::multiply(backend, as_const(latents), transpose(up.all()), heads);
  return {stored_as<C>(backend, as_const(heads), memory.rounded), as_const(ropes), up.heads(),
          up.nope(), up.value()};
}

/// Joins two outputs of rows over keys apart: out = (out e^(lse - m) + more e^(more_lse - m)) / sum
/// of both factors, and lse their log-sum-exp. Rows that see no key of a part leave it out.
template <class T>
void merge_row(T* out, T& lse, const T* more, T more_lse, Index dim) {
  constexpr T none = -std::numeric_limits<T>::infinity();
  if (lse == none && more_lse == none) return;
  const T most = std::max(lse, more_lse);
  const T own = std::exp(lse - most), others = std::exp(more_lse - most), sum = own + others;
  for (Index d = 0; d < dim; ++d) out[d] = (out[d] * own + more[d] * others) / sum;
  lse = most + std::log(sum);
}

PARE_ABI_END
}  // namespace pare::latent::detail

#include <pare/core/macros_on.hpp>
