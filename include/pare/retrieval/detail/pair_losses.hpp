// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What losses of pairs share: checks, and -ln sigma of margins with its gradient.

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <span>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

inline void check_numbers(const char* function, const char* argument,
                          std::span<const double> numbers, std::size_t size) {
  check(!numbers.empty(), function, argument, "nothing", "at least one pair");
  check(numbers.size() == size, function, argument, numbers.size(),
        Worded{"", static_cast<Index>(size), " numbers"});
  for (const double x : numbers) check(is_finite(x), function, argument, x, "finite numbers");
}

template <class T>
struct NamedList {
  const char* name;
  std::span<T> list;

  TensorView<T, 1> view() const { return {list.data(), {static_cast<Index>(list.size())}, {1}}; }
};

/// Outputs are all empty, or as long as the inputs and apart from them and from each other.
inline void check_outputs(const char* function, std::initializer_list<NamedList<double>> outputs,
                          std::initializer_list<NamedList<const double>> inputs) {
  const bool none =
      std::ranges::all_of(outputs, [](const NamedList<double>& out) { return out.list.empty(); });
  const std::size_t size = inputs.begin()->list.size();
  for (const NamedList<double>& out : outputs) {
    check(none || out.list.size() == size, function, out.name, out.list.size(),
          Worded{"", static_cast<Index>(size), " numbers, or none in all outputs"});
    for (const NamedList<const double>& in : inputs)
      check_no_overlap(function, out.name, out.view(), in.name, in.view());
    for (const NamedList<double>* other = outputs.begin(); other->name != out.name; ++other)
      check_no_overlap(function, out.name, out.view(), other->name, other->view());
  }
}

/// The mean of -ln sigma(beta margin(i)), and its gradient by the first of each pair; by the second
/// it is the same with the other sign. Margins of any size: no exponential overflows.
template <class Margin>
double pair_losses(std::size_t size, double beta, const Margin& margin, std::span<double> by_first,
                   std::span<double> by_second) {
  const auto pairs = static_cast<double>(size);
  double sum = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const double z = beta * margin(i), e = std::exp(-std::abs(z));
    sum += std::max(-z, 0.0) + std::log1p(e);
    if (by_first.empty()) continue;
    const double gradient = beta * (z > 0 ? e / (1 + e) : 1 / (1 + e)) / pairs;
    by_first[i] = -gradient;
    by_second[i] = gradient;
  }
  return sum / pairs;
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
