// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The command line of the language_model study: a command, and options that it takes.

#include "common/options.hpp"
#include "language_model/head_arguments.hpp"
#include "language_model/kv_cache.hpp"
#include "language_model/latent_arguments.hpp"
#include "language_model/sampler.hpp"
#include "language_model/svd_arguments.hpp"
#include "language_model/usage.hpp"
#include "language_model/weights.hpp"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace language_model {

using command_line::UsageError;

/// Of sparse attention; sparse_attention.hpp says what they are.
inline constexpr std::string_view sparse_names[] = {
    "mean_pool", "antidiagonal", "pbs", "s2o", "proxy", "window", "sampled", "oracle"};

enum class Command { Generate, Perplexity, Bench, Dump, Heads };

/// What the user asked for.
struct Arguments {
  Command command = Command::Generate;
  std::vector<std::string> words;  ///< the prompt, or files
  std::optional<std::string> model;
  std::optional<Index> tokens;
  Index window = 2048, prompt = 512;
  SamplerOptions sampling = {.temperature = 0.2, .top_p = 0.9};
  bool raw = false;
  std::vector<std::string> attention;  ///< of sparse_names
  std::vector<double> density = {0.25};
  std::string plot;  ///< empty: none
  std::string sample;
  SvdArguments svd;
  LatentArguments latent;
  HeadArguments heads;
  std::optional<Index> repeat;
  std::optional<std::string> out;
  std::vector<Index> layers = {0};
  bool activations = false;
  KvScalar kv = KvScalar::Float;
  Weights weights = Weights::Stored;
  int threads = command_line::all_threads();
  bool help = false;
};

