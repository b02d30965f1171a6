// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rows routed to experts: the grouped product, its plan, and memory layers.
///
/// `of_limit` is of the slower of reading the weights of the experts that rows chose (dram_read)
/// and the products of pairs of bf16 (dot_bf16), both on as many threads as the row has. `vs_loop`
/// is a loop over experts, rows gathered and put back around `layer.apply`, without a plan;
/// `vs_torch_loop` and `vs_torch_grouped` are torch's own, in bf16: index_select and mm per expert,
/// and torch._grouped_mm where the build has it. `plan_share` is the plan's part of the whole. Of
/// experts that share projections in groups, `vs_plain` is the same through grouped_multiply of
/// layers, each with the projection of its group, and `vs_dense` experts without factors.

#include "counters.hpp"
#include "linear_data.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/scratch.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/routing/combine.hpp>
#include <pare/routing/gates.hpp>
#include <pare/routing/grouped_multiply.hpp>
#include <pare/routing/latent_experts.hpp>
#include <pare/routing/memory/gather_values.hpp>
#include <pare/routing/memory/peer.hpp>
#include <pare/routing/memory/product_key_search.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::routing;
using pare::bf16;
using pare::Index;
using Layer = pare::transformer::DenseLinear<bf16>;

constexpr Index experts = 96, inputs = 1536, outputs = 768;

/// The layers of all rows of the area, side by side as in a file: 226 MB.
struct Experts {
  pare::AlignedBuffer<bf16> weights;
  std::vector<Layer> layers;

  Experts() {
    const pare::transformer::DenseLinearOptions rounded{.round_inputs = true,
                                                        .round_few_rows = true};
    bf16* const w = weights.resize(static_cast<std::size_t>(experts * outputs * inputs));
    SplitMix64 random(1);
    for (Index i = 0; i < experts * outputs * inputs; ++i)
      w[i] = static_cast<bf16>(static_cast<float>(random.unit()) - 0.5f);
    for (Index e = 0; e < experts; ++e)
      layers.emplace_back(
          pare::TensorView<const bf16, 2>{w + e * outputs * inputs, {outputs, inputs}, {inputs, 1}},
          rounded);
  }
};

struct GroupedData {
  explicit GroupedData(Index rows)
      : x(uniform_matrix(rows, inputs, 2)),
        logits(uniform_matrix(rows, experts, 3)),
        parts(RowMatrix::Zero(rows, outputs)),
        gathered(RowMatrix::Zero(rows, inputs)),
        products(RowMatrix::Zero(rows, outputs)),
        looped(RowMatrix::Zero(rows, outputs)) {
    pare::RowMatrix<Index> ids = route(logits, TopOne{}).ids;
    for (Index shift = 0; shift < experts; shift += 8) {
      plans.emplace_back(ids, experts);
      for (Index r = 0; r < rows; ++r) ids(r, 0) = (ids(r, 0) + 8) % experts;
    }
    for (Index e = 0; e < experts; ++e) used += plans[0].rows_of(e).empty() ? 0 : 1;
  }

  /// Of the plans in turn, so that few experts do not stay in a cache.
  template <class B>
  void run(const B& backend) {
    grouped_multiply(backend, x, next_plan(), all().layers, parts);
  }
  const RoutePlan& next_plan() { return plans[next++ % plans.size()]; }
  /// As a program without a plan: rows of an expert gathered, its layer, results put back; all in
  /// memory that is there.
  template <class B>
  void run_loop(const B& backend) {
    const RoutePlan& plan = next_plan();
    for (Index e = 0; e < experts; ++e) {
      const auto rows = plan.rows_of(e);
      if (rows.empty()) continue;
      const auto count = static_cast<Index>(rows.size());
      for (Index i = 0; i < count; ++i)
        std::copy_n(&x(rows[static_cast<std::size_t>(i)], 0), inputs, &gathered(i, 0));
      all().layers[static_cast<std::size_t>(e)].apply(
          backend, pare::rows_of(pare::const_view(gathered), 0, count),
          pare::rows_of(pare::to_view(products), 0, count));
      for (Index i = 0; i < count; ++i)
        std::copy_n(&products(i, 0), outputs, &looped(rows[static_cast<std::size_t>(i)], 0));
    }
  }
  /// Whether the loop's rows are those of the grouped product.
  bool loop_is_right() {
    next = 0;
    run(pare::simd);
    next = 0;
    run_loop(pare::simd);
    for (Index p = 0; p < plans[0].routed(); ++p) {
      const Index row = plans[0].rows_by_place()[static_cast<std::size_t>(p)];
      if (!((looped.row(row) - parts.row(p)).norm() <= 1e-2f * parts.row(p).norm())) return false;
    }
    return true;
  }
  /// Some sums in double, of inputs rounded to bf16.
  bool is_right() {
    next = 0;
    run(pare::simd);
    const RoutePlan& plan = plans[0];
    for (Index p = 0; p < plan.routed(); p += 1 + plan.routed() / 3) {
      const auto e = std::upper_bound(plan.offsets().begin(), plan.offsets().end(), p) -
                     plan.offsets().begin() - 1;
      const auto w = all().layers[static_cast<std::size_t>(e)].weights();
      const Index row = plan.rows_by_place()[static_cast<std::size_t>(p)];
      double sum = 0, size = 0;
      for (Index c = 0; c < inputs; ++c) {
        const double term =
            static_cast<double>(x(row, c)) * static_cast<double>(static_cast<float>(w(7, c)));
        sum += term;
        size += std::abs(term);
      }
      if (!(std::abs(static_cast<double>(parts(p, 7)) - sum) <= 0x1p-8 * size)) return false;
    }
    return true;
  }

