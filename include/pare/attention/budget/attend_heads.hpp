// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention over kv heads that keep different numbers of tokens.
///
/// ```cpp
/// // Tangram's virtual pages: what reads one kv head in pages reads each head of each sequence.
/// const PagedKeyValue<float> heads{.keys = ...,      // [virtual pages, 1, page size, dim]
///                                  .values = ...,
///                                  .table = ...,     // [sequences * kv heads, most pages]
///                                  .lengths = ...};  // [sequences * kv heads]
/// attend_heads(pare::simd.threads(4), q, heads, out);   // q [sequences, heads, queries, dim]
/// ```
///
/// `latent::RaggedCache` is a store of such pages (`latent::attend_ragged` calls this). Each
/// (sequence, kv head) is a sequence of a source of one kv head, number s kv_heads + h. Its length
/// may be 0: such a head gives 0.
///
/// With `causal`, query i of n sees what a head keeps but its last n - 1 - i tokens: append the
/// tokens of the queries, attend, and drop tokens afterwards.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/attention/budget/detail/run_partition.hpp>
#include <pare/attention/budget/head_partition.hpp>
#include <pare/attention/detail/checked_problem.hpp>
#include <pare/attention/detail/run_reference.hpp>
#include <pare/attention/key_value_source.hpp>
#include <pare/attention/options.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <array>
#include <limits>