namespace detail {

inline Index token_count(std::string_view option, std::string_view value) {
  return command_line::number<Index>(option, value, 1, 1 << 20, "a whole number from 1 to 2^20");
}

inline Index layer(std::string_view option, std::string_view value) {
  return command_line::number<Index>(option, value, 0, 1 << 20, "whole numbers from 0, by commas");
}

inline double share(std::string_view option, std::string_view value, double lowest,
                    const char* wanted) {
  return command_line::number(option, value, lowest, 1.0, wanted);
}

inline double density(std::string_view option, std::string_view value) {
  return share(option, value, std::numeric_limits<double>::min(),
               "shares above 0, at most 1, by commas");
}

inline KvScalar kv_scalar(std::string_view option, std::string_view value) {
  if (value == "f32") return KvScalar::Float;
  if (value == "bf16") return KvScalar::Bf16;
  command_line::reject(option, value, "f32 or bf16");
}

inline Weights weights(std::string_view option, std::string_view value) {
  if (value == "stored") return Weights::Stored;
  if (value == "f32") return Weights::Float;
  if (value == "bf16") return Weights::Bf16;
  command_line::reject(option, value, "stored, f32 or bf16");
}

inline std::string attention(std::string_view option, std::string_view value) {
  if (std::ranges::find(sparse_names, value) == std::end(sparse_names))
    command_line::reject(option, value,
                         "names of mean_pool, antidiagonal, pbs, s2o, proxy, window, sampled and "
                         "oracle, by commas");
  return std::string(value);
}

using Option = command_line::Option<Arguments>;

inline constexpr Option tokens_option = {
    "--tokens", [](auto& a, auto option, auto value) { a.tokens = token_count(option, value); }};
inline constexpr Option model_option = {"--model", [](auto& a, auto option, auto value) {
                                          a.model = command_line::file_name(option, value);
                                        }};
inline constexpr Option kv_option = {
    "--kv", [](auto& a, auto option, auto value) { a.kv = kv_scalar(option, value); }};
inline constexpr Option weights_option = {
    "--weights", [](auto& a, auto option, auto value) { a.weights = weights(option, value); }};
inline constexpr Option threads_option = {"--threads", [](auto& a, auto option, auto value) {
                                            a.threads = command_line::threads(option, value);
                                          }};

inline constexpr Option generate_options[] = {
    tokens_option,
    model_option,
    weights_option,
    kv_option,
    threads_option,
    {"--temperature",
     [](auto& a, auto option, auto value) {
       a.sampling.temperature = command_line::number(
           option, value, 0.0, std::numeric_limits<double>::max(), "a number from 0");
     }},
    {"--top-k",
     [](auto& a, auto option, auto value) { a.sampling.top_k = token_count(option, value); }},
    {"--top-p",
     [](auto& a, auto option, auto value) {
       a.sampling.top_p =
           share(option, value, std::numeric_limits<double>::min(), "a share above 0, at most 1");
     }},
    {"--min-p",
     [](auto& a, auto option, auto value) {
       a.sampling.min_p = share(option, value, 0.0, "a share from 0 to 1");
     }},
    {"--seed",
     [](auto& a, auto option, auto value) { a.sampling.seed = command_line::seed(option, value); }},
    {"--raw", [](auto& a, auto, auto) { a.raw = true; }, true},
};

inline constexpr Option perplexity_options[] = {
    tokens_option,
    model_option,
    weights_option,
    kv_option,
    threads_option,
    {"--window",
     [](auto& a, auto option, auto value) {
       a.window =
           command_line::number<Index>(option, value, 2, 1 << 20, "a whole number from 2 to 2^20");
     }},
    {"--attention", [](auto& a, auto option,
                       auto value) { a.attention = command_line::list(option, value, attention); }},
    {"--density", [](auto& a, auto option,
                     auto value) { a.density = command_line::list(option, value, density); }},
    {"--plot",
     [](auto& a, auto option, auto value) { a.plot = command_line::file_name(option, value); }},
    {"--sample",
     [](auto& a, auto option, auto value) { a.sample = command_line::file_name(option, value); }},
    {"--heads", [](auto& a, auto option,
                   auto value) { a.heads.masks = command_line::list(option, value, head_mask); }},
    {"--repeat", [](auto& a, auto option, auto value) { a.repeat = token_count(option, value); }},
    {"--svd", [](auto& a, auto option,
                 auto value) { a.svd.shares = command_line::list(option, value, svd_share); }},
    {"--metric", [](auto& a, auto option,
                    auto value) { a.svd.metrics = command_line::list(option, value, svd_metric); }},
    {"--latent",
     [](auto& a, auto option, auto value) {
       a.latent.widths = command_line::list(option, value, latent_width);
     }},
    {"--convert",
     [](auto& a, auto option, auto value) {
       a.latent.conversions = command_line::list(option, value, conversion);
     }},
    {"--sample-tokens",
     [](auto& a, auto option, auto value) { a.svd.sample_tokens = token_count(option, value); }},
    {"--gradients", [](auto& a, auto option,
                       auto value) { a.svd.gradients = command_line::file_name(option, value); }},
    {"--factors", [](auto& a, auto option, auto value) { a.svd.bf16 = is_bf16(option, value); }},
};

inline constexpr Option bench_options[] = {
    tokens_option,
    model_option,
    weights_option,
    kv_option,
    threads_option,
    {"--prompt", [](auto& a, auto option, auto value) { a.prompt = token_count(option, value); }},
};

inline constexpr Option dump_options[] = {
    tokens_option,
    model_option,
    weights_option,
    kv_option,
    threads_option,
    {"--out",
     [](auto& a, auto option, auto value) { a.out = command_line::file_name(option, value); }},
    {"--layers",
     [](auto& a, auto option, auto value) { a.layers = command_line::list(option, value, layer); }},
    {"--activations", [](auto& a, auto, auto) { a.activations = true; }, true},
};

inline constexpr Option heads_options[] = {
    model_option,
    weights_option,
    threads_option,
    {"--out",
     [](auto& a, auto option, auto value) { a.out = command_line::file_name(option, value); }},
    {"--share",
     [](auto& a, auto option, auto value) { a.heads.share = head_share(option, value); }},
    {"--prompts",
     [](auto& a, auto option, auto value) { a.heads.prompts = token_count(option, value); }},
    {"--random",
     [](auto& a, auto option, auto value) { a.heads.random = command_line::seed(option, value); }},
};

/// The words behind the command, of which there must be `least` to `most`.
template <std::size_t Count>
Arguments parse_command(Command command, int count, const char* const* words,
                        const Option (&options)[Count], std::size_t least, std::size_t most,
                        const char* wanted) {
  Arguments arguments =
      command_line::parse(count, words, options,
                          [](Arguments& a, std::string_view word) { a.words.emplace_back(word); });
  arguments.command = command;
  const std::size_t got = arguments.words.size();
  if (!arguments.help && (got < least || got > most))
    throw UsageError("got " + std::to_string(got) + " words behind the command, wanted " + wanted);
  return arguments;
}

inline Arguments check_perplexity(Arguments arguments) {
  if (arguments.help) return arguments;
  const bool is_sparse = !arguments.attention.empty(), is_factored = !arguments.svd.shares.empty();
  const bool is_latent = !arguments.latent.widths.empty();
  check_svd(arguments.svd, arguments.sample);
  check_latent(arguments.latent, arguments.sample);
  if (!is_factored && !is_latent && is_sparse == arguments.sample.empty())
    throw UsageError("--attention and --sample go together");
  if (!is_sparse && !is_factored && !arguments.plot.empty())
    throw UsageError("--plot: wanted --attention or --svd with it");
  if (std::ranges::find(arguments.words, arguments.sample) != arguments.words.end())
    throw UsageError("--sample: got '" + arguments.sample + "', wanted a text that is not judged");
  const bool is_masked = !arguments.heads.masks.empty();
  if (is_factored + is_masked + is_sparse + is_latent > 1)
    throw UsageError("got several of --attention, --heads, --svd and --latent, wanted one of them");
  if (is_sparse && arguments.kv != KvScalar::Float)
    throw UsageError("got --kv bf16, wanted f32 with --attention");
  if (is_masked && arguments.kv != KvScalar::Float)
    throw UsageError("got --kv bf16, wanted f32 with --heads");
  if (arguments.repeat && !is_masked && !is_factored && !is_latent)
    throw UsageError("got --repeat without --heads, --svd or --latent");
  if (arguments.repeat && (arguments.tokens || 2 * *arguments.repeat > arguments.window))
    throw UsageError("--repeat: got " + std::to_string(*arguments.repeat) +
                     ", wanted at most half of --window, without --tokens");
  return arguments;
}

}  // namespace detail

