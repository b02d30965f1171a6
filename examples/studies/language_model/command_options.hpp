// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What can be asked of the language_model study, and the options of each command.
///
/// ```cpp
/// Arguments arguments = command_line::parse(count, words, detail::bench_options);
/// ```

#include "common/options.hpp"
#include "common/structured_arguments.hpp"
#include "language_model/budget_arguments.hpp"
#include "language_model/draft_arguments.hpp"
#include "language_model/edit_arguments.hpp"
#include "language_model/expert_arguments.hpp"
#include "language_model/head_arguments.hpp"
#include "language_model/kv_cache.hpp"
#include "language_model/latent_arguments.hpp"
#include "language_model/sampler.hpp"
#include "language_model/svd_arguments.hpp"
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

enum class Command { Generate, Perplexity, Bench, Dump, Edit, Heads, Speculate };

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
  BudgetArguments budget;
  DraftArguments draft;
  models::StructuredArguments structured;
  EditArguments edit;
  ExpertArguments experts;
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
  if (value == "bf16_pairs") return Weights::Bf16Pairs;
  command_line::reject(option, value, "stored, f32, bf16 or bf16_pairs");
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
/// The same, or that heads keep a part of floats.
inline constexpr Option kv_or_budget_option = {
    "--kv", [](auto& a, auto option, auto value) {
      if (!value.starts_with(budget_prefix)) {
        a.kv = kv_scalar(option, value);
        return;
      }
      a.budget.ratios =
          command_line::list(option, value.substr(budget_prefix.size()), budget_ratio);
    }};
inline constexpr Option weights_option = {
    "--weights", [](auto& a, auto option, auto value) { a.weights = weights(option, value); }};
inline constexpr Option threads_option = {"--threads", [](auto& a, auto option, auto value) {
                                            a.threads = command_line::threads(option, value);
                                          }};

inline constexpr Option latent_option = {"--latent", [](auto& a, auto option, auto value) {
                                           a.latent.widths =
                                               command_line::list(option, value, latent_width);
                                         }};
inline constexpr Option convert_option = {"--convert", [](auto& a, auto option, auto value) {
                                            a.latent.conversions =
                                                command_line::list(option, value, conversion);
                                          }};
inline constexpr Option sample_option = {"--sample", [](auto& a, auto option, auto value) {
                                           a.sample = command_line::file_name(option, value);
                                         }};
inline constexpr Option sample_tokens_option = {
    "--sample-tokens",
    [](auto& a, auto option, auto value) { a.svd.sample_tokens = token_count(option, value); }};

inline constexpr Option draft_option = {"--draft", [](auto& a, auto option, auto value) {
                                          a.draft.drafters =
                                              command_line::list(option, value, drafter_name);
                                        }};
inline constexpr Option draft_head_option = {"--head", [](auto& a, auto option, auto value) {
                                               a.draft.heads = command_line::list(option, value,
                                                                                  draft_head_name);
                                             }};
inline constexpr Option budget_option = {"--budget", [](auto& a, auto option, auto value) {
                                           a.draft.budgets =
                                               command_line::list(option, value, draft_budget);
                                         }};
inline constexpr Option branch_option = {"--branch", [](auto& a, auto option, auto value) {
                                           a.draft.branch = draft_branch(option, value);
                                         }};
inline constexpr Option chain_option = {"--chain",
                                        [](auto& a, auto, auto) { a.draft.chain = true; }, true};
inline constexpr Option check_option = {"--check",
                                        [](auto& a, auto, auto) { a.draft.check = true; }, true};
inline constexpr Option temperature_option = {
    "--temperature", [](auto& a, auto option, auto value) {
      a.sampling.temperature = command_line::number(
          option, value, 0.0, std::numeric_limits<double>::max(), "a number from 0");
    }};
inline constexpr Option seed_option = {"--seed", [](auto& a, auto option, auto value) {
                                         a.sampling.seed = command_line::seed(option, value);
                                       }};

inline constexpr Option generate_options[] = {
    tokens_option,
    model_option,
    weights_option,
    kv_option,
    threads_option,
    latent_option,
    convert_option,
    sample_option,
    sample_tokens_option,
    draft_option,
    draft_head_option,
    budget_option,
    branch_option,
    chain_option,
    check_option,
    temperature_option,
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
    seed_option,
    {"--raw", [](auto& a, auto, auto) { a.raw = true; }, true},
};

