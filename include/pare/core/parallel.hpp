// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Work on several threads: `parallel_for`, over items that any executor runs.
///
/// ```cpp
/// pare::parallel_for(pare::DefaultExecutor{4}, rows, [&](pare::Index row, int worker) {
///   norms[row] = norm(x, row, scratch[worker]);  // one scratch per worker
/// });
/// ```
///
/// The algorithm cuts work into items, independently of the number of threads, and one worker
/// computes an item from start to end. A worker begins with a run of items of its own, so that what
/// is called again finds its part of the memory in the same processor's cache, and then takes items
/// that others have not begun. Which worker takes an item is therefore left to chance, but what it
/// computes is not: results are the same bits under every executor.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/executor.hpp>

#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace pare {

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

/// What a worker begins with, on a cache line of its own: whether it has begun, and the items that
/// nobody has taken.
struct alignas(64) WorkerShare {
  std::atomic<bool> claimed{false};
  std::atomic<Index> next{0};
  Index end = 0;
};

/// Which workers of a call have begun, and which items. Outlives the call, for a pool may call
/// late.
class WorkerClaims {
 public:
  /// Claims of earlier calls are forgotten; no worker of theirs may be left.
  void open(int workers, Index items) {
    if (workers > capacity_) {
      shares_ = std::make_unique<WorkerShare[]>(static_cast<std::size_t>(workers));
      capacity_ = workers;
    }
    const Index each = items / workers, more = items % workers;
    Index first = 0;
    for (int w = 0; w < workers; ++w) {
      WorkerShare& share = shares_[static_cast<std::size_t>(w)];
      share.claimed = false;
      share.next = first;
      first += each + (w < more ? 1 : 0);
      share.end = first;
    }
    finished_ = 0;
    workers_ = workers;
  }

  /// True for the first call with each worker in [0, workers).
  bool claim(int worker) {
    return worker >= 0 && worker < workers_ &&
           !shares_[static_cast<std::size_t>(worker)].claimed.exchange(true);
  }

  /// Calls body(item) for the items of a worker, then for what is left of the others'.
  template <class Body>
  void take(int worker, const Body& body) {
    const int workers = workers_;
    for (int i = 0; i < workers; ++i) {
      WorkerShare& share = shares_[static_cast<std::size_t>((worker + i) % workers)];
      for (Index item; (item = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;)
        body(item);
    }
  }
  /// Leaves out the items not yet begun.
  void close() {
    for (int w = 0; w < workers_; ++w) {
      WorkerShare& share = shares_[static_cast<std::size_t>(w)];
      share.next.store(share.end, std::memory_order_relaxed);
    }
  }

  void finish() { finished_.fetch_add(1, std::memory_order_release); }
  void wait_for(int finished) const {
    while (finished_.load(std::memory_order_acquire) < finished) std::this_thread::yield();
  }

 private:
  std::unique_ptr<WorkerShare[]> shares_;
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
inline std::shared_ptr<WorkerClaims> open_claims(int workers, Index items) {
  static thread_local KeptClaims kept;
  std::shared_ptr<WorkerClaims> claims;
  if (!KeptClaims::gone && kept.claims.use_count() == 1)
    claims = kept.claims;
  else
    claims = std::make_shared<WorkerClaims>();
  claims->open(workers, items);
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
  ItemLoop(WorkerClaims& claims, const ItemBody& body) : claims_(claims), body_(body) {}

  /// Items until there is none; no exception leaves it.
  void run(int worker) {
    const InsideParallelFor guard;
#if defined(PARE_NO_EXCEPTIONS)
    take_items(worker);
#else
    try {
      take_items(worker);
    } catch (...) {
      claims_.close();
      if (!failed_.exchange(true)) failure_ = std::current_exception();
    }
#endif
  }

  void rethrow() const {
#if !defined(PARE_NO_EXCEPTIONS)
    if (failure_) std::rethrow_exception(failure_);
#endif
  }

 private:
  void take_items(int worker) {
    claims_.take(worker, [&](Index item) { body_(item, item + 1, worker); });
  }

  WorkerClaims& claims_;
  ItemBody body_;
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
  const auto claims = open_claims(workers, items);
  ItemLoop loop(*claims, body);
  const Worker work(claims, loop);
#if defined(PARE_NO_EXCEPTIONS)
  executor.run(workers, work);
#else
  try {
    executor.run(workers, work);
  } catch (...) {
    claims->close();
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
/// cache line per worker, which the calling thread keeps for its next call.
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
