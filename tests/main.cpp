// SPDX-License-Identifier: Apache-2.0
// GoogleTest's main with one more option, --file=<area>/<name>_test.cpp, which runs the tests that
// are written in that file; a run that selects no test at all fails, and one that skips all ends
// with code 77.

#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <string_view>

namespace {

/// Calls f(test) for every test that the program holds.
template <class F>
void for_each_test(F f) {
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int s = 0; s < all.total_test_suite_count(); ++s) {
    const testing::TestSuite& suite = *all.GetTestSuite(s);
    for (int t = 0; t < suite.total_test_count(); ++t) f(*suite.GetTestInfo(t));
  }
}

std::string full_name(const testing::TestInfo& test) {
  return std::string(test.test_suite_name()) + "." + test.name();
}

/// The filter that selects the tests of one file. A test written elsewhere than in a `_test.cpp`
/// would belong to no file's entry and never run, so it is an error.
bool select_file(std::string_view file) {
  std::string filter;
  bool complete = true;
  for_each_test([&](const testing::TestInfo& test) {
    const std::string_view written_in = test.file();
    if (written_in.ends_with(file)) filter += full_name(test) + ":";
    if (!written_in.ends_with("_test.cpp")) {
      std::fprintf(stderr, "%s is written in %s: tests belong in a file named *_test.cpp\n",
                   full_name(test).c_str(), test.file());
      complete = false;
    }
  });
  testing::GTEST_FLAG(filter) = filter.empty() ? "no-test-at-all" : filter;
  return complete;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  constexpr std::string_view option = "--file=";
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (!argument.starts_with(option)) {
      std::fprintf(stderr, "unknown argument %s\n", argv[i]);
      return 2;
    }
    if (!select_file(argument.substr(option.size()))) return 1;
  }
  const int failed = RUN_ALL_TESTS();
  const bool listing = testing::GTEST_FLAG(list_tests);
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  if (!listing && all.test_to_run_count() == 0) {
    std::fprintf(stderr, "no test was selected\n");
    return 1;
  }
  constexpr int skipped = 77;
  const bool skips_all = !listing && all.skipped_test_count() == all.test_to_run_count();
  return failed == 0 && skips_all ? skipped : failed;
}
