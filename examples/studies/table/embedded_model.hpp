// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Numbers as they are and categories as learned embeddings, in front of a small network.

#include "table/data_table.hpp"

#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/model/mlp.hpp>
#include <pare/optim/adam.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace table {

using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct ModelOptions {
  Index embedding = 8;               ///< columns of a category
  std::vector<Index> hidden = {32};  ///< widths of the network
  double learning_rate = 1e-3;       ///< of Adam
  std::uint64_t seed = 0;            ///< of the weights at the start
};

/// A category's vector for each bucket.
class Embedding {
 public:
  Embedding(Index buckets, Index width, const ModelOptions& options, std::mt19937_64& bits)
      : values_(buckets, width),
        gradients_(Rows::Zero(buckets, width)),
        adam_(values_.size(), {.learning_rate = options.learning_rate}) {
    // Uniform, of deviation 0.1.
    for (Index i = 0; i < values_.size(); ++i)
      values_.data()[i] =
          static_cast<float>(std::sqrt(0.12) * (static_cast<double>(bits() >> 11) * 0x1p-53 - 0.5));
  }

  auto vector(int bucket) const { return values_.row(bucket); }
  auto gradient(int bucket) { return gradients_.row(bucket); }

  void step() {
    adam_.step(
        std::span(values_.data(), static_cast<std::size_t>(values_.size())),
        std::span<const float>(gradients_.data(), static_cast<std::size_t>(gradients_.size())));
    gradients_.setZero();
  }

 private:
  Rows values_, gradients_;
  pare::optim::Adam<float> adam_;
};

/// The fields of a table as one row-major matrix, with a network behind them.
class EmbeddedModel {
 public:
  /// Columns of numbers lose their mean on `rows` and are divided by their deviation there.
  EmbeddedModel(const Table& table, const std::vector<Index>& rows, const ModelOptions& options)
      : table_(table),
        layout_(widths_of(table, options.embedding)),
        network_(layout_.dim(), {.hidden = options.hidden,
                                 .seed = options.seed,
                                 .adam = {.learning_rate = options.learning_rate}}) {
    std::mt19937_64 bits(options.seed);
    for (const Field& field : table.fields) {
      columns_.push_back(field.is_category() ? ColumnScales{} : scales_of(field.numbers, rows));
      if (field.is_category())
        embeddings_.emplace_back(field.buckets, options.embedding, options, bits);
    }
  }

  const pare::feature::FieldLayout& layout() const { return layout_; }
  pare::feature::Mlp<float>& network() { return network_; }

  /// The inputs of the network for some rows.
  Rows inputs(std::span<const Index> rows) const {
    Rows x(static_cast<Index>(rows.size()), layout_.dim());
    for_fields([&](Index j, const Field& field, std::size_t embedding) {
      for (std::size_t i = 0; i < rows.size(); ++i) {
        auto to = x.row(static_cast<Index>(i)).segment(layout_.offset(j), layout_.width(j));
        const auto row = static_cast<std::size_t>(rows[i]);
        if (field.is_category())
          to = embeddings_[embedding].vector(field.categories[row]);
        else
          to = columns_[static_cast<std::size_t>(j)].of(field.numbers.row(rows[i]));
      }
    });
    return x;
  }

  /// Adds gradients by the inputs of these rows to the embeddings they came from, and steps.
  void step_embeddings(std::span<const Index> rows, const Rows& gradient) {
    for_fields([&](Index j, const Field& field, std::size_t embedding) {
      if (!field.is_category()) return;
      for (std::size_t i = 0; i < rows.size(); ++i)
        embeddings_[embedding].gradient(field.categories[static_cast<std::size_t>(rows[i])]) +=
            gradient.row(static_cast<Index>(i)).segment(layout_.offset(j), layout_.width(j));
    });
    for (Embedding& embedding : embeddings_) embedding.step();
  }

  bool has_embeddings() const { return !embeddings_.empty(); }

  std::vector<float> labels(std::span<const Index> rows) const {
    std::vector<float> labels;
    for (const Index row : rows)
      labels.push_back(static_cast<float>(table_.labels[static_cast<std::size_t>(row)]));
    return labels;
  }

 private:
  static std::vector<Index> widths_of(const Table& table, Index embedding) {
    std::vector<Index> widths;
    for (const Field& field : table.fields)
      widths.push_back(field.is_category() ? embedding : field.numbers.cols());
    return widths;
  }

  /// What makes columns of numbers of mean 0 and deviation 1.
  struct ColumnScales {
    Eigen::RowVectorXd mean, factor;

    template <class Row>
    Eigen::RowVectorXf of(const Row& row) const {
      return (row - mean).cwiseProduct(factor).template cast<float>();
    }
  };

  static ColumnScales scales_of(const Numbers& numbers, const std::vector<Index>& rows) {
    const Numbers seen = numbers(rows, Eigen::all);
    const Eigen::RowVectorXd mean = seen.colwise().mean();
    Eigen::RowVectorXd factor =
        ((seen.rowwise() - mean).colwise().squaredNorm() / static_cast<double>(seen.rows()))
            .cwiseSqrt();
    for (double& deviation : factor) deviation = deviation > 0 ? 1 / deviation : 1;
    return {mean, factor};
  }

  /// Calls f(number of the field, field, number of the embedding).
  template <class F>
  void for_fields(const F& f) const {
    std::size_t embedding = 0;
    for (std::size_t j = 0; j < table_.fields.size(); ++j) {
      f(static_cast<Index>(j), table_.fields[j], embedding);
      embedding += table_.fields[j].is_category() ? 1 : 0;
    }
  }

  const Table& table_;
  pare::feature::FieldLayout layout_;
  pare::feature::Mlp<float> network_;
  std::vector<ColumnScales> columns_;  ///< by field
  std::vector<Embedding> embeddings_;
};

}  // namespace table
