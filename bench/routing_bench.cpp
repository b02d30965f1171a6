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
/// layers, each with the projection of its group, and `vs_dense` experts without factors. Of memory
/// layers `of_read_rows` is of bare reads of as many rows of their tables, and `vs_eigen` adds the
/// rows up in Eigen, found by Pare's search where one is timed.

#include "counters.hpp"
#include "linear_data.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "row_reads.hpp"
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
#include <pare/routing/memory/tucker_search.hpp>
#include <pare/routing/memory/ultra_memory.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
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
    for (Index shift = 0; shift < experts; ++shift) {
      plans.emplace_back(ids, experts);
      for (Index r = 0; r < rows; ++r) ids(r, 0) = (ids(r, 0) + 1) % experts;
    }
    for (Index e = 0; e < experts; ++e) used += plans[0].rows_of(e).empty() ? 0 : 1;
  }

  /// Of the plans in turn, which have each row at all experts, 226 MB: no cache keeps those of few
  /// rows until their next turn.
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
      on_threads(threads, data.workspace, [&](const auto& backend) { data.run_loop(backend); });
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

/// MoLE: A_e [768, 768] behind B_g [768, 1536], 8 experts a group, 2 a row; in the same memory. All
/// calls are of one plan: a last cache of 32 MB keeps a part of the weights of 32 rows, some 80 MB,
/// and with it of_limit may pass 1.
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
             on_threads(threads, data.workspace, [&](const auto& backend) {
               grouped_multiply(backend, data.x, data.plan, layers, data.parts);
             });
           });
  };
  set_vs(state, "plain", seconds_of(data.plain), own);
  set_vs(state, "dense", seconds_of(GroupedData::all().layers), own);
}

/// Whether the rows of each expert are those that chose it, in their order.
bool has_rows_of(const RoutePlan& plan, const pare::RowMatrix<Index>& ids) {
  for (Index e = 0; e < experts; ++e) {
    std::vector<Index> wanted;
    for (Index r = 0; r < ids.rows(); ++r)
      if (ids(r, 0) == e) wanted.push_back(r);
    const auto got = plan.rows_of(e);
    if (!std::equal(got.begin(), got.end(), wanted.begin(), wanted.end())) return false;
  }
  return true;
}

/// Logits to a plan, and the plan alone.
void run_plan(benchmark::State& state, Index rows) {
  GroupedData data(rows);
  const auto ids = route(data.logits, TopOne{}).ids;
  RoutePlan plan(ids, experts);
  if (!has_rows_of(plan, ids)) return state.SkipWithError("experts have other rows");
  const double own = time_alone(state, [&] { plan.assign(pare::const_view(ids), experts); });
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

/// Seconds of bare reads of the table as one of rows of dim numbers: in each call `hits` others for
/// each of so many rows.
double read_seconds(int threads, Index rows, Index dim, Index hits, int calls) {
  const bf16* const table = table_values();
  FreshIds ids(rows, hits, table_slots * table_dim / dim);
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(rows));
  const double read = usual_seconds([&] {
    for (int i = 0; i < calls; ++i) {
      const auto some = ids.next();
      pare::parallel_for(pare::simd.threads(threads).executor, rows, [&](Index r, int) {
        sums[static_cast<std::size_t>(r)] = read_rows(table, dim, &some(r, 0), hits);
      });
    }
  });
  benchmark::DoNotOptimize(sums.data());
  return read;
}

/// Whether rows agree but for the order of their sums.
bool rows_agree(const RowMatrix& got, const RowMatrix& wanted) {
  return (got - wanted).norm() <= 1e-5f * wanted.norm();
}

/// A row of a table as Eigen sees it, in float.
auto row_in_eigen(const bf16* table, Index dim, Index id) {
  using Row = Eigen::Matrix<Eigen::bfloat16, 1, Eigen::Dynamic>;
  static_assert(sizeof(Eigen::bfloat16) == sizeof(bf16));
  return Eigen::Map<const Row>(reinterpret_cast<const Eigen::bfloat16*>(table) + id * dim, dim)
      .cast<float>();
}

