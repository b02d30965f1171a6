// SPDX-License-Identifier: Apache-2.0
#include "graphs.hpp"

#include "random_data.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <utility>
#include <vector>

namespace pare::bench {
namespace {

std::vector<int> random_permutation(int n, SplitMix64& random) {
  std::vector<int> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[static_cast<std::size_t>(random.next() % i)]);
  return order;
}

// The inverse of the distribution function (rank / n)^0.4, by a square root and products only,
// which IEEE arithmetic rounds alike everywhere.
std::size_t power_law_rank(int nodes, double u) {
  const auto rank = static_cast<std::size_t>(nodes * (u * u * std::sqrt(u)));
  return std::min(rank, static_cast<std::size_t>(nodes) - 1);
}

struct Edge {
  int from;
  int to;
};

template <class Key>
std::vector<Edge> counting_sort(const std::vector<Edge>& edges, int nodes, const Key& key) {
  std::vector<std::size_t> next(static_cast<std::size_t>(nodes) + 1, 0);
  for (const Edge& e : edges) ++next[static_cast<std::size_t>(key(e)) + 1];
  std::partial_sum(next.begin(), next.end(), next.begin());
  std::vector<Edge> sorted(edges.size());
  for (const Edge& e : edges) sorted[next[static_cast<std::size_t>(key(e))]++] = e;
  return sorted;
}

}  // namespace

Graph power_law_graph(int nodes, std::int64_t edges, std::uint64_t seed) {
  SplitMix64 random(seed);
  const std::vector<int> from = random_permutation(nodes, random);
  const std::vector<int> to = random_permutation(nodes, random);
  std::vector<Edge> list(static_cast<std::size_t>(edges));
  for (Edge& e : list) {
    e.from = from[power_law_rank(nodes, random.unit())];
    e.to = to[power_law_rank(nodes, random.unit())];
  }
  list = counting_sort(list, nodes, [](const Edge& e) { return e.to; });
  list = counting_sort(list, nodes, [](const Edge& e) { return e.from; });
  const auto same = [](const Edge& a, const Edge& b) { return a.from == b.from && a.to == b.to; };
  list.erase(std::unique(list.begin(), list.end(), same), list.end());

  Graph graph(nodes, nodes);
  graph.resizeNonZeros(static_cast<Eigen::Index>(list.size()));
  int* const offsets = graph.outerIndexPtr();
  std::fill(offsets, offsets + nodes + 1, 0);
  for (const Edge& e : list) ++offsets[e.from + 1];
  std::partial_sum(offsets, offsets + nodes + 1, offsets);
  std::transform(list.begin(), list.end(), graph.innerIndexPtr(),
                 [](const Edge& e) { return e.to; });
  std::fill(graph.valuePtr(), graph.valuePtr() + graph.nonZeros(), 1.0f);
  return graph;
}

double bytes_of(const Graph& graph) {
  return static_cast<double>(graph.nonZeros()) * (sizeof(float) + sizeof(int)) +
         (static_cast<double>(graph.rows()) + 1.0) * sizeof(int);
}

double gather_bytes(const Graph& graph, std::ptrdiff_t columns) {
  return static_cast<double>(graph.nonZeros()) * (8.0 + 4.0 * static_cast<double>(columns)) +
         static_cast<double>(graph.rows()) * static_cast<double>(columns) * 4.0;
}

void write_graph(const std::string& prefix, const Graph& graph) {
  const auto write = [&prefix](const char* part, const auto* data, std::ptrdiff_t count) {
    std::ofstream file(prefix + part, std::ios::binary);
    file.write(reinterpret_cast<const char*>(data),
               static_cast<std::streamsize>(count) * static_cast<std::streamsize>(sizeof(*data)));
  };
  write(".offsets", graph.outerIndexPtr(), graph.outerSize() + 1);
  write(".indices", graph.innerIndexPtr(), graph.nonZeros());
  write(".values", graph.valuePtr(), graph.nonZeros());
}

}  // namespace pare::bench
