// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Random attention problems, what they cost, and single rows of their result in double precision.

#include "attention_peers.hpp"
#include "random_data.hpp"

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

namespace pare::bench {

/// Sizes of one sequence: [heads, queries, dim] against [kv_heads, keys, dim].
struct AttentionShape {
  Index heads = 8, kv_heads = 8, queries = 0, keys = 0, dim = 128;

  /// As many queries as keys, and as many key heads as query heads.
  static AttentionShape prefill(Index heads, Index tokens, Index dim) {
    return {heads, heads, tokens, tokens, dim};
  }
};

/// Flops of causal prefill that reach the result: two products of 2 d for each visible pair.
inline double causal_flops(const AttentionShape& s) {
  const auto n = static_cast<double>(s.queries);
  return 4.0 * static_cast<double>(s.dim * s.heads) * n * (n + 1.0) / 2.0;
}

/// Queries, keys and values of unit variance, so logits have it too, and room for the result.
template <class T>
class AttentionData {
 public:
  explicit AttentionData(const AttentionShape& shape, std::uint64_t seed = 1)
      : shape_(shape),
        q_(size(shape.heads, shape.queries)),
        k_(size(shape.kv_heads, shape.keys)),
        v_(size(shape.kv_heads, shape.keys)),
        out_(size(shape.heads, shape.queries)) {
    fill(q_.data(), size(shape.heads, shape.queries), seed);
    fill(k_.data(), size(shape.kv_heads, shape.keys), seed + 1);
    fill(v_.data(), size(shape.kv_heads, shape.keys), seed + 2);
    std::fill_n(out_.data(), size(shape.heads, shape.queries), 0.0f);
  }

  /// The same numbers in another storage type.
  template <class U>
  explicit AttentionData(const AttentionData<U>& other) : AttentionData(other.shape(), 0) {
    copy(other.q(), q_.data());
    copy(other.k(), k_.data());
    copy(other.v(), v_.data());
  }

  const AttentionShape& shape() const { return shape_; }
  TensorView<const T, 4> q() const { return view<const T>(q_, shape_.heads, shape_.queries); }
  TensorView<const T, 4> k() const { return view<const T>(k_, shape_.kv_heads, shape_.keys); }
  TensorView<const T, 4> v() const { return view<const T>(v_, shape_.kv_heads, shape_.keys); }
  TensorView<float, 4> out() const { return view<float>(out_, shape_.heads, shape_.queries); }

  /// Bytes of inputs and output.
  double bytes() const {
    const auto queries = static_cast<double>(size(shape_.heads, shape_.queries));
    const auto keys = static_cast<double>(size(shape_.kv_heads, shape_.keys));
    return (queries + 2.0 * keys) * sizeof(T) + queries * sizeof(float);
  }

  /// The first `heads` heads as a peer takes them; it writes to `out`.
  DenseHeads dense_heads(Index heads, float* out) const
  requires(std::is_same_v<T, float>)
  {
    return {q_.data(), k_.data(), v_.data(), out, heads, shape_.keys, shape_.dim};
  }

 private:
  std::size_t size(Index heads, Index tokens) const {
    return static_cast<std::size_t>(heads * tokens * shape_.dim);
  }

  static void fill(T* data, std::size_t n, std::uint64_t seed) {
    SplitMix64 random(seed);
    const double deviation = std::sqrt(3.0);
    for (std::size_t i = 0; i < n; ++i)
      data[i] = static_cast<T>(static_cast<float>(deviation * (2.0 * random.unit() - 1.0)));
  }

  template <class U>
  static void copy(TensorView<const U, 4> from, T* to) {
    const Index n = from.extent[1] * from.stride[1];
    for (Index i = 0; i < n; ++i) to[i] = static_cast<T>(static_cast<float>(from.data[i]));
  }

  template <class U, class Buffer>
  TensorView<U, 4> view(const Buffer& buffer, Index heads, Index tokens) const {
    const Index d = shape_.dim;
    return {buffer.data(), {1, heads, tokens, d}, {heads * tokens * d, tokens * d, d, 1}};
  }

