// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Values of a layer plus a gated share of those of the first layer, token by token.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/simd.hpp>
#include <pare/kernel/streaming.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace pare::kernel {

/// What makes the share of a token and a head of z = <w_head, h_token> + bias_head.
enum class ResidualGate : std::uint8_t {
  Relu,           ///< max(z, 0)
  Sigmoid,        ///< 1 / (1 + e^-z)
  Tanh,           ///< tanh z
  Identity,       ///< z
  Softmax,        ///< softmax of z over the heads, times their number
  SoftmaxSigmoid  ///< the same times sigmoid of z
};

/// A tensor [heads, tokens, dim] of contiguous rows.
template <class S>
struct HeadRows {
  S* data = nullptr;
  std::ptrdiff_t head_stride = 0;
  std::ptrdiff_t token_stride = 0;

  S* row(std::ptrdiff_t head, std::ptrdiff_t token) const noexcept {
    return data + head * head_stride + token * token_stride;
  }
};

/// out_ht = v_ht + gate(<w_h, x_t> + bias_h) first_ht for the heads h and tokens t. Sums are kept
/// in T, gates computed in double.
///
/// Cost: hidden, v and first read once, out written once, which binds; the weights of all heads
/// stay in L1 or L2, and four tokens share a load of them.
template <StorageScalar S>
struct ValueResidual {
  using T = compute_t<S>;

  const S* hidden = nullptr;  ///< [tokens, model_dim]
  std::ptrdiff_t hidden_stride = 0;
  const S* weights = nullptr;  ///< [heads, model_dim]
  std::ptrdiff_t weight_stride = 0;
  const float* bias = nullptr;  ///< [heads], or null
  HeadRows<const S> values{};
  HeadRows<const S> first{};
  HeadRows<S> out{};
  std::ptrdiff_t tokens = 0;
  std::ptrdiff_t heads = 0;
  std::ptrdiff_t dim = 0;
  std::ptrdiff_t model_dim = 0;
  ResidualGate gate = ResidualGate::Relu;
  bool streams = false;      ///< rows of out begin lines: they go past the caches, a fence follows
  double* shares = nullptr;  ///< [gate_tokens x heads], worked in
};

/// Tokens whose shares are made before their rows are.
inline constexpr std::ptrdiff_t gate_tokens = 16;

namespace detail {
PARE_ABI_BEGIN

inline constexpr std::ptrdiff_t gate_tile = 4;  ///< tokens and heads: 16 sums and 8 operands

inline double sigmoid(double z) noexcept { return 1 / (1 + std::exp(-z)); }

/// Makes the shares of one token of its z; a NaN stays.
inline void apply_gate(ResidualGate gate, double* z, std::ptrdiff_t heads) noexcept {
  switch (gate) {
    case ResidualGate::Relu:
      for (std::ptrdiff_t h = 0; h < heads; ++h) z[h] = z[h] < 0 ? 0 : z[h];
      return;
    case ResidualGate::Sigmoid:
      for (std::ptrdiff_t h = 0; h < heads; ++h) z[h] = sigmoid(z[h]);
      return;
    case ResidualGate::Tanh:
      for (std::ptrdiff_t h = 0; h < heads; ++h) z[h] = std::tanh(z[h]);
      return;
    case ResidualGate::Identity:
      return;
    case ResidualGate::Softmax:
    case ResidualGate::SoftmaxSigmoid:
      break;
  }
  double most = z[0], sum = 0;
  for (std::ptrdiff_t h = 1; h < heads; ++h) most = z[h] > most ? z[h] : most;
  for (std::ptrdiff_t h = 0; h < heads; ++h) sum += std::exp(z[h] - most);
  for (std::ptrdiff_t h = 0; h < heads; ++h) {
    const double factor = gate == ResidualGate::Softmax ? 1 : sigmoid(z[h]);
    z[h] = std::exp(z[h] - most) / sum * factor * static_cast<double>(heads);
  }
}

/// z of gate_tile tokens from `token` on and `Heads` heads from `head` on; the last token again
/// where there are fewer.
template <class Arch, int Heads, class S>
void gate_sums(const ValueResidual<S>& a, std::ptrdiff_t token, std::ptrdiff_t end,
               std::ptrdiff_t head, double* z) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const S* x[static_cast<std::size_t>(gate_tile)];
  const S* w[static_cast<std::size_t>(Heads)];
  for (std::ptrdiff_t t = 0; t < gate_tile; ++t)
    x[t] = a.hidden + std::min(token + t, end - 1) * a.hidden_stride;
  for (std::ptrdiff_t h = 0; h < Heads; ++h) w[h] = a.weights + (head + h) * a.weight_stride;
  vec<T, Arch> sum[static_cast<std::size_t>(gate_tile * Heads)];
  for (auto& s : sum) s = broadcast<Arch>(T(0));
  const auto step = [&](const auto& loaded) PARE_LAMBDA_INLINE {
    [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
      constexpr auto heads = static_cast<std::size_t>(Heads);
      const vec<T, Arch> rows[] = {loaded(x[0]), loaded(x[1]), loaded(x[2]), loaded(x[3])};
      ((sum[I] = multiply_add<Arch>(rows[I / heads], loaded(w[I % heads]), sum[I])), ...);
    }(std::make_index_sequence<static_cast<std::size_t>(gate_tile * Heads)>{});
  };
  // The next tokens come from memory while these are summed, beside the first heads.
  const std::ptrdiff_t ahead = gate_tile * a.hidden_stride * static_cast<std::ptrdiff_t>(sizeof(S));
  const bool fetches = head == 0 && token + gate_tile < a.tokens;
  std::ptrdiff_t c = 0;
  for (; c + n <= a.model_dim; c += n) {
    if (fetches)
      for (std::ptrdiff_t t = 0; t < gate_tile; ++t) prefetch<2>(x[t] + c, ahead);
    step([c](const S* p) PARE_LAMBDA_INLINE { return load_widened<Arch>(p + c); });
  }
  if (const std::ptrdiff_t count = a.model_dim - c; count > 0)
    step([c, count](const S* p)
             PARE_LAMBDA_INLINE { return load_first<Arch>(p + c, count, T(0)); });
  for (std::ptrdiff_t t = 0; t < gate_tile && token + t < end; ++t)
    for (std::ptrdiff_t h = 0; h < Heads; ++h)
      z[t * a.heads + head + h] = static_cast<double>(reduce_add<Arch>(sum[t * Heads + h])) +
                                  (a.bias == nullptr ? 0.0 : static_cast<double>(a.bias[head + h]));
}

