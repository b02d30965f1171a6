// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// TreeFlash's correction: a row of a block drafter, told which token comes before it.
///
///     h'_r = h + W_down (silu(g) * u),   [u; g] = W_previous RMSNorm(e_r) + W_state n + b
///
/// for the embedding e_r of a previous token, the row h of its depth before the drafter's last
/// norm, and n the same row behind it. The head takes RMSNorm(h').
///
/// ```cpp
/// // ug [2 I, 2 d] and its bias, d_proj [d, I] as the checkpoint has them, viewed in parts:
/// const BranchCorrection correct(BranchCorrectionWeights<DenseLinear<float>>{
///     .norm = norm, .previous = DenseLinear<float>(columns_of(ug, 0, d)),
///     .state = DenseLinear<float>(columns_of(ug, d, d)), .bias = bias,
///     .down = DenseLinear<float>(d_proj)});
/// correct.apply(plain, normed, previous, depths, out);   // a row for each token
/// ```
///
/// branch_lists.hpp makes a transition table of it. Each row is conditioned on one token, not on
/// its path: what is further up counts through h alone.
///
/// Source: TreeFlash, arXiv 2606.03819, its code (tree_flash.py, SwiGLUApproximation). Ours: the
/// product with [RMSNorm(e); n] in two parts, of which that of n is computed once for each depth
/// and not for each token.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/transformer/gates.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/norms.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::draft {
PARE_ABI_BEGIN

/// Weights of a correction, as the checkpoint has them but for `ug`, whose columns lie in two.
template <class L>
requires transformer::LinearOf<L, transformer::linear_scalar<L>>
struct BranchCorrectionWeights {
  using scalar = transformer::linear_scalar<L>;

  std::vector<scalar> norm;  ///< [d], of embeddings
  L previous;                ///< [2 I, d], ug's first d columns: u in rows 0 to I - 1, then g
  L state;                   ///< [2 I, d], its last d columns
  std::optional<std::vector<scalar>> bias{};  ///< [2 I]
  L down;                                     ///< [d, I]
  double norm_epsilon = 1e-6;

  Index width() const { return down.outputs(); }
  Index hidden() const { return down.inputs(); }

  /// \throws std::invalid_argument if a weight does not have its shape or epsilon is negative or
  ///         not finite; `function` is named
  void validate(const char* function) const {
    const Index d = width(), inner = checked_product(function, "down", hidden(), 2);
    check_extents<2>(function, "previous", {previous.outputs(), previous.inputs()}, {inner, d});
    check_extents<2>(function, "state", {state.outputs(), state.inputs()}, {inner, d});
    check(static_cast<Index>(norm.size()) == d, function, "norm", norm.size(), d);
    check(!bias || static_cast<Index>(bias->size()) == inner, function, "bias",
          bias ? bias->size() : 0, inner);
    check(is_finite(norm_epsilon) && norm_epsilon >= 0, function, "norm_epsilon", norm_epsilon,
          "a finite number of at least 0");
  }
};

/// A correction with projections L. It can be moved, not copied; calls do not change it.
template <class L>
requires transformer::LinearOf<L, transformer::linear_scalar<L>>
class BranchCorrection {
 public:
  using scalar = transformer::linear_scalar<L>;

  /// \throws std::invalid_argument as BranchCorrectionWeights::validate
  explicit BranchCorrection(BranchCorrectionWeights<L> weights) : weights_(std::move(weights)) {
    weights_.validate("draft::BranchCorrection");
  }

  const BranchCorrectionWeights<L>& weights() const { return weights_; }
  Index width() const { return weights_.width(); }

  /// out_r = the row of depth depths[r] after the token whose embedding is previous_r.
  ///
  /// \param backend  left out: pare::simd
  /// \param plain    [depths, d], as DraftBlock::draft_plain gives them
  /// \param normed   [depths, d], the same rows normed
  /// \param previous [tokens, d]
  /// \param depths   [tokens], each a row of plain
  /// \param out      [tokens, d], apart from all of these and from what dense weights lie in
  /// \throws std::invalid_argument if a shape does not fit, a depth is no row, or out overlaps what
  ///         it must not. Nothing is written then. No tokens: a no-op.
  ///
  /// Cost: 2 d (3 I) FLOPs a token and 2 d (2 I) a depth. Memory: 2 I + 2 d numbers a token, 2 I a
  /// depth, in the backend's workspace. The same bits for any number of threads.
  template <Backend B, In<2> H, In<2> N, In<2> E, Out<2> Y>
  requires SameScalar<H, N, E, Y> && std::is_same_v<scalar_of<H>, scalar>
  void apply(const B& backend, const H& plain, const N& normed, const E& previous,
             std::span<const Index> depths, Y&& out) const {
    const auto h = as_const(to_view(plain));
    const auto n = as_const(to_view(normed));
    const auto e = as_const(to_view(previous));
    const auto y = to_view(out);
    check_call(h, n, e, depths, y);
    if (y.rows() > 0) run(on_any_executor(backend), h, n, e, depths, y);
  }
  /// \overload
  template <In<2> H, In<2> N, In<2> E, Out<2> Y>
  requires SameScalar<H, N, E, Y> && std::is_same_v<scalar_of<H>, scalar>
  void apply(const H& plain, const N& normed, const E& previous, std::span<const Index> depths,
             Y&& out) const {
    apply(simd, plain, normed, previous, depths, out);
  }
  PARE_REFUSE_CONST_CALLS(apply, "draft::BranchCorrection::apply",
                          "wanted plain, normed, previous and out of float (of double with weights "
                          "of double), and depths of pare::Index",
                          (INPUT, (roles::Reads<2>), "plain", "[depths, d]"),
                          (INPUT, (roles::ReadsSame<2>), "normed", "[depths, d]"),
                          (INPUT, (roles::ReadsSame<2>), "previous", "[tokens, d]"),
                          (ANY, (roles::TakesAny), "depths", "[tokens]"),
                          (OUTPUT, (roles::WritesComputed<2>), "out", "[tokens, d]"))

