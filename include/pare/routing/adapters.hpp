// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Adapters routed by task, merged into one pair of thin factors (Poly, Multi-Head Adapter
/// Routing).
///
///     w_qe = sigmoid(L_qe) / sum_e sigmoid(L_qe)        of a task's logits L [splits, experts]
///     y += (sum_q x_q Abar_q) [Bbar_1 .. Bbar_S] alpha / r,   Abar_q = sum_e w_qe A_eq, Bbar alike
///
/// ```cpp
/// // views: a [experts, splits, in / splits, r], b [experts, r, splits, out / splits]
/// const AdapterBank<float> bank{a, b};
/// const RowMatrix<float> w = task_weights(logits);   // [splits, experts], once per task
/// const MergedAdapter<float> adapter = merge_adapters(bank, w, {.alpha = 16});
/// add_adapter(adapter, weight);                      // weight [out, in] += left right
/// subtract_adapter(adapter, weight);                 // un-merged, to rounding
/// ```
///
/// Weights depend on the task alone, so adapters are merged once per task. One split is Poly; equal
/// splits are Poly too. Uniform weights give the average of all adapters, MHR-mu. Mixing the
/// *outputs* of adapters (mttl's merge_after) is another function, equal only where one weight is
/// 1: that is `grouped_multiply` with all experts, and `combine`.
///
/// Source: Caccia et al., "Multi-head adapter routing for cross-task generalization", arXiv
/// 2211.03831, by the code of microsoft/mttl. Its zero row for unknown tasks is a row of zeros here
/// too: a uniform mixture.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/routing/gate_row.hpp>

#include <array>
#include <cstddef>
#include <type_traits>

namespace pare::routing {

PARE_ABI_BEGIN

/// Adapters of all experts, viewed.
template <ComputeScalar T>
struct AdapterBank {
  TensorView<const T, 4> a;  ///< [experts, splits, inputs / splits, rank]
  TensorView<const T, 4> b;  ///< [experts, rank, splits, outputs / splits]

