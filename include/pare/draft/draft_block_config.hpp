// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The sizes of a draft block, and which layers of the target it listens to.
///
/// ```cpp
/// const auto taps = tapped_layers(36, 5);         // 1, 9, 17, 25, 33 of Qwen3-8B
/// const DraftBlockConfig config{.width = 4096,    // d
///                               .tapped_width = 5 * 4096,
///                               .layers = 5,
///                               .heads = 32,
///                               .kv_heads = 8,
///                               .head_dim = 128,
///                               .hidden = 12288};
/// ```
///
/// Source: JetSpec (arXiv 2606.18394), its code: DFlash's backbone, layers of Qwen3.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <algorithm>
#include <vector>

namespace pare::draft {

/// The sizes of a DraftBlock.
struct DraftBlockConfig {
  Index width = 0;         ///< d: of embeddings, and of the rows that the head takes
  Index tapped_width = 0;  ///< of the tapped states of a token, side by side: taps x target width
  Index layers = 0;        ///< L_d; 5 in JetSpec
  Index heads = 0;
  Index kv_heads = 0;  ///< a divisor of heads
  Index head_dim = 0;  ///< even
  Index hidden = 0;    ///< of the MLP
  Index block = 16;    ///< tokens of a block at most, the anchor among them; at least 2

  /// Which rows of a block are used. false: row i >= 1, a MASK, predicts the token in its own
  /// place. true: row i predicts the one behind it, so that the anchor predicts too and the last
  /// row does not.
  bool draft_shift = false;

  double norm_epsilon = 1e-6;  ///< of all norms; Qwen3's

  Index query_width() const { return heads * head_dim; }
  Index key_width() const { return kv_heads * head_dim; }

  /// \throws std::invalid_argument if a size is below 1, kv_heads do not divide heads, head_dim is
  ///         odd, the block is shorter than 2 tokens, epsilon is negative or not finite, or a
  ///         product of sizes does not fit `Index`; `function` is named
  void validate(const char* function) const {
    check(width >= 1, function, "width", width, "at least 1");
    check(tapped_width >= 1, function, "tapped_width", tapped_width, "at least 1");
    check(layers >= 1, function, "layers", layers, "at least 1");
    check(kv_heads >= 1, function, "kv_heads", kv_heads, "at least 1");
    check(heads >= 1 && heads % kv_heads == 0, function, "heads", heads,
          Worded{"a multiple of the ", kv_heads, " kv_heads"});
    check(head_dim >= 2 && head_dim % 2 == 0, function, "head_dim", head_dim,
          "an even number of at least 2");
    check(hidden >= 1, function, "hidden", hidden, "at least 1");
    check(block >= 2, function, "block", block, "at least 2: the anchor and a MASK");
    check(is_finite(norm_epsilon) && norm_epsilon >= 0, function, "norm_epsilon", norm_epsilon,
          "a finite number of at least 0");
    const Index widest = std::max(width, std::max(hidden, tapped_width));
    checked_product(function, "heads", heads, head_dim);
    checked_product(function, "block", block, std::max(widest, query_width()));
  }
};

/// The layers of a target whose states a block of `draft_layers` layers is given, counted from 0:
///
///     round(1 + i (L - 4) / (L_d - 1)), i < L_d;  L / 2 if L_d is 1
///
/// halves rounded to even, as Python does. What is tapped is what comes out of a layer:
/// `hidden_states[layer + 1]` of Hugging Face's models.
///
/// \param target_layers L, at least 1
/// \param draft_layers  L_d, at least 1; more than one: at most L - 3, so that no layer is tapped
///                      twice (our rule; the code taps it twice)
/// \throws std::invalid_argument if one is out of its range
inline std::vector<Index> tapped_layers(Index target_layers, Index draft_layers) {
  constexpr const char* function = "draft::tapped_layers";
  check(target_layers >= 1, function, "target_layers", target_layers, "at least 1");
  check(draft_layers == 1 || (draft_layers >= 1 && draft_layers <= target_layers - 3), function,
        "draft_layers", draft_layers,
        Worded{"1, or from 2 to the target's layers less 3, ", target_layers - 3});
  if (draft_layers == 1) return {target_layers / 2};
  std::vector<Index> taps;
  const Index span = target_layers - 4, steps = draft_layers - 1;
  for (Index i = 0; i <= steps; ++i) {
    // i span / steps without a product that overflows: span = whole steps + rest.
    const Index rest = i * (span % steps), whole = i * (span / steps) + rest / steps;
    const Index twice = 2 * (rest % steps), place = 1 + whole;
    taps.push_back(place + (twice > steps || (twice == steps && place % 2 != 0) ? 1 : 0));
  }
  return taps;
}

}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
