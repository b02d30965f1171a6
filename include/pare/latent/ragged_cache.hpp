// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A paged cache whose kv heads keep different numbers of tokens (Tangram): heads that need few
/// tokens are in groups with others that do, and each group has pages and a length of its own.
///
/// ```cpp
/// RaggedCache<float> cache({.kv_heads = 8, .group = 2, .key_dim = 64, .value_dim = 64,
///                           .pages = 4096, .order = heads_by_retention});
/// cache.append(0, k, v);                   // [kv heads, tokens, 64], to all groups
/// cache.keep(0, 3, positions_to_keep);     // group 3 drops the others; see keep_budget.hpp
/// attend_ragged(q, cache, out, {.causal = true});
/// ```
///
/// Pages are [group, page size, dim]: page p of column c is virtual page p group + c, so that what
/// reads one kv head in pages reads any head of the cache (`head`). A group's pages are those of a
/// sequence of its own in one PageTable, from which all groups take.
///
/// The n-th token of a group is its n-th kept one. Keys are stored as they came: rotated keys keep
/// the angles of their positions, and a causal mask still holds for tokens that were appended last,
/// because all that were kept are older. Windows and biases would count kept tokens.
///
/// Source: Tangram, arXiv 2606.06302, from its code (ragged_layout.py, head_group_clustering).
/// Ours: forks, and any lists of tokens to keep. Which tokens to keep is decided by
/// attention::keep_tokens; keep_budget (keep_budget.hpp) carries that out.

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value_source.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/cache_options.hpp>
#include <pare/latent/detail/head_rows.hpp>
#include <pare/latent/pages.hpp>
#include <pare/latent/ragged_heads.hpp>
#include <pare/latent/ragged_options.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace pare::latent {

PARE_ABI_BEGIN

/// Keys and values of all heads, in groups. It can be moved, not copied.
///
/// Memory: pages page_size group (key dim + value dim) elements of S, taken once, and the
/// PageTable.
template <StorageScalar S>
class RaggedCache {
 public:
  using scalar = S;

  /// \throws std::invalid_argument if a size is out of its range, the group is no divisor, the
  ///         order does not have each head once, or memory cannot be counted
  explicit RaggedCache(const RaggedCacheOptions& options)
      : group_(options.validate(class_name).group),
        heads_(options.kv_heads),
        table_(options.pages, options.page_size, class_name),
        rows_(class_name, options.pages, group_, options.page_size, options.key_dim,
              options.value_dim),
        slots_(options.slots()) {
    for (Index i = 0; i < options.sequences; ++i) add();
  }

  Index kv_heads() const { return heads_; }
  Index groups() const { return heads_ / group_; }
  Index key_dim() const { return rows_.keys().width(); }
  Index value_dim() const { return rows_.values().width(); }
  Index sequences() const { return table_.sequences() / groups(); }
  /// Tokens that a group keeps of a sequence.
  Index length(Index sequence, Index group) const { return table_.length(list(sequence, group)); }
  /// The group of a head, and its column there.
  Index group_of(Index head) const { return slot(head) / group_; }
  Index column_of(Index head) const { return slot(head) % group_; }
  /// Which page holds what: group g of sequence s is sequence s groups() + g of it.
  const PageTable& table() const { return table_; }

  /// An empty sequence.
  Index add() {
    const Index first = table_.add();
    for (Index g = 1; g < groups(); ++g) table_.add();
    return first / groups();
  }
  /// A sequence with all tokens of another, in the same pages.
  /// \throws std::invalid_argument if there is no such sequence
  Index fork(Index sequence) {
    check_sequence("latent::RaggedCache::fork", sequence);
    const Index first = table_.fork(list(sequence, 0));
    for (Index g = 1; g < groups(); ++g) table_.fork(list(sequence, g));
    return first / groups();
  }
  /// Ends a sequence. \throws std::invalid_argument if there is no such sequence
  void release(Index sequence) {
    check_sequence("latent::RaggedCache::release", sequence);
    for (Index g = groups(); g-- > 0;) table_.release(list(sequence, g));
  }

