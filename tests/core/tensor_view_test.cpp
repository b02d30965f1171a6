// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <unsupported/Eigen/CXX11/Tensor>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>

namespace core_tensor_view_test {
namespace {

using Eigen::Dynamic;
using pare::In;
using pare::Index;
using pare::Out;
using pare::TensorView;
using pare::to_view;
using RowMajor = Eigen::Matrix<float, Dynamic, Dynamic, Eigen::RowMajor>;
using AnyStride = Eigen::Stride<Dynamic, Dynamic>;
template <class T, int Rank>
using Tensor = Eigen::Tensor<T, Rank, Eigen::RowMajor>;

template <class T>
const void* address(T& x) {
  return static_cast<const void*>(std::addressof(x));
}

constexpr Index all_same = -1, other_extents = -2;

/// Fails unless it is given `all_same`; one plain function keeps the many templates below small.
void expect_all_same(Index first_difference) {
  EXPECT_NE(first_difference, other_extents) << "the extents differ";
  EXPECT_LT(first_difference, 0) << "element " << first_difference << " by rows is another";
}

/// The view of an Eigen object has its extents, and its elements are the object's own.
template <class E>
void expect_same_elements(E& e) {
  const auto v = to_view(e);
  static_assert(v.rank == 2);
  Index first = v.rows() == e.rows() && v.cols() == e.cols() ? all_same : other_extents;
  for (Index i = 0; i < e.rows(); ++i)
    for (Index j = 0; j < e.cols(); ++j)
      if (first == all_same && address(v(i, j)) != address(e.coeffRef(i, j)))
        first = i * e.cols() + j;
  expect_all_same(first);
}

/// The same for an object that may be written and for its const form.
template <class E>
void expect_same_elements_twice(E&& e) {
  static_assert(In<E, 2> && Out<std::remove_reference_t<E>&, 2>);
  static_assert(!std::is_const_v<typename decltype(to_view(e))::scalar>);
  expect_same_elements(e);
  const auto& fixed = e;
  static_assert(std::is_const_v<typename decltype(to_view(fixed))::scalar>);
  static_assert(!Out<decltype(fixed), 2>);
  expect_same_elements(fixed);
}

/// The same for an object that is read only by its type.
template <class E>
void expect_same_elements_read_only(E&& e) {
  static_assert(In<E, 2> && !Out<E, 2>);
  static_assert(std::is_const_v<typename decltype(to_view(e))::scalar>);
  expect_same_elements(e);
}

template <class M>
class DenseKinds : public testing::Test {};
using Kinds =
    testing::Types<Eigen::MatrixXf, RowMajor, Eigen::Matrix<double, 3, 5>,
                   Eigen::Matrix<float, Dynamic, 4>, Eigen::Array<float, 3, 2, Eigen::RowMajor>,
                   Eigen::ArrayXXd, Eigen::VectorXf, Eigen::RowVector3f,
                   Eigen::Matrix<Eigen::bfloat16, 2, Dynamic, Eigen::RowMajor>>;
TYPED_TEST_SUITE(DenseKinds, Kinds);

template <class M>
M sized() {
  const auto size = [](int fixed, int wanted) { return fixed == Dynamic ? wanted : fixed; };
  M m(size(M::RowsAtCompileTime, 5), size(M::ColsAtCompileTime, 7));
  m.setZero();
  return m;
}

TYPED_TEST(DenseKinds, OwnersAndTheirRefs) {
  TypeParam m = sized<TypeParam>();
  expect_same_elements_twice(m);
  expect_same_elements_twice(Eigen::Ref<TypeParam>(m));
  expect_same_elements_read_only(Eigen::Ref<const TypeParam>(m));
  EXPECT_EQ(address(*to_view(m).data), address(*m.data()));
}

TYPED_TEST(DenseKinds, Maps) {
  TypeParam m = sized<TypeParam>();
  expect_same_elements_twice(Eigen::Map<TypeParam>(m.data(), m.rows(), m.cols()));
  expect_same_elements_read_only(Eigen::Map<const TypeParam>(m.data(), m.rows(), m.cols()));
  std::vector<typename TypeParam::Scalar> buffer(1000);
  using Strided = Eigen::Map<TypeParam, 0, AnyStride>;
  expect_same_elements_twice(Strided(buffer.data(), m.rows(), m.cols(), {40, 3}));
  using ConstStrided = Eigen::Map<const TypeParam, 0, AnyStride>;
  expect_same_elements_read_only(ConstStrided(buffer.data(), m.rows(), m.cols(), {40, 3}));
  using Refs = Eigen::Ref<TypeParam, 0, AnyStride>;
  Strided strided(buffer.data(), m.rows(), m.cols(), {50, 2});
  expect_same_elements_twice(Refs(strided));
}

TYPED_TEST(DenseKinds, Blocks) {
  TypeParam m = sized<TypeParam>();
  expect_same_elements_twice(m.row(m.rows() - 1));
  expect_same_elements_twice(m.col(m.cols() - 1));
  expect_same_elements_twice(m.topRows(1));
  expect_same_elements_twice(m.rightCols(1));
  expect_same_elements_twice(m.block(0, 0, m.rows(), m.cols()));
  expect_same_elements_twice(m.template block<1, 1>(m.rows() - 1, m.cols() - 1));
  expect_same_elements_twice(m.row(0).rightCols(1));
  expect_same_elements_twice(m.transpose());
  const TypeParam& fixed = m;
  expect_same_elements_read_only(fixed.row(0));
  expect_same_elements_read_only(fixed.block(0, 0, 1, m.cols()));
  expect_same_elements_read_only(fixed.transpose());
}

TEST(ToView, BlocksInTheMiddleOfEitherStorageOrder) {
  Eigen::MatrixXf columns(9, 11);
  RowMajor rows(9, 11);
  expect_same_elements_twice(columns.block(2, 3, 4, 5));
  expect_same_elements_twice(rows.block(2, 3, 4, 5));
  expect_same_elements_twice(columns.block(2, 3, 4, 5).row(1));
  expect_same_elements_twice(rows.block(2, 3, 4, 5).col(1));
  expect_same_elements_twice(rows.middleCols(2, 3).transpose());
  expect_same_elements_twice(columns.col(3).segment(2, 4));
  expect_same_elements_twice(columns.row(3).segment(2, 4));
  expect_same_elements_twice(columns.array());
  expect_same_elements_twice(columns.block(1, 1, 2, 2).array());
}

TEST(ToView, StridesAsAUserWritesThem) {
  std::vector<float> buffer(400);
  using Eigen::InnerStride, Eigen::OuterStride, Eigen::Map;
  expect_same_elements_twice(Map<Eigen::VectorXf, 0, InnerStride<3>>(buffer.data(), 6));
  expect_same_elements_twice(
      Map<Eigen::RowVectorXf, 0, InnerStride<>>(buffer.data(), 6, InnerStride<>(4)));
  expect_same_elements_twice(
      Map<Eigen::MatrixXf, 0, OuterStride<>>(buffer.data(), 3, 4, OuterStride<>(7)));
  expect_same_elements_twice(
      Map<RowMajor, 0, OuterStride<>>(buffer.data(), 3, 4, OuterStride<>(7)));
  expect_same_elements_twice(Map<RowMajor, 0, Eigen::Stride<20, 2>>(buffer.data(), 3, 4));
  expect_same_elements_twice(Map<Eigen::Matrix3f, Eigen::Aligned16, OuterStride<8>>(
      buffer.data() - reinterpret_cast<std::uintptr_t>(buffer.data()) / 4 % 4 + 4));
}

TEST(ToView, DiagonalsOfEitherStorageOrder) {
  Eigen::MatrixXf columns(5, 7);
  RowMajor rows(5, 7);
  expect_same_elements_twice(columns.diagonal());
  expect_same_elements_twice(rows.diagonal(2));
  expect_same_elements_twice(columns.diagonal(-1));
  expect_same_elements_twice(columns.block(1, 2, 3, 3).diagonal());
}

TEST(ToView, DiagonalOfAMatrixWithAnInnerStride) {
  // Eigen itself reports the inner stride of such a diagonal wrongly (outer + 1).
  std::vector<float> buffer(100);
  expect_same_elements_twice(
      Eigen::Map<Eigen::MatrixXf, 0, AnyStride>(buffer.data(), 3, 3, {20, 2}).diagonal());
}

TEST(ToView, TensorsOfRankOneToFour) {
  Tensor<float, 1> a(5);
  Tensor<double, 2> b(3, 4);
  Tensor<float, 3> c(2, 3, 4);
  Tensor<float, 4> d(2, 3, 4, 5);
  const auto va = to_view(a);
  const auto vb = to_view(b);
  const auto vc = to_view(c);
  const auto vd = to_view(d);
  EXPECT_EQ(va.extent, (std::array<Index, 1>{5}));
  EXPECT_EQ(vb.extent, (std::array<Index, 2>{3, 4}));
  EXPECT_EQ(vc.extent, (std::array<Index, 3>{2, 3, 4}));
  EXPECT_EQ(vd.extent, (std::array<Index, 4>{2, 3, 4, 5}));
  EXPECT_EQ(vd.stride, (std::array<Index, 4>{60, 20, 5, 1}));
  for (Index i = 0; i < 5; ++i) EXPECT_EQ(&va(i), &a(i));
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 4; ++j) EXPECT_EQ(&vb(i, j), &b(i, j));
  for (Index i = 0; i < 2; ++i)
    for (Index j = 0; j < 3; ++j)
      for (Index k = 0; k < 4; ++k) {
        EXPECT_EQ(&vc(i, j, k), &c(i, j, k));
        for (Index l = 0; l < 5; ++l) EXPECT_EQ(&vd(i, j, k, l), &d(i, j, k, l));
      }
}

TEST(ToView, TensorMapsAndFixedTensors) {
  float buffer[24] = {};
  const Eigen::TensorMap<Tensor<float, 3>> map(buffer, 2, 3, 4);
  const Eigen::TensorMap<const Tensor<float, 3>> read_only(buffer, 2, 3, 4);
  Eigen::TensorFixedSize<float, Eigen::Sizes<2, 3, 4>, Eigen::RowMajor> fixed;
  const auto vm = to_view(map);
  const auto vr = to_view(read_only);
  const auto vf = to_view(fixed);
  EXPECT_EQ(vm.data, buffer);
  EXPECT_EQ(vr.data, buffer);
  EXPECT_EQ(vf.stride, vm.stride);
  EXPECT_EQ(&vm(1, 2, 3), &map(1, 2, 3));
  EXPECT_EQ(&vr(1, 0, 2), &read_only(1, 0, 2));
  EXPECT_EQ(&vf(1, 2, 1), &fixed(1, 2, 1));
}

TEST(ToView, Ranges) {
  std::vector<float> vector{1, 2, 3};
  std::array<double, 2> array{4, 5};
  const std::vector<float>& fixed = vector;
  const std::span<float> span(vector.data() + 1, 2);
  const std::span<const float, 2> read_only(vector.data(), 2);
  EXPECT_EQ(to_view(vector).data, vector.data());
  EXPECT_EQ(to_view(vector).extent[0], 3);
  EXPECT_EQ(to_view(vector).stride[0], 1);
  EXPECT_EQ(&to_view(array)(1), &array[1]);
  EXPECT_EQ(&to_view(fixed)(2), &vector[2]);
  EXPECT_EQ(&to_view(span)(1), &vector[2]);
  EXPECT_EQ(&to_view(read_only)(1), &vector[1]);
  EXPECT_EQ(to_view(read_only).extent[0], 2);
}

TEST(ToView, AViewIsItsOwnView) {
  float buffer[12];
  const TensorView<float, 2> v{buffer, {2, 3}, {6, 2}};
  EXPECT_EQ(to_view(v).data, v.data);
  EXPECT_EQ(to_view(v).extent, v.extent);
  EXPECT_EQ(to_view(v).stride, v.stride);
}

// ---- Eigen's 16-bit scalars -------------------------------------------------------------------

template <class Eigens, class Ours>
void expect_bits_are_shared() {
  Eigen::Matrix<Eigens, Dynamic, Dynamic> m(3, 4);
  const auto v = to_view(m);
  static_assert(std::is_same_v<typename decltype(to_view(m))::scalar, Ours>);
  static_assert(std::is_same_v<typename decltype(to_view(std::as_const(m)))::scalar, const Ours>);
  for (int i = 0; i < 12; ++i) m.data()[i] = Eigens(0.37f * static_cast<float>(i - 5));
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 4; ++j) {
      ASSERT_EQ(v(i, j).bits, Eigen::numext::bit_cast<std::uint16_t>(m(i, j)));
      ASSERT_EQ(static_cast<float>(v(i, j)), static_cast<float>(m(i, j)));
    }
  v(1, 2) = Ours(-2.5f);
  EXPECT_EQ(static_cast<float>(m(1, 2)), -2.5f);

