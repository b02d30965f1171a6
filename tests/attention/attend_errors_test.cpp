// SPDX-License-Identifier: Apache-2.0
// What attend refuses: the message names function and argument, and not a bit of the output or of
// the log-sum-exp changes. And what it takes although there is nothing to do.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <pare/attention/attend.hpp>

#include "attention/attend_calls.hpp"
#include "attention/backends.hpp"
#include "attention/data.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace attention_attend_errors_test {
namespace {

using pare::Index;
using pare::TensorView;
using pare::attention::AddBias;
using pare::attention::Alibi;
using pare::attention::alibi_of;
using pare::attention::attend;
using pare::attention::AttendOptions;
using pare::attention::bias_of;
using pare::attention::BlockMask;
using pare::attention::Chain;
using pare::attention::key_mask_of;
using pare::attention::KeyOrder;
using pare::attention::LogSumExp;
using pare::attention::PagedKeyValue;
using pare::attention::SoftCap;
using pare::testing::Inputs;
using pare::testing::Outputs;
using pare::testing::refusal;
using pare::testing::Sizes;
using pare::testing::Tensor;

const std::string name = "attention::attend";
constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr Index largest = std::numeric_limits<Index>::max();

const Sizes sizes{2, 4, 2, 5, 7, 8, 6};

/// Good arguments, of which a test breaks one.
struct Call {
  Inputs<float> x{sizes};
  Outputs<float> y{sizes};
  Outputs<float> before{y};
  TensorView<const float, 4> q = x.q.view(), k = x.k.view(), v = x.v.view();
  TensorView<float, 4> out = y.out.writable();

  template <class B>
  void run(const B& backend, AttendOptions options = {}) {
    if (!options.lse.wanted()) options.lse = y.lse_view();
    attend(backend, q, k, v, out, options);
  }
  /// Expects the call refused, and the output and the log-sum-exp as they were.
  template <class F>
  void expect_refused(const F& call, const std::string& argument) {
    refusal(call, name, argument);
    EXPECT_TRUE(same_outputs(y, before)) << argument;
  }
};

template <class Case>
struct AttendErrorsTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
  /// Breaks a good call by `change(call)`.
  template <class F>
  static void expect_bad(const std::string& argument, const F& change) {
    Call call;
    change(call);
    call.expect_refused([&] { call.run(backend()); }, argument);
  }
  static void expect_bad_option(const std::string& argument, const AttendOptions& options) {
    Call call;
    call.expect_refused([&] { call.run(backend(), options); }, argument);
  }
};
TYPED_TEST_SUITE(AttendErrorsTest, pare::testing::AttendErrorCases);

TYPED_TEST(AttendErrorsTest, TheGoodCallIsTaken) {
  Call call;
  call.run(this->backend());
  EXPECT_FALSE(same_outputs(call.y, call.before));
}

TYPED_TEST(AttendErrorsTest, ShapesThatDoNotFit) {
  const auto expect_bad = [this](const std::string& argument, auto change) {
    this->expect_bad(argument, change);
  };
  expect_bad("q", [](Call& c) { c.q.extent[0] = 1; });
  expect_bad("q", [](Call& c) { c.q.extent[1] = 3; });
  expect_bad("q", [](Call& c) { c.q.extent[3] = 7; });
  expect_bad("out", [](Call& c) { c.q.extent[1] = 2; });
  expect_bad("out", [](Call& c) { c.q.extent[2] = 4; });
  expect_bad("out", [](Call& c) { c.out.extent[3] = 5; });
  expect_bad("out", [](Call& c) { c.out.extent[0] = 1; });
  expect_bad("v", [](Call& c) { c.k.extent[1] = 1; });
  expect_bad("v", [](Call& c) { c.v.extent[2] = 6; });
  expect_bad("v", [](Call& c) { c.v.extent[0] = 1; });
  expect_bad("v", [](Call& c) { c.v.extent[3] = 0; });
  expect_bad("k", [](Call& c) { c.k.extent[3] = 0; });
  expect_bad("k", [](Call& c) { c.k.extent[1] = c.v.extent[1] = 0; });
}

