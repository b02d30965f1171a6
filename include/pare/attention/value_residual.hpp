// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Value residual of SATFormer: values of a layer plus a gated share of those of the first layer,
/// mixed before they are written to the cache.
///
///     V'_n = V_n + alpha_n(h) V_1,  alpha_n(h) = gate(W_alpha h), a number per token and head
///
/// ```cpp
/// value_residual(hidden, w_alpha, v, v_first, v_mixed);
/// value_residual(pare::simd.threads(4), hidden, w_alpha, v, v_first, cache_rows,
///                {.gate = ResidualGate::Sigmoid});
/// value_residual(hidden, w_alpha, v, v_first, v);                    // in place
/// ```
///
/// hidden [batch, tokens, model dim] is the layer's normed input, w_alpha [kv heads, model dim], v,
/// v_first and out [batch, kv heads, tokens, dim]; all hold one scalar. v_first is the value
/// projection of the first layer as it is. The mix comes before the cache: a source of keys and
/// values points to rows and cannot mix them. Which layers mix (all but the first, or the last few)
/// is the caller's loop.
///
/// | gate | alpha of z = <w, h> (+ bias) |
/// |---|---|
/// | `Relu` (theirs by default) | max(z, 0) |
/// | `Sigmoid`, `Tanh`, `Identity` | of z |
/// | `Softmax` | softmax over the kv heads, times their number |
/// | `SoftmaxSigmoid` | the same times sigmoid(z) |
///
/// z is summed in float (double for double tensors), the gate computed in double. A NaN in a row of
/// hidden makes the rows of its token NaN; one in v_first reaches its element even where alpha is
/// 0.
///
/// Source: arXiv 2605.03953 (SATFormer) and its code, models/satformer/attn_satformer.py. That
/// `SoftmaxSigmoid` takes the sigmoid of the same z is as we read the code.

#include <pare/core/macros_off.hpp>

#include <pare/attention/detail/reference_row.hpp>
#include <pare/attention/detail/streamed_rows.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/kernel/streaming.hpp>
#include <pare/kernel/value_residual.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::attention {

using kernel::ResidualGate;

/// Options of `value_residual`.
struct ValueResidualOptions {
  ResidualGate gate = ResidualGate::Relu;
  /// Added to z, [kv heads]. Left out: none, as theirs by default.
  std::optional<std::span<const float>> bias{};
};

namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* value_residual_name = "attention::value_residual";

/// A call whose views were checked.
template <class S>
struct ResidualCall {
  TensorView<const S, 3> hidden;
  TensorView<const S, 2> weights;
  TensorView<const S, 4> values, first;
  TensorView<S, 4> out;
  ValueResidualOptions options;
};

template <class T, std::size_t R>
void check_residual_rows(const char* name, const TensorView<T, R>& x) {
  check_view(value_residual_name, name, x);
  check(x.extent[R - 1] >= 1, value_residual_name, name, x.extent,
        "a last dimension of at least 1");
  check_contiguous_rows(value_residual_name, name, x);
}

template <class S>
void check_residual(const ResidualCall<S>& c) {
  const char* const f = value_residual_name;
  const std::array<Index, 4>& e = c.values.extent;
  check_residual_rows("v", c.values);
  check(e[1] >= 1, f, "v", e, "at least 1 key/value head");
  check_residual_rows("v_first", c.first);
  check_extents<4>(f, "v_first", c.first.extent, e);
  check_residual_rows("hidden", c.hidden);
  check_extents<3>(f, "hidden", c.hidden.extent, {e[0], e[2], c.hidden.extent[2]});
  check_view(f, "w_alpha", c.weights);
  check_extents<2>(f, "w_alpha", c.weights.extent, {e[1], c.hidden.extent[2]});
  check_enumerator(f, "gate", c.options.gate, ResidualGate::SoftmaxSigmoid);
  check_residual_rows("out", c.out);
  check_extents<4>(f, "out", c.out.extent, e);
  check_writable(f, "out", c.out);
  const auto& bias = c.options.bias;
  check(!bias || static_cast<Index>(bias->size()) == e[1], f, "bias", bias ? bias->size() : 0,
        Worded{"one for each of the key/value heads, ", e[1]});
  if (c.out.data != c.values.data || c.out.stride != c.values.stride)
    check_no_overlap(f, "out", c.out, "v", c.values);
  check_no_overlap(f, "out", c.out, "v_first", c.first);
  check_no_overlap(f, "out", c.out, "hidden", c.hidden);
  check_no_overlap(f, "out", c.out, "w_alpha", c.weights);
  if (bias)
    check_no_overlap(f, "out", c.out, "bias",
                     TensorView<const float, 1>{bias->data(), {e[1]}, {1}});
}

