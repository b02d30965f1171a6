// SPDX-License-Identifier: Apache-2.0
// Rows that a hook changes once they are complete, and the blends of SoftPAG, against the oracle.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include <pare/attention/heads/most_attended.hpp>
#include <pare/attention/heads/soft_identity.hpp>

#include "attention/attend_calls.hpp"
#include "attention/sources.hpp"
#include "support/properties.hpp"
#include "support/tolerance.hpp"

namespace attention_soft_identity_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::attention::attend;
using pare::attention::AttendOptions;
using pare::attention::FinishCall;
using pare::attention::KeepRows;
using pare::attention::SoftCap;
using pare::attention::SoftIdentity;
using pare::attention::SoftOneHot;
using pare::attention::SoftTarget;
using pare::attention::WithFinish;
using pare::testing::all_same_bits;
using pare::testing::attended;
using pare::testing::causal_visibility;
using pare::testing::dense_attention;
using pare::testing::Inputs;
using pare::testing::Outputs;
using pare::testing::Pages;
using pare::testing::refusal;
using pare::testing::same_outputs;
using pare::testing::Sizes;
using pare::testing::Tensor;

const std::vector<float> shares{0, 0.25f, 1, 0.5f};

template <class B, class S, class P, class O = pare::compute_t<S>>
Outputs<S, O> finished(const B& backend, const Inputs<S>& x, const P& policy,
                       AttendOptions options = {}) {
  Outputs<S, O> y(x.sizes);
  options.lse = y.lse_view();
  attend(backend, x.q.view(), x.k.view(), x.v.view(), y.out.writable(), policy, options);
  return y;
}

/// (1 - u) softmax(..) v + u v_own, causal, of the whole in long double.
template <class S, class O>
void expect_blended(const Inputs<S>& x, const Outputs<S, O>& y, double bound) {
  const Sizes& s = x.sizes;
  for (Index h = 0; h < s.heads; ++h) {
    const Index kv = h / (s.heads / s.kv_heads);
    const auto u = static_cast<double>(shares[static_cast<std::size_t>(h)]);
    const auto wanted =
        dense_attention(x.q.head(0, h), x.k.head(0, kv), x.v.head(0, kv),
                        1 / std::sqrt(static_cast<double>(s.key_dim)),
                        [&](Index i, Index j) { return j <= i + s.keys - s.queries; });
    double worst = 0;
    for (Index i = 0; i < s.queries; ++i)
      for (Index c = 0; c < s.value_dim; ++c) {
        const auto own = static_cast<double>(
            static_cast<pare::compute_t<S>>(x.v(0, kv, i + s.keys - s.queries, c)));
        const auto got = static_cast<double>(static_cast<pare::compute_t<O>>(y.out(0, h, i, c)));
        worst = std::max(worst, std::abs(got - ((1 - u) * wanted.out(i, c) + u * own)));
      }
    EXPECT_LE(worst, bound) << "head " << h << " of " << s.queries << " queries";
  }
}

// Tiles that are packed, queries as lanes, keys as they lie, and keys that are split and merged.
const Sizes all_paths[] = {{1, 4, 2, 70, 150, 24, 13},
                           {1, 4, 1, 5, 300, 24, 13},
                           {1, 4, 2, 1, 40, 24, 13},
                           {1, 4, 2, 2, 4500, 24, 13}};

// Bounds: attention_bound of tests/attention/backends.hpp; a blend adds less than u max |v| < 1e-6.
TEST(SoftIdentity, BlendsWithTheOwnValueOnEveryPath) {
  for (const Sizes& s : all_paths) {
    const Inputs<float> x(s);
    expect_blended(x, finished(pare::reference, x, SoftIdentity{shares}, {.causal = true}), 1e-6);
    expect_blended(x, finished(pare::simd, x, SoftIdentity{shares}, {.causal = true}), 1e-5);
  }
  const Inputs<double> twice(all_paths[0]);
  expect_blended(twice, finished(pare::simd, twice, SoftIdentity{shares}, {.causal = true}), 1e-13);
}

