// SPDX-License-Identifier: Apache-2.0
// Wrong calls, one a line: the first error of each must match the extended regular expression
// behind `refused:`, and no other line may have one (check_refused_calls.sh).
#include <Eigen/Core>
#include <Eigen/SparseCore>
#include <unsupported/Eigen/CXX11/Tensor>

#include <pare/pare.hpp>

#include <span>
#include <vector>

using namespace pare::attention;
using pare::draft::attend_tree;
using namespace pare::factor;
using namespace pare::feature;
using namespace pare::graph;
using namespace pare::latent;
using namespace pare::linalg;
using namespace pare::projection;
using namespace pare::sequence;
using namespace pare::transformer;

using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;
using TensorMap = Eigen::TensorMap<Tensor>;
using Doubles = Eigen::Tensor<double, 4, Eigen::RowMajor>;
using Matrix = Eigen::MatrixXf;
using Sparse = Eigen::SparseMatrix<float, Eigen::RowMajor>;

extern Tensor q, k, v, out;
extern const Tensor const_q, const_out;
extern Doubles doubles;
extern Eigen::Tensor<float, 3, Eigen::RowMajor> rank3;
extern Eigen::Tensor<int, 4, Eigen::RowMajor> integers;
extern PagedKeyValue<float> pages;
extern KeyLists key_lists;
extern Matrix x, y, w;
extern Eigen::Matrix<Eigen::half, Eigen::Dynamic, Eigen::Dynamic> halves;
extern const Matrix const_y;
extern Eigen::MatrixXd xd, yd;
extern Eigen::MatrixXi xi;
extern Eigen::MatrixXcf xc;
extern Eigen::VectorXf weights, labels;
extern Sparse graph;
extern Eigen::SparseMatrix<float> columns;
extern Eigen::SparseMatrix<int, Eigen::RowMajor> counts;
extern SparseProjection omega;
extern const PreparedProjection<SparseProjection> prepared;
extern std::vector<bool> flags;
extern std::vector<float> numbers;
extern const RotaryTable<float> table;
extern LowRank<float> factors;
extern Covariance covariance;
extern const InverseMoment inverse;
extern std::vector<Matrix> matrices;
extern FisherDiagonal fisher;
extern Logistic<float> model;
extern const FieldLayout layout;
extern const Donors donors;
extern SparseFields<float> sparse_fields;
extern SparseMix<float> sparse_mix;
extern MixGradients gradients;
extern const LatentAttention<float> latent_layer;
extern LatentCache<float> latents;
extern RaggedCache<float> ragged;
extern const ProductCodebook<float> book;
extern const ProductCodebook<double> wide_book;
extern const ProductCodes codes;
extern const ToeplitzHeads<float> by_distance;
extern Eigen::Tensor<double, 3, Eigen::RowMajor> wide_rank3;
extern Eigen::Array<pare::Index, 1, 4> lengths;
extern Eigen::Tensor<float, 3, Eigen::RowMajor> eviction;
extern const HeadGroups groups;
extern const pare::draft::DenseHead<pare::bf16> head;
extern const pare::draft::LowRankHead<double> wide_head;
extern pare::draft::HeadSummary<float> summary;
extern const pare::draft::DraftTree tree;
extern const std::vector<pare::draft::DraftTree> trees;
extern const pare::draft::DraftBlock<DenseLinear<pare::bf16>> block;
extern pare::draft::DraftBlockCache<float> block_cache;
extern pare::draft::DraftBlockCache<double> wide_cache;
extern const pare::draft::DraftBlockCache<float> const_cache;
extern pare::draft::CandidateLists<float> lists;
extern pare::draft::BranchLists<float> branches;
extern const pare::draft::BranchCorrection<DenseLinear<float>> correction;
extern pare::draft::EagleTree eagle;
extern pare::draft::DraftTree grown;
extern pare::draft::Verified committed;
extern std::vector<double> law;
void embed(int token, std::span<float> row);
extern const std::vector<pare::Index> positions;
extern const std::vector<int> tokens;
extern const DenseLinear<float> linear;
extern const std::vector<DenseLinear<float>> experts;
extern const pare::routing::RoutePlan plan;
extern const pare::retrieval::ResidualCodec codec;
extern const Int8Rows bytes;
extern const pare::retrieval::ItemFields fields;
extern std::vector<Matrix> tables;
extern const std::vector<pare::retrieval::ClassHead<float>> heads_of_x;
extern const std::vector<pare::retrieval::ClassGradient<float>> by_heads_of_x;
extern const pare::retrieval::SessionEncoder<pare::retrieval::EncoderBlock<DenseLinear<float>>>
    sessions;
double score_of_rows(pare::TensorView<const float, 2> rows);
double score_of_heads(std::span<const HeadId> heads);
extern const std::vector<HeadId> pool;
extern const std::vector<pare::Index> kept;
extern const pare::retrieval::SampledItems sampled;
extern RetrievalScores retrieval;
extern HeadUsage usage;
extern const std::vector<double> gates;
extern const AttendOptions options;

