// SPDX-License-Identifier: Apache-2.0

#include "digits/gradients.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace studies_digits_gradients_test {
namespace {

using digits::DataSet;
using digits::Fisher;
using digits::Index;
using digits::Matrix;
using digits::Network;

constexpr Index examples = 5;

Network<double> small_network() {
  std::mt19937_64 bits(11);
  return digits::random_network<double>({digits::pixels, 6, digits::classes}, bits);
}

DataSet<double> random_images() {
  std::mt19937_64 bits(7);
  DataSet<double> images;
  images.images = Matrix<double>::NullaryExpr(examples, digits::pixels,
                                              [&](Index, Index) { return digits::uniform(bits); });
  for (int e = 0; e < examples; ++e) images.labels.push_back((3 * e) % 10);
  return images;
}

std::vector<std::vector<Matrix<double>>> passes_for(const Network<double>& network,
                                                    const DataSet<double>& images, Fisher fisher,
                                                    std::uint64_t seed = 0) {
  std::mt19937_64 bits(seed);
  return digits::fisher_gradients(network, digits::forward(network, images.images), images.labels,
                                  fisher, bits);
}

/// Squared gradients of layer l, the mean over examples and passes, by the formula for single
/// tokens.
Matrix<double> mean_of_squares(const std::vector<std::vector<Matrix<double>>>& passes,
                               const Matrix<double>& inputs, std::size_t l) {
  Matrix<double> sum = Matrix<double>::Zero(passes[0][l].cols(), inputs.cols());
  for (const auto& deltas : passes) sum += deltas[l].cwiseAbs2().transpose() * inputs.cwiseAbs2();
  return sum / static_cast<double>(inputs.rows() * static_cast<Index>(passes.size()));
}

/// The gradient of one example alone with a label, formed as a matrix.
Matrix<double> gradient_of_one(const Network<double>& network, const DataSet<double>& images,
                               Index example, int label, std::size_t l) {
  const auto activations =
      digits::forward(network, Matrix<double>(images.images.middleRows(example, 1)));
  const auto deltas = digits::backward(network, activations, {label});
  return deltas[l].transpose() * activations.inputs[l];
}

/// Two sums of fewer than a hundred products, each by another way.
void expect_equal(const Matrix<double>& got, const Matrix<double>& wanted) {
  ASSERT_GT(wanted.maxCoeff(), 0.0);
  EXPECT_LE((got - wanted).cwiseAbs().maxCoeff(), 1e-13 * wanted.maxCoeff());
}

TEST(DigitsGradients, EmpiricalFisherIsTheMeanOfMaterialisedSquares) {
  const Network<double> network = small_network();
  const DataSet<double> images = random_images();
  const auto activations = digits::forward(network, images.images);
  const auto passes = passes_for(network, images, Fisher::Empirical);
  for (std::size_t l = 0; l < 2; ++l) {
    const Matrix<double> got = mean_of_squares(passes, activations.inputs[l], l);
    Matrix<double> sum = Matrix<double>::Zero(got.rows(), got.cols());
    for (Index e = 0; e < examples; ++e)
      sum += gradient_of_one(network, images, e, images.labels[static_cast<std::size_t>(e)], l)
                 .cwiseAbs2();
    expect_equal(got, sum / examples);
  }
}

TEST(DigitsGradients, TrueFisherIsTheExpectationOverClasses) {
  const Network<double> network = small_network();
  const DataSet<double> images = random_images();
  const auto activations = digits::forward(network, images.images);
  const auto passes = passes_for(network, images, Fisher::True);
  const Matrix<double> p = digits::probabilities(activations.logits);
  for (std::size_t l = 0; l < 2; ++l) {
    const Matrix<double> got = mean_of_squares(passes, activations.inputs[l], l);
    Matrix<double> sum = Matrix<double>::Zero(got.rows(), got.cols());
    for (Index e = 0; e < examples; ++e)
      for (int c = 0; c < 10; ++c)
        sum += p(e, c) * gradient_of_one(network, images, e, c, l).cwiseAbs2();
    expect_equal(got, sum / examples);
  }
}

/// The expected squared gradient of the cross-entropy is its expected second derivative; at the
/// logits that is p (1 - p).
TEST(DigitsGradients, TrueFisherOfTheLogitsIsTheHessian) {
  const Network<double> network = small_network();
  const DataSet<double> images = random_images();
  const auto activations = digits::forward(network, images.images);
  const auto passes = passes_for(network, images, Fisher::True);
  Matrix<double> squares = Matrix<double>::Zero(examples, digits::classes);
  for (const auto& deltas : passes) squares += deltas.back().cwiseAbs2();
  const Matrix<double> p = digits::probabilities(activations.logits);
  expect_equal(squares / digits::classes, p.array() * (1 - p.array()));
}

TEST(DigitsGradients, SampledLabelsAreAsFrequentAsLikely) {
  constexpr Index draws = 20000;
  const Matrix<double> logits =
      Eigen::RowVector4d(std::log(0.5), std::log(0.3), std::log(0.2), -800).replicate(draws, 1);
  const auto sample = [&](std::uint64_t seed) {
    std::mt19937_64 bits(seed);
    return digits::sample_labels(logits, bits);
  };
  const std::vector<int> labels = sample(3);
  EXPECT_EQ(labels, sample(3));
  EXPECT_NE(labels, sample(4));
  std::vector<double> share(4);
  for (const int label : labels) share[static_cast<std::size_t>(label)] += 1.0 / draws;
  // Five standard deviations of a share of 1/2.
  const double noise = 5 * 0.5 / std::sqrt(static_cast<double>(draws));
  EXPECT_NEAR(share[0], 0.5, noise);
  EXPECT_NEAR(share[1], 0.3, noise);
  EXPECT_NEAR(share[2], 0.2, noise);
  EXPECT_EQ(share[3], 0.0);
}

TEST(DigitsGradients, SampledFisherAveragesToTheTrueOne) {
  const Network<double> network = small_network();
  const DataSet<double> images = random_images();
  const auto total = [&](Fisher fisher, std::uint64_t seed) {
    return mean_of_squares(passes_for(network, images, fisher, seed), images.images, 0).sum();
  };
  constexpr int draws = 2000;
  double mean = 0, square = 0;
  for (int seed = 0; seed < draws; ++seed) {
    const double one = total(Fisher::Sampled, static_cast<std::uint64_t>(seed));
    mean += one / draws;
    square += one * one / draws;
  }
  const double error = std::sqrt((square - mean * mean) / draws);
  EXPECT_GT(error, 0.0);
  EXPECT_NEAR(mean, total(Fisher::True, 0), 5 * error);
}

}  // namespace
}  // namespace studies_digits_gradients_test
