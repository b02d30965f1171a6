// SPDX-License-Identifier: Apache-2.0

#include "compress/compress_model.hpp"

#include "compress/progress.hpp"
#include "io/temporary_folder.hpp"

#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/io/safetensors.hpp>

#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace studies_compress_model_test {
namespace {

using compress::Arguments;
using compress::Index;
using compress::LayerReport;
using compress::Method;
using compress::Report;
using pare::factor::RankScore;
using pare::io::NamedTensor;
using pare::io::SafetensorsFile;

using Matrix = pare::RowMatrix<double>;

/// Of --allocate.
constexpr RankScore all_rules[] = {RankScore::UniformShare, RankScore::EnergyShare,
                                   RankScore::NormalizedEnergy, RankScore::AbsoluteEnergy};

Matrix random_matrix(Index rows, Index cols, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<double> normal;
  return Matrix::NullaryExpr(rows, cols, [&](Index, Index) { return normal(bits); });
}

/// Singular values that fall by the factor from one to the next.
Matrix decaying_matrix(Index rows, Index cols, double factor, unsigned seed) {
  const Index n = std::min(rows, cols);
  const Eigen::VectorXd values =
      Eigen::VectorXd::NullaryExpr(n, [&](Index i) { return std::pow(factor, double(i)); });
  return random_matrix(rows, n, seed) * values.asDiagonal() * random_matrix(n, cols, seed + 1) /
         std::sqrt(static_cast<double>(rows * cols));
}

template <class S>
std::vector<S> stored_as(const Matrix& m) {
  std::vector<S> elements;
  for (Index i = 0; i < m.size(); ++i)
    elements.push_back(static_cast<S>(static_cast<pare::compute_t<S>>(m.data()[i])));
  return elements;
}

template <class S>
pare::TensorView<const S, 2> as_matrix(const std::vector<S>& elements, Index rows, Index cols) {
  return {elements.data(), {rows, cols}, {cols, 1}};
}

/// A model of four matrices of all types, and tensors that are none of the program's business.
class CompressModel : public TemporaryFolder {
 protected:
  void SetUp() override {
    TemporaryFolder::SetUp();
    const auto f64 = stored_as<double>(decaying_matrix(96, 80, 0.9, 1));
    const auto f32 = stored_as<float>(decaying_matrix(100, 150, 0.93, 3));
    const auto f16 = stored_as<pare::f16>(decaying_matrix(120, 70, 0.9, 5));
    const auto bf16 = stored_as<pare::bf16>(decaying_matrix(128, 128, 0.97, 7));
    const std::vector<std::int64_t> counts(100 * 100, 42);
    const auto bias = stored_as<float>(random_matrix(1, 150, 9));
    const auto small = stored_as<float>(random_matrix(63, 200, 10));
    pare::io::write_safetensors(path("in"),
                                {{"a.weight", as_matrix(f64, 96, 80)},
                                 {"b.weight", as_matrix(f32, 100, 150)},
                                 {"b.bias", bias},
                                 {"c.weight", as_matrix(f16, 120, 70)},
                                 {"d.weight", as_matrix(bf16, 128, 128)},
                                 {"small.weight", as_matrix(small, 63, 200)},
                                 {"counts", as_matrix(counts, 100, 100)}},
                                {{"format", "pt"}});
    arguments_.input = path("in");
    arguments_.output = path("out");
    arguments_.keep = 0.5;
    arguments_.threads = 2;
  }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  Report run() const {
    return compress::compress_model(arguments_, [](double, const std::string&) {});
  }

  static Matrix product(const SafetensorsFile& file, const std::string& name) {
    return file.read_matrix<double>(name + ".left") * file.read_matrix<double>(name + ".right");
  }

  /// ||(W - product) R|| / ||W R||.
  static double error(const SafetensorsFile& in, const SafetensorsFile& out,
                      const std::string& name, const Matrix& root) {
    const Matrix w = in.read_matrix<double>(name);
    return ((w - product(out, name)) * root).norm() / (w * root).norm();
  }