  std::vector<Eigens> range(2, Eigens(1.0f));
  static_assert(std::is_same_v<typename decltype(to_view(range))::scalar, Ours>);
  to_view(range)(1) = Ours(7.0f);
  EXPECT_EQ(static_cast<float>(range[1]), 7.0f);
  Tensor<Eigens, 2> tensor(2, 2);
  tensor.setConstant(Eigens(3.0f));
  EXPECT_EQ(static_cast<float>(to_view(tensor)(1, 1)), 3.0f);
  static_assert(std::is_same_v<pare::scalar_of<Tensor<Eigens, 2>>, Ours>);
}

TEST(ToView, SixteenBitScalarsKeepAddressAndBits) {
  expect_bits_are_shared<Eigen::bfloat16, pare::bf16>();
  expect_bits_are_shared<Eigen::half, pare::f16>();
}

// ---- Concepts ---------------------------------------------------------------------------------

TEST(Concepts, ConstObjectsAreReadOnly) {
  using T4 = Tensor<float, 4>;
  static_assert(In<T4, 4> && Out<T4&, 4> && In<const T4, 4> && !Out<const T4&, 4>);
  static_assert(!Out<Eigen::TensorMap<const T4>, 4> && In<Eigen::TensorMap<const T4>, 4>);
  static_assert(!Out<const Eigen::MatrixXf, 2> && !Out<const Eigen::MatrixXf&, 2>);
  static_assert(!Out<Eigen::Map<const Eigen::MatrixXf>, 2>);
  static_assert(!Out<Eigen::Ref<const Eigen::MatrixXf>, 2>);
  static_assert(!Out<Eigen::Block<const Eigen::MatrixXf>, 2>);
  static_assert(!Out<const std::vector<float>, 1> && !Out<std::span<const float>, 1>);
  static_assert(!Out<const std::array<float, 3>, 1> && !Out<TensorView<const float, 2>, 2>);
  // What owns nothing says by its element type whether it may be written.
  static_assert(Out<const std::span<float>, 1> && Out<const TensorView<float, 2>, 2>);
}

