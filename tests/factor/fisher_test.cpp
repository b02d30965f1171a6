// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

#include <pare/factor/fisher.hpp>
#include <pare/factor/weighted_svd.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace factor_fisher_test {
namespace {

using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::TensorView;
using pare::factor::Axis;
using pare::factor::fisher_diagonal;
using pare::factor::FisherDiagonal;
using pare::factor::FisherTerms;

template <class Case>
struct FisherTest : testing::Test {};
TYPED_TEST_SUITE(FisherTest, AccumulatorCases);

/// Normal numbers in storage of either order, with gaps between lines.
template <class S>
class Stored {
 public:
  Stored(Index rows, Index cols, std::uint64_t seed, bool column_major = false)
      : line_((column_major ? rows : cols) + 3),
        values_(static_cast<std::size_t>(line_ * (column_major ? cols : rows))),
        view_{values_.data(),
              {rows, cols},
              column_major ? std::array<Index, 2>{1, line_} : std::array<Index, 2>{line_, 1}} {
    Engine random(seed);
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < cols; ++j)
        view_(i, j) = static_cast<S>(static_cast<pare::compute_t<S>>(normal(random)));
  }
  Stored(const Stored&) = delete;
  Stored& operator=(const Stored&) = delete;

  TensorView<S, 2> writable() { return view_; }
  TensorView<const S, 2> view() const { return view_; }
  MatrixXd exact() const {
    MatrixXd m(view_.rows(), view_.cols());
    for (Index i = 0; i < m.rows(); ++i)
      for (Index j = 0; j < m.cols(); ++j)
        m(i, j) = static_cast<double>(static_cast<pare::compute_t<S>>(view_(i, j)));
    return m;
  }

 private:
  Index line_;
  std::vector<S> values_;
  TensorView<S, 2> view_;
};

/// What fisher.hpp promises of a sum that is `size` large: at most 256 squares added in T before
/// double, and the few operations of a square, a weight and the ends of a register.
template <class T>
double sum_bound(double size) {
  return Tolerance<T>::gamma(300) * size;
}

/// |got - squares / count| within the rounding of sums and what the squares are off by themselves.
template <class T>
void expect_fisher(const FisherDiagonal& fisher, const MatrixXd& squares, const MatrixXd& errors) {
  const auto count = static_cast<double>(fisher.count());
  for (const Axis axis : {Axis::Output, Axis::Input}) {
    MatrixXd s = squares, e = errors;
    if (axis == Axis::Input) {
      s.transposeInPlace();
      e.transposeInPlace();
    }
    const VectorXd got = fisher.sums(axis);
    ASSERT_EQ(got.size(), s.rows());
    for (Index i = 0; i < got.size(); ++i) {
      const double bound = sum_bound<T>(s.row(i).sum() + e.row(i).sum()) + e.row(i).sum();
      ASSERT_TRUE(within(got[i], s.row(i).sum() / count, bound / count))
          << (axis == Axis::Output ? "output " : "input ") << i;
    }
  }
  if (fisher.terms() == FisherTerms::Sums) return;
  const auto got = fisher.elements();
  for (Index i = 0; i < squares.rows(); ++i)
    for (Index j = 0; j < squares.cols(); ++j)
      ASSERT_TRUE(within(got(i, j), squares(i, j) / count,
                         (errors(i, j) + Tolerance<double>::gamma(600) * squares(i, j)) / count))
          << i << ' ' << j;
}

struct Shape {
  Index out, in;
};
/// From one element to more than one block of rows and of columns.
constexpr Shape shapes[] = {{1, 1}, {3, 5}, {13, 40}, {70, 140}, {523, 70}, {9, 4200}};

TYPED_TEST(FisherTest, GradientsAreSquaredOneByOne) {
  using S = typename TypeParam::scalar;
  for (const Shape& shape : shapes)
    for (const bool column_major : {false, true})
      for (const FisherTerms terms : {FisherTerms::Sums, FisherTerms::Elements}) {
        FisherDiagonal fisher(shape.out, shape.in, terms);
        MatrixXd squares = MatrixXd::Zero(shape.out, shape.in);
        for (std::uint64_t example = 0; example < 3; ++example) {
          const Stored<S> gradient(shape.out, shape.in, 10 + example, column_major);
          fisher.add_gradient(TypeParam::backend::make(), gradient.view());
          squares += gradient.exact().cwiseAbs2();
        }
        EXPECT_EQ(fisher.count(), 3);
        SCOPED_TRACE(testing::Message() << shape.out << " x " << shape.in << ' ' << column_major);
        expect_fisher<pare::compute_t<S>>(fisher, squares, MatrixXd::Zero(shape.out, shape.in));
      }
}

