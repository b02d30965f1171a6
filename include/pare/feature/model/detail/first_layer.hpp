// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What the built-in models share: parameters with their gradients, and the layer that meets the
/// input.

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/random.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/optim/adam.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <string>
#include <vector>

namespace pare::feature::detail {

PARE_ABI_BEGIN

/// C = epilogue(X W) with C by rows. Of an X by columns the product is made by columns too, which
/// reads it the way it lies, and turned.
template <Backend B, ComputeScalar T, linalg::Epilogue<T> E = linalg::NoEpilogue>
void multiply_input(const B& backend, TensorView<const T, 2> x, TensorView<const T, 2> w,
                    TensorView<T, 2> c, RowMatrix<T>& turned, const E& epilogue = {}) {
  if (x.stride[1] == 1 || c.cols() == 1) return linalg::multiply(backend, x, w, c, {}, epilogue);
  if (turned.rows() != c.cols() || turned.cols() != c.rows()) turned.resize(c.cols(), c.rows());
  linalg::multiply(backend, x, w, transpose(to_view(turned)), {}, epilogue);
  for (Index b = 0; b < c.rows(); ++b)
    for (Index s = 0; s < c.cols(); ++s) c(b, s) = turned(s, b);
}

/// A list as a column.
template <class T>
TensorView<T, 2> column_of(std::span<T> list) {
  return {list.data(), {static_cast<Index>(list.size()), 1}, {1, 1}};
}

/// The same memory cut into rows of `cols`.
template <class T>
TensorView<T, 2> matrix_of(std::span<T> list, Index cols) {
  return {list.data(), {static_cast<Index>(list.size()) / cols, cols}, {cols, 1}};
}

/// A standard normal number, a function of its arguments: Box and Muller.
inline double normal_at(std::uint64_t seed, std::uint32_t stream, Index index) {
  const auto i = static_cast<std::uint64_t>(index);
  const PhiloxCounter words = philox(
      {static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32), stream, 0x77656967u},
      PhiloxKey(seed));
  const double radius = std::sqrt(-2.0 * std::log(1.0 - to_unit_double(words[0], words[1])));
  return radius * std::cos(2.0 * std::numbers::pi * to_unit_double(words[2], words[3]));
}

template <class T>
void fill_normal(std::span<T> list, double deviation, std::uint64_t seed, std::uint32_t stream) {
  for (std::size_t i = 0; i < list.size(); ++i)
    list[i] = static_cast<T>(deviation * normal_at(seed, stream, static_cast<Index>(i)));
}

/// Parameters in one list, the sums of their gradients, and Adam.
template <ComputeScalar T>
class Parameters {
 public:
  Parameters(Index size, const optim::AdamOptions& options)
      : values_(static_cast<std::size_t>(size)), gradients_(values_.size()), adam_(size, options) {}

  std::span<T> values(Index begin, Index size) { return part(values_, begin, size); }
  std::span<const T> values(Index begin, Index size) const { return part(values_, begin, size); }
  std::span<T> gradients(Index begin, Index size) { return part(gradients_, begin, size); }
  std::span<T> values() { return values_; }
  std::span<const T> values() const { return values_; }
  std::span<const T> gradients() const { return gradients_; }

  void step() {
    adam_.step(values_, gradients_);
    clear_gradients();
  }
  void clear_gradients() { gradients_.assign(gradients_.size(), T(0)); }

 private:
  template <class List>
  static auto part(List& list, Index begin, Index size) {
    return std::span(list).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(size));
  }

  std::vector<T> values_, gradients_;
  optim::Adam<T> adam_;
};

/// state += (after - before) W, W [columns x width] of the columns that change.
template <class T>
void move_state(TensorView<const T, 2> before, TensorView<const T, 2> after,
                TensorView<const T, 2> weights, TensorView<T, 2> state) {
  for (Index b = 0; b < state.rows(); ++b)
    for (Index k = 0; k < weights.rows(); ++k) {
      const T difference = after(b, k) - before(b, k);
      T* to = &state(b, 0);
      const T* weight = &weights(k, 0);
      for (Index s = 0; s < weights.cols(); ++s) to[s] += difference * weight[s];
    }
}

/// Refuses what a model cannot take, before anything is written.
template <class T>
void check_rows(const char* function, TensorView<const T, 2> x, Index dim, std::size_t logits) {
  check_view(function, "x", x);
  check(x.cols() == dim, function, "x", x.extent, std::to_string(dim) + " columns");
  check(x.stride[1] == 1 || x.stride[0] == 1 || x.rows() <= 1 || x.cols() <= 1, function, "x",
        x.stride, "strides with rows or columns contiguous");
  check(static_cast<Index>(logits) == x.rows(), function, "logits", logits, x.rows());
}

inline void check_dim(const char* function, Index dim) {
  check(dim >= 1, function, "dim", dim, "at least 1");
}

/// The logits of x, apart from it.
template <class T>
void check_forward(const char* function, TensorView<const T, 2> x, Index dim, std::span<T> logits) {
  check_rows(function, x, dim, logits.size());
  check_no_overlap(function, "logits", column_of(logits), "x", x);
}

/// The gradient by the [rows x dim] of the last forward, apart from that by the logits.
template <class T>
void check_input_gradient(const char* function, Index rows, Index dim,
                          std::span<const T> grad_logits, TensorView<T, 2> grad_x) {
  check_extents<2>(function, "grad_x", grad_x.extent, {rows, dim});
  check_writable(function, "grad_x", grad_x);
  check_rows(function, as_const(grad_x), dim, grad_logits.size());
  check_no_overlap(function, "grad_x", grad_x, "grad_logits", column_of(grad_logits));
}

/// States of so many rows, each contiguous.
template <class T>
void check_state(const char* function, TensorView<T, 2> state, Index rows, Index width) {
  check_view(function, "state", state);
  check_extents<2>(function, "state", state.extent, {rows, width});
  check(state.stride[1] == 1 || width == 1, function, "state", state.stride, "contiguous rows");
}

/// Columns [offset, offset + columns) of the input, before and after, for each row of the state.
template <class T>
void check_replaced(const char* function, Index dim, Index offset, TensorView<const T, 2> before,
                    TensorView<const T, 2> after, Index rows) {
  check_view(function, "before", before);
  check_view(function, "after", after);
  check(before.rows() == rows, function, "before", before.extent, Worded{"", rows, " rows"});
  check_extents<2>(function, "after", after.extent, before.extent);
  check(before.cols() <= dim, function, "before", before.extent,
        Worded{"at most ", dim, " columns"});
  check(offset >= 0 && offset <= dim - before.cols(), function, "offset", offset,
        Worded{"0 to ", dim - before.cols()});
}

PARE_ABI_END
}  // namespace pare::feature::detail
