// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Draft heads: logits z = W h of hidden states h over a vocabulary, however W is stored, and what
/// a drafter wants of them. `DraftHead` is the concept, `HeadCalls` the calls that every head has.
///
/// ```cpp
/// const DenseHead<pare::bf16> head(pare::as_const(pare::to_view(w)));  // w [vocabulary, inputs]
/// const auto top = head.top_k(hidden, 8);                 // hidden [rows, inputs]
/// top.id(0, 0), top.log_probability(0, 0);                // the likeliest token of row 0
/// const auto greedy = head.argmax(hidden);                // [rows]
/// const auto drawn = head.sample(hidden, positions, {.seed = 7}, 0.8);  // at temperature 0.8
/// head.values_at(hidden, tokens, values);                 // logits of chosen tokens only
/// head.logits(hidden, z);                                 // all of them: [rows, outputs]
/// ```
///
/// - `DenseHead<S>` (dense_head.hpp): W in panels of float, double, bf16 or f16;
/// - `QuantizedHead` (dense_head.hpp): in panels of bytes, with a scale for each output;
/// - `StoredHead<W>` (stored_head.hpp): rows where they lie, of float, bf16, f16, Q8_0, Q4_0, Q4_1;
/// - `LowRankHead<S>` (low_rank_head.hpp): up down, of rank r (SlimSpec);
/// - `MarkovHead<S>` (markov_head.hpp): [up second] of a latent and of an embedding of the last
///   token;
/// - `SubsetHead<Head>` (subset_head.hpp): another head's, for some tokens (FR-Spec, EAGLE-3).
///
/// All calls compute a panel of 64 logits (32 of double) at a time and take in what is wanted while
/// it is in the first-level cache. N rows have the bits of N calls of one row, on any number of
/// threads; up to about 6 rows take the time of one, which is that of reading W.
///
/// A NaN or an infinity in a row or in W reaches the answers of the rows it meets, and they say so
/// (`RowStatus`). A row all of whose logits are -infinity is no law either.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/detail/head_checks.hpp>
#include <pare/draft/detail/head_rows.hpp>
#include <pare/draft/detail/reduce_head.hpp>
#include <pare/draft/head_summary.hpp>
#include <pare/draft/reference.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::draft {

/// A draft head. `ids()` are the tokens of its outputs, rising; empty: output i is token i.
template <class H>
concept DraftHead = requires(const H& head, TensorView<const typename H::scalar, 2> hidden,
                             TensorView<typename H::scalar, 2> logits, const HeadRequest& request,
                             HeadSummary<typename H::scalar>& summary) {
  requires ComputeScalar<typename H::scalar>;
  { head.inputs() } -> std::same_as<Index>;
  { head.outputs() } -> std::same_as<Index>;
  { head.vocabulary() } -> std::same_as<Index>;
  { head.ids() } -> std::same_as<std::span<const std::int32_t>>;
  head.reduce(simd, hidden, request, summary);
  head.reduce(reference, hidden, request, summary);
  head.logits(simd, hidden, logits);
};

/// Rows that a head of T reads, and those that it writes.
template <class X, class T>
concept HeadRows = In<X, 2> && std::same_as<scalar_of<X>, T>;
template <class Y, class T>
concept HeadOutput = Out<Y, 2> && std::same_as<scalar_of<Y>, T>;

PARE_ABI_BEGIN

/// The calls of a head. `Head` derives from it and has
/// - `inputs()`, `outputs()`, `vocabulary()`, `ids()` as in DraftHead;
/// - `tiles()`, where logits come from, panel by panel, and
///   `latents(backend, hidden, buffer)`, the rows [rows, inputs of the tiles] that they are made
///   of, each contiguous;
/// - `reference_logits(hidden, row, z)`, one row of logits in plain loops and double;
/// - if it takes no number of rows, `check_rows(rows)`, which throws;
/// - if it views memory, `check_viewed(function, output, y)`, which throws if y shares it.
///
/// Hidden states are [rows, inputs] of float (of double for heads of double), any strides; rows
/// that are not contiguous are copied. No rows: a no-op. The backend comes first; left out:
/// pare::simd. Cost: 2 inputs outputs FLOPs a row of a dense head, but what binds is reading W once
/// for all rows. Memory: the summary's, and 64 states of k + 4 numbers for each row, in the
/// backend's workspace.
template <class Head, ComputeScalar T>
class HeadCalls {
 public:
  using scalar = T;

