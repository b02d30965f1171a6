// SPDX-License-Identifier: Apache-2.0

/// \file
/// A real language model on Pare's kernels: answers, judges texts, measures speed, writes layers.

#include "common/peak_memory.hpp"
#include "common/progress.hpp"
#include "common/run_program.hpp"
#include "language_model/arguments.hpp"
#include "language_model/attention_table.hpp"
#include "language_model/dump.hpp"
#include "language_model/generate.hpp"
#include "language_model/generate_drafted.hpp"
#include "language_model/judge_budget.hpp"
#include "language_model/judge_documents.hpp"
#include "language_model/judge_edit.hpp"
#include "language_model/judge_experts.hpp"
#include "language_model/judge_factored.hpp"
#include "language_model/judge_heads.hpp"
#include "language_model/judge_hunt.hpp"
#include "language_model/judge_latent.hpp"
#include "language_model/judge_structured.hpp"
#include "language_model/open_cache.hpp"
#include "language_model/open_model.hpp"
#include "language_model/sparse_attention.hpp"
#include "language_model/speculate.hpp"
#include "language_model/speed.hpp"
#include "language_model/text_parts.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/workspace.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace language_model;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

template <class B>
void run_generate(const Arguments& arguments, OpenModel& model, const B& backend) {
  const std::string& text = arguments.words.front();
  const std::vector<Token> prompt =
      arguments.raw ? model.tokenizer.encode(text) : chat_prompt(model.tokenizer, text);
  const auto show = [](const std::string& part) {
    std::fwrite(part.data(), 1, part.size(), stdout);
    std::fflush(stdout);
  };
  if (arguments.raw) show(text);
  const Index most = arguments.tokens.value_or(256);
  if (!arguments.draft.drafters.empty())
    return generate_drafted(arguments, model, backend, prompt, most, show);
  GenerationTimes times;
  with_cache(arguments, model, backend, generation_room(model.llama, prompt, most),
             [&](auto& cache) {
               times = generate_in(cache, model, backend, prompt, most, arguments.sampling, show);
             });
  show("\n");
  std::fprintf(stderr, "[prompt: %td tokens in %.2f s; then %td in %.2f s, %.1f a second]\n",
               times.prompt_tokens, times.prompt_seconds, times.tokens, times.seconds,
               times.seconds > 0 ? static_cast<double>(times.tokens) / times.seconds : 0);
}

/// The methods that were asked for, each at each density.
template <class B>
std::vector<SparseAttention> methods_of(const Arguments& arguments, const OpenModel& model,
                                        const B& backend) {
  std::vector<SparseName> names;
  for (const double density : arguments.density)
    for (const std::string& name : arguments.attention) names.push_back({name, density});
  if (names.empty()) return {};
  const Index most = std::min(arguments.window, arguments.tokens.value_or(8192));
  command_line::Progress progress("finding thresholds");
  return sparse_attentions(model.llama, backend, tokens_of(model, arguments.sample, most), names,
                           progress);
}

/// Of all files, before anything is judged: one may not be there.
std::vector<TextPart> parts_of(const Arguments& arguments, const OpenModel& model) {
  std::vector<TextPart> parts;
  for (const std::string& path : arguments.words)
    parts.push_back(text_part(model, path, arguments.tokens.value_or(8192), arguments.repeat));
  return parts;
}

/// What is judged layer by layer or head by head has tables of its own.
template <class B>
bool judged_apart(const Arguments& arguments, OpenModel& model, const B& backend) {
  const bool is_factored = !arguments.svd.shares.empty();
  const bool is_latent = !arguments.latent.widths.empty();
  const bool is_budget = !arguments.budget.ratios.empty();
  const bool is_structured = arguments.structured.any();
  const bool is_routed = !arguments.experts.shares.empty();
  if (!is_factored && !is_latent && !is_budget && !is_structured && !is_routed &&
      !arguments.heads.any())
    return false;
  std::vector<TextPart> parts = parts_of(arguments, model);
  if (is_factored)
    judge_factored(arguments, model, backend, TextParts(std::move(parts)));
  else if (is_latent)
    judge_latent(arguments, model, backend, TextParts(std::move(parts)));
  else if (is_structured)
    judge_structured(arguments, model, backend, TextParts(std::move(parts)));
  else if (is_routed)
    judge_experts(arguments, model, backend, TextParts(std::move(parts)));
  else if (is_budget)
    judge_budget(arguments, model, backend, TextParts(std::move(parts)));
  else if (!arguments.heads.score_documents.empty())
    judge_documents(arguments, model, backend, parts);
  else if (arguments.heads.hunt)
    judge_hunt(arguments, model, backend, TextParts(std::move(parts)));
  else
    judge_heads(arguments, model, backend, TextParts(std::move(parts)));
  return true;
}

