// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// y = x (S D)^T: a product with the atoms of all blocks, then sums of a few of its results.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/row_blocks.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/dense_sparse_weight.hpp>
#include <pare/kernel/combine_atoms.hpp>
#include <pare/kernel/move_rows.hpp>
#include <pare/kernel/simd.hpp>
#include <pare/transformer/detail/linear_product.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

namespace pare::transformer::detail {
PARE_ABI_BEGIN

/// The definition in double.
template <StorageScalar S>
void reference_dense_sparse(const factor::DenseSparse<S>& w, TensorView<const compute_t<S>, 2> x,
                            TensorView<compute_t<S>, 2> y) {
  const auto wide = [](auto value) {
    return static_cast<double>(static_cast<compute_t<S>>(value));
  };
  const auto atoms = w.dictionary();
  std::vector<double> sums(static_cast<std::size_t>(atoms.rows()));
  for (Index r = 0; r < y.rows(); ++r) {
    for (Index a = 0; a < atoms.rows(); ++a) {
      double& sum = sums[static_cast<std::size_t>(a)] = 0;
      for (Index i = 0; i < x.cols(); ++i) sum += wide(atoms(a, i)) * wide(x(r, i));
    }
    for (Index o = 0; o < y.cols(); ++o) {
      double sum = 0;
      for (Index k = 0; k < w.nonzeros(); ++k)
        sum += wide(w.value(o, k)) *
               sums[static_cast<std::size_t>(o / w.block() * w.atoms() + w.place(o, k))];
      y(r, o) = static_cast<compute_t<S>>(sum);
    }
  }
}

template <class T>
struct DenseSparseMemory {
  AlignedBuffer<T> sums;    ///< [rows x blocks atoms], and what a held table reads behind them
  AlignedBuffer<T> panels;  ///< [panels x blocks atoms x width]
};

/// One call of a layer with at least one row; those of x and y are contiguous.
template <class B, StorageScalar S>
class DenseSparseProduct {
  using T = compute_t<S>;

 public:
  DenseSparseProduct(const B& backend, const factor::DenseSparse<S>& weight,
                     TensorView<const T, 2> x, TensorView<T, 2> y)
      : backend_(backend), weight_(weight), x_(x), y_(y) {}

  void run() {
    const auto memory = leased<DenseSparseMemory<T>>(backend_);
    const Index rows = x_.rows(), sums = weight_.blocks() * weight_.atoms();
    T* const first = memory->sums.resize(size_of(rows * sums + kernel::held_atoms));
    std::fill_n(first + rows * sums, kernel::held_atoms, T(0));
    const TensorView<T, 2> all{first, {rows, sums}, {sums, 1}};
    fetch_codes();
    apply_weight<B, S>(backend_, weight_.dictionary(), x_, all);
    if (rows <= single_rows())
      combine_rows(as_const(all), y_);
    else
      combine_panels(as_const(all), memory->panels, y_);
  }

 private:
  static std::size_t size_of(Index n) { return static_cast<std::size_t>(n); }

  /// The first codes come from memory while the atoms are multiplied; kernels fetch those behind.
  void fetch_codes() const {
    weight_.visit_block(0, [](const auto* values, const auto* places) {
      for (std::ptrdiff_t byte = 0; byte < kernel::code_bytes_ahead; byte += 64) {
        kernel::prefetch<2>(values, byte);
        kernel::prefetch<2>(places, byte);
      }
    });
  }

  /// Rows up to which each is looked up by itself: 0.04, 0.07 or 0.12 ns for an entry of a table of
  /// 64, 128 or 256 that is held, 0.29 of one that is gathered from. A panel takes about 0.8 ns for
  /// an entry of up to 16 rows (all on Zen 5).
  Index single_rows() const {
    if constexpr (requires { typename B::arch; })
      if (std::is_same_v<T, float> && kernel::holds_tables<typename B::arch>)
        return weight_.atoms() <= 64                   ? 16
               : weight_.atoms() <= 128                ? 8
               : weight_.atoms() <= kernel::held_atoms ? 4
                                                       : 2;
    return 1;
  }

  /// Groups of outputs that a worker takes at once: about 16 thousand entries, a microsecond.
  Index groups_at_once() const { return std::max<Index>(1, 1024 / weight_.nonzeros()); }
  Index items_of_block() const {
    return ceil_div(ceil_div(weight_.block(), kernel::code_group), groups_at_once());
  }

  /// Calls body(values, places, output, count) with the entries of item `item` of a block.
  template <class Body>
  void visit(Index b, Index item, const Body& body) const {
    const Index group = item * groups_at_once(), output = group * kernel::code_group;
    const Index count = std::min(groups_at_once() * kernel::code_group, weight_.block() - output);
    weight_.visit_block(b, [&](const auto* values, const auto* places) {
      const Index entry = output * weight_.nonzeros();
      body(values + entry, places + entry, b * weight_.block() + output, count);
    });
  }

  /// Each row by itself.
  void combine_rows(TensorView<const T, 2> sums, TensorView<T, 2> to) const {
    const Index each = items_of_block(), of_row = weight_.blocks() * each;
    parallel_for(backend_.executor, to.rows() * of_row, [&](Index item, int) {
      const Index row = item / of_row, b = item % of_row / each;
      visit(b, item % each, [&](const auto* values, const auto* places, Index output, Index count) {
        launch(backend_, kernel::CombineAtoms<S, std::remove_cvref_t<decltype(*places)>>{
                             values, places, &sums(row, b * weight_.atoms()), weight_.atoms(),
                             weight_.nonzeros(), count, &to(row, output)});
      });
    });
  }

  /// Rows side by side.
  void combine_panels(TensorView<const T, 2> sums, AlignedBuffer<T>& memory,
                      TensorView<T, 2> to) const {
    const Index width = to.rows() > kernel::code_group ? kernel::combined_rows : 16;
    const Index count = ceil_div(to.rows(), width), blocks = weight_.blocks();
    T* const panels = memory.resize(size_of(count * sums.cols() * width));
    const auto rows_in = [&](Index panel) { return std::min(width, to.rows() - panel * width); };
    const Index size = weight_.atoms() * width;
    parallel_for(backend_.executor, count * blocks, [&](Index item, int) {
      const Index panel = item / blocks, b = item % blocks;
      T* const into = panels + item * size;
      if (rows_in(panel) < width) std::fill_n(into, size, T(0));
      launch(backend_,
             kernel::ColumnsFromRows<T>{&sums(panel * width, b * weight_.atoms()), sums.stride[0],
                                        rows_in(panel), weight_.atoms(), into, width});
    });
    const Index each = items_of_block(), of_panel = blocks * each;
    parallel_for(backend_.executor, count * of_panel, [&](Index item, int) {
      const Index panel = item / of_panel, b = item % of_panel / each;
      visit(b, item % each, [&](const auto* values, const auto* places, Index output, Index some) {
        launch(backend_,
               kernel::CombinePanel<S, std::remove_cvref_t<decltype(*places)>>{
                   values, places, panels + (panel * blocks + b) * size, width, rows_in(panel),
                   weight_.nonzeros(), some, &to(panel * width, output), to.stride[0]});
      });
    });
  }

  const B& backend_;
  const factor::DenseSparse<S>& weight_;
  TensorView<const T, 2> x_;
  TensorView<T, 2> y_;
};

PARE_ABI_END
}  // namespace pare::transformer::detail

#include <pare/core/macros_on.hpp>
