// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention of a model's layer over its cache, exact or by any policy of `attend`.
///
/// ```cpp
/// AttentionReport report;
/// const Attention sparse = attention_by(EarlyStop{.threshold = 1e-3}, report);
/// model.forward(backend, prompt, cache, logits, sparse);
/// std::printf("density %.3f\n", report.density());
/// ```

#include "common/any_linear.hpp"
#include "language_model/kv_cache.hpp"

#include <pare/attention/attend.hpp>
#include <pare/attention/options.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/workspace.hpp>

#include <functional>

namespace language_model {

using models::ModelBackend;

/// The last tokens of the cache attend to all of it.
struct AttentionCall {
  Index layer = 0;
  TensorView<const float, 4> q{};  ///< [1, heads, tokens, dim]
  const KvCache& cache;
  TensorView<float, 4> out{};  ///< as q
};
using Attention =
    std::function<pare::attention::AttendStats(const ModelBackend&, const AttentionCall&)>;

/// q in bf16, [1, heads, tokens, dim], tokens first in memory.
inline TensorView<const pare::bf16, 4> narrowed(TensorView<const float, 4> q,
                                                pare::AlignedBuffer<pare::bf16>& memory) {
  const Index heads = q.extent[1], tokens = q.extent[2], dim = q.extent[3];
  pare::bf16* const to = memory.resize(static_cast<std::size_t>(heads * tokens * dim));
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < dim; ++i) to[(t * heads + h) * dim + i] = pare::bf16(q(0, h, t, i));
  return {to, q.extent, {0, dim, heads * dim, 1}};
}

/// Calls attends(q, cache of S) with q in the scalar S of the cache.
template <class Attends>
pare::attention::AttendStats in_scalar_of_cache(const ModelBackend& backend,
                                                const AttentionCall& call, const Attends& attends) {
  if (call.cache.scalar() == KvScalar::Float) return attends(call.q, float{});
  const auto memory = pare::leased<pare::AlignedBuffer<pare::bf16>>(backend);
  return attends(narrowed(call.q, *memory), pare::bf16{});
}

/// softmax(q K^T / sqrt(dim)) V, causal. With a cache in bf16 queries are rounded to bf16 too.
inline pare::attention::AttendStats exact_attention(const ModelBackend& backend,
                                                    const AttentionCall& call) {
  return in_scalar_of_cache(backend, call, [&]<class S>(TensorView<const S, 4> q, S) {
    return pare::attention::attend(backend, q, call.cache.paged<S>(call.layer), call.out,
                                   {.causal = true});
  });
}

/// What the calls of a policy said.
struct AttentionReport {
  double density_sum = 0, select_seconds = 0;
  Index calls = 0;

  double density() const { return calls > 0 ? density_sum / static_cast<double>(calls) : 1; }
  void add(const pare::attention::AttendStats& stats) {
    density_sum += stats.density;
    select_seconds += stats.select_seconds;
    ++calls;
  }
};

/// By EarlyStop, Permuted, or any BlockSelector. The report must outlive the result.
template <class Policy>
Attention attention_by(const Policy& policy, AttentionReport& report) {
  return [policy, &report](const ModelBackend& backend, const AttentionCall& call) {
    const auto stats = in_scalar_of_cache(backend, call, [&]<class S>(TensorView<const S, 4> q, S) {
      // Not qualified: the policy's header may come after this one.
      return attend(backend, q, call.cache.keys<S>(call.layer), call.cache.values<S>(call.layer),
                    call.out, policy, {.causal = true});
    });
    report.add(stats);
    return stats;
  };
}

}  // namespace language_model
