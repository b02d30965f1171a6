// SPDX-License-Identifier: Apache-2.0
// Heads that are normal, uniform or off, against means over the keys that a query sees.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include <pare/attention/heads/head_modes.hpp>
#include <pare/core/aligned_buffer.hpp>

#include "attention/attend_calls.hpp"
#include "attention/sources.hpp"
#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace attention_head_modes_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::attention::attend;
using pare::attention::AttendOptions;
using pare::attention::BlockMask;
using pare::attention::HeadMode;
using pare::attention::HeadModes;
using pare::attention::KeyOrder;
using pare::attention::ScorePlace;
using pare::testing::all_same_bits;
using pare::testing::attended;
using pare::testing::Inputs;
using pare::testing::Outputs;
using pare::testing::Pages;
using pare::testing::same_outputs;
using pare::testing::Sees;
using pare::testing::Sizes;

constexpr HeadMode n = HeadMode::Normal, u = HeadMode::Uniform, z = HeadMode::Zero;
using Modes = std::vector<HeadMode>;
const Modes mixed{n, u, z, u}, every{u, u, u, u};

template <class B, class S, class O = pare::compute_t<S>>
Outputs<S, O> switched(const B& backend, const Inputs<S>& x, const Modes& modes,
                       AttendOptions options = {}) {
  Outputs<S, O> y(x.sizes);
  options.lse = y.lse_view();
  attend(backend, x.q.view(), x.k.view(), x.v.view(), y.out.writable(), HeadModes{modes}, options);
  return y;
}

/// Uniform heads are the mean of what `sees` shows, in long double; heads that are off are 0.
template <class S, class O, class See>
void expect_means(const Inputs<S>& x, const Outputs<S, O>& y, const Modes& modes, const See& sees,
                  double bound, const std::vector<float>& sinks = {}) {
  const Sizes& s = x.sizes;
  double worst = 0, worst_lse = 0;
  for (Index b = 0; b < s.batch; ++b)
    for (Index h = 0; h < s.heads; ++h) {
      const auto at = static_cast<std::size_t>(h);
      for (Index i = 0; modes[at] != n && i < s.queries; ++i) {
        std::vector<long double> sum(static_cast<std::size_t>(s.value_dim), 0.0L);
        long double count = sinks.empty() ? 0.0L : std::exp(static_cast<long double>(sinks[at]));
        for (Index j = 0; modes[at] == u && j < s.keys; ++j) {
          if (!sees(b, h, i, j)) continue;
          count += 1;
          for (Index c = 0; c < s.value_dim; ++c)
            sum[static_cast<std::size_t>(c)] += static_cast<long double>(
                static_cast<pare::compute_t<S>>(x.v(b, h / (s.heads / s.kv_heads), j, c)));
        }
        const bool off = modes[at] == z || count == 0;
        for (Index c = 0; c < s.value_dim; ++c) {
          const auto got = static_cast<double>(static_cast<pare::compute_t<O>>(y.out(b, h, i, c)));
          if (off)
            EXPECT_EQ(got, 0);
          else
            worst = std::max(
                worst, pare::testing::distance(
                           got, static_cast<double>(sum[static_cast<std::size_t>(c)] / count)));
        }
        worst_lse = std::max(worst_lse,
                             pare::testing::distance(static_cast<double>(y.lse(b, h, i, 0)),
                                                     off ? -std::numeric_limits<double>::infinity()
                                                         : static_cast<double>(std::log(count))));
      }
    }
  EXPECT_LE(worst, bound);
  EXPECT_LE(worst_lse, 16 * std::numeric_limits<pare::compute_t<S>>::epsilon());
}

struct Case {
  Sizes sizes;
  AttendOptions options;
  Sees sees;
};
// Widths of whole runs of 16 columns, their tails, and parts of 32; windows with sinks, and rows
// that see nothing (more queries than keys).
const Case cases[] = {
    {{2, 4, 2, 70, 150, 8, 5}, {.causal = true}, {70, 150, true}},
    {{1, 4, 1, 70, 150, 8, 64}, {}, {70, 150}},
    {{1, 4, 2, 300, 300, 8, 37}, {.causal = true, .window = 9, .sinks = 3}, {300, 300, true, 9, 3}},
    {{1, 4, 4, 40, 100, 8, 32}, {.window = 1}, {40, 100, false, 1}},
    {{1, 4, 2, 60, 40, 8, 33}, {.causal = true, .window = 30}, {60, 40, true, 30}},
    {{1, 4, 2, 60, 40, 8, 16}, {.window = 25, .sinks = 50}, {60, 40, false, 25, 50}},
    {{1, 4, 2, 1, 200, 8, 32}, {.causal = true}, {1, 200, true}},
};

