// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Images of handwritten digits, read from CSV and split into those to learn from and the rest.

#include <Eigen/Core>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace digits {

using Index = Eigen::Index;

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

inline constexpr Index pixels = 64;
inline constexpr Index classes = 10;

/// A file that cannot be used. The message names it and, where there is one, the line at fault:
/// `digits.csv:17: column 3: got 'x', wanted a whole number from 0 to 16`.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Images and the digits they show.
template <class T>
struct DataSet {
  Matrix<T> images;         ///< [examples x pixels], grey levels from 0 to 1
  std::vector<int> labels;  ///< 0 to 9

  Index size() const { return images.rows(); }
};

namespace detail {

inline constexpr int white = 16;
inline constexpr std::size_t line_columns = pixels + 1;

inline std::vector<std::string_view> split_at_commas(std::string_view line) {
  std::vector<std::string_view> columns;
  for (std::size_t begin = 0; begin <= line.size();) {
    const std::size_t end = std::min(line.find(',', begin), line.size());
    columns.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return columns;
}

/// Reads a line of pixels and digit, all whole numbers; `place` is its file and number.
inline std::vector<int> read_line(std::string_view line, const std::string& place) {
  const std::vector<std::string_view> columns = split_at_commas(line);
  if (columns.size() != line_columns)
    throw InputError(place + ": got " + std::to_string(columns.size()) +
                     " columns, wanted 64 pixels and a digit");
  std::vector<int> numbers;
  for (const std::string_view column : columns) {
    const int highest = numbers.size() + 1 < line_columns ? white : static_cast<int>(classes) - 1;
    const char* const end = column.data() + column.size();
    int number = -1;
    const auto [stop, error] = std::from_chars(column.data(), end, number);
    if (error != std::errc() || stop != end || number < 0 || number > highest)
      throw InputError(place + ": column " + std::to_string(numbers.size() + 1) + ": got '" +
                       std::string(column) + "', wanted a whole number from 0 to " +
                       std::to_string(highest));
    numbers.push_back(number);
  }
  return numbers;
}

}  // namespace detail

/// Reads lines of 64 grey levels from 0 to 16 and a digit, split by commas. Throws InputError at
/// the first line of another form, or if there is none.
template <class T>
DataSet<T> read_digits(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path))
    throw InputError(path.string() + ": cannot be opened for reading");
  DataSet<T> digits;
  std::vector<int> levels;
  std::string line;
  for (std::size_t number = 1; std::getline(file, line); ++number) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const auto row = detail::read_line(line, path.string() + ":" + std::to_string(number));
    levels.insert(levels.end(), row.begin(), row.end() - 1);
    digits.labels.push_back(row.back());
  }
  if (file.bad()) throw InputError(path.string() + ": reading failed");
  if (digits.labels.empty()) throw InputError(path.string() + ": no images in it");
  const auto examples = static_cast<Index>(digits.labels.size());
  digits.images = Eigen::Map<const Matrix<int>>(levels.data(), examples, pixels).cast<T>() /
                  static_cast<T>(detail::white);
  return digits;
}

/// What to learn from and what to be judged on.
template <class T>
struct Split {
  DataSet<T> train, test;
};

/// Numbers 0 to count - 1 in an order drawn from `bits`, the same on every platform.
inline std::vector<Index> shuffled(Index count, std::mt19937_64& bits) {
  std::vector<Index> order(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<Index>(i);
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[static_cast<std::size_t>(bits() % i)]);
  return order;
}

/// The examples numbered order[begin, end).
template <class T>
DataSet<T> select(const DataSet<T>& digits, const std::vector<Index>& order, std::size_t begin,
                  std::size_t end) {
  DataSet<T> chosen{Matrix<T>(static_cast<Index>(end - begin), digits.images.cols()), {}};
  for (std::size_t i = begin; i < end; ++i) {
    chosen.images.row(static_cast<Index>(i - begin)) = digits.images.row(order[i]);
    chosen.labels.push_back(digits.labels[static_cast<std::size_t>(order[i])]);
  }
  return chosen;
}

/// Splits in an order drawn from `bits`. Throws std::invalid_argument if either part would be
/// empty.
template <class T>
Split<T> split(const DataSet<T>& digits, double train_fraction, std::mt19937_64& bits) {
  const auto train = std::llround(train_fraction * static_cast<double>(digits.size()));
  if (train < 1 || train >= digits.size())
    throw std::invalid_argument("split: got " + std::to_string(digits.size()) +
                                " images, wanted some to train on and some to test on");
  const std::vector<Index> order = shuffled(digits.size(), bits);
  const auto cut = static_cast<std::size_t>(train);
  return {select(digits, order, 0, cut), select(digits, order, cut, order.size())};
}

}  // namespace digits