/// z of gate_tile tokens and all heads.
template <class Arch, class S>
void gate_sums(const ValueResidual<S>& a, std::ptrdiff_t token, std::ptrdiff_t end,
               double* z) noexcept {
  std::ptrdiff_t h = 0;
  for (; h + gate_tile <= a.heads; h += gate_tile) gate_sums<Arch, gate_tile>(a, token, end, h, z);
  for (; h < a.heads; ++h) gate_sums<Arch, 1>(a, token, end, h, z);
}

template <class Arch, bool Streams, class S>
PARE_ALWAYS_INLINE void add_share(const S* value, const S* first, S* out, std::ptrdiff_t dim,
                                  compute_t<S> share) noexcept {
  using T = compute_t<S>;
  const auto factor = broadcast<Arch>(share);
  for_row<lanes<T, Arch>>(
      dim,
      [&](std::ptrdiff_t c) PARE_LAMBDA_INLINE {
        const auto sum = multiply_add<Arch>(factor, load_widened<Arch>(first + c),
                                            load_widened<Arch>(value + c));
        if constexpr (Streams && std::is_same_v<S, T>)
          put<Arch, true>(out + c, sum);
        else
          store_narrowed<Arch>(out + c, sum);
      },
      [&](std::ptrdiff_t c, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
        store_first<Arch>(out + c, count,
                          multiply_add<Arch>(factor, load_first<Arch>(first + c, count, T(0)),
                                             load_first<Arch>(value + c, count, T(0))));
      });
}

template <class Arch, bool Streams, class S>
void add_shares(const ValueResidual<S>& a, std::ptrdiff_t begin, std::ptrdiff_t end) noexcept {
  for (std::ptrdiff_t h = 0; h < a.heads; ++h)
    for (std::ptrdiff_t t = begin; t < end; ++t)
      add_share<Arch, Streams>(a.values.row(h, t), a.first.row(h, t), a.out.row(h, t), a.dim,
                               static_cast<compute_t<S>>(a.shares[(t - begin) * a.heads + h]));
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const ValueResidual<S>& a) noexcept {
  for (std::ptrdiff_t begin = 0; begin < a.tokens; begin += gate_tokens) {
    const std::ptrdiff_t end = std::min(a.tokens, begin + gate_tokens);
    for (std::ptrdiff_t t = begin; t < end; t += detail::gate_tile)
      detail::gate_sums<Arch>(a, t, end, a.shares + (t - begin) * a.heads);
    for (std::ptrdiff_t t = 0; t < end - begin; ++t)
      detail::apply_gate(a.gate, a.shares + t * a.heads, a.heads);
    a.streams ? detail::add_shares<Arch, true>(a, begin, end)
              : detail::add_shares<Arch, false>(a, begin, end);
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
