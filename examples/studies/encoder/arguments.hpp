// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The command line of the encoder study: sentences, or a command and options that it takes.

#include "common/options.hpp"
#include "common/structured_arguments.hpp"

#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace encoder {

using command_line::UsageError;
using pare::Index;

inline constexpr const char* usage_text =
    R"(usage: encoder SENTENCE SENTENCE... [options]
       encoder judge FILE --svd LIST --sample OTHER [options]
       encoder judge FILE --heads LIST --sample OTHER [options]
       encoder judge FILE --two-four LIST --dense-sparse LIST --sample OTHER [options]
       encoder vectors FILE --out OUT.safetensors [options]

Sentence vectors by a BERT encoder on Pare's kernels. The model is all-MiniLM-L6-v2, which
`cmake/bootstrap.sh model` fetches, or one of yours with a config.json, a model.safetensors and the
vocab.txt of an uncased BERT. The vector of a sentence is the mean of those of its tokens, at length 1.

encoder SENTENCE SENTENCE... shows the cosines between sentences.

judge shows the mean cosine between vectors by the whole model and by one whose linear layers are
factored, over the lines of a text:
  --svd LIST           shares of the layers' parameters that are kept
  --metric LIST        what errors are weighed with: plain (nothing), inputs (the mean square of
                       each input) or covariance (their mean products)   (plain,covariance)
  --sample FILE        another text, whose lines show what inputs there are; not for plain alone
  --heads LIST         instead, how many attention heads each block keeps: the most used on --sample,
                       the least used, and three draws
  --two-four LIST      instead, layers in 2:4 form, by magnitude, wanda, nowag, sparsegpt or armor
                       (between dense blocks of 32), beside low rank of as many bytes, all in bf16
  --dense-sparse LIST  and dense times sparse layers of such shares of the bytes

vectors writes what the model makes of the lines of a text:
  --out FILE           sentences [lines, dim], tokens [tokens, dim] and offsets [lines + 1]: line i
                       has the tokens offsets[i] to offsets[i + 1] - 1

all of them:
  --tokens N           of a sentence at most                     (256)
  --model FOLDER                                     (from PARE_MODELS, else build/models)
  --threads N          threads of OpenMP wait busily: where other programs run too, take fewer, or
                       set OMP_WAIT_POLICY=passive               (all)
  --help
)";

/// What errors of a factored layer are weighed with.
enum class SvdMetric { Plain, Inputs, Covariance };

inline constexpr std::string_view metric_names[] = {"plain", "inputs", "covariance"};
inline std::string_view name_of(SvdMetric metric) {
  return metric_names[static_cast<std::size_t>(metric)];
}

enum class Command { Compare, Judge, Vectors };

/// What the user asked for.
struct Arguments {
  Command command = Command::Compare;
  std::vector<std::string> words;  ///< sentences, or a file
  std::vector<double> shares;
  std::optional<std::vector<SvdMetric>> metric;
  std::vector<Index> heads;  ///< how many are kept; empty: layers are factored
  models::StructuredArguments structured;
  std::string sample, out;
  Index tokens = 256;
  std::optional<std::string> model;
  int threads = command_line::all_threads();
  bool help = false;

  std::vector<SvdMetric> metrics() const {
    return metric.value_or(std::vector{SvdMetric::Plain, SvdMetric::Covariance});
  }
  bool needs_sample() const {
    return !heads.empty() || structured.any() ||
           std::ranges::any_of(metrics(), [](SvdMetric m) { return m != SvdMetric::Plain; });
  }
};