  /// All that is asked for in one pass over W.
  ///
  /// \param hidden  [rows, inputs]
  /// \param request what is wanted of each row
  /// \param out     takes the answer; unchanged if the call is refused
  /// \throws std::invalid_argument if hidden does not fit, a member of the request is out of its
  ///         range, or a member of out has memory that the call reads
  template <Backend B, HeadRows<T> H>
  void reduce(const B& backend, const H& hidden, const HeadRequest& request,
              HeadSummary<T>& out) const {
    const auto h = checked("draft::reduce", to_view(hidden));
    validate("draft::reduce", request, h.rows());
    detail::check_summary_apart("draft::reduce", head(), out, h);
    run_reduce(backend, h, request, out);
  }
  PARE_REFUSE_CONST_CALLS(
      reduce, "draft::reduce",
      "wanted hidden of float (double for a head of double), a backend before it, and behind it a "
      "HeadRequest, members spelt and ordered as declared, and a HeadSummary",
      (INPUT, (roles::Reads<2>), "hidden", "[rows, inputs]"),
      (ANY, (roles::TakesAny), "request", "a HeadRequest"),
      (ANY, (roles::TakesAny), "out", "a HeadSummary"))

  /// The k likeliest tokens of each row with their log-probabilities at a temperature.
  /// \param k at least 1; more than outputs(): all
  /// \throws std::invalid_argument as reduce
  template <Backend B, HeadRows<T> H>
  HeadSummary<T> top_k(const B& backend, const H& hidden, Index k, double temperature = 1) const {
    check(k >= 1, "draft::top_k", "k", k, "at least 1");
    HeadSummary<T> out;
    reduce(backend, hidden, {.k = k, .temperature = temperature}, out);
    return out;
  }
  /// \overload
  template <HeadRows<T> H>
  HeadSummary<T> top_k(const H& hidden, Index k, double temperature = 1) const {
    return top_k(simd, hidden, k, temperature);
  }
  PARE_REFUSE_CONST_CALLS(
      top_k, "draft::top_k",
      "wanted hidden of float (double for a head of double), and behind it k and a temperature",
      (INPUT, (roles::Reads<2>), "hidden", "[rows, inputs]"),
      (ANY, (roles::TakesAny), "k", "a number"))

  /// [rows] the likeliest token, of equal ones the lowest; -1 of a row that is not Sound.
  template <Backend B, HeadRows<T> H>
  std::vector<std::int32_t> argmax(const B& backend, const H& hidden) const {
    return top_k(backend, hidden, 1).ids;
  }
  /// \overload
  template <HeadRows<T> H>
  std::vector<std::int32_t> argmax(const H& hidden) const {
    return argmax(simd, hidden);
  }
  PARE_REFUSE_CONST_CALLS(
      argmax, "draft::argmax",
      "wanted hidden of float (double for a head of double), and nothing behind it",
      (INPUT, (roles::Reads<2>), "hidden", "[rows, inputs]"))

  /// [rows] tokens drawn from softmax(z / temperature) with the noise of each row's position; -1 of
  /// a row that is not Sound. Below a temperature of 1e-5: argmax.
  /// \throws std::invalid_argument as reduce
  template <Backend B, HeadRows<T> H>
  std::vector<std::int32_t> sample(const B& backend, const H& hidden,
                                   std::span<const Index> positions, GumbelNoise noise,
                                   double temperature = 1) const {
    HeadSummary<T> out;
    reduce(backend, hidden, {.temperature = temperature, .noise = noise, .positions = positions},
           out);
    return out.drawn;
  }
  /// \overload
  template <HeadRows<T> H>
  std::vector<std::int32_t> sample(const H& hidden, std::span<const Index> positions,
                                   GumbelNoise noise, double temperature = 1) const {
    return sample(simd, hidden, positions, noise, temperature);
  }
  PARE_REFUSE_CONST_CALLS(sample, "draft::sample",
                          "wanted hidden of float (double for a head of double), and behind it "
                          "positions of pare::Index, noise and a temperature",
                          (INPUT, (roles::Reads<2>), "hidden", "[rows, inputs]"),
                          (ANY, (roles::TakesAny), "positions", "one for each row"),
                          (ANY, (roles::TakesAny), "noise", "GumbelNoise"))