  static Experts& all() {
    return workload<Experts>("routing experts", [] { return Experts(); });
  }

  RowMatrix x, logits;
  std::vector<RoutePlan> plans;  ///< of as many experts, others in each
  std::size_t next = 0;
  RowMatrix parts;
  RowMatrix gathered, products, looped;  ///< of the loop
  Index used = 0;
  pare::Workspace workspace;
};

void run_grouped(benchmark::State& state, Index rows, int threads) {
  GroupedData data(rows);
  if (!data.is_right()) return state.SkipWithError("differs from sums in double");
  if (!data.loop_is_right()) return state.SkipWithError("the loop has other results");
  const double weight = static_cast<double>(inputs * outputs);
  const double read = static_cast<double>(data.used) * weight * sizeof(bf16);
  const int calls = static_cast<int>(std::max(1.0, 4e8 / read));
  LimitProbe probe(threads, {{Limit::dram_read, read * calls},
                             {Limit::dot_bf16, 2 * weight * static_cast<double>(rows) * calls}});
  const double own = time_calls(state, probe, data, threads, calls);
  set_of_limit(state, probe.seconds(), own);
  state.counters["experts"] = static_cast<double>(data.used);
  const double loop = usual_seconds([&] {
    for (int i = 0; i < calls; ++i)
      if (threads == 1)
        data.run_loop(pare::simd.with(data.workspace));
      else
        data.run_loop(pare::simd.threads(threads).with(data.workspace));
  });
  set_vs(state, "loop", loop, own);
  const auto torch = [&](const std::string& way) {
    return calls * python_peer_seconds(
                       "routing_torch.py",
                       {way, std::to_string(threads), std::to_string(rows), std::to_string(experts),
                        std::to_string(outputs), std::to_string(inputs)});
  };
  set_vs(state, "torch_loop", torch("loop"), own);
  set_vs(state, "torch_grouped", torch("grouped"), own);
}

/// One layer behind another.
struct TwoLayers {
  Layer first, second;

  Index inputs() const { return first.inputs(); }
  Index outputs() const { return second.outputs(); }
  template <class B>
  void apply(const B& backend, pare::TensorView<const float, 2> x,
             pare::TensorView<float, 2> y) const {
    const auto memory = pare::leased<pare::AlignedBuffer<float>>(backend);
    const auto middle = pare::matrix_in(*memory, x.rows(), first.outputs());
    first.apply(backend, x, middle);
    second.apply(backend, pare::as_const(middle), y);
  }
};

/// MoLE: A_e [768, 768] behind B_g [768, 1536], 8 experts a group, 2 a row; in the same memory.
struct LatentData {
  static constexpr Index latent = 768, group = 8;

  explicit LatentData(Index rows)
      : x(uniform_matrix(rows, inputs, 2)),
        plan(route(uniform_matrix(rows, experts, 3), TopK{.k = 2}).ids, experts),
        parts(RowMatrix::Zero(plan.routed(), outputs)),
        latent_layers(layers()) {
    for (Index e = 0; e < experts; ++e) {
      plain.push_back({Layer(projection(e / group), rounded), Layer(specific(e), rounded)});
      used += plan.rows_of(e).empty() ? 0 : 1;
    }
    for (Index g = 0; g < experts / group; ++g) {
      std::vector<bool> seen(static_cast<std::size_t>(rows));
      for (Index e = g * group; e < (g + 1) * group; ++e)
        for (const Index r : plan.rows_of(e)) seen[static_cast<std::size_t>(r)] = true;
      const auto of_group = std::count(seen.begin(), seen.end(), true);
      group_rows += of_group;
      used_groups += of_group > 0 ? 1 : 0;
    }
  }

