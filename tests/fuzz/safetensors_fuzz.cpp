// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of the .safetensors reader. Built with libFuzzer (clang -fsanitize=fuzzer) it is an
/// entry point; built with PARE_FUZZ_STANDALONE it has a main that runs seeded mutations of valid
/// files: `safetensors_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/io/safetensors.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace {

using pare::fuzz::require;
using pare::io::SafetensorsFile;
using pare::io::SafetensorsTensor;
using Bytes = std::span<const std::byte>;
using Parts = pare::fuzz::SafetensorsParts;

/// The bits of an element, by a second reading of the dtype: the first number in its name.
std::size_t bits_of(const std::string& dtype) {
  if (dtype == "BOOL") return 8;
  return std::strtoul(dtype.c_str() + dtype.find_first_of("0123456789"), nullptr, 10);
}

bool is_viewed_float(const std::string& dtype) {
  return dtype == "F64" || dtype == "F32" || dtype == "F16" || dtype == "BF16";
}

/// Every byte of the data belongs to exactly one tensor, and to as many elements as its shape says.
void check_tensors(const SafetensorsFile& file, Bytes bytes) {
  std::size_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  std::vector<int> owners(bytes.size() - 8 - header);
  for (const SafetensorsTensor& tensor : file.tensors()) {
    std::size_t size = bits_of(tensor.dtype);
    for (const pare::Index extent : tensor.shape) {
      require(extent >= 0, "no extent is negative");
      size *= static_cast<std::size_t>(extent);
    }
    require(size % 8 == 0, "elements fill whole bytes");
    size /= 8;
    require(size == tensor.bytes.size(), "the shape accounts for every byte");
    const auto first = tensor.bytes.data() - bytes.data() - 8 - static_cast<pare::Index>(header);
    require(first >= 0 &&
                first + static_cast<pare::Index>(size) <= static_cast<pare::Index>(owners.size()),
            "tensors lie in the data");
    for (std::size_t i = 0; i < size; ++i) ++owners[static_cast<std::size_t>(first) + i];
    require(&file.tensor(tensor.name) == &tensor, "every name finds its tensor");
  }
  require(std::ranges::count(owners, 1) == static_cast<pare::Index>(owners.size()),
          "every byte has one owner");
}

/// Reads the last element of a view of any rank from 0 to 3; true if there was such a view.
template <class S>
bool can_view(const SafetensorsFile& file, const std::string& name) {
  const auto last = [&]<std::size_t Rank>(std::integral_constant<std::size_t, Rank>) {
    try {
      const auto v = file.view<S, Rank>(name);
      // Beside an extent of 0 the others may be as large as they like.
      if (std::ranges::count(v.extent, 0) > 0) return true;
      pare::Index at = 0;
      for (std::size_t d = 0; d < Rank; ++d) at += (v.extent[d] - 1) * v.stride[d];
      S value;
      std::memcpy(&value, v.data + at, sizeof(S));
      return reinterpret_cast<std::uintptr_t>(v.data) % alignof(S) == 0;
    } catch (const std::invalid_argument&) {
      return false;
    }
  };
  return last(std::integral_constant<std::size_t, 0>{}) ||
         last(std::integral_constant<std::size_t, 1>{}) ||
         last(std::integral_constant<std::size_t, 2>{}) ||
         last(std::integral_constant<std::size_t, 3>{});
}

/// A matrix has every element, and its rows are those of the tensor.
void check_matrix(const SafetensorsFile& file, const SafetensorsTensor& tensor) {
  const auto matrix = file.read_matrix<double>(tensor.name);
  require(
      static_cast<std::size_t>(matrix.size()) * bits_of(tensor.dtype) / 8 == tensor.bytes.size(),
      "a matrix has every element");
  Eigen::MatrixXd row(1, matrix.cols());
  const pare::Index last = matrix.rows() - 1;
  file.read_rows(tensor.name, last, row);
  for (pare::Index j = 0; j < matrix.cols(); ++j)
    require(row(0, j) == matrix(last, j) || row(0, j) != row(0, j), "a row is as in the matrix");
}

