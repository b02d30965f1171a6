// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The permuted mix of sparse fields: only rows whose own or donor's value is no default.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/feature/fields/detail/exchange.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/fields/sparse_fields.hpp>
#include <pare/feature/leap/detail/mix_plan.hpp>
#include <pare/kernel/column_statistics.hpp>
#include <pare/kernel/mix_fields.hpp>
#include <pare/kernel/streaming.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::feature::detail {

/// Where a row of the mix takes its two values from: entries of x, or none, the default.
struct MixLink {
  static constexpr std::uint32_t none = 0xffffffffu;
  std::uint32_t own = none;
  std::uint32_t donor = none;
};

/// A row to which entry `entry` of x gives its value.
struct GivenRow {
  std::uint32_t row = 0;
  std::uint32_t entry = 0;
};

PARE_ABI_BEGIN

/// Scratch of sort_by_row.
struct RowOrder {
  std::vector<std::uint64_t> bits;      ///< [rows / 64] all 0 between calls
  std::vector<std::uint32_t> entry_of;  ///< [rows]
};

template <class T>
struct SparseScratch {
  std::vector<GivenRow> given;
  RowOrder order;
  std::vector<std::uint32_t> donors, sources;  ///< [rows], or of the entries
  PresenceExchange presence;
  std::vector<std::uint32_t> places;      ///< of a field's entries among its mixed rows
  AlignedBuffer<T> own_rows, donor_rows;  ///< [run of rows]
};

/// Memory that calls share.
template <class T>
struct SparseMemory {
  std::vector<Index> item_begins;
  std::vector<PieceSums> sums;
  std::vector<SparseScratch<T>> scratch;
};

/// Sorts rows that are all different: as bits of a word for every 64 rows, unless most of those
/// would be 0. Comparisons of random rows would be branches that no processor foresees.
inline void sort_by_row(Index rows, RowOrder& order, std::vector<GivenRow>& given) {
  const auto words = static_cast<std::size_t>((rows + 63) / 64);
  if (words > 8 * given.size())
    return std::sort(given.begin(), given.end(),
                     [](const GivenRow& a, const GivenRow& b) { return a.row < b.row; });
  order.bits.resize(words, 0);
  order.entry_of.resize(64 * words);
  for (const GivenRow& g : given) {
    order.bits[g.row / 64] |= std::uint64_t{1} << (g.row % 64);
    order.entry_of[g.row] = g.entry;
  }
  std::size_t count = 0;
  for (std::size_t w = 0; w < words; ++w) {
    for (std::uint64_t left = order.bits[w]; left != 0; left &= left - 1) {
      const auto row =
          static_cast<std::uint32_t>(64 * w) + static_cast<std::uint32_t>(std::countr_zero(left));
      given[count++] = {row, order.entry_of[row]};
    }
    order.bits[w] = 0;
  }
}

/// The rows that entries of field j are given to, rising, where all rows exchange.
template <class B>
void find_given_rows(const B& backend, const Donors& donors, Index j,
                     std::span<const std::uint32_t> active,
                     std::vector<std::uint32_t>& donor_scratch,
                     std::vector<std::uint32_t>& source_scratch, RowOrder& order,
                     std::vector<GivenRow>& given) {
  given.resize(active.size());
  if (donors.cyclic()) {
    // Entries from row r on move to the front, those before it to the back.
    const auto shift = static_cast<std::uint32_t>(donors.shift(j));
    const auto rows = static_cast<std::uint32_t>(donors.rows());
    const auto first = static_cast<std::size_t>(
        std::lower_bound(active.begin(), active.end(), shift) - active.begin());
    for (std::size_t i = 0; i < active.size(); ++i) {
      const std::size_t e = i + first < active.size() ? i + first : i + first - active.size();
      given[i] = {active[e] >= shift ? active[e] - shift : active[e] + (rows - shift),
                  static_cast<std::uint32_t>(e)};
    }
    return;
  }
  const bool drawn = donors.policy() != DonorPolicy::BaseShift && !active.empty();
  if (drawn) {
    donor_scratch.resize(static_cast<std::size_t>(donors.rows()));
    source_scratch.resize(donor_scratch.size());
    donors.fill(backend, j, donor_scratch, source_scratch);
  }
  for (std::size_t e = 0; e < active.size(); ++e) {
    const std::uint32_t row =
        drawn ? source_scratch[active[e]]
              : static_cast<std::uint32_t>(donors.source_of(j, static_cast<Index>(active[e])));
    given[e] = {row, static_cast<std::uint32_t>(e)};
  }
  sort_by_row(donors.rows(), order, given);
}

