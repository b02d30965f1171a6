// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Times of the libraries we compare with, in the same run as ours.

#include <functional>
#include <string>
#include <vector>

namespace pare::bench {

/// One way to do the work with a peer.
struct Formulation {
  std::string name;
  std::function<void()> run;
};

/// Seconds of the peer's fastest formulation.
///
/// At the first call all formulations run twice (once where a run takes over two seconds) and the
/// fastest stays. A fast peer is then timed again at every call, so that it meets the same moments
/// of the machine as our own code; a slow one keeps its first time.
double peer_seconds(const std::string& name, const std::vector<Formulation>& formulations);

/// A peer in Python, with the first of $PARE_BENCH_PYTHON, /usr/bin/python3 (which sees the
/// system's packages) and python3 that has numpy and scipy: runs bench/peers/<script> with the
/// arguments as a child, once a process for the same arguments, and returns the `"seconds"` of the
/// JSON object it prints, or NaN when it cannot run here.
double python_peer_seconds(const std::string& script, const std::vector<std::string>& arguments);

}  // namespace pare::bench
