// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A model of the study with all that belongs to it, from one file.

#include "common/model_folder.hpp"
#include "language_model/llama.hpp"
#include "language_model/tokenizer.hpp"
#include "language_model/weights.hpp"

#include <pare/io/gguf.hpp>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>

namespace language_model {

/// The file that was asked for, or SmolLM2 from the folder of models.
/// \throws std::runtime_error if neither is there
inline std::filesystem::path model_path(const std::optional<std::string>& named) {
  if (named) return *named;
  if (const auto found = models::find(models::smollm2)) return *found;
  throw std::runtime_error(std::string("there is no ") + models::smollm2 + " in " +
                           models::folder().string() +
                           ": run `cmake/bootstrap.sh model`, or name a file with --model");
}

/// A file, open, and what is made of it; it stays where it is, since they look into the file.
struct OpenModel {
  explicit OpenModel(const std::filesystem::path& path, Weights weights = Weights::Stored)
      : file(path), llama(source_of(file, weights)) {}
  OpenModel(const OpenModel&) = delete;
  OpenModel& operator=(const OpenModel&) = delete;

  pare::io::GgufFile file;
  Tokenizer tokenizer{read_vocabulary(file)};
  Llama llama;
};

/// \throws std::runtime_error if it cannot be read
inline std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path))
    throw std::runtime_error(path + ": cannot be opened for reading");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  if (file.bad()) throw std::runtime_error(path + ": reading failed");
  return text;
}

}  // namespace language_model
