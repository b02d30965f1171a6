// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sampled softmax: the cross-entropy of each user's item against a few sampled ones, or against
/// those of the other users of the batch, in the place of all items.
///
/// ```cpp
/// const auto proposal = Proposal::of(counts);
/// proposal.draw(negatives, {.seed = 7, .step = step});
/// double loss = sampled_softmax_gradient(
///     users, items, {positives, negatives, proposal.log_probabilities()}, by_users, by_items,
///     {.temperature = 0.1});
/// loss = sampled_softmax(users, items, {.positives = positives});  // negatives of the batch
/// ```
///
/// With u_i row i of users, v_k row k of items, p_i its positive, n_1 .. n_m the negatives, common
/// to all rows, and tau the temperature:
///
///     s_ik = <u_i, v_k> / tau,   z_ij = s_{i n_j} - ln(m q(n_j))
///     loss = mean over i of -s_{i p_i} + ln(e^{s_{i p_i}} + sum over j of e^{z_ij})
///
/// A negative that is the row's positive, an accidental hit, is left out of the sum. Of draws with
/// the probability q, the sum then has the mean of the sum over all other items, so that the loss
/// nears that of the full softmax as m grows; with every item once and no q it is that loss.
/// Without q, ln(m q) is 0.
///
/// Without a list of negatives, those of a row are the positives of the other rows, and m counts
/// them.
///
/// Memory: the logits of a block of rows, never of all.
///
/// Sources: Bengio and Senecal, AISTATS 2003; Jean et al., ACL 2015; in-batch negatives and their
/// correction: Yi et al., RecSys 2019. These and TensorFlow correct the positive's logit too
/// (`correct_positive`); we follow Khrylchenko et al., RecSys 2025 (arXiv 2507.09331), by whom it
/// stays as it is, since it was not drawn. Left out: their weight of each row.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/retrieval/detail/gradient_of.hpp>
#include <pare/retrieval/detail/reference_sampled_softmax.hpp>
#include <pare/retrieval/detail/softmax_batch.hpp>
#include <pare/retrieval/detail/softmax_blocks.hpp>
#include <pare/retrieval/objectives/proposal.hpp>

#include <cstddef>
#include <optional>
#include <span>

