// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>

#if defined(__linux__)
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace core_parallel_test {
namespace {

using pare::Index;
using pare::parallel_for;
using pare::worker_count;

/// A user's pool: threads that live on, a queue, the caller only waits.
class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    wake_.notify_all();
    for (std::thread& t : threads_) t.join();
  }

  int size() const { return static_cast<int>(threads_.size()); }

  void run(int n, const std::function<void(int)>& f) {
    std::unique_lock lock(mutex_);
    int left = n;
    for (int i = 0; i < n; ++i)
      jobs_.push_back([this, &f, &left, i] {
        f(i);
        const std::lock_guard done(mutex_);
        --left;
        idle_.notify_all();
      });
    wake_.notify_all();
    idle_.wait(lock, [&] { return left == 0; });
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return closing_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      const std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::deque<std::function<void()>> jobs_;
  bool closing_ = false;
  std::vector<std::thread> threads_;
};

struct PoolExecutor {
  std::shared_ptr<Pool> pool;
  int concurrency() const { return pool->size(); }
  void run(int n, const std::function<void(int)>& f) const { pool->run(n, f); }
};

/// Allowed by the concept: many workers, one after the other on the calling thread, the last first.
struct SequentialExecutor {
  int workers = 1;
  int concurrency() const { return workers; }
  template <class F>
  void run(int n, const F& f) const {
    for (int i = n; i-- > 0;) f(i);
  }
};

/// A pool whose concurrency has another integer type.
struct UnsignedExecutor : SequentialExecutor {
  std::size_t concurrency() const { return 3; }
};

static_assert(pare::Executor<pare::SerialExecutor> && pare::Executor<pare::ThreadExecutor> &&
              pare::Executor<pare::DefaultExecutor> && pare::Executor<PoolExecutor> &&
              pare::Executor<SequentialExecutor> && pare::Executor<UnsignedExecutor>);
static_assert(!pare::Executor<int> && !pare::Executor<Pool> && !pare::Executor<std::thread>);

/// Calls f(name, executor) for every executor there is.
template <class F>
void for_each_executor(F f) {
  f("serial", pare::SerialExecutor{});
  for (const int n : {1, 2, 4, 7}) {
    const std::string count = std::to_string(n);
    f("threads " + count, pare::ThreadExecutor{n});
#if PARE_HAS_OPENMP
    f("openmp " + count, pare::OpenMpExecutor{n});
#endif
    f("pool " + count, PoolExecutor{std::make_shared<Pool>(n)});
    f("sequential " + count, SequentialExecutor{n});
  }
  f("unsigned", UnsignedExecutor{});
}

TEST(ParallelFor, ComputesEachItemOnce) {
  for_each_executor([](const std::string& name, const auto& executor) {
    for (const Index items : {0, 1, 2, 3, 8, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(items));
      parallel_for(executor, items, [&](Index item, int) {
        ASSERT_TRUE(item >= 0 && item < items);
        ++calls[static_cast<std::size_t>(item)];
      });
      for (const auto& c : calls) ASSERT_EQ(c.load(), 1) << name << ", items " << items;
    }
  });
}

TEST(ParallelFor, WritesOfTheWorkersAreSeenAfterwards) {
  for_each_executor([](const std::string& name, const auto& executor) {
    std::vector<Index> squares(500, -1);  // plain memory: the join must order it
    parallel_for(executor, 500,
                 [&](Index i, int) { squares[static_cast<std::size_t>(i)] = i * i; });
    for (Index i = 0; i < 500; ++i) ASSERT_EQ(squares[static_cast<std::size_t>(i)], i * i) << name;
  });
}

TEST(ParallelFor, AWorkerIsNeverTwoCallsAtOnce) {
  for_each_executor([](const std::string& name, const auto& executor) {
    for (const Index items : {1, 3, 200}) {
      const int workers = worker_count(executor, items);
      std::vector<std::atomic<bool>> busy(static_cast<std::size_t>(workers));
      std::vector<Index> plain(busy.size(), 0);  // a data race if two threads shared a worker
      std::atomic<bool> out_of_range{false}, shared{false};
      parallel_for(executor, items, [&](Index, int worker) {
        if (worker < 0 || worker >= workers) {
          out_of_range = true;
          return;
        }
        const auto w = static_cast<std::size_t>(worker);
        if (busy[w].exchange(true)) shared = true;
        ++plain[w];
        std::this_thread::yield();
        busy[w] = false;
      });
      EXPECT_FALSE(out_of_range) << name;
      EXPECT_FALSE(shared) << name;
      Index sum = 0;
      for (const Index p : plain) sum += p;
      EXPECT_EQ(sum, items) << name;
    }
  });
}

TEST(WorkerCount, IsBetweenOneAndBothLimits) {
  using pare::ThreadExecutor;
  EXPECT_EQ(worker_count(pare::SerialExecutor{}, 100), 1);
  EXPECT_EQ(worker_count(ThreadExecutor{8}, 100), 8);
  EXPECT_EQ(worker_count(ThreadExecutor{8}, 8), 8);
  EXPECT_EQ(worker_count(ThreadExecutor{8}, 3), 3);
  EXPECT_EQ(worker_count(ThreadExecutor{8}, 1), 1);
  EXPECT_EQ(worker_count(ThreadExecutor{8}, 0), 1);
  EXPECT_EQ(worker_count(ThreadExecutor{0}, 100), 1);
  EXPECT_EQ(worker_count(ThreadExecutor{-4}, 100), 1);
  EXPECT_EQ(worker_count(ThreadExecutor{8}, Index{1} << 40), 8);
  EXPECT_EQ(worker_count(UnsignedExecutor{}, 100), 3);
}

/// True if items 0 and 1 are seen running at the same time.
template <class E>
bool runs_two_at_once(const E& executor) {
  std::atomic<int> present{0};
  std::atomic<bool> met{false};
  parallel_for(executor, 2, [&](Index, int) {
    if (++present == 2) met = true;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!met && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    --present;
  });
  return met;
}

TEST(ParallelFor, ItemsRunAtTheSameTime) {
  EXPECT_TRUE(runs_two_at_once(pare::ThreadExecutor{2}));
  EXPECT_TRUE(runs_two_at_once(PoolExecutor{std::make_shared<Pool>(2)}));
#if PARE_HAS_OPENMP
  if (omp_get_thread_limit() >= 2 && omp_get_dynamic() == 0) {
    EXPECT_TRUE(runs_two_at_once(pare::OpenMpExecutor{2}));
  }
#endif
}

TEST(ParallelFor, SerialRunsInOrderOnTheCallingThread) {
  std::vector<Index> order;
  const auto caller = std::this_thread::get_id();
  parallel_for(pare::SerialExecutor{}, 6, [&](Index item, int worker) {
    EXPECT_EQ(worker, 0);
    EXPECT_EQ(std::this_thread::get_id(), caller);
    order.push_back(item);
  });
  EXPECT_EQ(order, (std::vector<Index>{0, 1, 2, 3, 4, 5}));
}

TEST(ParallelFor, ANestedCallRunsInOrderOnItsWorker) {
  for_each_executor([](const std::string& name, const auto& executor) {
    constexpr Index outer = 9, inner = 5;
    std::vector<std::vector<Index>> seen(outer);
    std::atomic<bool> strayed{false};
    parallel_for(executor, outer, [&](Index o, int) {
      const auto here = std::this_thread::get_id();
      if (worker_count(executor, inner) != 1) strayed = true;
      parallel_for(executor, inner, [&](Index i, int worker) {
        if (worker != 0 || std::this_thread::get_id() != here) strayed = true;
        parallel_for(executor, 2, [&](Index, int third) {
          if (third != 0 || std::this_thread::get_id() != here) strayed = true;
        });
        seen[static_cast<std::size_t>(o)].push_back(i);
      });
      if (worker_count(executor, inner) != 1) strayed = true;  // still inside the outer call
    });
    EXPECT_FALSE(strayed) << name;
    for (const auto& s : seen) EXPECT_EQ(s, (std::vector<Index>{0, 1, 2, 3, 4})) << name;
  });
}

TEST(ParallelFor, ACallAfterwardsIsParallelAgain) {
  const pare::ThreadExecutor executor{4};
  parallel_for(executor, 4, [](Index, int) {});
  parallel_for(pare::SerialExecutor{}, 4, [](Index, int) {});
  parallel_for(SequentialExecutor{4}, 4, [](Index, int) {});
  EXPECT_EQ(worker_count(executor, 4), 4);
  EXPECT_THROW(parallel_for(executor, 4, [](Index, int) { throw std::runtime_error("x"); }),
               std::runtime_error);
  EXPECT_EQ(worker_count(executor, 4), 4);
  EXPECT_THROW(parallel_for(executor, 1, [](Index, int) { throw std::runtime_error("x"); }),
               std::runtime_error);
  EXPECT_EQ(worker_count(executor, 4), 4);
}

struct Odd : std::runtime_error {
  Index item;
  explicit Odd(Index i) : std::runtime_error("odd"), item(i) {}
};

TEST(ParallelFor, AnExceptionIsRethrownWithItsTypeAndContent) {
  for_each_executor([](const std::string& name, const auto& executor) {
    try {
      parallel_for(executor, 100, [](Index item, int) {
        if (item == 37) throw Odd(item);
      });
      ADD_FAILURE() << name << ": nothing was thrown";
    } catch (const Odd& e) {
      EXPECT_EQ(e.item, 37) << name;
    }
  });
}

TEST(ParallelFor, OneOfManyExceptionsIsRethrownOnceAllWorkersStopped) {
  for_each_executor([](const std::string& name, const auto& executor) {
    std::atomic<int> inside{0}, begun{0};
    EXPECT_THROW(parallel_for(executor, 1000,
                              [&](Index item, int) {
                                struct Leave {
                                  std::atomic<int>& count;
                                  ~Leave() { --count; }
                                } leave{inside};
                                ++inside;
                                ++begun;
                                std::this_thread::yield();
                                throw Odd(item);
                              }),
                 Odd)
        << name;
    EXPECT_EQ(inside.load(), 0) << name << ": a body was still running";
    EXPECT_LE(begun.load(), worker_count(executor, 1000)) << name << ": a worker went on";
  });
}

TEST(ParallelFor, ItemsNotYetBegunAreLeftOutAfterAnException) {
  // Every later worker finds the lists closed, also when it starts after the failure. The first to
  // run has items from 38 on, and then those of worker 0.
  std::vector<Index> begun;
  EXPECT_THROW(parallel_for(SequentialExecutor{4}, 50,
                            [&](Index item, int) {
                              begun.push_back(item);
                              if (item == 5) throw Odd(item);
                            }),
               Odd);
  std::vector<Index> wanted{38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 0, 1, 2, 3, 4, 5};
  EXPECT_EQ(begun, wanted);
}

TEST(ParallelFor, AnExceptionOfANestedCallLeavesBoth) {
  for_each_executor([](const std::string& name, const auto& executor) {
    EXPECT_THROW(parallel_for(executor, 3,
                              [&](Index, int) {
                                parallel_for(executor, 3, [](Index i, int) { throw Odd(i); });
                              }),
                 Odd)
        << name;
    EXPECT_EQ(worker_count(pare::ThreadExecutor{3}, 3), 3) << name;
  });
}

/// Calls f with the numbers given, whatever it is asked for.
struct NumbersExecutor {
  std::vector<int> numbers;
  int concurrency() const { return 3; }
  template <class F>
  void run(int, const F& f) const {
    for (const int i : numbers) f(i);
  }
};

// What a pool leaves out the caller does; calls it makes up do nothing.
TEST(ParallelFor, APoolThatDropsOrRepeatsWorkersComputesEachItemOnce) {
  for (const auto& numbers :
       {std::vector<int>{}, {0}, {2}, {1, 1, 1}, {2, 1, 0, 2, 1, 0}, {-1, 3, 99}, {7, 1, -5}})
    for (const Index items : {2, 3, 50}) {
      std::vector<int> calls(static_cast<std::size_t>(items), 0);
      const NumbersExecutor pool{numbers};
      const int workers = worker_count(pool, items);
      parallel_for(pool, items, [&](Index item, int worker) {
        EXPECT_TRUE(worker >= 0 && worker < workers);
        ++calls[static_cast<std::size_t>(item)];
      });
      EXPECT_EQ(calls, std::vector<int>(static_cast<std::size_t>(items), 1)) << items;
    }
}

TEST(ParallelFor, AnExceptionOfADroppedWorkerIsRethrown) {
  EXPECT_THROW(parallel_for(NumbersExecutor{}, 5, [](Index item, int) { throw Odd(item); }), Odd);
  EXPECT_EQ(worker_count(pare::ThreadExecutor{3}, 3), 3);
}

/// Returns at once; workers begin when `go` is called, some while the caller works, some after.
struct LateExecutor {
  struct State {
    std::vector<std::function<void()>> held;
    std::vector<std::thread> threads;
    int started_early = 0;
  };
  std::shared_ptr<State> state = std::make_shared<State>();
  int early = 0;

  int concurrency() const { return 3; }
  void run(int n, const std::function<void(int)>& f) const {
    for (int i = 0; i < n; ++i) {
      if (i < early)
        state->threads.emplace_back([f, i] { f(i); });
      else
        state->held.push_back([f, i] { f(i); });
    }
  }
  void go() const {
    for (const auto& call : state->held) call();
    for (std::thread& t : state->threads) t.join();
  }
};

TEST(ParallelFor, APoolThatReturnsEarlyComputesEachItemOnce) {
  for (const int early : {0, 1, 3}) {
    std::vector<LateExecutor> pools(3);
    for (LateExecutor& pool : pools) {
      pool.early = early;
      std::vector<std::atomic<int>> calls(200);
      std::vector<Index> plain(3, 0);  // a data race if two threads shared a worker
      {
        const std::vector<int> gone_after_the_call(1, 1);
        parallel_for(pool, 200, [&](Index item, int worker) {
          calls[static_cast<std::size_t>(item)] += gone_after_the_call.front();
          ++plain[static_cast<std::size_t>(worker)];
          std::this_thread::yield();
        });
      }
      for (const auto& c : calls) ASSERT_EQ(c.load(), 1) << early;
      EXPECT_EQ(plain[0] + plain[1] + plain[2], 200);
    }
    // Calls of the first pool come while later ones have done their work.
    for (const LateExecutor& pool : pools) pool.go();
  }
}

/// Begins with the calls that another pool held back.
struct AfterLateExecutor {
  LateExecutor late;
  int concurrency() const { return 3; }
  template <class F>
  void run(int n, const F& f) const {
    for (const auto& call : late.state->held) call();
    for (int i = 0; i < n; ++i) f(i);
  }
};

TEST(ParallelFor, LateCallsOfOnePoolAreNotTakenForCallsOfTheNext) {
  const LateExecutor late;
  int first = 0, second = 0;
  parallel_for(late, 20, [&](Index, int) { ++first; });
  parallel_for(AfterLateExecutor{late}, 20, [&](Index, int) { ++second; });
  EXPECT_EQ(first, 20);
  EXPECT_EQ(second, 20);
}

TEST(ParallelFor, APoolThatThrowsLeavesOutItemsNotYetBegun) {
  struct Refusing {
    int concurrency() const { return 3; }
    void run(int, const std::function<void(int)>&) const { throw std::runtime_error("full"); }
  };
  int begun = 0;
  EXPECT_THROW(parallel_for(Refusing{}, 20, [&](Index, int) { ++begun; }), std::runtime_error);
  EXPECT_EQ(begun, 0);
}

/// Starts all workers but the first, then gives up.
struct ThrowingExecutor {
  std::shared_ptr<std::vector<std::thread>> threads = std::make_shared<std::vector<std::thread>>();
  int concurrency() const { return 3; }
  void run(int n, const std::function<void(int)>& f) const {
    for (int i = 1; i < n; ++i) threads->emplace_back([f, i] { f(i); });
    throw std::runtime_error("full");
  }
};

TEST(ParallelFor, AnExceptionOfThePoolLeavesOnceAllWorkersStopped) {
  const ThrowingExecutor pool;
  std::atomic<int> inside{0};
  EXPECT_THROW(parallel_for(pool, 300,
                            [&](Index, int) {
                              ++inside;
                              std::this_thread::yield();
                              --inside;
                            }),
               std::runtime_error);
  EXPECT_EQ(inside.load(), 0);
  for (std::thread& t : *pool.threads) t.join();
}

TEST(ParallelFor, AnExecutorIsAskedForNoMoreWorkersThanItems) {
  struct Counting {
    int* asked;
    int concurrency() const { return 64; }
    void run(int n, const std::function<void(int)>& f) const {
      *asked = n;
      for (int i = 0; i < n; ++i) f(i);
    }
  };
  int asked = 0;
  parallel_for(Counting{&asked}, 3, [](Index, int) {});
  EXPECT_EQ(asked, 3);
}

/// The executor's own promise: f(0) ... f(n-1), each once, whatever its number of threads.
TEST(Executors, RunCallsEachWorkerOnce) {
  for_each_executor([](const std::string& name, const auto& executor) {
    for (const int n : {0, 1, 2, 5}) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(n));
      executor.run(n, [&](int i) { ++calls[static_cast<std::size_t>(i)]; });
      for (const auto& c : calls) EXPECT_EQ(c.load(), 1) << name << ", n " << n;
    }
  });
}

