// SPDX-License-Identifier: Apache-2.0
// The kernels that shared_kernels.hpp promises.
#include <pare/core/arch.hpp>
#include <pare/core/kernel_entry.hpp>

namespace pare::detail {

template <class Arch, class Arguments>
void KernelEntry<Arch, Arguments>::run(const Arguments& arguments) noexcept {
  run_kernel(Arch{}, arguments);
}

}  // namespace pare::detail

#define PARE_INSTANTIATE(...) \
  template struct pare::detail::KernelEntry<pare::arch::best, __VA_ARGS__>;

#include <pare/dispatch/kernels/attention.inc>
#include <pare/dispatch/kernels/factor.inc>
#include <pare/dispatch/kernels/feature.inc>
#include <pare/dispatch/kernels/graph.inc>
#include <pare/dispatch/kernels/linalg.inc>
#include <pare/dispatch/kernels/projection.inc>