TEST(Concepts, RvaluesThatPointElsewhereAreOutputs) {
  static_assert(Out<Eigen::Map<Eigen::MatrixXf>, 2> && Out<Eigen::Map<Eigen::MatrixXf>&&, 2>);
  static_assert(Out<Eigen::Block<Eigen::MatrixXf>, 2> && In<Eigen::Block<Eigen::MatrixXf>, 2>);
  static_assert(Out<Eigen::TensorMap<Tensor<float, 4>>, 4> && Out<TensorView<double, 3>, 3>);
}

TEST(Concepts, TemporariesThatOwnTheirMemoryAreNoOutputs) {
  static_assert(!Out<Eigen::MatrixXf, 2> && Out<Eigen::MatrixXf&, 2> && In<Eigen::MatrixXf, 2>);
  static_assert(!Out<Eigen::Matrix2d, 2> && !Out<Eigen::VectorXf, 2> && !Out<Eigen::ArrayXXd, 2>);
  static_assert(!Out<Tensor<float, 4>, 4> && Out<Tensor<float, 4>&, 4>);
  static_assert(!Out<std::vector<float>, 1> && Out<std::vector<float>&, 1>);
  static_assert(!Out<std::array<float, 3>, 1> && Out<std::array<float, 3>&, 1>);
  static_assert(Out<std::span<float>, 1> && Out<Eigen::Ref<Eigen::MatrixXf>, 2>);
}

TEST(Concepts, RankIsExact) {
  static_assert(!In<Eigen::MatrixXf, 1> && !In<Eigen::MatrixXf, 3> && !In<Eigen::MatrixXf, 4>);
  static_assert(!In<Tensor<float, 3>, 4> && !In<Tensor<float, 3>, 2> && !Out<Tensor<float, 3>, 4>);
  using Sum = decltype((Eigen::MatrixXf() + Eigen::MatrixXf()).transpose());
  static_assert(!In<Sum, 1> && !In<Sum, 2>, "it has data() and size(), but no memory");
  static_assert(!In<std::vector<float>, 2> && !In<TensorView<float, 2>, 3>);
  static_assert(In<Eigen::VectorXf, 2> && !In<Eigen::VectorXf, 1>);
}

TEST(Concepts, ScalarsOtherThanParesAreRefused) {
  static_assert(!In<Eigen::MatrixXi, 2> && !Out<Eigen::MatrixXi, 2> && !In<Eigen::MatrixXcf, 2>);
  static_assert(!In<Tensor<int, 4>, 4> && !In<std::vector<int>, 1> && !In<std::vector<bool>, 1>);
  static_assert(!In<std::string, 1> && !In<Eigen::Matrix<long double, 2, 2>, 2>);
  static_assert(!In<TensorView<std::uint16_t, 2>, 2> && !In<std::vector<const char*>, 1>);
}

