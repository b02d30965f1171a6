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

/// What a view names, whatever its scalar and rank: the checks are compiled once for all views.
struct ViewShape {
  std::uintptr_t data;
  std::uint64_t size;  ///< bytes of an element
  std::size_t rank;
  const Index* extent;
  const Index* stride;

  template <class T, std::size_t Rank>
  explicit ViewShape(const TensorView<T, Rank>& v)
      : data(reinterpret_cast<std::uintptr_t>(v.data)),
        size(sizeof(T)),
        rank(Rank),
        extent(v.extent.data()),
        stride(v.stride.data()) {
    static_assert(2 * Rank + 1 <= BoundedSum::most_terms,
                  "pare: a view of more than 15 dimensions");
  }

  std::uint64_t steps(std::size_t d) const { return static_cast<std::uint64_t>(extent[d] - 1); }
};

inline bool is_empty(const ViewShape& v) {
  return std::any_of(v.extent, v.extent + v.rank, [](Index n) { return n == 0; });
}

/// Elements between the first and the last that the view names, on either side of `data`; false if
/// either does not fit. No extent may be below 1.
inline bool element_span(const ViewShape& v, std::uint64_t& below, std::uint64_t& above) {
  const std::uint64_t most =
      static_cast<std::uint64_t>(std::numeric_limits<Index>::max()) / v.size - 1;
  below = above = 0;
  for (std::size_t d = 0; d < v.rank; ++d) {
    std::uint64_t span = 0;
    if (__builtin_mul_overflow(v.steps(d), magnitude(v.stride[d]), &span) ||
        span > most - below - above)
      return false;
    (v.stride[d] < 0 ? below : above) += span;
  }
  return true;
}

/// The extents of a view, as a failed check prints them.
inline void describe(std::ostream& os, const ViewShape& v) {
  describe_extents(os, v.extent, v.rank);
}

/// The first and one past the last byte that a view names.
using ByteRange = std::array<std::uintptr_t, 2>;

/// Checks a view as check_view says. Returns its bytes, 0 and 0 of one without elements.
inline ByteRange checked_bytes(const char* function, const char* argument, const ViewShape& v) {
  for (std::size_t d = 0; d < v.rank; ++d)
    if (v.extent[d] < 0) refuse(function, argument, v, "extents of at least 0");
  if (is_empty(v)) return {0, 0};
  std::uint64_t count = 1, below = 0, above = 0;
  constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<Index>::max());
  bool fits = element_span(v, below, above);
  for (std::size_t d = 0; d < v.rank; ++d)
    fits = fits &&
           !__builtin_mul_overflow(count, static_cast<std::uint64_t>(v.extent[d]), &count) &&
           count <= most;
  if (!fits) refuse(function, argument, v, "extents and strides whose bytes fit 63 bits");
  if (v.data == 0) refuse(function, argument, "a null pointer", "data");
  if (below * v.size > v.data ||
      (above + 1) * v.size > std::numeric_limits<std::uintptr_t>::max() - v.data)
    refuse(function, argument, v, "extents and strides that stay within memory");
  return {v.data - below * v.size, v.data + (above + 1) * v.size};
}

/// Whether two views, whose bytes are within these and meet, share one: byte p of element x of one
/// is byte q of element y of the other. Counted from the first byte of a and, for b, back from its
/// last, all steps are positive and the total is one number.
inline bool share_memory(const ViewShape& a, const ByteRange& bytes_a, const ViewShape& b,
                         const ByteRange& bytes_b) {
  BoundedSum sum;
  sum.add(1, a.size - 1 + (b.size - 1));
  for (const ViewShape* v : {&a, &b})
    for (std::size_t d = 0; d < v->rank; ++d)
      sum.add(magnitude(v->stride[d]) * v->size, v->steps(d));
  return sum.reaches(bytes_b[1] - 1 - bytes_a[0]);
}

