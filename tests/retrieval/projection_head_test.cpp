// SPDX-License-Identifier: Apache-2.0
// Projection heads and their blocks against loops in long double.
#include <gtest/gtest.h>

#include <pare/retrieval/projection.hpp>
#include <pare/retrieval/projection_head.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/low_rank_linear.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace retrieval_projection_head_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::testing::equal_bits;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using namespace pare::retrieval;
using pare::transformer::DenseLinear;
using pare::transformer::Gelu;
using pare::transformer::Identity;
using pare::transformer::Sigmoid;
using pare::transformer::Silu;
using Wide = RowMatrix<long double>;

template <class T>
RowMatrix<T> weight(Index outputs, Index inputs, int seed) {
  return random_matrix<RowMatrix<T>>(outputs, inputs, static_cast<std::uint64_t>(seed)) *
         static_cast<T>(2 / std::sqrt(static_cast<double>(inputs)));
}
template <class T>
std::vector<T> bias_of(Index size, int seed) {
  const auto m = random_matrix<RowMatrix<T>>(1, size, static_cast<std::uint64_t>(seed));
  return std::vector<T>(m.data(), m.data() + size);
}
template <class T>
Wide product(const RowMatrix<T>& x, const RowMatrix<T>& w) {
  Wide y = Wide::Zero(x.rows(), w.rows());
  for (Index r = 0; r < x.rows(); ++r)
    for (Index o = 0; o < w.rows(); ++o)
      for (Index i = 0; i < x.cols(); ++i)
        y(r, o) += static_cast<long double>(x(r, i)) * static_cast<long double>(w(o, i));
  return y;
}
long double sigmoid(long double x) { return 1 / (1 + std::exp(-x)); }
long double gelu(long double x) { return x / 2 * std::erfc(-x / std::sqrt(2.0L)); }

/// Elements of size about 1, by sums of at most 160 terms.
template <class T>
void expect_near(const RowMatrix<T>& got, const Wide& wanted) {
  ASSERT_EQ(got.rows(), wanted.rows());
  const double allowed = 400 * static_cast<double>(std::numeric_limits<T>::epsilon());
  for (Index r = 0; r < got.rows(); ++r)
    for (Index j = 0; j < got.cols(); ++j)
      ASSERT_LE(std::abs(static_cast<double>(static_cast<long double>(got(r, j)) - wanted(r, j))),
                allowed)
          << r << ' ' << j;
}

template <class Case>
struct ProjectionTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(ProjectionTest, pare::testing::SolverCases);

TYPED_TEST(ProjectionTest, IsActivationOfProductAndBiasPlusResidual) {
  using T = typename TypeParam::scalar;
  using L = DenseLinear<T>;
  const Index inputs = 37, outputs = 53;
  const auto w = weight<T>(outputs, inputs, 1), r = weight<T>(outputs, inputs, 2),
             square = weight<T>(inputs, inputs, 3);
  const auto bias = bias_of<T>(outputs, 4), short_bias = bias_of<T>(inputs, 5);
  for (const Index rows : {1, 3, 60}) {
    const auto x = random_matrix<RowMatrix<T>>(rows, inputs, 6);
    RowMatrix<T> y(rows, outputs), same(rows, inputs);
    const Wide z = product(x, w), rest = product(x, r);
    Projection<L>(L(w)).apply(this->backend(), x, y);
    expect_near(y, z);
    Projection<L, Gelu, L>(L(w), L(r), bias).apply(this->backend(), x, y);
    Wide wanted(rows, outputs);
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < outputs; ++j)
        wanted(i, j) = gelu(z(i, j) + static_cast<long double>(bias[static_cast<std::size_t>(j)])) +
                       rest(i, j);
    expect_near(y, wanted);
    Projection<L, Identity, SameRows>(L(square), {}, short_bias).apply(this->backend(), x, same);
    Wide added = product(x, square);
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < inputs; ++j)
        added(i, j) += static_cast<long double>(short_bias[static_cast<std::size_t>(j)]) +
                       static_cast<long double>(x(i, j));
    expect_near(same, added);
    // A bias alone.
    Projection<L>(L(w), {}, bias).apply(this->backend(), x, y);
    for (Index j = 0; j < outputs; ++j)
      wanted.col(j) =
          z.col(j).array() + static_cast<long double>(bias[static_cast<std::size_t>(j)]);
    expect_near(y, wanted);
  }
}