TYPED_TEST(AttendErrorsTest, StridesAndMemory) {
  const auto expect_bad = [this](const std::string& argument, auto change) {
    this->expect_bad(argument, change);
  };
  for (const Index stride : {0, 2, -1}) {
    expect_bad("q", [=](Call& c) { c.q.stride[3] = stride; });
    expect_bad("k", [=](Call& c) { c.k.stride[3] = stride; });
    expect_bad("v", [=](Call& c) { c.v.stride[3] = stride; });
    expect_bad("out", [=](Call& c) { c.out.stride[3] = stride; });
  }
  for (std::size_t d = 0; d < 3; ++d) expect_bad("out", [=](Call& c) { c.out.stride[d] = 0; });
  expect_bad("q", [](Call& c) { c.q.data = nullptr; });
  expect_bad("out", [](Call& c) { c.out.data = nullptr; });
  expect_bad("k", [](Call& c) { c.k.data = nullptr; });
  expect_bad("v", [](Call& c) { c.v.data = nullptr; });
  expect_bad("out", [](Call& c) { c.q.data = c.out.data + 3; });
  expect_bad("out", [](Call& c) { c.k.data = c.out.data + 2 * 4 * 5 * 6 - 1; });
  expect_bad("out", [](Call& c) { c.v.data = c.out.data - (2 * 2 * 7 * 6 - 1); });
}

// Of views one extent of which is below 0, or so large that no memory holds it.
TYPED_TEST(AttendErrorsTest, ViewsThatCannotBe) {
  for (const Index extent : {Index{-1}, -largest - 1, largest}) {
    for (std::size_t d = 0; d < 4; ++d) {
      const auto refused = [&](auto change) {
        Call call;
        change(call);
        EXPECT_THROW(call.run(this->backend()), std::invalid_argument) << extent << ' ' << d;
        EXPECT_TRUE(same_outputs(call.y, call.before));
      };
      refused([&](Call& c) { c.q.extent[d] = c.out.extent[d] = extent; });
      refused([&](Call& c) { c.k.extent[d] = c.v.extent[d] = extent; });
      refused([&](Call& c) {
        c.q.extent[d] = c.k.extent[d] = c.v.extent[d] = c.out.extent[d] = extent;
      });
    }
  }
}

/// One output over something else, or over itself, is refused by the name of the output.
TYPED_TEST(AttendErrorsTest, MemoryThatIsReadAndWritten) {
  const auto expect_bad = [this](const std::string& argument, auto change) {
    Call call;
    TensorView<float, 3> lse = call.y.lse_view();
    change(call, lse);
    call.expect_refused([&] { call.run(this->backend(), {.lse = lse}); }, argument);
  };
  expect_bad("lse", [](Call& c, auto& lse) { lse.data = c.y.out.list.data() + 17; });
  expect_bad("lse", [](Call& c, auto& lse) { lse.data = c.x.q.list.data() + 8 * 40 - 1; });
  expect_bad("lse", [](Call& c, auto& lse) { lse.data = c.x.k.list.data(); });
  expect_bad("lse", [](Call& c, auto& lse) { lse.data = c.x.v.list.data(); });
  expect_bad("lse", [](Call&, auto& lse) { lse.stride = {4, 1, 1}; });
  expect_bad("out", [](Call& c, auto&) { c.out.stride[2] = 1; });
  expect_bad("out", [](Call& c, auto&) { c.out.stride[1] = 5; });

  Call call;
  const auto lse = call.y.lse_view();
  const auto run = [&](const auto& modifier, const AttendOptions& options) {
    attend(this->backend(), call.q, call.k, call.v, call.out, modifier, options);
  };
  const TensorView<const float, 4> over{call.y.out.list.data(), {1, 1, 5, 7}, {0, 0, 7, 1}};
  const TensorView<const float, 4> over_lse{call.y.lse.list.data(), {1, 1, 1, 7}, {0, 0, 0, 1}};
  call.expect_refused([&] { run(bias_of(over), {.lse = lse}); }, "out");
  call.expect_refused([&] { run(Chain{SoftCap{}, bias_of(over)}, {.lse = lse}); }, "out");
  call.expect_refused([&] { run(bias_of(over_lse), {.lse = lse}); }, "lse");
  call.expect_refused([&] { run(Alibi{call.y.out.list.data()}, {.lse = lse}); }, "out");
  const std::span<const float> logits(call.y.out.list.data(), 4);
  call.expect_refused([&] { call.run(this->backend(), {.sink_logits = logits, .lse = lse}); },
                      "sink_logits");
}

