// SPDX-License-Identifier: Apache-2.0

#include "digits/network.hpp"

#include "digits/train.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace studies_digits_network_test {
namespace {

using digits::Activations;
using digits::DataSet;
using digits::Index;
using digits::Matrix;
using digits::Network;

/// Six images of random pixels and digits.
DataSet<double> random_images(std::uint64_t seed) {
  std::mt19937_64 bits(seed);
  DataSet<double> images;
  images.images = Matrix<double>::NullaryExpr(6, digits::pixels,
                                              [&](Index, Index) { return digits::uniform(bits); });
  for (int e = 0; e < 6; ++e) images.labels.push_back((3 * e) % 10);
  return images;
}

/// A network with biases that are not 0.
Network<double> random_network(std::uint64_t seed) {
  std::mt19937_64 bits(seed);
  auto network = digits::random_network<double>({digits::pixels, 7, 5, digits::classes}, bits);
  for (auto& layer : network.layers)
    for (double& b : layer.bias) b = digits::uniform(bits) - 0.3;
  return network;
}

/// Central differences: both errors, h^2 / 6 times a third derivative of at most a few and
/// 2^-53 / h times a loss of at most ten, are below 1e-9 at this h.
constexpr double h = 1e-5;
constexpr double difference_error = 1e-8;

double loss_of(const Network<double>& network, const DataSet<double>& images) {
  return digits::score(network, images).loss;
}

/// No unit stands so near to its kink that a step of h could take it across.
void expect_smooth(const Activations<double>& activations, const Network<double>& network) {
  for (std::size_t l = 0; l + 1 < network.layers.size(); ++l) {
    Matrix<double> sums = activations.inputs[l] * network.layers[l].weights.transpose();
    sums.rowwise() += network.layers[l].bias;
    ASSERT_GT(sums.cwiseAbs().minCoeff(), 100 * h);
  }
}

TEST(DigitsNetwork, GradientsAreThoseOfFiniteDifferences) {
  const DataSet<double> images = random_images(1);
  Network<double> network = random_network(2);
  const auto activations = digits::forward(network, images.images);
  expect_smooth(activations, network);
  const auto deltas = digits::backward(network, activations, images.labels);
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    const Matrix<double> gradient = deltas[l].transpose() * activations.inputs[l] / 6;
    EXPECT_GT(gradient.cwiseAbs().maxCoeff(), 1e-3);
    Matrix<double>& weights = network.layers[l].weights;
    for (Index i = 0; i < weights.rows(); ++i)
      for (Index j = 0; j < weights.cols(); ++j) {
        const double at = weights(i, j);
        weights(i, j) = at + h;
        const double above = loss_of(network, images);
        weights(i, j) = at - h;
        const double below = loss_of(network, images);
        weights(i, j) = at;
        EXPECT_NEAR(gradient(i, j), (above - below) / (2 * h), difference_error);
      }
    for (Index i = 0; i < weights.rows(); ++i) {
      Network<double> above = network, below = network;
      above.layers[l].bias[i] += h;
      below.layers[l].bias[i] -= h;
      EXPECT_NEAR(deltas[l].col(i).mean(),
                  (loss_of(above, images) - loss_of(below, images)) / (2 * h), difference_error);
    }
  }
}

TEST(DigitsNetwork, ProbabilitiesOfHugeLogitsAreFinite) {
  const Matrix<double> p =
      digits::probabilities(Matrix<double>{{1e300, 0, -1e300}, {-800, -800, -800}, {0, 0, -1e4}});
  // Eigen's exponential never falls to 0, only below the least normal number.
  constexpr double nothing = std::numeric_limits<double>::min();
  EXPECT_EQ(p(0, 0), 1.0);
  EXPECT_LE(p.row(0).tail(2).maxCoeff(), nothing);
  EXPECT_EQ(p(2, 0), 0.5);
  EXPECT_EQ(p(2, 1), 0.5);
  EXPECT_LE(p(2, 2), nothing);
  for (Index c = 0; c < 3; ++c) EXPECT_DOUBLE_EQ(p(1, c), 1.0 / 3);
}

