// SPDX-License-Identifier: Apache-2.0
// A layer with edits beside it against the weight and the edits in double.
#include <gtest/gtest.h>

#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/quantized_linear.hpp>
#include <pare/transformer/structured/edited_linear.hpp>

#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "support/allocations.hpp"
#include "support/properties.hpp"
#include "transformer/rows.hpp"

namespace transformer_structured_edited_linear_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::RowMatrix;
using pare::factor::LinearGate;
using pare::factor::RankOneEdits;
using pare::factor::SigmoidGate;
using pare::testing::Gapped;
using pare::testing::random_rows;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::testing::Tolerance;
using pare::testing::within;
using namespace pare::transformer;

static_assert(Linear<EditedLinear<DenseLinear<bf16>, SigmoidGate>>);
static_assert(Linear<EditedLinear<QuantizedLinear<pare::kernel::Q4_1>, LinearGate>>);
static_assert(LinearOf<EditedLinear<DenseLinear<double>, LinearGate>, double>);
static_assert(Linear<EditedLinear<EditedLinear<DenseLinear<float>, LinearGate>, SigmoidGate>>);

/// A gate of a user's.
struct Square {
  double operator()(double t) const noexcept { return t * t; }
};

template <class T, class Gate>
RankOneEdits<T, Gate> random_edits(Index concepts, Index in, Index out, const Gate& gate) {
  const auto matrix = [&](Index columns, std::uint64_t seed) {
    const auto rows = random_rows<T>(concepts, columns, seed);
    RowMatrix<T> m(concepts, columns);
    for (Index i = 0; i < concepts; ++i)
      for (Index j = 0; j < columns; ++j) m(i, j) = rows(i, j);
    return m;
  };
  return {matrix(in, 21), matrix(out, 22), matrix(out, 23), gate, {}, 0};
}

/// y within what sums of `in` products and the edits' three roundings each may be off; a gate whose
/// slope is at most `slope` passes on the error of its similarity.
template <class S, class E, class T>
void expect_edited(const Rows<S>& w, const E& edits, const Rows<T>& x, const Rows<T>& y,
                   double slope) {
  const auto depth = static_cast<double>(w.cols());
  for (Index r = 0; r < x.rows(); ++r)
    for (Index o = 0; o < w.rows(); ++o) {
      long double wanted = 0, size = 0;
      for (Index i = 0; i < w.cols(); ++i) {
        wanted += w.at(o, i) * x.at(r, i);
        size += std::abs(w.at(o, i) * x.at(r, i));
      }
      double bound = Tolerance<T>::dot(depth, static_cast<double>(size));
      double sum = static_cast<double>(size);
      for (Index c = 0; c < edits.concepts(); ++c) {
        double t = 0, all = 0;
        for (Index i = 0; i < w.cols(); ++i) {
          const double term =
              static_cast<double>(edits.directions(c, i)) * static_cast<double>(x(r, i));
          t += term;
          all += std::abs(term);
        }
        const auto value = static_cast<double>(edits.values(c, o)),
                   removed = static_cast<double>(edits.removed(c, o));
        const double given = edits.gate(t);
        wanted += static_cast<long double>(given * value - t * removed);
        bound += Tolerance<T>::dot(depth, all) * (std::abs(removed) + slope * std::abs(value));
        sum += std::abs(given * value) + std::abs(t * removed);
      }
      bound += Tolerance<T>::dot(2 * static_cast<double>(edits.concepts()) + 2, sum);
      ASSERT_TRUE(within(static_cast<double>(y(r, o)), static_cast<double>(wanted), bound))
          << r << ' ' << o << ": got " << y(r, o) << ", wanted " << static_cast<double>(wanted);
    }
}

template <class S, class T, class Gate>
void check_layer(const Gate& gate, double slope) {
  for (const auto& [out, in] : {std::pair<Index, Index>{1, 1}, {70, 33}, {67, 599}}) {
    const auto w = random_rows<S>(out, in, 1);
    for (const Index concepts : {1, 3}) {
      const auto edits = random_edits<T>(concepts, in, out, gate);
      const EditedLinear layer(DenseLinear<S>(w.view()), edits);
      for (const Index rows : {Index{1}, Index{5}, few_rows + 1}) {
        const auto x = random_rows<T>(rows, in, 3, 0.1);
        expect_edited(w, edits, x, applied(layer, pare::simd, x), slope);
        if (rows < 6) expect_edited(w, edits, x, applied(layer, pare::reference, x), slope);
        const Gapped<T> columns(x);
        Rows<T> y(rows, out);
        const Gapped<T> to(y);
        layer.apply(pare::simd.threads(2), as_const(columns.view()), to.view());
        expect_edited(w, edits, x, to.rows(), slope);
        EXPECT_TRUE(to.gaps_untouched());
      }
    }
  }
}

TEST(EditedLinear, AddsWhatItsEditsChange) {
  check_layer<float, float>(LinearGate{}, 1);
  check_layer<bf16, float>(SigmoidGate{.beta = 0.3, .tau = 0.5}, 0.5);  // slope 1 / (4 tau)
  check_layer<double, double>(Square{}, 40);  // |t| up to 20 of 599 products below .1
}

