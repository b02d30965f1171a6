// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/sequence/dense_scan.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "sequence/models.hpp"
#include "support/properties.hpp"

namespace sequence_dense_scan_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::testing::Model;
using pare::testing::random_model;
using pare::testing::Recurrence;
using pare::testing::sequences;
using pare::testing::Tolerance;
using pare::testing::uniform_rows;
using namespace pare::sequence;
using Matrix = RowMatrix<double>;

template <class Case>
struct DenseScanTest : testing::Test {};
TYPED_TEST_SUITE(DenseScanTest, pare::testing::BackendsAndScalars);

/// A step is a sum of states + in products; a power of A has at most 33 of them before it.
TYPED_TEST(DenseScanTest, IsTheRecurrence) {
  using T = typename TypeParam::scalar;
  struct Size {
    Index batch, tokens, states, in, out;
  };
  for (const Size s : {Size{2, 150, 5, 3, 4}, Size{40, 70, 4, 2, 1}, Size{3, 1, 17, 8, 8},
                       Size{1, 64, 1, 1, 1}, Size{1, 97, 16, 1, 2}}) {
    const Model<T> m = random_model<T>(s.states, s.in, s.out);
    RowMatrix<T> x = uniform_rows<T>(s.batch * s.tokens, s.in, 4);
    const RowMatrix<T> before = uniform_rows<T>(s.batch, s.states, 5);
    RowMatrix<T> state = before, y(x.rows(), s.out);
    dense_scan(TypeParam::backend::make(), m.a, m.b, m.c, sequences(x, s.batch), state,
               sequences(y, s.batch));
    for (Index i = 0; i < s.batch; ++i) {
      const Recurrence<T> oracle(m, x, before, i);
      for (Index t = 0; t < s.tokens; ++t)
        for (Index o = 0; o < s.out; ++o) {
          const auto at = static_cast<std::size_t>(t), row = static_cast<std::size_t>(o);
          const double terms = static_cast<double>((t + 36) * (s.states + s.in + 2) + s.states);
          ASSERT_TRUE(pare::testing::within(
              static_cast<double>(y(i * s.tokens + t, o)), static_cast<double>(oracle.y[at][row]),
              Tolerance<T>::gamma(terms) * static_cast<double>(oracle.magnitude[at][row])))
              << i << ' ' << t << ' ' << o << " of " << s.batch << ' ' << s.tokens;
        }
      for (Index n = 0; n < s.states; ++n) {
        const auto at = static_cast<std::size_t>(n);
        ASSERT_TRUE(pare::testing::within(
            static_cast<double>(state(i, n)), static_cast<double>(oracle.h[at]),
            Tolerance<T>::gamma(static_cast<double>((s.tokens + 36) * (s.states + s.in + 2))) *
                static_cast<double>(oracle.size[at])));
      }
    }
  }
}

TEST(DenseScan, AnyThreadsAndOrderHaveTheSameBits) {
  const Model<float> m = random_model<float>(12, 3, 5);
  const Eigen::MatrixXf a = m.a, b = m.b, c = m.c;  // by columns
  RowMatrix<float> x = uniform_rows<float>(400, 3, 4);
  const auto run = [&](const auto& backend, const auto&... model) {
    RowMatrix<float> state = uniform_rows<float>(2, 12, 5), y(400, 5);
    dense_scan(backend, model..., sequences(x, 2), state, sequences(y, 2));
    return y;
  };
  pare::testing::same_bits_for_any_threads(
      pare::simd, [&](const auto& backend) { return run(backend, m.a, m.b, m.c); });
  EXPECT_TRUE(run(pare::simd, m.a, m.b, m.c) == run(pare::simd, a, b, c));
}

TEST(DenseScan, WhatDoesNotFitIsRefused) {
  constexpr const char* f = "sequence::dense_scan";
  const Model<double> m = random_model<double>(4, 2, 3);
  Matrix x = uniform_rows<double>(10, 2, 1), y = uniform_rows<double>(10, 3, 2);
  Matrix state = uniform_rows<double>(2, 4, 3), none(0, 0), other(10, 4);
  const auto refused = [&](const Matrix& a, const Matrix& b, const Matrix& c, Matrix& from,
                           Matrix& h, Matrix& to, const char* argument) {
    pare::testing::refuses_and_leaves_alone(
        [&] { dense_scan(pare::reference, a, b, c, sequences(from, 2), h, sequences(to, 2)); }, f,
        argument, y, state);
  };
  refused(none, m.b, m.c, x, state, y, "a");
  refused(m.b, m.b, m.c, x, state, y, "a");
  refused(m.a, m.c, m.c, x, state, y, "b");
  refused(m.a, m.b, m.b, x, state, y, "c");
  refused(m.a, m.b, m.c, other, state, y, "x");
  refused(m.a, m.b, m.c, x, x, y, "state");
  refused(m.a, m.b, m.c, x, state, other, "y");
  Matrix both = uniform_rows<double>(10, 3, 2);
  const pare::TensorView<double, 2> inside{both.data(), {2, 4}, {15, 1}};
  pare::testing::refuses_and_leaves_alone(
      [&] {
        dense_scan(pare::reference, m.a, m.b, m.c, sequences(x, 2), inside, sequences(both, 2));
      },
      f, "y", both);
  // No token: the state stays.
  const Matrix before = state;
  Matrix nothing(0, 2), empty(0, 3);
  dense_scan(m.a, m.b, m.c, pare::TensorView<const double, 3>{nullptr, {2, 0, 2}, {0, 2, 1}}, state,
             pare::TensorView<double, 3>{nullptr, {2, 0, 3}, {0, 3, 1}});
  EXPECT_TRUE(state == before);
}

}  // namespace
}  // namespace sequence_dense_scan_test
