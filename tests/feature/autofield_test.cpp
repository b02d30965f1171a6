// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <pare/feature/importance/autofield.hpp>
#include <pare/feature/metrics.hpp>
#include <pare/feature/model/mlp.hpp>

#include "feature/model_checks.hpp"

namespace feature_autofield_test {
namespace {

using namespace pare::testing;
using namespace pare::feature;
using namespace pare::optim;
using pare::Index;
using pare::TensorView;

/// Answers 0 to everything, with the gradient that its owner asks for, and remembers what it saw.
struct Recorder {
  using scalar = double;

  Index columns;
  Rows<double> slope;  ///< dL/dx, of which a batch gets the first rows
  std::vector<Rows<double>> seen{};
  std::vector<std::size_t> mask_passes{};  ///< the passes whose gradient by x was asked for

  Index dim() const { return columns; }
  void forward(TensorView<const double, 2> x, std::span<double> logits) {
    Rows<double> rows(x.rows(), x.cols());
    for (Index b = 0; b < x.rows(); ++b)
      for (Index i = 0; i < x.cols(); ++i) rows(b, i) = x(b, i);
    seen.push_back(rows);
    std::fill(logits.begin(), logits.end(), 0.0);
  }
  void backward(std::span<const double>) {}
  void step() {}
  void input_gradient(std::span<const double>, TensorView<double, 2> grad_x) {
    mask_passes.push_back(seen.size() - 1);
    for (Index b = 0; b < grad_x.rows(); ++b)
      for (Index i = 0; i < grad_x.cols(); ++i) grad_x(b, i) = slope(b, i);
  }
};
static_assert(Model<Recorder>);

/// The logits of AutoField by their formulas, Adam's included.
class NaiveMasks {
 public:
  NaiveMasks(const FieldLayout& layout, const AutoFieldOptions& options)
      : layout_(layout), options_(options), numbers_(static_cast<std::size_t>(layout.fields())) {}

  double temperature(std::size_t pass) const {
    return std::max(options_.least_temperature,
                    options_.temperature - options_.cooling * static_cast<double>(pass));
  }

  double mask(std::size_t pass, Index j) const {
    const Numbers& n = at(j);
    const double noise = gate_noise(GateKind::GumbelSigmoid, options_.seed, pass, j);
    const double keep = (n.keep + noise) / temperature(pass), drop = n.drop / temperature(pass);
    return 1 / (1 + std::exp(drop - keep));
  }

  /// The softmax of two has the slope p (1 - p) / tau by keep and minus that by drop.
  void step(std::size_t pass, const Rows<double>& x, const Rows<double>& slope) {
    ++steps_;
    for (Index j = 0; j < layout_.fields(); ++j) {
      double sum = 0;
      for (Index b = 0; b < x.rows(); ++b)
        for (Index i = layout_.offset(j); i < layout_.offset(j + 1); ++i)
          sum += x(b, i) * slope(b, i);
      const double p = mask(pass, j), g = sum * p * (1 - p) / temperature(pass);
      Numbers& n = numbers_[static_cast<std::size_t>(j)];
      n.mean = 0.9 * n.mean + 0.1 * g;
      n.square = 0.999 * n.square + 0.001 * g * g;
      const double move = options_.learning_rate * (n.mean / (1 - std::pow(0.9, steps_))) /
                          (std::sqrt(n.square / (1 - std::pow(0.999, steps_))) + 1e-8);
      n.keep -= move;
      n.drop += move;
    }
  }

  double keep(Index j) const { return at(j).keep; }

 private:
  struct Numbers {
    double keep = 0.5, drop = 0.5, mean = 0, square = 0;
  };
  const Numbers& at(Index j) const { return numbers_[static_cast<std::size_t>(j)]; }

  const FieldLayout& layout_;
  AutoFieldOptions options_;
  std::vector<Numbers> numbers_;
  int steps_ = 0;
};

/// Full batches, so that what went in is known: what came out is x times the mask, each pass with
/// noise and temperature of its own, and the logits end where the formulas end. tau goes from 1
/// down to 0.2 in four passes and stays.
TEST(AutoField, IsItsFormulas) {
  constexpr Index rows = 12;
  const FieldLayout layout({1, 3, 2});
  const Rows<double> x = normal_rows<double>(rows, 6, 1),
                     held_out = normal_rows<double>(rows, 6, 2);
  const std::vector<int> labels{0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1};
  Recorder model{6, normal_rows<double>(rows, 6, 3)};
  const AutoFieldOptions options{.epochs = 9,
                                 .batch = rows,
                                 .gate_every = 3,
                                 .learning_rate = 0.1,
                                 .cooling = 0.2,
                                 .least_temperature = 0.2,
                                 .seed = 4};
  const Ranking ranking = autofield(model, layout, x, labels, held_out, labels, options);
  ASSERT_EQ(model.seen.size(), 12u);  // nine of the model, and one of the masks after each third
  EXPECT_EQ(model.mask_passes, (std::vector<std::size_t>{3, 7, 11}));
  NaiveMasks wanted(layout, options);
  EXPECT_EQ(wanted.temperature(0), 1.0);
  EXPECT_EQ(wanted.temperature(11), 0.2);
  for (std::size_t pass = 0; pass < 12; ++pass) {
    const bool of_masks = pass % 4 == 3;
    const Rows<double>& in = of_masks ? held_out : x;
    for (Index j = 0; j < 3; ++j)
      for (Index i = layout.offset(j); i < layout.offset(j + 1); ++i)
        for (Index b = 0; b < rows; ++b)
          ASSERT_NEAR(model.seen[pass](b, i), wanted.mask(pass, j) * in(b, i), 1e-12) << pass;
    if (of_masks) wanted.step(pass, held_out, model.slope);
  }
  for (Index j = 0; j < 3; ++j) {
    EXPECT_NEAR(ranking.scores[static_cast<std::size_t>(j)], wanted.keep(j), 1e-12);
    EXPECT_GT(std::abs(wanted.keep(j) - 0.5), 0.01);
  }
}

TEST(AutoField, HasTheScheduleOfItsSource) {
  const AutoFieldOptions options;
  EXPECT_EQ(options.temperature, 1.0);
  EXPECT_EQ(options.cooling, 5e-5);
  EXPECT_EQ(options.least_temperature, 0.01);
  EXPECT_EQ(options.gate_every, 10);
}

struct Signal {
  Rows<float> x;
  std::vector<int> labels;

