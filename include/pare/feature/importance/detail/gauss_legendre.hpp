// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Gauss-Legendre quadrature on [0, 1].

#include <pare/core/check.hpp>

#include <cmath>
#include <cstddef>
#include <numbers>
#include <vector>

namespace pare::feature::detail {
PARE_ABI_BEGIN

/// integral_0^1 f ~ sum_k weights_k f(nodes_k), exact for polynomials below degree 2 n.
struct Quadrature {
  std::vector<double> nodes, weights;
};

/// The Legendre polynomial of degree n at x, and its derivative.
struct Legendre {
  double value, slope;

  Legendre(Index n, double x) {
    double before = 1;
    value = x;
    for (Index k = 2; k <= n; ++k) {
      const auto degree = static_cast<double>(k);
      const double next = ((2 * degree - 1) * x * value - (degree - 1) * before) / degree;
      before = value;
      value = next;
    }
    slope = static_cast<double>(n) * (x * value - before) / (x * x - 1);
  }
};

/// Nodes are the zeros of the polynomial of degree n, by Newton's method from Tricomi's guess.
inline Quadrature gauss_legendre(Index n) {
  Quadrature q;
  for (Index k = n; k > 0; --k) {
    const double angle =
        std::numbers::pi * (static_cast<double>(k) - 0.25) / (static_cast<double>(n) + 0.5);
    double x = std::cos(angle);
    for (int iteration = 0; iteration < 20; ++iteration) {
      const Legendre p(n, x);
      x -= p.value / p.slope;
    }
    const Legendre p(n, x);
    q.nodes.push_back((1 + x) / 2);
    q.weights.push_back(1 / ((1 - x * x) * p.slope * p.slope));
  }
  return q;
}

PARE_ABI_END
}  // namespace pare::feature::detail
