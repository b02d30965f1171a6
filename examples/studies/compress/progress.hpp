// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A progress bar on stderr.

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace compress {

/// `[#####.....]  50 %  what`, the bar `width` characters wide; `share` is cut to [0, 1].
inline std::string bar_text(double share, const std::string& what, std::size_t width = 30) {
  const double done = std::clamp(share, 0.0, 1.0);
  const auto filled = static_cast<std::size_t>(done * static_cast<double>(width));
  char percent[16];
  std::snprintf(percent, sizeof percent, "] %3.0f %%  ", 100 * done);
  return "[" + std::string(filled, '#') + std::string(width - filled, '.') + percent + what;
}

/// The bar on a terminal, one line that is redrawn and gone at the end; elsewhere nothing.
class Progress {
 public:
  Progress() = default;
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() {
    if (shown_) std::fputs("\r\033[K", stderr);
  }

  void operator()(double share, const std::string& what) {
    if (!on_terminal_) return;
    shown_ = true;
    std::fprintf(stderr, "\r%.78s\033[K", bar_text(share, what).c_str());
    std::fflush(stderr);
  }

 private:
  static bool stderr_is_terminal() {
#if __has_include(<unistd.h>)
    return isatty(STDERR_FILENO) == 1;
#else
    return false;
#endif
  }

  bool on_terminal_ = stderr_is_terminal();
  bool shown_ = false;
};

}  // namespace compress