  /// Of ten fields, of which the seventh is three columns wide, the 0th, 3rd and 6th say something.
  Signal(Index rows, std::uint64_t seed) : x(normal_rows<float>(rows, 12, seed)) {
    Engine random(seed + 1);
    for (Index b = 0; b < rows; ++b) {
      const auto at = [&](Index i) { return static_cast<double>(x(b, i)); };
      const double logit = 1.5 * at(0) - 1.5 * at(3) + at(6) + at(7) - at(8);
      labels.push_back(uniform(random) < 2 * sigmoid(logit) - 1 ? 1 : 0);
    }
  }
};

TEST(AutoField, RanksASignalAboveNoise) {
  const FieldLayout layout({1, 1, 1, 1, 1, 1, 3, 1, 1, 1});
  const std::vector<int> truth{1, 0, 0, 1, 0, 0, 1, 0, 0, 0};
  const Signal training(2000, 5), held_out(1000, 7);
  Mlp<float> model(12, {.hidden = {8}, .adam = {.learning_rate = 1e-2}});
  const AutoFieldOptions options{
      .epochs = 20, .batch = 100, .gate_every = 2, .learning_rate = 1e-2};
  const auto ranking =
      autofield(model, layout, training.x, training.labels, held_out.x, held_out.labels, options);
  EXPECT_EQ(roc_auc(truth, ranking.scores), 1.0);
}

TEST(AutoField, IsAFunctionOfTheSeed) {
  const FieldLayout layout = FieldLayout::scalars(12);
  const Signal training(200, 5), held_out(100, 7);
  const auto run = [&](std::uint64_t seed) {
    Mlp<float> model(12, {.hidden = {4}});
    return autofield(model, layout, training.x, training.labels, held_out.x, held_out.labels,
                     {.epochs = 3, .batch = 20, .gate_every = 2, .seed = seed})
        .scores;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

TEST(AutoField, RefusesBadInput) {
  const std::string name = "feature::autofield";
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const FieldLayout layout = FieldLayout::scalars(12);
  const Signal data(6, 1);
  const std::vector<int> labels{0, 1, 0, 1, 0, 1}, few{0, 1}, other{0, 1, 2, 0, 1, 0};
  Mlp<float> model(12), narrow(11);
  const std::vector<float> before(model.parameters().begin(), model.parameters().end());
  const auto& x = data.x;
  refusal([&] { autofield(model, FieldLayout(), x, labels, x, labels); }, name, "layout");
  refusal([&] { autofield(narrow, layout, x, labels, x, labels); }, name, "model");
  refusal([&] { autofield(model, layout, x.leftCols(11), labels, x, labels); }, name, "x");
  refusal([&] { autofield(model, layout, x.topRows(1), std::vector<int>{1}, x, labels); }, name,
          "x");
  refusal([&] { autofield(model, layout, x, few, x, labels); }, name, "labels");
  refusal([&] { autofield(model, layout, x, other, x, labels); }, name, "labels");
  refusal([&] { autofield(model, layout, x, labels, x.leftCols(11), labels); }, name, "holdout");
  refusal([&] { autofield(model, layout, x, labels, x.topRows(1), std::vector<int>{1}); }, name,
          "holdout");
  refusal([&] { autofield(model, layout, x, labels, x, few); }, name, "holdout_labels");
  const auto option = [&](const std::string& argument, const AutoFieldOptions& options) {
    refusal([&] { autofield(model, layout, x, labels, x, labels, options); }, name, argument);
  };
  option("epochs", {.epochs = 0});
  option("batch", {.batch = 1});
  option("gate_every", {.gate_every = 0});
  option("learning_rate", {.learning_rate = 0});
  option("temperature", {.temperature = 0});
  option("temperature", {.temperature = nan});
  option("cooling", {.cooling = -1});
  option("least_temperature", {.least_temperature = 0});
  for (std::size_t i = 0; i < before.size(); ++i) EXPECT_EQ(model.parameters()[i], before[i]);
}

}  // namespace
}  // namespace feature_autofield_test
