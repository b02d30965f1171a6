// SPDX-License-Identifier: Apache-2.0
// A call or two of every area, compiled for two instruction sets; check_abi_wall.sh compares what
// the linker would merge. Kernels are not compiled: dispatch.weak_symbols has all of them.
#include "support/shared_kernels.hpp"

#include <pare/pare.hpp>

#include <unsupported/Eigen/CXX11/Tensor>

#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>
#include <vector>

#include <pare/io/gguf.hpp>
#include <pare/io/npy.hpp>

using Matrix = Eigen::MatrixXf;
using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;
using Sparse = Eigen::SparseMatrix<float, Eigen::RowMajor>;
using pare::Index;

void calls_of_projection(const Matrix& x, const Sparse& sparse, Matrix& y) {
  const pare::projection::SparseProjection omega{
      .input_dim = 64, .output_dim = 8, .density = 0.1, .seed = 7};
  pare::projection::project(pare::simd.threads(2), x, omega, y);
  pare::projection::project(sparse, omega, y);
  const pare::projection::PreparedProjection prepared(omega, {.bytes = 1 << 20});
  pare::projection::project(sparse, prepared, y);
  pare::projection::project(x, prepared, y);
  y = pare::projection::materialize<float>(omega);
}

void calls_of_graph(const Sparse& adjacency, Matrix& y) {
  y = pare::graph::fast_rp(adjacency, {.dim = 64, .weights = {0, 0, 1, 2}, .seed = 7});
}

void calls_of_draft(const Matrix& w, const Matrix& hidden, Matrix& y,
                    std::span<const std::int32_t> ids, std::span<const Index> positions) {
  namespace draft = pare::draft;
  const draft::DenseHead<float> dense(w);
  const auto fit = draft::low_rank_head_of<pare::bf16>(w, {.rank = 8});
  const draft::MarkovHead<float> markov(w, w, w, w);
  const auto subset = draft::subset_of<std::int8_t>(w, ids);
  dense.logits(pare::simd.threads(2), hidden, y);
  dense.values_at(hidden, ids, y);
  fit.head.top_k(hidden, 8);
  markov.after(ids).argmax(hidden);
  subset.sample(hidden, positions, {.seed = 7}, 0.8);
  draft::truncated_law(dense, hidden, 0, {.temperature = 0.8, .top_p = 0.9});
  draft::compare_heads(fit.head, dense, hidden);
}

void calls_of_attention(const Tensor& q, const Tensor& k, const Tensor& v, Tensor& out,
                        const pare::attention::PagedKeyValue<float>& pages,
                        std::span<const float> slopes) {
  namespace attention = pare::attention;
  pare::Workspace workspace;
  attention::attend(pare::simd.with(workspace), q, k, v, out, {.causal = true, .window = 8});
  attention::attend(pare::simd, q, pages, out, attention::SoftCap{30.0f}, {.causal = true});
  attention::attend(q, k, v, out, attention::Permuted{}, {.causal = true});
  attention::attend(q, k, v, out, attention::EarlyStop{}, {.causal = true});
  attention::attend(q, k, v, out, attention::ProxyHeads{}, {.causal = true});
  attention::attend(q, k, v, out, attention::SampledMass{}, {.causal = true});
  attention::attend(q, k, v, out, attention::Alibi{slopes.data()}, {.causal = true});
  const auto order = attention::order_keys(q, k);
  const auto mask = attention::select_blocks(q, k, order, attention::Antidiagonal{});
  attention::attend(q, k, v, out, {.causal = true, .order = &order, .mask = &mask});
  attention::select_blocks(q, k, attention::SlidingWindow{.window = 64});
  const auto lists = attention::select_keys(q, k, attention::train_codebook(q, k));
  attention::attend(q, k, v, out, lists, {.causal = true});
  Eigen::Tensor<float, 3, Eigen::RowMajor> scores(1, 2, 64);
  attention::score_tokens(pare::simd.threads(2), q, k, scores, attention::SnapKV{});
  attention::score_tokens(k, scores, attention::KeyDiff{});
  const auto groups = attention::HeadGroups::natural(1, 2, 1);
  attention::keep_tokens(scores, groups, {.ratio = 0.3});
  attention::attend_heads(pare::simd.threads(2), q, pages, out, {.causal = true});
}

