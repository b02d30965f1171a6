// SPDX-License-Identifier: Apache-2.0

#include "digits/methods.hpp"

#include "digits/network.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace studies_digits_methods_test {
namespace {

using digits::Factors;
using digits::Fisher;
using digits::Index;
using digits::Matrix;

template <class T>
digits::Network<T> some_network() {
  std::mt19937_64 bits(21);
  return digits::random_network<T>({digits::pixels, 12, 9, digits::classes}, bits);
}

/// Images whose pixels differ in brightness, so that no two of the norms weigh alike.
template <class T>
digits::DataSet<T> some_images(Index count) {
  std::mt19937_64 bits(22);
  digits::DataSet<T> images;
  images.images = Matrix<T>::NullaryExpr(count, digits::pixels, [&](Index, Index j) {
    return static_cast<T>(digits::uniform(bits) * static_cast<double>(j % 8) / 7);
  });
  for (Index e = 0; e < count; ++e) images.labels.push_back(static_cast<int>(3 * e % 10));
  return images;
}

/// The gradient of example e alone with a label, formed as a matrix.
Matrix<double> gradient_of_one(const digits::Network<double>& network,
                               const digits::DataSet<double>& images, Index e, int label,
                               std::size_t l) {
  const auto activations = digits::forward(network, Matrix<double>(images.images.middleRows(e, 1)));
  return digits::backward(network, activations, {label})[l].transpose() * activations.inputs[l];
}

/// The mean over examples of the gradients' squares, those of classes weighed by `share(e, class)`.
Matrix<double> mean_of_squares(const digits::Network<double>& network,
                               const digits::DataSet<double>& images, std::size_t l,
                               const std::function<double(Index, int)>& share) {
  const Matrix<double>& weights = network.layers[l].weights;
  Matrix<double> mean = Matrix<double>::Zero(weights.rows(), weights.cols());
  for (Index e = 0; e < images.size(); ++e)
    for (int c = 0; c < digits::classes; ++c)
      mean += share(e, c) * gradient_of_one(network, images, e, c, l).cwiseAbs2() /
              static_cast<double>(images.size());
  return mean;
}

/// All that an accumulator says is what the materialised squares say. Both are sums of fewer than a
/// hundred products in double, each by another way, and up to 64 of those added.
void expect_equal(const pare::factor::FisherDiagonal& got, const Matrix<double>& wanted) {
  const double bound = 1e-13 * wanted.maxCoeff();
  ASSERT_GT(bound, 0.0);
  EXPECT_LE((got.elements() - wanted).cwiseAbs().maxCoeff(), bound);
  const Eigen::VectorXd inputs = wanted.colwise().sum(), outputs = wanted.rowwise().sum();
  EXPECT_LE((got.sums(pare::factor::Axis::Input) - inputs).cwiseAbs().maxCoeff(), 64 * bound);
  EXPECT_LE((got.sums(pare::factor::Axis::Output) - outputs).cwiseAbs().maxCoeff(), 64 * bound);
}

TEST(DigitsMethods, FisherInformationIsTheMeanOfMaterialisedSquares) {
  const auto network = some_network<double>();
  const auto images = some_images<double>(9);
  const auto activations = digits::forward(network, images.images);
  const Matrix<double> p = digits::probabilities(activations.logits);
  std::mt19937_64 bits(0);
  const auto empirical =
      digits::fisher_information(network, activations, images.labels, Fisher::Empirical, bits);
  const auto expected =
      digits::fisher_information(network, activations, images.labels, Fisher::True, bits);
  for (std::size_t l = 0; l < 3; ++l) {
    expect_equal(empirical[l], mean_of_squares(network, images, l, [&](Index e, int c) {
                   return images.labels[static_cast<std::size_t>(e)] == c ? 1.0 : 0.0;
                 }));
    expect_equal(expected[l],
                 mean_of_squares(network, images, l, [&](Index e, int c) { return p(e, c); }));
  }
}

TEST(DigitsMethods, CovariancesAreThoseOfTheInputsOfEachLayer) {
  const auto activations = digits::forward(some_network<double>(), some_images<double>(9).images);
  const auto covariances = digits::covariances(activations);
  ASSERT_EQ(covariances.size(), 3u);
  for (std::size_t l = 0; l < 3; ++l) {
    const Matrix<double>& x = activations.inputs[l];
    EXPECT_LE((covariances[l].matrix() - x.transpose() * x / 9).cwiseAbs().maxCoeff(),
              1e-13 * x.squaredNorm());
  }
}

/// The norms that the methods are to make least, in the order of make_methods for one Fisher
/// information, for layer l of the network and images above.
std::vector<std::function<double(const Matrix<double>&)>> norms(std::size_t l, double floor) {
  const auto network = some_network<float>();
  const auto images = some_images<float>(60);
  const auto activations = digits::forward(network, images.images);
  std::mt19937_64 bits(0);
  const auto fisher =
      digits::fisher_information(network, activations, images.labels, Fisher::Empirical, bits)[l];
  const Matrix<double> f = fisher.elements();
  const Matrix<double> x = activations.inputs[l].cast<double>();
  using D = Matrix<double>;
  return {[](const D& d) { return d.squaredNorm(); },
          [f](const D& d) { return d.cwiseAbs2().colwise().sum().dot(f.colwise().sum()); },
          [f](const D& d) { return d.cwiseAbs2().rowwise().sum().dot(f.rowwise().sum()); },
          [f, floor](const D& d) {
            return (d.cwiseAbs2().array() * (f.array() + floor * f.mean())).sum();
          },
          [x](const D& d) { return (d * x.transpose()).squaredNorm(); }};
}

TEST(DigitsMethods, EachIsTheBestInItsOwnNorm) {
  const auto network = some_network<float>();
  const digits::FisherOptions options{.kinds = {Fisher::Empirical}, .floor = 0.05};
  std::mt19937_64 bits(0);
  const auto methods = digits::make_methods(network, some_images<float>(60), options, bits);
  const std::vector<std::string> names = {"SVD", "FWSVD input, empirical Fisher",
                                          "FWSVD output, empirical Fisher",
                                          "elements, empirical Fisher", "covariance"};
  ASSERT_EQ(methods.size(), names.size());
  for (std::size_t l = 0; l < 2; ++l) {
    const Matrix<float>& w = network.layers[l].weights;
    std::vector<Matrix<double>> errors;
    for (std::size_t m = 0; m < methods.size(); ++m) {
      EXPECT_EQ(methods[m].name, names[m]);
      const Factors factors = methods[m].factorize(l, w, 3);
      EXPECT_EQ(factors.rank(), 3);
      errors.push_back((w - factors.left * factors.right).cast<double>());
    }
    const auto all = norms(l, options.floor);
    for (std::size_t m = 0; m < methods.size(); ++m)
      for (std::size_t other = 0; other < methods.size(); ++other)
        if (other != m) {
          EXPECT_LT(all[m](errors[m]), all[m](errors[other]))
              << "layer " << l << ", norm of " << names[m] << ", factors of " << names[other];
        }
  }
}

TEST(DigitsMethods, EveryFisherInformationHasMethodsOfItsOwn) {
  const digits::FisherOptions options{.kinds = {Fisher::Sampled, Fisher::True}};
  std::mt19937_64 bits(0);
  const auto methods =
      digits::make_methods(some_network<float>(), some_images<float>(20), options, bits);
  ASSERT_EQ(methods.size(), 8u);
  EXPECT_EQ(methods[1].name, "FWSVD input, sampled Fisher");
  EXPECT_EQ(methods[4].name, "FWSVD input, true Fisher");
  const Matrix<float> w = some_network<float>().layers[0].weights;
  const Factors sampled = methods[1].factorize(0, w, 3), expected = methods[4].factorize(0, w, 3);
  EXPECT_GT((sampled.left * sampled.right - expected.left * expected.right).norm(), 1e-3f);
}

}  // namespace
}  // namespace studies_digits_methods_test
