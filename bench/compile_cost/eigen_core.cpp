// SPDX-License-Identifier: Apache-2.0
// The floor: what every program that uses Eigen pays.

#include <Eigen/Core>

int main() { return 0; }
