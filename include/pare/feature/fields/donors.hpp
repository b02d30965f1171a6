// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Donors: the row of the batch from which a field of another row takes its permuted value.
///
/// ```cpp
/// const Donors donors(DonorPolicy::BaseShift, seed, step, rows, layout);
/// x_permuted(b, j) = x(donors.donor(j, b), j);
/// ```
///
/// The donors of a field are a permutation of the rows, a function of (seed, step, group of the
/// field) alone. Fields of one group (FieldLayout::group) share it.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/permutation.hpp>
#include <pare/core/random.hpp>
#include <pare/core/random_words.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/kernel/shuffle.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace pare::feature {

/// How donors are drawn. With B rows:
enum class DonorPolicy {
  /// donor = (b + r_j) mod B with r_j in [1, B): streams through memory. Only for rows in random
  /// order: rows sorted by user or time get their neighbours, and the divergence shrinks.
  Shift,
  /// donor = P[(P^-1[b] + r_j) mod B] with one random order P of the rows a step: any order of rows
  /// will do. Draws two arrays of B numbers, and one number per field.
  BaseShift,
  /// A uniform permutation for each field, in which a row may be its own donor. What the released
  /// code of LeAP does. Draws B random numbers per field and call.
  Uniform,
  /// A uniform cycle through all rows for each field (Sattolo's algorithm): no row is its own
  /// donor. Cost as Uniform.
  Derangement,
};

/// Which rows of a field on sparse storage exchange what they hold (mix_sparse.hpp). Active rows
/// are those that are not at the default. Each choice asks another question, so scores under one
/// must not be ranked together with scores under another.
enum class SparseExchange {
  /// Any: what are presence and value worth together? The same as on a dense batch.
  Rows,
  /// The active rows among themselves: what is the value worth where there is one?
  Values,
  /// As many active rows as can with as many rows at the default: every row that changes gains or
  /// loses its entry, however rare entries are.
  Presence,
};

PARE_ABI_BEGIN

/// \throws std::invalid_argument if it is none of the enumerators
inline void validate(const char* function, DonorPolicy policy) {
  check_enumerator(function, "policy", policy, DonorPolicy::Derangement);
}
/// \overload
inline void validate(const char* function, SparseExchange exchange) {
  check_enumerator(function, "exchange", exchange, SparseExchange::Presence);
}

/// The donors of one step.
///
/// The shifts r_j of the first B - 1 groups are all different, as are those of the next B - 1, and
/// so on, each run in a random order of its own. With more groups than B - 1, some share a shift
/// and so their donors: what such fields say together survives the permutation.
class Donors {
 public:
  /// \param seed, step of the random numbers: the same two give the same donors
  /// \param rows       B, at least 2 (a row alone has no donor), below 2^32
  /// \param layout     the fields and their groups
  /// \throws std::invalid_argument if rows are out of range, the layout has no field, or the policy
  ///         is none of the enumerators
  /// Cost and memory: those of the policy.
  Donors(DonorPolicy policy, std::uint64_t seed, std::uint64_t step, Index rows, FieldLayout layout)
      : policy_(policy), seed_(seed), rows_(rows), layout_(std::move(layout)) {
    validate("feature::Donors", policy);
    check_shape("feature::Donors");
    draw(step);
  }

  /// Shifts of the caller's own, shift 0 being no permutation at all.
  /// \param shifts [fields] in [0, rows), the same within a group
  /// \throws std::invalid_argument if a shift is out of range, shifts of a group or their number
  ///         differ, or rows and layout are not as above
  static Donors from_shifts(Index rows, FieldLayout layout, std::span<const Index> shifts) {
    constexpr const char* function = "feature::Donors::from_shifts";
    Donors donors(rows, std::move(layout));
    donors.check_shape(function);
    const Index fields = donors.layout_.fields();
    check(static_cast<Index>(shifts.size()) == fields, function, "shifts", shifts.size(), fields);
    donors.shifts_.assign(shifts.size(), unset);
    for (Index j = 0; j < fields; ++j) {
      const Index shift = shifts[static_cast<std::size_t>(j)];
      check(shift >= 0 && shift < rows, function, "shifts", shift,
            "shifts in [0, " + std::to_string(rows) + ")");
      std::uint32_t& of_group = donors.shifts_[donors.group_of(j)];
      check(of_group == unset || static_cast<Index>(of_group) == shift, function, "shifts", shift,
            "the same shift for all fields of a group");
      of_group = static_cast<std::uint32_t>(shift);
    }
    return donors;
  }

  /// The donors of another step, in the same memory. Those of `from_shifts` are drawn as
  /// DonorPolicy::Shift does, with the seed 0.
  /// Cost: rows and fields; Uniform and Derangement draw when they are asked.
  void draw(std::uint64_t step) {
    step_ = step;
    if (policy_ == DonorPolicy::Shift || policy_ == DonorPolicy::BaseShift) draw_shifts();
    if (policy_ == DonorPolicy::BaseShift) draw_base();
  }

