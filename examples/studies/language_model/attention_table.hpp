// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How well a model foretells texts by sparse attention, beside exact attention: the table and the
/// plot of `perplexity`.

#include "common/plot.hpp"
#include "language_model/layer_attention.hpp"
#include "language_model/mask_overlap.hpp"
#include "language_model/perplexity.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

using Seconds = std::chrono::duration<double>;

struct JudgedText {
  std::string name;
  std::vector<Token> tokens;
  double bytes = 0;
};

/// A row of the table: a text, or several, by one method.
struct JudgedRow {
  std::string text{};
  SparseName method{};
  std::vector<double> losses{}, exact{};  ///< token by token, by the method and by exact attention
  AttentionReport report{};
  Seconds attention{}, all{};        ///< of the attention of prompts, and of everything
  double tokens = 0, bytes = 0;      ///< bytes of the tokens that are judged
  std::optional<Overlap> overlap{};  ///< of exact attention there is none

  Mean change() const {
    std::vector<double> changes(losses.size());
    std::ranges::transform(losses, exact, changes.begin(), std::minus<>());
    return mean_of(changes);
  }
  /// Puts another text behind.
  void append(const JudgedRow& other) {
    losses.insert(losses.end(), other.losses.begin(), other.losses.end());
    exact.insert(exact.end(), other.exact.begin(), other.exact.end());
    report.density_sum += other.report.density_sum;
    report.select_seconds += other.report.select_seconds;
    report.calls += other.report.calls;
    attention += other.attention;
    all += other.all;
    tokens += other.tokens;
    bytes += other.bytes;
    if (overlap) *overlap += *other.overlap;
  }
};

namespace detail {

/// The attention, with what it says and the time it takes added to the row.
inline Attention timed(const Attention& attention, JudgedRow& row) {
  return [&attention, &row](const ModelBackend& backend, const AttentionCall& call) {
    const auto start = std::chrono::steady_clock::now();
    const auto stats = attention(backend, call);
    row.attention += std::chrono::steady_clock::now() - start;
    row.report.add(stats);
    return stats;
  };
}

/// Judges a text by one way of attention; `exact` are the losses beside it, none: its own.
template <class B, class Progress>
JudgedRow judged(const Llama& llama, const B& backend, const JudgedText& text, Index window,
                 KvScalar kv, const SparseName& method, const Attention& attention,
                 const std::vector<double>& exact, Progress&& progress) {
  JudgedRow row{.text = text.name, .method = method};
  const auto start = std::chrono::steady_clock::now();
  row.losses =
      token_losses(llama, backend, text.tokens, window, kv, timed(attention, row), progress);
  row.all = std::chrono::steady_clock::now() - start;
  row.exact = exact.empty() ? row.losses : exact;
  row.tokens = static_cast<double>(text.tokens.size());
  // Tokens that are not judged have bytes too: the share of those that are stands for theirs.
  row.bytes = text.bytes * static_cast<double>(row.losses.size()) / row.tokens;
  return row;
}

}  // namespace detail

/// Judges a text by exact attention and by each of the methods, and gives show(row) each row.
///
/// Masks are held against the oracle where exact attention passes, so all methods see the same
/// queries and keys there; that takes no part in the seconds.
/// \param progress is given the name of a method and the share that is done of it
template <class B, class Progress, class Show>
void judge_text(const Llama& llama, const B& backend, const JudgedText& text, Index window,
                KvScalar kv, const std::vector<SparseAttention>& methods, Progress&& progress,
                Show&& show) {
  std::vector<Overlap> overlaps(methods.size());
  Seconds aside{};
  const Attention exact = exact_attention;
  const auto look_aside = [&](const ModelBackend& on, const AttentionCall& call) {
    const auto start = std::chrono::steady_clock::now();
    BlockMasses masses(on, call.q, call.cache.keys<float>(call.layer));
    for (std::size_t i = 0; i < methods.size(); ++i)
      overlaps[i] += masses.overlap(methods[i].layers[static_cast<std::size_t>(call.layer)]);
    aside += std::chrono::steady_clock::now() - start;
  };
  const Attention observed = [&](const ModelBackend& on, const AttentionCall& call) {
    if (!methods.empty()) look_aside(on, call);
    return exact(on, call);
  };
  const auto of = [&](const std::string& name) {
    return [&progress, name](double share) { progress(name, share); };
  };
  const SparseName itself{"exact", 1};
  JudgedRow first =
      detail::judged(llama, backend, text, window, kv, itself, observed, {}, of(itself.name));
  first.attention -= aside;
  first.all -= aside;
  const std::vector<double> losses = first.losses;
  show(std::move(first));
  for (std::size_t i = 0; i < methods.size(); ++i) {
    JudgedRow row = detail::judged(llama, backend, text, window, kv, methods[i].wanted,
                                   attention_of(methods[i]), losses, of(methods[i].wanted.name));
    row.overlap = overlaps[i];
    show(std::move(row));
  }
}

