// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows of numbers and categories with a label of two classes, field by field.

#include <Eigen/Core>

#include <cstddef>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace table {

using Index = Eigen::Index;
using Numbers = Eigen::MatrixXd;  ///< [rows x columns]; double: seconds since 1970 have 31 bits

/// A table that cannot be used. The message names the file and, where there is one, the line.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What is kept or dropped as a whole: numbers of one or more columns, or a category.
struct Field {
  std::string name;
  std::string origin;           ///< what kind of field it is said to be; empty: not known
  Numbers numbers;              ///< [rows x columns]; empty of a category
  std::vector<int> categories;  ///< [rows] in [0, buckets); empty of numbers
  int buckets = 0;

  bool is_category() const { return buckets > 0; }
};

struct Table {
  std::vector<Field> fields;
  std::vector<int> labels;  ///< [rows] 0 or 1
  std::string source;       ///< the file it was read from; empty: none

  Index rows() const { return static_cast<Index>(labels.size()); }

  /// A table of some of the fields.
  Table with_fields(const std::vector<Index>& kept) const {
    Table some{{}, labels, source};
    for (const Index j : kept) some.fields.push_back(fields[static_cast<std::size_t>(j)]);
    return some;
  }
};

/// Numbers 0 to count - 1 in an order drawn from `bits`, the same on every platform.
inline std::vector<Index> shuffled(Index count, std::mt19937_64& bits) {
  std::vector<Index> order(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<Index>(i);
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[static_cast<std::size_t>(bits() % i)]);
  return order;
}

/// Rows to train on, to learn from which fields matter, and to be judged by.
struct Split {
  std::vector<Index> train, holdout, test;

  /// What a model may see that is judged by `test`.
  std::vector<Index> seen() const {
    std::vector<Index> rows = train;
    rows.insert(rows.end(), holdout.begin(), holdout.end());
    return rows;
  }
};

namespace detail {

/// `message`, behind the name of the file where there is one.
[[noreturn]] inline void refuse(const Table& table, const std::string& message) {
  throw InputError(table.source.empty() ? message : table.source + ": " + message);
}

inline void check_classes(const Table& table, const std::vector<Index>& rows, const char* part) {
  std::size_t ones = 0;
  for (const Index row : rows) ones += table.labels[static_cast<std::size_t>(row)] == 1 ? 1 : 0;
  if (ones == 0 || ones == rows.size())
    refuse(table, "got " + std::to_string(ones) + " rows of label 1 among the " +
                      std::to_string(rows.size()) + " of a " + part +
                      ", wanted some of each label: more rows of the rarer one are needed");
}

}  // namespace detail

/// A quarter of the rows to judge by, a fifth of the others to hold out; `bits` draws them. Throws
/// InputError if there are too few rows for that, or a part has rows of one label only.
inline Split split_rows(const Table& table, std::mt19937_64& bits) {
  const Index rows = table.rows(), tests = rows / 4, holdouts = (rows - tests) / 5;
  if (holdouts < 16)
    detail::refuse(table, "got " + std::to_string(rows) + " rows, wanted at least 108");
  const std::vector<Index> order = shuffled(rows, bits);
  const auto part = [&](Index begin, Index end) {
    return std::vector<Index>(order.begin() + begin, order.begin() + end);
  };
  Split split{part(tests + holdouts, rows), part(tests, tests + holdouts), part(0, tests)};
  detail::check_classes(table, split.train, "training part");
  detail::check_classes(table, split.holdout, "hold-out");
  detail::check_classes(table, split.test, "test part");
  return split;
}

}  // namespace table
