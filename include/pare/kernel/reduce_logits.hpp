// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What is wanted of rows of logits, taken in panel by panel while they are in the first-level
/// cache: the k largest, log-sum-exp, and a draw by keyed noise. Nobody stores all logits.

#include <pare/core/macros_off.hpp>

#include <pare/core/gumbel.hpp>
#include <pare/kernel/head_panels.hpp>
#include <pare/kernel/math.hpp>
#include <pare/kernel/philox.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

namespace pare::kernel {

/// What a row of logits z has come to so far, at a temperature t. The state of no logits
/// is that of the defaults.
template <ComputeScalar T>
struct LogitState {
  T maximum = -std::numeric_limits<T>::infinity();  ///< any number once a logit was NaN
  std::int32_t kept = 0;                            ///< entries of the heap
  double sum = 0;  ///< of e^((z - maximum) / t); NaN once a logit was NaN or +infinity
  double best = -std::numeric_limits<double>::infinity();  ///< max of z_i / t + G_i
  std::int32_t drawn = -1;                                 ///< the i of that, the first of equal
};

/// Takes logits of one panel into the states of rows.
///
/// The heap of a row holds the k largest logits in the order (value falling, id rising), the last
/// of that order in front; ids must come in rising order. A NaN enters no heap. Cost: an
/// exponential per logit, and with noise another and half of a Philox block.
template <ComputeScalar T>
struct ReduceLogits {
  T* logits = nullptr;  ///< [rows x head_panel_outputs<T>]; those behind `count` are overwritten
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t count = 0;           ///< logits of the panel, at most head_panel_outputs<T>
  std::int32_t first = 0;             ///< id of the first; a multiple of head_panel_outputs<T>
  const std::int32_t* ids = nullptr;  ///< [count] ids, rising; null: from `first` on
  double temperature = 1;

  LogitState<T>* states = nullptr;  ///< [rows]
  T* top = nullptr;                 ///< [rows x k]
  std::int32_t* top_ids = nullptr;  ///< [rows x k]
  std::ptrdiff_t k = 0;
  const T* floors = nullptr;  ///< [rows] smaller logits are not among the best; null: any may be

  const std::ptrdiff_t* positions = nullptr;  ///< [rows] of the noise; null: no draw
  std::uint64_t seed = 0;
};

namespace detail {
PARE_ABI_BEGIN

/// Whether a lane of `v` is above the same lane of `limit`.
template <class Arch, class V>
PARE_ALWAYS_INLINE bool any_above(V v, V limit) noexcept {
  if constexpr (is_batch<V>)
    return xsimd::any(v > limit);
  else
    return v > limit;
}

/// Whether a lane of `v` is not below the same lane of `limit`.
template <class Arch, class V>
PARE_ALWAYS_INLINE bool any_from(V v, V limit) noexcept {
  if constexpr (is_batch<V>)
    return xsimd::any(v >= limit);
  else
    return v >= limit;
}

/// The k best of a row: a heap whose front is the worst.
template <ComputeScalar T>
class BestLogits {
 public:
  PARE_ALWAYS_INLINE BestLogits(T* values, std::int32_t* ids, std::ptrdiff_t k,
                                std::int32_t& kept) noexcept
      : values_(values), ids_(ids), k_(k), kept_(kept) {}

  PARE_ALWAYS_INLINE bool full() const noexcept { return kept_ == k_; }
  PARE_ALWAYS_INLINE T worst() const noexcept { return values_[0]; }

  /// Takes in a logit whose id is above all that came before.
  void offer(T value, std::int32_t id) noexcept {
    if (full()) {
      if (value > values_[0]) sink(value, id);
    } else if (!is_nan(value)) {
      rise(value, id);
    }
  }

 private:
  PARE_ALWAYS_INLINE static bool worse(T a, std::int32_t a_id, T b, std::int32_t b_id) noexcept {
    return a < b || (a == b && a_id > b_id);
  }

  void rise(T value, std::int32_t id) noexcept {
    std::ptrdiff_t at = kept_++;
    while (at > 0) {
      const std::ptrdiff_t up = (at - 1) / 2;
      if (!worse(value, id, values_[up], ids_[up])) break;
      values_[at] = values_[up];
      ids_[at] = ids_[up];
      at = up;
    }
    values_[at] = value;
    ids_[at] = id;
  }

