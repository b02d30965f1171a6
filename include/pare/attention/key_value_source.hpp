// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a store of keys and values must have for attention to read it.
///
/// ```cpp
/// struct Int8Rows {                                   // a user's own: 8 bits and a scale a row
///   using scalar = float;
///   void load_key(Index sequence, Index head, Index position, float* out) const {
///     const Index row = (sequence * kv_heads() + head) * length(sequence) + position;
///     for (Index c = 0; c < dim; ++c) out[c] = scales[row] * float(keys[row * dim + c]);
///   }
///   // ... load_value, sizes and validate, as KeyValueSource below says
/// };
/// attend(q, Int8Rows{...}, out, {.causal = true});
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace pare::attention {

/// Tokens of a sequence, at most: 2^30 - 1.
inline constexpr Index most_tokens = std::numeric_limits<std::int32_t>::max() / 2;

/// The keys of a sequence that a call reads: those at positions below `sinks`, and those from
/// `first` on.
struct KeysRead {
  Index sinks = 0;
  Index first = 0;
};

/// A source whose keys lie in memory: `key(sequence, head, position)` returns a pointer to
/// key_dim() contiguous scalars, which do not change during the call.
template <class S>
concept PointsToKeys = requires(const S& s, Index i) {
  { s.key(i, i, i) } -> std::same_as<const typename S::scalar*>;
};
template <class S>
concept PointsToValues = requires(const S& s, Index i) {
  { s.value(i, i, i) } -> std::same_as<const typename S::scalar*>;
};

/// A source whose keys must be made: `load_key(sequence, head, position, out)` writes key_dim()
/// scalars to out. Use it for quantised rows with scales, or for rows whose parts lie apart.
template <class S>
concept LoadsKeys =
    requires(const S& s, Index i, typename S::scalar* out) { s.load_key(i, i, i, out); };
template <class S>
concept LoadsValues =
    requires(const S& s, Index i, typename S::scalar* out) { s.load_value(i, i, i, out); };

/// Rows of positions that follow one another, `stride` scalars apart.
template <class T>
struct RowRun {
  const T* first = nullptr;
  Index stride = 0;
  Index count = 0;  ///< at least 1
};

/// A source that says how many rows from a position on lie at one stride:
/// `key_run(sequence, head, position)` and `value_run` return a RowRun, of rows that `key` and
/// `value` point to. A call then lists rows run by run, which saves it a call per row.
///
/// `row_runs_of` names the source itself. One that derives from it and hides `key` or `value`
/// inherits runs of the base's rows: it is read row by row, unless it has runs of its own and names
/// itself. So is one that loads rows.
template <class S>
concept HasRowRuns = requires(const S& s, Index i) {
  requires std::same_as<typename S::row_runs_of, S>;
  { s.key_run(i, i, i) } -> std::same_as<RowRun<typename S::scalar>>;
  { s.value_run(i, i, i) } -> std::same_as<RowRun<typename S::scalar>>;
} && !LoadsKeys<S> && !LoadsValues<S>;

/// Whether a source's values are the first scalars of their keys.
template <class S>
inline constexpr bool keys_hold_values = false;
template <class S>
requires requires { S::values_in_keys; }
inline constexpr bool keys_hold_values<S> = S::values_in_keys;

/// Whether a call over a source must say its scale.
template <class S>
inline constexpr bool needs_scale = false;
template <class S>
requires requires { S::needs_scale; }
inline constexpr bool needs_scale<S> = S::needs_scale;

/// Anything that has the key and the value of a token. It points to rows or loads them; if it can
/// do both, it is asked to load. Keys have key_dim() scalars, values value_dim(). It is asked for
/// positions below `length(sequence)`, by several threads at the same time. `validate(function)`
/// throws `std::invalid_argument` if the source is broken.
///
/// A source may say `static constexpr bool values_in_keys = true`: a value is the first value_dim()
/// scalars of its key, as in a cache of latents. Rows are then pointed to or loaded once for both.
/// It may say `static constexpr bool needs_scale = true` where 1 / sqrt(key_dim()) is wrong, since
/// keys are wider than the heads that were trained: a call without a scale is then refused.
///
/// More members are optional: those of HasRowRuns, which a derived source must name as its own, and
/// two. `validate(function, read_of)` is called
/// instead of the other; read_of(sequence) says which keys the call reads (KeysRead).
/// `check_apart(function, output, view)` throws if the view of an output shares memory with the
/// source.
///
/// A row is loaded when its tile is gathered, once for some hundred rows of queries. Results are
/// those of a tensor that holds the loaded rows; from 5 rows of queries on they have the same bits.
/// Memory: 256 keys and 256 values per thread.
template <class S>
concept KeyValueSource = requires(const S& s, Index i, const char* function) {
  typename S::scalar;
  requires StorageScalar<typename S::scalar>;
  { s.sequences() } -> std::convertible_to<Index>;
  { s.kv_heads() } -> std::convertible_to<Index>;
  { s.key_dim() } -> std::convertible_to<Index>;
  { s.value_dim() } -> std::convertible_to<Index>;
  { s.length(i) } -> std::convertible_to<Index>;
  s.validate(function);
} && (PointsToKeys<S> || LoadsKeys<S>) && (PointsToValues<S> || LoadsValues<S>);

namespace detail {

template <class X>
using IsSource = std::bool_constant<KeyValueSource<std::remove_cvref_t<X>>>;

PARE_ABI_BEGIN

/// The key of a token, in `room` if it is loaded.
template <KeyValueSource Source>
PARE_ALWAYS_INLINE const typename Source::scalar* key_row(const Source& source, Index sequence,
                                                          Index head, Index position,
                                                          typename Source::scalar* room) {
  if constexpr (LoadsKeys<Source>) {
    source.load_key(sequence, head, position, room);
    return room;
  } else {
    return source.key(sequence, head, position);
  }
}

/// The value of a token likewise.
template <KeyValueSource Source>
PARE_ALWAYS_INLINE const typename Source::scalar* value_row(const Source& source, Index sequence,
                                                            Index head, Index position,
                                                            typename Source::scalar* room) {
  if constexpr (LoadsValues<Source>) {
    source.load_value(sequence, head, position, room);
    return room;
  } else {
    return source.value(sequence, head, position);
  }
}

/// rows[i] = the row of position begin + i, for i below n; run_at(position) is the RowRun there.
template <class S, class RunAt>
PARE_ALWAYS_INLINE void point_at_rows(Index begin, Index n, const S** rows, const RunAt& run_at) {
  for (Index done = 0; done < n;) {
    const RowRun<S> run = run_at(begin + done);
    const Index count = std::min(run.count, n - done);
    for (Index i = 0; i < count; ++i) rows[done + i] = run.first + i * run.stride;
    done += count;
  }
}

PARE_ABI_END
}  // namespace detail

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
