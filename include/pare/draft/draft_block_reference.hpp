// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of a draft block, in double: all of the context at once, no cache.
///
/// ```cpp
/// reference_draft_block(config, weights, transformer::rotary_frequencies(128, 1e6), tapped,
///                       embeddings, rows);      // rows [b - 1, d] of embeddings [b, d]
/// ```
///
/// It has the formulas of draft_block.hpp line by line. A DraftBlock whose cache has got the states
/// `tapped`, in any rounds, gives these rows but for rounding. The same sources.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/draft_block_config.hpp>
#include <pare/draft/draft_block_weights.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/gates.hpp>
#include <pare/transformer/norms.hpp>
#include <pare/transformer/rotary.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <type_traits>
#include <vector>

namespace pare::draft {
namespace detail {
PARE_ABI_BEGIN

/// The steps of a block, each a matrix in double.
template <class A>
struct ReferenceBlock {
  using Doubles = RowMatrix<double>;

  const DraftBlockConfig& config;
  const A& angles;

  template <class X>
  static Doubles in_double(const X& x) {
    Doubles wide(x.rows(), x.cols());
    for (Index r = 0; r < x.rows(); ++r)
      for (Index j = 0; j < x.cols(); ++j)
        wide(r, j) = static_cast<double>(static_cast<compute_t<scalar_of<X>>>(x(r, j)));
    return wide;
  }

  /// x W^T.
  template <class L>
  static Doubles times(const Doubles& x, const L& layer) {
    const Doubles w = in_double(layer.weights());
    Doubles y = Doubles::Zero(x.rows(), w.rows());
    for (Index r = 0; r < x.rows(); ++r)
      for (Index o = 0; o < w.rows(); ++o)
        for (Index i = 0; i < w.cols(); ++i) y(r, o) += w(o, i) * x(r, i);
    return y;
  }

  /// Each run of as many numbers as there are gains, normed.
  template <class T>
  Doubles normed(Doubles x, const std::vector<T>& gain) const {
    const auto dim = static_cast<Index>(gain.size());
    const TensorView<double, 2> runs{x.data(), {x.size() / dim, dim}, {dim, 1}};
    transformer::rms_norm(reference, runs, std::vector<double>(gain.begin(), gain.end()), runs,
                          {.epsilon = config.norm_epsilon});
    return x;
  }

  /// Rows as heads, [1, heads, rows, head dim].
  TensorView<double, 4> heads(Doubles& x) const {
    return {x.data(),
            {1, x.cols() / config.head_dim, x.rows(), config.head_dim},
            {x.size(), config.head_dim, x.cols(), 1}};
  }

  /// Rows at positions first, first + 1, ..., each head turned.
  Doubles turned(Doubles x, Index first) const {
    const transformer::RotaryTable<double> table(angles, first + x.rows());
    transformer::rotate(reference, heads(x), table,
                        {.layout = transformer::RotaryLayout::HalfSplit, .first_position = first});
    return x;
  }

  /// The last rows of the keys are those of the queries: row i sees keys up to its own.
  Doubles attended(Doubles q, Doubles k, Doubles v) const {
    Doubles out(q.rows(), q.cols());
    attention::attend(reference, heads(q), heads(k), heads(v), heads(out), {.causal = true});
    return out;
  }

  /// silu(gate) * up.
  static Doubles gated(const Doubles& gate, const Doubles& up) {
    Doubles out(gate.rows(), gate.cols());
    transformer::activate_gated(reference, gate, up, out, transformer::Silu{});
    return out;
  }

  static Doubles stacked(const Doubles& above, const Doubles& below) {
    Doubles both(above.rows() + below.rows(), below.cols());
    both.topRows(above.rows()) = above;
    both.bottomRows(below.rows()) = below;
    return both;
  }

  /// All rows of the block, [b, d].
  template <class S>
  Doubles rows(const DraftBlockWeights<transformer::DenseLinear<S>>& w, const Doubles& tapped,
               Doubles x) const {
    const Doubles context = normed(times(tapped, w.context), w.context_norm);
    for (const auto& layer : w.layers) {
      const Doubles h = normed(x, layer.input_norm), seen = stacked(context, h);
      const Doubles q = turned(normed(times(h, layer.query), layer.query_norm), context.rows());
      const Doubles k = turned(normed(times(seen, layer.key), layer.key_norm), 0);
      x += times(attended(q, k, times(seen, layer.value)), layer.output);
      const Doubles m = normed(x, layer.mlp_norm);
      x += times(gated(times(m, layer.gate), times(m, layer.up)), layer.down);
    }
    return normed(x, w.final_norm);
  }
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The rows that a block drafts behind a context.
///
/// \param weights    of dense layers
/// \param angles     RotaryAngles of head_dim / 2 pairs, of which a DraftBlock's table is made
/// \param tapped     [tokens, tapped width] of all of the context, any strides; none: no context
/// \param embeddings [b, d], b from 2 to the config's block
/// \param out        [b - 1, d] of the same scalar, apart from both
/// \throws std::invalid_argument if the config is not valid or a shape does not fit. Nothing is
///         written then.
/// Cost: 2 FLOPs in double for each weight and row, plain loops. Memory: some copies in double of
/// all rows, of a weight, and of what attends.
template <StorageScalar S, transformer::RotaryAngles A, In<2> C, In<2> X, Out<2> Y>
requires SameScalar<C, X, Y> && std::is_same_v<scalar_of<X>, compute_t<S>>
void reference_draft_block(const DraftBlockConfig& config,
                           const DraftBlockWeights<transformer::DenseLinear<S>>& weights,
                           const A& angles, const C& tapped, const X& embeddings, Y&& out) {
  constexpr const char* function = "draft::reference_draft_block";
  const auto c = as_const(to_view(tapped));
  const auto x = as_const(to_view(embeddings));
  const auto y = to_view(out);
  weights.validate(function, config);
  check(2 * static_cast<Index>(angles.pairs()) == config.head_dim, function, "angles",
        static_cast<Index>(angles.pairs()), Worded{"", config.head_dim / 2, " pairs"});
  check_view(function, "tapped", c);
  check_extents<2>(function, "tapped", c.extent, {c.rows(), config.tapped_width});
  check_view(function, "embeddings", x);
  check_extents<2>(function, "embeddings", x.extent, {x.rows(), config.width});
  check(x.rows() >= 2 && x.rows() <= config.block, function, "embeddings", x.rows(),
        Worded{"blocks of 2 to ", config.block, " rows"});
  check_writable(function, "out", y);
  check_extents<2>(function, "out", y.extent, {x.rows() - 1, config.width});
  check_no_overlap(function, "out", y, "tapped", c);
  check_no_overlap(function, "out", y, "embeddings", x);
  const detail::ReferenceBlock<A> block{config, angles};
  const RowMatrix<double> rows = block.rows(weights, block.in_double(c), block.in_double(x));
  for (Index r = 0; r < y.rows(); ++r)
    for (Index j = 0; j < y.cols(); ++j)
      y(r, j) = static_cast<scalar_of<X>>(rows(r + (config.draft_shift ? 0 : 1), j));
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