TYPED_TEST(ProjectionTest, GatesTheValue) {
  using T = typename TypeParam::scalar;
  using L = DenseLinear<T>;
  const Index inputs = 33, outputs = 41, rows = 5;
  const auto g = weight<T>(outputs, inputs, 1), v = weight<T>(outputs, inputs, 2),
             r = weight<T>(outputs, inputs, 3);
  const auto b = bias_of<T>(outputs, 4), c = bias_of<T>(outputs, 5);
  const auto x = random_matrix<RowMatrix<T>>(rows, inputs, 6);
  const Wide gate = product(x, g), value = product(x, v), rest = product(x, r);
  RowMatrix<T> y(rows, outputs);
  Wide wanted(rows, outputs);
  GatedProjection<L>(L(g), L(v)).apply(this->backend(), x, y);
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < outputs; ++j) wanted(i, j) = sigmoid(gate(i, j)) * value(i, j);
  expect_near(y, wanted);
  GatedProjection<L, Silu, L>(L(g), L(v), L(r), b, c).apply(this->backend(), x, y);
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < outputs; ++j) {
      const auto at = static_cast<std::size_t>(j);
      const long double z = gate(i, j) + static_cast<long double>(b[at]);
      wanted(i, j) = z * sigmoid(z) * (value(i, j) + static_cast<long double>(c[at])) + rest(i, j);
    }
  expect_near(y, wanted);
  // A gate of 0 lets half of the value pass.
  const RowMatrix<T> none = RowMatrix<T>::Zero(outputs, inputs);
  RowMatrix<T> half(rows, outputs), whole(rows, outputs);
  GatedProjection<L>(L(none), L(v)).apply(this->backend(), x, half);
  L(v).apply(this->backend(), x, whole);
  EXPECT_TRUE(equal_bits(half, RowMatrix<T>(whole * T(0.5))));
}

/// Matrices that are stored by columns give the bits of those by rows.
TYPED_TEST(ProjectionTest, TakesMatricesOfEitherOrder) {
  using T = typename TypeParam::scalar;
  using L = DenseLinear<T>;
  using ByColumns = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;
  const auto square = weight<T>(24, 24, 1);
  const auto bias = bias_of<T>(24, 2);
  const auto x = random_matrix<RowMatrix<T>>(9, 24, 3);
  const ByColumns turned = x;
  const Projection<L, Gelu, SameRows> block(L(square), {}, bias);
  const GatedProjection<L, Sigmoid, SameRows> gated{L(square), L(square)};
  RowMatrix<T> y(9, 24);
  ByColumns z(9, 24);
  block.apply(this->backend(), x, y);
  block.apply(this->backend(), turned, z);
  EXPECT_TRUE(equal_bits(y, RowMatrix<T>(z)));
  gated.apply(this->backend(), x, y);
  gated.apply(this->backend(), turned, z);
  EXPECT_TRUE(equal_bits(y, RowMatrix<T>(z)));
}

/// Rows of x and of y that lie in wider tables, each of a width of its own.
TYPED_TEST(ProjectionTest, TakesRowsOfAnyDistance) {
  using T = typename TypeParam::scalar;
  using L = DenseLinear<T>;
  using Table = RowMatrix<T>;
  const auto square = weight<T>(24, 24, 1);
  const Table x = random_matrix<Table>(9, 24, 3), none = Table::Constant(9, 40, std::nan(""));
  Table from = none, to = Table::Zero(9, 31), y(9, 24);
  from.leftCols(24) = x;
  const auto expect = [&](const auto& block) {
    block.apply(this->backend(), x, y);
    block.apply(this->backend(), from.leftCols(24), to.middleCols(3, 24));
    EXPECT_TRUE(equal_bits(y, Table(to.middleCols(3, 24))));
    to.middleCols(3, 24).setZero();
    EXPECT_TRUE((to.array() == T(0)).all());
  };
  expect(Projection<L, Gelu, SameRows>(L(square), {}, bias_of<T>(24, 2)));
  expect(Projection<L, Gelu, L>(L(square), L(square)));
  expect(GatedProjection<L, Sigmoid, SameRows>{L(square), L(square)});
}

