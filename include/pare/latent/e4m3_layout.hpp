// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How tokens of a latent cache are stored in 8 bits: which numbers share a scale, and whether the
/// rotary key keeps 16 bits.
///
/// ```cpp
/// E4m3Cache<DeepSeekV32Layout> cache(options);  // 656 bytes for 512 + 64 numbers
/// E4m3Cache<FlatLayout> flat(options);          // 580
/// struct Tiles64 {                              // your own
///   static constexpr Index tile = 64;
///   static constexpr bool keeps_rope = true, power_of_two = true;
/// };
/// E4m3Cache<Tiles64> finer(options);
/// ```
///
/// The layouts of the public differ and cannot read each other. Of N(0, 1) latents the relative
/// error of a stored latent is 2.6 % with either scale; outputs of attention are 2 to 7 % off,
/// where bf16 has 0.1 to 0.4 %. A rotary key in 8 bits adds to that, most where the softmax is
/// peaked.
///
/// Sources: FlashMLA (DeepSeek, 2025), its 656 bytes of a token; the CPU kernels of SGLang (2025),
/// one scale per token.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <concepts>

namespace pare::latent {

/// Numbers of a token that share a scale: `tile` latents, each tile whole, or all if it is 0. The
/// rotary key stays bf16 if `keeps_rope`; otherwise it is the end of the row that is stored in
/// 8 bits, and tiles count through. Scales are rounded up to powers of two if `power_of_two`.
template <class L>
concept E4m3Layout = requires {
  { L::tile } -> std::convertible_to<Index>;
  { L::keeps_rope } -> std::convertible_to<bool>;
  { L::power_of_two } -> std::convertible_to<bool>;
} && (L::tile >= 0);

/// DeepSeek-V3.2: 512 codes, 4 scales of float, 64 numbers of bf16, 656 bytes.
struct DeepSeekV32Layout {
  static constexpr Index tile = 128;
  static constexpr bool keeps_rope = true;
  static constexpr bool power_of_two = true;
};

/// Latent and rotary key in 8 bits with one scale per token: 576 codes, 580 bytes with the scale.
struct FlatLayout {
  static constexpr Index tile = 0;
  static constexpr bool keeps_rope = false;
  static constexpr bool power_of_two = false;
};

/// One scale per token for the latent, and the rotary key in bf16: 644 bytes. Ours: the flat layout
/// without its loss of rotary digits.
struct TokenScaleLayout {
  static constexpr Index tile = 0;
  static constexpr bool keeps_rope = true;
  static constexpr bool power_of_two = false;
};

}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
