// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Codes of rows, and key lists by agreeing codes: by kernels, and by their definitions.

#include <pare/attention/detail/train_codebook.hpp>
#include <pare/attention/key_lists.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/product_codes.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace pare::attention::detail {

/// Makes lists whose keys are right by construction.
struct KeyListMaker {
  /// Rows of the lists get `per_row` keys each, or those that they may list; returns room for them,
  /// in the memory that the lists have.
  static std::span<std::int32_t> start(KeyLists& lists, const char* name,
                                       const KeyLists::Shape& shape, Index per_row) {
    const Index rows = KeyLists::checked_rows(name, shape);
    checked_product(name, "keys", rows,
                    std::min(per_row, shape.keys) * Index{sizeof(std::int32_t)});
    lists.shape_ = shape;
    lists.offsets_.resize(static_cast<std::size_t>(rows) + 1);
    Index end = 0;
    for (Index r = 0; r < rows; ++r) {
      lists.offsets_[static_cast<std::size_t>(r)] = end;
      end += std::min(per_row, shape.listable(r % shape.queries));
    }
    lists.offsets_.back() = end;
    lists.keys_.resize(static_cast<std::size_t>(end));
    return lists.keys_;
  }
};

PARE_ABI_BEGIN

/// Codes of the rows of one head, [tokens, subspaces].
template <class B, class S, class T>
void encode_head(const B& backend, TensorView<const S, 2> x, const T* words, Index subspaces,
                 Index width, std::uint8_t* codes) {
  if constexpr (KernelBackend<B>) {
    constexpr Index n = kernel::encoded_rows;
    const Index dim = subspaces * width;
    AlignedBuffer<T> lanes(static_cast<std::size_t>(dim * n));
    std::fill_n(lanes.data(), dim * n, T(0));
    for (Index first = 0; first < x.rows(); first += n) {
      const Index rows = std::min(n, x.rows() - first);
      for (Index i = 0; i < rows; ++i)
        for (Index c = 0; c < dim; ++c) lanes.data()[c * n + i] = static_cast<T>(x(first + i, c));
      launch(backend, kernel::EncodeRows<T>{lanes.data(), words, subspaces, width, rows,
                                            codes + first * subspaces});
    }
  } else {
    std::vector<double> row(static_cast<std::size_t>(width));
    for (Index i = 0; i < x.rows(); ++i)
      for (Index s = 0; s < subspaces; ++s) {
        for (Index c = 0; c < width; ++c)
          row[static_cast<std::size_t>(c)] = reference_value(x(i, s * width + c));
        codes[i * subspaces + s] = static_cast<std::uint8_t>(
            nearest_word(row.data(), words + s * kernel::product_codewords * width, width));
      }
  }
}

/// For each sub-space and code the keys that have it, as bitmaps.
class CodeBitmaps {
 public:
  CodeBitmaps() = default;

  void set(std::span<const std::uint8_t> codes, Index keys, Index subspaces) {
    words_ = kernel::code_words(keys);
    bits_.assign(static_cast<std::size_t>(subspaces * kernel::product_codewords * words_), 0);
    for (Index j = 0; j < keys; ++j)
      for (Index s = 0; s < subspaces; ++s)
        *at(s, codes[static_cast<std::size_t>(j * subspaces + s)], j / 64) |= std::uint64_t{1}
                                                                              << (j % 64);
  }
  const std::uint64_t* of(Index subspace, std::uint8_t code) const {
    return bits_.data() + (subspace * kernel::product_codewords + code) * words_;
  }

 private:
  std::uint64_t* at(Index subspace, std::uint8_t code, Index word) {
    return bits_.data() + (subspace * kernel::product_codewords + code) * words_ + word;
  }

  Index words_ = 0;
  std::vector<std::uint64_t> bits_;
};

/// What a call of select_keys keeps in a workspace.
struct SelectMemory {
  std::vector<CodeBitmaps> bitmaps;  ///< of each (batch, key/value head)
  std::vector<AlignedBuffer<std::byte>> workers;
};

/// The definition: keys by falling number of equal codes, of equal numbers the later key first.
inline void reference_select(const std::uint8_t* query, const std::uint8_t* keys, Index subspaces,
                             Index visible, std::span<std::int32_t> list) {
  std::vector<Index> equal(static_cast<std::size_t>(visible), 0);
  for (Index j = 0; j < visible; ++j)
    for (Index s = 0; s < subspaces; ++s)
      equal[static_cast<std::size_t>(j)] += query[s] == keys[j * subspaces + s] ? 1 : 0;
  std::vector<std::int32_t> order(static_cast<std::size_t>(visible));
  std::iota(order.rbegin(), order.rend(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return equal[static_cast<std::size_t>(a)] > equal[static_cast<std::size_t>(b)];
  });
  std::copy_n(order.begin(), list.size(), list.begin());
  std::sort(list.begin(), list.end());
}

/// Queries of an item.
inline constexpr Index select_queries = 64;

