// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A progress line on stderr for work that takes long.

#include <chrono>
#include <cstdio>
#include <string>
#include <utility>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace command_line {

/// Shows how much of a piece of work is done: on a terminal one line that is redrawn, from half a
/// second on and gone at the end; elsewhere a line every ten seconds.
class Progress {
 public:
  explicit Progress(std::string work) : work_(std::move(work)) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() { erase(); }

  /// Removes the line from the terminal, so that other output can follow.
  void erase() {
    if (on_terminal_ && shown_) std::fputs("\r\033[K", stderr);
    shown_ = false;
  }

  /// `share` of the work is done, 0 to 1. Costs a clock read unless a line is due.
  void operator()(double share) {
    const Clock::time_point now = Clock::now();
    if (now < due_) return;
    due_ = now + (on_terminal_ ? std::chrono::milliseconds(100) : std::chrono::seconds(10));
    shown_ = true;
    std::fprintf(stderr, on_terminal_ ? "\r%s: %.0f %%\033[K" : "%s: %.0f %%\n", work_.c_str(),
                 100 * share);
    std::fflush(stderr);
  }

 private:
  using Clock = std::chrono::steady_clock;

  static bool stderr_is_terminal() {
#if __has_include(<unistd.h>)
    return isatty(STDERR_FILENO) == 1;
#else
    return false;
#endif
  }

  std::string work_;
  bool on_terminal_ = stderr_is_terminal();
  bool shown_ = false;
  Clock::time_point due_ =
      Clock::now() + (on_terminal_ ? std::chrono::milliseconds(500) : std::chrono::seconds(10));
};

}  // namespace command_line