/// Reads a command, its words, `--option value` and `--option=value`. Throws UsageError.
inline Arguments parse_arguments(int count, const char* const* words) {
  const std::string_view command = count > 1 ? words[1] : "";
  if (command == "--help" || command == "-h") {
    Arguments arguments;
    arguments.help = true;
    return arguments;
  }
  const auto parse = [&](Command which, const auto& options, std::size_t least, std::size_t most,
                         const char* wanted) {
    return detail::parse_command(which, count - 1, words + 1, options, least, most, wanted);
  };
  constexpr std::size_t any = std::numeric_limits<std::size_t>::max();
  if (command == "generate") {
    Arguments arguments =
        parse(Command::Generate, detail::generate_options, 1, 1, "one, the prompt (in quotes)");
    if (!arguments.help && arguments.words.front().empty()) throw UsageError("the prompt is empty");
    return arguments;
  }
  if (command == "perplexity")
    return detail::check_perplexity(
        parse(Command::Perplexity, detail::perplexity_options, 1, any, "text files"));
  if (command == "bench") return parse(Command::Bench, detail::bench_options, 0, 0, "none");
  if (command == "dump")
    return parse(Command::Dump, detail::dump_options, 1, 1, "one, a text file");
  if (command == "heads") return parse(Command::Heads, detail::heads_options, 0, 0, "none");
  throw UsageError("got '" + std::string(command) +
                   "', wanted generate, perplexity, bench, dump or heads first");
}

}  // namespace language_model
