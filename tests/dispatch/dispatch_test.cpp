// SPDX-License-Identifier: Apache-2.0
#include <pare/attention/attend.hpp>
#include <pare/attention/global_query.hpp>
#include <pare/dispatch.hpp>
#include <pare/draft/low_rank_head.hpp>
#include <pare/draft/stored_head.hpp>
#include <pare/feature/leap/divergence.hpp>
#include <pare/feature/leap/mix.hpp>
#include <pare/graph/fast_rp.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/spmm.hpp>
#include <pare/projection/project.hpp>
#include <pare/retrieval/objectives/sampled_softmax.hpp>
#include <pare/retrieval/objectives/score_softmax.hpp>
#include <pare/retrieval/objectives/uniformity.hpp>
#include <pare/retrieval/projection.hpp>
#include <pare/retrieval/projection_head.hpp>
#include <pare/retrieval/residual_max_sim.hpp>
#include <pare/retrieval/semantic/child_logits.hpp>
#include <pare/retrieval/semantic/semantic_ids.hpp>
#include <pare/retrieval/top_k_dot.hpp>
#include <pare/sequence/dense_scan.hpp>
#include <pare/sequence/scan.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/gates.hpp>
#include <pare/transformer/norms.hpp>
#include <pare/transformer/quantized_linear.hpp>
#include <pare/transformer/rotary.hpp>
#include <pare/transformer/softmax.hpp>
#include <pare/transformer/structured/two_four_linear.hpp>

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>
#include <array>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "attention/attend_calls.hpp"

