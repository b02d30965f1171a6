// SPDX-License-Identifier: Apache-2.0

#include "compress/arguments.hpp"

#include <gtest/gtest.h>

#include <regex>
#include <string>
#include <vector>

namespace studies_compress_arguments_test {
namespace {

using compress::Arguments;
using compress::UsageError;
using pare::factor::DenseLayers;
using pare::factor::RankScore;

Arguments parse(std::vector<const char*> words) {
  words.insert(words.begin(), "compress");
  return compress::parse_arguments(static_cast<int>(words.size()), words.data());
}

/// The same behind two files and a share.
Arguments parse_after_files(std::vector<const char*> words) {
  words.insert(words.begin(), {"in", "out", "--keep", "0.5"});
  return parse(words);
}

/// What the words are refused with.
template <class Parse>
std::string refusal_by(const Parse& read, const std::vector<const char*>& words) {
  try {
    read(words);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "not refused";
}

TEST(CompressArguments, TwoFilesAndAShareAreEnough) {
  const Arguments arguments = parse({"in.safetensors", "out.safetensors", "--keep", "0.5"});
  EXPECT_EQ(arguments.input, "in.safetensors");
  EXPECT_EQ(arguments.output, "out.safetensors");
  EXPECT_EQ(arguments.keep, 0.5);
  EXPECT_EQ(arguments.allocate, RankScore::UniformShare);
  EXPECT_EQ(arguments.dense, DenseLayers::AtBreakEven);
  EXPECT_EQ(arguments.fisher, "");
  EXPECT_EQ(arguments.covariance, "");
  EXPECT_FALSE(arguments.only.has_value());
  EXPECT_EQ(arguments.min_rank, 1);
  EXPECT_EQ(arguments.multiple, 1);
  EXPECT_GE(arguments.threads, 1);
  EXPECT_FALSE(arguments.accurate);
  EXPECT_FALSE(arguments.help);
}

TEST(CompressArguments, ValuesFollowOrStandBehindAnEqualsSignAndFilesStandAnywhere) {
  const Arguments arguments =
      parse({"--allocate=loss", "in", "--fisher", "f=1", "--only=mlp.*weight$", "--accurate",
             "--min-rank=8", "--multiple", "16", "out", "--threads", "3", "--keep=0.25"});
  EXPECT_EQ(arguments.input, "in");
  EXPECT_EQ(arguments.output, "out");
  EXPECT_EQ(arguments.keep, 0.25);
  EXPECT_EQ(arguments.allocate, RankScore::AbsoluteEnergy);
  EXPECT_EQ(arguments.fisher, "f=1");
  EXPECT_EQ(arguments.min_rank, 8);
  EXPECT_EQ(arguments.multiple, 16);
  EXPECT_EQ(arguments.threads, 3);
  EXPECT_TRUE(arguments.accurate);
  ASSERT_TRUE(arguments.only.has_value());
  EXPECT_TRUE(std::regex_search("h.0.mlp.up.weight", *arguments.only));
  EXPECT_FALSE(std::regex_search("h.0.mlp.up.bias", *arguments.only));
  EXPECT_EQ(parse_after_files({"--covariance=c"}).covariance, "c");
}

TEST(CompressArguments, RulesHaveNames) {
  const auto rule = [](const char* name) {
    return parse_after_files({"--allocate", name}).allocate;
  };
  EXPECT_EQ(rule("uniform"), RankScore::UniformShare);
  EXPECT_EQ(rule("energy"), RankScore::EnergyShare);
  EXPECT_EQ(rule("relative"), RankScore::NormalizedEnergy);
  EXPECT_EQ(rule("loss"), RankScore::AbsoluteEnergy);
  EXPECT_EQ(parse_after_files({"--dense", "break-even"}).dense, DenseLayers::AtBreakEven);
  for (const char* sum : {"--allocate=relative", "--allocate=loss"})
    EXPECT_EQ(parse_after_files({"--dense=foreseen", sum}).dense, DenseLayers::Foreseen);
}

TEST(CompressArguments, HelpEndsTheReading) { EXPECT_TRUE(parse({"--help", "--nonsense"}).help); }

TEST(CompressArguments, AnIncompleteCommandIsRefused) {
  EXPECT_EQ(refusal_by(parse, {}), "wanted two files, IN and OUT");
  EXPECT_EQ(refusal_by(parse, {"in", "--keep", "1"}), "wanted two files, IN and OUT");
  EXPECT_EQ(refusal_by(parse, {"in", "out"}), "--keep is missing");
  EXPECT_EQ(refusal_by(parse, {"in", "out", "--keep"}), "--keep: the value is missing");
  EXPECT_EQ(refusal_by(parse, {"in", "out", "more"}), "a third file, 'more'");
  EXPECT_EQ(refusal_by(parse, {"", "out"}), "got an empty word, wanted the name of a file");
}

TEST(CompressArguments, NonsenseIsRefused) {
  EXPECT_EQ(refusal_by(parse_after_files, {"--nonsense", "1"}), "unknown option '--nonsense'");
  EXPECT_EQ(refusal_by(parse_after_files, {"--allocate", "best"}),
            "--allocate: got 'best', wanted uniform, energy, relative or loss");
  EXPECT_EQ(refusal_by(parse_after_files, {"--dense", "never"}),
            "--dense: got 'never', wanted break-even or foreseen");
  for (const char* rule : {"--allocate=uniform", "--allocate=energy"})
    EXPECT_EQ(refusal_by(parse_after_files, {"--dense", "foreseen", rule}),
              "got --dense foreseen, wanted --allocate relative or loss with it");
  EXPECT_EQ(refusal_by(parse_after_files, {"--fisher", "f", "--covariance", "c"}),
            "got --fisher and --covariance, wanted at most one of them");
  EXPECT_EQ(refusal_by(parse_after_files, {"--keep", "0"}),
            "--keep: got '0', wanted a share above 0, at most 1");
  EXPECT_EQ(refusal_by(parse_after_files, {"--only", "("})
                .find("--only: got '(', wanted a regular expression: "),
            0u);
  for (const std::vector<const char*>& words :
       std::vector<std::vector<const char*>>{{"--keep", "nan"},
                                             {"--keep", "-0.5"},
                                             {"--keep", "1.01"},
                                             {"--keep", "50%"},
                                             {"--min-rank", "0"},
                                             {"--multiple", "-8"},
                                             {"--multiple", "8.5"},
                                             {"--threads", "0"},
                                             {"--threads", "99999999999999999999"},
                                             {"--fisher", ""},
                                             {"--accurate=no", "1"}})
    EXPECT_THROW(parse_after_files(words), UsageError) << words[0] << ' ' << words[1];
}

}  // namespace
}  // namespace studies_compress_arguments_test
