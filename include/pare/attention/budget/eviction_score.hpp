// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Scores by which tokens of a key/value cache are kept or evicted: one number for each kv head and
/// token, the higher the longer it stays.
///
/// ```cpp
/// Eigen::Tensor<float, 3, Eigen::RowMajor> scores(batch, kv_heads, tokens);
/// score_tokens(q, k, scores, SnapKV{});      // q [batch, heads, queries, dim]: the last queries
/// score_tokens(k, scores, KeyDiff{});        // looks at keys alone
///
/// struct Recent {                            // a user's own: the younger the better
///   static constexpr bool reads_queries = false;
///   void validate(const char*, const EvictionCall&) const {}
///   template <class B, class S>
///   void score(const B&, const EvictionHead<S>& head, std::span<compute_t<S>> scores) const {
///     for (pare::Index t = 0; t < head.k.rows(); ++t) scores[std::size_t(t)] = float(t);
///   }
/// };
/// ```
///
/// Which tokens then stay is decided by `keep_tokens` (keep_tokens.hpp).
/// Source: Tangram, arXiv 2606.06302, from its code (compression/qk_scorer_base.py), whose contract
/// this is. Ours: scores of a batch at once, and fewer queries than keys.

#include <pare/core/macros_off.hpp>

#include <pare/attention/detail/head_of.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::attention {

/// The shapes of a call, which a policy may check before tensors are read.
struct EvictionCall {
  Index batch = 0;
  Index heads = 0;  ///< query heads; 0 if the call has no queries
  Index kv_heads = 0;
  Index queries = 0;
  Index tokens = 0;  ///< keys of the chunk
  Index dim = 0;
};

PARE_ABI_BEGIN

/// What a policy sees of one kv head.
template <StorageScalar S>
struct EvictionHead {
  TensorView<const S, 3> q{};  ///< [query heads of the group, queries, dim]; empty without queries
  TensorView<const S, 2> k{};  ///< [tokens, dim]; the last query stands beside the last key
  double scale = 1;            ///< of q.k
  AlignedBuffer<std::byte>* memory = nullptr;  ///< scratch of this worker
};

PARE_ABI_END

/// A type that scores the tokens of one kv head. `score(backend, head, scores)` writes [tokens]
/// scores; it is called for several heads at the same time, with the reference backend too.
/// `reads_queries` says whether it looks at queries, and `validate(function, call)` throws
/// std::invalid_argument if its members or the call do not fit. A score may be anything: NaN counts
/// as the lowest where tokens are kept.
template <class P>
concept EvictionScore = requires(const P& policy, const char* function, const EvictionCall& call,
                                 const EvictionHead<float>& head, std::span<float> scores) {
  requires std::is_same_v<std::remove_cvref_t<decltype(P::reads_queries)>, bool>;
  policy.validate(function, call);
  policy.score(reference, head, scores);
};

/// Options of score_tokens.
struct EvictionOptions {
  /// Factor of q.k, above 0, a normal number of what is computed in. Left out: 1 / sqrt(dim).
  std::optional<double> scale{};
};

namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* score_tokens_name = "attention::score_tokens";

/// Scratch of the workers.
struct EvictionMemory {
  std::vector<AlignedBuffer<std::byte>> workers;
};

template <class S>
void check_eviction_rows(const char* name, const TensorView<const S, 4>& x) {
  check_view(score_tokens_name, name, x);
  check(x.extent[3] >= 1, score_tokens_name, name, x.extent, "a last dimension of at least 1");
  check_contiguous_rows(score_tokens_name, name, x);
}

