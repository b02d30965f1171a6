// SPDX-License-Identifier: Apache-2.0

/// \file
/// Replaces the matrices of a .safetensors model by two factors of low rank, to a budget.

#include "common/run_program.hpp"
#include "compress/arguments.hpp"
#include "compress/compress_model.hpp"
#include "compress/layer_report.hpp"
#include "compress/progress.hpp"

#include <iostream>

namespace {

void run(const compress::Arguments& arguments) {
  const compress::Report report = compress::compress_model(arguments, compress::Progress());
  compress::print(std::cout, report);
}

}  // namespace

int main(int argc, char** argv) {
  return command_line::run_program(
      {.name = "compress", .usage = compress::usage_text},
      [&] { return compress::parse_arguments(argc, argv); }, run);
}
