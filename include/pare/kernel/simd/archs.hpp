// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// All that an operation of the vector layer may be carried out by: what each arch has of its own
/// (arm.hpp, x86*.hpp), and what serves any other (generic.hpp).
///
/// An operation asks with `requires` whether there is an overload `<name>_on` for the arch, and
/// finds those alone that are declared before it. So every header of operations includes this one.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd/arm.hpp>
#include <pare/kernel/simd/contract.hpp>
#include <pare/kernel/simd/generic.hpp>
#include <pare/kernel/simd/x86.hpp>
#include <pare/kernel/simd/x86_avx512.hpp>
#include <pare/kernel/simd/x86_avx512_codes.hpp>
#include <pare/kernel/simd/x86_avx512_two_four.hpp>

#include <pare/core/macros_on.hpp>
