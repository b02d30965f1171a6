// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Scores of compressed networks over seeds: a table, a CSV file, and what they say.

#include "common/digits_data.hpp"
#include "digits/network.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <ostream>
#include <string>
#include <vector>

namespace digits {

/// How one compressed network does.
struct Compressed {
  Score score;            ///< on images it was not trained on
  double error = 0;       ///< |W - AB|_F / |W|_F over the compressed layers
  double parameters = 1;  ///< of the factors, over those of the weights they replace
};

/// Mean and standard deviation, the latter with n - 1 degrees of freedom.
struct Spread {
  double mean = 0, deviation = 0;
};

inline Spread spread(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  Spread result;
  for (const double v : values) result.mean += v / n;
  for (const double v : values) result.deviation += (v - result.mean) * (v - result.mean);
  result.deviation = std::sqrt(result.deviation / (n - 1));
  return result;
}

/// Mean of a - b over pairs, and its standard error. At least two pairs.
struct Difference {
  double mean = 0, error = 0;

  /// 1 where a is above b, -1 where it is below, 0 where that cannot be told: the mean is within
  /// three standard errors of 0. Three, not two, since a table holds dozens of such comparisons.
  int sign() const { return mean > 3 * error ? 1 : mean < -3 * error ? -1 : 0; }
};

inline Difference difference(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> differences;
  for (std::size_t i = 0; i < a.size(); ++i) differences.push_back(a[i] - b[i]);
  const Spread all = spread(differences);
  return {all.mean, all.deviation / std::sqrt(static_cast<double>(a.size()))};
}

/// The scores of methods at ranks, one for each seed, in the order in which they come. The first
/// method is the one that the others are compared with.
class ScoreTable {
 public:
  /// The score of a network before compression.
  void add_whole(const Score& score) { whole_.push_back({score}); }

  void add(Index rank, const std::string& method, const Compressed& compressed) {
    if (std::ranges::find(ranks_, rank) == ranks_.end()) ranks_.push_back(rank);
    if (std::ranges::find(methods_, method) == methods_.end()) methods_.push_back(method);
    const auto cell = std::ranges::find_if(
        cells_, [&](const Cell& c) { return c.rank == rank && c.method == method; });
    if (cell == cells_.end())
      cells_.push_back({rank, method, {compressed}});
    else
      cell->seeds.push_back(compressed);
  }

  /// Adds the scores of other seeds.
  void append(const ScoreTable& other) {
    whole_.insert(whole_.end(), other.whole_.begin(), other.whole_.end());
    for (const Cell& c : other.cells_)
      for (const Compressed& one : c.seeds) add(c.rank, c.method, one);
  }

  /// Means over the seeds. Behind accuracy and loss stand their standard deviations, behind the
  /// gain in accuracy over the first method, seed by seed, its standard error.
  void print(std::ostream& os) const {
    os << "rank  parameters  method                         accuracy      +-      loss      +-"
          "  error of W  gain over "
       << methods_.front() << '\n';
    print_line(os, "   -", "not compressed", whole_);
    os << '\n';
    for (const Index rank : ranks_)
      for (const std::string& method : methods_) {
        char name[24], gain[32];
        std::snprintf(name, sizeof name, "%4td", rank);
        print_line(os, name, method, cell(rank, method).seeds);
        const Difference d = against_first(rank, method, accuracy_of);
        std::snprintf(gain, sizeof gain, "  %+7.4f +- %6.4f\n", d.mean, d.error);
        os << (method == methods_.front() ? "\n" : gain);
      }
  }

  /// A line for each method but the first, at which ranks it does better or worse than that, and
  /// what becomes of the claim that is made for FWSVD.
  void print_findings(std::ostream& os) const {
    os << "against " << methods_.front() << ", by more than three standard errors:\n";
    for (const std::string& method : methods_)
      if (method != methods_.front())
        os << "  " << method << ": accuracy higher at " << list(where(method, accuracy_of, 1))
           << ", lower at " << list(where(method, accuracy_of, -1)) << "; loss lower at "
           << list(where(method, loss_of, -1)) << ", higher at " << list(where(method, loss_of, 1))
           << '\n';
    os << "the claim for FWSVD, no smaller error of W and yet a better network (ranks left out: "
          "cannot be told):\n";
    for (const std::string& method : methods_)
      if (method.starts_with("FWSVD"))
        os << "  " << method << ": by accuracy it holds at " << list(claim(method, accuracy_of, 1))
           << ", fails at " << list(claim(method, accuracy_of, -1)) << "; by loss it holds at "
           << list(claim(method, minus_loss_of, 1)) << ", fails at "
           << list(claim(method, minus_loss_of, -1)) << '\n';
  }

