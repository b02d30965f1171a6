// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Gates: which experts a row goes to by its logits, and with which weights.
///
/// ```cpp
/// Routes<float> routes = route(logits, TopK{.k = 2});              // logits [rows, experts]
/// route(pare::simd.threads(4), logits, TopOne{}, routes);          // in the memory of routes
/// struct Nearest {                                                 // a gate of your own
///   pare::Index choices(pare::Index experts) const { return 1; }
///   void validate(const char* function, pare::Index experts) const {}
///   template <class Row>                                           // gate_row.hpp
///   void select(const Row& row) const {
///     row.take_largest();
///     row.weigh([](double logit) { return 1.0; });
///   }
/// };
/// ```
///
/// | gate | experts of a row | weights |
/// |---|---|---|
/// | `TopOne` | the largest logit | its share of the softmax, or its sigmoid, or 1 |
/// | `TopK` | the k largest | softmax over the k, or their shares of the softmax over all |
/// | `TopHalf` (FactorLLM) | the k largest, k = experts / 2 | all experts / k, rounded down |
/// | `TopBlocks` (SPT) | the k largest | all 1, or twice the sigmoid |
///
/// Of equal logits the expert of lower id is chosen. Ids of a row stand by falling logit. The two
/// weights of `TopK` differ: the former add up to 1.
///
/// - OneRec's decoder: `TopK{.k = 2}` of 24 experts, FeedForward layers. The residual stands
///   outside: copy x to y, and `combine(plan, parts, weights, y, {.accumulate = true})`.
/// - Sigma-MoE-Tiny: `TopOne` of 96. Its low layers take more experts at first and one later, so k
///   belongs to a layer and a step: `TopK{.k = k, .renormalize = false}`, which is `TopOne` where k
///   is 1. (Renormalised, a single weight is 1 and tells the router nothing.)
///
/// Sources: Sigma-MoE-Tiny, arXiv 2512.16248; OneRec, arXiv 2502.18965; top-k softmax in Shazeer et
/// al., arXiv 1701.06538, and Mixtral; FactorLLM, arXiv 2408.11855, by its code; SPT, arXiv
/// 2312.10365, by its code. Reconstructed: over what OneRec's softmax runs, whether Sigma weighs by
/// the softmax or by a sigmoid, and its k by layer and step are not public. SHRP's expert attention
/// (reconstructed) is `TopOne` over heads: expert_attention.hpp.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/routing/gate_row.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>

namespace pare::routing {

/// Experts and weights of rows, both [rows, choices].
template <ComputeScalar T>
struct Routes {
  RowMatrix<Index> ids;  ///< experts, those of a row all different
  RowMatrix<T> weights;
};

/// What a weight is that belongs to the logit of an expert.
enum class GateWeight : std::uint8_t {
  Softmax,  ///< the share of the softmax over all experts
  Sigmoid,  ///< 1 / (1 + e^-logit)
  One,      ///< 1
};

/// The expert of the largest logit.
struct TopOne {
  GateWeight weight = GateWeight::Softmax;

  Index choices(Index) const { return 1; }
  void validate(const char* function, Index) const {
    check_enumerator(function, "weight", weight, GateWeight::One);
  }
  template <class Row>
  void select(const Row& row) const {
    row.take_largest();
    if (weight == GateWeight::Softmax)
      row.weigh_by_softmax();
    else if (weight == GateWeight::Sigmoid)
      row.weigh(detail::sigmoid);
    else
      row.weigh([](double) { return 1.0; });
  }
};

/// The k experts of the largest logits.
struct TopK {
  Index k = 2;  ///< 1 to the number of experts; 2 of 24 in OneRec, of 8 in Mixtral
  /// Softmax over the k alone, so that weights add up to 1; else each has its share of the softmax
  /// over all experts.
  bool renormalize = true;

  Index choices(Index) const { return k; }
  void validate(const char* function, Index experts) const {
    detail::check_choices(function, k, experts);
  }
  template <class Row>
  void select(const Row& row) const {
    row.take_largest();
    if (renormalize)
      row.weigh_by_softmax_of_chosen();
    else
      row.weigh_by_softmax();
  }
};

/// FactorLLM: the k experts of the largest logits, all weighed experts / k, rounded down: 2 with
/// its 2 of 4. It makes up for the groups of neurons that are left out.
struct TopHalf {
  std::optional<Index> k{};  ///< 1 to the number of experts; left out: half of them, at least 1

  Index choices(Index experts) const { return k.value_or(detail::half_of(experts)); }
  void validate(const char* function, Index experts) const {
    detail::check_choices(function, choices(experts), experts);
  }
  template <class Row>
  void select(const Row& row) const {
    row.take_largest();
    const Index factor = row.experts() / choices(row.experts());
    const auto weight = static_cast<double>(factor);
    row.weigh([weight](double) { return weight; });
  }
};

/// SPT: the k blocks of the largest logits (its sigmoid keeps their order).
struct TopBlocks {
  /// 1 to the number of blocks; left out: half of them (SPT's layers with ReLU; a quarter, at least
  /// 1, in its gated ones), at least 1.
  std::optional<Index> k{};
  /// Its adapters (LoRA): weights are twice the sigmoid. Its plain layers weigh by 1.
  bool twice_sigmoid = false;