  template <class B>
  void run(const B& backend) {
    grouped_multiply(backend, x, plan, latent_layers, parts);
  }
  /// By far within the rounding of two products of bf16.
  bool is_right() {
    grouped_multiply(pare::simd, x, plan, plain, parts);
    const RowMatrix wanted = parts;
    run(pare::simd);
    return (parts - wanted).norm() <= 0x1p-7F * wanted.norm();
  }

  static pare::TensorView<const bf16, 2> projection(Index g) {
    return {GroupedData::all().weights.data() + g * latent * inputs, {latent, inputs}, {inputs, 1}};
  }
  static pare::TensorView<const bf16, 2> specific(Index e) {
    const bf16* const first = projection(experts / group).data;
    return {first + e * outputs * latent, {outputs, latent}, {latent, 1}};
  }
  static LatentExperts<Layer> layers() {
    std::vector<Layer> shared, own;
    std::vector<Index> offsets{0};
    for (Index g = 0; g < experts / group; ++g) {
      shared.emplace_back(projection(g), rounded);
      offsets.push_back((g + 1) * group);
    }
    for (Index e = 0; e < experts; ++e) own.emplace_back(specific(e), rounded);
    return {std::move(shared), std::move(own), std::move(offsets)};
  }
  static constexpr pare::transformer::DenseLinearOptions rounded{.round_inputs = true,
                                                                 .round_few_rows = true};

  RowMatrix x;
  RoutePlan plan;
  RowMatrix parts;
  LatentExperts<Layer> latent_layers;
  std::vector<TwoLayers> plain{};
  Index used = 0, used_groups = 0, group_rows = 0;
  pare::Workspace workspace{};
};

void run_latent(benchmark::State& state, Index rows, int threads) {
  LatentData data(rows);
  if (!data.is_right()) return state.SkipWithError("differs from layers with both factors");
  const double b = static_cast<double>(LatentData::latent * inputs),
               a = static_cast<double>(outputs * LatentData::latent);
  const double read = sizeof(bf16) * (static_cast<double>(data.used_groups) * b +
                                      static_cast<double>(data.used) * a);
  const double products =
      static_cast<double>(data.group_rows) * b + static_cast<double>(data.plan.routed()) * a;
  const int calls = static_cast<int>(std::max(1.0, 4e8 / read));
  LimitProbe probe(threads,
                   {{Limit::dram_read, read * calls}, {Limit::dot_bf16, 2 * products * calls}});
  const double own = time_calls(state, probe, data, threads, calls);
  set_of_limit(state, probe.seconds(), own);
  const auto seconds_of = [&](const auto& layers) {
    return calls * usual_seconds([&] {
             if (threads == 1)
               grouped_multiply(pare::simd.with(data.workspace), data.x, data.plan, layers,
                                data.parts);
             else
               grouped_multiply(pare::simd.threads(threads).with(data.workspace), data.x, data.plan,
                                layers, data.parts);
           });
  };
  set_vs(state, "plain", seconds_of(data.plain), own);
  set_vs(state, "dense", seconds_of(GroupedData::all().layers), own);
}

/// Logits to a plan, and the plan alone.
void run_plan(benchmark::State& state, Index rows) {
  GroupedData data(rows);
  const auto ids = route(data.logits, TopOne{}).ids;
  RoutePlan plan;
  const double own = time_alone(state, [&] { plan.assign(pare::const_view(ids), experts); });
  if (plan.routed() != rows) return state.SkipWithError("rows are missing");
  const double multiply = usual_seconds([&] { data.run(pare::simd.with(data.workspace)); });
  state.counters["plan_share"] = own / multiply;
  Routes<float> routes;
  const double gate = usual_seconds([&] { route(data.logits, TopOne{}, routes); });
  state.counters["gate_share"] = gate / multiply;
}

/// A table of 398 MB, so that rows of it are in memory: 8 of UltraMemV2's, [8 360^2, 192].
constexpr Index table_slots = 8 * 360 * 360, table_dim = 192;

