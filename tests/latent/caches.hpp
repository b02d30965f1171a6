// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Latent caches of test inputs, in pages that are out of order and full of NaN.

#include <gtest/gtest.h>

#include <pare/attention/attend.hpp>
#include <pare/core/permutation.hpp>
#include <pare/latent/cache.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "attention/attend_calls.hpp"
#include "attention/backends.hpp"
#include "attention/data.hpp"

namespace pare::testing {

/// Inputs whose values are the first `latent` numbers of their keys, of one head.
template <class S>
struct LatentInputs : Inputs<S> {
  Index latent, rope;

  LatentInputs(Index batch, Index heads, Index queries, Index keys, Index c, Index r,
               std::uint64_t seed = 1)
      : Inputs<S>(Sizes{batch, heads, 1, queries, keys, c + r, c}, seed), latent(c), rope(r) {
    for (Index b = 0; b < batch; ++b)
      for (Index j = 0; j < keys; ++j)
        for (Index i = 0; i < c; ++i) this->v(b, 0, j, i) = this->k(b, 0, j, i);
  }

  /// Rows [first, end) of a batch entry; their latents; their rotary keys.
  TensorView<const S, 2> rows(Index b, Index first, Index end) const {
    const Index width = latent + rope;
    return {&this->k(b, 0, 0, 0) + first * width, {end - first, width}, {width, 1}};
  }
  TensorView<const S, 2> latents(Index b, Index first, Index end) const {
    auto all = rows(b, first, end);
    all.extent[1] = latent;
    return all;
  }
  TensorView<const S, 2> ropes(Index b, Index first, Index end) const {
    auto all = rows(b, first, end);
    all.data += rope > 0 ? latent : 0;
    all.extent[1] = rope;
    return all;
  }
};

/// Fills every free page of a cache with NaN and gives all back in random order.
template <class Cache>
void poison(Cache& cache, std::uint64_t seed = 1) {
  const Index size = cache.table().page_size(), free = cache.table().free_pages();
  const std::vector<float> nan(static_cast<std::size_t>(size * cache.key_dim()),
                               std::numeric_limits<float>::quiet_NaN());
  std::vector<Index> sequences;
  for (Index i = 0; i < free; ++i) {
    sequences.push_back(cache.add());
    const auto row = [&](Index first, Index width) {
      return TensorView<const float, 2>{nan.data() + first, {size, width}, {cache.key_dim(), 1}};
    };
    if constexpr (std::is_same_v<typename Cache::scalar, double>) {
      const std::vector<double> wide(nan.begin(), nan.end());
      cache.append(
          sequences.back(),
          TensorView<const double, 2>{wide.data(), {size, cache.key_dim()}, {cache.key_dim(), 1}});
    } else {
      cache.append(sequences.back(), row(0, cache.latent()), row(0, cache.rope()));
    }
  }
  const Permutation order = Permutation::random(free, seed);
  for (Index i = 0; i < free; ++i) cache.release(sequences[static_cast<std::size_t>(order[i])]);
}

/// A cache that holds the first lengths[b] rows of batch entry b, which came in small pieces.
template <class Cache, class S>
Cache filled_cache(const LatentInputs<S>& x, const std::vector<Index>& lengths, Index page_size,
                   latent::RopeState state = latent::RopeState::Rotated, Index spare = 3) {
  const auto batch = static_cast<Index>(lengths.size());
  Index pages = spare;
  for (const Index n : lengths) pages += ceil_div(n, page_size);
  Cache cache({.latent = x.latent,
               .rope = x.rope,
               .pages = pages,
               .page_size = page_size,
               .sequences = batch,
               .rope_state = state});
  poison(cache);
  for (Index step = 0; step < x.sizes.keys; step += 5)
    for (Index b = 0; b < batch; ++b) {
      const Index end = std::min(step + 5, lengths[static_cast<std::size_t>(b)]);
      if (step < end) cache.append(b, x.latents(b, step, end), x.ropes(b, step, end));
    }
  return cache;
}

/// attend over a source, or with the same options over the tensors of the inputs.
template <class B, class S, class Source>
Outputs<S> attended_over(const B& backend, const LatentInputs<S>& x, const Source& source,
                         attention::AttendOptions options) {
  Outputs<S> y(x.sizes);
  options.lse = y.lse_view();
  if (!options.scale) options.scale = 1 / std::sqrt(static_cast<double>(x.sizes.key_dim));
  attention::attend(backend, x.q.view(), source, y.out.writable(), options);
  return y;
}

/// The bytes of a sequence's rows, one after the other.
template <class Cache>
std::vector<typename Cache::scalar> rows_of(const Cache& cache, Index sequence) {
  using S = typename Cache::scalar;
  std::vector<S> rows(static_cast<std::size_t>(cache.length(sequence) * cache.key_dim()));
  for (Index t = 0; t < cache.length(sequence); ++t) {
    S* const out = rows.data() + t * cache.key_dim();
    if constexpr (attention::LoadsKeys<Cache>)
      cache.load_key(sequence, 0, t, out);
    else
      std::copy_n(cache.key(sequence, 0, t), cache.key_dim(), out);
  }
  return rows;
}

}  // namespace pare::testing
