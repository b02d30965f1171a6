// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

namespace pare::testing {

/// Rows of numbers, contiguous.
template <class T>
struct PlainRows {
  Index rows = 0;
  Index cols = 0;
  std::vector<T> list{};

  PlainRows() = default;
  PlainRows(Index r, Index c, T value = T{})
      : rows(r), cols(c), list(static_cast<std::size_t>(r * c), value) {}

  T& operator()(Index i, Index c) { return list[static_cast<std::size_t>(i * cols + c)]; }
  T operator()(Index i, Index c) const { return list[static_cast<std::size_t>(i * cols + c)]; }
  TensorView<T, 2> writable() { return {list.data(), {rows, cols}, {cols, 1}}; }
  TensorView<const T, 2> view() const { return {list.data(), {rows, cols}, {cols, 1}}; }
  /// The same as `heads` matrices one below the other.
  TensorView<const T, 3> heads(Index count) const {
    return {list.data(), {count, rows / count, cols}, {rows / count * cols, cols, 1}};
  }
  TensorView<T, 3> writable_heads(Index count) {
    return {list.data(), {count, rows / count, cols}, {rows / count * cols, cols, 1}};
  }
};

/// Independent normal numbers of variance 1.
template <class T>
PlainRows<T> normal_rows(Index rows, Index cols, std::uint64_t seed) {
  PlainRows<T> x(rows, cols);
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  for (T& value : x.list) value = static_cast<T>(static_cast<compute_t<T>>(normal(random)));
  return x;
}

/// How [batch, heads, tokens, dim] lies in memory.
enum class Layout {
  by_head,   ///< as written
  by_token,  ///< [batch, tokens, heads, dim]
  apart,     ///< as written, with 3 unused numbers after each row
};

/// A tensor [batch, heads, tokens, dim] by extent.
template <class T>
struct Tensor {
  std::array<Index, 4> extent{};
  std::array<Index, 4> stride{};
  std::vector<T> list{};

  Tensor() = default;
  explicit Tensor(const std::array<Index, 4>& e, Layout layout = Layout::by_head, T value = T{})
      : extent(e) {
    const Index row = e[3] + (layout == Layout::apart ? 3 : 0);
    stride = layout == Layout::by_token
                 ? std::array<Index, 4>{e[1] * e[2] * row, row, e[1] * row, 1}
                 : std::array<Index, 4>{e[1] * e[2] * row, e[2] * row, row, 1};
    list.assign(static_cast<std::size_t>(e[0] * e[1] * e[2] * row), value);
  }

  TensorView<T, 4> writable() { return {list.data(), extent, stride}; }
  TensorView<const T, 4> view() const { return {list.data(), extent, stride}; }
  T& operator()(Index b, Index h, Index i, Index c) { return writable()(b, h, i, c); }
  const T& operator()(Index b, Index h, Index i, Index c) const { return view()(b, h, i, c); }
  /// The matrix [tokens, dim] of one head.
  TensorView<const T, 2> head(Index b, Index h) const {
    return {list.data() + b * stride[0] + h * stride[1],
            {extent[2], extent[3]},
            {stride[2], stride[3]}};
  }
};

/// Independent normal numbers of variance 1, the same for every layout.
template <class T>
Tensor<T> normal_tensor(const std::array<Index, 4>& extent, std::uint64_t seed,
                        Layout layout = Layout::by_head) {
  const PlainRows<T> rows = normal_rows<T>(extent[0] * extent[1] * extent[2], extent[3], seed);
  Tensor<T> x(extent, layout);
  Index row = 0;
  for (Index b = 0; b < extent[0]; ++b)
    for (Index h = 0; h < extent[1]; ++h)
      for (Index i = 0; i < extent[2]; ++i, ++row)
        for (Index c = 0; c < extent[3]; ++c) x(b, h, i, c) = rows(row, c);
  return x;
}

/// Every element of x made anew from itself, in compute_t<T>.
template <class T, class F>
void change(Tensor<T>& x, const F& f) {
  for (T& value : x.list) value = static_cast<T>(f(static_cast<compute_t<T>>(value)));
}

/// True if two lists have the same bits.
template <class T>
bool all_same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace pare::testing