/// Writes what was read and reads it again.
void round_trip(const SafetensorsFile& file) {
  std::ostringstream os;
  pare::io::write_safetensors(os, {file.tensors().begin(), file.tensors().end()}, file.metadata());
  const std::string text = os.str();
  const auto memory = std::make_unique<std::byte[]>(text.size());
  std::memcpy(memory.get(), text.data(), text.size());
  const SafetensorsFile again(Bytes(memory.get(), text.size()));
  require(again.metadata() == file.metadata(), "the metadata survives a round trip");
  require(again.tensors().size() == file.tensors().size(), "no tensor is lost");
  for (const SafetensorsTensor& tensor : file.tensors()) {
    const SafetensorsTensor& other = again.tensor(tensor.name);
    require(other.dtype == tensor.dtype && other.shape == tensor.shape &&
                std::ranges::equal(other.bytes, tensor.bytes),
            "a tensor survives a round trip");
    const int views =
        can_view<double>(again, tensor.name) + can_view<float>(again, tensor.name) +
        can_view<pare::f16>(again, tensor.name) + can_view<pare::bf16>(again, tensor.name) +
        can_view<std::uint8_t>(again, tensor.name) + can_view<std::int64_t>(again, tensor.name);
    require(views <= 1, "a tensor is viewed as one type");
    const bool is_float = is_viewed_float(tensor.dtype);
    if (is_float && tensor.shape.size() < 4)
      require(views == 1, "what was written is aligned and is viewed");
    const bool is_read = is_float || tensor.dtype == "F8_E4M3" || tensor.dtype == "F8_E5M2";
    if (is_read && (tensor.shape.size() == 1 || tensor.shape.size() == 2) && !tensor.bytes.empty())
      check_matrix(file, tensor);
  }
}

/// True if the bytes were taken.
bool parse(Bytes bytes) {
  std::optional<SafetensorsFile> file;
  try {
    file.emplace(bytes);
  } catch (const std::invalid_argument&) {
    return false;
  }
  check_tensors(*file, bytes);
  round_trip(*file);
  return true;
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  std::size_t begin, std::size_t end) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape +
         "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
}

std::vector<Parts> valid_files() {
  std::vector<Parts> files{{"{}", ""}, {R"({"__metadata__":{"format":"pt","a":""}}  )", ""}};
  for (const char* dtype : {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32",
                            "U16", "U8", "BOOL", "C64", "F8_E4M3", "F8_E5M2", "F8_E8M0"}) {
    const std::size_t item = bits_of(dtype) / 8;
    std::string data(13 * item, '\0');
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 37);
    const std::string matrix = entry("a", dtype, "2,3", 0, 6 * item);
    files.push_back({"{" + matrix + "}", data.substr(0, 6 * item)});
    files.push_back({"{\"__metadata__\":{\"k\":\"v\"}," +
                         entry("b", dtype, "7", 6 * item, 13 * item) + "," + matrix + "}",
                     data});
    files.push_back({"{" + entry("n", "U8", "", 0, 1) + "," +
                         entry("c", dtype, "1,2,1", 1, 1 + 2 * item) + "," +
                         entry("e", dtype, "0,4", 1 + 2 * item, 1 + 2 * item) + "}",
                     data.substr(0, 1 + 2 * item)});
  }
  files.push_back({"{" + entry("six", "F6_E2M3", "4", 0, 3) + "," +
                       entry("four", "F4", "3,2", 3, 6) + ",\"__metadata__\":null}",
                   "abcdef"});
  files.push_back(
      {R"({"x":{"more":{"a":[1,-2.5,{"b":null}]},"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
       "xy"});
  return files;
}

/// Words of the format.
using namespace std::string_view_literals;
constexpr std::string_view tokens[] = {
    "\"dtype\""sv,
    "\"shape\""sv,
    "\"data_offsets\""sv,
    "\"__metadata__\""sv,
    "\"F32\""sv,
    "\"F8_E4M3\""sv,
    "\"F4\""sv,
    "\"F6_E3M2\""sv,
    "\"more\":"sv,
    "{"sv,
    "}"sv,
    "["sv,
    "]"sv,
    ":"sv,
    ","sv,
    "\""sv,
    "-1"sv,
    "0"sv,
    "1"sv,
    "6"sv,
    "24"sv,
    "1.5"sv,
    "1e3"sv,
    "null"sv,
    "true"sv,
    "9223372036854775807"sv,
    "18446744073709551615"sv,
    "4294967296"sv,
    "\\u0061"sv,
    "\\ud800"sv,
    "\xff"sv,
    "\0"sv,
    " "sv,
    "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"sv};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  parse(std::as_bytes(std::span(data, size)));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
int main(int argc, char** argv) {
  return pare::fuzz::run_file_mutations("safetensors_fuzz", argc, argv, valid_files(), tokens,
                                        parse);
}
#else
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  static const std::vector<Parts> files = valid_files();
  return pare::fuzz::mutate_file(data, size, most, seed, files, tokens);
}
#endif
