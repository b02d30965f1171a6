// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention heads built by hand over a text, of the kinds that trained models are known to have.
///
/// A head's queries and keys are parts side by side, so that its logit, the product of query and
/// key under the usual scale 1/sqrt(128), is the sum of what its parts give:
///
/// | part | dimensions | logit of query i and key j |
/// |---|---|---|
/// | n-gram | 80 | `ngram` if the words before j are those up to i, less as fewer of them agree |
/// | topic | 80 | `topic` times the cosine of the running means of the words up to i and up to j |
/// | local | 32 | `local` exp(-(i - j)^2 / 2 length^2), by random Fourier features |
/// | heavy hitter | 1 | `heavy` times U(.6, 1] of j times U(.85, 1.15] of i, if word j is rare |
/// | sink | 1 | `sink` for j = 0 |
/// | noise | the rest | Gaussian with standard deviation `noise` |
///
/// The values of all heads are random codes of the words. An n-gram head looks for the places that
/// stand after the same words, so the code nearest to its output foretells the next word
/// (induction). Sources: Olsson et al., "In-context learning and induction heads" (2022); Xiao et
/// al., "Efficient streaming language models with attention sinks" (2024).

#include "recall_text/random.hpp"
#include "recall_text/text.hpp"

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

namespace recall {

inline constexpr Index head_dim = 128;

using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Rows = Eigen::Map<Matrix>;

/// What one head looks for; heights are logits, and 0 leaves the part out.
struct HeadSpec {
  std::string name;
  std::vector<float> ngram_weights{};  ///< of the word at i, at i - 1, ...
  float ngram = 0;
  float topic = 0;
  float local = 0;
  float local_length = 64;  ///< in tokens
  float heavy = 0;
  float sink = 0;
  float noise = .5f;         ///< standard deviation of the logit from the dimensions left over
  std::uint32_t family = 0;  ///< heads of one family have their word vectors in common
  float perturbation = 0;    ///< relative size of what is added to each part of q and k
};

/// Queries, keys and values, each [1, heads, tokens, dim].
struct Heads {
  std::vector<std::string> names;
  Tensor q, k, v;
};

/// The six heads of the workload, unlike each other.
inline std::vector<HeadSpec> standard_heads() {
  return {
      {.name = "ind3a", .ngram_weights = {1, .8f, .6f}, .ngram = 18, .sink = 9, .family = 0},
      {.name = "ind2+hh",
       .ngram_weights = {1, .7f},
       .ngram = 12,
       .heavy = 7,
       .sink = 7,
       .family = 1},
      {.name = "topic", .topic = 9, .sink = 7, .family = 2},
      {.name = "local64", .local = 8, .local_length = 64, .sink = 9, .family = 3},
      {.name = "hh", .heavy = 8, .sink = 9, .family = 4},
      {.name = "hh+topic",
       .topic = 6,
       .local = 3,
       .local_length = 64,
       .heavy = 6,
       .sink = 7,
       .family = 5},
  };
}

/// Heads that resemble each other, as neighbours in a trained model do: `copies` of each of the
/// given ones, side by side, each perturbed on its own.
inline std::vector<HeadSpec> correlated_heads(const std::vector<HeadSpec>& originals, int copies,
                                              float perturbation = 0.2f) {
  std::vector<HeadSpec> specs;
  for (const HeadSpec& original : originals)
    for (int copy = 0; copy < copies; ++copy) {
      specs.push_back(original);
      specs.back().name.append("/").append(std::to_string(copy));
      specs.back().perturbation = perturbation;
    }
  return specs;
}

namespace detail {

inline constexpr Index word_dim = 80;
inline constexpr Index position_dim = 32;
inline constexpr float topic_span = 64;
inline constexpr double heavy_share = 0.03;

/// What each stream of random numbers is for.
enum Purpose : std::uint32_t {
  code_stream,
  topic_stream,
  frequency_stream,
  rarity_stream,
  height_stream,
  gain_stream,
  query_noise_stream,
  key_noise_stream,
  query_perturbation_stream,
  key_perturbation_stream,
  ngram_stream  ///< and the numbers that follow, one for each place in the n-gram
};

/// Adds Gaussian rows to all rows of a block.
inline void add_noise(const RandomRows& random, float deviation, Eigen::Ref<Matrix> block) {
  for (Index i = 0; i < block.rows(); ++i)
    random.add_gaussian(i, block.cols(), deviation, block.row(i).data());
}

/// One Gaussian vector a word, of expected norm 1.
inline Matrix word_vectors(Index words, const RandomRows& random) {
  Matrix vectors = Matrix::Zero(words, word_dim);
  add_noise(random, 1 / std::sqrt(float(word_dim)), vectors);
  return vectors;
}

/// Row i is a unit vector of the words at i, i - 1, ...: sum_r weight_r G_r[word_{i - r}].
inline Matrix ngram_features(const Text& text, const std::vector<float>& weights,
                             std::uint64_t seed, std::uint32_t family) {
  Matrix features = Matrix::Zero(text.size(), word_dim);
  for (std::size_t r = 0; r < weights.size(); ++r) {
    const RandomRows random(seed, ngram_stream + static_cast<std::uint32_t>(r), family);
    const Matrix table = word_vectors(static_cast<Index>(text.vocabulary.size()), random);
    for (Index i = static_cast<Index>(r); i < text.size(); ++i)
      features.row(i) += weights[r] * table.row(text.word(i - static_cast<Index>(r)));
  }
  features.rowwise().normalize();
  return features;
}

/// Row i is a unit vector along the exponential average, over `topic_span` tokens, of the vectors
/// of the words up to i, each weighted by its squared inverse document frequency log(N / count).
inline Matrix topic_features(const Text& text, std::uint64_t seed, std::uint32_t family) {
  const Matrix table = word_vectors(static_cast<Index>(text.vocabulary.size()),
                                    RandomRows(seed, topic_stream, family));
  const std::vector<Index> count = count_words(text);
  const float keep = 1 - 2 / (topic_span + 1);
  Matrix features(text.size(), word_dim);
  Eigen::RowVectorXf mean = Eigen::RowVectorXf::Zero(word_dim);
  for (Index i = 0; i < text.size(); ++i) {
    const int word = text.word(i);
    const float rarity =
        std::log(float(text.size()) / float(count[static_cast<std::size_t>(word)]));
    mean = keep * mean + (1 - keep) * rarity * rarity * table.row(word);
    features.row(i) = mean.normalized();
  }
  return features;
}

/// Row i is a unit vector; the product of rows i and j is about exp(-(i - j)^2 / 2 length^2)
/// (Rahimi and Recht, "Random features for large-scale kernel machines", 2007).
inline Matrix position_features(Index tokens, float length, std::uint64_t seed,
                                std::uint32_t family) {
  const RandomRows random(seed, frequency_stream, family);
  Matrix features(tokens, position_dim);
  constexpr Index frequencies = position_dim / 2;
  const float norm = 1 / std::sqrt(float(frequencies));
  for (Index f = 0; f < frequencies; ++f) {
    const double frequency = double(random.gaussian(f)) / double(length);
    for (Index i = 0; i < tokens; ++i) {
      features(i, 2 * f) = norm * static_cast<float>(std::cos(frequency * double(i)));
      features(i, 2 * f + 1) = norm * static_cast<float>(std::sin(frequency * double(i)));
    }
  }
  return features;
}

/// The height in (.6, 1] of each token whose word is among the rarest, which together make up 3 %
/// of the text; 0 for the others. Words equally rare come in an order drawn from the seed.
inline Eigen::VectorXf heavy_heights(const Text& text, std::uint64_t seed, std::uint32_t family) {
  const std::vector<Index> count = count_words(text);
  const RandomRows random(seed, rarity_stream, family);
  std::vector<float> tie(count.size());
  for (std::size_t w = 0; w < tie.size(); ++w) tie[w] = random.uniform(static_cast<Index>(w), 0, 1);
  std::vector<std::size_t> order(count.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return count[a] != count[b] ? count[a] < count[b] : tie[a] < tie[b];
  });

