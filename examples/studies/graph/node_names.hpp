// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Names and the dense numbers they stand for.

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace graph {

/// Numbers names 0, 1, 2, ... in the order in which they first appear.
class NodeNames {
 public:
  /// The number of the name, a new one if it has not been seen.
  int number(std::string_view name) {
    const auto known = number_of_.find(name);
    if (known != number_of_.end()) return known->second;
    const int number = static_cast<int>(names_.size());
    names_.push_back(&number_of_.emplace(name, number).first->first);
    return number;
  }

  /// The number of the name if it has been seen.
  std::optional<int> find(std::string_view name) const {
    const auto known = number_of_.find(name);
    return known == number_of_.end() ? std::nullopt : std::optional<int>(known->second);
  }

  const std::string& name(int number) const { return *names_[static_cast<std::size_t>(number)]; }
  std::size_t size() const { return names_.size(); }

  /// Renumbers the names by value when all are whole numbers, so that numbers do not depend on the
  /// order of the file. Returns the new number of each old one; empty when nothing changed.
  std::vector<int> sort_whole_numbers() {
    std::vector<std::uint64_t> value(size());
    for (std::size_t i = 0; i < size(); ++i) {
      const std::string& name = *names_[i];
      const char* const end = name.data() + name.size();
      const auto [stop, error] = std::from_chars(name.data(), end, value[i]);
      if (error != std::errc() || stop != end) return {};
    }
    std::vector<std::size_t> order(size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return value[a] < value[b]; });
    std::vector<int> renumbered(size());
    std::vector<const std::string*> sorted(size());
    for (std::size_t i = 0; i < size(); ++i) {
      renumbered[order[i]] = static_cast<int>(i);
      sorted[i] = names_[order[i]];
      number_of_.find(*sorted[i])->second = static_cast<int>(i);
    }
    names_ = std::move(sorted);
    return renumbered;
  }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
  };

  std::unordered_map<std::string, int, Hash, std::equal_to<>> number_of_;
  std::vector<const std::string*> names_;  // keys of the map, which never move
};

}  // namespace graph
