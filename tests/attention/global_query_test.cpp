// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/attention/global_query.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <numeric>
#include <type_traits>
#include <vector>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace attention_global_query_test {
namespace {

using pare::Index;
using pare::TensorView;
using pare::testing::bytes_of;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::uniform;
using namespace pare::attention;

template <class S>
struct Case {
  using T = pare::compute_t<S>;
  Index batch, tokens, dim, heads;
  std::vector<S> h;
  std::vector<T> p, q, out, weights, context;
  std::unique_ptr<bool[]> mask;

  Case(Index b, Index n, Index d, Index m, std::uint64_t seed = 1)
      : batch(b),
        tokens(n),
        dim(d),
        heads(m),
        h(size(b * n * d)),
        p(size(d * m)),
        q(size(d * m)),
        out(size(b * m * d)),
        weights(size(b * m * n)),
        context(size(b * d)),
        mask(std::make_unique<bool[]>(size(b * n))) {
    pare::testing::Engine random(seed);
    for (S& v : h) v = static_cast<S>(static_cast<T>(0.3 + uniform(random)));
    for (auto* list : {&p, &q, &context})
      for (T& v : *list) v = static_cast<T>(uniform(random));
    for (Index k = 0; k < b * n; ++k) mask[size(k)] = uniform(random) > -0.4;
  }
  static std::size_t size(Index n) { return static_cast<std::size_t>(n); }

  TensorView<S, 3> h_view() { return {h.data(), {batch, tokens, dim}, {tokens * dim, dim, 1}}; }
  TensorView<T, 2> p_view() { return {p.data(), {dim, heads}, {heads, 1}}; }
  TensorView<T, 2> q_view() { return {q.data(), {dim, heads}, {heads, 1}}; }
  TensorView<T, 3> out_view() { return {out.data(), {batch, heads, dim}, {heads * dim, dim, 1}}; }
  TensorView<T, 3> weights_view() {
    return {weights.data(), {batch, heads, tokens}, {heads * tokens, tokens, 1}};
  }
  TensorView<const bool, 2> seen() const { return {mask.get(), {batch, tokens}, {tokens, 1}}; }
  TensorView<const T, 2> context_view() const { return {context.data(), {batch, dim}, {dim, 1}}; }
  GlobalQueryOptions<T> options(bool masked, bool learned) {
    GlobalQueryOptions<T> o{.weights = weights_view()};
    if (masked) o.seen = seen();
    if (learned) o.context = context_view();
    return o;
  }
  template <class B>
  void run(const B& backend, const GlobalQueryOptions<T>& o) {
    global_query(backend, h_view(), p_view(), q_view(), out_view(), o);
  }
};

/// Weights of one sequence by the formula in long double, [heads, tokens], and the most that f_ti
/// may be off by: two dot products and a mean round relative to sums of magnitudes, the product of
/// both is bent by at most as much, and the norm passes it on over its length, twice.
template <class S>
struct Oracle {
  std::vector<long double> weights;
  double off = 0;

