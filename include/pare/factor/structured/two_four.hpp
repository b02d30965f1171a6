// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A 2:4 sparse matrix: of each four consecutive inputs two values, and the mask that says which.
///
/// ```cpp
/// const auto mask = TwoFourMask::of_kept(kept);            // [outputs, inputs]
/// const auto small = TwoFour<bf16>::from(w, mask);         // w [outputs, inputs], rounded
/// const auto tiny = TwoFour<std::int8_t>::from(w, mask);   // 8 bits with scales
/// small.to_dense(dense);                                   // zeros where nothing is kept
/// TwoFour<float> zeros(mask);                              // to be written by own_values()
/// ```
///
/// For each 16 inputs of a row there are 8 values, in the order of the bits of the mask's word.
/// Rows are rounded up to 32 values by zeros, so that one begins at a cache line (of 8 bits, at
/// half of one) and is read without an end of its own. An entry is its value, or for std::int8_t q
/// d with the float d of its row and 128 inputs.
///
/// | S | bytes | for inputs | bytes of a dense weight of S |
/// |---|---|---|---|
/// | double | 66 | 16 | 1.94 times |
/// | float | 34 | 16 | 1.88 times |
/// | bf16, f16 | 18 | 16 | 1.78 times |
/// | std::int8_t | 84 | 128 | 5.25 bits for an input |
///
/// The layout is ours, and so are the scales of 8 bits: max |w| / 127 over what is kept of a row
/// and 128 inputs, q rounded to nearest, ties to even, so that an entry is off by at most d / 2 and
/// the rounding of d.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/two_four_mask.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

namespace pare::factor {

/// What values of a 2:4 matrix are stored in.
template <class S>
concept TwoFourScalar = StorageScalar<S> || std::is_same_v<S, std::int8_t>;

/// What an entry is in: double for double, and else float.
template <TwoFourScalar S>
using two_four_t = typename pare::detail::compute_type<S>::type;

PARE_ABI_BEGIN

/// W [outputs, inputs] with two values in each group of four. It can be moved, not copied; `copy`
/// says so in words.
template <TwoFourScalar S>
class TwoFour {
 public:
  using value_type = S;
  using scalar = two_four_t<S>;

  static constexpr bool has_scales = std::is_same_v<S, std::int8_t>;
  static constexpr Index word_values = 8;     ///< values for a word of the mask
  static constexpr Index scale_inputs = 128;  ///< inputs that share a scale, of 8 bits

  /// A matrix of no weights.
  TwoFour() = default;

  /// Zeros (of 8 bits, scales of 0 as well), to be written by `own_values`.
  /// \throws std::invalid_argument if the mask is that of no weights, or their bytes are too many.
  explicit TwoFour(TwoFourMask mask) : mask_(std::move(mask)) {
    constexpr const char* function = "factor::TwoFour";
    check(mask_.outputs() >= 1, function, "mask", "the mask of no weights", "one of some");
    const Index count = checked_product(function, "mask", mask_.outputs(), row_values());
    checked_count(function, "mask", count, sizeof(S));
    values_.resize(static_cast<std::size_t>(count));
    std::fill_n(values_.data(), values_.capacity(), S{});
    if constexpr (has_scales) {
      scales_.resize(static_cast<std::size_t>(mask_.outputs() * row_scales()));
      std::fill_n(scales_.data(), scales_.capacity(), 0.0f);
    }
  }

  /// The entries of a weight that a mask keeps; what it does not keep is not looked at.
  /// \param weights [outputs, inputs] of any storage scalar and strides, rounded to S: nearest,
  ///                ties to even (double to 16 bits by way of float)
  /// \throws std::invalid_argument if extents differ from the mask's, or 8 bits are to hold a
  ///         number that is not finite in float.
  /// Cost: one pass. A NaN stays one.
  template <In<2> W>
  static TwoFour from(const W& weights, TwoFourMask mask) {
    constexpr const char* function = "factor::TwoFour::from";
    using T = compute_t<scalar_of<W>>;
    const auto view = as_const(to_view(weights));
    check_view(function, "weights", view);
    check_extents<2>(function, "weights", view.extent, {mask.outputs(), mask.inputs()});
    TwoFour out(std::move(mask));
    const auto entry = [&](Index o, Index i) {
      return static_cast<scalar>(static_cast<T>(view(o, i)));
    };
    if constexpr (has_scales) out.choose_scales(function, entry);
    out.each_kept([&](Index o, Index i, S& value) { value = out.rounded(entry(o, i), o, i); });
    return out;
  }

  /// The entries that a weight has, which is 2:4 already.
  /// \throws std::invalid_argument as TwoFourMask::of_nonzeros and the above
  template <In<2> W>
  static TwoFour from(const W& weights) {
    return from(weights, TwoFourMask::of_nonzeros(weights));
  }

  /// The same matrix in memory of its own.
  TwoFour copy() const {
    if (outputs() == 0) return {};
    TwoFour out(mask_);
    std::copy_n(values_.data(), outputs() * row_values(), out.values_.data());
    if constexpr (has_scales)
      std::copy_n(scales_.data(), outputs() * row_scales(), out.scales_.data());
    return out;
  }

