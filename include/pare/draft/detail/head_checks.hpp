// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What calls of heads check before they write, and where a token is among the outputs.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/head_summary.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

namespace pare::draft::detail {
PARE_ABI_BEGIN

/// Hidden states, if they are rows for the head, of which a call can have memory.
template <class Head, class T>
TensorView<const T, 2> checked_hidden(const char* function, const Head& head,
                                      TensorView<const T, 2> h) {
  check_view(function, "hidden", h);
  check_extents<2>(function, "hidden", h.extent, {h.rows(), head.inputs()});
  if constexpr (requires { head.check_rows(h.rows()); }) head.check_rows(h.rows());
  // More for each row than the summary, states, copies and latents of it.
  const Index row = h.cols() + head.tiles().inputs + head.outputs() + 4096;
  checked_count(function, "hidden", checked_product(function, "hidden", h.rows(), row), 64);
  return h;
}

/// \throws std::invalid_argument if an output shares memory with hidden states, or with what the
///         head views
template <class Head, class V, class T>
void check_apart(const char* function, const Head& head, const char* output, const V& y,
                 TensorView<const T, 2> h) {
  check_no_overlap(function, output, y, "hidden", h);
  if constexpr (requires { head.check_viewed(function, output, y); })
    head.check_viewed(function, output, y);
}

/// The same of all members of a summary.
template <class Head, class T>
void check_summary_apart(const char* function, const Head& head, HeadSummary<T>& out,
                         TensorView<const T, 2> h) {
  const auto apart = [&](auto& member) { check_apart(function, head, "out", to_view(member), h); };
  apart(out.values);
  apart(out.ids);
  apart(out.log_sum_exp);
  apart(out.maximum);
  apart(out.drawn);
}

/// The output that is a token of a head with these ids, or -1.
inline Index output_of(std::span<const std::int32_t> ids, std::int32_t token) {
  if (ids.empty()) return token;
  const auto at = std::lower_bound(ids.begin(), ids.end(), token);
  return at != ids.end() && *at == token ? at - ids.begin() : Index{-1};
}

PARE_ABI_END
}  // namespace pare::draft::detail

#include <pare/core/macros_on.hpp>
