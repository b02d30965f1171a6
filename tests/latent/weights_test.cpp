// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/latent/reference.hpp>
#include <pare/latent/up_weights.hpp>
#include <pare/latent/weights.hpp>
#include <pare/transformer/quantized_linear.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <unsupported/Eigen/CXX11/Tensor>

#include "latent/layers.hpp"
#include "support/properties.hpp"

namespace latent_weights_test {
namespace {

using pare::as_const;
using pare::bf16;
using pare::compute_t;
using pare::Index;
using pare::TensorView;
using pare::testing::random_latent_weights;
using pare::testing::random_linear;
using pare::testing::random_rows;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::testing::small_latent_config;
using pare::testing::Tolerance;
using pare::transformer::DenseLinear;
using pare::transformer::QuantizedLinear;
using namespace pare::latent;

static_assert(LinearOf<DenseLinear<float>, float> && LinearOf<DenseLinear<double>, double>);
static_assert(LinearOf<QuantizedLinear<pare::kernel::Q4_1>, float>);
static_assert(!LinearOf<DenseLinear<float>, double>);

/// [tokens, heads, dim] in rows of all heads, from number `from` of each head on.
template <class T>
TensorView<T, 3> heads_of(TensorView<T, 2> m, Index heads, Index dim, Index from = 0) {
  const Index whole = m.cols() / heads;
  return {m.data + from, {m.rows(), heads, dim}, {m.stride[0], whole, 1}};
}

template <class Case>
struct UpWeightsTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
using Cases =
    testing::Types<pare::testing::BackendAndScalar<pare::testing::ReferenceBackend, float>,
                   pare::testing::BackendAndScalar<pare::testing::ReferenceBackend, double>,
                   pare::testing::BackendAndScalar<pare::testing::BestBackend, float>,
                   pare::testing::BackendAndScalar<pare::testing::BestBackend, bf16>,
                   pare::testing::BackendAndScalar<pare::testing::ThreadedBackend, pare::f16>,
                   pare::testing::BackendAndScalar<pare::testing::ThreadedBackend, double>>;
TYPED_TEST_SUITE(UpWeightsTest, Cases);

/// d_n rows of keys, then d_v of values, of each head.
TYPED_TEST(UpWeightsTest, ProductsOfEachHeadAreThoseOfItsRows) {
  using S = typename TypeParam::scalar;
  using T = compute_t<S>;
  LatentConfig c = small_latent_config();
  c.latent = 150;  // more than a worker takes at once
  const UpWeights<S> up(c, random_linear<S>(c.heads * (c.nope + c.value), c.latent, 1));
  const auto weight = [&](Index head, Index row, Index i) {
    return static_cast<long double>(static_cast<T>(up.all()(head * (c.nope + c.value) + row, i)));
  };
  for (const Index tokens : {0, 1, 5, 60}) {
    const auto q = random_rows<T>(tokens, c.heads * c.head_dim(), 2);
    const auto u = random_rows<T>(tokens, c.heads * c.latent, 3);
    Rows<T> absorbed(tokens, c.heads * c.row_dim()), out(tokens, c.heads * c.value);
    up.absorb(this->backend(), heads_of(q.view(), c.heads, c.nope),
              heads_of(absorbed.view(), c.heads, c.latent));
    up.expand_outputs(this->backend(), heads_of(u.view(), c.heads, c.latent),
                      heads_of(out.view(), c.heads, c.value));
    for (Index t = 0; t < tokens; ++t)
      for (Index h = 0; h < c.heads; ++h) {
        for (Index i = 0; i < c.latent; ++i) {
          long double wanted = 0, size = 0;
          for (Index n = 0; n < c.nope; ++n) {
            const long double term = weight(h, n, i) * q.at(t, h * c.head_dim() + n);
            wanted += term;
            size += std::abs(term);
          }
          ASSERT_NEAR(absorbed(t, h * c.row_dim() + i), static_cast<double>(wanted),
                      Tolerance<T>::dot(static_cast<double>(c.nope), static_cast<double>(size)));
        }
        for (Index v = 0; v < c.value; ++v) {
          long double wanted = 0, size = 0;
          for (Index i = 0; i < c.latent; ++i) {
            const long double term = weight(h, c.nope + v, i) * u.at(t, h * c.latent + i);
            wanted += term;
            size += std::abs(term);
          }
          ASSERT_NEAR(out(t, h * c.value + v), static_cast<double>(wanted),
                      Tolerance<T>::dot(static_cast<double>(c.latent), static_cast<double>(size)));
        }
      }
  }
}

TEST(UpWeights, TakesTensorsOfEigen) {
  const LatentConfig c = small_latent_config();
  const UpWeights<float> up(c, random_linear<float>(c.heads * (c.nope + c.value), c.latent, 1));
  const auto q = random_rows<float>(2, c.heads * c.nope, 2);
  Eigen::Tensor<float, 3, Eigen::RowMajor> tensor(2, c.heads, c.nope),
      absorbed(2, c.heads, c.latent);
  std::copy_n(q.view().data, tensor.size(), tensor.data());
  up.absorb(pare::simd, tensor, absorbed);
  Rows<float> wanted(2, c.heads * c.latent);
  up.absorb(pare::simd, heads_of(q.view(), c.heads, c.nope),
            heads_of(wanted.view(), c.heads, c.latent));
  for (Index i = 0; i < absorbed.size(); ++i)
    EXPECT_EQ(absorbed.data()[i], wanted.view().data[i]) << i;
}

TEST(UpWeights, AnyThreadsAndAnyTokensHaveTheSameBits) {
  const LatentConfig c = small_latent_config();
  const UpWeights<bf16> up(c, random_linear<bf16>(c.heads * (c.nope + c.value), c.latent, 1));
  const auto q = random_rows<float>(40, c.heads * c.nope, 2);
  const auto absorbed = [&](const auto& backend, Index tokens) {
    Rows<float> out(tokens, c.heads * c.latent);
    const TensorView<const float, 2> some{q.view().data, {tokens, q.cols()}, {q.cols(), 1}};
    up.absorb(backend, heads_of(some, c.heads, c.nope), heads_of(out.view(), c.heads, c.latent));
    return out;
  };
  pare::testing::same_bits_for_any_threads(
      pare::simd, [&](const auto& backend) { return absorbed(backend, 40); });
  const auto all = absorbed(pare::simd, 40), one = absorbed(pare::simd, 1);
  for (Index i = 0; i < one.cols(); ++i)
    EXPECT_TRUE(pare::testing::same_bits(one(0, i), all(0, i)));
}

TEST(UpWeights, ViewsOrOwnsAndHoldsKeysAndValuesApart) {
  const LatentConfig c = small_latent_config();
  const auto rows = random_rows<float>(c.heads * (c.nope + c.value), c.latent, 1);
  const UpWeights<float> up(c, DenseLinear<float>(rows.view()));
  EXPECT_EQ(up.all().data, rows.view().data) << "nothing is copied";
  EXPECT_EQ(&up.key(1)(2, 3), &rows.view()(c.nope + c.value + 2, 3));
  EXPECT_EQ(&up.value(1)(2, 3), &rows.view()(2 * c.nope + c.value + 2, 3));
  EXPECT_EQ(up.key(2).rows(), c.nope);
  EXPECT_EQ(up.value(2).rows(), c.value);
}

TEST(UpWeights, WhatDoesNotFitIsRefused) {
  const LatentConfig c = small_latent_config();
  const Index rows = c.heads * (c.nope + c.value);
  const auto refused_shape = [&](Index outputs, Index inputs) {
    refusal([&] { UpWeights<float>(c, DenseLinear<float>(outputs, inputs)); }, "latent::UpWeights",
            "kv_b");
  };
  refused_shape(rows - 1, c.latent);
  refused_shape(rows, c.latent + 1);
  refusal([&] { UpWeights<float>({}, DenseLinear<float>(rows, c.latent)); }, "latent::UpWeights",
          "width");
  const UpWeights<float> up(c, random_linear<float>(rows, c.latent, 1));
  const auto q = random_rows<float>(4, c.heads * c.nope, 2);
  Rows<float> out(4, c.heads * c.latent);
  const auto from = heads_of(q.view(), c.heads, c.nope);
  const auto to = heads_of(out.view(), c.heads, c.latent);
  const auto refused = [&](TensorView<const float, 3> x, TensorView<float, 3> y,
                           const char* argument) {
    refuses_and_leaves_alone([&] { up.absorb(pare::reference, x, y); }, "latent::UpWeights::absorb",
                             argument, out);
  };
  auto few = from;
  few.extent[2] -= 1;
  refused(few, to, "q");
  auto spread = from;
  spread.stride = {1, 4, 12};
  refused(spread, to, "q");
  auto short_out = to;
  short_out.extent[0] = 3;
  refused(from, short_out, "absorbed");
  auto wide = to;
  wide.extent[2] -= 1;
  refused(from, wide, "absorbed");
  refused(from, {const_cast<float*>(q.view().data), to.extent, to.stride}, "absorbed");
  refused(from, {const_cast<float*>(up.all().data), {4, c.heads, c.latent}, {63, 21, 1}},
          "absorbed");
  refusal([&] { up.expand_outputs(pare::reference, as_const(to), to); },
          "latent::UpWeights::expand_outputs", "out");
}

TEST(LatentWeights, ShapesAreThoseOfTheConfig) {
  const LatentConfig c = small_latent_config();
  constexpr const char* name = "a::function";
  random_latent_weights<float>(c).validate(name, c);
  LatentConfig plain = c;
  plain.query_latent.reset();
  random_latent_weights<bf16>(plain).validate(name, plain);
  const auto refused = [&](const LatentConfig& other, const char* argument) {
    const auto weights = random_latent_weights<float>(other);
    refusal([&] { weights.validate(name, c); }, name, argument);
  };
  refused(plain, "query_down");
  refusal([&] { random_latent_weights<float>(c).validate(name, plain); }, name, "query_down");
  const auto changed = [&](Index LatentConfig::* member) {
    LatentConfig other = c;
    other.*member += 2;
    return other;
  };
  refused(changed(&LatentConfig::width), "query_down");
  refused(changed(&LatentConfig::heads), "query");
  refused(changed(&LatentConfig::rope), "query");
  refused(changed(&LatentConfig::latent), "latent_down");
  refused(changed(&LatentConfig::value), "up");
  LatentConfig other = c;
  other.query_latent = 18;
  refused(other, "query_down");
  // Shapes that agree but for the norms, the halves of a head, and the output.
  auto weights = random_latent_weights<float>(c);
  weights.query_norm->pop_back();
  refusal([&] { weights.validate(name, c); }, name, "query_norm");
  weights.query_norm.reset();
  weights.latent_norm->push_back(1);
  refusal([&] { weights.validate(name, c); }, name, "latent_norm");
  weights.latent_norm.reset();
  weights.validate(name, c);
  weights.output = DenseLinear<float>(c.width, c.heads * c.value + 1);
  refusal([&] { weights.validate(name, c); }, name, "output");
  auto unnormed = random_latent_weights<float>(plain);
  unnormed.query_norm.emplace(37);
  refusal([&] { unnormed.validate(name, plain); }, name, "query_norm");
  auto latents = random_latent_weights<float>(c);
  LatentConfig wider = c;
  wider.latent += 1;
  wider.rope = 0;
  latents.up = UpWeights<float>(wider, DenseLinear<float>(c.heads * (c.nope + c.value), 22));
  refusal([&] { latents.validate(name, c); }, name, "up");
}

}  // namespace
}  // namespace latent_weights_test
