// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// DirectAU: users and items that belong together lie close (alignment), and both lie evenly on
/// the sphere (uniformity). It needs no negative samples.
///
/// ```cpp
/// const DirectAu loss = direct_au(users, items, by_users, by_items, {.gamma = 5});
/// loss.total;                                           // row b of both is a pair of the batch
/// alignment(users, items);                              // one part alone
/// ```
///
///     alignment(x, y) = mean over rows of |u_b - v_b|^2,   u = x / |x|, v = y / |y|
///     DirectAU(x, y)  = alignment(x, y) + gamma (uniformity(x) + uniformity(y)) / 2
///
/// with uniformity.hpp for the other part. Gradients are those by x and y, through the norms:
/// d alignment / dx_b = -2 (v_b - u_b <u_b, v_b>) / (rows |x_b|).
///
/// Source: Wang et al., KDD 2022, by its code: gamma .5 (Beauty, batches of 256), 5 (Gowalla, 1024)
/// and 1 (Yelp, 1024), width 64, Adam at 1e-3.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/retrieval/detail/gradient_of.hpp>
#include <pare/retrieval/detail/unit_rows.hpp>
#include <pare/retrieval/objectives/uniformity.hpp>

#include <cstddef>
#include <vector>

namespace pare::retrieval {

/// Options of direct_au.
struct DirectAuOptions {
  double gamma = 1;  ///< weight of uniformity; finite, at least 0
  double t = 2;      ///< as UniformityOptions
};

/// The loss and its parts.
struct DirectAu {
  double total = 0;
  double alignment = 0;
  double user_uniformity = 0;
  double item_uniformity = 0;
};

namespace detail {
PARE_ABI_BEGIN

struct AlignmentMemory {
  std::vector<double> x, y;  ///< [rows] inverse norms
};

template <class S>
void check_alignment(const char* function, const char* first, const char* second,
                     TensorView<const S, 2> x, TensorView<const S, 2> y, AlignmentMemory& memory) {
  check_view(function, first, x);
  check_view(function, second, y);
  check(x.rows() >= 1 && x.cols() >= 1, function, first, x.extent, "at least one row and column");
  check_extents<2>(function, second, y.extent, x.extent);
  check_unit_rows(function, first, x, memory.x);
  check_unit_rows(function, second, y, memory.y);
}

/// Of checked rows: <u_b, v_b>.
template <class S>
double unit_dot(TensorView<const S, 2> x, TensorView<const S, 2> y, const AlignmentMemory& memory,
                Index row) {
  const double by_x = memory.x[static_cast<std::size_t>(row)];
  const double by_y = memory.y[static_cast<std::size_t>(row)];
  double dot = 0;
  for (Index c = 0; c < x.cols(); ++c)
    dot += (widened(x(row, c)) * by_x) * (widened(y(row, c)) * by_y);
  return dot;
}

/// The distances themselves, not 2 - 2 <u, v>, of which little is right where rows are close.
template <class S>
double alignment_of(TensorView<const S, 2> x, TensorView<const S, 2> y,
                    const AlignmentMemory& memory) {
  double sum = 0;
  for (Index b = 0; b < x.rows(); ++b) {
    const double by_x = memory.x[static_cast<std::size_t>(b)];
    const double by_y = memory.y[static_cast<std::size_t>(b)];
    for (Index c = 0; c < x.cols(); ++c) {
      const double d = widened(x(b, c)) * by_x - widened(y(b, c)) * by_y;
      sum += d * d;
    }
  }
  return sum / static_cast<double>(x.rows());
}

/// Adds the gradients of alignment to both.
template <class S>
void add_alignment_gradient(TensorView<const S, 2> x, TensorView<const S, 2> y,
                            const AlignmentMemory& memory, TensorView<compute_t<S>, 2> by_x,
                            TensorView<compute_t<S>, 2> by_y) {
  const double factor = -2 / static_cast<double>(x.rows());
  for (Index b = 0; b < x.rows(); ++b) {
    const double nx = memory.x[static_cast<std::size_t>(b)];
    const double ny = memory.y[static_cast<std::size_t>(b)];
    const double dot = unit_dot(x, y, memory, b);
    for (Index c = 0; c < x.cols(); ++c) {
      const double u = widened(x(b, c)) * nx, v = widened(y(b, c)) * ny;
      by_x(b, c) =
          static_cast<compute_t<S>>(static_cast<double>(by_x(b, c)) + factor * (v - u * dot) * nx);
      by_y(b, c) =
          static_cast<compute_t<S>>(static_cast<double>(by_y(b, c)) + factor * (u - v * dot) * ny);
    }
  }
}

template <class S>
double alignment(TensorView<const S, 2> x, TensorView<const S, 2> y) {
  AlignmentMemory memory;
  check_alignment("retrieval::alignment", "x", "y", x, y, memory);
  return alignment_of(x, y, memory);
}

template <class S>
void check_gradient(const char* function, const char* argument,
                    TensorView<compute_t<S>, 2> gradient, TensorView<const S, 2> users,
                    TensorView<const S, 2> items) {
  check_writable(function, argument, gradient);
  check_extents<2>(function, argument, gradient.extent, users.extent);
  check_no_overlap(function, argument, gradient, "users", users);
  check_no_overlap(function, argument, gradient, "items", items);
}

template <class B, class S>
DirectAu direct_au(const B& backend, TensorView<const S, 2> users, TensorView<const S, 2> items,
                   TensorView<compute_t<S>, 2> by_users, TensorView<compute_t<S>, 2> by_items,
                   const DirectAuOptions& options) {
  constexpr const char* function = "retrieval::direct_au";
  check(options.gamma >= 0 && is_finite(options.gamma), function, "gamma", options.gamma,
        "a finite number of at least 0");
  check(options.t > 0 && options.t <= 20, function, "t", options.t, "above 0, at most 20");
  check(users.rows() >= 2, function, "users", users.extent, "at least two rows");
  const auto memory = leased<AlignmentMemory>(backend);
  check_alignment(function, "users", "items", users, items, *memory);
  check_gradient(function, "user_gradient", by_users, users, items);
  check_gradient(function, "item_gradient", by_items, users, items);
  check_no_overlap(function, "user_gradient", by_users, "item_gradient", by_items);
  const UniformityOptions half{.t = options.t, .weight = options.gamma / 2};
  DirectAu loss;
  loss.user_uniformity = uniformity_gradient(backend, users, by_users, half);
  loss.item_uniformity = uniformity_gradient(backend, items, by_items, half);
  loss.alignment = alignment_of(users, items, *memory);
  add_alignment_gradient(users, items, *memory, by_users, by_items);
  loss.total = loss.alignment + options.gamma * (loss.user_uniformity + loss.item_uniformity) / 2;
  return loss;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The mean squared distance of unit rows that belong together; 0 where all point the same way, at
/// most 4.
///
/// \param x [rows, dim] of float, double, bf16 or f16, any strides, at least one row
/// \param y the same
/// \throws std::invalid_argument if shapes differ, one is empty, or a row's norm is 0 or not finite
///
/// Cost: two reads, sums in double, on one thread.
template <In<2> X, In<2> Y>
requires SameScalar<X, Y>
double alignment(const X& x, const Y& y) {
  return detail::alignment(as_const(to_view(x)), as_const(to_view(y)));
}

/// DirectAU's loss of a batch, whose gradients it writes.
///
/// \param backend       left out: pare::simd
/// \param users,items   [pairs, dim] of float, double, bf16 or f16, any strides, at least two
///                      rows; row b of both is a pair
/// \param user_gradient [pairs, dim] of what they are computed in (float for 16 bits), written;
///                      apart from the others
/// \param item_gradient the same
/// \throws std::invalid_argument if shapes differ, there are fewer than two pairs, a row has the
///         norm 0 or one that is not finite, gradients overlap or do not fit, or an option is out
///         of its range. Nothing is written then.
///
/// Cost and memory: two of uniformity_gradient. The same bits for any number of threads.
template <Backend B, In<2> U, In<2> I, GradientOf<U> GU, GradientOf<U> GI>
requires SameScalar<U, I>
DirectAu direct_au(const B& backend, const U& users, const I& items, GU&& user_gradient,
                   GI&& item_gradient, const DirectAuOptions& options = {}) {
  return detail::direct_au(on_any_executor(backend), as_const(to_view(users)),
                           as_const(to_view(items)), to_view(user_gradient), to_view(item_gradient),
                           options);
}

/// \overload
template <In<2> U, In<2> I, GradientOf<U> GU, GradientOf<U> GI>
requires SameScalar<U, I>
DirectAu direct_au(const U& users, const I& items, GU&& user_gradient, GI&& item_gradient,
                   const DirectAuOptions& options = {}) {
  return direct_au(simd, users, items, user_gradient, item_gradient, options);
}

PARE_REFUSE_CALLS(alignment, "retrieval::alignment", "after y: wanted nothing",
                  (INPUT, (roles::Reads<2>), "x", "[rows, dim]"),
                  (INPUT, (roles::ReadsSame<2>), "y", "[rows, dim]"))
PARE_REFUSE_CALLS(direct_au, "retrieval::direct_au", "after item_gradient: wanted DirectAuOptions",
                  (INPUT, (roles::Reads<2>), "users", "[pairs, dim]"),
                  (INPUT, (roles::ReadsSame<2>), "items", "[pairs, dim]"),
                  (OUTPUT, (roles::WritesComputed<2>), "user_gradient", "[pairs, dim]"),
                  (OUTPUT, (roles::WritesComputed<2>), "item_gradient", "[pairs, dim]"))

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
