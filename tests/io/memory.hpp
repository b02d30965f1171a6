// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The bytes of a file in memory.

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

/// A copy of a file at an address as aligned as that of a mapped one, of exactly its size, so that
/// a sanitizer sees every step outside.
class Memory {
 public:
  explicit Memory(std::string_view file) : bytes_(new std::byte[file.size()]), size_(file.size()) {
    std::memcpy(bytes_.get(), file.data(), file.size());
  }
  std::span<const std::byte> bytes() const { return {bytes_.get(), size_}; }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t size_;
};
