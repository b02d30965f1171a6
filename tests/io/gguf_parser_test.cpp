// SPDX-License-Identifier: Apache-2.0

#include "gguf_writer.hpp"
#include "memory.hpp"
#include "temporary_folder.hpp"

#include <pare/io/gguf.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace io_gguf_parser_test {
namespace {

namespace fs = std::filesystem;
using pare::io::GgufFile;
using pare::io::GgufType;
using pare::testing::gguf_line;
using pare::testing::gguf_pair;
using pare::testing::gguf_raw;
using pare::testing::gguf_string;
using pare::testing::GgufParts;
using pare::testing::GgufWriter;

std::string parse_refusal(const std::string& file) {
  return refusal([&] { GgufFile(Memory(file).bytes()); });
}
std::string parse_refusal(const GgufParts& parts) { return parse_refusal(parts.file()); }

const std::string start = "pare::io::GgufFile: bytes: ";

TEST(GgufParser, OnlyTheTwoVersionsOfLittleEndianFilesAreRead) {
  EXPECT_EQ(parse_refusal(""), start + "got a file that starts with '', wanted a .gguf file");
  EXPECT_EQ(parse_refusal("GGU"), start + "got a file that starts with 'GGU', wanted a .gguf file");
  EXPECT_EQ(parse_refusal("GGML....................."),
            start + "got a file that starts with 'GGML', wanted a .gguf file");
  for (const std::uint32_t version : {0u, 1u, 4u})
    EXPECT_EQ(parse_refusal(GgufParts{.version = version}),
              start + "got version " + std::to_string(version) +
                  ", wanted version 2 or 3, little endian");
  EXPECT_EQ(parse_refusal(GgufParts{.version = 0x03000000}),
            start +
                "got version 50331648, perhaps a big-endian file, wanted version 2 or 3, "
                "little endian");
  EXPECT_EQ(parse_refusal(GgufParts{}), "(accepted)") << "a file of nothing";
  EXPECT_EQ(refusal([] { GgufFile(std::span(static_cast<const std::byte*>(nullptr), 16)); }),
            start + "got a null pointer, wanted data");
}

TEST(GgufParser, CountsAndLengthsAreHeldAgainstTheBytesThatAreLeft) {
  constexpr auto vast = std::numeric_limits<std::uint64_t>::max();
  const std::string zeros(48, '\0');
  EXPECT_EQ(parse_refusal(GgufParts{.tensors = vast, .directory = zeros}),
            start + "got 18446744073709551615 tensors, wanted at most 2, what is left of the file");
  EXPECT_EQ(parse_refusal(GgufParts{.keys = 1 + 48 / 13, .metadata = zeros}),
            start + "got 4 keys, wanted at most 3, what is left of the file");
  for (const std::uint64_t length : {std::uint64_t{41}, vast, vast - 7, std::uint64_t{1} << 63}) {
    const std::string text = gguf_raw(length) + zeros.substr(8);
    EXPECT_EQ(parse_refusal(GgufParts{.keys = 1, .metadata = text}),
              start + "got a key of " + std::to_string(length) +
                  " bytes at byte 32, wanted at most 40, what is left of the file");
    const std::string value = gguf_string("k") + gguf_raw(std::uint32_t{8}) + text;
    EXPECT_EQ(parse_refusal(GgufParts{.keys = 1, .metadata = value}),
              start + "key 'k': got a string of " + std::to_string(length) +
                  " bytes at byte 45, wanted at most 40, what is left of the file");
    const std::string list = gguf_string("k") + gguf_raw(std::uint32_t{9}) +
                             gguf_raw(std::uint32_t{6}) + gguf_raw(length) + zeros.substr(0, 40);
    EXPECT_EQ(parse_refusal(GgufParts{.keys = 1, .metadata = list}),
              start + "key 'k': got " + std::to_string(length) +
                  " elements, wanted at most 10, what is left of the file");
  }
}

TEST(GgufParser, ValuesOfWrongTypesAreRefused) {
  const auto of_value = [](std::uint32_t type, const std::string& value) {
    return parse_refusal(
        GgufParts{.keys = 1, .metadata = gguf_string("k") + gguf_raw(type) + value});
  };
  const auto array = [](std::uint32_t element) {
    return gguf_raw(element) + gguf_raw(std::uint64_t{1}) + std::string(16, '\0');
  };
  EXPECT_EQ(of_value(13, "12345678"),
            start + "key 'k': got value type 13, wanted a number from 0 to 12");
  EXPECT_EQ(of_value(9, array(0xffffffff)),
            start + "key 'k': got value type 4294967295, wanted a number from 0 to 12");
  EXPECT_EQ(of_value(9, array(9)),
            start + "key 'k': got an array of arrays, wanted an array of numbers or of strings");
  EXPECT_EQ(of_value(7, "\2"),
            start + "key 'k': got a bool that is neither 0 nor 1, wanted 0 or 1");
  EXPECT_EQ(parse_refusal(
                GgufParts{.keys = 1, .metadata = gguf_pair("k", std::vector<bool>{true, false})}),
            "(accepted)");
  EXPECT_EQ(parse_refusal(GgufParts{.keys = 2, .metadata = gguf_pair("k", 1) + gguf_pair("k", 2)}),
            start + "got key 'k' twice, wanted every name once");
}

TEST(GgufParser, AlignmentsThatAreNoPowerOfTwoAreRefused) {
  const auto of = [](auto alignment) {
    return parse_refusal(
        GgufParts{.keys = 1, .metadata = gguf_pair("general.alignment", alignment)});
  };
  const std::string place = start + "key 'general.alignment': ";
  EXPECT_EQ(of(0u), place + "got 0, wanted a power of two");
  EXPECT_EQ(of(48u), place + "got 48, wanted a power of two");
  EXPECT_EQ(of(std::uint64_t{32}), place + "got uint64, wanted uint32");
  EXPECT_EQ(of(std::vector<std::uint32_t>{32}), place + "got array, wanted uint32");
  EXPECT_EQ(of(std::uint32_t{1} << 31), "(accepted)");
}

TEST(GgufParser, TensorsThatAreNotSoundAreRefused) {
  const auto of = [](const std::vector<std::uint64_t>& extents, std::uint32_t type,
                     std::uint64_t offset, std::size_t bytes) {
    return parse_refusal(GgufParts{.tensors = 1,
                                   .directory = gguf_line("w", extents, type, offset),
                                   .data = std::string(bytes, '\0')});
  };
  const std::string place = start + "tensor 'w': ";
  const std::uint64_t vast = std::uint64_t{1} << 40,
                      most = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(of({1, 1, 1, 1, 1}, 0, 0, 4), place + "got 5 dimensions, wanted at most 4");
  EXPECT_EQ(of({most + 1}, 0, 0, 4),
            place + "got an extent of 9223372036854775808, wanted at most 2^63 - 1");
  EXPECT_NE(of({vast, vast}, 99, 0, 4).find("wanted a product of sizes that fits 63 bits"),
            std::string::npos);
  EXPECT_NE(of({vast, 0, vast}, 0, 0, 4).find("wanted a product of sizes that fits 63 bits"),
            std::string::npos);
  EXPECT_NE(of({most}, 0, 0, 4).find("wanted a product of sizes that fits 63 bits"),
            std::string::npos);
  EXPECT_EQ(of({48, 2}, 3, 0, 60),
            place + "got rows of 48 elements, wanted a multiple of 32, the block of type Q4_1 (3)");
  EXPECT_EQ(
      of({128}, 14, 0, 210),
      place + "got rows of 128 elements, wanted a multiple of 256, the block of type Q6_K (14)");
  EXPECT_EQ(of({4}, 0, 16, 64), place +
                                    "got offset 16, wanted a multiple of 32, the file's "
                                    "alignment");
  EXPECT_EQ(of({4}, 0, 64, 79),
            place + "got 16 bytes at offset 64, wanted bytes within the 79 of the file's data");
  EXPECT_EQ(of({4}, 0, 64, 80), "(accepted)");
  EXPECT_EQ(of({4}, 0, ~std::uint64_t{31}, 80),
            place +
                "got 16 bytes at offset 18446744073709551584, wanted bytes within the 80 of "
                "the file's data");
  EXPECT_EQ(of({4}, 99, 96, 80),
            place + "got 0 bytes at offset 96, wanted bytes within the 80 of the file's data");
  EXPECT_EQ(
      parse_refusal(GgufParts{.tensors = 2,
                              .directory = gguf_line("w", {1}, 0, 0) + gguf_line("w", {1}, 0, 0),
                              .data = "1234"}),
      start + "got tensor 'w' twice, wanted every name once");
}

class GgufPaths : public TemporaryFolder {
 protected:
  fs::path path() const { return folder_ / "x.gguf"; }
};

TEST_F(GgufPaths, AFileThatIsCutShortAnywhereIsRefused) {
  GgufWriter writer;
  writer.add("a.number", 7.5);
  writer.add("a.words", std::vector<std::string>{"one", "two"});
  writer.add("a.flags", std::vector<bool>{true, false, true});
  writer.tensor("q", GgufType::Q4_0, {2, 32}, std::string(36, 'q'));
  writer.tensor("f", GgufType::F32, {2}, "12345678");
  const std::string whole = writer.file();
  for (std::size_t n = 0; n < whole.size(); ++n)
    EXPECT_NE(parse_refusal(whole.substr(0, n)), "(accepted)") << n;
  EXPECT_EQ(parse_refusal(whole), "(accepted)");
  put(path(), whole.substr(0, whole.size() - 1));
  EXPECT_NE(refusal([&] { GgufFile{path()}; }).find(path().string() + ": tensor 'f': got 8 bytes"),
            std::string::npos);
}

TEST_F(GgufPaths, FilesThatCannotBeReadAreRefused) {
  const std::string begin = "pare::io::GgufFile: ";
  EXPECT_EQ(refusal([&] { GgufFile{path()}; }),
            begin + path().string() + ": got no such file, wanted a .gguf file");
  EXPECT_EQ(
      refusal([&] { GgufFile{folder_}; }),
      begin + folder_.string() + ": got something that is not a regular file, wanted a .gguf file");
  put(path(), "");
  EXPECT_EQ(refusal([&] { GgufFile{path()}; }),
            begin + path().string() + ": got a file that starts with '', wanted a .gguf file");
}

}  // namespace
}  // namespace io_gguf_parser_test
