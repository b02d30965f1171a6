// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// k-medians of one sub-space: seeds, rounds, medians, in plain loops in double.

#include <pare/attention/detail/reference_row.hpp>
#include <pare/core/check.hpp>
#include <pare/core/random.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/product_codes.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Refuses heads that a codebook cannot be of; returns the number of sub-spaces.
template <class S>
Index check_codebook(const char* name, const TensorView<const S, 4>& q,
                     const TensorView<const S, 4>& k, Index width) {
  check_view(name, "q", q);
  check_view(name, "k", k);
  check(q.extent[0] == k.extent[0], name, "q", q.extent,
        Worded{"the batch of the keys, ", k.extent[0]});
  check(k.extent[1] >= 1 && q.extent[1] >= 1 && q.extent[1] % k.extent[1] == 0, name, "q", q.extent,
        Worded{"a multiple of the ", k.extent[1], " key/value heads as heads"});
  check(q.extent[3] == k.extent[3] && k.extent[3] >= 1, name, "q", q.extent,
        Worded{"the last dimension of the keys, ", k.extent[3]});
  check(width >= 1 && k.extent[3] % width == 0, name, "width", width,
        Worded{"a divisor of the head dim, ", k.extent[3]});
  check(k.extent[3] / width <= 255, name, "width", width, "at most 255 sub-spaces");
  return k.extent[3] / width;
}

/// Distance sum_c |a_c - b_c|.
template <class A, class B>
double l1_distance(const A* a, const B* b, Index width) {
  double sum = 0;
  for (Index c = 0; c < width; ++c)
    sum += std::abs(static_cast<double>(a[c]) - static_cast<double>(b[c]));
  return sum;
}

/// The nearest of 16 codewords, of equal ones the first; 0 for a row with a NaN.
template <class A, class B>
Index nearest_word(const A* row, const B* words, Index width) {
  Index nearest = 0;
  double least = std::numeric_limits<double>::infinity();
  for (Index w = 0; w < kernel::product_codewords; ++w) {
    const double distance = l1_distance(row, words + w * width, width);
    if (!(distance < least)) continue;
    least = distance;
    nearest = w;
  }
  return nearest;
}

/// Adds up to `most` finite rows of some heads, at even distances.
template <class S>
void add_samples(const TensorView<const S, 4>& x, Index first_head, Index heads, Index most,
                 std::vector<double>& samples) {
  const Index tokens = x.extent[2], rows = x.extent[0] * heads * tokens;
  const Index taken = std::min(rows, most);
  for (Index i = 0; i < taken; ++i) {
    // i rows / taken, without the product of two large numbers.
    const Index r = rows / taken * i + rows % taken * i / taken;
    const std::size_t begin = samples.size();
    bool finite = true;
    for (Index c = 0; c < x.extent[3]; ++c) {
      const double value =
          reference_value(x(r / tokens / heads, first_head + r / tokens % heads, r % tokens, c));
      finite &= is_finite(value);
      samples.push_back(value);
    }
    if (!finite) samples.resize(begin);
  }
}

/// Queries and keys of a key/value head, [rows, dim].
template <class S>
std::vector<double> codebook_samples(const char* name, const TensorView<const S, 4>& q,
                                     const TensorView<const S, 4>& k, Index kv_head, Index most) {
  std::vector<double> samples;
  const Index group = q.extent[1] / k.extent[1];
  add_samples(q, kv_head * group, group, most, samples);
  add_samples(k, kv_head, 1, most, samples);
  const Index rows = static_cast<Index>(samples.size()) / k.extent[3];
  check(rows >= kernel::product_codewords, name, "q, k", rows,
        "at least 16 rows of finite numbers for a key/value head");
  return samples;
}

/// Columns [first, first + width) of rows [rows, dim].
struct MedianTraining {
  const std::vector<double>& samples;
  Index dim = 0;
  Index first = 0;
  Index width = 0;

  Index rows() const { return static_cast<Index>(samples.size()) / dim; }
  const double* row(Index r) const { return samples.data() + r * dim + first; }

  /// 16 codewords, [16, width]: seeds, then rounds of nearest words and their medians. Without a
  /// row of its own a word stays as it is.
  std::vector<double> run(Index rounds, std::array<std::uint64_t, 2> seed) const {
    std::vector<double> words = seeds(seed);
    std::vector<std::vector<Index>> members(kernel::product_codewords);
    for (Index round = 0; round < rounds; ++round) {
      for (std::vector<Index>& list : members) list.clear();
      for (Index r = 0; r < rows(); ++r)
        members[static_cast<std::size_t>(nearest_word(row(r), words.data(), width))].push_back(r);
      const std::vector<double> before = words;
      for (Index w = 0; w < kernel::product_codewords; ++w)
        take_median(members[static_cast<std::size_t>(w)], words.data() + w * width);
      if (words == before) break;
    }
    return words;
  }

 private:
  /// Greedy k-means++ by L1 distance: of four rows, each drawn with a probability in proportion to
  /// its distance from the seeds so far, the one that leaves the least total distance is the next.
  /// Where all distances are 0, seeds repeat.
  std::vector<double> seeds(std::array<std::uint64_t, 2> seed) const {
    constexpr std::uint32_t drawn = 4;
    std::vector<double> words, least(static_cast<std::size_t>(rows()), 1.0);
    for (std::uint32_t w = 0; w < kernel::product_codewords; ++w) {
      std::vector<double> best, candidate;
      Index seed_row = 0;
      for (std::uint32_t i = 0; i < drawn; ++i) {
        const PhiloxCounter random =
            philox({w, static_cast<std::uint32_t>(seed[1]), i, 0x53505443u}, PhiloxKey(seed[0]));
        const Index r = draw(least, to_unit_double(random[0], random[1]));
        candidate = w == 0 ? std::vector<double>(least.size(), infinite) : least;
        for (Index other = 0; other < rows(); ++other) {
          double& d = candidate[static_cast<std::size_t>(other)];
          d = std::min(d, l1_distance(row(other), row(r), width));
        }
        if (!best.empty() && total(candidate) >= total(best)) continue;
        best = candidate;
        seed_row = r;
      }
      words.insert(words.end(), row(seed_row), row(seed_row) + width);
      least = best;
    }
    return words;
  }

  static constexpr double infinite = std::numeric_limits<double>::infinity();
  static double total(const std::vector<double>& x) {
    return std::accumulate(x.begin(), x.end(), 0.0);
  }
  /// A row with a probability in proportion to its weight.
  Index draw(const std::vector<double>& weights, double unit) const {
    double left = unit * total(weights);
    Index r = 0;
    while (r + 1 < rows() && (left -= weights[static_cast<std::size_t>(r)]) >= 0) ++r;
    return r;
  }

  /// The median of each column, of an even number of rows the lower one.
  void take_median(const std::vector<Index>& members, double* word) const {
    if (members.empty()) return;
    std::vector<double> column(members.size());
    const auto middle = column.begin() + static_cast<std::ptrdiff_t>((members.size() - 1) / 2);
    for (Index c = 0; c < width; ++c) {
      std::transform(members.begin(), members.end(), column.begin(),
                     [&](Index r) { return row(r)[c]; });
      std::nth_element(column.begin(), middle, column.end());
      word[c] = *middle;
    }
  }
};

PARE_ABI_END
}  // namespace pare::attention::detail
