// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A sentence encoder with all that belongs to it, from one folder, and its sentence vectors.

#include "common/bert.hpp"
#include "common/model_folder.hpp"
#include "common/word_piece.hpp"

#include <pare/core/matrix.hpp>
#include <pare/io/safetensors.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace encoder {

/// The folder that was asked for, or MiniLM's from the folder of models.
/// \throws std::runtime_error if neither is there
inline std::filesystem::path model_folder(const std::optional<std::string>& named) {
  if (named) return *named;
  if (const auto found = models::find(models::minilm)) return *found;
  throw std::runtime_error(std::string("there is no ") + models::minilm + " in " +
                           models::folder().string() +
                           ": run `cmake/bootstrap.sh model`, or name a folder with --model");
}

/// A folder's model.safetensors, config.json and vocab.txt; it stays where it is, since the model
/// looks into the file.
struct OpenEncoder {
  explicit OpenEncoder(const std::filesystem::path& folder)
      : file(folder / "model.safetensors"),
        tokenizer(read_pieces(folder / "vocab.txt")),
        bert(file, read_bert_config(folder / "config.json")) {}
  OpenEncoder(const OpenEncoder&) = delete;
  OpenEncoder& operator=(const OpenEncoder&) = delete;

  pare::io::SafetensorsFile file;
  WordPiece tokenizer;
  Bert bert;
};

/// The lines of a text that are not blank.
/// \throws std::runtime_error if it cannot be read or has none
inline std::vector<std::string> read_sentences(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path))
    throw std::runtime_error(path + ": cannot be opened for reading");
  std::vector<std::string> sentences;
  for (std::string line; std::getline(file, line);)
    if (line.find_first_not_of(" \t\r") != std::string::npos) sentences.push_back(line);
  if (file.bad()) throw std::runtime_error(path + ": reading failed");
  if (sentences.empty()) throw std::runtime_error(path + ": there is no sentence in it");
  return sentences;
}

/// Of each sentence at most so many tokens, [CLS] and [SEP] among them.
inline std::vector<std::vector<Token>> tokens_of(const WordPiece& tokenizer,
                                                 const std::vector<std::string>& sentences,
                                                 Index most) {
  std::vector<std::vector<Token>> tokens;
  tokens.reserve(sentences.size());
  for (const std::string& sentence : sentences) tokens.push_back(tokenizer.encode(sentence, most));
  return tokens;
}

/// Tokens up to which sentences go through the model together: enough for its products to be at
/// their limit, and [tokens, hidden] stays in cache.
inline constexpr std::size_t batch_tokens = 1024;

/// Runs the model on sentences, as many at a time as have batch_tokens, at least one:
/// visit(first, batch, tokens) gets the number of the first sentence and token vectors, which are
/// gone after the call.
/// \param progress is given the share that is done
/// \throws std::invalid_argument as Bert::forward
template <class B, class Visit, class Progress>
void for_each_batch(const Bert& bert, const B& backend,
                    const std::vector<std::vector<Token>>& sentences, const Visit& visit,
                    Progress&& progress) {
  pare::RowMatrix<float> vectors;
  for (std::size_t first = 0; first < sentences.size();) {
    Batch batch;
    std::size_t next = first;
    do batch.add(sentences[next++]);
    while (next < sentences.size() && batch.tokens.size() + sentences[next].size() <= batch_tokens);
    vectors.resize(static_cast<Index>(batch.tokens.size()), bert.config().dim);
    bert.forward(backend, batch, pare::to_view(vectors));
    visit(static_cast<Index>(first), batch, pare::as_const(pare::to_view(vectors)));
    first = next;
    progress(static_cast<double>(first) / static_cast<double>(sentences.size()));
  }
}

/// [sentences, dim], each of length 1.
template <class B, class Progress>
pare::RowMatrix<float> sentence_vectors(const Bert& bert, const B& backend,
                                        const std::vector<std::vector<Token>>& sentences,
                                        Progress&& progress) {
  pare::RowMatrix<float> all(static_cast<Index>(sentences.size()), bert.config().dim);
  for_each_batch(
      bert, backend, sentences,
      [&](Index first, const Batch& batch, TensorView<const float, 2> tokens) {
        mean_vectors(batch, tokens,
                     {&all(first, 0), {batch.sentences(), all.cols()}, {all.cols(), 1}});
      },
      progress);
  return all;
}

/// Of each sentence the cosine between its two vectors of length 1.
inline std::vector<double> cosines_of(const pare::RowMatrix<float>& a,
                                      const pare::RowMatrix<float>& b) {
  std::vector<double> cosines(static_cast<std::size_t>(a.rows()));
  for (std::size_t i = 0; i < cosines.size(); ++i) {
    const auto row = static_cast<Index>(i);
    cosines[i] = a.row(row).cast<double>().dot(b.row(row).cast<double>());
  }
  return cosines;
}

}  // namespace encoder
