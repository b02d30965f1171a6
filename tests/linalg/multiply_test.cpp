// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/linalg/multiply.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/backends.hpp"
#include "support/tolerance.hpp"

namespace linalg_multiply_test {
namespace {

using pare::bf16;
using pare::f16;
using pare::Index;
using pare::TensorView;
using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::same_bits;
namespace arch = pare::arch;
namespace kernel = pare::kernel;
namespace linalg = pare::linalg;

template <class Arch, class A, class B, class T>
struct Case {
  using arch = Arch;
  using left = A;
  using right = B;
  using scalar = T;
};

template <class C>
struct MultiplyTest : testing::Test {};
using Cases = testing::Types<
    Case<pare::Reference, float, float, float>, Case<pare::Reference, double, double, double>,
    Case<pare::Reference, bf16, float, float>, Case<arch::scalar, float, float, float>,
    Case<arch::scalar, double, double, double>, Case<arch::scalar, bf16, bf16, float>,
    Case<arch::best, float, float, float>, Case<arch::best, double, double, double>,
    Case<arch::best, float, float, double>, Case<arch::best, float, double, double>,
    Case<arch::best, bf16, bf16, float>, Case<arch::best, f16, f16, float>,
    Case<arch::best, bf16, float, float>, Case<arch::best, bf16, bf16, double>,
    Case<arch::best, f16, f16, double>>;
TYPED_TEST_SUITE(MultiplyTest, Cases);

template <class C>
struct MultiplyScalarTest : testing::Test {};
TYPED_TEST_SUITE(MultiplyScalarTest, pare::testing::ArchsAndScalars);

/// The backend of a case: the definition, or the kernels of an arch.
template <class C>
auto backend_of() {
  if constexpr (std::is_same_v<typename C::arch, pare::Reference>)
    return pare::reference;
  else
    return pare::simd_for<typename C::arch>{};
}

/// How a matrix lies in memory: by rows or columns, which lie apart, or with every second element.
enum class Order { rows, columns, apart };

/// Small integers and powers of two: every sum below is exact, in any order and with any fusing.
int left_at(Index i, Index d) { return static_cast<int>((i * 5 + d * 3) % 11) - 5; }
int right_at(Index d, Index j) { return static_cast<int>((d * 7 + j * 2) % 13) - 6; }
int start_at(Index i, Index j) { return static_cast<int>((i * 10 + j) % 29) - 12; }
/// f(i, j) of a matrix by rows: oracles read a value often.
template <class F>
std::vector<double> table(Index rows, Index columns, const F& f) {
  std::vector<double> values(static_cast<std::size_t>(rows * columns));
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; ++j)
      values[static_cast<std::size_t>(i * columns + j)] = static_cast<double>(f(i, j));
  return values;
}
double dot(const double* x, const double* y, Index size) {
  double sum = 0;
  for (Index i = 0; i < size; ++i) sum += x[i] * y[i];
  return sum;
}

double scale_at(Index i) { return i % 3 == 0 ? -2 : (i % 3 == 1 ? 0.5 : 1); }

template <class S>
S stored(double x) {
  if constexpr (pare::ComputeScalar<S>)
    return static_cast<S>(x);
  else
    return S(static_cast<float>(x));
}

/// A matrix that has forbidden pages around exactly what it spans.
template <class S>
class Matrix {
 public:
  Matrix(Index rows, Index columns, Order order, Guard guard = Guard::after)
      : view_{nullptr, {rows, columns}, strides(rows, columns, order)}, data_(span(), guard) {
    view_.data = data_.data();
  }
  template <class F>
  Matrix(Index rows, Index columns, Order order, Guard guard, const F& f)
      : Matrix(rows, columns, order, guard) {
    fill(f);
  }
  template <class F>
  void fill(const F& f) {
    for (Index i = 0; i < view_.rows(); ++i)
      for (Index j = 0; j < view_.cols(); ++j) view_(i, j) = stored<S>(f(i, j));
  }

  TensorView<S, 2> view() { return view_; }
  TensorView<const S, 2> view() const { return view_; }
  S at(Index i, Index j) const { return view_(i, j); }
  bool untouched(Index i, Index j) const { return data_.untouched(&view_(i, j) - view_.data); }

