// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The dense scan: its arguments, the definition, and chunks of it as products of matrices.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/sequence/detail/check_apart.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace pare::sequence::detail {
PARE_ABI_BEGIN

template <class S>
struct DenseScanCall {
  using T = compute_t<S>;
  static constexpr const char* function = "sequence::dense_scan";

  TensorView<const T, 2> a{};  ///< [states, states]
  TensorView<const T, 2> b{};  ///< [states, in]
  TensorView<const T, 2> c{};  ///< [out, states]
  TensorView<const S, 3> x{};  ///< [batch, tokens, in]
  TensorView<T, 2> state{};    ///< [batch, states]
  TensorView<T, 3> y{};        ///< [batch, tokens, out]

  Index states() const { return a.extent[0]; }
  Index batch() const { return x.extent[0]; }
  Index tokens() const { return x.extent[1]; }
};

/// What all models with A, B and C must be.
template <class T>
void check_model(const char* function, const TensorView<const T, 2>& a,
                 const TensorView<const T, 2>& b, const TensorView<const T, 2>& c) {
  check_view(function, "a", a);
  check(a.rows() >= 1, function, "a", a.extent, "at least 1 state");
  check_extents<2>(function, "a", a.extent, {a.rows(), a.rows()});
  check_view(function, "b", b);
  check(b.cols() >= 1, function, "b", b.extent, "at least 1 input");
  check_extents<2>(function, "b", b.extent, {a.rows(), b.cols()});
  check_view(function, "c", c);
  check(c.rows() >= 1, function, "c", c.extent, "at least 1 output");
  check_extents<2>(function, "c", c.extent, {c.rows(), a.rows()});
}

template <class S>
void check_dense_scan(const DenseScanCall<S>& s) {
  constexpr const char* f = DenseScanCall<S>::function;
  check_model(f, s.a, s.b, s.c);
  check_view(f, "x", s.x);
  check_extents<3>(f, "x", s.x.extent, {s.batch(), s.tokens(), s.b.cols()});
  check_contiguous_rows(f, "x", s.x);
  check_writable(f, "state", s.state);
  check_extents<2>(f, "state", s.state.extent, {s.batch(), s.states()});
  check_contiguous_rows(f, "state", s.state);
  check_writable(f, "y", s.y);
  check_extents<3>(f, "y", s.y.extent, {s.batch(), s.tokens(), s.c.rows()});
  check_contiguous_rows(f, "y", s.y);
  check_apart(s);
}

/// The definition, token by token, with the state in double.
template <class S>
void reference_dense_scan(const DenseScanCall<S>& s) {
  using T = compute_t<S>;
  const auto wide = [](auto v) { return static_cast<double>(static_cast<T>(v)); };
  const Index states = s.states();
  std::vector<double> h(static_cast<std::size_t>(states)), next(h);
  for (Index i = 0; i < s.batch(); ++i) {
    for (Index n = 0; n < states; ++n) h[static_cast<std::size_t>(n)] = wide(s.state(i, n));
    for (Index t = 0; t < s.tokens(); ++t) {
      for (Index n = 0; n < states; ++n) {
        double sum = 0;
        for (Index m = 0; m < states; ++m) sum += wide(s.a(n, m)) * h[static_cast<std::size_t>(m)];
        for (Index j = 0; j < s.b.cols(); ++j) sum += wide(s.b(n, j)) * wide(s.x(i, t, j));
        next[static_cast<std::size_t>(n)] = sum;
      }
      h.swap(next);
      for (Index o = 0; o < s.c.rows(); ++o) {
        double sum = 0;
        for (Index n = 0; n < states; ++n) sum += wide(s.c(o, n)) * h[static_cast<std::size_t>(n)];
        s.y(i, t, o) = static_cast<T>(sum);
      }
    }
    for (Index n = 0; n < states; ++n)
      s.state(i, n) = static_cast<T>(h[static_cast<std::size_t>(n)]);
  }
}

/// Tokens of a chunk: the powers of A that it needs cost as much as 32 states^2 tokens.
inline constexpr Index dense_chunk = 32;
/// Tokens of all sequences whose states are kept at a time.
inline constexpr Index dense_tokens = 8192;
/// So many sequences are rows enough for a product, without chunks.
inline constexpr Index dense_sequences = 32;

template <class T>
struct DenseScanMemory {
  AlignedBuffer<T> hidden, powers, starts;
};

template <class B, class S>
class DenseScan {
 public:
  using T = compute_t<S>;

  DenseScan(const B& backend, const DenseScanCall<S>& call)
      : backend_(keeping(backend, own_)), s_(call), memory_(leased<DenseScanMemory<T>>(backend_)) {}

  void run() {
    const bool chunks = s_.batch() < dense_sequences && s_.tokens() >= 2 * dense_chunk;
    if (chunks) make_powers();
    const Index most = chunks ? dense_tokens : std::max<Index>(1, dense_tokens / s_.batch());
    for (Index begin = 0; begin < s_.tokens(); begin += most) {
      const Index count = std::min(most, s_.tokens() - begin);
      if (chunks)
        for (Index i = 0; i < s_.batch(); ++i) run_chunks(i, begin, count);
      else
        run_steps(begin, count);
    }
  }

