// SPDX-License-Identifier: Apache-2.0

#include "graph/arguments.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace studies_graph_arguments_test {
namespace {

using graph::Arguments;
using graph::UsageError;

Arguments parse(std::vector<const char*> words) {
  words.insert(words.begin(), "graph");
  return graph::parse_arguments(static_cast<int>(words.size()), words.data());
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

TEST(GraphArguments, NoWordsMeanTheDefaults) {
  const Arguments arguments = parse({});
  EXPECT_TRUE(arguments.edges.empty());
  EXPECT_TRUE(arguments.weights.empty());
  EXPECT_FALSE(arguments.beta);
  EXPECT_EQ(arguments.dim, 512);
  EXPECT_EQ(arguments.seed, 42u);
  EXPECT_DOUBLE_EQ(arguments.train, 0.1);
  EXPECT_GE(arguments.threads, 1);
}

TEST(GraphArguments, ValuesFollowOrStandBehindAnEqualsSign) {
  const Arguments arguments =
      parse({"--edges", "e.txt", "--labels=l=1.txt", "--dim", "64", "--beta=-0.5", "--seed", "7",
             "--threads=3", "--train", "0.25", "--output", "x.npy", "--weights", "0,1e0,-2.5"});
  EXPECT_EQ(arguments.edges, "e.txt");
  EXPECT_EQ(arguments.labels, "l=1.txt");
  EXPECT_EQ(arguments.output, "x.npy");
  EXPECT_EQ(arguments.dim, 64);
  EXPECT_EQ(arguments.beta, -0.5);
  EXPECT_EQ(arguments.seed, 7u);
  EXPECT_EQ(arguments.threads, 3);
  EXPECT_EQ(arguments.train, 0.25);
  EXPECT_EQ(arguments.weights, (std::vector<double>{0, 1, -2.5}));
}

TEST(GraphArguments, WeightsMayBeRepeated) {
  EXPECT_EQ(parse({"--weights", "0x3,1.5x2,4"}).weights,
            (std::vector<double>{0, 0, 0, 1.5, 1.5, 4}));
}

TEST(GraphArguments, HelpEndsTheReading) { EXPECT_TRUE(parse({"--help", "--nonsense"}).help); }

TEST(GraphArguments, NonsenseIsRefused) {
  EXPECT_EQ(refusal({"--nonsense", "1"}), "unknown option '--nonsense'");
  EXPECT_EQ(refusal({"graph.txt"}), "unknown option 'graph.txt'");
  EXPECT_EQ(refusal({"--nonsense"}), "unknown option '--nonsense'");
  EXPECT_EQ(refusal({"--dim"}), "--dim: the value is missing");
  EXPECT_EQ(refusal({"--labels", "l.txt"}), "--labels needs --edges");
  EXPECT_EQ(refusal({"--dim", "0"}), "--dim: got '0', wanted a whole number from 1 to 2^20");
  EXPECT_EQ(refusal({"--beta", "x"}), "--beta: got 'x', wanted a finite number");
  for (const std::vector<const char*>& words :
       std::vector<std::vector<const char*>>{{"--dim", "12a"},
                                             {"--dim", "-3"},
                                             {"--dim", ""},
                                             {"--seed", "-1"},
                                             {"--seed", "99999999999999999999"},
                                             {"--threads", "0"},
                                             {"--threads", "1025"},
                                             {"--beta", "nan"},
                                             {"--beta", "inf"},
                                             {"--weights", ""},
                                             {"--weights", "1,,2"},
                                             {"--weights", "1x0"},
                                             {"--weights", "1x"},
                                             {"--weights", "x2"},
                                             {"--weights", "1x99999"},
                                             {"--train", "0"},
                                             {"--train", "1"},
                                             {"--train", "-0.1"},
                                             {"--edges", ""}})
    EXPECT_THROW(parse(words), UsageError) << words[0] << ' ' << words[1];
}

}  // namespace
}  // namespace studies_graph_arguments_test
