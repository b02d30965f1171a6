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
#include <pare/attention/attend_selected.hpp>
#include <pare/attention/calibrate.hpp>
#include <pare/attention/early_stop.hpp>
#include <pare/attention/mean_pool.hpp>
#include <pare/attention/order_keys.hpp>
#include <pare/attention/permuted.hpp>
#include <pare/attention/proxy_heads.hpp>
#include <pare/attention/sampled_mass.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/attention/selector.hpp>
#include <pare/attention/sliding_window.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/arch.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/cpu_features.hpp>
#include <pare/core/e4m3.hpp>
#include <pare/core/executor.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/permutation.hpp>
#include <pare/core/random.hpp>
#include <pare/core/random_words.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/version.hpp>
#include <pare/draft/acceptance_cost.hpp>
#include <pare/draft/best_first.hpp>
#include <pare/draft/branch_correction.hpp>
#include <pare/draft/branch_lists.hpp>
#include <pare/draft/budget.hpp>
#include <pare/draft/calibration.hpp>
#include <pare/draft/candidate_lists.hpp>
#include <pare/draft/compact_cache.hpp>
#include <pare/draft/compare_heads.hpp>
#include <pare/draft/dense_head.hpp>
#include <pare/draft/draft_block.hpp>
#include <pare/draft/draft_block_cache.hpp>
#include <pare/draft/draft_block_config.hpp>
#include <pare/draft/draft_block_reference.hpp>
#include <pare/draft/draft_block_weights.hpp>
#include <pare/draft/draws.hpp>
#include <pare/draft/eagle_tree.hpp>
#include <pare/draft/head.hpp>
#include <pare/draft/head_summary.hpp>
#include <pare/draft/keyed_noise.hpp>
#include <pare/draft/low_rank_from_dense.hpp>
#include <pare/draft/low_rank_head.hpp>
#include <pare/draft/markov_head.hpp>
#include <pare/draft/node_rules.hpp>
#include <pare/draft/prompt_lookup.hpp>
#include <pare/draft/sampling.hpp>
#include <pare/draft/sampling_options.hpp>
#include <pare/draft/static_tree.hpp>
#include <pare/draft/stored_head.hpp>
#include <pare/draft/subset_head.hpp>
#include <pare/draft/transition_table.hpp>
#include <pare/draft/tree.hpp>
#include <pare/draft/tree_attention.hpp>
#include <pare/draft/truncation.hpp>
#include <pare/draft/typical.hpp>
#include <pare/draft/verify.hpp>
#include <pare/draft/verify_sampled.hpp>
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
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/fields/sparse_fields.hpp>
#include <pare/feature/importance/autofield.hpp>
#include <pare/feature/importance/group_lasso.hpp>
#include <pare/feature/importance/mask_gradient.hpp>
#include <pare/feature/importance/path_importance.hpp>
#include <pare/feature/importance/permutation_importance.hpp>
#include <pare/feature/importance/taylor_importance.hpp>
#include <pare/feature/leap/divergence.hpp>
#include <pare/feature/leap/leap.hpp>
#include <pare/feature/leap/leap_options.hpp>
#include <pare/feature/leap/linear_exact.hpp>
#include <pare/feature/leap/mix.hpp>
#include <pare/feature/leap/mix_sparse.hpp>
#include <pare/feature/leap/train_leap.hpp>
#include <pare/feature/metrics.hpp>
#include <pare/feature/model/factorization_machine.hpp>
#include <pare/feature/model/logistic.hpp>
#include <pare/feature/model/mlp.hpp>
#include <pare/feature/model/model.hpp>
#include <pare/feature/ranking.hpp>
#include <pare/feature/score.hpp>
#include <pare/graph/fast_rp.hpp>
#include <pare/latent/attend_ragged.hpp>
#include <pare/latent/attention_layer.hpp>
#include <pare/latent/cache.hpp>
#include <pare/latent/cache_options.hpp>
#include <pare/latent/cached_sequences.hpp>
#include <pare/latent/cached_tokens.hpp>
#include <pare/latent/choose_form.hpp>
#include <pare/latent/chosen_sequences.hpp>
#include <pare/latent/config.hpp>
#include <pare/latent/convert/attention_shape.hpp>
#include <pare/latent/convert/care.hpp>
#include <pare/latent/convert/conversion_error.hpp>
#include <pare/latent/convert/kv_latents.hpp>
#include <pare/latent/convert/mha2mla.hpp>
#include <pare/latent/convert/rotary_pairs.hpp>
#include <pare/latent/convert/transmla.hpp>
#include <pare/latent/e4m3_cache.hpp>
#include <pare/latent/e4m3_layout.hpp>
#include <pare/latent/page_types.hpp>
#include <pare/latent/pages.hpp>
#include <pare/latent/ragged_cache.hpp>
#include <pare/latent/ragged_options.hpp>
#include <pare/latent/reference.hpp>
#include <pare/latent/up_weights.hpp>
#include <pare/latent/video_options.hpp>
#include <pare/latent/video_window.hpp>
#include <pare/latent/weights.hpp>
#include <pare/linalg/epilogue.hpp>
#include <pare/linalg/gaussian.hpp>
#include <pare/linalg/gram.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/orthonormalize.hpp>
#include <pare/linalg/packed_matrix.hpp>
#include <pare/linalg/positive_definite.hpp>
#include <pare/linalg/product_options.hpp>
#include <pare/linalg/score_reducers.hpp>
#include <pare/linalg/score_rows.hpp>
#include <pare/linalg/sparse_transpose.hpp>
#include <pare/linalg/spmm.hpp>
#include <pare/linalg/symmetric_eigen.hpp>
#include <pare/linalg/top_k.hpp>
#include <pare/linalg/weight_rows.hpp>
#include <pare/optim/adam.hpp>
#include <pare/optim/gate.hpp>
#include <pare/pare.hpp>
#include <pare/projection/johnson_lindenstrauss.hpp>
#include <pare/projection/materialize.hpp>
#include <pare/projection/nonzeros.hpp>
#include <pare/projection/prepared_projection.hpp>
#include <pare/projection/project.hpp>
#include <pare/projection/sparse_projection.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/gates.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/low_rank_linear.hpp>
#include <pare/transformer/norms.hpp>
#include <pare/transformer/quantized_linear.hpp>
#include <pare/transformer/rotary.hpp>
#include <pare/transformer/rotary_grid.hpp>
#include <pare/transformer/rotary_table.hpp>
#include <pare/transformer/softmax.hpp>
#include <pare/transformer/yarn.hpp>

#include <pare/core/macros_on.hpp>
