// SPDX-License-Identifier: Apache-2.0

#include "memory.hpp"
#include "temporary_folder.hpp"

#include <pare/io/safetensors.hpp>

#include <gtest/gtest.h>
#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace io_safetensors_test {
namespace {

namespace fs = std::filesystem;
namespace io = pare::io;
using namespace std::string_view_literals;
using io::SafetensorsFile;
using pare::Index;
using pare::TensorView;
using Metadata = std::map<std::string, std::string>;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

/// A file with any text as its header.
std::string safetensors(std::string_view text, std::string_view data = "") {
  std::string file;
  for (std::size_t i = 0; i < 8; ++i) file += static_cast<char>(text.size() >> (8 * i) & 0xff);
  return file.append(text).append(data);
}

std::string parse_refusal(std::string_view file) {
  return refusal([&] { SafetensorsFile(bytes_of(file)); });
}

std::string written(const std::vector<io::NamedTensor>& tensors, const Metadata& metadata = {}) {
  std::ostringstream os;
  io::write_safetensors(os, tensors, metadata);
  return os.str();
}

std::vector<std::string> names(const SafetensorsFile& file) {
  std::vector<std::string> list;
  for (const io::SafetensorsTensor& tensor : file.tensors()) list.push_back(tensor.name);
  return list;
}

class SafetensorsFiles : public TemporaryFolder {
 protected:
  void SetUp() override {
    TemporaryFolder::SetUp();
    path_ = folder_ / "x.safetensors";
  }

  fs::path path_;
};

/// Different bits in every element, whatever the type: the exponent of a float stays small.
template <class T>
T element(Index i) {
  if constexpr (std::is_integral_v<T>)
    return static_cast<T>(std::numeric_limits<T>::max() - static_cast<T>(i));
  else
    return static_cast<T>(static_cast<float>(i * 3 + 1) / 8.0f);
}

template <class T>
bool same_bits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

/// Eigen's spelling of a scalar.
template <class T>
using eigen_of =
    std::conditional_t<std::is_same_v<T, pare::f16>, Eigen::half,
                       std::conditional_t<std::is_same_v<T, pare::bf16>, Eigen::bfloat16, T>>;

template <class T>
class SafetensorsScalars : public SafetensorsFiles {};

using Scalars = ::testing::Types<float, double, pare::f16, pare::bf16, std::int8_t, std::uint8_t,
                                 std::int16_t, std::uint16_t, std::int32_t, std::uint32_t,
                                 std::int64_t, std::uint64_t, long long>;
TYPED_TEST_SUITE(SafetensorsScalars, Scalars);

TYPED_TEST(SafetensorsScalars, MatricesOfEveryLayoutComeBackRowMajor) {
  using T = TypeParam;
  using Scalar = eigen_of<T>;
  Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> row_major(5, 7);
  Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic> col_major(5, 7);
  for (Index i = 0; i < 5; ++i)
    for (Index j = 0; j < 7; ++j)
      pare::to_view(row_major)(i, j) = pare::to_view(col_major)(i, j) = element<T>(i * 7 + j);
  io::write_safetensors(this->path_, {{"row", row_major},
                                      {"column", col_major},
                                      {"block", col_major.block(1, 2, 3, 4)},
                                      {"transposed", pare::transpose(pare::to_view(row_major))}});
  EXPECT_EQ(this->files(), 1u);

  const SafetensorsFile file(this->path_);
  EXPECT_EQ(names(file), (std::vector<std::string>{"row", "column", "block", "transposed"}));
  for (const char* name : {"row", "column"}) {
    EXPECT_EQ(file.tensor(name).dtype, io::detail::safetensors_dtype<T>());
    const TensorView<const T, 2> m = file.template matrix<T>(name);
    ASSERT_EQ(m.extent, (std::array<Index, 2>{5, 7}));
    EXPECT_EQ(m.stride, (std::array<Index, 2>{7, 1}));
    for (Index i = 0; i < 5; ++i)
      for (Index j = 0; j < 7; ++j) EXPECT_TRUE(same_bits(m(i, j), element<T>(i * 7 + j)));
  }
  const auto block = file.template matrix<T>("block");
  ASSERT_EQ(block.extent, (std::array<Index, 2>{3, 4}));
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 4; ++j)
      EXPECT_TRUE(same_bits(block(i, j), element<T>((i + 1) * 7 + j + 2)));
  const auto transposed = file.template matrix<T>("transposed");
  ASSERT_EQ(transposed.extent, (std::array<Index, 2>{7, 5}));
  for (Index i = 0; i < 7; ++i)
    for (Index j = 0; j < 5; ++j) EXPECT_TRUE(same_bits(transposed(i, j), element<T>(j * 7 + i)));
}

TYPED_TEST(SafetensorsScalars, AnyRankVectorsAndEmptyTensors) {
  using T = TypeParam;
  std::vector<T> values(20000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = element<T>(static_cast<Index>(i));
  const TensorView<const T, 3> cube{values.data(), {3, 4, 5}, {1, 3, 12}};
  const Eigen::Map<const Eigen::Matrix<eigen_of<T>, Eigen::Dynamic, 1>> vector(
      reinterpret_cast<const eigen_of<T>*>(values.data()), 9);
  io::write_safetensors(this->path_,
                        {{"cube", cube},
                         {"strided", TensorView<const T, 1>{values.data(), {10000}, {2}}},
                         {"vector", vector},
                         {"scalar", TensorView<const T, 0>{values.data() + 3, {}, {}}},
                         {"empty", TensorView<const T, 2>{nullptr, {0, 7}, {7, 1}}}});
  const SafetensorsFile file(this->path_);
  const auto c = file.template view<T, 3>("cube");
  ASSERT_EQ(c.extent, cube.extent);
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 4; ++j)
      for (Index k = 0; k < 5; ++k) EXPECT_TRUE(same_bits(c(i, j, k), cube(i, j, k)));
  const auto s = file.template view<T, 1>("strided");
  ASSERT_EQ(s.extent[0], 10000);
  for (Index i = 0; i < 10000; ++i)
    ASSERT_TRUE(same_bits(s(i), values[static_cast<std::size_t>(2 * i)]));
  EXPECT_EQ(file.tensor("vector").shape, std::vector<Index>{9});
  EXPECT_TRUE(same_bits(file.template view<T, 1>("vector")(8), values[8]));
  EXPECT_TRUE(same_bits(file.template view<T, 0>("scalar")(), values[3]));
  EXPECT_EQ(file.template matrix<T>("empty").extent, (std::array<Index, 2>{0, 7}));
  EXPECT_EQ(file.tensor("empty").bytes.size(), 0u);
}

TEST_F(SafetensorsFiles, WiderElementsComeFirstSoThatAllAreAligned) {
  const std::vector<std::uint8_t> bytes{1, 2, 3};
  const std::vector<pare::bf16> halves{pare::bf16(1.5f), pare::bf16(-2.0f), pare::bf16(8.0f)};
  const std::vector<float> floats{0.25f};
  const std::vector<double> doubles{0.5, 0.75};
  io::write_safetensors(
      path_,
      {{"a", bytes}, {"b", halves}, {"c", floats}, {"d", doubles}, {"e", bytes}, {"f", floats}});
  const SafetensorsFile file(path_);
  EXPECT_EQ(names(file), (std::vector<std::string>{"d", "c", "f", "b", "a", "e"}));
  EXPECT_EQ((file.view<double, 1>("d")(1)), 0.75);
  EXPECT_EQ((file.view<float, 1>("f")(0)), 0.25f);
  EXPECT_EQ(static_cast<float>(file.view<pare::bf16, 1>("b")(2)), 8.0f);
  EXPECT_EQ((file.view<std::uint8_t, 1>("e")(2)), 3);
}

