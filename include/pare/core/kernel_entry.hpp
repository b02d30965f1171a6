// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The one symbol by which a kernel that another translation unit compiles is called: that of a
/// higher instruction set (dispatch.hpp), or one that a program compiles once for all its units.
///
/// ```cpp
/// detail::KernelEntry<arch::avx2, kernel::SignedSum<float>>::run(arguments);
/// ```

#include <pare/core/macros_off.hpp>

namespace pare::detail {

/// `run` is defined only where instantiate.hpp is included, so that a combination nobody
/// instantiated is an undefined reference. The arch is part of the name: no two objects share it.
template <class Arch, class Arguments>
struct KernelEntry {
  static void run(const Arguments& arguments) noexcept;
};

}  // namespace pare::detail

#include <pare/core/macros_on.hpp>
