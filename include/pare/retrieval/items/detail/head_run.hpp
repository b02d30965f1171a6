// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Heads of a multi-task loss: checks, the definition, and products of blocks of sessions.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/retrieval/items/class_head.hpp>
#include <pare/transformer/softmax.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

template <class T>
void check_factor(const char* function, const char* argument, const TensorView<const T, 2>& m,
                  Index columns) {
  check_view(function, argument, m);
  check_extents<2>(function, argument, m.extent, {m.rows(), columns});
  check_contiguous_rows(function, argument, m);
}

template <class T>
struct ClassMemory {
  AlignedBuffer<T> queries, logits, by_queries, sums;
};

/// Rows of sessions as they meet classes: W s, or s itself.
template <class B, class T>
TensorView<const T, 2> head_queries(const B& backend, const TensorView<const T, 2>& sessions,
                                    const std::optional<TensorView<const T, 2>>& map,
                                    AlignedBuffer<T>& memory) {
  if (!map) return sessions;
  const TensorView<T, 2> queries = matrix_in(memory, sessions.rows(), map->rows());
  linalg::multiply(backend, sessions, transpose(*map), queries);
  return as_const(queries);
}

template <class B, class T>
void score_items(const B& backend, TensorView<const T, 2> sessions, TensorView<const T, 2> map,
                 TensorView<const T, 2> items, TensorView<T, 2> scores) {
  constexpr const char* function = "retrieval::score_items";
  check_factor(function, "sessions", sessions, sessions.cols());
  check(sessions.cols() >= 1, function, "sessions", sessions.extent, "a dim of at least 1");
  check_factor(function, "map", map, sessions.cols());
  check(map.rows() >= 1, function, "map", map.extent, "a width of at least 1");
  check_factor(function, "items", items, map.rows());
  check_writable(function, "scores", scores);
  check_extents<2>(function, "scores", scores.extent, {sessions.rows(), items.rows()});
  check_contiguous_rows(function, "scores", scores);
  check_no_overlap(function, "scores", scores, "sessions", sessions);
  check_no_overlap(function, "scores", scores, "map", map);
  check_no_overlap(function, "scores", scores, "items", items);
  checked_count(function, "sessions",
                checked_product(function, "sessions", sessions.rows(), map.rows()), sizeof(T));
  if (scores.rows() == 0 || scores.cols() == 0) return;
  const auto memory = leased<ClassMemory<T>>(backend);
  const auto queries =
      head_queries(backend, sessions, std::optional<TensorView<const T, 2>>(map), memory->queries);
  linalg::multiply(backend, queries, transpose(items), scores);
}

/// Sessions whose logits are in memory at a time.
inline constexpr Index head_rows_together = 256;

template <class T>
void check_head(const char* function, const TensorView<const T, 2>& sessions,
                const ClassHead<T>& head) {
  if (head.map) {
    check_factor(function, "map", *head.map, sessions.cols());
    check(head.map->rows() >= 1, function, "map", head.map->extent, "a width of at least 1");
  }
  check_factor(function, "classes", head.classes, head.map ? head.map->rows() : sessions.cols());
  check(head.classes.rows() >= 1, function, "classes", head.classes.extent, "at least one class");
  check(is_finite(head.weight) && head.weight >= 0, function, "weight", head.weight,
        "a finite number of at least 0");
  check(static_cast<Index>(head.targets.size()) == sessions.rows(), function, "targets",
        head.targets.size(), Worded{"one for each session, ", sessions.rows()});
  for (std::size_t i = 0; i < head.targets.size(); ++i)
    check(head.targets[i] >= 0 && head.targets[i] < head.classes.rows(), function, "targets",
          std::array<Index, 2>{static_cast<Index>(i), head.targets[i]},
          Worded{"[session, class] with a class from 0 to below ", head.classes.rows()});
  checked_count(function, "classes",
                checked_product(function, "classes", head.classes.rows(), head_rows_together),
                sizeof(T));
}