/// Everything but the memory of the output; a call without queries has an empty q.
template <class S, class T>
EvictionCall checked_eviction(const TensorView<const S, 4>& q, const TensorView<const S, 4>& k,
                              const TensorView<T, 3>& scores) {
  check_eviction_rows("k", k);
  check_extents<3>(score_tokens_name, "scores", scores.extent,
                   {k.extent[0], k.extent[1], k.extent[2]});
  check_contiguous_rows(score_tokens_name, "scores", scores);
  check_writable(score_tokens_name, "scores", scores);
  check_no_overlap(score_tokens_name, "scores", scores, "k", k);
  check_no_overlap(score_tokens_name, "scores", scores, "q", q);
  return {k.extent[0], q.extent[1], k.extent[1], q.extent[2], k.extent[2], k.extent[3]};
}

template <class S>
void check_eviction_queries(const TensorView<const S, 4>& q, const TensorView<const S, 4>& k) {
  check_eviction_rows("q", q);
  check(q.extent[0] == k.extent[0] && q.extent[3] == k.extent[3], score_tokens_name, "q", q.extent,
        "the batch and the dim of k");
  check(k.extent[1] == 0 ? q.extent[1] == 0 : q.extent[1] > 0 && q.extent[1] % k.extent[1] == 0,
        score_tokens_name, "q", q.extent,
        Worded{"a multiple of the ", k.extent[1], " key/value heads as heads"});
  check(q.extent[2] <= k.extent[2], score_tokens_name, "q", q.extent,
        Worded{"at most as many queries as the ", k.extent[2], " keys"});
}

/// Scores all heads, after all was checked.
template <class B, class S, class T, class P>
void score_heads(const B& backend, const TensorView<const S, 4>& q, const TensorView<const S, 4>& k,
                 const TensorView<T, 3>& scores, const P& policy, double scale) {
  const Index kv_heads = k.extent[1], heads = k.extent[0] * kv_heads;
  const auto score = [&](Index i, AlignedBuffer<std::byte>& memory) {
    const Index b = i / kv_heads, h = i % kv_heads, group = q.extent[1] / kv_heads;
    EvictionHead<S> head;
    if (q.data != nullptr)
      head.q = {q.data + b * q.stride[0] + h * group * q.stride[1],
                {group, q.extent[2], q.extent[3]},
                {q.stride[1], q.stride[2], q.stride[3]}};
    head.k = head_of(k, b, h);
    head.scale = scale;
    head.memory = &memory;
    policy.score(for_workers(backend), head,
                 std::span<T>(scores.data + b * scores.stride[0] + h * scores.stride[1],
                              static_cast<std::size_t>(k.extent[2])));
  };
  const auto memory = leased<EvictionMemory>(backend);
  if constexpr (KernelBackend<B>) {
    const auto workers = static_cast<std::size_t>(worker_count(backend.executor, heads));
    if (memory->workers.size() < workers) memory->workers.resize(workers);
    parallel_for(backend.executor, heads, [&](Index i, int worker) {
      score(i, memory->workers[static_cast<std::size_t>(worker)]);
    });
  } else {
    memory->workers.resize(1);
    for (Index i = 0; i < heads; ++i) score(i, memory->workers[0]);
  }
}

template <class B, class S, class T, EvictionScore P>
void score_views(const B& backend, const TensorView<const S, 4>& q, const TensorView<const S, 4>& k,
                 const TensorView<T, 3>& scores, const P& policy, const EvictionOptions& options) {
  const EvictionCall call = checked_eviction(q, k, scores);
  check(!options.scale || (*options.scale >= static_cast<double>(std::numeric_limits<T>::min()) &&
                           *options.scale <= static_cast<double>(std::numeric_limits<T>::max())),
        score_tokens_name, "scale", options.scale.value_or(0),
        "a factor above 0, a normal number of what is computed in");
  policy.validate(score_tokens_name, call);
  if (call.batch == 0 || call.kv_heads == 0 || call.tokens == 0) return;
  score_heads(on_any_executor(backend), q, k, scores, policy,
              options.scale.value_or(1 / std::sqrt(static_cast<double>(call.dim))));
}

PARE_ABI_END
}  // namespace detail

