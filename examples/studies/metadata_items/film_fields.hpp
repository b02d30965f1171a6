// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What films are known by: genres, year, decade and words of the title; or the id alone.

#include "common/movie_lens.hpp"

#include <pare/retrieval/items/item_fields.hpp>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace metadata_items {

using pare::Index;
using pare::retrieval::ItemFields;

/// Fields, and how wide the embedding of each is.
struct FilmFields {
  ItemFields fields;
  std::vector<Index> widths;
};

/// Years from 1900 on, 0 for films without one or older.
inline Index year_of(const movie_lens::Movie& movie) {
  return movie.year && *movie.year >= 1900 && *movie.year < 2030 ? *movie.year - 1899 : 0;
}
/// Decades, 0 likewise.
inline Index decade_of(const movie_lens::Movie& movie) {
  return year_of(movie) == 0 ? 0 : (year_of(movie) - 1) / 10 + 1;
}
inline constexpr Index years = 131, decades = 14;

/// The first of a film's genres; one more than there are for a film without.
inline Index main_genre(const movie_lens::Data& data, const movie_lens::Movie& movie) {
  return static_cast<Index>(movie.genres.empty() ? data.genres.size() : movie.genres.front());
}

/// Words of a title in lower case, split at whatever is neither letter nor digit.
inline std::vector<std::string> words_of(const std::string& title) {
  std::vector<std::string> words(1);
  for (const char c : title) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 128 || std::isalnum(byte) != 0)
      words.back() += static_cast<char>(std::tolower(byte));
    else if (!words.back().empty())
      words.emplace_back();
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

namespace detail {

/// Bags one behind the other.
struct Bags {
  std::vector<Index> ids, offsets{0};
  void close() { offsets.push_back(static_cast<Index>(ids.size())); }
};

/// Words of at least `least` films that training saw: others would have no embedding but noise.
inline std::pair<Index, Bags> title_words(const movie_lens::Data& data,
                                          const std::vector<Index>& seen, Index least) {
  std::map<std::string, Index> films;
  for (std::size_t i = 0; i < data.movies.size(); ++i)
    if (seen[i] > 0)
      for (const std::string& word : words_of(data.movies[i].title)) ++films[word];
  Index known = 0;
  for (auto& [word, count] : films) count = count >= least ? known++ : -1;
  Bags bags;
  for (const movie_lens::Movie& movie : data.movies) {
    for (const std::string& word : words_of(movie.title)) {
      const auto at = films.find(word);
      if (at != films.end() && at->second >= 0) bags.ids.push_back(at->second);
    }
    bags.close();
  }
  return {std::max<Index>(known, 1), std::move(bags)};
}

}  // namespace detail

/// Genres in half of the row, year and decade in a quarter; title words, if wanted, in the last
/// quarter, else genres too.
inline FilmFields metadata_of(const movie_lens::Data& data, const std::vector<Index>& seen,
                              Index width, bool with_words) {
  FilmFields film{ItemFields(static_cast<Index>(data.movies.size())), {}};
  detail::Bags genres;
  std::vector<Index> year, decade;
  for (const movie_lens::Movie& movie : data.movies) {
    for (const std::size_t genre : movie.genres) genres.ids.push_back(static_cast<Index>(genre));
    genres.close();
    year.push_back(year_of(movie));
    decade.push_back(decade_of(movie));
  }
  film.fields.add(static_cast<Index>(data.genres.size()), genres.ids, genres.offsets);
  film.fields.add(years, year);
  film.fields.add(decades, decade);
  const Index eighth = width / 8, words = with_words ? 2 * eighth : 0;
  film.widths = {width - 2 * eighth - words, eighth, eighth};
  if (!with_words) return film;
  auto [count, bags] = detail::title_words(data, seen, 5);
  film.fields.add(count, std::move(bags.ids), std::move(bags.offsets));
  film.widths.push_back(words);
  return film;
}

/// The id alone.
inline FilmFields ids_of(const movie_lens::Data& data, Index width) {
  const auto count = static_cast<Index>(data.movies.size());
  FilmFields film{ItemFields(count), {width}};
  std::vector<Index> ids(data.movies.size());
  std::iota(ids.begin(), ids.end(), Index{0});
  film.fields.add(count, std::move(ids));
  return film;
}

}  // namespace metadata_items
