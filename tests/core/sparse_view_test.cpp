// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/SparseCore>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <pare/core/sparse_view.hpp>

namespace core_sparse_view_test {
namespace {

using pare::CompressedView;
using pare::Index;
using pare::to_compressed;

template <class T, int Order, class I>
using Sparse = Eigen::SparseMatrix<T, Order, I>;
using Rows = Sparse<float, Eigen::RowMajor, std::int32_t>;
using Cols = Sparse<float, Eigen::ColMajor, std::int32_t>;

/// [4 x 5] with an empty row, an empty column and a full line.
template <class S>
S example() {
  S s(4, 5);
  const int at[][2] = {{0, 1}, {0, 4}, {2, 0}, {2, 1}, {2, 3}, {2, 4}, {3, 3}};
  std::vector<Eigen::Triplet<typename S::Scalar>> entries;
  typename S::Scalar value = 1;
  for (const auto& [r, c] : at) entries.emplace_back(r, c, value++);
  s.setFromTriplets(entries.begin(), entries.end());
  return s;
}

/// The dense matrix that a view describes, in the orientation of its lines.
template <class T, class I>
Eigen::MatrixX<T> dense_lines(const CompressedView<T, I>& v) {
  Eigen::MatrixX<T> m = Eigen::MatrixX<T>::Zero(v.outer_size, v.inner_size);
  for (Index u = 0; u < v.outer_size; ++u)
    for (Index e = v.begin(u); e < v.end(u); ++e)
      m(u, static_cast<Index>(v.inner[e])) += v.values[e];
  return m;
}

template <class S>
void expect_view_is_matrix(const S& s) {
  const auto v = to_compressed(s);
  EXPECT_NO_THROW(pare::check_compressed("f", "s", v));
  using Dense = Eigen::MatrixX<typename S::Scalar>;
  const Dense wanted = S::IsRowMajor ? Dense(s) : Dense(Dense(s).transpose());
  EXPECT_EQ(dense_lines(v), wanted);
}

template <class S>
class SparseKinds : public testing::Test {};
using Kinds = testing::Types<Rows, Cols, Sparse<double, Eigen::RowMajor, std::int64_t>,
                             Sparse<double, Eigen::ColMajor, std::int64_t>,
                             Sparse<float, Eigen::RowMajor, long long>>;
TYPED_TEST_SUITE(SparseKinds, Kinds);

TYPED_TEST(SparseKinds, CompressedMatrixIsSharedNotCopied) {
  const TypeParam s = example<TypeParam>();
  ASSERT_TRUE(s.isCompressed());
  const auto v = to_compressed(s);
  EXPECT_EQ(v.outer, s.outerIndexPtr());
  EXPECT_EQ(v.inner, s.innerIndexPtr());
  EXPECT_EQ(v.values, s.valuePtr());
  EXPECT_EQ(v.line_nonzeros, nullptr);
  EXPECT_EQ(v.outer_size, s.outerSize());
  EXPECT_EQ(v.inner_size, s.innerSize());
  expect_view_is_matrix(s);
}

TYPED_TEST(SparseKinds, UncompressedMatrixWithGaps) {
  TypeParam s = example<TypeParam>();
  s.reserve(Eigen::VectorXi::Constant(s.outerSize(), 6));  // spare places after each line
  s.coeffRef(1, 2) = 8;
  s.coeffRef(3, 0) = 9;
  ASSERT_FALSE(s.isCompressed());
  EXPECT_NE(to_compressed(s).line_nonzeros, nullptr);
  expect_view_is_matrix(s);
}

TYPED_TEST(SparseKinds, MapsAndRefs) {
  TypeParam s = example<TypeParam>();
  const Eigen::Map<const TypeParam> map(s.rows(), s.cols(), s.nonZeros(), s.outerIndexPtr(),
                                        s.innerIndexPtr(), s.valuePtr());
  EXPECT_EQ(to_compressed(map).values, s.valuePtr());
  expect_view_is_matrix(map);
  const Eigen::Ref<const TypeParam> ref(s);
  EXPECT_EQ(to_compressed(ref).values, s.valuePtr());
  expect_view_is_matrix(ref);
}

TYPED_TEST(SparseKinds, EmptyMatrices) {
  for (const auto& [rows, cols] : {std::pair{0, 0}, {0, 5}, {5, 0}, {5, 3}}) {
    const TypeParam s(rows, cols);
    const auto v = to_compressed(s);
    EXPECT_EQ(v.outer_size, s.outerSize());
    EXPECT_NO_THROW(pare::check_compressed("f", "s", v));
    EXPECT_TRUE(dense_lines(v).isZero());
  }
}

TEST(SparseView, LinesOfABiggerMatrixStartPastZero) {
  Rows s = example<Rows>();
  const auto middle = s.middleRows(2, 2);
  EXPECT_GT(to_compressed(middle).begin(0), 0);
  expect_view_is_matrix(middle);
  s.reserve(Eigen::VectorXi::Constant(s.outerSize(), 3));
  expect_view_is_matrix(s.middleRows(1, 3));
}

TEST(SparseView, TransposeExchangesOnlyTheStorageOrder) {
  const Rows s = example<Rows>();
  const auto t = s.transpose();
  static_assert(!pare::SparseRowsIn<decltype(s.transpose())>);
  EXPECT_EQ(dense_lines(to_compressed(t)), dense_lines(to_compressed(s)));
}

TEST(SparseView, UnsortedAndRepeatedIndicesAreAllowed) {
  const std::int32_t outer[] = {0, 4, 4}, inner[] = {2, 0, 2, 1};
  const float values[] = {1, 2, 4, 8};
  const CompressedView<float, std::int32_t> v{2, 3, outer, nullptr, inner, values};
  EXPECT_EQ(v.entries(), 4);
  EXPECT_NO_THROW(pare::check_compressed("f", "s", v));
  Eigen::MatrixXf wanted(2, 3);
  wanted << 2, 8, 5, 0, 0, 0;
  EXPECT_EQ(dense_lines(v), wanted);
}

TEST(SparseView, ConceptsTakeMatricesOfFloatAndDouble) {
  static_assert(pare::SparseIn<Rows> && pare::SparseIn<const Rows> && pare::SparseIn<Cols>);
  static_assert(pare::SparseIn<Eigen::Map<const Rows>> && pare::SparseIn<Eigen::Ref<Rows>>);
  static_assert(pare::SparseRowsIn<Rows> && !pare::SparseRowsIn<Cols>);
  static_assert(pare::SparseRowsIn<Eigen::Map<Rows>> && !pare::SparseRowsIn<Eigen::Map<Cols>>);
  static_assert(!pare::SparseIn<Sparse<int, Eigen::RowMajor, int>>);
  static_assert(!pare::SparseIn<Sparse<float, Eigen::RowMajor, std::int16_t>>);
  static_assert(!pare::SparseIn<Eigen::MatrixXf> && !pare::SparseIn<std::vector<float>>);
  static_assert(!pare::In<Rows, 1> && !pare::In<Rows, 2> && !pare::Out<Rows, 2>);
  // Eigen's sparse vectors answer null where the offsets of a line would be.
  static_assert(!pare::SparseIn<Eigen::SparseVector<float>>);
  static_assert(!pare::SparseIn<Eigen::SparseVector<float, Eigen::RowMajor>>);
}

template <class I>
std::string refusal(const std::vector<I>& outer, const std::vector<I>& inner, Index inner_size,
                    const I* line_nonzeros = nullptr) {
  const std::vector<float> values(inner.size());
  const CompressedView<float, I> v{static_cast<Index>(outer.size()) - 1,
                                   inner_size,
                                   outer.data(),
                                   line_nonzeros,
                                   inner.data(),
                                   values.data()};
  try {
    pare::check_compressed("f", "s", v);
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "accepted";
}

template <class I>
class SparseIndex : public testing::Test {};
using Indices = testing::Types<std::int32_t, std::int64_t>;
TYPED_TEST_SUITE(SparseIndex, Indices);

TYPED_TEST(SparseIndex, IndicesOutsideTheMatrixAreRefused) {
  using List = std::vector<TypeParam>;
  const List outer{0, 2, 3};
  EXPECT_EQ(refusal<TypeParam>(outer, {0, 4, 2}, 5), "accepted");
  EXPECT_EQ(refusal<TypeParam>(outer, {0, 5, 2}, 5),
            "pare::f: s: got 5, wanted indices within the matrix");
  EXPECT_EQ(refusal<TypeParam>(outer, {5, 0, 2}, 5),
            "pare::f: s: got 5, wanted indices within the matrix");
  EXPECT_EQ(refusal<TypeParam>(outer, {0, 1, -1}, 5),
            "pare::f: s: got -1, wanted indices within the matrix");
  EXPECT_NE(refusal<TypeParam>(outer, {0, 0, 0}, 0), "accepted");
  constexpr TypeParam most = std::numeric_limits<TypeParam>::max();
  constexpr TypeParam least = std::numeric_limits<TypeParam>::min();
  EXPECT_NE(refusal<TypeParam>(outer, {0, most, 0}, 5), "accepted");
  EXPECT_NE(refusal<TypeParam>(outer, {0, least, 0}, 5), "accepted");
}

TYPED_TEST(SparseIndex, OffsetsThatDecreaseOrStartBelowZeroAreRefused) {
  const std::vector<TypeParam> inner(8, 0);
  constexpr TypeParam least = std::numeric_limits<TypeParam>::min();
  EXPECT_EQ(refusal<TypeParam>({0, 0, 0}, inner, 5), "accepted");
  EXPECT_EQ(refusal<TypeParam>({3, 5, 8}, inner, 5), "accepted");
  for (const std::vector<TypeParam>& outer :
       {std::vector<TypeParam>{-1, 2, 3}, {0, 3, 2}, {4, 2, 6}, {0, -1, 3}, {least, 0, 0}})
    EXPECT_NE(refusal<TypeParam>(outer, inner, 5).find("line offsets that never decrease"),
              std::string::npos)
        << outer[0] << ' ' << outer[1] << ' ' << outer[2];
}

TYPED_TEST(SparseIndex, LineCountsThatOverlapAreNegativeOrOverflowAreRefused) {
  const std::vector<TypeParam> inner(8, 0), outer{0, 4, 8};
  constexpr TypeParam most = std::numeric_limits<TypeParam>::max();
  const TypeParam fits[] = {3, 4}, overlaps[] = {5, 4}, negative[] = {-1, 0};
  EXPECT_EQ(refusal<TypeParam>(outer, inner, 5, fits), "accepted");
  EXPECT_NE(refusal<TypeParam>(outer, inner, 5, overlaps), "accepted");
  EXPECT_NE(refusal<TypeParam>(outer, inner, 5, negative), "accepted");
  if (sizeof(TypeParam) == sizeof(Index)) {
    const TypeParam overflows[] = {0, most};
    EXPECT_NE(refusal<TypeParam>(outer, inner, 5, overflows), "accepted");
  }
}

TEST(SparseView, RefusalReadsNoIndexOfABadLine) {
  // The offsets are checked before the indices they lead to: these would be read far out of bounds.
  EXPECT_NE(refusal<std::int64_t>({std::int64_t{-1} << 40, 0}, {}, 5), "accepted");
}

TEST(SparseView, HandMadeViewsThatAreNoMatrixAreRefused) {
  using View = pare::CompressedView<float, std::int64_t>;
  const std::vector<std::int64_t> outer{0, 1, 2}, inner{0, 1};
  const std::vector<float> values{1, 2};
  const View good{2, 2, outer.data(), nullptr, inner.data(), values.data()};
  const auto refused = [&](const auto& change) {
    View v = good;
    change(v);
    EXPECT_THROW(check_compressed("f", "a", v), std::invalid_argument);
  };
  check_compressed("f", "a", good);
  check_compressed("f", "a", View{});
  refused([](View& v) { v.outer = nullptr; });
  refused([](View& v) { v.inner = nullptr; });
  refused([](View& v) { v.values = nullptr; });
  refused([](View& v) { v.outer_size = -1; });
  refused([](View& v) { v.inner_size = -1; });
  refused([](View& v) { v.outer_size = std::numeric_limits<pare::Index>::max(); });
  const std::vector<std::int64_t> far{0, std::int64_t{1} << 61, std::int64_t{1} << 61};
  refused([&](View& v) { v.outer = far.data(); });
  const std::vector<std::int64_t> lengths{std::int64_t{1} << 61, 0};
  refused([&](View& v) { v.line_nonzeros = lengths.data(); });
}

TEST(SparseView, AnOutputOverAnyOfItsArraysIsRefused) {
  // Lines 0 1 | - | 2 3, of a matrix stored with room at the end: entry 4 belongs to no line.
  std::vector<float> values(5);
  std::vector<std::int32_t> inner{0, 1, 0, 1, 0}, outer{0, 2, 2, 4}, counts{2, 0, 2};
  const pare::CompressedView<float, std::int32_t> s{
      3, 2, outer.data(), counts.data(), inner.data(), values.data()};
  const auto refused = [&](void* place) {
    const pare::TensorView<float, 1> out{static_cast<float*>(place), {1}, {1}};
    try {
      pare::check_no_overlap("f", "y", out, "x", s);
      return false;
    } catch (const std::invalid_argument&) {
      return true;
    }
  };
  EXPECT_TRUE(refused(&values[0]) && refused(&values[3]));
  EXPECT_TRUE(refused(&inner[3]) && refused(&outer[3]) && refused(&counts[2]));
  EXPECT_FALSE(refused(&values[4]));
  EXPECT_FALSE(refused(&inner[4]));
}

}  // namespace
}  // namespace core_sparse_view_test
