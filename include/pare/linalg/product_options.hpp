// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of a product C = A B: to add to C, to leave out its upper half, to scale the factors.
///
/// ```cpp
/// linalg::multiply(pare::simd, a, b, c, {.accumulate = true});  // c += a b
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/scalar.hpp>

namespace pare::linalg {

/// Which elements of C are wanted.
enum class Half {
  Both,
  Lower,  ///< c_ij for i >= j; of what lies above some is written too, how much no one may rely on
};

PARE_ABI_BEGIN

/// Options of `multiply`.
template <ComputeScalar T>
struct ProductOptions {
  bool accumulate = false;          ///< C += A B
  Half half = Half::Both;           ///< Lower saves half of the work where C is row-major
  const T* row_scale = nullptr;     ///< [m] multiplies the rows of A
  const T* column_scale = nullptr;  ///< [n] multiplies the columns of B
  const T* depth_scale = nullptr;   ///< [k] multiplies the columns of A, which are the rows of B

  bool scales() const {
    return row_scale != nullptr || column_scale != nullptr || depth_scale != nullptr;
  }
};

PARE_ABI_END

}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
