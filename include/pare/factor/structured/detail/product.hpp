// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A product of matrices of doubles as a new matrix.

#include <pare/core/macros_off.hpp>

#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/multiply.hpp>

namespace pare::factor::detail {
PARE_ABI_BEGIN

template <class B>
RowMatrix<double> product(const B& backend, TensorView<const double, 2> a,
                          TensorView<const double, 2> b) {
  RowMatrix<double> c(a.rows(), b.cols());
  linalg::multiply(backend, a, b, to_view(c));
  return c;
}

PARE_ABI_END
}  // namespace pare::factor::detail

#include <pare/core/macros_on.hpp>
