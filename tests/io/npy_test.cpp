// SPDX-License-Identifier: Apache-2.0

#include "npy_golden.hpp"
#include "temporary_folder.hpp"

#include <pare/io/npy.hpp>

#include <gtest/gtest.h>
#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <array>
#include <complex>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <numeric>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace io_npy_test {
namespace {

namespace fs = std::filesystem;
namespace io = pare::io;
using namespace std::string_view_literals;
using pare::Index;
using pare::TensorView;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

/// A file with any text as its header; version 1 has a length of 2 bytes, the others 4.
std::string npy(std::string_view text, std::string_view data = "", int version = 1) {
  std::string file = "\x93NUMPY";
  file += {static_cast<char>(version), '\0'};
  for (std::size_t i = 0; i < (version == 1 ? 2u : 4u); ++i)
    file += static_cast<char>(text.size() >> (8 * i) & 0xff);
  return file.append(text).append(data);
}

template <class T>
std::string parse_refusal(std::string_view file) {
  return refusal([&] { io::parse_npy<T>(bytes_of(file)); });
}

template <class X>
std::string written(const X& x) {
  std::ostringstream os;
  io::write_npy(os, x);
  return os.str();
}

/// Different bits in every element, whatever the type: no NaN, as the exponent stays small.
template <class T>
T element(Index i) {
  if constexpr (io::detail::is_npy_float<T>)
    return static_cast<T>(static_cast<float>(i * 3 + 1) / 8.0f);
  else
    return static_cast<T>(std::numeric_limits<T>::max() - static_cast<T>(i));
}

template <class T>
bool same_bits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

class NpyFile : public TemporaryFolder {
 protected:
  void SetUp() override {
    TemporaryFolder::SetUp();
    path_ = folder_ / "x.npy";
  }