void calls_of_heads(const Tensor& q, const Tensor& k, const Matrix& x, const Matrix& w, Matrix& y,
                    std::span<const std::int32_t> tokens) {
  namespace attention = pare::attention;
  attention::RetrievalScores scores(1, 2);
  scores.add(pare::simd.threads(2), 0, q, k,
             {.tokens = tokens, .begin = 1, .size = 2, .answer = tokens});
  const auto pool = attention::top_heads(scores.scores(), 2, 0.5);
  const auto size = [](std::span<const attention::HeadId> heads) { return double(heads.size()); };
  attention::hunt_heads(pool, size, {.rounds = 2});
  attention::head_contributions(x, w, y);
  attention::HeadUsage usage(y.cols());
  usage.add(y);
  const auto kept = attention::select_heads(usage.counts(), {.count = 1});
  y = attention::compact_heads(w, w, w, w, {.heads = 2, .kv_heads = 2}, kept).wo;
  attention::document_score(scores.scores(), scores.scores());
}

void calls_of_factor(const Matrix& w, const Matrix& x, const Eigen::VectorXf& g, Matrix& y) {
  namespace factor = pare::factor;
  factor::FisherDiagonal fisher(w.rows(), w.cols());
  fisher.add_gradient(w);
  factor::Covariance covariance(w.cols());
  covariance.add(x);
  const auto plain = factor::truncated_svd(w, {.rank = 8});
  const auto weighted = factor::weighted_svd(w, fisher, {.rank = 8}, factor::Axis::Input);
  const auto aware = factor::covariance_svd(w, covariance, {.rank = 8});
  const auto core = factor::sparse_gpt(w, covariance);
  core.to_dense(y);
  factor::two_four(w, factor::NowagP(covariance)).to_dense(y);
  y = factor::armor(w, covariance, {.block = 8, .sweeps = 1}).product();
  factor::apply(plain, x, y);
  factor::apply(weighted, x, y);
  auto sparse = factor::dense_sparse(pare::simd.threads(2), w, covariance, {.atoms = 4});
  const pare::transformer::DenseSparseLinear<float> looked_up(std::move(sparse.weight));
  looked_up.apply(x, y);
  factor::StraightThroughFactorizer<float>(w).step(pare::simd, w);
  factor::NestedTraining<float>(factor::nested(w)).step(pare::simd, w);
  factor::dora_forward(x, w, aware.right, aware.left, g, 0.5f, y);
  const factor::InverseMoment inverse(covariance);
  const pare::transformer::EditedLinear layer(
      pare::transformer::DenseLinear<pare::bf16>::copy_of(w),
      factor::perfusion_edits(w, inverse, x, y));
  layer.apply(x, y);
  const auto shared = factor::shared_factors(std::vector<Matrix>{w, w}, {.latent = 8});
  pare::transformer::SharedLinear<pare::bf16>::copy_of(shared).apply(x, y);
}

void calls_of_feature(const Matrix& x, std::span<const float> labels, Matrix& mixed,
                      std::vector<Index>& best) {
  namespace feature = pare::feature;
  const feature::FieldLayout layout({2, 1, 3});
  const feature::Donors donors(feature::DonorPolicy::Shift, 1, 1, x.rows(), layout);
  const std::vector<double> gates{0.5, 0.25, 0.75};
  feature::mix_forward(x, gates, donors, mixed);
  const auto scores = feature::score_features(x, labels);
  for (const auto field : feature::top_k(scores.ranking, 3)) best.push_back(field);
}

void calls_of_sequence(const Tensor& x, const Tensor& a, const Matrix& w, Tensor& state,
                       Tensor& y) {
  namespace sequence = pare::sequence;
  sequence::scan(x, a, x, x, state, y);
  sequence::scan(pare::simd.threads(2), x, a, x, x, state, y, {.chunk = 64});
  const pare::TensorView<float, 3> out{y.data(), {1, 1, w.rows()}, {w.rows(), w.rows(), 1}};
  Matrix h(1, w.rows());
  sequence::dense_scan(w, w, w, pare::as_const(out), h, out);
  const auto heads = sequence::heads_of_lags(sequence::lag_operators(w, w, w, 8), w.rows());
  sequence::apply_heads(heads, pare::as_const(out), out);
  pare::attention::global_query(pare::as_const(out), w, w, out);
}

