// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definitions of this folder, in double and on one thread, with Eigen's decompositions. Each
/// group is a file of its own under detail/, which is all that the methods themselves include.
///
/// ```cpp
/// auto exact = truncated_svd(pare::reference, w, {.rank = 128});   // the backend that runs them
/// dora_norms(pare::reference, w, a, b, scale, norms);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/factor/detail/reference_covariance.hpp>
#include <pare/factor/detail/reference_dora.hpp>
#include <pare/factor/detail/reference_elementwise.hpp>
#include <pare/factor/detail/reference_factorize.hpp>
#include <pare/factor/detail/reference_statistics.hpp>

#include <pare/core/macros_on.hpp>
