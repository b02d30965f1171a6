// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "table/csv_table.hpp"

namespace studies_table_csv_test {
namespace {

using table::InputError;
using table::Table;

/// A file that is gone when the test is.
class CsvFile {
 public:
  explicit CsvFile(const std::string& text)
      : path_(std::filesystem::temp_directory_path() /
              (std::string("pare_table_") +
               testing::UnitTest::GetInstance()->current_test_info()->name() + ".csv")) {
    std::ofstream(path_, std::ios::binary) << text;
  }
  ~CsvFile() { std::filesystem::remove(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// What reading a text is refused with.
std::string refusal(const std::string& text) {
  const CsvFile file(text);
  try {
    table::read_csv(file.path(), 16);
  } catch (const InputError& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.rfind(file.path().string(), 0), 0u) << message;
    return message.substr(file.path().string().size());
  }
  ADD_FAILURE() << "accepted";
  return "";
}

TEST(CsvTable, ReadsNumbersCategoriesAndLabels) {
  const CsvFile file(
      "genre:number,user:category,genre:number,liked:label,year:number\r\n"
      "1,alice,0,1,1995\r\n"
      "0.5,bob,-2e1,0,\r\n"
      "0,alice,3,0,7");
  const Table t = table::read_csv(file.path(), 1000);
  ASSERT_EQ(t.rows(), 3);
  EXPECT_EQ(t.labels, (std::vector<int>{1, 0, 0}));
  ASSERT_EQ(t.fields.size(), 3u);
  EXPECT_EQ(t.fields[0].name, "genre");
  table::Numbers genre(3, 2);
  genre << 1, 0, 0.5, -20, 0, 3;
  EXPECT_EQ(t.fields[0].numbers, genre);
  EXPECT_FALSE(t.fields[0].is_category());
  EXPECT_TRUE(t.fields[1].is_category());
  EXPECT_EQ(t.fields[1].buckets, 1000);
  ASSERT_EQ(t.fields[1].categories.size(), 3u);
  EXPECT_EQ(t.fields[1].categories[0], t.fields[1].categories[2]);
  EXPECT_NE(t.fields[1].categories[0], t.fields[1].categories[1]);
  // FNV-1a of "bob".
  EXPECT_EQ(t.fields[1].categories[1], static_cast<int>(table::detail::hash_of("bob") % 1000));
  EXPECT_EQ(t.fields[2].numbers(1, 0), 0) << "an empty number is 0";
  EXPECT_EQ(t.fields[2].numbers(2, 0), 7);
}

TEST(CsvTable, LeavesOutAByteOrderMarkAndBlankLinesAtTheEnd) {
  const CsvFile file("\xEF\xBB\xBFyear:number,y:label\r\n1995,1\r\n7,0\r\n\r\n\n");
  const Table t = table::read_csv(file.path(), 16);
  EXPECT_EQ(t.rows(), 2);
  EXPECT_EQ(t.fields[0].name, "year");
  EXPECT_NE(refusal("a:number,y:label\n1,1\n\n\n2,0\n").find(":3: got a blank line"),
            std::string::npos);
}

/// A float would lose up to 128 s.
TEST(CsvTable, KeepsSecondsSince1970) {
  const CsvFile file("t:number,y:label\n1709912349,1\n1709912350.25,0\n");
  const Table t = table::read_csv(file.path(), 16);
  EXPECT_EQ(t.fields[0].numbers(0, 0), 1709912349.0);
  EXPECT_EQ(t.fields[0].numbers(1, 0), 1709912350.25);
}

/// Published vectors of 32-bit FNV-1a.
TEST(CsvTable, HashesAsFnvDoes) {
  EXPECT_EQ(table::detail::hash_of(""), 0x811c9dc5u);
  EXPECT_EQ(table::detail::hash_of("a"), 0xe40c292cu);
  EXPECT_EQ(table::detail::hash_of("foobar"), 0xbf9cf968u);
}

TEST(CsvTable, NamesFileLineAndColumnOfWhatItRefuses) {
  EXPECT_NE(refusal("a:number,b\n").find(":1: column 2: got 'b', wanted name:number"),
            std::string::npos);
  EXPECT_NE(refusal("a:numbers,y:label\n").find(":1: column 1: got 'numbers'"), std::string::npos);
  EXPECT_NE(refusal("a:category,a:number,y:label\n").find(":1: column 2"), std::string::npos);
  EXPECT_NE(refusal("a:number,a:category,y:label\n").find(":1: column 2"), std::string::npos);
  EXPECT_NE(refusal("a:number\n1\n").find("got 0 labels"), std::string::npos);
  EXPECT_NE(refusal("x:label,y:label,a:number\n").find("got 2 labels"), std::string::npos);
  EXPECT_NE(refusal("y:label\n1\n").find("0 fields"), std::string::npos);
  EXPECT_NE(refusal("a:number,y:label\n1,1\n2\n").find(":3: got 1 columns, wanted 2"),
            std::string::npos);
  EXPECT_NE(refusal("a:number,y:label\n1x,1\n").find(":2: column 1: got '1x'"), std::string::npos);
  EXPECT_NE(refusal("a:number,y:label\nnan,1\n").find("got 'nan'"), std::string::npos);
  EXPECT_NE(refusal("a:number,y:label\n1,2\n").find(":2: column 2: got '2', wanted 0 or 1"),
            std::string::npos);
  EXPECT_NE(refusal("a:number,y:label\n").find("no rows"), std::string::npos);
  EXPECT_NE(refusal("").find("no rows"), std::string::npos);
  EXPECT_EQ(refusal("a:number,y:label\n3,1\n4,1\n"),
            ": got labels 1 only, wanted some rows of each label");
  EXPECT_THROW(table::read_csv(std::filesystem::temp_directory_path(), 16), InputError);
}

}  // namespace
}  // namespace studies_table_csv_test