std::vector<Index> each_token(Index tokens) {
  std::vector<Index> offsets(static_cast<std::size_t>(tokens) + 1);
  std::iota(offsets.begin(), offsets.end(), Index{0});
  return offsets;
}

/// Squares of the gradients of examples, and how far a product in T may take them: with
/// e = gamma(2 tokens + 2) sum_t |delta_t| |x_t|, where native bf16 products round twice a token,
/// (G + e)^2 - G^2 = 2 |G| e + e^2. In double nothing else is off.
template <class T>
struct LayerOracle {
  MatrixXd squares, errors;

  LayerOracle(const MatrixXd& delta, const MatrixXd& x, const std::vector<Index>& offsets)
      : squares(MatrixXd::Zero(delta.cols(), x.cols())), errors(squares) {
    for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
      const Index first = offsets[e], tokens = offsets[e + 1] - first;
      const auto d = delta.middleRows(first, tokens), inputs = x.middleRows(first, tokens);
      const MatrixXd g = d.transpose() * inputs;
      const MatrixXd off = Tolerance<T>::gamma(2.0 * static_cast<double>(tokens) + 2) *
                           (d.cwiseAbs().transpose() * inputs.cwiseAbs());
      squares += g.cwiseAbs2();
      errors += 2 * g.cwiseAbs().cwiseProduct(off) + off.cwiseAbs2();
    }
  }
};

TYPED_TEST(FisherTest, SingleTokensAreTheClosedForm) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  for (const bool column_major : {false, true})
    for (const FisherTerms terms : {FisherTerms::Sums, FisherTerms::Elements}) {
      const Stored<S> delta(301, 11, 1, column_major), x(301, 37, 2);
      FisherDiagonal fisher(11, 37, terms), one_by_one(11, 37, terms);
      fisher.add_layer(TypeParam::backend::make(), delta.view(), x.view(), each_token(301));
      const MatrixXd squares = delta.exact().cwiseAbs2().transpose() * x.exact().cwiseAbs2();
      EXPECT_EQ(fisher.count(), 301);
      expect_fisher<T>(fisher, squares, MatrixXd::Zero(11, 37));
      one_by_one.add_tokens(TypeParam::backend::make(), delta.view(), x.view());
      EXPECT_EQ(one_by_one.count(), 301);
      EXPECT_TRUE(equal_bits(one_by_one.sums(Axis::Output), fisher.sums(Axis::Output)));
      EXPECT_TRUE(equal_bits(one_by_one.sums(Axis::Input), fisher.sums(Axis::Input)));
    }
}

TYPED_TEST(FisherTest, SequencesAreTheirGradients) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  // Runs of single tokens, no token, a long example; a layer of more than one tile a side.
  const std::vector<Index> mixed{0, 1, 2, 2, 9, 10, 11, 40, 40, 41};
  for (const Shape& shape : {Shape{7, 11}, Shape{200, 530}})
    for (const bool column_major : {false, true})
      for (const FisherTerms terms : {FisherTerms::Sums, FisherTerms::Elements}) {
        const Stored<S> delta(41, shape.out, 3), x(41, shape.in, 4, column_major);
        const LayerOracle<T> oracle(delta.exact(), x.exact(), mixed);
        FisherDiagonal fisher(shape.out, shape.in, terms);
        fisher.add_layer(TypeParam::backend::make(), delta.view(), x.view(), mixed);
        EXPECT_EQ(fisher.count(), 9);
        SCOPED_TRACE(testing::Message() << shape.out << " x " << shape.in << ' ' << column_major);
        expect_fisher<T>(fisher, oracle.squares, oracle.errors);
      }
}

TYPED_TEST(FisherTest, OrderAndGroupingDoNotMatter) {
  using S = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  constexpr FisherTerms all = FisherTerms::Elements;
  FisherDiagonal forward(20, 31, all), backward(20, 31, all),
      parts[2]{{20, 31, all}, {20, 31, all}};
  constexpr std::uint64_t examples = 24;
  for (std::uint64_t e = 0; e < examples; ++e) {
    const Stored<S> gradient(20, 31, e), opposite(20, 31, examples - 1 - e);
    forward.add_gradient(backend, gradient.view());
    backward.add_gradient(backend, opposite.view());
    parts[e % 2].add_gradient(backend, gradient.view());
  }
  parts[0].merge(parts[1]);
  EXPECT_EQ(parts[0].count(), forward.count());
  for (const Axis axis : {Axis::Output, Axis::Input}) {
    const VectorXd sums = forward.sums(axis);
    for (const VectorXd& other : {backward.sums(axis), parts[0].sums(axis)})
      EXPECT_LE(((other - sums).array() / sums.array()).abs().maxCoeff(), 1e-12);
  }
  const pare::RowMatrix<double> elements = forward.elements();
  for (const auto& other : {backward.elements(), parts[0].elements()})
    EXPECT_LE((other - elements).cwiseAbs().maxCoeff(), 1e-12 * elements.maxCoeff());
}