  /// What lies between and beside the elements was not written.
  bool gaps_untouched() const {
    std::vector<char> element(static_cast<std::size_t>(data_.size()), 0);
    for (Index i = 0; i < view_.rows(); ++i)
      for (Index j = 0; j < view_.cols(); ++j)
        element[static_cast<std::size_t>(&view_(i, j) - view_.data)] = 1;
    for (Index i = 0; i < data_.size(); ++i)
      if (element[static_cast<std::size_t>(i)] == 0 && !data_.untouched(i)) return false;
    return data_.surroundings_untouched();
  }

 private:
  static std::array<Index, 2> strides(Index rows, Index columns, Order order) {
    if (order == Order::rows) return {columns + 3, 1};
    if (order == Order::columns) return {1, rows + 5};
    return {2 * columns + 1, 2};
  }
  Index span() const {
    if (view_.rows() == 0 || view_.cols() == 0) return 0;
    return (view_.rows() - 1) * view_.stride[0] + (view_.cols() - 1) * view_.stride[1] + 1;
  }

  TensorView<S, 2> view_;
  GuardedArray<S> data_;
};

struct Shape {
  Index rows, depth, columns;
};
struct Orders {
  Order a, b, c;
};
struct Scales {
  bool row = false, column = false, depth = false;
};

std::string name(const Shape& s, const Orders& o) {
  const auto order = [](Order x) { return std::string(1, "rca"[static_cast<int>(x)]); };
  return std::to_string(s.rows) + " x " + std::to_string(s.depth) + " x " +
         std::to_string(s.columns) + ' ' + order(o.a) + order(o.b) + order(o.c);
}

/// Scales with guards, or none.
template <class T>
class ScaleVector {
 public:
  ScaleVector(bool wanted, Index size, Index shift)
      : wanted_(wanted), shift_(shift), values_(wanted ? size : 0) {
    for (Index i = 0; i < values_.size(); ++i) values_[i] = static_cast<T>(scale_at(i + shift));
  }
  const T* data() const { return wanted_ ? values_.data() : nullptr; }
  double at(Index i) const { return wanted_ ? scale_at(i + shift_) : 1; }

