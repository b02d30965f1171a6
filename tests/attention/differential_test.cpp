// SPDX-License-Identifier: Apache-2.0
// Differential attention against two maps in long double, their difference and its norm.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <pare/attention/differential.hpp>

#include "attention/attend_calls.hpp"
#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace attention_differential_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::attention::attend;
using pare::attention::AttendOptions;
using pare::attention::BlockMask;
using pare::attention::differential;
using pare::attention::differential_lambda;
using pare::attention::DifferentialNorm;
using pare::attention::DifferentialOptions;
using pare::attention::KeyOrder;
using pare::testing::all_same_bits;
using pare::testing::attended;
using pare::testing::dense_attention;
using pare::testing::Inputs;
using pare::testing::Outputs;
using pare::testing::Sees;
using pare::testing::Sizes;

/// Both maps: the first has the values.
template <class S>
struct Maps {
  Inputs<S> first, second;
  explicit Maps(const Sizes& s) : first(s, 1), second(s, 2) {}
};

template <class B, class S, class O = pare::compute_t<S>>
std::vector<O> difference_of(const B& backend, const Maps<S>& x,
                             const DifferentialOptions& options) {
  Outputs<S, O> y(x.first.sizes);
  differential(backend, x.first.q.view(), x.first.k.view(), x.second.q.view(), x.second.k.view(),
               x.first.v.view(), y.out.writable(), options);
  return y.out.list;
}

/// The definition with whole maps, in long double.
template <class S>
std::vector<double> expected(const Maps<S>& x, const DifferentialOptions& o, const Sees& sees,
                             const std::vector<float>& scale = {}) {
  const Sizes& s = x.first.sizes;
  std::vector<double> all;
  const double c = 1 / std::sqrt(static_cast<double>(s.key_dim));
  for (Index b = 0; b < s.batch; ++b)
    for (Index h = 0; h < s.heads; ++h) {
      const Index kv = h / (s.heads / s.kv_heads);
      const auto visible = [&](Index i, Index j) { return sees(b, h, i, j); };
      const auto one = dense_attention(x.first.q.head(b, h), x.first.k.head(b, kv),
                                       x.first.v.head(b, kv), c, visible);
      const auto two = dense_attention(x.second.q.head(b, h), x.second.k.head(b, kv),
                                       x.first.v.head(b, kv), c, visible);
      for (Index i = 0; i < s.queries; ++i) {
        long double squares = 0;
        const auto at = [&](Index col) { return one.out(i, col) - *o.lambda * two.out(i, col); };
        for (Index col = 0; col < s.value_dim; ++col) squares += at(col) * at(col);
        const double root =
            std::sqrt(static_cast<double>(squares / s.value_dim) + (o.norm ? o.norm->epsilon : 0));
        for (Index col = 0; col < s.value_dim; ++col)
          all.push_back(!o.norm ? at(col)
                                : at(col) / root * (1 - *o.lambda_init) *
                                      (scale.empty() ? 1.0
                                                     : static_cast<double>(
                                                           scale[static_cast<std::size_t>(col)])));
      }
    }
  return all;
}

template <class O>
double worst(const std::vector<O>& got, const std::vector<double>& wanted) {
  double largest = got.size() == wanted.size() ? 0 : 1e30;
  for (std::size_t i = 0; i < got.size(); ++i)
    largest = std::max(
        largest, pare::testing::distance(
                     static_cast<double>(static_cast<pare::compute_t<O>>(got[i])), wanted[i]));
  return largest;
}

struct Case {
  Sizes sizes;
  AttendOptions attend;
  Sees sees;
};
// Packed tiles whose values are packed or lie as panels, lanes, keys as they lie, and split keys.
const Case cases[] = {
    {{2, 4, 2, 70, 150, 8, 21}, {}, {70, 150}},
    {{1, 2, 2, 150, 150, 16, 32}, {.causal = true}, {150, 150, true}},
    {{1, 4, 1, 5, 300, 24, 48}, {.causal = true}, {5, 300, true}},
    {{1, 4, 2, 1, 40, 24, 13}, {}, {1, 40}},
    {{1, 4, 4, 60, 40, 8, 16}, {.causal = true, .window = 9, .sinks = 2}, {60, 40, true, 9, 2}},
    {{1, 4, 2, 2, 4500, 8, 16}, {}, {2, 4500}},
};

