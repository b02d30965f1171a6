// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Writing a .npy file: the type and the storage order of what is stored.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/detail/elements.hpp>
#include <pare/io/detail/npy_format.hpp>
#include <pare/io/detail/shape.hpp>

#include <algorithm>
#include <cstddef>
#include <ostream>
#include <type_traits>
#include <vector>

namespace pare::io {

namespace detail {
PARE_ABI_BEGIN

/// What is stored for a T: bf16, which NumPy does not have, as float.
template <class T>
struct npy_stored {
  using type = T;
};
template <>
struct npy_stored<bf16> {
  using type = float;
};

/// The same elements with the order of the indices reversed: column-major becomes row-major.
template <class T, std::size_t Rank>
TensorView<T, Rank> reversed(TensorView<T, Rank> x) {
  std::reverse(x.extent.begin(), x.extent.end());
  std::reverse(x.stride.begin(), x.stride.end());
  return x;
}

/// What goes into the file: the header, and the elements so that the last index of the view is the
/// one that varies fastest in the file.
template <class T, std::size_t Rank>
struct NpyOutput {
  NpyHeader header;
  TensorView<const T, Rank> elements;
};

/// Checks a view and chooses the storage order; nothing is written.
template <class T, std::size_t Rank>
NpyOutput<T, Rank> npy_output(const char* function, TensorView<const T, Rank> x) {
  const std::vector<Index> shape(x.extent.begin(), x.extent.end());
  const Index count = element_count({function, "x"}, shape);
  using Stored = typename npy_stored<T>::type;
  checked_product(function, "x", count, sizeof(Stored));
  check_view(function, "x", x);
  const bool column_major = !is_row_major(x) && is_row_major(reversed(x));
  return {{npy_dtype<Stored>(), column_major, shape}, column_major ? reversed(x) : x};
}

template <class T, std::size_t Rank>
void write_npy_output(std::ostream& os, const NpyOutput<T, Rank>& out) {
  const std::string start = npy_header_bytes(out.header);
  os.write(start.data(), static_cast<std::streamsize>(start.size()));
  write_elements<typename npy_stored<T>::type>(os, out.elements);
}

PARE_ABI_END
}  // namespace detail

}  // namespace pare::io
