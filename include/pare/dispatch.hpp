// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Runtime dispatch: `pare::dispatched`, a backend that picks the best instruction set of the
/// processor it finds itself on.
///
/// ```cmake
/// pare_add_dispatch(my_program)                             # Pare's kernels, once per arch
/// pare_add_dispatch(my_program AREAS projection)            # only those of pare/projection
/// pare_add_dispatch(my_program INSTANTIATE my_kernels.inc)  # and the user's
/// ```
/// ```cpp
/// #include <pare/dispatch.hpp>
/// pare::projection::project(pare::dispatched.threads(4), x, omega, y);
/// ```
///
/// The choice is made at the first call, for the whole program: the best instruction set that was
/// built and that the processor and its operating system support. The environment variable
/// PARE_SIMD_LEVEL caps it: `PARE_SIMD_LEVEL=avx2` uses nothing above AVX2. A name that was not
/// built makes that call throw std::invalid_argument. A kernel that was not instantiated is an
/// undefined reference when linking.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/cpu_features.hpp>
#include <pare/core/kernel_entry.hpp>
#include <pare/core/workspace.hpp>

#include <array>
#include <cstdlib>
#include <cstring>
#include <string>
#include <tuple>
#include <utility>

namespace pare {

/// A backend: the fast path for whatever processor runs it, on an executor.
template <Executor E = SerialExecutor>
struct Dispatched {
  using pare_backend = void;

  [[no_unique_address]] E executor{};

  /// Where calls keep their memory; null: each call allocates what it needs.
  Workspace* workspace = nullptr;

  /// The same kernels on the user's own pool; the executor is copied.
  template <Executor Other>
  constexpr Dispatched<Other> on(Other other) const {
    return {std::move(other), workspace};
  }

  /// The same kernels on `n` threads, as `pare::simd.threads(n)`.
  /// \throws std::invalid_argument if n < 1.
  template <Executor Threads = DefaultExecutor>
  Dispatched<Threads> threads(int n) const {
    check(n >= 1, "Dispatched::threads", "n", n, "at least 1");
    return {Threads{n}, workspace};
  }

  /// The same, with memory that stays between calls, as `pare::simd.with(workspace)`.
  constexpr Dispatched with(Workspace& kept) const { return {executor, &kept}; }
  Dispatched with(Workspace&&) const = delete;
};

/// The backend that chooses at run time.
inline constexpr Dispatched<> dispatched{};

namespace detail {
PARE_ABI_BEGIN

/// The arch tags whose kernels pare_add_dispatch built for this program, best first. It always
/// builds the baseline of the target, which ends the list.
using BuiltArchs = std::tuple<
#if defined(PARE_DISPATCH_HAS_AVX512_BF16)
    arch::avx512_bf16,
#endif
#if defined(PARE_DISPATCH_HAS_AVX512_VNNI)
    arch::avx512_vnni,
#endif
#if defined(PARE_DISPATCH_HAS_AVX512)
    arch::avx512,
#endif
#if defined(PARE_DISPATCH_HAS_AVX2)
    arch::avx2,
#endif
#if defined(PARE_DISPATCH_HAS_SSE2)
    arch::sse2
#elif defined(PARE_DISPATCH_HAS_NEON)
    arch::neon
#elif defined(PARE_DISPATCH_HAS_SCALAR)
    arch::scalar
#else
    arch::best  // nothing was built: to use it is an undefined reference
#endif
    >;

/// Calls f(tag) for each built arch, best first, until it returns true.
template <class F>
bool any_built_arch(const F& f) {
  return std::apply([&f](auto... tags) { return (f(tags) || ...); }, BuiltArchs{});
}

/// Position in BuiltArchs of the arch to use: the first that the processor supports, not above the
/// one that `cap` names. \throws std::invalid_argument if no built arch has that name.
inline std::size_t choose_arch(const char* cap) {
  bool below_cap = cap == nullptr || *cap == '\0';
  if (!below_cap) {
    std::string names;
    const bool known = any_built_arch([&](auto tag) {
      names += std::string(names.empty() ? "" : ", ") + tag.name;
      return std::strcmp(cap, tag.name) == 0;
    });
    check(known, "dispatched", "PARE_SIMD_LEVEL", cap, "one of " + names);
  }
  std::size_t position = 0;
  const bool found = any_built_arch([&](auto tag) {
    below_cap = below_cap || std::strcmp(cap, tag.name) == 0;
    if (below_cap && cpu_supports(tag)) return true;
    ++position;
    return false;
  });
  check(found, "dispatched", "processor", "none of the built instruction sets", "the baseline");
  return position;
}

/// The choice, made at the first call.
inline std::size_t chosen_arch() {
  static const std::size_t chosen = choose_arch(std::getenv("PARE_SIMD_LEVEL"));
  return chosen;
}

template <class Arguments, class... Archs>
constexpr auto entries_of(std::tuple<Archs...>) {
  return std::array<void (*)(const Arguments&) noexcept, sizeof...(Archs)>{
      &KernelEntry<Archs, Arguments>::run...};
}

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// The name of the instruction set that `pare::dispatched` runs on, such as "avx2".
/// \throws std::invalid_argument if PARE_SIMD_LEVEL names none that was built, or the processor
/// supports none.
inline const char* dispatched_arch() {
  const char* name = nullptr;
  std::size_t skip = detail::chosen_arch();
  detail::any_built_arch([&](auto tag) {
    name = tag.name;
    return skip-- == 0;
  });
  return name;
}

/// Runs a kernel through the table of its entries, one for each built arch. Cost: one indirect
/// call. \throws std::invalid_argument as `dispatched_arch`.
template <class E, class Arguments>
void launch(const Dispatched<E>&, const Arguments& arguments) {
  static constexpr auto entries = detail::entries_of<Arguments>(detail::BuiltArchs{});
  entries[detail::chosen_arch()](arguments);
}

PARE_ABI_END

}  // namespace pare

#include <pare/core/macros_on.hpp>
