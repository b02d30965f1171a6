// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Arrays carved from one untyped buffer, so that a worker's scratch memory is one allocation.
///
/// ```cpp
/// AlignedBuffer<std::byte> memory;
/// float *sums, *row;
/// carve_from(memory, [&](Carver& take) {
///   take(sums, rows * dim);
///   take(row, dim);
/// });
/// const auto rooms = worker_rooms<Room>(memory, workers, [](Room& room, Carver& take) {
///   take(room.sums, 64);
/// });
/// rooms.of(worker).sums[0] = 0;
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <cstddef>
#include <utility>

namespace pare {
PARE_ABI_BEGIN

/// Hands out arrays of an untyped buffer, each on a cache line of its own. With no buffer it only
/// counts.
class Carver {
 public:
  explicit Carver(std::byte* memory) : memory_(memory) {}

  /// Points `array` to room for `size` objects, which are not constructed.
  template <class X>
  void operator()(X*& array, Index size) {
    if (memory_ != nullptr) array = reinterpret_cast<X*>(memory_ + used_);
    // NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant where X is one
    const auto bytes = static_cast<std::size_t>(size) * sizeof(X);
    used_ += (bytes + 63) / 64 * 64;
  }

  /// Bytes handed out so far.
  std::size_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

/// Calls carve(Carver&) twice: to count, and with `memory` made as large as that. The arrays live
/// until `memory` is resized.
template <class F>
void carve_from(AlignedBuffer<std::byte>& memory, const F& carve) {
  Carver count(nullptr);
  carve(count);
  Carver place(memory.resize(count.used()));
  carve(place);
}

/// Arrays of each worker, in one buffer. `carve(room, take)` points those of a Room.
template <class Room, class Carve>
class WorkerRooms {
 public:
  WorkerRooms(AlignedBuffer<std::byte>& buffer, Index workers, Carve carve)
      : carve_(std::move(carve)) {
    Room none;
    Carver count(nullptr);
    carve_(none, count);
    each_ = count.used();
    memory_ = buffer.resize(each_ * static_cast<std::size_t>(workers));
  }

  Room of(Index worker) const {
    Room room;
    Carver place(memory_ + each_ * static_cast<std::size_t>(worker));
    carve_(room, place);
    return room;
  }

 private:
  Carve carve_;
  std::size_t each_ = 0;
  std::byte* memory_ = nullptr;
};

/// A Room for each worker; they live until `buffer` is resized.
template <class Room, class Carve>
WorkerRooms<Room, Carve> worker_rooms(AlignedBuffer<std::byte>& buffer, Index workers,
                                      Carve carve) {
  return {buffer, workers, std::move(carve)};
}

/// Room for `size` scalars in an untyped buffer.
template <class T>
T* make_room(AlignedBuffer<std::byte>& buffer, Index size) {
  return reinterpret_cast<T*>(buffer.resize(static_cast<std::size_t>(size) * sizeof(T)));
}

/// A matrix of the buffer's own, [rows, cols] without gaps; what was in it may be lost. The product
/// is not checked.
template <class T>
TensorView<T, 2> matrix_in(AlignedBuffer<T>& buffer, Index rows, Index cols) {
  return {buffer.resize(static_cast<std::size_t>(rows * cols)), {rows, cols}, {cols, 1}};
}

/// A number of scalars rounded up to whole cache lines, whatever the scalar.
inline Index whole_lines(Index size) { return (size + 63) / 64 * 64; }

PARE_ABI_END
}  // namespace pare

#include <pare/core/macros_on.hpp>