  Oracle(Case<S>& k, Index i, const GlobalQueryOptions<pare::compute_t<S>>& o) {
    using T = pare::compute_t<S>;
    const auto wide = [](auto v) { return static_cast<long double>(static_cast<T>(v)); };
    std::vector<long double> c, c_size;
    long double count = 0;
    for (Index t = 0; t < k.tokens; ++t) count += !o.seen || (*o.seen)(i, t) ? 1 : 0;
    for (Index j = 0; j < k.dim; ++j) {
      long double sum = 0, size = 0;
      for (Index t = 0; t < k.tokens; ++t)
        if (!o.seen || (*o.seen)(i, t)) {
          sum += wide(k.h_view()(i, t, j)) / count;
          size += std::abs(wide(k.h_view()(i, t, j))) / count;
        }
      c.push_back(o.context ? wide((*o.context)(i, j)) : sum);
      c_size.push_back(o.context ? std::abs(c.back()) : size);
    }
    weights.assign(static_cast<std::size_t>(k.heads * k.tokens), 0);
    std::vector<long double> mass(static_cast<std::size_t>(k.heads));
    for (Index t = 0; t < k.tokens; ++t) {
      if (o.seen && !(*o.seen)(i, t)) continue;
      std::vector<long double> f;
      long double squares = 0, wrong = 0;
      for (Index m = 0; m < k.heads; ++m) {
        long double left = 0, right = 0, left_size = 0, right_size = 0;
        for (Index j = 0; j < k.dim; ++j) {
          const auto at = static_cast<std::size_t>(j);
          left += wide(k.p_view()(j, m)) * c[at];
          right += wide(k.q_view()(j, m)) * wide(k.h_view()(i, t, j));
          left_size += std::abs(wide(k.p_view()(j, m))) * c_size[at];
          right_size += std::abs(wide(k.q_view()(j, m)) * wide(k.h_view()(i, t, j)));
        }
        f.push_back(std::tanh(left * right));
        squares += f.back() * f.back();
        wrong = std::max(wrong, left_size * right_size);
      }
      const auto norm = std::sqrt(squares);
      const double terms = static_cast<double>(k.dim + k.tokens + 20);
      off = std::max(off, pare::testing::Tolerance<T>::gamma(2 * terms) *
                              static_cast<double>(1 + 2 * wrong * std::sqrt(k.heads) / norm));
      for (Index m = 0; m < k.heads; ++m) {
        const auto w = std::exp(f[static_cast<std::size_t>(m)] / norm);
        weights[static_cast<std::size_t>(m * k.tokens + t)] = w;
        mass[static_cast<std::size_t>(m)] += w;
      }
    }
    for (Index m = 0; m < k.heads; ++m)
      for (Index t = 0; t < k.tokens; ++t)
        weights[static_cast<std::size_t>(m * k.tokens + t)] /= mass[static_cast<std::size_t>(m)];
  }
};

template <class S>
void expect_attended(Case<S>& k, const GlobalQueryOptions<pare::compute_t<S>>& o) {
  using T = pare::compute_t<S>;
  for (Index i = 0; i < k.batch; ++i) {
    const Oracle<S> oracle(k, i, o);
    // A weight is wrong by as much as its own score and, in the mass, all others.
    const double bound =
        2 * oracle.off + pare::testing::Tolerance<T>::gamma(static_cast<double>(k.tokens + 10));
    for (Index m = 0; m < k.heads; ++m) {
      for (Index t = 0; t < k.tokens; ++t) {
        const auto w =
            static_cast<double>(oracle.weights[static_cast<std::size_t>(m * k.tokens + t)]);
        ASSERT_TRUE(
            pare::testing::within(static_cast<double>(k.weights_view()(i, m, t)), w, bound * w))
            << i << ' ' << m << ' ' << t;
      }
      for (Index j = 0; j < k.dim; j += 1 + k.dim / 9) {
        long double sum = 0, size = 0;
        for (Index t = 0; t < k.tokens; ++t) {
          if (o.seen && !(*o.seen)(i, t)) continue;
          const auto term = oracle.weights[static_cast<std::size_t>(m * k.tokens + t)] *
                            static_cast<long double>(static_cast<T>(k.h_view()(i, t, j)));
          sum += term;
          size += std::abs(term);
        }
        ASSERT_TRUE(pare::testing::within(static_cast<double>(k.out_view()(i, m, j)),
                                          static_cast<double>(sum),
                                          2 * bound * static_cast<double>(size)))
            << i << ' ' << m << ' ' << j;
      }
    }
  }
}

template <class Case>
struct GlobalQueryTest : testing::Test {};
using Kinds =
    testing::Types<pare::testing::BackendAndScalar<pare::testing::ReferenceBackend, float>,
                   pare::testing::BackendAndScalar<pare::testing::BestBackend, float>,
                   pare::testing::BackendAndScalar<pare::testing::BestBackend, pare::bf16>,
                   pare::testing::BackendAndScalar<pare::testing::ThreadedBackend, double>>;
TYPED_TEST_SUITE(GlobalQueryTest, Kinds);

TYPED_TEST(GlobalQueryTest, IsTheFormula) {
  using S = typename TypeParam::scalar;
  struct Size {
    Index batch, tokens, dim, heads;
  };
  for (const Size s :
       {Size{2, 37, 19, 5}, Size{3, 16, 64, 8}, Size{1, 1, 3, 2}, Size{1, 150, 130, 9}})
    for (const bool masked : {false, true})
      for (const bool learned : {false, true}) {
        if (masked && s.tokens == 1) continue;
        Case<S> k(s.batch, s.tokens, s.dim, s.heads);
        const auto o = k.options(masked, learned);
        k.run(TypeParam::backend::make(), o);
        expect_attended(k, o);
      }
}

/// Long enough for several ranges.
TYPED_TEST(GlobalQueryTest, LongSequencesAreTheFormula) {
  using S = typename TypeParam::scalar;
  if (TypeParam::backend::is_reference) return;
  Case<S> k(1, 2100, 1030, 3);
  const auto o = k.options(true, false);
  k.run(TypeParam::backend::make(), o);
  expect_attended(k, o);
}

TYPED_TEST(GlobalQueryTest, WeightsSumToOneAndPaddingHasNone) {
  using S = typename TypeParam::scalar;
  Case<S> k(2, 41, 20, 6);
  k.run(TypeParam::backend::make(), k.options(true, false));
  for (Index i = 0; i < 2; ++i)
    for (Index m = 0; m < 6; ++m) {
      double sum = 0;
      for (Index t = 0; t < 41; ++t) {
        const auto w = static_cast<double>(k.weights_view()(i, m, t));
        EXPECT_TRUE(k.seen()(i, t) ? w > 0 : w == 0);
        sum += w;
      }
      EXPECT_NEAR(sum, 1, 1e-5);
    }
}

/// What padding holds, NaN too, changes no bit, nor does padding that is longer.
TYPED_TEST(GlobalQueryTest, PaddingIsNotRead) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  Case<S> k(1, 40, 20, 6), cut(1, 40, 20, 6);
  for (Index t = 0; t < 40; ++t) k.mask[static_cast<std::size_t>(t)] = t < 33;
  for (std::size_t at = 33 * 20; at < k.h.size(); ++at)
    k.h[at] = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  k.run(TypeParam::backend::make(), k.options(true, false));
  auto shorter = cut.h_view();
  shorter.extent[1] = 33;
  global_query(TypeParam::backend::make(), shorter, cut.p_view(), cut.q_view(), cut.out_view());
  EXPECT_TRUE(bytes_of(k.out) == bytes_of(cut.out));
}

