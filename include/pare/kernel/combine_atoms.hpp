// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sums of a few entries of a table for each output, y_o = sum_k value_ok table[place_ok]: the
/// sparse half of a dense times sparse weight.
///
/// Outputs lie in groups of 16, their k-th entries side by side, so that a register holds the same
/// entry of several outputs and no lanes are added up. What binds is the look-up. On Zen 5 an entry
/// that is gathered takes 0.29 ns, whatever the table; two registers are looked up by one
/// permutation, so that entries of 64, 128 and 256 floats take 0.04, 0.07 and 0.12 ns, and memory
/// binds up to 128. The other way round, adding x_i value_ik to the places of an input, takes
/// 0.52 ns: each addition waits for the one before to the same place.
///
/// Of several rows, the entries of a place lie side by side, and a value multiplies 4 registers of
/// them: the multiply-adds bind, or two loads for each of them.
///
/// The entries of an output are added in their order in both, each by one multiply-add: the same
/// bits.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/move_rows.hpp>
#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <type_traits>

namespace pare::kernel {

/// Outputs that lie side by side.
inline constexpr std::ptrdiff_t code_group = 16;
/// A table of up to this many floats may be held in registers: that many can be read.
inline constexpr std::ptrdiff_t held_atoms = 256;
/// Bytes from the values and places that are multiplied to those that are fetched: codes of a layer
/// of 1536 x 576 take 9.8 us from memory without, and 9.2, 6.1 and 4.4 with 1, 2 and 4 KiB.
inline constexpr std::ptrdiff_t code_bytes_ahead = 4096;

/// y_o = sum_k values[o / 16][k][o % 16] atoms[places[o / 16][k][o % 16]].
template <StorageScalar S, class I>
struct CombineAtoms {
  const S* values = nullptr;            ///< [groups x nonzeros x 16]
  const I* places = nullptr;            ///< [groups x nonzeros x 16], each below `number`
  const compute_t<S>* atoms = nullptr;  ///< [number], of floats max(number, held_atoms) readable
  std::ptrdiff_t number = 0;
  std::ptrdiff_t nonzeros = 0;
  std::ptrdiff_t outputs = 0;  ///< the last group may have fewer than 16
  compute_t<S>* y = nullptr;   ///< [outputs]
};

/// Rows whose entries lie side by side in a panel.
inline constexpr std::ptrdiff_t combined_rows = 64;

/// y_ro = sum_k values_ok panel[places_ok][r], for rows r.
template <StorageScalar S, class I>
struct CombinePanel {
  const S* values = nullptr;
  const I* places = nullptr;
  const compute_t<S>* panel = nullptr;  ///< [atoms x width]
  std::ptrdiff_t width = 0;             ///< a multiple of 16, at most combined_rows
  std::ptrdiff_t rows = 0;              ///< at most `width`
  std::ptrdiff_t nonzeros = 0;
  std::ptrdiff_t outputs = 0;
  compute_t<S>* y = nullptr;  ///< [rows x outputs]
  std::ptrdiff_t y_stride = 0;
};

namespace detail {
PARE_ABI_BEGIN

template <class Arch, class T>
struct GatheredTable {
  const T* atoms;

  template <class I>
  PARE_ALWAYS_INLINE vec<T, Arch> at(const I* places) const noexcept {
    return look_up<Arch>(atoms, places);
  }
};

template <class Arch, int Entries>
struct HeldTable {
  decltype(hold_table<Arch, Entries>(static_cast<const float*>(nullptr))) table;

  explicit HeldTable(const float* atoms) noexcept : table(hold_table<Arch, Entries>(atoms)) {}
  template <class I>
  PARE_ALWAYS_INLINE vec<float, Arch> at(const I* places) const noexcept {
    return look_up_held<Arch>(table, places);
  }
};

/// Lanes [lane, lane + lanes) of `Groups` groups from `first` on: two sums run side by side, since
/// a multiply-add waits for the one before it.
template <class Arch, std::ptrdiff_t Groups, class Table, class S, class I>
PARE_TILE_INLINE void combine_lanes(const CombineAtoms<S, I>& a, const Table& table,
                                    std::ptrdiff_t first, std::ptrdiff_t lane) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t size = a.nonzeros * code_group;
  const S* const values = a.values + first * size + lane;
  const I* const places = a.places + first * size + lane;
  const bool fetches = lane == 0;
  vec<T, Arch> sums[static_cast<std::size_t>(Groups)];
  for (auto& sum : sums) sum = broadcast<Arch>(T(0));
  for (std::ptrdiff_t e = 0; e < size; e += code_group)
    for (std::ptrdiff_t g = 0; g < Groups; ++g) {
      if (fetches) {
        prefetch(values + g * size + e, code_bytes_ahead);
        prefetch(places + g * size + e, code_bytes_ahead);
      }
      sums[g] = multiply_add<Arch>(load_widened<Arch>(values + g * size + e),
                                   table.at(places + g * size + e), sums[g]);
    }
  for (std::ptrdiff_t g = 0; g < Groups; ++g) {
    const std::ptrdiff_t output = (first + g) * code_group + lane;
    if (a.outputs - output >= n)
      store<Arch>(a.y + output, sums[g]);
    else if (a.outputs > output)
      store_first<Arch>(a.y + output, a.outputs - output, sums[g]);
  }
}

template <class Arch, class Table, class S, class I>
PARE_NOINLINE void combine_groups(const CombineAtoms<S, I>& a, const Table& table) noexcept {
  constexpr std::ptrdiff_t n = lanes<compute_t<S>, Arch>;
  static_assert(code_group % n == 0);
  const std::ptrdiff_t groups = (a.outputs + code_group - 1) / code_group;
  std::ptrdiff_t g = 0;
  for (; g + 2 <= groups; g += 2)
    for (std::ptrdiff_t lane = 0; lane < code_group; lane += n)
      combine_lanes<Arch, 2>(a, table, g, lane);
  for (; g < groups; ++g)
    for (std::ptrdiff_t lane = 0; lane < code_group; lane += n)
      combine_lanes<Arch, 1>(a, table, g, lane);
}

/// Entries whose values are widened at a time: 2 KiB of floats.
inline constexpr std::ptrdiff_t widened_entries = 32;

/// One group of outputs and all rows of a panel.
template <class Arch, class S, class I>
class PanelGroup {
  using T = compute_t<S>;
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static constexpr std::ptrdiff_t registers = 4;

