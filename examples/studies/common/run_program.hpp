// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What every program does around its work: help, errors, the exit code.

#include "common/options.hpp"

#include <cstdio>
#include <exception>
#include <new>

namespace command_line {

struct Program {
  const char* name;
  const char* usage;
  const char* less_memory = nullptr;  ///< what takes less of it
};

/// Runs `run(parse())` and returns 0, 1 after an error, or 2 with the usage after a UsageError.
template <class Parse, class Run>
int run_program(const Program& program, const Parse& parse, const Run& run) {
  try {
    const auto arguments = parse();
    if (arguments.help)
      std::fputs(program.usage, stdout);
    else
      run(arguments);
    return 0;
  } catch (const UsageError& error) {
    std::fprintf(stderr, "%s: %s\n\n%s", program.name, error.what(), program.usage);
    return 2;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "%s: not enough memory%s%s\n", program.name,
                 program.less_memory == nullptr ? "" : "; ",
                 program.less_memory == nullptr ? "" : program.less_memory);
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", program.name, error.what());
    return 1;
  }
}

}  // namespace command_line
