// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Where keys and values come from: tensors and paged caches; key_value_source.hpp has the concept.
///
/// ```cpp
/// const PagedKeyValue<float> cache{.keys = to_view(key_pages),      // [pages, kv heads, 16, dim]
///                                  .values = to_view(value_pages),
///                                  .table = to_view(table),         // [sequences, most pages]
///                                  .lengths = lengths};             // tokens per sequence
/// attend(pare::simd.threads(4), q, cache, out, {.causal = true});
/// ```
///
/// Attention over tensors makes its DenseKeyValue itself. A source views memory that the caller
/// keeps alive.

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value_source.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>

namespace pare::attention {

PARE_ABI_BEGIN

/// A view of token counts that the caller keeps alive: a span that takes no temporary vector.
struct TokenList : std::span<const Index> {
  TokenList() = default;
  template <class X>
  requires(std::convertible_to<X, std::span<const Index>> && !pare::detail::OwningRvalue<X> &&
           !std::is_same_v<std::remove_cvref_t<X>, TokenList>)
  TokenList(X&& list) : std::span<const Index>(list) {}
  template <class X>
  requires pare::detail::OwningRvalue<X>
  TokenList(X&&) = delete;
};

/// Keys [batch, kv heads, keys, key dim] and values [batch, kv heads, keys, value dim] in tensors.
template <StorageScalar T>
struct DenseKeyValue {
  using scalar = T;
  using row_runs_of = DenseKeyValue;

  TensorView<const T, 4> keys{};
  TensorView<const T, 4> values{};
  std::optional<TokenList> lengths{};  ///< [batch] keys in use; left out: all
  std::optional<TokenList> offsets{};  ///< [sequences + 1], packed in a batch of 1

  Index sequences() const {
    return offsets ? static_cast<Index>(offsets->size()) - 1 : keys.extent[0];
  }
  Index kv_heads() const { return keys.extent[1]; }
  Index key_dim() const { return keys.extent[3]; }
  Index value_dim() const { return values.extent[3]; }
  Index length(Index sequence) const {
    if (offsets) return at(*offsets, sequence + 1) - at(*offsets, sequence);
    return lengths ? at(*lengths, sequence) : keys.extent[2];
  }
  PARE_ALWAYS_INLINE const T* key(Index sequence, Index head, Index position) const {
    return row(keys, sequence, head, position);
  }
  PARE_ALWAYS_INLINE const T* value(Index sequence, Index head, Index position) const {
    return row(values, sequence, head, position);
  }

  /// All rows from `position` on.
  PARE_ALWAYS_INLINE RowRun<T> key_run(Index sequence, Index head, Index position) const {
    return {key(sequence, head, position), keys.stride[2], length(sequence) - position};
  }
  PARE_ALWAYS_INLINE RowRun<T> value_run(Index sequence, Index head, Index position) const {
    return {value(sequence, head, position), values.stride[2], length(sequence) - position};
  }

  /// \throws std::invalid_argument if shapes differ, a last dimension is not contiguous, lengths or
  /// offsets do not fit the tensors, or both are given.
  void validate(const char* function) const {
    check_extents<3>(function, "v", {values.extent[0], values.extent[1], values.extent[2]},
                     {keys.extent[0], keys.extent[1], keys.extent[2]});
    check_rows(function, "k", keys);
    check_rows(function, "v", values);
    if (offsets) {
      check(!lengths, function, "key_lengths", "lengths", "none with packed sequences");
      check(keys.extent[0] == 1, function, "k", keys.extent, "a batch of 1 for packed sequences");
      check_offsets(function, "key_offsets", *offsets, keys.extent[2]);
    }
    if (lengths) {
      check(static_cast<Index>(lengths->size()) == keys.extent[0], function, "key_lengths",
            lengths->size(), keys.extent[0]);
      for (const Index n : *lengths)
        check(n >= 0 && n <= keys.extent[2], function, "key_lengths", n,
              "lengths of at most the keys of the tensor");
    }
  }

  /// \throws std::invalid_argument if an output shares memory with the keys or the values.
  template <class O, std::size_t R>
  void check_apart(const char* function, const char* output, const TensorView<O, R>& out) const {
    check_no_overlap(function, output, out, "k", keys);
    check_no_overlap(function, output, out, "v", values);
  }

 private:
  static Index at(std::span<const Index> list, Index i) {
    return list[static_cast<std::size_t>(i)];
  }

  static void check_rows(const char* function, const char* name, const TensorView<const T, 4>& x) {
    check(x.extent[3] >= 1, function, name, x.extent, "a last dimension of at least 1");
    check(x.stride[3] == 1 || x.extent[3] == 1, function, name,
          "a stride in the last dimension other than 1", "contiguous rows");
    check_view(function, name, x);
  }

