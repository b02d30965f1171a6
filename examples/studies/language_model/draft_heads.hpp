// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Heads of drafters, made of a model's own: all of it, of low rank, or of some tokens.
///
/// ```cpp
/// const pare::RowMatrix<float> weight = weight_of(llama.head());         // [vocabulary, dim]
/// const DraftHead head = low_rank_head(backend, weight, states, 72);     // states [tokens, dim]
/// head(backend, rows, {.k = 4}, summary);
/// ```

#include "common/any_linear.hpp"

#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/draft/dense_head.hpp>
#include <pare/draft/head_summary.hpp>
#include <pare/draft/low_rank_from_dense.hpp>
#include <pare/draft/subset_head.hpp>
#include <pare/factor/covariance.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace language_model {

using models::AnyLinear;
using models::ModelBackend;
using pare::Index;
using pare::TensorView;

/// Any head of pare::draft: its `reduce`.
using DraftHead =
    std::function<void(const ModelBackend&, TensorView<const float, 2>,
                       const pare::draft::HeadRequest&, pare::draft::HeadSummary<float>&)>;

/// Adds the time that it lives to a sum.
class HeadTime {
 public:
  explicit HeadTime(double& sum) : sum_(sum) {}
  HeadTime(const HeadTime&) = delete;
  HeadTime& operator=(const HeadTime&) = delete;
  ~HeadTime() { sum_ += std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  double& sum_;
  Clock::time_point start_ = Clock::now();
};

template <class Head>
DraftHead draft_head(Head head) {
  return [shared = std::make_shared<const Head>(std::move(head))](
             const ModelBackend& on, TensorView<const float, 2> rows,
             const pare::draft::HeadRequest& request,
             pare::draft::HeadSummary<float>& out) { shared->reduce(on, rows, request, out); };
}

/// The weight of a layer, [outputs, inputs], by what it makes of unit vectors.
inline pare::RowMatrix<float> weight_of(const ModelBackend& on, const AnyLinear& layer) {
  constexpr Index at_once = 32;
  pare::RowMatrix<float> weight(layer.outputs(), layer.inputs());
  for (Index first = 0; first < layer.inputs(); first += at_once) {
    const Index count = std::min(at_once, layer.inputs() - first);
    pare::RowMatrix<float> units = pare::RowMatrix<float>::Zero(count, layer.inputs());
    for (Index i = 0; i < count; ++i) units(i, first + i) = 1;
    pare::RowMatrix<float> columns(count, layer.outputs());
    layer.apply(on, pare::const_view(units), pare::to_view(columns));
    weight.middleCols(first, count) = columns.transpose();
  }
  return weight;
}

inline DraftHead dense_head(const pare::RowMatrix<float>& weight) {
  return draft_head(pare::draft::DenseHead<pare::bf16>(weight));
}

/// The best factors of a rank for the states that a head was given.
/// \param states [tokens, dim]
/// \throws std::invalid_argument as pare::draft::low_rank_head_of
inline DraftHead low_rank_head(const ModelBackend& on, const pare::RowMatrix<float>& weight,
                               const pare::RowMatrix<float>& states, Index rank) {
  pare::factor::Covariance products(states.cols());
  products.add(on, states);
  return draft_head(
      pare::draft::low_rank_head_of<pare::bf16>(on, weight, products, {.rank = rank}).head);
}

/// The `count` tokens that a text has most often; of equal ones the lower number, which in a
/// vocabulary of byte pairs was merged earlier. Rising.
inline std::vector<std::int32_t> frequent_tokens(std::span<const std::int32_t> text,
                                                 Index vocabulary, Index count) {
  std::vector<Index> times(static_cast<std::size_t>(vocabulary));
  for (const std::int32_t token : text) ++times[static_cast<std::size_t>(token)];
  std::vector<std::int32_t> ids(times.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::ranges::stable_sort(ids, std::greater<>(),
                           [&](std::int32_t id) { return times[static_cast<std::size_t>(id)]; });
  ids.resize(static_cast<std::size_t>(std::min(count, vocabulary)));
  std::ranges::sort(ids);
  return ids;
}

/// The rows of the tokens that a text has most often.
inline DraftHead subset_head(const pare::RowMatrix<float>& weight,
                             std::span<const std::int32_t> text, Index count) {
  return draft_head(
      pare::draft::subset_of<pare::bf16>(weight, frequent_tokens(text, weight.rows(), count)));
}

}  // namespace language_model
