// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// W_UK and W_UV of latent attention, as `kv_b` of the public checkpoints has them, and the
/// products of decode with them: one small matrix of each head times a few rows.
///
/// ```cpp
/// const UpWeights<bf16> up(config, transformer::DenseLinear<bf16>(kv_b));  // views of kv_b
/// up.absorb(backend, q, absorbed);       // qa_h = W_UK,h^T q_h:  [tokens, H, d_n] -> [.., d_c]
/// up.expand_outputs(backend, u, out);    // o_h = W_UV,h u_h:     [tokens, H, d_c] -> [.., d_v]
/// linalg::multiply(backend, latents, pare::transpose(up.all()), keys_and_values);
/// ```
///
/// `kv_b` is [H (d_n + d_v), d_c], of each head d_n rows of W_UK, then d_v of W_UV. One step of
/// decode reads all of it, 33.6 MB of bf16 in a layer of DeepSeek-V3, which binds up to some
/// sixteen tokens: all tokens of a batch are therefore multiplied in one call, in which each weight
/// is read once for every 16 of them, by the kernel of `transformer::Linear`. That kernel runs
/// along rows, so W_UK is also kept transposed, [H, d_c, d_n], made once; W_UV is read where it
/// lies. A prompt is expanded by one product with all of `kv_b`.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/weight_rows.hpp>
#include <pare/latent/config.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace pare::latent {
namespace detail {
PARE_ABI_BEGIN

/// Matrices of heads, each [outputs, inputs], rows contiguous.
template <class S>
struct HeadWeights {
  const S* data = nullptr;
  Index head_stride = 0;
  Index row_stride = 0;
  Index outputs = 0;
  Index inputs = 0;