TEST(Concepts, WhatHasNoMemoryIsRefused) {
  using M = Eigen::MatrixXf;
  static_assert(!In<decltype(std::declval<M>() + std::declval<M>()), 2>);
  static_assert(!In<decltype(std::declval<M>() * std::declval<M>()), 2>);
  static_assert(!In<decltype(2.0f * std::declval<M>()), 2> && !In<decltype(M::Zero(2, 2)), 2>);
  static_assert(!In<decltype(std::declval<M&>().reverse()), 2>);
  static_assert(!In<decltype(std::declval<M&>().triangularView<Eigen::Lower>()), 2>);
  static_assert(!In<float, 2> && !In<float*, 1> && !In<float[3], 1> && !In<std::nullptr_t, 1>);
}

TEST(Concepts, AWrapperOfWhatHasNoMemoryIsRefused) {
  // Eigen gives these the members of a matrix in memory, but what they wrap has none.
  using Sum = decltype(std::declval<Eigen::MatrixXf>() + std::declval<Eigen::MatrixXf>());
  EXPECT_FALSE((In<decltype(std::declval<Sum>().transpose()), 2>));
  EXPECT_FALSE((In<decltype(std::declval<Sum>().diagonal()), 2>));
  EXPECT_FALSE((In<decltype(std::declval<Sum>().array()), 2>));
}

TEST(Concepts, ScalarOf) {
  static_assert(std::is_same_v<pare::scalar_of<const Eigen::MatrixXd&>, double>);
  static_assert(std::is_same_v<pare::scalar_of<Eigen::Map<const Eigen::MatrixXf>>, float>);
  static_assert(std::is_same_v<pare::scalar_of<std::vector<Eigen::half>>, pare::f16>);
  static_assert(std::is_same_v<pare::scalar_of<TensorView<const pare::bf16, 4>>, pare::bf16>);
}

// ---- Views themselves -------------------------------------------------------------------------

constexpr float table[6] = {0, 1, 2, 3, 4, 5};

TEST(TensorView, IsConstexpr) {
  constexpr TensorView<const float, 2> v{table, {2, 3}, {3, 1}};
  static_assert(v(1, 2) == 5 && v.rows() == 2 && v.cols() == 3);
  constexpr auto t = transpose(v);
  static_assert(t.rows() == 3 && t.cols() == 2 && t(2, 1) == 5 && t(0, 1) == 3);
  static_assert(as_const(v).data == table && to_view(v).data == table);
  static_assert(TensorView<float, 3>{}.data == nullptr && TensorView<float, 3>{}.extent[2] == 0);
}

TEST(TensorView, ConvertsToReadOnlyAndNotBack) {
  using Write = TensorView<float, 2>;
  using Read = TensorView<const float, 2>;
  static_assert(std::is_convertible_v<Write, Read> && !std::is_convertible_v<Read, Write>);
  static_assert(!std::is_convertible_v<TensorView<double, 2>, Read>);
  static_assert(!std::is_convertible_v<TensorView<float, 3>, Read>);
  static_assert(std::is_trivially_copyable_v<Write> && std::is_standard_layout_v<Write>);
  float buffer[6];
  const Write v{buffer, {2, 3}, {3, 1}};
  const Read r = v;
  EXPECT_EQ(r.data, buffer);
  EXPECT_EQ(r.extent, v.extent);
  EXPECT_EQ(r.stride, v.stride);
  static_assert(std::is_same_v<decltype(as_const(v)), Read>);
}

TEST(TensorView, TakesAnyIntegerAsIndexAndNegativeStrides) {
  float buffer[6] = {0, 1, 2, 3, 4, 5};
  const TensorView<float, 2> v{buffer + 5, {2, 3}, {-3, -1}};
  EXPECT_EQ(v(0, 0), 5);
  EXPECT_EQ(v(std::size_t{1}, std::int8_t{2}), 0);
  static_assert(!std::is_invocable_v<TensorView<float, 2>, int>);
  static_assert(!std::is_invocable_v<TensorView<float, 2>, int, int, int>);
  static_assert(!std::is_invocable_v<TensorView<float, 2>, int, const char*>);
}

TEST(ToVectorView, RangesAndVectorsOfEigens) {
  std::vector<float> range{1, 2, 3};
  Eigen::VectorXf column(5);
  const Eigen::RowVectorXd row(4);
  Eigen::MatrixXf m(4, 6);
  Eigen::ArrayXf array(3);
  EXPECT_EQ(&pare::to_vector_view(range)(2), &range[2]);
  EXPECT_EQ(&pare::to_vector_view(column)(4), &column(4));
  EXPECT_EQ(&pare::to_vector_view(row)(3), &row(3));
  EXPECT_EQ(&pare::to_vector_view(array)(1), &array(1));
  auto middle = m.row(2);
  const auto v = pare::to_vector_view(middle);
  ASSERT_EQ(v.extent[0], 6);
  for (Index j = 0; j < 6; ++j) EXPECT_EQ(&v(j), &m(2, j));
  auto part = m.col(1).segment(1, 3);
  EXPECT_EQ(&pare::to_vector_view(part)(2), &m(3, 1));
  EXPECT_EQ(pare::to_vector_view(part).extent[0], 3);
}

// ---- Empty objects ----------------------------------------------------------------------------

