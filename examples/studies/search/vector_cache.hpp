// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Token vectors of documents in a file, since a model takes minutes to make them.
///
/// ```cpp
/// const VectorCache cache(path, key_of(model, texts, most), [&] { return encode_texts(...); });
/// cache.view();
/// ```
///
/// A file says what it was made of, and the sum of its bytes: one of other texts or of another
/// model, one that was cut or changed, is made anew. It is written beside its place and then
/// renamed.

#include "search/token_vectors.hpp"

#include <pare/io/safetensors.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace search {

/// FNV-1a over words of 8 bytes, the last one filled up with zeros.
inline std::uint64_t hashed(std::span<const std::byte> bytes, std::uint64_t hash) {
  for (std::size_t at = 0; at < bytes.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, std::min<std::size_t>(8, bytes.size() - at));
    hash = (hash ^ word) * 0x100000001b3;
    hash ^= hash >> 32;  // high bytes of a word reach the low ones of the hash
  }
  return hash;
}

template <class T>
std::uint64_t hashed(const T* values, std::size_t count, std::uint64_t hash) {
  return hashed(std::as_bytes(std::span(values, count)), hash ^ count);
}

inline std::uint64_t sum_of(const VectorView& v) {
  std::uint64_t hash = hashed(v.offsets.data(), v.offsets.size(), 1);
  hash = hashed(v.tokens.data, static_cast<std::size_t>(v.tokens.rows() * v.dim()), hash);
  return hashed(v.means.data, static_cast<std::size_t>(v.means.rows() * v.dim()), hash);
}

/// What vectors are made of: a model's weights, texts and how many tokens of each count.
inline std::uint64_t key_of(const pare::io::SafetensorsFile& model,
                            const std::vector<std::string>& texts, Index most) {
  constexpr std::uint64_t version = 1;
  std::uint64_t hash = hashed(&most, 1, version);
  for (const auto& tensor : model.tensors()) hash = hashed(tensor.bytes, hash);
  for (const std::string& text : texts) hash = hashed(text.data(), text.size(), hash);
  return hash;
}

class VectorCache {
 public:
  /// Opens a file, or makes it by make() -> TokenVectors.
  template <class Make>
  VectorCache(const std::filesystem::path& path, std::uint64_t key, const Make& make) {
    if (std::filesystem::exists(path)) {
      try {
        open(path, key);
        return;
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: made anew: %s\n", path.c_str(), error.what());
        file_.reset();
      }
    }
    std::filesystem::create_directories(path.parent_path());
    write(path, key, make());
    open(path, key);
  }

  VectorView view() const { return view_; }

 private:
  static void write(const std::filesystem::path& path, std::uint64_t key,
                    const TokenVectors& made) {
    const VectorView v = made.view();
    pare::io::write_safetensors(
        path, {{"tokens", v.tokens}, {"means", v.means}, {"offsets", made.offsets}},
        {{"made of", std::to_string(key)}, {"sum", std::to_string(sum_of(v))}});
  }

  void open(const std::filesystem::path& path, std::uint64_t key) {
    file_.emplace(path);
    const auto expect = [&](const char* note, std::uint64_t wanted, const char* wrong) {
      const auto found = file_->metadata().find(note);
      if (found == file_->metadata().end() || found->second != std::to_string(wanted))
        throw std::runtime_error(wrong);
    };
    expect("made of", key, "it is of other texts or of another model");
    const auto offsets = file_->view<std::int64_t, 1>("offsets");
    view_.tokens = file_->matrix<bf16>("tokens");
    view_.means = file_->matrix<float>("means");
    offsets_.assign(offsets.data, offsets.data + offsets.extent[0]);
    view_.offsets = offsets_;
    if (offsets.extent[0] != view_.texts() + 1 || view_.tokens.cols() != view_.dim() ||
        offsets_.back() != view_.tokens.rows())
      throw std::runtime_error("its tensors do not fit each other");
    expect("sum", sum_of(view_), "its bytes are not those that were written");
  }

  std::optional<pare::io::SafetensorsFile> file_{};
  std::vector<Index> offsets_{};
  VectorView view_{};
};

}  // namespace search
