// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "table/digits_table.hpp"
#include "table/report.hpp"
#include "table/selection.hpp"

namespace studies_table_selection_test {
namespace {

using table::Field;
using table::Index;
using table::Table;

/// Labels that are the sign of the first field, or known from a category, beside noise.
Table planted(bool by_category) {
  std::mt19937_64 bits(1);
  Table t;
  for (int b = 0; b < 400; ++b) t.labels.push_back(static_cast<int>(bits() % 2));
  for (int j = 0; j < 8; ++j) {
    Field field{"noise", "noise", table::Numbers(400, 1), {}, 0};
    for (Index b = 0; b < 400; ++b)
      field.numbers(b, 0) = static_cast<double>(table::detail::normal(bits));
    t.fields.push_back(field);
  }
  if (by_category) {
    Field field{"signal", "signal", {}, {}, 6};
    for (const int label : t.labels)
      field.categories.push_back(2 * static_cast<int>(bits() % 3) + label);
    t.fields[5] = field;
  } else {
    for (Index b = 0; b < 400; ++b)
      t.fields[5].numbers(b, 0) = t.labels[static_cast<std::size_t>(b)] == 1 ? 1.0 : -1.0;
    t.fields[5].origin = "signal";
  }
  return t;
}

table::RankOptions quick() {
  table::RankOptions options;
  options.training = {.epochs = 40, .batch = 32};
  options.model.hidden = {8};
  options.model.learning_rate = 1e-2;
  return options;
}

TEST(TableSelection, EveryMethodFindsThePlantedField) {
  for (const bool by_category : {false, true}) {
    const Table t = planted(by_category);
    std::mt19937_64 bits(2);
    const table::Split split = split_rows(t, bits);
    const auto leap = rank_by_leap(t, split, quick());
    const auto permutation = rank_by_permutation(t, split, quick());
    EXPECT_EQ(leap.ranking.order.front(), 5);
    EXPECT_EQ(permutation.ranking.order.front(), 5);
    EXPECT_GT(leap.seconds, 0);
    EXPECT_GT(auc_of_best(t, split, leap.ranking, 1, quick()), 0.95);
    std::vector<double> scores(8, 1);
    scores[5] = 0;
    EXPECT_LT(auc_of_best(t, split, pare::feature::rank_fields(scores), 7, quick()), 0.7);
  }
}

TEST(TableSelection, SplitsAreDisjointAndComplete) {
  const Table t = planted(false);
  std::mt19937_64 bits(3);
  const table::Split split = split_rows(t, bits);
  EXPECT_EQ(split.test.size(), 100u);
  EXPECT_EQ(split.holdout.size(), 60u);
  std::set<Index> all(split.test.begin(), split.test.end());
  for (const Index row : split.seen()) EXPECT_TRUE(all.insert(row).second);
  EXPECT_EQ(all.size(), 400u);
}

/// What a table is too small for is said before training, by the name of its file.
TEST(TableSelection, NamesTheFileOfATableThatCannotBeSplit) {
  const auto message = [](const Table& t) {
    try {
      run_splits(t, quick(), 2, 1);
    } catch (const table::InputError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  Table t = planted(false);
  t.source = "rows.csv";
  Table small = t;
  small.labels.resize(100);
  EXPECT_EQ(message(small), "rows.csv: got 100 rows, wanted at least 108");
  std::fill(t.labels.begin() + 2, t.labels.end(), 0);
  EXPECT_EQ(message(t).rfind("rows.csv: got ", 0), 0u) << message(t);
  EXPECT_NE(message(t).find("wanted some of each label"), std::string::npos) << message(t);
  EXPECT_EQ(t.with_fields({5}).source, "rows.csv");
  // With three rows of label 1, a split that is given has one in each part.
  t.labels[0] = t.labels[1] = t.labels[2] = 1;
  int given = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    std::mt19937_64 bits(seed);
    table::Split split;
    try {
      split = split_rows(t, bits);
    } catch (const table::InputError&) {
      continue;
    }
    ++given;
    for (const auto& part : {split.train, split.holdout, split.test})
      EXPECT_EQ(std::count_if(part.begin(), part.end(), [](Index row) { return row < 3; }), 1);
  }
  EXPECT_GT(given, 0);
}

/// Years and seconds since 1970 lie far from zero, in deviations of their own.
TEST(TableSelection, FieldsFarFromZeroRankWhereTheirSpreadPutsThem) {
  for (const double offset : {1990.0, 1.5e9}) {
    Table t = planted(false);
    std::mt19937_64 bits(4);
    for (Index b = 0; b < t.rows(); ++b)
      t.fields[5].numbers(b, 0) = offset + 10 * (t.fields[5].numbers(b, 0) +
                                                 static_cast<double>(table::detail::normal(bits)));
    const table::Split split = split_rows(t, bits);
    const auto leap = rank_by_leap(t, split, quick());
    EXPECT_EQ(leap.ranking.order.front(), 5);
    EXPECT_GT(auc_of_best(t, split, leap.ranking, 1, quick()), 0.85);
  }
}

/// Tables of fewer fields than there are shares to drop, down to one.
TEST(TableSelection, MeansOfSmallTables) {
  for (Index fields = 1; fields < 10; ++fields) {
    std::vector<table::SplitRun> runs(2, table::SplitRun(1));
    for (auto& run : runs) run[0].aucs.assign(std::size(table::dropped_shares), 0.75);
    const auto means = means_of(runs, 0, fields);
    EXPECT_NEAR(means.aukc, 0.5, 1e-12) << fields;
    EXPECT_EQ(means.droppable(fields, 0.75), fields - 1);
  }
}

TEST(TableSelection, RunsAreTheSameOnAnyNumberOfThreads) {
  const Table t = planted(true);
  auto options = quick();
  options.training.epochs = 3;
  const auto one = run_splits(t, options, 2, 1), two = run_splits(t, options, 2, 2);
  for (std::size_t s = 0; s < 2; ++s)
    for (std::size_t m = 0; m < 3; ++m) {
      EXPECT_EQ(one[s][m].aucs, two[s][m].aucs);
      EXPECT_EQ(one[s][m].ranking.ranking.order, two[s][m].ranking.ranking.order);
      EXPECT_EQ(one[s][m].aucs.front(), one[s][0].aucs.front()) << "all fields are one model";
    }
}

/// AUCs by hand: two splits of one method.
TEST(TableSelection, MeansErrorsAndWhatMayGo) {
  std::vector<table::SplitRun> runs(2, table::SplitRun(1));
  for (std::size_t i = 0; i < std::size(table::dropped_shares); ++i) {
    runs[0][0].aucs.push_back(i < 5 ? 0.9 : 0.6);
    runs[1][0].aucs.push_back(i < 5 ? 0.8 : 0.7);
  }
  const auto means = means_of(runs, 0, 50);
  EXPECT_NEAR(means.aucs[4], 0.85, 1e-12);
  EXPECT_NEAR(means.aucs[5], 0.65, 1e-12);
  EXPECT_NEAR(means.errors[5], 0.1, 1e-12);  // losses of 0.3 and 0.1
  EXPECT_EQ(means.errors[4], 0);
  EXPECT_EQ(means.droppable(50, 0.849), 20);
  EXPECT_EQ(means.droppable(50, 0.65 - 1e-9), 45);
  EXPECT_EQ(means.droppable(50, 0.9), 0);
  std::ostringstream text;
  table::print_selection(text, {means, means}, 50, 0.005);
  EXPECT_NE(text.str().find("0.8450, that of all fields less the tolerance:  20;"),
            std::string::npos)
      << text.str();
}

TEST(DigitsTable, HasTheFieldsItSaysItHas) {
  const auto images = std::filesystem::path(PARE_EXAMPLES_DATA) / "digits" / "digits.csv";
  const Table t = table::widened_digits(images, 0);
  EXPECT_EQ(t.rows(), 1797);
  Index columns = 0;
  for (const Field& field : t.fields) columns += field.numbers.cols();
  EXPECT_EQ(t.fields.size(), 241u);
  EXPECT_EQ(columns, 304);
  const auto of = [&](const std::string& origin) {
    std::vector<const Field*> found;
    for (const Field& field : t.fields)
      if (field.origin == origin) found.push_back(&field);
    return found;
  };
  EXPECT_EQ(of("copy")[3]->numbers, of("pixel")[12]->numbers);
  // Another order of the same levels.
  const auto sorted = [](const Field& field) {
    std::vector<double> values(field.numbers.data(), field.numbers.data() + field.numbers.size());
    std::sort(values.begin(), values.end());
    return values;
  };
  EXPECT_EQ(sorted(*of("shuffled pixel")[20]), sorted(*of("pixel")[20]));
  EXPECT_NE(of("shuffled pixel")[20]->numbers, of("pixel")[20]->numbers);
  for (const char* origin : {"rare", "rare noise"})
    for (const Field* field : of(origin)) {
      EXPECT_GT(field->numbers.sum(), 2);
      EXPECT_LT(field->numbers.sum(), 50);
      if (origin == std::string("rare")) {
        for (Index b = 0; b < t.rows(); ++b)
          EXPECT_LE(field->numbers(b, 0), t.labels[static_cast<std::size_t>(b)]);
      }
    }
  EXPECT_EQ(of("rare").size() + of("rare noise").size(), 32u);
}

}  // namespace
}  // namespace studies_table_selection_test
