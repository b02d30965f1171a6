// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How many bytes a cache takes behind prompts, text by text and over all.

#include "common/mean.hpp"

#include <cstddef>
#include <span>
#include <vector>

namespace language_model {

/// Bytes behind the prompts of texts, which are begun and ended in turn.
class PromptBytes {
 public:
  void begin_text() { first_ = bytes_.size(); }
  void add(double bytes) { bytes_.push_back(bytes); }
  void end_text() { first_ = 0; }
  /// Behind a prompt of the text that was begun; between texts, of all.
  double mean() const { return models::mean_of(std::span(bytes_).subspan(first_)).value; }

 private:
  std::vector<double> bytes_;
  std::size_t first_ = 0;
};

}  // namespace language_model