TEST_F(SafetensorsFiles, EigenTensorBoolAndMetadata) {
  Eigen::Tensor<float, 3, Eigen::RowMajor> t(2, 3, 4);
  std::iota(t.data(), t.data() + t.size(), 0.5f);
  const std::array<bool, 3> flags{true, false, true};
  const Metadata notes{{"format", "pt"}, {"quote \"\\\n", "\xc3\xa9 \xe2\x82\xac"}, {"", ""}};
  io::write_safetensors(path_, {{"t", t}, {"flags", flags}, {"na\"me\t\xc3\xa9", flags}}, notes);
  const SafetensorsFile file(path_);
  EXPECT_EQ(file.metadata(), notes);
  const auto v = file.view<float, 3>("t");
  EXPECT_TRUE(std::equal(t.data(), t.data() + t.size(), v.data));
  EXPECT_EQ(file.tensor("flags").dtype, "BOOL");
  const auto b = file.view<std::uint8_t, 1>("flags");
  EXPECT_EQ((std::vector<int>{b(0), b(1), b(2)}), (std::vector<int>{1, 0, 1}));
  EXPECT_TRUE(file.contains("na\"me\t\xc3\xa9"));
  EXPECT_FALSE(file.contains("__metadata__"));
}

TEST_F(SafetensorsFiles, ViewsPointIntoTheFileAndOutliveTheObjectTheyCameFrom) {
  io::write_safetensors(path_, {{"x", std::vector<float>{1, 2, 3, 4}}});
  auto first = std::make_unique<SafetensorsFile>(path_);
  const auto x = first->view<float, 1>("x");
  EXPECT_EQ(static_cast<const void*>(x.data),
            static_cast<const void*>(first->tensor("x").bytes.data()));
  const SafetensorsFile copy = *first;
  const SafetensorsFile moved = std::move(*first);
  first.reset();
  EXPECT_EQ(x(3), 4.0f);
  EXPECT_EQ((copy.view<float, 1>("x").data), x.data);
  EXPECT_EQ((moved.view<float, 1>("x").data), x.data);
}

TEST_F(SafetensorsFiles, TensorsOfAnotherFileAreCopiedAndMayBeWrittenToItsOwnPath) {
  io::write_safetensors(path_, {{"x", std::vector<float>{1, 2}}, {"y", std::vector<float>{3}}});
  {
    const SafetensorsFile file(path_);
    const io::SafetensorsTensor& x = file.tensor("x");
    io::write_safetensors(path_, {file.tensor("y"), {"renamed", x.dtype, x.shape, x.bytes}});
    EXPECT_EQ((file.view<float, 1>("x")(1)), 2.0f);
  }
  const SafetensorsFile again(path_);
  EXPECT_EQ(names(again), (std::vector<std::string>{"y", "renamed"}));
  EXPECT_EQ((again.view<float, 1>("renamed")(1)), 2.0f);
  EXPECT_EQ(files(), 1u);
}

TEST_F(SafetensorsFiles, ReadMatrixWidensFloats) {
  const Eigen::Matrix<float, 3, 5, Eigen::RowMajor> values =
      Eigen::Matrix<float, 3, 5, Eigen::RowMajor>::NullaryExpr(
          [](Index i, Index j) { return static_cast<float>(i) - 0.25f * static_cast<float>(j); });
  io::write_safetensors(
      path_, {{"F16", values.cast<Eigen::half>().eval()},
              {"BF16", values.cast<Eigen::bfloat16>().eval()},
              {"F32", values},
              {"F64", values.cast<double>().eval()},
              {"I32", values.cast<int>().eval()},
              {"vector", std::vector<float>{1, 2, 3}},
              {"cube", TensorView<const float, 3>{values.data(), {1, 3, 5}, {15, 5, 1}}}});
  const SafetensorsFile file(path_);
  for (const char* name : {"F16", "BF16", "F32"}) {
    EXPECT_EQ(file.read_matrix<float>(name), values) << name;
    EXPECT_EQ(file.read_matrix<double>(name), values.cast<double>()) << name;
  }
  EXPECT_EQ(file.read_matrix<double>("F64"), values.cast<double>());
  EXPECT_EQ(file.read_matrix<float>("vector"), Eigen::Vector3f(1, 2, 3));
  const std::string start = "pare::io::SafetensorsFile::read_matrix: " + path_.string() + ": ";
  EXPECT_EQ(refusal([&] { file.read_matrix<float>("F64"); }),
            start + "tensor 'F64': got dtype 'F64', wanted F8_E4M3, F8_E5M2, F16, BF16 or F32");
  EXPECT_EQ(
      refusal([&] { file.read_matrix<double>("I32"); }),
      start + "tensor 'I32': got dtype 'I32', wanted F8_E4M3, F8_E5M2, F16, BF16, F32 or F64");
  EXPECT_EQ(refusal([&] { file.read_matrix<float>("cube"); }),
            start + "tensor 'cube': got shape (1, 3, 5), wanted 1 or 2 dimensions");
  EXPECT_EQ(refusal([&] { file.read_matrix<float>("none"); }),
            start + "got no tensor 'none', wanted one of the file's 7 tensors");
}

/// A tensor of every byte as `dtype`, [16, 16].
std::string eight_bit_floats(const char* dtype) {
  std::string data(256, '\0');
  std::iota(data.begin(), data.end(), '\0');
  return safetensors(
      R"({"x":{"dtype":")" + std::string(dtype) + R"(","shape":[16,16],"data_offsets":[0,256]}})",
      data);
}

/// The value of an 8-bit float with `fraction` bits after the point, by its definition.
double float8(unsigned bits, int fraction, int bias) {
  const double sign = bits & 0x80 ? -1 : 1;
  const int exponent = static_cast<int>((bits & 0x7f) >> fraction);
  const double significand = (bits & ((1u << fraction) - 1)) / double(1 << fraction);
  return sign * (exponent == 0 ? std::ldexp(significand, 1 - bias)
                               : std::ldexp(1 + significand, exponent - bias));
}

template <class T>
class SafetensorsFloats : public ::testing::Test {};
using Floats = ::testing::Types<float, double, pare::bf16, pare::f16>;
TYPED_TEST_SUITE(SafetensorsFloats, Floats);

TYPED_TEST(SafetensorsFloats, EightBitFloatsAreReadExactlyIntoMemoryOfAnyLayout) {
  using Scalar = eigen_of<TypeParam>;
  for (const bool e4m3 : {true, false}) {
    const Memory memory(eight_bit_floats(e4m3 ? "F8_E4M3" : "F8_E5M2"));
    const SafetensorsFile file(memory.bytes());
    const auto expect = [&](const auto& rows, unsigned first) {
      for (Index i = 0; i < rows.rows(); ++i)
        for (Index j = 0; j < rows.cols(); ++j) {
          const unsigned bits = first * 16 + static_cast<unsigned>(i * 16 + j);
          const auto value = static_cast<double>(static_cast<float>(rows(i, j)));
          const unsigned magnitude = bits & 0x7f;
          EXPECT_EQ(std::signbit(value), bits > 127) << bits;
          if (e4m3 ? magnitude == 0x7f : magnitude > 0x7c)
            EXPECT_TRUE(std::isnan(value)) << bits;
          else if (!e4m3 && magnitude == 0x7c)
            EXPECT_TRUE(std::isinf(value)) << bits;
          else
            EXPECT_EQ(value, e4m3 ? float8(bits, 3, 7) : float8(bits, 2, 15)) << bits;
        }
    };
    Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> all(16, 16);
    file.read_rows("x", 0, all);
    expect(all, 0);
    Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic> large(9, 20);
    large.setConstant(Scalar(7.0f));
    file.read_rows("x", 3, large.block(1, 2, 5, 16));
    expect(large.block(1, 2, 5, 16), 3);
    large.block(1, 2, 5, 16).setConstant(Scalar(7.0f));
    EXPECT_TRUE((large.array() == Scalar(7.0f)).all()) << "nothing is written outside";
    file.read_rows("x", 16, all.topRows(0));
    file.read_rows("x", 0, TensorView<TypeParam, 2>{nullptr, {0, 16}, {16, 1}});
  }
}