// Weights are rounded to bf16, and so is the output: each by 2^-9 of itself, of values below 4.5.
TEST(SoftIdentity, BlendsBeforeRowsAreRounded) {
  for (const Sizes& s : {all_paths[0], all_paths[3]}) {
    const Inputs<bf16> x(s);
    expect_blended(x, finished(pare::simd, x, SoftIdentity{shares}, {.causal = true}), 2e-2);
    const auto y = finished<pare::Simd<pare::arch::best>, bf16, SoftIdentity, bf16>(
        pare::simd, x, SoftIdentity{shares}, {.causal = true});
    expect_blended(x, y, 4e-2);
    const auto wide = finished(pare::simd, x, SoftIdentity{shares}, {.causal = true});
    for (std::size_t i = 0; i < wide.out.list.size(); ++i)
      EXPECT_EQ(static_cast<float>(y.out.list[i]), static_cast<float>(bf16(wide.out.list[i])));
  }
}

TEST(SoftIdentity, AShareOfZeroKeepsTheBitsAndOneIsTheValue) {
  for (const Sizes& s : all_paths) {
    const Inputs<float> x(s);
    const std::vector<float> none(4, 0.0f), all(4, 1.0f);
    const auto plain = attended(pare::simd, x, {.causal = true});
    EXPECT_TRUE(same_outputs(finished(pare::simd, x, SoftIdentity{none}, {.causal = true}), plain));
    const auto own = finished(pare::simd, x, SoftIdentity{all}, {.causal = true});
    EXPECT_TRUE(all_same_bits(own.lse.list, plain.lse.list));
    for (Index h = 0; h < 4; ++h)
      for (Index i = 0; i < s.queries; ++i)
        for (Index c = 0; c < s.value_dim; ++c)
          EXPECT_EQ(own.out(0, h, i, c), x.v(0, h / (4 / s.kv_heads), i + s.keys - s.queries, c));
  }
}

TEST(SoftIdentity, AShareOfOneIsTheValueEvenOfARowOfNan) {
  Inputs<float> x(Sizes{1, 4, 4, 20, 20, 8, 5});
  x.k(0, 2, 3, 1) = std::nanf("");
  const auto y = finished(pare::simd, x, SoftIdentity{shares}, {.causal = true});
  for (Index i = 0; i < 20; ++i) EXPECT_EQ(y.out(0, 2, i, 0), x.v(0, 2, i, 0));
}

TEST(SoftIdentity, IsLinearInTheShare) {
  const Inputs<double> x(all_paths[0]);
  const auto at = [&](float u) {
    const std::vector<float> list(4, u);
    return finished(pare::simd, x, SoftIdentity{list}, {.causal = true}).out.list;
  };
  const auto none = at(0), half = at(0.5f), all = at(1);
  for (std::size_t i = 0; i < none.size(); ++i)
    EXPECT_NEAR(half[i], 0.5 * (none[i] + all[i]), 1e-14);
}

TEST(SoftIdentity, SourcesGiveTheBitsOfTensors) {
  Inputs<float> x(all_paths[0]);
  const pare::testing::Int8Rows rows(x);
  const Pages<float> pages(x, {150}, 16, pare::testing::Layout::by_token);
  const auto wanted = finished(pare::simd, x, SoftIdentity{shares}, {.causal = true});
  const auto expect = [&](const auto& source) {
    Outputs<float> y(x.sizes);
    attend(pare::simd, x.q.view(), source, y.out.writable(), SoftIdentity{shares},
           {.causal = true, .lse = y.lse_view()});
    EXPECT_TRUE(same_outputs(y, wanted));
    attend(pare::reference, x.q.view(), source, y.out.writable(), SoftIdentity{shares},
           {.causal = true, .lse = y.lse_view()});
    expect_blended(x, y, 1e-6);
  };
  expect(pages.source());
  expect(rows);
}

TEST(SoftIdentity, SameBitsForAnyThreads) {
  for (const Sizes& s : {all_paths[0], all_paths[3]}) {
    const Inputs<float> x(s);
    pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
      return finished(backend, x, SoftIdentity{shares}, {.causal = true}).out.list;
    });
  }
}

TEST(SoftIdentity, PackedSequencesAndOffsetsHaveTheirOwnPositions) {
  const Inputs<float> x(Sizes{1, 4, 2, 50, 80, 8, 5});
  const std::vector<Index> queries{0, 20, 50}, keys{0, 30, 80};
  const std::vector<float> all(4, 1.0f);
  for (const bool definition : {true, false}) {
    const AttendOptions packed{.causal = true, .query_offsets = queries, .key_offsets = keys};
    const auto y = definition ? finished(pare::reference, x, SoftIdentity{all}, packed)
                              : finished(pare::simd, x, SoftIdentity{all}, packed);
    EXPECT_EQ(y.out(0, 3, 4, 2), x.v(0, 1, 14, 2));
    EXPECT_EQ(y.out(0, 3, 24, 2), x.v(0, 1, 30 + 20 + 4, 2));
    const AttendOptions shifted{.query_offset = 7};
    const auto z = definition ? finished(pare::reference, x, SoftIdentity{all}, shifted)
                              : finished(pare::simd, x, SoftIdentity{all}, shifted);
    EXPECT_EQ(z.out(0, 0, 4, 2), x.v(0, 0, 11, 2));
  }
}

