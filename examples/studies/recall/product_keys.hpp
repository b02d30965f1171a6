// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// SPT's product-quantised keys, and the exact top keys in their place: lists of as many keys.

#include "recall/method.hpp"

#include <pare/attention/attend_key_lists.hpp>
#include <pare/attention/product_keys.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace recall {

/// For each query the keys of the largest scores, as many as SPT lists: the best that lists can do.
inline pare::attention::KeyLists top_keys(const Heads& h, Index keys) {
  const Index heads = h.q.dimension(1), tokens = h.q.dimension(2), dim = h.q.dimension(3);
  std::vector<std::vector<std::int32_t>> lists;
  for (Index head = 0; head < h.q.dimension(0) * heads; ++head) {
    const Index kv = head / heads * h.k.dimension(1) + head % heads / (heads / h.k.dimension(1));
    const Eigen::Map<const Matrix> q(h.q.data() + head * tokens * dim, tokens, dim);
    const Eigen::Map<const Matrix> k(h.k.data() + kv * tokens * dim, tokens, dim);
    for (Index i = 0; i < tokens; ++i) {
      const Eigen::VectorXf scores = k.topRows(i + 1) * q.row(i).transpose();
      std::vector<std::int32_t> list(std::size_t(i) + 1);
      for (std::size_t j = 0; j < list.size(); ++j) list[j] = std::int32_t(j);
      const Index count = std::min(keys, i + 1);
      std::nth_element(list.begin(), list.begin() + (count - 1), list.end(),
                       [&](auto a, auto b) { return scores[a] > scores[b]; });
      list.resize(std::size_t(count));
      std::sort(list.begin(), list.end());
      lists.push_back(std::move(list));
    }
  }
  return pare::attention::KeyLists::from_lists({h.q.dimension(0), heads, tokens, tokens, true},
                                               lists);
}

/// Attention over the lists that choose(call, keys) gives, of a share of the tokens.
template <class Choose>
pare::attention::AttendStats attend_lists(const Call& call, double share, const Choose& choose) {
  const auto keys = Index(std::ceil(share * double(call.heads.q.dimension(2))));
  const auto start = std::chrono::steady_clock::now();
  const pare::attention::KeyLists lists = choose(call, keys);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  auto stats = recall::attend(call, lists);
  stats.select_seconds = seconds.count();
  return stats;
}

/// Codebooks are trained on the heads themselves, within the time of selecting.
inline pare::attention::KeyLists product_keys(const Call& call, Index keys) {
  const auto book = pare::attention::train_codebook(call.backend, call.heads.q, call.heads.k);
  return pare::attention::select_keys(call.backend, call.heads.q, call.heads.k, book,
                                      {.keys = keys});
}

/// The share of the exact top keys that SPT's lists hold, where queries have to choose.
inline double top_key_recall(const Call& call, Index keys) {
  const pare::attention::KeyLists spt = product_keys(call, keys), top = top_keys(call.heads, keys);
  std::vector<std::int32_t> both(std::size_t{1} << 20);
  double found = 0, wanted = 0;
  for (std::size_t r = 0; r + 1 < top.offsets().size(); ++r) {
    const Index heads = top.shape().heads, queries = top.shape().queries, row = Index(r);
    if (row % queries < keys) continue;
    const auto a = spt.row(row / queries / heads, row / queries % heads, row % queries);
    const auto b = top.row(row / queries / heads, row / queries % heads, row % queries);
    found += double(std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), both.begin()) -
                    both.begin());
    wanted += double(b.size());
  }
  return found / wanted;
}

inline std::vector<Method> list_methods() {
  const std::vector<double> shares = {0.02, 0.05, 0.125, 0.25, 0.5};
  return {{"spt", "SPT: product keys", "share", 0.125, shares,
           [](const Call& call, double share) { return attend_lists(call, share, product_keys); }},
          {"top-k", "exact top keys", "share", 0.125, shares, [](const Call& call, double share) {
             return attend_lists(call, share,
                                 [](const Call& c, Index n) { return top_keys(c.heads, n); });
           }}};
}

}  // namespace recall