TEST(SafetensorsViews, RowsOfWiderFloatsAreReadAsWhatHoldsThem) {
  const std::vector<float> values{0.5f, -2, 3, 4, 5, 6};
  const std::vector<pare::bf16> brains{pare::bf16(1.5f), pare::bf16(-8.0f)};
  const std::vector<pare::f16> halves{pare::f16(1.5f), pare::f16(-8.0f)};
  const Memory memory(written({{"F32", TensorView<const float, 2>{values.data(), {3, 2}, {2, 1}}},
                               {"BF16", brains},
                               {"F16", halves},
                               {"F64", std::vector<double>{1, 2}}}));
  const SafetensorsFile file(memory.bytes());
  Eigen::MatrixXd wide(2, 2);
  file.read_rows("F32", 1, wide);
  EXPECT_EQ(wide, (Eigen::Matrix2d{{3, 4}, {5, 6}}));
  Eigen::MatrixXf column(1, 1);
  for (const char* name : {"BF16", "F16"}) {
    file.read_rows(name, 1, column);
    EXPECT_EQ(column(0, 0), -8.0f) << name;
  }
  Eigen::Matrix<Eigen::bfloat16, 2, 1> brain;
  file.read_rows("BF16", 0, brain);
  EXPECT_EQ(static_cast<float>(brain(1)), -8.0f);
  Eigen::Matrix<Eigen::half, 2, 1> half;
  file.read_rows("F16", 0, half);
  EXPECT_EQ(static_cast<float>(half(1)), -8.0f);
  const std::string start = "pare::io::SafetensorsFile::read_rows: bytes: tensor ";
  for (const std::string name : {"F16", "F32", "F64"})
    EXPECT_EQ(refusal([&] { file.read_rows(name, 0, brain); }),
              start + "'" + name + "': got dtype '" + name + "', wanted F8_E4M3, F8_E5M2 or BF16");
  EXPECT_EQ(refusal([&] { file.read_rows("BF16", 0, half); }),
            start + "'BF16': got dtype 'BF16', wanted F8_E4M3, F8_E5M2 or F16");
  EXPECT_NE(refusal([&] { file.read_rows("F64", 0, column); }), "(accepted)");
}

TEST(SafetensorsViews, RowsThatAreNotThereOrHaveNoPlaceAreRefused) {
  std::string bytes = eight_bit_floats("F8_E5M2");
  const SafetensorsFile file(bytes_of(bytes));
  const std::string start = "pare::io::SafetensorsFile::read_rows: ";
  Eigen::MatrixXf out = Eigen::MatrixXf::Constant(2, 16, 7);
  const auto first = [&](Index row) { return refusal([&] { file.read_rows("x", row, out); }); };
  EXPECT_EQ(first(-1), start + "first: got -1, wanted 0 to 16, the rows of the tensor");
  EXPECT_EQ(first(17), start + "first: got 17, wanted 0 to 16, the rows of the tensor");
  EXPECT_NE(first(std::numeric_limits<Index>::max()), "(accepted)");
  EXPECT_EQ(first(15), start + "out: got [2, 16], wanted up to 1 rows of 16 columns");
  const auto place = [&](const TensorView<float, 2>& view) {
    return refusal([&] { file.read_rows("x", 0, view); });
  };
  EXPECT_EQ(place({out.data(), {2, 15}, {1, 2}}),
            start + "out: got [2, 15], wanted up to 16 rows of 16 columns");
  EXPECT_NE(place({out.data(), {-1, 16}, {1, 2}}), "(accepted)");
  EXPECT_EQ(place({nullptr, {2, 16}, {16, 1}}).find(start + "out: got a null pointer"), 0u);
  EXPECT_EQ(place({out.data(), {2, 16}, {0, 1}}).find(start + "out: got "), 0u);
  EXPECT_TRUE((out.array() == 7).all());
  EXPECT_EQ(first(14), "(accepted)");

  auto* const data =
      reinterpret_cast<pare::bf16*>(bytes.data() + bytes.size() - 256 - (bytes.size() % 2));
  const std::string before = bytes;
  EXPECT_NE(refusal([&] {
              file.read_rows("x", 0, TensorView<pare::bf16, 2>{data, {1, 16}, {16, 1}});
            }).find("out: got "),
            std::string::npos);
  EXPECT_EQ(bytes, before);
}