/// The same where active rows exchange among themselves.
inline void find_rows_given_values(const Donors& donors, Index j,
                                   std::span<const std::uint32_t> active,
                                   std::vector<std::uint32_t>& order,
                                   std::vector<GivenRow>& given) {
  order.resize(active.size());
  given.resize(active.size());
  donors.fill_among(j, order);
  for (std::size_t i = 0; i < active.size(); ++i) given[i] = {active[i], order[i]};
}

/// The same where active rows exchange with others. An entry that does not move is given to its own
/// row.
inline void find_rows_given_presence(const Donors& donors, Index j,
                                     std::span<const std::uint32_t> active,
                                     PresenceExchange& exchange, RowOrder& order,
                                     std::vector<GivenRow>& given) {
  draw_presence(donors, j, active, exchange);
  given.clear();
  for (std::size_t k = 0; k < exchange.rows.size(); ++k)
    given.push_back({exchange.rows[k], exchange.entries[k]});
  if (exchange.entries.size() == active.size()) return;
  std::sort(exchange.entries.begin(), exchange.entries.end());
  for (std::size_t e = 0, k = 0; e < active.size(); ++e) {
    const bool moves = k < exchange.entries.size() && exchange.entries[k] == e;
    if (!moves) given.push_back({active[e], static_cast<std::uint32_t>(e)});
    k += moves ? 1 : 0;
  }
  sort_by_row(donors.rows(), order, given);
}

/// Rows that are active or given a value, rising, and where their values come from. Which of the
/// two comes next is as good as random: it is computed, not branched upon.
inline std::size_t merge_rows(std::span<const std::uint32_t> active,
                              std::span<const GivenRow> given, std::uint32_t* rows,
                              MixLink* links) {
  std::size_t i = 0, k = 0, count = 0;
  for (; i < active.size() && k < given.size(); ++count) {
    const std::uint32_t row = active[i], to = given[k].row;
    const auto own = static_cast<std::uint32_t>(row <= to);
    const auto donor = static_cast<std::uint32_t>(to <= row);
    rows[count] = std::min(row, to);
    // All bits of `none` are set.
    links[count] = {static_cast<std::uint32_t>(i) | (own - 1), given[k].entry | (donor - 1)};
    i += own;
    k += donor;
  }
  for (; i < active.size(); ++i, ++count) {
    rows[count] = active[i];
    links[count] = {static_cast<std::uint32_t>(i), MixLink::none};
  }
  for (; k < given.size(); ++k, ++count) {
    rows[count] = given[k].row;
    links[count] = {MixLink::none, given[k].entry};
  }
  return count;
}

/// Calls f(std::integral_constant) with the width of rows for compilers to turn them into a few
/// moves, or with 0.
template <class F>
PARE_ALWAYS_INLINE void with_width(Index width, const F& f) {
  switch (width) {
    case 1:
      return f(std::integral_constant<Index, 1>{});
    case 2:
      return f(std::integral_constant<Index, 2>{});
    case 4:
      return f(std::integral_constant<Index, 4>{});
    case 8:
      return f(std::integral_constant<Index, 8>{});
    case 16:
      return f(std::integral_constant<Index, 16>{});
    case 32:
      return f(std::integral_constant<Index, 32>{});
    case 64:
      return f(std::integral_constant<Index, 64>{});
    default:
      return f(std::integral_constant<Index, 0>{});
  }
}

/// own_i, donor_i = the rows that links lead to: entries, or the defaults.
template <class T>
void copy_linked_rows(const MixLink* links, Index rows, const T* values, const T* defaults,
                      Index width, T* own, T* donor) {
  with_width(width, [&](auto known) {
    const Index size = known > 0 ? Index{known} : width;
    const T* const tables[] = {values, defaults};
    const auto copy = [&](std::uint32_t entry, T* to) {
      // 1 where there is none. A comparison becomes a branch, which no processor foresees here.
      const std::uint64_t none = (std::uint64_t{entry} + 1) >> 32;
      const T* from = tables[none] + static_cast<Index>(entry & (none - 1)) * size;
      std::memcpy(to, from, static_cast<std::size_t>(size) * sizeof(T));
    };
    for (Index i = 0; i < rows; ++i) {
      copy(links[i].own, own + i * size);
      copy(links[i].donor, donor + i * size);
    }
  });
}

