// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Token vectors of 128 floats in 36 to 72 bytes (ColBERTv2, PLAID): the nearest centroid, and what
/// is left of each dimension in 1, 2 or 4 bits.
///
///     t ~ scale (c_near + w_code),   code_d the bucket of (t - c_near)_d
///
/// ```cpp
/// const ResidualCodec codec = fit_residual_codec(tokens, {.bits = 4});
/// const ResidualRows rows = encode(pare::simd.threads(2), codec, tokens);
/// decode(codec, rows, restored);                        // [tokens, dim]
/// residual_max_sim(queries, codec, rows, offsets);      // residual_max_sim.hpp, without decoding
/// ```
///
/// Centroids are unit vectors, by k-means whose rows go where their product is largest; of as many
/// tokens as the codec is fitted on, 2^floor(log2(16 sqrt(tokens))) of them. Buckets are one list
/// for all dimensions: their bounds are the quantiles i / 2^bits of all residuals, their values the
/// quantiles (i + 1/2) / 2^bits, or both are where squared errors are least (`ResidualBuckets`). A
/// decoded row has length 1, by a scale that is stored and finite: but for rows of zeros, and
/// shorter ones than the inverse of the largest float.
///
/// Sources: Santhanam et al., ColBERTv2 (NAACL 2022) and PLAID (CIKM 2022), by
/// stanford-futuredata/ColBERT. Ours: the order of bits (kernel/residual_dots.hpp); the length is
/// stored rather than computed; first centroids are tokens drawn by Philox, and one without rows
/// stays where it is; buckets by least squares; quantiles are of the tokens that centroids are
/// fitted on, where ColBERT keeps a twentieth of them for that. Reconstructed: 4 rounds of k-means
/// by products, where ColBERT runs faiss.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/residual_dots.hpp>
#include <pare/retrieval/detail/argument_traits.hpp>
#include <pare/retrieval/detail/residual_fit.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>
#include <vector>

namespace pare::retrieval {

/// Where buckets are.
enum class ResidualBuckets : std::uint8_t {
  Quantiles,     ///< as many residuals in each: the source's
  LeastSquares,  ///< where the sum of squared errors is least (Lloyd, Max), begun at the quantiles
};

/// How a codec is fitted.
struct ResidualCodecOptions {
  int bits = 4;                      ///< of a code: 1, 2 or 4
  std::optional<Index> centroids{};  ///< 1 to the tokens; left out: the formula above, at most that
  int rounds = 4;                    ///< of k-means, at least 0
  /// LeastSquares halves the error of 4 bits on the token vectors of MiniLM, of 384 dimensions.
  ResidualBuckets buckets = ResidualBuckets::Quantiles;
  bool normalize = true;   ///< decoded rows have length 1; else scales are 1
  std::uint64_t seed = 1;  ///< of the tokens that centroids begin as
};

PARE_ABI_BEGIN

/// Centroids, and the bounds and values of buckets.
struct ResidualCodec {
  RowMatrix<float> centroids;     ///< [centroids, dim]
  std::vector<float> bounds;      ///< [2^bits - 1], rising
  kernel::ResidualLevels levels;  ///< bits, and the value of each code
  bool normalize = true;

  Index dim() const { return centroids.cols(); }
  /// Bytes of a row's codes, a multiple of 4: beside them stand a number of 4 bytes and a scale.
  Index row_bytes() const {
    const Index planes = levels.planes();
    return ((dim() + planes - 1) / planes + 3) / 4 * 4;
  }
};

/// Encoded rows.
struct ResidualRows {
  std::vector<std::uint32_t> centroids;  ///< [rows]
  std::vector<std::uint8_t> codes;       ///< [rows x row_bytes], planes of codes
  std::vector<float> scales;             ///< [rows]

