// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <vector>

#include <pare/attention/attend.hpp>

#include "attention/attend_calls.hpp"
#include "support/allocations.hpp"
#include "support/backends.hpp"

namespace attention_attend_workspace_test {
namespace {

using pare::Index;
using pare::Workspace;
using pare::attention::AttendOptions;
using pare::attention::BlockMask;
using pare::attention::KeyOrder;
using pare::testing::allocations;
using pare::testing::Coins;
using pare::testing::Inputs;
using pare::testing::Outputs;
using pare::testing::random_orders;
using pare::testing::ReversePool;
using pare::testing::Sizes;

/// The second call finds all it needs in the workspace.
template <class B>
void expect_second_call_allocates_nothing(const B& backend, const Sizes& sizes,
                                          AttendOptions options) {
  const Inputs<float> x(sizes);
  Outputs<float> first(sizes), second(sizes);
  Workspace workspace;
  const auto call = [&](Outputs<float>& y) {
    options.lse = y.lse_view();
    attend(backend.with(workspace), x.q.view(), x.k.view(), x.v.view(), y.out.writable(), options);
  };
  const long start = allocations.load();
  call(first);
  EXPECT_GT(allocations.load(), start) << "the counter counts";
  const long before = allocations.load();
  call(second);
  EXPECT_EQ(allocations.load(), before);
  EXPECT_TRUE(same_outputs(first, second));
}

TEST(AttendWorkspace, TheSecondCallAllocatesNothing) {
  const Sizes sizes{2, 6, 2, 210, 260, 40, 33}, few{1, 6, 2, 3, 4500, 40, 33};
  const KeyOrder order({1, 1, 260}, random_orders(1, 260, 1));
  const BlockMask mask = BlockMask::from_predicate({1, 6, 210, 260, 32, 20}, Coins{1, 40});
  const std::vector<Index> lengths{100, 260};
  for (const AttendOptions& options :
       {AttendOptions{.causal = true},
        AttendOptions{.causal = true, .order = &order, .mask = &mask},
        AttendOptions{.window = 30, .key_lengths = lengths}}) {
    expect_second_call_allocates_nothing(pare::simd, sizes, options);
    expect_second_call_allocates_nothing(pare::simd.on(ReversePool{3}), sizes, options);
  }
  expect_second_call_allocates_nothing(pare::simd, few, {.causal = true});
  expect_second_call_allocates_nothing(pare::simd.on(ReversePool{3}), few, {.causal = true});
}

}  // namespace
}  // namespace attention_attend_workspace_test
