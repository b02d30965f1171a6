// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The choice of two of four on kernels, and as it is defined.

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/structured/detail/two_four_memory.hpp>
#include <pare/factor/structured/detail/weight_norms.hpp>
#include <pare/factor/structured/two_four.hpp>
#include <pare/factor/structured/two_four_score.hpp>
#include <pare/kernel/select_two_four.hpp>
#include <pare/kernel/streaming.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// Rows of an item of the selection.
inline constexpr Index selected_rows = 16;

/// Factors in T, the largest 1; none for none. One that is below what T holds is 0.
/// \throws std::invalid_argument if they are not [inputs], finite, at least 0 and one above it
template <class T>
std::vector<T> checked_factors(const char* function, const std::vector<double>& factors,
                               Index inputs) {
  if (factors.empty()) return {};
  check_weights(function, "score", {factors.data(), factors.size()}, inputs);
  const double largest = *std::max_element(factors.begin(), factors.end());
  std::vector<T> narrow(factors.size());
  for (std::size_t j = 0; j < factors.size(); ++j) narrow[j] = static_cast<T>(factors[j] / largest);
  return narrow;
}

/// A group by its scores: the bits of the two largest, of equal ones the lower columns.
template <class Score>
unsigned best_two(const Score& score) {
  unsigned best = 0;
  for (int kept = 0; kept < 2; ++kept) {
    int at = -1;
    for (int i = 0; i < 4; ++i)
      if ((best >> i & 1u) == 0 && (at < 0 || score(i) > score(at))) at = i;
    best |= 1u << at;
  }
  return best;
}

/// One row: words and values of what `group(first)` keeps, as bits.
template <class S, class Group>
void keep_in_row(TensorView<const S, 2> w, Index row, TwoFour<S>& to, const Group& group) {
  const auto words = TwoFourMemory::words(to);
  S* value = &to.own_values()(row, 0);
  for (Index word = 0; word < words.cols(); ++word) {
    unsigned bits = 0;
    const Index begin = 16 * word, end = std::min(begin + 16, w.cols());
    for (Index j = begin; j < end; j += 4) bits |= group(j) << (j - begin);
    words(row, word) = static_cast<std::uint16_t>(bits);
    S* const behind = value + TwoFour<S>::word_values;
    for (; bits != 0; bits &= bits - 1) *value++ = w(row, begin + __builtin_ctz(bits));
    std::fill(value, behind, S{});
    value = behind;
  }
}

/// abs(w) f, rounded once to T; a row with a number that is not finite is refused before.
template <class S>
void reference_select(const char* function, TensorView<const S, 2> w,
                      const std::vector<compute_t<S>>& factors, TwoFour<S>& to) {
  using T = compute_t<S>;
  for (Index i = 0; i < w.rows(); ++i) check_finite_row(function, w, i);
  for (Index i = 0; i < w.rows(); ++i)
    keep_in_row(w, i, to, [&](Index j) {
      return best_two([&](int k) {
        const T size = std::abs(static_cast<T>(w(i, j + k)));
        return factors.empty() ? size : size * factors[static_cast<std::size_t>(j + k)];
      });
    });
}

template <class B, class S>
void select_by_factors(const char* function, const B& backend, TensorView<const S, 2> w,
                       const std::vector<compute_t<S>>& factors, TwoFour<S>& to) {
  using T = compute_t<S>;
  const auto words = TwoFourMemory::words(to);
  const auto values = to.own_values();
  std::vector<T> marks(static_cast<std::size_t>(w.rows()));
  const bool streaming = to.bytes() >= kernel::streamed_bytes;
  ContiguousRows<B, S> rows(backend, w, selected_rows);
  parallel_for(backend.executor, ceil_div(w.rows(), selected_rows), [&](Index item, int worker) {
    const Index begin = item * selected_rows;
    const auto part = rows.at(begin, std::min(selected_rows, w.rows() - begin), worker);
    kernel::SelectTwoFour<S> a;
    a.weights = part.data;
    a.weight_stride = part.stride[0];
    a.rows = part.rows();
    a.inputs = w.cols();
    a.factors = factors.empty() ? nullptr : factors.data();
    a.words = &words(begin, 0);
    a.word_stride = words.stride[0];
    a.values = &values(begin, 0);
    a.value_stride = values.stride[0];
    a.marks = marks.data() + begin;
    a.streaming = streaming;
    launch(backend, a);
    if (streaming) launch(backend, kernel::FinishStreaming{});
  });
  for (Index i = 0; i < w.rows(); ++i)
    if (!is_finite(static_cast<double>(marks[static_cast<std::size_t>(i)])))
      check_finite_row(function, w, i);
}

/// A score of one's own, by rows.
template <class B, class S, EntryScore P>
void select_by_entries(const char* function, const B& backend, TensorView<const S, 2> w,
                       const P& score, TwoFour<S>& to) {
  const auto select_row = [&](Index i) {
    check_finite_row(function, w, i);
    keep_in_row(w, i, to, [&](Index j) {
      double scores[4];
      for (int k = 0; k < 4; ++k) {
        scores[k] = static_cast<double>(score.score(i, j + k, entry_of(w, i, j + k)));
        check(!is_nan(scores[k]), function, "score", scores[k], "a number");
      }
      return best_two([&](int k) { return scores[k]; });
    });
  };
  each_row(backend, w.rows(), select_row);
}

/// A weight that 2:4 pruning takes.
template <class S>
void check_two_four_weight(const char* function, TensorView<const S, 2> w) {
  check_view(function, "w", w);
  check(w.rows() >= 1 && w.cols() >= 4 && w.cols() % 4 == 0, function, "w", w.extent,
        "[outputs, inputs] with inputs a multiple of 4");
}

template <Backend B, class S, TwoFourScore P>
TwoFour<S> select_two_four(const B& backend, TensorView<const S, 2> w, const P& score,
                           TwoFour<S>&& memory) {
  constexpr const char* function = "factor::two_four";
  check_two_four_weight(function, w);
  const auto any = on_any_executor(backend);
  if constexpr (InputScore<P>) {
    const auto factors =
        checked_factors<compute_t<S>>(function, score.input_factors(any, w), w.cols());
    auto to = TwoFourMemory::of(w.rows(), w.cols(), std::move(memory));
    if constexpr (KernelBackend<B>)
      select_by_factors(function, any, w, factors, to);
    else
      reference_select(function, w, factors, to);
    return to;
  } else {
    auto to = TwoFourMemory::of(w.rows(), w.cols(), std::move(memory));
    select_by_entries(function, any, w, score, to);
    return to;
  }
}

PARE_ABI_END
}  // namespace pare::factor::detail
