// SPDX-License-Identifier: Apache-2.0

/// \file
/// Compresses networks trained on handwritten digits to low rank, by what is known of their
/// weights, and says what each way of doing it costs. FWSVD (Hsu et al., "Language model
/// compression with weighted low-rank factorization", ICLR 2022) is said to reconstruct the weights
/// no better than plain SVD and yet to lose less accuracy: see where it does. The calls into Pare
/// are in digits/methods.hpp.

#include "common/digits_data.hpp"
#include "common/run_program.hpp"
#include "digits/arguments.hpp"
#include "digits/compress.hpp"
#include "digits/methods.hpp"
#include "digits/network.hpp"
#include "digits/score_table.hpp"
#include "digits/train.hpp"

#include <pare/core/parallel.hpp>

#include <Eigen/Core>

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <random>
#include <vector>

namespace {

/// Trains a network on a split of its own, compresses it by every method to every rank, and scores
/// it on the images that it has not seen.
digits::ScoreTable run_seed(const digits::DataSet<float>& images, double weight_decay,
                            std::size_t seed, const digits::Arguments& arguments) {
  std::mt19937_64 bits(seed);
  const auto [seen, unseen] = digits::split(images, 2.0 / 3, bits);
  const auto network =
      digits::train(seen, {arguments.hidden, arguments.epochs, weight_decay}, bits);
  digits::ScoreTable table;
  table.add_whole(digits::score(network, unseen));
  for (const auto& method : digits::make_methods(network, seen, arguments.fisher, bits))
    for (const auto rank : arguments.ranks)
      table.add(rank, method.name, digits::compress(network, method, rank, unseen));
  return table;
}

void run(const digits::Arguments& arguments) {
  Eigen::setNbThreads(1);  // each network has a thread to itself
  const auto folder = std::filesystem::path(PARE_EXAMPLES_DATA) / "digits";
  const auto images = digits::read_digits<float>(
      arguments.images.empty() ? folder / "digits.csv" : std::filesystem::path(arguments.images));
  digits::CsvFile csv(arguments.csv);
  for (const double decay : arguments.weight_decay) {
    std::vector<digits::ScoreTable> tables(arguments.seeds);
    pare::parallel_for(pare::DefaultExecutor{arguments.threads},
                       static_cast<pare::Index>(arguments.seeds), [&](pare::Index item, int) {
                         const auto seed = static_cast<std::size_t>(item);
                         tables[seed] = run_seed(images, decay, seed, arguments);
                       });
    digits::ScoreTable all;
    for (const auto& table : tables) all.append(table);
    std::printf("\n%zu networks, weight decay %g\n", arguments.seeds, decay);
    all.print(std::cout);
    all.print_findings(std::cout);
    std::cout << std::flush;
    csv.write(decay, all);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return command_line::run_program(
      {.name = "digits", .usage = digits::usage_text},
      [&] { return digits::parse_arguments(argc, argv); }, run);
}
