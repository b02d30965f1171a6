// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of `attend`, and the statistics that it returns.
///
/// ```cpp
/// Eigen::Tensor<float, 3, Eigen::RowMajor> lse(batch, heads, queries);
/// attend(q, k, v, out, {.causal = true, .scale = 0.125, .lse = lse});
/// attend(q, k, v, out, {.causal = true, .window = 4096, .sinks = 4});
/// const AttendStats stats = attend(q, k, v, out, {.causal = true, .mask = &blocks});
/// if (stats.density > 0.5) std::puts("few blocks were left out");
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/attention/block_mask.hpp>
#include <pare/attention/key_order.hpp>
#include <pare/core/tensor_view.hpp>

#include <array>
#include <limits>
#include <optional>
#include <span>
#include <type_traits>

namespace pare::attention {

namespace detail {
/// A side of a window that has none.
inline constexpr Index no_limit = Index{1} << 40;
}  // namespace detail

/// Where `attend` writes the log-sum-exp of each row: a view of [batch, heads, queries], made from
/// any object that can be written. Its scalar is what the call computes in: double for double
/// tensors, float for all others. Empty: not wanted.
class LogSumExp {
 public:
  /// Not wanted.
  LogSumExp() = default;
  /// A view of `lse`, which must outlive the call; `attend` checks its shape and scalar.
  // Hides no copy, since a LogSumExp is no Out<3>.
  template <Out<3> X>
  requires ComputeScalar<scalar_of<X>>
  LogSumExp(X&& lse)  // NOLINT(bugprone-forwarding-reference*)
      : wanted_(true), in_double_(std::is_same_v<scalar_of<X>, double>) {
    const auto view = to_view(lse);
    data_ = view.data;
    extent_ = view.extent;
    stride_ = view.stride;
  }

  /// Whether there is a view, and whether its scalar is double.
  bool wanted() const { return wanted_; }
  bool in_double() const { return in_double_; }
  /// T must be what `in_double` says.
  template <ComputeScalar T>
  TensorView<T, 3> view() const {
    return {static_cast<T*>(data_), extent_, stride_};
  }

 private:
  void* data_ = nullptr;
  std::array<Index, 3> extent_{};
  std::array<Index, 3> stride_{};
  bool wanted_ = false;
  bool in_double_ = false;
};

/// Options of `attend`. Query i of a sequence with n_q queries and n_k keys stands at position
/// p = i + n_k - n_q: the last query beside the last key, unless query_offset says otherwise.
struct AttendOptions {
  /// Query at p sees keys at positions <= p. Left out: false; with a policy that chooses keys, such
  /// as MeanPool, your own selector, Permuted or EarlyStop, true.
  std::optional<bool> causal{};

  /// Factor of q.k, from 1.2e-38 to 2.35e38 (2.3e-308 to 1.24e308 for double tensors). Left out: 1
  /// / sqrt(key dim), but over a cache of latents (latent/), which has no default: there it is that
  /// of the heads that were trained, latent::latent_softmax_scale.
  std::optional<double> scale{};

  /// Sliding window in tokens, at least 1. With `causal`, a query at p sees the keys in (p -
  /// window, p]; without it, the keys j with |p - j| < window. Left out, or 2^30 and more: no
  /// window.
  std::optional<Index> window{};

  /// The two sides of a window: a query at p sees the keys in [p - window_left, p + window_right],
  /// as with FlashAttention's window_size = (left, right). Left out: no limit on that side (their
  /// -1). Neither may be given together with `window`.
  std::optional<Index> window_left{};
  std::optional<Index> window_right{};

  /// With a window: keys at positions below `sinks` stay visible to all queries that causality
  /// allows; without one they are anyway. At least 0, below 2^30. The learned sinks of gpt-oss are
  /// `sink_logits`.
  Index sinks = 0;

  /// Position of query 0 of every sequence, so that p = i + query_offset. 0 aligns causal masks at
  /// the top left. Its size is below 2^30. Left out: n_k - n_q, which aligns them at the bottom
  /// right. Not allowed together with a mask.
  std::optional<Index> query_offset{};

  /// One learned logit per query head, [query heads]. It takes its share of the softmax but has no
  /// value (the sinks of gpt-oss): out_i = sum_j e^(s_ij) v_j / (e^sink + sum_j e^(s_ij)). `lse`
  /// includes it. Each is within +-2e38, or -infinity for a head without one. Left out: no head has
  /// one.
  std::optional<std::span<const float>> sink_logits{};

  /// The order in which keys are read, [1 or batch, 1 or kv heads or query heads, keys]; null:
  /// their natural order. It changes rounding, and which keys a block of the mask holds, but
  /// nothing else.
  const KeyOrder* order = nullptr;

  /// Blocks of (queries, key slots) that are computed, [1 or batch, 1 or query heads]; null: all.
  const BlockMask* mask = nullptr;

  /// Keys in use of each batch entry, each at most the keys of the tensor. Left out: all of
  /// them.
  std::optional<std::span<const Index>> key_lengths{};

  /// Packed sequences of different lengths in tensors of batch 1: sequence s has the query tokens
  /// [query_offsets[s], query_offsets[s + 1]) and the key tokens given by key_offsets alike.
  /// Neither order, mask nor key_lengths may come with them. Left out: not packed.
  std::optional<std::span<const Index>> query_offsets{};
  std::optional<std::span<const Index>> key_offsets{};

  /// Receives the natural logarithm of the sum of e^score of each row, [batch, heads, queries];
  /// -infinity for a row that sees no key.
  LogSumExp lse{};
};

/// What `attend` says of a call: how much of it was computed.
struct AttendStats {
  /// Share of the mask's blocks that were computed, in [0, 1], mean over heads; 1 without a mask.
  /// If causal, it is the share of the T (T + 1) / 2 blocks on and below the diagonal. EarlyStop
  /// counts (query, key) pairs instead.
  double density = 1;

  /// Mean over rows of the attention mass that the selector believes it kept; NaN where it has no
  /// estimate.
  double selected_mass = std::numeric_limits<double>::quiet_NaN();

  /// Seconds spent on ordering and selecting.
  double select_seconds = 0;
};

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
