// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What fuzz targets share: numbers made of bytes, seeded edits of valid bytes and of valid files,
/// and the programs that run them.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if !defined(PARE_FUZZ_STANDALONE)
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t*, std::size_t, std::size_t);
#endif

namespace pare::fuzz {

using Data = std::vector<std::uint8_t>;

/// Ends the program, which is how a fuzz target reports, unless `ok`.
inline void require(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

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

/// A .safetensors file: its header's length is right whatever the header.
struct SafetensorsParts {
  std::string text, data;

  std::string file() const {
    std::string bytes;
    for (std::size_t i = 0; i < 8; ++i) bytes += static_cast<char>(text.size() >> (8 * i) & 0xff);
    return bytes + text + data;
  }
};

/// What the edits of a file put in: words of its format.
using Tokens = std::span<const std::string_view>;

/// One to four edits: a byte, a bit, a token of the format, a cut, a repetition.
inline std::string mutated(std::string file, Tokens tokens, std::mt19937_64& random) {
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  for (std::size_t edit = 0, edits = 1 + below(4); edit < edits && !file.empty(); ++edit) {
    const std::size_t at = below(file.size());
    const std::size_t length = std::min(below(12), file.size() - at);
    const std::string_view token = tokens[below(tokens.size())];
    switch (below(7)) {
      case 0:
        file[at] = static_cast<char>(random());
        break;
      case 1:
        file[at] = static_cast<char>(file[at] ^ (1 << below(8)));
        break;
      case 2:
        file.insert(at, token);
        break;
      case 3:
        file.replace(at, std::min(token.size(), file.size() - at), token);
        break;
      case 4:
        file.erase(at, length);
        break;
      case 5:
        file.insert(at, file.substr(at, length));
        break;
      default:
        file.resize(at);
        break;
    }
  }
  return file;
}

/// The program `name [runs] [seed]` of a file format: valid files must be taken, and of their
/// mutations some. A file is a struct with a header `text` and `file()`, its bytes.
template <class Parts, class Parse>
int run_file_mutations(const char* name, int argc, char** argv, const std::vector<Parts>& files,
                       Tokens tokens, const Parse& parse_bytes) {
  const auto runs = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 50000ull;
  const auto seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1ull;
  const auto parse = [&](const std::string& file) {
    return parse_bytes(std::as_bytes(std::span(file.data(), file.size())));
  };
  for (const Parts& parts : files) require(parse(parts.file()), "valid files are read");
  std::mt19937_64 random(seed);
  unsigned long long taken = 0;
  for (unsigned long long run = 0; run < runs; ++run) {
    Parts parts = files[run % files.size()];
    // Every other run keeps the length of the header right, to get past it into the text.
    const bool in_text = run / files.size() % 2 == 0;
    if (in_text) parts.text = mutated(parts.text, tokens, random);
    taken += parse(in_text ? parts.file() : mutated(parts.file(), tokens, random)) ? 1 : 0;
  }
  std::printf("%s: %llu mutations, %llu still valid, %llu refused\n", name, runs, taken,
              runs - taken);
  require(runs < 1000 || (taken > 0 && taken < runs), "mutations reach both sides of the checks");
  return 0;
}

#if !defined(PARE_FUZZ_STANDALONE)
/// libFuzzer's own edits; one input in four starts from a valid file.
template <class Parts>
std::size_t mutate_file(std::uint8_t* data, std::size_t size, std::size_t most, unsigned seed,
                        const std::vector<Parts>& files, Tokens tokens) {
  std::mt19937_64 random(seed);
  if (random() % 4 != 0) return LLVMFuzzerMutate(data, size, most);
  const std::string file = mutated(files[random() % files.size()].file(), tokens, random);
  size = std::min(file.size(), most);
  std::memcpy(data, file.data(), size);
  return size;
}
#endif

}  // namespace pare::fuzz
