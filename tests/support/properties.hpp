// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Properties that every method has, which a new one instantiates in three lines:
///
/// ```cpp
/// same_bits_for_any_threads(pare::simd, [&](const auto& backend) { return project(backend, x); });
/// any_stride_same_bits(x, [&](const auto& view) { return project(view, omega); });
/// refuses_and_leaves_alone([&] { project(x, omega, y); }, "projection::project", "x", y);
/// ```
///
/// A result is a number, a list of them (anything with size() and data()), or an Eigen matrix.

#include <gtest/gtest.h>

#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>

#include <array>
#include <cstddef>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace pare::testing {

/// The bytes of a result, its sizes first.
template <class R>
std::vector<unsigned char> bytes_of(const R& result) {
  std::vector<unsigned char> bytes;
  const auto add = [&bytes](const auto& x) {
    const auto* first = reinterpret_cast<const unsigned char*>(&x);
    bytes.insert(bytes.end(), first, first + sizeof(x));
  };
  if constexpr (requires { result.rows(), result.cols(), result(0, 0); }) {
    add(result.rows());
    add(result.cols());
    for (Index i = 0; i < result.rows(); ++i)
      for (Index j = 0; j < result.cols(); ++j) add(result(i, j));
  } else if constexpr (requires { result.size(), result.data(); }) {
    add(result.size());
    for (std::size_t i = 0; i < static_cast<std::size_t>(result.size()); ++i) add(result.data()[i]);
  } else {
    add(result);
  }
  return bytes;
}

/// call(backend) gives the same bits alone, on threads, and on pools whose workers run in reverse.
template <class B, class Call>
void same_bits_for_any_threads(const B& backend, const Call& call) {
  const auto alone = bytes_of(call(backend));
  for (const int workers : {1, 2, 3, 7, 16}) {
    EXPECT_TRUE(bytes_of(call(backend.threads(workers))) == alone) << workers << " threads";
    EXPECT_TRUE(bytes_of(call(backend.on(ReversePool{workers}))) == alone) << workers << " workers";
  }
}

/// call(view) gives the same bits for the matrix m by rows and by columns, with gaps and without.
/// Gaps hold NaN.
template <class M, class Call>
void any_stride_same_bits(const M& m, const Call& call) {
  using S = typename M::Scalar;
  const Index rows = m.rows(), cols = m.cols();
  std::vector<unsigned char> wanted;
  for (const bool by_rows : {true, false})
    for (const Index gap : {0, 3}) {
      std::vector<S> memory(static_cast<std::size_t>((rows + gap) * (cols + gap)),
                            static_cast<S>(std::numeric_limits<float>::quiet_NaN()));
      const TensorView<S, 2> view{
          memory.data(),
          {rows, cols},
          by_rows ? std::array<Index, 2>{cols + gap, 1} : std::array<Index, 2>{1, rows + gap}};
      for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < cols; ++j) view(i, j) = m(i, j);
      const auto got = bytes_of(call(as_const(view)));
      if (wanted.empty()) wanted = got;
      EXPECT_TRUE(got == wanted) << (by_rows ? "rows" : "columns") << ", gaps of " << gap;
    }
}

/// `call` is refused with std::invalid_argument that names both, and no output has changed a bit.
template <class Call, class... Outputs>
void refuses_and_leaves_alone(const Call& call, const std::string& function,
                              const std::string& argument, const Outputs&... outputs) {
  const std::vector<std::vector<unsigned char>> before{bytes_of(outputs)...};
  refusal(call, function, argument);
  EXPECT_TRUE((before == std::vector<std::vector<unsigned char>>{bytes_of(outputs)...}))
      << function << " wrote before it refused " << argument;
}

}  // namespace pare::testing
