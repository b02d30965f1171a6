// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// MaxSim, the score of late interaction (ColBERT): each token of the query looks for the token of
/// the document that it is closest to.
///
///     score_d = sum_i max_j <q_i, t_j>,   j over the tokens of document d
///
/// ```cpp
/// std::vector<float> scores = retrieval::max_sim(queries, tokens, offsets);
/// retrieval::max_sim(pare::simd.threads(2), queries, tokens, offsets, scores);  // the same bits
/// const linalg::Int8Rows bytes = linalg::quantize_rows(tokens);  // a quarter of the memory
/// scores = retrieval::max_sim(queries, bytes, offsets);          // of float queries still
/// ```
///
/// Documents lie one behind the other in one table of tokens and may be of any lengths: nothing is
/// padded, and a maximum below 0 stays what it is. Vectors are taken as they are: who wants cosines
/// normalises them before. A query token that must not count is left out of the queries.
///
/// For some of the documents, as candidates of a first stage, call it with the rows of one and the
/// offsets {0, length}, which packs the query anew, or bring the rows of several side by side.
///
/// Empty documents score -infinity, which the formula gives and which ranks them last; without
/// query tokens every score is 0. A document with a product that is NaN scores NaN, and no other
/// does. Ties are the caller's: see `linalg::rank_scores`.
///
/// Sources: Khattab and Zaharia, SIGIR 2020, section 3.3; offsets as in maxsim-cpu and
/// stanford-futuredata/ColBERT, whose CPU code has 0 in place of maxima below 0. Ours: empty
/// documents and NaN.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/int8_rows.hpp>
#include <pare/retrieval/detail/argument_traits.hpp>
#include <pare/retrieval/detail/int8_max_sim_run.hpp>
#include <pare/retrieval/detail/max_sim_run.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::retrieval {
namespace detail {
PARE_ABI_BEGIN

template <class B, class S>
void max_sim(const B& backend, const MaxSimCall<S>& call) {
  check_max_sim(call);
  if constexpr (KernelBackend<B>)
    MaxSimRun<B, S>(backend, call).run();
  else
    reference_max_sim(call);
}

template <class B>
void max_sim(const B& backend, const Int8MaxSimCall& call) {
  check_max_sim(call);
  if constexpr (KernelBackend<B>)
    Int8MaxSimRun<B>(backend, call).run();
  else
    reference_max_sim(call);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Scores documents for a query.
///
/// \param backend   left out: pare::simd
/// \param queries   [query tokens, dim] of float, double, bf16 or f16, rows contiguous
/// \param documents [tokens, dim] of the same scalar, rows contiguous, viewed where they lie
/// \param offsets   [documents + 1] where each document begins: from 0 to the tokens, never falling
/// \param scores    [documents] of float, or double for double, written; apart from what is read
/// \throws std::invalid_argument if dim is 0 or not that of both, offsets or an extent do not fit,
///         rows are not contiguous, or scores overlaps what is read. Nothing is written then.
///
/// Cost: 2 query tokens x tokens x dim FLOPs, which bind from about 16 query tokens on; fewer take
/// as long as a register of them (16 of float with AVX-512), or as one read of the documents. bf16
/// is multiplied in pairs where that is native.
/// Products are summed in float (double for double) and the maxima in double. Memory: the queries
/// packed, and per worker 13 rows of products, in the workspace. The same bits for any number of
/// threads, and whatever other documents are scored.
template <Backend B, In<2> Q, In<2> D, class I, Out<1> O>
requires SameScalar<Q, D> && detail::IsOffsets<const I&>::value &&
         std::is_same_v<scalar_of<O>, compute_t<scalar_of<Q>>>
void max_sim(const B& backend, const Q& queries, const D& documents, const I& offsets, O&& scores) {
  detail::max_sim(
      on_any_executor(backend),
      detail::MaxSimCall<scalar_of<Q>>{as_const(to_view(queries)), as_const(to_view(documents)),
                                       std::span<const Index>(offsets), to_view(scores)});
}

/// The same, returned.
template <Backend B, In<2> Q, In<2> D, class I>
requires SameScalar<Q, D> && detail::IsOffsets<const I&>::value
std::vector<compute_t<scalar_of<Q>>> max_sim(const B& backend, const Q& queries, const D& documents,
                                             const I& offsets) {
  const std::span<const Index> where(offsets);
  std::vector<compute_t<scalar_of<Q>>> scores(std::max<std::size_t>(where.size(), 1) - 1);
  max_sim(backend, queries, documents, where, scores);
  return scores;
}

/// \overload
template <In<2> Q, In<2> D, class I, Out<1> O>
requires SameScalar<Q, D> && detail::IsOffsets<const I&>::value &&
         std::is_same_v<scalar_of<O>, compute_t<scalar_of<Q>>>
void max_sim(const Q& queries, const D& documents, const I& offsets, O&& scores) {
  max_sim(simd, queries, documents, offsets, scores);
}

/// \overload
template <In<2> Q, In<2> D, class I>
requires SameScalar<Q, D> && detail::IsOffsets<const I&>::value
std::vector<compute_t<scalar_of<Q>>> max_sim(const Q& queries, const D& documents,
                                             const I& offsets) {
  return max_sim(simd, queries, documents, offsets);
}

/// Scores documents of bytes for a query, whose tokens are rounded to bytes too, a scale each. Sums
/// of products are exact integers.
///
/// \param backend   left out: pare::simd
/// \param queries   [query tokens, dim] of float, rows contiguous
/// \param documents linalg::Int8Rows, or an Int8View: [tokens, dim], dim up to 65535
/// \param offsets   [documents + 1] where each document begins: from 0 to the tokens, never falling
/// \param scores    [documents] of float, written; apart from what is read
/// \throws std::invalid_argument if rows are not whole, dim is not that of both, offsets or an
///         extent do not fit, or scores overlaps what is read. Nothing is written then.
///
/// A product is (float(sum) scale of the query token) scale of the token, two products rounded to
/// float, and off from that of the numbers that were rounded by at most
///
///     scale_q / 2 |t|_1 + scale_t / 2 |q|_1 + scale_q scale_t dim / 4;
///
/// a score by at most the sum over query tokens of the largest of these. A token with a NaN or an
/// infinity makes its document's score NaN, one of the query all scores of documents with tokens.
///
/// Cost: query tokens x tokens x dim multiply-adds of bytes, 4 of which take the time of one of
/// float with AVX-512 VNNI, and 2 elsewhere; and one read of a quarter of the bytes of float, which
/// binds where several cores share their memory. Memory: the queries packed, and per worker 13 rows
/// of products and 12 of tokens, in the workspace. The same bits for any number of threads, and
/// whatever other documents are scored; of another arch or the reference, the last bit of a score
/// may differ, since maxima are added up in another order, in double.
template <Backend B, In<2> Q, linalg::Int8RowsIn D, class I, Out<1> O>
requires std::is_same_v<scalar_of<Q>, float> && detail::IsOffsets<const I&>::value &&
         std::is_same_v<scalar_of<O>, float>
void max_sim(const B& backend, const Q& queries, const D& documents, const I& offsets, O&& scores) {
  detail::max_sim(on_any_executor(backend),
                  detail::Int8MaxSimCall{as_const(to_view(queries)), documents,
                                         std::span<const Index>(offsets), to_view(scores)});
}

/// The same, returned.
template <Backend B, In<2> Q, linalg::Int8RowsIn D, class I>
requires std::is_same_v<scalar_of<Q>, float> && detail::IsOffsets<const I&>::value
std::vector<float> max_sim(const B& backend, const Q& queries, const D& documents,
                           const I& offsets) {
  const std::span<const Index> where(offsets);
  std::vector<float> scores(std::max<std::size_t>(where.size(), 1) - 1);
  max_sim(backend, queries, documents, where, scores);
  return scores;
}

/// \overload
template <In<2> Q, linalg::Int8RowsIn D, class I, Out<1> O>
requires std::is_same_v<scalar_of<Q>, float> && detail::IsOffsets<const I&>::value &&
         std::is_same_v<scalar_of<O>, float>
void max_sim(const Q& queries, const D& documents, const I& offsets, O&& scores) {
  max_sim(simd, queries, documents, offsets, scores);
}

/// \overload
template <In<2> Q, linalg::Int8RowsIn D, class I>
requires std::is_same_v<scalar_of<Q>, float> && detail::IsOffsets<const I&>::value
std::vector<float> max_sim(const Q& queries, const D& documents, const I& offsets) {
  return max_sim(simd, queries, documents, offsets);
}

PARE_REFUSE_CALLS(max_sim, "retrieval::max_sim",
                  "after offsets: wanted scores, [documents] of what the queries are computed in, "
                  "or nothing",
                  (INPUT, (roles::Reads<2>), "queries", "[query tokens, dim]"),
                  (INPUT, (detail::ReadsSameOrInt8), "documents", "[tokens, dim]"),
                  (PLAIN, (roles::Takes<detail::IsOffsets>), "offsets",
                   "[documents + 1] of Index, contiguous"))

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
