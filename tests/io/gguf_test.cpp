// SPDX-License-Identifier: Apache-2.0

#include "gguf_writer.hpp"
#include "memory.hpp"
#include "temporary_folder.hpp"

#include <pare/io/gguf.hpp>

#include <gtest/gtest.h>
#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernel/quantized_oracle.hpp"
#include "support/properties.hpp"

namespace io_gguf_test {
namespace {

namespace fs = std::filesystem;
namespace io = pare::io;
namespace kernel = pare::kernel;
using namespace std::string_view_literals;
using io::GgufFile;
using io::GgufType;
using pare::Index;
using pare::TensorView;
using pare::testing::element_of;
using pare::testing::gguf_line;
using pare::testing::gguf_raw;
using pare::testing::GgufParts;
using pare::testing::GgufWriter;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::same_bits_for_any_threads;

/// One key and one tensor of two rows, [2, 3], by hand.
constexpr std::string_view golden =
    "GGUF\3\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0"
    "\7\0\0\0\0\0\0\0a.count\4\0\0\0\5\0\0\0"
    "\1\0\0\0\0\0\0\0w\2\0\0\0\3\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    "\0\0\0\0\0\0\0\0"
    "\0\0\200\077\0\0\0\100\0\0\100\100\0\0\200\100\0\0\240\100\0\0\300\100"sv;

class GgufFiles : public TemporaryFolder {
 protected:
  void SetUp() override {
    TemporaryFolder::SetUp();
    path_ = folder_ / "x.gguf";
  }

