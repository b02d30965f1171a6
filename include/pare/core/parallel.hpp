// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Where work runs: the executor concept, the executors Pare brings, and `parallel_for`.
///
/// ```cpp
/// pare::parallel_for(pare::DefaultExecutor{4}, rows, [&](pare::Index row, int worker) {
///   norms[row] = norm(x, row, scratch[worker]);  // one scratch per worker
/// });
/// struct MyPool {  // an executor of the user's own: pare::simd.on(MyPool{&pool})
///   Pool* pool;
///   int concurrency() const { return pool->size(); }
///   void run(int n, const std::function<void(int)>& f) const { pool->for_each(n, f); }
/// };
/// ```
///
/// The algorithm cuts work into items, independently of the number of threads, and one worker
/// computes an item from start to end. Which worker takes an item is left to chance, but what it
/// computes is not. Results are therefore the same bits under every executor.
///
/// After a fork, the child has none of OpenMP's threads, and a team started there would wait for
/// them forever. `OpenMpExecutor` therefore uses standard threads in a child process. Other code
/// has to avoid OpenMP there itself: call `Eigen::setNbThreads(1)` in a child if Eigen is compiled
/// with OpenMP.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <atomic>
#include <concepts>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
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

namespace detail {
/// Set while this thread is a worker, so that a nested call does not start a second team.
inline thread_local bool inside_parallel_for = false;

PARE_ABI_BEGIN

struct InsideParallelFor {
  bool outer = inside_parallel_for;
  InsideParallelFor() { inside_parallel_for = true; }
  ~InsideParallelFor() { inside_parallel_for = outer; }
  InsideParallelFor(const InsideParallelFor&) = delete;
  InsideParallelFor& operator=(const InsideParallelFor&) = delete;
};

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// How many workers `parallel_for` would use for this many items: the smaller of `items` and the
/// executor's concurrency, and at least 1. Inside a worker: 1.
template <Executor E>
int worker_count(const E& executor, Index items) {
  if (detail::inside_parallel_for) return 1;
  const int concurrency = static_cast<int>(executor.concurrency());
  const int most = concurrency > 1 ? concurrency : 1;
  return items < most ? (items > 0 ? static_cast<int>(items) : 1) : most;
}

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// Which workers of a call have begun. Outlives the call, for a pool may call late.
class WorkerClaims {
 public:
  /// Claims of earlier calls are forgotten; no worker of theirs may be left.
  void open(int workers) {
    if (workers > capacity_) {
      claimed_ = std::make_unique<std::atomic<bool>[]>(static_cast<std::size_t>(workers));
      capacity_ = workers;
    }
    for (int w = 0; w < workers; ++w) claimed_[static_cast<std::size_t>(w)] = false;
    finished_ = 0;
    workers_ = workers;
  }

  /// True for the first call with each worker in [0, workers).
  bool claim(int worker) {
    return worker >= 0 && worker < workers_ &&
           !claimed_[static_cast<std::size_t>(worker)].exchange(true);
  }

  void finish() { finished_.fetch_add(1, std::memory_order_release); }
  void wait_for(int finished) const {
    while (finished_.load(std::memory_order_acquire) < finished) std::this_thread::yield();
  }

 private:
  std::unique_ptr<std::atomic<bool>[]> claimed_;
  std::atomic<int> finished_{0};
  std::atomic<int> workers_{0};
  int capacity_ = 0;
};

/// The claims a thread used last; `gone` once its destructor has run.
struct KeptClaims {
  static inline thread_local bool gone = false;
  std::shared_ptr<WorkerClaims> claims;
  ~KeptClaims() { gone = true; }
};

/// Open claims: those of this thread's last call, unless a pool still holds them.
inline std::shared_ptr<WorkerClaims> open_claims(int workers) {
  static thread_local KeptClaims kept;
  std::shared_ptr<WorkerClaims> claims;
  if (!KeptClaims::gone && kept.claims.use_count() == 1)
    claims = kept.claims;
  else
    claims = std::make_shared<WorkerClaims>();
  claims->open(workers);
  if (!KeptClaims::gone) kept.claims = claims;
  return claims;
}

/// The body of a loop, whatever its type: what runs it is then compiled once per executor, not once
/// per loop. It is called for ranges of items, so that a loop on one thread costs one such call.
class ItemBody {
 public:
  template <class Body>
  explicit ItemBody(const Body& body) : body_(std::addressof(body)), run_(&run<Body>) {}