  fs::path path_;
};

template <class T>
class NpyScalars : public NpyFile {};

using Scalars = ::testing::Types<float, double, pare::f16, std::int8_t, std::uint8_t, std::int16_t,
                                 std::uint16_t, std::int32_t, std::uint32_t, std::int64_t,
                                 std::uint64_t, long long>;
TYPED_TEST_SUITE(NpyScalars, Scalars);

/// Eigen's spelling of a scalar.
template <class T>
using eigen_of = std::conditional_t<std::is_same_v<T, pare::f16>, Eigen::half, T>;

TYPED_TEST(NpyScalars, MatricesOfEveryLayoutComeBackRowMajor) {
  using T = TypeParam;
  using Scalar = eigen_of<T>;
  const auto at = [](Index i, Index j) { return element<T>(i * 8 + j); };
  const auto fill = [&](auto& m) {
    for (Index i = 0; i < m.rows(); ++i)
      for (Index j = 0; j < m.cols(); ++j) pare::to_view(m)(i, j) = at(i, j);
  };
  const auto expect_back = [&](const auto& x, bool fortran, Index row, Index col) {
    io::write_npy(this->path_, x);
    EXPECT_EQ(io::read_npy_header(this->path_),
              (io::NpyHeader{io::detail::npy_dtype<T>(), fortran, {x.rows(), x.cols()}}));
    const auto back = io::read_npy<T>(this->path_);
    const auto v = back.template view<2>();
    for (Index i = 0; i < x.rows(); ++i)
      for (Index j = 0; j < x.cols(); ++j) EXPECT_TRUE(same_bits(v(i, j), at(row + i, col + j)));
    EXPECT_EQ(back.data.size(), static_cast<std::size_t>(x.size()));
  };
  Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> row_major(5, 7);
  Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic> col_major(5, 7);
  Eigen::Array<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> array(5, 7);
  fill(row_major);
  fill(col_major);
  fill(array);
  expect_back(row_major, false, 0, 0);
  expect_back(array, false, 0, 0);
  expect_back(col_major, true, 0, 0);
  expect_back(row_major.block(1, 2, 3, 4), false, 1, 2);
  expect_back(col_major.block(1, 2, 3, 4), false, 1, 2);
  expect_back(col_major.middleCols(2, 3), true, 0, 2);
  EXPECT_EQ(this->files(), 1u);
}

TYPED_TEST(NpyScalars, RangesAndVectorsHaveOneDimension) {
  using T = TypeParam;
  std::vector<T> values(20000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = element<T>(static_cast<Index>(i));
  const auto expect_back = [&](const auto& x, std::size_t first, std::size_t step, std::size_t n) {
    io::write_npy(this->path_, x);
    const auto back = io::read_npy<T>(this->path_);
    ASSERT_EQ(back.shape, std::vector<Index>{static_cast<Index>(n)});
    for (std::size_t i = 0; i < n; ++i)
      ASSERT_TRUE(same_bits(back.data[i], values[first + i * step]));
  };
  expect_back(values, 0, 1, values.size());
  expect_back(std::span(values).subspan(3, 9), 3, 1, 9);
  expect_back(TensorView<const T, 1>{values.data() + 19999, {10000}, {-1}}, 19999, std::size_t(-1),
              10000);
  expect_back(TensorView<T, 1>{values.data(), {10000}, {2}}, 0, 2, 10000);
  using Scalar = eigen_of<T>;
  const Eigen::Map<const Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic>> m(
      reinterpret_cast<const Scalar*>(values.data()), 5, 7);
  expect_back(m.col(2), 10, 1, 5);
  expect_back(m.row(2), 2, 5, 7);
  expect_back(Eigen::Matrix<Scalar, Eigen::Dynamic, 1>(m.col(1)), 5, 1, 5);
}

TYPED_TEST(NpyScalars, AnyRankAndStride) {
  using T = TypeParam;
  std::vector<T> values(3 * 4 * 5 * 2);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = element<T>(static_cast<Index>(i));
  const auto expect_back = [&](const TensorView<const T, 4>& x, bool fortran) {
    io::write_npy(this->path_, x);
    EXPECT_EQ(io::read_npy_header(this->path_).fortran_order, fortran);
    const auto back = io::read_npy<T>(this->path_);
    const auto v = back.template view<4>();
    ASSERT_EQ(v.extent, x.extent);
    for (Index i = 0; i < x.extent[0]; ++i)
      for (Index j = 0; j < x.extent[1]; ++j)
        for (Index k = 0; k < x.extent[2]; ++k)
          for (Index l = 0; l < x.extent[3]; ++l)
            EXPECT_TRUE(same_bits(v(i, j, k, l), x(i, j, k, l)));
  };
  const T* p = values.data();
  expect_back({p, {3, 4, 5, 2}, {40, 10, 2, 1}}, false);
  expect_back({p, {2, 5, 4, 3}, {1, 2, 10, 40}}, true);
  expect_back({p, {5, 3, 2, 4}, {2, 40, 1, 10}}, false);
  expect_back({p, {3, 1, 5, 2}, {40, 77, 2, 1}}, false);
  expect_back({p, {2, 1, 4, 3}, {1, 77, 2, 8}}, true);
  expect_back({p + 119, {3, 4, 5, 2}, {-40, -10, -2, -1}}, false);
  expect_back({p, {3, 4, 5, 2}, {0, 10, 0, 1}}, false);

  io::write_npy(this->path_, TensorView<const T, 0>{p + 7, {}, {}});
  const auto zero_d = io::read_npy<T>(this->path_);
  EXPECT_TRUE(zero_d.shape.empty());
  EXPECT_TRUE(same_bits(zero_d.template view<0>()(), values[7]));

  io::write_npy(this->path_, TensorView<const T, 3>{nullptr, {4, 0, 2}, {0, 2, 1}});
  const auto empty = io::read_npy<T>(this->path_);
  EXPECT_EQ(empty.shape, (std::vector<Index>{4, 0, 2}));
  EXPECT_TRUE(empty.data.empty());
}

TEST_F(NpyFile, LargeFortranArraysAreTransposed) {
  Eigen::MatrixXi m(101, 67);
  std::iota(m.data(), m.data() + m.size(), 0);
  io::write_npy(path_, m);
  EXPECT_TRUE(io::read_npy_header(path_).fortran_order);
  EXPECT_EQ(io::read_npy_matrix<std::int32_t>(path_), m);
  EXPECT_EQ(io::read_npy_matrix<double>(path_), m.cast<double>());
}

TEST_F(NpyFile, EigenTensorKeepsItsShape) {
  Eigen::Tensor<float, 3, Eigen::RowMajor> t(2, 3, 4);
  std::iota(t.data(), t.data() + t.size(), 0.5f);
  io::write_npy(path_, t);
  const auto back = io::read_npy<float>(path_);
  EXPECT_EQ(back.shape, (std::vector<Index>{2, 3, 4}));
  EXPECT_TRUE(std::equal(back.data.begin(), back.data.end(), t.data()));
}

TEST_F(NpyFile, Bf16IsWidenedToFloatInItsStorageOrder) {
  Eigen::Matrix<Eigen::bfloat16, Eigen::Dynamic, Eigen::Dynamic> m(3, 5);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = Eigen::bfloat16(static_cast<float>(i) * 0.5f);
  io::write_npy(path_, m);
  EXPECT_EQ(io::read_npy_header(path_), (io::NpyHeader{"<f4", true, {3, 5}}));
  EXPECT_EQ(io::read_npy_matrix<float>(path_), m.cast<float>());
  io::write_npy(path_, std::vector{pare::bf16(1.5f), pare::bf16(-3.0f)});
  EXPECT_EQ(io::read_npy<float>(path_).data, (std::vector{1.5f, -3.0f}));
}

TEST_F(NpyFile, ReadMatrixTakesVectorsAsColumnsAndRefusesOtherRanks) {
  io::write_npy(path_, std::vector<std::int32_t>{4, 5, 6});
  const auto column = io::read_npy_matrix<std::int64_t>(path_);
  ASSERT_EQ(column.rows(), 3);
  ASSERT_EQ(column.cols(), 1);
  EXPECT_EQ(column(2, 0), 6);
  put(path_, golden::big_i2_fortran_2x3x2x2);
  EXPECT_EQ(refusal([&] { io::read_npy_matrix<float>(path_); }),
            "pare::io::read_npy_matrix: " + path_.string() +
                ": got shape (2, 3, 2, 2), wanted 1 or 2 dimensions");
}

TEST(NpyGolden, FilesWrittenByNumpyAreRead) {
  const auto f4 = io::parse_npy<float>(bytes_of(golden::f4_2x3));
  EXPECT_EQ(f4.shape, (std::vector<Index>{2, 3}));
  EXPECT_EQ(f4.data, (std::vector{0.0f, 0.25f, 0.5f, 0.75f, 1.0f, 1.25f}));
  const auto fortran = io::parse_npy<float>(bytes_of(golden::f4_fortran_2x3));
  EXPECT_EQ(fortran.shape, f4.shape);
  EXPECT_EQ(fortran.data, f4.data);
  const auto i8 = io::parse_npy<std::int64_t>(bytes_of(golden::i8_v2_3));
  EXPECT_EQ(i8.data, (std::vector{std::int64_t{-1}, std::int64_t{0}, std::int64_t{1} << 62}));
  const auto big = io::parse_npy<double>(bytes_of(golden::big_f8_v3_2));
  EXPECT_EQ(big.data, (std::vector{1.5, -2.25}));
  const auto f2 = io::parse_npy<pare::f16>(bytes_of(golden::f2_0d));
  EXPECT_TRUE(f2.shape.empty());
  EXPECT_EQ(static_cast<float>(f2.view<0>()()), 0.5f);
  const auto empty = io::parse_npy<std::uint8_t>(bytes_of(golden::u1_0x5));
  EXPECT_EQ(empty.shape, (std::vector<Index>{0, 5}));
  EXPECT_TRUE(empty.data.empty());
  const auto b1 = io::parse_npy<std::uint8_t>(bytes_of(golden::b1_3));
  EXPECT_EQ(b1.data, (std::vector<std::uint8_t>{1, 0, 1}));
  const auto i2 = io::parse_npy<std::int16_t>(bytes_of(golden::big_i2_fortran_2x3x2x2));
  EXPECT_EQ(i2.shape, (std::vector<Index>{2, 3, 2, 2}));
  for (std::size_t i = 0; i < 24; ++i) EXPECT_EQ(i2.data.at(i), static_cast<std::int16_t>(i));
}

TEST(NpyGolden, OurBytesAreNumpys) {
  const Eigen::Matrix<float, 2, 3, Eigen::RowMajor> row_major{{0, 0.25f, 0.5f}, {0.75f, 1, 1.25f}};
  EXPECT_EQ(written(row_major), golden::f4_2x3);
  EXPECT_EQ(written(Eigen::Matrix<float, 2, 3>(row_major)), golden::f4_fortran_2x3);
  const pare::f16 half(0.5f);
  EXPECT_EQ(written(TensorView<const pare::f16, 0>{&half, {}, {}}), golden::f2_0d);
  EXPECT_EQ(written(std::array{true, false, true}), golden::b1_3);
  EXPECT_EQ(written(TensorView<const std::uint8_t, 2>{nullptr, {0, 5}, {5, 1}}), golden::u1_0x5);
}

TEST(NpyGolden, WhatIsNotPlainNumbersIsRefused) {
  const auto got = [](std::string_view what) {
    return "pare::io::parse_npy: bytes: got " + std::string(what) +
           ", wanted a plain number: <, > or | with b1, i1 to i8, u1 to u8, f2, f4 or f8";
  };
  EXPECT_EQ(parse_refusal<float>(golden::structured_v3), got("a structured dtype"));
  EXPECT_EQ(parse_refusal<float>(golden::text), got("dtype '<U2'"));
  EXPECT_EQ(parse_refusal<float>(golden::complex), got("dtype '<c8'"));
  EXPECT_EQ(parse_refusal<float>(golden::object), got("dtype '|O'"));
  EXPECT_EQ(parse_refusal<float>(golden::date), got("dtype '<M8[D]'"));
  EXPECT_EQ(parse_refusal<float>(golden::long_double), got("dtype '<f16'"));
}

TEST(NpyConvert, WideningIsExactAndNarrowingIsRefused) {
  const auto f16s = written(std::vector{pare::f16(0.5f), pare::f16::from_bits(1)});
  EXPECT_EQ(io::parse_npy<float>(bytes_of(f16s)).data, (std::vector{0.5f, 0x1p-24f}));
  EXPECT_EQ(io::parse_npy<double>(bytes_of(f16s)).data, (std::vector{0.5, 0x1p-24}));
  const auto i4 = written(std::vector<std::int32_t>{-2147483647 - 1, 2147483647});
  EXPECT_EQ(io::parse_npy<std::int64_t>(bytes_of(i4)).data,
            (std::vector<std::int64_t>{-2147483648, 2147483647}));
  EXPECT_EQ(io::parse_npy<double>(bytes_of(i4)).data, (std::vector{-2147483648.0, 2147483647.0}));
  EXPECT_EQ(
      parse_refusal<float>(i4),
      "pare::io::parse_npy: bytes: got dtype '<i4', wanted one whose values '<f4' holds exactly");
  const auto u1 = written(std::vector<std::uint8_t>{0, 255});
  EXPECT_EQ(static_cast<float>(io::parse_npy<pare::f16>(bytes_of(u1)).data.at(1)), 255.0f);
  EXPECT_EQ(io::parse_npy<std::int16_t>(bytes_of(u1)).data, (std::vector<std::int16_t>{0, 255}));
  const auto refused = [](const std::string& message) {
    return message.find("holds exactly") != std::string::npos;
  };
  EXPECT_TRUE(refused(parse_refusal<std::int8_t>(u1)));
  EXPECT_TRUE(refused(parse_refusal<std::uint64_t>(i4)));
  EXPECT_TRUE(refused(parse_refusal<float>(written(std::vector{1.0}))));
  EXPECT_TRUE(refused(parse_refusal<pare::f16>(written(std::vector{1.0f}))));
  EXPECT_TRUE(refused(parse_refusal<std::int64_t>(written(std::vector{1.0f}))));
  EXPECT_TRUE(refused(parse_refusal<double>(written(std::vector<std::int64_t>{1}))));
  EXPECT_TRUE(refused(parse_refusal<std::int64_t>(written(std::vector<std::uint64_t>{1}))));
}

TEST(NpyConvert, ABoolByteThatIsNeither0Nor1IsTrue) {
  const auto file = npy("{'descr': '|b1', 'fortran_order': False, 'shape': (2,)}", "\0\7"sv);
  EXPECT_EQ(io::parse_npy<std::int32_t>(bytes_of(file)).data, (std::vector<std::int32_t>{0, 1}));
}

TEST(NpyConvert, RunsLongerThanTheBuffer) {
  std::vector<std::uint16_t> values(50001);
  std::iota(values.begin(), values.end(), std::uint16_t{0});
  const auto wide = io::parse_npy<float>(bytes_of(written(values)));
  ASSERT_EQ(wide.data.size(), values.size());
  for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(wide.data[i], float(values[i]));
}

TEST(NpyHeader, PythonLiteralsThatMeanTheSame) {
  const std::string_view data = "\x2a\0\0\0\x2b\0\0\0"sv;
  for (const std::string_view text :
       {"{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }   \n"sv,
        "{'shape':(2,),'fortran_order':False,'descr':'<i4'}"sv,
        "{\"fortran_order\": True, \"descr\": \"<i4\", \"shape\": (2, )}\n"sv,
        "  { 'shape' : ( 2L , ) , 'descr' : '<i4' , 'fortran_order' : False , } \n"sv,
        "{u'descr': u'<i4', u'fortran_order': False, u'shape': (1L, 2L)}"sv,
        "{'descr': '<i4', 'fortran_order': False, 'shape': (1, 2)}"sv,
        "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 1,),}"sv}) {
    for (const int version : {1, 2, 3})
      EXPECT_EQ(io::parse_npy<std::int32_t>(bytes_of(npy(text, data, version))).data,
                (std::vector<std::int32_t>{42, 43}))
          << text;
  }
}

TEST(NpyHeader, ADtypeWithoutAnOrderIsInThisMachinesOrder) {
  const auto expect = [](const char* dtype, const std::string& wanted) {
    const std::string file =
        npy(std::string("{'descr': '") + dtype + "', 'fortran_order': False, 'shape': ()}",
            std::string(static_cast<std::size_t>(wanted[2] - '0'), '\1'));
    io::detail::NpyInput in("io::test", bytes_of(file));
    EXPECT_EQ(io::detail::read_npy_header(in).dtype, wanted) << dtype;
  };
  expect("f4", io::detail::npy_dtype<float>());
  expect("=f4", io::detail::npy_dtype<float>());
  expect("i8", io::detail::npy_dtype<std::int64_t>());
  expect("=u2", io::detail::npy_dtype<std::uint16_t>());
  for (const char* dtype : {"u1", "=u1", "<u1", ">u1", "|u1"}) expect(dtype, "|u1");
  for (const char* dtype : {"b1", "=b1"}) expect(dtype, "|b1");
  const float value = 0.5f;
  const auto raw = std::as_bytes(std::span(&value, 1));
  const std::string data(reinterpret_cast<const char*>(raw.data()), raw.size());
  for (const char* dtype : {"f4", "=f4"}) {
    const auto array = io::parse_npy<double>(bytes_of(npy(
        std::string("{'descr': '") + dtype + "', 'fortran_order': True, 'shape': (1L,)}", data)));
    EXPECT_EQ(array.data, std::vector{0.5});
  }
}

TEST(NpyHeader, Version2IsWrittenWhenTheHeaderNeedsIt) {
  io::NpyArray<float> array{std::vector<Index>(40000, 1), {2.5f}};
  const std::string file = written(array);
  EXPECT_EQ(file[6], '\2');
  EXPECT_EQ((file.size() - sizeof(float)) % 64, 0u);
  const auto back = io::parse_npy<float>(bytes_of(file));
  EXPECT_EQ(back.shape, array.shape);
  EXPECT_EQ(back.data, array.data);
}

struct BadHeader {
  const char* text;
  const char* message;
};

TEST(NpyHeader, MalformedDictionariesAreRefusedWithTheReason) {
  const BadHeader cases[] = {
      {"", "got the end of the header, wanted `{`"},
      {"\n", "got the end of the header, wanted `{`"},
      {"[]", "got header text `[]`, wanted `{`"},
      {"{}", "got a header without 'descr', wanted"},
      {"{'descr': '<f4'}", "got a header without 'fortran_order', wanted"},
      {"{'descr': '<f4', 'fortran_order': False}", "got a header without 'shape', wanted"},
      {"{'shape': (), 'fortran_order': False}", "got a header without 'descr', wanted"},
      {"{'descr': '<f4', 'descr': '<f4'}", "got header key 'descr' twice, wanted every key once"},
      {"{'shape': (), 'shape': ()}", "got header key 'shape' twice"},
      {"{'fortran_order': True, 'fortran_order': True}", "got header key 'fortran_order' twice"},
      {"{'order': 'C'}", "got header key 'order', wanted 'descr', 'fortran_order' or 'shape'"},
      {"{descr: '<f4'}", "got header text `descr: '<f4'}`, wanted a quoted string"},
      {"{'descr: ", "got header text `descr: `, wanted a closing quote"},
      {"{'descr' '<f4'}", "got header text `'<f4'}`, wanted `:`"},
      {"{'descr': '<f4' 'shape': ()}", "got header text `'shape': ()}`, wanted `}`"},
      {"{'descr': '<f4',, 'shape': ()}", "got header text `, 'shape': ()}`, wanted a quoted"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': ()", "got the end of the header"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': ()} x",
       "got header text `x`, wanted nothing"},
      {"{'descr': '<f4', 'fortran_order': 0, 'shape': ()}",
       "got header text `0, 'shape': ()}`, wanted True"},
      {"{'fortran_order': Falsely, }", "got header text `ly, }`, wanted `}`"},
      {"{'shape': 3}", "got header text `3}`, wanted `(`"},
      {"{'shape': [3]}", "got header text `[3]}`, wanted `(`"},
      {"{'shape': (3)}", "got a shape that is a number, wanted a tuple, `(n,)`"},
      {"{'shape': (,)}", "got header text `,)}`, wanted a decimal extent"},
      {"{'shape': (3 4)}", "got header text `4)}`, wanted `,` or `)`"},
      {"{'shape': (3, 4}", "got header text `}`, wanted `,` or `)`"},
      {"{'shape': (-1,)}", "got header text `-1,)}`, wanted extents that are not negative"},
      {"{'shape': (03,)}", "got header text `03,)}`, wanted a decimal extent"},
      {"{'shape': (0x3,)}", "got header text `x3,)}`, wanted `,` or `)`"},
      {"{'shape': (+3,)}", "got header text `+3,)}`, wanted a decimal extent"},
      {"{'shape': (3.0,)}", "got header text `.0,)}`, wanted `,` or `)`"},
      {"{'shape': (9223372036854775808,)}", "wanted an extent that fits 63 bits"},
      {"{'descr': '4'}", "got dtype '4', wanted a plain number"},
      {"{'descr': '==f4'}", "got dtype '==f4', wanted a plain number"},
      {"{'descr': 'ff4'}", "got dtype 'ff4', wanted a plain number"},
      {"{'descr': u 'f4'}", "got header text `u 'f4'}`, wanted a quoted string"},
      {"{uu'descr': 'f4'}", "got header text `uu'descr': 'f4'}`, wanted a quoted string"},
      {"{'shape': (3LL,)}", "got header text `L,)}`, wanted `,` or `)`"},
      {"{'descr': '|f4'}", "got dtype '|f4', wanted a plain number"},
      {"{'descr': '<f1'}", "got dtype '<f1', wanted a plain number"},
      {"{'descr': '<i3'}", "got dtype '<i3', wanted a plain number"},
      {"{'descr': ''}", "got dtype '', wanted a plain number"},
      {"{'descr': '\x01\xff'}", "got dtype '\?\?', wanted a plain number"},
  };
  for (const auto& [text, message] : cases)
    EXPECT_NE(parse_refusal<float>(npy(text)).find(message), std::string::npos)
        << text << "\n  " << parse_refusal<float>(npy(text));
}

TEST(NpyHeader, ShapesThatDoNotMatchTheDataAreRefused) {
  const auto refused = [](const char* shape, std::size_t bytes) {
    const std::string text =
        std::string("{'descr': '<f4', 'fortran_order': False, 'shape': ") + shape + "}";
    return parse_refusal<float>(npy(text, std::string(bytes, 'x')));
  };
  EXPECT_EQ(refused("(3, 4)", 48), "(accepted)");
  EXPECT_EQ(refused("(3, 4)", 47),
            "pare::io::parse_npy: bytes: got 47 bytes of data, wanted 48 for shape (3, 4) of dtype "
            "'<f4'");
  EXPECT_NE(refused("(3, 4)", 49).find("got 49 bytes of data, wanted 48"), std::string::npos);
  EXPECT_NE(refused("()", 0).find("got 0 bytes of data, wanted 4"), std::string::npos);
  EXPECT_NE(refused("(0, 7)", 1).find("got 1 bytes of data, wanted 0"), std::string::npos);
  EXPECT_NE(refused("(1152921504606846976,)", 4).find("wanted 4611686018427387904 for"),
            std::string::npos);
  const std::string overflow = "wanted a product of sizes that fits 63 bits";
  EXPECT_NE(refused("(4294967296, 4294967296)", 0).find(overflow), std::string::npos);
  EXPECT_NE(refused("(4611686018427387904,)", 0).find(overflow), std::string::npos);
  EXPECT_NE(refused("(0, 4294967296, 4294967296)", 0).find(overflow), std::string::npos);
  EXPECT_EQ(refused("(0, 9223372036854775807)", 0), "(accepted)");
}

TEST(NpyHeader, BytesThatAreNotThereAreRefused) {
  EXPECT_EQ(
      refusal([] { io::parse_npy<float>(std::span(static_cast<const std::byte*>(nullptr), 200)); }),
      "pare::io::parse_npy: bytes: got a null pointer, wanted data");
}

TEST(NpyHeader, EveryPrefixOfAFileIsRefused) {
  for (const auto file : {golden::f4_2x3, golden::i8_v2_3, golden::big_f8_v3_2})
    for (std::size_t n = 0; n < file.size(); ++n)
      EXPECT_NE(parse_refusal<double>(file.substr(0, n)), "(accepted)") << n;
  EXPECT_NE(parse_refusal<float>("").find("a file cut short in its first 8 bytes"),
            std::string::npos);
  EXPECT_NE(
      parse_refusal<float>(golden::f4_2x3.substr(0, 9)).find("cut short in its header length"),
      std::string::npos);
  EXPECT_NE(parse_refusal<float>(golden::f4_2x3.substr(0, 50))
                .find("got a header of 118 bytes, wanted at most 40 here"),
            std::string::npos);
}

TEST(NpyHeader, MagicVersionAndLengthAreChecked) {
  std::string file(golden::f4_2x3);
  file[0] = '\x92';
  EXPECT_EQ(
      parse_refusal<float>(file),
      "pare::io::parse_npy: bytes: got bytes that do not start with \\x93NUMPY, wanted a .npy "
      "file");
  for (const auto& [major, minor] : {std::pair{0, 0}, {4, 0}, {1, 1}, {255, 255}}) {
    file = golden::f4_2x3;
    file[6] = static_cast<char>(major);
    file[7] = static_cast<char>(minor);
    EXPECT_EQ(parse_refusal<float>(file), "pare::io::parse_npy: bytes: got format version " +
                                              std::to_string(major) + "." + std::to_string(minor) +
                                              ", wanted 1.0, 2.0 or 3.0");
  }
  const std::string absurd = npy(std::string((1u << 20) + 1, ' '), "", 2);
  EXPECT_NE(
      parse_refusal<float>(absurd).find("got a header of 1048577 bytes, wanted at most 1048576"),
      std::string::npos);
  const std::string beyond = "\x93NUMPY\2" + std::string("\0\xff\xff\xff\xff", 5) + "{}";
  EXPECT_NE(parse_refusal<float>(beyond).find("got a header of 4294967295 bytes, wanted at most 2"),
            std::string::npos);
}

TEST(NpyArray, ViewChecksRankAndSize) {
  io::NpyArray<float> array{{2, 3}, std::vector<float>(6)};
  array.view<2>()(1, 2) = 7;
  EXPECT_EQ(array.data[5], 7);
  EXPECT_EQ(refusal([&] { array.view<3>(); }),
            "pare::io::NpyArray::view: shape: got (2, 3), wanted 3 dimensions");
  array.data.pop_back();
  EXPECT_EQ(refusal([&] { array.view<2>(); }),
            "pare::io::NpyArray::view: shape: got (2, 3), wanted a shape of 5 elements");
}

TEST_F(NpyFile, FilesThatCannotBeReadAreRefused) {
  EXPECT_EQ(refusal([&] { io::read_npy<float>(path_); }),
            "pare::io::read_npy: " + path_.string() + ": got no such file, wanted a .npy file");
  EXPECT_EQ(refusal([&] { io::read_npy_header(folder_); }),
            "pare::io::read_npy_header: " + folder_.string() +
                ": got something that is not a regular file, wanted a .npy file");
  put(path_, golden::f4_2x3.substr(0, 140));
  EXPECT_EQ(refusal([&] { io::read_npy_header(path_); }),
            "pare::io::read_npy_header: " + path_.string() +
                ": got 12 bytes of data, wanted 24 for shape (2, 3) of dtype '<f4'");
  EXPECT_NE(refusal([&] { io::read_npy_matrix<float>(path_); }), "(accepted)");
}

TEST_F(NpyFile, AWriteThatIsRefusedLeavesNothingBehind) {
  const float value = 0;
  const TensorView<const float, 2> negative{&value, {2, -3}, {1, 1}}, null{nullptr, {2, 3}, {3, 1}};
  EXPECT_EQ(refusal([&] { io::write_npy(path_, negative); }),
            "pare::io::write_npy: x: got shape (2, -3), wanted extents that are not negative");
  EXPECT_EQ(refusal([&] { io::write_npy(path_, null); }),
            "pare::io::write_npy: x: got a null pointer, wanted data");
  const TensorView<const float, 2> vast{&value, {Index{1} << 40, Index{1} << 40}, {0, 0}};
  EXPECT_NE(refusal([&] { io::write_npy(path_, vast); }).find("fits 63 bits"), std::string::npos);
  const io::NpyArray<float> uneven{{2, 3}, std::vector<float>(5)};
  EXPECT_EQ(refusal([&] { io::write_npy(path_, uneven); }),
            "pare::io::write_npy: x: got (2, 3), wanted a shape of 5 elements");
  EXPECT_EQ(files(), 0u);

  const std::vector<float> x{1, 2};
  EXPECT_NE(refusal([&] {
              io::write_npy(folder_ / "none" / "x.npy", x);
            }).find("got a folder in which no file can be created"),
            std::string::npos);
  fs::create_directory(path_);
  EXPECT_NE(refusal([&] { io::write_npy(path_, x); }).find("not a regular file"),
            std::string::npos);
  EXPECT_EQ(files(), 1u);
}

TEST_F(NpyFile, AnExistingFileIsReplaced) {
  io::write_npy(path_, std::vector<float>(100, 1.0f));
  io::write_npy(path_, std::vector<std::int32_t>{1});
  EXPECT_EQ(io::read_npy<std::int32_t>(path_).data, (std::vector<std::int32_t>{1}));
  EXPECT_EQ(files(), 1u);
}

TEST(NpyStream, AFailedStreamIsReported) {
  std::ostringstream os;
  os.setstate(std::ios::badbit);
  EXPECT_EQ(refusal([&] { io::write_npy(os, std::vector<float>{1}); }),
            "pare::io::write_npy: stream: got a write that failed, wanted a stream with room");
}

TEST_F(NpyFile, NamesAsLongAsTheSystemTakesAreWritten) {
  const fs::path path = folder_ / (std::string(251, 'n') + ".npy");
  for (int i = 0; i < 2; ++i) io::write_npy(path, std::vector<int>{i});
  EXPECT_EQ(io::read_npy<int>(path).data, std::vector<int>{1});
  EXPECT_EQ(files(), 1u);
}

#if defined(__unix__)
TEST_F(NpyFile, ViewsWhoseBytesCannotBeCountedAreRefused) {
  const FileSizeLimit limit(4096);
  const float value = 0;
  const double number = 0;
  const pare::bf16 brain{};
  const auto answer = [&](const auto& view) {
    return refusal([&] { io::write_npy(path_, view); });
  };
  const Index vast = Index{1} << 60;
  EXPECT_NE(answer(TensorView<const double, 1>{&number, {vast}, {0}}).find("63 bits"),
            std::string::npos);
  EXPECT_NE(answer(TensorView<const pare::bf16, 1>{&brain, {2 * vast}, {0}}).find("63 bits"),
            std::string::npos);
  EXPECT_NE(answer(TensorView<const float, 2>{&value, {2, 3}, {4 * vast, 1}}).find("63 bits"),
            std::string::npos);
  // What fits is streamed until the disk is full, and no longer.
  EXPECT_NE(answer(TensorView<const float, 1>{&value, {vast}, {0}}).find("a write that failed"),
            std::string::npos);
  EXPECT_EQ(files(), 0u);
}

TEST_F(NpyFile, OverwritingKeepsTheModeOfTheFile) {
  const auto mode = [&] { return static_cast<unsigned>(fs::status(path_).permissions()); };
  for (const unsigned wanted : {0600u, 0400u, 0664u, 0755u}) {
    put(path_, "old");
    fs::permissions(path_, static_cast<fs::perms>(wanted));
    io::write_npy(path_, std::vector<float>{1});
    EXPECT_EQ(mode(), wanted);
    EXPECT_EQ(io::read_npy<float>(path_).data, std::vector{1.0f});
    fs::remove(path_);
  }
  put(path_, "new");
  const unsigned usual = mode();
  fs::remove(path_);
  io::write_npy(path_, std::vector<float>{1});
  EXPECT_EQ(mode(), usual) << "a new file has the mode that the system gives";
}

TEST_F(NpyFile, ALinkIsReplacedByAFileWithTheModeOfWhatItNamed) {
  const fs::path target = folder_ / "target";
  put(target, "old");
  fs::permissions(target, fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink(target, path_);
  io::write_npy(path_, std::vector<float>{1});
  EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(path_)));
  EXPECT_EQ(static_cast<unsigned>(fs::status(path_).permissions()), 0600u);
  EXPECT_EQ(content(target), "old");
}