TYPED_TEST(ProjectionTest, AHeadChainsBlocksAndNormalises) {
  using T = typename TypeParam::scalar;
  using L = DenseLinear<T>;
  const auto up = weight<T>(96, 48, 1), residual = weight<T>(96, 48, 2), mid = weight<T>(48, 96, 3),
             down = weight<T>(16, 48, 4);
  const auto head = projection_head(Projection<L, Identity, L>(L(up), L(residual)),
                                    Projection<L, Gelu>(L(mid)), L(down));
  EXPECT_EQ(head.inputs(), 48);
  EXPECT_EQ(head.outputs(), 16);
  RowMatrix<T> x = random_matrix<RowMatrix<T>>(7, 48, 5);
  x.row(2).setZero();
  x.row(3) *= T(1e-30);
  x.row(4) *= T(1e15);
  RowMatrix<T> z(7, 16), y(7, 16);
  head.project(this->backend(), x, z);
  Wide wanted(7, 16);
  {
    const RowMatrix<T> sum = up + residual;
    Wide first = product(x, up) + product(x, residual);
    Wide second(7, 48);
    for (Index i = 0; i < 7; ++i)
      for (Index j = 0; j < 48; ++j) {
        long double value = 0;
        for (Index k = 0; k < 96; ++k) value += first(i, k) * static_cast<long double>(mid(j, k));
        second(i, j) = gelu(value);
      }
    wanted = second * down.template cast<long double>().transpose();
  }
  head.apply(this->backend(), x, y);
  for (const Index i : {0, 1, 5, 6}) {
    expect_near(RowMatrix<T>(z.row(i)), Wide(wanted.row(i)));
    expect_near(RowMatrix<T>(y.row(i)), Wide(wanted.row(i) / wanted.row(i).norm()));
    EXPECT_NEAR(static_cast<double>(y.row(i).norm()), 1,
                8 * static_cast<double>(std::numeric_limits<T>::epsilon()));
  }
  EXPECT_TRUE((y.row(2).array() == T(0)).all());
  EXPECT_LT(static_cast<double>(y.row(3).norm()), 1e-15);
  EXPECT_NEAR(static_cast<double>(y.row(4).norm()), 1,
              8 * static_cast<double>(std::numeric_limits<T>::epsilon()));
}

/// W = 0 with a residual is the identity, and a head of one plain layer is that layer.
TEST(ProjectionHead, Identities) {
  using L = DenseLinear<float>;
  const RowMatrix<float> none = RowMatrix<float>::Zero(20, 20);
  const auto w = weight<float>(12, 20, 1);
  const auto x = random_matrix<RowMatrix<float>>(6, 20, 2);
  RowMatrix<float> y(6, 20);
  Projection<L, Gelu, SameRows>(L(none)).apply(x, y);
  EXPECT_TRUE(equal_bits(y, x));
  RowMatrix<float> plain(6, 12), headed(6, 12);
  L(w).apply(x, plain);
  projection_head(Projection<L>(L(w))).project(x, headed);
  EXPECT_TRUE(equal_bits(headed, plain));
}