  static const LayerReport& layer(const Report& report, const std::string& name) {
    return *std::ranges::find(report.layers, name, &LayerReport::name);
  }

  Arguments arguments_;
};

/// Relative error of rounding both factors to the type, and of sums in float.
double rounding(const std::string& dtype) {
  return dtype == "BF16" ? 0x1p-8 : dtype == "F16" ? 0x1p-10 : dtype == "F32" ? 1e-5 : 1e-7;
}

void expect_error(double got, const LayerReport& layer) {
  const double slack = rounding(layer.dtype);
  EXPECT_LE(got, std::hypot(layer.relative_error, slack) * (1 + 1e-4)) << layer.name;
  EXPECT_GE(got, layer.relative_error * (1 - slack) - 1e-7) << layer.name;
}

TEST_F(CompressModel, ProductsAreAsNearAsTheReportSays) {
  for (const RankScore rule : all_rules) {
    arguments_.allocate = rule;
    const Report report = run();
    const SafetensorsFile in(arguments_.input), out(arguments_.output);
    ASSERT_EQ(report.layers.size(), 4u);
    for (const LayerReport& layer : report.layers) {
      ASSERT_GT(layer.rank, 0);
      EXPECT_EQ(layer.method, Method::Svd);
      EXPECT_GT(layer.relative_error, 1e-4);
      EXPECT_LT(layer.relative_error, 0.5);
      const Matrix root = Matrix::Identity(layer.in, layer.in);
      expect_error(error(in, out, layer.name, root), layer);
    }
  }
}

TEST_F(CompressModel, FactorsHaveTheTypeOfTheMatrixAndItsRank) {
  const Report report = run();
  const SafetensorsFile in(arguments_.input), out(arguments_.output);
  for (const LayerReport& layer : report.layers) {
    EXPECT_FALSE(out.contains(layer.name));
    const auto& left = out.tensor(layer.name + ".left");
    const auto& right = out.tensor(layer.name + ".right");
    EXPECT_EQ(left.dtype, in.tensor(layer.name).dtype);
    EXPECT_EQ(right.dtype, in.tensor(layer.name).dtype);
    EXPECT_EQ(left.shape, (std::vector<Index>{layer.out, layer.rank}));
    EXPECT_EQ(right.shape, (std::vector<Index>{layer.rank, layer.in}));
    EXPECT_EQ(out.metadata().at("pare.rank." + layer.name), std::to_string(layer.rank));
    EXPECT_EQ(out.metadata().at("pare.method." + layer.name), "svd");
  }
}

TEST_F(CompressModel, OtherTensorsAndNotesAreCopied) {
  const Report report = run();
  EXPECT_EQ(report.copied, 3u);
  EXPECT_EQ(report.other_types, (std::vector<std::string>{"counts (I64)"}));
  std::ostringstream text;
  compress::print(text, report);
  EXPECT_NE(text.str().find("a type that is not factored: counts (I64)"), std::string::npos);
  const SafetensorsFile in(arguments_.input), out(arguments_.output);
  EXPECT_EQ(out.tensors().size(), 3u + 2 * 4);
  for (const std::string name : {"b.bias", "small.weight", "counts"}) {
    EXPECT_EQ(out.tensor(name).dtype, in.tensor(name).dtype);
    EXPECT_EQ(out.tensor(name).shape, in.tensor(name).shape);
    EXPECT_TRUE(std::ranges::equal(out.tensor(name).bytes, in.tensor(name).bytes)) << name;
  }
  EXPECT_EQ(out.metadata().at("format"), "pt");
}

TEST_F(CompressModel, RanksMeetTheBudgetAndLeaveLessThanAnIncrement) {
  for (const RankScore rule : all_rules)
    for (const Index multiple : {1, 8}) {
      arguments_.allocate = rule;
      arguments_.multiple = multiple;
      arguments_.min_rank = 5;
      const Report report = run();
      const auto budget = static_cast<Index>(0.5 * static_cast<double>(report.dense_parameters()));
      EXPECT_LE(report.parameters(), budget);
      for (const LayerReport& layer : report.layers) {
        EXPECT_EQ(layer.rank % multiple, 0);
        EXPECT_GE(layer.rank, 5);
        EXPECT_GT(report.parameters() + multiple * (layer.out + layer.in), budget);
      }
    }
}

TEST_F(CompressModel, LossGivesTheLeastSumOfSquares) {
  std::map<RankScore, double> squares;
  for (const auto rule : {RankScore::UniformShare, RankScore::AbsoluteEnergy}) {
    arguments_.allocate = rule;
    const SafetensorsFile in(arguments_.input);
    for (const LayerReport& layer : run().layers)
      squares[rule] +=
          std::pow(layer.relative_error * in.read_matrix<double>(layer.name).norm(), 2);
  }
  EXPECT_LT(squares[RankScore::AbsoluteEnergy], 0.9 * squares[RankScore::UniformShare]);
}

TEST_F(CompressModel, AllThatFitsStaysDense) {
  arguments_.keep = 1;
  const Report report = run();
  EXPECT_EQ(report.parameters(), report.dense_parameters());
  const SafetensorsFile in(arguments_.input), out(arguments_.output);
  for (const auto& tensor : in.tensors())
    EXPECT_TRUE(std::ranges::equal(out.tensor(tensor.name).bytes, tensor.bytes)) << tensor.name;
  EXPECT_EQ(out.metadata().at("pare.method.a.weight"), "dense");
}

TEST_F(CompressModel, ALayerWhoseLeastFactorsAreLargerStaysDense) {
  arguments_.min_rank = 50;
  arguments_.keep = 0.9;
  for (const RankScore rule : all_rules) {
    arguments_.allocate = rule;
    const Report report = run();
    EXPECT_EQ(layer(report, "a.weight").rank, 0);
    EXPECT_EQ(layer(report, "c.weight").rank, 0);
    EXPECT_GE(layer(report, "b.weight").rank, 50);
  }
  arguments_.min_rank = 1000;
  arguments_.keep = 1;
  for (const LayerReport& layer : run().layers) EXPECT_EQ(layer.rank, 0);
}

// Half of the flat layer's energy is behind the largest rank that its factors can have.
TEST_F(CompressModel, WhatIsBehindTheLargestRankCountsAsLost) {
  const Matrix flat = Matrix::Identity(64, 64);
  const auto falling = stored_as<double>(decaying_matrix(64, 64, 0.9, 60));
  pare::io::write_safetensors(path("in"),
                              {{"flat", flat}, {"falling", as_matrix(falling, 64, 64)}});
  arguments_.keep = 0.75;
  arguments_.allocate = RankScore::EnergyShare;
  const Report report = run();
  EXPECT_EQ(layer(report, "flat").rank, 0);
  EXPECT_EQ(layer(report, "falling").rank, 64 * 64 / 2 / 128);
}

// Where spectra fall slowly, one layer kept and one given up lose less than two halves.
TEST_F(CompressModel, ForeseenKeepsALayerDenseFromALowRank) {
  const Matrix slow = Eigen::VectorXd::LinSpaced(64, 1.0, 0.9).asDiagonal();
  pare::io::write_safetensors(path("in"), {{"a", slow}, {"b", slow}});
  arguments_.allocate = RankScore::AbsoluteEnergy;
  arguments_.keep = 0.55;  // of 2 * 64 * 64: 35 ranks, or a dense layer and 3
  const auto ranks = [&] {
    const Report report = run();
    return std::pair(layer(report, "a").rank, layer(report, "b").rank);
  };
  EXPECT_EQ(ranks(), std::pair(Index{18}, Index{17}));
  arguments_.dense = pare::factor::DenseLayers::Foreseen;
  EXPECT_EQ(ranks(), std::pair(Index{0}, Index{3}));
}

TEST_F(CompressModel, APatternChoosesMatricesOfAnySize) {
  arguments_.only = "^(small|b)\\.";
  const Report report = run();
  ASSERT_EQ(report.layers.size(), 2u);
  EXPECT_EQ(report.layers[0].name, "b.weight");
  EXPECT_EQ(report.layers[1].name, "small.weight");
}

TEST_F(CompressModel, TheSameFileMayBeInputAndOutput) {
  const std::string before = content(arguments_.input);
  run();
  const std::string expected = content(arguments_.output);
  arguments_.output = arguments_.input;
  run();
  EXPECT_EQ(content(arguments_.output), expected);
  EXPECT_NE(expected, before);
}

TEST_F(CompressModel, FisherInformationWeighsErrors) {
  const Matrix input = random_matrix(1, 80, 20).cwiseAbs2();
  const Matrix output = random_matrix(1, 100, 21).cwiseAbs2();
  const Matrix elements = random_matrix(120, 70, 22).cwiseAbs2();
  const Matrix square = random_matrix(1, 128, 23).cwiseAbs2();
  pare::io::write_safetensors(path("fisher"), {{"a.weight", stored_as<double>(input)},
                                               {"b.weight", stored_as<float>(output)},
                                               {"c.weight", elements},
                                               {"d.weight", stored_as<pare::bf16>(square)}});
  arguments_.fisher = path("fisher");
  const Report report = run();
  const SafetensorsFile in(arguments_.input), out(arguments_.output), fisher(arguments_.fisher);
  const auto root_of = [](const Eigen::VectorXd& weights) -> Matrix {
    return weights.cwiseSqrt().asDiagonal();
  };
  EXPECT_EQ(layer(report, "a.weight").method, Method::FisherInput);
  expect_error(error(in, out, "a.weight", root_of(input.transpose())), layer(report, "a.weight"));
  EXPECT_EQ(layer(report, "c.weight").method, Method::FisherInput);
  expect_error(error(in, out, "c.weight", root_of(elements.colwise().sum().transpose())),
               layer(report, "c.weight"));
  EXPECT_EQ(layer(report, "d.weight").method, Method::FisherInput);
  expect_error(error(in, out, "d.weight", root_of(fisher.read_matrix<double>("d.weight"))),
               layer(report, "d.weight"));
  EXPECT_EQ(layer(report, "b.weight").method, Method::FisherOutput);
  const Matrix root = root_of(fisher.read_matrix<double>("b.weight")),
               w = in.read_matrix<double>("b.weight");
  expect_error((root * (w - product(out, "b.weight"))).norm() / (root * w).norm(),
               layer(report, "b.weight"));
  EXPECT_EQ(out.metadata().at("pare.method.b.weight"), "fisher output");
}

TEST_F(CompressModel, CovariancesWeighErrors) {
  std::vector<std::pair<std::string, Matrix>> roots = {{"a.weight", random_matrix(80, 90, 30)},
                                                       {"b.weight", random_matrix(150, 40, 31)},
                                                       {"c.weight", random_matrix(70, 100, 32)},
                                                       {"d.weight", random_matrix(128, 200, 33)}};
  std::vector<Matrix> covariances;
  for (const auto& [name, root] : roots) covariances.push_back(root * root.transpose());
  std::vector<NamedTensor> tensors;
  for (std::size_t i = 0; i < roots.size(); ++i)
    tensors.emplace_back(roots[i].first, covariances[i]);
  pare::io::write_safetensors(path("covariance"), tensors);
  arguments_.covariance = path("covariance");
  const Report report = run();
  const SafetensorsFile in(arguments_.input), out(arguments_.output);
  for (const auto& [name, root] : roots) {
    EXPECT_EQ(layer(report, name).method, Method::Covariance);
    expect_error(error(in, out, name, root), layer(report, name));
  }
}

// By loss, so that ranks tell whether layers of unlike heights are weighed by the same measure.
TEST_F(CompressModel, TheDiagonalOfACovarianceDoesWhatTheMatrixWithItDoes) {
  const Matrix tall = decaying_matrix(400, 70, 0.97, 36), flat = decaying_matrix(66, 80, 0.97, 38);
  pare::io::write_safetensors(path("in"), {{"tall", tall}, {"flat", flat}});
  const Eigen::VectorXd of_tall = random_matrix(70, 1, 34).cwiseAbs2(),
                        of_flat = random_matrix(80, 1, 35).cwiseAbs2();
  const Matrix whole_tall = of_tall.asDiagonal(), whole_flat = of_flat.asDiagonal();
  arguments_.allocate = RankScore::AbsoluteEnergy;
  arguments_.covariance = path("covariance");
  pare::io::write_safetensors(path("covariance"), {{"tall", whole_tall}, {"flat", whole_flat}});
  const Report whole = run();
  pare::io::write_safetensors(path("covariance"), {{"tall", of_tall}, {"flat", of_flat}});
  const Report diagonal = run();
  const SafetensorsFile in(arguments_.input), out(arguments_.output);
  for (const std::string name : {"tall", "flat"}) {
    EXPECT_EQ(layer(diagonal, name).method, Method::CovarianceDiagonal);
    ASSERT_GT(layer(diagonal, name).rank, 0);
    EXPECT_EQ(layer(diagonal, name).rank, layer(whole, name).rank);
    const Eigen::VectorXd root = (name == "tall" ? of_tall : of_flat).cwiseSqrt();
    expect_error(error(in, out, name, root.asDiagonal()), layer(diagonal, name));
  }
  EXPECT_EQ(out.metadata().at("pare.method.tall"), "diagonal");
}

TEST_F(CompressModel, ABrokenInputLeavesNoOutput) {
  const std::string whole = content(arguments_.input);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{7}, std::size_t{100}, whole.size() - 1}) {
    put(arguments_.input, whole.substr(0, size));
    EXPECT_NE(refusal([&] { run(); }).find(arguments_.input), std::string::npos) << size;
    EXPECT_EQ(files(), 1u) << size;
  }
  std::filesystem::remove(arguments_.input);
  EXPECT_NE(refusal([&] { run(); }).find(arguments_.input), std::string::npos);
  EXPECT_EQ(files(), 0u);
}

