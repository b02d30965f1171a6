// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What became of each layer.

#include "compress/importance.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <ostream>
#include <string>
#include <vector>

namespace compress {

/// One factored layer, or one that stayed dense.
struct LayerReport {
  std::string name;
  Index out = 0, in = 0;
  std::string dtype;
  Method method = Method::Svd;
  Index rank = 0;             ///< 0: dense
  double relative_error = 0;  ///< in the metric
  double seconds = 0;

  Index dense_parameters() const { return out * in; }
  Index parameters() const { return rank == 0 ? dense_parameters() : rank * (out + in); }
};

/// The whole run.
struct Report {
  std::vector<LayerReport> layers;
  std::uintmax_t input_bytes = 0, output_bytes = 0;
  std::size_t copied = 0;                ///< tensors that are no layers
  std::vector<std::string> other_types;  ///< matrices among those, copied for their type alone
  double seconds = 0;

  Index dense_parameters() const {
    Index sum = 0;
    for (const LayerReport& layer : layers) sum += layer.dense_parameters();
    return sum;
  }
  Index parameters() const {
    Index sum = 0;
    for (const LayerReport& layer : layers) sum += layer.parameters();
    return sum;
  }
};

namespace detail {

template <class... Values>
std::string format(const char* pattern, Values... values) {
  const int size = std::snprintf(nullptr, 0, pattern, values...);
  std::string text(static_cast<std::size_t>(size) + 1, '\0');
  std::snprintf(text.data(), text.size(), pattern, values...);
  text.pop_back();
  return text;
}

inline double share(double part, double whole) { return whole > 0 ? 100 * part / whole : 0.0; }

}  // namespace detail

/// A line a layer, then the totals. Errors are relative, in the metric of the method.
inline void print(std::ostream& os, const Report& report) {
  using detail::format;
  std::size_t width = 5;
  for (const LayerReport& layer : report.layers) width = std::max(width, layer.name.size());
  const int names = static_cast<int>(width);
  os << format("%-*s %13s %5s %-13s %6s %12s %7s %9s %8s\n", names, "layer", "out x in", "type",
               "method", "rank", "parameters", "kept", "error", "seconds");
  for (const LayerReport& layer : report.layers) {
    const std::string shape = std::to_string(layer.out) + " x " + std::to_string(layer.in);
    const std::string rank = layer.rank == 0 ? "dense" : std::to_string(layer.rank);
    os << format("%-*s %13s %5s %-13s %6s %12lld %5.1f %% %9.2e %8.2f\n", names, layer.name.c_str(),
                 shape.c_str(), layer.dtype.c_str(), method_name(layer.method), rank.c_str(),
                 static_cast<long long>(layer.parameters()),
                 detail::share(static_cast<double>(layer.parameters()),
                               static_cast<double>(layer.dense_parameters())),
                 layer.relative_error, layer.seconds);
  }
  os << format("%zu layers: %lld of %lld parameters, %.2f %%; %zu other tensors copied\n",
               report.layers.size(), static_cast<long long>(report.parameters()),
               static_cast<long long>(report.dense_parameters()),
               detail::share(static_cast<double>(report.parameters()),
                             static_cast<double>(report.dense_parameters())),
               report.copied);
  if (!report.other_types.empty()) {
    os << "of them matrices of a type that is not factored:";
    for (const std::string& name : report.other_types) os << ' ' << name;
    os << '\n';
  }
  os << format("file: %.1f MB of %.1f MB, %.1f s\n", static_cast<double>(report.output_bytes) / 1e6,
               static_cast<double>(report.input_bytes) / 1e6, report.seconds);
}

}  // namespace compress
