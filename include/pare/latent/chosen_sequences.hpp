// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Some sequences of a cache in an order of one's own, as the batch of a call.
///
/// ```cpp
/// const std::vector<Index> batch{7, 2, 5};  // who decodes now; q has 3 entries
/// attention::attend(q, ChosenSequences(cache, batch), out, {.causal = true, .scale = scale});
/// ```
///
/// A cache is a source of all its sequences, released ones included. What serves many users makes
/// batches of those that are ready: batch entry i is then sequence numbers[i].

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value.hpp>
#include <pare/attention/key_value_source.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>

namespace pare::latent {

PARE_ABI_BEGIN

/// A source of the sequences of another. It views both, which must outlive it.
template <attention::KeyValueSource Source>
class ChosenSequences {
 public:
  using scalar = typename Source::scalar;
  static constexpr bool values_in_keys = attention::keys_hold_values<Source>;
  static constexpr bool needs_scale = attention::needs_scale<Source>;

  /// \param numbers sequences of the source, in any order, also more than once; `validate` checks
  ///                them
  ChosenSequences(const Source& source, attention::TokenList numbers)
      : source_(&source), numbers_(numbers) {}

  Index sequences() const { return static_cast<Index>(numbers_.size()); }
  Index kv_heads() const { return source_->kv_heads(); }
  Index key_dim() const { return source_->key_dim(); }
  Index value_dim() const { return source_->value_dim(); }
  /// 0 for a number that is none of the source, which `validate` refuses.
  Index length(Index i) const { return has(number(i)) ? source_->length(number(i)) : 0; }

  PARE_ALWAYS_INLINE const scalar* key(Index i, Index head, Index position) const
  requires attention::PointsToKeys<Source>
  {
    return source_->key(number(i), head, position);
  }
  PARE_ALWAYS_INLINE const scalar* value(Index i, Index head, Index position) const
  requires attention::PointsToValues<Source>
  {
    return source_->value(number(i), head, position);
  }
  void load_key(Index i, Index head, Index position, scalar* out) const
  requires attention::LoadsKeys<Source>
  {
    source_->load_key(number(i), head, position, out);
  }
  void load_value(Index i, Index head, Index position, scalar* out) const
  requires attention::LoadsValues<Source>
  {
    source_->load_value(number(i), head, position, out);
  }

  /// \throws std::invalid_argument if a number is none of the source, or as the source
  void validate(const char* function) const {
    validate(function, [](Index) { return attention::KeysRead{}; });
  }
  /// The same for a call that reads the keys read_of(i) of entry i. Cost: sequences of the source
  /// times numbers.
  template <class ReadOf>
  void validate(const char* function, const ReadOf& read_of) const {
    for (Index i = 0; i < sequences(); ++i)
      check(has(number(i)), function, "numbers", number(i),
            Worded{"a sequence of the source, below ", source_->sequences()});
    const auto read_of_source = [&](Index sequence) {
      attention::KeysRead all{0, attention::most_tokens};  // none
      for (Index i = 0; i < sequences(); ++i) {
        if (number(i) != sequence) continue;
        const attention::KeysRead read = read_of(i);
        all = {std::max(all.sinks, read.sinks), std::min(all.first, read.first)};
      }
      return all;
    };
    if constexpr (requires { source_->validate(function, read_of_source); })
      source_->validate(function, read_of_source);
    else
      source_->validate(function);
  }

  template <class O, std::size_t Rank>
  void check_apart(const char* function, const char* output, const TensorView<O, Rank>& out) const {
    if constexpr (requires { source_->check_apart(function, output, out); })
      source_->check_apart(function, output, out);
    check_no_overlap(function, output, out, "numbers",
                     TensorView<const Index, 1>{numbers_.data(), {sequences()}, {1}});
  }

 private:
  Index number(Index i) const { return numbers_[static_cast<std::size_t>(i)]; }
  bool has(Index sequence) const { return sequence >= 0 && sequence < source_->sequences(); }

  const Source* source_;
  attention::TokenList numbers_;
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