TEST_F(CompressModel, AMatrixThatIsNotFiniteIsNamedAndLeavesTheOldOutput) {
  auto w = stored_as<float>(random_matrix(64, 64, 40));
  w[5] = std::numeric_limits<float>::infinity();
  pare::io::write_safetensors(path("in"), {{"bad.weight", as_matrix(w, 64, 64)}});
  put(arguments_.output, "as before");
  EXPECT_NE(refusal([&] { run(); }).find("'bad.weight'"), std::string::npos);
  EXPECT_EQ(content(arguments_.output), "as before");
  EXPECT_EQ(files(), 2u);
}

TEST_F(CompressModel, AFactorThatTheTypeDoesNotHoldIsRefused) {
  const std::vector<pare::f16> w(64 * 64, pare::f16(60000.0f));
  pare::io::write_safetensors(path("in"), {{"large", as_matrix(w, 64, 64)}});
  EXPECT_EQ(refusal([&] { run(); }), "'large': got a factor with elements that F16 does not hold");
  EXPECT_EQ(files(), 1u);
}

TEST_F(CompressModel, AnImportanceFileThatDoesNotFitIsRefused) {
  const Matrix small = Matrix::Ones(3, 3);
  const std::vector<std::int64_t> counts(80, 1);
  arguments_.only = "^a\\.";
  const auto with = [&](std::string Arguments::* option, const NamedTensor& tensor) {
    pare::io::write_safetensors(path("importance"), {tensor});
    Arguments before = arguments_;
    arguments_.*option = path("importance");
    const std::string text = refusal([&] { run(); });
    arguments_ = before;
    EXPECT_FALSE(std::filesystem::exists(arguments_.output));
    return text.substr(std::min(text.size(), path("importance").size()));
  };
  EXPECT_EQ(with(&Arguments::fisher, {"other", small}),
            ": 'a.weight': got no tensor of that name, wanted one for each factored layer "
            "(see --only)");
  EXPECT_EQ(with(&Arguments::fisher, {"a.weight", small}),
            ": 'a.weight': got shape [3, 3], wanted [80], [96] or [96, 80]");
  EXPECT_EQ(with(&Arguments::fisher, {"a.weight", counts}),
            ": 'a.weight': got elements of I64, wanted floats");
  EXPECT_EQ(with(&Arguments::covariance, {"a.weight", small}),
            ": 'a.weight': got shape [3, 3], wanted [80, 80] or [80]");
  const Matrix indefinite = -Matrix::Identity(80, 80);
  EXPECT_NE(with(&Arguments::covariance, {"a.weight", indefinite}), "(accepted)");
  const std::vector<double> negative(80, -1.0), outputs(96, 1.0);
  EXPECT_EQ(with(&Arguments::covariance, {"a.weight", outputs}),
            ": 'a.weight': got shape [96], wanted [80, 80] or [80]");
  EXPECT_NE(with(&Arguments::covariance, {"a.weight", negative}), "(accepted)");
  EXPECT_NE(with(&Arguments::fisher, {"a.weight", negative}), "(accepted)");
}

