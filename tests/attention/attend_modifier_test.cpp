// SPDX-License-Identifier: Apache-2.0
// What modifiers do to scores, against the oracle that does the same in long double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <pare/attention/attend.hpp>

#include "attention/attend_calls.hpp"
#include "attention/data.hpp"
#include "support/tolerance.hpp"

namespace attention_attend_modifier_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::attention::Alibi;
using pare::attention::alibi_of;
using pare::attention::attend;
using pare::attention::AttendOptions;
using pare::attention::bias_of;
using pare::attention::BlockMask;
using pare::attention::Chain;
using pare::attention::KeyOrder;
using pare::attention::ScorePlace;
using pare::attention::SoftCap;
using pare::testing::attended;
using pare::testing::Coins;
using pare::testing::expect_attention;
using pare::testing::Inputs;
using pare::testing::normal_tensor;
using pare::testing::Outputs;
using pare::testing::random_orders;
using pare::testing::same_bits;
using pare::testing::Sees;
using pare::testing::Sizes;
using pare::testing::Tensor;

/// A modifier of a user: it looks at all that it is told, hides some keys, and all of some rows.
struct Patchwork {
  Index first_batch = 0;

  template <class T>
  T modify(T score, const ScorePlace& at) const noexcept {
    if ((at.key + at.query) % 5 == 0 || at.query % 7 == 3)
      return -std::numeric_limits<T>::infinity();
    return score + T(0.25) * static_cast<T>(at.batch - first_batch) -
           T(0.5) * static_cast<T>(at.head % 2) -
           T(0.125) * static_cast<T>((at.query_position - at.key) % 8);
  }
};
static_assert(pare::attention::ScoreModifier<Patchwork>);

/// Kernels do not throw, and so no modifier may.
struct Throwing {
  template <class T>
  T modify(T score, const ScorePlace&) const {
    return score;
  }
};
static_assert(!pare::attention::ScoreModifier<Throwing>);

// expect_attention asks with queries counted from 0; positions follow from the sizes.
long double patched(const Sizes& s, Index b, Index h, Index i, Index j, long double score) {
  return Patchwork{}.modify(score, ScorePlace{b, h, i, i + s.keys - s.queries, j});
}

const Sizes sizes{2, 4, 2, 90, 150, 8, 5};

/// Scores as they are, but scaled before the softmax as those of any modifier.
struct Unchanged {
  template <class T>
  T modify(T score, const ScorePlace&) const noexcept {
    return score;
  }
};

/// The reference and the fast backend, causal and not.
template <class S, class M>
void expect_modified(const M& modifier, double tolerance, const pare::testing::Rescoring& wanted) {
  const Inputs<S> x(sizes);
  const auto expect = [&](const auto& backend) {
    expect_attention(x, attended(backend, x, {}, modifier), tolerance,
                     Sees{sizes.queries, sizes.keys}, wanted);
    expect_attention(x, attended(backend, x, {.causal = true, .window = 70}, modifier), tolerance,
                     Sees{sizes.queries, sizes.keys, true, 70}, wanted);
  };
  expect(pare::reference);
  expect(pare::simd);
}

TEST(AttendModifier, SoftCap) {
  for (const float cap : {0.5f, 2.0f, 50.0f, 1000.0f})
    // A score is off by less than 1e-6 of itself, at most by 3e-7 cap, and an output by at most
    // twice that times sum_j p_j |v_j| < 1.6.
    expect_modified<float>(SoftCap{cap}, 1e-5 + 1e-6 * static_cast<double>(cap),
                           [cap](Index, Index, Index, Index, long double score) {
                             const auto c = static_cast<long double>(cap);
                             return c * std::tanh(score / c);
                           });
}

TEST(AttendModifier, Alibi) {
  const std::vector<float> slopes{0.5f, 0.25f, 0.125f, 0.0625f};
  const Inputs<float> x(sizes);
  const auto expect = [&](const auto& backend) {
    for (const Alibi& alibi : {Alibi{slopes.data()}, alibi_of(slopes)})
      expect_attention(
          x, attended(backend, x, {.causal = true, .window = 70}, alibi), 1e-5,
          Sees{90, 150, true, 70}, [&](Index, Index h, Index i, Index j, long double score) {
            return score - static_cast<long double>(slopes[static_cast<std::size_t>(h)]) *
                               static_cast<long double>(i + 60 - j);
          });
  };
  expect(pare::reference);
  expect(pare::simd);
}

