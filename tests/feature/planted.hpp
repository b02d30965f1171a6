// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Planted truth: labels of known fields among noise, of many widths and activities, in the design
/// that the algorithm's specification reports its numbers of.

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/model/mlp.hpp>
#include <pare/feature/score.hpp>

#include "feature/model_checks.hpp"

namespace pare::testing {

/// One field of the design.
struct PlantedField {
  std::string name;
  Index width = 1;
  double active = 1;  ///< the share of rows in which it is not 0
  double effect = 0;  ///< on the logit, of unit deviation of the field where it is active
};

/// Rows of fields, columns of unit deviation, with labels; the first rows are to train on.
struct Planted {
  std::vector<PlantedField> fields;
  feature::FieldLayout layout;
  Rows<float> x;
  std::vector<int> labels;
  Index training = 0;

  auto training_x() const { return x.topRows(training); }
  auto holdout_x() const { return x.bottomRows(x.rows() - training); }
  std::span<const int> training_labels() const {
    return std::span(labels).first(static_cast<std::size_t>(training));
  }
  std::span<const int> holdout_labels() const {
    return std::span(labels).subspan(static_cast<std::size_t>(training));
  }
  std::vector<int> truth() const {
    std::vector<int> informative;
    for (const PlantedField& field : fields) informative.push_back(field.effect != 0 ? 1 : 0);
    return informative;
  }
  std::size_t at(const std::string& name) const {
    for (std::size_t j = 0; j < fields.size(); ++j)
      if (fields[j].name == name) return j;
    ADD_FAILURE() << "no field " << name;
    return 0;
  }
};

/// 15 informative fields, the last two by their product alone, and 23 of noise: 524 columns.
inline std::vector<PlantedField> planted_fields() {
  std::vector<PlantedField> fields;
  for (const double effect : {1.0, 0.7, 0.5, 0.35, 0.25, 0.15})
    fields.push_back({"dense " + std::to_string(fields.size()), 1, 1, effect});
  fields.push_back({"wide strong", 64, 1, 0.5});
  fields.push_back({"wide weak", 64, 1, 0.25});
  fields.push_back({"rare 1% +", 1, 0.01, 3});
  fields.push_back({"rare 1% -", 1, 0.01, -3});
  fields.push_back({"rare 2%", 1, 0.02, 2});
  fields.push_back({"rare 0.2%", 1, 0.002, 4});
  fields.push_back({"wide rare", 32, 0.02, 3});
  fields.push_back({"pair a", 1, 1, 1});
  fields.push_back({"pair b", 1, 1, 1});
  for (int i = 0; i < 10; ++i) fields.push_back({"noise dense"});
  for (int i = 0; i < 4; ++i) fields.push_back({"noise wide", 64});
  for (int i = 0; i < 6; ++i) fields.push_back({"noise rare", 1, 0.01});
  for (int i = 0; i < 2; ++i) fields.push_back({"noise wide rare", 32, 0.02});
  fields.push_back({"noise embedding", 16});
  return fields;
}

/// A field's columns, each divided by its deviation as activity and width give it, and what it adds
/// to the logits.
inline void fill_field(const PlantedField& field, Index offset, Engine& random, Rows<float>& x,
                       Eigen::VectorXd& logits) {
  const double deviation = std::sqrt(field.active);
  const double share = 1 / std::sqrt(static_cast<double>(field.width));
  const bool flag = field.width == 1 && field.active < 1;
  for (Index b = 0; b < x.rows(); ++b) {
    double sum = 0;
    const bool active = uniform(random) < 2 * field.active - 1;
    for (Index k = 0; k < field.width; ++k) {
      const double value = active ? (flag ? 1 : normal(random)) : 0;
      x(b, offset + k) = static_cast<float>(value / deviation);
      sum += share * value * (k % 2 == 0 ? 1 : -1);
    }
    logits(b) += field.effect * sum;
  }
}

/// The last two fields named "pair" are signs, of which only the product counts.
inline void fill_pair(Index a, Index b, double effect, Engine& random, Rows<float>& x,
                      Eigen::VectorXd& logits) {
  for (Index row = 0; row < x.rows(); ++row) {
    x(row, a) = random() % 2 == 0 ? 1.0f : -1.0f;
    x(row, b) = random() % 2 == 0 ? 1.0f : -1.0f;
    logits(row) += effect * static_cast<double>(x(row, a)) * static_cast<double>(x(row, b));
  }
}

inline Planted planted(std::vector<PlantedField> fields, Index training, Index holdout,
                       std::uint64_t seed) {
  std::vector<Index> widths;
  for (const PlantedField& field : fields) widths.push_back(field.width);
  Planted data{std::move(fields), feature::FieldLayout(widths), {}, {}, training};
  data.x.resize(training + holdout, data.layout.dim());
  Eigen::VectorXd logits = Eigen::VectorXd::Zero(data.x.rows());
  Engine random(seed);
  for (std::size_t j = 0; j < data.fields.size(); ++j) {
    const Index at = data.layout.offset(static_cast<Index>(j));
    if (data.fields[j].name == "pair b") continue;
    if (data.fields[j].name == "pair a")
      fill_pair(at, at + 1, data.fields[j].effect, random, data.x, logits);
    else
      fill_field(data.fields[j], at, random, data.x, logits);
  }
  for (Index b = 0; b < data.x.rows(); ++b)
    data.labels.push_back(uniform(random) < 2 * feature::sigmoid(logits(b)) - 1 ? 1 : 0);
  return data;
}

/// Gates after training on planted data.
struct PlantedGates {
  std::vector<double> gates;
  feature::Ranking ranking;
  feature::TrainLeapReport report;
  double polarization = 0;
};

inline PlantedGates train_gates(const Planted& data, const feature::LeapOptions& options,
                                const feature::TrainLeapOptions& training) {
  feature::Mlp<float> model(data.layout.dim(), {.hidden = {32}, .seed = options.seed});
  feature::Leap<float> leap(data.layout, options);
  PlantedGates result;
  result.report = feature::train_leap(model, leap, data.training_x(), data.training_labels(),
                                      data.holdout_x(), data.holdout_labels(), training);
  result.gates = leap.gates();
  result.ranking = leap.ranking();
  result.polarization = leap.polarization();
  return result;
}

}  // namespace pare::testing
