// SPDX-License-Identifier: Apache-2.0
#include "peer.hpp"

#include "child_process.hpp"
#include "peer_times.hpp"
#include "timing.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>

#ifndef PARE_BENCH_PEERS
#error "PARE_BENCH_PEERS must name the folder of the Python peers"
#endif

namespace pare::bench {
namespace {

constexpr double slow_seconds = 2.0;

struct Best {
  std::size_t formulation = 0;
  double time = std::numeric_limits<double>::infinity();
};

/// The median of some runs of what is so fast that one run is a matter of luck, or of one.
double usual_or_one(const std::function<void()>& run) {
  constexpr double fast_seconds = 0.01;
  constexpr std::size_t runs = 9;
  std::vector<double> times{seconds(run)};
  while (times.front() < fast_seconds && times.size() < runs) times.push_back(seconds(run));
  return median(std::move(times));
}

Best find_best(const std::string& name, const std::vector<Formulation>& formulations) {
  Best best;
  for (std::size_t i = 0; i < formulations.size(); ++i) {
    double time = seconds(formulations[i].run);
    if (time < slow_seconds) time = std::min(time, usual_or_one(formulations[i].run));
    if (time < best.time) best = {i, time};
    std::fprintf(stderr, "peer %s, %s: %.4g s\n", name.c_str(), formulations[i].name.c_str(), time);
  }
  return best;
}

const std::string& python() {
  static const std::string found = [] {
    const char* wanted = std::getenv("PARE_BENCH_PYTHON");
    for (const std::string candidate :
         {wanted != nullptr ? wanted : "", "/usr/bin/python3", "python3"})
      if (!candidate.empty() && run_child({candidate, "-c", "import numpy, scipy"}, true).ok)
        return candidate;
    return std::string();
  }();
  return found;
}

}  // namespace

double peer_seconds(const std::string& name, const std::vector<Formulation>& formulations,
                    PeerResult result) {
  static std::map<std::string, Best> known;
  if (!is_chosen(name)) return std::numeric_limits<double>::quiet_NaN();
  const auto entry = known.find(name);
  if (entry != known.end()) {
    const Best& best = entry->second;
    return best.time >= slow_seconds ? best.time : usual_or_one(formulations[best.formulation].run);
  }
  if (result == PeerResult::Unread) {
    if (const auto kept = kept_seconds(name)) return (known[name] = {0, *kept}).time;
  }
  const Best best = known[name] = find_best(name, formulations);
  if (result == PeerResult::Unread && best.time >= slow_seconds) keep_seconds(name, best.time);
  return best.time;
}

double python_peer_seconds(const std::string& script, const std::vector<std::string>& arguments,
                           PeerResult result) {
  static std::map<std::string, double> known;
  if (!is_chosen(script)) return std::numeric_limits<double>::quiet_NaN();
  std::string work = script;
  for (const std::string& argument : arguments) work += " " + argument;
  const auto [entry, is_new] = known.try_emplace(work, 0.0);
  if (!is_new) return entry->second;
  if (result == PeerResult::Unread) {
    if (const auto kept = kept_seconds(work)) return entry->second = *kept;
  }
  std::vector<std::string> argv{python(), PARE_BENCH_PEERS "/" + script};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  const ChildResult child = python().empty() ? ChildResult{} : run_child(argv);
  entry->second =
      child.ok ? json_number(child.output, "seconds") : std::numeric_limits<double>::quiet_NaN();
  std::fprintf(stderr, "peer %s: %s\n", script.c_str(),
               child.ok ? child.output.c_str() : "left out, python3 with its packages is missing");
  if (child.ok && result == PeerResult::Unread) keep_seconds(work, entry->second);
  return entry->second;
}

}  // namespace pare::bench
