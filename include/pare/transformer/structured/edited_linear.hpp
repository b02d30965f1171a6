// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A linear layer with edits of rank one beside it: a fact or a concept that was put into a model
/// without a copy of its weights (ROME, Perfusion).
///
/// ```cpp
/// auto edits = pare::factor::perfusion_edits(w, inverse, keys, values);  // rank_one_edit.hpp
/// const EditedLinear layer(DenseLinear<bf16>(stored), std::move(edits));
/// layer.apply(pare::simd.with(workspace), x, y);
/// ```
///
/// The layer below may be any, also one of blocks of 4 bits, whose weight could not hold an edit:
/// give the edits the weight that it stands for.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/row_blocks.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/rank_one_edit.hpp>
#include <pare/kernel/edit_rows.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/linear_calls.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace pare::transformer {
namespace detail {
PARE_ABI_BEGIN

/// The definition: adds what edits change of rows, in double.
template <class T, class Gate>
void reference_add_edits(const factor::RankOneEdits<T, Gate>& edits, TensorView<const T, 2> x,
                         TensorView<T, 2> y) {
  for (Index r = 0; r < y.rows(); ++r)
    for (Index c = 0; c < edits.concepts(); ++c) {
      double t = 0;
      for (Index i = 0; i < x.cols(); ++i)
        t += static_cast<double>(edits.directions(c, i)) * static_cast<double>(x(r, i));
      const double given = edits.gate(t);
      for (Index o = 0; o < y.cols(); ++o)
        y(r, o) += static_cast<T>(given * static_cast<double>(edits.values(c, o)) -
                                  t * static_cast<double>(edits.removed(c, o)));
    }
}

/// The same by kernels, of blocks of rows that threads share. Rows that are not contiguous are
/// copied.
template <class B, class T, class Gate>
void add_edits(const B& backend, const factor::RankOneEdits<T, Gate>& edits,
               TensorView<const T, 2> x, TensorView<T, 2> y) {
  const Index block = rows_of_block(std::max(x.cols(), y.cols()));
  const Index x_copy = has_contiguous_rows(x) ? 0 : whole_lines(block * x.cols());
  const Index y_copy = has_contiguous_rows(y) ? 0 : whole_lines(block * y.cols());
  const Index items = ceil_div(y.rows(), block), each = x_copy + y_copy;
  const auto memory = leased<AlignedBuffer<T>>(backend);
  T* base = nullptr;
  if (each > 0)
    base = memory->resize(
        static_cast<std::size_t>(each * static_cast<Index>(worker_count(backend.executor, items))));
  parallel_for(backend.executor, items, [&](Index item, int worker) {
    T* const own = each > 0 ? base + worker * each : nullptr;
    const Index begin = item * block, end = std::min(y.rows(), begin + block);
    const StagedRows<const T> from(rows_of(x, begin, end - begin), own);
    T* const of_y = own == nullptr ? own : own + x_copy;
    // What is written is not copied in by itself, and y is added to.
    const StagedRows<const T> before(as_const(rows_of(y, begin, end - begin)), of_y);
    const StagedRows<T> to(rows_of(y, begin, end - begin), of_y);
    launch(backend,
           kernel::EditRows<T, Gate>{edits.directions.data(), edits.removed.data(),
                                     edits.values.data(), from.rows().data, from.rows().stride[0],
                                     to.rows().data, to.rows().stride[0], end - begin,
                                     edits.concepts(), x.cols(), y.cols(), edits.gate});
    to.finish();
  });
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// y = base(x) + sum_c (gate(t_c) values_c - t_c removed_c), t_c = directions_c . x. It models
/// `Linear` where its base does, or the same in double.
template <class Base, factor::EditGate Gate>
requires LinearOf<Base, linear_scalar<Base>>
class EditedLinear : public LinearCalls<EditedLinear<Base, Gate>, linear_scalar<Base>> {
 public:
  using scalar = linear_scalar<Base>;  ///< of x and y
  using Edits = factor::RankOneEdits<scalar, Gate>;

  /// \param base  a layer of W, taken over
  /// \param edits of the same W: rome_edits or perfusion_edits, taken over
  /// \throws std::invalid_argument if the edits are of another number of inputs or outputs, or
  ///         their matrices do not fit each other
  EditedLinear(Base base, Edits edits) : base_(std::move(base)), edits_(std::move(edits)) {
    constexpr const char* function = "transformer::EditedLinear";
    check(edits_.inputs() == base_.inputs(), function, "edits", edits_.inputs(), base_.inputs());
    check(edits_.outputs() == base_.outputs(), function, "edits", edits_.outputs(),
          base_.outputs());
    const Index concepts = edits_.concepts();
    check_extents<2>(function, "edits.removed", {edits_.removed.rows(), edits_.removed.cols()},
                     {concepts, base_.outputs()});
    check(edits_.values.rows() == concepts, function, "edits.values", edits_.values.rows(),
          concepts);
  }

  Index inputs() const { return base_.inputs(); }
  Index outputs() const { return base_.outputs(); }
  const Base& base() const { return base_; }
  const Edits& edits() const { return edits_; }

  /// Visits what the edits are.
  template <class Visit>
  void each_memory(const Visit& visit) const {
    for (const RowMatrix<scalar>* m : {&edits_.directions, &edits_.removed, &edits_.values})
      visit(const_view(*m));
  }

  /// Visits the layers that it is made of.
  template <class Visit>
  void each_layer(const Visit& visit) const {
    visit(base_);
  }

  using LinearCalls<EditedLinear<Base, Gate>, scalar>::apply;
  /// Writes y.
  ///
  /// \param backend left out: pare::simd
  /// \param x [rows, inputs], any strides
  /// \param y [rows, outputs], the same; apart from x, the edits and what the base has
  /// \throws std::invalid_argument if an extent does not fit or y overlaps x, the edits or the
  ///         base's weight. Nothing is written then. No rows: a no-op.
  ///
  /// Cost: the base's, and 2 (inputs + 2 outputs) FLOPs per row and concept; of one row, reading
  /// the edits, inputs + 2 outputs numbers per concept. A row has the same bits for any threads,
  /// and among any rows among which the base gives it the same. Memory, kept in the backend's
  /// workspace: the base's, and blocks of rows of x and y that are not contiguous.
  template <Backend B>
  void apply(const B& backend, TensorView<const scalar, 2> x, TensorView<scalar, 2> y) const {
    constexpr const char* function = "transformer::EditedLinear::apply";
    check_linear(function, inputs(), outputs(), x, y);
    check_apart_from_layer(function, "y", y, *this);
    base_.apply(backend, x, y);
    if (y.rows() == 0) return;
    if constexpr (KernelBackend<B>)
      detail::add_edits(on_any_executor(backend), edits_, x, y);
    else
      detail::reference_add_edits(edits_, x, y);
  }

 private:
  Base base_;
  Edits edits_;
};

template <class Base, class T, class Gate>
EditedLinear(Base, factor::RankOneEdits<T, Gate>) -> EditedLinear<Base, Gate>;

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
