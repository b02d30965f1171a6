// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Puts the blocks of a model back.
///
/// ```cpp
/// {
///   const BlocksRestored restored(model);
///   model.blocks()[3].down = LowRankLinear(...);
/// }  // as it was
/// ```

#include <type_traits>
#include <utility>

namespace models {

/// Of any model whose `blocks()` are a reference to what can be copied.
template <class Model>
class BlocksRestored {
 public:
  explicit BlocksRestored(Model& model) : model_(model), blocks_(model.blocks()) {}
  BlocksRestored(const BlocksRestored&) = delete;
  BlocksRestored& operator=(const BlocksRestored&) = delete;
  ~BlocksRestored() { model_.blocks() = std::move(blocks_); }

 private:
  Model& model_;
  std::remove_cvref_t<decltype(std::declval<Model&>().blocks())> blocks_;
};

}  // namespace models
