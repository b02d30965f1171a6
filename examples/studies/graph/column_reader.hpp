// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Text files of columns, read line by line, with errors that name file and line.

#include "common/progress.hpp"

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace graph {

/// A file that cannot be used. The message names it and, where there is one, the line at fault:
/// `edges.txt:17: weight 'x' is not a number`.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Reads the lines of a file that hold columns.
///
/// Columns are separated by spaces, tabs or one comma; blank lines and lines that begin with # or %
/// are passed over; a carriage return at the end of a line is dropped.
class ColumnReader {
 public:
  explicit ColumnReader(const std::string& path)
      : path_(path), file_(path, std::ios::binary), progress_("reading " + path) {
    if (!file_ || std::filesystem::is_directory(path))
      throw InputError(path + ": cannot be opened for reading");
    std::error_code size_unknown;
    size_ = static_cast<double>(std::filesystem::file_size(path, size_unknown));
    if (size_unknown) size_ = 0;
  }

  /// Moves to the next line that holds columns; false at the end of the file.
  bool next() {
    while (std::getline(file_, text_)) {
      ++line_;
      bytes_ += static_cast<double>(text_.size() + 1);
      if (line_ % 4096 == 0 && size_ > 0) progress_(bytes_ / size_);
      if (line_ == 1) check_first_line();
      if (split()) return true;
    }
    if (file_.bad()) throw InputError(path_ + ": reading failed");
    return false;
  }

  /// The columns of the current line, valid until next(); each is followed by a blank, a comma or
  /// the terminating zero of the line.
  const std::vector<std::string_view>& columns() const { return columns_; }

  const std::string& path() const { return path_; }
  std::size_t line() const { return line_; }

  /// Reports what is wrong with the current line.
  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(path_ + ":" + std::to_string(line_) + ": " + what);
  }

 private:
  static bool blank(char c) { return c == ' ' || c == '\t'; }

  void check_first_line() {
    if (text_.starts_with("\x1f\x8b")) fail("the file is compressed with gzip: unpack it first");
    if (text_.starts_with("%%MatrixMarket"))
      fail("a MatrixMarket file: remove its header, whose line of sizes would pass for an edge");
    if (text_.starts_with("\xef\xbb\xbf")) text_.erase(0, 3);
  }

  bool split() {
    columns_.clear();
    if (text_.find('\0') != std::string::npos) fail("a zero byte: this is not a text file");
    if (!text_.empty() && text_.back() == '\r') text_.pop_back();
    std::size_t at = skip_blanks(0);
    if (at == text_.size() || text_[at] == '#' || text_[at] == '%') return false;
    for (bool more = true; more;) {
      const std::size_t begin = at;
      while (at < text_.size() && !blank(text_[at]) && text_[at] != ',') ++at;
      if (at == begin) fail("column " + std::to_string(columns_.size() + 1) + " is empty");
      columns_.emplace_back(text_.data() + begin, at - begin);
      at = skip_blanks(at);
      more = at < text_.size();
      if (more && text_[at] == ',') at = skip_blanks(at + 1);
    }
    return true;
  }

  std::size_t skip_blanks(std::size_t at) const {
    while (at < text_.size() && blank(text_[at])) ++at;
    return at;
  }

  std::string path_;
  std::ifstream file_;
  command_line::Progress progress_;
  std::string text_;
  std::vector<std::string_view> columns_;
  std::size_t line_ = 0;
  double bytes_ = 0;
  double size_ = 0;
};

}  // namespace graph
