// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The bytes of a whole file: mapped where the system maps files, read otherwise.

#include <pare/core/check.hpp>
#include <pare/io/detail/place.hpp>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <ios>
#include <memory>
#include <span>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define PARE_HAS_MMAP 1
#else
#define PARE_HAS_MMAP 0
#endif

namespace pare::io::detail {

PARE_ABI_BEGIN

/// Bytes, and what keeps them where they are; the first lies at a multiple of 16.
struct FileBytes {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;
  std::span<const std::byte> mapping{};  ///< the same where they are mapped
};

inline FileBytes read_file_bytes(const Place& place, const std::filesystem::path& path,
                                 const char* wanted) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? std::streamoff{file.tellg()} : -1;
  if (size < 0 || !file.seekg(0)) place.refuse("a file that cannot be opened", wanted);
  const std::shared_ptr<std::byte[]> memory(new std::byte[static_cast<std::size_t>(size)]);
  if (!file.read(reinterpret_cast<char*>(memory.get()), size))
    place.refuse("a file that cannot be read", wanted);
  return {memory, {memory.get(), static_cast<std::size_t>(size)}};
}

#if PARE_HAS_MMAP
/// Without an owner if the system cannot open or map this file; an empty one cannot be mapped.
inline FileBytes map_file_bytes(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  struct stat status{};
  void* at = MAP_FAILED;
  if (::fstat(file, &status) == 0 && status.st_size > 0)
    at = ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
  ::close(file);
  if (at == MAP_FAILED) return {};
  const auto size = static_cast<std::size_t>(status.st_size);
  return {std::shared_ptr<const void>(at, [at, size](const void*) { ::munmap(at, size); }),
          {static_cast<const std::byte*>(at), size},
          {static_cast<const std::byte*>(at), size}};
}
#endif

/// Lets go of the memory that pages of a mapping take; what is read again comes from the file.
inline void release_pages(std::span<const std::byte> mapping) {
#if PARE_HAS_MMAP
  // Advice only; the mapping is read-only, so that nothing is lost.
  if (!mapping.empty())
    ::madvise(const_cast<std::byte*>(mapping.data()), mapping.size(), MADV_DONTNEED);
#else
  static_cast<void>(mapping);
#endif
}

inline FileBytes file_bytes(const Place& place, const std::filesystem::path& path,
                            const char* wanted) {
  check_regular_file(place, path, wanted);
#if PARE_HAS_MMAP
  FileBytes mapped = map_file_bytes(path);
  if (mapped.owner) return mapped;
#endif
  return read_file_bytes(place, path, wanted);
}

PARE_ABI_END
}  // namespace pare::io::detail
