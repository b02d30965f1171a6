// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Scores of a tile of attention become weights, for a few rows at a time.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/attend_call.hpp>
#include <pare/kernel/gemm.hpp>
#include <pare/kernel/math.hpp>
#include <pare/kernel/online_softmax.hpp>

#include <bit>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <utility>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

/// Room for the scores of a row; for keys as they lie a few more: rows a power of two apart would
/// share sets of L1.
template <bool Direct>
inline constexpr std::ptrdiff_t row_room = Direct ? direct_tile_keys + 64 : tile_keys;

/// Keys as they lie that are weighed before their values are multiplied: few enough that V of them
/// is in L2 when the next panel of columns comes, and enough that a panel is seldom begun.
inline constexpr std::ptrdiff_t weighed_keys = 256;

/// The scratch of one group of rows. Weights share the place of scores where they have their type.
template <class E, bool Direct>
struct TileScratch {
  using T = typename product<E>::sum;
  alignas(64) T scores[tile_rows * row_room<Direct>];
};
template <bool Direct>
struct TileScratch<Bf16Pair, Direct> {
  using T = float;
  alignas(64) T scores[tile_rows * row_room<Direct>];
  alignas(64) bf16 weights[tile_rows * row_room<Direct>];
};

/// Registers of weights that are computed together.
inline constexpr std::ptrdiff_t weighed_together = 4;

/// Calls put(j, weights) for the weights 2^(scale s_j + shift) of `count` scores, a multiple of
/// those of `Least` registers, some registers at a time: `Least` of them, or weighed_together.
template <class Arch, std::size_t Least, class T, class Store>
PARE_TILE_INLINE void each_weights(const T* scores, std::ptrdiff_t count, vec<T, Arch> scale,
                                   vec<T, Arch> shift, const Store& put) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const auto some = [&]<std::size_t... I>(std::ptrdiff_t j,
                                          std::index_sequence<I...>) PARE_LAMBDA_INLINE {
    V w[] = {multiply_add<Arch>(load<Arch>(scores + j + static_cast<std::ptrdiff_t>(I) * n), scale,
                                shift)...};
    exp2_each<Arch>(w);
    put(j, w);
  };
  std::ptrdiff_t j = 0;
  for (; j + weighed_together * n <= count; j += weighed_together * n)
    some(j, std::make_index_sequence<static_cast<std::size_t>(weighed_together)>{});
  for (; j < count; j += static_cast<std::ptrdiff_t>(Least) * n)
    some(j, std::make_index_sequence<Least>{});
}

/// Weights take the place of scores; the sums of each lane.
template <class Arch, bool Exact, class T>
PARE_TILE_INLINE void store_weights(const T* scores, T* weights, std::ptrdiff_t count,
                                    vec<T, Arch> scale, vec<T, Arch> shift, T* sums, T*) noexcept {
  vec<T, Arch> total = broadcast<Arch>(T(0));
  each_weights<Arch, 1>(scores, count, scale, shift,
                        [&]<std::size_t N>(std::ptrdiff_t j, const vec<T, Arch>(&w)[N])
                            PARE_LAMBDA_INLINE {
                              for (std::size_t i = 0; i < N; ++i) {
                                store<Arch>(weights + j, w[i]);
                                total = total + w[i];
                                j += lanes<T, Arch>;
                              }
                            });
  store<Arch>(sums, total);
}

/// Weights go beside scores, rounded; the sums of each lane as they are multiplied by values, and
/// if wanted as they were before. `count` is a multiple of two registers' lanes.
template <class Arch, bool Exact>
PARE_TILE_INLINE void store_weights(const float* scores, bf16* weights, std::ptrdiff_t count,
                                    vec<float, Arch> scale, vec<float, Arch> shift, float* sums,
                                    float* exact_sums) noexcept {
  using V = vec<float, Arch>;
  const V ones = broadcast<Arch>(std::bit_cast<float>(0x3f803f80u));
  V total = broadcast<Arch>(0.0f), exact = total;
  each_weights<Arch, 2>(scores, count, scale, shift,
                        [&]<std::size_t N>(std::ptrdiff_t j, const V(&w)[N]) PARE_LAMBDA_INLINE {
                          for (std::size_t i = 0; i < N; i += 2) {
                            if constexpr (Exact) exact = exact + w[i] + w[i + 1];
                            total = multiply_add_pairs<Arch>(
                                store_rounded<Arch>(weights + j, w[i], w[i + 1]), ones, total);
                            j += 2 * lanes<float, Arch>;
                          }
                        });
  store<Arch>(sums, total);
  if constexpr (Exact) store<Arch>(exact_sums, exact);
}

/// Turns scores [begin, end) of a row into weights 2^(factor s_j - maximum), and leaves their sums;
/// all are 0 in a row that has seen nothing.
template <class Arch, bool Exact, class E, bool Direct, class T>
PARE_TILE_INLINE void weigh_row(TileScratch<E, Direct>& scratch, std::ptrdiff_t row,
                                std::ptrdiff_t begin, std::ptrdiff_t end, T factor, T maximum_now,
                                T* sums, T* exact_sums) noexcept {
  const bool nothing = maximum_now == -std::numeric_limits<T>::infinity();
  const std::ptrdiff_t at = row * row_room<Direct> + begin;
  T* const scores = scratch.scores + at;
  if (is_far(maximum_now)) {
    far_exponents(scores, end - begin, factor, maximum_now);
    factor = T(1);
    maximum_now = T(0);
  }
  const auto weights = [&] {
    if constexpr (std::is_same_v<E, Bf16Pair>)
      return scratch.weights + at;
    else
      return scores;
  }();
  store_weights<Arch, Exact>(static_cast<const T*>(scores), weights, end - begin,
                             broadcast<Arch>(factor),
                             broadcast<Arch>(nothing ? T(0) : -maximum_now), sums, exact_sums);
}

PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
