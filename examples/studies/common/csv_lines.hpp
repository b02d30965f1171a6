// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Lines of a CSV file with quoted cells (RFC 4180), with errors that name file, line and cell.
///
/// ```cpp
/// command_line::CsvLines lines("movies.csv", "movieId,title,genres");
/// while (lines.next()) use(lines.cell(1));  // "American President, The (1995)", without quotes
/// ```

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace command_line {

/// A file that cannot be used. The message names it and, where there is one, the line at fault.
class CsvError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Reads a file line by line. A cell that begins with a quote ends at the next one, in which two
/// quotes are one; a cell cannot hold the end of a line. A byte order mark, carriage returns at the
/// ends of lines and blank lines at the end of the file are passed over.
class CsvLines {
 public:
  /// Opens the file, whose first line must be `header`; every other has as many cells.
  /// Throws CsvError.
  CsvLines(const std::filesystem::path& path, const std::string& header)
      : path_(path.string()), file_(path, std::ios::binary) {
    if (!file_ || std::filesystem::is_directory(path))
      throw CsvError(path_ + ": cannot be opened for reading");
    if (!std::getline(file_, text_)) throw CsvError(path_ + ": the file is empty");
    ++line_;
    if (text_.starts_with("\xef\xbb\xbf")) text_.erase(0, 3);
    if (text_.ends_with('\r')) text_.pop_back();
    if (text_ != header) fail("got '" + text_.substr(0, 60) + "', wanted '" + header + "'");
    split();
    wanted_ = cells_.size();
  }

  /// Moves to the next line; false at the end of the file. Throws CsvError.
  bool next() {
    if (!std::getline(file_, text_)) {
      if (file_.bad()) throw CsvError(path_ + ": reading failed");
      return false;
    }
    ++line_;
    if (text_.ends_with('\r')) text_.pop_back();
    if (text_.empty()) return expect_end();
    if (text_.find('\0') != std::string::npos) fail("a zero byte: this is not a text file");
    split();
    if (cells_.size() != wanted_)
      fail("got " + std::to_string(cells_.size()) + " cells, wanted " + std::to_string(wanted_));
    return true;
  }

  /// Cell `index` of the current line, without its quotes; valid until next().
  const std::string& cell(std::size_t index) const { return cells_[index]; }

  /// The number that a whole cell is, from `lowest` to `highest`. Throws CsvError.
  template <class Number>
  Number number(std::size_t index, Number lowest, Number highest, const char* wanted) const {
    const std::string& text = cells_[index];
    Number value{};
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end || !(value >= lowest && value <= highest))
      refuse(index, wanted);
    return value;
  }

  /// Reports what is wrong with a cell of the current line.
  [[noreturn]] void refuse(std::size_t index, const std::string& wanted) const {
    fail("cell " + std::to_string(index + 1) + ": got '" + cells_[index] + "', wanted " + wanted);
  }

  /// Reports what is wrong with the current line.
  [[noreturn]] void fail(const std::string& what) const {
    throw CsvError(path_ + ":" + std::to_string(line_) + ": " + what);
  }

 private:
  bool expect_end() {
    const std::size_t blank = line_;
    for (; std::getline(file_, text_); ++line_)
      if (!text_.empty() && text_ != "\r") {
        line_ = blank;
        fail("a blank line between others");
      }
    return false;
  }

  void split() {
    cells_.clear();
    for (std::size_t at = 0;; ++at) {
      std::string& cell = cells_.emplace_back();
      at = at < text_.size() && text_[at] == '"' ? quoted(at + 1, cell) : plain(at, cell);
      if (at == text_.size()) return;
      if (text_[at] != ',') fail("cell " + std::to_string(cells_.size()) + ": text behind a quote");
    }
  }

  std::size_t plain(std::size_t at, std::string& cell) const {
    const std::size_t end = std::min(text_.find(',', at), text_.size());
    cell.assign(text_, at, end - at);
    if (cell.find('"') != std::string::npos)
      fail("cell " + std::to_string(cells_.size()) + ": a quote within a cell that has none");
    return end;
  }

  std::size_t quoted(std::size_t at, std::string& cell) const {
    for (; at < text_.size(); ++at) {
      if (text_[at] == '"' && (++at == text_.size() || text_[at] != '"')) return at;
      cell += text_[at];
    }
    fail("cell " + std::to_string(cells_.size()) + ": a quote that does not end");
  }

  std::string path_;
  std::ifstream file_;
  std::string text_;
  std::vector<std::string> cells_;
  std::size_t line_ = 0;
  std::size_t wanted_ = 0;
};

}  // namespace command_line
