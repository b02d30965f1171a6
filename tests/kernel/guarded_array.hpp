// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Arrays between two pages that may not be touched.

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <new>
#include <type_traits>

namespace pare::testing {

/// Which end of the array lies at a forbidden page; the other end is followed by known bytes.
enum class Guard { before, after };

/// `size` elements with a page in front and one behind that end the program when touched. Elements
/// start as bytes 0xFF, NaN in floating point, and so do the bytes between the array and the far
/// guard page.
template <class T>
class GuardedArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit GuardedArray(std::ptrdiff_t size, Guard guard = Guard::after)
      : size_(static_cast<std::size_t>(size)) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t used = size_ * sizeof(T);
    inside_ = (used + page - 1) / page * page;
    mapped_ = inside_ + 2 * page;
    void* memory =
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<unsigned char*>(memory);
    first_ = base_ + page;
    std::memset(first_, filler, inside_);
    data_ = reinterpret_cast<T*>(guard == Guard::after ? first_ + inside_ - used : first_);
    mprotect(base_, page, PROT_NONE);
    mprotect(first_ + inside_, page, PROT_NONE);
  }
  GuardedArray(const GuardedArray&) = delete;
  GuardedArray& operator=(const GuardedArray&) = delete;
  ~GuardedArray() { munmap(base_, mapped_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::ptrdiff_t size() const { return static_cast<std::ptrdiff_t>(size_); }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  T& operator[](std::ptrdiff_t i) { return data_[i]; }
  const T& operator[](std::ptrdiff_t i) const { return data_[i]; }

  /// Element i still holds what it was created with.
  bool untouched(std::ptrdiff_t i) const {
    unsigned char bytes[sizeof(T)];
    std::memset(bytes, filler, sizeof(T));
    return std::memcmp(data_ + i, bytes, sizeof(T)) == 0;
  }

  /// The bytes between the array and the far guard page were not written.
  bool surroundings_untouched() const {
    const auto* begin = reinterpret_cast<const unsigned char*>(data_);
    const auto* end = reinterpret_cast<const unsigned char*>(data_ + size_);
    for (const unsigned char* p = first_; p != first_ + inside_; ++p)
      if ((p < begin || p >= end) && *p != filler) return false;
    return true;
  }

 private:
  static constexpr unsigned char filler = 0xFF;

  std::size_t size_, inside_ = 0, mapped_ = 0;
  unsigned char* base_ = nullptr;
  unsigned char* first_ = nullptr;
  T* data_ = nullptr;
};

}  // namespace pare::testing
