// SPDX-License-Identifier: Apache-2.0

/// \file
/// Attention over key lists and the choice of keys by product quantisation, beside the dense engine
/// and torch.
///
/// Lists hold keys drawn without replacement, the worst case: rows share keys by chance alone.
/// `of_limit` is the share of the multiplier's peak, 4 d flops a listed pair; each product is a
/// load, at an address that is loaded: rows of 64 floats take 2.5 cycles from L1 on a Zen 5 where
/// their products take 2, so that .8 of it is what lists can reach. `of_dense` is the time against
/// `attend` over all pairs, `of_causal` against causal `attend`; the share of pairs is `density`.
/// torch's peers: SDPA under a boolean mask, and rows gathered and multiplied, the faster of the
/// two; codes compared and counted, then topk.

#include "attention_data.hpp"
#include "counters.hpp"
#include "peer.hpp"
#include "workload.hpp"

#include <pare/attention/attend.hpp>
#include <pare/attention/attend_key_lists.hpp>
#include <pare/attention/product_keys.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;
using pare::attention::KeyLists;

const double largest_value = std::sqrt(3.0);

/// `count` keys of each row, or all that it may list, from partial shuffles.
KeyLists drawn_lists(const AttentionShape& s, Index count, bool causal) {
  const KeyLists::Shape shape{1, s.heads, s.queries, s.keys, causal};
  SplitMix64 random(7);
  std::vector<std::vector<std::int32_t>> lists;
  for (Index row = 0; row < s.heads * s.queries; ++row) {
    const Index listable = shape.listable(row % s.queries), wanted = std::min(count, listable);
    std::vector<std::int32_t> keys(static_cast<std::size_t>(listable));
    for (std::size_t j = 0; j < keys.size(); ++j) keys[j] = static_cast<std::int32_t>(j);
    for (std::size_t j = 0; j < static_cast<std::size_t>(wanted); ++j) {
      const auto left = static_cast<double>(keys.size() - j);
      std::swap(keys[j], keys[j + static_cast<std::size_t>(random.unit() * left)]);
    }
    keys.resize(static_cast<std::size_t>(wanted));
    std::sort(keys.begin(), keys.end());
    lists.push_back(std::move(keys));
  }
  return KeyLists::from_lists(shape, lists);
}

template <class T>
struct ListWork {
  ListWork(const AttentionShape& s, Index count)
      : data(AttentionData<float>(s)), lists(drawn_lists(s, count, false)) {}

  void run(int threads) {
    pare::attention::attend(pare::simd.threads(threads).with(workspace), data.q(), data.k(),
                            data.v(), data.out(), lists);
  }
  void run_dense(int threads, bool causal) {
    pare::attention::attend(pare::simd.threads(threads).with(workspace), data.q(), data.k(),
                            data.v(), data.out(), {.causal = causal});
  }
  /// Rows of the definition see all keys up to theirs, so that only those that list no later one
  /// are looked at: the last of each head.
  bool is_right() {
    run(1);
    const AttentionShape& s = data.shape();
    double worst = 0;
    for (Index head = 0; head < s.heads; ++head) {
      const auto row = lists.row(0, head, s.queries - 1);
      const Eigen::VectorXd wanted =
          attention_row(data.q(), data.k(), data.v(), head, s.queries - 1, [&](Index j) {
            return std::binary_search(row.begin(), row.end(), static_cast<std::int32_t>(j));
          });
      for (Index c = 0; c < wanted.size(); ++c) {
        const double got = data.out()(0, head, s.queries - 1, c);
        if (!std::isfinite(got)) return false;
        worst = std::max(worst, std::abs(got - wanted(c)));
      }
    }
    return worst <= attention_tolerance<float>(largest_value);
  }

  AttentionData<T> data;
  KeyLists lists;
  pare::Workspace workspace;
};

std::string name_of(const AttentionShape& s, Index count) {
  return "h" + std::to_string(s.heads) + "/" + std::to_string(s.kv_heads) + " q" +
         std::to_string(s.queries) + " n" + std::to_string(s.keys) + " d" + std::to_string(s.dim) +
         " k" + std::to_string(count);
}

template <class T>
void key_lists(benchmark::State& state, const AttentionShape& s, Index count, int threads) {
  const std::string type = std::is_same_v<T, float> ? "f32" : "bf16";
  auto& work = workload<ListWork<T>>("key lists " + type + " " + name_of(s, count),
                                     [&] { return ListWork<T>(s, count); });
  if (!work.is_right()) return state.SkipWithError("result differs from the definition");
  const double pairs = static_cast<double>(work.lists.listed());
  LimitProbe probe(threads, {{Limit::fma_f32, 4.0 * static_cast<double>(s.dim) * pairs}});
  const double own = time_between_probes(state, probe, [&] { work.run(threads); });
  const double dense = usual_seconds([&] { work.run_dense(threads, false); });
  set_of_limit(state, probe.seconds(), own);
  state.counters["of_dense"] = own / dense;
  if (s.queries == s.keys)
    state.counters["of_causal"] = own / usual_seconds([&] { work.run_dense(threads, true); });
  state.counters["density"] =
      pairs / static_cast<double>(s.heads) / static_cast<double>(s.queries * s.keys);
  state.counters["ns_a_pair"] = own * 1e9 / pairs;
  const double torch = python_peer_seconds(
      "key_lists_torch.py",
      {"attend", type, std::to_string(threads), std::to_string(s.heads), std::to_string(s.queries),
       std::to_string(s.keys), std::to_string(s.dim), std::to_string(count)});
  set_vs(state, "torch", torch, own);
  set_threads(state, threads);
}

