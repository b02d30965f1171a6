// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Where the real models are that `cmake/bootstrap.sh model` fetches: in the folder that the
/// environment variable PARE_MODELS names, else in that of the build, else in build/models.

#include <cstdlib>
#include <filesystem>
#include <optional>

namespace models {

inline constexpr const char* smollm2 = "SmolLM2-135M-Instruct.Q4_1.gguf";
inline constexpr const char* minilm = "all-MiniLM-L6-v2";  ///< a folder

inline std::filesystem::path folder() {
  if (const char* const named = std::getenv("PARE_MODELS"); named != nullptr && *named != '\0')
    return named;
#if defined(PARE_MODELS_FOLDER)
  return PARE_MODELS_FOLDER;
#else
  return "build/models";
#endif
}

/// The path of a model, or nothing if it is not there.
inline std::optional<std::filesystem::path> find(const char* name) {
  std::filesystem::path path = folder() / name;
  std::error_code ignored;
  return std::filesystem::exists(path, ignored) ? std::optional(std::move(path)) : std::nullopt;
}

}  // namespace models
