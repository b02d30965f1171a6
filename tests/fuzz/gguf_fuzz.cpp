// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of the GGUF reader. Built with libFuzzer (clang -fsanitize=fuzzer) it is an entry
/// point; built with PARE_FUZZ_STANDALONE it has a main that runs seeded mutations of valid files:
/// `gguf_fuzz [runs] [seed]`.

#include "../io/gguf_writer.hpp"
#include "bytes.hpp"

#include <pare/io/gguf.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

using pare::Index;
using pare::fuzz::require;
using pare::io::GgufEntry;
using pare::io::GgufFile;
using pare::io::GgufTensor;
using pare::io::GgufType;
using pare::io::GgufValue;
using Bytes = std::span<const std::byte>;

bool is_within(Bytes part, Bytes whole) {
  return part.empty() ||
         (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

template <class T>
bool is_read(const GgufFile& file, std::string_view key) {
  try {
    static_cast<void>(file.get<T>(key));
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

template <class T>
bool is_read_as(const GgufFile& file, const GgufEntry& entry) {
  const bool list = is_read<std::vector<T>>(file, entry.key), one = is_read<T>(file, entry.key);
  require(!(list && one), "a value is an array or it is not");
  return entry.type == GgufValue::Array ? list : one;
}

/// Every value has one kind: number, bool or text.
void check_metadata(const GgufFile& file, Bytes bytes) {
  std::set<std::string_view> keys;
  for (const GgufEntry& entry : file.metadata()) {
    require(is_within(entry.bytes, bytes), "values lie in the file");
    require(keys.insert(entry.key).second, "keys differ");
    const bool text = is_read_as<std::string_view>(file, entry);
    const bool flag = is_read_as<bool>(file, entry);
    const bool real = is_read_as<double>(file, entry);
    const bool whole =
        is_read_as<std::int64_t>(file, entry) || is_read_as<std::uint64_t>(file, entry);
    // Integers of both signs at the ends of their types fit neither.
    require(text + flag + real + whole == 1 ||
                (entry.element == GgufValue::Uint64 || entry.element == GgufValue::Int64),
            "a value is read as one kind");
  }
}

/// What the elements of a row take up, by a second list of the format; 0 for others.
std::size_t bytes_of(GgufType type, std::size_t elements) {
  switch (type) {
    case GgufType::F32:
      return elements * 4;
    case GgufType::F16:
    case GgufType::BF16:
      return elements * 2;
    case GgufType::Q8_0:
      return elements / 32 * 34;
    case GgufType::Q4_0:
      return elements / 32 * 18;
    case GgufType::Q4_1:
      return elements / 32 * 20;
    case GgufType::Q4_K:
      return elements / 256 * 144;
    case GgufType::Q6_K:
      return elements / 256 * 210;
    default:
      return 0;
  }
}

/// Reads a tensor as a whole, and its last row.
void check_rows(const GgufFile& file, const GgufTensor& tensor) {
  const Index rows = tensor.rows(), cols = tensor.cols();
  const auto size = static_cast<std::size_t>(rows * cols);
  require(bytes_of(tensor.type, size) == tensor.bytes.size(), "the shape accounts for every byte");
  std::vector<float> all(size), last(static_cast<std::size_t>(cols));
  file.read_rows(tensor.name, 0, pare::TensorView<float, 2>{all.data(), {rows, cols}, {cols, 1}});
  if (rows == 0) return;
  file.read_row(tensor.name, rows - 1, last);
  require(
      std::memcmp(last.data(), all.data() + (rows - 1) * cols, last.size() * sizeof(float)) == 0,
      "a row is as in the matrix");
}

void check_tensors(const GgufFile& file, Bytes bytes) {
  for (const GgufTensor& tensor : file.tensors()) {
    require(is_within(tensor.bytes, bytes), "tensors lie in the file");
    require(&file.tensor(tensor.name) == &tensor, "every name finds its tensor");
    require(tensor.shape.size() <= 4, "at most four dimensions");
    const bool is_empty = std::ranges::count(tensor.shape, 0) > 0;
    if (bytes_of(tensor.type, 256) != 0 && !is_empty) check_rows(file, tensor);
  }
}

/// True if the bytes were taken.
bool parse(Bytes input) {
  // A copy of exactly this size, whose ends a sanitizer sees.
  const auto memory = std::make_unique<std::byte[]>(input.size());
  std::copy(input.begin(), input.end(), memory.get());
  const Bytes bytes(memory.get(), input.size());
  std::optional<GgufFile> file;
  try {
    file.emplace(bytes);
  } catch (const std::invalid_argument&) {
    return false;
  }
  check_metadata(*file, bytes);
  check_tensors(*file, bytes);
  return true;
}

struct Parts {
  pare::testing::GgufParts parts;
  std::string text;  ///< metadata and directory

  std::string file() const {
    pare::testing::GgufParts all = parts;
    all.metadata = text;
    all.directory.clear();
    return all.file();
  }
};

std::vector<Parts> valid_files() {
  using pare::testing::GgufWriter;
  std::vector<Parts> files;
  const auto add = [&files](const GgufWriter& writer) {
    files.push_back({writer.parts(), writer.parts().metadata + writer.parts().directory});
  };
  add(GgufWriter(2));
  GgufWriter metadata;
  metadata.add("a", std::int8_t{-3});
  metadata.add("b", std::uint64_t{7});
  metadata.add("c", 1.5f);
  metadata.add("d", true);
  metadata.add("e", "text");
  metadata.add("f", std::vector<std::string>{"one", "", "three"});
  metadata.add("g", std::vector<double>{1, 2});
  metadata.add("h", std::vector<bool>{true, false});
  add(metadata);
  for (const std::uint32_t alignment : {32u, 1u, 64u})
    for (const GgufType type : {GgufType::F32, GgufType::F16, GgufType::BF16, GgufType::Q8_0,
                                GgufType::Q4_0, GgufType::Q4_1, GgufType::Q4_K, GgufType::Q6_K}) {
      GgufWriter tensors(3, alignment);
      std::string data(bytes_of(type, 512), '\0');
      for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 37);
      tensors.add("k", 5u);
      tensors.tensor("w", type, {2, 256}, data);
      tensors.tensor("n", GgufType::F32, {3}, "123456789012");
      add(tensors);
    }
  return files;
}

/// Words of the format.
using namespace std::string_view_literals;
constexpr std::string_view tokens[] = {"GGUF"sv,
                                       "\0\0\0\0"sv,
                                       "\1\0\0\0"sv,
                                       "\4\0\0\0"sv,
                                       "\5\0\0\0"sv,
                                       "\7\0\0\0"sv,
                                       "\10\0\0\0"sv,
                                       "\11\0\0\0"sv,
                                       "\14\0\0\0"sv,
                                       "\15\0\0\0"sv,
                                       "\16\0\0\0"sv,
                                       "\36\0\0\0"sv,
                                       "\1\0\0\0\0\0\0\0"sv,
                                       "\0\1\0\0\0\0\0\0"sv,
                                       "\40\0\0\0\0\0\0\0"sv,
                                       "\377\377\377\377\377\377\377\377"sv,
                                       "\377\377\377\377\377\377\377\177"sv,
                                       "\0\0\0\0\1\0\0\0"sv,
                                       "\21\0\0\0\0\0\0\0general.alignment\4\0\0\0"sv,
                                       "w"sv,
                                       "n"sv};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  parse(std::as_bytes(std::span(data, size)));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
int main(int argc, char** argv) {
  return pare::fuzz::run_file_mutations("gguf_fuzz", argc, argv, valid_files(), tokens, parse);
}
#else
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  static const std::vector<Parts> files = valid_files();
  return pare::fuzz::mutate_file(data, size, most, seed, files, tokens);
}
#endif
