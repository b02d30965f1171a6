// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Causal attention as one builds it from other libraries: the flash loop over OpenBLAS's sgemm,
/// and two forms of it in Eigen.

#include <pare/core/check.hpp>

#include <functional>
#include <vector>

namespace pare::bench {

/// Row-major q, k, v, out [heads, tokens, dim], one after the other without gaps.
struct DenseHeads {
  const float* q = nullptr;
  const float* k = nullptr;
  const float* v = nullptr;
  float* out = nullptr;
  Index heads = 0, tokens = 0, dim = 0;
};

/// Query rows and keys of one tile of the flash loop.
struct FlashTile {
  Index rows = 64, keys = 128;
};

/// Tiles that are tried; the fastest of them is the peer.
const std::vector<FlashTile>& flash_tiles();

/// out = softmax(q k^T / sqrt(dim)) v, causal, with a running maximum and sum over tiles.
///
/// Two calls of sgemm a tile; between them, in registers as wide as this build has, the maximum,
/// exp2 (log2 e is part of the factor sgemm multiplies by) and the sum of each row. Tiles above the
/// diagonal are skipped, and those on it are cut at the last key that a row of theirs sees.
/// Row blocks of each head are shared out over the threads, the longest first.
/// Requires OpenBlas::installed().
void openblas_flash(const DenseHeads& a, FlashTile tile, int threads);

/// Whether a tile is computed: keep(head, row block, key block).
using KeepTile = std::function<bool(Index, Index, Index)>;

/// The same over the tiles for which `keep` is true; every row needs one with a key it sees.
void openblas_flash(const DenseHeads& a, FlashTile tile, int threads, const KeepTile& keep);

/// The definition in a few lines of Eigen a head, with a [tokens, tokens] matrix of scores.
void eigen_whole(const DenseHeads& a, int threads);

/// The same for blocks of `rows` queries against the keys they see: what a careful user of Eigen
/// writes, one pass over the scores for the softmax.
void eigen_by_rows(const DenseHeads& a, Index rows, int threads);

/// Seconds of the fastest tile, timed again at every call where that is quick; NaN without
/// OpenBLAS.
double openblas_attention_seconds(const DenseHeads& a, int threads);

/// Seconds of the faster form in Eigen.
double eigen_attention_seconds(const DenseHeads& a, int threads);

}  // namespace pare::bench
