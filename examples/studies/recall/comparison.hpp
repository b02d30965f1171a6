// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Times a method on some heads and holds its output against the exact one.

#include "common/plot.hpp"
#include "recall/error_plot.hpp"
#include "recall/methods.hpp"
#include "recall/scores.hpp"
#include "recall/table.hpp"
#include "recall_text/heads.hpp"

#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace recall {

/// Heads with the exact attention over them.
class Comparison {
 public:
  /// `accuracy` tells from an output how much of the text it foretells; empty: nothing does.
  Comparison(Heads heads, const Backend& backend, std::function<double(const Tensor&)> accuracy)
      : heads_(std::move(heads)),
        backend_(backend),
        accuracy_(std::move(accuracy)),
        out_(heads_.q.dimension(0), heads_.q.dimension(1), heads_.q.dimension(2),
             heads_.v.dimension(3)),
        lse_(out_.dimension(0), out_.dimension(1), out_.dimension(2)) {
    out_.setZero();  // so that no call is the first to touch this memory
    lse_.setZero();
    exact_ = run([](const Call& call) { return recall::attend(call); });
    exact_.method = "exact";
    exact_out_ = out_;
    exact_lse_ = lse_;
  }

  const Score& exact() const { return exact_; }

  /// Heads, backend and room for a result.
  Call call() { return {backend_, heads_, out_, lse_}; }

  /// The line of the table.
  Score measure(const Method& method, double setting) {
    Score score = run([&](const Call& call) { return method.run(call, setting); });
    char text[32];
    std::snprintf(text, sizeof text, "%s %.4g", method.setting_name.c_str(), setting);
    score.method = method.title;
    score.setting = text;
    score.mass = covered_mass(lse_, exact_lse_);
    score.error = relative_error(out_, exact_out_);
    return score;
  }

  /// Error and density over the settings of the method.
  plot::Series sweep(const Method& method) {
    plot::Series curve{method.title, {}};
    for (const double setting : method.sweep) {
      const auto stats = method.run(Call{backend_, heads_, out_, lse_}, setting);
      curve.points.push_back({stats.density, relative_error(out_, exact_out_)});
    }
    return curve;
  }

 private:
  /// The fastest of as many calls as half a second holds, at least one.
  template <class Attend>
  Score run(const Attend& attend) {
    using Clock = std::chrono::steady_clock;
    Score score;
    score.seconds = std::numeric_limits<double>::infinity();
    for (double spent = 0; spent < 0.5;) {
      const auto start = Clock::now();
      const auto stats = attend(Call{backend_, heads_, out_, lse_});
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      spent += seconds;
      if (seconds >= score.seconds) continue;
      score.seconds = seconds;
      score.select_seconds = stats.select_seconds;
      score.density = stats.density;
    }
    if (accuracy_) score.accuracy = accuracy_(out_);
    return score;
  }

  Heads heads_;
  Backend backend_;
  std::function<double(const Tensor&)> accuracy_;
  Tensor out_, exact_out_;
  RowTensor lse_, exact_lse_;
  Score exact_;
};

/// What is compared: `4096 tokens, unlike heads: topic hh`.
inline std::string title(const Heads& heads, const std::string& kind) {
  std::string names;
  for (const std::string& name : heads.names) names += " " + name;
  return std::to_string(heads.q.dimension(2)) + " tokens, " + kind + ":" + names;
}

/// Prints the exact engine and each method at its own setting.
inline void print_table(const std::string& title, Comparison& comparison,
                        const std::vector<Method>& methods) {
  const double exact_seconds = comparison.exact().seconds;
  print_title(std::cout, title);
  print_score(std::cout, comparison.exact(), exact_seconds);
  for (const Method& method : methods)
    print_score(std::cout, comparison.measure(method, method.setting), exact_seconds);
}

/// Sweeps the settings of each method and writes the plot of error against density.
inline void plot_errors(const std::string& path, const std::string& title, Comparison& comparison,
                        const std::vector<Method>& methods) {
  std::vector<plot::Series> curves;
  curves.reserve(methods.size());
  for (const Method& method : methods) curves.push_back(comparison.sweep(method));
  plot::write(path, error_plot(title, std::move(curves)));
  std::cout << "plot written to " << path << std::endl;
}

}  // namespace recall