TYPED_TEST(AttendErrorsTest, NumbersOutOfRange) {
  for (const double scale :
       {0.0, -0.0, -1.0, nan_value, infinity, -infinity, 1e-50, 1e300, 2.37e38})
    this->expect_bad_option("scale", {.scale = scale});  // 0, inf and, times log2 e, inf in float
  for (const Index window : {Index{0}, Index{-1}, -largest})
    this->expect_bad_option("window", {.causal = true, .window = window});
  for (const Index side : {Index{-1}, -largest}) {
    this->expect_bad_option("window_left", {.window_left = side});
    this->expect_bad_option("window_right", {.window_right = side});
  }
  this->expect_bad_option("window", {.window = 3, .window_left = 2});
  this->expect_bad_option("window", {.window = 3, .window_right = 2});
  for (const Index offset : {Index{1} << 30, largest, -largest, -(Index{1} << 30)})
    this->expect_bad_option("query_offset", {.causal = true, .query_offset = offset});
  const BlockMask mask = BlockMask::causal({1, 1, 5, 7});
  this->expect_bad_option("query_offset", {.query_offset = 0, .mask = &mask});
  for (const double logit : {nan_value, infinity, 3e38}) {
    const std::vector<float> logits{0, 0, 0, static_cast<float>(logit)};
    this->expect_bad_option("sink_logits", {.sink_logits = logits});
  }
  for (const std::size_t heads : {1u, 2u, 5u}) {
    const std::vector<float> logits(heads, 0.0f);
    this->expect_bad_option("sink_logits", {.sink_logits = logits});
  }
  for (const Index sinks : {Index{-1}, Index{1} << 30, largest, -largest})
    this->expect_bad_option("sinks", {.causal = true, .window = 2, .sinks = sinks});
  this->expect_bad("tokens", [](Call& c) {
    c.k.extent[2] = c.v.extent[2] = Index{1} << 31;
    c.k.stride[2] = c.v.stride[2] = 0;
  });
}

TYPED_TEST(AttendErrorsTest, OrdersAndMasksOfAnotherCall) {
  for (const auto& shape : std::vector<KeyOrder::Shape>{
           {3, 1, 7}, {2, 3, 7}, {1, 8, 7}, {1, 1, 6}, {1, 1, 8}, {1, 0, 7}, {0, 1, 7}}) {
    const KeyOrder order = KeyOrder::identity(shape);
    this->expect_bad_option("order", {.order = &order});
  }
  for (const auto& shape : std::vector<BlockMask::Shape>{{3, 1, 5, 7},
                                                         {2, 2, 5, 7},
                                                         {1, 8, 5, 7},
                                                         {1, 1, 4, 7},
                                                         {1, 1, 6, 7},
                                                         {1, 1, 5, 8},
                                                         {1, 1, 7, 5},
                                                         {0, 1, 5, 7}}) {
    const BlockMask mask = BlockMask::causal(shape);
    this->expect_bad_option("mask", {.mask = &mask});
  }
}

