// SPDX-License-Identifier: Apache-2.0

/// \file
/// Items by their metadata (M2TRec) beside items by ids, on films: does a film that training never
/// saw get recommended, and what does it cost for the others?

#include "metadata_items/arguments.hpp"
#include "metadata_items/film_fields.hpp"
#include "metadata_items/model.hpp"
#include "metadata_items/recall.hpp"
#include "metadata_items/sessions.hpp"

#include "common/movie_lens.hpp"
#include "common/run_program.hpp"

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <span>
#include <vector>

namespace {
using namespace metadata_items;

void print_row(const char* name, Index size, std::span<const Recall> runs) {
  std::printf("%-34s %8td", name, size);
  for (double Recall::* member :
       {&Recall::all, &Recall::warm, &Recall::cold, &Recall::among_cold}) {
    const Spread s = spread_of(runs, member);
    std::printf("  %6.4f +- %6.4f", s.mean, s.deviation);
  }
  std::printf("\n");
  std::fflush(stdout);
}

/// Films by how many ratings before the cut they have.
Recall popularity(const Sessions& s) {
  return recall_of(s, [&](std::span<const Step> steps, Matrix& scores) {
    scores.resize(static_cast<Index>(steps.size()), static_cast<Index>(s.seen.size()));
    for (Index i = 0; i < scores.rows(); ++i)
      for (Index film = 0; film < scores.cols(); ++film)
        scores(i, film) = static_cast<float>(s.seen[static_cast<std::size_t>(film)]);
  });
}

template <class Films>
void compare(const char* name, const movie_lens::Data& data, const Sessions& s,
             const Arguments& arguments, const Films& films) {
  const auto backend = pare::simd.threads(arguments.threads);
  std::vector<Recall> runs;
  Index size = 0;
  for (int seed = 1; seed <= arguments.seeds; ++seed) {
    Model model(data, films(), arguments, static_cast<std::uint64_t>(seed));
    model.train(backend, s);
    runs.push_back(recall_of(s, [&](std::span<const Step> steps, Matrix& scores) {
      model.score(backend, s, steps, scores);
    }));
    size = model.size();
  }
  print_row(name, size, runs);
}

void run(const Arguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  const movie_lens::Data data = movie_lens::read(arguments.data);
  const Sessions s = make_sessions(data, arguments.train);
  Index cold = 0;
  for (const Step& step : s.test) cold += s.cold(step);
  std::printf(
      "%zu films, %zu users; %zu steps to train on, %zu to test, %td of them of %td films that are "
      "cold\n\n%-34s %8s  %16s  %16s  %16s  %16s\n",
      data.movies.size(), data.user_ids.size(), s.train.size(), s.test.size(), cold, s.cold_films,
      "Recall@20", "weights", "all", "warm", "cold", "cold among cold");
  const Recall popular = popularity(s);
  print_row("popularity", 0, std::span(&popular, 1));
  compare("embedding of ids", data, s, arguments, [&] { return ids_of(data, arguments.width); });
  compare("M2TRec, genres and years", data, s, arguments,
          [&] { return metadata_of(data, s.seen, arguments.width, false); });
  compare("M2TRec, words of the title too", data, s, arguments,
          [&] { return metadata_of(data, s.seen, arguments.width, true); });
  std::printf("\n%.0f s\n",
              std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

}  // namespace

int main(int argc, char** argv) {
  return command_line::run_program(
      {.name = "metadata_items", .usage = metadata_items::usage_text},
      [&] { return metadata_items::parse_arguments(argc, argv); }, run);
}