 private:
  bool wanted_;
  Index shift_;
  GuardedArray<T> values_;
};

/// C = A B or C += A B by a plain triple loop.
template <class C>
void expect_product(const Shape& s, const Orders& orders, const Scales& scales, bool accumulate,
                    pare::Workspace& workspace, Guard guard = Guard::after) {
  using T = typename C::scalar;
  const Matrix<typename C::left> a(s.rows, s.depth, orders.a, guard, left_at);
  const Matrix<typename C::right> b(s.depth, s.columns, orders.b, guard, right_at);
  Matrix<T> c(s.rows, s.columns, orders.c, guard);
  if (accumulate) c.fill(start_at);
  const ScaleVector<T> row(scales.row, s.rows, 0), column(scales.column, s.columns, 1),
      depth(scales.depth, s.depth, 2);
  linalg::multiply(keeping(backend_of<C>(), workspace), a.view(), b.view(), c.view(),
                   {.accumulate = accumulate,
                    .row_scale = row.data(),
                    .column_scale = column.data(),
                    .depth_scale = depth.data()});
  const std::vector<double> left = table(s.rows, s.depth, left_at);
  const std::vector<double> right =
      table(s.columns, s.depth, [&](Index j, Index d) { return right_at(d, j) * depth.at(d); });
  for (Index i = 0; i < s.rows; ++i)
    for (Index j = 0; j < s.columns; ++j) {
      double wanted = dot(left.data() + i * s.depth, right.data() + j * s.depth, s.depth);
      wanted *= row.at(i) * column.at(j);
      if (accumulate) wanted += start_at(i, j);
      ASSERT_EQ(static_cast<double>(c.at(i, j)), wanted)
          << name(s, orders) << " at " << i << ' ' << j;
    }
  ASSERT_TRUE(c.gaps_untouched()) << name(s, orders);
}

template <class F>
void for_each_order(const F& f) {
  for (const Order a : {Order::rows, Order::columns})
    for (const Order b : {Order::rows, Order::columns})
      for (const Order c : {Order::rows, Order::columns}) f(Orders{a, b, c});
}

TYPED_TEST(MultiplyTest, IsTheProductForEveryTailAndOrder) {
  pare::Workspace workspace;
  for_each_order([&](const Orders& orders) {
    for (const Guard guard : {Guard::before, Guard::after})
      for (const Index rows : {1, 2, 6, 7, 17, 25})
        for (const Index columns : {1, 9, 16, 33, 65})
          for (const Index depth : {1, 2, 3, 34})
            expect_product<TypeParam>({rows, depth, columns}, orders, {}, (rows + depth) % 2 == 0,
                                      workspace, guard);
  });
}

TYPED_TEST(MultiplyTest, IsTheProductAcrossBlocks) {
  constexpr Index columns = linalg::product_columns, depth = linalg::product_depth;
  constexpr Index rows = linalg::product_rows;
  pare::Workspace workspace;
  for_each_order([&](const Orders& orders) {
    for (const bool accumulate : {false, true}) {
      expect_product<TypeParam>({7, depth + depth / 4, 19}, orders, {}, accumulate, workspace);
      expect_product<TypeParam>({7, depth + depth / 4 + 1, 19}, orders, {}, accumulate, workspace);
      expect_product<TypeParam>({8, 2 * depth, 19}, orders, {}, accumulate, workspace);
      expect_product<TypeParam>({9, 4 * depth + 3, 18}, orders, {}, accumulate, workspace);
    }
    expect_product<TypeParam>({2 * rows + 5, 11, 70}, orders, {}, false, workspace);
    expect_product<TypeParam>({5, depth + 3, columns + 37}, orders, {}, false, workspace);
  });
}

TYPED_TEST(MultiplyTest, ScalesRowsColumnsAndDepth) {
  constexpr Index depth = linalg::product_depth;
  pare::Workspace workspace;
  for_each_order([&](const Orders& orders) {
    for (const Scales scales : {Scales{true, false, false}, Scales{false, true, false},
                                Scales{false, false, true}, Scales{true, true, true}})
      for (const Shape& shape : {Shape{1, 1, 1}, Shape{13, 35, 37}, Shape{29, 19, 130},
                                 Shape{200, 5, 7}, Shape{7, 2 * depth + 9, 21}})
        for (const bool accumulate : {false, true})
          expect_product<TypeParam>(shape, orders, scales, accumulate, workspace);
  });
}

TYPED_TEST(MultiplyTest, FactorsMayHaveNoStrideOfOne) {
  pare::Workspace workspace;
  for (const Order b : {Order::apart, Order::rows})
    for (const Shape& shape : {Shape{33, 1, 35}, Shape{1, 33, 35}, Shape{33, 35, 1},
                               Shape{40, 41, 42}, Shape{1, 40, 1}, Shape{40, 1, 1}}) {
      expect_product<TypeParam>(shape, {Order::apart, b, Order::rows}, {}, false, workspace);
      expect_product<TypeParam>(shape, {b, Order::apart, Order::columns}, {}, true, workspace);
    }
}

/// The lower half of a square product by a plain triple loop, and the whole after mirroring it.
template <class C>
void expect_lower(Index n, Index depth, const Orders& orders, bool accumulate) {
  using T = typename C::scalar;
  const auto backend = backend_of<C>();
  const Matrix<typename C::left> a(n, depth, orders.a, Guard::after, left_at);
  const Matrix<typename C::right> b(depth, n, orders.b, Guard::after, right_at);
  Matrix<T> c(n, n, orders.c);
  if (accumulate) c.fill(start_at);
  pare::Workspace workspace;
  linalg::multiply(keeping(backend, workspace), a.view(), b.view(), c.view(),
                   {.accumulate = accumulate, .half = linalg::Half::Lower});
  ASSERT_TRUE(c.gaps_untouched());
  const std::vector<double> left = table(n, depth, left_at);
  const std::vector<double> right =
      table(n, depth, [](Index j, Index d) { return right_at(d, j); });
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j <= i; ++j) {
      const double wanted = (accumulate ? start_at(i, j) : 0) +
                            dot(left.data() + i * depth, right.data() + j * depth, depth);
      ASSERT_EQ(c.at(i, j), static_cast<T>(wanted))
          << name({n, depth, n}, orders) << " at " << i << ' ' << j;
    }
  linalg::mirror_lower(pare::simd, c.view());
  for (Index i = 0; i < n; ++i)
    for (Index j = i; j < n; ++j)
      ASSERT_TRUE(same_bits(c.at(i, j), c.at(j, i))) << n << " at " << i << ' ' << j;
  ASSERT_TRUE(c.gaps_untouched());
}