namespace pare::attention {

PARE_ABI_BEGIN

/// Whether the heads of all sequences of x [sequences, heads, ...] follow one another at one
/// stride, which attend_heads asks for.
template <class T>
bool heads_follow(const TensorView<T, 4>& x) {
  return x.extent[0] <= 1 || x.extent[1] == 0 || x.stride[0] == x.extent[1] * x.stride[1];
}

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* attend_heads_name = "attention::attend_heads";

/// x [sequences, heads, ...] as [sequences kv heads, heads of a kv head, ...].
template <class T>
TensorView<T, 4> by_kv_head(TensorView<T, 4> x, Index kv_heads) {
  const Index each = x.extent[1] / kv_heads;
  return {x.data,
          {x.extent[0] * kv_heads, each, x.extent[2], x.extent[3]},
          {each * x.stride[1], x.stride[1], x.stride[2], x.stride[3]}};
}

inline void check_heads_options(const AttendOptions& options) {
  const char* const function = attend_heads_name;
  check(!options.window && !options.window_left && !options.window_right, function, "window",
        "a window", "none: heads keep tokens from anywhere");
  check(!options.order && !options.mask, function, "order, mask", "an order or a mask",
        "neither: heads differ in length");
  check(!options.query_offsets && !options.key_offsets && !options.key_lengths, function,
        "query_offsets, key_offsets, key_lengths", "offsets or lengths", "none");
  check(!options.lse.wanted(), function, "lse", "a log-sum-exp", "none");
  check(!options.sink_logits, function, "sink_logits", "sink logits", "none");
}

/// The kv heads of a sequence.
template <class Source, class S, class O>
Index checked_kv_heads(const TensorView<const S, 4>& q, const Source& source,
                       const TensorView<O, 4>& out) {
  const char* const function = attend_heads_name;
  check_view(function, "q", q);
  check_writable(function, "out", out);
  source.validate(function);
  check(source.kv_heads() == 1, function, "source", source.kv_heads(), "1 kv head");
  const Index sequences = q.extent[0], all = source.sequences();
  check(sequences == 0 ? all == 0 : all > 0 && all % sequences == 0, function, "source", all,
        Worded{"a multiple of the ", sequences, " sequences, the kv heads of all"});
  const Index kv_heads = sequences == 0 ? 1 : all / sequences;
  check(q.extent[1] % kv_heads == 0, function, "q", q.extent,
        Worded{"a multiple of the ", kv_heads, " kv heads as heads"});
  check_extents<4>(function, "out", out.extent,
                   {sequences, q.extent[1], q.extent[2], source.value_dim()});
  check(heads_follow(q), function, "q", q.stride, "heads of all sequences at one stride");
  check(heads_follow(out), function, "out", out.stride, "heads of all sequences at one stride");
  return kv_heads;
}

/// The partition of a call without one.
template <class B, class Source>
const HeadPartition& made_partition(const B& backend, const Source& source, Index kv_heads,
                                    const PartitionOptions& options, HeadsMemory& memory) {
  memory.lengths.clear();
  for (Index i = 0; i < source.sequences(); ++i) memory.lengths.push_back(source.length(i));
  const Index sequences = static_cast<Index>(memory.lengths.size()) / kv_heads;
  PartitionOptions own = options;
  own.threads = worker_count(backend.executor, std::numeric_limits<Index>::max());
  PartitionAccess::assign(memory.partition, attend_heads_name,
                          {memory.lengths.data(), {sequences, kv_heads}, {kv_heads, 1}}, own);
  return memory.partition;
}

/// Throws unless a partition is that of a call.
template <class Source>
void check_partition(const HeadPartition& partition, const Source& source, Index kv_heads,
                     const PartitionOptions& wanted) {
  const PartitionOptions& got = PartitionAccess::options(partition);
  check(got.causal == wanted.causal && got.queries == wanted.queries && got.heads == wanted.heads,
        attend_heads_name, "partition", std::array<Index, 3>{got.heads, got.queries, got.causal},
        "the heads, queries and causality of the call");
  const Index got_heads = PartitionAccess::kv_heads(partition);
  check(source.sequences() == 0 || got_heads == kv_heads, attend_heads_name, "partition",
        Worded{"one of ", got_heads, " kv heads"}, Worded{"the ", kv_heads, " of the call"});
  const auto lengths = PartitionAccess::lengths(partition);
  bool same = static_cast<Index>(lengths.size()) == source.sequences();
  for (Index i = 0; same && i < source.sequences(); ++i)
    same = lengths[static_cast<std::size_t>(i)] == source.length(i);
  check(same, attend_heads_name, "partition", "one of other lengths", "the lengths of the source");
}

/// A partition may be null.
template <class B, class S, class Source, class O>
void attend_heads(const B& backend, const TensorView<const S, 4>& q, const Source& source,
                  const TensorView<O, 4>& out, const HeadPartition* partition,
                  const AttendOptions& options) {
  check_heads_options(options);
  const Index kv_heads = checked_kv_heads(q, source, out);
  const auto queries = by_kv_head(q, kv_heads);
  const auto to = by_kv_head(out, kv_heads);
  Index slots = 0;
  for (Index i = 0; i < source.sequences(); ++i) slots = std::max<Index>(slots, source.length(i));
  const Problem problem =
      checked_problem(attend_heads_name, queries, source, to, Exact{}, options, slots);
  check_outputs(attend_heads_name, queries, source, to, Exact{}, options);
  const PartitionOptions wanted{
      .heads = q.extent[1], .queries = q.extent[2], .causal = problem.causal};
  if (partition != nullptr) check_partition(*partition, source, kv_heads, wanted);
  if (queries.extent[0] == 0 || queries.extent[1] == 0 || queries.extent[2] == 0) return;
  const Exact exact;
  const Call<S, O, Source, Exact> call{problem, queries, source, to, exact, options};
  if constexpr (KernelBackend<B>) {
    const auto memory = leased<HeadsMemory>(backend);
    const auto any = on_any_executor(backend);
    if (partition == nullptr) partition = &made_partition(any, source, kv_heads, wanted, *memory);
    run_partition(any, call, *partition, memory->attend, memory->cursors);
  } else {
    run_reference(call);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Attention of each head over the tokens that its kv head keeps.
///
/// \param backend   left out: pare::simd
/// \param q         [sequences, heads, queries, key dim], heads of all sequences at one stride (as
///                  of tensors without gaps between sequences, or of one sequence); heads are a
///                  multiple of the kv heads, and those of kv head h are neighbours, as in `attend`
/// \param source    a KeyValueSource of one kv head, whose sequence s kv_heads + h is kv head h of
///                  sequence s; of the scalar of q
/// \param out       [sequences, heads, queries, value dim], likewise, written
/// \param partition of these lengths, kv heads, heads and queries, for any number of threads; left
///                  out: one is made for the backend's
/// \param options   causal, scale and query_offset; nothing that counts positions or needs one
///                  length
/// \throws std::invalid_argument if a shape or stride does not fit, the partition is of another
///         call, an option is of the others, or out overlaps an input. Nothing is written then.
///
/// Cost: one read of what heads keep, which binds for few queries; else as `attend`. Memory: as
/// `attend`. The same bits for any number of threads and any partition.
template <Backend B, In<4> Q, KeyValueSource Source, Out<4> O>
requires SourceScalars<Q, Source, O>
void attend_heads(const B& backend, const Q& q, const Source& source, O&& out,
                  const HeadPartition& partition, const AttendOptions& options = {}) {
  detail::attend_heads(backend, as_const(to_view(q)), source, to_view(out), &partition, options);
}

/// \overload
template <Backend B, In<4> Q, KeyValueSource Source, Out<4> O>
requires SourceScalars<Q, Source, O>
void attend_heads(const B& backend, const Q& q, const Source& source, O&& out,
                  const AttendOptions& options = {}) {
  detail::attend_heads(backend, as_const(to_view(q)), source, to_view(out), nullptr, options);
}

/// \overload
template <In<4> Q, KeyValueSource Source, Out<4> O>
requires SourceScalars<Q, Source, O>
void attend_heads(const Q& q, const Source& source, O&& out, const AttendOptions& options = {}) {
  attend_heads(simd, q, source, out, options);
}

PARE_REFUSE_CALLS(
    attend_heads, "attention::attend_heads",
    "after out: wanted [a HeadPartition] and AttendOptions, members spelt and ordered "
    "as declared",
    (INPUT, (roles::Reads<4>), "q", "[sequences, heads, queries, key dim]"),
    (PLAIN, (roles::Takes<detail::IsSource>), "source", "a KeyValueSource of one kv head"),
    (OUTPUT, (roles::WritesEither<4>), "out", "[sequences, heads, queries, value dim]"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
