// SPDX-License-Identifier: Apache-2.0
// The form that a failed check takes without exceptions. The macro names another ABI namespace, so
// this file shares a program with files that keep exceptions.
#define PARE_NO_EXCEPTIONS

#include <gtest/gtest.h>

#include <csignal>
#include <vector>

#include <pare/core/check.hpp>
#include <pare/core/parallel.hpp>

namespace core_check_no_exceptions_test {
namespace {

TEST(CheckNoExceptionsDeathTest, PrintsTheMessageAndAborts) {
  EXPECT_EXIT(pare::check_extents<2>("f", "y", {3, 4}, {3, 8}), testing::KilledBySignal(SIGABRT),
              "^pare::f: y: got \\[3, 4\\], wanted \\[3, 8\\]\n$");
}

TEST(CheckNoExceptions, PassesInSilence) {
  pare::check(true, "f", "x", 1, 2);
  EXPECT_EQ(pare::checked_product("f", "n", 6, 7), 42);
}

TEST(CheckNoExceptions, ParallelForRuns) {
  std::vector<pare::Index> items;
  pare::parallel_for(pare::SerialExecutor{}, 3,
                     [&](pare::Index item, int) { items.push_back(item); });
  EXPECT_EQ(items, (std::vector<pare::Index>{0, 1, 2}));
}

}  // namespace
}  // namespace core_check_no_exceptions_test