// attention_bound of tests/attention/backends.hpp for either map, 1e-5 (1 + lambda); a norm divides
// by what is above 0.05 on these data, in its largest case of 4500 keys above 0.01.
TEST(Differential, IsItsFormulaOnEveryPath) {
  for (const Case& c : cases) {
    const Maps<float> x(c.sizes);
    std::vector<float> scale(static_cast<std::size_t>(c.sizes.value_dim));
    for (std::size_t i = 0; i < scale.size(); ++i) scale[i] = 1 + 0.01f * static_cast<float>(i);
    const DifferentialOptions plain{.lambda = 0.3, .norm = std::nullopt, .attend = c.attend};
    const DifferentialOptions normed{.lambda = 0.3,
                                     .lambda_init = 0.2,
                                     .norm = DifferentialNorm{.scale = scale},
                                     .attend = c.attend};
    const auto wanted = expected(x, plain, c.sees), scaled = expected(x, normed, c.sees, scale);
    EXPECT_LE(worst(difference_of(pare::reference, x, plain), wanted), 1e-6);
    EXPECT_LE(worst(difference_of(pare::reference, x, normed), scaled), 1e-6);
    EXPECT_LE(worst(difference_of(pare::simd, x, plain), wanted), 1.3e-5);
    EXPECT_LE(worst(difference_of(pare::simd, x, normed), scaled), 1e-4);
  }
  const Maps<double> twice(cases[0].sizes);
  const DifferentialOptions normed{.lambda = 0.7, .lambda_init = 0.5};
  EXPECT_LE(worst(difference_of(pare::simd, twice, normed), expected(twice, normed, {70, 150})),
            1e-12);
}

// Rounded weights move either map by at most 2e-2; so does the rounding of an output below 4.
TEST(Differential, StoresSixteenBits) {
  const Maps<bf16> x(cases[0].sizes);
  const DifferentialOptions plain{.lambda = 0.3, .norm = std::nullopt};
  const DifferentialOptions normed{.lambda = 0.3, .lambda_init = 0.2};
  EXPECT_LE(worst(difference_of(pare::simd, x, plain), expected(x, plain, {70, 150})), 2.6e-2);
  const auto wide = difference_of(pare::simd, x, normed);
  const auto narrow =
      difference_of<pare::Simd<pare::arch::best>, bf16, bf16>(pare::simd, x, normed);
  for (std::size_t i = 0; i < wide.size(); ++i)
    EXPECT_EQ(static_cast<float>(narrow[i]), static_cast<float>(bf16(wide[i])));
}

TEST(Differential, LambdaOfZeroIsAttention) {
  for (const Case& c : cases) {
    const Maps<float> x(c.sizes);
    const DifferentialOptions none{.lambda = 0, .norm = std::nullopt, .attend = c.attend};
    const auto plain = attended(pare::simd, x.first, c.attend).out.list;
    const auto got = difference_of(pare::simd, x, none);
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], plain[i], 1e-6);
  }
}

// Of many rows, values that lie as several panels are read where they lie, by both maps.
TEST(Differential, ManyRowsGiveTheDifferenceOfTwoCalls) {
  Maps<float> x(Sizes{1, 32, 8, 210, 140, 8, 128});
  x.second.v = x.first.v;
  const auto first = attended(pare::simd, x.first).out.list;
  const auto second = attended(pare::simd, x.second).out.list;
  const auto got = difference_of(pare::simd, x, {.lambda = 0.3, .norm = std::nullopt});
  double off = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    off = std::max(off, std::abs(static_cast<double>(got[i]) - static_cast<double>(first[i]) +
                                 0.3 * static_cast<double>(second[i])));
  EXPECT_LE(off, 1e-6);
}

TEST(Differential, EqualMapsCancelToZero) {
  for (const Case& c : cases) {
    Maps<float> x(c.sizes);
    x.second = x.first;
    for (const float y :
         difference_of(pare::simd, x, {.lambda = 1, .lambda_init = 0.2, .attend = c.attend}))
      EXPECT_EQ(y, 0);
  }
}

