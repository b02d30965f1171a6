// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of ids and beams: tokens are taken for a trie if and only if they are ids by a
/// second reading, the trie holds every item once, beams of hostile logits write only paths of it,
/// and what is refused is wrong. Built with PARE_FUZZ_STANDALONE it has a main that runs seeded
/// mutations of valid ids: `id_trie_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/retrieval/semantic/constrained_beam.hpp>
#include <pare/retrieval/semantic/id_trie.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <vector>

namespace {

using pare::Index;
using pare::TensorView;
using pare::fuzz::Bytes;
using pare::fuzz::Data;
using pare::fuzz::require;
using pare::retrieval::Beam;
using pare::retrieval::IdTrie;
using pare::retrieval::LiveBeams;
using pare::retrieval::Sessions;
using Path = std::vector<std::int32_t>;

struct Input {
  int levels = 0;
  Index vocabulary = 0, width = 0, items = 0;
  bool repeat = false;
  Path tokens{}, queries{};
  std::vector<std::int8_t> logits{};

  explicit Input(std::span<const std::uint8_t> data) {
    Bytes bytes(data);
    levels = bytes.number<int>();
    vocabulary = bytes.number<Index>();
    width = bytes.number<Index>();
    items = bytes.number<Index>();
    repeat = bytes.number<Index>() % 2 != 0;
    tokens = bytes.list<std::int32_t>();
    queries = bytes.list<std::int32_t>();
    logits = bytes.list<std::int8_t>();
  }

