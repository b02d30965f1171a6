// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What most files of a test program instantiate is compiled once, in shared_*.cpp: methods on any
/// executor, their references, and what GoogleTest prints. Precompiled, so that all files agree.

#include <gtest/gtest.h>

#include <pare/attention/attend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/factor/covariance_svd.hpp>
#include <pare/factor/svd.hpp>
#include <pare/factor/weighted_svd.hpp>

#include <cstdint>
#include <string>

#ifndef PARE_TEST_SHARED_LOOPS
#define PARE_TEST_SHARED_LOOPS extern template
#endif
#ifndef PARE_TEST_SHARED_ATTENTION
#define PARE_TEST_SHARED_ATTENTION extern template
#endif
#ifndef PARE_TEST_SHARED_FACTOR
#define PARE_TEST_SHARED_FACTOR extern template
#endif

namespace pare::testing {
using SharedBackend = Simd<arch::best, ExecutorRef>;
}  // namespace pare::testing

PARE_TEST_SHARED_LOOPS void pare::detail::run_items<pare::ExecutorRef>(
    const pare::ExecutorRef&, int, pare::Index, const pare::detail::ItemBody&);

#define PARE_TEST_SHARE(T)                                                                     \
  PARE_TEST_SHARED_LOOPS std::string testing::PrintToString<T>(const T&);                      \
  PARE_TEST_SHARED_LOOPS testing::AssertionResult testing::internal::CmpHelperOpFailure<T, T>( \
      const char*, const char*, const T&, const T&, const char*);
PARE_TEST_SHARE(double)
PARE_TEST_SHARE(float)
PARE_TEST_SHARE(int)
PARE_TEST_SHARE(unsigned)
PARE_TEST_SHARE(std::int64_t)
PARE_TEST_SHARE(std::uint64_t)
#undef PARE_TEST_SHARE

#define PARE_TEST_SHARE(S, O)                                                      \
  PARE_TEST_SHARED_ATTENTION void pare::attention::detail::run_call(               \
      const pare::testing::SharedBackend&,                                         \
      const pare::attention::detail::Call<S, O, pare::attention::DenseKeyValue<S>, \
                                          pare::attention::Exact>&,                \
      pare::Index);                                                                \
  PARE_TEST_SHARED_ATTENTION void pare::attention::detail::run_reference(          \
      const pare::attention::detail::Call<S, O, pare::attention::DenseKeyValue<S>, \
                                          pare::attention::Exact>&);
PARE_TEST_SHARE(float, float)
PARE_TEST_SHARE(double, double)
PARE_TEST_SHARE(pare::bf16, float)
#undef PARE_TEST_SHARE

#define PARE_TEST_SHARE(S)                                          \
  PARE_TEST_SHARED_FACTOR pare::factor::LowRank<pare::compute_t<S>> \
  pare::factor::detail::factorize_weighted(                         \
      pare::factor::detail::FactorProblem<pare::testing::SharedBackend, S>&);
PARE_TEST_SHARE(float)
PARE_TEST_SHARE(double)
PARE_TEST_SHARE(pare::bf16)
PARE_TEST_SHARE(pare::f16)
#undef PARE_TEST_SHARE

#define PARE_TEST_SHARE(S, C)                                                \
  PARE_TEST_SHARED_FACTOR pare::factor::LowRank<pare::compute_t<S>>          \
  pare::factor::detail::factorize_covariance(                                \
      pare::factor::detail::FactorProblem<pare::testing::SharedBackend, S>&, \
      const pare::factor::CovarianceView<C>&);
PARE_TEST_SHARE(float, double)
PARE_TEST_SHARE(double, double)
#undef PARE_TEST_SHARE

#define PARE_TEST_SHARE(S)                                                                   \
  PARE_TEST_SHARED_FACTOR pare::factor::LowRank<pare::compute_t<S>>                          \
  pare::factor::detail::reference_factorize(const char*, pare::TensorView<const S, 2>,       \
                                            const pare::factor::Uniform&,                    \
                                            const pare::factor::SvdOptions&);                \
  PARE_TEST_SHARED_FACTOR pare::factor::LowRank<S> pare::factor::detail::sparse_svd(         \
      const char*, const pare::testing::SharedBackend&, const pare::CompressedView<S, int>&, \
      const pare::factor::SvdOptions&);
PARE_TEST_SHARE(float)
PARE_TEST_SHARE(double)
#undef PARE_TEST_SHARE
PARE_TEST_SHARED_FACTOR pare::factor::detail::ReferenceSvd
pare::factor::detail::reference_svd<void>(const Eigen::MatrixXd&);
