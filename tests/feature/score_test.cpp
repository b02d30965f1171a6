// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <pare/feature/score.hpp>

#include "feature/planted.hpp"

namespace feature_score_test {
namespace {

using namespace pare::testing;
using namespace pare::feature;
using pare::Index;
using pare::TensorView;

/// Four fields that count, one of them wide, among eight of noise.
std::vector<PlantedField> few_fields() {
  std::vector<PlantedField> fields{
      {"a", 1, 1, 1.5}, {"b", 1, 1, -1}, {"wide", 8, 1, 1.2}, {"rare", 1, 0.1, 3}};
  for (int i = 0; i < 6; ++i) fields.push_back({"noise dense"});
  fields.push_back({"noise wide", 8});
  fields.push_back({"noise rare", 1, 0.1});
  return fields;
}

/// The same, each a column.
std::vector<PlantedField> few_columns() {
  std::vector<PlantedField> fields{{"a", 1, 1, 1.5}, {"b", 1, 1, -1}, {"c", 1, 1, 1.2}};
  for (int i = 0; i < 7; ++i) fields.push_back({"noise"});
  return fields;
}

/// Steps enough to close a gate (learning_rate * steps of 4 and more) in a second.
TrainLeapOptions short_run(Index epochs = 15) {
  return {.epochs = epochs, .batch = 100, .gate_batch = 100, .pretrain_epochs = 0};
}

ScoreOptions scored(const Planted& data, ScoreModel model, double alpha_per_field) {
  ScoreOptions options;
  options.layout = data.layout;
  options.model = model;
  options.logistic.adam.learning_rate = 1e-2;
  options.factorization_machine.adam.learning_rate = 1e-2;
  options.mlp = {.hidden = {16}, .adam = {.learning_rate = 1e-2}};
  options.training = short_run();
  options.alpha_per_field = alpha_per_field;
  return options;
}

/// T10, small: signal above noise and on the other side of 1/2, for each built-in model.
TEST(ScoreFeatures, RanksSignalAboveNoiseWithEachModel) {
  const Planted data = planted(few_fields(), 5000, 0, 1);
  for (const ScoreModel model :
       {ScoreModel::Logistic, ScoreModel::FactorizationMachine, ScoreModel::Mlp}) {
    SCOPED_TRACE(static_cast<int>(model));
    const Scores scores = score_features(data.x, data.labels, scored(data, model, 1e-2));
    EXPECT_EQ(roc_auc(data.truth(), scores.gates), 1.0);
    const std::vector<int> truth = data.truth();
    for (std::size_t j = 0; j < truth.size(); ++j) {
      if (truth[j] == 1)
        EXPECT_GT(scores.gates[j], 0.5) << data.fields[j].name;
      else
        EXPECT_LT(scores.gates[j], 0.5) << data.fields[j].name;
    }
    EXPECT_EQ(scores.ranking.scores, scores.gates);
    EXPECT_GT(scores.polarization, 0.3);
    EXPECT_GT(scores.training.holdout_auc, 0.75);
    EXPECT_EQ(above(scores.ranking).size(), 4u);
  }
}

/// T19.
TEST(ScoreFeatures, WithoutAPenaltyNoSignalIsLostAndUnderAHugeOneAllIs) {
  const Planted data = planted(few_fields(), 5000, 0, 2);
  for (const ScoreModel model : {ScoreModel::Logistic, ScoreModel::Mlp}) {
    const Scores free = score_features(data.x, data.labels, scored(data, model, 0));
    for (std::size_t j = 0; j < 4; ++j) EXPECT_GT(free.gates[j], 0.5) << data.fields[j].name;
    const Scores charged = score_features(data.x, data.labels, scored(data, model, 100));
    for (const double gate : charged.gates) EXPECT_LT(gate, 0.01);
    EXPECT_TRUE(above(charged.ranking).empty());
  }
}

/// T15: 10 columns and 1,000 cost the same number of rows.
TEST(ScoreFeatures, PassesDoNotDependOnTheNumberOfFields) {
  std::vector<TrainLeapReport> reports;
  for (const Index fields : {10, 1000}) {
    const Rows<float> x = normal_rows<float>(600, fields, 3);
    std::vector<int> labels;
    for (Index b = 0; b < 600; ++b) labels.push_back(x(b, 0) > 0 ? 1 : 0);
    ScoreOptions options;
    options.mlp.hidden = {4};
    options.training = {.epochs = 3, .batch = 64};
    reports.push_back(score_features(x, labels, options).training);
  }
  EXPECT_EQ(reports[0].model_steps, reports[1].model_steps);
  EXPECT_EQ(reports[0].gate_steps, reports[1].gate_steps);
  EXPECT_EQ(reports[0].forward_rows, reports[1].forward_rows);
  EXPECT_EQ(reports[0].backward_rows, reports[1].backward_rows);
  EXPECT_EQ(reports[0].input_gradient_rows, reports[1].input_gradient_rows);
  EXPECT_GT(reports[0].gate_steps, 15);
}

/// A user's own model: logistic regression by plain descent, which counts what passes it.
class OwnModel {
 public:
  using scalar = double;

