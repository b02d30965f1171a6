// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The pass behind the products of a projection: biases, activation, gate, residual.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/projected_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// Rows beside those of the output, and in their place where those do not lie side by side.
template <class T>
struct ProjectionMemory {
  AlignedBuffer<T> gate, skip, out;
};

/// About 64 KiB of float in an item.
inline Index projection_rows(Index columns) {
  return std::max<Index>(1, (Index{1} << 14) / columns);
}

template <class T>
bool lies_by_rows(const TensorView<T, 2>& m) {
  return m.stride[1] == 1 || m.cols() == 1;
}

/// Down the columns of some rows, which are the lines of a matrix that is stored by columns.
template <class B, class T>
void copy_rows(const B& backend, TensorView<const T, 2> from, TensorView<T, 2> to) {
  const Index block = projection_rows(to.cols());
  parallel_for(backend.executor, ceil_div(to.rows(), block), [&](Index item, int) {
    const Index begin = item * block, end = std::min(to.rows(), begin + block);
    for (Index j = 0; j < to.cols(); ++j)
      for (Index i = begin; i < end; ++i) to(i, j) = from(i, j);
  });
}

/// Calls project(rows) with y, or with memory whose rows are copied to y behind it.
template <class B, class T, class Project>
void project_by_rows(const B& backend, TensorView<T, 2> y, AlignedBuffer<T>& memory,
                     const Project& project) {
  if (!KernelBackend<B> || lies_by_rows(y)) return project(y);
  if constexpr (KernelBackend<B>) {
    const TensorView<T, 2> rows = matrix_in(memory, y.rows(), y.cols());
    project(rows);
    copy_rows(on_any_executor(backend), as_const(rows), y);
  }
}

/// x, or a copy of it by rows.
template <class B, class T>
TensorView<const T, 2> rows_side_by_side(const B& backend, TensorView<const T, 2> x,
                                         AlignedBuffer<T>& memory) {
  if constexpr (KernelBackend<B>)
    if (!lies_by_rows(x)) {
      const TensorView<T, 2> rows = matrix_in(memory, x.rows(), x.cols());
      copy_rows(on_any_executor(backend), x, rows);
      return as_const(rows);
    }
  return x;
}

template <class T>
TensorView<const T, 2> vector_view(const std::vector<T>& x) {
  const auto size = static_cast<Index>(x.size());
  return {x.data(), {size > 0 ? 1 : 0, size}, {size, 1}};
}

/// An element of a bias, 0 where there is none.
template <class T>
double bias_at(const std::vector<T>& bias, Index j) {
  return bias.empty() ? 0.0 : static_cast<double>(bias[static_cast<std::size_t>(j)]);
}

/// One pass. An empty gate: y = A(y + bias) + skip; else y = A(gate + bias) (y + value_bias) +
/// skip. An empty skip counts as 0.
template <class A, class T>
struct ProjectionFinish {
  TensorView<const T, 2> gate;
  const std::vector<T>& bias;
  const std::vector<T>& value_bias;
  TensorView<const T, 2> skip;
  TensorView<T, 2> y;

  void define() const {
    for (Index r = 0; r < y.rows(); ++r)
      for (Index j = 0; j < y.cols(); ++j) {
        const auto product = static_cast<double>(y(r, j));
        double value = gate.data != nullptr ? static_cast<double>(gate(r, j)) : product;
        value = A::exact(value + bias_at(bias, j));
        if (gate.data != nullptr) value *= product + bias_at(value_bias, j);
        y(r, j) =
            static_cast<T>(skip.data != nullptr ? value + static_cast<double>(skip(r, j)) : value);
      }
  }

  /// Rows [begin, end), whose elements lie side by side in all operands.
  template <bool Gated, class B>
  void run(const B& backend, Index begin, Index end) const {
    const auto data = [](const std::vector<T>& x) { return x.empty() ? nullptr : x.data(); };
    kernel::ProjectedRows<T, A, Gated> a;
    a.x = Gated ? &gate(begin, 0) : &y(begin, 0);
    a.x_stride = Gated ? gate.stride[0] : y.stride[0];
    a.bias = data(bias);
    if (Gated) {
      a.value = &y(begin, 0);
      a.value_stride = y.stride[0];
      a.value_bias = data(value_bias);
    }
    if (skip.data != nullptr) {
      a.skip = &skip(begin, 0);
      a.skip_stride = skip.stride[0];
    }
    a.out = &y(begin, 0);
    a.out_stride = y.stride[0];
    a.rows = end - begin;
    a.columns = y.cols();
    launch(backend, a);
  }
};

template <bool Gated, class A, class B, class T>
void finish_rows(const B& backend, const ProjectionFinish<A, T>& finish) {
  if constexpr (!KernelBackend<B>) {
    finish.define();
  } else {
    const auto on = on_any_executor(backend);
    const Index rows = finish.y.rows(), block = projection_rows(finish.y.cols());
    parallel_for(on.executor, ceil_div(rows, block), [&](Index item, int) {
      finish.template run<Gated>(on, item * block, std::min(rows, (item + 1) * block));
    });
  }
}

/// y = A(y + bias) + skip.
template <class A, class B, class T>
void finish_projection(const B& backend, const std::vector<T>& bias, TensorView<const T, 2> skip,
                       TensorView<T, 2> y) {
  finish_rows<false>(backend, ProjectionFinish<A, T>{{}, bias, bias, skip, y});
}

/// y = A(gate + bias) (y + value_bias) + skip.
template <class A, class B, class T>
void finish_gated_projection(const B& backend, TensorView<const T, 2> gate,
                             const std::vector<T>& bias, const std::vector<T>& value_bias,
                             TensorView<const T, 2> skip, TensorView<T, 2> y) {
  finish_rows<true>(backend, ProjectionFinish<A, T>{gate, bias, value_bias, skip, y});
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