  std::vector<bool> heavy(count.size(), false);
  auto left = static_cast<Index>(heavy_share * double(text.size()));
  for (std::size_t w = 0; w < order.size() && count[order[w]] <= left; ++w) {
    heavy[order[w]] = true;
    left -= count[order[w]];
  }
  const RandomRows height(seed, height_stream, family);
  Eigen::VectorXf heights = Eigen::VectorXf::Zero(text.size());
  for (Index i = 0; i < text.size(); ++i)
    if (heavy[static_cast<std::size_t>(text.word(i))]) heights[i] = height.uniform(i, .6f, 1);
  return heights;
}

/// Fills the columns of one head's q and k from left to right, in units in which the logit is q.k.
class HeadWriter {
 public:
  HeadWriter(const HeadSpec& spec, Index number, std::uint64_t seed, const Rows& q, const Rows& k)
      : spec_(spec), number_(static_cast<std::uint32_t>(number)), seed_(seed), q_(q), k_(k) {}

  /// Adds a part whose logit is `height` times the product of the two rows.
  template <class Queries, class Keys>
  void add(float height, const Queries& queries, const Keys& keys) {
    const Index dim = queries.cols();
    if (column_ + dim > head_dim)
      throw InputError("the parts of head '" + spec_.name + "' need more than " +
                       std::to_string(head_dim) + " dimensions");
    q_.middleCols(column_, dim) = height * queries;
    k_.middleCols(column_, dim) = keys;
    perturb(q_, query_perturbation_stream, dim);
    perturb(k_, key_perturbation_stream, dim);
    column_ += dim;
  }

