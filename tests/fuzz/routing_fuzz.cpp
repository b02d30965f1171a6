// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of routing: plans from ids, gates over logits, groups of latent experts, orders of
/// neurons, ids of a memory's values and offsets of sequences. What is taken must be sound by a
/// second, independent reading, what is refused must be wrong by it, and what is made of it must be
/// what the definition says. Built with libFuzzer (clang -fsanitize=fuzzer) it is an entry point;
/// built with PARE_FUZZ_STANDALONE it has a main that runs seeded mutations of valid inputs:
/// `routing_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/core/matrix.hpp>
#include <pare/routing/combine.hpp>
#include <pare/routing/expert_attention.hpp>
#include <pare/routing/gates.hpp>
#include <pare/routing/grouped_multiply.hpp>
#include <pare/routing/latent_experts.hpp>
#include <pare/routing/memory/gather_values.hpp>
#include <pare/routing/neuron_groups.hpp>
#include <pare/routing/route_plan.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <vector>

namespace {

using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::fuzz::Bytes;
using pare::fuzz::Data;
using pare::fuzz::require;
using pare::routing::RoutePlan;
using pare::routing::Routes;

/// call(), or nothing if it throws std::invalid_argument.
template <class Call>
bool taken(const Call& call) {
  try {
    call();
  } catch (const std::invalid_argument&) {
    return false;
  }
  return true;
}

/// y = x + number.
struct Stamp {
  float number;

  Index inputs() const { return 1; }
  Index outputs() const { return 1; }
  template <class B, class T>
  void apply(const B&, TensorView<const T, 2> x, TensorView<T, 2> y) const {
    for (Index r = 0; r < y.rows(); ++r) y(r, 0) = x(r, 0) + static_cast<T>(number);
  }
};

std::vector<Stamp> stamps(Index count, float step) {
  std::vector<Stamp> layers;
  for (Index e = 0; e < count; ++e) layers.push_back({step * static_cast<float>(e)});
  return layers;
}

/// [rows, 1]: the number of each row.
RowMatrix<float> numbered(Index rows) {
  RowMatrix<float> x(rows, 1);
  for (Index r = 0; r < rows; ++r) x(r, 0) = static_cast<float>(r);
  return x;
}

/// What each expert is to be given: rows in order, up to the capacity. None if an id is wrong.
std::optional<std::vector<std::vector<Index>>> rows_of_experts(
    const TensorView<const Index, 2>& ids, Index experts, std::optional<Index> capacity) {
  std::vector<std::vector<Index>> rows(static_cast<std::size_t>(experts));
  for (Index r = 0; r < ids.rows(); ++r) {
    std::set<Index> seen;
    for (Index j = 0; j < ids.cols(); ++j) {
      const Index id = ids(r, j);
      if (id == -1) continue;
      if (id < 0 || id >= experts || !seen.insert(id).second) return std::nullopt;
      auto& list = rows[static_cast<std::size_t>(id)];
      if (static_cast<Index>(list.size()) < capacity.value_or(1000)) list.push_back(r);
    }
  }
  return rows;
}

void check_plan(const RoutePlan& plan, const std::vector<std::vector<Index>>& wanted) {
  Index place = 0;
  for (std::size_t e = 0; e < wanted.size(); ++e) {
    require(plan.offsets()[e] == place, "experts stand behind each other");
    require(std::ranges::equal(plan.rows_of(static_cast<Index>(e)), wanted[e]),
            "rows of an expert are those of a second reading");
    place += static_cast<Index>(wanted[e].size());
  }
  require(plan.routed() == place, "no place is left");
  Index seen = 0;
  for (Index r = 0; r < plan.rows(); ++r) {
    Index last = -1;
    for (const Index p : plan.places_of(r)) {
      require(p > last && plan.rows_by_place()[static_cast<std::size_t>(p)] == r,
              "places of a row are its own, rising");
      last = p;
      ++seen;
    }
  }
  require(seen == place, "each place is of one row");
}

/// Products of numbered rows and experts, by layers and by layers behind groups of two, and sums.
template <class B>
void multiply(const B& backend, const RoutePlan& plan) {
  const auto x = numbered(plan.rows());
  RowMatrix<float> parts(plan.routed(), 1), latent(plan.routed(), 1), y(plan.rows(), 1);
  grouped_multiply(backend, x, plan, stamps(plan.experts(), 1000), parts);
  const Index groups = (plan.experts() + 1) / 2;
  std::vector<Index> offsets{0};
  for (Index g = 0; g < groups; ++g) offsets.push_back(std::min(2 * g + 2, plan.experts()));
  const pare::routing::LatentExperts<Stamp> experts(stamps(groups, 0), stamps(plan.experts(), 1000),
                                                    offsets);
  grouped_multiply(backend, x, plan, experts, latent);
  for (Index e = 0; e < plan.experts(); ++e)
    for (Index p = plan.offsets()[static_cast<std::size_t>(e)];
         p < plan.offsets()[static_cast<std::size_t>(e) + 1]; ++p) {
      const float wanted = 1000 * static_cast<float>(e) +
                           static_cast<float>(plan.rows_by_place()[static_cast<std::size_t>(p)]);
      require(parts(p, 0) == wanted && latent(p, 0) == wanted, "a part is its expert of its row");
    }
  const RowMatrix<float> weights = RowMatrix<float>::Ones(plan.rows(), plan.choices());
  combine(backend, plan, parts, weights, y);
  for (Index r = 0; r < plan.rows(); ++r) {
    float sum = 0;
    for (const Index p : plan.places_of(r)) sum += parts(p, 0);
    require(y(r, 0) == sum, "a sum is that of the row's parts");
  }
}

bool try_plan(Bytes& bytes) {
  const Index rows = bytes.number<Index>(), choices = bytes.number<Index>(),
              experts = bytes.number<Index>(), limit = bytes.number<Index>();
  const auto capacity = limit == 0 ? std::nullopt : std::optional<Index>(limit);
  std::vector<Index> memory = bytes.list<Index>();
  const bool in_memory =
      rows == 0 ? choices >= 0 : rows > 0 && rows < 128 && choices >= 0 && choices < 128;
  if (in_memory) memory.resize(static_cast<std::size_t>(rows * choices), -1);
  memory.reserve(1);
  const TensorView<const Index, 2> ids{memory.data(), {rows, choices}, {choices, 1}};
  std::optional<std::vector<std::vector<Index>>> wanted;
  if (in_memory && experts >= 1 && experts < 128 && limit >= 0)
    wanted = rows_of_experts(ids, experts, capacity);
  RoutePlan plan;
  const bool ok = taken([&] { plan.assign(ids, experts, {.capacity = capacity}); });
  require(ok == wanted.has_value(), "a plan is taken if and only if it is sound");
  if (!ok) return false;
  check_plan(plan, *wanted);
  multiply(pare::reference, plan);
  multiply(pare::simd, plan);
  return true;
}

/// Bytes with the ends of the range for NaN, and infinities beside them.
std::vector<float> logits_of(Bytes& bytes) {
  std::vector<float> logits;
  for (const auto x : bytes.list<std::int8_t>()) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    logits.push_back(x == 127    ? std::numeric_limits<float>::quiet_NaN()
                     : x == 126  ? infinity
                     : x == -128 ? -infinity
                                 : static_cast<float>(x) / 8);
  }
  return logits;
}

