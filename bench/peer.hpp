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

/// Whether the caller looks at what the peer computed: then it must run in this process.
enum class PeerResult { Unread, Read };

/// Seconds of the peer's fastest formulation, or NaN if `--peers` leaves it out.
///
/// At the first call all formulations run twice (once where a run takes over two seconds) and the
/// fastest stays. A fast peer is then timed again at every call, so that it meets the same moments
/// of the machine as our own code, the median of nine runs if it takes milliseconds; a slow one
/// keeps its first time, in later runs too (peer_times.hpp) unless its result is read.
double peer_seconds(const std::string& name, const std::vector<Formulation>& formulations,
                    PeerResult result = PeerResult::Unread);

/// A peer in Python, with the first of $PARE_BENCH_PYTHON, /usr/bin/python3 (which sees the
/// system's packages) and python3 that has numpy and scipy: runs bench/peers/<script> with the
/// arguments as a child, once for the same arguments, and returns the `"seconds"` of the JSON
/// object it prints, or NaN when it cannot run here or `--peers` leaves it out. Later runs find the
/// time kept unless the child's result is read.
double python_peer_seconds(const std::string& script, const std::vector<std::string>& arguments,
                           PeerResult result = PeerResult::Unread);

}  // namespace pare::bench
