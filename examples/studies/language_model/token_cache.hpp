// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a model asks of a cache that attends by itself, and tokens that are taken back if a call
/// fails.
///
/// ```cpp
/// Appended appended(cache, tokens);
/// ...                     // throws: the cache is as before
/// appended.kept = true;
/// ```

#include "language_model/cache_attention.hpp"

#include <type_traits>

namespace language_model {

/// A cache that makes attention of what a block's attention is given, h [tokens, dim], and appends
/// what it keeps of it: attend(backend, layer, h, out [tokens, heads x head dim]). latent_kv.hpp
/// has one. `append`, before it, and `truncate` are as KvCache's.
template <class C>
concept AttendingCache = requires(C& cache, const ModelBackend& backend, Index n,
                                  TensorView<const float, 2> h, TensorView<float, 2> out) {
  cache.attend(backend, n, h, out);
  cache.append(n);
  cache.truncate(n);
};

/// Stands where an Attention would, for a cache that attends.
struct ByCache {};

/// How a model attends over a cache.
template <class C>
using AttentionOf = std::conditional_t<AttendingCache<C>, ByCache, Attention>;

template <class C>
AttentionOf<C> standard_attention() {
  if constexpr (AttendingCache<C>)
    return {};
  else
    return exact_attention;
}

/// Tokens that a call appended; forgotten again unless the call ends well.
template <class C>
struct Appended {
  Appended(C& to, Index tokens) : cache(to), before(to.length()) { cache.append(tokens); }
  Appended(const Appended&) = delete;
  Appended& operator=(const Appended&) = delete;
  ~Appended() {
    if (!kept) cache.truncate(before);
  }

  C& cache;
  Index before;
  bool kept = false;
};

}  // namespace language_model