  DonorPolicy policy() const { return policy_; }
  Index rows() const { return rows_; }
  const FieldLayout& layout() const { return layout_; }

  /// Whether the donor of row b is (b + shift(j)) mod rows.
  bool cyclic() const { return policy_ == DonorPolicy::Shift; }

  /// r_j of Shift and BaseShift.
  /// \throws std::invalid_argument with another policy, or unless j is a field
  Index shift(Index j) const {
    check(!shifts_.empty(), "feature::Donors::shift", "policy", "one without shifts",
          "Shift or BaseShift");
    return static_cast<Index>(shifts_[group_of(j)]);
  }

  /// The row that gives field j to row b. Cost: rows for Uniform and Derangement; `fill` and
  /// `permutation` compute all donors of a field at once.
  /// \throws std::invalid_argument unless j is a field and b a row, as source_of
  Index donor(Index j, Index b) const {
    check_row("feature::Donors::donor", b);
    if (policy_ == DonorPolicy::Shift) return (b + shift(j)) % rows_;
    if (policy_ == DonorPolicy::BaseShift) return at(base_, at(place_, b) + shift(j));
    return static_cast<Index>(permutation(j)[b]);
  }

  /// The row that takes field j of row b: source_of(j, donor(j, b)) == b. Cost as donor.
  Index source_of(Index j, Index b) const {
    check_row("feature::Donors::source_of", b);
    if (policy_ == DonorPolicy::Shift) return (b + rows_ - shift(j)) % rows_;
    if (policy_ == DonorPolicy::BaseShift) return at(base_, at(place_, b) + rows_ - shift(j));
    return static_cast<Index>(permutation(j).inverse()[b]);
  }

  /// donors[b] = donor(j, b), and sources[b] = source_of(j, b) unless `sources` is empty.
  /// \param donors, sources [rows]
  /// \throws std::invalid_argument unless they are, and j is a field
  /// Cost: rows.
  void fill(Index j, std::span<std::uint32_t> donors, std::span<std::uint32_t> sources = {}) const {
    check_lists(donors, sources);
    switch (policy_) {
      case DonorPolicy::Shift:
        fill_cyclic(shift(j), donors);
        if (!sources.empty()) fill_cyclic(rows_ - shift(j), sources);
        return;
      case DonorPolicy::BaseShift:
        fill_from_base(shift(j), donors);
        if (!sources.empty()) fill_from_base(rows_ - shift(j), sources);
        return;
      case DonorPolicy::Uniform:
      case DonorPolicy::Derangement:
        shuffle(permutation_key(j), policy_ == DonorPolicy::Derangement, donors);
        if (!sources.empty()) invert(donors, sources);
    }
  }

  /// The same, permutations drawn by the kernels of a backend. Cost: rows.
  template <KernelBackend B>
  void fill(const B& backend, Index j, std::span<std::uint32_t> donors,
            std::span<std::uint32_t> sources = {}) const {
    if (policy_ != DonorPolicy::Uniform && policy_ != DonorPolicy::Derangement)
      return fill(j, donors, sources);
    check_lists(donors, sources);
    const PhiloxKey key = permutation_key(j);
    launch(backend, kernel::Shuffle{donors.data(), rows_, key.k0, key.k1,
                                    policy_ == DonorPolicy::Derangement});
    if (!sources.empty()) invert(donors, sources);
  }

  /// order = a permutation of [0, order.size()) by the policy, for rows of field j that exchange
  /// among themselves; a row alone takes from itself. BaseShift draws a cycle, as Derangement does.
  void fill_among(Index j, std::span<std::uint32_t> order) const {
    const auto size = static_cast<Index>(order.size());
    if (policy_ != DonorPolicy::Shift)
      return shuffle(key(j, RandomPurpose::Values), policy_ != DonorPolicy::Uniform, order);
    const Index by = shift(j);
    if (size > 0) fill_cyclic(by == 0 || size < 2 ? 0 : 1 + (by - 1) % (size - 1), order);
  }

  /// Random words of field j's group for draws of another kind.
  WordStream words(Index j, RandomPurpose purpose) const { return WordStream(key(j, purpose)); }

  /// All donors of field j; gathering rows with it permutes them.
  Permutation permutation(Index j) const {
    std::vector<std::uint32_t> donors(static_cast<std::size_t>(rows_));
    fill(j, donors);
    return Permutation(std::move(donors));
  }

 private:
  static constexpr std::uint32_t unset = 0xffffffffu;

  Donors(Index rows, FieldLayout layout)
      : policy_(DonorPolicy::Shift), rows_(rows), layout_(std::move(layout)) {}