TEST(EmptyViews, HaveTheirExtentsAndNothingElse) {
  Eigen::MatrixXf none(0, 0), no_rows(0, 5), no_cols(5, 0);
  RowMajor rows(0, 5);
  Eigen::VectorXf vector(0);
  std::vector<float> range;
  std::array<float, 0> array{};
  EXPECT_EQ(to_view(none).extent, (std::array<Index, 2>{0, 0}));
  EXPECT_EQ(to_view(no_rows).extent, (std::array<Index, 2>{0, 5}));
  EXPECT_EQ(to_view(no_cols).extent, (std::array<Index, 2>{5, 0}));
  EXPECT_EQ(to_view(rows).extent, (std::array<Index, 2>{0, 5}));
  EXPECT_EQ(to_view(vector).extent, (std::array<Index, 2>{0, 1}));
  EXPECT_EQ(to_view(range).extent, (std::array<Index, 1>{0}));
  EXPECT_EQ(to_view(array).extent, (std::array<Index, 1>{0}));
  Tensor<float, 4> tensor(2, 3, 0, 4);
  EXPECT_EQ(to_view(tensor).extent, (std::array<Index, 4>{2, 3, 0, 4}));
}

TEST(EmptyViews, MayBeWrittenAndOverlapNothing) {
  Eigen::MatrixXf no_rows(0, 5), no_cols(5, 0);
  RowMajor rows(5, 0);
  Tensor<float, 4> tensor(2, 3, 0, 4);
  EXPECT_NO_THROW(pare::check_writable("f", "y", to_view(no_rows)));
  EXPECT_NO_THROW(pare::check_writable("f", "y", to_view(no_cols)));
  EXPECT_NO_THROW(pare::check_writable("f", "y", to_view(rows)));
  EXPECT_NO_THROW(pare::check_writable("f", "y", to_view(tensor)));
  float buffer[4];
  const TensorView<float, 2> full{buffer, {2, 2}, {2, 1}}, empty{buffer, {0, 2}, {2, 1}};
  EXPECT_NO_THROW(pare::check_no_overlap("f", "y", empty, "x", full));
  EXPECT_NO_THROW(pare::check_no_overlap("f", "y", full, "x", empty));
  EXPECT_NO_THROW(pare::check_no_overlap("f", "y", empty, "x", empty));
}

// ---- Overlap and places written twice ---------------------------------------------------------

template <class T, class U, std::size_t R, std::size_t S>
bool overlap_refused(TensorView<T, R> out, TensorView<U, S> in) {
  try {
    pare::check_no_overlap("f", "y", out, "x", in);
    return false;
  } catch (const std::invalid_argument&) {
    return true;
  }
}

TEST(CheckNoOverlap, RefusesSharedElementsFromBothSides) {
  float buffer[16] = {};
  const auto at = [&](Index offset, Index n, Index stride) {
    return TensorView<float, 1>{buffer + offset, {n}, {stride}};
  };
  EXPECT_TRUE(overlap_refused(at(0, 4, 1), at(0, 4, 1)));
  EXPECT_TRUE(overlap_refused(at(0, 4, 1), at(3, 4, 1)));
  EXPECT_TRUE(overlap_refused(at(3, 4, 1), at(0, 4, 1)));
  EXPECT_FALSE(overlap_refused(at(0, 4, 1), at(4, 4, 1)));
  EXPECT_FALSE(overlap_refused(at(4, 4, 1), at(0, 4, 1)));
  EXPECT_TRUE(overlap_refused(at(2, 1, 1), at(0, 4, 1)));
  EXPECT_TRUE(overlap_refused(at(0, 4, 1), at(2, 1, 1)));
  EXPECT_TRUE(overlap_refused(at(0, 4, 4), at(12, 1, 1)));
  EXPECT_FALSE(overlap_refused(at(0, 4, 4), at(13, 3, 1)));
  EXPECT_TRUE(overlap_refused(at(7, 4, -2), at(0, 2, 1)));   // 7 5 3 1 against 0 1
  EXPECT_FALSE(overlap_refused(at(7, 4, -2), at(0, 1, 1)));  // against 0
  EXPECT_FALSE(overlap_refused(at(7, 4, -2), at(8, 1, 1)));
  EXPECT_FALSE(overlap_refused(at(0, 4, 2), at(1, 4, 2)));  // interleaved
  EXPECT_TRUE(overlap_refused(at(0, 4, 3), at(1, 4, 4)));   // 0 3 6 9 against 1 5 9 13
}

/// The elements a view names, by address.
template <class T, std::size_t R>
std::vector<const void*> named(const TensorView<T, R>& v) {
  std::vector<const void*> all;
  std::array<Index, R> at{};
  for (bool more = !pare::detail::is_empty(pare::detail::ViewShape(v)); more;) {
    Index offset = 0;
    for (std::size_t d = 0; d < R; ++d) offset += at[d] * v.stride[d];
    all.push_back(v.data + offset);
    more = false;
    for (std::size_t d = R; d-- > 0 && !more; at[d] = more ? at[d] : 0)
      more = ++at[d] < v.extent[d];
  }
  std::sort(all.begin(), all.end());
  return all;
}

/// Rank 3 of up to 4 elements a dimension anywhere in the middle of the buffer, strides of either
/// sign; what an odd-ball slice of a tensor may look like.
TensorView<float, 3> random_view(std::vector<float>& buffer, std::mt19937& random) {
  TensorView<float, 3> v{buffer.data() + buffer.size() / 2 + random() % 16, {}, {}};
  for (std::size_t d = 0; d < 3; ++d) {
    v.extent[d] = static_cast<Index>(random() % 5);
    v.stride[d] = static_cast<Index>(random() % 25) - 12;
  }
  return v;
}

TEST(CheckNoOverlap, IsExactForStridedViews) {
  std::vector<float> buffer(512);
  std::mt19937 random(5);
  int shared = 0, apart = 0;
  for (int round = 0; round < 20000; ++round) {
    const auto a = random_view(buffer, random), b = random_view(buffer, random);
    const auto in_a = named(a), in_b = named(b);
    std::vector<const void*> both;
    std::set_intersection(in_a.begin(), in_a.end(), in_b.begin(), in_b.end(),
                          std::back_inserter(both));
    ASSERT_EQ(overlap_refused(a, b), !both.empty()) << "round " << round;
    ++(both.empty() ? apart : shared);
  }
  EXPECT_GT(shared, 1000);
  EXPECT_GT(apart, 1000);
}

