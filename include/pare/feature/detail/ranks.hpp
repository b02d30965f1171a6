// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Orders, ties and inversions of lists of numbers.

#include <pare/core/check.hpp>
#include <pare/feature/detail/number_list.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace pare::feature::detail {
PARE_ABI_BEGIN

/// Two finite lists of one size, neither of which is constant.
template <NumberList A, NumberList B>
std::pair<std::vector<double>, std::vector<double>> paired_numbers(const char* function, const A& a,
                                                                   const B& b) {
  std::pair<std::vector<double>, std::vector<double>> lists{finite_numbers(function, "a", a),
                                                            finite_numbers(function, "b", b)};
  check_size(function, "b", lists.second.size(), lists.first.size());
  const auto varies = [](const std::vector<double>& v) {
    return std::any_of(v.begin(), v.end(), [&](double x) { return x != v.front(); });
  };
  check(varies(lists.first), function, "a", "one value", "at least two different numbers");
  check(varies(lists.second), function, "b", "one value", "at least two different numbers");
  return lists;
}

/// Indices in the order of `first`, of equal ones in the order of `second`.
inline std::vector<std::size_t> order_of(const std::vector<double>& first,
                                         const std::vector<double>& second) {
  std::vector<std::size_t> order(first.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) {
    return first[i] != first[j] ? first[i] < first[j] : second[i] < second[j];
  });
  return order;
}

/// Calls visit(begin, end) with the indices of each group of equal numbers, in rising order.
template <class Visit>
void for_each_tie(const std::vector<double>& numbers, const Visit& visit) {
  const std::vector<std::size_t> order = order_of(numbers, numbers);
  for (std::size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && numbers[order[end]] == numbers[order[begin]]) ++end;
    visit(order.data() + begin, order.data() + end);
  }
}

inline std::uint64_t pairs_of(std::uint64_t n) {
  return n % 2 == 0 ? n / 2 * (n - 1) : (n - 1) / 2 * n;
}

inline std::uint64_t tied_pairs(const std::vector<double>& numbers) {
  std::uint64_t pairs = 0;
  for_each_tie(numbers, [&](const std::size_t* begin, const std::size_t* end) {
    pairs += pairs_of(static_cast<std::uint64_t>(end - begin));
  });
  return pairs;
}

/// Pairs that are equal in both lists; `order` sorts by both.
inline std::uint64_t tied_pairs(const std::vector<double>& x, const std::vector<double>& y,
                                const std::vector<std::size_t>& order) {
  std::uint64_t pairs = 0, run = 0;
  for (std::size_t i = 1; i < order.size(); ++i) {
    const std::size_t a = order[i - 1], b = order[i];
    run = x[a] == x[b] && y[a] == y[b] ? run + 1 : 0;
    pairs += run;
  }
  return pairs;
}

/// Pairs i < j with numbers[i] > numbers[j], by merge sort; leaves the list sorted.
inline std::uint64_t count_inversions(std::vector<double>& numbers) {
  std::uint64_t inversions = 0;
  std::vector<double> merged(numbers.size());
  for (std::size_t width = 1; width < numbers.size(); width *= 2) {
    for (std::size_t begin = 0; begin < numbers.size(); begin += 2 * width) {
      const std::size_t middle = std::min(begin + width, numbers.size());
      const std::size_t end = std::min(begin + 2 * width, numbers.size());
      for (std::size_t i = begin, j = middle, to = begin; to < end; ++to) {
        const bool left = j == end || (i < middle && numbers[i] <= numbers[j]);
        if (!left) inversions += middle - i;
        merged[to] = left ? numbers[i++] : numbers[j++];
      }
    }
    numbers.swap(merged);
  }
  return inversions;
}

/// Ranks from 1 on; equal numbers share the mean of theirs.
inline std::vector<double> mean_ranks(const std::vector<double>& numbers) {
  std::vector<double> ranks(numbers.size());
  std::size_t below = 0;
  for_each_tie(numbers, [&](const std::size_t* begin, const std::size_t* end) {
    const auto tied = static_cast<std::size_t>(end - begin);
    for (const std::size_t* i = begin; i != end; ++i)
      ranks[*i] = static_cast<double>(below) + static_cast<double>(tied + 1) / 2;
    below += tied;
  });
  return ranks;
}

PARE_ABI_END
}  // namespace pare::feature::detail
