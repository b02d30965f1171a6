// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Matrices whose singular values are known.

#include "random_data.hpp"

#include <cstdint>
#include <vector>

namespace pare::bench {

/// U diag(values) V^T with random orthogonal U and V: products of sign changes, permutations and
/// Hadamard transforms of blocks, which are orthogonal exactly and take seconds where a
/// decomposition of Gaussian matrices would take minutes.
RowMatrix matrix_with_singular_values(Eigen::Index rows, Eigen::Index cols,
                                      const std::vector<double>& values, std::uint64_t seed);

/// 1, 2^-decay, 3^-decay, ...: the slow fall of trained weights at 0.6.
std::vector<double> power_law_values(Eigen::Index count, double decay);

/// ||W - A B||_F, accumulated in double.
double residual_norm(const RowMatrix& w, const RowMatrix& a, const RowMatrix& b);

}  // namespace pare::bench