  Index rows() const { return static_cast<Index>(centroids.size()); }
};

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

/// Throws unless a codec is fitted, or as one that is.
inline void check_codec(const char* function, const ResidualCodec& codec) {
  check(codec.centroids.rows() >= 1, function, "codec", codec.centroids.rows(),
        "a fitted codec, of at least one centroid");
  check(codec.dim() >= 1 && codec.dim() <= most_residual_dim, function, "codec", codec.dim(),
        Worded{"a dim of 1 to ", most_residual_dim});
  const int bits = codec.levels.bits;
  check(bits == 1 || bits == 2 || bits == 4, function, "codec", bits, "1, 2 or 4 bits");
  check(static_cast<int>(codec.bounds.size()) == (1 << bits) - 1, function, "codec",
        codec.bounds.size(), Worded{"bounds between buckets, ", (Index{1} << bits) - 1});
}

/// The number of dimension c of an encoded row, without its scale.
inline float residual_value(const ResidualCodec& codec, const std::uint8_t* codes,
                            std::uint32_t centroid, Index c) {
  const Index bytes = codec.row_bytes();
  const int bits = codec.levels.bits;
  const int code = (codes[c % bytes] >> (static_cast<int>(c / bytes) * bits)) & ((1 << bits) - 1);
  return codec.centroids(static_cast<Index>(centroid), c) +
         codec.levels.values[static_cast<std::size_t>(code)];
}

template <class B>
ResidualCodec fit_residual_codec(const B& backend, TensorView<const float, 2> tokens,
                                 const ResidualCodecOptions& options) {
  constexpr const char* function = "retrieval::fit_residual_codec";
  check_residual_tokens(function, tokens);
  check(tokens.rows() >= 1, function, "tokens", tokens.extent, "at least one token");
  check(options.bits == 1 || options.bits == 2 || options.bits == 4, function, "bits", options.bits,
        "1, 2 or 4");
  check_enumerator(function, "buckets", options.buckets, ResidualBuckets::LeastSquares);
  check(options.rounds >= 0, function, "rounds", options.rounds, "at least 0");
  const Index count = options.centroids.value_or(usual_centroids(tokens.rows()));
  check(count >= 1 && count <= tokens.rows() && count <= most_residual_centroids, function,
        "centroids", count, Worded{"1 to the tokens, ", tokens.rows(), ", and below 2^31"});
  check_finite_tokens(function, tokens);
  ResidualCodec codec;
  codec.normalize = options.normalize;
  codec.levels.bits = options.bits;
  codec.centroids = drawn_centroids(tokens, count, options.seed);
  std::vector<std::uint32_t> near;
  for (int round = 0; round < options.rounds; ++round) {
    nearest_centroids(backend, tokens, codec.centroids, near);
    move_centroids(tokens, near, codec.centroids);
  }
  nearest_centroids(backend, tokens, codec.centroids, near);
  set_buckets(tokens, near, codec.centroids, options.buckets == ResidualBuckets::LeastSquares,
              codec.bounds, codec.levels);
  return codec;
}

template <class B>
void encode(const B& backend, const ResidualCodec& codec, TensorView<const float, 2> tokens,
            ResidualRows& rows) {
  constexpr const char* function = "retrieval::encode";
  check_codec(function, codec);
  check_residual_tokens(function, tokens);
  check(tokens.cols() == codec.dim(), function, "tokens", tokens.extent,
        Worded{"the dim of the codec, ", codec.dim()});
  check_finite_tokens(function, tokens);
  constexpr double largest_scale = std::numeric_limits<float>::max();
  const Index bytes = codec.row_bytes();
  nearest_centroids(backend, tokens, codec.centroids, rows.centroids);
  rows.codes.assign(static_cast<std::size_t>(tokens.rows() * bytes), 0);
  rows.scales.assign(static_cast<std::size_t>(tokens.rows()), 1.0f);
  for (Index i = 0; i < tokens.rows(); ++i) {
    const std::uint32_t centroid = rows.centroids[static_cast<std::size_t>(i)];
    std::uint8_t* const codes = rows.codes.data() + i * bytes;
    double square = 0;
    for (Index c = 0; c < codec.dim(); ++c) {
      const float residual = tokens(i, c) - codec.centroids(static_cast<Index>(centroid), c);
      const int shift = static_cast<int>(c / bytes) * codec.levels.bits;
      codes[c % bytes] = static_cast<std::uint8_t>(codes[c % bytes] |
                                                   (bucket_of(codec.bounds, residual) << shift));
      const auto value = static_cast<double>(residual_value(codec, codes, centroid, c));
      square += value * value;
    }
    if (codec.normalize && square > 0)
      rows.scales[static_cast<std::size_t>(i)] =
          static_cast<float>(std::min(1 / std::sqrt(square), largest_scale));
  }
}

/// Throws unless rows are what the codec has made.
inline void check_residual_rows(const char* function, const ResidualCodec& codec,
                                const ResidualRows& rows) {
  check_codec(function, codec);
  check(static_cast<Index>(rows.codes.size()) == rows.rows() * codec.row_bytes(), function, "rows",
        rows.codes.size(), Worded{"bytes of all codes, ", rows.rows() * codec.row_bytes()});
  check(rows.scales.size() == rows.centroids.size(), function, "rows", rows.scales.size(),
        Worded{"a scale for each of ", rows.rows(), " rows"});
  for (const std::uint32_t centroid : rows.centroids)
    check(static_cast<Index>(centroid) < codec.centroids.rows(), function, "rows", centroid,
          Worded{"centroids below ", codec.centroids.rows()});
}

inline void decode(const ResidualCodec& codec, const ResidualRows& rows,
                   TensorView<float, 2> tokens) {
  constexpr const char* function = "retrieval::decode";
  check_residual_rows(function, codec, rows);
  check_writable(function, "tokens", tokens);
  check_extents<2>(function, "tokens", tokens.extent, {rows.rows(), codec.dim()});
  check_no_overlap(function, "tokens", tokens, "codec", const_view(codec.centroids));
  check_no_overlap(function, "tokens", tokens, "rows", to_view(rows.scales));
  check_no_overlap(function, "tokens", tokens, "rows", to_view(rows.codes));
  check_no_overlap(function, "tokens", tokens, "rows", to_view(rows.centroids));
  for (Index i = 0; i < rows.rows(); ++i)
    for (Index c = 0; c < codec.dim(); ++c) {
      const auto at = static_cast<std::size_t>(i);
      tokens(i, c) =
          rows.scales[at] *
          residual_value(codec, rows.codes.data() + i * codec.row_bytes(), rows.centroids[at], c);
    }
}

template <class X>
using IsCodec = std::is_same<std::remove_cvref_t<X>, ResidualCodec>;
template <class X>
using IsResidualRows = std::is_same<std::remove_cvref_t<X>, ResidualRows>;

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Fits centroids and buckets to tokens, or to a sample of them.
///
/// \param backend left out: pare::simd
/// \param tokens  [tokens, dim] of float, rows contiguous, finite; dim up to 65535
/// \param options see ResidualCodecOptions
/// \throws std::invalid_argument if there is no token or dim, a number is not finite, or an option
///         is out of its range
///
/// Cost: 2 (rounds + 1) tokens centroids dim FLOPs, which bind, and a sort of all residuals.
/// Memory: a copy of the tokens. Means are double, in the order of tokens: the same bits for any
/// number of threads.
template <Backend B, In<2> X>
requires std::is_same_v<scalar_of<X>, float>
ResidualCodec fit_residual_codec(const B& backend, const X& tokens,
                                 const ResidualCodecOptions& options = {}) {
  return detail::fit_residual_codec(on_any_executor(backend), as_const(to_view(tokens)), options);
}

/// \overload
template <In<2> X>
requires std::is_same_v<scalar_of<X>, float>
ResidualCodec fit_residual_codec(const X& tokens, const ResidualCodecOptions& options = {}) {
  return fit_residual_codec(simd, tokens, options);
}

/// Encodes tokens: the centroid of the largest product, of equal ones the first, and the bucket of
/// what is left.
///
/// \param backend left out: pare::simd
/// \param codec   a fitted codec
/// \param tokens  [tokens, dim] of float, rows contiguous, finite
/// \throws std::invalid_argument if the codec is not fitted, dim is not its own, or a number is not
///         finite
///
/// Cost: 2 tokens centroids dim FLOPs, which bind. The same bits for any number of threads.
template <Backend B, In<2> X>
requires std::is_same_v<scalar_of<X>, float>
ResidualRows encode(const B& backend, const ResidualCodec& codec, const X& tokens) {
  ResidualRows rows;
  detail::encode(on_any_executor(backend), codec, as_const(to_view(tokens)), rows);
  return rows;
}

/// \overload
template <In<2> X>
requires std::is_same_v<scalar_of<X>, float>
ResidualRows encode(const ResidualCodec& codec, const X& tokens) {
  return encode(simd, codec, tokens);
}

/// Writes encoded rows out: scale (centroid + bucket values).
///
/// \param codec  what has encoded them
/// \param rows   encoded rows
/// \param tokens [rows, dim] of float, written; apart from the codec
/// \throws std::invalid_argument if an extent does not fit, rows are not of this codec, or tokens
///         overlaps it. Nothing is written then.
///
/// Cost: one write of tokens, on the calling thread.
template <Out<2> O>
requires std::is_same_v<scalar_of<O>, float>
void decode(const ResidualCodec& codec, const ResidualRows& rows, O&& tokens) {
  detail::decode(codec, rows, to_view(tokens));
}

PARE_REFUSE_CALLS(fit_residual_codec, "retrieval::fit_residual_codec",
                  "after tokens: wanted ResidualCodecOptions",
                  (PLAIN, (roles::Takes<detail::IsFloats>), "tokens", "[tokens, dim] of float"))
PARE_REFUSE_CALLS(encode, "retrieval::encode", "after tokens: wanted nothing",
                  (PLAIN, (roles::Takes<detail::IsCodec>), "codec", "a ResidualCodec"),
                  (PLAIN, (roles::Takes<detail::IsFloats>), "tokens", "[tokens, dim] of float"))
PARE_REFUSE_CALLS(decode, "retrieval::decode", "after tokens: wanted nothing",
                  (PLAIN, (roles::Takes<detail::IsCodec>), "codec", "a ResidualCodec"),
                  (PLAIN, (roles::Takes<detail::IsResidualRows>), "rows", "ResidualRows"),
                  (OUTPUT, (roles::Writes<2>), "tokens", "[rows, dim] of float"))

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
