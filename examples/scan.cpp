// SPDX-License-Identifier: Apache-2.0
// The recurrence of a state-space model (Mamba-2): a prompt, then token by token from the same
// state. Prints the largest difference from the prompt scanned in one call: 0, the bits are the
// same.

#include <pare/sequence/scan.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

constexpr pare::Index tokens = 50, heads = 4, states = 16, dim = 32;

/// [1, tokens from `begin` on, heads, width] of a list of all.
pare::TensorView<float, 4> part(std::vector<float>& list, pare::Index begin, pare::Index end,
                                pare::Index of, pare::Index width) {
  return {list.data() + begin * of * width,
          {1, end - begin, of, width},
          {tokens * of * width, of * width, width, 1}};
}

std::vector<float> random_numbers(pare::Index size) {
  const Eigen::VectorXf v = Eigen::VectorXf::Random(size);
  return {v.data(), v.data() + size};
}

int main() {
  auto x = random_numbers(tokens * heads * dim), dt = random_numbers(tokens * heads);
  auto b = random_numbers(tokens * states), c = random_numbers(tokens * states);
  std::vector<float> a(dt.size()), y(x.size()), again(x.size());
  for (std::size_t k = 0; k < dt.size(); ++k) {
    const float step = std::log1p(std::exp(dt[k]));  // softplus, as Mamba has it
    a[k] = std::exp(-step);                          // exp(dt A) with A = -1
    for (std::size_t p = 0; p < dim; ++p) x[k * dim + p] *= step;
  }
  std::vector<float> kept(heads * states * dim), whole(kept);
  const auto state = [](std::vector<float>& h) {
    return pare::TensorView<float, 4>{
        h.data(), {1, heads, states, dim}, {heads * states * dim, states * dim, dim, 1}};
  };
  const auto scan_part = [&](std::vector<float>& h, std::vector<float>& out, pare::Index begin,
                             pare::Index end) {
    pare::sequence::scan(part(x, begin, end, heads, dim), part(a, begin, end, heads, 1),
                         part(b, begin, end, 1, states), part(c, begin, end, 1, states), state(h),
                         part(out, begin, end, heads, dim));
  };
  scan_part(whole, y, 0, tokens);
  scan_part(kept, again, 0, 40);                                               // a prompt
  for (pare::Index t = 40; t < tokens; ++t) scan_part(kept, again, t, t + 1);  // and what follows

  float difference = 0;
  for (std::size_t k = 0; k < y.size(); ++k)
    difference = std::max(difference, std::abs(y[k] - again[k]));
  std::printf("difference: %g\n", double(difference));
  return difference == 0 && std::isfinite(y.back()) ? 0 : 1;
}
