// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The length of what each attention head adds to a token: a score for top-1 routing where no
/// router was trained (head_usage.hpp).
///
/// ```cpp
/// head_contributions(attended, wo, lengths);  // [tokens x heads x dim], [outputs x heads x dim]
/// usage.add(lengths);                         // [tokens x heads]
/// ```
///
///     length(t, h) = | W_o,h a_h(t) |_2,   a_h(t) = what head h attends to, W_o,h = its columns
///
/// Source: ours; SHRP's router is not public.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/multiply.hpp>

#include <algorithm>
#include <cmath>

namespace pare::attention {
namespace detail {
PARE_ABI_BEGIN

/// Tokens whose products with one head's columns are in memory at once: 512 KiB of floats where a
/// token has 512 outputs.
inline constexpr Index contribution_tokens = 256;

template <Backend B, ComputeScalar T>
void head_contributions(const B& backend, TensorView<const T, 2> attended,
                        TensorView<const T, 2> wo, TensorView<T, 2> lengths) {
  constexpr const char* function = "attention::head_contributions";
  check_view(function, "attended", attended);
  check_view(function, "wo", wo);
  check_writable(function, "lengths", lengths);
  const Index heads = lengths.cols();
  check(heads >= 1, function, "lengths", lengths.extent, "a column for each head, at least one");
  check_extents<2>(function, "lengths", lengths.extent, {attended.rows(), heads});
  check(attended.cols() >= 1 && attended.cols() % heads == 0, function, "attended", attended.extent,
        Worded{"columns that are a multiple of the ", heads, " heads"});
  check(wo.cols() == attended.cols(), function, "wo", wo.extent,
        Worded{"", attended.cols(), " columns, as attended has"});
  check_no_overlap(function, "lengths", lengths, "attended", attended);
  check_no_overlap(function, "lengths", lengths, "wo", wo);
  checked_product(function, "wo", wo.rows(), contribution_tokens * static_cast<Index>(sizeof(T)));
  const Index dim = attended.cols() / heads;
  const auto memory = leased<AlignedBuffer<T>>(backend);
  for (Index first = 0; first < attended.rows(); first += contribution_tokens) {
    const Index tokens = std::min(contribution_tokens, attended.rows() - first);
    const TensorView<T, 2> added = matrix_in(*memory, tokens, wo.rows());
    for (Index h = 0; h < heads; ++h) {
      linalg::multiply(backend, columns_of(rows_of(attended, first, tokens), h * dim, dim),
                       transpose(columns_of(wo, h * dim, dim)), added);
      for (Index t = 0; t < tokens; ++t) {
        double squares = 0;
        for (Index o = 0; o < wo.rows(); ++o)
          squares += static_cast<double>(added(t, o)) * static_cast<double>(added(t, o));
        lengths(first + t, h) = static_cast<T>(std::sqrt(squares));
      }
    }
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The length of what each head adds to each token, before the sum over heads.
///
/// \param backend  left out: pare::simd
/// \param attended [tokens x heads dim] what the heads attend to, head by head: the input of the
///                 output projection. float or double
/// \param wo       [outputs x heads dim] the weight of the output projection
/// \param lengths  [tokens x heads], which says how many heads there are
/// \throws std::invalid_argument if shapes do not fit, or lengths overlap an input
///
/// Cost: 2 tokens outputs heads dim FLOPs, those of the projection itself, which bind. Memory: 256
/// tokens of outputs, kept in the backend's workspace, and that of linalg::multiply. Squares are
/// summed in double. A NaN stays in its token and head. The bits are the same for any threads.
template <Backend B, In<2> A, In<2> W, Out<2> L>
requires(SameScalar<A, W, L> && ComputeScalar<scalar_of<A>>)
void head_contributions(const B& backend, const A& attended, const W& wo, L&& lengths) {
  detail::head_contributions(on_any_executor(backend), as_const(to_view(attended)),
                             as_const(to_view(wo)), to_view(lengths));
}

/// \overload
template <In<2> A, In<2> W, Out<2> L>
requires(SameScalar<A, W, L> && ComputeScalar<scalar_of<A>>)
void head_contributions(const A& attended, const W& wo, L&& lengths) {
  head_contributions(simd, attended, wo, lengths);
}

PARE_REFUSE_CALLS(head_contributions, "attention::head_contributions",
                  "after lengths: wanted nothing",
                  (INPUT, (roles::ReadsCompute<2>), "attended", "[tokens, heads x dim]"),
                  (INPUT, (roles::ReadsSame<2>), "wo", "[outputs, heads x dim]"),
                  (OUTPUT, (roles::WritesComputed<2>), "lengths", "[tokens, heads]"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