namespace dispatch_dispatch_test {
namespace {

using pare::Index;
using pare::projection::SparseProjection;
using RowMajorMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Graph = Eigen::SparseMatrix<float, Eigen::RowMajor>;

/// A ring with chords, weighted.
Graph ring(int nodes) {
  std::vector<Eigen::Triplet<float>> edges;
  for (int u = 0; u < nodes; ++u)
    for (const int step : {1, 7})
      for (const int v : {(u + step) % nodes, (u + nodes - step) % nodes})
        edges.emplace_back(u, v, 1.0f + 0.25f * static_cast<float>((u + v) % 3));
  Graph graph(nodes, nodes);
  graph.setFromTriplets(edges.begin(), edges.end());
  return graph;
}

std::vector<std::string> built_names() {
  std::vector<std::string> names;
  pare::detail::any_built_arch([&](auto tag) {
    names.emplace_back(tag.name);
    return false;
  });
  return names;
}

TEST(Dispatch, PicksTheFirstBuiltArchThatTheProcessorSupports) {
  std::size_t first = 0;
  pare::detail::any_built_arch([&](auto tag) {
    if (pare::cpu_supports(tag)) return true;
    ++first;
    return false;
  });
  EXPECT_EQ(pare::detail::choose_arch(nullptr), first);
  EXPECT_EQ(pare::detail::choose_arch(""), first);
}

TEST(Dispatch, EveryCapIsAnUpperBound) {
  const auto names = built_names();
  for (std::size_t cap = 0; cap < names.size(); ++cap) {
    const std::size_t chosen = pare::detail::choose_arch(names[cap].c_str());
    EXPECT_GE(chosen, cap) << names[cap];
    EXPECT_GE(chosen, pare::detail::choose_arch(nullptr)) << names[cap];
  }
  EXPECT_EQ(pare::detail::choose_arch(names.back().c_str()), names.size() - 1);
}

TEST(Dispatch, AnUnknownCapIsRefusedByName) {
  try {
    pare::detail::choose_arch("avx1024");
    FAIL() << "accepted";
  } catch (const std::invalid_argument& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("PARE_SIMD_LEVEL"), std::string::npos) << message;
    EXPECT_NE(message.find("avx1024"), std::string::npos) << message;
    EXPECT_NE(message.find(built_names().back()), std::string::npos) << message;
  }
}

TEST(Dispatch, ReportsTheArchThatRuns) {
  EXPECT_EQ(pare::dispatched_arch(), built_names()[pare::detail::chosen_arch()]);
}

TEST(Dispatch, ProjectionIsTheSameBitsAsTheBaseline) {
  const SparseProjection omega{.input_dim = 300, .output_dim = 70, .density = 0.1, .seed = 5};
  const RowMajorMatrix x = RowMajorMatrix::Random(45, omega.input_dim);
  RowMajorMatrix picked(x.rows(), omega.output_dim), baseline = picked;
  pare::projection::project(pare::dispatched, x, omega, picked);
  pare::projection::project(pare::simd, x, omega, baseline);
  EXPECT_TRUE((picked.array() == baseline.array()).all());
  RowMajorMatrix threaded(x.rows(), omega.output_dim);
  pare::projection::project(pare::dispatched.threads(3), x, omega, threaded);
  EXPECT_TRUE((picked.array() == threaded.array()).all());
  const Graph sparse = ring(static_cast<int>(omega.input_dim));
  RowMajorMatrix of_sparse(omega.input_dim, omega.output_dim), sparse_baseline = of_sparse;
  pare::projection::project(pare::dispatched, sparse, omega, of_sparse);
  pare::projection::project(pare::simd, sparse, omega, sparse_baseline);
  EXPECT_TRUE((of_sparse.array() == sparse_baseline.array()).all());
}

TEST(Dispatch, ProductAndEmbeddingAgreeWithTheReference) {
  const Graph graph = ring(150);
  const RowMajorMatrix x = RowMajorMatrix::Random(150, 37);
  RowMajorMatrix picked(150, 37), expected = picked;
  pare::linalg::spmm(pare::dispatched, graph, x, picked);
  pare::linalg::spmm(pare::reference, graph, x, expected);
  // Four terms of magnitude below 1.5: a few roundings of 2^-24 relative to 6.
  EXPECT_LE((picked - expected).cwiseAbs().maxCoeff(), 6 * 4 * 0x1p-24f);

  const pare::graph::FastRpOptions options{.dim = 24, .weights = {1, 0.5}, .seed = 3};
  const auto embedding = pare::graph::fast_rp(pare::dispatched, graph, options);
  const auto definition = pare::graph::fast_rp(pare::reference, graph, options);
  EXPECT_LE((embedding - definition).norm(), 1e-5f * definition.norm());
}

/// C = A B of one pair of scalars: small integers, whose sums every arch gets exactly, so that the
/// arch that was picked and the baseline agree, on threads as well.
template <class S, class T>
void expect_product_agrees() {
  const Index rows = 61, depth = 531, columns = 147;
  std::vector<S> a, b;
  for (Index i = 0; i < rows * depth; ++i) a.push_back(S(static_cast<float>(i * 7 % 11 - 5)));
  for (Index i = 0; i < depth * columns; ++i) b.push_back(S(static_cast<float>(i * 5 % 13 - 6)));
  const pare::TensorView<const S, 2> left{a.data(), {rows, depth}, {depth, 1}};
  const pare::TensorView<const S, 2> right{b.data(), {depth, columns}, {1, depth}};
  const std::vector<T> scale(static_cast<std::size_t>(rows), T(0.5));
  for (const T* row_scale : {static_cast<const T*>(nullptr), scale.data()}) {
    const auto product = [&](const auto& backend) {
      std::vector<T> c(static_cast<std::size_t>(rows * columns));
      pare::Workspace workspace;
      pare::linalg::multiply(keeping(backend, workspace), left, right,
                             pare::TensorView<T, 2>{c.data(), {rows, columns}, {columns, 1}},
                             {.row_scale = row_scale});
      return c;
    };
    const std::vector<T> picked = product(pare::dispatched);
    EXPECT_EQ(picked, product(pare::simd));
    EXPECT_EQ(picked, product(pare::simd_for<pare::arch::scalar>{}));
    EXPECT_EQ(picked, product(pare::dispatched.threads(3)));
    T sum = 0;
    for (Index d = 0; d < depth; ++d)
      sum +=
          static_cast<T>((depth + d) * 7 % 11 - 5) * static_cast<T>((2 * depth + d) * 5 % 13 - 6);
    EXPECT_EQ(picked[static_cast<std::size_t>(columns + 2)], row_scale != nullptr ? sum / 2 : sum);
  }
}

TEST(Dispatch, MatrixProductIsTheSameBitsAsTheBaseline) {
  expect_product_agrees<float, float>();
  expect_product_agrees<double, double>();
  expect_product_agrees<float, double>();
  expect_product_agrees<pare::bf16, float>();
  expect_product_agrees<pare::bf16, double>();
  expect_product_agrees<pare::f16, float>();
  expect_product_agrees<pare::f16, double>();
}

/// Attention of one storage scalar: the arch that was picked against the reference, and on threads.
template <class S>
void expect_attention_agrees(double tolerance) {
  const pare::testing::Inputs<S> x(pare::testing::Sizes{2, 6, 2, 70, 150, 40, 24});
  const auto wanted = pare::testing::attended(pare::reference, x, {.causal = true});
  const auto picked = pare::testing::attended(pare::dispatched, x, {.causal = true});
  EXPECT_LE(pare::testing::difference(picked, wanted), tolerance);
  EXPECT_TRUE(same_outputs(
      pare::testing::attended(pare::dispatched.threads(3), x, {.causal = true}), picked));
}

TEST(Dispatch, AttentionAgreesWithTheReference) {
  // As in tests/attention/backends.hpp: twice the rounding of float, and of weights that the arch
  // may round to bf16.
  expect_attention_agrees<float>(2e-5);
  expect_attention_agrees<pare::bf16>(2e-2);
}

/// The mix of fields of several widths, by rows: by columns in turns, gathered, and in runs.
template <class T>
void expect_mix_agrees() {
  using namespace pare::feature;
  using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const FieldLayout layout({1, 1, 3, 40, 1});
  const Donors donors(DonorPolicy::Uniform, 1, 2, 77, layout);
  const std::vector<double> gates{0, 0.25, 0.5, 0.75, 1};
  const Matrix x = Matrix::Random(77, layout.dim()), up = Matrix::Random(77, layout.dim());
  const auto both_passes = [&](const auto& backend, MixGradients& gradients) {
    Matrix both(2 * x.rows(), x.cols());
    mix_forward(backend, x, gates, donors, both.topRows(77));
    mix_backward(backend, x, gates, donors, up, both.bottomRows(77), gradients,
                 {.detach = false, .norms = true});
    return both;
  };
  MixGradients picked, wanted;
  const Matrix difference =
      both_passes(pare::dispatched, picked) - both_passes(pare::reference, wanted);
  // A few roundings of numbers below 2, and sums of some 3000 products below 2.
  constexpr double u = std::numeric_limits<T>::epsilon();
  EXPECT_LE(static_cast<double>(difference.cwiseAbs().maxCoeff()), 8 * u);
  for (std::size_t j = 0; j < gates.size(); ++j) {
    EXPECT_NEAR(picked.gates[j], wanted.gates[j], 3000 * 84 * u);
    EXPECT_NEAR(picked.divergence.norms[j], wanted.divergence.norms[j], 40 * 84 * u);
  }
  const auto closed = divergence_closed(pare::dispatched, layout, x, DonorPolicy::Shift);
  EXPECT_NEAR(closed[3], divergence_closed(pare::reference, layout, x, DonorPolicy::Shift)[3],
              1e-12);
}

TEST(Dispatch, MixAgreesWithTheReference) {
  expect_mix_agrees<float>();
  expect_mix_agrees<double>();
}

/// Heads of many values and of one, a dense transition, and a global query.
template <class S>
void expect_sequences_agree(double tolerance) {
  using T = pare::compute_t<S>;
  const auto numbers = [](auto* list) {
    for (std::size_t i = 0; i < list->size(); ++i)
      (*list)[i] = static_cast<std::remove_reference_t<decltype((*list)[i])>>(
          static_cast<T>((i * 31) % 17) / T(17) - T(0.4));
  };
  const auto outputs = [&](const auto& backend) {
    std::vector<S> x(20 * 3 * 70), keys(20 * 5), y(x.size());
    std::vector<T> a(20 * 3), state(3 * 5 * 70), all;
    numbers(&x), numbers(&keys), numbers(&a);
    const auto keep = [&](const auto& list) {
      for (const auto v : list) all.push_back(static_cast<T>(v));
    };
    const auto tensor = [](auto& list, std::array<pare::Index, 4> e) {
      using X = typename std::remove_reference_t<decltype(list)>::value_type;
      return pare::TensorView<X, 4>{list.data(), e, {e[1] * e[2] * e[3], e[2] * e[3], e[3], 1}};
    };
    for (const pare::Index dim : {70, 1})
      pare::sequence::scan(backend, tensor(x, {1, 20, 3, dim}), tensor(a, {1, 20, 3, 1}),
                           tensor(keys, {1, 20, 1, 5}), tensor(keys, {1, 20, 1, 5}),
                           tensor(state, {1, 3, 5, dim}), tensor(y, {1, 20, 3, dim})),
          keep(y), keep(state);
    pare::RowMatrix<T> model = pare::RowMatrix<T>::Constant(7, 7, T(0.1)), h(1, 7);
    h.setZero();
    const pare::TensorView<const S, 3> tokens{x.data(), {1, 80, 7}, {0, 7, 1}};
    std::vector<T> out(80 * 7);
    pare::sequence::dense_scan(backend, model, model, model, tokens, h,
                               pare::TensorView<T, 3>{out.data(), {1, 80, 7}, {0, 7, 1}});
    keep(out);
    pare::attention::global_query(backend, tokens, model, model,
                                  pare::TensorView<T, 3>{out.data(), {1, 7, 7}, {0, 7, 1}});
    keep(out);
    return all;
  };
  const auto picked = outputs(pare::dispatched), wanted = outputs(pare::reference);
  for (std::size_t i = 0; i < wanted.size(); ++i)
    ASSERT_NEAR(static_cast<double>(picked[i]), static_cast<double>(wanted[i]), tolerance) << i;
}

TEST(Dispatch, SequencesAgreeWithTheReference) {
  expect_sequences_agree<float>(1e-4);
  expect_sequences_agree<double>(1e-12);
  expect_sequences_agree<pare::bf16>(0.02);
  expect_sequences_agree<pare::f16>(0.005);
}

/// Each kernel of rows once, of one storage scalar.
template <class S>
void expect_rows_agree(double tolerance) {
  using namespace pare::transformer;
  using T = pare::compute_t<S>;
  std::vector<S> x(3 * 100);
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<S>(static_cast<T>((i * 31) % 17) / T(4) - T(2));
  const std::vector<T> gain(100, T(0.5));
  const RotaryTable<T> table(rotary_frequencies(96), 8);
  const auto outputs = [&](const auto& backend) {
    std::vector<T> all(3);
    std::vector<S> out(x);
    const pare::TensorView<const S, 2> in{x.data(), {3, 100}, {100, 1}};
    const pare::TensorView<S, 2> y{out.data(), {3, 100}, {100, 1}};
    log_sum_exp(backend, in, all);
    const auto keep = [&] {
      for (const S v : out) all.push_back(static_cast<T>(v));
    };
    rms_norm(backend, in, gain, y), keep();
    layer_norm(backend, in, gain, gain, y), keep();
    softmax(backend, in, y), keep();
    log_softmax(backend, in, y), keep();
    activate(backend, in, y, Gelu{}), keep();
    activate_gated(backend, in, in, y, Silu{}), keep();
    for (const auto layout : {RotaryLayout::Interleaved, RotaryLayout::HalfSplit})
      rotate(backend, pare::TensorView<S, 4>{out.data(), {1, 1, 3, 100}, {0, 0, 100, 1}}, table,
             {.layout = layout, .first_position = 5}),
          keep();
    return all;
  };
  const auto picked = outputs(pare::dispatched), wanted = outputs(pare::reference);
  for (std::size_t i = 0; i < wanted.size(); ++i)
    ASSERT_NEAR(static_cast<double>(picked[i]), static_cast<double>(wanted[i]), tolerance) << i;
}

TEST(Dispatch, RowsOfATransformerAgreeWithTheReference) {
  // Some 20 roundings of numbers below 8, of storage or of what is computed in.
  expect_rows_agree<float>(20 * 8 * 0x1p-24);
  expect_rows_agree<double>(20 * 8 * 0x1p-53);
  expect_rows_agree<pare::bf16>(8 * 0x1p-7);
  expect_rows_agree<pare::f16>(8 * 0x1p-10);
}

/// A layer on rows that run each kernel: numbers below 1/4 times numbers of at most 1, 64 times.
template <class L>
void expect_layer_agrees(const L& layer) {
  for (const Index rows : {2, 60}) {
    std::vector<float> x(static_cast<std::size_t>(rows * 64)),
        picked(static_cast<std::size_t>(rows * 5)), wanted(picked);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>((i * 31) % 17) / 8 - 1;
    const pare::TensorView<const float, 2> in{x.data(), {rows, 64}, {64, 1}};
    layer.apply(pare::dispatched, in, {picked.data(), {rows, 5}, {5, 1}});
    layer.apply(pare::reference, in, {wanted.data(), {rows, 5}, {5, 1}});
    for (std::size_t i = 0; i < wanted.size(); ++i)
      ASSERT_NEAR(picked[i], wanted[i], 66 * 16 * 0x1p-24) << rows << " rows, " << i;
  }
}

template <class Block>
void expect_blocks_agree() {
  std::vector<Block> blocks(10);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    auto* const bytes = reinterpret_cast<unsigned char*>(&blocks[i]);
    for (std::size_t k = 0; k < sizeof(Block); ++k)
      bytes[k] = static_cast<unsigned char>((i + 1) * k);
    blocks[i].d = {static_cast<std::uint8_t>(i),
                   std::is_same_v<Block, pare::kernel::Q8_0> ? 0x14 : 0x20};
    if constexpr (requires { blocks[i].m; }) blocks[i].m = {0, 0x21};
  }
  expect_layer_agrees(pare::transformer::QuantizedLinear<Block>(blocks, 5, 64));
}

