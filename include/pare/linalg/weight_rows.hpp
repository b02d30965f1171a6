// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// y = x W^T for a few rows x, where W is read where it lies: one token of a layer, or some.
///
/// ```cpp
/// // w [outputs, inputs] of bf16, x [rows, inputs] and y [rows, outputs] of float, rows contiguous
/// linalg::multiply_weight_rows(pare::simd.threads(2), w, x, y);
/// ```
///
/// `multiply` packs its right factor, which takes as long as the products of some ten rows. This
/// reads W once for every 16 rows, widened or de-quantised in registers (kernel/weight_rows.hpp).

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/cpu_features.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/weight_pairs.hpp>
#include <pare/kernel/weight_rows.hpp>

#include <algorithm>

namespace pare::linalg {

/// Rows up to which layers read their weight where it lies. More run as a product of matrices.
inline constexpr Index few_weight_rows = 48;

namespace detail {
PARE_ABI_BEGIN

/// Weights up to this many bytes are likely to be in L2 or L3 still when they are read again.
/// Taking one that is in memory for cached costs one row a twentieth of its time.
inline constexpr Index cached_weight_bytes = Index{8} << 20;

/// Outputs that a worker takes at once: all where there is one, and else an eighth of its part, in
/// whole panels of the kernel.
inline Index weight_rows_item(int workers, Index outputs) {
  constexpr Index panel = 16;
  return workers == 1 ? outputs : ceil_div(ceil_div(outputs, Index{8} * workers), panel) * panel;
}

/// The kernel's call, its outputs shared out among workers.
template <class B, class Call>
void launch_weight_rows(const B& backend, const Call& all) {
  const Index each = weight_rows_item(worker_count(backend.executor, all.outputs), all.outputs);
  parallel_for(backend.executor, ceil_div(all.outputs, each), [&](Index item, int) {
    const Index begin = item * each;
    Call a = all;
    a.weights += begin * a.weight_stride;
    a.y += begin;
    a.outputs = std::min(each, all.outputs - begin);
    launch(backend, a);
  });
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// y_rj = sum_i x_ri W_ji.
///
/// The caller has checked the arguments: extents fit, and y is apart from x and W.
/// \param w [outputs, inputs / weight_inputs] of float, bf16, f16 or blocks, rows contiguous
/// \param x [rows, inputs] of float, rows contiguous
/// \param y [rows, outputs] of float, rows contiguous, written
///
/// Cost: W is read once for every 16 rows, which binds up to 6 rows (12 of float); beyond, the
/// multiply-adds do: 0.6 to 0.8 of their peak with 16 rows of 500 inputs or more, 0.55 with 96,
/// whose sums are added up after 6 of them. Memory: none. An element of y has the same bits for any
/// number of rows and any executor.
template <KernelBackend B, kernel::WeightElement W>
void multiply_weight_rows(const B& backend, TensorView<const W, 2> w, TensorView<const float, 2> x,
                          TensorView<float, 2> y) {
  kernel::MultiplyWeightRows<W> a;
  a.weights = w.data;
  a.weight_stride = w.stride[0];
  a.x = x.data;
  a.x_stride = x.stride[0];
  a.y = y.data;
  a.y_stride = y.stride[0];
  a.rows = x.rows();
  a.inputs = w.cols() * kernel::weight_inputs<W>;
  a.outputs = w.rows();
  a.from_cache = w.rows() * w.cols() * Index{sizeof(W)} <= detail::cached_weight_bytes;
  detail::launch_weight_rows(backend, a);
}

/// A backend that is compiled for products of pairs of bf16.
template <class B>
concept PairBackend = KernelBackend<B> && requires { requires B::arch::has_bf16_dot; };

/// Whether rows of bf16 are multiplied by a weight of bf16 in pairs: of a backend that is compiled
/// for them, on a processor where they are as fast as those of floats, and of a weight
/// with a multiple of 64 inputs and an even stride.
template <KernelBackend B>
bool multiplies_weight_pairs(const B&, TensorView<const bf16, 2> w) {
  return PairBackend<B> && cpu_has_fast_bf16_dot() && w.cols() % 64 == 0 && w.stride[0] % 2 == 0;
}

/// Elements from a row of x to the next with which multiply_weight_pairs is fastest: rows then
/// share the sets of L1 evenly. At least `inputs`, a multiple of 64, and less than 2048 more.
inline Index weight_pairs_stride(Index inputs) { return 2 * kernel::pair_row_stride(inputs / 2); }

/// Rows up to which multiply_weight_pairs is as fast with any other stride.
inline constexpr Index any_stride_rows = kernel::streamed_pair_rows;

/// The same for rows of bf16, where multiplies_weight_pairs holds: products of pairs, which count
/// subnormals as 0, and sums in float. Twice as many products an instruction.
///
/// \param x [rows, inputs] of bf16, rows contiguous and an even number of elements apart
///
/// Cost: W is read once for every 24 to 36 rows, which binds up to some 10; beyond, products do, at
/// 0.8 to 0.87 of their peak. An element of y has the same bits for any number of rows and any
/// executor.
template <PairBackend B>
void multiply_weight_pairs(const B& backend, TensorView<const bf16, 2> w,
                           TensorView<const bf16, 2> x, TensorView<float, 2> y) {
  kernel::MultiplyWeightPairs a;
  a.weights = reinterpret_cast<const kernel::Bf16Pair*>(w.data);
  a.weight_stride = w.stride[0] / 2;
  a.x = reinterpret_cast<const kernel::Bf16Pair*>(x.data);
  a.x_stride = x.stride[0] / 2;
  a.y = y.data;
  a.y_stride = y.stride[0];
  a.rows = x.rows();
  a.inputs = w.cols() / 2;
  a.outputs = w.rows();
  detail::launch_weight_rows(backend, a);
}

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