TEST(AttendModifier, ACapTooLargeToMatterChangesNothing) {
  const Inputs<float> x(sizes);
  for (const float cap : {1e8f, 1e30f, std::numeric_limits<float>::max()}) {
    EXPECT_TRUE(same_outputs(attended(pare::simd, x, {.causal = true}, SoftCap{cap}),
                             attended(pare::simd, x, {.causal = true}, Unchanged{})));
    EXPECT_TRUE(same_outputs(attended(pare::reference, x, {.causal = true}, SoftCap{cap}),
                             attended(pare::reference, x, {.causal = true})));
  }
}

TEST(AttendModifier, AlibiCountsDistancesBothWays) {
  const std::vector<float> slopes{0.5f, 0.25f, 0.125f, 0.0625f};
  const Inputs<float> x(sizes);
  const auto expect = [&](const auto& backend) {
    expect_attention(x, attended(backend, x, {}, alibi_of(slopes)), 1e-5, Sees{90, 150},
                     [&](Index, Index h, Index i, Index j, long double score) {
                       return score -
                              static_cast<long double>(slopes[static_cast<std::size_t>(h)]) *
                                  static_cast<long double>(std::abs(i + 60 - j));
                     });
  };
  expect(pare::reference);
  expect(pare::simd);
}

TEST(AttendModifier, BiasOfAnyExtents) {
  const Sizes small{2, 4, 2, 20, 30, 8, 5};
  const Inputs<float> x(small);
  for (unsigned whole = 0; whole < 16; ++whole) {
    const auto extent = [&](unsigned d, Index n) { return (whole >> d & 1u) != 0 ? n : 1; };
    Tensor<float> bias = normal_tensor<float>(
        {extent(0, 2), extent(1, 4), extent(2, 20), extent(3, 30)}, whole,
        whole % 2 == 0 ? pare::testing::Layout::apart : pare::testing::Layout::by_token);
    if (whole == 15)
      for (Index h = 0; h < 4; ++h) bias(1, h, 3, 7) = -std::numeric_limits<float>::infinity();
    const auto wanted = [&](Index b, Index h, Index i, Index j, long double score) {
      const auto at = [&](std::size_t d, Index n) { return bias.extent[d] == 1 ? 0 : n; };
      return score + static_cast<long double>(bias(at(0, b), at(1, h), at(2, i), at(3, j)));
    };
    expect_attention(x, attended(pare::simd, x, {.causal = true}, bias_of(bias.view())), 1e-5,
                     Sees{20, 30, true}, wanted);
    expect_attention(x, attended(pare::reference, x, {.causal = true}, bias_of(bias.view())), 1e-5,
                     Sees{20, 30, true}, wanted);
  }
}

/// Keys [0, hidden) are biased by `mask`, as padding is by those who have no boolean masks.
template <class S, class B>
void expect_padding(const B& backend, const Sizes& s, Index hidden, S mask, double tolerance) {
  const Inputs<S> x(s);
  Tensor<S> bias({1, 1, 1, s.keys});
  for (Index j = 0; j < hidden; ++j) bias(0, 0, 0, j) = mask;
  expect_attention(x, attended(backend, x, {}, bias_of(bias.view())), tolerance,
                   Sees{s.queries, s.keys}, [&](Index, Index, Index, Index j, long double score) {
                     return score + static_cast<long double>(bias(0, 0, 0, j));
                   });
}

// The first tiles hold masked keys alone: packed ones, those of a few rows, and whole parts.
TEST(AttendModifier, FiniteMasksHideWhatIsPadded) {
  for (const float mask : {-1e4f, -1e7f, -5e9f, -1e10f, -1e20f, -1e30f, -2.5e38f,
                           std::numeric_limits<float>::lowest()}) {
    expect_padding(pare::reference, {1, 2, 1, 20, 300, 8, 5}, 200, mask, 1e-5);
    expect_padding(pare::simd, {1, 2, 1, 20, 300, 8, 5}, 200, mask, 1e-5);
    expect_padding(pare::simd_for<pare::arch::scalar>{}, {1, 2, 1, 20, 300, 8, 5}, 200, mask, 1e-5);
    expect_padding(pare::simd, {1, 2, 1, 1, 5000, 8, 5}, 4500, mask, 1e-5);
    expect_padding(pare::simd, {1, 2, 1, 20, 300, 8, 5}, 200, static_cast<double>(mask), 1e-13);
  }
  for (const double mask : {-1e19, -1e200, std::numeric_limits<double>::lowest()})
    expect_padding(pare::simd, {1, 2, 1, 20, 300, 8, 5}, 200, mask, 1e-13);
}