void check_routes(const std::vector<float>& logits, Index experts, const Routes<float>& routes) {
  for (Index r = 0; r < routes.ids.rows(); ++r) {
    std::vector<Index> order(static_cast<std::size_t>(experts));
    std::iota(order.begin(), order.end(), Index{0});
    const auto of = [&](Index e) { return logits[static_cast<std::size_t>(r * experts + e)]; };
    std::ranges::stable_sort(order, [&](Index a, Index b) { return of(a) > of(b); });
    for (Index j = 0; j < routes.ids.cols(); ++j) {
      require(routes.ids(r, j) == order[static_cast<std::size_t>(j)], "the largest come first");
      require(routes.weights(r, j) >= 0 &&
                  routes.weights(r, j) <= static_cast<float>(std::max<Index>(experts, 2)),
              "weights are shares, or a few times 1");
    }
  }
}

bool try_gate(Bytes& bytes) {
  const Index gate = bytes.number<Index>(), k = bytes.number<Index>(),
              experts = bytes.number<Index>();
  std::vector<float> logits = logits_of(bytes);
  if (experts < 1 || experts > 127) return false;
  const Index rows = static_cast<Index>(logits.size()) / experts;
  logits.resize(static_cast<std::size_t>(rows * experts));
  logits.reserve(1);
  const bool one = gate % 4 == 0;
  const bool sound = (one || (k >= 1 && k <= experts)) && std::ranges::none_of(logits, [](float x) {
                       return std::isnan(x) || x == std::numeric_limits<float>::infinity();
                     });
  Routes<float> routes;
  const TensorView<const float, 2> view{logits.data(), {rows, experts}, {experts, 1}};
  const bool ok = taken([&] {
    if (one)
      pare::routing::route(view, pare::routing::TopOne{}, routes);
    else if (gate % 4 == 1 || gate % 4 == -1)
      pare::routing::route(view, pare::routing::TopK{.k = k}, routes);
    else if (gate % 4 == 2 || gate % 4 == -2)
      pare::routing::route(view, pare::routing::TopHalf{.k = k}, routes);
    else
      pare::routing::route(view, pare::routing::TopBlocks{.k = k, .twice_sigmoid = true}, routes);
  });
  require(ok == sound, "logits are taken if and only if they have an order");
  if (ok) check_routes(logits, experts, routes);
  return ok;
}

