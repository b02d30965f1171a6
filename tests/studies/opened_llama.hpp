// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A model with the file that it reads, in memory.

#include "io/memory.hpp"
#include "language_model/gguf_source.hpp"
#include "language_model/llama.hpp"
#include "language_model/weights.hpp"
#include "studies/llama_reference.hpp"

#include <pare/io/gguf.hpp>

#include <string>

namespace pare::testing {

struct OpenedLlama {
  explicit OpenedLlama(const TinyLlama& tiny) : OpenedLlama(tiny.file().file()) {}
  explicit OpenedLlama(const std::string& content)
      : memory(content),
        file(memory.bytes()),
        model(language_model::gguf_source(
            file, language_model::linear_of(file, language_model::Weights::Float))) {}

  language_model::KvCache cache(
      language_model::KvScalar scalar = language_model::KvScalar::Float) const {
    return {model.config().kv_shape(), TinyLlama::context, scalar};
  }

  Memory memory;
  io::GgufFile file;
  language_model::Llama model;
};

}  // namespace pare::testing