// A finite mask over every key hides none: all have the same weight, as softmax says.
TEST(AttendModifier, RowsOfNothingButTheLowestNumberAreTheMeanOfTheValues) {
  constexpr float lowest = std::numeric_limits<float>::lowest();
  const Inputs<float> x(sizes);
  const Tensor<float> bias({1, 1, 1, 1}, pare::testing::Layout::by_head, lowest);
  const auto expect = [&](const auto& backend) {
    const Outputs<float> y = attended(backend, x, {}, bias_of(bias.view()));
    for (Index i = 0; i < sizes.queries; ++i) {
      for (Index c = 0; c < sizes.value_dim; ++c) {
        double mean = 0;
        for (Index j = 0; j < sizes.keys; ++j)
          mean += static_cast<double>(x.v(1, 1, j, c)) / static_cast<double>(sizes.keys);
        EXPECT_NEAR(y.out(1, 3, i, c), mean, 1e-6);
      }
      // The last score whose logarithm to base 2 is a float.
      EXPECT_FLOAT_EQ(y.lse(1, 3, i, 0), lowest * 0.6931472f);
    }
  };
  expect(pare::reference);
  expect(pare::simd);
}

// Above 0 and below, in tiles that are packed, in keys as they lie, and with rows as lanes.
TEST(AttendModifier, EqualScoresOfAnySizeShareTheWeight) {
  for (const Sizes& s : {Sizes{1, 1, 1, 20, 300, 8, 5}, Sizes{1, 1, 1, 2, 2500, 8, 5},
                         Sizes{1, 8, 1, 2, 300, 8, 5}}) {
    Inputs<float> x(s);
    std::fill(x.q.list.begin(), x.q.list.end(), 0.0f);
    for (const float size : {3e6f, 3e7f, 1e10f, 1e30f, 2e38f})
      for (const float score : {size, -size}) {
        const Tensor<float> bias({1, 1, 1, 1}, pare::testing::Layout::by_head, score);
        expect_attention(x, attended(pare::simd, x, {}, bias_of(bias.view())), 1e-5,
                         Sees{s.queries, s.keys}, [score](Index, Index, Index, Index, long double) {
                           return static_cast<long double>(score);
                         });
      }
  }
}

TEST(AttendModifier, OneOfAUserThatHidesKeysAndRows) {
  const auto wanted = [](Index b, Index h, Index i, Index j, long double score) {
    return patched(sizes, b, h, i, j, score);
  };
  expect_modified<float>(Patchwork{}, 1e-5, wanted);
  const Inputs<float> x(sizes);
  const Outputs<float> y = attended(pare::simd.threads(2), x, {}, Patchwork{});
  for (Index i = 3; i < 90; i += 7) {
    EXPECT_EQ(y.lse(1, 2, i, 0), -std::numeric_limits<float>::infinity());
    for (Index c = 0; c < 5; ++c) EXPECT_TRUE(same_bits(y.out(1, 2, i, c), 0.0f));
  }
}

TEST(AttendModifier, KeysAreToldByPositionUnderOrderAndMask) {
  const Inputs<float> x(sizes);
  const KeyOrder order({1, 2, 150}, random_orders(2, 150, 3));
  const Coins coins{4, 50};
  const BlockMask mask = BlockMask::from_predicate({1, 1, 90, 150, 32, 150}, coins);
  for (const BlockMask* m : {static_cast<const BlockMask*>(nullptr), &mask})
    expect_attention(
        x, attended(pare::simd, x, {.causal = true, .order = &order, .mask = m}, Patchwork{}), 1e-5,
        [&](Index b, Index h, Index i, Index j) {
          return (m == nullptr || coins(0, 0, i / 32, 0)) && Sees{90, 150, true}(b, h, i, j);
        },
        [](Index b, Index h, Index i, Index j, long double score) {
          return patched(sizes, b, h, i, j, score);
        });
}

