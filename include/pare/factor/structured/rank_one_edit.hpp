// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Edits of rank one: a layer's weight W gives chosen keys i other values o, and changes least
/// elsewhere. ROME's closed form, and Perfusion's gated form of it.
///
/// ```cpp
/// const InverseMoment inverse(covariance);                       // C = E[x x^T] of the inputs
/// // keys [concepts x in], values [concepts x out]: of a vector, key.transpose()
/// auto changed = rank_one_edit(w, inverse, keys, values);        // ROME: a weight
/// auto rome = rome_edits(w, inverse, keys, values);              // the same beside W
/// auto gated = perfusion_edits(w, inverse, keys, values, SigmoidGate{.beta = 0.6});
/// auto locked = locked_value(w, key_of_superclass);              // Perfusion's key lock: o = W i
/// transformer::EditedLinear layer(std::move(base), std::move(gated));  // edited_linear.hpp
/// ```
///
/// With s = i^T C^-1 x and E = i^T C^-1 i:
///
///     ROME       What = W + (o - W i) (C^-1 i)^T / E
///     Perfusion  h = W x - (W i) s / E + gate(s / E) o,  gate(t) = 1 / (1 + exp((beta - t) / tau))
///
/// What minimises tr((What - W) C (What - W)^T) under What i = o. An input with s = 0 passes as by
/// W; gate(0) is not 0, but 9.3e-3 with the defaults. At x = i Perfusion gives gate(1) o, .88 o
/// with the defaults: its constraint is met only in part, which is its authors' choice.
///
/// Several concepts, one per row of keys and values, are edited together. ROME's rows of What K^T
/// are the values, each exactly. Perfusion takes from x what lies in the span of the keys, by
/// projection in the inner product of C^-1, and then adds gate(s_c / E_c) o_c per concept. Concepts
/// whose keys are orthogonal in that product are the sum of single edits.
///
/// Sources: Meng et al., "Locating and Editing Factual Associations in GPT", NeurIPS 2022; Tewel et
/// al., "Key-Locked Rank One Editing", SIGGRAPH 2023, arXiv 2305.01644, in the form of ChenDarYen's
/// implementation, which projects by the inner product of C^-1. Ours: the projection comes from the
/// Gram matrix of the keys, so that it costs no more than single edits; ROME of several keys (as
/// MEMIT without its ridge); a singular C (inverse_moment.hpp). How o is found is not part of it:
/// ROME and Perfusion train it by gradients.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/detail/edit_keys.hpp>
#include <pare/factor/structured/inverse_moment.hpp>
#include <pare/kernel/edit_rows.hpp>

#include <Eigen/Core>

#include <concepts>
#include <type_traits>

namespace pare::factor {

using kernel::LinearGate;
using kernel::SigmoidGate;

/// What an edit gives of a value by the similarity t = s / E of x to the key: a function of double
/// that does not throw, such as the two above, or the user's own.
template <class G>
concept EditGate = std::copyable<G> && requires(const G& gate, double t) {
  { gate(t) } noexcept -> std::same_as<double>;
};

PARE_ABI_BEGIN

/// Edits beside a weight W [out x in], one per row: y = W x + sum_c (gate(t_c) values_c - t_c
/// removed_c), t_c = directions_c . x. Memory: in + 2 out scalars per concept.
template <ComputeScalar T, EditGate Gate>
struct RankOneEdits {
  using scalar = T;

  RowMatrix<T> directions;  ///< [concepts x in] C^-1 i / E of one concept
  RowMatrix<T> removed;     ///< [concepts x out] W i of one concept
  RowMatrix<T> values;      ///< [concepts x out] o
  Gate gate{};

  Eigen::VectorXd energies;      ///< [concepts] E = i^T C^-1 i
  Index clamped_directions = 0;  ///< of C, whose eigenvalues were raised

