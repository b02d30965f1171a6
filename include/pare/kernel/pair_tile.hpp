// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Tiles of sums of rows of x and outputs of a weight, both of bf16 and multiplied in pairs along
/// the inputs, which weight_pairs.hpp is made of.
///
/// Register budget of the full tile: 6 rows x 4 outputs of sums, 4 of weights, 1 of x = 29 of 32.
/// Of each step 10 registers are loaded for 24 products.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/direct_product.hpp>
#include <pare/kernel/gemm.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

namespace pare::kernel {

/// Pairs that blocks of inputs, and so inputs, are a multiple of.
inline constexpr std::ptrdiff_t pair_step = 32;

namespace detail {
PARE_ABI_BEGIN

/// Pairs of a cache line.
inline constexpr std::ptrdiff_t pairs_of_line = 16;
/// Steps of a block at most: 768 inputs, of which 24 rows are 36 KiB. Longer blocks have fewer sums
/// to add up, and room for fewer rows in L1.
inline constexpr std::ptrdiff_t pair_block_steps = 12;
/// The blocks that inputs are summed in, whatever the rows and outputs: as few as can be, or up to
/// two more if those are of one length, and as even as steps allow. A tile fetches as many lines as
/// it multiplies, and so all of the next one if blocks are alike.
class PairBlocks {
 public:
  explicit PairBlocks(std::ptrdiff_t inputs) noexcept
      : steps_(inputs / pair_step), count_((steps_ + pair_block_steps - 1) / pair_block_steps) {
    for (std::ptrdiff_t count = count_; count > 0 && count <= count_ + 2; ++count)
      if (steps_ % count == 0) {
        count_ = count;
        break;
      }
  }
  std::ptrdiff_t count() const noexcept { return count_; }
  /// The first pair of a block.
  std::ptrdiff_t begin(std::ptrdiff_t block) const noexcept {
    return steps_ * block / count_ * pair_step;
  }
  /// Pairs of the longest.
  std::ptrdiff_t most() const noexcept { return (steps_ + count_ - 1) / count_ * pair_step; }

 private:
  std::ptrdiff_t steps_, count_;
};

/// Some rows of x times some outputs over a block of inputs, and what is fetched meanwhile.
struct PairTile {
  const Bf16Pair* weights = nullptr;
  std::ptrdiff_t weight_stride = 0;
  const Bf16Pair* x = nullptr;
  std::ptrdiff_t x_stride = 0;
  std::ptrdiff_t inputs = 0;
  float* totals = nullptr;  ///< [rows x outputs]
  std::ptrdiff_t totals_stride = 0;
  bool adds = false;  ///< totals += rather than =

  /// Beside each register, lines `fetched_next` bytes apart are fetched, beside the first those
  /// from `fetched_from` bytes behind `fetched` on, and `fetched_step` bytes further at each
  /// register; behind `fetched_later` the same into L2.
  const void *fetched = nullptr, *fetched_later = nullptr;
  std::ptrdiff_t fetched_from = 0, fetched_step = 0, fetched_next = 0;
};

/// Sums of `Rows` rows and `Outputs` outputs.
template <class Arch, int Rows, int Outputs>
struct PairSums {
  using Tile = RegisterTile<float, Arch, Rows, Outputs>;