TEST(Dispatch, LinearLayersAgreeWithTheReference) {
  const auto dense = []<class S>(S) {
    std::vector<S> w(5 * 64);
    for (std::size_t i = 0; i < w.size(); ++i)
      w[i] = static_cast<S>(static_cast<float>((i * 29) % 15) / 64 - 0.1f);
    expect_layer_agrees(pare::transformer::DenseLinear<S>(
        pare::TensorView<const S, 2>{w.data(), {5, 64}, {64, 1}}));
  };
  dense(0.0f);
  dense(pare::bf16());
  dense(pare::f16());
  const auto two_four = []<class S>(S) {
    std::vector<float> w(5 * 64);
    for (std::size_t i = 0; i < w.size(); ++i)
      w[i] = i % 4 < 2 ? static_cast<float>((i * 29) % 15) / 64 - 0.1f : 0;
    expect_layer_agrees(pare::transformer::TwoFourLinear<S>(
        pare::factor::TwoFour<S>::from(pare::TensorView<const float, 2>{w.data(), {5, 64}, {64, 1}},
                                       pare::factor::TwoFourMask(5, 64))));
  };
  two_four(0.0f);
  two_four(pare::bf16());
  two_four(pare::f16());
  two_four(std::int8_t{});
  expect_blocks_agree<pare::kernel::Q8_0>();
  expect_blocks_agree<pare::kernel::Q4_0>();
  expect_blocks_agree<pare::kernel::Q4_1>();
}

