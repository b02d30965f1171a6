// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/options.hpp"
#include "common/run_program.hpp"

namespace studies_command_line_test {
namespace {

using command_line::UsageError;

struct Arguments {
  std::vector<std::string> words;
  int count = 0;
  bool loud = false, help = false;
};

constexpr command_line::Option<Arguments> options[] = {
    {"--count",
     [](auto& a, auto option, auto value) {
       a.count = command_line::number(option, value, -5, 5, "a whole number from -5 to 5");
     }},
    {"--loud", [](auto& a, auto, auto) { a.loud = true; }, true},
};

Arguments parse(std::initializer_list<const char*> words) {
  std::vector<const char*> all{"program"};
  all.insert(all.end(), words);
  return command_line::parse(static_cast<int>(all.size()), all.data(), options);
}

Arguments parse_words(std::initializer_list<const char*> words) {
  return command_line::parse(static_cast<int>(words.size()), words.begin(), options,
                             [](Arguments& a, auto word) { a.words.emplace_back(word); });
}

TEST(CommandLine, ReadsBothFormsAndSwitches) {
  EXPECT_EQ(parse({"--count", "3"}).count, 3);
  EXPECT_EQ(parse({"--count=-4", "--loud"}).count, -4);
  EXPECT_EQ(parse({"--count=1", "--count=2"}).count, 2) << "the last one holds";
  EXPECT_TRUE(parse({"--loud"}).loud);
  EXPECT_FALSE(parse({"--count", "3"}).loud);
  EXPECT_TRUE(parse({"-h", "--nonsense"}).help);
  EXPECT_EQ(parse_words({"program", "one", "--loud", "two"}).words,
            (std::vector<std::string>{"one", "two"}));
}

TEST(CommandLine, RefusesWhatMakesNoSense) {
  for (const char* word : {"--count", "--loud=yes", "--count=", "--count=6", "--count=2x", "--coun",
                           "--count = 2", "word", "-", ""})
    EXPECT_THROW(parse({word}), UsageError) << word;
  try {
    parse({"--count", "seven"});
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_STREQ(error.what(), "--count: got 'seven', wanted a whole number from -5 to 5");
  }
}

TEST(CommandLine, ListsKeepEmptyItems) {
  const auto text = [](auto, auto item) { return std::string(item); };
  using Items = std::vector<std::string>;
  EXPECT_EQ(command_line::list("--x", "a,,b,", text), (Items{"a", "", "b", ""}));
  EXPECT_EQ(command_line::list("--x", "", text), Items{""});
}

TEST(RunProgram, ExitsWithWhatHappened) {
  const command_line::Program program{.name = "program", .usage = "usage\n", .less_memory = "less"};
  const auto exit_code = [&](auto parse, auto run) {
    return command_line::run_program(program, parse, run);
  };
  const auto nothing = [](const Arguments&) {};
  int runs = 0;
  EXPECT_EQ(exit_code([] { return Arguments{}; }, [&](const Arguments&) { ++runs; }), 0);
  EXPECT_EQ(runs, 1);
  testing::internal::CaptureStdout();
  EXPECT_EQ(exit_code([] { return parse({"--help"}); }, [&](const Arguments&) { ++runs; }), 0);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "usage\n");
  EXPECT_EQ(runs, 1) << "help runs nothing";
  testing::internal::CaptureStderr();
  EXPECT_EQ(exit_code([] { return parse({"--nonsense"}); }, nothing), 2);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "program: unknown option '--nonsense'\n\nusage\n");
  testing::internal::CaptureStderr();
  EXPECT_EQ(exit_code([] { return Arguments{}; },
                      [](const Arguments&) { throw std::runtime_error("broken"); }),
            1);
  EXPECT_EQ(exit_code([] { return Arguments{}; }, [](const Arguments&) { throw std::bad_alloc(); }),
            1);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "program: broken\nprogram: not enough memory; less\n");
}

}  // namespace
}  // namespace studies_command_line_test
