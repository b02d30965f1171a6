// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A checked bijection of [0, n).
///
/// ```cpp
/// const auto p = pare::Permutation::random(x.rows(), 7);  // seed 7
/// p.gather_rows(x, y);                                    // row i of y is row p(i) of x
/// p.scatter_rows(y, z);                                   // z equals x
/// const pare::Permutation swap({1, 0, 2});                // throws unless a bijection
/// const bool same = swap.inverse() == swap;               // true
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/random.hpp>
#include <pare/core/tensor_view.hpp>

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare {

PARE_ABI_BEGIN

/// A permutation p of [0, n), kept as the list p(0) ... p(n-1); a bijection by construction.
///
/// The convention is that of an indexed gather: `gather` reads through p, out[i] = in[p(i)];
/// `scatter` writes through it, out[p(i)] = in[i]. Each undoes the other. `compose(p, q)` is i ->
/// p(q(i)); gathering with it is gathering with p, then with q.
///
/// Inputs and outputs hold one scalar of Pare's, with any strides. Every operation is one pass on
/// the calling thread. Memory: 4 bytes per index.
class Permutation {
 public:
  using value_type = std::uint32_t;

  Permutation() = default;

  /// Takes the list p(0) ... p(n-1). Cost: one pass, with one bit per index.
  /// \throws std::invalid_argument if an index is out of range or occurs twice, or n >= 2^32.
  explicit Permutation(std::vector<value_type> indices) : indices_(std::move(indices)) {
    check_bijection(indices_);
  }

  /// i -> i. \throws std::invalid_argument if n is not in [0, 2^32).
  static Permutation identity(Index n) {
    Permutation p;
    p.indices_.resize(checked_size(n));
    std::iota(p.indices_.begin(), p.indices_.end(), value_type{0});
    return p;
  }

  /// A random order, a function of (n, seed, stream) alone: Fisher-Yates, each of whose choices is
  /// made from 64 bits of Philox, with a bias below 2^-64. Streams of one seed share no
  /// random bits.
  /// \throws std::invalid_argument if n is not in [0, 2^32).
  static Permutation random(Index n, std::uint64_t seed, std::uint64_t stream = 0) {
    Permutation p = identity(n);
    const PhiloxKey key(seed);
    for (Index i = n - 1; i > 0; --i) {
      const auto block = static_cast<std::uint64_t>(i);
      const PhiloxCounter words =
          philox({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(stream),
                  static_cast<std::uint32_t>(stream >> 32), 0x5045524du},
                 key);
      const auto j = static_cast<std::size_t>(
          multiply_high((std::uint64_t{words[0]} << 32) | words[1], block + 1));
      std::swap(p.indices_[static_cast<std::size_t>(i)], p.indices_[j]);
    }
    return p;
  }

  /// n.
  Index size() const { return static_cast<Index>(indices_.size()); }
  /// p(i). \throws std::invalid_argument if i is outside [0, size()).
  value_type operator[](Index i) const {
    if (i < 0 || i >= size())
      check(false, "Permutation::operator[]", "i", i, "below " + std::to_string(size()));
    return indices_[static_cast<std::size_t>(i)];
  }
  /// The list p(0) ... p(n-1).
  const value_type* data() const { return indices_.data(); }
  /// The same as a span.
  std::span<const value_type> indices() const { return indices_; }
  friend bool operator==(const Permutation&, const Permutation&) = default;

  /// The q with q(p(i)) = i.
  Permutation inverse() const {
    Permutation q;
    q.indices_.resize(indices_.size());
    for (std::size_t i = 0; i < indices_.size(); ++i)
      q.indices_[indices_[i]] = static_cast<value_type>(i);
    return q;
  }

  /// i -> p(q(i)). \throws std::invalid_argument if the sizes differ.
  friend Permutation compose(const Permutation& p, const Permutation& q) {
    check(p.size() == q.size(), "compose", "q", q.size(), p.size());
    Permutation r;
    r.indices_.resize(q.indices_.size());
    for (std::size_t i = 0; i < r.indices_.size(); ++i) r.indices_[i] = p.indices_[q.indices_[i]];
    return r;
  }

  /// True if no index leaves its segment of `length` consecutive positions (the last may be
  /// shorter). \throws std::invalid_argument if length < 1.
  bool is_segment_local(Index length) const {
    check(length >= 1, "Permutation::is_segment_local", "length", length, "at least 1");
    for (Index i = 0; i < size(); ++i)
      if (i / length != static_cast<Index>((*this)[i]) / length) return false;
    return true;
  }

  /// out[i] = in[p(i)] for ranges `in` and `out` of n elements.
  /// \throws std::invalid_argument if a size is not n, or out overlaps in or itself. Nothing is
  /// written then.
  template <class X, class Y>
  requires In<X, 1> && Out<Y, 1>
  void gather(const X& in, Y&& out) const {
    move("Permutation::gather", to_view(in), to_view(out),
         [this](Index i) { return std::pair{static_cast<Index>((*this)[i]), i}; });
  }

  /// out[p(i)] = in[i]. \throws std::invalid_argument as `gather`.
  template <class X, class Y>
  requires In<X, 1> && Out<Y, 1>
  void scatter(const X& in, Y&& out) const {
    move("Permutation::scatter", to_view(in), to_view(out),
         [this](Index i) { return std::pair{i, static_cast<Index>((*this)[i])}; });
  }

  /// Row i of out is row p(i) of in, for matrices [n, columns].
  /// \throws std::invalid_argument as `gather`, or if the numbers of columns differ.
  template <class X, class Y>
  requires In<X, 2> && Out<Y, 2>
  void gather_rows(const X& in, Y&& out) const {
    const auto from = to_view(in);
    const auto to = to_view(out);
    check_rows("Permutation::gather_rows", from, to);
    for (Index i = 0; i < size(); ++i) copy_row(from, static_cast<Index>((*this)[i]), to, i);
  }

  /// Row p(i) of out is row i of in. \throws std::invalid_argument as `gather_rows`.
  template <class X, class Y>
  requires In<X, 2> && Out<Y, 2>
  void scatter_rows(const X& in, Y&& out) const {
    const auto from = to_view(in);
    const auto to = to_view(out);
    check_rows("Permutation::scatter_rows", from, to);
    for (Index i = 0; i < size(); ++i) copy_row(from, i, to, static_cast<Index>((*this)[i]));
  }

 private:
  static std::size_t checked_size(Index n) {
    check(n >= 0 && n <= Index{0xffffffff}, "Permutation", "n", n, "a size in [0, 2^32)");
    return static_cast<std::size_t>(n);
  }

  static void check_bijection(const std::vector<value_type>& indices) {
    checked_size(static_cast<Index>(indices.size()));
    std::vector<bool> seen(indices.size(), false);
    for (const value_type i : indices) {
      check(i < indices.size(), "Permutation", "indices", i, "indices below the length");
      check(!seen[i], "Permutation", "indices", i, "every index once");
      seen[i] = true;
    }
  }

  /// floor(word * n / 2^64) for n below 2^32, in 32-bit pieces.
  static std::uint64_t multiply_high(std::uint64_t word, std::uint64_t n) {
    return ((word >> 32) * n + (((word & 0xffffffffu) * n) >> 32)) >> 32;
  }

  template <class T, class U, class Positions>
  void move(const char* function, TensorView<T, 1> in, TensorView<U, 1> out,
            const Positions& positions) const {
    static_assert(std::is_same_v<std::remove_const_t<T>, U>, "pare: one scalar type on both sides");
    check_extents<1>(function, "in", in.extent, {size()});
    check_extents<1>(function, "out", out.extent, {size()});
    check_writable(function, "out", out);
    check_no_overlap(function, "out", out, "in", in);
    for (Index i = 0; i < size(); ++i) {
      const auto [from, to] = positions(i);
      out(to) = in(from);
    }
  }

  template <class T, class U>
  void check_rows(const char* function, TensorView<T, 2> in, TensorView<U, 2> out) const {
    static_assert(std::is_same_v<std::remove_const_t<T>, U>, "pare: one scalar type on both sides");
    check_view(function, "in", in);
    check_extents<2>(function, "in", in.extent, {size(), in.cols()});
    check_extents<2>(function, "out", out.extent, in.extent);
    check_writable(function, "out", out);
    check_no_overlap(function, "out", out, "in", in);
  }

  template <class T, class U>
  static void copy_row(TensorView<T, 2> in, Index from, TensorView<U, 2> out, Index to) {
    for (Index c = 0; c < in.cols(); ++c) out(to, c) = in(from, c);
  }

  std::vector<value_type> indices_;
};

Permutation compose(const Permutation& p, const Permutation& q);  // makes pare::compose findable

PARE_ABI_END
}  // namespace pare

#include <pare/core/macros_on.hpp>