  /// Appends tokens to all groups of a sequence.
  ///
  /// \param keys   [kv heads, tokens, key dim] of S or what S is computed in, any strides
  /// \param values [kv heads, tokens, value dim], likewise; both apart from the cache
  /// \throws std::invalid_argument if a shape does not fit, the sequence does not exist, an input
  ///         lies in the cache, or there are too few free pages for all groups. Nothing is written
  ///         then.
  template <In<3> K, In<3> V>
  requires(CacheScalar<scalar_of<K>, S> && CacheScalar<scalar_of<V>, S>)
  void append(Index sequence, const K& keys, const V& values) {
    append_views(sequence, as_const(to_view(keys)), as_const(to_view(values)));
  }
  PARE_REFUSE_CALLS(append, "latent::RaggedCache::append",
                    "wanted a sequence, and keys and values of the cache's scalar or of what it is "
                    "computed in; there is no backend",
                    (ANY, (roles::TakesAny), "sequence", "a number"),
                    (INPUT, (roles::Reads<3>), "keys", "[kv heads, tokens, key dim]"),
                    (INPUT, (roles::Reads<3>), "values", "[kv heads, tokens, value dim]"))

  /// Room for tokens in all groups, whose rows `store` writes head by head, as where the layers of
  /// a model share a cache.
  /// \throws std::invalid_argument as `append`. Nothing is changed then.
  void grow(Index sequence, Index tokens) {
    check_sequence("latent::RaggedCache::grow", sequence);
    grow_checked("latent::RaggedCache::grow", sequence, tokens);
  }
  /// Writes the last tokens of heads [first, first + heads).
  /// \param keys, values [heads, tokens, dim], as of `append`
  /// \throws std::invalid_argument as `append`, or if there are not as many heads or tokens, or a
  ///         fork shares them. Nothing is written then.
  template <In<3> K, In<3> V>
  requires(CacheScalar<scalar_of<K>, S> && CacheScalar<scalar_of<V>, S>)
  void store(Index sequence, Index first, const K& keys, const V& values) {
    store_checked(sequence, first, as_const(to_view(keys)), as_const(to_view(values)));
  }

  /// Keeps of a group the tokens of a list, and gives back the pages that become free.
  /// \param tokens which of the length(sequence, group) tokens, ascending
  /// \throws std::invalid_argument if there is no such sequence or group, the list is not ascending
  ///         or names a token that is not there, or there are too few free pages for copies of
  ///         those that a fork shares. Nothing is changed then.
  void keep(Index sequence, Index group, std::span<const Index> tokens) {
    keep_lists("latent::RaggedCache::keep", sequence, group,
               {tokens.data(), {group_, static_cast<Index>(tokens.size())}, {0, 1}});
  }

  /// The same with a list for each head of the group, all of one length.
  /// \param tokens [heads of a group, kept tokens] by column, each row ascending
  /// \throws std::invalid_argument as `keep`, or if there is not one row per head of the group.
  ///         Nothing is changed then.
  void keep_heads(Index sequence, Index group, TensorView<const Index, 2> tokens) {
    keep_lists("latent::RaggedCache::keep_heads", sequence, group, tokens);
  }

  /// Forgets the last tokens of all groups, such as drafted ones that were refused.
  /// \throws std::invalid_argument if there is no such sequence, or a group has fewer. Nothing is
  ///         changed then.
  void drop_last(Index sequence, Index tokens) {
    constexpr const char* function = "latent::RaggedCache::drop_last";
    check_sequence(function, sequence);
    for (Index g = 0; g < groups(); ++g)
      check(tokens >= 0 && tokens <= length(sequence, g), function, "tokens", tokens,
            Worded{"from 0 to the ", length(sequence, g), " tokens of a group"});
    for (Index g = 0; g < groups(); ++g)
      table_.truncate(list(sequence, g), length(sequence, g) - tokens);
  }

  /// A kv head, 0 <= head < kv_heads(); not checked.
  RaggedHead<S> head(Index h) const { return {this, group_of(h), column_of(h)}; }

  /// All pages, [pages * group, page size, dim]: page p of column c is virtual page p group + c.
  TensorView<const S, 3> key_pages() const { return rows_.keys().all(); }
  TensorView<const S, 3> value_pages() const { return rows_.values().all(); }
  /// The virtual page of column 0 of a group's p-th page; not checked.
  Index virtual_page(Index sequence, Index group, Index p) const {
    return table_.page(list(sequence, group), p) * group_;
  }
  /// The n-th token that a group keeps, of the head in a column; not checked.
  PARE_ALWAYS_INLINE const S* key(Index sequence, Index group, Index column, Index n) const {
    return rows_.keys().row(row(list(sequence, group), column, n));
  }
  PARE_ALWAYS_INLINE const S* value(Index sequence, Index group, Index column, Index n) const {
    return rows_.values().row(row(list(sequence, group), column, n));
  }

  /// \throws std::invalid_argument if an output shares memory with the cache
  template <class O, std::size_t Rank>
  void check_apart(const char* function, const char* output, const TensorView<O, Rank>& out) const {
    rows_.check_apart(function, output, out);
  }