bool try_groups(Bytes& bytes) {
  const Index groups = bytes.number<Index>(), experts = bytes.number<Index>();
  const std::vector<Index> offsets = bytes.list<Index>();
  if (groups < 0 || groups > 127 || experts < 0 || experts > 127) return false;
  bool sound = groups >= 1 && static_cast<Index>(offsets.size()) == groups + 1 &&
               offsets.front() == 0 && offsets.back() == experts;
  for (std::size_t g = 1; sound && g < offsets.size(); ++g) sound = offsets[g] > offsets[g - 1];
  std::optional<pare::routing::LatentExperts<Stamp>> made;
  const bool ok = taken([&] { made.emplace(stamps(groups, 1), stamps(experts, 1), offsets); });
  require(ok == sound, "offsets are taken if and only if each group has an expert");
  require(!ok || (made->experts() == experts && made->groups() == groups),
          "no expert or group is left out");
  return ok;
}

bool try_neurons(Bytes& bytes) {
  const Index groups = bytes.number<Index>();
  const std::vector<Index> order = bytes.list<Index>();
  const auto hidden = static_cast<Index>(order.size());
  if (hidden < 1) return false;
  std::set<Index> neurons(order.begin(), order.end());
  const bool sound = static_cast<Index>(neurons.size()) == hidden && *neurons.begin() == 0 &&
                     *neurons.rbegin() == hidden - 1;
  RowMatrix<float> gate = numbered(hidden), up = -gate, down = gate.transpose();
  const bool ok = taken([&] { pare::routing::permute_neurons(order, gate, up, down); });
  require(ok == sound, "an order is taken if and only if it has each neuron once");
  for (Index i = 0; i < hidden; ++i) {
    const auto wanted = static_cast<float>(ok ? order[static_cast<std::size_t>(i)] : i);
    require(gate(i, 0) == wanted && up(i, 0) == -wanted && down(0, i) == wanted,
            "neurons stand in the order, or where they stood");
  }
  const bool cut = taken([&] {
    const auto experts = pare::routing::neuron_groups(gate, up, down, groups);
    require(static_cast<Index>(experts.size()) == groups, "as many experts as groups");
  });
  require(cut == (groups >= 1 && hidden % groups == 0), "groups divide the neurons");
  return ok && cut;
}

bool try_values(Bytes& bytes) {
  const Index slots = bytes.number<Index>(), hits = bytes.number<Index>();
  std::vector<Index> ids = bytes.list<Index>();
  if (slots < 1 || slots > 127 || hits < 1 || hits > 127) return false;
  const Index rows = static_cast<Index>(ids.size()) / hits;
  ids.resize(static_cast<std::size_t>(rows * hits));
  ids.reserve(1);
  const bool sound = std::ranges::all_of(ids, [&](Index id) { return id >= 0 && id < slots; });
  const TensorView<const Index, 2> view{ids.data(), {rows, hits}, {hits, 1}};
  const RowMatrix<float> weights = RowMatrix<float>::Ones(rows, hits), values = numbered(slots);
  RowMatrix<float> out = RowMatrix<float>::Constant(rows, 1, -5);
  const bool ok = taken([&] { pare::routing::gather_values(values, view, weights, out); });
  require(ok == sound, "ids are taken if and only if each is a slot");
  for (Index r = 0; r < rows; ++r) {
    const auto row =
        std::span(ids).subspan(static_cast<std::size_t>(r * hits), static_cast<std::size_t>(hits));
    const Index sum = ok ? std::accumulate(row.begin(), row.end(), Index{0}) : -5;
    require(out(r, 0) == static_cast<float>(sum), "values of the ids are added up");
  }
  return ok;
}