const bf16* table_values() {
  struct Table {
    std::vector<bf16> values;
    Table() : values(static_cast<std::size_t>(table_slots * table_dim)) {
      SplitMix64 random(4);
      for (auto& v : values) v = static_cast<bf16>(static_cast<float>(random.unit()) - 0.5f);
    }
  };
  return workload<Table>("routing table", [] { return Table(); }).values.data();
}

/// Ids of many calls, other rows in each: 400 MB are read before a row comes again.
class FreshIds {
 public:
  FreshIds(Index rows, Index hits, Index slots)
      : ids_(std::max<Index>(1, (Index{1} << 20) / (rows * hits)) * rows, hits), rows_(rows) {
    SplitMix64 random(5);
    for (Index i = 0; i < ids_.size(); ++i)
      ids_.data()[i] = static_cast<Index>(random.next() % static_cast<std::uint64_t>(slots));
  }
  pare::TensorView<const Index, 2> next() {
    const Index* const first = ids_.data() + at_ * ids_.cols();
    at_ = at_ + rows_ < ids_.rows() ? at_ + rows_ : 0;
    return {first, {rows_, ids_.cols()}, {ids_.cols(), 1}};
  }

 private:
  pare::RowMatrix<Index> ids_;
  Index rows_;
  Index at_ = 0;
};

/// Reads rows of a table: each line loaded once, nothing computed but a sum of words.
std::uint64_t read_rows(const bf16* table, Index dim, const Index* ids, Index hits) {
  std::uint64_t sum = 0;
  for (Index j = 0; j < hits; ++j) {
    const bf16* const row = table + ids[j] * dim;
    if (j + 4 < hits)
      for (Index c = 0; c < dim; c += 32) __builtin_prefetch(table + ids[j + 4] * dim + c);
    for (Index c = 0; c < dim; c += 32) {
      std::uint64_t word = 0;
      std::memcpy(&word, row + c, sizeof(word));
      sum += word;
    }
  }
  return sum;
}

/// Rows of a table added up, beside a bare read of other rows of it.
void run_gather(benchmark::State& state, Index rows, int threads) {
  constexpr Index dim = table_dim, hits = 32;
  const bf16* const table = table_values();
  FreshIds ids(rows, hits, table_slots);
  const RowMatrix weights = uniform_matrix(rows, hits, 6);
  RowMatrix out(rows, dim);
  const pare::TensorView<const bf16, 2> values{table, {table_slots, dim}, {dim, 1}};
  const int calls = static_cast<int>(std::max<Index>(1, 2048 / rows));
  const auto backend = pare::simd.threads(threads);
  const double own = time_alone(state, [&] {
    for (int i = 0; i < calls; ++i)
      if (threads == 1)
        gather_values(pare::simd, values, ids.next(), weights, out);
      else
        gather_values(backend, values, ids.next(), weights, out);
  });
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(rows));
  const double limit = usual_seconds([&] {
    for (int i = 0; i < calls; ++i) {
      const auto some = ids.next();
      pare::parallel_for(backend.executor, rows, [&](Index r, int) {
        sums[static_cast<std::size_t>(r)] = read_rows(table, dim, &some(r, 0), hits);
      });
    }
  });
  benchmark::DoNotOptimize(sums.data());
  state.counters["of_read_rows"] = limit / own;
  state.counters["GB_a_second"] =
      static_cast<double>(rows * hits * dim) * sizeof(bf16) * calls / own * 1e-9;
}

/// PEER of 360^2 experts of 768 numbers, 8 heads of 16 hits: other queries in each call. The limit
/// reads as many rows of both tables.
void run_peer(benchmark::State& state, Index rows, int threads) {
  constexpr Index n = 360, half = 64, heads = 8, k = 16, dim = 768, slots = n * n;
  const bf16* const table = table_values();
  const PeerExperts<bf16> experts{{table, {slots, dim}, {dim, 1}},
                                  {table + slots * dim, {slots, dim}, {dim, 1}}};
  const Index batches = std::max<Index>(2, 512 / rows);
  const RowMatrix x = uniform_matrix(rows, dim, 1), keys = uniform_matrix(heads * 2 * n, half, 2),
                  queries = uniform_matrix(batches * rows, heads * 2 * half, 3);
  const pare::TensorView<const float, 4> t{
      keys.data(), {heads, 2, n, half}, {2 * n * half, n * half, half, 1}};
  RowMatrix y(rows, dim);
  pare::Workspace workspace;
  Index batch = 0;
  const auto call = [&](const auto& backend) {
    const pare::TensorView<const float, 3> q{
        &queries(batch * rows, 0), {rows, heads, 2 * half}, {heads * 2 * half, 2 * half, 1}};
    batch = batch + 1 < batches ? batch + 1 : 0;
    peer(backend, x, q, t, experts, y, pare::transformer::Gelu{}, {.k = k});
  };
  const int calls = static_cast<int>(std::max<Index>(1, 128 / rows));
  const double own = time_alone(state, [&] {
    for (int i = 0; i < calls; ++i)
      if (threads == 1)
        call(pare::simd.with(workspace));
      else
        call(pare::simd.threads(threads).with(workspace));
  });
  FreshIds ids(rows, heads * k, 2 * slots);
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(rows));
  const double limit = usual_seconds([&] {
    for (int i = 0; i < 2 * calls; ++i) {
      const auto some = ids.next();
      pare::parallel_for(pare::simd.threads(threads).executor, rows, [&](Index r, int) {
        sums[static_cast<std::size_t>(r)] = read_rows(table, dim, &some(r, 0), heads * k);
      });
    }
  });
  benchmark::DoNotOptimize(sums.data());
  state.counters["of_read_rows"] = limit / own;
}

