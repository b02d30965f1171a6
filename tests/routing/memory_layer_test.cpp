// SPDX-License-Identifier: Apache-2.0
// Whole memory layers, PEER and UltraMemV2, against sums in double; products with gathered rows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <pare/routing/memory/peer.hpp>
#include <pare/routing/memory/ultra_memory_block.hpp>
#include <pare/transformer/dense_linear.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace routing_memory_layer_test {
namespace {

using pare::bf16;
using pare::f16;
using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::routing::gather_dots;
using pare::routing::HitWeight;
using pare::routing::peer;
using pare::routing::PeerExperts;
using pare::routing::PeerOptions;
using pare::routing::TuckerKeys;
using pare::routing::ultra_memory;
using pare::routing::UltraMemory;
using pare::routing::UltraMemoryLayers;
using pare::routing::UltraMemoryOptions;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;

template <class T>
double wide(T x) {
  return static_cast<double>(static_cast<pare::compute_t<T>>(x));
}
double gelu(double x) { return x / 2 * (1 + std::erf(x / std::sqrt(2.0))); }

template <class S>
RowMatrix<S> stored(const RowMatrix<pare::compute_t<S>>& from) {
  RowMatrix<S> to(from.rows(), from.cols());
  for (Index i = 0; i < from.size(); ++i) to.data()[i] = static_cast<S>(from.data()[i]);
  return to;
}

/// A layer of 6^2 experts and two heads, whose keys and queries are whole numbers: which experts
/// are found is exact.
template <class S>
struct Peer {
  using T = pare::compute_t<S>;
  static constexpr Index rows = 13, heads = 2, n = 6, half = 3, dim = 37, outputs = 21, k = 4;

  RowMatrix<T> x = random_matrix<RowMatrix<T>>(rows, dim, 1);
  RowMatrix<T> queries =
      (random_matrix<RowMatrix<T>>(rows, heads * 2 * half, 2) * T(9)).array().round().matrix() *
      T(0.125);
  RowMatrix<T> keys =
      (random_matrix<RowMatrix<T>>(heads * 2 * n, half, 3) * T(9)).array().round().matrix();
  RowMatrix<S> down = stored<S>(random_matrix<RowMatrix<T>>(n * n, dim, 4)),
               up = stored<S>(random_matrix<RowMatrix<T>>(n * n, outputs, 5));

  TensorView<const T, 3> q() const {
    return {queries.data(), {rows, heads, 2 * half}, {heads * 2 * half, 2 * half, 1}};
  }
  TensorView<const T, 4> t() const {
    return {keys.data(), {heads, 2, n, half}, {2 * n * half, n * half, half, 1}};
  }
  PeerExperts<S> experts() const { return {pare::const_view(down), pare::const_view(up)}; }
  template <class B>
  RowMatrix<T> run(const B& backend, const PeerOptions& options) const {
    RowMatrix<T> y(rows, outputs);
    peer(backend, x, q(), t(), experts(), y, pare::transformer::Gelu{}, options);
    return y;
  }

