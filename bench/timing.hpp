// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Clock, medians and thread teams that every benchmark, peer and limit shares.

#include <pare/core/backend.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/workspace.hpp>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

namespace pare::bench {

/// Wall seconds that one call takes.
template <class F>
double seconds(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The middle value; the mean of the two middle ones of an even number. Empty input gives 0.
inline double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return 0.5 * (values[(n - 1) / 2] + values[n / 2]);
}

/// What "all threads" means in this process: one worker a core that it may run on.
inline int all_threads() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

/// Calls f(worker) on `threads` workers of the same executor that the library runs on.
template <class F>
void on_team(int threads, const F& f) {
  if (threads == 1) {
    f(0);
  } else {
    DefaultExecutor{threads}.run(threads, f);
  }
}

/// Calls work(backend) with what a user on so many threads would write.
template <class Work>
void on_threads(int threads, const Work& work) {
  if (threads == 1)
    work(simd);
  else
    work(simd.threads(threads));
}

/// The same with memory that stays from call to call.
template <class Work>
void on_threads(int threads, Workspace& workspace, const Work& work) {
  on_threads(threads, [&](const auto& backend) { work(backend.with(workspace)); });
}

/// Cuts [0, n) into ranges of at most `length` and calls f(begin, end) for each, on whichever
/// worker is free: a core that someone else keeps busy then costs its share, not everyone's wait.
template <class F>
void over_ranges(int threads, Index n, Index length, const F& f) {
  parallel_for(DefaultExecutor{threads}, (n + length - 1) / length,
               [&](Index range, int) { f(range * length, std::min(n, (range + 1) * length)); });
}

}  // namespace pare::bench
