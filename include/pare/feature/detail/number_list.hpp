// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Vectors of numbers as users hold them, copied to one type and checked.

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <cmath>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::feature {

/// A vector of Eigen's, a std::vector, array or span of any arithmetic type.
template <class V>
concept NumberList = requires(const std::remove_reference_t<V>& v) {
  to_vector_view(v);
  requires std::is_arithmetic_v<std::remove_const_t<typename decltype(to_vector_view(v))::scalar>>;
};

namespace detail {

template <class V>
using IsNumberList = std::bool_constant<NumberList<V>>;

PARE_ABI_BEGIN

/// The numbers of a list as To, refused unless `fits(number)`.
template <class To, NumberList V, class Fits>
std::vector<To> numbers_of(const char* function, const char* argument, const V& list,
                           const char* wanted, const Fits& fits) {
  const auto view = to_vector_view(list);
  check_view(function, argument, view);
  std::vector<To> numbers(static_cast<std::size_t>(view.extent[0]));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const auto number = static_cast<double>(view(static_cast<Index>(i)));
    check(fits(number), function, argument, number, wanted);
    numbers[i] = static_cast<To>(number);
  }
  return numbers;
}

template <NumberList V>
std::vector<double> finite_numbers(const char* function, const char* argument, const V& list) {
  return numbers_of<double>(function, argument, list, "finite numbers",
                            [](double number) { return is_finite(number); });
}

/// Labels of two classes.
template <class To, NumberList V>
std::vector<To> binary_labels(const char* function, const V& labels,
                              const char* argument = "labels") {
  return numbers_of<To>(function, argument, labels, "0 or 1",
                        [](double label) { return label == 0 || label == 1; });
}

inline void check_size(const char* function, const char* argument, std::size_t got,
                       std::size_t wanted) {
  check(got == wanted, function, argument, std::to_string(got) + " numbers", wanted);
}

/// Labels of two classes, one for each of `rows`; their number is checked before they are copied.
template <class To, NumberList V>
std::vector<To> labels_of_rows(const char* function, const V& labels, Index rows,
                               const char* argument = "labels") {
  const auto view = to_vector_view(labels);
  check_view(function, argument, view);
  check_size(function, argument, static_cast<std::size_t>(view.extent[0]),
             static_cast<std::size_t>(rows));
  return binary_labels<To>(function, labels, argument);
}

PARE_ABI_END
}  // namespace detail
}  // namespace pare::feature