/// Weights move with their tokens; sums stay but for the order of additions.
TYPED_TEST(GlobalQueryTest, TheOrderOfTokensDoesNotMatter) {
  using S = typename TypeParam::scalar;
  Case<S> k(1, 50, 20, 4), turned(1, 50, 20, 4);
  for (Index t = 0; t < 50; ++t)
    for (Index j = 0; j < 20; ++j) turned.h_view()(0, t, j) = k.h_view()(0, t * 7 % 50, j);
  k.run(TypeParam::backend::make(), k.options(false, false));
  turned.run(TypeParam::backend::make(), turned.options(false, false));
  for (Index m = 0; m < 4; ++m) {
    for (Index t = 0; t < 50; ++t)
      EXPECT_NEAR(turned.weights_view()(0, m, t), k.weights_view()(0, m, t * 7 % 50), 1e-5);
    for (Index j = 0; j < 20; ++j)
      EXPECT_NEAR(turned.out_view()(0, m, j), k.out_view()(0, m, j), 1e-5);
  }
}

TYPED_TEST(GlobalQueryTest, HeadsInAnotherOrderAreRowsInAnother) {
  using S = typename TypeParam::scalar;
  Case<S> k(1, 30, 20, 6), turned(1, 30, 20, 6);
  for (Index j = 0; j < 20; ++j)
    for (Index m = 0; m < 6; ++m) {
      turned.p_view()(j, m) = k.p_view()(j, m * 5 % 6);
      turned.q_view()(j, m) = k.q_view()(j, m * 5 % 6);
    }
  k.run(TypeParam::backend::make(), k.options(false, false));
  turned.run(TypeParam::backend::make(), turned.options(false, false));
  for (Index m = 0; m < 6; ++m)
    for (Index j = 0; j < 20; ++j)
      EXPECT_NEAR(turned.out_view()(0, m, j), k.out_view()(0, m * 5 % 6, j), 1e-5);
}

