// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Every method of Pare in one include.
///
/// ```cpp
/// #include <pare/pare.hpp>
///
/// const Eigen::MatrixXf x = Eigen::MatrixXf::Random(1000, 4096);
/// const pare::projection::SparseProjection omega{
///     .input_dim = 4096, .output_dim = 256, .density = 1.0 / 64, .seed = 7};
/// Eigen::MatrixXf y(1000, 256);
/// pare::projection::project(pare::simd.threads(4), x, omega, y);
/// ```
///
/// A program that includes only the headers it needs compiles faster. Left out, and included by
/// name: pare/io (files; safetensors.hpp also needs nlohmann-json) and pare/dispatch.hpp (which
/// needs the translation units that `pare_add_dispatch` generates).

#include <pare/core/macros_off.hpp>

#include <pare/attention/antidiagonal.hpp>
#include <pare/attention/attend.hpp>
#include <pare/attention/calibrate.hpp>
#include <pare/attention/early_stop.hpp>
#include <pare/attention/mean_pool.hpp>
#include <pare/attention/order_keys.hpp>
#include <pare/attention/permuted.hpp>
#include <pare/attention/proxy_heads.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/attention/sliding_window.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/arch.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/cpu_features.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/permutation.hpp>
#include <pare/core/random.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/version.hpp>
#include <pare/factor/allocate_ranks.hpp>
#include <pare/factor/apply.hpp>
#include <pare/factor/centred_svd.hpp>
#include <pare/factor/covariance_svd.hpp>
#include <pare/factor/dora.hpp>
#include <pare/factor/elementwise.hpp>
#include <pare/factor/linear_operator.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/svd.hpp>
#include <pare/factor/weighted_svd.hpp>
#include <pare/feature/adam.hpp>
#include <pare/feature/autofield.hpp>
#include <pare/feature/divergence.hpp>
#include <pare/feature/donors.hpp>
#include <pare/feature/factorization_machine.hpp>
#include <pare/feature/field_layout.hpp>
#include <pare/feature/gate.hpp>
#include <pare/feature/group_lasso.hpp>
#include <pare/feature/leap.hpp>
#include <pare/feature/leap_options.hpp>
#include <pare/feature/linear_exact.hpp>
#include <pare/feature/logistic.hpp>
#include <pare/feature/mask_gradient.hpp>
#include <pare/feature/metrics.hpp>
#include <pare/feature/mix.hpp>
#include <pare/feature/mix_sparse.hpp>
#include <pare/feature/mlp.hpp>
#include <pare/feature/model.hpp>
#include <pare/feature/path_importance.hpp>
#include <pare/feature/permutation_importance.hpp>
#include <pare/feature/ranking.hpp>
#include <pare/feature/score.hpp>
#include <pare/feature/sparse_fields.hpp>
#include <pare/feature/taylor_importance.hpp>
#include <pare/feature/train_leap.hpp>
#include <pare/projection/fast_rp.hpp>
#include <pare/projection/johnson_lindenstrauss.hpp>
#include <pare/projection/materialize.hpp>
#include <pare/projection/project.hpp>
#include <pare/projection/sparse_projection.hpp>
#include <pare/projection/spmm.hpp>

#include <pare/core/macros_on.hpp>