  Index choices(Index blocks) const { return k.value_or(detail::half_of(blocks)); }
  void validate(const char* function, Index blocks) const {
    detail::check_choices(function, choices(blocks), blocks);
  }
  template <class Row>
  void select(const Row& row) const {
    row.take_largest();
    if (twice_sigmoid)
      row.weigh([](double logit) { return 2 * detail::sigmoid(logit); });
    else
      row.weigh([](double) { return 1.0; });
  }
};

/// A gate: `choices(experts)`, the number of experts of each row; `validate(function, experts)`,
/// which throws std::invalid_argument if its options do not fit; and `select(row)`, which chooses
/// and weighs by the calls of GateRow (gate_row.hpp). That ids are in range is left to RoutePlan.
/// Several threads call select at the same time.
template <class G>
concept Gate = requires(const G& g, const GateRow<float>& row, Index experts) {
  { g.choices(experts) } -> std::same_as<Index>;
  g.validate("", experts);
  g.select(row);
};

namespace detail {
PARE_ABI_BEGIN

template <class B, class T, Gate G>
void run_gate(const B& backend, TensorView<const T, 2> logits, const G& gate, Routes<T>& routes) {
  constexpr Index block = 64;
  const auto select = [&](Index item, int) {
    for (Index r = item * block; r < std::min(logits.rows(), (item + 1) * block); ++r)
      gate.select(GateRow<T>(logits, r, routes.ids, routes.weights));
  };
  if constexpr (KernelBackend<B>)
    parallel_for(backend.executor, ceil_div(logits.rows(), block), select);
  else
    for (Index item = 0; item < ceil_div(logits.rows(), block); ++item) select(item, 0);
}

template <class B, class T, Gate G>
void checked_route(const B& backend, TensorView<const T, 2> logits, const G& gate,
                   Routes<T>& routes) {
  constexpr const char* function = "routing::route";
  check_view(function, "logits", logits);
  check(logits.cols() >= 1, function, "logits", logits.extent, "at least one expert");
  gate.validate(function, logits.cols());
  const Index choices = gate.choices(logits.cols());
  check_choices(function, choices, logits.cols());
  checked_count(function, "logits", checked_product(function, "logits", logits.rows(), choices),
                sizeof(Index));
  for (Index r = 0; r < logits.rows(); ++r)
    for (Index e = 0; e < logits.cols(); ++e)
      check(!is_nan(logits(r, e)) && logits(r, e) < std::numeric_limits<T>::infinity(), function,
            "logits", std::array<Index, 2>{r, e},
            "[row, expert] with a logit that is neither NaN nor +infinity");
  // Routes are made anew, or written while later rows are read.
  check_no_overlap(function, "routes", const_view(routes.weights), "logits", logits);
  check_no_overlap(function, "routes", const_view(routes.ids), "logits", logits);
  routes.ids.resize(logits.rows(), choices);
  routes.weights.resize(logits.rows(), choices);
  run_gate(backend, logits, gate, routes);
}

template <class X>
using IsGate = std::bool_constant<Gate<std::remove_cvref_t<X>>>;
template <class X>
struct IsRoutesOf : std::false_type {};
template <class T>
struct IsRoutesOf<Routes<T>> : std::true_type {};
template <class X>
using TakesRoutes = IsRoutesOf<std::remove_cvref_t<X>>;

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Chooses experts for rows of logits.
///
/// \param backend left out: pare::simd
/// \param logits  [rows, experts] of float or double, any strides, at least one expert; -infinity
///                is never chosen before a finite logit
/// \param gate    TopOne, TopK, TopHalf, TopBlocks, or a Gate of your own
/// \param routes  resized to [rows, choices], in its own memory where the size is the same; apart
///                from the logits
/// \throws std::invalid_argument if a logit is NaN or +infinity, naming its row, the gate does not
///         fit the experts, or the logits lie in `routes`. `routes` is as it was then.
///
/// Cost: per row a pass over its logits for each choice up to 8, else a sort of them, and where
/// weights are shares of a softmax over all, an exponential per logit: in double, whatever the
/// backend, because a gate is small beside what it routes to. The same bits for any number of
/// threads and on all backends.
template <Backend B, In<2> L, Gate G>
requires ComputeScalar<scalar_of<L>>
void route(const B& backend, const L& logits, const G& gate, Routes<scalar_of<L>>& routes) {
  detail::checked_route(backend, as_const(to_view(logits)), gate, routes);
}

/// \overload
template <In<2> L, Gate G>
requires ComputeScalar<scalar_of<L>>
void route(const L& logits, const G& gate, Routes<scalar_of<L>>& routes) {
  route(simd, logits, gate, routes);
}

/// \overload
/// Returns the routes.
template <Backend B, In<2> L, Gate G>
requires ComputeScalar<scalar_of<L>>
Routes<scalar_of<L>> route(const B& backend, const L& logits, const G& gate) {
  Routes<scalar_of<L>> routes;
  route(backend, logits, gate, routes);
  return routes;
}

/// \overload
template <In<2> L, Gate G>
requires ComputeScalar<scalar_of<L>>
Routes<scalar_of<L>> route(const L& logits, const G& gate) {
  return route(simd, logits, gate);
}

PARE_REFUSE_CALLS(route, "routing::route", "after the gate: wanted Routes of the logits' scalar",
                  (INPUT, (roles::ReadsCompute<2>), "logits", "[rows, experts]"),
                  (PLAIN, (roles::Takes<detail::IsGate>), "gate",
                   "TopOne, TopK, TopHalf, TopBlocks, or a Gate of your own"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
