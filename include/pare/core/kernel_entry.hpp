// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The one symbol that joins a program compiled for the baseline to kernels compiled for more.

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
