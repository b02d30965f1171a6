// SPDX-License-Identifier: Apache-2.0

/// \file
/// Which fields of a table matter? LeAP (arXiv 2606.01111) learns a gate for each while the model
/// trains, in one run, and is said to drop 2 to 10 times as many redundant fields as permutation
/// importance at no loss: see where it does. The calls into Pare are in table/train.hpp (the layer
/// in a training loop of one's own) and table/rankings.hpp.

#include "common/run_program.hpp"
#include "table/arguments.hpp"
#include "table/csv_table.hpp"
#include "table/data_table.hpp"
#include "table/digits_table.hpp"
#include "table/report.hpp"
#include "table/scale.hpp"
#include "table/selection.hpp"

#include <Eigen/Core>

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <vector>

namespace {

void run(const table::Arguments& arguments) {
  Eigen::setNbThreads(1);  // each split has a thread to itself
  const auto digits = std::filesystem::path(PARE_EXAMPLES_DATA) / "digits" / "digits.csv";
  const table::Table table = arguments.csv.empty()
                                 ? table::widened_digits(digits, 0)
                                 : table::read_csv(arguments.csv, arguments.buckets);
  const auto fields = static_cast<table::Index>(table.fields.size());
  std::printf("%td rows, %td fields, %zu splits\n\n", table.rows(), fields, arguments.splits);
  std::fflush(stdout);
  const auto runs = table::run_splits(table, arguments.rank, arguments.splits, arguments.threads);
  table::print_ranking(std::cout, table, runs.front().front().ranking);
  table::print_origins(std::cout, table, runs);
  std::vector<table::MethodMeans> methods;
  for (std::size_t m = 0; m < runs.front().size(); ++m)
    methods.push_back(table::means_of(runs, m, fields));
  table::print_selection(std::cout, methods, fields, arguments.tolerance);
}

}  // namespace

int main(int argc, char** argv) {
  return command_line::run_program(
      {.name = "table", .usage = table::usage_text},
      [&] { return table::parse_arguments(argc, argv); },
      [](const table::Arguments& arguments) {
        if (arguments.scale)
          table::print_scale(12000, 4096, arguments.threads);
        else
          run(arguments);
      });
}
