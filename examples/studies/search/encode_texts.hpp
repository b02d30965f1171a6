// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Token vectors of texts by a sentence encoder.
///
/// ```cpp
/// const TokenVectors queries = encode_texts(model, backend, texts, 256, progress);
/// ```
///
/// Those of [CLS] and [SEP] are left out: they say nothing of a word. The one vector of a text is
/// the mean over all of its tokens, these too, at length 1, as the model was trained.

#include "common/open_encoder.hpp"
#include "search/token_vectors.hpp"

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace search {

/// Appends a row at length 1; one of length 0 stays.
inline void append_unit(const float* row, Index dim, std::vector<bf16>& to) {
  double square = 0;
  for (Index c = 0; c < dim; ++c)
    square += static_cast<double>(row[c]) * static_cast<double>(row[c]);
  const double factor = square > 0 ? 1 / std::sqrt(square) : 0;
  for (Index c = 0; c < dim; ++c)
    to.emplace_back(static_cast<float>(static_cast<double>(row[c]) * factor));
}

/// \param most     tokens of a text, [CLS] and [SEP] among them: what is behind is cut off
/// \param progress is given the share that is done
template <class B, class Progress>
TokenVectors encode_texts(const encoder::OpenEncoder& model, const B& backend,
                          const std::vector<std::string>& texts, Index most, Progress&& progress) {
  const auto sentences = encoder::tokens_of(model.tokenizer, texts, most);
  const Index dim = model.bert.config().dim;
  TokenVectors made;
  for (const auto& sentence : sentences)
    made.offsets.push_back(made.offsets.back() + static_cast<Index>(sentence.size()) - 2);
  made.tokens.reserve(static_cast<std::size_t>(made.offsets.back() * dim));
  made.means.resize(static_cast<Index>(texts.size()), dim);
  encoder::for_each_batch(
      model.bert, backend, sentences,
      [&](Index first, const encoder::Batch& batch, TensorView<const float, 2> vectors) {
        encoder::mean_vectors(batch, vectors,
                              {&made.means(first, 0), {batch.sentences(), dim}, {dim, 1}});
        for (std::size_t i = 1; i < batch.offsets.size(); ++i)
          for (Index t = batch.offsets[i - 1] + 1; t < batch.offsets[i] - 1; ++t)
            append_unit(&vectors(t, 0), dim, made.tokens);
      },
      progress);
  return made;
}

}  // namespace search
