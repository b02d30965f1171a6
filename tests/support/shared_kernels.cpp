// SPDX-License-Identifier: Apache-2.0
// The kernels that shared_kernels.hpp promises.
#define PARE_DISPATCH_ARCH best
#include <pare/dispatch/instantiate.hpp>

#include "support/shared_kernels.hpp"