TEST(ProjectionHead, SameBitsForAnyThreadsAndPartsOfRows) {
  using L = DenseLinear<float>;
  const auto up = weight<float>(40, 24, 1), down = weight<float>(8, 40, 2);
  const auto head = projection_head(Projection<L, Silu>(L(up)), Projection<L>(L(down)));
  const auto x = random_matrix<RowMatrix<float>>(4100, 24, 3);
  RowMatrix<float> y(4100, 8), other(4100, 8), some(600, 8);
  head.apply(x, y);
  head.apply(pare::simd.threads(3), x, other);
  EXPECT_TRUE(equal_bits(y, other));
  head.apply(RowMatrix<float>(x.topRows(600)), some);
  EXPECT_TRUE(equal_bits(some, RowMatrix<float>(y.topRows(600))));
  // Three parts, each on its own and over the bounds between them.
  for (const Index begin : {1000, 1366, 2000, 2733, 3500}) {
    head.apply(RowMatrix<float>(x.middleRows(begin, 600)), some);
    EXPECT_TRUE(equal_bits(some, RowMatrix<float>(y.middleRows(begin, 600)))) << begin;
  }
}

TEST(ProjectionHead, ANanStaysInItsRow) {
  using L = DenseLinear<float>;
  const auto w = weight<float>(8, 24, 1);
  const auto head = projection_head(Projection<L, Silu>(L(w)));
  RowMatrix<float> x = random_matrix<RowMatrix<float>>(5, 24, 3);
  x(3, 7) = std::numeric_limits<float>::quiet_NaN();
  RowMatrix<float> y(5, 8);
  head.apply(x, y);
  EXPECT_TRUE(y.row(3).array().isNaN().all());
  y.row(3).setZero();
  EXPECT_FALSE(y.array().isNaN().any());
}

