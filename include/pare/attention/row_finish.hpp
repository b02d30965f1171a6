// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What is done to a row of a head once its attention is complete: the concept, its no-op base, and
/// the row that a hook is given.
///
/// ```cpp
/// struct HalfOwnValue : KeepRows {                     // a user's own: o <- (o + v_own) / 2
///   template <class Row>
///   void finish(const Row& row) const {
///     row.blend(0.5, row.value(row.position()));
///   }
///   void validate(const char* function, const FinishCall& call) const {
///     call.check_own_keys(function);
///   }
/// };
/// attend(q, k, v, out, HalfOwnValue{}, {.causal = true});
/// attend(q, k, v, out, WithFinish{SoftCap{}, HalfOwnValue{}});   // scores modified too
/// ```
///
/// The hook runs once per (sequence, head, query), on the worker that computed the row, while the
/// row is in the cache. A call without a hook has none of this code, and its bits do not change.

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value_source.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/kernel/blend_row.hpp>
#include <pare/kernel/score_modifier.hpp>

#include <array>
#include <optional>
#include <type_traits>

namespace pare::attention {

/// What a hook is told of a call before anything is written.
struct FinishCall {
  Index sequences = 0;
  Index heads = 0;      ///< query heads
  Index value_dim = 0;  ///< columns of a row
  Index queries = 0;    ///< of the tensor
  bool packed = false;  ///< sequences of different lengths lie in a batch of 1
  Index keys = 0;       ///< of the shortest sequence
  /// The first sequence that has a query without a key at its own position, with its numbers of
  /// queries and keys; nothing if every query has one.
  std::optional<std::array<Index, 3>> without_own_key{};

  /// \throws std::invalid_argument if a query has no key at its own position.
  void check_own_keys(const char* function) const {
    check(!without_own_key, function, "queries", without_own_key.value_or(std::array<Index, 3>{}),
          "[sequence, queries, keys] with a key at the position of each query");
  }
};

PARE_ABI_BEGIN

/// A finished row of a head, o_i, before it is rounded to the storage of out: T is what the call
/// computes in, and double on `pare::reference`.
template <class B, class T, KeyValueSource Source>
class FinishedRow {
 public:
  using Scalar = T;
  using Value = typename Source::scalar;

  /// Where a row stands: as a score's place, with the key/value head that it reads.
  struct Place {
    Index sequence = 0, head = 0, kv_head = 0, query = 0, position = 0;
  };

  /// `room` has value_dim scalars if the source loads its values.
  FinishedRow(const B& backend, const Source& source, const Place& place, T* row, Value* room)
      : backend_(backend), source_(source), place_(place), row_(row), room_(room) {}

  Index sequence() const { return place_.sequence; }
  Index head() const { return place_.head; }
  Index query() const { return place_.query; }
  /// The query's position, counted as keys are: query + the call's query_offset, which is keys -
  /// queries if left out.
  Index position() const { return place_.position; }
  Index size() const { return source_.value_dim(); }
  T* data() const { return row_; }
  T& operator[](Index c) const { return row_[c]; }

  /// The value at a position of the sequence, of the key/value head that this head reads. Valid
  /// until the next call.
  const Value* value(Index position) const {
    return detail::value_row(source_, place_.sequence, place_.kv_head, position, room_);
  }

  /// row <- (1 - share) row + share target, [size()]. A share of 1 copies the target.
  template <StorageScalar S>
  void blend(double share, const S* target) const {
    if constexpr (KernelBackend<B> && std::is_same_v<compute_t<S>, T>) {
      launch(backend_, kernel::BlendRow<S>{row_, target, size(), static_cast<T>(share)});
    } else {
      for (Index c = 0; c < size(); ++c) {
        const auto wanted = static_cast<T>(static_cast<compute_t<S>>(target[c]));
        row_[c] = share == 1 ? wanted
                             : static_cast<T>((1 - share) * static_cast<double>(row_[c]) +
                                              share * static_cast<double>(wanted));
      }
    }
  }

 private:
  const B& backend_;
  const Source& source_;
  Place place_;
  T* row_;
  Value* room_;
};

PARE_ABI_END

/// The base of hooks, and the hook that does nothing.
struct KeepRows {
  template <class Row>
  void finish(const Row&) const {}
  /// Throws std::invalid_argument, naming `function`, if the hook does not fit the call.
  void validate(const char*, const FinishCall&) const {}
  /// Throws if what is written shares memory with what the hook reads.
  template <class View>
  void check_apart(const char*, const char*, const View&) const {}
};

namespace detail {
/// A source by which the concept is judged.
struct NoValues {
  using scalar = float;
  static Index sequences() { return 0; }
  static Index kv_heads() { return 1; }
  static Index key_dim() { return 1; }
  static Index value_dim() { return 1; }
  static Index length(Index) { return 0; }
  static const float* key(Index, Index, Index) { return nullptr; }
  static const float* value(Index, Index, Index) { return nullptr; }
  static void validate(const char*) {}
};
}  // namespace detail

/// A plain struct with `finish(row)`, which changes a finished row in place, and `validate`, which
/// is called first; several threads call finish at the same time. The log-sum-exp of the row stays
/// that of its attention.
template <class F>
concept RowFinish = std::is_trivially_copyable_v<F> && std::is_base_of_v<KeepRows, F> &&
                    requires(const F& f, const FinishedRow<Reference, double, detail::NoValues>& r,
                             const FinishCall& call) {
                      f.finish(r);
                      f.validate("", call);
                    };

/// A ScoreModifier and a RowFinish in one policy.
template <class M, RowFinish F>
struct WithFinish {
  M modifier{};
  F finish{};
};
template <class M, class F>
WithFinish(M, F) -> WithFinish<M, F>;

namespace detail {
template <class P>
struct IsWithFinish : std::false_type {};
template <class M, class F>
struct IsWithFinish<WithFinish<M, F>> : std::true_type {};
}  // namespace detail

/// What `attend` takes as a policy that finishes rows: a hook, or a modifier and a hook.
template <class P>
concept FinishPolicy = RowFinish<P> || detail::IsWithFinish<P>::value;

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