// Floats join the sums in blocks of 8: a mean is off by 12 units of 2^-24 of the mean of |values|,
// which is below 1.2 for eight and more of them and exact for one: 9e-7. Sums of doubles are off by
// count 2^-53.
constexpr double mean_bound = 9e-7;

TEST(HeadModes, UniformHeadsAreMeansOfWhatTheySee) {
  for (const Case& c : cases) {
    const Inputs<float> x(c.sizes);
    for (const Modes& modes : {mixed, every}) {
      expect_means(x, switched(pare::reference, x, modes, c.options), modes, c.sees, mean_bound);
      expect_means(x, switched(pare::simd, x, modes, c.options), modes, c.sees, mean_bound);
    }
    const Inputs<double> twice(c.sizes);
    expect_means(twice, switched(pare::simd, twice, every, c.options), every, c.sees, 1e-14);
    const Inputs<bf16> half(c.sizes);
    expect_means(half, switched(pare::simd, half, every, c.options), every, c.sees, mean_bound);
    expect_means(
        half,
        switched<pare::Simd<pare::arch::best>, bf16, bf16>(pare::simd, half, every, c.options),
        every, c.sees, 4.5 / 256);
  }
}

// Sums begin anew twice, with and without a window; out is large enough to be streamed.
TEST(HeadModes, LongSequencesBeginTheirSumsAnew) {
  const Inputs<float> x(Sizes{1, 8, 1, 9000, 9000, 1, 32});
  const Modes all(8, u);
  const auto y = switched(pare::simd, x, all, {.causal = true});
  const auto w = switched(pare::simd, x, all, {.causal = true, .window = 700, .sinks = 2});
  pare::AlignedBuffer<float> lines(y.out.list.size());  // written past the caches
  attend(x.q.view(), x.k.view(), x.v.view(),
         pare::TensorView<float, 4>{lines.data(), y.out.extent, y.out.stride}, HeadModes{all},
         {.causal = true});
  EXPECT_TRUE(std::equal(y.out.list.begin(), y.out.list.end(), lines.data()));
  std::vector<double> prefix(32, 0.0);
  for (Index i = 0; i < 9000; ++i)
    for (Index c = 0; c < 32; ++c) {
      double& sum = prefix[static_cast<std::size_t>(c)];
      sum += static_cast<double>(x.v(0, 0, i, c));
      ASSERT_NEAR(y.out(0, 7, i, c), sum / static_cast<double>(i + 1), mean_bound) << i;
      if (i % 997 != 0 && i != 4096 && i != 8192) continue;
      double seen = 0;
      const Index first = std::max<Index>(0, i - 699);
      for (Index j = first; j <= i; ++j) seen += static_cast<double>(x.v(0, 0, j, c));
      for (Index j = 0; j < std::min<Index>(2, first); ++j)
        seen += static_cast<double>(x.v(0, 0, j, c));
      const auto count = static_cast<double>(i - first + 1 + std::min<Index>(2, first));
      ASSERT_NEAR(w.out(0, 3, i, c), seen / count, mean_bound) << i;
    }
}

TEST(HeadModes, NormalHeadsAreThoseOfAttend) {
  for (const Case& c : cases) {
    const Inputs<float> x(c.sizes);
    const Modes normal(4, n);
    const auto plain = attended(pare::simd, x, c.options);
    EXPECT_TRUE(same_outputs(switched(pare::simd, x, normal, c.options), plain));
    const auto some = switched(pare::simd, x, mixed, c.options);
    for (Index b = 0; b < c.sizes.batch; ++b)
      for (Index i = 0; i < c.sizes.queries; ++i)
        EXPECT_NEAR(some.out(b, 0, i, 0), plain.out(b, 0, i, 0), 1e-6);
  }
  const Inputs<bf16> half(cases[0].sizes);
  EXPECT_TRUE(same_outputs(switched(pare::simd, half, Modes(4, n)), attended(pare::simd, half)));
}

/// The mask as AttentionInfluence has it: scores of 0.
struct EqualScores {
  template <class T>
  T modify(T, const ScorePlace&) const noexcept {
    return T(0);
  }
};