void calls_of_transformer(Matrix& x, const Eigen::VectorXf& gain, Matrix& y, Tensor& q) {
  namespace transformer = pare::transformer;
  transformer::add_rms_norm(x, y, gain, y);
  transformer::layer_norm(pare::simd.threads(2), x, gain, gain, y);
  transformer::activate_gated(x, y, y, transformer::Silu{});
  transformer::activate(x, y, transformer::Gelu{});
  transformer::softmax(x, y, {.temperature = 0.7});
  const transformer::RotaryTable<float> table(transformer::rotary_frequencies(64), 100);
  transformer::rotate(q, table, {.first_position = 3});
  const transformer::DenseLinear<pare::bf16> layer(y.cols(), x.cols());
  layer.apply(pare::simd, pare::as_const(pare::to_view(x)), pare::to_view(y));
  const std::vector<pare::kernel::Q4_1> blocks(1);
  const transformer::QuantizedLinear<pare::kernel::Q4_1> small(blocks, 1, 32);
  small.apply(pare::simd, pare::as_const(pare::to_view(x)), pare::to_view(y));
  const transformer::TwoFourLinear<pare::bf16> sparse(
      pare::factor::TwoFour<pare::bf16>(pare::factor::TwoFourMask(y.cols(), x.cols())));
  sparse.apply(pare::simd, pare::as_const(pare::to_view(x)), pare::to_view(y));
}

void calls_of_rankings(const Matrix& x, std::span<const std::int32_t> tokens,
                       std::span<const Index> offsets) {
  namespace retrieval = pare::retrieval;
  const retrieval::ItemLists lists{offsets, offsets};
  retrieval::evaluate_rankings(pare::simd.threads(2), x, lists, lists, 5);
  const retrieval::Bm25Index index(tokens, offsets);
  const auto hits = index.search(tokens, 5);
  retrieval::rerank(hits, [](Index id) { return static_cast<double>(id); }, {.prune = 0.1});
  retrieval::fuse_adaptive(hits, offsets, 3, retrieval::adaptive_weights(offsets, 100));
  Matrix by_users = x, by_items = x;
  retrieval::uniformity(x);
  retrieval::direct_au(pare::simd.threads(2), x, x, by_users, by_items);
  const std::vector<double> scores(3, 1.0);
  const retrieval::Proposal proposal = retrieval::Proposal::uniform(x.rows());
  const retrieval::SampledItems sampled{offsets, offsets, proposal.log_probabilities(), {}};
  retrieval::sampled_softmax_gradient(pare::simd.threads(2), x, x, sampled, by_users, by_items);
  retrieval::sampled_softmax(x, x, sampled);
  retrieval::score_softmax(x, by_users);
  retrieval::bpr(scores, scores);
  retrieval::dpo({scores, scores, scores, scores});
}

void calls_of_retrieval(const Matrix& x) {
  const std::vector<pare::Index> offsets{0, x.rows()};
  pare::retrieval::max_sim(pare::simd.threads(2), x, x, offsets);
  pare::retrieval::top_k_dot(x, x, 1);
  const pare::linalg::Int8Rows bytes = pare::linalg::quantize_rows(pare::simd.threads(2), x);
  pare::retrieval::max_sim(x, bytes, offsets);
  pare::retrieval::top_k_dot(bytes, x, 1);
  const auto codec = pare::retrieval::fit_residual_codec(x, {.bits = 2});
  pare::retrieval::residual_max_sim(x, codec, pare::retrieval::encode(codec, x), offsets);
}