TEST_F(SafetensorsFiles, TensorsWithoutATypeAreListedGivenAsBytesAndCopied) {
  const auto bytes = bytes_of("12345678");
  const std::pair<const char*, Index> dtypes[] = {
      {"F4", 16},         {"F6_E2M3", 8}, {"F6_E3M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
      {"F8_E5M2FNUZ", 8}, {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"C64", 1}};
  const std::vector<float> value{0.5f};
  std::vector<io::NamedTensor> tensors{{"w", value}};
  for (const auto& [dtype, count] : dtypes) {
    const bool is_six = std::string_view(dtype).starts_with("F6");
    tensors.emplace_back(dtype, dtype, std::vector<Index>{count}, bytes.first(is_six ? 6 : 8));
  }
  io::write_safetensors(path_, tensors);
  const SafetensorsFile first(path_);
  io::write_safetensors(path_, {first.tensors().begin(), first.tensors().end()});
  const SafetensorsFile file(path_);
  EXPECT_EQ(names(file).front(), "C64");
  EXPECT_EQ(names(file).back(), "F4") << "narrower elements come last";
  EXPECT_EQ((file.view<float, 1>("w")(0)), 0.5f);
  for (const auto& [dtype, count] : dtypes) {
    const io::SafetensorsTensor& tensor = file.tensor(dtype);
    EXPECT_EQ(tensor.dtype, dtype);
    EXPECT_EQ(tensor.shape, std::vector<Index>{count});
    EXPECT_TRUE(std::ranges::equal(tensor.bytes, bytes.first(tensor.bytes.size())));
    const std::string got = "got dtype '" + std::string(dtype) + "', wanted ";
    const std::string_view name = tensor.name;
    EXPECT_NE(refusal([&] { file.view<std::uint8_t, 1>(name); }).find(got + "'U8'"),
              std::string::npos);
    EXPECT_NE(refusal([&] { file.view<float, 1>(name); }).find(got), std::string::npos);
    const bool is_read = dtype == "F8_E4M3"sv || dtype == "F8_E5M2"sv;
    EXPECT_EQ(refusal([&] { file.read_matrix<float>(name); }) == "(accepted)", is_read) << dtype;
  }
}

TEST(SafetensorsViews, AnotherDtypeRankOrNameIsRefused) {
  const Memory memory(written({{"x", std::vector<float>{1, 2}}, {"n", std::vector<int>{1}}}));
  const SafetensorsFile file(memory.bytes());
  const std::string start = "pare::io::SafetensorsFile::";
  EXPECT_EQ(
      refusal([&] { file.matrix<pare::bf16>("x"); }),
      start + "matrix: bytes: tensor 'x': got dtype 'F32', wanted 'BF16', what it is viewed as");
  EXPECT_EQ(refusal([&] { file.matrix<float>("x"); }),
            start + "matrix: bytes: tensor 'x': shape: got (2,), wanted 2 dimensions");
  EXPECT_EQ(refusal([&] { file.view<float, 3>("x"); }),
            start + "view: bytes: tensor 'x': shape: got (2,), wanted 3 dimensions");
  EXPECT_EQ(refusal([&] { file.view<float, 1>("y"); }),
            start + "view: bytes: got no tensor 'y', wanted one of the file's 2 tensors");
  EXPECT_NE(
      refusal([&] { file.view<std::uint32_t, 1>("n"); }).find("got dtype 'I32', wanted 'U32'"),
      std::string::npos);
  EXPECT_NE(refusal([&] { file.view<std::int8_t, 1>("n"); }), "(accepted)");
  EXPECT_NE(
      refusal([&] { file.tensor("y"); }).find("SafetensorsFile::tensor: bytes: got no tensor"),
      std::string::npos);
}

TEST(SafetensorsViews, DataOffItsAlignmentIsRefusedAsAViewAndCopied) {
  const Memory memory(safetensors(
      R"({"n":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
      R"("x":{"dtype":"F32","shape":[2],"data_offsets":[1,9]},"e":{"dtype":"F32","shape":[0],"data_offsets":[9,9]}}   )"sv,
      "\7\0\0\x80\x3f\0\0\0\x40"sv));
  const SafetensorsFile file(memory.bytes());
  const auto address = reinterpret_cast<std::uintptr_t>(file.tensor("x").bytes.data());
  ASSERT_NE(address % 4, 0u);
  EXPECT_EQ(
      refusal([&] { file.view<float, 1>("x"); }),
      "pare::io::SafetensorsFile::view: bytes: tensor 'x': got data " +
          std::to_string(address % 4) +
          " bytes past a multiple of 4, wanted aligned data (read_matrix and bytes need none)");
  EXPECT_EQ(file.read_matrix<float>("x"), Eigen::Vector2f(1, 2));
  EXPECT_EQ((file.view<float, 1>("e").extent[0]), 0);
  EXPECT_EQ((file.view<std::uint8_t, 1>("n")(0)), 7);
}

// Bytes as the format's description and its reference implementation define them.

constexpr std::string_view golden_empty = "\x08\0\0\0\0\0\0\0{}      "sv;
constexpr std::string_view golden_one =
    "\x48\0\0\0\0\0\0\0"
    R"({"attn0":{"dtype":"F32","shape":[1,1,2,3],"data_offsets":[0,24]}})"
    "       "
    "\0\0\0\0\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40\0\0\xa0\x40"sv;
/// Without padding: the header is a multiple of 8 bytes as it is.
constexpr std::string_view golden_full =
    "\x40\0\0\0\0\0\0\0"
    R"({"attn.0":{"dtype":"F32","shape":[1,2,3],"data_offsets":[0,24]}})"
    "\0\0\0\0\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40\0\0\xa0\x40"sv;
constexpr std::string_view golden_metadata =
    "\x28\0\0\0\0\0\0\0"
    R"({"__metadata__":{"framework":"pt"}})"
    "     "sv;
constexpr std::string_view golden_two =
    "\x88\0\0\0\0\0\0\0"
    R"({"__metadata__":{"k":"v"},"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},)"
    R"("a":{"dtype":"I8","shape":[],"data_offsets":[4,5]}})"
    "     "
    "\x80\x3f\x00\xc0\xff"sv;

TEST(SafetensorsGolden, BytesAreAsDefined) {
  std::vector<float> values{0, 1, 2, 3, 4, 5};
  const std::int8_t minus_one = -1;
  EXPECT_EQ(written({}), golden_empty);
  EXPECT_EQ(written({{"attn0", TensorView<float, 4>{values.data(), {1, 1, 2, 3}, {6, 6, 3, 1}}}}),
            golden_one);
  EXPECT_EQ(written({{"attn.0", TensorView<float, 3>{values.data(), {1, 2, 3}, {6, 3, 1}}}}),
            golden_full);
  EXPECT_EQ(written({}, {{"framework", "pt"}}), golden_metadata);
  EXPECT_EQ(written({{"a", TensorView<const std::int8_t, 0>{&minus_one, {}, {}}},
                     {"b", std::vector{pare::bf16(1.0f), pare::bf16(-2.0f)}}},
                    {{"k", "v"}}),
            golden_two);
}

TEST(SafetensorsGolden, BytesAreRead) {
  const SafetensorsFile empty(bytes_of(golden_empty));
  EXPECT_TRUE(empty.tensors().empty());
  const Memory one(golden_one), two(golden_two);
  const SafetensorsFile file(one.bytes());
  EXPECT_EQ(file.tensor("attn0").shape, (std::vector<Index>{1, 1, 2, 3}));
  EXPECT_EQ((file.view<float, 4>("attn0")(0, 0, 1, 2)), 5.0f);
  const SafetensorsFile meta(bytes_of(golden_metadata));
  EXPECT_EQ(meta.metadata(), (Metadata{{"framework", "pt"}}));
  const SafetensorsFile both(two.bytes());
  EXPECT_EQ(static_cast<float>(both.view<pare::bf16, 1>("b")(1)), -2.0f);
  EXPECT_EQ((both.view<std::int8_t, 0>("a")()), -1);
}

TEST(SafetensorsHeader, JsonThatMeansTheSame) {
  const std::string_view data = "\x2a\0\0\0"sv;
  for (const std::string_view text :
       {R"({"x":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}})"sv,
        R"({ "x" : { "data_offsets" : [ 0 , 4 ] , "shape" : [ 1 ] , "dtype" : "I32" } })"
        "  \n\t "sv,
        R"({"__metadata__":{},"x":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}})"sv,
        R"({"x":{"dtype":"\u004932","shape":[1],"data_offsets":[0,4]},"__metadata__":{"a":"b"}})"sv,
        R"({"\u0078":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}})"sv,
        R"({"__metadata__":null,"x":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}})"sv,
        R"({"x":{"dtype":"I32","shape":[1],"data_offsets":[0,4]},"__metadata__":null})"sv,
        R"({"x":{"more":1,"dtype":"I32","shape":[1],"":null,"data_offsets":[0,4],"more":"2"}})"sv,
        R"({"x":{"a":{"dtype":"F64","b":[{},[[]],{"c":[-1,2.5,true,null,"d"]}]},)"
        R"("dtype":"I32","shape":[1],"data_offsets":[0,4],"e":[]}})"sv}) {
    const Memory memory(safetensors(text, data));
    const SafetensorsFile file(memory.bytes());
    EXPECT_EQ(names(file), std::vector<std::string>{"x"}) << text;
    EXPECT_EQ(file.tensor("x").shape, std::vector<Index>{1});
    std::int32_t value = 0;
    std::memcpy(&value, file.tensor("x").bytes.data(), 4);
    EXPECT_EQ(value, 42);
  }
}

struct BadHeader {
  const char* text;
  const char* message;
};

/// Every header is refused, with this in the message; `data` bytes follow it.
template <std::size_t N>
void expect_refused(const BadHeader (&cases)[N], std::size_t data) {
  for (const auto& [text, message] : cases) {
    const std::string got = parse_refusal(safetensors(text, std::string(data, 'x')));
    EXPECT_EQ(got.find("pare::io::SafetensorsFile: bytes: "), 0u) << text << "\n  " << got;
    EXPECT_NE(got.find(message), std::string::npos) << text << "\n  " << got;
  }
}

