// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <pare/core/backend.hpp>
#include <pare/core/scalar.hpp>

namespace pare::testing {

struct ReferenceBackend {
  static constexpr bool is_reference = true;
  static auto make() { return reference; }
};
struct ScalarBackend {
  static constexpr bool is_reference = false;
  static auto make() { return simd_for<arch::scalar>{}; }
};
struct BestBackend {
  static constexpr bool is_reference = false;
  static auto make() { return simd; }
};
struct ThreadedBackend {
  static constexpr bool is_reference = false;
  static auto make() { return simd.threads(3); }
};

template <class B, class T>
struct BackendAndScalar {
  using backend = B;
  using scalar = T;
};

/// Each backend and each scalar; not each with each, whose difference kernels have tests of.
using EveryBackendAndScalar = ::testing::Types<
    BackendAndScalar<ReferenceBackend, float>, BackendAndScalar<ReferenceBackend, double>,
    BackendAndScalar<ScalarBackend, float>, BackendAndScalar<BestBackend, float>,
    BackendAndScalar<BestBackend, double>, BackendAndScalar<ThreadedBackend, double>>;

/// Each of those compiles everything anew: all of them with PARE_TEST_ALL_ARCHS, otherwise the
/// definition, the fast path and its threads, with either scalar.
#if defined(PARE_TEST_EVERY_BACKEND)
using BackendsAndScalars = EveryBackendAndScalar;
#else
using BackendsAndScalars = ::testing::Types<BackendAndScalar<ReferenceBackend, float>,
                                            BackendAndScalar<BestBackend, float>,
                                            BackendAndScalar<ThreadedBackend, double>>;
#endif

/// Where each case compiles a solver of its own: what differs, once.
using SolverCases = ::testing::Types<BackendAndScalar<ReferenceBackend, double>,
                                     BackendAndScalar<BestBackend, float>,
                                     BackendAndScalar<ThreadedBackend, double>>;

/// Where sums over any storage scalar are kept.
using AccumulatorCases =
    ::testing::Types<BackendAndScalar<ReferenceBackend, float>,
                     BackendAndScalar<ScalarBackend, float>, BackendAndScalar<ScalarBackend, bf16>,
                     BackendAndScalar<BestBackend, float>, BackendAndScalar<BestBackend, double>,
                     BackendAndScalar<BestBackend, bf16>, BackendAndScalar<BestBackend, f16>,
                     BackendAndScalar<ThreadedBackend, float>,
                     BackendAndScalar<ThreadedBackend, bf16>>;

/// A pool of a user: workers run in reverse, on the calling thread.
struct ReversePool {
  int workers = 1;

  int concurrency() const { return workers; }
  template <class F>
  void run(int n, const F& f) const {
    for (int i = n - 1; i >= 0; --i) f(i);
  }
};

}  // namespace pare::testing
