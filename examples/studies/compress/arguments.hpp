// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The command line of the compress study.

#include "common/options.hpp"

#include <pare/factor/allocate_ranks.hpp>

#include <cstddef>
#include <limits>
#include <optional>
#include <regex>
#include <string>
#include <string_view>

namespace compress {

using Index = std::ptrdiff_t;

inline constexpr const char* usage_text =
    R"(usage: compress IN.safetensors OUT.safetensors --keep SHARE [options]

Replaces every matrix W [out x in] of a model by two factors, NAME.left [out x rank] and
NAME.right [rank x in], whose product is nearest to W. Ranks are chosen so that all factored
layers together keep at most the share of their parameters; a matrix whose factors would not be
smaller stays as it is, and so does every other tensor; matrices that stay for their type (integers,
floats of 8 bits or less) are listed. The factors have the type of the matrix.

  --keep SHARE           of the parameters of the factored layers, above 0, at most 1
  --allocate RULE        uniform (the same share in each layer), energy (the same share of each
                         layer's squares is kept), relative (a low sum of relative squared
                         errors) or loss (a low sum of squared errors)              (uniform)
                         A lower sum of errors need not be a better model: try uniform first.
  --dense WHEN           a layer stays dense: break-even (when its rank passes the largest of
                         which factors are smaller) or foreseen (also from a lower rank, if that
                         lowers the sum of errors most; with relative or loss)     (break-even)
  --fisher FILE          weighs errors by Fisher information: for each factored NAME a vector of
                         sums [in] or [out] (a square layer's vector counts as [in]), or a matrix
                         [out x in], which is summed over the outputs
  --covariance FILE      weighs errors by the inputs: for each factored NAME the matrix [in x in]
                         of their mean products, or its diagonal [in], which is worth less
  --only REGEX           factors the matrices in whose name this matches, of any size
                                                                         (all of at least 64 x 64)
  --min-rank N           no rank is smaller                                         (1)
  --multiple N           ranks are multiples of N                                   (1)
  --threads N                                                                       (all)
  --accurate             closer to the best factors of the rank, and slower
  --help
)";

using command_line::UsageError;

/// What the user asked for.
struct Arguments {
  std::string input, output;
  double keep = 0;
  pare::factor::RankScore allocate = pare::factor::RankScore::UniformShare;
  pare::factor::DenseLayers dense = pare::factor::DenseLayers::AtBreakEven;
  std::string fisher, covariance;  ///< empty: none
  std::optional<std::regex> only;
  Index min_rank = 1, multiple = 1;
  int threads = command_line::all_threads();
  bool accurate = false;
  bool help = false;
};

namespace detail {

using command_line::file_name;

inline Index rank(std::string_view option, std::string_view value) {
  return command_line::number<Index>(option, value, 1, 1'000'000,
                                     "a whole number from 1 to 1000000");
}

inline pare::factor::RankScore allocation(std::string_view option, std::string_view value) {
  using pare::factor::RankScore;
  if (value == "uniform") return RankScore::UniformShare;
  if (value == "energy") return RankScore::EnergyShare;
  if (value == "relative") return RankScore::NormalizedEnergy;
  if (value == "loss") return RankScore::AbsoluteEnergy;
  command_line::reject(option, value, "uniform, energy, relative or loss");
}

inline pare::factor::DenseLayers dense_layers(std::string_view option, std::string_view value) {
  using pare::factor::DenseLayers;
  if (value == "break-even") return DenseLayers::AtBreakEven;
  if (value == "foreseen") return DenseLayers::Foreseen;
  command_line::reject(option, value, "break-even or foreseen");
}

inline std::regex pattern(std::string_view option, std::string_view value) {
  try {
    return std::regex(value.begin(), value.end());
  } catch (const std::regex_error& error) {
    command_line::reject(option, value, std::string("a regular expression: ") + error.what());
  }
}

inline constexpr command_line::Option<Arguments> options[] = {
    {"--keep",
     [](auto& a, auto option, auto value) {
       a.keep = command_line::number(option, value, std::numeric_limits<double>::min(), 1.0,
                                     "a share above 0, at most 1");
     }},
    {"--allocate",
     [](auto& a, auto option, auto value) { a.allocate = allocation(option, value); }},
    {"--dense", [](auto& a, auto option, auto value) { a.dense = dense_layers(option, value); }},
    {"--fisher", [](auto& a, auto option, auto value) { a.fisher = file_name(option, value); }},
    {"--covariance",
     [](auto& a, auto option, auto value) { a.covariance = file_name(option, value); }},
    {"--only", [](auto& a, auto option, auto value) { a.only = pattern(option, value); }},
    {"--min-rank", [](auto& a, auto option, auto value) { a.min_rank = rank(option, value); }},
    {"--multiple", [](auto& a, auto option, auto value) { a.multiple = rank(option, value); }},
    {"--threads",
     [](auto& a, auto option, auto value) { a.threads = command_line::threads(option, value); }},
    {"--accurate", [](auto& a, auto, auto) { a.accurate = true; }, true},
};

inline void take_file(Arguments& arguments, std::string_view word) {
  if (word.empty()) throw UsageError("got an empty word, wanted the name of a file");
  std::string& place = arguments.input.empty() ? arguments.input : arguments.output;
  if (!place.empty()) throw UsageError("a third file, '" + std::string(word) + "'");
  place = word;
}

inline void check_complete(const Arguments& arguments) {
  if (arguments.output.empty()) throw UsageError("wanted two files, IN and OUT");
  if (arguments.keep == 0) throw UsageError("--keep is missing");
  if (!arguments.fisher.empty() && !arguments.covariance.empty())
    throw UsageError("got --fisher and --covariance, wanted at most one of them");
  using pare::factor::RankScore;
  if (arguments.dense == pare::factor::DenseLayers::Foreseen &&
      arguments.allocate != RankScore::NormalizedEnergy &&
      arguments.allocate != RankScore::AbsoluteEnergy)
    throw UsageError("got --dense foreseen, wanted --allocate relative or loss with it");
}

}  // namespace detail

/// Reads files, `--option value` and `--option=value`. Throws UsageError.
inline Arguments parse_arguments(int count, const char* const* words) {
  Arguments arguments = command_line::parse(count, words, detail::options, detail::take_file);
  if (!arguments.help) detail::check_complete(arguments);
  return arguments;
}

}  // namespace compress