TYPED_TEST(AttendErrorsTest, LengthsAndOffsets) {
  using List = std::vector<Index>;
  for (const List& lengths : {List{7}, List{7, 7, 7}, List{8, 7}, List{7, -1}, List{7, largest}})
    this->expect_bad_option("key_lengths", {.key_lengths = lengths});
  const auto packed = [](Call& c) {
    c.q.extent[0] = c.k.extent[0] = c.v.extent[0] = c.out.extent[0] = 1;
  };
  const List queries{0, 2, 5}, keys{0, 7, 7};
  const auto expect_bad = [&](const std::string& argument, const AttendOptions& options) {
    Call call;
    packed(call);
    TensorView<float, 3> lse = call.y.lse_view();
    lse.extent[0] = 1;
    AttendOptions with_lse = options;
    with_lse.lse = lse;
    call.expect_refused([&] { call.run(this->backend(), with_lse); }, argument);
  };
  expect_bad("query_offsets, key_offsets", {.query_offsets = queries});
  expect_bad("query_offsets, key_offsets", {.key_offsets = keys});
  for (const List& bad :
       {List{1, 2, 5}, List{0, 2, 4}, List{0, 2, 6}, List{0, 6, 5}, List{0, -1, 5}})
    expect_bad("query_offsets", {.query_offsets = bad, .key_offsets = keys});
  for (const List& bad : {List{0, 5}, List{0, 1, 2, 5}})
    expect_bad("query_offsets", {.query_offsets = bad, .key_offsets = keys});
  for (const List& bad :
       {List{1, 2, 7}, List{0, 2, 5}, List{0, 2, 8}, List{0, 8, 7}, List{0, -1, 7}})
    expect_bad("key_offsets", {.query_offsets = queries, .key_offsets = bad});
  const List length{7};
  expect_bad("key_lengths", {.key_lengths = length, .query_offsets = queries, .key_offsets = keys});
  // A source of the user's own is looked at as closely.
  for (const List& bad : {List{0, 2, 5}, List{0, 2, 800}, List{-7, 0, 7}, List{0, 9, 7}}) {
    Call call;
    packed(call);
    const pare::attention::DenseKeyValue<float> source{call.k, call.v, {}, bad};
    call.expect_refused(
        [&] { attend(this->backend(), call.q, source, call.out, {.query_offsets = queries}); },
        "key_offsets");
  }
  const KeyOrder order = KeyOrder::identity({1, 1, 7});
  const BlockMask mask = BlockMask::causal({1, 1, 5, 7});
  expect_bad("order, mask", {.order = &order, .query_offsets = queries, .key_offsets = keys});
  expect_bad("order, mask", {.mask = &mask, .query_offsets = queries, .key_offsets = keys});
  this->expect_bad_option("k", {.query_offsets = queries, .key_offsets = keys});
}

TYPED_TEST(AttendErrorsTest, LogSumExpThatCannotBeWritten) {
  const auto expect_bad = [this](auto change) {
    Call call;
    auto lse = call.y.lse_view();
    change(lse);
    call.expect_refused([&] { call.run(this->backend(), {.lse = lse}); }, "lse");
  };
  for (std::size_t d = 0; d < 3; ++d) {
    expect_bad([d](auto& lse) { --lse.extent[d]; });
    expect_bad([d](auto& lse) { lse.stride[d] = 0; });
  }
  Call call;
  Tensor<double> other({2, 4, 5, 1});
  call.expect_refused(
      [&] {
        call.run(this->backend(),
                 {.lse = TensorView<double, 3>{other.list.data(), {2, 4, 5}, {20, 5, 1}}});
      },
      "lse");
  for (const double value : other.list) EXPECT_EQ(value, 0);
}

