// SPDX-License-Identifier: Apache-2.0
// Attention without a block mask against the oracle: any shape, length, stride and window.
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include <pare/attention/attend.hpp>

#include "attention/attend_calls.hpp"
#include "attention/backends.hpp"
#include "attention/data.hpp"
#include "support/tolerance.hpp"

namespace attention_attend_exact_test {
namespace {

using pare::compute_t;
using pare::Index;
using pare::attention::attend;
using pare::testing::all_same_bits;
using pare::testing::attended;
using pare::testing::difference;
using pare::testing::expect_attention;
using pare::testing::Inputs;
using pare::testing::Layout;
using pare::testing::Outputs;
using pare::testing::same_bits;
using pare::testing::Sees;
using pare::testing::Sizes;
using pare::testing::Tensor;
using pare::testing::unmodified;

template <class Case>
struct AttendExactTest : testing::Test {
  using Storage = typename Case::scalar;
  using Compute = compute_t<Storage>;
  static constexpr double tolerance = pare::testing::attention_bound<Case>();
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(AttendExactTest, pare::testing::AttendFloats);

TYPED_TEST(AttendExactTest, HeadSizes) {
  pare::testing::expect_head_sizes<typename TestFixture::Storage>(this->backend(), this->tolerance);
}

TYPED_TEST(AttendExactTest, LengthsAroundTilesBlocksAndRegisters) {
  pare::testing::expect_lengths<typename TestFixture::Storage>(this->backend(), this->tolerance);
}

TYPED_TEST(AttendExactTest, QueriesFewerAndMoreThanKeys) {
  for (const auto& [queries, keys] : std::vector<std::pair<Index, Index>>{
           {1, 300}, {37, 400}, {96, 97}, {400, 37}, {289, 1}, {130, 129}, {7, 0}})
    for (const bool causal : {true, false}) {
      const Inputs<typename TestFixture::Storage> x(Sizes{1, 2, 2, queries, keys, 8, 4});
      expect_attention(x, attended(this->backend(), x, {.causal = causal}), this->tolerance,
                       Sees{queries, keys, causal});
    }
}

TYPED_TEST(AttendExactTest, WindowAndSinks) {
  for (const auto& [queries, keys] : std::vector<std::pair<Index, Index>>{{150, 200}, {170, 140}}) {
    const Inputs<typename TestFixture::Storage> x(Sizes{1, 2, 1, queries, keys, 6, 3});
    for (const Index window : {1, 60, 129, 1000})
      for (const Index sinks : {0, 5, 141})
        for (const bool causal : {true, false})
          expect_attention(
              x, attended(this->backend(), x, {.causal = causal, .window = window, .sinks = sinks}),
              this->tolerance, Sees{queries, keys, causal, window, sinks});
  }
}

TYPED_TEST(AttendExactTest, SinksWithoutAWindowHideNothing) {
  const Inputs<typename TestFixture::Storage> x(Sizes{1, 1, 1, 20, 30});
  EXPECT_TRUE(same_outputs(attended(this->backend(), x, {.causal = true, .sinks = 4}),
                           attended(this->backend(), x, {.causal = true})));
}

TYPED_TEST(AttendExactTest, AnyLayoutGivesTheSameBits) {
  using S = typename TestFixture::Storage;
  using T = typename TestFixture::Compute;
  const Sizes sizes{3, 6, 2, 40, 50, 12, 20};
  const Inputs<S> x(sizes);
  const Outputs<S> wanted = attended(this->backend(), x, {.causal = true});
  expect_attention(x, wanted, this->tolerance, Sees{40, 50, true});
  for (const Layout layout : {Layout::by_token, Layout::apart}) {
    const Inputs<S> strided(sizes, 1, layout);
    Outputs<S> y(sizes, layout);
    const std::vector<T> before = y.out.list;
    attend(this->backend(), strided.q.view(), strided.k.view(), strided.v.view(), y.out.writable(),
           {.causal = true, .lse = y.lse_view()});
    EXPECT_TRUE(all_same_bits(y.lse.list, wanted.lse.list));
    for (Index b = 0; b < 3; ++b)
      for (Index h = 0; h < 6; ++h)
        for (Index i = 0; i < 40; ++i)
          for (Index c = 0; c < 20; ++c) {
            EXPECT_TRUE(same_bits(y.out(b, h, i, c), wanted.out(b, h, i, c)));
            y.out(b, h, i, c) = before[0];
          }
    EXPECT_TRUE(all_same_bits(y.out.list, before)) << "between rows";
  }
}

// Values that are panels where they lie need no packing, of several panels of columns.
TYPED_TEST(AttendExactTest, ValuesOfWholeRegistersGiveTheSameBitsInAnyLayout) {
  using S = typename TestFixture::Storage;
  const Sizes sizes{1, 2, 2, 192, 200, 5, 144};  // items of 96 rows
  const Inputs<S> x(sizes);
  const Outputs<S> wanted = attended(this->backend(), x, {.causal = true});
  expect_attention(x, wanted, this->tolerance, Sees{192, 200, true});
  for (const Layout layout : {Layout::by_token, Layout::apart})
    EXPECT_TRUE(same_outputs(
        attended(this->backend(), Inputs<S>(sizes, 1, layout), {.causal = true}), wanted));
}

TYPED_TEST(AttendExactTest, TokensMayRunBackwards) {
  using S = typename TestFixture::Storage;
  const Inputs<S> x(Sizes{1, 2, 2, 9, 33});
  Inputs<S> turned = x;
  for (auto* t : {&turned.k, &turned.v})
    for (Index h = 0; h < 2; ++h)
      for (Index j = 0; j < 33; ++j)
        for (Index c = 0; c < 16; ++c)
          (*t)(0, h, j, c) = (t == &turned.k ? x.k : x.v)(0, h, 32 - j, c);
  const auto backwards = [](const Tensor<S>& t) {
    return pare::TensorView<const S, 4>{t.list.data() + 32 * t.stride[2],
                                        t.extent,
                                        {t.stride[0], t.stride[1], -t.stride[2], t.stride[3]}};
  };
  Outputs<S> y(x.sizes);
  attend(this->backend(), x.q.view(), backwards(turned.k), backwards(turned.v), y.out.writable(),
         {.causal = true, .lse = y.lse_view()});
  EXPECT_TRUE(same_outputs(y, attended(this->backend(), x, {.causal = true})));
}

TYPED_TEST(AttendExactTest, GroupedHeadsEqualRepeatedKeys) {
  using S = typename TestFixture::Storage;
  const Sizes sizes{2, 12, 3, 50, 70, 16, 8};
  const Inputs<S> x(sizes);
  const Outputs<S> grouped = attended(this->backend(), x, {.causal = true});
  Inputs<S> repeated = x;
  repeated.sizes.kv_heads = 12;
  repeated.k = Tensor<S>({2, 12, 70, 16});
  repeated.v = Tensor<S>({2, 12, 70, 8});
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 12; ++h)
      for (Index j = 0; j < 70; ++j) {
        for (Index c = 0; c < 16; ++c) repeated.k(b, h, j, c) = x.k(b, h / 4, j, c);
        for (Index c = 0; c < 8; ++c) repeated.v(b, h, j, c) = x.v(b, h / 4, j, c);
      }
  EXPECT_LE(difference(grouped, attended(this->backend(), repeated, {.causal = true})),
            2 * this->tolerance);
  expect_attention(repeated, grouped, this->tolerance, Sees{50, 70, true});
}

// More query heads on one key head than one item of work may hold.
TYPED_TEST(AttendExactTest, ManyHeadsOnOneKeyHead) {
  for (const Index queries : {1, 2, 7}) {
    const Inputs<typename TestFixture::Storage> x(Sizes{1, 70, 1, queries, 40, 4, 3});
    expect_attention(x, attended(this->backend(), x, {.causal = true}), this->tolerance,
                     Sees{queries, 40, true});
  }
}

TYPED_TEST(AttendExactTest, Scale) {
  const Inputs<typename TestFixture::Storage> x(Sizes{1, 1, 1, 20, 60, 16, 8});
  for (const double scale : {0.03125, 0.25, 0.4})
    expect_attention(x, attended(this->backend(), x, {.scale = scale}), 2 * this->tolerance,
                     Sees{20, 60}, unmodified, scale);
}

// Enough rows that items are of 576 of them, and that groups of six are cut unevenly.
TEST(AttendExact, LargeBlocksOfRows) {
  const Inputs<float> x(Sizes{1, 64, 4, 293, 270, 4, 3});
  const Outputs<float> y = attended(pare::simd.threads(2), x, {.causal = true});
  expect_attention(x, y, 1e-5, Sees{293, 270, true});
}

}  // namespace
}  // namespace attention_attend_exact_test