  PARE_ALWAYS_INLINE const T* row(const TensorView<const T, 4>& x, Index sequence, Index head,
                                  Index position) const {
    const Index batch = offsets ? 0 : sequence;
    const Index token = offsets ? at(*offsets, sequence) + position : position;
    return x.data + batch * x.stride[0] + head * x.stride[1] + token * x.stride[2];
  }
};

/// Keys and values in pages that a table puts in order: token t of sequence s is row t % page_size
/// of page table(s, t / page_size). If a call reads no token of a page, because its window has
/// passed all of them, the page's entry may hold anything, such as -1.
template <StorageScalar T>
struct PagedKeyValue {
  using scalar = T;
  using row_runs_of = PagedKeyValue;

  TensorView<const T, 4> keys{};              ///< [pages, kv heads, page size, key dim]
  TensorView<const T, 4> values{};            ///< [pages, kv heads, page size, value dim]
  TensorView<const std::int32_t, 2> table{};  ///< [sequences, most pages of one]
  TokenList lengths{};                        ///< [sequences] tokens

  Index sequences() const { return static_cast<Index>(lengths.size()); }
  Index kv_heads() const { return keys.extent[1]; }
  Index key_dim() const { return keys.extent[3]; }
  Index value_dim() const { return values.extent[3]; }
  Index length(Index sequence) const { return lengths[static_cast<std::size_t>(sequence)]; }
  PARE_ALWAYS_INLINE const T* key(Index sequence, Index head, Index position) const {
    return row(keys, sequence, head, position);
  }
  PARE_ALWAYS_INLINE const T* value(Index sequence, Index head, Index position) const {
    return row(values, sequence, head, position);
  }

  /// The rows from `position` to the end of its page.
  PARE_ALWAYS_INLINE RowRun<T> key_run(Index sequence, Index head, Index position) const {
    return {key(sequence, head, position), keys.stride[2],
            keys.extent[2] - position % keys.extent[2]};
  }
  PARE_ALWAYS_INLINE RowRun<T> value_run(Index sequence, Index head, Index position) const {
    return {value(sequence, head, position), values.stride[2],
            values.extent[2] - position % values.extent[2]};
  }

  /// \throws std::invalid_argument if shapes differ, a last dimension is not contiguous, a sequence
  /// is longer than its row of the table, or an entry that is in use names no page. Cost: one pass
  /// over the entries in use.
  void validate(const char* function) const {
    validate(function, [](Index) { return KeysRead{}; });
  }

  /// The same for a call that reads the keys read_of(sequence).
  template <class ReadOf>
  void validate(const char* function, const ReadOf& read_of) const {
    check_extents<3>(function, "values", {values.extent[0], values.extent[1], values.extent[2]},
                     {keys.extent[0], keys.extent[1], keys.extent[2]});
    check(keys.extent[2] >= 1, function, "keys", keys.extent, "a page size of at least 1");
    check(keys.extent[3] >= 1 && values.extent[3] >= 1, function, "keys", keys.extent,
          "a last dimension of at least 1");
    check(keys.stride[3] == 1 || keys.extent[3] == 1, function, "keys",
          "a stride in the last dimension other than 1", "contiguous rows");
    check(values.stride[3] == 1 || values.extent[3] == 1, function, "values",
          "a stride in the last dimension other than 1", "contiguous rows");
    check_view(function, "keys", keys);
    check_view(function, "values", values);
    check_view(function, "table", table);
    check(table.extent[0] == sequences(), function, "table", table.extent,
          "as many rows as there are lengths");
    for (Index s = 0; s < sequences(); ++s) check_sequence(function, s, read_of);
  }

  /// \throws std::invalid_argument if an output shares memory with the cache.
  template <class O, std::size_t R>
  void check_apart(const char* function, const char* output, const TensorView<O, R>& out) const {
    check_no_overlap(function, output, out, "keys", keys);
    check_no_overlap(function, output, out, "values", values);
    check_no_overlap(function, output, out, "table", table);
    check_no_overlap(function, output, out, "lengths",
                     TensorView<const Index, 1>{lengths.data(), {sequences()}, {1}});
  }

 private:
  template <class ReadOf>
  void check_sequence(const char* function, Index sequence, const ReadOf& read_of) const {
    const Index page = keys.extent[2], n = length(sequence);
    check(n >= 0 && ceil_div(n, page) <= table.extent[1], function, "lengths", n,
          "lengths that the table has pages for");
    check(n <= most_tokens, function, "lengths", n, "fewer than 2^30 tokens");
    const KeysRead read = read_of(sequence);
    for (Index i = 0; i < ceil_div(n, page); ++i) {
      const Index tokens = std::min(page, n - i * page);
      const bool unread = i * page >= read.sinks && read.first - i * page >= tokens;
      check(unread || (table(sequence, i) >= 0 && table(sequence, i) < keys.extent[0]), function,
            "table", std::array<Index, 3>{sequence, i, table(sequence, i)},
            Worded{"[sequence, place, page] with pages from 0 to below ", keys.extent[0]});
    }
  }

  PARE_ALWAYS_INLINE const T* row(const TensorView<const T, 4>& x, Index sequence, Index head,
                                  Index position) const {
    const Index page = table(sequence, position / x.extent[2]);
    return x.data + page * x.stride[0] + head * x.stride[1] + position % x.extent[2] * x.stride[2];
  }
};

PARE_ABI_END

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