template <class S, class B>
FisherDiagonal all_kinds(const B& backend, FisherTerms terms) {
  constexpr Index out = 600, in = 530;
  FisherDiagonal fisher(out, in, terms);
  const Stored<S> rows(out, in, 1), columns(out, in, 2, true), delta(40, out, 3), x(40, in, 4);
  fisher.add_gradient(backend, rows.view());
  fisher.add_gradient(backend, columns.view());
  fisher.add_tokens(backend, delta.view(), x.view());
  fisher.add_layer(backend, delta.view(), x.view(), std::vector<Index>{0, 17, 18, 40});
  return fisher;
}

template <class S>
struct FisherBitsTest : testing::Test {};
using BitsScalars = testing::Types<float, double, pare::bf16>;
TYPED_TEST_SUITE(FisherBitsTest, BitsScalars);

TYPED_TEST(FisherBitsTest, DoNotDependOnTheExecutor) {
  for (const FisherTerms terms : {FisherTerms::Sums, FisherTerms::Elements}) {
    const FisherDiagonal alone = all_kinds<TypeParam>(pare::simd, terms);
    const auto expect_same = [&](const FisherDiagonal& other) {
      EXPECT_TRUE(equal_bits(alone.sums(Axis::Output), other.sums(Axis::Output)));
      EXPECT_TRUE(equal_bits(alone.sums(Axis::Input), other.sums(Axis::Input)));
      if (terms == FisherTerms::Elements) {
        EXPECT_TRUE(equal_bits(alone.elements(), other.elements()));
      }
    };
    expect_same(all_kinds<TypeParam>(pare::simd.threads(3), terms));
    expect_same(all_kinds<TypeParam>(pare::simd.on(ReversePool{5}), terms));
  }
}

TEST(FisherDiagonal, MixedStoragesOfALayer) {
  const Stored<float> delta(6, 4, 1);
  const Stored<pare::bf16> x(6, 9, 2);
  const std::vector<Index> offsets{0, 1, 6};
  const LayerOracle<float> oracle(delta.exact(), x.exact(), offsets);
  FisherDiagonal fisher(4, 9, FisherTerms::Elements);
  fisher.add_layer(delta.view(), x.view(), offsets);
  expect_fisher<float>(fisher, oracle.squares, oracle.errors);
}

TEST(FisherDiagonal, TakesEigenObjectsAndRanges) {
  const std::vector<Eigen::MatrixXf> gradients{random_matrix<Eigen::MatrixXf>(5, 7, 1),
                                               random_matrix<Eigen::MatrixXf>(5, 7, 2)};
  const FisherDiagonal range = fisher_diagonal(gradients, FisherTerms::Elements);
  FisherDiagonal single(5, 7, FisherTerms::Elements);
  for (const auto& gradient : gradients) single.add_gradient(gradient);
  EXPECT_EQ(range.count(), 2);
  EXPECT_EQ(range.out(), 5);
  EXPECT_EQ(range.in(), 7);
  EXPECT_TRUE(equal_bits(range.elements(), single.elements()));
  EXPECT_TRUE(equal_bits(range.sums(Axis::Input), single.sums(Axis::Input)));
  refusal([] { fisher_diagonal(std::vector<Eigen::MatrixXf>{}); }, "factor::fisher_diagonal",
          "gradients");
}

TYPED_TEST(FisherTest, ANanReachesTheSumsOfItsRowAndColumnAlone) {
  using S = typename TypeParam::scalar;
  Stored<S> gradient(30, 40, 1);
  gradient.writable()(17, 33) =
      static_cast<S>(std::numeric_limits<pare::compute_t<S>>::quiet_NaN());
  FisherDiagonal fisher(30, 40);
  fisher.add_gradient(TypeParam::backend::make(), gradient.view());
  const VectorXd outputs = fisher.sums(Axis::Output), inputs = fisher.sums(Axis::Input);
  for (Index i = 0; i < 30; ++i) EXPECT_EQ(std::isnan(outputs[i]), i == 17) << i;
  for (Index j = 0; j < 40; ++j) EXPECT_EQ(std::isnan(inputs[j]), j == 33) << j;
}