TEST(AttendModifier, PlacesAreThoseOfTheSequence) {
  // Sequence 1 of a packed batch, and the same alone: only `batch` differs.
  const Inputs<float> x(Sizes{1, 2, 1, 50, 80, 8, 5});
  const std::vector<Index> queries{0, 20, 50}, keys{0, 30, 80};
  const Outputs<float> all = attended(
      pare::simd, x, {.causal = true, .query_offsets = queries, .key_offsets = keys}, Patchwork{1});
  Outputs<float> one(Sizes{1, 2, 1, 30, 50, 8, 5});
  const auto from = [](const Tensor<float>& t, Index first, Index count) {
    return pare::TensorView<const float, 4>{
        &t(0, 0, first, 0), {1, t.extent[1], count, t.extent[3]}, t.stride};
  };
  attend(pare::simd, from(x.q, 20, 30), from(x.k, 30, 50), from(x.v, 30, 50), one.out.writable(),
         Patchwork{0}, {.causal = true});
  for (Index h = 0; h < 2; ++h)
    for (Index i = 0; i < 30; ++i)
      for (Index c = 0; c < 5; ++c)
        EXPECT_TRUE(same_bits(all.out(0, h, 20 + i, c), one.out(0, h, i, c))) << h << ' ' << i;
}

TEST(AttendModifier, ChainAppliesTheFirstFirst) {
  Tensor<float> bias = normal_tensor<float>({1, 4, 1, 150}, 8);
  const auto wanted = [&](Index, Index h, Index, Index j, long double score) {
    return 2 * std::tanh(score / 2) + static_cast<long double>(bias(0, h, 0, j));
  };
  const Inputs<bf16> x(sizes);
  const Chain chain{SoftCap{2}, bias_of(bias.view())};
  expect_attention(x, attended(pare::reference, x, {.causal = true}, chain), 1e-5,
                   Sees{90, 150, true}, wanted);
  expect_attention(x, attended(pare::simd_for<pare::arch::scalar>{}, x, {.causal = true}, chain),
                   1.2e-5, Sees{90, 150, true}, wanted);
}

/// A modifier of a user that would show whatever is hidden.
struct Flat {
  template <class T>
  T modify(T, const ScorePlace&) const noexcept {
    return T(1);
  }
};

TEST(AttendModifier, NoLaterModifierShowsAHiddenKey) {
  const Inputs<float> x(sizes);
  Tensor<float> bias({1, 1, 1, 150});
  for (Index j = 0; j < 150; j += 3) bias(0, 0, 0, j) = -std::numeric_limits<float>::infinity();
  const auto expect = [&](const auto& backend, const auto& later,
                          const pare::testing::Rescoring& wanted) {
    expect_attention(
        x, attended(backend, x, {.causal = true}, Chain{bias_of(bias.view()), later}), 1e-5,
        [](Index b, Index h, Index i, Index j) {
          return j % 3 != 0 && Sees{90, 150, true}(b, h, i, j);
        },
        wanted);
  };
  const auto capped = [](Index, Index, Index, Index, long double score) {
    return 2 * std::tanh(score / 2);
  };
  const auto flat = [](Index, Index, Index, Index, long double) { return 1.0L; };
  expect(pare::reference, SoftCap{2}, capped);
  expect(pare::simd, SoftCap{2}, capped);
  expect(pare::reference, Flat{}, flat);
  expect(pare::simd, Flat{}, flat);
}

// Half of the keys are so long that q.k overflows to -infinity, which hides them.
TEST(AttendModifier, AProductOfMinusInfinityHidesItsKey) {
  Inputs<float> x(Sizes{1, 2, 1, 20, 40, 4, 5});
  for (float& q : x.q.list) q = std::abs(q) + 0.1f;
  Inputs<float> seen = x;
  for (Index j = 0; j < 40; j += 2) x.k(0, 0, j, 1) = -std::numeric_limits<float>::infinity();
  const auto even = [](Index, Index, Index, Index j) { return j % 2 == 1; };
  const auto expect = [&](const auto& backend) {
    expect_attention(seen, attended(backend, x), 1e-5, even);
    expect_attention(
        seen, attended(backend, x, {}, SoftCap{2}), 1e-5, even,
        [](Index, Index, Index, Index, long double score) { return 2 * std::tanh(score / 2); });
  };
  expect(pare::reference);
  expect(pare::simd);
}

TEST(AttendModifier, AnEmptyChainOfExactsIsExact) {
  const Inputs<float> x(sizes);
  const Chain chain{pare::attention::Exact{}, pare::attention::Exact{}};
  EXPECT_TRUE(same_outputs(attended(pare::reference, x, {}, chain), attended(pare::reference, x)));
}

}  // namespace
}  // namespace attention_attend_modifier_test