bool try_sequences(Bytes& bytes) {
  const Index tokens = bytes.number<Index>();
  const std::vector<Index> offsets = bytes.list<Index>();
  if (tokens < 0 || tokens > 127 || offsets.size() < 2) return false;
  const bool sound =
      offsets.front() == 0 && offsets.back() == tokens && std::ranges::is_sorted(offsets);
  const auto sequences = static_cast<Index>(offsets.size()) - 1;
  RowMatrix<float> pooled = RowMatrix<float>::Constant(sequences, 1, -5);
  const bool ok = taken([&] { pare::routing::pool_sequences(numbered(tokens), offsets, pooled); });
  require(ok == sound, "offsets are taken if and only if they rise from 0 to the tokens");
  if (!ok) return false;
  Routes<float> routes;
  routes.ids.resize(sequences, 1);
  for (Index s = 0; s < sequences; ++s) routes.ids(s, 0) = s;
  routes.weights = RowMatrix<float>::Ones(sequences, 1);
  const auto of_tokens = pare::routing::routes_of_tokens(routes, offsets);
  require(of_tokens.ids.rows() == tokens, "each token has a route");
  for (Index t = 0; t < tokens; ++t) {
    const auto s = static_cast<std::size_t>(of_tokens.ids(t, 0));
    require(t >= offsets[s] && t < offsets[s + 1], "a token has the route of its sequence");
  }
  return true;
}

/// True if the input was taken.
bool try_bytes(std::span<const std::uint8_t> data) {
  Bytes bytes(data);
  const Index kind = bytes.number<Index>();
  switch (kind) {
    case 0:
      return try_plan(bytes);
    case 1:
      return try_gate(bytes);
    case 2:
      return try_groups(bytes);
    case 3:
      return try_neurons(bytes);
    case 4:
      return try_values(bytes);
    case 5:
      return try_sequences(bytes);
    default:
      return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_bytes(std::span(data, size));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
namespace {

Data with_list(std::vector<Index> head, const std::vector<Index>& list) {
  head.push_back(static_cast<Index>(list.size()));
  head.insert(head.end(), list.begin(), list.end());
  Data bytes;
  for (const Index x : head) bytes.push_back(static_cast<std::uint8_t>(x));
  return bytes;
}

/// A permutation of 0 to n - 1.
std::vector<Index> shuffled(Index n, std::mt19937_64& random) {
  std::vector<Index> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), Index{0});
  std::ranges::shuffle(order, random);
  return order;
}

/// An input of each kind in turn, as bytes.
Data valid_input(unsigned long long run, std::mt19937_64& random) {
  const auto below = [&](Index n) { return static_cast<Index>(random() % std::uint64_t(n)); };
  std::vector<Index> list;
  constexpr Index kinds = 6;
  const Index kind = static_cast<Index>(run) % kinds;
  if (kind == 0) {
    const Index rows = below(12), experts = 1 + below(9), choices = below(experts + 1);
    for (Index r = 0; r < rows; ++r) {
      const auto order = shuffled(experts, random);
      for (Index j = 0; j < choices; ++j)
        list.push_back(below(6) == 0 ? -1 : order[static_cast<std::size_t>(j)]);
    }
    return with_list({kind, rows, choices, experts, below(5)}, list);
  }
  if (kind == 1) {
    const Index experts = 1 + below(12);
    for (Index i = 0; i < experts * below(8); ++i) list.push_back(below(200) - 100);
    return with_list({kind, below(4), 1 + below(experts), experts}, list);
  }
  if (kind == 2) {
    const Index groups = 1 + below(8);
    list.push_back(0);
    for (Index g = 0; g < groups; ++g) list.push_back(list.back() + 1 + below(6));
    return with_list({kind, groups, list.back()}, list);
  }
  if (kind == 3) {
    const Index groups = 1 + below(5);
    return with_list({kind, groups}, shuffled(groups * (1 + below(6)), random));
  }
  const Index size = 1 + below(9), count = 1 + below(12);
  if (kind == 4) {
    for (Index i = 0; i < size * below(8); ++i) list.push_back(below(count));
    return with_list({kind, count, size}, list);
  }
  list.push_back(0);
  for (Index s = 0; s < count; ++s) list.push_back(list.back() + below(5));
  return with_list({kind, list.back()}, list);
}

}  // namespace

int main(int argc, char** argv) {
  return pare::fuzz::run_mutations("routing_fuzz", argc, argv, valid_input, try_bytes);
}
#endif