  Index concepts() const { return directions.rows(); }
  Index inputs() const { return directions.cols(); }
  Index outputs() const { return values.cols(); }
};

/// The running mean of a concept's key, i <- decay i + (1 - decay) x, which Perfusion takes over
/// its encodings while it trains. The first x is the first mean.
class KeyAverage {
 public:
  /// \param decay in [0, 1); Perfusion's .99
  /// \throws std::invalid_argument if it is not
  explicit KeyAverage(double decay = 0.99) : decay_(decay) {
    check(decay >= 0 && decay < 1, "factor::KeyAverage", "decay", decay, "a number in [0, 1)");
  }
  /// \param x [in] of any storage scalar, as long as the first
  /// \throws std::invalid_argument if it is empty, not finite or of another length. The mean is
  ///         then as before.
  template <WeightVector X>
  void add(const X& x) {
    const Eigen::VectorXd key = detail::key_of("factor::KeyAverage::add", "x", to_vector_view(x));
    if (mean_.size() == 0) {
      mean_ = key;
      return;
    }
    check(key.size() == mean_.size(), "factor::KeyAverage::add", "x", key.size(), mean_.size());
    mean_ = decay_ * mean_ + (1 - decay_) * key;
  }
  /// [in]; empty before the first x.
  const Eigen::VectorXd& mean() const { return mean_; }