TEST(HeadModes, UniformIsAttentionWithEqualScores) {
  const std::vector<float> sinks{0.5f, -1, 3, -std::numeric_limits<float>::infinity()};
  for (const Case& c : cases) {
    const Inputs<float> x(c.sizes);
    AttendOptions options = c.options;
    for (const bool learned : {false, true}) {
      if (learned) options.sink_logits = sinks;
      const auto scored = attended(pare::simd, x, options, EqualScores{});
      EXPECT_LE(difference(switched(pare::simd, x, every, options), scored), 2e-6);
      EXPECT_LE(difference(switched(pare::reference, x, every, options), scored), 2e-6);
    }
  }
}

TEST(HeadModes, UniformRowsDoNotDependOnQueriesAndKeys) {
  const Inputs<float> x(cases[0].sizes);
  Inputs<float> other = x;
  other.q = Inputs<float>(cases[0].sizes, 9).q;
  other.k = Inputs<float>(cases[0].sizes, 9).k;
  EXPECT_TRUE(same_outputs(switched(pare::simd, x, every), switched(pare::simd, other, every)));
  const KeyOrder order({1, 1, 150}, pare::testing::random_orders(1, 150, 3));
  EXPECT_TRUE(same_outputs(switched(pare::simd, x, every),
                           switched(pare::simd, x, every, {.order = &order})));
}

TEST(HeadModes, NanAndInfinityStayInTheRowsThatSeeThem) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    Inputs<float> x(cases[2].sizes);
    x.v(0, 0, 100, 20) = bad;
    const auto y = switched(pare::simd, x, every, cases[2].options);
    for (Index i = 0; i < 300; ++i)
      for (const Index c : {19, 20})
        EXPECT_EQ(std::isfinite(y.out(0, 1, i, c)), c != 20 || i < 100 || i > 108) << i;
  }
}

// Rows that no longer see a large value have the mean of what they see.
template <class S>
void expect_forgotten(double large) {
  for (const Index window : {9, 100}) {
    const Sizes sizes{1, 4, 2, 300, 300, 8, 37};
    const Sees sees{300, 300, true, window, 3};
    Inputs<S> x(sizes);
    for (const Index row : {60, 61, 150})
      x.v(0, 0, row, 20) = static_cast<S>(static_cast<pare::compute_t<S>>(large));
    x.v(0, 0, 70, 3) = static_cast<S>(static_cast<pare::compute_t<S>>(-large));
    const auto y = switched(pare::simd, x, every, {.causal = true, .window = window, .sinks = 3});
    for (Index i = 0; i < 300; ++i)
      for (Index c = 0; c < 37; ++c) {
        long double sum = 0, size = 0, count = 0;
        for (Index j = 0; j < 300; ++j) {
          if (!sees(0, 0, i, j)) continue;
          const auto v = static_cast<long double>(static_cast<pare::compute_t<S>>(x.v(0, 0, j, c)));
          sum += v;
          size += std::abs(v);
          count += 1;
        }
        ASSERT_NEAR(static_cast<double>(y.out(0, 1, i, c)), static_cast<double>(sum / count),
                    static_cast<double>(size / count) * mean_bound)
            << window << ' ' << i << ' ' << c;
      }
  }
}
TEST(HeadModes, LargeValuesThatHaveLeftAreForgotten) {
  expect_forgotten<float>(1e30);
  expect_forgotten<double>(1e300);
  expect_forgotten<bf16>(3e38);
}

// Denormal numbers are near: what is scaled on the way must not fall among them.
TEST(HeadModes, SmallValuesHaveAMean) {
  Inputs<float> x(Sizes{1, 8, 1, 5000, 5000, 1, 32});
  std::fill(x.v.list.begin(), x.v.list.end(), 1.2345678e-37f);
  const auto y = switched(pare::simd, x, Modes(8, u), {.causal = true});
  for (Index i = 0; i < 5000; ++i)
    ASSERT_NEAR(y.out(0, 5, i, 7) / 1.2345678e-37f, 1, 12 * 0x1p-24) << i;
}

// Their sums are no floats.
TEST(HeadModes, LargeValuesHaveAMean) {
  Inputs<float> x(cases[2].sizes);
  std::fill(x.v.list.begin(), x.v.list.end(), 3e38f);
  for (const AttendOptions& options : {AttendOptions{.causal = true}, cases[2].options})
    for (const float y : switched(pare::simd, x, every, options).out.list)
      ASSERT_NEAR(y, 3e38f, 3e38f * 1e-6f);
}

