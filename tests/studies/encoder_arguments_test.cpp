// SPDX-License-Identifier: Apache-2.0

#include "encoder/arguments.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace studies_encoder_arguments_test {
namespace {

using namespace encoder;

Arguments parse(std::vector<const char*> words) {
  words.insert(words.begin(), "encoder");
  return parse_arguments(static_cast<int>(words.size()), words.data());
}

std::string refusal(const std::vector<const char*>& words) {
  try {
    parse(words);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "not refused";
}

TEST(EncoderArguments, SentencesAreEnough) {
  const Arguments arguments = parse({"One.", "judge", "Two."});
  EXPECT_EQ(arguments.command, Command::Compare);
  EXPECT_EQ(arguments.words, (std::vector<std::string>{"One.", "judge", "Two."}));
  EXPECT_EQ(arguments.model, std::nullopt);
  EXPECT_EQ(arguments.tokens, 256);
  EXPECT_GE(arguments.threads, 1);
}

TEST(EncoderArguments, OptionsStandAnywhereBehindTheCommand) {
  const Arguments judged = parse({"judge", "--svd=0.75,.5", "a.txt", "--sample", "b.txt",
                                  "--metric", "covariance,inputs", "--threads", "2"});
  EXPECT_EQ(judged.command, Command::Judge);
  EXPECT_EQ(judged.words, std::vector<std::string>{"a.txt"});
  EXPECT_EQ(judged.shares, (std::vector<double>{.75, .5}));
  EXPECT_EQ(judged.metrics(), (std::vector<SvdMetric>{SvdMetric::Covariance, SvdMetric::Inputs}));
  EXPECT_EQ(judged.sample, "b.txt");
  EXPECT_EQ(judged.threads, 2);
  EXPECT_EQ(parse({"judge", "a", "--svd", "1", "--sample", "b"}).metrics(),
            (std::vector<SvdMetric>{SvdMetric::Plain, SvdMetric::Covariance}));
  EXPECT_EQ(parse({"judge", "a", "--svd", "1", "--metric", "plain"}).sample, "");
  EXPECT_EQ(parse({"judge", "a", "--heads", "6,3", "--sample", "b"}).heads,
            (std::vector<pare::Index>{6, 3}));
  const Arguments structured =
      parse({"judge", "a", "--two-four=armor", "--dense-sparse", "0.5", "--sample", "b"});
  EXPECT_EQ(structured.structured.two_four,
            std::vector<models::TwoFourWay>{models::TwoFourWay::Armor});
  EXPECT_EQ(structured.structured.dense_sparse, std::vector<double>{0.5});
  const Arguments written =
      parse({"vectors", "a.txt", "--out", "x", "--model=y", "--tokens", "128"});
  EXPECT_EQ(written.command, Command::Vectors);
  EXPECT_EQ(written.out, "x");
  EXPECT_EQ(written.model, "y");
  EXPECT_EQ(written.tokens, 128);
}

TEST(EncoderArguments, HelpIsAskedForWithAndWithoutACommand) {
  for (const auto& words : std::vector<std::vector<const char*>>{
           {"--help"}, {"-h"}, {"judge", "--help"}, {"vectors", "-h"}, {"One.", "--help"}})
    EXPECT_TRUE(parse(words).help);
}

TEST(EncoderArguments, WhatMakesNoSenseIsRefused) {
  EXPECT_EQ(refusal({}), "got 0 sentences, wanted at least 2");
  EXPECT_EQ(refusal({"One."}), "got 1 sentences, wanted at least 2");
  EXPECT_EQ(refusal({"judge", "--svd", "1"}), "got 0 words behind the command, wanted one, a file");
  EXPECT_EQ(refusal({"vectors", "a", "b", "--out", "c"}),
            "got 2 words behind the command, wanted one, a file");
  EXPECT_EQ(refusal({"vectors", "a"}), "--out is missing");
  EXPECT_EQ(refusal({"judge", "a", "--sample", "b"}), "--svd is missing");
  EXPECT_EQ(refusal({"judge", "a", "--heads", "6"}), "--heads needs --sample");
  EXPECT_EQ(refusal({"judge", "a", "--heads", "6", "--svd=1", "--sample", "b"}),
            "got both --svd and --heads");
  EXPECT_EQ(refusal({"judge", "a", "--heads", "6,0", "--sample", "b"}),
            "--heads: got '0', wanted numbers of heads, by commas");
  EXPECT_EQ(refusal({"judge", "a", "--heads", "6", "--metric", "inputs", "--sample", "b"}),
            "got both --metric and --heads");
  EXPECT_EQ(refusal({"judge", "a", "--heads", "6", "--sample", "a"}),
            "--sample: got 'a', wanted a text that is not judged");
  EXPECT_EQ(refusal({"judge", "a", "--svd", "1"}),
            "--metric inputs and covariance, which is among the default, need --sample");
  EXPECT_EQ(refusal({"judge", "a", "--svd", "1", "--metric", "plain", "--sample", "b"}),
            "got --sample, wanted none with --metric plain");
  EXPECT_EQ(refusal({"judge", "a", "--svd", "1", "--sample", "a"}),
            "--sample: got 'a', wanted a text that is not judged");
  EXPECT_EQ(refusal({"judge", "a", "--two-four", "wanda"}),
            "--two-four and --dense-sparse need --sample");
  EXPECT_EQ(refusal({"judge", "a", "--two-four", "wanda", "--svd=1", "--sample", "b"}),
            "got --two-four or --dense-sparse beside another method");
  EXPECT_EQ(refusal({"judge", "a", "--svd", "0"}),
            "--svd: got '0', wanted shares above 0, at most 1, by commas");
  EXPECT_EQ(refusal({"judge", "a", "--svd", "1", "--metric", "fisher"}),
            "--metric: got 'fisher', wanted names of plain, inputs and covariance, by commas");
  EXPECT_EQ(refusal({"One.", "Two.", "--tokens", "1"}),
            "--tokens: got '1', wanted a whole number from 2 to 2^20");
  // An option of another command would be ignored.
  EXPECT_EQ(refusal({"One.", "Two.", "--svd", "1"}), "unknown option '--svd'");
  EXPECT_EQ(refusal({"judge", "a", "--out", "b"}), "unknown option '--out'");
}

}  // namespace
}  // namespace studies_encoder_arguments_test