TEST(CheckNoOverlap, SeesThroughSlicesOfOnePackedTensor) {
  // Queries, keys and values side by side in a row: [tokens, 3, heads, dim].
  std::vector<float> packed(7 * 3 * 2 * 5);
  const auto slice = [&](Index which) {
    return TensorView<float, 4>{packed.data() + which * 10, {1, 2, 7, 5}, {210, 5, 30, 1}};
  };
  EXPECT_FALSE(overlap_refused(slice(0), slice(1)));
  EXPECT_FALSE(overlap_refused(slice(2), slice(0)));
  EXPECT_TRUE(overlap_refused(slice(1), slice(1)));
}

TEST(CheckNoOverlap, SeesAPartOfAnElement) {
  alignas(8) double buffer[4] = {};
  auto* const bytes = reinterpret_cast<pare::bf16*>(buffer);  // every fourth 16-bit element
  const TensorView<pare::bf16, 1> second_quarter{bytes + 1, {4}, {4}};
  EXPECT_TRUE(overlap_refused(second_quarter, TensorView<const double, 1>{buffer, {4}, {1}}));
  const TensorView<const float, 1> upper_halves{
      reinterpret_cast<const float*>(buffer) + 1, {4}, {2}};
  EXPECT_FALSE(overlap_refused(second_quarter, upper_halves));
}

TEST(CheckNoOverlap, CountsBytesAcrossTypesAndRanks) {
  alignas(8) float buffer[16] = {};
  void* const bytes = buffer;
  const TensorView<const double, 1> doubles{static_cast<const double*>(bytes), {2}, {1}};
  EXPECT_TRUE(overlap_refused(TensorView<float, 2>{buffer + 3, {1, 1}, {1, 1}}, doubles));
  EXPECT_FALSE(overlap_refused(TensorView<float, 2>{buffer + 4, {1, 1}, {1, 1}}, doubles));
  const TensorView<float, 2> backwards{buffer + 15, {2, 3}, {-4, -1}};  // elements 9 ... 15
  EXPECT_TRUE(overlap_refused(backwards, TensorView<const float, 1>{buffer + 9, {1}, {1}}));
  EXPECT_FALSE(overlap_refused(backwards, TensorView<const float, 1>{buffer, {9}, {1}}));
}

TEST(CheckNoOverlap, NamesBothArguments) {
  float x = 0;
  const TensorView<float, 1> v{&x, {1}, {1}};
  try {
    pare::check_no_overlap("area::f", "y", v, "x", v);
    ADD_FAILURE() << "accepted";
  } catch (const std::invalid_argument& e) {
    EXPECT_STREQ(e.what(),
                 "pare::area::f: y: got memory that overlaps an input, wanted memory apart from x");
  }
}

TEST(CheckWritable, RefusesAZeroStride) {
  float buffer[8];
  const auto check = [&](Index rows, Index cols, Index row_stride, Index col_stride) {
    pare::check_writable("f", "y",
                         TensorView<float, 2>{buffer, {rows, cols}, {row_stride, col_stride}});
  };
  EXPECT_NO_THROW(check(2, 3, 3, 1));
  EXPECT_NO_THROW(check(2, 3, 1, 2));
  EXPECT_NO_THROW(check(1, 3, 0, 1));  // one row needs no stride
  EXPECT_THROW(check(2, 3, 0, 1), std::invalid_argument);
  EXPECT_THROW(check(2, 3, 1, 0), std::invalid_argument);
}

template <class T, std::size_t R>
bool refused_as_output(const TensorView<T, R>& v) {
  try {
    pare::check_writable("f", "y", v);
    return false;
  } catch (const std::invalid_argument&) {
    return true;
  }
}

TEST(CheckWritable, RefusesRowsThatOverlap) {
  float buffer[64];
  const auto rows = [&](Index n, Index columns, Index row_stride, Index column_stride) {
    return TensorView<float, 2>{buffer + 32, {n, columns}, {row_stride, column_stride}};
  };
  EXPECT_TRUE(refused_as_output(rows(2, 3, 1, 1)));
  EXPECT_TRUE(refused_as_output(rows(3, 3, 2, 1)));
  EXPECT_TRUE(refused_as_output(rows(2, 3, -2, 1)));
  EXPECT_FALSE(refused_as_output(rows(2, 3, -3, 1)));
  EXPECT_FALSE(refused_as_output(rows(4, 4, 4, 3)));
  EXPECT_TRUE(refused_as_output(rows(4, 5, 4, 3)));  // 12 is 3 rows and 0 columns, or 0 and 4
}

TEST(CheckWritable, IsExact) {
  std::vector<float> buffer(512);
  std::mt19937 random(6);
  int twice = 0, once = 0;
  for (int round = 0; round < 20000; ++round) {
    const auto v = random_view(buffer, random);
    const auto all = named(v);
    const bool repeats = std::adjacent_find(all.begin(), all.end()) != all.end();
    ASSERT_EQ(refused_as_output(v), repeats) << "round " << round;
    ++(repeats ? twice : once);
  }
  EXPECT_GT(twice, 1000);
  EXPECT_GT(once, 1000);
}

