// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The vector layer: one spelling of each operation for xsimd 8.1 to 14 and for one scalar lane.
///
/// ```cpp
/// vec<float, Arch> sum = broadcast<Arch>(0.0f);
/// for (std::ptrdiff_t i = 0; i + lanes<float, Arch> <= n; i += lanes<float, Arch>)
///   sum = multiply_add<Arch>(load<Arch>(x + i), load<Arch>(y + i), sum);
/// const float dot = reduce_add<Arch>(sum);
/// ```
///
/// Kernels are written once over `vec<T, Arch>`; with `arch::scalar` that is T itself. An operation
/// is what simd/x86*.hpp or arm.hpp has for the tag or one that it inherits from, else what
/// simd/generic.hpp makes of xsimd (of codes and 2:4 weights, the operation's own header).
/// Intrinsics stand in x86*.hpp and arm.hpp and nowhere else.
///
/// | what | header in simd/ |
/// | --- | --- |
/// | registers, plain loads and stores | contract.hpp |
/// | stores past the caches, prefetches, pairs from memory | memory.hpp |
/// | sums, products, comparisons, reductions | arithmetic.hpp |
/// | 16-bit storage, floats and doubles | conversions.hpp |
/// | products of bf16 in pairs | bf16_pairs.hpp |
/// | lanes that change places | shuffles.hpp |
/// | codes of few bits | codes.hpp |
/// | 2:4 weights | two_four.hpp |

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd/arithmetic.hpp>
#include <pare/kernel/simd/bf16_pairs.hpp>
#include <pare/kernel/simd/codes.hpp>
#include <pare/kernel/simd/contract.hpp>
#include <pare/kernel/simd/conversions.hpp>
#include <pare/kernel/simd/memory.hpp>
#include <pare/kernel/simd/shuffles.hpp>
#include <pare/kernel/simd/two_four.hpp>

#include <pare/core/macros_on.hpp>
