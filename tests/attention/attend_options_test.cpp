// SPDX-License-Identifier: Apache-2.0
// Windows of two sides, the place of the first query, learned sinks, boolean masks and the layout
// of other libraries, on the reference and the fast backend.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <pare/attention/attend.hpp>
#include <unsupported/Eigen/CXX11/Tensor>

#include "attention/attend_calls.hpp"
#include "attention/data.hpp"
#include "support/tolerance.hpp"

namespace attention_attend_options_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::TensorView;
using pare::attention::alibi_of;
using pare::attention::attend;
using pare::attention::AttendOptions;
using pare::attention::bias_of;
using pare::attention::Chain;
using pare::attention::heads_first;
using pare::attention::key_mask_of;
using pare::attention::KeyOrder;
using pare::attention::LogSumExp;
using pare::attention::SoftCap;
using pare::testing::all_same_bits;
using pare::testing::attended;
using pare::testing::expect_attention;
using pare::testing::Inputs;
using pare::testing::Layout;
using pare::testing::Outputs;
using pare::testing::random_orders;
using pare::testing::same_bits;
using pare::testing::Sees;
using pare::testing::Sizes;
using pare::testing::Tensor;

constexpr Index largest = std::numeric_limits<Index>::max();
constexpr float infinity = std::numeric_limits<float>::infinity();

/// On both backends, as many queries as keys, and a few queries against parts of many keys.
template <class F>
void on_both(const F& f) {
  for (const Sizes& s : {Sizes{2, 4, 2, 60, 60, 8, 5}, Sizes{1, 2, 1, 3, 2500, 8, 5}}) {
    const Inputs<float> x(s);
    f(pare::reference, x);
    f(pare::simd, x);
  }
}

TEST(AttendOptions, WindowsOfTwoSides) {
  using Side = std::optional<Index>;
  on_both([](const auto& backend, const Inputs<float>& x) {
    for (const auto& [left, right] : {std::pair<Side, Side>{20, 0},
                                      {0, 20},
                                      {7, {}},
                                      {{}, 7},
                                      {0, 0},
                                      {{}, {}},
                                      {3000, largest}})
      for (const bool causal : {false, true})
        for (const Index sinks : {0, 9})
          expect_attention(
              x,
              attended(
                  backend, x,
                  {.causal = causal, .window_left = left, .window_right = right, .sinks = sinks}),
              1e-5,
              [&, l = left.value_or(largest), r = right.value_or(largest)](Index, Index, Index i,
                                                                           Index j) {
                const Index p = i + x.sizes.keys - x.sizes.queries;
                return (!causal || j <= p) && (j < sinks || (p - j <= l && j - p <= r));
              });
  });
}

TEST(AttendOptions, AWindowIsTheSidesItHas) {
  on_both([](const auto& backend, const Inputs<float>& x) {
    for (const bool causal : {false, true})
      EXPECT_TRUE(same_outputs(
          attended(backend, x, {.causal = causal, .window = 31, .sinks = 4}),
          attended(backend, x,
                   {.causal = causal, .window_left = 30, .window_right = 30, .sinks = 4})));
  });
}

TEST(AttendOptions, AWindowPastAllTokensIsNone) {
  on_both([](const auto& backend, const Inputs<float>& x) {
    const Outputs<float> wanted = attended(backend, x, {.causal = true});
    for (const Index window : {Index{1} << 30, Index{2147483647}, largest})
      EXPECT_TRUE(same_outputs(attended(backend, x, {.causal = true, .window = window, .sinks = 3}),
                               wanted));
  });
}