/// Whether two indices of a view that has elements name one element: whether sum_d stride_d delta_d
/// is 0 for some delta that is not, |delta_d| < extent_d. Dimension k is the first in which delta
/// differs from 0, there taken as positive; the sum is shifted so that all factors count from 0.
inline bool names_twice(const ViewShape& v) {
  std::array<std::array<std::uint64_t, 2>, BoundedSum::most_terms> steps{};  // {stride, extent - 1}
  for (std::size_t d = 0; d < v.rank; ++d) {
    std::size_t at = d;
    const std::array<std::uint64_t, 2> step{magnitude(v.stride[d]), v.steps(d)};
    for (; at > 0 && steps[at - 1] < step; --at) steps[at] = steps[at - 1];
    steps[at] = step;
  }
  std::uint64_t behind = 0;  // the span of the dimensions after k
  for (std::size_t k = v.rank; k-- > 0;) {
    const auto [stride, most] = steps[k];
    if (most == 0) continue;
    if (stride <= behind) {
      BoundedSum sum;
      sum.add(stride, most - 1);
      for (std::size_t d = k + 1; d < v.rank; ++d) sum.add(steps[d][0], 2 * steps[d][1]);
      if (sum.reaches(stride * most + behind)) return true;
    }
    behind += stride * most;
  }
  return false;
}

inline void check_no_overlap(const char* function, const char* output, const ViewShape& out,
                             const char* input, const ViewShape& in) {
  const ByteRange written = checked_bytes(function, output, out);
  const ByteRange read = checked_bytes(function, input, in);
  // Of an empty view they are 0 and 0.
  if (read[0] < written[1] && written[0] < read[1] && share_memory(out, written, in, read))
    refuse(function, output, "memory that overlaps an input",
           std::string("memory apart from ") + input);
}

inline void check_writable(const char* function, const char* output, const ViewShape& out) {
  checked_bytes(function, output, out);
  if (is_empty(out)) return;
  for (std::size_t d = 0; d < out.rank; ++d)
    if (out.stride[d] == 0 && out.extent[d] > 1)
      refuse(function, output, "a stride of 0", "one place for each element");
  if (names_twice(out))
    refuse(function, output, "strides by which two indices name one element",
           "one place for each element");
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Throws on a view that cannot be read: a negative extent, more elements or a wider span of bytes
/// than `Index` counts or than there are addresses, and null data where there are elements.
template <class T, std::size_t Rank>
void check_view(const char* function, const char* argument, const TensorView<T, Rank>& v) {
  detail::checked_bytes(function, argument, detail::ViewShape(v));
}

/// Throws if an output shares a byte with what else the call reads or writes, or the view of either
/// is not sound. Views that interleave without a common byte are accepted.
template <class T, class U, std::size_t R, std::size_t S>
void check_no_overlap(const char* function, const char* output, const TensorView<T, R>& out,
                      const char* input, const TensorView<U, S>& in) {
  detail::check_no_overlap(function, output, detail::ViewShape(out), input, detail::ViewShape(in));
}

/// Throws on an output in which two indices name one element, as with a zero stride or with rows
/// that overlap, or whose view is not sound.
template <class T, std::size_t Rank>
void check_writable(const char* function, const char* output, const TensorView<T, Rank>& out) {
  detail::check_writable(function, output, detail::ViewShape(out));
}

/// Throws unless the elements of each row, along the last dimension, follow one another. Rows of
/// one element or none do. Whether the view is sound is for check_view to say.
template <class T, std::size_t Rank>
void check_contiguous_rows(const char* function, const char* argument,
                           const TensorView<T, Rank>& v) {
  check(v.stride[Rank - 1] == 1 || v.extent[Rank - 1] <= 1, function, argument, v.stride,
        "contiguous rows, of a stride of 1 along the last dimension");
}

PARE_ABI_END

}  // namespace pare

#include <pare/core/macros_on.hpp>
