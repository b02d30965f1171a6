// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace pare::testing {

/// The probability that chi-square of `degrees` degrees of freedom is above x, by Wilson and
/// Hilferty's cube root: within a few percent of itself down to 1e-12, where decisions here are far
/// from.
inline double chi_square_survival(double x, double degrees) {
  const double spread = 2 / (9 * degrees);
  const double z = (std::cbrt(x / degrees) - (1 - spread)) / std::sqrt(spread);
  return std::erfc(z / std::sqrt(2.0)) / 2;
}

/// p of the hypothesis that counts are those of a law. Cells of expected count below 5 are pooled.
inline double goodness_of_fit(std::span<const std::int64_t> counts, std::span<const double> law) {
  double total = 0;
  for (const std::int64_t n : counts) total += static_cast<double>(n);
  double x = 0, cells = 0, pooled = 0, pooled_wanted = 0;
  const auto add = [&](double got, double wanted) {
    if (wanted <= 0) {
      x += got > 0 ? 1e30 : 0;  // a token that the law does not have
      return;
    }
    x += (got - wanted) * (got - wanted) / wanted;
    cells += 1;
  };
  for (std::size_t i = 0; i < law.size(); ++i) {
    const double wanted = law[i] * total, got = static_cast<double>(counts[i]);
    if (wanted < 5 && wanted > 0) {
      pooled += got;
      pooled_wanted += wanted;
    } else {
      add(got, wanted);
    }
  }
  if (pooled_wanted > 0) add(pooled, pooled_wanted);
  return chi_square_survival(x, cells - 1);
}

/// A law of n tokens, none of it tiny, and one that is half of it and half another.
struct LawPair {
  std::vector<double> p{}, q{};
};

inline std::vector<double> random_law(std::size_t n, std::mt19937& random) {
  std::vector<double> law(n);
  double sum = 0;
  for (double& x : law) sum += x = std::exp(2.5 * static_cast<double>(random()) / 4294967296.0);
  for (double& x : law) x /= sum;
  return law;
}

inline LawPair law_pair(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  LawPair laws{random_law(n, random), random_law(n, random)};
  for (std::size_t i = 0; i < n; ++i) laws.q[i] = (laws.p[i] + laws.q[i]) / 2;
  return laws;
}

}  // namespace pare::testing