  TensorView<const S, 2> of(Index head) const {
    return {data + head * head_stride, {outputs, inputs}, {row_stride, 1}};
  }
};

/// The rows of a head, [tokens, dim].
template <class T>
TensorView<T, 2> rows_of_head(TensorView<T, 3> x, Index head) {
  return {x.data + head * x.stride[1], {x.extent[0], x.extent[2]}, {x.stride[0], x.stride[2]}};
}

template <class S, class T>
void reference_multiply_heads(const HeadWeights<S>& w, TensorView<const T, 3> x,
                              TensorView<T, 3> y) {
  for (Index t = 0; t < y.extent[0]; ++t)
    for (Index h = 0; h < y.extent[1]; ++h)
      for (Index o = 0; o < w.outputs; ++o) {
        double sum = 0;
        for (Index i = 0; i < w.inputs; ++i)
          sum +=
              static_cast<double>(static_cast<T>(w.of(h)(o, i))) * static_cast<double>(x(t, h, i));
        y(t, h, o) = static_cast<T>(sum);
      }
}

/// Outputs of a head that a worker takes at once: 32 KiB of bf16 in DeepSeek's heads.
inline constexpr Index head_outputs_at_once = 128;

/// y_th = W_h x_th, x [tokens, heads, inputs] and y [tokens, heads, outputs] with contiguous rows.
template <class B, class S, class T>
void multiply_heads(const B& backend, const HeadWeights<S>& w, TensorView<const T, 3> x,
                    TensorView<T, 3> y) {
  if (y.extent[0] == 0) return;
  if constexpr (!KernelBackend<B>) {
    reference_multiply_heads(w, x, y);
  } else if constexpr (std::is_same_v<S, double>) {
    for (Index h = 0; h < y.extent[1]; ++h)
      linalg::multiply(backend, rows_of_head(x, h), transpose(w.of(h)), rows_of_head(y, h));
  } else {
    const Index parts = ceil_div(w.outputs, head_outputs_at_once);
    parallel_for(backend.executor, y.extent[1] * parts, [&](Index item, int) {
      const Index head = item / parts, begin = item % parts * head_outputs_at_once;
      kernel::MultiplyWeightRows<S> a;
      a.weights = &w.of(head)(begin, 0);
      a.weight_stride = w.row_stride;
      a.x = &x(0, head, 0);
      a.x_stride = x.stride[0];
      a.y = &y(0, head, begin);
      a.y_stride = y.stride[0];
      a.rows = y.extent[0];
      a.inputs = w.inputs;
      a.outputs = std::min(head_outputs_at_once, w.outputs - begin);
      launch(backend, a);
    });
  }
}

template <class T>
void check_head_rows(const char* function, const char* argument, const TensorView<T, 3>& x,
                     Index tokens, Index heads, Index dim) {
  check_extents<3>(function, argument, x.extent, {tokens, heads, dim});
  check(x.stride[2] == 1 || dim == 1, function, argument, x.stride, "contiguous rows");
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// W_UK and W_UV in S: float, bf16 or f16, computed in float, or double. It can be moved, not
/// copied.
///
/// Memory: `kv_b`, if it is owned, and W_UK once more.
template <StorageScalar S>
class UpWeights {
 public:
  using scalar = compute_t<S>;

  /// \param kv_b [H (d_n + d_v), d_c], viewed or owned
  /// \throws std::invalid_argument if the config is not valid or kv_b has another shape
  UpWeights(const LatentConfig& config, transformer::DenseLinear<S> kv_b)
      : all_(std::move(kv_b)), nope_(config.nope), value_(config.value), heads_(config.heads) {
    constexpr const char* function = "latent::UpWeights";
    config.validate(function);
    check_extents<2>(function, "kv_b", all().extent,
                     {config.heads * (config.nope + config.value), config.latent});
    transpose_keys();
  }

  Index heads() const { return heads_; }
  Index nope() const { return nope_; }
  Index value() const { return value_; }
  Index latent() const { return all_.inputs(); }

  /// [H (d_n + d_v), d_c], as given.
  TensorView<const S, 2> all() const { return all_.weights(); }
  /// W_UK of a head, [d_n, d_c], and W_UV, [d_v, d_c]; `head` is not checked.
  TensorView<const S, 2> key(Index head) const { return rows(head * (nope_ + value_), nope_); }
  TensorView<const S, 2> value(Index head) const {
    return rows(head * (nope_ + value_) + nope_, value_);
  }

  /// absorbed_th = W_UK,h^T q_th: what a query multiplies latents by.
  ///
  /// \param q        [tokens, H, d_n] of `scalar`, a view or Eigen's tensor; rows contiguous, as in
  ///                 Eigen's row-major tensors
  /// \param absorbed [tokens, H, d_c], likewise; apart from q and the weights
  /// \throws std::invalid_argument if a shape does not fit or absorbed overlaps q or the weights.
  ///         Nothing is written then. No tokens: a no-op.
  ///
  /// Cost: 2 tokens H d_n d_c FLOPs; up to some 16 tokens reading W_UK binds, which happens once
  /// for every 16. The same bits for any number of threads and any number of tokens. Memory: none
  /// (of double that of linalg::multiply).
  template <Backend B, In<3> Q, Out<3> A>
  requires(std::is_same_v<scalar_of<Q>, scalar> && std::is_same_v<scalar_of<A>, scalar>)
  void absorb(const B& backend, const Q& q, A&& absorbed) const {
    constexpr const char* function = "latent::UpWeights::absorb";
    const auto from = as_const(to_view(q));
    const auto to = to_view(absorbed);
    check_product(function, "q", from, nope_, "absorbed", to, latent());
    detail::multiply_heads(
        on_any_executor(backend),
        detail::HeadWeights<S>{keys_transposed_.data(), latent() * nope_, nope_, latent(), nope_},
        from, to);
  }

  /// out_th = W_UV,h u_th, of latent outputs u [tokens, H, d_c] into [tokens, H, d_v]. All else as
  /// absorb.
  template <Backend B, In<3> U, Out<3> O>
  requires(std::is_same_v<scalar_of<U>, scalar> && std::is_same_v<scalar_of<O>, scalar>)
  void expand_outputs(const B& backend, const U& u, O&& out) const {
    constexpr const char* function = "latent::UpWeights::expand_outputs";
    const auto from = as_const(to_view(u));
    const auto to = to_view(out);
    check_product(function, "u", from, latent(), "out", to, value_);
    detail::multiply_heads(on_any_executor(backend),
                           detail::HeadWeights<S>{value(0).data, (nope_ + value_) * all().stride[0],
                                                  all().stride[0], value_, latent()},
                           from, to);
  }

 private:
  TensorView<const S, 2> rows(Index begin, Index count) const {
    return {all().data + begin * all().stride[0], {count, latent()}, all().stride};
  }

  void transpose_keys() {
    keys_transposed_.resize(static_cast<std::size_t>(heads_ * nope_ * latent()));
    constexpr Index block = 32;  // lines of both sides stay in L1
    for (Index h = 0; h < heads_; ++h) {
      const TensorView<const S, 2> from = key(h);
      S* const to = keys_transposed_.data() + h * nope_ * latent();
      for (Index c = 0; c < latent(); c += block)
        for (Index n = 0; n < nope_; ++n)
          for (Index i = c; i < std::min(c + block, latent()); ++i) to[i * nope_ + n] = from(n, i);
    }
  }

  void check_product(const char* function, const char* input, const TensorView<const scalar, 3>& x,
                     Index inputs, const char* output, const TensorView<scalar, 3>& y,
                     Index outputs) const {
    check_view(function, input, x);
    check_writable(function, output, y);
    detail::check_head_rows(function, input, x, x.extent[0], heads_, inputs);
    detail::check_head_rows(function, output, y, x.extent[0], heads_, outputs);
    check_no_overlap(function, output, y, input, x);
    check_no_overlap(function, output, y, "the weights", all());
  }

  transformer::DenseLinear<S> all_;
  Index nope_, value_, heads_;
  AlignedBuffer<S> keys_transposed_;  ///< [H, d_c, d_n]
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