/// One head: e or 1/e by the sign alone. A token of zeros has weight e^0, and no NaN.
TYPED_TEST(GlobalQueryTest, DegenerateScoresAreDefined) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  Case<S> k(1, 3, 2, 1);
  k.h = {S(T(1)), S(T(0)), S(T(-2)), S(T(0)), S(T(0)), S(T(0))};
  k.p = {T(1), T(0)};
  k.q = {T(1), T(0)};
  k.context = {T(1), T(0)};
  k.run(TypeParam::backend::make(), k.options(false, true));
  const double e = std::exp(1.0), mass = e + 1 / e + 1;
  EXPECT_NEAR(k.weights[0], e / mass, 1e-5);
  EXPECT_NEAR(k.weights[1], 1 / e / mass, 1e-5);
  EXPECT_NEAR(k.weights[2], 1 / mass, 1e-5);
}

TYPED_TEST(GlobalQueryTest, WhereNoTokenCountsTheSumsAreZero) {
  using S = typename TypeParam::scalar;
  Case<S> k(2, 5, 7, 3);
  for (Index t = 0; t < 10; ++t) k.mask[static_cast<std::size_t>(t)] = t >= 5;
  std::fill(k.out.begin(), k.out.end(), 9);
  k.run(TypeParam::backend::make(), k.options(true, false));
  for (std::size_t at = 0; at < 21; ++at) EXPECT_EQ(k.out[at], 0);
  for (std::size_t at = 0; at < 15; ++at) EXPECT_EQ(k.weights[at], 0);
  EXPECT_NE(k.out[21], 0);
  auto none = k.h_view();
  none.extent[1] = 0;
  std::fill(k.out.begin(), k.out.end(), 9);
  global_query(TypeParam::backend::make(), none, k.p_view(), k.q_view(), k.out_view());
  for (const auto v : k.out) EXPECT_EQ(v, 0);
}

TEST(GlobalQuery, WhatIsNoNumberStaysInItsSequence) {
  Case<float> k(2, 20, 16, 4), plain(2, 20, 16, 4);
  k.h_view()(0, 3, 2) = std::numeric_limits<float>::quiet_NaN();
  k.run(pare::simd, k.options(false, false));
  plain.run(pare::simd, plain.options(false, false));
  for (Index m = 0; m < 4; ++m)
    for (Index j = 0; j < 16; ++j) {
      EXPECT_TRUE(std::isnan(k.out_view()(0, m, j)));
      EXPECT_TRUE(pare::testing::same_bits(k.out_view()(1, m, j), plain.out_view()(1, m, j)));
    }
}

