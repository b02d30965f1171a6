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
#include <limits>
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

/// x, or what is next to it where it is infinite.
inline double saturated(double x) {
  constexpr double most = std::numeric_limits<double>::max();
  return std::clamp(x, -most, most);
}

/// beta ((a - b) - (c - d)) of finite numbers, saturated. Where a difference overflows it is taken
/// of quarters, of which none does, so that no infinity meets another.
inline double scaled_margin(double beta, double a, double b, double c, double d) {
  const double margin = (a - b) - (c - d);
  if (is_finite(margin)) return saturated(beta * margin);
  return saturated(4 * (beta * ((a / 4 - b / 4) - (c / 4 - d / 4))));
}

/// -ln sigma(z) by e = e^-|z|, which does not overflow.
inline double pair_loss(double z, double e) { return std::max(-z, 0.0) + std::log1p(e); }

/// The mean of -ln sigma(z(i)), z(i) being beta times a margin, and its gradient by the first of
/// each pair; by the second it is the same with the other sign. All are finite where z is.
template <class Z>
double pair_losses(std::size_t size, double beta, const Z& z, std::span<double> by_first,
                   std::span<double> by_second) {
  const auto pairs = static_cast<double>(size);
  double sum = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const double at = z(i), e = std::exp(-std::abs(at));
    sum += pair_loss(at, e);
    if (by_first.empty()) continue;
    const double gradient = beta * (at > 0 ? e / (1 + e) : 1 / (1 + e)) / pairs;
    by_first[i] = -gradient;
    by_second[i] = gradient;
  }
  if (is_finite(sum)) return sum / pairs;
  double mean = 0;  // of terms whose sum overflows
  for (std::size_t i = 0; i < size; ++i) mean += pair_loss(z(i), std::exp(-std::abs(z(i)))) / pairs;
  return saturated(mean);
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
