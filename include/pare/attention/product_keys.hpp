// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Keys by product quantisation (SPT): each query lists the K keys whose codes agree most with its
/// own.
///
/// ```cpp
/// const auto book = train_codebook(q, k);                        // product_codebook.hpp
/// KeyLists lists = select_keys(q, k, book, {.keys = 1024});      // causal unless told otherwise
/// attend(q, k, v, out, lists, {.causal = true});                 // attend_key_lists.hpp
/// attend(q, k, v, out, lists, ClampScores{}, {.causal = true});  // the paper's clamp to +-10
///
/// const ProductCodes q_codes = encode(q, book), k_codes = encode(k, book);  // step by step
/// select_keys(q_codes, k_codes, {.keys = 1024}, lists);
/// const ProductKeyBytes bytes = product_key_bytes(book, q_codes, k_codes, lists);
/// ```
///
/// Similarity of query i and key j is the number of sub-spaces in which their codes are equal, 0 to
/// M. A query lists the K keys of the largest similarity among those that it may see; one that may
/// see fewer lists them all, once each.
///
/// Source: SPT, arXiv 2312.10365, and its code (K = keys / 8). Ours: counts are ranked exactly,
/// where the code has 4 buckets of them; of equal counts the later keys are taken, where the code
/// takes them as its threads come; rows with fewer than K keys list those, where the code leaves
/// slots at 0 and so attends to key 0 many times; any number of tokens and any width that divides
/// the head dim; the softmax is exact unless `ClampScores` is asked for, whose sum needs no floor.

#include <pare/core/macros_off.hpp>

#include <pare/attention/detail/head_of.hpp>
#include <pare/attention/detail/select_by_codes.hpp>
#include <pare/attention/key_lists.hpp>
#include <pare/attention/product_codebook.hpp>
#include <pare/attention/score_modifier.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::attention {

/// What `select_keys` lists.
struct ProductKeyOptions {
  /// Keys of a query, at least 1; more than there are is all of them. Left out: an eighth of the
  /// keys, rounded up (the paper's share).
  std::optional<Index> keys{};
  /// Whether a query lists no key behind its position (the last query beside the last key).
  bool causal = true;
};

/// Bytes of a selection, and of what it stands for.
struct ProductKeyBytes {
  Index codebook = 0;
  Index codes = 0;      ///< of queries and keys
  Index lists = 0;      ///< offsets and keys
  Index scores = 0;     ///< one number a listed pair, as training keeps them; `attend` keeps none
  Index dense_map = 0;  ///< the scores of all pairs
};

PARE_ABI_BEGIN

/// Codes of rows, [batch, heads, tokens, subspaces], each below 16.
struct ProductCodes {
  std::array<Index, 4> extent{};
  std::vector<std::uint8_t> codes;

  /// Those of a head, [tokens, subspaces].
  const std::uint8_t* of(Index batch, Index head) const {
    return codes.data() + (batch * extent[1] + head) * extent[2] * extent[3];
  }
};

PARE_ABI_END

namespace detail {

/// Roles for refused_call.hpp: a codebook of what the first argument is computed in, and codes in
/// the place of tensors.
struct TakesCodebook {
  static constexpr bool counts = false;
  template <class A, class S>
  static consteval roles::Wrong wrong() {
    if constexpr (std::is_void_v<typename S::first>)
      return roles::right;
    else
      return std::is_same_v<std::remove_cvref_t<A>, ProductCodebook<compute_t<typename S::first>>>
                 ? roles::right
                 : roles::no_memory;
  }
};
template <class X>
using IsCodes = std::is_same<std::remove_cvref_t<X>, ProductCodes>;

}  // namespace detail
PARE_ABI_BEGIN

/// The codes of x [batch, heads, tokens, dim].
///
/// \param book of dim scalars, with 1 head or a number of heads that divides that of x: query heads
///             share the codewords of their key/value head
/// \throws std::invalid_argument if the shapes do not fit, or sizes overflow
///
/// Distances are summed in T: where two words are as near as their rounding, backends may differ. A
/// row with a NaN has the code 0. Cost: 48 operations a scalar. Memory: a byte a code, and per
/// thread a block of rows by columns. The same bits for any number of threads.
template <Backend B, In<4> X, ComputeScalar T>
requires std::is_same_v<compute_t<scalar_of<X>>, T>
ProductCodes encode(const B& backend, const X& x, const ProductCodebook<T>& book) {
  const char* const name = "attention::encode";
  const auto rows = as_const(to_view(x));
  const auto& shape = book.shape();
  check_view(name, "x", rows);
  check(rows.extent[3] == shape.dim() && shape.dim() > 0, name, "x", rows.extent,
        Worded{"the dim of the codebook, ", shape.dim()});
  check(rows.extent[1] % shape.heads == 0, name, "x", rows.extent,
        Worded{"a multiple of the ", shape.heads, " heads of the codebook"});
  ProductCodes out{{rows.extent[0], rows.extent[1], rows.extent[2], shape.subspaces}, {}};
  const Index heads = checked_product(name, "x", rows.extent[0], rows.extent[1]);
  const Index size = checked_product(name, "x", rows.extent[2], shape.subspaces);
  out.codes.resize(static_cast<std::size_t>(checked_product(name, "x", heads, size)));
  if (out.codes.empty()) return out;
  const auto encode_one = [&](Index item, int) {
    const Index b = item / rows.extent[1], h = item % rows.extent[1];
    detail::encode_head(backend, detail::head_of(rows, b, h),
                        book.of(h / (rows.extent[1] / shape.heads)), shape.subspaces, shape.width,
                        out.codes.data() + item * size);
  };
  if constexpr (KernelBackend<B>)
    parallel_for(on_any_executor(backend).executor, heads, encode_one);
  else
    for (Index item = 0; item < heads; ++item) encode_one(item, 0);
  return out;
}