TYPED_TEST(MultiplyTest, LowerHalfIsExactAndMirrored) {
  for_each_order([](const Orders& orders) {
    for (const bool accumulate : {false, true}) {
      for (const Index n : {1, 2, 24, 25, 64, 65, 191, 193, 260})
        expect_lower<TypeParam>(n, 21, orders, accumulate);
      expect_lower<TypeParam>(67, 2 * linalg::product_depth + 5, orders, accumulate);
    }
  });
}

TYPED_TEST(MultiplyScalarTest, LowerHalfLeavesMostOfTheUpper) {
  using T = typename TypeParam::scalar;
  const Index n = 3 * linalg::product_rows;
  const Matrix<T> a(n, 3, Order::rows, Guard::after, left_at);
  Matrix<T> c(n, n, Order::rows);
  pare::Workspace workspace;
  linalg::multiply(keeping(pare::simd_for<typename TypeParam::arch>{}, workspace), a.view(),
                   transpose(a.view()), c.view(), {.half = linalg::Half::Lower});
  for (Index i = 0; i < linalg::product_rows; ++i)
    for (Index j = 2 * linalg::product_rows; j < n; ++j)
      ASSERT_TRUE(c.untouched(i, j)) << i << ' ' << j;
}

TYPED_TEST(MultiplyTest, LowerHalfGoesAcrossBlocksOfColumns) {
  expect_lower<TypeParam>(linalg::product_columns + 75, 3,
                          {Order::rows, Order::columns, Order::rows}, false);
}

/// One of the factors holds `bad` in one place: it reaches its row or column of C, and all of it.
template <class C>
void expect_contained(double bad, const Orders& orders, bool in_left, Index line, Index place) {
  const Shape s{13, 35, 37};
  Matrix<typename C::left> a(s.rows, s.depth, orders.a, Guard::after,
                             [](Index i, Index d) { return left_at(i, d) + 6; });
  Matrix<typename C::right> b(s.depth, s.columns, orders.b, Guard::after,
                              [](Index d, Index j) { return right_at(d, j) + 7; });
  Matrix<typename C::scalar> c(s.rows, s.columns, orders.c);
  if (in_left)
    a.view()(line, place) = stored<typename C::left>(bad);
  else
    b.view()(place, line) = stored<typename C::right>(bad);
  pare::Workspace workspace;
  linalg::multiply(keeping(backend_of<C>(), workspace), pare::as_const(a.view()),
                   pare::as_const(b.view()), c.view(), {});
  for (Index i = 0; i < s.rows; ++i)
    for (Index j = 0; j < s.columns; ++j)
      ASSERT_EQ(std::isfinite(c.at(i, j)), (in_left ? i : j) != line)
          << name(s, orders) << " at " << i << ' ' << j;
}

