// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <pare/core/backend.hpp>
#include <pare/core/scalar.hpp>

#include <type_traits>

#include "support/backends.hpp"

namespace pare::testing {

/// Backends with scalars that are computed in as they are stored.
#if defined(PARE_TEST_EVERY_BACKEND)
using AttendFloats =
    ::testing::Types<BackendAndScalar<ReferenceBackend, float>,
                     BackendAndScalar<ScalarBackend, float>, BackendAndScalar<BestBackend, float>,
                     BackendAndScalar<BestBackend, double>,
                     BackendAndScalar<ThreadedBackend, float>>;
#else
using AttendFloats = ::testing::Types<BackendAndScalar<ReferenceBackend, float>,
                                      BackendAndScalar<BestBackend, double>,
                                      BackendAndScalar<ThreadedBackend, float>>;
#endif

/// 16-bit storage.
using AttendStorages =
    ::testing::Types<BackendAndScalar<ReferenceBackend, bf16>, BackendAndScalar<BestBackend, bf16>,
                     BackendAndScalar<BestBackend, f16>>;

/// Backends, and bf16, whose products have a kernel of their own.
#if defined(PARE_TEST_EVERY_BACKEND)
using AttendBackends =
    ::testing::Types<BackendAndScalar<ReferenceBackend, float>,
                     BackendAndScalar<ScalarBackend, float>, BackendAndScalar<BestBackend, float>,
                     BackendAndScalar<BestBackend, bf16>, BackendAndScalar<ThreadedBackend, float>>;
#else
using AttendBackends =
    ::testing::Types<BackendAndScalar<ReferenceBackend, float>, BackendAndScalar<BestBackend, bf16>,
                     BackendAndScalar<ThreadedBackend, float>>;
#endif

/// Where the kernels matter little: the reference and the two kernels of the best arch.
using AttendSources =
    ::testing::Types<BackendAndScalar<ReferenceBackend, float>,
                     BackendAndScalar<BestBackend, float>, BackendAndScalar<BestBackend, bf16>>;

/// Checks come before kernels: one backend of each kind.
using AttendErrorCases = ::testing::Types<BackendAndScalar<ReferenceBackend, float>,
                                          BackendAndScalar<BestBackend, float>>;

/// Whether a backend multiplies storage scalars S as pairs of bf16.
template <class B, class S>
constexpr bool rounds_weights() {
  if constexpr (requires { typename B::arch; })
    return std::is_same_v<S, bf16> && B::arch::has_bf16_dot;
  else
    return false;
}

/// How far an output, or a log-sum-exp, may be from the oracle on data of unit variance: head sizes
/// up to 256, scale 1 / sqrt(head size), and a few hundred keys.
///
/// A score s = scale sum_c q_c k_c is of variance 1. Its partial sum after c of d terms has
/// variance c / d and is rounded by at most u of itself, u / sqrt(3) rms, so that the error of s is
/// u sqrt(d / 6) rms: 3.9e-7 for float and d = 256, of which six standard deviations are 2.4e-6.
/// e^s adds 2e-7 and the sums over n keys u sqrt(n / 6) < 5e-7. An error of at most e in every
/// score moves sum_j p_j v_j by at most 2 e sum_j p_j |v_j|, and sum_j p_j |v_j| < 1.6 where more
/// than a few keys share the weight: below 2 * 3.1e-6 * 1.6 = 1e-5.
///
/// Where weights are rounded to bf16 each is off by 2^-9 of itself, and a row by at most
/// 2 * 2^-9 max |v| < 2e-2.
template <class Case>
constexpr double attention_bound() {
  using S = typename Case::scalar;
  if (rounds_weights<decltype(Case::backend::make()), S>()) return 2e-2;
  return std::is_same_v<S, double> ? 1e-5 * 0x1p-29 : 1e-5;
}

}  // namespace pare::testing
