// SPDX-License-Identifier: Apache-2.0

#include "digits/compress.hpp"

#include "digits/network.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace studies_digits_compress_test {
namespace {

using digits::Compressed;
using digits::Factors;
using digits::Index;
using digits::Matrix;
using digits::Network;

/// 64 -> 16 -> 12 -> 10, with biases that are not 0.
Network<float> some_network() {
  std::mt19937_64 bits(5);
  auto network = digits::random_network<float>({digits::pixels, 16, 12, digits::classes}, bits);
  for (auto& layer : network.layers)
    for (float& b : layer.bias) b = static_cast<float>(digits::uniform(bits) - 0.5);
  return network;
}

digits::DataSet<float> some_images() {
  std::mt19937_64 bits(6);
  digits::DataSet<float> images;
  images.images = Matrix<float>::NullaryExpr(
      20, digits::pixels, [&](Index, Index) { return static_cast<float>(digits::uniform(bits)); });
  for (int e = 0; e < 20; ++e) images.labels.push_back(e % 10);
  return images;
}

/// scale W, its rank that of W.
Factors whole(float scale, const Matrix<float>& w) {
  Factors factors;
  factors.left = scale * w;
  factors.right = Matrix<float>::Identity(w.cols(), w.cols());
  return factors;
}

/// Three layers of sums of at most 64 products of numbers below ten in float.
constexpr double rounding = 64 * 10 * std::numeric_limits<float>::epsilon();

TEST(DigitsCompress, FactorsOfFullRankLoseNothing) {
  const auto network = some_network();
  const auto images = some_images();
  const digits::Method exact{
      "exact", [](std::size_t, const Matrix<float>& w, Index) { return whole(1, w); }};
  const Compressed compressed = digits::compress(network, exact, 1, images);
  const digits::Score score = digits::score(network, images);
  EXPECT_EQ(compressed.score.accuracy, score.accuracy);
  EXPECT_NEAR(compressed.score.loss, score.loss, rounding);
  EXPECT_EQ(compressed.error, 0.0);
  // W of 16 x 64 and 12 x 16, beside identities of 64 and 16.
  EXPECT_DOUBLE_EQ(compressed.parameters, (1024.0 + 4096 + 192 + 256) / (1024 + 192));
}

TEST(DigitsCompress, TheFactoredNetworkIsTheOneWithTheirProducts) {
  auto network = some_network();
  const auto images = some_images();
  std::vector<Factors> factors;
  for (std::size_t l = 0; l < 2; ++l) {
    Matrix<float>& weights = network.layers[l].weights;
    Factors& f = factors.emplace_back();
    f.left = weights.leftCols(3);
    f.right = weights.topRows(3);
  }
  const Matrix<float> got = digits::forward(network, factors, images.images);
  for (std::size_t l = 0; l < 2; ++l)
    network.layers[l].weights = factors[l].left * factors[l].right;
  const Matrix<float> wanted = digits::forward(network, images.images).logits;
  EXPECT_LE((got - wanted).cwiseAbs().maxCoeff(), rounding);
}

TEST(DigitsCompress, HiddenLayersAreReplacedAndTheErrorIsThatOfAllOfThem) {
  auto network = some_network();
  const auto images = some_images();
  // Halves the first layer and removes the second.
  const digits::Method half{"half", [](std::size_t layer, const Matrix<float>& w, Index rank) {
                              EXPECT_EQ(rank, 3);
                              EXPECT_LT(layer, 2u);
                              return whole(layer == 0 ? 0.5f : 0.0f, w);
                            }};
  const Compressed compressed = digits::compress(network, half, 3, images);
  const double first = network.layers[0].weights.cast<double>().squaredNorm();
  const double second = network.layers[1].weights.cast<double>().squaredNorm();
  // Sums of 1216 squares in float.
  EXPECT_NEAR(compressed.error, std::sqrt((first / 4 + second) / (first + second)),
              1216 * std::numeric_limits<float>::epsilon());
  network.layers[0].weights *= 0.5f;
  network.layers[1].weights.setZero();
  EXPECT_NEAR(compressed.score.loss, digits::score(network, images).loss, rounding);
}

}  // namespace
}  // namespace studies_digits_compress_test