TEST(Differential, NanOfEitherMapStaysInTheRowsThatSeeIt) {
  for (const bool second : {false, true}) {
    Maps<float> x(cases[1].sizes);
    (second ? x.second : x.first).k(0, 1, 100, 3) = std::nanf("");
    const auto y = difference_of(pare::simd, x,
                                 {.lambda = 0.5, .norm = std::nullopt, .attend = {.causal = true}});
    for (Index h = 0; h < 2; ++h)
      for (Index i = 0; i < 150; ++i)
        EXPECT_EQ(std::isfinite(y[static_cast<std::size_t>((h * 150 + i) * 32)]),
                  h == 0 || i < 100);
  }
}

TEST(Differential, PackedSequencesAreThemselves) {
  const Maps<float> x(Sizes{1, 2, 1, 50, 80, 8, 16});
  const std::vector<Index> queries{0, 20, 50}, keys{0, 30, 80};
  const DifferentialOptions o{
      .lambda = 0.3,
      .norm = std::nullopt,
      .attend = {.causal = true, .query_offsets = queries, .key_offsets = keys}};
  struct Packed {
    bool operator()(Index, Index, Index i, Index j) const {
      return i < 20 ? j < 30 && j <= i + 10 : j >= 30 && j - 30 <= i;
    }
  };
  const Sizes& s = x.first.sizes;
  for (const bool definition : {true, false}) {
    const auto y =
        definition ? difference_of(pare::reference, x, o) : difference_of(pare::simd, x, o);
    for (Index h = 0; h < 2; ++h) {
      const auto visible = [](Index i, Index j) { return Packed{}(0, 0, i, j); };
      const double c = 1 / std::sqrt(8.0);
      const auto one = dense_attention(x.first.q.head(0, h), x.first.k.head(0, 0),
                                       x.first.v.head(0, 0), c, visible);
      const auto two = dense_attention(x.second.q.head(0, h), x.second.k.head(0, 0),
                                       x.first.v.head(0, 0), c, visible);
      for (Index i = 0; i < s.queries; ++i)
        EXPECT_NEAR(y[static_cast<std::size_t>((h * 50 + i) * 16 + 5)],
                    one.out(i, 5) - 0.3 * two.out(i, 5), 1.3e-5);
    }
  }
}

TEST(Differential, SameBitsForAnyThreadsAndNothingAllocatedTwice) {
  for (const std::size_t i : {std::size_t{0}, std::size_t{5}}) {
    const Maps<float> x(cases[i].sizes);
    const DifferentialOptions o{.lambda = 0.3, .lambda_init = 0.2};
    pare::testing::same_bits_for_any_threads(
        pare::simd, [&](const auto& backend) { return difference_of(backend, x, o); });
    pare::Workspace workspace;
    Outputs<float> y(x.first.sizes);
    const auto call = [&] {
      differential(pare::simd.with(workspace), x.first.q.view(), x.first.k.view(),
                   x.second.q.view(), x.second.k.view(), x.first.v.view(), y.out.writable(), o);
    };
    call();
    const long before = pare::testing::allocations.load();
    call();
    EXPECT_EQ(pare::testing::allocations.load(), before);
  }
}

TEST(DifferentialLambda, IsItsFormula) {
  const std::vector<float> a{0.5f, -0.25f}, b{0.1f, 0.3f}, c{0.2f, 0.2f};
  const auto [lambda, init] = differential_lambda(a, b, c, b, 3);
  EXPECT_NEAR(init, 0.8 - 0.6 * std::exp(-0.9), 1e-15);
  EXPECT_NEAR(lambda, std::exp(0.05 - 0.075) - std::exp(0.08) + init, 1e-7);
  EXPECT_NEAR(differential_lambda({}, {}, {}, {}, 0).lambda_init, 0.2, 1e-15);
  const std::vector<float> large{1e3f, 0};
  const std::string name = "attention::differential_lambda";
  pare::testing::refusal([&] { differential_lambda(a, b, c, b, -1); }, name, "layer");
  pare::testing::refusal([&] { differential_lambda({}, b, c, b, 1); }, name, "lq1, lk1");
  pare::testing::refusal([&] { differential_lambda(a, b, c, {}, 1); }, name, "lq2, lk2");
  pare::testing::refusal([&] { differential_lambda(large, large, c, b, 1); }, name, "lq1, lk1");
}