/// Small integers: logits are exact, and ties many.
template <class T, class Head>
void expect_head_agrees(const Head& head) {
  const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> hidden =
      Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>::Constant(3, head.inputs(),
                                                                                  T(2));
  const std::vector<Index> positions{1, 2, 3};
  pare::draft::HeadSummary<T> got, wanted;
  const pare::draft::HeadRequest request{
      .k = 9, .temperature = 50, .noise = pare::GumbelNoise{1}, .positions = positions};
  head.reduce(pare::dispatched.threads(2), hidden, request, got);
  head.reduce(pare::reference, hidden, request, wanted);
  EXPECT_EQ(got.ids, wanted.ids);
  EXPECT_EQ(got.drawn, wanted.drawn);
}

template <class T>
void expect_near_each(const std::vector<T>& got, const std::vector<T>& wanted, double tolerance) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (got[i] == wanted[i]) continue;  // -infinity, too
    ASSERT_NEAR(static_cast<double>(got[i]), static_cast<double>(wanted[i]), tolerance) << i;
  }
}

/// Scores of documents, and the rows that are closest to few and to many queries.
template <class S>
void expect_retrieval_agrees(double tolerance) {
  using namespace pare::retrieval;
  using T = pare::compute_t<S>;
  pare::RowMatrix<S> rows(90, 21);
  for (Index i = 0; i < rows.size(); ++i)
    rows.data()[i] = static_cast<S>(static_cast<T>((i * i) % 19) / T(8) - T(1));
  const std::vector<Index> offsets{0, 1, 1, 60, 90}, some{0, 1, 60, 7};
  const auto outputs = [&](const auto& backend) {
    std::vector<T> all = max_sim(backend, rows.topRows(5), rows, offsets);
    for (const Index queries : {Index{2}, Index{7}}) {
      const auto hits = top_k_dot(backend, rows, rows.topRows(queries), 4);
      all.insert(all.end(), hits.scores.data(), hits.scores.data() + hits.scores.size());
    }
    if constexpr (pare::ComputeScalar<S>) {
      pare::RowMatrix<S> gradient(90, 21), y(90, 21);
      all.push_back(static_cast<S>(uniformity_gradient(backend, rows, gradient)));
      all.insert(all.end(), gradient.data(), gradient.data() + gradient.size());
      all.push_back(static_cast<S>(
          sampled_softmax_gradient(backend, rows.topRows(4), rows, {some, some, {}, {}},
                                   gradient.topRows(4), y, {.temperature = 20})));
      all.push_back(static_cast<S>(score_softmax(backend, rows, gradient)));
      all.insert(all.end(), y.data(), y.data() + y.size());
      using Layer = pare::transformer::DenseLinear<S>;
      const pare::RowMatrix<S> w = rows.topRows(21);
      const auto head = projection_head(Projection<Layer, pare::transformer::Gelu, SameRows>(
                                            Layer(w), {}, std::vector<S>(21, S(0.5))),
                                        GatedProjection<Layer>(Layer(w), Layer(w)));
      head.apply(backend, rows, y);
      all.insert(all.end(), y.data(), y.data() + y.size());
      const auto fit = fit_semantic_ids(backend, rows, {.levels = 1, .clusters = 4, .sweeps = 1});
      all.push_back(static_cast<S>(fit.inertia[0] / 90));
      const auto ids = encode_semantic_ids(backend, fit.codebooks, rows);
      const auto logits =
          child_logits(backend, IdTrie(ids, 90), std::vector<Beam>{{}}, rows.topRows(1), rows);
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  };
  expect_near_each(outputs(pare::dispatched), outputs(pare::reference), tolerance);
  if constexpr (std::is_same_v<S, float>) {
    const auto codes = [&](const auto& backend) {
      const auto codec = fit_residual_codec(backend, rows, {.centroids = 8});
      return residual_max_sim(backend, rows.topRows(5), codec, encode(backend, codec, rows),
                              offsets);
    };
    const auto in_bytes = [&](const auto& backend) {
      const auto bytes = pare::linalg::quantize_rows(backend, rows);
      std::vector<float> all = max_sim(backend, rows.topRows(5), bytes, offsets);
      for (const Index queries : {Index{2}, Index{7}}) {
        const auto hits = top_k_dot(backend, bytes, rows.topRows(queries), 4);
        all.insert(all.end(), hits.scores.data(), hits.scores.data() + hits.scores.size());
      }
      return all;
    };
    expect_near_each(in_bytes(pare::dispatched), in_bytes(pare::reference), 1e-6);
    // Queries are rounded to bytes there.
    expect_near_each(codes(pare::dispatched), codes(pare::reference), 0.2);
  }
}

TEST(Dispatch, RetrievalAgreesWithTheReference) {
  expect_retrieval_agrees<float>(1e-5);
  expect_retrieval_agrees<double>(1e-10);
  expect_retrieval_agrees<pare::bf16>(1e-3);
  expect_retrieval_agrees<pare::f16>(1e-3);
}

TEST(Dispatch, DraftHeadsAgreeWithTheReference) {
  RowMajorMatrix w(300, 16);
  for (Index i = 0; i < w.size(); ++i) w.data()[i] = static_cast<float>((i * 29) % 15 - 7);
  const RowMajorMatrix down = w.topRows(6), up = w.leftCols(6);
  expect_head_agrees<float>(pare::draft::DenseHead<float>(w));
  expect_head_agrees<double>(pare::draft::DenseHead<double>(w));
  expect_head_agrees<float>(pare::draft::LowRankHead<pare::bf16>(down, up));
  expect_head_agrees<float>(pare::draft::LowRankHead<pare::f16>(down, up));
  RowMajorMatrix bytes = up;
  bytes.col(0).setConstant(127);  // scales of 1
  expect_head_agrees<float>(pare::draft::QuantizedHead(bytes));
  expect_head_agrees<float>(pare::draft::StoredHead<float>(as_const(pare::to_view(w))));
}

TEST(Dispatch, ThreadsBelowOneAreRefused) {
  EXPECT_THROW(pare::dispatched.threads(0), std::invalid_argument);
}

}  // namespace
}  // namespace dispatch_dispatch_test