/// \overload
template <In<4> X, ComputeScalar T>
requires std::is_same_v<compute_t<scalar_of<X>>, T>
ProductCodes encode(const X& x, const ProductCodebook<T>& book) {
  return encode(simd, x, book);
}

PARE_REFUSE_CALLS(encode, "attention::encode", "after book: wanted nothing",
                  (INPUT, (roles::Reads<4>), "x", "[batch, heads, tokens, dim]"),
                  (PLAIN, (detail::TakesCodebook), "book",
                   "a ProductCodebook of what x is computed in"))

/// Lists of the keys whose codes agree most, from codes of queries and keys.
///
/// \param q     codes [batch, heads, queries, subspaces]
/// \param k     codes [batch, kv heads, keys, subspaces]
/// \param lists written: of every batch entry and query head. Their memory is used again
/// \throws std::invalid_argument if shapes or options do not fit, or a code is 16 or more. Lists
///         are then as before
///
/// Cost: M log2 M operations for 512 keys of a query, and writing the lists, 4 bytes a listed key,
/// which binds where they outgrow the caches. Memory: the lists, a bit for each key, sub-space and
/// code, and per thread about 2 bytes a key. The same lists on every backend and any number of
/// threads.
template <Backend B>
void select_keys(const B& backend, const ProductCodes& q, const ProductCodes& k,
                 const ProductKeyOptions& options, KeyLists& lists) {
  const char* const name = "attention::select_keys";
  detail::check_codes(name, "q", q);
  detail::check_codes(name, "k", k);
  const Index subspaces = q.extent[3], kv_heads = k.extent[1];
  check(q.extent[0] == k.extent[0] && subspaces == k.extent[3], name, "q", q.extent,
        "the batch and the sub-spaces of k");
  check(kv_heads >= 1 ? q.extent[1] % kv_heads == 0 : q.extent[1] == 0, name, "q", q.extent,
        Worded{"a multiple of the ", kv_heads, " key/value heads as heads"});
  const Index eighth = std::max<Index>(1, k.extent[2] / 8 + (k.extent[2] % 8 != 0 ? 1 : 0));
  const Index per_row = options.keys.value_or(eighth);
  check(per_row >= 1, name, "keys", per_row, "at least 1");
  const KeyLists::Shape shape{q.extent[0], q.extent[1], q.extent[2], k.extent[2], options.causal};
  const std::span<std::int32_t> all = detail::KeyListMaker::start(lists, name, shape, per_row);
  if (all.empty()) return;
  if constexpr (KernelBackend<B>)
    detail::run_select(on_any_executor(backend), q, k, lists, all);
  else
    detail::reference_select_all(q, k, lists, all);
}

/// \overload
inline void select_keys(const ProductCodes& q, const ProductCodes& k,
                        const ProductKeyOptions& options, KeyLists& lists) {
  select_keys(simd, q, k, options, lists);
}

/// The same from queries and keys themselves.
///
/// \param q    [batch, heads, queries, dim]
/// \param k    [batch, kv heads, keys, dim]
/// \param book of 1 head or of the kv heads
/// \throws std::invalid_argument as `encode` and the call above
template <Backend B, In<4> Q, In<4> K, ComputeScalar T>
requires(SameScalar<Q, K> && std::is_same_v<compute_t<scalar_of<Q>>, T>)
KeyLists select_keys(const B& backend, const Q& q, const K& k, const ProductCodebook<T>& book,
                     const ProductKeyOptions& options = {}) {
  KeyLists lists;
  select_keys(backend, encode(backend, q, book), encode(backend, k, book), options, lists);
  return lists;
}

/// \overload
template <In<4> Q, In<4> K, ComputeScalar T>
requires(SameScalar<Q, K> && std::is_same_v<compute_t<scalar_of<Q>>, T>)
KeyLists select_keys(const Q& q, const K& k, const ProductCodebook<T>& book,
                     const ProductKeyOptions& options = {}) {
  return select_keys(simd, q, k, book, options);
}

PARE_REFUSE_CALLS(select_keys, "attention::select_keys",
                  "after book: wanted ProductKeyOptions, members spelt and ordered as declared",
                  (INPUT, (roles::Unless<roles::Reads<4>, detail::IsCodes, roles::other_call>), "q",
                   "[batch, heads, queries, dim]"),
                  (INPUT, (roles::ReadsSame<4>), "k", "[batch, kv heads, keys, dim]"),
                  (PLAIN, (detail::TakesCodebook), "book",
                   "a ProductCodebook of what q is computed in"))

/// What a selection of these codes holds in memory, and what a dense map of scores in T would.
template <ComputeScalar T>
ProductKeyBytes product_key_bytes(const ProductCodebook<T>& book, const ProductCodes& q,
                                  const ProductCodes& k, const KeyLists& lists) {
  const KeyLists::Shape& s = lists.shape();
  constexpr Index size = sizeof(T);
  return {static_cast<Index>(book.words().size()) * size,
          static_cast<Index>(q.codes.size() + k.codes.size()), lists.bytes(), lists.listed() * size,
          s.batch * s.heads * s.queries * s.keys * size};
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