 private:
  double decay_;
  Eigen::VectorXd mean_;
};

/// ROME's edits beside W: with them y = What x.
///
/// \param backend left out: pare::simd
/// \param w       [out x in], any storage scalar
/// \param inverse of the second moment of the inputs, of dimension in
/// \param keys    [concepts x in], any storage scalar; at least one concept
/// \param values  [concepts x out], any storage scalar: What keys_c = values_c
/// \return        edits in compute_t of W's scalar, computed in double
/// \throws std::invalid_argument if shapes do not fit, W is empty or contiguous neither by rows nor
///         by columns, there is no key, a key or a value is not finite, E is not a finite number
///         above 0 (a key of 0), or a key is within 1e-5 of the span of those before it, in the
///         inner product of C^-1: given twice, for instance; or edits that do not fit the scalar
///
/// A NaN or infinity in a row of W stays in that output. Cost: W is read once and multiplied by the
/// keys, and 2 in^2 FLOPs per concept (4 with a singular C). The same bits for every executor.
template <Backend B, In<2> W, In<2> K, In<2> V>
auto rome_edits(const B& backend, const W& w, const InverseMoment& inverse, const K& keys,
                const V& values) {
  constexpr const char* function = "factor::rome_edits";
  return detail::edits_of<RankOneEdits<compute_t<scalar_of<W>>, LinearGate>>(
      function, backend, as_const(to_view(w)), inverse, as_const(to_view(keys)),
      as_const(to_view(values)), LinearGate{}, detail::EditKind::Linear);
}

/// \overload
template <In<2> W, In<2> K, In<2> V>
auto rome_edits(const W& w, const InverseMoment& inverse, const K& keys, const V& values) {
  return rome_edits(simd, w, inverse, keys, values);
}

/// Perfusion's edits beside W.
///
/// \param gate a SigmoidGate, or one of the user's: gate(t) of the value is given
/// \return and other parameters: as rome_edits
/// \throws std::invalid_argument as rome_edits, and if a SigmoidGate has a beta that is not finite
///         or a tau that is not a finite number above 0
///
/// Cost: that of rome_edits.
template <Backend B, In<2> W, In<2> K, In<2> V, EditGate Gate = SigmoidGate>
auto perfusion_edits(const B& backend, const W& w, const InverseMoment& inverse, const K& keys,
                     const V& values, const Gate& gate = {}) {
  constexpr const char* function = "factor::perfusion_edits";
  if constexpr (std::is_same_v<Gate, SigmoidGate>) {
    check(is_finite(gate.beta), function, "beta", gate.beta, "a finite number");
    check(is_finite(gate.tau) && gate.tau > 0, function, "tau", gate.tau,
          "a finite number above 0");
  }
  return detail::edits_of<RankOneEdits<compute_t<scalar_of<W>>, Gate>>(
      function, backend, as_const(to_view(w)), inverse, as_const(to_view(keys)),
      as_const(to_view(values)), gate, detail::EditKind::Gated);
}

/// \overload
template <In<2> W, In<2> K, In<2> V, EditGate Gate = SigmoidGate>
auto perfusion_edits(const W& w, const InverseMoment& inverse, const K& keys, const V& values,
                     const Gate& gate = {}) {
  return perfusion_edits(simd, w, inverse, keys, values, gate);
}

/// What = W + sum_c (values_c - removed_c) directions_c^T: ROME's edits in the weight itself.
///
/// \param w any storage scalar; parameters otherwise, and errors, as rome_edits
/// \return  What [out x in] in compute_t of W's scalar
///
/// Cost: that of rome_edits, and W is read and What written once, which binds. Memory: the result.
template <Backend B, In<2> W, In<2> K, In<2> V>
auto rank_one_edit(const B& backend, const W& w, const InverseMoment& inverse, const K& keys,
                   const V& values) {
  using T = compute_t<scalar_of<W>>;
  const auto view = as_const(to_view(w));
  constexpr const char* function = "factor::rank_one_edit";
  const auto edits = detail::edits_of<RankOneEdits<double, LinearGate>>(
      function, backend, view, inverse, as_const(to_view(keys)), as_const(to_view(values)),
      LinearGate{}, detail::EditKind::Linear);
  RowMatrix<T> edited(view.rows(), view.cols());
  detail::add_edits(function, backend, view, edits.values - edits.removed, edits.directions,
                    edited);
  return edited;
}

/// \overload
template <In<2> W, In<2> K, In<2> V>
auto rank_one_edit(const W& w, const InverseMoment& inverse, const K& keys, const V& values) {
  return rank_one_edit(simd, w, inverse, keys, values);
}

/// Perfusion's key lock: the value that the superclass has, o = W i, in double. A concept whose
/// keys are locked takes it for its own in the layers that make attention's keys, and starts from
/// it in those that make values.
///
/// \param w       [out x in], any storage scalar
/// \param keys    [concepts x in], any storage scalar
/// \return        [concepts x out]
/// \throws std::invalid_argument if shapes do not fit, there is no key, a key is not finite, or W
///         is empty or contiguous neither by rows nor by columns
template <Backend B, In<2> W, In<2> K>
RowMatrix<double> locked_value(const B& backend, const W& w, const K& keys) {
  constexpr const char* function = "factor::locked_value";
  const auto view = detail::checked_weight(function, as_const(to_view(w)));
  const auto rows = detail::key_rows(function, "keys", as_const(to_view(keys)), view.cols());
  return detail::products_of(backend, view, rows);
}

/// \overload
template <In<2> W, In<2> K>
RowMatrix<double> locked_value(const W& w, const K& keys) {
  return locked_value(simd, w, keys);
}

PARE_REFUSE_CALLS(rome_edits, "factor::rome_edits", "after values: wanted nothing",
                  (INPUT, (roles::Reads<2>), "w", "[out, in]"),
                  (PLAIN, (roles::Takes<detail::IsInverseMoment>), "inverse", "an InverseMoment"),
                  (INPUT, (roles::Reads<2>), "keys", "[concepts, in]"),
                  (INPUT, (roles::Reads<2>), "values", "[concepts, out]"))
PARE_REFUSE_CALLS(perfusion_edits, "factor::perfusion_edits",
                  "after values: wanted an EditGate such as SigmoidGate{.beta = 0.6}, noexcept and "
                  "of double",
                  (INPUT, (roles::Reads<2>), "w", "[out, in]"),
                  (PLAIN, (roles::Takes<detail::IsInverseMoment>), "inverse", "an InverseMoment"),
                  (INPUT, (roles::Reads<2>), "keys", "[concepts, in]"),
                  (INPUT, (roles::Reads<2>), "values", "[concepts, out]"))
PARE_REFUSE_CALLS(rank_one_edit, "factor::rank_one_edit", "after values: wanted nothing",
                  (INPUT, (roles::Reads<2>), "w", "[out, in]"),
                  (PLAIN, (roles::Takes<detail::IsInverseMoment>), "inverse", "an InverseMoment"),
                  (INPUT, (roles::Reads<2>), "keys", "[concepts, in]"),
                  (INPUT, (roles::Reads<2>), "values", "[concepts, out]"))
PARE_REFUSE_CALLS(locked_value, "factor::locked_value", "after keys: wanted nothing",
                  (INPUT, (roles::Reads<2>), "w", "[out, in]"),
                  (INPUT, (roles::Reads<2>), "keys", "[concepts, in]"))

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
