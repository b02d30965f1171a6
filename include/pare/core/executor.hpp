// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Where work runs: the executor concept, and the executors Pare brings.
///
/// ```cpp
/// pare::simd.threads(4);   // DefaultExecutor{4}: OpenMP's team, or standard threads without it
/// struct MyPool {  // an executor of the user's own: pare::simd.on(MyPool{&pool})
///   Pool* pool;
///   int concurrency() const { return pool->size(); }
///   void run(int n, const std::function<void(int)>& f) const { pool->for_each(n, f); }
/// };
/// ```
///
/// After a fork, the child has none of OpenMP's threads, and a team started there would wait for
/// them forever. `OpenMpExecutor` therefore uses standard threads in a child process. Other code
/// has to avoid OpenMP there itself: call `Eigen::setNbThreads(1)` in a child if Eigen is compiled
/// with OpenMP.

#include <pare/core/macros_off.hpp>

#include <pare/core/config.hpp>

#include <concepts>
#include <cstddef>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#if PARE_HAS_OPENMP
#include <omp.h>
#if __has_include(<unistd.h>)
#include <unistd.h>
#endif
#endif

namespace pare {

/// Runs `concurrency()` workers: `run(n, f)` calls f(0) ... f(n-1), each exactly once, in any order
/// and on any thread, and returns when all are done. f does not throw. `concurrency()` does not
/// change while Pare runs an algorithm, which makes one workspace per worker.
///
/// A pool that breaks this costs time, but never results. The calling thread does what a pool
/// leaves out. Calls of f do nothing if their number is out of range or comes a second time, or if
/// `run` has returned (a pool that calls so late must hold a copy of f).
template <class E>
concept Executor =
    std::copy_constructible<E> && requires(const E& e, int n, const std::function<void(int)>& f) {
      { e.concurrency() } -> std::convertible_to<int>;
      e.run(n, f);
    };

PARE_ABI_BEGIN

/// The calling thread alone.
struct SerialExecutor {
  constexpr int concurrency() const { return 1; }
  template <class F>
  void run(int n, const F& f) const {
    for (int i = 0; i < n; ++i) f(i);
  }
};

/// Threads of the standard library, started for each call (some tens of microseconds). Workers that
/// the system grants no thread run on the calling one; with PARE_NO_EXCEPTIONS the program ends
/// instead.
struct ThreadExecutor {
  int threads = 1;

  constexpr int concurrency() const { return threads; }
  template <class F>
  void run(int n, const F& f) const {
    std::vector<std::thread> others;
    others.reserve(static_cast<std::size_t>(n > 0 ? n - 1 : 0));
    int started = 1;
    while (started < n && start(others, f, started)) ++started;
    for (int i = started; i < n; ++i) f(i);
    if (n > 0) f(0);
    for (std::thread& other : others) other.join();
  }

 private:
  template <class F>
  static bool start(std::vector<std::thread>& others, const F& f, int i) {
#if defined(PARE_NO_EXCEPTIONS)
    others.emplace_back([&f, i] { f(i); });
    return true;
#else
    try {
      others.emplace_back([&f, i] { f(i); });
      return true;
    } catch (const std::exception&) {
      return false;
    }
#endif
  }
};

PARE_ABI_END

#if PARE_HAS_OPENMP
namespace detail {
PARE_ABI_BEGIN

#if __has_include(<unistd.h>)
inline const auto process_at_start = getpid();
inline bool is_forked_child() { return getpid() != process_at_start; }
#else
inline bool is_forked_child() { return false; }
#endif

PARE_ABI_END
}  // namespace detail
#endif

PARE_ABI_BEGIN

#if PARE_HAS_OPENMP
/// OpenMP's thread team; standard threads in a process forked from the one that loaded Pare.
struct OpenMpExecutor {
  int threads = 1;

  constexpr int concurrency() const { return threads; }
  template <class F>
  void run(int n, const F& f) const {
    if (detail::is_forked_child()) return ThreadExecutor{threads}.run(n, f);
#pragma omp parallel for num_threads(n > 0 ? n : 1) schedule(static, 1)
    for (int i = 0; i < n; ++i) f(i);
  }
};

/// What `.threads(n)` runs on in this translation unit.
using DefaultExecutor = OpenMpExecutor;
#else
using DefaultExecutor = ThreadExecutor;
#endif

PARE_ABI_END

}  // namespace pare

#include <pare/core/macros_on.hpp>
