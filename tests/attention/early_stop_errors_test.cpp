// SPDX-License-Identifier: Apache-2.0
// What attention that stops early refuses: the message names function and argument, and not a bit
// of the output changes.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <pare/attention/early_stop.hpp>

#include "attention/early_stop_data.hpp"
#include "support/backends.hpp"

namespace attention_early_stop_errors_test {
namespace {

using pare::Index;
using pare::TensorView;
using pare::attention::AttendOptions;
using pare::attention::EarlyStop;
using pare::testing::Sample;
using pare::testing::SampleShape;

constexpr SampleShape shape{.heads = 4, .kv_heads = 2, .queries = 40, .keys = 40};

template <class Case>
struct EarlyStopErrorsTest : testing::Test {
  using Scalar = typename Case::scalar;

  Sample<Scalar> x{shape};
  std::vector<Scalar> out = std::vector<Scalar>(4 * 40 * 5, Scalar(-77));
  EarlyStop rule{.threshold = 0.1, .segment = 8};
  AttendOptions options{.causal = true};

  TensorView<Scalar, 4> out_view() { return {out.data(), {1, 4, 40, 5}, {800, 200, 5, 1}}; }

  void expect_refused(TensorView<Scalar, 4> q, TensorView<Scalar, 4> k, TensorView<Scalar, 4> v,
                      TensorView<Scalar, 4> to, const std::string& argument) {
    try {
      pare::attention::attend(Case::backend::make(), q, k, v, to, rule, options);
      ADD_FAILURE() << "accepted a bad " << argument;
    } catch (const std::invalid_argument& e) {
      const std::string message = e.what();
      EXPECT_EQ(message.rfind("pare::attention::attend: " + argument + ": got ", 0), 0u) << message;
      EXPECT_NE(message.find(", wanted "), std::string::npos) << message;
    }
    EXPECT_TRUE(
        std::all_of(out.begin(), out.end(), [](Scalar value) { return value == Scalar(-77); }));
    rule = {.threshold = 0.1, .segment = 8};
    options = {.causal = true};
  }
  void expect_refused(const std::string& argument) {
    expect_refused(x.q(), x.k(), x.v(), out_view(), argument);
  }
};
TYPED_TEST_SUITE(EarlyStopErrorsTest, pare::testing::BackendsAndScalars);

TYPED_TEST(EarlyStopErrorsTest, Rules) {
  for (const double threshold :
       {-1e-9, -1.0, -std::numeric_limits<double>::infinity(),
        std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::quiet_NaN()}) {
    this->rule.threshold = threshold;
    this->expect_refused("threshold");
  }
  for (const Index size : {Index{0}, Index{-1}, std::numeric_limits<Index>::min()}) {
    this->rule.segment = size;
    this->expect_refused("segment");
    this->rule.row_tile = size;
    this->expect_refused("row_tile");
    this->rule.key_tile = size;
    this->expect_refused("key_tile");
  }
  for (const int none : {-1, 3}) {
    this->rule.aggregate = EarlyStop::Aggregate(none);
    this->expect_refused("aggregate");
    this->rule.guide = EarlyStop::Guide(none);
    this->expect_refused("guide");
  }
}

TYPED_TEST(EarlyStopErrorsTest, OptionsThatDoNotCombine) {
  const pare::attention::KeyOrder order = pare::attention::KeyOrder::identity({.keys = 40});
  const pare::attention::BlockMask mask =
      pare::attention::BlockMask::causal({.queries = 40, .keys = 40});
  // Exact settings are no exception.
  for (const double threshold : {0.0, 0.1}) {
    this->rule.threshold = threshold;
    this->options.causal = false;
    this->expect_refused("causal");
    this->rule.threshold = threshold;
    this->options.window = 9;
    this->expect_refused("window");
    this->rule.threshold = threshold;
    this->options.order = &order;
    this->expect_refused("order");
    this->rule.threshold = threshold;
    this->options.mask = &mask;
    this->expect_refused("mask");
  }
  this->options.scale = -1.0;
  this->expect_refused("scale");
  this->options.window = -1;
  this->expect_refused("window");
}

TYPED_TEST(EarlyStopErrorsTest, ShapesAndMemory) {
  auto& sample = this->x;
  const auto to = this->out_view();
  auto q = sample.q(), k = sample.k(), v = sample.v(), bad = to;
  k.extent[2] = v.extent[2] = 39;
  this->expect_refused(q, k, v, to, "q");  // more queries than keys
  k = sample.k(), v = sample.v();
  q.extent[1] = 3;
  this->expect_refused(q, k, v, to, "q");
  q = sample.q();
  v.extent[2] = 30;
  this->expect_refused(q, sample.k(), v, to, "v");
  q.extent[3] = 15;
  this->expect_refused(q, sample.k(), sample.v(), to, "q");
  bad.extent[2] = 39;
  this->expect_refused(sample.q(), sample.k(), sample.v(), bad, "out");
  bad = to;
  bad.stride[2] = 0;
  this->expect_refused(sample.q(), sample.k(), sample.v(), bad, "out");
  auto overlapping = to;
  overlapping.data = sample.v().data;
  this->expect_refused(sample.q(), sample.k(), sample.v(), overlapping, "out");
}

TYPED_TEST(EarlyStopErrorsTest, LengthsBelowTheQueries) {
  const std::vector<Index> lengths{39};
  this->options.key_lengths = lengths;
  this->expect_refused("q");
  const std::vector<Index> query_offsets{0, 20, 40}, key_offsets{0, 21, 40};
  this->options.query_offsets = query_offsets;
  this->options.key_offsets = key_offsets;
  this->expect_refused("q");
}

}  // namespace
}  // namespace attention_early_stop_errors_test