TEST(AttendOptions, TheFirstQueryStandsWhereTheCallSays) {
  on_both([](const auto& backend, const Inputs<float>& x) {
    for (const Index offset : {Index{0}, Index{17}, Index{-5}, Index{4000}})
      for (const std::optional<Index> window : {std::optional<Index>{}, std::optional<Index>{12}})
        expect_attention(
            x, attended(backend, x, {.causal = true, .window = window, .query_offset = offset}),
            1e-5, [&](Index, Index, Index i, Index j) {
              const Index p = i + offset;
              return j <= p && (!window || p - j < *window);
            });
    const Index usual = x.sizes.keys - x.sizes.queries;
    EXPECT_TRUE(same_outputs(attended(backend, x, {.causal = true, .query_offset = usual}),
                             attended(backend, x, {.causal = true})));
  });
}

TEST(AttendOptions, ModifiersAreToldWhereTheQueryStands) {
  const std::vector<float> slopes{0.5f, 0.25f, 0.125f, 0.0625f};
  on_both([&](const auto& backend, const Inputs<float>& x) {
    const std::span<const float> of_heads(slopes.data(), static_cast<std::size_t>(x.sizes.heads));
    expect_attention(x, attended(backend, x, {.query_offset = 11}, alibi_of(of_heads)), 1e-5,
                     Sees{x.sizes.queries, x.sizes.keys},
                     [&](Index, Index h, Index i, Index j, long double score) {
                       return score -
                              static_cast<long double>(slopes[static_cast<std::size_t>(h)]) *
                                  static_cast<long double>(std::abs(i + 11 - j));
                     });
  });
}

// A sink is a key whose score is its logit and whose value is 0.
TEST(AttendOptions, LearnedSinksShareTheSoftmax) {
  on_both([](const auto& backend, const Inputs<float>& x) {
    const Sizes& s = x.sizes;
    std::vector<float> logits{3, -infinity, -40, 1.5f};
    logits.resize(static_cast<std::size_t>(s.heads));
    Sizes wider = s;
    ++wider.keys;
    Inputs<float> extended(wider);
    extended.q = x.q;
    for (Index b = 0; b < s.batch; ++b)
      for (Index h = 0; h < s.kv_heads; ++h)
        for (Index j = 0; j <= s.keys; ++j)
          for (Index c = 0; c < 8; ++c) {
            extended.k(b, h, j, c) = j < s.keys ? x.k(b, h, j, c) : 0;
            if (c < 5) extended.v(b, h, j, c) = j < s.keys ? x.v(b, h, j, c) : 0;
          }
    // Query 0 sees no key of its own under this offset.
    expect_attention(
        extended, attended(backend, x, {.causal = true, .query_offset = -1, .sink_logits = logits}),
        1e-5,
        [&](Index, Index h, Index i, Index j) {
          return j < s.keys ? j <= i - 1 : logits[static_cast<std::size_t>(h)] > -infinity;
        },
        [&](Index, Index h, Index, Index j, long double score) {
          return j < s.keys ? score : static_cast<long double>(logits[static_cast<std::size_t>(h)]);
        });
    const std::vector<float> none(logits.size(), -infinity);
    EXPECT_TRUE(same_outputs(attended(backend, x, {.sink_logits = none}), attended(backend, x)));
  });
}

TEST(AttendOptions, SinksOfManyThreadsAndOfBf16) {
  const Inputs<bf16> x(Sizes{1, 4, 2, 3, 5000, 8, 5});
  const std::vector<float> logits{6, 5, -1, 7};
  const AttendOptions options{.sink_logits = logits};
  const Outputs<bf16> one = attended(pare::simd, x, options);
  EXPECT_TRUE(same_outputs(attended(pare::simd.threads(3), x, options), one));
  const Outputs<bf16> plain = attended(pare::simd, x);
  for (Index h = 0; h < 4; ++h)
    for (Index i = 0; i < 3; ++i) {
      const double lse = static_cast<double>(plain.lse(0, h, i, 0));
      const double sink = static_cast<double>(logits[static_cast<std::size_t>(h)]);
      EXPECT_NEAR(one.lse(0, h, i, 0), std::log(std::exp(lse) + std::exp(sink)), 1e-5);
      for (Index c = 0; c < 5; ++c)
        EXPECT_NEAR(one.out(0, h, i, c), plain.out(0, h, i, c) / (1 + std::exp(sink - lse)), 2e-3);
    }
}