namespace detail {

/// What may be scores: the call is then one without queries.
template <class X>
using IsScores =
    std::bool_constant<requires { requires view_of<const std::remove_reference_t<X>>::rank == 3; }>;

}  // namespace detail

/// k holds the scalar of q, and scores what it is computed in.
template <class Q, class K, class O>
concept EvictionScalars = SameScalar<Q, K> && std::is_same_v<scalar_of<O>, compute_t<scalar_of<K>>>;

PARE_ABI_BEGIN

/// The scores that a policy gives to the tokens of a chunk.
///
/// \param backend where and how; left out: pare::simd
/// \param q       [batch, heads, queries, dim], the last queries of the chunk, rotated as the keys
///                are; those of kv head h are neighbours, as in `attend`. Left out: only for a
///                policy that does not read them
/// \param k       [batch, kv heads, tokens, dim], the keys of the chunk
/// \param scores  [batch, kv heads, tokens] of what k is computed in, written; the last dimension
///                contiguous
/// \param policy  SnapKV, KeyDiff or the user's own EvictionScore
/// \param options the scale of q.k
/// \throws std::invalid_argument if a shape, stride, scale or policy does not fit, or scores
///         overlap an input. Nothing is written then.
///
/// Heads are shared among threads; the bits are the same for any number of them. Cost and memory:
/// the policy's.
template <Backend B, In<4> Q, In<4> K, Out<3> O, EvictionScore P>
requires EvictionScalars<Q, K, O>
void score_tokens(const B& backend, const Q& q, const K& k, O&& scores, const P& policy,
                  const EvictionOptions& options = {}) {
  const auto queries = as_const(to_view(q));
  const auto keys = as_const(to_view(k));
  detail::check_eviction_rows("k", keys);
  detail::check_eviction_queries(queries, keys);
  detail::score_views(backend, queries, keys, to_view(scores), policy, options);
}

/// \overload
template <In<4> Q, In<4> K, Out<3> O, EvictionScore P>
requires EvictionScalars<Q, K, O>
void score_tokens(const Q& q, const K& k, O&& scores, const P& policy,
                  const EvictionOptions& options = {}) {
  score_tokens(simd, q, k, scores, policy, options);
}

/// \overload
template <Backend B, In<4> K, Out<3> O, EvictionScore P>
requires(!P::reads_queries && EvictionScalars<K, K, O>)
void score_tokens(const B& backend, const K& k, O&& scores, const P& policy) {
  const auto keys = as_const(to_view(k));
  detail::score_views(backend, decltype(keys){}, keys, to_view(scores), policy, {});
}

/// \overload
template <In<4> K, Out<3> O, EvictionScore P>
requires(!P::reads_queries && EvictionScalars<K, K, O>)
void score_tokens(const K& k, O&& scores, const P& policy) {
  score_tokens(simd, k, scores, policy);
}

PARE_REFUSE_CALLS(score_tokens, "attention::score_tokens",
                  "after scores: wanted an EvictionScore (that reads no queries where there are "
                  "none) and, behind queries, EvictionOptions",
                  (INPUT, (roles::Reads<4>), "q", "[batch, heads, queries, dim]"),
                  (INPUT, (roles::Unless<roles::ReadsSame<4>, detail::IsScores, roles::other_call>),
                   "k", "[batch, kv heads, tokens, dim]"),
                  (OUTPUT, (roles::WritesComputed<3>), "scores", "[batch, kv heads, tokens]"))
PARE_REFUSE_CALLS(score_tokens, "attention::score_tokens",
                  "after scores: wanted an EvictionScore that reads no queries, such as KeyDiff "
                  "(SnapKV wants queries before k), and scores of what k is computed in",
                  (INPUT, (roles::Reads<4>), "k", "[batch, kv heads, tokens, dim]"),
                  (PLAIN, (roles::Takes<detail::IsScores, roles::other_call>), "scores",
                   "[batch, kv heads, tokens]"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