 private:
  static constexpr const char* class_name = "latent::RaggedCache";
  static constexpr const char* append_name = "latent::RaggedCache::append";
  static constexpr const char* store_name = "latent::RaggedCache::store";

  Index slot(Index head) const { return slots_[static_cast<std::size_t>(head)]; }
  Index list(Index sequence, Index group) const { return sequence * groups() + group; }
  PARE_ALWAYS_INLINE PageRow row(Index at, Index column, Index n) const {
    return rows_.of_column(table_.row(at, n), column);
  }

  /// A stride of 0 from row to row is one list for all heads.
  void keep_lists(const char* function, Index sequence, Index group,
                  const TensorView<const Index, 2>& tokens) {
    check_sequence(function, sequence);
    check(group >= 0 && group < groups(), function, "group", group, Worded{"below ", groups()});
    check_view(function, "tokens", tokens);
    const Index n = tokens.extent[1];
    check_extents<2>(function, "tokens", tokens.extent, {group_, n});
    Index same = n;  // the first of them stay where they are
    const Index rows = tokens.stride[0] == 0 ? 1 : group_;
    for (Index c = 0; c < rows; ++c) {
      detail::check_ascending(function, tokens, c, length(sequence, group));
      Index i = 0;
      while (i < same && tokens(c, i) == i) ++i;
      same = i;
    }
    const Index at = list(sequence, group);
    if (same < n)
      for (const PageCopy& page : table_.unshare(at, same, function)) rows_.copy(page);
    for (Index c = 0; c < group_; ++c)
      for (Index i = same; i < n; ++i)
        rows_.move(c, table_.row(at, i), table_.row(at, tokens(c, i)));
    table_.truncate(at, n);
  }

  void check_sequence(const char* function, Index sequence) const {
    check(sequence >= 0 && sequence < sequences() && table_.has(list(sequence, 0)), function,
          "sequence", sequence, Worded{"a sequence in use, below ", sequences()});
  }

  template <class K, class V>
  void append_views(Index sequence, TensorView<const K, 3> keys, TensorView<const V, 3> values) {
    check_sequence(append_name, sequence);
    rows_.check_given(append_name, keys, values);
    check_extents<3>(append_name, "keys", keys.extent, {heads_, keys.extent[1], key_dim()});
    grow_checked(append_name, sequence, keys.extent[1]);
    store_views(sequence, 0, keys, values);
  }

  template <class K, class V>
  void store_checked(Index sequence, Index first, TensorView<const K, 3> keys,
                     TensorView<const V, 3> values) {
    check_sequence(store_name, sequence);
    rows_.check_given(store_name, keys, values);
    const Index heads = keys.extent[0], tokens = keys.extent[1];
    check(first >= 0 && first <= heads_ && heads <= heads_ - first, store_name, "first", first,
          Worded{"heads of the ", heads_, " of the cache"});
    for (Index h = first; h < first + heads; ++h) {
      const Index at = list(sequence, group_of(h)), n = table_.length(at);
      check(tokens <= n, store_name, "keys", tokens,
            Worded{"at most the ", n, " tokens there are"});
      for (Index t = n - tokens; t < n; t += table_.page_size() - t % table_.page_size())
        check(table_.sharers(table_.row(at, t).page) == 1, store_name, "sequence", sequence,
              "tokens that no fork shares");
    }
    store_views(sequence, first, keys, values);
  }

  void grow_checked(const char* function, Index sequence, Index tokens) {
    Index wanted = 0;
    for (Index g = 0; g < groups(); ++g) {
      table_.check_append(function, list(sequence, g), tokens);
      wanted += table_.pages_for(list(sequence, g), tokens);
    }
    check(wanted <= table_.free_pages(), function, "tokens",
          Worded{"tokens that take ", wanted, " pages"},
          Worded{"at most the ", table_.free_pages(), " free pages"});
    for (Index g = 0; g < groups(); ++g) {
      const Appended added = table_.append(list(sequence, g), tokens, function);
      if (added.copy) rows_.copy(*added.copy);
    }
  }

  template <class K, class V>
  void store_views(Index sequence, Index first, const TensorView<const K, 3>& keys,
                   const TensorView<const V, 3>& values) const {
    for (Index h = 0; h < keys.extent[0]; ++h) {
      const Index at = list(sequence, group_of(first + h)), column = column_of(first + h);
      const Index begin = table_.length(at) - keys.extent[1];
      for (Index t = 0; t < keys.extent[1]; ++t)
        rows_.store(keys, values, h, t, row(at, column, begin + t));
    }
  }

  Index group_, heads_;
  PageTable table_;
  detail::HeadRows<S> rows_;
  std::vector<Index> slots_;  ///< of each head: group group_ + column
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