// Weights are rounded to bf16 before the values, but not before the log-sum-exp.
TEST(AttendOptions, TheLogSumExpOfBf16SumsInFloat) {
  for (const Sizes& s : {Sizes{1, 2, 1, 40, 300, 64, 8}, Sizes{1, 2, 1, 2, 5000, 64, 8}}) {
    const Inputs<bf16> x(s);
    const Outputs<bf16> got = attended(pare::simd, x, {.causal = true});
    const Outputs<bf16> wanted = attended(pare::reference, x, {.causal = true});
    for (std::size_t i = 0; i < got.lse.list.size(); ++i)
      EXPECT_NEAR(got.lse.list[i], wanted.lse.list[i], 1e-5) << i;
  }
}

/// Booleans in the shape of a tensor.
struct Booleans {
  std::array<Index, 4> extent;
  std::unique_ptr<bool[]> list;

  template <class F>
  Booleans(std::array<Index, 4> e, const F& f)
      : extent(e), list(std::make_unique<bool[]>(static_cast<std::size_t>(size()))) {
    for (Index i = 0; i < size(); ++i) list[static_cast<std::size_t>(i)] = f(i);
  }
  Index size() const { return extent[0] * extent[1] * extent[2] * extent[3]; }
  TensorView<const bool, 4> view() const {
    return {list.get(),
            extent,
            {extent[1] * extent[2] * extent[3], extent[2] * extent[3], extent[3], 1}};
  }
  TensorView<const bool, 2> matrix() const {
    return {list.get(), {extent[0], extent[3]}, {extent[3], 1}};
  }
};

// Of hidden keys nothing is read: their keys and values may be NaN.
TEST(AttendOptions, KeysHiddenFromAllMayHoldAnything) {
  on_both([](const auto& backend, const Inputs<float>& x) {
    const Index batch = x.sizes.batch, keys = x.sizes.keys;
    const Booleans seen({batch, 1, 1, keys},
                        [&](Index i) { return i % 7 > 2 && i % keys > keys / 2; });
    Inputs<float> spoiled = x;
    for (Index b = 0; b < batch; ++b)
      for (Index j = 0; j < keys; ++j)
        if (!seen.matrix()(b, j))
          for (Index h = 0; h < x.sizes.kv_heads; ++h) {
            spoiled.k(b, h, j, 1) = std::nanf("");
            spoiled.v(b, h, j, 2) = j % 2 == 0 ? std::nanf("") : infinity;
          }
    const auto visible = [&](Index b, Index h, Index i, Index j) {
      return seen.matrix()(b, j) && Sees{x.sizes.queries, keys, true}(b, h, i, j);
    };
    expect_attention(x, attended(backend, spoiled, {.causal = true}, key_mask_of(seen.matrix())),
                     1e-5, visible);
    expect_attention(x, attended(backend, spoiled, {.causal = true}, key_mask_of(seen.view())),
                     1e-5, visible);
    expect_attention(
        x,
        attended(backend, spoiled, {.causal = true}, Chain{SoftCap{2}, key_mask_of(seen.matrix())}),
        1e-5, visible,
        [](Index, Index, Index, Index, long double score) { return 2 * std::tanh(score / 2); });
    const KeyOrder order({1, 1, keys}, random_orders(1, keys, 3));
    expect_attention(
        x,
        attended(backend, spoiled, {.causal = true, .order = &order}, key_mask_of(seen.matrix())),
        1e-5, visible);
  });
}

