// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A real table widened by fields that a good ranking drops, and by some that it must not.

#include "common/digits_data.hpp"
#include "table/data_table.hpp"

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <numbers>
#include <random>
#include <string>
#include <vector>

namespace table {
namespace detail {

inline double unit(std::mt19937_64& bits) { return static_cast<double>(bits() >> 11) * 0x1p-53; }

/// Box and Muller; the standard's distributions differ between libraries.
inline float normal(std::mt19937_64& bits) {
  const double radius = std::sqrt(-2 * std::log(1 - unit(bits)));
  return static_cast<float>(radius * std::cos(2 * std::numbers::pi * unit(bits)));
}

inline void add(Table& table, const std::string& origin, Numbers numbers) {
  const std::string name = origin + " " + std::to_string(table.fields.size());
  table.fields.push_back({name, origin, std::move(numbers), {}, 0});
}

/// 1 in one row of a hundred; where `informative`, in rows of label 1 only.
inline Numbers rare_flag(const Table& table, bool informative, std::mt19937_64& bits) {
  Numbers flag = Numbers::Zero(table.rows(), 1);
  for (Index b = 0; b < table.rows(); ++b) {
    const bool may = !informative || table.labels[static_cast<std::size_t>(b)] == 1;
    if (may && unit(bits) < (informative ? 0.02 : 0.01)) flag(b, 0) = 1;
  }
  return flag;
}

}  // namespace detail

/// Digits, each labelled by whether it is 5 or more: 64 pixels; 16 copies of pixels; 64 pixels with
/// their rows shuffled; 64 normal numbers; 32 flags that are 0 in 99% of the rows, of which 8 are
/// only set in rows of label 1; and an embedding of 64 normal numbers. 241 fields, 304
/// columns.
inline Table widened_digits(const std::filesystem::path& images, std::uint64_t seed) {
  const auto digits = digits::read_digits<double>(images);
  std::mt19937_64 bits(seed);
  Table table;
  for (const int digit : digits.labels) table.labels.push_back(digit >= 5 ? 1 : 0);
  const Index rows = table.rows();
  for (Index i = 0; i < digits::pixels; ++i) detail::add(table, "pixel", digits.images.col(i));
  for (Index i = 0; i < digits::pixels; i += 4) detail::add(table, "copy", digits.images.col(i));
  for (Index i = 0; i < digits::pixels; ++i) {
    const std::vector<Index> order = shuffled(rows, bits);
    Numbers column(rows, 1);
    for (Index b = 0; b < rows; ++b)
      column(b, 0) = digits.images(order[static_cast<std::size_t>(b)], i);
    detail::add(table, "shuffled pixel", std::move(column));
  }
  const auto noise = [&](Index, Index) { return static_cast<double>(detail::normal(bits)); };
  for (int i = 0; i < 64; ++i) detail::add(table, "noise", Numbers::NullaryExpr(rows, 1, noise));
  for (int i = 0; i < 8; ++i) detail::add(table, "rare", detail::rare_flag(table, true, bits));
  for (int i = 0; i < 24; ++i)
    detail::add(table, "rare noise", detail::rare_flag(table, false, bits));
  detail::add(table, "noise embedding", Numbers::NullaryExpr(rows, 64, noise));
  return table;
}

}  // namespace table