  RowMatrix<double> wanted(HitWeight weight) const {
    RowMatrix<double> y = RowMatrix<double>::Zero(rows, outputs);
    for (Index r = 0; r < rows; ++r)
      for (Index h = 0; h < heads; ++h) {
        std::vector<std::pair<double, Index>> all;
        for (Index slot = 0; slot < n * n; ++slot) {
          double score = 0;
          for (Index c = 0; c < half; ++c)
            score += wide(q()(r, h, c)) * wide(t()(h, 0, slot / n, c)) +
                     wide(q()(r, h, half + c)) * wide(t()(h, 1, slot % n, c));
          all.emplace_back(-score, slot);
        }
        std::sort(all.begin(), all.end());
        double sum = 0;
        for (Index j = 0; j < k; ++j) sum += std::exp(-all[static_cast<std::size_t>(j)].first);
        for (Index j = 0; j < k; ++j) {
          const auto [minus, slot] = all[static_cast<std::size_t>(j)];
          double dot = 0;
          for (Index c = 0; c < dim; ++c) dot += wide(down(slot, c)) * wide(x(r, c));
          const double g =
              weight == HitWeight::Softmax ? std::exp(-minus) / sum : std::max(-minus, 0.0);
          for (Index c = 0; c < outputs; ++c) y(r, c) += g * gelu(dot) * wide(up(slot, c));
        }
      }
    return y;
  }
};

// Products of up to 37 numbers below 1 are off by at most 40 u times their size, below 37; a score
// is below 100, and 8 hits are added up: u times 40 x 37 x 8 x 100 at most, of which 1 % is seen.
template <class S>
void expect_peer() {
  using T = pare::compute_t<S>;
  const Peer<S> layer;
  const double u = static_cast<double>(std::numeric_limits<T>::epsilon()) / 2;
  for (const HitWeight weight : {HitWeight::Softmax, HitWeight::Relu}) {
    const PeerOptions options{.k = 4, .weight = weight};
    const RowMatrix<double> wanted = layer.wanted(weight);
    const double bound = 40 * 37 * 8 * u * (weight == HitWeight::Softmax ? 1 : 100);
    const RowMatrix<T> y = layer.run(pare::simd, options);
    EXPECT_LE((y.template cast<double>() - wanted).cwiseAbs().maxCoeff(), bound);
    EXPECT_LE((layer.run(pare::reference, options).template cast<double>() - wanted)
                  .cwiseAbs()
                  .maxCoeff(),
              bound);
    EXPECT_TRUE((layer.run(pare::simd.threads(2), options).array() == y.array()).all());
    EXPECT_GT(wanted.cwiseAbs().maxCoeff(), 0.01);
  }
}

TEST(Peer, AddsUpTheNeuronsThatAreFound) {
  expect_peer<float>();
  expect_peer<double>();
  expect_peer<bf16>();
  expect_peer<f16>();
}

TEST(Peer, KeepsNaNInItsRow) {
  Peer<float> layer;
  const RowMatrix<float> before = layer.run(pare::simd, {.k = 4});
  layer.x(3, 5) = std::nanf("");
  layer.queries(7, 2) = std::nanf("");
  const RowMatrix<float> y = layer.run(pare::simd, {.k = 4});
  for (Index r = 0; r < y.rows(); ++r) {
    if (r == 3 || r == 7)
      EXPECT_TRUE(pare::is_nan(y(r, 0)));
    else
      EXPECT_TRUE((y.row(r).array() == before.row(r).array()).all());
  }
}

/// A memory of 5^2 slots by Tucker keys of rank 2 in a table of 31 rows.
template <class S>
struct Ultra {
  using T = pare::compute_t<S>;
  static constexpr Index rows = 9, inputs = 11, heads = 2, n = 5, half = 4, pre = 19, dim = 34,
                         outputs = 7, k = 3, slots = 31;

  RowMatrix<T> x = random_matrix<RowMatrix<T>>(rows, inputs, 1);
  RowMatrix<T> keys = random_matrix<RowMatrix<T>>(heads * 2 * n, half * 2, 2),
               cores = random_matrix<RowMatrix<T>>(2, 4, 3);
  std::vector<T> u{T(0.8), T(-0.6)}, v{T(0.6), T(0.8)};
  RowMatrix<S> pre_values = stored<S>(random_matrix<RowMatrix<T>>(slots, pre, 4)),
               values = stored<S>(random_matrix<RowMatrix<T>>(slots, dim, 5));
  RowMatrix<T> gain = random_matrix<RowMatrix<T>>(1, half, 6),
               bias = random_matrix<RowMatrix<T>>(1, half, 7);
  RowMatrix<T> w_query = random_matrix<RowMatrix<T>>(heads * 2 * half, inputs, 8),
               w_pre = random_matrix<RowMatrix<T>>(pre, inputs, 9),
               w_value = random_matrix<RowMatrix<T>>(outputs, dim, 10);
  pare::transformer::DenseLinear<T> query{w_query}, before{w_pre}, after{w_value};