namespace pare::retrieval {

/// Which rows of items take part. It refers to the lists.
struct SampledItems {
  std::span<const Index> positives;  ///< [rows] the item of each row of users
  /// [m] items that all rows share, at least one, in any number and order; none: the positives of
  /// the other rows
  std::optional<std::span<const Index>> negatives = std::nullopt;
  /// [items] ln q, read of items that take part, where it is finite; empty: no correction
  std::span<const double> log_proposal = {};
  /// [items] what a row of items stands for: rows of one name are hits of each other; empty: each
  /// row for itself
  std::span<const Index> names = {};
};

/// Options of sampled softmax.
struct SampledSoftmaxOptions {
  double temperature = 1;  ///< that products are divided by; from 1e-30 to 1e30
  /// Leaves out negatives that are the row's positive, as TensorFlow. In a batch of its own
  /// negatives, a row is no negative of itself either way.
  bool remove_hits = true;
  bool correct_positive = false;  ///< takes ln(m q) off the positive's logit too
  /// Of the gradients by items: sets rows of items that take no part to 0. False leaves them as
  /// they are, for tables that are too large to be written at each step.
  bool clear = true;
};

namespace detail {
PARE_ABI_BEGIN

inline void check_rows_of_items(const char* function, const char* argument,
                                std::span<const Index> rows, Index items) {
  for (const Index row : rows)
    check(row >= 0 && row < items, function, argument, row,
          Worded{"a row of items, from 0 to below ", items});
}

inline void check_log_proposal(const char* function, std::span<const double> log_proposal,
                               std::span<const Index> rows) {
  if (log_proposal.empty()) return;
  for (const Index row : rows) {
    const double log_q = log_proposal[static_cast<std::size_t>(row)];
    check(is_finite(log_q), function, "log_proposal", log_q, "finite ones of items that take part");
  }
}

/// A list as long as the table of items, or empty.
template <class T>
void check_list(const char* function, const char* argument, std::span<const T> list, Index items) {
  check(list.empty() || static_cast<Index>(list.size()) == items, function, argument, list.size(),
        Worded{"", items, " numbers, one for each item, or none"});
}

/// \throws std::invalid_argument if an input is not as described
template <class S>
SoftmaxBatch<S> checked_batch(const char* function, TensorView<const S, 2> users,
                              TensorView<const S, 2> items, const SampledItems& sampled,
                              const SampledSoftmaxOptions& options) {
  check(options.temperature >= 1e-30 && options.temperature <= 1e30, function, "temperature",
        options.temperature, "from 1e-30 to 1e30");
  check_view(function, "users", users);
  check_view(function, "items", items);
  check(users.rows() >= 1 && users.cols() >= 1, function, "users", users.extent,
        "at least one row and column");
  check(items.cols() == users.cols(), function, "items", items.extent,
        Worded{"rows of ", users.cols()});
  check(static_cast<Index>(sampled.positives.size()) == users.rows(), function, "positives",
        sampled.positives.size(), Worded{"", users.rows(), " rows, one for each of users"});
  const bool in_batch = !sampled.negatives.has_value();
  if (in_batch)
    check(users.rows() >= 2, function, "users", users.extent,
          "at least two rows, which are each other's negatives");
  const std::span<const Index> negatives = in_batch ? sampled.positives : *sampled.negatives;
  check(!negatives.empty(), function, "negatives", "nothing", "at least one");
  check_rows_of_items(function, "positives", sampled.positives, items.rows());
  check_rows_of_items(function, "negatives", negatives, items.rows());
  check_list(function, "log_proposal", sampled.log_proposal, items.rows());
  check_list(function, "names", sampled.names, items.rows());
  check_log_proposal(function, sampled.log_proposal, negatives);
  if (options.correct_positive)
    check_log_proposal(function, sampled.log_proposal, sampled.positives);
  return {users,
          items,
          sampled.positives,
          negatives,
          sampled.log_proposal,
          sampled.names,
          1 / options.temperature,
          in_batch,
          options.remove_hits,
          options.correct_positive};
}

template <class S>
void check_outputs(const char* function, const SoftmaxBatch<S>& batch,
                   TensorView<compute_t<S>, 2> by_users, TensorView<compute_t<S>, 2> by_items) {
  const auto check_one = [&](const char* name, TensorView<compute_t<S>, 2> gradient,
                             TensorView<const S, 2> of) {
    check_writable(function, name, gradient);
    check_extents<2>(function, name, gradient.extent, of.extent);
    check_no_overlap(function, name, gradient, "users", batch.users);
    check_no_overlap(function, name, gradient, "items", batch.items);
    const auto apart = [&](const char* input, auto list) {
      check_no_overlap(function, name, gradient, input, to_view(list));
    };
    apart("positives", batch.positives);
    apart("negatives", batch.negatives);
    apart("log_proposal", batch.log_proposal);
    apart("names", batch.names);
  };
  check_one("user_gradient", by_users, batch.users);
  check_one("item_gradient", by_items, batch.items);
  check_no_overlap(function, "user_gradient", by_users, "item_gradient", by_items);
}

template <class B, class S>
double sampled_softmax(const B& backend, TensorView<const S, 2> users, TensorView<const S, 2> items,
                       const SampledItems& sampled, const SampledSoftmaxOptions& options) {
  const auto batch = checked_batch("retrieval::sampled_softmax", users, items, sampled, options);
  if constexpr (KernelBackend<B>) {
    const auto memory = leased<SoftmaxMemory>(backend);
    return SoftmaxBlocks<B, S>(backend, *memory, batch, false).loss();
  } else {
    return reference_sampled_softmax(batch);
  }
}

template <class B, class S>
double sampled_softmax_gradient(const B& backend, TensorView<const S, 2> users,
                                TensorView<const S, 2> items, const SampledItems& sampled,
                                TensorView<compute_t<S>, 2> by_users,
                                TensorView<compute_t<S>, 2> by_items,
                                const SampledSoftmaxOptions& options) {
  constexpr const char* function = "retrieval::sampled_softmax_gradient";
  const auto batch = checked_batch(function, users, items, sampled, options);
  check_outputs(function, batch, by_users, by_items);
  if (options.clear) clear_rows(by_items);
  if constexpr (KernelBackend<B>) {
    const auto memory = leased<SoftmaxMemory>(backend);
    return SoftmaxBlocks<B, S>(backend, *memory, batch, true).gradient(by_users, by_items);
  } else {
    return reference_sampled_softmax_gradient(batch, by_users, by_items);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The loss alone.
///
/// \param backend left out: pare::simd
/// \param users   [rows, dim] of float, double, bf16 or f16, any strides, at least one row (two
///                without a list of negatives); 16 bits are widened, sums are in float
/// \param items   [items, dim] of the same scalar, any strides
/// \param sampled see SampledItems
/// \param options see SampledSoftmaxOptions
/// \throws std::invalid_argument if shapes differ, a list has another length or names a row that
///         there is not, there is no negative, a correction that is used is not finite, or the
///         temperature is out of its range
///
/// Finite logits of any size have their loss. A logit that is NaN or +infinity makes it NaN, as
/// does a row without any that is above -infinity.
///
/// Cost: 2 rows m dim FLOPs, which bind from a dim of about 50 on, and an exponential per negative
/// of a row. Memory, in the workspace: a copy of the negatives' rows, and up to 512 rows of logits,
/// 4 MiB of float in all (64 rows from 16,384 negatives on). The same bits for any number of
/// threads.
template <Backend B, In<2> U, In<2> I>
requires SameScalar<U, I>
double sampled_softmax(const B& backend, const U& users, const I& items,
                       const SampledItems& sampled, const SampledSoftmaxOptions& options = {}) {
  return detail::sampled_softmax(on_any_executor(backend), as_const(to_view(users)),
                                 as_const(to_view(items)), sampled, options);
}

/// \overload
template <In<2> U, In<2> I>
requires SameScalar<U, I>
double sampled_softmax(const U& users, const I& items, const SampledItems& sampled,
                       const SampledSoftmaxOptions& options = {}) {
  return sampled_softmax(simd, users, items, sampled, options);
}

/// The loss, whose gradients it writes.
///
/// \param user_gradient [rows, dim], written; of what users are computed in (float for 16 bits),
///                      any strides, apart from all else
/// \param item_gradient [items, dim], the same; of an item that takes part several times the sum,
///                      in an order of its own; of others 0 (see SampledSoftmaxOptions::clear)
/// \throws std::invalid_argument as sampled_softmax, or if a gradient does not fit or overlaps.
///         Nothing is written then.
///
/// A user's row that is not finite makes its gradient NaN, and those of all negatives and of its
/// positive; a negative that is not finite those of all users and negatives.
///
/// Cost: 6 rows m dim FLOPs, and one write of the item gradient. Memory: as sampled_softmax, and as
/// much again as the copy of negatives. The same bits for any number of threads.
template <Backend B, In<2> U, In<2> I, GradientOf<U> GU, GradientOf<U> GI>
requires SameScalar<U, I>
double sampled_softmax_gradient(const B& backend, const U& users, const I& items,
                                const SampledItems& sampled, GU&& user_gradient, GI&& item_gradient,
                                const SampledSoftmaxOptions& options = {}) {
  return detail::sampled_softmax_gradient(on_any_executor(backend), as_const(to_view(users)),
                                          as_const(to_view(items)), sampled, to_view(user_gradient),
                                          to_view(item_gradient), options);
}

/// \overload
template <In<2> U, In<2> I, GradientOf<U> GU, GradientOf<U> GI>
requires SameScalar<U, I>
double sampled_softmax_gradient(const U& users, const I& items, const SampledItems& sampled,
                                GU&& user_gradient, GI&& item_gradient,
                                const SampledSoftmaxOptions& options = {}) {
  return sampled_softmax_gradient(simd, users, items, sampled, user_gradient, item_gradient,
                                  options);
}

PARE_REFUSE_CALLS(sampled_softmax, "retrieval::sampled_softmax",
                  "after sampled: wanted SampledSoftmaxOptions",
                  (INPUT, (roles::Reads<2>), "users", "[rows, dim]"),
                  (INPUT, (roles::ReadsSame<2>), "items", "[items, dim]"),
                  (ANY, (roles::TakesAny), "sampled", "SampledItems"))
PARE_REFUSE_CALLS(sampled_softmax_gradient, "retrieval::sampled_softmax_gradient",
                  "after item_gradient: wanted SampledSoftmaxOptions",
                  (INPUT, (roles::Reads<2>), "users", "[rows, dim]"),
                  (INPUT, (roles::ReadsSame<2>), "items", "[items, dim]"),
                  (ANY, (roles::TakesAny), "sampled", "SampledItems"),
                  (OUTPUT, (roles::WritesComputed<2>), "user_gradient", "[rows, dim]"),
                  (OUTPUT, (roles::WritesComputed<2>), "item_gradient", "[items, dim]"))

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
