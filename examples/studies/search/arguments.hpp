// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The command line of the study of retrieval.

#include "common/options.hpp"
#include "search/texts.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace search {

inline constexpr const char* usage_text =
    R"(usage: search [options]

Searches the 82,115 noun synsets of WordNet by their definitions, on Pare's kernels: BM25, one vector
per text, MaxSim of token vectors, whole and in few bits, reranking in two stages and fusion. Shows
nDCG, recall and MRR at 10 and milliseconds for each, and which published claims they bear out.

  --task NAME       reverse (documents hold no definition), half (half of the definition's words
                    are asked for) or gloss (all of them)      (reverse)
  --documents N     of the synsets, evenly spread              (all)
  --queries N       drawn                                      (500)
  --seed N          of what is drawn                           (1)
  --sample N        tokens that codecs are fitted on           (32768)
  --centroids N     of codecs                                  (by the sample: 2048)
  --threads N       of the encoder and the last column; figures else are of one  (all)
  --wordnet FILE    data.noun of WordNet 3.0; `cmake/bootstrap.sh deps wordnet-base` installs it
                    on Debian                                  (/usr/share/wordnet/data.noun)
  --model FOLDER    a sentence encoder, as the study `encoder` takes it
                                                 (from PARE_MODELS, else build/models)
  --cache FOLDER    for vectors of documents, up to 1.5 GB per task   (beside the model)
  --help
)";

/// What the user asked for.
struct Arguments {
  Task task = Task::Reverse;
  std::size_t documents = std::numeric_limits<std::size_t>::max();
  std::size_t queries = 500;
  std::uint64_t seed = 1;
  Index sample = 32768;
  std::optional<Index> centroids;
  int threads = command_line::all_threads();
  std::string wordnet = "/usr/share/wordnet/data.noun";
  std::optional<std::string> model, cache;
  bool help = false;
};

namespace detail {

inline Task task(std::string_view option, std::string_view value) {
  const auto* const found = std::ranges::find(task_names, value);
  if (found == std::end(task_names)) command_line::reject(option, value, "reverse, half or gloss");
  return static_cast<Task>(found - std::begin(task_names));
}

template <class Number>
Number count(std::string_view option, std::string_view value, Number least) {
  const std::string wanted = "a whole number from " + std::to_string(least) + " to 2^30";
  return command_line::number<Number>(option, value, least, Number{1} << 30, wanted.c_str());
}

inline constexpr command_line::Option<Arguments> options[] = {
    {"--task", [](auto& a, auto option, auto value) { a.task = task(option, value); }},
    {"--documents", [](auto& a, auto option,
                       auto value) { a.documents = count<std::size_t>(option, value, 100); }},
    {"--queries",
     [](auto& a, auto option, auto value) { a.queries = count<std::size_t>(option, value, 2); }},
    {"--seed",
     [](auto& a, auto option, auto value) { a.seed = command_line::seed(option, value); }},
    {"--sample",
     [](auto& a, auto option, auto value) { a.sample = count<Index>(option, value, 16); }},
    {"--centroids",
     [](auto& a, auto option, auto value) { a.centroids = count<Index>(option, value, 1); }},
    {"--threads",
     [](auto& a, auto option, auto value) { a.threads = command_line::threads(option, value); }},
    {"--wordnet",
     [](auto& a, auto option, auto value) { a.wordnet = command_line::file_name(option, value); }},
    {"--model",
     [](auto& a, auto option, auto value) { a.model = command_line::file_name(option, value); }},
    {"--cache",
     [](auto& a, auto option, auto value) { a.cache = command_line::file_name(option, value); }},
};

}  // namespace detail

/// Reads `--option value` and `--option=value`. Throws UsageError.
inline Arguments parse_arguments(int count, const char* const* words) {
  return command_line::parse(count, words, detail::options);
}

}  // namespace search
