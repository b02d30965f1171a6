// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a row's experts made of it, added up: y_r = sum_p weight_p parts_p over the places p of the
/// row, by ascending expert.
///
/// ```cpp
/// grouped_multiply(x, plan, experts, parts);
/// combine(plan, parts, routes.weights, y);
/// combine(plan, parts, routes.weights, y, {.accumulate = true});    // y += ..., as a residual
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/kernel/sum_gathered.hpp>
#include <pare/routing/route_plan.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <type_traits>

namespace pare::routing {

/// Options of combine.
struct CombineOptions {
  bool accumulate = false;  ///< add to y, which is overwritten otherwise
};

namespace detail {
PARE_ABI_BEGIN

/// Sums of rows of a block, in memory of a worker: the weights of a row, and a row of y where those
/// of the caller do not lie contiguous.
template <class B, class T>
class CombineRun {
 public:
  CombineRun(const B& backend, const RoutePlan& plan, TensorView<const T, 2> parts,
             TensorView<const T, 2> weights, TensorView<T, 2> y, bool accumulate)
      : backend_(backend),
        plan_(plan),
        parts_(parts),
        weights_(weights),
        y_(y),
        accumulate_(accumulate) {}

  void run() {
    constexpr Index block = 32;
    const Index items = ceil_div(y_.rows(), block);
    const auto memory = leased<AlignedBuffer<T>>(backend_);
    const Index each = plan_.choices() + y_.cols();
    T* const room =
        memory->resize(static_cast<std::size_t>(each * worker_count(backend_.executor, items)));
    parallel_for(backend_.executor, items, [&](Index item, int worker) {
      for (Index r = item * block; r < std::min(y_.rows(), (item + 1) * block); ++r)
        add_row(r, room + worker * each);
    });
  }

 private:
  void add_row(Index r, T* room) const {
    const auto places = plan_.places_of(r);
    const Index columns = y_.cols();
    T* const weights = room;
    T* const row = room + plan_.choices();
    for (std::size_t i = 0; i < places.size(); ++i)
      weights[i] = weights_(r, plan_.choice_by_place()[static_cast<std::size_t>(places[i])]);
    kernel::SumGathered<T> a{.table = parts_.data,
                             .stride = parts_.stride[0],
                             .ids = places.data(),
                             .weights = weights,
                             .count = static_cast<Index>(places.size()),
                             .out = y_.data + r * y_.stride[0],
                             .columns = columns,
                             .accumulate = accumulate_};
    const bool copies = y_.stride[1] != 1;
    if (copies) {
      a.out = row;
      for (Index c = 0; accumulate_ && c < columns; ++c) row[c] = y_(r, c);
    }
    launch(backend_, a);
    for (Index c = 0; copies && c < columns; ++c) y_(r, c) = row[c];
  }

  const B& backend_;
  const RoutePlan& plan_;
  TensorView<const T, 2> parts_, weights_;
  TensorView<T, 2> y_;
  bool accumulate_;
};

template <class T>
void reference_combine(const RoutePlan& plan, TensorView<const T, 2> parts,
                       TensorView<const T, 2> weights, TensorView<T, 2> y, bool accumulate) {
  for (Index r = 0; r < y.rows(); ++r)
    for (Index c = 0; c < y.cols(); ++c) {
      double sum = accumulate ? static_cast<double>(y(r, c)) : 0;
      for (const Index p : plan.places_of(r))
        sum +=
            static_cast<double>(weights(r, plan.choice_by_place()[static_cast<std::size_t>(p)])) *
            static_cast<double>(parts(p, c));
      y(r, c) = static_cast<T>(sum);
    }
}

template <class B, class T>
void checked_combine(const B& backend, const RoutePlan& plan, TensorView<const T, 2> parts,
                     TensorView<const T, 2> weights, TensorView<T, 2> y,
                     const CombineOptions& options) {
  constexpr const char* function = "routing::combine";
  check_view(function, "parts", parts);
  check_extents<2>(function, "parts", parts.extent, {plan.routed(), parts.cols()});
  check_contiguous_rows(function, "parts", parts);
  check_view(function, "weights", weights);
  check_extents<2>(function, "weights", weights.extent, {plan.rows(), plan.choices()});
  check_writable(function, "y", y);
  check_extents<2>(function, "y", y.extent, {plan.rows(), parts.cols()});
  check_no_overlap(function, "y", y, "parts", parts);
  check_no_overlap(function, "y", y, "weights", weights);
  for (Index r = 0; r < weights.rows(); ++r)
    for (Index j = 0; j < weights.cols(); ++j)
      check(is_finite(static_cast<double>(weights(r, j))), function, "weights",
            std::array<Index, 2>{r, j}, "[row, choice] with a finite weight");
  if (y.rows() == 0 || y.cols() == 0) return;
  if (y.cols() == 1) y.stride[1] = 1;
  if constexpr (KernelBackend<B>)
    CombineRun<OnAnyExecutor<B>, T>(on_any_executor(backend), plan, parts, weights, y,
                                    options.accumulate)
        .run();
  else
    reference_combine(plan, parts, weights, y, options.accumulate);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Adds up the parts of each row.
///
/// \param backend left out: pare::simd
/// \param plan    the plan that `grouped_multiply` made the parts by
/// \param parts   [plan.routed(), columns] of float or double, rows contiguous
/// \param weights [plan.rows(), plan.choices()], as of `route`, finite; those of dropped pairs and
///                of choices of -1 do not count
/// \param y       [plan.rows(), columns], any strides, written; apart from what is read. A row
///                without a place is 0
/// \param options whether y is added to
/// \throws std::invalid_argument if an extent does not fit, rows of parts are not contiguous, a
///         weight is not finite, or y overlaps what is read. Nothing is written then.
///
/// Cost: parts are read once, which binds. Memory: a row of y per worker, in the backend's
/// workspace. Sums run by ascending expert: a row has the same bits in any batch and for any number
/// of threads.
template <Backend B, In<2> P, In<2> W, Out<2> Y>
requires ComputeScalar<scalar_of<P>> && SameScalar<P, W, Y>
void combine(const B& backend, const RoutePlan& plan, const P& parts, const W& weights, Y&& y,
             const CombineOptions& options = {}) {
  detail::checked_combine(backend, plan, as_const(to_view(parts)), as_const(to_view(weights)),
                          to_view(y), options);
}

/// \overload
template <In<2> P, In<2> W, Out<2> Y>
requires ComputeScalar<scalar_of<P>> && SameScalar<P, W, Y>
void combine(const RoutePlan& plan, const P& parts, const W& weights, Y&& y,
             const CombineOptions& options = {}) {
  combine(simd, plan, parts, weights, y, options);
}

PARE_REFUSE_CALLS(combine, "routing::combine", "after y: wanted CombineOptions",
                  (PLAIN, (roles::Takes<detail::IsPlan>), "plan", "a RoutePlan"),
                  (INPUT, (roles::ReadsCompute<2>), "parts", "[plan.routed(), columns]"),
                  (INPUT, (roles::ReadsSame<2>), "weights", "[rows, choices]"),
                  (OUTPUT, (roles::WritesSame<2>), "y", "[rows, columns] of the scalar of parts"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