TYPED_TEST(MultiplyTest, NaNAndInfinityStayInTheirRowAndColumn) {
  for_each_order([](const Orders& orders) {
    for (const double bad :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
      for (const Index place : {0, 33, 34}) {
        for (const Index row : {0, 6, 12})
          expect_contained<TypeParam>(bad, orders, true, row, place);
        for (const Index column : {0, 31, 36})
          expect_contained<TypeParam>(bad, orders, false, column, place);
      }
  });
}

/// Numbers whose sums are rounded: another order of additions would show.
double uneven(Index i, Index j) {
  return std::sin(static_cast<double>(i) * 12.9898 + static_cast<double>(j) * 78.233);
}

TYPED_TEST(MultiplyTest, IsTheSameBitsOnEveryExecutor) {
  using T = typename TypeParam::scalar;
  if constexpr (std::is_same_v<typename TypeParam::arch, pare::Reference>) {
    static_assert(!pare::KernelBackend<pare::Reference>, "the reference has no executor");
  } else {
    const pare::simd_for<typename TypeParam::arch> backend{};
    const Shape s{211, 2 * linalg::product_depth + 47, 149};
    const Matrix<typename TypeParam::left> a(s.rows, s.depth, Order::columns, Guard::after, uneven);
    const Matrix<typename TypeParam::right> b(s.depth, s.columns, Order::rows, Guard::after,
                                              [](Index i, Index j) { return uneven(j, i + 1000); });
    pare::Workspace workspace;
    for (const Order order : {Order::rows, Order::columns})
      for (const bool accumulate : {false, true}) {
        Matrix<T> wanted(s.rows, s.columns, order, Guard::after, uneven);
        linalg::multiply(keeping(backend, workspace), a.view(), b.view(), wanted.view(),
                         {.accumulate = accumulate});
        const auto expect_same = [&](const auto& other) {
          Matrix<T> c(s.rows, s.columns, order, Guard::after, uneven);
          linalg::multiply(keeping(other, workspace), a.view(), b.view(), c.view(),
                           {.accumulate = accumulate});
          for (Index i = 0; i < s.rows; ++i)
            for (Index j = 0; j < s.columns; ++j)
              ASSERT_TRUE(same_bits(c.at(i, j), wanted.at(i, j))) << i << ' ' << j;
        };
        expect_same(backend.threads(2));
        expect_same(backend.threads(3));
        for (const int workers : {1, 5, 64})
          expect_same(backend.on(pare::testing::ReversePool{workers}));
      }
  }
}

TYPED_TEST(MultiplyScalarTest, LowerHalfIsTheSameBitsOnEveryExecutor) {
  using T = typename TypeParam::scalar;
  const pare::simd_for<typename TypeParam::arch> backend{};
  const Index n = 211;
  const Matrix<T> a(n, 301, Order::rows, Guard::after, uneven);
  pare::Workspace workspace;
  const auto product = [&](const auto& other, linalg::Half half) {
    std::vector<T> c(static_cast<std::size_t>(n * n));
    const TensorView<T, 2> view{c.data(), {n, n}, {n, 1}};
    linalg::multiply(keeping(other, workspace), a.view(), transpose(a.view()), view,
                     {.half = half});
    if (half == linalg::Half::Lower) linalg::mirror_lower(other, view);
    return c;
  };
  const std::vector<T> wanted = product(backend, linalg::Half::Both);
  EXPECT_EQ(product(backend, linalg::Half::Lower), wanted);
  EXPECT_EQ(product(backend.threads(3), linalg::Half::Lower), wanted);
  EXPECT_EQ(product(backend.on(pare::testing::ReversePool{7}), linalg::Half::Lower), wanted);
}

TYPED_TEST(MultiplyScalarTest, RunsInsideAWorker) {
  using T = typename TypeParam::scalar;
  const auto backend = pare::simd_for<typename TypeParam::arch>{}.threads(3);
  const Shape s{50, 40, 30};
  const Matrix<T> a(s.rows, s.depth, Order::rows, Guard::after, left_at);
  const Matrix<T> b(s.depth, s.columns, Order::rows, Guard::after, right_at);
  Matrix<T> outside(s.rows, s.columns, Order::rows), inside(s.rows, s.columns, Order::rows);
  pare::Workspace workspace;
  linalg::multiply(keeping(backend, workspace), a.view(), b.view(), outside.view(), {});
  pare::Workspace own[2];
  parallel_for(backend.executor, 2, [&](Index item, int worker) {
    if (item == 1)
      linalg::multiply(keeping(backend, own[worker]), a.view(), b.view(), inside.view(), {});
  });
  for (Index i = 0; i < s.rows; ++i)
    for (Index j = 0; j < s.columns; ++j) ASSERT_EQ(inside.at(i, j), outside.at(i, j));
}

TYPED_TEST(MultiplyScalarTest, ARowOrColumnOfCMayHaveAnyStride) {
  using T = typename TypeParam::scalar;
  pare::Workspace workspace;
  const Index n = 70, depth = 9;
  for (const bool row : {false, true})
    for (const Index along : {1, 2, 7})
      for (const Index other : {1, 3, 900}) {
        const Shape s{row ? 1 : n, depth, row ? n : 1};
        const Matrix<T> a(s.rows, s.depth, Order::rows, Guard::after, left_at);
        const Matrix<T> b(s.depth, s.columns, Order::rows, Guard::after, right_at);
        GuardedArray<T> memory((n - 1) * along + 1);
        const TensorView<T, 2> c{
            memory.data(), {s.rows, s.columns}, {row ? other : along, row ? along : other}};
        linalg::multiply(keeping(pare::simd_for<typename TypeParam::arch>{}, workspace), a.view(),
                         b.view(), c, {});
        for (Index i = 0; i < memory.size(); ++i) {
          if (i % along != 0) {
            ASSERT_TRUE(memory.untouched(i)) << i;
            continue;
          }
          int wanted = 0;
          for (Index d = 0; d < depth; ++d)
            wanted += left_at(row ? 0 : i / along, d) * right_at(d, row ? i / along : 0);
          ASSERT_EQ(memory[i], static_cast<T>(wanted)) << along << ' ' << other << " at " << i;
        }
        ASSERT_TRUE(memory.surroundings_untouched());
      }
}

TYPED_TEST(MultiplyScalarTest, RefusesCWithoutAStrideOfOneAndWritesNothing) {
  using T = typename TypeParam::scalar;
  const Matrix<T> a(4, 3, Order::rows, Guard::after, left_at);
  const Matrix<T> b(3, 5, Order::rows, Guard::after, right_at);
  for (const Index depth : {0, 3})
    for (const linalg::Half half : {linalg::Half::Both, linalg::Half::Lower}) {
      Matrix<T> c(4, 5, Order::apart);
      auto left = a.view();
      auto right = b.view();
      left.extent[1] = right.extent[0] = depth;
      pare::Workspace workspace;
      try {
        linalg::multiply(keeping(pare::simd_for<typename TypeParam::arch>{}, workspace), left,
                         right, c.view(), {.half = half});
        FAIL() << "accepted";
      } catch (const std::invalid_argument& error) {
        const std::string message = error.what();
        for (const char* part : {"pare::linalg::multiply: c: got", "11", "2", "a stride of 1"})
          EXPECT_NE(message.find(part), std::string::npos) << message;
      }
      for (Index i = 0; i < 4; ++i)
        for (Index j = 0; j < 5; ++j) EXPECT_TRUE(c.untouched(i, j));
    }
}

TYPED_TEST(MultiplyScalarTest, EmptyFactorsNeedNoMemory) {
  using T = typename TypeParam::scalar;
  const pare::simd_for<typename TypeParam::arch> backend{};
  const TensorView<const T, 2> none{};
  pare::Workspace workspace;
  linalg::multiply(keeping(backend, workspace), none, none, TensorView<T, 2>{}, {});
  for (const bool rows : {false, true})
    linalg::multiply(keeping(backend, workspace),
                     TensorView<const T, 2>{nullptr, {rows ? 4 : 0, 0}, {1, 1}},
                     TensorView<const T, 2>{nullptr, {0, rows ? 0 : 4}, {1, 1}},
                     TensorView<T, 2>{nullptr, {rows ? 4 : 0, rows ? 0 : 4}, {4, 1}}, {});
  for (const Order order : {Order::rows, Order::columns})
    for (const bool accumulate : {false, true}) {
      Matrix<T> c(4, 5, order, Guard::after, start_at);
      linalg::multiply(keeping(backend, workspace), TensorView<const T, 2>{nullptr, {4, 0}, {0, 1}},
                       TensorView<const T, 2>{nullptr, {0, 5}, {5, 1}}, c.view(),
                       {.accumulate = accumulate});
      for (Index i = 0; i < 4; ++i)
        for (Index j = 0; j < 5; ++j)
          EXPECT_EQ(c.at(i, j), accumulate ? static_cast<T>(start_at(i, j)) : T(0));
      EXPECT_TRUE(c.gaps_untouched());
    }
  const auto kept = workspace.lease<linalg::detail::ProductMemory>();
  EXPECT_EQ(kept->panels.capacity(), 0u);
  EXPECT_EQ(kept->left.capacity(), 0u);
}

TYPED_TEST(MultiplyScalarTest, OneWorkspaceServesEveryShapeAndScalar) {
  pare::Workspace workspace;
  using Arch = typename TypeParam::arch;
  const Orders orders{Order::rows, Order::rows, Order::rows};
  for (const Shape& shape : {Shape{3, 2, 4}, Shape{300, 40, 200}, Shape{5, 600, 9}}) {
    expect_product<Case<Arch, double, double, double>>(shape, orders, {}, false, workspace);
    expect_product<Case<Arch, bf16, bf16, float>>(shape, orders, {}, false, workspace);
    expect_product<Case<Arch, float, float, float>>(shape, orders, {}, false, workspace);
  }
}

/// Each of them and two together, of numbers whose sums are exact.
template <class C, class Make>
void expect_epilogue(const Shape& s, Order order, bool accumulate, const Make& make,
                     pare::Workspace& workspace) {
  using T = typename C::scalar;
  const Matrix<T> a(s.rows, s.depth, Order::rows, Guard::after, left_at);
  const Matrix<T> b(s.depth, s.columns, Order::rows, Guard::after, right_at);
  Matrix<T> plain(s.rows, s.columns, order), c(s.rows, s.columns, order);
  if (accumulate) {
    plain.fill(start_at);
    c.fill(start_at);
  }
  const ScaleVector<T> row(true, s.rows, 0), column(true, s.columns, 1);
  const auto epilogue = make(row.data(), column.data());
  linalg::multiply(keeping(backend_of<C>(), workspace), a.view(), b.view(), plain.view(),
                   {.accumulate = accumulate});
  linalg::multiply(keeping(backend_of<C>(), workspace), a.view(), b.view(), c.view(),
                   {.accumulate = accumulate}, epilogue);
  for (Index i = 0; i < s.rows; ++i)
    for (Index j = 0; j < s.columns; ++j)
      ASSERT_EQ(c.at(i, j), epilogue(i, j, plain.at(i, j)))
          << name(s, {Order::rows, Order::rows, order}) << " at " << i << ' ' << j;
  ASSERT_TRUE(c.gaps_untouched());
}

const auto for_each_finish = [](const auto& f) {
  constexpr Index depth = linalg::product_depth;
  for (const Order order : {Order::rows, Order::columns})
    for (const bool accumulate : {false, true})
      for (const Shape& shape : {Shape{1, 1, 1}, Shape{13, 35, 37}, Shape{7, 2 * depth + 9, 131},
                                 Shape{2 * linalg::product_rows + 5, depth + depth / 4 + 1, 66}})
        f(shape, order, accumulate);
};

template <class C>
struct EpilogueTest : testing::Test {};
using EpilogueCases =
    testing::Types<Case<pare::Reference, float, float, float>,
                   Case<pare::Reference, double, double, double>,
                   Case<arch::best, float, float, float>, Case<arch::best, double, double, double>>;
TYPED_TEST_SUITE(EpilogueTest, EpilogueCases);

TYPED_TEST(EpilogueTest, AreAppliedToTheSums) {
  using T = typename TypeParam::scalar;
  pare::Workspace workspace;
  for_each_finish([&](const Shape& s, Order order, bool accumulate) {
    expect_epilogue<TypeParam>(
        s, order, accumulate,
        [](const T* row, const T* column) {
          return linalg::Then{linalg::ScaleRows<T>{row},
                              linalg::Then{linalg::AddBias<T>{column}, linalg::Relu{}}};
        },
        workspace);
    expect_epilogue<TypeParam>(
        s, order, accumulate,
        [](const T*, const T* column) { return linalg::ScaleColumns<T>{column}; }, workspace);
  });
}

TYPED_TEST(EpilogueTest, OfTheUserSeesEachCompleteSumOnce) {
  using T = typename TypeParam::scalar;
  pare::Workspace workspace;
  for_each_finish([&](const Shape& s, Order order, bool accumulate) {
    const Matrix<T> a(s.rows, s.depth, Order::columns, Guard::after, left_at);
    const Matrix<T> b(s.depth, s.columns, Order::columns, Guard::after, right_at);
    Matrix<T> c(s.rows, s.columns, order);
    if (accumulate) c.fill(start_at);
    std::vector<T> seen(static_cast<std::size_t>(s.rows * s.columns));
    std::vector<int> calls(seen.size());
    linalg::multiply(keeping(backend_of<TypeParam>(), workspace), a.view(), b.view(), c.view(),
                     {.accumulate = accumulate}, [&](Index i, Index j, T sum) {
                       seen[static_cast<std::size_t>(i * s.columns + j)] = sum;
                       ++calls[static_cast<std::size_t>(i * s.columns + j)];
                       return i - j;
                     });
    for (Index i = 0; i < s.rows; ++i)
      for (Index j = 0; j < s.columns; ++j) {
        int wanted = accumulate ? start_at(i, j) : 0;
        for (Index d = 0; d < s.depth; ++d) wanted += left_at(i, d) * right_at(d, j);
        const auto at = static_cast<std::size_t>(i * s.columns + j);
        ASSERT_EQ(calls[at], 1) << i << ' ' << j;
        ASSERT_EQ(seen[at], static_cast<T>(wanted)) << i << ' ' << j;
        ASSERT_EQ(c.at(i, j), static_cast<T>(i - j));
      }
  });
}

TYPED_TEST(EpilogueTest, FinishesALowerHalfAndAProductWithoutDepth) {
  using T = typename TypeParam::scalar;
  pare::Workspace workspace;
  const auto finish = [](Index i, Index j, T sum) { return sum + static_cast<T>(100 * i + j); };
  const Index n = 193, depth = 2 * linalg::product_depth + 5;
  for (const Index k : {Index{0}, Index{5}, depth})
    for (const Order order : {Order::rows, Order::columns}) {
      const Matrix<T> a(n, k, Order::rows, Guard::after, left_at);
      const Matrix<T> b(k, n, Order::rows, Guard::after, right_at);
      Matrix<T> plain(n, n, order, Guard::after, start_at), c(n, n, order, Guard::after, start_at);
      linalg::multiply(keeping(backend_of<TypeParam>(), workspace), a.view(), b.view(),
                       plain.view(), {.accumulate = true});
      linalg::multiply(keeping(backend_of<TypeParam>(), workspace), a.view(), b.view(), c.view(),
                       {.accumulate = true, .half = linalg::Half::Lower}, finish);
      for (Index i = 0; i < n; ++i)
        for (Index j = 0; j <= i; ++j)
          ASSERT_EQ(c.at(i, j), finish(i, j, plain.at(i, j))) << k << ": " << i << ' ' << j;
    }
}

TYPED_TEST(EpilogueTest, GivesTheSameBitsOnEveryExecutor) {
  using T = typename TypeParam::scalar;
  if constexpr (std::is_same_v<typename TypeParam::arch, pare::Reference>) {
    static_assert(!pare::KernelBackend<pare::Reference>, "the reference has no executor");
  } else {
    const Shape s{211, 2 * linalg::product_depth + 47, 149};
    const Matrix<T> a(s.rows, s.depth, Order::rows, Guard::after, uneven);
    const Matrix<T> b(s.depth, s.columns, Order::rows, Guard::after, uneven);
    const Matrix<T> bias(1, s.columns, Order::rows, Guard::after, uneven);
    pare::Workspace workspace;
    const auto product = [&](const auto& backend, Order order) {
      Matrix<T> c(s.rows, s.columns, order);
      linalg::multiply(keeping(backend, workspace), a.view(), b.view(), c.view(), {},
                       linalg::Then{linalg::AddBias<T>{bias.view().data}, linalg::Relu{}});
      std::vector<T> values;
      for (Index i = 0; i < s.rows; ++i)
        for (Index j = 0; j < s.columns; ++j) values.push_back(c.at(i, j));
      return values;
    };
    for (const Order order : {Order::rows, Order::columns}) {
      const auto wanted = product(pare::simd, order);
      EXPECT_EQ(product(pare::simd.threads(3), order), wanted);
      EXPECT_EQ(product(pare::simd.on(pare::testing::ReversePool{7}), order), wanted);
    }
  }
}

}  // namespace
}  // namespace linalg_multiply_test
