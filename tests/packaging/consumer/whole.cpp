// SPDX-License-Identifier: Apache-2.0
// Every header is there and finds what it includes.
#include <pare/pare.hpp>