  AttentionShape shape_;
  AlignedBuffer<T> q_, k_, v_;
  AlignedBuffer<float> out_;
};

/// Row `query` of a head, from the definition in double, over the keys j <= its position for which
/// keep(j); zero if there are none. Views as `attend` takes them, q bottom-right aligned to k.
template <class T, class Keep>
Eigen::VectorXd attention_row(const TensorView<const T, 4>& q, const TensorView<const T, 4>& k,
                              const TensorView<const T, 4>& v, Index head, Index query,
                              const Keep& keep) {
  const Index kv = head / (q.extent[1] / k.extent[1]), dim = q.extent[3];
  const Index visible = query + 1 + k.extent[2] - q.extent[2];
  const double scale = 1.0 / std::sqrt(static_cast<double>(dim));
  const auto value = [](const T& x) { return static_cast<double>(static_cast<compute_t<T>>(x)); };
  std::vector<double> logits(static_cast<std::size_t>(visible));
  double largest = -std::numeric_limits<double>::infinity();
  for (Index j = 0; j < visible; ++j) {
    double& logit = logits[static_cast<std::size_t>(j)];
    logit = -std::numeric_limits<double>::infinity();
    if (!keep(j)) continue;
    double sum = 0.0;
    for (Index c = 0; c < dim; ++c) sum += value(q(0, head, query, c)) * value(k(0, kv, j, c));
    logit = scale * sum;
    largest = std::max(largest, logit);
  }
  Eigen::VectorXd out = Eigen::VectorXd::Zero(v.extent[3]);
  double total = 0.0;
  for (Index j = 0; j < visible; ++j) {
    const double logit = logits[static_cast<std::size_t>(j)];
    if (std::isinf(logit)) continue;
    const double weight = std::exp(logit - largest);
    total += weight;
    for (Index c = 0; c < out.size(); ++c) out(c) += weight * value(v(0, kv, j, c));
  }
  if (total > 0.0) out /= total;
  return out;
}

/// The largest |out - definition| over a dozen rows of every head, keep(head, query, key); NaN
/// where anything is not finite.
template <class T, class Keep>
double worst_error(const TensorView<const T, 4>& q, const TensorView<const T, 4>& k,
                   const TensorView<const T, 4>& v, const TensorView<float, 4>& out,
                   const Keep& keep) {
  const Index n = q.extent[2];
  double worst = 0.0;
  for (Index head = 0; head < q.extent[1]; ++head)
    for (const Index query : {Index{0}, Index{1}, Index{63}, Index{127}, Index{128}, Index{129},
                              n / 3, n / 2 - 1, n / 2, 2 * n / 3, n - 128, n - 1}) {
      if (query < 0 || query >= n) continue;
      const Eigen::VectorXd wanted =
          attention_row(q, k, v, head, query, [&](Index j) { return keep(head, query, j); });
      for (Index c = 0; c < wanted.size(); ++c) {
        const double error = std::abs(static_cast<double>(out(0, head, query, c)) - wanted(c));
        if (!(error <= std::numeric_limits<double>::max())) return error;
        worst = std::max(worst, error);
      }
    }
  return worst;
}

inline constexpr auto every_key = [](Index, Index, Index) { return true; };

/// What a result may be off by, values being of size `largest_value`: an output is a mean of values
/// with weights exp(logit) / sum.
///
/// Floats: logits of unit variance over up to 256 products are exact to some 1e-6, and so are the
/// weights; 1e-5 is what the library promises. bf16: what reaches the second product is a weight
/// rounded to 8 bits, off by 2^-9 of itself, while their sum is not; twice that for the rest.
template <class T>
double attention_tolerance(double largest_value) {
  return (std::is_same_v<T, bf16> ? 0x1p-8 : 1e-5) * largest_value;
}

}  // namespace pare::bench