TEST(EditedLinear, GivesTheValueOfItsKey) {
  const Index in = 24, out = 11;
  const auto w = random_rows<float>(out, in, 1), keys = random_rows<float>(2, in, 2),
             values = random_rows<float>(2, out, 3);
  const auto inputs = random_rows<double>(200, in, 4);
  pare::factor::Covariance covariance(in);
  covariance.add(inputs.view());
  const EditedLinear layer(
      DenseLinear<float>(w.view()),
      pare::factor::rome_edits(w.view(), pare::factor::InverseMoment(covariance), keys.view(),
                               values.view()));
  const auto y = applied(layer, pare::simd, keys);
  for (Index c = 0; c < 2; ++c)
    for (Index o = 0; o < out; ++o) EXPECT_NEAR(y(c, o), values(c, o), 1e-4f) << c << ' ' << o;
}

TEST(EditedLinear, ThreadsRowsAndStridesKeepTheBits) {
  const auto w = random_rows<float>(203, 96, 1);
  const EditedLinear layer(DenseLinear<float>(w.view()),
                           random_edits<float>(2, 96, 203, SigmoidGate{}));
  for (const Index rows : {Index{1}, Index{5}, Index{400}})
    pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
      return applied(layer, backend, random_rows<float>(rows, 96, 4));
    });
  const auto x = random_rows<float>(few_rows, 96, 4);
  const auto all = applied(layer, pare::simd, x),
             one = applied(layer, pare::simd, random_rows<float>(1, 96, 4));
  for (Index o = 0; o < 203; ++o) ASSERT_EQ(one(0, o), all(0, o));
  Rows<float> y(few_rows, 203);
  const Gapped<float> columns(x), to(y);
  layer.apply(pare::simd, as_const(columns.view()), to.view());
  const auto strided = to.rows();
  for (Index r = 0; r < few_rows; ++r)
    for (Index o = 0; o < 203; ++o) ASSERT_EQ(strided(r, o), all(r, o)) << r << ' ' << o;
}

TEST(EditedLinear, NaNStaysInItsRow) {
  const auto w = random_rows<float>(20, 17, 1);
  const EditedLinear layer(DenseLinear<float>(w.view()),
                           random_edits<float>(2, 17, 20, SigmoidGate{}));
  auto x = random_rows<float>(3, 17, 4);
  x(1, 5) = std::numeric_limits<float>::quiet_NaN();
  const auto y = applied(layer, pare::simd, x);
  for (Index r = 0; r < 3; ++r)
    for (Index o = 0; o < 20; ++o) ASSERT_EQ(std::isnan(y(r, o)), r == 1) << r << ' ' << o;
}

TEST(EditedLinear, AWorkspaceSparesAllAllocations) {
  const auto w = random_rows<bf16>(130, 64, 1);
  const EditedLinear layer(DenseLinear<bf16>(w.view()),
                           random_edits<float>(2, 64, 130, SigmoidGate{}));
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  for (const Index rows : {1, 64}) {
    const auto x = random_rows<float>(rows, 64, 5);
    Rows<float> y(rows, 130);
    const Gapped<float> columns(x);
    const auto calls = [&] {
      layer.apply(backend, x.view(), y.view());
      layer.apply(backend, as_const(columns.view()), y.view());
    };
    calls();
    const long before = pare::testing::allocations;
    calls();
    EXPECT_EQ(pare::testing::allocations - before, 0) << rows;
  }
}

TEST(EditedLinear, WhatDoesNotFitIsRefused) {
  auto w = random_rows<float>(8, 16, 1), x = random_rows<float>(4, 16, 5),
       y = random_rows<float>(4, 8, 6);
  const auto edits = random_edits<float>(2, 16, 8, LinearGate{});
  const auto refused = [&](const auto& changed, const char* argument) {
    refusal([&] { EditedLinear(DenseLinear<float>(as_const(w.view())), changed); },
            "transformer::EditedLinear", argument);
  };
  refused(random_edits<float>(2, 15, 8, LinearGate{}), "edits");
  refused(random_edits<float>(2, 16, 9, LinearGate{}), "edits");
  auto changed = edits;
  changed.removed.conservativeResize(1, 8);
  refused(changed, "edits.removed");
  changed = edits;
  changed.values.conservativeResize(3, 8);
  refused(changed, "edits.values");
  const EditedLinear layer(DenseLinear<float>(as_const(w.view())), edits);
  constexpr const char* apply = "transformer::EditedLinear::apply";
  const auto leaves = [&](const auto& from, const auto& to, const char* argument) {
    refuses_and_leaves_alone([&] { layer.apply(pare::simd, from, to); }, apply, argument, x, y);
  };
  leaves(as_const(y.view()), y.view(), "x");
  leaves(as_const(x.view()), rows_of(y.view(), 0, 3), "y");
  const auto over = [](const float* at) {
    return pare::TensorView<float, 2>{const_cast<float*>(at), {4, 8}, {0, 1}};
  };
  leaves(as_const(x.view()), over(&y(0, 0)), "y");
  for (const RowMatrix<float>* m : {&layer.edits().directions, &layer.edits().values}) {
    const pare::TensorView<float, 2> inside{const_cast<float*>(m->data()), {1, 8}, {8, 1}};
    leaves(as_const(rows_of(x.view(), 0, 1)), inside, "y");
  }
  const pare::TensorView<float, 2> inside{&w(0, 0), {4, 8}, {8, 1}};
  refuses_and_leaves_alone([&] { layer.apply(pare::simd, x.view(), inside); }, apply, "y", w);
  layer.apply(pare::simd, pare::TensorView<const float, 2>{nullptr, {0, 16}, {16, 1}},
              pare::TensorView<float, 2>{nullptr, {0, 8}, {8, 1}});
}

}  // namespace
}  // namespace transformer_structured_edited_linear_test
