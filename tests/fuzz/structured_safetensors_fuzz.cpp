// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of structured weights in .safetensors files, 2:4, block-diagonal and dense times
/// sparse: what is taken is sound by a second reading (two bits in each group; blocks that fill the
/// size; ascending places of atoms), and comes back from a file of its own. Built with libFuzzer
/// (clang -fsanitize=fuzzer) it is an entry point; built with PARE_FUZZ_STANDALONE it has a main
/// that runs seeded mutations of valid files: `structured_safetensors_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/factor/structured/block_diagonal.hpp>
#include <pare/factor/structured/dense_sparse_weight.hpp>
#include <pare/factor/structured/safetensors.hpp>
#include <pare/factor/structured/two_four.hpp>

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
using pare::factor::BlockDiagonal;
using pare::factor::DenseSparse;
using pare::factor::DenseSparseShape;
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
void check_weight(const BlockDiagonal<S>& weight) {
  require(weight.block() >= 1 && weight.blocks() * weight.block() == weight.size(),
          "blocks fill the size");
}

template <class S>
void check_weight(const DenseSparse<S>& weight) {
  for (Index o = 0; o < weight.outputs(); ++o)
    for (Index k = 0; k < weight.nonzeros(); ++k)
      require(weight.place(o, k) < weight.atoms() &&
                  (k == 0 || weight.place(o, k) > weight.place(o, k - 1)),
              "places ascend below the atoms");
}

template <class T, std::size_t Rank>
bool same_bytes(const pare::TensorView<const T, Rank>& a, const pare::TensorView<const T, Rank>& b,
                Index size) {
  return std::memcmp(a.data, b.data, static_cast<std::size_t>(size) * sizeof(T)) == 0;
}

template <class S>
bool are_same(const TwoFour<S>& a, const TwoFour<S>& b) {
  return a.mask() == b.mask() && same_bytes(a.values(), b.values(), a.outputs() * a.row_values());
}

template <class S>
bool are_same(const BlockDiagonal<S>& a, const BlockDiagonal<S>& b) {
  return a.size() == b.size() && a.block() == b.block() &&
         same_bytes(a.values(), b.values(), a.size() * a.block());
}

template <class S>
bool are_same(const DenseSparse<S>& a, const DenseSparse<S>& b) {
  bool same = a.blocks() == b.blocks() && a.atoms() == b.atoms() &&
              same_bytes(a.dictionary(), b.dictionary(), a.blocks() * a.atoms() * a.inputs());
  for (Index o = 0; o < a.outputs(); ++o)
    for (Index k = 0; k < a.nonzeros(); ++k) {
      const S x = a.value(o, k), y = b.value(o, k);
      same = same && a.place(o, k) == b.place(o, k) && std::memcmp(&x, &y, sizeof(S)) == 0;
    }
  return same;
}

template <class W>
void round_trip(const W& weight) {
  std::vector<NamedTensor> tensors;
  add_structured(tensors, "a", weight);
  std::ostringstream os;
  pare::io::write_safetensors(os, tensors);
  const std::string text = os.str();
  const auto words = aligned(text);
  const SafetensorsFile file(std::as_bytes(std::span(words)).first(text.size()));
  require(are_same(read_structured<W>(file, "a"), weight), "a weight survives a round trip");
}

template <class W>
bool read(const SafetensorsFile& file) {
  std::optional<W> weight;
  try {
    weight.emplace(read_structured<W>(file, "a"));
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
  const int taken = read<TwoFour<float>>(*file) + read<TwoFour<pare::bf16>>(*file) +
                    read<TwoFour<std::int8_t>>(*file) + read<BlockDiagonal<float>>(*file) +
                    read<BlockDiagonal<pare::bf16>>(*file) + read<DenseSparse<float>>(*file) +
                    read<DenseSparse<pare::bf16>>(*file);
  require(taken <= 1, "a weight is of one kind and scalar");
  return taken == 1;
}

template <class W>
Parts parts_of(const W& weight) {
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
    files.push_back(parts_of(TwoFour<float>(TwoFourMask(2, inputs))));
    files.push_back(parts_of(TwoFour<pare::bf16>(TwoFourMask(3, inputs))));
    files.push_back(parts_of(TwoFour<std::int8_t>(TwoFourMask(1, inputs))));
  }
  for (const Index block : {1, 4}) {
    files.push_back(parts_of(BlockDiagonal<float>(3 * block, block)));
    files.push_back(parts_of(BlockDiagonal<pare::bf16>(2 * block, block)));
  }
  // Places of 8 bits, and of 16; a group of 16 outputs that is not full.
  for (const Index atoms : {3, 300}) {
    files.push_back(parts_of(DenseSparse<float>(DenseSparseShape{4, 2, 2, atoms, 2})));
    files.push_back(parts_of(DenseSparse<pare::bf16>(DenseSparseShape{18, 1, 18, atoms, 3})));
  }
  return files;
}

using namespace std::string_view_literals;
constexpr std::string_view tokens[] = {"\"a.values\""sv,
                                       "\"a.mask\""sv,
                                       "\"a.scales\""sv,
                                       "\"a.blocks\""sv,
                                       "\"a.extents\""sv,
                                       "\"a.dictionary\""sv,
                                       "\"a.places\""sv,
                                       "\"dtype\""sv,
                                       "\"shape\""sv,
                                       "\"F32\""sv,
                                       "\"BF16\""sv,
                                       "\"I8\""sv,
                                       "\"U16\""sv,
                                       "\"I64\""sv,
                                       "\"U8\""sv,
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
  return pare::fuzz::run_file_mutations("structured_safetensors_fuzz", argc, argv, valid_files(),
                                        tokens, parse);
}
#else
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  static const std::vector<Parts> files = valid_files();
  return pare::fuzz::mutate_file(data, size, most, seed, files, tokens);
}
#endif