TEST(FisherDiagonal, WeightsThatAreNotFiniteAreRefusedWhereTheyAreUsed) {
  Eigen::MatrixXf gradient = Eigen::MatrixXf::Ones(4, 5);
  gradient(1, 2) = std::numeric_limits<float>::quiet_NaN();
  FisherDiagonal fisher(4, 5);
  fisher.add_gradient(gradient);
  const Eigen::MatrixXf w = random_matrix<Eigen::MatrixXf>(4, 5, 1);
  refusal([&] { weighted_svd(w, fisher, {.rank = 2}, Axis::Input); }, "factor::weighted_svd",
          "input_weights");
}

TYPED_TEST(FisherTest, BadInputIsRefusedAndAddsNothing) {
  using S = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  const std::string name = "factor::FisherDiagonal", layer = name + "::add_layer";
  refusal([] { FisherDiagonal(0, 3); }, name, "out");
  refusal([] { FisherDiagonal(3, -1); }, name, "in");
  refusal([] { FisherDiagonal(Index{1} << 61, 3); }, name, "out");
  refusal([] { FisherDiagonal(3, Index{1} << 61); }, name, "in");
  for (const int bits : {30, 40})
    refusal([=] { FisherDiagonal(Index{1} << bits, Index{1} << bits, FisherTerms::Elements); },
            name, "extents");
  for (const int none : {-1, 2})
    refusal([=] { FisherDiagonal(2, 2, FisherTerms(none)); }, name, "terms");
  FisherDiagonal fisher(4, 5);
  const Stored<S> wrong(5, 4, 1), delta(6, 4, 2), x(6, 5, 3), fewer(5, 5, 4);
  refusal([&] { fisher.add_gradient(backend, wrong.view()); }, name + "::add_gradient", "gradient");
  auto scattered = Stored<S>(8, 10, 5).view();
  scattered = {x.view().data, {2, 2}, {4, 2}};
  FisherDiagonal small(2, 2);
  refusal([&] { small.add_gradient(backend, scattered); }, name + "::add_gradient", "gradient");
  const auto add = [&](auto d, auto inputs, std::vector<Index> offsets) {
    return
        [&fisher, &backend, d, inputs, offsets] { fisher.add_layer(backend, d, inputs, offsets); };
  };
  refusal(add(x.view(), x.view(), {0, 6}), layer, "delta");
  refusal(add(delta.view(), delta.view(), {0, 6}), layer, "x");
  refusal(add(delta.view(), fewer.view(), {0, 6}), layer, "x");
  for (const std::vector<Index>& offsets : std::vector<std::vector<Index>>{
           {}, {0}, {0, 5}, {0, 7}, {1, 6}, {0, 4, 3, 6}, {0, -1, 6}, {-1, 6}, {0, 9, 6}})
    refusal(add(delta.view(), x.view(), offsets), layer, "example_offsets");
  refusal([&] { fisher.add_tokens(backend, delta.view(), fewer.view()); }, name + "::add_tokens",
          "x");
  auto tokens = delta.view(), inputs = x.view();
  for (const Index rows : {Index{-1}, Index{-5}, std::numeric_limits<Index>::min()}) {
    tokens.extent[0] = inputs.extent[0] = rows;
    refusal([&] { fisher.add_tokens(backend, tokens, inputs); }, name + "::add_tokens", "delta");
    refusal(add(tokens, inputs, {0, rows}), layer, "delta");
  }
  tokens.extent[0] = Index{1} << 40, tokens.stride[0] = 0;
  refusal([&] { fisher.add_tokens(backend, tokens, x.view()); }, name + "::add_tokens", "x");
  EXPECT_EQ(fisher.count(), 0);
  for (const int none : {-1, 2}) refusal([&] { fisher.sums(Axis(none)); }, name + "::sums", "axis");
  refusal([&] { fisher.sums(Axis::Input); }, name + "::sums", "count");
  refusal([&] { fisher.elements(); }, name + "::elements", "terms");
  refusal([] { FisherDiagonal(2, 2, FisherTerms::Elements).elements(); }, name + "::elements",
          "count");
  refusal([&] { fisher.merge(FisherDiagonal(5, 4)); }, name + "::merge", "other");
  refusal([&] { fisher.merge(FisherDiagonal(4, 5, FisherTerms::Elements)); }, name + "::merge",
          "other");
  fisher.add_layer(backend, delta.view(), x.view(), std::vector<Index>{0, 6});
  EXPECT_EQ(fisher.count(), 1);
  EXPECT_TRUE(fisher.sums(Axis::Input).allFinite());
  while (fisher.count() <= std::numeric_limits<Index>::max() / 2) fisher.merge(fisher);
  refusal([&] { fisher.merge(fisher); }, name + "::merge", "count");
}

}  // namespace
}  // namespace factor_fisher_test