struct SelectWork {
  explicit SelectWork(const AttentionShape& s)
      : data(s), book(pare::attention::train_codebook(data.q(), data.k())) {}

  void run(int threads) {
    const auto backend = pare::simd.threads(threads).with(workspace);
    select_keys(backend, encode(backend, data.q(), book), encode(backend, data.k(), book), {},
                lists);
  }
  /// Whether no key that some rows leave out agrees more than one that they list, or as often and
  /// comes later.
  bool is_right() {
    run(2);
    const KeyLists fast = lists;
    run(1);
    const auto q = encode(data.q(), book), k = encode(data.k(), book);
    const Index sub = q.extent[3], step = std::max<Index>(1, q.extent[2] / 16);
    bool right = lists == fast;
    for (Index i = q.extent[2] - 1; i >= 0; i -= step) {
      const auto row = lists.row(0, 0, i);
      std::pair<Index, Index> least{sub + 1, 0}, left_out{-1, 0};
      for (Index j = 0; j <= i; ++j) {
        std::pair<Index, Index> rank{0, j};
        for (Index s = 0; s < sub; ++s)
          rank.first += q.of(0, 0)[i * sub + s] == k.of(0, 0)[j * sub + s] ? 1 : 0;
        if (std::binary_search(row.begin(), row.end(), static_cast<std::int32_t>(j)))
          least = std::min(least, rank);
        else
          left_out = std::max(left_out, rank);
      }
      right = right && least > left_out;
    }
    return right;
  }

  AttentionData<float> data;
  pare::attention::ProductCodebook<float> book;
  KeyLists lists;
  pare::Workspace workspace;
  bool checked = false, right = false;
};

void product_keys(benchmark::State& state, Index tokens, int threads) {
  const AttentionShape s = AttentionShape::prefill(1, tokens, 64);
  auto& work = workload<SelectWork>("product keys " + name_of(s, 0), [&] { return SelectWork(s); });
  if (!std::exchange(work.checked, true)) work.right = work.is_right();
  if (!work.right) return state.SkipWithError("lists differ from the definition's");
  pare::Workspace workspace;
  const auto dense = [&](bool causal) {
    return usual_seconds([&] {
      pare::attention::attend(pare::simd.threads(threads).with(workspace), work.data.q(),
                              work.data.k(), work.data.v(), work.data.out(), {.causal = causal});
    });
  };
  const double own = time_alone(state, [&] { work.run(threads); });
  state.counters["of_dense"] = own / dense(false);
  state.counters["of_causal"] = own / dense(true);
  const double torch = python_peer_seconds(
      "key_lists_torch.py", {"select", "f32", std::to_string(threads), "1", std::to_string(tokens),
                             std::to_string(tokens), "64", std::to_string(tokens / 8)});
  set_vs(state, "torch", torch, own);
  const pare::attention::ProductKeyBytes bytes = product_key_bytes(
      work.book, encode(work.data.q(), work.book), encode(work.data.k(), work.book), work.lists);
  state.counters["lists_of_map"] = static_cast<double>(bytes.codebook + bytes.codes + bytes.lists) /
                                   static_cast<double>(bytes.dense_map);
  set_threads(state, threads);
}

template <class T>
void register_lists(const std::string& name, const AttentionShape& s, Index count, int calls) {
  for (const int threads : {1, all_threads()}) {
    large(benchmark::RegisterBenchmark(
              ("heads/key_lists/" + name + (threads == 1 ? "/t1" : "")).c_str(),
              [=](benchmark::State& state) { key_lists<T>(state, s, count, threads); }),
          calls);
    if (all_threads() == 1) break;
  }
}

const bool registered = [] {
  register_lists<float>("n8192/k1024", AttentionShape::prefill(1, 8192, 64), 1024, 3);
  register_lists<float>("n8192/k1024/d128", AttentionShape::prefill(1, 8192, 128), 1024, 2);
  register_lists<pare::bf16>("n8192/k1024/bf16", AttentionShape::prefill(1, 8192, 64), 1024, 3);
  register_lists<float>("n1000/k125", AttentionShape::prefill(4, 1000, 80), 125, 10);
  register_lists<float>("decode/n32768/k2048", {32, 8, 1, 32768, 128}, 2048, 10);
  for (const Index tokens : {1024, 8192})
    for (const int threads : {1, all_threads()}) {
      large(benchmark::RegisterBenchmark(
                ("heads/product_keys/n" + std::to_string(tokens) + (threads == 1 ? "/t1" : ""))
                    .c_str(),
                [=](benchmark::State& state) { product_keys(state, tokens, threads); }),
            5);
      if (all_threads() == 1) break;
    }
  return true;
}();

}  // namespace
