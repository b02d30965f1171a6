// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The heads of a RaggedCache as sources of keys and values: one alone, or some as the sequences of
/// a paged source of one kv head (Tangram's virtual pages).
///
/// ```cpp
/// attention::attend(q, cache.head(3), out);                          // heads of kv head 3 alone
/// HeadPages room;
/// const auto heads = paged_heads(cache, 0, cache.kv_heads(), 0, cache.sequences(), room);
/// attention::attend_heads(q, heads, out);                            // all, each with its length
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pare::latent {

PARE_ABI_BEGIN

template <StorageScalar S>
class RaggedCache;

/// One kv head of a RaggedCache, as a KeyValueSource of one head; valid while the cache is.
template <StorageScalar S>
struct RaggedHead {
  using scalar = S;

  const RaggedCache<S>* cache = nullptr;
  Index group = 0;
  Index column = 0;

  Index sequences() const { return cache->sequences(); }
  Index kv_heads() const { return 1; }
  Index key_dim() const { return cache->key_dim(); }
  Index value_dim() const { return cache->value_dim(); }
  Index length(Index sequence) const { return cache->length(sequence, group); }
  PARE_ALWAYS_INLINE const S* key(Index sequence, Index, Index n) const {
    return cache->key(sequence, group, column, n);
  }
  PARE_ALWAYS_INLINE const S* value(Index sequence, Index, Index n) const {
    return cache->value(sequence, group, column, n);
  }
  void validate(const char*) const {}
  template <class O, std::size_t Rank>
  void check_apart(const char* function, const char* output, const TensorView<O, Rank>& out) const {
    cache->check_apart(function, output, out);
  }
};

/// The memory of paged_heads.
struct HeadPages {
  std::vector<std::int32_t> table{};  ///< [heads of all sequences, most pages] virtual pages
  std::vector<Index> lengths{};       ///< [heads of all sequences]
};

/// Heads [first, first + heads) of sequences [sequence, sequence + sequences) of a cache, sequence
/// by sequence. Not checked; valid until the cache or `room` changes.
///
/// Cost: a few nanoseconds per page.
template <StorageScalar S>
attention::PagedKeyValue<S> paged_heads(const RaggedCache<S>& cache, Index first, Index heads,
                                        Index sequence, Index sequences, HeadPages& room) {
  const Index page = cache.table().page_size();
  const auto group = [&](Index i) { return cache.group_of(first + i % heads); };
  const auto in_sequence = [&](Index i) { return sequence + i / heads; };
  Index most = 0;
  room.lengths.clear();
  for (Index i = 0; i < sequences * heads; ++i) {
    room.lengths.push_back(cache.length(in_sequence(i), group(i)));
    most = std::max(most, ceil_div(room.lengths.back(), page));
  }
  room.table.clear();
  for (Index i = 0; i < sequences * heads; ++i) {
    const Index pages = ceil_div(room.lengths[static_cast<std::size_t>(i)], page);
    for (Index p = 0; p < most; ++p)
      room.table.push_back(
          p < pages ? static_cast<std::int32_t>(cache.virtual_page(in_sequence(i), group(i), p) +
                                                cache.column_of(first + i % heads))
                    : -1);
  }
  const auto one_head = [](const TensorView<const S, 3>& x) {
    return TensorView<const S, 4>{x.data,
                                  {x.extent[0], 1, x.extent[1], x.extent[2]},
                                  {x.stride[0], x.stride[0], x.stride[1], x.stride[2]}};
  };
  return {.keys = one_head(cache.key_pages()),
          .values = one_head(cache.value_pages()),
          .table = {room.table.data(), {sequences * heads, most}, {most, 1}},
          .lengths = room.lengths};
}

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
