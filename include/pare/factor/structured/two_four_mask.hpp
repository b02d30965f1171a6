// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which weights a 2:4 sparse matrix keeps: two of each four consecutive inputs.
///
/// ```cpp
/// const auto pruned = TwoFourMask::of_nonzeros(w);      // w [outputs, inputs] that is 2:4 already
/// const auto chosen = TwoFourMask::of_kept(kept);       // kept [outputs, inputs] of bool or bytes
/// const auto foreign = TwoFourMask::from_words(words, inputs);
/// const bool kept_one = chosen.keeps(output, input);
/// ```
///
/// Bit i of word w of a row says that input 16 w + i is kept. Each nibble is a group of four inputs
/// and has two bits; one of the six: 0b0011, 0b0101, 0b0110, 0b1001, 0b1010, 0b1100. Where inputs
/// are no multiple of 16, the nibbles behind the last group are 0. That is 2 bytes for 16 inputs.
///
/// The pattern is that of Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv
/// 2104.08378. The words are ours: NVIDIA's metadata are two indices of 2 bits for each group, as
/// many bits, which a processor would have to turn into masks.

#include <pare/core/macros_off.hpp>

#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::factor {

/// A matrix of bool or of bytes, any strides.
template <class X>
concept KeptEntries =
    requires { typename view_of<const X>; } && view_of<const X>::rank == 2 &&
    (std::same_as<std::remove_const_t<typename view_of<const X>::scalar>, bool> ||
     std::same_as<std::remove_const_t<typename view_of<const X>::scalar>, std::uint8_t>);

/// A matrix of words of 16 bits, any strides.
template <class X>
concept MaskWords =
    requires { typename view_of<const X>; } && view_of<const X>::rank == 2 &&
    std::same_as<std::remove_const_t<typename view_of<const X>::scalar>, std::uint16_t>;

namespace detail {
PARE_ABI_BEGIN
struct TwoFourMemory;
PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The mask of a weight [outputs, inputs], inputs a multiple of 4. Every mask there is has two bits
/// in each group: what makes or changes one throws std::invalid_argument otherwise, and names row
/// and inputs of the first group that has not.
class TwoFourMask {
 public:
  static constexpr Index word_inputs = 16;  ///< inputs of a word
  static constexpr Index group = 4;         ///< inputs of which two are kept

  /// The mask of no weights.
  TwoFourMask() = default;
  TwoFourMask(const TwoFourMask&) = default;
  TwoFourMask& operator=(const TwoFourMask&) = default;
  /// What is moved from is the mask of no weights.
  TwoFourMask(TwoFourMask&& other) noexcept { *this = std::move(other); }
  TwoFourMask& operator=(TwoFourMask&& other) noexcept {
    outputs_ = std::exchange(other.outputs_, 0);
    inputs_ = std::exchange(other.inputs_, 0);
    words_ = std::exchange(other.words_, {});
    return *this;
  }
  ~TwoFourMask() = default;

  /// Keeps the first two inputs of each group.
  /// \throws std::invalid_argument if outputs are below 1, inputs no multiple of 4 from 4 on, or
  ///         their product is too large.
  TwoFourMask(Index outputs, Index inputs) : TwoFourMask("factor::TwoFourMask", outputs, inputs) {
    for (Index o = 0; o < outputs_; ++o)
      for (Index w = 0; w < row_words(); ++w)
        at(o, w) = static_cast<std::uint16_t>(0x3333u & present(w));
  }

  /// Takes a mask that others made.
  /// \param words [outputs, ceil(inputs / 16)] of std::uint16_t: bit i of word w is input 16 w + i
  /// \throws std::invalid_argument as the constructor, if there are more or fewer words, a group
  ///         has not two bits, or a bit stands behind the last input.
  /// Cost: one pass.
  template <MaskWords Words>
  static TwoFourMask from_words(const Words& words, Index inputs) {
    constexpr const char* function = "factor::TwoFourMask::from_words";
    const auto view = as_const(to_view(words));
    check_view(function, "words", view);
    TwoFourMask mask(function, view.rows(), inputs);
    check_extents<2>(function, "words", view.extent, {view.rows(), mask.row_words()});
    for (Index o = 0; o < mask.outputs_; ++o)
      for (Index w = 0; w < mask.row_words(); ++w)
        mask.at(o, w) = mask.checked_word(function, "words", view(o, w), o, w);
    return mask;
  }

  /// Keeps what is not 0 in `kept` [outputs, inputs] of bool or bytes.
  /// \throws std::invalid_argument as the constructor, or if a group has not two such entries.
  /// Cost: one pass.
  template <KeptEntries Kept>
  static TwoFourMask of_kept(const Kept& kept) {
    constexpr const char* function = "factor::TwoFourMask::of_kept";
    const auto view = as_const(to_view(kept));
    check_view(function, "kept", view);
    TwoFourMask mask(function, view.rows(), view.cols());
    for (Index o = 0; o < mask.outputs_; ++o)
      for (Index w = 0; w < mask.row_words(); ++w)
        mask.at(o, w) = mask.checked_word(
            function, "kept",
            mask.word_of(w, [&](Index i) { return static_cast<std::uint8_t>(view(o, i)) != 0; }), o,
            w);
    return mask;
  }