template <class B>
void run_perplexity(const Arguments& arguments, const OpenModel& model, const B& backend) {
  std::vector<JudgedText> texts;  // before anything is judged: a file may not be there
  for (const std::string& path : arguments.words) {
    std::vector<Token> tokens = tokens_of(model, path, arguments.tokens.value_or(8192));
    const auto bytes = static_cast<double>(model.tokenizer.decode(tokens).size());
    texts.push_back({std::filesystem::path(path).filename().string(), std::move(tokens), bytes});
  }
  const std::vector<SparseAttention> methods = methods_of(arguments, model, backend);
  std::vector<JudgedRow> rows;
  print_heading(std::cout);
  for (const JudgedText& text : texts) {
    command_line::Progress progress(text.name);
    judge_text(
        model.llama, backend, text, arguments.window, arguments.kv, methods,
        [&](const std::string&, double share) { progress(share); },
        [&](JudgedRow row) {
          progress.erase();
          print_row(std::cout, row);
          rows.push_back(std::move(row));
        });
  }
  rows = pooled(rows, texts.size() > 1 ? "all" : texts.front().name);
  if (texts.size() > 1)
    for (const JudgedRow& row : rows) print_row(std::cout, row);
  if (!arguments.plot.empty()) plot::write(arguments.plot, perplexity_plot(rows, arguments.window));
}

/// Prints tokens per second, of a prompt and of the tokens behind it.
template <class B, class C>
void measure(const Arguments& arguments, const Llama& llama, const B& backend, C& cache) {
  const Index tokens = arguments.tokens.value_or(64);
  command_line::Progress progress("measuring");
  const Speed speed = speed_of(llama, backend, cache, arguments.prompt, tokens, progress);
  progress.erase();
  std::printf("prompt %5td %9.1f tokens/s\n", arguments.prompt, speed.prompt);
  std::printf("decode %5td %9.1f tokens/s\n", tokens, speed.decode);
}

template <class B>
void run_bench(const Arguments& arguments, OpenModel& model, const B& backend,
               double load_seconds) {
  std::printf("load         %9.2f s\n", load_seconds);
  const Index room = arguments.prompt + arguments.tokens.value_or(64);
  {
    KvCache cache(model.llama.config().kv_shape(), room, arguments.kv);
    measure(arguments, model.llama, backend, cache);
  }
  if (!arguments.latent.widths.empty())
    with_cache(arguments, model, backend, room,
               [&](auto& cache) { measure(arguments, model.llama, backend, cache); });
  std::printf("peak memory  %9.0f MiB\n", command_line::peak_memory_mib());
}

template <class B>
void run_dump(const Arguments& arguments, OpenModel& model, const B& backend) {
  const std::vector<Token> tokens =
      tokens_of(model, arguments.words.front(), arguments.tokens.value_or(1024));
  const std::string out = arguments.out.value_or("dump");
  dump_layers(model.llama, backend, tokens, arguments.layers, arguments.kv, arguments.activations,
              out);
  std::printf("%zu tokens, %zu layers: see %s\n", tokens.size(), arguments.layers.size(),
              out.c_str());
}

void run(const Arguments& arguments) {
  const auto start = Clock::now();
  OpenModel model(model_path(arguments.model), arguments.weights);
  const double load_seconds = seconds_since(start);
  pare::Workspace workspace;
  const auto backend = pare::simd.threads(arguments.threads).with(workspace);
  switch (arguments.command) {
    case Command::Generate:
      return run_generate(arguments, model, backend);
    case Command::Perplexity:
      if (judged_apart(arguments, model, backend)) return;
      return run_perplexity(arguments, model, backend);
    case Command::Bench:
      return run_bench(arguments, model, backend, load_seconds);
    case Command::Dump:
      return run_dump(arguments, model, backend);
    case Command::Edit:
      return judge_edit(arguments, model, backend, TextParts(parts_of(arguments, model)));
    case Command::Heads:
      return find_heads(arguments, model, backend);
    case Command::Speculate:
      return judge_drafters(arguments, model, backend);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return command_line::run_program(
      {.name = "language_model", .usage = usage_text, .less_memory = "fewer --tokens take less"},
      [&] { return parse_arguments(argc, argv); }, run);
}
