// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A view of a compressed sparse matrix, made from Eigen::SparseMatrix, Map or Ref without a copy.
///
/// ```cpp
/// const auto lines = pare::to_compressed(matrix);  // rows of a row-major matrix
/// pare::check_compressed("my_method", "matrix", lines);
/// for (pare::Index e = lines.begin(row); e < lines.end(row); ++e)
///   sum += lines.values[e] * x[lines.inner[e]];
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <array>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

namespace pare {

/// Compressed rows of an [outer_size x inner_size] matrix (for a column-major matrix, its columns).
///
/// Line `u` holds entries `begin(u)` to `end(u)` of `inner` and `values`. Entries of a line may
/// come in any order, and equal indices add up.
template <class T, class I>
struct CompressedView {
  Index outer_size = 0;
  Index inner_size = 0;
  const I* outer = nullptr;          ///< [outer_size + 1] offsets
  const I* line_nonzeros = nullptr;  ///< [outer_size], null when lines follow each other
  const I* inner = nullptr;          ///< index of each entry within its line
  const T* values = nullptr;

  /// The first entry of line u, which is not checked.
  constexpr Index begin(Index u) const { return static_cast<Index>(outer[u]); }
  /// One past the last entry of line u.
  constexpr Index end(Index u) const {
    return line_nonzeros != nullptr ? begin(u) + static_cast<Index>(line_nonzeros[u])
                                    : static_cast<Index>(outer[u + 1]);
  }
  /// Of all lines.
  constexpr Index entries() const {
    Index sum = 0;
    for (Index u = 0; u < outer_size; ++u) sum += end(u) - begin(u);
    return sum;
  }
};

namespace detail {
template <class S>
concept EigenSparse = requires(const S& s) {
  s.outerIndexPtr();
  s.innerIndexPtr();
  s.valuePtr();
  s.innerNonZeroPtr();
  S::IsRowMajor;
};

template <class S>
using sparse_value = std::remove_cvref_t<decltype(*std::declval<const S&>().valuePtr())>;
template <class S>
using sparse_index = std::remove_cvref_t<decltype(*std::declval<const S&>().innerIndexPtr())>;
}  // namespace detail

/// A sparse matrix that is read: Eigen's, compressed or not, of float or double. Eigen's sparse
/// vectors keep no offsets and are not one.
template <class S>
concept SparseIn = detail::EigenSparse<S> && !bool(S::IsVectorAtCompileTime) &&
                   ComputeScalar<detail::sparse_value<S>> &&
                   (std::same_as<detail::sparse_index<S>, std::int32_t> ||
                    std::same_as<detail::sparse_index<S>, std::int64_t> ||
                    std::same_as<detail::sparse_index<S>, long long>);

/// One that is also stored by rows.
template <class S>
concept SparseRowsIn = SparseIn<S> && bool(S::IsRowMajor);

/// The scalar of a sparse matrix.
template <SparseIn S>
using sparse_scalar_of = detail::sparse_value<S>;

/// Dense objects of the scalar of a sparse matrix.
template <class S, class... X>
concept SameScalarAsSparse = (std::is_same_v<sparse_scalar_of<S>, scalar_of<X>> && ...);

/// The lines of a sparse matrix as it is stored: rows of a row-major one, columns of the other. The
/// view is valid while the matrix lives unchanged; nothing is copied or checked.
template <SparseIn S>
CompressedView<detail::sparse_value<S>, detail::sparse_index<S>> to_compressed(const S& s) {
  return {static_cast<Index>(s.outerSize()),
          static_cast<Index>(s.innerSize()),
          s.outerIndexPtr(),
          s.innerNonZeroPtr(),
          s.innerIndexPtr(),
          s.valuePtr()};
}

PARE_ABI_BEGIN
/// Throws std::invalid_argument, with the names of function and argument, on negative sizes, null
/// arrays that have elements, offsets that decrease, start below 0 or count more bytes than memory
/// has, and indices outside [0, inner_size). Cost: one pass over offsets and indices.
template <class T, class I>
void check_compressed(const char* function, const char* argument, const CompressedView<T, I>& s) {
  constexpr Index most = std::numeric_limits<Index>::max() / Index{sizeof(double)} - 1;
  check(s.outer_size >= 0 && s.outer_size <= most && s.inner_size >= 0, function, argument,
        std::array<Index, 2>{s.outer_size, s.inner_size}, "sizes of a matrix");
  check(s.outer_size == 0 || s.outer != nullptr, function, argument, "no offsets",
        "offsets of its lines");
  Index previous = 0;
  for (Index u = 0; u < s.outer_size; ++u) {
    check(s.begin(u) >= previous && s.begin(u) <= most &&
              (s.line_nonzeros == nullptr ||
               static_cast<Index>(s.line_nonzeros[u]) <= most - s.begin(u)) &&
              s.end(u) >= s.begin(u) && s.end(u) <= most,
          function, argument, s.begin(u), "line offsets that never decrease");
    check(s.begin(u) == s.end(u) || (s.inner != nullptr && s.values != nullptr), function, argument,
          "no indices or values", "both where there are entries");
    previous = s.end(u);
    I lowest = 0, highest = 0;
    for (Index e = s.begin(u); e < s.end(u); ++e) {
      lowest = s.inner[e] < lowest ? s.inner[e] : lowest;
      highest = s.inner[e] > highest ? s.inner[e] : highest;
    }
    check(lowest >= 0 && (s.begin(u) == s.end(u) || static_cast<Index>(highest) < s.inner_size),
          function, argument, static_cast<Index>(lowest < 0 ? lowest : highest),
          "indices within the matrix");
  }
}

/// Throws std::invalid_argument if an output shares memory with the values, indices or offsets of a
/// sparse matrix. Call `check_compressed` on that first.
template <class T, std::size_t Rank, class U, class I>
void check_no_overlap(const char* function, const char* output, const TensorView<T, Rank>& out,
                      const char* input, const CompressedView<U, I>& s) {
  const Index lines = s.outer_size, entries = lines > 0 ? s.end(lines - 1) : 0;
  const auto apart = [&](const auto* list, Index size) {
    using Element = std::remove_pointer_t<decltype(list)>;
    check_no_overlap(function, output, out, input, TensorView<Element, 1>{list, {size}, {1}});
  };
  apart(s.values, entries);
  apart(s.inner, entries);
  apart(s.outer, lines > 0 ? lines + 1 : 0);
  if (s.line_nonzeros != nullptr) apart(s.line_nonzeros, lines);
}
PARE_ABI_END

}  // namespace pare

#include <pare/core/macros_on.hpp>
