// SPDX-License-Identifier: Apache-2.0
// Opens a GGUF file, the first argument or else a tiny one that it writes to the folder for
// temporary files, lists what is in it, and de-quantises a row of its first matrix on two threads.
// Prints the sum of that row: 248 for the tiny file, whose row is 0, 0.5, 1 ... 15.5.

#include <pare/io/gguf.hpp>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

template <class T>
void put(std::string& file, T number) {
  file.append(reinterpret_cast<const char*>(&number), sizeof(number));
}
void put_text(std::string& file, std::string_view text) {
  put(file, std::uint64_t{text.size()});
  file += text;
}

// One key, example.layers = 2, and one tensor of type Q8_0, [1, 32]: element i is i times 0.5.
std::filesystem::path write_tiny_file() {
  std::string file = "GGUF";
  put(file, std::uint32_t{3});
  put(file, std::uint64_t{1});  // tensors
  put(file, std::uint64_t{1});  // keys
  put_text(file, "example.layers");
  put(file, std::uint32_t{4});  // uint32
  put(file, std::uint32_t{2});
  put_text(file, "weight");
  put(file, std::uint32_t{2});  // dimensions, the fastest first
  for (const int extent : {32, 1}) put(file, std::uint64_t(extent));
  put(file, std::uint32_t{8});  // Q8_0
  put(file, std::uint64_t{0});  // offset of the data
  file.resize((file.size() + 31) / 32 * 32);
  put(file, std::uint16_t{0x3800});  // 0.5 in binary16
  for (std::int8_t q = 0; q < 32; ++q) put(file, q);
  const auto path = std::filesystem::temp_directory_path() / "pare_example.gguf";
  std::ofstream(path, std::ios::binary) << file;
  return path;
}

int main(int argc, char** argv) {
  const bool tiny = argc < 2;
  const std::filesystem::path path = tiny ? write_tiny_file() : std::filesystem::path(argv[1]);
  const pare::io::GgufFile model(path);
  for (const auto& entry : model.metadata())
    std::printf("%s: %s x %td\n", std::string(entry.key).c_str(),
                std::string(name_of(entry.element)).c_str(), entry.count);

  double sum = 0;
  for (const auto& tensor : model.tensors()) {
    std::printf("%s: %s, %td x %td\n", std::string(tensor.name).c_str(),
                std::string(name_of(tensor.type)).c_str(), tensor.rows(), tensor.cols());
    if (sum != 0 || tensor.shape.size() != 2) continue;
    std::vector<float> row(static_cast<std::size_t>(tensor.cols()));
    model.read_row(pare::simd.threads(2), tensor.name, 0, row);
    sum = std::accumulate(row.begin(), row.end(), 0.0);
  }
  std::printf("sum of the first row: %g\n", sum);
  if (!tiny) return 0;
  std::filesystem::remove(path);
  return sum == 248 && model.get<int>("example.layers") == 2 ? 0 : 1;
}