  void check_shape(const char* function) const {
    check(layout_.fields() >= 1, function, "layout", "no field", "at least one");
    check(layout_.fields() < Index{unset}, function, "layout", layout_.fields(),
          "fewer than 2^32 - 1 fields");
    check(rows_ >= 2 && rows_ < Index{unset}, function, "rows", rows_,
          "at least 2 and below 2^32 - 1");
  }

  void check_row(const char* function, Index b) const {
    check(b >= 0 && b < rows_, function, "b", b, "a row of the batch");
  }

  void check_lists(std::span<std::uint32_t> donors, std::span<std::uint32_t> sources) const {
    constexpr const char* function = "feature::Donors::fill";
    const auto rows = static_cast<std::size_t>(rows_);
    check(donors.size() == rows, function, "donors", donors.size(), rows);
    check(sources.empty() || sources.size() == rows, function, "sources", sources.size(), rows);
  }

  std::size_t group_of(Index j) const { return static_cast<std::size_t>(layout_.group(j)); }

  /// order[i mod rows] for i in [0, 2 rows).
  Index at(const std::vector<std::uint32_t>& order, Index i) const {
    return static_cast<Index>(order[static_cast<std::size_t>(i < rows_ ? i : i - rows_)]);
  }

  /// Shifts without repetition, so many at a time as there are: the start of a shuffle of 1 ...
  /// B-1.
  void draw_shifts() {
    const auto others = static_cast<std::size_t>(rows_ - 1);
    shifts_.resize(static_cast<std::size_t>(layout_.fields()));
    order_.resize(others);
    for (std::size_t begin = 0, run = 0; begin < shifts_.size(); begin += others, ++run) {
      std::iota(order_.begin(), order_.end(), 1u);
      WordStream words(
          step_key(seed_, step_, static_cast<std::uint32_t>(run), RandomPurpose::Shifts));
      const std::size_t count = std::min(others, shifts_.size() - begin);
      for (std::size_t i = 0; i < count; ++i) {
        std::swap(order_[i], order_[i + words.below(static_cast<std::uint32_t>(others - i))]);
        shifts_[begin + i] = order_[i];
      }
    }
  }

  void draw_base() {
    base_.resize(static_cast<std::size_t>(rows_));
    place_.resize(base_.size());
    shuffle(step_key(seed_, step_, 0, RandomPurpose::Base), false, base_);
    for (std::size_t i = 0; i < base_.size(); ++i) place_[base_[i]] = static_cast<std::uint32_t>(i);
  }

  PhiloxKey key(Index j, RandomPurpose purpose) const {
    return step_key(seed_, step_, static_cast<std::uint32_t>(group_of(j)), purpose);
  }
  PhiloxKey permutation_key(Index j) const { return key(j, RandomPurpose::Permutation); }

  static void invert(std::span<const std::uint32_t> donors, std::span<std::uint32_t> sources) {
    for (std::size_t b = 0; b < donors.size(); ++b)
      sources[donors[b]] = static_cast<std::uint32_t>(b);
  }

  /// The inside-out shuffle: element i changes places with one before it, or (unless `cycle`)
  /// itself. Never with itself, the result is one cycle: i is put into that of those before it.
  static void shuffle(PhiloxKey key, bool cycle, std::span<std::uint32_t> out) {
    if (out.empty()) return;
    WordStream words(key);
    out[0] = 0;
    for (std::uint32_t i = 1; i < out.size(); ++i) {
      const std::uint32_t j = words.below(cycle ? i : i + 1);
      out[i] = out[j];
      out[j] = i;
    }
  }

  static void fill_cyclic(Index shift, std::span<std::uint32_t> out) {
    const auto head = out.end() - shift % static_cast<Index>(out.size());
    std::iota(out.begin(), head, static_cast<std::uint32_t>(out.end() - head));
    std::iota(head, out.end(), 0u);
  }

  /// out[P[i]] = P[(i + shift) mod B]: two runs of i, neither of which need look at where P is.
  void fill_from_base(Index shift, std::span<std::uint32_t> out) const {
    const std::size_t size = base_.size(), by = static_cast<std::size_t>(shift) % size;
    for (std::size_t i = 0; i + by < size; ++i) out[base_[i]] = base_[i + by];
    for (std::size_t i = size - by; i < size; ++i) out[base_[i]] = base_[i + by - size];
  }

  DonorPolicy policy_;
  std::uint64_t seed_ = 0, step_ = 0;
  Index rows_ = 0;
  FieldLayout layout_;
  std::vector<std::uint32_t> shifts_;        ///< [fields], by group
  std::vector<std::uint32_t> order_;         ///< [rows - 1] what shifts are drawn from
  std::vector<std::uint32_t> base_, place_;  ///< [rows] P and its inverse
};

PARE_ABI_END

}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