  /// In the place of the front.
  void sink(T value, std::int32_t id) noexcept {
    std::ptrdiff_t at = 0;
    for (std::ptrdiff_t down = 1; down < k_; down = 2 * at + 1) {
      if (down + 1 < k_ && worse(values_[down + 1], ids_[down + 1], values_[down], ids_[down]))
        ++down;
      if (!worse(values_[down], ids_[down], value, id)) break;
      values_[at] = values_[down];
      ids_[at] = ids_[down];
      at = down;
    }
    values_[at] = value;
    ids_[at] = id;
  }

  T* values_;
  std::int32_t* ids_;
  std::ptrdiff_t k_;
  std::int32_t& kept_;
};

/// Adds the exponentials of a whole panel to a state.
template <class Arch, class T>
PARE_ALWAYS_INLINE void add_exponentials(const T* z, double temperature,
                                         LogitState<T>& state) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr T lowest = -std::numeric_limits<T>::infinity();
  V largest = load<Arch>(z);
  for (std::ptrdiff_t o = n; o < head_panel_outputs<T>; o += n)
    largest = maximum<Arch>(load<Arch>(z + o), largest);
  const T top = reduce_max<Arch>(largest);
  if (top > state.maximum) {
    // Nothing was seen where it is -infinity: the sum is 0, or NaN.
    if (state.maximum != lowest)
      state.sum *= __builtin_exp((static_cast<double>(state.maximum) - static_cast<double>(top)) /
                                 temperature);
    state.maximum = top;
  }
  // Halves, for what lies between two logits may be beyond T; and no scale of 0, by which -infinity
  // were NaN.
  const V half = broadcast<Arch>(T(0.5));
  const V shift = broadcast<Arch>(state.maximum == lowest ? T(0) : T(-0.5) * state.maximum);
  const auto steps = static_cast<T>(2 * Exp<double>::log2_e / temperature);
  const V scale = broadcast<Arch>(steps > 0 ? steps : std::numeric_limits<T>::denorm_min());
  V total = broadcast<Arch>(T(0));
  for (std::ptrdiff_t o = 0; o < head_panel_outputs<T>; o += n)
    total = total + exp2<Arch>(multiply_add<Arch>(load<Arch>(z + o), half, shift) * scale);
  state.sum += static_cast<double>(reduce_add<Arch>(total));
}

/// Offers the logits of a panel that may be among the best: those above the worst of a full heap,
/// and not below the floor.
template <class Arch, class T>
PARE_ALWAYS_INLINE void offer_panel(const ReduceLogits<T>& a, const T* z, T floor,
                                    BestLogits<T> best) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  for (std::ptrdiff_t o = 0; o < a.count; o += n) {
    const vec<T, Arch> v = load<Arch>(z + o);
    if (best.full() && !any_above<Arch>(v, broadcast<Arch>(best.worst()))) continue;
    if (!any_from<Arch>(v, broadcast<Arch>(floor))) continue;
    const std::ptrdiff_t end = o + n < a.count ? o + n : a.count;
    for (std::ptrdiff_t j = o; j < end; ++j)
      if (z[j] >= floor)
        best.offer(z[j], a.ids != nullptr ? a.ids[j] : a.first + static_cast<std::int32_t>(j));
  }
}

/// The two random words of each of a panel's tokens.
template <ComputeScalar T>
struct PanelWords {
  std::uint32_t high[static_cast<std::size_t>(head_panel_outputs<T>)] = {};
  std::uint32_t low[static_cast<std::size_t>(head_panel_outputs<T>)];