 public:
  PanelGroup(const CombinePanel<S, I>& a, std::ptrdiff_t group) noexcept
      : a_(a),
        values_(a.values + group * a.nonzeros * code_group),
        places_(a.places + group * a.nonzeros * code_group),
        outputs_(a.outputs - group * code_group < code_group ? a.outputs - group * code_group
                                                             : code_group) {}

  void multiply(T* y) noexcept {
    for (std::ptrdiff_t k = 0; k < a_.nonzeros; k += widened_entries) {
      const std::ptrdiff_t count =
          a_.nonzeros - k < widened_entries ? a_.nonzeros - k : widened_entries;
      for (std::ptrdiff_t i = 0; i < count * code_group; i += n) {
        prefetch(values_ + k * code_group + i, code_bytes_ahead);
        prefetch(places_ + k * code_group + i, code_bytes_ahead);
        store<Arch>(widened_ + i, load_widened<Arch>(values_ + k * code_group + i));
      }
      for (std::ptrdiff_t o = 0; o < outputs_; ++o)
        for (std::ptrdiff_t row = 0; row < a_.rows; row += registers * n) add(o, row, k, count);
    }
    turn<Arch, false>(static_cast<const T*>(sums_), combined_rows, outputs_, a_.rows, y,
                      a_.y_stride);
  }

 private:
  /// Entries [k, k + count) of output o, and up to 4 registers of rows.
  void add(std::ptrdiff_t o, std::ptrdiff_t row, std::ptrdiff_t k, std::ptrdiff_t count) noexcept {
    const std::ptrdiff_t whole = (a_.rows - row + n - 1) / n;
    if (whole >= 4)
      add_registers<4>(o, row, k, count);
    else if (whole == 3)
      add_registers<3>(o, row, k, count);
    else if (whole == 2)
      add_registers<2>(o, row, k, count);
    else
      add_registers<1>(o, row, k, count);
  }

  template <std::ptrdiff_t Registers>
  PARE_TILE_INLINE void add_registers(std::ptrdiff_t o, std::ptrdiff_t row, std::ptrdiff_t k,
                                      std::ptrdiff_t count) noexcept {
    T* const to = sums_ + o * combined_rows + row;
    vec<T, Arch> sums[static_cast<std::size_t>(Registers)];
    for (std::ptrdiff_t i = 0; i < Registers; ++i)
      sums[i] = k == 0 ? broadcast<Arch>(T(0)) : load<Arch>(static_cast<const T*>(to) + i * n);
    const I* const places = places_ + k * code_group + o;
    for (std::ptrdiff_t j = 0; j < count; ++j) {
      const T* const from =
          a_.panel + static_cast<std::ptrdiff_t>(places[j * code_group]) * a_.width + row;
      const vec<T, Arch> value = broadcast<Arch>(widened_[j * code_group + o]);
      for (std::ptrdiff_t i = 0; i < Registers; ++i)
        sums[i] = multiply_add<Arch>(value, load<Arch>(from + i * n), sums[i]);
    }
    for (std::ptrdiff_t i = 0; i < Registers; ++i) store<Arch>(to + i * n, sums[i]);
  }

  const CombinePanel<S, I>& a_;
  const S* values_;
  const I* places_;
  std::ptrdiff_t outputs_;
  alignas(64) T widened_[static_cast<std::size_t>(widened_entries * code_group)];
  alignas(64) T sums_[static_cast<std::size_t>(code_group * combined_rows)];
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S, class I>
void run_kernel(Arch, const CombineAtoms<S, I>& a) noexcept {
  if constexpr (sizeof(I) == 1 && std::is_same_v<compute_t<S>, float> && holds_tables<Arch>) {
    if (a.number <= 64)
      return detail::combine_groups<Arch>(a, detail::HeldTable<Arch, 64>(a.atoms));
    if (a.number <= 128)
      return detail::combine_groups<Arch>(a, detail::HeldTable<Arch, 128>(a.atoms));
    if (a.number <= held_atoms)
      return detail::combine_groups<Arch>(a, detail::HeldTable<Arch, held_atoms>(a.atoms));
  }
  detail::combine_groups<Arch>(a, detail::GatheredTable<Arch, compute_t<S>>{a.atoms});
}

template <class Arch, class S, class I>
void run_kernel(Arch, const CombinePanel<S, I>& a) noexcept {
  for (std::ptrdiff_t o = 0; o < a.outputs; o += code_group)
    detail::PanelGroup<Arch, S, I>(a, o / code_group).multiply(a.y + o);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