TEST(SoftTarget, RowsAreBroadcast) {
  const Inputs<float> x(Sizes{2, 4, 2, 30, 40, 8, 5});
  const auto plain = attended(pare::simd, x);
  for (unsigned whole = 0; whole < 8; ++whole) {
    const auto extent = [&](unsigned d, Index n) { return (whole >> d & 1u) != 0 ? n : 1; };
    const auto target = pare::testing::normal_tensor<float>(
        {extent(0, 2), extent(1, 4), extent(2, 30), 5}, whole, pare::testing::Layout::apart);
    for (const bool definition : {true, false}) {
      const SoftTarget policy{target.view(), shares};
      const auto y =
          definition ? finished(pare::reference, x, policy) : finished(pare::simd, x, policy);
      const auto at = [&](std::size_t d, Index i) { return target.extent[d] == 1 ? 0 : i; };
      for (Index h = 0; h < 4; ++h) {
        const float u = shares[static_cast<std::size_t>(h)];
        EXPECT_NEAR(y.out(1, h, 17, 3),
                    (1 - u) * plain.out(1, h, 17, 3) + u * target(at(0, 1), at(1, h), at(2, 17), 3),
                    2e-6);
      }
    }
  }
}

// Each blended row is that of attend and the value of one key; here the key of the largest score,
// which an oracle finds in double.
TEST(SoftOneHot, BlendsWithTheValueOfTheLargestScore) {
  for (const Sizes& s : {Sizes{2, 4, 2, 70, 150, 24, 13}, Sizes{1, 4, 2, 2, 4500, 24, 13}}) {
    const Inputs<float> x(s);
    const auto keys = pare::attention::most_attended(x.q.view(), x.k.view());
    const auto plain = attended(pare::simd, x, {.causal = true});
    for (const bool definition : {true, false}) {
      const SoftOneHot policy{keys, s.queries, shares};
      const auto y = definition ? finished(pare::reference, x, policy, {.causal = true})
                                : finished(pare::simd, x, policy, {.causal = true});
      for (Index h = 0; h < 4; ++h)
        for (const Index i : {Index{0}, s.queries - 1}) {
          const Index b = s.batch - 1, kv = h / 2;
          Index best = 0;
          double most = -std::numeric_limits<double>::infinity();
          for (Index j = 0; j <= i + s.keys - s.queries; ++j) {
            double score = 0;
            for (Index c = 0; c < s.key_dim; ++c)
              score += static_cast<double>(x.q(b, h, i, c)) * static_cast<double>(x.k(b, kv, j, c));
            if (score > most) most = score, best = j;
          }
          const float u = shares[static_cast<std::size_t>(h)];
          for (Index c = 0; c < s.value_dim; ++c)
            EXPECT_NEAR(y.out(b, h, i, c),
                        (1 - u) * plain.out(b, h, i, c) + u * x.v(b, kv, best, c), 2e-6);
        }
    }
  }
}

TEST(SoftOneHot, RowsWithoutAKeyKeepTheirBits) {
  const Inputs<float> x(Sizes{1, 4, 2, 5, 7, 8, 6});
  const std::vector<Index> none(20, -1);
  EXPECT_TRUE(
      same_outputs(finished(pare::simd, x, SoftOneHot{none, 5, shares}), attended(pare::simd, x)));
}

/// A hook of a user: writes down which rows it saw.
struct Witness : KeepRows {
  std::atomic<int>* seen = nullptr;
  Index heads = 0, queries = 0;

  template <class Row>
  void finish(const Row& row) const {
    ++seen[(row.sequence() * heads + row.head()) * queries + row.query()];
    row[0] = static_cast<typename Row::Scalar>(1000 * row.sequence() + 100 * row.head() +
                                               row.position());
  }
};
static_assert(pare::attention::RowFinish<Witness>);
static_assert(!pare::attention::RowFinish<SoftCap>);

