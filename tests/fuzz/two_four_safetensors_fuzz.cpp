// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of 2:4 weights in .safetensors files: what is taken has two bits in each group, by a
/// second reading, and comes back from a file of its own. Built with libFuzzer (clang
/// -fsanitize=fuzzer) it is an entry point; built with PARE_FUZZ_STANDALONE it has a main that runs
/// seeded mutations of valid files: `two_four_safetensors_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/factor/structured/safetensors.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

using pare::Index;
using pare::factor::add_structured;
using pare::factor::read_structured;
using pare::factor::TwoFour;
using pare::factor::TwoFourMask;
using pare::fuzz::require;
using pare::io::NamedTensor;
using pare::io::SafetensorsFile;
using Parts = pare::fuzz::SafetensorsParts;

/// The bytes of a file, aligned: tensors that are not cannot be viewed.
std::vector<std::uint64_t> aligned(const std::string& text) {
  std::vector<std::uint64_t> words(text.size() / 8 + 1);
  std::memcpy(words.data(), text.data(), text.size());
  return words;
}

template <class S>
void check_weight(const TwoFour<S>& weight) {
  const TwoFourMask& mask = weight.mask();
  for (Index o = 0; o < mask.outputs(); ++o) {
    Index kept = 0;
    for (Index i = 0; i < mask.inputs(); ++i) {
      kept += mask.keeps(o, i) ? 1 : 0;
      require(i % 4 != 3 || kept == i / 4 * 2 + 2, "two of each four are kept");
    }
    Index entries = 0;
    for (Index w = 0; w < mask.row_words(); ++w) entries += __builtin_popcount(mask.words()(o, w));
    require(entries == mask.inputs() / 2, "no bit stands behind the last input");
  }
}

template <class S>
void round_trip(const TwoFour<S>& weight) {
  std::vector<NamedTensor> tensors;
  add_structured(tensors, "a", weight);
  std::ostringstream os;
  pare::io::write_safetensors(os, tensors);
  const std::string text = os.str();
  const auto words = aligned(text);
  const SafetensorsFile file(std::as_bytes(std::span(words)).first(text.size()));
  const auto again = read_structured<TwoFour<S>>(file, "a");
  require(again.mask() == weight.mask(), "the mask survives a round trip");
  const Index bytes = weight.outputs() * weight.row_values() * Index{sizeof(S)};
  require(
      std::memcmp(again.values().data, weight.values().data, static_cast<std::size_t>(bytes)) == 0,
      "values survive a round trip");
}

template <class S>
bool read(const SafetensorsFile& file) {
  std::optional<TwoFour<S>> weight;
  try {
    weight.emplace(read_structured<TwoFour<S>>(file, "a"));
  } catch (const std::invalid_argument&) {
    return false;
  }
  check_weight(*weight);
  round_trip(*weight);
  return true;
}

/// True if the bytes were taken.
bool parse(std::span<const std::byte> bytes) {
  const auto words =
      aligned(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  std::optional<SafetensorsFile> file;
  try {
    file.emplace(std::as_bytes(std::span(words)).first(bytes.size()));
  } catch (const std::invalid_argument&) {
    return false;
  }
  const int taken = read<float>(*file) + read<pare::bf16>(*file) + read<std::int8_t>(*file);
  require(taken <= 1, "a weight has one scalar");
  return taken == 1;
}

template <class S>
Parts parts_of(Index outputs, Index inputs) {
  const TwoFour<S> weight{TwoFourMask(outputs, inputs)};
  std::vector<NamedTensor> tensors;
  add_structured(tensors, "a", weight);
  std::ostringstream os;
  pare::io::write_safetensors(os, tensors);
  const std::string bytes = os.str();
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  return {bytes.substr(8, header), bytes.substr(8 + header)};
}

std::vector<Parts> valid_files() {
  std::vector<Parts> files;
  for (const Index inputs : {4, 16, 20, 132}) {
    files.push_back(parts_of<float>(2, inputs));
    files.push_back(parts_of<pare::bf16>(3, inputs));
    files.push_back(parts_of<std::int8_t>(1, inputs));
  }
  return files;
}

using namespace std::string_view_literals;
constexpr std::string_view tokens[] = {"\"a.values\""sv,
                                       "\"a.mask\""sv,
                                       "\"a.scales\""sv,
                                       "\"dtype\""sv,
                                       "\"shape\""sv,
                                       "\"F32\""sv,
                                       "\"BF16\""sv,
                                       "\"I8\""sv,
                                       "\"U16\""sv,
                                       "["sv,
                                       "]"sv,
                                       ","sv,
                                       "0"sv,
                                       "2"sv,
                                       "8"sv,
                                       "33"sv,
                                       "\x33"sv,
                                       "\xc5"sv,
                                       "9223372036854775807"sv};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  parse(std::as_bytes(std::span(data, size)));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
int main(int argc, char** argv) {
  return pare::fuzz::run_file_mutations("two_four_safetensors_fuzz", argc, argv, valid_files(),
                                        tokens, parse);
}
#else
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  static const std::vector<Parts> files = valid_files();
  return pare::fuzz::mutate_file(data, size, most, seed, files, tokens);
}
#endif