  Index experts() const { return a.extent[0]; }
  Index splits() const { return a.extent[1]; }
  Index rank() const { return a.extent[3]; }
  Index inputs() const { return a.extent[1] * a.extent[2]; }
  Index outputs() const { return b.extent[2] * b.extent[3]; }
};

/// Options of merge_adapters.
struct MergeOptions {
  double alpha = 1;  ///< the product is scaled by alpha / rank, as in LoRA; finite
};

/// A weight's change, left right.
template <ComputeScalar T>
struct MergedAdapter {
  RowMatrix<T> left;   ///< [outputs, rank], with the scale alpha / rank
  RowMatrix<T> right;  ///< [rank, inputs]
};

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

template <class T>
void check_bank(const char* function, const AdapterBank<T>& bank) {
  check_view(function, "bank.a", bank.a);
  check_view(function, "bank.b", bank.b);
  const auto& a = bank.a.extent;
  for (const Index extent : a)
    check(extent >= 1, function, "bank.a", a,
          "[experts, splits, inputs / splits, rank] of 1 or more");
  check(bank.b.extent[3] >= 1, function, "bank.b", bank.b.extent,
        "[experts, rank, splits, outputs / splits] of 1 or more");
  check_extents<4>(function, "bank.b", bank.b.extent, {a[0], a[3], a[1], bank.b.extent[3]});
  const Index inputs = checked_product(function, "bank.a", a[1], a[2]);
  checked_count(function, "bank.a", checked_product(function, "bank.a", inputs, a[3]), sizeof(T));
  const Index outputs = checked_product(function, "bank.b", a[1], bank.b.extent[3]);
  checked_count(function, "bank.b", checked_product(function, "bank.b", outputs, a[3]), sizeof(T));
}

template <class T>
MergedAdapter<T> merge_adapters(const AdapterBank<T>& bank, TensorView<const T, 2> weights,
                                const MergeOptions& options) {
  constexpr const char* function = "routing::merge_adapters";
  check_bank(function, bank);
  check_view(function, "weights", weights);
  check_extents<2>(function, "weights", weights.extent, {bank.splits(), bank.experts()});
  for (Index q = 0; q < weights.rows(); ++q)
    for (Index e = 0; e < weights.cols(); ++e)
      check(is_finite(static_cast<double>(weights(q, e))), function, "weights",
            std::array<Index, 2>{q, e}, "[split, expert] with a finite weight");
  check(is_finite(options.alpha), function, "alpha", options.alpha, "a finite number");
  const double scale = options.alpha / static_cast<double>(bank.rank());
  const auto mix = [&](Index q, const auto& of_expert) {
    double sum = 0;
    for (Index e = 0; e < bank.experts(); ++e)
      sum += static_cast<double>(weights(q, e)) * static_cast<double>(of_expert(e));
    return sum;
  };
  MergedAdapter<T> merged{RowMatrix<T>(bank.outputs(), bank.rank()),
                          RowMatrix<T>(bank.rank(), bank.inputs())};
  for (Index q = 0; q < bank.splits(); ++q)
    for (Index k = 0; k < bank.rank(); ++k) {
      for (Index i = 0; i < bank.a.extent[2]; ++i)
        merged.right(k, q * bank.a.extent[2] + i) =
            static_cast<T>(mix(q, [&](Index e) { return bank.a(e, q, i, k); }));
      for (Index o = 0; o < bank.b.extent[3]; ++o)
        merged.left(q * bank.b.extent[3] + o, k) =
            static_cast<T>(scale * mix(q, [&](Index e) { return bank.b(e, k, q, o); }));
    }
  return merged;
}

/// weight += sign left right.
template <class B, class T>
void fold_adapter(const char* function, const B& backend, const MergedAdapter<T>& adapter,
                  TensorView<T, 2> weight, T sign) {
  check_writable(function, "weight", weight);
  check(adapter.left.cols() == adapter.right.rows(), function, "adapter", adapter.left.cols(),
        Worded{"factors of one rank, ", adapter.right.rows()});
  check_extents<2>(function, "weight", weight.extent, {adapter.left.rows(), adapter.right.cols()});
  check_no_overlap(function, "weight", weight, "adapter", const_view(adapter.left));
  check_no_overlap(function, "weight", weight, "adapter", const_view(adapter.right));
  if (sign == T(1)) {
    linalg::multiply(backend, const_view(adapter.left), const_view(adapter.right), weight,
                     {.accumulate = true});
  } else {
    const RowMatrix<T> negative = -adapter.left;
    linalg::multiply(backend, const_view(negative), const_view(adapter.right), weight,
                     {.accumulate = true});
  }
}

template <class X>
struct IsMergedAdapter : std::false_type {};
template <class T>
struct IsMergedAdapter<MergedAdapter<T>> : std::true_type {};
template <class X>
using TakesMergedAdapter = IsMergedAdapter<std::remove_cvref_t<X>>;

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Weights of a task: sigmoids of its logits, of each split over their sum.
///
/// \param logits [splits, experts] of float or double, any strides
/// \returns [splits, experts]; rows add up to 1
/// \throws std::invalid_argument if there is no expert, a logit is not finite, or all sigmoids of a
///         split are 0
///
/// Cost: an exponential each, in double.
template <In<2> L>
requires ComputeScalar<scalar_of<L>>
RowMatrix<scalar_of<L>> task_weights(const L& logits) {
  constexpr const char* function = "routing::task_weights";
  using T = scalar_of<L>;
  const auto z = as_const(to_view(logits));
  check_view(function, "logits", z);
  check(z.cols() >= 1, function, "logits", z.extent, "at least one expert");
  RowMatrix<T> weights(z.rows(), z.cols());
  for (Index q = 0; q < z.rows(); ++q) {
    double sum = 0;
    for (Index e = 0; e < z.cols(); ++e) {
      check(is_finite(static_cast<double>(z(q, e))), function, "logits", std::array<Index, 2>{q, e},
            "[split, expert] with a finite logit");
      sum += detail::sigmoid(static_cast<double>(z(q, e)));
    }
    check(sum > 0, function, "logits", Worded{"sigmoids of split ", q, " that are 0"},
          "one above 0");
    for (Index e = 0; e < z.cols(); ++e)
      weights(q, e) = static_cast<T>(detail::sigmoid(static_cast<double>(z(q, e))) / sum);
  }
  return weights;
}

/// Merges adapters by the weights of a task.
///
/// \param bank    views of all adapters, of any strides
/// \param weights [splits, experts], finite: of `task_weights`, or your own; 1 / experts each is
///                MHR-mu
/// \param options the scale
/// \returns factors of the change of a weight [outputs, inputs], which LowRankLinear can apply
///          beside it (no merge into the weight), or `add_adapter` adds to it
/// \throws std::invalid_argument if an extent does not fit, or a weight or alpha is not finite
///
/// NaN and infinity of the bank reach the numbers that they are part of.
///
/// Cost: experts rank (inputs + outputs) multiply-adds in double, on one thread.
template <ComputeScalar T, In<2> W>
requires std::is_same_v<scalar_of<W>, T>
MergedAdapter<T> merge_adapters(const AdapterBank<T>& bank, const W& weights,
                                const MergeOptions& options = {}) {
  return detail::merge_adapters(bank, as_const(to_view(weights)), options);
}

/// weight += left right.
///
/// \param backend left out: pare::simd
/// \param weight  [outputs, inputs], any strides; apart from the adapter
/// \throws std::invalid_argument if an extent does not fit or weight overlaps the adapter. Nothing
///         is written then.
///
/// Cost and memory: as linalg::multiply.
template <Backend B, ComputeScalar T, Out<2> W>
requires std::is_same_v<scalar_of<W>, T>
void add_adapter(const B& backend, const MergedAdapter<T>& adapter, W&& weight) {
  detail::fold_adapter("routing::add_adapter", backend, adapter, to_view(weight), T(1));
}

/// \overload
template <ComputeScalar T, Out<2> W>
requires std::is_same_v<scalar_of<W>, T>
void add_adapter(const MergedAdapter<T>& adapter, W&& weight) {
  add_adapter(simd, adapter, weight);
}

/// weight -= left right: takes an adapter away that was added, to rounding of the sum.
///
/// All as add_adapter. Memory: a copy of left beside.
template <Backend B, ComputeScalar T, Out<2> W>
requires std::is_same_v<scalar_of<W>, T>
void subtract_adapter(const B& backend, const MergedAdapter<T>& adapter, W&& weight) {
  detail::fold_adapter("routing::subtract_adapter", backend, adapter, to_view(weight), T(-1));
}

/// \overload
template <ComputeScalar T, Out<2> W>
requires std::is_same_v<scalar_of<W>, T>
void subtract_adapter(const MergedAdapter<T>& adapter, W&& weight) {
  subtract_adapter(simd, adapter, weight);
}

PARE_REFUSE_CALLS(add_adapter, "routing::add_adapter", "after weight: wanted nothing",
                  (PLAIN, (roles::Takes<detail::TakesMergedAdapter>), "adapter", "a MergedAdapter"),
                  (OUTPUT, (roles::Writes<2>), "weight", "[outputs, inputs] of its scalar"))
PARE_REFUSE_CALLS(subtract_adapter, "routing::subtract_adapter", "after weight: wanted nothing",
                  (PLAIN, (roles::Takes<detail::TakesMergedAdapter>), "adapter", "a MergedAdapter"),
                  (OUTPUT, (roles::Writes<2>), "weight", "[outputs, inputs] of its scalar"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