/// The rows of several texts, method by method, as rows of one text of that name.
inline std::vector<JudgedRow> pooled(std::span<const JudgedRow> rows, const std::string& name) {
  std::vector<JudgedRow> all;
  for (const JudgedRow& row : rows) {
    const auto same = std::ranges::find_if(all, [&](const JudgedRow& other) {
      return other.method.name == row.method.name && other.method.density == row.method.density;
    });
    if (same != all.end()) {
      same->append(row);
      continue;
    }
    all.push_back(row);
    all.back().text = name;
  }
  return all;
}

inline void print_heading(std::ostream& os) {
  std::array<char, 256> line{};
  std::snprintf(
      line.data(), line.size(), "%-20s %-12s %5s %7s %16s %8s %9s %18s %8s %8s %8s %8s %7s %6s\n",
      "text", "attention", "asked", "density", "nats a token", "perplex.", "bits/byte",
      "nats over exact", "attend s", "select s", "whole s", "tokens/s", "overlap", "mass");
  os << line.data();
}

inline void print_row(std::ostream& os, const JudgedRow& row) {
  std::array<char, 512> line{};
  const Mean loss = mean_of(row.losses), change = row.change();
  const double bits = loss.value * static_cast<double>(row.losses.size()) / std::log(2);
  std::snprintf(line.data(), line.size(),
                "%-20.20s %-12s %5.3g %7.3f %7.3f +- %.3f %8.2f %9.3f %+8.4f +- %.4f %8.1f %8.2f "
                "%8.1f %8.0f",
                row.text.c_str(), row.method.name.c_str(), row.method.density, row.report.density(),
                loss.value, loss.error, std::exp(loss.value), bits / row.bytes, change.value,
                change.error, row.attention.count() - row.report.select_seconds,
                row.report.select_seconds, row.all.count(), row.tokens / row.all.count());
  os << line.data();
  line[0] = '\0';
  if (row.overlap)
    std::snprintf(line.data(), line.size(), " %7.3f %6.3f", row.overlap->share(),
                  row.overlap->mass());
  os << line.data() << '\n' << std::flush;
}

/// Perplexity against density, a line for each method; the bars are the standard error of its
/// change over exact attention, token by token.
inline plot::Plot perplexity_plot(std::span<const JudgedRow> rows, Index window) {
  plot::Plot picture{
      "Perplexity by sparse attention, " + std::to_string(window) + " tokens at once",
      {.label = "density: share of the work of exact attention", .low = 0},
      {.label = "perplexity", .scale = plot::Scale::Log},
      {},
      {}};
  for (const JudgedRow& row : rows) {
    const double perplexity = std::exp(mean_of(row.losses).value);
    if (!row.overlap) {
      picture.levels.push_back({row.method.name, perplexity});
      continue;
    }
    auto line = std::ranges::find(picture.series, row.method.name, &plot::Series::name);
    if (line == picture.series.end()) line = picture.series.insert(line, {row.method.name, {}});
    line->points.push_back({row.report.density(), perplexity, perplexity * row.change().error});
  }
  for (plot::Series& series : picture.series) std::ranges::sort(series.points, {}, &plot::Point::x);
  return picture;
}

}  // namespace language_model
