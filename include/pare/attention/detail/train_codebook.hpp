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
  /// k-means++ by L1 distance: a row is the next seed with a probability in proportion to its
  /// distance from those before. Where all distances are 0, seeds repeat.
  std::vector<double> seeds(std::array<std::uint64_t, 2> seed) const {
    std::vector<double> words;
    std::vector<double> distance(static_cast<std::size_t>(rows()), 1.0);
    for (std::uint32_t w = 0; w < kernel::product_codewords; ++w) {
      double total = 0;
      for (const double d : distance) total += d;
      const PhiloxCounter random =
          philox({w, static_cast<std::uint32_t>(seed[1]), 0, 0x53505443u}, PhiloxKey(seed[0]));
      double left = total * to_unit_double(random[0], random[1]);
      Index next = 0;
      while (next + 1 < rows() && (left -= distance[static_cast<std::size_t>(next)]) >= 0) ++next;
      words.insert(words.end(), row(next), row(next) + width);
      for (Index r = 0; r < rows(); ++r) {
        double& d = distance[static_cast<std::size_t>(r)];
        const double own = l1_distance(row(r), row(next), width);
        d = w == 0 ? own : std::min(d, own);
      }
    }
    return words;
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