#if PARE_HAS_OPENMP
TEST(Executors, OpenMpTeamIsNoLargerThanTheWorkAskedFor) {
  std::atomic<int> largest{0};
  pare::OpenMpExecutor{16}.run(
      2, [&](int) { largest = std::max(largest.load(), omp_get_num_threads()); });
  EXPECT_LE(largest.load(), 2);
}
#endif

/// Counts what it is asked to run.
struct CountingExecutor {
  int* runs;
  int workers;

  int concurrency() const { return workers; }
  template <class F>
  void run(int n, const F& f) const {
    ++*runs;
    for (int i = n - 1; i >= 0; --i) f(i);
  }
};

TEST(ExecutorRef, RunsOnTheExecutorThatItNames) {
  int runs = 0;
  const CountingExecutor executor{&runs, 3};
  const pare::ExecutorRef any(executor);
  EXPECT_EQ(any.concurrency(), 3);
  std::vector<int> workers;
  std::vector<Index> items;
  parallel_for(any, 5, [&](Index item, int worker) {
    workers.push_back(worker);
    items.push_back(item);
  });
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(workers, std::vector<int>(5, 2));  // the pool begins with its last worker
  EXPECT_EQ(items, (std::vector<Index>{4, 0, 1, 2, 3}));
  int calls = 0;
  any.run(4, std::function<void(int)>([&](int i) { calls += 1 << i; }));
  EXPECT_EQ(calls, 15);
  EXPECT_EQ(runs, 2);
}

