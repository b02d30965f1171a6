// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Backends, the first argument of every algorithm: which code runs, and on which threads.
///
/// ```cpp
/// project(x, omega, y);                                    // pare::simd
/// project(pare::reference, x, omega, y);                   // the definition
/// project(pare::simd.threads(4), x, omega, y);
/// project(pare::simd.on(my_pool), x, omega, y);
/// project(pare::simd.threads(4).with(workspace), x, omega, y);  // memory kept between calls
/// project(pare::simd_for<pare::arch::avx2>{}, x, omega, y);
/// ```
///
/// Backends are small values; making or copying one allocates nothing. For one backend and arch,
/// results have the same bits on any executor.

#include <pare/core/macros_off.hpp>

#include <pare/core/arch.hpp>
#include <pare/core/kernel_entry.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/workspace.hpp>

#include <type_traits>
#include <utility>

namespace pare {

/// The type of `pare::reference`.
struct Reference {
  using pare_backend = void;
};

/// The fast path for one arch, on an executor. Its calls keep their memory in a workspace, if it
/// has one.
template <class Arch, Executor E = SerialExecutor>
struct Simd {
  using pare_backend = void;
  using arch = Arch;

  [[no_unique_address]] E executor{};

  /// Where calls keep their memory; null: each call allocates what it needs.
  Workspace* workspace = nullptr;

  /// The same kernels on the user's own pool; the executor is copied.
  template <Executor Other>
  constexpr Simd<Arch, Other> on(Other other) const {
    return {std::move(other), workspace};
  }

  /// The same kernels on `n` threads (OpenMP where it is switched on, standard threads elsewhere
  /// and in a forked child, where OpenMP would hang).
  /// \throws std::invalid_argument if n < 1.
  template <Executor Threads = DefaultExecutor>
  Simd<Arch, Threads> threads(int n) const {
    check(n >= 1, "Simd::threads", "n", n, "at least 1");
    return {Threads{n}, workspace};
  }

  /// The same, with memory that stays between calls. The workspace must outlive them, and serves
  /// one call at a time.
  constexpr Simd with(Workspace& kept) const { return {executor, &kept}; }
  Simd with(Workspace&&) const = delete;
};

/// What an algorithm takes as its first argument: Reference, Simd, or Dispatched.
template <class B>
concept Backend = requires { typename std::remove_cvref_t<B>::pare_backend; };

/// A backend that runs kernels on an executor: Simd, or Dispatched of pare/dispatch.hpp.
template <class B>
concept KernelBackend = Backend<B> && requires(const std::remove_cvref_t<B>& b) { b.executor; };

/// The definition of every algorithm: scalar, single-threaded, accumulating in double. Slow.
inline constexpr Reference reference{};

namespace detail {

/// Whether another translation unit of the program compiles a kernel, for all that launch it. Every
/// unit of a program must give the same answer.
template <class Arch, class Arguments>
inline constexpr bool compiled_elsewhere = false;

}  // namespace detail

PARE_ABI_BEGIN
/// The fast path for one arch by name. The translation unit must be compiled for it, and the
/// processor must support it (`cpu_supports`): nothing checks that at run time.
template <class Arch>
using simd_for = Simd<Arch, SerialExecutor>;

/// The fast path for the best arch of this translation unit, on the calling thread.
inline constexpr Simd<arch::best> simd{};

/// The memory that a method works in: a T from the backend's workspace, as the last lease left it,
/// or a new one if there is no workspace. For the calling thread, not for workers.
template <class T, Backend B>
Lease<T> leased(const B& backend) {
  if constexpr (KernelBackend<B>)
    return Lease<T>(backend.workspace);
  else
    return Lease<T>(nullptr);
}

/// The backend for a call that makes many other calls: their memory stays in the workspace that
/// `backend` carries, or else in `own`.
template <Backend B>
B keeping(const B& backend, Workspace& own) {
  if constexpr (KernelBackend<B>)
    return backend.workspace != nullptr ? backend : backend.with(own);
  else
    return backend;
}

/// The backend for calls that workers make. It carries no workspace, because one workspace serves
/// one call at a time.
template <Backend B>
B for_workers(B backend) {
  if constexpr (KernelBackend<B>) backend.workspace = nullptr;
  return backend;
}

/// Runs the kernel that belongs to an argument struct: `run_kernel(Arch, arguments)` of its
/// namespace.
template <class Arch, class E, class Arguments>
PARE_ALWAYS_INLINE void launch(const Simd<Arch, E>&, const Arguments& arguments) noexcept {
  if constexpr (detail::compiled_elsewhere<Arch, Arguments>)
    detail::KernelEntry<Arch, Arguments>::run(arguments);
  else
    run_kernel(Arch{}, arguments);
}
PARE_ABI_END

}  // namespace pare

#include <pare/core/macros_on.hpp>