TEST_F(CompressModel, WhatCannotBeDoneIsRefused) {
  arguments_.keep = 0.01;
  for (const RankScore rule : all_rules) {
    arguments_.allocate = rule;
    const std::string text = refusal([&] {
      compress::compress_model(arguments_, [](double, const std::string& what) {
        ADD_FAILURE() << what << ": work before the refusal";
      });
    });
    EXPECT_EQ(text.find("no ranks meet --keep: "), 0u) << text;
  }
  arguments_.keep = 0.5;
  arguments_.only = "nothing";
  EXPECT_NE(refusal([&] { run(); }).find("--only"), std::string::npos);
  arguments_.only.reset();
  arguments_.output = path("no folder/out");
  EXPECT_NE(refusal([&] { run(); }).find("got no folder"), std::string::npos);
  arguments_.output = folder_.string();
  EXPECT_NE(refusal([&] { run(); }).find("not a file"), std::string::npos);
  EXPECT_EQ(files(), 1u);
  const auto w = stored_as<float>(random_matrix(64, 64, 50));
  pare::io::write_safetensors(path("in"),
                              {{"w", as_matrix(w, 64, 64)}, {"w.left", std::vector<float>(3)}});
  arguments_.output = path("out");
  EXPECT_NE(refusal([&] { run(); }).find("'w.left', wanted that name for a factor"),
            std::string::npos);
}

