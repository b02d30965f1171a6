// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of the mix on sparse storage, row by row.

#include <pare/core/permutation.hpp>
#include <pare/feature/fields/detail/exchange.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/fields/sparse_fields.hpp>
#include <pare/feature/leap/detail/sparse_mix.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace pare::feature::detail {
PARE_ABI_BEGIN

template <ComputeScalar T>
struct SparseMixAccess;

/// The donor of each row of field j.
template <class T>
Permutation reference_sparse_donors(const SparseFields<T>& x, Index j, const Donors& donors,
                                    SparseExchange exchange) {
  if (exchange == SparseExchange::Rows) return donors.permutation(j);
  const auto active = x.rows_of(j);
  std::vector<std::uint32_t> donor(static_cast<std::size_t>(x.rows())), order(active.size());
  std::iota(donor.begin(), donor.end(), 0u);
  if (exchange == SparseExchange::Values) {
    donors.fill_among(j, order);
    for (std::size_t i = 0; i < active.size(); ++i) donor[active[i]] = active[order[i]];
  } else {
    PresenceExchange presence;
    draw_presence(donors, j, active, presence);
    for (std::size_t k = 0; k < presence.rows.size(); ++k)
      std::swap(donor[active[presence.entries[k]]], donor[presence.rows[k]]);
  }
  return Permutation(std::move(donor));
}

/// The definition: which rows of each field are active or have an active donor, row by row.
template <class T>
void reference_sparse_links(const SparseFields<T>& x, const Donors& donors, SparseExchange exchange,
                            SparseMixAccess<T>& mix) {
  for (Index j = 0; j < x.layout().fields(); ++j) {
    std::vector<std::uint32_t> entry(static_cast<std::size_t>(x.rows()), MixLink::none), rows;
    for (std::size_t e = 0; e < x.rows_of(j).size(); ++e)
      entry[x.rows_of(j)[e]] = static_cast<std::uint32_t>(e);
    const Permutation donor = reference_sparse_donors(x, j, donors, exchange);
    MixLink* links = mix.links.data() + mix.begins[static_cast<std::size_t>(j)];
    for (Index b = 0; b < x.rows(); ++b) {
      const MixLink link{entry[static_cast<std::size_t>(b)], entry[donor[b]]};
      if (link.own == MixLink::none && link.donor == MixLink::none) continue;
      links[rows.size()] = link;
      rows.push_back(static_cast<std::uint32_t>(b));
    }
    mix.fields.set_rows(j, rows);
  }
}

/// The value that a link stands for.
template <class T>
double linked_value(const SparseFields<T>& x, Index j, std::uint32_t entry, Index c) {
  if (entry == MixLink::none)
    return static_cast<double>(x.defaults()[static_cast<std::size_t>(x.layout().offset(j) + c)]);
  return static_cast<double>(x.values(j)(static_cast<Index>(entry), c));
}

template <class T>
void reference_sparse_forward(const SparseFields<T>& x, std::span<const double> gates,
                              const Donors& donors, SparseExchange exchange,
                              SparseMixAccess<T>& mix) {
  reference_sparse_links(x, donors, exchange, mix);
  for (Index j = 0; j < x.layout().fields(); ++j) {
    const auto values = mix.fields.values(j);
    const MixLink* links = mix.links.data() + mix.begins[static_cast<std::size_t>(j)];
    const double g = gates[static_cast<std::size_t>(j)];
    for (Index i = 0; i < values.rows(); ++i)
      for (Index c = 0; c < values.cols(); ++c) {
        const double own = linked_value(x, j, links[i].own, c),
                     other = linked_value(x, j, links[i].donor, c);
        values(i, c) = static_cast<T>(g == 1   ? own
                                      : g == 0 ? other
                                               : own - (1 - g) * (own - other));
      }
  }
}

template <class T>
void reference_sparse_backward(const SparseFields<T>& x, std::span<const double> gates,
                               const SparseFields<T>& grad_mixed, bool live,
                               SparseFields<T>* grad_x, SparseMixAccess<T>& mix) {
  mix.memory.sums.assign(static_cast<std::size_t>(x.layout().fields()), {});
  for (Index j = 0; j < x.layout().fields(); ++j) {
    const auto g = grad_mixed.values(j);
    const MixLink* links = mix.links.data() + mix.begins[static_cast<std::size_t>(j)];
    const double gate = gates[static_cast<std::size_t>(j)];
    double* sums = mix.memory.sums[static_cast<std::size_t>(j)].values;
    std::vector<double> gradient(static_cast<std::size_t>(x.entries(j) * g.cols()), 0.0);
    const auto at = [&](std::uint32_t entry, Index c) -> double& {
      return gradient[static_cast<std::size_t>(static_cast<Index>(entry) * g.cols() + c)];
    };
    for (Index i = 0; i < g.rows(); ++i) {
      double squared = 0;
      for (Index c = 0; c < g.cols(); ++c) {
        const double delta =
            linked_value(x, j, links[i].own, c) - linked_value(x, j, links[i].donor, c);
        const auto up = static_cast<double>(g(i, c));
        sums[PieceSums::slope] += delta * up;
        sums[PieceSums::absolute] += std::abs(delta);
        squared += delta * delta;
        if (links[i].own != MixLink::none && gate != 0) at(links[i].own, c) += gate * up;
        if (live && links[i].donor != MixLink::none && gate != 1)
          at(links[i].donor, c) += (1 - gate) * up;
      }
      sums[PieceSums::squared] += squared;
      sums[PieceSums::norm] += std::sqrt(squared);
    }
    if (grad_x != nullptr)
      std::transform(gradient.begin(), gradient.end(), grad_x->values(j).data,
                     [](double value) { return static_cast<T>(value); });
  }
}

PARE_ABI_END
}  // namespace pare::feature::detail
