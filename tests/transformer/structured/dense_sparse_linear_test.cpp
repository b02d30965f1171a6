// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/transformer/linear.hpp>
#include <pare/transformer/structured/dense_sparse_linear.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/properties.hpp"
#include "transformer/rows.hpp"

namespace transformer_structured_dense_sparse_linear_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::factor::DenseSparse;
using pare::factor::DenseSparseShape;
using pare::testing::Gapped;
using pare::testing::random_rows;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::testing::Tolerance;
using namespace pare::transformer;

static_assert(Linear<DenseSparseLinear<float>> && Linear<DenseSparseLinear<bf16>>);
static_assert(LinearOf<DenseSparseLinear<double>, double>);

/// Atoms, values and places at random.
template <class S>
DenseSparse<S> random_weight(const DenseSparseShape& shape, std::uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  const auto number = [&] {
    return static_cast<S>(static_cast<float>(random() % 4001) / 2000.0f - 1.0f);
  };
  DenseSparse<S> w(shape);
  const auto atoms = w.own_dictionary();
  for (Index a = 0; a < atoms.rows(); ++a)
    for (Index i = 0; i < atoms.cols(); ++i) atoms(a, i) = number();
  std::vector<Index> all(static_cast<std::size_t>(shape.atoms));
  for (std::size_t a = 0; a < all.size(); ++a) all[a] = static_cast<Index>(a);
  for (Index o = 0; o < shape.outputs; ++o) {
    for (std::size_t a = all.size(); a-- > 1;) std::swap(all[a], all[random() % (a + 1)]);
    std::vector<Index> places(all.begin(), all.begin() + shape.nonzeros);
    std::sort(places.begin(), places.end());
    for (Index k = 0; k < shape.nonzeros; ++k)
      w.set(o, k, places[static_cast<std::size_t>(k)], number());
  }
  return w;
}

/// Each sum of `inputs` products is multiplied once more, and `nonzeros` of them are added.
template <class S>
void expect_products(const DenseSparse<S>& w, const Rows<pare::compute_t<S>>& x,
                     const Rows<pare::compute_t<S>>& y) {
  using T = pare::compute_t<S>;
  const auto wide = [](auto v) { return static_cast<double>(static_cast<T>(v)); };
  for (Index r = 0; r < x.rows(); ++r)
    for (Index o = 0; o < w.outputs(); ++o) {
      double wanted = 0, magnitude = 0;
      for (Index k = 0; k < w.nonzeros(); ++k) {
        const Index atom = o / w.block() * w.atoms() + w.place(o, k);
        for (Index i = 0; i < w.inputs(); ++i) {
          const double term = wide(w.value(o, k)) * wide(w.dictionary()(atom, i)) * wide(x(r, i));
          wanted += term;
          magnitude += std::abs(term);
        }
      }
      const double bound =
          Tolerance<T>::dot(static_cast<double>(w.inputs() + w.nonzeros()) + 1, magnitude);
      ASSERT_TRUE(pare::testing::within(wide(y(r, o)), wanted, bound))
          << "row " << r << " of " << x.rows() << ", output " << o << ": got " << wide(y(r, o))
          << ", wanted " << wanted;
    }
}

/// Blocks that end within a group and within an item; tables of each size that is held, and one
/// that is not; one output, one input, one atom.
const DenseSparseShape shapes[] = {{42, 33, 21, 12, 3},  {160, 48, 80, 65, 40},
                                   {17, 20, 17, 130, 5}, {64, 31, 32, 257, 9},
                                   {1, 1, 1, 1, 1},      {530, 16, 530, 7, 7}};

template <class S>
struct DenseSparseLinearTest : testing::Test {};
using Storages = testing::Types<float, bf16, double>;
TYPED_TEST_SUITE(DenseSparseLinearTest, Storages);

TYPED_TEST(DenseSparseLinearTest, ProductsAreThoseOfTheWeight) {
  using T = pare::compute_t<TypeParam>;
  for (const DenseSparseShape& shape : shapes) {
    const DenseSparseLinear<TypeParam> layer(random_weight<TypeParam>(shape));
    for (const Index rows : {Index{1}, Index{3}, Index{4}, Index{16}, few_rows + 1, Index{70}}) {
      const auto x = random_rows<T>(rows, shape.inputs, 3);
      expect_products(layer.factors(), x, applied(layer, pare::simd, x));
      if (rows < 4) expect_products(layer.factors(), x, applied(layer, pare::reference, x));
    }
  }
}

TYPED_TEST(DenseSparseLinearTest, ThreadsAndTheNumberOfRowsKeepTheBits) {
  using T = pare::compute_t<TypeParam>;
  const DenseSparseLinear<TypeParam> layer(random_weight<TypeParam>({160, 48, 80, 65, 40}));
  for (const Index rows : {Index{1}, Index{5}, Index{70}})
    pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
      return applied(layer, backend, random_rows<T>(rows, 48, 4));
    });
  if (std::is_same_v<T, double>) return;  // whose products of atoms are those of matrices
  const auto all = applied(layer, pare::simd, random_rows<T>(few_rows, 48, 4));
  for (const Index rows : {1, 3, 7, 17}) {
    const auto some = applied(layer, pare::simd, random_rows<T>(rows, 48, 4));
    for (Index r = 0; r < rows; ++r)
      for (Index o = 0; o < 160; ++o) ASSERT_EQ(some(r, o), all(r, o)) << rows << ' ' << r;
  }
}

