// SPDX-License-Identifier: Apache-2.0
// The files of MovieLens: quoted titles, years, genres, and every malformed line by its name.

#include "common/movie_lens.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

namespace studies_movie_lens_test {
namespace {

using command_line::CsvError;
using movie_lens::Data;

const std::string movies_header = "movieId,title,genres\n";
const std::string ratings_header = "userId,movieId,rating,timestamp\n";

/// A folder with both files that exists as long as this object, named after the running test.
class Folder {
 public:
  Folder(const std::string& movies, const std::string& ratings)
      : path_(std::filesystem::path(testing::TempDir()) /
              (std::string("pare_movie_lens_") +
               testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::create_directories(path_);
    std::ofstream(path_ / "movies.csv", std::ios::binary) << movies;
    std::ofstream(path_ / "ratings.csv", std::ios::binary) << ratings;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// What both files are refused with, without the name of the folder.
std::string refusal(const std::string& movies, const std::string& ratings) {
  const Folder folder(movies, ratings);
  try {
    movie_lens::read(folder.path());
  } catch (const CsvError& error) {
    return std::string(error.what()).substr(folder.path().string().size() + 1);
  }
  return "not refused";
}

std::string of_movies(const std::string& lines) {
  return refusal(movies_header + lines, ratings_header + "1,1,4.0,1\n");
}

std::string of_ratings(const std::string& lines) {
  return refusal(movies_header + "1,A,B\n2,C,D\n", ratings_header + lines);
}

TEST(MovieLens, ReadsFilmsAndRatings) {
  const Folder folder("\xef\xbb\xbf" + movies_header +
                          "1,Toy Story (1995),Adventure|Comedy\r\n"
                          "11,\"American President, The (1995)\",Comedy|Drama\n"
                          "7789,\"11'09\"\"01 - September 11 (2002) \",Drama\n"
                          "40697,Babylon 5,(no genres listed)\n"
                          "5,Note (2006-2007),Drama\n\n\r\n",
                      ratings_header + "9,11,4.5,964982703\n2,1,0.5,0\n9,1,5,7\n");
  const Data data = movie_lens::read(folder.path());
  ASSERT_EQ(data.movies.size(), 5u);
  EXPECT_EQ(data.movies[0].title, "Toy Story");
  EXPECT_EQ(data.movies[1].title, "American President, The");
  EXPECT_EQ(data.movies[1].id, 11);
  EXPECT_EQ(data.movies[1].year, 1995);
  EXPECT_EQ(data.movies[2].title, "11'09\"01 - September 11");
  EXPECT_EQ(data.movies[2].year, 2002);
  EXPECT_EQ(data.movies[3].title, "Babylon 5");
  EXPECT_EQ(data.movies[3].year, std::nullopt);
  EXPECT_EQ(data.movies[4].title, "Note (2006-2007)");
  EXPECT_EQ(data.genres, (std::vector<std::string>{"Adventure", "Comedy", "Drama"}));
  EXPECT_EQ(data.movies[1].genres, (std::vector<std::size_t>{1, 2}));
  EXPECT_TRUE(data.movies[3].genres.empty());
  EXPECT_EQ(data.user_ids, (std::vector<int>{2, 9}));
  ASSERT_EQ(data.ratings.size(), 3u);
  EXPECT_EQ(data.ratings[0].user, 1u);
  EXPECT_EQ(data.ratings[0].item, 1u);
  EXPECT_EQ(data.ratings[0].rating, 4.5);
  EXPECT_EQ(data.ratings[0].time, 964982703);
  EXPECT_EQ(data.ratings[1].user, 0u);
}

TEST(MovieLens, NamesLinesOfFilmsThatAreWrong) {
  EXPECT_EQ(of_movies("1,A,B\n2,C\n"), "movies.csv:3: got 2 cells, wanted 3");
  EXPECT_EQ(of_movies("1,A, The,B\n"), "movies.csv:2: got 4 cells, wanted 3");
  EXPECT_EQ(of_movies("1,\"A, The,B\n"), "movies.csv:2: cell 2: a quote that does not end");
  EXPECT_EQ(of_movies("1,\"A\" x,B\n"), "movies.csv:2: cell 2: text behind a quote");
  EXPECT_EQ(of_movies("1,A\"\"x,B\n"), "movies.csv:2: cell 2: a quote within a cell that has none");
  EXPECT_EQ(of_movies("x,A,B\n"), "movies.csv:2: cell 1: got 'x', wanted an id of at least 1");
  EXPECT_EQ(of_movies("0,A,B\n"), "movies.csv:2: cell 1: got '0', wanted an id of at least 1");
  EXPECT_EQ(of_movies("1,A,B\n1,C,D\n"),
            "movies.csv:3: cell 1: got '1', wanted an id that no film above has");
  EXPECT_EQ(of_movies("1,(1995),B\n"), "movies.csv:2: cell 2: got '(1995)', wanted a title");
  for (const char* genres : {"", "A||B", "|A", "A|"})
    EXPECT_EQ(of_movies("1,A," + std::string(genres) + "\n"),
              "movies.csv:2: cell 3: got '" + std::string(genres) +
                  "', wanted names of genres with | between");
  EXPECT_EQ(of_movies("1,A,B|B\n"), "movies.csv:2: cell 3: got 'B|B', wanted each genre once");
  EXPECT_EQ(of_movies("1,A,B\n\n2,C,D\n"), "movies.csv:3: a blank line between others");
  EXPECT_EQ(of_movies(std::string("1,A\0,B\n", 7)),
            "movies.csv:2: a zero byte: this is not a text file");
  EXPECT_EQ(of_movies(""), "movies.csv: no film in the file");
}

TEST(MovieLens, NamesLinesOfRatingsThatAreWrong) {
  EXPECT_EQ(of_ratings("1,3,4.0,1\n"),
            "ratings.csv:2: cell 2: got '3', wanted the id of a film in movies.csv");
  EXPECT_EQ(of_ratings("1,1,4.0,1\n2,1,4.0,1\n1,1,3.0,2\n"),
            "ratings.csv:4: cell 2: got '1', wanted a film that the user has not rated above");
  for (const char* stars : {"0", "5.5", "4.2", "nan", "x", ""})
    EXPECT_EQ(of_ratings("1,1," + std::string(stars) + ",1\n"),
              "ratings.csv:2: cell 3: got '" + std::string(stars) +
                  "', wanted stars from 0.5 to 5, in halves");
  for (const char* time : {"-1", "1.5", "", "99999999999999999999"})
    EXPECT_EQ(of_ratings("1,1,4," + std::string(time) + "\n"),
              "ratings.csv:2: cell 4: got '" + std::string(time) + "', wanted seconds since 1970");
  EXPECT_EQ(of_ratings("-1,1,4.0,1\n"),
            "ratings.csv:2: cell 1: got '-1', wanted an id of at least 1");
  EXPECT_EQ(of_ratings(""), "ratings.csv: no rating in the file");
}

TEST(MovieLens, RefusesOtherFiles) {
  EXPECT_EQ(refusal("id,title\n", ""),
            "movies.csv:1: got 'id,title', wanted 'movieId,title,genres'");
  EXPECT_EQ(refusal("", ""), "movies.csv: the file is empty");
  const Folder folder("", "");
  for (const auto& path : {folder.path() / "none", folder.path() / "movies.csv"})
    EXPECT_THROW(movie_lens::read(path), CsvError);
}

}  // namespace
}  // namespace studies_movie_lens_test