  TuckerKeys<T> tucker() const {
    const Index line = half * 2;
    return {{keys.data(), {heads, 2, n, half, 2}, {2 * n * line, n * line, line, 2, 1}},
            {cores.data(), {2, 2, 2}, {4, 2, 1}},
            {u.data(), {2}, {1}},
            {v.data(), {2}, {1}}};
  }
  UltraMemory<S> memory(UltraMemoryOptions options) const {
    options.k = k;
    return {tucker(), pare::const_view(pre_values), pare::const_view(values), options};
  }
  UltraMemoryLayers<pare::transformer::DenseLinear<T>> layers() const {
    return {query, before, after, {gain.data(), {half}, {1}}, {bias.data(), {half}, {1}}};
  }
};

/// x W^T in double.
template <class L, class M>
RowMatrix<double> product(const L& layer, const M& x) {
  RowMatrix<double> w(layer.outputs(), layer.inputs());
  for (Index i = 0; i < w.rows(); ++i)
    for (Index j = 0; j < w.cols(); ++j) w(i, j) = wide(layer.weights()(i, j));
  return x.template cast<double>() * w.transpose();
}

/// The block as its page writes it. Hits are those of the search on its queries, which has a test
/// of its own.
template <class S>
RowMatrix<double> wanted_block(const Ultra<S>& a, const UltraMemoryOptions& options) {
  using T = typename Ultra<S>::T;
  RowMatrix<double> q = product(a.query, a.x);
  for (Index r = 0; r < q.rows(); ++r)
    for (Index part = 0; part < 2 * a.heads; ++part) {
      auto line = q.row(r).segment(part * a.half, a.half);
      const double mean = line.mean();
      const double variance = (line.array() - mean).square().mean();
      line = ((line.array() - mean) / std::sqrt(variance + 1e-5) *
                  a.gain.template cast<double>().array() +
              a.bias.template cast<double>().array())
                 .matrix();
    }
  const RowMatrix<T> rounded = q.template cast<T>();
  const TensorView<const T, 3> queries{
      rounded.data(), {a.rows, a.heads, 2 * a.half}, {a.heads * 2 * a.half, 2 * a.half, 1}};
  const auto hits = search_tucker_keys(pare::reference, queries, a.tucker(), a.k);
  const RowMatrix<double> p = product(a.before, a.x);
  RowMatrix<double> out = RowMatrix<double>::Zero(a.rows, a.dim);
  for (Index r = 0; r < a.rows; ++r)
    for (Index j = 0; j < a.heads * a.k; ++j) {
      const Index slot = hits.ids(r, j);
      const Index shuffled = options.shuffle.size() > 0 ? Index{options.shuffle[slot]} : slot;
      const Index row = (shuffled % options.group_slots.value_or(25) + options.offset) % a.slots;
      double pre = 0;
      for (Index c = 0; c < a.pre; ++c) pre += wide(a.pre_values(row, c)) * p(r, c);
      if (options.gelu) pre = gelu(pre);
      for (Index c = 0; c < a.dim; ++c)
        out(r, c) += wide(hits.scores(r, j * 2 + c / 17)) * pre * wide(a.values(row, c));
    }
  return product(a.after, out);
}

template <class S>
void expect_block(double bound) {
  using T = pare::compute_t<S>;
  const Ultra<S> a;
  for (const bool plain : {true, false}) {
    UltraMemoryOptions options;
    if (!plain) {
      options.gelu = true;
      options.shuffle = pare::Permutation::random(25, 3);
      options.group_slots = 20;
      options.offset = 17;
    }
    const RowMatrix<double> wanted = wanted_block(a, options);
    const auto memory = a.memory(options);
    const auto expect = [&](const auto& backend) {
      RowMatrix<T> y(a.rows, a.outputs);
      ultra_memory(backend, a.x, a.layers(), memory, y);
      EXPECT_LE((y.template cast<double>() - wanted).cwiseAbs().maxCoeff(),
                bound * wanted.cwiseAbs().maxCoeff());
      return y;
    };
    expect(pare::reference);
    const RowMatrix<T> y = expect(pare::simd);
    EXPECT_TRUE((expect(pare::simd.threads(2)).array() == y.array()).all());
    RowMatrix<T> left_out(a.rows, a.outputs);
    ultra_memory(a.x, a.layers(), memory, left_out);
    EXPECT_TRUE((left_out.array() == y.array()).all());
  }
}

// Eight steps of sums of up to 34 terms, of cores and norms of numbers near 1: below 2000 u.
TEST(UltraMemory, IsWhatItsPageWrites) {
  expect_block<double>(2000 * 0x1p-53);
  expect_block<float>(2000 * 0x1p-24);
  expect_block<bf16>(2000 * 0x1p-24);
}

TEST(Memories, AllocateNothingOnceTheirWorkspaceHasGrown) {
  const Peer<float> layer;
  pare::Workspace workspace;
  RowMatrix<float> y(layer.rows, layer.outputs);
  const auto expect = [&](const auto& backend) {
    long before = 0;
    for (int turn = 0; turn < 3; ++turn) {
      before = pare::testing::allocations;
      peer(backend, layer.x, layer.q(), layer.t(), layer.experts(), y, pare::transformer::Gelu{},
           {.k = 4});
    }
    EXPECT_EQ(pare::testing::allocations, before);
  };
  expect(pare::simd.with(workspace));
  const Ultra<bf16> ultra;
  const auto memory = ultra.memory({.gelu = true});
  RowMatrix<float> out(ultra.rows, ultra.outputs);
  long before = 0;
  for (int turn = 0; turn < 3; ++turn) {
    before = pare::testing::allocations;
    ultra_memory(pare::simd.with(workspace), ultra.x, ultra.layers(), memory, out);
  }
  EXPECT_EQ(pare::testing::allocations, before);
}

template <class S>
void expect_dots(double bound) {
  using T = pare::compute_t<S>;
  for (const Index dim : {1, 15, 131}) {
    const RowMatrix<S> table = stored<S>(random_matrix<RowMatrix<T>>(20, dim, 1));
    const auto x = random_matrix<RowMatrix<T>>(9, dim, 2);
    RowMatrix<Index> ids(9, 6);
    for (Index i = 0; i < ids.size(); ++i) ids.data()[i] = i * i % 20;
    RowMatrix<T> out(9, 6), one(9, 6);
    gather_dots(table, ids, x, out);
    gather_dots(pare::reference, table, ids, x, one);
    for (Index r = 0; r < 9; ++r)
      for (Index j = 0; j < 6; ++j) {
        double sum = 0;
        for (Index c = 0; c < dim; ++c) sum += wide(table(ids(r, j), c)) * wide(x(r, c));
        EXPECT_NEAR(wide(out(r, j)), sum, bound);
        EXPECT_NEAR(wide(one(r, j)), sum, bound);
      }
  }
}

// Up to 131 products of numbers up to 1, in sums of at most 140 steps.
TEST(GatherDots, MultiplyRowsOfATable) {
  expect_dots<float>(140 * 131 * 0x1p-24);
  expect_dots<double>(140 * 131 * 0x1p-53);
  expect_dots<bf16>(140 * 131 * 0x1p-24);
  expect_dots<f16>(140 * 131 * 0x1p-24);
}

TEST(Memories, OfNoRowsAreNoWork) {
  const Peer<float> a;
  const RowMatrix<Index> ids(0, 5);
  const RowMatrix<float> x(0, a.dim);
  RowMatrix<float> dots(0, 5), y(0, a.outputs);
  const Ultra<float> u;
  const auto memory = u.memory({});
  const RowMatrix<float> p(0, u.pre), inputs(0, u.inputs);
  RowMatrix<float> out(0, u.dim), from_block(0, u.outputs);
  const auto expect = [&](const auto& backend) {
    gather_dots(backend, a.down, ids, x, dots);
    peer(backend, x, TensorView<const float, 3>{nullptr, {0, a.heads, 2 * a.half}, {12, 6, 1}},
         a.t(), a.experts(), y, pare::transformer::Gelu{}, {.k = 4});
    memory.apply(backend, TensorView<const float, 3>{nullptr, {0, u.heads, 2 * u.half}, {16, 8, 1}},
                 pare::const_view(p), pare::to_view(out));
    ultra_memory(backend, inputs, u.layers(), memory, from_block);
  };
  expect(pare::simd);
  expect(pare::reference);
}

TEST(Peer, RefusesWhatDoesNotFit) {
  const Peer<float> a;
  RowMatrix<float> y = RowMatrix<float>::Zero(a.rows, a.outputs);
  const auto call = [&](const auto& x, const auto& experts, auto&& to, const PeerOptions& options,
                        const char* argument) {
    refuses_and_leaves_alone(
        [&] { peer(x, a.q(), a.t(), experts, to, pare::transformer::Gelu{}, options); },
        "routing::peer", argument, y);
  };
  const PeerOptions right{.k = 4};
  call(RowMatrix<float>::Zero(13, 36).eval(), a.experts(), y, right, "x");
  call(RowMatrix<float>::Zero(12, 37).eval(), a.experts(), y, right, "x");
  call(Eigen::MatrixXf(a.x), a.experts(), y, right, "x");
  auto experts = a.experts();
  experts.down.extent[0] = 35;
  call(a.x, experts, y, right, "experts.down");
  experts = a.experts();
  experts.up.extent[0] = 35;
  call(a.x, experts, y, right, "experts.up");
  call(a.x, a.experts(), TensorView<float, 2>{y.data(), {13, 20}, {21, 1}}, right, "y");
  call(a.x, a.experts(), y, {.k = 4, .weight = static_cast<HitWeight>(7)}, "options.weight");
  experts = a.experts();
  experts.up = pare::const_view(y);
  experts.up.extent[0] = 36;
  experts.up.stride[0] = 0;
  call(a.x, experts, y, right, "y");
  refusal([&] { peer(a.x, a.q(), a.t(), a.experts(), y, pare::transformer::Gelu{}, {.k = 7}); },
          "routing::peer", "k");
  RowMatrix<Index> ids = RowMatrix<Index>::Constant(13, 2, 36);
  RowMatrix<float> out = RowMatrix<float>::Zero(13, 2);
  const auto dots = [&](const auto& x, auto&& to, const char* argument) {
    refuses_and_leaves_alone([&] { gather_dots(a.down, ids, x, to); }, "routing::gather_dots",
                             argument, out);
  };
  dots(a.x, out, "ids");
  ids.setConstant(35);
  dots(out, out, "x");
  dots(a.x, y, "out");
}

TEST(UltraMemory, RefusesWhatDoesNotFit) {
  const Ultra<float> a;
  const auto make = [&](const UltraMemoryOptions& options, Index slots, Index dim,
                        const char* argument) {
    auto values = pare::const_view(a.values), pre = pare::const_view(a.pre_values);
    values.extent = {slots, dim};
    if (slots == 0) pre.extent[0] = 0;
    refusal([&] { UltraMemory<float>(a.tucker(), pre, values, options); }, "routing::UltraMemory",
            argument);
  };
  UltraMemoryOptions options{.k = 3};
  make(options, 31, 33, "values");
  make(options, 0, 34, "values");
  make(options, 30, 34, "pre_values");
  options.offset = 31;
  make(options, 31, 34, "options.offset");
  options.offset = 0;
  options.group_slots = 26;
  make(options, 31, 34, "options.group_slots");
  options.group_slots.reset();
  options.shuffle = pare::Permutation::identity(24);
  make(options, 31, 34, "options.shuffle");
  refusal(
      [&] {
        UltraMemory<float>(a.tucker(), pare::const_view(a.pre_values), pare::const_view(a.values),
                           {.k = 6});
      },
      "routing::UltraMemory", "k");
  RowMatrix<float> y = RowMatrix<float>::Zero(a.rows, a.outputs);
  const auto memory = a.memory({});
  const auto call = [&](const auto& layers, TensorView<const float, 2> x, const char* argument) {
    refuses_and_leaves_alone([&] { ultra_memory(pare::simd, x, layers, memory, pare::to_view(y)); },
                             "routing::ultra_memory", argument, y);
  };
  using Layers = UltraMemoryLayers<pare::transformer::DenseLinear<float>>;
  const auto right = a.layers();
  const auto x = pare::const_view(a.x);
  call(Layers{a.before, a.before, a.after, right.gain, right.bias}, x, "layers.query");
  call(Layers{a.query, a.query, a.after, right.gain, right.bias}, x, "layers.pre");
  call(Layers{a.query, a.after, a.after, right.gain, right.bias}, x, "layers.pre");
  call(Layers{a.query, a.before, a.before, right.gain, right.bias}, x, "layers.value");
  call(Layers{a.query, a.before, a.after, {a.gain.data(), {3}, {1}}, right.bias}, x, "layers.gain");
  call(Layers{a.query, a.before, a.after, right.gain, {a.gain.data(), {3}, {1}}}, x, "layers.bias");
  call(right, TensorView<const float, 2>{a.x.data(), {9, 10}, {11, 1}}, "x");
  const Index rows = Index{1} << 58;  // whose queries no memory holds
  refusal(
      [&] {
        ultra_memory(pare::simd, TensorView<const float, 2>{a.x.data(), {rows, 11}, {0, 1}}, right,
                     memory, TensorView<float, 2>{y.data(), {rows, 7}, {7, 1}});
      },
      "routing::ultra_memory", "x");
}

/// A value of a view's scalar that lies where the output lies.
template <class T, std::size_t Rank>
TensorView<const T, Rank> moved(TensorView<const T, Rank> view, const RowMatrix<float>& to) {
  view.data = to.data();
  return view;
}

TEST(UltraMemory, RefusesOutputsOverWhatItReads) {
  const Ultra<float> a;
  const auto right = a.tucker();
  const auto pre = pare::const_view(a.pre_values), values = pare::const_view(a.values);
  // As large as the largest of what is read: its first elements are the output.
  const RowMatrix<float> memory = RowMatrix<float>::Constant(40, 40, 0.5f);
  RowMatrix<float> y = memory;
  const auto p = random_matrix<RowMatrix<float>>(a.rows, a.pre, 1);
  const RowMatrix<float> q = random_matrix<RowMatrix<float>>(a.rows, 16, 2);
  const TensorView<const float, 3> queries{q.data(), {a.rows, 2, 8}, {16, 8, 1}};
  const auto expect = [&](const UltraMemory<float>& over, const char* input) {
    const auto refused = [&](const char* function, const char* output, const auto& call) {
      refuses_and_leaves_alone(call, function, output, y);
      try {
        call();
      } catch (const std::invalid_argument& error) {
        EXPECT_TRUE(std::string(error.what()).ends_with(std::string("apart from ") + input))
            << error.what();
      }
    };
    refused("routing::UltraMemory::apply", "out", [&] {
      over.apply(pare::simd, queries, pare::const_view(p),
                 TensorView<float, 2>{y.data(), {a.rows, a.dim}, {a.dim, 1}});
    });
    refused("routing::ultra_memory", "y", [&] {
      ultra_memory(pare::simd, a.x, a.layers(), over,
                   TensorView<float, 2>{y.data(), {a.rows, a.outputs}, {a.outputs, 1}});
    });
  };
  auto keys = right;
  keys.keys = moved(right.keys, y);
  expect({keys, pre, values, {.k = 3}}, "keys");
  keys = right;
  keys.cores = moved(right.cores, y);
  expect({keys, pre, values, {.k = 3}}, "cores");
  keys = right;
  keys.u = moved(right.u, y);
  expect({keys, pre, values, {.k = 3}}, "u");
  keys = right;
  keys.v = moved(right.v, y);
  expect({keys, pre, values, {.k = 3}}, "v");
  expect({right, moved(pre, y), values, {.k = 3}}, "pre_values");
  expect({right, pre, moved(values, y), {.k = 3}}, "values");
  const auto memory_of = a.memory({});
  for (const bool gain : {true, false}) {
    auto layers = a.layers();
    (gain ? layers.gain : layers.bias).data = y.data();
    refuses_and_leaves_alone(
        [&] {
          ultra_memory(pare::simd, a.x, layers, memory_of,
                       TensorView<float, 2>{y.data(), {a.rows, a.outputs}, {a.outputs, 1}});
        },
        "routing::ultra_memory", "y", y);
  }
  const auto apply = [&](TensorView<const float, 3> from, TensorView<const float, 2> with) {
    refuses_and_leaves_alone(
        [&] {
          memory_of.apply(pare::simd, from, with,
                          TensorView<float, 2>{y.data(), {a.rows, a.dim}, {a.dim, 1}});
        },
        "routing::UltraMemory::apply", "out", y);
  };
  apply(moved(queries, y), pare::const_view(p));
  apply(queries, moved(pare::const_view(p), y));
}

}  // namespace
}  // namespace routing_memory_layer_test
