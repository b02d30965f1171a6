// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What fuzz targets share: numbers made of bytes, and seeded edits of valid bytes.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <span>
#include <utility>
#include <vector>

namespace pare::fuzz {

using Data = std::vector<std::uint8_t>;

/// Numbers from bytes: small ones, and the ends of the type for the ends of a byte.
class Bytes {
 public:
  explicit Bytes(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

  template <class T>
  T number() {
    const int value = static_cast<std::int8_t>(byte());
    if (value == 127) return std::numeric_limits<T>::max();
    if (value == -128) return std::numeric_limits<T>::min();
    return static_cast<T>(value);
  }

  template <class T>
  std::vector<T> list() {
    std::vector<T> numbers(byte());
    for (T& n : numbers) n = number<T>();
    return numbers;
  }

 private:
  std::uint8_t byte() {
    if (bytes_.empty()) return 0;
    const std::uint8_t first = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return first;
  }

  std::span<const std::uint8_t> bytes_;
};

/// One or two edits: a byte set, moved by one, set to an end, copied from elsewhere, exchanged,
/// dropped.
inline Data mutated(Data bytes, std::mt19937_64& random) {
  const auto place = [&] { return static_cast<std::size_t>(random() % bytes.size()); };
  for (std::uint64_t edit = 0, edits = 1 + random() % 2; edit < edits; ++edit) {
    const std::size_t at = place();
    switch (random() % 6) {
      case 0:
        bytes[at] = static_cast<std::uint8_t>(random());
        break;
      case 1:
        bytes[at] = static_cast<std::uint8_t>(bytes[at] + (random() % 2 == 0 ? 1 : 255));
        break;
      case 2:
        bytes[at] = random() % 2 == 0 ? 127 : 128;
        break;
      case 3:
        bytes[at] = bytes[place()];
        break;
      case 4:
        std::swap(bytes[at], bytes[place()]);
        break;
      default:
        if (bytes.size() > 1) bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at));
        break;
    }
  }
  return bytes;
}

/// The program `name [runs] [seed]`: valid bytes must be taken, and of their mutations some.
template <class Valid, class Try>
int run_mutations(const char* name, int argc, char** argv, const Valid& valid,
                  const Try& try_bytes) {
  const auto runs = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 50000ull;
  const auto seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1ull;
  std::mt19937_64 random(seed);
  unsigned long long taken = 0, lost = 0;
  for (unsigned long long run = 0; run < runs; ++run) {
    const Data bytes = valid(run, random);
    lost += try_bytes(bytes) ? 0 : 1;
    taken += try_bytes(mutated(bytes, random)) ? 1 : 0;
  }
  std::printf("%s: %llu mutations, %llu still valid, %llu refused; %llu valid inputs refused\n",
              name, runs, taken, runs - taken, lost);
  return lost == 0 && (runs < 1000 || (taken > 0 && taken < runs)) ? 0 : 1;
}

}  // namespace pare::fuzz
