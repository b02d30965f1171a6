// SPDX-License-Identifier: Apache-2.0
// The floor of attention's programs, whose tensors are Eigen's.

#include <unsupported/Eigen/CXX11/Tensor>

int main() { return 0; }
