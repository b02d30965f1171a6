// SPDX-License-Identifier: Apache-2.0

#include "recall/model_input.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace studies_recall_model_input_test {
namespace {

using recall::Heads;
using recall::Index;
using recall::InputError;

/// A file of consecutive numbers that exists as long as this object.
class NpyFile {
 public:
  NpyFile(const std::string& name, std::vector<Index> shape)
      : path_(testing::TempDir() + "pare_recall_" + name + ".npy") {
    pare::io::NpyArray<float> array{shape, {}};
    array.data.resize(static_cast<std::size_t>(
        std::accumulate(shape.begin(), shape.end(), Index{1}, std::multiplies<>())));
    std::iota(array.data.begin(), array.data.end(), 0.f);
    pare::io::write_npy(std::filesystem::path(path_), array);
  }
  ~NpyFile() { std::remove(path_.c_str()); }
  NpyFile(const NpyFile&) = delete;
  NpyFile& operator=(const NpyFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Heads read(const std::vector<Index>& q, const std::vector<Index>& k, const std::vector<Index>& v) {
  const NpyFile q_file("q", q), k_file("k", k), v_file("v", v);
  return recall::read_heads(q_file.path(), k_file.path(), v_file.path());
}

TEST(RecallModelInput, ABatchOfOneMayBeLeftOut) {
  const Heads heads = read({4, 3, 2}, {2, 3, 2}, {2, 3, 5});
  EXPECT_EQ(heads.names, (std::vector<std::string>{"0", "1", "2", "3"}));
  EXPECT_EQ(heads.q.dimensions(), (Eigen::DSizes<Index, 4>{1, 4, 3, 2}));
  EXPECT_EQ(heads.k.dimensions(), (Eigen::DSizes<Index, 4>{1, 2, 3, 2}));
  EXPECT_EQ(heads.v.dimensions(), (Eigen::DSizes<Index, 4>{1, 2, 3, 5}));
  EXPECT_EQ(heads.q(0, 2, 1, 1), 2 * 6 + 1 * 2 + 1);
}

TEST(RecallModelInput, ABatchIsRead) {
  const Heads heads = read({2, 1, 3, 2}, {2, 1, 3, 2}, {2, 1, 3, 2});
  EXPECT_EQ(heads.k.dimension(0), 2);
  EXPECT_EQ(heads.k(1, 0, 0, 1), 7);
}

TEST(RecallModelInput, ShapesThatDoNotGoTogetherAreRefused) {
  EXPECT_NO_THROW(read({4, 3, 2}, {2, 3, 2}, {2, 3, 2}));
  EXPECT_THROW(read({4, 3}, {4, 3, 2}, {4, 3, 2}), InputError) << "rank 2";
  EXPECT_THROW(read({1, 1, 4, 3, 2}, {4, 3, 2}, {4, 3, 2}), InputError) << "rank 5";
  EXPECT_THROW(read({4, 0, 2}, {4, 0, 2}, {4, 0, 2}), InputError) << "no tokens";
  EXPECT_THROW(read({4, 3, 2}, {3, 3, 2}, {3, 3, 2}), InputError) << "heads do not divide";
  EXPECT_THROW(read({4, 3, 2}, {4, 2, 2}, {4, 2, 2}), InputError) << "fewer keys";
  EXPECT_THROW(read({4, 3, 2}, {4, 3, 1}, {4, 3, 2}), InputError) << "another key dim";
  EXPECT_THROW(read({4, 3, 2}, {4, 3, 2}, {2, 3, 2}), InputError) << "k and v heads";
  EXPECT_THROW(read({4, 3, 2}, {4, 3, 2}, {4, 2, 2}), InputError) << "k and v tokens";
  EXPECT_THROW(read({2, 4, 3, 2}, {4, 3, 2}, {4, 3, 2}), InputError) << "batch";
}

TEST(RecallModelInput, WhatIsNoNpyFileIsRefused) {
  const NpyFile file("q", {1, 1, 1});
  EXPECT_THROW(recall::read_heads(file.path(), file.path(), "/nonexistent/v.npy"),
               std::invalid_argument);
}

}  // namespace
}  // namespace studies_recall_model_input_test