/// Rows of a table added up, beside a bare read of other rows of it.
void run_gather(benchmark::State& state, Index rows, int threads) {
  constexpr Index dim = table_dim, hits = 32;
  const bf16* const table = table_values();
  FreshIds ids(rows, hits, table_slots);
  const RowMatrix weights = uniform_matrix(rows, hits, 6);
  RowMatrix out(rows, dim), by_eigen(rows, dim);
  const pare::TensorView<const bf16, 2> values{table, {table_slots, dim}, {dim, 1}};
  const auto call = [&](const auto& some) {
    on_threads(threads,
               [&](const auto& backend) { gather_values(backend, values, some, weights, out); });
  };
  const auto call_eigen = [&](const auto& some) {
    pare::parallel_for(pare::simd.threads(threads).executor, rows, [&](Index r, int) {
      by_eigen.row(r).setZero();
      for (Index j = 0; j < hits; ++j)
        by_eigen.row(r) += weights(r, j) * row_in_eigen(table, dim, some(r, j));
    });
  };
  const auto some = ids.next();
  call(some);
  call_eigen(some);
  if (!rows_agree(out, by_eigen)) return state.SkipWithError("differs from Eigen's sums");
  const int calls = static_cast<int>(std::max<Index>(1, 2048 / rows));
  const double own = time_alone(state, [&] {
    for (int i = 0; i < calls; ++i) call(ids.next());
  });
  state.counters["of_read_rows"] = read_seconds(threads, rows, dim, hits, calls) / own;
  state.counters["GB_a_second"] =
      static_cast<double>(rows * hits * dim) * sizeof(bf16) * calls / own * 1e-9;
  set_vs(state, "eigen", usual_seconds([&] {
           for (int i = 0; i < calls; ++i) call_eigen(ids.next());
         }),
         own);
}

/// PEER of 360^2 experts of 768 numbers, 8 heads of 16 hits: other queries in each call. The limit
/// reads as many rows of both tables.
void run_peer(benchmark::State& state, Index rows, int threads) {
  constexpr Index n = 360, half = 64, heads = 8, k = 16, dim = 768, slots = n * n;
  const bf16* const table = table_values();
  const PeerExperts<bf16> both{{table, {slots, dim}, {dim, 1}},
                               {table + slots * dim, {slots, dim}, {dim, 1}}};
  const Index batches = std::max<Index>(2, 512 / rows);
  const RowMatrix x = uniform_matrix(rows, dim, 1), keys = uniform_matrix(heads * 2 * n, half, 2),
                  queries = uniform_matrix(batches * rows, heads * 2 * half, 3);
  const pare::TensorView<const float, 4> t{
      keys.data(), {heads, 2, n, half}, {2 * n * half, n * half, half, 1}};
  RowMatrix y(rows, dim);
  pare::Workspace workspace;
  const auto call = [&](const auto& backend, Index batch) {
    const pare::TensorView<const float, 3> q{&queries(batch % batches * rows, 0),
                                             {rows, heads, 2 * half},
                                             {heads * 2 * half, 2 * half, 1}};
    peer(backend, x, q, t, both, y, pare::transformer::Gelu{}, {.k = k});
  };
  call(pare::reference, 0);
  const RowMatrix wanted = y;
  on_threads(threads, workspace, [&](const auto& backend) { call(backend, 0); });
  if (!rows_agree(y, wanted)) return state.SkipWithError("differs from the reference");
  Index batch = 0;
  const int calls = static_cast<int>(std::max<Index>(1, 128 / rows));
  const double own = time_alone(state, [&] {
    for (int i = 0; i < calls; ++i)
      on_threads(threads, workspace, [&](const auto& backend) { call(backend, ++batch); });
  });
  state.counters["of_read_rows"] = read_seconds(threads, rows, dim, heads * k, 2 * calls) / own;
}

/// Four layers of UltraMemV2 over one table: 360^2 slots each by Tucker keys of rank 2, 32 hits,
/// two cores; pre-values are the first half of the table and values the second, so that with other
/// queries in each call rows come from memory.
struct UltraData {
  static constexpr Index n = 360, half = 96, rank = 2, cores = 2, k = 32, dim = table_dim,
                         layers = 4, slots = layers * n * n, queries_there = 8192;

  explicit UltraData(Index rows)
      : keys(uniform_matrix(2 * n, half * rank, 2)),
        queries(uniform_matrix(queries_there, 2 * half, 3)),
        p(uniform_matrix(rows, dim, 4)),
        out(RowMatrix::Zero(rows, dim)),
        by_eigen(RowMatrix::Zero(rows, dim)) {
    for (Index layer = 0; layer < layers; ++layer)
      memories.emplace_back(tucker(), table(0), table(slots),
                            UltraMemoryOptions{.k = k, .offset = layer * n * n});
  }

