// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A low-rank head with a Markov term (DSpark): what the last token adds to the logits,
///
///     z = up (down h) + second first[last],
///
/// first [vocabulary, R] an embedding of the last token, second [vocabulary, R].
///
/// ```cpp
/// const MarkovHead<pare::bf16> head(down, up, first, second);
/// const std::vector<std::int32_t> last{token};             // [rows]
/// const auto top = head.after(last).top_k(hidden, 8);
/// ```
///
/// Both terms are one product with [up second], of the latent [down h; first[last]], so that the
/// Markov term costs R more inputs of the up-projection and nothing else. DSpark's gated term,
/// second (sigmoid(G [h; e]) * e), is that of a latent which the caller computes: pass it to
/// `up().top_k`, whose inputs are [rank + R].
///
/// Source: DSpark's Markov head, in SpecForge (specforge/modeling/draft/dspark.py), where R is
/// `markov_rank`, 256 in its configurations. One product for both: ours.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/dense_head.hpp>
#include <pare/draft/head.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::draft {
PARE_ABI_BEGIN

/// Factors in panels of S, and the embedding of the last token in S. It can be moved, not copied.
template <StorageScalar S>
class MarkovHead {
 public:
  using T = compute_t<S>;

  /// \param down   [rank, inputs]
  /// \param up     [vocabulary, rank]
  /// \param first  [vocabulary, R]
  /// \param second [vocabulary, R]; all with any strides, rounded to S
  /// \throws std::invalid_argument if an extent is below 1 or does not fit
  template <In<2> D, In<2> U, In<2> F, In<2> E>
  MarkovHead(const D& down, const U& up, const F& first, const E& second)
      : down_(checked(to_view(down), to_view(up), to_view(first), to_view(second))),
        up_(to_view(up).rows(), joined(to_view(up).cols(), to_view(first).cols())) {
    const auto u = as_const(to_view(up));
    const auto f = as_const(to_view(first));
    const auto s = as_const(to_view(second));
    const Index markov = f.cols();
    std::vector<T> row(static_cast<std::size_t>(rank() + markov));
    embedding_.resize(
        static_cast<std::size_t>(checked_product("draft::MarkovHead", "first", u.rows(), markov)));
    for (Index v = 0; v < u.rows(); ++v) {
      for (Index i = 0; i < rank(); ++i)
        row[static_cast<std::size_t>(i)] = static_cast<T>(widened(u(v, i)));
      for (Index i = 0; i < markov; ++i) {
        row[static_cast<std::size_t>(rank() + i)] = static_cast<T>(widened(s(v, i)));
        embedding_[static_cast<std::size_t>(v * markov + i)] =
            static_cast<S>(static_cast<T>(widened(f(v, i))));
      }
      up_.set_rows(v,
                   TensorView<const T, 2>{row.data(), {1, rank() + markov}, {rank() + markov, 1}});
    }
  }

  Index inputs() const { return down_.inputs(); }
  Index rank() const { return down_.outputs(); }
  Index markov_rank() const { return up_.inputs() - rank(); }
  Index outputs() const { return up_.outputs(); }
  const PanelHead<S>& up() const { return up_; }

  /// A head for rows that follow these tokens, one for each row of hidden states. It views both.
  class After : public HeadCalls<After, T> {
   public:
    After(const MarkovHead& head, std::span<const std::int32_t> last) : head_(&head), last_(last) {}

    Index inputs() const { return head_->inputs(); }
    Index outputs() const { return head_->outputs(); }
    Index vocabulary() const { return head_->outputs(); }
    std::span<const std::int32_t> ids() const { return {}; }
    auto tiles() const { return head_->up_.tiles(); }

    void check_rows(Index rows) const {
      check(static_cast<Index>(last_.size()) == rows, "draft::MarkovHead::after", "last",
            last_.size(), Worded{"one token for each of ", rows, " rows"});
    }

    /// \throws std::invalid_argument if an output shares memory with the last tokens
    template <class V>
    void check_viewed(const char* function, const char* output, const V& y) const {
      check_no_overlap(function, output, y, "last", to_view(last_));
    }

    template <class B>
    TensorView<const T, 2> latents(const B& backend, TensorView<const T, 2> hidden,
                                   AlignedBuffer<std::byte>& buffer) const {
      const Index wide = head_->up_.inputs(), rank = head_->rank();
      const Index copied = detail::copied_size(hidden);
      T* const memory = make_room<T>(buffer, copied + hidden.rows() * wide);
      T* const u = memory + copied;
      detail::write_logits(backend, head_->down_.tiles(), detail::contiguous_rows(hidden, memory),
                           TensorView<T, 2>{u, {hidden.rows(), rank}, {wide, 1}});
      for (Index r = 0; r < hidden.rows(); ++r)
        for (Index i = rank; i < wide; ++i) u[r * wide + i] = embedding(r, i - rank);
      return {u, {hidden.rows(), wide}, {wide, 1}};
    }

    void reference_logits(TensorView<const T, 2> hidden, Index row, std::vector<double>& z) const {
      std::vector<double> u(static_cast<std::size_t>(head_->rank()));
      head_->down_.reference_logits(hidden, row, u);
      for (Index i = 0; i < head_->markov_rank(); ++i)
        u.push_back(static_cast<double>(embedding(row, i)));
      detail::reference_product(
          tiles(), [&](Index i) { return u[static_cast<std::size_t>(i)]; }, z);
    }

   private:
    T embedding(Index row, Index i) const {
      const Index token = last_[static_cast<std::size_t>(row)];
      return static_cast<T>(
          head_->embedding_[static_cast<std::size_t>(token * head_->markov_rank() + i)]);
    }

    const MarkovHead* head_;
    std::span<const std::int32_t> last_;
  };

  /// \param last [rows] tokens, which must outlive the result
  /// \throws std::invalid_argument if one is not in the vocabulary; calls of the result also if
  ///         their rows are not as many
  After after(std::span<const std::int32_t> last) const {
    for (const std::int32_t token : last)
      check(token >= 0 && token < outputs(), "draft::MarkovHead::after", "last", token,
            Worded{"0 to below ", outputs()});
    return After(*this, last);
  }

 private:
  template <class X>
  static compute_t<X> widened(X x) {
    return static_cast<compute_t<X>>(x);
  }

  /// down, if all fit: before they are copied.
  template <class D, class U, class F, class E>
  static TensorView<D, 2> checked(TensorView<D, 2> down, TensorView<U, 2> up,
                                  TensorView<F, 2> first, TensorView<E, 2> second) {
    constexpr const char* function = "draft::MarkovHead";
    check_view(function, "down", down);
    check_view(function, "up", up);
    check_view(function, "first", first);
    check_view(function, "second", second);
    check_extents<2>(function, "up", up.extent, {up.rows(), down.rows()});
    check_extents<2>(function, "first", first.extent, {up.rows(), first.cols()});
    check_extents<2>(function, "second", second.extent, first.extent);
    return down;
  }

  static Index joined(Index rank, Index markov) {
    check(markov >= 1, "draft::MarkovHead", "first", markov, "a rank of at least 1");
    return checked_sum("draft::MarkovHead", "first", rank, markov);
  }

  PanelHead<S> down_, up_;
  std::vector<S> embedding_;  ///< [vocabulary x R]
};

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
