// SPDX-License-Identifier: Apache-2.0
// Every public header at once, of which nothing is called: what includes it pays for what it does
// not use.

#include <pare/pare.hpp>

int main() { return 0; }
