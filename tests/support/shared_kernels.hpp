// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Pare's kernels for the instruction set of a test program are compiled once, in
/// shared_kernels.cpp, not in every file that calls a method. Precompiled, so that all files agree.

#include <pare/core/backend.hpp>

// dispatch/instantiate.hpp has defined it where they are compiled.
#if !defined(PARE_INSTANTIATE)
#define PARE_INSTANTIATE(...) \
  template <>                 \
  inline constexpr bool pare::detail::compiled_elsewhere<pare::arch::best, __VA_ARGS__> = true;
#endif

#include <pare/dispatch/kernels/attention.inc>
#include <pare/dispatch/kernels/draft.inc>
#include <pare/dispatch/kernels/factor.inc>
#include <pare/dispatch/kernels/feature.inc>
#include <pare/dispatch/kernels/graph.inc>
#include <pare/dispatch/kernels/latent.inc>
#include <pare/dispatch/kernels/linalg.inc>
#include <pare/dispatch/kernels/projection.inc>
#include <pare/dispatch/kernels/retrieval.inc>
#include <pare/dispatch/kernels/routing.inc>
#include <pare/dispatch/kernels/sequence.inc>
#include <pare/dispatch/kernels/transformer.inc>

#undef PARE_INSTANTIATE
