// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How well a draft head stands for another, on a sample of hidden states: whether the likeliest
/// token is the same, how much of the law they share, and how far apart the laws are.
///
/// ```cpp
/// const HeadAgreement same = compare_heads(thin, dense, states);  // states [rows, inputs]
/// same.top_1;    // share of rows with the same likeliest token
/// same.overlap;  // mean sum_i min(p_i, q_i): the chance that a draft token is accepted
/// ```
///
/// With p the law of the exact head and q that of the draft, at a temperature. A token that the
/// draft head does not have is one of probability 0 of q.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/detail/head_argument.hpp>
#include <pare/draft/head.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>

namespace pare::draft {

/// Means over the rows of a sample.
struct HeadAgreement {
  double top_1 = 0;       ///< share of rows with the same likeliest token
  double overlap = 0;     ///< sum_i min(p_i, q_i), in [0, 1]: what verification accepts on average
  double divergence = 0;  ///< sum_i p_i log(p_i / q_i), infinite if a token of p is not in q
};

PARE_ABI_BEGIN

/// \param backend     left out: pare::simd
/// \param draft       q
/// \param exact       p, over the same vocabulary and inputs, with an output for each token
/// \param hidden      [rows, inputs], at least one row
/// \param temperature of both laws; above 0
/// \throws std::invalid_argument if heads differ in inputs or vocabulary, there is no row, the
///         temperature is not above 0, or a row has no law
/// Memory: the logits of one row of either.
template <Backend B, DraftHead Q, DraftHead P, HeadRows<typename P::scalar> X>
requires std::is_same_v<typename Q::scalar, typename P::scalar>
HeadAgreement compare_heads(const B& backend, const Q& draft, const P& exact, const X& hidden,
                            double temperature = 1) {
  constexpr const char* function = "draft::compare_heads";
  using T = typename P::scalar;
  const auto h = as_const(to_view(hidden));
  check_view(function, "hidden", h);
  check_extents<2>(function, "hidden", h.extent, {h.rows(), exact.inputs()});
  check(h.rows() >= 1, function, "hidden", h.rows(), "at least one row");
  check(draft.inputs() == exact.inputs(), function, "draft", draft.inputs(),
        Worded{"the inputs of exact, ", exact.inputs()});
  check(draft.vocabulary() == exact.vocabulary() && exact.ids().empty(), function, "draft",
        draft.vocabulary(), Worded{"the tokens of exact, all ", exact.outputs()});
  check(is_finite(temperature) && temperature > 0, function, "temperature", temperature,
        "a finite number above 0");
  const double t = std::max(temperature, least_temperature);
  RowMatrix<T> zq(1, draft.outputs()), zp(1, exact.outputs());
  const auto ids = draft.ids();
  HeadSummary<T> sq, sp;
  HeadAgreement sums;
  for (Index r = 0; r < h.rows(); ++r) {
    auto one = h;
    one.data = &h(r, 0);
    one.extent[0] = 1;
    draft.reduce(backend, one, {.k = 1, .temperature = t}, sq);
    exact.reduce(backend, one, {.k = 1, .temperature = t}, sp);
    check(sq.status[0] == RowStatus::Sound && sp.status[0] == RowStatus::Sound, function, "hidden",
          Worded{"row ", r}, "rows whose logits are finite");
    draft.logits(backend, one, zq);
    exact.logits(backend, one, zp);
    sums.top_1 += sq.id(0, 0) == sp.id(0, 0) ? 1 : 0;
    Index at = 0;
    for (Index i = 0; i < zp.cols(); ++i) {
      const bool here = ids.empty() || (at < zq.cols() && ids[static_cast<std::size_t>(at)] == i);
      const double log_p = static_cast<double>(zp(0, i)) / t - sp.log_sum_exp[0];
      const double log_q = here ? static_cast<double>(zq(0, at++)) / t - sq.log_sum_exp[0]
                                : -std::numeric_limits<double>::infinity();
      const double p = std::exp(log_p);
      sums.overlap += std::min(p, std::exp(log_q));
      if (p > 0) sums.divergence += p * (log_p - log_q);
    }
  }
  const auto n = static_cast<double>(h.rows());
  return {sums.top_1 / n, sums.overlap / n, sums.divergence / n};
}
/// \overload
template <DraftHead Q, DraftHead P, HeadRows<typename P::scalar> X>
requires std::is_same_v<typename Q::scalar, typename P::scalar>
HeadAgreement compare_heads(const Q& draft, const P& exact, const X& hidden,
                            double temperature = 1) {
  return compare_heads(simd, draft, exact, hidden, temperature);
}

PARE_REFUSE_CALLS(compare_heads, "draft::compare_heads",
                  "wanted two heads of one scalar, hidden of it, and a temperature",
                  (PLAIN, (roles::Takes<detail::IsHead>), "draft", "a DraftHead"),
                  (PLAIN, (roles::Takes<detail::IsHead>), "exact", "a DraftHead"),
                  (INPUT, (roles::Reads<2>), "hidden", "[rows, inputs]"))

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