  /// Small numbers, and those that have no order or no sum.
  float logit(std::size_t at) const {
    const int value = logits.empty() ? 0 : logits[at % logits.size()];
    if (value == 127) return std::numeric_limits<float>::infinity();
    if (value == -128) return -std::numeric_limits<float>::infinity();
    if (value == 126) return std::numeric_limits<float>::quiet_NaN();
    if (value == 125) return std::numeric_limits<float>::max();
    return static_cast<float>(value) / 4;
  }
};

/// Whether tokens are ids of at least one item.
bool are_ids(const Input& x) {
  if (x.levels < 1 || x.vocabulary < 1 || x.tokens.empty()) return false;
  if (x.tokens.size() % static_cast<std::size_t>(x.levels) != 0) return false;
  return std::all_of(x.tokens.begin(), x.tokens.end(),
                     [&](std::int32_t t) { return t >= 0 && Index{t} < x.vocabulary; });
}

/// Every item stands at the end of its path, once; children ascend and lead where they say.
void check_trie(const Input& x, const IdTrie& trie) {
  const auto levels = static_cast<std::size_t>(x.levels);
  const std::size_t items = x.tokens.size() / levels;
  std::set<Path> paths;
  for (std::size_t i = 0; i < items; ++i) {
    const auto path = std::span(x.tokens).subspan(i * levels, levels);
    paths.emplace(path.begin(), path.end());
    const auto leaf = trie.find(path);
    require(leaf && trie.is_leaf(*leaf), "an item's path ends at a leaf");
    const auto held = trie.items(*leaf);
    require(std::count(held.begin(), held.end(), static_cast<Index>(i)) == 1, "it holds the item");
  }
  require(static_cast<Index>(paths.size()) == trie.leaves(), "a leaf for each path");
  Index below = 0;
  for (IdTrie::Node node = 0; node < trie.nodes(); ++node) {
    const auto tokens = trie.tokens(node);
    require(tokens.empty() == trie.is_leaf(node), "leaves have no children");
    require(std::is_sorted(tokens.begin(), tokens.end(), std::less_equal<>()), "tokens ascend");
    for (const std::int32_t t : tokens) {
      const auto child = trie.child(node, t);
      require(child && *child > node && trie.token(*child) == t, "a child is found by its token");
    }
    if (trie.is_leaf(node)) below += static_cast<Index>(trie.items(node).size());
  }
  require(below == static_cast<Index>(items), "leaves hold all items once");
  trie.find(x.queries);
}

void check_search(const Input& x, const IdTrie& trie) {
  const bool right = x.width >= 1 && x.items >= 1 && (x.repeat || x.items <= trie.leaves());
  if (x.width > 1000 || x.items > 20 || x.vocabulary > 1000) return;  // or overflow: not for here
  std::size_t at = 0;
  std::optional<Sessions> found;
  try {
    found = beam_search(trie,
                        [&](const LiveBeams& live, TensorView<float, 2> logits) {
                          require(live.beams.size() <= static_cast<std::size_t>(x.width),
                                  "at most width beams");
                          for (Index b = 0; b < logits.rows(); ++b)
                            for (Index t = 0; t < logits.cols(); ++t) logits(b, t) = x.logit(at++);
                        },
                        {.width = x.width, .items = x.items, .repeat = x.repeat});
  } catch (const std::invalid_argument&) {
  }
  require(found.has_value() == right, "a search runs if and only if its options are right");
  if (!found) return;
  const auto levels = static_cast<std::size_t>(x.levels),
             length = levels * static_cast<std::size_t>(x.items);
  std::set<Path> seen;
  for (Index s = 0; s < found->size(); ++s) {
    const auto path =
        std::span(found->tokens).subspan(static_cast<std::size_t>(s) * length, length);
    require(seen.emplace(path.begin(), path.end()).second, "sessions are different");
    std::set<IdTrie::Node> leaves;
    for (Index item = 0; item < x.items; ++item) {
      const auto leaf = trie.find(path.subspan(static_cast<std::size_t>(item) * levels, levels));
      require(leaf == found->leaf(s, item), "items are paths");
      require(leaves.insert(*leaf).second || x.repeat, "no item twice");
    }
    const auto i = static_cast<std::size_t>(s);
    require(pare::is_finite(found->scores[i]), "scores are numbers");
    require(s == 0 || found->scores[i] <= found->scores[i - 1], "scores fall");
  }
}

/// A step from any nodes: taken if they have children and scores are numbers.
void check_step(const Input& x, const IdTrie& trie) {
  if (x.vocabulary > 1000 || x.queries.size() > 20) return;
  std::vector<Beam> beams;
  bool right = x.width >= 1;
  for (std::size_t i = 0; i < x.queries.size(); ++i) {
    const float score = x.logit(i);
    beams.push_back({static_cast<double>(score), x.queries[i]});
    right = right && pare::is_finite(static_cast<double>(score)) && x.queries[i] >= 0 &&
            Index{x.queries[i]} < trie.nodes() && !trie.is_leaf(x.queries[i]);
  }
  const auto rows = static_cast<Index>(beams.size());
  std::vector<float> logits(static_cast<std::size_t>(rows * x.vocabulary));
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = x.logit(i);
  try {
    const auto steps = beam_step(
        trie, beams,
        TensorView<const float, 2>{logits.data(), {rows, x.vocabulary}, {x.vocabulary, 1}},
        x.width);
    require(right, "a step is taken if beams are right");
    for (const auto& step : steps)
      require(
          trie.child(beams[static_cast<std::size_t>(step.parent)].node, step.token) == step.node,
          "steps lead to children");
  } catch (const std::invalid_argument&) {
    require(!right, "or refused");
  }
}

/// True if the ids were taken.
bool try_bytes(std::span<const std::uint8_t> bytes) {
  const Input x(bytes);
  std::optional<IdTrie> trie;
  try {
    trie.emplace(x.tokens, x.levels, x.vocabulary);
  } catch (const std::invalid_argument&) {
  }
  require(trie.has_value() == are_ids(x), "tokens are taken if and only if they are ids");
  if (!trie) return false;
  check_trie(x, *trie);
  check_search(x, *trie);
  check_step(x, *trie);
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_bytes(std::span(data, size));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
namespace {

/// Random ids and logits, as bytes.
Data valid_ids(unsigned long long run, std::mt19937_64& random) {
  const auto below = [&](std::uint64_t n) { return static_cast<std::uint8_t>(random() % n); };
  const auto levels = static_cast<std::uint8_t>(1 + run % 4);
  const auto vocabulary = static_cast<std::uint8_t>(1 + below(9));
  Data bytes{levels, vocabulary, static_cast<std::uint8_t>(1 + below(20)),
             static_cast<std::uint8_t>(1 + below(3)), below(2)};
  const auto tokens = static_cast<std::uint8_t>(levels * (1 + below(20)));
  bytes.push_back(tokens);
  for (int i = 0; i < tokens; ++i) bytes.push_back(below(vocabulary));
  const std::uint8_t queries = below(5);
  bytes.push_back(queries);
  for (int i = 0; i < queries; ++i) bytes.push_back(below(12));
  const std::uint8_t logits = below(100);
  bytes.push_back(logits);
  for (int i = 0; i < logits; ++i) bytes.push_back(below(256));
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  return pare::fuzz::run_mutations("id_trie_fuzz", argc, argv, valid_ids, try_bytes);
}
#endif