/// Where among the mixed rows those of the field's own entries are, in order, and a place more.
inline void find_own_rows(std::span<const MixLink> links, std::vector<std::uint32_t>& places) {
  places.resize(links.size() + 1);
  std::size_t count = 0;
  for (std::size_t i = 0; i < links.size(); ++i) {
    places[count] = static_cast<std::uint32_t>(i);
    count += links[i].own != MixLink::none ? 1 : 0;
  }
}

/// to_k = gate from_place(k); 0 where gate is.
template <class T>
void scale_rows(const std::uint32_t* places, Index rows, const T* from, T gate, Index width,
                T* to) {
  if (gate == T(0)) return static_cast<void>(std::fill_n(to, rows * width, T(0)));
  with_width(width, [&](auto known) {
    const Index size = known > 0 ? Index{known} : width;
    for (Index k = 0; k < rows; ++k) {
      const T* row = from + static_cast<Index>(places[k]) * size;
      for (Index c = 0; c < size; ++c) to[k * size + c] = gate * row[c];
    }
  });
}

/// What both passes share: fields in items, entries or defaults in runs of rows.
template <class B, class T>
class SparsePass {
 public:
  SparsePass(const B& backend, const SparseFields<T>& x, std::span<const double> gates,
             SparseMemory<T>& memory)
      : backend_(backend), x_(x), gates_(gates), memory_(memory) {}

  /// mixed has room for all rows; links [capacity] is filled beside it.
  void forward(const Donors& donors, SparseExchange exchange, SparseFields<T>& mixed,
               std::span<const Index> begins, std::vector<MixLink>& links) {
    Index scalars = 0;
    for (Index j = 0; j < x_.layout().fields(); ++j)
      scalars += 2 * x_.entries(j) * x_.layout().width(j);
    const bool streaming = scalars * Index{sizeof(T)} >= kernel::streamed_bytes;
    for_fields([&](Index j, SparseScratch<T>& s) {
      const auto active = x_.rows_of(j);
      if (exchange == SparseExchange::Rows)
        find_given_rows(backend_, donors, j, active, s.donors, s.sources, s.order, s.given);
      else if (exchange == SparseExchange::Values)
        find_rows_given_values(donors, j, active, s.donors, s.given);
      else
        find_rows_given_presence(donors, j, active, s.presence, s.order, s.given);
      const Index begin = begins[static_cast<std::size_t>(j)];
      MixLink* own_links = links.data() + begin;
      const std::size_t count =
          merge_rows(active, s.given, SparseEntries<T>::rows(mixed, j), own_links);
      SparseEntries<T>::set_count(mixed, j, count);
      const T gate = static_cast<T>(gates_[static_cast<std::size_t>(j)]);
      const T rest = static_cast<T>(1 - gates_[static_cast<std::size_t>(j)]);
      T* out = mixed.values(j).data;
      const bool streams = streaming && static_cast<Index>(count) * x_.layout().width(j) >= 256;
      for_runs(
          j, {own_links, count}, s, [&](const T* x, const T* t, Index first, Index size, Index) {
            launch(backend_,
                   kernel::MixForward<T>{x, {.first = t}, out + first, size, gate, rest, streams});
          });
      if (streams) launch(backend_, kernel::FinishStreaming{});
    });
  }

  /// Whether two batches have the same entries.
  bool same_entries(const SparseFields<T>& a, const SparseFields<T>& b) {
    if (a.rows() != b.rows() || !(a.layout() == b.layout())) return false;
    std::atomic<bool> same{true};
    for_fields([&](Index j, SparseScratch<T>&) {
      const auto rows = a.rows_of(j), others = b.rows_of(j);
      if (!std::equal(rows.begin(), rows.end(), others.begin(), others.end()))
        same.store(false, std::memory_order_relaxed);
    });
    return same;
  }

