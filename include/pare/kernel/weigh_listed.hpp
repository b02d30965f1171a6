// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Scores of the keys that rows list, turned into weights (listed_window.hpp).

#include <pare/core/macros_off.hpp>

#include <pare/kernel/attend_call.hpp>
#include <pare/kernel/online_softmax.hpp>
#include <pare/kernel/score_modifier.hpp>
#include <pare/kernel/weigh_scores.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace pare::kernel {

/// The keys that a query row lists, and their scores.
template <ComputeScalar T>
struct ListedRow {
  const std::int32_t* keys = nullptr;  ///< [count], ascending
  std::ptrdiff_t count = 0;
  T* scores = nullptr;            ///< [count + listed_group]
  std::ptrdiff_t hide_begin = 0;  ///< of its entries that it lists but does not see
  std::ptrdiff_t hide_end = 0;
  RowPlace place{};
};

/// Turns the scores of each row into weights 2^(s_j - m) and advances its m and l from where they
/// start: m' = max(m, max_j s_j), l' = l 2^(m - m') + sum_j 2^(s_j - m'), with s_j = modify(scale
/// score_j) in units of log2. A row of which all is hidden keeps what it starts with.
template <ComputeScalar T, class Modifier>
struct WeighListed {
  const ListedRow<T>* rows = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
  T scale = 1;
  std::int64_t batch = 0;
  Modifier modifier{};
  T* maximum = nullptr;  ///< [count]
  T* sum = nullptr;      ///< [count]
};

namespace detail {
PARE_ABI_BEGIN

/// What a modifier makes of the scores of a row, -infinity what the row does not see and what is
/// behind its list, up to whole registers.
template <class Arch, class T, class M>
std::ptrdiff_t finish_scores(const WeighListed<T, M>& a, const ListedRow<T>& row) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr T hidden = -std::numeric_limits<T>::infinity();
  const RowPlace& place = row.place;
  if constexpr (!std::is_same_v<M, Exact>) {
    ScorePlace at{a.batch, place.head, place.query, place.position, 0};
    for (std::ptrdiff_t j = 0; j < row.count; ++j) {
      at.key = row.keys[j];
      row.scores[j] = modified(a.modifier, row.scores[j] * a.scale, at);
    }
  }
  std::fill(row.scores + row.hide_begin, row.scores + row.hide_end, hidden);
  const std::ptrdiff_t padded = (row.count + n - 1) / n * n;
  std::fill(row.scores + row.count, row.scores + padded, hidden);
  return padded;
}

/// The weights of a row.
template <class Arch, class T, class M>
void weigh_listed(const WeighListed<T, M>& a, const ListedRow<T>& row, T& maximum_so_far,
                  T& sum_so_far) noexcept {
  constexpr T lowest = -std::numeric_limits<T>::infinity();
  constexpr bool is_exact = std::is_same_v<M, Exact>;
  const std::ptrdiff_t padded = finish_scores<Arch>(a, row);
  if (padded == 0) return;
  T factor = is_exact ? a.scale * T(log2_e) : T(log2_e);
  const T before = maximum_so_far;
  const T own = in_log2(
      reduce_max<Arch>(largest_of_lanes<Arch>(static_cast<const T*>(row.scores), padded)), factor);
  const T now = !(own <= before) ? own : before;
  T shift = now == lowest ? T(0) : -now;
  if (is_far(now)) {
    far_exponents(row.scores, padded, factor, now);
    factor = T(1);
    shift = T(0);
  }
  alignas(64) T sums[static_cast<std::size_t>(lanes<T, Arch>)];
  store_weights<Arch, false>(static_cast<const T*>(row.scores), row.scores, padded,
                             broadcast<Arch>(factor), broadcast<Arch>(shift), static_cast<T*>(sums),
                             static_cast<T*>(nullptr));
  const T keep = before == lowest ? T(0) : exp2<arch::scalar>(before - now);
  sum_so_far = sum_so_far * keep + reduce_add<Arch>(load<Arch>(static_cast<const T*>(sums)));
  maximum_so_far = now;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T, class M>
void run_kernel(Arch, const WeighListed<T, M>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.count; ++r)
    detail::weigh_listed<Arch>(a, a.rows[r], a.maximum[r], a.sum[r]);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
