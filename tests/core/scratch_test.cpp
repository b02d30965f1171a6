// SPDX-License-Identifier: Apache-2.0
// Arrays carved from one buffer, and parts of matrices as views.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include <pare/core/matrix.hpp>
#include <pare/core/scratch.hpp>

namespace core_scratch_test {
namespace {

using pare::AlignedBuffer;
using pare::Carver;
using pare::Index;
using pare::RowMatrix;

TEST(CarveFrom, ArraysHaveCacheLinesOfTheirOwn) {
  AlignedBuffer<std::byte> memory;
  for (const Index size : {Index{0}, Index{1}, Index{17}, Index{64}}) {
    char* first = nullptr;
    double* second = nullptr;
    std::uint16_t* third = nullptr;
    pare::carve_from(memory, [&](Carver& take) {
      take(first, size);
      take(second, size);
      take(third, size);
    });
    const auto at = [&](const void* p) {
      return static_cast<Index>(static_cast<const std::byte*>(p) - memory.data());
    };
    EXPECT_EQ(at(first), 0);
    EXPECT_GE(at(second), at(first) + size);
    EXPECT_GE(at(third), at(second) + 8 * size);
    EXPECT_EQ(at(second) % 64, 0);
    EXPECT_EQ(at(third) % 64, 0);
    // Every element may be written.
    for (Index i = 0; i < size; ++i) first[i] = 1, second[i] = 2, third[i] = 3;
  }
}

TEST(CarveFrom, WithoutMemoryItOnlyCounts) {
  Carver count(nullptr);
  float* array = nullptr;
  count(array, 17);
  EXPECT_EQ(array, nullptr);
  EXPECT_EQ(count.used(), 128u);
}

struct Room {
  char* first = nullptr;
  double* second = nullptr;
};

TEST(WorkerRooms, AreApart) {
  AlignedBuffer<std::byte> memory;
  const auto rooms = pare::worker_rooms<Room>(memory, 3, [](Room& room, Carver& take) {
    take(room.first, 3);
    take(room.second, 9);
  });
  EXPECT_EQ(memory.capacity(), 3 * (64u + 128u));
  for (Index w = 0; w < 3; ++w) {
    const Room room = rooms.of(w);
    EXPECT_EQ(reinterpret_cast<std::byte*>(room.first) - memory.data(), w * 192);
    EXPECT_EQ(reinterpret_cast<std::byte*>(room.second) - memory.data(), w * 192 + 64);
    EXPECT_EQ(rooms.of(w).second, room.second);
  }
}

TEST(MatrixIn, HasNoGapsAndKeepsMemoryThatIsLargeEnough) {
  AlignedBuffer<float> buffer;
  const auto wide = pare::matrix_in(buffer, 3, 5);
  EXPECT_EQ(wide.extent, (std::array<Index, 2>{3, 5}));
  EXPECT_EQ(wide.stride, (std::array<Index, 2>{5, 1}));
  for (Index i = 0; i < 15; ++i) wide.data[i] = static_cast<float>(i);
  EXPECT_EQ(pare::matrix_in(buffer, 5, 2).data, wide.data);
  EXPECT_EQ(pare::matrix_in(buffer, 0, 2).extent[0], 0);
  EXPECT_GE(buffer.capacity(), 15u);
}

TEST(WholeLines, RoundsUpToTheWidestLine) {
  EXPECT_EQ(pare::whole_lines(0), 0);
  EXPECT_EQ(pare::whole_lines(1), 64);
  EXPECT_EQ(pare::whole_lines(64), 64);
  EXPECT_EQ(pare::whole_lines(65), 128);
}

TEST(PartsOfMatrices, AreTheSameMemory) {
  RowMatrix<float> m(3, 5);
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 5; ++j) m(i, j) = static_cast<float>(10 * i + j);
  const auto part = pare::columns_of(pare::rows_of(pare::const_view(m), 1, 2), 2, 3);
  EXPECT_EQ(part.rows(), 2);
  EXPECT_EQ(part.cols(), 3);
  for (Index i = 0; i < 2; ++i)
    for (Index j = 0; j < 3; ++j) EXPECT_EQ(&part(i, j), &m(i + 1, j + 2));
}

}  // namespace
}  // namespace core_scratch_test