  void operator()(Index first, Index last, int worker) const { run_(body_, first, last, worker); }

 private:
  template <class Body>
  static void run(const void* of, Index first, Index last, int worker) {
    const Body& body = *static_cast<const Body*>(of);
    for (Index item = first; item < last; ++item) body(item, worker);
  }

  const void* body_;
  void (*run_)(const void*, Index, Index, int);
};

/// One call of parallel_for with several workers.
class ItemLoop {
 public:
  ItemLoop(Index items, const ItemBody& body) : items_(items), body_(body) {}

  /// Items from the common list until there is none; no exception leaves it.
  void run(int worker) {
    const InsideParallelFor guard;
#if defined(PARE_NO_EXCEPTIONS)
    take_items(worker);
#else
    try {
      take_items(worker);
    } catch (...) {
      close();
      if (!failed_.exchange(true)) failure_ = std::current_exception();
    }
#endif
  }

  /// Leaves out the items not yet begun.
  void close() { next_.store(items_, std::memory_order_relaxed); }

  void rethrow() const {
#if !defined(PARE_NO_EXCEPTIONS)
    if (failure_) std::rethrow_exception(failure_);
#endif
  }

 private:
  void take_items(int worker) {
    for (Index item; (item = next_.fetch_add(1, std::memory_order_relaxed)) < items_;)
      body_(item, item + 1, worker);
  }

  Index items_;
  ItemBody body_;
  std::atomic<Index> next_{0};
#if !defined(PARE_NO_EXCEPTIONS)
  std::atomic<bool> failed_{false};
  std::exception_ptr failure_;
#endif
};

/// Runs the workers that the executor has not begun, and waits for those it has.
inline void finish_workers(WorkerClaims& claims, int workers, ItemLoop& loop) {
  int begun = workers;
  for (int worker = 0; worker < workers; ++worker) {
    if (!claims.claim(worker)) continue;
    --begun;
    loop.run(worker);
  }
  claims.wait_for(begun);
}

/// What an executor is given to run: a worker of a loop. Copies of it may outlive the call, so that
/// a late call finds its worker claimed and does not touch the loop, which is gone.
class Worker {
 public:
  Worker(std::shared_ptr<WorkerClaims> claims, ItemLoop& loop)
      : claims_(std::move(claims)), loop_(&loop) {}

  void operator()(int worker) const {
    if (!claims_->claim(worker)) return;
    loop_->run(worker);
    claims_->finish();
  }

 private:
  std::shared_ptr<WorkerClaims> claims_;
  ItemLoop* loop_;
};

/// parallel_for with more than one worker.
template <Executor E>
void run_items(const E& executor, int workers, Index items, const ItemBody& body) {
  const auto claims = open_claims(workers);
  ItemLoop loop(items, body);
  const Worker work(claims, loop);
#if defined(PARE_NO_EXCEPTIONS)
  executor.run(workers, work);
#else
  try {
    executor.run(workers, work);
  } catch (...) {
    loop.close();
    finish_workers(*claims, workers, loop);
    throw;
  }
#endif
  finish_workers(*claims, workers, loop);
  loop.rethrow();
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Calls `body(item, worker)` once for every item in [0, items), and returns when all are done.
///
/// `worker` is in [0, worker_count(executor, items)), and no two calls with the same worker run at
/// once, so it names a workspace. Which worker takes an item is left to chance. A call from inside
/// a worker runs its items one after the other on the calling thread, with worker 0.
/// \throws what a body throws first, or what the executor throws, once all workers have stopped;
/// items not yet begun are then left out.
///
/// Cost: with several workers one atomic addition per item, and the executor's start. Memory: one
/// flag per worker, which the calling thread keeps for its next call.
template <Executor E, class Body>
void parallel_for(const E& executor, Index items, const Body& body) {
  const detail::ItemBody any(body);
  const int workers = worker_count(executor, items);
  if (workers > 1) return detail::run_items(executor, workers, items, any);
  const detail::InsideParallelFor guard;
  any(0, items, 0);
}

PARE_ABI_END

}  // namespace pare

#include <pare/core/macros_on.hpp>
