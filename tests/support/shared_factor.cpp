// SPDX-License-Identifier: Apache-2.0
// What shared_methods.hpp promises of factor.
#define PARE_TEST_SHARED_FACTOR template

#include "support/shared_kernels.hpp"
#include "support/shared_methods.hpp"
