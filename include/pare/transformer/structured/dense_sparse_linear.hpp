// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A linear layer whose outputs are sums of a few atoms that blocks of them share (DSFormer): y =
/// (x D^T) S^T.
///
/// ```cpp
/// auto fit = pare::factor::dense_sparse(w, {.block = 256, .atoms = 64, .nonzeros = 8});
/// const DenseSparseLinear<bf16> layer(fit.weight.rounded<bf16>());
/// layer.apply(pare::simd.threads(2).with(workspace), x, y);
/// ```
///
/// Of one row the dictionary is read at the speed of memory; so are the codes up to 128 atoms of a
/// block where a table is held in registers (AVX-512). With up to 256 atoms the look-up takes as
/// long as memory, and beyond, or on other instruction sets, it binds: 0.29 ns for an entry on
/// Zen 5. More rows share the look-up, and multiply-adds bind. Source of the form: Chand, Prabhu
/// and Kumar, DSFormer, arXiv 2312.13211; the kernels are ours.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/dense_sparse_weight.hpp>
#include <pare/transformer/detail/dense_sparse_product.hpp>
#include <pare/transformer/detail/linear_product.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/linear_calls.hpp>

#include <utility>

namespace pare::transformer {
PARE_ABI_BEGIN

/// W = S D of a `DenseSparse`, which the layer owns. It can be moved, not copied. Of double, all
/// is double: such a layer is no `Linear`, but has the same members.
template <StorageScalar S>
class DenseSparseLinear : public LinearCalls<DenseSparseLinear<S>, compute_t<S>> {
 public:
  using weight = S;
  using scalar = compute_t<S>;  ///< of x and y

  explicit DenseSparseLinear(factor::DenseSparse<S> factors) : factors_(std::move(factors)) {}

  Index inputs() const { return factors_.inputs(); }
  Index outputs() const { return factors_.outputs(); }
  const factor::DenseSparse<S>& factors() const { return factors_; }
  /// The atoms, [blocks * atoms x inputs].
  TensorView<const S, 2> weights() const { return factors_.dictionary(); }

  /// Visits what it reads beside the atoms: values and their places.
  template <class Visit>
  void each_memory(const Visit& visit) const {
    visit(factors_.stored_values());
    if (factors_.places_are_small())
      visit(factors_.small_places());
    else
      visit(factors_.wide_places());
  }

  using LinearCalls<DenseSparseLinear<S>, compute_t<S>>::apply;
  /// y = (x D^T) S^T.
  ///
  /// \param backend left out: pare::simd
  /// \param x [rows, inputs], any strides; rows that are not contiguous are copied
  /// \param y [rows, outputs], the same; apart from x and the factors
  /// \throws std::invalid_argument if an extent does not fit or y overlaps x or the factors.
  ///         Nothing is written then. No rows: a no-op.
  ///
  /// Cost, for each row: 2 inputs atoms outputs / block and 2 outputs nonzeros FLOPs. Of one
  /// row reading binds, as the file says. Memory, kept in the backend's workspace: [rows x blocks *
  /// atoms], the same of rows rounded up to 16 (of more to a multiple of 64) where they share a
  /// look-up, rows that are not contiguous, and what the product with the atoms takes.
  template <Backend B>
  void apply(const B& backend, TensorView<const scalar, 2> x, TensorView<scalar, 2> y) const {
    constexpr const char* function = "transformer::DenseSparseLinear::apply";
    check_linear(function, inputs(), outputs(), x, y);
    check_apart_from_layer(function, "y", y, *this);
    if (y.rows() == 0 || outputs() == 0) return;  // of factors that were moved from
    if constexpr (KernelBackend<B>) {
      const auto any = on_any_executor(backend);
      detail::with_contiguous_rows(
          any, detail::with_unit_steps(x), detail::with_unit_steps(y), [&](auto from, auto to) {
            detail::DenseSparseProduct<OnAnyExecutor<B>, S>(any, factors_, from, to).run();
          });
    } else {
      detail::reference_dense_sparse(factors_, x, y);
    }
  }

 private:
  factor::DenseSparse<S> factors_;
};

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
