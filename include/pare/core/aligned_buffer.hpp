// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Scratch memory: uninitialised, aligned to a cache line, growing only when asked for more.
///
/// ```cpp
/// pare::AlignedBuffer<float> scratch(rows * dim);      // uninitialised
/// float* const first = scratch.data();                 // at a multiple of 64 bytes
/// float* const more = scratch.resize(2 * rows * dim);  // new memory; the contents are lost
/// ```
///
/// Buffers of 8 MiB and more ask Linux for huge pages: rows gathered at random from a gigabyte
/// otherwise miss the TLB each time.

#include <pare/core/macros_off.hpp>

#include <pare/core/config.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pare {

PARE_ABI_BEGIN

/// Memory from this size on, in bytes, is worth huge pages.
inline constexpr std::size_t huge_pages_from = std::size_t{8} << 20;

/// Asks Linux for huge pages under memory that was allocated but not written yet, if it is large
/// enough to be worth them. Advice only: without them the memory works as well, if more slowly.
inline void advise_huge_pages([[maybe_unused]] void* memory,
                              [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::size_t page = 4096;
  const std::size_t skipped = (page - reinterpret_cast<std::uintptr_t>(memory) % page) % page;
  if (bytes >= huge_pages_from)
    madvise(static_cast<char*>(memory) + skipped, bytes - skipped, MADV_HUGEPAGE);
#endif
}

/// An owned array of trivial elements; not copied. It never shrinks.
template <class T>
class AlignedBuffer {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  static constexpr std::size_t alignment = 64;  ///< bytes, at least

  /// No memory: data() is null.
  AlignedBuffer() = default;
  /// Room for `size` elements. \throws std::bad_alloc if there is none.
  explicit AlignedBuffer(std::size_t size) { resize(size); }
  /// What is moved from has no memory.
  AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    memory_ = std::move(other.memory_);
    capacity_ = std::exchange(other.capacity_, 0);
    return *this;
  }

  /// Makes room for `size` elements and returns the first. Keeps memory and contents if they are
  /// large enough; otherwise frees them and takes new memory, uninitialised.
  /// \throws std::bad_alloc if there is none. The buffer is then empty. With PARE_NO_EXCEPTIONS a
  /// size past half the address space aborts.
  T* resize(std::size_t size) {
    if (size > capacity_) {
      memory_.reset();
      capacity_ = 0;
      memory_ = allocate(size);
      capacity_ = size;
    }
    return memory_.get();
  }

  /// The first element; null if there is no memory.
  T* data() const { return memory_.get(); }
  /// Elements that there is room for.
  std::size_t capacity() const { return capacity_; }

 private:
  static constexpr std::size_t huge_page = std::size_t{2} << 20;

  struct Free {
    std::size_t align = alignment;
    void operator()(T* p) const { ::operator delete(p, std::align_val_t{align}); }
  };
  using Memory = std::unique_ptr<T, Free>;

  static Memory allocate(std::size_t size) {
    if (size > static_cast<std::size_t>(-1) / 2 / sizeof(T)) throw_bad_alloc();
    const std::size_t bytes = size * sizeof(T);
    const std::size_t align = bytes >= huge_pages_from ? huge_page : alignment;
    void* memory = ::operator new(bytes, std::align_val_t{align});
    advise_huge_pages(memory, bytes);
    return Memory(static_cast<T*>(memory), Free{align});
  }

  [[noreturn]] static void throw_bad_alloc() {
#if defined(PARE_NO_EXCEPTIONS)
    std::abort();
#else
    throw std::bad_array_new_length();
#endif
  }

  Memory memory_;
  std::size_t capacity_ = 0;
};

PARE_ABI_END

}  // namespace pare

#include <pare/core/macros_on.hpp>
