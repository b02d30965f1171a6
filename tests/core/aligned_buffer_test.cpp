// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/core/aligned_buffer.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

namespace core_aligned_buffer_test {
namespace {

using pare::AlignedBuffer;

TEST(AlignedBuffer, StartsOnItsAlignmentAndKeepsMemoryThatIsLargeEnough) {
  static_assert(!std::is_copy_constructible_v<AlignedBuffer<float>>);
  AlignedBuffer<float> buffer;
  EXPECT_EQ(buffer.data(), nullptr);
  for (const std::size_t size : {std::size_t{1}, std::size_t{1000}, std::size_t{3} << 20}) {
    float* data = buffer.resize(size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data) % AlignedBuffer<float>::alignment, 0u);
    EXPECT_EQ(buffer.capacity(), size);
    data[size - 1] = 3;
    EXPECT_EQ(buffer.resize(size / 2), data);
    EXPECT_EQ(buffer.data()[size - 1], 3);
  }
}

TEST(AlignedBuffer, WhatIsMovedFromHasNoMemory) {
  AlignedBuffer<double> from(20);
  double* data = from.data();
  data[19] = 5;
  AlignedBuffer<double> to(std::move(from));
  EXPECT_EQ(to.data(), data);
  EXPECT_EQ(from.capacity(), 0u);
  ASSERT_NE(from.resize(3), nullptr);
  EXPECT_EQ(from.capacity(), 3u);
  from = std::move(to);
  EXPECT_EQ(from.data(), data);
  EXPECT_EQ(from.data()[19], 5);
  ASSERT_NE(to.resize(20), nullptr);
}

TEST(AlignedBuffer, RefusesWhatNoMemoryHolds) {
  AlignedBuffer<double> buffer(4);
  const std::size_t most = std::numeric_limits<std::size_t>::max();
  EXPECT_THROW(buffer.resize(most / 8), std::bad_alloc);
  EXPECT_EQ(buffer.capacity(), 0u);
  EXPECT_THROW(buffer.resize(most), std::bad_alloc);
}

}  // namespace
}  // namespace core_aligned_buffer_test