void calls_of_items(const Matrix& x, Matrix& y) {
  namespace retrieval = pare::retrieval;
  retrieval::ItemFields fields(2);
  fields.add(3, {0, 2});
  const std::vector<Matrix> tables{x};
  std::vector<Matrix> by_tables{x};
  const std::vector<pare::Index> offsets{0, 2};
  retrieval::embedding_bag(pare::simd.threads(2), fields, tables, y);
  retrieval::embedding_bag_gradient(fields, y, by_tables);
  using Layer = pare::transformer::DenseLinear<float>;
  const retrieval::SessionEncoder<retrieval::EncoderBlock<Layer>> encoder(x.cols());
  encoder.encode(x, offsets, y);
  retrieval::score_items(x, x, x, y);
  const std::vector<retrieval::ClassHead<float>> heads{
      {.classes = pare::as_const(pare::to_view(tables[0])), .targets = offsets}};
  const std::vector<retrieval::ClassGradient<float>> by{
      {.by_classes = pare::to_view(by_tables[0])}};
  retrieval::multi_task_loss(x, heads);
  retrieval::multi_task_gradient(pare::simd.threads(2), x, heads, y, by);
}

void calls_of_ids(const Matrix& x) {
  namespace retrieval = pare::retrieval;
  const auto clusters = retrieval::balanced_kmeans(x, {.clusters = 2});
  retrieval::assign_balanced(x, clusters.centroids);
  const auto fit = retrieval::fit_semantic_ids(pare::simd.threads(2), x, {.clusters = 2});
  const auto ids = retrieval::with_last_digit(retrieval::encode_semantic_ids(fit.codebooks, x));
  Matrix decoded = x;
  retrieval::decode_semantic_ids(fit.codebooks, fit.ids, decoded);
  const retrieval::IdTrie trie(ids, 2);
  const std::vector<retrieval::Beam> beams{{}};
  const auto logits = retrieval::child_logits(trie, beams, x, x);
  retrieval::beam_step(trie, beams, std::span(logits), 3);
  retrieval::beam_search(trie, [](const auto&, auto to) { to(0, 0) = 1; }, {.items = 2});
  retrieval::session_score(trie, ids.of(0), x);
  retrieval::choose_preference({});
}

void calls_of_routing(const Matrix& x, const Matrix& w, Matrix& y) {
  namespace routing = pare::routing;
  using Layer = pare::transformer::DenseLinear<pare::bf16>;
  const auto routes = routing::route(x, routing::TopK{.k = 1});
  const routing::RoutePlan plan(routes.ids, x.cols(), {.capacity = 8});
  std::vector<Layer> experts;
  experts.emplace_back(y.cols(), x.cols());
  routing::mixture(pare::simd.threads(2), x, routes, experts, y);
  routing::grouped_multiply(x, plan, experts, y);
  std::vector<pare::transformer::SharedLinear<pare::bf16>> shared;
  shared.emplace_back(Layer(y.cols(), 4), Layer(4, x.cols()),
                      std::vector<pare::Index>{0, y.cols()});
  routing::grouped_multiply(x, plan, routing::latent_experts(shared), y);
  routing::mixture(x, routes, routing::latent_experts(shared), y);
  routing::part_errors(plan, y, y);
  routing::pool_sequences(x, std::vector<pare::Index>{0, x.rows()}, y);
  routing::expert_attention(x, routing::routes_of_tokens(routes, std::vector<pare::Index>{0, 1}),
                            experts[0], y);
  Matrix gradient = x;
  routing::load_balance_gradient(x, plan, gradient);
  const pare::RowMatrix<float> weights = w;
  const auto groups = routing::neuron_groups(weights, weights, weights, 2);
  routing::budget_curve(x, groups, y);
  routing::fit_ridge_router(x, routes.ids, 8);
  const pare::TensorView<const float, 3> queries{x.data(), {1, 1, 8}, {8, 8, 1}};
  const pare::TensorView<const float, 4> keys{w.data(), {1, 2, 2, 4}, {16, 8, 4, 1}};
  const auto hits = routing::search_product_keys(queries, keys, 2);
  pare::RowMatrix<float> out(1, w.cols());
  routing::gather_values(weights, hits.ids, hits.scores, out);
}

void calls_of_files(const std::filesystem::path& path, Matrix& x) {
  pare::io::write_npy(path, x);
  x = pare::io::read_npy_matrix<float>(path);
  const pare::io::GgufFile model(path);
  model.read_rows(model.tensors()[0].name, model.get<Index>("first"), x);
}
