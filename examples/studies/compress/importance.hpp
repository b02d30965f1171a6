// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What is known of how much each weight matters: a file of Fisher information or covariances.

#include "compress/layers.hpp"

#include <pare/factor/metric.hpp>
#include <pare/io/safetensors.hpp>

#include <Eigen/Core>

#include <array>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace compress {

/// The norm that errors of a layer are measured in.
enum class Method { Svd, FisherInput, FisherOutput, Covariance, CovarianceDiagonal };

inline const char* method_name(Method method) {
  constexpr std::array<const char*, 5> names = {"svd", "fisher input", "fisher output",
                                                "covariance", "diagonal"};
  return names[static_cast<std::size_t>(method)];
}

/// The file that says how errors are weighed, if there is one.
class Importance {
 public:
  /// \throws std::invalid_argument if the file is broken, or lacks a layer or has it in a wrong
  ///         shape or type.
  Importance(const Arguments& arguments, const std::vector<Layer>& layers)
      : path_(arguments.fisher.empty() ? arguments.covariance : arguments.fisher),
        fisher_(!arguments.fisher.empty()) {
    if (path_.empty()) return;
    file_.emplace(path_);
    for (const Layer& layer : layers) method(layer);
  }

  Method method(const Layer& layer) const {
    if (!file_) return Method::Svd;
    if (!file_->contains(layer.name()))
      refuse(layer, "no tensor of that name", "one for each factored layer (see --only)");
    const auto& tensor = file_->tensor(layer.name());
    const std::vector<Index>& shape = tensor.shape;
    if (!is_floating(tensor.dtype)) refuse(layer, "elements of " + tensor.dtype, "floats");
    const std::vector<Index> input = {layer.in()}, output = {layer.out()};
    if (!fisher_) {
      if (shape == input) return Method::CovarianceDiagonal;
      if (shape != std::vector<Index>{layer.in(), layer.in()})
        refuse(layer, "shape " + text(shape),
               text({layer.in(), layer.in()}) + " or " + text(input));
      return Method::Covariance;
    }
    if (shape == input || shape == std::vector<Index>{layer.out(), layer.in()})
      return Method::FisherInput;
    if (shape != output)
      refuse(layer, "shape " + text(shape),
             text(input) + ", " + text(output) + " or " + text({layer.out(), layer.in()}));
    return Method::FisherOutput;
  }

  /// Calls `run(metric)`.
  ///
  /// Fisher sums are divided by the number of weights they are taken over, so that errors of
  /// layers of different shapes can be added up: sum_ij F_ij D_ij^2 ~ sum_j mean_i(F_ij) sum_i
  /// D_ij^2.
  template <class Run>
  auto with_metric(const Layer& layer, const Run& run) const {
    namespace factor = pare::factor;
    switch (method(layer)) {
      case Method::FisherInput: {
        const auto fisher = file_->read_matrix<double>(layer.name());
        const bool is_sums = file_->tensor(layer.name()).shape.size() == 1;
        const Eigen::VectorXd sums =
            is_sums ? Eigen::VectorXd(fisher.col(0)) : fisher.colwise().sum().transpose();
        return run(factor::InputWeights(sums / static_cast<double>(layer.out())));
      }
      case Method::FisherOutput: {
        const auto fisher = file_->read_matrix<double>(layer.name());
        return run(factor::OutputWeights(fisher.col(0) / static_cast<double>(layer.in())));
      }
      case Method::Covariance: {
        const auto covariance = file_->read_matrix<double>(layer.name());
        return run(factor::InputCovariance(covariance));
      }
      case Method::CovarianceDiagonal:
        return run(factor::InputWeights(file_->read_matrix<double>(layer.name()).col(0)));
      case Method::Svd:
        break;
    }
    return run(factor::Uniform{});
  }

 private:
  static std::string text(const std::vector<Index>& shape) {
    std::string list;
    for (const Index extent : shape) list += (list.empty() ? "" : ", ") + std::to_string(extent);
    return "[" + list + "]";
  }

  [[noreturn]] void refuse(const Layer& layer, const std::string& got,
                           const std::string& wanted) const {
    throw std::invalid_argument(path_ + ": '" + layer.name() + "': got " + got + ", wanted " +
                                wanted);
  }

  std::string path_;
  bool fisher_;
  std::optional<pare::io::SafetensorsFile> file_;
};

}  // namespace compress