TEST(Differential, RefusesWhatHasNoMeaning) {
  const Maps<float> x(Sizes{2, 4, 2, 5, 7, 8, 6}), other(Sizes{2, 4, 2, 5, 8, 8, 6}),
      wider(Sizes{2, 4, 2, 5, 7, 9, 6});
  Outputs<float> y(x.first.sizes);
  y.out.list.assign(y.out.list.size(), 0.5f);
  const DifferentialOptions good{.lambda = 0.3, .lambda_init = 0.2};
  const auto expect = [&](const DifferentialOptions& o, const std::string& argument,
                          const Inputs<float>& second) {
    for (const bool definition : {true, false})
      pare::testing::refuses_and_leaves_alone(
          [&] {
            const auto call = [&](const auto& backend) {
              differential(backend, x.first.q.view(), x.first.k.view(), second.q.view(),
                           second.k.view(), x.first.v.view(), y.out.writable(), o);
            };
            definition ? call(pare::reference) : call(pare::simd);
          },
          "attention::differential", argument, y.out.list);
  };
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  expect(good, "k2", other.first);
  expect(good, "q2", wider.first);
  expect({.lambda_init = 0.2}, "lambda", x.second);
  expect({.lambda = nan, .lambda_init = 0.2}, "lambda", x.second);
  expect({.lambda = 1e39, .lambda_init = 0.2}, "lambda", x.second);  // of float
  expect({.lambda = 0.3}, "lambda_init", x.second);
  expect({.lambda = 0.3, .lambda_init = -1e39}, "lambda_init", x.second);
  expect({.lambda = 0.3, .lambda_init = nan}, "lambda_init", x.second);
  const auto with_norm = [&](const DifferentialNorm& norm) {
    return DifferentialOptions{.lambda = 0.3, .lambda_init = 0.2, .norm = norm};
  };
  const std::vector<float> few(5, 1.0f);
  expect(with_norm({.scale = few}), "norm.scale", x.second);
  std::vector<float> scale(6, 1.0f);
  scale[5] = std::numeric_limits<float>::quiet_NaN();
  expect(with_norm({.scale = scale}), "norm.scale", x.second);
  scale[5] = std::numeric_limits<float>::infinity();
  expect(with_norm({.scale = scale}), "norm.scale", x.second);
  scale[5] = 1e20f;
  expect({.lambda = 0.3, .lambda_init = -1e20, .norm = DifferentialNorm{.scale = scale}},
         "norm.scale", x.second);
  expect(with_norm({.epsilon = -1}), "epsilon", x.second);
  expect(with_norm({.epsilon = nan}), "epsilon", x.second);
  expect(with_norm({.epsilon = 1e39}), "epsilon", x.second);
  expect(with_norm({.scale = std::span<const float>(y.out.list.data(), 6)}), "out", x.second);
  const auto with = [&](const AttendOptions& a) {
    return DifferentialOptions{.lambda = 0.3, .lambda_init = 0.2, .attend = a};
  };
  const KeyOrder order({1, 1, 7}, pare::testing::random_orders(1, 7, 3));
  const std::vector<float> sinks(4, 0.0f);
  expect(with({.order = &order}), "order, mask", x.second);
  expect(with({.sink_logits = sinks}), "sink_logits", x.second);
  expect(with({.lse = y.lse_view()}), "lse", x.second);
  expect(with({.window = 0}), "window", x.second);
  expect(with({.scale = nan}), "scale", x.second);
  Inputs<float> over = x.second;
  pare::testing::refusal(
      [&] {
        differential(
            x.first.q.view(), x.first.k.view(), over.q.view(), over.k.view(), x.first.v.view(),
            pare::TensorView<float, 4>{over.k.list.data(), {2, 4, 5, 6}, {120, 30, 6, 1}}, good);
      },
      "attention::differential", "out");
}

}  // namespace
}  // namespace attention_differential_test
