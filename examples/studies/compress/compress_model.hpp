// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// From a model file to the file with factors.

#include "compress/budget.hpp"
#include "compress/factors.hpp"
#include "compress/layer_report.hpp"

#include <pare/io/safetensors.hpp>

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace compress {

/// Refuses a path that cannot be written, before the work rather than after it.
inline void check_writable(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path folder = fs::absolute(path, error).parent_path();
  if (!fs::is_directory(folder, error))
    throw std::invalid_argument(path + ": got no folder '" + folder.string() +
                                "', wanted one to write to");
  const auto status = fs::status(path, error);
  if (fs::exists(status) && !fs::is_regular_file(status))
    throw std::invalid_argument(path + ": got something that is not a file, wanted a file's name");
#if __has_include(<unistd.h>)
  if (access(folder.c_str(), W_OK) != 0)
    throw std::invalid_argument(path + ": got a folder that must not be written, wanted another");
#endif
}

namespace detail {

using FactoredLayers = std::vector<std::optional<Factors>>;

/// Factorizations that are under way: each layer counts by its elements.
template <class Progress>
class Pass {
 public:
  Pass(const std::vector<Layer>& layers, Progress& progress) : progress_(progress) {
    for (const Layer& layer : layers) total_ += static_cast<double>(layer.parameters());
  }

  void begin(const Layer& layer) { progress_(done_ / total_, layer.name()); }
  void end(const Layer& layer) { done_ += static_cast<double>(layer.parameters()); }

 private:
  Progress& progress_;
  double total_ = 0, done_ = 0;
};

/// Factors each layer whose factors have fewer columns than wanted; 0 columns: none is needed.
template <class Progress>
void factorize_all(const pare::io::SafetensorsFile& file, const std::vector<Layer>& layers,
                   const std::vector<Index>& ranks, const Importance& importance,
                   const Arguments& arguments, Progress& progress, FactoredLayers& factored) {
  Pass<Progress> pass(layers, progress);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    pass.begin(layers[i]);
    const Index columns = factored[i] ? factored[i]->columns : 0;
    const double before = factored[i] ? factored[i]->seconds : 0.0;
    if (columns < ranks[i]) {
      factored[i] = factorize(file, layers[i], importance, arguments, ranks[i]);
      factored[i]->seconds += before;
    }
    pass.end(layers[i]);
  }
}

inline LayerReport report_of(const Layer& layer, const Importance& importance,
                             const std::optional<Factors>& factors, Index rank) {
  LayerReport report{
      layer.name(), layer.out(), layer.in(), layer.tensor->dtype, importance.method(layer), rank};
  if (rank > 0) report.relative_error = factors->relative_error(rank);
  if (factors) report.seconds = factors->seconds;
  return report;
}

/// The model's tensors in their order, each factored one replaced by its factors.
inline void write_model(const std::string& path, const pare::io::SafetensorsFile& file,
                        const std::vector<Layer>& layers, const std::vector<Index>& ranks,
                        const FactoredLayers& factored, const Report& report) {
  std::vector<pare::io::NamedTensor> tensors;
  std::map<std::string, std::string> metadata = file.metadata();
  std::size_t next = 0;
  for (const auto& tensor : file.tensors()) {
    if (next == layers.size() || layers[next].tensor != &tensor) {
      tensors.emplace_back(tensor);
      continue;
    }
    const std::size_t i = next++;
    metadata["pare.method." + tensor.name] =
        ranks[i] == 0 ? "dense" : method_name(report.layers[i].method);
    if (ranks[i] == 0) {
      tensors.emplace_back(tensor);
      continue;
    }
    metadata["pare.rank." + tensor.name] = std::to_string(ranks[i]);
    for (auto& factor : factored[i]->tensors(layers[i], ranks[i]))
      tensors.push_back(std::move(factor));
  }
  pare::io::write_safetensors(path, tensors, metadata);
}

}  // namespace detail

/// Does what the command line asks for; `progress(share, what)` is called before each step.
///
/// Unless each layer has the same share, layers are factored at the largest useful rank first,
/// which gives the spectra that ranks are chosen by; factors are then cut, not computed again.
/// Memory: one layer in float or double and what its factorization takes, and the factors that are
/// kept, which are no larger than the layers themselves.
///
/// \throws std::invalid_argument if a file is broken or cannot be written, what is known of a layer
///         does not fit it, or no ranks meet the budget. The output is then as it was before.
template <class Progress>
Report compress_model(const Arguments& arguments, Progress&& progress) {
  const auto start = std::chrono::steady_clock::now();
  const pare::io::SafetensorsFile file(arguments.input);
  const std::vector<Layer> layers = select_layers(file, arguments);
  const Importance importance(arguments, layers);
  check_writable(arguments.output);

  Budget budget(layers, arguments);
  detail::FactoredLayers factored(layers.size());
  const auto factorize_to = [&](const std::vector<Index>& ranks) {
    detail::factorize_all(file, layers, ranks, importance, arguments, progress, factored);
  };
  if (budget.needs_spectra()) factorize_to(budget.largest_ranks());
  const std::vector<Index> ranks = budget.choose_ranks(factored);
  factorize_to(ranks);

  Report report;
  for (std::size_t i = 0; i < layers.size(); ++i)
    report.layers.push_back(detail::report_of(layers[i], importance, factored[i], ranks[i]));
  progress(1.0, "writing " + arguments.output);
  report.input_bytes = std::filesystem::file_size(arguments.input);
  detail::write_model(arguments.output, file, layers, ranks, factored, report);
  report.output_bytes = std::filesystem::file_size(arguments.output);
  report.copied = file.tensors().size() - layers.size();
  report.other_types = matrices_of_other_types(file, arguments);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace compress
