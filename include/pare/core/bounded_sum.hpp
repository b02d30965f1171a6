// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which totals a sum of multiples with bounded factors can take. The checks for overlap of strided
/// memory (view_check.hpp) come down to this question.

#include <pare/core/macros_off.hpp>

#include <pare/core/ceil_div.hpp>
#include <pare/core/config.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>

namespace pare::detail {

PARE_ABI_BEGIN

/// The totals step_0 z_0 + step_1 z_1 + ... over integers 0 <= z_k <= most_k, of at most
/// `most_terms` terms. The greatest total must fit 64 bits.
class BoundedSum {
 public:
  static constexpr std::size_t most_terms = 32;

  /// Adds a term; terms of one step are one term.
  void add(std::uint64_t step, std::uint64_t most) {
    if (step == 0 || most == 0) return;
    for (std::size_t k = 0; k < count_; ++k)
      if (terms_[k].step == step) {
        terms_[k].most += most;
        return;
      }
    terms_[count_++] = {step, most, 0, 0};
  }

  /// Whether the sum takes this total. Terms are tried from the greatest step down, and a branch is
  /// left where the bounds or the common divisor of the steps that remain rule the rest out: one or
  /// two branches per term for strides of tensors. The problem is NP-hard for strides made to be
  /// hard; after `most_branches` the answer is true.
  bool reaches(std::uint64_t total) {
    // By insertion: g++ 12 at -O2 takes std::sort of so few terms for a step past their end.
    for (std::size_t k = 1; k < count_; ++k)
      for (std::size_t j = k; j > 0 && terms_[j - 1].step < terms_[j].step; --j)
        std::swap(terms_[j - 1], terms_[j]);
    std::uint64_t reach = 0, divisor = 0;
    for (std::size_t k = count_; k-- > 0;) {
      reach += terms_[k].step * terms_[k].most;
      divisor = std::gcd(divisor, terms_[k].step);
      terms_[k].reach = reach;
      terms_[k].divisor = divisor;
    }
    branches_ = 0;
    return search(0, total);
  }

 private:
  static constexpr int most_branches = 1 << 16;

  struct Term {
    std::uint64_t step, most;
    std::uint64_t reach, divisor;  // of this term and those behind it
  };

  PARE_NOINLINE bool search(std::size_t k, std::uint64_t total) {
    if (total == 0) return true;
    if (k == count_ || total > terms_[k].reach || total % terms_[k].divisor != 0) return false;
    const Term& term = terms_[k];
    const std::uint64_t behind = term.reach - term.step * term.most;
    const std::uint64_t least = total > behind ? ceil_div(total - behind, term.step) : 0;
    for (std::uint64_t z = std::min(term.most, total / term.step) + 1; z-- > least;) {
      if (++branches_ > most_branches) return true;
      if (search(k + 1, total - z * term.step)) return true;
    }
    return false;
  }

  std::array<Term, most_terms> terms_;  // count_ of them
  std::size_t count_ = 0;
  int branches_ = 0;
};

PARE_ABI_END

}  // namespace pare::detail

#include <pare/core/macros_on.hpp>