TYPED_TEST(AttendErrorsTest, BiasThatDoesNotBroadcast) {
  for (const std::array<Index, 4>& extent : std::vector<std::array<Index, 4>>{
           {3, 1, 1, 1}, {1, 2, 1, 1}, {1, 1, 4, 7}, {1, 1, 5, 6}, {1, 1, 1, 0}, {2, 4, 7, 5}}) {
    const Tensor<float> bias(extent);
    Call call;
    const auto expect_bad = [&](const auto& modifier) {
      call.expect_refused(
          [&] {
            attend(this->backend(), call.q, call.k, call.v, call.out, modifier,
                   {.lse = call.y.lse_view()});
          },
          "bias");
    };
    expect_bad(bias_of(bias.view()));
    if constexpr (TypeParam::backend::is_reference)
      expect_bad(Chain{SoftCap{}, bias_of(bias.view())});
  }
}

TYPED_TEST(AttendErrorsTest, ModifiersThatLackData) {
  const auto expect_bad = [this](const std::string& argument, const auto& modifier) {
    Call call;
    call.expect_refused(
        [&] {
          attend(this->backend(), call.q, call.k, call.v, call.out, modifier,
                 {.lse = call.y.lse_view()});
        },
        argument);
  };
  for (const double cap : {0.0, -0.0, -50.0, nan_value, infinity})
    expect_bad("cap", SoftCap{static_cast<float>(cap)});
  expect_bad("slopes", Alibi{});
  expect_bad("slopes", Alibi{nullptr, 4});
  for (const std::size_t heads : {0u, 1u, 2u, 5u}) {
    const std::vector<float> slopes(heads, 0.5f);
    expect_bad("slopes", alibi_of(slopes));
  }
  const bool seen[35] = {};
  using Mask = TensorView<const bool, 4>;
  expect_bad("seen", key_mask_of(Mask{nullptr, {1, 1, 1, 7}, {0, 0, 0, 1}}));
  expect_bad("seen", key_mask_of(Mask{seen, {1, 1, 1, 6}, {0, 0, 0, 1}}));
  expect_bad("seen", key_mask_of(Mask{seen, {1, 1, 4, 7}, {0, 0, 7, 1}}));
  expect_bad("seen", key_mask_of(TensorView<const bool, 2>{seen, {3, 7}, {7, 1}}));
  expect_bad("bias", AddBias<float>{});
  expect_bad("bias", Chain{SoftCap{}, AddBias<float>{nullptr, {0, 0, 0, 0}, {1, 1, 1, 1}}});
}

/// A sound cache of two sequences in pages of 4.
struct Cache {
  Tensor<float> keys{{5, 2, 4, 8}}, values{{5, 2, 4, 6}};
  std::vector<std::int32_t> table{4, 0, 2, -1};
  std::vector<Index> lengths{7, 3};
  PagedKeyValue<float> source{keys.view(), values.view(), {table.data(), {2, 2}, {2, 1}}, lengths};
};

