// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The pass behind the products of a projection: biases, activation, gate, residual.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/row_blocks.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/projected_rows.hpp>

#include <cstddef>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// Rows beside those of the output.
template <class T>
struct ProjectionMemory {
  AlignedBuffer<T> gate, skip;
};

/// An element of a bias, 0 where there is none.
template <class T>
double bias_at(const std::vector<T>& bias, Index j) {
  return bias.empty() ? 0.0 : static_cast<double>(bias[static_cast<std::size_t>(j)]);
}

/// One pass. Gated: y = A(gate + bias) (y + value_bias) + skip; else y = A(y + bias) + skip. An
/// empty skip counts as 0. Of the run, not of the compile, a gate would ask for kernels of both.
template <class A, bool Gated, class T>
struct ProjectionFinish {
  TensorView<const T, 2> gate;
  const std::vector<T>& bias;
  const std::vector<T>& value_bias;
  TensorView<const T, 2> skip;
  TensorView<T, 2> y;

  template <class B>
  void run(const B& backend) const {
    if constexpr (!KernelBackend<B>)
      define();
    else if constexpr (Gated)
      run_blocks(on_any_executor(backend), gate);
    else
      run_blocks(on_any_executor(backend), as_const(y));
  }

 private:
  void define() const {
    for (Index r = 0; r < y.rows(); ++r)
      for (Index j = 0; j < y.cols(); ++j) {
        const auto product = static_cast<double>(y(r, j));
        double value = Gated ? static_cast<double>(gate(r, j)) : product;
        value = A::exact(value + bias_at(bias, j));
        if constexpr (Gated) value *= product + bias_at(value_bias, j);
        y(r, j) =
            static_cast<T>(skip.data != nullptr ? value + static_cast<double>(skip(r, j)) : value);
      }
  }

  /// Of x, which A is of.
  template <class B>
  void run_blocks(const B& backend, TensorView<const T, 2> x) const {
    const auto run = [this](const B& on, TensorView<const T, 2> of, TensorView<const T, 2> value,
                            TensorView<const T, 2> added,
                            TensorView<T, 2> to) { launch(on, arguments(of, value, added, to)); };
    if (skip.data != nullptr)
      over_row_blocks(backend, run, x, as_const(y), skip, y);
    else
      over_row_blocks(
          backend,
          [&run](const B& on, TensorView<const T, 2> of, TensorView<const T, 2> value,
                 TensorView<T, 2> to) { run(on, of, value, {}, to); },
          x, as_const(y), y);
  }

  auto arguments(TensorView<const T, 2> of, TensorView<const T, 2> value,
                 TensorView<const T, 2> added, TensorView<T, 2> to) const {
    kernel::ProjectedRows<T, A, Gated> a;
    a.x = of.data;
    a.x_stride = of.stride[0];
    a.bias = bias.empty() ? nullptr : bias.data();
    a.value = value.data;
    a.value_stride = value.stride[0];
    a.value_bias = value_bias.empty() ? nullptr : value_bias.data();
    a.skip = added.data;
    a.skip_stride = added.stride[0];
    a.out = to.data;
    a.out_stride = to.stride[0];
    a.rows = to.rows();
    a.columns = to.cols();
    return a;
  }
};

/// y = A(y + bias) + skip.
template <class A, class B, class T>
void finish_projection(const B& backend, const std::vector<T>& bias, TensorView<const T, 2> skip,
                       TensorView<T, 2> y) {
  ProjectionFinish<A, false, T>{{}, bias, bias, skip, y}.run(backend);
}

/// y = A(gate + bias) (y + value_bias) + skip.
template <class A, class B, class T>
void finish_gated_projection(const B& backend, TensorView<const T, 2> gate,
                             const std::vector<T>& bias, const std::vector<T>& value_bias,
                             TensorView<const T, 2> skip, TensorView<T, 2> y) {
  ProjectionFinish<A, true, T>{gate, bias, value_bias, skip, y}.run(backend);
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
