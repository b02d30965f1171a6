// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The command line of the language_model study: a command, and options that it takes.

#include "common/options.hpp"
#include "language_model/command_options.hpp"
#include "language_model/usage.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>

namespace language_model {

namespace detail {

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

inline void check_one_latent(const Arguments& arguments) {
  check_one_latent(arguments.latent, arguments.sample, arguments.svd.sample_tokens.has_value());
}

inline Arguments check_speculate(Arguments arguments) {
  if (arguments.help) return arguments;
  if (arguments.draft.drafters.empty()) throw UsageError("speculate needs --draft");
  check_draft(arguments.draft, arguments.sample, false);
  if (std::ranges::find(arguments.words, arguments.sample) != arguments.words.end())
    throw UsageError("--sample: got '" + arguments.sample + "', wanted a text that is not judged");
  return arguments;
}

/// --sample is for latents or for drafters.
inline void check_generate(const Arguments& arguments) {
  const DraftArguments& draft = arguments.draft;
  if (draft.drafters.empty()) {
    if (draft.check || draft.chain) throw UsageError("got --check or --chain without --draft");
    return check_one_latent(arguments);
  }
  if (!arguments.latent.widths.empty()) throw UsageError("got both --draft and --latent");
  check_draft(draft, arguments.sample, true);
}

inline Arguments check_edit(Arguments arguments) {
  if (arguments.help) return arguments;
  if (arguments.sample.empty()) throw UsageError("edit needs --sample");
  if (std::ranges::find(arguments.words, arguments.sample) != arguments.words.end())
    throw UsageError("--sample: got '" + arguments.sample + "', wanted a text that is not judged");
  return arguments;
}

inline Arguments check_perplexity(Arguments arguments) {
  if (arguments.help) return arguments;
  const bool is_sparse = !arguments.attention.empty(), is_factored = !arguments.svd.shares.empty();
  const bool is_latent = !arguments.latent.widths.empty();
  check_svd(arguments.svd, arguments.sample);
  check_latent(arguments.latent, arguments.sample);
  check_budget(arguments.budget, arguments.sample);
  check_heads(arguments.heads, !arguments.sample.empty());
  const bool is_budget = !arguments.budget.ratios.empty();
  const bool is_structured = arguments.structured.any();
  const bool is_routed = !arguments.experts.shares.empty();
  const bool beside = is_factored || is_latent || is_budget || is_sparse || arguments.heads.any();
  models::check_structured(arguments.structured, arguments.sample, beside || is_routed);
  check_experts(arguments.experts, arguments.sample, beside);
  if (!is_factored && !is_latent && !is_budget && !is_structured && !is_routed &&
      !arguments.heads.hunt && is_sparse == arguments.sample.empty())
    throw UsageError("--attention and --sample go together");
  if (!is_sparse && !is_factored && !arguments.plot.empty())
    throw UsageError("--plot: wanted --attention or --svd with it");
  if (std::ranges::find(arguments.words, arguments.sample) != arguments.words.end())
    throw UsageError("--sample: got '" + arguments.sample + "', wanted a text that is not judged");
  const bool is_masked = arguments.heads.any();
  if (is_factored + is_masked + is_sparse + is_latent + is_budget > 1)
    throw UsageError(
        "got several of --attention, --heads, --svd, --latent and --kv head-budget, wanted one of "
        "them");
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
    if (!arguments.help) detail::check_generate(arguments);
    return arguments;
  }
  if (command == "speculate")
    return detail::check_speculate(
        parse(Command::Speculate, detail::speculate_options, 1, any, "text files"));
  if (command == "perplexity")
    return detail::check_perplexity(
        parse(Command::Perplexity, detail::perplexity_options, 1, any, "text files"));
  if (command == "bench") {
    Arguments arguments = parse(Command::Bench, detail::bench_options, 0, 0, "none");
    if (!arguments.help) detail::check_one_latent(arguments);
    return arguments;
  }
  if (command == "dump")
    return parse(Command::Dump, detail::dump_options, 1, 1, "one, a text file");
  if (command == "edit")
    return detail::check_edit(parse(Command::Edit, detail::edit_options, 1, any, "text files"));
  if (command == "heads") return parse(Command::Heads, detail::heads_options, 0, 0, "none");
  throw UsageError("got '" + std::string(command) +
                   "', wanted generate, perplexity, bench, dump, edit, heads or speculate first");
}

}  // namespace language_model
