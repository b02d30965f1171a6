// SPDX-License-Identifier: Apache-2.0

#include "recall/arguments.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace studies_recall_arguments_test {
namespace {

using recall::Arguments;
using recall::Index;
using recall::UsageError;

Arguments parse(std::vector<const char*> words) {
  words.insert(words.begin(), "recall");
  return recall::parse_arguments(static_cast<int>(words.size()), words.data());
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

TEST(RecallArguments, NoWordsMeanTheDefaults) {
  const Arguments arguments = parse({});
  EXPECT_EQ(arguments.tokens, (std::vector<Index>{4096, 16384, 65536}));
  EXPECT_TRUE(arguments.methods.empty());
  EXPECT_TRUE(arguments.plot.empty());
  EXPECT_FALSE(arguments.own_model());
  EXPECT_EQ(arguments.seed, 42u);
  EXPECT_GE(arguments.threads, 1);
  EXPECT_FALSE(arguments.help);
}

TEST(RecallArguments, ValuesFollowOrStandBehindAnEqualsSign) {
  const Arguments arguments =
      parse({"--tokens", "4096,8192", "--methods=pbs,s2o", "--plot=a=b.svg", "--q", "q.npy", "--k",
             "k.npy", "--v=v.npy", "--threads", "3", "--seed=7"});
  EXPECT_EQ(arguments.tokens, (std::vector<Index>{4096, 8192}));
  EXPECT_EQ(arguments.methods, (std::vector<std::string>{"pbs", "s2o"}));
  EXPECT_EQ(arguments.plot, "a=b.svg");
  EXPECT_EQ(arguments.q, "q.npy");
  EXPECT_EQ(arguments.k, "k.npy");
  EXPECT_EQ(arguments.v, "v.npy");
  EXPECT_EQ(arguments.threads, 3);
  EXPECT_EQ(arguments.seed, 7u);
  EXPECT_TRUE(arguments.own_model());
}

TEST(RecallArguments, HelpEndsTheReading) { EXPECT_TRUE(parse({"--help", "--nonsense"}).help); }

TEST(RecallArguments, NonsenseIsRefused) {
  EXPECT_EQ(refusal({"--nonsense", "1"}), "unknown option '--nonsense'");
  EXPECT_EQ(refusal({"q.npy"}), "unknown option 'q.npy'");
  EXPECT_EQ(refusal({"--tokens"}), "--tokens: the value is missing");
  EXPECT_EQ(refusal({"--tokens", "4096,5"}),
            "--tokens: got '5', wanted even numbers from 4 to 65536");
  EXPECT_EQ(refusal({"--q", "q.npy"}), "--q, --k and --v go together");
  EXPECT_EQ(refusal({"--k", "k.npy", "--v", "v.npy"}), "--q, --k and --v go together");
  for (const std::vector<const char*>& words :
       std::vector<std::vector<const char*>>{{"--tokens", ""},
                                             {"--tokens", "4096,"},
                                             {"--tokens", "2"},
                                             {"--tokens", "65538"},
                                             {"--tokens", "4k"},
                                             {"--threads", "0"},
                                             {"--threads", "1025"},
                                             {"--seed", "-1"},
                                             {"--seed", "99999999999999999999"},
                                             {"--plot", ""},
                                             {"--q", ""}})
    EXPECT_THROW(parse(words), UsageError) << words[0] << ' ' << words[1];
}

}  // namespace
}  // namespace studies_recall_arguments_test
