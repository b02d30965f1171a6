// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace pare::testing {

/// An attention tensor [batch, heads, tokens, dim], contiguous.
template <class T>
struct Heads {
  Index batch = 1, heads = 1, tokens = 0, dim = 1;
  std::vector<T> list{};

  Heads(Index b, Index h, Index n, Index d, T value = T{})
      : batch(b),
        heads(h),
        tokens(n),
        dim(d),
        list(static_cast<std::size_t>(b * h * n * d), value) {}

  T& operator()(Index b, Index h, Index i, Index c) {
    return list[static_cast<std::size_t>(((b * heads + h) * tokens + i) * dim + c)];
  }
  TensorView<T, 4> writable() {
    return {list.data(), {batch, heads, tokens, dim}, {heads * tokens * dim, tokens * dim, dim, 1}};
  }
  TensorView<const T, 4> view() const {
    return {list.data(), {batch, heads, tokens, dim}, {heads * tokens * dim, tokens * dim, dim, 1}};
  }
  TensorView<const T, 2> head(Index b, Index h) const {
    return {list.data() + (b * heads + h) * tokens * dim, {tokens, dim}, {dim, 1}};
  }
};

/// Independent normal numbers of variance 1.
template <class T>
Heads<T> normal_heads(Index batch, Index heads, Index tokens, Index dim, std::uint64_t seed) {
  Heads<T> x(batch, heads, tokens, dim);
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  for (T& value : x.list) value = static_cast<T>(static_cast<compute_t<T>>(normal(random)));
  return x;
}

/// Keys of which a few are heavy: every query looks at them.
template <class T>
void plant_heavy_hitters(Heads<T>& q, Heads<T>& k, Index every, double height) {
  for (Index b = 0; b < q.batch; ++b) {
    for (Index h = 0; h < q.heads; ++h)
      for (Index i = 0; i < q.tokens; ++i) q(b, h, i, 0) = static_cast<T>(1);
    for (Index h = 0; h < k.heads; ++h)
      for (Index j = 0; j < k.tokens; ++j)
        k(b, h, j, 0) = static_cast<T>((j * 37 + h) % every == 5 ? height : 0.0);
  }
}

}  // namespace pare::testing