TEST(ProjectionHead, AllocatesNothingOnceItsWorkspaceHasGrown) {
  using L = DenseLinear<float>;
  const auto up = weight<float>(40, 24, 1), square = weight<float>(40, 40, 2);
  const auto head = projection_head(Projection<L, Silu, L>(L(up), L(up)),
                                    GatedProjection<L, Sigmoid, SameRows>(L(square), L(square)));
  const auto x = random_matrix<RowMatrix<float>>(30, 24, 3);
  RowMatrix<float> y(30, 40);
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  head.apply(backend, x, y);
  const long before = pare::testing::allocations;
  head.apply(backend, x, y);
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

/// A layer of any number of outputs.
struct ManyOutputs {
  Index count;
  Index inputs() const { return 4; }
  Index outputs() const { return count; }
  template <class B>
  void apply(const B&, pare::TensorView<const float, 2>, pare::TensorView<float, 2>) const {}
};

TEST(ProjectionHead, RefusesBlocksOfMoreOutputsThanMemoryHas) {
  for (const Index count : {Index{1} << 61, Index{1} << 51, Index{-1}})
    refusal([&] { projection_head(ManyOutputs{count}); }, "retrieval::ProjectionHead", "blocks");
}

/// What y must be apart from, a block's or the head's own, and what lies there.
TEST(ProjectionHead, RefusesOutputsOverItsOwnMemory) {
  using L = DenseLinear<float>;
  const auto w = weight<float>(12, 20, 1);
  const RowMatrix<float> x = RowMatrix<float>::Ones(1, 20);
  const auto refuse = [&](const auto& block, const char* function, auto view) {
    const pare::TensorView<float, 2> y{const_cast<float*>(view.data), {1, 12}, {12, 1}};
    const std::vector<float> before(view.data, view.data + 12);
    EXPECT_NE(refusal([&] { block.apply(x, y); }, std::string("retrieval::") + function, "y")
                  .find("a weight"),
              std::string::npos);
    EXPECT_EQ(before, std::vector<float>(view.data, view.data + 12));
  };
  const auto each_memory = [&](const auto& block, const char* function, int wanted) {
    int seen = 0;
    block.each_memory([&](const auto& view) {
      refuse(block, function, view);
      ++seen;
    });
    EXPECT_EQ(seen, wanted);
  };
  const GatedProjection<L> gated{L(w), L(w), {}, bias_of<float>(12, 2), bias_of<float>(12, 3)};
  each_memory(gated, "GatedProjection::apply", 2);
  each_memory(projection_head(L(w)), "ProjectionHead::apply", 1);
  const RowMatrix<float> residual = weight<float>(12, 20, 4);
  const pare::TensorView<const float, 2> viewed{residual.data(), {12, 20}, {20, 1}};
  refuse(Projection<L, Identity, L>(L(w), L(viewed)), "Projection::apply", viewed);
  refuse(GatedProjection<L, Sigmoid, L>(L(w), L(w), L(viewed)), "GatedProjection::apply", viewed);
}

TEST(ProjectionHead, RefusesWhatDoesNotFit) {
  using L = DenseLinear<float>;
  const auto w = weight<float>(12, 20, 1), other = weight<float>(13, 20, 2);
  const std::vector<float> bias(11);
  const auto says = [](const auto& f, const char* function, const char* argument,
                       const char* wanted) {
    EXPECT_NE(refusal(f, std::string("retrieval::") + function, argument).find(wanted),
              std::string::npos)
        << function << ' ' << argument;
  };
  says([&] { Projection<L>(L(w), {}, bias); }, "Projection", "bias",
       "got 11, wanted none, or one for each of the outputs, 12");
  says([&] { Projection<L, Gelu, SameRows>{L(w)}; }, "Projection", "residual",
       "got [12, 20], wanted as many outputs as inputs, or a residual layer");
  says([&] { Projection<L, Gelu, L>(L(w), L(other)); }, "Projection", "residual",
       "got [13, 20], wanted [12, 20]");
  says([&] { GatedProjection<L>(L(w), L(other)); }, "GatedProjection", "gate",
       "got [12, 20], wanted [13, 20]");
  says([&] { GatedProjection<L>(L(w), L(w), {}, bias); }, "GatedProjection", "gate_bias",
       "got 11, wanted none, or one for each of the outputs, 12");
  says([&] { GatedProjection<L>(L(w), L(w), {}, {}, bias); }, "GatedProjection", "value_bias",
       "got 11, wanted none, or one for each of the outputs, 12");
  says([&] { GatedProjection<L, Sigmoid, L>(L(w), L(w), L(other)); }, "GatedProjection", "residual",
       "got [13, 20], wanted [12, 20]");
  says([&] { projection_head(Projection<L>(L(w)), L(other)); }, "ProjectionHead", "blocks",
       "got 20, wanted inputs as many as the block before it has outputs, 12");
  const auto head = projection_head(Projection<L>(L(w)));
  const RowMatrix<float> x = RowMatrix<float>::Ones(3, 20), narrow = RowMatrix<float>::Ones(3, 19);
  RowMatrix<float> y = RowMatrix<float>::Constant(3, 12, 7), few(2, 12);
  refuses_and_leaves_alone([&] { head.apply(narrow, y); }, "retrieval::ProjectionHead::apply", "x",
                           y);
  refuses_and_leaves_alone([&] { head.project(x, few); }, "retrieval::ProjectionHead::project", "y",
                           few);
  // y over a weight, over x, and over a bias.
  RowMatrix<float> memory = RowMatrix<float>::Ones(40, 20);
  const auto rows = [&](Index at, Index count, Index columns) {
    return pare::TensorView<float, 2>{memory.data() + at, {count, columns}, {columns, 1}};
  };
  const auto over = projection_head(L(pare::as_const(rows(0, 12, 20))));
  refuses_and_leaves_alone([&] { over.apply(x, rows(30, 3, 12)); },
                           "retrieval::ProjectionHead::apply", "y", memory);
  refuses_and_leaves_alone([&] { over.apply(pare::as_const(rows(300, 3, 20)), rows(310, 3, 12)); },
                           "retrieval::ProjectionHead::apply", "y", memory);
  const Projection<L> biased(L(w), {}, std::vector<float>(12));
  const pare::TensorView<float, 2> inside{
      const_cast<float*>(biased.bias().data()), {1, 12}, {12, 1}};
  says([&] { biased.apply(RowMatrix<float>(x.topRows(1)), inside); }, "Projection::apply", "y",
       "a weight");
  RowMatrix<float> none(0, 12);
  head.apply(RowMatrix<float>(0, 20), none);
}

}  // namespace
}  // namespace retrieval_projection_head_test
