// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of the .npy reader. Built with libFuzzer (clang -fsanitize=fuzzer) it is an entry
/// point; built with PARE_FUZZ_STANDALONE it has a main that runs seeded mutations of valid files:
/// `npy_fuzz [runs] [seed]`.

#include <pare/io/npy.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <random>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#if !defined(PARE_FUZZ_STANDALONE)
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t*, std::size_t, std::size_t);
#endif

namespace {

void require(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "npy_fuzz: broken: %s\n", what);
  std::abort();
}

/// Parses; on success checks the invariants, writes, and parses again. True if the bytes were
/// taken.
template <class T>
bool round_trip(std::span<const std::byte> bytes) {
  pare::io::NpyArray<T> array;
  try {
    array = pare::io::parse_npy<T>(bytes);
  } catch (const std::invalid_argument&) {
    return false;
  }
  std::size_t count = 1;
  for (const pare::Index extent : array.shape) {
    require(extent >= 0, "no extent is negative");
    count *= static_cast<std::size_t>(extent);
  }
  require(count == array.data.size(), "the shape accounts for every element");
  require(count <= bytes.size(), "no more elements than bytes");

  std::ostringstream os;
  pare::io::write_npy(os, array);
  const std::string file = os.str();
  const auto again = pare::io::parse_npy<T>(std::as_bytes(std::span(file.data(), file.size())));
  require(again.shape == array.shape, "the shape survives a round trip");
  require(
      again.data.size() == array.data.size() &&
          (count == 0 || std::memcmp(again.data.data(), array.data.data(), count * sizeof(T)) == 0),
      "the data survives a round trip");
  return true;
}

bool parse_as_every_type(std::span<const std::byte> bytes) {
  bool taken = round_trip<double>(bytes);
  taken = round_trip<float>(bytes) || taken;
  taken = round_trip<pare::f16>(bytes) || taken;
  taken = round_trip<std::int64_t>(bytes) || taken;
  taken = round_trip<std::uint64_t>(bytes) || taken;
  return round_trip<std::uint8_t>(bytes) || taken;
}

struct Parts {
  std::string text, data;
  int version;

  std::string file() const {
    std::string bytes = "\x93NUMPY";
    bytes += {static_cast<char>(version), '\0'};
    for (std::size_t i = 0; i < (version == 1 ? 2u : 4u); ++i)
      bytes += static_cast<char>(text.size() >> (8 * i) & 0xff);
    return bytes + text + data;
  }
};

std::vector<Parts> valid_files() {
  std::vector<Parts> files;
  for (const char* dtype :
       {"|b1", "|u1", "|i1", "<f2", ">f2", "<i4", ">u4", "<f4", ">f8", "<i8", "f4", "=u2", "i1"}) {
    const auto item = static_cast<std::size_t>(std::string_view(dtype).back() - '0');
    std::string data(12 * item, '\0');
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 37);
    const std::string start = "{'descr': '" + std::string(dtype) + "', 'fortran_order': ";
    files.push_back({start + "False, 'shape': (), }\n", data.substr(0, item), 1});
    files.push_back({start + "True, 'shape': (2, 3, 2)}", data, 2});
    files.push_back({start + "False, 'shape': (0, 5), }  \n", "", 3});
    files.push_back({start + "True, u'shape': (7L,), }\n", data.substr(0, 7 * item), 1});
  }
  return files;
}

/// One to four edits: a byte, a bit, a token of the format, a cut, a repetition.
std::string mutated(std::string file, std::mt19937_64& random) {
  constexpr std::string_view tokens[] = {"'descr'",
                                         "'shape'",
                                         "'fortran_order'",
                                         "True",
                                         "False",
                                         "(",
                                         ")",
                                         ",",
                                         "-1",
                                         "0",
                                         "9",
                                         "18446744073709551615",
                                         "9223372036854775807",
                                         "4294967296",
                                         "L",
                                         "'",
                                         "\"",
                                         "{",
                                         "}",
                                         "<f4",
                                         "[('a', '<f4')]",
                                         "\xff",
                                         " ",
                                         "\n"};
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  for (std::size_t edit = 0, edits = 1 + below(4); edit < edits && !file.empty(); ++edit) {
    const std::size_t at = below(file.size());
    const std::size_t length = std::min(below(12), file.size() - at);
    const std::string_view token = tokens[below(std::size(tokens))];
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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  parse_as_every_type(std::as_bytes(std::span(data, size)));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
int main(int argc, char** argv) {
  const auto runs = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 50000ull;
  const auto seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1ull;
  const auto parse = [](const std::string& file) {
    return parse_as_every_type(std::as_bytes(std::span(file.data(), file.size())));
  };
  const std::vector<Parts> files = valid_files();
  for (const Parts& parts : files) require(parse(parts.file()), "valid files are read");
  std::mt19937_64 random(seed);
  unsigned long long taken = 0;
  for (unsigned long long run = 0; run < runs; ++run) {
    Parts parts = files[run % files.size()];
    // Every other run keeps the length of the header right, to get past it into the dictionary.
    const bool in_text = run / files.size() % 2 == 0;
    if (in_text) parts.text = mutated(parts.text, random);
    taken += parse(in_text ? parts.file() : mutated(parts.file(), random)) ? 1 : 0;
  }
  std::printf("npy_fuzz: %llu mutations, %llu still valid, %llu refused\n", runs, taken,
              runs - taken);
  require(runs < 1000 || (taken > 0 && taken < runs), "mutations reach both sides of the checks");
  return 0;
}
#else
/// libFuzzer's own edits; one input in four starts from a valid file.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  static const std::vector<Parts> files = valid_files();
  std::mt19937_64 random(seed);
  if (random() % 4 != 0) return LLVMFuzzerMutate(data, size, most);
  const std::string file = mutated(files[random() % files.size()].file(), random);
  size = std::min(file.size(), most);
  std::memcpy(data, file.data(), size);
  return size;
}
#endif