  /// Those of a tile, while `Fetches` lines a register are fetched.
  template <int Fetches, bool Later>
  PARE_TILE_INLINE static Tile run(const PairTile& call) noexcept {
    constexpr std::ptrdiff_t n = lanes<float, Arch>;
    Tile tile;
    tile.clear();
    const std::ptrdiff_t w_stride = call.weight_stride, x_stride = call.x_stride;
    // Three rows from an address each, at once and twice a stride: others would want more registers
    // than there are.
    const Bf16Pair *w = call.weights, *w_behind = renewed(w + (Outputs > 2 ? 2 * w_stride : 0));
    const Bf16Pair *x = call.x, *x_behind = renewed(x + (Rows > 3 ? 3 * x_stride : 0));
    const void *const fetched = call.fetched, *const later = call.fetched_later;
    std::ptrdiff_t from = call.fetched_from;
    const std::ptrdiff_t step = call.fetched_step, next = call.fetched_next;
    for (const Bf16Pair* const end = x + call.inputs; x != end;) {
      for (std::ptrdiff_t i = 0; i < Fetches; ++i) {
        prefetch(fetched, from + i * next);
        if constexpr (Later) prefetch<2>(later, from + i * next);
      }
      from += step;
      [&]<std::size_t... O>(std::index_sequence<O...>) PARE_LAMBDA_INLINE {
        const vec<float, Arch> weights[] = {held(load_elements<Arch>(
            O < 2 ? w + static_cast<std::ptrdiff_t>(O) * w_stride
                  : w_behind + static_cast<std::ptrdiff_t>(O - 2) * w_stride))...};
        RegisterTile<float, Arch, Rows, 1>::each([&](int r, int) PARE_LAMBDA_INLINE {
          const vec<float, Arch> value =
              held(load_elements<Arch>(r < 3 ? x + r * x_stride : x_behind + (r - 3) * x_stride));
          ((tile.sum[r][O] = multiply_add_pairs<Arch>(value, weights[O], tile.sum[r][O])), ...);
        });
      }(std::make_index_sequence<static_cast<std::size_t>(Outputs)>{});
      w += n, w_behind += n, x += n, x_behind += n;
    }
    return tile;
  }
};

/// The totals of `Count` sums of a tile from `From` on, which are one register's or a part of it.
template <class Arch, std::size_t From, std::size_t Count, int Outputs, class Tile>
PARE_TILE_INLINE void add_up_lanes(const Tile& tile, float* totals) noexcept {
  constexpr std::size_t n = lanes<float, Arch>, last = std::size_t(Tile::rows) * Outputs - 1;
  constexpr std::size_t stride = n / Count;
  [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
    vec<float, Arch> of_each[] = {
        tile.sum[std::min(From + I, last) / Outputs][std::min(From + I, last) % Outputs]...};
    if constexpr (Count == n) {
      store<Arch>(totals + From, sum_lanes_of_each<Arch>(of_each));
    } else {
      alignas(64) float apart[n];
      const auto add = [](const auto& a, const auto& b) PARE_LAMBDA_INLINE { return a + b; };
      store<Arch>(static_cast<float*>(apart), fold_lanes_of_each<Arch>(of_each, add));
      ((totals[From + I] = apart[I * stride]), ...);
    }
  }(std::make_index_sequence<Count>{});
}

/// The same for all of a tile: of whole registers of sums, then of 8 and of 4, since lanes of fewer
/// sums are added up in fewer instructions, and in the same order.
template <class Arch, int Outputs, std::size_t From = 0, class Tile>
PARE_TILE_INLINE void add_up_tile(const Tile& tile, float* totals) noexcept {
  constexpr std::size_t n = lanes<float, Arch>, left = std::size_t(Tile::rows) * Outputs - From;
  constexpr std::size_t half = left > 4 && n > 8 ? 8 : std::min<std::size_t>(n, 4);
  constexpr std::size_t count = left >= n || left > 8 ? n : half;
  add_up_lanes<Arch, From, count, Outputs>(tile, totals);
  if constexpr (left > count) add_up_tile<Arch, Outputs, From + count>(tile, totals);
}

/// Totals of `Rows` rows and `Outputs` outputs, while `Fetches` lines a register are fetched.
template <class Arch, int Rows, int Outputs, int Fetches, bool Later>
void add_pair_tile(const PairTile& call) noexcept {
  alignas(64) float totals[static_cast<std::size_t>((Rows * Outputs + 15) / 16 * 16)];
  add_up_tile<Arch, Outputs>(PairSums<Arch, Rows, Outputs>::template run<Fetches, Later>(call),
                             totals);
  float* const first = call.totals;
  const std::ptrdiff_t stride = call.totals_stride;
  const bool adds = call.adds;
  for (std::ptrdiff_t r = 0; r < Rows; ++r)
    if (adds)
      for (int o = 0; o < Outputs; ++o) first[r * stride + o] += totals[r * Outputs + o];
    else
      std::memcpy(first + r * stride, totals + r * Outputs, sizeof(float) * std::size_t{Outputs});
}

/// The same for `rows` rows, 3 to 6, and 4 outputs, while `fetches` lines a register are fetched: 4
/// from the next tile alone, fewer also from a later one.
template <class Arch>
void add_pair_rows(int rows, std::ptrdiff_t fetches, const PairTile& call) noexcept {
  using Function = void(const PairTile&) noexcept;
  static constexpr Function* functions[][4] = {
      {add_pair_tile<Arch, 3, 4, 0, false>, add_pair_tile<Arch, 3, 4, 1, true>,
       add_pair_tile<Arch, 3, 4, 2, true>, add_pair_tile<Arch, 3, 4, 4, false>},
      {add_pair_tile<Arch, 4, 4, 0, false>, add_pair_tile<Arch, 4, 4, 1, true>,
       add_pair_tile<Arch, 4, 4, 2, true>, add_pair_tile<Arch, 4, 4, 4, false>},
      {add_pair_tile<Arch, 5, 4, 0, false>, add_pair_tile<Arch, 5, 4, 1, true>,
       add_pair_tile<Arch, 5, 4, 2, true>, add_pair_tile<Arch, 5, 4, 4, false>},
      {add_pair_tile<Arch, 6, 4, 0, false>, add_pair_tile<Arch, 6, 4, 1, true>,
       add_pair_tile<Arch, 6, 4, 2, true>, add_pair_tile<Arch, 6, 4, 4, false>}};
  functions[rows - 3][fetches < 4 ? fetches : 3](call);
}

PARE_ABI_END
}  // namespace detail
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