  TuckerKeys<float> tucker() const {
    return {{keys.data(),
             {1, 2, n, half, rank},
             {2 * n * half * rank, n * half * rank, half * rank, rank, 1}},
            {core, {cores, rank, rank}, {rank * rank, rank, 1}},
            {direction, {rank}, {1}},
            {direction, {rank}, {1}}};
  }
  static pare::TensorView<const bf16, 2> table(Index first) {
    return {table_values() + first * dim, {slots, dim}, {dim, 1}};
  }
  pare::TensorView<const float, 3> next_queries() {
    const Index rows = out.rows();
    at = at + 2 * rows <= queries_there ? at + rows : 0;
    return {&queries(at, 0), {rows, 1, 2 * half}, {2 * half, 2 * half, 1}};
  }

  template <class B>
  void run(const B& backend) {
    const auto q = next_queries();
    memories[next++ % memories.size()].apply(backend, q, pare::const_view(p), pare::to_view(out));
  }
  /// The same search, and rows as one writes it in Eigen.
  template <class B>
  void run_eigen(const B& backend) {
    const auto q = next_queries();
    const UltraMemory<bf16>& memory = memories[next++ % memories.size()];
    const auto hits = search_tucker_keys(backend, q, memory.keys(), k);
    pare::parallel_for(backend.executor, out.rows(), [&](Index r, int) {
      by_eigen.row(r).setZero();
      for (Index j = 0; j < k; ++j) {
        const Index id = memory.row_of(hits.ids(r, j));
        const float pre = row_in_eigen(table(0).data, dim, id).dot(p.row(r));
        const auto value = row_in_eigen(table(slots).data, dim, id);
        for (Index c = 0; c < cores; ++c)
          by_eigen.row(r).segment(c * dim / cores, dim / cores) +=
              pre * hits.scores(r, j * cores + c) * value.segment(c * dim / cores, dim / cores);
      }
    });
  }
  /// Begins again with the same layer and queries.
  void restart() { next = 0, at = 0; }
  bool is_right(int threads) {
    restart();
    run(pare::reference);
    const RowMatrix wanted = out;
    restart();
    on_threads(threads, workspace, [&](const auto& backend) { run(backend); });
    restart();
    run_eigen(pare::simd.threads(threads));
    return rows_agree(out, wanted) && rows_agree(by_eigen, wanted);
  }

  RowMatrix keys, queries, p, out, by_eigen;
  /// Their sum is diagonal: the singular vectors of its largest number are unit vectors.
  static constexpr float core[] = {1.0f, 0.2f, -0.1f, 0.5f, 0.3f, -0.2f, 0.1f, 0.4f};
  static constexpr float direction[] = {1, 0};
  std::vector<UltraMemory<bf16>> memories{};
  std::size_t next = 0;
  Index at = 0;
  pare::Workspace workspace{};
};

/// The limit is the slower of the products with all keys and of reading as many rows of both
/// tables.
void run_ultra(benchmark::State& state, Index rows, int threads) {
  UltraData data(rows);
  if (!data.is_right(threads)) return state.SkipWithError("differs from the reference");
  const int calls = static_cast<int>(std::max<Index>(1, 512 / rows));
  const double products = static_cast<double>(rows * 2 * data.n * data.half * data.rank) * calls;
  LimitProbe probe(threads, {{Limit::fma_f32, products}});
  const double own = time_calls(state, probe, data, threads, calls);
  const double read = read_seconds(threads, rows, data.dim, data.k, 2 * calls);
  set_of_limit(state, std::max(probe.seconds(), read), own);
  state.counters["of_read_rows"] = read / own;
  set_vs(state, "eigen", usual_seconds([&] {
           for (int i = 0; i < calls; ++i)
             on_threads(threads, data.workspace,
                        [&](const auto& backend) { data.run_eigen(backend); });
         }),
         own);
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
      on_threads(threads, workspace,
                 [&](const auto& backend) { search_product_keys(backend, q, t, k, hits); });
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
  for (const Index rows : {1, 64})
    add("routing/memory/ultra/360x96/192/bf16/k32/n" + std::to_string(rows),
        [rows](benchmark::State& state, int threads) { run_ultra(state, rows, threads); });
  for (const Index rows : {1, 7, 2048})
    add("routing/memory/product_keys/360x96/k32/n" + std::to_string(rows),
        [rows](benchmark::State& state, int threads) { run_search(state, rows, threads); });
  return true;
}();
}  // namespace
