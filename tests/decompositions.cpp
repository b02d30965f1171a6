// SPDX-License-Identifier: Apache-2.0
#define PARE_TEST_DECOMPOSITIONS template
#include "decompositions.hpp"
