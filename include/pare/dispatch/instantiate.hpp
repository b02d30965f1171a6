// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// For translation units that compile kernels for one instruction set (`pare_add_dispatch`
/// generates them): PARE_INSTANTIATE(kernel argument struct) emits the entry that
/// `pare::dispatched` calls. A user's file of them names kernels of the user's own:
///
/// ```cpp
/// // my_kernels.inc, for pare_add_dispatch(my_program INSTANTIATE my_kernels.inc)
/// #include "scale_rows.hpp"  // mine::ScaleRows<T> and its run_kernel; must not include Eigen
/// PARE_INSTANTIATE(mine::ScaleRows<float>)
/// PARE_INSTANTIATE(mine::ScaleRows<double>)
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/arch.hpp>
#include <pare/core/kernel_entry.hpp>

#if !defined(PARE_DISPATCH_ARCH)
#error "pare/dispatch/instantiate.hpp is for the files that pare_add_dispatch generates"
#endif

namespace pare::detail {

template <class Arch, class Arguments>
void KernelEntry<Arch, Arguments>::run(const Arguments& arguments) noexcept {
  run_kernel(Arch{}, arguments);
}

}  // namespace pare::detail

/// Compiles the kernel of an argument struct for this translation unit's instruction set.
#define PARE_INSTANTIATE(...) \
  template struct pare::detail::KernelEntry<pare::arch::PARE_DISPATCH_ARCH, __VA_ARGS__>;

#include <pare/core/macros_on.hpp>