  explicit OwnModel(Index dim) : w_(Eigen::VectorXd::Zero(dim)), sums_(w_) {}
  Index dim() const { return w_.size(); }
  void forward(TensorView<const double, 2> x, std::span<double> logits) {
    ++forwards;
    forward_rows += x.rows();
    x_ = x;
    for (Index b = 0; b < x.rows(); ++b) {
      double logit = 0;
      for (Index i = 0; i < x.cols(); ++i) logit += x(b, i) * w_(i);
      logits[static_cast<std::size_t>(b)] = logit;
    }
  }
  void backward(std::span<const double> grad_logits) {
    backward_rows += x_.rows();
    for (Index b = 0; b < x_.rows(); ++b)
      for (Index i = 0; i < x_.cols(); ++i)
        sums_(i) += grad_logits[static_cast<std::size_t>(b)] * x_(b, i);
  }
  void input_gradient(std::span<const double> grad_logits, TensorView<double, 2> grad_x) {
    input_gradient_rows += x_.rows();
    for (Index b = 0; b < x_.rows(); ++b)
      for (Index i = 0; i < x_.cols(); ++i)
        grad_x(b, i) = grad_logits[static_cast<std::size_t>(b)] * w_(i);
  }
  void step() {
    ++steps;
    w_ -= 0.5 * sums_;
    sums_.setZero();
  }

  Index forwards = 0, steps = 0, forward_rows = 0, backward_rows = 0, input_gradient_rows = 0;

