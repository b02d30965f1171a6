// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The ratings and films of MovieLens, as the files of ml-latest-small (or ml-latest) have them.
///
/// ```cpp
/// const movie_lens::Data data = movie_lens::read("ml-latest-small");
/// for (const movie_lens::Rating& r : data.ratings) use(r.user, data.movies[r.item].title);
/// ```
///
/// The data are not part of Pare. Source: Harper and Konstan, ACM TiiS 5 (2015);
/// https://grouplens.org/datasets/movielens.

#include "common/csv_lines.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace movie_lens {

struct Movie {
  int id = 0;                       ///< that of the file
  std::string title;                ///< without the year behind it
  std::optional<int> year;          ///< none where the title ends in no (year)
  std::vector<std::size_t> genres;  ///< positions in Data::genres, each once; maybe none
};

struct Rating {
  std::size_t user = 0;   ///< position in Data::user_ids
  std::size_t item = 0;   ///< position in Data::movies
  double rating = 0;      ///< .5 to 5 stars, in halves
  std::int64_t time = 0;  ///< seconds since 1970
};

struct Data {
  std::vector<Movie> movies;        ///< in the order of the file, films without ratings included
  std::vector<std::string> genres;  ///< in order of first appearance
  std::vector<Rating> ratings;      ///< in the order of the file; no user rates a film twice
  std::vector<int> user_ids;        ///< rising
};

namespace detail {

using command_line::CsvLines;

inline int id_in(const CsvLines& lines, std::size_t cell) {
  return lines.number(cell, 1, 2'000'000'000, "an id of at least 1");
}

/// Takes the year off a title: `Heat (1995)` becomes `Heat`.
inline std::optional<int> take_year(std::string& title) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  title.erase(title.find_last_not_of(' ') + 1);
  const std::size_t at = title.size() < 6 ? 0 : title.size() - 6;
  const std::string_view end = std::string_view(title).substr(at);
  if (end.size() != 6 || end[0] != '(' || end[5] != ')') return std::nullopt;
  if (!std::all_of(end.begin() + 1, end.end() - 1, digit)) return std::nullopt;
  const int year = std::stoi(std::string(end.substr(1, 4)));
  title.erase(at);
  title.erase(title.find_last_not_of(' ') + 1);
  return year;
}

/// `Action|Comedy`, by position; new ones are added.
inline std::vector<std::size_t> genres_in(const CsvLines& lines, std::size_t cell,
                                          std::vector<std::string>& known) {
  std::vector<std::size_t> genres;
  const std::string_view text = lines.cell(cell);
  if (text == "(no genres listed)") return genres;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('|', begin), text.size());
    const std::string_view name = text.substr(begin, end - begin);
    if (name.empty()) lines.refuse(cell, "names of genres with | between");
    const auto place =
        static_cast<std::size_t>(std::find(known.begin(), known.end(), name) - known.begin());
    if (place == known.size()) known.emplace_back(name);
    if (std::find(genres.begin(), genres.end(), place) != genres.end())
      lines.refuse(cell, "each genre once");
    genres.push_back(place);
    begin = end + 1;
  }
  return genres;
}

using Places = std::unordered_map<int, std::size_t>;  ///< of ids

inline Places read_movies(const std::filesystem::path& path, Data& data) {
  CsvLines lines(path, "movieId,title,genres");
  Places places;
  while (lines.next()) {
    Movie movie{.id = id_in(lines, 0), .title = lines.cell(1), .year = {}, .genres = {}};
    if (!places.emplace(movie.id, data.movies.size()).second)
      lines.refuse(0, "an id that no film above has");
    movie.year = take_year(movie.title);
    if (movie.title.empty()) lines.refuse(1, "a title");
    movie.genres = genres_in(lines, 2, data.genres);
    data.movies.push_back(std::move(movie));
  }
  if (data.movies.empty()) throw command_line::CsvError(path.string() + ": no film in the file");
  return places;
}

inline double stars_in(const CsvLines& lines, std::size_t cell) {
  constexpr const char* wanted = "stars from 0.5 to 5, in halves";
  const double stars = lines.number(cell, 0.5, 5.0, wanted);
  if (2 * stars != static_cast<int>(2 * stars)) lines.refuse(cell, wanted);
  return stars;
}

/// Users by id for now.
inline void read_ratings(const std::filesystem::path& path, const Places& places, Data& data) {
  CsvLines lines(path, "userId,movieId,rating,timestamp");
  std::unordered_set<std::uint64_t> pairs;
  while (lines.next()) {
    const int user = id_in(lines, 0), movie = id_in(lines, 1);
    const auto place = places.find(movie);
    if (place == places.end()) lines.refuse(1, "the id of a film in movies.csv");
    const auto pair = static_cast<std::uint64_t>(user) << 32 | static_cast<std::uint64_t>(movie);
    if (!pairs.insert(pair).second) lines.refuse(1, "a film that the user has not rated above");
    data.ratings.push_back(
        {static_cast<std::size_t>(user), place->second, stars_in(lines, 2),
         lines.number<std::int64_t>(3, 0, std::int64_t{1} << 40, "seconds since 1970")});
  }
  if (data.ratings.empty()) throw command_line::CsvError(path.string() + ": no rating in the file");
}

inline void number_users(Data& data) {
  for (const Rating& rating : data.ratings) data.user_ids.push_back(static_cast<int>(rating.user));
  std::sort(data.user_ids.begin(), data.user_ids.end());
  data.user_ids.erase(std::unique(data.user_ids.begin(), data.user_ids.end()), data.user_ids.end());
  for (Rating& rating : data.ratings)
    rating.user =
        static_cast<std::size_t>(std::lower_bound(data.user_ids.begin(), data.user_ids.end(),
                                                  static_cast<int>(rating.user)) -
                                 data.user_ids.begin());
}

}  // namespace detail

/// Reads movies.csv and ratings.csv of a folder. Throws command_line::CsvError at the first line
/// that is not as described above.
inline Data read(const std::filesystem::path& folder) {
  Data data;
  const detail::Places places = detail::read_movies(folder / "movies.csv", data);
  detail::read_ratings(folder / "ratings.csv", places, data);
  detail::number_users(data);
  return data;
}

}  // namespace movie_lens