  /// Keeps what is not 0 (a NaN is not) in a weight [outputs, inputs] that is 2:4 already, of any
  /// strides. A group of fewer than two such entries keeps its first zeros as well.
  /// \throws std::invalid_argument as the constructor, or if a group has more than two.
  /// Cost: one pass.
  template <In<2> W>
  static TwoFourMask of_nonzeros(const W& weights) {
    constexpr const char* function = "factor::TwoFourMask::of_nonzeros";
    using T = compute_t<scalar_of<W>>;
    const auto view = as_const(to_view(weights));
    check_view(function, "weights", view);
    TwoFourMask mask(function, view.rows(), view.cols());
    for (Index o = 0; o < mask.outputs_; ++o)
      for (Index w = 0; w < mask.row_words(); ++w) {
        const unsigned word =
            mask.word_of(w, [&](Index i) { return static_cast<T>(view(o, i)) != T(0); });
        mask.at(o, w) =
            mask.checked_word(function, "weights", filled(word) & mask.present(w), o, w);
      }
    return mask;
  }

  Index outputs() const { return outputs_; }
  Index inputs() const { return inputs_; }
  /// ceil(inputs / 16).
  Index row_words() const { return ceil_div(inputs_, word_inputs); }
  /// [outputs, row_words], rows without gaps.
  TensorView<const std::uint16_t, 2> words() const {
    return {words_.data(), {outputs_, row_words()}, {row_words(), 1}};
  }

  /// Whether an input is kept; both indices are in range.
  bool keeps(Index output, Index input) const {
    return (words()(output, input / word_inputs) >> (input % word_inputs) & 1) != 0;
  }

  /// The four bits of a group: bit i is input 4 group_index + i; both indices are in range.
  unsigned group_bits(Index output, Index group_index) const {
    return words()(output, group_index / 4) >> (group_index % 4 * 4) & 15u;
  }

  /// Keeps these two of a group.
  /// \throws std::invalid_argument if an index is out of range or `bits` are not two of four.
  void set_group(Index output, Index group_index, unsigned bits) {
    constexpr const char* function = "factor::TwoFourMask::set_group";
    check(output >= 0 && output < outputs_, function, "output", output,
          Worded{"an output below ", outputs_});
    check(group_index >= 0 && group_index < inputs_ / group, function, "group_index", group_index,
          Worded{"a group below ", inputs_ / group});
    check(is_two_of_four(bits), function, "bits", bits, "two bits of four");
    std::uint16_t& word = at(output, group_index / 4);
    const auto shift = static_cast<unsigned>(group_index % 4 * 4);
    word = static_cast<std::uint16_t>((word & ~(15u << shift)) | bits << shift);
  }

  /// Whether they are one of the six masks of a group.
  static constexpr bool is_two_of_four(unsigned bits) {
    return bits < 16 && (0b0001'0110'0110'1000u >> bits & 1u) != 0;
  }

  friend bool operator==(const TwoFourMask& a, const TwoFourMask& b) {
    return a.outputs_ == b.outputs_ && a.inputs_ == b.inputs_ && a.words_ == b.words_;
  }

 private:
  friend struct detail::TwoFourMemory;

  TwoFourMask(const char* function, Index outputs, Index inputs)
      : outputs_(outputs), inputs_(inputs) {
    check(outputs >= 1, function, "outputs", outputs, "at least 1");
    check(inputs >= group && inputs % group == 0, function, "inputs", inputs,
          "a multiple of 4, at least 4");
    checked_product(function, "outputs", outputs, inputs);
    words_.resize(static_cast<std::size_t>(outputs * row_words()));
  }

  std::uint16_t& at(Index output, Index word) {
    return words_[static_cast<std::size_t>(output * row_words() + word)];
  }

  /// The bits of a word behind which there is an input.
  unsigned present(Index word) const {
    const Index left = std::min(word_inputs, inputs_ - word * word_inputs);
    return (1u << left) - 1u;
  }

  template <class Keeps>
  unsigned word_of(Index word, const Keeps& keeps) const {
    unsigned bits = 0;
    const Index begin = word * word_inputs, end = std::min(inputs_, begin + word_inputs);
    for (Index i = begin; i < end; ++i) bits |= (keeps(i) ? 1u : 0u) << (i - begin);
    return bits;
  }

  /// The same with the first zeros of each group that has fewer than two bits.
  static unsigned filled(unsigned word) {
    for (unsigned shift = 0; shift < 16; shift += 4)
      for (unsigned i = 0; i < 4 && __builtin_popcount(word >> shift & 15u) < 2; ++i)
        word |= 1u << (shift + i);
    return word;
  }

  std::uint16_t checked_word(const char* function, const char* argument, unsigned word,
                             Index output, Index index) const {
    for (unsigned shift = 0; shift < 16; shift += 4) {
      const unsigned bits = word >> shift & 15u;
      const bool is_there = (present(index) >> shift & 1u) != 0;
      if (is_there ? !is_two_of_four(bits) : bits != 0)
        refuse_group(function, argument, bits, is_there, output,
                     index * word_inputs + static_cast<Index>(shift));
    }
    return static_cast<std::uint16_t>(word);
  }

  [[noreturn]] PARE_NOINLINE void refuse_group(const char* function, const char* argument,
                                               unsigned bits, bool is_there, Index output,
                                               Index input) const {
    check(false, function, argument,
          std::to_string(__builtin_popcount(bits)) + " kept at row " + std::to_string(output) +
              ", columns " + std::to_string(input) + " to " + std::to_string(input + 3),
          is_there ? std::string("2 of each 4")
                   : "none behind column " + std::to_string(inputs_ - 1));
    __builtin_unreachable();
  }

  Index outputs_ = 0, inputs_ = 0;
  std::vector<std::uint16_t> words_;
};

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
