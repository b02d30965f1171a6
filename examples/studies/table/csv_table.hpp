// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Tables from CSV files whose header says what each column is.
///
/// ```
/// userId:category,year:number,genre:number,genre:number,hour:category,liked:label
/// 7,1995,0,1,23,1
/// ```
///
/// Columns of the same name are one field. Categories may be any text: each is hashed to one of
/// `buckets` numbers. An empty number is 0. Labels are 0 or 1. Quotes are not understood; a byte
/// order mark in front and blank lines at the end are left out.

#include "table/data_table.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace table {
namespace detail {

enum class ColumnKind { Number, Category, Label };

struct CsvColumn {
  std::string name;
  ColumnKind kind = ColumnKind::Number;
  std::size_t field = 0;  ///< of numbers and categories
};

inline std::vector<std::string_view> cells_of(std::string_view line) {
  std::vector<std::string_view> cells;
  for (std::size_t begin = 0; begin <= line.size();) {
    const std::size_t end = std::min(line.find(',', begin), line.size());
    cells.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return cells;
}

/// FNV-1a, by Fowler, Noll and Vo: the same on every platform.
inline std::uint32_t hash_of(std::string_view text) {
  std::uint32_t hash = 2166136261u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

[[noreturn]] inline void reject(const std::string& place, std::size_t column, std::string_view got,
                                const char* wanted) {
  throw InputError(place + ": column " + std::to_string(column + 1) + ": got '" + std::string(got) +
                   "', wanted " + wanted);
}

inline double number_of(std::string_view cell, const std::string& place, std::size_t column) {
  if (cell.empty()) return 0;
  double value = 0;
  const char* const end = cell.data() + cell.size();
  const auto [stop, error] = std::from_chars(cell.data(), end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value))
    reject(place, column, cell, "a number");
  return value;
}

inline ColumnKind kind_of(std::string_view type, const std::string& place, std::size_t column) {
  if (type == "number") return ColumnKind::Number;
  if (type == "category") return ColumnKind::Category;
  if (type == "label") return ColumnKind::Label;
  reject(place, column, type, "number, category or label behind the colon");
}

/// Reads the header and gives the table its fields.
inline std::vector<CsvColumn> read_header(std::string_view line, const std::string& place,
                                          int buckets, Table& table) {
  std::vector<CsvColumn> columns;
  for (const std::string_view cell : cells_of(line)) {
    const std::size_t colon = cell.rfind(':');
    if (colon == std::string_view::npos || colon == 0)
      reject(place, columns.size(), cell, "name:number, name:category or name:label");
    CsvColumn column{std::string(cell.substr(0, colon)),
                     kind_of(cell.substr(colon + 1), place, columns.size())};
    const auto known = std::find_if(table.fields.begin(), table.fields.end(),
                                    [&](const Field& f) { return f.name == column.name; });
    column.field = static_cast<std::size_t>(known - table.fields.begin());
    if (known != table.fields.end() && (column.kind != ColumnKind::Number || known->is_category()))
      reject(place, columns.size(), cell, "another name: only numbers may share one");
    if (column.kind != ColumnKind::Label && known == table.fields.end())
      table.fields.push_back(
          {column.name, "", {}, {}, column.kind == ColumnKind::Category ? buckets : 0});
    columns.push_back(std::move(column));
  }
  const auto labels = std::count_if(columns.begin(), columns.end(),
                                    [](const CsvColumn& c) { return c.kind == ColumnKind::Label; });
  if (labels != 1 || table.fields.empty())
    throw InputError(place + ": got " + std::to_string(labels) + " labels and " +
                     std::to_string(table.fields.size()) + " fields, wanted one label and a field");
  return columns;
}

/// Appends a line's numbers, by field, its categories and its label.
inline void read_row(std::string_view line, const std::string& place,
                     const std::vector<CsvColumn>& columns, Table& table,
                     std::vector<std::vector<double>>& numbers) {
  const auto cells = cells_of(line);
  if (cells.size() != columns.size())
    throw InputError(place + ": got " + std::to_string(cells.size()) + " columns, wanted " +
                     std::to_string(columns.size()));
  for (std::size_t c = 0; c < cells.size(); ++c) {
    const CsvColumn& column = columns[c];
    if (column.kind == ColumnKind::Label) {
      if (cells[c] != "0" && cells[c] != "1") reject(place, c, cells[c], "0 or 1");
      table.labels.push_back(cells[c] == "1" ? 1 : 0);
    } else if (column.kind == ColumnKind::Category) {
      Field& field = table.fields[column.field];
      field.categories.push_back(
          static_cast<int>(hash_of(cells[c]) % static_cast<std::uint32_t>(field.buckets)));
    } else {
      numbers[column.field].push_back(number_of(cells[c], place, c));
    }
  }
}

}  // namespace detail

/// Reads a file as described above. Throws InputError at the first line of another form.
inline Table read_csv(const std::filesystem::path& path, int buckets) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path))
    throw InputError(path.string() + ": cannot be opened for reading");
  Table table;
  table.source = path.string();
  std::vector<detail::CsvColumn> columns;
  std::vector<std::vector<double>> numbers;
  std::string line;
  std::size_t blank = 0;  // the first of the blank lines above
  for (std::size_t number = 1; std::getline(file, line); ++number) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (number == 1 && line.rfind("\xEF\xBB\xBF", 0) == 0) line.erase(0, 3);
    if (line.empty() && number > 1) {
      if (blank == 0) blank = number;
      continue;
    }
    if (blank > 0)
      throw InputError(path.string() + ":" + std::to_string(blank) + ": got a blank line, wanted " +
                       std::to_string(columns.size()) + " columns");
    const std::string place = path.string() + ":" + std::to_string(number);
    if (number == 1) {
      columns = detail::read_header(line, place, buckets, table);
      numbers.resize(table.fields.size());
    } else {
      detail::read_row(line, place, columns, table, numbers);
    }
  }
  if (file.bad()) throw InputError(path.string() + ": reading failed");
  if (table.labels.empty()) detail::refuse(table, "no rows in it");
  const auto ones = std::count(table.labels.begin(), table.labels.end(), 1);
  if (ones == 0 || ones == table.rows())
    detail::refuse(table, "got labels " + std::string(ones == 0 ? "0" : "1") +
                              " only, wanted some rows of each label");
  for (std::size_t j = 0; j < table.fields.size(); ++j) {
    const Index width = static_cast<Index>(numbers[j].size()) / table.rows();
    // Row by row, as they were read.
    table.fields[j].numbers =
        Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
            numbers[j].data(), table.rows(), width);
  }
  return table;
}

}  // namespace table
