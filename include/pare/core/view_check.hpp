// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Checks of a view before it is read or written: it is sound in itself (`check_view`), each of its
/// elements has a place of its own (`check_writable`), and it is apart from whatever else the call
/// reads or writes (`check_no_overlap`).
///
/// ```cpp
/// const auto from = pare::to_view(x);
/// const auto to = pare::to_view(y);
/// pare::check_view("my_method", "x", from);
/// pare::check_writable("my_method", "y", to);
/// pare::check_no_overlap("my_method", "y", to, "x", from);
/// ```
///
/// They throw std::invalid_argument with the given names of function and argument. They count
/// without overflow, and look at extents and strides, never at elements: a few dozen operations for
/// tensors. Answers are exact, except that strides which are made to be hard to tell apart, and
/// which no tensor has, are refused after 65536 steps.

#include <pare/core/macros_off.hpp>

#include <pare/core/bounded_sum.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

namespace pare {
namespace detail {
PARE_ABI_BEGIN

inline std::uint64_t magnitude(Index stride) {
  return stride < 0 ? 0 - static_cast<std::uint64_t>(stride) : static_cast<std::uint64_t>(stride);
}

template <class T, std::size_t Rank>
bool is_empty(const TensorView<T, Rank>& v) {
  return std::any_of(v.extent.begin(), v.extent.end(), [](Index n) { return n == 0; });
}

/// Elements between the first and the last that the view names, on either side of `data`; false if
/// either does not fit. No extent may be below 1.
template <class T, std::size_t Rank>
bool element_span(const TensorView<T, Rank>& v, std::uint64_t& below, std::uint64_t& above) {
  constexpr std::uint64_t most =
      static_cast<std::uint64_t>(std::numeric_limits<Index>::max()) / sizeof(T) - 1;
  below = above = 0;
  for (std::size_t d = 0; d < Rank; ++d) {
    const std::uint64_t steps = static_cast<std::uint64_t>(v.extent[d] - 1);
    const std::uint64_t stride = magnitude(v.stride[d]);
    if (steps != 0 && stride > (most - below - above) / steps) return false;
    (v.stride[d] < 0 ? below : above) += steps * stride;
  }
  return true;
}

/// The first and one past the last byte a view names. It must have elements and be sound.
template <class T, std::size_t Rank>
std::array<std::uintptr_t, 2> byte_range(const TensorView<T, Rank>& v) {
  std::uint64_t below = 0, above = 0;
  element_span(v, below, above);
  const auto base = reinterpret_cast<std::uintptr_t>(v.data);
  return {base - below * sizeof(T), base + (above + 1) * sizeof(T)};
}

/// Whether two views that have elements share a byte: byte p of element x of one is byte q of
/// element y of the other. Counted from the first byte of a and, for b, back from its last, all
/// steps are positive and the total is one number.
template <class T, class U, std::size_t R, std::size_t S>
bool share_memory(const TensorView<T, R>& a, const TensorView<U, S>& b) {
  const auto bytes_a = byte_range(a), bytes_b = byte_range(b);
  if (bytes_a[1] <= bytes_b[0] || bytes_b[1] <= bytes_a[0]) return false;
  BoundedSum<R + S + 1> sum;
  sum.add(1, sizeof(T) - 1 + (sizeof(U) - 1));
  for (std::size_t d = 0; d < R; ++d)
    sum.add(magnitude(a.stride[d]) * sizeof(T), static_cast<std::uint64_t>(a.extent[d] - 1));
  for (std::size_t d = 0; d < S; ++d)
    sum.add(magnitude(b.stride[d]) * sizeof(U), static_cast<std::uint64_t>(b.extent[d] - 1));
  return sum.reaches(bytes_b[1] - 1 - bytes_a[0]);
}

/// Whether two indices of a view that has elements name one element: whether sum_d stride_d delta_d
/// is 0 for some delta that is not, |delta_d| < extent_d. Dimension k is the first in which delta
/// differs from 0, there taken as positive; the sum is shifted so that all factors count from 0.
template <class T, std::size_t Rank>
bool names_twice(const TensorView<T, Rank>& v) {
  std::array<std::array<std::uint64_t, 2>, Rank> steps{};  // {stride, extent - 1}
  for (std::size_t d = 0; d < Rank; ++d)
    steps[d] = {magnitude(v.stride[d]), static_cast<std::uint64_t>(v.extent[d] - 1)};
  std::sort(steps.begin(), steps.end(), [](auto a, auto b) { return a > b; });
  std::uint64_t behind = 0;  // the span of the dimensions after k
  for (std::size_t k = Rank; k-- > 0;) {
    const auto [stride, most] = steps[k];
    if (most == 0) continue;
    if (stride <= behind) {
      BoundedSum<Rank> sum;
      sum.add(stride, most - 1);
      for (std::size_t d = k + 1; d < Rank; ++d) sum.add(steps[d][0], 2 * steps[d][1]);
      if (sum.reaches(stride * most + behind)) return true;
    }
    behind += stride * most;
  }
  return false;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Throws on a view that cannot be read: a negative extent, more elements or a wider span of bytes
/// than `Index` counts or than there are addresses, and null data where there are elements.
template <class T, std::size_t Rank>
void check_view(const char* function, const char* argument, const TensorView<T, Rank>& v) {
  for (const Index n : v.extent)
    check(n >= 0, function, argument, v.extent, "extents of at least 0");
  if (detail::is_empty(v)) return;
  std::uint64_t count = 1, below = 0, above = 0;
  constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<Index>::max());
  bool fits = detail::element_span(v, below, above);
  for (const Index n : v.extent) {
    fits = fits && static_cast<std::uint64_t>(n) <= most / count;
    count *= fits ? static_cast<std::uint64_t>(n) : 1;
  }
  check(fits, function, argument, v.extent, "extents and strides whose bytes fit 63 bits");
  check(v.data != nullptr, function, argument, "a null pointer", "data");
  const auto base = reinterpret_cast<std::uintptr_t>(v.data);
  check(below * sizeof(T) <= base &&
            (above + 1) * sizeof(T) <= std::numeric_limits<std::uintptr_t>::max() - base,
        function, argument, v.extent, "extents and strides that stay within memory");
}

/// Throws if an output shares a byte with what else the call reads or writes, or the view of either
/// is not sound. Views that interleave without a common byte are accepted.
template <class T, class U, std::size_t R, std::size_t S>
void check_no_overlap(const char* function, const char* output, const TensorView<T, R>& out,
                      const char* input, const TensorView<U, S>& in) {
  check_view(function, output, out);
  check_view(function, input, in);
  if (!detail::is_empty(out) && !detail::is_empty(in) && detail::share_memory(out, in))
    detail::refuse(function, output, "memory that overlaps an input",
                   std::string("memory apart from ") + input);
}

/// Throws on an output in which two indices name one element, as with a zero stride or with rows
/// that overlap, or whose view is not sound.
template <class T, std::size_t Rank>
void check_writable(const char* function, const char* output, const TensorView<T, Rank>& out) {
  check_view(function, output, out);
  if (detail::is_empty(out)) return;
  for (std::size_t d = 0; d < Rank; ++d)
    check(out.stride[d] != 0 || out.extent[d] <= 1, function, output, "a stride of 0",
          "one place for each element");
  check(!detail::names_twice(out), function, output,
        "strides by which two indices name one element", "one place for each element");
}

PARE_ABI_END

}  // namespace pare

#include <pare/core/macros_on.hpp>