// What is right compiles: lvalues and rvalues, const and not, with and without what may be left
// out. Asked in concepts, so that no body is compiled.
template <class X, class Y>
concept Accepted = requires(X x, const X cx, Y y, pare::Simd<pare::arch::best> backend, Matrix w,
                            const SparseProjection omega, SparseProjection changing) {
  project(x, omega, y);
  project(x, changing, y);
  project(cx, omega, y);
  project(backend, x, omega, y);
  project(pare::reference, x, omega, y);
  project(x, prepared, y);
  project(backend, x, prepared, y);
  project(x, {.input_dim = 4, .output_dim = 2}, y);
  project(backend, x, {.input_dim = 4, .output_dim = 2}, y);
  sketch(omega, x, y);
  sketch({.input_dim = 4, .output_dim = 2}, x, y);
  spmm(graph, x, y);
  apply(factors, x, y);
  apply(backend, w, w, x, y);
  dora_norms(x, w, w, 1, weights);
  dora_norms(x, w, w, 1.0f, weights, {});
  score_features(x, labels);
  permutation_importance(model, layout, x, labels);
  permutation_importance(layout, x, score_of_rows);
  group_lasso(model, layout, cx, labels, {});
  mix_forward(sparse_fields, gates, donors, sparse_mix);
  mix_backward(sparse_fields, gates, donors, sparse_mix, sparse_fields, sparse_fields, gradients);
  mix_forward(x, gates, donors, y);
  mix_forward(backend, cx, gates, donors, y);
  covariance.add(x);
  fisher.add_tokens(backend, x, cx);
};
static_assert(Accepted<Matrix, Matrix> && Accepted<Matrix, Eigen::Ref<Matrix>>);
static_assert(Accepted<Eigen::Block<Matrix>, Eigen::Map<Matrix>>);
static_assert(Accepted<pare::TensorView<float, 2>, pare::TensorView<float, 2>>);

template <class Q>
concept HeadsAccepted = requires(const Q cq, Q m, Matrix w, pare::Simd<pare::arch::best> backend) {
  hunt_heads(pool, score_of_heads);
  hunt_heads(backend, pool, score_of_heads, {.rounds = 2});
  most_attended(cq, m);
  most_attended(pare::reference, m, m);
  retrieval.add(0, m, cq, {.begin = 3});
  retrieval.add(backend, 0, m, cq, {.begin = 3});
  usage.add(w);
  select_heads(usage.counts(), {.count = 2});
  head_contributions(w, w, w);
  head_contributions(backend, w, w, w);
  compact_heads(w, w, w, w, {.heads = 2, .kv_heads = 1}, kept);
  rows_of_heads(w, kept, 2);
};
static_assert(HeadsAccepted<Tensor> && HeadsAccepted<pare::TensorView<float, 4>>);

template <class Q, class O>
concept AttendAccepted = requires(Q a, const Q ca, O o, pare::Simd<pare::arch::best> backend) {
  attend(a, a, a, o);
  attend(ca, a, ca, o, options);
  attend(a, a, a, o, {.causal = true});
  attend(a, a, a, o, {});  // AttendOptions, though every policy is included
  attend(backend, a, a, a, o, {});
  attend(backend, a, pages, o, {});
  attend(a, a, a, o, EarlyStop{}, {});
  attend(a, a, a, o, Permuted{}, {.causal = true});
  attend(backend, a, a, a, o, ProxyHeads{});
  attend(backend, a, a, a, o, Permuted{}, {.causal = true});
  attend(backend, ca, ca, ca, o, {.causal = true});
  attend(pare::simd.threads(2), a, a, a, o);
  attend(a, ca, a, o, SoftCap{.cap = 50});
  attend(backend, a, a, a, o, SoftCap{.cap = 50}, {.causal = true});
  attend(a, pages, o);
  attend(a, pages, o, SoftCap{.cap = 50});
  attend(a, pages, o, SoftCap{.cap = 50}, {.causal = true});
  attend(backend, a, pages, o, {.causal = true});
  attend(a, a, a, o, EarlyStop{});
  attend(a, a, a, o, Permuted{});
  attend(a, a, a, o, ProxyHeads{});
  attend(a, a, a, o, MeanPool{}, {.causal = true});
  attend(a, pages, o, MeanPool{});
  attend(backend, a, pages, o, ProxyHeads{}, {.causal = true});
  attend(a, a, a, o, Permuted{Antidiagonal{}});
  attend(a, a, a, o, key_lists);
  attend(a, ca, a, o, key_lists, {.causal = true});
  attend(backend, a, a, a, o, key_lists, SoftCap{.cap = 50}, {.causal = true});
  attend(a, pages, o, key_lists);
  attend(backend, a, pages, o, key_lists, {.causal = true});
  train_codebook(a, ca);
  train_codebook(backend, a, ca, {.rounds = 3});
  encode(ca, book);
  encode(pare::reference, a, book);
  select_keys(a, ca, book);
  select_keys(backend, a, ca, book, {.keys = 3});
  select_keys(codes, codes, {.keys = 3}, key_lists);
  select_keys(backend, codes, codes, {}, key_lists);
  value_residual(rank3, w, ca, a, o);
  value_residual(backend, rank3, const_y, a, a, a, {.gate = ResidualGate::Tanh});
  HeadPartition(lengths, {.heads = 4});
  order_keys(a, a);
  attend_tree(a, latents, o, tree);
  attend_tree(a, pages, o, tree, {.window = 3});
  attend_tree(backend, ca, latents, o, trees);
  attend_tree(backend, a, ca, a, o, tree, {.sinks = 3});
  score_tokens(a, ca, eviction, SnapKV{}, {.scale = 1.0});
  score_tokens(backend, ca, eviction, KeyDiff{});
  score_tokens(ca, eviction, KeyDiff{});
  keep_tokens(eviction, groups, {.ratio = 0.3});
  attend_heads(backend, a, pages, o, {.causal = true});
  select_blocks(a, a, MeanPool{});
  select_blocks(a, pages, MeanPool{}, {.causal = true});
};
static_assert(AttendAccepted<Tensor, Tensor> && AttendAccepted<Tensor, const TensorMap>);
static_assert(AttendAccepted<TensorMap, pare::TensorView<float, 4>>);