  fs::path path_;
};

TEST_F(GgufFiles, AFileWrittenByHandIsRead) {
  put(path_, golden);
  const GgufFile file(path_);
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.alignment(), 32u);
  EXPECT_EQ(file.get<std::uint32_t>("a.count"), 5u);
  ASSERT_EQ(file.tensors().size(), 1u);
  const io::GgufTensor& w = file.tensor("w");
  EXPECT_EQ(w.name, "w");
  EXPECT_EQ(name_of(w.type), "F32");
  EXPECT_EQ(w.shape, (std::vector<Index>{2, 3}));
  EXPECT_EQ(w.rows(), 2);
  EXPECT_EQ(w.cols(), 3);
  EXPECT_EQ(w.bytes.size(), 24u);
  Eigen::MatrixXf x(2, 3), wanted(2, 3);
  wanted << 1, 2, 3, 4, 5, 6;
  file.read_rows("w", 0, x);
  EXPECT_EQ(x, wanted);
  const auto view = file.view<float, 2>("w");
  EXPECT_EQ(view(1, 0), 4);
  const GgufFile copy = file;
  EXPECT_EQ(copy.tensor("w").bytes.data(), w.bytes.data());
  std::string second(golden);
  second[4] = 2;
  EXPECT_EQ(GgufFile(Memory(second).bytes()).version(), 2u);
}

TEST(GgufMetadata, EveryTypeComesBack) {
  GgufWriter writer;
  const auto expect_back = [&writer]<class T>(std::string_view key, const T& value) {
    writer.add(key, value);
    writer.add(std::string(key) + "s", std::vector<T>{value, T(), value});
    const Memory memory(writer.file());
    const GgufFile file(memory.bytes());
    EXPECT_EQ(file.get<T>(key), value) << key;
    EXPECT_EQ(file.find<T>(key), std::optional<T>(value));
    EXPECT_EQ(file.get<std::vector<T>>(std::string(key) + "s"), (std::vector<T>{value, T(), value}))
        << key;
    EXPECT_EQ(name_of(file.metadata().back().element), key);
    EXPECT_EQ(name_of(file.metadata().back().type), "array");
    EXPECT_EQ(file.metadata().back().count, 3);
  };
  expect_back("uint8", std::numeric_limits<std::uint8_t>::max());
  expect_back("int8", std::numeric_limits<std::int8_t>::min());
  expect_back("uint16", std::numeric_limits<std::uint16_t>::max());
  expect_back("int16", std::numeric_limits<std::int16_t>::min());
  expect_back("uint32", std::numeric_limits<std::uint32_t>::max());
  expect_back("int32", std::numeric_limits<std::int32_t>::min());
  expect_back("uint64", std::numeric_limits<std::uint64_t>::max());
  expect_back("int64", std::numeric_limits<std::int64_t>::min());
  expect_back("float32", 0.1f);
  expect_back("float64", 0.1);
  expect_back("bool", true);
  expect_back("string", std::string("a\0b", 3));
}

TEST(GgufMetadata, NumbersWidenAndIntegersAreReadWhereTheyFit) {
  GgufWriter writer;
  writer.add("u64", std::uint64_t{200});
  writer.add("i8", std::int8_t{-1});
  writer.add("f32", 0.5f);
  writer.add("list", std::vector<std::int64_t>{1, 2, 300});
  writer.add("none", std::vector<std::string>{});
  const Memory memory(writer.file());
  const GgufFile file(memory.bytes());
  EXPECT_EQ(file.get<int>("u64"), 200);
  EXPECT_EQ(file.get<std::uint8_t>("u64"), 200);
  EXPECT_EQ(file.get<Index>("i8"), -1);
  EXPECT_EQ(file.get<double>("f32"), 0.5);
  EXPECT_EQ(file.get<std::vector<std::uint16_t>>("list"), (std::vector<std::uint16_t>{1, 2, 300}));
  EXPECT_TRUE(file.get<std::vector<std::string>>("none").empty());
  EXPECT_FALSE(file.find<int>("absent").has_value());
  EXPECT_FALSE(file.has_key("absent"));
  EXPECT_TRUE(file.has_key("list"));

  const auto get = [&]<class T>(std::string_view key, std::type_identity<T>) {
    return refusal([&] { file.get<T>(key); });
  };
  const std::string get_start = "pare::io::GgufFile::get: bytes: ";
  EXPECT_EQ(get("absent", std::type_identity<int>{}),
            get_start + "got no key 'absent', wanted one of the file's 5 keys");
  EXPECT_EQ(get("u64", std::type_identity<std::int8_t>{}),
            get_start + "key 'u64': got uint64 200, wanted a value of int8");
  EXPECT_EQ(get("i8", std::type_identity<std::uint32_t>{}),
            get_start + "key 'i8': got int8 -1, wanted a value of uint32");
  EXPECT_EQ(get("list", std::type_identity<std::vector<std::uint8_t>>{}),
            get_start + "key 'list': got int64 300, wanted a value of uint8");
  EXPECT_EQ(get("f32", std::type_identity<int>{}),
            get_start + "key 'f32': got float32, wanted int32");
  EXPECT_EQ(get("u64", std::type_identity<double>{}),
            get_start + "key 'u64': got uint64, wanted float64");
  EXPECT_EQ(get("u64", std::type_identity<bool>{}),
            get_start + "key 'u64': got uint64, wanted bool");
  EXPECT_EQ(get("f32", std::type_identity<std::string>{}),
            get_start + "key 'f32': got float32, wanted string");
  EXPECT_EQ(get("list", std::type_identity<int>{}),
            get_start + "key 'list': got an array of 3 int64, wanted int32");
  EXPECT_EQ(get("f32", std::type_identity<std::vector<float>>{}),
            get_start + "key 'f32': got float32, wanted an array of float32");
  EXPECT_EQ(refusal([&] { file.find<int>("f32"); }),
            "pare::io::GgufFile::find: bytes: key 'f32': got float32, wanted int32");
}

TEST(GgufMetadata, TextsAreViewsOfTheFile) {
  GgufWriter writer;
  writer.add("words", std::vector<std::string>{"one", "", "three"});
  const Memory memory(writer.file());
  const GgufFile file(memory.bytes());
  const auto words = file.get<std::vector<std::string_view>>("words");
  EXPECT_EQ(words, (std::vector<std::string_view>{"one", "", "three"}));
  const auto* const first = reinterpret_cast<const char*>(memory.bytes().data());
  for (const std::string_view text : {words[0], words[2], file.metadata()[0].key})
    EXPECT_TRUE(text.data() >= first && text.data() + text.size() <= first + memory.bytes().size());
}

/// A type of tensors: bytes of random elements, and what element i of them is.
struct Format {
  GgufType type;
  std::string (*bytes)(Index elements, std::mt19937_64& random);
  float (*at)(const std::string& bytes, Index i);
};

template <class Block>
Format blocks_of(GgufType type) {
  return {type,
          [](Index elements, std::mt19937_64& random) {
            std::string all;
            for (Index i = 0; i < elements / Block::elements; ++i)
              all += gguf_raw(pare::testing::random_block<Block>(random));
            return all;
          },
          [](const std::string& bytes, Index i) {
            const auto block = static_cast<std::size_t>(i / Block::elements);
            return static_cast<float>(element_of<Block>(bytes.data() + block * sizeof(Block),
                                                        static_cast<int>(i % Block::elements)));
          }};
}

/// Elements that are stored one by one.
template <class S>
Format elements_of(GgufType type) {
  return {type,
          [](Index elements, std::mt19937_64&) {
            std::string all;
            for (Index i = 0; i < elements; ++i)
              all += gguf_raw(static_cast<S>(static_cast<float>(i % 1001 - 500) / 64.0f));
            return all;
          },
          [](const std::string&, Index i) {
            return static_cast<float>(static_cast<S>(static_cast<float>(i % 1001 - 500) / 64.0f));
          }};
}

/// A file of a short tensor, one with rows of several pieces, one of three dimensions and a vector.
class GgufTypes : public testing::TestWithParam<Format> {
 protected:
  GgufTypes() {
    std::mt19937_64 random(5);
    GgufWriter writer;
    for (const auto& [name, shape] : shapes_) {
      Index count = 1;
      for (const Index n : shape) count *= n;
      bytes_.push_back(GetParam().bytes(count, random));
      writer.tensor(name, GetParam().type, shape, bytes_.back());
    }
    memory_ = std::make_unique<Memory>(writer.file());
    file_ = std::make_unique<GgufFile>(memory_->bytes());
  }