 private:
  using Rows = TensorView<const scalar, 2>;
  using Matrix = TensorView<scalar, 2>;
  static constexpr const char* apply_name = "draft::BranchCorrection::apply";

  void check_call(Rows h, Rows n, Rows e, std::span<const Index> depths, Matrix y) const {
    check_view(apply_name, "plain", h);
    check_extents<2>(apply_name, "plain", h.extent, {h.rows(), width()});
    check_view(apply_name, "normed", n);
    check_extents<2>(apply_name, "normed", n.extent, h.extent);
    check_view(apply_name, "previous", e);
    check_extents<2>(apply_name, "previous", e.extent, {e.rows(), width()});
    check(static_cast<Index>(depths.size()) == e.rows(), apply_name, "depths", depths.size(),
          Worded{"one for each of ", e.rows(), " tokens"});
    for (const Index d : depths)
      check(d >= 0 && d < h.rows(), apply_name, "depths", d, Worded{"rows below ", h.rows()});
    check_writable(apply_name, "out", y);
    check_extents<2>(apply_name, "out", y.extent, e.extent);
    check_no_overlap(apply_name, "out", y, "plain", h);
    check_no_overlap(apply_name, "out", y, "normed", n);
    check_no_overlap(apply_name, "out", y, "previous", e);
    check_no_overlap(apply_name, "out", y, "depths", to_vector_view(depths));
    for (const L* layer : {&weights_.previous, &weights_.state, &weights_.down})
      transformer::check_apart_from_layer(apply_name, "out", y, *layer);
    checked_product(apply_name, "previous", e.rows(), 2 * std::max(width(), weights_.hidden()));
  }

  template <class B>
  void run(const B& backend, Rows h, Rows n, Rows e, std::span<const Index> depths,
           Matrix y) const {
    Workspace own;
    const B on = keeping(backend, own);
    const auto memory = leased<AlignedBuffer<std::byte>>(on);
    const Index tokens = e.rows(), inner = weights_.hidden();
    Matrix embedded{nullptr, e.extent, {width(), 1}},
        delta = embedded, of_token{nullptr, {tokens, 2 * inner}, {2 * inner, 1}},
        of_depth{nullptr, {h.rows(), 2 * inner}, {2 * inner, 1}};
    carve_from(*memory, [&](Carver& take) {
      for (Matrix* m : {&embedded, &delta, &of_token, &of_depth})
        take(m->data, m->rows() * m->cols());
    });
    transformer::rms_norm(on, e, weights_.norm, embedded, {.epsilon = weights_.norm_epsilon});
    weights_.previous.apply(on, as_const(embedded), of_token);
    weights_.state.apply(on, n, of_depth);
    for (Index r = 0; r < tokens; ++r) {
      const Index depth = depths[static_cast<std::size_t>(r)];
      for (Index i = 0; i < 2 * inner; ++i)
        of_token(r, i) +=
            of_depth(depth, i) +
            (weights_.bias ? (*weights_.bias)[static_cast<std::size_t>(i)] : scalar(0));
    }
    const Matrix u = columns_of(of_token, 0, inner), g = columns_of(of_token, inner, inner);
    transformer::activate_gated(on, g, u, u, transformer::Silu{});
    weights_.down.apply(on, as_const(u), delta);
    for (Index r = 0; r < tokens; ++r)
      for (Index j = 0; j < width(); ++j)
        y(r, j) = h(depths[static_cast<std::size_t>(r)], j) + delta(r, j);
  }

  BranchCorrectionWeights<L> weights_;
};

PARE_ABI_END

namespace detail {
template <class X>
struct IsCorrection : std::false_type {};
template <class L>
struct IsCorrection<BranchCorrection<L>> : std::true_type {};
}  // namespace detail
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