TEST(GlobalQuery, AnyThreadsAndStridesHaveTheSameBits) {
  for (const Index batch : {1, 5}) {
    Case<float> k(batch, 1300, 300, 6);
    const auto run = [&](const auto& backend) {
      k.run(backend, k.options(true, false));
      auto bytes = bytes_of(k.out);
      const auto more = bytes_of(k.weights);
      bytes.insert(bytes.end(), more.begin(), more.end());
      return bytes;
    };
    pare::testing::same_bits_for_any_threads(pare::simd, run);
    const auto wanted = run(pare::simd);
    std::vector<float> apart(k.h.size() * 2), columns(k.q.size());
    auto h = k.h_view();
    TensorView<float, 3> wide{apart.data(), h.extent, {h.stride[0] * 2, h.stride[1] * 2, 1}};
    for (Index i = 0; i < batch; ++i)
      for (Index t = 0; t < 1300; ++t)
        for (Index j = 0; j < 300; ++j) wide(i, t, j) = h(i, t, j);
    const TensorView<float, 2> q{columns.data(), {300, 6}, {1, 300}};
    for (Index j = 0; j < 300; ++j)
      for (Index m = 0; m < 6; ++m) q(j, m) = k.q_view()(j, m);
    const auto before = bytes_of(k.out);
    global_query(pare::simd, wide, k.p_view(), q, k.out_view(), k.options(true, false));
    EXPECT_TRUE(bytes_of(k.out) == before);
    EXPECT_EQ(wanted, run(pare::simd));
  }
}

TEST(GlobalQuery, ASecondCallAllocatesNothing) {
  Case<float> k(1, 64, 32, 4);
  pare::Workspace workspace;
  k.run(pare::simd.with(workspace), k.options(false, false));
  const long before = pare::testing::allocations;
  k.run(pare::simd.with(workspace), k.options(false, false));
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

TEST(GlobalQuery, WhatDoesNotFitIsRefused) {
  constexpr const char* f = "attention::global_query";
  Case<float> k(2, 5, 8, 3);
  const auto r = pare::reference;
  const auto h = k.h_view();
  const auto p = k.p_view(), q = k.q_view();
  const auto out = k.out_view(), weights = k.weights_view();
  const auto refused = [&](const auto& call, const char* argument) {
    refuses_and_leaves_alone(call, f, argument, k.out, k.weights);
  };
  const auto cut = [](auto v, std::size_t d, Index extent) {
    v.extent[d] = extent;
    return v;
  };
  using Options = GlobalQueryOptions<float>;
  refused([&] { global_query(r, cut(h, 2, 0), cut(p, 0, 0), cut(q, 0, 0), cut(out, 2, 0)); }, "h");
  refused([&] { global_query(r, h, cut(p, 1, 0), cut(q, 1, 0), cut(out, 1, 0)); }, "p");
  refused([&] { global_query(r, h, cut(p, 0, 7), q, out); }, "p");
  refused([&] { global_query(r, h, p, cut(q, 1, 2), out); }, "q");
  refused([&] { global_query(r, h, p, q, cut(out, 1, 2)); }, "out");
  auto apart = h;
  apart.stride[2] = 2;
  refused([&] { global_query(r, cut(apart, 2, 4), cut(p, 0, 4), cut(q, 0, 4), cut(out, 2, 4)); },
          "h");
  refused(
      [&] { global_query(r, TensorView<const float, 3>{nullptr, h.extent, h.stride}, p, q, out); },
      "h");
  for (const double epsilon : {0.0, -1.0, 1e39, std::numeric_limits<double>::quiet_NaN()})
    refused([&] { global_query(r, h, p, q, out, Options{.epsilon = epsilon}); }, "epsilon");
  refused([&] { global_query(r, h, p, q, out, Options{.seen = cut(k.seen(), 1, 4)}); }, "seen");
  refused([&] { global_query(r, h, p, q, out, Options{.context = cut(k.context_view(), 1, 7)}); },
          "context");
  refused([&] { global_query(r, h, p, q, out, Options{.weights = cut(weights, 2, 4)}); },
          "weights");
  refused([&] { global_query(r, h, p, q, out, Options{.weights = cut(out, 2, 5)}); }, "weights");
  const TensorView<float, 3> over_h{k.h.data(), out.extent, out.stride};
  refused([&] { global_query(r, h, p, q, over_h); }, "out");
  auto same = out;
  same.stride[1] = 0;
  refused([&] { global_query(r, h, p, q, same); }, "out");
}

}  // namespace
}  // namespace attention_global_query_test