  /// Sums of field j go to memory.sums[j].
  void backward(const SparseFields<T>& grad_mixed, std::span<const Index> begins,
                const std::vector<MixLink>& links, bool live, bool norms, SparseFields<T>* grad_x) {
    memory_.sums.assign(static_cast<std::size_t>(x_.layout().fields()), {});
    for_fields([&](Index j, SparseScratch<T>& s) {
      const MixLink* own_links = links.data() + begins[static_cast<std::size_t>(j)];
      const auto count = static_cast<std::size_t>(grad_mixed.entries(j));
      const T* g = grad_mixed.values(j).data;
      const Index width = x_.layout().width(j);
      double* sums = memory_.sums[static_cast<std::size_t>(j)].values;
      for_runs(
          j, {own_links, count}, s,
          [&](const T* x, const T* t, Index first, Index size, Index rows) {
            launch(
                backend_,
                kernel::MixBackward<T>{
                    x, {.first = t}, g + first, nullptr, nullptr, size, T(1), T(0), false, sums});
            if (norms && width > 1)
              launch(backend_,
                     kernel::AddRowDistances<T>{x, t, rows, width, &sums[PieceSums::norm]});
          });
      if (grad_x != nullptr) write_gradient(j, {own_links, count}, g, live, s, *grad_x);
    });
  }

 private:
  /// Scalars of an item, and of a run.
  static constexpr Index item_size = Index{1} << 14, run_size = 1024;

  template <class F>
  void for_fields(const F& f) {
    auto& begins = memory_.item_begins;
    begins.assign(1, 0);
    Index size = 0;
    for (Index j = 0; j < x_.layout().fields(); ++j) {
      // A field without entries costs something too.
      size += 16 + 2 * x_.entries(j) * (2 + x_.layout().width(j));
      if (size < item_size && j + 1 < x_.layout().fields()) continue;
      begins.push_back(j + 1);
      size = 0;
    }
    const auto items = static_cast<Index>(begins.size()) - 1;
    memory_.scratch.resize(std::max(
        memory_.scratch.size(), static_cast<std::size_t>(worker_count(backend_.executor, items))));
    parallel_for(backend_.executor, items, [&](Index item, int worker) {
      const auto i = static_cast<std::size_t>(item);
      for (Index j = begins[i]; j < begins[i + 1]; ++j)
        f(j, memory_.scratch[static_cast<std::size_t>(worker)]);
    });
  }

  /// Calls f(x, t, first scalar, scalars, rows) for runs of rows, their values made contiguous.
  template <class F>
  void for_runs(Index j, std::span<const MixLink> links, SparseScratch<T>& s, const F& f) {
    const Index width = x_.layout().width(j), most = std::max(Index{1}, run_size / width);
    const T* values = x_.values(j).data;
    const T* defaults = x_.defaults().data() + x_.layout().offset(j);
    T* own = s.own_rows.resize(static_cast<std::size_t>(most * width));
    T* donor = s.donor_rows.resize(static_cast<std::size_t>(most * width));
    const auto count = static_cast<Index>(links.size());
    for (Index b = 0; b < count; b += most) {
      const Index rows = std::min(most, count - b);
      copy_linked_rows(links.data() + b, rows, values, defaults, width, own, donor);
      f(static_cast<const T*>(own), static_cast<const T*>(donor), b * width, rows * width, rows);
    }
  }

  /// g G at the entries, and rest G of the row that each was given to.
  void write_gradient(Index j, std::span<const MixLink> links, const T* g, bool live,
                      SparseScratch<T>& s, SparseFields<T>& grad_x) const {
    const double exact = gates_[static_cast<std::size_t>(j)];
    const T gate = static_cast<T>(exact), rest = static_cast<T>(1 - exact);
    const Index width = x_.layout().width(j);
    T* out = grad_x.values(j).data;
    find_own_rows(links, s.places);
    scale_rows(s.places.data(), grad_x.entries(j), g, gate, width, out);
    if (!live || rest == T(0)) return;
    for (std::size_t i = 0; i < links.size(); ++i) {
      if (links[i].donor == MixLink::none) continue;
      T* to = out + static_cast<Index>(links[i].donor) * width;
      const T* from = g + static_cast<Index>(i) * width;
      for (Index c = 0; c < width; ++c) to[c] += rest * from[c];
    }
  }

  const B& backend_;
  const SparseFields<T>& x_;
  std::span<const double> gates_;
  SparseMemory<T>& memory_;
};

PARE_ABI_END
}  // namespace pare::feature::detail
