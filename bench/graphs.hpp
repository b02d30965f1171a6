// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Synthetic graphs of the benchmarks.

#include <Eigen/SparseCore>

#include <cstddef>
#include <cstdint>
#include <string>

namespace pare::bench {

using Graph = Eigen::SparseMatrix<float, Eigen::RowMajor, int>;

/// A directed graph with power-law in- and out-degrees and random node numbers; all weights 1.
///
/// Both ends of `edges` edges are drawn with probability proportional to rank^-0.6 (a degree
/// distribution with exponent 1 + 1/0.6 = 2.67), ranks are mapped to nodes by two independent
/// random permutations, and repeated edges are merged: 1M nodes and 10M draws leave about 9.99M
/// stored entries. The same arguments give the same graph on every machine. Cost: O(edges + nodes),
/// about a second for 10M edges.
Graph power_law_graph(int nodes, std::int64_t edges, std::uint64_t seed);

/// Bytes of the three arrays of a compressed graph.
double bytes_of(const Graph& graph);

/// Bytes of a product with `columns` columns when no gathered row is still in a cache: the entries,
/// a row for each, the output.
double gather_bytes(const Graph& graph, std::ptrdiff_t columns);

/// Writes <prefix>.offsets, .indices (int32) and .values (float32), which peers read.
void write_graph(const std::string& prefix, const Graph& graph);

}  // namespace pare::bench