template <class X, class Y>
concept SequencesAccepted =
    requires(X a, const X ca, Y b, Eigen::Tensor<float, 3, Eigen::RowMajor> r,
             pare::Simd<pare::arch::best> backend) {
      scan(a, ca, a, ca, b, b);
      scan(backend, ca, a, ca, a, b, b, {.chunk = 64});
      dense_scan(w, w, w, r, y, r);
      dense_scan(pare::reference, w, const_y, w, r, y, r);
      lag_operators(w, w, const_y, 3);
      operator_span(const_y, {.tolerance = 0.1});
      heads_of_lags(w, 3);
      heads_of_lags(const_y, 3, {.heads = 2});
      apply_heads(by_distance, r, r);
      apply_heads(backend, by_distance, r, r);
      global_query(r, w, w, r);
      global_query(backend, r, w, const_y, r, {.epsilon = 1e-6});
    };
static_assert(SequencesAccepted<Tensor, Tensor> && SequencesAccepted<TensorMap, TensorMap>);

template <class X, class Y>
concept RowsAccepted =
    requires(X a, const X ca, Y b, const Matrix c, pare::Simd<pare::arch::best> backend) {
      rms_norm(a, weights, b);
      rms_norm(backend, ca, weights, b, {.epsilon = 1e-6});
      add_rms_norm(b, ca, labels, b);
      layer_norm(pare::reference, ca, weights, numbers, b);
      add_layer_norm(backend, b, a, weights, numbers, b, {});
      activate(a, b, Gelu{});
      activate_gated(backend, ca, a, b, Silu{});
      softmax(a, b, {.temperature = 2});
      log_softmax(backend, ca, b);
      log_sum_exp(c, numbers);
      log_sum_exp(backend, c, weights, {.temperature = 2});
      rotate(q, table);
      rotate(backend, out, table, {.first_position = 1});
    };
template <class X, class Y>
concept HeadAccepted =
    requires(X a, const X ca, Y b, pare::Simd<pare::arch::best> backend, pare::GumbelNoise noise) {
      head.logits(a, b);
      head.logits(backend, ca, b);
      head.top_k(ca, 8);
      head.top_k(pare::reference, a, 8, 0.7);
      head.argmax(backend, ca);
      head.sample(a, positions, {.seed = 3}, 0.5);
      head.sample(backend, ca, positions, noise);
      head.values_at(ca, tokens, b);
      head.reduce(backend, a, {.k = 8, .noise = noise, .positions = positions}, summary);
      latents.append(0, ca, a);
      latents.append(backend, 0, a);
    };
static_assert(HeadAccepted<Matrix, Matrix> &&
              HeadAccepted<Eigen::Block<Matrix>, Eigen::Ref<Matrix>>);
static_assert(HeadAccepted<pare::TensorView<float, 2>, pare::TensorView<float, 2>>);
static_assert(RowsAccepted<Matrix, Matrix> &&
              RowsAccepted<Eigen::Block<Matrix>, Eigen::Map<Matrix>>);
static_assert(RowsAccepted<pare::TensorView<float, 2>, pare::TensorView<float, 2>>);

// Scalars that differ and may: storage beside what is computed in, and double beside float.
template <class X, class Y>
concept Applies = requires(LowRank<float>& l, LowRank<double>& d, X& a, Y& b) {
  apply(l, a, b);
  apply(pare::simd, d.left, d.right, a, yd);
};
static_assert(Applies<Matrix, Matrix> && Applies<Eigen::MatrixXd, Eigen::MatrixXd>);
static_assert(!Applies<Eigen::MatrixXd, Matrix> && !Applies<Matrix, Eigen::MatrixXd>);

// A concept that asks hears that a wrong call does not compile, and that a right one does.
template <class Q, class K, class O>
concept Attends = requires(Q& a, K& b, O& c) { attend(a, b, b, c); };
template <class X>
concept Projects = requires(X& a, Matrix& b) { project(a, omega, b); };
static_assert(Attends<Tensor, Tensor, Tensor> && !Attends<Tensor, Doubles, Tensor>);
using Halves = Eigen::Tensor<Eigen::bfloat16, 4, Eigen::RowMajor>;
static_assert(Attends<Halves, Halves, Halves> && Attends<Halves, Halves, Tensor>);
static_assert(!Attends<Halves, Halves, Doubles> && !Attends<Tensor, Tensor, Halves>);
static_assert(!Attends<Tensor, Tensor, const Tensor> && !Attends<Tensor, Tensor, Doubles>);
using HalfMatrix = Eigen::Matrix<Eigen::half, Eigen::Dynamic, Eigen::Dynamic>;
static_assert(Projects<HalfMatrix> && Projects<Sparse> && Projects<Eigen::SparseMatrix<float>>);
static_assert(Projects<Matrix> && !Projects<Eigen::MatrixXi> && !Projects<Eigen::MatrixXd>);
template <class W, class Options>
concept Factors = requires(const W& a, const Options& b) { truncated_svd(a, b); };
static_assert(!Factors<Matrix, int> && !Factors<Eigen::MatrixXi, SvdOptions>);