TYPED_TEST(AttendErrorsTest, Caches) {
  const auto run = [this](Call& call, const Cache& cache, AttendOptions options = {}) {
    options.lse = call.y.lse_view();
    attend(this->backend(), call.q, cache.source, call.out, options);
  };
  const auto expect_bad = [&](const std::string& argument, auto change) {
    Call call;
    Cache cache;
    change(cache);
    call.expect_refused([&] { run(call, cache); }, argument);
  };
  expect_bad("table", [](Cache& c) { c.table[0] = 5; });
  expect_bad("table", [](Cache& c) { c.table[1] = -1; });
  expect_bad("table", [](Cache& c) { c.source.table.extent[0] = 1; });
  expect_bad("lengths", [](Cache& c) { c.lengths[0] = 9; });
  for (const Index length : {Index{-1}, -largest - 1, largest, largest - 1, largest - 3})
    expect_bad("lengths", [=](Cache& c) { c.lengths[1] = length; });
  expect_bad("lengths", [](Cache& c) {
    c.source.table = {c.table.data(), {2, Index{1} << 40}, {0, 0}};
    c.lengths[1] = Index{1} << 41;
  });
  expect_bad("table", [](Cache& c) { c.table[2] = 5; });
  expect_bad("keys", [](Cache& c) { c.source.keys.data = nullptr; });
  expect_bad("table", [](Cache& c) { c.source.table.data = nullptr; });
  expect_bad("values", [](Cache& c) { c.source.keys.extent[0] = -1; });
  expect_bad("values", [](Cache& c) { c.source.values.extent[2] = 3; });
  expect_bad("values", [](Cache& c) { c.source.values.stride[3] = 2; });
  expect_bad("keys", [](Cache& c) { c.source.keys.stride[3] = 0; });
  expect_bad("keys", [](Cache& c) { c.source.keys.extent[2] = c.source.values.extent[2] = 0; });
  expect_bad("q", [](Cache& c) { c.source.keys.extent[3] = 7; });
  expect_bad("out", [](Cache& c) { c.source.values.extent[3] = 5; });
  // Outputs within the cache, or within its table.
  {
    Call call;
    Cache cache;
    const std::vector<float> before = cache.keys.list;
    TensorView<float, 4> out{cache.keys.list.data() + 3, {2, 4, 5, 6}, {120, 30, 6, 1}};
    const auto refused = [&](TensorView<float, 4> to, LogSumExp lse, const std::string& argument) {
      refusal([&] { attend(this->backend(), call.q, cache.source, to, {.lse = lse}); }, name,
              argument);
      EXPECT_EQ(cache.keys.list, before);
    };
    refused(out, {}, "out");
    out.data = cache.values.list.data();
    refused(out, {}, "out");
    refused(call.out, TensorView<float, 3>{cache.values.list.data(), {2, 4, 5}, {20, 5, 1}}, "lse");
  }
  const std::vector<Index> list{0, 7};
  for (const AttendOptions& options :
       {AttendOptions{.key_lengths = list}, AttendOptions{.key_offsets = list}}) {
    Call call;
    Cache cache;
    call.expect_refused([&] { run(call, cache, options); }, "key_lengths, key_offsets");
  }
  Call call;
  run(call, Cache{});
  EXPECT_FALSE(same_outputs(call.y, call.before)) << "the sound one";
}

TYPED_TEST(AttendErrorsTest, NothingToDo) {
  const auto expect_nothing = [this](const Sizes& s) {
    const Inputs<float> x(s);
    const auto y = attended(this->backend(), x, {.causal = true});
    EXPECT_EQ(y.stats.density, 1);
    EXPECT_TRUE(y.out.list.empty());
  };
  expect_nothing({0, 4, 2, 5, 7, 8, 6});
  expect_nothing({2, 0, 2, 5, 7, 8, 6});
  expect_nothing({2, 0, 0, 5, 7, 8, 6});
  expect_nothing({2, 4, 2, 0, 7, 8, 6});
  expect_nothing({2, 4, 2, 0, 0, 8, 6});
  const std::vector<Index> none{0};
  TensorView<const float, 4> q{nullptr, {1, 4, 0, 8}, {0, 0, 8, 1}};
  TensorView<float, 4> out{nullptr, {1, 4, 0, 8}, {0, 0, 8, 1}};
  attend(this->backend(), q, q, q, out, {.query_offsets = none, .key_offsets = none});
}

TEST(AttendErrors, MessagesSayWhatWasGotAndWanted) {
  Call call;
  call.out.extent[3] = 5;
  EXPECT_EQ(refusal([&] { call.run(pare::simd); }, name, "out"),
            "pare::attention::attend: out: got [2, 4, 5, 5], wanted [2, 4, 5, 6]");
  EXPECT_EQ(refusal([&] { Call{}.run(pare::simd, {.scale = 1e-50}); }, name, "scale"),
            "pare::attention::attend: scale: got 1e-50, wanted a factor from "
            "1.2e-38 to 2.35e38, for scores in float");
}

}  // namespace
}  // namespace attention_attend_errors_test