/// Lists of the queries [begin, end) of a head.
template <class B>
void select_queries_of(const B& backend, const std::uint8_t* codes, const CodeBitmaps& bitmaps,
                       Index subspaces, const KeyLists& lists, Index row, Index begin, Index end,
                       std::span<std::int32_t> all, AlignedBuffer<std::byte>& memory) {
  const KeyLists::Shape& shape = lists.shape();
  std::uint64_t* planes = nullptr;
  std::int32_t* keys = nullptr;
  const std::uint64_t** rows = nullptr;
  carve_from(memory, [&](Carver& take) {
    take(planes, (kernel::most_code_planes + 2) * kernel::code_words(shape.keys));
    take(keys, shape.keys + kernel::code_room);
    take(rows, subspaces);
  });
  const Index last = lists.offsets()[static_cast<std::size_t>(row + end)];
  for (Index query = begin; query < end; ++query) {
    const auto r = static_cast<std::size_t>(row + query);
    const Index at = lists.offsets()[r], wanted = lists.offsets()[r + 1] - at;
    const Index visible = shape.listable(query);
    std::int32_t* const list = all.data() + at;
    if (wanted == visible) {
      std::iota(list, list + wanted, 0);
      continue;
    }
    for (Index s = 0; s < subspaces; ++s) rows[s] = bitmaps.of(s, codes[query * subspaces + s]);
    // What is written behind a list is of later ones of this item, or goes beside them.
    const bool in_place = at + wanted + kernel::code_room <= last;
    std::int32_t* const to = in_place ? list : keys;
    launch(backend, kernel::SelectByCodes{rows, subspaces, visible, wanted, planes, to});
    if (!in_place) std::copy_n(keys, wanted, list);
  }
}

template <class Codes>
void check_codes(const char* name, const char* argument, const Codes& x) {
  Index size = x.extent[3];
  for (std::size_t d = 0; d < 3; ++d) size = checked_product(name, argument, size, x.extent[d]);
  check(static_cast<Index>(x.codes.size()) == size, name, argument, x.codes.size(), size);
  check(x.extent[3] >= 1 && x.extent[3] <= 255, name, argument, x.extent, "1 to 255 sub-spaces");
  for (const std::uint8_t code : x.codes)
    check(code < kernel::product_codewords, name, argument, int{code}, "codes below 16");
}

/// All lists, by kernels.
template <class B, class Codes>
void run_select(const B& backend, const Codes& q, const Codes& k, const KeyLists& lists,
                std::span<std::int32_t> all) {
  const Index heads = q.extent[1], queries = q.extent[2], subspaces = q.extent[3];
  const Index kv_heads = k.extent[1], keys = k.extent[2], size = keys * subspaces;
  const auto memory = leased<SelectMemory>(backend);
  if (static_cast<Index>(memory->bitmaps.size()) < q.extent[0] * kv_heads)
    memory->bitmaps.resize(static_cast<std::size_t>(q.extent[0] * kv_heads));
  parallel_for(backend.executor, q.extent[0] * kv_heads, [&](Index i, int) {
    memory->bitmaps[static_cast<std::size_t>(i)].set(
        {k.codes.data() + i * size, static_cast<std::size_t>(size)}, keys, subspaces);
  });
  const Index blocks = ceil_div(queries, select_queries);
  const Index items = q.extent[0] * heads * blocks;
  const auto workers = static_cast<std::size_t>(worker_count(backend.executor, items));
  if (memory->workers.size() < workers) memory->workers.resize(workers);
  parallel_for(backend.executor, items, [&](Index item, int worker) {
    const Index bh = item / blocks, begin = item % blocks * select_queries;
    const Index kv = bh / heads * kv_heads + bh % heads / (heads / kv_heads);
    select_queries_of(backend, q.codes.data() + bh * queries * subspaces,
                      memory->bitmaps[static_cast<std::size_t>(kv)], subspaces, lists, bh * queries,
                      begin, std::min(begin + select_queries, queries), all,
                      memory->workers[static_cast<std::size_t>(worker)]);
  });
}

/// The same by the definition.
template <class Codes>
void reference_select_all(const Codes& q, const Codes& k, const KeyLists& lists,
                          std::span<std::int32_t> all) {
  const Index group = q.extent[1] / k.extent[1], subspaces = q.extent[3];
  std::size_t row = 0;
  for (Index b = 0; b < q.extent[0]; ++b)
    for (Index h = 0; h < q.extent[1]; ++h)
      for (Index i = 0; i < q.extent[2]; ++i, ++row)
        reference_select(
            q.of(b, h) + i * subspaces, k.of(b, h / group), subspaces, lists.shape().listable(i),
            all.subspan(static_cast<std::size_t>(lists.offsets()[row]),
                        static_cast<std::size_t>(lists.offsets()[row + 1] - lists.offsets()[row])));
}

PARE_ABI_END
}  // namespace pare::attention::detail