#if defined(__unix__)
TEST_F(CompressModel, AFullDiskLeavesNoOutput) {
  std::string text;
  {
    const FileSizeLimit limit(10000);
    text = refusal([&] { run(); });
  }
  EXPECT_NE(text.find("a write that failed"), std::string::npos) << text;
  EXPECT_EQ(files(), 1u);
}
#endif

TEST_F(CompressModel, TheReportHasALineForEachLayer) {
  std::ostringstream text;
  const Report report = run();
  compress::print(text, report);
  for (const LayerReport& layer : report.layers) {
    EXPECT_NE(text.str().find(layer.name), std::string::npos);
    EXPECT_NE(text.str().find(std::to_string(layer.out) + " x " + std::to_string(layer.in)),
              std::string::npos);
  }
  EXPECT_EQ(report.output_bytes, std::filesystem::file_size(arguments_.output));
  EXPECT_NE(text.str().find("3 other tensors copied"), std::string::npos);
}

TEST(CompressProgress, TheBarFillsWithTheShare) {
  EXPECT_EQ(compress::bar_text(0, "w", 4), "[....]   0 %  w");
  EXPECT_EQ(compress::bar_text(0.5, "w", 4), "[##..]  50 %  w");
  EXPECT_EQ(compress::bar_text(1.1, "w", 4), "[####] 100 %  w");
}

}  // namespace
}  // namespace studies_compress_model_test
