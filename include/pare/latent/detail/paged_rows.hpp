// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows in pages, and how rows of a matrix come there.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/narrow_rows.hpp>
#include <pare/kernel/simd.hpp>
#include <pare/latent/pages.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <type_traits>

namespace pare::latent::detail {
PARE_ABI_BEGIN

/// [pages, page size, width] elements without gaps, uninitialised.
template <class T>
class PagedRows {
 public:
  PagedRows(const char* function, const PageTable& table, Index width)
      : PagedRows(function, table.pages(), table.page_size(), width) {}
  PagedRows(const char* function, Index pages, Index page_size, Index width)
      : pages_(pages), page_size_(page_size), width_(width) {
    const Index rows = checked_product(function, "pages", pages_, page_size_);
    const Index size = checked_product(function, "pages", rows, width);
    memory_.resize(static_cast<std::size_t>(checked_count(function, "pages", size, sizeof(T))));
  }

  Index width() const { return width_; }
  PARE_ALWAYS_INLINE T* row(PageRow at) const {
    return memory_.data() + (at.page * page_size_ + at.row) * width_;
  }
  /// Asks for the row that lies `ahead` rows behind another: in its page, or in one of the memory's
  /// next, which often is the sequence's next.
  PARE_ALWAYS_INLINE void fetch_behind(PageRow at, Index ahead) const {
    constexpr auto size = static_cast<Index>(sizeof(T));
    for (Index byte = 0; byte < width_ * size; byte += 64)
      kernel::prefetch<2>(row(at), ahead * width_ * size + byte);
  }
  void copy(const PageCopy& c) const {
    if (c.rows * width_ == 0) return;
    std::memcpy(row({c.to, 0}), row({c.from, 0}),
                static_cast<std::size_t>(c.rows * width_) * sizeof(T));
  }
  TensorView<const T, 3> all() const {
    return {memory_.data(),
            {width_ == 0 ? 0 : pages_, page_size_, width_},
            {page_size_ * width_, width_, 1}};
  }

 private:
  AlignedBuffer<T> memory_;
  Index pages_, page_size_, width_;
};

/// Throws unless latents [tokens, latent] and rotary keys [tokens, rope] are sound views.
template <class C, class R>
void check_token_rows(const char* function, TensorView<const C, 2> latents,
                      TensorView<const R, 2> ropes, Index latent, Index rope) {
  check_view(function, "latent", latents);
  check_view(function, "rope", ropes);
  check_extents<2>(function, "latent", latents.extent, {latents.rows(), latent});
  check_extents<2>(function, "rope", ropes.extent, {latents.rows(), rope});
}

/// Latents and rotary keys of rows [tokens, latent + rope], which are checked.
template <class X>
std::array<TensorView<const X, 2>, 2> token_parts(const char* function, TensorView<const X, 2> rows,
                                                  Index latent, Index rope) {
  check_view(function, "rows", rows);
  check_extents<2>(function, "rows", rows.extent, {rows.rows(), latent + rope});
  auto latents = rows, ropes = rows;
  latents.extent[1] = latent;
  ropes.extent[1] = rope;
  if (rope > 0 && rows.data != nullptr) ropes.data += latent * rows.stride[1];
  return {latents, ropes};
}

/// Throws unless a sequence holds so many tokens from position `first` on.
inline void check_tokens(const char* function, const PageTable& table, Index sequence, Index first,
                         Index tokens) {
  table.check_sequence(function, sequence);
  const Index n = table.length(sequence);
  check(first >= 0 && first <= n && tokens <= n - first, function, "first",
        std::array<Index, 2>{first, tokens},
        Worded{"[first, tokens] of the ", n, " tokens of the sequence"});
  for (Index t = 0; t < tokens; ++t)
    check(table.holds(sequence, first + t), function, "first", first + t,
          "a token that was not evicted");
}

/// Tokens that lie in one page: `count` from position `first` on.
struct PageRun {
  Index first = 0;
  Index count = 0;
};

/// The part of positions [first, first + tokens) in the i-th of the pages that they meet.
inline PageRun page_run(Index first, Index tokens, Index page_size, Index i) {
  const Index begin = std::max(first, (first / page_size + i) * page_size);
  const Index end = std::min(first + tokens, (first / page_size + i + 1) * page_size);
  return {begin, end - begin};
}

/// Calls body(run) for the pages that positions [first, first + tokens) meet, on the backend's
/// threads.
template <class B, class Body>
void for_page_runs(const B& backend, Index first, Index tokens, Index page_size, const Body& body) {
  if (tokens == 0) return;
  const Index runs = (first + tokens - 1) / page_size - first / page_size + 1;
  if constexpr (KernelBackend<B>) {
    if (runs > 1)
      return parallel_for(backend.executor, runs,
                          [&](Index i, int) { body(page_run(first, tokens, page_size, i)); });
  }
  for (Index i = 0; i < runs; ++i) body(page_run(first, tokens, page_size, i));
}

/// Rows that are not contiguous, rounded as contiguous ones are: they are gathered first.
template <class B, class S>
void narrow_gathered(const B& backend, TensorView<const float, 2> x, S* out, Index out_stride) {
  constexpr Index most = 256;
  float room[most];
  for (Index r = 0; r < x.rows(); ++r)
    for (Index c = 0; c < x.cols(); c += most) {
      const Index n = std::min(most, x.cols() - c);
      for (Index i = 0; i < n; ++i) room[i] = x(r, c + i);
      launch(backend, kernel::NarrowRows<S>{room, most, out + r * out_stride + c, 0, 1, n});
    }
}

/// out_rc = x_rc, rounded to nearest where S has 16 bits and X has not.
template <class B, class X, class S>
void store_rows(const B& backend, TensorView<const X, 2> x, S* out, Index out_stride) {
  const bool contiguous = x.stride[1] == 1 || x.cols() == 1;
  if constexpr (std::is_same_v<X, S>) {
    for (Index r = 0; r < x.rows(); ++r) {
      const X* const from = x.data + r * x.stride[0];
      if (contiguous)
        std::memcpy(out + r * out_stride, from, static_cast<std::size_t>(x.cols()) * sizeof(S));
      else
        for (Index c = 0; c < x.cols(); ++c) out[r * out_stride + c] = from[c * x.stride[1]];
    }
  } else if constexpr (!KernelBackend<B>) {
    for (Index r = 0; r < x.rows(); ++r)
      for (Index c = 0; c < x.cols(); ++c) out[r * out_stride + c] = S(x(r, c));
  } else if (contiguous) {
    launch(backend,
           kernel::NarrowRows<S>{x.data, x.stride[0], out, out_stride, x.rows(), x.cols()});
  } else {
    narrow_gathered(backend, x, out, out_stride);
  }
}

/// Rows x of the tokens from position `first` on, into columns [column, column + x.cols()).
template <class B, class X, class S>
void store_tokens(const B& backend, const PageTable& table, Index sequence, Index first,
                  TensorView<const X, 2> x, const PagedRows<S>& rows, Index column) {
  if (x.cols() == 0) return;
  for_page_runs(backend, first, x.rows(), table.page_size(), [&](PageRun run) {
    const TensorView<const X, 2> part{
        x.data + (run.first - first) * x.stride[0], {run.count, x.cols()}, x.stride};
    store_rows(backend, part, rows.row(table.row(sequence, run.first)) + column, rows.width());
  });
}

PARE_ABI_END
}  // namespace pare::latent::detail
