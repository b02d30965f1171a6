// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// MaxSim of documents that a residual codec has encoded (ColBERTv2, PLAID), which are never
/// written out: a product is that of the centroid, computed once for a query, plus that of the
/// residual.
///
///     score_d = sum_i max_j scale_j (<q_i, centroid of t_j> + <q_i, residual of t_j>)
///
/// ```cpp
/// std::vector<float> scores = retrieval::residual_max_sim(queries, codec, rows, offsets);
/// ```
///
/// Where the processor multiplies bytes in fours (AVX-512 VNNI), residuals are multiplied as bytes:
/// a query token q is rounded to 127 steps of its largest number, and bucket values to 255 steps
/// between the first and the last. A product is then off by at most
///
///     scale_j (max |q| / 254 |residual|_1 + step / 2 |q|_1 (1 + 1/127)),
///
/// step the 255th part of the values' range. Elsewhere products are float. Centroids' products are
/// float on all.
///
/// Empty documents score -infinity. A query token with a NaN or an infinity makes the scores of all
/// other documents NaN. Sources: as residual_codec.hpp; the look-up is XTR/WARP's implicit
/// decompression (arXiv 2501.17788), with the length of rows. Ours: bytes.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/retrieval/detail/residual_run.hpp>
#include <pare/retrieval/max_sim.hpp>
#include <pare/retrieval/residual_codec.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::retrieval {
PARE_ABI_BEGIN

/// Scores encoded documents for a query.
///
/// \param backend left out: pare::simd; pare::reference decodes and multiplies in double
/// \param queries [query tokens, dim] of float, rows contiguous
/// \param codec   what has encoded the rows
/// \param rows    the tokens of all documents, encoded
/// \param offsets [documents + 1] where each document begins: from 0 to the rows, never falling
/// \param scores  [documents] of float, written; apart from what is read
/// \throws std::invalid_argument if an extent or offsets do not fit, rows are not of this codec, or
///         scores overlaps what is read. Nothing is written then.
///
/// Cost: 2 query tokens x centroids x dim FLOPs for the query, and query tokens x rows x dim
/// multiply-adds of bytes, 4 of which take the time of one of float; both bind. Memory: centroids x
/// query tokens floats, and per worker 12 rows, in the workspace. The same bits for any number of
/// threads.
template <Backend B, In<2> Q, class I, Out<1> O>
requires std::is_same_v<scalar_of<Q>, float> && detail::IsOffsets<const I&>::value &&
         std::is_same_v<scalar_of<O>, float>
void residual_max_sim(const B& backend, const Q& queries, const ResidualCodec& codec,
                      const ResidualRows& rows, const I& offsets, O&& scores) {
  detail::residual_max_sim(on_any_executor(backend),
                           detail::ResidualCall{as_const(to_view(queries)), codec, rows,
                                                std::span<const Index>(offsets), to_view(scores)});
}

/// The same, returned.
template <Backend B, In<2> Q, class I>
requires std::is_same_v<scalar_of<Q>, float> && detail::IsOffsets<const I&>::value
std::vector<float> residual_max_sim(const B& backend, const Q& queries, const ResidualCodec& codec,
                                    const ResidualRows& rows, const I& offsets) {
  const std::span<const Index> where(offsets);
  std::vector<float> scores(std::max<std::size_t>(where.size(), 1) - 1);
  residual_max_sim(backend, queries, codec, rows, where, scores);
  return scores;
}

/// \overload
template <In<2> Q, class I>
requires std::is_same_v<scalar_of<Q>, float> && detail::IsOffsets<const I&>::value
std::vector<float> residual_max_sim(const Q& queries, const ResidualCodec& codec,
                                    const ResidualRows& rows, const I& offsets) {
  return residual_max_sim(simd, queries, codec, rows, offsets);
}

PARE_REFUSE_CALLS(residual_max_sim, "retrieval::residual_max_sim",
                  "after offsets: wanted scores, [documents] of float, or nothing",
                  (PLAIN, (roles::Takes<detail::IsFloats>), "queries",
                   "[query tokens, dim] of float"),
                  (PLAIN, (roles::Takes<detail::IsCodec>), "codec", "a ResidualCodec"),
                  (PLAIN, (roles::Takes<detail::IsResidualRows>), "rows", "ResidualRows"),
                  (PLAIN, (roles::Takes<detail::IsOffsets>), "offsets",
                   "[documents + 1] of Index, contiguous"))

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
