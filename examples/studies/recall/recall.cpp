// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sets sparse attention beside exact attention: its share of the work, its error, the time saved.
/// The calls into Pare are in recall/methods.hpp.

#include "common/run_program.hpp"
#include "recall/arguments.hpp"
#include "recall/comparison.hpp"
#include "recall/methods.hpp"
#include "recall/model_input.hpp"
#include "recall/product_keys.hpp"
#include "recall/scores.hpp"
#include "recall_text/heads.hpp"
#include "recall_text/text.hpp"

#include <pare/core/backend.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

namespace {

using recall::Comparison;
using recall::Index;
using recall::Method;

constexpr Index longest_plot = 16384;

/// Hand-built heads; the first of them foretells words.
Comparison compare_on(const recall::Text& text, recall::Heads heads,
                      const recall::Arguments& arguments) {
  return {std::move(heads), pare::simd.threads(arguments.threads),
          [text, codes = recall::word_codes(text, arguments.seed)](const recall::Tensor& out) {
            return recall::next_word_accuracy(out, 0, text, codes);
          }};
}

void run_on_text(const recall::Text& text, bool with_plot, const recall::Arguments& arguments) {
  const std::vector<Method> methods = recall::choose(recall::all_methods(), arguments.methods);
  const std::vector<recall::HeadSpec> unlike = recall::standard_heads();
  {
    recall::Heads heads = recall::make_heads(text, unlike, arguments.seed);
    const std::string name = recall::title(heads, "unlike heads");
    Comparison comparison = compare_on(text, std::move(heads), arguments);
    recall::print_table(name, comparison, methods);
    if (with_plot) recall::plot_errors(arguments.plot, name, comparison, methods);
  }
  // ProxyAttn rests on heads that resemble each other: four of a kind, two kinds.
  const auto group_methods = recall::choose(recall::methods_for_groups(8, 2), arguments.methods);
  if (group_methods.empty()) return;
  const auto alike = recall::correlated_heads({unlike.front(), unlike.back()}, 4);
  recall::Heads heads = recall::make_heads(text, alike, arguments.seed);
  const std::string name = recall::title(heads, "heads in groups of four");
  Comparison comparison = compare_on(text, std::move(heads), arguments);
  recall::print_table(name, comparison, group_methods);
}

void run(const recall::Arguments& arguments) {
  Eigen::setNbThreads(arguments.threads);  // of the products that find the nearest codes
  if (arguments.own_model()) {
    recall::Heads heads = recall::read_heads(arguments.q, arguments.k, arguments.v);
    const std::string name = recall::title(heads, "heads of " + arguments.q);
    const Index eighth = std::max<Index>(1, heads.q.dimension(2) / 8);
    Comparison comparison(std::move(heads), pare::simd.threads(arguments.threads), {});
    const auto methods = recall::choose(recall::all_methods(), arguments.methods);
    recall::print_table(name, comparison, methods);
    if (std::ranges::count(arguments.methods, "spt") > 0)
      std::cout << "SPT's lists hold " << recall::top_key_recall(comparison.call(), eighth)
                << " of the exact top keys, an eighth of all" << std::endl;
    if (!arguments.plot.empty()) recall::plot_errors(arguments.plot, name, comparison, methods);
    return;
  }
  const auto folder = std::filesystem::path(PARE_EXAMPLES_DATA) / "wordnet_glosses";
  const std::vector<recall::Words> glosses = recall::read_glosses(folder / "glosses.txt");
  Index plotted = *std::ranges::min_element(arguments.tokens);
  for (const Index tokens : arguments.tokens)
    if (tokens <= longest_plot) plotted = std::max(plotted, tokens);
  for (const Index tokens : arguments.tokens)
    run_on_text(recall::recall_text(glosses, tokens, arguments.seed),
                tokens == plotted && !arguments.plot.empty(), arguments);
}

}  // namespace

int main(int argc, char** argv) {
  return command_line::run_program(
      {.name = "recall", .usage = recall::usage_text, .less_memory = "fewer --tokens take less"},
      [&] { return recall::parse_arguments(argc, argv); }, run);
}