TEST(CheckView, RefusesWhatCannotBeRead) {
  constexpr Index huge = std::numeric_limits<Index>::max();
  float buffer[4] = {};
  const auto refused = [](const auto& v) {
    EXPECT_TRUE(refused_as_output(v));
    EXPECT_TRUE(overlap_refused(v, v));
    try {
      pare::check_view("f", "x", as_const(v));
      return false;
    } catch (const std::invalid_argument&) {
      return true;
    }
  };
  using V1 = TensorView<float, 1>;
  using V2 = TensorView<float, 2>;
  EXPECT_TRUE(refused(V1{nullptr, {1}, {1}}));
  EXPECT_TRUE(refused(V1{buffer, {-1}, {1}}));
  EXPECT_TRUE(refused(V2{buffer, {0, -2}, {1, 1}}));
  EXPECT_TRUE(refused(V2{buffer, {std::numeric_limits<Index>::min(), 1}, {1, 1}}));
  EXPECT_TRUE(refused(V1{buffer, {huge}, {1}}));
  EXPECT_TRUE(refused(V1{buffer, {huge / 4}, {-1}}));  // its bytes pass the first address
  auto* const last = reinterpret_cast<float*>(std::numeric_limits<std::uintptr_t>::max() - 3);
  EXPECT_TRUE(refused(V1{last, {1}, {1}}));  // and the last
  EXPECT_TRUE(refused(V1{buffer, {2}, {huge}}));
  EXPECT_TRUE(refused(V1{buffer, {2}, {std::numeric_limits<Index>::min()}}));
  EXPECT_TRUE(refused(V2{buffer, {huge, 2}, {0, 1}}));  // more elements than can be counted
  EXPECT_TRUE(refused(V2{buffer, {Index{1} << 32, Index{1} << 32}, {1, 1}}));
  EXPECT_NO_THROW(pare::check_view("f", "x", V2{nullptr, {0, 3}, {3, 1}}));
  EXPECT_NO_THROW(pare::check_view("f", "x", V2{buffer, {huge, 1}, {0, 1}}));  // one row, repeated
  EXPECT_NO_THROW(pare::check_view("f", "x", V1{buffer + 3, {4}, {-1}}));
}

TEST(CheckView, SaysWhatIsWrong) {
  const auto message = [](const auto& v) -> std::string {
    try {
      pare::check_view("area::f", "x", v);
      return "";
    } catch (const std::invalid_argument& e) {
      return e.what();
    }
  };
  EXPECT_EQ(message(TensorView<float, 2>{nullptr, {2, 3}, {3, 1}}),
            "pare::area::f: x: got a null pointer, wanted data");
  EXPECT_EQ(message(TensorView<float, 2>{nullptr, {-2, 3}, {3, 1}}),
            "pare::area::f: x: got [-2, 3], wanted extents of at least 0");
}

}  // namespace

// ---- The forwarding pattern of public entries -------------------------------------------------

namespace toy {

using pare::Backend;
using pare::In;
using pare::Out;
using pare::TensorView;

struct Options {
  float factor = 1;
  float offset = 0;
};

template <class P>
concept Policy = requires { typename P::toy_policy; };
struct Plain {
  using toy_policy = void;
  static constexpr const char* name = "plain";
};
struct Weighted {
  using toy_policy = void;
  static constexpr const char* name = "weighted";
  float weight = 2;
};

/// What was called: by its backend and policy.
struct Called {
  std::string backend, policy;
  int threads = 1;
};

inline int bodies = 0;

template <class B, class T, class P>
Called run(const B& backend, TensorView<const T, 2> x, TensorView<T, 2> y, const P& policy,
           const Options& options) {
  static const int body = ++bodies;  // one for each instantiation
  static_cast<void>(body);
  pare::check_extents("toy::apply", "y", y.extent, x.extent);
  pare::check_writable("toy::apply", "y", y);
  pare::check_no_overlap("toy::apply", "y", y, "x", x);
  using C = pare::compute_t<T>;
  C scale = C(options.factor);
  if constexpr (std::is_same_v<P, Weighted>) scale *= C(policy.weight);
  for (pare::Index i = 0; i < x.rows(); ++i)
    for (pare::Index j = 0; j < x.cols(); ++j)
      y(i, j) = T(static_cast<C>(x(i, j)) * scale + C(options.offset));
  if constexpr (pare::KernelBackend<B>)
    return {"simd", P::name, backend.executor.concurrency()};
  else
    return {"reference", P::name};
}

template <Backend B, In<2> X, Out<2> Y, Policy P>
Called apply(const B& backend, const X& x, Y&& y, const P& policy, const Options& options = {}) {
  return run(backend, as_const(pare::to_view(x)), pare::to_view(y), policy, options);
}
template <Backend B, In<2> X, Out<2> Y>
Called apply(const B& backend, const X& x, Y&& y, const Options& options = {}) {
  return apply(backend, x, y, Plain{}, options);
}
template <In<2> X, Out<2> Y, Policy P>
Called apply(const X& x, Y&& y, const P& policy, const Options& options = {}) {
  return apply(pare::simd, x, y, policy, options);
}
template <In<2> X, Out<2> Y>
Called apply(const X& x, Y&& y, const Options& options = {}) {
  return apply(pare::simd, x, y, Plain{}, options);
}

}  // namespace toy