  Index outputs() const { return mask_.outputs(); }
  Index inputs() const { return mask_.inputs(); }
  const TwoFourMask& mask() const { return mask_; }
  /// Bytes of values, mask and scales.
  Index bytes() const {
    return outputs() * (row_values() * Index{sizeof(S)} + mask_.row_words() * Index{2} +
                        (has_scales ? row_scales() * Index{sizeof(float)} : 0));
  }

  /// Values of a row, with the zeros behind them: 32 ceil(inputs / 64).
  Index row_values() const { return ceil_div(inputs(), Index{64}) * 32; }
  /// [outputs, row_values], rows without gaps.
  TensorView<const S, 2> values() const {
    return {values_.data(), {outputs(), row_values()}, {row_values(), 1}};
  }
  /// The values, to write. Those behind inputs / 2 of a row stay 0: products read them.
  TensorView<S, 2> own_values() {
    return {values_.data(), {outputs(), row_values()}, {row_values(), 1}};
  }

  /// ceil(inputs / 128).
  Index row_scales() const { return ceil_div(inputs(), scale_inputs); }
  /// [outputs, row_scales].
  TensorView<const float, 2> scales() const
  requires(has_scales)
  {
    return {scales_.data(), {outputs(), row_scales()}, {row_scales(), 1}};
  }
  /// The scales, to write.
  TensorView<float, 2> own_scales()
  requires(has_scales)
  {
    return {scales_.data(), {outputs(), row_scales()}, {row_scales(), 1}};
  }

  /// Writes the matrix with its zeros.
  /// \param out [outputs, inputs] of any storage scalar and strides, apart from values, mask and
  ///            scales
  /// \throws std::invalid_argument if its extents differ or it overlaps them. Nothing is written
  ///         then.
  template <Out<2> Dense>
  void to_dense(Dense&& out) const {
    constexpr const char* function = "factor::TwoFour::to_dense";
    using D = scalar_of<Dense>;
    const auto view = to_view(out);
    check_writable(function, "out", view);
    check_extents<2>(function, "out", view.extent, {outputs(), inputs()});
    check_no_overlap(function, "out", view, "the values", values());
    check_no_overlap(function, "out", view, "the mask", mask_.words());
    if constexpr (has_scales) check_no_overlap(function, "out", view, "the scales", scales());
    for (Index o = 0; o < outputs(); ++o)
      for (Index i = 0; i < inputs(); ++i) view(o, i) = D(compute_t<D>(0));
    each_entry([&](Index o, Index i, scalar entry) {
      view(o, i) = static_cast<D>(static_cast<compute_t<D>>(entry));
    });
  }

  /// Calls visit(output, input, entry) for each that is kept, row by row.
  template <class Visit>
  void each_entry(const Visit& visit) const {
    walk(*this, [&](Index o, Index i, const S& value) {
      if constexpr (has_scales)
        visit(o, i, static_cast<float>(value) * scales()(o, i / scale_inputs));
      else
        visit(o, i, static_cast<scalar>(value));
    });
  }

 private:
  friend struct detail::TwoFourMemory;

  template <class Visit>
  void each_kept(const Visit& visit) {
    walk(*this, visit);
  }

  template <class Self, class Visit>
  static void walk(Self& self, const Visit& visit) {
    const auto words = self.mask_.words();
    for (Index o = 0; o < words.rows(); ++o)
      for (Index w = 0; w < words.cols(); ++w) {
        auto* value = self.values_.data() + o * self.row_values() + w * word_values;
        for (unsigned bits = words(o, w); bits != 0; bits &= bits - 1)
          visit(o, w * TwoFourMask::word_inputs + __builtin_ctz(bits), *value++);
      }
  }

  template <class Entry>
  void choose_scales(const char* function, const Entry& entry) {
    const auto scales = own_scales();
    each_kept([&](Index o, Index i, S&) {
      const float w = entry(o, i);
      if (!is_finite(static_cast<double>(w))) refuse_entry(function, w, o, i);
      float& most = scales(o, i / scale_inputs);
      most = std::max(most, std::abs(w));
    });
    for (Index o = 0; o < scales.rows(); ++o)
      for (Index b = 0; b < scales.cols(); ++b) scales(o, b) /= 127.0f;
  }

  [[noreturn]] PARE_NOINLINE static void refuse_entry(const char* function, float entry,
                                                      Index output, Index input) {
    check(false, function, "weights",
          std::to_string(entry) + " at row " + std::to_string(output) + ", column " +
              std::to_string(input),
          "finite numbers for 8 bits");
    __builtin_unreachable();
  }

  S rounded(scalar entry, [[maybe_unused]] Index o, [[maybe_unused]] Index i) const {
    if constexpr (has_scales) {
      const float scale = scales()(o, i / scale_inputs);
      // A scale that underflowed may take the quotient beyond 127.
      return scale > 0 ? static_cast<S>(std::clamp(std::nearbyint(entry / scale), -127.0f, 127.0f))
                       : S{0};
    } else {
      return static_cast<S>(entry);
    }
  }

  TwoFourMask mask_;
  AlignedBuffer<S> values_;
  AlignedBuffer<float> scales_;
};

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
