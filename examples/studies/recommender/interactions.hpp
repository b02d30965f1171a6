// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which films users like, and how they are split into those to train on, to choose by and to
/// judge by.

#include "common/movie_lens.hpp"

#include <pare/retrieval/metrics.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace recommender {

using pare::Index;

/// The items of each user; users and items are numbered from 0.
struct Interactions {
  std::vector<std::vector<Index>> of_user;
  Index items = 0;

  Index users() const { return static_cast<Index>(of_user.size()); }
  std::size_t pairs() const {
    std::size_t sum = 0;
    for (const auto& list : of_user) sum += list.size();
    return sum;
  }
};

namespace detail {

/// Numbers those that have at least `least` pairs; -1 of the others.
inline std::vector<Index> numbered(const std::vector<std::size_t>& pairs, std::size_t least,
                                   Index& count) {
  std::vector<Index> number(pairs.size(), -1);
  count = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i)
    if (pairs[i] >= least) number[i] = count++;
  return number;
}

}  // namespace detail

/// Ratings of at least `stars`, of users and films that have at least `core` of them among
/// themselves. Throws std::runtime_error if none are left.
inline Interactions liked_films(const movie_lens::Data& data, double stars, std::size_t core) {
  std::vector<std::pair<std::size_t, std::size_t>> pairs;
  for (const movie_lens::Rating& rating : data.ratings)
    if (rating.rating >= stars) pairs.emplace_back(rating.user, rating.item);
  for (std::size_t before = pairs.size() + 1; pairs.size() < before;) {
    before = pairs.size();
    std::vector<std::size_t> of_user(data.user_ids.size()), of_item(data.movies.size());
    for (const auto& [user, item] : pairs) ++of_user[user], ++of_item[item];
    std::erase_if(
        pairs, [&](const auto& p) { return of_user[p.first] < core || of_item[p.second] < core; });
  }
  if (pairs.empty()) throw std::runtime_error("no user and film have so many ratings");
  std::vector<std::size_t> of_user(data.user_ids.size()), of_item(data.movies.size());
  for (const auto& [user, item] : pairs) ++of_user[user], ++of_item[item];
  Interactions liked;
  Index users = 0;
  const auto user_number = detail::numbered(of_user, 1, users);
  const auto item_number = detail::numbered(of_item, 1, liked.items);
  liked.of_user.resize(static_cast<std::size_t>(users));
  for (const auto& [user, item] : pairs)
    liked.of_user[static_cast<std::size_t>(user_number[user])].push_back(item_number[item]);
  return liked;
}

/// Lists of all users, one behind the other.
struct UserItems {
  std::vector<Index> offsets{0};
  std::vector<Index> items;

  void add(std::vector<Index> list) {
    std::sort(list.begin(), list.end());
    items.insert(items.end(), list.begin(), list.end());
    offsets.push_back(static_cast<Index>(items.size()));
  }
  pare::retrieval::ItemLists lists() const { return {offsets, items}; }
};

struct Split {
  Index users = 0, items = 0;
  UserItems train, validation, test;
  UserItems seen;  ///< train and validation, which are not ranked when test is judged
};

/// Of each user's items a tenth, at least one, to judge by, as many to choose by, and the others to
/// train on, at random. Users have at least three.
inline Split split_items(const Interactions& liked, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Split split;
  split.users = liked.users();
  split.items = liked.items;
  for (std::vector<Index> list : liked.of_user) {
    for (std::size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[random() % i]);
    const auto part = static_cast<std::ptrdiff_t>(std::max<std::size_t>(list.size() / 10, 1));
    split.test.add({list.begin(), list.begin() + part});
    split.validation.add({list.begin() + part, list.begin() + 2 * part});
    split.train.add({list.begin() + 2 * part, list.end()});
    split.seen.add({list.begin() + part, list.end()});
  }
  return split;
}

}  // namespace recommender