  template <class Arch>
  PARE_ALWAYS_INLINE void fill(const ReduceLogits<T>& a, std::ptrdiff_t position) noexcept {
    std::uint64_t c[4][static_cast<std::size_t>(head_panel_outputs<T>)];
    const PhiloxKey key(a.seed);
    const std::ptrdiff_t pairs = a.ids != nullptr ? a.count : (a.count + 1) / 2;
    for (std::ptrdiff_t i = 0; i < pairs; ++i) {
      const std::ptrdiff_t item = a.ids != nullptr ? a.ids[i] : a.first + 2 * i;
      const auto counter = GumbelNoise::counter(position, static_cast<std::uint32_t>(item / 2));
      for (std::size_t w = 0; w < 4; ++w) c[w][i] = counter[w];
    }
    run_kernel(Arch{}, PhiloxWords{c[0], c[1], c[2], c[3], pairs, key.k0, key.k1});
    for (std::ptrdiff_t j = 0; j < a.count; ++j) {
      const bool odd = (a.ids != nullptr ? a.ids[j] : j) % 2 != 0;
      const std::ptrdiff_t at = a.ids != nullptr ? j : j / 2;
      high[j] = static_cast<std::uint32_t>(c[odd ? 2 : 0][at]);
      low[j] = static_cast<std::uint32_t>(c[odd ? 3 : 1][at]);
    }
  }
};

/// Draws by z_i / temperature + G_i. Only those are computed that may be above the best: G_i > t
/// means 1 - u_i < 1 - e^(-e^-t), which is below e^-t. The bound has room for the roundings of T.
template <class Arch, class T>
PARE_ALWAYS_INLINE void draw_from_panel(const ReduceLogits<T>& a, const T* z,
                                        std::ptrdiff_t position, LogitState<T>& state) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>, outputs = head_panel_outputs<T>;
  constexpr auto to_binary = static_cast<T>(Exp<double>::log2_e);
  PanelWords<T> words;
  words.template fill<Arch>(a, position);
  // 1 - u is at least that, whatever the lower bits are.
  T rest[static_cast<std::size_t>(outputs)], bound[static_cast<std::size_t>(n)];
  for (std::ptrdiff_t j = 0; j < outputs; ++j)
    rest[j] = static_cast<T>(static_cast<std::int32_t>(~words.high[j] >> 8)) * T(0x1p-24);
  // Where nothing is known yet, and where T does not hold it, all are computed.
  constexpr double most = static_cast<double>(std::numeric_limits<T>::max() / 4);
  const bool bounded = state.best > -most && state.best < most;
  const auto best = static_cast<T>(bounded ? state.best : 0);
  const T room = 16 * std::numeric_limits<T>::epsilon() * ((best < 0 ? -best : best) + 64);
  const V scale = broadcast<Arch>(static_cast<T>(1 / a.temperature));
  const V least = broadcast<Arch>(best - room), minus_one = broadcast<Arch>(T(-1));
  const V zero = broadcast<Arch>(T(0));
  for (std::ptrdiff_t o = 0; o < a.count; o += n) {
    const V above = load<Arch>(z + o) * scale - least;
    const V power = zero - maximum<Arch>(zero - above, minus_one);
    const V limit = exp2<Arch>(power * broadcast<Arch>(to_binary)) * broadcast<Arch>(T(1.001));
    if (bounded && !any_above<Arch>(limit, load<Arch>(static_cast<const T*>(rest) + o))) continue;
    store<Arch>(static_cast<T*>(bound), limit);
    for (std::ptrdiff_t j = o; j < a.count && j < o + n; ++j) {
      if (bounded && !(rest[j] < bound[j - o])) continue;
      const double score = static_cast<double>(z[j]) / a.temperature +
                           GumbelNoise::of_words(words.high[j], words.low[j]);
      if (!(score > state.best)) continue;
      state.best = score;
      state.drawn = a.ids != nullptr ? a.ids[j] : a.first + static_cast<std::int32_t>(j);
    }
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const ReduceLogits<T>& a) noexcept {
  constexpr std::ptrdiff_t outputs = head_panel_outputs<T>;
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    T* const z = a.logits + r * outputs;
    LogitState<T>& state = a.states[r];
    for (std::ptrdiff_t j = a.count; j < outputs; ++j) z[j] = -std::numeric_limits<T>::infinity();
    detail::add_exponentials<Arch>(static_cast<const T*>(z), a.temperature, state);
    if (a.k > 0)
      detail::offer_panel<Arch>(
          a, static_cast<const T*>(z),
          a.floors == nullptr ? -std::numeric_limits<T>::infinity() : a.floors[r],
          detail::BestLogits<T>(a.top + r * a.k, a.top_ids + r * a.k, a.k, state.kept));
    if (a.positions != nullptr)
      detail::draw_from_panel<Arch>(a, static_cast<const T*>(z), a.positions[r], state);
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