/// The search of both halves: 360 keys of 96.
void run_search(benchmark::State& state, Index rows, int threads) {
  constexpr Index n = 360, half = 96, k = 32;
  const RowMatrix queries = uniform_matrix(rows, 2 * half, 7);
  const RowMatrix keys = uniform_matrix(2 * n, half, 8);
  const pare::TensorView<const float, 3> q{
      queries.data(), {rows, 1, 2 * half}, {2 * half, 2 * half, 1}};
  const pare::TensorView<const float, 4> t{
      keys.data(), {1, 2, n, half}, {2 * n * half, n * half, half, 1}};
  const pare::TensorView<const float, 3> few{
      q.data, {std::min<Index>(rows, 64), 1, 2 * half}, q.stride};
  const auto wanted = search_product_keys(pare::reference, few, t, k);
  const auto found = search_product_keys(pare::simd.threads(threads), q, t, k);
  if (!((found.scores.topRows(wanted.scores.rows()) - wanted.scores).norm() <=
        1e-5f * wanted.scores.norm()))
    return state.SkipWithError("finds other scores than the reference");
  const int calls = static_cast<int>(std::max<Index>(1, 512 / rows));
  LimitProbe probe(threads, {{Limit::fma_f32, 4.0 * static_cast<double>(rows * n * half) * calls}});
  pare::Workspace workspace;
  MemoryHits<float> hits;
  const double own = time_between_probes(state, probe, [&] {
    for (int i = 0; i < calls; ++i)
      if (threads == 1)
        search_product_keys(pare::simd.with(workspace), q, t, k, hits);
      else
        search_product_keys(pare::simd.threads(threads).with(workspace), q, t, k, hits);
  });
  set_of_limit(state, probe.seconds(), own);
}

template <class Run>
void add(const std::string& name, const Run& run) {
  for (const int threads : {1, all_threads()}) {
    large(benchmark::RegisterBenchmark(
              (name + (threads == 1 ? "/t1" : "")).c_str(),
              [run, threads](benchmark::State& state) { run(state, threads); }),
          3);
    if (all_threads() == 1) break;
  }
}

const bool registered = [] {
  for (const Index rows : {1, 8, 32, 256, 2048})
    add("routing/grouped/e96/768x1536/bf16/top1/n" + std::to_string(rows),
        [rows](benchmark::State& state, int threads) { run_grouped(state, rows, threads); });
  for (const Index rows : {32, 2048})
    add("routing/latent/e96g8/768x1536/m768/bf16/top2/n" + std::to_string(rows),
        [rows](benchmark::State& state, int threads) { run_latent(state, rows, threads); });
  large(benchmark::RegisterBenchmark("routing/plan/n8192/e96",
                                     [](benchmark::State& state) { run_plan(state, 8192); }),
        3);
  for (const Index rows : {1, 64, 2048})
    add("routing/memory/gather/192/bf16/k32/n" + std::to_string(rows),
        [rows](benchmark::State& state, int threads) { run_gather(state, rows, threads); });
  for (const Index rows : {1, 3, 64})
    add("routing/memory/peer/360/768/bf16/h8k16/n" + std::to_string(rows),
        [rows](benchmark::State& state, int threads) { run_peer(state, rows, threads); });
  for (const Index rows : {1, 7, 2048})
    add("routing/memory/product_keys/360x96/k32/n" + std::to_string(rows),
        [rows](benchmark::State& state, int threads) { run_search(state, rows, threads); });
  return true;
}();
}  // namespace
