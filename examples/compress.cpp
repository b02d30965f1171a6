// SPDX-License-Identifier: Apache-2.0

/// \file
/// Replaces the matrices of a .safetensors model by two factors of low rank, to a budget.

#include "compress/arguments.hpp"
#include "compress/compress_model.hpp"
#include "compress/layer_report.hpp"
#include "compress/progress.hpp"

#include <cstdio>
#include <exception>
#include <iostream>

namespace {

void run(const compress::Arguments& arguments) {
  const compress::Report report = compress::compress_model(arguments, compress::Progress());
  compress::print(std::cout, report);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const compress::Arguments arguments = compress::parse_arguments(argc, argv);
    if (arguments.help)
      std::fputs(compress::usage_text, stdout);
    else
      run(arguments);
    return 0;
  } catch (const compress::UsageError& error) {
    std::fprintf(stderr, "compress: %s\n\n%s", error.what(), compress::usage_text);
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "compress: %s\n", error.what());
    return 1;
  }
}