// A mask of any extents; a NaN in a hidden score stays out.
TEST(AttendOptions, MasksOfHeadsAndQueries) {
  Inputs<float> x(Sizes{2, 4, 2, 20, 40, 8, 5});
  const Inputs<float> sound = x;
  for (Index b = 0; b < 2; ++b) x.k(b, 0, 5, 0) = std::nanf("");
  for (const std::array<Index, 4>& extent : std::vector<std::array<Index, 4>>{
           {2, 4, 20, 40}, {1, 4, 1, 40}, {2, 1, 20, 40}, {1, 1, 20, 40}}) {
    const Booleans seen(extent, [&](Index i) { return i % 3 != 1 && i % 40 != 5; });
    const auto visible = [&](Index b, Index h, Index i, Index j) {
      const auto at = [&](std::size_t d, Index n) { return extent[d] == 1 ? 0 : n; };
      return seen.view()(at(0, b), at(1, h), at(2, i), j);
    };
    expect_attention(sound, attended(pare::reference, x, {}, key_mask_of(seen.view())), 1e-5,
                     visible);
    expect_attention(sound, attended(pare::simd, x, {}, key_mask_of(seen.view())), 1e-5, visible);
  }
}

TEST(AttendOptions, TensorsOfTokensBeforeHeads) {
  const Sizes s{2, 4, 2, 20, 30, 8, 5};
  const Inputs<float> x(s);
  const Outputs<float> wanted = attended(pare::simd, x, {.causal = true});
  using Eigens = Eigen::Tensor<float, 4, Eigen::RowMajor>;
  const auto turned = [](const Tensor<float>& t) {
    Eigens e(t.extent[0], t.extent[2], t.extent[1], t.extent[3]);
    const auto view = heads_first(e);
    for (Index b = 0; b < t.extent[0]; ++b)
      for (Index h = 0; h < t.extent[1]; ++h)
        for (Index i = 0; i < t.extent[2]; ++i)
          for (Index c = 0; c < t.extent[3]; ++c) {
            e(b, i, h, c) = t(b, h, i, c);
            EXPECT_EQ(&view(b, h, i, c), &e(b, i, h, c));
          }
    return e;
  };
  const Eigens q = turned(x.q), k = turned(x.k), v = turned(x.v);
  Eigens out(2, 20, 4, 5);
  attend(heads_first(q), heads_first(k), heads_first(v), heads_first(out), {.causal = true});
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 4; ++h)
      for (Index i = 0; i < 20; ++i)
        for (Index c = 0; c < 5; ++c)
          EXPECT_TRUE(same_bits(out(b, i, h, c), wanted.out(b, h, i, c)));
}

// What is kept by address is not taken from a temporary that dies with the expression.
using Eigens = Eigen::Tensor<float, 4, Eigen::RowMajor>;
template <class X>
concept Biases = requires(X&& x) { bias_of(std::forward<X>(x)); };
template <class X>
concept Slopes = requires(X&& x) { pare::attention::alibi_of(std::forward<X>(x)); };
template <class X>
concept Turns = requires(X&& x) { heads_first(std::forward<X>(x)); };
static_assert(Biases<Eigens&> && Biases<const Eigens&> && Biases<TensorView<const float, 4>>);
static_assert(!Biases<Eigens> && !Biases<const Eigens>);
static_assert(Slopes<std::vector<float>&> && !Slopes<std::vector<float>>);
static_assert(!Slopes<std::vector<double>&>);
static_assert(Turns<Eigens&> && Turns<TensorView<bf16, 4>> && !Turns<Eigens>);
using Cache = pare::attention::PagedKeyValue<float>;
static_assert(std::is_constructible_v<decltype(Cache::lengths), std::vector<Index>&>);
static_assert(std::is_constructible_v<decltype(Cache::lengths), std::span<const Index>>);
static_assert(!std::is_constructible_v<decltype(Cache::lengths), std::vector<Index>>);
using Eigen3 = Eigen::Tensor<float, 3, Eigen::RowMajor>;
static_assert(std::is_constructible_v<LogSumExp, Eigen3&>);
static_assert(!std::is_constructible_v<LogSumExp, Eigen3>);

}  // namespace
}  // namespace attention_attend_options_test
