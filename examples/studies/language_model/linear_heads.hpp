// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Linear heads that foretell a model's states of tokens to come, fitted in closed form.
///
/// ```cpp
/// const StateSample sample = state_sample(llama, backend, text, 2048, progress);
/// const std::vector<AnyLinear> maps = fit_linear_heads(llama, sample, 4);
/// const Drafter drafter = linear_drafter(llama, maps, head, 4);
/// ```
///
/// With s_t the state of token t, from which the head makes the law of token t + 1, and E the
/// embedding, map d of 1, 2, ... foretells the state d tokens on, from what is known when token
/// t + 1 was drawn and a path behind it ends with token t + d:
///
///     s_(t+d) ~ M_d [s_t, E x_(t+1), E x_(t+d), 1],   M_d = argmin sum_t |error|^2 + ridge
///
/// (d = 1 without the third part, which is the second). Of a path only its last token is read, so
/// that the children of a token are one list for each depth, whatever stands between. The ridge is
/// a share of each feature's own sum of squares.
///
/// Source: many heads on one state are Medusa's (Cai et al., 2024), reading the branch is JetSpec's
/// causal conditioning (arXiv 2606.18394). Ours: maps of states in place of trained layers, by
/// least squares.

#include "common/factored_linear.hpp"
#include "language_model/draft_heads.hpp"
#include "language_model/llama.hpp"

#include <pare/core/matrix.hpp>

#include <Eigen/Cholesky>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// States of a text that was cut into windows, [tokens, dim], and its tokens.
struct StateSample {
  std::vector<Token> tokens;
  pare::RowMatrix<float> states;
  Index window = 0;  ///< a state knows of no token before its window
};

/// \param progress is given the share that is done
/// \param blocks   only the first ones, and the norm; left out: all
template <class B, class Progress>
StateSample state_sample(const Llama& llama, const B& backend, std::vector<Token> text,
                         Index window, Progress&& progress, std::optional<Index> blocks = {}) {
  const auto n = static_cast<Index>(text.size());
  window = std::min({window, n, llama.config().context});
  StateSample sample{std::move(text), {n, llama.config().dim}, window};
  KvCache cache(llama.config().kv_shape(), window);
  for (Index first = 0; first < n; first += window) {
    const auto part = std::span(sample.tokens)
                          .subspan(static_cast<std::size_t>(first),
                                   static_cast<std::size_t>(std::min(window, n - first)));
    cache.reset();
    llama.states(backend, part, cache, {.blocks = blocks},
                 [&](const ModelBackend&, const auto& states) {
                   for (Index r = 0; r < states.rows(); ++r)
                     std::copy_n(&states(r, 0), states.cols(), &sample.states(first + r, 0));
                 });
    progress(static_cast<double>(first + window) / static_cast<double>(n));
  }
  return sample;
}

/// Writes what map `depth` reads, [inputs].
inline void linear_features(const Llama& llama, std::span<const float> state, Token root,
                            Token last, Index depth, float* to) {
  const auto dim = state.size();
  to = std::copy(state.begin(), state.end(), to);
  llama.embed(root, {to, dim});
  to += dim;
  if (depth > 1) {
    llama.embed(last, {to, dim});
    to += dim;
  }
  *to = 1;
}

inline Index linear_inputs(const Llama& llama, Index depth) {
  return (depth > 1 ? 3 : 2) * llama.config().dim + 1;
}

/// Map `depth` of a sample.
/// \throws std::runtime_error if the sample has fewer pairs than the map has inputs
inline pare::RowMatrix<float> fit_linear_head(const Llama& llama, const StateSample& sample,
                                              Index depth, double ridge) {
  const Index inputs = linear_inputs(llama, depth), dim = llama.config().dim;
  Eigen::MatrixXd squares = Eigen::MatrixXd::Zero(inputs, inputs);
  Eigen::MatrixXd products = Eigen::MatrixXd::Zero(inputs, dim);
  Index pairs = 0;
  const auto n = static_cast<Index>(sample.tokens.size());
  constexpr Index at_once = 512;  // floats of a block are summed in float, blocks in double
  pare::RowMatrix<float> features(at_once, inputs), wanted(at_once, dim);
  const auto add = [&](Index rows) {
    const auto f = features.topRows(rows);
    squares += (f.transpose() * f).eval().template cast<double>();
    products += (f.transpose() * wanted.topRows(rows)).eval().template cast<double>();
    pairs += rows;
  };
  Index row = 0;
  for (Index t = 0; t + depth < n; ++t) {
    if (t / sample.window != (t + depth) / sample.window) continue;
    const auto token = [&](Index i) { return sample.tokens[static_cast<std::size_t>(i)]; };
    linear_features(llama, {&sample.states(t, 0), static_cast<std::size_t>(dim)}, token(t + 1),
                    token(t + depth), depth, &features(row, 0));
    wanted.row(row) = sample.states.row(t + depth);
    if (++row == at_once) add(std::exchange(row, 0));
  }
  if (row > 0) add(row);
  if (pairs < inputs)
    throw std::runtime_error("linear heads: got " + std::to_string(pairs) +
                             " tokens in windows, wanted at least " + std::to_string(inputs));
  squares.diagonal() *= 1 + ridge;
  const Eigen::LLT<Eigen::MatrixXd> cholesky(squares);
  return cholesky.solve(products).transpose().cast<float>();
}

/// Maps 1 to `count`, rounded to bf16.
/// \throws std::runtime_error as fit_linear_head
template <class Progress>
std::vector<AnyLinear> fit_linear_heads(const Llama& llama, const StateSample& sample, Index count,
                                        Progress&& progress, double ridge = 0.01) {
  std::vector<AnyLinear> maps;
  for (Index depth = 1; depth <= count; ++depth) {
    maps.emplace_back(
        models::dense_layer<pare::bf16>(fit_linear_head(llama, sample, depth, ridge)));
    progress(static_cast<double>(depth) / static_cast<double>(count));
  }
  return maps;
}

}  // namespace language_model