 private:
  Eigen::VectorXd w_, sums_;
  TensorView<const double, 2> x_{};
};
static_assert(Model<OwnModel>);
static_assert(!IncrementalModel<OwnModel>);

Planted few_planted(std::uint64_t seed) { return planted(few_fields(), 4000, 1000, seed); }

TEST(TrainLeap, TrainsAUsersOwnModel) {
  const Planted data = few_planted(4);
  const Rows<double> x = data.x.cast<double>();
  OwnModel model(data.layout.dim());
  Leap<double> leap(data.layout, {.alpha_per_field = 0.06 / 12, .learning_rate = 1e-2});
  const auto report = train_leap(model, leap, x.topRows(4000), data.training_labels(),
                                 x.bottomRows(1000), data.holdout_labels(), short_run());
  EXPECT_EQ(roc_auc(data.truth(), leap.gates()), 1.0);
  EXPECT_EQ(model.steps, report.model_steps);
  EXPECT_EQ(model.forward_rows, report.forward_rows);
  EXPECT_EQ(model.backward_rows, report.backward_rows);
  EXPECT_EQ(model.input_gradient_rows, report.input_gradient_rows);
  EXPECT_EQ(leap.steps(), report.gate_steps);
}

/// T15, counted by the model itself: a pass for each step and one to evaluate.
TEST(TrainLeap, CallsTheModelOnceAStep) {
  for (const Index fields : {10, 1000}) {
    const Rows<double> x = normal_rows<double>(60, fields, 5);
    std::vector<int> labels(60);
    for (std::size_t b = 0; b < 60; b += 2) labels[b] = 1;
    OwnModel model(fields);
    Leap<double> leap(FieldLayout::scalars(fields));
    const TrainLeapOptions options{.epochs = 4, .batch = 60, .gate_every = 2, .pretrain_epochs = 3};
    const auto report = train_leap(model, leap, x, labels, x, labels, options);
    EXPECT_EQ(report.model_steps, 7);
    EXPECT_EQ(report.gate_steps, 2);  // after the 4th and 6th step of the model
    EXPECT_EQ(model.forwards, 7 + report.gate_steps + 1);
    EXPECT_EQ(report.forward_rows, 60 * model.forwards);
    EXPECT_EQ(report.backward_rows, 60 * 7);
    EXPECT_EQ(report.input_gradient_rows, 60 * report.gate_steps);
  }
}

/// T20, what the option is there to show: a network that has room to remember its rows finds noise
/// useful on them.
TEST(TrainLeap, GatesTrainedOnTheModelsOwnRowsKeepNoise) {
  std::vector<PlantedField> fields{{"a", 1, 1, 1.5}, {"b", 1, 1, 1.5}};
  for (int i = 0; i < 60; ++i) fields.push_back({"noise"});
  const Planted data = planted(fields, 2000, 2000, 6);
  const auto noise_kept = [&](bool on_training) {
    Mlp<float> model(data.layout.dim(), {.hidden = {32}, .adam = {.learning_rate = 3e-3}});
    Leap<float> leap(data.layout, {.alpha_per_field = 0.1 / 62, .learning_rate = 1e-2});
    TrainLeapOptions options = short_run(100);
    options.gates_on_training = on_training;
    train_leap(model, leap, data.training_x(), data.training_labels(), data.holdout_x(),
               data.holdout_labels(), options);
    const std::vector<double> gates = leap.gates();
    EXPECT_GT(gates[0], 0.5);
    EXPECT_GT(gates[1], 0.5);
    return std::count_if(gates.begin() + 2, gates.end(), [](double g) { return g > 0.5; });
  };
  EXPECT_LE(noise_kept(false), 3);
  EXPECT_GE(noise_kept(true), 30);
}

/// T17 on trained models: of a column that is there twice one gate stays open, and of a column and
/// a noisy copy of it that of the column.
TEST(ScoreFeatures, OfTwoCopiesExactlyOneIsKept) {
  for (const float noise : {0.0f, 0.3f}) {
    Planted data = planted(few_columns(), 5000, 0, 7);
    data.x.col(5) = data.x.col(0) + noise * data.x.col(5);
    for (const ScoreModel model : {ScoreModel::Logistic, ScoreModel::Mlp})
      for (const std::uint64_t seed : {0u, 1u}) {
        SCOPED_TRACE(noise);
        ScoreOptions options = scored(data, model, 5e-2);
        options.drop_copies = false;
        options.training = short_run(40);
        options.seed = seed;
        const std::vector<double> gates = score_features(data.x, data.labels, options).gates;
        EXPECT_GT(noise > 0 ? gates[0] : std::max(gates[0], gates[5]), 0.5);
        EXPECT_LT(noise > 0 ? gates[5] : std::min(gates[0], gates[5]), 0.1);
        EXPECT_GT(gates[1], 0.5);
        EXPECT_GT(gates[2], 0.5);
      }
  }
}

TEST(ScoreFeatures, IsAFunctionOfTheSeedAndNotOfThreads) {
  const Planted data = planted(few_fields(), 3000, 0, 8);
  for (const ScoreModel model :
       {ScoreModel::Logistic, ScoreModel::FactorizationMachine, ScoreModel::Mlp}) {
    ScoreOptions options = scored(data, model, 1e-3);
    options.training = {.epochs = 1, .batch = 500};
    const auto gates = [&](const auto& backend) {
      return score_features(backend, data.x, data.labels, options).gates;
    };
    const std::vector<double> once = gates(pare::simd);
    EXPECT_EQ(once, gates(pare::simd));
    EXPECT_EQ(once, gates(pare::simd.threads(3)));
    options.seed = 1;
    EXPECT_NE(once, gates(pare::simd));
  }
}

/// Columns of other units, powers of 2, are the same bits once they have unit deviation.
TEST(ScoreFeatures, UnitsOfColumnsDoNotCountUnlessAsked) {
  const Planted data = planted(few_columns(), 600, 0, 9);
  Rows<float> other = data.x;
  other.col(0) *= 1024;
  other.col(7) /= 64;
  ScoreOptions options = scored(data, ScoreModel::Logistic, 1e-3);
  options.training.epochs = 3;
  const auto gates = [&](const Rows<float>& x) {
    return score_features(x, data.labels, options).gates;
  };
  EXPECT_EQ(gates(data.x), gates(other));
  options.scale = false;
  EXPECT_NE(gates(data.x), gates(other));
}

/// Nor do units at the ends of the range of double, where squares overflow or vanish.
TEST(ScoreFeatures, UnitsMayBeAsExtremeAsTheScalar) {
  const Planted data = planted(few_columns(), 200, 0, 9);
  const Rows<double> x = data.x.cast<double>();
  ScoreOptions options = scored(data, ScoreModel::Logistic, 1e-3);
  options.training.epochs = 2;
  const auto gates = [&](const Rows<double>& scaled) {
    return score_features(scaled, data.labels, options).gates;
  };
  const std::vector<double> wanted = gates(x);
  for (const int exponent : {-1000, -600, 600, 1019}) {
    Rows<double> scaled = x;
    scaled.leftCols(3) *= std::ldexp(1.0, exponent);
    ASSERT_TRUE(scaled.allFinite());
    const std::vector<double> got = gates(scaled);
    for (std::size_t j = 0; j < wanted.size(); ++j)
      EXPECT_NEAR(got[j], wanted[j], 1e-9) << exponent << ' ' << j;
  }
  Rows<double> widest = x;  // the difference of two numbers overflows
  for (Index b = 0; b < widest.rows(); ++b)
    widest(b, 0) = std::copysign(std::numeric_limits<double>::max(), x(b, 0));
  for (const double gate : gates(widest)) EXPECT_TRUE(std::isfinite(gate));
  Rows<double> least = x, signs = x;  // the square of the least number vanishes
  for (Index b = 0; b < x.rows(); ++b) {
    signs(b, 0) = std::copysign(1, x(b, 0));
    least(b, 0) = signs(b, 0) * std::numeric_limits<double>::denorm_min();
  }
  const std::vector<double> of_least = gates(least), of_signs = gates(signs);
  for (std::size_t j = 0; j < of_signs.size(); ++j) EXPECT_NEAR(of_least[j], of_signs[j], 1e-9);
  options.center = options.scale = false;
  refusal([&] { gates(widest); }, "feature::score_features", "x");
}

/// A held-out number beyond what float can multiply, of a column that is small elsewhere.
TEST(ScoreFeatures, OutliersThatOverflowAreRefused) {
  const Planted data = planted(few_columns(), 60, 0, 18);
  int refused = 0;
  for (Index b = 0; b < 60; ++b) {
    Rows<float> x = data.x;
    x.col(4) *= 1e-20f;
    x(b, 4) = 1e30f;
    try {
      score_features(x, data.labels, scored(data, ScoreModel::Logistic, 1e-3));
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find("score_features: x: "), std::string::npos)
          << error.what();
      ++refused;
    }
  }
  EXPECT_EQ(refused, 12);  // the rows that are held out
}

/// The strongest field, moved by 100 and 1000 of its deviations: the models start at 0 and take
/// small steps, so that without its mean taken away it is of no use to them.
TEST(ScoreFeatures, ColumnsFarFromZeroScoreAsThoseAtZero) {
  const Planted data = planted(few_columns(), 1500, 0, 9);
  for (const ScoreModel model :
       {ScoreModel::Logistic, ScoreModel::FactorizationMachine, ScoreModel::Mlp}) {
    SCOPED_TRACE(static_cast<int>(model));
    ScoreOptions options = scored(data, model, 1e-2);
    const double near = score_features(data.x, data.labels, options).training.holdout_auc;
    for (const float offset : {100.0f, -1000.0f}) {
      Rows<float> far = data.x;
      far.col(0).array() += offset;
      const Scores scores = score_features(far, data.labels, options);
      EXPECT_EQ(roc_auc(data.truth(), scores.gates), 1.0);
      EXPECT_NEAR(scores.training.holdout_auc, near, 0.01);
    }
    Rows<float> far = data.x;
    far.col(0).array() += 100.0f;
    options.center = false;
    EXPECT_LT(score_features(far, data.labels, options).training.holdout_auc, near - 0.05);
  }
}

TEST(ScoreFeatures, StorageAndScalarOfLabelsDoNotCount) {
  const Planted data = planted(few_fields(), 400, 0, 10);
  const Eigen::MatrixXf columns = data.x;
  std::vector<double> labels(data.labels.begin(), data.labels.end());
  ScoreOptions options = scored(data, ScoreModel::Mlp, 1e-3);
  options.training.epochs = 2;
  EXPECT_EQ(score_features(data.x, data.labels, options).gates,
            score_features(columns, labels, options).gates);
}

/// T14.
TEST(ScoreFeatures, AColumnThatNeverChangesIsInactive) {
  Planted data = planted(few_columns(), 600, 0, 11);
  data.x.col(1).setConstant(3);
  ScoreOptions options = scored(data, ScoreModel::Logistic, 1e-3);
  options.training.epochs = 3;
  const Ranking ranking = score_features(data.x, data.labels, options).ranking;
  EXPECT_EQ(ranking.order.back(), 1);
  EXPECT_EQ(ranking.status[1], FieldStatus::Inactive);
  EXPECT_EQ(ranking.scores[1], 0.0);
}

/// y = [x_0 > 0] and sums of three columns, in tables too small for anything but what the number of
/// rows asks for: fewer rows a step, more epochs, a penalty that so few held-out rows can resolve.
TEST(ScoreFeatures, DefaultsFindTheSignalInSmallTables) {
  const Rows<float> x = normal_rows<float>(600, 10, 21);
  std::vector<int> step;
  for (Index b = 0; b < 600; ++b) step.push_back(x(b, 0) > 0 ? 1 : 0);
  const Scores one = score_features(x, step);
  EXPECT_EQ(one.ranking.order.front(), 0);
  EXPECT_EQ(above(one.ranking), std::vector<Index>{0});
  EXPECT_GE(one.training.gate_steps, 1000);
  std::vector<PlantedField> fields{{"a", 1, 1, 1.5}, {"b", 1, 1, -1.2}, {"c", 1, 1, 1}};
  for (int i = 0; i < 27; ++i) fields.push_back({"noise"});
  for (const Index rows : {300, 2000}) {
    SCOPED_TRACE(rows);
    const Planted data = planted(fields, rows, 0, 22);
    const Scores three = score_features(data.x, data.labels);
    double places = 0;
    for (Index place = 0; place < 30; ++place)
      if (three.ranking.order[static_cast<std::size_t>(place)] < 3)
        places += static_cast<double>(place + 1) / 3;
    EXPECT_LE(places, rows == 300 ? 3 : 2) << "mean place of three, 2 at best";
    if (rows == 300) continue;
    std::vector<Index> kept = above(three.ranking);
    std::sort(kept.begin(), kept.end());
    EXPECT_TRUE(kept.size() >= 3 && kept[0] == 0 && kept[1] == 1 && kept[2] == 2);
    EXPECT_LE(kept.size(), 4u);
  }
}

/// What is not given follows the number of rows; what is given stays.
TEST(TrainLeap, PlansItsRunByTheNumberOfRows) {
  const auto planned = [](const TrainLeapOptions& options, Index rows) {
    const TrainLeapOptions p = pare::feature::detail::planned(options, rows);
    return std::vector<Index>{*p.epochs, *p.batch, *p.gate_batch, *p.pretrain_epochs};
  };
  using List = std::vector<Index>;
  EXPECT_EQ(planned({}, 240), (List{143, 30, 512, 71}));  // of 7 steps or more
  EXPECT_EQ(planned({}, 8), (List{1000, 16, 512, 500}));
  EXPECT_EQ(planned({}, 24000), (List{11, 256, 512, 5}));
  EXPECT_EQ(planned({}, 240000), (List{10, 256, 512, 5}));
  EXPECT_EQ(planned({.gate_every = 3}, 240), (List{429, 30, 512, 214}));
  EXPECT_EQ(planned({.epochs = 3, .batch = 7, .gate_batch = 9, .pretrain_epochs = 0}, 240),
            (List{3, 7, 9, 0}));
}

/// Open gates are all near 1; what fields are worth to the model orders them.
TEST(ScoreFeatures, RanksTheTopByWhatFieldsAreWorth) {
  std::vector<PlantedField> fields{
      {"e", 1, 1, 0.6}, {"a", 1, 1, 2.4}, {"c", 1, 1, 1.2}, {"d", 1, 1, 0.85}, {"b", 1, 1, 1.7}};
  for (int i = 0; i < 5; ++i) fields.push_back({"noise"});
  const Planted data = planted(fields, 2000, 0, 23);
  const Scores scores = score_features(data.x, data.labels);
  const std::vector<Index> top(scores.ranking.order.begin(), scores.ranking.order.begin() + 5);
  EXPECT_EQ(top, (std::vector<Index>{1, 4, 2, 3, 0}));
  EXPECT_EQ(scores.ranking.scores, scores.gates);
  EXPECT_EQ(scores.importance_rows, 16 * 400);
}

/// A copy is left out, whatever its place, sign of zero and width, and says of which.
TEST(ScoreFeatures, CopiesAreLeftOutUnlessAsked) {
  std::vector<PlantedField> fields{{"a", 1, 1, 1.5}, {"w", 2, 1, 1}, {"x", 1},
                                   {"v", 2},         {"y", 1},       {"z", 1}};
  Planted data = planted(fields, 400, 0, 24);
  data.x.col(3) = data.x.col(0) * 2;                  // x: the same numbers once it is scaled
  data.x.middleCols(4, 2) = data.x.middleCols(1, 2);  // v
  data.x.rightCols(2).setConstant(1);                 // y and z, no copies of anything
  ScoreOptions options = scored(data, ScoreModel::Mlp, 1e-3);
  options.training.epochs = 3;
  const Scores scores = score_features(data.x, data.labels, options);
  using Copy = std::optional<Index>;
  EXPECT_EQ(scores.copy_of, (std::vector<Copy>{Copy(), Copy(), Copy(0), Copy(1), Copy(), Copy()}));
  for (const std::size_t j : {2u, 3u, 4u, 5u}) {
    EXPECT_EQ(scores.ranking.status[j], FieldStatus::Inactive) << j;
    EXPECT_EQ(scores.gates[j], 0) << j;
  }
  options.drop_copies = false;
  const Scores all = score_features(data.x, data.labels, options);
  EXPECT_EQ(all.copy_of, std::vector<Copy>(6));
  for (const std::size_t j : {2u, 3u}) EXPECT_NE(all.ranking.status[j], FieldStatus::Inactive);
  // One number that differs in a held-out row is enough.
  options.drop_copies = true;
  for (Index b = 0; b < 400; b += 13) {
    Planted other = data;
    other.x(b, 4) += 0.5f;
    EXPECT_EQ(score_features(other.x, data.labels, options).copy_of[3], Copy());
  }
  data.x.col(0).head(380).setZero();
  data.x.col(3) = data.x.col(0) * 2;
  for (Index b = 0; b < 380; ++b) data.x(b, 3) = -0.0f;
  options.center = false;
  EXPECT_EQ(score_features(data.x, data.labels, options).copy_of[2], Copy(0));
}

/// What it does is what its parts do: a stratified split, columns of unit deviation, alpha over
/// fields, and a gate rate of 8 over the steps.
TEST(ScoreFeatures, IsTrainLeapOnSplitRows) {
  const Planted data = planted(few_columns(), 1000, 0, 12);
  ScoreOptions options = scored(data, ScoreModel::Mlp, 2e-3);
  options.alpha_per_field.reset();
  options.seed = 5;
  options.holdout = 0.25;
  options.mlp.seed = 2;
  options.training = {.epochs = 4, .batch = 50, .seed = 3};
  options.leap.seed = 7;
  const Scores scores = score_features(data.x, data.labels, options);

  const std::vector<float> labels(data.labels.begin(), data.labels.end());
  const pare::feature::detail::SplitRows<float> rows(
      "", pare::as_const(pare::to_view(data.x)), std::span<const float>(labels), 0.25, {}, true, 5);
  MlpOptions of_model = options.mlp;
  of_model.seed = 7;
  Mlp<float> model(10, of_model);
  const auto batches = static_cast<double>(rows.training.rows() / 50 - 1);
  Leap<float> leap(data.layout, {.alpha_per_field = 3.0 / static_cast<double>(rows.holdout.rows()),
                                 .donors = DonorPolicy::Shift,
                                 .learning_rate = 8 / (4 * batches),
                                 .seed = 12});
  const auto report = train_leap(model, leap, rows.training.x, rows.training.labels, rows.holdout.x,
                                 rows.holdout.labels, {.epochs = 4, .batch = 50, .seed = 8});
  EXPECT_EQ(scores.gates, leap.gates());
  EXPECT_EQ(scores.ranking.order,
            open_first_by(scores.importance, leap.ranking_by_time_open()).order);
  EXPECT_EQ(scores.training.holdout_loss, report.holdout_loss);
  EXPECT_EQ(scores.training.forward_rows, report.forward_rows);
}

/// The default rate closes a gate in the steps that it takes, which are fewer where they are rarer.
TEST(ScoreFeatures, TheRateOfGatesFollowsTheirSteps) {
  const Planted data = planted(few_columns(), 200, 0, 9);
  ScoreOptions options = scored(data, ScoreModel::Logistic, 1e-3);
  options.training = {.epochs = 4, .batch = 20, .gate_every = 3, .pretrain_epochs = 0};
  const auto by_default = score_features(data.x, data.labels, options);
  options.gate_learning_rate = 8 / (4 * 7 / 3.0);  // of 160 rows, 7 whole batches at least
  EXPECT_EQ(score_features(data.x, data.labels, options).gates, by_default.gates);
  *options.gate_learning_rate *= 1.01;
  EXPECT_NE(score_features(data.x, data.labels, options).gates, by_default.gates);
}

TEST(SplitRows, IsStratifiedAndCompleteAndOfMeanZeroAndUnitDeviation) {
  constexpr Index rows = 203;
  Rows<double> x = normal_rows<double>(rows, 3, 13) * 7;
  std::vector<double> labels;
  for (Index b = 0; b < rows; ++b) {
    x(b, 0) = static_cast<double>(b);
    x(b, 2) = 4;
    labels.push_back(b % 7 == 0 ? 1 : 0);  // 29 of 203
  }
  const auto view = pare::as_const(pare::to_view(x));
  for (const bool by_columns : {false, true}) {
    const pare::feature::detail::SplitRows<double> raw("", view, std::span<const double>(labels),
                                                       0.2, {false, false}, by_columns, 1);
    EXPECT_EQ(raw.holdout.rows(), 35 + 6);  // of 174 and of 29
    std::set<Index> seen;
    Index sorted = 0;
    for (const auto& part : {raw.training, raw.holdout})
      for (Index b = 0; b < part.rows(); ++b) {
        const auto row = static_cast<Index>(part.x(b, 0));
        seen.insert(row);
        if (b > 0 && part.x(b - 1, 0) < part.x(b, 0)) ++sorted;
        EXPECT_EQ(part.x(b, 1), x(row, 1));
        EXPECT_EQ(part.labels[static_cast<std::size_t>(b)], labels[static_cast<std::size_t>(row)]);
      }
    EXPECT_EQ(seen.size(), 203u);
    EXPECT_NEAR(static_cast<double>(sorted), 101, 40);  // the order is gone
    // Nor do classes follow each other: 23 of 162 rows are of the rarer.
    Index changes = 0;
    for (std::size_t b = 1; b < raw.training.labels.size(); ++b)
      changes += raw.training.labels[b - 1] != raw.training.labels[b] ? 1 : 0;
    EXPECT_GE(changes, 10);
    const pare::feature::detail::SplitRows<double> scaled("", view, std::span<const double>(labels),
                                                          0.2, {}, by_columns, 1);
    const pare::feature::detail::SplitRows<double> kept("", view, std::span<const double>(labels),
                                                        0.2, {.center = false}, by_columns, 1);
    for (Index i = 0; i < 2; ++i) {
      double mean = 0, square = 0;
      const auto count = static_cast<double>(scaled.training.rows());
      for (Index b = 0; b < scaled.training.rows(); ++b) mean += scaled.training.x(b, i) / count;
      for (Index b = 0; b < scaled.training.rows(); ++b)
        square += std::pow(scaled.training.x(b, i) - mean, 2) / count;
      EXPECT_NEAR(mean, 0, 1e-12);
      EXPECT_NEAR(square, 1, 1e-12);
      // The hold-out loses and is divided by the same numbers.
      const double deviation = (raw.training.x(2, i) - raw.training.x(7, i)) /
                               (scaled.training.x(2, i) - scaled.training.x(7, i));
      EXPECT_NEAR(
          scaled.holdout.x(3, i),
          (raw.holdout.x(3, i) - raw.training.x(2, i)) / deviation + scaled.training.x(2, i),
          1e-10);
      // Nothing is subtracted where that is not wanted.
      EXPECT_NEAR(kept.holdout.x(3, i) * raw.training.x(2, i),
                  raw.holdout.x(3, i) * kept.training.x(2, i), 1e-10);
    }
    EXPECT_EQ(scaled.holdout.x(0, 2), 0.0);
    EXPECT_EQ(kept.holdout.x(0, 2), 4.0);
  }
}

/// Each epoch visits rows at most once, in another cut and order, and leaves out less than two
/// batches.
TEST(BatchCycle, VisitsRowsOnceAnEpoch) {
  Rows<double> x(103, 1);
  std::vector<double> labels(103);
  for (Index b = 0; b < 103; ++b) x(b, 0) = static_cast<double>(b);
  const pare::feature::detail::LabelledRows<double> rows{pare::as_const(pare::to_view(x)), labels};
  pare::feature::detail::BatchCycle<double> cycle(rows, 10, 1, 0);
  std::set<double> ever;
  std::set<std::vector<double>> epochs;
  for (int epoch = 0; epoch < 40; ++epoch) {
    std::set<double> seen;
    std::vector<double> order;
    do {
      const auto batch = cycle.next();
      ASSERT_EQ(batch.rows(), 10);
      for (Index b = 0; b < 10; ++b) EXPECT_TRUE(seen.insert(batch.x(b, 0)).second);
      order.push_back(batch.x(0, 0));
    } while (!cycle.at_end());
    EXPECT_GE(order.size(), 9u);
    ever.insert(seen.begin(), seen.end());
    epochs.insert(order);
  }
  EXPECT_EQ(ever.size(), 103u);
  EXPECT_EQ(epochs.size(), 40u);
  pare::feature::detail::BatchCycle<double> whole(rows, 1000, 1, 0);
  EXPECT_EQ(whole.next().rows(), 103);
  EXPECT_TRUE(whole.at_end());
}

struct EarlyStopping {
  TrainLeapReport report;
  std::vector<double> thetas;
};

/// A network that overfits, so that the AUC of the held-out rows turns.
EarlyStopping overfit(const Planted& data, Index epochs, std::optional<Index> patience = {},
                      double rate = 3e-2) {
  Mlp<float> model(data.layout.dim(), {.hidden = {32}, .adam = {.learning_rate = rate}});
  Leap<float> leap(data.layout, {.alpha_per_field = 0, .learning_rate = 1e-3});
  EarlyStopping result;
  result.report = train_leap(model, leap, data.training_x(), data.training_labels(),
                             data.holdout_x(), data.holdout_labels(),
                             {.epochs = epochs,
                              .batch = 50,
                              .gate_batch = 50,
                              .pretrain_epochs = 0,
                              .patience = patience});
  result.thetas.assign(leap.thetas().begin(), leap.thetas().end());
  return result;
}

TEST(TrainLeap, PatienceTakesTheGatesOfTheBestEpoch) {
  const Planted data = planted(few_columns(), 300, 300, 14);
  for (const Index patience : {1, 3, 1000}) {
    const EarlyStopping stopped = overfit(data, 30, patience);
    const std::vector<double>& aucs = stopped.report.epoch_aucs;
    const auto best = std::max_element(aucs.begin(), aucs.end()) - aucs.begin();
    EXPECT_EQ(static_cast<Index>(aucs.size()), std::min<Index>(30, best + 1 + patience));
    EXPECT_LT(best, 29);
    const EarlyStopping until_best = overfit(data, best + 1);
    EXPECT_EQ(stopped.thetas, until_best.thetas);
    EXPECT_NE(stopped.thetas, overfit(data, static_cast<Index>(aucs.size())).thetas);
    EXPECT_TRUE(until_best.report.epoch_aucs.empty());
  }
}

/// There is no AUC of one class: then it is the epoch with the least loss, which at a low rate is
/// not the first.
TEST(TrainLeap, PatienceJudgesHeldOutRowsOfOneClassByTheirLoss) {
  Planted data = planted(few_columns(), 300, 300, 15);
  std::fill(data.labels.begin() + 300, data.labels.end(), 1);
  std::vector<EarlyStopping> runs;
  for (Index epochs = 1; epochs <= 6; ++epochs)
    runs.push_back(overfit(data, epochs, std::nullopt, 1e-3));
  const auto best = std::min_element(runs.begin(), runs.end(), [](const auto& a, const auto& b) {
    return a.report.holdout_loss < b.report.holdout_loss;
  });
  EXPECT_NE(best, runs.begin());
  const EarlyStopping stopped = overfit(data, 6, 1000, 1e-3);
  EXPECT_TRUE(std::isnan(stopped.report.holdout_auc));
  EXPECT_EQ(stopped.thetas, best->thetas);
}

/// The model is further when the gates begin, and the gates take no step before.
TEST(TrainLeap, PretrainingTrainsTheModelAlone) {
  const Planted data = few_planted(15);
  const auto run = [&](Index pretrain) {
    Logistic<float> model(data.layout.dim());
    Leap<float> leap(data.layout);
    TrainLeapOptions options = short_run(1);
    options.pretrain_epochs = pretrain;
    const auto report = train_leap(model, leap, data.training_x(), data.training_labels(),
                                   data.holdout_x(), data.holdout_labels(), options);
    EXPECT_EQ(leap.steps(), report.gate_steps);
    return report;
  };
  const auto with = run(5), without = run(0);
  EXPECT_LT(with.training_loss, without.training_loss);
  EXPECT_LE(std::abs(with.gate_steps - without.gate_steps), 1);
  EXPECT_GE(with.model_steps, without.model_steps + 5 * 38);
}

/// Held-out rows of one class have no AUC; the rest is as ever.
TEST(TrainLeap, ReportsNoAucOfOneClass) {
  const Rows<float> x = normal_rows<float>(20, 2, 16);
  const std::vector<int> labels{0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1};
  Logistic<float> model(2);
  Leap<float> leap(FieldLayout::scalars(2));
  for (const int label : {0, 1}) {
    const auto report = train_leap(model, leap, x, labels, x, std::vector<int>(20, label));
    EXPECT_TRUE(std::isnan(report.holdout_auc));
    EXPECT_GT(report.holdout_loss, 0.0);
  }
}

/// As many steps later, not in the same step of each cycle; and the mean of the losses is theirs.
TEST(TrainLeap, GatesStepAfterSoManyStepsOfTheModel) {
  const Rows<float> x = normal_rows<float>(21, 2, 16);
  std::vector<int> labels;
  for (Index b = 0; b < 21; ++b) labels.push_back(x(b, 0) > 0 ? 1 : 0);
  for (const Index every : {1, 2, 3, 4, 100}) {
    Logistic<float> model(2, {.adam = {.learning_rate = 1e-30}});  // stays at a logit of 0
    Leap<float> leap(FieldLayout::scalars(2));
    const auto report =
        train_leap(model, leap, x, labels, x, labels,
                   {.epochs = 1, .batch = 5, .gate_every = every, .pretrain_epochs = 0});
    EXPECT_EQ(report.gate_steps, report.model_steps / every) << every;
    EXPECT_NEAR(report.training_loss, std::log(2.0), 1e-6);
  }
}

/// An AUC that is only as good as the best is not better.
TEST(TrainLeap, PatienceEndsWhereTheAucStays) {
  const Rows<float> x = normal_rows<float>(21, 2, 16);
  std::vector<int> labels;
  for (Index b = 0; b < 21; ++b) labels.push_back(b % 2 == 0 ? 1 : 0);
  Logistic<float> model(2, {.adam = {.learning_rate = 1e-30}});  // all scores are the same
  Leap<float> leap(FieldLayout::scalars(2), {.donors = DonorPolicy::Shift});
  std::fill(model.weights().begin(), model.weights().end(), 0.0f);
  const auto report =
      train_leap(model, leap, x, labels, Rows<float>(Rows<float>::Zero(21, 2)), labels,
                 {.epochs = 9, .batch = 5, .pretrain_epochs = 0, .patience = 2});
  EXPECT_EQ(report.epoch_aucs, std::vector<double>(3, 0.5));
}

TEST(TrainLeap, RefusesBadInput) {
  const std::string name = "feature::train_leap";
  const Rows<float> x = normal_rows<float>(6, 3, 17);
  const std::vector<int> labels{0, 1, 0, 1, 0, 1}, few{0, 1}, other{0, 1, 2, 0, 1, 0};
  Logistic<float> model(3), wide(4);
  Leap<float> leap(FieldLayout::scalars(3));
  refusal([&] { train_leap(wide, leap, x, labels, x, labels); }, name, "model");
  refusal([&] { train_leap(model, leap, x.leftCols(2), labels, x, labels); }, name, "x");
  refusal([&] { train_leap(model, leap, x.topRows(1), std::vector<int>{1}, x, labels); }, name,
          "x");
  refusal([&] { train_leap(model, leap, x, few, x, labels); }, name, "labels");
  refusal([&] { train_leap(model, leap, x, other, x, labels); }, name, "labels");
  refusal([&] { train_leap(model, leap, x, labels, x.leftCols(2), labels); }, name, "holdout");
  refusal([&] { train_leap(model, leap, x, labels, x.topRows(0), std::vector<int>{}); }, name,
          "holdout");
  refusal([&] { train_leap(model, leap, x, labels, x, few); }, name, "holdout_labels");
  refusal([&] { train_leap(model, leap, x, labels, x, other); }, name, "holdout_labels");
  const auto option = [&](const std::string& argument, const TrainLeapOptions& options) {
    refusal([&] { train_leap(model, leap, x, labels, x, labels, options); }, name, argument);
  };
  option("epochs", {.epochs = 0});
  option("batch", {.batch = 1});
  option("gate_every", {.gate_every = 0});
  option("pretrain_epochs", {.pretrain_epochs = -1});
  option("patience", {.patience = -1});
  option("patience", {.patience = 0});
  refusal([] { Leap<float>(FieldLayout::scalars(3), {.alpha_per_field = -1}); }, "feature::Leap",
          "alpha_per_field");
  EXPECT_EQ(leap.steps(), 0);
  for (const float w : model.parameters()) EXPECT_EQ(w, 0.0f);
}

TEST(ScoreFeatures, RefusesBadInput) {
  const std::string name = "feature::score_features";
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Planted data = planted(few_columns(), 60, 0, 18);
  const auto option = [&](const std::string& argument, auto&& change) {
    ScoreOptions options = scored(data, ScoreModel::Logistic, 1e-3);
    change(options);
    refusal([&] { score_features(data.x, data.labels, options); }, name, argument);
  };
  for (const double holdout : {0.0, 1.0, -0.5, nan})
    option("holdout", [&](ScoreOptions& o) { o.holdout = holdout; });
  option("batch", [](ScoreOptions& o) { o.training.batch = 1; });
  option("epochs", [](ScoreOptions& o) { o.training.epochs = 0; });
  option("model", [](ScoreOptions& o) { o.model = static_cast<ScoreModel>(3); });
  option("alpha_per_field", [](ScoreOptions& o) { o.alpha_per_field = -1; });
  option("alpha_per_field", [&](ScoreOptions& o) { o.alpha_per_field = nan; });
  for (const double rate : {0.0, -1.0, nan})
    option("gate_learning_rate", [&](ScoreOptions& o) { o.gate_learning_rate = rate; });
  option("gate_batch", [](ScoreOptions& o) { o.training.gate_batch = 1; });
  option("x", [](ScoreOptions& o) { o.layout = FieldLayout({3, 4}); });

  const auto bad_x = [&](const Rows<float>& x) {
    refusal([&] { score_features(x, data.labels); }, name, "x");
  };
  for (const float number :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (Index b = 0; b < 60; ++b) {  // some are held out
      Rows<float> x = data.x;
      x(b, 4) = number;
      bad_x(x);
    }
  bad_x(data.x.leftCols(0));
  const TensorView<const float, 2> nothing{nullptr, {60, 10}, {10, 1}};
  refusal([&] { score_features(nothing, data.labels); }, name, "x");
  // Not one of them is read, nor is there room for so many.
  const int label = 0;
  const TensorView<const int, 1> many{&label, {Index{1} << 50}, {1}};
  refusal([&] { score_features(data.x, many); }, name, "labels");
  const auto bad_labels = [&](const std::vector<int>& labels, Index rows = 60) {
    refusal([&] { score_features(data.x.topRows(rows), labels); }, name, "labels");
  };
  std::vector<int> labels = data.labels;
  labels[7] = 2;
  bad_labels(labels);
  bad_labels(std::vector<int>(59, 1));
  bad_labels(std::vector<int>(60, 1));
  labels.assign(60, 0);
  labels[1] = labels[2] = labels[3] = 1;
  bad_labels(labels);
  bad_labels({}, 0);
  labels[4] = 1;  // two to train on and two to hold out
  EXPECT_NO_THROW(score_features(data.x, labels));
}

}  // namespace
}  // namespace feature_score_test