template <class T>
void check_loss(const char* function, const TensorView<const T, 2>& sessions,
                std::span<const ClassHead<T>> heads, std::span<double> losses) {
  check_factor(function, "sessions", sessions, sessions.cols());
  check(sessions.rows() >= 1 && sessions.cols() >= 1, function, "sessions", sessions.extent,
        "at least one session and a dim of at least 1");
  check(!heads.empty(), function, "heads", "no head", "at least one");
  for (const ClassHead<T>& head : heads) check_head(function, sessions, head);
  check(losses.empty() || losses.size() == heads.size(), function, "losses", losses.size(),
        Worded{"none, or one for each head, ", static_cast<Index>(heads.size())});
}

/// Sum of -ln softmax over a block of sessions, whose logits become probabilities if `keep`.
template <class B, class T>
double block_loss(const B& backend, TensorView<T, 2> logits, std::span<const Index> targets,
                  bool keep, AlignedBuffer<T>& memory) {
  const TensorView<T, 1> sums{
      memory.resize(static_cast<std::size_t>(logits.rows())), {logits.rows()}, {1}};
  transformer::log_sum_exp(backend, as_const(logits), sums);
  double loss = 0;
  for (Index i = 0; i < logits.rows(); ++i)
    loss += static_cast<double>(sums(i)) -
            static_cast<double>(logits(i, targets[static_cast<std::size_t>(i)]));
  if (keep) transformer::softmax(backend, as_const(logits), logits);
  return loss;
}

/// The mean cross-entropy of a head; of gradients, also what `visit(begin, queries, logits)` makes
/// of the probabilities of each block of sessions.
template <class B, class T, class Visit>
double head_loss(const B& backend, const TensorView<const T, 2>& sessions, const ClassHead<T>& head,
                 ClassMemory<T>& memory, bool keep, const Visit& visit) {
  double loss = 0;
  for (Index begin = 0; begin < sessions.rows(); begin += head_rows_together) {
    const Index count = std::min(head_rows_together, sessions.rows() - begin);
    const auto queries =
        head_queries(backend, rows_of(sessions, begin, count), head.map, memory.queries);
    const TensorView<T, 2> logits = matrix_in(memory.logits, count, head.classes.rows());
    linalg::multiply(backend, queries, transpose(head.classes), logits);
    loss += block_loss(
        backend, logits,
        head.targets.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count)),
        keep, memory.sums);
    if (keep) visit(begin, queries, logits);
  }
  return loss / static_cast<double>(sessions.rows());
}

/// The sum by weights; a head without weight adds nothing, whatever its loss.
template <class T>
double add_losses(std::span<const ClassHead<T>> heads, std::span<const double> each,
                  std::span<double> losses) {
  double total = 0;
  for (std::size_t h = 0; h < heads.size(); ++h)
    if (heads[h].weight > 0) total += heads[h].weight * each[h];
  std::copy(each.begin(), losses.empty() ? each.begin() : each.end(), losses.begin());
  return total;
}

template <class B, class T>
double multi_task_loss(const char* function, const B& backend, TensorView<const T, 2> sessions,
                       std::span<const ClassHead<T>> heads, std::span<double> losses) {
  check_loss(function, sessions, heads, losses);
  const auto memory = leased<ClassMemory<T>>(backend);
  const auto each = leased<std::vector<double>>(backend);
  each->clear();
  for (const ClassHead<T>& head : heads)
    each->push_back(
        head_loss(backend, sessions, head, *memory, false, [](Index, const auto&, const auto&) {}));
  return add_losses(heads, *each, losses);
}

/// An output fits, and is apart from all that is read.
template <class T>
void check_head_output(const char* function, const char* argument, const TensorView<T, 2>& out,
                       const std::array<Index, 2>& wanted, const TensorView<const T, 2>& sessions,
                       std::span<const ClassHead<T>> heads) {
  check_writable(function, argument, out);
  check_extents<2>(function, argument, out.extent, wanted);
  check_contiguous_rows(function, argument, out);
  check_no_overlap(function, argument, out, "sessions", sessions);
  for (const ClassHead<T>& head : heads) {
    check_no_overlap(function, argument, out, "classes", head.classes);
    if (head.map) check_no_overlap(function, argument, out, "map", *head.map);
  }
}