/// The definition, in double.
template <class S>
void reference_value_residual(const ResidualCall<S>& c) {
  const Index heads = c.values.extent[1];
  std::vector<double> share(static_cast<std::size_t>(heads));
  for (Index b = 0; b < c.values.extent[0]; ++b)
    for (Index t = 0; t < c.values.extent[2]; ++t) {
      for (Index h = 0; h < heads; ++h) {
        double& z = share[static_cast<std::size_t>(h)];
        z = c.options.bias ? static_cast<double>((*c.options.bias)[static_cast<std::size_t>(h)])
                           : 0;
        for (Index j = 0; j < c.hidden.extent[2]; ++j)
          z += reference_value(c.weights(h, j)) * reference_value(c.hidden(b, t, j));
      }
      kernel::detail::apply_gate(c.options.gate, share.data(), heads);
      for (Index h = 0; h < heads; ++h)
        for (Index j = 0; j < c.values.extent[3]; ++j)
          c.out(b, h, t, j) = reference_cast<S>(reference_value(c.values(b, h, t, j)) +
                                                share[static_cast<std::size_t>(h)] *
                                                    reference_value(c.first(b, h, t, j)));
    }
}

/// Tokens of an item of work: some hundred KiB of values.
inline constexpr Index residual_tokens = 64;

struct ResidualMemory {
  AlignedBuffer<std::byte> weights;
  std::vector<AlignedBuffer<double>> shares;
};

/// The weights with contiguous rows: where they lie, or copied to `memory`.
template <class S>
TensorView<const S, 2> weight_rows(const ResidualCall<S>& c, AlignedBuffer<std::byte>& memory) {
  const auto& w = c.weights;
  if (w.stride[1] == 1 || w.extent[1] == 1) return w;
  const TensorView<S, 2> rows{make_room<S>(memory, w.rows() * w.cols()), w.extent, {w.cols(), 1}};
  for (Index h = 0; h < w.rows(); ++h)
    for (Index j = 0; j < w.cols(); ++j) rows(h, j) = w(h, j);
  return as_const(rows);
}

/// Tokens [begin, begin + tokens) of a batch entry.
template <class S>
kernel::ValueResidual<S> residual_arguments(const ResidualCall<S>& c, Index batch, Index begin,
                                            Index tokens) {
  const auto rows = [&](const auto& x) {
    return kernel::HeadRows<std::remove_pointer_t<decltype(x.data)>>{
        x.data + batch * x.stride[0] + begin * x.stride[2], x.stride[1], x.stride[2]};
  };
  kernel::ValueResidual<S> a;
  a.hidden = c.hidden.data + batch * c.hidden.stride[0] + begin * c.hidden.stride[1];
  a.hidden_stride = c.hidden.stride[1];
  a.weights = c.weights.data;
  a.weight_stride = c.weights.stride[0];
  a.bias = c.options.bias ? c.options.bias->data() : nullptr;
  a.values = rows(c.values);
  a.first = rows(c.first);
  a.out = rows(c.out);
  a.tokens = tokens;
  a.heads = c.values.extent[1];
  a.dim = c.values.extent[3];
  a.model_dim = c.hidden.extent[2];
  a.gate = c.options.gate;
  return a;
}

