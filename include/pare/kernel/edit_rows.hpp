// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What edits of rank one add to rows of a layer's outputs.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/dot_row.hpp>
#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {

// Outside the ABI namespace, as all that crosses from one object to another: they name kernels.

/// ROME's gate, t itself: the edit is linear in x.
struct LinearGate {
  PARE_ALWAYS_INLINE double operator()(double t) const noexcept { return t; }
};

/// Perfusion's gate, 1 / (1 + exp((beta - t) / tau)): below beta of the key's own similarity a
/// concept is nearly off.
struct SigmoidGate {
  /// Similarity at which half of the value is given. The code's default; .75 in training, .6 to .75
  /// for a local lock, .4 to .6 for a global one.
  double beta = 0.70;
  double tau = 0.15;  ///< width, above 0; the code's default for inference, .1 in training

  PARE_ALWAYS_INLINE double operator()(double t) const noexcept {
    return 1 / (1 + __builtin_exp((beta - t) / tau));
  }
};

/// y_r += sum_c (gate(t) values_c - t removed_c), t = <directions_c, x_r>, one concept c after the
/// other. The gate is computed in double.
///
/// Cost: 2 (inputs + 2 outputs) FLOPs per row and concept. Of one row the reads of directions,
/// removed and values bind; with more rows they come out of L1 or L2.
template <ComputeScalar T, class Gate>
struct EditRows {
  const T* directions = nullptr;  ///< [concepts, inputs]
  const T* removed = nullptr;     ///< [concepts, outputs]
  const T* values = nullptr;      ///< [concepts, outputs]
  const T* x = nullptr;           ///< [rows, inputs]
  std::ptrdiff_t x_stride = 0;
  T* y = nullptr;  ///< [rows, outputs]
  std::ptrdiff_t y_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t concepts = 0;
  std::ptrdiff_t inputs = 0;
  std::ptrdiff_t outputs = 0;
  Gate gate{};
};

PARE_ABI_BEGIN

template <class Arch, class T, class Gate>
void run_kernel(Arch, const EditRows<T, Gate>& a) noexcept {
  using V = vec<T, Arch>;
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    T* const y = a.y + r * a.y_stride;
    for (std::ptrdiff_t k = 0; k < a.concepts; ++k) {
      const T t = dot_row<Arch>(a.x + r * a.x_stride, a.directions + k * a.inputs, a.inputs);
      const V taken = broadcast<Arch>(-t),
              given = broadcast<Arch>(static_cast<T>(a.gate(static_cast<double>(t))));
      const T *removed = a.removed + k * a.outputs, *values = a.values + k * a.outputs;
      const auto edited = [&](V row, V from, V to) PARE_LAMBDA_INLINE {
        return multiply_add<Arch>(given, to, multiply_add<Arch>(taken, from, row));
      };
      for_row<lanes<T, Arch>>(
          a.outputs,
          [&](std::ptrdiff_t j) PARE_LAMBDA_INLINE {
            store<Arch>(y + j, edited(load<Arch>(static_cast<const T*>(y) + j),
                                      load<Arch>(removed + j), load<Arch>(values + j)));
          },
          [&](std::ptrdiff_t j, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
            store_first<Arch>(y + j, count,
                              edited(load_first<Arch>(static_cast<const T*>(y) + j, count, T(0)),
                                     load_first<Arch>(removed + j, count, T(0)),
                                     load_first<Arch>(values + j, count, T(0))));
          });
    }
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