TEST(SafetensorsHeader, WhatIsNotAJsonObjectOfTensorsIsRefused) {
  const BadHeader cases[] = {
      {"", "got a header that does not start with `{`, wanted a .safetensors file"},
      {"[]", "got a header that does not start with `{`"},
      {" {}", "got a header that does not start with `{`"},
      {"\xef\xbb\xbf{}", "got a header that does not start with `{`"},
      {"{", "got text that is not JSON at byte 2, near `{`, wanted a JSON object"},
      {"{}}", "got text that is not JSON at byte 3, near `{}}`"},
      {"{} {}", "got text that is not JSON at byte 4"},
      {"{x:1}", "got text that is not JSON at byte 2"},
      {"{'x':1}", "got text that is not JSON at byte 2"},
      {"{\"x\"}", "got text that is not JSON at byte 5"},
      {"{\"a\xff\":{}}", "got text that is not JSON at byte 4, near `\"a?`"},
      {"{\"a\\ud800\":{}}", "got text that is not JSON"},
      {"{\"a\nb\":{}}", "got text that is not JSON"},
      {"{/*a*/}", "got text that is not JSON"},
      {R"({"x":{"dtype":"F32","shape":[01]}})", "got text that is not JSON"},
      {R"({"x":{"dtype":"F32","shape":[1,]}})", "got text that is not JSON"},
      {R"({"x":{"dtype":"F32","shape":[1e999]}})", "got text that is not JSON"},
      {R"({"x":1})", "tensor 'x': got 1, wanted an object of dtype, shape and data_offsets"},
      {R"({"x":null})", "tensor 'x': got null, wanted an object"},
      {R"({"x":true})", "tensor 'x': got true, wanted an object"},
      {R"({"x":"F32"})", "tensor 'x': got 'F32', wanted an object"},
      {R"({"x":[]})", "tensor 'x': got an array, wanted an object"},
      {R"({"x":{}})", "tensor 'x': got no dtype, wanted dtype, shape and data_offsets"},
      {R"({"x":{"dtype":"F32"}})", "tensor 'x': got no shape, wanted"},
      {R"({"x":{"dtype":"F32","shape":[1]}})", "tensor 'x': got no data_offsets, wanted"},
      {R"({"x":{"offsets":[0,4]}})",
       "tensor 'x': got no dtype, wanted dtype, shape and data_offsets"},
      {R"({"x":{"more":[{"a":[1]}]},"y":1})", "tensor 'x': got no dtype, wanted"},
      {R"({"x":{"more":1e999}})", "got text that is not JSON"},
      {R"({"x":{"more":{"a":1)", "got text that is not JSON"},
      {R"({"more":[1]})", "tensor 'more': got an array, wanted an object"},
      {R"({"x":{"dtype":1}})", "tensor 'x': got dtype 1, wanted a string"},
      {R"({"x":{"dtype":{}}})", "tensor 'x': got dtype an object, wanted a string"},
      {R"({"x":{"shape":4}})", "tensor 'x': got shape 4, wanted an array"},
      {R"({"x":{"shape":{}}})", "tensor 'x': got shape an object, wanted an array"},
      {R"({"x":{"shape":[[1]]}})", "tensor 'x': got an extent of an array, wanted a whole number"},
      {R"({"x":{"shape":["1"]}})", "tensor 'x': got an extent of '1', wanted a whole number"},
      {R"({"x":{"shape":[-1]}})",
       "tensor 'x': got an extent of -1, wanted a whole number from 0 to 2^63 - 1"},
      {R"({"x":{"shape":[-0]}})", "tensor 'x': got an extent of 0, wanted a whole number"},
      {R"({"x":{"shape":[1.0]}})", "tensor 'x': got an extent of 1.0, wanted a whole number"},
      {R"({"x":{"shape":[1e2]}})", "tensor 'x': got an extent of 1e2, wanted a whole number"},
      {R"({"x":{"shape":[9223372036854775808]}})", "got an extent of 9223372036854775808, wanted"},
      {R"({"x":{"shape":[18446744073709551616]}})",
       "got an extent of 18446744073709551616, wanted"},
      {R"({"x":{"data_offsets":0}})", "tensor 'x': got data_offsets 0, wanted an array of two"},
      {R"({"x":{"data_offsets":[]}})", "tensor 'x': got data_offsets with `]`, wanted a first"},
      {R"({"x":{"data_offsets":[0]}})", "tensor 'x': got data_offsets with `]`, wanted a first"},
      {R"({"x":{"data_offsets":[0,4,8]}})", "tensor 'x': got data_offsets with 8, wanted a first"},
      {R"({"x":{"data_offsets":[-4,0]}})", "tensor 'x': got data_offsets with -4, wanted a first"},
      {R"({"x":{"data_offsets":[0,4.0]}})",
       "tensor 'x': got data_offsets with 4.0, wanted a first"},
      {R"({"x":{"data_offsets":[0,[4]]}})", "tensor 'x': got data_offsets with an array, wanted"},
      {R"({"__metadata__":1})", "got __metadata__ that is 1, wanted an object of strings"},
      {R"({"__metadata__":true})", "got __metadata__ that is true, wanted an object of strings"},
      {R"({"__metadata__":"a"})", "got __metadata__ that is 'a', wanted an object of strings"},
      {R"({"__metadata__":["a"]})", "got __metadata__ that is an array, wanted an object"},
      {R"({"__metadata__":{"a":1}})", "got __metadata__ 'a' that is 1, wanted a string"},
      {R"({"__metadata__":{"a":{}}})", "got __metadata__ 'a' that is an object, wanted a string"},
      {R"({"__metadata__":{"a":null}})", "got __metadata__ 'a' that is null, wanted a string"},
  };
  expect_refused(cases, 4);
  using namespace std::string_literals;
  EXPECT_EQ(parse_refusal(safetensors("{}\0garbage"sv)),
            "pare::io::SafetensorsFile: bytes: got a zero byte in the header, wanted JSON");
  const std::string deep = R"({"x":)" + std::string(1'000'000, '[');
  EXPECT_NE(parse_refusal(safetensors(deep)).find("got an array, wanted an object"),
            std::string::npos);
}

TEST(SafetensorsHeader, KeysThatOccurTwiceAreRefused) {
  const BadHeader cases[] = {
      {R"({"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
       R"("x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
       "got header key 'x' twice, wanted every name once"},
      {R"({"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
       R"("\u0078":{"dtype":"U8","shape":[0],"data_offsets":[4,4]}})",
       "got header key 'x' twice"},
      {R"({"__metadata__":{},"__metadata__":{}})", "got header key '__metadata__' twice"},
      {R"({"__metadata__":null,"__metadata__":{}})", "got header key '__metadata__' twice"},
      {R"({"x":{"dtype":"U8","more":1,"dtype":"U8"}})", "tensor 'x': got key 'dtype' twice"},
      {R"({"__metadata__":{"a":"b","a":"b"}})",
       "got __metadata__ key 'a' twice, wanted every key once"},
      {R"({"x":{"dtype":"U8","dtype":"U8"}})", "tensor 'x': got key 'dtype' twice, wanted every"},
      {R"({"x":{"shape":[4],"shape":[4]}})", "tensor 'x': got key 'shape' twice"},
      {R"({"x":{"data_offsets":[0,4],"data_offsets":[0,4]}})",
       "tensor 'x': got key 'data_offsets' twice"},
  };
  expect_refused(cases, 4);
}

