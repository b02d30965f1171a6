// SPDX-License-Identifier: Apache-2.0

/// \file
/// Retrieval on real text: finds synsets of WordNet by their definitions with BM25, one vector per
/// text, MaxSim, residual codecs, reranking in two stages and fusion, and says what is left of what
/// papers claim of them.

#include "common/run_program.hpp"
#include "search/arguments.hpp"
#include "search/collection.hpp"
#include "search/study.hpp"

#include <cstdio>

namespace {

void run(const search::Arguments& arguments) {
  const search::Collection collection(arguments);
  const auto average = [](search::Index tokens, search::Index texts) {
    return static_cast<double>(tokens) / static_cast<double>(texts);
  };
  std::printf("task %s: %td documents of %.1f tokens, %td queries of %.1f, such as\n%s\n",
              search::name_of(arguments.task).data(), collection.documents(),
              average(collection.vectors().tokens.rows(), collection.documents()),
              collection.queries(),
              average(collection.query_vectors().tokens.rows(), collection.queries()),
              collection.shown(0).c_str());
  std::fflush(stdout);
  search::Study(arguments, collection).run();
}

}  // namespace

int main(int argc, char** argv) {
  return command_line::run_program(
      {.name = "search", .usage = search::usage_text, .less_memory = "fewer --documents take less"},
      [&] { return search::parse_arguments(argc, argv); }, run);
}