  /// Lines `weight decay,seed,rank,method,accuracy,loss,error,parameters`.
  void write_csv(std::ostream& os, double weight_decay) const {
    for (const Cell& c : cells_)
      for (std::size_t seed = 0; seed < c.seeds.size(); ++seed) {
        const Compressed& one = c.seeds[seed];
        os << weight_decay << ',' << seed << ',' << c.rank << ",\"" << c.method << "\","
           << one.score.accuracy << ',' << one.score.loss << ',' << one.error << ','
           << one.parameters << '\n';
      }
  }

 private:
  struct Cell {
    Index rank;
    std::string method;
    std::vector<Compressed> seeds;
  };

  using Measure = double (*)(const Compressed&);
  static double accuracy_of(const Compressed& c) { return c.score.accuracy; }
  static double loss_of(const Compressed& c) { return c.score.loss; }
  static double minus_loss_of(const Compressed& c) { return -c.score.loss; }
  static double error_of(const Compressed& c) { return c.error; }

  static std::vector<double> values(const std::vector<Compressed>& seeds, Measure measure) {
    std::vector<double> result(seeds.size());
    std::transform(seeds.begin(), seeds.end(), result.begin(), measure);
    return result;
  }

  static void print_line(std::ostream& os, const char* rank, const std::string& method,
                         const std::vector<Compressed>& seeds) {
    const Spread accuracy = spread(values(seeds, accuracy_of));
    const Spread loss = spread(values(seeds, loss_of));
    char line[160];
    std::snprintf(line, sizeof line, "%s %9.1f %%  %-30s %8.4f %7.4f %9.4f %7.4f %11.4f", rank,
                  100 * seeds.front().parameters, method.c_str(), accuracy.mean, accuracy.deviation,
                  loss.mean, loss.deviation, spread(values(seeds, error_of)).mean);
    os << line;
  }

  const Cell& cell(Index rank, const std::string& method) const {
    return *std::ranges::find_if(
        cells_, [&](const Cell& c) { return c.rank == rank && c.method == method; });
  }

  Difference against_first(Index rank, const std::string& method, Measure measure) const {
    return difference(values(cell(rank, method).seeds, measure),
                      values(cell(rank, methods_.front()).seeds, measure));
  }

  /// The ranks at which the method compares so with the first.
  std::vector<Index> where(const std::string& method, Measure measure, int sign) const {
    std::vector<Index> ranks;
    for (const Index rank : ranks_)
      if (against_first(rank, method, measure).sign() == sign) ranks.push_back(rank);
    return ranks;
  }

  /// The ranks at which the claim holds (1) or fails (-1), judged by a measure of which more is
  /// better. It fails where the error is smaller, too.
  std::vector<Index> claim(const std::string& method, Measure better, int verdict) const {
    std::vector<Index> ranks;
    for (const Index rank : ranks_) {
      const bool smaller_error = against_first(rank, method, error_of).sign() < 0;
      const int sign = smaller_error ? -1 : against_first(rank, method, better).sign();
      if (sign == verdict) ranks.push_back(rank);
    }
    return ranks;
  }

  static std::string list(const std::vector<Index>& ranks) {
    if (ranks.empty()) return "no rank";
    std::string text = ranks.size() == 1 ? "rank" : "ranks";
    for (const Index rank : ranks) text.append(1, ' ').append(std::to_string(rank));
    return text;
  }

  std::vector<Index> ranks_;
  std::vector<std::string> methods_;
  std::vector<Cell> cells_;
  std::vector<Compressed> whole_;
};

/// The file of all scores, if one is wanted.
class CsvFile {
 public:
  /// An empty path: none. Throws InputError if the file cannot be written.
  explicit CsvFile(const std::string& path) : path_(path) {
    if (path.empty()) return;
    file_.open(path);
    file_ << "weight decay,seed,rank,method,accuracy,loss,error,parameters\n";
    check();
  }

  void write(double weight_decay, const ScoreTable& table) {
    if (path_.empty()) return;
    table.write_csv(file_, weight_decay);
    check();
  }

 private:
  void check() {
    if (!file_.flush()) throw InputError(path_ + ": cannot be written");
  }

  std::string path_;
  std::ofstream file_;
};

}  // namespace digits