  /// Logits of chosen tokens: values(r, j) is that of row r and token tokens[r * columns + j], with
  /// the bits that it has in every other call; -infinity of a token that the head does not have.
  ///
  /// \param tokens [rows x columns of values], each in [0, vocabulary())
  /// \param values [rows, any number of columns], any strides; apart from hidden
  /// Cost: a panel, 64 tokens' part of W, for each value.
  /// \throws std::invalid_argument if an extent does not fit, a token is out of range, or values
  ///         overlaps hidden or what the head views; nothing is written then
  template <Backend B, HeadRows<T> H, HeadOutput<T> Y>
  void values_at(const B& backend, const H& hidden, std::span<const std::int32_t> tokens,
                 Y&& values) const {
    constexpr const char* function = "draft::values_at";
    const auto h = checked(function, to_view(hidden));
    const auto y = to_view(values);
    check_writable(function, "values", y);
    check_extents<2>(function, "values", y.extent, {h.rows(), y.cols()});
    detail::check_apart(function, head(), "values", y, h);
    const Index count = checked_product(function, "values", y.rows(), y.cols());
    check(static_cast<Index>(tokens.size()) == count, function, "tokens", tokens.size(),
          Worded{"one for each of ", count, " values"});
    std::vector<Index> wanted;
    wanted.reserve(tokens.size());
    for (const std::int32_t token : tokens) {
      check(token >= 0 && token < head().vocabulary(), function, "tokens", token,
            Worded{"0 to below ", head().vocabulary()});
      wanted.push_back(detail::output_of(head().ids(), token));
    }
    if (count == 0) return;
    if constexpr (KernelBackend<B>) {
      const auto any = on_any_executor(backend);
      const auto memory = leased<detail::HeadMemory>(any);
      const auto x = head().latents(any, h, memory->latents);
      detail::write_values(any, head().tiles(), x, std::span<const Index>(wanted), y);
    } else {
      detail::reference_values(head(), h, std::span<const Index>(wanted), y);
    }
  }
  /// \overload
  template <HeadRows<T> H, HeadOutput<T> Y>
  void values_at(const H& hidden, std::span<const std::int32_t> tokens, Y&& values) const {
    values_at(simd, hidden, tokens, values);
  }
  PARE_REFUSE_CONST_CALLS(values_at, "draft::values_at",
                          "wanted hidden of float (double for a head of double), tokens of "
                          "std::int32_t, and values of the scalar of hidden",
                          (INPUT, (roles::Reads<2>), "hidden", "[rows, inputs]"),
                          (ANY, (roles::TakesAny), "tokens", "tokens"),
                          (OUTPUT, (roles::WritesComputed<2>), "values", "[rows, columns]"))

  /// y = all logits, in the order of the head's outputs.
  ///
  /// \param y [rows, outputs], any strides; apart from hidden
  /// \throws std::invalid_argument if an extent does not fit or y overlaps hidden or what the head
  ///         views; nothing is written then
  template <Backend B, HeadRows<T> H, HeadOutput<T> Y>
  void logits(const B& backend, const H& hidden, Y&& y) const {
    constexpr const char* function = "draft::logits";
    const auto h = checked(function, to_view(hidden));
    const auto out = to_view(y);
    check_writable(function, "y", out);
    check_extents<2>(function, "y", out.extent, {h.rows(), head().outputs()});
    detail::check_apart(function, head(), "y", out, h);
    if (h.rows() == 0) return;
    if constexpr (KernelBackend<B>) {
      const auto any = on_any_executor(backend);
      const auto memory = leased<detail::HeadMemory>(any);
      const auto x = head().latents(any, h, memory->latents);
      detail::write_logits(any, head().tiles(), x, out);
    } else {
      detail::reference_rows(head(), h, [&](Index r, std::span<const T> z) {
        for (Index o = 0; o < out.cols(); ++o) out(r, o) = z[static_cast<std::size_t>(o)];
      });
    }
  }
  /// \overload
  template <HeadRows<T> H, HeadOutput<T> Y>
  void logits(const H& hidden, Y&& y) const {
    logits(simd, hidden, y);
  }
  PARE_REFUSE_CONST_CALLS(logits, "draft::logits",
                          "wanted hidden of float (double for a head of double), and y of the same",
                          (INPUT, (roles::Reads<2>), "hidden", "[rows, inputs]"),
                          (OUTPUT, (roles::WritesComputed<2>), "y", "[rows, outputs]"))

 private:
  const Head& head() const { return static_cast<const Head&>(*this); }

  TensorView<const T, 2> checked(const char* function, TensorView<const T, 2> h) const {
    return detail::checked_hidden(function, head(), h);
  }

  template <class B>
  void run_reduce(const B& backend, TensorView<const T, 2> h, const HeadRequest& request,
                  HeadSummary<T>& out) const {
    detail::size_summary(h.rows(), head().outputs(), request, out);
    if (h.rows() == 0) return;
    if constexpr (KernelBackend<B>) {
      const auto any = on_any_executor(backend);
      const auto memory = leased<detail::HeadMemory>(any);
      const auto x = head().latents(any, h, memory->latents);
      const auto tiles = head().tiles();
      const auto ids = head().ids();
      detail::HeadReduction reduction(any, tiles, ids.empty() ? nullptr : ids.data(), h.rows(),
                                      request, memory->states);
      reduction.run(x, out);
    } else {
      detail::reference_rows(head(), h, [&](Index r, std::span<const T> z) {
        reference_summary<T>(z, head().ids(), request, r, out);
      });
    }
  }
};

PARE_ABI_END

}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
