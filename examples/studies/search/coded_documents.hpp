// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Documents in a residual codec, their MaxSim without decoding, and how far it can be from the
/// exact one.
///
///     exact <= coded + sum_i |q_i| max_j |t_j - t'_j| + what bytes round
///
/// for a document of tokens t_j that the codec restores as t'_j: of each query token the largest
/// product moves by no more than the farthest of them. What bytes round is that of
/// residual_max_sim.hpp.

#include "search/collection.hpp"
#include "search/rankings.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/retrieval/residual_codec.hpp>
#include <pare/retrieval/residual_max_sim.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace search {

using Matrix = pare::RowMatrix<float>;

inline void widen(TensorView<const bf16, 2> from, float* to) {
  for (Index i = 0; i < from.rows() * from.cols(); ++i) to[i] = static_cast<float>(from.data[i]);
}

/// Tokens that are drawn, as float.
inline Matrix sample_of(TensorView<const bf16, 2> tokens, Index count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto chosen =
      drawn(static_cast<std::size_t>(tokens.rows()), static_cast<std::size_t>(count), random);
  Matrix sample(static_cast<Index>(chosen.size()), tokens.cols());
  for (Index i = 0; i < sample.rows(); ++i)
    widen(pare::rows_of(tokens, static_cast<Index>(chosen[static_cast<std::size_t>(i)]), 1),
          &sample(i, 0));
  return sample;
}

class CodedDocuments {
 public:
  template <class B>
  CodedDocuments(const B& backend, const VectorView& documents, const Matrix& sample,
                 const pare::retrieval::ResidualCodecOptions& options)
      : codec_(pare::retrieval::fit_residual_codec(backend, sample, options)),
        offsets_(documents.offsets),
        farthest_(static_cast<std::size_t>(documents.texts()), 0.0F),
        largest_(farthest_),
        scales_(farthest_) {
    // A block of documents at a time: all of them as float would be gigabytes.
    constexpr Index block = 4096;
    for (Index first = 0; first < documents.texts(); first += block)
      add(backend, documents, first, std::min(first + block, documents.texts()));
  }

  int bits() const { return codec_.levels.bits; }
  Index centroids() const { return codec_.centroids.rows(); }
  /// Bytes of a token with its centroid's number and its scale.
  Index token_bytes() const { return codec_.row_bytes() + 8; }

  template <class B>
  std::vector<float> scores(const B& backend, TensorView<const float, 2> query) const {
    return pare::retrieval::residual_max_sim(backend, query, codec_, rows_, offsets_);
  }

  /// Raises scores to what the exact ones cannot pass.
  void raise(TensorView<const float, 2> query, std::vector<float>& scores) const {
    double lengths = 0, largest = 0, sums = 0;
    for (Index i = 0; i < query.rows(); ++i) {
      double square = 0, most = 0;
      for (Index c = 0; c < query.cols(); ++c) {
        const double x = std::abs(static_cast<double>(query(i, c)));
        square += x * x;
        most = std::max(most, x);
        sums += x;
      }
      lengths += std::sqrt(square);
      largest += most;
    }
    const double step = static_cast<double>(codec_.levels.step);
    constexpr double float_sums = 1e-4;  // of products of length 1, far above what rounding adds
    for (std::size_t d = 0; d < scores.size(); ++d)
      scores[d] +=
          static_cast<float>(lengths * (static_cast<double>(farthest_[d]) + float_sums) +
                             largest / 254 * static_cast<double>(largest_[d]) +
                             step / 2 * sums * (1 + 1.0 / 127) * static_cast<double>(scales_[d]));
  }

 private:
  template <class B>
  void add(const B& backend, const VectorView& documents, Index first, Index last) {
    const auto begin = offsets_[static_cast<std::size_t>(first)];
    const auto tokens =
        pare::rows_of(documents.tokens, begin, offsets_[static_cast<std::size_t>(last)] - begin);
    Matrix wide(tokens.rows(), tokens.cols()), restored(tokens.rows(), tokens.cols());
    widen(tokens, wide.data());
    const pare::retrieval::ResidualRows rows = pare::retrieval::encode(backend, codec_, wide);
    pare::retrieval::decode(codec_, rows, restored);
    for (Index d = first; d < last; ++d) {
      const auto at = static_cast<std::size_t>(d);
      for (Index t = offsets_[at] - begin; t < offsets_[at + 1] - begin; ++t) {
        const auto row = static_cast<std::size_t>(t);
        const float scale = rows.scales[row];
        const auto centroid = codec_.centroids.row(static_cast<Index>(rows.centroids[row]));
        farthest_[at] = std::max(farthest_[at], (wide.row(t) - restored.row(t)).norm());
        largest_[at] = std::max(largest_[at], (restored.row(t) - scale * centroid).lpNorm<1>());
        scales_[at] = std::max(scales_[at], scale);
      }
    }
    rows_.centroids.insert(rows_.centroids.end(), rows.centroids.begin(), rows.centroids.end());
    rows_.codes.insert(rows_.codes.end(), rows.codes.begin(), rows.codes.end());
    rows_.scales.insert(rows_.scales.end(), rows.scales.begin(), rows.scales.end());
  }

  pare::retrieval::ResidualCodec codec_;
  pare::retrieval::ResidualRows rows_{};
  std::span<const Index> offsets_;
  /// Of the tokens of each document: the largest error, the largest residual by the sum of its
  /// sizes, the largest scale.
  std::vector<float> farthest_, largest_, scales_;
};

/// The tokens of a query as float.
inline Matrix wide_query(const Collection& c, Index query) {
  const auto tokens = c.query_vectors().of(query);
  Matrix wide(tokens.rows(), tokens.cols());
  widen(tokens, wide.data());
  return wide;
}

template <class B>
Hits by_codes(const B& backend, const Collection& c, const CodedDocuments& coded, Index query,
              Index count) {
  return best_of(coded.scores(backend, pare::const_view(wide_query(c, query))), count);
}

}  // namespace search
