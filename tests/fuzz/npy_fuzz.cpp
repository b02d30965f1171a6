// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of the .npy reader. Built with libFuzzer (clang -fsanitize=fuzzer) it is an entry
/// point; built with PARE_FUZZ_STANDALONE it has a main that runs seeded mutations of valid files:
/// `npy_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/io/npy.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

using pare::fuzz::require;

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

/// Words of the format.
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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  parse_as_every_type(std::as_bytes(std::span(data, size)));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
int main(int argc, char** argv) {
  return pare::fuzz::run_file_mutations("npy_fuzz", argc, argv, valid_files(), tokens,
                                        parse_as_every_type);
}
#else
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  static const std::vector<Parts> files = valid_files();
  return pare::fuzz::mutate_file(data, size, most, seed, files, tokens);
}
#endif