// Each call stays on a line with its reason.
// clang-format off
void refused() {
  auto backend = pare::simd.threads(2);
  project(x, omega, yd);  // refused: pare::projection::project: y: wanted the scalar type
  project(backend, x, omega, yd);  // refused: project: y: wanted the scalar type that
  project(xd, omega, y);  // refused: project: y: wanted the scalar type
  project(x, omega, const_y);  // refused: project: y: .* may be written, got a const one
  project(x, omega, Matrix(64, 32));  // refused: project: y: .* outlives the call, got a temporary
  project(xi, omega, y);  // refused: project: x: wanted elements of float, double, bf16 or f16
  project(xc, omega, y);  // refused: project: x: wanted elements of float, double, bf16 or f16
  project(x + x, omega, y);  // refused: project: x: .*an expression: .eval\(\) it first
  project(x, omega, y + y);  // refused: project: y: wanted .* in memory
  project(x, prepared, yd);  // refused: pare::projection::project: y: wanted the scalar type
  project(x, 3, y);  // refused: project: r: wanted a RandomOperator
  project(x, omega, y, 3);  // refused: project: after y: wanted nothing
  project(counts, omega, y);  // refused: project: x: wanted elements|project: x: wanted an
  project(flags, omega, y);  // refused: project: x: wanted \[n, input_dim\] in memory
  project(weights.data(), omega, y);  // refused: project: x: wanted \[n, input_dim\] in memory
  sketch(omega, x, yd);  // refused: sketch: out: wanted the scalar type
  spmm(columns, x, y);  // refused: spmm: a: wanted an Eigen::SparseMatrix stored by rows
  spmm(x, x, y);  // refused: spmm: a: wanted a matrix as an Eigen::SparseMatrix
  spmm(graph, xd, y);  // refused: spmm: b: wanted the scalar type of
  spmm(graph, x, yd);  // refused: spmm: c: wanted the scalar type
  fast_rp(x);  // refused: fast_rp: adjacency: wanted .* as an Eigen::SparseMatrix
  fast_rp(graph, {.dims = 8});  // refused: fast_rp: after adjacency: wanted FastRpOptions
  fast_rp(backend, graph, yd, {.dim = 8});  // refused: fast_rp: after adjacency: .* of the scalar of
  attend(q, doubles, v, out);  // refused: pare::attention::attend: k: wanted the scalar type of
  attend(q, k, doubles, out, {.causal = true});  // refused: attend: v: wanted the scalar type of
  attend(const_q, doubles, doubles, out);  // refused: attend: k: wanted the scalar type of
  attend(q, k, v, const_out);  // refused: attend: out: .*may be written, got a const one
  attend(q, k, v, Tensor(1, 1, 1, 1));  // refused: attend: out: .* outlives the call, got a temp
  attend(q, k, v, doubles);  // refused: attend: out: wanted the scalar type
  attend(integers, k, v, out);  // refused: attend: q: wanted elements of float, double, bf16 or f16
  attend(rank3, k, v, out);  // refused: attend: q: wanted .*, got another rank
  attend(q, k, rank3, out, {.causal = true});  // refused: attend: v: wanted .*, got another rank
  attend(q, k + k, v, out);  // refused: attend: k: wanted .*an expression
  attend(q, k, v, flags);  // refused: attend: out: wanted .* in memory
  attend(q, k, v, out, {.casual = true});  // refused: attend: after out: wanted AttendOptions
  attend(backend, q, k, v, out, {.casual = true});  // refused: attend: after out: wanted Attend
  attend(q, k, v, out, SoftCap{}, {.casual = true});  // refused: attend: after out: wanted Attend
  attend(q, pages, out, {.casual = true});  // refused: attend: after out: wanted AttendOptions
  attend(q, pages, doubles);  // refused: attend: out: wanted the scalar type
  order_keys(q, doubles);  // refused: order_keys: k: wanted the scalar type
  order_keys(q, k, {.segments = 4});  // refused: order_keys: after k: wanted OrderOptions
  select_blocks(q, doubles, MeanPool{});  // refused: select_blocks: k: wanted the scalar type
  select_blocks(q, pages, 3);  // refused: select_blocks: after k: wanted .*a BlockSelector
  select_blocks(q, k, 3);  // refused: select_blocks: after k: wanted .*a BlockSelector
  calibrate(q, k, doubles, EarlyStop{}, {});  // refused: calibrate: v: wanted the scalar type
  hunt_heads(numbers, score_of_heads);  // refused: hunt_heads: pool: wanted a list of HeadId
  hunt_heads(pool, score_of_rows);      // refused: hunt_heads: objective: wanted a const callable
  hunt_heads(pool, score_of_heads, {.round = 2});  // refused: hunt_heads: after objective: wanted Hu
  most_attended(q, doubles);                       // refused: most_attended: k: wanted the scalar type
  most_attended(q, k, v);                          // refused: most_attended: after k: wanted nothing
  retrieval.add(0, q, doubles, {});                // refused: RetrievalScores::add: k: wanted the scalar
  head_contributions(x, w, yd);                    // refused: head_contributions: lengths: wanted the sc
  head_contributions(halves, w, y);  // refused: head_contributions: attended: wanted elements of flo
  compact_heads(w, w, w, xd, {2, 1}, kept);  // refused: compact_heads: wo: wanted the scalar type
  compact_heads(w, w, w, w, 2);              // refused: compact_heads: after wo: wanted HeadCounts
  truncated_svd(w, 16);  // refused: pare::factor::truncated_svd: after w: wanted SvdOptions such as
  truncated_svd(w);  // refused: truncated_svd: after w: wanted SvdOptions such as
  truncated_svd(w, {.ranks = 16});  // refused: truncated_svd: after w: wanted SvdOptions such as
  truncated_svd(w * w, {.rank = 16});  // refused: truncated_svd: w: .*an expression
  truncated_svd(xi, {.rank = 16});  // refused: truncated_svd: w: wanted elements of float
  factorize(w, weights, {.rank = 16});  // refused: factorize: metric: wanted a Metric
  weighted_svd(w, flags, {.rank = 16});  // refused: weighted_svd: weights: wanted a Fisher
  weighted_svd(w, weights, 16);  // refused: weighted_svd: after the weights: wanted SvdOptions
  covariance_svd(w, x, {.rank = 16});  // refused: covariance_svd: after w: wanted a Covariance
  rome_edits(w, covariance, x, y);  // refused: rome_edits: inverse: wanted an InverseMoment
  rome_edits(w, inverse, x + x, y);  // refused: rome_edits: keys: .*an expression
  perfusion_edits(w, inverse, x, y, 3);  // refused: perfusion_edits: after values: wanted an EditGate
  rank_one_edit(w, inverse, x, xi);  // refused: rank_one_edit: values: wanted elements of float
  locked_value(w, x, y);  // refused: locked_value: after keys: wanted nothing
  shared_factors(w, {.latent = 4});  // refused: shared_factors: weights: wanted a list of matrices
  shared_factors(matrices, 4);  // refused: shared_factors: after weights: wanted SharedFactorOptions
  grouped_shared_factors(matrices, {.latent = 4});  // refused: grouped_shared_factors: after weights
  dense_sparse(w, 16);  // refused: factor::dense_sparse: after w: wanted a Covariance or an earlier
  dense_sparse(xi);     // refused: factor::dense_sparse: w: wanted elements of float
  nested(w, 16);        // refused: factor::nested: after w: wanted a Covariance or none
  elementwise_svd(w, w * 2, {.rank = 16});  // refused: elementwise_svd: f: .*an expression
  elementwise_svd(w, w, 16);  // refused: elementwise_svd: after f: wanted ElementwiseOptions
  two_four(w * w, Magnitude{});  // refused: two_four: w: .*an expression
  two_four(w, 2);  // refused: two_four: score: wanted a TwoFourScore
  two_four(w, Magnitude{}, 2);  // refused: two_four: after the score: wanted nothing, or
  sparse_gpt(w, flags);  // refused: sparse_gpt: covariance: wanted a Covariance or a matrix
  sparse_gpt(w, w, 2);  // refused: sparse_gpt: after the covariance: wanted SparseGptOptions
  armor(w, flags);  // refused: armor: second_moments: wanted a SecondMoments
  armor(w, weights, 64);  // refused: armor: after the moments: wanted ArmorOptions
  normalize_weight(xi);  // refused: normalize_weight: w: wanted elements of float
  apply(factors, x, yd);  // refused: factor::apply: y: wanted the scalar type
  apply(backend, w, xd, x, y);  // refused: factor::apply: right: wanted the scalar type of
  dora_norms(w, x, y, 1.0, flags);  // refused: dora_norms: norms: wanted a vector to write to
  score_features(xi, labels);  // refused: score_features: x: wanted elements of float
  score_features(halves, labels);  // refused: score_features: x: wanted elements of float or double
  score_features(x, flags);  // refused: score_features: labels: .*std::vector<bool> is not
  permutation_importance(model, layout, xd, labels);  // refused: permutation_importance: x: wanted the sc
  group_lasso(model, layout, x, flags);  // refused: group_lasso: labels: .*std::vector<bool> is not
  taylor_importance(model, layout, x, labels, {.eps = 1});  // refused: taylor_importance: after lab
  roc_auc(labels, flags);  // refused: roc_auc: scores: .*std::vector<bool> is not
  mix_forward(x + x, gates, donors, y);  // refused: mix_forward: x: wanted a FieldBatch or a matrix
  mix_forward(x, gates, donors, const_y);  // refused: mix_forward: mixed: .* that may be written
  mix_forward(x, gates, donors, Matrix(3, 3));  // refused: mix_forward: mixed: .* outlives the call
  covariance.add(x + x);  // refused: factor::Covariance::add: x: .*an expression
  covariance.add(backend, xi);  // refused: factor::Covariance::add: x: wanted elements of float
  fisher.add_tokens(x, x + x);  // refused: FisherDiagonal::add_tokens: x: .*an expression
  rms_norm(x + x, weights, y);  // refused: transformer::rms_norm: x: .*an expression
  rms_norm(x, x, y);  // refused: rms_norm: gain: wanted a vector
  rms_norm(halves, halves.row(0), y);  // refused: rms_norm: gain: wanted a vector
  rms_norm(x, weights, yd);  // refused: rms_norm: y: wanted .*of the scalar of x
  rms_norm(backend, x, weights, const_y);  // refused: rms_norm: y: wanted an output that may be
  rms_norm(x, weights, y, 1e-6);  // refused: rms_norm: after y: wanted NormOptions
  add_rms_norm(const_y, x, weights, y);  // refused: add_rms_norm: x: wanted an output that may
  layer_norm(x, weights, flags, y);  // refused: layer_norm: bias: wanted a vector
  add_layer_norm(x, xd, weights, weights, y);  // refused: add_layer_norm: delta: wanted the scalar
  activate(x, y, 3);  // refused: transformer::activate: activation: wanted Silu
  activate_gated(x, xd, y, Silu{});  // refused: activate_gated: up: wanted the scalar type
  activate_gated(x, x, yd, Silu{});  // refused: activate_gated: y: wanted .*of the scalar of gate
  softmax(xi, y);  // refused: transformer::softmax: x: wanted elements of float
  softmax(x, y, 0.5);  // refused: softmax: after y: wanted SoftmaxOptions
  log_softmax(x, Matrix(3, 3));  // refused: log_softmax: y: wanted an output that outlives
  log_sum_exp(x, y);  // refused: log_sum_exp: out: wanted a vector
  scan(x, q, k, v, out, out);  // refused: sequence::scan: x: wanted .*another rank
  scan(q, doubles, k, v, out, out);  // refused: sequence::scan: a: wanted elements of float
  scan(q, k, doubles, v, out, out);  // refused: sequence::scan: b: wanted the scalar type
  scan(q, k, k, v, const_out, out);  // refused: sequence::scan: state: .* that may be written
  scan(q, k, k, v, out, doubles);  // refused: sequence::scan: y: wanted .*of the scalar of x
  scan(q, k, k, v, out, out, 64);  // refused: sequence::scan: after y: wanted ScanOptions
  dense_scan(w + w, w, w, rank3, y, rank3);  // refused: dense_scan: a: .*an expression
  dense_scan(w, w, w, rank3, yd, rank3);  // refused: dense_scan: state: wanted the scalar type
  dense_scan(xd, xd, xd, rank3, yd, wide_rank3);  // refused: dense_scan: x: wanted .*scalar of a
  pare::retrieval::evaluate_rankings(xi, kept, kept, 5);  // refused: evaluate_rankings: scores: wanted elements of float
  pare::retrieval::uniformity(xi);               // refused: uniformity: x: wanted elements of float
  pare::retrieval::uniformity_gradient(xd, y);   // refused: uniformity_gradient: gradient: wanted the scalar
  pare::retrieval::alignment(x, xd);             // refused: retrieval::alignment: y: wanted the scalar type
  pare::retrieval::direct_au(x, x, y, xd);       // refused: direct_au: item_gradient: wanted
  pare::retrieval::sampled_softmax(x, xd, sampled);  // refused: sampled_softmax: items: wanted the scalar type
  pare::retrieval::sampled_softmax(x, x, sampled, 0.1);  // refused: sampled_softmax: after sampled: wanted Sampled
  pare::retrieval::sampled_softmax_gradient(x, x, sampled, y, xd);  // refused: item_gradient: wanted
  pare::retrieval::score_softmax(x, xd);  // refused: score_softmax: gradient: wanted
  quantize_rows(xd);        // refused: linalg::quantize_rows: x: wanted .*of float, bf16 or f16
  quantize_rows(x, y);      // refused: linalg::quantize_rows: after x: wanted Int8Rows
  dequantize_rows(x, y);    // refused: linalg::dequantize_rows: rows: wanted Int8Rows
  dequantize_rows(bytes, const_y);  // refused: dequantize_rows: out: .*that may be written
  namespace routing = pare::routing;
  namespace retrieval = pare::retrieval;
  retrieval::max_sim(xi, xi, kept);  // refused: retrieval::max_sim: queries: wanted elements of float
  retrieval::max_sim(x, xd, kept);   // refused: max_sim: documents: wanted the scalar type
  retrieval::max_sim(x, x, tokens);  // refused: max_sim: offsets: wanted .documents . 1. of Index
  retrieval::max_sim(xd, bytes, kept);  // refused: max_sim: documents: wanted the scalar type
  retrieval::max_sim(x, bytes, tokens);  // refused: max_sim: offsets: wanted .documents . 1. of Index
  retrieval::max_sim(x, x, kept, 2);  // refused: max_sim: after offsets: wanted scores
  retrieval::fit_residual_codec(xd);   // refused: fit_residual_codec: tokens: wanted .*of float
  retrieval::encode(x, x);             // refused: retrieval::encode: codec: wanted a ResidualCodec
  retrieval::decode(codec, x, y);      // refused: retrieval::decode: rows: wanted ResidualRows
  retrieval::residual_max_sim(x, x, x, kept);  // refused: residual_max_sim: codec: wanted a Residual
  retrieval::top_k_dot(xi, xi, 3);  // refused: top_k_dot: table: wanted elements of float
  retrieval::top_k_dot(x, xd, 3);   // refused: top_k_dot: queries: wanted the scalar type
  retrieval::top_k_dot(bytes, xd, 3);  // refused: top_k_dot: queries: wanted the scalar type
  retrieval::top_k_dot(bytes, x);      // refused: top_k_dot: after queries: wanted k
  retrieval::top_k_dot(x, x);       // refused: top_k_dot: after queries: wanted k
  retrieval::embedding_bag(tables, tables, y);  // refused: embedding_bag: fields: wanted ItemFields
  retrieval::embedding_bag(fields, x, y);       // refused: embedding_bag: tables: wanted a list of
  retrieval::embedding_bag(fields, tables, kept);  // refused: embedding_bag: rows: wanted
  retrieval::embedding_bag(fields, tables, y, 2);  // refused: embedding_bag: after rows: wanted noth
  retrieval::embedding_bag_gradient(fields, xi, tables);  // refused: bag_gradient: by_rows: wanted el
  retrieval::embedding_bag_gradient(fields, x, y);  // refused: bag_gradient: by_tables: wanted a list
  retrieval::score_items(x, xd, x, y);          // refused: score_items: map: wanted the scalar type
  retrieval::score_items(x, x, x, yd);          // refused: score_items: scores: wanted .*of sessions
  retrieval::multi_task_loss(xi, heads_of_x);   // refused: multi_task_loss: sessions: wanted element
  retrieval::multi_task_loss(xd, heads_of_x);   // refused: multi_task_loss: wanted heads as a list
  retrieval::multi_task_gradient(x, heads_of_x, yd, by_heads_of_x);  // refused: gradient: by_sessions
  retrieval::multi_task_gradient(x, heads_of_x, y, heads_of_x);  // refused: gradient: wanted heads and
  sessions.encode(xi, kept, y);                 // refused: SessionEncoder::encode: rows: wanted el
  sessions.encode(x, kept, y, 2);               // refused: encode: after sessions: wanted nothing
  retrieval::balanced_kmeans(xi);       // refused: balanced_kmeans: rows: wanted elements of float
  retrieval::balanced_kmeans(x, 3);     // refused: balanced_kmeans: after rows: wanted BalancedKMeans
  retrieval::assign_balanced(x, xi);    // refused: assign_balanced: centroids: wanted
  retrieval::assign_nearest(x, xd);     // refused: assign_nearest: after centroids: .*computed in
  retrieval::assign_nearest(x, x, 1);   // refused: assign_nearest: after centroids: wanted
  retrieval::fit_semantic_ids(xi);      // refused: fit_semantic_ids: rows: wanted elements of float
  retrieval::fit_semantic_ids(x, 3);    // refused: fit_semantic_ids: after rows: wanted SemanticId
  routing::route(xi, routing::TopOne{});  // refused: routing::route: logits: wanted elements of float
  routing::route(w, 2);                   // refused: routing::route: gate: wanted TopOne, TopK
  routing::route(w, routing::TopOne{}, 2);  // refused: routing::route: after the gate: wanted Routes
  routing::grouped_multiply(x, w, experts, y);  // refused: grouped_multiply: plan: wanted a RoutePlan
  routing::grouped_multiply(x, plan, w, y);  // refused: grouped_multiply: experts: wanted a vector
  routing::mixture(x, w, experts, y);        // refused: routing::mixture: routes: wanted Routes
  routing::part_errors(plan, xi, xi);        // refused: part_errors: parts: wanted elements of float
  routing::expert_attention(x, w, linear, y);  // refused: expert_attention: routes: wanted Routes
  routing::combine(plan, x, xd, y);  // refused: routing::combine: weights: wanted the scalar type
  routing::combine(plan, x, x, y, true);  // refused: routing::combine: after y: wanted CombineOpt
  routing::gather_values(x, x, x, y);     // refused: gather_values: ids: wanted .*of Index
  routing::gather_dots(x, x, x, y);       // refused: gather_dots: ids: wanted .*of Index
  routing::peer(x, rank3, q, w, y);       // refused: routing::peer: experts: wanted PeerExperts
  routing::search_product_keys(rank3, q);  // refused: search_product_keys: after keys: wanted k
  routing::search_tucker_keys(rank3, q, 2);  // refused: search_tucker_keys: memory: wanted TuckerK
  routing::ultra_memory(x, q, q, y);         // refused: routing::ultra_memory: layers: wanted UltraM
  routing::add_adapter(w, y);  // refused: routing::add_adapter: adapter: wanted a MergedAdapter
  routing::subtract_adapter(w, y);  // refused: subtract_adapter: adapter: wanted a MergedAdapter
  operator_span(xi);  // refused: operator_span: operators: wanted elements of float, double
  operator_span(w, 0.1);  // refused: operator_span: after operators: wanted SpanOptions
  heads_of_lags(w);  // refused: heads_of_lags: after lags: wanted the outputs
  heads_of_lags(rank3, 3);  // refused: heads_of_lags: lags: wanted .*another rank
  apply_heads(w, rank3, rank3);  // refused: apply_heads: heads: wanted ToeplitzHeads
  apply_heads(by_distance, w, rank3);  // refused: apply_heads: x: wanted .*another rank
  apply_heads(by_distance, wide_rank3, wide_rank3);  // refused: apply_heads: wanted x and y of the sc
  lag_operators(w, xd, w, 3);  // refused: lag_operators: b: wanted the scalar type
  global_query(q, w, w, rank3);  // refused: global_query: h: wanted .*another rank
  global_query(rank3, xi, w, rank3);  // refused: global_query: p: wanted elements of float
  global_query(rank3, w, w, y);  // refused: global_query: out: wanted .*another rank
  rotate(x, table);  // refused: transformer::rotate: x: wanted .*another rank
  rotate(const_q, table);  // refused: rotate: x: wanted an output that may be written
  rotate(q, 3);  // refused: rotate: table: wanted a RotaryTable
  rotate(doubles, table);  // refused: rotate: table: wanted a RotaryTable of what x is computed in
  linear.apply(x + x, y);  // refused: transformer::Linear::apply: x: .*an expression
  linear.apply(backend, x, const_y);  // refused: Linear::apply: y: wanted an output that may be
  linear.apply(xd, yd);  // refused: Linear::apply: wanted x and y of float
  latent_layer.forward(x + x, latents, y);  // refused: LatentAttention::forward: hidden: .*expression
  latent_layer.forward(x, y, latents);  // refused: LatentAttention::forward: cache: wanted a Latent
  latent_layer.forward(x, latents, y, {.sequenc = 1});  // refused: forward: wanted hidden .*Options
  score_tokens(q, doubles, eviction, SnapKV{});  // refused: score_tokens: k: wanted the scalar type
  score_tokens(q, eviction, SnapKV{});  // refused: score_tokens: after scores: .*reads no queries
  train_codebook(q, doubles);  // refused: train_codebook: k: wanted the scalar type
  train_codebook(q, k, 8);  // refused: train_codebook: after k: wanted CodebookOptions
  encode(q, wide_book);  // refused: attention::encode: book: wanted a ProductCodebook of what x is
  select_keys(q, k, wide_book);  // refused: select_keys: book: wanted a ProductCodebook of what q is
  select_keys(q, k, book, 1024);  // refused: select_keys: after book: wanted ProductKeyOptions
  select_keys(x, k, book);  // refused: select_keys: q: wanted .*another rank
  value_residual(q, w, v, v, out);  // refused: value_residual: hidden: wanted .*another rank
  value_residual(rank3, xd, v, v, out);  // refused: value_residual: w_alpha: wanted the scalar type
  value_residual(rank3, w, v, v, doubles);  // refused: value_residual: out: .*of the scalar of hidden
  value_residual(rank3, w, v, v, out, 3);  // refused: value_residual: after out: wanted ValueResidual
  score_tokens(q, q, q, SnapKV{});  // refused: score_tokens: scores: wanted .*another rank
  keep_tokens(q, groups);  // refused: attention::keep_tokens: scores: wanted .*another rank
  attend_heads(q, q, out);  // refused: attend_heads: source: wanted a KeyValueSource
  attend_ragged(q, latents, out);  // refused: attend_ragged: cache: wanted a RaggedCache
  attend_ragged(doubles, ragged, out);  // refused: attend_ragged: out: wanted the scalar type
  ragged.append(0, q, q);  // refused: RaggedCache::append: keys: wanted .*another rank
  latents.append(0, x + x, x);  // refused: latent::append: latent: wanted .*an expression
  latents.append(0, x, q);  // refused: latent::append: rope: wanted .*another rank
  latents.append(backend, 0, xi);  // refused: latent::append: rows: wanted elements of float
  attend_tree(q, latents, const_out, tree);  // refused: draft::attend_tree: out: .* a const one
  attend_tree(q, latents, Tensor(1, 1, 1, 1), tree);  // refused: attend_tree: out: .* a temporary
  attend_tree(backend, q, latents, doubles, tree);  // refused: attend_tree: out: wanted the scalar
  attend_tree(rank3, latents, out, tree);  // refused: attend_tree: q: wanted .*another rank
  attend_tree(q, latents, out, tree, {.windw = 3});  // refused: attend_tree: wanted behind out
  attend_tree(backend, q, doubles, v, out, tree);  // refused: attend_tree: k: wanted the scalar
  attend_tree(q, k, v, out, tree, {.windw = 3});  // refused: attend_tree: wanted behind out
  attend_tree(backend, q, k, k + k, out, tree);  // refused: attend_tree: v: .*an expression
  head.logits(x + x, y);  // refused: pare::draft::logits: hidden: .*an expression
  head.logits(x, const_y);  // refused: draft::logits: y: .* may be written, got a const one
  head.logits(x, Matrix(3, 3));  // refused: draft::logits: y: .* outlives the call, got a temporary
  head.logits(backend, x, yd);  // refused: draft::logits: y: wanted the scalar type
  head.logits(xd, yd);  // refused: draft::logits: wanted hidden of float
  head.logits(x, q);  // refused: draft::logits: y: wanted .*another rank
  wide_head.logits(x, y);  // refused: draft::logits: wanted hidden of float .double for a head of
  head.top_k(xd, 8);  // refused: draft::top_k: wanted hidden of float
  head.top_k(backend, xi, 8);  // refused: draft::top_k: hidden: wanted elements of float
  head.argmax(x * x);  // refused: draft::argmax: hidden: .*an expression
  head.sample(xd, positions, pare::GumbelNoise{});  // refused: draft::sample: wanted hidden of float
  head.values_at(x, tokens, const_y);  // refused: draft::values_at: values: .* may be written
  head.values_at(x, tokens, Matrix(3, 3));  // refused: values_at: values: .* outlives the call
  head.reduce(backend, x + x, pare::draft::HeadRequest{}, summary);  // refused: reduce: hidden: .*expression
  block.forward(xd, x, block_cache, y);  // refused: DraftBlock::forward: embeddings: wanted the scalar
  block.forward(x, x, y, block_cache);  // refused: DraftBlock::forward: cache: wanted a DraftBlockCache
  block.forward(x, x, const_cache, y);  // refused: forward: cache: .*that may be written
  block.forward(x, x, wide_cache, y);  // refused: DraftBlock::forward: wanted tapped.*a cache that
  block.forward(backend, x, x, block_cache, const_y);  // refused: DraftBlock::forward: out: .*a const
  block.append(x + x, block_cache);  // refused: DraftBlock::append: tapped: .*an expression
  block.draft(xd, block_cache, yd);  // refused: DraftBlock::draft: wanted embeddings and out of float
  block.draft_plain(backend, x, x, y);  // refused: DraftBlock::draft_plain: cache: wanted a Draft
  lists.fill(x, x);  // refused: CandidateLists::fill: head: wanted a DraftHead
  lists.fill(head, xi);  // refused: CandidateLists::fill: rows: wanted elements of float
  lists.fill(head, xd);  // refused: CandidateLists::fill: wanted a head and rows of the scalar
  correction.apply(x, x, xd, positions, y);  // refused: BranchCorrection::apply: previous: wanted the
  correction.apply(xd, xd, xd, positions, yd);  // refused: BranchCorrection::apply: wanted plain
  branches.fill(head, head, x, numbers, x, embed);  // refused: BranchLists::fill: correct: wanted a
  branches.fill(correction, head, xd, numbers, xd, embed);  // refused: BranchLists::fill: wanted a
  eagle.expand(x, x);  // refused: EagleTree::expand: tokens: wanted .*std::int32_t
  pare::draft::shared_lists(xi, xi);  // refused: shared_lists: log_probabilities: wanted elements
  pare::draft::build_best_first(1, lists, grown);  // refused: build_best_first: table: .*lists.table
  pare::draft::compare_heads(head, x, x);  // refused: compare_heads: exact: wanted a DraftHead
  pare::draft::compare_heads(head, wide_head, x);  // refused: compare_heads: wanted two heads of one
  pare::draft::truncated_law(head, xd, 0, pare::draft::Sampling{});  // refused: truncated_law: wanted
  pare::draft::token_law(x, pare::draft::Sampling{}, law);  // refused: token_law: logits: .*one row
  pare::draft::keyed_sample(x, pare::draft::Sampling{}, pare::GumbelNoise{}, 0);  // refused: keyed_sample: logits: want
  pare::draft::verify_greedy(x, tree, committed);  // refused: verify_greedy: tree: wanted a DraftTree
  pare::draft::verify_greedy(tree, q, committed);  // refused: verify_greedy: logits: .*another rank
  pare::draft::verify_sampled(tree, pare::draft::ChainRule{}, pare::draft::laws_of(x, {}), pare::draft::CoinKey{}, 0, committed);  // refused: verify_sampled: wanted
  wide_head.latents_of(x, y);  // refused: draft::latents_of: wanted hidden of float .double for a head
  conversion_error(x, x + x, x, xd);  // refused: conversion_error: up: .*an expression
  score_features(x, labels, {.alpha = 1});  // refused: score_features: after labels: wanted Score
}
// clang-format on