  /// Elements are floats whatever the type, and are rounded once more to 16 bits.
  template <class T>
  void expect_elements(std::size_t tensor, Index first, const TensorView<const T, 2>& got) const {
    const Index cols = shapes_[tensor].second.back();
    ASSERT_EQ(got.cols(), cols);
    for (Index i = 0; i < got.rows(); ++i)
      for (Index j = 0; j < cols; ++j) {
        const T wanted = static_cast<T>(GetParam().at(bytes_[tensor], (first + i) * cols + j));
        ASSERT_EQ(std::memcmp(&got(i, j), &wanted, sizeof(T)), 0) << i << ' ' << j;
      }
  }

  template <class Y>
  void expect_rows(std::size_t tensor, Index first, Y&& out) const {
    file_->read_rows(shapes_[tensor].first, first, out);
    expect_elements(tensor, first, pare::as_const(pare::to_view(out)));
  }

  const std::vector<std::pair<std::string, std::vector<Index>>> shapes_{
      {"short", {7, 512}}, {"long", {3, 33024}}, {"deep", {2, 3, 256}}, {"norm", {256}}};
  std::vector<std::string> bytes_;
  std::unique_ptr<Memory> memory_;
  std::unique_ptr<GgufFile> file_;
};
INSTANTIATE_TEST_SUITE_P(Formats, GgufTypes,
                         testing::Values(elements_of<float>(GgufType::F32),
                                         elements_of<pare::f16>(GgufType::F16),
                                         elements_of<pare::bf16>(GgufType::BF16),
                                         blocks_of<kernel::Q8_0>(GgufType::Q8_0),
                                         blocks_of<kernel::Q4_0>(GgufType::Q4_0),
                                         blocks_of<kernel::Q4_1>(GgufType::Q4_1),
                                         blocks_of<kernel::Q4_K>(GgufType::Q4_K),
                                         blocks_of<kernel::Q6_K>(GgufType::Q6_K)),
                         [](const auto& format) {
                           return std::string(name_of(format.param.type));
                         });

TEST_P(GgufTypes, RowsOfEveryRangeAreReadIntoAnyScalarAndLayout) {
  using Eigen::Dynamic;
  using RowMajor = Eigen::Matrix<float, Dynamic, Dynamic, Eigen::RowMajor>;
  expect_rows(0, 0, RowMajor(7, 512));
  for (Index first = 0; first < 7; ++first) {
    Eigen::MatrixXf some = Eigen::MatrixXf::Zero(9, 520);
    expect_rows(0, first, some.block(1, 3, 7 - first, 512));
    some.block(1, 3, 7 - first, 512).setZero();
    EXPECT_TRUE(some.isZero(0)) << "written beside the rows";
  }
  expect_rows(0, 2, Eigen::MatrixXd(3, 512));
  expect_rows(0, 1, Eigen::Matrix<Eigen::bfloat16, Dynamic, Dynamic, Eigen::RowMajor>(5, 512));
  expect_rows(0, 1, Eigen::Matrix<Eigen::half, Dynamic, Dynamic>(2, 512));
  expect_rows(0, 7, RowMajor(0, 512));
  expect_rows(1, 1, RowMajor(2, 33024));
  expect_rows(1, 0, Eigen::Matrix<Eigen::bfloat16, Dynamic, Dynamic, Eigen::RowMajor>(3, 33024));
  expect_rows(2, 4, RowMajor(2, 256));
  expect_rows(3, 0, RowMajor(1, 256));
}

TEST_P(GgufTypes, OneRowIsReadIntoAnyVector) {
  const auto row = [](const auto& v) {
    return io::detail::as_row(pare::as_const(pare::to_view(v)));
  };
  Eigen::VectorXf column(512);
  file_->read_row("short", 5, column);
  expect_elements(0, 5, pare::transpose(pare::as_const(pare::to_view(column))));
  std::vector<pare::bf16> narrow(512);
  file_->read_row(pare::reference, "short", 5, narrow);
  expect_elements(0, 5, row(narrow));
  std::vector<double> gains(256);
  file_->read_row(pare::simd.threads(2), "norm", 0, std::span(gains));
  expect_elements(3, 0, row(gains));
}

TEST_P(GgufTypes, TheBitsAreTheSameForAnyThreads) {
  const auto read = [this](const auto& backend) {
    Eigen::MatrixXf out(3, 33024);
    file_->read_rows(backend, "long", 0, out);
    return out;
  };
  same_bits_for_any_threads(pare::simd, read);
  EXPECT_EQ(read(pare::reference), read(pare::simd));
}

TEST_P(GgufTypes, StoredBytesAreAtHand) {
  const io::GgufTensor& tensor = file_->tensor("short");
  ASSERT_EQ(tensor.bytes.size(), bytes_[0].size());
  EXPECT_EQ(std::memcmp(tensor.bytes.data(), bytes_[0].data(), tensor.bytes.size()), 0);
  const auto expect_blocks = [&]<class Block>(GgufType type, std::type_identity<Block>) {
    if (GetParam().type != type) return;
    const auto blocks = file_->blocks<Block>("short");
    EXPECT_EQ(reinterpret_cast<const std::byte*>(blocks.data()), tensor.bytes.data());
    EXPECT_EQ(blocks.size() * static_cast<std::size_t>(Block::elements), 7u * 512u);
  };
  expect_blocks(GgufType::Q8_0, std::type_identity<kernel::Q8_0>{});
  expect_blocks(GgufType::Q4_0, std::type_identity<kernel::Q4_0>{});
  expect_blocks(GgufType::Q4_1, std::type_identity<kernel::Q4_1>{});
  expect_blocks(GgufType::Q4_K, std::type_identity<kernel::Q4_K>{});
  expect_blocks(GgufType::Q6_K, std::type_identity<kernel::Q6_K>{});
}

TEST(GgufTensors, ShapesAreRowMajorAndOfZeroToFourDimensions) {
  GgufWriter writer;
  writer.tensor("none", GgufType::F32, {}, gguf_raw(2.5f));
  writer.tensor("four", GgufType::I8, {2, 3, 4, 5}, std::string(120, 'x'));
  writer.tensor("empty", GgufType::F32, {3, 0}, "");
  const Memory memory(writer.file());
  const GgufFile file(memory.bytes());
  EXPECT_EQ((file.view<float, 0>("none")()), 2.5f);
  std::vector<float> one(1);
  file.read_row("none", 0, one);
  EXPECT_EQ(one[0], 2.5f);
  EXPECT_EQ(file.tensor("four").shape, (std::vector<Index>{2, 3, 4, 5}));
  EXPECT_EQ(file.tensor("four").rows(), 24);
  EXPECT_EQ(file.tensor("empty").rows(), 3);
  EXPECT_EQ((file.view<float, 2>("empty").data), nullptr);
  Eigen::MatrixXf nothing(3, 0);
  file.read_rows("empty", 0, nothing);
}

TEST(GgufTensors, ATypeThatIsNotReadIsRefusedWhenItIsRead) {
  GgufWriter writer;
  writer.tensor("new", GgufType{99}, {4, 32}, std::string(32, 'x'));
  writer.tensor("q5", GgufType::Q5_K, {1, 256}, std::string(176, 'x'));
  writer.tensor("good", GgufType::F32, {1, 1}, gguf_raw(1.0f));
  const Memory memory(writer.file());
  const GgufFile file(memory.bytes());
  EXPECT_EQ(file.tensor("new").bytes.size(), 0u);
  EXPECT_EQ(name_of(file.tensor("new").type), "");
  EXPECT_EQ(file.tensor("q5").bytes.size(), 176u);
  Eigen::MatrixXf x = Eigen::MatrixXf::Ones(1, 256), y(1, 1), z = Eigen::MatrixXf::Ones(4, 32);
  file.read_rows("good", 0, y);
  EXPECT_EQ(y(0, 0), 1);
  const auto of = [&](const char* name, auto& out) {
    return refusal([&] { file.read_rows(name, 0, out); });
  };
  const std::string wanted =
      ", wanted F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K or Q6_K, the types that are read";
  EXPECT_EQ(of("new", z),
            "pare::io::GgufFile::read_rows: bytes: tensor 'new': got type 99" + wanted);
  EXPECT_EQ(of("q5", x),
            "pare::io::GgufFile::read_rows: bytes: tensor 'q5': got type Q5_K (13)" + wanted);
  EXPECT_EQ(x.sum() + z.sum(), 256 + 128);
  EXPECT_EQ(refusal([&] { file.blocks<kernel::Q4_K>("q5"); }),
            "pare::io::GgufFile::blocks: bytes: tensor 'q5': got type Q5_K (13), wanted type Q4_K "
            "(12), what it is viewed as");
}

TEST(GgufTensors, CallsThatDoNotFitLeaveTheOutputAsItWas) {
  const Memory memory(golden);
  const GgufFile file(memory.bytes());
  const std::string rows = "io::GgufFile::read_rows", row = "io::GgufFile::read_row";
  Eigen::MatrixXf two = Eigen::MatrixXf::Ones(2, 3), four = Eigen::MatrixXf::Ones(2, 4);
  std::vector<float> three(3, 1.0f);
  refuses_and_leaves_alone([&] { file.read_rows("v", 0, two); }, rows, "bytes: got no tensor 'v'",
                           two);
  refuses_and_leaves_alone([&] { file.read_rows("w", -1, two); }, rows, "first: got -1", two);
  refuses_and_leaves_alone([&] { file.read_rows("w", 3, two); }, rows, "first: got 3", two);
  refuses_and_leaves_alone([&] { file.read_rows("w", 1, two); }, rows, "out: got [2, 3]", two);
  refuses_and_leaves_alone([&] { file.read_rows("w", 0, four); }, rows, "out: got [2, 4]", four);
  refuses_and_leaves_alone([&] { file.read_row("w", 2, three); }, row, "row: got 2", three);
  refuses_and_leaves_alone([&] { file.read_row("w", -1, three); }, row, "row: got -1", three);
  refuses_and_leaves_alone([&] { file.read_row("w", 0, std::span(three).first(2)); }, row,
                           "out: got [1, 2]", three);
  const TensorView<float, 2> twice{three.data(), {2, 3}, {0, 1}};
  refuses_and_leaves_alone([&] { file.read_rows("w", 0, twice); }, rows, "out: got a stride of 0",
                           three);
  auto* const own = const_cast<float*>(file.view<float, 2>("w").data);
  const TensorView<float, 2> inside{own, {2, 3}, {3, 1}};
  EXPECT_NE(refusal([&] { file.read_rows("w", 0, inside); }).find("overlaps an input"),
            std::string::npos);
  EXPECT_EQ(refusal([&] { file.tensor("v"); }),
            "pare::io::GgufFile::tensor: bytes: got no tensor 'v', wanted one of the file's 1 "
            "tensors");
  EXPECT_FALSE(file.contains("v"));
  EXPECT_EQ(refusal([&] { file.view<pare::bf16, 2>("w"); }),
            "pare::io::GgufFile::view: bytes: tensor 'w': got type F32 (0), wanted type BF16 (30), "
            "what it is viewed as");
  EXPECT_EQ(refusal([&] { file.view<float, 1>("w"); }),
            "pare::io::GgufFile::view: bytes: tensor 'w': shape: got (2, 3), wanted 1 dimensions");
}

TEST(GgufTensors, AlignmentIsThatOfTheFile) {
  for (const std::uint32_t alignment : {1u, 2u, 8u, 4096u}) {
    GgufWriter writer(3, alignment);
    writer.add("s", "odd");
    writer.tensor("a", GgufType::I8, {3}, "abc");
    writer.tensor("w", GgufType::F32, {1, 2}, gguf_raw(std::vector<float>{3, 4}));
    const Memory memory(writer.file());
    const GgufFile file(memory.bytes());
    EXPECT_EQ(file.alignment(), alignment);
    std::vector<float> x(2);
    file.read_row("w", 0, x);
    EXPECT_EQ(x, (std::vector<float>{3, 4}));
    const std::string why = refusal([&] { file.view<float, 2>("w"); });
    EXPECT_EQ(why.find("wanted aligned data") != std::string::npos, alignment == 1) << why;
  }
}

TEST(GgufTensors, ElementsInTheirOwnTypeKeepEveryBit) {
  const std::vector<std::uint16_t> bits{0x7c01, 0xfe00, 0x8000, 0x0001};  // a signalling NaN first
  GgufWriter writer;
  writer.tensor("w", GgufType::F16, {2, 2}, gguf_raw(bits));
  const Memory memory(writer.file());
  const GgufFile file(memory.bytes());
  for (const std::array<Index, 2> stride : {std::array<Index, 2>{2, 1}, {1, 2}}) {
    std::array<pare::f16, 4> x{};
    file.read_rows("w", 0, TensorView<pare::f16, 2>{x.data(), {2, 2}, stride});
    for (Index i = 0; i < 4; ++i)
      EXPECT_EQ(x[static_cast<std::size_t>(i / 2 * stride[0] + i % 2 * stride[1])].bits,
                bits[static_cast<std::size_t>(i)]);
  }
}

TEST(GgufTensors, TwoTensorsMayShareBytes) {
  const GgufParts parts{.tensors = 2,
                        .directory = gguf_line("a", {2}, 0, 0) + gguf_line("b", {2}, 0, 0),
                        .data = gguf_raw(std::vector<float>{1, 2})};
  const Memory memory(parts.file());
  const GgufFile file(memory.bytes());
  EXPECT_EQ(file.tensor("a").bytes.data(), file.tensor("b").bytes.data());
}

TEST(GgufTensors, ManyKeysAndTensorsAreFoundByName) {
  GgufWriter writer;
  for (int i = 0; i < 2000; ++i) {
    const std::string name = "n" + std::to_string(i * 7919 % 2000);
    writer.add(name, i);
    writer.tensor(name, GgufType::F32, {1}, gguf_raw(static_cast<float>(i)));
  }
  const Memory memory(writer.file());
  const GgufFile file(memory.bytes());
  ASSERT_EQ(file.tensors().size(), 2000u);
  for (int i = 0; i < 2000; ++i) {
    const std::string name = "n" + std::to_string(i * 7919 % 2000);
    ASSERT_EQ(file.get<int>(name), i);
    ASSERT_EQ((file.view<float, 1>(name)(0)), static_cast<float>(i));
    ASSERT_EQ(file.tensors()[static_cast<std::size_t>(i)].name, name);
  }
}

static_assert(io::GgufReadable<bool> && io::GgufReadable<std::vector<std::string_view>>);
static_assert(!io::GgufReadable<char> && !io::GgufReadable<std::vector<std::vector<int>>>);
static_assert(!io::GgufReadable<pare::f16> && !io::GgufReadable<const char*>);
static_assert(!std::is_constructible_v<GgufFile, std::vector<std::byte>>, "it would be gone");
static_assert(std::is_constructible_v<GgufFile, std::vector<std::byte>&>);
static_assert(std::is_constructible_v<GgufFile, std::string>, "a path");
template <class Y>
concept TakesRows =
    requires(const GgufFile& file, Y&& out) { file.read_rows("x", 0, std::forward<Y>(out)); };
static_assert(TakesRows<Eigen::MatrixXf&> && TakesRows<Eigen::Block<Eigen::MatrixXf>>);
static_assert(!TakesRows<Eigen::MatrixXf> && !TakesRows<const Eigen::MatrixXf&>);
static_assert(!TakesRows<Eigen::MatrixXi&> && !TakesRows<std::vector<float>&>);
template <class V>
concept TakesRow =
    requires(const GgufFile& file, V&& out) { file.read_row("x", 0, std::forward<V>(out)); };
static_assert(TakesRow<Eigen::VectorXf&> && TakesRow<std::vector<double>&>);
static_assert(TakesRow<std::span<float>> && TakesRow<Eigen::Map<Eigen::RowVectorXf>>);
static_assert(!TakesRow<Eigen::MatrixXf&> && !TakesRow<std::vector<float>> &&
              !TakesRow<const std::vector<float>&>);

}  // namespace
}  // namespace io_gguf_test