TEST(SafetensorsHeader, DtypesThatAreNotKnownAreNamed) {
  const std::string wanted =
      "wanted one of F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, BOOL, F8_E4M3, "
      "F8_E5M2, F8_E8M0, F8_E4M3FNUZ, F8_E5M2FNUZ, F6_E2M3, F6_E3M2, F4, C64";
  for (const std::string dtype : {"F8", "F8_E4M3FN", "C128", "f32", "", "F32 ", "U128"})
    EXPECT_EQ(
        parse_refusal(safetensors(
            R"({"x":{"dtype":")" + dtype + R"(","shape":[4],"data_offsets":[0,4]}})", "xxxx")),
        "pare::io::SafetensorsFile: bytes: tensor 'x': got dtype '" + dtype + "', " + wanted);
  const std::pair<const char*, std::size_t> sizes[] = {
      {"F64", 8},     {"F32", 4},     {"F16", 2},         {"BF16", 2},       {"I64", 8},
      {"I32", 4},     {"I16", 2},     {"I8", 1},          {"U64", 8},        {"U32", 4},
      {"U16", 2},     {"U8", 1},      {"BOOL", 1},        {"C64", 8},        {"F8_E4M3", 1},
      {"F8_E5M2", 1}, {"F8_E8M0", 1}, {"F8_E4M3FNUZ", 1}, {"F8_E5M2FNUZ", 1}};
  for (const auto& [dtype, size] : sizes)
    for (std::size_t data = 0; data < 10; ++data) {
      const std::string file =
          safetensors(R"({"x":{"dtype":")" + std::string(dtype) +
                          R"(","shape":[1],"data_offsets":[0,)" + std::to_string(data) + "]}}",
                      std::string(data, 'x'));
      EXPECT_EQ(parse_refusal(file) == "(accepted)", data == size) << dtype << ' ' << data;
    }
}

TEST(SafetensorsHeader, ElementsOfLessThanAByteFillWholeBytes) {
  const auto answer = [](const char* dtype, const char* shape, std::size_t data) {
    return parse_refusal(safetensors(R"({"x":{"dtype":")" + std::string(dtype) + R"(","shape":[)" +
                                         shape + R"(],"data_offsets":[0,)" + std::to_string(data) +
                                         "]}}",
                                     std::string(data, 'x')));
  };
  const std::string start = "pare::io::SafetensorsFile: bytes: tensor 'x': got ";
  EXPECT_EQ(answer("F4", "3,4", 6), "(accepted)");
  EXPECT_EQ(answer("F4", "0", 0), "(accepted)");
  EXPECT_EQ(answer("F6_E2M3", "2,2", 3), "(accepted)");
  EXPECT_EQ(answer("F6_E3M2", "4,3", 9), "(accepted)");
  EXPECT_EQ(answer("F4", "3", 2),
            start + "3 elements of 4 bits, wanted elements that fill whole bytes");
  EXPECT_EQ(answer("F4", "", 1),
            start + "1 elements of 4 bits, wanted elements that fill whole bytes");
  for (const char* shape : {"1", "2", "3", "6"})
    EXPECT_NE(answer("F6_E3M2", shape, 3).find("elements that fill whole bytes"),
              std::string::npos);
  EXPECT_EQ(answer("F4", "4", 4),
            start + "data_offsets [0, 4], wanted 2 bytes for shape (4,) of F4");
  EXPECT_EQ(answer("F6_E2M3", "4", 4),
            start + "data_offsets [0, 4], wanted 3 bytes for shape (4,) of F6_E2M3");
  EXPECT_NE(answer("F4", "9223372036854775806", 4).find("wanted 4611686018427387903 bytes"),
            std::string::npos)
      << "more bits than 63 bits count, but not more bytes";
}

TEST(SafetensorsHeader, OffsetsThatDoNotMatchTheShapeOrTheDataAreRefused) {
  const BadHeader cases[] = {
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})",
       "tensor 'x': got data_offsets [8, 0], wanted the first not above the last"},
      {R"({"x":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})",
       "tensor 'x': got data_offsets [0, 12], wanted at most 8, the bytes of data"},
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551615]}})",
       "wanted at most 8, the bytes of data"},
      {R"({"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})",
       "tensor 'x': got data_offsets [0, 8], wanted 12 bytes for shape (3,) of F32"},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})",
       "tensor 'x': got data_offsets [0, 8], wanted 4 bytes for shape (1,) of F32"},
      {R"({"x":{"dtype":"F64","shape":[],"data_offsets":[0,4]}})",
       "wanted 8 bytes for shape () of F64"},
      {R"({"x":{"dtype":"F32","shape":[0,2],"data_offsets":[0,8]}})",
       "wanted 0 bytes for shape (0, 2) of F32"},
      {R"({"x":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})",
       "tensor 'x': got [4294967296, 4294967296], wanted a product of sizes that fits 63 bits"},
      {R"({"x":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})",
       "tensor 'x': got [4611686018427387904, 4], wanted a product of sizes that fits 63 bits"},
      {R"({"x":{"dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}})",
       "wanted a product of sizes that fits 63 bits"},
  };
  expect_refused(cases, 8);
  EXPECT_EQ(parse_refusal(safetensors(
                R"({"x":{"dtype":"U8","shape":[0,9223372036854775807],"data_offsets":[0,0]}})")),
            "(accepted)");
}