TEST(DigitsNetwork, ScoresAreThoseOfTheHandWorkedExample) {
  // Probabilities 1/2, 1/4, 1/4 and 1/6, 2/3, 1/6; the second label is missed.
  const double log2 = std::log(2.0);
  const Matrix<double> logits{{log2 + 900, 900, 900}, {0, 2 * log2, 0}};
  const digits::Score score = digits::score(logits, {0, 2});
  EXPECT_DOUBLE_EQ(score.accuracy, 0.5);
  EXPECT_NEAR(score.loss, (log2 + std::log(6.0)) / 2, 1e-12);
}

/// Images of which the digit can be told at sight: its own pixel is white.
DataSet<float> plain_images() {
  DataSet<float> images;
  images.images = Matrix<float>::Zero(200, digits::pixels);
  for (int e = 0; e < 200; ++e) {
    images.labels.push_back((7 * e) % 10);
    images.images(e, images.labels.back()) = 1;
    images.images(e, 10 + e % 50) = 0.5f;
  }
  return images;
}

bool same(const Network<float>& a, const Network<float>& b) {
  for (std::size_t l = 0; l < a.layers.size(); ++l)
    if (a.layers[l].weights != b.layers[l].weights || a.layers[l].bias != b.layers[l].bias)
      return false;
  return true;
}

TEST(DigitsTrain, LearnsWhatIsPlain) {
  const DataSet<float> images = plain_images();
  std::mt19937_64 bits(0);
  const auto network = digits::train(images, {.hidden = {32, 16}, .epochs = 60}, bits);
  const digits::Score score = digits::score(network, images);
  EXPECT_EQ(score.accuracy, 1.0);
  EXPECT_LT(score.loss, 0.1);
}

TEST(DigitsTrain, IsAFunctionOfTheSeed) {
  const DataSet<float> images = plain_images();
  const auto trained = [&](std::uint64_t seed) {
    std::mt19937_64 bits(seed);
    return digits::train(images, {.hidden = {8}, .epochs = 2}, bits);
  };
  EXPECT_TRUE(same(trained(3), trained(3)));
  EXPECT_FALSE(same(trained(3), trained(4)));
}

TEST(DigitsTrain, WeightsWithoutAGradientDecay) {
  DataSet<float> images = plain_images();
  images.images.col(63).setZero();
  std::mt19937_64 bits(3), same_bits(3);
  const auto decayed = digits::train(images, {.hidden = {8}, .epochs = 2, .weight_decay = 5}, bits);
  const auto start = digits::random_network<float>({digits::pixels, 8, digits::classes}, same_bits);
  // 2 epochs of 7 batches; a rounding of float for each step.
  const double factor = std::pow(1 - 0.001 * 5, 14);
  for (Index i = 0; i < 8; ++i) {
    const double expected = factor * static_cast<double>(start.layers[0].weights(i, 63));
    EXPECT_NEAR(decayed.layers[0].weights(i, 63), expected,
                16 * std::numeric_limits<float>::epsilon() * std::abs(expected));
  }
}

/// The first step of Adam is the learning rate against the sign of each gradient.
TEST(DigitsTrain, TheFirstStepOfAdamHasTheLengthOfTheLearningRate) {
  digits::Adam<double> adam(0);
  Matrix<double> parameters = Matrix<double>::Zero(1, 3);
  adam.step(parameters, Matrix<double>{{4.0, -1e-3, 0.0}});
  EXPECT_NEAR(parameters(0, 0), -1e-3, 1e-10);
  EXPECT_NEAR(parameters(0, 1), 1e-3, 2e-8);  // epsilon is 1e-5 of the gradient
  EXPECT_EQ(parameters(0, 2), 0.0);
  // With a constant gradient the corrected means stay what they are, and so do the steps.
  adam.step(parameters, Matrix<double>{{4.0, -1e-3, 0.0}});
  EXPECT_NEAR(parameters(0, 0), -2e-3, 1e-10);
}

}  // namespace
}  // namespace studies_digits_network_test
