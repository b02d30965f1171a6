// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a drafter says of the tokens to come, before a tree is made of it: for each depth, the most
/// probable next tokens, either in one list or in one for each token that may come before.
///
/// ```cpp
/// // [15, 16] tokens and log q of a block drafter, as top-k of its rows gives them (JetSpec):
/// const auto shared = shared_lists(tokens, log_probabilities);
/// // [depths, rows, ranks], one list for each of `rows` tokens of the depth before (TreeFlash):
/// const TransitionTable<float> table{to_view(tokens3), to_view(log3), to_view(next3)};
/// build_best_first(last_token, table, tree, {.budget = 64});
/// ```
///
/// Entry (d, m, r) is the r-th best token at depth d + 1, below a node whose list is m. `next` says
/// which list of depth d + 1 the children of that token have, -1: it has none. Below the root is
/// list 0 of depth 0, and no other list of depth 0 is read. A shared list is a table of one list
/// for each depth.
///
/// Sources: JetSpec's code (accum_logp, shared lists); TreeFlash, arXiv 2606.03819, its code (one
/// list for each previous token).

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pare::draft {

/// A matrix or view of token numbers.
template <class X, std::size_t Rank>
concept TokenNumbers = requires { typename view_of<const X>; } && view_of<const X>::rank == Rank &&
                       std::is_same_v<typename view_of<const X>::scalar, const std::int32_t>;

namespace detail {
PARE_ABI_BEGIN
/// What the `next` of shared lists points to: each list is followed by list 0.
inline constexpr std::int32_t first_list = 0;
PARE_ABI_END
template <class X>
using AreTokens = std::bool_constant<TokenNumbers<std::remove_cvref_t<X>, 2>>;
template <class X>
struct IsTable : std::false_type {};
}  // namespace detail

PARE_ABI_BEGIN

/// Views of the lists, each [depths, rows, ranks]. Within a list, log probabilities do not
/// increase, and tokens differ. An entry that is not finite is skipped: lists may be padded with
/// -infinity. One that rounding made larger than 0, by at most 0.001, counts as 0.
template <ComputeScalar T>
struct TransitionTable {
  TensorView<const std::int32_t, 3> tokens{};
  TensorView<const T, 3> log_probabilities{};
  TensorView<const std::int32_t, 3> next{};

  Index depths() const { return tokens.extent[0]; }
  Index rows() const { return tokens.extent[1]; }
  Index ranks() const { return tokens.extent[2]; }

  // Of an entry that there is, which is not checked.
  std::int32_t token(Index depth, Index row, Index rank) const { return tokens(depth, row, rank); }
  double log_probability(Index depth, Index row, Index rank) const {
    const double value = static_cast<double>(log_probabilities(depth, row, rank));
    return value > 0 ? 0 : value;
  }
  /// The first rank from `rank` on whose entry is finite; none: ranks().
  Index finite_rank(Index depth, Index row, Index rank) const {
    while (rank < ranks() && !is_finite(static_cast<double>(log_probabilities(depth, row, rank))))
      ++rank;
    return rank;
  }
  /// The list that follows; none: -1, as at the last depth.
  Index next_row(Index depth, Index row, Index rank) const {
    return depth + 1 < depths() ? next(depth, row, rank) : -1;
  }

  /// \throws std::invalid_argument if extents differ or one is 0; a finite entry has a token below
  ///         0, is larger than 0.001 or than one before it in its list, or has the token of one; or
  ///         its `next` is neither -1 nor a list. Cost: one look at each entry, and ranks / 2
  ///         comparisons of tokens for each.
  void validate(const char* function) const {
    check(depths() >= 1 && rows() >= 1 && ranks() >= 1, function, "table", tokens.extent,
          "[depths, rows, ranks] of at least 1 each");
    check_extents<3>(function, "log_probabilities", log_probabilities.extent, tokens.extent);
    check_extents<3>(function, "next", next.extent, tokens.extent);
    check_view(function, "tokens", tokens);
    check_view(function, "log_probabilities", log_probabilities);
    check_view(function, "next", next);
    for (Index d = 0; d < depths(); ++d)
      for (Index m = 0; m < (d == 0 ? 1 : rows()); ++m) check_list(function, d, m);
  }

 private:
  void check_list(const char* function, Index d, Index m) const {
    double least = 1e-3;
    for (Index r = 0; r < ranks(); ++r) {
      const auto value = static_cast<double>(log_probabilities(d, m, r));
      if (!is_finite(value)) continue;
      check(value <= least, function, "log_probabilities", value,
            r == 0 ? "logarithms of probabilities, at most 0" : "lists that do not increase");
      least = value;
      const std::int32_t token = tokens(d, m, r);
      check(token >= 0, function, "tokens", token, "at least 0");
      for (Index s = 0; s < r; ++s)
        check(
            tokens(d, m, s) != token || !is_finite(static_cast<double>(log_probabilities(d, m, s))),
            function, "tokens", token, "tokens that differ within a list");
      check(d + 1 == depths() || (next(d, m, r) >= -1 && next(d, m, r) < rows()), function, "next",
            next(d, m, r), Worded{"-1 or a list below ", rows()});
    }
  }
};

/// The table of one list for each depth, whatever token comes before.
/// \param tokens            [depths, ranks]; both must outlive the table
/// \param log_probabilities [depths, ranks] of float or double
/// \throws std::invalid_argument if extents differ
template <TokenNumbers<2> K, In<2> P>
requires ComputeScalar<scalar_of<P>>
TransitionTable<scalar_of<P>> shared_lists(const K& tokens, const P& log_probabilities) {
  const auto k = as_const(to_view(tokens));
  const auto p = as_const(to_view(log_probabilities));
  check_extents<2>("draft::shared_lists", "log_probabilities", p.extent, k.extent);
  const std::array<Index, 3> extent{k.extent[0], 1, k.extent[1]};
  return {{k.data, extent, {k.stride[0], 0, k.stride[1]}},
          {p.data, extent, {p.stride[0], 0, p.stride[1]}},
          {&detail::first_list, extent, {0, 0, 0}}};
}

PARE_REFUSE_CALLS(shared_lists, "draft::shared_lists", "wanted nothing behind log_probabilities",
                  (PLAIN, (roles::Takes<detail::AreTokens>), "tokens",
                   "[depths, ranks] of std::int32_t"),
                  (INPUT, (roles::ReadsCompute<2>), "log_probabilities", "[depths, ranks]"))

PARE_ABI_END
namespace detail {
template <class T>
struct IsTable<TransitionTable<T>> : std::true_type {};
}  // namespace detail
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
