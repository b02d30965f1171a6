// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Codebooks of product-quantised heads (SPT): 16 codewords in each sub-space, nearest by L1.
///
/// ```cpp
/// const auto book = train_codebook(q, k);                       // sub-spaces of 8 scalars
/// const auto kept = ProductCodebook<float>::from_words({.subspaces = 8, .width = 8}, words);
/// const ProductCodes codes = encode(k, book);                   // [batch, kv heads, keys, 8]
/// ```
///
/// A head of d scalars is cut in M sub-spaces of `width` scalars each; the code of a vector in a
/// sub-space is argmin_w |z - word_w|_1, of equal distances the first. Queries and keys share a
/// codebook, since the codes of both are compared (product_keys.hpp).
///
/// Source: SPT, arXiv 2312.10365, and its code (width 8, 16 codewords, L1). Ours: the paper trains
/// codewords beside the model, by the losses MSE(soft centroid, nearest) + MSE(z, nearest); here
/// the model is fixed, and `train_codebook` finds k-medians of queries and keys, the minimum of the
/// L1 distance that codes are taken by (Lloyd's rounds from greedy k-means++ seeds). Codewords of
/// another training come in by `from_words`.

#include <pare/core/macros_off.hpp>

#include <pare/attention/detail/train_codebook.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/product_codes.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace pare::attention {

/// How a codebook is trained.
struct CodebookOptions {
  /// Scalars of a sub-space; it divides the head dim. The paper's 8.
  Index width = 8;
  /// Rounds of k-medians, at least 0. Ours.
  Index rounds = 10;
  /// Queries, and as many keys, of each codebook at most, taken at even distances; at least 16.
  /// Ours.
  Index samples = 2048;
  /// Of the seeds.
  std::uint64_t seed = 0;
};

PARE_ABI_BEGIN

/// Codewords [heads, subspaces, 16, width] of T, immutable once made.
template <ComputeScalar T>
class ProductCodebook {
 public:
  struct Shape {
    Index heads = 1;      ///< 1, or the number of key/value heads
    Index subspaces = 0;  ///< 1 to 255
    Index width = 8;      ///< scalars of a sub-space

    Index dim() const { return subspaces * width; }
    friend bool operator==(const Shape&, const Shape&) = default;
  };
  static constexpr Index codewords = kernel::product_codewords;

  /// Takes codewords, [heads, subspaces, 16, width] without gaps.
  /// \throws std::invalid_argument if a size is below 1, there are more than 255 sub-spaces, there
  ///         are not that many numbers, or one is not finite.
  static ProductCodebook from_words(const Shape& shape, std::vector<T> words) {
    const char* const name = "attention::ProductCodebook::from_words";
    const Index wanted = checked_size(name, shape);
    check(static_cast<Index>(words.size()) == wanted, name, "words", words.size(), wanted);
    for (const T x : words)
      check(is_finite(static_cast<double>(x)), name, "words", x, "finite numbers");
    ProductCodebook book;
    book.shape_ = shape;
    book.words_ = std::move(words);
    return book;
  }

  const Shape& shape() const { return shape_; }
  std::span<const T> words() const { return words_; }
  /// Codewords of a head, [subspaces, 16, width]; of a codebook of one head those of any.
  const T* of(Index head) const {
    return words_.data() + (shape_.heads == 1 ? 0 : head) * shape_.dim() * codewords;
  }

 private:
  static Index checked_size(const char* name, const Shape& s) {
    check(s.heads >= 1 && s.width >= 1, name, "shape", std::array<Index, 2>{s.heads, s.width},
          "heads and a width of at least 1");
    check(s.subspaces >= 1 && s.subspaces <= 255, name, "subspaces", s.subspaces, "1 to 255");
    return checked_count(
        name, "words",
        checked_product(name, "words", checked_product(name, "words", s.heads, s.width),
                        s.subspaces * codewords),
        sizeof(T));
  }

  Shape shape_{};
  std::vector<T> words_;
};

/// k-medians of queries and keys: a codebook for each key/value head, from the queries of its heads
/// and its keys, over all batch entries.
///
/// \param backend whose threads train; the codewords are those of plain loops in double on any
/// \param q       [batch, heads, queries, dim]
/// \param k       [batch, kv heads, keys, dim], with at least 16 tokens of q and k together. Rows
///                with a number that is not finite are left out
/// \throws std::invalid_argument if shapes or options do not fit, sizes overflow, or fewer than
///         16 rows are finite
///
/// Cost: 64 operations (the seeds) and 16 a round for each scalar that is sampled. Memory: the
/// samples in double. The same bits for any number of threads.
template <Backend B, In<4> Q, In<4> K>
requires SameScalar<Q, K>
auto train_codebook(const B& backend, const Q& q, const K& k, const CodebookOptions& options = {}) {
  using S = scalar_of<Q>;
  using T = compute_t<S>;
  const char* const name = "attention::train_codebook";
  const auto queries = as_const(to_view(q));
  const auto keys = as_const(to_view(k));
  const Index subspaces = detail::check_codebook(name, queries, keys, options.width);
  check(options.rounds >= 0, name, "rounds", options.rounds, "at least 0");
  check(options.samples >= ProductCodebook<T>::codewords, name, "samples", options.samples,
        "at least 16");
  const Index kv_heads = keys.extent[1], words = ProductCodebook<T>::codewords * options.width;
  const Index size =
      checked_product(name, "k", checked_product(name, "k", kv_heads, subspaces), words);
  std::vector<T> trained(static_cast<std::size_t>(checked_count(name, "k", size, sizeof(T))));
  std::vector<std::vector<double>> samples(static_cast<std::size_t>(kv_heads));
  for (Index h = 0; h < kv_heads; ++h)
    samples[static_cast<std::size_t>(h)] =
        detail::codebook_samples<S>(name, queries, keys, h, options.samples);
  const auto train = [&](Index item, int) {
    const Index h = item / subspaces, s = item % subspaces;
    const detail::MedianTraining training{samples[static_cast<std::size_t>(h)], keys.extent[3],
                                          s * options.width, options.width};
    const std::vector<double> found =
        training.run(options.rounds, {options.seed, static_cast<std::uint64_t>(item)});
    for (Index i = 0; i < words; ++i)
      trained[static_cast<std::size_t>(item * words + i)] =
          static_cast<T>(found[static_cast<std::size_t>(i)]);
  };
  if constexpr (KernelBackend<B>)
    parallel_for(on_any_executor(backend).executor, kv_heads * subspaces, train);
  else
    for (Index item = 0; item < kv_heads * subspaces; ++item) train(item, 0);
  return ProductCodebook<T>::from_words({kv_heads, subspaces, options.width}, std::move(trained));
}

/// \overload
template <In<4> Q, In<4> K>
requires SameScalar<Q, K>
auto train_codebook(const Q& q, const K& k, const CodebookOptions& options = {}) {
  return train_codebook(simd, q, k, options);
}

PARE_REFUSE_CALLS(train_codebook, "attention::train_codebook",
                  "after k: wanted CodebookOptions, members spelt and ordered as declared",
                  (INPUT, (roles::Reads<4>), "q", "[batch, heads, queries, dim]"),
                  (INPUT, (roles::ReadsSame<4>), "k", "[batch, kv heads, keys, dim]"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
