// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What this machine can do at most, measured in the process that uses the figure.
///
/// A shared or a hot machine drifts by a factor of two within minutes, so a limit that was measured
/// once says little about a run that comes later: `LimitProbe` measures it again around every
/// repetition of a benchmark.

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace pare::bench {

enum class Limit {
  fma_f32,    ///< flop/s of fused multiply-adds (two flops each), registers only
  fma_f64,    ///< the same in double
  dot_bf16,   ///< flop/s of bf16 pair products summed into f32; fma_f32 where the build has none
  dot_int8,   ///< op/s of products of bytes summed into 32 bits: in fours, in pairs, or fma_f32
  dram_read,  ///< bytes/s read from a buffer far larger than the last-level cache
  copy,       ///< bytes/s read plus bytes/s written between two such buffers
  l1_read,    ///< bytes/s read from half the first-level data cache, per thread
  l2_read,    ///< bytes/s read from half the second-level cache, per thread
  l1_add,     ///< flop/s of additions to single floats of 4 KiB, at places that are read
};

/// Whether the limit counts flops; it counts bytes otherwise.
bool is_arithmetic(Limit limit);

/// The name a limit has in benchmark names and in the JSON context: `dram_read`.
const char* name_of(Limit limit);

/// One measurement, about 10 to 60 ms long: the best of a few bursts, in flop/s or bytes/s.
double measure(Limit limit, int threads);

/// The median of three measurements, taken at the first call and kept for the process.
double cached(Limit limit, int threads);

/// Work that cannot be done without `amount` flops or bytes passing the limit.
struct Demand {
  Limit limit;
  double amount;
};

/// The least time that a set of demands can take, measured beside the work itself.
class LimitProbe {
 public:
  LimitProbe(int threads, std::vector<Demand> demands);

  /// Measures every demanded limit once.
  void sample();

  /// Seconds of the slowest demand at the median of the samples so far: max amount / rate.
  double seconds() const;

 private:
  int threads_;
  std::vector<Demand> demands_;
  std::vector<std::vector<double>> rates_;
};

/// The instruction set that the kernels in this executable and the FMA limit were compiled for.
std::string build_arch();

/// The processor's name as the operating system gives it.
std::string cpu_model();

}  // namespace pare::bench
