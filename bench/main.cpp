// SPDX-License-Identifier: Apache-2.0

/// \file
/// pare_bench: Google Benchmark's command line, a console that shows one median row a benchmark,
/// and the machine in the JSON context. `--peers=<words>` says which libraries are timed beside
/// (peer_times.hpp); `--pare_child=<task>` is how the suite runs itself for a memory figure.

#include "child_memory.hpp"
#include "child_process.hpp"
#include "limits.hpp"
#include "peer_times.hpp"
#include "timing.hpp"

#include <pare/core/version.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#ifndef PARE_BENCH_FLAGS
#define PARE_BENCH_FLAGS "unknown"
#endif

namespace {

/// Passes on medians, complexity fits and runs that were not repeated; remembers errors.
class MedianReporter : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context& context) override { return console_->ReportContext(context); }

  void ReportRuns(const std::vector<Run>& runs) override {
    std::vector<Run> shown;
    for (const Run& run : runs) {
      failed_ = failed_ || run.error_occurred;
      if (first_name_.empty()) first_name_ = run.run_name.function_name;
      if (run.error_occurred || run.repetitions <= 1 || run.aggregate_name == "median" ||
          run.aggregate_name == "BigO" || run.aggregate_name == "RMS")
        shown.push_back(run);
    }
    if (!shown.empty()) console_->ReportRuns(shown);
  }

  void Finalize() override { console_->Finalize(); }
  bool failed() const { return failed_; }
  const std::string& first_name() const { return first_name_; }

 private:
  std::unique_ptr<benchmark::BenchmarkReporter> console_{benchmark::CreateDefaultDisplayReporter()};
  bool failed_ = false;
  std::string first_name_;
};

std::string giga(double rate, const char* unit) {
  std::string text = std::to_string(rate * 1e-9);
  return text.substr(0, text.find('.') + 2) + " " + unit;
}

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

void add_machine_context() {
  using namespace pare::bench;
  benchmark::AddCustomContext("pare_version", std::to_string(PARE_VERSION_MAJOR) + "." +
                                                  std::to_string(PARE_VERSION_MINOR) + "." +
                                                  std::to_string(PARE_VERSION_PATCH));
  benchmark::AddCustomContext("cpu", cpu_model());
  benchmark::AddCustomContext("arch", build_arch());
  benchmark::AddCustomContext("compiler", compiler());
  benchmark::AddCustomContext("flags", PARE_BENCH_FLAGS);
  benchmark::AddCustomContext("threads", std::to_string(all_threads()));
  for (const Limit limit : {Limit::fma_f32, Limit::dram_read, Limit::l2_read}) {
    const char* unit = limit == Limit::fma_f32 ? "GFLOP/s" : "GB/s";
    const std::string name = std::string("limit/") + name_of(limit);
    benchmark::AddCustomContext(name + "/t1", giga(cached(limit, 1), unit));
    benchmark::AddCustomContext(name + "/all", giga(cached(limit, all_threads()), unit));
  }
}

/// How to repeat a row, and which ratios are not of this run.
void say_more(const std::string& row) {
  if (row.empty()) return;
  const std::string kept = pare::bench::kept_times_used();
  if (!kept.empty()) std::fprintf(stderr, "%s\n", kept.c_str());
  std::fprintf(
      stderr,
      "to repeat a row: %s --benchmark_filter='^%s(/iterations|/min_time|$)' --peers=fresh\n",
      pare::bench::own_path().c_str(), row.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  constexpr const char *child_flag = "--pare_child=", *peers_flag = "--peers=";
  std::string command;
  bool only_lists = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], child_flag, std::strlen(child_flag)) == 0)
      return pare::bench::run_memory_task(argv[i] + std::strlen(child_flag));
    if (std::strncmp(argv[i], peers_flag, std::strlen(peers_flag)) == 0)
      pare::bench::choose_peers(argv[i] + std::strlen(peers_flag));
    only_lists = only_lists || std::strncmp(argv[i], "--benchmark_list_tests", 22) == 0;
    command += std::string(" ") + argv[i];
  }
  const auto is_ours = [&](const char* argument) {
    return std::strncmp(argument, peers_flag, std::strlen(peers_flag)) == 0;
  };
  argc = static_cast<int>(std::remove_if(argv + 1, argv + argc, is_ours) - argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  if (!only_lists) {
    benchmark::AddCustomContext("command", "pare_bench" + command);
    add_machine_context();
  }
  MedianReporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  benchmark::Shutdown();
  if (!only_lists) say_more(reporter.first_name());
  return reporter.failed() ? 1 : 0;
}
