// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// One type that stands for any executor, so that a method is compiled once for all of them.
///
/// ```cpp
/// template <KernelBackend B>
/// void method(const B& backend, ...) {       // instantiated for each executor, and short
///   run_method(on_any_executor(backend), ...);  // instantiated once for an arch
/// }
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/parallel.hpp>

#include <concepts>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

namespace pare {
PARE_ABI_BEGIN

/// Refers to an executor, which must outlive it, and passes calls on to it. Cost: one indirect call
/// for each loop that several workers share.
class ExecutorRef {
 public:
  template <class E>
  requires(!std::same_as<E, ExecutorRef> && Executor<E>)
  explicit ExecutorRef(const E& executor)
      : executor_(std::addressof(executor)),
        concurrency_(&concurrency_of<E>),
        run_worker_(&run_on<E, detail::Worker>),
        run_function_(&run_on<E, std::function<void(int)>>) {}

  int concurrency() const { return concurrency_(executor_); }
  void run(int n, const detail::Worker& worker) const { run_worker_(executor_, n, worker); }
  void run(int n, const std::function<void(int)>& f) const { run_function_(executor_, n, f); }

 private:
  template <class E>
  static int concurrency_of(const void* executor) {
    return static_cast<int>(static_cast<const E*>(executor)->concurrency());
  }
  template <class E, class F>
  static void run_on(const void* executor, int n, const F& f) {
    static_cast<const E*>(executor)->run(n, f);
  }

  const void* executor_;
  int (*concurrency_)(const void*);
  void (*run_worker_)(const void*, int, const detail::Worker&);
  void (*run_function_)(const void*, int, const std::function<void(int)>&);
};

/// A backend with the same kernels, whose executor refers to that of `backend`: its type does not
/// depend on the executor's. `pare::reference` is returned as it is. `backend` must outlive the
/// result.
template <Backend B>
auto on_any_executor(const B& backend) {
  if constexpr (requires {
                  requires !std::is_same_v<std::remove_cvref_t<decltype(backend.executor)>,
                                           ExecutorRef>;
                })
    return backend.on(ExecutorRef(backend.executor));
  else
    return backend;
}

/// The type that on_any_executor returns.
template <Backend B>
using OnAnyExecutor = decltype(on_any_executor(std::declval<const B&>()));

PARE_ABI_END
}  // namespace pare

#include <pare/core/macros_on.hpp>