template <class T>
void check_gradients(const char* function, const TensorView<const T, 2>& sessions,
                     std::span<const ClassHead<T>> heads, const TensorView<T, 2>& by_sessions,
                     std::span<const ClassGradient<T>> by_heads,
                     std::vector<TensorView<T, 2>>& outputs) {
  check_head_output(function, "by_sessions", by_sessions, sessions.extent, sessions, heads);
  check(by_heads.size() == heads.size(), function, "by_heads", by_heads.size(),
        Worded{"one for each head, ", static_cast<Index>(heads.size())});
  outputs.assign(1, by_sessions);
  const auto check_one = [&](const char* argument, const TensorView<T, 2>& out,
                             const std::array<Index, 2>& wanted) {
    check_head_output(function, argument, out, wanted, sessions, heads);
    for (const TensorView<T, 2>& other : outputs)
      check_no_overlap(function, argument, out, "another gradient", other);
    outputs.push_back(out);
  };
  for (std::size_t h = 0; h < heads.size(); ++h) {
    check_one("by_classes", by_heads[h].by_classes, heads[h].classes.extent);
    check(by_heads[h].by_map.has_value() == heads[h].map.has_value(), function, "by_map",
          by_heads[h].by_map.has_value() ? "a gradient" : "none", "one where the head has a map");
    if (heads[h].map) check_one("by_map", *by_heads[h].by_map, heads[h].map->extent);
  }
}

/// One head's gradients, added to by_sessions.
template <class B, class T>
double head_gradient(const B& backend, const TensorView<const T, 2>& sessions,
                     const ClassHead<T>& head, const TensorView<T, 2>& by_sessions,
                     const ClassGradient<T>& by, ClassMemory<T>& memory) {
  linalg::fill_zeros(by.by_classes);
  if (by.by_map) linalg::fill_zeros(*by.by_map);
  const auto scale = static_cast<T>(head.weight / static_cast<double>(sessions.rows()));
  return head_loss(
      backend, sessions, head, memory, head.weight > 0,
      [&](Index begin, const TensorView<const T, 2>& queries, const TensorView<T, 2>& logits) {
        for (Index i = 0; i < logits.rows(); ++i) {
          logits(i, head.targets[static_cast<std::size_t>(begin + i)]) -= T(1);
          T* const row = &logits(i, 0);
          for (Index c = 0; c < logits.cols(); ++c) row[c] *= scale;
        }
        const auto errors = as_const(logits);
        const TensorView<T, 2> to = rows_of(by_sessions, begin, logits.rows());
        linalg::multiply(backend, transpose(errors), queries, by.by_classes, {.accumulate = true});
        if (!head.map)
          return linalg::multiply(backend, errors, head.classes, to, {.accumulate = true});
        const TensorView<T, 2> by_queries =
            matrix_in(memory.by_queries, logits.rows(), head.map->rows());
        linalg::multiply(backend, errors, head.classes, by_queries);
        linalg::multiply(backend, as_const(by_queries), *head.map, to, {.accumulate = true});
        linalg::multiply(backend, transpose(as_const(by_queries)),
                         rows_of(sessions, begin, logits.rows()), *by.by_map, {.accumulate = true});
      });
}

template <class B, class T>
double multi_task_gradient(const B& backend, TensorView<const T, 2> sessions,
                           std::span<const ClassHead<T>> heads, TensorView<T, 2> by_sessions,
                           std::span<const ClassGradient<T>> by_heads, std::span<double> losses) {
  constexpr const char* function = "retrieval::multi_task_gradient";
  check_loss(function, sessions, heads, losses);
  const auto outputs = leased<std::vector<TensorView<T, 2>>>(backend);
  check_gradients(function, sessions, heads, by_sessions, by_heads, *outputs);
  const auto memory = leased<ClassMemory<T>>(backend);
  const auto each = leased<std::vector<double>>(backend);
  each->clear();
  linalg::fill_zeros(by_sessions);
  for (std::size_t h = 0; h < heads.size(); ++h)
    each->push_back(head_gradient(backend, sessions, heads[h], by_sessions, by_heads[h], *memory));
  return add_losses(heads, *each, losses);
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