TEST(RowFinish, EveryRowOnceWithItsPlace) {
  for (const Sizes& s : {Sizes{2, 4, 2, 70, 150, 8, 5}, Sizes{2, 4, 2, 2, 4500, 8, 5}}) {
    const Inputs<float> x(s);
    for (const bool definition : {true, false}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(2 * 4 * s.queries));
      Witness witness;
      witness.seen = seen.data();
      witness.heads = 4;
      witness.queries = s.queries;
      const auto y = definition ? finished(pare::reference, x, witness)
                                : finished(pare::simd.threads(2), x, witness);
      for (const auto& n : seen) EXPECT_EQ(n.load(), 1);
      EXPECT_EQ(y.out(1, 3, 1, 0), static_cast<float>(1300 + 1 + s.keys - s.queries));
    }
  }
}

TEST(RowFinish, StandsBehindAModifier) {
  const Inputs<float> x(all_paths[0]);
  const std::vector<float> none(4, 0.0f);
  EXPECT_TRUE(same_outputs(finished(pare::simd, x, WithFinish{SoftCap{2}, SoftIdentity{none}}),
                           attended(pare::simd, x, {}, SoftCap{2})));
}

TEST(SoftIdentity, RefusesWhatHasNoMeaning) {
  const Inputs<float> x(Sizes{2, 4, 2, 5, 7, 8, 6}), longer(Sizes{1, 4, 2, 8, 7, 8, 6});
  Outputs<float> y(x.sizes);
  const auto expect = [&](const auto& policy, const std::string& argument,
                          const AttendOptions& options = {}) {
    pare::testing::refuses_and_leaves_alone(
        [&] {
          attend(pare::reference, x.q.view(), x.k.view(), x.v.view(), y.out.writable(), policy,
                 options);
        },
        "attention::attend", argument, y.out.list);
  };
  for (const float u : {-0.1f, 1.1f, std::nanf(""), std::numeric_limits<float>::infinity()}) {
    const std::vector<float> bad{0, 0, u, 0};
    expect(SoftIdentity{bad}, "shares");
  }
  const std::vector<float> few(3, 0.5f);
  expect(SoftIdentity{few}, "shares");
  expect(SoftIdentity{}, "shares");
  const std::vector<Index> lengths{4, 7};
  expect(SoftIdentity{shares}, "queries", {.key_lengths = lengths});
  expect(SoftIdentity{shares}, "queries", {.query_offset = 3});
  expect(SoftIdentity{shares}, "queries", {.query_offset = -1});
  y.out.list.assign(y.out.list.size(), 0.5f);
  expect(SoftIdentity{std::span<const float>(y.out.list.data() + 3, 4)}, "out");
  const Tensor<float> target({2, 4, 5, 6}), narrow({2, 4, 5, 5}), other({2, 3, 5, 6});
  expect(SoftTarget{narrow.view(), shares}, "target");
  expect(SoftTarget{other.view(), shares}, "target");
  expect(SoftTarget{y.out.view(), shares}, "out");
  expect(SoftTarget{target.view(), few}, "shares");
  std::vector<Index> places(2 * 4 * 5, 6);
  const auto with_place = [&](Index last, const AttendOptions& options = {}) {
    places.back() = last;
    expect(SoftOneHot{places, 5, shares}, "keys", options);
  };
  with_place(7);
  with_place(-2);
  const std::vector<Index> uneven{7, 6};
  with_place(6, {.key_lengths = uneven});
  expect(SoftOneHot{{places.data(), 39}, 5, shares}, "keys");
  expect(SoftOneHot{places, 4, shares}, "keys");
  expect(SoftOneHot{places, 0, shares}, "keys");
  expect(SoftOneHot{places, 5, few}, "shares");
  std::fill(y.out.list.begin(), y.out.list.end(), 0.0f);
  expect(SoftOneHot{{reinterpret_cast<const Index*>(y.out.list.data()), 40}, 5, shares}, "out");
  const std::vector<Index> whole{0, 5}, keys{0, 7};
  Outputs<float> z(longer.sizes);
  refusal(
      [&] {
        attend(pare::simd, longer.q.view(), longer.k.view(), longer.v.view(), z.out.writable(),
               SoftIdentity{shares});
      },
      "attention::attend", "queries");
}

}  // namespace
}  // namespace attention_soft_identity_test
