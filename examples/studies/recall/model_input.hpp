// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Queries, keys and values of a user's own model from .npy files.

#include "recall_text/heads.hpp"
#include "recall_text/text.hpp"

#include <pare/io/npy.hpp>

#include <algorithm>
#include <cstddef>
#include <string>

namespace recall {

namespace detail {

inline Tensor read_tensor(const std::string& path) {
  const auto array = pare::io::read_npy<float>(path);
  const std::size_t rank = array.shape.size();
  const bool usable =
      (rank == 3 || rank == 4) &&
      std::all_of(array.shape.begin(), array.shape.end(), [](Index n) { return n > 0; });
  if (!usable)
    throw InputError(path +
                     ": wanted an array [heads, tokens, dim] or "
                     "[batch, heads, tokens, dim], none of them 0");
  const Index* shape = array.shape.data() + (rank - 3);
  Tensor tensor(rank == 4 ? array.shape[0] : 1, shape[0], shape[1], shape[2]);
  std::copy(array.data.begin(), array.data.end(), tensor.data());
  return tensor;
}

}  // namespace detail

/// Reads q, k and v, each [heads, tokens, dim] or [batch, heads, tokens, dim] of 16- or 32-bit
/// floats. k and v may have fewer heads than q, if their number divides that of q.
/// Throws InputError, or std::invalid_argument for what is no such file.
inline Heads read_heads(const std::string& q, const std::string& k, const std::string& v) {
  Heads heads{{}, detail::read_tensor(q), detail::read_tensor(k), detail::read_tensor(v)};
  const auto differ = [&](std::size_t d) { return heads.k.dimension(d) != heads.v.dimension(d); };
  if (differ(0) || differ(1) || differ(2) || heads.q.dimension(0) != heads.k.dimension(0))
    throw InputError(k + ", " + v + ": wanted the same batch, heads and tokens, and the batch of " +
                     q);
  if (heads.q.dimension(1) % heads.k.dimension(1) != 0)
    throw InputError(k + ": wanted a number of heads that divides that of " + q);
  if (heads.q.dimension(2) != heads.k.dimension(2))
    throw InputError(k + ": wanted as many tokens as " + q + " has: the whole prompt");
  if (heads.q.dimension(3) != heads.k.dimension(3))
    throw InputError(k + ": wanted the same dim as " + q);
  for (Index h = 0; h < heads.q.dimension(1); ++h) heads.names.push_back(std::to_string(h));
  return heads;
}

}  // namespace recall