  /// Fills what is left with noise and brings q to the scale 1/sqrt(head_dim).
  void finish() {
    const Index left = head_dim - column_;
    if (left > 0 && spec_.noise > 0) {
      // A product of two Gaussian rows of deviation s has the deviation s^2 sqrt(left).
      const float deviation = std::sqrt(spec_.noise / std::sqrt(float(left)));
      add_noise(RandomRows(seed_, query_noise_stream, number_), deviation, q_.rightCols(left));
      add_noise(RandomRows(seed_, key_noise_stream, number_), deviation, k_.rightCols(left));
    }
    q_ *= std::sqrt(float(head_dim));
  }

 private:
  void perturb(Rows& rows, Purpose purpose, Index dim) {
    if (spec_.perturbation <= 0) return;
    const RandomRows random(seed_, purpose, number_);
    const float share = spec_.perturbation / std::sqrt(float(dim));
    for (Index i = 0; i < rows.rows(); ++i) {
      auto part = rows.row(i).segment(column_, dim);
      // Another row of numbers for each part: the column is where it begins.
      random.add_gaussian(i * head_dim + column_, dim, share * part.norm(), part.data());
    }
  }

  const HeadSpec& spec_;
  std::uint32_t number_;
  std::uint64_t seed_;
  Rows q_, k_;
  Index column_ = 0;
};

/// Writes head `number`; q and k are [tokens, head_dim] and zero.
inline void write_head(const Text& text, const HeadSpec& spec, Index number, std::uint64_t seed,
                       const Rows& q, const Rows& k) {
  const Index n = text.size();
  HeadWriter head(spec, number, seed, q, k);
  if (spec.ngram != 0) {
    const Matrix words = ngram_features(text, spec.ngram_weights, seed, spec.family);
    Matrix before = Matrix::Zero(n, word_dim);
    before.bottomRows(n - 1) = words.topRows(n - 1);
    head.add(spec.ngram, words, before);
  }
  if (spec.topic != 0) {
    const Matrix topic = topic_features(text, seed, spec.family);
    head.add(spec.topic, topic, topic);
  }
  if (spec.local != 0) {
    const Matrix place = position_features(n, spec.local_length, seed, spec.family);
    head.add(spec.local, place, place);
  }
  if (spec.heavy != 0) {
    const RandomRows random(seed, gain_stream, spec.family);
    Eigen::VectorXf gain(n);
    for (Index i = 0; i < n; ++i) gain[i] = random.uniform(i, .85f, 1.15f);
    head.add(spec.heavy, gain, heavy_heights(text, seed, spec.family));
  }
  if (spec.sink != 0) head.add(spec.sink, Eigen::VectorXf::Ones(n), Eigen::VectorXf::Unit(n, 0));
  head.finish();
}

/// Head h of a tensor [1, heads, tokens, dim] as a matrix.
inline Rows head_rows(Tensor& t, Index head) {
  const Index n = t.dimension(2), d = t.dimension(3);
  return {t.data() + head * n * d, n, d};
}

}  // namespace detail

/// The code of each word, [vocabulary, head_dim]: what values are made of. Unit variance.
inline Matrix word_codes(const Text& text, std::uint64_t seed) {
  Matrix codes = Matrix::Zero(static_cast<Index>(text.vocabulary.size()), head_dim);
  detail::add_noise(RandomRows(seed, detail::code_stream), 1, codes);
  return codes;
}

/// Builds the heads over the text; a function of its arguments alone.
///
/// Cost: O(heads * tokens * head_dim). Throws InputError if the parts of a head do not fit.
inline Heads make_heads(const Text& text, const std::vector<HeadSpec>& specs, std::uint64_t seed) {
  const auto count = static_cast<Index>(specs.size());
  Heads heads{{}, Tensor(1, count, text.size(), head_dim), {}, {}};
  heads.q.setZero();
  heads.k = heads.q;
  heads.v = heads.q;
  const Matrix codes = word_codes(text, seed);
  for (Index h = 0; h < count; ++h) {
    const HeadSpec& spec = specs[static_cast<std::size_t>(h)];
    heads.names.push_back(spec.name);
    detail::write_head(text, spec, h, seed, detail::head_rows(heads.q, h),
                       detail::head_rows(heads.k, h));
    Rows values = detail::head_rows(heads.v, h);
    for (Index j = 0; j < text.size(); ++j) values.row(j) = codes.row(text.word(j));
  }
  return heads;
}

}  // namespace recall
