// SPDX-License-Identifier: Apache-2.0

/// \file
/// Do alignment and uniformity (DirectAU, KDD 2022) rank films better than BPR, with the same
/// matrix factorisation, where does sampled softmax stand, and what does LightGCN add? The calls
/// into Pare are in recommender/objectives.hpp, recommender/factors.hpp and recommender/judge.hpp.

#include "common/movie_lens.hpp"
#include "common/run_program.hpp"
#include "recommender/arguments.hpp"
#include "recommender/interactions.hpp"
#include "recommender/report.hpp"
#include "recommender/train.hpp"

#include <Eigen/Core>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>

namespace {

/// The split that options are chosen on; those that are judged have seeds from 1 on.
constexpr std::uint64_t choosing_seed = 1000;

void run(const recommender::Arguments& arguments) {
  Eigen::setNbThreads(1);
  const auto liked =
      recommender::liked_films(movie_lens::read(arguments.folder), arguments.stars, arguments.core);
  std::printf("%td users, %td films, %zu ratings of %g stars or more; split 80/10/10 by user\n\n",
              liked.users(), liked.items, liked.pairs(), arguments.stars);
  std::fflush(stdout);
  const recommender::TrainOptions options{static_cast<pare::Index>(arguments.dim), arguments.batch,
                                          arguments.epochs, arguments.threads};
  const auto choosing = recommender::split_items(liked, choosing_seed);
  std::vector<recommender::Choice> choices;
  for (const auto& named : recommender::methods)
    choices.push_back(recommender::choose(named, choosing, options, choosing_seed));

  std::vector<recommender::Results> results;
  for (const auto& named : recommender::methods) results.push_back({named.name, {}, {}});
  results.push_back({"popularity", {}, {}});
  for (std::uint64_t seed = 1; seed <= arguments.seeds; ++seed) {
    const auto split = recommender::split_items(liked, seed);
    for (std::size_t m = 0; m < choices.size(); ++m) {
      const auto run =
          recommender::train(recommender::methods[m].method, choices[m], split, options, seed);
      results[m].add(run.test);
      results[m].seconds += run.seconds;
      results[m].epochs += run.epochs;
    }
    results.back().add(recommender::judge_popularity(split, recommender::Part::Test));
  }
  recommender::print_results(results);
  std::printf("\n");
  recommender::print_difference(results[0], results[1]);
  recommender::print_difference(results[2], results[1]);
  recommender::print_difference(results[0], results[2]);
  recommender::print_difference(results[3], results[4]);
  recommender::print_difference(results[4], results[1]);
  recommender::print_difference(results[3], results[0]);
}

}  // namespace

int main(int argc, char** argv) {
  return command_line::run_program(
      {.name = "recommender", .usage = recommender::usage_text},
      [&] { return recommender::parse_arguments(argc, argv); }, run);
}