TEST(HeadModes, SourcesLengthsAndPackedSequences) {
  Inputs<float> x(Sizes{2, 4, 2, 30, 90, 8, 32});
  const pare::testing::Int8Rows rows(x);
  const std::vector<Index> lengths{50, 90};
  const Pages<float> pages(x, lengths, 16, pare::testing::Layout::by_token);
  const auto expect = [&](const auto& backend, const auto& source, const Sees& sees) {
    Outputs<float> y(x.sizes);
    attend(backend, x.q.view(), source, y.out.writable(), HeadModes{mixed},
           {.causal = true, .window = 20, .sinks = 1, .lse = y.lse_view()});
    expect_means(x, y, mixed, sees, mean_bound);
  };
  expect(pare::simd, pages.source(), Sees{30, 90, true, 20, 1, lengths});
  expect(pare::reference, pages.source(), Sees{30, 90, true, 20, 1, lengths});
  expect(pare::simd, rows, Sees{30, 90, true, 20, 1});
  const AttendOptions shorter{.causal = true, .key_lengths = lengths};
  expect_means(x, switched(pare::simd, x, every, shorter), every, Sees{30, 90, true, 0, 0, lengths},
               mean_bound);
  const Inputs<float> packed(Sizes{1, 4, 2, 50, 80, 8, 32});
  const std::vector<Index> queries{0, 20, 50}, keys{0, 30, 80};
  const auto y = switched(pare::simd, packed, every,
                          {.causal = true, .query_offsets = queries, .key_offsets = keys});
  expect_means(
      packed, y, every,
      [](Index, Index, Index i, Index j) {
        return i < 20 ? j < 30 && j <= i + 10 : j >= 30 && j - 30 <= i - 20 + 20;
      },
      mean_bound);
}

TEST(HeadModes, SameBitsForAnyThreadsAndNothingAllocatedTwice) {
  const Inputs<float> x(cases[1].sizes);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    return switched(backend, x, mixed, {.causal = true, .window = 20}).out.list;
  });
  pare::Workspace workspace;
  Outputs<float> y(x.sizes);
  const auto call = [&] {
    attend(pare::simd.with(workspace), x.q.view(), x.k.view(), x.v.view(), y.out.writable(),
           HeadModes{mixed}, {.causal = true});
  };
  call();
  const long before = pare::testing::allocations.load();
  call();
  EXPECT_EQ(pare::testing::allocations.load(), before);
}

TEST(HeadModes, RefusesWhatHasNoMeaning) {
  const Inputs<float> x(cases[0].sizes);
  Outputs<float> y(x.sizes);
  y.out.list.assign(y.out.list.size(), 0.0f);
  const auto expect = [&](std::span<const HeadMode> modes, const std::string& argument,
                          const AttendOptions& options = {}) {
    for (const bool definition : {true, false})
      pare::testing::refuses_and_leaves_alone(
          [&] {
            if (definition)
              attend(pare::reference, x.q.view(), x.k.view(), x.v.view(), y.out.writable(),
                     HeadModes{modes}, options);
            else
              attend(x.q.view(), x.k.view(), x.v.view(), y.out.writable(), HeadModes{modes},
                     options);
          },
          "attention::attend", argument, y.out.list);
  };
  expect(Modes(3, n), "modes");
  expect({}, "modes");
  expect(Modes{n, u, static_cast<HeadMode>(3), n}, "modes");
  expect({reinterpret_cast<const HeadMode*>(y.out.list.data()), 4}, "out");
  std::fill(y.lse.list.begin(), y.lse.list.end(), 0.0f);
  expect({reinterpret_cast<const HeadMode*>(y.lse.list.data()), 4}, "lse", {.lse = y.lse_view()});
  const BlockMask mask = BlockMask::from_predicate({1, 1, 70, 150, 32, 32},
                                                   [](Index, Index, Index, Index) { return true; });
  expect(mixed, "mask", {.mask = &mask});
  expect(every, "window", {.window = 0});
  Outputs<float> off(x.sizes);
  attend(x.q.view(), x.k.view(), x.v.view(), off.out.writable(), HeadModes{Modes{n, z, n, z}},
         {.mask = &mask, .lse = off.lse_view()});
  EXPECT_EQ(off.out(1, 3, 7, 2), 0);
  const Inputs<float> none(Sizes{1, 4, 2, 0, 10, 8, 5}), no_keys(Sizes{1, 4, 2, 3, 0, 8, 5});
  switched(pare::simd, none, mixed);
  expect_means(no_keys, switched(pare::simd, no_keys, every), every, Sees{3, 0}, 0);
}

}  // namespace
}  // namespace attention_head_modes_test
