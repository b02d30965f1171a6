// SPDX-License-Identifier: Apache-2.0

#include "search/vector_cache.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace studies_search_cache_test {
namespace {

using namespace search;

/// Two texts of two tokens and one, dim 2.
TokenVectors small() {
  TokenVectors made;
  made.offsets = {0, 2, 3};
  for (const float x : {1.0F, 0.0F, 0.5F, -0.5F, 0.0F, 2.0F}) made.tokens.emplace_back(x);
  made.means.resize(2, 2);
  made.means << 1, 0, 0, -1;
  return made;
}

class SearchCache : public testing::Test {
 protected:
  ~SearchCache() override { std::filesystem::remove_all(folder); }

  /// How often vectors were made when they are asked for by a key.
  int made_by(std::uint64_t key) const {
    int made = 0;
    const VectorCache cache(path, key, [&] {
      ++made;
      return small();
    });
    const VectorView v = cache.view();
    EXPECT_EQ(v.texts(), 2);
    EXPECT_EQ(v.length(0), 2);
    EXPECT_EQ(v.of(1).rows(), 1);
    EXPECT_EQ(static_cast<float>(v.of(1)(0, 1)), 2.0F);
    EXPECT_EQ(v.mean(1)(0, 1), -1.0F);
    return made;
  }

  std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "pare_search_cache";
  std::filesystem::path path = folder / "deep" / "vectors.safetensors";
};

TEST_F(SearchCache, VectorsAreMadeOnce) {
  EXPECT_EQ(made_by(7), 1);
  EXPECT_EQ(made_by(7), 0);
}

TEST_F(SearchCache, ThoseOfOtherTextsAreMadeAnew) {
  EXPECT_EQ(made_by(7), 1);
  EXPECT_EQ(made_by(8), 1);
  EXPECT_EQ(made_by(8), 0);
}

TEST_F(SearchCache, AFileThatWasCutOrChangedIsMadeAnew) {
  made_by(7);
  const auto size = static_cast<std::streamoff>(std::filesystem::file_size(path));
  for (std::streamoff back = 1; back <= 52; ++back) {  // all bytes of its tensors
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekg(size - back);
    const auto byte = static_cast<char>(file.get() ^ 1);
    file.seekp(size - back);
    file.put(byte);
    file.close();
    EXPECT_EQ(made_by(7), 1) << back;
  }
  std::filesystem::resize_file(path, static_cast<std::uintmax_t>(size) - 1);
  EXPECT_EQ(made_by(7), 1);
  EXPECT_EQ(made_by(7), 0);
}

}  // namespace
}  // namespace studies_search_cache_test
