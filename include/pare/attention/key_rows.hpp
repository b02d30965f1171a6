// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The keys that a selector reads, wherever they lie: in a tensor or behind a KeyValueSource.
///
/// ```cpp
/// template <class B, class S>
/// double select(const B&, const SelectorHead<S>& head, BlockLists& keep) const {
///   const S* const first = head.k[0];                    // [dim], of position 0: no order
///   for (Index j = 0; j < head.k.rows(); ++j) use(head.k[j], head.k.cols());
/// }
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value_source.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace pare::attention {

namespace detail {
PARE_ABI_BEGIN

/// The key that a source of this type points to.
template <class Source>
const typename Source::scalar* key_of(const void* source, Index sequence, Index head,
                                      Index position) {
  return static_cast<const Source*>(source)->key(sequence, head, position);
}

/// Loads such a key.
template <class Source>
void load_key_of(const void* source, Index sequence, Index head, Index position,
                 typename Source::scalar* out) {
  static_cast<const Source*>(source)->load_key(sequence, head, position, out);
}

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// The keys of one key/value head by position, [keys, dim]; each row is contiguous.
template <StorageScalar S>
class KeyRows {
 public:
  /// Finds a row of the source.
  using Find = const S* (*)(const void* source, Index sequence, Index head, Index position);

  KeyRows() = default;
  /// Those of a tensor, whose rows must be contiguous.
  KeyRows(const TensorView<const S, 2>& rows) : rows_(rows) {}
  /// Those of a sequence of a source, which must outlive this; `keys` has their extents.
  KeyRows(const void* source, Find find, Index sequence, Index head,
          const TensorView<const S, 2>& keys)
      : rows_(keys), source_(source), find_(find), sequence_(sequence), head_(head) {}

  Index rows() const { return rows_.rows(); }
  Index cols() const { return rows_.cols(); }

  /// The key at a position in [0, rows()), which is not checked.
  PARE_ALWAYS_INLINE const S* operator[](Index position) const {
    if (find_ != nullptr) return find_(source_, sequence_, head_, position);
    return rows_.data + position * rows_.stride[0];
  }

  /// All keys as a matrix. If they are not in a tensor, they are copied into `copy` first.
  PARE_ALWAYS_INLINE TensorView<const S, 2> matrix(std::vector<S>& copy) const {
    if (find_ == nullptr) return rows_;
    copy.clear();
    for (Index j = 0; j < rows(); ++j) copy.insert(copy.end(), (*this)[j], (*this)[j] + cols());
    return {copy.data(), {rows(), cols()}, {cols(), 1}};
  }

 private:
  TensorView<const S, 2> rows_{};  ///< without data where there is a source
  const void* source_ = nullptr;
  Find find_ = nullptr;
  Index sequence_ = 0;
  Index head_ = 0;
};

/// The keys of a layer, [batch, kv heads, keys, dim].
template <StorageScalar S>
class LayerKeys {
 public:
  LayerKeys() = default;
  /// Those of a tensor.
  LayerKeys(const TensorView<const S, 4>& keys) : keys_(keys) {}
  /// Those of a source, which must outlive this and of which every sequence has `keys` of them.
  template <KeyValueSource Source>
  PARE_ALWAYS_INLINE LayerKeys(const Source& source, Index keys)
      : keys_{nullptr, {source.sequences(), source.kv_heads(), keys, source.key_dim()}, {}},
        source_(&source) {
    if constexpr (LoadsKeys<Source>)
      load_ = &detail::load_key_of<Source>;
    else
      find_ = &detail::key_of<Source>;
  }

  Index batch() const { return keys_.extent[0]; }
  Index kv_heads() const { return keys_.extent[1]; }
  Index keys() const { return keys_.extent[2]; }
  Index dim() const { return keys_.extent[3]; }

  /// The same keys, each in memory: if the source loads its keys, they are loaded into `copy`.
  PARE_ALWAYS_INLINE LayerKeys in_memory(std::vector<S>& copy) const {
    return load_ == nullptr ? *this : LayerKeys(tensor(copy));
  }

  /// The keys of one key/value head; they must be in memory (`in_memory`).
  PARE_ALWAYS_INLINE KeyRows<S> of(Index batch, Index kv_head) const {
    const TensorView<const S, 2> head{
        keys_.data == nullptr ? nullptr
                              : keys_.data + batch * keys_.stride[0] + kv_head * keys_.stride[1],
        {keys(), dim()},
        {keys_.stride[2], keys_.stride[3]}};
    if (find_ == nullptr) return head;
    return {source_, find_, batch, kv_head, head};
  }

  /// All keys as a tensor. If they are not in one, they are copied into `copy` first.
  PARE_ALWAYS_INLINE TensorView<const S, 4> tensor(std::vector<S>& copy) const {
    if (source_ == nullptr) return keys_;
    copy.resize(static_cast<std::size_t>(batch() * kv_heads() * keys() * dim()));
    S* out = copy.data();
    for (Index b = 0; b < batch(); ++b)
      for (Index h = 0; h < kv_heads(); ++h)
        for (Index j = 0; j < keys(); ++j, out += dim()) {
          if (load_ != nullptr)
            load_(source_, b, h, j, out);
          else
            std::copy_n(find_(source_, b, h, j), dim(), out);
        }
    const Index head = keys() * dim();
    return {copy.data(), keys_.extent, {kv_heads() * head, head, dim(), 1}};
  }

 private:
  TensorView<const S, 4> keys_{};  ///< without data where there is a source
  const void* source_ = nullptr;
  typename KeyRows<S>::Find find_ = nullptr;
  void (*load_)(const void*, Index, Index, Index, S*) = nullptr;
};

PARE_ABI_END

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