TEST(ExecutorRef, BackendsOfAllExecutorsBecomeOneType) {
  int runs = 0;
  const auto pool = pare::simd.on(CountingExecutor{&runs, 2});
  const auto any = pare::on_any_executor(pool);
  static_assert(std::is_same_v<decltype(pare::on_any_executor(pare::simd)),
                               decltype(pare::on_any_executor(pool))>);
  static_assert(
      std::is_same_v<decltype(pare::on_any_executor(any)), std::remove_const_t<decltype(any)>>);
  static_assert(std::is_same_v<decltype(pare::on_any_executor(pare::reference)), pare::Reference>);
  const auto again = pare::on_any_executor(any);
  parallel_for(again.executor, 2, [](Index, int) {});
  EXPECT_EQ(runs, 1);
}

TEST(ExecutorRef, WhatABodyThrowsLeavesTheLoop) {
  const pare::ThreadExecutor executor{2};
  EXPECT_THROW(parallel_for(pare::ExecutorRef(executor), 4,
                            [](Index item, int) {
                              if (item == 1) throw std::runtime_error("one");
                            }),
               std::runtime_error);
}

#if defined(__linux__)
/// True if a forked child computes all items within twenty seconds.
template <class E>
bool works_in_a_child(const E& executor) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    std::atomic<int> calls{0};
    parallel_for(executor, 100, [&](Index, int) { ++calls; });
    _exit(calls == 100 ? 0 : 1);
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// The threads of the parent are not in the child; OpenMP's would be waited for.
TEST(Executors, WorkInAForkedChild) {
  parallel_for(pare::DefaultExecutor{2}, 100, [](Index, int) {});
  EXPECT_TRUE(works_in_a_child(pare::DefaultExecutor{2}));
  EXPECT_TRUE(works_in_a_child(pare::ThreadExecutor{2}));
  EXPECT_TRUE(works_in_a_child(pare::SerialExecutor{}));
  parallel_for(pare::DefaultExecutor{2}, 100, [](Index, int) {});
}
#endif

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define PARE_TEST_SANITIZED
#endif
#endif
#if !defined(PARE_TEST_SANITIZED)
/// With no address space for another stack, the calling thread does all the work.
void run_without_threads() {
  rlimit limit{};
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = 1;
  setrlimit(RLIMIT_AS, &limit);
  int calls = 0;
  std::atomic<bool> elsewhere{false};
  const auto caller = std::this_thread::get_id();
  pare::ThreadExecutor{6}.run(6, [&](int) {
    ++calls;
    if (std::this_thread::get_id() != caller) elsewhere = true;
  });
  std::_Exit(calls == 6 && !elsewhere ? 0 : 1);
}

TEST(ExecutorsDeathTest, ThreadsThatTheSystemRefusesAreDoneWithout) {
  // A fresh process: glibc would reuse the stacks of threads that have ended.
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(run_without_threads(), testing::ExitedWithCode(0), "");
}
#endif
#endif

}  // namespace
}  // namespace core_parallel_test
