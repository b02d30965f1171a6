// SPDX-License-Identifier: Apache-2.0
#include <pare/dispatch.hpp>
#include <pare/routing/grouped_multiply.hpp>
#include <pare/routing/memory/gather_values.hpp>
#include <pare/routing/memory/peer.hpp>
#include <pare/routing/memory/product_key_search.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <vector>

namespace dispatch_routing_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::routing::MemoryHits;
using Matrix = pare::RowMatrix<float>;

/// Integers from -size to size: their products are exact in bf16 pairs, and so are sums of some, in
/// whatever order an arch adds them.
Matrix integers(Index rows, Index cols, Index step, Index size) {
  Matrix m(rows, cols);
  for (Index i = 0; i < m.size(); ++i)
    m.data()[i] = static_cast<float>(i * step % (2 * size + 1) - size);
  return m;
}

pare::RowMatrix<bf16> rounded(const Matrix& m) {
  pare::RowMatrix<bf16> of(m.rows(), m.cols());
  for (Index i = 0; i < m.size(); ++i) of.data()[i] = bf16(m.data()[i]);
  return of;
}

/// Queries of 7 rows and 2 heads, keys [2, 2, 20, 24]. Scores are many of them equal.
struct Keys {
  Matrix queries = integers(7, 2 * 48, 31, 8), keys = integers(2 * 2 * 20, 24, 29, 7);

  pare::TensorView<const float, 3> queries_view() const {
    return {queries.data(), {7, 2, 48}, {96, 48, 1}};
  }
  pare::TensorView<const float, 4> keys_view() const {
    return {keys.data(), {2, 2, 20, 24}, {960, 480, 24, 1}};
  }
};

TEST(DispatchRouting, ProductKeysAreThoseOfTheReference) {
  const Keys k;
  const auto searched = [&](const auto& backend) {
    return pare::routing::search_product_keys(backend, k.queries_view(), k.keys_view(), 9);
  };
  const MemoryHits<float> wanted = searched(pare::reference);
  for (const MemoryHits<float>& picked :
       {searched(pare::dispatched), searched(pare::dispatched.threads(3))}) {
    EXPECT_EQ(picked.ids, wanted.ids);
    EXPECT_EQ(picked.scores, wanted.scores);
  }
}

TEST(DispatchRouting, GatheredValuesAreThoseOfTheReference) {
  const auto values = rounded(integers(90, 77, 37, 9));
  const Matrix weights = integers(11, 13, 17, 5);
  pare::RowMatrix<Index> ids(11, 13);
  for (Index i = 0; i < ids.size(); ++i) ids.data()[i] = i * 41 % 90;
  const auto gathered = [&](const auto& backend) {
    Matrix out(11, 77);
    pare::routing::gather_values(backend, values, ids, weights, out);
    return out;
  };
  const Matrix wanted = gathered(pare::reference);
  EXPECT_EQ(gathered(pare::dispatched), wanted);
  EXPECT_EQ(gathered(pare::dispatched.threads(3)), wanted);
}

TEST(DispatchRouting, ExpertsOfOneNeuronAgreeWithTheReference) {
  const Keys k;
  const auto down = rounded(integers(400, 52, 37, 9)), up = rounded(integers(400, 45, 23, 8));
  const pare::routing::PeerExperts<bf16> experts{as_const(pare::to_view(down)),
                                                 as_const(pare::to_view(up))};
  const Matrix x = integers(7, 52, 19, 6) / 64;
  const auto through = [&](const auto& backend) {
    Matrix y(7, 45);
    pare::routing::peer(backend, x, k.queries_view(), k.keys_view(), experts, y);
    return y;
  };
  const Matrix wanted = through(pare::reference), picked = through(pare::dispatched);
  // Scores are exact, so hits are the same. Each of y sums 32 products, with a softmax and Gelu of
  // some roundings each, and cancels to no less than a tenth of them.
  EXPECT_LE((picked - wanted).norm(), 10 * 40 * 0x1p-24f * wanted.norm());
  EXPECT_EQ(through(pare::dispatched.threads(3)), picked);
}

TEST(DispatchRouting, RowsOfExpertsThatRoundAreThoseOfTheReference) {
  // The last expert has more rows than are multiplied as few; inputs are whole pairs of bf16.
  constexpr Index experts = 5, rows = 61, inputs = 128, outputs = 19;
  std::vector<pare::transformer::DenseLinear<bf16>> layers;
  for (Index e = 0; e < experts; ++e)
    layers.push_back(pare::transformer::DenseLinear<bf16>::copy_of(
        integers(outputs, inputs, 23 + e, 7), {.round_inputs = true, .round_few_rows = true}));
  const Matrix x = integers(rows, inputs, 19, 6);
  pare::RowMatrix<Index> ids(rows, 1);
  for (Index r = 0; r < rows; ++r) ids(r, 0) = r < 14 ? r % 4 : 4;
  const pare::routing::RoutePlan plan(ids, experts);
  const auto multiplied = [&](const auto& backend) {
    Matrix parts(plan.routed(), outputs);
    pare::routing::grouped_multiply(backend, x, plan, layers, parts);
    return parts;
  };
  const Matrix wanted = multiplied(pare::reference);
  EXPECT_EQ(multiplied(pare::dispatched), wanted);
  EXPECT_EQ(multiplied(pare::dispatched.threads(3)), wanted);
}

}  // namespace
}  // namespace dispatch_routing_test