 private:
  /// [count, in] of sequence i.
  TensorView<const S, 2> inputs(Index i, Index begin, Index count) const {
    return {&s_.x(i, begin, 0), {count, s_.b.cols()}, {s_.x.stride[1], 1}};
  }
  TensorView<T, 2> outputs(Index i, Index begin, Index count) const {
    return {&s_.y(i, begin, 0), {count, s_.c.rows()}, {s_.y.stride[1], 1}};
  }

  /// All sequences together, token by token; hidden is [count, batch, states].
  void run_steps(Index begin, Index count) {
    const Index states = s_.states(), batch = s_.batch();
    T* const hidden = memory_->hidden.resize(static_cast<std::size_t>(count * batch * states));
    for (Index i = 0; i < batch; ++i)
      linalg::multiply(backend_, inputs(i, begin, count), lines(transpose(s_.b)),
                       TensorView<T, 2>{hidden + i * states, {count, states}, {batch * states, 1}});
    TensorView<const T, 2> before = as_const(s_.state);
    for (Index t = 0; t < count; ++t) {
      const TensorView<T, 2> now{hidden + t * batch * states, {batch, states}, {states, 1}};
      linalg::multiply(backend_, lines(before), lines(transpose(s_.a)), now, {.accumulate = true});
      before = as_const(now);
    }
    for (Index i = 0; i < batch; ++i) {
      linalg::multiply(
          backend_,
          TensorView<const T, 2>{hidden + i * states, {count, states}, {batch * states, 1}},
          lines(transpose(s_.c)), outputs(i, begin, count));
      for (Index n = 0; n < states; ++n) s_.state(i, n) = before(i, n);
    }
  }

  /// powers [states, chunk * states]: (A^1)^T, (A^2)^T, ... side by side.
  void make_powers() {
    const Index states = s_.states(), width = dense_chunk * states;
    powers_ = {memory_->powers.resize(static_cast<std::size_t>(states * width)),
               {states, width},
               {width, 1}};
    for (Index n = 0; n < states; ++n)
      for (Index m = 0; m < states; ++m) powers_(n, m) = s_.a(m, n);
    for (Index l = 1; l < dense_chunk; ++l)
      linalg::multiply(backend_, as_const(columns_of(powers_, (l - 1) * states, states)),
                       lines(transpose(s_.a)), columns_of(powers_, l * states, states));
  }

  /// One sequence in chunks; hidden is [chunks * dense_chunk, states], zeros behind the tokens.
  void run_chunks(Index i, Index begin, Index count) {
    const Index states = s_.states(), chunks = ceil_div(count, dense_chunk);
    const Index width = dense_chunk * states;
    T* const hidden = memory_->hidden.resize(static_cast<std::size_t>(chunks * width));
    std::fill(hidden + count * states, hidden + chunks * width, T(0));
    linalg::multiply(backend_, inputs(i, begin, count), lines(transpose(s_.b)),
                     TensorView<T, 2>{hidden, {count, states}, {states, 1}});
    const TensorView<T, 2> all{hidden, {chunks, width}, {width, 1}};
    for (Index l = 1; l < dense_chunk; ++l)
      linalg::multiply(backend_, as_const(columns_of(all, (l - 1) * states, states)),
                       lines(transpose(s_.a)), columns_of(all, l * states, states),
                       {.accumulate = true});
    add_starts(i, all);
    linalg::multiply(backend_, TensorView<const T, 2>{hidden, {count, states}, {states, 1}},
                     lines(transpose(s_.c)), outputs(i, begin, count));
    for (Index n = 0; n < states; ++n) s_.state(i, n) = hidden[(count - 1) * states + n];
  }

  /// The state before each chunk, in order, and what it leaves in the states of the chunk.
  void add_starts(Index i, TensorView<T, 2> all) {
    const Index states = s_.states(), last = (dense_chunk - 1) * states;
    const TensorView<T, 2> starts{
        memory_->starts.resize(static_cast<std::size_t>(all.rows() * states)),
        {all.rows(), states},
        {states, 1}};
    for (Index n = 0; n < states; ++n) starts(0, n) = s_.state(i, n);
    for (Index k = 0; k + 1 < all.rows(); ++k) {
      for (Index n = 0; n < states; ++n) starts(k + 1, n) = all(k, last + n);
      for (Index m = 0; m < states; ++m)
        for (Index n = 0; n < states; ++n) starts(k + 1, n) += starts(k, m) * powers_(m, last + n);
    }
    linalg::multiply(backend_, as_const(starts), as_const(powers_), all, {.accumulate = true});
  }

  /// The same matrix; along an extent of 1, where nobody steps, the stride is 1, by which products
  /// choose their way.
  static TensorView<const T, 2> lines(TensorView<const T, 2> m) {
    for (std::size_t d = 0; d < 2 && m.stride[0] != 1 && m.stride[1] != 1; ++d)
      if (m.extent[d] <= 1) m.stride[d] = 1;
    return m;
  }

  Workspace own_;
  const B backend_;
  const DenseScanCall<S>& s_;
  const Lease<DenseScanMemory<T>> memory_;
  TensorView<T, 2> powers_{};
};

template <class B, class S>
void run_dense_scan(const B& backend, const DenseScanCall<S>& call) {
  check_dense_scan(call);
  if (call.batch() == 0 || call.tokens() == 0) return;
  if constexpr (!KernelBackend<B>) {
    reference_dense_scan(call);
  } else {
    const auto any = on_any_executor(backend);
    DenseScan<OnAnyExecutor<B>, S>(any, call).run();
  }
}

PARE_ABI_END
}  // namespace pare::sequence::detail