/// Two tensors of bytes, in this order in the header.
std::string two_tensors(std::array<int, 2> a, std::array<int, 2> b, std::size_t data) {
  const auto entry = [](const char* name, std::array<int, 2> o) {
    return "\"" + std::string(name) + R"(":{"dtype":"U8","shape":[)" + std::to_string(o[1] - o[0]) +
           R"(],"data_offsets":[)" + std::to_string(o[0]) + "," + std::to_string(o[1]) + "]}";
  };
  return parse_refusal(
      safetensors("{" + entry("a", a) + "," + entry("b", b) + "}", std::string(data, 'x')));
}

TEST(SafetensorsHeader, GapsAndOverlapsAreRefused) {
  EXPECT_EQ(two_tensors({0, 3}, {3, 8}, 8), "(accepted)");
  EXPECT_EQ(two_tensors({3, 8}, {0, 3}, 8), "(accepted)");
  EXPECT_EQ(two_tensors({0, 8}, {0, 0}, 8), "(accepted)");
  EXPECT_EQ(two_tensors({0, 8}, {8, 8}, 8), "(accepted)");
  const std::string start = "pare::io::SafetensorsFile: bytes: ";
  const std::string wanted = ", wanted data that follows the one before it, the first at 0";
  EXPECT_EQ(two_tensors({0, 4}, {3, 8}, 8),
            start + "tensor 'b': got data that overlaps another tensor's" + wanted);
  EXPECT_EQ(two_tensors({0, 8}, {0, 8}, 8),
            start + "tensor 'b': got data that overlaps another tensor's" + wanted);
  EXPECT_EQ(two_tensors({0, 8}, {2, 4}, 8),
            start + "tensor 'b': got data that overlaps another tensor's" + wanted);
  EXPECT_EQ(two_tensors({0, 8}, {4, 4}, 8),
            start + "tensor 'b': got data that overlaps another tensor's" + wanted);
  EXPECT_EQ(two_tensors({0, 3}, {4, 8}, 8),
            start + "tensor 'b': got unused bytes before its data" + wanted);
  EXPECT_EQ(two_tensors({1, 3}, {3, 8}, 8),
            start + "tensor 'a': got unused bytes before its data" + wanted);
  EXPECT_EQ(two_tensors({0, 3}, {3, 7}, 8),
            start + "got 1 bytes after the last tensor, wanted a file that ends with its data");
  EXPECT_EQ(parse_refusal(safetensors("{}", "x")),
            start + "got 1 bytes after the last tensor, wanted a file that ends with its data");
}

TEST(SafetensorsHeader, EveryPrefixOfAFileIsRefused) {
  for (const auto file : {golden_one, golden_two, golden_metadata, golden_empty})
    for (std::size_t n = 0; n < file.size(); ++n) {
      const Memory cut(file.substr(0, n));
      EXPECT_NE(refusal([&] { SafetensorsFile(cut.bytes()); }), "(accepted)") << n;
    }
  const std::string start = "pare::io::SafetensorsFile: bytes: ";
  EXPECT_EQ(parse_refusal(golden_one.substr(0, 7)),
            start + "got a file of 7 bytes, wanted a .safetensors file");
  EXPECT_EQ(parse_refusal(golden_one.substr(0, 79)),
            start + "got a header of 72 bytes, wanted at most 71 here");
  EXPECT_EQ(
      parse_refusal(golden_one.substr(0, 103)),
      start + "tensor 'attn0': got data_offsets [0, 24], wanted at most 23, the bytes of data");
}

TEST(SafetensorsHeader, BytesThatAreNotThereAreRefused) {
  EXPECT_EQ(refusal([] { SafetensorsFile(std::span(static_cast<const std::byte*>(nullptr), 16)); }),
            "pare::io::SafetensorsFile: bytes: got a null pointer, wanted data");
  EXPECT_EQ(refusal([] { SafetensorsFile(std::span<const std::byte>()); }),
            "pare::io::SafetensorsFile: bytes: got a file of 0 bytes, wanted a .safetensors file");
}

TEST(SafetensorsHeader, AHeaderLongerThanTheFileOrThan100MegabytesIsRefused) {
  const std::string start = "pare::io::SafetensorsFile: bytes: ";
  EXPECT_EQ(parse_refusal("\xff\xff\xff\xff\xff\xff\xff\xff{}"sv),
            start + "got a header of 18446744073709551615 bytes, wanted at most 2 here");
  EXPECT_EQ(parse_refusal("\xff\xff\xff\xff\xff\xff\xff\x7f{}"sv),
            start + "got a header of 9223372036854775807 bytes, wanted at most 2 here");
  EXPECT_EQ(parse_refusal("\3\0\0\0\0\0\0\0{}"sv),
            start + "got a header of 3 bytes, wanted at most 2 here");
  // The first byte is looked at once the length is taken, and says which of the two it was.
  std::string large(8 + 100'000'001, '[');
  const std::uint32_t longest = 100'000'000;
  for (const std::uint32_t length : {longest, longest + 1}) {
    std::fill_n(large.begin(), 8, '\0');
    std::memcpy(large.data(), &length, sizeof(length));
    EXPECT_EQ(parse_refusal(large), length == longest
                                        ? start +
                                              "got a header that does not start with `{`, "
                                              "wanted a .safetensors file"
                                        : start +
                                              "got a header of 100000001 bytes, wanted at "
                                              "most 100000000 here");
  }
}

TEST(SafetensorsHeader, ManyTensorsAndALongHeader) {
  std::vector<std::uint16_t> values(3000);
  std::iota(values.begin(), values.end(), std::uint16_t{0});
  std::vector<io::NamedTensor> tensors;
  for (std::size_t i = 0; i < values.size(); ++i)
    tensors.emplace_back(std::string(100, 'n') + std::to_string(i),
                         std::span(values).subspan(i, 1));
  const Memory memory(written(tensors));
  const SafetensorsFile file(memory.bytes());
  ASSERT_EQ(file.tensors().size(), values.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    ASSERT_EQ((file.view<std::uint16_t, 1>(std::string(100, 'n') + std::to_string(i))(0)), i);
}

TEST_F(SafetensorsFiles, FilesThatCannotBeReadAreRefused) {
  const std::string start = "pare::io::SafetensorsFile: ";
  EXPECT_EQ(refusal([&] { SafetensorsFile{path_}; }),
            start + path_.string() + ": got no such file, wanted a .safetensors file");
  EXPECT_EQ(refusal([&] { SafetensorsFile{folder_}; }),
            start + folder_.string() +
                ": got something that is not a regular file, wanted a .safetensors file");
  put(path_, "");
  EXPECT_EQ(refusal([&] { SafetensorsFile{path_}; }),
            start + path_.string() + ": got a file of 0 bytes, wanted a .safetensors file");
  for (std::size_t n = 1; n < golden_two.size(); ++n) {
    put(path_, golden_two.substr(0, n));
    EXPECT_NE(refusal([&] { SafetensorsFile{path_}; }), "(accepted)") << n;
  }
  put(path_, golden_two);
  EXPECT_EQ(refusal([&] { SafetensorsFile{path_}; }), "(accepted)");
}

TEST_F(SafetensorsFiles, AFileThatIsReadHasTheBytesOfOneThatIsMapped) {
  put(path_, golden_two);
  const io::detail::Place place{"io::test", path_.string()};
  const io::detail::FileBytes read = io::detail::read_file_bytes(place, path_, "a file");
  const io::detail::FileBytes file = io::detail::file_bytes(place, path_, "a file");
  EXPECT_TRUE(std::ranges::equal(read.bytes, bytes_of(golden_two)));
  EXPECT_TRUE(std::ranges::equal(file.bytes, bytes_of(golden_two)));
  for (const auto& bytes : {read.bytes, file.bytes})
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(bytes.data()) % 16, 0u);
#if PARE_HAS_MMAP
  const io::detail::FileBytes mapped = io::detail::map_file_bytes(path_);
  ASSERT_TRUE(mapped.owner);
  EXPECT_TRUE(std::ranges::equal(mapped.bytes, bytes_of(golden_two)));
  EXPECT_FALSE(io::detail::map_file_bytes(folder_ / "none").owner);
#endif
  EXPECT_EQ(
      refusal([&] { io::detail::read_file_bytes(place, folder_ / "none", "a file"); }),
      "pare::io::test: " + path_.string() + ": got a file that cannot be opened, wanted a file");
}

TEST(SafetensorsWrite, TemporariesAreKeptUntilTheyAreWritten) {
  std::vector<io::NamedTensor> tensors;
  tensors.emplace_back("vector", std::vector<float>(1000, 0.5f));
  tensors.emplace_back("matrix", Eigen::MatrixXf(Eigen::MatrixXf::Constant(30, 40, 0.25f)));
  tensors.emplace_back("array", std::array<double, 3>{1, 2, 3});
  const std::vector<int> named{7};
  tensors.emplace_back("map", Eigen::Map<const Eigen::VectorXi>(named.data(), 1));
  const std::vector<float> more(5000, 9.0f);  // where the first vector was
  const Memory memory(written(std::vector<io::NamedTensor>(tensors)));
  const SafetensorsFile file(memory.bytes());
  EXPECT_EQ((file.view<float, 1>("vector")(999)), 0.5f);
  EXPECT_EQ(file.read_matrix<float>("matrix"), Eigen::MatrixXf::Constant(30, 40, 0.25f));
  EXPECT_EQ((file.view<double, 1>("array")(2)), 3);
  EXPECT_EQ((file.view<int, 1>("map")(0)), 7);
}

TEST(SafetensorsWrite, TensorsThatCannotBeWrittenAreRefused) {
  const float value = 0;
  const auto tensor = [](std::string_view text) {
    return "pare::io::NamedTensor: tensor " + std::string(text);
  };
  EXPECT_EQ(
      refusal([&] { io::NamedTensor("x", TensorView<const float, 2>{&value, {2, -3}, {1, 1}}); }),
      tensor("'x': got shape (2, -3), wanted extents that are not negative"));
  EXPECT_EQ(
      refusal([&] { io::NamedTensor("x", TensorView<const float, 2>{nullptr, {2, 3}, {3, 1}}); }),
      tensor("'x': got a null pointer, wanted data"));
  const Index vast = Index{1} << 40;
  EXPECT_NE(refusal([&] {
              io::NamedTensor("x", TensorView<const float, 2>{&value, {vast, vast}, {0, 0}});
            }).find("fits 63 bits"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              io::NamedTensor("x", TensorView<const float, 2>{&value, {2, 3}, {Index{1} << 62, 1}});
            }).find("got [2, 3], wanted extents and strides whose bytes fit 63 bits"),
            std::string::npos);
  const auto bytes = bytes_of("12345678");
  EXPECT_EQ(refusal([&] { io::NamedTensor("x", "F32", {3}, bytes); }),
            tensor("'x': got 8 bytes, wanted 12 for shape (3,) of F32"));
  EXPECT_EQ(refusal([&] { io::NamedTensor("x", "F32", {1}, bytes); }),
            tensor("'x': got 8 bytes, wanted 4 for shape (1,) of F32"));
  EXPECT_EQ(refusal([&] { io::NamedTensor("x", "F32", {-2, -1}, bytes); }),
            tensor("'x': got shape (-2, -1), wanted extents that are not negative"));
  EXPECT_NE(refusal([&] { io::NamedTensor("x", "F8", {8}, bytes); }).find("got dtype 'F8'"),
            std::string::npos);
  EXPECT_EQ(refusal([&] { io::NamedTensor("x", "F4", {15}, bytes); }),
            tensor("'x': got 15 elements of 4 bits, wanted elements that fill whole bytes"));
  EXPECT_EQ(refusal([&] {
              io::NamedTensor("x", "U8", {8}, std::span(static_cast<const std::byte*>(nullptr), 8));
            }),
            tensor("'x': got a null pointer, wanted data"));
  EXPECT_EQ(refusal([&] { io::NamedTensor("x", "F32", {2}, bytes); }), "(accepted)");
}

