// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <pare/core/arch.hpp>
#include <pare/core/scalar.hpp>

#include <type_traits>

namespace pare::testing {

template <class Arch, class T>
struct ArchAndScalar {
  using arch = Arch;
  using scalar = T;
};

// The plain form of the kernels is tested with the baseline's flags, which every build of the tests
// has. With those of AVX-512, whose units take longest to compile, it is with PARE_TEST_ALL_ARCHS.
#if defined(__AVX512F__) && !defined(PARE_TEST_EVERY_BACKEND)

using ArchsAndScalars =
    ::testing::Types<ArchAndScalar<arch::best, float>, ArchAndScalar<arch::best, double>>;

using ArchsAndStorages =
    ::testing::Types<ArchAndScalar<arch::best, float>, ArchAndScalar<arch::best, double>,
                     ArchAndScalar<arch::best, bf16>, ArchAndScalar<arch::best, f16>>;

using Archs = ::testing::Types<arch::best>;

#else

/// The plain form of the kernels and the best one of this translation unit.
using ArchsAndScalars =
    ::testing::Types<ArchAndScalar<arch::scalar, float>, ArchAndScalar<arch::scalar, double>,
                     ArchAndScalar<arch::best, float>, ArchAndScalar<arch::best, double>>;

/// The same for kernels that read 16-bit storage too.
using ArchsAndStorages =
    ::testing::Types<ArchAndScalar<arch::scalar, float>, ArchAndScalar<arch::scalar, double>,
                     ArchAndScalar<arch::scalar, bf16>, ArchAndScalar<arch::scalar, f16>,
                     ArchAndScalar<arch::best, float>, ArchAndScalar<arch::best, double>,
                     ArchAndScalar<arch::best, bf16>, ArchAndScalar<arch::best, f16>>;

using Archs = ::testing::Types<arch::scalar, arch::best>;

#endif

}  // namespace pare::testing
