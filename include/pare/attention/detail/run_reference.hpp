// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A call of attention by its definition, head by head.

#include <pare/attention/detail/call.hpp>
#include <pare/attention/key_value_source.hpp>
#include <pare/attention/reference.hpp>
#include <pare/attention/row_finish.hpp>
#include <pare/core/backend.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// The slots of a head, or nothing for the natural order.
inline std::span<const std::uint32_t> order_of(const Problem& p, Index sequence, Index head) {
  if (p.order == nullptr) return {};
  const bool by_kv_head = p.order->shape().heads == p.kv_heads;
  return p.order->of(sequence, by_kv_head ? head / p.group() : head);
}

/// What the definition is told of one head of a sequence.
inline ReferenceHead reference_head(const Problem& p, Index sequence, Index head) {
  ReferenceHead h{.batch = sequence,
                  .head = head,
                  .scale = p.scale,
                  .causal = p.causal,
                  .sinks = p.sinks,
                  .left = p.left,
                  .right = p.right,
                  .query_offset = p.query_offset,
                  .order = order_of(p, sequence, head),
                  .mask = p.mask};
  if (p.sink_logits)
    h.sink_logit = static_cast<double>((*p.sink_logits)[static_cast<std::size_t>(head)]);
  return h;
}

template <class C>
void run_reference(const C& call) {
  using S = typename C::Scalar;
  using T = typename C::T;
  const Problem& p = call.problem;
  std::vector<S> loaded_key(static_cast<std::size_t>(p.key_dim));
  std::vector<S> loaded_value(static_cast<std::size_t>(p.value_dim));
  for (Index i = 0; i < p.sequences; ++i)
    for (Index h = 0; h < p.heads; ++h) {
      if (!p.has_scores(h)) continue;
      const Sequence s = call.sequence(i);
      const ReferenceHead head = reference_head(p, i, h);
      const auto rows_of = [&](const auto& x) {
        auto* first =
            x.data + s.batch * x.stride[0] + h * x.stride[1] + s.query_begin * x.stride[2];
        return TensorView<std::remove_pointer_t<decltype(first)>, 2>{
            first, {s.queries, x.extent[3]}, {x.stride[2], 1}};
      };
      TensorView<T, 1> lse;
      if (call.options.lse.wanted()) {
        const auto all = call.options.lse.template view<T>();
        lse = {&all(s.batch, h, s.query_begin), {s.queries}, {all.stride[2]}};
      }
      const Index kv_head = h / p.group();
      reference_attend<S>(
          head, rows_of(call.q), s.keys,
          [&](Index j) { return key_row(call.source, i, kv_head, j, loaded_key.data()); },
          [&](Index j) { return value_row(call.source, i, kv_head, j, loaded_value.data()); },
          call.modifier, rows_of(call.out), lse,
          [&](Index query, double* row) {
            const FinishedRow<Reference, double, typename C::Keys> finished(
                reference, call.source, {i, h, kv_head, query, query + s.offset(p)}, row,
                loaded_value.data());
            call.finish.finish(finished);
          });
    }
}

PARE_ABI_END
}  // namespace pare::attention::detail
