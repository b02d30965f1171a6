// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Epilogues: what is done to an element of a product C = A B once its sum is complete, while its
/// tile is still in cache. A second pass over C would read and write C again.
///
/// ```cpp
/// const linalg::Then layer{linalg::AddBias<float>{bias.data()}, linalg::Relu{}};
/// linalg::multiply(pare::simd, x, w, y, {}, layer);  // y = relu(x w + bias)
///
/// const auto clamp = [](pare::Index, pare::Index, float sum) { return std::min(sum, 6.0f); };
/// linalg::multiply(pare::simd, x, w, y, {}, linalg::Then{layer, clamp});  // your own
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/config.hpp>
#include <pare/core/scalar.hpp>

#include <concepts>
#include <cstddef>
#include <type_traits>

namespace pare::linalg {
PARE_ABI_BEGIN

/// What becomes of c_ij: epilogue(i, j, sum) returns the value that is stored.
///
/// It is called once for each element, after the last block of the depth; with `accumulate`, also
/// after the former value of C was added. The order of calls is not fixed, and several workers call
/// it at the same time, so it must not change anything. i and j count rows and columns of the
/// caller's C, however C lies in memory. What the epilogue reads must not overlap C. With
/// `Half::Lower` it is called for some elements above the diagonal too. It must not throw.
template <class E, class T>
concept Epilogue = requires(const E& epilogue, Index i, Index j, T sum) {
  { epilogue(i, j, sum) } -> std::convertible_to<T>;
};

/// c_ij stays what it is; costs nothing.
struct NoEpilogue {
  template <ComputeScalar T>
  T operator()(Index, Index, T sum) const {
    return sum;
  }
};

/// c_ij + bias_j.
template <ComputeScalar T>
struct AddBias {
  const T* bias = nullptr;  ///< [n]
  T operator()(Index, Index j, T sum) const { return sum + bias[j]; }
};

/// scale_i c_ij. The options' `row_scale` scales A instead, before anything is accumulated.
template <ComputeScalar T>
struct ScaleRows {
  const T* scale = nullptr;  ///< [m]
  T operator()(Index i, Index, T sum) const { return scale[i] * sum; }
};

/// scale_j c_ij.
template <ComputeScalar T>
struct ScaleColumns {
  const T* scale = nullptr;  ///< [n]
  T operator()(Index, Index j, T sum) const { return scale[j] * sum; }
};

/// max(c_ij, 0); a NaN becomes 0.
struct Relu {
  template <ComputeScalar T>
  T operator()(Index, Index, T sum) const {
    return sum > T(0) ? sum : T(0);
  }
};

/// second(first(c_ij)). A product of the first and a sum of the second may round once, where the
/// compiler joins them.
template <class First, class Second>
struct Then {
  [[no_unique_address]] First first;
  [[no_unique_address]] Second second;

  template <ComputeScalar T>
  requires Epilogue<First, T> && Epilogue<Second, T>
  T operator()(Index i, Index j, T sum) const {
    return second(i, j, static_cast<T>(first(i, j, sum)));
  }
};
template <class First, class Second>
Then(First, Second) -> Then<First, Second>;

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

template <class E>
inline constexpr bool is_empty_epilogue = std::is_same_v<E, NoEpilogue>;

/// The epilogue of C^T from that of C.
template <class E>
struct TransposedEpilogue {
  const E& epilogue;
  template <ComputeScalar T>
  T operator()(Index i, Index j, T sum) const {
    return static_cast<T>(epilogue(j, i, sum));
  }
};

template <class E>
auto transpose_epilogue(const E& epilogue) {
  if constexpr (is_empty_epilogue<E>)
    return NoEpilogue{};
  else
    return TransposedEpilogue<E>{epilogue};
}

/// The epilogue of row i, columns [j, j + count), which `values` points to; count is at most Most.
/// Whole lines go through an array of their own, which nothing that the epilogue reads can overlap:
/// g++ -O2 makes vector code of that loop, and not of one that would have to ask.
template <Index Most, class T, class E>
void finish_line(const E& epilogue, Index i, Index j, Index count, T* values) {
  if (count == Most) {
    T line[static_cast<std::size_t>(Most)];
    for (Index at = 0; at < Most; ++at) line[at] = values[at];
    for (Index at = 0; at < Most; ++at) line[at] = static_cast<T>(epilogue(i, j + at, line[at]));
    for (Index at = 0; at < Most; ++at) values[at] = line[at];
  } else {
    for (Index at = 0; at < count; ++at)
      values[at] = static_cast<T>(epilogue(i, j + at, values[at]));
  }
}

PARE_ABI_END
}  // namespace detail
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
