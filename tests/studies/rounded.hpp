// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What models are made of in double, with what float makes of it.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace pare::testing {

/// A number with a standard deviation of what float makes of it: a running error analysis, one rule
/// for each operation of the model. Roundings are taken as independent and of mean 0, so that n of
/// them amount to sqrt(n) u (Higham and Mary, "A new approach to probabilistic rounding error
/// analysis", 2019). Bounds that hold for any roundings grow fivefold with every product here, and
/// tell nothing after two blocks.
struct Rounded {
  double x = 0, error = 0;

  /// Of the 101 logits of some hundred tokens one in 10^9 would be off by more, were they normal;
  /// rules below err on the side of more.
  double tolerance() const { return 8 * error; }
};
using RoundedRow = std::vector<Rounded>;

inline constexpr double float_roundoff = 0x1p-24;
/// Of a rounding to bf16, evenly spread within 2^-8 of the number: 2^-8 / sqrt(3).
inline constexpr double bf16_error = 0.578 / 256;
/// Of n roundings in a row, relative.
inline double float_error(double n) { return std::sqrt(n) * float_roundoff; }
inline double square(double a) { return a * a; }
inline double root_of_squares(double a, double b, double c = 0) {
  return std::sqrt(a * a + b * b + c * c);
}

/// Sums of products: a product and at most n additions for each.
/// \param w [outputs, inputs]
inline RoundedRow rounded_product(const std::vector<float>& w, const RoundedRow& x) {
  const std::size_t n = x.size();
  RoundedRow y(w.size() / n);
  for (std::size_t o = 0; o < y.size(); ++o) {
    double size = 0, inherited = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double factor = static_cast<double>(w[o * n + i]);
      y[o].x += factor * x[i].x;
      size += std::abs(factor * x[i].x);
      inherited += square(factor * x[i].error);
    }
    y[o].error = std::sqrt(inherited + square(float_error(static_cast<double>(n) + 1) * size));
  }
  return y;
}

inline void round_to_bf16(RoundedRow& x) {
  for (Rounded& b : x) b.error = root_of_squares(b.error, bf16_error * b.x);
}

/// q k / sqrt(dim), as a sum of products; the scale, log2(e) and the maximum cost four roundings.
inline Rounded score_of(const Rounded* q, const Rounded* k, std::size_t dim) {
  const double scale = 1 / std::sqrt(static_cast<double>(dim));
  Rounded score;
  double size = 0, inherited = 0;
  for (std::size_t i = 0; i < dim; ++i) {
    score.x += scale * q[i].x * k[i].x;
    size += scale * std::abs(q[i].x * k[i].x);
    inherited += square(scale * q[i].x * k[i].error) + square(scale * q[i].error * k[i].x);
  }
  score.error = std::sqrt(inherited + square(float_error(static_cast<double>(dim) + 5) * size));
  return score;
}

/// One query of one head: out = sum_j p_j v_j. A score that is off by d moves it by p_j d (v_j -
/// out); an exponential is off by two units, and sums of weights add to that. bf16 rounds weights.
inline void attend_one(const Rounded* q, const std::vector<RoundedRow>& k,
                       const std::vector<RoundedRow>& v, std::size_t keys, std::size_t dim,
                       std::size_t kv_at, bool bf16_cache, Rounded* out) {
  std::vector<Rounded> score(keys);
  std::vector<double> weight(keys);
  double largest = -1e300, sum = 0;
  for (std::size_t j = 0; j < keys; ++j) {
    score[j] = score_of(q, &k[j][kv_at], dim);
    largest = std::max(largest, score[j].x);
  }
  for (std::size_t j = 0; j < keys; ++j) sum += weight[j] = std::exp(score[j].x - largest);
  const double relative = square(float_error(2 * static_cast<double>(keys) + 10)) +
                          (bf16_cache ? square(bf16_error) : 0);
  for (std::size_t i = 0; i < dim; ++i) {
    double x = 0, squares = 0;
    for (std::size_t j = 0; j < keys; ++j) x += weight[j] / sum * v[j][kv_at + i].x;
    for (std::size_t j = 0; j < keys; ++j) {
      const Rounded& b = v[j][kv_at + i];
      squares += square(weight[j] / sum) *
                 (square(score[j].error * (b.x - x)) + square(b.error) + relative * square(b.x));
    }
    out[i] = {x, std::sqrt(squares)};
  }
}

/// x += delta.
inline void add_rounded(RoundedRow& x, const RoundedRow& delta) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i].x += delta[i].x;
    x[i].error = root_of_squares(x[i].error, delta[i].error, float_roundoff * x[i].x);
  }
}

}  // namespace pare::testing
