// SPDX-License-Identifier: Apache-2.0

#include "digits/arguments.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace studies_digits_arguments_test {
namespace {

using digits::Arguments;
using digits::Fisher;
using digits::Index;
using digits::UsageError;

Arguments parse(std::vector<const char*> words) {
  words.insert(words.begin(), "digits");
  return digits::parse_arguments(static_cast<int>(words.size()), words.data());
}

/// What the words are refused with.
std::string refusal(const std::vector<const char*>& words) {
  try {
    parse(words);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "not refused";
}

TEST(DigitsArguments, NoWordsMeanTheDefaults) {
  const Arguments arguments = parse({});
  EXPECT_EQ(arguments.seeds, 20u);
  EXPECT_EQ(arguments.epochs, 60);
  EXPECT_EQ(arguments.ranks, (std::vector<Index>{4, 8, 16, 32}));
  EXPECT_EQ(arguments.hidden, (std::vector<Index>{256, 128}));
  EXPECT_EQ(arguments.weight_decay, (std::vector<double>{0, 1}));
  EXPECT_EQ(arguments.fisher.kinds, (std::vector<Fisher>{Fisher::True, Fisher::Empirical}));
  EXPECT_EQ(arguments.fisher.floor, 1e-3);
  EXPECT_TRUE(arguments.images.empty());
  EXPECT_TRUE(arguments.csv.empty());
  EXPECT_GE(arguments.threads, 1);
  EXPECT_FALSE(arguments.help);
}

TEST(DigitsArguments, ValuesFollowOrStandBehindAnEqualsSign) {
  const Arguments arguments =
      parse({"--seeds=2", "--epochs", "7", "--ranks", "1,20", "--hidden=20,64", "--weight-decay",
             "0.5", "--fisher=sampled,empirical,true", "--fisher-floor=0", "--images", "i.csv",
             "--csv=a=b.csv", "--threads=3"});
  EXPECT_EQ(arguments.seeds, 2u);
  EXPECT_EQ(arguments.epochs, 7);
  EXPECT_EQ(arguments.ranks, (std::vector<Index>{1, 20}));
  EXPECT_EQ(arguments.hidden, (std::vector<Index>{20, 64}));
  EXPECT_EQ(arguments.weight_decay, (std::vector<double>{0.5}));
  EXPECT_EQ(arguments.fisher.kinds,
            (std::vector<Fisher>{Fisher::Sampled, Fisher::Empirical, Fisher::True}));
  EXPECT_EQ(arguments.fisher.floor, 0);
  EXPECT_EQ(arguments.images, "i.csv");
  EXPECT_EQ(arguments.csv, "a=b.csv");
  EXPECT_EQ(arguments.threads, 3);
}

TEST(DigitsArguments, HelpEndsTheReading) { EXPECT_TRUE(parse({"--help", "--nonsense"}).help); }

TEST(DigitsArguments, NonsenseIsRefused) {
  EXPECT_EQ(refusal({"--nonsense", "1"}), "unknown option '--nonsense'");
  EXPECT_EQ(refusal({"8"}), "unknown option '8'");
  EXPECT_EQ(refusal({"--ranks"}), "--ranks: the value is missing");
  EXPECT_EQ(refusal({"--seeds", "1"}), "--seeds: got '1', wanted a whole number from 2 to 1000");
  EXPECT_EQ(refusal({"--fisher", "false"}),
            "--fisher: got 'false', wanted true, sampled or empirical");
  EXPECT_EQ(refusal({"--ranks", "8,8"}), "--ranks: an item of '8,8' comes twice");
  EXPECT_EQ(refusal({"--ranks", "65"}), "--ranks: got 65, wanted at most 64, the least width");
  EXPECT_EQ(refusal({"--ranks", "20", "--hidden", "64,16"}),
            "--ranks: got 20, wanted at most 16, the least width");
  for (const std::vector<const char*>& words :
       std::vector<std::vector<const char*>>{{"--ranks", ""},
                                             {"--ranks", "4,"},
                                             {"--ranks", "0"},
                                             {"--ranks", "4k"},
                                             {"--hidden", "-8"},
                                             {"--hidden", "5000"},
                                             {"--seeds", "99999999999999999999"},
                                             {"--epochs", "0"},
                                             {"--weight-decay", "nan"},
                                             {"--weight-decay", "-1"},
                                             {"--weight-decay", "1000"},
                                             {"--fisher", "true,"},
                                             {"--fisher-floor", "1.5"},
                                             {"--fisher-floor", "nan"},
                                             {"--threads", "0"},
                                             {"--images", ""},
                                             {"--csv", ""}})
    EXPECT_THROW(parse(words), UsageError) << words[0] << ' ' << words[1];
}

}  // namespace
}  // namespace studies_digits_arguments_test
