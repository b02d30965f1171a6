// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The gradient of the loss by the input, batch by batch: what importances of a fitted model read.

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/detail/number_list.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/model/detail/labelled_rows.hpp>
#include <pare/feature/model/model.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace pare::feature::detail {
PARE_ABI_BEGIN

template <class T>
void check_labelled(const char* function, const char* x_name, const char* labels_name,
                    TensorView<const T, 2> x, std::size_t labels, Index dim) {
  check_view(function, x_name, x);
  check(x.cols() == dim, function, x_name, x.extent, std::to_string(dim) + " columns");
  check(x.rows() >= 2, function, x_name, x.rows(), "at least 2 rows");
  check(x.stride[1] == 1 || x.stride[0] == 1, function, x_name, x.stride,
        "strides with rows or columns contiguous");
  check_size(function, labels_name, labels, static_cast<std::size_t>(x.rows()));
}

/// What importances of a fitted model are given.
template <class M, class T>
void check_fitted(const char* function, const M& model, const FieldLayout& layout,
                  TensorView<const T, 2> x, std::size_t labels) {
  check(layout.fields() >= 1, function, "layout", layout.fields(), "at least one field");
  check(model.dim() == layout.dim(), function, "model", model.dim(), layout.dim());
  check_labelled(function, "x", "labels", x, labels, layout.dim());
}

inline void check_batch_rows(const char* function, Index batch) {
  check(batch >= 2, function, "batch", batch, "at least 2");
}

/// Calls visit(rows, gradient) with dL/dx of the mean loss of each `batch` rows, at most `batches`
/// times.
template <class M, class Visit>
void for_each_input_gradient(M& model, const LabelledRows<typename M::scalar>& rows, Index batch,
                             Index batches, const Visit& visit) {
  using T = typename M::scalar;
  std::vector<T> logits, slopes;
  AlignedBuffer<T> memory;
  for (Index begin = 0, done = 0; begin < rows.rows() && done < batches; begin += batch, ++done) {
    const LabelledRows<T> part = rows.range(begin, std::min(batch, rows.rows() - begin));
    logits.resize(part.labels.size());
    slopes.resize(part.labels.size());
    model.forward(part.x, logits);
    logistic_gradient<T>(logits, part.labels, slopes);
    const TensorView<T, 2> gradient = like(part.x, memory);
    model.input_gradient(slopes, gradient);
    visit(part, as_const(gradient));
  }
}

/// sum_k a_bk b_bk over the columns of a field, in double.
template <class T>
double field_dot(TensorView<const T, 2> a, TensorView<const T, 2> b, Index row) {
  double sum = 0;
  for (Index k = 0; k < a.cols(); ++k)
    sum += static_cast<double>(a(row, k)) * static_cast<double>(b(row, k));
  return sum;
}

PARE_ABI_END
}  // namespace pare::feature::detail