TYPED_TEST(DenseSparseLinearTest, AnyStridesTheSameBitsAndNothingIsAllocated) {
  using T = pare::compute_t<TypeParam>;
  const DenseSparseLinear<TypeParam> layer(random_weight<TypeParam>({42, 33, 21, 12, 3}));
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  for (const Index rows : {3, 70}) {
    const auto x = random_rows<T>(rows, 33, 5);
    const auto wanted = applied(layer, backend, x);
    const Gapped<T> columns(x), out(random_rows<T>(rows, 42, 6));
    layer.apply(backend, as_const(columns.view()), out.view());
    const auto got = out.rows();
    for (Index r = 0; r < rows; ++r)
      for (Index o = 0; o < 42; ++o) ASSERT_EQ(got(r, o), wanted(r, o)) << r << ' ' << o;
    EXPECT_TRUE(out.gaps_untouched());
    const long before = pare::testing::allocations;
    layer.apply(backend, as_const(columns.view()), out.view());
    EXPECT_EQ(pare::testing::allocations - before, 0) << rows;
  }
}

TYPED_TEST(DenseSparseLinearTest, ANanStaysInItsRow) {
  using T = pare::compute_t<TypeParam>;
  const DenseSparseLinear<TypeParam> layer(random_weight<TypeParam>({42, 33, 21, 12, 3}));
  for (const Index rows : {3, 20}) {
    auto x = random_rows<T>(rows, 33, 7);
    const auto wanted = applied(layer, pare::simd, x);
    x(1, 4) = std::numeric_limits<T>::quiet_NaN();
    const auto got = applied(layer, pare::simd, x);
    for (Index r = 0; r < rows; ++r)
      for (Index o = 0; o < 42; ++o)
        ASSERT_TRUE(r == 1 ? std::isnan(got(r, o)) : got(r, o) == wanted(r, o)) << r << ' ' << o;
  }
}

TEST(DenseSparseLinear, TheScalarKernelsComputeTheSame) {
  for (const DenseSparseShape& shape : shapes) {
    const DenseSparseLinear<bf16> layer(random_weight<bf16>(shape));
    for (const Index rows : {1, 20}) {
      const auto x = random_rows<float>(rows, shape.inputs, 3);
      expect_products(layer.factors(), x, applied(layer, pare::simd_for<pare::arch::scalar>{}, x));
    }
  }
}

TEST(DenseSparseLinear, WhatIsMovedFromHasNoOutputs) {
  DenseSparseLinear<float> from(random_weight<float>({8, 6, 4, 5, 2}));
  const DenseSparseLinear<float> to(std::move(from));
  EXPECT_EQ(to.outputs(), 8);
  EXPECT_EQ(from.outputs() + from.inputs(), 0);  // NOLINT(bugprone-use-after-move): promised
  float none = 7;
  const pare::TensorView<float, 2> empty{&none, {2, 0}, {0, 1}};
  from.apply(pare::simd, as_const(empty), empty);
  from.apply(pare::reference, as_const(empty), empty);
  EXPECT_EQ(none, 7);
}

TEST(DenseSparseLinear, WhatDoesNotFitIsRefused) {
  const DenseSparseLinear<float> layer(random_weight<float>({8, 6, 4, 3, 2}));
  auto x = random_rows<float>(4, 6, 5), y = random_rows<float>(4, 8, 6);
  const auto refused = [&](const auto& from, const auto& to, const char* argument) {
    const char* const function = "transformer::DenseSparseLinear::apply";
    refuses_and_leaves_alone([&] { layer.apply(pare::simd, from, to); }, function, argument, x, y);
    refuses_and_leaves_alone([&] { layer.apply(pare::reference, from, to); }, function, argument, x,
                             y);
  };
  const auto cut = [](Rows<float>& m, Index rows, Index cols) {
    return pare::TensorView<float, 2>{&m(0, 0), {rows, cols}, {m.cols(), 1}};
  };
  refused(as_const(cut(x, 4, 5)), y.view(), "x");
  refused(as_const(x.view()), cut(y, 3, 8), "y");
  refused(as_const(x.view()), cut(y, 4, 7), "y");
  refused(as_const(x.view()), cut(x, 4, 8), "y");
  auto* const atoms = const_cast<float*>(layer.weights().data);
  refused(as_const(x.view()), pare::TensorView<float, 2>{atoms, {4, 8}, {8, 1}}, "y");
  const DenseSparseLinear<float> wide(random_weight<float>({300, 6, 300, 260, 2}));
  const auto over = [&](const DenseSparseLinear<float>& of, const void* memory) {
    const pare::TensorView<float, 2> inside{
        static_cast<float*>(const_cast<void*>(memory)), {1, of.outputs()}, {of.outputs(), 1}};
    const auto row = random_rows<float>(1, 6, 5);
    refuses_and_leaves_alone([&] { of.apply(pare::simd, row.view(), inside); },
                             "transformer::DenseSparseLinear::apply", "y", of.factors().dense());
  };
  over(layer, layer.factors().stored_values().data);
  over(layer, layer.factors().small_places().data);
  over(wide, wide.factors().wide_places().data);
  layer.apply(pare::simd, pare::TensorView<const float, 2>{nullptr, {0, 6}, {6, 1}},
              pare::TensorView<float, 2>{nullptr, {0, 8}, {8, 1}});
}

}  // namespace
}  // namespace transformer_structured_dense_sparse_linear_test
