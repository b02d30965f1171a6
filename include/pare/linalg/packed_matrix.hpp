// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Products of blocks of rows with one right factor, which is packed once. Several products in a
/// row can so keep a block of rows in cache, where `multiply` would write each product to memory.
///
/// ```cpp
/// const PackedMatrix<false, float> packed(pare::simd, right, memory);  // right [depth x columns]
/// AlignedBuffer<float> left(PackedMatrix<false, float>::left_size(rows, depth));
/// packed.multiply(pare::simd, a, c, left.data());  // c = a right, a [rows x depth]
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/multiply.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace pare::linalg {
PARE_ABI_BEGIN

/// What products of S and U are summed in.
template <StorageScalar S, StorageScalar U>
using product_t =
    std::conditional_t<std::is_same_v<S, double> || std::is_same_v<U, double>, double, float>;

/// The same matrix with a stride of 1, as products want it; refused if it has none.
template <class S>
TensorView<S, 2> checked_lines(const char* function, const char* argument, TensorView<S, 2> m) {
  check_view(function, argument, m);
  // Nobody steps along an extent of 1, but kernels choose their way by the strides.
  for (std::size_t d = 0; d < 2 && m.stride[0] != 1 && m.stride[1] != 1; ++d)
    if (m.extent[d] <= 1) m.stride[d] = 1;
  check(m.stride[0] == 1 || m.stride[1] == 1, function, argument, m.stride,
        "a stride of 1 along rows or columns");
  return m;
}

/// The right factor [depth x columns], packed into panels of columns. With Pairs it is bf16, and so
/// is all that it is multiplied by. Sums run along the depth in the order of `multiply`, and have
/// its bits. The caller has checked shapes; matrices have a stride of 1 along rows or columns
/// (`checked_lines`).
///
/// Cost: 2 rows depth columns FLOPs a product, which bind where the packed panels stay in cache.
/// Memory: `right` once more in T, columns rounded up to whole panels, in the caller's buffer.
template <bool Pairs, ComputeScalar T>
class PackedMatrix {
 public:
  /// Columns of a panel: the widest of any arch.
  static constexpr Index panel_columns = 256 / static_cast<Index>(sizeof(T));

  static Index whole_panels(Index columns) {
    return (columns + panel_columns - 1) / panel_columns * panel_columns;
  }

  template <class B, class S>
  PackedMatrix(const B& backend, TensorView<const S, 2> right, AlignedBuffer<std::byte>& buffer)
      : depth_(right.rows()),
        columns_(right.cols()),
        panels_((columns_ + panel_columns - 1) / panel_columns),
        packed_(make_room<T>(buffer, depth_ * panels_ * panel_columns)) {
    const Index blocks = (depth_ + depth_block - 1) / depth_block;
    parallel_for(backend.executor, blocks * panels_, [&](Index item, int) {
      const Index begin = item / panels_ * depth_block, panel = item % panels_;
      const Index column = panel * panel_columns;
      launch(backend, kernel::PackRightLines<S, T, Pairs>{
                          {&right(begin, column), right.stride[1], right.stride[0],
                           std::min(panel_columns, columns_ - column),
                           std::min(depth_block, depth_ - begin), nullptr, nullptr},
                          panel_at(begin, panel)});
    });
  }

  /// Scalars that `multiply` packs rows in.
  static Index left_size(Index rows, Index depth) {
    return whole_lines(rows * std::min(depth, depth_block));
  }

  /// C = A right for a block of rows. C lies by rows, and may end after any whole panel: later
  /// columns are left out. `visit(packed, depth)` is called for each part of A once it is packed.
  template <class B, class S, class Visit>
  void multiply(const B& backend, TensorView<const S, 2> a, TensorView<T, 2> c, T* left,
                const Visit& visit) const {
    for (Index begin = 0; begin < depth_; begin += depth_block) {
      const Index depth = std::min(depth_block, depth_ - begin);
      pack_left(backend, a, begin, depth, left);
      visit(static_cast<const T*>(left), depth);
      for (Index column = 0; column < c.cols(); column += panel_columns)
        launch(backend,
               kernel::MultiplyPanels<T, Pairs>{
                   left, panel_at(begin, column / panel_columns), a.rows(),
                   std::min(panel_columns, c.cols() - column), depth, &c(0, column), c.stride[0],
                   begin > 0, 0, 0, part_ahead(a, begin + depth, column, c.cols())});
    }
  }

  /// The same for a square right factor that is zero below its diagonal, without the products of
  /// whole panels of these zeros: little more than half of all.
  template <class B, class S>
  void multiply_upper(const B& backend, TensorView<const S, 2> a, TensorView<T, 2> c,
                      T* left) const {
    static_assert(!Pairs, "the rows of pairs are counted in them");
    for (Index begin = 0; begin < depth_; begin += depth_block) {
      const Index depth = std::min(depth_block, depth_ - begin);
      pack_left(backend, a, begin, depth, left);
      for (Index column = begin / panel_columns * panel_columns; column < c.cols();
           column += panel_columns)
        launch(backend,
               kernel::MultiplyPanels<T, Pairs>{left,
                                                panel_at(begin, column / panel_columns),
                                                a.rows(),
                                                std::min(panel_columns, c.cols() - column),
                                                std::min(depth, column + panel_columns - begin),
                                                &c(0, column),
                                                c.stride[0],
                                                begin > 0,
                                                0,
                                                depth,
                                                {},
                                                depth});
    }
  }

  template <class B, class S>
  void multiply(const B& backend, TensorView<const S, 2> a, TensorView<T, 2> c, T* left) const {
    multiply(backend, a, c, left, [](const T*, Index) {});
  }

  /// visit(packed, depth) for each part of a block of rows, without a product.
  template <class B, class S, class Visit>
  static void each_left(const B& backend, TensorView<const S, 2> a, T* left, const Visit& visit) {
    for (Index begin = 0; begin < a.cols(); begin += depth_block) {
      const Index depth = std::min(depth_block, a.cols() - begin);
      pack_left(backend, a, begin, depth, left);
      visit(static_cast<const T*>(left), depth);
    }
  }

 private:
  static constexpr Index depth_block = Pairs ? 2 * product_depth : product_depth;

  T* panel_at(Index begin, Index panel) const {
    const Index depth = std::min(depth_block, depth_ - begin);
    return packed_ + (begin * panels_ + panel * depth) * panel_columns;
  }

  /// What of A's next part, from depth `begin` on, is fetched during the panel at `column`: as many
  /// rows of it at each.
  template <class S>
  kernel::RowsAhead part_ahead(TensorView<const S, 2> a, Index begin, Index column,
                               Index columns) const {
    const Index depth = std::min(depth_block, depth_ - begin);
    if (depth <= 0 || a.stride[1] != 1) return {};
    const Index panels = (columns + panel_columns - 1) / panel_columns,
                panel = column / panel_columns;
    const Index first = panel * a.rows() / panels, last = (panel + 1) * a.rows() / panels;
    if (first == last) return {};
    constexpr Index size = sizeof(S);
    return {&a(first, begin), last - first, depth * size, a.stride[0] * size};
  }

  template <class B, class S>
  static void pack_left(const B& backend, TensorView<const S, 2> a, Index begin, Index depth,
                        T* left) {
    launch(backend,
           kernel::PackLeftLines<S, T, Pairs>{
               {&a(0, begin), a.stride[0], a.stride[1], a.rows(), depth, nullptr, nullptr}, left});
  }

  Index depth_;
  Index columns_;
  Index panels_;
  T* packed_;
};

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
