// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which tensors of a model are factored.

#include "compress/arguments.hpp"

#include <pare/io/safetensors.hpp>

#include <optional>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

namespace compress {

/// Sides of the smallest matrix that is factored unless a pattern says which.
inline constexpr Index least_side = 64;

/// A weight W [out x in] of the open input file.
struct Layer {
  const pare::io::SafetensorsTensor* tensor;

  const std::string& name() const { return tensor->name; }
  Index out() const { return tensor->shape[0]; }
  Index in() const { return tensor->shape[1]; }
  Index parameters() const { return out() * in(); }

  std::string left_name() const { return name() + ".left"; }
  std::string right_name() const { return name() + ".right"; }
};

inline bool is_floating(const std::string& dtype) {
  return dtype == "F64" || dtype == "F32" || dtype == "F16" || dtype == "BF16";
}

/// Whether a matrix is one that the user asks for, of whatever type.
inline bool is_asked_for(const pare::io::SafetensorsTensor& tensor,
                         const std::optional<std::regex>& only) {
  if (tensor.shape.size() != 2 || tensor.bytes.empty()) return false;
  if (only) return std::regex_search(tensor.name, *only);
  return tensor.shape[0] >= least_side && tensor.shape[1] >= least_side;
}

inline bool is_factored(const pare::io::SafetensorsTensor& tensor,
                        const std::optional<std::regex>& only) {
  return is_floating(tensor.dtype) && is_asked_for(tensor, only);
}

/// The matrices that are copied for their type alone, with it: integers, and floats of 8 bits or
/// less, which need the scales that are kept beside them.
inline std::vector<std::string> matrices_of_other_types(const pare::io::SafetensorsFile& file,
                                                        const Arguments& arguments) {
  std::vector<std::string> names;
  for (const auto& tensor : file.tensors())
    if (is_asked_for(tensor, arguments.only) && !is_floating(tensor.dtype))
      names.push_back(tensor.name + " (" + tensor.dtype + ")");
  return names;
}

/// The layers to factor, in the order of the file.
/// \throws std::invalid_argument if there is none, or the name of a factor is taken.
inline std::vector<Layer> select_layers(const pare::io::SafetensorsFile& file,
                                        const Arguments& arguments) {
  std::vector<Layer> layers;
  for (const auto& tensor : file.tensors())
    if (is_factored(tensor, arguments.only)) layers.push_back({&tensor});
  if (layers.empty())
    throw std::invalid_argument(
        arguments.input + ": got no matrix of floats " +
        (arguments.only ? "whose name --only matches" : "of at least 64 x 64") +
        ", wanted one to factor");
  for (const Layer& layer : layers)
    for (const std::string& name : {layer.left_name(), layer.right_name()})
      if (file.contains(name))
        throw std::invalid_argument(arguments.input + ": got a tensor '" + name +
                                    "', wanted that name for a factor");
  return layers;
}

}  // namespace compress
