// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Where work runs: the executor concept, the executors Pare brings, and `parallel_for`.
///
/// Work is cut into items by the algorithm, never by the number of threads, and an item is computed
/// by one worker from start to end. Which worker takes an item is left to chance; what it computes
/// is not. Results are therefore the same bits under every executor.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <atomic>
#include <concepts>
#include <cstddef>
#include <exception>
#include <functional>
#include <system_error>
#include <thread>
#include <vector>

#if PARE_HAS_OPENMP
#include <omp.h>
#endif

namespace pare {

/// Runs `concurrency()` workers: `run(n, f)` calls f(0) ... f(n-1), each exactly once, in any order
/// and on any thread, and returns when all are done. f does not throw. `concurrency()` does not
/// change while Pare runs an algorithm, which takes one workspace a worker.
template <class E>
concept Executor = std::copy_constructible<E> &&
    requires(const E& e, int n, const std::function<void(int)>& f) {
  { e.concurrency() } -> std::convertible_to<int>;
  e.run(n, f);
};

/// The calling thread alone.
struct SerialExecutor {
  constexpr int concurrency() const { return 1; }
  template <class F>
  void run(int n, const F& f) const {
    for (int i = 0; i < n; ++i) f(i);
  }
};

/// Threads of the standard library, started for each call (some tens of microseconds). Workers that
/// the system grants no thread run on the calling one.
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
    } catch (const std::system_error&) {
      return false;
    }
#endif
  }
};

PARE_ABI_BEGIN
#if PARE_HAS_OPENMP
/// OpenMP's thread team.
struct OpenMpExecutor {
  int threads = 1;

  constexpr int concurrency() const { return threads; }
  template <class F>
  void run(int n, const F& f) const {
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

namespace detail {
/// Set while this thread is a worker, so that a nested call does not start a second team.
inline thread_local bool inside_parallel_for = false;

struct InsideParallelFor {
  bool outer = inside_parallel_for;
  InsideParallelFor() { inside_parallel_for = true; }
  ~InsideParallelFor() { inside_parallel_for = outer; }
  InsideParallelFor(const InsideParallelFor&) = delete;
  InsideParallelFor& operator=(const InsideParallelFor&) = delete;
};
}  // namespace detail

PARE_ABI_BEGIN

/// How many workers `parallel_for` would use for this many items: at least 1, one inside a worker.
template <Executor E>
int worker_count(const E& executor, Index items) {
  if (detail::inside_parallel_for) return 1;
  const int concurrency = static_cast<int>(executor.concurrency());
  const int most = concurrency > 1 ? concurrency : 1;
  return items < most ? (items > 0 ? static_cast<int>(items) : 1) : most;
}

/// Calls `body(item, worker)` for every item in [0, items); worker is in [0, worker_count) and no
/// two calls with the same worker run at once, so it names a workspace. A call from inside a worker
/// runs its items one after the other on that worker. The first exception thrown by a body is
/// rethrown here once all workers have stopped; items not yet begun are then left out.
template <Executor E, class Body>
void parallel_for(const E& executor, Index items, const Body& body) {
  const int workers = worker_count(executor, items);
  if (workers == 1) {
    const detail::InsideParallelFor guard;
    for (Index item = 0; item < items; ++item) body(item, 0);
    return;
  }
  std::atomic<Index> next{0};
#if !defined(PARE_NO_EXCEPTIONS)
  std::atomic<bool> failed{false};
  std::exception_ptr failure;
#endif
  const auto work = [&](int worker) {
    const detail::InsideParallelFor guard;
#if !defined(PARE_NO_EXCEPTIONS)
    try {
#endif
      for (Index item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;)
        body(item, worker);
#if !defined(PARE_NO_EXCEPTIONS)
    } catch (...) {
      next.store(items, std::memory_order_relaxed);
      if (!failed.exchange(true)) failure = std::current_exception();
    }
#endif
  };
  executor.run(workers, work);
#if !defined(PARE_NO_EXCEPTIONS)
  if (failure) std::rethrow_exception(failure);
#endif
}

PARE_ABI_END

}  // namespace pare

#include <pare/core/macros_on.hpp>