namespace detail {

inline double share(std::string_view option, std::string_view value) {
  return command_line::number(option, value, std::numeric_limits<double>::min(), 1.0,
                              "shares above 0, at most 1, by commas");
}

inline Index head_count(std::string_view option, std::string_view value) {
  return command_line::number<Index>(option, value, 1, 1 << 20, "numbers of heads, by commas");
}

inline SvdMetric metric(std::string_view option, std::string_view value) {
  const auto* const found = std::ranges::find(metric_names, value);
  if (found == std::end(metric_names))
    command_line::reject(option, value, "names of plain, inputs and covariance, by commas");
  return static_cast<SvdMetric>(found - std::begin(metric_names));
}

using Option = command_line::Option<Arguments>;
inline constexpr Option tokens_option = {
    "--tokens", [](auto& a, auto option, auto value) {
      a.tokens =
          command_line::number<Index>(option, value, 2, 1 << 20, "a whole number from 2 to 2^20");
    }};
inline constexpr Option model_option = {"--model", [](auto& a, auto option, auto value) {
                                          a.model = command_line::file_name(option, value);
                                        }};
inline constexpr Option threads_option = {"--threads", [](auto& a, auto option, auto value) {
                                            a.threads = command_line::threads(option, value);
                                          }};

inline constexpr Option compare_options[] = {tokens_option, model_option, threads_option};

inline constexpr Option judge_options[] = {
    tokens_option,
    model_option,
    threads_option,
    {"--svd",
     [](auto& a, auto option, auto value) { a.shares = command_line::list(option, value, share); }},
    {"--heads", [](auto& a, auto option,
                   auto value) { a.heads = command_line::list(option, value, head_count); }},
    {"--metric", [](auto& a, auto option,
                    auto value) { a.metric = command_line::list(option, value, metric); }},
    {"--sample",
     [](auto& a, auto option, auto value) { a.sample = command_line::file_name(option, value); }},
    {"--two-four",
     [](auto& a, auto option, auto value) {
       a.structured.two_four = command_line::list(option, value, models::two_four_way);
     }},
    {"--dense-sparse",
     [](auto& a, auto option, auto value) {
       a.structured.dense_sparse = command_line::list(option, value, models::dense_sparse_share);
     }},
};

inline constexpr Option vectors_options[] = {
    tokens_option,
    model_option,
    threads_option,
    {"--out",
     [](auto& a, auto option, auto value) { a.out = command_line::file_name(option, value); }},
};

template <std::size_t Count>
Arguments parse(Command command, int count, const char* const* words,
                const Option (&options)[Count]) {
  Arguments arguments =
      command_line::parse(count, words, options,
                          [](Arguments& a, std::string_view word) { a.words.emplace_back(word); });
  arguments.command = command;
  return arguments;
}

inline void check_complete(const Arguments& a) {
  const std::string got = "got " + std::to_string(a.words.size());
  if (a.command == Command::Compare) {
    if (a.words.size() < 2) throw UsageError(got + " sentences, wanted at least 2");
    return;
  }
  if (a.words.size() != 1) throw UsageError(got + " words behind the command, wanted one, a file");
  if (a.command == Command::Vectors) {
    if (a.out.empty()) throw UsageError("--out is missing");
    return;
  }
  models::check_structured(a.structured, a.sample,
                           !a.shares.empty() || !a.heads.empty() || a.metric);
  if (!a.structured.any() && a.shares.empty() == a.heads.empty())
    throw UsageError(a.heads.empty() ? "--svd is missing" : "got both --svd and --heads");
  if (!a.heads.empty() && a.metric) throw UsageError("got both --metric and --heads");
  if (!a.heads.empty() && a.sample.empty()) throw UsageError("--heads needs --sample");
  if (a.needs_sample() && a.sample.empty())
    throw UsageError("--metric inputs and covariance, which is among the default, need --sample");
  if (!a.needs_sample() && !a.sample.empty())
    throw UsageError("got --sample, wanted none with --metric plain");
  if (a.sample == a.words.front())
    throw UsageError("--sample: got '" + a.sample + "', wanted a text that is not judged");
}

}  // namespace detail

/// Reads sentences or a command, `--option value` and `--option=value`. Throws UsageError.
inline Arguments parse_arguments(int count, const char* const* words) {
  const std::string_view command = count > 1 ? words[1] : "";
  Arguments arguments =
      command == "judge"
          ? detail::parse(Command::Judge, count - 1, words + 1, detail::judge_options)
      : command == "vectors"
          ? detail::parse(Command::Vectors, count - 1, words + 1, detail::vectors_options)
          : detail::parse(Command::Compare, count, words, detail::compare_options);
  if (!arguments.help) detail::check_complete(arguments);
  return arguments;
}

}  // namespace encoder
