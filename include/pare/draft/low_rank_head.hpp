// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// SlimSpec: a head of low rank over the whole vocabulary, z = up (down h), down [r, inputs] and up
/// [vocabulary, r], with nothing between them.
///
/// ```cpp
/// const LowRankHead<pare::bf16> head(down, up);        // trained, or of low_rank_head_of
/// const auto top = head.top_k(hidden, 8);
///
/// Eigen::Matrix<float, -1, -1, Eigen::RowMajor> u(rows, head.rank());
/// head.latents_of(hidden, u);                          // u = down h
/// u += shift;                                          // such as the term of a Markov head
/// const auto moved = head.up().top_k(u, 8);
/// ```
///
/// A call reads r (inputs + vocabulary) weights, r / inputs + r / vocabulary of the dense head. The
/// latent u is kept in float (double for double), whatever the factors are stored in. With r =
/// inputs and down = I the logits have the bits of DenseHead(up).
///
/// r may exceed inputs; the head then is not of low rank and costs more than a dense one.
///
/// Source: Plaksin, Krutikov, Skvortsov and Samarin, "SlimSpec", arXiv 2605.10453; the paper's
/// ranks are inputs / 8 and inputs / 16. Kernels and the open latent are ours.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/dense_head.hpp>
#include <pare/draft/head.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace pare::draft {
PARE_ABI_BEGIN

/// Two factors in panels of W. It can be moved, not copied.
template <kernel::HeadElement W>
class LowRankHead : public HeadCalls<LowRankHead<W>, kernel::head_t<W>> {
 public:
  using weight = W;
  using T = kernel::head_t<W>;

  /// Copies of down [rank, inputs] and up [vocabulary, rank], any strides, rounded to W.
  /// \throws std::invalid_argument if an extent is below 1 or the ranks differ
  template <In<2> D, In<2> U>
  LowRankHead(const D& down, const U& up)
      : LowRankHead{PanelHead<W>(checked(to_view(down), to_view(up))), PanelHead<W>(to_view(up))} {}

  /// The same of factors in panels.
  LowRankHead(PanelHead<W> down, PanelHead<W> up) : down_(std::move(down)), up_(std::move(up)) {
    check_rank(down_.outputs(), up_.inputs());
  }

  Index inputs() const { return down_.inputs(); }
  Index rank() const { return down_.outputs(); }
  Index outputs() const { return up_.outputs(); }
  Index vocabulary() const { return up_.outputs(); }
  std::span<const std::int32_t> ids() const { return {}; }
  Index bytes() const { return down_.bytes() + up_.bytes(); }

  /// The factors, heads of their own: `up()` takes latents [rows, rank] for hidden states.
  const PanelHead<W>& down() const { return down_; }
  const PanelHead<W>& up() const { return up_; }

  /// u = down h.
  /// \param backend left out: pare::simd
  /// \param u [rows, rank], any strides; apart from hidden
  /// \throws std::invalid_argument if an extent does not fit or u overlaps hidden
  template <Backend B, HeadRows<T> H, HeadOutput<T> U>
  void latents_of(const B& backend, const H& hidden, U&& u) const {
    down_.logits(backend, hidden, u);
  }
  /// \overload
  template <HeadRows<T> H, HeadOutput<T> U>
  void latents_of(const H& hidden, U&& u) const {
    latents_of(simd, hidden, u);
  }
  PARE_REFUSE_CONST_CALLS(latents_of, "draft::latents_of",
                          "wanted hidden of float (double for a head of double), and u of the same",
                          (INPUT, (roles::Reads<2>), "hidden", "[rows, inputs]"),
                          (OUTPUT, (roles::WritesComputed<2>), "u", "[rows, rank]"))

  auto tiles() const { return up_.tiles(); }

  template <class B>
  TensorView<const T, 2> latents(const B& backend, TensorView<const T, 2> hidden,
                                 AlignedBuffer<std::byte>& buffer) const {
    const Index copied = detail::copied_size(hidden);
    T* const memory = make_room<T>(buffer, copied + hidden.rows() * rank());
    return write_latents(backend, hidden, memory + copied, rank(), memory);
  }

  /// u [rows, rank] at `to`, of a stride; rows that are not contiguous are copied to `room`.
  template <class B>
  TensorView<const T, 2> write_latents(const B& backend, TensorView<const T, 2> hidden, T* to,
                                       Index stride, T* room) const {
    const TensorView<T, 2> u{to, {hidden.rows(), rank()}, {stride, 1}};
    detail::write_logits(backend, down_.tiles(), detail::contiguous_rows(hidden, room), u);
    return as_const(u);
  }

  void reference_logits(TensorView<const T, 2> hidden, Index row, std::vector<double>& z) const {
    std::vector<double> u(static_cast<std::size_t>(rank()));
    down_.reference_logits(hidden, row, u);
    detail::reference_product(tiles(), [&](Index i) { return u[static_cast<std::size_t>(i)]; }, z);
  }

 private:
  static void check_rank(Index down, Index up) {
    check(up == down, "draft::LowRankHead", "up", up, Worded{"the rank of down, ", down});
  }

  /// down, if both fit: before they are copied.
  template <class D, class U>
  static TensorView<D, 2> checked(TensorView<D, 2> down, TensorView<U, 2> up) {
    check_view("draft::LowRankHead", "down", down);
    check_view("draft::LowRankHead", "up", up);
    check_rank(down.rows(), up.cols());
    return down;
  }

  PanelHead<W> down_, up_;
};

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