inline constexpr Option perplexity_options[] = {
    tokens_option,
    model_option,
    weights_option,
    kv_or_budget_option,
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
    sample_option,
    {"--heads", [](auto& a, auto option, auto value) { set_heads(a.heads, option, value); }},
    {"--pool", [](auto& a, auto option,
                  auto value) { a.heads.pool = command_line::file_name(option, value); }},
    {"--rounds",
     [](auto& a, auto option, auto value) { a.heads.rounds = token_count(option, value); }},
    {"--hunt-tokens",
     [](auto& a, auto option, auto value) { a.heads.hunt_tokens = token_count(option, value); }},
    {"--score-documents",
     [](auto& a, auto option, auto value) {
       a.heads.score_documents = command_line::file_name(option, value);
     }},
    {"--repeat", [](auto& a, auto option, auto value) { a.repeat = token_count(option, value); }},
    {"--svd", [](auto& a, auto option,
                 auto value) { a.svd.shares = command_line::list(option, value, svd_share); }},
    {"--metric", [](auto& a, auto option,
                    auto value) { a.svd.metrics = command_line::list(option, value, svd_metric); }},
    latent_option,
    convert_option,
    sample_tokens_option,
    {"--gradients", [](auto& a, auto option,
                       auto value) { a.svd.gradients = command_line::file_name(option, value); }},
    {"--evict",
     [](auto& a, auto option, auto value) { a.budget.evict = evict_name(option, value); }},
    {"--factors", [](auto& a, auto option, auto value) { a.svd.bf16 = is_bf16(option, value); }},
    {"--two-four",
     [](auto& a, auto option, auto value) {
       a.structured.two_four = command_line::list(option, value, models::two_four_way);
     }},
    {"--dense-sparse",
     [](auto& a, auto option, auto value) {
       a.structured.dense_sparse = command_line::list(option, value, models::dense_sparse_share);
     }},
    {"--experts",
     [](auto& a, auto option, auto value) {
       a.experts.shares = command_line::list(option, value, expert_share);
     }},
    {"--router", [](auto& a, auto option,
                    auto value) { a.experts.routers = command_line::list(option, value, router); }},
    {"--groups",
     [](auto& a, auto option, auto value) { a.experts.by_activity = by_activity(option, value); }},
    {"--scaled", [](auto& a, auto, auto) { a.experts.scaled = true; }, true},
};

inline constexpr Option edit_options[] = {
    tokens_option,
    model_option,
    weights_option,
    kv_option,
    threads_option,
    sample_option,
    sample_tokens_option,
    {"--subject",
     [](auto& a, auto option, auto value) { a.edit.subject = edit_words(option, value); }},
    {"--donor", [](auto& a, auto option, auto value) { a.edit.donor = edit_words(option, value); }},
    {"--relation",
     [](auto& a, auto option, auto value) { a.edit.relation = edit_words(option, value); }},
    {"--others", [](auto& a, auto option,
                    auto value) { a.edit.others = command_line::list(option, value, edit_words); }},
    {"--neighbours",
     [](auto& a, auto option, auto value) {
       a.edit.neighbours = command_line::list(option, value, edit_words);
     }},
    {"--layers", [](auto& a, auto option,
                    auto value) { a.edit.layers = command_line::list(option, value, layer); }},
    {"--strengths",
     [](auto& a, auto option, auto value) {
       a.edit.strengths = command_line::list(option, value, edit_strength);
     }},
};

inline constexpr Option bench_options[] = {
    tokens_option,
    model_option,
    weights_option,
    kv_option,
    threads_option,
    latent_option,
    convert_option,
    sample_option,
    sample_tokens_option,
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

inline constexpr Option speculate_options[] = {
    tokens_option,
    model_option,
    weights_option,
    kv_option,
    threads_option,
    sample_option,
    sample_tokens_option,
    draft_option,
    draft_head_option,
    budget_option,
    branch_option,
    chain_option,
    check_option,
    temperature_option,
    seed_option,
    {"--prompt", [](auto& a, auto option, auto value) { a.prompt = token_count(option, value); }},
    {"--prompts",
     [](auto& a, auto option, auto value) { a.draft.prompts = token_count(option, value); }},
};

}  // namespace detail

}  // namespace language_model