TEST_F(NpyFile, AFullDiskLeavesTheOldFileAndNothingElse) {
  io::write_npy(path_, std::vector<float>{1, 2});
  const std::string before = content(path_);
  const Eigen::MatrixXf large = Eigen::MatrixXf::Ones(300, 300);
  std::string dense, strided;
  {
    const FileSizeLimit limit(4096);
    dense = refusal([&] { io::write_npy(path_, large); });
    strided = refusal([&] { io::write_npy(path_, large.topRows(200)); });
  }
  EXPECT_NE(dense.find("got a write that failed"), std::string::npos) << dense;
  EXPECT_NE(strided.find("got a write that failed"), std::string::npos) << strided;
  EXPECT_EQ(content(path_), before);
  EXPECT_EQ(files(), 1u);
}
#endif

static_assert(io::NpyWritable<Eigen::MatrixXf>);
static_assert(io::NpyWritable<std::vector<std::int64_t>>);
static_assert(io::NpyWritable<std::array<bool, 3>>);
static_assert(!io::NpyWritable<std::string>, "text has no dtype here");
static_assert(!io::NpyWritable<Eigen::MatrixXcf>);
static_assert(!io::NpyWritable<std::vector<long double>>);
static_assert(!io::NpyReadable<bool> && !io::NpyReadable<pare::bf16> && !io::NpyReadable<char>);

}  // namespace
}  // namespace io_npy_test