namespace {

void expect_called(const toy::Called& got, const char* backend, const char* policy, int threads) {
  EXPECT_EQ(got.backend, backend);
  EXPECT_EQ(got.policy, policy);
  EXPECT_EQ(got.threads, threads);
}

TEST(ForwardingPattern, EveryArgumentThatMayBeLeftOut) {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(3, 4);
  RowMajor y(3, 4);
  expect_called(toy::apply(x, y), "simd", "plain", 1);
  EXPECT_EQ(y, x);
  expect_called(toy::apply(x, y, {}), "simd", "plain", 1);
  expect_called(toy::apply(x, y, {.factor = 3}), "simd", "plain", 1);
  EXPECT_EQ(y, 3 * x);
  expect_called(toy::apply(x, y, toy::Weighted{}), "simd", "weighted", 1);
  EXPECT_EQ(y, 2 * x);
  expect_called(toy::apply(x, y, toy::Weighted{.weight = 4}, {.offset = 1}), "simd", "weighted", 1);
  EXPECT_EQ(y, ((4 * x).array() + 1.0f).matrix());
}

TEST(ForwardingPattern, TheBackendComesFirst) {
  const RowMajor x = RowMajor::Random(3, 4);
  Eigen::MatrixXf y(3, 4);
  expect_called(toy::apply(pare::reference, x, y), "reference", "plain", 1);
  EXPECT_EQ(y, x);
  expect_called(toy::apply(pare::reference, x, y, {.factor = 2}), "reference", "plain", 1);
  EXPECT_EQ(y, 2 * x);
  expect_called(toy::apply(pare::reference, x, y, toy::Weighted{}, {.factor = 2}), "reference",
                "weighted", 1);
  EXPECT_EQ(y, 4 * x);
  expect_called(toy::apply(pare::simd.threads(3), x, y, {.offset = 0}), "simd", "plain", 3);
  expect_called(toy::apply(pare::simd.on(pare::ThreadExecutor{5}), x, y, toy::Plain{}), "simd",
                "plain", 5);
  expect_called(toy::apply(pare::simd_for<pare::arch::scalar>{}, x, y), "simd", "plain", 1);
}

TEST(ForwardingPattern, OutputsMayBeRvalues) {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(2, 3);
  float buffer[12] = {};
  toy::apply(x, Eigen::Map<RowMajor>(buffer, 2, 3), {.factor = 2});
  EXPECT_EQ(Eigen::Map<RowMajor>(buffer, 2, 3), 2 * x);
  Eigen::MatrixXf wide = Eigen::MatrixXf::Zero(4, 5);
  toy::apply(pare::reference, x, wide.block(1, 1, 2, 3));
  EXPECT_EQ(wide.block(1, 1, 2, 3), x);
  EXPECT_EQ((wide.array() != 0).count(), 6);
  toy::apply(x.topRows(1), wide.row(0).head(3), {.factor = -1});
  EXPECT_EQ(wide.row(0).head(3), -x.row(0));
  toy::apply(x, TensorView<float, 2>{buffer, {2, 3}, {6, 2}});
  EXPECT_EQ(buffer[10], x(1, 2));
  toy::apply(x.transpose(), wide.topLeftCorner(3, 2));
  EXPECT_EQ(wide.topLeftCorner(3, 2), x.transpose());
}

TEST(ForwardingPattern, SixteenBitScalarsOfEigens) {
  using Half = Eigen::Matrix<Eigen::bfloat16, Dynamic, Dynamic>;
  Half x(2, 2), y(2, 2);
  for (int i = 0; i < 4; ++i) x.data()[i] = Eigen::bfloat16(static_cast<float>(i));
  toy::apply(x, y, {.factor = 2, .offset = 1});
  for (int i = 0; i < 4; ++i)
    EXPECT_EQ(static_cast<float>(y.data()[i]), static_cast<float>(2 * i + 1));
}

TEST(ForwardingPattern, TheBodyIsInstantiatedOncePerScalar) {
  toy::bodies = 0;
  const Eigen::MatrixXd a = Eigen::MatrixXd::Ones(2, 2);
  const Eigen::Matrix<double, 2, 2, Eigen::RowMajor> b = a;
  Eigen::MatrixXd c(2, 2);
  Eigen::Matrix2d d;
  toy::apply(pare::reference, a, c);
  toy::apply(pare::reference, b, d);
  toy::apply(pare::reference, a.transpose(), c.block(0, 0, 2, 2));
  toy::apply(pare::reference, Eigen::Map<const Eigen::MatrixXd>(a.data(), 2, 2), d.transpose());
  EXPECT_EQ(toy::bodies, 1);
}

TEST(ForwardingPattern, ChecksComeBeforeAnythingIsWritten) {
  Eigen::MatrixXf x = Eigen::MatrixXf::Zero(2, 3), y = Eigen::MatrixXf::Ones(3, 2);
  EXPECT_THROW(toy::apply(x, y), std::invalid_argument);
  EXPECT_EQ(y, Eigen::MatrixXf::Ones(3, 2));
  EXPECT_THROW(toy::apply(x, x, {.offset = 1}), std::invalid_argument);
  EXPECT_THROW(toy::apply(x.leftCols(2), x.rightCols(2), {.offset = 1}), std::invalid_argument);
  EXPECT_EQ(x, Eigen::MatrixXf::Zero(2, 3));
}

TEST(ForwardingPattern, NothingTokensIsANoOp) {
  const Eigen::MatrixXf x(0, 3);
  Eigen::MatrixXf y(0, 3);
  EXPECT_NO_THROW(toy::apply(x, y));
  EXPECT_NO_THROW(toy::apply(x.transpose(), y.transpose()));
  const Tensor<float, 2> u(3, 0);
  Tensor<float, 2> v(3, 0);
  EXPECT_NO_THROW(toy::apply(pare::reference, u, v));
}

template <class X, class Y>
concept Applies = requires(const X& x, Y&& y) { toy::apply(x, y, {.factor = 2}); };
template <class B>
concept RunsOn = requires(const B& b, const RowMajor& x, RowMajor& y) { toy::apply(b, x, y); };

TEST(ForwardingPattern, WrongArgumentsFindNoOverload) {
  static_assert(Applies<RowMajor, RowMajor&> && Applies<RowMajor, Eigen::MatrixXf&>);
  static_assert(!Applies<RowMajor, const RowMajor&> && !Applies<RowMajor, std::vector<float>&>);
  static_assert(!Applies<RowMajor, Eigen::Map<const RowMajor>>);
  static_assert(!Applies<Eigen::MatrixXi, Eigen::MatrixXi&>);
  static_assert(!Applies<Tensor<float, 3>, RowMajor&> && !Applies<int, RowMajor&>);
  static_assert(!Applies<decltype(std::declval<RowMajor>() * 2.0f), RowMajor&>);
  static_assert(RunsOn<pare::Reference> && RunsOn<decltype(pare::simd)>);
  static_assert(!RunsOn<int> && !RunsOn<pare::SerialExecutor> && !RunsOn<pare::arch::avx2>);
}

}  // namespace
}  // namespace core_tensor_view_test