template <class B, class S>
void run_value_residual(const B& backend, ResidualCall<S> c) {
  const auto memory = leased<ResidualMemory>(backend);
  c.weights = weight_rows(c, memory->weights);
  const Index tokens = c.values.extent[2], blocks = ceil_div(tokens, residual_tokens);
  const Index items = c.values.extent[0] * blocks;
  const bool streams = streams_rows(c.out);
  const auto workers = static_cast<std::size_t>(worker_count(backend.executor, items));
  if (memory->shares.size() < workers) memory->shares.resize(workers);
  parallel_for(backend.executor, items, [&](Index i, int worker) {
    const Index begin = i % blocks * residual_tokens;
    auto a = residual_arguments(c, i / blocks, begin, std::min(residual_tokens, tokens - begin));
    a.streams = streams;
    a.shares = memory->shares[static_cast<std::size_t>(worker)].resize(
        static_cast<std::size_t>(kernel::gate_tokens * a.heads));
    launch(backend, a);
    if (streams) launch(backend, kernel::FinishStreaming{});
  });
}

template <class B, class S>
void value_residual_checked(const B& backend, const ResidualCall<S>& c) {
  check_residual(c);
  if (c.values.extent[0] == 0 || c.values.extent[2] == 0) return;
  if constexpr (KernelBackend<B>)
    run_value_residual(on_any_executor(backend), c);
  else
    reference_value_residual(c);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// out = v + gate(w_alpha hidden) v_first, with one share per token and key/value head.
///
/// \param backend where and how; left out: pare::simd
/// \param hidden  [batch, tokens, model dim]
/// \param w_alpha [kv heads, model dim], by rows or by columns
/// \param v       [batch, kv heads, tokens, dim]
/// \param v_first as v
/// \param out     as v, written: rows of a cache, or v itself
/// \param options gate and bias
/// \throws std::invalid_argument if shapes or strides do not fit, the gate is no enumerator, there
///         is not one bias per head, or out overlaps an input (v itself apart). Nothing is written
///         then. No tokens: a no-op.
///
/// Cost: one pass over hidden, v, v_first and out; memory binds. Memory: a few shares per thread,
/// and a copy of w_alpha if its rows are not contiguous. The same bits for any number of threads.
template <Backend B, In<3> H, In<2> W, In<4> V, In<4> F, Out<4> O>
requires SameScalar<H, W, V> && SameScalar<H, F, std::remove_cvref_t<O>>
void value_residual(const B& backend, const H& hidden, const W& w_alpha, const V& v,
                    const F& v_first, O&& out, const ValueResidualOptions& options = {}) {
  detail::value_residual_checked(
      backend, detail::ResidualCall<scalar_of<H>>{
                   as_const(to_view(hidden)), as_const(to_view(w_alpha)), as_const(to_view(v)),
                   as_const(to_view(v_first)), to_view(out), options});
}

/// \overload
template <In<3> H, In<2> W, In<4> V, In<4> F, Out<4> O>
requires SameScalar<H, W, V> && SameScalar<H, F, std::remove_cvref_t<O>>
void value_residual(const H& hidden, const W& w_alpha, const V& v, const F& v_first, O&& out,
                    const ValueResidualOptions& options = {}) {
  value_residual(simd, hidden, w_alpha, v, v_first, out, options);
}

PARE_REFUSE_CALLS(value_residual, "attention::value_residual",
                  "after out: wanted ValueResidualOptions, members spelt and ordered as declared",
                  (INPUT, (roles::Reads<3>), "hidden", "[batch, tokens, model dim]"),
                  (INPUT, (roles::ReadsSame<2>), "w_alpha", "[kv heads, model dim]"),
                  (INPUT, (roles::ReadsSame<4>), "v", "[batch, kv heads, tokens, dim]"),
                  (INPUT, (roles::ReadsSame<4>), "v_first", "[batch, kv heads, tokens, dim]"),
                  (OUTPUT, (roles::WritesSame<4>), "out",
                   "[batch, kv heads, tokens, dim] of the scalar of hidden"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