TEST_F(SafetensorsFiles, AWriteThatIsRefusedLeavesNothingBehind) {
  const std::vector<float> x{1, 2};
  const auto write = [&](const std::vector<io::NamedTensor>& tensors, const Metadata& notes = {}) {
    return refusal([&] { io::write_safetensors(path_, tensors, notes); });
  };
  const std::string start = "pare::io::write_safetensors: tensors: ";
  EXPECT_EQ(write({{"x", x}, {"y", x}, {"x", std::vector<int>{1}}}),
            start + "got two tensors with the name 'x', wanted every name once");
  EXPECT_EQ(write({{"__metadata__", x}}),
            start + "got the name '__metadata__', wanted another, the format keeps this one");
  EXPECT_EQ(write({{"a\xff", x}}), start + "got a name 'a?', wanted UTF-8");
  EXPECT_EQ(write({{"x", x}}, {{"\xc3", ""}}), start + "got metadata key '?', wanted UTF-8");
  EXPECT_EQ(write({{"x", x}}, {{"a", "\xed\xa0\x80"}}),
            start + "got metadata '\?\?\?', wanted UTF-8");
  const Index vast = Index{1} << 60;
  const TensorView<const float, 1> huge{x.data(), {vast}, {0}};
  EXPECT_EQ(write({{"x", huge}, {"y", huge}}),
            start + "got more bytes than 63 bits count, wanted fewer");
  const std::string name(100'000'000, 'n');
  EXPECT_EQ(write({{name, x}}),
            start + "got a header of 100000056 bytes, wanted at most 100000000");
  EXPECT_EQ(files(), 0u);

  EXPECT_NE(refusal([&] {
              io::write_safetensors(folder_ / "none" / "x.safetensors", {{"x", x}});
            }).find("got a folder in which no file can be created"),
            std::string::npos);
  fs::create_directory(path_);
  EXPECT_NE(write({{"x", x}}).find("not a regular file"), std::string::npos);
  EXPECT_EQ(files(), 1u);
}

TEST_F(SafetensorsFiles, AnExistingFileIsReplaced) {
  io::write_safetensors(path_, {{"x", std::vector<float>(100, 1.0f)}});
  io::write_safetensors(path_, {{"y", std::vector<float>{3}}});
  const SafetensorsFile file(path_);
  EXPECT_EQ(names(file), std::vector<std::string>{"y"});
  EXPECT_EQ(files(), 1u);
}

TEST(SafetensorsWrite, AFailedStreamIsReported) {
  std::ostringstream os;
  os.setstate(std::ios::badbit);
  EXPECT_EQ(refusal([&] { io::write_safetensors(os, {{"x", std::vector<float>{1}}}); }),
            "pare::io::write_safetensors: stream: got a write that failed, wanted a stream with "
            "room");
}

#if defined(__unix__)
TEST_F(SafetensorsFiles, AFullDiskLeavesTheOldFileAndNothingElse) {
  io::write_safetensors(path_, {{"x", std::vector<float>{1, 2}}});
  const std::string before = content(path_);
  const Eigen::MatrixXf large = Eigen::MatrixXf::Ones(300, 300);
  std::string dense, strided;
  {
    const FileSizeLimit limit(4096);
    dense = refusal([&] {
      io::write_safetensors(path_,
                            {{"a", Eigen::VectorXf(large.col(0))}, {"x", large.transpose()}});
    });
    strided = refusal([&] { io::write_safetensors(path_, {{"x", large}}); });
  }
  EXPECT_NE(dense.find("got a write that failed"), std::string::npos) << dense;
  EXPECT_NE(strided.find("got a write that failed"), std::string::npos) << strided;
  EXPECT_EQ(content(path_), before);
  EXPECT_EQ(files(), 1u);
}
#endif

static_assert(io::SafetensorsWritable<Eigen::MatrixXf>);
static_assert(io::SafetensorsWritable<std::vector<pare::bf16>>);
static_assert(io::SafetensorsWritable<Eigen::Matrix<Eigen::bfloat16, 2, 2>>);
static_assert(io::SafetensorsWritable<std::array<bool, 3>>);
static_assert(!io::SafetensorsWritable<std::string>, "text has no dtype");
static_assert(!io::SafetensorsWritable<Eigen::MatrixXcf>);
static_assert(!io::SafetensorsWritable<std::vector<long double>>);
static_assert(!io::SafetensorsViewable<bool> && !io::SafetensorsViewable<char>);
static_assert(io::SafetensorsViewable<pare::bf16> && io::SafetensorsViewable<pare::f16>);
static_assert(io::detail::safetensors_dtype<long long>() == "I64");
static_assert(std::is_constructible_v<SafetensorsFile, std::vector<std::byte>&>);
static_assert(!std::is_constructible_v<SafetensorsFile, std::vector<std::byte>>,
              "it would be gone");
static_assert(std::is_constructible_v<SafetensorsFile, std::string>, "a path");
template <class Y>
concept TakesRows = requires(const SafetensorsFile& file, Y&& out) {
  file.read_rows("x", 0, std::forward<Y>(out));
};
static_assert(TakesRows<Eigen::MatrixXf&> && TakesRows<Eigen::Block<Eigen::MatrixXf>>);
static_assert(!TakesRows<Eigen::MatrixXf> && !TakesRows<const Eigen::MatrixXf&>);
static_assert(!TakesRows<Eigen::MatrixXi&> && !TakesRows<std::vector<float>&>);

}  // namespace
}  // namespace io_safetensors_test
