// SPDX-License-Identifier: Apache-2.0

#include "common/digits_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace studies_digits_data_set_test {
namespace {

using digits::DataSet;
using digits::Index;
using digits::InputError;

const std::filesystem::path& data_file() {
  static const auto path = std::filesystem::path(PARE_EXAMPLES_DATA) / "digits" / "digits.csv";
  return path;
}

DataSet<double> read(const std::string& content) {
  const std::string path = testing::TempDir() + "pare_digits.csv";
  std::ofstream(path, std::ios::binary) << content;
  DataSet<double> images;
  try {
    images = digits::read_digits<double>(path);
  } catch (...) {
    std::remove(path.c_str());
    throw;
  }
  std::remove(path.c_str());
  return images;
}

/// What the content is refused with, without the name of the file.
std::string refusal(const std::string& content) {
  try {
    read(content);
  } catch (const InputError& error) {
    const std::string message = error.what(), file = "pare_digits.csv";
    return message.substr(message.find(file) + file.size());
  }
  return "not refused";
}

/// `count` columns that say 0, each followed by a comma.
std::string zeros(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "0,";
  return text;
}

TEST(DigitsDataSet, ALineIsAnImageAndItsDigit) {
  const DataSet<double> images = read("16,4," + zeros(62) + "7\n" + zeros(63) + "8,0\r\n");
  ASSERT_EQ(images.size(), 2);
  ASSERT_EQ(images.images.cols(), digits::pixels);
  EXPECT_EQ(images.labels, (std::vector<int>{7, 0}));
  EXPECT_EQ(images.images(0, 0), 1.0);
  EXPECT_EQ(images.images(0, 1), 0.25);
  EXPECT_EQ(images.images(1, 63), 0.5);
  EXPECT_EQ(images.images.sum(), 1.75);
  EXPECT_EQ(read(zeros(64) + "3").labels, (std::vector<int>{3})) << "no newline at the end";
}

TEST(DigitsDataSet, ABrokenFileIsRefused) {
  const std::string good = zeros(64) + "1\n";
  EXPECT_EQ(refusal(""), ": no images in it");
  EXPECT_EQ(refusal(good + zeros(63) + "1\n"), ":2: got 64 columns, wanted 64 pixels and a digit");
  EXPECT_EQ(refusal(zeros(64) + "1,\n"), ":1: got 66 columns, wanted 64 pixels and a digit");
  EXPECT_EQ(refusal("\n"), ":1: got 1 columns, wanted 64 pixels and a digit");
  EXPECT_EQ(refusal(good + "17," + zeros(63) + "1\n"),
            ":2: column 1: got '17', wanted a whole number from 0 to 16");
  EXPECT_EQ(refusal(zeros(64) + "10\n"),
            ":1: column 65: got '10', wanted a whole number from 0 to 9");
  for (const std::string bad : {"-1", "1.5", "x", "", " 1", "1 ", "nan", "99999999999"})
    EXPECT_EQ(refusal("0," + bad + "," + zeros(62) + "1\n"),
              ":1: column 2: got '" + bad + "', wanted a whole number from 0 to 16");
  EXPECT_THROW(digits::read_digits<double>("/nonexistent/digits.csv"), InputError);
  EXPECT_THROW(digits::read_digits<double>(testing::TempDir()), InputError);
}

TEST(DigitsDataSet, PartsAreDisjointAndWhole) {
  DataSet<double> images;
  images.images = Eigen::VectorXd::LinSpaced(30, 0, 29).replicate(1, 2);
  for (int i = 0; i < 30; ++i) images.labels.push_back(i);
  const auto split = [&](double fraction, std::uint64_t seed) {
    std::mt19937_64 bits(seed);
    return digits::split(images, fraction, bits);
  };
  const auto [train, test] = split(2.0 / 3, 5);
  EXPECT_EQ(train.size(), 20);
  EXPECT_EQ(test.size(), 10);
  std::vector<int> all;
  for (const auto* part : {&train, &test})
    for (Index i = 0; i < part->size(); ++i) {
      all.push_back(part->labels[static_cast<std::size_t>(i)]);
      EXPECT_EQ(part->images(i, 1), all.back());
    }
  EXPECT_FALSE(std::is_sorted(all.begin(), all.end()));
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all, images.labels);
  EXPECT_EQ(split(2.0 / 3, 5).train.labels, train.labels);
  EXPECT_NE(split(2.0 / 3, 6).train.labels, train.labels);
  EXPECT_THROW(split(0.01, 5), std::invalid_argument);
  EXPECT_THROW(split(0.99, 5), std::invalid_argument);
}

/// The figures that the README beside the data states.
TEST(Digits, HoldWhatTheyAreSaidToHold) {
  const DataSet<double> images = digits::read_digits<double>(data_file());
  EXPECT_EQ(images.size(), 1797);
  std::vector<int> count(static_cast<std::size_t>(digits::classes));
  for (const int label : images.labels) ++count[static_cast<std::size_t>(label)];
  EXPECT_EQ(*std::ranges::min_element(count), 174);
  EXPECT_EQ(*std::ranges::max_element(count), 183);
  EXPECT_EQ(images.images.minCoeff(), 0.0);
  EXPECT_EQ(images.images.maxCoeff(), 1.0);
}

}  // namespace
}  // namespace studies_digits_data_set_test
