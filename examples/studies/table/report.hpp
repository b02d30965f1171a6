// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What the rankings say, in words and tables.

#include "table/data_table.hpp"
#include "table/selection.hpp"

#include <pare/feature/metrics.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <ostream>
#include <string>
#include <vector>

namespace table {
namespace detail {

template <class... Values>
std::string formatted(const char* format, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

inline std::string status_of(pare::feature::FieldStatus status) {
  using pare::feature::FieldStatus;
  return status == FieldStatus::Ok ? "" : status == FieldStatus::Inactive ? " (inactive)" : " (?)";
}

/// Kinds of fields in the order in which they come.
inline std::vector<std::string> origins_of(const Table& table) {
  std::vector<std::string> origins;
  for (const Field& field : table.fields)
    if (std::find(origins.begin(), origins.end(), field.origin) == origins.end())
      origins.push_back(field.origin);
  return origins;
}

}  // namespace detail

/// The best and the worst fields of the first split by LeAP.
inline void print_ranking(std::ostream& os, const Table& table, const MethodRanking& leap) {
  const auto& ranking = leap.ranking;
  const Index fields = ranking.fields(), shown = std::min<Index>(fields, 10);
  os << "LeAP on the first split keeps " << leap.selected << " of " << fields
     << " fields (gate above 0.5, and enough seen of them)\n";
  const auto line = [&](Index place) {
    const auto j = static_cast<std::size_t>(ranking.order[static_cast<std::size_t>(place)]);
    os << detail::formatted("  %4td  %-24s gate %.3f", place + 1, table.fields[j].name.c_str(),
                            ranking.scores[j])
       << detail::status_of(ranking.status[j]) << '\n';
  };
  for (Index place = 0; place < shown; ++place) line(place);
  if (fields > 2 * shown) os << "   ...\n";
  for (Index place = std::max(shown, fields - shown); place < fields; ++place) line(place);
}

/// Where the fields of each kind end up: how many each method has in its best half, on average.
inline void print_origins(std::ostream& os, const Table& table, const std::vector<SplitRun>& runs) {
  const auto origins = detail::origins_of(table);
  if (origins.size() < 2) return;
  os << "\nfields in the better half, by what they are\n                   ";
  for (const MethodRun& method : runs.front())
    os << detail::formatted("  %11s", method.ranking.method.c_str());
  os << '\n';
  for (const std::string& origin : origins) {
    const auto all = std::count_if(table.fields.begin(), table.fields.end(),
                                   [&](const Field& f) { return f.origin == origin; });
    os << detail::formatted("  %-17s", origin.c_str());
    for (std::size_t m = 0; m < runs.front().size(); ++m) {
      const auto kept = detail::of_splits(runs, m, [&](const MethodRun& run) {
        double count = 0;
        for (const Index j : top_share(run.ranking.ranking, 0.5))
          count += table.fields[static_cast<std::size_t>(j)].origin == origin ? 1 : 0;
        return count;
      });
      os << detail::formatted("  %5.1f of %-3td", detail::mean_of(kept), all);
    }
    os << '\n';
  }
}

/// AUC after dropping the worst fields of each ranking, the time of each, and the findings.
inline void print_selection(std::ostream& os, const std::vector<MethodMeans>& methods, Index fields,
                            double tolerance) {
  os << "\nAUC on rows not seen, of a model trained anew on what is left; behind it the standard "
        "error "
        "of what was lost\ndropped";
  for (const MethodMeans& m : methods) os << detail::formatted("  %17s", m.method.c_str());
  os << '\n';
  for (std::size_t i = 0; i < std::size(dropped_shares); ++i) {
    os << detail::formatted("%5.0f %%", 100 * dropped_shares[i]);
    for (const MethodMeans& m : methods)
      os << detail::formatted("  %7.4f +- %6.4f", m.aucs[i], m.errors[i]);
    os << '\n';
  }
  const auto row = [&](const char* name, const char* format, const auto& value) {
    os << detail::formatted("%-7s", name);
    for (const MethodMeans& m : methods)
      os << detail::formatted("  %17s", detail::formatted(format, value(m)).c_str());
    os << '\n';
  };
  row("AUKC", "%.4f", [](const MethodMeans& m) { return m.aukc; });
  row("seconds", "%.2f", [](const MethodMeans& m) { return m.seconds; });
  row("kept", "%.0f", [](const MethodMeans& m) { return m.selected; });
  const auto finding = [&](const std::string& what, double least) {
    os << "fields that may go at an AUC of at least " << detail::formatted("%.4f, ", least) << what
       << ':';
    for (const MethodMeans& m : methods)
      os << ' ' << m.method << ' ' << m.droppable(fields, least) << ';';
    const double leap = static_cast<double>(methods[0].droppable(fields, least));
    const double other = static_cast<double>(methods[1].droppable(fields, least));
    if (other > 0)
      os << detail::formatted(" LeAP %.1f times as many as permutation importance", leap / other);
    os << '\n';
  };
  double best = 0;
  for (const MethodMeans& m : methods)
    best = std::max(best, *std::max_element(m.aucs.begin(), m.aucs.end()));
  os << '\n';
  finding("that of all fields less the tolerance", methods.front().aucs.front() - tolerance);
  finding("the best of the table less the tolerance", best - tolerance);
}

}  // namespace table
