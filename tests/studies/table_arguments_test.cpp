// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "table/arguments.hpp"

namespace studies_table_arguments_test {
namespace {

using table::Arguments;
using table::UsageError;

Arguments parse(std::initializer_list<const char*> words) {
  std::vector<const char*> all{"table"};
  all.insert(all.end(), words);
  return table::parse_arguments(static_cast<int>(all.size()), all.data());
}

TEST(TableArguments, DefaultsAreThoseOfTheUsageText) {
  const Arguments a = parse({});
  const std::string text = table::usage_text;
  const auto expect = [&](const char* option, const std::string& value) {
    const auto line =
        text.substr(text.find(option), text.find('\n', text.find(option)) - text.find(option));
    EXPECT_NE(line.find("(" + value + ")"), std::string::npos) << line;
  };
  expect("--buckets", std::to_string(a.buckets));
  expect("--embedding", std::to_string(a.rank.model.embedding));
  expect("--splits", std::to_string(a.splits));
  expect("--epochs", std::to_string(a.rank.training.epochs));
  expect("--batch", std::to_string(a.rank.training.batch));
  expect("--hidden", std::to_string(a.rank.model.hidden.front()));
  EXPECT_EQ(a.rank.model.learning_rate, 0.001);
  EXPECT_FALSE(a.rank.alpha.has_value()) << "the number of rows decides";
  EXPECT_EQ(a.tolerance, 0.005);
  EXPECT_TRUE(a.csv.empty());
  EXPECT_FALSE(a.scale || a.help);
}

TEST(TableArguments, TakesValuesInBothForms) {
  const Arguments a = parse(
      {"--csv", "t.csv", "--epochs=7", "--alpha", "0.5", "--hidden=9", "--threads=2", "--scale"});
  EXPECT_EQ(a.csv, "t.csv");
  EXPECT_EQ(a.rank.training.epochs, 7);
  EXPECT_EQ(a.rank.alpha.value(), 0.5);
  EXPECT_EQ(a.rank.model.hidden, std::vector<table::Index>{9});
  EXPECT_EQ(a.threads, 2);
  EXPECT_TRUE(a.scale);
  EXPECT_TRUE(parse({"--help", "--nonsense"}).help);
}

TEST(TableArguments, RefusesWhatMakesNoSense) {
  for (const auto& words : std::vector<std::vector<const char*>>{{"--splits", "1"},
                                                                 {"--splits=2x"},
                                                                 {"--epochs", ""},
                                                                 {"--batch", "1"},
                                                                 {"--alpha=-1"},
                                                                 {"--alpha=nan"},
                                                                 {"--rate=0"},
                                                                 {"--nonsense", "1"},
                                                                 {"--csv"},
                                                                 {"--csv="}}) {
    std::vector<const char*> all{"table"};
    all.insert(all.end(), words.begin(), words.end());
    EXPECT_THROW(table::parse_arguments(static_cast<int>(all.size()), all.data()), UsageError)
        << words.front();
  }
}

}  // namespace
}  // namespace studies_table_arguments_test
