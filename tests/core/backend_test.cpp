// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <pare/core/backend.hpp>

namespace core_backend_test {
namespace {

using pare::Backend;
using pare::DefaultExecutor;
using pare::KernelBackend;
using pare::SerialExecutor;
using pare::Simd;
using pare::simd_for;
using pare::ThreadExecutor;
namespace arch = pare::arch;

/// An executor that cannot be made out of nothing, as a pool behind a reference.
struct BorrowedPool {
  int* runs;
  explicit BorrowedPool(int& counter) : runs(&counter) {}
  int concurrency() const { return 2; }
  template <class F>
  void run(int n, const F& f) const {
    ++*runs;
    for (int i = 0; i < n; ++i) f(i);
  }
};

/// One with state that counts its owners.
struct OwningPool {
  std::shared_ptr<int> state = std::make_shared<int>(0);
  int concurrency() const { return 1; }
  template <class F>
  void run(int n, const F& f) const {
    for (int i = 0; i < n; ++i) f(i);
  }
};

struct NotAnExecutor {
  int concurrency() const { return 1; }
};

template <class E>
concept CanRunOn = requires(const E& e) { pare::simd.on(e); };

TEST(Backend, Concepts) {
  static_assert(Backend<pare::Reference> && Backend<decltype(pare::reference)>);
  static_assert(Backend<const pare::Reference&> && Backend<decltype(pare::simd)>);
  static_assert(!KernelBackend<pare::Reference> && KernelBackend<decltype(pare::simd)>);
  static_assert(KernelBackend<simd_for<arch::avx2>> && KernelBackend<Simd<arch::scalar>&>);
  static_assert(KernelBackend<decltype(pare::simd.threads(2))>);
  static_assert(!Backend<int> && !Backend<SerialExecutor> && !Backend<arch::avx2>);
}

TEST(Backend, TypesOfTheThreeWaysToSayWhere) {
  static_assert(std::is_same_v<std::remove_cvref_t<decltype(pare::simd)>, Simd<arch::best>>);
  static_assert(std::is_same_v<simd_for<arch::avx2>, Simd<arch::avx2, SerialExecutor>>);
  static_assert(std::is_same_v<decltype(pare::simd.threads(2)), Simd<arch::best, DefaultExecutor>>);
  static_assert(std::is_same_v<decltype(simd_for<arch::avx512>{}.threads(2)),
                               Simd<arch::avx512, DefaultExecutor>>);
  static_assert(
      std::is_same_v<decltype(pare::simd.on(ThreadExecutor{3})), Simd<arch::best, ThreadExecutor>>);
  // The last word counts: the arch stays, the executor is exchanged.
  static_assert(std::is_same_v<decltype(simd_for<arch::sse2>{}.threads(2).on(SerialExecutor{})),
                               Simd<arch::sse2, SerialExecutor>>);
  static_assert(CanRunOn<SerialExecutor> && CanRunOn<BorrowedPool>);
  static_assert(!CanRunOn<NotAnExecutor> && !CanRunOn<int>);
}

TEST(Backend, IsConstexprAndHoldsNothingItDoesNotNeed) {
  constexpr auto fixed = pare::simd.on(ThreadExecutor{3});
  static_assert(fixed.executor.threads == 3);
  static_assert(pare::simd.executor.concurrency() == 1);
  static_assert(pare::simd.workspace == nullptr && std::is_empty_v<pare::Reference>);
  static_assert(sizeof(Simd<arch::avx2>) == sizeof(pare::Workspace*));
  static_assert(std::is_trivially_copyable_v<Simd<arch::avx2>>);
  static_assert(std::is_trivially_copyable_v<Simd<arch::avx2, DefaultExecutor>>);
  static_assert(!std::is_trivially_copyable_v<Simd<arch::avx2, OwningPool>>);
}

TEST(Backend, ThreadsAreTakenAsGiven) {
  for (const int n : {1, 2, 1000}) EXPECT_EQ(pare::simd.threads(n).executor.concurrency(), n);
}

TEST(Backend, FewerThanOneThreadIsRefused) {
  for (const int n : {0, -1, -1000}) {
    try {
      static_cast<void>(pare::simd.threads(n));
      ADD_FAILURE() << n << " was accepted";
    } catch (const std::invalid_argument& e) {
      EXPECT_EQ(e.what(),
                "pare::Simd::threads: n: got " + std::to_string(n) + ", wanted at least 1");
    }
  }
}

TEST(Backend, RunsOnAPoolThatHasNoDefault) {
  int runs = 0;
  const auto backend = pare::simd.on(BorrowedPool(runs));
  std::array<int, 10> done{};
  pare::parallel_for(backend.executor, 10, [&](pare::Index i, int) { ++done[std::size_t(i)]; });
  EXPECT_EQ(runs, 1);
  for (const int d : done) EXPECT_EQ(d, 1);
}

TEST(Backend, CopiesTheExecutorAndLeavesTheOriginal) {
  const OwningPool pool;
  const auto backend = pare::simd.on(pool);
  EXPECT_EQ(backend.executor.state.get(), pool.state.get());
  EXPECT_EQ(pool.state.use_count(), 2);
  EXPECT_EQ(backend.on(SerialExecutor{}).executor.concurrency(), 1);
  EXPECT_EQ(pool.state.use_count(), 2);
}

}  // namespace
}  // namespace core_backend_test
